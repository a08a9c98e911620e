//! The machine below the cells that are searched: mailboxes, who runs, whose data lies in which page. What a cell does to it
//! takes effect one thing after the other, so that the cell can die between any two.

use super::rules::{Tale, Truth};
use super::toy::Toy;
use crate::fault::Part;
use crate::local::{CreateError, Created, Machine, Note};
use crate::pmap::{Pmap, Replica};
use crate::talk::line::{Commit, PAYLOAD_WORDS, SLOTS, Slot};
use crate::talk::{CellSet, Epoch, Fabric, Frozen, LiveSet, Sight, Unreachable};
use abi::config;
use abi::event::{Event, Kind};
use abi::layout::Layout;
use abi::ring::stream;
use abi::script::Step;
use abi::{CellId, CpuId, Mpa, VmId};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// What lies in a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Line(Commit, [u64; PAYLOAD_WORDS]);

/// Something that a cell does to the world outside of its own memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// It writes the payload of a line.
    Payload(CellId, Slot, [u64; PAYLOAD_WORDS]),
    /// It writes the commit word of a line.
    Commit(CellId, Slot, Commit),
    /// It switches the nodes of cells off.
    Fence(CellSet),
}

/// All that is not in a cell's own memory, and what is known of the truth.
#[derive(Debug)]
pub struct Ground {
    pub cells: usize,
    layout: Layout,
    /// By reader and writer.
    lines: Vec<Vec<[Line; SLOTS]>>,
    /// Cells that have power, and whose memory answers.
    pub up: CellSet,
    /// Dead cells of which a CPU may still run.
    pub running: CellSet,
    /// What the next look finds dead.
    pub found: CellSet,
    /// What each cell has done that has not taken effect yet.
    pub pending: Vec<Vec<Effect>>,
    /// What each cell has packed.
    parcels: Vec<Vec<Vec<u64>>>,
    /// What each cell has noted for those that go on without it.
    notes: BTreeMap<(CellId, u8), Vec<u8>>,
    /// The time of each cell.
    pub now: Vec<u64>,
    /// The last agreement of each cell.
    pub agreed: Vec<Option<LiveSet>>,
    /// The agreement of which each cell has said that nothing runs any more that depends on those who left.
    pub settled: Vec<Option<Epoch>>,
    /// How often each VM was made.
    pub made: BTreeMap<VmId, u64>,
    /// The cell that does something has parked, after so many effects.
    pub parks: Option<usize>,
    pub truth: Truth,
    /// A rule was broken.
    pub broken: Option<String>,
}

impl Ground {
    pub fn new(layout: Layout, cells: usize) -> Self {
        Self {
            cells,
            layout,
            lines: vec![vec![Default::default(); cells]; cells],
            up: CellSet::first(cells),
            running: CellSet::first(cells),
            found: CellSet::NONE,
            pending: vec![Vec::new(); cells],
            parcels: vec![Vec::new(); cells],
            notes: BTreeMap::new(),
            now: vec![1; cells],
            agreed: vec![None; cells],
            settled: vec![None; cells],
            made: BTreeMap::new(),
            parks: None,
            truth: Truth::new(cells),
            broken: None,
        }
    }

    /// Notes that a rule was broken: the first one counts.
    pub fn breaks(&mut self, rule: &str) {
        self.broken.get_or_insert_with(|| rule.into());
    }

    /// The cell whose memory a page is.
    pub fn home_of(&self, mpa: Mpa) -> Option<CellId> {
        self.layout.node_at(mpa.0).map(|node| self.layout.cell(node))
    }

    /// Whether a page is memory of a cell that has power.
    pub fn is_up(&self, mpa: Mpa) -> bool {
        self.home_of(mpa).is_some_and(|cell| self.up.has(cell))
    }

    /// All pages of the machine.
    pub fn pages(&self) -> impl Iterator<Item = Mpa> + use<> {
        let layout = self.layout;
        let pages = move |node| layout.slice_of(node).step_by(abi::PAGE_SIZE as usize).map(Mpa);
        layout.node_ids().flat_map(pages)
    }

