//! What a cell says: consoles and events, to the host and to the script.

use super::notes::Lead;
use super::post::is_vm;
use super::{LocalCell, Machine};
use crate::console::PROMPT;
use crate::script::Player;
use abi::event::{Event, Kind};
use abi::player::Report;
use abi::ring::{RECORD_MAX, stream};
use abi::script::Outcome;
use abi::{CellId, CpuId, VmId};
use alloc::borrow::Cow;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::vec::Vec;

/// Everything the cell says goes through here.
#[derive(Debug)]
pub(super) struct Out<M> {
    pub machine: M,
    pub cell: CellId,
    /// The CPU that holds the cell's lock: it is who reports.
    pub cpu: CpuId,
    pub player: Option<Player>,
    /// What is noted for the next leader, while this cell leads others.
    pub lead: Option<Lead>,
    /// The script is played in one of several cells: what VMs print is reported to it.
    scripted: bool,
    /// Reports that wait for room.
    pub reports: VecDeque<(u16, u64, Vec<u8>)>,
    events: u64,
    /// Where events are encoded.
    record: Vec<u8>,
    /// Where notes are.
    pub noted: Vec<u8>,
}

impl<M: Machine> Out<M> {
    pub const fn new(machine: M, cell: CellId, cpu: CpuId, scripted: bool) -> Self {
        Self {
            machine,
            cell,
            cpu,
            player: None,
            lead: None,
            scripted,
            reports: VecDeque::new(),
            events: 0,
            record: Vec::new(),
            noted: Vec::new(),
        }
    }

    /// A console emits bytes.
    pub fn emit(&mut self, stream: u16, bytes: &[u8]) {
        let now = self.machine.now();
        for chunk in bytes.chunks(RECORD_MAX) {
            self.machine.write(stream, now, chunk);
        }
        if let Some(player) = &mut self.player {
            player.output(now, stream, bytes);
            self.save();
        } else if self.scripted && is_vm(stream) {
            for bytes in bytes.chunks(RECORD_MAX) {
                self.report(&Report::Printed { console: stream, bytes: bytes.into() });
            }
        }
    }

    /// The monitor console prints text, its newlines as a terminal wants them.
    pub fn print(&mut self, text: &str) {
        self.emit(stream::MONITOR, text.replace('\n', "\r\n").as_bytes());
    }

    pub fn event(&mut self, kind: Kind<'_>) {
        let t_ns = self.machine.now();
        let (cell, cpu) = (i32::from(self.cell.0), i32::from(self.cpu.0));
        let event = Event { seq: self.events, t_ns, cell, cpu, kind };
        self.events += 1;
        event.encode_into(&mut self.record);
        self.machine.write(stream::EVENTS, t_ns, &self.record);
    }
}

impl<M: Machine> LocalCell<M> {
    /// Reports something of VM `id`.
    pub(super) fn report(&mut self, id: VmId, kind: impl for<'a> FnOnce(Cow<'a, str>) -> Kind<'a>) {
        let name = &self.vms[usize::from(id.0)].config.name;
        self.out.event(kind(name.into()));
    }

    pub(super) fn prompt(&mut self) {
        self.out.print(PROMPT);
        let line = self.editor.shown();
        self.out.emit(stream::MONITOR, &line);
        self.prompted = true;
    }

    /// The cell announces something, on the monitor console.
    pub(super) fn say(&mut self, text: &str) {
        if self.post.serves() {
            self.announce(self.out.cell, text);
        } else {
            for report in Report::said(text) {
                self.out.report(&report);
            }
        }
    }

    /// The monitor console prints a message, on lines of its own.
    pub(super) fn show(&mut self, text: &str) {
        if self.prompted {
            self.out.print(&format!("\n{text}"));
            self.prompt();
        } else {
            self.out.print(text);
        }
    }
}

/// An outcome as one record: a report too long for it is cut.
pub(super) fn outcome_record(outcome: &Outcome) -> Vec<u8> {
    let record = outcome.encode();
    match outcome {
        Outcome::ScriptFailed { line, report } if record.len() > RECORD_MAX => {
            let mut cut = RECORD_MAX - (record.len() - report.len());
            while !report.is_char_boundary(cut) {
                cut -= 1;
            }
            Outcome::ScriptFailed { line: *line, report: report[..cut].into() }.encode()
        }
        _ => record,
    }
}
