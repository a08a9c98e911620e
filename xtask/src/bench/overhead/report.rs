//! A phase's two sides side by side.

use super::phase::{Counted, Engine, Kind, Phase};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// A visit by the refill vector that takes no longer was answered from the L2TLB, by the vector itself: the guest
/// does not notice it, as it does not notice a larger TLB (docs/results/direct.md: 23 or 26 instructions).
const REFILL_MAX: u64 = 64;
/// How many kinds of visits are listed.
const LISTED: usize = 8;

/// One run of a phase on one side.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What was counted.
    pub counted: Counted,
    /// The host's time.
    pub host: Duration,
}

/// A phase as it is reported.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The phase's name.
    pub phase: &'static str,
    /// What executed the VM's kernel mode.
    pub engine: &'static str,
    /// Instructions on the bare machine, without idling and RTC polling.
    pub bare: u64,
    /// Instructions of guest and monitor in a VM, without idling.
    pub vm: u64,
    /// `vm` to `bare`.
    pub ratio: f64,
    /// The same without real TLB refills on either side.
    pub ratio_without_refills: f64,
    /// The same with as many real TLB refills in the VM as on the bare machine, at what one costs there.
    pub ratio_at_bare_refills: f64,
    /// Seconds of the host, counting included.
    pub bare_host_s: f64,
    /// The same in a VM.
    pub vm_host_s: f64,
    /// `vm_host_s` to `bare_host_s`.
    pub host_ratio: f64,
    /// What makes up the bare machine's, and what is apart from it.
    pub bare_parts: Bare,
    /// What makes up the VM's, and what is apart from it.
    pub vm_parts: Vm,
    /// Each run's `bare` and `vm`.
    pub runs: Vec<[u64; 2]>,
}

/// The bare machine's instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bare {
    /// In user mode.
    pub user: u64,
    /// In kernel mode.
    pub kernel: u64,
    /// Of these, in the refill handler.
    pub refill: u64,
    /// How often that ran.
    pub refills: u64,
    /// Of the kernel's, loops that wait for so much time to pass.
    pub delay: u64,
    /// Not in the total: while the kernel had nothing to do.
    pub idle: u64,
    /// Not in the total: waiting for the RTC's second.
    pub rtc: u64,
}

/// The VM's instructions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Vm {
    /// The guest's in user mode, run directly.
    pub user: u64,
    /// The guest's in kernel mode, run directly or translated.
    pub kernel: u64,
    /// The monitor's vectors, refills included.
    pub vectors: u64,
    /// Of these, refills answered there and then.
    pub refill: u64,
    /// How many those were.
    pub refills: u64,
    /// The monitor's by what they are for.
    pub monitor: BTreeMap<String, u64>,
    /// Not in the total: while the VM had nothing to do.
    pub idle: u64,
    /// What brought the monitor in, those with the most instructions first.
    pub visits: Vec<Cause>,
}

/// Visits of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// The vector, and the guest's instruction if it was the reason.
    pub by: String,
    /// How many.
    pub count: u64,
    /// Their instructions, with all that the monitor did for the guest before it went on.
    pub instructions: u64,
}

impl Bare {
    fn new(counted: &Counted) -> Self {
        let refills = counted.range("refills");
        let refill = counted.range("refill") + refills;
        Self {
            user: counted.range("rest"),
            kernel: counted.range("kernel") + counted.range("delay") + refill,
            refill,
            refills,
            delay: counted.range("delay"),
            idle: counted.range("idle"),
            rtc: counted.range("rtc"),
        }
    }
}

impl Vm {
    fn new(counted: &Counted) -> Self {
        let apart = ["user", "supervisor", "prom", "idle", "spin", "rest"];
        let mut monitor: BTreeMap<_, _> = counted
            .ranges
            .iter()
            .filter(|(name, n)| !apart.contains(&name.as_str()) && **n > 0)
            .map(|(name, n)| (name.clone(), *n))
            .collect();
        // QEMU's boot ROM, and whatever else is nobody's.
        if counted.range("rest") > 0 {
            monitor.insert("rest".into(), counted.range("rest"));
        }
        let fast: Vec<_> = counted
            .visits
            .iter()
            .filter(|kind| kind.vector.ends_with("refill"))
            .flat_map(|kind| kind.lengths.iter().filter(|(length, _)| *length <= REFILL_MAX))
            .collect();
        let mut visits: Vec<_> = counted.visits.iter().map(Cause::new).collect();
        visits.sort_by_key(|cause| (std::cmp::Reverse(cause.instructions), cause.by.clone()));
        visits.truncate(LISTED);
        Self {
            user: counted.range("user"),
            kernel: counted.range("supervisor"),
            vectors: counted.range("prom"),
            refill: fast.iter().map(|(length, count)| length * count).sum(),
            refills: fast.iter().map(|(_, count)| count).sum(),
            monitor,
            idle: counted.range("idle") + counted.range("spin"),
            visits,
        }
    }
}

