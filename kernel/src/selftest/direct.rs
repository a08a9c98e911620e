//! `debug direct`: entry into a guest and exit from it, TLB refill, and the real CPU's other duties, in
//! each mode that a guest runs in.

use super::rig::{MODES, Mode, READ, Rig, WRITE, code};
use crate::direct::thread_reads;
use abi::prom::L2_SETS;
use alloc::format;
use alloc::string::String;
use vmm_core::direct::{Entry, RealCpu, common_tag, tag};

const SYSCALL: u32 = 0xc;
const NOP: u32 = 0;
const SDBBP: u32 = 0x7000_003f;
/// `rdhwr $3, $29`
const THREAD_DATA: u32 = 0x7c03_e83b;
/// `ll $2, 0($4)`
const LL: u32 = 0xc082_0000;
/// `beq $0, $0, .`
const FOREVER: u32 = 0x1000_ffff;
/// `beq $0, $0, . + 8`
const OVER: u32 = 0x1000_0001;
/// `jr $4`
const JUMP: u32 = 0x0080_0008;
/// `lw $2, 0($4)`
const LOAD: u32 = 0x8c82_0000;
/// `sw $4, 0($4)`
const STORE: u32 = 0xac84_0000;

/// `addiu reg, reg, n`
const fn add(reg: u32, n: u32) -> u32 {
    0x2400_0000 | reg << 21 | reg << 16 | n & 0xffff
}

/// Exception codes.
mod codes {
    pub(super) const INT: u32 = 0;
    pub(super) const MOD: u32 = 1;
    pub(super) const TLBL: u32 = 2;
    pub(super) const ADEL: u32 = 4;
    pub(super) const SYS: u32 = 8;
    pub(super) const RI: u32 = 10;
    pub(super) const CPU: u32 = 11;
}

type Outcome = Result<(), String>;
type Check = fn(&mut Rig) -> Outcome;

const CHECKS: [(&str, Check); 16] = [
    ("registers", registers),
    ("time", time),
    ("both ways of the L2TLB", ways),
    ("what address spaces have in common", common),
    ("large pages", large),
    ("more pages than the TLB has entries", many),
    ("a page that is nowhere", nowhere),
    ("a page that may not be written", read_only),
    ("another address space", other_space),
    ("pages forgotten", forgotten),
    ("everything forgotten", all_forgotten),
    ("an odd address", odd),
    ("thread data", thread_data),
    ("load-linked", linked),
    ("sdbbp", sdbbp),
    ("floating point", floating_point),
];

/// All checks in all modes.
pub(super) fn run() -> String {
    let mut passed = 0;
    for mode in MODES {
        for (name, check) in CHECKS {
            if let Err(why) = check(&mut Rig::new(mode)) {
                return format!("direct execution FAILED: {}: {name}: {why}\n", mode.name);
            }
            passed += 1;
        }
    }
    format!("direct execution: {passed} checks passed\n")
}

/// `Err` unless the values are equal.
fn same<T: PartialEq + core::fmt::LowerHex>(what: &str, found: T, wanted: T) -> Outcome {
    if found == wanted {
        return Ok(());
    }
    Err(format!("{what} is {found:#x}, not {wanted:#x}"))
}

/// An address in the mode's segment with nothing there, `n` pairs of pages after the code's 256.
fn elsewhere(mode: Mode, n: u64) -> u64 {
    mode.code + (256 + n) * 0x2000
}

fn registers(rig: &mut Rig) -> Outcome {
    let pattern = |reg: u64| 0x0123_4567 * reg & 0x3fff_ffff;
    let mut program = [NOP; 34];
    for reg in 1..32 {
        program[reg as usize] = add(reg, 5 * reg);
        rig.vcpu.set_gpr(reg as usize, pattern(u64::from(reg)));
    }
    // $4 and $5 go to HI and LO on the second round.
    program[32] = SYSCALL;
    rig.vcpu.set_hi_lo(0x1111_2222, 0x3333_4444);
    let trapped = rig.run(&program);
    same("the exception", code(&trapped), codes::SYS)?;
    same("the instruction", rig.at(), 32)?;
    for reg in 1..32 {
        same(&format!("${reg}"), rig.vcpu.gpr(reg as usize), pattern(reg) + 5 * reg)?;
    }
    same("HI", rig.vcpu.hi_lo().0, 0x1111_2222)?;
    same("LO", rig.vcpu.hi_lo().1, 0x3333_4444)?;
    // mthi $4; mtlo $5
    rig.run(&[0x0080_0011, 0x00a0_0013, SYSCALL]);
    same("HI", rig.vcpu.hi_lo().0, rig.vcpu.gpr(4))?;
    same("LO", rig.vcpu.hi_lo().1, rig.vcpu.gpr(5))
}

