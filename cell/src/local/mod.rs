//! [`LocalCell`]: all that one cell does, over the machine below it.

mod operator;

use crate::console::{Editor, PROMPT};
use crate::frames::{Frames, Pages};
use crate::memmap::{Memmap, Violation};
use crate::placement::Plan;
use crate::pmap::{NoPmap, Pmap};
use crate::rng::Rng;
use crate::sched::{Pick, RunQueue};
use crate::script::{Action, Player};
use crate::tail::Tail;
use crate::vm::{End, Exit, Guest, Life, State, Usage, Vm};
use abi::config::{self, Config};
use abi::event::{Cause, Event, Kind};
use abi::ring::{RECORD_MAX, stream, vm_stream};
use abi::script::{Outcome, Step};
use abi::{CellId, CpuId, PAGE_SHIFT, VmId};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;

/// Most bytes that wait to be taken by a VM's console; what is typed beyond them is lost, as on a
/// serial line whose other end does not listen.
const TYPED_MAX: usize = 1 << 20;

/// The machine below a cell: what only the monitor's hardware side can do.
pub trait Machine {
    /// What runs a VM.
    type Guest: Guest;

    /// Virtual time of the machine: nanoseconds since power-on. Never decreases.
    fn now(&self) -> u64;

    /// Bytes of the monitor's heap that are in use, and all there are.
    fn heap(&self) -> (usize, usize);

    /// Makes the VM `id` in the memory of `pmap` and loads its images. Whoever runs it has its pages placed
    /// as they are touched ([`Pmap::touch`]).
    ///
    /// # Errors
    /// What is to blame.
    fn create(
        &mut self,
        id: VmId,
        vm: &config::Vm,
        pmap: &Arc<Pmap>,
    ) -> Result<Self::Guest, CreateError>;

    /// Compares the monitor's code and constants with the image that they were copied from; what came
    /// of it, in lines.
    fn self_check(&self) -> String;

    /// Makes the monitor fail in the way called `fault`, to test its own handling; `?` asks which
    /// there are. What it answers, if it comes back.
    ///
    /// # Errors
    /// There is no such fault: what to tell the operator.
    fn debug(&mut self, fault: &str) -> Result<String, String> {
        Err(format!("debug: this machine knows no fault `{fault}`"))
    }

    /// Writes a record of at most [`RECORD_MAX`] bytes to a stream of the host link.
    fn write(&mut self, stream: u16, t_ns: u64, bytes: &[u8]);
}

/// Why a VM can't be made: the culprit and the remedy, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreateError {
    /// The monitor lacks memory of its own.
    NoMemory(String),
    /// The VM's images can't be loaded.
    BadImage(String),
}

/// What the cell wants after a [`LocalCell::step`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another step.
    Again,
    /// Another step at this machine time (`None`: only when something is typed), or when something is
    /// typed.
    Wait(Option<u64>),
    /// The run is over and its outcome has been written: power off.
    Over(Outcome),
}

/// One cell. The owner of the CPU calls [`LocalCell::step`] for ever, and [`LocalCell::input`] with
/// what comes from the host in between.
#[derive(Debug)]
pub struct LocalCell<M: Machine> {
    out: Out<M>,
    frames: Arc<Frames>,
    queue: RunQueue,
    vms: Vec<Vm<M::Guest>>,
    editor: Editor,
    /// The prompt is shown: a message must go to a line of its own.
    prompted: bool,
    /// The run ends when every VM has.
    ends_with_vms: bool,
    over: Option<Outcome>,
}

/// Everything the cell says goes through here: to the host, and to the script.
#[derive(Debug)]
struct Out<M> {
    machine: M,
    cell: CellId,
    player: Option<Player>,
    events: u64,
}

impl<M: Machine> Out<M> {
    /// A console emits bytes.
    fn emit(&mut self, stream: u16, bytes: &[u8]) {
        let now = self.machine.now();
        for chunk in bytes.chunks(RECORD_MAX) {
            self.machine.write(stream, now, chunk);
        }
        if let Some(player) = &mut self.player {
            player.output(now, stream, bytes);
        }
    }

    /// The monitor console prints text, its newlines as a terminal wants them.
    fn print(&mut self, text: &str) {
        self.emit(stream::MONITOR, text.replace('\n', "\r\n").as_bytes());
    }

    fn event(&mut self, kind: Kind) {
        let t_ns = self.machine.now();
        let (cell, cpu) = (i32::from(self.cell.0), i32::from(CpuId(0).0));
        let event = Event { seq: self.events, t_ns, cell, cpu, kind };
        self.events += 1;
        self.machine.write(stream::EVENTS, t_ns, &event.encode());
    }
}

/// Why a VM was not started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// As the event would say it; `None`: it runs already.
    pub cause: Option<Cause>,
    /// The culprit and the remedy.
    pub text: String,
}

