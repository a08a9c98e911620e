//! Whole pages, copied or filled carefully: either side may lie in another cell's memory, which may vanish.

use abi::PAGE_SIZE;
use core::arch::global_asm;

global_asm!(
    ".set push", ".set mips64r2", ".set noreorder", ".set noat",
    ".section .text.frames, \"ax\", @progbits",

    // An access that may trap: the call then answers 1.
    ".macro CAREFUL insn:vararg",
    "9: \\insn",
    ".pushsection __ex_table, \"a\", @progbits",
    ".balign 8",
    ".dword 9b, careful_frame_failed",
    ".popsection",
    ".endm",

    // careful_copy_page(to, from) -> 0, or 1 if that trapped.
    ".balign 16",
    ".globl careful_copy_page",
    "careful_copy_page:",
    "daddiu $6, $5, {page}",
    "1:",
    "CAREFUL ld $8, 0($5)",
    "CAREFUL ld $9, 8($5)",
    "CAREFUL ld $10, 16($5)",
    "CAREFUL ld $11, 24($5)",
    "daddiu $5, $5, 32",
    "CAREFUL sd $8, 0($4)",
    "CAREFUL sd $9, 8($4)",
    "CAREFUL sd $10, 16($4)",
    "CAREFUL sd $11, 24($4)",
    "bne $5, $6, 1b",
    "daddiu $4, $4, 32",
    "jr $31",
    "move $2, $0",

    // careful_fill_page(to, word) -> 0, or 1 if that trapped.
    ".balign 16",
    ".globl careful_fill_page",
    "careful_fill_page:",
    "daddiu $6, $4, {page}",
    "1:",
    "CAREFUL sd $5, 0($4)",
    "CAREFUL sd $5, 8($4)",
    "CAREFUL sd $5, 16($4)",
    "CAREFUL sd $5, 24($4)",
    "daddiu $4, $4, 32",
    "bne $4, $6, 1b",
    "nop",
    "jr $31",
    "move $2, $0",

    "careful_frame_failed:",
    "jr $31",
    "li $2, 1",
    ".purgem CAREFUL",
    ".set pop",
    page = const PAGE_SIZE,
);

unsafe extern "C" {
    /// Copies a page; 1 if that trapped.
    pub(crate) fn careful_copy_page(to: u64, from: u64) -> u64;
    /// Fills a page with a word; 1 if that trapped.
    pub(crate) fn careful_fill_page(to: u64, word: u64) -> u64;
}
