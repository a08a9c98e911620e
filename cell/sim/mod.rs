//! A simulated machine of several CPUs: time goes from one event to the next, those of one moment in
//! random order; memory remembers who has which page; guests are small programs.

mod cluster;
mod toy;
mod wires;

use abi::config::{self, Blob, Config, Placement, Restart};
use abi::event::{Event, Kind};
use abi::ring::{RECORD_MAX, stream, vm_stream};
use abi::script::{Outcome, Step};
use abi::{CellId, CpuId, Mpa, NodeId, PAGE_SIZE, VmId};
use cell::fault::Part;
use cell::memmap::{self, Memmap, Region};
use cell::pmap::{Pmap, Replica};
use cell::rng::Rng;
use cell::talk::{CellSet, Epoch, Frozen, LiveSet, Sight, Unreachable};
use cell::visit::{Ask, Told, Whom};
use cell::vm::Vcpu;
use cell::{CreateError, Created, LocalCell, Machine, Membership, Next, Note, Turn};
pub use cluster::Cluster;
use cluster::Rings;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use toy::ToyVcpu;
pub use toy::{Program, Toy};
use wires::Wires;

/// How often a cell looks what others have left for it.
const TICK_NS: u64 = 1_000_000;

/// What the machine knows.
#[derive(Debug, Default)]
pub struct World {
    pub now: u64,
    /// Everything written to the host, by stream.
    pub streams: BTreeMap<u16, Vec<u8>>,
    pub events: Vec<Event<'static>>,
    pub outcome: Option<Outcome>,
    /// Which machine pages hold the data of which VM's page; cleared pages are absent.
    stamped: HashMap<Mpa, (VmId, u32)>,
    /// Time each VM has run.
    pub ran: BTreeMap<VmId, u64>,
    /// Time each VCPU has run.
    pub ran_by: BTreeMap<(VmId, u32), u64>,
    /// CPUs that were kicked and have not noticed yet.
    kicked: Vec<bool>,
    /// How often any was.
    pub kicks: u64,
}

/// The machine below the cell.
#[derive(Clone, Debug)]
pub struct Sim {
    pub world: Rc<RefCell<World>>,
    /// Which cell it is below, and what all cells share.
    cell: CellId,
    rings: Rc<RefCell<Rings>>,
    programs: Vec<Program>,
    script: Option<Vec<Step>>,
    wires: Wires,
    first_cpu: u8,
}

impl Machine for Sim {
    type Guest = Toy;
    type Wires = Wires;

    fn now(&self) -> u64 {
        self.world.borrow().now
    }

    fn heap(&self) -> (usize, usize) {
        (0, 1 << 20)
    }

    fn create(
        &mut self,
        id: VmId,
        vm: &config::Vm,
        pmap: &Arc<Pmap>,
    ) -> Result<Created<Toy>, CreateError> {
        assert_eq!(pmap.resident(), 0, "nothing is touched yet");
        let program = self.programs[usize::from(id.0)].clone();
        let made = toy::make(id, vm.vcpus, &program, &self.world, pmap);
        let life = (vm.name.clone(), self.now());
        self.rings.borrow_mut().toys.insert(life, made.0.shared.clone());
        match program {
            Program::Bad => Err(CreateError::BadImage("its kernel is no ELF".into())),
            Program::Big => Err(CreateError::NoMemory("the heap is too full".into())),
            _ => Ok(made),
        }
    }

    fn visit(
        &mut self,
        vm: &config::Vm,
        replica: &Arc<Replica>,
        start_ns: u64,
        _: &[u64],
    ) -> Result<Toy, CreateError> {
        let shared = self.rings.borrow().toys[&(vm.name.clone(), start_ns)].clone();
        let program = &self.programs[usize::from(replica.vm().0)];
        Ok(toy::visit(replica.vm(), program, &self.world, replica, &shared))
    }

    fn parcel(&mut self, words: &[u64]) -> Frozen {
        let parcels = &mut self.rings.borrow_mut().parcels;
        parcels.push((self.cell, words.to_vec()));
        Frozen { at: Mpa(parcels.len() as u64 - 1), length: 8 * words.len() as u64 }
    }

    fn fetch(&self, from: CellId, frozen: Frozen) -> Result<Vec<u64>, Unreachable> {
        let rings = self.rings.borrow();
        let (whose, words) = &rings.parcels[frozen.at.0 as usize];
        assert_eq!((*whose, 8 * words.len() as u64), (from, frozen.length));
        if rings.is_dead(from) { Err(Unreachable) } else { Ok(words.clone()) }
    }

