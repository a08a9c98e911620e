//! VCPUs of one VM, in turns of chance and on threads: locks, counters, interrupts, and code that one changes and
//! others execute.

use super::tests::{TestClock, params, vm_of};
use super::*;
use crate::image::tests::Ram;
use crate::interp::tests::machine::asm::*;
use crate::mem::Access;
use crate::time::Clock;
use abi::{Gpa, ipi};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

/// Registers: the VCPU's number, addresses of the devices and of data, a count.
pub(super) const ME: u32 = 16;
pub(super) const DEVICES: u32 = 17;
pub(super) const DATA: u32 = 18;
pub(super) const LEFT: u32 = 19;
pub(super) const STEP: u32 = 20;
pub(super) const CODE: u32 = 21;
/// And for anything.
pub(super) const T0: u32 = 12;
pub(super) const T1: u32 = 13;
pub(super) const T2: u32 = 14;
pub(super) const V0: u32 = 2;
const RA: u32 = 31;

pub(super) const WAIT: u32 = 0x4200_0020;
pub(super) const SYNC: u32 = 0x0000_000f;
pub(super) const LW: u32 = 0x23;
pub(super) const SW: u32 = 0x2b;
const LD: u32 = 0x37;
const SD: u32 = 0x3f;
pub(super) const LL: u32 = 0x30;
pub(super) const SC: u32 = 0x38;
pub(super) const LLD: u32 = 0x34;
pub(super) const SCD: u32 = 0x3c;
const DADDIU: u32 = 0x19;

/// Where data is, and offsets into it.
const DATA_GPA: u64 = 0x20_0000;
const LOCK: i32 = 0;
pub(super) const WORD: i32 = 0x40;
const GUARDED: i32 = 0x80;
const DOUBLE: i32 = 0xc0;
const TOKENS: i32 = 0x100;
const VERSION: i32 = 0x140;
pub(super) const SEEN: i32 = 0x180;
pub(super) const WRONG: i32 = 0x1c0;
/// Where the code is that changes. (Not where it would share its place in a soft TLB with the data.)
pub(super) const CODE_GPA: u64 = 0x30_1000;

pub(super) const fn mtc0(rt: u32, rd: u32) -> u32 {
    0x4080_0000 | rt << 16 | rd << 11
}

/// A program under construction.
#[derive(Default)]
pub(super) struct Program(pub Vec<u32>);

impl Program {
    pub(super) fn add(&mut self, words: &[u32]) -> &mut Self {
        self.0.extend(words);
        self
    }

    pub(super) fn here(&self) -> i32 {
        self.0.len() as i32
    }

    /// Branches back to `to` if the register is zero, or is not.
    pub(super) fn back(&mut self, to: i32, register: u32, zero: bool) -> &mut Self {
        let words = to - self.here() - 1;
        let branch = if zero { beq(register, 0, words) } else { bne(register, 0, words) };
        self.add(&[branch, NOP])
    }

    /// Branches over what `inner` adds if the two registers differ.
    pub(super) fn if_equal(&mut self, a: u32, b: u32, inner: impl FnOnce(&mut Self)) -> &mut Self {
        let at = self.0.len();
        self.add(&[NOP, NOP]);
        inner(self);
        self.0[at] = bne(a, b, (self.0.len() - at - 1) as i32);
        self
    }

    /// Adds `by` (a register) to a word or doubleword that others change too.
    pub(super) fn atomic_add(&mut self, load: u32, store: u32, at: i32, by: u32) -> &mut Self {
        let start = self.here();
        let add = if load == LLD { 0x2d } else { 0x21 };
        self.add(&[i(load, T0, DATA, at), r(add, T0, T0, by), i(store, T0, DATA, at)]);
        self.back(start, T0, true)
    }

    pub(super) fn begin(&mut self) -> &mut Self {
        self.add(&[
            0x4000_0000 | ME << 16 | 15 << 11 | 1, // mfc0 ME, EBase
            i(0x0c, ME, ME, 0x3ff),                // andi
            i(0x0f, DEVICES, 0, 0xbf00),           // lui
            i(0x0f, DATA, 0, 0x8020),
            i(0x0f, CODE, 0, 0x8030),
            ori(CODE, CODE, 0x1000),
            // Boot vectors, the IPI's line, interrupts disabled.
            i(0x0f, T0, 0, 0x40),
            ori(T0, T0, 0x800),
            mtc0(T0, 12),
        ])
    }

