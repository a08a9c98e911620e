//! One IEEE operation on one number: `rustc_apfloat`'s correctly rounded arithmetic, with what the
//! MIPS FPU (as QEMU's, bit for bit) defines differently put around it: legacy NaNs, tininess
//! detected after rounding, and flushing detected before it.
//!
//! The library works out each result first in a format of the same precision whose exponent range
//! no single operation can leave. That gives "the result rounded as if the exponent range were
//! unbounded", by which IEEE 754 defines overflow and (after-rounding) underflow. Only a result
//! that overflows or is tiny is computed again in the format itself.

use rustc_apfloat::ieee::{DoubleS, IeeeFloat, Semantics, SingleS};
use rustc_apfloat::{Category, ExpInt, Float, FloatConvert, Round, Status, StatusAnd};

use super::fcsr::{Exceptions, Fcsr, Rounding};

/// The single format's precision with a 15-bit exponent.
pub struct WideSingleS;

impl Semantics for WideSingleS {
    const BITS: usize = 24 + Self::EXP_BITS;
    const EXP_BITS: usize = 15;
}

/// The double format's precision with a 15-bit exponent.
pub struct WideDoubleS;

impl Semantics for WideDoubleS {
    const BITS: usize = 53 + Self::EXP_BITS;
    const EXP_BITS: usize = 15;
}

/// A floating-point format: its bit layout and the library's description of it.
pub trait Precision {
    /// The format itself.
    type Real: Semantics;
    /// The same precision without overflow or underflow.
    type Wide: Semantics;
    /// Width of the fraction field, bits.
    const FRACTION_BITS: u32;
    /// The sign bit.
    const SIGN: u64;
    /// The exponent field, which is also the encoding of +∞.
    const EXPONENT: u64;
    /// The result of every invalid operation and of every operation on a NaN. A legacy NaN is
    /// signalling if its first fraction bit is *set*, so this has all others.
    const DEFAULT_NAN: u64 = Self::EXPONENT | (Self::QUIET_CLEAR - 1);
    /// The first fraction bit, set in a signalling NaN.
    const QUIET_CLEAR: u64 = 1 << (Self::FRACTION_BITS - 1);
    /// The bit before the fraction, which the encoding leaves out.
    const LEADING: u64 = 1 << Self::FRACTION_BITS;
    /// What is added to an exponent to encode it.
    const BIAS: i32 = <Self::Real as Semantics>::MAX_EXP;
    /// 1.0.
    const ONE: u64;
    /// 2.0.
    const TWO: u64;

    /// Whether `bits` encode a NaN.
    #[inline]
    fn is_nan(bits: u64) -> bool {
        bits & !Self::SIGN > Self::EXPONENT
    }

    /// Whether `bits`, of a NaN, are signalling.
    #[inline]
    fn is_signalling(bits: u64) -> bool {
        bits & Self::QUIET_CLEAR != 0
    }
}

/// The 32-bit format, S.
pub struct Single;

impl Precision for Single {
    type Real = SingleS;
    type Wide = WideSingleS;
    const FRACTION_BITS: u32 = 23;
    const SIGN: u64 = 1 << 31;
    const EXPONENT: u64 = 0xff << 23;
    const ONE: u64 = 127 << 23;
    const TWO: u64 = 128 << 23;
}

/// The 64-bit format, D.
pub struct Double;

impl Precision for Double {
    type Real = DoubleS;
    type Wide = WideDoubleS;
    const FRACTION_BITS: u32 = 52;
    const SIGN: u64 = 1 << 63;
    const EXPONENT: u64 = 0x7ff << 52;
    const ONE: u64 = 1023 << 52;
    const TWO: u64 = 1024 << 52;
}

/// The four operations that the library rounds for us.
#[derive(Clone, Copy)]
pub enum Basic {
    Add,
    Sub,
    Mul,
    Div,
}

impl Basic {
    fn apply<F: Float>(self, a: F, b: F, round: Round) -> StatusAnd<F> {
        match self {
            Basic::Add => a.add_r(b, round),
            Basic::Sub => a.sub_r(b, round),
            Basic::Mul => a.mul_r(b, round),
            Basic::Div => a.div_r(b, round),
        }
    }
}