fn time(rig: &mut Rig) -> Outcome {
    let mut entry = rig.entry();
    entry.until -= 19_000_000;
    let trapped = rig.run_as(&[NOP, FOREVER, NOP], &entry);
    same("the exception", code(&trapped), codes::INT)?;
    if rig.at() != 1 {
        return Err(format!("interrupted at instruction {}", rig.at()));
    }
    Ok(())
}

/// Maps both pages of data at `va`.
fn map(rig: &mut Rig, va: u64, flags: u64) -> Option<u64> {
    let lo = rig.data_pages().map(|page| page | flags);
    rig.l2.insert(tag(va, rig.asid), lo)
}

/// Loads the words at `$4` and `$5` into `$2` and `$3`.
const LOAD_TWO: [u32; 3] = [LOAD, 0x8ca3_0000, SYSCALL];

fn set_words(rig: &mut Rig, words: [u64; 2]) {
    // The same word in both halves: in either byte order.
    rig.set_data(0, words[0] << 32 | words[0]);
    rig.set_data(1, words[1] << 32 | words[1]);
}

fn ways(rig: &mut Rig) -> Outcome {
    // Of one address space, so that their sets differ only by their numbers.
    let [first, second] = [0, L2_SETS as u64].map(|n| elsewhere(rig.mode, n));
    set_words(rig, [0x111, 0x222]);
    map(rig, first, READ);
    map(rig, second, READ);
    rig.vcpu.set_gpr(4, first);
    rig.vcpu.set_gpr(5, second | 0x1000);
    let trapped = rig.run(&LOAD_TWO);
    same("the exception", code(&trapped), codes::SYS)?;
    same("the first way's word", rig.vcpu.gpr(2), 0x111)?;
    same("the second way's word", rig.vcpu.gpr(3), 0x222)
}

/// The number of what address spaces have in common.
const COMMON: u16 = 0x1fe;

fn common(rig: &mut Rig) -> Outcome {
    // In one set.
    let [first, second, third] = [0, L2_SETS as u64, 1].map(|n| elsewhere(rig.mode, n));
    set_words(rig, [0x111, 0x222]);
    let data = rig.data_pages().map(|page| page | READ);
    for va in [first, second, third] {
        rig.l2.insert(common_tag(va, COMMON), data);
    }
    let code_page = rig.l2.lookup(tag(rig.mode.code, rig.asid)).ok_or("there is no code")?;
    rig.l2.insert(common_tag(rig.mode.code, COMMON), code_page);
    let mut entry = rig.entry();
    entry.common = COMMON;
    let other = Entry { asid: entry.asid ^ 0xff, ..entry };
    let other = Entry { asid: if other.asid == 0 { 1 } else { other.asid }, ..other };
    // What this address space may have had is not the test's.
    for va in [rig.mode.code, first, second] {
        rig.cpu.forget_pair(tag(va, other.asid));
    }
    for entry in [entry, other] {
        rig.vcpu.set_gpr(2, 0);
        rig.vcpu.set_gpr(3, 0);
        rig.vcpu.set_gpr(4, first);
        rig.vcpu.set_gpr(5, second | 0x1000);
        let trapped = rig.run_as(&LOAD_TWO, &entry);
        same("the exception", code(&trapped), codes::SYS)?;
        same("the first way's word", rig.vcpu.gpr(2), 0x111)?;
        same("the second way's word", rig.vcpu.gpr(3), 0x222)?;
    }
    // What the other address space has now is nobody's.
    for va in [rig.mode.code, first, second] {
        rig.cpu.forget_pair(tag(va, other.asid));
    }
    // There is no way back to an odd address.
    rig.vcpu.set_gpr(4, third | 1);
    let trapped = rig.run_as(&[JUMP, NOP], &entry);
    same("the program counter", rig.vcpu.pc(), third | 1)?;
    if ![codes::TLBL, codes::ADEL].contains(&code(&trapped)) {
        return Err(format!("a jump there ends in exception {}", code(&trapped)));
    }
    // To who has nothing in common it is not there.
    must_miss(rig, third)
}

