//! Whole cells, as the monitor has them, over the machine of the search, and everything that can happen to them.
//!
//! An action is one call into one cell under its lock, as one of its CPUs makes it, or something that happens to the machine. A look
//! finds any part of the deaths that there are; a time-out comes at any time, if the cell that it concerns hangs. A cell may die
//! between any two actions, and between any two effects of one action on the world outside of it.

use super::cases::Case;
use super::machine::{Bed, Ground, Shared};
use super::rules::{Check, Fate, broken};
use super::search::Walked;
use super::toy::ToyVcpu;
use crate::console::parse;
use crate::local::{LocalCell, Machine, Membership, Next, Turn};
use crate::memmap::{Kind, Memmap, Region};
use crate::talk::{Ballot, CellSet};
use crate::vm::{Seat, Vcpu, Visit};
use abi::config::Config;
use abi::{CellId, CpuId, Mpa, NodeId};
use std::cell::RefCell;
use std::rc::Rc;

/// What a CPU of a cell does in one action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Looks at the others, of which it finds these dead.
    Look(CellSet),
    /// Looks, and takes one for silent that is not.
    Alarm(CellId),
    /// Has waited for a sign of life of that cell for too long.
    Silence(CellId),
    /// Looks what a cell has written, or only writes.
    Talk(Option<CellId>),
    /// Its first CPU has a turn, and runs a VCPU if there is one to run.
    Step,
    /// Its second CPU takes a VCPU.
    Take,
    /// It brings it back.
    Back,
    /// Does what an operator says.
    Command(u8),
    /// Says that it is there once more.
    Beat,
    /// Has waited for everything else for too long.
    Late,
}

/// One thing that can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Does(CellId, Doing),
    /// The next thing that a cell has done takes effect.
    Lands(CellId),
    Dies(CellId),
    /// All CPUs of a dead cell have stopped.
    Stops(CellId),
    Hangs(CellId),
    Recovers(CellId),
    /// A cell that is lost boots again.
    Reboots(CellId),
}

/// What there is of a cell that has power.
pub enum Being {
    Cell(Box<LocalCell<Bed>>),
    /// It is not let in yet.
    New(Box<Membership>),
}

/// What may still happen.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Left {
    pub(super) deaths: u8,
    pub(super) hangs: u8,
    pub(super) reboots: u8,
    pub(super) lates: u8,
    pub(super) alarms: u8,
    pub(super) commands: u32,
}

/// Everything.
pub struct World<'a> {
    pub(super) case: &'a Case,
    pub(super) config: Rc<Config>,
    pub ground: Shared,
    pub(super) beings: Vec<Option<Being>>,
    pub(super) turns: Vec<Option<Turn<ToyVcpu>>>,
    pub(super) hung: CellSet,
    pub(super) left: Left,
}

