//! What is written: one JSON object a line.

use crate::spec::Spec;
use crate::visit::{Key, Lengths};
use crate::word;
use serde::Serialize;
use std::collections::BTreeMap;

/// How many lengths of visits a record lists.
const LISTED: usize = 32;

/// A line.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Record<'a> {
    /// A CPU has passed a marker: what it has executed so far.
    Marker {
        /// The marker's number.
        marker: u16,
        /// What the monitor has executed since a guest's trap brought it here.
        visit: Option<u64>,
        /// What was executed.
        #[serde(flatten)]
        counts: Counts<'a>,
    },
    /// A guest goes on, for the first time since the monitor passed a marker of those that this is noted of.
    Guest {
        /// That marker's number.
        marker: u16,
        /// What was executed.
        #[serde(flatten)]
        counts: Counts<'a>,
    },
    /// QEMU ends: what a CPU has executed in all.
    Exit {
        /// What was executed.
        #[serde(flatten)]
        counts: Counts<'a>,
    },
    /// Visits to the monitor since the marker before.
    Visit {
        /// The marker that ended the time they were counted in; at the end of QEMU none.
        until: Option<u16>,
        /// The CPU.
        cpu: usize,
        /// The vector's name.
        vector: &'a str,
        /// The guest's instruction, if that can trap by what it is.
        instruction: String,
        /// The monitor's marker.
        marker: u16,
        /// How many.
        count: u64,
        /// The instructions of all.
        sum: u64,
        /// The shortest.
        min: u64,
        /// The length that half of them don't exceed.
        median: u64,
        /// The length that nine in ten don't exceed.
        p90: u64,
        /// The longest.
        max: u64,
        /// The commonest lengths, and how many visits had them.
        lengths: Vec<(u64, u64)>,
    },
}

/// What a CPU has executed.
#[derive(Debug, Serialize)]
pub struct Counts<'a> {
    /// The CPU.
    pub cpu: usize,
    /// Instructions, without loops.
    pub total: u64,
    /// Instructions of loops.
    pub loops: u64,
    /// Of the guests' instructions those that were counted twice: begun, and begun again after a trap.
    pub again: u64,
    /// Instructions by range; an instruction counts in the smallest range around it.
    pub ranges: BTreeMap<&'a str, u64>,
}

impl<'a> Counts<'a> {
    /// From a CPU's counters, and what a guest has begun again. Ranges of the same name are added up.
    pub fn new(spec: &'a Spec, cpu: usize, counters: &[u64], again: u64) -> Self {
        let mut counts = Self { cpu, total: 0, loops: 0, again, ranges: BTreeMap::new() };
        for (counter, &n) in counters.iter().enumerate().take(spec.counters()) {
            *counts.ranges.entry(spec.name(counter)).or_default() += n;
            *if spec.is_loop(counter) { &mut counts.loops } else { &mut counts.total } += n;
        }
        counts
    }
}

/// The record of visits of one kind.
pub fn visit<'a>(
    spec: &'a Spec,
    cpu: usize,
    until: Option<u16>,
    key: Key,
    lengths: &Lengths,
) -> Record<'a> {
    Record::Visit {
        until,
        cpu,
        vector: &spec.vectors[key.vector].0,
        instruction: word::name(key.by),
        marker: key.marker,
        count: lengths.count,
        sum: lengths.sum,
        min: lengths.min,
        median: lengths.percentile(50),
        p90: lengths.percentile(90),
        max: lengths.max,
        lengths: lengths.commonest(LISTED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::visit::Visits;

    #[test]
    fn records_are_json_lines() {
        let args = ["out=x", "loop=idle:0-3", "range=\"q\":8-b", "monitor=m:8-f", "vector=v:8"];
        let spec = Spec::parse(&args.map(String::from)).unwrap();
        let counts = || Counts::new(&spec, 1, &[10, 20, 30, 0], 6);
        assert_eq!(
            serde_json::to_string(&Record::Marker { marker: 7, visit: Some(3), counts: counts() })
                .unwrap(),
            r#"{"kind":"marker","marker":7,"visit":3,"cpu":1,"total":40,"loops":20,"again":6,"ranges":{"\"q\"":30,"idle":20,"m":0,"rest":10}}"#
        );
        let guest = serde_json::to_string(&Record::Guest { marker: 9, counts: counts() }).unwrap();
        assert!(guest.starts_with(r#"{"kind":"guest","marker":9,"cpu":1,"#), "{guest}");
        let exit = serde_json::to_string(&Record::Exit { counts: counts() }).unwrap();
        assert!(exit.starts_with(r#"{"kind":"exit","cpu":1,"total":40,"#), "{exit}");
        let mut visits = Visits::default();
        visits.leave(0);
        visits.enter(0, 0x0c, 0);
        visits.leave(5);
        let (key, lengths) = visits.take().pop_first().unwrap();
        assert_eq!(
            serde_json::to_string(&visit(&spec, 0, None, key, &lengths)).unwrap(),
            r#"{"kind":"visit","until":null,"cpu":0,"vector":"v","instruction":"syscall","marker":0,"count":1,"sum":5,"min":5,"median":5,"p90":5,"max":5,"lengths":[[5,1]]}"#
        );
    }
}