/// The modes an instruction runs under, and the exceptions its operations have raised so far.
pub struct Env {
    /// Rounding mode of every operation.
    pub rounding: Rounding,
    flush: bool,
    /// Exceptions raised so far.
    pub raised: Exceptions,
}

impl Env {
    /// The modes of `fcsr`; nothing raised.
    pub fn new(fcsr: Fcsr) -> Self {
        Self { rounding: fcsr.rounding(), flush: fcsr.flush(), raised: Exceptions::NONE }
    }

    fn round(&self) -> Round {
        match self.rounding {
            Rounding::Nearest => Round::NearestTiesToEven,
            Rounding::Zero => Round::TowardZero,
            Rounding::Up => Round::TowardPositive,
            Rounding::Down => Round::TowardNegative,
        }
    }

    /// The default NaN if one of `operands` is a NaN, with the invalid exception if one is
    /// signalling.
    #[inline]
    pub fn nan<P: Precision>(&mut self, operands: &[u64]) -> Option<u64> {
        let mut found = false;
        for &bits in operands {
            if P::is_nan(bits) {
                found = true;
                if P::is_signalling(bits) {
                    self.raised |= Exceptions::INVALID;
                }
            }
        }
        found.then_some(P::DEFAULT_NAN)
    }

    /// The default NaN, with the invalid exception.
    pub fn invalid<P: Precision>(&mut self) -> u64 {
        self.raised |= Exceptions::INVALID;
        P::DEFAULT_NAN
    }

    /// `a op b`.
    #[inline(always)]
    pub fn basic<P: Precision>(&mut self, op: Basic, a: u64, b: u64) -> u64 {
        match self.basic_fast::<P>(op, a, b) {
            Some(result) => result,
            None => self.basic_exact::<P>(op, a, b),
        }
    }

    /// `a op b`, if they are everyday numbers.
    #[inline(always)]
    pub fn basic_fast<P: Precision>(&mut self, op: Basic, a: u64, b: u64) -> Option<u64> {
        match op {
            Basic::Add => self.add_fast::<P>(a, b),
            Basic::Sub => self.add_fast::<P>(a, b ^ P::SIGN),
            Basic::Mul => self.mul_fast::<P>(a, b),
            Basic::Div => self.div_fast::<P>(a, b),
        }
    }

    /// `a op b`, of any numbers.
    #[cold]
    pub fn basic_exact<P: Precision>(&mut self, op: Basic, a: u64, b: u64) -> u64 {
        if let Some(nan) = self.nan::<P>(&[a, b]) {
            return nan;
        }
        let (a, b) = (decode::<P>(a), decode::<P>(b));
        let (wide_a, wide_b) = (exact::<P::Real, P::Wide>(a), exact::<P::Real, P::Wide>(b));
        self.fit::<P>(|round| op.apply(wide_a, wide_b, round), |round| op.apply(a, b, round))
    }

    /// A number of format `From` in format `To`.
    #[inline]
    pub fn convert<From: Precision, To: Precision>(&mut self, a: u64) -> u64 {
        match self.convert_fast::<From, To>(a) {
            Some(result) => result,
            None => self.convert_exact::<From, To>(a),
        }
    }

    /// Any number of format `From` in format `To`.
    #[cold]
    pub fn convert_exact<From: Precision, To: Precision>(&mut self, a: u64) -> u64 {
        if self.nan::<From>(&[a]).is_some() {
            return To::DEFAULT_NAN;
        }
        let a = decode::<From>(a);
        self.fit::<To>(
            |round| a.convert_r(round, &mut false),
            |round| a.convert_r(round, &mut false),
        )
    }

    /// An integer in format `To`.
    #[inline]
    pub fn number_of<To: Precision>(&mut self, a: i64) -> u64 {
        match self.number_of_fast::<To>(a) {
            Some(result) => result,
            None => self.number_of_exact::<To>(a),
        }
    }

