//! Floating point: which registers, which checks, and what happens to the result. The arithmetic is
//! [`crate::fpu`]'s.
//!
//! What needs 64-bit registers is a reserved instruction without them, as are odd registers in
//! double precision; loads, stores and moves of an odd pair use the even one, as in QEMU (all this
//! is UNPREDICTABLE in the manual).

mod memory;
mod moves;

pub use memory::{ldc1, lwc1, sdc1, swc1};
pub use moves::{cfc1, dmfc1, dmtc1, mfc1, mfhc1, mtc1, mthc1};

use super::Context;
use crate::cpu::{ExcCode, Exception, Trap, Vcpu};
use crate::fpu::{
    self, Binary, Condition, Format, FpTrap, Integer, MulAdd, Reduce, Rounding, Scalar, Unary,
};
use crate::isa::{Insn, Op, Reg};

use memory::indexed;
use moves::{ctc1, move_general, move_on_condition, move_on_register};

type Done = Result<(), Trap>;

#[inline(always)]
fn read(cpu: &Vcpu, format: Format, reg: Reg) -> u64 {
    match format {
        Format::S => cpu.fpr32(reg),
        Format::D | Format::Ps => cpu.fpr64(reg),
    }
}

#[inline(always)]
fn write(cpu: &mut Vcpu, format: Format, reg: Reg, value: u64) {
    match format {
        Format::S => cpu.set_fpr32(reg, value),
        Format::D | Format::Ps => cpu.set_fpr64(reg, value),
    }
}

/// The registers of an instruction of this format are usable ones.
#[inline(always)]
fn check(cpu: &mut Vcpu, format: Format, registers: &[Reg]) -> Done {
    match format {
        Format::S => cpu.need_fpu(),
        Format::D => {
            cpu.need_fpu()?;
            cpu.need_even(registers)
        }
        // Reserved comes before unusable.
        Format::Ps => {
            cpu.need_wide_registers()?;
            cpu.need_fpu()
        }
    }
}

/// As [`check`], for what exists with 64-bit registers only.
fn check_wide(cpu: &mut Vcpu, format: Format) -> Done {
    check(cpu, format, &[])?;
    cpu.need_wide_registers()
}

/// Writes a result, or raises FPE.
#[inline(always)]
fn put(cpu: &mut Vcpu, format: Format, fd: Reg, result: Result<u64, FpTrap>) -> Done {
    match result {
        Ok(value) => {
            write(cpu, format, fd, value);
            Ok(())
        }
        Err(FpTrap) => Err(cpu.trap(Exception::Plain(ExcCode::Fpe))),
    }
}

/// `add`, `sub`, `mul`, `div`
#[inline(always)]
fn binary(cpu: &mut Vcpu, insn: Insn, op: Binary, format: Format) -> Done {
    check(cpu, format, &[insn.a, insn.b, insn.c])?;
    let (fs, ft) = (read(cpu, format, insn.a), read(cpu, format, insn.b));
    let result = fpu::binary(op, format, fs, ft, &mut cpu.fcsr);
    put(cpu, format, insn.c, result)
}

/// `recip2`, `rsqrt2`
fn binary_wide(cpu: &mut Vcpu, insn: Insn, op: Binary, format: Format) -> Done {
    check_wide(cpu, format)?;
    binary(cpu, insn, op, format)
}

/// `sqrt`, `recip`, `rsqrt`
fn unary(cpu: &mut Vcpu, insn: Insn, op: Unary, format: Format) -> Done {
    check(cpu, format, &[insn.a, insn.c])?;
    let fs = read(cpu, format, insn.a);
    let result = fpu::unary(op, format, fs, &mut cpu.fcsr);
    put(cpu, format, insn.c, result)
}

/// `recip1`, `rsqrt1`
fn unary_wide(cpu: &mut Vcpu, insn: Insn, op: Unary, format: Format) -> Done {
    check_wide(cpu, format)?;
    unary(cpu, insn, op, format)
}

