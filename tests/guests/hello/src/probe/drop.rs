//! The way down to a less privileged mode, and back by whatever exception ends it.

use core::arch::global_asm;
use core::ptr::{read_volatile, write_volatile};

/// A run in another mode: the registers it begins with, and the exception that ended it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Frame {
    /// General registers at the beginning. (`$26` and `$27` begin as they are.)
    pub gpr: [u64; 32],
    /// Where it begins.
    pub pc: u64,
    /// Its Status; EXL is set here, and cleared by the way down.
    pub status: u64,
    /// Cause of the exception.
    pub cause: u64,
    /// Where it was.
    pub epc: u64,
    /// BadVAddr afterwards.
    pub bad: u64,
    /// Offset of the vector that took it.
    pub vector: u64,
    saved: [u64; 12],
}

const _: () = assert!(core::mem::offset_of!(Frame, saved) == 304);

impl Frame {
    /// From `pc` under `status`, all registers zero.
    pub const fn new(pc: u64, status: u64) -> Self {
        Self { gpr: [0; 32], pc, status, cause: 0, epc: 0, bad: 0, vector: 0, saved: [0; 12] }
    }

    /// Runs it.
    pub fn run(&mut self) {
        // SAFETY: the mode's code and data are this module's pages; every exception comes back here
        // with all that a C function preserves as it was.
        unsafe { hello_drop(self) }
    }
}

/// Where the vectors are.
const VECTORS: u64 = 0xffff_ffff_8000_0000;
/// Words of a vector's code.
const WORDS: usize = 9;

/// Lets the exception vectors come back from [`Frame::run`].
pub fn take_vectors() {
    for offset in [0x000_u64, 0x080, 0x180] {
        for i in 0..WORDS {
            // SAFETY: the vectors belong to the kernel, which is this program; the code names what
            // is outside itself by absolute address only.
            unsafe {
                let word = read_volatile((&raw const hello_dropped_vector).add(i));
                // The first word loads the offset.
                let word = if i == 0 { word | offset as u32 } else { word };
                write_volatile(((VECTORS + offset) as *mut u32).add(i), word);
            }
        }
    }
}

unsafe extern "C" {
    fn hello_drop(frame: *mut Frame);
    /// Reads the CP0 registers of [`super::state::NAMES`].
    pub fn hello_cp0(into: *mut u64);
    /// Reads a TLB entry: EntryHi, EntryLo0, EntryLo1, PageMask.
    pub fn hello_tlb_read(index: u64, into: *mut u64);
    /// Writes one.
    pub fn hello_tlb_write(index: u64, from: *const u64);
    /// Sets Compare so many ticks ahead.
    pub fn hello_alarm(ticks: u64);
    static hello_dropped_vector: u32;
}

global_asm!(
    r#"
    .set push
    .set mips64r2
    .set noreorder
    .set noat
    .text
    .globl hello_drop
hello_drop:
    sd      $16, 304($4)
    sd      $17, 312($4)
    sd      $18, 320($4)
    sd      $19, 328($4)
    sd      $20, 336($4)
    sd      $21, 344($4)
    sd      $22, 352($4)
    sd      $23, 360($4)
    sd      $28, 368($4)
    sd      $29, 376($4)
    sd      $30, 384($4)
    sd      $31, 392($4)
    lui     $8, 0x8000
    sd      $4, 0xf00($8)
    ld      $8, 256($4)
    dmtc0   $8, $14
    ld      $8, 264($4)
    ori     $8, $8, 2
    mtc0    $8, $12
    ehb
    move    $26, $4
    .irp r, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,28,29,30,31
    ld      $\r, (8 * \r)($26)
    .endr
    eret

    .globl hello_dropped_vector
hello_dropped_vector:
    ori     $27, $0, 0
    dla     $26, hello_dropped
    jr      $26
    nop

hello_dropped:
    lui     $26, 0x8000
    ld      $26, 0xf00($26)
    sd      $27, 296($26)
    mfc0    $27, $13
    sd      $27, 272($26)
    dmfc0   $27, $14
    sd      $27, 280($26)
    dmfc0   $27, $8
    sd      $27, 288($26)
    ld      $16, 304($26)
    ld      $17, 312($26)
    ld      $18, 320($26)
    ld      $19, 328($26)
    ld      $20, 336($26)
    ld      $21, 344($26)
    ld      $22, 352($26)
    ld      $23, 360($26)
    ld      $28, 368($26)
    ld      $29, 376($26)
    ld      $30, 384($26)
    ld      $31, 392($26)
    jr      $31
    nop

    .globl hello_tlb_read
hello_tlb_read:
    mtc0    $4, $0
    ehb
    tlbr
    ehb
    dmfc0   $8, $10
    sd      $8, 0($5)
    dmfc0   $8, $2
    sd      $8, 8($5)
    dmfc0   $8, $3
    sd      $8, 16($5)
    mfc0    $8, $5
    sd      $8, 24($5)
    jr.hb   $31
    nop

    .globl hello_tlb_write
hello_tlb_write:
    mtc0    $4, $0
    ld      $8, 0($5)
    dmtc0   $8, $10
    ld      $8, 8($5)
    dmtc0   $8, $2
    ld      $8, 16($5)
    dmtc0   $8, $3
    ld      $8, 24($5)
    mtc0    $8, $5
    ehb
    tlbwi
    jr.hb   $31
    nop

    .globl hello_alarm
hello_alarm:
    mfc0    $8, $9
    addu    $8, $8, $4
    mtc0    $8, $11
    jr.hb   $31
    nop

    .globl hello_cp0
hello_cp0:
    .macro  get at, r, s
    dmfc0   $8, $\r, \s
    sd      $8, \at($4)
    .endm
    get 0, 0, 0
    get 8, 2, 0
    get 16, 3, 0
    get 24, 4, 0
    get 32, 5, 0
    get 40, 5, 1
    get 48, 6, 0
    get 56, 7, 0
    get 64, 8, 0
    get 72, 10, 0
    get 80, 11, 0
    get 88, 12, 0
    get 96, 12, 1
    get 104, 12, 2
    get 112, 13, 0
    get 120, 15, 1
    get 128, 16, 0
    get 136, 20, 0
    get 144, 28, 0
    get 152, 30, 0
    jr.hb   $31
    nop
    .set pop
"#
);