    /// Any integer in format `To`.
    #[cold]
    pub fn number_of_exact<To: Precision>(&mut self, a: i64) -> u64 {
        let result = IeeeFloat::<To::Real>::from_i128_r(i128::from(a), self.round());
        self.raise(result.status);
        encode::<To>(result.value)
    }

    /// A number in a signed integer format of `width` bits, under `rounding`. What doesn't fit, and
    /// every NaN, is invalid and gives the largest positive integer.
    #[inline]
    pub fn integer_of<From: Precision>(&mut self, a: u64, width: u32, rounding: Rounding) -> u64 {
        match self.integer_of_fast::<From>(a, width, rounding) {
            Some(result) => result,
            None => self.integer_of_exact::<From>(a, width, rounding),
        }
    }

    /// Any number as an integer: see [`Env::integer_of`].
    #[cold]
    pub fn integer_of_exact<From: Precision>(
        &mut self,
        a: u64,
        width: u32,
        rounding: Rounding,
    ) -> u64 {
        let largest = (1 << (width - 1)) - 1;
        if From::is_nan(a) {
            self.raised |= Exceptions::INVALID;
            return largest;
        }
        let round = Self { rounding, ..*self }.round();
        let result = decode::<From>(a).to_i128_r(width as usize, round, &mut false);
        self.raise(result.status);
        if result.status.contains(Status::INVALID_OP) {
            return largest;
        }
        result.value as u64 & (largest << 1 | 1)
    }

    /// Brings a result into format `P`: `wide` computes it with unbounded exponent range, `real` in
    /// the format, both under the given rounding mode.
    fn fit<P: Precision>(
        &mut self,
        wide: impl Fn(Round) -> StatusAnd<IeeeFloat<P::Wide>>,
        real: impl Fn(Round) -> StatusAnd<IeeeFloat<P::Real>>,
    ) -> u64 {
        let round = self.round();
        let unbounded = wide(round);
        let value = unbounded.value;
        match value.category() {
            Category::NaN => self.invalid::<P>(),
            Category::Zero | Category::Infinity => {
                self.raise(unbounded.status);
                encode::<P>(exact::<P::Wide, P::Real>(value))
            }
            Category::Normal => {
                let exponent = value.ilogb();
                let inexact = unbounded.status.contains(Status::INEXACT);
                if exponent > P::Real::MAX_EXP {
                    self.raised |= Exceptions::OVERFLOW | Exceptions::INEXACT;
                    return encode::<P>(real(round).value);
                }
                if self.flush {
                    // Flushing looks at the result before rounding. Rounding can have carried it
                    // to the smallest normal number; truncation never does.
                    let before = if exponent == P::Real::MIN_EXP && inexact {
                        wide(Round::TowardZero).value.ilogb()
                    } else {
                        exponent
                    };
                    if before < P::Real::MIN_EXP {
                        return if value.is_negative() { P::SIGN } else { 0 };
                    }
                }
                if exponent < P::Real::MIN_EXP {
                    let denormal = real(round);
                    if denormal.status.contains(Status::INEXACT) {
                        self.raised |= Exceptions::UNDERFLOW | Exceptions::INEXACT;
                    }
                    return encode::<P>(denormal.value);
                }
                self.raise(unbounded.status);
                encode::<P>(exact::<P::Wide, P::Real>(value))
            }
        }
    }

    fn raise(&mut self, status: Status) {
        for (from, to) in [
            (Status::INVALID_OP, Exceptions::INVALID),
            (Status::DIV_BY_ZERO, Exceptions::DIVISION_BY_ZERO),
            (Status::OVERFLOW, Exceptions::OVERFLOW),
            (Status::UNDERFLOW, Exceptions::UNDERFLOW),
            (Status::INEXACT, Exceptions::INEXACT),
        ] {
            if status.contains(from) {
                self.raised |= to;
            }
        }
    }

