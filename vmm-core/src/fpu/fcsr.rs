//! The floating-point control and status register (FCSR, coprocessor 1 control register 31), its
//! partial views (FCCR, FEXR, FENR), and the rules by which an operation's exceptions enter it.
//!
//! Source: MIPS64 Architecture For Programmers, volume I, "Floating-Point Control Registers", for a
//! release 2 FPU with legacy NaNs (no ABS2008, NAN2008).

use core::ops::{BitOr, BitOrAssign};

/// A set of floating-point exceptions, in the order of the FCSR fields: bit 0 inexact, 1 underflow,
/// 2 overflow, 3 division by zero, 4 invalid, 5 unimplemented (Cause only).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Exceptions(u8);

impl Exceptions {
    /// No exception.
    pub const NONE: Self = Self(0);
    /// The result was rounded.
    pub const INEXACT: Self = Self(1);
    /// The result was tiny and rounded.
    pub const UNDERFLOW: Self = Self(2);
    /// The result was too large for its format.
    pub const OVERFLOW: Self = Self(4);
    /// A finite, nonzero number was divided by zero.
    pub const DIVISION_BY_ZERO: Self = Self(8);
    /// The operands have no meaningful result.
    pub const INVALID: Self = Self(16);

    /// Whether any exception of `other` is in this set.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The field as it stands in the FCSR, right-aligned.
    pub const fn bits(self) -> u8 {
        self.0
    }
}

impl BitOr for Exceptions {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Exceptions {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// A rounding mode, numbered as in FCSR.RM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rounding {
    /// To nearest, ties to even (RN).
    Nearest,
    /// Toward zero (RZ).
    Zero,
    /// Toward +∞ (RP).
    Up,
    /// Toward −∞ (RM).
    Down,
}

/// An enabled floating-point exception: the instruction has no result and raises FPE. The Cause
/// field of the FCSR says why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FpTrap;

/// The floating-point control and status register.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fcsr(u32);

const CAUSE_SHIFT: u32 = 12;
const ENABLES_SHIFT: u32 = 7;
const FLAGS_SHIFT: u32 = 2;
const CAUSE_MASK: u32 = 0x3f << CAUSE_SHIFT;
const UNIMPLEMENTED: u32 = 0x20;
const FS: u32 = 1 << 24;

impl Fcsr {
    /// The bits that software can write: all but 22:18, which a release 2 FPU with legacy NaNs
    /// reads as zero.
    pub const WRITABLE: u32 = 0xff83_ffff;

