//! [`LocalCell`]: all that one cell does, over the machine below it.
//!
//! All CPUs of the cell share one `LocalCell` behind one lock, and run guests outside it: a CPU takes
//! the lock and calls [`LocalCell::step`]; told to run a VCPU it leaves the lock, runs it, takes the
//! lock again and hands it back with [`LocalCell::done`]. A VCPU is owned by its slot here or by that
//! CPU. Whoever wants something of a VCPU that is away leaves it in its slot and has the CPU kicked.

mod errands;
mod faults;
mod handover;
mod held;
mod lending;
mod life;
mod members;
mod messages;
#[cfg(test)]
mod model;
mod moves;
mod notes;
mod operator;
mod orphans;
mod others;
mod out;
mod post;
mod progress;
mod remap;
mod show;
mod talking;
mod turns;
mod visiting;

use crate::console::Editor;
use crate::fault::Part;
use crate::frames::{Frames, Pages};
use crate::loan::Loans;
use crate::memmap::{Memmap, Violation};
use crate::pmap::{Pmap, Replica};
use crate::pulse::Pulse;
use crate::rng::Rng;
use crate::sched::{Scheduler, Times};
use crate::talk::{CellSet, Epoch, Fabric, Frozen, LiveSet, Sight, Unreachable};
use crate::vm::{Dependence, End, Guest, State, Usage, VcpuId, Vm};
use abi::config::{self, Config};
use abi::directory::Directory;
use abi::event::{Cause, Kind};
use abi::ring::stream;
use abi::script::{Outcome, Step};
use abi::{CellId, CpuId, Mpa, NodeId, VmId};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use errands::Errands;
use faults::Faults;
use held::Held;
use lending::Lending;
use messages::Probes;
use moves::Stress;
use out::Out;
use post::Post;
use progress::Progress;
use remap::Remapping;
use talking::Talk;

pub use members::Membership;
pub use notes::Note;
pub use turns::{Next, Turn};

/// The machine below a cell: what only the monitor's hardware side can do.
pub trait Machine {
    /// What runs a VM.
    type Guest: Guest;
    /// What carries lines between cells.
    type Wires: Fabric;

    /// Virtual time of the machine: nanoseconds since power-on. Never decreases.
    fn now(&self) -> u64;

    /// Whether this cell leads: it serves the monitor console, and says how the run ended. One of the cells
    /// that live does.
    fn leads(&self) -> bool {
        true
    }

    /// Told when the run ends with the VMs: whether all of this cell's have ended. Whether those of all cells
    /// have, so that this one, which leads, is to end the run.
    fn idle(&mut self, idle: bool) -> bool {
        idle
    }

    /// Told, again and again, while this cell ends its VMs because the run is to end: if it leads, the other cells are to end
    /// theirs.
    fn ending(&mut self);

    /// Bytes of the monitor's heap that are in use, and all there are.
    fn heap(&self) -> (usize, usize);

    /// Makes the VM `id` in the memory of `pmap` and loads its images: what its VCPUs share, and
    /// `vm.vcpus` of them, by number, all of them at the kernel's entry. Whoever runs it has its pages
    /// placed as they are touched ([`Pmap::touch`]).
    ///
    /// # Errors
    /// What is to blame.
    fn create(
        &mut self,
        id: VmId,
        vm: &config::Vm,
        pmap: &Arc<Pmap>,
    ) -> Result<Created<Self::Guest>, CreateError>;

    /// Makes what the VCPUs of `vm` need here that visit this cell, in the memory that `replica` knows, or that it is to
    /// learn of from the VM's home. Its life began at machine time `start_ns`; `shared` is what [`Guest::share`] has
    /// written there.
    ///
    /// # Errors
    /// What is to blame.
    fn visit(
        &mut self,
        vm: &config::Vm,
        replica: &Arc<Replica>,
        start_ns: u64,
        shared: &[u64],
    ) -> Result<Self::Guest, CreateError>;

    /// Where another cell finds words of this cell's heap.
    fn parcel(&mut self, words: &[u64]) -> Frozen;

