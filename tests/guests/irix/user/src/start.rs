//! From the kernel's first instruction of a program to its `main`, and what happens after a panic.

use crate::{checks, faults, mix, rounds, sys};
use core::arch::global_asm;
use irix_user::work;

global_asm!(
    r#"
    .set mips64r2
    .set noreorder
    .set noat
    .section .text.entry, "ax"
    .globl _start
_start:
    # The kernel gives the number of words in $a0, the words in $a1, the stack in $sp.
    b       start
    nop
    .text
"#
);

/// The words of `exec`.
#[derive(Clone, Copy)]
pub struct Words(pub &'static [u8]);

impl Words {
    /// Word `i`.
    pub fn get(self, i: usize) -> Option<&'static str> {
        let mut words = self.0.split(|&byte| byte == 0);
        // What comes after the last NUL is no word.
        let count = self.0.iter().filter(|&&byte| byte == 0).count();
        if i >= count {
            return None;
        }
        words.nth(i).and_then(|word| core::str::from_utf8(word).ok())
    }

    /// Word `i` as a decimal number; 0 if it is none.
    pub fn number(self, i: usize) -> u64 {
        self.get(i).and_then(|word| word.parse().ok()).unwrap_or(0)
    }
}

#[unsafe(no_mangle)]
extern "C" fn start(words: *const u8, len: usize) -> ! {
    // SAFETY: the kernel has put the words there, on the stack.
    let words = Words(unsafe { core::slice::from_raw_parts(words, len) });
    let code = match words.get(0).unwrap_or("") {
        "sh" => crate::sh::main(words),
        "check" => checks::all(),
        "arithmetic" => checks::arithmetic(),
        "memory" => checks::memory(),
        "family" => checks::family(),
        "pipeline" => checks::pipeline(),
        "exec" => checks::exec(),
        "leaf" => work::leaf(words.number(1)),
        "spaces" => checks::spaces(),
        "signals" => checks::signals(),
        "hog" => checks::hog(),
        "faults" => faults::faults(),
        "privileged-storm" => faults::storm(),
        "scribble" => faults::scribble(),
        "share" => crate::share::main(),
        "linked" => crate::linked::main(),
        "loop" => crate::loops::main(),
        "mix" => mix::main(),
        "mixer" => mix::mixer(words.number(1) as u32, words.number(2) as u32),
        "rounds" => rounds::main(words),
        "spin" => loop {
            core::hint::spin_loop();
        },
        "true" => 0,
        _ => 127,
    };
    sys::exit(code)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    crate::say!("panic: {}", info.message());
    sys::exit(99)
}
