//! Comparisons: `c.cond` and `cabs.cond`, by the bits alone.

use super::arith::{Env, Precision};
use super::fcsr::Exceptions;

/// One of the sixteen conditions, as encoded in bits 3:0 of the instruction: 0 unordered, 1 equal,
/// 2 less (each makes the condition true), 3 a quiet NaN is invalid too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Condition(u8);

impl Condition {
    const UNORDERED: u8 = 1;
    const EQUAL: u8 = 2;
    const LESS: u8 = 4;
    const SIGNALLING: u8 = 8;

    /// The condition in the low four bits of `function`.
    pub const fn from_bits(function: u8) -> Self {
        Self(function & 0xf)
    }

    /// The four bits.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether it holds between `a` and `b`.
    pub(super) fn holds<P: Precision>(self, env: &mut Env, a: u64, b: u64) -> bool {
        if env.nan::<P>(&[a, b]).is_some() {
            if self.0 & Self::SIGNALLING != 0 {
                env.raised |= Exceptions::INVALID;
            }
            return self.0 & Self::UNORDERED != 0;
        }
        let (a, b) = (order::<P>(a), order::<P>(b));
        a == b && self.0 & Self::EQUAL != 0 || a < b && self.0 & Self::LESS != 0
    }
}

/// An integer that is ordered as the number is; both zeros are 0.
fn order<P: Precision>(bits: u64) -> i64 {
    let magnitude = (bits & !P::SIGN) as i64;
    if bits & P::SIGN != 0 { -magnitude } else { magnitude }
}
