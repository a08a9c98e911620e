//! Frames that many CPUs use at once: VMs that begin, touch their pages, have them moved, and end; loans that come and
//! go; audits in between.

use super::*;
use crate::memmap::{Kind, Region};
use crate::rng::Rng;
use abi::config::Placement;
use abi::{PAGE_SIZE, VmId};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, RwLock};

/// Pages of the cell's two nodes, and of another cell.
const OWN: [u64; 2] = [300, 400];
const FOREIGN: u64 = 200;
const BASE: u64 = 0x0009_0000;
/// What is in a frame that was left.
const SPOILED: u64 = u64::MAX;

struct World {
    frames: Arc<Frames>,
    /// What each machine page holds; 0: nothing.
    contents: Vec<AtomicU64>,
    /// The pmaps of all VMs there are: an audit wants to see them all.
    pmaps: RwLock<BTreeMap<u16, Arc<Pmap>>>,
    over: AtomicBool,
}

fn runs(first: u64, pages: u64) -> Run {
    Run { start: Mpa((BASE + first) * PAGE_SIZE), pages: pages as u32 }
}

impl World {
    fn new() -> Self {
        let region = |node: u8, first, pages| {
            let start = runs(first, pages).start;
            let range = start..Mpa(start.0 + pages * PAGE_SIZE);
            Region { node: NodeId(node), kind: Kind::Slice, range }
        };
        let map = Memmap::new(&[region(0, 0, OWN[0]), region(1, OWN[0], OWN[1])], &[]).unwrap();
        let all = OWN[0] + OWN[1] + FOREIGN;
        Self {
            frames: Arc::new(Frames::new(CellId(0), map)),
            contents: (0..all).map(|_| AtomicU64::new(0)).collect(),
            pmaps: RwLock::default(),
            over: AtomicBool::new(false),
        }
    }

    fn content(&self, mpa: Mpa) -> &AtomicU64 {
        &self.contents[(mpa.page() - BASE) as usize]
    }

    /// A VCPU uses a page.
    fn touch(&self, pmap: &Pmap, page: u32, rng: &mut Rng) {
        let clear = |mpa| {
            (0..rng.below(100)).for_each(|_| core::hint::spin_loop());
            self.content(mpa).store(0, Ordering::Relaxed);
        };
        let node = NodeId((page % 2) as u8);
        let mpa = pmap.touch(page, node, clear).expect("a promised page");
        let mine = stamp(pmap, page);
        let found =
            self.content(mpa).compare_exchange(0, mine, Ordering::AcqRel, Ordering::Acquire);
        assert!(found.is_ok() || found == Err(mine), "{page} at {mpa} holds {found:x?}");
    }

    /// The VM, none of whose VCPUs runs, has a page moved.
    fn relocate(&self, pmap: &Pmap, page: u32, rng: &mut Rng) -> bool {
        let Some(moving) = self.frames.begin_move(pmap, page, rng.bits()) else { return false };
        let Moving { from, to, .. } = moving;
        let held = self.content(from).load(Ordering::Acquire);
        assert_eq!(held, stamp(pmap, page), "{page} at {from}");
        // Now and then the copy fails.
        let copied = rng.below(8) != 0;
        if copied {
            self.content(to).store(held, Ordering::Release);
            assert!(pmap.replace(page, from, to) && !pmap.replace(page, from, to));
            self.content(from).store(SPOILED, Ordering::Release);
        }
        self.frames.end_move(pmap, moving);
        assert_eq!(pmap.get(page), Some(if copied { to } else { from }));
        copied
    }

