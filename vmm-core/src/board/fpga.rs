//! The Malta board's own registers at 0x1f000000: switches, display, reset.
//!
//! After MIPS' "Malta User's Manual" (MD00048), chapter 3. Each register is a 32-bit word in the
//! guest's own byte order.

use crate::endian::Endian;

/// SOFTRES takes this value.
const GO_RESET: u32 = 0x42;

/// The registers.
#[derive(Debug)]
pub struct Fpga {
    endian: Endian,
    leds: u32,
    /// BRKRES: how long a break on the console would have to be to reset the board.
    break_reset: u32,
    gpout: u32,
    i2c_enable: u32,
    i2c_out: u32,
    i2c_select: u32,
}

impl Fpga {
    /// The registers after reset.
    #[must_use]
    pub fn new(endian: Endian) -> Self {
        Self {
            endian,
            leds: 0,
            break_reset: 0x0a,
            gpout: 0,
            i2c_enable: 0,
            i2c_out: 3,
            i2c_select: 1,
        }
    }

    /// Reads the register at `offset`; absent ones read 0.
    #[must_use]
    pub fn read(&self, offset: u32) -> u32 {
        match offset {
            // STATUS: the byte order the board is strapped for.
            0x208 => match self.endian {
                Endian::Little => 0x10,
                Endian::Big => 0x12,
            },
            0x408 => self.leds,
            0x508 => self.break_reset,
            0xa00 => self.gpout,
            // The bus has no device on it: the lines read as they are driven.
            0xb00 => 3,
            0xb08 => self.i2c_enable,
            0xa08 | 0xb10 => self.i2c_out,
            0xb18 => self.i2c_select,
            _ => 0,
        }
    }

    /// Writes the register at `offset`; whether the write resets the board.
    pub fn write(&mut self, offset: u32, value: u32) -> bool {
        match offset {
            0x408 => self.leds = value & 0xff,
            0x500 => return value == GO_RESET,
            0x508 => self.break_reset = value & 0xff,
            0xa00 => self.gpout = value & 0xff,
            0xb08 => self.i2c_enable = value & 3,
            0xb10 => self.i2c_out = value & 3,
            0xb18 => self.i2c_select = value & 1,
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_magic_value_resets() {
        let mut fpga = Fpga::new(Endian::Little);
        assert!(!fpga.write(0x500, 1));
        assert!(fpga.write(0x500, GO_RESET));
        for offset in 0..0x1000 {
            assert_eq!(fpga.write(offset, GO_RESET), offset == 0x500);
        }
    }

    #[test]
    fn byte_order_strap() {
        assert_eq!(Fpga::new(Endian::Little).read(0x208), 0x10);
        assert_eq!(Fpga::new(Endian::Big).read(0x208), 0x12);
    }
}
