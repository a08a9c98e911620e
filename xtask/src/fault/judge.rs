//! Who must have been lost, and whether exactly they were, for each experiment of a series.
//!
//! The judge knows the configuration, the topology, what was injected, and what the VMs print as long as they live. It asks the monitor
//! nothing about what depends on what: of a run it looks at its exit status, at what consoles printed and when, and at events. An experiment's
//! part of a run is from its fault to the next one's.
//!
//! A VM *depends* on the cell that it was started in; if it is spread, on all of its cells, since its pages are placed in turn from
//! its first page on, so that it has some in each of them before it has executed anything; if not, on those that its VCPUs are in,
//! which each move tells (`vcpu-migrated`). Only while VCPUs are being moved at random one may be on its way at the moment: such a VM
//! that may use a lost cell and depends on none may do either, but one of them completely.

use super::draw::Experiment;
use super::record::{Event, Life, Line, Record};
use super::sides::{self, Cells};
use super::workload::{self, Activity, LATE, MIGRATE_NS, is_stock};
use crate::run::facts::{Facts, VmFacts};
use abi::CpuId;

/// What becomes of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Lives,
    Lost,
    Either,
}

/// What the judge says of an experiment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// What was wrong, a line each; none: it has passed.
    pub wrong: Vec<String>,
    /// When it failed, in nanoseconds since power-on.
    pub at_ns: u64,
    /// How long after that the last loss was reported, in nanoseconds.
    pub found_ns: Option<u64>,
    /// How many lost lines were discarded.
    pub lines: u32,
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
/// How long one of the guest's checks takes, at most: the longest takes 0.3 s beside others.
const CHECK_NS: u64 = 1_000_000_000;
/// How late a second fault may come, compared with the first: the CPU that executes it may be busy with a slice.
const LATE_NS: u64 = 50_000_000;
/// Words of the monitor's console that nothing is to be found by.
pub const ALARMS: [&str; 2] = ["WRONG", "INCONSISTENT"];
/// Beginnings of lines with which a run ends that has done what it should.
const EXPECTED_ENDS: [&str; 2] = ["run: cell ", "run: VM "];

/// An experiment's part of a run.
struct Part<'a> {
    facts: &'a Facts,
    run: &'a Record,
    experiment: &'a Experiment,
    /// When it began to fail, and when the next one did or the run ended.
    at: u64,
    until: u64,
    /// The last loss was reported then, or the fault was injected if there is none.
    settled: u64,
    /// The run ended in it, and should not have.
    broken: bool,
    /// VCPUs may have been on their way.
    moves: bool,
}

/// Judges the experiments of a series, one after the other, as far as the run came. `failed`: the place of the one in which
/// a step of the script has failed. `sums`: the checksums of guests' rounds.
pub fn judge(
    facts: &Facts,
    experiments: &[Experiment],
    failed: Option<usize>,
    run: &Record,
    sums: &[u64],
) -> Vec<Judgement> {
    let end = run.events.iter().map(|event| event.t_ns).max().unwrap_or(0);
    let faults: Vec<&Event> = run.events.iter().filter(|event| event.kind == "fault").collect();
    let counts = experiments.iter().map(|one| 1 + usize::from(one.second.is_some()));
    let firsts: Vec<usize> = counts
        .scan(0, |sum, count| Some(std::mem::replace(sum, *sum + count)))
        .chain([faults.len()])
        .collect();
    let time = |place: usize| faults.get(place).map(|fault| fault.t_ns);
    // Whatever ended the run early did so in the last experiment that began.
    let reached = (0..experiments.len()).rposition(|i| time(firsts[i]).is_some());
    let ended_well = run.status.is_some_and(|status| [0, STATUS_LOST].contains(&status))
        && reached == experiments.len().checked_sub(1);
    let broken = if ended_well { None } else { failed.or(reached).or(Some(0)) };
    let last = broken.unwrap_or(experiments.len().saturating_sub(1));
    let mut judgements = Vec::new();
    for (i, experiment) in experiments.iter().enumerate().take(last + 1) {
        let at = time(firsts[i]).unwrap_or(end);
        let until = time(firsts[i + 1]).filter(|_| i < last).unwrap_or(end + 1);
        let part = Part {
            facts,
            run,
            experiment,
            at,
            until,
            settled: settled(run, at, until),
            broken: broken == Some(i),
            moves: moves(experiments, &firsts, &faults, i),
        };
        let mut judgement = Judgement { at_ns: at, ..Judgement::default() };
        if part.broken {
            how_it_ended(run, &mut judgement.wrong);
        }
        let injected = &faults[firsts[i].min(faults.len())..];
        part.the_faults(injected, &mut judgement.wrong);
        if experiment.lost != 0 {
            judgement.found_ns = Some(part.settled - at);
        }
        judgement.lines = part.events("lines-discarded").map(|event| event.lines).sum();
        part.the_cells(&mut judgement.wrong);
        part.alarms(&mut judgement.wrong);
        for vm in facts.vms.iter().filter(|vm| vm.autostart) {
            part.the_vm(vm, sums, &mut judgement);
        }
        if !part.broken {
            part.afterwards(&mut judgement.wrong);
        }
        judgements.push(judgement);
    }
    judgements
}

