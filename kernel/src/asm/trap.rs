//! Entry from the PROM, the monitor's own traps, waiting, and careful accesses.

use super::{cell, prom};
use crate::page::CellPage;
use crate::trap::Frame;
use abi::prom::PromPage;
use core::arch::global_asm;
use core::mem::offset_of;
use core::sync::atomic::AtomicU64;

/// Bytes of a CPU's stack: one TLB page.
pub(crate) const STACK_SIZE: usize = 64 << 10;
/// Bytes of a CPU's spare stack.
pub(crate) const SPARE_SIZE: usize = 8 << 10;

/// The memory of the CPUs' stacks, each a TLB page of its own (see [`crate::stack`]).
#[repr(C, align(65536))]
pub(crate) struct Stacks([[u8; STACK_SIZE]; abi::ids::MAX_CPUS]);
const _: () = assert!(align_of::<Stacks>() == STACK_SIZE);

/// What a CPU stands on before it has its stack, and in a trap when `$sp` is not in it.
#[repr(C, align(16))]
pub(crate) struct Spares([[u8; SPARE_SIZE]; abi::ids::MAX_CPUS]);

/// Only ever used by address.
pub(crate) static mut STACKS: Stacks = Stacks([[0; STACK_SIZE]; abi::ids::MAX_CPUS]);
/// Only ever used by address.
pub(crate) static mut SPARE_STACKS: Spares = Spares([[0; SPARE_SIZE]; abi::ids::MAX_CPUS]);

