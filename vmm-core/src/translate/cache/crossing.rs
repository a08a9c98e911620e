//! Blocks with a branch at their page's end, whose delay slot is in the next page: they depend on both.

use abi::{Gpa, PAGE_SIZE};
use alloc::vec::Vec;

/// Sets of them, by the next page; a power of two. A kernel's hot code has a few hundred.
const SETS: usize = 128;
/// Blocks of a set.
const WAYS: usize = 8;

/// One of them; it may have gone since.
#[derive(Clone, Copy)]
struct Crossing {
    page: Gpa,
    block: u32,
    /// Which of all the blocks that have been made it is.
    serial: u32,
}

/// All of them. Whether a block of a serial number is still there, they are told by `lives`.
pub(super) struct Crossings(Vec<[Option<Crossing>; WAYS]>);

impl Crossings {
    /// None; `None` if there is no memory for them.
    pub fn new() -> Option<Self> {
        super::filled([None; WAYS], SETS).map(Self)
    }

    const fn set(page: Gpa) -> usize {
        let number = page.0 / PAGE_SIZE;
        (number ^ number >> SETS.trailing_zeros()) as usize % SETS
    }

    /// A block whose delay slot is in the page at `page`.
    pub fn find(&self, page: Gpa, lives: impl Fn(u32, u32) -> bool) -> Option<u32> {
        let here = |all: &&Crossing| all.page == page && lives(all.block, all.serial);
        self.0[Self::set(page)].iter().flatten().find(here).map(|crossing| crossing.block)
    }

    /// Whether there is room for one more such block.
    pub fn has_room(&self, page: Gpa, lives: impl Fn(u32, u32) -> bool) -> bool {
        Self::free(&self.0[Self::set(page)], lives).is_some()
    }

    /// A block's delay slot is in the page at `page`.
    pub fn add(&mut self, page: Gpa, block: u32, serial: u32, lives: impl Fn(u32, u32) -> bool) {
        let set = &mut self.0[Self::set(page)];
        if let Some(way) = Self::free(set, lives) {
            set[way] = Some(Crossing { page, block, serial });
        }
    }

    fn free(set: &[Option<Crossing>; WAYS], lives: impl Fn(u32, u32) -> bool) -> Option<usize> {
        set.iter().position(|way| way.is_none_or(|all| !lives(all.block, all.serial)))
    }

    /// How many there are.
    #[cfg(test)]
    pub fn count(&self, lives: impl Fn(u32, u32) -> bool) -> usize {
        self.0.iter().flatten().flatten().filter(|all| lives(all.block, all.serial)).count()
    }
}
