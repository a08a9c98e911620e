//! Small programs whose end is known.

use super::{ALL, CKSSEG, Ran, lo, machine, map, run};
use crate::cpu::CpuModel;
use crate::direct::Policy;
use crate::endian::Endian;
use crate::interp::tests::machine::Machine;
use crate::interp::tests::machine::asm::*;

/// A machine with `program` at the physical address 0x10000, mapped at 0x10000 and in CKSSEG, and
/// data pages at 0x20000; it begins in kernel mode in CKSSEG, or in user mode.
fn prepared(program: &[u32], kernel: bool) -> Machine {
    let mut machine = machine(CpuModel::honeycomb(), Endian::Little);
    machine.place(0xffff_ffff_8001_0000, program);
    let cpu = &mut machine.cpu;
    let code = if kernel { CKSSEG + 0x1_0000 } else { 0x1_0000 };
    map(cpu, 0, code, 1, kernel, [lo(0x1_0000, 2), lo(0x1_1000, 2)]);
    map(cpu, 1, 0x2_0000, 1, false, [lo(0x2_0000, 6), lo(0x2_1000, 6)]);
    cpu.write_cp0(10, 0, 1, 0);
    cpu.write_cp0(7, 0, 0xf | 1 << 29, 0);
    cpu.set_gpr(16, 0x2_0000);
    cpu.write_cp0(12, 0, if kernel { 0xe0 } else { 0xf0 }, 0);
    cpu.set_pc(code);
    machine
}

/// `ll`, some instruction, `sc`, until it succeeds; then an endless loop.
fn linked(between: u32) -> Vec<u32> {
    vec![
        i(0x30, 2, 16, 0), // ll $2, 0($16)
        addiu(2, 2, 1),
        between,
        i(0x38, 2, 16, 0), // sc $2, 0($16)
        beq(2, 0, -5),
        NOP,
        addiu(3, 3, 1),
        beq(0, 0, -2),
        NOP,
    ]
}

#[test]
fn load_linked_and_store_conditional_get_through_traps_between_them() {
    // mfc0 Status; rdhwr $29; in user mode the latter only.
    for (kernel, between) in [(true, mfc0(4, 12, 0)), (true, 0x7c05_e83b), (false, 0x7c05_e83b)] {
        let mut machine = prepared(&linked(between), kernel);
        let Ran { counters, .. } = run(&mut machine, ALL, 3000);
        assert_eq!(machine.doubleword(0x2_0000) & 0xffff_ffff, 1, "{kernel} {between:#x}");
        assert_eq!(counters.linked, 1);
        assert!(machine.cpu.gpr(3) > 100, "goes on");
    }
}

#[test]
fn loops_that_take_a_lock_and_then_trap_stay_direct() {
    // The trap comes after the conditional store, at the same address every time.
    let program = [
        i(0x30, 2, 16, 0),
        addiu(2, 2, 1),
        i(0x38, 2, 16, 0),
        mfc0(4, 12, 0),
        addiu(3, 3, 1),
        beq(0, 0, -6),
        NOP,
    ];
    let mut machine = prepared(&program, true);
    let Ran { counters, .. } = run(&mut machine, ALL, 700);
    assert_eq!(counters.linked, 0);
    assert_eq!(machine.cpu.gpr(3), 100);
}

#[test]
fn what_tlb_instructions_overwrite_is_not_used_again() {
    // Loads through page 0x20000, maps it elsewhere by tlbwi, loads again; and again, globally.
    let program = [
        i(0x37, 2, 16, 0),
        NOP,
        dmtc0(10, 0, 0),  // Index
        dmtc0(11, 10, 0), // EntryHi
        dmtc0(12, 2, 0),  // EntryLo0
        dmtc0(13, 3, 0),  // EntryLo1
        0x4200_0002,      // tlbwi
        i(0x37, 3, 16, 0),
        dmtc0(14, 2, 0),
        dmtc0(14, 3, 0),
        0x4200_0002,
        i(0x37, 4, 16, 0),
        dmtc0(12, 2, 0),
        0x4200_0002,
        i(0x37, 5, 16, 0),
        beq(0, 0, -1),
        NOP,
    ];
    for policy in [ALL, Policy { exceptions: false, ..ALL }] {
        let mut machine = prepared(&program, true);
        for (page, value) in [(0x2_0000, 0xaaaa), (0x2_2000, 0xbbbb), (0x2_4000, 0xcccc)] {
            machine.set_doubleword(page, value);
        }
        machine.cpu.set_gpr(10, 1);
        machine.cpu.set_gpr(11, 0x2_0000 | 1);
        machine.cpu.set_gpr(12, lo(0x2_2000, 6));
        machine.cpu.set_gpr(13, lo(0x2_3000, 6));
        machine.cpu.set_gpr(14, lo(0x2_4000, 7));
        let Ran { counters, .. } = run(&mut machine, policy, 100);
        let found = [2, 3, 4, 5].map(|number| machine.cpu.gpr(number));
        assert_eq!(found, [0xaaaa, 0xbbbb, 0xcccc, 0xbbbb]);
        assert!(counters.filled >= 4, "{counters:?}");
    }
}

