//! `bench`: how long an instruction of each class takes, by Count.
//!
//! Each class is a loop over 50 copies of the same one or two instructions; the time of an empty loop
//! is subtracted. On a machine that runs one instruction a nanosecond (`--icount`), a nanosecond here
//! is an instruction of whatever executes this guest.

use crate::machine::{self, Console};
use core::arch::global_asm;
use core::fmt::Write;

/// Rounds of each loop.
const ROUNDS: u64 = 1000;
/// Copies of the class in a round.
const COPIES: u64 = 50;

/// A class: its name, its instructions in a copy, its loop.
type Class = (&'static str, u64, unsafe extern "C" fn(u64, *mut u64));

macro_rules! classes {
    ($($function:ident: $name:literal, $len:literal, [$($line:literal),*];)*) => {
        global_asm!(
            ".set push", ".set mips64r2", ".set noreorder", ".set noat", ".set hardfloat", ".text",
            $(
                // $4: rounds, $5: 64 bytes to use. The timer and the FPU are left as they were.
                concat!(".globl ", stringify!($function)),
                concat!(stringify!($function), ":"),
                "mfc0 $15, $12",
                "lui $14, 0x2000",
                "or $14, $14, $15",
                "mtc0 $14, $12",
                "ehb",
                "li $8, 12345",
                "li $9, 77",
                "lui $13, 0xb800",
                "1:",
                ".rept 50",
                $($line,)*
                ".endr",
                "daddiu $4, $4, -1",
                "bnez $4, 1b",
                "nop",
                "mtc0 $15, $12",
                "jr.hb $31",
                "nop",
            )*
            ".set pop",
        );
        unsafe extern "C" {
            $(fn $function(rounds: u64, scratch: *mut u64);)*
        }
        /// All classes; the first is the empty loop.
        const CLASSES: &[Class] = &[$(($name, $len, $function)),*];
    };
}

classes! {
    bench_empty: "nothing", 0, [];
    bench_add: "daddu", 1, ["daddu $8, $8, $9"];
    bench_logic: "andi", 1, ["andi $10, $8, 0xff"];
    bench_shift: "dsll", 1, ["dsll $10, $8, 7"];
    bench_compare: "sltu", 1, ["sltu $10, $8, $9"];
    bench_load: "ld", 1, ["ld $10, 8($5)"];
    bench_load_byte: "lbu", 1, ["lbu $10, 3($5)"];
    bench_store: "sd", 1, ["sd $8, 16($5)"];
    bench_unaligned: "ldl, ldr", 2, ["ldl $10, 1($5)", "ldr $10, 6($5)"];
    bench_branch: "branch taken, delay slot", 2, ["b 7f", "nop", "7:"];
    bench_through: "branch not taken, delay slot", 2, ["bnez $0, 7f", "nop", "7:"];
    bench_multiply: "dmult, mflo", 2, ["dmult $8, $9", "mflo $10"];
    bench_divide: "ddivu, mflo", 2, ["ddivu $0, $8, $9", "mflo $10"];
    bench_linked: "lld, scd", 2, ["lld $10, 24($5)", "scd $10, 24($5)"];
    bench_status: "mfc0 Status", 1, ["mfc0 $10, $12"];
    bench_count: "mfc0 Count", 1, ["mfc0 $10, $9"];
    bench_mask: "di, mtc0 Status", 2, ["di $10", "mtc0 $14, $12"];
    bench_probe: "tlbp", 1, ["tlbp"];
    bench_double: "add.d", 1, ["add.d $f2, $f0, $f0"];
    bench_product: "mul.d", 1, ["mul.d $f2, $f0, $f0"];
    bench_move: "mtc1", 1, ["mtc1 $8, $f4"];
    bench_device: "lbu from the UART", 1, ["lbu $10, 0x3fd($13)"];
}

/// Prints a line a class.
pub fn run() {
    let mut scratch = [0x0123_4567_89ab_cdef_u64; 8];
    let mut time = |class: &Class| {
        let start = machine::count();
        // SAFETY: the loops keep to the calling convention and to the 64 bytes.
        unsafe { (class.2)(ROUNDS, scratch.as_mut_ptr()) };
        machine::count().wrapping_sub(start) & 0xffff_ffff
    };
    let empty = time(&CLASSES[0]);
    for class in &CLASSES[1..] {
        // 160 MHz: 25 ns are 4 ticks. In tenths of a nanosecond.
        let tenths = time(class).saturating_sub(empty) * 250 / 4;
        let each = tenths / (ROUNDS * COPIES * class.1);
        // The console cannot fail.
        let _ = writeln!(Console, "bench {:<28} {:>4}.{} ns", class.0, each / 10, each % 10);
    }
    let _ = writeln!(Console, "bench: done");
}
