//! The cell's frames: the memmap behind a lock of its own, and what of it is promised.
//!
//! # Promised, then placed
//!
//! A VM's pages are *promised* to it when it starts, each by a source: the cell itself, or a cell that has
//! lent some of its own. What does not fit is refused then; nothing is ever overcommitted. A page is
//! *placed*, which is taken, cleared and mapped, when it is first touched, near the CPU that touches it
//! ([`Pmap::touch`]). That can't fail:
//!
//! - **MEM-PROMISE**: for each source, what is promised of it is the sum of what the VMs have yet to take
//!   of it, and is at most what is free there.
//!
//! # Locks
//!
//! Guests touch pages while they run, outside the cell's own lock. So the frames have a lock of their own,
//! held for some dozens of instructions, in which nothing waits; clearing a page is done without it. The
//! order is: cell, frames, heap. Whoever dies with the lock in hand takes the cell with it, and the memmap:
//! there is nothing to break it open for.
//!
//! Between taking a page and mapping it a CPU holds no lock; `placing` counts such pages, and one of the two frames of a
//! page that is being moved, so that the sums of the memmap and of the pmaps agree at any time. It is changed so that it is never too small.

mod exchange;
#[cfg(test)]
mod tests;

use crate::loan::{LoanId, Refusal};
use crate::memmap::{Accounts, Memmap, Owner, Run, Violation};
use crate::placement::{Plan, Shares};
use crate::pmap::Pmap;
use abi::ids::MAX_CELLS;
use abi::{CellId, Mpa, NodeId, PAGE_SHIFT};
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};
pub(crate) use exchange::Moving;
use spin::mutex::SpinMutex;

/// The frames of a cell, for all of its CPUs.
#[derive(Debug)]
pub struct Frames {
    cell: CellId,
    inner: SpinMutex<Inner>,
    /// Pages that are taken and not mapped yet.
    placing: AtomicU32,
}

#[derive(Debug)]
struct Inner {
    map: Memmap,
    /// What VMs may yet take, by source.
    promised: [u64; MAX_CELLS],
    /// Sources that have died while something was promised of them.
    lost: [bool; MAX_CELLS],
}

impl Inner {
    /// What is free of a source.
    fn free(&self, source: CellId, cell: CellId) -> u64 {
        if source == cell {
            return self.map.accounts().free;
        }
        let of = |(loan, _): &(LoanId, Accounts)| loan.lender == source;
        self.map.borrowed().filter(of).map(|(_, accounts)| accounts.free).sum()
    }

    /// What is free of a source and not promised.
    fn spare(&self, source: CellId, cell: CellId) -> u64 {
        self.free(source, cell).saturating_sub(self.promised[usize::from(source.0)])
    }
}

/// A VM needs more memory than there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Pages that it needs.
    pub needs: u64,
    /// Pages that are free for it.
    pub free: u64,
    cell: CellId,
    nodes: Vec<(NodeId, u64)>,
    borrowed: Vec<(CellId, u64)>,
    promised: u64,
}

impl fmt::Display for Shortage {
    /// `needs 48 MB and 20 MB are free (cell 0: node 0 12 MB, node 1 12 MB, less 4 MB promised)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "needs {} and {} are free (", Pages(self.needs), Pages(self.free))?;
        write!(f, "cell {}:", self.cell)?;
        for (i, (node, free)) in self.nodes.iter().enumerate() {
            write!(f, "{} node {node} {}", if i == 0 { "" } else { "," }, Pages(*free))?;
        }
        if self.promised != 0 {
            write!(f, ", less {} promised to VMs", Pages(self.promised))?;
        }
        for (lender, free) in &self.borrowed {
            write!(f, "; {} of cell {lender}'s", Pages(*free))?;
        }
        write!(f, ")")
    }
}

/// A number of pages for a person.
#[derive(Clone, Copy, Debug)]
pub struct Pages(pub u64);

impl fmt::Display for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kb = self.0 << (PAGE_SHIFT - 10);
        if kb < 1024 {
            write!(f, "{kb} KB")
        } else if kb.is_multiple_of(1024) {
            write!(f, "{} MB", kb >> 10)
        } else {
            write!(f, "{}.{} MB", kb >> 10, kb % 1024 * 10 / 1024)
        }
    }
}

impl Frames {
    /// The frames of `cell`.
    #[must_use]
    pub const fn new(cell: CellId, map: Memmap) -> Self {
        let inner =
            SpinMutex::new(Inner { map, promised: [0; MAX_CELLS], lost: [false; MAX_CELLS] });
        Self { cell, inner, placing: AtomicU32::new(0) }
    }

