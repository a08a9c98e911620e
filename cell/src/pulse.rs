//! Whether the CPUs of a cell still do something: a cell's first CPU watches the others.
//!
//! Each CPU's clock ticks more than a hundred times a second, whatever it does. One that stands still hangs, with whatever it had in
//! its hands, and its cell can't go on. As in [`crate::talk::watch`], time counts only while somebody looks.

use crate::talk::watch::{SILENCE_NS, STEP_NS};
use abi::CpuId;
use alloc::vec::Vec;

/// What is known of a CPU.
#[derive(Clone, Copy, Debug)]
struct Seen {
    cpu: CpuId,
    ticks: u64,
    /// For how long they have been the same, in nanoseconds.
    still: u64,
}

/// The other CPUs of a cell, as its first one has seen them.
#[derive(Debug)]
pub struct Pulse {
    looked: u64,
    seen: Vec<Seen>,
}

impl Pulse {
    /// Of these CPUs nothing has been seen yet.
    #[must_use]
    pub fn new(cpus: impl IntoIterator<Item = CpuId>) -> Self {
        let seen = cpus.into_iter().map(|cpu| Seen { cpu, ticks: 0, still: 0 });
        Self { looked: 0, seen: seen.collect() }
    }

    /// Looks how often each has ticked: a CPU that hangs, if one does.
    pub fn look(&mut self, now: u64, ticks: impl Fn(CpuId) -> u64) -> Option<CpuId> {
        let step = now.saturating_sub(self.looked).min(STEP_NS);
        self.looked = now;
        for seen in &mut self.seen {
            let ticks = ticks(seen.cpu);
            if ticks == seen.ticks {
                seen.still = seen.still.saturating_add(step);
            } else {
                (seen.ticks, seen.still) = (ticks, 0);
            }
        }
        self.seen.iter().find(|seen| seen.still >= SILENCE_NS).map(|seen| seen.cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_that_stands_still_is_found_and_a_machine_that_does_is_not() {
        const MS: u64 = 1_000_000;
        let mut pulse = Pulse::new([CpuId(1), CpuId(2)]);
        let mut now = 0;
        let mut look = |pulse: &mut Pulse, step, second: u64| {
            now += step;
            pulse.look(now, |cpu| if cpu == CpuId(1) { now } else { second })
        };
        // The machine stands still for ten seconds, a hundred times, and both CPUs with it.
        for round in 0..100 {
            assert_eq!(look(&mut pulse, 10_000 * MS, round), None);
        }
        for _ in 0..299 {
            assert_eq!(look(&mut pulse, 10 * MS, 99), None);
        }
        assert_eq!(look(&mut pulse, MS, 100), None, "in time");
        for _ in 0..299 {
            assert_eq!(look(&mut pulse, 10 * MS, 100), None);
        }
        assert_eq!(look(&mut pulse, 10 * MS, 100), Some(CpuId(2)));
    }
}