impl Cause {
    fn new(kind: &Kind) -> Self {
        let by = match kind.instruction.as_str() {
            "-" => kind.vector.clone(),
            instruction => format!("{}, {instruction}", kind.vector),
        };
        Self { by, count: kind.count, instructions: kind.sum }
    }
}

/// The middle one of some values.
fn median<T: Copy + PartialOrd>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    values.get(values.len() / 2).copied()
}

fn quotient(vm: f64, bare: f64) -> f64 {
    // Four digits: the rest is of no use to anybody.
    (vm / bare * 1e4).round() / 1e4
}

impl Row {
    /// From the runs of a phase, as many on either side; none if there is none. Parts are those of the run whose total is the median.
    pub fn new(phase: Phase, engine: Engine, bare: &[Sample], vm: &[Sample]) -> Option<Self> {
        let total = |sample: &Sample| sample.counted.total;
        let (bare_total, vm_total) =
            (median(bare.iter().map(total))?, median(vm.iter().map(total))?);
        let of = |samples: &[Sample], wanted: u64| {
            samples.iter().find(|sample| total(sample) == wanted).map(|s| s.counted.clone())
        };
        let bare_parts = Bare::new(&of(bare, bare_total)?);
        let vm_parts = Vm::new(&of(vm, vm_total)?);
        let seconds = |samples: &[Sample]| {
            let median = median(samples.iter().map(|sample| sample.host.as_secs_f64()))?;
            Some((median * 1e3).round() / 1e3)
        };
        let (bare_host_s, vm_host_s) = (seconds(bare)?, seconds(vm)?);
        let (b, v) = (bare_total as f64, vm_total as f64);
        let without = v - vm_parts.refill as f64;
        let each = if vm_parts.refills == 0 {
            0.0
        } else {
            vm_parts.refill as f64 / vm_parts.refills as f64
        };
        Some(Self {
            phase: phase.name(),
            engine: engine.name(),
            bare: bare_total,
            vm: vm_total,
            ratio: quotient(v, b),
            ratio_without_refills: quotient(without, b - bare_parts.refill as f64),
            ratio_at_bare_refills: quotient(without + each * bare_parts.refills as f64, b),
            bare_host_s,
            vm_host_s,
            host_ratio: quotient(vm_host_s, bare_host_s.max(0.001)),
            bare_parts,
            vm_parts,
            runs: bare.iter().zip(vm).map(|(bare, vm)| [total(bare), total(vm)]).collect(),
        })
    }
}

