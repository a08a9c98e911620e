//! Status and Cause: the two registers whose bits steer everything.

use bitflags::bitflags;

bitflags! {
    /// CP0 Status (register 12). Names are the manual's.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Status: u32 {
        /// Coprocessor 1 usable.
        const CU1 = 1 << 29;
        /// Coprocessor 0 usable outside kernel mode.
        const CU0 = 1 << 28;
        /// 32 double-precision registers instead of 16 pairs.
        const FR = 1 << 26;
        /// 64-bit operations in user mode.
        const PX = 1 << 23;
        /// Exception vectors in the ROM.
        const BEV = 1 << 22;
        /// 64-bit addresses in kernel mode.
        const KX = 1 << 7;
        /// 64-bit addresses in supervisor mode.
        const SX = 1 << 6;
        /// 64-bit addresses, and operations, in user mode.
        const UX = 1 << 5;
        /// Error level: after reset.
        const ERL = 1 << 2;
        /// Exception level.
        const EXL = 1 << 1;
        /// Interrupts enabled.
        const IE = 1 << 0;
        // The multi-bit fields (IM, KSU) and the bits without a meaning here.
        const _ = !0;
    }
}

impl Status {
    /// The base mode field: 0 kernel, 1 supervisor, 2 user, 3 reserved.
    #[must_use]
    pub const fn ksu(self) -> u32 {
        (self.bits() >> 3) & 3
    }

    /// Interrupts may be taken, if any is pending and not masked.
    #[must_use]
    pub const fn interrupts_enabled(self) -> bool {
        let bits = Self::IE.bits() | Self::EXL.bits() | Self::ERL.bits();
        self.bits() & bits == Self::IE.bits()
    }
}

bitflags! {
    /// CP0 Cause (register 13).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Cause: u32 {
        /// The exception was in a delay slot; EPC is the branch.
        const BD = 1 << 31;
        /// The timer interrupt is pending.
        const TI = 1 << 30;
        /// Count stands still.
        const DC = 1 << 27;
        /// Interrupts have a vector of their own.
        const IV = 1 << 23;
        /// A deferred watch exception (storage only: there are no watch exceptions).
        const WP = 1 << 22;
        /// The software interrupts.
        const IP01 = 3 << 8;
        const _ = !0;
    }
}

/// Position of Status.IM and Cause.IP.
pub const IP_SHIFT: u32 = 8;
/// Position of Cause.ExcCode.
pub const EXC_CODE_SHIFT: u32 = 2;
/// Position of Cause.CE.
pub const CE_SHIFT: u32 = 28;

impl Cause {
    /// Bits that software may write.
    pub const WRITABLE: Self = Self::DC.union(Self::IV).union(Self::WP).union(Self::IP01);

    /// The exception code.
    #[must_use]
    pub const fn exc_code(self) -> u32 {
        (self.bits() >> EXC_CODE_SHIFT) & 31
    }
}
