//! The pmap of a VM: where in the machine each page of its memory lies.
//!
//! A VM's memory is one run of pages, numbered from 0; guest-physical addresses above and below
//! device windows, and their aliases, are folded onto it by the virtual board before they come here.
//! The table has two levels, so that it needs no large contiguous piece of the monitor's heap: 4 bytes
//! a page, 0.1 % of the memory it maps.
//!
//! A pmap is shared with the engines that run the VM. They only read; entries are atomic, so that
//! a page can be taken away under them: unmap it, tell every engine to forget it, reuse it.

use abi::{Mpa, PAGE_SHIFT};
use alloc::boxed::Box;
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};

/// log2 of the entries of a leaf: a leaf is a page.
const LEAF_SHIFT: u32 = 10;

/// Where the pages of a VM lie.
pub struct Pmap {
    /// Machine page numbers; 0: not there (machine page 0 is firmware's, never a VM's).
    leaves: Box<[Box<[AtomicU32]>]>,
    pages: u32,
    resident: AtomicU32,
}

impl fmt::Debug for Pmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pmap({} of {} pages)", self.resident(), self.pages)
    }
}

impl Pmap {
    /// A pmap of `pages` pages, none of them there.
    ///
    /// # Errors
    /// When the monitor's heap has not enough room.
    pub fn new(pages: u32) -> Result<Self, TryReserveError> {
        let mut leaves = Vec::new();
        leaves.try_reserve_exact(pages.div_ceil(1 << LEAF_SHIFT) as usize)?;
        let mut left = pages;
        while left > 0 {
            let len = left.min(1 << LEAF_SHIFT);
            let mut leaf = Vec::new();
            leaf.try_reserve_exact(len as usize)?;
            leaf.resize_with(len as usize, AtomicU32::default);
            leaves.push(leaf.into_boxed_slice());
            left -= len;
        }
        Ok(Self { leaves: leaves.into_boxed_slice(), pages, resident: AtomicU32::new(0) })
    }

    /// Pages of the VM's memory.
    #[must_use]
    pub const fn pages(&self) -> u32 {
        self.pages
    }

    /// How many of them are there.
    #[must_use]
    pub fn resident(&self) -> u32 {
        self.resident.load(Ordering::Relaxed)
    }

    #[inline]
    fn entry(&self, page: u32) -> Option<&AtomicU32> {
        let leaf = self.leaves.get((page >> LEAF_SHIFT) as usize)?;
        leaf.get((page & ((1 << LEAF_SHIFT) - 1)) as usize)
    }

    /// Where page `page` lies; `None` when it is not there or past the end.
    #[inline]
    #[must_use]
    pub fn get(&self, page: u32) -> Option<Mpa> {
        match self.entry(page)?.load(Ordering::Acquire) {
            0 => None,
            frame => Some(Mpa(u64::from(frame) << PAGE_SHIFT)),
        }
    }

    /// Maps `page` to `mpa`.
    ///
    /// # Panics
    /// When `page` is past the end or there already, or `mpa` is not a page a VM can have.
    pub fn map(&self, page: u32, mpa: Mpa) {
        let frame = u32::try_from(mpa.page()).expect("machine memory below 2^44");
        assert!(frame != 0 && mpa.offset() == 0, "{mpa} is no page of a VM");
        let entry = self.entry(page).expect("a page of the VM");
        let old = entry.swap(frame, Ordering::Release);
        assert!(old == 0, "page {page:#x} is mapped twice");
        self.resident.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes `page` out; where it lay.
    pub fn unmap(&self, page: u32) -> Option<Mpa> {
        match self.entry(page)?.swap(0, Ordering::AcqRel) {
            0 => None,
            frame => {
                self.resident.fetch_sub(1, Ordering::Relaxed);
                Some(Mpa(u64::from(frame) << PAGE_SHIFT))
            }
        }
    }

    /// The pages that are there, in order, with where they lie.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Mpa)> + '_ {
        (0..self.pages).filter_map(|page| self.get(page).map(|mpa| (page, mpa)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use alloc::collections::BTreeMap;

    #[test]
    fn equals_a_naive_model() {
        for pages in [0u32, 1, 1023, 1024, 1025, 3000] {
            let pmap = Pmap::new(pages).unwrap();
            let mut model: BTreeMap<u32, Mpa> = BTreeMap::new();
            let mut rng = Rng::new(u64::from(pages));
            for _ in 0..5000 {
                let page = rng.below(u64::from(pages) + 10) as u32;
                if page < pages && !model.contains_key(&page) && rng.below(3) > 0 {
                    let mpa = Mpa((1 + rng.below(u64::from(u32::MAX))) << PAGE_SHIFT);
                    pmap.map(page, mpa);
                    model.insert(page, mpa);
                } else if rng.below(2) == 0 {
                    assert_eq!(pmap.unmap(page), model.remove(&page));
                }
                assert_eq!(pmap.get(page), model.get(&page).copied());
            }
            assert_eq!(pmap.resident() as usize, model.len());
            assert!(pmap.iter().eq(model));
        }
    }

    #[test]
    #[should_panic(expected = "mapped twice")]
    fn mapping_twice_is_a_bug() {
        let pmap = Pmap::new(1).unwrap();
        pmap.map(0, Mpa(0x1000));
        pmap.map(0, Mpa(0x2000));
    }
}
