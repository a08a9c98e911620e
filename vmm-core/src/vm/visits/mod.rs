//! VCPUs that visit other places, and come home: they do what they would have done there.

mod board;
mod direct;
mod ends;
mod words;

use super::hostile::kernel;
use super::smp::{
    ME, Program, Random, SEEN, V0, WRONG, changing_code, check_totals, locks_and_tokens, made,
    place_function, word,
};
use super::tests::{TestClock, params, vm_of};
use super::*;
use crate::image::tests::Ram;
use crate::interp::tests::machine::asm::*;
use crate::mem::Access;
use abi::{Gpa, PAGE_SIZE};
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Mutex;

/// The way home, by words.
struct Line {
    home: Arc<Vm<Ram>>,
    /// VCPU 0 should look.
    look: AtomicBool,
    /// There is no home any more.
    gone: AtomicBool,
    calls: AtomicU64,
    printed: Mutex<Vec<u8>>,
}

impl Home for Arc<Line> {
    fn ask(&self, call: &Call) -> Option<Answer> {
        if self.gone.load(Ordering::SeqCst) {
            return None;
        }
        self.calls.fetch_add(1, Ordering::SeqCst);
        let call = Call::decode(&call.encode()).expect("it is one");
        let (answer, look) = self.home.serve(&call);
        self.look.fetch_or(look, Ordering::SeqCst);
        self.take_output();
        Some(Answer::decode(&answer.encode()).expect("it is one"))
    }
}

impl Line {
    fn take_output(&self) {
        let mut printed = self.printed.lock().unwrap();
        self.home.take_output(&mut |bytes| printed.extend_from_slice(bytes));
    }
}

/// A VM at home, the places where its VCPUs may visit, and where each is: 0 is home.
struct Cells {
    vms: Vec<Arc<Vm<Ram>>>,
    line: Arc<Line>,
    runners: Vec<Runner>,
    at: Vec<usize>,
    waits: Vec<bool>,
    moves: u64,
}

impl Cells {
    fn new((vm, runners): (Vm<Ram>, Vec<Runner>), places: usize) -> Self {
        let home = Arc::new(vm);
        let line = Arc::new(Line {
            home: Arc::clone(&home),
            look: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            printed: Mutex::new(Vec::new()),
        });
        let mut vms = Vec::from([Arc::clone(&home)]);
        for _ in 0..places {
            let mut words = Vec::new();
            home.share(&mut words);
            let way = Box::new(Arc::clone(&line));
            let vm = Vm::visited(home.params.clone(), home.memory().clone(), way, &words);
            vms.push(Arc::new(vm.expect("it was shared")));
        }
        let count = runners.len();
        Self { vms, line, runners, at: vec![0; count], waits: vec![false; count], moves: 0 }
    }

    /// Moves VCPU `n`, by way of home.
    fn move_to(&mut self, n: usize, place: usize) {
        for to in [0, place] {
            if self.at[n] != to {
                let mut words = Vec::new();
                self.runners[n].save(&mut words);
                let vm = &self.vms[to];
                self.runners[n] =
                    Runner::restore(vm, n as u32, &words, &mut |_| None).expect("it was saved");
                self.at[n] = to;
                self.moves += 1;
            }
        }
    }

    /// VCPU 0 looks at the board, wherever it is.
    fn look(&mut self) {
        self.waits[0] = false;
        self.vms[self.at[0]].look();
    }

    /// Has VCPU `n` run where it is, and at home what it comes home for.
    fn run(&mut self, n: usize, clock: &TestClock, limit: u64) -> Exit {
        let exit = self.runners[n].run(&self.vms[self.at[n]], clock, limit);
        self.heed(n, exit);
        if exit == Exit::Home { self.run(n, clock, limit) } else { exit }
    }

    /// Does what an owner does after VCPU `n` has run.
    fn heed(&mut self, n: usize, exit: Exit) {
        match exit {
            Exit::Idle { .. } => self.waits[n] = true,
            Exit::Ipi { to } => {
                self.runners[to as usize].interrupt();
                self.waits[to as usize] = false;
            }
            Exit::Board => self.look(),
            Exit::Home => {
                assert_ne!(self.at[n], 0, "it is at home");
                assert_eq!(self.vms[self.at[n]].ended(), None, "only home ends");
                self.move_to(n, 0);
            }
            _ => {}
        }
        self.line.take_output();
        if self.line.look.swap(false, Ordering::SeqCst) {
            self.look();
        }
        let warped = self.vms[0].warped();
        self.vms[1..].iter().for_each(|vm| vm.warp_to(warped));
    }

    /// Runs VCPUs in turns of chance until the VM ends, moving them by a chance of its own.
    fn take_turns(&mut self, seed: u64, clock: &TestClock) -> Exit {
        const ENOUGH: u64 = 20_000_000;
        let (mut turns, mut moves) = (Random(seed), Random(!seed));
        let count = self.runners.len() as u64;
        loop {
            let n = turns.below(count) as usize;
            let slice = 1 + turns.below(200);
            if self.vms.len() > 1 && moves.below(4) == 0 {
                let (who, place) = (moves.below(count), moves.below(self.vms.len() as u64));
                self.move_to(who as usize, place as usize);
            }
            if self.waits[n] {
                continue;
            }
            self.run(n, clock, slice);
            if let Some(end) = self.vms[0].ended() {
                return end;
            }
            let total: u64 = self.runners.iter().map(Runner::retired).sum();
            assert!(total < ENOUGH, "it gets nowhere (seed {seed})");
        }
    }
}

