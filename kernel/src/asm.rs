//! All of the monitor's assembly.
//!
//! # The trap path
//!
//! The PROM's vectors save `$k0` and `$k1` in the CPU's private page in low RAM, count the trap as
//! pending, and jump here. Trap entry takes room for a [`Frame`] below `$sp`, or on the CPU's spare
//! stack if `$sp` does not lie in the CPU's stack (an overflow, a wild pointer: the handler then finds
//! the bad `$sp` in the frame and reports it), and saves everything: the compiler uses every general
//! register, and HI and LO too, so that nothing less would do. Only then is the trap no longer
//! pending: should the saving itself fail, the vector finds it so and the PROM takes over, on memory
//! that is still there.
//!
//! The handler runs with EXL clear and interrupts off: a trap in the handler is a trap like any other,
//! with an EPC of its own, so that a bug in it can be reported and a careful access in it works.
//!
//! `wait` and interrupts: [`idle`] is entered with interrupts off, after its caller found nothing to
//! do, and enables them just before `wait`. An interrupt in between would be handled and then slept
//! upon; so the handler moves an EPC between the two ([`IdleWindow`]) past the `wait`.

use crate::page::CellPage;
use crate::trap::Frame;
use abi::prom::{CELL_PAGE_VA, PROM_PAGE_VA, PromPage};
use core::arch::{asm, global_asm};
use core::mem::offset_of;

/// Bytes of a CPU's stack: one TLB page.
pub(crate) const STACK_SIZE: usize = 64 << 10;
/// Bytes of a CPU's spare stack.
pub(crate) const SPARE_SIZE: usize = 8 << 10;

const fn prom(field: usize) -> i64 {
    PROM_PAGE_VA.cast_signed() + field as i64
}

