//! Faults that an operator injects: what they are called, and what they hit.
//!
//! A fault is done by a CPU of a cell that it does not hit, through the system controller's switches: so it works whatever the
//! victim is doing. What each kind models is in `docs/faults.md`.

use crate::talk::CellSet;
use abi::layout::Layout;
use abi::topology::{End, Topology};
use abi::{CellId, CpuId, NodeId};
use alloc::format;
use alloc::string::String;
use core::fmt;

/// What can be switched off: a part of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A node: its CPUs stop, its memory and its hub are gone.
    Node(NodeId),
    /// A CPU: it executes nothing any more.
    Cpu(CpuId),
    /// A router.
    Router(u8),
    /// A link, by its place in [`Topology::links`].
    Link(u8),
}

/// What can be injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A part fails.
    Fails(Part),
    /// A node's controller: its CPUs hang, and a little later the node is gone.
    Firmware(NodeId),
    /// A router or link, for a moment.
    Transient(Part),
    /// The cell that does it suspects this one once, wrongly.
    FalseAlarm(CellId),
}

/// When a fault is to happen, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At this time since power-on.
    At(u64),
    /// So long after the command is executed.
    In(u64),
}

/// How long the memory of a node answers whose firmware has failed, in nanoseconds.
pub const FIRMWARE_NS: u64 = 5_000_000;
/// How long a transient fault lasts, in nanoseconds.
pub const TRANSIENT_NS: u64 = 10_000_000;

/// The kinds, for an operator.
const KINDS: &str = "node N, firmware N, router R, link L, cpu N, false-alarm C, transient router R, transient link L";

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node}"),
            Self::Cpu(cpu) => write!(f, "cpu {cpu}"),
            Self::Router(router) => write!(f, "router {router}"),
            Self::Link(link) => write!(f, "link {link}"),
        }
    }
}

/// Whether a machine has the part of this number, of `count` of its kind.
fn there_is(what: &str, number: u8, count: usize) -> Result<(), String> {
    if usize::from(number) < count {
        return Ok(());
    }
    Err(format!("there is no {what} {number}: the machine's are 0 to {}", count - 1))
}

impl Part {
    /// Whether the machine has it.
    ///
    /// # Errors
    /// The culprit and the remedy, without the command's name.
    pub fn check(&self, layout: &Layout) -> Result<(), String> {
        let topology = Topology::new(layout.nodes);
        match *self {
            Self::Node(node) => there_is("node", node.0, layout.nodes as usize),
            Self::Cpu(cpu) => there_is("CPU", cpu.0, layout.cpus() as usize),
            Self::Router(router) => there_is("router", router, topology.routers().into()),
            Self::Link(link) => there_is("link", link, topology.links().count()),
        }
    }
}

/// As the command names it.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fails(part) => part.fmt(f),
            Self::Firmware(node) => write!(f, "firmware {node}"),
            Self::Transient(part) => write!(f, "transient {part}"),
            Self::FalseAlarm(cell) => write!(f, "false-alarm {cell}"),
        }
    }
}

