//! The devices of a VM, for VCPUs on several CPUs at once.
//!
//! The board is behind a lock, which is held for one access, or one look at what a device does by itself,
//! and never while guest code runs. What VCPU 0 asks at every poll is published in a word of its own:
//! the level of the board's interrupt pin, and until when it will not change by itself.
//!
//! The board interrupts VCPU 0, as on Malta; whoever's access changes that VCPU's prospects asks for an exit
//! ([`Own::take_look`]), so that the owner lets it look. What belongs to one VCPU alone, the IPI device
//! ([`abi::ipi`]) above all, is in [`Own`] and needs no lock.

use crate::board::{Board, Request, rtc};
use crate::bus::{Bus, BusError};
use crate::endian::Endian;
use crate::state::{StateError, Visit, check};
use abi::{Gpa, ipi};
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use spin::mutex::SpinMutex;

/// The IPI device's interrupt line: Cause.IP3.
const IPI_LINE: u8 = 1 << 1;
/// Where the IPI device's registers are.
const IPI: Range<u64> = ipi::BASE..ipi::BASE + ipi::CLEAR + 4;
/// The only one that the board interrupts.
const BOARDS: u32 = 0;

/// The board, and what VCPU 0 wants to know without asking it.
#[derive(Debug)]
pub(super) struct Devices {
    board: SpinMutex<Board>,
    /// Bit 0: the level of the pin; the rest: until when it holds, the greatest value for ever.
    outlook: AtomicU64,
    /// What output is exchanged for; whoever holds it hands output over, so that it stays in order.
    spare: SpinMutex<Vec<u8>>,
    endian: Endian,
}

/// What the published word says.
#[derive(Clone, Copy)]
struct Outlook {
    level: bool,
    until: u64,
}

impl Outlook {
    const FOREVER: u64 = u64::MAX >> 1;

    const fn unpacked(word: u64) -> Self {
        Self { level: word & 1 != 0, until: word >> 1 }
    }

    fn packed(level: bool, until: u64) -> u64 {
        until.min(Self::FOREVER) << 1 | u64::from(level)
    }
}

impl Devices {
    pub fn new(board: Board, endian: Endian) -> Self {
        Self {
            board: SpinMutex::new(board),
            outlook: AtomicU64::new(0),
            spare: SpinMutex::new(Vec::new()),
            endian,
        }
    }

    fn outlook(&self) -> Outlook {
        Outlook::unpacked(self.outlook.load(Ordering::Relaxed))
    }

    /// Has the board do something, and publishes what has come of it.
    fn with<T>(&self, act: impl FnOnce(&mut Board) -> T) -> T {
        let mut board = self.board.lock();
        let result = act(&mut board);
        let (level, until) = board.outlook();
        self.outlook.store(Outlook::packed(level, until), Ordering::Relaxed);
        result
    }

    /// Queues console input; how many bytes were taken.
    pub fn input(&self, bytes: &[u8]) -> usize {
        self.with(|board| board.input(bytes))
    }

    /// Hands over the console output so far, with the board's lock free.
    pub fn take_output(&self, sink: &mut dyn FnMut(&[u8])) {
        let mut spare = self.spare.lock();
        let empty = core::mem::take(&mut *spare);
        let mut output = self.with(|board| board.take_output(empty));
        if !output.is_empty() {
            sink(&output);
            output.clear();
        }
        *spare = output;
    }

    /// Brings the lines up to virtual time `now`; the pin's level.
    fn look(&self, now: u64) -> bool {
        self.with(|board| board.interrupts(now)) != 0
    }
}

/// What one VCPU has of the devices for itself.
#[derive(Debug)]
pub(super) struct Own {
    number: u32,
    /// How many VCPUs the VM has.
    of: u32,
    /// Its interrupt of the IPI device is raised.
    interrupted: bool,
    /// It has raised this VCPU's.
    raised: Option<u32>,
    /// What its last access asked for.
    request: Option<Request>,
    /// VCPU 0 should look at the board, for what this one has done.
    look: bool,
}

impl Own {
    pub const fn new(number: u32, of: u32) -> Self {
        Self { number, of, interrupted: false, raised: None, request: None, look: false }
    }

    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Shows what it has to `v`.
    pub fn visit(&mut self, v: &mut impl Visit) -> Result<(), StateError> {
        v.bool(&mut self.interrupted)?;
        v.bool(&mut self.look)?;
        let mut raised = self.raised.map_or(0, |to| to + 1);
        v.u32(&mut raised)?;
        self.raised = raised.checked_sub(1);
        check(self.raised.is_none_or(|to| to < self.of), "whom it interrupts")?;
        let mut request = match self.request {
            None => [0, 0],
            Some(Request::PowerOff) => [1, 0],
            Some(Request::Reset) => [2, 0],
            Some(Request::Output) => [3, 0],
            Some(Request::Warp(ns)) => [4, ns],
        };
        v.all(&mut request)?;
        self.request = match request {
            [0, 0] => None,
            [1, 0] => Some(Request::PowerOff),
            [2, 0] => Some(Request::Reset),
            [3, 0] => Some(Request::Output),
            [4, ns] if ns <= rtc::WARP_MAX => Some(Request::Warp(ns)),
            _ => return Err(StateError::Value("what it asks of its owner")),
        };
        Ok(())
    }

