//! `cargo xtask bench cells`: what calls between cells, idle CPUs and VCPUs that move cost.
//!
//! Instructions are counted by the plugin on CPUs that run at the same time, so that each is counted where it was
//! executed (docs/counting.md says why not with `--icount`); times are the machine's, with `--icount`.

use super::figures::{self, Move, Spread};
use super::machine::{Machine, Mode};
use crate::endian::Endian;
use crate::run::count::Record;
use anyhow::Result;
use serde::Serialize;
use std::fmt::Write;
use std::process::ExitCode;

/// Measures calls between cells, idle ticks, and moves of VCPUs.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cargo xtask bench cells                a table, beside the papers' figures
  cargo xtask bench cells --json         the same for programs

Exit status: 0 it was measured, whatever the figures say, 2 a machine did not run.")]
pub struct Args {
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// The machine's byte order.
    #[arg(long, default_value_t)]
    endian: Endian,
}

/// Two cells of one node with two CPUs.
const TWO_CELLS: &str =
    "[machine]\nnodes = 2\ncpus_per_node = 2\n[[cell]]\nnodes = [0]\n[[cell]]\nnodes = [1]\n";
/// One CPU: the one that looks after its cell.
const ONE_CPU: &str = "[machine]\nnodes = 1\ncpus_per_node = 1\n";
/// Two nodes with two CPUs in one cell.
const ONE_CELL: &str = "[machine]\nnodes = 2\ncpus_per_node = 2\n[[cell]]\nnodes = [0, 1]\n";
/// Three cells of one node with one CPU: the console's, the VM's, and the one that it visits.
const THREE_CELLS: &str = "[machine]\nnodes = 3\ncpus_per_node = 1\n\
                           [[cell]]\nnodes = [0]\n[[cell]]\nnodes = [1]\n[[cell]]\nnodes = [2]\n";
/// The CPUs of the latter two.
const TRAVELLED: [usize; 2] = [1, 2];
/// The first CPU of each of the two cells: the caller's and the callee's.
const CALLER: usize = 0;
const CALLEE: usize = 2;
/// A CPU that only waits.
const IDLE: usize = 3;
/// CPUs of a node.
const CPUS_PER_NODE: usize = 2;
/// Calls of a measurement.
const CALLS: u32 = 1000;
/// To the other node, to the other CPU of that, and back to the first node.
const WITHIN: [usize; 3] = [2, 3, 1];
/// How long idle CPUs are watched, in seconds.
const IDLE_S: u64 = 2;
/// Rounds of moves.
const ROUNDS: usize = 50;

const PROMPT: &str = "console monitor\nexpect \"honeycomb> \"\n";

/// What the guests are called.
fn names(guests: usize) -> impl Iterator<Item = String> {
    (0..guests).map(|i| format!("spin-{i}"))
}

/// A guest for each of these lists of cells, whose one process computes for ever, directly on the CPU.
fn spinning(cells: &[&[u32]]) -> String {
    let mut out = String::new();
    for (name, cells) in names(cells.len()).zip(cells) {
        // Writing to a string does not fail.
        let _ = write!(
            out,
            "[[vm]]\nname = \"{name}\"\nkernel = \"irix\"\nmemory = \"16M\"\ncmdline = \"hz=1 do=spin\"\n\
             cells = {cells:?}\n"
        );
    }
    out
}

/// The beginning of a script: so many guests compute.
fn ready(guests: usize) -> String {
    let guest = |name| format!("console {name}\nexpect \"irix: \" 200\n");
    let wait = if guests > 0 { "wait 1\n" } else { "" };
    names(guests).map(guest).chain([PROMPT.into(), wait.into()]).collect()
}

/// The script that calls.
fn calling(guests: usize) -> String {
    format!("{}send ping 1 {CALLS}\nexpect \"has answered\" 200\n", ready(guests))
}

/// What a script does to watch idle CPUs.
fn idling() -> String {
    let markers = "send debug markers\nwait 0.1\n";
    format!("{markers}wait {IDLE_S}\n{markers}")
}

/// The script that moves a VCPU about among these CPUs.
fn moving(cpus: &[usize]) -> String {
    let mut out = ready(1);
    for _ in 0..ROUNDS {
        for cpu in cpus {
            let _ = write!(out, "send migrate spin-0.0 {cpu}\nwait 0.01\n");
        }
    }
    out
}

/// A call and its answer, in instructions.
#[derive(Clone, Copy, Debug, Serialize)]
struct Call {
    caller: Option<Spread>,
    callee: Option<Spread>,
    /// The sum of the medians.
    together: Option<u64>,
}

