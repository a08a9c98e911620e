//! A cell of several CPUs on the simulated machine: VCPUs, interrupts between them, moves.

use crate::sim::{Build, Program, Run, console};
use abi::event::Cause;
use abi::script::Outcome;
use abi::{VmId, ring::stream::MONITOR};
use cell::rng::Rng;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;

fn ran(run: &Run, vm: u16) -> u64 {
    run.world.borrow().ran.get(&VmId(vm)).copied().unwrap_or(0)
}

#[test]
fn vms_of_equal_weight_get_equal_time_on_overcommitted_cpus() {
    for (cpus, vcpus) in [(2, 1), (4, 1), (4, 2), (8, 4), (16, 2)] {
        // Twice as many VCPUs as CPUs.
        let vms = 2 * u16::from(cpus) / vcpus as u16;
        let mut build = Build::new(1000).stay().cpus(cpus);
        for i in 0..vms {
            build = build.vm_with(&format!("v{i}"), 4, Program::Loop, |vm| vm.vcpus = vcpus);
        }
        let mut run = build.boot(None);
        run.run(10 * SECOND);
        let share = 10 * SECOND * u64::from(cpus) / u64::from(vms);
        for i in 0..vms {
            let off = ran(&run, i).abs_diff(share);
            assert!(off * 50 < share, "{cpus} CPUs: VM {i} ran {} of {share}", ran(&run, i));
        }
    }
}

/// Every interrupt arrives, however many share the CPUs: else the ring would stand still.
#[test]
fn no_interrupt_is_lost() {
    for seed in 0..20 {
        let cpus = 1 + (seed % 8) as u8;
        let mut build = Build::new(1000).seed(seed).cpus(cpus);
        for (i, vcpus) in [1, 2, 3, 4].into_iter().enumerate() {
            let program = if seed % 2 == 0 { Program::Ring(2000) } else { Program::Storm(500) };
            build = build.vm_with(&format!("v{i}"), 4, program, |vm| vm.vcpus = vcpus);
        }
        let mut run = build.vm("hog", 4, Program::Live(SECOND, Cause::PowerOff)).boot(None);
        assert_eq!(run.run(100 * SECOND), Some(Outcome::Done), "seed {seed} stands still");
        for i in 0..4 {
            assert_eq!(run.cell.end_of(VmId(i)).unwrap().cause, Cause::PowerOff);
        }
    }
}

#[test]
fn an_operator_moves_and_pins_vcpus() {
    let mut run = Build::new(100)
        .stay()
        .cpus(4)
        .vm_with("a", 4, Program::Loop, |vm| vm.vcpus = 2)
        .vm("b.1", 4, Program::Tick(MS))
        .boot(None);
    run.run_on(20 * MS);
    assert_eq!(run.command("pin a.0 3"), "VCPU a.0 goes to CPU 3 and stays there\n");
    run.run(30 * MS);
    assert_eq!(run.command("migrate b.1 2"), "VCPU b.1.0 is on CPU 2\n");
    assert_eq!(run.command("migrate a 1"), "VCPU a.0 is pinned: `unpin a.0` first\n");
    let vcpus = run.command("vcpus");
    assert!(vcpus.contains("a.0"), "{vcpus}");
    let story = run.story();
    assert!(story.iter().any(|e| e.starts_with("move a.0 ") && e.ends_with(" 3")), "{story:?}");
    assert_eq!(run.command("unpin a.0"), "VCPU a.0 is free to move\n");
    assert_eq!(run.command("unpin a.0"), "VCPU a.0 was not pinned\n");
    assert_eq!(run.command("migrate a.0 9"), "there is no CPU 9: the machine's CPUs are 0 to 3\n");
    assert_eq!(run.command("migrate a.2 1"), "VM `a` has no VCPU 2: its VCPUs are 0 to 1\n");
}

#[test]
fn an_operator_sees_where_everything_is() {
    let mut run = Build::new(100)
        .stay()
        .cpus(2)
        .vm_with("a", 4, Program::Loop, |vm| vm.vcpus = 2)
        .vm_with("b", 4, Program::Loop, |vm| vm.autostart = false)
        .boot(None);
    run.run(100 * MS);
    run.command("pin a.0 1");
    assert_eq!(
        run.command("vms -v"),
        "a: running, home cell 0\n  VCPU 0: CPU 1, node 0, cell 0\n  VCPU 1: CPU 0, node 0, cell 0\n  \
         pages on node 0: 4\n  \
         depends on cell 0: 4 pages and 0 promised, 2 VCPUs, its devices (essential)\n\
         b: defined, home cell 0\n"
    );
}

