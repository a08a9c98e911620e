//! A program for a stock Linux guest that marks where a phase begins and ends: by a line on the console, for people and
//! clocks, and by an instruction that does nothing, for whoever counts instructions.
//!
//! | it is run as | it |
//! |---|---|
//! | `/init` | marks the end of `boot` and becomes `/etc/bench/init` |
//! | `gauge run PHASE COMMAND…` | runs the command as that phase |
//! | `gauge user MEGABYTES` | fills so much memory; then, as the phase `user`, computes its SHA-256 |
//!
//! The instruction is `lui $zero, N`, right behind the line when a phase begins and right before it when it ends:
//! N is 0x1011 at the end of `boot`; 0x1012 and 0x1013 around `script`, 0x1014 and 0x1015 around `compile`,
//! 0x1016 and 0x1017 around `user`.
#![cfg_attr(target_os = "none", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_os = "none")]
mod linux;
#[cfg(target_os = "none")]
mod phases;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("gauge is a program of a guest: it runs on the machine, not on the host");
}
