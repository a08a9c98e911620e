//! The floating-point registers. The monitor itself is compiled without; only guests use them.

use crate::cp0::Status;
use core::arch::global_asm;

// Coprocessor 1, and all registers 64 bits wide, while they are moved. With FR = 0 a pair's value lies in
// the low halves of two registers, so that nothing is missed.
global_asm!(
    ".set push", ".set mips64r2", ".set noreorder", ".set noat", ".set hardfloat",
    ".text",

    // fpu_load(registers, fcsr)
    ".globl fpu_load",
    "fpu_load:",
    "mfc0 $8, $12",
    "lui $9, {status} >> 16",
    "or $9, $8, $9",
    "mtc0 $9, $12",
    "ehb",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    "ldc1 $f\\n, 8*\\n($4)",
    ".endr",
    "ctc1 $5, $31",
    "mtc0 $8, $12",
    "ehb",
    "jr $31",
    "nop",

    // fpu_save(registers) -> fcsr
    ".globl fpu_save",
    "fpu_save:",
    "mfc0 $8, $12",
    "lui $9, {status} >> 16",
    "or $9, $8, $9",
    "mtc0 $9, $12",
    "ehb",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    "sdc1 $f\\n, 8*\\n($4)",
    ".endr",
    "cfc1 $2, $31",
    "mtc0 $8, $12",
    "ehb",
    "jr $31",
    "nop",
    ".set pop",
    status = const Status::CU1.bits() | Status::FR.bits(),
);

unsafe extern "C" {
    fn fpu_load(registers: *const u64, fcsr: u64);
    fn fpu_save(registers: *mut u64) -> u64;
}

/// Loads all floating-point registers, and FCSR, none of whose enabled exceptions may be raised.
pub(crate) fn load_fpu(registers: &[u64; 32], fcsr: u32) {
    // SAFETY: the compiler knows nothing of these registers; Status is put back.
    unsafe { fpu_load(registers.as_ptr(), u64::from(fcsr)) };
}

/// Stores all floating-point registers; returns FCSR.
pub(crate) fn save_fpu(registers: &mut [u64; 32]) -> u32 {
    // SAFETY: writes the 32 words; Status is put back.
    unsafe { fpu_save(registers.as_mut_ptr()) as u32 }
}