    /// A cell stops, and what was in it is gone.
    pub fn die(&mut self, cell: CellId) {
        let index = usize::from(cell.0);
        self.up = self.up.without(cell);
        self.lines[index] = vec![Default::default(); self.cells];
        self.pending[index].clear();
        self.parcels[index].clear();
        self.truth.died(cell);
    }

    /// A dead cell has power again.
    pub fn reboot(&mut self, cell: CellId) {
        self.up = self.up.with(cell);
        let memory: Vec<Mpa> =
            self.pages().filter(|mpa| self.home_of(*mpa) == Some(cell)).collect();
        self.truth.clear(|mpa| memory.contains(&mpa));
        self.truth.lost.retain(|mpa| !memory.contains(mpa));
        self.running = self.running.with(cell);
        self.agreed[usize::from(cell.0)] = None;
    }

    /// The next thing that a cell has done takes effect.
    pub fn land(&mut self, from: CellId) {
        match self.pending[usize::from(from.0)].remove(0) {
            Effect::Payload(to, slot, payload) => {
                if let Some(line) = self.line(from, to, slot) {
                    line.1 = payload;
                }
            }
            Effect::Commit(to, slot, commit) => {
                if let Some(line) = self.line(from, to, slot) {
                    line.0 = commit;
                }
            }
            Effect::Fence(cells) => {
                for cell in cells.and(self.up) {
                    self.die(cell);
                }
            }
        }
    }

    fn line(&mut self, from: CellId, to: CellId, slot: Slot) -> Option<&mut Line> {
        let there = self.up.has(to);
        there.then(|| &mut self.lines[usize::from(to.0)][usize::from(from.0)][slot as usize])
    }

    /// What `from` says to `to` about who is alive.
    pub fn ballot(&self, from: CellId, to: CellId) -> Commit {
        self.lines[usize::from(to.0)][usize::from(from.0)][Slot::Ballot as usize].0
    }

    /// What a state of it is known by.
    pub fn digest(&self, hasher: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        (&self.lines, self.up, self.running, &self.pending, &self.parcels).hash(hasher);
        (&self.notes, &self.now, &self.agreed, &self.settled, &self.made, &self.truth).hash(hasher);
    }
}

/// What the cells and the search share.
pub type Shared = Rc<RefCell<Ground>>;

/// The machine below one cell.
#[derive(Clone, Debug)]
pub struct Bed {
    pub cell: CellId,
    pub ground: Shared,
    pub wires: Wires,
}

/// What carries lines between the cells.
#[derive(Clone, Debug)]
pub struct Wires {
    me: CellId,
    ground: Shared,
}

impl Bed {
    pub fn new(cell: CellId, ground: &Shared) -> Self {
        let wires = Wires { me: cell, ground: ground.clone() };
        Self { cell, ground: ground.clone(), wires }
    }

    /// The cell announces something; that a message came twice, or too early, is what its own check says.
    fn said(&self, bytes: &[u8]) {
        if bytes.windows(5).any(|word| word == b"WRONG") {
            self.ground.borrow_mut().breaks("a message was not the next");
        }
    }

    fn effect(&self, effect: Effect) {
        self.ground.borrow_mut().pending[usize::from(self.cell.0)].push(effect);
    }
}

impl Wires {
    fn write(&self, to: CellId, effect: Effect) -> Result<(), Unreachable> {
        let ground = &mut *self.ground.borrow_mut();
        if !ground.up.has(to) {
            return Err(Unreachable);
        }
        ground.pending[usize::from(self.me.0)].push(effect);
        Ok(())
    }

    fn read(&self, from: CellId, slot: Slot) -> Line {
        self.ground.borrow().lines[usize::from(self.me.0)][usize::from(from.0)][slot as usize]
    }
}

