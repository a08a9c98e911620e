//! The memmap: the cell's record of each of its machine pages, and the frame allocator in it.
//!
//! One 64-bit word a page says who owns it. The words of free pages also link them into a list, so that
//! taking and giving back a page costs a few instructions and no memory, however many pages there are.
//! Nothing here needs pages to be contiguous: a VM sees its memory through its [pmap](crate::pmap).
//!
//! A node's memory is of two kinds, of which each is a *pool*: its window, which vanishes with the node,
//! and its slice. What the monitor takes comes from the window first, what a VM takes from the
//! slice. Pages borrowed from another cell are a pool as well, one a [loan](crate::loan): their owner
//! records them as lent, the borrower whose they are meanwhile.
//!
//! # Invariants
//!
//! - **MEM-SUM**: for each pool, and so for each node and the cell,
//!   `free + monitor + vm + lent + quarantined = total`, in pages.
//! - **MEM-LIST**: a page is in its pool's free list if and only if its word says that it is free.
//! - **MEM-MAP**: page `m` belongs to `(v, g)` if and only if VM `v`'s pmap maps `g` to `m` (or is
//!   about to: [`crate::frames`]).
//!
//! The sums are asserted whenever a VM's memory is given back; [`Memmap::audit`] checks the first two
//! from the words themselves, [`crate::frames::Frames::audit`] the third.

mod account;
mod pool;
#[cfg(test)]
mod tests;

pub use abi::memmap::Owner;
pub use account::{Accounts, Violation};

use crate::loan::{LoanId, Refusal};
use abi::directory::Directory;
use abi::{CellId, Mpa, NodeId, PAGE_SHIFT, VmId};
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::ops::Range;
use pool::Pool;

/// What kind of memory a region is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Vanishes with its node: a load then is a bus error.
    Window,
    /// RAM: it stays, with other contents, when its node is lost.
    Slice,
}

/// Contiguous machine memory of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Whose it is.
    pub node: NodeId,
    /// Its kind.
    pub kind: Kind,
    /// Where it lies, page-aligned.
    pub range: Range<Mpa>,
}

/// Contiguous machine pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Run {
    /// The first.
    pub start: Mpa,
    /// How many.
    pub pages: u32,
}

impl Run {
    /// Whether the page that holds `mpa` is one of them.
    #[must_use]
    pub const fn contains(self, mpa: Mpa) -> bool {
        let first = self.start.page();
        first <= mpa.page() && mpa.page() < first + self.pages as u64
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Mpa> {
        let first = self.start.page();
        (first..first + u64::from(self.pages)).map(|page| Mpa(page << PAGE_SHIFT))
    }
}

/// Among which pages to look for a free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Within {
    /// The cell's own.
    Own,
    /// Those of one of its nodes.
    Node(NodeId),
    /// Those of a loan.
    Loan(LoanId),
}

/// Where the pages of a pool come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    Own(NodeId, Kind),
    Borrowed(LoanId),
    /// Borrowed from a cell that has died.
    Lost(LoanId),
}

/// The record of a cell's machine pages.
#[derive(Debug)]
pub struct Memmap {
    /// Pools and where they are from: the cell's own by node, slices first, then those of loans in the order
    /// in which they came.
    pools: Vec<(Home, Pool)>,
    /// The contiguous pieces of all pools, by address.
    spans: Vec<Span>,
    /// Where it is told to whoever looks from outside where the words are.
    directory: Option<&'static Directory>,
}

/// A contiguous piece of a pool.
#[derive(Clone, Copy, Debug)]
struct Span {
    run: Run,
    /// Which pool.
    pool: u32,
    /// The index of its first page there.
    first: u32,
}

impl Memmap {
    /// Heap bytes that the record of `pages` pages takes.
    #[must_use]
    pub const fn heap_bytes(pages: u64) -> u64 {
        pages * size_of::<u64>() as u64
    }

