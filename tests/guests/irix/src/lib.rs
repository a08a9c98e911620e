//! An IRIX-like kernel: small, in the manner of System V Release 4, for bare Malta with 1 to 4 CPUs.
//!
//! It is the guest of tests that need a *kernel* at work: user processes in address spaces of their own,
//! a UTLB refill handler, fork with copy on write, exec, pipes, signals, preemption, several CPUs. It
//! knows nothing of a monitor, so that whatever it prints can be had from bare QEMU too
//! (`qemu-system-mips64 -M malta -cpu MIPS64R2-generic -kernel irix …`), and boots in 8 MB.
//!
//! One source, two links (`irix.ld`). In KSEG0, where IRIX was linked, no kernel can run in supervisor
//! mode. In CKSSEG, where Disco relinked IRIX for that reason, it can: there all of its text, data and
//! page tables, and a linear window on all RAM, lie in a segment that supervisor mode reaches; KSEG0
//! and KSEG1 are left to the boot stub and to devices.
//!
//! How it works, in the order of the files:
//!
//! - `asm`: boot stub, vectors, refill, trap entry and exit, switch of stacks. The refill handler walks
//!   two levels from the directory in the CPU's private data area (PDA), a page that a wired TLB entry
//!   maps at the same address on every CPU; it has one privileged read.
//! - `lock`: one lock for the whole kernel: a CPU that is in it holds the lock and is never preempted or
//!   interrupted. Who waits for the lock answers other CPUs' requests meanwhile.
//! - `frames`, `space`, `pages`: frames with reference counts; address spaces: regions, page
//!   tables, demand-zero and copy-on-write faults; memory is *reserved* before it is promised, so that no
//!   fault ever finds none.
//! - `asid`, `smp`: address space identifiers in generations a CPU; TLB shoot-down, by an interrupt
//!   where a device can send one, else at the other's next tick.
//! - `process`, `sched`, `exec`, `pipe`, `console`, `syscall`, `trap`: what programs see.
#![cfg_attr(target_os = "none", no_std, feature(asm_experimental_arch))]

#[cfg(target_os = "none")]
mod asid;
#[cfg(target_os = "none")]
mod asm;
#[cfg(target_os = "none")]
mod console;
#[cfg(target_os = "none")]
mod cpu;
#[cfg(target_os = "none")]
mod exec;
#[cfg(target_os = "none")]
mod firmware;
#[cfg(target_os = "none")]
mod frames;
#[cfg(target_os = "none")]
mod linked;
#[cfg(target_os = "none")]
mod lock;
#[cfg(target_os = "none")]
mod pages;
#[cfg(target_os = "none")]
mod pipe;
#[cfg(target_os = "none")]
mod process;
#[cfg(target_os = "none")]
mod sched;
#[cfg(target_os = "none")]
mod smp;
#[cfg(target_os = "none")]
mod space;
#[cfg(target_os = "none")]
mod start;
#[cfg(target_os = "none")]
mod syscall;
#[cfg(target_os = "none")]
mod trap;
