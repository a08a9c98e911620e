//! The monitor: the privileged software of one cell.
//!
//! Principles:
//!
//! 1. All assembly is in [`asm`]. What it knows of structures comes from `offset_of!`.
//! 2. Nothing here decides policy: which VM runs is `cell`'s word, what a virtual machine does is
//!    `vmm-core`'s. This crate owns the real machine, and joins the two.
//! 3. A guest or an operator never makes it panic. A panic is a bug of the monitor or a broken
//!    machine; it says everything it knows in plain text on UART 0 and parks the CPUs of its cell.
//! 4. Interrupt handlers take no lock and allocate nothing: whatever was interrupted may hold any.
//! 5. Nothing depends on an interrupt having come: what is signalled is found by polling as well.
#![cfg_attr(target_os = "none", no_std, no_main, feature(asm_experimental_arch))]
#![cfg_attr(target_os = "none", deny(unreachable_pub))]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod admission;
#[cfg(target_os = "none")]
mod asm;
#[cfg(target_os = "none")]
mod awake;
#[cfg(target_os = "none")]
mod backtrace;
#[cfg(target_os = "none")]
mod careful;
#[cfg(target_os = "none")]
mod cells;
#[cfg(target_os = "none")]
mod clock;
#[cfg(target_os = "none")]
mod controller;
#[cfg(target_os = "none")]
mod cp0;
#[cfg(target_os = "none")]
mod cpus;
#[cfg(target_os = "none")]
mod direct;
#[cfg(target_os = "none")]
mod doorbell;
#[cfg(target_os = "none")]
mod frames;
#[cfg(target_os = "none")]
mod guest;
#[cfg(target_os = "none")]
mod heap;
#[cfg(target_os = "none")]
mod host;
#[cfg(target_os = "none")]
mod hub;
#[cfg(target_os = "none")]
mod link;
#[cfg(target_os = "none")]
mod lock;
#[cfg(target_os = "none")]
mod logger;
#[cfg(target_os = "none")]
mod lost;
#[cfg(target_os = "none")]
mod machine;
#[cfg(target_os = "none")]
mod memory;
#[cfg(target_os = "none")]
mod page;
#[cfg(target_os = "none")]
mod panic;
#[cfg(target_os = "none")]
mod places;
#[cfg(target_os = "none")]
mod player;
#[cfg(target_os = "none")]
mod selftest;
#[cfg(target_os = "none")]
mod sight;
#[cfg(target_os = "none")]
mod stack;
#[cfg(target_os = "none")]
mod start;
#[cfg(target_os = "none")]
mod talk;
#[cfg(target_os = "none")]
mod trap;
#[cfg(target_os = "none")]
mod uart;

/// The monitor runs on the machine only; on the host it is a stub so that the workspace builds.
#[cfg(not(target_os = "none"))]
fn main() {}