    /// Resets the machine.
    pub(super) fn finish(&mut self) -> &mut Self {
        self.add(&[ori(T0, 0, 0x42), i(SW, T0, DEVICES, 0x500)])
    }

    pub(super) fn hang(&mut self) -> &mut Self {
        self.add(&[beq(0, 0, -1), NOP])
    }
}

/// A generator of numbers: SplitMix64 (Steele, Lea, Flood 2014).
pub(super) struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

pub(super) fn made(endian: Endian, vcpus: u32, program: &Program) -> (Vm<Ram>, Vec<Runner>) {
    vm_of(VmParams { vcpus, ..params(endian) }, &program.0)
}

/// Runs the VCPUs in turns of chance until the VM ends; instructions executed.
fn take_turns(vm: &Vm<Ram>, runners: &mut [Runner], seed: u64) -> u64 {
    const ENOUGH: u64 = 20_000_000;
    let mut random = Random(seed);
    let clock = TestClock::default();
    let mut waits = vec![false; runners.len()];
    loop {
        let ready: Vec<_> = (0..runners.len()).filter(|&n| !waits[n]).collect();
        assert!(!ready.is_empty(), "all wait, and nobody will wake them (seed {seed})");
        let n = ready[random.below(ready.len() as u64) as usize];
        let most = if random.below(4) == 0 { 3000 } else { 60 };
        let slice = 1 + random.below(most);
        match runners[n].run(vm, &clock, slice) {
            Exit::Limit => {}
            Exit::Idle { .. } => waits[n] = true,
            Exit::Ipi { to } => {
                runners[to as usize].interrupt();
                waits[to as usize] = false;
            }
            Exit::Board => waits[0] = false,
            Exit::Reset => break,
            other => panic!("{other:?}: {}", runners[n].report(vm)),
        }
        let total: u64 = runners.iter().map(Runner::retired).sum();
        assert!(total < ENOUGH, "it gets nowhere (seed {seed})");
    }
    runners.iter().map(Runner::retired).sum()
}

/// Runs each VCPU on a thread until the VM ends.
fn run_on_threads(vm: &Vm<Ram>, runners: Vec<Runner>) {
    let posted: Vec<_> = runners.iter().map(|_| AtomicBool::new(false)).collect();
    std::thread::scope(|scope| {
        for mut runner in runners {
            let posted = &posted;
            scope.spawn(move || {
                let clock = TestClock::default();
                loop {
                    if posted[runner.number() as usize].swap(false, Ordering::SeqCst) {
                        runner.interrupt();
                    }
                    match runner.run(vm, &clock, 20_000) {
                        // There may be fewer of the host's CPUs than threads.
                        Exit::Limit | Exit::Board | Exit::Idle { .. } => std::thread::yield_now(),
                        Exit::Ipi { to } => posted[to as usize].store(true, Ordering::SeqCst),
                        Exit::Reset => break,
                        other => panic!("{other:?}: {}", runner.report(vm)),
                    }
                }
            });
        }
    });
}

fn doubleword(vm: &Vm<Ram>, offset: i32, endian: Endian) -> u64 {
    let at = Gpa(DATA_GPA + offset as u64);
    let page = vm.memory().resolve(at, Access::Read).expect("in memory");
    let mut bytes = [0; 8];
    page.copy_out(at.offset(), &mut bytes);
    endian.u64(bytes)
}

pub(super) fn word(vm: &Vm<Ram>, offset: i32, endian: Endian) -> u64 {
    let shift = if endian == Endian::Big { 32 } else { 0 };
    doubleword(vm, offset, endian) >> shift & 0xffff_ffff
}

/// What is added to the doubleword: a sum that is torn, or an addition that is lost, shows in both halves.
const ADDED: u64 = 1 << 33 | 1;