global_asm!(
    ".set push", ".set mips64r2", ".set noreorder", ".set noat",

    // Entry, from the PROM: $4 is the CPU, $5 the hand-off. On the spare stack until `prepare` has
    // mapped the CPU's own, whose top it returns.
    ".section .text.entry, \"ax\", @progbits",
    ".globl _start",
    "_start:",
    "dla $29, {spares}",
    "daddiu $8, $4, 1",
    "li $9, {spare_size}",
    "dmult $8, $9",
    "mflo $8",
    "daddu $29, $29, $8",
    "daddiu $29, $29, -32",
    "move $30, $0",
    "move $31, $0",
    "move $16, $4",
    "move $17, $5",
    "dla $25, {prepare}",
    "jalr $25",
    "nop",
    "daddiu $29, $2, -32",
    "move $4, $16",
    "move $5, $17",
    "dla $25, {main}",
    "move $31, $0",
    "jr $25",
    "nop",

    // What traps run is in a section of its own, so that branches reach all of it.
    ".section .text.trap, \"ax\", @progbits",
    ".balign 16",
    ".globl trap_entry",
    "trap_entry:",
    "mfc0 $26, $12",
    "andi $26, $26, {ksu}",
    "bnez $26, guest_trap",
    "daddiu $27, $29, -{frame}",
    "ld $26, {stack_low}($0)",
    "sltu $26, $27, $26",
    "bnez $26, 1f",
    "ld $26, {stack_high}($0)",
    "sltu $26, $26, $29",
    "beqz $26, 2f",
    "nop",
    "1: ld $27, {spare}($0)",
    "daddiu $27, $27, -{frame}",
    "2:",
    ".irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,28,29,30,31",
    "sd $\\n, {gpr}+8*\\n($27)",
    ".endr",
    "sd $0, {gpr}($27)",
    "ld $8, {k0}($0)",
    "ld $9, {k1}($0)",
    "sd $8, {gpr}+8*26($27)",
    "sd $9, {gpr}+8*27($27)",
    "mfhi $8",
    "mflo $9",
    "sd $8, {hi}($27)",
    "sd $9, {lo}($27)",
    "mfc0 $8, $12",
    "mfc0 $9, $13",
    "dmfc0 $10, $14",
    "dmfc0 $11, $8",
    "sd $8, {status}($27)",
    "sd $9, {cause}($27)",
    "sd $10, {epc}($27)",
    "sd $11, {bad_vaddr}($27)",
    "move $29, $27",
    // Everything is saved.
    "sd $0, {pending}($0)",
    // Kernel mode, EXL, ERL and IE clear.
    "ori $8, $8, 0x1f",
    "xori $8, $8, 0x1f",
    "mtc0 $8, $12",
    "ehb",
    "dla $25, {handler}",
    "jalr $25",
    "move $4, $29",
    // Back: the saved Status has EXL set, so that nothing interrupts from here to eret.
    "move $27, $29",
    "ld $8, {status}($27)",
    "mtc0 $8, $12",
    "ehb",
    "ld $10, {epc}($27)",
    "dmtc0 $10, $14",
    "ld $8, {hi}($27)",
    "ld $9, {lo}($27)",
    "mthi $8",
    "mtlo $9",
    ".irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,28,29,30,31,26,27",
    "ld $\\n, {gpr}+8*\\n($27)",
    ".endr",
    "ehb",
    "eret",

    // doze($4: the CPUs that are awake, $5: this one's bit) -> 1 once there are others, with interrupts off;
    // 0 with interrupts on after one. Straight code costs QEMU next to nothing.
    ".globl doze_enter",
    "doze_enter:",
    "ei",
    ".globl doze_window",
    "doze_window:",
    "ehb",
    "7:",
    ".rept 60",
    "nop",
    ".endr",
    "ld $8, 0($4)",
    "beq $8, $5, 7b",
    "nop",
    "di",
    "ehb",
    ".globl doze_after",
    "doze_after:",
    "jr $31",
    "li $2, 1",

    // idle(): interrupts are off; see the module's documentation.
    ".globl idle_enter",
    "idle_enter:",
    "ei",
    ".globl idle_window",
    "idle_window:",
    "ehb",
    "wait",
    ".globl idle_after",
    "idle_after:",
    "jr $31",
    "move $2, $0",

    // careful_load(address, to) -> 0, or 1 if the load trapped. Only the load is in the table.
    ".globl careful_load32",
    "careful_load32:",
    "3: lwu $2, 0($4)",
    "sd $2, 0($5)",
    "jr $31",
    "move $2, $0",
    ".globl careful_load64",
    "careful_load64:",
    "4: ld $2, 0($4)",
    "sd $2, 0($5)",
    "jr $31",
    "move $2, $0",
    ".globl careful_store64",
    "careful_store64:",
    "5: sd $5, 0($4)",
    "jr $31",
    "move $2, $0",
    // careful_store_words(to, from, words) -> 0, or 1 if a store trapped.
    ".globl careful_store_words",
    "careful_store_words:",
    "beqz $6, 8f",
    "dsll $6, $6, 3",
    "daddu $6, $6, $5",
    "7: ld $2, 0($5)",
    "9: sd $2, 0($4)",
    "daddiu $5, $5, 8",
    "bne $5, $6, 7b",
    "daddiu $4, $4, 8",
    "8: jr $31",
    "move $2, $0",
    "6: jr $31",
    "li $2, 1",
    ".section __ex_table, \"a\", @progbits",
    ".balign 8",
    ".dword 3b, 6b",
    ".dword 4b, 6b",
    ".dword 5b, 6b",
    ".dword 9b, 6b",
    ".text",

    // capture(frame): the general registers as the caller has them.
    ".globl capture_registers",
    "capture_registers:",
    "sd $0, {gpr}($4)",
    ".irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    "sd $\\n, {gpr}+8*\\n($4)",
    ".endr",
    "mfhi $2",
    "sd $2, {hi}($4)",
    "mflo $2",
    "sd $2, {lo}($4)",
    "mfc0 $2, $12",
    "sd $2, {status}($4)",
    "mfc0 $2, $13",
    "sd $2, {cause}($4)",
    "sd $31, {epc}($4)",
    "dmfc0 $2, $8",
    "jr $31",
    "sd $2, {bad_vaddr}($4)",
    ".set pop",
    spares = sym SPARE_STACKS,
    spare_size = const SPARE_SIZE,
    prepare = sym crate::start::prepare,
    main = sym crate::start::main,
    handler = sym crate::trap::handle,
    frame = const size_of::<Frame>(),
    stack_low = const cell(offset_of!(CellPage, stack_low)),
    stack_high = const cell(offset_of!(CellPage, stack_high)),
    spare = const cell(offset_of!(CellPage, spare_stack)),
    k0 = const prom(offset_of!(PromPage, k)),
    k1 = const prom(offset_of!(PromPage, k) + 8),
    pending = const prom(offset_of!(PromPage, pending)),
    ksu = const crate::cp0::Status::KSU.bits(),
    gpr = const offset_of!(Frame, gpr),
    hi = const offset_of!(Frame, hi),
    lo = const offset_of!(Frame, lo),
    status = const offset_of!(Frame, status),
    cause = const offset_of!(Frame, cause),
    epc = const offset_of!(Frame, epc),
    bad_vaddr = const offset_of!(Frame, bad_vaddr),
);

