//! Memory lent between simulated cells: by command, for VMs that are spread, and when cells die.

use crate::sim::{Build, Cluster, Program};
use abi::CellId;
use abi::config::Placement;
use abi::event::Cause;

const MS: u64 = 1_000_000;

/// Pages of each cell's that are not the monitor's.
const FREE: u64 = 48;

fn accounts(cluster: &Cluster, cell: usize) -> cell::memmap::Accounts {
    cluster.cells[cell].cell.frames().accounts()
}

/// Every page is where the memmaps say, and all of them are free.
fn assert_all_free(cluster: &mut Cluster) {
    for cell in 0..cluster.cells.len() {
        cluster.cells[cell].come_back();
        assert_eq!(cluster.cells[cell].cell.audit(), Ok(()));
        assert_eq!(accounts(cluster, cell).free, FREE, "cell {cell}");
        let borrowed = cluster.cells[cell].cell.frames().look(|map| map.borrowed().count());
        assert_eq!(borrowed, 0, "cell {cell}");
    }
}

#[test]
fn an_operator_lends_and_ends_loans() {
    let mut cluster = Cluster::of(2, 1000, || Build::new(64).stay(), None);
    let mut say = |line: &str| {
        let (text, _) = cluster.command(line);
        cluster.run_for(20 * MS);
        (text, cluster.monitor().replace("\r\n", "\n"))
    };
    assert!(say("lend 1 10 on 0").1.contains("10 pages lent to cell 1: loan 1 of cell 0\n"));
    assert!(say("lend 0 100 on 1").1.contains("48 pages lent to cell 0: loan 1 of cell 1\n"));
    assert!(say("lend 0 1 on 1").0.contains("no page is free that is not promised to a VM"));
    assert!(say("lend 0 1 on 0").0.contains("lend: this is cell 0"));
    assert!(say("lend 5 1 on 0").1.contains("cell 5 can't be asked: it does not live\n"));
    let mem = say("mem").0;
    assert!(mem.contains("monitor 16 + VM 0 + lent 10 + quarantined 0 = total 64"), "{mem}");
    assert!(mem.contains("borrowed, loan 1 of cell 1: free 48 + "), "{mem}");
    assert!(mem.contains("consistent"), "{mem}");
    assert!(say("return 0 on 1").1.contains("loan 1 of cell 0 is over\n"));
    assert!(say("recall 0 on 1").1.contains("loan 1 of cell 1 is over\n"));
    assert!(say("recall 0 on 1").0.contains("recall: cell 0 has no loan of this cell's"));
    assert!(say("return 1 on 0").0.contains("return: nothing is borrowed from cell 1"));
    assert_all_free(&mut cluster);
}

/// Two hundred lives of VMs in three cells, spread and not, most of them failures, with loans in between.
#[test]
fn two_hundred_lives_with_spread_vms_and_loans_leave_no_trace() {
    let vm = |build: Build, name: &str, home: u8, program, spread| {
        build.vm_with(name, 30, program, |vm| {
            vm.autostart = false;
            vm.cells = 0b111 & !0 << home;
            vm.placement = if spread { Placement::Spread } else { Placement::Local };
        })
    };
    let mut cluster = Cluster::of(
        3,
        1000,
        || {
            let build =
                vm(Build::new(64).stay(), "spread", 0, Program::Live(4 * MS, Cause::Reset), true);
            let build = vm(build, "fails", 0, Program::Live(MS, Cause::UnreachableVector), true);
            let build = vm(build, "local", 1, Program::Live(2 * MS, Cause::Budget), false);
            vm(build, "bad", 2, Program::Bad, true)
        },
        None,
    );
    let names = ["spread", "fails", "local", "bad"];
    let homes = [0, 0, 1, 2];
    for life in 0..200 {
        let vm = life % names.len();
        if life % 7 == 0 {
            cluster.command("lend 0 5 on 2");
        }
        cluster.command(&format!("start {}", names[vm]));
        cluster.run_for(5 * MS);
        if life % 4 == 0 {
            let [a, b, c] = [0, 1, 2].map(|cell| accounts(&cluster, cell));
            assert!(b.lent >= 10 && c.lent >= 10, "a third of it each: {a} {b} {c}");
        }
        cluster.run_for(20 * MS);
        assert!(cluster.cells[homes[vm]].cell.usage_of(abi::VmId(vm as u16)).is_none());
        if life % 7 == 3 {
            cluster.command("return 2 on 0");
            cluster.run_for(5 * MS);
        }
    }
    cluster.command("return 2 on 0");
    cluster.run_for(5 * MS);
    assert_all_free(&mut cluster);
    let starts = |cell: usize| {
        cluster.cells[cell].story().iter().filter(|e| e.starts_with("start ")).count()
    };
    assert_eq!((starts(0), starts(1), starts(2)), (100, 50, 0));
}

