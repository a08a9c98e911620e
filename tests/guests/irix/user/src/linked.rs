//! Load-linked, an instruction, store-conditional, in user mode and (by a system call) in the kernel.

use crate::checks::report;
use crate::sys;
use core::arch::asm;

/// Rounds of a loop, at most.
const ROUNDS: u64 = 500;

/// The loop with `instruction` between; whether it got through.
macro_rules! linked {
    ($instruction:literal) => {{
        let mut word = 0u64;
        let stored: u64;
        // SAFETY: changes `word`; system calls change nothing but their result's register.
        unsafe {
            asm!(
                ".set push", ".set noreorder", ".set noat", ".set mips64r2",
                "1:",
                "lld {word}, 0({at})",
                "li $2, 1020",
                $instruction,
                "daddiu {word}, {word}, 1",
                "scd {word}, 0({at})",
                "bnez {word}, 2f",
                "nop",
                "bgtz {rounds}, 1b",
                "daddiu {rounds}, {rounds}, -1",
                "2:",
                "# {other}",
                ".set pop",
                word = out(reg) stored,
                rounds = inout(reg) ROUNDS => _,
                other = out(reg) _,
                at = in(reg) &raw mut word,
                out("$2") _,
            );
        }
        u64::from(stored != 0 && word == 1)
    }};
}

/// The check: a bit for each loop that got through, the kernel's in the upper half.
pub fn main() -> u32 {
    let bits = [
        linked!("nop"),
        linked!("rdhwr {other}, $1"),
        linked!("rdhwr {other}, $3"),
        linked!("ld {other}, 0({at})"),
        // getpid()
        linked!("syscall"),
    ];
    let user = (0..).zip(bits).fold(0, |mask, (place, bit)| mask | bit << place);
    report("linked", sys::linked() << 32 | user)
}
