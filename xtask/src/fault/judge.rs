//! Who must have been lost, and whether exactly they were.
//!
//! The judge knows the configuration, the topology, what was injected and when, and what the same VMs print when nothing is
//! injected. It asks the monitor nothing: of a run it looks at its exit status, at what guests printed, and at events.
//!
//! A VM *must be lost* if its home is lost; and if it is spread over a lost cell, since its pages are placed in turn from its
//! first page on, so that it has some in each of its cells before it has executed anything. It *must live* if all cells that it may
//! use live; and if it is not spread, has its home in a living cell, and nothing moves VCPUs. What is left are VMs of which VCPUs
//! may be in a lost cell at the moment or not. They may do either, but one of them completely: end with the cause `cell-lost`,
//! or with all that they print undisturbed. Whoever had ended before the fault has only to have done that well.

use super::record::{Event, Record};
use super::sides::{self, Cells};
use super::workload;
use crate::run::facts::{Facts, VmFacts};

/// What was done to a machine.
#[derive(Clone, Debug)]
pub struct Deed {
    /// The words that follow `fault`.
    pub words: String,
    /// When, in nanoseconds since power-on.
    pub at_ns: u64,
    /// The cells that must be lost.
    pub lost: Cells,
    /// Whether VCPUs are moved meanwhile, to any cell that their VM may use.
    pub moves: bool,
}

/// What becomes of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Lives,
    Lost,
    Either,
}

/// What the judge says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// What was wrong, a line each; none: it has passed.
    pub wrong: Vec<String>,
    /// The VMs that were lost.
    pub lost_vms: Vec<String>,
    /// VMs that might be lost or not.
    pub either: Vec<String>,
}

/// `run`'s exit status after the loss of a cell.
const STATUS_LOST: i32 = 3;
/// A cell that is cut off, or of which a CPU hangs, works on until the others are sure: this long, at most, after they
/// have said that it is lost.
const AFTERLIFE_NS: u64 = 100_000_000;
/// How late a fault may come: the CPU that executes it may be busy with a slice.
const LATE_NS: u64 = 50_000_000;
/// Beginnings of lines with which a run ends that has done what it should.
const EXPECTED_ENDS: [&str; 2] = ["run: cell ", "run: VM "];

fn fate(vm: &VmFacts, deed: &Deed, run: &Record) -> Fate {
    let is_lost = |cell: &u8| deed.lost >> cell & 1 != 0;
    let has_started = || {
        let starts = |event: &&Event| event.kind == "vm-start" && event.vm == vm.name;
        run.events.iter().find(starts).is_some_and(|start| start.t_ns < deed.at_ns)
    };
    if is_lost(&vm.home) {
        Fate::Lost
    } else if !vm.permitted.iter().any(is_lost) {
        Fate::Lives
    } else if vm.is_spread && has_started() {
        Fate::Lost
    } else if vm.is_spread || deed.moves {
        Fate::Either
    } else {
        Fate::Lives
    }
}

/// Judges a run of `facts` by an undisturbed one.
pub fn judge(facts: &Facts, deed: &Deed, run: &Record, undisturbed: &Record) -> Judgement {
    let mut judgement = Judgement::default();
    let wrong = &mut judgement.wrong;
    how_it_ended(deed, run, wrong);
    the_fault(deed, run, wrong);
    the_cells(facts, deed, run, wrong);
    panics(deed, run, wrong);
    for vm in facts.vms.iter().filter(|vm| vm.autostart) {
        let fate = fate(vm, deed, run);
        if fate == Fate::Either {
            judgement.either.push(vm.name.clone());
        }
        if the_vm(vm, fate, deed, run, undisturbed, wrong) {
            judgement.lost_vms.push(vm.name.clone());
        }
    }
    if workload::goes_on(deed.lost) {
        afterwards(facts, deed, run, wrong);
    }
    judgement
}

fn how_it_ended(deed: &Deed, run: &Record, wrong: &mut Vec<String>) {
    let wanted = if deed.lost == 0 { 0 } else { STATUS_LOST };
    match run.status {
        None => wrong.push("the run hung, and was killed".into()),
        Some(status) if status != wanted => {
            wrong.push(format!("the run's exit status is {status}, not {wanted}"));
        }
        Some(_) => {}
    }
    for line in run.own.iter().filter(|line| line.starts_with("run: ") || line.starts_with("error"))
    {
        if !EXPECTED_ENDS.iter().any(|start| line.starts_with(start)) {
            wrong.push(line.clone());
        }
    }
}

/// It must have been injected, and when it should.
fn the_fault(deed: &Deed, run: &Record, wrong: &mut Vec<String>) {
    let mut faults = run.events.iter().filter(|event| event.kind == "fault");
    match (faults.next(), faults.next()) {
        (None, _) => wrong.push(format!("`fault {}` was not injected", deed.words)),
        (Some(_), Some(_)) => wrong.push("more than one fault was injected".into()),
        (Some(event), None) => {
            if event.what != deed.words {
                wrong.push(format!("`{}` was injected, not `{}`", event.what, deed.words));
            }
            let late = event.t_ns.checked_sub(deed.at_ns);
            if late.is_none_or(|late| late > LATE_NS) {
                wrong.push(format!("it was injected at {} ns, not {}", event.t_ns, deed.at_ns));
            }
        }
    }
}