    fn wires(&mut self) -> &mut Wires {
        &mut self.wires
    }

    fn sight(&self) -> Sight {
        self.rings.borrow().sight(self.cell)
    }

    fn agreed(&mut self, live: &LiveSet) {
        self.rings.borrow_mut().agreed[usize::from(self.cell.0)].push(*live);
    }

    fn park(&mut self) {
        self.rings.borrow_mut().stop(self.cell);
    }

    fn settled(&mut self, _: Epoch) {}

    fn is_fenced(&self, cell: CellId) -> bool {
        self.rings.borrow().is_dead(cell)
    }

    fn switch(&mut self, part: Part, on: bool) {
        self.rings.borrow_mut().switched.push((part, on, self.now()));
        // A cell of one node is the node's number.
        if let (Part::Node(node), false) = (part, on) {
            self.rings.borrow_mut().stop(CellId(node.0));
        }
    }

    fn has_failed(&self, part: Part) -> bool {
        let rings = self.rings.borrow();
        rings.switched.iter().rfind(|(of, ..)| *of == part).is_some_and(|(_, on, _)| !on)
    }

    fn ticks(&self, cpu: CpuId) -> u64 {
        let stands = self.rings.borrow().switched.iter().any(|(part, ..)| *part == Part::Cpu(cpu));
        if stands { 1 } else { 2 + self.now() / TICK_NS }
    }

    fn kick(&mut self, cpu: CpuId) {
        let world = &mut *self.world.borrow_mut();
        world.kicked[usize::from(cpu.0 - self.first_cpu)] = true;
        world.kicks += 1;
    }

    fn copy_page(&mut self, from: Mpa, to: Mpa) -> bool {
        let stamped = &mut self.world.borrow_mut().stamped;
        let data = stamped[&from];
        stamped.insert(to, data);
        true
    }

    fn spoil_page(&mut self, mpa: Mpa) {
        self.world.borrow_mut().stamped.remove(&mpa);
    }

    fn self_check(&self) -> String {
        "simulated: nothing to compare\n".into()
    }

    fn cells(&self, _: bool) -> String {
        "simulated: no cells to show\n".into()
    }

    fn nodes(&self) -> String {
        "simulated: no nodes to show\n".into()
    }

    fn write(&mut self, to: u16, t_ns: u64, bytes: &[u8]) {
        assert!(bytes.len() <= RECORD_MAX);
        let world = &mut *self.world.borrow_mut();
        assert_eq!(t_ns, world.now);
        match to {
            stream::EVENTS => world.events.push(Event::decode(bytes).unwrap()),
            stream::OUTCOME => {
                let again = world.outcome.replace(Outcome::decode(bytes).unwrap());
                assert_eq!(again, None, "a run ends once");
            }
            _ => world.streams.entry(to).or_default().extend(bytes),
        }
    }

    fn leads(&self) -> bool {
        self.rings.borrow().leads(self.cell)
    }

    fn ending(&mut self) {
        let leads = self.leads();
        self.rings.borrow_mut().ending |= leads;
    }

    fn idle(&mut self, idle: bool) -> bool {
        self.rings.borrow_mut().idle(self.cell, idle)
    }

    fn report(&mut self, stream: u16, t_ns: u64, bytes: &[u8]) -> bool {
        self.rings.borrow_mut().report(self.cell, (stream, t_ns, bytes.to_vec()))
    }

    fn take_order(&mut self) -> Option<(u16, Vec<u8>)> {
        let order = self.rings.borrow_mut().take_order(self.cell);
        order.map(|(stream, _, bytes)| (stream, bytes))
    }

    fn order(&mut self, cell: CellId, stream: u16, t_ns: u64, bytes: &[u8]) -> bool {
        assert!(self.leads() && cell != self.cell);
        self.rings.borrow_mut().order(cell, (stream, t_ns, bytes.to_vec()))
    }

    fn take_report(&mut self, cell: CellId) -> Option<(u16, u64, Vec<u8>)> {
        assert!(self.leads());
        self.rings.borrow_mut().take_report(cell)
    }

    fn lead(&mut self) {
        assert!(self.leads());
    }

    fn script(&self) -> Vec<Step> {
        self.script.clone().expect("a script to play")
    }

    fn note(&mut self, cell: CellId, note: Note, bytes: &[u8]) -> bool {
        let rings = &mut *self.rings.borrow_mut();
        assert!(cell == self.cell || rings.is_dead(cell), "a note of one that lives is its own");
        rings.notes.insert((cell, note), bytes.to_vec());
        true
    }

