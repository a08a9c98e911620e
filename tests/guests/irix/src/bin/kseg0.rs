//! The kernel, linked in KSEG0.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
use irix_kernel as _;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("irix is a guest kernel: it runs on the machine, not on the host");
}
