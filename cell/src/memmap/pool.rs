//! A pool: pages that are given out alike, with the list of the free ones in their words.

use super::{Accounts, Owner, Run, Violation};
use abi::memmap::{NONE, Word};
use abi::{Mpa, PAGE_SHIFT, VmId};
use alloc::collections::TryReserveError;
use alloc::vec::Vec;

/// Most pages of a pool: what a word's links can name.
const PAGES_MAX: u64 = NONE as u64;

/// How many words [`Pool::take_after`] looks at.
const FAR: u32 = 64;

/// Contiguous pages of a pool, the first of which has the word `first`.
#[derive(Clone, Copy, Debug)]
struct Span {
    run: Run,
    first: u32,
}

/// Pages of one place.
#[derive(Debug)]
pub(super) struct Pool {
    words: Vec<Word>,
    spans: Vec<Span>,
    pub accounts: Accounts,
    /// The first free page.
    head: u32,
}

impl Pool {
    /// A pool of `runs`; the pages whose numbers `monitor` says are the monitor's, the others free, the
    /// first of them to be taken first.
    ///
    /// # Errors
    /// When the heap has not eight bytes a page.
    ///
    /// # Panics
    /// When there are 2^28 pages or more.
    pub fn new(
        runs: impl Iterator<Item = Run> + Clone,
        monitor: impl Fn(u64) -> bool,
    ) -> Result<Self, TryReserveError> {
        let total: u64 = runs.clone().map(|run| u64::from(run.pages)).sum();
        assert!(total < PAGES_MAX, "fewer than 2^28 pages of one node");
        let mut words: Vec<Word> = Vec::new();
        words.try_reserve_exact(total as usize)?;
        let mut spans = Vec::new();
        spans.try_reserve_exact(runs.clone().count())?;
        let mut accounts = Accounts { total, ..Accounts::default() };
        let (mut head, mut before, mut last) = (NONE, NONE, NONE);
        for run in runs {
            let first = words.len() as u32;
            spans.push(Span { run, first });
            for (index, page) in (first..first + run.pages).zip(run.start.page()..) {
                if monitor(page) {
                    accounts.monitor += 1;
                    words.push(Word::MONITOR);
                    continue;
                }
                accounts.free += 1;
                words.push(Word::free(last, NONE));
                match words.get_mut(last as usize) {
                    Some(word) => *word = Word::free(before, index),
                    None => head = index,
                }
                (before, last) = (last, index);
            }
        }
        Ok(Self { words, spans, accounts, head })
    }

