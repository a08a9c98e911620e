//! The virtual board: the part of a MIPS Malta that a kernel needs.
//!
//! | guest-physical | what |
//! |---|---|
//! | 0x18000000 | PCI I/O window: i8259 pair, RTC, UART, power management |
//! | 0x1be00000 | GT-64120 registers: windows, PCI configuration, interrupt acknowledge |
//! | 0x1f000000 | the board's own registers: reset, switches, display |
//! | 0x1fc00000 | boot ROM: reads as 0, but for the board's revision |
//!
//! The I/O window and the controller's registers move when the guest moves them. What is absent
//! behaves as on QEMU's Malta: ports read all ones, anything else below 512 MB reads 0 and swallows
//! writes, beyond that there is a bus error.
//!
//! Byte order: the bus between CPU and bridge carries bytes by address, so that [`Board`] first turns
//! a register's value into the little-endian value of its bytes ("bus value"); PCI and ISA devices
//! are little-endian, and the board's own registers turn it back.

pub mod calendar;
pub mod fpga;
pub mod gt64120;
pub mod i8259;
pub mod pci;
pub mod piix4;
pub mod ram;
pub mod rtc;
pub mod uart;

use crate::bus::{Bus, BusError};
use crate::endian::Endian;
use abi::Gpa;
use alloc::vec::Vec;
use gt64120::{ConfigAddress, Effect};
use pci::{ABSENT, ConfigSpace};
use piix4::PowerRequest;

/// Below this nothing gives a bus error.
const NO_BUS_ERRORS: u64 = 0x2000_0000;
const FPGA: core::ops::Range<u64> = 0x1f00_0000..0x1f10_0000;
/// In the middle of the board's registers: the second UART, which this board lacks.
const CBUS_UART: core::ops::Range<u64> = 0x1f00_0900..0x1f00_0a00;
/// Where the revision register appears in the boot ROM.
const REVISION: u64 = 0x1fc0_0010;
/// A Malta with a CoreLV card, whose system controller is the GT-64120.
const CORE_LV: u32 = 0x420;
/// Bytes of the I/O window that ports answer in.
const PORTS: u64 = 0x1_0000;

const UART_PORT: u16 = 0x3f8;
const UART_LINE: u8 = 4;
const RTC_LINE: u8 = 8;
const PIIX4_DEVICE: u8 = 10;

/// What a guest's access asks of whoever runs the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// The board was switched off.
    PowerOff,
    /// The board was reset.
    Reset,
    /// The VM's virtual time is to be moved this many nanoseconds ahead.
    Warp(u64),
    /// Console output piles up.
    Output,
}

/// The board.
#[derive(Debug)]
pub struct Board {
    endian: Endian,
    gt: gt64120::Gt64120,
    pic: i8259::I8259,
    rtc: rtc::Rtc,
    uart: uart::Uart,
    piix4: piix4::Piix4,
    fpga: fpga::Fpga,
    /// Until when the interrupt lines are known not to change by themselves.
    valid_until: u64,
    request: Option<Request>,
}

impl Board {
    /// A board after its firmware has run. Its clock shows `epoch_s` (seconds since 1970) at virtual
    /// time 0; its console emits at most `console_rate` bytes a virtual second.
    #[must_use]
    pub fn new(endian: Endian, epoch_s: u64, console_rate: u64) -> Self {
        Self {
            endian,
            gt: gt64120::Gt64120::new(endian),
            pic: i8259::I8259::new(),
            rtc: rtc::Rtc::new(epoch_s),
            uart: uart::Uart::new(console_rate),
            piix4: piix4::Piix4::new(),
            fpga: fpga::Fpga::new(endian),
            valid_until: 0,
            request: None,
        }
    }

    /// Queues console input; how many bytes were taken.
    pub fn input(&mut self, bytes: &[u8]) -> usize {
        self.valid_until = 0;
        self.uart.input(bytes)
    }

