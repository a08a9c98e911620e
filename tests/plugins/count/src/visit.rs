//! Visits: what happens from a trap of a guest to the guest's next instruction.

use std::collections::BTreeMap;

/// After a monitor's marker from here on, the next instruction of a guest is noted.
pub const AWAITED: u16 = 0x2100;

/// What visits are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The vector, by its number in the arguments.
    pub vector: usize,
    /// The encoding of the guest's instruction that can trap by what it is, if it was the last thing
    /// that the guest did; else 0.
    pub by: u32,
    /// The last marker that the monitor passed during the visit; 0: none.
    pub marker: u16,
}

/// A visit that has not ended.
#[derive(Clone, Copy, Debug)]
struct Open {
    key: Key,
    start: u64,
}

/// The visits of one CPU. Times are instructions of the monitor executed so far.
#[derive(Debug, Default)]
pub struct Visits {
    /// The guest is running.
    outside: bool,
    open: Option<Open>,
    /// When the last `eret` to a guest was executed.
    returned: Option<u64>,
    /// The marker since which a guest is waited for.
    awaited: Option<u16>,
    ended: BTreeMap<Key, Lengths>,
}

impl Visits {
    /// A trap: the vector's first instruction is about to be executed.
    pub fn enter(&mut self, vector: usize, by: u32, now: u64) {
        if !self.outside {
            // An `eret` that did not come to an instruction: that was a visit, and this is another.
            if self.open.is_none() || self.returned != Some(now) {
                // The monitor's own trap.
                return;
            }
            self.end(now);
        }
        self.outside = false;
        self.returned = None;
        self.open = Some(Open { key: Key { vector, by, marker: 0 }, start: now });
    }

    /// An `eret` to a guest has been counted.
    pub const fn returned(&mut self, now: u64) {
        self.returned = Some(now);
    }

    /// An instruction that is not the monitor's is about to be executed, for the first time since the
    /// monitor ran. The marker from [`AWAITED`] on that the monitor has passed meanwhile.
    pub fn leave(&mut self, now: u64) -> Option<u16> {
        self.end(now);
        self.outside = true;
        self.awaited.take()
    }

    /// The monitor passes a marker. The instructions since the guest's trap, if one was the reason for what the
    /// monitor does.
    pub fn mark(&mut self, marker: u16, now: u64) -> Option<u64> {
        if marker >= AWAITED {
            self.awaited = Some(marker);
        }
        let open = self.open.as_mut()?;
        open.key.marker = marker;
        Some(now.saturating_sub(open.start))
    }

    fn end(&mut self, now: u64) {
        if let Some(open) = self.open.take() {
            self.ended.entry(open.key).or_default().add(now.saturating_sub(open.start));
        }
    }

    /// The visits that have ended since the last call.
    pub fn take(&mut self) -> BTreeMap<Key, Lengths> {
        std::mem::take(&mut self.ended)
    }
}

/// Lengths of visits. Those of [`EXACT`] instructions and more are rounded down to one of eight steps
/// a power of two, but for minimum, maximum and sum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lengths {
    by_length: BTreeMap<u64, u64>,
    /// How many.
    pub count: u64,
    /// All their instructions.
    pub sum: u64,
    /// The shortest.
    pub min: u64,
    /// The longest.
    pub max: u64,
}

/// Lengths below are kept as they are.
pub const EXACT: u64 = 1024;

impl Lengths {
    fn add(&mut self, length: u64) {
        self.min = if self.count == 0 { length } else { self.min.min(length) };
        self.max = self.max.max(length);
        self.count += 1;
        self.sum += length;
        let length = match length {
            ..EXACT => length,
            _ => length & !0 << (length.ilog2() - 3),
        };
        *self.by_length.entry(length).or_default() += 1;
    }

    /// The length that `percent` of the visits do not exceed.
    pub fn percentile(&self, percent: u64) -> u64 {
        let wanted = (self.count * percent).div_ceil(100);
        let mut seen = 0;
        for (&length, &count) in &self.by_length {
            seen += count;
            if seen >= wanted {
                // The rounded length of the shortest may be less than that.
                return length.max(self.min);
            }
        }
        0
    }

    /// The commonest lengths, at most `most`: length and how many.
    pub fn commonest(&self, most: usize) -> Vec<(u64, u64)> {
        let mut all: Vec<_> = self.by_length.iter().map(|(&l, &n)| (l, n)).collect();
        all.sort_by_key(|&(length, count)| (std::cmp::Reverse(count), length));
        all.truncate(most);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(vector: usize, by: u32, marker: u16) -> Key {
        Key { vector, by, marker }
    }

    fn lengths(visits: &mut Visits) -> Vec<(Key, Vec<(u64, u64)>)> {
        visits.take().into_iter().map(|(key, l)| (key, l.commonest(10))).collect()
    }

    #[test]
    fn a_visit_lasts_from_trap_to_the_next_guest_instruction() {
        let mut v = Visits::default();
        v.enter(3, 0, 50);
        v.leave(100);
        assert_eq!(lengths(&mut v), [], "the monitor's own trap before any guest ran");
        v.enter(0, 7, 100);
        assert_eq!(v.mark(5, 104), Some(4));
        v.enter(3, 0, 110);
        v.returned(120);
        v.leave(126);
        v.enter(0, 7, 126);
        v.leave(130);
        assert_eq!(lengths(&mut v), [(key(0, 7, 0), vec![(4, 1)]), (key(0, 7, 5), vec![(26, 1)])]);
        assert_eq!(lengths(&mut v), [], "they are handed over once");
    }

    #[test]
    fn a_guest_is_waited_for_after_some_markers() {
        let mut v = Visits::default();
        assert_eq!((v.mark(1, 5), v.leave(9)), (None, None));
        v.enter(0, 0, 9);
        assert_eq!(v.mark(AWAITED, 11), Some(2));
        assert_eq!(v.mark(AWAITED - 1, 12), Some(3));
        assert_eq!(v.leave(20), Some(AWAITED));
        v.enter(0, 0, 20);
        assert_eq!(v.leave(30), None, "it is noted once");
    }

    #[test]
    fn a_return_that_traps_at_once_is_two_visits() {
        let mut v = Visits::default();
        v.leave(0);
        v.enter(3, 1, 0);
        v.returned(40);
        v.enter(1, 0, 40);
        v.returned(60);
        v.leave(60);
        assert_eq!(lengths(&mut v), [(key(1, 0, 0), vec![(20, 1)]), (key(3, 1, 0), vec![(40, 1)])]);
    }

    #[test]
    fn lengths_are_summarised() {
        let mut l = Lengths::default();
        for length in (1..=100).chain([5, 5]) {
            l.add(length);
        }
        assert_eq!((l.count, l.min, l.max, l.sum), (102, 1, 100, 5060));
        assert_eq!((l.percentile(50), l.percentile(90), l.percentile(100)), (49, 90, 100));
        assert_eq!(l.commonest(2), [(5, 3), (1, 1)]);
        let mut l = Lengths::default();
        l.add(1_000_000);
        assert_eq!((l.percentile(50), l.max), (1_000_000, 1_000_000));
        assert_eq!(Lengths::default().percentile(50), 0);
    }
}