    fn noted(&self, cell: CellId, note: Note) -> Vec<u8> {
        self.rings.borrow().notes.get(&(cell, note)).cloned().unwrap_or_default()
    }
}

/// A machine being put together.
pub struct Build {
    vms: Vec<(config::Vm, Program)>,
    pages: u64,
    seed: u64,
    stay: bool,
    cpus: u8,
}

impl Build {
    /// A machine with so many pages of memory on two nodes, 16 of them the monitor's.
    pub fn new(pages: u64) -> Self {
        Self { vms: Vec::new(), pages, seed: 1, stay: false, cpus: 1 }
    }

    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// So many CPUs, two a node.
    pub fn cpus(mut self, cpus: u8) -> Self {
        self.cpus = cpus;
        self
    }

    /// The run does not end with its VMs.
    pub fn stay(mut self) -> Self {
        self.stay = true;
        self
    }

    pub fn vm(self, name: &str, pages: u64, program: Program) -> Self {
        self.vm_with(name, pages, program, |_| {})
    }

    pub fn vm_with(
        mut self,
        name: &str,
        pages: u64,
        program: Program,
        change: impl FnOnce(&mut config::Vm),
    ) -> Self {
        let mut vm = config::Vm {
            name: name.into(),
            kernel: Blob::default(),
            initrd: Blob::default(),
            cmdline: String::new(),
            vcpus: 1,
            memory: pages * PAGE_SIZE,
            cells: 1,
            placement: Placement::Local,
            weight: 100,
            budget: 0,
            clock_scale: 1,
            restart: Restart::Never,
            autostart: true,
            engine: config::Engine::Auto,
            cpu: config::Cpu::Honeycomb,
        };
        change(&mut vm);
        self.vms.push((vm, program));
        self
    }

    /// The machine, booted.
    pub fn boot(self, script: Option<Vec<Step>>) -> Run {
        let rings = Rc::new(RefCell::new(Rings::new(1)));
        self.boot_cell(CellId(0), &rings, script, None)
    }

    /// The configuration of a machine of so many cells.
    fn config(&self, cells: usize, scripted: bool) -> Config {
        Config {
            machine: config::Machine {
                nodes: cells as u32,
                cpus_per_node: u32::from(self.cpus),
                window_per_node: 0,
                slice_per_node: self.pages * PAGE_SIZE,
                monitor_per_node: abi::map::KEPT_USUAL,
                icount: true,
                seed: self.seed,
                console_rate: 1 << 20,
                epoch_s: 0,
                stay: self.stay,
            },
            cells: (0..cells).map(|i| config::Cell { nodes: vec![i as u8] }).collect(),
            vms: self.vms.iter().map(|(vm, _)| vm.clone()).collect(),
            script_len: u64::from(scripted),
        }
    }

    /// One of its cells, booted, with the script if it has one to play; as one that is back if the others have let it in
    /// as one of the `members`.
    fn boot_cell(
        self,
        cell: CellId,
        rings: &Rc<RefCell<Rings>>,
        script: Option<Vec<Step>>,
        members: Option<(Membership, u64)>,
    ) -> Run {
        let cells = rings.borrow().cells();
        let config = self.config(cells, script.is_some());
        let programs = self.vms.into_iter().map(|(_, program)| program).collect();
        // Two nodes of a cell that is alone; of others one each.
        let (low, high) = if cells == 1 {
            (self.pages / 3, self.pages - self.pages / 3)
        } else {
            (self.pages, 0)
        };
        let base = config.layout().slice_of(NodeId(cell.0)).start;
        let region = |node, base: u64, pages| Region {
            node: NodeId(node),
            kind: memmap::Kind::Slice,
            range: Mpa(base)..Mpa(base + pages * PAGE_SIZE),
        };
        let regions = [region(cell.0, base, low), region(cell.0 + 1, 0xa000_0000, high)];
        let regions = &regions[..if high == 0 { 1 } else { 2 }];
        let monitor = [Mpa(base)..Mpa(base + 0x1_0000)];
        let memmap = Memmap::new(regions, &monitor).unwrap();
        let kicked = vec![false; usize::from(self.cpus)];
        let now = members.as_ref().map_or(0, |(_, now)| *now);
        let world = Rc::new(RefCell::new(World { now, kicked, ..World::default() }));
        let wires = Wires { me: cell, rings: rings.clone() };
        let first_cpu = cell.0 * self.cpus;
        let rings = rings.clone();
        let sim = Sim { world: world.clone(), cell, rings, programs, script, wires, first_cpu };
        let node = |i| if cells == 1 { NodeId(i / 2) } else { NodeId(cell.0) };
        let cpus: Vec<(CpuId, NodeId)> =
            (0..self.cpus).map(|i| (CpuId(first_cpu + i), node(i))).collect();
        let members =
            members.map_or_else(|| Membership::at_start(cell, &config), |(members, _)| members);
        let mut cell = LocalCell::new(sim, cell, &cpus, &config, memmap, members);
        cell.boot();
        let cpus = cpus.iter().map(|_| Cpu::Awake).collect();
        let rng = Rng::new(!self.seed);
        let tick = (cells > 1).then_some(TICK_NS);
        Run { cell, world, cpus, first_cpu, rng, over: None, tick, asked: BTreeMap::new(), told: 0 }
    }
}

