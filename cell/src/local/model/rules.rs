//! What is so, whatever the cells believe; and the rules that they are held to.

use crate::talk::{CellSet, Epoch, Incarnation, LiveSet};
use abi::event::Cause;
use abi::ids::MAX_CELLS;
use abi::{CellId, Mpa, VmId};
use std::collections::{BTreeMap, BTreeSet};

/// Stops the search.
pub type Check<T = ()> = Result<T, String>;

pub fn broken<T>(rule: &str) -> Check<T> {
    Err(rule.into())
}

/// What a cell tells the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tale {
    /// Which of its lives, among all that there are in all cells.
    Started(VmId, u64),
    Ended(VmId, Cause),
    Lost(CellId),
    Back(CellId),
}

/// A page of a VM in one of its lives.
pub type Stamp = (VmId, u64, u32);

/// What became of a VM's last life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    Lives,
    /// Its end was told.
    Ended,
    /// Its home has died.
    Lost,
}

/// What is so.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Truth {
    /// Each VM that was ever started: its home, which of its lives is the last, and what became of that.
    pub vms: BTreeMap<VmId, (CellId, u64, Fate)>,
    /// Those that were lost with their home and whose end was told.
    pub told_lost: BTreeSet<VmId>,
    /// Those whose home had come back and died again before anybody told that it is back: their end is not told.
    pub unseen: BTreeSet<VmId>,
    /// Whose data each page holds.
    stamps: BTreeMap<Mpa, Stamp>,
    /// Turns of each VCPU of each life.
    ran: BTreeMap<Stamp, u64>,
    /// How often each cell has booted.
    pub incarnations: Vec<u16>,
    /// What each cell has agreed to in its present incarnation.
    pub histories: Vec<Vec<LiveSet>>,
    /// Cells that may be lost although they have not died: they hung, or one was told that they had.
    pub excused: CellSet,
    /// How often each cell has died.
    pub deaths: Vec<u8>,
    /// Of which of them the host is to be told: those of cells that had been let in.
    pub owed: Vec<u8>,
    /// Of which of them it was told.
    pub reported: Vec<u8>,
    /// The cells of which it was told last that they are lost. (One that comes back and dies again while nobody leads is told of as
    /// little as its return.)
    pub told: CellSet,
    /// Who told it, and how often: teller, its incarnation, of whom.
    tellers: BTreeMap<(CellId, u16, CellId), u8>,
    /// Pages that CPUs of dead cells may still reach.
    pub reach: BTreeMap<CellId, Vec<Mpa>>,
    /// The life of a VM of which a second CPU of each cell has a VCPU.
    pub on_cpu: BTreeMap<CellId, (VmId, u64)>,
    /// Lines that were lost with them: of each page that they could reach one.
    pub lost: BTreeSet<Mpa>,
}

impl Truth {
    pub fn new(cells: usize) -> Self {
        let mut incarnations = [Incarnation(0); MAX_CELLS];
        incarnations[..cells].fill(Incarnation(1));
        let first = LiveSet { epoch: Epoch(1), cells: CellSet::first(cells), incarnations };
        Self {
            vms: BTreeMap::new(),
            told_lost: BTreeSet::new(),
            unseen: BTreeSet::new(),
            stamps: BTreeMap::new(),
            ran: BTreeMap::new(),
            incarnations: vec![1; cells],
            histories: vec![vec![first]; cells],
            excused: CellSet::NONE,
            deaths: vec![0; cells],
            owed: vec![0; cells],
            reported: vec![0; cells],
            told: CellSet::NONE,
            tellers: BTreeMap::new(),
            reach: BTreeMap::new(),
            on_cpu: BTreeMap::new(),
            lost: BTreeSet::new(),
        }
    }

    /// A cell is gone, with the VMs whose home it is.
    pub fn died(&mut self, cell: CellId) {
        let index = usize::from(cell.0);
        self.deaths[index] += 1;
        let knows = |history: &Vec<LiveSet>| {
            let now = self.incarnations[index];
            history.last().is_some_and(|last| last.incarnations[index].0 == now)
        };
        if self.histories.iter().any(knows) {
            self.owed[index] = self.deaths[index];
        }
        self.histories[index].clear();
        for (vm, (home, _, fate)) in &mut self.vms {
            if *home == cell && *fate == Fate::Lives {
                *fate = Fate::Lost;
                if self.told.has(cell) {
                    self.unseen.insert(*vm);
                }
            }
        }
    }

    /// A cell goes on to the next live set.
    pub fn agrees(&mut self, me: CellId, live: LiveSet, up: CellSet) -> Check {
        let index = usize::from(me.0);
        if !live.cells.has(me) || live.incarnations[index].0 != self.incarnations[index] {
            return broken("a cell agreed to a live set without itself");
        }
        if let Some(last) = self.histories[index].last() {
            if last.epoch.next() != live.epoch {
                return broken("a cell missed an agreement");
            }
            let known = |cell: &CellId| {
                let cell = usize::from(cell.0);
                last.incarnations[cell].0 == self.incarnations[cell]
            };
            let gone = last.cells.minus(live.cells).and(up).filter(known);
            if gone.into_iter().any(|cell| !self.excused.has(cell)) {
                return broken("a cell was given up that answers");
            }
        }
        let knows = |live: &LiveSet, cell: CellId| {
            let incarnation = live.incarnations[usize::from(cell.0)].0;
            live.cells.has(cell) && incarnation == self.incarnations[usize::from(cell.0)]
        };
        for other in up.without(me) {
            let theirs = &self.histories[usize::from(other.0)];
            let same = theirs.iter().find(|set| set.epoch == live.epoch);
            let together = same.is_some_and(|set| knows(set, me) && knows(&live, other));
            if together && same != Some(&live) {
                return broken("two cells agreed to different live sets");
            }
        }
        self.histories[index].push(live);
        Ok(())
    }

