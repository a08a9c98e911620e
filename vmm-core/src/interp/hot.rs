//! Which places of the guest's code are reached often: counted where control comes to them by a jump, or
//! from outside.

use super::wary::Check;
use alloc::vec::Vec;
use core::cell::Cell;

/// How often a place is reached before it is hot.
pub(crate) const THRESHOLD: u8 = if cfg!(test) { 2 } else { 4 };
/// The count of a place that is never hot.
const NEVER: u8 = u8::MAX;
/// Places that are counted at a time; a power of two.
const PLACES: usize = 16384;

#[derive(Clone, Debug)]
struct Place {
    pc: Cell<u64>,
    count: Cell<u8>,
}

/// The counts.
#[derive(Debug)]
pub(crate) struct Hot(Vec<Place>);

impl Hot {
    /// Nothing counted yet; `None` if there is no memory for it.
    pub fn new() -> Option<Self> {
        let mut places = Vec::new();
        places.try_reserve_exact(PLACES).ok()?;
        places.resize(PLACES, Place { pc: Cell::new(1), count: Cell::new(0) });
        Some(Self(places))
    }

    #[inline(always)]
    fn place(&self, pc: u64) -> &Place {
        let number = pc >> 2 ^ pc >> 15;
        &self.0[number as usize % PLACES]
    }

    /// Control comes to `pc`: whether it is hot now.
    #[inline(always)]
    pub fn reached(&self, pc: u64) -> bool {
        let place = self.place(pc);
        if place.pc.get() != pc {
            place.pc.set(pc);
            place.count.set(1);
            return false;
        }
        let count = place.count.get();
        if count < THRESHOLD {
            place.count.set(count + 1);
            return false;
        }
        count != NEVER
    }

    /// Whether it is hot.
    pub fn is_hot(&self, pc: u64) -> bool {
        let place = self.place(pc);
        place.pc.get() == pc && place.count.get() == THRESHOLD
    }

    /// It has been reached no more than once.
    pub fn cool(&self, pc: u64) {
        let place = self.place(pc);
        if place.pc.get() == pc && place.count.get() != NEVER {
            place.count.set(1);
        }
    }

    /// It will not be hot, until its place is needed for another.
    pub fn never(&self, pc: u64) {
        let place = self.place(pc);
        place.pc.set(pc);
        place.count.set(NEVER);
    }
}

/// Execution until a place is hot.
pub(super) struct Counted<'a>(pub &'a Hot);

impl Check for Counted<'_> {
    #[inline(always)]
    fn look(&self, _: &Cell<crate::isa::Insn>) {}
    #[inline(always)]
    fn decoded(&self, _: u64, _: u32) {}
    #[inline(always)]
    fn stops(&self, next: u64) -> bool {
        self.0.reached(next)
    }
}
