//! Memory that CPUs of dead cells may still reach.
//!
//! A VM that a dead cell ran VCPUs of ends when the cells have agreed; but the CPUs of that cell go on until they find out themselves,
//! and what they still run has translations of the VM's pages. So these are *held*: nobody gets them before the CPUs have stopped. The
//! same is so of pages that the cell had borrowed, which are quarantined ([`crate::loan`]). VCPUs of its own VMs may have visited a third
//! cell and used them from there: until that has said that it does not run them any more, or, if it has died too, its CPUs have stopped.
//!
//! Then *lost lines* are discarded: what a CPU alone had in its cache when its node died. It can be part of what the CPU could write, so of
//! pages that are held or quarantined, which nobody reads before they are written anew. If one is part of anything else, whoever has it
//! ends. Of a page that another cell has the use of it is that cell which does all this.

use super::{LocalCell, Machine};
use crate::memmap::Owner;
use crate::pmap::Pmap;
use crate::talk::CellSet;
use crate::talk::mutant::{Mutant, seeded};
use crate::vm::{State, Then};
use abi::event::{Cause, Kind};
use abi::{CellId, Mpa, PAGE_SIZE, VmId};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// What CPUs of dead cells may still reach.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The cells any of whose CPUs may not have stopped yet.
    unfenced: CellSet,
    /// The pages of VMs that have ended, and which of these cells ran VCPUs of them.
    pmaps: Vec<(CellSet, Arc<Pmap>)>,
    /// Lost lines are in pages of VMs that have yet to end.
    unread: bool,
}

impl Held {
    /// What of VMs that have ended is still held.
    pub fn pmaps(&self) -> impl Iterator<Item = &Pmap> {
        self.pmaps.iter().map(|(_, pmap)| &**pmap)
    }

    /// Whether there is nothing of the kind.
    pub fn is_empty(&self) -> bool {
        self.unfenced.is_empty() && !self.unread
    }

    /// A cell has died, whose CPUs may go on for a while.
    pub fn died(&mut self, cell: CellId) {
        self.unfenced = self.unfenced.with(cell);
    }

    /// Keeps the pages of a VM that has ended, VCPUs of which were in these cells, from being used as long as need be.
    pub fn hold(&mut self, by: CellSet, pmap: &Arc<Pmap>) {
        let by = by.and(self.unfenced);
        if !by.is_empty() && !seeded(Mutant::NothingHeld) {
            self.pmaps.push((by, pmap.clone()));
        }
    }
}

impl<M: Machine> LocalCell<M> {
    /// Frees what dead cells could reach once all of their CPUs have stopped, and no other cell runs anything that was theirs.
    pub(super) fn end_quarantines(&mut self) {
        let (cells, machine) = (self.held.unfenced, &self.out.machine);
        let stopped = !cells.is_empty() && cells.into_iter().all(|cell| machine.is_fenced(cell));
        if stopped && machine.is_settled() {
            cells.into_iter().for_each(|cell| self.end_quarantine(cell));
        }
        self.discard_unread();
    }

    /// Discards what a VM could still have read that has ended by now: before its pages are anybody else's.
    pub(super) fn discard_unread(&mut self) {
        if self.held.unread {
            self.discard_lines();
        }
    }

    /// All CPUs of `cell` have stopped since it died, and nobody runs what was its.
    pub(super) fn end_quarantine(&mut self, cell: CellId) {
        if !self.held.unfenced.has(cell) {
            return;
        }
        self.held.unfenced = self.held.unfenced.without(cell);
        self.discard_lines();
        self.lending.loans.fenced(cell);
        for (by, _) in &mut self.held.pmaps {
            *by = by.without(cell);
        }
        // With the last that uses it a VM's memory comes back.
        self.held.pmaps.retain(|(by, _)| !by.is_empty());
        self.return_unused();
    }

    /// Discards the lost lines that are in pages that this cell has the use of.
    fn discard_lines(&mut self) {
        self.held.unread = false;
        if seeded(Mutant::LinesKept) {
            return;
        }
        let mut discarded = 0;
        for line in self.out.machine.lost_lines() {
            match self.use_of(line) {
                Use::Elsewhere => {}
                Use::Living(id) => {
                    self.held.unread = true;
                    let why = "lines of its memory were lost with CPUs of a cell that has died";
                    self.end(id, Cause::CellLost, String::from(why), Then::Policy);
                }
                Use::Nobody => {
                    self.out.machine.discard(line);
                    discarded += 1;
                }
            }
        }
        if discarded != 0 {
            self.out.event(Kind::LinesDiscarded { lines: discarded });
        }
    }

    /// A lost line that this cell should have discarded, if there is one. (None while a cell dies.)
    pub(super) fn forgotten_line(&self) -> Option<Mpa> {
        if !self.held.is_empty() || !self.out.machine.sight().dead.and(self.live).is_empty() {
            return None;
        }
        let lines = self.out.machine.lost_lines();
        lines.into_iter().find(|line| self.use_of(*line) != Use::Elsewhere)
    }

    /// Who has the use of the page that a lost line is in.
    fn use_of(&self, line: Mpa) -> Use {
        let page = Mpa(line.0 & !(PAGE_SIZE - 1));
        match self.frames.look(|map| map.owner(page)) {
            None => Use::Elsewhere,
            Some(Owner::Lent { to, .. }) if self.live.has(to) => Use::Elsewhere,
            Some(Owner::Vm { vm, page: number }) => {
                match self.vms.get(usize::from(vm.0)).map(|vm| &vm.state) {
                    Some(State::Living(life)) if life.pmap.get(number) == Some(page) => {
                        Use::Living(vm)
                    }
                    _ => Use::Nobody,
                }
            }
            Some(_) => Use::Nobody,
        }
    }
}

/// Who has the use of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Another cell.
    Elsewhere,
    /// A VM that lives here.
    Living(VmId),
    /// Nobody, in this cell.
    Nobody,
}