/// When the last loss was reported.
fn settled(run: &Record, at: u64, until: u64) -> u64 {
    let losses = run.events.iter().filter(|event| event.kind == "cell-lost");
    losses.map(|event| event.t_ns).filter(|t_ns| (at..until).contains(t_ns)).max().unwrap_or(at)
}

/// Whether VCPUs were being moved at random when experiment `i` began: since a moment before it, or by an earlier one.
fn moves(experiments: &[Experiment], firsts: &[usize], faults: &[&Event], i: usize) -> bool {
    let time = |i: usize| faults.get(firsts[i]).map_or(0, |fault: &&Event| fault.t_ns);
    let mut earlier = experiments[..=i].iter().enumerate();
    earlier.any(|(j, one)| {
        one.activities.contains(&Activity::Migrate)
            && (j == i || time(i) < time(j) + MIGRATE_NS + LATE_NS)
    })
}

fn how_it_ended(run: &Record, wrong: &mut Vec<String>) {
    match run.status {
        None => wrong.push("the run hung, and was killed".into()),
        Some(0 | STATUS_LOST) => {}
        Some(status) => wrong.push(format!("the run's exit status is {status}")),
    }
    let unexpected = |line: &&String| !EXPECTED_ENDS.iter().any(|start| line.starts_with(start));
    wrong.extend(run.own.iter().filter(unexpected).cloned());
    if wrong.is_empty() {
        wrong.push("the run ended before its script".into());
    }
}

