//! The CPU's private page in cell memory: the other half of what trap entry needs, at the top of the
//! address space (the first half, in low RAM, is [`abi::prom::PromPage`]).

use crate::careful::xkphys;
use crate::machine;
use abi::hub::{CpuWords, Why};
use abi::prom::{CELL_PAGE_VA, PROM_PAGE_VA, PromPage, VECTORS};
use abi::{CpuId, Mpa, PAGE_SIZE};
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
    /// When the next timer interrupt is to come, as [`crate::clock::arm`] was told.
    pub(crate) armed: AtomicU64,
    /// Trap handlers active: more than one means that a handler trapped.
    pub(crate) depth: AtomicU64,
    /// The VCPU that runs directly, and `$sp` of the monitor that runs it.
    pub(crate) vcpu: AtomicU64,
    pub(crate) guest_stack: AtomicU64,
    /// What answers its TLB misses: a [`crate::direct::Miss`].
    pub(crate) filler: AtomicU64,
    /// Status at its last TLB miss.
    pub(crate) guest_status: AtomicU64,
    /// Whether it may read its thread's data with `rdhwr`, what it reads, and how often this CPU has
    /// answered that.
    pub(crate) thread_allowed: AtomicU64,
    pub(crate) thread_data: AtomicU64,
    pub(crate) thread_reads: AtomicU64,
    /// Where trap entry goes on when the instruction that trapped can't be looked at any more.
    pub(crate) fetch_lost: AtomicU64,
    /// How long it may go on without a look at its doorbell, in nanoseconds.
    pub(crate) tick: AtomicU64,
    /// The L2TLB for when no guest runs.
    pub(crate) no_l2: AtomicU64,
    /// Whether an access of the monitor's found that a guest's memory is gone ([`crate::lost`]).
    pub(crate) lost: AtomicU64,
}

const_assert!(size_of::<CellPage>() <= abi::PAGE_SIZE as usize);
const_assert!(size_of::<PromPage>() <= abi::PAGE_SIZE as usize);

/// This CPU's page.
pub(crate) fn cell_page() -> &'static CellPage {
    // SAFETY: the PROM has mapped and zeroed the page for every CPU before it entered the monitor, and
    // the mapping is wired. All fields are atomic.
    unsafe { &*(CELL_PAGE_VA as *const CellPage) }
}

/// How often a CPU of this cell has ticked.
pub(crate) fn ticks_of(cpu: CpuId) -> u64 {
    let pages = machine::layout().reserve(machine::cell()).start + machine::cell_pages();
    let page = xkphys(Mpa(pages + u64::from(cpu.0) * PAGE_SIZE)) as *const CellPage;
    // SAFETY: the PROM has put the private pages of all CPUs there, zeroed; the field is atomic, and the page is there as
    // long as this cell's memory.
    unsafe { (*page).ticks.load(Ordering::Relaxed) }
}

/// This CPU's number.
pub(crate) fn cpu() -> u64 {
    cell_page().cpu.load(Ordering::Relaxed)
}

/// Whether [`take_reserved`] will say so.
pub(crate) fn is_reserved() -> bool {
    let page = PROM_PAGE_VA as *const PromPage;
    // SAFETY: mapped by the PROM for this CPU alone.
    unsafe { (&raw const (*page).reserved).read_volatile() != 0 }
}

/// Whether the trap that is being handled, whose EPC is `epc`, counts as a reserved instruction whatever
/// Cause says (see [`PromPage::reserved`]). Asked once a trap. (Before a guest's is asked for, interrupts
/// are on again, and one of them may be handled first.)
#[inline]
pub(crate) fn take_reserved(epc: u64) -> bool {
    let page = PROM_PAGE_VA as *mut PromPage;
    // SAFETY: mapped by the PROM for this CPU alone.
    unsafe {
        let reserved = &raw mut (*page).reserved;
        let taken = reserved.read_volatile() == epc | 1;
        if taken {
            reserved.write_volatile(0);
        }
        taken
    }
}

/// The address of the L2TLB that answers this CPU's TLB refills.
pub(crate) fn l2() -> u64 {
    let page = PROM_PAGE_VA as *const PromPage;
    // SAFETY: mapped by the PROM for this CPU alone.
    unsafe { (&raw const (*page).l2).read_volatile() }
}

/// Has this CPU's TLB refills answered from the L2TLB at `address`.
///
/// # Safety
/// An L2TLB is there for as long as the address stays set. What it says is right for whoever runs.
#[inline]
pub(crate) unsafe fn set_l2(address: u64) {
    let page = PROM_PAGE_VA as *mut PromPage;
    // SAFETY: mapped by the PROM for this CPU alone; the caller answers for the address.
    unsafe { (&raw mut (*page).l2).write_volatile(address) };
}

/// Says what this CPU's L2TLB has in its tags where the address spaces of the VCPU that it runs have a translation in
/// common.
///
/// # Safety
/// What the L2TLB has there is right in the address space of the VCPU that runs.
#[inline]
pub(crate) unsafe fn set_common(common: u16) {
    let page = PROM_PAGE_VA as *mut PromPage;
    // SAFETY: mapped by the PROM for this CPU alone; the caller answers for the number.
    unsafe { (&raw mut (*page).common).write_volatile(common.into()) };
}

/// Says in which address space the VCPU is that this CPU runs; 0: it runs none.
#[inline]
pub(crate) fn set_space(asid: u8) {
    let page = PROM_PAGE_VA as *mut PromPage;
    // SAFETY: mapped by the PROM for this CPU alone, whose traps do not look at it.
    unsafe { (&raw mut (*page).space).write_volatile(asid.into()) };
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

/// Takes this CPU away from the monitor for good.
pub(crate) fn give_up(why: Why) -> ! {
    let page = PROM_PAGE_VA as *const PromPage;
    // SAFETY: mapped by the PROM for this CPU alone; the PROM has put its function there, which takes any
    // number, whatever state this monitor is in.
    unsafe {
        let give_up = (&raw const (*page).give_up).read_volatile();
        core::mem::transmute::<u64, extern "C" fn(u64) -> !>(give_up)(why as u64)
    }
}

/// This CPU's words in the hub of its node, which is always there.
#[inline]
pub(crate) fn words() -> &'static CpuWords {
    let page = PROM_PAGE_VA as *const PromPage;
    // SAFETY: mapped by the PROM for this CPU alone, which has put the address there; the words are in low
    // RAM, and atomic.
    unsafe { &*((&raw const (*page).words).read_volatile() as *const CpuWords) }
}

/// Parks this CPU if it has been told to.
#[inline]
pub(crate) fn park_if_told() {
    let told = words().parking.load(Ordering::Acquire);
    if told != 0 {
        give_up(Why::from_word(told).unwrap_or(Why::Told))
    }
}
