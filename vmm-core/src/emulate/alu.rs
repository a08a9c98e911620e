//! Arithmetic and logic on general registers.

use super::word;
use crate::cpu::{ExcCode, Exception, Trap, Vcpu};
use crate::isa::Insn;

/// `rd ← f(rs, rt)`
macro_rules! binary {
    ($($name:ident |$a:ident, $b:ident| $value:expr;)*) => { $(
        #[doc = concat!("`", stringify!($name), "`")]
        #[inline(always)]
        pub fn $name(cpu: &mut Vcpu, insn: Insn) {
            let ($a, $b) = (cpu.a(insn), cpu.b(insn));
            cpu.set_reg(insn.c, $value);
        }
    )* };
}

/// `rt ← f(rs, constant)`
macro_rules! immediate {
    ($($name:ident |$a:ident, $imm:ident| $value:expr;)*) => { $(
        #[doc = concat!("`", stringify!($name), "`")]
        #[inline(always)]
        pub fn $name(cpu: &mut Vcpu, insn: Insn) {
            let ($a, $imm) = (cpu.a(insn), insn.simm());
            cpu.set_reg(insn.c, $value);
        }
    )* };
}

/// `rd ← f(rt, amount)`
macro_rules! shift {
    ($($name:ident |$b:ident, $amount:ident| $value:expr;)*) => { $(
        #[doc = concat!("`", stringify!($name), "`")]
        #[inline(always)]
        pub fn $name(cpu: &mut Vcpu, insn: Insn) {
            let ($b, $amount) = (cpu.b(insn), insn.imm as u32 & 63);
            cpu.set_reg(insn.c, $value);
        }
    )* };
}

/// `rd ← f(rs)`, or of `rt` in the shuffles.
macro_rules! unary {
    ($($name:ident $field:ident |$a:ident| $value:expr;)*) => { $(
        #[doc = concat!("`", stringify!($name), "`")]
        #[inline(always)]
        pub fn $name(cpu: &mut Vcpu, insn: Insn) {
            let $a = cpu.$field(insn);
            cpu.set_reg(insn.c, $value);
        }
    )* };
}

binary! {
    addu |a, b| word(a.wrapping_add(b));
    subu |a, b| word(a.wrapping_sub(b));
    daddu |a, b| a.wrapping_add(b);
    dsubu |a, b| a.wrapping_sub(b);
    and |a, b| a & b;
    or |a, b| a | b;
    xor |a, b| a ^ b;
    nor |a, b| !(a | b);
    slt |a, b| u64::from((a as i64) < b as i64);
    sltu |a, b| u64::from(a < b);
    sllv |a, b| word(u64::from((b as u32) << (a & 31)));
    srlv |a, b| word(u64::from(b as u32 >> (a & 31)));
    rotrv |a, b| word(u64::from((b as u32).rotate_right(a as u32 & 31)));
    srav |a, b| (b as i64 >> (a & 31)) as u64;
    dsllv |a, b| b << (a & 63);
    dsrlv |a, b| b >> (a & 63);
    drotrv |a, b| b.rotate_right(a as u32 & 63);
    dsrav |a, b| (b as i64 >> (a & 63)) as u64;
    mul |a, b| word(u64::from((a as u32).wrapping_mul(b as u32)));
}

immediate! {
    addiu |a, imm| word(a.wrapping_add(imm));
    daddiu |a, imm| a.wrapping_add(imm);
    slti |a, imm| u64::from((a as i64) < imm as i64);
    sltiu |a, imm| u64::from(a < imm);
    andi |a, imm| a & imm;
    ori |a, imm| a | imm;
    xori |a, imm| a ^ imm;
}

shift! {
    sll |b, amount| word(u64::from((b as u32) << (amount & 31)));
    srl |b, amount| word(u64::from(b as u32 >> (amount & 31)));
    rotr |b, amount| word(u64::from((b as u32).rotate_right(amount & 31)));
    // On the whole register: the same for a sign-extended value.
    sra |b, amount| (b as i64 >> (amount & 31)) as u64;
    dsll |b, amount| b << amount;
    dsrl |b, amount| b >> amount;
    drotr |b, amount| b.rotate_right(amount);
    dsra |b, amount| (b as i64 >> amount) as u64;
}

unary! {
    clz a |a| u64::from((a as u32).leading_zeros());
    clo a |a| u64::from((a as u32).leading_ones());
    dclz a |a| u64::from(a.leading_zeros());
    dclo a |a| u64::from(a.leading_ones());
    seb b |a| a as i8 as u64;
    seh b |a| a as i16 as u64;
    wsbh b |a| word((a & 0x00ff_00ff) << 8 | a >> 8 & 0x00ff_00ff);
    dsbh b |a| (a & 0x00ff_00ff_00ff_00ff) << 8 | a >> 8 & 0x00ff_00ff_00ff_00ff;
    dshd b |a| {
        let pairs = (a & 0x0000_ffff_0000_ffff) << 16 | a >> 16 & 0x0000_ffff_0000_ffff;
        pairs.rotate_left(32)
    };
}