    /// Whose they are.
    #[must_use]
    pub const fn cell(&self) -> CellId {
        self.cell
    }

    /// Looks at the memmap, under the lock: briefly.
    pub fn look<T>(&self, look: impl FnOnce(&Memmap) -> T) -> T {
        look(&self.inner.lock().map)
    }

    /// The cell's own pages by owner.
    #[must_use]
    pub fn accounts(&self) -> Accounts {
        self.look(Memmap::accounts)
    }

    /// Pages that VMs are promised and have not touched yet, by source.
    #[must_use]
    pub fn promised(&self) -> [u64; MAX_CELLS] {
        self.inner.lock().promised
    }

    /// What a VM of `pages` pages lacks of each cell's memory: what it should borrow before it starts.
    #[must_use]
    pub fn missing(&self, plan: &Plan, pages: u32) -> Shares {
        let wants = plan.wants(pages);
        let inner = self.inner.lock();
        core::array::from_fn(|i| {
            let spare = inner.spare(CellId(i as u8), self.cell);
            u64::from(wants[i]).saturating_sub(spare) as u32
        })
    }

    /// Promises a VM `pages` pages: of each cell what the plan wants; what one lacks, the others of the plan
    /// make up for, in its order.
    ///
    /// # Errors
    /// When all of them together have not enough.
    pub(crate) fn promise(&self, plan: &Plan, pages: u32) -> Result<Shares, Shortage> {
        let wants = plan.wants(pages);
        let mut inner = self.inner.lock();
        let mut shares = [0; MAX_CELLS];
        let mut left = pages;
        for wanting in [true, false] {
            for &source in plan.cells() {
                let i = usize::from(source.0);
                let spare = inner.spare(source, self.cell) - u64::from(shares[i]);
                let most = if wanting { wants[i].min(left) } else { left };
                let share = u64::from(most).min(spare) as u32;
                shares[i] += share;
                left -= share;
            }
        }
        if left != 0 {
            return Err(self.shortage(&inner, plan, pages));
        }
        for (promised, share) in inner.promised.iter_mut().zip(shares) {
            *promised += u64::from(share);
        }
        Ok(shares)
    }

    fn shortage(&self, inner: &Inner, plan: &Plan, pages: u32) -> Shortage {
        let spare = |cell: &CellId| inner.spare(*cell, self.cell);
        let others = plan.cells().iter().filter(|&&cell| cell != self.cell);
        Shortage {
            needs: u64::from(pages),
            free: plan.cells().iter().map(spare).sum(),
            cell: self.cell,
            nodes: inner.map.nodes().map(|(node, accounts)| (node, accounts.free)).collect(),
            borrowed: others.map(|cell| (*cell, spare(cell))).collect(),
            promised: inner.promised[usize::from(self.cell.0)],
        }
    }

    /// Takes a promised page for page `page` of `pmap`'s VM, near `node`. `None`: it has taken all that
    /// it is promised, at the moment.
    pub(crate) fn take(&self, pmap: &Pmap, page: u32, node: NodeId) -> Option<Mpa> {
        let plan = pmap.plan();
        let owner = Owner::Vm { vm: pmap.vm(), page };
        let inner = &mut *self.inner.lock();
        let due = |cell: &CellId| pmap.due(*cell) != 0;
        let first = Some(plan.source(page)).filter(due);
        let source = first.or_else(|| plan.cells().iter().copied().find(due))?;
        let mpa = if source == self.cell {
            let node = plan.node(page, &inner.map).unwrap_or(node);
            inner.map.take_near(node, owner)
        } else {
            inner.map.take_borrowed(source, owner)
        };
        // What is borrowed is gone when its lender dies, until the VMs that had some of it have ended.
        assert!(mpa.is_some() || source != self.cell, "MEM-PROMISE: nothing free for {owner:?}");
        let mpa = mpa?;
        pmap.move_due(source, true);
        inner.promised[usize::from(source.0)] -= 1;
        self.placing.fetch_add(1, Ordering::Relaxed);
        Some(mpa)
    }

    /// A page that was taken is mapped.
    pub(crate) fn placed(&self) {
        self.placing.fetch_sub(1, Ordering::Release);
    }

    /// Whether any page is on its way to being mapped. What was mapped before is seen afterwards.
    pub(crate) fn is_placing(&self) -> bool {
        self.placing.load(Ordering::Acquire) != 0
    }