#[test]
fn stores_to_interpreted_code_are_seen() {
    // The interpreter executes the kernel's page at 0x10000; user code mapped onto it changes it.
    let mut machine = prepared(&[i(0x2b, 2, 16, 0x40), SYSCALL, beq(0, 0, -1), NOP], false);
    let handler = [
        r(0x2d, 7, 6, 0),
        0x0800_4010, // j to 0x80010040, which the user's store has changed
        NOP,
    ];
    machine.place(0xffff_ffff_8000_0180, &handler);
    machine.place(0xffff_ffff_8001_0040, &[addiu(6, 0, 1), beq(0, 0, -1), NOP]);
    map(&mut machine.cpu, 1, 0x2_0000, 1, false, [lo(0x1_0000, 6), lo(0x2_1000, 6)]);
    machine.cpu.set_gpr(2, addiu(6, 0, 2).into());
    // Decoded before: in kernel mode at the same place.
    let back = machine.cpu.pc();
    machine.cpu.write_cp0(12, 0, 0xe0, 0);
    machine.cpu.set_pc(0xffff_ffff_8001_0040);
    machine.step(1);
    assert_eq!(machine.cpu.gpr(6), 1);
    machine.cpu.write_cp0(12, 0, 0xf0, 0);
    machine.cpu.set_pc(back);
    run(&mut machine, ALL, 40);
    assert_eq!(machine.cpu.gpr(6), 2);
}

#[test]
fn stores_get_through_when_decoded_code_has_gone_by_itself() {
    // Loads from a page of interpreted code (so that its translation is known, without D), has the kernel
    // execute more pages than the interpreter keeps, and stores.
    let program = [
        i(0x23, 3, 16, 0x40),
        SYSCALL,
        i(0x2b, 2, 16, 0x40),
        i(0x23, 4, 16, 0x40),
        beq(0, 0, -1),
        NOP,
    ];
    let mut machine = prepared(&program, false);
    let handler = [mfc0(26, 14, 0), addiu(26, 26, 4), dmtc0(26, 14, 0), 0x0800_0800, NOP];
    machine.place(0xffff_ffff_8000_0180, &handler);
    const PAGES: u64 = 6;
    for page in 0..PAGES {
        let at = 0x2000 + page * 0x1000;
        let next = [0x0800_0000 | (at as u32 + 0x1000) >> 2, NOP];
        machine.place(0xffff_ffff_8000_0000 | at, &next);
    }
    machine.place(0xffff_ffff_8000_2000 + PAGES * 0x1000, &[ERET]);
    machine.place(0xffff_ffff_8003_0040, &[addiu(6, 0, 1), beq(0, 0, -1), NOP]);
    map(&mut machine.cpu, 1, 0x2_0000, 1, false, [lo(0x3_0000, 6), lo(0x2_1000, 6)]);
    machine.cpu.set_gpr(2, 0x1234);
    let back = machine.cpu.pc();
    machine.cpu.write_cp0(12, 0, 0xe0, 0);
    machine.cpu.set_pc(0xffff_ffff_8003_0040);
    machine.step(1);
    machine.cpu.write_cp0(12, 0, 0xf0, 0);
    machine.cpu.set_pc(back);
    run(&mut machine, ALL, 100);
    assert_eq!(machine.cpu.gpr(3), u64::from(addiu(6, 0, 1)));
    assert_eq!(machine.cpu.gpr(4), 0x1234);
}

#[test]
fn code_that_user_mode_has_no_translation_of_is_the_kernel_s_to_find_and_then_runs() {
    // A jump to another page, whose translation the handler puts in.
    let mut machine = prepared(&[r(0x08, 0, 8, 0), NOP], false);
    machine.place(0xffff_ffff_8001_2000, &[addiu(6, 0, 7), beq(0, 0, -1), NOP]);
    let handler = [dmtc0(12, 2, 0), dmtc0(13, 3, 0), 0x4200_0006, ERET];
    machine.place(0xffff_ffff_8000_0080, &handler);
    for (number, value) in [(8, 0x3_0000), (12, lo(0x1_2000, 2)), (13, lo(0x1_3000, 2))] {
        machine.cpu.set_gpr(number, value);
    }
    let Ran { counters, .. } = run(&mut machine, ALL, 60);
    assert_eq!(machine.cpu.gpr(6), 7);
    // EPC, BadVAddr, Cause.
    assert_eq!((machine.cp0(14, 0), machine.cp0(8, 0)), (0x3_0000, 0x3_0000));
    assert_eq!(machine.cp0(13, 0) >> 2 & 31, 2);
    // No interpreter was asked.
    assert_eq!((counters.faults, counters.emulated), (1, 0), "{counters:?}");
}
