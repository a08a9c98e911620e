//! Remote calls: one outstanding call an ordered pair of cells, at most once.
//!
//! The caller's half is a [`Client`] a callee, the callee's a [`Server`] a caller; between them lie two lines, the
//! request's in the callee's memory and the reply's in the caller's. A pair of *cells* and not of CPUs, since
//! whatever a call touches lies behind its cell's one lock anyway: more lines would queue at that lock, and every
//! poll would have to look at them.
//!
//! - A new call gets the next sequence number, and only when the last one has been answered. So the callee tells a new
//!   request (its last sequence number plus one) from one that it has executed (that number), and the line can be used
//!   again as soon as the reply is read.
//! - Memory does not lose what was written. A request is written again when the write failed, when the caller
//!   grows impatient, and in every new epoch, with the sequence number it has; a reply when the write failed and in every
//!   new epoch. But an answer that only says how things are ("not here") is not repeated in an epoch that it
//!   knows nothing of: that request is executed anew.
//! - Impatience and bus errors are *suspicion*, told to whoever looks after the live set, and the call goes on. It fails
//!   only when the callee has left the live set: then nobody will execute it any more, since the callee's successor has another
//!   incarnation and reads another epoch.

use super::line::{self, Commit, Fabric, Packet, SEQUENCES, Slot};
use super::live::Live;
use super::mutant::{Mutant, seeded};
use super::request::Reply;
use abi::CellId;

/// The caller's half towards one cell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Client {
    /// The last call's number.
    sequence: u32,
    /// Whether that call has not been answered.
    waiting: bool,
    /// Whether its line is yet to be written in this epoch.
    unwritten: bool,
    /// When it was last written or complained about.
    since: u64,
    /// What it says.
    request: Packet,
}

impl Client {
    /// Whether a call is outstanding.
    #[must_use]
    pub const fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// Since when the outstanding call has waited, or was last found late.
    #[must_use]
    pub const fn since(&self) -> u64 {
        self.since
    }

    /// Begins a call; the last one must have ended. The packet is its request, for the caller to fill in. Writes
    /// nothing: [`Self::push`] does.
    #[must_use = "the request is to be filled in"]
    pub fn start(&mut self, now: u64) -> &mut Packet {
        debug_assert!(!self.waiting);
        self.sequence = (self.sequence + 1) % SEQUENCES;
        self.waiting = true;
        self.unwritten = true;
        self.since = now;
        &mut self.request
    }

    /// Writes the request if it has to be; whether the callee's memory answered.
    pub fn push(&mut self, to: CellId, live: &Live, fabric: &mut impl Fabric) -> bool {
        if self.unwritten {
            let stamp = (self.sequence, live.my_incarnation(), live.epoch());
            self.unwritten = line::write(fabric, to, Slot::Request, stamp, &self.request).is_err();
        }
        !self.unwritten
    }

    /// Whether a line with this commit word may be the reply to the outstanding call.
    #[inline]
    pub fn wants(&self, commit: Commit) -> bool {
        let any = seeded(Mutant::AnyReply) && commit.kind() != 0;
        self.waiting && (commit.sequence() == self.sequence || any)
    }

    /// Whether the line with this commit word is the reply to the outstanding call, which has then ended.
    #[inline]
    pub fn takes(&mut self, from: CellId, live: &Live, commit: Commit) -> bool {
        let taken = self.wants(commit) && live.accepts(from, commit);
        if taken {
            self.finish();
        }
        taken
    }

    /// The outstanding call has been late: it is written once more.
    pub fn late(&mut self, now: u64) {
        self.since = now;
        self.unwritten = true;
        if seeded(Mutant::DoubleRetry) {
            self.sequence = (self.sequence + 1) % SEQUENCES;
        }
    }

    /// A new epoch: what is outstanding is to be written in it.
    pub fn epoch_changed(&mut self) {
        self.unwritten = self.waiting && !seeded(Mutant::RequestNotRepeated);
    }

    /// The callee has left the live set: its successor is a stranger.
    pub fn forget(&mut self) {
        if !seeded(Mutant::SequenceKept) {
            self.sequence = 0;
        }
        self.finish();
    }

    /// The call has ended, one way or the other.
    pub(super) fn finish(&mut self) {
        self.waiting = false;
        self.unwritten = false;
        self.since = 0;
        self.request.clear();
    }
}

/// What has become of a caller's last request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Stage {
    /// There was none.
    #[default]
    Nothing,
    /// It is being executed.
    Executing,
    /// It has been, and the reply is yet to be written in this epoch.
    Unwritten,
    /// It has been, and the reply is written.
    Answered,
    /// It has been answered in an earlier epoch, to no effect: if it comes again, it is executed.
    Void,
}

/// The callee's half towards one cell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Server {
    /// The number of the last request that was taken.
    sequence: u32,
    stage: Stage,
    /// The reply to it.
    reply: Packet,
    /// Whether that reply is as good in the next epoch.
    lasting: bool,
}

impl Server {
    /// Whether a line with this commit word may be the caller's next request.
    #[inline]
    pub fn wants(&self, commit: Commit) -> bool {
        let sequence = commit.sequence();
        if seeded(Mutant::NoDuplicateCheck) {
            return commit.kind() != 0 && self.stage != Stage::Executing;
        }
        match self.stage {
            Stage::Executing => false,
            Stage::Void if sequence == self.sequence => true,
            _ => sequence == (self.sequence + 1) % SEQUENCES,
        }
    }

    /// Whether the line with this commit word is the caller's next request, which is then to be executed, and answered
    /// by [`Self::answer`].
    #[inline]
    pub fn takes(&mut self, from: CellId, live: &Live, commit: Commit) -> bool {
        let taken = self.wants(commit) && live.accepts(from, commit);
        if taken {
            self.sequence = commit.sequence();
            self.stage = Stage::Executing;
            self.reply.clear();
        }
        taken
    }

    /// Answers the request that is being executed. Writes nothing: [`Self::push`] does. A reply that is not `lasting`
    /// says how things are in this epoch, and that nothing was done: in the next one the request is executed anew. False if
    /// there is no request: the caller has died since.
    pub fn answer(&mut self, reply: &Reply, lasting: bool) -> bool {
        if self.stage != Stage::Executing {
            return false;
        }
        reply.encode(&mut self.reply);
        self.lasting = lasting || seeded(Mutant::AnswersOutlast);
        self.stage = Stage::Unwritten;
        true
    }

    /// Writes the reply if it has to be; whether the caller's memory answered.
    pub fn push(&mut self, to: CellId, live: &Live, fabric: &mut impl Fabric) -> bool {
        if self.stage == Stage::Unwritten {
            let stamp = (self.sequence, live.my_incarnation(), live.epoch());
            if line::write(fabric, to, Slot::Reply, stamp, &self.reply).is_err() {
                return false;
            }
            self.stage = Stage::Answered;
        }
        true
    }

    /// A new epoch: the caller may not have read the reply in the old one.
    pub fn epoch_changed(&mut self) {
        match self.stage {
            Stage::Nothing | Stage::Executing | Stage::Void => {}
            Stage::Unwritten | Stage::Answered if !self.lasting => {
                self.stage = Stage::Void;
                self.reply.clear();
            }
            Stage::Unwritten => {}
            Stage::Answered => {
                if !seeded(Mutant::ReplyNotRepeated) {
                    self.stage = Stage::Unwritten;
                }
            }
        }
    }

    /// The caller has left the live set.
    pub fn forget(&mut self) {
        let kept = if seeded(Mutant::SequenceKept) { self.sequence } else { 0 };
        *self = Self { sequence: kept, ..Self::default() };
    }
}
