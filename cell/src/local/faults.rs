//! Faults that an operator injects, done at their times.
//!
//! A fault is done by a cell that it does not hit: the leader, which the console is at, or else the lowest one. It is done with
//! the first step that is due then, after its answer has gone out: under icount the same instruction each time.

use super::notes::Note;
use super::{LocalCell, Machine};
use crate::fault::{FIRMWARE_NS, Fault, Part, TRANSIENT_NS, When, seconds};
use crate::talk::CellSet;
use abi::CellId;
use abi::codec::{Reader, Writer};
use abi::config::Config;
use abi::event::Kind;
use abi::layout::Layout;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// How long the leader is given to show the answer of another cell, in nanoseconds, before it may die itself.
const SHOWN_NS: u64 = 5_000_000;

/// Most faults that wait at a time: what a note of them has room for.
const MOST: usize = 100;

/// Something to be done at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// A fault begins.
    Begin(Fault),
    /// A part is switched off, or on again.
    Switch(Part, bool),
}

/// The faults that are to come, and what they may hit.
#[derive(Debug)]
pub(super) struct Faults {
    layout: Layout,
    /// When, and what; in the order in which they were named.
    due: Vec<(u64, Act)>,
    /// The cell that is to be suspected wrongly, once.
    pub false_alarm: CellSet,
}

impl Faults {
    pub fn new(config: &Config) -> Self {
        Self { layout: config.layout(), due: Vec::new(), false_alarm: CellSet::NONE }
    }

    /// When the next one is due.
    pub fn deadline(&self) -> Option<u64> {
        self.due.iter().map(|(at, _)| *at).min()
    }

    /// As a note says it.
    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        for (at, act) in &self.due {
            w.u64(*at);
            let (kind, what) = match act {
                Act::Begin(fault) => (0, format!("{fault}")),
                Act::Switch(part, on) => (1 + u8::from(*on), format!("{part}")),
            };
            w.u8(kind);
            w.str(&what);
        }
        w.bytes
    }

    /// The next one of a note; nothing at its end, or where it makes no sense.
    fn decode(r: &mut Reader<'_>) -> Option<(u64, Act)> {
        let (at, kind, what) = (r.u64().ok()?, r.u8().ok()?, r.str().ok()?);
        let act = match (kind, Fault::parse(&mut what.split(' ')).ok()?.0) {
            (0, fault) => Act::Begin(fault),
            (1 | 2, Fault::Fails(part)) => Act::Switch(part, kind == 2),
            _ => return None,
        };
        Some((at, act))
    }

    /// Takes the first of those that are due.
    fn take(&mut self, now: u64) -> Option<Act> {
        let next = self.deadline().filter(|at| *at <= now)?;
        let place = self.due.iter().position(|(at, _)| *at == next)?;
        Some(self.due.remove(place).1)
    }
}

impl<M: Machine> LocalCell<M> {
    /// What the machine consists of.
    pub(super) const fn layout(&self) -> &Layout {
        &self.faults.layout
    }

    /// Which cell is to do a fault that was typed here: this one, unless it is hit by it. None: any would be hit.
    pub(super) fn doer(&self, fault: &Fault) -> Option<CellId> {
        if fault.check(&self.faults.layout).is_err() {
            return Some(self.out.cell);
        }
        let hits = fault.hits(&self.faults.layout);
        if !hits.has(self.out.cell) {
            return Some(self.out.cell);
        }
        let spared = Some(self.out.cell).filter(|_| fault.spares_its_doer());
        self.live.minus(hits).lowest().or(spared)
    }

