//! Which processor a VCPU is: reset values and write masks.

use super::cp0::{ASID_MASK, EHINV};
use super::tlb::LO_ALL;

/// A processor model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuModel {
    /// PRId: company 1 (MIPS), processor 0 ("generic").
    pub prid: u32,
    /// Config to Config5 at reset; the byte-order bit of Config is added.
    pub config: [u32; 6],
    /// Bits of Status that software may write.
    pub status_mask: u32,
    /// FIR.
    pub fir: u32,
    /// Bytes between the addresses of two SYNCI, and of a cache line.
    pub synci_step: u32,
    /// Implemented virtual address bits in each 62-bit segment.
    pub segbits: u32,
    /// Implemented physical address bits.
    pub pabits: u32,
    /// TLB entries.
    pub tlb_entries: u32,
    /// Bits of SRSCtl and SRSMap that software may write. (There is one register set whatever they
    /// say.)
    pub srs_mask: [u32; 2],
    /// The TLB is all invalid at reset, else all entries map page 0 of ASID 0, invalid.
    pub tlb_reset_invalid: bool,
}

/// Cycles of the processor's clock a tick of Count (`rdhwr` 3): nominal, as in QEMU.
pub const CC_RESOLUTION: u64 = 2;

/// Config.M and the like: another Config register follows.
const M: u32 = 1 << 31;
/// Config: Release 2, MIPS64 with all segments, standard TLB.
const CONFIG_R2_64_TLB: u32 = M | 1 << 10 | 2 << 13 | 1 << 7;
/// Config1: a floating-point unit.
const FP: u32 = 1;
/// Config1: EJTAG.
const EP: u32 = 1 << 1;
/// Config1: watch registers.
const WR: u32 = 1 << 3;
/// Config1: performance counters.
const PC: u32 = 1 << 4;
/// Config3: large physical addresses.
const LPA: u32 = 1 << 7;
/// Config3: UserLocal.
const ULRI: u32 = 1 << 13;
/// Config4: TLBINV, TLBINVF and EntryHi.EHINV.
const IE_TLBINV: u32 = 2 << 29;
/// Config4: bits 7:0 extend Config1.MMUSize.
const MMU_SIZE_EXT: u32 = 1 << 14;

/// FIR: S, D, PS, 3D, W, L, F64.
const FIR_ALL: u32 = 1 << 16 | 1 << 17 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 21 | 1 << 22;

/// Config1's two cache descriptions: sets (64 << S, 7: 32), line (2 << L bytes), ways (A + 1).
const fn caches(s: u32, l: u32, a: u32) -> u32 {
    s << 22 | l << 19 | a << 16 | s << 13 | l << 10 | a << 7
}

impl CpuModel {
    /// The virtual CPU of a VM: better than the real one where a stock kernel takes notice.
    ///
    /// A big TLB (Config4.MMUSizeExt) with TLBINV saves refills and makes a flush one instruction;
    /// UserLocal saves the trap on every access to thread-local storage; 32 sets × 128 bytes × 8
    /// ways (a way is a page) mean no cache aliases and few cache operations; K0 = 3 (cached) at
    /// reset, so that the kernel's XKPHYS addresses tell memory from devices. No watch registers,
    /// EJTAG or performance counters: nothing to save and restore.
    #[must_use]
    pub const fn honeycomb() -> Self {
        let tlb_entries = 4096;
        Self {
            prid: 0x0001_0000,
            config: [
                CONFIG_R2_64_TLB | 3,
                M | 63 << 25 | caches(7, 6, 7) | FP,
                M,
                M | ULRI,
                IE_TLBINV | MMU_SIZE_EXT | (tlb_entries / 64 - 1),
                0,
            ],
            // CU1, CU0, FR, PX, BEV, IM, KX, SX, UX, KSU, ERL, EXL, IE
            status_mask: 0x34c0_ffff,
            fir: FIR_ALL,
            synci_step: 128,
            segbits: 40,
            pabits: 36,
            tlb_entries,
            srs_mask: [0, 0],
            tlb_reset_invalid: true,
        }
    }

    /// Exactly QEMU 10's `-cpu MIPS64R2-generic`, for differential tests.
    #[must_use]
    pub const fn mips64r2_generic() -> Self {
        Self {
            prid: 0x0001_0000,
            config: [
                CONFIG_R2_64_TLB | 2,
                M | 63 << 25 | caches(2, 4, 3) | PC | WR | EP | FP,
                M,
                LPA,
                0,
                0,
            ],
            status_mask: 0x36fb_ffff,
            fir: FIR_ALL,
            synci_step: 32,
            segbits: 42,
            pabits: 36,
            tlb_entries: 64,
            srs_mask: [0xf << 12 | 0xf << 6, !0],
            tlb_reset_invalid: false,
        }
    }

    /// UserLocal exists.
    #[must_use]
    pub const fn has_userlocal(&self) -> bool {
        self.config[3] & ULRI != 0
    }

    /// TLBINV, TLBINVF and EntryHi.EHINV exist.
    #[must_use]
    pub const fn has_tlbinv(&self) -> bool {
        self.config[4] >> 29 & 3 >= 2
    }

    /// Watch registers exist (as storage).
    #[must_use]
    pub const fn has_watch(&self) -> bool {
        self.config[1] & WR != 0
    }

    /// The EJTAG registers exist (as storage).
    #[must_use]
    pub const fn has_ejtag(&self) -> bool {
        self.config[1] & EP != 0
    }

    /// The first performance-counter control register exists (as storage).
    #[must_use]
    pub const fn has_performance(&self) -> bool {
        self.config[1] & PC != 0
    }

    /// The bits of an address that a TLB entry compares: region and SEGBITS.
    #[must_use]
    pub const fn segment_mask(&self) -> u64 {
        3 << 62 | ((1 << self.segbits) - 1)
    }

    /// The bits of EntryHi that software may write.
    #[must_use]
    pub const fn entry_hi_mask(&self) -> u64 {
        let ehinv = if self.has_tlbinv() { EHINV } else { 0 };
        (!0x1fff | ASID_MASK | ehinv) & self.segment_mask()
    }

    /// The bits of EntryLo0 and EntryLo1.
    #[must_use]
    pub const fn entry_lo_mask(&self) -> u64 {
        self.physical_mask() >> 6 & LO_ALL
    }

    /// The bits of a physical address.
    #[must_use]
    pub const fn physical_mask(&self) -> u64 {
        (1 << self.pabits) - 1
    }
}
