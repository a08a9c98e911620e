//! All that is not Rust: boot stub, vectors, refill, trap entry and exit, the switch of stacks.

use crate::cpu::{CPUS_MAX, Frame, PDA, Pda};
use core::arch::global_asm;
use core::mem::{offset_of, size_of};

/// Bytes of the stack a CPU boots and idles on.
pub const BOOT_STACK: usize = 0x2000;

// The boot stub, in KSEG0. Every CPU enters with the firmware's $a0 to $a3, translation off but for
// KSEG0 and KSEG1, and nothing in the TLB. It makes the wired entries: 0, the CPU's private data area;
// 1, the window on RAM, if the kernel is linked in a mapped segment.
global_asm!(
    r#"
    .set mips64r2
    .set noreorder
    .set noat
    .section .boot, "ax"
    .globl _start
_start:
    mfc0    $8, $15, 1              # EBase.CPUNum
    andi    $8, $8, 0x3ff
    sltiu   $9, $8, {cpus}
1:  beqz    $9, 1b                  # one too many: stop
    nop
    lui     $9, 0x0040              # Status: BEV, KX, SX, UX
    ori     $9, $9, 0x00e0
    mtc0    $9, $12
    mtc0    $0, $13
    dmtc0   $0, $20                 # XContext
    mtc0    $0, $5                  # PageMask
    li      $9, 0xa                 # HWREna: user mode may read SYNCI_Step and CCRes
    mtc0    $9, $7
    ehb

    # Empty the TLB by TLBINVF, where Config4.IE says that it exists. (Else `cpu::init` does it.)
    mfc0    $9, $16, 1
    bgez    $9, 2f
    nop
    mfc0    $9, $16, 2
    bgez    $9, 2f
    nop
    mfc0    $9, $16, 3
    bgez    $9, 2f
    nop
    mfc0    $9, $16, 4
    dsll32  $9, $9, 1               # IE, bits 30:29, is 2 or 3
    bgez    $9, 2f
    nop
    .word   0x42000004              # tlbinvf
2:
    # Entry 0: this CPU's page of PDAS at PDA, global, its odd neighbour invalid.
    dla     $10, _window
    dla     $11, {pdas}
    dsubu   $11, $11, $10
    dsll    $12, $8, 12
    daddu   $11, $11, $12
    dsrl    $11, $11, 6
    ori     $11, $11, 0x1f          # cacheable, D, V, G
    dmtc0   $11, $2
    li      $12, 1
    dmtc0   $12, $3
    dli     $12, {pda}
    dmtc0   $12, $10
    mtc0    $0, $0
    ehb
    tlbwi
    li      $12, 1
    mtc0    $12, $6                 # Wired

    # Entry 1: the window, the smallest pair of pages, of 4 MB at least, that covers RAM ($a3 bytes).
    lui     $12, 0x8000
    beq     $10, $12, 3f
    li      $13, 1
    mtc0    $13, $0
    lui     $12, 0x40
1:  dsll    $13, $12, 1
    sltu    $14, $13, $7
    bnez    $14, 1b
    dsll    $12, $12, 2
    dsrl    $12, $12, 2             # the delay slot's shift was one too many
    daddiu  $14, $13, -1
    dsrl    $14, $14, 13
    dsll    $14, $14, 13
    mtc0    $14, $5
    dmtc0   $10, $10
    li      $14, 0x1f
    dmtc0   $14, $2
    sltu    $14, $12, $7            # the odd page is valid if RAM reaches into it
    li      $15, 1
    beqz    $14, 2f
    nop
    dsrl    $15, $12, 6
    ori     $15, $15, 0x1f
2:  dmtc0   $15, $3
    ehb
    tlbwi
    mtc0    $0, $5
    li      $12, 2
    mtc0    $12, $6
    ehb

    # From here on the kernel's own addresses are there.
3:  dla     $9, {vectors}
    ori     $9, $9, 0x800           # EBase.WG
    dmtc0   $9, $15, 1
    li      $9, {status}
    mtc0    $9, $12
    ehb
    li      $12, {stack}
    dla     $29, {stacks}
4:  daddu   $29, $29, $12           # the end of this CPU's stack
    bnez    $8, 4b
    daddiu  $8, $8, -1
    daddiu  $29, $29, -16
    mfc0    $8, $15, 1
    andi    $8, $8, 0x3ff
    bnez    $8, 6f
    nop
    dla     $8, _bss_start
    dla     $9, _end
5:  sd      $0, 0($8)
    daddiu  $8, $8, 8
    bne     $8, $9, 5b
    nop
    dla     $25, {main}
    jr.hb   $25
    nop
6:  move    $4, $8
    dla     $25, {secondary}
    jr.hb   $25
    nop
"#,
    cpus = const CPUS_MAX,
    pda = const PDA,
    status = const crate::cpu::STATUS_KERNEL,
    stack = const BOOT_STACK,
    pdas = sym crate::cpu::PDAS,
    stacks = sym crate::start::STACKS,
    vectors = sym vectors,
    main = sym crate::start::main,
    secondary = sym crate::start::secondary,
);

