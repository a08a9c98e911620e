//! Loads and stores of general registers.

use super::{Context, Data, Exchange, Memory, word};
use crate::cpu::{ExcCode, Exception, Link, Trap};
use crate::endian::Endian;
use crate::isa::{Insn, Op};

/// The effective address. Without an offset there is no sum to wrap, in QEMU.
#[inline(always)]
pub(super) fn address<C: Memory>(cx: &mut C, insn: Insn) -> u64 {
    let (base, offset) = (cx.cpu().a(insn), insn.simm());
    if C::WRAPS && offset == 0 { base } else { cx.sum(base, offset) }
}

macro_rules! loads {
    ($($name:ident $t:ty, |$v:ident| $value:expr;)*) => { $(
        #[doc = concat!("`", stringify!($name), "`")]
        ///
        /// # Errors
        /// What the load causes.
        #[inline(always)]
        pub fn $name<C: Memory>(cx: &mut C, insn: Insn) -> Result<(), Trap> {
            let va = address(cx, insn);
            let $v = cx.load::<$t>(va)?;
            cx.cpu().set_reg(insn.c, $value);
            Ok(())
        }
    )* };
}

macro_rules! stores {
    ($($name:ident $t:ty;)*) => { $(
        #[doc = concat!("`", stringify!($name), "`")]
        ///
        /// # Errors
        /// What the store causes.
        #[inline(always)]
        pub fn $name<C: Memory>(cx: &mut C, insn: Insn) -> Result<(), Trap> {
            let va = address(cx, insn);
            let value = cx.cpu().b(insn);
            cx.store(va, <$t>::from_register(value))
        }
    )* };
}

loads! {
    lb u8, |v| v as i8 as u64;
    lbu u8, |v| v.into();
    lh u16, |v| v as i16 as u64;
    lhu u16, |v| v.into();
    lw u32, |v| word(v.into());
    lwu u32, |v| v.into();
    ld u64, |v| v;
}

stores! {
    sb u8;
    sh u16;
    sw u32;
    sd u64;
}

/// The aligned unit around `va`; a fault names `va` itself.
fn load_around<C: Memory, T: Data>(cx: &mut C, va: u64) -> Result<u64, Trap> {
    match cx.load::<T>(va & !(T::SIZE - 1)) {
        Ok(value) => Ok(value.zero_extend()),
        Err(Trap) => {
            match &mut cx.cpu().pending {
                Exception::Address(at, _)
                | Exception::Refill(at, _)
                | Exception::Invalid(at, _)
                | Exception::Modified(at) => *at = va,
                _ => {}
            }
            Err(Trap)
        }
    }
}

/// Bits that a "left" access of `size` bytes at `va` leaves alone at the low end of the register.
fn left_shift<C: Memory>(cx: &mut C, va: u64, size: u64) -> u64 {
    let byte = match cx.cpu().endian {
        Endian::Big => va,
        Endian::Little => !va,
    };
    (byte & (size - 1)) * 8
}

/// Bits that a "right" access leaves alone at the high end.
fn right_shift<C: Memory>(cx: &mut C, va: u64, size: u64) -> u64 {
    (size - 1) * 8 - left_shift(cx, va, size)
}

/// `lwl`
///
/// # Errors
/// What the load causes.
pub fn lwl<C: Memory>(cx: &mut C, insn: Insn) -> Result<(), Trap> {
    let va = address(cx, insn);
    let memory = load_around::<C, u32>(cx, va)?;
    let shift = left_shift(cx, va, 4);
    let cpu = cx.cpu();
    let kept = cpu.b(insn) & ((1 << shift) - 1);
    cpu.set_reg(insn.c, word(memory << shift | kept));
    Ok(())
}

/// `lwr`
///
/// # Errors
/// What the load causes.
pub fn lwr<C: Memory>(cx: &mut C, insn: Insn) -> Result<(), Trap> {
    let va = address(cx, insn);
    let memory = load_around::<C, u32>(cx, va)?;
    let shift = right_shift(cx, va, 4);
    let cpu = cx.cpu();
    let kept = cpu.b(insn) & !(0xffff_ffff >> shift);
    cpu.set_reg(insn.c, word(memory >> shift | kept));
    Ok(())
}

/// `ldl`
///
/// # Errors
/// What the load causes.
pub fn ldl<C: Memory>(cx: &mut C, insn: Insn) -> Result<(), Trap> {
    let va = address(cx, insn);
    let memory = load_around::<C, u64>(cx, va)?;
    let shift = left_shift(cx, va, 8);
    let cpu = cx.cpu();
    let kept = cpu.b(insn) & ((1 << shift) - 1);
    cpu.set_reg(insn.c, memory << shift | kept);
    Ok(())
}

/// `ldr`
///
/// # Errors
/// What the load causes.
pub fn ldr<C: Memory>(cx: &mut C, insn: Insn) -> Result<(), Trap> {
    let va = address(cx, insn);
    let memory = load_around::<C, u64>(cx, va)?;
    let shift = right_shift(cx, va, 8);
    let cpu = cx.cpu();
    let kept = cpu.b(insn) & !(!0 >> shift);
    cpu.set_reg(insn.c, memory >> shift | kept);
    Ok(())
}