const fn cell(field: usize) -> i64 {
    CELL_PAGE_VA.cast_signed() + field as i64
}

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

    ".text",
    ".balign 16",
    ".globl trap_entry",
    "trap_entry:",
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
    "sd $1, {gpr}+8*1($27)",
    "sd $2, {gpr}+8*2($27)",
    "sd $3, {gpr}+8*3($27)",
    "sd $4, {gpr}+8*4($27)",
    "sd $5, {gpr}+8*5($27)",
    "sd $6, {gpr}+8*6($27)",
    "sd $7, {gpr}+8*7($27)",
    "sd $8, {gpr}+8*8($27)",
    "sd $9, {gpr}+8*9($27)",
    "sd $10, {gpr}+8*10($27)",
    "sd $11, {gpr}+8*11($27)",
    "sd $12, {gpr}+8*12($27)",
    "sd $13, {gpr}+8*13($27)",
    "sd $14, {gpr}+8*14($27)",
    "sd $15, {gpr}+8*15($27)",
    "sd $16, {gpr}+8*16($27)",
    "sd $17, {gpr}+8*17($27)",
    "sd $18, {gpr}+8*18($27)",
    "sd $19, {gpr}+8*19($27)",
    "sd $20, {gpr}+8*20($27)",
    "sd $21, {gpr}+8*21($27)",
    "sd $22, {gpr}+8*22($27)",
    "sd $23, {gpr}+8*23($27)",
    "sd $24, {gpr}+8*24($27)",
    "sd $25, {gpr}+8*25($27)",
    "sd $28, {gpr}+8*28($27)",
    "sd $29, {gpr}+8*29($27)",
    "sd $30, {gpr}+8*30($27)",
    "sd $31, {gpr}+8*31($27)",
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
    "ld $1, {gpr}+8*1($27)",
    "ld $2, {gpr}+8*2($27)",
    "ld $3, {gpr}+8*3($27)",
    "ld $4, {gpr}+8*4($27)",
    "ld $5, {gpr}+8*5($27)",
    "ld $6, {gpr}+8*6($27)",
    "ld $7, {gpr}+8*7($27)",
    "ld $8, {gpr}+8*8($27)",
    "ld $9, {gpr}+8*9($27)",
    "ld $10, {gpr}+8*10($27)",
    "ld $11, {gpr}+8*11($27)",
    "ld $12, {gpr}+8*12($27)",
    "ld $13, {gpr}+8*13($27)",
    "ld $14, {gpr}+8*14($27)",
    "ld $15, {gpr}+8*15($27)",
    "ld $16, {gpr}+8*16($27)",
    "ld $17, {gpr}+8*17($27)",
    "ld $18, {gpr}+8*18($27)",
    "ld $19, {gpr}+8*19($27)",
    "ld $20, {gpr}+8*20($27)",
    "ld $21, {gpr}+8*21($27)",
    "ld $22, {gpr}+8*22($27)",
    "ld $23, {gpr}+8*23($27)",
    "ld $24, {gpr}+8*24($27)",
    "ld $25, {gpr}+8*25($27)",
    "ld $28, {gpr}+8*28($27)",
    "ld $29, {gpr}+8*29($27)",
    "ld $30, {gpr}+8*30($27)",
    "ld $31, {gpr}+8*31($27)",
    "ld $26, {gpr}+8*26($27)",
    "ld $27, {gpr}+8*27($27)",
    "ehb",
    "eret",

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
    "nop",

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
    "6: jr $31",
    "li $2, 1",
    ".section __ex_table, \"a\", @progbits",
    ".balign 8",
    ".dword 3b, 6b",
    ".dword 4b, 6b",
    ".dword 5b, 6b",
    ".text",

    // capture(frame): the general registers as the caller has them.
    ".globl capture_registers",
    "capture_registers:",
    "sd $0, {gpr}($4)",
    "sd $1, {gpr}+8*1($4)",
    "sd $2, {gpr}+8*2($4)",
    "sd $3, {gpr}+8*3($4)",
    "sd $4, {gpr}+8*4($4)",
    "sd $5, {gpr}+8*5($4)",
    "sd $6, {gpr}+8*6($4)",
    "sd $7, {gpr}+8*7($4)",
    "sd $8, {gpr}+8*8($4)",
    "sd $9, {gpr}+8*9($4)",
    "sd $10, {gpr}+8*10($4)",
    "sd $11, {gpr}+8*11($4)",
    "sd $12, {gpr}+8*12($4)",
    "sd $13, {gpr}+8*13($4)",
    "sd $14, {gpr}+8*14($4)",
    "sd $15, {gpr}+8*15($4)",
    "sd $16, {gpr}+8*16($4)",
    "sd $17, {gpr}+8*17($4)",
    "sd $18, {gpr}+8*18($4)",
    "sd $19, {gpr}+8*19($4)",
    "sd $20, {gpr}+8*20($4)",
    "sd $21, {gpr}+8*21($4)",
    "sd $22, {gpr}+8*22($4)",
    "sd $23, {gpr}+8*23($4)",
    "sd $24, {gpr}+8*24($4)",
    "sd $25, {gpr}+8*25($4)",
    "sd $26, {gpr}+8*26($4)",
    "sd $27, {gpr}+8*27($4)",
    "sd $28, {gpr}+8*28($4)",
    "sd $29, {gpr}+8*29($4)",
    "sd $30, {gpr}+8*30($4)",
    "sd $31, {gpr}+8*31($4)",
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
    fn idle_enter();
    fn idle_window();
    fn idle_after();
    /// Loads 4 bytes; 1 if that trapped.
    pub(crate) fn careful_load32(address: u64, to: *mut u64) -> u64;
    /// Loads a word; 1 if that trapped.
    pub(crate) fn careful_load64(address: u64, to: *mut u64) -> u64;
    /// Stores a word; 1 if that trapped.
    pub(crate) fn careful_store64(address: u64, value: u64) -> u64;
    fn capture_registers(frame: *mut Frame);
    static __ex_table_start: [u64; 2];
    static __ex_table_end: [u64; 2];
    static __text_start: u8;
    static __text_end: u8;
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