    /// Its contiguous pieces, each with the index of its first page.
    pub fn runs(&self) -> impl Iterator<Item = (Run, u32)> + '_ {
        self.spans.iter().map(|span| (span.run, span.first))
    }

    /// The address of the word of a page.
    pub fn word_at(&self, index: u32) -> u64 {
        self.words.as_ptr().wrapping_add(index as usize).addr() as u64
    }

    fn mpa(&self, index: u32) -> Mpa {
        // Several spans have the same `first` when some are empty: the last of them has the page.
        let span = &self.spans[self.spans.partition_point(|span| span.first <= index) - 1];
        Mpa((span.run.start.page() + u64::from(index - span.first)) << PAGE_SHIFT)
    }

    /// Who owns page `index`; `None`: its word is damaged.
    pub fn owner(&self, index: u32) -> Option<Owner> {
        self.words.get(index as usize)?.owner()
    }

    /// Takes the first free page for `owner`.
    ///
    /// # Panics
    /// When `owner` is nobody.
    pub fn take(&mut self, owner: Owner) -> Option<Mpa> {
        let index = self.head;
        if index == NONE {
            return None;
        }
        assert!(owner != Owner::Free, "a page is taken for somebody");
        let (previous, next) = self.links(index);
        self.unlink(previous, next);
        self.words[index as usize] = Word::owned(owner);
        self.accounts.free -= 1;
        *self.accounts.slot(owner) += 1;
        Some(self.mpa(index))
    }

    /// Takes a free page for `owner`: the first one after page `index` if it is not far, else the first of all.
    ///
    /// # Panics
    /// When `owner` is nobody.
    pub fn take_after(&mut self, index: u32, owner: Owner) -> Option<Mpa> {
        let end = index.saturating_add(FAR).min(self.words.len() as u32);
        let is_free = |index: &u32| self.words[*index as usize].neighbours().is_some();
        let Some(found) = (index..end).find(is_free) else { return self.take(owner) };
        self.change(found, Owner::Free, owner);
        Some(self.mpa(found))
    }

    /// Page `index`, which is `from`'s, becomes `to`'s. A free page is the next to be taken.
    ///
    /// # Panics
    /// When it is somebody else's: a bug of the monitor that must not become a page with two owners.
    pub fn change(&mut self, index: u32, from: Owner, to: Owner) {
        let word = self.words[index as usize];
        if word.owner() != Some(from) || from == to {
            self.not_theirs(index, from, to);
        }
        if let Some((previous, next)) = word.neighbours() {
            self.unlink(previous, next);
        }
        *self.accounts.slot(from) -= 1;
        *self.accounts.slot(to) += 1;
        if to == Owner::Free {
            self.words[index as usize] = Word::free(NONE, self.head);
            self.link_head(index);
            self.head = index;
        } else {
            self.words[index as usize] = Word::owned(to);
        }
    }

    /// Gives back pages of VM `vm`, of each its number in the VM's memory and the page, as long as they lie in `run`, the first page of
    /// which has the word `first`, and of which one is the first free page. Returns the first one that lies elsewhere,
    /// and those after it.
    ///
    /// # Panics
    /// As for [`Self::change`].
    pub fn give_more<I: Iterator<Item = (u32, Mpa)>>(
        &mut self,
        run: Run,
        first: u32,
        vm: VmId,
        mut pages: I,
    ) -> (Option<(u32, Mpa)>, I) {
        let (base, mut newest, mut count) = (run.start.page(), self.head, 0);
        let (_, mut next) = self.links(newest);
        let words = &mut self.words[first as usize..(first + run.pages) as usize];
        let rest = loop {
            let Some((page, mpa)) = pages.next() else { break None };
            let offset = mpa.page().wrapping_sub(base);
            let Some(word) = words.get(offset as usize) else { break Some((page, mpa)) };
            let (index, owner) = (first + offset as u32, Owner::Vm { vm, page });
            if *word != Word::owned(owner) {
                self.not_theirs(index, owner, Owner::Free);
            }
            // Its own word is written when it is known which page comes before it.
            words[(newest - first) as usize] = Word::free(index, next);
            (newest, next) = (index, newest);
            count += 1;
        };
        words[(newest - first) as usize] = Word::free(NONE, next);
        self.head = newest;
        self.accounts.vm -= count;
        self.accounts.free += count;
        (rest, pages)
    }

    /// [`Self::change`] of `pages` pages in a row, from one owner to another: what a cell has lent is a large part of its memory.
    /// Of those that are nobody's then the first is the next to be taken.
    ///
    /// # Panics
    /// As for [`Self::change`].
    pub fn change_row(&mut self, first: u32, pages: u32, from: Owner, to: Owner) {
        if from == Owner::Free || from == to || pages == 0 {
            return (first..first + pages).for_each(|index| self.change(index, from, to));
        }
        let (before, after) = (Word::owned(from), Word::owned(to));
        let last = first + pages - 1;
        let row = &mut self.words[first as usize..=last as usize];
        let mut previous = NONE;
        for (index, word) in (first..).zip(row) {
            if *word != before {
                self.not_theirs(index, from, to);
            }
            *word = if to == Owner::Free { Word::free(previous, index + 1) } else { after };
            previous = index;
        }
        if to == Owner::Free {
            let before = if last == first { NONE } else { last - 1 };
            self.words[last as usize] = Word::free(before, self.head);
            self.link_head(last);
            self.head = first;
        }
        *self.accounts.slot(from) -= u64::from(pages);
        *self.accounts.slot(to) += u64::from(pages);
    }

    /// The first free page, if there is one, comes after page `index`.
    #[inline]
    fn link_head(&mut self, index: u32) {
        if self.head != NONE {
            let (_, next) = self.links(self.head);
            self.words[self.head as usize] = Word::free(index, next);
        }
    }

    #[cold]
    fn not_theirs(&self, index: u32, from: Owner, to: Owner) -> ! {
        let found = self.owner(index);
        panic!("{} passes from {from:?} to {to:?} but belongs to {found:?}", self.mpa(index))
    }

    /// Takes the page between `previous` and `next` out of the list of free pages.
    fn unlink(&mut self, previous: u32, next: u32) {
        if previous == NONE {
            self.head = next;
        } else {
            let (before, _) = self.links(previous);
            self.words[previous as usize] = Word::free(before, next);
        }
        if next != NONE {
            let (_, after) = self.links(next);
            self.words[next as usize] = Word::free(previous, after);
        }
    }

    fn links(&self, index: u32) -> (u32, u32) {
        let links = self.words.get(index as usize).and_then(|word| word.neighbours());
        links.unwrap_or_else(|| panic!("MEM-LIST: word {index} is linked as free but is not"))
    }

    /// The contiguous free pages from the last to the first, longest possible pieces.
    pub fn free_runs(&self) -> impl Iterator<Item = Run> + '_ {
        self.spans.iter().rev().flat_map(|span| {
            let words = &self.words[span.first as usize..][..span.run.pages as usize];
            let mut end = words.len();
            core::iter::from_fn(move || {
                let is_free = |word: &Word| word.neighbours().is_some();
                let last = words[..end].iter().rposition(is_free)?;
                let start = words[..last].iter().rposition(|w| !is_free(w)).map_or(0, |i| i + 1);
                end = start;
                let mpa = Mpa((span.run.start.page() + start as u64) << PAGE_SHIFT);
                Some(Run { start: mpa, pages: (last + 1 - start) as u32 })
            })
        })
    }

    /// Checks the pool's sums and its list against every word.
    ///
    /// # Errors
    /// The first violation.
    pub fn audit(&self) -> Result<(), Violation> {
        let mut found = Accounts { total: self.words.len() as u64, ..Accounts::default() };
        for (index, word) in self.words.iter().enumerate() {
            let owner = word.owner().ok_or(Violation::Damaged { mpa: self.mpa(index as u32) })?;
            *found.slot(owner) += 1;
        }
        if found != self.accounts || !found.balanced() {
            return Err(Violation::Sum { counted: self.accounts, found });
        }
        let (mut at, mut before, mut listed) = (self.head, NONE, 0);
        while at != NONE && listed <= found.free {
            let links = self.words.get(at as usize).and_then(|word| word.neighbours());
            match links {
                Some((previous, next)) if previous == before => (before, at) = (at, next),
                _ => return Err(Violation::List { word: at }),
            }
            listed += 1;
        }
        if at != NONE || listed != found.free {
            return Err(Violation::List { word: at });
        }
        Ok(())
    }

    /// Overwrites a word, to see an audit find it.
    #[cfg(test)]
    pub fn damage(&mut self, index: usize, word: Word) {
        self.words[index] = word;
    }
}
