//! The smallest guest of our own: a console on the UART, a few commands, and exact answers.
//!
//! It is written as for bare Malta and knows nothing of a monitor, so that every answer can be had
//! from bare QEMU too (`qemu-system-mips64 -M malta -kernel hello …`). It boots in a few thousand
//! instructions and in either byte order, which makes it the guest of tests that need many boots,
//! and of big-endian machines, for which nobody packages a stock kernel.
//!
//! Commands come from its command line (`do=sum,off`: comma-separated) and then from its console.
#![cfg_attr(target_os = "none", no_std, feature(asm_experimental_arch))]

#[cfg(target_os = "none")]
mod bench;
#[cfg(target_os = "none")]
mod hostile;
#[cfg(target_os = "none")]
mod machine;
#[cfg(target_os = "none")]
mod probe;
#[cfg(target_os = "none")]
mod shell;
#[cfg(target_os = "none")]
mod wild;