    /// A life of VM `vm`; how many pages were moved.
    fn life(&self, vm: u16, rng: &mut Rng) -> u64 {
        let placement = if rng.below(2) == 0 { Placement::Local } else { Placement::Spread };
        let pages = 1 + rng.below(250) as u32;
        let pmap = {
            let mut all = self.pmaps.write().unwrap();
            let plan = Plan::new(placement, CellId(0), 0b11);
            let Ok(pmap) = Pmap::new(&self.frames, VmId(vm), plan, pages) else { return 0 };
            let pmap = Arc::new(pmap);
            all.insert(vm, pmap.clone());
            pmap
        };
        let mut moved = 0;
        for _ in 0..4 {
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    let (pmap, mut rng) = (&pmap, Rng::new(rng.bits()));
                    scope.spawn(move || {
                        for _ in 0..60 {
                            let page = rng.below(u64::from(pages)) as u32;
                            self.touch(pmap, page, &mut rng);
                        }
                    });
                }
            });
            for _ in 0..40 {
                let page = rng.below(u64::from(pages)) as u32;
                moved += u64::from(self.relocate(&pmap, page, rng));
            }
        }
        for (page, mpa) in pmap.iter() {
            assert_eq!(self.content(mpa).load(Ordering::Acquire), stamp(&pmap, page));
        }
        assert_eq!(pmap.taken().iter().sum::<u32>(), pmap.resident());
        let mut all = self.pmaps.write().unwrap();
        all.remove(&vm);
        drop(pmap);
        moved
    }

    /// Borrows, gives back, lends and takes back.
    fn loans(&self, rng: &mut Rng) {
        let mut number = 0;
        let mut borrowed: Vec<(LoanId, u64)> = Vec::new();
        let mut lent: Vec<(Owner, Vec<Run>)> = Vec::new();
        while !self.over.load(Ordering::Relaxed) {
            number += 1;
            match rng.below(4) {
                0 => {
                    let at = rng.below(4) * (FOREIGN / 4);
                    if borrowed.iter().all(|(_, other)| *other != at) {
                        let loan = LoanId { lender: CellId(1), incarnation: 1, number };
                        let run = runs(OWN[0] + OWN[1] + at, FOREIGN / 4);
                        assert_eq!(self.frames.borrow(loan, &[run]), Ok(()));
                        borrowed.push((loan, at));
                    }
                }
                1 => borrowed.retain(|(loan, _)| match self.frames.unborrow(*loan) {
                    Ok(()) => false,
                    Err(why) => why == Refusal::InUse,
                }),
                2 => {
                    let owner = Owner::Lent { to: CellId(1), loan: number };
                    lent.push((owner, self.frames.lend(rng.below(40) as u32, 3, owner)));
                }
                _ if !lent.is_empty() => {
                    let (owner, runs) = lent.swap_remove(rng.below(lent.len() as u64) as usize);
                    self.frames.change(&runs, owner, Owner::Free);
                }
                _ => {}
            }
            std::thread::yield_now();
        }
        for (owner, runs) in lent {
            self.frames.change(&runs, owner, Owner::Free);
        }
        assert!(borrowed.iter().all(|(loan, _)| self.frames.unborrow(*loan) == Ok(())));
    }
}

fn stamp(pmap: &Pmap, page: u32) -> u64 {
    (u64::from(pmap.vm().0) << 32) | (u64::from(page) + 1)
}

#[test]
fn lives_moves_loans_and_touches_at_once_lose_no_page() {
    let world = World::new();
    let moved = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let vms: Vec<_> = (0..3u16)
            .map(|thread| {
                let (world, moved) = (&world, &moved);
                scope.spawn(move || {
                    let mut rng = Rng::new(u64::from(thread));
                    for life in 0..80 {
                        let vm = thread * 1000 + life;
                        moved.fetch_add(world.life(vm, &mut rng), Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let (world, mut rng) = (&world, Rng::new(99));
        scope.spawn(move || world.loans(&mut rng));
        scope.spawn(move || {
            while !world.over.load(Ordering::Relaxed) {
                let all = world.pmaps.read().unwrap();
                assert_eq!(world.frames.audit(all.values().map(|pmap| &**pmap)), Ok(()));
                drop(all);
                std::thread::yield_now();
            }
        });
        let ends: Vec<_> = vms.into_iter().map(|vm| vm.join()).collect();
        world.over.store(true, Ordering::Relaxed);
        assert!(ends.iter().all(Result::is_ok));
    });
    assert!(moved.into_inner() > 5000);
    assert_eq!(world.frames.accounts().free, OWN[0] + OWN[1]);
    assert_eq!(world.frames.promised(), [0; MAX_CELLS]);
    assert_eq!(world.frames.audit(core::iter::empty()), Ok(()));
}
