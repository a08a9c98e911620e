//! Loads and stores of floating-point registers.

use super::Done;
use crate::cpu::Trap;
use crate::emulate::{Context, Memory, loadstore};
use crate::isa::{Insn, Op, Reg};

/// The address of a load or store with an offset.
#[inline(always)]
fn address<C: Memory>(cx: &mut C, insn: Insn) -> Result<u64, Trap> {
    cx.cpu().need_fpu()?;
    Ok(loadstore::address(cx, insn))
}

/// `lwc1`
///
/// # Errors
/// Coprocessor 1 unusable, or what the load causes.
#[inline(always)]
pub fn lwc1<C: Memory>(cx: &mut C, insn: Insn) -> Done {
    let va = address(cx, insn)?;
    let value = cx.load::<u32>(va)?;
    cx.cpu().set_fpr32(insn.c, value.into());
    Ok(())
}

/// `ldc1`
///
/// # Errors
/// As [`lwc1`].
#[inline(always)]
pub fn ldc1<C: Memory>(cx: &mut C, insn: Insn) -> Done {
    let va = address(cx, insn)?;
    let value = cx.load::<u64>(va)?;
    cx.cpu().set_fpr64(insn.c, value);
    Ok(())
}

/// `swc1`
///
/// # Errors
/// Coprocessor 1 unusable, or what the store causes.
#[inline(always)]
pub fn swc1<C: Memory>(cx: &mut C, insn: Insn) -> Done {
    let va = address(cx, insn)?;
    let value = cx.cpu().fpr32(insn.c);
    cx.store(va, value as u32)
}

/// `sdc1`
///
/// # Errors
/// As [`swc1`].
#[inline(always)]
pub fn sdc1<C: Memory>(cx: &mut C, insn: Insn) -> Done {
    let va = address(cx, insn)?;
    let value = cx.cpu().fpr64(insn.c);
    cx.store(va, value)
}

/// The loads and stores with an index; `luxc1` and `suxc1` align the address.
pub(super) fn indexed<C: Context>(cx: &mut C, insn: Insn) -> Done {
    let cpu = cx.cpu();
    cpu.need_fpu()?;
    match insn.op {
        Op::Ldxc1 | Op::Sdxc1 => cpu.need_even(&[insn.c])?,
        Op::Luxc1 | Op::Suxc1 => cpu.need_wide_registers()?,
        _ => {}
    }
    let (base, index) = (cpu.a(insn), cpu.b(insn));
    // Where one of the two is `$zero` there is no sum either.
    let va = match (insn.a, insn.b) {
        (Reg::R0, _) => index,
        (_, Reg::R0) => base,
        _ => cx.sum(base, index),
    };
    match insn.op {
        Op::Lwxc1 => {
            let value = cx.load::<u32>(va)?;
            cx.cpu().set_fpr32(insn.c, value.into());
        }
        Op::Ldxc1 => {
            let value = cx.load::<u64>(va)?;
            cx.cpu().set_fpr64(insn.c, value);
        }
        Op::Luxc1 => {
            let value = cx.load::<u64>(va & !7)?;
            cx.cpu().set_fpr64(insn.c, value);
        }
        Op::Swxc1 => {
            let value = cx.cpu().fpr32(insn.c);
            cx.store(va, value as u32)?;
        }
        Op::Sdxc1 => {
            let value = cx.cpu().fpr64(insn.c);
            cx.store(va, value)?;
        }
        _ => {
            let value = cx.cpu().fpr64(insn.c);
            cx.store(va & !7, value)?;
        }
    }
    Ok(())
}