    /// The record of `regions`, of which the pages that `monitor` touches are the monitor's and the
    /// others free. Lower pages are given out first.
    ///
    /// # Errors
    /// When the heap has not [`Self::heap_bytes`].
    ///
    /// # Panics
    /// When regions are not page-aligned, overlap, or a node has 2^28 pages of a kind or more: the
    /// machine's map is the monitor's own knowledge.
    pub fn new(regions: &[Region], monitor: &[Range<Mpa>]) -> Result<Self, TryReserveError> {
        let mut homes: Vec<(NodeId, Kind)> = regions.iter().map(|r| (r.node, r.kind)).collect();
        homes.sort_by_key(|&(node, kind)| (node, core::cmp::Reverse(kind)));
        homes.dedup();
        let mut map = Self { pools: Vec::new(), spans: Vec::new(), directory: None };
        let run = |region: &Region| {
            let Range { start, end } = region.range;
            assert!(start.offset() == 0 && end.offset() == 0 && start <= end, "{region:?}");
            let pages = u32::try_from(end.page() - start.page()).expect("fewer than 2^28 pages");
            Run { start, pages }
        };
        let is_monitors = |page: u64| {
            monitor.iter().any(|r| r.start.page() <= page && page << PAGE_SHIFT < r.end.0)
        };
        for (node, kind) in homes {
            let runs = regions.iter().filter(|r| (r.node, r.kind) == (node, kind)).map(run);
            map.pools.push((Home::Own(node, kind), Pool::new(runs, is_monitors)?));
        }
        map.find_spans()?;
        for pair in map.spans.windows(2) {
            let (a, b) = (pair[0].run, pair[1].run);
            assert!(a.start.page() + u64::from(a.pages) <= b.start.page(), "{a:?} overlaps {b:?}");
        }
        Ok(map)
    }

    /// Brings the list of spans up to date with the pools.
    fn find_spans(&mut self) -> Result<(), TryReserveError> {
        self.spans.clear();
        self.spans.try_reserve(self.pools.iter().map(|(_, pool)| pool.runs().count()).sum())?;
        for (index, (_, pool)) in self.pools.iter().enumerate() {
            let runs = pool.runs().filter(|(run, _)| run.pages != 0);
            let span = |(run, first)| Span { run, pool: index as u32, first };
            self.spans.extend(runs.map(span));
        }
        self.spans.sort_unstable_by_key(|span| span.run.start);
        self.tell();
        Ok(())
    }

    /// From now on `directory` names the pieces of memory that are recorded here.
    pub fn publish(&mut self, directory: &'static Directory) {
        self.directory = Some(directory);
        self.tell();
    }

    fn tell(&self) {
        if let Some(directory) = self.directory {
            let piece = |&Span { run, pool, first }: &Span| {
                (run.start.0, run.pages.into(), self.pools[pool as usize].1.word_at(first))
            };
            directory.name(self.spans.iter().map(piece));
        }
    }

    /// Pieces come or go.
    fn changes(&self) {
        if let Some(directory) = self.directory {
            directory.begin();
        }
    }

    /// The pool of a page and its index there.
    fn find(&self, mpa: Mpa) -> Option<(usize, u32)> {
        let span = self.span(mpa)?;
        let offset = mpa.page() - span.run.start.page();
        Some((span.pool as usize, span.first + offset as u32))
    }

    /// The span that a page is in.
    fn span(&self, mpa: Mpa) -> Option<Span> {
        let at = self.spans.partition_point(|span| span.run.start <= mpa).checked_sub(1)?;
        Some(self.spans[at]).filter(|span| span.run.contains(mpa))
    }

    /// Takes a free page of `node` for `owner`; `None` when the node has none.
    ///
    /// # Panics
    /// When `owner` is nobody.
    pub fn take(&mut self, node: NodeId, owner: Owner) -> Option<Mpa> {
        let first = if owner == Owner::Monitor { Kind::Window } else { Kind::Slice };
        let of = |want: bool| move |home| matches!(home, Home::Own(n, k) if n == node && (k == first) == want);
        self.take_where(owner, of(true)).or_else(|| self.take_where(owner, of(false)))
    }

