//! The script of a series: its experiments one after the other, each followed by repair.

use super::draw::{Experiment, Fault, Kind};
use super::sides;
use super::workload::{self, LATE, is_stock};
use crate::run::facts::{Facts, VmFacts};
use std::fmt::Write;

/// How long a step may wait, in virtual seconds. What takes longer hangs.
const PATIENCE: u64 = 12;

/// A script, and which of its lines belong to which experiment.
#[derive(Debug)]
pub struct Script {
    /// Its text.
    pub text: String,
    /// Of each experiment the first line, from 1.
    pub first: Vec<usize>,
}

impl Script {
    /// The place among its experiments of the one that a line belongs to; what comes before the first is the first's.
    pub fn experiment_of(&self, line: usize) -> usize {
        self.first.iter().rposition(|first| *first <= line).unwrap_or(0)
    }

    /// The script of some experiments of a series, one after the other.
    pub fn new(facts: &Facts, experiments: &[Experiment]) -> Self {
        let mut text = String::new();
        let working = || facts.vms.iter().filter(|vm| vm.autostart);
        text.push_str(&are_up(facts, working()));
        let mut first = Vec::new();
        for experiment in experiments {
            first.push(text.lines().count() + 1);
            add(&mut text, facts, experiment);
        }
        Self { text, first }
    }
}

/// Waits until VMs that have just started work: for stock guests, whose boot takes long, while all others are paused.
fn are_up<'a>(facts: &Facts, vms: impl Iterator<Item = &'a VmFacts>) -> String {
    let (stock, others): (Vec<_>, Vec<_>) = vms.partition(|vm| is_stock(&vm.name));
    let up = |vms: &[&VmFacts]| vms.iter().map(|vm| is_up(vm)).collect::<String>();
    if stock.is_empty() {
        return up(&others);
    }
    let boots = |name: &str| stock.iter().any(|vm| vm.name == name);
    let all = |what: &str| {
        let others = facts.vms.iter().filter(|vm| vm.autostart && !boots(&vm.name));
        let commands = others.map(|vm| format!("send {what} {}\n", vm.name));
        "console monitor\n".to_owned() + &commands.collect::<String>()
    };
    up(&others) + &all("pause") + &up(&stock) + &all("resume")
}

/// Waits until a VM that has just started works.
fn is_up(vm: &VmFacts) -> String {
    let name = &vm.name;
    let stock = is_stock(name);
    let counts = stock || workload::does_rounds(&vm.cmdline);
    let sign = if counts { "^round 1 " } else { "\\S" };
    let patience = if stock { 50 } else { 8 } * PATIENCE;
    format!("console {name}\nexpect \"{sign}\" {patience}\n")
}

/// A time for a step or command, in seconds.
fn seconds(ns: u64) -> String {
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

/// The steps of an experiment.
fn add(out: &mut String, facts: &Facts, experiment: &Experiment) {
    let Experiment { id, fault, in_ns, second, lost, activities, rest_ms, .. } = experiment;
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "# experiment {id}\nconsole monitor\nsend fault {} in {}\n",
        fault.words(),
        seconds(*in_ns)
    );
    if let Some(second) = second {
        let (words, in_ns) = (second.fault.words(), in_ns + second.after_ns);
        let _ = writeln!(out, "send fault {words} in {} on {}", seconds(in_ns), second.doer);
    }
    for activity in activities {
        out.push_str(&activity.steps(facts));
    }
    let cells: Vec<_> = sides::each(*lost).map(|cell| cell.to_string()).collect();
    for _ in &cells {
        let _ = writeln!(out, "expect \"cell ({}) is lost\" {PATIENCE}", cells.join("|"));
    }
    let rest = rest_ms * 1_000_000;
    // What must cost nothing has to have happened.
    let _ = writeln!(out, "wait {}", seconds(if cells.is_empty() { rest + in_ns } else { rest }));
    for activity in activities {
        out.push_str(&activity.undo(facts));
    }
    afterwards(out, facts, experiment);
    repair(out, facts, experiment);
    let _ = writeln!(out, "wait {}", seconds(rest));
}

/// A new VM works in each living cell, and each counts its pages.
fn afterwards(out: &mut String, facts: &Facts, experiment: &Experiment) {
    let living = || sides::each(sides::all(&facts.layout) & !experiment.lost);
    for cell in living() {
        let _ = writeln!(out, "send start {LATE}{cell}");
    }
    for cell in living() {
        let _ = write!(
            out,
            "console {LATE}{cell}\nexpect \"hello: ready\" {PATIENCE}\nsend sum\n\
             expect \"sum: d488e188dc8ae95b\" {PATIENCE}\n"
        );
    }
    out.push_str("console monitor\n");
    for cell in living() {
        let _ = writeln!(out, "send stop {LATE}{cell}");
    }
    for _ in living() {
        let _ = writeln!(out, "expect \"VM `{LATE}[0-7]` ended: stopped\" {PATIENCE}");
    }
    out.push_str("send mem\n");
    for _ in living() {
        let _ = writeln!(out, "expect \"^consistent\" {PATIENCE}");
    }
}

