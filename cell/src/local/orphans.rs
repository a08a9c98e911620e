//! What becomes of the VMs whose home has died: the loss of each that ran is reported, once; and one that may be in other cells as well is a
//! living one's from then on, which starts it if it is to be started elsewhere.
//!
//! Each cell notes which VMs are its own, and which of them run. The leader reads the note of a cell that has died when it tells the loss, and
//! asks others to take its VMs over, one after the other if one that is to be started finds no memory. What is not settled yet is
//! in the leader's own note: should it die, or who was asked, others are asked, and nobody twice takes what it has.

use super::notes::Note;
use super::{LocalCell, Machine, Refused};
use crate::talk::CellSet;
use crate::vm::State;
use abi::codec::{Reader, Writer};
use abi::config::Restart;
use abi::event::{Cause, Kind};
use abi::player::{Order, Result};
use abi::{CellId, DecodeError, VmId};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// The numbers of answers about VM 0, 1, … begin here; questions are numbered from 0.
const ORPHANS: u32 = 1 << 30;

/// What a cell notes of a VM of its own.
const RUNS: u8 = 1;
const STARTS: u8 = 2;

/// A VM whose home has died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Orphan {
    vm: VmId,
    /// It is to be started.
    starts: bool,
    /// The cells that have no memory for it.
    tried: CellSet,
    /// The cell that was asked to take it, if this leader has asked.
    asked: Option<CellId>,
}

impl Orphan {
    pub fn encode(&self, w: &mut Writer) {
        w.u16(self.vm.0);
        w.u8(u8::from(self.starts));
        w.u8(self.tried.0);
    }

    pub fn decode(r: &mut Reader<'_>) -> core::result::Result<Self, DecodeError> {
        let (vm, starts) = (VmId(r.u16()?), r.u8()? != 0);
        Ok(Self { vm, starts, tried: CellSet(r.u8()?), asked: None })
    }
}

impl<M: Machine> LocalCell<M> {
    /// Notes which VMs are this cell's own. To be called before anything is said of what has changed.
    pub(super) fn note_vms(&mut self) {
        if !self.shared {
            return;
        }
        let mut w = Writer::new();
        for id in self.ids().filter(|id| self.owns(*id)) {
            let vm = &self.vms[usize::from(id.0)];
            let flags = match vm.state {
                State::Destroyed => continue,
                State::Living(_) => RUNS,
                State::Defined | State::Ended(_) if vm.due.is_some() => STARTS,
                State::Defined | State::Ended(_) => 0,
            };
            w.u16(id.0);
            w.u8(flags);
        }
        self.out.machine.note(self.out.cell, Note::Vms, &w.bytes);
    }

    /// The VMs of a cell that has died: which are to be taken over, and which ran.
    pub(super) fn orphans_of(&self, cell: CellId) -> (Vec<Orphan>, Vec<VmId>) {
        let note = self.out.machine.noted(cell, Note::Vms);
        let mut r = Reader::new(&note);
        let (mut orphans, mut ran) = (Vec::new(), Vec::new());
        while let (Ok(id), Ok(flags)) = (r.u16(), r.u8()) {
            let Some(vm) = self.vms.get(usize::from(id)) else { break };
            let config = &vm.config;
            let starts = flags != 0 && config.restart == Restart::OnFailureElsewhere;
            if CellSet(config.cells).without(cell) != CellSet::NONE {
                orphans.push(Orphan { vm: VmId(id), starts, tried: CellSet::NONE, asked: None });
            }
            if flags & RUNS != 0 {
                ran.push(VmId(id));
            }
        }
        (orphans, ran)
    }

    /// Tells that a VM has ended with its home.
    pub(super) fn tell_orphan(&mut self, id: VmId, home: CellId) {
        let cause = Cause::CellLost;
        self.report(id, |vm| Kind::VmEnd { vm, cause });
        let name = &self.vms[usize::from(id.0)].config.name;
        let text =
            format!("VM `{name}` ended: {}\n  cell {home}, its home, has died\n", cause.as_str());
        self.announce(self.out.cell, &text);
    }

    /// Whether a VM whose home has died is yet to be started, and can be.
    pub(super) fn has_orphans(&self) -> bool {
        let may = |orphan: &Orphan| CellSet(self.vms[usize::from(orphan.vm.0)].config.cells);
        let starts = |orphan: &Orphan| orphan.starts && !may(orphan).and(self.live).is_empty();
        self.out.lead.as_ref().is_some_and(|lead| lead.orphans.iter().any(starts))
    }

    /// Asks living cells to take VMs over whose home has died.
    pub(super) fn settle(&mut self) {
        let Some(lead) = &mut self.out.lead else { return };
        let mut orders = Vec::new();
        for orphan in &mut lead.orphans {
            if orphan.asked.is_some_and(|cell| self.live.has(cell)) {
                continue;
            }
            let permitted = CellSet(self.vms[usize::from(orphan.vm.0)].config.cells).and(self.live);
            let untried = permitted.minus(orphan.tried).lowest();
            orphan.asked = untried.or(permitted.lowest());
            if let Some(cell) = orphan.asked {
                let id = ORPHANS + u32::from(orphan.vm.0);
                let insists = untried.is_none();
                let order = Order::Inherit { id, vm: orphan.vm, starts: orphan.starts, insists };
                orders.push((cell, order));
            }
        }
        if !orders.is_empty() {
            self.send(orders);
        }
    }

    /// A cell has answered an order: whether it was about taking a VM over.
    pub(super) fn settled(&mut self, cell: CellId, id: u32, result: Result) -> bool {
        let Some(vm) = id.checked_sub(ORPHANS).and_then(|vm| u16::try_from(vm).ok()) else {
            return false;
        };
        let Some(lead) = &mut self.out.lead else { return true };
        let place = lead
            .orphans
            .iter()
            .position(|orphan| orphan.vm == VmId(vm) && orphan.asked == Some(cell));
        let Some(place) = place else { return true };
        if result == Result::Done {
            lead.orphans.remove(place);
            self.post.moved(VmId(vm), cell);
        } else {
            let orphan = &mut lead.orphans[place];
            orphan.tried = orphan.tried.with(cell);
            orphan.asked = None;
        }
        self.out.save();
        true
    }

    /// The leader wants this cell to take a VM over whose home has died. It may have it already.
    pub(super) fn inherit(&mut self, id: VmId, starts: bool, insists: bool) -> (Result, String) {
        if usize::from(id.0) >= self.vms.len() {
            return (Result::Elsewhere, String::new());
        }
        if self.owns(id) {
            return (Result::Done, String::new());
        }
        self.post.own(id);
        if starts && self.vm(id).visit.is_some() {
            // What its home had here is just being ended.
            self.vm(id).due = Some(self.out.machine.now());
        } else if starts {
            match self.start(id) {
                Ok(()) => {
                    let name = &self.vms[usize::from(id.0)].config.name;
                    self.say(&format!("VM `{name}` started again, elsewhere\n"));
                }
                Err(Refused { cause: Some(Cause::NoMemory), .. }) if !insists => {
                    self.post.disown(id);
                    return (Result::Refused, String::new());
                }
                Err(refused) => self.not_started_again(id, refused),
            }
        }
        self.note_vms();
        (Result::Done, String::new())
    }
}
