//! The everyday case of each operation: normal numbers in (or one and a zero), and a normal number
//! out that is not next to the format's limits. The significands are integers of 53 bits at most, so one machine
//! word holds them with more than the three extra bits (guard, round, sticky) that correct rounding
//! needs, and none of overflow, underflow, flushing, NaN, infinity can occur. Whatever is not
//! certainly such a case is left to the library (`None`): this is several times as fast and must
//! not be visible otherwise; the tests compare the two.

use super::arith::{Basic, Env, Precision};
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
    #[inline]
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

impl Env {
    /// Rounds a number to `P`: `significand` has its leading bit at [`TOP`], and `exponent` is the
    /// exponent field that goes with it. Bit 0 of `significand` must be set if anything below it
    /// was lost.
    #[inline]
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
        let lost = significand & ((1 << extra) - 1);
        if lost != 0 {
            self.raised |= Exceptions::INEXACT;
            let half = 1 << (extra - 1);
            let away = match self.rounding {
                Rounding::Nearest => lost > half || lost == half && magnitude & 1 != 0,
                Rounding::Zero => false,
                Rounding::Up => !negative,
                Rounding::Down => negative,
            };
            // A carry out of the fraction gives the next power of two, as it should.
            magnitude += u64::from(away);
        }
        Some(if negative { magnitude | P::SIGN } else { magnitude })
    }

    /// `a op b` of everyday numbers.
    #[inline]
    pub fn basic_fast<P: Precision>(&mut self, op: Basic, a: u64, b: u64) -> Option<u64> {
        let (Some(a), Some(mut b)) = (Normal::new::<P>(a), Normal::new::<P>(b)) else {
            return zero_operand::<P>(op, a, b);
        };
        match op {
            Basic::Add => self.add::<P>(a, b),
            Basic::Sub => {
                b.negative = !b.negative;
                self.add::<P>(a, b)
            }
            Basic::Mul => {
                let product = u128::from(a.significand << (TOP - P::FRACTION_BITS))
                    * u128::from(b.significand << (TOP + 1 - P::FRACTION_BITS));
                // The leading bit is at 125 or 126.
                let high = (product >> 64) as u64 | u64::from(product as u64 != 0);
                let carry = (high >> TOP) as i32;
                let exponent = a.exponent + b.exponent - P::BIAS + carry;
                self.pack::<P>(a.negative != b.negative, exponent, high << (1 - carry))
            }
            Basic::Div => self.div::<P>(&a, &b),
        }
    }

    fn add<P: Precision>(&mut self, a: Normal, b: Normal) -> Option<u64> {
        let swap = (b.exponent, b.significand) > (a.exponent, a.significand);
        let (big, small) = if swap { (b, a) } else { (a, b) };
        // One bit below TOP leaves room for a carry.
        let shift = TOP - 1 - P::FRACTION_BITS;
        let x = big.significand << shift;
        let distance = (big.exponent - small.exponent) as u32;
        let aligned = small.significand << shift;
        let y = if distance < 64 {
            aligned >> distance | u64::from(aligned & ((1 << distance) - 1) != 0)
        } else {
            1
        };
        let sum = if big.negative == small.negative { x + y } else { x - y };
        if sum == 0 {
            let negative = self.rounding == Rounding::Down;
            return Some(if negative { P::SIGN } else { 0 });
        }
        // If the sum is shifted left by more than one bit, the operands' exponents differed by
        // one at most and nothing was lost.
        let left = sum.leading_zeros() - (63 - TOP);
        self.pack::<P>(big.negative, big.exponent + 1 - left as i32, sum << left)
    }

    fn div<P: Precision>(&mut self, a: &Normal, b: &Normal) -> Option<u64> {
        // Long division, as many bits at a time as the remainder leaves room for in a word.
        let digit = 63 - P::FRACTION_BITS;
        let digits = (P::FRACTION_BITS + 3).div_ceil(digit);
        let borrow = i32::from(a.significand < b.significand);
        let mut remainder = (a.significand << borrow) - b.significand;
        let mut quotient = 1;
        for _ in 0..digits {
            remainder <<= digit;
            quotient = quotient << digit | remainder / b.significand;
            remainder %= b.significand;
        }
        let quotient = quotient << (TOP - digits * digit) | u64::from(remainder != 0);
        let exponent = a.exponent - b.exponent + P::BIAS - borrow;
        self.pack::<P>(a.negative != b.negative, exponent, quotient)
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
}

/// `a op b` where one is a zero and the other a normal number, other than a division by zero. Exact.
fn zero_operand<P: Precision>(op: Basic, a: u64, b: u64) -> Option<u64> {
    let zero = |bits| bits & !P::SIGN == 0;
    let normal = |bits| Normal::new::<P>(bits).is_some();
    match op {
        Basic::Add | Basic::Sub if zero(b) && normal(a) => Some(a),
        Basic::Add if zero(a) && normal(b) => Some(b),
        Basic::Sub if zero(a) && normal(b) => Some(b ^ P::SIGN),
        Basic::Mul if zero(b) && normal(a) => Some((a ^ b) & P::SIGN),
        Basic::Mul | Basic::Div if zero(a) && normal(b) => Some((a ^ b) & P::SIGN),
        _ => None,
    }
}