/// Bytes from the register's high end (`left`) or low end to `va` and on from there, towards the
/// register's other end, as far as the aligned unit goes. Byte by byte, so that nothing else in the
/// unit is written; the first byte's fault is the only one possible.
fn store_partial<C: Memory>(cx: &mut C, insn: Insn, size: u64, left: bool) -> Result<(), Trap> {
    let va = address(cx, insn);
    let value = cx.cpu().b(insn);
    // Towards lower significance goes up in memory if big-endian.
    let upwards = (cx.cpu().endian == Endian::Big) == left;
    let offset = va & (size - 1);
    let count = if upwards { size - offset } else { offset + 1 };
    for n in 0..count {
        let at = if upwards { va.wrapping_add(n) } else { va.wrapping_sub(n) };
        let bits = if left { (size - 1 - n) * 8 } else { n * 8 };
        cx.store(at, (value >> bits) as u8)?;
    }
    Ok(())
}

/// `swl`
///
/// # Errors
/// What the store causes.
pub fn swl<C: Memory>(cx: &mut C, insn: Insn) -> Result<(), Trap> {
    store_partial(cx, insn, 4, true)
}

/// `swr`
///
/// # Errors
/// What the store causes.
pub fn swr<C: Memory>(cx: &mut C, insn: Insn) -> Result<(), Trap> {
    store_partial(cx, insn, 4, false)
}

/// `sdl`
///
/// # Errors
/// What the store causes.
pub fn sdl<C: Memory>(cx: &mut C, insn: Insn) -> Result<(), Trap> {
    store_partial(cx, insn, 8, true)
}

/// `sdr`
///
/// # Errors
/// What the store causes.
pub fn sdr<C: Memory>(cx: &mut C, insn: Insn) -> Result<(), Trap> {
    store_partial(cx, insn, 8, false)
}

fn load_linked<C: Context, T: Data>(cx: &mut C, insn: Insn) -> Result<u64, Trap> {
    let va = address(cx, insn);
    let value = cx.load::<T>(va)?.zero_extend();
    let physical = cx.physical(va)?;
    let cpu = cx.cpu();
    cpu.cp0.ll_addr = physical;
    cpu.link = Some(Link { va, value });
    Ok(value)
}

/// `ll`
///
/// # Errors
/// What the load causes.
pub fn ll<C: Context>(cx: &mut C, insn: Insn) -> Result<(), Trap> {
    let value = load_linked::<C, u32>(cx, insn)?;
    cx.cpu().set_reg(insn.c, word(value));
    Ok(())
}

/// `lld`
///
/// # Errors
/// What the load causes.
pub fn lld<C: Context>(cx: &mut C, insn: Insn) -> Result<(), Trap> {
    let value = load_linked::<C, u64>(cx, insn)?;
    cx.cpu().set_reg(insn.c, value);
    Ok(())
}

/// Succeeds if the link is whole and memory holds what LL saw. Without a link the store fails at
/// once, whatever its address.
fn store_conditional<C: Context, T: Exchange>(cx: &mut C, insn: Insn) -> Result<(), Trap> {
    let va = address(cx, insn);
    let cpu = cx.cpu();
    let new = T::from_register(cpu.b(insn));
    let success = match cpu.link {
        Some(link) if link.va == va => cx.exchange(va, T::from_register(link.value), new)?,
        _ => false,
    };
    let cpu = cx.cpu();
    cpu.link = None;
    cpu.set_reg(insn.c, success.into());
    Ok(())
}

/// `sc`
///
/// # Errors
/// What the store causes.
pub fn sc<C: Context>(cx: &mut C, insn: Insn) -> Result<(), Trap> {
    store_conditional::<C, u32>(cx, insn)
}

/// `scd`
///
/// # Errors
/// What the store causes.
pub fn scd<C: Context>(cx: &mut C, insn: Insn) -> Result<(), Trap> {
    store_conditional::<C, u64>(cx, insn)
}

/// Any load or store of general registers.
///
/// # Errors
/// What the access causes.
pub fn execute<C: Context>(cx: &mut C, insn: Insn) -> Result<(), Trap> {
    match insn.op {
        Op::Lb => lb(cx, insn),
        Op::Lbu => lbu(cx, insn),
        Op::Lh => lh(cx, insn),
        Op::Lhu => lhu(cx, insn),
        Op::Lw => lw(cx, insn),
        Op::Lwu => lwu(cx, insn),
        Op::Ld => ld(cx, insn),
        Op::Sb => sb(cx, insn),
        Op::Sh => sh(cx, insn),
        Op::Sw => sw(cx, insn),
        Op::Sd => sd(cx, insn),
        Op::Lwl => lwl(cx, insn),
        Op::Lwr => lwr(cx, insn),
        Op::Ldl => ldl(cx, insn),
        Op::Ldr => ldr(cx, insn),
        Op::Swl => swl(cx, insn),
        Op::Swr => swr(cx, insn),
        Op::Sdl => sdl(cx, insn),
        Op::Sdr => sdr(cx, insn),
        Op::Ll => ll(cx, insn),
        Op::Lld => lld(cx, insn),
        Op::Sc => sc(cx, insn),
        Op::Scd => scd(cx, insn),
        _ => Err(cx.cpu().trap(Exception::Plain(ExcCode::Ri))),
    }
}