/// Tables for people.
pub fn text(rows: &[Row]) -> String {
    let mut text = "| phase | kernel mode | bare | VM | ratio | without refills | at bare's refills | host, bare | host, VM | ratio |\n\
                    |---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    // Writing to a string does not fail.
    for row in rows {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {:.3} | {:.3} | {:.3} | {:.1} s | {:.1} s | {:.1} |",
            row.phase,
            row.engine,
            row.bare,
            row.vm,
            row.ratio,
            row.ratio_without_refills,
            row.ratio_at_bare_refills,
            row.bare_host_s,
            row.vm_host_s,
            row.host_ratio
        );
    }
    for row in rows {
        let bare = row.bare_parts;
        let _ = writeln!(
            text,
            "\n{}, bare: user {}, kernel {} (refill handler {} in {} refills, delay loops {}); apart: idle {}, RTC polling {}",
            row.phase,
            bare.user,
            bare.kernel,
            bare.refill,
            bare.refills,
            bare.delay,
            bare.idle,
            bare.rtc
        );
        let vm = &row.vm_parts;
        let _ = write!(
            text,
            "{}, VM: guest user {}, guest kernel on the CPU {}, vectors {} (refills {} in {})",
            row.phase, vm.user, vm.kernel, vm.vectors, vm.refill, vm.refills
        );
        for (name, n) in &vm.monitor {
            let _ = write!(text, ", {name} {n}");
        }
        let _ = writeln!(text, "; apart: idle {}", vm.idle);
        for cause in &vm.visits {
            let _ = writeln!(
                text,
                "  {} visits by {}: {} instructions",
                cause.count, cause.by, cause.instructions
            );
        }
        if row.runs.iter().any(|run| run != &row.runs[0]) {
            let _ = writeln!(text, "{}: the runs differ: {:?}", row.phase, row.runs);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(total: u64, ranges: &[(&str, u64)], visits: Vec<Kind>, host: u64) -> Sample {
        let ranges = ranges.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        Sample { counted: Counted { total, ranges, visits }, host: Duration::from_secs(host) }
    }

    fn kind(vector: &str, count: u64, sum: u64, lengths: &[(u64, u64)]) -> Kind {
        let (vector, instruction) = (vector.to_owned(), "-".to_owned());
        Kind { vector, instruction, count, sum, lengths: lengths.to_vec() }
    }

    /// 100 refills of 30 instructions bare, 50 of 24 and one of 400 in the VM.
    fn row() -> Row {
        let bare = |total| {
            let ranges = [
                ("rest", 4000),
                ("kernel", 1900),
                ("refill", 2900),
                ("refills", 100),
                ("delay", 100),
                ("idle", 7),
                ("rtc", 9),
            ];
            sample(total, &ranges, Vec::new(), 2)
        };
        let visits = vec![
            kind("general", 3, 6000, &[(2000, 3)]),
            kind("xrefill", 51, 1600, &[(24, 50), (400, 1)]),
        ];
        let ranges = [
            ("user", 4000),
            ("supervisor", 5),
            ("prom", 1300),
            ("interpreter", 5900),
            ("monitor", 395),
            ("idle", 50),
            ("devices", 0),
        ];
        let vm = sample(11_600, &ranges, visits, 6);
        let bares = [bare(9000), bare(9100), bare(8000)];
        Row::new(Phase::Script, Engine::Translator, &bares, &[vm.clone(), vm.clone(), vm]).unwrap()
    }

    #[test]
    fn refills_are_told_apart() {
        let row = row();
        assert_eq!((row.bare, row.vm), (9000, 11_600));
        assert!((row.ratio - 1.2889).abs() < 1e-9, "{}", row.ratio);
        assert!((row.ratio_without_refills - 1.7333).abs() < 1e-9, "{}", row.ratio_without_refills);
        assert!((row.ratio_at_bare_refills - 1.4222).abs() < 1e-9, "{}", row.ratio_at_bare_refills);
        assert!((row.host_ratio - 3.0).abs() < 1e-9);
        let bare = Bare {
            user: 4000,
            kernel: 5000,
            refill: 3000,
            refills: 100,
            delay: 100,
            idle: 7,
            rtc: 9,
        };
        assert_eq!(row.bare_parts, bare);
        assert_eq!((row.vm_parts.refill, row.vm_parts.refills), (1200, 50));
        let monitor: Vec<_> =
            row.vm_parts.monitor.iter().map(|(name, n)| (name.as_str(), *n)).collect();
        assert_eq!(monitor, [("interpreter", 5900), ("monitor", 395)]);
        assert_eq!(row.vm_parts.visits[0].by, "general");
    }

    #[test]
    fn programs_and_people_get_the_same() {
        let row = row();
        let value = serde_json::to_value(&row).unwrap();
        assert_eq!(
            (&value["phase"], &value["engine"], &value["bare"], &value["vm"]),
            (&"script".into(), &"translator".into(), &9000.into(), &11_600.into())
        );
        assert_eq!(value["ratio"], 1.2889);
        let text = text(&[row]);
        assert!(
            text.contains(
                "| script | translator | 9000 | 11600 | 1.289 | 1.733 | 1.422 | 2.0 s | 6.0 s | 3.0 |"
            ),
            "{text}"
        );
        assert!(text.contains("  3 visits by general: 6000 instructions\n"), "{text}");
        assert!(
            text.contains("script: the runs differ: [[9000, 11600], [9100, 11600], [8000, 11600]]"),
            "{text}"
        );
    }

    #[test]
    fn without_runs_there_is_no_row() {
        assert!(Row::new(Phase::Boot, Engine::Direct, &[], &[]).is_none());
    }
}