fn large(rig: &mut Rig) -> Outcome {
    const MASK: u32 = 0x1_e000;
    const SIZE: u64 = 0x1_0000;
    set_words(rig, [0x111, 0x222]);
    let [page, other] = rig.data_pages();
    // The 64 KB around the first page of data, twice.
    let offset = (page >> 6 & 0xf) * 0x1000;
    let lo = [(page & !(0xf << 6)) | READ; 2];
    let [va, small] = [0, 64].map(|n| elsewhere(rig.mode, n).next_multiple_of(2 * SIZE));
    rig.l2.insert_masked(common_tag(va + offset, COMMON), lo, MASK);
    let mut entry = rig.entry();
    entry.common = COMMON;
    rig.vcpu.set_gpr(4, va + offset);
    // Of the other half the L2TLB knows nothing.
    rig.vcpu.set_gpr(5, va + SIZE + offset);
    let trapped = rig.run_as(&LOAD_TWO, &entry);
    same("the exception", code(&trapped), codes::SYS)?;
    same("the word", rig.vcpu.gpr(2), 0x111)?;
    same("the other half's word", rig.vcpu.gpr(3), 0x111)?;
    // What comes next is small again.
    rig.l2.insert(tag(small, rig.asid), [other | READ; 2]);
    rig.vcpu.set_gpr(4, small);
    same("the exception", code(&rig.run(&[LOAD, SYSCALL])), codes::SYS)?;
    same("the small page's word", rig.vcpu.gpr(2), 0x222)?;
    must_miss(rig, small + 0x2000)?;
    // As is what is put in without a miss.
    rig.cpu.install(tag(va, rig.asid), lo, MASK);
    rig.cpu.install(tag(small, rig.asid), [other | READ; 2], 0);
    must_miss(rig, small + 0x2000)?;
    // All of it goes.
    rig.l2.forget(common_tag(va + offset, COMMON));
    rig.cpu.forget_pair(tag(va + SIZE, rig.asid));
    must_miss(rig, va + offset)
}

/// Adds the words at `$4`, `$4 + $6`, … (`$5` of them) to `$2`.
const SUM: [u32; 7] =
    // lw $7, 0($4); addu $2, $2, $7; addiu $5, $5, -1; bne $5, $0, . - 12
    [0x8c87_0000, 0x0047_1021, 0x24a5_ffff, 0x14a0_fffc, ADVANCE, SYSCALL, NOP];
/// `daddu $4, $4, $6`, or with 32-bit operations `addu`.
const ADVANCE: u32 = 0x0086_202d;
const ADVANCE_32: u32 = 0x0086_2021;

fn many(rig: &mut Rig) -> Outcome {
    const PAIRS: u64 = 300;
    set_words(rig, [3, 5]);
    for n in 0..PAIRS {
        map(rig, elsewhere(rig.mode, n), READ);
    }
    let mut program = SUM;
    if !rig.mode.wide {
        program[4] = ADVANCE_32;
    }
    for round in 1..=5 {
        rig.vcpu.set_gpr(2, 0);
        rig.vcpu.set_gpr(4, elsewhere(rig.mode, 0));
        rig.vcpu.set_gpr(5, 2 * PAIRS);
        rig.vcpu.set_gpr(6, 0x1000);
        let trapped = rig.run(&program);
        same("the exception", code(&trapped), codes::SYS)?;
        same(&format!("the sum of round {round}"), rig.vcpu.gpr(2), 8 * PAIRS)?;
    }
    Ok(())
}

/// A load at `va` that must trap.
fn must_miss(rig: &mut Rig, va: u64) -> Outcome {
    rig.vcpu.set_gpr(4, va);
    let trapped = rig.run(&[NOP, LOAD, SYSCALL]);
    same("the exception", code(&trapped), codes::TLBL)?;
    same("its address", trapped.bad_vaddr, va)?;
    same("the instruction", rig.at(), 1)
}

fn nowhere(rig: &mut Rig) -> Outcome {
    let va = elsewhere(rig.mode, 7);
    must_miss(rig, va | 8)?;
    // In a delay slot.
    let trapped = rig.run(&[NOP, OVER, LOAD, SYSCALL]);
    same("the exception", code(&trapped), codes::TLBL)?;
    same("Cause.BD", trapped.cause >> 31, 1)?;
    same("the branch", rig.at(), 1)?;
    // One page of the pair.
    let page = rig.data_pages()[0];
    rig.l2.insert(tag(va, rig.asid), [page | READ, 0]);
    rig.vcpu.set_gpr(4, va);
    same("the exception", code(&rig.run(&[LOAD, SYSCALL])), codes::SYS)?;
    must_miss(rig, va | 0x1000)
}

