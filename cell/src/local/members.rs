//! The cell among those that are alive: it looks at the others, agrees with them on who is left, and draws the consequences.

use super::{LocalCell, Machine, Stage};
use crate::fault::Part;
use crate::talk::mutant::{Mutant, seeded};
use crate::talk::{
    Agreement, CellSet, Decision, Epoch, Fabric, Finding, Incarnation, LiveSet, Sight, Watch,
};
use crate::vm::{Body, Seat, State, Vm};
use abi::config::Config;
use abi::event::Kind;
use abi::ids::MAX_CELLS;
use abi::{CellId, VmId};
use alloc::format;
use alloc::string::String;

/// How often a cell says that it is there, in nanoseconds.
const BEAT_NS: u64 = 5_000_000;

/// A cell's part in the agreements on who is alive.
#[derive(Debug)]
#[cfg_attr(test, derive(Hash))]
pub struct Membership {
    agreement: Agreement,
    watch: Watch,
    /// When it says the next time that it is there, and how often it has.
    beat_at: u64,
    beats: u8,
}

/// All cells of a machine.
fn all(config: &Config) -> CellSet {
    CellSet::first(config.cells.len())
}

impl Membership {
    /// The part of cell `me` at the machine's start: all cells are taken to live, each in its first incarnation.
    #[must_use]
    pub fn at_start(me: CellId, config: &Config) -> Self {
        let cells = all(config);
        let incarnations = core::array::from_fn(|cell| match cells.has(CellId(cell as u8)) {
            true => Incarnation(1),
            false => Incarnation::default(),
        });
        Self::new(me, config, LiveSet { epoch: Epoch(1), cells, incarnations }, 0)
    }

    /// The part of cell `me`, which has been repaired and boots for the `incarnation`th time, at machine time `now`. It
    /// knows nothing of the others, and belongs to them once it has [been let in](Self::be_let_in).
    #[must_use]
    pub fn back(me: CellId, config: &Config, incarnation: u16, now: u64) -> Self {
        let mut incarnations = [Incarnation::default(); MAX_CELLS];
        incarnations[usize::from(me.0)] = Incarnation(incarnation);
        let live = LiveSet { epoch: Epoch::default(), cells: CellSet::NONE, incarnations };
        Self::new(me, config, live, now)
    }

    fn new(me: CellId, config: &Config, live: LiveSet, now: u64) -> Self {
        let mut nodes = [0; MAX_CELLS];
        for (nodes, cell) in nodes.iter_mut().zip(&config.cells) {
            *nodes = cell.nodes.iter().fold(0, |set, node| set | 1 << node);
        }
        let agreement = Agreement::new(me, nodes, live);
        let watch = Watch::new(me, all(config), now);
        Self { agreement, watch, beat_at: 0, beats: 0 }
    }

    /// The last agreement; its live set is empty before a cell that is back has been let in.
    #[must_use]
    pub const fn live(&self) -> &LiveSet {
        self.agreement.live()
    }

    /// In a cell that is back: asks the others to let it in, at machine time `now`; what they have agreed on, once they
    /// have. To be called again and again, and then no more: the next looks are [`LocalCell::look`]'s.
    pub fn be_let_in(
        &mut self,
        now: u64,
        sight: &Sight,
        wires: &mut impl Fabric,
    ) -> Option<LiveSet> {
        self.beat(now);
        let finding = self.watch.look(now, sight, wires);
        match self.agreement.step(&finding, wires)? {
            Decision::Live(live) => Some(live),
            Decision::Excluded => None,
        }
    }

    /// Says now and then that the cell is there.
    fn beat(&mut self, now: u64) {
        if now >= self.beat_at {
            self.beat_at = now + BEAT_NS;
            self.beats = self.beats.wrapping_add(1);
            self.agreement.beat(self.beats);
        }
    }
}

/// What the model check asks and has happen.
#[cfg(test)]
impl Membership {
    /// It has waited for signs of life of these cells for too long.
    pub(super) fn time_out(&mut self, cells: CellSet) {
        self.watch.time_out(cells);
    }

    /// It says that it is there when it next looks.
    pub(super) const fn say_again(&mut self) {
        self.beat_at = 0;
    }

