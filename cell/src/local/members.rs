//! The cell among those that are alive: it looks at the others, agrees with them on who is left, and draws the consequences.

use super::{LocalCell, Machine};
use crate::talk::{
    Agreement, CellSet, Decision, Epoch, Finding, Incarnation, Live, LiveSet, Watch,
};
use abi::config::Config;
use abi::event::Kind;
use abi::ids::MAX_CELLS;
use abi::{CellId, VmId};
use alloc::format;

/// How often a cell says that it is there, in nanoseconds.
const BEAT_NS: u64 = 5_000_000;

/// The cell that plays the script, if there is one: the first that leads.
const PLAYS: CellId = CellId(0);

/// The cell's part in the agreements.
#[derive(Debug)]
pub(super) struct Membership {
    agreement: Agreement,
    watch: Watch,
    /// When it says the next time that it is there, and how often it has.
    beat_at: u64,
    beats: u8,
}

impl Membership {
    /// The part of cell `me` at the machine's start: all cells are taken to live, each in its first incarnation.
    pub fn new(me: CellId, config: &Config) -> (Self, Live) {
        let cells = CellSet::first(config.cells.len());
        let (mut incarnations, mut nodes) = ([Incarnation::default(); MAX_CELLS], [0; MAX_CELLS]);
        for (index, cell) in config.cells.iter().enumerate() {
            incarnations[index] = Incarnation(1);
            nodes[index] = cell.nodes.iter().fold(0, |set, node| set | 1 << node);
        }
        let live = LiveSet { epoch: Epoch(1), cells, incarnations };
        let agreement = Agreement::new(me, nodes, live);
        let watch = Watch::new(me, cells, 0);
        let membership = Self { agreement, watch, beat_at: 0, beats: 0 };
        (membership, Live::new(me, live.epoch, incarnations))
    }
}

impl<M: Machine> LocalCell<M> {
    /// Whether one of these cells, which have rung, has something to say about who is alive: time to [`Self::look`].
    pub fn has_news(&mut self, from: CellSet) -> bool {
        let Some(talk) = &self.talk else { return false };
        talk.members.watch.has_news(from, self.out.machine.wires())
    }

    /// Looks how the other cells are, says how this one is, and draws the consequences if they agree that one has died. To be called now
    /// and then, by the same CPU always: that it is, is what the others know this cell's life by.
    pub fn look(&mut self) {
        let now = self.out.machine.now();
        let Some(Membership { agreement, watch, beat_at, beats }) =
            self.talk.as_mut().map(|talk| &mut talk.members)
        else {
            return;
        };
        if now >= *beat_at {
            *beat_at = now + BEAT_NS;
            *beats = beats.wrapping_add(1);
            agreement.beat(*beats);
        }
        let sight = self.out.machine.sight();
        let mut finding = watch.look(now, &sight, self.out.machine.wires());
        // Of two cells neither can ask a third one, so that neither may believe an alarm.
        let alarm = core::mem::take(&mut self.faults.false_alarm).and(self.live);
        if self.live.count() > 2 {
            finding.suspects = CellSet(finding.suspects.0 | alarm.0);
        }
        while let Some(decision) = self.decide(&finding) {
            match decision {
                Decision::Live(live) => self.agreed(&live, finding.dead),
                Decision::Excluded => {
                    self.say("the other cells go on without this one: it parks\n");
                    self.out.machine.park();
                }
            }
        }
        if let Some(cpu) = self.pulse.look(now, |cpu| self.out.machine.ticks(cpu)) {
            self.say(&format!("CPU {cpu} does nothing any more: this cell gives itself up\n"));
            self.out.machine.park();
        }
        self.end_quarantines();
        self.report_lost();
    }

    /// Whether VM `id` depends on a cell that can be seen to be dead, though that may not be agreed on yet.
    pub(super) fn depends_on_dead(&self, id: VmId) -> bool {
        let dead = self.out.machine.sight().dead;
        !dead.is_empty() && self.dependencies(id).iter().any(|on| dead.has(on.cell))
    }

    fn decide(&mut self, finding: &Finding) -> Option<Decision> {
        let talk = self.talk.as_mut()?;
        talk.members.agreement.step(finding, self.out.machine.wires())
    }

    /// All cells that are left have agreed that these are.
    fn agreed(&mut self, live: &LiveSet, dead: CellSet) {
        self.out.machine.agreed(live);
        let Some(talk) = &mut self.talk else { return };
        let gone = talk.exchange.agreed(live);
        self.live = live.cells;
        if self.out.player.is_none() && !self.stays && gone.has(PLAYS) {
            // Nobody is left who would play a script to its end.
            self.ends_with_vms = true;
        }
        for cell in gone {
            self.lender_died(cell);
            self.visited_died(cell);
        }
        self.unreported = CellSet(self.unreported.0 | gone.0);
        self.silent = CellSet(self.silent.0 | gone.minus(dead).0);
    }

    /// The cell that leads reports those that are lost.
    fn report_lost(&mut self) {
        if self.unreported.is_empty() || !self.out.machine.leads() {
            return;
        }
        for cell in core::mem::take(&mut self.unreported) {
            self.out.event(Kind::CellLost { lost: cell });
            let why = match self.silent.has(cell) {
                true => "it does not answer",
                false => "its CPUs have parked",
            };
            self.show(&format!("cell {cell} is lost: {why}\n"));
            self.forget_cell(cell);
        }
    }
}