    /// Whether another cell, in its present incarnation, has been left out of what a cell has agreed to.
    pub fn has_excluded(&self, by: CellId, other: CellId) -> bool {
        let history = &self.histories[usize::from(by.0)];
        let index = usize::from(other.0);
        let incarnation = self.incarnations[index];
        let knew = |set: &LiveSet| set.cells.has(other) && set.incarnations[index].0 == incarnation;
        history.iter().any(knew) && !history.last().is_some_and(knew)
    }

    /// A cell tells the host something.
    pub fn tell(&mut self, from: CellId, tale: Tale) -> Check {
        match tale {
            Tale::Started(vm, serial) => {
                self.told_lost.remove(&vm);
                self.unseen.remove(&vm);
                let before = self.vms.insert(vm, (from, serial, Fate::Lives));
                if before.is_some_and(|(.., fate)| fate == Fate::Lives) {
                    return broken("a VM was started that lives");
                }
            }
            Tale::Ended(vm, Cause::NoMemory) => {
                if self.vms.get(&vm).is_some_and(|(.., fate)| *fate == Fate::Lives) {
                    return broken("a VM that lives could not be started");
                }
            }
            Tale::Ended(vm, cause) => {
                if !matches!(cause, Cause::CellLost | Cause::Stopped) {
                    return broken("a VM ended for a fault that is not its own");
                }
                let told = self.told_lost.contains(&vm);
                match self.vms.get_mut(&vm) {
                    // Told by the one that leads, who has not been there.
                    Some((_, _, Fate::Lost)) if cause == Cause::CellLost && !told => {
                        self.told_lost.insert(vm);
                    }
                    Some((home, _, fate @ Fate::Lives)) if *home == from => *fate = Fate::Ended,
                    _ => return broken("the end of a VM was told that had ended"),
                }
            }
            Tale::Lost(cell) => {
                let index = usize::from(cell.0);
                let deaths = self.deaths[index];
                let teller = (from, self.incarnations[usize::from(from.0)], cell);
                let told = self.tellers.entry(teller).or_default();
                *told += 1;
                if deaths == 0 {
                    return broken("a cell was reported lost that lives");
                }
                if *told > deaths {
                    return broken("a cell's loss was reported twice");
                }
                self.reported[index] = deaths;
                self.told = self.told.with(cell);
            }
            Tale::Back(cell) => {
                self.told = self.told.without(cell);
                if self.incarnations[usize::from(cell.0)] < 2 {
                    return broken("a cell was reported back that had not gone");
                }
            }
        }
        Ok(())
    }

    /// A VCPU of a life of a VM has its turn, which it says is this one.
    pub fn runs(&mut self, who: Stamp, turn: u64) -> Check {
        let ended = |&(_, serial, fate): &(CellId, u64, Fate)| {
            serial > who.1 || serial == who.1 && fate == Fate::Ended
        };
        if self.vms.get(&who.0).is_some_and(ended) {
            return broken("a VCPU ran of a VM that has ended");
        }
        let ran = self.ran.entry(who).or_default();
        if *ran != turn {
            return broken("a VCPU ran in two places");
        }
        *ran += 1;
        Ok(())
    }

    /// A page of a VM comes to lie there.
    pub fn stamp(&mut self, at: Mpa, page: Stamp) -> Check {
        if self.reach.values().any(|pages| pages.contains(&at)) {
            return broken("a page was used that a dead cell's CPU may still reach");
        }
        if self.lost.contains(&at) {
            return broken("a page was used of which a line is lost");
        }
        let lives = |vm: VmId, serial: u64| {
            let last = self.vms.get(&vm);
            last.is_some_and(|&(_, last, fate)| (last, fate) == (serial, Fate::Lives))
        };
        let Some((vm, serial, _)) = self.stamps.insert(at, page) else { return Ok(()) };
        if (vm, serial) == (page.0, page.1) {
            return Ok(());
        }
        if self.on_cpu.values().any(|life| *life == (vm, serial)) {
            return broken("a page was used that a VCPU of another VM can still reach");
        }
        if lives(vm, serial) {
            return broken("a page was taken that another VM has");
        }
        Ok(())
    }

    /// Whether a page holds that.
    pub fn holds(&self, at: Mpa, page: Stamp) -> bool {
        self.stamps.get(&at) == Some(&page)
    }

    /// The pages that hold data of a life of a VM.
    pub fn pages_of(&self, vm: VmId, serial: u64) -> impl Iterator<Item = Mpa> + '_ {
        let its = move |stamp: &Stamp| (stamp.0, stamp.1) == (vm, serial);
        self.stamps.iter().filter(move |(_, stamp)| its(stamp)).map(|(mpa, _)| *mpa)
    }

    /// What these pages held is gone.
    pub fn clear(&mut self, pages: impl Fn(Mpa) -> bool) {
        self.stamps.retain(|at, _| !pages(*at));
    }

    pub fn copy(&mut self, from: Mpa, to: Mpa) {
        if let Some(&stamp) = self.stamps.get(&from) {
            self.stamps.insert(to, stamp);
        }
    }

    pub fn spoil(&mut self, at: Mpa) {
        self.stamps.remove(&at);
    }
}
