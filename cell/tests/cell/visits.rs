//! VMs whose VCPUs are in several simulated cells.

use crate::sim::{Build, Cluster, Program};
use abi::VmId;
use abi::config::{Placement, Restart};
use abi::event::{Cause, Kind};

const MS: u64 = 1_000_000;
/// Pages of each cell's that are not the monitor's.
const FREE: u64 = 48;

/// So many cells of two CPUs, and a VM of four VCPUs in the first that may use all.
fn cluster(cells: usize, seed: u64, program: Program, spread: bool) -> Cluster {
    let build = || {
        Build::new(64).seed(seed).stay().cpus(2).vm_with("vm", 20, program.clone(), |vm| {
            vm.vcpus = 4;
            vm.cells = ((1u16 << cells) - 1) as u8;
            vm.placement = if spread { Placement::Spread } else { Placement::Local };
        })
    };
    Cluster::of(cells, 1000, build, None)
}

/// Where an operator sees the VCPUs: the cell of each.
fn places(cluster: &mut Cluster) -> Vec<usize> {
    let (text, _) = cluster.command("vms -v");
    let of = |index: usize| {
        let head = format!("  VCPU {index}: ");
        let line = text.lines().find(|line| line.trim_start().starts_with(head.trim_start()));
        let cell =
            line.and_then(|line| line.rsplit_once("cell ")).unwrap_or_else(|| panic!("{text}")).1;
        cell.parse().expect("a cell")
    };
    (0..4).map(of).collect()
}

fn assert_all_free(cluster: &mut Cluster) {
    for cell in 0..cluster.cells.len() {
        cluster.cells[cell].come_back();
        assert_eq!(cluster.cells[cell].cell.audit(), Ok(()));
        assert_eq!(cluster.cells[cell].cell.frames().accounts().free, FREE, "cell {cell}");
    }
}

/// The events of all cells: how often a VCPU was moved, and into which cells.
fn moves(cluster: &Cluster) -> Vec<usize> {
    let moved = |kind: &Kind| matches!(kind, Kind::VcpuMigrated { .. });
    let count = |run: &crate::sim::Run| {
        run.world.borrow().events.iter().filter(|event| moved(&event.kind)).count()
    };
    cluster.cells.iter().map(count).collect()
}

#[test]
fn a_vcpu_goes_where_an_operator_wants_it_and_comes_back() {
    let mut cluster = cluster(3, 1, Program::Loop, false);
    cluster.run_for(100 * MS);
    assert_eq!(places(&mut cluster), [0, 0, 0, 0]);
    assert_eq!(cluster.command("migrate vm.1 3").0, "VCPU vm.1 goes to CPU 3 in cell 1\n");
    cluster.run_for(100 * MS);
    assert_eq!(places(&mut cluster), [0, 1, 0, 0]);
    // From there to a third cell, by way of home.
    assert_eq!(
        cluster.command("pin vm.1 5").0,
        "VCPU vm.1 goes to CPU 5 in cell 2 and stays there\n"
    );
    cluster.run_for(100 * MS);
    assert_eq!(places(&mut cluster), [0, 2, 0, 0]);
    let (vms, _) = cluster.command("vms -v");
    assert!(
        vms.contains("depends on cell 2: 0 pages and 0 promised, 1 VCPUs (essential)"),
        "{vms}"
    );
    let (vcpus, _) = cluster.command("vcpus");
    assert!(vcpus.contains("5!"), "it is pinned: {vcpus}");
    cluster.command("unpin vm.1");
    cluster.command("migrate vm 0");
    cluster.run_for(200 * MS);
    assert_eq!(places(&mut cluster), [0, 0, 0, 0]);
    assert_eq!(
        cluster.command("migrate vm 6").0,
        "there is no CPU 6: the machine's CPUs are 0 to 5\n"
    );
    assert!(cluster.cells.iter().map(|run| run.told).sum::<u64>() > 0, "pages were asked for");
    cluster.command("stop vm");
    cluster.run_for(100 * MS);
    assert_all_free(&mut cluster);
}

/// VCPUs interrupt each other while they are moved about among three cells.
#[test]
fn no_interrupt_is_lost_among_cells() {
    for seed in 0..2 {
        let mut cluster = cluster(3, seed, Program::Storm(6000), seed % 2 == 1);
        cluster.run_for(5 * MS);
        cluster.command("stress migrate 100");
        let mut left = 4000;
        while cluster.cells[0].cell.end_of(VmId(0)).is_none() {
            cluster.run_for(10 * MS);
            left -= 1;
            assert!(left > 0, "seed {seed}: an interrupt was lost");
        }
        assert_eq!(cluster.cells[0].cell.end_of(VmId(0)).unwrap().cause, Cause::PowerOff);
        assert!(moves(&cluster).iter().all(|moves| *moves > 0), "{:?}", moves(&cluster));
        cluster.run_for(10 * MS);
        assert_all_free(&mut cluster);
    }
}

