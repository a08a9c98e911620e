//! Guests of the simulated machine: small programs.

use super::World;
use abi::event::Cause;
use abi::{Mpa, NodeId, VmId};
use cell::Created;
use cell::loan::Payload;
use cell::pmap::{Pmap, Replica};
use cell::rng::Rng;
use cell::vm::{Exit, Guest, Vcpu};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

/// What a guest does with its life, on each of its VCPUs. Times are nanoseconds.
#[derive(Clone, Debug)]
pub enum Program {
    /// Runs for ever and says nothing.
    Loop,
    /// As [`Program::Loop`], and its machine has a remark on that.
    Slow,
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
    /// Each VCPU waits for an interrupt, works a little and interrupts the next one: so many times in
    /// all, then VCPU 0 switches the machine off.
    Ring(u64),
    /// VCPUs run, wait for nothing in particular and interrupt random others, so many times each; when
    /// all interrupts have been seen the machine is switched off.
    Storm(u64),
    /// Its image is no good.
    Bad,
    /// The monitor's heap has no room for it.
    Big,
}

/// What the VCPUs of a guest share, in its home or where they visit.
#[derive(Clone, Debug)]
pub struct Toy {
    pub(super) shared: Rc<RefCell<Shared>>,
    id: VmId,
    program: Program,
    world: Rc<RefCell<World>>,
    pages: Pages,
}

/// Its memory.
#[derive(Clone, Debug)]
enum Pages {
    Own(Arc<Pmap>),
    Visited(Arc<Replica>),
}

/// One of them.
#[derive(Debug)]
pub struct ToyVcpu {
    of: Toy,
    index: u32,
    rng: Rng,
    /// When its turn began.
    from: u64,
    ran: u64,
    ticks: u64,
    interrupted: bool,
    line: Vec<u8>,
    greeted: bool,
    /// Where it has found pages.
    known: BTreeMap<u32, Mpa>,
}

#[derive(Debug, Default)]
pub struct Shared {
    uart: VecDeque<u8>,
    out: Vec<u8>,
    /// Interrupts sent to each VCPU, and those it has seen.
    sent: Vec<u64>,
    seen: Vec<u64>,
    /// How often each VCPU has sent.
    by: Vec<u64>,
    ticks: u64,
    touched: u32,
    warped: u64,
}

/// A guest of so many VCPUs.
pub fn make(
    id: VmId,
    vcpus: u32,
    program: &Program,
    world: &Rc<RefCell<World>>,
    pmap: &Arc<Pmap>,
) -> Created<Toy> {
    let none = vec![0; vcpus as usize];
    let shared = Shared { sent: none.clone(), seen: none.clone(), by: none, ..Shared::default() };
    let shared = Rc::new(RefCell::new(shared));
    let pages = Pages::Own(pmap.clone());
    let toy = Toy { shared, id, program: program.clone(), world: world.clone(), pages };
    let vcpus: Vec<_> = (0..vcpus).map(|index| Box::new(toy.vcpu(index))).collect();
    // Its image.
    vcpus[0].touch();
    (toy, vcpus)
}

/// A guest that visits.
pub fn visit(
    id: VmId,
    program: &Program,
    world: &Rc<RefCell<World>>,
    replica: &Arc<Replica>,
    shared: &Rc<RefCell<Shared>>,
) -> Toy {
    let pages = Pages::Visited(replica.clone());
    Toy { shared: shared.clone(), id, program: program.clone(), world: world.clone(), pages }
}

impl Toy {
    /// Places a page, which then holds this VM's data; not of a cell that has died.
    fn stamp(&self, page: u32, node: NodeId) -> Option<Mpa> {
        let Pages::Own(pmap) = &self.pages else { panic!("at home") };
        let stamped = &mut self.world.borrow_mut().stamped;
        let mpa = pmap.touch(page, node, |mpa| _ = stamped.remove(&mpa))?;
        assert_eq!(stamped.insert(mpa, (self.id, page)), None, "another VM's data");
        Some(mpa)
    }

    fn vcpu(&self, index: u32) -> ToyVcpu {
        ToyVcpu {
            of: self.clone(),
            index,
            rng: Rng::new(u64::from(index)),
            from: 0,
            ran: 0,
            ticks: 0,
            // The ring begins with VCPU 0.
            interrupted: index == 0,
            line: Vec::new(),
            greeted: false,
            known: BTreeMap::new(),
        }
    }
}

