//! The CPU's private page in cell memory: the other half of what trap entry needs, at the top of the
//! address space (the first half, in low RAM, is [`abi::prom::PromPage`]).

use abi::prom::{CELL_PAGE_VA, PROM_PAGE_VA, PromPage, VECTORS};
use core::sync::atomic::{AtomicU64, Ordering};
use static_assertions::const_assert;

/// Data of this CPU. Zeroed by the PROM.
#[repr(C)]
pub(crate) struct CellPage {
    /// Lowest and highest address of this CPU's stack: what `$sp` must lie between when a trap comes.
    pub(crate) stack_low: AtomicU64,
    pub(crate) stack_high: AtomicU64,
    /// Top of the stack that a trap gets when `$sp` does not.
    pub(crate) spare_stack: AtomicU64,
    /// This CPU's number.
    pub(crate) cpu: AtomicU64,
    /// Count, extended to 64 bits, as of some moment less than 2^32 ticks ago.
    pub(crate) count: AtomicU64,
    /// Timer interrupts taken.
    pub(crate) ticks: AtomicU64,
    /// Trap handlers active: more than one means that a handler trapped.
    pub(crate) depth: AtomicU64,
}

const_assert!(size_of::<CellPage>() <= abi::PAGE_SIZE as usize);
const_assert!(size_of::<PromPage>() <= abi::PAGE_SIZE as usize);

/// This CPU's page.
pub(crate) fn cell_page() -> &'static CellPage {
    // SAFETY: the PROM has mapped and zeroed the page for every CPU before it entered the monitor, and
    // the mapping is wired. All fields are atomic.
    unsafe { &*(CELL_PAGE_VA as *const CellPage) }
}

/// This CPU's number.
pub(crate) fn cpu() -> u64 {
    cell_page().cpu.load(Ordering::Relaxed)
}

/// Directs all exceptions of this CPU to `entry`.
///
/// # Safety
/// `entry` must be a trap entry that keeps the contract of [`PromPage`].
pub(crate) unsafe fn direct_vectors(entry: u64) {
    let page = PROM_PAGE_VA as *mut PromPage;
    for vector in 0..VECTORS {
        // SAFETY: mapped by the PROM for this CPU alone; a vector is one aligned word, so that an
        // exception meets either the old or the new one.
        unsafe { (&raw mut (*page).vectors[vector]).write_volatile(entry) };
    }
}
