//! Conditions of branches, and links. Where control goes is the engine's business.

use crate::cpu::{Trap, Vcpu};
use crate::isa::{Insn, Reg};

/// Opcodes of the jumps to addresses of their own.
const J: u32 = 0x02;
const JAL: u32 = 0x03;

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

/// Where the branch or jump `word` at `pc` leads, if it is one that says so itself.
///
/// (It has not been decoded: an immediate that is taken out of an [`Insn`] in a register is a sign extension that LLVM of before
/// August 2026 loses when it runs out of registers, [LLVM issue 213419](https://github.com/llvm/llvm-project/issues/213419).)
#[must_use]
pub const fn target_of(word: u32, pc: u64) -> u64 {
    let next = pc.wrapping_add(4);
    if matches!(word >> 26, J | JAL) {
        return next & !0x0fff_ffff | ((word & 0x03ff_ffff) as u64) << 2;
    }
    next.wrapping_add(((word as i16 as i64) << 2) as u64)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::direct::tests::random::Random;
    use crate::isa::{Op, decode};

    #[test]
    fn a_word_says_where_it_leads_as_its_instruction_does() {
        let mut random = Random(3);
        // beq, bne, blez, bgtz, bgez, beql, j, jal
        for opcode in [0x10u32, 0x14, 0x18, 0x1c, 0x401, 0x50, 0x08, 0x0c] {
            for _ in 0..200 {
                let (word, pc) = (random.next() as u32 & 0xffff, random.next() & !3);
                let high = if opcode == 0x401 { 0x0401_0000 } else { opcode << 24 };
                let insn = decode(high | word);
                // (What never branches is decoded as nothing.)
                let wanted = match insn.op {
                    Op::Nop => continue,
                    Op::J | Op::Jal => jump_target(insn, pc),
                    _ => target(insn, pc),
                };
                assert_eq!(target_of(high | word, pc), wanted, "{:#x}", high | word);
            }
        }
    }
}
