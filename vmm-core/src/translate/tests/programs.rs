//! Small programs: what they cost, and that blocks of theirs come and go.

use super::rig::{Rig, WORDS};
use crate::cpu::CpuModel;
use crate::endian::Endian;
use crate::interp::tests::machine::asm::*;
use crate::interp::tests::machine::{Machine, START};
use crate::translate::Class;

const DATA: u64 = 0x9800_0000_0002_0000;

fn rig(program: &[u32]) -> Rig {
    let mut machine = Machine::new(CpuModel::honeycomb(), Endian::Big, program);
    machine.cpu.write_cp0(13, 0, 1 << 27, 0);
    Rig::new(machine, Some(Class::Cached))
}

/// `ld $2, ($4); sd $2, 8($4); daddiu $4, 8; daddiu $5, -1; bne $5, $0, back; addu $6, $6, $2`
const COPY: [u32; 6] = [
    i(0x37, 2, 4, 0),
    i(0x3f, 2, 4, 8),
    i(0x19, 4, 4, 8),
    i(0x19, 5, 5, -1),
    bne(5, 0, -5),
    r(0x21, 6, 6, 2),
];

#[test]
fn a_loop_costs_one_word_more_than_it_has() {
    let mut rig = rig(&COPY);
    rig.machine.cpu.set_gpr(4, DATA);
    rig.machine.cpu.set_gpr(5, 100);
    rig.machine.set_doubleword(0x2_0000, 7);
    // In time for all misses and chaining, not for the end: six instructions, and one XOR for two
    // accesses.
    assert!(rig.go(400));
    let before = rig.machine.cpu.gpr(5);
    assert!(rig.go(7 * 20));
    // (Where it was stopped begins a block, which is to be chained: that takes a few words.)
    assert!((19..=20).contains(&(before - rig.machine.cpu.gpr(5))));
    assert!(rig.counts.chained <= 3, "{:?}", rig.counts);
    assert_eq!(rig.machine.doubleword(0x2_0000 + 8 * 30), 7);
}

#[test]
fn a_full_cache_drops_the_oldest_and_goes_on() {
    // Four thousand jumps, each its own block: j next; addiu $2, $2, 1
    const BLOCKS: u32 = 4000;
    let mut program = Vec::new();
    for n in 0..BLOCKS {
        let next = (START as u32 & 0x0fff_ffff) + 8 * ((n + 1) % BLOCKS);
        program.extend([2 << 26 | next >> 2, addiu(2, 2, 1)]);
    }
    let mut rig = rig(&program);
    for _ in 0..12 {
        assert!(rig.go(2 * u64::from(BLOCKS)));
    }
    assert!(rig.cache.made() > u64::from(BLOCKS), "{}", rig.cache.made());
    assert!(rig.cache.dropped() > 0 && WORDS < 4 * BLOCKS as usize, "all of them find room");
    // Where it stands, and how often it has counted, agree.
    let at = (rig.machine.cpu.pc() - START) / 8;
    assert_eq!(rig.machine.cpu.gpr(2) % u64::from(BLOCKS), at);
}

#[test]
fn written_code_is_translated_anew() {
    // sw $3, 12($4); nop; b 2; nop; …: the next instruction but two becomes `addiu $2, $2, 1`.
    let mut rig = rig(&[i(0x2b, 3, 4, 12), NOP, NOP, addiu(2, 2, 64), beq(0, 0, -5), NOP]);
    rig.machine.cpu.set_gpr(3, addiu(2, 2, 1).into());
    rig.machine.cpu.set_gpr(4, START);
    assert!(rig.go(40));
    assert!(rig.counts.rewritten > 0);
    assert!(rig.machine.cpu.gpr(2) > 0 && rig.machine.cpu.gpr(2) < 64);
}

#[test]
fn a_class_that_was_guessed_wrong_is_learned() {
    // The base comes from memory: cached, it is assumed. ld $5, ($4); ld $6, ($5); b; nop
    let mut rig = rig(&[i(0x37, 5, 4, 0), i(0x37, 6, 5, 8), beq(0, 0, -3), NOP]);
    rig.machine.cpu.set_gpr(4, DATA);
    rig.machine.set_doubleword(0x2_0000, 0xffff_ffff_8002_1000);
    rig.machine.set_doubleword(0x2_1008, 5);
    assert!(rig.go(100));
    assert_eq!((rig.counts.guesses, rig.machine.cpu.gpr(6)), (1, 5));
    let before = rig.counts;
    assert!(rig.go(100));
    assert_eq!((rig.counts.faults, rig.counts.interpreted), (before.faults, before.interpreted));
}

#[test]
fn variables_whose_address_is_known_share_one_word() {
    // lui $4, 0x8002; ld $5, 8($4); sd $5, 16($4); daddiu $4, 0x7ff8; ld $6, -0x7ff0($4); daddiu $7, 1; b; sd $6, 24($4)
    let access = |opcode, rt, offset| i(opcode, rt, 4, offset);
    let mut rig = rig(&[
        i(0x0f, 4, 0, 0x8002),
        access(0x37, 5, 8),
        access(0x3f, 5, 16),
        i(0x19, 4, 4, 0x7ff8),
        access(0x37, 6, -0x7ff0),
        i(0x19, 7, 7, 1),
        beq(0, 0, -7),
        access(0x3f, 6, 24),
    ]);
    rig.machine.set_doubleword(0x2_0008, 5);
    assert!(rig.go(100));
    for at in [0x2_0008, 0x2_0010] {
        assert_eq!(rig.machine.doubleword(at), 5, "{at:#x}");
    }
    assert_eq!(rig.machine.cpu.gpr(6), 5);
    assert_eq!((rig.machine.doubleword(0x2_8010), rig.counts.guesses), (5, 0));
    // Its last store is beyond what the others reach.
    let before = rig.machine.cpu.gpr(7);
    assert!(rig.go(10 * 20));
    assert!((18..=20).contains(&(rig.machine.cpu.gpr(7) - before)));
}

#[test]
fn an_address_is_not_known_any_more_when_something_else_is_made_of_it() {
    // lui $4, 0x8002; xor $4, $4, $5; ld $6, 8($4); b; nop
    let mut rig =
        rig(&[i(0x0f, 4, 0, 0x8002), r(0x26, 4, 4, 5), i(0x37, 6, 4, 8), beq(0, 0, -4), NOP]);
    rig.machine.cpu.set_gpr(5, 0x10);
    rig.machine.set_doubleword(0x2_0008, 7);
    rig.machine.set_doubleword(0x2_0018, 5);
    assert!(rig.go(100));
    assert_eq!(rig.machine.cpu.gpr(6), 5);
}