impl ToyVcpu {
    /// When its turn, which begins now, ends by itself if it may last until `until`.
    pub fn begin(&mut self, until: u64) -> u64 {
        self.from = self.of.world.borrow().now;
        let left = until.saturating_sub(self.from);
        let length = match self.of.program {
            Program::Loop | Program::Slow | Program::Print(_) => left,
            Program::Refuse => 0,
            Program::Live(ns, _) => left.min(ns - self.ran),
            Program::Tick(_) => left.min(20_000),
            Program::Shell => left.min(1000),
            Program::Ring(_) => left.min(5000),
            Program::Storm(_) => left.min(1000 + self.rng.below(100_000)),
            Program::Bad | Program::Big => unreachable!("it can't be made"),
        };
        self.from + length
    }

    /// Uses a page that the VM has not used before, if it has one and is at home, from its last to its first.
    fn touch(&self) {
        let Pages::Own(pmap) = &self.of.pages else { return };
        let touched = &mut self.of.shared.borrow_mut().touched;
        let Some(page) = pmap.pages().checked_sub(*touched + 1) else { return };
        *touched += 1;
        if pmap.get(page).is_none() {
            self.of.stamp(page, NodeId(0));
        }
    }

    /// The VM's replica, if it is not at home.
    pub fn visits(&self) -> Option<&Arc<Replica>> {
        match &self.of.pages {
            Pages::Own(_) => None,
            Pages::Visited(replica) => Some(replica),
        }
    }

    /// The VM ends, at home.
    fn ends(&self, cause: Cause, report: &str) -> Exit {
        match self.of.pages {
            Pages::Own(_) => Exit::Ended { cause, report: report.into() },
            Pages::Visited(_) => Exit::Home,
        }
    }

    fn shell(&mut self) -> Exit {
        let shared = &mut *self.of.shared.borrow_mut();
        if !std::mem::replace(&mut self.greeted, true) {
            shared.out.extend_from_slice(b"guest: shell ready\r\n# ");
        }
        while let Some(byte) = shared.uart.pop_front() {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line = String::from_utf8(std::mem::take(&mut self.line)).unwrap();
            if line == "exit" {
                return self.ends(Cause::PowerOff, "");
            }
            shared.out.extend_from_slice(format!("{line}\r\nyou said {line}\r\n# ").as_bytes());
        }
        Exit::Idle { until: None }
    }

    fn ring(&mut self, rounds: u64) -> Exit {
        if !std::mem::take(&mut self.interrupted) {
            return Exit::Idle { until: None };
        }
        let shared = &mut *self.of.shared.borrow_mut();
        let sent: u64 = shared.sent.iter().sum();
        if sent == rounds {
            return self.ends(Cause::PowerOff, "");
        }
        let to = (self.index + 1) % shared.sent.len() as u32;
        shared.sent[to as usize] += 1;
        Exit::Send { to }
    }

    fn storm(&mut self, sends: u64) -> Exit {
        let shared = &mut *self.of.shared.borrow_mut();
        let me = self.index as usize;
        if std::mem::take(&mut self.interrupted) {
            shared.seen[me] = shared.sent[me];
        }
        if shared.by[me] < sends {
            shared.by[me] += 1;
            let to = self.rng.below(shared.sent.len() as u64) as usize;
            shared.sent[to] += 1;
            return Exit::Send { to: to as u32 };
        }
        if shared.by.iter().all(|&n| n == sends) && shared.seen == shared.sent {
            return self.ends(Cause::PowerOff, "");
        }
        Exit::Idle { until: None }
    }
}

