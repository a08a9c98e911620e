//! Operands that reach the edges: limits of the formats, results that over- or underflow by a hair,
//! ties, and cancellation are far too rare among random bits.

use super::super::rng::Rng;
use super::ops::{Kind, Operands};

/// A floating-point format's fields.
#[derive(Clone, Copy)]
struct Layout {
    fraction: u32,
    exponent: u32,
}

const SINGLE: Layout = Layout { fraction: 23, exponent: 8 };
const DOUBLE: Layout = Layout { fraction: 52, exponent: 11 };

impl Layout {
    fn bias(self) -> i64 {
        (1 << (self.exponent - 1)) - 1
    }

    fn mask(self) -> u64 {
        u64::MAX >> (63 - self.fraction - self.exponent)
    }

    /// A number with the given exponent field, clamped to those of finite numbers.
    fn assemble(self, rng: &mut Rng, exponent: i64, fraction: u64) -> u64 {
        let exponent = exponent.clamp(0, 2 * self.bias()) as u64;
        let sign = rng.bits() & 1;
        sign << (self.fraction + self.exponent)
            | exponent << self.fraction
            | fraction & ((1 << self.fraction) - 1)
    }

    /// Fractions with long runs of equal bits: they make ties, carries and exact results.
    fn fraction(self, rng: &mut Rng) -> u64 {
        let bits = rng.bits();
        match rng.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << rng.below(u64::from(self.fraction)),
            3 => !(1 << rng.below(u64::from(self.fraction))),
            4 => bits << rng.below(u64::from(self.fraction)),
            5 => rng.below(4),
            6 => !rng.below(4),
            _ => bits,
        }
    }

    fn number(self, rng: &mut Rng) -> u64 {
        let bias = self.bias();
        let exponent = match rng.below(10) {
            // Zeros, denormals, the smallest normal numbers; the largest, infinities, NaNs.
            0 => rng.below(3) as i64,
            1 => {
                let special = 2 * bias + 1 - rng.below(3) as i64;
                let fraction = self.fraction(rng);
                let sign = rng.bits() & 1;
                return (sign << self.exponent | special as u64) << self.fraction
                    | fraction & ((1 << self.fraction) - 1);
            }
            // Around the limits of words and longs.
            2 => bias + if rng.chance(50) { 28 } else { 60 } + rng.below(6) as i64,
            // Around the limits of singles.
            3 => {
                bias + if rng.chance(30) { 125 } else { -151 + rng.below(25) as i64 }
                    + rng.below(5) as i64
            }
            4 | 5 => bias + rng.below(24) as i64 - 4,
            6 => return rng.bits() & self.mask(),
            // Where products, quotients and roots reach the limits.
            7 => bias / 2 + rng.below(8) as i64 - 4,
            8 => bias + bias / 2 + rng.below(8) as i64 - 4,
            _ => bias - i64::from(self.fraction) + rng.below(8) as i64 - 4,
        };
        let fraction = self.fraction(rng);
        self.assemble(rng, exponent, fraction)
    }

    /// A number whose sum, product or quotient with `other` is an edge case.
    fn partner(self, rng: &mut Rng, other: u64) -> u64 {
        let bias = self.bias();
        let exponent = (other >> self.fraction & ((1 << self.exponent) - 1)) as i64;
        let jitter = rng.below(5) as i64 - 2;
        let fraction = match rng.below(4) {
            0 => other.wrapping_add(rng.below(5)).wrapping_sub(2),
            // The product is a power of two but for the last bits.
            1 => self.inverse(other).wrapping_add(rng.below(3)).wrapping_sub(1),
            _ => self.fraction(rng),
        };
        let exponent = match rng.below(6) {
            // Sums: cancellation, and alignment around the last bit.
            0 => exponent + jitter,
            1 => exponent + i64::from(self.fraction) + 1 + jitter,
            2 => exponent - i64::from(self.fraction) - 1 + jitter,
            // Products at the lower limit and below, and at the upper one.
            3 => bias - exponent + jitter - rng.below(u64::from(self.fraction) + 2) as i64,
            4 => 3 * bias - exponent + jitter,
            // Quotients at the lower limit.
            _ => exponent + bias - 1 + jitter,
        };
        self.assemble(rng, exponent, fraction)
    }

    /// The fraction of the inverse of a number.
    fn inverse(self, other: u64) -> u64 {
        let one = 1u128 << self.fraction;
        let significand = one | u128::from(other) & (one - 1);
        ((one * one * 2).div_ceil(significand)) as u64
    }

    fn triple(self, rng: &mut Rng) -> [u64; 3] {
        let a = self.number(rng);
        let b = if rng.chance(60) { self.partner(rng, a) } else { self.number(rng) };
        let c = if rng.chance(40) { self.partner(rng, b) } else { self.number(rng) };
        if rng.chance(50) { [a, b, c] } else { [b, a, c] }
    }
}

fn integer(rng: &mut Rng) -> u64 {
    let bits = rng.bits() >> rng.below(64);
    let near = match rng.below(3) {
        0 => bits,
        1 => (1u64 << rng.below(64)).wrapping_add(rng.below(5)).wrapping_sub(2),
        // Around ties of the longer formats.
        _ => (rng.bits() | 1 << 63) >> rng.below(40) & u64::MAX << rng.below(40),
    };
    if rng.chance(50) { near } else { near.wrapping_neg() }
}

/// Operands for an instruction of this kind, in the registers' full width: what a format doesn't
/// use is random.
pub fn operands(rng: &mut Rng, kind: Kind) -> Operands {
    let values = match kind {
        Kind::D => DOUBLE.triple(rng),
        Kind::S => SINGLE.triple(rng).map(|v| v | rng.bits() << 32),
        Kind::Ps => {
            let (upper, lower) = (SINGLE.triple(rng), SINGLE.triple(rng));
            [0, 1, 2].map(|i| upper[i] << 32 | lower[i])
        }
        Kind::L => [integer(rng), 0, 0],
        Kind::W => [integer(rng) << 32 | integer(rng) & 0xffff_ffff, 0, 0],
    };
    let [fs, ft, fr] = values;
    Operands { fs, ft, fr }
}

/// Modes, flags and condition codes to start with; no Cause bit, for writing one might trap.
pub fn fcsr(rng: &mut Rng) -> u32 {
    let flush = u32::from(rng.chance(25)) << 24;
    let enables = if rng.chance(20) { rng.below32(32) << 7 } else { 0 };
    let flags = if rng.chance(50) { rng.below32(32) << 2 } else { 0 };
    let conditions = rng.below32(256);
    rng.below32(4) | flush | enables | flags | (conditions & 0xfe) << 24 | (conditions & 1) << 23
}
