//! PCI configuration space.
//!
//! After PCI Local Bus Specification 2.2, chapter 6.

use alloc::boxed::Box;

/// What a read of an absent function gives: nobody drives the bus.
pub const ABSENT: u32 = 0xffff_ffff;

const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const CLASS: usize = 0x08;
const HEADER_TYPE: usize = 0x0e;
const INTERRUPT_LINE: usize = 0x3c;
const INTERRUPT_PIN: usize = 0x3d;
/// Where the device-specific registers begin.
const DEVICE: usize = 0x40;

/// The 256 bytes of one function, and which of their bits can be written.
#[derive(Debug)]
pub struct ConfigSpace {
    bytes: Box<[u8; 256]>,
    writable: Box<[u8; 256]>,
}

impl ConfigSpace {
    /// A function with the given identity. `class` is class, subclass and interface, `pin` the
    /// interrupt pin (1: INTA#; 0: none). Device-specific registers are writable.
    #[must_use]
    pub fn new(vendor: u16, device: u16, class: u32, revision: u8, pin: u8) -> Self {
        let mut space = Self { bytes: Box::new([0; 256]), writable: Box::new([0; 256]) };
        space.set(0, u32::from(vendor) | u32::from(device) << 16);
        space.set(CLASS, class << 8 | u32::from(revision));
        // DEVSEL# medium, fast back-to-back.
        space.bytes[STATUS] = 0x80;
        space.bytes[STATUS + 1] = 0x02;
        space.bytes[INTERRUPT_PIN] = pin;
        // I/O, memory, master, parity and SERR# enables.
        space.writable[COMMAND] = 0x47;
        space.writable[COMMAND + 1] = 0x01;
        space.writable[INTERRUPT_LINE] = 0xff;
        space.writable[DEVICE..].fill(0xff);
        space
    }

    /// Marks the slot as having several functions.
    #[must_use]
    pub fn multifunction(mut self) -> Self {
        self.bytes[HEADER_TYPE] |= 0x80;
        self
    }

    /// Sets a register's value.
    pub fn set(&mut self, register: usize, value: u32) {
        for (i, byte) in value.to_le_bytes().into_iter().enumerate() {
            if let Some(slot) = self.bytes.get_mut(register + i) {
                *slot = byte;
            }
        }
    }

    /// Sets which bits of a register can be written.
    pub fn set_writable(&mut self, register: usize, mask: u32) {
        for (i, byte) in mask.to_le_bytes().into_iter().enumerate() {
            if let Some(slot) = self.writable.get_mut(register + i) {
                *slot = byte;
            }
        }
    }

    /// The 32-bit register at `register` (aligned down).
    #[must_use]
    pub fn get(&self, register: usize) -> u32 {
        let at = register & 0xfc;
        let b = &self.bytes;
        u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
    }

    /// A guest's write of those bytes of a register that `lanes` (a mask) selects.
    pub fn write(&mut self, register: usize, value: u32, lanes: u32) {
        let at = register & 0xfc;
        for (i, (value, lane)) in
            value.to_le_bytes().into_iter().zip(lanes.to_le_bytes()).enumerate()
        {
            let mask = self.writable[at + i] & lane;
            self.bytes[at + i] = self.bytes[at + i] & !mask | value & mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_is_read_only_and_sizing_works() {
        let mut space = ConfigSpace::new(0x8086, 0x7110, 0x06_01_00, 2, 0).multifunction();
        assert_eq!(space.get(0), 0x7110_8086);
        assert_eq!(space.get(8), 0x0601_0002);
        assert_eq!(space.get(0x0c), 0x0080_0000);
        space.set_writable(0x10, 0xffff_f000);
        for register in (0..256).step_by(4) {
            space.write(register, u32::MAX, u32::MAX);
        }
        assert_eq!(space.get(0), 0x7110_8086);
        assert_eq!(space.get(0x10), 0xffff_f000, "the size of a BAR");
        assert_eq!(space.get(4), 0x0280_0147);
        assert_eq!(space.get(0x40), u32::MAX);
    }

    #[test]
    fn byte_lanes() {
        let mut space = ConfigSpace::new(1, 2, 3, 4, 1);
        space.set(0x60, 0x0b0b_0a0a);
        space.write(0x60, 0x1122_3344, 0x00ff_0000);
        assert_eq!(space.get(0x60), 0x0b22_0a0a);
    }
}
