//! Direct execution on a fake of a real CPU, against the interpreter alone.
#![allow(unsafe_code)]

pub(crate) mod fake;
mod moves;
mod programs;
pub(crate) mod random;
mod translated;

use crate::cpu::{CpuModel, Vcpu};
use crate::direct::{self, Counters, Direct, Exit, Policy};
use crate::endian::Endian;
use crate::interp::tests::machine::{Board, MEMORY, Machine};
use crate::interp::{self, Around};
use fake::{Fake, Steps};

/// Kernel code that runs directly: CKSSEG, mapped to the same physical addresses.
const CKSSEG: u64 = 0xffff_ffff_c000_0000;

/// EntryLo of a page: cached, and V, D, G as `flags` says.
pub(crate) const fn lo(page: u64, flags: u64) -> u64 {
    page >> 12 << 6 | 3 << 3 | flags
}

/// Maps the pair of pages at `va` to two physical pages, in entry `index`.
pub(crate) fn map(cpu: &mut Vcpu, index: usize, va: u64, asid: u8, global: bool, lo: [u64; 2]) {
    let vpn = va & !0x1fff & cpu.model().segment_mask();
    let g = u64::from(global);
    let lo = lo.map(|lo| lo & !1 | g);
    let entry = crate::cpu::tlb::Entry { vpn, mask: 0, asid, global, invalid: false, lo };
    cpu.set_tlb(index, entry);
}

/// The last instructions, which the interpreter executes in any case.
pub(crate) const MARGIN: u64 = 2;

/// What came of a run.
struct Ran {
    counters: Counters,
    /// Instructions completed on the fake.
    completed: u64,
    /// Instructions in all.
    all: u64,
}

/// Runs `machine` for so many instructions, or a few more where the last ones are interpreted together; directly what `policy`
/// wants.
fn run(machine: &mut Machine, policy: Policy, instructions: u64) -> Ran {
    let Machine { cpu, memory, board } = machine;
    let before = cpu.retired();
    let steps = Steps::default();
    let mut fake = Fake::new(cpu.endian(), memory, &steps);
    fake.limit = cpu.retired() + instructions;
    let mut direct = Direct::new();
    loop {
        let left = fake.limit.saturating_sub(steps.0.get() + cpu.retired());
        if left == 0 {
            let all = steps.0.get() + cpu.retired() - before;
            return Ran { counters: *direct.counters(), completed: fake.completed, all };
        }
        let around = Around::alone(memory, board, &steps);
        // The fake does not stop between a branch and its slot, so not at every instruction.
        let policy = if left <= MARGIN { Policy::NEVER } else { policy };
        match interp::run_until(cpu, around, policy, left) {
            interp::Exit::Limit => continue,
            interp::Exit::Direct => {}
            other => panic!("{other:?}"),
        }
        let around = Around::alone(memory, board, &steps);
        let until = fake.limit - MARGIN;
        match direct::run(&mut direct, cpu, &mut fake, around, policy, 1, until) {
            Exit::Time | Exit::Interpret | Exit::Device => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Asserts that two machines are in the same state.
pub(crate) fn assert_same(one: &mut Machine, other: &mut Machine, what: &str) {
    for number in 0..32 {
        assert_eq!(one.cpu.gpr(number), other.cpu.gpr(number), "{what}: ${number}");
        assert_eq!(one.cpu.fpr(number), other.cpu.fpr(number), "{what}: $f{number}");
    }
    assert_eq!(one.cpu.hi_lo(), other.cpu.hi_lo(), "{what}: HI, LO");
    assert_eq!(one.cpu.fcsr(), other.cpu.fcsr(), "{what}: FCSR");
    assert_eq!(one.cpu.pc(), other.cpu.pc(), "{what}: PC");
    for (reg, name) in [
        (0, "Index"),
        (4, "Context"),
        (8, "BadVAddr"),
        (10, "EntryHi"),
        (12, "Status"),
        (13, "Cause"),
        (14, "EPC"),
        (20, "XContext"),
        (30, "ErrorEPC"),
    ] {
        assert_eq!(one.cp0(reg, 0), other.cp0(reg, 0), "{what}: {name}");
    }
    for index in 0..one.cpu.tlb().len() {
        assert_eq!(one.cpu.tlb().entry(index), other.cpu.tlb().entry(index), "{what}: TLB {index}");
    }
    for gpa in (0..MEMORY).step_by(8) {
        assert_eq!(one.doubleword(gpa), other.doubleword(gpa), "{what}: {gpa:#x}");
    }
}

/// All that may run directly does.
const ALL: Policy = Policy { user: true, kernel: true, exceptions: true, translated: false };

/// What a test's machine is like.
pub(crate) fn machine(model: CpuModel, endian: Endian) -> Machine {
    let mut machine = Machine::new(model, endian, &[]);
    machine.board = Board::default();
    // Count stands still: the two ways of running look at it at different times.
    machine.cpu.write_cp0(13, 0, 1 << 27, 0);
    machine
}