/// Each of `vcpus` counts under a lock and without, `rounds` times; then a token goes round among them, as an
/// interrupt, as often.
pub(super) fn locks_and_tokens(vcpus: u32, rounds: i32) -> Program {
    let mut p = Program::default();
    p.begin().add(&[
        addiu(LEFT, 0, rounds),
        ori(STEP, 0, 1),
        r(0x3c, STEP, 0, STEP) | 1 << 6, // dsll32 by 1
        ori(STEP, STEP, 1),
    ]);
    p.add(&[ori(T2, 0, 1)]);
    let round = p.here();
    // The lock is free, becomes taken.
    p.add(&[i(LL, T0, DATA, LOCK)]).back(round, T0, false);
    p.add(&[addiu(T0, 0, 1), i(SC, T0, DATA, LOCK)]).back(round, T0, true);
    p.add(&[SYNC, i(LD, T0, DATA, GUARDED), i(DADDIU, T0, T0, 1), i(SD, T0, DATA, GUARDED)]);
    p.add(&[SYNC, i(SW, 0, DATA, LOCK)]);
    p.atomic_add(LL, SC, WORD, T2);
    p.atomic_add(LLD, SCD, DOUBLE, STEP);
    p.add(&[addiu(LEFT, LEFT, -1)]).back(round, LEFT, false);
    // VCPU 0 begins with an interrupt of its own.
    p.add(&[addiu(LEFT, 0, rounds)]);
    let raise = 0xb00 + ipi::RAISE as i32;
    p.if_equal(ME, 0, |p| {
        p.add(&[i(SW, 0, DEVICES, raise)]);
    });
    let turn = p.here();
    p.add(&[WAIT, mfc0(T0, 13, 0), i(0x0c, T0, T0, 0x800)]).back(turn, T0, true);
    p.add(&[i(SW, ME, DEVICES, 0xb00 + ipi::CLEAR as i32)]);
    p.add(&[i(LD, T0, DATA, TOKENS), i(DADDIU, T0, T0, 1), i(SD, T0, DATA, TOKENS)]);
    p.add(&[addiu(LEFT, LEFT, -1), addiu(T1, ME, 1), addiu(T2, 0, vcpus as i32)]);
    p.if_equal(T1, T2, |p| {
        p.add(&[addiu(T1, 0, 0)]);
        // The last VCPU's last turn is the end.
        p.if_equal(LEFT, 0, |p| {
            p.finish();
        });
    });
    // Nobody's numbers are ignored.
    p.add(&[i(SW, T2, DEVICES, raise), SYNC, i(SW, T1, DEVICES, raise)]);
    p.back(turn, LEFT, false).hang();
    p
}

pub(super) fn check_totals(vm: &Vm<Ram>, endian: Endian, total: u64) {
    assert_eq!(doubleword(vm, GUARDED, endian), total, "under the lock");
    assert_eq!(word(vm, WORD, endian), total, "with ll and sc");
    assert_eq!(doubleword(vm, DOUBLE, endian), total * ADDED, "with lld and scd");
    assert_eq!(doubleword(vm, TOKENS, endian), total, "tokens");
}

#[test]
fn locks_counters_and_interrupts_are_exact_in_any_order() {
    const ROUNDS: i32 = 40;
    for seed in 0..120 {
        let vcpus = [2, 3, 4, 16][seed as usize % 4];
        let endian = if seed % 8 < 4 { Endian::Little } else { Endian::Big };
        let program = locks_and_tokens(vcpus, ROUNDS);
        let run = || {
            let (vm, mut runners) = made(endian, vcpus, &program);
            let executed = take_turns(&vm, &mut runners, seed);
            check_totals(&vm, endian, u64::from(vcpus) * ROUNDS as u64);
            executed
        };
        assert_eq!(run(), run(), "seed {seed}: the same again");
    }
}

#[test]
fn locks_counters_and_interrupts_are_exact_on_threads() {
    const ROUNDS: i32 = 400;
    for endian in [Endian::Little, Endian::Big] {
        let (vm, runners) = made(endian, 4, &locks_and_tokens(4, ROUNDS));
        run_on_threads(&vm, runners);
        check_totals(&vm, endian, 4 * ROUNDS as u64);
    }
}

