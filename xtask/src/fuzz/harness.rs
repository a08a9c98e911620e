//! The harness: bare-metal code that runs case after case, the same on QEMU's CPU and on ours. It is in
//! the boot ROM, or in RAM where a VM can have it too.
//!
//! For each slot it sets up TLB, FPU, CP0 and GPRs as the slot's input page says, enters the stream
//! with `eret`, and handles every exception: it records the vector and the exception state, steps
//! over the culprit (over branch and delay slot, if it was in one) and goes on. `break`, an exception
//! outside the stream, or too many of them end the case; then all state is written to the result page.
//!
//! A case may have several rounds: then it is run again, with all but TLB and memory as at first, and the
//! last round's state is written.
//!
//! The handler takes over without losing a register: `$26` goes to ErrorEPC, the rest to the control
//! block. Vector stubs are copied to every EBase that streams use; those of the ROM serve BEV = 1.

use super::asm::{Asm, Label, cp0, reg::*};
use super::case::{bytes32, bytes64};
use super::layout::{self, control, input, result, trap};
use crate::endian::Endian;

/// ROM offsets: vector stubs take up to here, then the entries, then the code.
const ENTRIES: u64 = 0x600;
const MAIN: u64 = 0x900;

/// Where the harness's code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the boot ROM: out of every stream's reach, and BEV = 1 leads to it.
    Rom,
    /// In RAM, as the kernel of a VM.
    Ram,
}

/// Offset of the entry for a bare machine in code that is in RAM; a VM's is at its start.
const BARE_ENTRY: u64 = 8;

impl Place {
    /// The unmapped address of an offset in the code.
    const fn address(self, offset: u64) -> u64 {
        match self {
            // KSEG1, where the CPU starts.
            Self::Rom => 0xffff_ffff_a000_0000 | layout::ROM | offset,
            Self::Ram => layout::kseg0(layout::HARNESS + offset),
        }
    }

    /// Vector pages that are in use.
    const fn vector_pages(self) -> usize {
        match self {
            Self::Rom => layout::VECTOR_PAGES.len(),
            Self::Ram => layout::VM_VECTOR_PAGES,
        }
    }
}

const STATUS_CU1: i32 = 1 << 29;
const STATUS_KX: i32 = 1 << 7;
const STATUS_EXL: i32 = 1 << 1;
const STATUS_ERL: i32 = 1 << 2;
const STATUS_FR_BIT: u32 = 26;

/// The code of the ROM, as words.
pub fn rom_words(place: Place) -> Vec<u32> {
    match place {
        Place::Rom => code(place),
        Place::Ram => {
            let mut a = Asm::new();
            let main = a.label();
            // Word 4 holds the board's ID: QEMU writes it there.
            a.b(main);
            a.nop();
            a.pad_to(8);
            a.bind(main);
            mask_devices(&mut a);
            a.li32(V0, place.address(BARE_ENTRY) as i32);
            a.jr(V0);
            a.nop();
            a.pad_to(layout::ROM_SIZE / 4);
            a.finish()
        }
    }
}

/// The harness, as words.
fn code(place: Place) -> Vec<u32> {
    let mut a = Asm::new();
    let main = a.label();
    let vm = a.label();
    a.b(match place {
        Place::Rom => main,
        Place::Ram => vm,
    });
    a.nop();
    if place == Place::Ram {
        a.b(main);
        a.nop();
    }
    for (i, offset) in layout::BOOT_VECTORS.into_iter().enumerate() {
        a.pad_to(offset as usize / 4);
        stub(&mut a, place, layout::vector_id(layout::VECTOR_PAGES.len(), i));
    }
    let handler = a.label();
    for base in 0..=layout::VECTOR_PAGES.len() {
        for vector in 0..layout::VECTORS.len() {
            let id = layout::vector_id(base, vector);
            a.pad_to(entry_offset(id) as usize / 4);
            a.lui(K0, CONTROL_HIGH);
            a.sd(K1, CONTROL_LOW + control::SAVE_K1, K0);
            a.b(handler);
            a.addiu(K1, id as i32, ZERO);
        }
    }
    a.pad_to(MAIN as usize / 4);
    a.bind(main);
    if place == Place::Rom {
        mask_devices(&mut a);
    }
    stop_time(&mut a);
    let next = a.label();
    let advance = a.label();
    a.bind(next);
    let again = set_up(&mut a, advance);
    let end = a.label();
    a.bind(handler);
    handle(&mut a, end);
    a.bind(end);
    count_round(&mut a, again);
    dump(&mut a);
    a.bind(advance);
    control_base(&mut a);
    a.ld(V0, CONTROL_LOW + control::INDEX, K0);
    a.daddiu(V0, 1, V0);
    a.b(next);
    a.sd(V0, CONTROL_LOW + control::INDEX, K0);
    if place == Place::Ram {
        a.bind(vm);
        clear_arguments(&mut a);
        a.b(main);
        a.nop();
    }
    a.pad_to(layout::ROM_SIZE / 4);
    a.finish()
}

