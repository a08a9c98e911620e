//! When each step of a recovery was done in this cell, until a guest goes on in it: reported as one event, after that.

use super::{LocalCell, Machine, Stage};
use abi::event::Kind;

/// What is noted of the recovery that is under way, if one is. Times are the machine's.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// Since when this cell suspects another one.
    suspected: Option<u64>,
    /// A cell has left the live set, and no guest has gone on since.
    done: Option<Done>,
}

#[derive(Clone, Copy, Debug)]
struct Done {
    suspected_ns: u64,
    agreed_ns: u64,
    unwound_ns: u64,
    scanned_ns: u64,
}

impl Progress {
    /// It suspects another cell, or none any more.
    pub fn suspects(&mut self, any: bool, now: u64) {
        self.suspected = any.then(|| self.suspected.unwrap_or(now));
    }

    /// All have agreed on a live set, in which a cell may be `missing`.
    pub fn agreed(&mut self, missing: bool, now: u64) {
        let since = self.suspected.take().unwrap_or(now);
        if missing {
            // Of two losses that follow each other so soon, one recovery is told.
            let suspected_ns = self.done.map_or(since, |done| done.suspected_ns);
            let times = Done { suspected_ns, agreed_ns: now, unwound_ns: now, scanned_ns: now };
            self.done = Some(times);
        }
    }
}

impl<M: Machine> LocalCell<M> {
    /// Notes how far the recovery has come.
    pub(super) fn mark(&mut self, stage: Stage) {
        self.out.machine.mark(stage);
        let now = self.out.machine.now();
        if let Some(done) = &mut self.progress.done {
            match stage {
                Stage::Suspected | Stage::Waiting => {}
                Stage::Unwound => done.unwound_ns = now,
                Stage::Scanned => done.scanned_ns = now,
            }
        }
    }

    /// A guest has run here from machine time `from` on: if it is the first one since a recovery, that is over.
    pub(super) fn resumed(&mut self, from: u64) {
        if let Some(done) = self.progress.done.take_if(|done| from >= done.scanned_ns) {
            let Done { suspected_ns, agreed_ns, unwound_ns, scanned_ns } = done;
            let resumed_ns = from;
            self.out.event(Kind::Recovered {
                suspected_ns,
                agreed_ns,
                unwound_ns,
                scanned_ns,
                resumed_ns,
            });
        }
    }
}
