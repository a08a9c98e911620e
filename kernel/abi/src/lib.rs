//! The words that every part of Honeycomb shares: address types, identifiers, the map of low RAM,
//! and the layout of everything that crosses a boundary between two separately built programs
//! (PROM, monitor, host tools).
//!
//! Principles:
//!
//! 1. Nothing here does anything but encode and decode; there is no policy and no hardware.
//! 2. Every multi-byte value in shared memory or in a blob is **little-endian**, whatever the byte
//!    order of the machine, so that one host tool serves both.
//! 3. A decoder never trusts its input: it returns [`DecodeError`], it never panics.
//! 4. No `unsafe`: shared memory is reached through [`ring::SharedMem`], implemented by its owner.
//! 5. The PROM has no allocator: what it needs is outside the `alloc` feature.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;

pub mod addr;
pub mod codec;
#[cfg(feature = "alloc")]
pub mod company;
#[cfg(feature = "alloc")]
pub mod config;
pub mod directory;
pub mod error;
#[cfg(feature = "alloc")]
pub mod event;
pub mod hub;
pub mod ids;
pub mod image;
pub mod ipi;
pub mod layout;
pub mod map;
pub mod memmap;
#[cfg(feature = "alloc")]
pub mod note;
#[cfg(feature = "alloc")]
pub mod player;
pub mod prom;
pub mod ring;
#[cfg(feature = "alloc")]
pub mod script;
pub mod topology;

pub use addr::{Gpa, Gva, Mpa, PAGE_SHIFT, PAGE_SIZE};
pub use codec::DecodeError;
pub use error::Blame;
pub use ids::{CellId, CpuId, NodeId, VmId};
