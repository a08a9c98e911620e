//! Decoded code: for each page of guest memory that has been executed, an array of its instructions,
//! decoded when first reached. A page is known by where it lies in the host, for a board may show
//! the same memory at several guest-physical addresses.
//!
//! Stores of the VCPU itself reach the arrays through [`CodeCache::written`], so that code is
//! coherent with them at once, to the instruction. Those of other VCPUs are posted
//! ([`super::codemap`]); what the owner writes is announced by [`CodeCache::forget`].
//!
//! The arrays are cells: the engine walks one of them while a store of the instruction that it
//! executes changes it.

use super::hot::Hot;
use super::watched::Watched;
use crate::isa::Insn;
use crate::mem::Page;
use abi::{Gpa, PAGE_SHIFT, PAGE_SIZE};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, OnceCell};
use core::ops::Range;

/// Instructions in a page.
pub(super) const INSNS: usize = (PAGE_SIZE / 4) as usize;
/// A slot in use by no page, and the end of a chain.
const NONE: u32 = u32::MAX;

/// The decoded instructions of one page.
pub(super) type CodePage = [Cell<Insn>; INSNS];
/// The words that they were decoded from.
pub(super) type Words = [Cell<u32>; INSNS];

#[derive(Clone, Debug)]
struct Slot {
    /// The page; `None` while the slot is free.
    page: Cell<Option<Page>>,
    /// The number that it was last executed under.
    number: Cell<u64>,
    /// How many posts other VCPUs must have read before it is trusted ([`super::codemap`]); 0: it is.
    distrusted: Cell<u64>,
    /// The next slot with the same hash.
    next: Cell<u32>,
}

/// Decoded pages, at most a fixed number of them, replaced in turn. Each place for one is made when it is first
/// needed, for a VCPU often needs few; where there is no heap for it, those that there are are replaced.
#[derive(Debug)]
pub struct CodeCache {
    insns: Vec<OnceCell<Box<CodePage>>>,
    /// By slot, and only where they are wanted ([`super::wary`]).
    words: Vec<OnceCell<Box<Words>>>,
    slots: Vec<Slot>,
    /// Hash heads, a power of two of them.
    heads: Vec<Cell<u32>>,
    victim: Cell<u32>,
    /// For an engine that translates, once there is one.
    watch: Option<Box<Watch>>,
}

/// What an engine that translates has of the code it translates.
#[derive(Debug)]
pub(crate) struct Watch {
    pub pages: Watched,
    pub hot: Hot,
}

/// Whether a place is there; it is made if there is heap for it.
fn made<T: Clone>(place: &OnceCell<Box<[Cell<T>; INSNS]>>, value: T) -> bool
where
    Cell<T>: Clone,
{
    let mut page = Vec::new();
    if place.get().is_some() {
        return true;
    }
    if page.try_reserve_exact(INSNS).is_err() {
        return false;
    }
    page.resize(INSNS, Cell::new(value));
    page.into_boxed_slice().try_into().is_ok_and(|page| place.set(page).is_ok())
}

impl CodeCache {
    pub(crate) fn new(pages: usize) -> Self {
        let pages = pages.max(1);
        let free = Slot {
            page: Cell::new(None),
            number: Cell::new(0),
            distrusted: Cell::new(0),
            next: Cell::new(NONE),
        };
        let cache = Self {
            insns: (0..pages).map(|_| OnceCell::new()).collect(),
            words: (0..pages).map(|_| OnceCell::new()).collect(),
            slots: vec![free; pages],
            heads: vec![Cell::new(NONE); (2 * pages).next_power_of_two()],
            victim: Cell::new(0),
            watch: None,
        };
        assert!(cache.make(0), "memory for one page of decoded code");
        cache
    }

    /// How many pages are kept at most.
    pub(crate) fn pages(&self) -> usize {
        self.slots.len()
    }

    /// Makes the place of a slot; whether it is there.
    fn make(&self, index: usize) -> bool {
        made(&self.insns[index], Insn::UNDECODED)
    }

    /// Makes the place of the words of a slot, where there is heap for it.
    pub(super) fn keep_words(&self, index: usize) {
        made(&self.words[index], 0);
    }

    /// The words of a slot, if it has a place for them.
    pub(super) fn words(&self, index: usize) -> Option<&Words> {
        self.words[index].get().map(|words| &**words)
    }

    /// The cache, leaving one without any slots behind.
    pub(crate) fn take(&mut self) -> Self {
        core::mem::replace(
            self,
            Self {
                insns: Vec::new(),
                words: Vec::new(),
                slots: Vec::new(),
                heads: Vec::new(),
                victim: Cell::new(0),
                watch: None,
            },
        )
    }

    /// Makes what an engine that translates needs; `false` if there is no memory for it.
    pub(crate) fn begin_watch(&mut self) -> bool {
        if self.watch.is_none() {
            let parts = Watched::new().zip(Hot::new());
            self.watch = parts.map(|(pages, hot)| Box::new(Watch { pages, hot }));
        }
        self.watch.is_some()
    }