/// The stubs of vector page `base`, as (physical address, words).
fn stubs(place: Place, base: usize) -> Vec<(u64, Vec<u32>)> {
    (0..layout::VECTORS.len())
        .map(|vector| {
            let mut a = Asm::new();
            stub(&mut a, place, layout::vector_id(base, vector));
            (layout::VECTOR_PAGES[base] + layout::VECTORS[vector], a.finish())
        })
        .collect()
}

/// Low RAM before the slots: the vectors, a control block for the slots `first` to `end`, and the harness
/// if it is there.
pub fn low_memory(endian: Endian, place: Place, first: usize, end: usize) -> Vec<u8> {
    let mut low = vec![0; layout::LOW_SIZE];
    let mut code_at = Vec::new();
    if place == Place::Ram {
        code_at.push((layout::HARNESS, code(place)));
    }
    let control = layout::CONTROL as usize;
    for (at, value) in [
        (control::INDEX as usize, first as u64),
        (control::END as usize, end as u64),
        (layout::MARK_OFFSET, layout::MARK),
        (layout::MARK_OFFSET + 8, layout::CONTROL_MARK),
    ] {
        low[control + at..control + at + 8].copy_from_slice(&bytes64(endian, value));
    }
    for (pa, words) in (0..place.vector_pages()).flat_map(|base| stubs(place, base)).chain(code_at)
    {
        for (i, word) in words.into_iter().enumerate() {
            let at = pa as usize + 4 * i;
            low[at..at + 4].copy_from_slice(&bytes32(endian, word));
        }
    }
    low
}

/// A vector: at most eight words, 32 bytes, the least distance of two.
fn stub(a: &mut Asm, place: Place, id: u32) {
    a.dmtc0(K0, cp0::ERROR_EPC);
    a.li32(K0, place.address(entry_offset(id)) as i32);
    a.jr(K0);
    a.nop();
}

const fn entry_offset(id: u32) -> u64 {
    let (base, vector) = (id as u64 / 16, id as u64 % 16);
    ENTRIES + (base * layout::VECTORS.len() as u64 + vector) * 16
}

/// The control block is reached as `lui` and an offset: 0xffff_ffff_8001_0000 − 0x8000.
const CONTROL_HIGH: u32 = 0x8001;
const CONTROL_LOW: i32 = -0x8000;
const _: () = assert!(layout::CONTROL == 0x8000);

fn control_base(a: &mut Asm) {
    a.lui(K0, CONTROL_HIGH);
}

/// Once after reset: no device may interrupt.
fn mask_devices(a: &mut Asm) {
    // Both interrupt controllers masked; at reset the bridge has port 0 at 0x10000000.
    a.li32(V0, 0xb000_0000_u32 as i32);
    a.addiu(V1, 0xff, ZERO);
    a.sb(V1, 0x21, V0);
    a.sb(V1, 0xa1, V0);
}

/// Takes away what the firmware of a VM has left in memory.
fn clear_arguments(a: &mut Asm) {
    let again = a.label();
    a.li32(V0, layout::kseg0(layout::ARGUMENTS.start) as i32);
    a.li32(V1, layout::kseg0(layout::ARGUMENTS.end) as i32);
    a.bind(again);
    a.sd(ZERO, 0, V0);
    a.daddiu(V0, 8, V0);
    a.bne(V0, V1, again);
    a.nop();
}

