//! The address space: load, store and fetch at the edges of every segment.

use super::drop::Frame;
use super::{CODE, Console, KSU, KX, text, write_code};
use core::fmt::Write;

/// Addresses: first and last words of segments, and of what of them can be mapped (42 bits).
const PLACES: [u64; 33] = [
    0x0000_0000_0000_0000,
    0x0000_0000_7fff_fffc,
    0x0000_0000_8000_0000,
    0x0000_0000_ffff_fffc,
    0x0000_00ff_ffff_fffc,
    0x0000_03ff_ffff_fffc,
    0x0000_0400_0000_0000,
    0x3fff_ffff_ffff_fffc,
    0x4000_0000_0000_0000,
    0x4000_00ff_ffff_fffc,
    0x4000_03ff_ffff_fffc,
    0x4000_0400_0000_0000,
    0x7fff_ffff_ffff_fffc,
    0x8000_0000_0000_0000,
    0x9000_0000_1fc0_0000,
    0x9800_0000_0040_0000,
    0x9800_000f_ffff_fffc,
    0x9800_0010_0000_0000,
    0xbfff_ffff_ffff_fffc,
    0xc000_0000_0000_0000,
    0xc000_03ff_7fff_fffc,
    0xc000_0400_0000_0000,
    0xffff_ffff_7fff_fffc,
    0xffff_ffff_8000_0000,
    0xffff_ffff_8010_0000,
    0xffff_ffff_9fff_fffc,
    0xffff_ffff_a000_0000,
    0xffff_ffff_bfc0_0000,
    0xffff_ffff_c000_0000,
    0xffff_ffff_dfff_fffc,
    0xffff_ffff_e000_0000,
    0xffff_ffff_ffff_8000,
    0xffff_ffff_ffff_fffc,
];

/// `lw $9, 0($8)` and `sw $9, 0($8)`.
const LOAD: u32 = 0x8d09_0000;
const STORE: u32 = 0xad09_0000;
/// Status bits SX and UX.
const BITS: [u64; 2] = [1 << 6, 1 << 5];

/// Prints a line for each address.
pub fn run() {
    for place in PLACES {
        let mut out = [[0; 12]; 2];
        for (ksu, row) in KSU.into_iter().zip(&mut out) {
            for (number, cells) in row.chunks_exact_mut(3).enumerate() {
                let bit = |i: usize| if number >> i & 1 != 0 { BITS[i] } else { 0 };
                let status = ksu | KX | bit(0) | bit(1);
                for (cell, word) in cells.iter_mut().zip([Some(LOAD), Some(STORE), None]) {
                    *cell = access(place, word, status);
                }
            }
        }
        let _ = writeln!(Console, "probe: at {place:016x} {} {}", text(&out[0]), text(&out[1]));
    }
}

/// The letter of an access by `word`, or of a fetch.
fn access(place: u64, word: Option<u32>, status: u64) -> u8 {
    let mut frame = Frame::new(if word.is_some() { CODE } else { place }, status);
    frame.gpr[8] = place;
    if let Some(word) = word {
        write_code(word);
    }
    frame.run();
    let store = word == Some(STORE);
    let at = if word.is_some() { CODE } else { place };
    if frame.epc != at || frame.bad != place {
        return b'?';
    }
    match (frame.cause >> 2 & 31, frame.vector) {
        (2, 0x000) if !store => b'r',
        (3, 0x000) if store => b'r',
        (2, 0x080) if !store => b'x',
        (3, 0x080) if store => b'x',
        (4, 0x180) if !store => b'E',
        (5, 0x180) if store => b'E',
        _ => b'?',
    }
}