impl Part<'_> {
    fn has(&self, t_ns: u64) -> bool {
        (self.at..self.until).contains(&t_ns)
    }

    fn events(&self, kind: &str) -> impl Iterator<Item = &Event> {
        let (kind, part) = (kind.to_owned(), self);
        self.run.events.iter().filter(move |event| event.kind == kind && part.has(event.t_ns))
    }

    fn is_lost(&self, cell: u8) -> bool {
        self.experiment.lost >> cell & 1 != 0
    }

    /// They must have been injected, in their order, and when they should. `found`: all that were, from this experiment on.
    fn the_faults(&self, found: &[&Event], wrong: &mut Vec<String>) {
        let Experiment { fault, second, .. } = self.experiment;
        let wanted = [Some(fault), second.as_ref().map(|second| &second.fault)];
        let wanted: Vec<String> = wanted.into_iter().flatten().map(|fault| fault.words()).collect();
        let here: Vec<&str> =
            found.iter().filter(|event| self.has(event.t_ns)).map(|event| &*event.what).collect();
        if here != wanted {
            wrong.push(format!("injected was {here:?}, not {wanted:?}"));
        } else if let (Some(second), [first, next, ..]) = (second, found) {
            let after = next.t_ns - first.t_ns;
            if after.abs_diff(second.after_ns) > LATE_NS {
                wrong.push(format!("the second fault came after {after} ns"));
            }
        }
    }

    /// Exactly those cells are lost that must be, and they come back.
    fn the_cells(&self, wrong: &mut Vec<String>) {
        let losses_of =
            |cell| self.events("cell-lost").filter(move |event| event.lost == Some(cell));
        // One that is lost itself has told it before.
        let lived = |by, at| {
            !self.is_lost(by) || losses_of(by).map(|event| event.t_ns).min().is_some_and(|t| at < t)
        };
        let living =
            |event: &&Event| u8::try_from(event.cell).is_ok_and(|by| lived(by, event.t_ns));
        for cell in 0..self.facts.layout.cells() {
            match (self.is_lost(cell), losses_of(cell).filter(living).count()) {
                (true, 1) | (false, 0) => {}
                (true, 0) => wrong.push(format!("nobody who lives says that cell {cell} is lost")),
                (true, count) => {
                    wrong.push(format!("cell {cell} was reported as lost {count} times"));
                }
                (false, _) => wrong.push(format!("cell {cell} was lost, and should not have been")),
            }
            let returns = self.events("cell-back").filter(|event| event.back == Some(cell)).count();
            if !self.broken && returns != usize::from(self.is_lost(cell)) {
                wrong.push(format!("cell {cell} came back {returns} times"));
            }
        }
        for event in self.events("cell-lost") {
            if event.lost.is_none_or(|cell| cell >= self.facts.layout.cells()) {
                wrong.push("a cell was lost that is not there".into());
            }
        }
    }

    /// No monitor has failed, whether it lives or not: the CPUs of one that is lost stop, or park. And none says that it has found
    /// something wrong.
    fn alarms(&self, wrong: &mut Vec<String>) {
        for event in self.events("panic") {
            wrong.push(format!("the monitor of cell {} has panicked", event.cell));
        }
        let lines =
            self.lines("monitor").filter(|line| ALARMS.iter().any(|word| line.contains(word)));
        wrong.extend(lines.map(|line| format!("the monitor says: {line}")));
    }

    fn lines(&self, console: &str) -> impl Iterator<Item = &str> {
        let lines = self.run.console(console).iter().filter(|line| self.has(line.t_ns));
        lines.map(|line| line.text.as_str())
    }

    /// The cells that a VM depends on for sure when the fault comes.
    fn dependencies(&self, vm: &VmFacts, life: &Life) -> Cells {
        let mut cells = 1 << life.home;
        if vm.is_spread {
            return vm.permitted.iter().fold(cells, |set, cell| set | 1 << cell);
        }
        if self.moves {
            return cells;
        }
        let mut vcpus = std::collections::BTreeMap::new();
        let before = |event: &&Event| (life.start..self.at).contains(&event.t_ns);
        for event in self.run.events.iter().filter(before) {
            if event.kind == "vcpu-migrated" && event.vm == vm.name {
                let node = self.facts.layout.node_of(CpuId(event.to));
                vcpus.insert(event.vcpu, self.facts.layout.cell(node).0);
            }
        }
        for cell in vcpus.into_values() {
            cells |= 1 << cell;
        }
        cells
    }

    fn fate(&self, vm: &VmFacts, life: &Life) -> Fate {
        let lost = self.experiment.lost;
        let may = vm.permitted.iter().fold(0, |set, cell| set | 1 << cell);
        if self.dependencies(vm, life) & lost != 0 {
            Fate::Lost
        } else if self.moves && may & lost != 0 {
            Fate::Either
        } else {
            Fate::Lives
        }
    }

    /// What became of a VM.
    fn the_vm(&self, vm: &VmFacts, sums: &[u64], judgement: &mut Judgement) {
        let name = &vm.name;
        let lives = self.run.lives(name);
        let alive = |life: &&Life| {
            life.start < self.at && life.end.as_ref().is_none_or(|(end, _)| *end >= self.at)
        };
        let life = lives.iter().rfind(alive);
        let wrong = &mut judgement.wrong;
        if let Some(life) = life {
            let fate = self.fate(vm, life);
            let end = life.end.as_ref().filter(|(at, cause)| self.has(*at) && cause != "quit");
            if self.the_fate(vm, life, fate, wrong) {
                judgement.lost_vms.push(name.clone());
            }
            if fate == Fate::Either {
                judgement.either.push(name.clone());
            }
            // What depends on memory that is gone or garbage may do anything until it is ended.
            let until = if end.is_some() { self.at } else { self.until };
            self.the_output(vm, life, until, sums, wrong);
        } else if vm.starts_again() {
            wrong.push(format!("VM {name} did not run any more"));
        }
        // Its later lives, those that began in this part, print what they should, too.
        for life in lives.iter().filter(|life| self.has(life.start)) {
            self.the_output(vm, life, self.until, sums, wrong);
        }
        if !self.broken && vm.starts_again() && self.is_lost(vm.home) {
            let again = lives.iter().filter(|life| self.has(life.start)).count();
            if again != 1 {
                wrong.push(format!("VM {name} was started again {again} times"));
            }
        }
        if let Some(life) = life.filter(|_| vm.elsewhere && !self.broken) {
            self.elsewhere(vm, life, &lives, wrong);
        }
    }

    /// A VM that is to start elsewhere when its home dies has done so, in a cell that it may be in and that lived: at once, if there was one,
    /// and once, but for a second fault. If it lost something else, it has started again in its home; if it lives on, it has not.
    fn elsewhere(&self, vm: &VmFacts, life: &Life, lives: &[Life], wrong: &mut Vec<String>) {
        let name = &vm.name;
        let again: Vec<_> = lives.iter().filter(|life| self.has(life.start)).collect();
        let was_lost =
            life.end.as_ref().is_some_and(|(at, cause)| self.has(*at) && cause != "quit");
        let most = if self.experiment.second.is_some() { 2 } else { 1 };
        let expected = if was_lost { 1..=most } else { 0..=0 };
        if !expected.contains(&again.len()) {
            wrong.push(format!("VM {name} was started again {} times", again.len()));
        }
        // A second fault may yet take the cell that it has started in.
        let is_down = |cell: u8, t_ns: u64| {
            let before = |kind| self.events(kind).filter(move |event| event.t_ns <= t_ns);
            before("cell-lost").any(|event| event.lost == Some(cell))
                && !before("cell-back").any(|event| event.back == Some(cell))
        };
        for life in &again {
            if !vm.permitted.contains(&life.home) || is_down(life.home, life.start) {
                wrong.push(format!("VM {name} was started again in cell {}", life.home));
            }
        }
        let spared = vm.permitted.iter().any(|cell| !self.is_lost(*cell));
        let first_back = self.events("cell-back").map(|event| event.t_ns).min();
        let late = |life: &&Life| first_back.is_some_and(|back| life.start > back);
        if self.is_lost(life.home) && spared && again.first().is_some_and(late) {
            wrong.push(format!("VM {name} was not started elsewhere until its cell was back"));
        }
    }

    /// Whether it has ended as it should, or lives on; whether it was lost.
    fn the_fate(&self, vm: &VmFacts, life: &Life, fate: Fate, wrong: &mut Vec<String>) -> bool {
        let name = &vm.name;
        let end = life.end.as_ref().filter(|(at, cause)| self.has(*at) && cause != "quit");
        let cause = end.map(|(_, cause)| cause.as_str());
        if let Some(other) = cause.filter(|cause| !["cell-lost", "home-lost"].contains(cause)) {
            wrong.push(format!("VM {name} ended with cause {other}"));
        }
        match (fate, cause) {
            (Fate::Lives, Some("cell-lost")) => {
                wrong.push(format!("VM {name} was lost, and should not have been"));
            }
            (Fate::Lives | Fate::Either, None) if !self.broken && !self.goes_on(name) => {
                wrong.push(format!("VM {name} lives and prints nothing any more"));
            }
            (Fate::Lost, None) => wrong.push(format!("VM {name} is lost, and nobody says so")),
            _ => {}
        }
        if end.is_some() {
            let until = self.settled + AFTERLIFE_NS;
            let late = |line: &Line| (until..life.until.min(self.until)).contains(&line.t_ns);
            if self.run.console(name).iter().any(late) {
                wrong.push(format!("VM {name} has outlived a cell that it depended on"));
            }
        }
        end.is_some()
    }

    /// Whether a VM is seen to go on: it prints something in what is left of this part, or is in the middle of a check, which
    /// prints nothing until it is done.
    fn goes_on(&self, name: &str) -> bool {
        let lines = self.run.console(name);
        let next = lines.iter().position(|line| line.t_ns > self.settled);
        next.is_some_and(|at| {
            let before = at.checked_sub(1).map_or(0, |last| lines[last].t_ns);
            let checked = lines[at].text.starts_with("check ");
            self.has(lines[at].t_ns) || checked && lines[at].t_ns - before < CHECK_NS
        })
    }

    /// What a life has printed in this part, and before `until`, is what it should.
    fn the_output(
        &self,
        vm: &VmFacts,
        life: &Life,
        until: u64,
        sums: &[u64],
        wrong: &mut Vec<String>,
    ) {
        let until = until.min(life.until);
        let lines = self.run.console(&vm.name).iter();
        let lines = lines.filter(|line| (life.start..until).contains(&line.t_ns));
        if is_stock(&vm.name) {
            let is_work = |line: &&Line| {
                line.text.strip_prefix("round ").is_some_and(|rest| !rest.starts_with('$'))
            };
            return self.compare(vm, lines.filter(is_work), workload::stock_lines(), wrong);
        }
        if let Some(wanted) = workload::lines(&vm.cmdline, sums) {
            self.compare(vm, lines, wanted, wrong);
        }
    }

    /// The lines are those that are wanted, as far as they come. Only what is wrong in this part is told.
    fn compare<'a>(
        &self,
        vm: &VmFacts,
        lines: impl Iterator<Item = &'a Line>,
        wanted: impl Iterator<Item = String>,
        wrong: &mut Vec<String>,
    ) {
        for (i, (line, wanted)) in lines.zip(wanted).enumerate() {
            if line.text != wanted {
                if line.t_ns >= self.at {
                    let (name, i) = (&vm.name, i + 1);
                    wrong.push(format!("VM {name}: line {i} is {:?}, not {wanted:?}", line.text));
                }
                return;
            }
        }
    }

    /// A new VM runs in each living cell, and each has counted its pages.
    fn afterwards(&self, wrong: &mut Vec<String>) {
        let living = sides::all(&self.facts.layout) & !self.experiment.lost;
        for cell in sides::each(living) {
            let name = format!("{LATE}{cell}");
            let has = |wanted: &str| self.lines(&name).any(|line| line.contains(wanted));
            if !has("hello: ready") || !has("sum: d488e188dc8ae95b") {
                wrong.push(format!("the new VM {name} does not work"));
            }
        }
        wrong.extend(accounts(self.lines("monitor"), living));
    }
}

/// What is wrong with what the living cells have answered to `mem`, among other lines of the monitor's console.
pub fn accounts<'a>(lines: impl Iterator<Item = &'a str>, living: Cells) -> Vec<String> {
    let lines: Vec<_> = lines.collect();
    let begin = |start: &'static str| lines.iter().filter(move |line| line.starts_with(start));
    let alive = living.count_ones() as usize;
    let (consistent, sums) = (begin("consistent").count(), begin("all: ").count());
    let mut wrong = Vec::new();
    if consistent != alive {
        wrong.push(format!(
            "{consistent} of {alive} living cells say that their memory is consistent"
        ));
    }
    if sums != alive {
        wrong.push(format!("{sums} of {alive} living cells have counted their memory"));
    }
    let odd = begin("all: ").filter(|line| !adds_up(line));
    wrong.extend(odd.map(|line| format!("does not add up: {line}")));
    wrong
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
