//! Which VCPU each CPU of the cell runs next, and for how long.
//!
//! # One virtual time, a queue a CPU
//!
//! Stride scheduling (Waldspurger and Weihl, MIT/LCS/TM-528, 1995): each VCPU has a *pass*, which grows
//! by the time it has run divided by its share; a CPU runs the VCPU with the least pass of its own
//! queue. Of two VCPUs of one queue that always have something to do, neither gets ahead of its share
//! by more than one slice. A VCPU that waits costs nothing; when it wakes, its pass is raised to that
//! of the VCPU that ran last there, so that it runs soon but can't claim what it did not use.
//!
//! A VM's weight is divided among those of its VCPUs that want a CPU, as Xen's credit scheduler does:
//! VMs of equal weight get equal time, however many VCPUs they have.
//!
//! Queues alone are fair to those in one queue only. Passes are therefore one virtual time for the
//! whole cell: a VCPU that waits in another queue and whose pass is behind the best of this queue by
//! more than [`LAG_NS`] of its own time is *taken over* by this CPU, the nearest queue first. So no
//! VCPU falls behind another by much more than two slices, whatever their numbers and shares, and one
//! that is within its share stays where its caches are. Between takings over a CPU looks at nothing but
//! its own queue and, once a slice, the passes of the others.
//!
//! A CPU with nothing to do takes over a VCPU that waits behind another for a CPU and used up its
//! last slice: else it would be fair to all that nobody gets that CPU. (An idle balancer that knows
//! gangs goes into [`Scheduler::candidate`], a periodic one beside it.)
//!
//! Three bounds keep virtual time meaningful where shares can't be had (one VCPU can't use two CPUs; a
//! pinned one can't leave a crowded CPU): who runs unopposed keeps no claim older than [`CLAIM_NS`] of
//! its own time; nor does who comes into a queue; nor is anybody who comes into a queue kept waiting
//! longer than that for what it has had elsewhere.
//!
//! Ties, the lengths of slices and placement among equals are drawn from the run's seed, so that another
//! seed meets other interleavings.

mod queue;
#[cfg(test)]
mod tests;

use crate::rng::Rng;
use crate::vm::VcpuId;
use abi::{CpuId, NodeId, VmId};
use alloc::vec::Vec;
use queue::{Entry, On, Queue, Slice, distance};

pub use queue::{Doing, Times};

/// A slice without jitter, in nanoseconds: short beside what a person notices, long beside the cost of
/// a switch.
pub const SLICE_NS: u64 = 8_000_000;
/// Slices are drawn from this much below [`SLICE_NS`] to as much above.
const JITTER_NS: u64 = SLICE_NS / 8;
/// The shortest slice: a VCPU that wakes by itself does not cut another's shorter.
const SHORTEST_NS: u64 = 1_000_000;
/// What a turn costs at least: else a VCPU that always stops at once would keep the others out.
const TURN_NS: u64 = 10_000;
/// A rest of a slice that is not worth a turn.
const REST_NS: u64 = 50_000;
/// How far behind a VCPU of another queue is taken over: less would move VCPUs because one's slice
/// begins while the other's ends, more would be unfairness for nothing.
const LAG_NS: u64 = 2 * SLICE_NS;
/// The oldest claim: well above what [`LAG_NS`] lets grow.
const CLAIM_NS: u64 = 6 * SLICE_NS;

/// What a CPU is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// Run this VCPU up to this time.
    Run {
        /// Which.
        who: VcpuId,
        /// When its slice ends, in nanoseconds of machine time.
        until: u64,
    },
    /// All wait: nothing to do until this time (`None`: until somebody wakes one).
    Nothing {
        /// When the first wakes by itself.
        until: Option<u64>,
    },
}

/// A VCPU that has been moved because somebody wanted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Which.
    pub who: VcpuId,
    /// Where it was.
    pub from: CpuId,
    /// Where it is.
    pub to: CpuId,
}