    /// What it has.
    #[inline]
    pub(crate) fn watch(&self) -> Option<&Watch> {
        self.watch.as_deref()
    }

    /// Whether code of `page` is kept, in this form or another.
    pub(crate) fn is_kept(&self, page: Page) -> bool {
        self.find(page).is_some() || self.is_watched(page)
    }

    /// Whether code of `page` is kept in another form.
    pub(crate) fn is_watched(&self, page: Page) -> bool {
        self.watch().is_some_and(|watch| watch.pages.has(page))
    }

    fn head(&self, page: Page) -> &Cell<u32> {
        let number = page.base().as_ptr().addr() >> PAGE_SHIFT;
        &self.heads[number & (self.heads.len() - 1)]
    }

    /// The slot of `page`.
    pub(crate) fn find(&self, page: Page) -> Option<usize> {
        let mut at = self.head(page).get();
        while at != NONE {
            let slot = &self.slots[at as usize];
            if slot.page.get() == Some(page) {
                return Some(at as usize);
            }
            at = slot.next.get();
        }
        None
    }

    /// A slot for `page`, which has none; whether another page has lost it.
    pub(super) fn allocate(&self, page: Page) -> (usize, bool) {
        let index = self.victim.get();
        let index = if self.make(index as usize) { index } else { 0 };
        self.victim.set((index + 1) % self.slots.len() as u32);
        let slot = &self.slots[index as usize];
        let replaced = slot.page.get().is_some();
        if replaced {
            self.release(index as usize);
        }
        slot.page.set(Some(page));
        slot.next.set(self.head(page).replace(index));
        (index as usize, replaced)
    }

    /// Notes the guest-physical address that a slot's page is executed under.
    pub(super) fn executed_at(&self, index: usize, gpa: Gpa) {
        self.slots[index].number.set(gpa.page());
    }

    /// That address.
    pub(super) fn gpa(&self, index: usize) -> Gpa {
        Gpa(self.slots[index].number.get() << PAGE_SHIFT)
    }

    /// Unlinks a slot in use and clears its instructions.
    fn release(&self, index: usize) {
        let slot = &self.slots[index];
        let Some(page) = slot.page.take() else { return };
        let mut link = self.head(page);
        while link.get() != NONE && link.get() as usize != index {
            link = &self.slots[link.get() as usize].next;
        }
        link.set(slot.next.get());
        self.decode_again(index);
    }

    /// Clears a slot's instructions.
    pub(super) fn decode_again(&self, index: usize) {
        for insn in self.code(index) {
            insn.set(Insn::UNDECODED);
        }
    }

    /// Sets how many posts other VCPUs must have read before a slot is trusted.
    pub(super) fn distrust(&self, index: usize, posts: u64) {
        self.slots[index].distrusted.set(posts);
    }

    /// How many posts other VCPUs must have read before a slot is trusted; 0: it is.
    pub(super) fn distrusted(&self, index: usize) -> u64 {
        self.slots[index].distrusted.get()
    }

    /// Frees the slot of `page`; whether it had one.
    pub(crate) fn drop_page(&self, page: Page) -> bool {
        if let Some(watch) = self.watch() {
            watch.pages.release(page);
        }
        self.find(page).is_some_and(|slot| {
            self.release(slot);
            true
        })
    }

    /// The instructions of a slot.
    #[inline(always)]
    pub(super) fn code(&self, index: usize) -> &CodePage {
        self.insns[index].get().expect("a slot in use has its place")
    }

    /// The page of a slot.
    pub(super) fn page(&self, index: usize) -> Option<Page> {
        self.slots[index].page.get()
    }

    /// A store of `size` bytes at `offset` in `page`: what was decoded there is not so any more.
    /// Whether the page has a slot at all.
    pub(crate) fn written(&self, page: Page, offset: u64, size: u64) -> bool {
        if let Some(watch) = self.watch() {
            watch.pages.release(page);
        }
        self.decode_range_again(page, offset, size)
    }

    /// Clears what was decoded from `size` bytes at `offset` in `page`; whether the page has a slot at all.
    pub(super) fn decode_range_again(&self, page: Page, offset: u64, size: u64) -> bool {
        let Some(index) = self.find(page) else { return false };
        let offset = offset & (PAGE_SIZE - 1);
        let first = offset as usize / 4;
        let last = (offset + size - 1) as usize / 4;
        for insn in &self.code(index)[first..=last.min(INSNS - 1)] {
            insn.set(Insn::UNDECODED);
        }
        true
    }

    /// Frees the slots of all pages that touch `range`.
    pub(crate) fn forget(&self, range: &Range<Gpa>) {
        let (first, end) = (range.start.page(), range.end.0.div_ceil(1 << PAGE_SHIFT));
        for (index, slot) in self.slots.iter().enumerate() {
            if (first..end).contains(&slot.number.get()) {
                self.release(index);
            }
        }
        if let Some(watch) = self.watch() {
            watch.pages.forget(first..end);
        }
    }

    /// Frees all slots.
    pub(crate) fn clear(&self) {
        self.forget(&(Gpa(0)..Gpa(u64::MAX)));
    }
}
