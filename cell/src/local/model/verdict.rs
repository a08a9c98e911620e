//! Whether a world is as it has to be: while a cell does something, and in the end.

use super::machine::Bed;
use super::rules::{Check, Fate, Truth, broken};
use super::toy::ToyVcpu;
use super::world::{Being, World};
use crate::local::{LocalCell, Turn};
use crate::memmap::Owner;
use crate::talk::{Ballot, CellSet};
use crate::vm::{Seat, State, VcpuId};
use abi::{CellId, VmId};
use std::fmt::Write;
use std::hash::{Hash, Hasher};

/// What a cell knows of a VM before it does something.
pub struct Before {
    vm: VmId,
    depends: CellSet,
}

impl World<'_> {
    /// On which cells a VM that lives here depends, for all that is so.
    fn depends(&self, cell: &LocalCell<Bed>, vm: VmId) -> CellSet {
        let mut on = CellSet::NONE;
        let State::Living(life) = &cell.vms[usize::from(vm.0)].state else { return on };
        let ground = self.ground.borrow();
        let known = life.pmap.iter().map(|(_, mpa)| mpa);
        for mpa in ground.truth.pages_of(vm, life.body.guest.serial).chain(known) {
            on = ground.home_of(mpa).map_or(on, |home| on.with(home));
        }
        for (other, promised) in (0..).map(CellId).zip(life.pmap.promised()) {
            if promised != 0 {
                on = on.with(other);
            }
        }
        let away = life.body.slots.iter().filter_map(|slot| slot.away());
        away.fold(on, CellSet::with)
    }

    /// The VMs that live in a cell and are not to end.
    pub(super) fn before(&self, id: CellId) -> Vec<Before> {
        let Some(cell) = self.cell(id) else { return Vec::new() };
        let lives = |vm: &VmId| match &cell.vms[usize::from(vm.0)].state {
            State::Living(life) => life.ending.is_none(),
            _ => false,
        };
        let before = |vm| Before { vm, depends: self.depends(cell, vm) };
        cell.ids().filter(lives).map(before).collect()
    }

    /// Exactly those VMs are to end that depended on a cell that has gone.
    pub(super) fn check_ends(&self, id: CellId, was: CellSet, before: &[Before]) -> Check {
        let Some(cell) = self.cell(id) else { return Ok(()) };
        let gone = was.minus(cell.live);
        let dead = CellSet::first(self.case.cells).minus(self.up());
        for Before { vm, depends } in before {
            let ends = match &cell.vms[usize::from(vm.0)].state {
                State::Living(life) => life.ending.is_some(),
                _ => true,
            };
            if !ends && !depends.and(gone).is_empty() {
                return broken("a VM goes on that depended on a dead cell");
            }
            if ends && depends.and(CellSet(gone.0 | dead.0)).is_empty() {
                return broken("a VM was ended that depends on no dead cell");
            }
        }
        for vm in &cell.vms {
            let visit = vm.visit.as_ref();
            if visit.is_some_and(|visit| gone.has(visit.replica.home()) && !visit.leaving) {
                return broken("something is left of a VM whose home has died");
            }
        }
        Ok(())
    }

    /// A VCPU is to run: its VM must not be lost for all that the cell knows.
    pub(super) fn check_turn(&self, id: CellId, turn: &Turn<ToyVcpu>) -> Check {
        let Some(cell) = self.cell(id) else { return Ok(()) };
        let visit = cell.vms[usize::from(turn.vm.0)].visit.as_ref();
        match visit.map(|visit| visit.replica.home()) {
            Some(home) if !cell.live.has(home) => broken("a VCPU runs of a VM that is lost"),
            _ => Ok(()),
        }
    }

    /// Whether everything has come to its end.
    ///
    /// # Errors
    /// But not as it should have.
    pub fn is_end(&self) -> Check<bool> {
        let up = self.up();
        if self.cells().next().is_none() {
            // Nobody is left who would let those in that have come back.
            return Ok(true);
        }
        let ground = self.ground.borrow();
        let quiet = self.hung.is_empty()
            && ground.running.minus(self.up()).is_empty()
            && self.ids().all(|id| !up.has(id) || self.cell(id).is_some())
            && self.cells().all(|(id, cell)| {
                let mut commands = (0..).zip(&self.case.commands);
                cell.live == up
                    && !self.waits(id)
                    && self.turns[usize::from(id.0)].is_none()
                    && commands.all(|(n, (by, _))| *by != id.0 || self.left.commands >> n & 1 != 0)
                    && cell.is_settled(|to| Ballot::of(ground.ballot(id, to)))
            });
        if !quiet {
            return Ok(false);
        }
        self.check_end(&ground.truth)?;
        Ok(true)
    }

    /// What keeps it from having come to its end.
    pub fn unsettled(&self) -> String {
        let (up, ground) = (self.up(), self.ground.borrow());
        let mut text = format!("up {up:?}, hung {:?}", self.hung);
        for (id, being) in self.ids().zip(&self.beings) {
            if let Some(Being::New(members)) = being {
                // Writing to a string does not fail.
                _ = write!(text, "\ncell {id}, not let in: {members:?}");
            }
        }
        for (id, cell) in self.cells() {
            // Writing to a string does not fail.
            _ = write!(text, "\ncell {id}: {:?}, ", cell.live);
            cell.what_waits(|to| Ballot::of(ground.ballot(id, to)), &mut text);
        }
        text
    }

    fn check_end(&self, truth: &Truth) -> Check {
        let up = self.cells().fold(CellSet::NONE, |up, (id, _)| up.with(id));
        for (id, cell) in self.cells() {
            if cell.audit().is_err() {
                return broken("the accounts of a cell's memory are wrong");
            }
            if id != up.lowest().unwrap_or_default() {
                continue;
            }
            let unreported =
                |dead: &CellId| truth.owed[usize::from(dead.0)] != 0 && !truth.told.has(*dead);
            if CellSet::first(self.case.cells).minus(up).filter(unreported).count() != 0 {
                return broken("nobody has reported that a cell is lost");
            }
        }
        for (&vm, &(home, _, fate)) in &truth.vms {
            let at_home = self.cell(home).map(|cell| &cell.vms[usize::from(vm.0)].state);
            let lives = matches!(at_home, Some(State::Living(_)));
            if lives != (fate == Fate::Lives) {
                return broken("what was told of a VM is not what became of it");
            }
            let told = truth.told_lost.contains(&vm) || truth.unseen.contains(&vm);
            if fate == Fate::Lost && !told {
                return broken("nobody has told that a VM was lost with its home");
            }
            if lives {
                self.check_whole(vm, home)?;
            } else if self.cells().any(|(_, cell)| cell.vms[usize::from(vm.0)].visit.is_some()) {
                return broken("something is left of a VM that does not live");
            }
        }
        self.check_pages()
    }

    /// A VM that lives has all of its VCPUs, each in one place, and its pages in cells that live.
    fn check_whole(&self, vm: VmId, home: CellId) -> Check {
        for index in 0..self.config.vms[usize::from(vm.0)].vcpus {
            let mut places = Vec::new();
            for (id, cell) in self.cells() {
                let there = &cell.vms[usize::from(vm.0)];
                let body = match (&there.state, &there.visit) {
                    (State::Living(life), _) => &life.body,
                    (_, Some(visit)) => &visit.body,
                    _ => continue,
                };
                if matches!(body.slots[index as usize].seat, Seat::Here(_)) {
                    places.push(id);
                }
                let owns = cell.is_registered(VcpuId { vm, index }, body.life);
                if owns != (places.last() == Some(&id)) {
                    return broken("the registry is wrong about who owns a VCPU");
                }
            }
            if places.len() != 1 {
                return broken("a VCPU of a VM that lives is nowhere, or in two places");
            }
        }
        match self.cell(home) {
            Some(cell) if self.depends(cell, vm).minus(self.up()).is_empty() => Ok(()),
            _ => broken("a VM lives that depends on a dead cell"),
        }
    }

    /// No page is usable in two cells.
    fn check_pages(&self) -> Check {
        for mpa in self.ground.borrow().pages() {
            let usable = |cell: &LocalCell<Bed>| {
                let owner = cell.frames().look(|map| map.owner(mpa));
                matches!(owner, Some(Owner::Free | Owner::Vm { .. }))
            };
            if self.cells().filter(|(_, cell)| usable(cell)).count() > 1 {
                return broken("a page is usable in two cells");
            }
        }
        Ok(())
    }

    /// Everything that is so, as words and text.
    pub fn digest(&self, hasher: &mut impl Hasher, text: &mut String) {
        self.ground.borrow().digest(hasher);
        (self.hung, self.left).hash(hasher);
        for being in &self.beings {
            text.clear();
            match being {
                None => 0u8.hash(hasher),
                Some(Being::New(members)) => {
                    1u8.hash(hasher);
                    members.hash(hasher);
                }
                Some(Being::Cell(cell)) => {
                    2u8.hash(hasher);
                    cell.digest(hasher, text);
                }
            }
            hasher.write(text.as_bytes());
        }
        for turn in &self.turns {
            text.clear();
            // Writing to a string does not fail.
            _ = write!(text, "{:?}", turn.as_ref().map(|t| (t.vm, t.index, t.vcpu.ran)));
            hasher.write(text.as_bytes());
        }
    }
}