/// VCPU 0 changes a function `rounds` times, and each time has all others execute it; of those, `WRONG` counts who
/// got what it was before. If `also`, VCPU 0 executes it as well: then it keeps decoded code itself. (Else it does
/// nothing at which it would notice what the others do: stores are in order where tests run.)
pub(super) fn changing_code(vcpus: u32, rounds: i32, also: bool) -> Program {
    let call = |p: &mut Program| {
        p.add(&[r(0x09, RA, CODE, 0), NOP]);
    };
    let check = |p: &mut Program, wanted: u32| {
        // xor, sltu: 1 if they differ.
        p.add(&[r(0x26, T1, V0, wanted), r(0x2b, T1, 0, T1)]).atomic_add(LL, SC, WRONG, T1);
    };
    let mut p = Program::default();
    p.begin();
    p.add(&[addiu(LEFT, 0, 0), ori(STEP, 0, 1)]);
    p.if_equal(ME, 0, |p| {
        let round = p.here();
        p.add(&[
            addiu(LEFT, LEFT, 1),
            // addiu $v0, $zero, LEFT, over what is there; and something beside it.
            i(0x0f, T0, 0, 0x2402),
            r(0x25, T0, T0, LEFT),
            i(SW, T0, CODE, 0),
            i(SW, LEFT, CODE, 0x800),
        ]);
        if also {
            p.add(&[SYNC]);
        }
        p.add(&[i(SW, LEFT, DATA, VERSION)]);
        if also {
            call(p);
            check(p, LEFT);
        }
        // SEEN counts up to LEFT × others.
        p.add(&[addiu(T1, 0, vcpus as i32 - 1), r(0x19, 0, LEFT, T1), r(0x12, T2, 0, 0)]);
        let wait = p.here();
        p.add(&[i(LW, T0, DATA, SEEN), r(0x26, T0, T0, T2)]).back(wait, T0, false);
        p.add(&[addiu(T0, LEFT, -rounds)]).back(round, T0, false);
        p.finish();
    });
    let round = p.here();
    p.add(&[addiu(LEFT, LEFT, 1)]);
    let wait = p.here();
    p.add(&[i(LW, T0, DATA, VERSION), r(0x26, T0, T0, LEFT)]).back(wait, T0, false);
    p.add(&[SYNC]);
    call(&mut p);
    check(&mut p, LEFT);
    p.add(&[SYNC]).atomic_add(LL, SC, SEEN, STEP);
    p.back(round, 0, true);
    p
}

/// The function as it is at first: it returns.
pub(super) fn place_function(vm: &Vm<Ram>, endian: Endian) {
    let page = vm.memory().resolve(Gpa(CODE_GPA), Access::Write).expect("in memory");
    for (n, word) in [NOP, r(0x08, 0, RA, 0), NOP].into_iter().enumerate() {
        page.copy_in(4 * n as u64, &endian.bytes32(word));
    }
}

#[test]
fn changed_code_is_executed_by_all_in_any_order() {
    const ROUNDS: i32 = 60;
    for seed in 0..60 {
        let vcpus = [2, 3, 5][seed as usize % 3];
        let endian = if seed % 4 < 2 { Endian::Little } else { Endian::Big };
        let (vm, mut runners) = made(endian, vcpus, &changing_code(vcpus, ROUNDS, seed % 2 == 0));
        place_function(&vm, endian);
        take_turns(&vm, &mut runners, seed);
        assert_eq!(word(&vm, WRONG, endian), 0, "seed {seed}");
        assert_eq!(word(&vm, SEEN, endian), (vcpus as u64 - 1) * ROUNDS as u64);
    }
}

#[test]
fn changed_code_is_executed_by_all_on_threads() {
    const ROUNDS: i32 = 1000;
    for also in [false, true] {
        let (vm, runners) = made(Endian::Little, 4, &changing_code(4, ROUNDS, also));
        place_function(&vm, Endian::Little);
        run_on_threads(&vm, runners);
        assert_eq!(word(&vm, WRONG, Endian::Little), 0);
        assert_eq!(word(&vm, SEEN, Endian::Little), 3 * ROUNDS as u64);
    }
}

#[test]
fn code_is_trusted_when_all_that_run_know_of_it() {
    // Calls the function for ever, from another page.
    let mut p = Program::default();
    p.begin().add(&[r(0x09, RA, CODE, 0), NOP, beq(0, 0, -3), NOP]);
    let (vm, mut runners) = made(Endian::Little, 2, &p);
    let map = vm.codes.as_ref().expect("there are several");
    let page = vm.memory().resolve(Gpa(CODE_GPA), Access::Write).expect("in memory");
    place_function(&vm, Endian::Little);
    let clock = TestClock::default();
    let mut call_with = |value: u32| {
        // As a VCPU would whose way there is fast.
        page.store32(0, Endian::Little.u32(addiu(V0, 0, value as i32).to_ne_bytes()));
        assert_eq!(runners[0].run(&vm, &clock, 100), Exit::Limit);
        runners[0].vcpu().gpr(V0 as usize)
    };
    // The other runs and has read nothing.
    map.runs(1, 0);
    assert_eq!([1, 2, 3].map(&mut call_with), [1, 2, 3]);
    // It has read that its way there is no longer fast; so it does not store so any more.
    map.runs(1, map.posts());
    assert_eq!([4, 5].map(&mut call_with), [4, 4]);
    // Pages decoded while it rests are trusted at once.
    map.opened(Gpa(CODE_GPA), page);
    map.rests(1);
    assert_eq!([6, 7].map(&mut call_with), [6, 6]);
    // Far too many posts are all posts.
    for _ in 0..1000 {
        map.opened(Gpa(CODE_GPA), page);
        map.executed(Gpa(CODE_GPA), page);
    }
    assert_eq!(call_with(8), 8);
}

