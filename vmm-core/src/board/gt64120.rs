//! The Galileo GT-64120 system controller: its register file, the windows into PCI space, and PCI
//! configuration access.
//!
//! After the GT-64120 data sheet (rev. 1.4) and, where it matters to a kernel, QEMU's model of it.
//! Registers are little-endian on the bus; values here are as a little-endian CPU sees them. The
//! SDRAM, DMA, timer and error registers hold what was written and do nothing.
//!
//! Registers are at their reset values *as the board's firmware leaves them*: internal registers
//! moved to 0x1be00000, PCI I/O at 0x18000000, PCI memory at 0x10000000 and 0x18200000.

use super::pci::{ABSENT, ConfigSpace};
use crate::endian::Endian;
use alloc::boxed::Box;
use core::ops::Range;

/// Bytes of the register file.
pub const REGISTERS: u64 = 0x1000;

const CPU: usize = 0x000;
const CPU_LITTLE_ENDIAN: u32 = 1 << 12;
const PCI0_IO_LOW: usize = 0x048;
const PCI0_IO_HIGH: usize = 0x050;
const PCI0_M0_LOW: usize = 0x058;
const PCI0_M0_HIGH: usize = 0x060;
const ISD: usize = 0x068;
const PCI0_M1_LOW: usize = 0x080;
const PCI0_M1_HIGH: usize = 0x088;
const PCI0_IO_REMAP: usize = 0x0f0;
const PCI0_M0_REMAP: usize = 0x0f8;
const PCI0_M1_REMAP: usize = 0x100;
const PCI0_SYNC: usize = 0x0c0;
const PCI1_SYNC: usize = 0x0c8;
const PCI0_COMMAND: usize = 0xc00;
const PCI1_COMMAND: usize = 0xc80;
const MASTER_BYTE_SWAP: u32 = 1;
const SLAVE_BYTE_SWAP: u32 = 1 << 16;
const INTERRUPT_CAUSE: usize = 0xc18;
const INTERRUPT_MASK: usize = 0xc1c;
const PCI0_ICMASK: usize = 0xc24;
const PCI0_SERR_MASK: usize = 0xc28;
const PCI0_IACK: usize = 0xc34;
const PCI0_CONFIG_ADDRESS: usize = 0xcf8;
const PCI0_CONFIG_DATA: usize = 0xcfc;

/// Window bounds and addresses count in units of 2 MB.
const UNIT_SHIFT: u32 = 21;

/// Registers with another value than 0 at reset (or after the board's firmware), in order.
const INITIAL: [(usize, u32); 86] = [
    (0x010, 0x07),
    (0x018, 0x08),
    (0x020, 0x0f),
    (0x028, 0xe0),
    (0x030, 0x70),
    (0x038, 0xf8),
    (0x040, 0x7f),
    (PCI0_IO_LOW, 0xc0),
    (PCI0_IO_HIGH, 0x40),
    (PCI0_M0_LOW, 0x80),
    (PCI0_M0_HIGH, 0x3f),
    (ISD, 0xdf),
    (PCI0_M1_LOW, 0xc1),
    (PCI0_M1_HIGH, 0x5e),
    (0x090, 0x100),
    (0x098, 0x0f),
    (0x0a0, 0x110),
    (0x0a8, 0x1f),
    (0x0b0, 0x120),
    (0x0b8, 0x2f),
    (0x0d8, 0x08),
    (0x0e0, 0xe0),
    (0x0e8, 0xf8),
    (PCI0_IO_REMAP, 0xc0),
    (PCI0_M0_REMAP, 0x80),
    (PCI0_M1_REMAP, 0xc1),
    (0x108, 0x100),
    (0x110, 0x110),
    (0x118, 0x120),
    (0x120, 0x03),
    (0x128, 0xffff_ffff),
    (0x130, 0xffff_ffff),
    (0x138, 0xff),
    (0x404, 0x07),
    (0x408, 0x08),
    (0x40c, 0x0f),
    (0x410, 0x10),
    (0x414, 0x17),
    (0x418, 0x18),
    (0x41c, 0x1f),
    (0x420, 0xc0),
    (0x424, 0xc7),
    (0x428, 0xc8),
    (0x42c, 0xcf),
    (0x430, 0xd0),
    (0x434, 0xdf),
    (0x438, 0xf0),
    (0x43c, 0xfb),
    (0x440, 0xfc),
    (0x444, 0xff),
    (0x448, 0x200),
    (0x44c, 0x05),
    (0x450, 0x05),
    (0x454, 0x05),
    (0x458, 0x05),
    (0x45c, 0x386f_ffff),
    (0x460, 0x386f_ffff),
    (0x464, 0x386f_ffff),
    (0x468, 0x386f_ffff),
    (0x46c, 0x146f_ffff),
    (0x470, 0xffff_ffff),
    (0x478, 0x07),
    (0x47c, 0x02),
    (0x850, 0xffff_ffff),
    (0x854, 0x00ff_ffff),
    (0x858, 0x00ff_ffff),
    (0x85c, 0x00ff_ffff),
    (0xc04, 0x70f),
    (0xc08, 0x00ff_f000),
    (0xc0c, 0x00ff_f000),
    (0xc10, 0x01ff_f000),
    (0xc14, 0x00ff_f000),
    (0xc3c, 0x0f),
    (0xc40, 0x40),
    (0xc4c, 0x0100_0000),
    (0xc50, 0x1c00_0000),
    (0xc54, 0x1f00_0000),
    (0xc5c, 0x0100_0000),
    (0xc64, 0x1f00_0000),
    (0xc84, 0x70f),
    (0xc88, 0x00ff_f000),
    (0xc8c, 0x00ff_f000),
    (0xc90, 0x01ff_f000),
    (0xc94, 0x00ff_f000),
    (0xcbc, 0x0f),
    (0xcc0, 0x40),
];

