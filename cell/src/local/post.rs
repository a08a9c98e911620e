//! What goes between this cell and the others through the player rings: commands and their answers, what is
//! typed at VMs, what is announced, and for the script what VMs print.
//!
//! A full ring holds up its writer, never the other way round: the leader keeps its orders until there
//! is room and goes on reading, while a cell whose reports don't fit runs no guests until they do.

use super::out::Out;
use super::{LocalCell, Machine, vm_of};
use crate::console::{Command, Desk, Place, Reach, Sent, parse, topic};
use crate::talk::CellSet;
use crate::vm::State;
use abi::config::Config;
use abi::player::{Order, Report, Result};
use abi::ring::stream;
use abi::{CellId, VmId};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// How soon a cell whose reports don't fit tries again, in nanoseconds.
pub(super) const RETRY_NS: u64 = 100_000;
/// Most records that are read of one ring at a time: guests that print as fast as they can hold up no one.
const READ_MAX: usize = 64;

/// The number of an answer that nobody waits for: questions are numbered from 0.
const NOBODY: u32 = u32::MAX;

/// This cell's part in the talk between cells.
#[derive(Debug)]
pub(super) struct Post {
    /// Where commands go, when this is the leader.
    desk: Desk,
    /// Of each VM, whether it is this cell's.
    own: Vec<bool>,
    /// This cell serves the console.
    serves: bool,
    /// Since when it waits until nobody else does.
    pub waits_since: Option<u64>,
    /// Orders that wait for room.
    orders: VecDeque<Sent>,
    /// Of each cell, the first part of what it announces.
    said: Vec<String>,
    /// Typed at the monitor console while an answer was waited for.
    ahead: VecDeque<u8>,
}

impl Post {
    /// The part of cell `me` among those of `live`. `own`: which VMs are its own to start and to speak of.
    pub fn new(
        me: CellId,
        config: &Config,
        live: CellSet,
        homes: &[CellId],
        own: impl Fn(usize) -> bool,
    ) -> Self {
        let vms = config.vms.iter().zip(homes);
        let place =
            vms.map(|(vm, home)| Place { name: vm.name.clone(), permitted: vm.cells, cell: *home });
        Self {
            desk: Desk::new(me, live, place.collect()),
            own: (0..homes.len()).map(own).collect(),
            serves: false,
            waits_since: None,
            orders: VecDeque::new(),
            said: config.cells.iter().map(|_| String::new()).collect(),
            ahead: VecDeque::new(),
        }
    }
}

impl Post {
    /// How many cells the machine was started with.
    pub const fn cells(&self) -> usize {
        self.said.len()
    }

    /// Whether this cell serves the console.
    pub const fn serves(&self) -> bool {
        self.serves
    }

    /// A VM is this cell's from now on.
    pub fn own(&mut self, vm: VmId) {
        self.own[usize::from(vm.0)] = true;
    }

    /// A VM is not this cell's any more.
    pub fn disown(&mut self, vm: VmId) {
        self.own[usize::from(vm.0)] = false;
    }

    /// Another cell has a VM from now on.
    pub fn moved(&mut self, vm: VmId, to: CellId) {
        self.desk.moved(vm, to);
    }

    /// A cell that was lost is back.
    pub fn returned(&mut self, cell: CellId) {
        self.desk.returned(cell);
        self.said[usize::from(cell.0)].clear();
    }
}

impl<M: Machine> Out<M> {
    /// Leaves a report for the leader.
    pub fn report(&mut self, report: &Report) {
        let (stream, bytes) = report.encode();
        self.reports.push_back((stream, self.machine.now(), bytes));
        self.send_reports();
    }

    /// Whether reports wait for room.
    pub fn is_held_up(&self) -> bool {
        !self.reports.is_empty()
    }

    /// Takes back the reports that have found no room, those that are reports.
    pub fn take_reports(&mut self) -> Vec<(u64, Report)> {
        let reports = core::mem::take(&mut self.reports);
        let decode = |(stream, t_ns, bytes): (u16, u64, Vec<u8>)| {
            Report::decode(stream, &bytes).ok().map(|report| (t_ns, report))
        };
        reports.into_iter().filter_map(decode).collect()
    }

    fn send_reports(&mut self) {
        while let Some((stream, t_ns, bytes)) = self.reports.front() {
            if !self.machine.report(*stream, *t_ns, bytes) {
                return;
            }
            self.reports.pop_front();
        }
    }
}

impl<M: Machine> LocalCell<M> {
    /// Whether VM `id` is this cell's to start and to speak of.
    pub(super) fn owns(&self, id: VmId) -> bool {
        self.post.own[usize::from(id.0)]
    }

