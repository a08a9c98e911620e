//! Translations that the interpreter has made before: for each kind of access a direct-mapped array
//! from virtual page to host page, across all segments.
//!
//! An entry's tag is its virtual page and, in the low bits, the *context* it was made in: mode and
//! address space. So neither an exception nor a context switch flushes anything. A probe leaves the
//! address's alignment bits in the key, where an entry has zeros: an unaligned access never hits.
//!
//! Invariants: an entry is there only if the TLB and Status would translate so now, if the access is
//! to memory, and, for stores, if no code of the page is cached.

use crate::mem::Page;
use abi::{PAGE_SHIFT, PAGE_SIZE};
use alloc::boxed::Box;
use alloc::vec;

/// Entries for loads, and for stores.
const DATA: usize = 256;
/// Entries for fetches.
const FETCH: usize = 128;
/// Alignment bits below the context in a key.
const ALIGN_BITS: u32 = 3;
/// Address spaces that have a number at a time: the context's upper seven bits.
const SPACES: u8 = 127;
/// A tag that no key equals: no context has all bits set.
const EMPTY: u64 = !0;
/// The page of an address.
const PAGE_MASK: u64 = !(PAGE_SIZE - 1);

#[derive(Clone, Copy, Debug)]
struct DataEntry {
    tag: u64,
    page: Page,
}

#[derive(Clone, Copy, Debug)]
struct FetchEntry {
    tag: u64,
    slot: usize,
}

const NO_FETCH: FetchEntry = FetchEntry { tag: EMPTY, slot: 0 };

/// The arrays.
#[derive(Debug)]
pub struct SoftTlb {
    /// The present context, in place.
    context: u64,
    read: Box<[DataEntry; DATA]>,
    write: Box<[DataEntry; DATA]>,
    fetch: Box<[FetchEntry; FETCH]>,
    /// Number of each address space, from 1; 0: none yet.
    spaces: [u8; 256],
    used: u8,
}

fn boxed<T: Copy + core::fmt::Debug, const N: usize>(value: T) -> Box<[T; N]> {
    // Not through the stack.
    vec![value; N].into_boxed_slice().try_into().expect("the slice has N elements")
}

#[inline(always)]
const fn index<const N: usize>(va: u64) -> usize {
    (va >> PAGE_SHIFT) as usize & (N - 1)
}

impl SoftTlb {
    pub(crate) fn new() -> Self {
        Self {
            context: 0,
            read: boxed(DataEntry { tag: EMPTY, page: Page::nowhere() }),
            write: boxed(DataEntry { tag: EMPTY, page: Page::nowhere() }),
            fetch: boxed(NO_FETCH),
            spaces: [0; 256],
            used: 0,
        }
    }

    /// Makes (mode, address space) the context of what follows.
    pub(crate) fn select(&mut self, mode: u64, asid: u8) {
        let mut space = self.spaces[usize::from(asid)];
        if space == 0 {
            if self.used == SPACES - 1 {
                self.flush();
                self.spaces = [0; 256];
                self.used = 0;
            }
            self.used += 1;
            space = self.used;
            self.spaces[usize::from(asid)] = space;
        }
        self.context = (mode | u64::from(space) << 2) << ALIGN_BITS;
    }

    /// The present context.
    pub(crate) fn context(&self) -> u64 {
        self.context
    }

    #[inline(always)]
    fn key(&self, va: u64, size: u64) -> u64 {
        va & (PAGE_MASK | (size - 1)) | self.context
    }

    /// The page for a load of `size` bytes at `va`.
    #[inline(always)]
    pub(super) fn read(&self, va: u64, size: u64) -> Option<Page> {
        let entry = &self.read[index::<DATA>(va)];
        (entry.tag == self.key(va, size)).then_some(entry.page)
    }

    /// The page for a store of `size` bytes at `va`.
    #[inline(always)]
    pub(super) fn write(&self, va: u64, size: u64) -> Option<Page> {
        let entry = &self.write[index::<DATA>(va)];
        (entry.tag == self.key(va, size)).then_some(entry.page)
    }

    /// The slot of decoded code for a fetch from `va`.
    #[inline(always)]
    pub(super) fn fetch(&self, va: u64) -> Option<usize> {
        let entry = &self.fetch[index::<FETCH>(va)];
        (entry.tag == self.key(va, 4)).then_some(entry.slot)
    }

    /// Remembers a translation for loads.
    pub(super) fn set_read(&mut self, va: u64, page: Page) {
        let tag = self.key(va & PAGE_MASK, 1);
        self.read[index::<DATA>(va)] = DataEntry { tag, page };
    }

    /// Remembers a translation for stores.
    pub(super) fn set_write(&mut self, va: u64, page: Page) {
        let tag = self.key(va & PAGE_MASK, 1);
        self.write[index::<DATA>(va)] = DataEntry { tag, page };
    }

    /// Remembers a translation for fetches.
    pub(super) fn set_fetch(&mut self, va: u64, slot: usize) {
        let tag = self.key(va & PAGE_MASK, 1);
        self.fetch[index::<FETCH>(va)] = FetchEntry { tag, slot };
    }

    /// Forgets everything.
    pub(crate) fn flush(&mut self) {
        for entry in self.read.iter_mut().chain(self.write.iter_mut()) {
            entry.tag = EMPTY;
        }
        self.flush_fetch();
    }

    /// Forgets fetches: slots are given to other pages.
    pub(crate) fn flush_fetch(&mut self) {
        self.fetch.fill(NO_FETCH);
    }

    /// Forgets stores to one page: it has decoded code from now on.
    pub(super) fn protect(&mut self, page: Page) {
        for entry in self.write.iter_mut().filter(|entry| entry.page == page) {
            entry.tag = EMPTY;
        }
    }

    /// Forgets what a TLB entry maps, in all contexts. `vpn` is the entry's (SEGBITS cut, so the
    /// upper address bits are unknown), `pair_mask` its offset bits.
    pub(crate) fn flush_pair(&mut self, vpn: u64, pair_mask: u64) {
        let pages = (pair_mask >> PAGE_SHIFT) + 1;
        if pages >= DATA as u64 {
            self.flush();
            return;
        }
        let base = vpn & !pair_mask;
        for page in 0..pages {
            let va = base + (page << PAGE_SHIFT);
            // Whatever lies in these places may be it; a few more misses do no harm.
            self.read[index::<DATA>(va)].tag = EMPTY;
            self.write[index::<DATA>(va)].tag = EMPTY;
            self.fetch[index::<FETCH>(va)] = NO_FETCH;
        }
    }
}
