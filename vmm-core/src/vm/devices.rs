//! The devices of a VM, for VCPUs on several CPUs at once.
//!
//! The board is behind a lock, which is held for one access, or one look at what a device does by itself,
//! and never while guest code runs. What VCPU 0 asks at every poll is published in a word of its own:
//! the level of the board's interrupt pin, and until when it will not change by itself.
//!
//! The board interrupts VCPU 0, as on Malta; whoever's access changes that VCPU's prospects asks for an exit
//! ([`Own::take_look`]), so that the owner lets it look. What belongs to one VCPU alone, the IPI device
//! ([`abi::ipi`]) above all, is in [`Own`] and needs no lock.
//!
//! Where VCPUs only visit, the board is [`Place::Away`]: every access is a call ([`super::away`]), and the
//! published word is what VCPU 0, if it visits too, was told last. It alone writes it.

use super::away::{Act, Answer, Call, Home};
use crate::board::{Board, Request, rtc};
use crate::bus::{Bus, BusError};
use crate::endian::Endian;
use crate::state::{StateError, Visit, check};
use abi::{Gpa, ipi};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use spin::mutex::SpinMutex;

/// The IPI device's interrupt line: Cause.IP3.
const IPI_LINE: u8 = 1 << 1;
/// Where the IPI device's registers are.
const IPI: Range<u64> = ipi::BASE..ipi::BASE + ipi::CLEAR + 4;
/// The only one that the board interrupts.
const BOARDS: u32 = 0;

/// The board, what VCPU 0 wants to know without asking it, and the warps of time that it has asked for.
#[derive(Debug)]
pub(super) struct Devices {
    place: Place,
    /// Bit 0: the level of the pin; the rest: until when it holds, the greatest value for ever.
    outlook: AtomicU64,
    /// Virtual nanoseconds that warps have added. Only where the board is are they added.
    warped: AtomicU64,
    /// VCPUs, perhaps VCPU 0, may be in other cells.
    scattered: AtomicBool,
    endian: Endian,
}

/// Where the board is.
enum Place {
    Here {
        board: Box<SpinMutex<Board>>,
        /// What output is exchanged for; whoever holds it hands output over, so that it stays in order.
        spare: SpinMutex<Vec<u8>>,
    },
    Away {
        home: Box<dyn Home>,
        /// What VCPU 0 was told may no longer be so.
        stale: AtomicBool,
    },
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here { board, .. } => f.debug_tuple("Here").field(board).finish(),
            Self::Away { stale, .. } => f.debug_tuple("Away").field(stale).finish(),
        }
    }
}

/// What the published word says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Outlook {
    /// The pin.
    pub level: bool,
    /// Until when it keeps that level by itself.
    pub until: u64,
}

impl Outlook {
    /// No end.
    pub const FOREVER: u64 = u64::MAX >> 1;
    /// Of a board that is not there.
    const NEVER: Self = Self { level: false, until: Self::FOREVER };

    const fn unpacked(word: u64) -> Self {
        Self { level: word & 1 != 0, until: word >> 1 }
    }

    fn packed(self) -> u64 {
        self.until.min(Self::FOREVER) << 1 | u64::from(self.level)
    }
}

/// What an access to the board has come to.
struct Done {
    result: Result<u64, BusError>,
    request: Option<Request>,
    outlook: Outlook,
    /// It has changed the prospects of VCPU 0, which is another.
    look: bool,
}

impl Devices {
    /// With the board here.
    pub fn new(board: Board, endian: Endian) -> Self {
        let board = Box::new(SpinMutex::new(board));
        Self::at(Place::Here { board, spare: SpinMutex::new(Vec::new()) }, endian)
    }

    /// With the board elsewhere, after so many nanoseconds of warps.
    pub fn away(home: Box<dyn Home>, warped: u64, endian: Endian) -> Self {
        let devices = Self::at(Place::Away { home, stale: AtomicBool::new(false) }, endian);
        devices.warped.store(warped, Ordering::Relaxed);
        devices
    }

    const fn at(place: Place, endian: Endian) -> Self {
        let (outlook, warped) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { place, outlook, warped, scattered: AtomicBool::new(false), endian }
    }

    /// Whether the board is elsewhere.
    pub const fn is_away(&self) -> bool {
        matches!(self.place, Place::Away { .. })
    }

    /// Virtual nanoseconds that warps have added.
    pub const fn warped(&self) -> &AtomicU64 {
        &self.warped
    }

    /// Whether VCPUs may be in other cells from now on.
    pub fn scatter(&self, scattered: bool) {
        self.scattered.store(scattered, Ordering::Relaxed);
    }

    fn outlook(&self) -> Outlook {
        Outlook::unpacked(self.outlook.load(Ordering::Relaxed))
    }

    /// Publishes what is to be expected of the board.
    fn publish(&self, board: &Board) -> Outlook {
        let (level, until) = board.outlook();
        let outlook = Outlook { level, until };
        self.outlook.store(outlook.packed(), Ordering::Relaxed);
        outlook
    }

    /// Queues console input; how many bytes were taken.
    pub fn input(&self, bytes: &[u8]) -> usize {
        let Place::Here { board, .. } = &self.place else { return 0 };
        let mut board = board.lock();
        let taken = board.input(bytes);
        self.publish(&board);
        taken
    }

