//! What the IRIX-like kernel and its user programs share: system calls, names of programs, and the
//! workloads, whose results are known in advance because they are tested on the host.
#![cfg_attr(not(test), no_std)]

pub mod calls;
pub mod expected;
pub mod work;
