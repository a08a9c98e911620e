//! The guest, with its page in a supervisor segment.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
use hello_kernel as _;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("hello is a guest kernel: it runs on the machine, not on the host");
}
