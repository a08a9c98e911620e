//! Where pages lie: a table of two levels, so that it needs no large contiguous piece of the monitor's heap, with
//! 4 bytes a page, 0.1 % of the memory it maps. Entries are atomic.

use abi::{Mpa, PAGE_SHIFT};
use alloc::boxed::Box;
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

/// log2 of the entries of a leaf: a leaf is a page.
const LEAF_SHIFT: u32 = 10;

/// How many pages are looked through in a row.
const PART: usize = 256;

/// Machine page numbers; 0: not there (machine page 0 is firmware's, never a VM's).
pub(super) struct Table {
    leaves: Box<[Box<[AtomicU32]>]>,
    pages: u32,
}

impl Table {
    /// A table of so many pages, none of which is there.
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
        Ok(Self { leaves: leaves.into_boxed_slice(), pages })
    }

    /// How many pages it is for.
    pub const fn pages(&self) -> u32 {
        self.pages
    }

    /// The entry of a page; nothing past the end.
    #[inline]
    pub fn entry(&self, page: u32) -> Option<&AtomicU32> {
        let leaf = self.leaves.get((page >> LEAF_SHIFT) as usize)?;
        leaf.get((page & ((1 << LEAF_SHIFT) - 1)) as usize)
    }

    /// Where a page lies; `None` when it is not there or past the end.
    #[inline]
    pub fn get(&self, page: u32) -> Option<Mpa> {
        mpa(self.entry(page)?.load(Ordering::Acquire))
    }

    /// Takes a page out; where it lay.
    pub fn unmap(&self, page: u32) -> Option<Mpa> {
        mpa(self.entry(page)?.swap(0, Ordering::AcqRel))
    }

    /// The pages that are there, with where they lie, in parts of at most [`PART`] pages; of `stride` pages in a row each in another part.
    pub fn parts(
        &self,
        stride: usize,
    ) -> impl Iterator<Item = impl Iterator<Item = (u32, Mpa)> + '_> + '_ {
        let there = |(page, entry): (u32, &AtomicU32)| {
            mpa(entry.load(Ordering::Acquire)).map(|mpa| (page, mpa))
        };
        let chunks = (0..).zip(&self.leaves).flat_map(move |(leaf, entries)| {
            let first = leaf << LEAF_SHIFT;
            (first..).step_by(PART * stride).zip(entries.chunks(PART * stride))
        });
        chunks.flat_map(move |(first, chunk)| {
            (first..).zip(0..stride.min(chunk.len())).map(move |(first, turn)| {
                let every = chunk[turn..].iter().step_by(stride);
                (first..).step_by(stride).zip(every).filter_map(there)
            })
        })
    }

    /// The pages that are there, in order, with where they lie.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Mpa)> + '_ {
        self.parts(1).flatten()
    }
}

/// Where an entry says that a page lies.
#[inline]
pub(super) fn mpa(frame: u32) -> Option<Mpa> {
    (frame != 0).then_some(Mpa(u64::from(frame) << PAGE_SHIFT))
}

/// What an entry says of a page that lies there.
pub(super) fn frame(mpa: Mpa) -> u32 {
    u32::try_from(mpa.page()).expect("machine memory below 2^44")
}