unsafe extern "C" {
    fn trap_entry();
    fn doze_enter(awake: *const AtomicU64, me: u64) -> u64;
    fn doze_window();
    fn doze_after();
    fn idle_enter();
    fn idle_window();
    fn idle_after();
    /// Loads 4 bytes; 1 if that trapped.
    pub(crate) fn careful_load32(address: u64, to: *mut u64) -> u64;
    /// Loads a word; 1 if that trapped.
    pub(crate) fn careful_load64(address: u64, to: *mut u64) -> u64;
    /// Stores a word; 1 if that trapped.
    pub(crate) fn careful_store64(address: u64, value: u64) -> u64;
    /// Stores words from memory; 1 if that trapped.
    pub(crate) fn careful_store_words(to: u64, from: *const u64, words: u64) -> u64;
    fn capture_registers(frame: *mut Frame);
    static __ex_table_start: [u64; 2];
    static __ex_table_end: [u64; 2];
}

/// The address of trap entry, for the vectors.
pub(crate) fn trap_entry_address() -> u64 {
    trap_entry as *const () as u64
}

/// Waits for an interrupt, with interrupts off on entry and on after.
pub(crate) fn idle() {
    // SAFETY: enables interrupts, whose handler is in place before anybody idles, and waits.
    unsafe { idle_enter() }
}

/// Spins until an interrupt, or until `awake` is not `me` any more, with interrupts off on entry. Whether no
/// interrupt came; then they are still off, else on.
pub(crate) fn doze(awake: &AtomicU64, me: u64) -> bool {
    // SAFETY: enables interrupts, as `idle` does, and reads the word.
    unsafe { doze_enter(awake, me) != 0 }
}

/// Where `idle` or `doze` resumes if it was interrupted at `epc`, before it could wait or had given up.
pub(crate) fn past_idle(epc: u64) -> Option<u64> {
    let after = idle_after as *const () as u64;
    let waits = idle_window as *const () as u64..after;
    let dozes = doze_window as *const () as u64..doze_after as *const () as u64;
    (waits.contains(&epc) || dozes.contains(&epc)).then_some(after)
}

/// Pairs of an instruction that may trap, and where to go on if it does.
pub(crate) fn exception_table() -> &'static [[u64; 2]] {
    // SAFETY: the linker script defines the two symbols around an aligned, read-only table of pairs.
    unsafe {
        let start = &raw const __ex_table_start;
        let end = &raw const __ex_table_end;
        core::slice::from_raw_parts(start, end.offset_from_unsigned(start))
    }
}

/// The registers as they are here.
#[inline(always)]
pub(crate) fn capture() -> Frame {
    let mut frame = Frame::default();
    // SAFETY: writes the frame's fields, nothing else.
    unsafe { capture_registers(&raw mut frame) };
    frame
}
