//! What each CPU does to itself: TLB, private pages, exception vectors.

use crate::{asm, hub};
use abi::hub::CpuWords;
use abi::ids::MAX_CPUS;
use abi::map;
use abi::prom::{L2_NOTHING_COMMON, L2_SIZE, PROM_PAGE_VA, PromPage, VECTORS, Vector};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

/// KSEG0: physical 0 to 512 MB, unmapped and cached.
pub const KSEG0: u64 = 0xffff_ffff_8000_0000;
/// KSEG1: the same, uncached.
pub const KSEG1: u64 = 0xffff_ffff_a000_0000;
/// XKPHYS with cache attribute 3 (cached): all of physical memory.
pub const XKPHYS: u64 = 0x9800_0000_0000_0000;

/// Wired TLB entries: the monitor, and the CPU's private pages.
const TLB_MONITOR: u64 = 0;
const TLB_PRIVATE: u64 = 1;
const WIRED: u64 = 2;

/// PageMask of 4 KB and 4 MB pages.
const MASK_4K: u64 = 0;
const MASK_4M: u64 = 0x007f_e000;

/// An EntryLo: global, valid, writable, cached (attribute 3).
const fn entry_lo(mpa: u64) -> u64 {
    (mpa >> 12) << 6 | 3 << 3 | 0b111
}

/// An EntryLo that maps nothing. Global too: an entry's G bit is the AND of both halves'.
const ENTRY_LO_NONE: u64 = 1;

/// A CPU's private page, alone in its physical page.
#[repr(C, align(4096))]
struct Private(UnsafeCell<PromPage>);

// SAFETY: each element is accessed by its own CPU alone.
unsafe impl Sync for Private {}

const EMPTY_PAGE: PromPage = PromPage {
    k: [0; 2],
    pending: 0,
    vectors: [0; VECTORS],
    at: 0,
    l2: 0,
    reserved: 0,
    recover: 0,
    give_up: 0,
    words: 0,
    space: 0,
    common: L2_NOTHING_COMMON,
};

static PRIVATE: [Private; MAX_CPUS] = [const { Private(UnsafeCell::new(EMPTY_PAGE)) }; MAX_CPUS];

/// An L2TLB for CPUs that run no guest. Its tags are 0, which is what EntryHi shows after a miss in the
/// first two pages of ASID 0: such a miss is answered by an entry that is not valid either, and so
/// becomes the TLB exception that it would have been, one trap later.
#[repr(C, align(131072))]
struct NoTlb([AtomicU64; L2_SIZE / 8]);
const _: () = assert!(align_of::<NoTlb>() == L2_SIZE);

static NO_TLB: NoTlb = NoTlb([const { AtomicU64::new(0) }; L2_SIZE / 8]);

/// The physical address of this CPU's page.
fn private_mpa(cpu: usize) -> u64 {
    PRIVATE[cpu].0.get() as u64 - KSEG0 + map::RAM_BASE
}

/// Empties the TLB, maps the private page, takes over the exceptions.
pub fn init(cpu: usize) {
    for index in 0..asm::tlb_entries() {
        // Distinct addresses in KSEG0, which the TLB never translates: no entry matches anything and
        // no two match each other.
        // SAFETY: the PROM runs unmapped.
        unsafe {
            asm::write_tlb(index, MASK_4K, KSEG0 + (index << 13), [ENTRY_LO_NONE, ENTRY_LO_NONE]);
        }
    }
    // SAFETY: this CPU's own page, not yet used by any trap of this CPU.
    let page = unsafe { &mut *PRIVATE[cpu].0.get() };
    take_back(page);
    page.space = 0;
    page.give_up = asm::prom_give_up as *const () as u64;
    // SAFETY: nothing is mapped there yet.
    unsafe {
        asm::write_tlb(
            TLB_PRIVATE,
            MASK_4K,
            PROM_PAGE_VA,
            [entry_lo(private_mpa(cpu)), ENTRY_LO_NONE],
        );
    }
    asm::set_wired(WIRED);
    // SAFETY: the vectors are linked at this address, and the page they use is mapped.
    unsafe { asm::take_vectors(asm::prom_vectors as *const () as u64) };
}

/// Leads this CPU's traps to the PROM alone.
fn take_back(page: &mut PromPage) {
    page.vectors = [asm::prom_trap as *const () as u64; VECTORS];
    page.l2 = &raw const NO_TLB as u64;
    page.pending = 0;
    page.recover = 0;
}

/// None of this CPU's traps leads to the monitor any more; interrupts lead to `tick`. Comes back once it may wait: under
/// icount another CPU must be awake.
fn leave_the_monitor(cpu: usize, tick: unsafe extern "C" fn()) {
    // SAFETY: this CPU's own page; interrupts are off, and the PROM does not trap.
    let page = unsafe { &mut *PRIVATE[cpu].0.get() };
    take_back(page);
    page.vectors[Vector::Interrupt as usize] = tick as *const () as u64;
    // The machine ends when its last CPU parks: another one will wake up.
    while hub::controller().awake.load(Ordering::Acquire) == 0 {
        core::hint::spin_loop();
    }
}

/// The address space of the VCPU that this CPU was running; 0: it ran none. Asked once.
pub fn take_space(cpu: usize) -> u64 {
    // SAFETY: this CPU's own page, which no trap of the PROM's reads; the monitor does not run any more.
    unsafe { core::mem::take(&mut (*PRIVATE[cpu].0.get()).space) }
}

/// Parks this CPU: none of its traps leads to the monitor any more.
pub fn park(cpu: usize) -> ! {
    leave_the_monitor(cpu, asm::prom_tick);
    // SAFETY: the vector is in place, and nothing follows.
    unsafe { asm::wait_for_ever() }
}

/// This CPU does nothing but ask, some thousand times a second, whether it is to go on with something: with what it was told
/// then. None of its traps leads to the monitor any more.
pub fn hang<T>(cpu: usize, told: impl Fn() -> Option<T>) -> T {
    hub::controller().awake.fetch_and(!(1 << cpu), Ordering::AcqRel);
    leave_the_monitor(cpu, asm::prom_short_tick);
    loop {
        if let Some(told) = told() {
            return told;
        }
        // SAFETY: the vector is in place.
        unsafe { asm::wait_a_little() };
    }
}

/// Tells the monitor where the CPU's words in its node's hub are.
pub fn set_words(cpu: usize, words: *const CpuWords) {
    // SAFETY: this CPU's own page, which no trap of the PROM's reads.
    unsafe { (*PRIVATE[cpu].0.get()).words = words as u64 };
}

/// Maps the cell's copy of the monitor, and this CPU's private page in it.
pub fn map_monitor(cpu: usize, base: u64, cell_page: u64) {
    // SAFETY: the PROM uses neither address range but for its own private page, which stays where it
    // is.
    unsafe {
        asm::write_tlb(
            TLB_MONITOR,
            MASK_4M,
            map::MONITOR_VA,
            [entry_lo(base), entry_lo(base + (4 << 20))],
        );
        asm::write_tlb(
            TLB_PRIVATE,
            MASK_4K,
            PROM_PAGE_VA,
            [entry_lo(private_mpa(cpu)), entry_lo(cell_page)],
        );
    }
}
