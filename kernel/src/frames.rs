//! Machine pages of VMs as a whole: moved, and spoiled.
//!
//! Carefully: a page may be borrowed from a cell that dies meanwhile.

use crate::asm;
use crate::careful::xkphys;
use abi::{Mpa, PAGE_SIZE};

/// What a spoiled page is full of. As an instruction it is one that MIPS64R2 does not have (the major opcode 0x1e);
/// as an address it is odd, and no segment has it.
const SPOILED: u64 = 0x7bad_7bad_7bad_7bad;

/// The pieces of a page that are copied or filled at a time.
const PIECES: u64 = PAGE_SIZE / 64;

/// Copies a page; whether both pages are there.
///
/// # Safety
/// If there is memory at `to`, the caller owns it; nobody writes to `from` meanwhile.
pub(crate) unsafe fn copy(from: Mpa, to: Mpa) -> bool {
    assert!(is_page(from) && is_page(to), "pages");
    // SAFETY: an access that traps is fixed up; the rest is the caller's promise.
    unsafe { asm::careful_copy(xkphys(to), xkphys(from), PIECES) == 0 }
}

/// Overwrites a page with what is neither an instruction nor an address. Where nothing is there, nothing happens.
///
/// # Safety
/// If there is memory at `mpa`, the caller owns it.
pub(crate) unsafe fn spoil(mpa: Mpa) {
    assert!(is_page(mpa), "a page");
    // SAFETY: an access that traps is fixed up; the rest is the caller's promise.
    unsafe { asm::careful_fill(xkphys(mpa), SPOILED, PIECES) };
}

const fn is_page(mpa: Mpa) -> bool {
    mpa.0.is_multiple_of(PAGE_SIZE)
}
