//! Talking: how cells ask each other, how a message finds the VCPU it is for, and how a VCPU changes cells.
//!
//! Principles:
//!
//! 1. Every protocol is a plain state machine ([`rpc`], [`message`], [`registry`]), driven by [`Exchange`] over a
//!    [`Fabric`]. The monitor runs it over the real machine, and the model checker searches *the same code*
//!    exhaustively (`docs/talking.md`).
//! 2. Nothing is polled but a cell's own memory, and nothing depends on a doorbell: whatever was written is found by looking.
//! 3. What crosses cells says who wrote it, in which incarnation and in which epoch; it counts only in the same epoch
//!    ([`live`]).
//! 4. Silence is not death. A time-out or a bus error is told as suspicion, and the call goes on; only a change of the
//!    live set ends it.
//! 5. All memory is allocated when the exchange is made, every queue is bounded, and equal input gives equal output.
//!
//! | owner and VM live on | a message is executed exactly once, in its sender's order |
//! |---|---|
//! | the sender dies | at most once |
//! | the owner dies | the sender is told, once |

pub mod agree;
mod ballot;
mod calls;
mod event;
mod exchange;
pub mod line;
pub mod live;
pub mod message;
pub mod mutant;
pub mod registry;
pub mod request;
pub mod rpc;
pub mod watch;

#[cfg(test)]
pub(crate) mod model;

pub use agree::{Agreement, Decision, Finding, LiveSet};
pub use ballot::Ballot;
pub use event::{CellDown, Event, Refusal, Sent, Undelivered};
pub use exchange::{Exchange, MAX_CALLS};
pub use line::{Fabric, Mailbox, Unreachable};
pub use live::{CellSet, Epoch, Incarnation, Live};
pub use message::Message;
pub use request::{Frozen, Hint, Reply, Request, Vcpu};
pub use watch::{Sight, Watch};
