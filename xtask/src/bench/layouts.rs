//! `cargo xtask bench layouts`: what a VM that depends on one cell costs on a machine of one cell, and on the
//! same machine divided into eight.
//!
//! The VM's one VCPU is pinned to a CPU of cell 0 and does the IRIX-like guest's `mix`, which is counted on that CPU
//! from its first marker to its last. The VM's clock is so slow that it does not tick meanwhile: what the guest does then
//! depends on nothing but itself.

use super::machine::{Machine, Mode};
use crate::endian::Endian;
use crate::run::count::{Counts, Record};
use anyhow::{Context, Result, bail};
use std::fmt::Write;
use std::process::ExitCode;

/// Compares a VM on a machine of one cell with the same VM on a machine of eight.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cargo xtask bench layouts                three runs of each machine
  cargo xtask bench layouts --runs 1 --endian big

Exit status: 0 the guest executed the same and the monitor did, within 1 %; 1 not so; 2 a machine did not run.")]
pub struct Args {
    /// Runs of each machine; the table has their medians.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// The machine's byte order.
    #[arg(long, default_value_t)]
    endian: Endian,
}

const NODES: u32 = 8;
const CELLS: [u32; 2] = [1, 8];
/// Where the VM runs: the second CPU of cell 0, whose first looks after the cell.
const CPU: usize = 1;
/// The mix's markers: before its first instruction, after its last.
const MARKERS: [u16; 2] = [0x1001, 0x1002];
/// What it computes.
const RESULT: &str = "check mix 26798793e74e76c4";
/// The vector by which ticks and doorbells come.
const INTERRUPT: &str = "interrupt";
/// Instructions of the guest's loop that exchanges a byte by LL and SC: an interrupt between the two has it go round once
/// more. Nothing else that the guest does depends on when interrupts come.
const EXCHANGE: u64 = 9;
/// How much totals may differ, in percent.
const LIMIT_PERCENT: f64 = 1.0;

fn config(cells: u32) -> String {
    let mut out =
        format!("[machine]\nnodes = {NODES}\ncpus_per_node = 2\nslice_per_node = \"32M\"\n");
    let each = NODES / cells;
    for cell in 0..cells {
        let nodes: Vec<_> = (cell * each..(cell + 1) * each).map(|node| node.to_string()).collect();
        // Writing to a string does not fail.
        let _ = write!(out, "[[cell]]\nnodes = [{}]\n", nodes.join(", "));
    }
    // A tick of the guest's every 20 s of the machine's.
    out + "[[vm]]\nname = \"irix\"\nkernel = \"irix\"\nmemory = \"8M\"\ncells = [0]\nclock_scale = 2000\n"
}

fn script() -> String {
    format!(
        "console irix\nexpect \"irix: shell ready\" 300\nconsole monitor\nsend pin irix {CPU}\n\
         expect \"^VCPU irix.0 \"\nconsole irix\nsend mix\nexpect \"{RESULT}\" 300\n"
    )
}

/// What was counted on the VM's CPU in one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sample {
    /// Instructions that the guest has executed. What it began and could not finish, for want of an entry in the real
    /// TLB, counts once.
    guest: u64,
    /// The monitor's for what the guest did.
    traps: u64,
    /// The monitor's from an interrupt to the guest's next instruction, and how many these were.
    interrupts: (u64, u64),
}

impl Sample {
    /// # Errors
    /// What is missing in the records.
    fn new(records: &[Record]) -> Result<Self> {
        let at = |number: u16| -> Result<&Counts> {
            let mut found = records.iter().filter_map(|record| match record {
                Record::Marker { marker, counts, .. } if *marker == number => Some(counts),
                _ => None,
            });
            match (found.next(), found.next()) {
                (Some(counts), None) if counts.cpu == CPU => Ok(counts),
                _ => bail!("CPU {CPU}, and no other, has to pass marker {number:#x}, and once"),
            }
        };
        let (start, end) = (at(MARKERS[0])?, at(MARKERS[1])?);
        let rest = |counts: &Counts| counts.ranges.get("rest").copied().unwrap_or(0);
        let (executed, again) = (rest(end) - rest(start), end.again - start.again);
        let mut interrupts = (0, 0);
        for record in records {
            if let Record::Visit(visit) = record
                && (visit.cpu, visit.until) == (CPU, Some(MARKERS[1]))
                && visit.vector == INTERRUPT
            {
                interrupts = (interrupts.0 + visit.sum, interrupts.1 + visit.count);
            }
        }
        let monitor = end.total - start.total - executed;
        let traps =
            monitor.checked_sub(interrupts.0).context("more interrupts than instructions")?;
        Ok(Self { guest: executed - again, traps, interrupts })
    }

    /// All but what comes with time.
    fn steady(&self) -> u64 {
        self.guest + self.traps
    }

    fn total(&self) -> u64 {
        self.steady() + self.interrupts.0
    }

    fn an_interrupt(&self) -> u64 {
        self.interrupts.0.checked_div(self.interrupts.1).unwrap_or(0)
    }
}

/// Boots a machine of so many cells and has it do the mix.
fn measure(cells: u32, endian: Endian, run: u32) -> Result<Sample> {
    let name = format!("layouts-{cells}-{run}");
    let (config, script) = (config(cells), script());
    let (_, records) = Machine {
        name: &name,
        endian,
        mode: Mode::Counted,
        config: &config,
        script: &script,
        functions: &[],
    }
    .run()?;
    Sample::new(&records)
}