impl<M: Machine> LocalCell<M> {
    /// A cell of `config` whose pages `memmap` records, all VMs defined and none started. `script`:
    /// the run's script, if it has one.
    pub fn new(
        machine: M,
        cell: CellId,
        config: &Config,
        memmap: Memmap,
        script: Option<Vec<Step>>,
    ) -> Self {
        let ends_with_vms = script.is_none() && !config.machine.stay;
        let name = |console: u16| match config.vms.get(usize::from(vm_of(console).0)) {
            _ if console == stream::MONITOR => "monitor".into(),
            Some(vm) => vm.name.clone(),
            None => format!("stream {console}"),
        };
        let (player, over) = match script.map(|steps| Player::new(steps, name)) {
            None => (None, None),
            Some(Ok(player)) => (Some(player), None),
            Some(Err(outcome)) => (None, Some(outcome)),
        };
        Self {
            out: Out { machine, cell, player, events: 0 },
            frames: Arc::new(Frames::new(cell, memmap)),
            queue: RunQueue::new(Rng::new(config.machine.seed)),
            vms: config.vms.iter().cloned().map(Vm::new).collect(),
            editor: Editor::default(),
            prompted: false,
            ends_with_vms,
            over,
        }
    }

    /// Says that the cell is up and starts the VMs that start with it.
    pub fn boot(&mut self) {
        self.out.event(Kind::MonitorUp);
        let total = self.frames.accounts().total;
        let (cell, vms) = (self.out.cell, self.vms.len());
        self.out.print(&format!(
            "Honeycomb monitor, cell {cell}: {}, {vms} VM{} configured; `help` explains the commands\n",
            Pages(total),
            if vms == 1 { "" } else { "s" },
        ));
        self.prompt();
        for id in self.ids() {
            if self.vm(id).config.autostart
                && let Err(Refused { cause, text }) = self.start(id)
            {
                self.say(&format!("{text}\n"));
                let vm = self.vm(id).config.name.clone();
                self.out.event(Kind::VmEnd { vm, cause: cause.unwrap_or(Cause::NoMemory) });
            }
        }
    }

    /// The machine below.
    pub const fn machine(&self) -> &M {
        &self.out.machine
    }

    /// The cell's pages.
    pub const fn frames(&self) -> &Arc<Frames> {
        &self.frames
    }

    /// Checks all memory invariants, page by page.
    ///
    /// # Errors
    /// The first violation.
    pub fn audit(&self) -> Result<(), Violation> {
        self.frames.audit(self.vms.iter().filter_map(|vm| match &vm.state {
            State::Running(life) => Some(&*life.pmap),
            State::Defined | State::Ended(_) => None,
        }))
    }

    /// How the last life of VM `id` ended; `None` while it runs or has not been started.
    pub fn end_of(&self, id: VmId) -> Option<&End> {
        match &self.vms.get(usize::from(id.0))?.state {
            State::Ended(end) => Some(end),
            State::Defined | State::Running(_) => None,
        }
    }

    /// What the running VM `id` has used so far.
    pub fn usage_of(&self, id: VmId) -> Option<Usage> {
        match &self.vms.get(usize::from(id.0))?.state {
            State::Running(life) => Some(life.usage(self.out.machine.now())),
            State::Defined | State::Ended(_) => None,
        }
    }

    fn ids(&self) -> impl Iterator<Item = VmId> + use<M> {
        (0..self.vms.len()).map(|i| VmId(i as u16))
    }

    fn vm(&mut self, id: VmId) -> &mut Vm<M::Guest> {
        &mut self.vms[usize::from(id.0)]
    }

    /// Bytes were typed at a console. What is typed at a VM that does not run is lost, as at a machine
    /// that is switched off; so is what is typed at a console that does not exist.
    pub fn input(&mut self, console: u16, bytes: &[u8]) {
        if console == stream::MONITOR {
            return self.typed_at_monitor(bytes);
        }
        let id = vm_of(console);
        let Some(vm) = self.vms.get_mut(usize::from(id.0)) else { return };
        if matches!(vm.state, State::Running(_)) {
            let room = TYPED_MAX.saturating_sub(vm.typed.len());
            vm.typed.extend(&bytes[..bytes.len().min(room)]);
            if vm.pass_input() {
                self.queue.wake(id);
            }
        }
    }

    /// Does the next thing: what the script wants, then a slice of the VM whose turn it is.
    pub fn step(&mut self) -> Next {
        let mut now = self.out.machine.now();
        while let Some(action) = self.out.player.as_mut().and_then(|p| p.poll(now)) {
            match action {
                Action::Type { stream, bytes } => self.input(stream, &bytes),
                Action::End(outcome) => self.over = Some(outcome),
            }
            if self.over.is_some() {
                break;
            }
            now = self.out.machine.now();
        }
        if let Some(outcome) = self.over.take() {
            return self.finish(outcome);
        }
        let alive = self.vms.iter().any(|vm| matches!(vm.state, State::Running(_)));
        if self.ends_with_vms && !alive {
            return self.finish(Outcome::Done);
        }
        let script = self.out.player.as_ref().and_then(Player::deadline);
        match self.queue.pick(now) {
            Pick::Run { vm, until } => {
                self.run(vm, script.map_or(until, |s| s.clamp(now, until)));
                Next::Again
            }
            Pick::Nothing { until } => Next::Wait(until.into_iter().chain(script).min()),
        }
    }

