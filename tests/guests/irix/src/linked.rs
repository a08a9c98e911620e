//! Load-linked, an instruction of the kernel, store-conditional: a loop that on a real processor gets through
//! whatever the instruction is. Where a monitor emulates it, the link must seem to have held.

use core::arch::asm;

/// Rounds of a loop, at most.
const ROUNDS: u64 = 5_000;

/// The board's revision register, in KSEG1: reading it changes nothing.
const REVISION: u64 = 0xffff_ffff_bfc0_0010;

/// The loop with `instruction` between; whether it got through.
macro_rules! linked {
    ($instruction:literal) => {{
        let mut word = 0u64;
        let stored: u64;
        // SAFETY: changes `word`, and of CP0 nothing but Index, which the kernel never relies on.
        unsafe {
            asm!(
                ".set push", ".set noreorder", ".set noat", ".set mips64r2",
                "1:",
                "lld {word}, 0({at})",
                $instruction,
                "daddiu {word}, {word}, 1",
                "scd {word}, 0({at})",
                "bnez {word}, 2f",
                "nop",
                "bgtz {rounds}, 1b",
                "daddiu {rounds}, {rounds}, -1",
                "2:",
                "# {device} {other}",
                ".set pop",
                word = out(reg) stored,
                rounds = inout(reg) ROUNDS => _,
                other = out(reg) _,
                at = in(reg) &raw mut word,
                device = in(reg) REVISION,
            );
        }
        u64::from(stored != 0 && word == 1)
    }};
}

/// A bit for each instruction whose loop got through.
pub fn all() -> u64 {
    let bits = [
        linked!("nop"),
        linked!("mfc0 {other}, $12"),
        linked!("mfc0 {other}, $9"),
        linked!("dmfc0 {other}, $8"),
        linked!("mtc0 $0, $0"),
        linked!("tlbp"),
        linked!("rdhwr {other}, $0"),
        linked!("rdhwr {other}, $2"),
        linked!("cache 0x15, 0({at})"),
        linked!("lw {other}, 0({device})"),
        linked!("ld {other}, 0({at})"),
        linked!("sync"),
    ];
    (0..).zip(bits).fold(0, |mask, (place, bit)| mask | bit << place)
}
