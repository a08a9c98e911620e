//! What registers hold at a place in a block, as far as its own instructions tell.

use super::asm::{D, S, T, field};
use super::form::Guest;

/// `$sp`
const SP: usize = 29;

/// Registers' values: some are certain, whenever control comes to the place; others are what they would be if the block
/// were entered as it is when it is made.
#[derive(Clone, Copy, Debug)]
pub struct Values {
    values: [u64; 32],
    /// Registers of which there is a value, as bits.
    known: u32,
    /// Those of which it is certain.
    certain: u32,
    /// What `$sp` holds at the beginning.
    stack: u64,
}

impl Values {
    /// Where a block begins.
    #[must_use]
    pub const fn new(gpr: &[u64; 32]) -> Self {
        Self { values: *gpr, known: !0, certain: 1, stack: gpr[SP] }
    }

    /// What a register holds, for all that is known. (A stack stays where it is.)
    #[must_use]
    pub const fn base(&self, number: u32) -> Option<u64> {
        match self.guess(number) {
            None if number as usize == SP => Some(self.stack),
            guess => guess,
        }
    }

    /// What a register holds if what has been executed says so.
    #[must_use]
    pub const fn guess(&self, number: u32) -> Option<u64> {
        if self.known >> number & 1 == 0 {
            return None;
        }
        Some(self.values[number as usize])
    }

    /// What a register holds for certain.
    #[must_use]
    pub const fn certain(&self, number: u32) -> Option<u64> {
        if self.certain >> number & 1 == 0 {
            return None;
        }
        Some(self.values[number as usize])
    }

    /// Registers (bits) get values that nothing is known of.
    pub const fn forget(&mut self, registers: u32) {
        self.known &= !registers | 1;
        self.certain &= !registers | 1;
    }

    /// Any register may have been written.
    pub const fn doubt(&mut self) {
        self.certain = 1;
    }

    /// What the instruction `word` makes, if it is one of those that an address is made with.
    #[must_use]
    pub fn result(&self, word: u32) -> Option<Made> {
        let (rs, rt, rd) = (field(word, S), field(word, T), field(word, D));
        // (They say nothing where they are not known, and are not used then.)
        let (s, t) = (self.values[rs as usize], self.values[rt as usize]);
        let extended = i64::from(word as i16).cast_unsigned();
        let short = |value: u64| i64::from(value as i32).cast_unsigned();
        let (to, from, value) = match word >> 26 {
            // addiu, ori, lui, daddiu
            0x09 => (rt, 1 << rs, short(s.wrapping_add(extended))),
            0x0d => (rt, 1 << rs, s | u64::from(word as u16)),
            0x0f => (rt, 0, short(u64::from(word << 16))),
            0x19 => (rt, 1 << rs, s.wrapping_add(extended)),
            // addu, or, daddu
            0 => {
                let value = match word & 0x7ff {
                    0x21 => short(s.wrapping_add(t)),
                    0x25 => s | t,
                    0x2d => s.wrapping_add(t),
                    _ => return None,
                };
                (rd, 1 << rs | 1 << rt, value)
            }
            _ => return None,
        };
        let known = self.known & from == from && to != 0;
        known.then_some(Made { to, value, certain: self.certain & from == from })
    }

    /// The instruction `word` has been executed.
    pub fn execute(&mut self, word: u32) {
        let result = self.result(word);
        self.forget(Guest::of(word).writes());
        self.set(result);
    }

    /// An instruction has been executed that makes this, or (`None`) nothing that is known.
    pub fn set(&mut self, result: Option<Made>) {
        let Some(Made { to, value, certain }) = result else { return };
        self.values[to as usize] = value;
        self.known |= 1 << to;
        self.certain = self.certain & !(1 << to) | u32::from(certain) << to;
    }
}

/// What an instruction makes.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    to: u32,
    value: u64,
    certain: bool,
}

#[cfg(test)]
mod tests {
    use super::super::asm;
    use super::*;
    use crate::cpu::CpuModel;
    use crate::direct::tests::random::Random;
    use crate::endian::Endian;
    use crate::interp::tests::machine::Machine;

    #[test]
    fn an_address_made_of_constants_is_certain_and_others_are_not() {
        let mut gpr = [0; 32];
        gpr[4] = 0x9800_0000_0000_1000;
        let mut values = Values::new(&gpr);
        values.execute(asm::lui(2, 0x8123));
        assert_eq!(values.certain(2), Some(0xffff_ffff_8123_0000));
        // daddiu $3, $2, -8; daddu $5, $4, $2
        values.execute(0x19 << 26 | 2 << S | 3 << T | 0xfff8);
        values.execute(4 << S | 2 << T | 5 << D | 0x2d);
        assert_eq!(values.certain(3), Some(0xffff_ffff_8122_fff8));
        assert_eq!((values.certain(5), values.guess(5)), (None, Some(0x97ff_ffff_8123_1000)));
        values.forget(1 << 4);
        values.execute(4 << S | 4 << T | 5 << D | 0x2d);
        assert_eq!((values.guess(5), values.guess(2)), (None, Some(0xffff_ffff_8123_0000)));
        values.doubt();
        assert_eq!((values.certain(2), values.guess(3)), (None, Some(0xffff_ffff_8122_fff8)));
        values.forget(!0);
        assert_eq!(values.certain(0), Some(0));
        assert_eq!((values.base(29), values.base(28)), (Some(gpr[29]), None));
    }

    #[test]
    fn what_is_said_to_be_certain_is_what_the_interpreter_computes() {
        let mut random = Random(7);
        for _ in 0..2000 {
            let program: [u32; 8] = core::array::from_fn(|_| {
                let [rs, rt, rd] = [S, T, D].map(|at| (random.next() as u32 % 6) << at);
                let imm = random.next() as u32 & 0xffff;
                match random.next() % 8 {
                    0 | 1 => 0x0f << 26 | rt | imm,
                    2 => 0x09 << 26 | rs | rt | imm,
                    3 => 0x0d << 26 | rs | rt | imm,
                    4 => 0x19 << 26 | rs | rt | imm,
                    5 => rs | rt | rd | 0x21,
                    6 => rs | rt | rd | 0x25,
                    _ => rs | rt | rd | 0x2d,
                }
            });
            let endian = if random.next() & 1 == 0 { Endian::Little } else { Endian::Big };
            let mut machine = Machine::new(CpuModel::honeycomb(), endian, &program);
            machine.cpu.set_gpr(5, random.next());
            let gpr = core::array::from_fn(|number| machine.cpu.gpr(number));
            let mut values = Values::new(&gpr);
            for &word in &program {
                machine.run(1);
                values.execute(word);
                for number in 0..32 {
                    let is = machine.cpu.gpr(number as usize);
                    assert_eq!(values.guess(number), Some(is), "{word:#x} {number}");
                }
            }
        }
    }
}
