//! The pmap of a VM: where in the machine each page of its memory lies, and what it is promised of it.
//!
//! A VM's memory is one run of pages, numbered from 0; guest-physical addresses above and below
//! device windows, and their aliases, are folded onto it by the virtual board before they come here.
//!
//! A pmap is shared with the engines that run the VM, on any CPU. They look pages up without a lock
//! ([`Pmap::get`]) and have those placed that are not there ([`Pmap::touch`]). Entries are atomic, so that a
//! page can be taken away under them: unmap it, tell every engine to forget it, reuse it. All that is
//! left goes back, promise and pages, when the last of them lets the pmap go.
//!
//! A VM's pmap is its home's. A cell that some of the VM's VCPUs visit has a [`Replica`] of what they use.

mod replica;
mod table;

use crate::frames::{Frames, Shortage};
use crate::placement::{Plan, Shares};
use abi::ids::MAX_CELLS;
use abi::{CellId, Mpa, NodeId, VmId};
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};
use table::{Table, frame, mpa};

pub use replica::Replica;

/// Where the pages of a VM lie.
pub struct Pmap {
    table: Table,
    resident: AtomicU32,
    vm: VmId,
    plan: Plan,
    /// What it may yet take and what it has taken, by source. Changed under the lock of the frames.
    due: [AtomicU32; MAX_CELLS],
    taken: [AtomicU32; MAX_CELLS],
    frames: Arc<Frames>,
}

impl fmt::Debug for Pmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pmap({} of {} pages)", self.resident(), self.pages())
    }
}

/// Why a VM can't have its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPmap {
    /// The monitor's own heap has no room for the pmap.
    Heap,
    /// There is not so much memory.
    Shortage(Shortage),
}

impl From<TryReserveError> for NoPmap {
    fn from(_: TryReserveError) -> Self {
        Self::Heap
    }
}

impl Pmap {
    /// The pmap of VM `vm`, which is promised `pages` pages by `plan`. None of them is there yet.
    ///
    /// # Errors
    /// When there are not so many, or the monitor's heap has not enough room.
    pub fn new(frames: &Arc<Frames>, vm: VmId, plan: Plan, pages: u32) -> Result<Self, NoPmap> {
        let table = Table::new(pages)?;
        let due = frames.promise(&plan, pages).map_err(NoPmap::Shortage)?;
        Ok(Self {
            table,
            resident: AtomicU32::new(0),
            vm,
            plan,
            due: due.map(AtomicU32::new),
            taken: Default::default(),
            frames: frames.clone(),
        })
    }

    /// Whose it is.
    #[must_use]
    pub const fn vm(&self) -> VmId {
        self.vm
    }

    /// Where its pages are to come from.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Pages of the VM's memory.
    #[must_use]
    pub const fn pages(&self) -> u32 {
        self.table.pages()
    }

    /// How many of them are there.
    #[must_use]
    pub fn resident(&self) -> u32 {
        self.resident.load(Ordering::Relaxed)
    }

    /// Pages that it has, by the cell whose they are.
    #[must_use]
    pub fn taken(&self) -> Shares {
        core::array::from_fn(|i| self.taken[i].load(Ordering::Relaxed))
    }

    /// Whether it has pages of `cell`, or is promised some.
    #[must_use]
    pub fn depends_on(&self, cell: CellId) -> bool {
        self.due(cell) != 0 || self.taken[usize::from(cell.0)].load(Ordering::Relaxed) != 0
    }

    /// Pages that it may yet take, by the cell whose they are.
    #[must_use]
    pub fn promised(&self) -> Shares {
        core::array::from_fn(|i| self.due[i].load(Ordering::Relaxed))
    }

    /// What it may yet take of a source.
    #[inline]
    pub(crate) fn due(&self, source: CellId) -> u32 {
        self.due[usize::from(source.0)].load(Ordering::Relaxed)
    }

