//! Floating point: what each FPU instruction computes from raw register bits and the FCSR, bit for
//! bit as QEMU's MIPS64R2-generic does it. No register file: which bits come from where, and
//! which formats an instruction has, is the caller's business.
//!
//! - A number is the low bits of a `u64`: 32 of them for S and W (the upper half is ignored in an
//!   operand and zero in a result), 64 for D, L and PS (the upper single in bits 63:32).
//! - Every function that takes the FCSR sets its Cause field, even to "none". On [`FpTrap`] the
//!   instruction has no result, Flags and condition codes are as before, and the caller raises FPE.
//! - NaNs are legacy ones: signalling if the first fraction bit is set. Every operation on a NaN,
//!   and every invalid one, results in the default NaN (0x7fbfffff, 0x7ff7ffff_ffffffff).
//! - Underflow is detected after rounding. With FCSR.FS a result that would be denormal (as seen
//!   before rounding) is a zero of its sign and raises nothing; denormal operands count in full.
//! - No operation is ever "unimplemented": Cause.E is set by software only.
//! - A multiply-add rounds twice, and so do the reduced-precision and step operations of MIPS-3D.

mod arith;
mod compare;
mod fast;
mod fcsr;

pub use compare::Condition;
pub use fcsr::{Exceptions, Fcsr, FpTrap, Rounding};

use arith::{Basic, Double, Env, Precision, Single};

/// A format to compute in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Single, 32 bits.
    S,
    /// Double, 64 bits.
    D,
    /// Two singles, each computed by itself, their exceptions raised together.
    Ps,
}

/// A format of one floating-point number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scalar {
    /// Single, 32 bits.
    S,
    /// Double, 64 bits.
    D,
}

/// A format of one signed integer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Integer {
    /// Word, 32 bits.
    W,
    /// Long, 64 bits.
    L,
}

/// Operations on one number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unary {
    /// `sqrt`: √fs.
    Sqrt,
    /// `recip` and `recip1`: 1 / fs, correctly rounded.
    Recip,
    /// `rsqrt` and `rsqrt1`: 1 / √fs, rounded after each step.
    Rsqrt,
}

/// Operations on two numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Binary {
    /// `add`: fs + ft.
    Add,
    /// `sub`: fs − ft.
    Sub,
    /// `mul`: fs × ft.
    Mul,
    /// `div`: fs / ft.
    Div,
    /// `recip2`: −(fs × ft − 1).
    Recip2,
    /// `rsqrt2`: −((fs × ft − 1) / 2).
    Rsqrt2,
}

/// Operations on three numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MulAdd {
    /// `madd`: fs × ft + fr.
    Madd,
    /// `msub`: fs × ft − fr.
    Msub,
    /// `nmadd`: −(fs × ft + fr).
    Nmadd,
    /// `nmsub`: −(fs × ft − fr).
    Nmsub,
}

/// Operations across the two halves of each operand (MIPS-3D).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reduce {
    /// `addr.ps`.
    Add,
    /// `mulr.ps`.
    Mul,
}

/// `abs`: clears the sign, of a NaN too, and leaves the FCSR alone.
pub const fn abs(format: Format, fs: u64) -> u64 {
    own(format, fs) & !sign(format)
}

/// `neg`: inverts the sign, of a NaN too, and leaves the FCSR alone.
pub const fn neg(format: Format, fs: u64) -> u64 {
    own(format, fs) ^ sign(format)
}

/// The bits of a register that belong to a number.
const fn own(format: Format, bits: u64) -> u64 {
    match format {
        Format::S => low(bits),
        Format::D | Format::Ps => bits,
    }
}

const fn sign(format: Format) -> u64 {
    match format {
        Format::S => Single::SIGN,
        Format::D => Double::SIGN,
        Format::Ps => Single::SIGN << 32 | Single::SIGN,
    }
}

/// `op.format fd, fs`.
///
/// # Errors
/// [`FpTrap`] if an enabled exception was raised.
#[inline]
pub fn unary(op: Unary, format: Format, fs: u64, fcsr: &mut Fcsr) -> Result<u64, FpTrap> {
    let mut env = Env::new(*fcsr);
    let result = match format {
        Format::S => env.unary::<Single>(op, low(fs)),
        Format::D => env.unary::<Double>(op, fs),
        Format::Ps => pair(env.unary::<Single>(op, high(fs)), env.unary::<Single>(op, low(fs))),
    };
    env.finish(result, fcsr)
}

/// `op.format fd, fs, ft`.
///
/// # Errors
/// [`FpTrap`] if an enabled exception was raised.
#[inline(always)]
pub fn binary(
    op: Binary,
    format: Format,
    fs: u64,
    ft: u64,
    fcsr: &mut Fcsr,
) -> Result<u64, FpTrap> {
    let mut env = Env::new(*fcsr);
    let result = match format {
        Format::S => env.binary::<Single>(op, low(fs), low(ft)),
        Format::D => env.binary::<Double>(op, fs, ft),
        Format::Ps => pair(
            env.binary::<Single>(op, high(fs), high(ft)),
            env.binary::<Single>(op, low(fs), low(ft)),
        ),
    };
    env.finish(result, fcsr)
}