/// Once: Count stands still.
fn stop_time(a: &mut Asm) {
    a.li32(V0, 1 << 27);
    a.mtc0(V0, cp0::CAUSE);
    a.mtc0(ZERO, cp0::COMPARE);
}

/// Loads the state of the next slot, and enters its stream; leaves for `skip` when it holds no case. Where the next round
/// of the slot that `$26` points to begins.
fn set_up(a: &mut Asm, skip: Label) -> Label {
    let go = a.label();
    control_base(a);
    a.ld(V0, CONTROL_LOW + control::INDEX, K0);
    a.ld(V1, CONTROL_LOW + control::END, K0);
    a.bne(V0, V1, go);
    a.nop();
    // Done: the machine ends with status 0.
    a.li32(V0, 0xbf00_0500_u32 as i32);
    a.addiu(V1, 0x42, ZERO);
    a.sw(V1, 0, V0);
    let forever = a.label();
    a.bind(forever);
    a.b(forever);
    a.nop();
    a.bind(go);
    a.dsll(V0, V0, layout::SLOT_SIZE.trailing_zeros());
    a.li32(V1, layout::kseg0(layout::SLOTS) as i32);
    a.daddu(V0, V0, V1);
    a.sd(V0, CONTROL_LOW + control::SLOT, K0);
    a.ld(V1, input::ROUNDS, V0);
    a.sd(V1, CONTROL_LOW + control::ROUNDS, K0);
    a.sd(ZERO, CONTROL_LOW + control::TRAPS, K0);
    a.ld(V1, input::SKIP, V0);
    a.bne(V1, ZERO, skip);
    a.daddu(K0, V0, ZERO);
    // From here on $26 is the slot.
    settle(a);
    let again = a.label();
    a.bind(again);
    a.li32(V0, STATUS_CU1 | STATUS_ERL);
    a.ld(V1, input::STATUS, K0);
    a.or(V0, V0, V1);
    a.mtc0(V0, cp0::STATUS);
    a.ehb();
    set_up_fpu(a);
    a.li32(V0, 0x1234_5678);
    a.mtc0(V0, cp0::COUNT);
    for (i, r) in layout::CP0_INPUT.into_iter().enumerate() {
        a.ld(V0, input::CP0 + 8 * i as i32, K0);
        a.dmtc0(V0, r);
    }
    a.ld(V0, input::HI, K0);
    a.mthi(V0);
    a.ld(V0, input::LO, K0);
    a.mtlo(V0);
    // In through ErrorEPC, with EPC outside the stream: see the end of `handle`.
    a.ld(V0, input::GPR, K0);
    a.dmtc0(V0, cp0::ERROR_EPC);
    a.ld(V0, input::CODE_END, K0);
    a.dmtc0(V0, cp0::EPC);
    a.ld(V0, input::STATUS, K0);
    a.ori(V0, STATUS_ERL, V0);
    a.mtc0(V0, cp0::STATUS);
    a.ehb();
    for r in (1..32).filter(|&r| r != K0).chain([K0]) {
        a.ld(r, input::GPR + 8 * r as i32, K0);
    }
    a.eret();
    again
}

/// A round is over: on to the next at `again`, if there is one. `$26` is the control block, as at the end of [`handle`].
fn count_round(a: &mut Asm, again: Label) {
    let last = a.label();
    a.ld(V0, CONTROL_LOW + control::ROUNDS, K0);
    a.daddiu(V0, -1, V0);
    a.beq(V0, ZERO, last);
    a.sd(V0, CONTROL_LOW + control::ROUNDS, K0);
    a.sd(ZERO, CONTROL_LOW + control::TRAPS, K0);
    a.b(again);
    a.ld(K0, CONTROL_LOW + control::SLOT, K0);
    a.bind(last);
}

