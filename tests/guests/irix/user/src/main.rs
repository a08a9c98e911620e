//! All user programs, in one file: the first word of `exec` chooses one.
#![cfg_attr(target_os = "none", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_os = "none")]
mod checks;
#[cfg(target_os = "none")]
mod faults;
#[cfg(target_os = "none")]
mod linked;
#[cfg(target_os = "none")]
mod loops;
#[cfg(target_os = "none")]
mod mix;
#[cfg(target_os = "none")]
mod rounds;
#[cfg(target_os = "none")]
mod sh;
#[cfg(target_os = "none")]
mod share;
#[cfg(target_os = "none")]
mod start;
#[cfg(target_os = "none")]
mod sys;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("irix-user holds the programs of a guest: it runs on the machine, not on the host");
}
