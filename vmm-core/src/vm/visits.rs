//! VCPUs that visit other places, and come home: they do what they would have done there.

use super::smp::{Random, check_totals, locks_and_tokens, made};
use super::tests::TestClock;
use super::*;
use crate::image::tests::Ram;
use abi::Mpa;
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
                self.runners[n] = Runner::restore(vm, n as u32, &words, &mut |_: Mpa| true)
                    .expect("it was saved");
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

    /// Has VCPU `n` run where it is.
    fn run(&mut self, n: usize, clock: &TestClock, limit: u64) -> Exit {
        let exit = self.runners[n].run(&self.vms[self.at[n]], clock, limit);
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
                return self.run(n, clock, limit);
            }
            _ => {}
        }
        self.line.take_output();
        if self.line.look.swap(false, Ordering::SeqCst) {
            self.look();
        }
        let warped = self.vms[0].warped();
        self.vms[1..].iter().for_each(|vm| vm.warp_to(warped));
        exit
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

#[test]
fn visiting_vcpus_do_what_others_do() {
    const ROUNDS: i32 = 30;
    for seed in 0..60 {
        let vcpus = [2, 4][seed as usize % 2];
        let endian = if seed % 4 < 2 { Endian::Little } else { Endian::Big };
        let program = locks_and_tokens(vcpus, ROUNDS);
        let course = |places| {
            let mut cells = Cells::new(made(endian, vcpus, &program), places);
            assert_eq!(cells.take_turns(seed, &TestClock::default()), Exit::Reset);
            check_totals(&cells.vms[0], endian, u64::from(vcpus) * ROUNDS as u64);
            let mut words = Vec::new();
            for n in 0..vcpus as usize {
                cells.move_to(n, 0);
                cells.runners[n].save(&mut words);
            }
            (cells.moves, words)
        };
        let (none, stayed) = course(0);
        let (moves, visited) = course(1 + seed as usize % 2);
        assert!(none == 0 && moves > 20, "{moves} moves");
        assert!(stayed == visited, "seed {seed}");
    }
}
