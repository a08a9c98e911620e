//! Decoded code: for each guest-physical page that has been executed, an array of its instructions,
//! decoded when first reached.
//!
//! Stores of the VCPU itself reach the arrays through [`CodeCache::written`], so that code is
//! coherent with them at once, to the instruction. What others write is announced by
//! [`CodeCache::forget`].
//!
//! The arrays are cells: the engine walks one of them while a store of the instruction that it
//! executes changes it.

use crate::isa::Insn;
use crate::mem::Page;
use abi::{Gpa, PAGE_SHIFT, PAGE_SIZE};
use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;
use core::ops::Range;

/// Instructions in a page.
pub(super) const INSNS: usize = (PAGE_SIZE / 4) as usize;
/// A slot in use by no page, and the end of a chain.
const NONE: u32 = u32::MAX;

/// The decoded instructions of one page.
pub(super) type CodePage = [Cell<Insn>; INSNS];

#[derive(Clone, Debug)]
struct Slot {
    /// The guest-physical page's number.
    page: Cell<u64>,
    /// Where it lies; `None` while the slot is free.
    memory: Cell<Option<Page>>,
    /// The next slot with the same hash.
    next: Cell<u32>,
}

/// Decoded pages, a fixed number of them, replaced in turn.
#[derive(Debug)]
pub struct CodeCache {
    insns: Vec<Cell<Insn>>,
    slots: Vec<Slot>,
    /// Hash heads, a power of two of them.
    heads: Vec<Cell<u32>>,
    victim: Cell<u32>,
}

impl CodeCache {
    pub(crate) fn new(pages: usize) -> Self {
        let pages = pages.max(1);
        let free = Slot { page: Cell::new(0), memory: Cell::new(None), next: Cell::new(NONE) };
        Self {
            insns: vec![Cell::new(Insn::UNDECODED); pages * INSNS],
            slots: vec![free; pages],
            heads: vec![Cell::new(NONE); (2 * pages).next_power_of_two()],
            victim: Cell::new(0),
        }
    }

    /// The cache, leaving one without any slots behind.
    pub(crate) fn take(&mut self) -> Self {
        core::mem::replace(
            self,
            Self { insns: Vec::new(), slots: Vec::new(), heads: Vec::new(), victim: Cell::new(0) },
        )
    }

    fn head(&self, page: u64) -> &Cell<u32> {
        &self.heads[page as usize & (self.heads.len() - 1)]
    }

    /// The slot of guest-physical page number `page`.
    pub(super) fn find(&self, page: u64) -> Option<usize> {
        let mut at = self.head(page).get();
        while at != NONE {
            let slot = &self.slots[at as usize];
            if slot.page.get() == page {
                return Some(at as usize);
            }
            at = slot.next.get();
        }
        None
    }

    /// A slot for page number `page`, which lies at `memory` and has none; whether another page has
    /// lost it.
    pub(super) fn allocate(&self, page: u64, memory: Page) -> (usize, bool) {
        let index = self.victim.get();
        self.victim.set((index + 1) % self.slots.len() as u32);
        let slot = &self.slots[index as usize];
        let replaced = slot.memory.get().is_some();
        if replaced {
            self.release(index as usize);
        }
        slot.page.set(page);
        slot.memory.set(Some(memory));
        slot.next.set(self.head(page).replace(index));
        (index as usize, replaced)
    }

    /// Unlinks a slot in use and clears its instructions.
    fn release(&self, index: usize) {
        let slot = &self.slots[index];
        let mut link = self.head(slot.page.get());
        while link.get() != NONE && link.get() as usize != index {
            link = &self.slots[link.get() as usize].next;
        }
        link.set(slot.next.get());
        slot.memory.set(None);
        for insn in self.code(index) {
            insn.set(Insn::UNDECODED);
        }
    }

    /// The instructions of a slot.
    #[inline(always)]
    pub(super) fn code(&self, index: usize) -> &CodePage {
        self.insns.as_chunks().0.get(index).expect("slots and instructions correspond")
    }

    /// Where a slot's page lies.
    pub(super) fn memory(&self, index: usize) -> Option<Page> {
        self.slots[index].memory.get()
    }

    /// A store of `size` bytes at `gpa`: what was decoded there is not so any more. Whether the page
    /// has a slot at all.
    pub(super) fn written(&self, gpa: Gpa, size: u64) -> bool {
        let Some(index) = self.find(gpa.page()) else { return false };
        let code = self.code(index);
        let first = gpa.offset() as usize / 4;
        let last = (gpa.offset() + size - 1) as usize / 4;
        for insn in &code[first..=last.min(INSNS - 1)] {
            insn.set(Insn::UNDECODED);
        }
        true
    }

    /// Frees the slots of all pages that touch `range`.
    pub(crate) fn forget(&self, range: &Range<Gpa>) {
        let (first, end) = (range.start.page(), range.end.0.div_ceil(1 << PAGE_SHIFT));
        for (index, slot) in self.slots.iter().enumerate() {
            if slot.memory.get().is_some() && (first..end).contains(&slot.page.get()) {
                self.release(index);
            }
        }
    }

    /// Frees all slots.
    pub(crate) fn clear(&self) {
        self.forget(&(Gpa(0)..Gpa(u64::MAX)));
    }
}
