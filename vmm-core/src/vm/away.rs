//! VCPUs of one VM in several cells.
//!
//! A VM is at *home* in one place, where its board, its output, its warps and its end are; elsewhere its VCPUs
//! *visit*. What a visited place has of the VM is a [`Vm`] of its own ([`Vm::visited`]) with the same memory:
//! a VCPU goes there and comes back by [`Runner::save`](super::Runner::save) and
//! [`Runner::restore`](super::Runner::restore), and is run there as at home.
//!
//! - **Board.** An access of a visiting VCPU is a [`Call`] of home, and its guest goes on with the [`Answer`].
//!   VCPU 0 also asks home for the level of its pin, but only when what it was told has run out, or
//!   [`Vm::look`] was called. The IPI device needs no board: it goes with its VCPU.
//! - **Time.** Both places have one machine's clock. Warps are added at home alone; visited places take over the
//!   sum, by every answer, from every VCPU that comes, and by [`Vm::warp_to`]. A call says which sum its time counts with, so that the
//!   board's time never goes back by a warp that is known at home only.
//! - **Code.** What VCPUs store into code reaches those elsewhere: while a VM is in several places, every
//!   instruction that is interpreted is compared with memory first. ([`Vm::share`] begins with that,
//!   [`Vm::gather`] ends it.)
//! - **Exclusive access.** A store-conditional is a compare-and-swap in memory, which all places share; a link is a
//!   value, and goes with its VCPU.
//! - **Budget.** A visiting VCPU carries what it has spent since it left; home adds it when it is back.
//! - **End.** A VCPU that would end the VM stops with [`Exit::Home`](super::Exit::Home) instead, every time it is run,
//!   and ends it when it is run at home.

use super::devices::{Devices, Outlook};
use super::{End, VCPUS_MAX, Vm, VmParams};
use crate::board::{Request, rtc};
use crate::bus::BusError;
use crate::direct::Policy;
use crate::interp::CodeMap;
use crate::state::{COUNT_MAX, Restorer, StateError, Visit, check};
use abi::Gpa;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use spin::mutex::SpinMutex;

/// Words of a [`Call`].
pub const CALL_WORDS: usize = 5;
/// Words of an [`Answer`].
pub const ANSWER_WORDS: usize = 5;
/// "HCVM" and the number of the format in which a VM is shared.
const VERSION: u64 = 0x4843_564d_0000_0001;

/// Where the board of a VM is that is elsewhere.
pub trait Home: Send + Sync {
    /// Has home serve an access ([`Vm::serve`]), and waits for the answer; `None`: there is no home any more. The
    /// guest then sees a bus error, and an interrupt pin that stays low.
    fn ask(&self, call: &Call) -> Option<Answer>;
}

/// What a visiting VCPU does to the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// A load.
    Read {
        /// From where.
        gpa: Gpa,
        /// Bytes: 1, 2, 4 or 8.
        size: u8,
    },
    /// A store.
    Write {
        /// To where.
        gpa: Gpa,
        /// Bytes: 1, 2, 4 or 8.
        size: u8,
        /// What the register holds.
        value: u64,
    },
    /// A look at the interrupt pin, by VCPU 0.
    Look,
}

/// An access to the board of a VM by a VCPU that visits another cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The VCPU's number.
    pub by: u32,
    /// What it does.
    pub act: Act,
    /// The virtual time, in nanoseconds, where it is …
    pub now: u64,
    /// … and how many of them are warps.
    pub warped: u64,
}

impl Call {
    /// As words.
    #[must_use]
    pub const fn encode(&self) -> [u64; CALL_WORDS] {
        let (kind, gpa, size, value) = match self.act {
            Act::Read { gpa, size } => (0, gpa.0, size, 0),
            Act::Write { gpa, size, value } => (1, gpa.0, size, value),
            Act::Look => (2, 0, 0, 0),
        };
        let first = kind | (size as u64) << 8 | (self.by as u64) << 32;
        [first, gpa, value, self.now, self.warped]
    }

    /// From words; `None`: they are no call.
    #[must_use]
    pub fn decode(words: &[u64]) -> Option<Self> {
        let &[first, gpa, value, now, warped]: &[u64; CALL_WORDS] = words.try_into().ok()?;
        let (gpa, size, by) = (Gpa(gpa), (first >> 8) as u8, (first >> 32) as u32);
        let act = match first as u8 {
            0 => Act::Read { gpa, size },
            1 => Act::Write { gpa, size, value },
            2 => Act::Look,
            _ => return None,
        };
        let call = Self { by, act, now, warped };
        let sized = matches!(size, 1 | 2 | 4 | 8) || act == Act::Look;
        let timely = now < COUNT_MAX && warped <= now;
        // One way to say each.
        (sized && timely && by < VCPUS_MAX && call.encode() == *words).then_some(call)
    }
}

/// What came of a [`Call`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What was read; 0 for a store.
    pub result: Result<u64, BusError>,
    /// What the access asked of whoever runs the VCPU. (A warp has been added, and output is home's affair.)
    pub request: Option<Request>,
    /// The level of the board's interrupt pin …
    pub level: bool,
    /// … and until when, in virtual nanoseconds, it does not change by itself; `u64::MAX / 2`: for ever.
    pub until: u64,
    /// Virtual nanoseconds that warps have added.
    pub warped: u64,
}

impl Answer {
    const OK: u64 = 1;
    const LEVEL: u64 = 2;
    const REQUEST_SHIFT: u32 = 8;

    /// That of a place where no board is.
    pub(super) const fn of_nobody(warped: u64) -> Self {
        Self { result: Err(BusError), request: None, level: false, until: Outlook::FOREVER, warped }
    }

