//! The floating-point register file. With Status.FR = 0 it is sixteen pairs: a 64-bit value lies in
//! an even register (low half) and the odd one above it (high half).

use super::status::Status;
use super::{ExcCode, Exception, Trap, Vcpu};
use crate::isa::Reg;

const LOW: u64 = 0xffff_ffff;

impl Vcpu {
    /// Status.FR: all 32 registers are 64 bits wide.
    #[must_use]
    pub fn wide_registers(&self) -> bool {
        self.cp0.status.contains(Status::FR)
    }

    /// The coprocessor may be used.
    ///
    /// # Errors
    /// Coprocessor 1 unusable.
    #[inline]
    pub fn need_fpu(&mut self) -> Result<(), Trap> {
        if self.cp0.status.contains(Status::CU1) {
            Ok(())
        } else {
            Err(self.trap(Exception::CopUnusable(1)))
        }
    }

    /// 64-bit registers are there: for what exists with them only.
    ///
    /// # Errors
    /// Reserved instruction.
    pub fn need_wide_registers(&mut self) -> Result<(), Trap> {
        if self.wide_registers() { Ok(()) } else { Err(self.trap(Exception::Plain(ExcCode::Ri))) }
    }

    /// All of these may hold 64 bits: with pairs, none is odd.
    ///
    /// # Errors
    /// Reserved instruction.
    pub fn need_even(&mut self, registers: &[Reg]) -> Result<(), Trap> {
        let odd = registers.iter().fold(0, |odd, r| odd | r.index()) & 1 != 0;
        if odd { self.need_wide_registers() } else { Ok(()) }
    }

    /// The low 32 bits of a register.
    #[must_use]
    pub fn fpr32(&self, reg: Reg) -> u64 {
        self.fpr[reg.index() & 31] & LOW
    }

    /// Sets the low 32 bits of a register; its upper half stays.
    pub fn set_fpr32(&mut self, reg: Reg, value: u64) {
        let register = &mut self.fpr[reg.index() & 31];
        *register = *register & !LOW | value & LOW;
    }

    /// The high 32 bits of a 64-bit value.
    #[must_use]
    pub fn fpr32_high(&self, reg: Reg) -> u64 {
        if self.wide_registers() {
            self.fpr[reg.index() & 31] >> 32
        } else {
            self.fpr[reg.index() & 31 | 1] & LOW
        }
    }

    /// Sets the high 32 bits of a 64-bit value.
    pub fn set_fpr32_high(&mut self, reg: Reg, value: u64) {
        if self.wide_registers() {
            let register = &mut self.fpr[reg.index() & 31];
            *register = *register & LOW | value << 32;
        } else {
            let register = &mut self.fpr[reg.index() & 31 | 1];
            *register = *register & !LOW | value & LOW;
        }
    }

    /// A 64-bit value.
    #[must_use]
    pub fn fpr64(&self, reg: Reg) -> u64 {
        if self.wide_registers() {
            self.fpr[reg.index() & 31]
        } else {
            let even = reg.index() & 30;
            self.fpr[even] & LOW | self.fpr[even | 1] << 32
        }
    }

    /// Sets a 64-bit value.
    pub fn set_fpr64(&mut self, reg: Reg, value: u64) {
        if self.wide_registers() {
            self.fpr[reg.index() & 31] = value;
        } else {
            let even = reg.index() & 30;
            self.fpr[even] = self.fpr[even] & !LOW | value & LOW;
            self.fpr[even | 1] = self.fpr[even | 1] & !LOW | value >> 32;
        }
    }
}
