//! A VM's lives at run time: started again by policy, by an operator, and gone for good.

use crate::sim::{Build, Program, Run, console};
use abi::config::Restart;
use abi::event::{Cause, Kind};
use abi::ring::stream::MONITOR;
use abi::script::Outcome;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;

/// When each life of the only VM began.
fn starts(run: &Run) -> Vec<u64> {
    let world = run.world.borrow();
    let started = |kind: &Kind| matches!(kind, Kind::VmStart { .. });
    world.events.iter().filter(|e| started(&e.kind)).map(|e| e.t_ns).collect()
}

fn lives(restart: Restart, cause: Cause, life: u64) -> Run {
    Build::new(64)
        .stay()
        .vm_with("a", 8, Program::Live(life, cause), |vm| vm.restart = restart)
        .boot(None)
}

#[test]
fn the_policy_decides_who_is_started_again() {
    use Cause::{Budget, PowerOff, Reset, UnreachableVector};
    use Restart::{Always, Never, OnFailure, OnFailureElsewhere};
    for (restart, cause, again) in [
        (Never, UnreachableVector, false),
        (OnFailure, UnreachableVector, true),
        (OnFailure, Budget, true),
        (OnFailure, Reset, true),
        (OnFailure, PowerOff, false),
        (OnFailureElsewhere, UnreachableVector, true),
        (Always, PowerOff, true),
    ] {
        let mut run = lives(restart, cause, MS);
        run.run(150 * MS);
        assert_eq!(starts(&run).len(), 1 + usize::from(again), "{restart:?} after {cause:?}");
    }
}

#[test]
fn who_fails_at_once_waits_longer_each_time() {
    let mut run = lives(Restart::Always, Cause::UnreachableVector, MS);
    run.run(200 * SECOND);
    let starts = starts(&run);
    let waits: Vec<u64> = starts.windows(2).map(|w| (w[1] - w[0] - MS) / (100 * MS)).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]);
    assert!(run.printed(MONITOR).contains("  it is started again in 200 ms\r\n"));
    // A life that lasts is no failure at once.
    let mut run = lives(Restart::Always, Cause::UnreachableVector, 10 * SECOND);
    run.run(100 * SECOND);
    assert_eq!(self::starts(&run).len(), 10);
}

#[test]
fn an_operator_beats_the_policy() {
    let mut run = lives(Restart::Always, Cause::Reset, 10 * MS);
    run.run(5 * MS);
    assert_eq!(run.command("stop a"), "VM `a` ended: stopped\n");
    run.run(10 * SECOND);
    assert_eq!(starts(&run).len(), 1, "stopped is stopped");
    run.command("start a");
    run.run(run.now() + 11 * MS);
    assert_eq!(run.command("stop a"), "VM `a` is not started again\n");
    run.run(run.now() + SECOND);
    assert_eq!(starts(&run).len(), 2);
    run.command("start a");
    run.run(run.now() + 11 * MS);
    assert_eq!(run.command("start a"), "VM `a` started\n", "sooner than by itself");
    assert_eq!(run.cell.audit(), Ok(()));
}

#[test]
fn a_run_without_a_script_goes_on_while_a_vm_is_to_be_started_again() {
    let mut run = Build::new(64)
        .vm_with("a", 8, Program::Live(MS, Cause::Reset), |vm| vm.restart = Restart::OnFailure)
        .boot(None);
    assert_eq!(run.run(SECOND), None);
    assert_eq!(run.command("stop a"), "VM `a` is not started again\n");
    assert_eq!(run.run(2 * SECOND), Some(Outcome::Done));
}

#[test]
fn a_restart_without_memory_is_tried_again() {
    let mut run = Build::new(64)
        .stay()
        .vm_with("a", 40, Program::Live(MS, Cause::Reset), |vm| vm.restart = Restart::Always)
        .vm_with("big", 40, Program::Loop, |vm| vm.autostart = false)
        .boot(None);
    run.run(2 * MS);
    assert_eq!(run.command("start big"), "VM `big` started\n");
    run.run(SECOND);
    assert!(run.story().iter().filter(|e| *e == "a no-memory").count() >= 2);
    run.command("stop big");
    run.run(10 * SECOND);
    assert_eq!(run.story().last().map(String::as_str), Some("a reset"));
    assert!(starts(&run).len() >= 3);
}

/// Two hundred lives, of several VCPUs, by `restart`: the last is as good as the first.
#[test]
fn the_hundredth_boot_is_as_good_as_the_first() {
    let mut run = Build::new(64)
        .stay()
        .cpus(4)
        .vm_with("sh", 8, Program::Shell, |vm| vm.vcpus = 3)
        .vm("hog", 8, Program::Loop)
        .boot(None);
    for life in 0..200u64 {
        run.run_on(run.now() + 20 * MS);
        run.cell.input(console(0), b"hello\n");
        run.run_on(run.now() + 100 * MS);
        let printed = run.printed(console(0));
        assert!(printed.ends_with("# hello\r\nyou said hello\r\n# "), "life {life}: {printed}");
        run.command("restart sh");
    }
    run.run(run.now() + SECOND);
    assert_eq!(starts(&run).len(), 202);
    assert_eq!(run.cell.audit(), Ok(()));
}

#[test]
fn what_is_destroyed_is_forgotten() {
    let mut run = Build::new(64)
        .stay()
        .vm("a", 8, Program::Loop)
        .vm_with("b", 8, Program::Loop, |vm| vm.autostart = false)
        .boot(None);
    run.run(5 * MS);
    assert_eq!(run.command("destroy a"), "VM `a` ended: stopped\n  and its definition has gone\n");
    assert_eq!(run.command("destroy b"), "VM `b` and its definition have gone\n");
    assert_eq!(run.command("start a"), "no VM `a`: none is configured\n");
    assert!(!run.command("vms").contains("a  "));
    assert_eq!(run.story(), ["up", "start a", "a stopped", "destroy a", "destroy b"]);
    assert_eq!(run.cell.frames().accounts().vm, 0);
}
