//! Control flow, exceptions, and the engine's own rules.

use super::machine::{DEVICE, Machine, START, asm::*};
use crate::cpu::{CpuModel, RESET_VECTOR};
use crate::endian::Endian;
use crate::interp::Exit;

#[test]
fn a_loop_runs_to_its_exact_limit() {
    // for (r2 = 10; r2 != 0; r2--) r3 += r2
    let program =
        [addiu(2, 0, 10), addiu(3, 0, 0), r(0x21, 3, 3, 2), bne(2, 0, -2), addiu(2, 2, -1)];
    let mut machine = Machine::generic(&program);
    // The slot is executed on the last pass too: 11 passes in all.
    machine.step(2 + 11 * 3);
    assert_eq!(machine.cpu.gpr(3), 55);
    assert_eq!(machine.cpu.gpr(2), u64::MAX);
    assert_eq!(machine.cpu.pc(), START + 20);
}

#[test]
fn single_steps_equal_one_run() {
    let program = [
        addiu(2, 0, 3),
        addiu(3, 3, 1),
        bne(2, 0, -2),
        addiu(2, 2, -1),
        bnel(3, 0, 2),
        addiu(4, 4, 1),
        addiu(5, 5, 1),
        bnel(0, 0, -3),
        addiu(6, 6, 1),
        addiu(7, 7, 1),
    ];
    let mut whole = Machine::generic(&program);
    let mut steps = Machine::generic(&program);
    whole.step(18);
    for _ in 0..18 {
        steps.step(1);
    }
    for n in 0..32 {
        assert_eq!(whole.cpu.gpr(n), steps.cpu.gpr(n), "register {n}");
    }
    assert_eq!(whole.cpu.pc(), steps.cpu.pc());
    assert_eq!(whole.cpu.gpr(6), 0, "a nullified slot");
}

#[test]
fn a_delay_slot_in_the_next_page() {
    let mut machine = Machine::generic(&[]);
    let last = START + 0xffc;
    machine.place(last, &[beq(0, 0, -1), addiu(2, 2, 1), NOP]);
    machine.cpu.set_pc(last);
    machine.step(6);
    assert_eq!(machine.cpu.gpr(2), 3);
    assert_eq!(machine.cpu.pc(), last);
}

#[test]
fn exceptions_in_delay_slots_name_the_branch() {
    for (name, branch) in [("taken", beq(0, 0, 3)), ("not taken", bne(2, 0, 3))] {
        for cut in [3, 2, 1] {
            let mut machine = Machine::generic(&[NOP, branch, SYSCALL, NOP]);
            machine.step(cut);
            machine.step(3 - cut);
            assert_eq!(machine.cp0(14, 0), START + 4, "EPC, {name}, cut at {cut}");
            assert_eq!(machine.cp0(13, 0) as u32 >> 31, 1, "BD, {name}, cut at {cut}");
            assert_eq!(machine.cp0(13, 0) >> 2 & 31, 8, "ExcCode, {name}");
            assert_eq!(machine.cpu.pc(), 0xffff_ffff_8000_0180);
        }
    }
}

#[test]
fn after_a_nullified_slot_there_is_no_delay_slot() {
    let mut machine = Machine::generic(&[bnel(0, 0, 3), NOP, SYSCALL]);
    machine.step(2);
    assert_eq!(machine.cp0(14, 0), START + 8);
    assert_eq!(machine.cp0(13, 0) as u32 >> 31, 0);
}

#[test]
fn nested_exceptions_keep_epc() {
    let mut machine = Machine::generic(&[SYSCALL]);
    machine.place(0xffff_ffff_8000_0180, &[SYSCALL]);
    machine.step(3);
    assert_eq!(machine.cp0(14, 0), START);
    assert_eq!(machine.cp0(12, 0) & 2, 2, "EXL");
}

