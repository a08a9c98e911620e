//! What a run's counts and lines say: distributions, from the records of the counting plugin (docs/counting.md)
//! and from the monitor's own answers.

use crate::run::count::{Counts, Record, Visit};
use serde::Serialize;
use std::collections::BTreeMap;

/// The monitor's markers (`kernel/src/cpus.rs`, `doorbell.rs`, `guest.rs`).
mod marker {
    /// A CPU asks who has rung.
    pub const RUNG: u16 = 0x2001;
    /// It has done what it was rung for.
    pub const TALKED: u16 = 0x2002;
    /// It has handed a VCPU back.
    pub const BACK: u16 = 0x2003;
    /// It comes out of its `wait`.
    pub const WOKEN: u16 = 0x2004;
    /// It is about to run a VCPU.
    pub const RUN: u16 = super::LAUNCH;
    /// The pair of `debug markers`.
    pub const DEBUG: [u16; 2] = [1, 2];
}

/// The marker that the monitor passes when it is about to run a VCPU.
pub const LAUNCH: u16 = 0x2100;

/// A distribution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// How many.
    pub count: u64,
    /// The least.
    pub min: u64,
    /// What half of them don't exceed.
    pub median: u64,
    /// What 90 % don't exceed.
    pub p90: u64,
    /// What 99 % don't exceed.
    pub p99: u64,
    /// The greatest.
    pub max: u64,
}

impl Spread {
    /// Of these values; none if there is none.
    pub fn of(mut values: Vec<u64>) -> Option<Self> {
        values.sort_unstable();
        let at = |percent: usize| values[(values.len() * percent).div_ceil(100).max(1) - 1];
        let (min, max) = (*values.first()?, *values.last()?);
        let count = values.len() as u64;
        Some(Self { count, min, median: at(50), p90: at(90), p99: at(99), max })
    }

    /// Of the commonest lengths of visits. (The plugin lists 32 of a kind; long ones are rounded down.)
    fn of_visits<'a>(visits: impl Iterator<Item = &'a Visit>) -> Option<Self> {
        let mut values = Vec::new();
        let mut max = 0;
        for visit in visits {
            max = max.max(visit.max);
            for (length, count) in &visit.lengths {
                values.extend(std::iter::repeat_n(*length, *count as usize));
            }
        }
        Self::of(values).map(|spread| Self { max: max.max(spread.max), ..spread })
    }
}

/// What there was between two markers of a CPU.
fn between(records: &[Record], cpu: usize, from: u16, to: u16) -> Vec<u64> {
    let mut begun = None;
    let mut out = Vec::new();
    for record in records {
        if let Record::Marker { marker, counts, .. } = record
            && counts.cpu == cpu
        {
            if *marker == to
                && let Some(begun) = begun.take()
            {
                out.push(counts.total - begun);
            }
            if *marker == from {
                begun = Some(counts.total);
            }
        }
    }
    out
}

/// What a CPU executed each time it was rung for and talked.
pub fn talks(records: &[Record], cpu: usize) -> Option<Spread> {
    Spread::of(between(records, cpu, marker::RUNG, marker::TALKED))
}

/// What it costs to talk on a CPU that runs a guest, from the guest's trap until a guest goes on.
pub fn talks_in_guest(records: &[Record], cpu: usize) -> Option<Spread> {
    let mut begun = None;
    let mut out = Vec::new();
    for record in records {
        match record {
            Record::Marker { marker: marker::TALKED, visit: Some(visit), counts }
                if counts.cpu == cpu =>
            {
                begun = Some(counts.total - visit);
            }
            Record::Guest { counts, .. } if counts.cpu == cpu => {
                out.extend(begun.take().map(|begun| counts.total - begun));
            }
            _ => {}
        }
    }
    Spread::of(out)
}

/// What a guest's tick costs at which the monitor finds nothing to do.
pub fn guest_ticks(records: &[Record], cpu: usize) -> Option<Spread> {
    Spread::of_visits(records.iter().filter_map(|record| match record {
        Record::Visit(visit)
            if visit.cpu == cpu && visit.marker == 0 && visit.vector == "interrupt" =>
        {
            Some(visit)
        }
        _ => None,
    }))
}

