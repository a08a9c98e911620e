//! What PROM and monitor share besides the boot block: the CPU's private page that both halves of the
//! trap path use, and what the PROM found on the machine.
//!
//! Unlike everything that the host reads, these structures are in the machine's own byte order: both
//! programs are built for it, and assembly accesses them.
//!
//! Every CPU has two wired private pages below the top of the address space, so that trap entry
//! reaches them from `$zero` with a negative offset and needs no scratch register. The lower page
//! lies in low RAM (the node's PROM, which survives the loss of the node's memory), the upper one in
//! the cell's memory.

/// Virtual address of the CPU's private page in low RAM: [`PromPage`].
pub const PROM_PAGE_VA: u64 = 0xffff_ffff_ffff_e000;
/// Virtual address of the CPU's private page in cell memory; what is in it is the monitor's own.
pub const CELL_PAGE_VA: u64 = 0xffff_ffff_ffff_f000;

/// The exception vectors that the PROM dispatches, in the order of their addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Vector {
    /// TLB refill of a 32-bit address, EBase + 0x000.
    Refill = 0,
    /// TLB refill of a 64-bit address, EBase + 0x080.
    XRefill = 1,
    /// Cache error, EBase + 0x100.
    CacheError = 2,
    /// Everything else, EBase + 0x180.
    General = 3,
    /// Interrupts (Cause.IV = 1), EBase + 0x200.
    Interrupt = 4,
}

/// Number of [`Vector`]s.
pub const VECTORS: usize = 5;

/// The half of a CPU's private data that trap entry touches first.
#[derive(Debug)]
#[repr(C)]
pub struct PromPage {
    /// `$k0` and `$k1` as the trap found them.
    pub k: [u64; 2],
    /// Traps taken whose state is not saved yet. The vector counts up, trap entry sets it to 0 once
    /// everything is in cell memory; a vector that finds another trap pending knows that trap entry
    /// itself failed (cell memory gone, or a stack that points nowhere), and goes to `recover` or parks.
    pub pending: u64,
    /// Where each [`Vector`] continues.
    pub vectors: [u64; VECTORS],
    /// `$at` as a TLB refill found it.
    pub at: u64,
    /// The L2TLB that TLB refills are answered from: the address of [`L2_SIZE`] bytes, aligned to that,
    /// reached without the TLB.
    pub l2: u64,
    /// EPC + 1 of a trap that is an `sdbbp`, which leaves no trace in Cause, or one that `recover` caught:
    /// it counts as a reserved instruction, not in a delay slot (EPC is right in any case). Whoever
    /// reports the trap with this EPC sets it back to 0.
    pub reserved: u64,
    /// Where a trap during trap entry leads, once, with only `$k0` and `$k1` changed; 0: nowhere.
    pub recover: u64,
    /// The PROM's function that takes this CPU away from a monitor that can't go on, for good: it parks, or
    /// ends the machine if no other cell is left. Its one argument is a [`crate::hub::Why`].
    pub give_up: u64,
    /// This CPU's [`crate::hub::CpuWords`].
    pub words: u64,
    /// The address space (EntryHi.ASID) of the VCPU that this CPU runs; 0: it runs none. What that could write is what of
    /// other nodes' memory may be lost with this CPU.
    pub space: u64,
    /// What tags of the L2TLB have in the place of the address space where all of a VCPU's have the translation in common;
    /// [`L2_NOTHING_COMMON`]: there are none.
    pub common: u64,
}

/// The sets of an L2TLB.
pub const L2_SETS: usize = 1 << L2_SET_BITS;
/// Bits of a set's number, which are the lowest of EntryHi >> 13 ^ EntryHi.
pub const L2_SET_BITS: u32 = 11;
/// Bytes of a set, as a power of two: two ways.
pub const L2_SET_SHIFT: u32 = 6;
/// Bits of [`PromPage::common`] in a tag: all below the number of the pair of pages.
pub const L2_COMMON_BITS: u32 = 13;
/// What no tag has there.
pub const L2_NOTHING_COMMON: u64 = (1 << L2_COMMON_BITS) - 1;
/// Bytes of an L2TLB.
pub const L2_SIZE: usize = L2_SETS << L2_SET_SHIFT;

/// One way of a set of an L2TLB, as a TLB refill reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct L2Way {
    /// What EntryHi shows after a miss that this answers.
    pub tag: u64,
    /// EntryLo0 and EntryLo1.
    pub lo: [u64; 2],
    /// PageMask. Only what is common may be larger than 4 KB: for others it is not looked at.
    pub mask: u32,
    /// For whoever fills it.
    pub age: u32,
}

const _: () = assert!(size_of::<L2Way>() * 2 == 1 << L2_SET_SHIFT);

/// The address of the PROM's code for `sdbbp`, in KSEG0 (the PROM's linker script knows it too). The boot ROM's Debug Mode vector
/// ([`crate::map::DEBUG_VECTOR`]) jumps there through `$k0`, which it has saved at [`K0_SAVE_VA`].
pub const DEBUG_ENTRY: u64 = 0xffff_ffff_8000_0000 | crate::map::PROM_BASE | VECTORS_SIZE;
/// Virtual address of the place of `$k0` in [`PromPage`].
pub const K0_SAVE_VA: u64 = PROM_PAGE_VA + core::mem::offset_of!(PromPage, k) as u64;
/// Bytes that the exception vectors take at the beginning of the PROM.
pub const VECTORS_SIZE: u64 = 0x80 * VECTORS as u64;

/// What the PROM tells a cell's monitor, in low RAM; its KSEG0 address is the entry's second argument.
/// What the machine consists of is in the boot block.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Handoff {
    /// The cell.
    pub cell: u64,
    /// How often it has booted, this time included.
    pub incarnation: u64,
    /// Count, extended to 64 bits since power-on, not long ago: less than 2^32 ticks.
    pub ticks: u64,
    /// Its lowest CPU, which brings the monitor up. All others of the cell come too.
    pub first_cpu: u64,
    /// Machine-physical address of the cell's copy of the monitor: the 8 MB that
    /// [`crate::map::MONITOR_VA`] maps, the beginning of [`crate::layout::Layout::reserve`].
    pub monitor_base: u64,
    /// Bytes of these 8 MB that are in use: image, zeroed data, private pages.
    pub monitor_used: u64,
    /// Offset in them of the first of the private pages, one for each CPU of the machine.
    pub cell_pages: u64,
}
