//! What a machine of an experiment does: its configuration and its script.

use super::sides::{self, Cells};
use crate::endian::Endian;
use crate::run::facts::Facts;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// What kind of memory nodes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Memory {
    /// A window and a slice.
    Mixed,
    /// A window.
    Removable,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Cells.
    pub cells: u32,
    /// Nodes of each, with consecutive numbers.
    pub nodes_per_cell: u32,
    /// CPUs of each node.
    pub cpus_per_node: u32,
    /// Kind of memory.
    pub memory: Memory,
    /// Byte order.
    pub endian: Endian,
}

impl Machine {
    /// Nodes.
    pub fn nodes(&self) -> u32 {
        self.cells * self.nodes_per_cell
    }

    /// How a row of the summary calls it.
    pub fn name(&self) -> String {
        let each = if self.nodes_per_cell == 1 { "1 node" } else { "2 nodes" };
        format!("{} cells of {each}", self.cells)
    }
}

/// A program of the IRIX-like guest (docs/irix.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Program {
    /// Arithmetic.
    Arithmetic,
    /// Memory.
    Memory,
    /// Processes.
    Family,
    /// Pipes.
    Pipeline,
    /// `exec`.
    Exec,
    /// Address spaces.
    Spaces,
    /// Signals.
    Signals,
    /// Faults.
    Faults,
    /// Share groups.
    Share,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Arithmetic,
        Self::Memory,
        Self::Family,
        Self::Pipeline,
        Self::Exec,
        Self::Spaces,
        Self::Signals,
        Self::Faults,
        Self::Share,
    ];

    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// A VM: the IRIX-like kernel in 8 MB, which runs some programs and switches itself off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// VCPUs.
    pub vcpus: u32,
    /// Where it may be.
    pub cells: Vec<u32>,
    /// Whether it is spread over them.
    pub is_spread: bool,
    /// What it runs.
    pub programs: Vec<Program>,
}

/// What goes on beside the VMs' work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activity {
    /// VCPUs are moved at random for a second.
    Migrate,
    /// Every cell sends so many messages to VCPUs.
    Messages {
        /// How many.
        count: u32,
    },
    /// A cell lends another one pages, and asks for them back.
    Lend {
        /// Who gets them.
        to: u32,
        /// Who lends them.
        on: u32,
        /// How many.
        pages: u32,
    },
    /// A VM is paused, resumed, and paused and resumed again.
    Lives {
        /// Which.
        vm: u32,
    },
}

impl Activity {
    /// How a report calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Migrate => "migrations",
            Self::Messages { .. } => "messages",
            Self::Lend { .. } => "a loan",
            Self::Lives { .. } => "pause and resume",
        }
    }

    /// Steps of a script, at the monitor's console.
    fn steps(&self, facts: &Facts) -> String {
        match self {
            Self::Migrate => "send stress migrate 1\n".into(),
            Self::Messages { count } => format!("send stress messages {count}\n"),
            Self::Lend { to, on, pages } => {
                format!("send lend {to} {pages} on {on}\nwait 0.05\nsend recall {to} on {on}\n")
            }
            Self::Lives { vm } => {
                let Some(vm) = facts.vms.get(*vm as usize) else { return String::new() };
                let name = &vm.name;
                format!("send pause {name}\nwait 0.04\nsend resume {name}\nwait 0.1\n").repeat(2)
            }
        }
    }
}

/// The first part of the names of VMs that are started afterwards, one in each living cell.
pub const LATE: &str = "late-";

/// The configuration of a drawn machine.
pub fn config(machine: &Machine, guests: &[Guest]) -> String {
    let memory = match machine.memory {
        Memory::Mixed => "memory_kind = \"mixed\"\nslice_per_node = \"48M\"",
        Memory::Removable => "memory_kind = \"removable\"",
    };
    let mut out = format!(
        "[machine]\nnodes = {}\ncpus_per_node = {}\nendian = \"{}\"\n{memory}\n",
        machine.nodes(),
        machine.cpus_per_node,
        machine.endian
    );
    let each = machine.nodes_per_cell;
    for cell in 0..machine.cells {
        let nodes: Vec<_> = (cell * each..(cell + 1) * each).map(|n| n.to_string()).collect();
        // Writing to a string does not fail.
        let _ = write!(out, "[[cell]]\nnodes = [{}]\n", nodes.join(", "));
    }
    for (i, guest) in guests.iter().enumerate() {
        let cells: Vec<_> = guest.cells.iter().map(u32::to_string).collect();
        let programs: Vec<_> = guest.programs.iter().map(|program| program.name()).collect();
        let _ = write!(
            out,
            "[[vm]]\nname = \"irix-{i}\"\nkernel = \"irix\"\nmemory = \"8M\"\nvcpus = {}\ncells = [{}]\n\
             placement = \"{}\"\ncmdline = \"do={}\"\n",
            guest.vcpus,
            cells.join(", "),
            if guest.is_spread { "spread" } else { "local" },
            programs.join(",")
        );
    }
    out
}

/// A configuration's text with a further VM of 8 MB for each cell, which nothing starts yet.
pub fn with_late_vms(config: &str, cells: u8) -> String {
    let mut out = config.to_owned();
    for cell in 0..cells {
        let _ = write!(
            out,
            "[[vm]]\nname = \"{LATE}{cell}\"\nkernel = \"hello\"\nmemory = \"8M\"\ncells = [{cell}]\n\
             start = \"manual\"\n"
        );
    }
    out
}

