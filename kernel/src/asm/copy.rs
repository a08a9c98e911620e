//! Copies and fills, carefully: either side may lie in another cell's memory, which may vanish meanwhile.
//!
//! Each access has its entry in the exception table, which leads to the routines' end.

use core::arch::global_asm;

global_asm!(
    ".set push",
    ".set mips64r2",
    ".set noreorder",
    ".set noat",
    ".section .text.copy, \"ax\", @progbits",
    // An access that may trap: the call then answers 1.
    ".macro CAREFUL insn:vararg",
    "9: \\insn",
    ".pushsection __ex_table, \"a\", @progbits",
    ".balign 8",
    ".dword 9b, copy_failed",
    ".popsection",
    ".endm",
    // careful_copy(to, from, pieces of 64 bytes) -> 0, or 1 if that trapped.
    ".balign 16",
    ".globl careful_copy",
    "careful_copy:",
    "beqz $6, 2f",
    "nop",
    "1:",
    "CAREFUL ld $8, 0($5)",
    "CAREFUL ld $9, 8($5)",
    "CAREFUL ld $10, 16($5)",
    "CAREFUL ld $11, 24($5)",
    "CAREFUL ld $12, 32($5)",
    "CAREFUL ld $13, 40($5)",
    "CAREFUL ld $14, 48($5)",
    "CAREFUL ld $15, 56($5)",
    "daddiu $6, $6, -1",
    "CAREFUL sd $8, 0($4)",
    "CAREFUL sd $9, 8($4)",
    "CAREFUL sd $10, 16($4)",
    "CAREFUL sd $11, 24($4)",
    "CAREFUL sd $12, 32($4)",
    "CAREFUL sd $13, 40($4)",
    "CAREFUL sd $14, 48($4)",
    "CAREFUL sd $15, 56($4)",
    "daddiu $5, $5, 64",
    "bnez $6, 1b",
    "daddiu $4, $4, 64",
    "2: jr $31",
    "move $2, $0",
    // careful_fill(to, word, pieces of 64 bytes) -> 0, or 1 if that trapped.
    ".balign 16",
    ".globl careful_fill",
    "careful_fill:",
    "beqz $6, 2f",
    "nop",
    "1:",
    "CAREFUL sd $5, 0($4)",
    "CAREFUL sd $5, 8($4)",
    "CAREFUL sd $5, 16($4)",
    "CAREFUL sd $5, 24($4)",
    "CAREFUL sd $5, 32($4)",
    "CAREFUL sd $5, 40($4)",
    "CAREFUL sd $5, 48($4)",
    "CAREFUL sd $5, 56($4)",
    "daddiu $6, $6, -1",
    "bnez $6, 1b",
    "daddiu $4, $4, 64",
    "2: jr $31",
    "move $2, $0",
    "copy_failed:",
    "jr $31",
    "li $2, 1",
    ".purgem CAREFUL",
    ".set pop",
);

unsafe extern "C" {
    /// Copies `pieces` times 64 bytes; 1 if that trapped.
    pub(crate) fn careful_copy(to: u64, from: u64, pieces: u64) -> u64;
    /// Fills `pieces` times 64 bytes with a word; 1 if that trapped.
    pub(crate) fn careful_fill(to: u64, word: u64, pieces: u64) -> u64;
}