    /// Copies words from another cell's memory.
    ///
    /// # Errors
    /// That memory does not answer, or there is no room for a copy.
    fn fetch(&self, from: CellId, frozen: Frozen) -> Result<Vec<u64>, Unreachable>;

    /// The wires to other cells.
    fn wires(&mut self) -> &mut Self::Wires;

    /// How the other cells look from here, now.
    fn sight(&self) -> Sight;

    /// The cells have agreed on who is alive: from now on these are. Those that have left are to be
    /// fenced off, as far as they can be reached.
    fn agreed(&mut self, live: &LiveSet);

    /// No CPU of this cell runs a VCPU any more that depends on a cell that is not in the live set of agreement number `epoch`, the
    /// last one.
    fn settled(&mut self, epoch: Epoch);

    /// Whether all cells that live have said so of the last agreement. Until they have nobody is brought back, and no page is used
    /// that a dead cell had borrowed: what still runs may use it, or memory of whom that would be.
    fn is_settled(&self) -> bool {
        true
    }

    /// Notes how far the recovery from a cell's death has come here, for those who count what it costs.
    fn mark(&self, _: Stage) {}

    /// The other cells go on without this one, or it can't go on: its CPUs are to stop. Need not come back.
    fn park(&mut self);

    /// Switches a part of the machine off as a failure of it would, or on again. Through the system controller: also where no
    /// way leads.
    fn switch(&mut self, part: Part, on: bool);

    /// Whether a router or link has failed.
    fn has_failed(&self, part: Part) -> bool;

    /// How often a CPU of this cell has ticked: while it runs, more than every hundredth of a second.
    fn ticks(&self, cpu: CpuId) -> u64;

    /// Has a cell that was lost boot again: its CPUs have stopped, its memory is brought back, a fresh copy of the
    /// monitor starts in it. What there is to say.
    ///
    /// # Errors
    /// It can't: the culprit and the remedy.
    fn repair(&mut self, cell: CellId) -> Result<String, String> {
        Err(format!("repair: this machine can't bring cell {cell} back"))
    }

    /// Whether no CPU of `cell`, which has died, can reach any memory any more.
    fn is_fenced(&self, cell: CellId) -> bool;

    /// Lines of memory that were lost with CPUs of cells that have died, in the memory of any node that can be reached: those
    /// CPUs alone had what was in them, and what is read there now means nothing.
    fn lost_lines(&self) -> Vec<Mpa> {
        Vec::new()
    }

    /// Writes a lost line anew, so that the page that it is in can be used again.
    fn discard(&mut self, _: Mpa) {}

    /// Has a CPU of the cell call [`LocalCell::step`] soon: out of [`crate::vm::Vcpu::run`], or out of
    /// its sleep. Also when it has been told what to do, but has not begun to.
    fn kick(&mut self, cpu: CpuId);

    /// Copies a page of a VM, which nobody uses meanwhile, from one frame to another; `false`: one of them is no
    /// longer there.
    fn copy_page(&mut self, from: Mpa, to: Mpa) -> bool;

    /// Overwrites a frame of a VM that nobody is to use any more, so that it shows if somebody does: no word of it is an
    /// instruction or an address.
    fn spoil_page(&mut self, mpa: Mpa);

    /// Compares the monitor's code and constants with the image that they were copied from; what came
    /// of it, in lines.
    fn self_check(&self) -> String;

    /// The machine's cells, in lines; with what lies where in them, if `places`.
    fn cells(&self, places: bool) -> String;

    /// The machine's nodes, in lines.
    fn nodes(&self) -> String;

    /// Makes the monitor fail in the way called `fault`, to test its own handling; `?` asks which
    /// there are. What it answers, if it comes back.
    ///
    /// # Errors
    /// There is no such fault: what to tell the operator.
    fn debug(&mut self, fault: &str) -> Result<String, String> {
        Err(format!("debug: this machine knows no fault `{fault}`"))
    }