/// What a CPU that has nothing to do executes from one waking to the next, while the script waited between two
/// `debug markers`.
pub fn idle_ticks(records: &[Record], cpu: usize) -> Option<Spread> {
    let debug = |record: &Record, which: u16| matches!(record, Record::Marker { marker, .. } if *marker == which);
    let [first, last] = marker::DEBUG;
    let begin = records.iter().position(|record| debug(record, last))?;
    let end = begin + records[begin..].iter().position(|record| debug(record, first))?;
    Spread::of(between(&records[begin..end], cpu, marker::WOKEN, marker::WOKEN))
}

/// A VCPU's move to another CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The CPU that it left.
    pub from: usize,
    /// The CPU that it came to.
    pub to: usize,
    /// What the former executed for it.
    pub left: u64,
    /// What the latter executed for it.
    pub came: u64,
}

/// The function of the monitor that moves a VCPU from queue to queue, counted apart for [`moves`].
pub const SHIFT: &str = "cell::sched::Scheduler>::shift";

/// The moves within its cell of the only VCPU of a machine: what the CPU that it left executed from its last trap until
/// it was handed over, and what the other one did from its waking until the VCPU's first instruction. Those
/// are left out in which some third CPU, to which the operator's command came, took the VCPU out of its queue.
pub fn moves(records: &[Record]) -> Vec<Move> {
    let shifts = |counts: &Counts| -> u64 {
        counts.ranges.iter().filter(|(name, _)| name.contains(SHIFT)).map(|(_, count)| count).sum()
    };
    let mut out = Vec::new();
    let mut shifted: BTreeMap<usize, u64> = BTreeMap::new();
    let mut back: Option<(usize, u64)> = None;
    let mut woken: BTreeMap<usize, u64> = BTreeMap::new();
    for record in records {
        match record {
            Record::Marker { marker: marker::BACK, visit: Some(visit), counts } => {
                let has_shifted = shifts(counts) > *shifted.get(&counts.cpu).unwrap_or(&0);
                back = has_shifted.then_some((counts.cpu, *visit));
            }
            Record::Marker { marker: marker::WOKEN, counts, .. } => {
                woken.insert(counts.cpu, counts.total);
            }
            Record::Guest { marker: marker::RUN, counts: Counts { cpu, total, .. } } => {
                let back = back.take().filter(|(from, _)| from != cpu);
                if let (Some((from, left)), Some(woken)) = (back, woken.get(cpu)) {
                    out.push(Move { from, to: *cpu, left, came: total - woken });
                }
            }
            _ => {}
        }
        if let Record::Marker { counts, .. } | Record::Guest { counts, .. } = record {
            shifted.insert(counts.cpu, shifts(counts));
        }
    }
    out
}

/// The moves of the only VCPU of a machine between two cells that have a CPU each: all that both CPUs executed from the
/// VCPU's last trap in one cell until its first instruction in the other, idle ticks and the
/// answer to the operator's command included.
pub fn travels(records: &[Record], cpus: [usize; 2]) -> Vec<Move> {
    let mut out: Vec<Move> = Vec::new();
    // What each CPU had executed when it was last seen.
    let mut seen: BTreeMap<usize, u64> = BTreeMap::new();
    // Who was left, what it had executed then, and what the other one had.
    let mut back: Option<(usize, u64, u64)> = None;
    // The CPU of the last move has not been seen since, so that what it has executed is not known to the end.
    let mut open: Option<(Move, u64)> = None;
    for record in records {
        let (Record::Marker { counts, .. } | Record::Guest { counts, .. }) = record else {
            continue;
        };
        let (cpu, total) = (counts.cpu, counts.total);
        if !cpus.contains(&cpu) {
            continue;
        }
        if let Some((mut done, from)) = open.take_if(|(done, _)| done.from == cpu) {
            done.left = total - from;
            out.push(done);
        }
        match record {
            Record::Marker { marker: marker::BACK, visit: Some(visit), .. } => {
                let other = cpus[usize::from(cpus[0] == cpu)];
                back = seen.get(&other).map(|before| (cpu, total - visit, *before));
            }
            Record::Guest { marker: marker::RUN, .. } => {
                if let Some((from, start, before)) = back.take()
                    && from != cpu
                {
                    let came = total - before;
                    open = Some((Move { from, to: cpu, left: 0, came }, start));
                }
            }
            _ => {}
        }
        seen.insert(cpu, total);
    }
    out
}