/// A VCPU that comes from another cell.
#[derive(Clone, Copy, Debug)]
pub struct Came {
    /// What it has done so far.
    pub times: Times,
    /// The CPU that it is to be on, and whether it stays there.
    pub goal: Option<(CpuId, bool)>,
    /// It does not run until its VM is unparked.
    pub parked: bool,
}

/// Why a VCPU can't be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Immovable {
    /// It is pinned to another CPU.
    Pinned,
    /// The cell has no such CPU.
    NoCpu,
}

/// How a VCPU stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whose queue it is in.
    pub cpu: CpuId,
    /// That CPU's node.
    pub node: NodeId,
    /// What it does.
    pub doing: Doing,
    /// It stays there.
    pub pinned: bool,
    /// What it has done so far.
    pub times: Times,
}

/// The VCPUs of a cell, and the CPUs that run them.
#[derive(Debug)]
pub struct Scheduler {
    queues: Vec<Queue>,
    /// The greatest pass at which any VCPU began to run.
    reached: u64,
    rng: Rng,
    /// CPUs that are to ask again what to do.
    kicks: Vec<CpuId>,
    moves: Vec<Move>,
}

impl Scheduler {
    /// CPUs without VCPUs, which draws from `rng`.
    #[must_use]
    pub fn new(cpus: &[(CpuId, NodeId)], rng: Rng) -> Self {
        let queues = cpus.iter().map(|&(cpu, node)| Queue::new(cpu, node)).collect();
        Self { queues, reached: 0, rng, kicks: Vec::new(), moves: Vec::new() }
    }

