//! The second-level TLB: translations of one VCPU, guest-virtual to machine-physical, that the real
//! TLB's refill handler looks up in a few instructions of assembly.
//!
//! 2,048 sets of two ways. An entry is a pair of 4 KB pages, as in the real TLB: its tag is what
//! EntryHi shows after a miss (R, VPN2 and the *real* ASID), the rest is what EntryLo0 and EntryLo1
//! are to be. The set is bits 23:13 of EntryHi ^ EntryHi >> 13, so that address spaces spread.
//!
//! What all address spaces of a VCPU have *in common* (translated code's aliases of segments that the guest does
//! not map, and the VCPU's own pages) is there once, with a number in the place of the ASID that none is: the refill
//! handler looks there second, and puts it into the real TLB under the present ASID. Such an entry may be of a
//! pair of larger pages: then it is that of all small pairs in it.
//!
//! Invariants, for each entry with tag (va, asid), where asid stands for the guest's address space a:
//! the guest's TLB translates va in a to the gpa whose machine page is in the entry; V only if the
//! guest's V is set and memory is there; D only if the guest's D is set and no decoded code of the
//! page is kept; G never. For each with tag (va, common number): it does not depend on the guest's TLB, and is so
//! until the number is given up; again V only where memory is, D only where no code is kept, G never.
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
    /// PageMask: 0 but for what is common.
    pub mask: Cell<u32>,
    /// When it was put here, to replace the older one.
    age: Cell<u32>,
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
    clock: Cell<u32>,
}

/// The bits of an address that a tag has: R and VPN2 of 42 address bits.
pub(super) const TAG_VA: u64 = (3 << 62) | ((1 << 42) - (1 << 13));

/// The bits of a tag that are the ASID's, or the common number.
const TAG_SPACE: u64 = (1 << 13) - 1;
/// The common numbers: all that is no ASID, but for …
pub(super) const COMMON: core::ops::Range<u16> = 0x100..NOTHING_COMMON;
/// … the one that nothing has.
pub const NOTHING_COMMON: u16 = TAG_SPACE as u16;

/// The tag of `va` in real address space `asid`.
#[must_use]
pub const fn tag(va: u64, asid: u8) -> u64 {
    va & TAG_VA | asid as u64
}

/// The tag of `va` under a common number.
#[must_use]
pub const fn common_tag(va: u64, common: u16) -> u64 {
    va & TAG_VA | common as u64
}

/// Whether a tag has an ASID, not a common number.
pub(super) const fn is_private(tag: u64) -> bool {
    tag & TAG_SPACE < COMMON.start as u64
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

    /// What is known for `tag`: EntryLo0 and EntryLo1.
    #[must_use]
    pub fn lookup(&self, tag: u64) -> Option<[u64; 2]> {
        self.find(tag).map(|pair| pair.lo.get())
    }

    /// What is known for `tag`: EntryLo0, EntryLo1 and PageMask.
    #[must_use]
    pub fn lookup_masked(&self, tag: u64) -> Option<([u64; 2], u32)> {
        self.find(tag).map(|pair| (pair.lo.get(), pair.mask.get()))
    }

    /// Puts a pair of small pages in; the tag of the one that had to go, if any.
    #[inline]
    pub fn insert(&self, tag: u64, lo: [u64; 2]) -> Option<u64> {
        self.insert_masked(tag, lo, 0)
    }

    /// Puts a pair in, with its PageMask; the tag of the one that had to go, if any.
    #[inline]
    pub fn insert_masked(&self, tag: u64, lo: [u64; 2], mask: u32) -> Option<u64> {
        let age = self.clock.get().wrapping_add(1);
        self.clock.set(age);
        let [first, second] = self.set(tag);
        let tags = (first.tag.get(), second.tag.get());
        // (By how long ago it was: the clock may have come round.)
        let ago = |pair: &Pair| age.wrapping_sub(pair.age.get());
        let older = || tags.1 == 0 || ago(second) > ago(first);
        let use_second = tags.1 == tag || tags.0 != tag && tags.0 != 0 && older();
        let (pair, old) = if use_second { (second, tags.1) } else { (first, tags.0) };
        pair.tag.set(tag);
        pair.lo.set(lo);
        pair.mask.set(mask);
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
    pub(super) fn newest(&self, count: u32, mut each: impl FnMut(u64)) {
        let now = self.clock.get();
        for set in &self.sets.0 {
            for pair in &set.0 {
                if pair.tag.get() != 0 && now.wrapping_sub(pair.age.get()) < count {
                    each(pair.tag.get());
                }
            }
        }
    }

    /// Forgets all that was common.
    pub(super) fn clear_common(&self) {
        for pair in self.sets.0.iter().flat_map(|set| &set.0) {
            if !is_private(pair.tag.get()) {
                pair.tag.set(0);
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
        // The clock comes round.
        l2.clock.set(u32::MAX);
        assert_eq!(l2.insert(tags[1], [3, 4]), None);
        assert_eq!(l2.insert(tags[2], [7, 8]), Some(tags[0]));
        assert_eq!(l2.insert(tags[0], [5, 6]), Some(tags[1]));
        let mut newest = Vec::new();
        l2.newest(2, |tag| newest.push(tag));
        newest.sort_unstable();
        assert_eq!(newest, [tags[0], tags[2]]);
        l2.clear();
        assert_eq!(l2.lookup(tags[0]), None);
    }
}
