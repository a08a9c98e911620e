//! What a *virtual* machine is: the virtual MIPS64 R2 CPU, its interpreter, the virtual Malta board,
//! and the loading of guest images.
//!
//! Principles:
//!
//! 1. No assembly, no hardware, no host: the crate runs unchanged in the monitor and in an ordinary
//!    process, and is tested there.
//! 2. The guest can cause any state; it can never cause a panic, an unbounded loop without an exit,
//!    or an access outside what [`mem::GuestMemory`] resolves.
//! 3. Time comes in through [`time::Clock`], memory through [`mem::GuestMemory`], devices through
//!    [`bus::Bus`]. Given equal answers from these, two runs are equal.
//! 4. One function emulates one instruction; every engine uses the same ones.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

extern crate alloc;

pub mod board;
pub mod bus;
pub mod cpu;
pub mod direct;
pub mod emulate;
pub mod endian;
pub mod fpu;
pub mod image;
pub mod interp;
pub mod isa;
pub mod mem;
pub mod state;
pub mod time;
pub mod translate;
pub mod vm;