fn read_only(rig: &mut Rig) -> Outcome {
    let va = elsewhere(rig.mode, 7);
    map(rig, va, READ);
    rig.vcpu.set_gpr(4, va);
    let trapped = rig.run(&[STORE, SYSCALL]);
    same("the exception", code(&trapped), codes::MOD)?;
    same("its address", trapped.bad_vaddr, va)?;
    same("the word", rig.data(0), 0)?;
    // The real TLB has an entry, which is replaced.
    map(rig, va, WRITE);
    let lo = rig.data_pages().map(|page| page | WRITE);
    rig.cpu.install(tag(va, rig.asid), lo, 0);
    let entry = rig.entry();
    same("the exception", code(&rig.go_on(&entry)), codes::SYS)?;
    let word = va & 0xffff_ffff;
    let stored = rig.data(0);
    same("the word", if cfg!(target_endian = "big") { stored >> 32 } else { stored }, word)
}

fn other_space(rig: &mut Rig) -> Outcome {
    let va = elsewhere(rig.mode, 7);
    map(rig, va, READ);
    rig.vcpu.set_gpr(4, va);
    same("the exception", code(&rig.run(&[LOAD, SYSCALL])), codes::SYS)?;
    let mut other = rig.entry();
    other.asid ^= 0xff;
    if other.asid == 0 {
        other.asid = 1;
    }
    // What this address space may have had is not the test's.
    let pair = tag(va, other.asid);
    rig.cpu.forget_pair(tag(rig.mode.code, other.asid));
    rig.cpu.forget_pair(pair);
    let trapped = rig.run_as(&[LOAD, SYSCALL], &other);
    same("the exception", code(&trapped), codes::TLBL)?;
    same("its address", trapped.bad_vaddr, rig.mode.code)?;
    same("the exception", code(&rig.run(&[LOAD, SYSCALL])), codes::SYS)
}

/// Has `n` pairs of pages known to the real TLB, and to what QEMU keeps of replaced entries.
fn touch(rig: &mut Rig, n: u64) -> Outcome {
    for pair in 0..n {
        map(rig, elsewhere(rig.mode, pair), READ);
    }
    let mut program = SUM;
    if !rig.mode.wide {
        program[4] = ADVANCE_32;
    }
    rig.vcpu.set_gpr(4, elsewhere(rig.mode, 0));
    rig.vcpu.set_gpr(5, n);
    rig.vcpu.set_gpr(6, 0x2000);
    same("the exception", code(&rig.run(&program)), codes::SYS)
}

fn forgotten(rig: &mut Rig) -> Outcome {
    const PAIRS: u64 = 100;
    for gone in [0, 1, 30, 60, PAIRS - 1] {
        touch(rig, PAIRS)?;
        let va = elsewhere(rig.mode, gone);
        let pair = tag(va, rig.asid);
        rig.l2.forget(pair);
        rig.cpu.forget_pair(pair);
        must_miss(rig, va)?;
    }
    Ok(())
}

fn all_forgotten(rig: &mut Rig) -> Outcome {
    const PAIRS: u64 = 100;
    touch(rig, PAIRS)?;
    rig.cpu.forget_all();
    for pair in 0..PAIRS {
        let va = elsewhere(rig.mode, pair);
        rig.l2.forget(tag(va, rig.asid));
        must_miss(rig, va)?;
    }
    Ok(())
}

fn odd(rig: &mut Rig) -> Outcome {
    let va = elsewhere(rig.mode, 9) | 1;
    map(rig, va & !1, READ);
    rig.vcpu.set_gpr(4, va);
    let trapped = rig.run(&[JUMP, NOP]);
    // The L2TLB has the page: the vector must have refused to return there.
    same("the program counter", rig.vcpu.pc(), va)?;
    if ![codes::TLBL, codes::ADEL].contains(&code(&trapped)) {
        return Err(format!("a jump there ends in exception {}", code(&trapped)));
    }
    let entry = rig.entry();
    same("the exception", code(&rig.go_on(&entry)), codes::ADEL)
}

