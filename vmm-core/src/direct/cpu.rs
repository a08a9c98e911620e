//! The real CPU, as the direct engine needs it.

use super::L2Tlb;
use crate::cpu::{Access, Vcpu};
use crate::mem::Page;

/// How the guest is to be run: what of its state the real processor must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// In real user mode, else in real supervisor mode.
    pub user: bool,
    /// Bits of the real Status: any of [`Entry::SX`], [`Entry::UX`], [`Entry::PX`], [`Entry::CU1`],
    /// [`Entry::FR`].
    pub status: u32,
    /// The real address space, never 0.
    pub asid: u8,
    /// What the L2TLB has in its tags where address spaces have a translation in common, and these may be used:
    /// [`super::NOTHING_COMMON`] where they may not.
    pub common: u16,
    /// `rdhwr $29` is allowed, and reads this.
    pub user_local: Option<u64>,
    /// Return by this time of the owner's clock, in nanoseconds.
    pub until: u64,
}

impl Entry {
    /// Status.UX.
    pub const UX: u32 = 1 << 5;
    /// Status.SX.
    pub const SX: u32 = 1 << 6;
    /// Status.PX.
    pub const PX: u32 = 1 << 23;
    /// Status.FR.
    pub const FR: u32 = 1 << 26;
    /// Status.CU1.
    pub const CU1: u32 = 1 << 29;
}

/// Why the guest stopped. Its registers, HI and LO are in the [`Vcpu`]; so is EPC, as the program
/// counter: the address of the instruction that trapped, or of the branch before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Trapped {
    /// The real Cause. (Of `sdbbp`: reserved instruction, with BD as it was.)
    pub cause: u32,
    /// A load-linked was executed since the entry.
    pub linked: bool,
    /// The real BadVAddr.
    pub bad_vaddr: u64,
}

/// What answers a real TLB miss that the L2TLB does not answer.
pub type Filler<'a, R> = dyn FnMut(&mut R, &mut Vcpu, u64, Access) -> bool + 'a;

/// A real CPU that can run a guest.
///
/// Everything here concerns one CPU, the one that calls. Real address space 0 belongs to the
/// monitor: nothing is ever mapped in it.
pub trait RealCpu {
    /// Runs `vcpu` from its program counter (whose lowest two bits are 0, and which is in no delay
    /// slot) and with its general registers, HI and LO, until it traps or an interrupt comes; one
    /// comes not much later than `entry.until`. Real misses that `l2` answers do not end the run, nor do
    /// those for which `fill` has found and installed a translation: it is called with the address and
    /// what it was wanted for, and says whether it has. (Of the VCPU's registers it sees none.)
    fn enter(
        &mut self,
        vcpu: &mut Vcpu,
        l2: &L2Tlb,
        entry: &Entry,
        fill: &mut Filler<'_, Self>,
    ) -> Trapped
    where
        Self: Sized;

    /// The address spaces of this CPU.
    fn spaces(&mut self) -> &mut super::Spaces;

    /// The machine-physical address of a page of guest memory.
    fn machine_page(&self, page: Page) -> u64;

    /// Puts a translation into the real TLB, in place of what is there for the same pair and address
    /// space. `entry_hi` is as [`L2Tlb`] has it in its tags of private pairs; `lo` and `mask` as in its entries.
    fn install(&mut self, entry_hi: u64, lo: [u64; 2], mask: u32);

    /// Forgets what the real TLB has for the pair of pages at the address, and in the address space,
    /// that `entry_hi` names.
    fn forget_pair(&mut self, entry_hi: u64);

    /// Forgets everything in the real TLB but the monitor's own entries.
    fn forget_all(&mut self);

    /// Loads the floating-point registers and FCSR, which raises no exception (the caller has seen to
    /// it), whatever Status.FR.
    fn load_fpu(&mut self, fpr: &[u64; 32], fcsr: u32);

    /// Stores the floating-point registers; returns FCSR.
    fn save_fpu(&mut self, fpr: &mut [u64; 32]) -> u32;
}
