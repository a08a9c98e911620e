//! The second-level TLB: translations of one VCPU, guest-virtual to machine-physical, that the real
//! TLB's refill handler looks up in a few instructions of assembly.
//!
//! 2,048 sets of two ways. An entry is a pair of 4 KB pages, as in the real TLB: its tag is what
//! EntryHi shows after a miss (R, VPN2 and the *real* ASID), the rest is what EntryLo0 and EntryLo1
//! are to be. The set is bits 23:13 of EntryHi ^ EntryHi >> 13, so that address spaces spread.
//!
//! Invariant, for each entry with tag (va, asid), where asid stands for the guest's address space a:
//! the guest's TLB translates va in a to the gpa whose machine page is in the entry; V only if the
//! guest's V is set and memory is there; D only if the guest's D is set and no decoded code of the
//! page is kept; G never.
//!
//! This is a module that touches raw memory: only to allocate.
#![allow(unsafe_code)]

use alloc::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use alloc::boxed::Box;
use core::cell::Cell;

/// Sets.
pub const SETS: usize = 2048;
/// Bytes of the array, and its alignment: the refill handler inserts the set's number into its
/// address.
pub const SIZE: usize = SETS * size_of::<Set>();

/// A pair of pages.
/// Cells: a guest runs by what they say while they are filled.
#[derive(Debug)]
#[repr(C)]
pub struct Pair {
    /// As EntryHi; 0: none (no guest runs in real address space 0).
    pub tag: Cell<u64>,
    /// As EntryLo0 and EntryLo1.
    pub lo: Cell<[u64; 2]>,
    /// When it was put here, to replace the older one.
    age: Cell<u64>,
}

/// The two places that a pair may be at.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Set(pub [Pair; 2]);

#[derive(Debug)]
#[repr(C, align(131072))]
struct Sets([Set; SETS]);

const _: () = assert!(size_of::<Sets>() == SIZE && align_of::<Sets>() == SIZE);

/// The L2TLB of one VCPU.
#[derive(Debug)]
pub struct L2Tlb {
    sets: Box<Sets>,
    clock: Cell<u64>,
}

/// The bits of an address that a tag has: R and VPN2 of 42 address bits.
pub(super) const TAG_VA: u64 = (3 << 62) | ((1 << 42) - (1 << 13));

/// The tag of `va` in real address space `asid`.
#[must_use]
pub const fn tag(va: u64, asid: u8) -> u64 {
    va & TAG_VA | asid as u64
}

impl L2Tlb {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        let layout = Layout::new::<Sets>();
        // SAFETY: the layout is not empty. All zeroes are a valid array of integers, so that the box
        // owns an initialised value of this layout from the global allocator.
        let sets = unsafe {
            let memory = alloc_zeroed(layout).cast::<Sets>();
            if memory.is_null() {
                handle_alloc_error(layout);
            }
            Box::from_raw(memory)
        };
        Self { sets, clock: Cell::new(0) }
    }

    /// The array, for the refill handler: [`SIZE`] bytes, aligned to that.
    #[must_use]
    pub fn base(&self) -> *const Set {
        self.sets.0.as_ptr()
    }

    #[inline]
    fn set(&self, tag: u64) -> &[Pair; 2] {
        let index = (tag >> 13 ^ tag) as usize & (SETS - 1);
        &self.sets.0[index].0
    }

    fn find(&self, tag: u64) -> Option<&Pair> {
        self.set(tag).iter().find(|pair| pair.tag.get() == tag)
    }

    /// What is known for `tag`.
    #[must_use]
    pub fn lookup(&self, tag: u64) -> Option<[u64; 2]> {
        self.find(tag).map(|pair| pair.lo.get())
    }

    /// Puts a pair in; the tag of the one that had to go, if any.
    #[inline]
    pub fn insert(&self, tag: u64, lo: [u64; 2]) -> Option<u64> {
        let age = self.clock.get() + 1;
        self.clock.set(age);
        let [first, second] = self.set(tag);
        let tags = (first.tag.get(), second.tag.get());
        let older = || tags.1 == 0 || second.age.get() < first.age.get();
        let use_second = tags.1 == tag || tags.0 != tag && tags.0 != 0 && older();
        let (pair, old) = if use_second { (second, tags.1) } else { (first, tags.0) };
        pair.tag.set(tag);
        pair.lo.set(lo);
        pair.age.set(age);
        (old != 0 && old != tag).then_some(old)
    }

    /// Forgets a pair; whether it was there.
    pub fn forget(&self, tag: u64) -> bool {
        let found = self.find(tag);
        if let Some(pair) = found {
            pair.tag.set(0);
        }
        found.is_some()
    }

    /// The tags of the pairs that the last `count` insertions have put here.
    pub(super) fn newest(&self, count: u64, mut each: impl FnMut(u64)) {
        let before = self.clock.get().saturating_sub(count);
        for set in &self.sets.0 {
            for pair in &set.0 {
                if pair.tag.get() != 0 && pair.age.get() > before {
                    each(pair.tag.get());
                }
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&self) {
        for pair in self.sets.0.iter().flat_map(|set| &set.0) {
            pair.tag.set(0);
        }
    }
}

impl Default for L2Tlb {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_keeps_two_and_replaces_the_older() {
        let l2 = L2Tlb::new();
        let tags = [0u64, 1, 2].map(|n| tag(n << 24 | 0x4000, 7));
        assert_eq!(l2.base() as usize % SIZE, 0);
        assert_eq!(l2.insert(tags[0], [1, 2]), None);
        assert_eq!(l2.insert(tags[1], [3, 4]), None);
        assert_eq!(l2.insert(tags[0], [5, 6]), None);
        assert_eq!(l2.lookup(tags[0]), Some([5, 6]));
        assert_eq!(l2.insert(tags[2], [7, 8]), Some(tags[1]));
        assert_eq!(l2.lookup(tags[1]), None);
        assert!(l2.forget(tags[2]) && !l2.forget(tags[2]));
        assert_eq!(l2.lookup(tags[0]), Some([5, 6]));
        assert_eq!(l2.lookup(tag(0x4000, 8)), None);
        l2.clear();
        assert_eq!(l2.lookup(tags[0]), None);
    }
}
