//! CP0 registers as typed bit-fields, with the names of the MIPS64 Privileged Resource Architecture
//! (volume III, revision 2.60, chapter 9).

use bitflags::bitflags;

bitflags! {
    /// Status (register 12, select 0).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Status: u64 {
        /// Interrupts enabled.
        const IE = 1 << 0;
        /// Exception level.
        const EXL = 1 << 1;
        /// Error level.
        const ERL = 1 << 2;
        /// 64-bit user segments and the 64-bit refill vector for them.
        const UX = 1 << 5;
        /// 64-bit supervisor segments and the 64-bit refill vector for them.
        const SX = 1 << 6;
        /// 64-bit kernel segments and the 64-bit refill vector for them.
        const KX = 1 << 7;
        /// The mode while EXL and ERL are clear: 0 kernel, 1 supervisor, 2 user. The monitor's is 0.
        const KSU = 3 << 3;
        /// Interrupt mask of the CP0 timer (hardware interrupt 5).
        const IM7 = 1 << 15;
        /// Bootstrap exception vectors.
        const BEV = 1 << 22;
        /// All floating-point registers have 64 bits.
        const FR = 1 << 26;
        /// Coprocessor 0 usable outside kernel mode. Never set.
        const CU0 = 1 << 28;
        /// The floating-point unit usable.
        const CU1 = 1 << 29;
    }

    /// Cause (register 13, select 0), but for its exception code.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Cause: u64 {
        /// The CP0 timer's interrupt is pending.
        const IP7 = 1 << 15;
        /// Interrupts have a vector of their own.
        const IV = 1 << 23;
        /// The CP0 timer has reached Compare.
        const TI = 1 << 30;
        /// The exception came in a branch delay slot; EPC is the branch.
        const BD = 1 << 31;
    }
}

bitflags! {
    /// The flags of EntryLo0 and EntryLo1 (registers 2 and 3); the frame number lies above them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct EntryLo: u64 {
        /// Global: matches whatever the ASID. An entry is global if both halves are.
        const G = 1 << 0;
        /// Valid.
        const V = 1 << 1;
        /// Dirty: stores allowed.
        const D = 1 << 2;
        /// Cache attribute 3: cached.
        const CACHED = 3 << 3;
    }
}

impl EntryLo {
    /// The register's value for the page at `mpa`.
    pub(crate) const fn at(self, mpa: abi::Mpa) -> u64 {
        mpa.page() << 6 | self.bits()
    }
}

/// PageMask (register 5) of 64 KB pages.
pub(crate) const PAGE_MASK_64K: u64 = 0x0001_e000;

impl Cause {
    /// The exception code, bits 6:2.
    pub(crate) const fn code(self) -> ExcCode {
        ExcCode((self.bits() >> 2 & 0x1f) as u8)
    }

    /// The same with another exception code.
    pub(crate) const fn with_code(self, code: ExcCode) -> Self {
        Self::from_bits_retain(self.bits() & !(0x1f << 2) | (code.0 as u64) << 2)
    }
}

/// An exception code (volume III, table 9.45).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExcCode(pub(crate) u8);

impl ExcCode {
    /// Interrupt.
    pub(crate) const INT: Self = Self(0);
    /// TLB miss (or invalid), load or fetch.
    pub(crate) const TLBL: Self = Self(2);
    /// TLB miss (or invalid), store.
    pub(crate) const TLBS: Self = Self(3);
    /// Address error, load or fetch.
    pub(crate) const ADEL: Self = Self(4);
    /// Bus error of a load or store.
    pub(crate) const DBE: Self = Self(7);
    /// Reserved instruction.
    pub(crate) const RI: Self = Self(10);

    const NAMES: [&'static str; 16] = [
        "interrupt",
        "TLB modified",
        "TLB load",
        "TLB store",
        "address error, load",
        "address error, store",
        "bus error, fetch",
        "bus error, data",
        "system call",
        "breakpoint",
        "reserved instruction",
        "coprocessor unusable",
        "overflow",
        "trap",
        "reserved (14)",
        "floating point",
    ];

    /// Whether a load or a store of data can be the cause: what a careful access expects.
    pub(crate) const fn is_data_access(self) -> bool {
        matches!(self.0, 1..=5 | 7)
    }
}

impl core::fmt::Display for ExcCode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match Self::NAMES.get(usize::from(self.0)) {
            Some(name) => f.write_str(name),
            None => write!(f, "exception {}", self.0),
        }
    }
}
