//! The everyday case of each operation: normal numbers in (or one and a zero), and a normal number
//! out that is not next to the format's limits. The significands are integers of 53 bits at most, so one machine
//! word holds them with more than the three extra bits (guard, round, sticky) that correct rounding
//! needs, and none of overflow, underflow, flushing, NaN, infinity can occur. Whatever is not
//! certainly such a case is left to the library (`None`): this is several times as fast and must
//! not be visible otherwise; the tests compare the two.

use super::arith::{Env, Precision};
use super::fcsr::{Exceptions, Rounding};

/// Where the leading bit of a significand stands that is ready to be rounded.
const TOP: u32 = 62;

/// A normal number: (−1)^sign × significand × 2^(exponent − bias − FRACTION_BITS).
struct Normal {
    negative: bool,
    /// The exponent field.
    exponent: i32,
    /// The fraction and the leading bit before it.
    significand: u64,
}

impl Normal {
    #[inline(always)]
    fn new<P: Precision>(bits: u64) -> Option<Self> {
        let exponent = (bits & P::EXPONENT) >> P::FRACTION_BITS;
        let normal = exponent != 0 && exponent != P::EXPONENT >> P::FRACTION_BITS;
        normal.then_some(Self {
            negative: bits & P::SIGN != 0,
            exponent: exponent as i32,
            significand: bits & (P::LEADING - 1) | P::LEADING,
        })
    }
}

/// Whether a magnitude is rounded up, away from zero: `lost` are the bits below it, moved to the top
/// of the word, and not all zero.
#[inline(always)]
fn away(rounding: Rounding, negative: bool, odd: bool, lost: u64) -> bool {
    const HALF: u64 = 1 << 63;
    if rounding == Rounding::Nearest {
        return if odd { lost >= HALF } else { lost > HALF };
    }
    rounding == if negative { Rounding::Down } else { Rounding::Up }
}

impl Env {
    /// Rounds a number to `P`: `significand` has its leading bit at [`TOP`], and `exponent` is the
    /// exponent field that goes with it. Bit 0 of `significand` must be set if anything below it
    /// was lost.
    #[inline(always)]
    fn pack<P: Precision>(
        &mut self,
        negative: bool,
        exponent: i32,
        significand: u64,
    ) -> Option<u64> {
        let largest = (P::EXPONENT >> P::FRACTION_BITS) as i32 - 1;
        if exponent < 1 || exponent >= largest {
            return None;
        }
        let extra = TOP - P::FRACTION_BITS;
        let mut magnitude = ((exponent as u64 - 1) << P::FRACTION_BITS) + (significand >> extra);
        let lost = significand << (64 - extra);
        if lost != 0 {
            self.raised |= Exceptions::INEXACT;
            // A carry out of the fraction gives the next power of two, as it should.
            magnitude += u64::from(away(self.rounding, negative, magnitude & 1 != 0, lost));
        }
        Some(if negative { magnitude | P::SIGN } else { magnitude })
    }

    /// a + b of everyday numbers.
    pub fn add_fast<P: Precision>(&mut self, a: u64, b: u64) -> Option<u64> {
        let (Some(x), Some(y)) = (Normal::new::<P>(a), Normal::new::<P>(b)) else {
            let normal = |bits| Normal::new::<P>(bits).is_some();
            return match () {
                () if is_zero::<P>(b) && normal(a) => Some(a),
                () if is_zero::<P>(a) && normal(b) => Some(b),
                () => None,
            };
        };
        let swap = b & !P::SIGN > a & !P::SIGN;
        let (big, small) = if swap { (y, x) } else { (x, y) };
        // One bit below TOP leaves room for a carry.
        let shift = TOP - 1 - P::FRACTION_BITS;
        let aligned = small.significand << shift;
        let distance = (big.exponent - small.exponent) as u32;
        let addend = if distance < 64 {
            aligned >> distance | u64::from(aligned & ((1 << distance) - 1) != 0)
        } else {
            1
        };
        let augend = big.significand << shift;
        let same_sign = big.negative == small.negative;
        let sum = if same_sign { augend + addend } else { augend - addend };
        if sum == 0 {
            return Some(if self.rounding == Rounding::Down { P::SIGN } else { 0 });
        }
        // If the sum is shifted left by more than one bit, the operands' exponents differed by
        // one at most and nothing was lost.
        let left = sum.leading_zeros() - (63 - TOP);
        self.pack::<P>(big.negative, big.exponent + 1 - left as i32, sum << left)
    }