    /// Whether nothing is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.agreement.is_quiet()
    }

    /// Whether what it says has been written wherever it could be.
    pub(super) const fn has_written(&self) -> bool {
        self.beat_at != 0
    }

    /// What it says.
    pub(super) const fn ballot(&self) -> &crate::talk::Ballot {
        self.agreement.ballot()
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
        // A CPU that waits for another cell's answer looks, but does not step: what is to be switched on again in time may be what
        // it waits for.
        self.faults_due(now);
        let Some(members) = self.talk.as_mut().map(|talk| &mut talk.members) else { return };
        members.beat(now);
        let sight = self.out.machine.sight();
        let mut finding = members.watch.look(now, &sight, self.out.machine.wires());
        // Of two cells neither can ask a third one, so that neither may believe an alarm; nor of two of which the others
        // are just found dead.
        let alarm = core::mem::take(&mut self.faults.false_alarm).and(self.live);
        if seeded(Mutant::SuspicionKept) {
            self.faults.false_alarm = alarm;
        }
        if self.live.minus(finding.suspects).count() > 2 {
            finding.suspects = CellSet(finding.suspects.0 | alarm.0);
        }
        let said = members.agreement.ballot().opinion();
        let suspects = !finding.suspects.and(self.live).is_empty();
        self.progress.suspects(suspects, now);
        if suspects {
            self.mark(Stage::Suspected);
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
        let talk = self.talk.as_ref();
        if suspects && talk.is_some_and(|t| t.members.agreement.ballot().opinion() == said) {
            self.mark(Stage::Waiting);
        }
        if let Some(cpu) = self.pulse.look(now, |cpu| self.out.machine.ticks(cpu)) {
            self.say(&format!("CPU {cpu} does nothing any more: this cell gives itself up\n"));
            self.out.machine.park();
        }
        self.end_quarantines();
        self.quiesce();
        for cell in core::mem::take(&mut self.repairs) {
            let (Ok(text) | Err(text)) = self.repair(cell);
            if !text.is_empty() {
                self.show(&text);
            }
        }
        if self.post.serves() {
            self.report_lost();
        }
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
        let missing = !self.live.minus(live.cells).is_empty();
        self.progress.agreed(missing, self.out.machine.now());
        if !seeded(Mutant::FenceForgotten) {
            self.out.machine.agreed(live);
        }
        let Some(talk) = &mut self.talk else { return };
        let gone = talk.exchange.agreed(live);
        self.mark(Stage::Unwound);
        let back = live.cells.minus(self.live);
        self.live = live.cells;
        for cell in back {
            self.is_back(cell);
        }
        if !self.out.machine.leads() {
            self.hand_over();
        }
        for cell in gone {
            self.lender_died(cell);
            self.visited_died(cell);
        }
        self.mark(Stage::Scanned);
        self.silent = CellSet(self.silent.0 | gone.minus(dead).0);
        self.unsettled = true;
    }

    /// Says, once that is so, that no CPU runs anything any more that depends on those who have left the live set: a repaired cell's
    /// memory is not to be touched by what used its predecessor's.
    fn quiesce(&mut self) {
        let runs =
            |body: &Body<_>| body.slots.iter().any(|slot| matches!(slot.seat, Seat::Running));
        let ends = |vm: &Vm<M::Guest>| {
            let life = match &vm.state {
                State::Living(life) => life.ending.is_some() && runs(&life.body),
                State::Defined | State::Ended(_) | State::Destroyed => false,
            };
            life || vm.visit.as_ref().is_some_and(|visit| visit.leaving && runs(&visit.body))
        };
        if let Some(talk) = &self.talk
            && self.unsettled
            && (!self.vms.iter().any(ends) || seeded(Mutant::SettledTooSoon))
        {
            self.unsettled = false;
            self.out.machine.settled(talk.members.live().epoch);
        }
    }

    /// A cell that was lost belongs to the live set again: nothing of what it was before runs any more.
    fn is_back(&mut self, cell: CellId) {
        self.end_quarantine(cell);
        self.post.returned(cell);
        self.tell_back(cell);
    }

    /// An operator wants a lost cell back.
    pub(super) fn repair(&mut self, cell: CellId) -> Result<String, String> {
        let cells = self.post.cells();
        if usize::from(cell.0) >= cells {
            return Err(format!("repair: there is no cell {cell}: there are {cells}, from 0 on"));
        }
        if self.live.has(cell) {
            return Err(format!("repair: cell {cell} is not lost: `cells` tells which are"));
        }
        // CPUs of another dead cell may still use what that had of this one's memory.
        let lost = CellSet::first(cells).minus(self.live).without(cell);
        if let Some(other) = lost.into_iter().find(|other| !self.out.machine.is_fenced(*other)) {
            return Err(format!(
                "repair: not all CPUs of cell {other}, which is lost too, have stopped yet: try again"
            ));
        }
        if !self.out.machine.is_settled() {
            self.repairs = self.repairs.with(cell);
            return Ok(String::new());
        }
        // What it has left unsaid is of no interest any more.
        while self.out.machine.take_report(cell).is_some() {}
        self.out.machine.repair(cell)
    }

    /// An operator wants a router or a link to work again. Cells that it had cut off have parked: they are repaired as others
    /// are.
    pub(super) fn repair_part(&mut self, part: Part) -> Result<String, String> {
        part.check(self.layout()).map_err(|why| format!("repair: {why}"))?;
        if !self.out.machine.has_failed(part) {
            return Err(format!("repair: {part} has not failed: `nodes` tells what has"));
        }
        self.out.machine.switch(part, true);
        self.out.event(Kind::Repair { what: format!("{part}").into() });
        Ok(format!("repair: {part} works again\n"))
    }

    /// The cell that leads reports those that are lost, and takes over what they were yet to do.
    pub(super) fn report_lost(&mut self) {
        for cell in self.untold() {
            let ran = self.tell_lost(cell);
            self.out.event(Kind::CellLost { lost: cell });
            let why = match self.silent.has(cell) {
                true => "it does not answer",
                false => "its CPUs have parked",
            };
            self.show(&format!("cell {cell} is lost: {why}\n"));
            self.forget_cell(cell);
            for vm in ran {
                self.tell_orphan(vm, cell);
            }
            self.take_faults(cell);
        }
    }
}
