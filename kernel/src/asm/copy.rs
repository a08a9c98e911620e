//! Copies from another cell's memory, which may vanish meanwhile.
//!
//! Each load that may trap has its entry in the exception table, which leads to the routine's end.

use core::arch::global_asm;

global_asm!(
    ".set push",
    ".set mips64r2",
    ".set noreorder",
    ".set noat",
    ".section .text.copy, \"ax\", @progbits",
    // A load that may trap; if it does, the routine ends with 1.
    ".macro CAREFUL_LOAD to, at",
    "97: ld \\to, \\at",
    ".pushsection __ex_table, \"a\", @progbits",
    ".balign 8",
    ".dword 97b, copy_failed",
    ".popsection",
    ".endm",
    // careful_copy(to, from, pieces of 64 bytes).
    ".balign 16",
    ".globl careful_copy",
    "careful_copy:",
    "beqz $6, 2f",
    "nop",
    "1:",
    "CAREFUL_LOAD $8, 0($5)",
    "CAREFUL_LOAD $9, 8($5)",
    "CAREFUL_LOAD $10, 16($5)",
    "CAREFUL_LOAD $11, 24($5)",
    "CAREFUL_LOAD $12, 32($5)",
    "CAREFUL_LOAD $13, 40($5)",
    "CAREFUL_LOAD $14, 48($5)",
    "CAREFUL_LOAD $15, 56($5)",
    "daddiu $6, $6, -1",
    "sd $8, 0($4)",
    "sd $9, 8($4)",
    "sd $10, 16($4)",
    "sd $11, 24($4)",
    "sd $12, 32($4)",
    "sd $13, 40($4)",
    "sd $14, 48($4)",
    "sd $15, 56($4)",
    "daddiu $5, $5, 64",
    "bnez $6, 1b",
    "daddiu $4, $4, 64",
    "2: jr $31",
    "move $2, $0",
    "copy_failed:",
    "jr $31",
    "li $2, 1",
    ".set pop",
);

unsafe extern "C" {
    /// Copies `pieces` times 64 bytes, from memory that may not be there; 1 if that trapped.
    pub(crate) fn careful_copy(to: *mut u64, from: u64, pieces: u64) -> u64;
}
