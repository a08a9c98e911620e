//! What a *cell* does: frames, memory accounting, which VCPU runs next, the life cycle of a VM.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

extern crate alloc;

pub mod script;
mod tail;
