//! Guests of the simulated machine: small programs.

use super::World;
use abi::event::Cause;
use abi::{Mpa, NodeId, VmId};
use cell::Created;
use cell::pmap::Pmap;
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

/// What the VCPUs of a guest share.
#[derive(Debug)]
pub struct Toy {
    pub(super) shared: Rc<RefCell<Shared>>,
}

/// One of them.
#[derive(Debug)]
pub struct ToyVcpu {
    id: VmId,
    index: u32,
    program: Program,
    world: Rc<RefCell<World>>,
    pmap: Arc<Pmap>,
    shared: Rc<RefCell<Shared>>,
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
pub(super) struct Shared {
    uart: VecDeque<u8>,
    out: Vec<u8>,
    /// Interrupts sent to each VCPU, and those it has seen.
    sent: Vec<u64>,
    seen: Vec<u64>,
    /// How often each VCPU has sent.
    by: Vec<u64>,
    ticks: u64,
    touched: u32,
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
    let vcpu = |index| {
        Box::new(ToyVcpu {
            id,
            index,
            program: program.clone(),
            world: world.clone(),
            pmap: pmap.clone(),
            shared: shared.clone(),
            rng: Rng::new(u64::from(index)),
            from: 0,
            ran: 0,
            ticks: 0,
            // The ring begins with VCPU 0.
            interrupted: index == 0,
            line: Vec::new(),
            greeted: false,
            known: BTreeMap::new(),
        })
    };
    let vcpus: Vec<_> = (0..vcpus).map(vcpu).collect();
    // Its image.
    vcpus[0].touch();
    (Toy { shared }, vcpus)
}

impl ToyVcpu {
    /// When its turn, which begins now, ends by itself if it may last until `until`.
    pub fn begin(&mut self, until: u64) -> u64 {
        self.from = self.world.borrow().now;
        let left = until.saturating_sub(self.from);
        let length = match self.program {
            Program::Loop | Program::Print(_) => left,
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

    /// Uses a page that the VM has not used before, if it has one, from its last to its first.
    fn touch(&self) {
        let touched = &mut self.shared.borrow_mut().touched;
        let Some(page) = self.pmap.pages().checked_sub(*touched + 1) else { return };
        *touched += 1;
        let stamped = &mut self.world.borrow_mut().stamped;
        let mpa = self.pmap.touch(page, NodeId(0), |mpa| _ = stamped.remove(&mpa));
        let before = stamped.insert(mpa.expect("a promised page"), (self.id, page));
        assert_eq!(before, None, "another VM's data");
    }

    fn shell(&mut self) -> Exit {
        let shared = &mut *self.shared.borrow_mut();
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
                return Exit::Ended { cause: Cause::PowerOff, report: String::new() };
            }
            shared.out.extend_from_slice(format!("{line}\r\nyou said {line}\r\n# ").as_bytes());
        }
        Exit::Idle { until: None }
    }

    fn ring(&mut self, rounds: u64) -> Exit {
        if !std::mem::take(&mut self.interrupted) {
            return Exit::Idle { until: None };
        }
        let shared = &mut *self.shared.borrow_mut();
        let sent: u64 = shared.sent.iter().sum();
        if sent == rounds {
            return Exit::Ended { cause: Cause::PowerOff, report: String::new() };
        }
        let to = (self.index + 1) % shared.sent.len() as u32;
        shared.sent[to as usize] += 1;
        Exit::Send { to }
    }

    fn storm(&mut self, sends: u64) -> Exit {
        let shared = &mut *self.shared.borrow_mut();
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
            return Exit::Ended { cause: Cause::PowerOff, report: String::new() };
        }
        Exit::Idle { until: None }
    }
}

impl Vcpu for ToyVcpu {
    /// What it did in its turn, which the simulation ends at `until`.
    fn run(&mut self, until: u64) -> Exit {
        self.touch();
        // As by a TLB: where it was found once it is used again, until that is to be forgotten.
        for (page, mpa) in self.pmap.iter() {
            let mpa = *self.known.entry(page).or_insert(mpa);
            let found = self.world.borrow().stamped.get(&mpa).copied();
            assert_eq!(found, Some((self.id, page)), "its page is taken");
        }
        let before = self.ran / 1_000_000;
        let ns = until - self.from;
        self.ran += ns;
        let world = self.world.clone();
        let world = &mut *world.borrow_mut();
        *world.ran.entry(self.id).or_default() += ns;
        *world.ran_by.entry((self.id, self.index)).or_default() += ns;
        match self.program.clone() {
            Program::Loop | Program::Refuse => Exit::Slice,
            Program::Print(line) => {
                for _ in before..self.ran / 1_000_000 {
                    self.shared.borrow_mut().out.extend_from_slice(line.as_bytes());
                }
                Exit::Slice
            }
            Program::Live(ns, cause) if self.ran == ns => {
                let report = if cause.is_normal() { "" } else { "pc 0x80001234: sll\nwhy" };
                Exit::Ended { cause, report: report.into() }
            }
            Program::Live(..) => Exit::Slice,
            Program::Tick(period) => {
                let due = until / period;
                if due > self.ticks {
                    self.ticks = due;
                    let shared = &mut *self.shared.borrow_mut();
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
        sink(&out);
    }

    fn counters(&self, each: &mut dyn FnMut(&'static str, u64)) {
        each("ticks", self.shared.borrow().ticks);
    }
}