/// Sets up the TLB, and what only exceptions and `tlbp` can write: the stream's code begins with a
/// known Cause.CE, BadVAddr, Context.BadVPN2, XContext.BadVPN2 and Index.P, whatever ran before.
fn settle(a: &mut Asm) {
    // EBase's upper bits are written with its write gate (bit 11) open, and stay when it is shut.
    a.li32(V0, 0x8000_0800_u32 as i32);
    a.dmtc0(V0, cp0::EBASE);
    set_up_tlb(a);
    // The last entry is always an unused one: a hit.
    a.li32(V0, (0x8000_0000_u32 | 63 << 13) as i32);
    a.dmtc0(V0, cp0::ENTRY_HI);
    a.ehb();
    a.tlbp();
    // Coprocessor 1 unusable; then a TLB refill, at an address that no entry maps.
    a.li32(V1, 0x7000_0000);
    expect_exception(a, |a| a.mfc1(V0, 0));
    expect_exception(a, |a| a.ld(V0, 0, V1));
    control_base(a);
    a.sd(ZERO, CONTROL_LOW + control::EXPECTED, K0);
    a.ld(K0, CONTROL_LOW + control::SLOT, K0);
}

/// Runs an instruction that takes an exception, in kernel mode with the FPU off; the handler comes
/// straight back. Clobbers `$26`, `$27`, `AT` and `V0`.
fn expect_exception(a: &mut Asm, culprit: impl FnOnce(&mut Asm)) {
    let back = a.label();
    a.addiu(V0, STATUS_KX, ZERO);
    a.mtc0(V0, cp0::STATUS);
    a.ehb();
    a.bal(back);
    a.nop();
    a.bind(back);
    // Four instructions on from here the handler returns to.
    a.daddiu(RA, 4 * 4, RA);
    control_base(a);
    a.sd(RA, CONTROL_LOW + control::EXPECTED, K0);
    culprit(a);
}

/// Writes all 64 entries: those of the input page, and for the rest distinct ones that match nothing
/// (KSEG0 is never looked up).
fn set_up_tlb(a: &mut Asm) {
    let (given, rest, done) = (a.label(), a.label(), a.label());
    a.ld(V1, input::TLB_COUNT, K0);
    a.daddiu(A0, input::TLB, K0);
    a.daddiu(V0, 0, ZERO);
    a.bind(given);
    a.beq(V0, V1, rest);
    a.addiu(A1, 64, ZERO);
    for (offset, r) in
        [(0, cp0::ENTRY_HI), (8, cp0::ENTRY_LO0), (16, cp0::ENTRY_LO1), (24, cp0::PAGE_MASK)]
    {
        a.ld(AT, offset, A0);
        a.dmtc0(AT, r);
    }
    a.mtc0(V0, cp0::INDEX);
    a.ehb();
    a.tlbwi();
    a.daddiu(A0, 32, A0);
    a.b(given);
    a.daddiu(V0, 1, V0);
    a.bind(rest);
    for r in [cp0::ENTRY_LO0, cp0::ENTRY_LO1, cp0::PAGE_MASK] {
        a.dmtc0(ZERO, r);
    }
    a.lui(V1, 0x8000);
    a.dsll(AT, V0, 13);
    a.daddu(V1, V1, AT);
    let unused = a.label();
    a.bind(unused);
    a.beq(V0, A1, done);
    a.dmtc0(V1, cp0::ENTRY_HI);
    a.mtc0(V0, cp0::INDEX);
    a.ehb();
    a.tlbwi();
    a.daddiu(V1, 0x2000, V1);
    a.b(unused);
    a.daddiu(V0, 1, V0);
    a.bind(done);
}

/// Branches to the returned label when Status.FR, in the word `V1` holds, is 0. Clobbers `V0`.
fn unless_fr(a: &mut Asm) -> Label {
    let even = a.label();
    a.srl(V0, V1, STATUS_FR_BIT);
    a.andi(V0, 1, V0);
    a.beq(V0, ZERO, even);
    a.nop();
    even
}