/// `abs`, `neg`, `mov`: no exceptions, the FCSR untouched.
#[inline(always)]
fn plain(cpu: &mut Vcpu, insn: Insn, format: Format, f: fn(Format, u64) -> u64) -> Done {
    check(cpu, format, &[insn.a, insn.c])?;
    let value = f(format, read(cpu, format, insn.a));
    write(cpu, format, insn.c, value);
    Ok(())
}

fn identity(_: Format, value: u64) -> u64 {
    value
}

/// `madd`, `msub`, `nmadd`, `nmsub`
fn mul_add(cpu: &mut Vcpu, insn: Insn, op: MulAdd) -> Done {
    let format = insn.format();
    // Of COP1X, unusable comes first even in PS format.
    cpu.need_fpu()?;
    check(cpu, format, &[insn.a, insn.b, insn.c, insn.fr()])?;
    let fr = read(cpu, format, insn.fr());
    let (fs, ft) = (read(cpu, format, insn.a), read(cpu, format, insn.b));
    let result = fpu::mul_add(op, format, fr, fs, ft, &mut cpu.fcsr);
    put(cpu, format, insn.c, result)
}

/// `addr`, `mulr`
fn reduce(cpu: &mut Vcpu, insn: Insn, op: Reduce) -> Done {
    check_wide(cpu, Format::Ps)?;
    let (fs, ft) = (cpu.fpr64(insn.a), cpu.fpr64(insn.b));
    let result = fpu::reduce(op, fs, ft, &mut cpu.fcsr);
    put(cpu, Format::Ps, insn.c, result)
}

/// `c.cond` and `cabs.cond`
#[inline(always)]
fn compare(cpu: &mut Vcpu, insn: Insn, absolute: bool) -> Done {
    let format = insn.format();
    check(cpu, format, &[insn.a, insn.b])?;
    let (fs, ft) = (read(cpu, format, insn.a), read(cpu, format, insn.b));
    let condition = Condition::from_bits(insn.condition());
    fpu::compare(condition, absolute, format, fs, ft, insn.cc(), &mut cpu.fcsr)
        .map_err(|FpTrap| cpu.trap(Exception::Plain(ExcCode::Fpe)))
}

/// `cvt.w`, `cvt.l`, `round`, `trunc`, `ceil`, `floor`
#[inline(always)]
fn to_integer(cpu: &mut Vcpu, insn: Insn, from: Scalar, to: Integer) -> Done {
    let format = format_of(from);
    match to {
        Integer::W => check(cpu, format, &[insn.a])?,
        Integer::L => check_wide(cpu, format)?,
    }
    let rounding = match insn.imm {
        0 => Some(Rounding::Nearest),
        1 => Some(Rounding::Zero),
        2 => Some(Rounding::Up),
        3 => Some(Rounding::Down),
        _ => None,
    };
    let fs = read(cpu, format, insn.a);
    let to_format = match to {
        Integer::W => Format::S,
        Integer::L => Format::D,
    };
    let result = fpu::to_integer(from, to, rounding, fs, &mut cpu.fcsr);
    put(cpu, to_format, insn.c, result)
}

/// `cvt.s` and `cvt.d` of an integer
#[inline(always)]
fn from_integer(cpu: &mut Vcpu, insn: Insn, from: Integer, to: Scalar) -> Done {
    let format = format_of(to);
    let fs = match from {
        Integer::W => {
            check(cpu, format, &[insn.c])?;
            cpu.fpr32(insn.a)
        }
        Integer::L => {
            check_wide(cpu, format)?;
            cpu.fpr64(insn.a)
        }
    };
    let result = fpu::from_integer(from, to, fs, &mut cpu.fcsr);
    put(cpu, format, insn.c, result)
}

const fn format_of(scalar: Scalar) -> Format {
    match scalar {
        Scalar::S => Format::S,
        Scalar::D => Format::D,
    }
}

