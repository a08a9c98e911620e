//! What an experiment is, and how it is drawn.
//!
//! Experiment `i` of seed `S` is drawn from two sources (SplitMix64): what fails and when from the one that is begun with (S, i),
//! machine and workload from the one of (!S, i / 4), so that four experiments can be judged by one undisturbed run. Nothing
//! else goes in: an experiment is the same on every host, in every shard and whatever was run before it.

use super::workload::{Activity, Guest, Machine, Memory, Program};
use crate::endian::Endian;
use crate::fuzz::rng::Rng;
use abi::layout::Layout;
use abi::topology::{Failed, Topology};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What fails.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A node: CPUs and memory
    Node,
    /// A node's controller: CPUs at once, memory a little later
    Firmware,
    /// A router
    Router,
    /// A link
    Link,
    /// A CPU, which executes nothing any more
    Cpu,
    /// Nothing, but a cell suspects another one
    FalseAlarm,
    /// A router or link, for 10 ms
    Transient,
}

impl Kind {
    /// All, with how many of a hundred experiments are of it.
    pub const ALL: [(Self, u64); 7] = [
        (Self::Node, 20),
        (Self::Firmware, 20),
        (Self::Router, 20),
        (Self::Link, 20),
        (Self::Cpu, 6),
        (Self::FalseAlarm, 7),
        (Self::Transient, 7),
    ];

    fn draw(rng: &mut Rng) -> Self {
        let mut at = rng.below(Self::ALL.iter().map(|(_, weight)| weight).sum());
        for (kind, weight) in Self::ALL {
            if at < weight {
                return kind;
            }
            at -= weight;
        }
        Self::Node
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Firmware => "firmware",
            Self::Router => "router",
            Self::Link => "link",
            Self::Cpu => "cpu",
            Self::FalseAlarm => "false-alarm",
            Self::Transient => "transient",
        })
    }
}

/// A fault at its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Its kind.
    pub kind: Kind,
    /// For a transient one whether a link fails; else of no meaning.
    pub is_link: bool,
    /// The number of the node, router, link, CPU or cell.
    pub place: u32,
}

impl Fault {
    fn draw(rng: &mut Rng, kind: Kind, nodes: u32, cpus_per_node: u32, cells: u32) -> Self {
        let topology = Topology::new(nodes);
        let is_link = kind == Kind::Link || kind == Kind::Transient && rng.chance(50);
        let places = match kind {
            Kind::Node | Kind::Firmware => nodes,
            Kind::Router | Kind::Transient if !is_link => topology.routers().into(),
            Kind::Router | Kind::Transient | Kind::Link => topology.links().count() as u32,
            // Whoever hangs beside its cell's lowest CPU is not found yet: docs/faults.md.
            Kind::Cpu => cells,
            Kind::FalseAlarm => cells,
        };
        let mut place = rng.below32(places);
        if kind == Kind::Cpu {
            place *= nodes / cells * cpus_per_node;
        }
        Self { kind, is_link, place }
    }

    /// The words that follow `fault` on the monitor's console.
    pub fn words(&self) -> String {
        let place = self.place;
        match (self.kind, self.is_link) {
            (Kind::Transient, true) => format!("transient link {place}"),
            (Kind::Transient, false) => format!("transient router {place}"),
            (kind, _) => format!("{kind} {place}"),
        }
    }

    /// What it takes away for good.
    pub fn failed(&self, cpus_per_node: u32) -> Failed {
        let mut failed = Failed::default();
        match self.kind {
            Kind::Node | Kind::Firmware => failed.nodes = 1 << self.place,
            Kind::Cpu => failed.nodes = 1 << (self.place / cpus_per_node),
            Kind::Router => failed.routers = 1 << self.place,
            Kind::Link => failed.links = 1 << self.place,
            Kind::FalseAlarm | Kind::Transient => {}
        }
        failed
    }
}

/// One experiment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Experiment {
    /// The campaign's seed.
    pub seed: u64,
    /// Its number.
    pub id: u64,
    /// The machine.
    pub machine: Machine,
    /// The VMs that work.
    pub guests: Vec<Guest>,
    /// What goes on beside them.
    pub activities: Vec<Activity>,
    /// What fails.
    pub fault: Fault,
    /// When, as a part of the time in which the undisturbed VMs work: 2⁶⁴ is all of it.
    pub moment: u64,
}

/// How many experiments have one machine and workload.
pub const SHARING: u64 = 4;
/// Cells, and nodes of each, with how many of a hundred machines are such.
const SHAPES: [(u32, u32, u64); 6] =
    [(4, 1, 45), (2, 1, 15), (2, 2, 10), (4, 2, 10), (8, 1, 15), (3, 1, 5)];

impl Experiment {
    /// Draws experiment `id` of `seed`.
    pub fn draw(seed: u64, id: u64) -> Self {
        let mut rng = Rng::new(!seed, id / SHARING);
        let mut at = rng.below(SHAPES.iter().map(|(.., weight)| weight).sum());
        let shape = SHAPES.iter().find(|(.., weight)| {
            let is = at < *weight;
            at = at.saturating_sub(*weight);
            is
        });
        let &(cells, nodes_per_cell, _) = shape.unwrap_or(&SHAPES[0]);
        let nodes = cells * nodes_per_cell;
        let cpus_per_node = 1 + u32::from(rng.chance(40) && nodes <= 4);
        // Windows of 8 nodes leave a monitor alone no room for engines.
        let removable = rng.chance(25) && nodes <= 4;
        let machine = Machine {
            cells,
            nodes_per_cell,
            cpus_per_node,
            memory: if removable { Memory::Removable } else { Memory::Mixed },
            endian: if rng.chance(35) { Endian::Big } else { Endian::Little },
        };
        let guests = guests(&mut rng, cells);
        let activities = activities(&mut rng, &guests, cells);
        let mut rng = Rng::new(seed, id);
        let kind = Kind::draw(&mut rng);
        let fault = Fault::draw(&mut rng, kind, nodes, cpus_per_node, cells);
        Self { seed, id, machine, guests, activities, fault, moment: rng.bits() }
    }