    /// It takes a page of a source, or gives it back. Under the lock of the frames.
    #[inline]
    pub(crate) fn move_due(&self, source: CellId, takes: bool) {
        let (due, taken) = (&self.due[usize::from(source.0)], &self.taken[usize::from(source.0)]);
        let (from, to) = if takes { (due, taken) } else { (taken, due) };
        from.store(from.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        to.store(to.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// It has a page of a source more than its promise, while one is moved, or no longer. Under the lock of the frames.
    pub(crate) fn count_taken(&self, source: CellId, more: bool) {
        let taken = &self.taken[usize::from(source.0)];
        let count = taken.load(Ordering::Relaxed);
        taken.store(if more { count + 1 } else { count - 1 }, Ordering::Relaxed);
    }

    /// Page `page`, which lies at `from`, lies at `to` from now on; `false`, and nothing has changed: it does not lie
    /// there. Nobody may use the page meanwhile.
    pub(crate) fn replace(&self, page: u32, from: Mpa, to: Mpa) -> bool {
        let (from, to) = (frame(from), frame(to));
        self.table.entry(page).is_some_and(|entry| {
            entry.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        })
    }

    /// Where page `page` lies; `None` when it is not there or past the end.
    #[inline]
    #[must_use]
    pub fn get(&self, page: u32) -> Option<Mpa> {
        self.table.get(page)
    }

    /// Where page `page` lies, which is placed if it is not there, near `node`: taken, zeroed by `clear`
    /// and mapped. Several CPUs may touch one page at once: one of them places it, and what the others
    /// have taken for it goes back. `None` past the end, and of a VM whose memory a dead cell has lent.
    #[cold]
    #[must_use]
    pub fn touch(&self, page: u32, node: NodeId, clear: impl FnOnce(Mpa)) -> Option<Mpa> {
        let entry = self.table.entry(page)?;
        let taken = loop {
            if let Some(there) = mpa(entry.load(Ordering::Acquire)) {
                return Some(there);
            }
            if let Some(taken) = self.frames.take(self, page, node) {
                break taken;
            }
            // All it is promised is taken, also for this page then: by a CPU that will map it soon.
            if !self.frames.is_placing() {
                return mpa(entry.load(Ordering::Acquire));
            }
            core::hint::spin_loop();
        };
        clear(taken);
        match entry.compare_exchange(0, frame(taken), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                self.resident.fetch_add(1, Ordering::Relaxed);
                self.frames.placed();
                Some(taken)
            }
            Err(faster) => {
                self.frames.take_back(self, page, taken);
                mpa(faster)
            }
        }
    }

    /// The pages that are there, in order, with where they lie.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Mpa)> + '_ {
        self.table.iter()
    }

    /// The same in parts of some hundred pages, each mostly from one source.
    pub(crate) fn parts(&self) -> impl Iterator<Item = impl Iterator<Item = (u32, Mpa)> + '_> + '_ {
        self.table.parts(self.plan.turns())
    }
}

impl Drop for Pmap {
    fn drop(&mut self) {
        self.frames.release(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memmap::{Kind, Memmap, Region};
    use crate::rng::Rng;
    use abi::PAGE_SIZE;
    use abi::config::Placement;
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Mutex;

    fn frames(pages: [u64; 2]) -> Arc<Frames> {
        let region = |node: u8| {
            let base = 0x9000_0000 + u64::from(node) * 0x1000_0000;
            let range = Mpa(base)..Mpa(base + pages[usize::from(node)] * PAGE_SIZE);
            Region { node: NodeId(node), kind: Kind::Slice, range }
        };
        Arc::new(Frames::new(CellId(0), Memmap::new(&[region(0), region(1)], &[]).unwrap()))
    }

    fn pmap(frames: &Arc<Frames>, vm: u16, pages: u32) -> Result<Pmap, NoPmap> {
        Pmap::new(frames, VmId(vm), Plan::new(Placement::Local, CellId(0), 1), pages)
    }

    #[test]
    fn equals_a_naive_model() {
        for pages in [0u32, 1, 1023, 1024, 1025, 3000] {
            let frames = frames([2000, 1500]);
            let pmap = pmap(&frames, 3, pages).unwrap();
            let mut model: BTreeMap<u32, Mpa> = BTreeMap::new();
            let mut rng = Rng::new(u64::from(pages));
            for _ in 0..5000 {
                let page = rng.below(u64::from(pages) + 10) as u32;
                assert_eq!(pmap.get(page), model.get(&page).copied());
                let node = NodeId(rng.below(2) as u8);
                let mut cleared = None;
                let mpa = pmap.touch(page, node, |mpa| cleared = Some(mpa));
                if page >= pages {
                    assert_eq!((mpa, cleared), (None, None));
                } else if let Some(&before) = model.get(&page) {
                    assert_eq!((mpa, cleared), (Some(before), None), "it is there");
                } else {
                    assert_eq!(mpa, cleared);
                    let mpa = mpa.unwrap();
                    let full = model.len() >= [2000, 1500][usize::from(node.0)];
                    assert!(full || (mpa.0 >= 0xa000_0000) == (node.0 == 1), "near the CPU");
                    model.insert(page, mpa);
                }
            }
            assert_eq!(pmap.resident() as usize, model.len());
            assert_eq!(pmap.taken()[0] as usize, model.len());
            assert!(pmap.iter().eq(model));
            assert_eq!(frames.audit([&pmap].into_iter()), Ok(()));
            assert_eq!(frames.promised()[0], u64::from(pages - pmap.resident()));
            drop(pmap);
            assert_eq!(frames.accounts().free, 3500);
            assert_eq!(frames.promised()[0], 0);
            assert_eq!(frames.audit(core::iter::empty()), Ok(()));
        }
    }

    #[test]
    fn what_is_promised_is_there_and_no_more_is_promised() {
        let frames = frames([10, 20]);
        let first = pmap(&frames, 0, 25).unwrap();
        let NoPmap::Shortage(shortage) = pmap(&frames, 1, 6).unwrap_err() else {
            panic!("a short heap")
        };
        assert_eq!((shortage.needs, shortage.free), (6, 5));
        assert_eq!(
            shortage.to_string(),
            "needs 24 KB and 20 KB are free (cell 0: node 0 40 KB, node 1 80 KB, less 100 KB promised to VMs)"
        );
        let second = pmap(&frames, 1, 5).unwrap();
        for page in 0..25 {
            assert!(first.touch(page, NodeId(0), |_| ()).is_some());
        }
        for page in 0..5 {
            assert!(second.touch(page, NodeId(0), |_| ()).is_some());
        }
        assert_eq!(frames.accounts().free, 0);
        assert_eq!(frames.audit([&first, &second].into_iter()), Ok(()));
        drop(first);
        assert_eq!(frames.accounts().free, 25);
    }

    /// Eight threads touch the same pages at once, with hardly a page to spare, and audits in between.
    #[test]
    fn cpus_that_touch_a_page_at_once_agree() {
        const PAGES: u32 = 600;
        for round in 0..30 {
            let frames = frames([250, 350]);
            let pmap = pmap(&frames, 0, PAGES).unwrap();
            let seen = Mutex::new(BTreeSet::new());
            std::thread::scope(|scope| {
                for cpu in 0..8u64 {
                    let (pmap, seen) = (&pmap, &seen);
                    scope.spawn(move || {
                        let mut rng = Rng::new(round * 8 + cpu);
                        let mut mine = Vec::new();
                        for page in 0..PAGES {
                            let clear =
                                |_| (0..rng.below(300)).for_each(|_| core::hint::spin_loop());
                            let mpa = pmap.touch(page, NodeId((cpu / 4) as u8), clear);
                            mine.push((page, mpa.expect("a promised page")));
                        }
                        seen.lock().unwrap().extend(mine);
                    });
                }
                for _ in 0..10 {
                    assert_eq!(frames.audit([&pmap].into_iter()), Ok(()));
                }
            });
            assert!(pmap.iter().eq(seen.into_inner().unwrap()), "all saw the same page");
            assert_eq!((frames.accounts().free, pmap.resident()), (0, PAGES));
            assert_eq!(frames.audit([&pmap].into_iter()), Ok(()));
        }
    }
}
