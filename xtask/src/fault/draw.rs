//! What a series and its experiments are, and how they are drawn.
//!
//! A *series* is a machine whose VMs work, and [`SERIES`] experiments one after the other. The series `n` of seed `S` is drawn from (!S, n),
//! its experiments from (S, number) (SplitMix64), and their kinds from decks of [`DECK`] cards, so that any so many experiments in a row have
//! each kind as often as [`Kind::ALL`] says. Nothing else goes in: an experiment is the same on every host, in every shard and whatever
//! was run before it.

use super::sides::{self, Cells};
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

/// How many experiments have among them each kind as often as [`Kind::ALL`] says.
pub const DECK: u64 = 100;

impl Kind {
    /// All, with how many of [`DECK`] experiments are of it.
    pub const ALL: [(Self, u64); 7] = [
        (Self::Node, 19),
        (Self::Firmware, 19),
        (Self::Router, 19),
        (Self::Link, 19),
        (Self::Cpu, 4),
        (Self::FalseAlarm, 10),
        (Self::Transient, 10),
    ];

    /// The kind of experiment `id` of `seed`.
    pub fn of(seed: u64, id: u64) -> Self {
        let mut deck: Vec<Self> = Vec::new();
        for (kind, count) in Self::ALL {
            deck.extend((0..count).map(|_| kind));
        }
        // Fisher and Yates's shuffle.
        let mut rng = Rng::new(seed.rotate_left(32), id / DECK);
        for left in (1..deck.len()).rev() {
            deck.swap(left, rng.below(left as u64 + 1) as usize);
        }
        deck[(id % DECK) as usize]
    }

    /// Whether what fails is gone for good.
    const fn takes_away(self) -> bool {
        !matches!(self, Self::FalseAlarm | Self::Transient)
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
    fn draw(rng: &mut Rng, kind: Kind, layout: &Layout) -> Self {
        let topology = Topology::new(layout.nodes);
        let is_link = kind == Kind::Link || kind == Kind::Transient && rng.chance(50);
        let places = match kind {
            Kind::Node | Kind::Firmware => layout.nodes,
            Kind::Router | Kind::Transient if !is_link => topology.routers().into(),
            Kind::Router | Kind::Transient | Kind::Link => topology.links().count() as u32,
            Kind::Cpu => layout.cpus(),
            Kind::FalseAlarm => layout.cells().into(),
        };
        Self { kind, is_link, place: rng.below32(places) }
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
    pub fn failed(&self, layout: &Layout) -> Failed {
        let mut failed = Failed::default();
        match self.kind {
            Kind::Node | Kind::Firmware => failed.nodes = 1 << self.place,
            Kind::Cpu => failed.nodes = 1 << (self.place / layout.cpus_per_node),
            Kind::Router => failed.routers = 1 << self.place,
            Kind::Link => failed.links = 1 << self.place,
            Kind::FalseAlarm | Kind::Transient => {}
        }
        failed
    }
}

/// A second fault, while the first is being recovered from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Second {
    /// What fails.
    pub fault: Fault,
    /// How much later than the first, in nanoseconds.
    pub after_ns: u64,
    /// The cell that does it: one that both spare.
    pub doer: u8,
}

/// One experiment of a series.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Experiment {
    /// Its number.
    pub id: u64,
    /// What fails.
    pub fault: Fault,
    /// How long after it was asked for, in nanoseconds.
    pub in_ns: u64,
    /// What fails besides.
    pub second: Option<Second>,
    /// The cells that must be lost.
    pub lost: Cells,
    /// What goes on meanwhile.
    pub activities: Vec<Activity>,
    /// How long after the loss the cells are repaired, in milliseconds.
    pub rest_ms: u64,
}

/// A machine that works, and what is done to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// The machine.
    pub machine: Machine,
    /// The VMs that work.
    pub guests: Vec<Guest>,
    /// The cells in which a stock guest works as well.
    pub stock: Vec<u32>,
}

/// Experiments of a series.
pub const SERIES: u64 = 20;
/// Cells, and nodes of each, with how many of a hundred machines are such.
const SHAPES: [(u32, u32, u64); 6] =
    [(4, 1, 45), (2, 1, 15), (2, 2, 10), (4, 2, 10), (8, 1, 15), (3, 1, 5)];