fn set_up_fpu(a: &mut Asm) {
    a.ld(V1, input::STATUS, K0);
    let even = unless_fr(a);
    let done = a.label();
    for f in 0..32 {
        a.ldc1(f, input::FPR + 8 * f as i32, K0);
    }
    a.b(done);
    a.nop();
    a.bind(even);
    for f in (0..32).step_by(2) {
        a.ldc1(f, input::FPR + 8 * f as i32, K0);
    }
    a.bind(done);
    a.ld(V0, input::FCSR, K0);
    a.ctc1(V0, 31);
}

/// Records an exception; `$27` is the vector's number, the stream's `$26` is in ErrorEPC.
fn handle(a: &mut Asm, end: Label) {
    let saved = [(AT, control::SAVE_AT), (V0, control::SAVE_V0), (V1, control::SAVE_V1)];
    for (r, place) in saved {
        a.sd(r, CONTROL_LOW + place, K0);
    }
    let of_stream = a.label();
    a.ld(AT, CONTROL_LOW + control::EXPECTED, K0);
    a.beq(AT, ZERO, of_stream);
    a.nop();
    a.jr(AT);
    a.nop();
    a.bind(of_stream);
    a.dmfc0(V0, cp0::ERROR_EPC);
    a.sd(V0, CONTROL_LOW + control::SAVE_K0, K0);
    a.ld(V1, CONTROL_LOW + control::TRAPS, K0);
    a.ld(V0, CONTROL_LOW + control::SLOT, K0);
    a.daddiu(AT, 1, V1);
    a.sd(AT, CONTROL_LOW + control::TRAPS, K0);
    a.dsll(V1, V1, trap::SIZE.trailing_zeros());
    a.daddu(V1, V1, V0);
    let at = |offset: i32| layout::RESULT as i32 + result::TRAPS + offset;
    a.sw(K1, at(trap::VECTOR), V1);
    a.mfc0(K1, cp0::STATUS);
    a.sw(K1, at(trap::STATUS), V1);
    a.mfc0(K1, cp0::CAUSE);
    a.sw(K1, at(trap::CAUSE), V1);
    for (offset, r) in [
        (trap::EPC, cp0::EPC),
        (trap::BAD_VADDR, cp0::BAD_VADDR),
        (trap::ENTRY_HI, cp0::ENTRY_HI),
        (trap::CONTEXT, cp0::CONTEXT),
        (trap::XCONTEXT, cp0::XCONTEXT),
    ] {
        a.dmfc0(K1, r);
        a.sd(K1, at(offset), V1);
    }
    a.sd(RA, at(trap::RA), V1);
    // Too many? (`AT` still counts this one.)
    a.ld(K1, input::MAX_TRAPS, V0);
    a.beq(AT, K1, end);
    // A `break`?
    a.mfc0(AT, cp0::CAUSE);
    a.srl(K1, AT, 2);
    a.andi(K1, 31, K1);
    a.addiu(V1, 9, ZERO);
    a.beq(K1, V1, end);
    let (interrupt, resume) = (a.label(), a.label());
    a.dmfc0(V1, cp0::EPC);
    a.beq(K1, ZERO, interrupt);
    // Outside the stream?
    a.ld(K1, input::CODE_START, V0);
    a.sltu(K1, V1, K1);
    a.bne(K1, ZERO, end);
    a.ld(K1, input::CODE_END, V0);
    a.sltu(K1, V1, K1);
    a.beq(K1, ZERO, end);
    // Misaligned? QEMU's CPU takes an odd address of `eret` as one of MIPS16 code, and aborts.
    a.andi(K1, 3, V1);
    a.bne(K1, ZERO, end);
    // Over the culprit; over branch and delay slot if it was there (Cause.BD, the sign).
    a.srl(K1, AT, 31);
    a.dsll(K1, K1, 2);
    a.daddu(V1, V1, K1);
    a.b(resume);
    a.daddiu(V1, 4, V1);
    // An interrupt: only software's occur. Take its request away; nothing is stepped over.
    a.bind(interrupt);
    a.li32(K1, !0x300);
    a.and(AT, AT, K1);
    a.mtc0(AT, cp0::CAUSE);
    a.bind(resume);
    // Back through ErrorEPC, so that EPC can be left at an address outside the stream: an exception
    // that does not set EPC (with EXL = 1) is known by it, and ends the case.
    a.dmtc0(V1, cp0::ERROR_EPC);
    a.ld(V1, input::CODE_END, V0);
    a.dmtc0(V1, cp0::EPC);
    a.mfc0(AT, cp0::STATUS);
    a.ori(AT, STATUS_ERL | STATUS_EXL, AT);
    a.xori(AT, STATUS_EXL, AT);
    a.mtc0(AT, cp0::STATUS);
    a.ehb();
    for (r, place) in saved.into_iter().chain([(K1, control::SAVE_K1), (K0, control::SAVE_K0)]) {
        a.ld(r, CONTROL_LOW + place, K0);
    }
    a.eret();
}

