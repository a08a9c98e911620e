//! What the machine of a series does: its configuration, and what is done beside its VMs' work.

use crate::endian::Endian;
use crate::run::facts::Facts;
use irix_user::expected::expected;
use irix_user::work::BETWEEN;
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

/// A program of the IRIX-like guest (docs/irix.md), run between its rounds.
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
    /// Faults.
    Faults,
}

impl Program {
    /// All that are short enough for a VM to be heard of between two faults.
    pub const ALL: [Self; 6] =
        [Self::Arithmetic, Self::Memory, Self::Family, Self::Pipeline, Self::Exec, Self::Faults];

    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// A VM: the IRIX-like kernel in 8 MB, which does rounds for ever and runs some programs between them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// VCPUs.
    pub vcpus: u32,
    /// Where it may be.
    pub cells: Vec<u32>,
    /// Whether it is spread over them.
    pub is_spread: bool,
    /// Whether it starts in another of them when its home dies.
    #[serde(default)]
    pub elsewhere: bool,
    /// What it runs.
    pub programs: Vec<Program>,
}

/// How long VCPUs are moved, in nanoseconds.
pub const MIGRATE_NS: u64 = 1_000_000_000;

/// What goes on beside the VMs' work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activity {
    /// VCPUs are moved at random for [`MIGRATE_NS`].
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
    pub fn steps(&self, facts: &Facts) -> String {
        match self {
            Self::Migrate => "send stress migrate 1\n".into(),
            Self::Messages { count } => format!("send stress messages {count}\n"),
            Self::Lend { to, on, pages } => {
                format!("send lend {to} {pages} on {on}\nwait 0.05\nsend recall {to} on {on}\n")
            }
            Self::Lives { vm } => {
                let Some(vm) = facts.vms.get(*vm as usize) else { return String::new() };
                let name = &vm.name;
                format!("send pause {name}\nwait 0.02\nsend resume {name}\n").repeat(2)
            }
        }
    }

    /// Steps after the fault: whoever was to undo it may have died before it did.
    pub fn undo(&self, facts: &Facts) -> String {
        match self {
            Self::Lives { vm } => {
                let vm = facts.vms.get(*vm as usize);
                vm.map_or(String::new(), |vm| format!("send resume {}\n", vm.name))
            }
            Self::Migrate | Self::Messages { .. } | Self::Lend { .. } => String::new(),
        }
    }
}

/// How often the clock of a guest ticks in a second: as often it does a round.
const HZ: u32 = 30;
/// The word of a guest's command line before the names of its programs.
const ROUNDS: &str = "do=rounds:";

/// Whether a VM with this command line does rounds.
pub fn does_rounds(cmdline: &str) -> bool {
    cmdline.split(' ').any(|word| word.starts_with(ROUNDS))
}

/// What a VM with this command line prints, line by line and for ever: `None` if that is not known in advance.
pub fn lines<'a>(cmdline: &'a str, sums: &'a [u64]) -> Option<impl Iterator<Item = String> + 'a> {
    let programs = cmdline.split(' ').find_map(|word| word.strip_prefix(ROUNDS))?;
    let mut programs = programs.split(':').cycle();
    let rounds = sums.iter().zip(1..).flat_map(move |(sum, number)| {
        let program = (number % BETWEEN == 0).then(|| programs.next()).flatten();
        let known = program.and_then(|name| Some((name, expected(name)?)));
        let check = known.map(|(name, sum)| format!("check {name} {sum:016x}"));
        std::iter::once(format!("round {number} {sum:016x}")).chain(check)
    });
    Some(std::iter::once("irix: shell ready".to_owned()).chain(rounds))
}

/// The first part of the names of VMs that are started afterwards, one in each living cell.
pub const LATE: &str = "late-";

/// The first part of the names of stock guests' VMs, one in each cell that has one.
const STOCK: &str = "stock-";

/// What a stock guest does: its shell counts for ever.
const STOCK_WORKS: &str = "console=ttyS0 quiet nokaslr rdinit=/bin/sh -- -c \"i=0;s=0;while :;do i=$((i+1));\
    s=$(((s*31+i)%1000003));echo round $i $s;done\"";

/// Whether a VM of this name is a stock guest.
pub fn is_stock(name: &str) -> bool {
    name.starts_with(STOCK)
}