/// What a fault does to a script.
#[derive(Clone, Debug)]
pub struct Injection {
    /// The words that follow `fault`.
    pub words: String,
    /// When, in nanoseconds since power-on.
    pub at_ns: u64,
    /// Who must be lost.
    pub lost: Cells,
    /// For how long a step may wait, in virtual seconds.
    pub patience: u64,
}

/// Whether a script goes on after a loss: its player dies with cell 0.
pub fn goes_on(lost: Cells) -> bool {
    lost & 1 == 0
}

/// The script of an experiment, or of the same machine undisturbed.
pub fn script(facts: &Facts, activities: &[Activity], injection: Option<&Injection>) -> String {
    let mut out = "console monitor\nexpect \"honeycomb> \"\n".to_owned();
    let (lost, patience) = injection.map_or((0, UNDISTURBED), |i| (i.lost, i.patience));
    if let Some(injection) = injection {
        let (seconds, ns) = (injection.at_ns / 1_000_000_000, injection.at_ns % 1_000_000_000);
        let _ = writeln!(out, "send fault {} at {seconds}.{ns:09}", injection.words);
    } else {
        // As many steps, so that what follows comes at about the same time.
        out.push_str("send nodes\n");
    }
    for activity in activities {
        // Nobody is left to resume what was paused by a script that has died.
        if !matches!(activity, Activity::Lives { .. }) || goes_on(lost) {
            out.push_str(&activity.steps(facts));
        }
    }
    if !goes_on(lost) {
        // What follows is not played; but the script must not end before the fault.
        let _ = writeln!(out, "wait {patience}");
        return out;
    }
    // VMs of living cells end, in any order, and cells are lost in between.
    let names: Vec<_> = facts
        .vms
        .iter()
        .filter(|vm| vm.autostart && lost >> vm.home & 1 == 0)
        .map(|vm| vm.name.replace('.', "\\."))
        .collect();
    let mut waits = Vec::new();
    if !names.is_empty() {
        waits.push(format!("VM `({})` ended: [a-z]", names.join("|")));
    }
    let cells: Vec<_> = sides::each(lost).map(|cell| cell.to_string()).collect();
    if !cells.is_empty() {
        waits.push(format!("cell ({}) is lost", cells.join("|")));
    }
    for _ in 0..names.len() + cells.len() {
        let _ = writeln!(out, "expect \"{}\" {patience}", waits.join("|"));
    }
    // Whatever else may happen has time to happen.
    out.push_str("wait 0.1\n");
    for vm in late(facts, lost) {
        let _ = write!(
            out,
            "console monitor\nsend start {vm}\nconsole {vm}\nexpect \"hello: ready\" {patience}\n\
             send sum\nexpect \"sum: d488e188dc8ae95b\" {patience}\n"
        );
    }
    out.push_str("console monitor\nsend mem\n");
    for _ in 0..u32::from(facts.layout.cells()) - lost.count_ones() {
        let _ = writeln!(out, "expect \"^consistent\" {patience}");
    }
    out
}

/// How long a step of an undisturbed run may wait, in virtual seconds.
const UNDISTURBED: u64 = 120;

/// The VMs that are started afterwards.
pub fn late(facts: &Facts, lost: Cells) -> impl Iterator<Item = String> {
    let alive = (0..facts.layout.cells()).filter(move |cell| lost >> cell & 1 == 0);
    alive.map(|cell| format!("{LATE}{cell}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::draw::Experiment;
    use std::path::Path;

    fn facts(experiment: &Experiment) -> Facts {
        let config = config(&experiment.machine, &experiment.guests);
        let config = with_late_vms(&config, experiment.machine.cells as u8);
        Facts::parse(Path::new("drawn"), &config).unwrap()
    }

    #[test]
    fn every_machine_that_is_drawn_can_be_had() {
        for experiment in (0..300).map(|id| Experiment::draw(3, id)) {
            let facts = facts(&experiment);
            assert_eq!(u32::from(facts.layout.cells()), experiment.machine.cells);
            assert_eq!(facts.layout.nodes, experiment.machine.nodes());
            let working = facts.vms.iter().filter(|vm| vm.autostart).count();
            assert_eq!(working, experiment.guests.len());
        }
    }

    #[test]
    fn a_script_waits_for_what_is_left() {
        let experiment = (0..).map(|id| Experiment::draw(3, id)).find(|experiment| {
            (experiment.machine.cells, experiment.machine.nodes_per_cell) == (4, 1)
        });
        let facts = facts(&experiment.unwrap());
        let injection =
            |lost| Injection { words: "node 2".into(), at_ns: 1_000_000_007, lost, patience: 9 };
        let text = script(&facts, &[], Some(&injection(0b0100)));
        assert!(text.contains("send fault node 2 at 1.000000007\n"), "{text}");
        assert!(text.contains("cell (2) is lost"));
        assert!(text.contains("send start late-3\n") && !text.contains("late-2"));
        assert_eq!(text.matches("\"^consistent\"").count(), 3);
        let text = script(&facts, &[Activity::Migrate], Some(&injection(1)));
        assert!(text.ends_with("send stress migrate 1\nwait 9\n"), "{text}");
        let text = script(&facts, &[], None);
        assert!(!text.contains("fault") && !text.contains("is lost"));
        assert_eq!(text.matches("send start late-").count(), 4);
    }
}
