//! What an [`Exchange`](super::Exchange) tells its cell.

use super::message::Message;
use super::request::{Frozen, Reply, Request, Vcpu};
use abi::CellId;

/// The callee has left the live set: the call was executed at most once, and will not be any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CellDown;

/// Why a message was not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Undelivered {
    /// The VCPU died with the cell that owned it. (The message may have been executed there before.)
    Lost,
    /// That life of the VCPU was over.
    Ended,
    /// The owner did not understand it.
    Garbled,
}

/// Why something can't be said now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The cell is not in the live set, or is this one.
    NotLive,
    /// Too much is waiting already: poll first.
    Full,
    /// The VCPU is not this cell's, or on its way.
    NotHere,
    /// There is no such VCPU.
    NoSuchVcpu,
}

/// What became of a message that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sent {
    /// The VCPU is this cell's: execute it. Nothing more is heard of it.
    Execute,
    /// It is on its way: [`Event::Sent`] will tell.
    Waits,
}

/// What the cell has to do, or has waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Another cell asks something that is the cell's business: to be answered by [`Exchange::answer`](super::Exchange::answer), at once or
    /// later.
    Asked {
        /// Which cell.
        from: CellId,
        /// What.
        request: Request,
    },
    /// Another cell offers a VCPU: to be answered by [`Exchange::accept`](super::Exchange::accept) with its state copied, or by
    /// [`Exchange::answer`](super::Exchange::answer) with [`Reply::Refused`].
    Offered {
        /// Which cell.
        from: CellId,
        /// The VCPU.
        vcpu: Vcpu,
        /// Where its state is.
        frozen: Frozen,
    },
    /// A message for one of this cell's VCPUs: execute it.
    Execute {
        /// For whom.
        vcpu: Vcpu,
        /// What.
        message: Message,
    },
    /// A call has ended.
    Returned {
        /// The caller's name for it.
        token: u32,
        /// The callee.
        from: CellId,
        /// How.
        result: Result<Reply, CellDown>,
    },
    /// A message was executed, or will not be any more.
    Sent {
        /// The sender's name for it.
        token: u32,
        /// Which.
        result: Result<(), Undelivered>,
    },
    /// A search has ended.
    Found {
        /// The searcher's name for it.
        token: u32,
        /// The VCPU.
        vcpu: Vcpu,
        /// The cell that has it, or is just giving it away; none if it was lost or its life is over.
        cell: Option<CellId>,
    },
    /// An accepted VCPU is this cell's: let it run.
    Arrived(Vcpu),
    /// An offered VCPU has become the other cell's: forget it.
    Left {
        /// The VCPU.
        vcpu: Vcpu,
        /// The cell.
        to: CellId,
    },
    /// An offered VCPU stays this cell's: let it run.
    Stayed {
        /// The VCPU.
        vcpu: Vcpu,
        /// The reason that the other cell gave, or none if it has died.
        why: Option<u32>,
    },
    /// A cell's memory does not answer, or it has not answered a call for long. That is no evidence of its death.
    Suspect(CellId),
}
