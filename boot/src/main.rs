//! The PROM: what every CPU of the machine runs before, and below, the monitor.
//!
//! Principles:
//!
//! 1. It lies in low RAM, which no node's failure takes away, and runs through KSEG0, which needs no
//!    TLB entry: whatever happens to a cell, its CPUs have vectors to trap into and a loop to park in.
//! 2. It has no allocator, waits for nobody without a time-out, and writes nothing but its own data, the
//!    cells' copies of the monitor, the hub pages, and UART 0.
//! 3. It trusts neither boot block nor images: both carry checksums, and each mistake is one line of
//!    plain text (`prom: …`) and a failed machine, never a silent hang.
//!
//! Order of events. Each CPU clears its TLB, maps its private page, takes its exceptions over, and
//! checks in. CPU 0 waits for all of them (the boot ROM of each rewrites the GT-64120's address
//! windows, so nothing behind these can be used before the last one has passed), sets the devices and the
//! nodes' windows up, checks boot block, configuration and monitor image, and copies the image into each
//! cell. Then every CPU maps its cell's copy and jumps into it.
#![cfg_attr(target_os = "none", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_os = "none")]
mod asm;
#[cfg(target_os = "none")]
mod bringup;
#[cfg(target_os = "none")]
mod console;
#[cfg(target_os = "none")]
mod cpu;
#[cfg(target_os = "none")]
mod fail;
#[cfg(target_os = "none")]
mod garbage;
#[cfg(target_os = "none")]
mod hub;
#[cfg(target_os = "none")]
mod lost;
#[cfg(target_os = "none")]
mod pci;
#[cfg(target_os = "none")]
mod window;

/// The PROM runs on the machine only; on the host it is a stub so that the workspace builds.
#[cfg(not(target_os = "none"))]
fn main() {}