#[test]
fn a_dead_lenders_pages_take_their_vms_along() {
    let mut cluster = Cluster::of(
        3,
        1000,
        || {
            let build = Build::new(64).stay();
            let build = build.vm_with("other", 8, Program::Loop, |vm| vm.cells = 0b001);
            build.vm_with("spread", 30, Program::Loop, |vm| {
                (vm.cells, vm.placement) = (0b111, Placement::Spread);
            })
        },
        None,
    );
    cluster.run_for(60 * MS);
    assert_eq!((accounts(&cluster, 1).lent, accounts(&cluster, 2).lent), (10, 10));
    cluster.kill(2);
    cluster.run_for(60 * MS);
    let story = cluster.cells[0].story();
    assert!(story.contains(&"spread cell-lost".to_string()), "{story:?}");
    assert!(cluster.cells[0].cell.usage_of(abi::VmId(0)).is_some(), "the other VM lives");
    let frames = cluster.cells[0].cell.frames().clone();
    assert_eq!(frames.look(|map| map.lost().count() + map.borrowed().count()), 0);
    cluster.cells[0].come_back();
    assert_eq!(cluster.cells[0].cell.audit(), Ok(()));
    assert_eq!(accounts(&cluster, 1).free, FREE, "what it had of cell 1 has come back");
    // The other way round: the borrower dies.
    cluster.command("lend 0 5 on 1");
    cluster.run_for(20 * MS);
    assert_eq!(accounts(&cluster, 1).lent, 5);
    cluster.kill(0);
    cluster.run_for(20 * MS);
    assert_eq!(accounts(&cluster, 1).free, FREE);
    assert_eq!(cluster.cells[1].cell.frames().cell(), CellId(1));
}

/// A VM that waits for the last of its loans keeps those that have come, though another VM ends meanwhile.
#[test]
fn loans_of_a_vm_that_waits_are_kept() {
    for step in 0..40u64 {
        let mut cluster = Cluster::of(
            4,
            1000,
            || {
                let ends = Program::Live(20 * MS + step * MS / 4, Cause::PowerOff);
                let build = Build::new(64).stay().cpus(2);
                let build = build.vm_with("ends", 4, ends, |vm| vm.cells = 1);
                // Its cell is slow to answer.
                let build = build.vm_with("busy", 4, Program::Loop, |vm| {
                    (vm.cells, vm.vcpus) = (0b1000, 2);
                });
                build.vm_with("spread", 40, Program::Loop, |vm| {
                    (vm.cells, vm.placement) = (0b1111, Placement::Spread);
                    vm.autostart = false;
                })
            },
            None,
        );
        cluster.run_for(20 * MS);
        cluster.command("start spread");
        cluster.run_for(60 * MS);
        let vm = abi::VmId(2);
        let of = cluster.cells[0].cell.dependencies(vm);
        let all: Vec<u64> = of.iter().map(|d| d.pages + d.promised).collect();
        assert_eq!(all, [10, 10, 10, 10], "step {step}");
    }
}
