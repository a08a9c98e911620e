//! A simulated machine: the clock stands unless a guest runs or the cell waits, memory remembers who
//! has which page, guests are small programs.

use abi::config::{self, Blob, Config, Placement, Restart};
use abi::event::{Cause, Event, Kind};
use abi::ring::{RECORD_MAX, stream, vm_stream};
use abi::script::{Outcome, Step};
use abi::{CellId, Mpa, NodeId, PAGE_SIZE, VmId};
use cell::memmap::{self, Memmap, Region};
use cell::pmap::Pmap;
use cell::vm::{Exit, Guest};
use cell::{CreateError, LocalCell, Machine, Next};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

/// What a guest does with its life. Times are nanoseconds.
#[derive(Clone, Debug)]
pub enum Program {
    /// Runs for ever and says nothing.
    Loop,
    /// Stops at once whenever it is run, without any time passing.
    Refuse,
    /// Prints this line every millisecond of its own running time.
    Print(&'static str),
    /// Runs for so long and ends for this cause.
    Live(u64, Cause),
    /// Prints `tick N` at every multiple of a period of machine time and waits in between.
    Tick(u64),
    /// Prints a prompt, waits, and answers each line with `you said LINE`; ends at `exit`. Its UART
    /// takes four bytes at a time.
    Shell,
    /// Its image is no good.
    Bad,
    /// The monitor's heap has no room for it.
    Big,
}

/// What the machine knows.
#[derive(Debug, Default)]
pub struct World {
    pub now: u64,
    /// Everything written to the host, by stream.
    pub streams: BTreeMap<u16, Vec<u8>>,
    pub events: Vec<Event>,
    pub outcome: Option<Outcome>,
    /// Which pages hold whose data; cleared pages are absent.
    stamped: HashMap<Mpa, VmId>,
    /// Time each VM has run.
    pub ran: BTreeMap<VmId, u64>,
}

/// The machine below the cell.
#[derive(Clone, Debug)]
pub struct Sim {
    pub world: Rc<RefCell<World>>,
    programs: Vec<Program>,
}

/// A guest in the simulation.
#[derive(Debug)]
pub struct Toy {
    id: VmId,
    program: Program,
    world: Rc<RefCell<World>>,
    pmap: Arc<Pmap>,
    touched: u32,
    ran: u64,
    ticks: u64,
    uart: VecDeque<u8>,
    line: Vec<u8>,
    out: Vec<u8>,
    greeted: bool,
}

impl Machine for Sim {
    type Guest = Toy;

    fn now(&self) -> u64 {
        self.world.borrow().now
    }

    fn heap(&self) -> (usize, usize) {
        (0, 1 << 20)
    }

    fn create(&mut self, id: VmId, _: &config::Vm, pmap: &Arc<Pmap>) -> Result<Toy, CreateError> {
        assert_eq!(pmap.resident(), 0, "nothing is touched yet");
        let program = self.programs[usize::from(id.0)].clone();
        let mut toy = Toy {
            id,
            program,
            world: self.world.clone(),
            pmap: pmap.clone(),
            touched: 0,
            ran: 0,
            ticks: 0,
            uart: VecDeque::new(),
            line: Vec::new(),
            out: Vec::new(),
            greeted: false,
        };
        // Its image.
        toy.touch();
        match toy.program {
            Program::Bad => Err(CreateError::BadImage("its kernel is no ELF".into())),
            Program::Big => Err(CreateError::NoMemory("the heap is too full".into())),
            _ => Ok(toy),
        }
    }

    fn self_check(&self) -> String {
        "simulated: nothing to compare\n".into()
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
}

impl Toy {
    /// Uses a page that it has not used before, if it has one, from its last to its first.
    fn touch(&mut self) {
        let Some(page) = self.pmap.pages().checked_sub(self.touched + 1) else { return };
        self.touched += 1;
        let stamped = &mut self.world.borrow_mut().stamped;
        let mpa = self.pmap.touch(page, NodeId(0), |mpa| _ = stamped.remove(&mpa));
        let before = stamped.insert(mpa.expect("a promised page"), self.id);
        assert_eq!(before, None, "another VM's data");
    }

    fn spend(&mut self, ns: u64) {
        let world = &mut *self.world.borrow_mut();
        world.now += ns;
        self.ran += ns;
        *world.ran.entry(self.id).or_default() += ns;
    }