    /// Writes a record of at most [`abi::ring::RECORD_MAX`] bytes to a stream of the host link.
    fn write(&mut self, stream: u16, t_ns: u64, bytes: &[u8]);

    /// Leaves a record for the leader ([`abi::player::Report`]); `false`: there is no room for it yet.
    fn report(&mut self, stream: u16, t_ns: u64, bytes: &[u8]) -> bool;

    /// Takes the next record that the leader has left for this one ([`abi::player::Order`]): stream
    /// and payload.
    fn take_order(&mut self) -> Option<(u16, Vec<u8>)>;

    /// In the leader: leaves an order for another; `false`: there is no room for it yet.
    fn order(&mut self, cell: CellId, stream: u16, t_ns: u64, bytes: &[u8]) -> bool;

    /// In the leader: takes the next report of another, or one that this cell has left before it led: stream, time and
    /// payload. It is gone when the next one is asked for: should this cell die before, its successor takes it again.
    fn take_report(&mut self, cell: CellId) -> Option<(u16, u64, Vec<u8>)>;

    /// This cell leads from now on. It takes reports and leaves orders where the one before it has stopped.
    fn lead(&mut self);

    /// The run's script; called by whoever is to play it.
    fn script(&self) -> Vec<Step>;

    /// Writes a note in place of the last one, of this cell or of one that is dead; `false`: it is too long, and the last one
    /// stays.
    fn note(&mut self, cell: CellId, note: Note, bytes: &[u8]) -> bool;

    /// What a cell has noted, in its last life too; nothing if it never has.
    fn noted(&self, cell: CellId, note: Note) -> Vec<u8>;
}

/// How far the recovery from a cell's death has come. Between the first two the cells agree, and [`Machine::agreed`] fences off
/// who is not among those that live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// This cell sees that another one is dead, or suspects it.
    Suspected,
    /// It has looked again while it suspects one, and could do nothing yet but wait for the others.
    Waiting,
    /// What was going on with the dead has been ended: calls, messages, what is known of where VCPUs are.
    Unwound,
    /// What depends on the dead has been found: VMs end, loans are over.
    Scanned,
}

/// A VM that was made: what its VCPUs share, and they.
pub type Created<G> = (G, Vec<Box<<G as Guest>::Vcpu>>);

/// Why a VM can't be made: the culprit and the remedy, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreateError {
    /// The monitor lacks memory of its own.
    NoMemory(String),
    /// The VM's images can't be loaded.
    BadImage(String),
}

/// Why a VM was not started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// As the event would say it; `None`: it is in no state to be started.
    pub cause: Option<Cause>,
    /// The culprit and the remedy.
    pub text: String,
}

/// One cell.
#[derive(Debug)]
pub struct LocalCell<M: Machine> {
    out: Out<M>,
    frames: Arc<Frames>,
    lending: Lending,
    sched: Scheduler,
    /// None where the cell is alone.
    talk: Option<Box<Talk>>,
    vms: Vec<Vm<M::Guest>>,
    editor: Editor,
    /// The machine has several cells.
    shared: bool,
    post: Post,
    /// The prompt is shown: a message must go to a line of its own.
    prompted: bool,
    /// The run ends when every VM has.
    ends_with_vms: bool,
    /// There is a script: whoever leads plays it.
    has_script: bool,
    /// What is to be said of VMs that are in several cells.
    errands: Errands,
    /// What is sent to check that messages arrive.
    probes: Probes,
    /// For each VM, the number in the machine of its first VCPU.
    numbers: Vec<u16>,
    /// The cell of each CPU of the machine.
    cpus: Vec<CellId>,
    /// The cells that are agreed to live.
    live: CellSet,
    /// How often this one has booted.
    incarnation: u16,
    /// Cells that have died of which nobody knows that they have parked.
    silent: CellSet,
    /// What CPUs of dead cells may still reach.
    held: Held,
    /// How the run ends, once it is to end.
    over: Option<Outcome>,
    /// The outcome has been written.
    finished: bool,
    /// Faults that are to be injected.
    faults: Faults,
    /// Whether its other CPUs do something.
    pulse: Pulse,
    /// How far a recovery has come.
    progress: Progress,
    /// It is yet to be said that nothing of what depends on lost cells runs any more.
    unsettled: bool,
    /// Lost cells that are to be brought back as soon as all have said so.
    repairs: CellSet,
    /// VCPUs are being moved about.
    stress: Option<Stress>,
    /// Pages are being moved about.
    remap: Option<Box<Remapping>>,
    /// Draws for `stress`, so that it does not change what the scheduler draws.
    dice: Rng,
}

