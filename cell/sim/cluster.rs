//! Several simulated cells with a console between them.

use super::toy::Shared;
use super::wires::{Key, Line, Wires};
use super::{Build, Program, Run};
use abi::ring::stream;
use abi::script::{Outcome, Step};
use abi::{CellId, VmId};
use cell::fault::Part;
use cell::talk::{CellSet, LiveSet, Sight};
use cell::{Membership, Note};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

/// How far the cells' clocks are apart at most.
const STEP_NS: u64 = 100_000;

type Record = (u16, u64, Vec<u8>);

/// What lies in low RAM: the player rings, and who lives.
#[derive(Debug)]
pub struct Rings {
    reports: Vec<VecDeque<Record>>,
    orders: Vec<VecDeque<Record>>,
    dead: Vec<bool>,
    idle: Vec<bool>,
    /// Records that a ring has room for.
    room: usize,
    /// How often there was none.
    full: usize,
    /// The cells' mailboxes.
    pub lines: HashMap<Key, Line>,
    /// What VCPUs of a life of a VM share.
    pub toys: HashMap<(String, u64), Rc<RefCell<Shared>>>,
    /// Parcels that were made, and whose memory they are in.
    pub parcels: Vec<(CellId, Vec<u64>)>,
    /// Of each cell: the dead ones that it does not see yet.
    unseen: Vec<CellSet>,
    /// What was switched off and on (`true`), and when.
    pub switched: Vec<(Part, bool, u64)>,
    /// The leader ends the run.
    pub ending: bool,
    /// Of each cell: the live sets that it has agreed to.
    pub agreed: Vec<Vec<LiveSet>>,
    /// What cells have noted.
    pub notes: HashMap<(CellId, Note), Vec<u8>>,
    /// A cell that lives, but is not let in yet.
    pub absent: Option<usize>,
}

impl Rings {
    pub fn new(cells: usize) -> Self {
        let rings = || vec![VecDeque::new(); cells];
        let (dead, idle) = (vec![false; cells], vec![false; cells]);
        Self {
            reports: rings(),
            orders: rings(),
            dead,
            idle,
            room: 1000,
            full: 0,
            lines: HashMap::new(),
            toys: HashMap::new(),
            parcels: Vec::new(),
            unseen: vec![CellSet::NONE; cells],
            switched: Vec::new(),
            ending: false,
            agreed: vec![Vec::new(); cells],
            notes: HashMap::new(),
            absent: None,
        }
    }

    pub fn cells(&self) -> usize {
        self.dead.len()
    }

    pub fn is_dead(&self, cell: CellId) -> bool {
        self.dead[usize::from(cell.0)]
    }

    /// How the others look from a cell.
    pub fn sight(&self, from: CellId) -> Sight {
        let mut sight = Sight { reached: CellSet::first(self.cells()), ..Sight::default() };
        for cell in sight.reached.minus(self.unseen[usize::from(from.0)]) {
            if self.is_dead(cell) {
                sight.dead = sight.dead.with(cell);
            }
        }
        sight
    }

    /// A cell stops.
    pub fn stop(&mut self, cell: CellId) {
        self.dead[usize::from(cell.0)] = true;
    }

    /// Whether a cell lives, and has been let in.
    pub fn takes_part(&self, cell: usize) -> bool {
        !self.dead[cell] && self.absent != Some(cell)
    }

    /// Whether a cell leads, for all that it has agreed to.
    pub fn leads(&self, cell: CellId) -> bool {
        let all = CellSet::first(self.cells());
        let live = self.agreed[usize::from(cell.0)].last().map_or(all, |live| live.cells);
        live.lowest() == Some(cell)
    }

    pub fn leader(&self) -> CellId {
        CellId((0..self.cells()).find(|cell| self.takes_part(*cell)).expect("a cell lives") as u8)
    }

    pub fn idle(&mut self, cell: CellId, idle: bool) -> bool {
        self.idle[usize::from(cell.0)] = idle;
        let all = CellSet::first(self.cells());
        let live = self.agreed[usize::from(cell.0)].last().map_or(all, |live| live.cells);
        live.into_iter().all(|cell| self.idle[usize::from(cell.0)]) && self.leads(cell)
    }

    fn put(ring: &mut VecDeque<Record>, room: usize, full: &mut usize, record: Record) -> bool {
        let fits = ring.len() < room;
        if fits {
            ring.push_back(record);
        } else {
            *full += 1;
        }
        fits
    }

    pub fn report(&mut self, from: CellId, record: Record) -> bool {
        Self::put(&mut self.reports[usize::from(from.0)], self.room, &mut self.full, record)
    }

    pub fn order(&mut self, to: CellId, record: Record) -> bool {
        Self::put(&mut self.orders[usize::from(to.0)], self.room, &mut self.full, record)
    }

    pub fn take_report(&mut self, of: CellId) -> Option<Record> {
        self.reports[usize::from(of.0)].pop_front()
    }

    pub fn take_order(&mut self, of: CellId) -> Option<Record> {
        self.orders[usize::from(of.0)].pop_front()
    }
}

/// Several cells, each with its own clock; they go on together.
pub struct Cluster {
    pub cells: Vec<Run>,
    rings: Rc<RefCell<Rings>>,
    now: u64,
    script: Option<Vec<Step>>,
}

impl Cluster {
    /// So many cells of 64 pages, booted, with VMs of 8 pages each in its home. `room`: of each ring, in records.
    pub fn boot(
        cells: usize,
        room: usize,
        vms: &[(&str, u8, Program)],
        script: Option<Vec<Step>>,
    ) -> Self {
        let all = (1u8 << cells) - 1;
        let build = || {
            let build = vms.iter().fold(Build::new(64), |build, (name, home, program)| {
                // A configuration's arithmetic needs megabytes: what is permitted decides.
                build.vm_with(name, 8, program.clone(), |vm| vm.cells = all & !0 << home)
            });
            if script.is_some() { build } else { build.stay() }
        };
        Self::of(cells, room, build, script.clone())
    }