impl Fault {
    /// Understands what follows `fault`: the fault, and when it is to happen if not at once.
    ///
    /// # Errors
    /// The culprit and the remedy, one line.
    pub fn parse<'a>(
        words: &mut impl Iterator<Item = &'a str>,
    ) -> Result<(Self, Option<When>), String> {
        let mut next = |what: &str| {
            words.next().ok_or_else(|| format!("fault: which {what}? There are: {KINDS}"))
        };
        let mut kind = next("kind of fault")?;
        let transient = kind == "transient";
        if transient {
            kind = next("kind of transient fault")?;
        }
        let known = ["node", "firmware", "router", "link", "cpu", "false-alarm"];
        let may_pass = matches!(kind, "router" | "link");
        if !known.contains(&kind) || transient && !may_pass {
            let kind = if transient { format!("transient {kind}") } else { kind.into() };
            return Err(format!("fault: there is no `{kind}`, but: {KINDS}"));
        }
        let word = next(kind)?;
        let number: u8 = word.parse().map_err(|_| {
            format!("fault: `{word}` is no number of a {kind}: try `fault {kind} 1`")
        })?;
        let fails = |part| if transient { Self::Transient(part) } else { Self::Fails(part) };
        let fault = match kind {
            "node" => Self::Fails(Part::Node(NodeId(number))),
            "firmware" => Self::Firmware(NodeId(number)),
            "router" => fails(Part::Router(number)),
            "link" => fails(Part::Link(number)),
            "cpu" => Self::Fails(Part::Cpu(CpuId(number))),
            _ => Self::FalseAlarm(CellId(number)),
        };
        let when = match words.next() {
            None => None,
            Some(word @ ("at" | "in")) => {
                let time = words.next().unwrap_or("nothing");
                let ns = nanoseconds(time).ok_or_else(|| {
                    format!("fault: `{time}` is no time in seconds: try `fault {fault} {word} 1.5`")
                })?;
                Some(if word == "at" { When::At(ns) } else { When::In(ns) })
            }
            Some(excess) => {
                return Err(format!(
                    "fault: nothing is known to do with `{excess}`: try `fault {fault} at 1.5`"
                ));
            }
        };
        Ok((fault, when))
    }

    /// Whether the machine has what is to fail.
    ///
    /// # Errors
    /// The culprit and the remedy, one line.
    pub fn check(&self, layout: &Layout) -> Result<(), String> {
        match *self {
            Self::Fails(part) | Self::Transient(part) => part.check(layout),
            Self::Firmware(node) => Part::Node(node).check(layout),
            Self::FalseAlarm(cell) => there_is("cell", cell.0, layout.cells().into()),
        }
        .map_err(|why| format!("fault: {why}"))
    }

    /// The cells that it hits directly: none of them can do it, but for what [spares its doer](Self::spares_its_doer).
    ///
    /// # Panics
    /// When the machine has no such part ([`Self::check`]).
    #[must_use]
    pub fn hits(&self, layout: &Layout) -> CellSet {
        let cell = |node: NodeId| CellSet::one(layout.cell(node));
        match *self {
            Self::Fails(part) => match part {
                Part::Node(node) => cell(node),
                Part::Cpu(cpu) => cell(layout.node_of(cpu)),
                Part::Router(router) => {
                    let topology = Topology::new(layout.nodes);
                    let at = layout.node_ids().filter(|node| topology.router_of(*node) == router);
                    at.fold(CellSet::NONE, |set, node| set.with(layout.cell(node)))
                }
                Part::Link(link) => {
                    let topology = Topology::new(layout.nodes);
                    match topology.links().nth(link.into()) {
                        Some((End::Node(node), _)) => cell(node),
                        _ => CellSet::NONE,
                    }
                }
            },
            Self::Firmware(node) => cell(node),
            Self::FalseAlarm(suspect) => CellSet::one(suspect),
            Self::Transient(_) => CellSet::NONE,
        }
    }

    /// Whether a cell that it hits can do it as well: it does not stop before that is done.
    #[must_use]
    pub const fn spares_its_doer(&self) -> bool {
        matches!(self, Self::Fails(Part::Router(_) | Part::Link(_)) | Self::Transient(_))
    }
}