/// Writes the result page. `$26` is the control block; what [`handle`] saved is still there.
fn dump(a: &mut Asm) {
    a.ld(K1, CONTROL_LOW + control::SLOT, K0);
    // `$27` is the result page from here on.
    a.daddiu(K1, layout::RESULT as i32, K1);
    for r in (4..32).filter(|&r| r != K0 && r != K1) {
        a.sd(r, result::GPR + 8 * r as i32, K1);
    }
    for (r, place) in [
        (AT, control::SAVE_AT),
        (V0, control::SAVE_V0),
        (V1, control::SAVE_V1),
        (K1, control::SAVE_K1),
        (K0, control::SAVE_K0),
        (0, control::TRAPS),
    ] {
        a.ld(V0, CONTROL_LOW + place, K0);
        a.sd(V0, result::GPR + 8 * r as i32, K1);
    }
    a.mfhi(V0);
    a.sd(V0, result::HI, K1);
    a.mflo(V0);
    a.sd(V0, result::LO, K1);
    for (i, r) in layout::CP0_RESULT.into_iter().enumerate() {
        a.dmfc0(V0, r);
        a.sd(V0, result::CP0 + 8 * i as i32, K1);
    }
    // The FPU, in the mode that the stream had.
    a.mfc0(V1, cp0::STATUS);
    a.li32(V0, STATUS_CU1);
    a.or(V0, V0, V1);
    a.mtc0(V0, cp0::STATUS);
    a.ehb();
    a.cfc1(V0, 31);
    a.sd(V0, result::FCSR, K1);
    let even = unless_fr(a);
    let done = a.label();
    for f in 0..32 {
        a.sdc1(f, result::FPR + 8 * f as i32, K1);
    }
    a.b(done);
    a.nop();
    a.bind(even);
    for f in (0..32).step_by(2) {
        a.sdc1(f, result::FPR + 8 * f as i32, K1);
    }
    a.bind(done);
    // The TLB.
    let (entry, last) = (a.label(), a.label());
    a.daddiu(V0, 0, ZERO);
    a.addiu(V1, 64, ZERO);
    a.bind(entry);
    a.mtc0(V0, cp0::INDEX);
    a.ehb();
    a.tlbr();
    a.ehb();
    for (offset, r) in
        [(0, cp0::ENTRY_HI), (8, cp0::ENTRY_LO0), (16, cp0::ENTRY_LO1), (24, cp0::PAGE_MASK)]
    {
        a.dmfc0(AT, r);
        a.sd(AT, result::TLB + offset, K1);
    }
    a.daddiu(V0, 1, V0);
    a.beq(V0, V1, last);
    a.nop();
    a.b(entry);
    a.daddiu(K1, 32, K1);
    a.bind(last);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits() {
        for place in [Place::Rom, Place::Ram] {
            assert_eq!(rom_words(place).len() * 4, layout::ROM_SIZE);
            assert_eq!(code(place).len() * 4, layout::ROM_SIZE);
        }
        let last = layout::vector_id(layout::VECTOR_PAGES.len(), layout::VECTORS.len() - 1);
        assert!(entry_offset(last) + 16 <= MAIN);
        for base in 0..layout::VECTOR_PAGES.len() {
            for (_, words) in stubs(Place::Ram, base) {
                assert!(words.len() <= 8);
            }
        }
    }
}