/// What `ping` says of a call's time, in nanoseconds.
pub fn latency(output: &str) -> Option<Spread> {
    let line = output.lines().find(|line| line.contains(" has answered "))?;
    let mut words = line.split([' ', ',', ';']).filter(|word| !word.is_empty());
    let mut after = |name: &str| {
        words.by_ref().find(|word| *word == name)?;
        words.next()?.parse().ok()
    };
    Some(Spread {
        count: after("answered")?,
        min: after("min")?,
        median: after("median")?,
        p90: after("p90")?,
        p99: after("p99")?,
        max: after("max")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::count::records;

    fn marker(cpu: usize, marker: u16, total: u64, visit: Option<u64>) -> String {
        let visit = visit.map_or("null".into(), |visit| visit.to_string());
        format!(
            "{{\"kind\":\"marker\",\"marker\":{marker},\"visit\":{visit},\"cpu\":{cpu},\
             \"total\":{total},\"loops\":0,\"ranges\":{{}}}}\n"
        )
    }

    fn shifted(cpu: usize, marker: u16, total: u64, visit: u64, shift: u64) -> String {
        format!(
            "{{\"kind\":\"marker\",\"marker\":{marker},\"visit\":{visit},\"cpu\":{cpu},\
             \"total\":{total},\"loops\":0,\"ranges\":{{\"<{SHIFT}\":{shift}}}}}\n"
        )
    }

    fn guest(cpu: usize, total: u64) -> String {
        format!(
            "{{\"kind\":\"guest\",\"marker\":{},\"cpu\":{cpu},\"total\":{total},\"loops\":0,\"ranges\":{{}}}}\n",
            marker::RUN
        )
    }

    #[test]
    fn distributions_are_summarised() {
        assert_eq!(Spread::of(Vec::new()), None);
        let all = Spread::of((1..=200).rev().collect()).unwrap();
        assert_eq!(all, Spread { count: 200, min: 1, median: 100, p90: 180, p99: 198, max: 200 });
        let one = Spread::of(vec![7]).unwrap();
        assert_eq!(one, Spread { count: 1, min: 7, median: 7, p90: 7, p99: 7, max: 7 });
    }

    #[test]
    fn talks_are_what_lies_between_two_markers_of_a_cpu() {
        let text = marker(0, marker::RUNG, 10, None)
            + &marker(2, marker::RUNG, 0, None)
            + &marker(0, marker::RUNG, 100, None)
            + &marker(0, marker::TALKED, 130, None)
            + &marker(2, marker::TALKED, 5, None)
            + &marker(0, marker::TALKED, 999, None);
        let records = records(&text).unwrap();
        assert_eq!(talks(&records, 0), Spread::of(vec![30]));
        assert_eq!(talks(&records, 2), Spread::of(vec![5]));
        assert_eq!(talks(&records, 1), None);
    }

    #[test]
    fn idle_ticks_are_those_of_the_time_waited() {
        let ticks = |from: u64| -> String {
            (0..3).map(|n| marker(1, marker::WOKEN, from + n * 10, None)).collect()
        };
        let pair = marker(0, 1, 50, None) + &marker(0, 2, 4052, None);
        let text = ticks(0) + &pair + &ticks(1000) + &pair + &ticks(5000);
        let spread = idle_ticks(&records(&text).unwrap(), 1).unwrap();
        assert_eq!((spread.count, spread.min, spread.max), (2, 10, 10));
        assert_eq!(idle_ticks(&records(&ticks(0)).unwrap(), 1), None);
    }

    #[test]
    fn a_move_is_what_both_cpus_do_for_it() {
        let text = marker(1, marker::WOKEN, 100, None)
            + &shifted(0, marker::BACK, 900, 40, 0)
            + &marker(1, marker::WOKEN, 150, None)
            + &shifted(0, marker::BACK, 2000, 300, 180)
            + &marker(1, marker::RUN, 400, None)
            + &guest(1, 450)
            // Back from the same CPU: no move, whatever the marker says.
            + &shifted(1, marker::BACK, 500, 7, 180)
            + &guest(1, 600)
            // Moved by whoever was told to.
            + &marker(0, marker::WOKEN, 3000, None)
            + &marker(1, marker::BACK, 700, Some(7))
            + &guest(0, 4000);
        let moves = moves(&records(&text).unwrap());
        assert_eq!(moves, [Move { from: 0, to: 1, left: 300, came: 300 }]);
    }

    #[test]
    fn a_travel_is_all_that_two_cpus_do_meanwhile() {
        let text = marker(2, marker::WOKEN, 100, None)
            + &marker(1, marker::BACK, 1000, Some(50))
            + &marker(0, marker::WOKEN, 7, None)
            + &marker(1, marker::TALKED, 1200, None)
            + &marker(2, marker::TALKED, 300, None)
            + &guest(2, 450)
            + &marker(0, marker::WOKEN, 9, None)
            + &marker(1, marker::WOKEN, 1250, None)
            + &marker(1, marker::WOKEN, 1300, None)
            // Back to where it was.
            + &marker(2, marker::BACK, 900, Some(30))
            + &guest(2, 950)
            + &marker(2, marker::BACK, 2000, Some(20))
            + &guest(1, 1500)
            + &marker(2, marker::WOKEN, 2005, None);
        let moves = travels(&records(&text).unwrap(), [1, 2]);
        let first = Move { from: 1, to: 2, left: 300, came: 350 };
        assert_eq!(moves, [first, Move { from: 2, to: 1, left: 25, came: 200 }]);
    }

    #[test]
    fn a_talk_in_a_guest_lasts_from_its_trap_until_it_goes_on() {
        let text = marker(2, marker::TALKED, 100, None)
            + &guest(2, 150)
            + &marker(2, marker::TALKED, 1000, Some(300))
            + &guest(0, 1100)
            + &marker(2, marker::RUN, 1150, Some(450))
            + &guest(2, 1200)
            + &guest(2, 1300);
        assert_eq!(talks_in_guest(&records(&text).unwrap(), 2), Spread::of(vec![500]));
    }

    #[test]
    fn ticks_of_a_guest_are_visits_in_which_nothing_was_done() {
        let visit = |cpu, vector: &str, last: u16, lengths: &str, max| {
            format!(
                "{{\"kind\":\"visit\",\"until\":null,\"cpu\":{cpu},\"vector\":\"{vector}\",\"instruction\":\"-\",\
                 \"marker\":{last},\"count\":3,\"sum\":9,\"min\":1,\"median\":3,\"p90\":4,\"max\":{max},\
                 \"lengths\":{lengths}}}\n"
            )
        };
        let text = visit(2, "interrupt", 0, "[[5,2],[8,1]]", 9)
            + &visit(2, "interrupt", marker::TALKED, "[[1,1]]", 1)
            + &visit(2, "refill", 0, "[[99,1]]", 99)
            + &visit(0, "interrupt", 0, "[[99,1]]", 99);
        let records = records(&text).unwrap();
        let spread = guest_ticks(&records, 2).unwrap();
        assert_eq!((spread.count, spread.min, spread.median, spread.max), (3, 5, 5, 9));
        assert_eq!(guest_ticks(&records, 1), None);
    }

    #[test]
    fn latencies_are_read_from_the_console() {
        let line = "monitor| honeycomb> ping 1 1000\n\
             monitor| cell 0: cell 1 has answered 1000 calls; ns a call: min 10 median 20 p90 30 p99 40 max 50\n";
        let spread = Spread { count: 1000, min: 10, median: 20, p90: 30, p99: 40, max: 50 };
        assert_eq!(latency(line), Some(spread));
        assert_eq!(latency("monitor| cell 1 has answered 1000 calls, 7 ns each"), None);
    }
}