    /// Takes a free page of the cell's own for `owner`, of `node` if it has one; `None` when the cell
    /// has none.
    ///
    /// # Panics
    /// When `owner` is nobody.
    pub fn take_near(&mut self, node: NodeId, owner: Owner) -> Option<Mpa> {
        self.take(node, owner)
            .or_else(|| self.take_where(owner, |home| matches!(home, Home::Own(..))))
    }

    /// Takes a free page that is borrowed from `lender`.
    ///
    /// # Panics
    /// When `owner` is nobody.
    pub fn take_borrowed(&mut self, lender: CellId, owner: Owner) -> Option<Mpa> {
        self.take_where(owner, |home| matches!(home, Home::Borrowed(loan) if loan.lender == lender))
    }

    /// Takes a free page for `owner`, any of some pages: which one, `dice` decides.
    ///
    /// # Panics
    /// When `owner` is nobody.
    pub fn take_anywhere(&mut self, within: Within, dice: u64, owner: Owner) -> Option<Mpa> {
        let is_in = |home: Home| match (within, home) {
            (Within::Own, Home::Own(..)) => true,
            (Within::Node(node), Home::Own(other, _)) => node == other,
            (Within::Loan(loan), Home::Borrowed(other)) => loan == other,
            _ => false,
        };
        let mut all = 0;
        for (home, pool) in &self.pools {
            all += if is_in(*home) && pool.accounts.free != 0 { pool.accounts.total } else { 0 };
        }
        let mut at = dice.checked_rem(all)?;
        for (home, pool) in &mut self.pools {
            if is_in(*home) && pool.accounts.free != 0 {
                match at.checked_sub(pool.accounts.total) {
                    Some(rest) => at = rest,
                    None => return pool.take_after(at as u32, owner),
                }
            }
        }
        None
    }

    fn take_where(&mut self, owner: Owner, from: impl Fn(Home) -> bool) -> Option<Mpa> {
        let pools = self.pools.iter_mut().filter(|(home, _)| from(*home));
        pools.map(|(_, pool)| pool).find_map(|pool| pool.take(owner))
    }

    /// The page `mpa`, which is `from`'s, becomes `to`'s.
    ///
    /// # Panics
    /// When it is somebody else's, or no page of this cell: a bug of the monitor that must not become a
    /// page with two owners.
    pub fn change(&mut self, mpa: Mpa, from: Owner, to: Owner) {
        let (pool, index) = self.find(mpa).unwrap_or_else(|| panic!("{mpa} is not of this cell"));
        self.pools[pool].1.change(index, from, to);
    }

    /// The pages of `run`, which are `from`'s, become `to`'s.
    ///
    /// # Panics
    /// As for [`Memmap::change`].
    pub fn change_run(&mut self, run: Run, from: Owner, to: Owner) {
        let end = run.start.page() + u64::from(run.pages);
        let last = end.checked_sub(1).and_then(|last| self.find(Mpa(last << PAGE_SHIFT)));
        if let (Some((pool, first)), Some(last)) = (self.find(run.start), last)
            && last == (pool, first + run.pages - 1)
        {
            return self.pools[pool].1.change_row(first, run.pages, from, to);
        }
        for mpa in run.iter() {
            self.change(mpa, from, to);
        }
    }

    /// Gives back the page `mpa`, which belongs to `owner`.
    ///
    /// # Panics
    /// As for [`Memmap::change`].
    pub fn give(&mut self, mpa: Mpa, owner: Owner) {
        self.change(mpa, owner, Owner::Free);
    }

