//! Backtraces without unwind tables.
//!
//! A frame's size and the place of its return address are read from the function's own prologue: going
//! back from a PC, the first `daddiu $sp, $sp, -n` is where the frame was made, and a store of `$ra`
//! follows it. A function without a frame has its return address still in `$ra`. Every return address
//! is checked to follow a call. Where the walk fails, it goes on at the next stack word that looks like
//! a return address. Addresses are printed alone on a line; the host adds the names.

use crate::careful::{load32_at, load64_at};
use crate::{asm, trap::Frame};

/// Most instructions between a PC and its function's prologue.
const REACH: u64 = 1 << 16;
/// Most frames that are printed.
const DEPTH: usize = 48;

/// Whether `pc` is where a call returns to.
fn follows_call(pc: u64) -> bool {
    let text = asm::text();
    if !pc.is_multiple_of(4) || !text.contains(&pc) || pc < text.start + 8 {
        return false;
    }
    load32_at(pc - 8).is_some_and(|word| {
        let jal = word >> 26 == 3;
        let jalr = word >> 26 == 0 && word & 0x3f == 9;
        let bal = word >> 16 == 0x0411;
        jal || jalr || bal
    })
}

/// The size of the frame that is in place at `pc`, and the offset of the return address in it.
fn frame_at(pc: u64) -> Option<(u64, u64)> {
    const ADJUST_SP: u32 = 0x67bd; // daddiu $sp, $sp, imm
    const STORE_RA: u32 = 0xffbf; // sd $ra, imm($sp)
    let lowest = asm::text().start.max(pc.saturating_sub(4 * REACH));
    let mut at = pc;
    let mut ra = None;
    while at > lowest {
        at -= 4;
        let word = load32_at(at)?;
        let immediate = i64::from(word as u16 as i16);
        if word >> 16 == STORE_RA && immediate >= 0 {
            ra = Some(immediate.cast_unsigned());
        } else if word >> 16 == ADJUST_SP && immediate < 0 {
            return Some((immediate.unsigned_abs(), ra?));
        }
    }
    None
}

/// Calls `visit` with the PC of each frame, innermost first.
pub(crate) fn walk(frame: &Frame, mut visit: impl FnMut(u64)) {
    let mut pc = frame.epc;
    let mut sp = frame.gpr[29];
    visit(pc);
    for depth in 0..DEPTH {
        let found = frame_at(pc).and_then(|(size, ra)| {
            let caller = load64_at(sp.checked_add(ra)?)?;
            follows_call(caller).then_some((caller, sp.checked_add(size)?))
        });
        let (caller, below) = match found {
            Some(next) => next,
            None if depth == 0 && follows_call(frame.gpr[31]) => (frame.gpr[31], sp),
            None => match scan(sp) {
                Some(next) => next,
                None => return,
            },
        };
        // The call itself, not what follows it: with inlining these can be different lines.
        visit(caller - 8);
        (pc, sp) = (caller, below);
    }
}

/// The next word from `sp` up that looks like a return address, and what lies above it.
fn scan(sp: u64) -> Option<(u64, u64)> {
    const WORDS: u64 = 512;
    (0..WORDS).find_map(|i| {
        let at = sp.checked_add(8 * i)?;
        let word = load64_at(at)?;
        follows_call(word).then_some((word, at + 8))
    })
}