#[test]
fn reset_state() {
    let mut cpu = crate::cpu::Vcpu::with_code_pages(CpuModel::honeycomb(), Endian::Big, 1);
    assert_eq!(cpu.pc(), RESET_VECTOR);
    assert_eq!(cpu.read_cp0(12, 0, 0), 0x0040_0004);
    assert_eq!(cpu.read_cp0(16, 0, 0) as u32, 0x8000_c483);
    assert_eq!(cpu.read_cp0(15, 1, 0), 0xffff_ffff_8000_0000);
}

#[test]
fn a_refill_and_back() {
    let mut machine = Machine::generic(&[
        // ld r3, 0x10(r2) from a mapped page
        i(0x37, 3, 2, 0x10),
        addiu(4, 4, 1),
    ]);
    machine.cpu.set_gpr(2, 0x0000_0012_3456_7000);
    // The XTLB refill vector maps the pair to physical 0x8000 and 0x9000.
    machine.place(
        0xffff_ffff_8000_0080,
        &[
            ori(26, 0, 0x8 << 6 | 7),
            dmtc0(26, 2, 0),
            ori(26, 0, 0x9 << 6 | 7),
            dmtc0(26, 3, 0),
            TLBWR,
            ERET,
        ],
    );
    machine.set_doubleword(0x9010, 0x1122_3344_5566_7788);
    machine.step(1);
    assert_eq!(machine.cpu.pc(), 0xffff_ffff_8000_0080);
    assert_eq!(machine.cp0(8, 0), 0x12_3456_7010);
    assert_eq!(machine.cp0(10, 0), 0x12_3456_6000);
    assert_eq!(machine.cp0(4, 0), 0x12_3456_7010 >> 9 & 0x7f_fff0);
    machine.step(6);
    assert_eq!(machine.cpu.pc(), START);
    machine.step(2);
    assert_eq!(machine.cpu.gpr(3), 0x1122_3344_5566_7788);
    assert_eq!(machine.cpu.gpr(4), 1);
}

#[test]
fn invalid_and_modified_go_to_the_general_vector() {
    for (lo, code, store) in [(0u64, 2, false), (0, 3, true), (2, 1, true)] {
        let op = if store { 0x3f } else { 0x37 };
        let mut machine = Machine::generic(&[i(op, 3, 2, 0)]);
        machine.cpu.set_gpr(2, 0x4000);
        machine.cpu.set_tlb(
            5,
            crate::cpu::tlb::Entry {
                vpn: 0x4000,
                mask: 0,
                asid: 0,
                global: false,
                invalid: false,
                lo: [lo, 0],
            },
        );
        machine.step(1);
        assert_eq!(machine.cp0(13, 0) >> 2 & 31, code);
        assert_eq!(machine.cpu.pc(), 0xffff_ffff_8000_0180);
    }
}

#[test]
fn address_errors() {
    // Unaligned, and a kernel address from user mode.
    let mut machine = Machine::generic(&[i(0x23, 3, 2, 2)]);
    machine.cpu.set_gpr(2, 0xffff_ffff_8000_2000);
    machine.step(1);
    assert_eq!(machine.cp0(13, 0) >> 2 & 31, 4);
    assert_eq!(machine.cp0(8, 0), 0xffff_ffff_8000_2002);
    let mut machine = Machine::generic(&[NOP]);
    machine.cpu.write_cp0(12, 0, 0x3400_00f0, 0);
    machine.step(1);
    assert_eq!(machine.cp0(13, 0) >> 2 & 31, 4);
    assert_eq!(machine.cp0(14, 0), START);
}

