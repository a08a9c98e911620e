//! VMs whose home dies: each is told of, once, and runs elsewhere if it is to, in one cell.

use crate::sim::{Build, Cluster, Program};
use abi::config::Restart;
use abi::event::Cause;
use abi::script::Outcome;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;

/// A VM of 8 pages in each of these cells that may be started elsewhere.
fn elsewhere(build: Build, name: &str, cells: u8, program: Program) -> Build {
    build.vm_with(name, 8, program, |vm| {
        (vm.cells, vm.restart) = (cells, Restart::OnFailureElsewhere);
    })
}

/// How often an event has happened, in the lives that cells have now.
fn told(cluster: &Cluster, what: &str) -> usize {
    let story = cluster.cells.iter().flat_map(|cell| cell.story());
    story.filter(|event| event == what).count()
}

/// The living cells in which a VM runs.
fn runs_in(cluster: &mut Cluster, name: &str) -> Vec<usize> {
    let all = cluster.command("vms").0;
    let mut cell = 0;
    let mut found = Vec::new();
    for line in all.lines() {
        if let Some(number) = line.strip_prefix("cell ") {
            cell = number.trim_end_matches(':').parse().unwrap();
        } else if line.split(' ').next() == Some(name) && line.contains(" running ") {
            found.push(cell);
        }
    }
    found
}

#[test]
fn a_lost_vm_starts_in_the_next_cell_and_stays_there() {
    let build = || elsewhere(Build::new(64).stay(), "e", 0b111, Program::Loop);
    let mut cluster = Cluster::of(3, 1000, build, None);
    cluster.run_for(50 * MS);
    assert_eq!(runs_in(&mut cluster, "e"), [0]);
    cluster.kill(0);
    cluster.run_for(50 * MS);
    assert_eq!(runs_in(&mut cluster, "e"), [1]);
    assert!(
        cluster
            .monitor()
            .contains("cell 1: VM `e` ended: cell-lost\r\n  cell 0, its home, has died")
    );
    assert!(cluster.monitor().contains("cell 1: VM `e` started again, elsewhere"));
    assert_eq!(told(&cluster, "e cell-lost"), 1);
    cluster.revive(0, 2, build());
    cluster.run_for(50 * MS);
    assert_eq!(runs_in(&mut cluster, "e"), [1], "its old home does not start it again");
    assert_eq!(cluster.command("start e on 0").0, "VM `e` runs already, in cell 1\n");
    cluster.kill(1);
    cluster.run_for(50 * MS);
    assert_eq!(runs_in(&mut cluster, "e"), [0]);
    assert_eq!(told(&cluster, "e cell-lost"), 2);
    assert_eq!(cluster.command("mem").0.matches("consistent").count(), 2);
}

#[test]
fn however_cells_die_it_runs_in_one() {
    for (also, after) in (0..24).flat_map(|after| [(1, after), (2, after), (3, after)]) {
        let build = || elsewhere(Build::new(64).stay(), "e", 0b1101, Program::Loop);
        let mut cluster = Cluster::of(4, 1000, build, None);
        cluster.run_for(50 * MS);
        cluster.kill(0);
        cluster.run_for(after * 500_000);
        cluster.kill(also);
        cluster.run_for(200 * MS);
        let runs = runs_in(&mut cluster, "e");
        assert_eq!(runs.len(), 1, "cell {also} after {after}: {runs:?}");
        assert!(runs[0] == 2 || runs[0] == 3, "cell {also} after {after}: {runs:?}");
        if also == 1 {
            // The leader died: its successor asks again, and may tell again what was told in vain.
            assert_eq!(runs, [2]);
        }
        cluster.revive(0, 2, build());
        cluster.run_for(100 * MS);
        assert_eq!(runs_in(&mut cluster, "e"), runs);
    }
}

#[test]
fn it_goes_where_there_is_memory() {
    let build = || {
        let build = elsewhere(Build::new(64).stay(), "e", 0b111, Program::Loop);
        build.vm_with("big", 44, Program::Loop, |vm| vm.cells = 0b010)
    };
    let mut cluster = Cluster::of(3, 1000, build, None);
    cluster.run_for(50 * MS);
    cluster.kill(0);
    cluster.run_for(50 * MS);
    assert_eq!(runs_in(&mut cluster, "e"), [2]);
    cluster.kill(2);
    cluster.run_for(300 * MS);
    assert_eq!(runs_in(&mut cluster, "e"), [0; 0]);
    assert!(cluster.monitor().contains("VM `e` needs"), "{}", cluster.monitor());
    cluster.command("stop big");
    cluster.run_for(SECOND);
    assert_eq!(runs_in(&mut cluster, "e"), [1], "it is tried again");
}

#[test]
fn one_that_is_not_to_start_is_the_next_cells_all_the_same() {
    let build = || {
        let build = Build::new(64).stay().vm_with("a", 8, Program::Loop, |vm| vm.cells = 0b011);
        build.vm_with("b", 8, Program::Loop, |vm| vm.cells = 0b001)
    };
    let mut cluster = Cluster::of(3, 1000, build, None);
    cluster.run_for(50 * MS);
    assert_eq!(cluster.command("stop a").0, "");
    cluster.run_for(20 * MS);
    cluster.kill(0);
    cluster.run_for(50 * MS);
    // Only what ran has been lost.
    assert_eq!((told(&cluster, "a cell-lost"), told(&cluster, "b cell-lost")), (0, 1));
    assert_eq!(cluster.command("stop a").0, "VM `a` does not run\n");
    assert!(cluster.command("vms on 1").0.contains("\na "), "{}", cluster.command("vms on 1").0);
    cluster.kill(1);
    cluster.run_for(50 * MS);
    assert_eq!(cluster.command("start a").0, "VM `a` may be in no cell that lives\n");
    // The one of its cells that is back first has it.
    cluster.revive(1, 2, build());
    cluster.run_for(50 * MS);
    assert_eq!(cluster.command("stop a").0, "VM `a` does not run\n");
    assert_eq!(cluster.command("start a").0, "VM `a` started\n");
    assert_eq!(runs_in(&mut cluster, "a"), [1]);
}

#[test]
fn a_run_goes_on_until_what_was_lost_has_ended() {
    for kill in [5, 20, 29] {
        let program = || Program::Live(30 * MS, Cause::PowerOff);
        let build = || elsewhere(Build::new(64), "e", 0b11, program());
        let mut cluster = Cluster::of(2, 1000, build, None);
        cluster.run_for(kill * MS);
        cluster.kill(0);
        assert_eq!(cluster.run(SECOND), Some(Outcome::Done));
        assert_eq!(told(&cluster, "e cell-lost"), 1);
        assert_eq!(told(&cluster, "e power-off"), 1);
    }
}
