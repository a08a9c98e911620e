//! The script outlives the cell that plays it: leaders die and come back.

use crate::cluster::{at, expect, regex, send, steps, vms};
use crate::sim::{Build, Cluster, Program};
use abi::ring::stream::MONITOR;
use abi::script::{Act, Outcome};
use cell::fault::Part;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;

fn build() -> Build {
    vms(3).into_iter().fold(Build::new(64), |build, (name, home, program)| {
        build.vm_with(name, 8, program, |vm| vm.cells = 1 << home)
    })
}

fn cluster(acts: impl IntoIterator<Item = Act>) -> Cluster {
    Cluster::of(3, 1000, build, steps(acts))
}

fn monitor() -> Act {
    Act::Console { stream: MONITOR }
}

const fn wait(ns: u64) -> Act {
    Act::Wait { ns }
}

#[test]
fn it_goes_on_in_the_next_leader_and_returns_to_one_that_is_back() {
    let mut cluster = cluster([
        at(4),
        expect("shell ready"),
        send("first"),
        expect("said first"),
        monitor(),
        expect("cell 0 is lost"),
        expect("honeycomb> "),
        send("stats sh-1"),
        expect("^VM `sh-1`: running"),
        expect("cell 0 is back"),
        expect("^Honeycomb monitor, cell 0 of 3"),
        expect("^honeycomb> "),
        send("vms"),
        expect("^cell 2:"),
        expect("cell 0 is lost"),
        expect("cell 1 is lost"),
        send("vms"),
        expect("^cell 2:"),
        at(4),
        send("last"),
        expect("said last"),
    ]);
    cluster.run_for(100 * MS);
    cluster.kill(0);
    cluster.run_for(100 * MS);
    cluster.revive(0, 2, build());
    cluster.run_for(100 * MS);
    cluster.kill(0);
    cluster.run_for(5 * MS);
    cluster.kill(1);
    assert_eq!(cluster.run(5 * SECOND), Some(Outcome::ScriptPassed));
    assert_eq!(cluster.printed(2, 4).matches("you said").count(), 2);
    // Each loss and each return was told once.
    let story: Vec<String> = cluster.cells.iter().flat_map(|cell| cell.story()).collect();
    let told = |what: &str| story.iter().filter(|told| *told == what).count();
    // What cell 0 told is lost with its first life, but for what was in its second.
    assert_eq!((told("cell 0 back"), told("cell 0 lost"), told("cell 1 lost")), (1, 2, 1));
}

/// Wherever the leader dies, nothing is typed twice, and the script goes on unless a line was lost with the leader.
#[test]
fn whenever_the_leader_dies_each_line_is_typed_at_most_once() {
    let mut passed = 0;
    for when in 1..40 {
        let script = (0..6).flat_map(|n| {
            let line = format!("line {n}");
            [send(&line), expect(&format!("said {line}")), wait(3 * MS)]
        });
        let mut cluster = cluster([at(4), expect("shell ready")].into_iter().chain(script));
        let until = when * MS * 11 / 10;
        if cluster.run(until).is_some() {
            break;
        }
        cluster.kill(0);
        if when % 3 == 0 {
            cluster.run_for(4 * MS);
            cluster.kill(1);
        }
        match cluster.run(5 * SECOND) {
            Some(Outcome::ScriptPassed) => passed += 1,
            other => panic!("killed at {until}: {other:?}"),
        }
        let printed = cluster.printed(2, 4);
        for n in 0..6 {
            assert_eq!(printed.matches(&format!("you said line {n}")).count(), 1, "{printed}");
        }
    }
    assert!(passed > 20, "{passed}");
}

/// What was printed before the leader's death counts, and what comes while nobody leads.
#[test]
fn no_output_of_the_others_is_missed() {
    let build = || {
        let tick = |build: Build, name, cell: u8| {
            build.vm_with(name, 8, Program::Tick(20 * MS), |vm| vm.cells = 1 << cell)
        };
        tick(tick(Build::new(64), "tick", 2), "tock", 1)
    };
    let ticks: String = (3..20).map(|n| format!("tick {n}\\r\\n")).collect();
    let all = |console| {
        let dfa = regex(&ticks);
        [at(console), Act::Expect { pattern: "ticks".into(), dfa, timeout_ns: SECOND }]
    };
    for when in 0..16 {
        let script = [all(0), all(1)].into_iter().flatten();
        let mut cluster = Cluster::of(3, 1000, build, steps(script));
        cluster.run_for(100 * MS + when * 1_300_000);
        cluster.kill(0);
        assert_eq!(cluster.run(5 * SECOND), Some(Outcome::ScriptPassed), "{when}");
    }
}

#[test]
fn time_goes_on_while_nobody_plays() {
    let acts = [wait(200 * MS), at(4), send("then"), expect("never")];
    let mut cluster = cluster(acts);
    cluster.run_for(150 * MS);
    cluster.kill(0);
    cluster.run_for(60 * MS);
    assert!(cluster.printed(2, 4).contains("you said then"), "the rest of the wait was waited for");
    match cluster.run(5 * SECOND) {
        Some(Outcome::ScriptFailed { line: 4, report }) => {
            assert!(report.contains("nothing matched in 1 s"), "{report}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn faults_that_a_dead_cell_was_to_inject_are_injected() {
    let mut cluster = Cluster::of(3, 1000, || build().stay(), None);
    cluster.run_for(50 * MS);
    let answer = cluster.command("fault link 2 in 0.1").0;
    let at = answer.trim_start_matches("fault: link 2 will fail at ").trim_end_matches(" s\n");
    assert_eq!(cluster.command("fault node 1 in 0.2").0.lines().count(), 1);
    cluster.command("fault transient router 1");
    while cluster.switched().is_empty() {
        cluster.run_for(MS / 10);
    }
    cluster.kill(0);
    cluster.run_for(90 * MS);
    let switched = cluster.switched();
    assert_eq!(switched[1].0, Part::Router(1));
    assert!(switched[1].1 && switched[1].2 - switched[0].2 < 40 * MS, "a moment longer");
    cluster.run_for(50 * MS);
    let (part, on, when) = cluster.switched()[2];
    assert_eq!((part, on, cell::fault::seconds(when).as_str()), (Part::Link(2), false, at));
    // What hits the new leader is done by another one.
    cluster.run_for(100 * MS);
    assert!(!cluster.lives(1) && cluster.lives(2));
    assert!(cluster.cells[2].story().contains(&"fault node 1".into()));
}