    /// √a. The library has none: the root of the significand as an integer, with two bits below
    /// the result's last one and a third for what remains, is exact enough to round in any mode,
    /// and the root of a normalised number neither overflows nor is tiny.
    pub fn sqrt<P: Precision>(&mut self, a: u64) -> u64 {
        if let Some(nan) = self.nan::<P>(&[a]) {
            return nan;
        }
        if a & !P::SIGN == 0 || a == P::EXPONENT {
            return a;
        }
        if a & P::SIGN != 0 {
            return self.invalid::<P>();
        }
        // a = significand × 2^exponent, the significand with FRACTION_BITS + 1 bits.
        let mut exponent = (a >> P::FRACTION_BITS) as ExpInt;
        let mut significand = a & (P::LEADING - 1);
        if exponent == 0 {
            let shift = significand.leading_zeros() - (63 - P::FRACTION_BITS);
            significand <<= shift;
            exponent = 1 - shift as ExpInt;
        } else {
            significand |= P::LEADING;
        }
        exponent -= P::BIAS;
        // An even exponent, so that it halves; then the root of a number in [1, 4) is in [1, 2).
        let odd = exponent & 1;
        let radicand = u128::from(significand) << (P::FRACTION_BITS + 4 + odd as u32);
        let (root, exact) = integer_root(radicand);
        let low = (root & 3) << 1 | u64::from(!exact);
        let result = ((exponent - odd) / 2 + P::BIAS - 1) as u64;
        // The integer bit of the root adds the one that was taken off the exponent; so does a
        // carry out of the rounded fraction.
        let truncated = (result << P::FRACTION_BITS) + (root >> 2);
        if low == 0 {
            return truncated;
        }
        self.raised |= Exceptions::INEXACT;
        let away = match self.rounding {
            // Never a tie: the square of a root with one more bit has too many bits to be `a`.
            Rounding::Nearest => low > 4,
            Rounding::Up => true,
            Rounding::Zero | Rounding::Down => false,
        };
        truncated + u64::from(away)
    }
}

/// ⌊√a⌋, and whether that is exactly √a, for a < 2^64 or 2^100 ≤ a < 2^112: the radicands of singles
/// and doubles. Half of the root from half of the number and the rest from a division, as in
/// Zimmermann, "Karatsuba Square Root" (1999): cheaper than the core library's, which divides
/// 128-bit numbers.
fn integer_root(a: u128) -> (u64, bool) {
    const LOW: u32 = 24;
    if let Ok(a) = u64::try_from(a) {
        let root = a.isqrt();
        return (root, root * root == a);
    }
    let high = ((a >> (2 * LOW)) as u64).isqrt();
    // With root = high × 2^LOW + low: low is at most what remains divided by 2 × high × 2^LOW.
    let rest = a - (u128::from(high * high) << (2 * LOW));
    let low = (rest >> (LOW + 1)) as u64 / high;
    // Leaving out low² makes the quotient too large by less than 2^48 / 2^51 before truncation: by
    // one at most, and not at all if the root is exact.
    let root = (high << LOW) + low;
    let square = u128::from(root) * u128::from(root);
    if square > a { (root - 1, false) } else { (root, square == a) }
}

fn decode<P: Precision>(bits: u64) -> IeeeFloat<P::Real> {
    IeeeFloat::from_bits(u128::from(bits))
}

fn encode<P: Precision>(value: IeeeFloat<P::Real>) -> u64 {
    value.to_bits() as u64
}

/// A conversion known to lose nothing.
fn exact<From: Semantics, To: Semantics>(value: IeeeFloat<From>) -> IeeeFloat<To> {
    value.convert(&mut false).value
}

#[cfg(test)]
mod tests {
    use super::integer_root;

    #[test]
    fn integer_roots_are_exact_at_squares_and_beside_them() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for i in 0..100_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // 51 to 56 bits, and at most 31.
            let ones = u64::MAX >> (random % 56);
            for r in [(random >> 8 | 1 << 55 | ones >> 8) >> (i % 6), random >> 33, ones >> 33] {
                let square = u128::from(r) * u128::from(r);
                assert_eq!(integer_root(square), (r, true));
                // (r + 1)² − 1 = r² + 2r
                assert_eq!(integer_root(square + 2 * u128::from(r)), (r, r == 0));
                if r > 0 {
                    assert_eq!(integer_root(square + 1), (r, false));
                }
            }
        }
    }
}