    /// Hands over the console output so far, with the board's lock free.
    pub fn take_output(&self, sink: &mut dyn FnMut(&[u8])) {
        let Place::Here { board, spare } = &self.place else { return };
        let mut spare = spare.lock();
        let empty = core::mem::take(&mut *spare);
        let mut output = {
            let mut board = board.lock();
            let output = board.take_output(empty);
            self.publish(&board);
            output
        };
        if !output.is_empty() {
            sink(&output);
            output.clear();
        }
        *spare = output;
    }

    /// VCPU 0, if it visits, asks at its next poll.
    pub fn look(&self) {
        if let Place::Away { stale, .. } = &self.place {
            stale.store(true, Ordering::Release);
        }
    }

    /// An access, here, of VCPU `by`.
    fn access(&self, board: &SpinMutex<Board>, by: u32, act: Act, now: u64) -> Done {
        let mut board = board.lock();
        let before = self.outlook();
        let result = match act {
            Act::Read { gpa, size } => board.read(gpa, size, now),
            Act::Write { gpa, size, value } => board.write(gpa, size, value, now).map(|()| 0),
            Act::Look => Ok(board.interrupts(now).into()),
        };
        let request = board.take_request();
        if let Some(Request::Warp(ns)) = request {
            self.warped.fetch_add(ns, Ordering::Relaxed);
        }
        let outlook = self.publish(&board);
        // Elsewhere VCPU 0 does not see what is published here, so that it is told of a fallen pin too.
        let scattered = self.scattered.load(Ordering::Relaxed);
        let other = outlook.level != before.level && (outlook.level || scattered);
        let look = by != BOARDS && (other || outlook.until < before.until);
        Done { result, request, outlook, look }
    }

    /// An access of a VCPU that visits another cell; and whether VCPU 0, which is another, should look.
    pub fn serve(&self, call: &Call) -> (Answer, bool) {
        let warped = || self.warped.load(Ordering::Relaxed);
        let Place::Here { board, .. } = &self.place else {
            return (Answer::of_nobody(warped()), false);
        };
        // Warps that the other cell has not been told of count all the same.
        let now = call.now.saturating_sub(call.warped).saturating_add(warped());
        let mut done = self.access(board, call.by, call.act, now);
        if done.request == Some(Request::Output) {
            // The owner sees to that here; and a transmitter that was held goes on when it has.
            done.request = None;
            if call.by == BOARDS {
                done.outlook.until = 0;
            } else {
                done.look = true;
            }
        }
        let Outlook { level, until } = done.outlook;
        let until = until.min(Outlook::FOREVER);
        let Done { result, request, look, .. } = done;
        (Answer { result, request, level, until, warped: warped() }, look)
    }

    /// Asks home, for VCPU `by`.
    fn ask(&self, home: &dyn Home, by: u32, act: Act, now: u64) -> Option<Answer> {
        let answer = home.ask(&Call { by, act, now, warped: self.warped.load(Ordering::Relaxed) });
        if let Some(answer) = &answer {
            self.warped.fetch_max(answer.warped, Ordering::Relaxed);
        }
        if by == BOARDS {
            let told = answer.as_ref();
            let outlook =
                told.map_or(Outlook::NEVER, |a| Outlook { level: a.level, until: a.until });
            self.outlook.store(outlook.packed(), Ordering::Relaxed);
        }
        answer
    }

    /// The pin's level at virtual time `now`, for VCPU 0.
    fn pin(&self, now: u64) -> bool {
        let Outlook { level, until } = self.outlook();
        match &self.place {
            Place::Here { .. } if now < until => level,
            Place::Here { board, .. } => {
                let mut board = board.lock();
                let lines = board.interrupts(now);
                self.publish(&board);
                lines != 0
            }
            Place::Away { home, stale } => {
                // Before it asks: what changes while it does is asked after again.
                let told = stale.load(Ordering::Relaxed) && stale.swap(false, Ordering::AcqRel);
                if now < until && !told {
                    return level;
                }
                let answer = self.ask(&**home, BOARDS, Act::Look, now);
                answer.is_some_and(|answer| answer.level)
            }
        }
    }

    /// When VCPU 0 wants to be asked again, at the latest; `None`: never.
    fn deadline(&self, now: u64) -> Option<u64> {
        let is_stale =
            matches!(&self.place, Place::Away { stale, .. } if stale.load(Ordering::Relaxed));
        match self.outlook().until {
            // What is not known to hold is to be asked again at once.
            _ if is_stale => Some(now),
            Outlook::FOREVER => None,
            until => Some(until.max(now)),
        }
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

    /// The end of the VM that it has asked for, if it has.
    pub const fn end(&self) -> Option<Request> {
        match self.request {
            Some(Request::PowerOff | Request::Reset) => self.request,
            _ => None,
        }
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
    fn access(&mut self, act: Act, now: u64) -> Result<u64, BusError> {
        let Self { devices, own } = self;
        match &devices.place {
            Place::Here { board, .. } => {
                let done = devices.access(board, own.number, act, now);
                own.ask(done.request);
                own.look |= done.look;
                done.result
            }
            Place::Away { home, .. } => {
                let answer = devices.ask(&**home, own.number, act, now).ok_or(BusError)?;
                own.ask(answer.request);
                answer.result
            }
        }
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
            return self.access(Act::Read { gpa, size }, now);
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
            return self.access(Act::Write { gpa, size, value }, now).map(|_| ());
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
            lines |= u8::from(self.devices.pin(now));
        }
        lines
    }

    fn deadline(&self, now: u64) -> Option<u64> {
        if self.own.number == BOARDS { self.devices.deadline(now) } else { None }
    }

    fn wants_exit(&self) -> bool {
        self.own.request.is_some() || self.own.raised.is_some() || self.own.look
    }
}