/// The middle one of some values.
fn median(samples: &[Sample], what: fn(&Sample) -> u64) -> u64 {
    let mut values: Vec<_> = samples.iter().map(what).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

/// By how many percent the second differs from the first.
fn percent(first: u64, second: u64) -> f64 {
    (second as f64 / first as f64 - 1.0) * 100.0
}

/// A table of medians, and what is wrong with it.
fn report(one: &[Sample], eight: &[Sample]) -> (String, Vec<String>) {
    let mut text =
        "| instructions | 1 cell | 8 cells | difference |\n|---|---|---|---|\n".to_string();
    let mut row = |name: &str, what: fn(&Sample) -> u64| {
        let (first, second) = (median(one, what), median(eight, what));
        // Writing to a string does not fail.
        let _ =
            writeln!(text, "| {name} | {first} | {second} | {:+.2} % |", percent(first, second));
        percent(first, second)
    };
    row("the guest's", |sample| sample.guest);
    row("the monitor's, for the guest", |sample| sample.traps);
    let steady = row("both", Sample::steady);
    row("the monitor's, of interrupts", |sample| sample.interrupts.0);
    row("so many interrupts", |sample| sample.interrupts.1);
    row("of one, on average", Sample::an_interrupt);
    row("all", Sample::total);
    let mut wrong = Vec::new();
    let all = || one.iter().chain(eight);
    let least = all().map(|sample| sample.guest).min().unwrap_or(0);
    let rounds: Vec<_> = all().map(|sample| (sample.guest - least) / EXCHANGE).collect();
    let _ =
        writeln!(text, "\nThe guest: {least}, and so many rounds of {EXCHANGE} more: {rounds:?}.");
    let odd = |sample: &Sample| {
        let more = sample.guest - least;
        !more.is_multiple_of(EXCHANGE) || more / EXCHANGE > sample.interrupts.1
    };
    if all().any(odd) {
        let guests: Vec<_> = all().map(|sample| sample.guest).collect();
        wrong.push(format!("the guest has not executed the same every time: {guests:?}"));
    }
    if steady.abs() > LIMIT_PERCENT {
        wrong.push(format!("guest and monitor differ by {steady:.2} %"));
    }
    (text, wrong)
}

/// Runs the command.
///
/// # Errors
/// A machine could not be run.
pub fn main(args: &Args) -> Result<ExitCode> {
    let mut samples = [Vec::new(), Vec::new()];
    // In turn, so that what changes on the host meets both.
    for run in 1..=args.runs {
        for (cells, samples) in CELLS.into_iter().zip(&mut samples) {
            samples.push(measure(cells, args.endian, run)?);
        }
    }
    let (text, wrong) = report(&samples[0], &samples[1]);
    print!("{text}");
    for line in &wrong {
        println!("{line}");
    }
    Ok(ExitCode::from(u8::from(!wrong.is_empty())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::count::records;

    #[test]
    fn a_run_is_what_lies_between_the_markers() {
        let marker = |marker, cpu, total, rest, again| {
            format!(
                r#"{{"kind":"marker","marker":{marker},"visit":null,"cpu":{cpu},"total":{total},"loops":9,"again":{again},"ranges":{{"rest":{rest}}}}}"#
            )
        };
        let visit = |until, cpu, vector| {
            format!(
                r#"{{"kind":"visit","until":{until},"cpu":{cpu},"vector":"{vector}","instruction":"-","marker":0,"count":2,"sum":30,"min":1,"median":1,"p90":1,"max":1,"lengths":[]}}"#
            )
        };
        let lines = [
            marker(MARKERS[0], 1, 1000, 100, 5),
            visit("4098".to_string(), 1, "interrupt"),
            visit("4098".to_string(), 1, "general"),
            visit("4098".to_string(), 0, "interrupt"),
            visit("null".to_string(), 1, "interrupt"),
            marker(MARKERS[1], 1, 2000, 700, 12),
        ];
        let sample = |text: &str| Sample::new(&records(text).unwrap());
        let text = lines.join("\n");
        let found = sample(&text).unwrap();
        assert_eq!(found, Sample { guest: 593, traps: 370, interrupts: (30, 2) });
        assert_eq!((found.steady(), found.total(), found.an_interrupt()), (963, 993, 15));
        assert!(sample(&lines[1..].join("\n")).is_err(), "no first marker");
        assert!(sample(&format!("{text}\n{}", lines[0])).is_err(), "twice");
        assert!(sample(&text.replace("\"cpu\":1", "\"cpu\":3")).is_err(), "another CPU");
    }

    #[test]
    fn a_difference_is_told() {
        let sample = |guest, traps| Sample { guest, traps, interrupts: (50, 5) };
        let (text, wrong) = report(&[sample(1000, 500)], &[sample(1000, 510)]);
        assert!(text.contains("| both | 1500 | 1510 | +0.67 % |"), "{text}");
        assert_eq!(wrong, [""; 0]);
        let (text, wrong) = report(&[sample(1000, 500)], &[sample(1009, 500), sample(1000, 500)]);
        assert!(
            text.contains("The guest: 1000, and so many rounds of 9 more: [0, 1, 0]."),
            "{text}"
        );
        assert_eq!(wrong, [""; 0]);
        let more = [sample(1054, 446)];
        assert_eq!(report(&[sample(1000, 500)], &more).1.len(), 1, "more than interrupts");
        let (_, wrong) = report(
            &[sample(1000, 500)],
            &[sample(1001, 490), sample(1000, 550), sample(1000, 560)],
        );
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert_eq!(report(&[sample(1000, 500)], &[sample(999, 480)]).1.len(), 2);
    }
}
