//! What a cell leaves for those who have to go on without it, in the system controller's memory ([`abi::note`]): where the
//! script stands, the faults that it is to inject, and its VMs ([`super::orphans`]).
//!
//! # Who plays the script
//!
//! Who leads serves the console and plays the script; and who leads is what the cells have agreed on. After a change the next leader takes
//! console and script over, once nobody else has them:
//!
//! - one that lives and leads no more, since a lower cell is back, has said so in its note;
//! - all CPUs of one that has died have stopped, or have had [`STOPPING_NS`] to do so: its nodes have lost their power when its death was
//!   agreed on, and a CPU notices that at its next tick.
//!
//! The note says how far the script is *before* a step is executed, so that a step is executed at most once; what the consoles print is
//! noted after it has been looked at, and before it is taken from where it waits. So nothing that is printed is missed, but for what the
//! dead cell has not said: what it was just printing, and what its own VMs printed that die with it.

use super::orphans::Orphan;
use super::out::{Out, outcome_record};
use super::{LocalCell, Machine, vm_of};
use crate::script::Player;
use crate::talk::CellSet;
use crate::talk::mutant::{Mutant, seeded};
use abi::codec::{Reader, Writer};
use abi::event::Kind;
use abi::ring::stream;
use abi::script::Outcome;
use abi::{CellId, DecodeError, VmId};
use alloc::format;
use alloc::vec::Vec;

/// A note of a cell: what it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Note {
    /// For the next leader.
    Leader,
    /// Faults that are to come.
    Faults,
    /// The VMs that are its own.
    Vms,
}

/// How long the CPUs of a dead cell are given to stop, in nanoseconds: two ticks.
const STOPPING_NS: u64 = 20_000_000;

/// What the leader knows and the next one has to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lead {
    /// How many cells have led before, or one cell how often.
    term: u64,
    /// The cells whose loss has been reported, and not their return.
    pub told: CellSet,
    /// How the run ends, once that is known.
    pub outcome: Option<Outcome>,
    /// VMs whose home has died, and that nobody has taken over yet.
    pub orphans: Vec<Orphan>,
}

/// A leader's note.
#[derive(Debug)]
struct Left {
    /// It leads still, as far as its writer knew.
    leads: bool,
    lead: Lead,
    /// Where the script stands ([`Player::save`]); nothing if there is none.
    script: Vec<u8>,
}

impl Left {
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let (leads, term, told) = (r.u8()? != 0, r.u64()?, CellSet(r.u8()?));
        let outcome = r.blob()?;
        let outcome = if outcome.is_empty() { None } else { Some(Outcome::decode(outcome)?) };
        let count = r.u16()?;
        let orphans = (0..count).map(|_| Orphan::decode(&mut r)).collect::<Result<_, _>>()?;
        let script = bytes[r.position()..].to_vec();
        Ok(Self { leads, lead: Lead { term, told, outcome, orphans }, script })
    }
}

impl<M: Machine> Out<M> {
    /// Notes how things stand here, for the next leader. To be called before anything is done that is to be done once, and before a
    /// report is taken that is to be read once.
    pub fn save(&mut self) {
        if self.lead.is_some() {
            self.note_lead(true);
        }
    }

    /// Notes that this cell leads no more, if it has.
    fn give_up_lead(&mut self) {
        if self.lead.is_some() {
            self.note_lead(false);
            self.lead = None;
        }
    }

    fn note_lead(&mut self, leads: bool) {
        let Some(lead) = &self.lead else { return };
        let mut w = Writer { bytes: core::mem::take(&mut self.noted) };
        w.bytes.clear();
        w.u8(u8::from(leads));
        w.u64(lead.term);
        w.u8(lead.told.0);
        w.blob(&lead.outcome.as_ref().map(outcome_record).unwrap_or_default());
        w.u16(lead.orphans.len() as u16);
        lead.orphans.iter().for_each(|orphan| orphan.encode(&mut w));
        let head = w.bytes.len();
        if let Some(player) = &self.player {
            player.save(&mut w);
        }
        if !self.machine.note(self.cell, Note::Leader, &w.bytes) {
            // Better no position than an old one: steps would be done twice.
            self.machine.note(self.cell, Note::Leader, &w.bytes[..head]);
        }
        self.noted = w.bytes;
    }
}

impl<M: Machine> LocalCell<M> {
    /// A cell that is back has nothing to say of what it was before.
    pub(super) fn drop_notes(&mut self) {
        if self.incarnation > 1 {
            for note in [Note::Leader, Note::Faults, Note::Vms] {
                self.out.machine.note(self.out.cell, note, &[]);
            }
        }
    }

    /// What those cells have left that lead or have led, this one too: who was to lead after it may have died before it did.
    fn leads_left(&self) -> impl Iterator<Item = (CellId, Left)> {
        CellSet::first(self.post.cells()).filter_map(|cell| {
            let note = self.out.machine.noted(cell, Note::Leader);
            Some((cell, Left::decode(&note).ok()?))
        })
    }