impl<'a> World<'a> {
    /// A machine whose cells have booted and said that they are there.
    pub fn new(case: &'a Case, config: &Rc<Config>) -> Self {
        let cells = case.cells;
        let ground = Rc::new(RefCell::new(Ground::new(config.layout(), cells)));
        let left = Left {
            deaths: case.deaths,
            hangs: case.hangs,
            reboots: case.reboots,
            lates: case.lates,
            alarms: case.alarms,
            commands: 0,
        };
        let mut world = Self {
            case,
            config: config.clone(),
            ground,
            beings: Vec::new(),
            turns: (0..cells).map(|_| None).collect(),
            hung: CellSet::NONE,
            left,
        };
        for id in world.ids() {
            let bed = Bed::new(id, &world.ground);
            let memmap = world.memmap(id);
            let cpus = world.cpus(id);
            let members = Membership::at_start(id, config);
            let cell = LocalCell::new(bed, id, &cpus, config, memmap, members);
            world.beings.push(Some(Being::Cell(Box::new(cell))));
        }
        // They know each other before anything begins.
        for id in world.ids() {
            world.with_cell(id, LocalCell::look);
            world.flush(id);
        }
        for id in world.ids() {
            world.with_cell(id, LocalCell::boot);
            world.flush(id);
        }
        world
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = CellId> + use<> {
        (0..self.case.cells as u8).map(CellId)
    }

    fn cpus(&self, cell: CellId) -> Vec<(CpuId, NodeId)> {
        let first = cell.0 * self.case.cpus;
        (first..first + self.case.cpus).map(|cpu| (CpuId(cpu), NodeId(cell.0))).collect()
    }

    fn memmap(&self, cell: CellId) -> Memmap {
        let slice = self.config.layout().slice_of(NodeId(cell.0));
        let range = Mpa(slice.start)..Mpa(slice.end);
        let region = Region { node: NodeId(cell.0), kind: Kind::Slice, range };
        Memmap::new(&[region], &[]).expect("a record")
    }

    pub(super) fn cell(&self, cell: CellId) -> Option<&LocalCell<Bed>> {
        match self.beings[usize::from(cell.0)].as_ref()? {
            Being::Cell(cell) => Some(cell),
            Being::New(_) => None,
        }
    }

    pub(super) fn with_cell<R>(
        &mut self,
        cell: CellId,
        does: impl FnOnce(&mut LocalCell<Bed>) -> R,
    ) -> Option<R> {
        match self.beings[usize::from(cell.0)].as_mut()? {
            Being::Cell(cell) => Some(does(cell)),
            Being::New(_) => None,
        }
    }

    pub(super) fn cells(&self) -> impl Iterator<Item = (CellId, &LocalCell<Bed>)> {
        self.ids().filter_map(|id| Some((id, self.cell(id)?)))
    }

    pub(super) fn up(&self) -> CellSet {
        self.ground.borrow().up
    }

    pub(super) fn waits(&self, cell: CellId) -> bool {
        !self.ground.borrow().pending[usize::from(cell.0)].is_empty()
    }

    /// All that a cell has done takes effect.
    pub(super) fn flush(&mut self, cell: CellId) {
        while self.waits(cell) {
            self.ground.borrow_mut().land(cell);
            self.reap();
        }
    }

    /// Takes down the cells that have just been switched off.
    fn reap(&mut self) {
        let up = self.up();
        for id in self.ids().filter(|id| !up.has(*id)) {
            let index = usize::from(id.0);
            let Some(being) = self.beings[index].take() else { continue };
            self.hung = self.hung.without(id);
            self.turns[index] = None;
            let ground = &mut *self.ground.borrow_mut();
            ground.truth.on_cpu.remove(&id);
            let Being::Cell(cell) = being else { continue };
            // What a dead one had lent nobody uses any more once that is back, though it may be recorded yet.
            let borrowed = |mpa: &Mpa| {
                ground.home_of(*mpa) != Some(id)
                    && cell.frames().look(|map| {
                        let of = map.loan(*mpa);
                        let is_over = of.is_some_and(|of| map.lost().any(|(lost, _)| lost == of));
                        of.is_some() && !(is_over && ground.is_up(*mpa))
                    })
            };
            let mut pages: Vec<Mpa> = ground.pages().filter(borrowed).collect();
            // What the VCPUs that it has of other cells' VMs can use. One that is to leave does not run any more once it is here.
            for (vm, there) in cell.ids().zip(&cell.vms) {
                let uses = |visit: &&Visit<_>| {
                    let mut slots = visit.body.slots.iter();
                    slots.any(|slot| match slot.seat {
                        Seat::Running => true,
                        Seat::Here(_) => !visit.leaving,
                        _ => false,
                    })
                };
                if let Some(visit) = there.visit.as_ref().filter(uses) {
                    pages.extend(ground.truth.pages_of(vm, visit.body.guest.serial));
                }
            }
            ground.truth.reach.insert(id, pages);
        }
    }

    fn die(&mut self, cell: CellId) {
        self.ground.borrow_mut().die(cell);
        self.reap();
        if !self.case.late_stops {
            self.stop(cell);
        }
    }

    fn stop(&mut self, cell: CellId) {
        let ground = &mut *self.ground.borrow_mut();
        ground.running = ground.running.without(cell);
        let reached = ground.truth.reach.remove(&cell).unwrap_or_default();
        let there = reached.into_iter().filter(|mpa| ground.is_up(*mpa)).collect::<Vec<_>>();
        ground.truth.lost.extend(there);
    }

    fn does(&mut self, id: CellId, doing: Doing) -> Check {
        let index = usize::from(id.0);
        for (other, _) in self.cells().filter(|(other, _)| *other != id) {
            let heard = !self.waits(other);
            if heard && self.ground.borrow().truth.has_excluded(other, id) {
                return broken("a cell does something that the others have excluded");
            }
        }
        if let Some(Being::New(members)) = self.beings[index].as_mut() {
            return match doing {
                Doing::Look(_) => self.ask_to_be_let_in(id),
                _ => {
                    members.say_again();
                    Ok(())
                }
            };
        }
        let before = self.before(id);
        let was = self.cell(id).map_or(CellSet::NONE, |cell| cell.live);
        self.do_it(id, doing)?;
        // What an operator ends is his business.
        if !matches!(doing, Doing::Command(_)) {
            self.check_ends(id, was, &before)?;
        }
        let parks = std::mem::take(&mut self.ground.borrow_mut().parks);
        if let Some(after) = parks {
            if !self.ground.borrow().truth.excused.has(id) {
                return broken("a cell was excluded that should not have been");
            }
            self.ground.borrow_mut().pending[index].truncate(after);
            self.flush(id);
            if self.up().has(id) {
                self.die(id);
            }
        }
        Ok(())
    }

    fn do_it(&mut self, id: CellId, doing: Doing) -> Check {
        let index = usize::from(id.0);
        let first = CpuId(id.0 * self.case.cpus);
        let dead = CellSet::first(self.case.cells).minus(self.up());
        // Whose memory has just not answered is seen to have no power.
        self.ground.borrow_mut().found = dead;
        match doing {
            Doing::Look(found) => {
                self.ground.borrow_mut().found = found;
                self.with_cell(id, LocalCell::look);
            }
            Doing::Alarm(of) => {
                self.left.alarms -= 1;
                self.with_cell(id, |cell| {
                    cell.faults.false_alarm = CellSet::one(of);
                    cell.look();
                });
            }
            Doing::Silence(of) => {
                self.with_cell(id, |cell| cell.time_out(CellSet::one(of)));
            }
            Doing::Talk(from) => {
                self.with_cell(id, |cell| cell.talk(from.map_or(CellSet::NONE, CellSet::one)));
            }
            Doing::Step => {
                if let Some(Next::Run(turn)) = self.with_cell(id, |cell| cell.step(first)) {
                    self.check_turn(id, &turn)?;
                    self.bring_back(id, first, turn);
                }
            }
            Doing::Take => {
                let second = CpuId(first.0 + 1);
                if let Some(Next::Run(turn)) = self.with_cell(id, |cell| cell.step(second)) {
                    self.check_turn(id, &turn)?;
                    let life = (turn.vcpu.of.vm, turn.vcpu.of.serial);
                    self.ground.borrow_mut().truth.on_cpu.insert(id, life);
                    self.turns[index] = Some(turn);
                }
            }
            Doing::Back => {
                if let Some(turn) = self.turns[index].take() {
                    self.bring_back(id, CpuId(first.0 + 1), turn);
                    self.ground.borrow_mut().truth.on_cpu.remove(&id);
                }
            }
            Doing::Command(number) => {
                self.left.commands |= 1 << number;
                let (_, line) = self.case.commands[usize::from(number)];
                self.with_cell(id, |cell| {
                    // An operator may be refused.
                    _ = parse(line).and_then(|command| cell.execute(&command));
                    cell.say_what_waits();
                });
            }
            Doing::Beat => {
                self.with_cell(id, LocalCell::say_again);
            }
            Doing::Late => {
                self.left.lates -= 1;
                self.ground.borrow_mut().now[index] += LATE_NS;
            }
        }
        Ok(())
    }

    /// A VCPU has had its turn.
    fn bring_back(&mut self, id: CellId, cpu: CpuId, mut turn: Turn<ToyVcpu>) {
        let now = self.ground.borrow().now[usize::from(id.0)];
        let exit = turn.vcpu.run(now);
        self.with_cell(id, |cell| cell.done(cpu, turn, now, now, exit));
    }

    /// A cell that has come back asks to be let in, and is one of them once it has been.
    fn ask_to_be_let_in(&mut self, id: CellId) -> Check {
        let index = usize::from(id.0);
        let Some(Being::New(mut members)) = self.beings[index].take() else { return Ok(()) };
        let mut bed = Bed::new(id, &self.ground);
        let now = self.ground.borrow().now[index];
        self.ground.borrow_mut().found = CellSet::NONE;
        let sight = bed.sight();
        let Some(live) = members.be_let_in(now, &sight, bed.wires()) else {
            self.beings[index] = Some(Being::New(members));
            return Ok(());
        };
        let up = self.up();
        self.ground.borrow_mut().agreed[index] = Some(live);
        self.ground.borrow_mut().settled[index] = Some(live.epoch);
        self.ground.borrow_mut().truth.agrees(id, live, up)?;
        let (cpus, memmap) = (self.cpus(id), self.memmap(id));
        let mut cell = LocalCell::new(bed, id, &cpus, &self.config, memmap, *members);
        cell.boot();
        self.beings[index] = Some(Being::Cell(Box::new(cell)));
        Ok(())
    }

    /// Something happens.
    pub fn act(&mut self, action: Action) -> Check {
        match action {
            Action::Does(cell, doing) => {
                self.does(cell, doing)?;
                self.reap();
                if !self.case.torn && self.left.deaths == 0 {
                    self.flush(cell);
                }
            }
            Action::Lands(cell) => {
                self.ground.borrow_mut().land(cell);
                self.reap();
            }
            Action::Dies(cell) => {
                self.left.deaths -= 1;
                self.die(cell);
            }
            Action::Stops(cell) => self.stop(cell),
            Action::Hangs(cell) => {
                self.left.hangs -= 1;
                self.hung = self.hung.with(cell);
                let truth = &mut self.ground.borrow_mut().truth;
                truth.excused = truth.excused.with(cell);
            }
            Action::Recovers(cell) => {
                self.hung = self.hung.without(cell);
                match self.beings[usize::from(cell.0)].as_mut() {
                    Some(Being::Cell(cell)) => cell.say_again(),
                    Some(Being::New(members)) => members.say_again(),
                    None => {}
                }
            }
            Action::Reboots(cell) => {
                self.left.reboots -= 1;
                let index = usize::from(cell.0);
                self.stop(cell);
                let ground = &mut *self.ground.borrow_mut();
                ground.reboot(cell);
                ground.truth.incarnations[index] += 1;
                let (incarnation, now) = (ground.truth.incarnations[index], ground.now[index]);
                let members = Membership::back(cell, &self.config, incarnation, now);
                self.beings[index] = Some(Being::New(Box::new(members)));
            }
        }
        match self.ground.borrow_mut().broken.take() {
            Some(rule) => Err(rule),
            None => Ok(()),
        }
    }

    /// What can happen now.
    pub fn actions(&self, actions: &mut Vec<Action>) {
        let up = self.up();
        if !self.case.torn
            && let Some(busy) = self.ids().find(|id| self.waits(*id))
        {
            actions.push(Action::Lands(busy));
            if self.left.deaths > 0 {
                actions.push(Action::Dies(busy));
            }
            return;
        }
        for id in self.ids() {
            if !up.has(id) {
                self.may_come_back(id, actions);
                continue;
            }
            let others = up.without(id);
            if self.left.deaths > 0 && !others.is_empty() {
                actions.push(Action::Dies(id));
            }
            if self.hung.has(id) {
                actions.push(Action::Recovers(id));
                continue;
            }
            if self.waits(id) {
                actions.push(Action::Lands(id));
                continue;
            }
            if self.left.hangs > 0 && !others.is_empty() {
                actions.push(Action::Hangs(id));
            }
            self.may_do(id, actions);
        }
    }

    fn may_come_back(&self, id: CellId, actions: &mut Vec<Action>) {
        // Only when every survivor has heard of its death, and said that what depends on it does not run any more.
        let heard = self.cells().all(|(other, cell)| {
            let settled = self.ground.borrow().settled[usize::from(other.0)];
            let last = cell.members().map(|members| members.live().epoch);
            !cell.live.has(id) && !self.waits(other) && settled == last
        });
        // It is repaired by the cell that leads, which has told its loss before.
        let index = usize::from(id.0);
        let told = {
            let truth = &self.ground.borrow().truth;
            truth.reported[index] >= truth.owed[index]
        };
        // No CPU of another dead cell may still reach its memory.
        let stopped = self.ground.borrow().running.minus(self.up()).without(id).is_empty();
        if self.left.reboots > 0 && heard && told && stopped && self.cells().next().is_some() {
            actions.push(Action::Reboots(id));
        }
        if self.ground.borrow().running.has(id) {
            actions.push(Action::Stops(id));
        }
    }

    fn may_do(&self, id: CellId, actions: &mut Vec<Action>) {
        let up = self.up();
        let mut does = |doing| actions.push(Action::Does(id, doing));
        if self.case.reboots > 0 && self.is_unheard(id) {
            does(Doing::Beat);
        }
        let Some(cell) = self.cell(id) else { return does(Doing::Look(CellSet::NONE)) };
        let dead = CellSet::first(self.case.cells).minus(up);
        let known = dead.minus(cell.live);
        let new = dead.and(cell.live);
        let subsets = (0..=new.0).map(CellSet).filter(|found| found.minus(new).is_empty());
        subsets.for_each(|found| does(Doing::Look(CellSet(found.0 | known.0))));
        for of in self.hung.and(cell.live).without(id) {
            does(Doing::Silence(of));
        }
        if self.left.alarms > 0 {
            up.without(id).for_each(|of| does(Doing::Alarm(of)));
        }
        self.ids().filter(|from| *from != id).for_each(|from| does(Doing::Talk(Some(from))));
        if self.case.torn {
            does(Doing::Talk(None));
        }
        does(Doing::Step);
        if self.case.cpus > 1 {
            let runs = self.turns[usize::from(id.0)].is_some();
            does(if runs { Doing::Back } else { Doing::Take });
        }
        for (number, (by, _)) in (0..).zip(&self.case.commands) {
            if *by == id.0 && self.left.commands >> number & 1 == 0 {
                does(Doing::Command(number));
            }
        }
        if self.left.lates > 0 {
            does(Doing::Late);
        }
    }

    /// Everybody does everything once, and nothing happens to anybody any more.
    ///
    /// # Errors
    /// A rule is broken.
    pub fn round(&mut self, mut note: impl FnMut(Action)) -> Check {
        self.left = Left { deaths: 0, hangs: 0, reboots: 0, lates: 0, alarms: 0, ..self.left };
        let mut act = |world: &mut Self, action| {
            note(action);
            world.act(action)
        };
        for id in self.ids() {
            self.ground.borrow_mut().now[usize::from(id.0)] += LATE_NS;
            while self.waits(id) {
                act(self, Action::Lands(id))?;
            }
            if self.hung.has(id) {
                act(self, Action::Recovers(id))?;
            }
            if !self.up().has(id) && self.ground.borrow().running.has(id) {
                act(self, Action::Stops(id))?;
            }
        }
        for id in self.ids() {
            let mut actions = Vec::new();
            if self.up().has(id) {
                self.may_do(id, &mut actions);
            }
            for action in actions {
                if matches!(action, Action::Does(_, Doing::Take)) || !self.up().has(id) {
                    continue;
                }
                act(self, action)?;
                while self.waits(id) {
                    act(self, Action::Lands(id))?;
                }
            }
        }
        Ok(())
    }

    /// Adds up what has happened.
    pub fn tally(&self, walked: &mut Walked) {
        let truth = &self.ground.borrow().truth;
        walked.deaths += truth.deaths.iter().map(|deaths| u64::from(*deaths)).sum::<u64>();
        let count = |fate| truth.vms.values().filter(|vm| vm.2 == fate).count() as u64;
        walked.ended += count(Fate::Ended);
        walked.lost += count(Fate::Lost);
    }

    /// Whether there is a cell that does not know that this one is there, having booted again.
    fn is_unheard(&self, id: CellId) -> bool {
        let ground = self.ground.borrow();
        let unknown = |to: CellId| Ballot::of(ground.ballot(id, to)) == Ballot::default();
        let written = match self.beings[usize::from(id.0)].as_ref() {
            Some(Being::Cell(cell)) => cell.members().is_some_and(Membership::has_written),
            Some(Being::New(members)) => members.has_written(),
            None => false,
        };
        written && ground.up.without(id).into_iter().any(unknown)
    }
}

/// Longer than anything is waited for.
const LATE_NS: u64 = 4_000_000_000;
