//! Moves: between registers on a condition, and between floating-point and general registers.

use super::{Done, check, read, write};
use crate::cpu::{ExcCode, Exception, Vcpu};
use crate::fpu::{Format, FpTrap};
use crate::isa::Insn;

/// `movf.fmt`, `movt.fmt`: each half of a pair by its own condition code.
pub(super) fn move_on_condition(cpu: &mut Vcpu, insn: Insn) -> Done {
    let format = insn.format();
    check(cpu, format, &[])?;
    let wanted = insn.imm & 1 != 0;
    if cpu.fcsr.condition(insn.cc()) == wanted {
        let value = read(cpu, format, insn.a);
        match format {
            Format::S | Format::D => write(cpu, format, insn.c, value),
            Format::Ps => cpu.set_fpr32(insn.c, value),
        }
    }
    if format == Format::Ps && cpu.fcsr.condition(insn.cc() + 1) == wanted {
        let value = cpu.fpr32_high(insn.a);
        cpu.set_fpr32_high(insn.c, value);
    }
    Ok(())
}

/// `movz.fmt`, `movn.fmt`
pub(super) fn move_on_register(cpu: &mut Vcpu, insn: Insn, zero: bool) -> Done {
    let format = insn.format();
    check(cpu, format, &[])?;
    if (cpu.b(insn) == 0) == zero {
        let value = read(cpu, format, insn.a);
        write(cpu, format, insn.c, value);
    }
    Ok(())
}

/// `movf`, `movt`: general registers.
pub(super) fn move_general(cpu: &mut Vcpu, insn: Insn, wanted: bool) -> Done {
    cpu.need_fpu()?;
    if cpu.fcsr.condition(insn.cc()) == wanted {
        let value = cpu.a(insn);
        cpu.set_reg(insn.c, value);
    }
    Ok(())
}

/// Moves to a general register.
macro_rules! moves_from {
    ($($name:ident |$cpu:ident, $insn:ident| $value:expr;)*) => { $(
        #[doc = concat!("`", stringify!($name), "`")]
        ///
        /// # Errors
        /// Coprocessor 1 unusable.
        #[inline(always)]
        pub fn $name($cpu: &mut Vcpu, $insn: Insn) -> Done {
            $cpu.need_fpu()?;
            let value = $value;
            $cpu.set_reg($insn.c, value);
            Ok(())
        }
    )* };
}

moves_from! {
    mfc1 |cpu, insn| cpu.fpr32(insn.a) as i32 as u64;
    dmfc1 |cpu, insn| cpu.fpr64(insn.a);
    mfhc1 |cpu, insn| cpu.fpr32_high(insn.a) as i32 as u64;
    cfc1 |cpu, insn| match insn.a.index() as u8 {
        0 => u64::from(cpu.model.fir),
        register => cpu.fcsr.read(register) as i32 as u64,
    };
}

/// Moves from a general register.
macro_rules! moves_to {
    ($($name:ident = $set:ident;)*) => { $(
        #[doc = concat!("`", stringify!($name), "`")]
        ///
        /// # Errors
        /// Coprocessor 1 unusable.
        #[inline(always)]
        pub fn $name(cpu: &mut Vcpu, insn: Insn) -> Done {
            cpu.need_fpu()?;
            let value = cpu.b(insn);
            cpu.$set(insn.a, value);
            Ok(())
        }
    )* };
}

moves_to! {
    mtc1 = set_fpr32;
    dmtc1 = set_fpr64;
    mthc1 = set_fpr32_high;
}

/// `ctc1`: the register takes the value even if that makes it trap.
pub(super) fn ctc1(cpu: &mut Vcpu, insn: Insn) -> Done {
    cpu.need_fpu()?;
    let value = cpu.b(insn) as u32;
    match cpu.fcsr.write(insn.a.index() as u8, value) {
        Ok(()) => Ok(()),
        Err(FpTrap) => Err(cpu.trap(Exception::Plain(ExcCode::Fpe))),
    }
}