/// A constant: `lui`, and `addiu` and `ori` of `$zero`.
#[inline(always)]
pub fn li(cpu: &mut Vcpu, insn: Insn) {
    cpu.set_reg(insn.c, insn.simm());
}

/// A copy: `or` with `$zero`.
#[inline(always)]
pub fn mov(cpu: &mut Vcpu, insn: Insn) {
    let value = cpu.a(insn);
    cpu.set_reg(insn.c, value);
}

/// `movz`
#[inline(always)]
pub fn movz(cpu: &mut Vcpu, insn: Insn) {
    if cpu.b(insn) == 0 {
        mov(cpu, insn);
    }
}

/// `movn`
#[inline(always)]
pub fn movn(cpu: &mut Vcpu, insn: Insn) {
    if cpu.b(insn) != 0 {
        mov(cpu, insn);
    }
}

/// The sum if it has the sign it should have.
fn checked(cpu: &mut Vcpu, insn: Insn, result: u64, wrong_sign: u64) -> Result<(), Trap> {
    if (wrong_sign as i64) < 0 {
        return Err(cpu.trap(Exception::Plain(ExcCode::Ov)));
    }
    cpu.set_reg(insn.c, result);
    Ok(())
}

/// Bit 63 tells that `sum` of `a` and `b` has overflowed.
const fn add_overflow(a: u64, b: u64, sum: u64) -> u64 {
    (sum ^ b) & !(a ^ b)
}

const fn sub_overflow(a: u64, b: u64, difference: u64) -> u64 {
    (difference ^ a) & (a ^ b)
}

/// `add`
///
/// # Errors
/// Integer overflow.
pub fn add(cpu: &mut Vcpu, insn: Insn) -> Result<(), Trap> {
    let (a, b) = (cpu.a(insn), cpu.b(insn));
    let sum = word(a.wrapping_add(b));
    checked(cpu, insn, sum, add_overflow(a, b, sum))
}

/// `sub`
///
/// # Errors
/// Integer overflow.
pub fn sub(cpu: &mut Vcpu, insn: Insn) -> Result<(), Trap> {
    let (a, b) = (cpu.a(insn), cpu.b(insn));
    let difference = word(a.wrapping_sub(b));
    checked(cpu, insn, difference, sub_overflow(a, b, difference))
}

/// `addi`
///
/// # Errors
/// Integer overflow.
pub fn addi(cpu: &mut Vcpu, insn: Insn) -> Result<(), Trap> {
    let (a, b) = (cpu.a(insn), insn.simm());
    let sum = word(a.wrapping_add(b));
    checked(cpu, insn, sum, add_overflow(a, b, sum))
}

/// `dadd`
///
/// # Errors
/// Integer overflow.
pub fn dadd(cpu: &mut Vcpu, insn: Insn) -> Result<(), Trap> {
    let (a, b) = (cpu.a(insn), cpu.b(insn));
    let sum = a.wrapping_add(b);
    checked(cpu, insn, sum, add_overflow(a, b, sum))
}

/// `dsub`
///
/// # Errors
/// Integer overflow.
pub fn dsub(cpu: &mut Vcpu, insn: Insn) -> Result<(), Trap> {
    let (a, b) = (cpu.a(insn), cpu.b(insn));
    let difference = a.wrapping_sub(b);
    checked(cpu, insn, difference, sub_overflow(a, b, difference))
}

/// `daddi`
///
/// # Errors
/// Integer overflow.
pub fn daddi(cpu: &mut Vcpu, insn: Insn) -> Result<(), Trap> {
    let (a, b) = (cpu.a(insn), insn.simm());
    let sum = a.wrapping_add(b);
    checked(cpu, insn, sum, add_overflow(a, b, sum))
}

/// Ones in the low `width` bits, 1 to 64.
const fn ones(width: u32) -> u64 {
    !0 >> (64 - width)
}

/// `ext`
pub fn ext(cpu: &mut Vcpu, insn: Insn) {
    let field = cpu.a(insn) >> insn.position() & ones(insn.width());
    // Only a full 32 bits can reach the sign.
    cpu.set_reg(insn.c, word(field));
}

/// `dext`, `dextm`, `dextu`
pub fn dext(cpu: &mut Vcpu, insn: Insn) {
    let field = cpu.a(insn) >> insn.position() & ones(insn.width());
    cpu.set_reg(insn.c, field);
}

fn inserted(cpu: &Vcpu, insn: Insn) -> u64 {
    let mask = ones(insn.width()) << insn.position();
    cpu.b(insn) & !mask | cpu.a(insn) << insn.position() & mask
}

/// `ins`
pub fn ins(cpu: &mut Vcpu, insn: Insn) {
    let value = word(inserted(cpu, insn));
    cpu.set_reg(insn.c, value);
}

