//! `cargo xtask bench recovery`: what it costs the survivors that a node has died, on machines of 2, 4 and 8 cells with different
//! amounts of memory a node.
//!
//! The measure is the critical path: the stages of a recovery are rounds, in each of which the cells do their part at the same
//! time; of each the largest count of the monitor's instructions on any survivor's first CPU (which does all of it), without what
//! it spins, sleeps, runs guests or only looks whether the others have come further; summed. Beside it the machine's own time
//! under icount, from the fault until a guest goes on in the last of the survivors, and to the leader's report: there the CPUs of all cells take turns on one clock, so that it grows with their number.

use super::machine::{Machine, Mode};
use crate::endian::Endian;
use crate::fault::record::Event;
use crate::run::count::{Counts, Record};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::process::ExitCode;

/// Measures what it costs the survivors that a node has died.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cargo xtask bench recovery             2, 4 and 8 nodes with 64, 128 and 192 MB each: a table
  cargo xtask bench recovery --json      the same for programs
  cargo xtask bench recovery --nodes 4 --slice 192 --window 32 --runs 1

Exit status: 0 it was measured, whatever the figures say, 2 a machine did not run.")]
pub struct Args {
    /// A JSON list instead of a table.
    #[arg(long)]
    json: bool,
    /// The machine's byte order.
    #[arg(long, default_value_t)]
    endian: Endian,
    /// Runs of each machine, of which the median is told.
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: usize,
    /// Only machines of so many nodes (2 to 8).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=8))]
    nodes: Option<u32>,
    /// Only nodes with so much memory.
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u32).range(32..=192))]
    slice: Option<u32>,
    /// With such windows; of what a node has there beyond 32 MB VMs have a part, as they have of its slice.
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u32).range(16..=128), default_value_t = 32)]
    window: u32,
}

const NODES: [u32; 3] = [2, 4, 8];
const SLICES_MB: [u32; 3] = [64, 128, 192];
/// What a cell keeps of its windows for its monitor, in MB a node.
const KEPT_MB: u32 = 32;

/// A machine that is measured.
#[derive(Clone, Copy, Debug, Serialize)]
struct Size {
    nodes: u32,
    slice_mb: u32,
    window_mb: u32,
}

impl Size {
    /// Memory of a node that is for VMs, in MB.
    fn memory_mb(self) -> u32 {
        self.slice_mb + self.window_mb.saturating_sub(KEPT_MB)
    }
}

/// The stages, by the marker that begins and the one that ends each (docs/counting.md).
const STAGES: [(&str, u16, u16); 5] = [
    ("detection", 0x2010, 0x2011),
    ("agreement", 0x2011, 0x2012),
    ("fencing", 0x2012, 0x2013),
    ("unwinding", 0x2013, 0x2014),
    ("scan", 0x2014, 0x2015),
];
/// The last marker; what follows until a guest goes on is the resumption.
const SCANNED: u16 = 0x2015;
/// A survivor has looked at the others, and they have not come further.
const WAITS: u16 = 0x2016;
/// Between these a CPU does what is due between two turns of guests.
const RUNG: u16 = 0x2001;
const RUN: u16 = 0x2100;
/// After so many turns, of some milliseconds each, all CPUs of the dead node have stopped for long.
const TURNS: usize = 1000;
/// The steps between the times of a survivor's event (docs/events.md).
const TIMES: [&str; 5] = ["detection", "agreement", "unwinding", "scan", "resumption"];
/// What is the monitor's work.
const RANGES: [&str; 3] = ["monitor", "trap", "prom"];

/// Cells of one node with one CPU, each with a guest that computes; one more guest, as large as half of a node's memory, is spread over the first and the
/// last one.
fn config(size: Size) -> String {
    let Size { nodes, slice_mb, window_mb } = size;
    let mut out = format!(
        "[machine]\nnodes = {nodes}\ncpus_per_node = 1\nslice_per_node = \"{slice_mb}M\"\n\
         window_per_node = \"{window_mb}M\"\n"
    );
    // Writing to a string does not fail.
    for node in 0..nodes {
        let _ = write!(out, "[[cell]]\nnodes = [{node}]\n");
    }
    for cell in 0..nodes {
        let _ = write!(
            out,
            "[[vm]]\nname = \"own-{cell}\"\nkernel = \"irix\"\nmemory = \"8M\"\ncells = [{cell}]\n\
             cmdline = \"hz=1 do=spin\"\n"
        );
    }
    let _ = write!(
        out,
        "[[vm]]\nname = \"wide\"\nkernel = \"irix\"\nmemory = \"{}M\"\nvcpus = 2\ncells = [0, {}]\n\
         placement = \"spread\"\ncmdline = \"hz=1 do=hog,spin\"\n",
        size.memory_mb() / 2,
        nodes - 1
    );
    out
}