#[test]
fn a_spread_vm_starts_in_all_its_cells_and_its_lives_leave_no_trace() {
    let mut cluster = cluster(3, 3, Program::Live(30 * MS, Cause::Reset), true);
    for life in 0..40 {
        if life > 0 {
            cluster.command("start vm");
        }
        cluster.run_for(10 * MS);
        assert_eq!(places(&mut cluster), [0, 1, 2, 0]);
        match life % 4 {
            0 => _ = cluster.command("stop vm"),
            1 => _ = cluster.command("restart vm"),
            _ => {}
        }
        cluster.run_for(100 * MS);
        if life % 4 == 1 {
            cluster.run_for(100 * MS);
        }
        assert!(cluster.cells[0].cell.end_of(VmId(0)).is_some(), "life {life}");
        assert_all_free(&mut cluster);
    }
}

#[test]
fn what_is_paused_stands_still_in_every_cell() {
    let mut cluster = cluster(2, 1, Program::Loop, true);
    cluster.run_for(30 * MS);
    assert_eq!(places(&mut cluster), [0, 1, 0, 1]);
    cluster.command("pause vm");
    cluster.run_for(5 * MS);
    let ran = |cluster: &Cluster| -> Vec<u64> {
        cluster.cells.iter().map(|run| run.world.borrow().ran[&VmId(0)]).collect()
    };
    let before = ran(&cluster);
    cluster.run_for(50 * MS);
    // One that comes from elsewhere while its VM is paused stands still, too.
    cluster.command("migrate vm.0 2");
    cluster.run_for(50 * MS);
    assert_eq!(places(&mut cluster), [1, 1, 0, 1]);
    assert_eq!(ran(&cluster), before);
    cluster.command("resume vm");
    cluster.run_for(50 * MS);
    assert!(ran(&cluster).iter().zip(before).all(|(now, before)| *now > before));
}

#[test]
fn a_vm_ends_with_a_cell_that_runs_a_vcpu_of_it() {
    let mut cluster = cluster(3, 1, Program::Loop, true);
    cluster.run_for(30 * MS);
    cluster.kill(2);
    cluster.run_for(30 * MS);
    assert_eq!(cluster.cells[0].cell.end_of(VmId(0)).unwrap().cause, Cause::CellLost);
    for cell in 0..2 {
        assert_eq!(cluster.cells[cell].cell.frames().accounts().free, FREE);
    }
    // It starts again in those that are left.
    cluster.command("start vm");
    cluster.run_for(30 * MS);
    assert_eq!(places(&mut cluster), [0, 1, 0, 1]);
}

#[test]
fn nothing_is_left_of_a_vm_whose_home_has_died() {
    let mut cluster = cluster(3, 1, Program::Loop, true);
    cluster.run_for(30 * MS);
    cluster.kill(0);
    cluster.run_for(30 * MS);
    let (vcpus, _) = cluster.command("vcpus");
    assert!(!vcpus.contains("vm."), "{vcpus}");
    cluster.command("start vm on 1");
    cluster.run_for(30 * MS);
    let (vcpus, _) = cluster.command("vcpus");
    assert_eq!(vcpus.matches("vm.").count(), 4, "{vcpus}");
}

/// Cells die while VCPUs are moved about: no survivor is confused, and what lived only there ends.
#[test]
fn cells_die_amid_moves() {
    for seed in 0..5 {
        let build = || {
            let vm = |build: Build, name: &str, home: u8| {
                build.vm_with(name, 8, Program::Storm(100_000), |vm| {
                    vm.vcpus = 3;
                    vm.cells = 0b1111 & !0 << home;
                    vm.restart = Restart::Always;
                })
            };
            let build = Build::new(64).seed(seed).stay().cpus(2);
            (0..4).fold(build, |build, home| vm(build, &format!("vm-{home}"), home))
        };
        let mut cluster = Cluster::of(4, 1000, build, None);
        cluster.run_for(5 * MS);
        for cell in 0..4 {
            cluster.command(&format!("stress migrate 1000 on {cell}"));
        }
        for victim in [(seed % 4) as usize, ((seed / 4) % 3 + seed + 1) as usize % 4] {
            cluster.run_for(200 * MS + seed * 777_777);
            if cluster.lives(victim) {
                cluster.kill(victim);
            }
        }
        cluster.run_for(400 * MS);
        for cell in 0..4 {
            if cluster.lives(cell) {
                cluster.cells[cell].come_back();
                assert_eq!(cluster.cells[cell].cell.audit(), Ok(()), "seed {seed}, cell {cell}");
            }
        }
        cluster.command("vms -v");
    }
}

/// Every cell sends messages to VCPUs that are moved about among all: each is executed once, and in order.
#[test]
fn messages_find_vcpus_wherever_they_are() {
    let mut cluster = cluster(3, 5, Program::Loop, true);
    cluster.run_for(50 * MS);
    assert_eq!(places(&mut cluster), [0, 1, 2, 0]);
    cluster.command("stress migrate 100");
    assert!(cluster.command("stress messages 400").0.contains("sending 400 messages"));
    cluster.run_for(2000 * MS);
    let said = cluster.monitor();
    assert_eq!(said.matches("stress: 400 messages executed, 0 to VCPUs").count(), 3, "{said}");
    assert_eq!(said.matches(" executed here 0 were not the next").count(), 3, "{said}");
    assert!(!said.contains("WRONG"), "{said}");
    assert!(moves(&cluster).iter().sum::<usize>() > 20);
}