    /// A fault is to be injected, now or at a time; what to answer.
    pub(super) fn inject(&mut self, fault: Fault, when: Option<When>) -> Result<String, String> {
        fault.check(&self.faults.layout)?;
        let hits = fault.hits(&self.faults.layout);
        let gone = hits.minus(self.live);
        if !gone.is_empty() && !fault.spares_its_doer() {
            let lives: Vec<String> = self.live.map(|cell| format!("{cell}")).collect();
            let gone = gone.lowest().unwrap_or_default();
            return Err(format!(
                "fault: cell {gone} is lost already: name something of the cells {}",
                lives.join(", ")
            ));
        }
        if hits.has(self.out.cell) && !fault.spares_its_doer() {
            let me = self.out.cell;
            return Err(match self.live.minus(hits).lowest() {
                Some(other) => format!(
                    "fault: cell {me} can't do what hits itself: try `fault {fault} on {other}`"
                ),
                None => format!(
                    "fault: cell {me} is the only one that lives, nobody is left to do it: start the machine with more cells"
                ),
            });
        }
        let now = self.out.machine.now();
        let at = match when {
            None => None,
            Some(When::At(at)) if at <= now => {
                let (at, now) = (seconds(at), seconds(now));
                return Err(format!(
                    "fault: {at} s has passed, it is {now} s: name a later time, or none"
                ));
            }
            Some(When::At(at)) => Some(at),
            Some(When::In(ns)) => Some(now.saturating_add(ns)),
        };
        let soon = if self.out.machine.leads() { now } else { now + SHOWN_NS };
        if self.faults.due.len() >= MOST {
            return Err(format!("fault: {MOST} are to come already: wait for one"));
        }
        self.faults.due.push((at.unwrap_or(soon), Act::Begin(fault)));
        self.note_faults();
        let (has, will) = match fault {
            Fault::FalseAlarm(_) => ("is raised", "will be raised"),
            _ => ("has failed", "will fail"),
        };
        Ok(match at {
            None => format!("fault: {fault} {has}\n"),
            Some(at) => format!("fault: {fault} {will} at {} s\n", seconds(at)),
        })
    }

    /// Should this cell die, the leader injects what is to come.
    fn note_faults(&mut self) {
        if self.shared {
            self.out.machine.note(self.out.cell, Note::Faults, &self.faults.encode());
        }
    }

    /// Takes over the faults that `cell`, which has died, was yet to inject; what would hit this cell goes to another one.
    pub(super) fn take_faults(&mut self, cell: CellId) {
        let note = self.out.machine.noted(cell, Note::Faults);
        self.out.machine.note(cell, Note::Faults, &[]);
        let mut r = Reader::new(&note);
        let now = self.out.machine.now();
        while let Some((at, act)) = Faults::decode(&mut r) {
            let doer = match act {
                Act::Begin(fault) => self.doer(&fault),
                Act::Switch(..) => Some(self.out.cell),
            };
            match (act, doer) {
                (Act::Begin(fault), Some(doer)) if doer != self.out.cell => {
                    // What would be late when it gets there is done then.
                    let when = match at > now + SHOWN_NS {
                        true => format!(" at {}", seconds(at)),
                        false => String::new(),
                    };
                    self.tell(doer, format!("fault {fault}{when}"));
                }
                (Act::Begin(fault), None) => {
                    self.show(&format!("fault: nobody is left to do `{fault}`\n"));
                }
                _ => self.faults.due.push((at, act)),
            }
        }
        self.note_faults();
    }

    /// Does what is due.
    pub(super) fn faults_due(&mut self, now: u64) {
        while let Some(act) = self.faults.take(now) {
            // Should this cell die in the middle of it, it is not done again.
            self.note_faults();
            match act {
                Act::Begin(fault) => {
                    self.out.event(Kind::Fault { what: format!("{fault}").into() });
                    self.begin_fault(fault, now);
                }
                Act::Switch(part, on) => self.out.machine.switch(part, on),
            }
        }
    }

    fn begin_fault(&mut self, fault: Fault, now: u64) {
        match fault {
            Fault::Fails(part) => self.out.machine.switch(part, false),
            Fault::Firmware(node) => {
                for cpu in self.faults.layout.cpus_of_node(node) {
                    self.out.machine.switch(Part::Cpu(cpu), false);
                }
                self.faults.due.push((now + FIRMWARE_NS, Act::Switch(Part::Node(node), false)));
                self.note_faults();
            }
            Fault::Transient(part) => {
                self.out.machine.switch(part, false);
                self.faults.due.push((now + TRANSIENT_NS, Act::Switch(part, true)));
                self.note_faults();
            }
            Fault::FalseAlarm(cell) => {
                self.faults.false_alarm = self.faults.false_alarm.with(cell);
            }
        }
    }
}