    /// The console output so far, in exchange for an empty buffer.
    pub fn take_output(&mut self, empty: Vec<u8>) -> Vec<u8> {
        self.valid_until = 0;
        self.uart.take_output(empty)
    }

    /// The level of the interrupt pin, and until when (in virtual nanoseconds) it is known not to change by
    /// itself; `u64::MAX`: for ever.
    #[must_use]
    pub fn outlook(&self) -> (bool, u64) {
        (self.pic.output(), self.valid_until)
    }

    /// What the guest's last access asked for, if anything; asked once.
    pub fn take_request(&mut self) -> Option<Request> {
        self.request.take()
    }

    /// Brings the interrupt lines up to `now`.
    fn refresh(&mut self, now: u64) {
        let (uart, rtc) = (self.uart.line(now), self.rtc.line(now));
        self.pic.set_line(UART_LINE, uart);
        self.pic.set_line(RTC_LINE, rtc);
        self.valid_until = self.uart.deadline(now).min(self.rtc.deadline(now));
    }

    /// A power-off or reset is never lost to a lesser request.
    fn ask(&mut self, request: Request) {
        if !matches!(self.request, Some(Request::PowerOff | Request::Reset)) {
            self.request = Some(request);
        }
    }

    fn function(&mut self, address: Option<ConfigAddress>) -> Option<(&mut ConfigSpace, usize)> {
        let address = address?;
        let space = match (address.device, address.function) {
            (0, 0) => Some(self.gt.config()),
            (PIIX4_DEVICE, function) => self.piix4.function(function),
            _ => None,
        }?;
        Some((space, address.register))
    }

    fn gt_read(&mut self, offset: usize) -> u32 {
        match self.gt.read(offset) {
            (value, Effect::None) => value,
            (_, Effect::Acknowledge) => {
                let vector = self.pic.acknowledge();
                self.gt.acknowledged(vector)
            }
            (_, Effect::Config(address)) => {
                let value =
                    self.function(address).map_or(ABSENT, |(space, register)| space.get(register));
                self.gt.swap_config(value)
            }
        }
    }

    fn gt_write(&mut self, offset: usize, value: u32, lanes: u32) {
        // The file is written a word at a time: other lanes keep what they hold.
        let merged = match self.gt.read(offset) {
            (old, Effect::None) if lanes != u32::MAX => old & !lanes | value & lanes,
            _ => value,
        };
        if let Effect::Config(address) = self.gt.write(offset, merged) {
            let (value, lanes) = (self.gt.swap_config(value), self.gt.swap_config(lanes));
            if let Some((space, register)) = self.function(address) {
                space.write(register, value, lanes);
            }
        }
    }

    fn port_read(&mut self, port: u16, now: u64) -> u8 {
        if let 0x70 | 0x71 = port {
            let (value, warp) = self.rtc.read(port, now);
            if warp > 0 {
                self.ask(Request::Warp(warp));
            }
            return value;
        }
        self.rtc.interrupt_polling();
        if port & !7 == UART_PORT {
            return self.uart.read(port as u8, now);
        }
        // What nobody answers reads as all ones.
        self.pic.read(port).or_else(|| self.piix4.read(port, now)).unwrap_or(0xff)
    }

    fn port_write(&mut self, port: u16, value: u8, now: u64) {
        if let 0x70 | 0x71 = port {
            return self.rtc.write(port, value, now);
        }
        self.rtc.interrupt_polling();
        if port & !7 == UART_PORT {
            self.uart.write(port as u8, value, now);
            if self.uart.ask_for_room() {
                self.ask(Request::Output);
            }
        } else if !self.pic.write(port, value) {
            match self.piix4.write(port, value).flatten() {
                Some(PowerRequest::Off) => self.ask(Request::PowerOff),
                Some(PowerRequest::Reset) => self.ask(Request::Reset),
                None => {}
            }
        }
    }

