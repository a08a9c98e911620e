//! Random loans, returns, VMs and deaths on several cells, whose calls take their time: nothing is ever
//! usable twice, and every page is accounted for on both sides.

use super::*;
use crate::frames::Frames;
use crate::memmap::{Kind, Memmap, Owner, Region};
use crate::placement::Plan;
use crate::pmap::Pmap;
use crate::rng::Rng;
use abi::config::Placement;
use abi::{Mpa, NodeId, PAGE_SIZE, VmId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const CELLS: u8 = 4;
const PAGES: u64 = 120;
const MONITOR: u64 = 8;

/// Half of a cell's pages are window, half slice.
fn regions(cell: u8) -> [Region; 2] {
    let region = |kind, base: u64| {
        let range = Mpa(base)..Mpa(base + PAGES / 2 * PAGE_SIZE);
        Region { node: NodeId(cell), kind, range }
    };
    let at = u64::from(cell) << 24;
    [region(Kind::Window, 0x7000_0000 + at), region(Kind::Slice, 0x9000_0000 + at)]
}

fn territory() -> Vec<(CellId, Run)> {
    let run = |r: Region| Run { start: r.range.start, pages: (PAGES / 2) as u32 };
    (0..CELLS).flat_map(|c| regions(c).map(|r| (CellId(c), run(r)))).collect()
}

struct Cell {
    loans: Loans,
    frames: Arc<Frames>,
    vms: Vec<Pmap>,
}

impl Cell {
    fn new(cell: u8, incarnation: u16) -> Self {
        let regions = regions(cell);
        let start = regions[0].range.start;
        let monitor = start..Mpa(start.0 + MONITOR * PAGE_SIZE);
        let map = Memmap::new(&regions, &[monitor]).unwrap();
        let frames = Arc::new(Frames::new(CellId(cell), map));
        let loans = Loans::new(frames.clone(), incarnation, territory());
        Self { loans, frames, vms: Vec::new() }
    }

    fn borrowed(&self) -> Vec<LoanId> {
        self.frames.look(|map| map.borrowed().map(|(loan, _)| loan).collect())
    }
}

/// A call, and once it has been executed its answer.
struct Call {
    request: Request,
    reply: Option<Reply>,
}

#[derive(Default)]
struct World {
    cells: BTreeMap<u8, Cell>,
    /// By caller and callee: one at a time.
    calls: BTreeMap<(u8, u8), Call>,
    /// Cells that have died, and the survivors that have not been told yet that it is fenced.
    dead: BTreeMap<u8, BTreeSet<u8>>,
    boots: [u16; CELLS as usize],
    done: BTreeMap<&'static str, u32>,
}

impl World {
    fn boot(&mut self, cell: u8) {
        self.boots[usize::from(cell)] += 1;
        self.cells.insert(cell, Cell::new(cell, self.boots[usize::from(cell)]));
    }

    fn count(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    fn call(&mut self, from: u8, to: u8, request: Request) {
        let before = self.calls.insert((from, to), Call { request, reply: None });
        assert!(before.is_none());
    }

    /// A call makes its next step.
    fn proceed(&mut self, (from, to): (u8, u8)) {
        let Some(call) = self.calls.get_mut(&(from, to)) else { return };
        // As words, as they travel.
        let request = Request::decode(&call.request.encode()).unwrap();
        match call.reply {
            None => {
                let callee = self.cells.get_mut(&to).unwrap();
                let reply = callee.loans.asked(CellId(from), &request);
                call.reply = Some(Reply::decode(&reply.encode()));
            }
            Some(reply) => {
                self.calls.remove(&(from, to));
                let caller = self.cells.get_mut(&from).unwrap();
                match caller.loans.answered(CellId(to), &request, Some(&reply)) {
                    Outcome::SendBack(loan, _) => self.call(from, to, Request::Return { loan }),
                    Outcome::Lent(..) => self.count("lent"),
                    Outcome::Borrowed(..) => self.count("borrowed"),
                    Outcome::Over(..) => self.count("over"),
                    Outcome::Refused(Refusal::NothingFree) => self.count("nothing free"),
                    Outcome::Refused(Refusal::InUse) => self.count("in use"),
                    Outcome::Refused(Refusal::NoLoan) => self.count("on its way"),
                    other => panic!("{request:?} answered by {reply:?}: {other:?}"),
                }
            }
        }
    }

    fn die(&mut self, cell: u8, rng: &mut Rng) {
        self.cells.remove(&cell);
        self.dead.insert(cell, self.cells.keys().copied().collect());
        for waiting in self.dead.values_mut() {
            waiting.remove(&cell);
        }
        let lost: Vec<(u8, u8)> =
            self.calls.keys().filter(|(a, b)| *a == cell || *b == cell).copied().collect();
        let calls = lost.into_iter().map(|key| (key, self.calls.remove(&key).unwrap()));
        let failed: Vec<_> = calls.filter(|((from, _), _)| *from != cell).collect();
        let told_first = rng.below(2) == 0;
        for (&id, survivor) in &mut self.cells {
            if told_first {
                survivor.loans.died(CellId(cell));
            }
            for (_, call) in failed.iter().filter(|((from, _), _)| *from == id) {
                let outcome = survivor.loans.answered(CellId(cell), &call.request, None);
                assert_eq!(outcome, Outcome::Died);
            }
            if !told_first {
                survivor.loans.died(CellId(cell));
            }
            assert_eq!(survivor.audit(), Ok(()), "with VMs that are not ended yet");
            let before = survivor.vms.len();
            survivor.vms.retain(|vm| !vm.depends_on(CellId(cell)));
            let ended = before != survivor.vms.len();
            *self.done.entry("ended with a lender").or_default() += u32::from(ended);
            assert_eq!(survivor.frames.look(|map| map.lost().count()), 0);
        }
        self.count("deaths");
    }

    /// Something happens.
    fn step(&mut self, rng: &mut Rng) {
        let alive: Vec<u8> = self.cells.keys().copied().collect();
        let mut pick = |all: &[u8]| all[rng.below(all.len() as u64) as usize];
        let (a, b) = (pick(&alive), pick(&(0..CELLS).collect::<Vec<_>>()));
        let idle = a != b && alive.contains(&b) && !self.calls.contains_key(&(a, b));
        let cell = self.cells.get_mut(&a).unwrap();
        match rng.below(16) {
            0 if idle => {
                if let Ok(request) = cell.loans.lend(CellId(b), 1 + rng.below(40) as u32) {
                    self.call(a, b, request);
                }
            }
            1 if idle => self.call(a, b, Request::Lend { pages: 1 + rng.below(40) as u32 }),
            2 if idle => {
                let of_b = cell.borrowed().into_iter().find(|loan| loan.lender.0 == b);
                if let Some(Ok(request)) = of_b.map(|loan| cell.loans.give_back(loan)) {
                    self.call(a, b, request);
                }
            }
            3 if idle => {
                let loan = cell.loans.lent().find(|(to, ..)| to.0 == b).map(|(_, loan, _)| loan);
                if let Some(Ok((to, request))) = loan.map(|loan| cell.loans.recall(loan)) {
                    assert_eq!(to.0, b);
                    self.call(a, b, request);
                }
            }
            4..=6 if cell.vms.len() < 6 => {
                let placement = [Placement::Local, Placement::Spread][rng.below(2) as usize];
                let plan = Plan::new(placement, CellId(a), rng.below(256) as u8 & 0xf);
                let vm = VmId(rng.below(1 << 16) as u16);
                if let Ok(pmap) = Pmap::new(&cell.frames, vm, plan, 1 + rng.below(50) as u32) {
                    cell.vms.push(pmap);
                }
            }
            7 | 8 if !cell.vms.is_empty() => {
                let pmap = &cell.vms[rng.below(cell.vms.len() as u64) as usize];
                for _ in 0..rng.below(60) {
                    let page = rng.below(u64::from(pmap.pages())) as u32;
                    assert!(pmap.touch(page, NodeId(a), |_| ()).is_some(), "it is promised");
                }
            }
            9 if !cell.vms.is_empty() => {
                cell.vms.swap_remove(rng.below(cell.vms.len() as u64) as usize);
            }
            10 if rng.below(20) == 0 && alive.len() > 1 => self.die(a, rng),
            11 => {
                let Some((&dead, waiting)) = self.dead.iter_mut().next() else { return };
                match waiting.pop_first() {
                    Some(survivor) => {
                        let survivor = self.cells.get_mut(&survivor).unwrap();
                        survivor.loans.fenced(CellId(dead));
                    }
                    None => {
                        self.dead.remove(&dead);
                        self.boot(dead);
                    }
                }
            }
            _ => self.proceed((a, b)),
        }
    }

    /// The loans from `a` to `b` that a call or its answer carries.
    fn carried(&self, a: u8, b: u8) -> Vec<LoanId> {
        let mut loans = Vec::new();
        if let Some(call) = self.calls.get(&(a, b)) {
            match (call.request, call.reply) {
                (Request::Borrow { loan, .. }, None | Some(Reply::Refused(_))) => loans.push(loan),
                (Request::Recall { loan }, Some(Reply::Done)) => loans.push(loan),
                _ => {}
            }
        }
        if let Some(call) = self.calls.get(&(b, a)) {
            match (call.request, call.reply) {
                (_, Some(Reply::Lent { loan, .. })) | (Request::Return { loan }, None) => {
                    loans.push(loan);
                }
                _ => {}
            }
        }
        loans
    }

    fn check(&self) {
        let mut usable = BTreeSet::new();
        for (&a, cell) in &self.cells {
            assert_eq!(cell.audit(), Ok(()));
            let accounts = cell.frames.accounts();
            assert!(accounts.balanced() && accounts.total == PAGES && accounts.monitor == MONITOR);
            let use_it = |mpa: Mpa| {
                let owner = cell.frames.look(|map| map.owner(mpa));
                if matches!(owner, Some(Owner::Free | Owner::Vm { .. })) {
                    assert!(usable.insert(mpa), "LOAN-ONE: {mpa}");
                }
            };
            territory().iter().flat_map(|(_, run)| run.iter()).for_each(use_it);
            let lent: u64 = cell.loans.lent().map(|(_, _, pages)| pages).sum();
            assert_eq!(accounts.lent, lent);
            for (&b, other) in self.cells.iter().filter(|(b, _)| **b != a) {
                let given = cell.loans.lent().filter(|(to, ..)| to.0 == b);
                let given: BTreeSet<LoanId> = given.map(|(_, loan, _)| loan).collect();
                let mut had: BTreeSet<LoanId> =
                    other.borrowed().into_iter().filter(|loan| loan.lender.0 == a).collect();
                for loan in self.carried(a, b) {
                    // A loan may be on its way back twice: called back while it is returned.
                    had.extend(given.contains(&loan).then_some(loan));
                }
                assert_eq!(given, had, "LOAN-SUM: cell {a} to cell {b}");
            }
        }
    }
}

impl Cell {
    fn audit(&self) -> Result<(), crate::memmap::Violation> {
        self.frames.audit(self.vms.iter())
    }
}

#[test]
fn every_page_has_one_user_whatever_happens() {
    let mut done: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let mut world = World::default();
        (0..CELLS).for_each(|cell| world.boot(cell));
        for step in 0..3000 {
            world.step(&mut rng);
            if step % 7 == 0 {
                world.check();
            }
        }
        // All calls end, VMs end, the dead are fenced, and what was lent comes back.
        while let Some(&key) = world.calls.keys().next() {
            world.proceed(key);
        }
        for cell in world.cells.values_mut() {
            cell.vms.clear();
            (0..CELLS).for_each(|dead| cell.loans.fenced(CellId(dead)));
        }
        for a in world.cells.keys().copied().collect::<Vec<_>>() {
            for loan in world.cells[&a].borrowed() {
                let request = world.cells.get_mut(&a).unwrap().loans.give_back(loan).unwrap();
                world.call(a, loan.lender.0, request);
                world.proceed((a, loan.lender.0));
                world.proceed((a, loan.lender.0));
            }
        }
        world.check();
        for cell in world.cells.values() {
            assert_eq!(cell.frames.accounts().free, PAGES - MONITOR, "a page is lost");
        }
        world.done.iter().for_each(|(what, n)| *done.entry(what).or_default() += n);
    }
    for what in [
        "lent",
        "borrowed",
        "over",
        "nothing free",
        "in use",
        "on its way",
        "deaths",
        "ended with a lender",
    ] {
        assert!(done.get(what).is_some_and(|n| *n > 20), "too few of {what}: {done:?}");
    }
}

fn pair() -> [Cell; 2] {
    [Cell::new(0, 1), Cell::new(1, 1)]
}

#[test]
fn only_the_lenders_own_pages_are_borrowed() {
    let [_, mut borrower] = pair();
    let loan = LoanId { lender: CellId(0), incarnation: 1, number: 1 };
    let own = regions(0)[1].range.start;
    let run = |start: u64, pages| Run { start: Mpa(start), pages };
    for bad in [
        run(own.0 - PAGE_SIZE, 1),
        run(own.0, PAGES as u32),
        run(own.0, 0),
        run(regions(1)[0].range.start.0, 1),
        run(regions(2)[0].range.start.0, 1),
        run(0, u32::MAX),
    ] {
        let request = Request::Borrow { loan, runs: Runs::new(&[run(own.0, 1), bad]) };
        assert_eq!(borrower.loans.asked(CellId(0), &request), Reply::Refused(Refusal::NotYours));
    }
    let runs = Runs::new(&[run(own.0, 2)]);
    let request = Request::Borrow { loan: LoanId { lender: CellId(2), ..loan }, runs };
    assert_eq!(borrower.loans.asked(CellId(0), &request), Reply::Refused(Refusal::NotYours));
    let request = Request::Borrow { loan, runs };
    assert_eq!(borrower.loans.asked(CellId(0), &request), Reply::Done);
    let recall = Request::Recall { loan };
    assert_eq!(borrower.loans.asked(CellId(2), &recall), Reply::Refused(Refusal::NotYours));
    assert_eq!(borrower.loans.asked(CellId(0), &recall), Reply::Done);
    assert_eq!(borrower.frames.audit(core::iter::empty()), Ok(()));
}

#[test]
fn what_is_promised_is_not_lent_and_not_given_back() {
    let [mut lender, mut borrower] = pair();
    let local = |home: u8, cells| Plan::new(Placement::Local, CellId(home), cells);
    let free = (PAGES - MONITOR) as u32;
    let promised = Pmap::new(&lender.frames, VmId(0), local(0, 1), free - 30).unwrap();
    let Ok(request) = lender.loans.lend(CellId(1), 1000) else { panic!("something is free") };
    let Request::Borrow { loan, runs } = request else { panic!("{request:?}") };
    assert_eq!(runs.pages(), 30);
    assert_eq!(lender.loans.lend(CellId(1), 1), Err(Refusal::NothingFree));
    assert_eq!(lender.loans.recall(loan), Err(Refusal::NoLoan), "it is not the borrower's yet");
    assert_eq!(borrower.loans.asked(CellId(0), &request), Reply::Done);
    let outcome = lender.loans.answered(CellId(1), &request, Some(&Reply::Done));
    assert_eq!(outcome, Outcome::Lent(loan, 30));

    // A VM that may not depend on the lender gets none of it.
    let Err(_) = Pmap::new(&borrower.frames, VmId(1), local(1, 0b10), free + 1) else {
        panic!("another cell's pages")
    };
    let vm = Pmap::new(&borrower.frames, VmId(1), local(1, 0b11), free + 1).unwrap();
    assert!(vm.depends_on(CellId(0)));
    assert_eq!(borrower.loans.give_back(loan), Err(Refusal::InUse), "it is promised");
    let (_, recall) = lender.loans.recall(loan).unwrap();
    assert_eq!(borrower.loans.asked(CellId(0), &recall), Reply::Refused(Refusal::InUse));
    for page in 0..vm.pages() {
        assert!(vm.touch(page, NodeId(1), |_| ()).is_some());
    }
    assert_eq!(vm.taken()[..2], [1, free]);
    drop(vm);
    assert_eq!(borrower.loans.asked(CellId(0), &recall), Reply::Done);
    let outcome = lender.loans.answered(CellId(1), &recall, Some(&Reply::Done));
    assert_eq!(outcome, Outcome::Over(loan));
    assert_eq!(lender.frames.audit([&promised].into_iter()), Ok(()));
    assert_eq!(lender.frames.accounts().lent, 0);
}