    /// a × b of everyday numbers.
    pub fn mul_fast<P: Precision>(&mut self, a: u64, b: u64) -> Option<u64> {
        let (Some(x), Some(y)) = (Normal::new::<P>(a), Normal::new::<P>(b)) else {
            let normal = |bits| Normal::new::<P>(bits).is_some();
            let zero = is_zero::<P>(a) && normal(b) || is_zero::<P>(b) && normal(a);
            return zero.then_some((a ^ b) & P::SIGN);
        };
        let product = u128::from(x.significand << (TOP - P::FRACTION_BITS))
            * u128::from(y.significand << (TOP + 1 - P::FRACTION_BITS));
        // The leading bit is at 125 or 126.
        let high = (product >> 64) as u64 | u64::from(product as u64 != 0);
        let carry = (high >> TOP) as i32;
        let exponent = x.exponent + y.exponent - P::BIAS + carry;
        self.pack::<P>(x.negative != y.negative, exponent, high << (1 - carry))
    }

    /// a / b of everyday numbers.
    pub fn div_fast<P: Precision>(&mut self, a: u64, b: u64) -> Option<u64> {
        let y = Normal::new::<P>(b)?;
        let Some(x) = Normal::new::<P>(a) else {
            return is_zero::<P>(a).then_some((a ^ b) & P::SIGN);
        };
        // Long division, as many bits at a time as the remainder leaves room for in a word.
        let digit = 63 - P::FRACTION_BITS;
        let digits = (P::FRACTION_BITS + 3).div_ceil(digit);
        let borrow = i32::from(x.significand < y.significand);
        let mut remainder = (x.significand << borrow) - y.significand;
        let mut quotient = 1;
        for _ in 0..digits {
            remainder <<= digit;
            quotient = (quotient << digit) | (remainder / y.significand);
            remainder %= y.significand;
        }
        let quotient = quotient << (TOP - digits * digit) | u64::from(remainder != 0);
        let exponent = x.exponent - y.exponent + P::BIAS - borrow;
        self.pack::<P>(x.negative != y.negative, exponent, quotient)
    }

    /// An everyday number of one format in another.
    #[inline]
    pub fn convert_fast<From: Precision, To: Precision>(&mut self, a: u64) -> Option<u64> {
        let a = Normal::new::<From>(a)?;
        let exponent = a.exponent - From::BIAS + To::BIAS;
        self.pack::<To>(a.negative, exponent, a.significand << (TOP - From::FRACTION_BITS))
    }

    /// An integer other than 0 and the smallest long.
    #[inline]
    pub fn number_of_fast<To: Precision>(&mut self, a: i64) -> Option<u64> {
        let magnitude = a.unsigned_abs();
        if magnitude == 0 || magnitude >> 63 != 0 {
            return None;
        }
        let left = magnitude.leading_zeros() - (63 - TOP);
        self.pack::<To>(a < 0, To::BIAS + (TOP - left) as i32, magnitude << left)
    }

    /// An everyday number as an integer of `width` bits.
    pub fn integer_of_fast<From: Precision>(
        &mut self,
        a: u64,
        width: u32,
        rounding: Rounding,
    ) -> Option<u64> {
        let a = Normal::new::<From>(a)?;
        // The integer is the significand shifted right by `right` (or left).
        let right = From::FRACTION_BITS as i32 - (a.exponent - From::BIAS);
        let mut magnitude = match right {
            1..64 => a.significand >> right,
            -10..=0 => a.significand << -right,
            _ => return None,
        };
        let mut raised = Exceptions::NONE;
        if right > 0 {
            let lost = a.significand << (64 - right);
            if lost != 0 {
                raised = Exceptions::INEXACT;
                magnitude += u64::from(away(rounding, a.negative, magnitude & 1 != 0, lost));
            }
        }
        if magnitude >> (width - 1) != 0 {
            return None;
        }
        self.raised |= raised;
        let value = if a.negative { magnitude.wrapping_neg() } else { magnitude };
        Some(value & u64::MAX >> (64 - width))
    }
}

fn is_zero<P: Precision>(bits: u64) -> bool {
    bits & !P::SIGN == 0
}