#[test]
fn a_stop_waits_for_the_vcpus_that_are_away() {
    let mut run = Build::new(100)
        .stay()
        .cpus(4)
        .vm_with("a", 40, Program::Loop, |vm| vm.vcpus = 4)
        .boot(None);
    run.run_on(10 * MS + 1);
    let owned = |run: &Run| run.cell.frames().accounts().vm;
    assert_eq!(run.command("stop a"), "");
    assert!(owned(&run) > 0, "its VCPUs are still away");
    assert_eq!(run.command("start a"), "VM `a` is just being ended: start it when it has\n");
    run.run_on(11 * MS);
    assert_eq!(owned(&run), 0);
    assert!(run.printed(MONITOR).contains("VM `a` ended: stopped"));
    assert_eq!(run.command("start a"), "VM `a` started\n");
}

#[test]
fn a_paused_vm_stands_still() {
    let mut run = Build::new(100)
        .stay()
        .cpus(2)
        .vm_with("a", 4, Program::Print("x"), |vm| vm.vcpus = 2)
        .boot(None);
    run.run_on(100 * MS + 1);
    assert_eq!(run.command("pause a"), "");
    run.run_on(101 * MS);
    assert!(run.printed(MONITOR).contains("VM `a` paused"));
    let before = ran(&run, 0);
    run.run_on(200 * MS);
    assert_eq!(ran(&run, 0), before);
    assert_eq!(run.command("pause a"), "VM `a` is paused already\n");
    assert_eq!(run.command("resume a"), "VM `a` goes on\n");
    assert_eq!(run.command("resume a"), "VM `a` is not paused\n");
    run.run(300 * MS);
    assert!(ran(&run, 0) >= before + 199 * MS);
    assert_eq!(run.story(), ["up", "start a", "pause a", "resume a"]);
    assert!(run.printed(console(0)).len() > 300);
}

/// Thousands of commands and moves in a row leave every VCPU in one place and every page accounted.
#[test]
fn random_lives_and_moves_leave_no_trace() {
    for seed in 0..4 {
        let mut rng = Rng::new(seed);
        let mut build = Build::new(200).seed(seed).stay().cpus(2 + 2 * (seed as u8 % 4));
        let programs = [
            Program::Loop,
            Program::Storm(1000),
            Program::Tick(3 * MS),
            Program::Live(40 * MS, Cause::UnreachableVector),
            Program::Ring(5000),
            Program::Shell,
        ];
        for (i, program) in programs.into_iter().enumerate() {
            build = build.vm_with(&format!("v{i}"), 10, program, |vm| {
                vm.vcpus = 1 + i as u32 % 4;
                vm.autostart = i % 2 == 0;
            });
        }
        let mut run = build.boot(None);
        let mut now = 0;
        for _ in 0..2500 {
            now += rng.below(4 * MS);
            run.run_on(now);
            let vm = rng.below(6);
            let (vcpu, cpu) = (rng.below(5), rng.below(9));
            let line = match rng.below(12) {
                0 | 1 => format!("start v{vm}"),
                2 => format!("stop v{vm}"),
                3 => format!("restart v{vm}"),
                4 | 5 => format!("pause v{vm}"),
                6 | 7 => format!("resume v{vm}"),
                8 => format!("pin v{vm}.{vcpu} {cpu}"),
                9 => format!("unpin v{vm}"),
                10 => "stress migrate 1".into(),
                _ => format!("migrate v{vm}.{vcpu} {cpu}"),
            };
            run.command(&line);
            assert_eq!(run.cell.audit(), Ok(()));
        }
        for vm in 0..6 {
            run.command(&format!("destroy v{vm}"));
        }
        run.run_on(now + SECOND);
        assert!(run.story().iter().filter(|e| e.starts_with("move")).count() > 100);
        assert_eq!(run.story().iter().filter(|e| e.starts_with("destroy")).count(), 6);
        let accounts = run.cell.frames().accounts();
        assert_eq!(accounts.free, accounts.total - accounts.monitor);
        assert_eq!(run.command("start v1"), "no VM `v1`: none is configured\n");
    }
}

#[test]
fn a_seed_decides_the_whole_run_of_many_cpus() {
    let story = |seed| {
        let mut build = Build::new(200).seed(seed).cpus(4).stay();
        for i in 0..4 {
            build = build.vm_with(&format!("v{i}"), 4, Program::Loop, |vm| vm.vcpus = 2);
        }
        let mut run = build.boot(None);
        run.command("stress migrate 10");
        run.run_on(11 * SECOND);
        let moves = run.world.borrow().events.clone();
        assert!(moves.len() > 100, "ten a second");
        moves
    };
    assert_eq!(story(4), story(4));
    assert_ne!(story(4), story(5));
}

#[test]
fn an_idle_vm_costs_next_to_nothing() {
    let mut run = Build::new(200)
        .stay()
        .cpus(2)
        .vm_with("idle", 4, Program::Shell, |vm| vm.vcpus = 4)
        .vm("busy", 4, Program::Loop)
        .boot(None);
    run.run(10 * SECOND);
    assert!(ran(&run, 0) < MS, "{}", ran(&run, 0));
    assert!(ran(&run, 1) > 10 * SECOND - MS);
}