    fn now(&self) -> u64 {
        self.world.borrow().now
    }
}

impl Guest for Toy {
    fn run(&mut self, until: u64) -> Exit {
        self.touch();
        for (_, mpa) in self.pmap.iter() {
            assert_eq!(self.world.borrow().stamped.get(&mpa), Some(&self.id), "its page is taken");
        }
        let left = until.saturating_sub(self.now());
        match self.program.clone() {
            Program::Loop => self.spend(left),
            Program::Refuse => {}
            Program::Print(line) => {
                let before = self.ran / 1_000_000;
                self.spend(left);
                for _ in before..self.ran / 1_000_000 {
                    self.out.extend_from_slice(line.as_bytes());
                }
            }
            Program::Live(ns, cause) => {
                self.spend(left.min(ns - self.ran));
                if self.ran == ns {
                    let report = if cause.is_normal() { "" } else { "pc 0x80001234: sll\nwhy" };
                    return Exit::Ended { cause, report: report.into() };
                }
            }
            Program::Tick(period) => {
                self.spend(left.min(20_000));
                let due = self.now() / period;
                if due > self.ticks {
                    self.ticks = due;
                    self.out.extend_from_slice(format!("tick {due}\r\n").as_bytes());
                }
                return Exit::Idle { until: Some((self.ticks + 1) * period) };
            }
            Program::Shell => return self.shell(left),
            Program::Bad | Program::Big => unreachable!("it can't be made"),
        }
        Exit::Slice
    }

    fn input(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(4 - self.uart.len());
        self.uart.extend(&bytes[..taken]);
        taken
    }

    fn take_output(&mut self, sink: &mut dyn FnMut(&[u8])) {
        sink(&std::mem::take(&mut self.out));
    }

    fn instructions(&self) -> u64 {
        self.ran
    }

    fn counters(&self, each: &mut dyn FnMut(&'static str, u64)) {
        each("ticks", self.ticks);
    }
}

impl Toy {
    fn shell(&mut self, left: u64) -> Exit {
        self.spend(left.min(1000));
        if !std::mem::replace(&mut self.greeted, true) {
            self.out.extend_from_slice(b"guest: shell ready\r\n# ");
        }
        while let Some(byte) = self.uart.pop_front() {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line = String::from_utf8(std::mem::take(&mut self.line)).unwrap();
            if line == "exit" {
                return Exit::Ended { cause: Cause::PowerOff, report: String::new() };
            }
            self.out.extend_from_slice(format!("{line}\r\nyou said {line}\r\n# ").as_bytes());
        }
        Exit::Idle { until: None }
    }
}

/// A machine being put together.
pub struct Build {
    vms: Vec<(config::Vm, Program)>,
    pages: u64,
    seed: u64,
    stay: bool,
}

impl Build {
    /// A machine with so many pages of memory on two nodes, 16 of them the monitor's.
    pub fn new(pages: u64) -> Self {
        Self { vms: Vec::new(), pages, seed: 1, stay: false }
    }

    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
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
        let (vms, programs) = self.vms.into_iter().unzip();
        let config = Config {
            machine: config::Machine {
                nodes: 1,
                cpus_per_node: 1,
                window_per_node: 0,
                slice_per_node: self.pages * PAGE_SIZE,
                icount: true,
                seed: self.seed,
                console_rate: 1 << 20,
                epoch_s: 0,
                stay: self.stay,
            },
            cells: vec![config::Cell { nodes: vec![0] }],
            vms,
            script_len: 0,
        };
        let (low, high) = (self.pages / 3, self.pages - self.pages / 3);
        let region = |node, base: u64, pages| Region {
            node: NodeId(node),
            kind: memmap::Kind::Slice,
            range: Mpa(base)..Mpa(base + pages * PAGE_SIZE),
        };
        let regions = [region(0, 0x9000_0000, low), region(1, 0xa000_0000, high)];
        let monitor = [Mpa(0x9000_0000)..Mpa(0x9001_0000)];
        let memmap = Memmap::new(&regions, &monitor).unwrap();
        let world = Rc::new(RefCell::new(World::default()));
        let sim = Sim { world: world.clone(), programs };
        let mut cell = LocalCell::new(sim, CellId(0), &config, memmap, script);
        cell.boot();
        Run { cell, world }
    }
}

/// A booted machine.
pub struct Run {
    pub cell: LocalCell<Sim>,
    pub world: Rc<RefCell<World>>,
}

impl Run {
    /// Runs until machine time `until` or the end of the run, whichever is first.
    pub fn run(&mut self, until: u64) -> Option<Outcome> {
        while self.now() < until {
            match self.cell.step() {
                Next::Again => {}
                Next::Wait(wake) => {
                    let wake = wake.unwrap_or(u64::MAX).min(until);
                    assert!(wake > self.now(), "a wait that is over");
                    self.world.borrow_mut().now = wake;
                }
                Next::Over(outcome) => {
                    assert_eq!(self.world.borrow().outcome.as_ref(), Some(&outcome));
                    return Some(outcome);
                }
            }
        }
        None
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
        let tell = |event: &Event| match &event.kind {
            Kind::MonitorUp => "up".into(),
            Kind::VmStart { vm } => format!("start {vm}"),
            Kind::VmEnd { vm, cause } => format!("{vm} {}", cause.as_str()),
            Kind::Panic { message } => message.clone(),
        };
        world.events.iter().map(tell).collect()
    }
}

/// The console of VM `n`.
pub fn console(n: u16) -> u16 {
    vm_stream(VmId(n))
}
