//! Pages moved to other frames while their VMs live, on the simulated machine: its guests use a page where they have
//! found it until they are told to forget it, and look whose data is there.

use crate::sim::{Build, Cluster, Program, Run};
use abi::config::Placement;
use abi::event::Cause;
use abi::ring::stream::MONITOR;
use cell::rng::Rng;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;

/// The numbers in what the stress has said last: pages, rounds, moves, returns.
fn counted(printed: &str) -> [u64; 4] {
    let said = printed.lines().rfind(|line| line.starts_with("stress: "));
    let said = said.unwrap_or_else(|| panic!("nothing in {printed}"));
    assert!(said.ends_with("memory is consistent"), "{said}");
    let numbers: Vec<u64> = said.split(' ').filter_map(|word| word.parse().ok()).collect();
    numbers.try_into().expect("four numbers")
}

fn lives(seed: u64, cpus: u8) -> Run {
    let mut build = Build::new(400).seed(seed).stay().cpus(cpus);
    let programs = [Program::Loop, Program::Storm(20_000), Program::Tick(3 * MS), Program::Shell];
    for (i, program) in programs.into_iter().enumerate() {
        build = build.vm_with(&format!("v{i}"), 60, program, |vm| vm.vcpus = 1 + i as u32);
    }
    build.boot(None)
}

#[test]
fn pages_move_under_running_vcpus() {
    for cpus in [1, 2, 4, 8] {
        let mut run = lives(u64::from(cpus), cpus);
        run.run_on(10 * MS);
        assert_eq!(run.command("stress remap 3"), "moving pages and VCPUs for 3 s\n");
        run.run_on(4 * SECOND);
        let [pages, rounds, moves, returns] = counted(&run.printed(MONITOR));
        assert!(pages > 2 * rounds && rounds > 3000, "{pages} in {rounds}");
        assert_eq!(moves == 0, cpus == 1, "{moves}");
        assert!(4 * returns > rounds, "{returns} of {rounds}");
        run.come_back();
        assert_eq!(run.cell.audit(), Ok(()));
        let vm1 = run.cell.end_of(abi::VmId(1)).map(|end| end.cause);
        assert_eq!(vm1, Some(Cause::PowerOff), "no interrupt was lost");
    }
}

#[test]
fn a_seed_decides_what_is_moved() {
    let story = |seed| {
        let mut run = lives(seed, 4);
        run.command("stress remap 1");
        run.run_on(2 * SECOND);
        run.printed(MONITOR)
    };
    assert_eq!(story(4), story(4));
    assert_ne!(counted(&story(4)), counted(&story(5)));
}

/// Where no frame can be spared nothing is moved, and promises are kept.
#[test]
fn a_full_machine_keeps_its_promises() {
    for (spare, some) in [(0, false), (1, true)] {
        let mut run = Build::new(64)
            .stay()
            .cpus(2)
            .vm_with("a", 40 - spare, Program::Loop, |vm| vm.vcpus = 2)
            .vm("b", 8, Program::Loop)
            .boot(None);
        // They touch all they have.
        run.run_on(SECOND);
        run.command("stress remap 1");
        run.run_on(3 * SECOND);
        let [pages, ..] = counted(&run.printed(MONITOR));
        assert_eq!(pages > 0, some, "{pages}");
        run.come_back();
        assert_eq!(run.cell.frames().accounts().free, spare);
    }
}

/// Pauses, ends and starts fall anywhere into moves.
#[test]
fn lives_and_remaps_leave_no_trace() {
    for seed in 0..4 {
        let mut rng = Rng::new(seed);
        let mut run = lives(seed, 4);
        let mut now = 0;
        for _ in 0..1500 {
            now += rng.below(2 * MS);
            run.run_on(now);
            let vm = rng.below(4);
            let line = match rng.below(10) {
                0 | 1 => format!("start v{vm}"),
                2 => format!("stop v{vm}"),
                3 => format!("restart v{vm}"),
                4 | 5 => format!("pause v{vm}"),
                6 | 7 => format!("resume v{vm}"),
                8 => format!("migrate v{vm} {}", rng.below(4)),
                _ => "stress remap 1".into(),
            };
            run.command(&line);
            assert_eq!(run.cell.audit(), Ok(()));
        }
        for vm in 0..4 {
            run.command(&format!("destroy v{vm}"));
        }
        run.run_on(now + 2 * SECOND);
        let accounts = run.cell.frames().accounts();
        assert_eq!(accounts.free, accounts.total - accounts.monitor);
    }
}

#[test]
fn a_vm_paused_in_a_stress_stands_still() {
    let mut run = lives(1, 4);
    run.command("stress remap 2");
    run.run_on(100 * MS);
    run.command("pause v0");
    run.run_on(110 * MS);
    let ran = |run: &Run| run.world.borrow().ran.get(&abi::VmId(0)).copied();
    let before = ran(&run);
    run.run_on(SECOND);
    assert_eq!(ran(&run), before);
    run.command("resume v0");
    run.run_on(2 * SECOND);
    assert!(ran(&run) > before);
}

/// Of a VM that is spread, each page stays with the cell that its place in the VM wants; what is borrowed moves while
/// there is something left of the loan.
#[test]
fn borrowed_pages_move_among_those_of_their_lender() {
    let mut cluster = Cluster::of(
        3,
        1000,
        || {
            Build::new(64).stay().vm_with("spread", 30, Program::Loop, |vm| {
                (vm.cells, vm.placement) = (0b111, Placement::Spread);
            })
        },
        None,
    );
    cluster.run_for(5 * MS);
    let taken = |cluster: &Cluster| {
        let cell = &cluster.cells[0].cell;
        let dependence = cell.dependencies(abi::VmId(0));
        dependence.iter().map(|d| d.pages + d.promised).collect::<Vec<u64>>()
    };
    assert_eq!(taken(&cluster), [10, 10, 10]);
    cluster.command("stress remap 1 on 0");
    for _ in 0..20 {
        cluster.run_for(60 * MS);
        assert_eq!(taken(&cluster), [10, 10, 10]);
        assert_eq!(cluster.cells[0].cell.audit(), Ok(()));
    }
    let monitor = cluster.monitor().replace("cell 0: ", "");
    let [pages, ..] = counted(&monitor.replace('\r', ""));
    assert!(pages > 100, "{pages}");
}
