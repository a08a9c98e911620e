//! Where everything lies in the memory of a differential run, as guest-physical addresses and as
//! offsets in a slot. The same bytes are the RAM file of a bare QEMU and the memory of our CPU.
//!
//! Low RAM holds the exception vectors (at every EBase that streams use) and the control block.
//! From [`SLOTS`] on there is one slot a case: state to start from, code, scratch memory, results.
//! The harness's own code is in ROM, where no stream can change it.

use super::asm::cp0::{self, Reg};

/// The boot ROM: the CPU starts here.
pub const ROM: u64 = 0x1fc0_0000;
/// Bytes of ROM that are used; a whole number of pages.
pub const ROM_SIZE: usize = 0x2000;
/// Vectors lie at these physical pages, for the EBases that reach them.
pub const VECTOR_PAGES: [u64; 3] = [0x0000, 0x1000, 0x2000];
/// The control block: see the constants of [`control`].
pub const CONTROL: u64 = 0x8000;
/// Where the harness's code lies when it is in RAM; it has [`ROM_SIZE`] bytes there.
pub const HARNESS: u64 = 0xc000;
/// Bytes of low RAM before the slots' area that belong to the harness.
pub const LOW_SIZE: usize = 0x1_0000;
/// The first slot.
pub const SLOTS: u64 = 0x10_0000;
/// Bytes of a slot.
pub const SLOT_SIZE: usize = 0x4000;
/// Slots of a batch: what one boot of QEMU runs.
pub const BATCH: usize = 4096;
/// Bytes of RAM of the machine.
pub const RAM_SIZE: usize = 128 << 20;

const _: () = assert!(SLOTS as usize + BATCH * SLOT_SIZE <= RAM_SIZE);
const _: () = assert!(HARNESS as usize + ROM_SIZE <= LOW_SIZE);

/// In a VM: where firmware leaves the kernel's arguments, and their end. The harness clears it.
pub const ARGUMENTS: std::ops::Range<u64> = 0x2000..0x4000;
/// How many of [`VECTOR_PAGES`] there are in a VM: the next is the arguments'.
pub const VM_VECTOR_PAGES: usize = 2;

/// Offsets in the control block.
pub mod control {
    /// The slot index to run next; advances.
    pub const INDEX: i32 = 0;
    /// The index to stop at.
    pub const END: i32 = 8;
    /// The current slot's KSEG0 address.
    pub const SLOT: i32 = 16;
    /// How many exceptions the current case has taken.
    pub const TRAPS: i32 = 24;
    /// Scratch registers of a stream, while the handler works.
    pub const SAVE_K1: i32 = 32;
    /// See `SAVE_K1`.
    pub const SAVE_AT: i32 = 40;
    /// See `SAVE_K1`.
    pub const SAVE_V0: i32 = 48;
    /// See `SAVE_K1`.
    pub const SAVE_V1: i32 = 56;
    /// See `SAVE_K1`.
    pub const SAVE_K0: i32 = 64;
    /// Where to go on after an exception of the harness's own; 0 while a stream runs.
    pub const EXPECTED: i32 = 72;
    /// How often the current case is still to be run, this time included.
    pub const ROUNDS: i32 = 80;
}

/// Marks pages of a VM in the machine's RAM, at [`MARK_OFFSET`] of the control block and of every result
/// page: this doubleword and the slot, or [`CONTROL_MARK`].
pub const MARK: u64 = 0x6d61_726b_6564_2121;
/// See [`MARK`].
pub const CONTROL_MARK: u64 = u64::MAX;
/// See [`MARK`]: nothing else is there.
pub const MARK_OFFSET: usize = 0x3f0;

/// Page of a slot with the stream. (The one before it holds the state to start from.)
pub const CODE: usize = 0x1000;
/// Page of a slot that streams load from and store to.
pub const SCRATCH: usize = 0x2000;
/// Page of a slot that the harness writes results to.
pub const RESULT: usize = 0x3000;
/// Bytes of each of these.
pub const PAGE: usize = 0x1000;

/// Offsets in the input page.
pub mod input {
    /// 32 GPRs; in the place of `$0`: the address of the stream's first instruction.
    pub const GPR: i32 = 0;
    /// 32 FPRs, with FR = 0 the even ones.
    pub const FPR: i32 = 0x100;
    /// HI, LO.
    pub const HI: i32 = 0x200;
    /// See `HI`.
    pub const LO: i32 = 0x208;
    /// FCSR.
    pub const FCSR: i32 = 0x210;
    /// Status, without EXL and ERL: the stream is entered by `eret`.
    pub const STATUS: i32 = 0x218;
    /// The stream's addresses: exceptions outside end the case.
    pub const CODE_START: i32 = 0x220;
    /// See `CODE_START`.
    pub const CODE_END: i32 = 0x228;
    /// This many exceptions end the case.
    pub const MAX_TRAPS: i32 = 0x230;
    /// Not 0: this slot holds no case.
    pub const SKIP: i32 = 0x238;
    /// How many TLB entries follow, from index 0; the others are written as unused.
    pub const TLB_COUNT: i32 = 0x240;
    /// How often the stream is run, one time after another: the TLB and memory are as the time before left them, and what the
    /// last time left is the result.
    pub const ROUNDS: i32 = 0x248;
    /// CP0 registers, in the order of [`super::CP0_INPUT`].
    pub const CP0: i32 = 0x280;
    /// TLB entries of four doublewords: EntryHi, EntryLo0, EntryLo1, PageMask.
    pub const TLB: i32 = 0x400;
}

