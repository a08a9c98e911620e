//! Careful access: to memory that may not be there, or may vanish. A bus error becomes an error.

use crate::asm;
use abi::Mpa;

/// XKPHYS, cache attribute 3 (cached): all of physical memory, unmapped.
const XKPHYS: u64 = 0x9800_0000_0000_0000;
/// One past the highest physical address (PABITS = 36).
const PHYSICAL_END: u64 = 1 << 36;

/// Nothing answers at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vanished(pub(crate) Mpa);

impl core::fmt::Display for Vanished {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "nothing answers at machine address {}", self.0)
    }
}

/// The XKPHYS address of a machine address.
pub(crate) const fn xkphys(mpa: Mpa) -> u64 {
    assert!(mpa.0 < PHYSICAL_END, "a machine address of at most 36 bits");
    XKPHYS | mpa.0
}

/// Reads an aligned word.
pub(crate) fn load64(mpa: Mpa) -> Result<u64, Vanished> {
    let mut value = 0;
    // SAFETY: an access that traps is fixed up; reading RAM has no side effect, and callers name no
    // device registers.
    match unsafe { asm::careful_load64(xkphys(mpa), &raw mut value) } {
        0 => Ok(value),
        _ => Err(Vanished(mpa)),
    }
}

/// Writes an aligned word.
///
/// # Safety
/// If there is memory at `mpa`, the caller owns it.
pub(crate) unsafe fn store64(mpa: Mpa, value: u64) -> Result<(), Vanished> {
    // SAFETY: an access that traps is fixed up; the caller owns the memory.
    match unsafe { asm::careful_store64(xkphys(mpa), value) } {
        0 => Ok(()),
        _ => Err(Vanished(mpa)),
    }
}

/// Writes aligned words, one after the other; some of them may have been written if not all could be.
///
/// # Safety
/// If there is memory at `mpa`, the caller owns it.
pub(crate) unsafe fn store_words(mpa: Mpa, words: &[u64]) -> Result<(), Vanished> {
    let (from, to) = (words.as_ptr(), xkphys(mpa));
    // SAFETY: an access that traps is fixed up; the caller owns the memory.
    match unsafe { asm::careful_store_words(to, from, words.len() as u64) } {
        0 => Ok(()),
        _ => Err(Vanished(mpa)),
    }
}

/// Words that are copied at a time.
pub(crate) const PIECE: usize = 8;

/// Copies words from machine memory: whole pieces, from an aligned address.
pub(crate) fn copy(to: &mut [u64], mpa: Mpa) -> Result<(), Vanished> {
    assert!(to.len().is_multiple_of(PIECE) && mpa.0.is_multiple_of(8), "whole pieces");
    let at = to.as_mut_ptr() as u64;
    // SAFETY: an access that traps is fixed up; `to` has as many words as are written; callers name no
    // device registers.
    match unsafe { asm::careful_copy(at, xkphys(mpa), (to.len() / PIECE) as u64) } {
        0 => Ok(()),
        _ => Err(Vanished(mpa)),
    }
}

/// Reads 4 aligned bytes at a virtual address of the monitor: for dumps of memory that may be nonsense.
pub(crate) fn load32_at(va: u64) -> Option<u32> {
    let mut value = 0;
    // SAFETY: as for `load64`.
    (va.is_multiple_of(4) && unsafe { asm::careful_load32(va, &raw mut value) } == 0)
        .then_some(value as u32)
}

/// Reads an aligned word at a virtual address of the monitor.
pub(crate) fn load64_at(va: u64) -> Option<u64> {
    let mut value = 0;
    // SAFETY: as for `load64`.
    (va.is_multiple_of(8) && unsafe { asm::careful_load64(va, &raw mut value) } == 0)
        .then_some(value)
}
