//! `sensitive`: what each sensitive instruction, and each part of the address space, does in
//! supervisor and user mode under all values of Status that matter there. Each is tried once for
//! each; the outcomes are printed, and whoever reads them judges them.
//!
//! Lines: `probe: word GROUP WORD NUMBER SUPERVISOR USER`, with a letter for each of the 32 values of
//! Status (bits 0 to 4 of their number: CU1, FR, PX, SX, UX), and `probe: at ADDRESS SUPERVISOR USER`,
//! with one for each of load, store and fetch under each of four (bits: SX, UX). `probe: changed …`
//! is state of the kernel that changed without an exception's doing.

mod drop;
mod places;
mod state;
mod words;

use crate::machine::Console;
use core::fmt::Write;
use core::ptr::write_volatile;
pub use drop::{Frame, hello_tlb_write};
use drop::{hello_alarm, take_vectors};

macro_rules! say {
    ($($arg:tt)*) => { let _ = writeln!(Console, $($arg)*); };
}

/// The pages of code and data, in physical memory, in the address space of both modes, and to us.
const PHYSICAL: u64 = 4 << 20;
const CODE: u64 = 0x1_0000;
const DATA: u64 = CODE + 0x1000;
const CODE_HERE: u64 = 0xffff_ffff_8000_0000 + PHYSICAL;

/// Status: modes and bits.
const KSU: [u64; 2] = [1 << 3, 2 << 3];
const KX: u64 = 1 << 7;
const CU1: u64 = 1 << 29;
const STATUS_BITS: [u64; 5] = [CU1, 1 << 26, 1 << 23, 1 << 6, 1 << 5];
const TIMER_ON: u64 = 1 << 15 | 1;
/// Ticks after which an instruction that never ends is interrupted: 0.5 ms.
const PATIENCE: u64 = 80_000;

const NOP: u32 = 0;
/// `break` with a code that no word of the groups has.
const BREAK: u32 = 0x0005_550d;

/// Prints the table.
pub fn run() {
    take_vectors();
    set_up_tlb();
    let order = if cfg!(target_endian = "big") { "big" } else { "little" };
    say!("probe: begin {order}");
    for group in words::GROUPS {
        let before = state::tlb();
        let mut uniform: Option<(u32, usize, [[u8; 32]; 2])> = None;
        for word in group.words() {
            let outcome = outcomes(word);
            uniform = match uniform {
                Some((first, count, same)) if same == outcome && !group.each => {
                    Some((first, count + 1, same))
                }
                other => {
                    print(group.name, other);
                    Some((word, 1, outcome))
                }
            };
        }
        print(group.name, uniform);
        if state::tlb() != before {
            say!("probe: changed {} the TLB", group.name);
        }
    }
    places::run();
    crate::machine::install_vectors();
    say!("probe: end");
}

fn text(bytes: &[u8]) -> &str {
    core::str::from_utf8(bytes).unwrap_or("?")
}

fn print(group: &str, words: Option<(u32, usize, [[u8; 32]; 2])>) {
    if let Some((word, count, [supervisor, user])) = words {
        say!("probe: word {group} {word:08x} {count} {} {}", text(&supervisor), text(&user));
    }
}

/// One entry for code and data; all others match nothing.
fn set_up_tlb() {
    const GLOBAL: u64 = 1;
    const PAGE: u64 = 3 << 3 | 1 << 2 | 1 << 1 | GLOBAL;
    let lo = |physical: u64| physical >> 12 << 6 | PAGE;
    for index in 0..state::TLB_SIZE {
        let entry = if index == 0 {
            [CODE, lo(PHYSICAL), lo(PHYSICAL + 0x1000), 0]
        } else {
            [0xffff_ffff_8000_0000 + (index << 13), 0, 0, 0]
        };
        // SAFETY: this kernel lives in unmapped segments.
        unsafe { hello_tlb_write(index, entry.as_ptr()) };
    }
}

/// Writes the code of a probe.
fn write_code(word: u32) {
    for (i, word) in [word, NOP, BREAK, NOP].into_iter().enumerate() {
        // SAFETY: the page of code, which is nobody else's.
        unsafe { write_volatile((CODE_HERE as *mut u32).add(i), word) };
    }
}

/// What a word does in both modes.
fn outcomes(word: u32) -> [[u8; 32]; 2] {
    write_code(word);
    let mut out = [[0; 32]; 2];
    for (ksu, row) in KSU.into_iter().zip(&mut out) {
        for (number, cell) in row.iter_mut().enumerate() {
            let bits = STATUS_BITS.iter().enumerate();
            let bits = bits.filter(|(i, _)| number >> i & 1 != 0).map(|(_, bit)| bit);
            *cell = outcome(word, bits.fold(ksu | KX, |status, bit| status | bit));
        }
    }
    out
}

/// Runs `word` under `status`; the outcome's letter.
fn outcome(word: u32, status: u64) -> u8 {
    // `sdbbp`, which the machine's ROM sends back to itself.
    let endless = word >> 26 == 0x1c && word & 63 == 63;
    let status = if endless { status | TIMER_ON } else { status };
    let mut frame = Frame::new(CODE, status);
    (frame.gpr[8], frame.gpr[10]) = (DATA, CODE + 8);
    if endless {
        // SAFETY: its interrupt is taken by the probe, or stays masked.
        unsafe { hello_alarm(PATIENCE) };
    }
    let before = state::registers();
    frame.run();
    let after = state::registers();
    let code = frame.cause >> 2 & 31;
    let address = matches!(code, 1..=5);
    // What Status was, with EXL; as the register can hold it.
    if let Some((name, old, new)) = state::changed(&before, &after, status | 2, address) {
        say!("probe: changed {word:08x} {name} {old:x} {new:x} under {status:x}");
    }
    if endless {
        // SAFETY: no more interrupts for as long as Count takes to come round.
        unsafe { hello_alarm(u64::from(u32::MAX)) };
    }
    match (code, frame.epc.wrapping_sub(CODE)) {
        (9, 8) => b'X',
        (0, 0) => b'I',
        (9, 0) => b'B',
        (11, 0) => b'0' + (frame.cause >> 28 & 3) as u8,
        (10, 0) => b'R',
        (8, 0) => b'S',
        (13, 0) => b'P',
        (15, 0) => b'F',
        (26, 0) => b'D',
        (4 | 5, 0) => b'A',
        (1..=3, 0) => b'T',
        _ => b'?',
    }
}
