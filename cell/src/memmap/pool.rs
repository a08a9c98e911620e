//! A pool: pages that are given out alike, with the list of the free ones in their words.

use super::{Accounts, Owner, Run, Violation};
use abi::memmap::{NONE, Word};
use abi::{Mpa, PAGE_SHIFT};
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

    /// Its contiguous pieces.
    pub fn runs(&self) -> impl DoubleEndedIterator<Item = Run> + '_ {
        self.spans.iter().map(|span| span.run)
    }

    /// The address of the word of the first page of a piece of it.
    pub fn words_of(&self, run: Run) -> u64 {
        let index = self.index(run.start).map_or(0, |index| index as usize);
        self.words.as_ptr().wrapping_add(index).addr() as u64
    }

    /// The word of a page that is the pool's.
    pub fn index(&self, mpa: Mpa) -> Option<u32> {
        let span = self.spans.iter().find(|span| span.run.contains(mpa))?;
        Some(span.first + (mpa.page() - span.run.start.page()) as u32)
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
        let found = word.owner();
        assert!(
            found == Some(from) && from != to,
            "{} passes from {from:?} to {to:?} but belongs to {found:?}",
            self.mpa(index)
        );
        if let Some((previous, next)) = word.neighbours() {
            self.unlink(previous, next);
        }
        *self.accounts.slot(from) -= 1;
        *self.accounts.slot(to) += 1;
        if to == Owner::Free {
            self.words[index as usize] = Word::free(NONE, self.head);
            if self.head != NONE {
                let (_, next) = self.links(self.head);
                self.words[self.head as usize] = Word::free(index, next);
            }
            self.head = index;
        } else {
            self.words[index as usize] = Word::owned(to);
        }
    }

    /// The same of `pages` pages in a row, from one owner to another: what a cell has lent is a large part of its memory.
    ///
    /// # Panics
    /// As for [`Self::change`], and when one of the owners is nobody.
    pub fn change_row(&mut self, first: u32, pages: u32, from: Owner, to: Owner) {
        assert!(from != Owner::Free && to != Owner::Free && from != to, "from {from:?} to {to:?}");
        let (before, after) = (Word::owned(from), Word::owned(to));
        for index in first..first + pages {
            if self.words[index as usize] != before {
                // It says what is wrong.
                self.change(index, from, to);
                continue;
            }
            self.words[index as usize] = after;
            *self.accounts.slot(from) -= 1;
            *self.accounts.slot(to) += 1;
        }
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