    /// Runs a slice of VM `id`.
    fn run(&mut self, id: VmId, until: u64) {
        let vm = &mut self.vms[usize::from(id.0)];
        vm.pass_input();
        let State::Running(life) = &mut vm.state else { return };
        let from = self.out.machine.now();
        let exit = life.guest.run(until);
        let to = self.out.machine.now();
        life.ran(from, to, &exit);
        self.queue.charge(id, to - from);
        let (out, tail) = (&mut self.out, &mut vm.tail);
        life.guest.take_output(&mut |bytes| {
            out.emit(vm_stream(id), bytes);
            tail.push(bytes);
        });
        match exit {
            Exit::Slice => {}
            Exit::Idle { until } => {
                self.queue.wait(id, until);
                if vm.pass_input() {
                    self.queue.wake(id);
                }
            }
            Exit::Ended { cause, report } => self.end(id, cause, report),
        }
    }

    /// Starts VM `id`.
    ///
    /// # Errors
    /// When it runs already, its memory is not free, or its images can't be loaded.
    pub fn start(&mut self, id: VmId) -> Result<(), Refused> {
        let vm = &mut self.vms[usize::from(id.0)];
        let name = &vm.config.name;
        if matches!(vm.state, State::Running(_)) {
            return Err(Refused { cause: None, text: format!("VM `{name}` runs already") });
        }
        let pages = vm.config.memory >> PAGE_SHIFT;
        let refuse = |why: &dyn core::fmt::Display| Refused {
            cause: Some(Cause::NoMemory),
            text: format!("VM `{name}` {why}"),
        };
        let plan = Plan::new(vm.config.placement, self.out.cell, vm.config.cells);
        let Ok(pages) = u32::try_from(pages) else {
            return Err(refuse(&format!("needs {}: no machine has that", Pages(pages))));
        };
        let pmap = Pmap::new(&self.frames, id, plan, pages).map_err(|error| match error {
            NoPmap::Heap => refuse(&"can't be started: the monitor's own heap is too full"),
            NoPmap::Shortage(shortage) => {
                refuse(&format!("{shortage}: stop another VM, or give this one less memory"))
            }
        })?;
        let pmap = Arc::new(pmap);
        match self.out.machine.create(id, &vm.config, &pmap) {
            Ok(guest) => {
                let now = self.out.machine.now();
                vm.lives += 1;
                vm.tail = Tail::new();
                vm.state = State::Running(Life::new(guest, pmap, now));
                self.queue.add(id, vm.config.weight);
                let name = name.clone();
                self.out.event(Kind::VmStart { vm: name });
                Ok(())
            }
            Err(error) => {
                let (cause, why) = match error {
                    CreateError::NoMemory(why) => (Cause::NoMemory, why),
                    CreateError::BadImage(why) => (Cause::BadImage, why),
                };
                let text = format!("VM `{name}` can't be started: {why}");
                Err(Refused { cause: Some(cause), text })
            }
        }
    }

    /// Ends VM `id`, if it runs.
    fn end(&mut self, id: VmId, cause: Cause, report: String) {
        let now = self.out.machine.now();
        let vm = &mut self.vms[usize::from(id.0)];
        if !matches!(vm.state, State::Running(_)) {
            return;
        }
        let State::Running(life) = core::mem::replace(&mut vm.state, State::Defined) else {
            return;
        };
        let usage = life.usage(now);
        let name = vm.config.name.clone();
        let mut text = format!("VM `{name}` ended: {}\n", cause.as_str());
        if !cause.is_normal() {
            for line in report.lines() {
                // Writing to a string does not fail.
                let _ = writeln!(text, "  {line}");
            }
            if !vm.tail.is_empty() {
                text.push_str("  its last output:\n");
                text.push_str(&vm.tail.lines("  | "));
            }
        }
        vm.state = State::Ended(End { cause, t_ns: now, report, usage });
        vm.typed.clear();
        // With the last that uses it the VM's memory comes back.
        drop(life);
        self.queue.remove(id);
        self.out.event(Kind::VmEnd { vm: name, cause });
        self.say(&text);
    }

    /// Ends all VMs and says how the run ended.
    fn finish(&mut self, outcome: Outcome) -> Next {
        for id in self.ids() {
            self.end(id, Cause::Quit, String::new());
        }
        let now = self.out.machine.now();
        self.out.machine.write(stream::OUTCOME, now, &outcome_record(&outcome));
        Next::Over(outcome)
    }

    fn prompt(&mut self) {
        self.out.print(PROMPT);
        let line = self.editor.shown();
        self.out.emit(stream::MONITOR, &line);
        self.prompted = true;
    }

    /// The monitor console prints a message, on lines of its own.
    fn say(&mut self, text: &str) {
        if self.prompted {
            self.out.print(&format!("\n{text}"));
            self.prompt();
        } else {
            self.out.print(text);
        }
    }
}

/// The VM whose console a stream is, if it is one.
const fn vm_of(console: u16) -> VmId {
    VmId(console.wrapping_sub(stream::VM_BASE))
}

/// An outcome as one record: a report too long for it is cut.
fn outcome_record(outcome: &Outcome) -> Vec<u8> {
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
