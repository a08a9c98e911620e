//! A long run at random: eight cells of two CPUs, VCPUs that move all the time, and very many messages; and another in which
//! cells die and come back. What the search shows for every order of few things, this shows for some orders of very many.

use super::super::registry::Place;
use super::super::{
    CellSet, Epoch, Event, Exchange, Frozen, Incarnation, Live, Message, Reply, Sent, Vcpu,
};
use super::memory::{Lines, View, Write};
use crate::rng::Rng;
use abi::CellId;
use abi::ids::{CPUS_PER_NODE, MAX_CELLS};

const VCPUS: usize = 32;
const ROOM: usize = 16;

/// What a cell has said to one VCPU, in this incarnation of the cell and life of the VCPU.
#[derive(Clone, Copy, Default)]
struct Talk {
    sent: u32,
    executed: u32,
    told: u32,
}

struct Soak {
    rng: Rng,
    cells: Vec<Option<Exchange>>,
    heard: [usize; MAX_CELLS],
    incarnations: [u16; MAX_CELLS],
    /// Whether a cell died (or else came back), and which.
    agreed: Vec<(bool, CellId)>,
    mail: Vec<Vec<Lines>>,
    lives: [u32; VCPUS],
    talks: [[Talk; VCPUS]; MAX_CELLS],
    executed: u64,
    moved: u64,
    lost: u64,
    failed: u64,
}

fn pack(from: CellId, incarnation: u16, vcpu: Vcpu, number: u32) -> u64 {
    let life = u64::from(vcpu.life) & 0xff;
    u64::from(from.0) << 56
        | u64::from(incarnation & 0xff) << 48
        | life << 40
        | u64::from(vcpu.index) << 32
        | u64::from(number)
}

impl Soak {
    fn new(seed: u64) -> Self {
        let mut soak = Self {
            rng: Rng::new(seed),
            cells: (0..MAX_CELLS).map(|_| None).collect(),
            heard: [0; MAX_CELLS],
            incarnations: [1; MAX_CELLS],
            agreed: Vec::new(),
            mail: vec![vec![Lines::default(); MAX_CELLS]; MAX_CELLS],
            lives: [0; VCPUS],
            talks: [[Talk::default(); VCPUS]; MAX_CELLS],
            executed: 0,
            moved: 0,
            lost: 0,
            failed: 0,
        };
        for cell in CellSet::ALL {
            soak.boot(cell, CellSet::ALL);
        }
        for index in 0..VCPUS {
            soak.begin(index);
        }
        soak
    }

    fn below(&mut self, bound: usize) -> usize {
        self.rng.below(bound as u64) as usize
    }

    fn up(&self) -> CellSet {
        CellSet::ALL
            .filter(|cell| self.cells[usize::from(cell.0)].is_some())
            .fold(CellSet::NONE, CellSet::with)
    }

    fn boot(&mut self, cell: CellId, up: CellSet) {
        let mut known = [Incarnation(0); MAX_CELLS];
        for up in up {
            known[usize::from(up.0)] = Incarnation(self.incarnations[usize::from(up.0)]);
        }
        let live = Live::new(cell, Epoch(self.agreed.len() as u16 + 1), known);
        let index = usize::from(cell.0);
        self.cells[index] = Some(Exchange::new(live, MAX_CELLS, VCPUS, ROOM, 200));
        self.heard[index] = self.agreed.len();
        self.talks[index] = [Talk::default(); VCPUS];
    }

    fn vcpu(&self, index: usize) -> Vcpu {
        Vcpu { index: index as u16, life: self.lives[index] }
    }

    /// A VCPU begins a new life somewhere; every live cell is told, before it runs.
    fn begin(&mut self, index: usize) {
        self.lives[index] += 1;
        let live: Vec<CellId> = self.up().collect();
        let home = live[self.below(live.len())];
        let vcpu = self.vcpu(index);
        for exchange in self.cells.iter_mut().flatten() {
            exchange.begin(vcpu, home);
        }
        for talks in &mut self.talks {
            talks[index] = Talk::default();
        }
    }

    fn executes(&mut self, cell: CellId, vcpu: Vcpu, message: Message) {
        let Message::Probe(value) = message else { panic!("{message:?}") };
        let exchange = self.cells[usize::from(cell.0)].as_ref().expect("a live cell");
        assert_eq!(exchange.registry().place(vcpu), Place::Here);
        let from = usize::from((value >> 56) as u8);
        let talk = &mut self.talks[from][usize::from(vcpu.index)];
        let incarnation = self.incarnations[from] & 0xff;
        if (value >> 48) as u8 == incarnation as u8
            && self.lives[usize::from(vcpu.index)] == vcpu.life
        {
            talk.executed += 1;
            let due = pack(CellId(from as u8), incarnation, vcpu, talk.executed);
            assert_eq!(value, due, "count and order are exact");
        }
        self.executed += 1;
    }