#[test]
fn bus_errors() {
    let mut machine = Machine::generic(&[i(0x23, 3, 2, 4)]);
    machine.cpu.set_gpr(2, 0x9000_0000_0000_0000 | DEVICE);
    machine.step(1);
    assert_eq!(machine.cp0(13, 0) >> 2 & 31, 7);
    let mut machine = Machine::generic(&[r(8, 0, 2, 0), NOP]);
    machine.cpu.set_gpr(2, 0x9000_0000_0000_0000 | DEVICE);
    machine.step(3);
    assert_eq!(machine.cp0(13, 0) >> 2 & 31, 6);
    assert_eq!(machine.cp0(14, 0), 0x9000_0000_0000_0000 | DEVICE);
}

#[test]
fn stored_code_is_executed_at_once() {
    // The instruction after the store is the one that is stored.
    let mut machine = Machine::generic(&[NOP, i(0x2b, 3, 2, 8), NOP, addiu(5, 5, 1)]);
    machine.cpu.set_gpr(2, START);
    machine.cpu.set_gpr(3, u64::from(addiu(4, 0, 7)));
    machine.step(4);
    assert_eq!(machine.cpu.gpr(4), 7);
    // Again, now that it has been decoded.
    machine.cpu.set_gpr(3, u64::from(addiu(4, 0, 9)));
    machine.cpu.set_pc(START);
    machine.step(4);
    assert_eq!((machine.cpu.gpr(4), machine.cpu.gpr(5)), (9, 2));
}

#[test]
fn code_pages_are_replaced() {
    // Eight pages that each jump to the next, and four slots for decoded ones.
    let mut machine = Machine::generic(&[]);
    for n in 0..8u64 {
        let va = START + n * 0x1000;
        let next = START + (n + 1) % 8 * 0x1000;
        machine.place(va, &[0x0800_0000 | (next >> 2 & 0x3ff_ffff) as u32, addiu(2, 2, 1)]);
    }
    machine.step(8 * 2 * 3);
    assert_eq!(machine.cpu.gpr(2), 24);
}

#[test]
fn interrupts_are_taken_when_enabled() {
    let mut machine = Machine::generic(&[EI, beq(0, 0, -1), addiu(2, 2, 1)]);
    machine.board.lines = 1;
    machine.cpu.write_cp0(12, 0, 0x3400_04e0, 0);
    machine.step(1);
    assert_eq!(machine.cpu.pc(), START + 4);
    machine.step(1);
    assert_eq!(machine.cp0(14, 0), START + 4);
    assert_eq!(machine.cpu.pc(), 0xffff_ffff_8000_0184);
    assert_eq!(machine.cp0(13, 0) as u32, 0x400);
}

#[test]
fn waiting_ends_with_the_timer() {
    let mut machine = Machine::generic(&[WAIT, addiu(2, 2, 1)]);
    machine.cpu.write_cp0(9, 0, 0, 0);
    machine.cpu.write_cp0(11, 0, 160_000, 0);
    machine.cpu.write_cp0(12, 0, 0x3400_80e0, 0);
    // 160,000 ticks of 6.25 ns.
    assert_eq!(machine.run(10), Exit::Wait { until: Some(1_000_000) });
    assert_eq!(machine.run(10), Exit::Wait { until: Some(1_000_000) });
    assert_eq!(machine.cpu.retired(), 1);
    assert_eq!(machine.cpu.pc(), START + 4);
}

#[test]
fn an_unreachable_vector_is_reported() {
    let mut machine = Machine::generic(&[NOP, SYSCALL]);
    // EBase in a mapped segment, with WG.
    machine.cpu.write_cp0(15, 1, 0xffff_ffff_c000_0800, 0);
    let Exit::UnreachableVector(report) = machine.run(100) else { panic!("no report") };
    assert_eq!(report.vector, 0xffff_ffff_c000_0180);
    assert_eq!(report.epc, START + 4);
    assert_eq!(report.instruction, Some(SYSCALL));
}

#[test]
fn an_exception_loop_only_uses_up_its_limit() {
    let mut machine = Machine::generic(&[SYSCALL]);
    machine.place(0xffff_ffff_8000_0180, &[0xffff_ffff]);
    assert_eq!(machine.run(100_000), Exit::Limit);
    assert_eq!(machine.cpu.retired(), 100_000);
}