/// `cvt.s.d`
///
/// # Errors
/// Coprocessor 1 unusable, reserved instruction, floating point.
#[inline(never)]
pub fn cvt_s_d(cpu: &mut Vcpu, insn: Insn) -> Done {
    check(cpu, Format::D, &[insn.a])?;
    let fs = cpu.fpr64(insn.a);
    let result = fpu::cvt_s_d(fs, &mut cpu.fcsr);
    put(cpu, Format::S, insn.c, result)
}

/// `cvt.d.s`
///
/// # Errors
/// Coprocessor 1 unusable, reserved instruction, floating point.
#[inline(never)]
pub fn cvt_d_s(cpu: &mut Vcpu, insn: Insn) -> Done {
    check(cpu, Format::D, &[insn.c])?;
    let fs = cpu.fpr32(insn.a);
    let result = fpu::cvt_d_s(fs, &mut cpu.fcsr);
    put(cpu, Format::D, insn.c, result)
}

/// `cvt.s.pu`, `cvt.s.pl`
fn cvt_s_p(cpu: &mut Vcpu, insn: Insn, upper: bool) -> Done {
    check_wide(cpu, Format::Ps)?;
    let value = fpu::cvt_s_p(upper, cpu.fpr64(insn.a), &mut cpu.fcsr);
    cpu.set_fpr32(insn.c, value);
    Ok(())
}

/// `cvt.ps.pw`: in the W format, so unusable comes before reserved.
fn cvt_ps_pw(cpu: &mut Vcpu, insn: Insn) -> Done {
    check_wide(cpu, Format::S)?;
    let fs = cpu.fpr64(insn.a);
    let result = fpu::cvt_ps_pw(fs, &mut cpu.fcsr);
    put(cpu, Format::Ps, insn.c, result)
}

/// `cvt.pw.ps`
fn cvt_pw_ps(cpu: &mut Vcpu, insn: Insn) -> Done {
    check_wide(cpu, Format::Ps)?;
    let fs = cpu.fpr64(insn.a);
    let result = fpu::cvt_pw_ps(fs, &mut cpu.fcsr);
    put(cpu, Format::Ps, insn.c, result)
}

/// `cvt.ps.s`
fn cvt_ps_s(cpu: &mut Vcpu, insn: Insn) -> Done {
    check_wide(cpu, Format::S)?;
    let value = fpu::pair(cpu.fpr32(insn.a), cpu.fpr32(insn.b));
    cpu.set_fpr64(insn.c, value);
    Ok(())
}

/// `pll`, `plu`, `pul`, `puu`: a half of `fs` and a half of `ft`.
fn pack(cpu: &mut Vcpu, insn: Insn) -> Done {
    check_wide(cpu, Format::Ps)?;
    let half = |value, bit| if insn.imm & bit != 0 { fpu::high(value) } else { fpu::low(value) };
    let value = fpu::pair(half(cpu.fpr64(insn.a), 2), half(cpu.fpr64(insn.b), 1));
    cpu.set_fpr64(insn.c, value);
    Ok(())
}

/// `alnv.ps`: eight bytes out of two registers, from the offset in a general one: 0 or 4, others are
/// UNPREDICTABLE (here, as in QEMU: no effect).
fn alnv_ps<C: Context>(cx: &mut C, insn: Insn) -> Done {
    let cpu = cx.cpu();
    cpu.need_fpu()?;
    check_wide(cpu, Format::Ps)?;
    let (fs, ft) = (cpu.fpr64(insn.a), cpu.fpr64(insn.b));
    let value = match (cpu.reg(insn.fr()) & 7, cpu.endian) {
        (0, _) => fs,
        (4, crate::endian::Endian::Big) => fpu::pair(fpu::low(fs), fpu::high(ft)),
        (4, crate::endian::Endian::Little) => fpu::pair(fpu::low(ft), fpu::high(fs)),
        _ => return Ok(()),
    };
    cpu.set_fpr64(insn.c, value);
    Ok(())
}

