//! The address map: segments, modes, and the way through the TLB.
//!
//! Source: MIPS64 Architecture for Programmers, vol. III rev 2.60, chapter 4; where that leaves room
//! (Status.ERL = 1 with 64-bit segments, KSU = 3), as QEMU does it.

use super::status::Status;
use super::tlb::{LO_D, LO_V};
use super::{Access, Exception, Vcpu};

/// What the processor may do, from Status.KSU, EXL, ERL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Everything.
    Kernel = 0,
    /// useg and the supervisor segments.
    Supervisor = 1,
    /// useg.
    User = 2,
    /// As kernel mode, but useg is unmapped: Status.ERL (and the reserved KSU = 3).
    Error = 3,
}

/// End of useg.
const USEG_LAST: u64 = 0x7fff_ffff;
/// Start of the compatibility segments.
const CKSEG0: u64 = 0xffff_ffff_8000_0000;
const CKSEG2: u64 = 0xffff_ffff_c000_0000;
const CKSEG3: u64 = 0xffff_ffff_e000_0000;

impl Vcpu {
    /// The physical address of `va` for an access in the present mode.
    ///
    /// # Errors
    /// The exception that the access causes. (Alignment is the caller's to check first.)
    pub fn translate(&self, va: u64, access: Access) -> Result<u64, Exception> {
        let status = self.cp0.status;
        let kernel = matches!(self.mode, Mode::Kernel | Mode::Error);
        let refused = Err(Exception::Address(va, access));
        // What SEGBITS leaves of a 62-bit segment.
        let offset = va & !(3 << 62);
        let within = offset >> self.model.segbits == 0;
        match va >> 62 {
            _ if va >= CKSEG0 => match va {
                CKSEG3.. if kernel => self.map(va, access),
                CKSEG2..CKSEG3 if self.mode != Mode::User => self.map(va, access),
                CKSEG0..CKSEG2 if kernel => Ok(va & 0x1fff_ffff),
                _ => refused,
            },
            0 if va <= USEG_LAST && self.mode == Mode::Error => Ok(va),
            0 if va <= USEG_LAST => self.map(va, access),
            0 if within && status.contains(Status::UX) => self.map(va, access),
            1 if within && status.contains(Status::SX) && self.mode != Mode::User => {
                self.map(va, access)
            }
            2 if kernel && status.contains(Status::KX) => {
                // Bits 61:59 are the cache attribute.
                let physical = va & 0x07ff_ffff_ffff_ffff;
                if physical <= self.model.physical_mask() { Ok(physical) } else { refused }
            }
            // Its last 2 GB would be indistinguishable, in a TLB entry, from the compatibility
            // segments.
            3 if kernel
                && status.contains(Status::KX)
                && offset < (1 << self.model.segbits) - (1 << 31) =>
            {
                self.map(va, access)
            }
            _ => refused,
        }
    }

    /// Whether this model has an address for which a real CPU, in this mode and with these segments, has
    /// looked into its TLB: the real one's segments may be larger.
    #[inline(always)]
    pub(crate) fn has_address(&self, va: u64) -> bool {
        (va & !(3 << 62)) >> self.model.segbits == 0 || va >= CKSEG2
    }

    fn map(&self, va: u64, access: Access) -> Result<u64, Exception> {
        let Some(index) = self.tlb.lookup(va, self.asid()) else {
            return Err(Exception::Refill(va, access));
        };
        let entry = self.tlb.entry(index);
        let lo = entry.page(va);
        if lo & LO_V == 0 {
            Err(Exception::Invalid(va, access))
        } else if access == Access::Write && lo & LO_D == 0 {
            Err(Exception::Modified(va))
        } else {
            Ok(entry.physical(lo, va))
        }
    }
}