    /// FCSR with exactly these bits (those that can't be written are dropped).
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & Self::WRITABLE)
    }

    /// All 32 bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// RM, bits 1:0.
    pub const fn rounding(self) -> Rounding {
        match self.0 & 3 {
            0 => Rounding::Nearest,
            1 => Rounding::Zero,
            2 => Rounding::Up,
            _ => Rounding::Down,
        }
    }

    /// FS, bit 24: results that would be denormal are replaced by zero.
    pub const fn flush(self) -> bool {
        self.0 & FS != 0
    }

    /// Condition code `cc` (0 to 7); false for any other number.
    pub const fn condition(self, cc: u8) -> bool {
        self.0 & Self::condition_mask(cc) != 0
    }

    /// Sets condition code `cc` (0 to 7); any other number changes nothing.
    pub const fn set_condition(&mut self, cc: u8, value: bool) {
        let mask = Self::condition_mask(cc);
        self.0 = if value { self.0 | mask } else { self.0 & !mask };
    }

    /// Code 0 stands at bit 23, the others at 25 and up, because FS came between them.
    const fn condition_mask(cc: u8) -> u32 {
        match cc {
            0 => 1 << 23,
            1..=7 => 1 << (24 + cc as u32),
            _ => 0,
        }
    }

    /// Ends an operation that raised `exceptions`: Cause takes exactly these; if one of them is
    /// enabled the operation traps and Flags stay, else Flags gather them.
    ///
    /// # Errors
    /// [`FpTrap`] if one of them is enabled.
    #[inline]
    pub fn finish(&mut self, exceptions: Exceptions) -> Result<(), FpTrap> {
        let raised = u32::from(exceptions.bits());
        self.0 = self.0 & !CAUSE_MASK | raised << CAUSE_SHIFT;
        if self.0 >> ENABLES_SHIFT & raised & 0x1f != 0 {
            return Err(FpTrap);
        }
        self.0 |= raised << FLAGS_SHIFT;
        Ok(())
    }

    /// Reads the FCSR through control register `register`, which is not 0 (that is FIR, a constant
    /// of the CPU). Registers that a release 2 FPU doesn't have are UNPREDICTABLE; like QEMU, 1 and
    /// 5 read as zero (UFR and FRE, both absent) and any other as the FCSR.
    pub const fn read(self, register: u8) -> u32 {
        match register {
            1 | 5 => 0,
            25 => self.0 >> 24 & 0xfe | self.0 >> 23 & 1,
            26 => self.0 & 0x0003_f07c,
            28 => self.0 & 0x0000_0f83 | self.0 >> 22 & 4,
            _ => self.0,
        }
    }

    /// Writes the FCSR through control register `register`. Writes to FCCR (25), FEXR (26) and FENR
    /// (28) with reserved bits set, and to registers that don't exist, change nothing.
    ///
    /// # Errors
    /// [`FpTrap`] if the written FCSR has a Cause bit that is enabled, or Cause.E: the write has
    /// happened, and the instruction raises FPE.
    pub fn write(&mut self, register: u8, value: u32) -> Result<(), FpTrap> {
        const RESERVED_26_28: u32 = 0x007c_0000;
        self.0 = match register {
            25 if value & 0xffff_ff00 == 0 => {
                self.0 & 0x017f_ffff | (value & 0xfe) << 24 | (value & 1) << 23
            }
            26 if value & RESERVED_26_28 == 0 => self.0 & 0xfffc_0f83 | value & 0x0003_f07c,
            28 if value & RESERVED_26_28 == 0 => {
                self.0 & 0xfeff_f07c | value & 0x0000_0f83 | (value & 4) << 22
            }
            31 => value & Self::WRITABLE,
            _ => return Ok(()),
        };
        if self.raises() { Err(FpTrap) } else { Ok(()) }
    }

    /// Whether writing these very bits raises FPE: a Cause bit is enabled, or Cause.E is set.
    pub const fn raises(self) -> bool {
        let cause = (self.0 & CAUSE_MASK) >> CAUSE_SHIFT;
        let trapping = self.0 >> ENABLES_SHIFT & 0x1f | UNIMPLEMENTED;
        cause & trapping != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enabled_exception_traps_and_leaves_the_flags() {
        let mut fcsr = Fcsr::from_bits(0x80 | 1 << 6);
        assert_eq!(fcsr.finish(Exceptions::INEXACT | Exceptions::OVERFLOW), Err(FpTrap));
        assert_eq!(fcsr.bits(), 0x5080 | 1 << 6);
        assert_eq!(fcsr.finish(Exceptions::OVERFLOW), Ok(()));
        assert_eq!(fcsr.bits(), 0x4080 | 1 << 6 | 1 << 4);
        assert_eq!(fcsr.finish(Exceptions::NONE), Ok(()));
        assert_eq!(fcsr.bits(), 0x80 | 1 << 6 | 1 << 4);
    }

    #[test]
    fn the_partial_views_show_and_change_their_fields_only() {
        let mut fcsr = Fcsr::default();
        fcsr.write(25, 0xff).unwrap();
        assert_eq!(fcsr.bits(), 0xfe80_0000);
        assert!((0..8).all(|cc| fcsr.condition(cc)) && !fcsr.flush());
        fcsr.write(25, 0x100).unwrap();
        assert_eq!(fcsr.read(25), 0xff);
        fcsr.write(28, !0x007c_0000).unwrap();
        assert_eq!(fcsr.bits(), 0xff80_0f83);
        assert_eq!(fcsr.read(28), 0xf87);
        assert_eq!(fcsr.write(26, 0x1000), Err(FpTrap));
        assert_eq!(fcsr.bits(), 0xff80_1f83);
        assert_eq!(fcsr.read(26), 0x1000);
        assert_eq!(fcsr.write(31, 0x0002_0000), Err(FpTrap), "E needs no enable bit");
        assert_eq!(fcsr.write(31, !0x3f000), Ok(()));
        assert_eq!(fcsr.bits(), 0xff80_0fff);
    }

    #[test]
    fn condition_codes_stand_around_fs() {
        for cc in 0..8 {
            let mut fcsr = Fcsr::default();
            fcsr.set_condition(cc, true);
            assert_eq!(fcsr.read(25), 1 << cc);
            assert!(fcsr.condition(cc) && !fcsr.flush());
            fcsr.set_condition(cc, false);
            assert_eq!(fcsr.bits(), 0);
        }
        let mut fcsr = Fcsr::default();
        fcsr.set_condition(8, true);
        assert_eq!(fcsr.bits(), 0);
    }
}