impl<M: Machine> LocalCell<M> {
    /// A cell of `config` with these CPUs and their nodes, whose pages `memmap` records; all VMs
    /// defined and none started. `members`: its part among the cells, at the machine's start or after it was let in again.
    ///
    /// # Panics
    /// When it has no CPU.
    pub fn new(
        machine: M,
        cell: CellId,
        cpus: &[(CpuId, NodeId)],
        config: &Config,
        memmap: Memmap,
        members: Membership,
    ) -> Self {
        let &(first, _) = cpus.first().expect("a cell has a CPU");
        let live = *members.live();
        let incarnation = live.incarnations[usize::from(cell.0)].0;
        let has_script = config.script_len != 0;
        let shared = config.cells.len() > 1;
        let homes = others::homes(config);
        // One that is back does not know what has become of those that may run elsewhere.
        let own = |vm: usize| {
            homes[vm] == cell && (incarnation == 1 || config.vms[vm].cells == 1 << cell.0)
        };
        // Cells are not to do the same at the same time.
        let seed = config.machine.seed ^ u64::from(cell.0) << 32;
        let frames = Arc::new(Frames::new(cell, memmap));
        Self {
            out: Out::new(machine, cell, first, has_script && shared),
            lending: Lending::new(|all| Loans::new(frames.clone(), incarnation, all), config),
            frames,
            sched: Scheduler::new(cpus, Rng::new(seed)),
            talk: Talk::new(cell, config, members),
            vms: config.vms.iter().cloned().map(Vm::new).collect(),
            editor: Editor::default(),
            shared,
            post: Post::new(cell, config, live.cells, &homes, own),
            prompted: false,
            ends_with_vms: !has_script && !config.machine.stay,
            has_script,
            errands: Errands::default(),
            probes: Probes::default(),
            numbers: first_numbers(config),
            cpus: cells_of_cpus(config),
            live: live.cells,
            incarnation,
            silent: CellSet::NONE,
            held: Held::default(),
            over: None,
            finished: false,
            faults: Faults::new(config),
            pulse: Pulse::new(cpus.iter().map(|(cpu, _)| *cpu).filter(|cpu| *cpu != first)),
            progress: Progress::default(),
            unsettled: false,
            repairs: CellSet::NONE,
            stress: None,
            remap: None,
            // "stress"
            dice: Rng::new(seed ^ 0x7374_7265_7373),
        }
    }

    /// Says that the cell is up and starts the VMs that start with it, in their homes. Called once, by any CPU,
    /// before the others call [`Self::step`].
    pub fn boot(&mut self) {
        self.out.event(Kind::MonitorUp);
        self.drop_notes();
        if !self.shared {
            self.take_script(None);
            self.take_console();
        } else if self.out.machine.leads() {
            self.take_over();
        }
        let first = self.incarnation == 1;
        for id in self.ids() {
            let vm = &self.vm(id).config;
            // What was lost with this cell is started again if its policy says so.
            let wanted = vm.autostart && (first || vm.restart != config::Restart::Never);
            if wanted
                && self.owns(id)
                && let Err(refused) = self.start(id)
            {
                self.not_started(id, refused);
            }
        }
        self.note_vms();
        self.kick();
    }

    fn greet(&mut self) {
        let total = self.frames.accounts().total;
        let (cell, vms) = (self.out.cell, self.vms.len());
        let of = if self.shared { format!(" of {}", self.post.cells()) } else { String::new() };
        self.out.print(&format!(
            "Honeycomb monitor, cell {cell}{of}: {}, {vms} VM{} configured; `help` explains the commands\n",
            Pages(total),
            if vms == 1 { "" } else { "s" },
        ));
        self.prompt();
    }