/// Where `idle` resumes if it was interrupted at `epc` before it could wait.
pub(crate) fn past_idle(epc: u64) -> Option<u64> {
    let window = idle_window as *const () as u64..idle_after as *const () as u64;
    window.contains(&epc).then_some(window.end)
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

/// The monitor's text.
pub(crate) fn text() -> core::ops::Range<u64> {
    (&raw const __text_start as u64)..(&raw const __text_end as u64)
}

/// The registers as they are here.
#[inline(always)]
pub(crate) fn capture() -> Frame {
    let mut frame = Frame::default();
    // SAFETY: writes the frame's fields, nothing else.
    unsafe { capture_registers(&raw mut frame) };
    frame
}

macro_rules! cp0 {
    ($(#[$doc:meta])* read $name:ident, $reg:literal) => {
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $name() -> u64 {
            let value: u64;
            // SAFETY: reading this register in kernel mode has no side effect.
            unsafe {
                asm!(
                    ".set push", ".set noat", ".set mips64r2",
                    concat!("mfc0 {0}, $", $reg),
                    ".set pop",
                    out(reg) value,
                    options(nomem, nostack, preserves_flags)
                );
            }
            value
        }
    };
}

cp0!(
    /// Count: 32 bits, sign-extended.
    read count, "9"
);
cp0!(
    /// Processor identification.
    read prid, "15"
);

/// Writes a wired TLB entry, and says that entries below `wired` are.
///
/// # Safety
/// The entry must not change the translation of anything that is in use, and match nothing that another
/// entry does.
pub(crate) unsafe fn wire(
    index: u64,
    wired: u64,
    page_mask: u64,
    entry_hi: u64,
    entry_lo: [u64; 2],
) {
    // SAFETY: the instructions are legal in kernel mode; the caller answers for the translation.
    unsafe {
        asm!(
            ".set push", ".set noat", ".set mips64r2",
            "mtc0 {wired}, $6",
            "mtc0 {index}, $0",
            "mtc0 {mask}, $5",
            "dmtc0 {hi}, $10",
            "dmtc0 {lo0}, $2",
            "dmtc0 {lo1}, $3",
            "ehb",
            "tlbwi",
            "ehb",
            ".set pop",
            index = in(reg) index,
            wired = in(reg) wired,
            mask = in(reg) page_mask,
            hi = in(reg) entry_hi,
            lo0 = in(reg) entry_lo[0],
            lo1 = in(reg) entry_lo[1],
            options(nostack, preserves_flags)
        );
    }
}

/// Writes Compare, which also takes back a pending timer interrupt.
pub(crate) fn set_compare(value: u32) {
    // SAFETY: only says when the next timer interrupt comes.
    unsafe {
        asm!(
            ".set push", ".set noat", ".set mips64r2",
            "mtc0 {0}, $11",
            "ehb",
            ".set pop",
            in(reg) u64::from(value),
            options(nomem, nostack, preserves_flags)
        );
    }
}

/// Writes Status.
///
/// # Safety
/// The value must leave this CPU in kernel mode, with KX set and BEV, EXL, ERL and CU0 clear.
pub(crate) unsafe fn set_status(value: u64) {
    // SAFETY: the caller answers for the value.
    unsafe {
        asm!(
            ".set push", ".set noat", ".set mips64r2",
            "mtc0 {0}, $12",
            "ehb",
            ".set pop",
            in(reg) value,
            options(nostack, preserves_flags)
        );
    }
}

/// Turns interrupts off; whether they were on.
pub(crate) fn interrupts_off() -> bool {
    let before: u64;
    // SAFETY: clears Status.IE.
    unsafe {
        asm!(
            ".set push", ".set noat", ".set mips64r2",
            "di {0}",
            "ehb",
            ".set pop",
            out(reg) before,
            options(nostack, preserves_flags)
        );
    }
    before & 1 != 0
}

/// Turns interrupts on.
pub(crate) fn interrupts_on() {
    // SAFETY: sets Status.IE; the handler has been in place since before the first call.
    unsafe {
        asm!(
            ".set push",
            ".set noat",
            ".set mips64r2",
            "ei",
            "ehb",
            ".set pop",
            options(nostack, preserves_flags)
        );
    }
}

/// Executes 4,002 instructions between the markers 1 and 2 (`lui $zero, N`): what instruction counters
/// are checked with.
pub(crate) fn between_markers() {
    // SAFETY: registers only, all of them named; not interrupted, for the monitor's interrupts are off
    // but in `idle`.
    unsafe {
        asm!(
            ".set push", ".set noat", ".set noreorder", ".set mips64r2",
            "lui $0, 1",
            "li {n}, 1000",
            "1: addiu {n}, {n}, -1",
            "nop",
            "bnez {n}, 1b",
            "nop",
            "nop",
            "lui $0, 2",
            ".set pop",
            n = out(reg) _,
            options(nomem, nostack, preserves_flags)
        );
    }
}

/// Orders all memory accesses before it against all after it, as every CPU and the host see them.
pub(crate) fn sync() {
    // SAFETY: a barrier.
    unsafe {
        asm!("sync", options(nostack, preserves_flags));
    }
}