    /// As words.
    #[must_use]
    pub fn encode(&self) -> [u64; ANSWER_WORDS] {
        let (request, ns) = match self.request {
            None => (0, 0),
            Some(Request::PowerOff) => (1, 0),
            Some(Request::Reset) => (2, 0),
            Some(Request::Output) => (3, 0),
            Some(Request::Warp(ns)) => (4, ns),
        };
        let ok = if self.result.is_ok() { Self::OK } else { 0 };
        let level = if self.level { Self::LEVEL } else { 0 };
        let first = ok | level | request << Self::REQUEST_SHIFT;
        [first, self.result.unwrap_or(0), self.until, self.warped, ns]
    }

    /// From words; `None`: they are no answer.
    #[must_use]
    pub fn decode(words: &[u64]) -> Option<Self> {
        let &[first, value, until, warped, ns]: &[u64; ANSWER_WORDS] = words.try_into().ok()?;
        let request = match first >> Self::REQUEST_SHIFT {
            0 => None,
            1 => Some(Request::PowerOff),
            2 => Some(Request::Reset),
            3 => Some(Request::Output),
            4 if ns <= rtc::WARP_MAX => Some(Request::Warp(ns)),
            _ => return None,
        };
        let result = if first & Self::OK != 0 { Ok(value) } else { Err(BusError) };
        let answer = Self { result, request, level: first & Self::LEVEL != 0, until, warped };
        let timely = until <= Outlook::FOREVER && warped < COUNT_MAX;
        (timely && answer.encode() == *words).then_some(answer)
    }
}

/// What of the parameters both places have to agree on, beside the processor.
fn shape(params: &VmParams) -> [u64; 3] {
    let small = u64::from(params.vcpus) << 8 | params.endian as u64;
    [params.memory, u64::from(params.clock_scale.max(1)) << 32 | small, params.budget]
}

impl<M> Vm<M> {
    /// At home, before a VCPU leaves: what another place needs to take VCPUs of the VM, appended to `out`
    /// ([`Vm::visited`]). Until [`Vm::gather`], all VCPUs compare what they have decoded with memory.
    pub fn share(&self, out: &mut Vec<u64>) {
        self.scatter(true);
        out.push(VERSION);
        out.extend(shape(&self.params));
        let Policy { user, kernel, exceptions, translated } = self.policy;
        let policy = u64::from(user)
            | u64::from(kernel) << 1
            | u64::from(exceptions) << 2
            | u64::from(translated) << 3;
        out.extend([self.warped(), self.spent.load(Ordering::Relaxed), policy]);
    }

    /// Where its VCPUs visit: the VM without its board. `params` and what `memory` answers for are as at `home`,
    /// `shared` is what [`Vm::share`] has written there, and so is the clock that its VCPUs are run with.
    ///
    /// # Errors
    /// When the words are not such, or of another VM.
    pub fn visited(
        mut params: VmParams,
        memory: M,
        home: Box<dyn Home>,
        shared: &[u64],
    ) -> Result<Self, StateError> {
        params.vcpus = params.vcpus.clamp(1, VCPUS_MAX);
        let mut words = Restorer(shared);
        if *words.take()? != [VERSION] {
            return Err(StateError::Version);
        }
        if *words.take()? != shape(&params) {
            return Err(StateError::Other);
        }
        let (mut warped, mut spent, mut policy) = (0, 0, 0);
        words.count(&mut warped)?;
        words.count(&mut spent)?;
        words.u64(&mut policy)?;
        check(policy < 16, "what runs directly")?;
        if !words.0.is_empty() {
            return Err(StateError::Long);
        }
        let [user, kernel, exceptions, translated] = [0, 1, 2, 3].map(|bit| policy >> bit & 1 != 0);
        // What is translated at home is interpreted where there is no room for that.
        let translated = translated && params.engine == super::Engine::Translator;
        let policy = Policy { user, kernel, exceptions, translated };
        check(
            params.engine != super::Engine::Interpreter || policy == Policy::NEVER,
            "what runs directly, in a VM that is interpreted",
        )?;
        let vm = Self {
            devices: Devices::away(home, warped, params.endian),
            codes: (params.vcpus > 1).then(|| CodeMap::new(params.memory, params.vcpus)),
            params,
            memory,
            spent: AtomicU64::new(spent),
            end: SpinMutex::new(None::<End>),
            policy,
        };
        vm.scatter(true);
        Ok(vm)
    }

    fn scatter(&self, scattered: bool) {
        self.devices.scatter(scattered);
        if let Some(codes) = &self.codes {
            codes.scatter(scattered);
        }
    }

    /// At home: all its VCPUs are, and none goes away before [`Vm::share`] is called anew. (What they execute then
    /// costs as little as before the VM was shared.)
    pub fn gather(&self) {
        self.scatter(false);
    }

    /// At home: an access of a visiting VCPU, and whether VCPU 0, wherever it is, should look at the board for it: if it
    /// visits, by [`Vm::look`] there. Afterwards the owner takes the console's output, as after a run.
    pub fn serve(&self, call: &Call) -> (Answer, bool) {
        self.devices.serve(call)
    }

    /// Where its VCPUs visit: at home, warps have come to add so much. (It only grows.)
    pub fn warp_to(&self, warped: u64) {
        if self.devices.is_away() && warped < COUNT_MAX {
            self.devices.warped().fetch_max(warped, Ordering::Relaxed);
        }
    }

    /// Where VCPU 0 visits: the board's pin may have changed, so that it is to be asked for at the next poll. (If
    /// the VCPU waits, it should be run anew.)
    pub fn look(&self) {
        self.devices.look();
    }
}
