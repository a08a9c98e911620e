//! Which VM runs next, and for how long.
//!
//! Stride scheduling (Waldspurger and Weihl, MIT/LCS/TM-528, 1995): each VM has a *pass*, which grows
//! by the time it has run divided by its weight; the one with the least pass runs next. Of two VMs that
//! always have something to do, neither gets ahead of its share by more than one slice. A VM that
//! waits costs nothing; when it wakes, its pass is raised to that of the VM that ran last, so that it
//! runs soon but can't claim what it did not use.
//!
//! Ties and the lengths of slices are drawn from the run's seed, so that another seed meets other
//! interleavings.

use crate::rng::Rng;
use abi::VmId;
use alloc::vec::Vec;

/// A slice without jitter, in nanoseconds: short beside what a person notices, long beside the cost of
/// a switch.
pub const SLICE_NS: u64 = 8_000_000;
/// Slices are drawn from this much below [`SLICE_NS`] to as much above.
const JITTER_NS: u64 = SLICE_NS / 8;
/// The shortest slice: a VM that wakes does not cut another's shorter.
const SHORTEST_NS: u64 = 1_000_000;
/// What a turn costs at least: else a VM that always stops at once would keep the others out.
const TURN_NS: u64 = 10_000;
/// Pass units in a nanosecond of a VM of weight 1.
const PASS_SCALE: u64 = 1 << 10;

/// What is known of one VM.
#[derive(Debug)]
struct Entry {
    vm: VmId,
    weight: u64,
    pass: u64,
    wait: Wait,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// It has something to do.
    Not,
    /// Until something is typed at it, or this time has come.
    Until(Option<u64>),
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// Run this VM up to this time.
    Run {
        /// Which.
        vm: VmId,
        /// When its slice ends, in nanoseconds of machine time.
        until: u64,
    },
    /// All wait: nothing to do until this time (`None`: until something is typed).
    Nothing {
        /// When the first wakes by itself.
        until: Option<u64>,
    },
}

/// The VMs that one CPU runs.
#[derive(Debug)]
pub struct RunQueue {
    entries: Vec<Entry>,
    /// The pass of the VM that ran last.
    reached: u64,
    rng: Rng,
}

impl RunQueue {
    /// An empty queue that draws from `rng`.
    #[must_use]
    pub const fn new(rng: Rng) -> Self {
        Self { entries: Vec::new(), reached: 0, rng }
    }

    /// A VM wants to run. Weights are relative; 0 counts as 1.
    pub fn add(&mut self, vm: VmId, weight: u32) {
        let entry =
            Entry { vm, weight: u64::from(weight.max(1)), pass: self.reached, wait: Wait::Not };
        self.entries.push(entry);
    }

    /// A VM has ended.
    pub fn remove(&mut self, vm: VmId) {
        self.entries.retain(|e| e.vm != vm);
    }

