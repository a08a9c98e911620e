//! Whole VMs running a few instructions.

use super::runner::STATUS_BEV;
use super::*;
use crate::cpu::Vcpu;
use crate::image::tests::{Builder, Ram};
use crate::time::Clock;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::cell::Cell;

const MB: u64 = 1 << 20;
const BASE: u64 = 0xffff_ffff_8010_0000;

/// Ten nanoseconds an instruction, and jumps.
#[derive(Default)]
pub(super) struct TestClock(Cell<u64>);

impl TestClock {
    /// Lets time pass until `then` while nothing executes.
    pub(super) fn jump_to(&self, then: u64, retired: u64) {
        self.0.set(self.0.get() + then.saturating_sub(self.now(retired)));
    }
}

impl Clock for TestClock {
    fn now(&self, retired: u64) -> u64 {
        retired * 10 + self.0.get()
    }
}

const ZERO: u32 = 0;
const A0: u32 = 4;
const T0: u32 = 12;
const T1: u32 = 13;
const T2: u32 = 14;
const T3: u32 = 15;
const S0: u32 = 16;
const SP: u32 = 29;

fn lui(rt: u32, imm: u32) -> u32 {
    0x3c00_0000 | rt << 16 | imm
}
fn ori(rt: u32, rs: u32, imm: u32) -> u32 {
    0x3400_0000 | rs << 21 | rt << 16 | imm
}
fn andi(rt: u32, rs: u32, imm: u32) -> u32 {
    0x3000_0000 | rs << 21 | rt << 16 | imm
}
fn sb(rt: u32, base: u32, offset: u32) -> u32 {
    0xa000_0000 | base << 21 | rt << 16 | offset
}
fn lbu(rt: u32, base: u32, offset: u32) -> u32 {
    0x9000_0000 | base << 21 | rt << 16 | offset
}
fn sw(rt: u32, base: u32, offset: u32) -> u32 {
    0xac00_0000 | base << 21 | rt << 16 | offset
}
fn sd(rt: u32, base: u32, offset: u32) -> u32 {
    0xfc00_0000 | base << 21 | rt << 16 | offset
}
fn subu(rd: u32, rs: u32, rt: u32) -> u32 {
    rs << 21 | rt << 16 | rd << 11 | 0x23
}
fn mfc0(rt: u32, rd: u32) -> u32 {
    0x4000_0000 | rt << 16 | rd << 11
}
fn mtc0(rt: u32, rd: u32) -> u32 {
    0x4080_0000 | rt << 16 | rd << 11
}
/// Branch by `words` from the instruction after it; `beq`/`bne` against $zero.
fn beqz(rs: u32, words: i16) -> u32 {
    0x1000_0000 | rs << 21 | u32::from(words as u16)
}
fn bnez(rs: u32, words: i16) -> u32 {
    0x1400_0000 | rs << 21 | u32::from(words as u16)
}
const NOP: u32 = 0;
const WAIT: u32 = 0x4200_0020;
const BREAK: u32 = 0x0000_000d;
const COUNT: u32 = 9;
const COMPARE: u32 = 11;
const STATUS: u32 = 12;
/// The loop that never ends.
const HANG: [u32; 2] = [0x1000_ffff, NOP];

/// Resets the machine.
const FINISH: [u32; 3] = [0x3c0c_bf00, 0x340d_0042, 0xad8d_0500];

fn image(endian: Endian, code: &[u32]) -> Vec<u8> {
    let mut builder = Builder::new(endian);
    let bytes: Vec<u8> = code.iter().flat_map(|&w| endian.bytes32(w)).collect();
    let len = bytes.len() as u64;
    builder.segments = alloc::vec![(BASE, 0, bytes, len)];
    builder.entry = BASE;
    builder.build()
}

pub(super) fn params(endian: Endian) -> VmParams {
    VmParams {
        endian,
        model: CpuModel::honeycomb(),
        vcpus: 1,
        memory: 4 * MB,
        epoch_s: 1_700_000_000,
        console_rate: 1_000_000,
        clock_scale: 1,
        budget: 0,
        seed: [0; 32],
        engine: Engine::Direct,
        code_words: heap::CODE_WORDS[0],
    }
}