/// What the shell prints, line by line and for ever.
pub fn stock_lines() -> impl Iterator<Item = String> {
    (1_u64..).scan(0, |sum, number| {
        *sum = (*sum * 31 + number) % 1_000_003;
        Some(format!("round {number} {sum}"))
    })
}

/// The configuration of a drawn machine. `stock`: the cells that have a stock guest.
pub fn config(machine: &Machine, guests: &[Guest], stock: &[u32]) -> String {
    let memory = match machine.memory {
        Memory::Mixed if !stock.is_empty() => "memory_kind = \"mixed\"\nslice_per_node = \"96M\"",
        Memory::Mixed => "memory_kind = \"mixed\"\nslice_per_node = \"32M\"",
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
        // Whoever is confined to one cell starts again with it.
        let restart = match guest.elsewhere {
            true => "on-failure: elsewhere",
            false if guest.cells.len() == 1 => "on-failure",
            false => "never",
        };
        let _ = write!(
            out,
            "[[vm]]\nname = \"irix-{i}\"\nkernel = \"irix\"\nmemory = \"8M\"\nvcpus = {}\ncells = [{}]\n\
             placement = \"{}\"\nrestart = \"{restart}\"\ncmdline = \"hz={HZ} {ROUNDS}{}\"\n",
            guest.vcpus,
            cells.join(", "),
            if guest.is_spread { "spread" } else { "local" },
            programs.join(":")
        );
    }
    for cell in stock {
        let _ = write!(
            out,
            "[[vm]]\nname = \"{STOCK}{cell}\"\nkernel = \"linux\"\nengine = \"translator\"\nmemory = \"64M\"\n\
             cells = [{cell}]\nclock_scale = 8\nrestart = \"on-failure\"\ncmdline = '{STOCK_WORKS}'\n"
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
             weight = 10000\nstart = \"manual\"\n"
        );
    }
    out
}

/// A guest of one VCPU, for tests.
#[cfg(test)]
pub fn guest(cells: Vec<u32>, is_spread: bool) -> Guest {
    Guest { vcpus: 1, cells, is_spread, elsewhere: false, programs: vec![Program::Exec] }
}

/// Four cells of a node with these guests, and those that are started later, for tests.
#[cfg(test)]
pub fn facts_of(guests: &[Guest]) -> Facts {
    let machine = Machine {
        cells: 4,
        nodes_per_cell: 1,
        cpus_per_node: 1,
        memory: Memory::Mixed,
        endian: Endian::Little,
    };
    let config = with_late_vms(&config(&machine, guests, &[]), 4);
    Facts::parse(std::path::Path::new("a test"), &config).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::draw::Series;
    use irix_user::work::Rounds;
    use std::path::Path;

    #[test]
    fn every_machine_that_is_drawn_can_be_had() {
        let drawn = (0..300).map(|number| Series::draw(3, number, number >= 280));
        for (series, number) in drawn.zip(0..) {
            let machine = &series.machine;
            let config = config(machine, &series.guests, &series.stock);
            let config = with_late_vms(&config, machine.cells as u8);
            let facts = Facts::parse(Path::new("drawn"), &config).unwrap();
            assert_eq!(u32::from(facts.layout.cells()), machine.cells);
            assert_eq!(facts.layout.nodes, machine.nodes());
            let working = facts.vms.iter().filter(|vm| vm.autostart).count();
            assert_eq!(working, series.guests.len() + series.stock.len());
            assert!(number < 280 || series.stock.len() as u32 == machine.cells);
        }
    }

    #[test]
    fn what_a_guest_prints_is_known() {
        let sums: Vec<u64> = Rounds::default().take(64).collect();
        let found: Vec<_> = lines("hz=40 do=rounds:exec:share", &sums).unwrap().collect();
        assert_eq!(
            found[..2],
            ["irix: shell ready".to_owned(), format!("round 1 {:016x}", sums[0])]
        );
        assert_eq!(found[33], "check exec 8366d4b035785b02");
        assert_eq!(found[66], "check share 0000000000003a98");
        assert_eq!(found.len(), 67);
        assert!(lines("do=exec", &sums).is_none());
        let found: Vec<_> = stock_lines().take(4).collect();
        assert_eq!(found, ["round 1 1", "round 2 33", "round 3 1026", "round 4 31810"]);
    }
}