/// A quarter of each survivor's memory is lent to the last cell, of which the node then dies.
fn script(size: Size) -> String {
    let nodes = size.nodes;
    let last = nodes - 1;
    let mut out = String::new();
    for cell in 0..nodes {
        let _ = write!(out, "console own-{cell}\nexpect \"irix: \" 500\n");
    }
    out.push_str("console wide\nexpect \"hog: \" 500\nconsole monitor\nwait 2\n");
    for cell in 0..last {
        let pages = size.memory_mb() * 256 / 4;
        let _ =
            write!(out, "send lend {last} {pages} on {cell}\nexpect \"lent to cell {last}\" 60\n");
    }
    let _ = write!(
        out,
        "wait 0.5\nsend fault node {last}\nexpect \"cell {last} is lost\" 60\nwait 5\n"
    );
    out
}

/// A machine's recovery.
#[derive(Clone, Debug, Serialize)]
struct Recovery {
    size: Size,
    endian: Endian,
    /// Instructions of each stage, of the slowest survivor.
    stages: Vec<(&'static str, u64)>,
    /// Their sum.
    critical: u64,
    /// Instructions after that in which pages are given back.
    later: u64,
    /// Nanoseconds of the machine's time, under icount, of each step in the survivor in which a guest goes on last.
    times: Vec<(&'static str, u64)>,
    /// Their sum: from the fault until a guest goes on in each survivor.
    resumed_ns: u64,
    /// From the fault until the leader has reported the loss.
    reported_ns: u64,
}

fn work(counts: &Counts) -> u64 {
    RANGES.iter().filter_map(|range| counts.ranges.get(*range)).sum()
}

/// What a CPU has passed: the marker, and the monitor's work until then.
type Passed = (u16, u64);

/// The markers that a CPU has passed in these records.
fn passed(records: &[Record], cpu: usize) -> impl Iterator<Item = Passed> + Clone {
    records.iter().filter_map(move |record| match record {
        Record::Marker { marker, counts, .. } if counts.cpu == cpu => Some((*marker, work(counts))),
        _ => None,
    })
}

/// What a survivor does from the marker at which it sees that something is wrong until it knows that all agree: its looks at the others, but
/// for those that find that these have not come further. Beside it, how much it had done by then.
fn agreeing(passed: impl Iterator<Item = Passed>) -> Option<(u64, u64)> {
    let [_, (_, seen, agreed), ..] = STAGES;
    let (mut sum, mut look, mut last) = (0, None, None);
    for (marker, now) in passed {
        let step = now - last.replace(now).unwrap_or(now);
        if marker == WAITS {
            look = None;
        } else if marker == seen {
            // What lies between two looks belongs to the earlier one, unless that was in vain.
            let before = look.replace(if look.is_none() { step } else { 0 });
            sum += before.map_or(0, |look| look + step);
        } else if marker == agreed {
            return Some((sum + look.unwrap_or(0) + step, now));
        } else {
            sum += look.take().map_or(0, |look| look + step);
        }
    }
    None
}

/// The critical path's stages, from the records of a run.
fn stages(records: &[Record], survivors: usize) -> Result<Vec<(&'static str, u64)>> {
    let [(_, fails, seen), _, later @ ..] = STAGES;
    let is_fault = |r: &Record| matches!(r, Record::Marker { marker, .. } if *marker == fails);
    let fault = records.iter().position(is_fault).context("no node has failed")?;
    let mut most = [0; STAGES.len() + 1];
    for cpu in 0..survivors {
        let unseen = |name| format!("CPU {cpu} was not seen to end its {name}");
        let after = || passed(&records[fault..], cpu);
        let (_, found) =
            after().find(|(marker, _)| *marker == seen).with_context(|| unseen("detection"))?;
        // Who has the node fail does nothing for that; the others look when they have stopped running guests.
        let began = |(marker, _): &Passed| [RUNG, fails].contains(marker);
        let until = passed(records, cpu).filter(|(_, now)| *now <= found);
        let (_, began) = until.filter(began).last().with_context(|| unseen("last turn"))?;
        let looks = after().skip_while(|(marker, _)| *marker != seen);
        let (agreement, mut last) = agreeing(looks).with_context(|| unseen("agreement"))?;
        let mut costs = vec![found - began, agreement];
        for (name, _, until) in later {
            let (_, now) =
                after().find(|(marker, _)| *marker == until).with_context(|| unseen(name))?;
            costs.push(now - last);
            last = now;
        }
        let scanned = records.iter().position(
            |r| matches!(r, Record::Marker { marker: SCANNED, counts, .. } if counts.cpu == cpu),
        );
        let resumed = records[scanned.unwrap_or(fault)..].iter().find_map(|r| match r {
            Record::Guest { counts, .. } if counts.cpu == cpu => Some(work(counts)),
            _ => None,
        });
        let resumed = resumed.with_context(|| format!("no guest has gone on on CPU {cpu}"))?;
        costs.push(resumed - last);
        for (most, cost) in most.iter_mut().zip(costs) {
            *most = (*most).max(cost);
        }
    }
    let names = STAGES.iter().map(|(name, ..)| *name).chain(["resumption"]);
    Ok(names.zip(most).collect())
}

/// What the survivors do once a guest has gone on: pages that the dead node's CPUs could reach are given back when these have stopped. The
/// largest count of any survivor's first CPU between two turns of guests, among its first turns since.
fn giving_back(records: &[Record], survivors: usize) -> u64 {
    let is_scanned = |r: &Record| matches!(r, Record::Marker { marker: SCANNED, .. });
    let after = &records[records.iter().position(is_scanned).unwrap_or(records.len())..];
    let mut most = 0;
    for cpu in 0..survivors {
        let (mut resumed, mut since, mut turns) = (false, None, 0);
        for record in after {
            match record {
                Record::Guest { counts, .. } if counts.cpu == cpu => resumed = true,
                Record::Marker { marker: RUNG, counts, .. } if counts.cpu == cpu && resumed => {
                    since = Some(work(counts));
                }
                Record::Marker { marker: RUN, counts, .. } if counts.cpu == cpu => {
                    most = most.max(since.take().map_or(0, |since| work(counts) - since));
                    turns += 1;
                }
                _ => {}
            }
            if turns == TURNS {
                break;
            }
        }
    }
    most
}

/// When something was first seen in the lines of events.
fn time_of(events: &str, kind: &str) -> Option<u64> {
    let mut events = events.lines().filter_map(|line| serde_json::from_str::<Event>(line).ok());
    Some(events.find(|event| event.kind == kind)?.t_ns)
}

/// A cell's event of what its recovery took: the machine's times at which each step was done.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Recovered {
    suspected_ns: u64,
    agreed_ns: u64,
    unwound_ns: u64,
    scanned_ns: u64,
    resumed_ns: u64,
}

/// How long each step took in the survivor in which a guest goes on last, from the events of a run in which a node failed at `fault`.
fn times(events: &str, fault: u64, survivors: usize) -> Result<Vec<(&'static str, u64)>> {
    let all: Vec<Recovered> =
        events.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    if all.len() != survivors {
        bail!("{} of {survivors} survivors have recovered", all.len());
    }
    let last = all.iter().max_by_key(|one| one.resumed_ns).context("nobody has survived")?;
    let Recovered { suspected_ns, agreed_ns, unwound_ns, scanned_ns, resumed_ns } = *last;
    let ends = [suspected_ns, agreed_ns, unwound_ns, scanned_ns, resumed_ns];
    let mut before = fault;
    let step =
        |(name, end): (&'static str, u64)| (name, end - core::mem::replace(&mut before, end));
    if suspected_ns < fault || !ends.is_sorted() {
        bail!("these steps are not in order: {last:?}");
    }
    Ok(TIMES.into_iter().zip(ends).map(step).collect())
}

fn measure(args: &Args, size: Size) -> Result<Recovery> {
    let (config, script) = (config(size), script(size));
    let Size { nodes, slice_mb, window_mb } = size;
    let name = format!("recovery-{nodes}-{slice_mb}-{window_mb}");
    let machine = |mode| Machine {
        name: &name,
        endian: args.endian,
        mode,
        config: &config,
        script: &script,
        functions: &[],
    };
    let mut runs = Vec::new();
    for _ in 0..args.runs.max(1) {
        let ran = machine(Mode::Counted).run_with_a_loss()?;
        let stages = stages(&ran.records, nodes as usize - 1)?;
        let later = giving_back(&ran.records, nodes as usize - 1);
        runs.push((stages.iter().map(|(_, count)| count).sum::<u64>(), stages, later));
    }
    runs.sort_by_key(|(sum, ..)| *sum);
    let (critical, stages, later) = runs.swap_remove(runs.len() / 2);
    let events = machine(Mode::Timed).run_with_a_loss()?.events;
    let told = time_of(&events, "fault").zip(time_of(&events, "cell-lost"));
    let Some((fault, lost)) = told else { bail!("{name}: nobody has reported the loss") };
    let times = times(&events, fault, nodes as usize - 1).context(name)?;
    let resumed_ns = times.iter().map(|(_, ns)| ns).sum();
    let (endian, reported_ns) = (args.endian, lost - fault);
    Ok(Recovery { size, endian, stages, critical, later, times, resumed_ns, reported_ns })
}

/// Runs the command.
///
/// # Errors
/// A machine could not be run.
pub fn main(args: &Args) -> Result<ExitCode> {
    crate::build::monitor(args.endian)?;
    let mut all = Vec::new();
    if !args.json {
        print!("{}", head());
    }
    for nodes in args.nodes.map_or(NODES.to_vec(), |only| vec![only]) {
        for slice_mb in args.slice.map_or(SLICES_MB.to_vec(), |only| vec![only]) {
            let one = measure(args, Size { nodes, slice_mb, window_mb: args.window })?;
            if !args.json {
                print!("{}", one.row());
            }
            all.push(one);
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    }
    Ok(ExitCode::SUCCESS)
}

/// The head of a table.
fn head() -> String {
    let mut out = "| nodes | slice, MB | window, MB |".to_owned();
    for name in STAGES.iter().map(|(name, ..)| *name).chain(["resumption"]) {
        // Writing to a string does not fail.
        let _ = write!(out, " {name} |");
    }
    out.push_str(" critical path | later | |");
    for name in TIMES {
        let _ = write!(out, " {name}, ms |");
    }
    out.push_str(" last guest goes on, ms | reported, ms |\n|");
    out.push_str(&"---|".repeat(STAGES.len() + TIMES.len() + 9));
    out.push('\n');
    out
}

impl Recovery {
    /// A line of it.
    fn row(&self) -> String {
        let Size { nodes, slice_mb, window_mb } = self.size;
        let ms = |ns: u64| ns as f64 / 1e6;
        let mut out = format!("| {nodes} | {slice_mb} | {window_mb} |");
        for (_, count) in &self.stages {
            // Writing to a string does not fail.
            let _ = write!(out, " {count} |");
        }
        let _ = write!(out, " {} | {} | |", self.critical, self.later);
        for (_, ns) in &self.times {
            let _ = write!(out, " {:.2} |", ms(*ns));
        }
        let _ = writeln!(out, " {:.2} | {:.2} |", ms(self.resumed_ns), ms(self.reported_ns));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::facts::Facts;
    use std::collections::BTreeMap;
    use std::path::Path;

    fn counts(cpu: usize, monitor: u64) -> Counts {
        let ranges = BTreeMap::from([("monitor".to_owned(), monitor)]);
        Counts { cpu, total: monitor, loops: 0, again: 0, ranges }
    }

    fn marker(marker: u16, cpu: usize, monitor: u64) -> Record {
        Record::Marker { marker, visit: None, counts: counts(cpu, monitor) }
    }

    #[test]
    fn the_slowest_of_each_stage_counts() {
        let mut records = vec![marker(RUNG, 0, 50), marker(RUNG, 1, 480), marker(0x2010, 0, 100)];
        for (i, (_, _, until)) in (1..).zip(STAGES) {
            records.push(marker(until, 0, 100 + 10 * i));
            records.push(marker(until, 1, 500 + 7 * i));
        }
        for (cpu, at) in [(0, 155), (1, 600)] {
            records.push(Record::Guest { marker: 0x2100, counts: counts(cpu, at) });
        }
        let counts = |records: &[Record]| {
            stages(records, 2).unwrap().iter().map(|(_, n)| *n).collect::<Vec<_>>()
        };
        assert_eq!(counts(&records), [27, 10, 10, 10, 10, 65]);
        records.insert(3, marker(RUNG, 1, 500));
        assert_eq!(counts(&records)[0], 10, "guests that run meanwhile do not count");
        records[2] = marker(0x2010, 2, 100);
        assert_eq!(counts(&records)[0], 60, "CPU 0 was last heard of at 50");
        assert!(stages(&records[..6], 2).is_err());
        assert!(stages(&[], 1).is_err());
    }

    #[test]
    fn who_looks_in_vain_waits() {
        const SEEN: u16 = 0x2011;
        let passed = [
            (SEEN, 10),
            (0x2002, 15),
            (SEEN, 20),
            (WAITS, 25),
            (RUN, 40),
            (RUNG, 100),
            (SEEN, 103),
            (SEEN, 110),
            (WAITS, 112),
            (RUN, 120),
            (RUNG, 200),
            (SEEN, 202),
            (0x2012, 207),
            (SEEN, 300),
        ];
        assert_eq!(agreeing(passed.into_iter()), Some((5 + 10 + 7, 207)));
        assert_eq!(agreeing(passed.into_iter().take(12)), None);
    }

    #[test]
    fn what_is_done_between_turns_later_is_counted_apart() {
        let guest = |cpu, at| Record::Guest { marker: RUN, counts: counts(cpu, at) };
        let mut records = vec![marker(RUNG, 0, 1), marker(RUN, 0, 900), marker(SCANNED, 0, 1000)];
        records.extend([marker(RUN, 0, 2000), guest(0, 2010), marker(RUNG, 0, 2100)]);
        records.extend([marker(RUN, 1, 0), marker(RUN, 0, 2150), guest(0, 2160)]);
        assert_eq!(giving_back(&records, 2), 50, "not what comes before a guest goes on");
        for turn in 0..TURNS as u64 {
            let more = if turn == 5 { 70 } else { 7 };
            records.extend([marker(RUNG, 0, 3000 + turn), marker(RUN, 0, 3000 + turn + more)]);
        }
        assert_eq!((giving_back(&records, 1), giving_back(&[], 1)), (70, 0));
        records.truncate(8);
        records.extend((0..TURNS).map(|_| marker(RUN, 0, 3000)));
        records.extend([marker(RUNG, 0, 4000), marker(RUN, 0, 9000)]);
        assert_eq!(giving_back(&records, 1), 50, "not what comes long afterwards");
    }

    #[test]
    fn machines_can_be_had() {
        for nodes in NODES {
            for slice in SLICES_MB {
                for window_mb in [16, 32] {
                    let size = Size { nodes, slice_mb: slice, window_mb };
                    let facts = Facts::parse(Path::new("recovery"), &config(size)).unwrap();
                    assert_eq!(facts.layout.nodes, nodes);
                }
            }
        }
    }

    #[test]
    fn the_last_survivors_steps_are_told() {
        let event = |cell: u32, times: [u64; 5]| {
            let [suspected, agreed, unwound, scanned, resumed] = times;
            format!(
                "{{\"cell\":{cell},\"kind\":\"recovered\",\"suspected_ns\":{suspected},\"agreed_ns\":{agreed},\
                 \"unwound_ns\":{unwound},\"scanned_ns\":{scanned},\"resumed_ns\":{resumed}}}\n"
            )
        };
        let events = event(0, [11, 12, 13, 14, 18]) + &event(1, [12, 14, 16, 17, 30]);
        let steps = |fault| times(&events, fault, 2).map(|all| all.into_iter().map(|(_, ns)| ns));
        assert!(steps(10).unwrap().eq([2, 2, 2, 1, 13]));
        assert!(steps(20).is_err() && times(&events, 10, 3).is_err() && times("", 0, 0).is_err());
    }

    #[test]
    fn times_are_found_in_events() {
        let events = "{\"v\":1,\"seq\":0,\"t_ns\":5,\"cell\":0,\"kind\":\"fault\"}\n{\"t_ns\":9,\"kind\":\"cell-lost\"}";
        assert_eq!((time_of(events, "fault"), time_of(events, "cell-lost")), (Some(5), Some(9)));
        assert_eq!(time_of(events, "panic"), None);
    }
}