    /// So many cells, booted, each of a machine that is put together so.
    pub fn of(
        cells: usize,
        room: usize,
        build: impl Fn() -> Build,
        script: Option<Vec<Step>>,
    ) -> Self {
        let mut rings = Rings::new(cells);
        rings.room = room;
        let rings = Rc::new(RefCell::new(rings));
        let boot =
            |cell: usize| build().boot_cell(CellId(cell as u8), &rings, script.clone(), None);
        let cells = (0..cells).map(boot).collect();
        Self { cells, rings, now: 0, script }
    }

    /// A cell that has died boots again, for the `incarnation`th time and of a machine that is put together so, and is let in.
    pub fn revive(&mut self, cell: usize, incarnation: u16, build: Build) {
        let me = CellId(cell as u8);
        {
            let rings = &mut *self.rings.borrow_mut();
            rings.dead[cell] = false;
            rings.idle[cell] = false;
            rings.orders[cell].clear();
            rings.lines.retain(|(reader, ..), _| *reader != me);
        }
        let config = build.config(self.cells.len(), self.script.is_some());
        let mut members = Membership::back(me, &config, incarnation, self.now);
        let mut wires = Wires { me, rings: self.rings.clone() };
        self.rings.borrow_mut().absent = Some(cell);
        loop {
            let sight = self.rings.borrow().sight(me);
            if let Some(live) = members.be_let_in(self.now, &sight, &mut wires) {
                assert!(live.cells.has(me));
                self.rings.borrow_mut().agreed[cell].push(live);
                break;
            }
            self.run_for(STEP_NS);
        }
        self.rings.borrow_mut().absent = None;
        let members = Some((members, self.now));
        self.cells[cell] = build.boot_cell(me, &self.rings, self.script.clone(), members);
    }

    pub fn lives(&self, cell: usize) -> bool {
        self.rings.borrow().takes_part(cell)
    }

    /// A cell dies, with all that it knew.
    pub fn kill(&mut self, cell: usize) {
        self.rings.borrow_mut().stop(CellId(cell as u8));
    }

    /// A cell does not see that these are dead.
    pub fn hide(&mut self, from: usize, dead: CellSet) {
        self.rings.borrow_mut().unseen[from] = dead;
    }

    /// The live sets that a cell has agreed to.
    pub fn agreed(&self, cell: usize) -> Vec<LiveSet> {
        self.rings.borrow().agreed[cell].clone()
    }

    /// Runs until this time or the end of the run; as a machine's cells do, all end when one that leads has.
    pub fn run(&mut self, until: u64) -> Option<Outcome> {
        let leader = usize::from(self.rings.borrow().leader().0);
        while self.now < until {
            self.now += STEP_NS;
            for cell in 0..self.cells.len() {
                if !self.lives(cell) {
                    continue;
                }
                self.cells[cell].run_on(self.now);
                if cell == leader && self.cells[leader].over.is_some() {
                    return self.end(leader);
                }
            }
        }
        None
    }

    fn end(&mut self, leader: usize) -> Option<Outcome> {
        for cell in (0..self.cells.len()).filter(|cell| *cell != leader) {
            self.cells[cell].cell.end_run();
        }
        let others = |cells: &[Run], cell: &usize| *cell == leader || cells[*cell].over.is_some();
        while !(0..self.cells.len()).all(|cell| others(&self.cells, &cell) || !self.lives(cell)) {
            self.now += STEP_NS;
            for cell in 0..self.cells.len() {
                if self.lives(cell) && cell != leader {
                    self.cells[cell].run_on(self.now);
                }
            }
            self.cells[leader].cell.listen();
        }
        self.cells[leader].cell.listen();
        self.cells[leader].over.clone()
    }

    pub fn run_for(&mut self, ns: u64) {
        let until = self.now + ns;
        assert_eq!(self.run(until), None);
    }

    /// What was switched off and on, and when.
    pub fn switched(&self) -> Vec<(Part, bool, u64)> {
        self.rings.borrow().switched.clone()
    }

    /// What the leader's monitor console has printed.
    pub fn monitor(&self) -> String {
        let leader = usize::from(self.rings.borrow().leader().0);
        self.cells[leader].printed(stream::MONITOR)
    }

    /// Types at the leader.
    pub fn type_at(&mut self, console: u16, text: &str) {
        let leader = usize::from(self.rings.borrow().leader().0);
        self.cells[leader].cell.input(console, text.as_bytes());
    }

    /// Types a line at the monitor; what is printed until the next prompt, and how long that took.
    pub fn command(&mut self, line: &str) -> (String, u64) {
        let before = self.monitor().len();
        let start = self.now;
        self.type_at(stream::MONITOR, &format!("{line}\n"));
        loop {
            let text = self.monitor()[before..].to_string();
            if let Some(text) = text.strip_suffix("honeycomb> ") {
                let text = text.strip_prefix(&format!("{line}\r\n")).expect("an echo");
                return (text.replace("\r\n", "\n"), self.now - start);
            }
            self.run_for(STEP_NS);
        }
    }

    /// How often a ring was full.
    pub fn full(&self) -> usize {
        self.rings.borrow().full
    }

    /// What VM `vm` has printed in cell `cell`.
    pub fn printed(&self, cell: usize, vm: u16) -> String {
        self.cells[cell].printed(abi::ring::vm_stream(VmId(vm)))
    }
}