impl Vcpu for ToyVcpu {
    /// What it did in its turn, which the simulation ends at `until`.
    fn run(&mut self, until: u64) -> Exit {
        self.touch();
        if let Pages::Own(pmap) = &self.of.pages {
            // As by a TLB: where it was found once it is used again, until that is to be forgotten.
            for (page, mpa) in pmap.iter() {
                let mpa = *self.known.entry(page).or_insert(mpa);
                let found = self.of.world.borrow().stamped.get(&mpa).copied();
                assert_eq!(found, Some((self.of.id, page)), "its page is taken");
            }
        }
        let before = self.ran / 1_000_000;
        let ns = until - self.from;
        self.ran += ns;
        let world = self.of.world.clone();
        let world = &mut *world.borrow_mut();
        *world.ran.entry(self.of.id).or_default() += ns;
        *world.ran_by.entry((self.of.id, self.index)).or_default() += ns;
        match self.of.program.clone() {
            Program::Loop | Program::Slow | Program::Refuse => Exit::Slice,
            Program::Print(line) => {
                for _ in before..self.ran / 1_000_000 {
                    self.of.shared.borrow_mut().out.extend_from_slice(line.as_bytes());
                }
                Exit::Slice
            }
            Program::Live(ns, cause) if self.ran == ns => {
                let report = if cause.is_normal() { "" } else { "pc 0x80001234: sll\nwhy" };
                self.ends(cause, report)
            }
            Program::Live(..) => Exit::Slice,
            Program::Tick(period) => {
                let due = until / period;
                if due > self.ticks {
                    self.ticks = due;
                    let shared = &mut *self.of.shared.borrow_mut();
                    shared.ticks = due;
                    shared.out.extend_from_slice(format!("tick {due}\r\n").as_bytes());
                }
                Exit::Idle { until: Some((self.ticks + 1) * period) }
            }
            Program::Shell => self.shell(),
            Program::Ring(rounds) => self.ring(rounds),
            Program::Storm(sends) => self.storm(sends),
            Program::Bad | Program::Big => unreachable!("it can't be made"),
        }
    }

    fn interrupt(&mut self) {
        self.interrupted = true;
    }

    fn forget(&mut self, pages: Range<u32>) {
        self.known.retain(|page, _| !pages.contains(page));
    }

    fn instructions(&self) -> u64 {
        self.ran
    }

    fn counters(&self, each: &mut dyn FnMut(&'static str, u64)) {
        each("runs ns", self.ran);
    }
}

impl Guest for Toy {
    type Vcpu = ToyVcpu;

    fn input(&self, bytes: &[u8]) -> usize {
        let shared = &mut *self.shared.borrow_mut();
        let taken = bytes.len().min(4 - shared.uart.len());
        shared.uart.extend(&bytes[..taken]);
        taken
    }

    fn take_output(&self, sink: &mut dyn FnMut(&[u8])) {
        let out = std::mem::take(&mut self.shared.borrow_mut().out);
        if !out.is_empty() {
            sink(&out);
        }
    }

    fn counters(&self, each: &mut dyn FnMut(&'static str, u64)) {
        each("ticks", self.shared.borrow().ticks);
    }

    fn kernel_engine(&self) -> &'static str {
        if matches!(self.program, Program::Slow) { "slow" } else { "toy" }
    }

    fn remark(&self) -> Option<&str> {
        matches!(self.program, Program::Slow).then_some("is slow: let it have more heap")
    }

    fn place(&self, page: u32, node: NodeId) -> Option<Mpa> {
        let Pages::Own(pmap) = &self.pages else { panic!("at home") };
        pmap.get(page).or_else(|| self.stamp(page, node))
    }

    fn find(&self, page: u32) -> Option<Mpa> {
        let Pages::Own(pmap) = &self.pages else { panic!("at home") };
        pmap.get(page)
    }

    fn serve(&self, call: &[u64]) -> Option<(Payload, bool)> {
        assert!(matches!(self.pages, Pages::Own(_)), "at home");
        Some((Payload::new(call), false))
    }

    fn share(&self, _: &mut Vec<u64>) {}

    fn gather(&self) {
        assert!(matches!(self.pages, Pages::Own(_)), "at home");
    }

    fn save(&self, vcpu: &mut ToyVcpu, out: &mut Vec<u64>) {
        let flags = u64::from(vcpu.interrupted) | u64::from(vcpu.greeted) << 1;
        out.extend([vcpu.index.into(), vcpu.ran, vcpu.ticks, flags]);
    }

    fn restore(&self, index: u32, state: &[u64]) -> Result<Box<ToyVcpu>, String> {
        let &[number, ran, ticks, flags] = state else { return Err("no state".into()) };
        assert_eq!(number, u64::from(index));
        let (interrupted, greeted) = (flags & 1 != 0, flags & 2 != 0);
        Ok(Box::new(ToyVcpu { ran, ticks, interrupted, greeted, ..self.vcpu(index) }))
    }

    fn look(&self) {
        assert!(matches!(self.pages, Pages::Visited(_)), "where it visits");
    }

    fn warped(&self) -> u64 {
        self.shared.borrow().warped
    }

    fn warp_to(&self, ns: u64) {
        assert!(matches!(self.pages, Pages::Visited(_)), "where it visits");
        assert!(ns <= self.shared.borrow().warped);
    }
}
