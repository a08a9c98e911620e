//! One CPU's run queue: the VCPUs that are to run on it, and what it does just now.

use crate::vm::VcpuId;
use abi::{CpuId, NodeId};
use alloc::vec::Vec;

/// Pass units in a nanosecond of a VCPU of weight 1.
const PASS_SCALE: u64 = 1 << 10;

/// How long a VCPU has been in each state, in nanoseconds, and how often it was moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// It ran.
    pub run: u64,
    /// It was ready and no CPU ran it: steal time.
    pub steal: u64,
    /// It waited for an interrupt.
    pub idle: u64,
    /// It was paused.
    pub paused: u64,
    /// How often it was moved to another CPU.
    pub migrations: u64,
}

impl Times {
    /// As words.
    pub(crate) const fn words(&self) -> [u64; 5] {
        [self.run, self.steal, self.idle, self.paused, self.migrations]
    }

    /// What another VCPU did, as well.
    pub(crate) const fn add(&mut self, more: &Self) {
        self.run += more.run;
        self.steal += more.steal;
        self.idle += more.idle;
        self.paused += more.paused;
        self.migrations += more.migrations;
    }

    /// What [`Self::words`] made.
    pub(crate) const fn of_words(words: &[u64; 5]) -> Self {
        let [run, steal, idle, paused, migrations] = *words;
        Self { run, steal, idle, paused, migrations }
    }
}

/// What a VCPU does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// A CPU runs it.
    Running,
    /// It has something to do.
    Ready,
    /// It waits until this time has come or somebody wakes it.
    Waiting(Option<u64>),
}

/// What is known of one VCPU.
#[derive(Debug)]
pub(super) struct Entry {
    pub who: VcpuId,
    /// The share of its VM.
    pub weight: u64,
    /// VCPUs of its VM.
    pub siblings: u32,
    /// Its virtual time: what it has run, by its share.
    pub pass: u64,
    pub doing: Doing,
    /// It is not to run, whatever it does.
    pub parked: bool,
    /// It stays on its CPU.
    pub pinned: bool,
    /// The queue to which it is moved when it comes back.
    pub goal: Option<usize>,
    /// It ran until its time was up when it last ran: it will again.
    pub hog: bool,
    /// Somebody woke it while it ran: should it say that it waits, it has not seen why it should not.
    pub alerted: bool,
    /// Since when it does this.
    since: u64,
    times: Times,
}

impl Entry {
    /// A VCPU that is ready.
    pub fn new(who: VcpuId, weight: u32, siblings: u32, now: u64) -> Self {
        Self {
            who,
            weight: u64::from(weight.max(1)),
            siblings,
            pass: 0,
            doing: Doing::Ready,
            parked: false,
            pinned: false,
            goal: None,
            hog: false,
            alerted: false,
            since: now,
            times: Times::default(),
        }
    }

    pub fn is_ready(&self) -> bool {
        self.doing == Doing::Ready && !self.parked
    }

    pub fn is_running(&self) -> bool {
        self.doing == Doing::Running
    }

    /// It does something else from `now` on; what it did until then is accounted.
    pub fn turn_to(&mut self, doing: Doing, parked: bool, now: u64) {
        self.times = self.times(now);
        (self.doing, self.parked, self.since) = (doing, parked, self.since.max(now));
    }

    /// What it has done up to `now`.
    pub fn times(&self, now: u64) -> Times {
        let mut times = self.times;
        let time = match self.doing {
            Doing::Running => &mut times.run,
            _ if self.parked => &mut times.paused,
            Doing::Ready => &mut times.steal,
            Doing::Waiting(_) => &mut times.idle,
        };
        *time += now.saturating_sub(self.since);
        times
    }

    /// It has come from another cell, where it had done this.
    pub const fn come(&mut self, times: Times) {
        self.times = times;
    }

    /// It was moved to another CPU.
    pub const fn moved(&mut self) {
        self.times.migrations += 1;
    }

    /// Its share of its VM's weight, for placement, in units that leave something over.
    pub const fn load(&self) -> u64 {
        (self.weight << 16) / self.siblings as u64
    }

    /// What `ns` cost it, in units of pass, while `active` VCPUs of its VM want CPUs.
    pub fn cost(&self, ns: u64, active: u64) -> u64 {
        ns.saturating_mul(PASS_SCALE * active.max(1)) / self.weight
    }
}

/// What a CPU does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    /// It is in the monitor and will ask what to do.
    Awake,
    /// It was told that there is nothing to do.
    Asleep,
    /// It runs this VCPU since and until these times.
    Running { who: VcpuId, since: u64, until: u64 },
}

/// A slice that was given to a VCPU: several turns, if it comes back early and wants to go on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice {
    pub who: VcpuId,
    pub length: u64,
    pub spent: u64,
}

/// One CPU's queue.
#[derive(Debug)]
pub(super) struct Queue {
    pub cpu: CpuId,
    pub node: NodeId,
    pub entries: Vec<Entry>,
    /// The greatest pass at which one began to run.
    pub reached: u64,
    pub on: On,
    pub slice: Option<Slice>,
    /// Somebody has become ready since the slice began.
    pub fresh: bool,
    /// It was kicked and has not asked since.
    pub kicked: bool,
}

impl Queue {
    pub const fn new(cpu: CpuId, node: NodeId) -> Self {
        Self {
            cpu,
            node,
            entries: Vec::new(),
            reached: 0,
            on: On::Awake,
            slice: None,
            fresh: false,
            kicked: false,
        }
    }

    pub fn position(&self, who: VcpuId) -> Option<usize> {
        self.entries.iter().position(|e| e.who == who)
    }

    /// The least pass of a VCPU that is ready.
    pub fn least(&self) -> Option<u64> {
        self.entries.iter().filter(|e| e.is_ready()).map(|e| e.pass).min()
    }

    /// Whether a VCPU runs or wants to.
    pub fn is_busy(&self) -> bool {
        self.entries.iter().any(|e| e.is_ready() || e.is_running())
    }

    /// When the first VCPU wakes by itself.
    pub fn alarm(&self) -> Option<u64> {
        let waits = |e: &Entry| match e.doing {
            Doing::Waiting(until) if !e.parked => until,
            _ => None,
        };
        self.entries.iter().filter_map(waits).min()
    }
}

/// Hops between two nodes of the hypercube, of which two share a router.
pub(super) const fn distance(a: NodeId, b: NodeId) -> u32 {
    if a.0 == b.0 { 0 } else { 1 + ((a.0 >> 1) ^ (b.0 >> 1)).count_ones() }
}