/// Exactly those cells are lost that must be.
fn the_cells(facts: &Facts, deed: &Deed, run: &Record, wrong: &mut Vec<String>) {
    for cell in 0..facts.layout.cells() {
        let must = deed.lost >> cell & 1 != 0;
        let reporter = |cell: i64| u8::try_from(cell).is_ok_and(|cell| deed.lost >> cell & 1 == 0);
        let losses = run.events.iter().filter(|event| event.lost == Some(cell));
        let count = losses.filter(|event| reporter(event.cell)).count();
        match (must, count) {
            (true, 1) | (false, 0) => {}
            (true, 0) => wrong.push(format!("nobody who lives says that cell {cell} is lost")),
            (true, _) => wrong.push(format!("cell {cell} was reported as lost {count} times")),
            (false, _) => wrong.push(format!("cell {cell} was lost, and should not have been")),
        }
    }
    for event in run.events.iter().filter(|event| event.kind == "cell-lost") {
        if event.lost.is_none_or(|cell| cell >= facts.layout.cells()) {
            wrong.push("a cell was lost that is not there".into());
        }
    }
}

/// No monitor that lives has failed. One that is lost may not fail either: its CPUs stop, or park.
fn panics(deed: &Deed, run: &Record, wrong: &mut Vec<String>) {
    for event in run.events.iter().filter(|event| event.kind == "panic") {
        let of = match u8::try_from(event.cell) {
            Ok(cell) if deed.lost >> cell & 1 != 0 => "of a lost cell",
            _ => "of a living cell",
        };
        wrong.push(format!("a monitor {of} ({}) has panicked", event.cell));
    }
    let is_panic = |line: &&String| line.contains("monitor: panic");
    if let Some(line) = run.console("boot").iter().find(is_panic) {
        wrong.push(line.clone());
    }
}

/// What became of a VM; whether it was lost.
fn the_vm(
    vm: &VmFacts,
    fate: Fate,
    deed: &Deed,
    run: &Record,
    undisturbed: &Record,
    wrong: &mut Vec<String>,
) -> bool {
    let name = &vm.name;
    let end = run.end_of(name);
    let of_loss = end.is_some_and(|end| end.cause == "cell-lost");
    let by_itself = end.filter(|end| ["power-off", "reset"].contains(&end.cause.as_str()));
    let finished = by_itself.is_some();
    if let Some(end) = end
        && !of_loss
        && !finished
    {
        wrong.push(format!("VM {name} ended with cause {}", end.cause));
    }
    match fate {
        Fate::Lives if of_loss => {
            wrong.push(format!("VM {name} was lost, and should not have been"))
        }
        Fate::Lives | Fate::Either if end.is_none() => {
            wrong.push(format!("VM {name} has neither finished nor been lost"));
        }
        Fate::Lost => {
            let cells = vm.permitted.iter().filter(|cell| deed.lost >> **cell & 1 != 0);
            let first = cells.filter_map(|cell| run.loss_of(*cell)).min();
            let until = first.map_or(u64::MAX, |at| at.saturating_add(AFTERLIFE_NS));
            if by_itself.is_some_and(|end| end.t_ns > until) {
                wrong.push(format!("VM {name} has outlived a cell that it depended on"));
            }
            // With its home goes whoever could say so of it alone.
            if end.is_none() && deed.lost >> vm.home & 1 == 0 {
                wrong.push(format!("VM {name} is lost, and nobody says so"));
            }
        }
        Fate::Lives | Fate::Either => {}
    }
    if of_loss && end.is_some_and(|end| end.t_ns < deed.at_ns) {
        wrong.push(format!("VM {name} was lost before anything had failed"));
    }
    // Whoever finished has printed what it prints undisturbed, whoever lives or not.
    if finished && let Some(difference) = difference(run.console(name), undisturbed.console(name)) {
        wrong.push(format!("VM {name}: {difference}"));
    }
    !finished && (of_loss || fate == Fate::Lost)
}

/// The first line in which a console is not that of the undisturbed run.
fn difference(found: &[String], wanted: &[String]) -> Option<String> {
    if wanted.is_empty() {
        return Some("it prints nothing undisturbed, so that nothing is shown".into());
    }
    let line = |lines: &[String], i: usize| {
        lines.get(i).map_or("nothing".to_owned(), |line| format!("{line:?}"))
    };
    (0..found.len().max(wanted.len()))
        .find(|i| found.get(*i) != wanted.get(*i))
        .map(|i| format!("line {} is {}, undisturbed {}", i + 1, line(found, i), line(wanted, i)))
}

/// A new VM runs in each living cell, and each has counted its pages.
fn afterwards(facts: &Facts, deed: &Deed, run: &Record, wrong: &mut Vec<String>) {
    for name in workload::late(facts, deed.lost) {
        let has = |wanted: &str| run.console(&name).iter().any(|line| line.contains(wanted));
        if !has("hello: ready") || !has("sum: d488e188dc8ae95b") {
            wrong.push(format!("the new VM {name} does not work"));
        }
    }
    let alive = usize::from(facts.layout.cells()) - sides::each(deed.lost).count();
    let lines = || run.console("monitor").iter();
    let consistent = lines().filter(|line| line.starts_with("consistent")).count();
    if consistent != alive {
        wrong.push(format!(
            "{consistent} of {alive} living cells say that their memory is consistent"
        ));
    }
    let sums: Vec<_> = lines().filter(|line| line.starts_with("all: ")).collect();
    if sums.len() != alive {
        wrong.push(format!("{} of {alive} living cells have counted their memory", sums.len()));
    }
    wrong.extend(
        sums.into_iter()
            .filter(|line| !adds_up(line))
            .map(|line| format!("does not add up: {line}")),
    );
}

/// Whether a line of `mem` adds up: `all: free 2 + monitor 3 = total 5 pages of 4 KB`.
fn adds_up(line: &str) -> bool {
    let Some((parts, total)) = line.split_once(" = total ") else { return false };
    let number = |text: &str| text.split(' ').find_map(|word| word.parse::<u64>().ok());
    let parts: Option<Vec<_>> = parts.split(" + ").map(number).collect();
    parts.map(|parts| parts.iter().sum()) == number(total)
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