    /// A 1-, 2- or 4-byte load, as a bus value.
    fn read_bus(&mut self, gpa: u64, size: u8, now: u64) -> Result<u64, BusError> {
        let io = self.gt.io_window();
        let shift = (gpa & 3) as u32 * 8;
        if self.gt.register_file().contains(&gpa) {
            let offset = gpa - self.gt.register_file().start;
            let value = self.gt_read(offset as usize & !3) >> shift;
            Ok(u64::from(value) & mask(size))
        } else if io.contains(&gpa) && gpa - io.start < PORTS {
            let mut value = 0;
            for i in 0..size {
                let port = (gpa - io.start) as u16 + u16::from(i);
                value |= u64::from(self.port_read(port, now)) << (8 * i);
            }
            self.refresh(now);
            Ok(value)
        } else if FPGA.contains(&gpa) && !CBUS_UART.contains(&gpa) {
            let value = self.fpga.read((gpa - FPGA.start) as u32 & !3);
            Ok(self.native(u64::from(value), 4) >> shift & mask(size))
        } else if gpa & !3 == REVISION {
            Ok(self.native(u64::from(CORE_LV), 4) >> shift & mask(size))
        } else if gpa < NO_BUS_ERRORS {
            Ok(0)
        } else {
            Err(BusError)
        }
    }

    /// A 1-, 2- or 4-byte store of a bus value.
    fn write_bus(&mut self, gpa: u64, size: u8, value: u64, now: u64) -> Result<(), BusError> {
        let io = self.gt.io_window();
        if self.gt.register_file().contains(&gpa) {
            let offset = gpa - self.gt.register_file().start;
            let shift = (gpa & 3) as u32 * 8;
            let lanes = (mask(size) as u32) << shift;
            self.gt_write(offset as usize & !3, (value as u32) << shift, lanes);
            Ok(())
        } else if io.contains(&gpa) && gpa - io.start < PORTS {
            for i in 0..size {
                let port = (gpa - io.start) as u16 + u16::from(i);
                self.port_write(port, (value >> (8 * i)) as u8, now);
            }
            self.refresh(now);
            Ok(())
        } else if FPGA.contains(&gpa) && !CBUS_UART.contains(&gpa) {
            let value = self.native(value, size) as u32;
            if self.fpga.write((gpa - FPGA.start) as u32, value) {
                self.ask(Request::Reset);
            }
            Ok(())
        } else if gpa < NO_BUS_ERRORS {
            Ok(())
        } else {
            Err(BusError)
        }
    }

    /// Between a register's value and the bus value, either way.
    fn native(&self, value: u64, size: u8) -> u64 {
        match self.endian {
            Endian::Little => value & mask(size),
            Endian::Big => value.swap_bytes() >> (64 - 8 * u32::from(size)),
        }
    }
}

/// The bits of a value of 1, 2, 4 or 8 bytes.
const fn mask(size: u8) -> u64 {
    u64::MAX >> (64 - 8 * size as u32)
}

/// A size the bus has: others, which no engine uses, count as a byte.
const fn checked(size: u8) -> u8 {
    match size {
        2 | 4 | 8 => size,
        _ => 1,
    }
}

impl Bus for Board {
    fn read(&mut self, gpa: Gpa, size: u8, now: u64) -> Result<u64, BusError> {
        let size = checked(size);
        let at = gpa.0 & !(u64::from(size) - 1);
        let value = if size == 8 {
            let low = self.read_bus(at, 4, now)?;
            low | self.read_bus(at + 4, 4, now)? << 32
        } else {
            self.read_bus(at, size, now)?
        };
        Ok(self.native(value, size))
    }

    fn write(&mut self, gpa: Gpa, size: u8, value: u64, now: u64) -> Result<(), BusError> {
        let size = checked(size);
        let at = gpa.0 & !(u64::from(size) - 1);
        let value = self.native(value, size);
        if size == 8 {
            self.write_bus(at, 4, value & mask(4), now)?;
            self.write_bus(at + 4, 4, value >> 32, now)
        } else {
            self.write_bus(at, size, value, now)
        }
    }