/// A VM of one VCPU, with it.
pub(super) struct Single {
    pub vm: Vm<Ram>,
    pub cpu: Runner,
}

impl Single {
    pub fn run(&mut self, clock: &impl Clock, limit: u64) -> Exit {
        self.cpu.run(&self.vm, clock, limit)
    }

    pub fn vcpu(&self) -> &Vcpu {
        self.cpu.vcpu()
    }

    pub fn retired(&self) -> u64 {
        self.cpu.retired()
    }

    pub fn report(&self) -> Report {
        self.cpu.report(&self.vm)
    }

    fn take_output(&self, sink: &mut dyn FnMut(&[u8])) {
        self.vm.take_output(sink);
    }
}

pub(super) fn vm_of(params: VmParams, code: &[u32]) -> (Vm<Ram>, Vec<Runner>) {
    let kernel = image(params.endian, code);
    let images = Images { kernel: &kernel, initrd: None, cmdline: "" };
    Vm::new(params, Ram::new(4 * MB), &images).unwrap()
}

pub(super) fn vm_with(params: VmParams, code: &[u32]) -> Single {
    let (vm, mut runners) = vm_of(params, code);
    Single { vm, cpu: runners.remove(0) }
}

fn vm(code: &[u32]) -> Single {
    vm_with(params(Endian::Little), code)
}

#[test]
fn starts_as_firmware_would_and_resets() {
    for endian in [Endian::Little, Endian::Big] {
        let mut vm = vm_with(params(endian), &FINISH);
        assert_eq!(vm.vcpu().pc(), BASE);
        assert_eq!(vm.vcpu().gpr(4), 2);
        assert_eq!(vm.vcpu().gpr(7), 4 * MB);
        assert_eq!(u64::from(vm.vcpu().cp0().status.bits()), STATUS_BEV);
        assert_eq!(vm.run(&TestClock::default(), 1000), Exit::Reset, "{endian}");
        assert_eq!(vm.run(&TestClock::default(), 1000), Exit::Reset, "it stays ended");
        assert_eq!(vm.retired(), 3);
    }
}

#[test]
fn the_interpreter_alone_if_so_configured() {
    for (engine, user) in [(Engine::Direct, true), (Engine::Interpreter, false)] {
        let single = vm_with(VmParams { engine, ..params(Endian::Little) }, &FINISH);
        assert_eq!(single.vm.policy, Policy { user, ..Policy::NEVER });
    }
}

#[test]
fn prints_and_reads_at_the_console() {
    // Echoes whatever it gets, one byte at a time, for ever.
    let code = [
        lui(T0, 0xb800),
        lbu(T1, T0, 0x3fd),
        andi(T1, T1, 1),
        beqz(T1, -3),
        NOP,
        lbu(T2, T0, 0x3f8),
        beqz(ZERO, -6),
        sb(T2, T0, 0x3f8),
    ];
    let mut vm = vm(&code);
    let clock = TestClock::default();
    let mut printed = Vec::new();
    assert_eq!(vm.vm.input(b"hello"), 5);
    for _ in 0..100 {
        assert_eq!(vm.run(&clock, 10_000), Exit::Limit);
        vm.take_output(&mut |bytes| printed.extend_from_slice(bytes));
    }
    assert_eq!(printed, b"hello");
}

#[test]
fn waits_until_its_timer_in_the_owners_time() {
    let code = [
        mfc0(T0, COUNT),
        lui(T1, 0x10),
        0x018d_6021, // addu t0, t0, t1: 2^20 ticks on
        mtc0(T0, COMPARE),
        ori(T2, ZERO, 0x8000),
        mtc0(T2, STATUS), // the timer's line, interrupts disabled
        WAIT,
        FINISH[0],
        FINISH[1],
        FINISH[2],
    ];
    for scale in [1, 3] {
        let mut vm = vm_with(VmParams { clock_scale: scale, ..params(Endian::Little) }, &code);
        let clock = TestClock::default();
        let Exit::Idle { until: Some(until) } = vm.run(&clock, 1000) else { panic!("no wait") };
        let virtual_ns = (1u64 << 20) * 25 / 4;
        assert!(until.abs_diff(virtual_ns * u64::from(scale)) < 1000, "{until}");
        clock.0.set(until - clock.now(vm.retired()) - 1000 * u64::from(scale));
        assert!(matches!(vm.run(&clock, 1000), Exit::Idle { .. }), "too early");
        clock.0.set(until);
        assert_eq!(vm.run(&clock, 1000), Exit::Reset);
    }
}

