//! What the guest's TLB says no longer, for an engine that has copied translations from it.
//!
//! The TLB instructions note here what they overwrite; the engine takes the notes before it relies on
//! its copies again. Without such an engine the notes fill up and become one, "everything".

use super::tlb::Entry;
use crate::mem::Page;
use abi::PAGE_SHIFT;
use alloc::boxed::Box;
use alloc::vec;

/// Notes kept apart.
const KEPT: usize = 8;
/// Bits of the filter of pages that are mapped for stores.
const FILTER: usize = 1 << 16;

/// Translations that are void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Void {
    /// Region and VPN2 of the first pair of pages.
    pub vpn: u64,
    /// The offset bits of all of them.
    pub pair_mask: u64,
    /// The address space; `None`: all.
    pub asid: Option<u8>,
}

/// The notes.
#[derive(Debug)]
pub(crate) struct Stale {
    void: [Void; KEPT],
    count: usize,
    all: bool,
    /// A superset of the pages that the engine has mapped for stores, hashed.
    stores: Box<[u64; FILTER / 64]>,
}

/// What there is to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notes {
    /// Nothing.
    None,
    /// The first so many of [`Stale::void`].
    Some(usize),
    /// Everything.
    All,
}

fn place(page: Page) -> (usize, u64) {
    let number = page.base().as_ptr().addr() >> PAGE_SHIFT;
    let bit = (number ^ number >> 16) % FILTER;
    (bit / 64, 1 << (bit % 64))
}

impl Stale {
    pub fn new() -> Self {
        let filter = vec![0; FILTER / 64].into_boxed_slice();
        Self {
            void: [Void { vpn: 0, pair_mask: 0, asid: None }; KEPT],
            count: 0,
            all: false,
            stores: filter.try_into().expect("the slice has this length"),
        }
    }

    /// An entry is overwritten or made invalid.
    pub fn entry(&mut self, entry: &Entry) {
        if entry.invalid || self.all {
            return;
        }
        let asid = (!entry.global).then_some(entry.asid);
        self.note(Void { vpn: entry.vpn, pair_mask: entry.pair_mask(), asid });
    }

    /// All private entries of an address space are made invalid.
    pub fn space(&mut self, asid: u8) {
        self.note(Void { vpn: 0, pair_mask: (1 << 62) - 1, asid: Some(asid) });
    }

    fn note(&mut self, void: Void) {
        match self.void.get_mut(self.count) {
            Some(place) => {
                *place = void;
                self.count += 1;
            }
            None => self.all = true,
        }
    }

    /// Nothing of what was known is so any more.
    pub const fn everything(&mut self) {
        self.all = true;
    }

    /// Decoded code of `page` is kept from now on: stores to it must not go unnoticed.
    pub fn executed(&mut self, page: Page) {
        let (word, bit) = place(page);
        self.all |= self.stores[word] & bit != 0;
    }

    /// The engine maps `page` for stores.
    pub fn mapped_for_stores(&mut self, page: Page) {
        let (word, bit) = place(page);
        self.stores[word] |= bit;
    }

    /// What is to be forgotten.
    #[inline]
    pub const fn notes(&self) -> Notes {
        if self.all {
            Notes::All
        } else if self.count == 0 {
            Notes::None
        } else {
            Notes::Some(self.count)
        }
    }

    /// A note.
    pub const fn void(&self, index: usize) -> Void {
        self.void[index]
    }

    /// The engine has forgotten it all.
    pub fn taken(&mut self) {
        if self.all {
            self.stores.fill(0);
        }
        (self.count, self.all) = (0, false);
    }
}