    /// Reads what other cells have left for this one, and sends what waits for room.
    pub(super) fn exchange(&mut self) {
        if !self.shared {
            return;
        }
        for _ in 0..READ_MAX {
            let Some((stream, bytes)) = self.out.machine.take_order() else { break };
            // What is no order has been scribbled: there is nobody to tell.
            if let Ok(order) = Order::decode(stream, &bytes) {
                self.ordered(order);
            }
        }
        self.out.send_reports();
        if self.out.machine.leads() {
            self.serve();
        }
    }

    /// The leader's part.
    fn serve(&mut self) {
        if !self.post.serves && !self.take_over() {
            return;
        }
        self.report_lost();
        self.settle();
        self.listen();
        let late = self.post.desk.late(self.out.machine.now());
        self.send(late);
        self.show_answer();
        self.send_orders();
    }

    /// Leaves other cells what they are to do, as far as there is room.
    pub(super) fn send_orders(&mut self) {
        while let Some((cell, order)) = self.post.orders.front() {
            let (stream, bytes) = order.encode();
            let now = self.out.machine.now();
            if !self.out.machine.order(*cell, stream, now, &bytes) {
                break;
            }
            self.post.orders.pop_front();
        }
    }

    /// This cell serves the console from now on.
    pub(super) fn take_console(&mut self) {
        self.post.serves = true;
        if self.prompted {
            self.out.print("\n");
        }
        self.greet();
    }

    /// Another cell serves the console from now on, until this one takes it again: what was asked is not answered.
    pub(super) fn leave_console(&mut self) {
        self.post.serves = false;
        self.post.orders.clear();
        self.post.ahead.clear();
        self.post.desk.drop_question();
    }

    /// Reads what the other cells report, for the console and the script; how much it was.
    pub fn listen(&mut self) -> usize {
        let cells: Vec<CellId> = self.post.desk.others().collect();
        cells.into_iter().map(|cell| self.read_reports(cell)).sum()
    }

    /// Reads what a cell reports; how much it was.
    pub(super) fn read_reports(&mut self, cell: CellId) -> usize {
        for read in 0..READ_MAX {
            let Some((stream, t_ns, bytes)) = self.out.machine.take_report(cell) else {
                return read;
            };
            if let Ok(report) = Report::decode(stream, &bytes) {
                self.reported(cell, t_ns, report);
                self.out.save();
            }
        }
        READ_MAX
    }

    pub(super) fn reported(&mut self, cell: CellId, t_ns: u64, report: Report) {
        match report {
            Report::Printed { console, bytes } => {
                if let Some(player) = &mut self.out.player {
                    player.output(t_ns, console, &bytes);
                }
            }
            Report::Said { text, more } => {
                let said = &mut self.post.said[usize::from(cell.0)];
                said.push_str(&text);
                if !more {
                    let said = core::mem::take(said);
                    self.announce(cell, &said);
                }
            }
            Report::Answer { id, result, text, more } => {
                let sent = self.answered(cell, id, result, &text, more);
                self.send(sent);
            }
        }
    }

    /// A cell has answered an order: what comes of it.
    fn answered(
        &mut self,
        cell: CellId,
        id: u32,
        result: Result,
        text: &str,
        more: bool,
    ) -> Vec<Sent> {
        if self.settled(cell, id, result) {
            return Vec::new();
        }
        self.post.desk.answered(cell, id, result, text, more)
    }

    /// Another cell lives no more.
    pub(super) fn forget_cell(&mut self, cell: CellId) {
        let sent = self.post.desk.lost(cell);
        self.post.orders.retain(|(to, _)| *to != cell);
        self.send(sent);
        self.show_answer();
    }

    /// Has another cell do what a line says. Its answer is of no interest.
    pub(super) fn tell(&mut self, cell: CellId, line: String) {
        let order = Order::Command { id: NOBODY, adopt: false, line };
        self.post.orders.push_back((cell, order));
    }

    /// Sends orders, those to this cell too.
    pub(super) fn send(&mut self, orders: Vec<Sent>) {
        let mut orders: VecDeque<Sent> = orders.into();
        while let Some((cell, order)) = orders.pop_front() {
            if cell != self.out.cell {
                self.post.orders.push_back((cell, order));
                continue;
            }
            if let Some((id, result, text)) = self.obey(order) {
                orders.extend(self.answered(cell, id, result, &text, false));
            }
        }
    }

    /// An order from the leader.
    fn ordered(&mut self, order: Order) {
        if let Some((id, result, text)) = self.obey(order) {
            for answer in Report::answers(id, result, &text) {
                self.out.report(&answer);
            }
        }
    }