/// One of so many series has a stock guest, which takes long to boot: not the first.
const STOCK: u64 = 25;
/// Latest time of a fault after it was asked for, in nanoseconds: what is in flight takes about as long.
const IN_MAX_NS: u64 = 60_000_000;
/// How much later a second fault comes, at least and at most, in nanoseconds: recovery takes a few milliseconds, finding that a way is
/// gone 20.
const AFTER_NS: (u64, u64) = (100_000, 25_000_000);

impl Series {
    /// Draws series `number` of `seed`; with `stock` one that has a stock guest in each cell.
    pub fn draw(seed: u64, number: u64, stock: bool) -> Self {
        let mut rng = Rng::new(!seed, number);
        if stock || number % STOCK == STOCK / 2 {
            let machine = Machine {
                cells: 4,
                nodes_per_cell: 1,
                cpus_per_node: 1 + rng.below32(2),
                memory: Memory::Mixed,
                endian: Endian::Little,
            };
            let one = rng.below32(machine.cells);
            let mut guests = guests(&mut rng, machine.cells);
            if stock {
                guests.retain(|guest| guest.cells.len() > 1);
            }
            let stock = if stock { (0..machine.cells).collect() } else { vec![one] };
            return Self { machine, guests, stock };
        }
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
        Self { machine, guests: guests(&mut rng, cells), stock: Vec::new() }
    }
}

impl Experiment {
    /// Draws experiment `id` of `seed` on a machine on which these VMs work: the cells that each may use.
    pub fn draw(seed: u64, id: u64, layout: &Layout, vms: &[u8]) -> Self {
        let mut rng = Rng::new(seed, id);
        let kind = Kind::of(seed, id);
        let all = sides::all(layout);
        let fault = Fault::draw(&mut rng, kind, layout);
        let in_ns = 1_000_000 + rng.below(IN_MAX_NS);
        let mut lost = sides::lost(layout, all, fault.failed(layout));
        let mut second = None;
        if kind.takes_away() && kind != Kind::Cpu && rng.chance(36) {
            second = Second::draw(&mut rng, layout, &fault);
        }
        if let Some(second) = &second {
            lost = sides::lost(layout, all, both(&fault, &second.fault, layout));
        }
        let activities = activities(&mut rng, vms, layout.cells().into());
        Self { id, fault, in_ns, second, lost, activities, rest_ms: 20 + rng.below(60) }
    }
}

/// What two faults take away together.
pub fn both(first: &Fault, second: &Fault, layout: &Layout) -> Failed {
    let (a, b) = (first.failed(layout), second.failed(layout));
    Failed { nodes: a.nodes | b.nodes, routers: a.routers | b.routers, links: a.links | b.links }
}

impl Second {
    /// One of which it does not matter for what must be lost whether the first has been agreed on before, and that leaves somebody alive
    /// who can do it.
    fn draw(rng: &mut Rng, layout: &Layout, first: &Fault) -> Option<Self> {
        let all = sides::all(layout);
        let kind = rng.pick(&[Kind::Node, Kind::Node, Kind::Firmware, Kind::Router, Kind::Link]);
        let fault = Fault::draw(rng, kind, layout);
        let (least, most) = AFTER_NS;
        let after_ns = least + rng.below(most - least);
        let lost = |live, failed| sides::lost(layout, live, failed);
        let at_once = lost(all, both(first, &fault, layout));
        let before = lost(all, first.failed(layout));
        let after = before | lost(all & !before, both(first, &fault, layout));
        // What fails second may be found first.
        let alone = lost(all, fault.failed(layout));
        let reversed = alone | lost(all & !alone, both(first, &fault, layout));
        let left = all & !at_once;
        // A second fault that hits nobody else, or only what is dead, is none.
        let same = at_once == after && at_once == reversed;
        let counts = alone & !before != 0 && same && left != 0;
        counts.then(|| Self { fault, after_ns, doer: left.trailing_zeros() as u8 })
    }
}

/// One VM confined to each cell (each second one of eight), and in most machines one or two that may use several.
fn guests(rng: &mut Rng, cells: u32) -> Vec<Guest> {
    let step = if cells == 8 { 2 } else { 1 };
    let first = if step == 2 { rng.below32(2) } else { 0 };
    let mut guests = Vec::new();
    for cell in (first..cells).step_by(step) {
        let vcpus = 1 + u32::from(rng.chance(25));
        let programs = programs(rng, vcpus);
        let cells = vec![cell];
        guests.push(Guest { vcpus, cells, is_spread: false, elsewhere: false, programs });
    }
    let wide = if rng.chance(80) { 1 + u32::from(rng.chance(25)) } else { 0 };
    for _ in 0..wide {
        let over = 2 + rng.below32(cells.min(4) - 1);
        let first = rng.below32(cells);
        let mut on: Vec<u32> = (first..first + over).map(|cell| cell % cells).collect();
        on.sort_unstable();
        let vcpus = 1 + rng.below32(4);
        let programs = programs(rng, vcpus);
        let is_spread = rng.chance(50);
        let elsewhere = !is_spread && rng.chance(75);
        guests.push(Guest { vcpus, cells: on, is_spread, elsewhere, programs });
    }
    guests
}

