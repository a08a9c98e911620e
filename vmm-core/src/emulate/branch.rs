//! Conditions of branches, and links. Where control goes is the engine's business.

use crate::cpu::{Trap, Vcpu};
use crate::isa::{Insn, Reg};

/// What a branch tests.
macro_rules! condition {
    ($($name:ident |$a:ident| $value:expr;)*) => { $(
        #[doc = concat!("`", stringify!($name), "` and its relatives")]
        #[inline(always)]
        #[must_use]
        pub fn $name(cpu: &Vcpu, insn: Insn) -> bool {
            let $a = cpu.a(insn) as i64;
            $value
        }
    )* };
}

condition! {
    blez |a| a <= 0;
    bgtz |a| a > 0;
    bltz |a| a < 0;
    bgez |a| a >= 0;
}

/// `beq`, `beql`
#[inline(always)]
#[must_use]
pub fn beq(cpu: &Vcpu, insn: Insn) -> bool {
    cpu.a(insn) == cpu.b(insn)
}

/// `bne`, `bnel`
#[inline(always)]
#[must_use]
pub fn bne(cpu: &Vcpu, insn: Insn) -> bool {
    !beq(cpu, insn)
}

/// Target of a branch at `pc`.
#[inline(always)]
#[must_use]
pub const fn target(insn: Insn, pc: u64) -> u64 {
    pc.wrapping_add(4).wrapping_add(insn.simm())
}

/// Target of `j` or `jal` at `pc`: in the 256 MB of its delay slot.
#[inline(always)]
#[must_use]
pub const fn jump_target(insn: Insn, pc: u64) -> u64 {
    pc.wrapping_add(4) & !0x0fff_ffff | insn.imm as u64
}

/// Notes in `reg` where a call at `pc` returns to.
#[inline(always)]
pub fn link(cpu: &mut Vcpu, reg: Reg, pc: u64) {
    cpu.set_reg(reg, pc.wrapping_add(8));
}

/// The first `count` condition codes from the one that a floating-point branch names, as bits.
/// (A group is aligned in the manual; one that is not wraps around.)
///
/// # Errors
/// Coprocessor 1 unusable.
pub fn conditions(cpu: &mut Vcpu, insn: Insn, count: u8) -> Result<u8, Trap> {
    cpu.need_fpu()?;
    let first = insn.c.index() as u8;
    Ok((0..count).fold(0, |bits, n| bits | u8::from(cpu.fcsr.condition((first + n) & 7)) << n))
}