    /// Does what an order says; the answer, if it wants one.
    fn obey(&mut self, order: Order) -> Option<(u32, Result, String)> {
        match order {
            Order::Type { console, bytes } => {
                self.type_at_vm(console, &bytes);
                None
            }
            Order::Command { id, adopt, line } => {
                let (result, text) = self.command(&line, adopt);
                Some((id, result, text))
            }
            Order::Release { id, vm } => {
                let Some(own) = self.post.own.get(usize::from(vm.0)) else {
                    return Some((id, Result::Elsewhere, String::new()));
                };
                let there = &self.vms[usize::from(vm.0)];
                let name = &there.config.name;
                Some(if !own {
                    (id, Result::Elsewhere, String::new())
                } else if matches!(there.state, State::Destroyed) {
                    (id, Result::Refused, format!("VM `{name}` has been destroyed\n"))
                } else if matches!(there.state, State::Living(_)) {
                    let cell = self.out.cell;
                    (id, Result::Refused, format!("VM `{name}` runs already, in cell {cell}\n"))
                } else if there.due.is_some() {
                    let text = format!(
                        "VM `{name}` is soon started again in cell {}: `start {name}` does it at once\n",
                        self.out.cell
                    );
                    (id, Result::Refused, text)
                } else {
                    self.post.disown(vm);
                    self.note_vms();
                    (id, Result::Done, String::new())
                })
            }
            Order::Inherit { id, vm, starts, insists } => {
                let (result, text) = self.inherit(vm, starts, insists);
                Some((id, result, text))
            }
        }
    }

    /// Does what a line says. A VM that it names becomes this cell's if it is to be adopted.
    fn command(&mut self, line: &str, adopt: bool) -> (Result, String) {
        let mut words = line.split_whitespace();
        let about_vm = words.next().and_then(topic).is_some_and(|topic| topic.reach == Reach::Vm);
        let vm = words.next().filter(|_| about_vm && self.shared);
        if let Some(vm) = vm.and_then(|word| self.post.desk.find(word)) {
            if adopt && !self.owns(vm) {
                self.post.own(vm);
                self.note_vms();
            }
            if !self.owns(vm) {
                return (Result::Elsewhere, String::new());
            }
        }
        match parse(line).and_then(|command| self.execute(&command)) {
            Ok(text) => (Result::Done, text),
            Err(text) => (Result::Refused, format!("{text}\n")),
        }
    }

    /// A line was typed at the monitor console.
    pub(super) fn ask(&mut self, line: &str) {
        let now = self.out.machine.now();
        // A fault that hits this cell is another one's to do.
        let doer = match parse(line) {
            Ok(Command::Fault(fault, _)) => self.doer(&fault).filter(|doer| *doer != self.out.cell),
            _ => None,
        };
        let elsewhere = doer.map(|doer| format!("{line} on {doer}"));
        match self.post.desk.ask(elsewhere.as_deref().unwrap_or(line), now) {
            Ok(sent) => self.send(sent),
            Err(text) => self.out.print(&format!("{text}\n")),
        }
        if let Some(text) = self.post.desk.answer() {
            self.out.print(&text);
        }
    }

    /// Whether the answer to a line is waited for: what is typed meanwhile has to wait, too.
    pub(super) fn is_asking(&self) -> bool {
        self.post.desk.is_busy()
    }

    /// Keeps what was typed until the answer has come.
    pub(super) fn type_ahead(&mut self, bytes: &[u8]) {
        self.post.ahead.extend(bytes);
    }

    /// Prints the answer of other cells when it is whole, and goes on with what was typed meanwhile.
    fn show_answer(&mut self) {
        while let Some(text) = self.post.desk.answer() {
            self.out.print(&text);
            if self.over.is_none() {
                self.prompt();
            }
            let ahead: Vec<u8> = core::mem::take(&mut self.post.ahead).into();
            self.typed_at_monitor(&ahead);
        }
    }

    /// When something is to be done though no cell has answered.
    pub(super) fn answer_deadline(&self) -> Option<u64> {
        self.post.desk.deadline()
    }

    /// The monitor console prints what a cell announces.
    pub(super) fn announce(&mut self, cell: CellId, text: &str) {
        if self.shared {
            self.show(&format!("cell {cell}: {text}"));
        } else {
            self.show(text);
        }
    }

    /// Bytes for the console of a VM, wherever it is.
    pub(super) fn type_at(&mut self, console: u16, bytes: &[u8]) {
        let id = vm_of(console);
        if self.post.own.get(usize::from(id.0)).is_none_or(|own| *own) {
            return self.type_at_vm(console, bytes);
        }
        if let Some(cell) = self.post.desk.place(id).filter(|cell| *cell != self.out.cell) {
            for bytes in bytes.chunks(abi::ring::RECORD_MAX) {
                let order = Order::Type { console, bytes: bytes.into() };
                self.post.orders.push_back((cell, order));
            }
        }
    }
}

/// Whether a stream is a VM's console.
pub(super) const fn is_vm(console: u16) -> bool {
    console >= stream::VM_BASE
}