#[test]
fn unaligned_loads_and_stores_in_both_orders() {
    for endian in [Endian::Little, Endian::Big] {
        for offset in 0..8 {
            // ldl and ldr of the doubleword at that offset, then sdl and sdr of it elsewhere.
            let (left, right) = if endian == Endian::Big { (0, 7) } else { (7, 0) };
            let program = [
                i(0x1a, 3, 2, left),
                i(0x1b, 3, 2, right),
                i(0x2c, 3, 2, 0x100 + left),
                i(0x2d, 3, 2, 0x100 + right),
                i(0x22, 4, 2, left & 3),
                i(0x26, 4, 2, right & 3),
            ];
            let mut machine = Machine::new(CpuModel::mips64r2_generic(), endian, &program);
            let bytes: [u8; 16] = core::array::from_fn(|n| 0xf0 + n as u8);
            for half in 0..2u64 {
                let part = bytes[half as usize * 8..][..8].try_into().expect("eight bytes");
                machine.set_doubleword(0x4000 + 8 * half, endian.u64(part));
            }
            machine.cpu.set_gpr(2, 0xffff_ffff_8000_4000 + offset);
            machine.step(6);
            let at = offset as usize;
            let expected = endian.u64(bytes[at..at + 8].try_into().expect("eight bytes"));
            assert_eq!(machine.cpu.gpr(3), expected, "{endian}, offset {offset}");
            let word = endian.u32(bytes[at..at + 4].try_into().expect("four bytes"));
            assert_eq!(machine.cpu.gpr(4), word as i32 as u64, "{endian}, offset {offset}");
            let stored: Vec<u8> = (0..2)
                .flat_map(|half| {
                    let value = machine.doubleword(0x4100 + 8 * half);
                    if endian == Endian::Big { value.to_be_bytes() } else { value.to_le_bytes() }
                })
                .collect();
            let mut wanted = [0; 16];
            wanted[at..at + 8].copy_from_slice(&bytes[at..at + 8]);
            assert_eq!(stored, wanted, "{endian}, offset {offset}");
        }
    }
}

#[test]
fn ll_and_sc() {
    // ll r3; addiu r3, r3, 1; sc r3; then an sc without a link.
    let program =
        [i(0x30, 3, 2, 0), addiu(3, 3, 1), i(0x38, 3, 2, 0), addiu(4, 0, 9), i(0x38, 4, 2, 0)];
    let mut machine = Machine::generic(&program);
    machine.cpu.set_gpr(2, 0xffff_ffff_8000_4000);
    machine.set_doubleword(0x4000, 41);
    machine.step(5);
    assert_eq!(machine.doubleword(0x4000), 42);
    assert_eq!((machine.cpu.gpr(3), machine.cpu.gpr(4)), (1, 0));
}

#[test]
fn user_mode_may_not() {
    // mfc0, and with UX = PX = 0 a 64-bit operation.
    for (word, status, code) in
        [(mfc0(2, 12, 0), 0x2400_00f0, 11), (r(0x2d, 2, 3, 4), 0x2400_0010, 10)]
    {
        let mut machine = Machine::generic(&[]);
        machine.place(0xffff_ffff_8000_2000, &[word]);
        let entry = crate::cpu::tlb::Entry {
            vpn: 0x1_0000,
            mask: 0,
            asid: 0,
            global: true,
            invalid: false,
            lo: [2 << 6 | 7, 7],
        };
        machine.cpu.set_tlb(3, entry);
        machine.cpu.write_cp0(12, 0, status, 0);
        machine.cpu.set_pc(0x1_0000);
        machine.step(1);
        assert_eq!(machine.cp0(13, 0) >> 2 & 31, code);
        assert_eq!(machine.cp0(14, 0), 0x1_0000);
    }
}
