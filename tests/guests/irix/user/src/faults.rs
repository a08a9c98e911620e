//! What user mode must not do, and what becomes of who does it.

use crate::checks::report;
use crate::say;
use crate::sys;
use core::arch::global_asm;
use irix_user::calls::{self, STACK_SIZE, STACK_TOP};
use irix_user::expected::{FAULTS, fold_faults};

/// Rounds of the storm.
const ROUNDS: u64 = 200;

macro_rules! attempts {
    ($($line:literal;)*) => {
        global_asm!(
            r#"
            .set mips64r2
            .set noreorder
            .set noat
            .text
            # attempt(function): calls it; 0, or the signal of its fault.
            .globl attempt
        attempt:
            daddiu  $29, $29, -16
            sd      $31, 0($29)
            move    $25, $4
            dla     $4, 1f
            li      $2, {catch}
            syscall
            jalr    $25
            nop
            li      $4, 0
            li      $2, {catch}
            syscall
            li      $2, 0
        1:  ld      $31, 0($29)
            jr      $31
            daddiu  $29, $29, 16
            "#,
            // The functions, and a table of them.
            $("7:", concat!("\t", $line), "\tjr $31", "\tnop", ".pushsection .rodata.attempts, \"a\"", ".dword 7b", ".popsection",)*
            ".section .rodata.attempts, \"a\"",
            catch = const calls::CATCH,
        );
    };
}

global_asm!(".section .rodata.attempts, \"a\"", ".balign 8", ".globl attempts", "attempts:");

attempts! {
    "mfc0 $8, $12";
    "mtc0 $8, $12";
    "dmfc0 $8, $10";
    "dmtc0 $8, $10";
    "mfc0 $8, $13";
    "mtc0 $8, $13";
    "mfc0 $8, $14";
    "dmtc0 $8, $14";
    "mfc0 $8, $9";
    "mtc0 $8, $11";
    "mfc0 $8, $16";
    "mtc0 $8, $16";
    "mfc0 $8, $15";
    "dmtc0 $8, $15, 1";
    "mtc0 $8, $6";
    "mtc0 $8, $7";
    "dmtc0 $8, $2";
    "dmtc0 $8, $20";
    "mtc0 $8, $31, 7";
    "tlbr";
    "tlbwi";
    "tlbwr";
    "tlbp";
    "eret";
    "deret";
    "wait";
    "di";
    "ei";
    ".word 0x41404000";
    ".word 0x41c84000";
    "cache 0x15, 0($29)";
    ".word 0x7c08003b";
    ".word 0x7c08103b";
    ".word 0x7c08e83b";
    ".word 0x44880000";
    ".word 0xd7a00000";
    ".word 0x48080000";
    ".word 0xec000000";
    "break";
    "teq $0, $0";
    "lui $8, 0x7fff; add $8, $8, $8";
    "li $8, 1; dsll32 $8, $8, 31; dsub $8, $0, $8";
    "lw $8, 1($29)";
    "sd $8, 4($29)";
    "lld $8, 4($29)";
    "daddiu $8, $31, 1; jr $8; nop";
    "lui $8, 0x8000; lw $8, 0($8)";
    "lui $8, 0x8000; sw $8, 0x180($8)";
    "lui $8, 0xa000; ld $8, 0($8)";
    "lui $8, 0xc010; lw $8, 0($8)";
    "lui $8, 0xc010; sd $8, 0($8)";
    "lui $8, 0xe000; lb $8, -1($8)";
    "li $8, 1; dsll32 $8, $8, 30; lw $8, 0($8)";
    "li $8, 0x13; dsll32 $8, $8, 27; lw $8, 0($8)";
    "li $8, 0x12; dsll32 $8, $8, 27; sw $8, 0x180($8)";
    "li $8, 3; dsll32 $8, $8, 30; lw $8, 0($8)";
    "li $8, 1; dsll32 $8, $8, 13; lw $8, 0($8)";
    "lui $8, 0x8000; jr $8; nop";
    "lui $8, 0x2000; lw $8, 0($8)";
    "li $8, 1; dsll32 $8, $8, 3; lw $8, 0($8)";
    "lui $8, 0x40; sw $8, 0($8)";
}

unsafe extern "C" {
    /// Calls a function; 0, or the signal of its fault.
    fn attempt(function: u64) -> u64;
    /// The functions that [`FAULTS`] names.
    static attempts: [u64; FAULTS.len()];
}

/// Does what [`FAULTS`] calls number `i`: the signal it got.
fn signal(i: usize) -> u32 {
    // SAFETY: the functions change temporary registers only, if anything; the table has as many.
    unsafe { attempt(attempts[i]) as u32 }
}

/// Each once.
pub fn faults() -> u32 {
    let sum = fold_faults(|i, wanted| {
        let got = signal(i);
        if got != wanted {
            say!("faults: {}: signal {got} instead of {wanted}", FAULTS[i].0);
        }
        got
    });
    report("faults", sum)
}

/// All again and again.
pub fn storm() -> u32 {
    let (mut refused, mut wrong) = (0_u64, 0_u64);
    for _ in 0..ROUNDS {
        for (i, fault) in FAULTS.iter().enumerate() {
            if signal(i) == fault.1 {
                refused += 1;
            } else {
                wrong += 1;
            }
        }
    }
    say!("privileged-storm: {} kinds, {refused} refused, {wrong} not", FAULTS.len());
    u32::from(wrong > 0)
}

/// Writes over everything it can, kernel addresses first, until that is its end.
pub fn scribble() -> u32 {
    for i in 0..FAULTS.len() {
        signal(i);
    }
    let mut at = sys::sbrk(1 << 20) as u64;
    // From its heap over its stack and on.
    while at < STACK_TOP + STACK_SIZE {
        // SAFETY: none: what it is about is that it costs nobody else anything.
        unsafe { (at as *mut u64).write_volatile(0xdead_beef_dead_beef) };
        at += 8;
    }
    0
}