// The vectors. 0x080, XTLB refill: the directory's entry for address bits 30:22 names a table (an empty
// one where nothing is), whose entries for bits 21:12 hold EntryLo << 6. An address beyond 2^31
// is nobody's: general. So is a pair of which neither page is there, and the kernel is told that the TLB
// has nothing of it.
//
// Trap entry: all registers onto the kernel's stack, which is the process's if user mode was
// interrupted, else goes on.
global_asm!(
    r#"
    .set mips64r2
    .set noreorder
    .set noat
    .section .vectors, "ax"
    .globl vectors
vectors:
    b       trap_entry
    nop

    .org    0x080
    dmfc0   $26, $20                # XContext: region and page pair, << 4
    dsrl    $27, $26, 22
    bnez    $27, trap_entry
    lui     $27, {pda_hi}
    ld      $27, {directory}($27)
    drotr   $26, $26, 13
    dins    $27, $26, 3, 9          # + bits 30:22 * 8
    ld      $27, 0($27)
    dsrl32  $26, $26, 23
    dins    $27, $26, 3, 9          # + bits 21:13 * 8
    lwu     $26, 0($27)
    lwu     $27, 4($27)
    bnez    $26, 1f
    nop
    beqz    $27, 2f                 # neither page is there: no entry is made for them
    nop
1:  dsrl    $26, $26, 6
    dsrl    $27, $27, 6
    dmtc0   $26, $2
    dmtc0   $27, $3
    ehb
    tlbwr
    eret
2:  lui     $26, {pda_hi}
    b       trap_entry
    sw      $26, {missed}($26)      # anything but 0

    .org    0x100                   # cache error
    b       trap_entry
    nop

    .org    0x180                   # everything else
trap_entry:
    mfc0    $27, $12
    andi    $26, $27, 0x18          # KSU
    beqz    $26, 1f
    move    $26, $29
    lui     $29, {pda_hi}
    ld      $29, {stack}($29)
1:  daddiu  $29, $29, -{frame}
    sd      $26, 29*8($29)
    sd      $27, {status}($29)
    sd      $1, 1*8($29)
    sd      $2, 2*8($29)
    sd      $3, 3*8($29)
    sd      $4, 4*8($29)
    sd      $5, 5*8($29)
    sd      $6, 6*8($29)
    sd      $7, 7*8($29)
    sd      $8, 8*8($29)
    sd      $9, 9*8($29)
    sd      $10, 10*8($29)
    sd      $11, 11*8($29)
    sd      $12, 12*8($29)
    sd      $13, 13*8($29)
    sd      $14, 14*8($29)
    sd      $15, 15*8($29)
    sd      $16, 16*8($29)
    sd      $17, 17*8($29)
    sd      $18, 18*8($29)
    sd      $19, 19*8($29)
    sd      $20, 20*8($29)
    sd      $21, 21*8($29)
    sd      $22, 22*8($29)
    sd      $23, 23*8($29)
    sd      $24, 24*8($29)
    sd      $25, 25*8($29)
    sd      $28, 28*8($29)
    sd      $30, 30*8($29)
    sd      $31, 31*8($29)
    mflo    $8
    mfhi    $9
    mfc0    $10, $13
    dmfc0   $11, $14
    sd      $8, {lo}($29)
    sd      $9, {hi}($29)
    sd      $10, {cause}($29)
    sd      $11, {epc}($29)
    li      $8, {kernel}            # EXL off, kernel mode, interrupts off
    mtc0    $8, $12
    ehb
    dla     $25, {trap}
    jalr    $25
    move    $4, $29

    # Back to what was interrupted; a new process begins here, its frame already made.
    .globl trap_return
trap_return:
    ld      $8, {lo}($29)
    ld      $9, {hi}($29)
    mtlo    $8
    mthi    $9
    ld      $1, 1*8($29)
    ld      $2, 2*8($29)
    ld      $3, 3*8($29)
    ld      $4, 4*8($29)
    ld      $5, 5*8($29)
    ld      $6, 6*8($29)
    ld      $7, 7*8($29)
    ld      $8, 8*8($29)
    ld      $9, 9*8($29)
    ld      $10, 10*8($29)
    ld      $11, 11*8($29)
    ld      $12, 12*8($29)
    ld      $13, 13*8($29)
    ld      $14, 14*8($29)
    ld      $15, 15*8($29)
    ld      $16, 16*8($29)
    ld      $17, 17*8($29)
    ld      $18, 18*8($29)
    ld      $19, 19*8($29)
    ld      $20, 20*8($29)
    ld      $21, 21*8($29)
    ld      $22, 22*8($29)
    ld      $23, 23*8($29)
    ld      $24, 24*8($29)
    ld      $25, 25*8($29)
    ld      $28, 28*8($29)
    ld      $30, 30*8($29)
    ld      $31, 31*8($29)
    ld      $26, {status}($29)      # with EXL, as it was saved
    ld      $27, {epc}($29)
    mtc0    $26, $12
    dmtc0   $27, $14
    ld      $29, 29*8($29)
    ehb
    eret

    # switch(from, to, kernel): saves what a callee saves and goes on where `to` was saved.
    .text
    .globl switch_context
switch_context:
    sd      $16, 0($4)
    sd      $17, 8($4)
    sd      $18, 16($4)
    sd      $19, 24($4)
    sd      $20, 32($4)
    sd      $21, 40($4)
    sd      $22, 48($4)
    sd      $23, 56($4)
    sd      $28, 64($4)
    sd      $29, 72($4)
    sd      $30, 80($4)
    sd      $31, 88($4)
    ld      $16, 0($5)
    ld      $17, 8($5)
    ld      $18, 16($5)
    ld      $19, 24($5)
    ld      $20, 32($5)
    ld      $21, 40($5)
    ld      $22, 48($5)
    ld      $23, 56($5)
    ld      $28, 64($5)
    ld      $29, 72($5)
    ld      $30, 80($5)
    ld      $31, 88($5)
    jr      $31
    nop

    # Where a new process goes on after its first switch: it leaves the kernel as its parent entered it.
    .globl process_begins
process_begins:
    dla     $25, {leave}
    jalr    $25
    nop
    dla     $25, trap_return
    jr      $25
    nop
"#,
    // The PDA lies less than 32 KB below a multiple of 64 KB: a negative offset reaches it.
    pda_hi = const (PDA + 0x8000) >> 16 & 0xffff,
    directory = const (PDA as u16 as i16) as i64 + offset_of!(Pda, directory) as i64,
    missed = const (PDA as u16 as i16) as i64 + offset_of!(Pda, missed) as i64,
    stack = const (PDA as u16 as i16) as i64 + offset_of!(Pda, stack) as i64,
    frame = const size_of::<Frame>(),
    status = const offset_of!(Frame, status),
    lo = const offset_of!(Frame, lo),
    hi = const offset_of!(Frame, hi),
    cause = const offset_of!(Frame, cause),
    epc = const offset_of!(Frame, epc),
    kernel = const crate::cpu::STATUS_KERNEL,
    trap = sym crate::trap::trap,
    leave = sym crate::lock::leave,
);

unsafe extern "C" {
    /// The exception vectors, as far as they go.
    static vectors: u32;
}