/// `dins`, `dinsm`, `dinsu`
pub fn dins(cpu: &mut Vcpu, insn: Insn) {
    let value = inserted(cpu, insn);
    cpu.set_reg(insn.c, value);
}

/// `mfhi`
pub fn mfhi(cpu: &mut Vcpu, insn: Insn) {
    cpu.set_reg(insn.c, cpu.hi);
}

/// `mflo`
pub fn mflo(cpu: &mut Vcpu, insn: Insn) {
    cpu.set_reg(insn.c, cpu.lo);
}

/// `mthi`
pub fn mthi(cpu: &mut Vcpu, insn: Insn) {
    cpu.hi = cpu.a(insn);
}

/// `mtlo`
pub fn mtlo(cpu: &mut Vcpu, insn: Insn) {
    cpu.lo = cpu.a(insn);
}

fn set_hi_lo_words(cpu: &mut Vcpu, product: u64) {
    cpu.hi = word(product >> 32);
    cpu.lo = word(product);
}

fn signed_product(cpu: &Vcpu, insn: Insn) -> u64 {
    (i64::from(cpu.a(insn) as i32) * i64::from(cpu.b(insn) as i32)) as u64
}

fn unsigned_product(cpu: &Vcpu, insn: Insn) -> u64 {
    u64::from(cpu.a(insn) as u32) * u64::from(cpu.b(insn) as u32)
}

fn accumulator(cpu: &Vcpu) -> u64 {
    cpu.hi << 32 | cpu.lo & 0xffff_ffff
}

/// `mult`
pub fn mult(cpu: &mut Vcpu, insn: Insn) {
    set_hi_lo_words(cpu, signed_product(cpu, insn));
}

/// `multu`
pub fn multu(cpu: &mut Vcpu, insn: Insn) {
    set_hi_lo_words(cpu, unsigned_product(cpu, insn));
}

/// `madd`
pub fn madd(cpu: &mut Vcpu, insn: Insn) {
    set_hi_lo_words(cpu, accumulator(cpu).wrapping_add(signed_product(cpu, insn)));
}

/// `maddu`
pub fn maddu(cpu: &mut Vcpu, insn: Insn) {
    set_hi_lo_words(cpu, accumulator(cpu).wrapping_add(unsigned_product(cpu, insn)));
}

/// `msub`
pub fn msub(cpu: &mut Vcpu, insn: Insn) {
    set_hi_lo_words(cpu, accumulator(cpu).wrapping_sub(signed_product(cpu, insn)));
}

/// `msubu`
pub fn msubu(cpu: &mut Vcpu, insn: Insn) {
    set_hi_lo_words(cpu, accumulator(cpu).wrapping_sub(unsigned_product(cpu, insn)));
}

/// `dmult`
pub fn dmult(cpu: &mut Vcpu, insn: Insn) {
    let product = i128::from(cpu.a(insn) as i64) * i128::from(cpu.b(insn) as i64);
    (cpu.hi, cpu.lo) = ((product >> 64) as u64, product as u64);
}

/// `dmultu`
pub fn dmultu(cpu: &mut Vcpu, insn: Insn) {
    let product = u128::from(cpu.a(insn)) * u128::from(cpu.b(insn));
    (cpu.hi, cpu.lo) = ((product >> 64) as u64, product as u64);
}

// Division by zero, and the one quotient that does not fit, are UNPREDICTABLE. In QEMU the divisor
// is then 1.

/// `div`
pub fn div(cpu: &mut Vcpu, insn: Insn) {
    let (a, b) = (cpu.a(insn) as i32, cpu.b(insn) as i32);
    let (quotient, remainder) = (a.checked_div(b).unwrap_or(a), a.checked_rem(b).unwrap_or(0));
    (cpu.hi, cpu.lo) = (remainder as u64, quotient as u64);
}

/// `divu`
pub fn divu(cpu: &mut Vcpu, insn: Insn) {
    let (a, b) = (cpu.a(insn) as u32, cpu.b(insn) as u32);
    let (quotient, remainder) = (a.checked_div(b).unwrap_or(a), a.checked_rem(b).unwrap_or(0));
    (cpu.hi, cpu.lo) = (word(remainder.into()), word(quotient.into()));
}

/// `ddiv`
pub fn ddiv(cpu: &mut Vcpu, insn: Insn) {
    let (a, b) = (cpu.a(insn) as i64, cpu.b(insn) as i64);
    let (quotient, remainder) = (a.checked_div(b).unwrap_or(a), a.checked_rem(b).unwrap_or(0));
    (cpu.hi, cpu.lo) = (remainder as u64, quotient as u64);
}

/// `ddivu`
pub fn ddivu(cpu: &mut Vcpu, insn: Insn) {
    let (a, b) = (cpu.a(insn), cpu.b(insn));
    cpu.lo = a.checked_div(b).unwrap_or(a);
    cpu.hi = a.checked_rem(b).unwrap_or(0);
}