/// A move of a VCPU, in instructions.
#[derive(Clone, Copy, Debug, Serialize)]
struct Migration {
    /// Of the CPU that it leaves.
    left: Spread,
    /// Of the CPU that it comes to.
    came: Spread,
    /// Of both.
    together: Spread,
}

impl Migration {
    fn of<'a>(moves: impl Iterator<Item = &'a Move> + Clone) -> Option<Self> {
        let spread = |what: fn(&Move) -> u64| Spread::of(moves.clone().map(what).collect());
        Some(Self {
            left: spread(|m| m.left)?,
            came: spread(|m| m.came)?,
            together: spread(|m| m.left + m.came)?,
        })
    }
}

/// All that was measured; what could not be is null.
#[derive(Clone, Copy, Debug, Serialize)]
struct Report {
    endian: Endian,
    /// Instructions.
    call: Call,
    /// Nanoseconds of a call, all CPUs idle.
    call_ns: Option<Spread>,
    /// Nanoseconds of a call, all CPUs in guests.
    call_ns_in_guests: Option<Spread>,
    /// Instructions from the trap of the callee's guest until it goes on.
    callee_in_guest: Option<Spread>,
    /// Instructions from one waking of an idle CPU to the next.
    idle_tick: Option<Spread>,
    /// The same of a cell's first CPU, which looks after the cell.
    first_tick: Option<Spread>,
    /// How often that one wakes in a second.
    first_ticks_a_second: Option<u64>,
    /// Instructions of a tick that stops a guest for nothing.
    guest_tick: Option<Spread>,
    /// Instructions; to another CPU of the node.
    migrate_same_node: Option<Migration>,
    /// To another node of the cell.
    migrate_same_cell: Option<Migration>,
    /// To another cell.
    migrate_other_cell: Option<Migration>,
}

impl Report {
    /// From the records of five runs, and the consoles of two.
    fn new(
        endian: Endian,
        [idle, busy, moved, travelled, first]: [&[Record]; 5],
        [idle_out, busy_out]: [&str; 2],
    ) -> Self {
        let (caller, callee) = (figures::talks(idle, CALLER), figures::talks(idle, CALLEE));
        let together = caller.zip(callee).map(|(caller, callee)| caller.median + callee.median);
        let first_tick = figures::idle_ticks(first, CALLER);
        let moves = figures::moves(moved);
        let is_near = |m: &&Move| m.from / CPUS_PER_NODE == m.to / CPUS_PER_NODE;
        Self {
            endian,
            call: Call { caller, callee, together },
            call_ns: figures::latency(idle_out),
            call_ns_in_guests: figures::latency(busy_out),
            callee_in_guest: figures::talks_in_guest(busy, CALLEE),
            idle_tick: figures::idle_ticks(idle, IDLE),
            first_tick,
            first_ticks_a_second: first_tick.map(|ticks| ticks.count / IDLE_S),
            guest_tick: figures::guest_ticks(busy, IDLE),
            migrate_same_node: Migration::of(moves.iter().filter(is_near)),
            migrate_same_cell: Migration::of(moves.iter().filter(|m| !is_near(m))),
            migrate_other_cell: Migration::of(figures::travels(travelled, TRAVELLED).iter()),
        }
    }

    /// For a person.
    fn table(&self) -> String {
        let mut rows = Table::default();
        rows.line(["", "median", "least", "90 %", "99 %", "most", "the papers"].map(Into::into));
        rows.heading("executed instructions");
        rows.spread("a call and its answer: caller", self.call.caller, "");
        rows.spread("                       callee", self.call.callee, "");
        rows.one("                       together", self.call.together, "3,100 cycles");
        rows.spread("a call, of a callee's guest", self.callee_in_guest, "");
        rows.spread("a tick of an idle CPU", self.idle_tick, "");
        rows.spread("a tick of a cell's first CPU", self.first_tick, "");
        rows.one("such ticks in a second", self.first_ticks_a_second, "");
        rows.spread("a tick of a guest", self.guest_tick, "");
        let together = |m: Option<Migration>| m.map(|m| m.together);
        let near = together(self.migrate_same_node);
        let far = together(self.migrate_same_cell);
        rows.spread("a VCPU moves: same node", near, "7,200 cycles");
        rows.spread("              same cell", far, "101,000 cycles");
        let other = together(self.migrate_other_cell);
        rows.spread("              other cell", other, "296,000 cycles");
        rows.heading("nanoseconds of the machine");
        rows.spread("a call, CPUs idle", self.call_ns, "16,000");
        rows.spread("a call, CPUs in guests", self.call_ns_in_guests, "");
        rows.0
    }
}

/// Lines of seven columns.
#[derive(Debug, Default)]
struct Table(String);