impl Fabric for Wires {
    fn commit(&self, from: CellId, slot: Slot) -> Commit {
        self.read(from, slot).0
    }

    fn payload(&self, from: CellId, slot: Slot, words: &mut [u64]) {
        words.copy_from_slice(&self.read(from, slot).1[..words.len()]);
    }

    fn put(&mut self, to: CellId, slot: Slot, words: &[u64]) -> Result<(), Unreachable> {
        let mut payload = [0; PAYLOAD_WORDS];
        payload[..words.len()].copy_from_slice(words);
        self.write(to, Effect::Payload(to, slot, payload))
    }

    fn publish(&mut self, to: CellId, slot: Slot, commit: Commit) -> Result<(), Unreachable> {
        self.write(to, Effect::Commit(to, slot, commit))
    }

    fn ring(&mut self, _: CellId) {}
}

impl Machine for Bed {
    type Guest = Toy;
    type Wires = Wires;

    fn now(&self) -> u64 {
        self.ground.borrow().now[usize::from(self.cell.0)]
    }

    fn leads(&self) -> bool {
        let ground = self.ground.borrow();
        let all = CellSet::first(ground.cells);
        let live = ground.agreed[usize::from(self.cell.0)].map_or(all, |live| live.cells);
        live.lowest() == Some(self.cell)
    }

    fn idle(&mut self, _: bool) -> bool {
        false
    }

    fn ending(&mut self) {}

    fn heap(&self) -> (usize, usize) {
        (0, 1)
    }

    fn create(
        &mut self,
        id: VmId,
        vm: &config::Vm,
        pmap: &Arc<Pmap>,
    ) -> Result<Created<Toy>, CreateError> {
        let serial = {
            let made = &mut self.ground.borrow_mut().made;
            let count = made.entry(id).or_default();
            *count += 1;
            *count
        };
        Ok(Toy::make(id, serial, vm.vcpus, &self.ground, pmap))
    }

    fn visit(
        &mut self,
        _: &config::Vm,
        replica: &Arc<Replica>,
        _: u64,
        shared: &[u64],
    ) -> Result<Toy, CreateError> {
        Ok(Toy::visit(replica.vm(), shared[0], &self.ground))
    }

    fn parcel(&mut self, words: &[u64]) -> Frozen {
        let parcels = &mut self.ground.borrow_mut().parcels[usize::from(self.cell.0)];
        parcels.push(words.to_vec());
        Frozen { at: Mpa(parcels.len() as u64 - 1), length: 8 * words.len() as u64 }
    }

    fn fetch(&self, from: CellId, frozen: Frozen) -> Result<Vec<u64>, Unreachable> {
        let ground = self.ground.borrow();
        let words = ground.parcels[usize::from(from.0)].get(frozen.at.0 as usize);
        words.filter(|_| ground.up.has(from)).cloned().ok_or(Unreachable)
    }

    fn wires(&mut self) -> &mut Wires {
        &mut self.wires
    }

    fn sight(&self) -> Sight {
        let ground = self.ground.borrow();
        let (dead, reached) = (ground.found, CellSet::first(ground.cells));
        Sight { reached, dead, ..Sight::default() }
    }

    fn agreed(&mut self, live: &LiveSet) {
        let index = usize::from(self.cell.0);
        let before = {
            let ground = &mut *self.ground.borrow_mut();
            let before = ground.agreed[index].replace(*live);
            if let Err(rule) = ground.truth.agrees(self.cell, *live, ground.up) {
                ground.breaks(&rule);
            }
            before
        };
        let all = CellSet::first(self.ground.borrow().cells);
        let gone = before.map_or(all, |before| before.cells).minus(live.cells);
        self.effect(Effect::Fence(gone));
    }

    fn settled(&mut self, epoch: Epoch) {
        self.ground.borrow_mut().settled[usize::from(self.cell.0)] = Some(epoch);
    }