/// Which function a configuration access names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigAddress {
    /// Device number on bus 0.
    pub device: u8,
    /// Function number.
    pub function: u8,
    /// Byte offset of the 32-bit register.
    pub register: usize,
}

/// What an access to the register file means beyond the file itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// The interrupt-acknowledge register: the value is the interrupt controllers' vector.
    Acknowledge,
    /// PCI configuration data of this function; `None`: no function answers.
    Config(Option<ConfigAddress>),
}

/// The controller.
#[derive(Debug)]
pub struct Gt64120 {
    endian: Endian,
    registers: Box<[u32; REGISTERS as usize / 4]>,
    config: ConfigSpace,
}

impl Gt64120 {
    /// The controller as the firmware leaves it, for a CPU of this byte order.
    #[must_use]
    pub fn new(endian: Endian) -> Self {
        let mut config = ConfigSpace::new(0x11ab, 0x4620, 0x06_00_00, 0x10, 1);
        for (bar, value, mask) in [
            (0x10, 0x0000_0008, 0xffff_f008),
            (0x14, 0x0100_0008, 0xffff_f008),
            (0x18, 0x1c00_0000, 0xffff_f008),
            (0x1c, 0x1f00_0000, 0xffff_f008),
            (0x20, 0x1400_0000, 0xffff_f000),
            (0x24, 0x1400_0001, 0xffff_f001),
        ] {
            config.set(bar, value);
            config.set_writable(bar, mask);
        }
        let mut gt = Self { endian, registers: Box::new([0; _]), config };
        for (register, value) in INITIAL {
            gt.registers[register / 4] = value;
        }
        if endian == Endian::Little {
            gt.registers[CPU / 4] = CPU_LITTLE_ENDIAN;
            gt.registers[PCI0_COMMAND / 4] = MASTER_BYTE_SWAP | SLAVE_BYTE_SWAP;
            gt.registers[PCI1_COMMAND / 4] = MASTER_BYTE_SWAP | SLAVE_BYTE_SWAP;
        }
        gt
    }