#[test]
fn budget_is_exact_and_ends_it() {
    let mut vm = vm_with(VmParams { budget: 12_345, ..params(Endian::Little) }, &HANG);
    let clock = TestClock::default();
    let mut exit = Exit::Limit;
    while exit == Exit::Limit {
        exit = vm.run(&clock, 1000);
    }
    assert_eq!((exit, vm.retired()), (Exit::Budget, 12_345));
}

#[test]
fn unreachable_vector_ends_it_with_a_report() {
    let mut vm = vm(&[NOP, BREAK]);
    assert_eq!(vm.run(&TestClock::default(), 1_000_000), Exit::UnreachableVector);
    let report = vm.report().to_string();
    for part in ["handler at ffffffffbfc00380", "bus error", "ffffffff80100004", "0000000d"] {
        assert!(report.contains(part), "{part} is not in {report}");
    }
}

/// Count between two rising edges of the RTC's update bit, into s0.
pub(super) fn calibration() -> Vec<u32> {
    let poll = |wanted: bool| {
        [
            sb(T1, T0, 0x70),
            lbu(T2, T0, 0x71),
            andi(T2, T2, 0x80),
            if wanted { beqz(T2, -4) } else { bnez(T2, -4) },
            NOP,
        ]
    };
    let mut code = alloc::vec![lui(T0, 0xb800), ori(T1, ZERO, 0x0a)];
    code.extend(poll(false));
    code.extend(poll(true));
    code.push(mfc0(T3, COUNT));
    code.extend(poll(false));
    code.extend(poll(true));
    code.push(mfc0(S0, COUNT));
    code.push(subu(S0, S0, T3));
    code.extend(FINISH);
    code
}

#[test]
fn calibration_sees_160_mhz_and_costs_little() {
    let code = calibration();
    // However the owner cuts the run into slices, and whatever else runs in between.
    for (limit, pause) in [(1 << 40, 0), (101, 0), (300, 10_000_000), (1000, 10_000_000)] {
        let mut vm = vm(&code);
        let clock = TestClock::default();
        let mut exit = Exit::Limit;
        while exit == Exit::Limit {
            exit = vm.run(&clock, limit);
            clock.0.set(clock.0.get() + pause);
        }
        assert_eq!(exit, Exit::Reset);
        let measured = vm.vcpu().gpr(S0 as usize);
        if pause == 0 {
            assert!(vm.retired() < 2_000, "{} instructions", vm.retired());
            assert!(measured.abs_diff(160_000_000) < 1_600, "{measured}");
        } else {
            assert!(measured.abs_diff(160_000_000) < 1_600_000, "{measured} in slices of {limit}");
        }
    }
}

#[test]
fn slices_do_not_show() {
    // A counter, stored, with a console byte now and then.
    let code = [
        lui(T0, 0x8020),
        lui(T2, 0xb800),
        0x25ad_0001, // addiu t1, t1, 1
        sd(T1, T0, 0),
        sw(A0, T0, 8),
        sw(SP, T0, 12),
        andi(T3, T1, 0xff),
        bnez(T3, -6),
        NOP,
        beqz(ZERO, -8),
        sb(T1, T2, 0x3f8),
    ];
    let run = |limit| {
        let mut vm = vm_with(VmParams { budget: 1_000_000, ..params(Endian::Little) }, &code);
        let mut printed = Vec::new();
        loop {
            let exit = vm.run(&TestClock::default(), limit);
            vm.take_output(&mut |bytes| printed.extend_from_slice(bytes));
            if exit == Exit::Budget {
                return (printed, vm.report().to_string());
            }
        }
    };
    let whole = run(u64::MAX);
    assert!(whole.0.len() > 100);
    for limit in [1, 999, 4096] {
        assert_eq!(run(limit), whole);
    }
}