impl Table {
    fn line(&mut self, [what, figures @ .., paper]: [String; 7]) {
        let mut line = format!("{what:<32}");
        for figure in figures {
            let _ = write!(line, "{figure:>12}");
        }
        let _ = write!(line, "  {paper}");
        let _ = writeln!(self.0, "{}", line.trim_end());
    }

    fn heading(&mut self, text: &str) {
        let _ = writeln!(self.0, "{text}");
    }

    fn spread(&mut self, what: &str, spread: Option<Spread>, paper: &str) {
        let figures = spread.map_or_else(
            || std::array::from_fn(|_| "-".into()),
            |s| [s.median, s.min, s.p90, s.p99, s.max].map(thousands),
        );
        let [median, min, p90, p99, max] = figures;
        self.line([what.into(), median, min, p90, p99, max, paper.into()]);
    }

    fn one(&mut self, what: &str, value: Option<u64>, paper: &str) {
        let value = value.map_or("-".into(), thousands);
        let [a, b, c, d] = std::array::from_fn(|_| String::new());
        self.line([what.into(), value, a, b, c, d, paper.into()]);
    }
}

/// A number with a comma at each thousand.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Runs the command.
///
/// # Errors
/// A machine could not be run.
pub fn main(args: &Args) -> Result<ExitCode> {
    let endian = args.endian;
    // What is built first is not held against the machines.
    crate::build::monitor(endian)?;
    let cells: [&[u32]; 4] = [&[0], &[0], &[1], &[1]];
    let busy = format!("{TWO_CELLS}{}", spinning(&cells));
    let (calls, calls_busy) = (calling(0), calling(cells.len()));
    let idling_too = calls.clone() + &idling();
    let one = format!("{ONE_CELL}{}", spinning(&[&[0]]));
    let within = moving(&WITHIN);
    let three = format!("{THREE_CELLS}{}", spinning(&[&[1, 2]]));
    let across = moving(&[TRAVELLED[1], TRAVELLED[0]]);
    let alone = ready(0) + &idling();
    let machine =
        |name, mode, config, script| Machine { name, endian, mode, config, script, functions: &[] };
    let run = |name, mode, config, script| machine(name, mode, config, script).run();
    let (_, idle) = run("cells-idle", Mode::Counted, TWO_CELLS, &idling_too)?;
    let (_, in_guests) = run("cells-busy", Mode::Counted, &busy, &calls_busy)?;
    let within = machine("cells-within", Mode::Counted, &one, &within);
    let (_, moved) = Machine { functions: &[figures::SHIFT], ..within }.run()?;
    let (_, travelled) = run("cells-across", Mode::Counted, &three, &across)?;
    let (_, first) = run("cells-first", Mode::Exact, ONE_CPU, &alone)?;
    let (idle_out, _) = run("cells-idle-ns", Mode::Timed, TWO_CELLS, &calls)?;
    let (busy_out, _) = run("cells-busy-ns", Mode::Timed, &busy, &calls_busy)?;
    let report = Report::new(
        endian,
        [&idle, &in_guests, &moved, &travelled, &first],
        [&idle_out, &busy_out],
    );
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.table());
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::script;
    use crate::test::place::Place;

    #[test]
    fn what_was_not_measured_is_left_open() {
        let report = Report::new(Endian::Little, [&[]; 5], [""; 2]);
        let table = report.table();
        assert!(table.contains("7,200 cycles") && table.contains("296,000 cycles"), "{table}");
        assert!(!table.contains("  0"), "{table}");
        let json = serde_json::to_value(report).unwrap();
        assert!(json["call"]["together"].is_null() && json["migrate_same_node"].is_null());
    }

    #[test]
    fn moves_are_told_apart_by_node() {
        let moves = [(2, 3, 10, 20), (3, 1, 30, 40), (1, 2, 50, 60), (3, 2, 12, 22)];
        let moves = moves.map(|(from, to, left, came)| Move { from, to, left, came });
        let near = Migration::of(moves.iter().filter(|m| m.from / 2 == m.to / 2)).unwrap();
        assert_eq!((near.together.count, near.together.min, near.together.max), (2, 30, 34));
        assert_eq!((near.left.min, near.came.max), (10, 22));
        assert!(Migration::of([].iter()).is_none());
    }

    #[test]
    fn numbers_are_readable() {
        let all = [0, 12, 999, 1000, 101_000, 1_234_567].map(thousands);
        assert_eq!(all, ["0", "12", "999", "1,000", "101,000", "1,234,567"]);
    }

    #[test]
    fn scripts_are_scripts() {
        let place = Place::new("self-bench").unwrap();
        let vms: Vec<String> = names(4).collect();
        for script in [calling(0), calling(4), ready(0) + &idling(), moving(&WITHIN)] {
            place.write("script", &script).unwrap();
            script::read(&place.path().join("script"), &vms, Endian::Little).unwrap();
        }
    }
}