    fn interrupts(&mut self, now: u64) -> u8 {
        if now >= self.valid_until {
            self.refresh(now);
        }
        u8::from(self.pic.output())
    }

    fn deadline(&self, now: u64) -> Option<u64> {
        // What is not known to hold is to be asked again at once.
        (self.valid_until != u64::MAX).then_some(self.valid_until.max(now))
    }

    fn wants_exit(&self) -> bool {
        self.request.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IO: u64 = 0x1800_0000;
    const GT: u64 = 0x1be0_0000;
    const CONFIG_ADDRESS: u64 = GT + 0xcf8;
    const CONFIG_DATA: u64 = GT + 0xcfc;

    fn board(endian: Endian) -> Board {
        Board::new(endian, 1_700_000_000, 1_000_000)
    }

    fn read(b: &mut Board, gpa: u64, size: u8) -> u64 {
        b.read(Gpa(gpa), size, 0).unwrap()
    }

    fn write(b: &mut Board, gpa: u64, size: u8, value: u64) {
        b.write(Gpa(gpa), size, value, 0).unwrap();
    }

    /// A driver's access to a GT-64120 register: little-endian whatever the CPU.
    fn gt(b: &Board, value: u64) -> u64 {
        b.native(value, 4)
    }

    #[test]
    fn revision_names_the_core_card_in_both_orders() {
        for endian in [Endian::Little, Endian::Big] {
            let mut b = board(endian);
            assert_eq!(read(&mut b, REVISION, 4), 0x420);
            assert_eq!(read(&mut b, 0x1fc0_0380, 4), 0, "the rest of the ROM is empty");
        }
    }

    #[test]
    fn configuration_space_in_both_orders() {
        for endian in [Endian::Little, Endian::Big] {
            let mut b = board(endian);
            let address = |b: &Board, device: u64, function: u64, register: u64| {
                gt(b, 1 << 31 | device << 11 | function << 8 | register)
            };
            // As Linux does it: the address through the little-endian register, the data plain,
            // with the byte swapper on for little-endian CPUs only.
            let a = address(&b, 10, 0, 0);
            write(&mut b, CONFIG_ADDRESS, 4, a);
            assert_eq!(read(&mut b, CONFIG_DATA, 4), 0x7110_8086, "{endian}");
            let a = address(&b, 10, 0, 0x60);
            write(&mut b, CONFIG_ADDRESS, 4, a);
            assert_eq!(read(&mut b, CONFIG_DATA, 4), 0x0b0b_0a0a);
            write(&mut b, CONFIG_DATA, 4, 0x0b0b_0a09);
            assert_eq!(read(&mut b, CONFIG_DATA, 4), 0x0b0b_0a09);
            let a = address(&b, 11, 0, 0);
            write(&mut b, CONFIG_ADDRESS, 4, a);
            assert_eq!(read(&mut b, CONFIG_DATA, 4), 0xffff_ffff, "an empty slot");
        }
    }

    #[test]
    fn soft_off_through_configured_ports() {
        let mut b = board(Endian::Little);
        for (register, value) in [(0x40, 0x1001), (0x80, 1)] {
            write(&mut b, CONFIG_ADDRESS, 4, 1 << 31 | 10 << 11 | 3 << 8 | register);
            write(&mut b, CONFIG_DATA, 4, value);
        }
        assert_eq!(read(&mut b, IO + 0x1000, 2), 0);
        assert!(!b.wants_exit());
        write(&mut b, IO + 0x1004, 2, 0x2000);
        assert!(b.wants_exit());
        assert_eq!(b.take_request(), Some(Request::PowerOff));
        assert!(!b.wants_exit());
    }

    #[test]
    fn soft_reset_by_word_and_by_byte() {
        for endian in [Endian::Little, Endian::Big] {
            for size in [1, 4] {
                let mut b = board(endian);
                write(&mut b, FPGA.start + 0x500, size, 0x42);
                assert_eq!(b.take_request(), Some(Request::Reset), "{endian} {size}");
            }
        }
    }

    #[test]
    fn interrupt_reaches_the_pin_and_is_acknowledged() {
        for endian in [Endian::Little, Endian::Big] {
            let mut b = board(endian);
            for (port, value) in [(0x20, 0x11), (0x21, 0), (0x21, 4), (0x21, 1), (0x21, 0xef)] {
                write(&mut b, IO + port, 1, value);
            }
            assert_eq!(b.interrupts(0), 0);
            write(&mut b, IO + 0x3f9, 1, 2); // transmitter-empty interrupt
            assert_eq!(b.interrupts(0), 1);
            let vector = read(&mut b, GT + 0xc34, 4);
            assert_eq!(gt(&b, vector) & 0xff, 4);
            assert_eq!(b.interrupts(0), 0);
        }
    }

    #[test]
    fn input_wakes_an_idle_guest_by_its_deadline() {
        let mut b = board(Endian::Little);
        for (port, value) in [(0x20, 0x11), (0x21, 0), (0x21, 4), (0x21, 1), (0x21, 0xef)] {
            write(&mut b, IO + port, 1, value);
        }
        write(&mut b, IO + 0x3fa, 1, 0x81);
        write(&mut b, IO + 0x3f9, 1, 1);
        assert_eq!(b.interrupts(0), 0);
        assert_eq!(b.deadline(0), None, "nothing will happen by itself");
        assert_eq!(b.input(b"x"), 1);
        let mut now = 0;
        while b.interrupts(now) == 0 {
            let next = b.deadline(now).unwrap();
            assert!(next > now);
            now = next;
        }
        assert_eq!(b.read(Gpa(IO + 0x3f8), 1, now), Ok(u64::from(b'x')));
    }

    #[test]
    fn polling_the_clock_asks_for_a_warp() {
        let mut b = board(Endian::Little);
        let mut now = 0;
        for _ in 0..100 {
            now += 1000;
            b.write(Gpa(IO + 0x70), 1, 0x0a, now).unwrap();
            b.read(Gpa(IO + 0x71), 1, now).unwrap();
            if let Some(Request::Warp(by)) = b.take_request() {
                assert!(by > 900_000_000);
                return;
            }
        }
        panic!("never asked");
    }

    #[test]
    fn absent_devices_answer_as_on_the_real_board() {
        let mut b = board(Endian::Little);
        assert_eq!(read(&mut b, IO + 0x2f8, 1), 0xff, "no port");
        assert_eq!(read(&mut b, IO + 0x60, 4), 0xffff_ffff);
        assert_eq!(read(&mut b, CBUS_UART.start, 4), 0, "a hole");
        assert_eq!(read(&mut b, 0x1000_0000, 8), 0);
        assert_eq!(b.read(Gpa(0x2000_0000), 4, 0), Err(BusError));
        assert_eq!(b.write(Gpa(1 << 40), 8, 1, 0), Err(BusError));
    }

    #[test]
    fn any_access_is_harmless() {
        for endian in [Endian::Little, Endian::Big] {
            let mut b = board(endian);
            let mut x = 7u64;
            let mut now = 0u64;
            for i in 0..400_000u64 {
                x = x
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let base = [IO, IO, GT, FPGA.start, 0x1fc0_0000, x][(x >> 60) as usize % 6];
                let gpa = Gpa(base.wrapping_add(x >> 20 & [0x7ff, 0xffff][i as usize & 1]));
                let size = 1 << (x >> 12 & 3);
                now += x >> 50;
                if x >> 8 & 1 == 0 {
                    let _ = b.read(gpa, size, now);
                } else {
                    let _ = b.write(gpa, size, x.rotate_left(17), now);
                }
                b.interrupts(now);
                let _ = b.take_request();
                if i % 64 == 0 {
                    b.take_output(Vec::new());
                    b.input(b"abc");
                }
            }
        }
    }
}
