//! Faults that an operator injects, done at their times.
//!
//! A fault is done by a cell that it does not hit: the leader, which the console is at, or else the lowest one. It is done with
//! the first step that is due then, after its answer has gone out: under icount the same instruction each time.

use super::{LocalCell, Machine};
use crate::fault::{FIRMWARE_NS, Fault, Part, TRANSIENT_NS, When, seconds};
use crate::talk::CellSet;
use abi::CellId;
use abi::config::Config;
use abi::event::Kind;
use abi::layout::Layout;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// How long the leader is given to show the answer of another cell, in nanoseconds, before it may die itself.
const SHOWN_NS: u64 = 5_000_000;

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
        self.faults.due.push((at.unwrap_or(soon), Act::Begin(fault)));
        let (has, will) = match fault {
            Fault::FalseAlarm(_) => ("is raised", "will be raised"),
            _ => ("has failed", "will fail"),
        };
        Ok(match at {
            None => format!("fault: {fault} {has}\n"),
            Some(at) => format!("fault: {fault} {will} at {} s\n", seconds(at)),
        })
    }

    /// Does what is due.
    pub(super) fn faults_due(&mut self, now: u64) {
        while let Some(act) = self.faults.take(now) {
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
            }
            Fault::Transient(part) => {
                self.out.machine.switch(part, false);
                self.faults.due.push((now + TRANSIENT_NS, Act::Switch(part, true)));
            }
            Fault::FalseAlarm(cell) => {
                self.faults.false_alarm = self.faults.false_alarm.with(cell);
            }
        }
    }
}
