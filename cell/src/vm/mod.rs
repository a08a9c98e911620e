//! A VM's life, as its cell sees it: what runs it, in which state it is, what it has used, why it ended.

mod body;
mod dependence;
mod life;
mod usage;

pub(crate) use body::{Body, Seat, Slot, Visit};
pub use dependence::Dependence;
pub(crate) use life::{Ending, Exchange, Life, State, Then, Vm};
pub use usage::{End, Usage};

use crate::loan::Payload;
use abi::event::Cause;
use abi::{Mpa, NodeId, VmId};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

/// A VCPU of the cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VcpuId {
    /// Its VM.
    pub vm: VmId,
    /// Its number in the VM, as the guest's EBase.CPUNum says.
    pub index: u32,
}

impl fmt::Display for VcpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.vm, self.index)
    }
}

/// What the VCPUs of a loaded virtual machine share: its memory, board and console. It is used while
/// they run, from any CPU of the cell.
pub trait Guest {
    /// Its VCPUs.
    type Vcpu: Vcpu;

    /// Types `bytes` at its console; how many it took. When it took some, VCPU 0 is run soon.
    fn input(&self, bytes: &[u8]) -> usize;

    /// Hands over what its console has printed since the last call.
    fn take_output(&self, sink: &mut dyn FnMut(&[u8]));

    /// What it counts, each with its name, in an order that does not change.
    fn counters(&self, each: &mut dyn FnMut(&'static str, u64));

    /// What executes its kernel mode, in a word.
    fn kernel_engine(&self) -> &'static str;

    /// What whoever started it should know, in a sentence: that it is slower than it could be.
    fn remark(&self) -> Option<&str>;

    /// At home: where page `page` of its memory lies, which is placed near `node` if it is not there. `None` past
    /// the end.
    fn place(&self, page: u32, node: NodeId) -> Option<Mpa>;

    /// At home: where page `page` of its memory lies, if it is there.
    fn find(&self, page: u32) -> Option<Mpa>;

    /// At home: does the access to its devices that `call` says, for a VCPU in another cell: what came of it, in words, and
    /// whether the board may now have an interrupt for VCPU 0. Nothing if it is no such call.
    fn serve(&self, call: &[u64]) -> Option<(Payload, bool)>;

    /// Appends what another cell needs to know to take VCPUs over.
    fn share(&self, out: &mut Vec<u64>);

    /// At home: all of its VCPUs are there, and none goes anywhere before [`Self::share`] is called again.
    fn gather(&self);

    /// Appends the state of one of its VCPUs.
    fn save(&self, vcpu: &mut Self::Vcpu, out: &mut Vec<u64>);

    /// VCPU `index`, of what [`Self::save`] has written in another cell.
    ///
    /// # Errors
    /// The words are no such state, or there is no room for it: why.
    fn restore(&self, index: u32, state: &[u64]) -> Result<Box<Self::Vcpu>, String>;

    /// In a visited cell: the board may have an interrupt for VCPU 0.
    fn look(&self);

    /// How far its time has been warped, in nanoseconds.
    fn warped(&self) -> u64;

    /// In a visited cell: its time has been warped so far at home.
    fn warp_to(&self, ns: u64);
}

/// One VCPU: the join between the cell and an engine. It is in exactly one place at a time, with its
/// cell or on the CPU that runs it.
pub trait Vcpu {
    /// Runs it on this CPU until machine time `until` (nanoseconds since power-on), until somebody
    /// kicks the CPU ([`crate::Machine::kick`]), or until it stops by itself. It may overrun `until`
    /// by what a few thousand instructions take.
    fn run(&mut self, until: u64) -> Exit;

    /// One or more interrupts that other VCPUs sent have arrived: its IPI device raises its line.
    fn interrupt(&mut self);

    /// These pages of its VM's memory have been mapped elsewhere, or not at all: nothing that it
    /// derived from the old pmap may be used again.
    fn forget(&mut self, pages: Range<u32>);

    /// Guest instructions it has executed so far.
    fn instructions(&self) -> u64;

    /// What else it counts, each with its name, in an order that does not change. Counters of one name
    /// are added up over the VM.
    fn counters(&self, each: &mut dyn FnMut(&'static str, u64));
}

/// Why a [`Vcpu`] stopped running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Its time is up, or it was asked back.
    Slice,
    /// It waits for an interrupt.
    Idle {
        /// When one comes by itself, in machine time; `None`: only input or another VCPU brings one.
        until: Option<u64>,
    },
    /// It interrupts another VCPU of its VM (or itself), and goes on.
    Send {
        /// Which; a number that no VCPU has is nobody's.
        to: u32,
    },
    /// By what it did, the board has, or will have, an interrupt for VCPU 0; it goes on itself.
    Board,
    /// In a visited cell: it came to something that ends its VM. It is to be moved home, where it does that again.
    Home,
    /// The VM's life is over.
    Ended {
        /// Why.
        cause: Cause,
        /// For a person: where it was and what it was doing (several lines, or empty).
        report: String,
    },
}
