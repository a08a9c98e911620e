//! Emitted code, run by an interpreter that is set up as the real CPU, against the interpreter that runs
//! the guest's code itself.
#![allow(unsafe_code)]

mod counts;
mod programs;
pub(crate) mod random;
pub(crate) mod rig;