/// None for several VCPUs: where they share a CPU a program may take seconds, since whoever waits for the guest's one lock spins.
fn programs(rng: &mut Rng, vcpus: u32) -> Vec<Program> {
    let count = if vcpus == 1 { 1 + rng.below(2) } else { 0 };
    (0..count).map(|_| rng.pick(&Program::ALL)).collect()
}

/// `vms`: the cells that each VM may use.
fn activities(rng: &mut Rng, vms: &[u8], cells: u32) -> Vec<Activity> {
    let wide = vms.iter().any(|cells| cells.count_ones() > 1);
    let mut activities = Vec::new();
    if wide && rng.chance(45) {
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
    if rng.chance(30) && !vms.is_empty() {
        activities.push(Activity::Lives { vm: rng.below32(vms.len() as u32) });
    }
    activities
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::workload;
    use crate::run::facts::Facts;
    use std::collections::BTreeMap;
    use std::path::Path;

    fn facts(series: &Series) -> Facts {
        let config = workload::config(&series.machine, &series.guests, &series.stock);
        Facts::parse(Path::new("drawn"), &config).unwrap()
    }

    fn experiments(seed: u64, numbers: std::ops::Range<u64>) -> Vec<(Series, Facts, Experiment)> {
        let mut all = Vec::new();
        for number in numbers {
            let series = Series::draw(seed, number, false);
            let facts = facts(&series);
            let vms = facts.masks();
            for id in number * SERIES..(number + 1) * SERIES {
                let experiment = Experiment::draw(seed, id, &facts.layout, &vms);
                all.push((series.clone(), facts.clone(), experiment));
            }
        }
        all
    }

    #[test]
    fn an_experiment_depends_on_seed_and_number_only() {
        let all = experiments(7, 0..3);
        assert_eq!(experiments(7, 2..3)[..], all[2 * SERIES as usize..]);
        assert_ne!(experiments(8, 0..1)[0].2, all[0].2);
        assert_ne!(all[0].2.in_ns, all[1].2.in_ns);
    }

    #[test]
    fn each_kind_is_drawn_as_often_as_it_should_be() {
        let mut kinds = BTreeMap::new();
        for id in 300..300 + DECK {
            *kinds.entry(Kind::of(5, id)).or_insert(0) += 1;
        }
        assert_eq!(kinds, Kind::ALL.into());
        assert!((0..50).any(|id| Kind::of(5, id) != Kind::of(6, id)));
    }

    #[test]
    fn all_there_is_is_drawn_and_stands_in_the_machine() {
        let mut shapes = BTreeMap::new();
        let (mut wide, mut removable, mut big, mut seconds, mut firsts) = (0, 0, 0, 0, 0);
        let all = experiments(1, 0..55);
        for (series, facts, experiment) in &all {
            let machine = &series.machine;
            *shapes.entry((machine.cells, machine.nodes_per_cell)).or_insert(0) += 1;
            wide += usize::from(series.guests.iter().any(|guest| guest.cells.len() > 1));
            removable += usize::from(machine.memory == Memory::Removable);
            big += usize::from(machine.endian == Endian::Big);
            seconds += usize::from(experiment.second.is_some());
            firsts += usize::from(experiment.lost & 1 != 0);
            let failed = experiment.fault.failed(&facts.layout);
            assert!(u32::from(failed.nodes) < 1 << machine.nodes());
            assert_ne!(experiment.lost, sides::all(&facts.layout), "somebody is left");
            if let Some(second) = &experiment.second {
                assert_eq!(experiment.lost >> second.doer & 1, 0, "who does it lives");
            }
        }
        assert_eq!(shapes.len(), SHAPES.len());
        assert!(wide * 2 > all.len(), "{wide} have VMs that may use several cells");
        assert!(removable > 100 && big > 200, "{removable} {big}");
        assert!(seconds > 60 && firsts > 150, "{seconds} {firsts}");
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
