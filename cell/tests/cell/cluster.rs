//! Four simulated cells and one console: commands, what is typed, what is announced, the script.

use crate::sim::{Build, Cluster, Program, console};
use abi::config::Restart;
use abi::event::Cause;
use abi::ring::stream::MONITOR;
use abi::script::{Act, Outcome, Step};
use cell::fault::{Part, seconds};
use cell::talk::{CellSet, Incarnation};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;

/// A VM that runs for ever in each of so many cells, four at most, and a shell in each but the first.
pub fn vms(cells: u8) -> Vec<(&'static str, u8, Program)> {
    let mut all = vec![
        ("loop-0", 0, Program::Loop),
        ("loop-1", 1, Program::Loop),
        ("loop-2", 2, Program::Loop),
        ("loop-3", 3, Program::Loop),
        ("sh-1", 1, Program::Shell),
        ("sh-2", 2, Program::Shell),
        ("sh-3", 3, Program::Shell),
    ];
    all.retain(|(_, cell, _)| *cell < cells);
    all
}

/// An automaton as the host tools make it.
pub fn regex(pattern: &str) -> Vec<u8> {
    use regex_automata::dfa::{StartKind, dense};
    use regex_automata::{nfa::thompson, util::syntax};
    dense::Builder::new()
        .configure(dense::Config::new().start_kind(StartKind::Unanchored))
        .syntax(syntax::Config::new().unicode(false).utf8(false).multi_line(true).crlf(true))
        .thompson(thompson::Config::new().utf8(false))
        .build(pattern)
        .unwrap()
        .to_sparse()
        .unwrap()
        .to_bytes_native_endian()
}

pub fn steps(acts: impl IntoIterator<Item = Act>) -> Option<Vec<Step>> {
    Some(acts.into_iter().zip(1..).map(|(act, line)| Step { line, act }).collect())
}

pub fn at(vm: u16) -> Act {
    Act::Console { stream: console(vm) }
}

pub fn send(text: &str) -> Act {
    Act::Send { bytes: format!("{text}\n").into_bytes() }
}

pub fn expect(pattern: &str) -> Act {
    Act::Expect { pattern: pattern.into(), dfa: regex(pattern), timeout_ns: SECOND }
}