    /// Gives back pages of VM `vm`: of each its number in the VM's memory and the page. The same as [`Memmap::give`] of one after the
    /// other, for when they are many: as long as they lie in one piece of a pool, nothing is looked for.
    ///
    /// # Panics
    /// As for [`Memmap::change`].
    pub fn give_all(&mut self, vm: VmId, mut pages: impl Iterator<Item = (u32, Mpa)>) {
        let mut next = pages.next();
        while let Some((page, mpa)) = next {
            self.give(mpa, Owner::Vm { vm, page });
            let Span { run, pool, first } = self.span(mpa).expect("the page was found before");
            (next, pages) = self.pools[pool as usize].1.give_more(run, first, vm, pages);
        }
    }

    /// Who owns the page that holds `mpa`; `None` when it is not this cell's, or its record is damaged.
    #[must_use]
    pub fn owner(&self, mpa: Mpa) -> Option<Owner> {
        let (pool, index) = self.find(mpa)?;
        self.pools[pool].1.owner(index)
    }

    /// Up to `most` of the longest runs of the cell's own free pages, slices before windows, of `pages`
    /// pages together at most.
    #[must_use]
    pub fn free_runs(&self, pages: u32, most: usize) -> Vec<Run> {
        let mut found: Vec<Run> = Vec::new();
        for kind in [Kind::Slice, Kind::Window] {
            let of_kind = |home: Home| matches!(home, Home::Own(_, k) if k == kind);
            let missing = pages - found.iter().map(|run| run.pages).sum::<u32>();
            let mut longest: Vec<Run> = Vec::new();
            let pools = self.pools.iter().filter(|(home, _)| of_kind(*home));
            for run in pools.flat_map(|(_, pool)| pool.free_runs()) {
                let at = longest.partition_point(|other| other.pages >= run.pages);
                longest.insert(at, run);
                longest.truncate(most - found.len());
                if run.pages >= missing {
                    break;
                }
            }
            let mut missing = missing;
            for mut run in longest {
                let pages = run.pages.min(missing);
                // The upper end: lower pages are given out first.
                run.start.0 += u64::from(run.pages - pages) << PAGE_SHIFT;
                run.pages = pages;
                missing -= pages;
                found.extend((pages != 0).then_some(run));
            }
        }
        found
    }

    /// Adds pages that another cell has lent, as free ones.
    ///
    /// # Errors
    /// When one of them is recorded already, or the heap has not [`Self::heap_bytes`]; the memmap is as it
    /// was.
    pub fn add_borrowed(&mut self, loan: LoanId, runs: &[Run]) -> Result<(), Refusal> {
        for (i, run) in runs.iter().enumerate() {
            let others = self.spans.iter().map(|span| &span.run).chain(&runs[..i]);
            let meets = |other: &Run| run.contains(other.start) || other.contains(run.start);
            if others.into_iter().any(meets) {
                return Err(Refusal::NotYours);
            }
        }
        self.add_pool(loan, runs).map_err(|_| Refusal::Heap)
    }

    fn add_pool(&mut self, loan: LoanId, runs: &[Run]) -> Result<(), TryReserveError> {
        let pool = Pool::new(runs.iter().copied(), |_| false)?;
        self.pools.try_reserve(1)?;
        self.spans.try_reserve(runs.len())?;
        self.pools.push((Home::Borrowed(loan), pool));
        self.find_spans()
    }

    /// Forgets the pages of a loan.
    ///
    /// # Errors
    /// When there is no such loan, or one of its pages is in use.
    pub fn remove_borrowed(&mut self, loan: LoanId) -> Result<(), Refusal> {
        let at = self.pools.iter().position(|(home, _)| *home == Home::Borrowed(loan));
        let at = at.ok_or(Refusal::NoLoan)?;
        let accounts = self.pools[at].1.accounts;
        if accounts.free != accounts.total {
            return Err(Refusal::InUse);
        }
        self.changes();
        self.pools.remove(at);
        self.find_spans().expect("fewer spans than before");
        Ok(())
    }

