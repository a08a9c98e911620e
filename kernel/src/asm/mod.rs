//! All of the monitor's assembly.
//!
//! # The trap path
//!
//! The PROM's vectors save `$k0` and `$k1` in the CPU's private page in low RAM, count the trap as
//! pending, and jump to trap entry ([`trap`]). Status.KSU tells whose trap it is: the monitor's is 0.
//!
//! *The monitor's own.* Trap entry takes room for a [`Frame`](crate::trap::Frame) below `$sp`, or on
//! the CPU's spare stack if `$sp` does not lie in the CPU's stack (an overflow, a wild pointer: the
//! handler then finds the bad `$sp` in the frame and reports it), and saves everything: the compiler
//! uses every general register, and HI and LO too, so that nothing less would do. Only then is the trap
//! no longer pending: should the saving itself fail, the vector finds it so and the PROM takes over, on
//! memory that is still there. The handler runs with EXL clear and interrupts off: a trap in the handler
//! is a trap like any other, with an EPC of its own, so that a bug in it can be reported and a careful
//! access in it works.
//!
//! *A guest's.* The registers go straight to the VCPU ([`guest`]), and the call that entered the guest
//! returns. There is no handler, and no stack but the caller's.
//!
//! A TLB refill that the L2TLB answers is over in the vector itself and never comes here.
//!
//! # Waiting
//!
//! `wait` and interrupts: [`idle`] is entered with interrupts off, after its caller found nothing to
//! do, and enables them just before `wait`. An interrupt in between would be handled and then slept
//! upon; so the handler moves an EPC between the two ([`past_idle`]) past the `wait`. [`doze`] is the same with a
//! spin for the `wait` (see [`crate::awake`]).

mod copy;
mod fpu;
mod guest;
mod mem;
mod tlb;
mod trap;

pub(crate) use copy::{careful_copy, careful_fill};
pub(crate) use fpu::{load_fpu, save_fpu};
pub(crate) use guest::{enter_guest, fetch_lost_address};
pub(crate) use tlb::{forget_all, forget_any, forget_pair, install, select_space, wire};
pub(crate) use trap::{
    SPARE_SIZE, SPARE_STACKS, STACK_SIZE, STACKS, capture, careful_load32, careful_load64,
    careful_store_words, careful_store64, doze, exception_table, idle, past_idle,
    trap_entry_address,
};

use abi::prom::{CELL_PAGE_VA, PROM_PAGE_VA};
use core::arch::asm;

/// Where a field of [`PromPage`](abi::prom::PromPage) is, as an offset from `$zero`.
const fn prom(field: usize) -> i64 {
    PROM_PAGE_VA.cast_signed() + field as i64
}

/// Where a field of [`CellPage`](crate::page::CellPage) is, as an offset from `$zero`.
const fn cell(field: usize) -> i64 {
    CELL_PAGE_VA.cast_signed() + field as i64
}

unsafe extern "C" {
    static __text_start: u8;
    static __text_end: u8;
    static __constant_end: u8;
}

/// The monitor's text.
pub(crate) fn text() -> core::ops::Range<u64> {
    (&raw const __text_start as u64)..(&raw const __text_end as u64)
}

/// The monitor's text and constants: all of its image that never changes.
pub(crate) fn constant_range() -> core::ops::Range<u64> {
    (&raw const __text_start as u64)..(&raw const __constant_end as u64)
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

/// A marker for instruction counters: does nothing, and counts as nothing.
#[inline(always)]
pub(crate) fn marker<const N: u16>() {
    // SAFETY: writes to $0.
    unsafe {
        asm!("lui $0, {n}", n = const N, options(nomem, nostack, preserves_flags));
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

/// Enters Debug Mode: a bug, wherever the monitor does it.
pub(crate) fn sdbbp() {
    // SAFETY: traps, and is reported as an unexpected reserved instruction.
    unsafe {
        asm!(".set push", ".set mips64r2", "sdbbp", ".set pop", options(nostack, preserves_flags));
    }
}

/// Orders all memory accesses before it against all after it, as every CPU and the host see them.
pub(crate) fn sync() {
    // SAFETY: a barrier.
    unsafe {
        asm!("sync", options(nostack, preserves_flags));
    }
}