/// Instructions that engines call by themselves, because guests execute them often: each for itself
/// costs a third less than through [`execute`].
macro_rules! frequent {
    ($($(#[$doc:meta])* $name:ident = $function:ident($($argument:expr),*);)*) => { $(
        $(#[$doc])*
        ///
        /// # Errors
        /// Coprocessor 1 unusable, reserved instruction, floating point.
        #[inline(never)]
        pub fn $name(cpu: &mut Vcpu, insn: Insn) -> Done {
            $function(cpu, insn, $($argument),*)
        }
    )* };
}

frequent! {
    /// `add.s`
    add_s = binary(Binary::Add, Format::S);
    /// `add.d`
    add_d = binary(Binary::Add, Format::D);
    /// `sub.s`
    sub_s = binary(Binary::Sub, Format::S);
    /// `sub.d`
    sub_d = binary(Binary::Sub, Format::D);
    /// `mul.s`
    mul_s = binary(Binary::Mul, Format::S);
    /// `mul.d`
    mul_d = binary(Binary::Mul, Format::D);
    /// `div.s`
    div_s = binary(Binary::Div, Format::S);
    /// `div.d`
    div_d = binary(Binary::Div, Format::D);
    /// `mov.s`
    mov_s = plain(Format::S, identity);
    /// `mov.d`
    mov_d = plain(Format::D, identity);
    /// `c.cond`
    cmp = compare(false);
    /// `cvt.d.w`
    cvt_d_w = from_integer(Integer::W, Scalar::D);
    /// `cvt.w.d`, `trunc.w.d` …
    to_w_d = to_integer(Scalar::D, Integer::W);
}

/// Any floating-point instruction but branches.
///
/// # Errors
/// Coprocessor 1 unusable, reserved instruction, floating point, and what a load or store causes.
pub fn execute<C: Context>(cx: &mut C, insn: Insn) -> Done {
    use Format::{D, Ps, S};
    let cpu = cx.cpu();
    match insn.op {
        Op::Lwc1 => lwc1(cx, insn),
        Op::Ldc1 => ldc1(cx, insn),
        Op::Swc1 => swc1(cx, insn),
        Op::Sdc1 => sdc1(cx, insn),
        Op::Lwxc1 | Op::Ldxc1 | Op::Luxc1 | Op::Swxc1 | Op::Sdxc1 | Op::Suxc1 => indexed(cx, insn),
        Op::Mfc1 => mfc1(cpu, insn),
        Op::Dmfc1 => dmfc1(cpu, insn),
        Op::Mfhc1 => mfhc1(cpu, insn),
        Op::Cfc1 => cfc1(cpu, insn),
        Op::Mtc1 => mtc1(cpu, insn),
        Op::Dmtc1 => dmtc1(cpu, insn),
        Op::Mthc1 => mthc1(cpu, insn),
        Op::Ctc1 => ctc1(cpu, insn),
        Op::Movf => move_general(cpu, insn, false),
        Op::Movt => move_general(cpu, insn, true),
        Op::Prefx => cpu.need_fpu(),
        Op::AddS => add_s(cpu, insn),
        Op::AddD => add_d(cpu, insn),
        Op::AddPs => binary(cpu, insn, Binary::Add, Ps),
        Op::SubS => sub_s(cpu, insn),
        Op::SubD => sub_d(cpu, insn),
        Op::SubPs => binary(cpu, insn, Binary::Sub, Ps),
        Op::MulS => mul_s(cpu, insn),
        Op::MulD => mul_d(cpu, insn),
        Op::MulPs => binary(cpu, insn, Binary::Mul, Ps),
        Op::DivS => div_s(cpu, insn),
        Op::DivD => div_d(cpu, insn),
        Op::SqrtS => unary(cpu, insn, Unary::Sqrt, S),
        Op::SqrtD => unary(cpu, insn, Unary::Sqrt, D),
        Op::RecipS => unary(cpu, insn, Unary::Recip, S),
        Op::RecipD => unary(cpu, insn, Unary::Recip, D),
        Op::RsqrtS => unary(cpu, insn, Unary::Rsqrt, S),
        Op::RsqrtD => unary(cpu, insn, Unary::Rsqrt, D),
        Op::AbsS => plain(cpu, insn, S, fpu::abs),
        Op::AbsD => plain(cpu, insn, D, fpu::abs),
        Op::AbsPs => plain(cpu, insn, Ps, fpu::abs),
        Op::NegS => plain(cpu, insn, S, fpu::neg),
        Op::NegD => plain(cpu, insn, D, fpu::neg),
        Op::NegPs => plain(cpu, insn, Ps, fpu::neg),
        Op::MovS => mov_s(cpu, insn),
        Op::MovD => mov_d(cpu, insn),
        Op::MovPs => plain(cpu, insn, Ps, identity),
        Op::Recip1S => unary_wide(cpu, insn, Unary::Recip, S),
        Op::Recip1D => unary_wide(cpu, insn, Unary::Recip, D),
        Op::Recip1Ps => unary_wide(cpu, insn, Unary::Recip, Ps),
        Op::Rsqrt1S => unary_wide(cpu, insn, Unary::Rsqrt, S),
        Op::Rsqrt1D => unary_wide(cpu, insn, Unary::Rsqrt, D),
        Op::Rsqrt1Ps => unary_wide(cpu, insn, Unary::Rsqrt, Ps),
        Op::Recip2S => binary_wide(cpu, insn, Binary::Recip2, S),
        Op::Recip2D => binary_wide(cpu, insn, Binary::Recip2, D),
        Op::Recip2Ps => binary_wide(cpu, insn, Binary::Recip2, Ps),
        Op::Rsqrt2S => binary_wide(cpu, insn, Binary::Rsqrt2, S),
        Op::Rsqrt2D => binary_wide(cpu, insn, Binary::Rsqrt2, D),
        Op::Rsqrt2Ps => binary_wide(cpu, insn, Binary::Rsqrt2, Ps),
        Op::ToWS => to_integer(cpu, insn, Scalar::S, Integer::W),
        Op::ToWD => to_w_d(cpu, insn),
        Op::ToLS => to_integer(cpu, insn, Scalar::S, Integer::L),
        Op::ToLD => to_integer(cpu, insn, Scalar::D, Integer::L),
        Op::CvtSW => from_integer(cpu, insn, Integer::W, Scalar::S),
        Op::CvtSL => from_integer(cpu, insn, Integer::L, Scalar::S),
        Op::CvtDW => cvt_d_w(cpu, insn),
        Op::CvtDL => from_integer(cpu, insn, Integer::L, Scalar::D),
        Op::CvtSD => cvt_s_d(cpu, insn),
        Op::CvtDS => cvt_d_s(cpu, insn),
        Op::CvtPsS => cvt_ps_s(cpu, insn),
        Op::CvtSPu => cvt_s_p(cpu, insn, true),
        Op::CvtSPl => cvt_s_p(cpu, insn, false),
        Op::CvtPsPw => cvt_ps_pw(cpu, insn),
        Op::CvtPwPs => cvt_pw_ps(cpu, insn),
        Op::PackPs => pack(cpu, insn),
        Op::AddrPs => reduce(cpu, insn, Reduce::Add),
        Op::MulrPs => reduce(cpu, insn, Reduce::Mul),
        Op::AlnvPs => alnv_ps(cx, insn),
        Op::Movcf => move_on_condition(cpu, insn),
        Op::MovzF => move_on_register(cpu, insn, true),
        Op::MovnF => move_on_register(cpu, insn, false),
        Op::Cmp => cmp(cpu, insn),
        Op::Cabs => compare(cpu, insn, true),
        Op::MaddF => mul_add(cpu, insn, MulAdd::Madd),
        Op::MsubF => mul_add(cpu, insn, MulAdd::Msub),
        Op::NmaddF => mul_add(cpu, insn, MulAdd::Nmadd),
        Op::NmsubF => mul_add(cpu, insn, MulAdd::Nmsub),
        _ => Err(cpu.trap(Exception::Plain(ExcCode::Ri))),
    }
}