/// `op.format fd, fr, fs, ft`.
///
/// # Errors
/// [`FpTrap`] if an enabled exception was raised.
#[inline]
pub fn mul_add(
    op: MulAdd,
    format: Format,
    fr: u64,
    fs: u64,
    ft: u64,
    fcsr: &mut Fcsr,
) -> Result<u64, FpTrap> {
    let mut env = Env::new(*fcsr);
    let result = match format {
        Format::S => env.mul_add::<Single>(op, low(fr), low(fs), low(ft)),
        Format::D => env.mul_add::<Double>(op, fr, fs, ft),
        Format::Ps => pair(
            env.mul_add::<Single>(op, high(fr), high(fs), high(ft)),
            env.mul_add::<Single>(op, low(fr), low(fs), low(ft)),
        ),
    };
    env.finish(result, fcsr)
}

/// `addr.ps` and `mulr.ps fd, fs, ft`: the upper result from the halves of `fs`, the lower one from
/// those of `ft`.
///
/// # Errors
/// [`FpTrap`] if an enabled exception was raised.
pub fn reduce(op: Reduce, fs: u64, ft: u64, fcsr: &mut Fcsr) -> Result<u64, FpTrap> {
    let op = match op {
        Reduce::Add => Basic::Add,
        Reduce::Mul => Basic::Mul,
    };
    let mut env = Env::new(*fcsr);
    let result = pair(
        env.basic::<Single>(op, low(fs), high(fs)),
        env.basic::<Single>(op, low(ft), high(ft)),
    );
    env.finish(result, fcsr)
}

/// `c.cond` and, if `absolute`, `cabs.cond`: sets condition code `cc` to what `condition` says of
/// `fs` and `ft`. In PS format `cc` is for the lower pair and `cc + 1` for the upper one (the
/// architecture wants an even `cc`; there is no code 8).
///
/// # Errors
/// [`FpTrap`] if an enabled exception was raised; the condition codes are then as before.
#[inline]
pub fn compare(
    condition: Condition,
    absolute: bool,
    format: Format,
    fs: u64,
    ft: u64,
    cc: u8,
    fcsr: &mut Fcsr,
) -> Result<(), FpTrap> {
    let (fs, ft) = if absolute { (abs(format, fs), abs(format, ft)) } else { (fs, ft) };
    let mut env = Env::new(*fcsr);
    let (lower, upper) = match format {
        Format::S => (condition.holds::<Single>(&mut env, low(fs), low(ft)), None),
        Format::D => (condition.holds::<Double>(&mut env, fs, ft), None),
        Format::Ps => (
            condition.holds::<Single>(&mut env, low(fs), low(ft)),
            Some(condition.holds::<Single>(&mut env, high(fs), high(ft))),
        ),
    };
    fcsr.finish(env.raised)?;
    fcsr.set_condition(cc, lower);
    if let Some(upper) = upper {
        fcsr.set_condition(cc + 1, upper);
    }
    Ok(())
}

/// `cvt.w`, `cvt.l` (under FCSR.RM: `rounding` is none), `round`, `trunc`, `ceil`, `floor` (to
/// nearest, toward zero, up, down). NaNs, infinities and numbers out of range are invalid and
/// result in the largest positive integer.
///
/// # Errors
/// [`FpTrap`] if an enabled exception was raised.
#[inline(always)]
pub fn to_integer(
    from: Scalar,
    to: Integer,
    rounding: Option<Rounding>,
    fs: u64,
    fcsr: &mut Fcsr,
) -> Result<u64, FpTrap> {
    let mut env = Env::new(*fcsr);
    let rounding = rounding.unwrap_or(env.rounding);
    let width = match to {
        Integer::W => 32,
        Integer::L => 64,
    };
    let result = match from {
        Scalar::S => env.integer_of::<Single>(low(fs), width, rounding),
        Scalar::D => env.integer_of::<Double>(fs, width, rounding),
    };
    env.finish(result, fcsr)
}

/// `cvt.s` and `cvt.d` of an integer.
///
/// # Errors
/// [`FpTrap`] if an enabled exception was raised.
#[inline(always)]
pub fn from_integer(from: Integer, to: Scalar, fs: u64, fcsr: &mut Fcsr) -> Result<u64, FpTrap> {
    let mut env = Env::new(*fcsr);
    let value = match from {
        Integer::W => word(fs),
        Integer::L => fs as i64,
    };
    let result = match to {
        Scalar::S => env.number_of::<Single>(value),
        Scalar::D => env.number_of::<Double>(value),
    };
    env.finish(result, fcsr)
}

/// `cvt.s.d`.
///
/// # Errors
/// [`FpTrap`] if an enabled exception was raised.
#[inline]
pub fn cvt_s_d(fs: u64, fcsr: &mut Fcsr) -> Result<u64, FpTrap> {
    let mut env = Env::new(*fcsr);
    let result = env.convert::<Double, Single>(fs);
    env.finish(result, fcsr)
}