    /// Gives no more of what `lender`, which has died, has lent. What VMs have of it stays recorded until
    /// it is given back.
    pub fn lose(&mut self, lender: CellId) {
        for (home, _) in &mut self.pools {
            if let Home::Borrowed(loan) = *home
                && loan.lender == lender
            {
                *home = Home::Lost(loan);
            }
        }
        self.remove_lost();
    }

    /// Forgets the pages of dead lenders of which nobody has any more.
    pub fn remove_lost(&mut self) {
        let is_over = |(home, pool): &(Home, Pool)| {
            matches!(home, Home::Lost(_)) && pool.accounts.free == pool.accounts.total
        };
        if self.pools.iter().any(is_over) {
            self.changes();
            self.pools.retain(|pool| !is_over(pool));
            self.find_spans().expect("fewer spans than before");
        }
    }

    /// Of which loan a page is, if it is borrowed.
    #[must_use]
    pub fn loan(&self, mpa: Mpa) -> Option<LoanId> {
        match self.pools[self.find(mpa)?.0].0 {
            Home::Own(..) => None,
            Home::Borrowed(loan) | Home::Lost(loan) => Some(loan),
        }
    }

    /// From which other cell a page is borrowed.
    #[must_use]
    pub fn lender(&self, mpa: Mpa) -> Option<CellId> {
        self.loan(mpa).map(|loan| loan.lender)
    }

    /// On which of the cell's own nodes a page lies.
    #[must_use]
    pub fn node(&self, mpa: Mpa) -> Option<NodeId> {
        match self.pools[self.find(mpa)?.0].0 {
            Home::Own(node, _) => Some(node),
            Home::Borrowed(_) | Home::Lost(_) => None,
        }
    }

    /// The loans of cells that have died, with their pages by owner.
    pub fn lost(&self) -> impl Iterator<Item = (LoanId, Accounts)> + '_ {
        self.pools.iter().filter_map(|(home, pool)| match *home {
            Home::Lost(loan) => Some((loan, pool.accounts)),
            Home::Own(..) | Home::Borrowed(_) => None,
        })
    }

    /// The nodes that have memory, with their pages by owner.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, Accounts)> + '_ {
        self.pools
            .chunk_by(|(a, _), (b, _)| match (a, b) {
                (Home::Own(a, _), Home::Own(b, _)) => a == b,
                _ => false,
            })
            .filter_map(|pools| match pools[0].0 {
                Home::Own(node, _) => {
                    Some((node, pools.iter().map(|(_, pool)| pool.accounts).sum()))
                }
                Home::Borrowed(_) | Home::Lost(_) => None,
            })
    }

    /// The nodes' memory by kind, with its pages by owner.
    pub fn kinds(&self) -> impl Iterator<Item = (NodeId, Kind, Accounts)> + '_ {
        self.pools.iter().filter_map(|(home, pool)| match *home {
            Home::Own(node, kind) => Some((node, kind, pool.accounts)),
            Home::Borrowed(_) | Home::Lost(_) => None,
        })
    }

    /// The loans that the cell has taken, with their pages by owner.
    pub fn borrowed(&self) -> impl Iterator<Item = (LoanId, Accounts)> + '_ {
        self.pools.iter().filter_map(|(home, pool)| match *home {
            Home::Borrowed(loan) => Some((loan, pool.accounts)),
            Home::Own(..) | Home::Lost(_) => None,
        })
    }

    /// The cell's own pages by owner.
    #[must_use]
    pub fn accounts(&self) -> Accounts {
        self.kinds().map(|(_, _, accounts)| accounts).sum()
    }

    /// Checks MEM-SUM and MEM-LIST against every word.
    ///
    /// # Errors
    /// The first violation.
    pub fn audit(&self) -> Result<(), Violation> {
        self.pools.iter().try_for_each(|(_, pool)| pool.audit())
    }
}