#[test]
fn the_ipi_device_is_there_for_several() {
    for (endian, vcpus) in [(Endian::Little, 1), (Endian::Little, 2), (Endian::Big, 2)] {
        let mut p = Program::default();
        p.begin().add(&[i(LW, V0, DEVICES, 0xb00)]);
        for (n, (load, offset)) in
            [(LD, 0xb00), (0x25, 0xb00), (0x25, 0xb02), (0x24, 0xb01), (LW, 0xb08)]
                .iter()
                .enumerate()
        {
            p.add(&[i(*load, 3 + n as u32, DEVICES, *offset)]);
        }
        p.hang();
        let (vm, mut runners) = made(endian, vcpus, &p);
        for (n, runner) in runners.iter_mut().enumerate() {
            assert_eq!(runner.run(&vm, &TestClock::default(), 100), Exit::Limit);
            assert_eq!(runner.vcpu().gpr(ME as usize), n as u64);
            let found: [u64; 6] = core::array::from_fn(|n| runner.vcpu().gpr(2 + n));
            let id = u64::from(ipi::ID_VALUE);
            let wanted = match endian {
                _ if vcpus == 1 => {
                    assert_ne!(found[0], id, "a single VCPU has nobody to interrupt");
                    continue;
                }
                Endian::Little => [id, id, 0x5049, 0x4843, 0x50, 0],
                Endian::Big => [id, id << 32, 0x4843, 0x5049, 0x43, 0],
            };
            assert_eq!(found, wanted, "{endian}");
        }
    }
}

#[test]
fn the_board_has_vcpu_0_run_when_another_touches_it() {
    // VCPU 1 unmasks the UART's line and enables its interrupt; VCPU 0 waits for it.
    let mut p = Program::default();
    p.begin();
    let io = 22;
    p.add(&[i(0x0f, io, 0, 0xb800)]);
    p.if_equal(ME, 0, |p| {
        // IP2.
        p.add(&[i(0x0f, T0, 0, 0x40), ori(T0, T0, 0x400), mtc0(T0, 12), WAIT, mfc0(V0, 13, 0)]);
        p.finish();
    });
    for (port, value) in [(0x20, 0x11), (0x21, 0), (0x21, 4), (0x21, 1), (0x21, 0xef), (0x3f9, 2)] {
        p.add(&[ori(T0, 0, value), i(0x28, T0, io, port)]);
    }
    p.hang();
    let (vm, mut runners) = made(Endian::Little, 2, &p);
    let clock = TestClock::default();
    let mut others = runners.split_off(1);
    assert!(matches!(runners[0].run(&vm, &clock, 100), Exit::Idle { .. }));
    assert_eq!(others[0].run(&vm, &clock, 100), Exit::Board);
    assert_eq!(others[0].run(&vm, &clock, 100), Exit::Limit);
    assert_eq!(runners[0].run(&vm, &clock, 100), Exit::Reset);
    assert_eq!(runners[0].vcpu().gpr(2) & 0x400, 0x400);
    assert_eq!(others[0].run(&vm, &clock, 100), Exit::Reset, "it has ended for all");
    assert!(others[0].report(&vm).to_string().contains("of VCPU 1, by VCPU 0"));
}

#[test]
fn a_warp_and_the_budget_are_for_all() {
    let mut p = Program::default();
    p.hang();
    let params = VmParams { vcpus: 3, budget: 10_000, ..params(Endian::Little) };
    let (vm, mut runners) = vm_of(params, &p.0);
    let clock = TestClock::default();
    let mut executed = 0;
    'all: loop {
        for runner in &mut runners {
            if runner.run(&vm, &clock, 700) == Exit::Budget {
                break 'all;
            }
        }
        executed += 1;
    }
    assert!(executed > 3);
    assert_eq!(runners.iter().map(Runner::retired).sum::<u64>(), 10_000);
    assert_eq!(vm.ended(), Some(Exit::Budget));
    assert_eq!(clock.now(0), 0);
}