    /// Takes back a page that was taken for `page` of `pmap`'s VM and is not mapped: another CPU was
    /// faster.
    pub(crate) fn take_back(&self, pmap: &Pmap, page: u32, mpa: Mpa) {
        let inner = &mut *self.inner.lock();
        let source = inner.map.lender(mpa).unwrap_or(self.cell);
        inner.map.give(mpa, Owner::Vm { vm: pmap.vm(), page });
        pmap.move_due(source, false);
        inner.promised[usize::from(source.0)] += 1;
        self.placing.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes back pages of `pmap`'s VM, which no engine uses any more, and forgets what it was promised.
    pub(crate) fn release(&self, pmap: &Pmap) {
        for pages in pmap.parts() {
            // Not all at once: other VMs want pages meanwhile.
            self.inner.lock().map.give_all(pmap.vm(), pages);
        }
        let inner = &mut *self.inner.lock();
        for i in 0..MAX_CELLS {
            inner.promised[i] -= u64::from(pmap.due(CellId(i as u8)));
            inner.lost[i] &= inner.promised[i] != 0;
        }
        inner.map.remove_lost();
        let sums = inner.map.accounts();
        assert!(sums.balanced(), "MEM-SUM: {sums}");
    }

    /// Takes up to `pages` of the cell's own pages that are neither used nor promised, in `most` runs at
    /// most, and makes them `owner`'s.
    #[must_use]
    pub fn lend(&self, pages: u32, most: usize, owner: Owner) -> Vec<Run> {
        let inner = &mut *self.inner.lock();
        let spare = inner.spare(self.cell, self.cell).min(u64::from(pages));
        let runs = inner.map.free_runs(spare as u32, most);
        for mpa in runs.iter().flat_map(|run| run.iter()) {
            inner.map.change(mpa, Owner::Free, owner);
        }
        runs
    }

    /// Pages that are `from`'s become `to`'s.
    ///
    /// # Panics
    /// As for [`Memmap::change`].
    pub fn change(&self, runs: &[Run], from: Owner, to: Owner) {
        let inner = &mut *self.inner.lock();
        for run in runs {
            inner.map.change_run(*run, from, to);
        }
    }

    /// Adds the pages of a loan.
    ///
    /// # Errors
    /// As for [`Memmap::add_borrowed`].
    pub fn borrow(&self, loan: LoanId, runs: &[Run]) -> Result<(), Refusal> {
        self.inner.lock().map.add_borrowed(loan, runs)
    }

    /// Forgets the pages of a loan.
    ///
    /// # Errors
    /// When there is no such loan, or one of its pages is in use, or needed to keep a promise.
    pub fn unborrow(&self, loan: LoanId) -> Result<(), Refusal> {
        let inner = &mut *self.inner.lock();
        let of = |(other, _): &(LoanId, Accounts)| *other == loan;
        let (_, accounts) = inner.map.borrowed().find(of).ok_or(Refusal::NoLoan)?;
        if inner.spare(loan.lender, self.cell) < accounts.total {
            return Err(Refusal::InUse);
        }
        inner.map.remove_borrowed(loan)
    }

    /// What `cell`, which has died, has lent is given to nobody any more.
    pub fn lose(&self, cell: CellId) {
        let inner = &mut *self.inner.lock();
        inner.map.lose(cell);
        let index = usize::from(cell.0);
        inner.lost[index] = inner.promised[index] != 0;
    }

    /// Checks all invariants page by page. `pmaps`: those of all VMs that have one.
    ///
    /// # Errors
    /// The first violation.
    pub fn audit<'a>(&self, pmaps: impl Iterator<Item = &'a Pmap>) -> Result<(), Violation> {
        let inner = self.inner.lock();
        inner.map.audit()?;
        // Nobody takes a page or gives one back meanwhile; but pages that were taken may get mapped.
        let placing = u64::from(self.placing.load(Ordering::Acquire));
        let (mut mapped, mut due) = (0, [0; MAX_CELLS]);
        for pmap in pmaps {
            for (page, mpa) in pmap.iter() {
                if inner.map.owner(mpa) != Some(Owner::Vm { vm: pmap.vm(), page }) {
                    return Err(Violation::Map { mpa });
                }
                mapped += 1;
            }
            for (i, sum) in due.iter_mut().enumerate() {
                *sum += u64::from(pmap.due(CellId(i as u8)));
            }
        }
        let borrowed: Accounts =
            inner.map.borrowed().chain(inner.map.lost()).map(|(_, accounts)| accounts).sum();
        let recorded = inner.map.accounts().vm + borrowed.vm;
        if mapped > recorded || mapped + placing < recorded {
            return Err(Violation::Unmapped { recorded, mapped, placing });
        }
        for (i, (&promised, due)) in inner.promised.iter().zip(due).enumerate() {
            let free = inner.free(CellId(i as u8), self.cell);
            if promised != due || (promised > free && !inner.lost[i]) {
                return Err(Violation::Promise { promised, due, free });
            }
        }
        Ok(())
    }
}