    fn entry(&mut self, vm: VmId) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|e| e.vm == vm)
    }

    /// A VM has run for `ns`.
    pub fn charge(&mut self, vm: VmId, ns: u64) {
        if let Some(entry) = self.entry(vm) {
            let pass = entry.pass;
            entry.pass += ns.max(TURN_NS).saturating_mul(PASS_SCALE) / entry.weight;
            self.reached = self.reached.max(pass);
        }
    }

    /// A VM waits, until `until` or until it is woken.
    pub fn wait(&mut self, vm: VmId, until: Option<u64>) {
        if let Some(entry) = self.entry(vm) {
            entry.wait = Wait::Until(until);
        }
    }

    /// A VM has something to do.
    pub fn wake(&mut self, vm: VmId) {
        let reached = self.reached;
        if let Some(entry) = self.entry(vm).filter(|e| e.wait != Wait::Not) {
            entry.wait = Wait::Not;
            entry.pass = entry.pass.max(reached);
        }
    }

    /// What to do at time `now`.
    pub fn pick(&mut self, now: u64) -> Pick {
        let mut alarm: Option<u64> = None;
        for entry in &mut self.entries {
            match entry.wait {
                Wait::Until(Some(until)) if until <= now => {
                    entry.wait = Wait::Not;
                    entry.pass = entry.pass.max(self.reached);
                }
                Wait::Until(Some(until)) => alarm = Some(alarm.map_or(until, |a| a.min(until))),
                Wait::Not | Wait::Until(None) => {}
            }
        }
        let runnable = || self.entries.iter().filter(|e| e.wait == Wait::Not);
        let Some(least) = runnable().map(|e| e.pass).min() else {
            return Pick::Nothing { until: alarm };
        };
        let mut tied = runnable().filter(|e| e.pass == least);
        let choice = match tied.clone().count() {
            0 | 1 => 0,
            n => self.rng.below(n as u64) as usize,
        };
        let Some(Entry { vm, .. }) = tied.nth(choice) else {
            return Pick::Nothing { until: alarm };
        };
        let vm = *vm;
        let slice = SLICE_NS - JITTER_NS + self.rng.below(2 * JITTER_NS + 1);
        let end = alarm.unwrap_or(u64::MAX).clamp(now.saturating_add(SHORTEST_NS), now + slice);
        Pick::Run { vm, until: end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(seed: u64, weights: &[u32]) -> RunQueue {
        let mut q = RunQueue::new(Rng::new(seed));
        for (i, &w) in weights.iter().enumerate() {
            q.add(VmId(i as u16), w);
        }
        q
    }

    /// Whatever the weights, busy VMs share the CPU by them at every moment.
    #[test]
    fn busy_vms_get_their_shares() {
        let mut rng = Rng::new(11);
        for case in 0..60 {
            let weights: Vec<u32> = (0..=rng.below(5)).map(|_| 1 + rng.below(400) as u32).collect();
            let mut q = queue(case, &weights);
            let mut ran = alloc::vec![0u64; weights.len()];
            let mut now = 0;
            for _ in 0..3000 {
                let Pick::Run { vm, until } = q.pick(now) else { panic!("all are busy") };
                // A VM may leave a little before its slice ends, or overrun it.
                let used = until - now + rng.below(1000);
                ran[usize::from(vm.0)] += used;
                now += used;
                q.charge(vm, used);
                let longest = SLICE_NS + JITTER_NS + 1000;
                for (a, wa) in ran.iter().zip(&weights) {
                    for (b, wb) in ran.iter().zip(&weights) {
                        let ahead = *a as f64 / f64::from(*wa) - *b as f64 / f64::from(*wb);
                        let bound = longest as f64 / f64::from(*wa.min(wb));
                        assert!(ahead <= 1.01 * bound, "case {case}: {ran:?} of {weights:?}");
                    }
                }
            }
        }
    }

    /// One that mostly waits runs as soon as it wakes, and never gets more than its share by it.
    #[test]
    fn who_wakes_runs_next_and_saves_nothing_up() {
        let mut q = queue(5, &[100, 100]);
        q.wait(VmId(1), Some(900_000_000));
        let mut now = 0;
        while now < 900_000_000 {
            let Pick::Run { vm: VmId(0), until } = q.pick(now) else { panic!("only 0 is busy") };
            assert!(until <= 900_000_000 + SHORTEST_NS, "the slice is cut for who wakes");
            q.charge(VmId(0), until - now);
            now = until;
        }
        let mut turns = [0, 0];
        for _ in 0..100 {
            let Pick::Run { vm, until } = q.pick(now) else { panic!("both are busy") };
            turns[usize::from(vm.0)] += 1;
            assert!(turns != [1, 0], "who wakes is first");
            q.charge(vm, until - now);
            now = until;
        }
        assert!(turns[0] >= 45 && turns[1] >= 45, "{turns:?}");
    }

    #[test]
    fn waiting_costs_no_cpu_and_says_when_it_ends() {
        let mut q = queue(5, &[1, 1, 1]);
        for (vm, until) in [(0, Some(50)), (1, None), (2, Some(40))] {
            q.wait(VmId(vm), until);
        }
        assert_eq!(q.pick(10), Pick::Nothing { until: Some(40) });
        q.wake(VmId(1));
        assert!(matches!(q.pick(10), Pick::Run { vm: VmId(1), .. }));
        q.remove(VmId(1));
        assert!(matches!(q.pick(40), Pick::Run { vm: VmId(2), .. }));
        q.remove(VmId(2));
        assert_eq!(q.pick(49), Pick::Nothing { until: Some(50) });
        q.wait(VmId(0), None);
        assert_eq!(q.pick(60), Pick::Nothing { until: None });
    }

    #[test]
    fn a_seed_decides_all() {
        let run = |seed| {
            let mut q = queue(seed, &[1, 1, 1]);
            let mut now = 0;
            let mut picks = Vec::new();
            for _ in 0..50 {
                let Pick::Run { vm, until } = q.pick(now) else { panic!("all are busy") };
                q.charge(vm, until - now);
                now = until;
                picks.push((vm, until));
            }
            picks
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }
}