/// Decimal seconds, in nanoseconds.
fn nanoseconds(seconds: &str) -> Option<u64> {
    let (whole, part) = seconds.split_once('.').unwrap_or((seconds, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) || part.len() > 9 {
        return None;
    }
    let part: u64 = format!("{part:0<9}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(part)
}

/// A time as [`Fault::parse`] reads it: seconds without needless zeroes.
#[must_use]
pub fn seconds(ns: u64) -> String {
    let text = format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::ids::MAX_NODES;

    fn parse(line: &str) -> Result<(Fault, Option<When>), String> {
        Fault::parse(&mut line.split_whitespace())
    }

    #[test]
    fn what_is_parsed_is_shown_as_it_was_typed() {
        let kinds = ["node 2", "firmware 1", "router 0", "link 11", "cpu 15", "false-alarm 3"];
        for line in kinds.into_iter().chain(["transient router 1", "transient link 4"]) {
            let (fault, at) = parse(line).unwrap();
            assert_eq!((format!("{fault}"), at), (line.into(), None));
            let timed = parse(&format!("{line} at 1.25")).unwrap();
            assert_eq!(timed, (fault, Some(When::At(1_250_000_000))));
            let soon = parse(&format!("{line} in 0.000000001")).unwrap();
            assert_eq!(soon, (fault, Some(When::In(1))));
        }
    }

    #[test]
    fn mistakes_are_named_with_a_remedy() {
        let said = |line| parse(line).unwrap_err();
        assert!(said("").starts_with("fault: which kind of fault? There are: node N,"));
        assert!(said("nod 1").starts_with("fault: there is no `nod`, but: node N,"));
        assert!(said("transient node 1").starts_with("fault: there is no `transient node`, but"));
        assert!(said("router").starts_with("fault: which router? "));
        assert_eq!(said("node x"), "fault: `x` is no number of a node: try `fault node 1`");
        assert_eq!(said("link 300"), "fault: `300` is no number of a link: try `fault link 1`");
        let time = "is no time in seconds: try `fault node 1 at 1.5`";
        for (line, word) in [("at", "nothing"), ("at soon", "soon"), ("at -1", "-1")] {
            let said = parse(&format!("node 1 {line}")).unwrap_err();
            assert_eq!(said, format!("fault: `{word}` {time}"));
        }
        let said_in = said("node 1 in x");
        assert_eq!(said_in, "fault: `x` is no time in seconds: try `fault node 1 in 1.5`");
        assert!(said("node 1 now").starts_with("fault: nothing is known to do with `now`"));
    }

    #[test]
    fn times_are_decimal_seconds() {
        for (text, ns) in [
            ("0", Some(0)),
            ("1.5", Some(1_500_000_000)),
            ("12.000000001", Some(12_000_000_001)),
            ("3.", Some(3_000_000_000)),
            (".5", None),
            ("1.0000000001", None),
            ("99999999999999999999", None),
            ("1e3", None),
        ] {
            assert_eq!(nanoseconds(text), ns, "{text}");
        }
        for ns in [0, 1, 1_500_000_000, 20_000_000_000, 12_000_000_001] {
            assert_eq!(nanoseconds(&seconds(ns)), Some(ns));
        }
        assert_eq!(seconds(1_500_000_000), "1.5");
        assert_eq!(seconds(20_000_000_000), "20");
    }

    #[test]
    fn each_fault_hits_the_cells_of_its_nodes() {
        let mut cell_of = [CellId(0); MAX_NODES];
        for (node, cell) in [(1, 0), (2, 1), (3, 2)] {
            cell_of[node] = CellId(cell);
        }
        // Cell 0 has nodes 0 and 1, at router 0; cells 1 and 2 a node each, at router 1.
        let layout = Layout { nodes: 4, cpus_per_node: 2, window: 0, slice: 0, kept: 0, cell_of };
        let hits = |line| {
            let (fault, _) = parse(line).unwrap();
            fault.check(&layout).map(|()| fault.hits(&layout).0)
        };
        for (line, cells) in [
            ("node 1", 0b1),
            ("firmware 2", 0b10),
            ("cpu 7", 0b100),
            ("router 1", 0b110),
            ("link 3", 0b100),
            ("link 4", 0),
            ("false-alarm 1", 0b10),
            ("transient router 1", 0),
        ] {
            assert_eq!(hits(line), Ok(cells), "{line}");
        }
        let none = "fault: there is no ";
        for (line, what) in [
            ("node 9", "node 9: the machine's are 0 to 3"),
            ("cpu 8", "CPU 8: the machine's are 0 to 7"),
            ("router 2", "router 2: the machine's are 0 to 1"),
            ("transient link 5", "link 5: the machine's are 0 to 4"),
            ("false-alarm 3", "cell 3: the machine's are 0 to 2"),
        ] {
            assert_eq!(hits(line), Err(format!("{none}{what}")));
        }
    }
}