    fn is_settled(&self) -> bool {
        let ground = self.ground.borrow();
        let agreed = ground.agreed[usize::from(self.cell.0)];
        let says = |cell: CellId| ground.settled[usize::from(cell.0)];
        agreed.is_none_or(|live| {
            let has = |cell| ground.up.has(cell) && says(cell) == Some(live.epoch);
            live.cells.into_iter().all(has)
        })
    }

    fn park(&mut self) {
        let ground = &mut *self.ground.borrow_mut();
        let effects = ground.pending[usize::from(self.cell.0)].len();
        ground.parks.get_or_insert(effects);
    }

    fn switch(&mut self, _: Part, _: bool) {}

    fn has_failed(&self, _: Part) -> bool {
        false
    }

    fn ticks(&self, _: CpuId) -> u64 {
        self.now()
    }

    fn is_fenced(&self, cell: CellId) -> bool {
        let ground = self.ground.borrow();
        !ground.up.has(cell) && !ground.running.has(cell)
    }

    fn lost_lines(&self) -> Vec<Mpa> {
        let ground = self.ground.borrow();
        ground.truth.lost.iter().copied().filter(|line| ground.is_up(*line)).collect()
    }

    fn discard(&mut self, line: Mpa) {
        self.ground.borrow_mut().truth.lost.remove(&line);
    }

    fn kick(&mut self, _: CpuId) {}

    fn copy_page(&mut self, from: Mpa, to: Mpa) -> bool {
        self.ground.borrow_mut().truth.copy(from, to);
        true
    }

    fn spoil_page(&mut self, mpa: Mpa) {
        self.ground.borrow_mut().truth.spoil(mpa);
    }

    fn self_check(&self) -> String {
        String::new()
    }

    fn cells(&self, _: bool) -> String {
        String::new()
    }

    fn nodes(&self) -> String {
        String::new()
    }

    fn write(&mut self, to: u16, _: u64, bytes: &[u8]) {
        if to != stream::EVENTS {
            return self.said(bytes);
        }
        let event = Event::decode(bytes).expect("an event");
        let tale = match event.kind {
            Kind::VmStart { vm } => {
                let vm = number(&vm);
                let serial = self.ground.borrow().made.get(&vm).copied();
                Tale::Started(vm, serial.unwrap_or_default())
            }
            Kind::VmEnd { vm, cause } => Tale::Ended(number(&vm), cause),
            Kind::CellLost { lost } => Tale::Lost(lost),
            Kind::CellBack { back } => Tale::Back(back),
            _ => return,
        };
        // After all that it has done before. An event that is not whole is as good as none, and what is noted of it belongs to it.
        let ground = &mut *self.ground.borrow_mut();
        while !ground.pending[usize::from(self.cell.0)].is_empty() {
            ground.land(self.cell);
        }
        if let Err(rule) = ground.truth.tell(self.cell, tale) {
            ground.breaks(&rule);
        }
    }

    fn report(&mut self, _: u16, _: u64, bytes: &[u8]) -> bool {
        self.said(bytes);
        true
    }

    fn take_order(&mut self) -> Option<(u16, Vec<u8>)> {
        None
    }

    fn order(&mut self, _: CellId, _: u16, _: u64, _: &[u8]) -> bool {
        true
    }

    fn take_report(&mut self, _: CellId) -> Option<(u16, u64, Vec<u8>)> {
        None
    }

    fn lead(&mut self) {}

    fn script(&self) -> Vec<Step> {
        Vec::new()
    }

    fn note(&mut self, cell: CellId, note: Note, bytes: &[u8]) -> bool {
        self.ground.borrow_mut().notes.insert((cell, note as u8), bytes.to_vec());
        true
    }

    fn noted(&self, cell: CellId, note: Note) -> Vec<u8> {
        self.ground.borrow().notes.get(&(cell, note as u8)).cloned().unwrap_or_default()
    }
}

/// VMs are called by their numbers.
fn number(name: &str) -> VmId {
    VmId(name.parse().expect("a number"))
}