    /// The fault of experiment `id` of `seed` on a machine that somebody else has chosen, and its moment.
    pub fn fault_on(seed: u64, id: u64, layout: &Layout) -> (Fault, u64) {
        let mut rng = Rng::new(seed, id);
        let kind = Kind::draw(&mut rng);
        let fault =
            Fault::draw(&mut rng, kind, layout.nodes, layout.cpus_per_node, layout.cells().into());
        (fault, rng.bits())
    }
}

/// One VM confined to each cell (each second one of eight), and in most experiments one or two that may use several.
fn guests(rng: &mut Rng, cells: u32) -> Vec<Guest> {
    let step = if cells == 8 { 2 } else { 1 };
    let first = if step == 2 { rng.below32(2) } else { 0 };
    let mut guests = Vec::new();
    for cell in (first..cells).step_by(step) {
        guests.push(Guest {
            vcpus: 1 + u32::from(rng.chance(25)),
            cells: vec![cell],
            is_spread: false,
            programs: programs(rng),
        });
    }
    let wide = if rng.chance(70) { 1 + u32::from(rng.chance(25)) } else { 0 };
    for _ in 0..wide {
        let over = 2 + rng.below32(cells.min(4) - 1);
        let first = rng.below32(cells);
        let mut on: Vec<u32> = (first..first + over).map(|cell| cell % cells).collect();
        on.sort_unstable();
        guests.push(Guest {
            vcpus: 1 + rng.below32(4),
            cells: on,
            is_spread: rng.chance(85),
            programs: programs(rng),
        });
    }
    guests
}

fn programs(rng: &mut Rng) -> Vec<Program> {
    (0..1 + rng.below(2)).map(|_| rng.pick(&Program::ALL)).collect()
}

fn activities(rng: &mut Rng, guests: &[Guest], cells: u32) -> Vec<Activity> {
    let wide = guests.iter().any(|guest| guest.cells.len() > 1);
    let mut activities = Vec::new();
    if wide && rng.chance(60) {
        activities.push(Activity::Migrate);
    }
    if wide && rng.chance(50) {
        activities.push(Activity::Messages { count: 50 + rng.below32(400) });
    }
    if rng.chance(35) {
        let to = rng.below32(cells);
        let on = (to + 1 + rng.below32(cells - 1)) % cells;
        activities.push(Activity::Lend { to, on, pages: 1 + rng.below32(256) });
    }
    if rng.chance(30) {
        activities.push(Activity::Lives { vm: rng.below32(guests.len() as u32) });
    }
    activities
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn an_experiment_depends_on_seed_and_number_only() {
        let all: Vec<_> = (0..50).map(|id| Experiment::draw(7, id)).collect();
        for id in (0..50).rev() {
            assert_eq!(Experiment::draw(7, id), all[id as usize]);
        }
        assert_ne!(Experiment::draw(8, 0).moment, all[0].moment);
        assert_ne!(all[0].moment, all[1].moment);
    }

    #[test]
    fn all_there_is_is_drawn_and_stands_in_the_machine() {
        let (mut kinds, mut shapes) = (BTreeMap::new(), BTreeMap::new());
        let (mut wide, mut removable, mut big) = (0, 0, 0);
        const COUNT: u64 = 2000;
        for experiment in (0..COUNT).map(|id| Experiment::draw(1, id)) {
            let machine = &experiment.machine;
            *kinds.entry(experiment.fault.kind).or_insert(0) += 1;
            *shapes.entry((machine.cells, machine.nodes_per_cell)).or_insert(0) += 1;
            wide += u64::from(experiment.guests.iter().any(|guest| guest.cells.len() > 1));
            removable += u64::from(machine.memory == Memory::Removable);
            big += u64::from(machine.endian == Endian::Big);
            let cells = experiment.guests.iter().flat_map(|guest| &guest.cells);
            assert!(cells.into_iter().all(|cell| *cell < machine.cells));
            let failed = experiment.fault.failed(machine.cpus_per_node);
            assert!(u32::from(failed.nodes) < 1 << machine.nodes());
        }
        for (kind, weight) in Kind::ALL {
            let share = kinds.get(&kind).copied().unwrap_or(0) * 100 / COUNT;
            assert!(share.abs_diff(weight) <= 3, "{kind}: {share} of a hundred");
        }
        assert_eq!(shapes.len(), SHAPES.len());
        assert!(wide * 2 > COUNT, "{wide} of {COUNT} have VMs that may use several cells");
        assert!(removable > 200 && big > 400, "{removable} {big}");
    }

    #[test]
    fn faults_are_called_as_the_console_calls_them() {
        let fault = |kind, is_link, place| Fault { kind, is_link, place }.words();
        assert_eq!(fault(Kind::Node, false, 2), "node 2");
        assert_eq!(fault(Kind::Firmware, false, 0), "firmware 0");
        assert_eq!(fault(Kind::Link, true, 4), "link 4");
        assert_eq!(fault(Kind::FalseAlarm, false, 1), "false-alarm 1");
        assert_eq!(fault(Kind::Transient, true, 3), "transient link 3");
        assert_eq!(fault(Kind::Transient, false, 1), "transient router 1");
    }
}