    /// Raises its interrupt of the IPI device.
    pub const fn interrupt(&mut self) {
        self.interrupted = true;
    }

    /// What its accesses have asked for; asked once.
    pub fn take_request(&mut self) -> Option<Request> {
        let request = self.request.take();
        if request == Some(Request::Output) {
            // A transmitter that was held goes on when output has been taken.
            self.look |= self.number != BOARDS;
        }
        request
    }

    /// The VCPU whose interrupt it has raised; asked once.
    pub const fn take_raised(&mut self) -> Option<u32> {
        self.raised.take()
    }

    /// Whether VCPU 0 should look at the board; asked once.
    pub const fn take_look(&mut self) -> bool {
        core::mem::replace(&mut self.look, false)
    }

    /// A power-off or reset is never lost to a lesser request.
    fn ask(&mut self, request: Option<Request>) {
        if !matches!(self.request, Some(Request::PowerOff | Request::Reset)) {
            self.request = request.or(self.request);
        }
    }

    /// Reads a register of the IPI device, as the 32 bits at an offset.
    const fn ipi_read(offset: u64) -> u32 {
        if offset == ipi::ID { ipi::ID_VALUE } else { 0 }
    }

    fn ipi_write(&mut self, offset: u64, value: u32) {
        match offset {
            ipi::RAISE if value == self.number => self.interrupted = true,
            // A number that no VCPU has is nobody's.
            ipi::RAISE if value < self.of => self.raised = Some(value),
            ipi::CLEAR if value == self.number => self.interrupted = false,
            _ => {}
        }
    }
}

/// The devices as one VCPU has them on its bus.
pub(super) struct Port<'a> {
    pub devices: &'a Devices,
    pub own: &'a mut Own,
}

impl Port<'_> {
    /// The IPI device is only there where there is somebody to interrupt.
    fn is_ipi(&self, gpa: Gpa) -> bool {
        self.own.of > 1 && IPI.contains(&gpa.0)
    }

    /// An access to the board.
    fn access<T>(&mut self, act: impl FnOnce(&mut Board) -> T) -> T {
        let before = self.devices.outlook();
        let (result, request) = self.devices.with(|board| (act(board), board.take_request()));
        self.own.ask(request);
        if self.own.number != BOARDS {
            let after = self.devices.outlook();
            self.own.look |= after.level && !before.level || after.until < before.until;
        }
        result
    }

    /// Positions of the 32-bit registers in an access of eight bytes, by address.
    fn shifts(&self) -> [u32; 2] {
        match self.devices.endian {
            Endian::Little => [0, 32],
            Endian::Big => [32, 0],
        }
    }
}

impl Bus for Port<'_> {
    fn read(&mut self, gpa: Gpa, size: u8, now: u64) -> Result<u64, BusError> {
        if !self.is_ipi(gpa) {
            return self.access(|board| board.read(gpa, size, now));
        }
        let offset = gpa.0 - ipi::BASE;
        if size == 8 {
            let [first, second] = self.shifts();
            let words = [offset & !7, offset & !7 | 4].map(|at| u64::from(Own::ipi_read(at)));
            return Ok(words[0] << first | words[1] << second);
        }
        let word = Own::ipi_read(offset & !3);
        let (at, bytes) = (offset as usize & 3, self.devices.endian.bytes32(word));
        Ok(match size {
            1 => bytes[at].into(),
            2 => self.devices.endian.u16([bytes[at & 2], bytes[at & 2 | 1]]).into(),
            _ => word.into(),
        })
    }

    fn write(&mut self, gpa: Gpa, size: u8, value: u64, now: u64) -> Result<(), BusError> {
        if !self.is_ipi(gpa) {
            return self.access(|board| board.write(gpa, size, value, now));
        }
        let offset = gpa.0 - ipi::BASE;
        match size {
            4 => self.own.ipi_write(offset & !3, value as u32),
            8 => {
                // The registers lie eight bytes apart: the second word of each is nothing.
                let [first, _] = self.shifts();
                self.own.ipi_write(offset & !7, (value >> first) as u32);
            }
            // A register is written whole.
            _ => {}
        }
        Ok(())
    }

    fn interrupts(&mut self, now: u64) -> u8 {
        let mut lines = if self.own.interrupted { IPI_LINE } else { 0 };
        if self.own.number == BOARDS {
            let Outlook { level, until } = self.devices.outlook();
            let level = if now < until { level } else { self.devices.look(now) };
            lines |= u8::from(level);
        }
        lines
    }

    fn deadline(&self, now: u64) -> Option<u64> {
        let Outlook { until, .. } = self.devices.outlook();
        let mine = self.own.number == BOARDS && until != Outlook::FOREVER;
        // What is not known to hold is to be asked again at once.
        mine.then(|| until.max(now))
    }

    fn wants_exit(&self) -> bool {
        self.own.request.is_some() || self.own.raised.is_some() || self.own.look
    }
}