/// What a CPU does.
#[derive(Debug)]
enum Cpu {
    /// It asks what to do.
    Awake,
    Asleep(Option<u64>),
    /// It runs a VCPU, between these times if nobody kicks it.
    Running(Turn<ToyVcpu>, u64, u64),
}

/// A booted machine.
pub struct Run {
    pub cell: LocalCell<Sim>,
    pub world: Rc<RefCell<World>>,
    cpus: Vec<Cpu>,
    rng: Rng,
    over: Option<Outcome>,
    /// How long a CPU sleeps at most.
    tick: Option<u64>,
    /// What CPUs have asked the homes of VMs that visit: which page.
    asked: BTreeMap<CpuId, (u32, Arc<Replica>)>,
    /// How often they were told.
    pub told: u64,
    first_cpu: u8,
}

impl Run {
    /// Runs until machine time `until` or the end of the run, whichever is first. Then no VCPU is away.
    pub fn run(&mut self, until: u64) -> Option<Outcome> {
        let outcome = self.run_on(until);
        self.come_back();
        outcome
    }

    /// As [`Self::run`], but VCPUs may still run.
    pub fn run_on(&mut self, until: u64) -> Option<Outcome> {
        while self.over.is_none() {
            let next = (0..self.cpus.len()).map(|cpu| self.due(cpu)).min()?;
            if next >= until {
                let now = self.now();
                self.world.borrow_mut().now = now.max(until);
                break;
            }
            self.once(next);
        }
        self.over.clone()
    }

    /// What happens next, at the time `next`, happens.
    fn once(&mut self, next: u64) {
        self.world.borrow_mut().now = next;
        let due: Vec<usize> = (0..self.cpus.len()).filter(|&cpu| self.due(cpu) == next).collect();
        let cpu = due[self.rng.below(due.len() as u64) as usize];
        self.act(cpu);
    }

    /// The next that happens does.
    pub fn go_on(&mut self) {
        let next = (0..self.cpus.len()).map(|cpu| self.due(cpu)).min();
        if let Some(next) = next.filter(|&t| t != u64::MAX) {
            self.once(next);
        }
    }

    /// Has every CPU bring back what it runs.
    pub fn come_back(&mut self) {
        for cpu in 0..self.cpus.len() {
            if matches!(self.cpus[cpu], Cpu::Running(..)) {
                self.world.borrow_mut().kicked[cpu] = true;
                self.act(cpu);
            }
        }
    }

    /// When something happens on a CPU.
    fn due(&self, cpu: usize) -> u64 {
        let now = self.now();
        let kicked = self.world.borrow().kicked[cpu];
        match &self.cpus[cpu] {
            Cpu::Awake => now,
            _ if kicked => now,
            Cpu::Asleep(until) => until.unwrap_or(u64::MAX),
            Cpu::Running(.., end) => (*end).max(now),
        }
    }

    /// A CPU asks a VM's home where a page lies.
    fn ask(&mut self, cpu: CpuId, replica: Arc<Replica>) {
        let page = self.rng.below(u64::from(replica.pages()) + 1) as u32;
        let whom = Whom { vm: replica.vm(), life: replica.life() };
        let ask = Ask::Page { page, node: NodeId(0) };
        if !self.asked.contains_key(&cpu)
            && self.cell.ask_for(cpu, replica.home(), whom, &ask).is_ok()
        {
            self.asked.insert(cpu, (page, replica));
        }
    }