/// What has failed works again, lost cells are brought back, and lost VMs started.
fn repair(out: &mut String, facts: &Facts, experiment: &Experiment) {
    let part = |fault: &Fault| match fault.kind {
        Kind::Router | Kind::Link => Some(fault.words()),
        _ => None,
    };
    let second = experiment.second.as_ref().map(|second| &second.fault);
    let mut parts: Vec<_> =
        [Some(&experiment.fault), second].into_iter().flatten().filter_map(part).collect();
    parts.dedup();
    for part in parts {
        let _ = writeln!(out, "send repair {part}\nexpect \"{part} works again\" {PATIENCE}");
    }
    for cell in sides::each(experiment.lost) {
        let _ = write!(
            out,
            "send repair {cell}\nexpect \"cell {cell} boots again\" {PATIENCE}\n\
             expect \"cell {cell} is back\" {PATIENCE}\n"
        );
    }
    let is_lost = |cell: &u8| experiment.lost >> cell & 1 != 0;
    let touched = facts.vms.iter().filter(|vm| vm.autostart && vm.permitted.iter().any(is_lost));
    let (by_itself, by_hand): (Vec<_>, Vec<_>) = touched.partition(|vm| vm.starts_again());
    for vm in &by_hand {
        // If it was not lost it runs already, and says so. One that has started elsewhere stays there, and may wait for that.
        let home = if vm.elsewhere { String::new() } else { format!(" on {}", vm.home) };
        let _ = writeln!(out, "send start {}{home}", vm.name);
    }
    out.push_str(&are_up(facts, by_itself.into_iter()));
    for vm in by_hand {
        // One that was not lost does not begin again.
        out.push_str(&is_up(vm).replace("round 1 ", "round "));
    }
    out.push_str("console monitor\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::draw::Second;
    use crate::fault::workload::Activity;

    fn facts() -> Facts {
        let guests = [workload::guest(vec![2], false), workload::guest(vec![0, 2], true)];
        workload::facts_of(&guests)
    }

    fn experiment() -> Experiment {
        Experiment {
            id: 7,
            fault: Fault { kind: Kind::Node, is_link: false, place: 2 },
            in_ns: 1_000_007,
            second: None,
            lost: 0b0100,
            activities: vec![Activity::Lives { vm: 0 }],
            rest_ms: 90,
        }
    }

    #[test]
    fn an_experiment_waits_for_what_is_left_and_brings_the_rest_back() {
        let script = Script::new(&facts(), &[experiment(), experiment()]);
        let text = &script.text;
        assert!(text.starts_with("console irix-0\nexpect \"^round 1 \""), "{text}");
        assert!(text.contains("send fault node 2 in 0.001000007\n"), "{text}");
        assert!(text.contains("send resume irix-0\nexpect \"cell (2) is lost\" 12\n"), "{text}");
        assert!(text.contains("send start late-3\n") && !text.contains("late-2"));
        assert_eq!(text.matches("\"^consistent\"").count(), 6);
        assert!(
            text.contains("expect \"cell 2 is back\" 12\nsend start irix-1 on 0\nconsole irix-0\n")
        );
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(script.first.len(), 2);
        for first in &script.first {
            assert_eq!(lines[first - 1], "# experiment 7");
        }
        assert_eq!(script.experiment_of(1), 0);
        assert_eq!(script.experiment_of(script.first[1] - 1), 0);
        assert_eq!(script.experiment_of(script.first[1]), 1);
    }

    #[test]
    fn two_faults_are_asked_for_and_repaired() {
        let link = Fault { kind: Kind::Link, is_link: true, place: 3 };
        let second = Some(Second { fault: link, after_ns: 5_000_000, doer: 1 });
        let experiment = Experiment { second, lost: 0b1100, ..experiment() };
        let text = Script::new(&facts(), &[experiment]).text;
        assert!(text.contains("send fault link 3 in 0.006000007 on 1\n"), "{text}");
        assert_eq!(text.matches("cell (2|3) is lost").count(), 2);
        assert!(
            text.contains("send repair link 3\nexpect \"link 3 works again\" 12\nsend repair 2\n")
        );
    }
}