    /// Takes console and script over, if nobody has them any more; whether this cell has them now.
    pub(super) fn take_over(&mut self) -> bool {
        let now = self.out.machine.now();
        let since = *self.post.waits_since.get_or_insert(now);
        let patient = now < since + STOPPING_NS;
        let runs = |cell| {
            let lives = self.live.has(cell) || patient && !self.out.machine.is_fenced(cell);
            lives && cell != self.out.cell
        };
        if self.leads_left().any(|(cell, left)| left.leads && runs(cell)) {
            return false;
        }
        self.post.waits_since = None;
        let newest = self.leads_left().map(|(_, left)| left).max_by_key(|left| left.lead.term);
        self.out.machine.lead();
        let mut lead = newest.as_ref().map_or_else(Lead::first, |left| left.lead.clone());
        lead.term += 1;
        if seeded(Mutant::LossForgotten) {
            lead.told = CellSet::first(self.post.cells()).minus(self.live);
        }
        let outcome = lead.outcome.clone();
        let told = lead.told;
        self.out.lead = Some(lead);
        if let Some(outcome) = outcome {
            self.over = Some(outcome);
        } else {
            self.take_script(newest.as_ref().map(|left| &*left.script));
        }
        self.out.save();
        for cell in CellSet::first(self.post.cells()).minus(self.live) {
            self.forget_cell(cell);
        }
        self.take_console();
        self.read_all_reports();
        told.and(self.live).into_iter().for_each(|cell| self.tell_back(cell));
        true
    }

    /// Plays the script from now on: on from where it `stands`, or from its beginning.
    pub(super) fn take_script(&mut self, stands: Option<&[u8]>) {
        if !self.has_script {
            return;
        }
        let name = |console: u16| match self.vms.get(usize::from(vm_of(console).0)) {
            _ if console == stream::MONITOR => "monitor".into(),
            Some(vm) => vm.config.name.clone(),
            None => format!("stream {console}"),
        };
        let now = self.out.machine.now();
        let steps = self.out.machine.script();
        let player = match stands {
            None => Player::new(steps, name),
            Some(stands) => {
                let player = Player::resume(steps, name, &mut Reader::new(stands), now);
                player.map_err(|error| Outcome::ScriptFailed {
                    line: 1,
                    report: format!(
                        "the cell that played the script has died, and where it stood can't be read: {error}"
                    ),
                })
            }
        };
        match player {
            Ok(player) => self.out.player = Some(player),
            Err(outcome) => _ = self.over.get_or_insert(outcome),
        }
    }

    /// Reads what all cells have left for whoever leads, this one too, before it did.
    fn read_all_reports(&mut self) {
        while self.read_reports(self.out.cell) != 0 {}
        for (t_ns, report) in self.out.take_reports() {
            self.reported(self.out.cell, t_ns, report);
        }
        while self.listen() != 0 {}
    }

    /// Another cell leads: it takes console and script, if this one has them.
    pub(super) fn hand_over(&mut self) {
        self.post.waits_since = None;
        self.leave_console();
        self.out.give_up_lead();
        self.out.player = None;
    }

    /// The leader tells that a cell is back whose loss was told.
    pub(super) fn tell_back(&mut self, cell: CellId) {
        let Some(lead) = &mut self.out.lead else { return };
        lead.told = lead.told.without(cell);
        self.out.event(Kind::CellBack { back: cell });
        self.show(&format!("cell {cell} is back\n"));
        self.out.save();
    }

    /// The leader tells that a cell is lost; which of its VMs ran.
    pub(super) fn tell_lost(&mut self, cell: CellId) -> Vec<VmId> {
        let (orphans, ran) = self.orphans_of(cell);
        let Some(lead) = &mut self.out.lead else { return ran };
        if !seeded(Mutant::LossToldTwice) {
            lead.told = lead.told.with(cell);
        }
        lead.orphans.extend(orphans);
        self.out.save();
        self.out.machine.note(cell, Note::Vms, &[]);
        ran
    }

    /// The cells whose loss is to be told by this one.
    pub(super) fn untold(&self) -> CellSet {
        let gone = CellSet::first(self.post.cells()).minus(self.live);
        self.out.lead.as_ref().map_or(CellSet::NONE, |lead| gone.minus(lead.told))
    }

    /// How the run ends is known: whoever ends it is to say the same.
    pub(super) fn note_outcome(&mut self, outcome: &Outcome) {
        if let Some(lead) = &mut self.out.lead
            && lead.outcome.is_none()
        {
            lead.outcome = Some(outcome.clone());
            self.out.save();
        }
    }

    /// This cell has ended its part of the run, and those that led have died before they ended it: says how it has ended.
    pub fn conclude(&mut self) {
        let newest = self.leads_left().map(|(_, left)| left).max_by_key(|left| left.lead.term);
        let outcome = newest.and_then(|left| left.lead.outcome).unwrap_or(Outcome::Done);
        let now = self.out.machine.now();
        self.out.machine.write(stream::OUTCOME, now, &outcome_record(&outcome));
    }
}

impl Lead {
    /// Nobody has led before.
    const fn first() -> Self {
        Self { term: 0, told: CellSet::NONE, outcome: None, orphans: Vec::new() }
    }
}