#[test]
fn one_console_serves_all_cells_while_guests_spin() {
    let mut cluster = Cluster::boot(4, 1000, &vms(4), None);
    cluster.run_for(50 * MS);
    let (all, took) = cluster.command("vms");
    let heads: Vec<&str> = all.lines().filter(|line| line.starts_with("cell ")).collect();
    assert_eq!(heads, ["cell 0:", "cell 1:", "cell 2:", "cell 3:"]);
    let names: Vec<&str> = all
        .lines()
        .filter(|line| line.contains(" running "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(names, ["loop-0", "loop-1", "sh-1", "loop-2", "sh-2", "loop-3", "sh-3"]);
    // A slice there, and one here.
    assert!(took < 25 * MS, "{took}");
    let (stopped, _) = cluster.command("stop loop-2");
    assert_eq!(stopped, "cell 2: VM `loop-2` ended: stopped\n");
    assert_eq!(cluster.command("stop loop-2").0, "VM `loop-2` does not run\n");
    // Its CPU has to come back first.
    assert_eq!(cluster.command("stop loop-0").0, "");
    cluster.run_for(MS);
    assert!(cluster.monitor().ends_with("cell 0: VM `loop-0` ended: stopped\r\nhoneycomb> "));
    assert_eq!(cluster.command("start loop-2").0, "VM `loop-2` started\n");
    assert!(cluster.command("stop loop-7").0.starts_with("no VM `loop-7`: did you mean `loop-0`?"));
    assert!(cluster.command("help").0.contains("stats VM"));
    assert!(cluster.command("mem on 3").0.starts_with("node 3: "));
    assert_eq!(cluster.command("mem").0.matches("consistent").count(), 4);
}

#[test]
fn what_is_typed_goes_to_the_vms_cell_and_lines_wait_for_their_turn() {
    let mut cluster = Cluster::boot(4, 1000, &vms(4), None);
    cluster.run_for(50 * MS);
    cluster.type_at(console(6), "far away\n");
    cluster.run_for(50 * MS);
    assert!(cluster.printed(3, 6).contains("you said far away"));
    // All at once: each is answered before the next is looked at.
    cluster.type_at(MONITOR, "vms\nstop sh-1\nstart sh-1 on 3\nquit");
    cluster.run_for(100 * MS);
    let text = cluster.monitor().replace("\r\n", "\n");
    let places =
        ["> vms\ncell 0:", "> stop sh-1\n", "> start sh-1 on 3\nVM `sh-1` started\n", "> quit"];
    let places: Vec<_> = places.iter().map(|place| text.find(place)).collect();
    assert!(places.is_sorted() && places[0].is_some(), "{text}");
}

#[test]
fn a_script_speaks_with_vms_of_all_cells() {
    let script = [
        at(4),
        expect("shell ready"),
        send("one"),
        at(5),
        send("two"),
        at(6),
        send("three"),
        expect("said three"),
        at(4),
        expect("said one"),
        at(5),
        expect("said two"),
        Act::Console { stream: MONITOR },
        send("stop sh-2"),
        expect("^cell 2: VM `sh-2` ended: stopped"),
        send("vms"),
        expect("^sh-3 +running"),
        send("start sh-2 on 3"),
        expect("^VM `sh-2` started"),
        at(5),
        expect("shell ready"),
        send("moved"),
        expect("said moved"),
    ];
    let mut cluster = Cluster::boot(4, 1000, &vms(4), steps(script));
    assert_eq!(cluster.run(10 * SECOND), Some(Outcome::ScriptPassed));
    assert!(cluster.printed(3, 5).contains("you said moved"));
    // Everybody's end is announced, the other cells' while the run ends.
    for vm in ["cell 0: VM `loop-0`", "cell 3: VM `sh-2`", "cell 1: VM `sh-1`"] {
        assert!(cluster.monitor().contains(&format!("{vm} ended: quit")), "{vm}");
    }
}

/// Rings that hold one record: their writers wait, and nothing is lost.
#[test]
fn full_rings_hold_up_their_writers_and_lose_nothing() {
    let vms =
        [("a", 0, Program::Loop), ("b", 1, Program::Print("b\r\n")), ("c", 1, Program::Shell)];
    let script = [
        Act::Console { stream: MONITOR },
        send("vms"),
        expect("^c +running"),
        at(1),
        Act::Wait { ns: 300 * MS },
        expect("(?:b\\r\\n){200}"),
        at(2),
        send("a line that takes several records"),
        expect("you said a line that takes several records"),
    ];
    let mut cluster = Cluster::boot(2, 1, &vms, steps(script));
    assert_eq!(cluster.run(20 * SECOND), Some(Outcome::ScriptPassed));
    assert!(cluster.full() > 10, "{}", cluster.full());
}

#[test]
fn the_run_ends_when_the_vms_of_all_cells_have() {
    let vms = [
        ("a", 0, Program::Live(20 * MS, Cause::PowerOff)),
        ("b", 1, Program::Live(70 * MS, Cause::PowerOff)),
    ];
    let mut cluster = Cluster::boot(2, 1000, &vms, None);
    cluster.run_for(60 * MS);
    let text = cluster.monitor();
    assert!(text.contains("cell 0: VM `a` ended: power-off"), "{text}");
    cluster.run_for(60 * MS);
    assert!(cluster.monitor().ends_with("cell 1: VM `b` ended: power-off\r\nhoneycomb> "));
}

#[test]
fn two_deaths_that_are_seen_in_different_order_are_agreed_on_in_one() {
    for hidden in [[0b1000, 0b0100], [0b0100, 0b1000], [0, 0b1100], [0b0100, 0]] {
        let mut cluster = Cluster::boot(4, 1000, &[], None);
        cluster.run_for(50 * MS);
        for (cell, set) in hidden.into_iter().enumerate() {
            cluster.hide(cell, CellSet(set));
        }
        cluster.kill(2);
        cluster.run_for(3 * MS);
        cluster.kill(3);
        cluster.run_for(20 * MS);
        cluster.hide(0, CellSet::NONE);
        cluster.run_for(3 * MS);
        cluster.hide(1, CellSet::NONE);
        cluster.run_for(20 * MS);
        let agreed = cluster.agreed(0);
        assert_eq!(agreed, cluster.agreed(1), "{hidden:?}");
        assert_eq!(agreed.last().expect("an agreement").cells, CellSet(0b0011));
        assert_eq!(cluster.command("ping 1 10").0, "", "they understand each other");
        cluster.run_for(100 * MS);
        assert!(cluster.monitor().contains("cell 1 has answered 10 calls"));
    }
}

#[test]
fn a_dead_cell_is_not_waited_for_and_a_dead_console_cell_has_a_successor() {
    let mut cluster = Cluster::boot(4, 1000, &vms(4), None);
    cluster.run_for(50 * MS);
    cluster.type_at(MONITOR, "vms\n");
    cluster.kill(2);
    cluster.run_for(50 * MS);
    assert!(cluster.monitor().contains("cell 2:\r\nit is lost\r\ncell 3:"));
    // It has become the next permitted cell's.
    assert_eq!(cluster.command("stats sh-2").0, "VM `sh-2`: defined, never started\n");
    assert_eq!(cluster.command("start sh-2").0, "VM `sh-2` started\n");
    assert_eq!(cluster.command("start sh-2 on 3").0, "VM `sh-2` runs already\n");
    assert_eq!(cluster.command("start sh-1 on 3").0, "VM `sh-1` runs already, in cell 1\n");
    cluster.kill(0);
    cluster.run_for(100 * MS);
    assert!(cluster.monitor().contains("Honeycomb monitor, cell 1 of 4"));
    // It does not know where `sh-2` has gone, and finds it.
    assert!(cluster.command("stats sh-2").0.starts_with("VM `sh-2`: running"));
    assert_eq!(cluster.command("stop loop-3").0, "cell 3: VM `loop-3` ended: stopped\n");
}

#[test]
fn a_cell_that_died_comes_back_and_takes_its_vms_again() {
    let build = || {
        let live = |name| Build::new(64).stay().vm_with(name, 8, Program::Loop, |vm| vm.cells = 1);
        live("a")
            .vm_with("b", 8, Program::Loop, |vm| (vm.cells, vm.restart) = (4, Restart::OnFailure))
            .vm_with("c", 8, Program::Loop, |vm| vm.cells = 4)
            .vm_with("d", 8, Program::Loop, |vm| vm.cells = 6)
    };
    let mut cluster = Cluster::of(3, 1000, build, None);
    cluster.run_for(50 * MS);
    for incarnation in 2..6 {
        assert_eq!(
            cluster.command("repair 2").0,
            "repair: cell 2 is not lost: `cells` tells which are\n"
        );
        assert_eq!(cluster.command("stop d").0, "cell 1: VM `d` ended: stopped\n");
        assert_eq!(cluster.command("start d on 2").0, "VM `d` started\n");
        cluster.command("lend 2 5");
        cluster.run_for(20 * MS);
        cluster.kill(2);
        cluster.run_for(50 * MS);
        assert!(cluster.monitor().contains("cell 2 is lost"));
        cluster.revive(2, incarnation, build());
        cluster.run_for(20 * MS);
        assert!(cluster.monitor().contains("cell 2 is back"));
        let agreed = cluster.agreed(0);
        let last = agreed.last().expect("an agreement");
        assert_eq!((last.cells, last.incarnations[2]), (CellSet(7), Incarnation(incarnation)));
        assert_eq!(agreed, cluster.agreed(1));
        // What its policy says runs again; the rest when it is told to.
        assert!(cluster.command("stats b").0.starts_with("VM `b`: running"));
        assert!(!cluster.command("stats c").0.starts_with("VM `c`: running"));
        assert_eq!(cluster.command("start c").0, "VM `c` started\n");
        // What may have gone elsewhere starts where it is told to.
        assert_eq!(cluster.command("start d on 1").0, "VM `d` started\n");
        // Pages and calls go to and fro, and nothing of its last life is left.
        assert_eq!(cluster.command("ping 2 3").0, "");
        cluster.run_for(50 * MS);
        let lent = cluster.command("lend 2 4").0;
        cluster.run_for(20 * MS);
        let back = cluster.command("recall 2").0;
        cluster.run_for(20 * MS);
        assert_eq!((lent.as_str(), back.as_str()), ("", ""));
        let memory = cluster.command("mem").0;
        assert!(memory.contains("lent") && !memory.contains("does not add up"), "{memory}");
    }
    assert_eq!(cluster.monitor().matches("cell 2 has answered 3 calls").count(), 4);
    // The first leads again, and its successor has the console no more.
    cluster.kill(0);
    cluster.run_for(50 * MS);
    assert!(cluster.monitor().contains("cell 0 is lost"));
    cluster.revive(0, 2, build());
    cluster.run_for(20 * MS);
    assert!(cluster.cells[1].printed(MONITOR).ends_with("cell 0 is back\r\nhoneycomb> "));
    assert!(cluster.cells[1].story().last().is_some_and(|last| last == "cell 0 back"));
    assert!(cluster.command("vms").0.contains("cell 2:"));
    assert_eq!(cluster.command("stop d").0, "cell 1: VM `d` ended: stopped\n");
}

#[test]
fn faults_happen_when_they_are_to_and_what_has_failed_can_be_repaired() {
    let mut cluster = Cluster::boot(2, 1000, &[], None);
    cluster.run_for(50 * MS);
    let answer = cluster.command("fault link 1 in 0.001000001").0;
    cluster.run_for(5 * MS);
    let (part, on, at) = cluster.switched()[0];
    assert_eq!((part, on), (Part::Link(1), false));
    assert_eq!(answer, format!("fault: link 1 will fail at {} s\n", seconds(at)));
    assert!(cluster.cells[0].story().contains(&"fault link 1".into()));
    let mut refused = |line: &str| cluster.command(line).0;
    assert_eq!(refused("repair link 0"), "repair: link 0 has not failed: `nodes` tells what has\n");
    assert_eq!(
        refused("repair router 1"),
        "repair: there is no router 1: the machine's are 0 to 0\n"
    );
    assert_eq!(cluster.command("repair link 1").0, "repair: link 1 works again\n");
    assert_eq!(
        cluster.switched().last().map(|(part, on, _)| (*part, *on)),
        Some((Part::Link(1), true))
    );
    assert!(cluster.cells[0].story().contains(&"repair link 1".into()));
    assert!(cluster.command("repair link 1").0.contains("has not failed"));
}