/// A VM of the shared programs, in `places` beside home, run to its end; all that its VCPUs and their memory come to,
/// and how often one was moved.
fn course(seed: u64, vcpus: u32, places: usize) -> (Vec<u64>, u64) {
    const ROUNDS: i32 = 30;
    let endian = if seed % 4 < 2 { Endian::Little } else { Endian::Big };
    let is_code = seed.is_multiple_of(3);
    let program = if is_code {
        changing_code(vcpus, ROUNDS, seed.is_multiple_of(2))
    } else {
        locks_and_tokens(vcpus, ROUNDS)
    };
    let (vm, runners) = made(endian, vcpus, &program);
    place_function(&vm, endian);
    let mut cells = Cells::new((vm, runners), places);
    assert_eq!(cells.take_turns(seed, &TestClock::default()), Exit::Reset);
    let home = &cells.vms[0];
    if is_code {
        assert_eq!(word(home, WRONG, endian), 0, "seed {seed}");
        assert_eq!(word(home, SEEN, endian), (u64::from(vcpus) - 1) * ROUNDS as u64);
    } else {
        check_totals(home, endian, u64::from(vcpus) * ROUNDS as u64);
    }
    let moves = cells.moves;
    let mut out = Vec::new();
    for n in 0..vcpus as usize {
        cells.move_to(n, 0);
        cells.runners[n].save(&mut out);
    }
    let page = cells.vms[0].memory().resolve(Gpa(0x20_0000), Access::Read).expect("in memory");
    out.extend((0..PAGE_SIZE).step_by(8).map(|at| page.load64(at)));
    (out, moves)
}

#[test]
fn visiting_vcpus_do_what_others_do() {
    let mut moved = 0;
    for seed in 0..60 {
        let vcpus = [2, 4][seed as usize % 2];
        let (stayed, none) = course(seed, vcpus, 0);
        let (visited, moves) = course(seed, vcpus, 1 + seed as usize % 2);
        assert!(none == 0 && stayed == visited, "seed {seed}");
        moved += moves;
    }
    assert!(moved > 3000, "{moved} moves");
}

/// A loop, all in one page, that sets V0 to what its second instruction says.
fn setting_loop() -> Program {
    let mut p = Program::default();
    p.begin().add(&[NOP]);
    let start = p.here();
    p.add(&[addiu(V0, 0, 1)]).back(start, 0, true);
    p
}

#[test]
fn code_that_is_changed_elsewhere_is_never_executed_as_it_was() {
    let program = setting_loop();
    let changed = program.0.iter().position(|&word| word == addiu(V0, 0, 1)).expect("it is there");
    for endian in [Endian::Little, Endian::Big] {
        let mut cells = Cells::new(made(endian, 2, &program), 1);
        let clock = TestClock::default();
        let page = cells.vms[0].memory().resolve(Gpa(0x10_0000), Access::Write);
        let page = page.expect("in memory");
        let change = |value: i32| {
            page.copy_in(4 * changed as u64, &endian.bytes32(addiu(V0, 0, value)));
        };
        let found = |cells: &Cells, n: usize| cells.runners[n].vcpu().gpr(V0 as usize);
        cells.move_to(1, 1);
        // VCPU 0 is at home, 1 is not; a turn is a few rounds of the loop, and ends in any part of it.
        for value in 1..500 {
            change(value);
            for n in [0, 1] {
                assert_eq!(cells.run(n, &clock, 20 + value as u64 % 3), Exit::Limit);
                assert_eq!(found(&cells, n), value as u64, "VCPU {n}");
            }
        }
        // Together again: code is trusted again, and what was decoded is not what it was.
        cells.move_to(1, 0);
        change(1000);
        cells.vms[0].gather();
        for n in [0, 1] {
            cells.run(n, &clock, 100);
            assert_eq!(found(&cells, n), 1000, "VCPU {n}");
        }
        change(1001);
        for n in [0, 1] {
            cells.run(n, &clock, 100);
            assert_eq!(found(&cells, n), 1000, "VCPU {n} is not to look at memory any more");
        }
        cells.vms[0].share(&mut Vec::new());
        for n in [0, 1] {
            cells.run(n, &clock, 100);
            assert_eq!(found(&cells, n), 1001, "VCPU {n}");
        }
        // Where there is no heap for the words.
        let (vm, mut runners) = made(endian, 2, &program);
        let page = vm.memory().resolve(Gpa(0x10_0000), Access::Write).expect("in memory");
        runners[0].run(&vm, &clock, 100);
        runners[0].vcpu_mut().set_verifies(true);
        for value in 2..100 {
            page.copy_in(4 * changed as u64, &endian.bytes32(addiu(V0, 0, value)));
            runners[0].run(&vm, &clock, 7);
            assert_eq!(runners[0].vcpu().gpr(V0 as usize), value as u64);
        }
    }
}

#[test]
fn hostile_kernels_do_the_same_when_what_they_execute_is_compared() {
    for seed in 0..300 {
        let endian = if seed % 2 == 0 { Endian::Little } else { Endian::Big };
        let code = kernel(seed);
        let end_of = |places| {
            let params = VmParams { vcpus: 2, budget: 20_000, ..params(endian) };
            let mut cells = Cells::new(vm_of(params, &code), places);
            let clock = TestClock::default();
            for n in 0..1000 {
                let vcpu = n % 2;
                if let Exit::Idle { until: Some(until) } = cells.run(vcpu, &clock, 200) {
                    clock.jump_to(until, cells.runners[vcpu].retired());
                }
            }
            (
                cells.vms[0].ended(),
                [0, 1].map(|n| cells.runners[n].report(&cells.vms[0]).to_string()),
            )
        };
        assert_eq!(end_of(0), end_of(1), "seed {seed}");
    }
}