/// The CP0 registers that a case starts with, besides Status.
pub const CP0_INPUT: [Reg; 14] = [
    cp0::CONFIG,
    cp0::CONTEXT,
    cp0::XCONTEXT,
    cp0::PAGE_GRAIN,
    cp0::WIRED,
    cp0::HWRENA,
    cp0::INT_CTL,
    cp0::CAUSE,
    cp0::EBASE,
    cp0::ENTRY_LO0,
    cp0::ENTRY_LO1,
    cp0::PAGE_MASK,
    cp0::INDEX,
    cp0::ENTRY_HI,
];

/// Offsets in the result page.
pub mod result {
    /// 32 GPRs; in the place of `$0`: how many exceptions were taken.
    pub const GPR: i32 = 0;
    /// 32 FPRs, with FR = 0 the even ones.
    pub const FPR: i32 = 0x100;
    /// HI, LO, FCSR.
    pub const HI: i32 = 0x200;
    /// See `HI`.
    pub const LO: i32 = 0x208;
    /// See `HI`.
    pub const FCSR: i32 = 0x210;
    /// CP0 registers, in the order of [`super::CP0_RESULT`].
    pub const CP0: i32 = 0x218;
    /// Exceptions taken: records of 64 bytes.
    pub const TRAPS: i32 = 0x400;
    /// 64 TLB entries of four doublewords: EntryHi, EntryLo0, EntryLo1, PageMask.
    pub const TLB: i32 = 0x800;
}

/// Records of exceptions that a result holds.
pub const MAX_TRAPS: u64 = 16;
const _: () = assert!(result::CP0 as usize + 8 * CP0_RESULT.len() <= MARK_OFFSET);
const _: () = assert!(MARK_OFFSET + 16 <= result::TRAPS as usize);

/// The CP0 registers that are compared at a case's end. ErrorEPC is not among them: the harness
/// itself uses it to take over. What streams write to it, they read back. LLAddr is not: what it holds
/// is the implementation's choice.
pub const CP0_RESULT: [Reg; 25] = [
    cp0::STATUS,
    cp0::CAUSE,
    cp0::EPC,
    cp0::BAD_VADDR,
    cp0::ENTRY_HI,
    cp0::ENTRY_LO0,
    cp0::ENTRY_LO1,
    cp0::CONTEXT,
    cp0::XCONTEXT,
    cp0::PAGE_MASK,
    cp0::PAGE_GRAIN,
    cp0::WIRED,
    cp0::HWRENA,
    cp0::INDEX,
    cp0::INT_CTL,
    cp0::SRS_CTL,
    cp0::PRID,
    cp0::EBASE,
    cp0::CONFIG,
    cp0::CONFIG1,
    cp0::CONFIG2,
    cp0::CONFIG3,
    cp0::COMPARE,
    cp0::COUNT,
    cp0::TAG_LO,
];

/// Fields of an exception record.
pub mod trap {
    /// Which vector: see [`super::vector_id`]. A word.
    pub const VECTOR: i32 = 0;
    /// Status, a word.
    pub const STATUS: i32 = 4;
    /// Cause, a word.
    pub const CAUSE: i32 = 8;
    /// EPC and what follows are doublewords.
    pub const EPC: i32 = 16;
    /// See `EPC`.
    pub const BAD_VADDR: i32 = 24;
    /// See `EPC`.
    pub const ENTRY_HI: i32 = 32;
    /// See `EPC`.
    pub const CONTEXT: i32 = 40;
    /// See `EPC`.
    pub const XCONTEXT: i32 = 48;
    /// `$31`.
    pub const RA: i32 = 56;
    /// Bytes of a record.
    pub const SIZE: i32 = 64;
}

/// Offsets of the vectors from EBase; beyond 0x200 those that IntCtl.VS makes for IP1.
pub const VECTORS: [u64; 9] = [0x000, 0x080, 0x100, 0x180, 0x200, 0x220, 0x240, 0x280, 0x300];
/// Offsets of the vectors from the ROM with Status.BEV = 1.
pub const BOOT_VECTORS: [u64; 8] = [0x200, 0x280, 0x300, 0x380, 0x400, 0x420, 0x440, 0x500];

/// The number by which a record names a vector: `base` is an index into [`VECTOR_PAGES`], or 3 for
/// the ROM; `vector` one into [`VECTORS`] or [`BOOT_VECTORS`].
pub const fn vector_id(base: usize, vector: usize) -> u32 {
    (base * 16 + vector) as u32
}

/// The vector that a number names, for people.
pub fn vector_name(id: u32) -> String {
    let (base, vector) = (id as usize / 16, id as usize % 16);
    match (VECTOR_PAGES.get(base), VECTORS.get(vector), BOOT_VECTORS.get(vector)) {
        (Some(page), Some(offset), _) => format!("0x{page:x}+0x{offset:03x}"),
        (None, _, Some(offset)) if base == VECTOR_PAGES.len() => format!("rom+0x{offset:03x}"),
        _ => format!("?{id}"),
    }
}

/// The physical address of a slot.
pub const fn slot_pa(slot: usize) -> u64 {
    SLOTS + (slot * SLOT_SIZE) as u64
}

/// A physical address below 512 MB in KSEG0.
pub const fn kseg0(pa: u64) -> u64 {
    0xffff_ffff_8000_0000 | pa
}