    /// The configuration space of the controller's own PCI function (device 0).
    pub fn config(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn reg(&self, register: usize) -> u32 {
        self.registers[register / 4]
    }

    /// Where the register file lies.
    #[must_use]
    pub fn register_file(&self) -> Range<u64> {
        let start = u64::from(self.reg(ISD)) << UNIT_SHIFT;
        start..start + REGISTERS
    }

    fn window(&self, low: usize, high: usize) -> Range<u64> {
        // The high register replaces the low one's seven last bits; below it the window is closed.
        let (low, high) = (u64::from(self.reg(low)), u64::from(self.reg(high)));
        if low & 0x7f > high {
            return 0..0;
        }
        low << UNIT_SHIFT..((low & !0x7f | high) + 1) << UNIT_SHIFT
    }

    /// The window into PCI I/O space; its first byte is port 0.
    #[must_use]
    pub fn io_window(&self) -> Range<u64> {
        self.window(PCI0_IO_LOW, PCI0_IO_HIGH)
    }

    /// The CPU's idea of a register value and the file's differ when the CPU configuration register
    /// claims the wrong byte order.
    fn lanes(&self, value: u32) -> u32 {
        let claims_little = self.reg(CPU) & CPU_LITTLE_ENDIAN != 0;
        if claims_little == (self.endian == Endian::Little) { value } else { value.swap_bytes() }
    }

    /// Configuration data passes through the master byte swapper. (So does that of device 0, as in
    /// QEMU; the real part leaves it out.)
    #[must_use]
    pub fn swap_config(&self, value: u32) -> u32 {
        if self.reg(PCI0_COMMAND) & MASTER_BYTE_SWAP != 0 { value } else { value.swap_bytes() }
    }

    fn config_address(&self) -> Option<ConfigAddress> {
        let address = self.reg(PCI0_CONFIG_ADDRESS);
        let (enabled, bus) = (address >> 31 != 0, address >> 16 & 0xff);
        (enabled && bus == 0).then_some(ConfigAddress {
            device: (address >> 11 & 0x1f) as u8,
            function: (address >> 8 & 7) as u8,
            register: (address & 0xfc) as usize,
        })
    }

    /// Reads the register at `offset` (a multiple of 4 below [`REGISTERS`]).
    #[must_use]
    pub fn read(&self, offset: usize) -> (u32, Effect) {
        let offset = offset & (REGISTERS as usize - 4);
        match offset {
            PCI0_IACK => (0, Effect::Acknowledge),
            PCI0_CONFIG_ADDRESS => (self.reg(offset), Effect::None),
            PCI0_CONFIG_DATA => (ABSENT, Effect::Config(self.config_address())),
            // Reading drains the bridge's buffers; the value means nothing.
            PCI0_SYNC | PCI1_SYNC => (0, Effect::None),
            _ => (self.lanes(self.reg(offset)), Effect::None),
        }
    }

    /// An acknowledged vector as the register shows it.
    #[must_use]
    pub fn acknowledged(&self, vector: u8) -> u32 {
        self.lanes(u32::from(vector))
    }

    /// Writes the register at `offset` (a multiple of 4 below [`REGISTERS`]).
    pub fn write(&mut self, offset: usize, value: u32) -> Effect {
        let offset = offset & (REGISTERS as usize - 4);
        // The configuration pair is on the PCI side: the CPU's byte order does not matter to it.
        match offset {
            PCI0_CONFIG_ADDRESS => {
                self.registers[offset / 4] = value & 0x80ff_fffc;
                return Effect::None;
            }
            PCI0_CONFIG_DATA => return Effect::Config(self.config_address()),
            _ => {}
        }
        let value = self.lanes(value);
        let new = match offset {
            CPU => value,
            PCI0_IO_LOW | PCI0_M0_LOW | PCI0_M1_LOW | 0x090 | 0x0a0 | 0x0b0 => {
                let remap = match offset {
                    PCI0_IO_LOW => PCI0_IO_REMAP,
                    PCI0_M0_LOW => PCI0_M0_REMAP,
                    PCI0_M1_LOW => PCI0_M1_REMAP,
                    0x090 => 0x108,
                    0x0a0 => 0x110,
                    _ => 0x118,
                };
                self.registers[remap / 4] = value & 0x7ff;
                value & 0x7fff
            }
            PCI0_IO_HIGH | PCI0_M0_HIGH | PCI0_M1_HIGH | 0x098 | 0x0a8 | 0x0b8 => value & 0x7f,
            ISD => value & 0x7fff,
            PCI0_IO_REMAP | PCI0_M0_REMAP | PCI0_M1_REMAP | 0x108 | 0x110 | 0x118 => value & 0x7ff,
            0x400..0x45c | 0x470..0x480 => value,
            PCI0_COMMAND | PCI1_COMMAND => value & 0x0401_fc0f,
            // Bits are cleared by writing zeros; bit 0 sums up the others.
            INTERRUPT_CAUSE => {
                let cause = self.reg(offset) & value & !1;
                cause | u32::from(cause != 0)
            }
            INTERRUPT_MASK => value & 0x3c3f_fffe,
            PCI0_ICMASK => value & 0x03ff_fffe,
            PCI0_SERR_MASK => value & 0x3f,
            _ => return Effect::None,
        };
        self.registers[offset / 4] = new;
        Effect::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_where_the_firmware_puts_them() {
        let gt = Gt64120::new(Endian::Little);
        assert_eq!(gt.register_file(), 0x1be0_0000..0x1be0_1000);
        assert_eq!(gt.io_window(), 0x1800_0000..0x1820_0000);
        assert_eq!(gt.window(PCI0_M0_LOW, PCI0_M0_HIGH), 0x1000_0000..0x1800_0000);
        assert_eq!(gt.window(PCI0_M1_LOW, PCI0_M1_HIGH), 0x1820_0000..0x1be0_0000);
    }

    #[test]
    fn windows_move_and_close() {
        let mut gt = Gt64120::new(Endian::Little);
        gt.write(ISD, 0xa0);
        assert_eq!(gt.register_file(), 0x1400_0000..0x1400_1000);
        gt.write(PCI0_IO_LOW, 0x7fff);
        assert_eq!(gt.read(PCI0_IO_REMAP).0, 0x7ff);
        assert!(gt.io_window().is_empty(), "low is above high");
        gt.write(PCI0_IO_HIGH, 0xff);
        assert_eq!(gt.io_window(), 0xf_ffe0_0000..0x10_0000_0000);
    }

    #[test]
    fn configuration_addressing() {
        let mut gt = Gt64120::new(Endian::Little);
        assert_eq!(gt.read(PCI0_CONFIG_DATA), (ABSENT, Effect::Config(None)), "not enabled");
        gt.write(PCI0_CONFIG_ADDRESS, 0x8000_5360);
        let address = ConfigAddress { device: 10, function: 3, register: 0x60 };
        assert_eq!(gt.read(PCI0_CONFIG_DATA).1, Effect::Config(Some(address)));
        assert_eq!(gt.write(PCI0_CONFIG_DATA, 0), Effect::Config(Some(address)));
        gt.write(PCI0_CONFIG_ADDRESS, 0x8001_0000);
        assert_eq!(gt.read(PCI0_CONFIG_DATA).1, Effect::Config(None), "no bus 1");
    }

    #[test]
    fn byte_order_of_both_cpus() {
        // A little-endian CPU: registers plain, configuration data plain with the swapper on.
        let gt = Gt64120::new(Endian::Little);
        assert_eq!(gt.read(PCI0_IO_LOW).0, 0xc0);
        assert_eq!(gt.swap_config(0x1234_5678), 0x1234_5678);
        // A big-endian CPU sees registers byte-reversed (here: plain in bus order) and, with the
        // swapper off, configuration data in its own order (here: swapped in bus order).
        let gt = Gt64120::new(Endian::Big);
        assert_eq!(gt.read(PCI0_IO_LOW).0, 0xc0);
        assert_eq!(gt.swap_config(0x1234_5678), 0x7856_3412);
        // A CPU that claims the wrong order sees everything the other way round.
        let mut gt = Gt64120::new(Endian::Little);
        gt.write(CPU, 0);
        assert_eq!(gt.read(PCI0_IO_LOW).0, 0xc000_0000);
        gt.write(CPU, CPU_LITTLE_ENDIAN.swap_bytes());
        assert_eq!(gt.read(PCI0_IO_LOW).0, 0xc0);
    }

    #[test]
    fn cause_clears_by_zeros() {
        let mut gt = Gt64120::new(Endian::Little);
        gt.registers[INTERRUPT_CAUSE / 4] = 0x0c_0001;
        gt.write(INTERRUPT_CAUSE, !0x04_0000);
        assert_eq!(gt.read(INTERRUPT_CAUSE).0, 0x08_0001);
        gt.write(INTERRUPT_CAUSE, !0x08_0000);
        assert_eq!(gt.read(INTERRUPT_CAUSE).0, 0);
    }

    #[test]
    fn any_register_is_harmless() {
        for endian in [Endian::Little, Endian::Big] {
            let mut gt = Gt64120::new(endian);
            for offset in 0..REGISTERS as usize + 64 {
                for value in [0, u32::MAX, 0x5a5a_a5a5] {
                    gt.write(offset, value);
                    let _ = gt.read(offset);
                    let _ = (gt.register_file(), gt.io_window());
                }
            }
        }
    }
}
