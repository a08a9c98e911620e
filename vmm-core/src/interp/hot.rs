//! Which places of the guest's code are reached often: counted where control comes to them by a jump, or
//! from outside.

use super::wary::Check;
use alloc::vec::Vec;
use core::cell::Cell;

/// How often a place is reached before it is hot.
pub(crate) const THRESHOLD: u32 = if cfg!(test) { 2 } else { 4 };
/// The count of a place that is never hot.
const NEVER: u32 = (1 << COUNT_BITS) - 1;
/// Places that are counted at a time, as a power of two: a kernel's jumps lead to tens of thousands.
const BITS: u32 = 17;
/// Bits of a count.
const COUNT_BITS: u32 = 3;

/// A place: what of its address is not in its number, and the count. (Of two places whose addresses differ in bits above
/// 47 alone, one is taken for the other.)
#[derive(Clone, Debug)]
struct Place(Cell<u32>);

impl Place {
    const fn tag(pc: u64) -> u32 {
        (pc >> (BITS + 2)) as u32
    }

    fn is(&self, pc: u64) -> bool {
        (self.0.get() >> COUNT_BITS ^ Self::tag(pc)) << COUNT_BITS == 0
    }

    fn count(&self) -> u32 {
        self.0.get() & ((1 << COUNT_BITS) - 1)
    }

    fn set(&self, pc: u64, count: u32) {
        self.0.set(Self::tag(pc) << COUNT_BITS | count);
    }
}

/// The counts.
#[derive(Debug)]
pub(crate) struct Hot(Vec<Place>);

/// Bytes of heap that they take.
pub(crate) const HEAP: usize = size_of::<Place>() << BITS;

impl Hot {
    /// Nothing counted yet; `None` if there is no memory for it.
    pub fn new() -> Option<Self> {
        let mut places = Vec::new();
        places.try_reserve_exact(1 << BITS).ok()?;
        places.resize(1 << BITS, Place(Cell::new(0)));
        Some(Self(places))
    }

    #[inline(always)]
    fn place(&self, pc: u64) -> &Place {
        let number = pc >> 2 ^ pc >> (BITS + 2);
        &self.0[number as usize % (1 << BITS)]
    }

    /// Control comes to `pc`: whether it is hot now.
    #[inline(always)]
    pub fn reached(&self, pc: u64) -> bool {
        let place = self.place(pc);
        if !place.is(pc) {
            place.set(pc, 1);
            return false;
        }
        let count = place.count();
        if count < THRESHOLD {
            place.set(pc, count + 1);
            return false;
        }
        count != NEVER
    }

    /// Whether it is hot.
    pub fn is_hot(&self, pc: u64) -> bool {
        let place = self.place(pc);
        place.is(pc) && place.count() == THRESHOLD
    }

    /// Whether it is never to be hot.
    pub fn is_never(&self, pc: u64) -> bool {
        let place = self.place(pc);
        place.is(pc) && place.count() == NEVER
    }

    /// It has been reached no more than once.
    pub fn cool(&self, pc: u64) {
        let place = self.place(pc);
        if place.is(pc) && place.count() != NEVER {
            place.set(pc, 1);
        }
    }

    /// It will not be hot, until its place is needed for another.
    pub fn never(&self, pc: u64) {
        self.place(pc).set(pc, NEVER);
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