    /// It is told.
    fn hear(&mut self, cpu: CpuId) {
        let Some(told) = self.cell.answer_for(cpu) else { return };
        let (page, replica) = self.asked.remove(&cpu).expect("it has asked");
        if let Some(Told::Pages(places)) = told {
            let known: Vec<_> = (page..replica.pages()).map(|page| replica.get(page)).collect();
            assert!(!known.is_empty() && replica.learn(page, places.as_slice()).is_some());
            for (page, before) in (page..).zip(known) {
                let still = before.is_none_or(|before| replica.get(page) == Some(before));
                assert!(still, "a page lies still");
            }
            self.told += 1;
        }
    }

    fn talk_and_step(&mut self, cpu: CpuId) -> Next<ToyVcpu> {
        if cpu == CpuId(self.first_cpu) {
            self.cell.look();
            if self.cell.machine().rings.borrow().ending {
                self.cell.end_run();
            }
        }
        self.cell.talk(CellSet::ALL);
        self.cell.step(cpu)
    }

    fn act(&mut self, cpu: usize) {
        let id = CpuId(self.first_cpu + cpu as u8);
        let now = self.now();
        self.hear(id);
        self.world.borrow_mut().kicked[cpu] = false;
        match std::mem::replace(&mut self.cpus[cpu], Cpu::Awake) {
            Cpu::Running(mut turn, from, end) => {
                // It ends by itself, or it was kicked before.
                let exit = turn.vcpu.run(now.min(end));
                if let Some(replica) = turn.vcpu.visits() {
                    self.ask(id, replica.clone());
                }
                self.cell.done(id, turn, from, now, exit);
            }
            Cpu::Awake | Cpu::Asleep(_) => match self.talk_and_step(id) {
                Next::Run(mut turn) => {
                    let end = turn.vcpu.begin(turn.until);
                    self.cpus[cpu] = Cpu::Running(turn, now, end);
                }
                Next::Wait(until) => {
                    assert!(until.is_none_or(|t| t > now), "a wait that is over");
                    let tick = self.tick.map(|tick| now + tick);
                    self.cpus[cpu] = Cpu::Asleep(until.into_iter().chain(tick).min());
                }
                Next::Over(outcome) => {
                    if self.cell.machine().leads() {
                        assert_eq!(self.world.borrow().outcome.as_ref(), Some(&outcome));
                    }
                    self.over = Some(outcome);
                }
            },
        }
    }

    pub fn now(&self) -> u64 {
        self.world.borrow().now
    }

    /// What a console has printed so far.
    pub fn printed(&self, console: u16) -> String {
        let world = self.world.borrow();
        let bytes = world.streams.get(&console).map_or(&[][..], Vec::as_slice);
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// Types a line at the monitor; what it answers, without echo and prompt.
    pub fn command(&mut self, line: &str) -> String {
        let before = self.printed(stream::MONITOR).len();
        self.cell.input(stream::MONITOR, format!("{line}\n").as_bytes());
        let printed = self.printed(stream::MONITOR);
        let answer = printed[before..].strip_prefix(&format!("{line}\r\n")).expect("an echo");
        answer.strip_suffix("honeycomb> ").unwrap_or(answer).replace("\r\n", "\n")
    }

    /// The events so far, without their times: `start NAME`, `NAME CAUSE`.
    pub fn story(&self) -> Vec<String> {
        let world = self.world.borrow();
        for (i, event) in world.events.iter().enumerate() {
            assert_eq!(event.seq, i as u64);
        }
        let tell = |event: &Event| {
            Some(match &event.kind {
                Kind::MonitorUp => "up".into(),
                Kind::VmStart { vm } => format!("start {vm}"),
                Kind::VmEnd { vm, cause } => format!("{vm} {}", cause.as_str()),
                Kind::VmPaused { vm } => format!("pause {vm}"),
                Kind::VmResumed { vm } => format!("resume {vm}"),
                Kind::VmDestroyed { vm } => format!("destroy {vm}"),
                Kind::VcpuMigrated { vm, vcpu, from, to } => {
                    format!("move {vm}.{vcpu} {from} {to}")
                }
                Kind::Panic { message } => message.to_string(),
                Kind::CellLost { lost } => format!("cell {lost} lost"),
                Kind::Fault { what } => format!("fault {what}"),
                Kind::CellBack { back } => format!("cell {back} back"),
                Kind::Repair { what } => format!("repair {what}"),
                Kind::LinesDiscarded { lines } => format!("{lines} lines"),
                // It tells nothing but times.
                Kind::Recovered { .. } => return None,
            })
        };
        world.events.iter().filter_map(tell).collect()
    }
}

/// The console of VM `n`.
pub fn console(n: u16) -> u16 {
    vm_stream(VmId(n))
}