    /// Has `directory` name where the cell's part of the registry is, if it has one.
    pub fn publish_registry(&self, directory: &Directory) {
        if let Some(talk) = &self.talk {
            talk.exchange.registry().publish(directory);
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
        let living = self.vms.iter().filter_map(|vm| match &vm.state {
            State::Living(life) => Some(&*life.pmap),
            State::Defined | State::Ended(_) | State::Destroyed => None,
        });
        self.frames.audit(living.chain(self.held.pmaps()))?;
        self.forgotten_line().map_or(Ok(()), |mpa| Err(Violation::LostLine { mpa }))
    }

    /// How the last life of VM `id` ended; `None` while it lives or has not been started.
    pub fn end_of(&self, id: VmId) -> Option<&End> {
        match &self.vms.get(usize::from(id.0))?.state {
            State::Ended(end) => Some(end),
            State::Defined | State::Living(_) | State::Destroyed => None,
        }
    }

    /// What the living VM `id` has used so far.
    pub fn usage_of(&self, id: VmId) -> Option<Usage> {
        let now = self.out.machine.now();
        let State::Living(life) = &self.vms.get(usize::from(id.0))?.state else { return None };
        let mut usage = life.usage(now);
        usage.add(&self.times_here(id, now));
        Some(usage)
    }

    /// What those VCPUs of VM `id` that are in this cell have done with their time.
    fn times_here(&self, id: VmId, now: u64) -> Times {
        let mut times = Times::default();
        for index in 0..self.vms[usize::from(id.0)].config.vcpus {
            if let Some(standing) = self.sched.standing(VcpuId { vm: id, index }, now) {
                times.add(&standing.times);
            }
        }
        times
    }

    /// On which cells the living VM `id` depends.
    pub fn dependencies(&self, id: VmId) -> Vec<Dependence> {
        let Some(State::Living(life)) = self.vms.get(usize::from(id.0)).map(|vm| &vm.state) else {
            return Vec::new();
        };
        let (taken, promised) = (life.pmap.taken(), life.pmap.promised());
        let me = self.out.cell;
        let cells = taken.into_iter().zip(promised).zip(0..).map(|((pages, promised), cell)| {
            let cell = CellId(cell);
            let there = life.body.slots.iter().filter(|slot| slot.away().unwrap_or(me) == cell);
            Dependence {
                pages: pages.into(),
                promised: promised.into(),
                vcpus: there.count() as u32,
                devices: cell == me,
                ..Dependence::none(cell)
            }
        });
        cells.filter(Dependence::exists).collect()
    }

    fn ids(&self) -> impl Iterator<Item = VmId> + use<M> {
        (0..self.vms.len()).map(|i| VmId(i as u16))
    }

    fn vm(&mut self, id: VmId) -> &mut Vm<M::Guest> {
        &mut self.vms[usize::from(id.0)]
    }

    /// Has the CPUs come back that the scheduler wants to.
    fn kick(&mut self) {
        for cpu in self.sched.take_kicks() {
            self.out.machine.kick(cpu);
        }
    }
}

/// For each VM, the number in the machine of its first VCPU.
fn first_numbers(config: &Config) -> Vec<u16> {
    let mut next = 0;
    let first = |vm: &config::Vm| {
        let first = next;
        next += vm.vcpus as u16;
        first
    };
    config.vms.iter().map(first).collect()
}

/// The cell of each CPU of the machine.
fn cells_of_cpus(config: &Config) -> Vec<CellId> {
    let layout = config.layout();
    let cell = |cpu| layout.cell(layout.node_of(CpuId(cpu)));
    (0..layout.cpus() as u8).map(cell).collect()
}

/// The VM whose console a stream is, if it is one.
const fn vm_of(console: u16) -> VmId {
    VmId(console.wrapping_sub(stream::VM_BASE))
}