    /// The CPUs, with their nodes.
    pub fn cpus(&self) -> impl Iterator<Item = (CpuId, NodeId)> + '_ {
        self.queues.iter().map(|q| (q.cpu, q.node))
    }

    /// The CPUs that are to come back to the cell: each is to be kicked, once.
    pub fn take_kicks(&mut self) -> impl Iterator<Item = CpuId> + '_ {
        self.kicks.drain(..)
    }

    /// The moves somebody wanted that have been made since the last call.
    pub fn take_moves(&mut self) -> impl Iterator<Item = Move> + '_ {
        self.moves.drain(..)
    }

    fn queue_of(&self, cpu: CpuId) -> Option<usize> {
        self.queues.iter().position(|q| q.cpu == cpu)
    }

    /// The queue of one of the cell's CPUs.
    fn own(&self, cpu: CpuId) -> usize {
        self.queue_of(cpu).expect("a CPU of the cell")
    }

    fn locate(&self, who: VcpuId) -> Option<(usize, usize)> {
        self.queues.iter().enumerate().find_map(|(q, queue)| Some((q, queue.position(who)?)))
    }

    /// How many VCPUs of `vm` want a CPU.
    fn active(&self, vm: VmId) -> u64 {
        let wants = |e: &&Entry| e.who.vm == vm && (e.is_ready() || e.is_running());
        self.queues.iter().map(|q| q.entries.iter().filter(wants).count() as u64).sum()
    }

    /// The VCPUs of a VM of weight `weight` (0 counts as 1) want to run from now on. Each is placed on
    /// the CPU whose VCPUs have the least weight together.
    pub fn add(&mut self, vm: VmId, vcpus: u32, weight: u32, now: u64) {
        for index in 0..vcpus {
            self.put(Entry::new(VcpuId { vm, index }, weight, vcpus, now), None, now);
        }
    }

    /// A VCPU of a VM of that many and of that weight comes from another cell, where it has done what `times` says; to
    /// `goal`, if this cell has that CPU. It wants to run unless it is `parked`. The CPU that it is on from now on.
    pub fn arrive(&mut self, who: VcpuId, of: (u32, u32), came: &Came, now: u64) -> CpuId {
        let (vcpus, weight) = of;
        let mut entry = Entry::new(who, weight, vcpus, now);
        entry.come(came.times);
        entry.parked = came.parked;
        let goal = came.goal.and_then(|(cpu, pin)| Some((self.queue_of(cpu)?, pin)));
        entry.pinned = goal.is_some_and(|(_, pin)| pin);
        let q = self.put(entry, goal.map(|(q, _)| q), now);
        self.queues[q].cpu
    }

    /// A VCPU that does not run leaves the cell: its CPU, and what it has done.
    pub fn leave(&mut self, who: VcpuId, now: u64) -> Option<(CpuId, Times)> {
        let (q, at) = self.locate(who)?;
        let queue = &mut self.queues[q];
        debug_assert!(!queue.entries[at].is_running(), "it stands still");
        let entry = queue.entries.remove(at);
        Some((queue.cpu, entry.times(now)))
    }

    /// The queue that a VCPU is put into: `goal`, or the one whose VCPUs have the least weight together.
    fn put(&mut self, mut entry: Entry, goal: Option<usize>, now: u64) -> usize {
        let q = goal.unwrap_or_else(|| self.least_loaded());
        entry.pass = self.base(q);
        let who = entry.who;
        self.queues[q].entries.push(entry);
        self.arrived(q, who, now);
        q
    }

    fn least_loaded(&mut self) -> usize {
        let own = |q: &Queue| q.entries.iter().map(Entry::load).sum::<u64>();
        let least = self.queues.iter().map(own).min().unwrap_or(0);
        let tied = |queue: &&Queue| own(queue) == least;
        let choice = match self.queues.iter().filter(tied).count() {
            0 | 1 => 0,
            n => self.rng.below(n as u64) as usize,
        };
        let equals = self.queues.iter().enumerate().filter(|(_, queue)| tied(queue));
        equals.map(|(q, _)| q).nth(choice).expect("a cell has a CPU")
    }

    /// The VCPUs of `vm`, none of which runs, are no more.
    pub fn remove(&mut self, vm: VmId) {
        for queue in &mut self.queues {
            queue.entries.retain(|e| e.who.vm != vm);
        }
    }

    /// The pass of who comes into queue `q` without a claim.
    fn base(&self, q: usize) -> u64 {
        let queue = &self.queues[q];
        if queue.is_busy() { queue.reached } else { queue.reached.max(self.reached) }
    }

    /// Somebody in queue `q` has become ready: has its CPU look, if it would run it.
    fn arrived(&mut self, q: usize, who: VcpuId, now: u64) {
        let Some(at) = self.queues[q].position(who) else { return };
        let entry = &self.queues[q].entries[at];
        let (pass, ready) = (entry.pass, entry.is_ready());
        let alarm = self.queues[q].alarm();
        let wanted = match self.queues[q].on {
            On::Awake => false,
            On::Asleep => ready || alarm.is_some(),
            On::Running { who: runner, since, until } => {
                let runs = self.queues[q].position(runner).map(|i| &self.queues[q].entries[i]);
                let spent =
                    |e: &Entry| e.pass + e.cost(now.saturating_sub(since), self.active(runner.vm));
                ready && runs.is_some_and(|e| pass < spent(e))
                    || alarm.is_some_and(|alarm| alarm < until)
            }
        };
        self.queues[q].fresh |= ready;
        if wanted {
            self.kick(q);
        }
    }

    fn kick(&mut self, q: usize) {
        let queue = &mut self.queues[q];
        if queue.on != On::Awake && !core::mem::replace(&mut queue.kicked, true) {
            self.kicks.push(queue.cpu);
        }
    }

    /// The CPU that runs a VCPU, if one does, is to bring it back.
    pub fn recall_one(&mut self, who: VcpuId) {
        let runs = |q: &Queue| matches!(q.on, On::Running { who: runner, .. } if runner == who);
        if let Some(q) = self.queues.iter().position(runs) {
            self.kick(q);
        }
    }

    /// The CPUs that run VCPUs of `vm` are to bring them back.
    pub fn recall(&mut self, vm: VmId) {
        for q in 0..self.queues.len() {
            if matches!(self.queues[q].on, On::Running { who, .. } if who.vm == vm) {
                self.kick(q);
            }
        }
    }

    /// `cpu` has run `who` between these times; `whole`: until its time was up or it was asked back. It
    /// has something to do until [`Self::wait`] says otherwise.
    pub fn ran(&mut self, cpu: CpuId, who: VcpuId, from: u64, to: u64, whole: bool) {
        let q = self.own(cpu);
        let active = self.active(who.vm);
        let reached = self.reached;
        let queue = &mut self.queues[q];
        queue.on = On::Awake;
        let Some(at) = queue.position(who) else { return };
        let ns = to.saturating_sub(from).max(TURN_NS);
        if let Some(slice) = queue.slice.as_mut().filter(|s| s.who == who) {
            slice.spent += ns;
        }
        let unopposed = queue.least().is_none();
        let entry = &mut queue.entries[at];
        let began = entry.pass;
        entry.pass += entry.cost(ns, active);
        if unopposed {
            entry.pass = entry.pass.max(reached.saturating_sub(entry.cost(CLAIM_NS, 1)));
        }
        entry.hog = whole;
        let parked = entry.parked;
        entry.turn_to(Doing::Ready, parked, to);
        queue.reached = queue.reached.max(began);
        self.reached = self.reached.max(began);
        if let Some(goal) = self.queues[q].entries[at].goal.take() {
            self.shift(q, at, goal, to);
            self.moves.push(Move { who, from: cpu, to: self.queues[goal].cpu });
        }
    }

    /// A VCPU that has run waits, until `until` or until it is woken, unless it was woken meanwhile.
    pub fn wait(&mut self, who: VcpuId, until: Option<u64>, now: u64) {
        let Some((q, at)) = self.locate(who) else { return };
        let entry = &mut self.queues[q].entries[at];
        if !core::mem::take(&mut entry.alerted) {
            let parked = entry.parked;
            entry.turn_to(Doing::Waiting(until), parked, now);
        }
    }

    /// There is something for a VCPU: if it waits, it does no more; if it runs, it is asked back.
    pub fn wake(&mut self, who: VcpuId, now: u64) {
        let Some((q, at)) = self.locate(who) else { return };
        match self.queues[q].entries[at].doing {
            Doing::Ready => {}
            Doing::Running => {
                self.queues[q].entries[at].alerted = true;
                self.kick(q);
            }
            Doing::Waiting(_) => {
                let base = self.base(q);
                let entry = &mut self.queues[q].entries[at];
                let parked = entry.parked;
                entry.turn_to(Doing::Ready, parked, now);
                entry.pass = entry.pass.max(base);
                entry.hog = false;
                self.arrived(q, who, now);
            }
        }
    }

    /// A VM is paused, or goes on.
    pub fn park(&mut self, vm: VmId, parked: bool, now: u64) {
        for q in 0..self.queues.len() {
            for at in 0..self.queues[q].entries.len() {
                let base = self.base(q);
                let entry = &mut self.queues[q].entries[at];
                if entry.who.vm != vm || entry.parked == parked {
                    continue;
                }
                let who = entry.who;
                if entry.is_running() {
                    // What it does now is accounted when it comes back.
                    entry.parked = parked;
                } else {
                    entry.turn_to(entry.doing, parked, now);
                    if !parked {
                        entry.pass = entry.pass.max(base);
                        self.arrived(q, who, now);
                    }
                }
            }
        }
    }

    /// Moves the entry `at` of queue `q`, which does not run, to queue `goal`.
    fn shift(&mut self, q: usize, at: usize, goal: usize, now: u64) {
        if q == goal {
            return;
        }
        let base = self.base(goal);
        let mut entry = self.queues[q].entries.remove(at);
        let claim = entry.cost(CLAIM_NS, 1);
        entry.pass = entry.pass.clamp(base.saturating_sub(claim), base.saturating_add(claim));
        entry.moved();
        let who = entry.who;
        self.queues[goal].entries.push(entry);
        self.arrived(goal, who, now);
    }

    /// Moves a VCPU to `cpu`, and keeps it there if `pin`: at once, or if it runs when it has come back.
    ///
    /// # Errors
    /// When it is pinned and `pin` does not say where anew, or the cell has not this CPU.
    pub fn migrate(
        &mut self,
        who: VcpuId,
        cpu: CpuId,
        pin: bool,
        now: u64,
    ) -> Result<(), Immovable> {
        let goal = self.queue_of(cpu).ok_or(Immovable::NoCpu)?;
        let Some((q, at)) = self.locate(who) else { return Ok(()) };
        let entry = &mut self.queues[q].entries[at];
        if entry.pinned && !pin {
            return Err(Immovable::Pinned);
        }
        entry.pinned = pin;
        if entry.is_running() {
            entry.goal = (goal != q).then_some(goal);
            if goal != q {
                self.kick(q);
            }
        } else if goal != q {
            let from = self.queues[q].cpu;
            self.shift(q, at, goal, now);
            self.moves.push(Move { who, from, to: cpu });
        }
        Ok(())
    }

    /// Moves a VCPU that does not run, and is not pinned, to another CPU, without a word; whether it was.
    pub fn place(&mut self, who: VcpuId, cpu: CpuId, now: u64) -> bool {
        let (Some(goal), Some((q, at))) = (self.queue_of(cpu), self.locate(who)) else {
            return false;
        };
        let entry = &self.queues[q].entries[at];
        let moves = goal != q && !entry.is_running() && !entry.pinned;
        if moves {
            self.shift(q, at, goal, now);
        }
        moves
    }

    /// A VCPU may be moved again; whether it was pinned.
    pub fn unpin(&mut self, who: VcpuId) -> bool {
        let Some((q, at)) = self.locate(who) else { return false };
        core::mem::take(&mut self.queues[q].entries[at].pinned)
    }

    /// `cpu` was told to wait without being asked for.
    pub fn sleep(&mut self, cpu: CpuId) {
        let q = self.own(cpu);
        let queue = &mut self.queues[q];
        (queue.on, queue.kicked) = (On::Asleep, false);
    }

    /// How a VCPU stands at `now`.
    #[must_use]
    pub fn standing(&self, who: VcpuId, now: u64) -> Option<Standing> {
        let (q, at) = self.locate(who)?;
        let queue = &self.queues[q];
        let entry = &queue.entries[at];
        let (cpu, node, times) = (queue.cpu, queue.node, entry.times(now));
        Some(Standing { cpu, node, doing: entry.doing, pinned: entry.pinned, times })
    }

    /// What `cpu` is to do at time `now`.
    pub fn pick(&mut self, cpu: CpuId, now: u64) -> Pick {
        let q = self.own(cpu);
        self.wake_due(q, now);
        let queue = &mut self.queues[q];
        (queue.on, queue.kicked) = (On::Awake, false);
        let at = match self.resume(q) {
            Some(at) => at,
            None => {
                let least = self.queues[q].least();
                if let Some((other, at)) = self.candidate(q, least) {
                    self.shift(other, at, q, now);
                }
                match self.choose(q) {
                    Some(at) => at,
                    None => {
                        let queue = &mut self.queues[q];
                        (queue.on, queue.slice) = (On::Asleep, None);
                        return Pick::Nothing { until: queue.alarm() };
                    }
                }
            }
        };
        let queue = &mut self.queues[q];
        let Some(Slice { length, spent, .. }) = queue.slice else { unreachable!("just given") };
        let end = now + (length - spent);
        let shortest = now + SHORTEST_NS.saturating_sub(spent);
        let until = queue.alarm().unwrap_or(u64::MAX).clamp(shortest.min(end), end);
        let entry = &mut queue.entries[at];
        let who = entry.who;
        entry.turn_to(Doing::Running, false, now);
        entry.alerted = false;
        queue.on = On::Running { who, since: now, until };
        self.share(q);
        Pick::Run { who, until }
    }

    /// Has those of queue `q` wake whose time has come.
    fn wake_due(&mut self, q: usize, now: u64) {
        for at in 0..self.queues[q].entries.len() {
            let base = self.base(q);
            let queue = &mut self.queues[q];
            let entry = &mut queue.entries[at];
            if let Doing::Waiting(Some(until)) = entry.doing
                && until <= now
                && !entry.parked
            {
                entry.turn_to(Doing::Ready, false, until);
                entry.pass = entry.pass.max(base);
                entry.hog = false;
                queue.fresh = true;
            }
        }
    }

    /// The VCPU whose slice goes on, if there is one.
    fn resume(&self, q: usize) -> Option<usize> {
        let queue = &self.queues[q];
        let slice = queue.slice?;
        let at = queue.position(slice.who).filter(|&at| queue.entries[at].is_ready())?;
        let left = slice.length.saturating_sub(slice.spent);
        let give_way = queue.fresh && slice.spent >= SHORTEST_NS;
        (left > REST_NS && !give_way).then_some(at)
    }

    /// Gives a slice to the VCPU with the least pass of queue `q`.
    fn choose(&mut self, q: usize) -> Option<usize> {
        let queue = &mut self.queues[q];
        queue.fresh = false;
        let least = queue.least()?;
        let equal = |e: &Entry| e.is_ready() && e.pass == least;
        let choice = match queue.entries.iter().filter(|e| equal(e)).count() {
            0 | 1 => 0,
            n => self.rng.below(n as u64) as usize,
        };
        let mut tied = (0..queue.entries.len()).filter(|&at| equal(&queue.entries[at]));
        let at = tied.nth(choice)?;
        let length = SLICE_NS - JITTER_NS + self.rng.below(2 * JITTER_NS + 1);
        queue.slice = Some(Slice { who: queue.entries[at].who, length, spent: 0 });
        Some(at)
    }

    /// The VCPU that queue `q`, whose best has the pass `least`, takes over from another.
    fn candidate(&self, q: usize, least: Option<u64>) -> Option<(usize, usize)> {
        let here = self.queues[q].node;
        let mut found: Option<(u32, u64, usize, usize)> = None;
        for (other, queue) in self.queues.iter().enumerate() {
            // Who is ready on a CPU that does not run anything is about to be run there.
            let On::Running { who: runner, .. } = queue.on else { continue };
            for (at, entry) in queue.entries.iter().enumerate() {
                let free = entry.is_ready() && !entry.pinned && entry.who != runner;
                let behind = match least {
                    Some(least) => {
                        entry.pass.saturating_add(entry.cost(LAG_NS, self.active(entry.who.vm)))
                            < least
                    }
                    None => entry.hog,
                };
                let key = (distance(here, queue.node), entry.pass);
                if other != q && free && behind && found.is_none_or(|(d, p, ..)| key < (d, p)) {
                    found = Some((key.0, key.1, other, at));
                }
            }
        }
        found.map(|(.., other, at)| (other, at))
    }

    /// Has the nearest CPU with nothing to do look for work, if there is some in queue `q`.
    fn share(&mut self, q: usize) {
        if !self.queues[q].entries.iter().any(|e| e.is_ready() && e.hog && !e.pinned) {
            return;
        }
        let here = self.queues[q].node;
        let sleeps = |other: &usize| self.queues[*other].on == On::Asleep;
        let asleep = (0..self.queues.len()).filter(sleeps);
        if let Some(other) = asleep.min_by_key(|&o| distance(here, self.queues[o].node)) {
            self.kick(other);
        }
    }
}
