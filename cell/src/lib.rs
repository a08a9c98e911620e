//! What a *cell* does: machine memory and its accounting, which VCPU runs next on which CPU, the life cycle of a VM,
//! the monitor console, the script player. [`LocalCell`] is all of it together.
//!
//! Principles:
//!
//! 1. No assembly, no hardware, no virtual CPU: the machine below comes in through [`Machine`], what
//!    runs a VM through [`vm::Guest`] and [`vm::Vcpu`]. The crate is tested on the host, on the simulated machine in
//!    `cell/sim`, and the monitor links the same code.
//! 2. Equal input gives equal output. Time, input and one seed are all that decides; nothing iterates
//!    over addresses or hashes.
//! 3. One VM's trouble is its own: whatever it does, the others get their turns, the console answers,
//!    and its memory comes back to the page.
//! 4. An operator's mistake is answered with its culprit and a remedy. A broken invariant is a bug of
//!    the monitor, named (`MEM-SUM`, …) and asserted.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

extern crate alloc;

pub mod console;
pub mod fault;
pub mod frames;
pub mod loan;
mod local;
pub mod memmap;
pub mod placement;
pub mod pmap;
mod pulse;
pub mod rng;
pub mod sched;
pub mod script;
mod tail;
pub mod talk;
pub mod visit;
pub mod vm;

pub use local::{
    CreateError, Created, LocalCell, Machine, Membership, Next, Note, Refused, Stage, Turn,
};