    /// A CPU of a cell looks at some lines and does what there is to do.
    fn poll(&mut self, cell: CellId, now: u64, faults: bool) {
        let index = usize::from(cell.0);
        loop {
            let from = CellSet(self.rng.bits() as u8);
            let mut fail = faults && self.below(64) == 0;
            let up = self.up();
            let mut writes = Vec::new();
            let Some(exchange) = self.cells[index].as_mut() else { return };
            let mut view =
                View { mail: &self.mail[index], up, fail: &mut fail, writes: &mut writes };
            let event = exchange.poll(from, now, &mut view);
            for write in writes {
                self.land(cell, &write);
            }
            let Some(event) = event else { return };
            self.handle(cell, event);
        }
    }

    fn land(&mut self, from: CellId, write: &Write) {
        let (Write::Payload(to, slot, _) | Write::Commit(to, slot, _)) = *write;
        let line = &mut self.mail[usize::from(to.0)][usize::from(from.0)][slot as usize];
        match *write {
            Write::Payload(_, _, payload) => line.payload = payload,
            Write::Commit(_, _, commit) => line.commit = commit,
        }
    }

    fn handle(&mut self, cell: CellId, event: Event) {
        let up = self.up();
        let Some(exchange) = self.cells[usize::from(cell.0)].as_mut() else { return };
        match event {
            Event::Offered { from, .. } => {
                let refuses = !up.has(from) || self.rng.below(16) == 0;
                if refuses {
                    exchange.answer(from, Reply::Refused(1));
                } else {
                    exchange.accept(from);
                }
            }
            Event::Execute { vcpu, message } => self.executes(cell, vcpu, message),
            Event::Sent { token, result } => {
                let index = token as usize & 0xff;
                self.failed += u64::from(result.is_err());
                if self.lives[index] & 0xff == token >> 8 {
                    let talk = &mut self.talks[usize::from(cell.0)][index];
                    talk.told += 1;
                    assert!(talk.told <= talk.sent, "told once");
                    assert!(result.is_err() || talk.told <= talk.executed, "told the truth");
                }
            }
            Event::Arrived(vcpu) => {
                self.moved += 1;
                let owners = self.cells.iter().flatten();
                let here = |exchange: &&Exchange| exchange.registry().place(vcpu) == Place::Here;
                assert_eq!(owners.filter(here).count(), 1, "one owner");
            }
            Event::Left { .. } | Event::Stayed { .. } | Event::Suspect(_) => {}
            Event::Asked { .. } | Event::Returned { .. } | Event::Found { .. } => {
                panic!("nobody asked: {event:?}")
            }
        }
    }

    fn send(&mut self, cell: CellId) {
        let index = self.below(VCPUS);
        let vcpu = self.vcpu(index);
        let talk = self.talks[usize::from(cell.0)][index];
        let incarnation = self.incarnations[usize::from(cell.0)];
        let message = Message::Probe(pack(cell, incarnation, vcpu, talk.sent + 1));
        let Some(exchange) = self.cells[usize::from(cell.0)].as_mut() else { return };
        let token = (vcpu.life & 0xff) << 8 | u32::from(vcpu.index);
        let Ok(sent) = exchange.send(vcpu, message, token) else { return };
        self.talks[usize::from(cell.0)][index].sent += 1;
        if sent == Sent::Execute {
            self.executes(cell, vcpu, message);
            self.talks[usize::from(cell.0)][index].told += 1;
        }
    }

    /// A cell offers one of its VCPUs to another.
    fn offer(&mut self, cell: CellId) {
        let first = self.below(VCPUS);
        let to = CellId(self.below(MAX_CELLS) as u8);
        let vcpus: Vec<Vcpu> = (0..VCPUS).map(|index| self.vcpu((first + index) % VCPUS)).collect();
        let Some(exchange) = self.cells[usize::from(cell.0)].as_mut() else { return };
        let here = |vcpu: &&Vcpu| exchange.registry().place(**vcpu) == Place::Here;
        if let Some(&vcpu) = vcpus.iter().find(here) {
            // The other cell may be dead, or this one.
            let _ = exchange.offer(vcpu, to, Frozen::default());
        }
    }

