//! The instruction set: MIPS64 Release 2 with its floating point (S, D, W, L, PS, MIPS-3D), as one
//! compact, typed form.
//!
//! [`decode`] turns an instruction word into an [`Insn`] of eight bytes, so that an engine may keep
//! decoded code in arrays beside the page it came from. A word that is no instruction of this
//! processor decodes to [`Op::Reserved`], one of an absent coprocessor to [`Op::CopUnusable`];
//! decoding never fails. Whether an instruction may execute *now* (its coprocessor enabled, 64-bit
//! operations enabled) is the processor's state, not the word's, and is checked when it executes.
//!
//! Fields that the manual says "must be zero" are ignored where QEMU ignores them.
//!
//! Source: MIPS64 Architecture for Programmers, vol. II rev 2.50 (encodings: appendix A).

mod cop1;
mod decode;
mod op;
#[cfg(test)]
mod tests;

pub use decode::decode;
pub use op::Op;

use crate::fpu::Format;

/// Position of [`Insn::format`].
const FORMAT_SHIFT: u32 = 16;

/// A register number, or nowhere.
///
/// As a *source* it is one of 0..=31. As a *destination* general register 0 is replaced by
/// [`Reg::SINK`], so that an engine with a 33rd slot need not treat `$zero` as a special case.
/// Floating-point registers are never replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[rustfmt::skip]
#[allow(missing_docs)]
pub enum Reg {
    R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10, R11, R12, R13, R14, R15,
    R16, R17, R18, R19, R20, R21, R22, R23, R24, R25, R26, R27, R28, R29, R30, R31,
    /// Where writes to `$zero` go.
    SINK,
}

impl Reg {
    #[rustfmt::skip]
    const ALL: [Self; 32] = [
        Self::R0, Self::R1, Self::R2, Self::R3, Self::R4, Self::R5, Self::R6, Self::R7,
        Self::R8, Self::R9, Self::R10, Self::R11, Self::R12, Self::R13, Self::R14, Self::R15,
        Self::R16, Self::R17, Self::R18, Self::R19, Self::R20, Self::R21, Self::R22, Self::R23,
        Self::R24, Self::R25, Self::R26, Self::R27, Self::R28, Self::R29, Self::R30, Self::R31,
    ];

    /// The register whose number is in the low five bits.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self::ALL[(bits & 31) as usize]
    }

    /// The same register as a destination: `$zero` becomes [`Reg::SINK`].
    #[must_use]
    pub const fn destination(self) -> Self {
        match self {
            Self::R0 => Self::SINK,
            other => other,
        }
    }

    /// Places in a register file with room for [`Reg::SINK`], a power of two.
    pub const PLACES: usize = 64;

    /// Its place in a register file.
    #[must_use]
    #[inline(always)]
    pub const fn index(self) -> usize {
        // The mask says what the compiler forgets when it reads a whole `Insn` at once.
        self as usize & (Self::PLACES - 1)
    }
}

/// A decoded instruction.
///
/// | kind | `a` | `b` | `c` | `imm` |
/// |---|---|---|---|---|
/// | register | rs | rt | rd | – |
/// | immediate | rs | – | rt | extended as the operation wants it |
/// | shift by constant | – | rt | rd | amount, 0..=63 |
/// | load | base | rt (old value, for `lwl` …) | rt | offset |
/// | store | base | rt | rt (for `sc`) | offset |
/// | branch | rs | rt | – | target − address of the delay slot |
/// | `j`, `jal` | – | – | – | bits 27:0 of the target |
/// | `jr`, `jalr` | rs | – | rd | – |
/// | field (`ext`, `ins` …) | rs | rt | rt | position, and width << 8 |
/// | trap with constant | rs | – | – | constant |
/// | CP0 move | – | rt | rt | rd << 3 \| sel |
/// | floating point | fs | ft | fd | see [`Insn::fr`], [`Insn::cc`] |
/// | FP load/store | base | ft (store) or index | ft | offset |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Insn {
    /// What it does.
    pub op: Op,
    /// First source, or base.
    pub a: Reg,
    /// Second source.
    pub b: Reg,
    /// Destination.
    pub c: Reg,
    /// Constant.
    pub imm: i32,
}

impl Insn {
    /// A place in a code array whose word has not been looked at yet.
    pub const UNDECODED: Self =
        Self { op: Op::Undecoded, a: Reg::R0, b: Reg::R0, c: Reg::R0, imm: 0 };

    /// The constant, sign-extended.
    #[must_use]
    #[inline(always)]
    pub const fn simm(self) -> u64 {
        self.imm as i64 as u64
    }

    /// Position of a bit field.
    #[must_use]
    #[inline(always)]
    pub const fn position(self) -> u32 {
        (self.imm & 63) as u32
    }

    /// Width of a bit field, 1..=64.
    #[must_use]
    #[inline(always)]
    pub const fn width(self) -> u32 {
        (self.imm >> 8) as u32
    }

    /// Third floating-point source (`madd` …), or the general register of `alnv.ps`.
    #[must_use]
    pub const fn fr(self) -> Reg {
        Reg::from_bits(self.imm as u32)
    }

    /// Condition code number of a compare or conditional move. (A branch, whose `imm` is the target,
    /// has it in `c`.)
    #[must_use]
    pub const fn cc(self) -> u8 {
        (self.imm >> 8) as u8 & 7
    }

    /// Format of a compare, conditional move or multiply-add: bits 17:16 of `imm`.
    #[must_use]
    pub const fn format(self) -> Format {
        match self.imm >> FORMAT_SHIFT & 3 {
            0 => Format::S,
            1 => Format::D,
            _ => Format::Ps,
        }
    }

    /// Function bits of a compare: bits 3:0 are the condition.
    #[must_use]
    pub const fn condition(self) -> u8 {
        self.imm as u8 & 15
    }
}