fn thread_data(rig: &mut Rig) -> Outcome {
    let mut entry = rig.entry();
    let trapped = rig.run_as(&[THREAD_DATA, SYSCALL], &entry);
    same("without permission the exception", code(&trapped), codes::RI)?;
    same("its instruction", rig.at(), 0)?;
    entry.user_local = Some(0x7654_3210);
    let before = thread_reads();
    rig.vcpu.set_gpr(26, 26);
    rig.vcpu.set_gpr(27, 27);
    let trapped = rig.run_as(&[NOP, THREAD_DATA, NOP, THREAD_DATA, SYSCALL], &entry);
    same("the exception", code(&trapped), codes::SYS)?;
    same("what is read", rig.vcpu.gpr(3), 0x7654_3210)?;
    same("$26", rig.vcpu.gpr(26), 26)?;
    same("$27", rig.vcpu.gpr(27), 27)?;
    same("answers", thread_reads() - before, 2)?;
    // In a delay slot, and another register: not in trap entry.
    let trapped = rig.run_as(&[OVER, THREAD_DATA, SYSCALL], &entry);
    same("in a delay slot the exception", code(&trapped), codes::RI)?;
    same("Cause.BD", trapped.cause >> 31, 1)?;
    let trapped = rig.run_as(&[THREAD_DATA ^ 1 << 16, SYSCALL], &entry);
    same("of another register the exception", code(&trapped), codes::RI)?;
    same("answers", thread_reads() - before, 2)
}

fn linked(rig: &mut Rig) -> Outcome {
    let va = elsewhere(rig.mode, 1);
    map(rig, va, READ);
    rig.vcpu.set_gpr(4, va);
    let mut entry = rig.entry();
    entry.user_local = Some(1);
    same("a link", u8::from(rig.run_as(&[NOP, SYSCALL], &entry).linked), 0)?;
    same("a link", u8::from(rig.run_as(&[LL, SYSCALL], &entry).linked), 1)?;
    let trapped = rig.run_as(&[LL, THREAD_DATA, SYSCALL], &entry);
    same("the exception", code(&trapped), codes::RI)?;
    same("a link", u8::from(trapped.linked), 1)
}

fn sdbbp(rig: &mut Rig) -> Outcome {
    let trapped = rig.run(&[NOP, NOP, SDBBP | 5 << 6]);
    same("the exception", code(&trapped), codes::RI)?;
    same("its instruction", rig.at(), 2)?;
    let trapped = rig.run(&[NOP, OVER, SDBBP]);
    same("the exception", code(&trapped), codes::RI)?;
    same("the branch", rig.at(), 1)?;
    // No trace is left of it.
    same("the exception", code(&rig.run(&[SYSCALL])), codes::SYS)
}

fn floating_point(rig: &mut Rig) -> Outcome {
    /// Rounding towards zero, and the flag of inexact results.
    const FCSR: u32 = 1 | 1 << 2;
    /// `mov.d $f6, $f4`
    const MOVE: u32 = 0x4620_2186;
    let trapped = rig.run(&[NOP, MOVE, SYSCALL]);
    same("the exception", code(&trapped), codes::CPU)?;
    same("the coprocessor", trapped.cause >> 28 & 3, 1)?;
    let mut registers: [u64; 32] =
        core::array::from_fn(|n| 0x0123_4567_89ab_cdef_u64.rotate_left(n as u32));
    for fr in [0, Entry::FR] {
        rig.cpu.load_fpu(&registers, FCSR);
        let mut entry = rig.entry();
        entry.status |= Entry::CU1 | fr;
        same("the exception", code(&rig.run_as(&[MOVE, SYSCALL], &entry)), codes::SYS)?;
        let mut saved = [0; 32];
        same("FCSR", rig.cpu.save_fpu(&mut saved), FCSR)?;
        registers[6] = registers[4];
        if fr == 0 {
            // A pair's halves; what lies above them is nobody's.
            registers[7] = registers[5];
            let low = |value: u64| value & 0xffff_ffff;
            for n in [6, 7] {
                same(&format!("$f{n}'s lower half"), low(saved[n]), low(registers[n]))?;
                saved[n] = registers[n];
            }
        }
        for n in 0..32 {
            same(&format!("$f{n}"), saved[n], registers[n])?;
        }
        registers.rotate_left(3);
    }
    Ok(())
}