    /// One CPU, picked at random, does something.
    fn step(&mut self, now: u64, sends: bool, moves: bool) {
        let cell = CellId((self.below(MAX_CELLS * CPUS_PER_NODE) / CPUS_PER_NODE) as u8);
        if sends && self.below(2) == 0 {
            self.send(cell);
        }
        if moves && self.below(4) == 0 {
            self.offer(cell);
        }
        self.poll(cell, now, sends);
    }

    /// A cell dies, or a dead one comes back, or a cell hears of the next such thing.
    fn fate(&mut self) {
        let cell = CellId(self.below(MAX_CELLS) as u8);
        let index = usize::from(cell.0);
        let settled = self.up().all(|cell| self.heard[usize::from(cell.0)] == self.agreed.len());
        let dies = settled && self.up().count() > 2 && self.below(2000) == 0;
        let returns = settled && self.below(200) == 0;
        match self.cells[index].as_mut() {
            Some(exchange) if self.heard[index] < self.agreed.len() => {
                let (died, other) = self.agreed[self.heard[index]];
                self.heard[index] += 1;
                let epoch = Epoch(self.heard[index] as u16 + 1);
                if died {
                    exchange.cell_down(other, epoch);
                } else {
                    let incarnation = self.incarnations[usize::from(other.0)];
                    exchange.cell_up(other, Incarnation(incarnation), epoch);
                }
            }
            Some(_) if dies => {
                self.cells[index] = None;
                self.mail[index] = vec![Lines::default(); MAX_CELLS];
                self.agreed.push((true, cell));
            }
            None if returns => {
                self.incarnations[index] += 1;
                self.agreed.push((false, cell));
                let up = self.up().with(cell);
                self.boot(cell, up);
            }
            _ => {}
        }
    }

    /// Lost VCPUs begin a new life.
    fn revive(&mut self) {
        for index in 0..VCPUS {
            let vcpu = self.vcpu(index);
            let mut places = self.cells.iter().flatten().map(|cell| cell.registry().place(vcpu));
            let alive = places
                .any(|place| matches!(place, Place::Here | Place::Leaving(_) | Place::Arriving(_)));
            if !alive && self.below(4) == 0 {
                self.lost += 1;
                self.begin(index);
            }
        }
    }

    /// Nothing new: everything that is under way comes to its end.
    fn settle(&mut self, mut now: u64) {
        for _ in 0..100_000 {
            now += 1;
            self.fate_heard();
            self.step(now, false, false);
            if self.cells.iter().flatten().all(Exchange::is_quiet) {
                return;
            }
        }
        panic!("it never comes to an end");
    }

    fn fate_heard(&mut self) {
        let settled = self.up().all(|cell| self.heard[usize::from(cell.0)] == self.agreed.len());
        if !settled {
            self.fate();
        }
    }
}

/// So many messages to VCPUs that move all the time: how many moves.
fn messages(seed: u64, messages: u64) -> u64 {
    let mut soak = Soak::new(seed);
    let mut now = 0;
    while soak.executed < messages {
        now += 1;
        soak.step(now, true, true);
    }
    soak.settle(now);
    for talk in soak.talks.as_flattened() {
        assert_eq!((talk.sent, talk.sent), (talk.executed, talk.told), "exactly once");
    }
    assert_eq!(soak.failed, 0);
    println!("{} messages, {} moves, {} steps", soak.executed, soak.moved, now);
    soak.moved
}

#[test]
fn many_messages_find_vcpus_that_move() {
    assert!(messages(1, 100_000) > 10_000);
}

#[test]
#[ignore = "as the short one, ten times as long"]
fn a_million_messages_find_vcpus_that_move() {
    assert!(messages(2, 1_000_000) > 100_000);
}

#[test]
fn many_messages_while_cells_die_and_come_back() {
    let mut soak = Soak::new(3);
    for now in 0..400_000 {
        soak.step(now, true, true);
        soak.fate();
        if now % 64 == 0 {
            soak.revive();
        }
    }
    soak.settle(400_000);
    for (cell, talks) in soak.cells.iter().zip(&soak.talks) {
        for talk in talks.iter().filter(|_| cell.is_some()) {
            assert_eq!(talk.sent, talk.told, "each sender is told once");
        }
    }
    println!(
        "{} messages, {} moves, {} deaths and returns, {} VCPUs lost, {} failures told",
        soak.executed,
        soak.moved,
        soak.agreed.len(),
        soak.lost,
        soak.failed
    );
    assert!(soak.executed > 100_000 && soak.lost > 20 && soak.failed > 20);
}