/// `cvt.d.s`.
///
/// # Errors
/// [`FpTrap`] if an enabled exception was raised.
#[inline]
pub fn cvt_d_s(fs: u64, fcsr: &mut Fcsr) -> Result<u64, FpTrap> {
    let mut env = Env::new(*fcsr);
    let result = env.convert::<Single, Double>(low(fs));
    env.finish(result, fcsr)
}

/// `cvt.s.pu` (`upper`) and `cvt.s.pl`: one half, unchanged even if it is a signalling NaN. It
/// clears the Cause field.
#[inline]
pub fn cvt_s_p(upper: bool, fs: u64, fcsr: &mut Fcsr) -> u64 {
    // An operation that raises nothing can't trap.
    let _ = fcsr.finish(Exceptions::NONE);
    if upper { high(fs) } else { low(fs) }
}

/// `cvt.ps.pw`: two words to two singles.
///
/// # Errors
/// [`FpTrap`] if an enabled exception was raised.
pub fn cvt_ps_pw(fs: u64, fcsr: &mut Fcsr) -> Result<u64, FpTrap> {
    let mut env = Env::new(*fcsr);
    let result =
        { pair(env.number_of::<Single>(word(high(fs))), env.number_of::<Single>(word(low(fs)))) };
    env.finish(result, fcsr)
}

/// `cvt.pw.ps`: two singles to two words, under FCSR.RM.
///
/// # Errors
/// [`FpTrap`] if an enabled exception was raised.
pub fn cvt_pw_ps(fs: u64, fcsr: &mut Fcsr) -> Result<u64, FpTrap> {
    let mut env = Env::new(*fcsr);
    let rounding = env.rounding;
    let result = pair(
        env.integer_of::<Single>(high(fs), 32, rounding),
        env.integer_of::<Single>(low(fs), 32, rounding),
    );
    env.finish(result, fcsr)
}

/// A paired single of two singles: `cvt.ps.s fd, fs, ft` is `pair(fs, ft)`, and `pll`, `plu`,
/// `pul`, `puu` are pairs of [`low`] and [`high`] halves. None of them touches the FCSR.
pub const fn pair(upper: u64, lower: u64) -> u64 {
    upper << 32 | low(lower)
}

/// The lower half of a paired single.
pub const fn low(ps: u64) -> u64 {
    ps & 0xffff_ffff
}

/// The upper half of a paired single.
pub const fn high(ps: u64) -> u64 {
    ps >> 32
}

/// The signed word in the low 32 bits.
const fn word(bits: u64) -> i64 {
    bits as i32 as i64
}

impl Env {
    /// Ends the instruction, with its result.
    #[inline(always)]
    fn finish(self, result: u64, fcsr: &mut Fcsr) -> Result<u64, FpTrap> {
        fcsr.finish(self.raised)?;
        Ok(result)
    }

    #[inline]
    fn unary<P: Precision>(&mut self, op: Unary, fs: u64) -> u64 {
        match op {
            Unary::Sqrt => self.sqrt::<P>(fs),
            Unary::Recip => self.basic::<P>(Basic::Div, P::ONE, fs),
            Unary::Rsqrt => {
                let root = self.sqrt::<P>(fs);
                self.basic::<P>(Basic::Div, P::ONE, root)
            }
        }
    }

    #[inline(always)]
    fn binary<P: Precision>(&mut self, op: Binary, fs: u64, ft: u64) -> u64 {
        match op {
            Binary::Add => self.basic::<P>(Basic::Add, fs, ft),
            Binary::Sub => self.basic::<P>(Basic::Sub, fs, ft),
            Binary::Mul => self.basic::<P>(Basic::Mul, fs, ft),
            Binary::Div => self.basic::<P>(Basic::Div, fs, ft),
            Binary::Recip2 => self.newton_step::<P>(fs, ft) ^ P::SIGN,
            Binary::Rsqrt2 => {
                let step = self.newton_step::<P>(fs, ft);
                self.basic::<P>(Basic::Div, step, P::TWO) ^ P::SIGN
            }
        }
    }

    /// fs × ft − 1, rounded twice.
    fn newton_step<P: Precision>(&mut self, fs: u64, ft: u64) -> u64 {
        let product = self.basic::<P>(Basic::Mul, fs, ft);
        self.basic::<P>(Basic::Sub, product, P::ONE)
    }

    #[inline]
    fn mul_add<P: Precision>(&mut self, op: MulAdd, fr: u64, fs: u64, ft: u64) -> u64 {
        let product = self.basic::<P>(Basic::Mul, fs, ft);
        match op {
            MulAdd::Madd => self.basic::<P>(Basic::Add, product, fr),
            MulAdd::Msub => self.basic::<P>(Basic::Sub, product, fr),
            MulAdd::Nmadd => self.basic::<P>(Basic::Add, product, fr) ^ P::SIGN,
            MulAdd::Nmsub => self.basic::<P>(Basic::Sub, product, fr) ^ P::SIGN,
        }
    }
}

#[cfg(test)]
mod tests;
