//! The judge is judged: a right report passes, and each thing that may be wrong with one is seen.

use super::*;
use crate::fault::workload::{Guest, Machine, Memory, Program};
use std::path::Path;

/// Four cells of a node. VMs 0 to 3 confined to one each; two that may use cells 0 and 2 and have their home in 0: VM 4 is
/// spread over them, VM 5 is not.
fn facts() -> Facts {
    let machine = Machine {
        cells: 4,
        nodes_per_cell: 1,
        cpus_per_node: 1,
        memory: Memory::Mixed,
        endian: crate::endian::Endian::Little,
    };
    let guest = |cells: Vec<u32>, is_spread| Guest {
        vcpus: 1,
        cells,
        is_spread,
        programs: vec![Program::Exec],
    };
    let mut guests: Vec<_> = (0..4).map(|cell| guest(vec![cell], false)).collect();
    guests.push(guest(vec![0, 2], true));
    guests.push(guest(vec![0, 2], false));
    let config = workload::with_late_vms(&workload::config(&machine, &guests), 4);
    Facts::parse(Path::new("a test"), &config).unwrap()
}

const AT: u64 = 1_000_000_000;

fn deed() -> Deed {
    Deed { words: "node 2".into(), at_ns: AT, lost: 0b0100, moves: true }
}

fn event(t_ns: u64, cell: i64, kind: &str) -> Event {
    Event { t_ns, cell, kind: kind.into(), ..Event::default() }
}

fn end(t_ns: u64, cell: i64, vm: usize, cause: &str) -> Event {
    let vm = format!("irix-{vm}");
    Event { vm, cause: cause.into(), ..event(t_ns, cell, "vm-end") }
}

fn prints(record: &mut Record, console: &str, lines: &[&str]) {
    record.consoles.insert(console.into(), lines.iter().map(|line| line.to_string()).collect());
}

const OUTPUT: [&str; 2] = ["irix: shell ready", "check exec 8366d4b035785b02"];

/// Nothing was injected.
fn undisturbed() -> Record {
    let mut record = Record { status: Some(0), ..Record::default() };
    for vm in 0..6 {
        prints(&mut record, &format!("irix-{vm}"), &OUTPUT);
    }
    record
}

/// Node 2 has failed, and all went as it should: VMs 2, 4 and 5 were lost.
fn right() -> Record {
    let mut record = Record { status: Some(3), ..undisturbed() };
    record.own = vec!["run: cell 2 was lost".into(), "run: VM irix-4 was ended: cell-lost".into()];
    record.events = vec![
        Event { vm: "irix-4".into(), ..event(AT / 2, 0, "vm-start") },
        Event { what: "node 2".into(), ..event(AT + 9, 0, "fault") },
        Event { lost: Some(2), ..event(AT + 1000, 0, "cell-lost") },
        end(AT + 2000, 0, 4, "cell-lost"),
        end(AT + 2000, 0, 5, "cell-lost"),
        end(AT - 1000, 1, 1, "reset"),
        end(AT + 9000, 0, 0, "reset"),
        end(AT + 9000, 3, 3, "reset"),
    ];
    prints(&mut record, "irix-2", &OUTPUT[..1]);
    prints(&mut record, "irix-4", &OUTPUT[..1]);
    prints(&mut record, "irix-5", &OUTPUT[..1]);
    for cell in [0, 1, 3] {
        let lines = ["hello: ready", "> sum", "sum: d488e188dc8ae95b"];
        prints(&mut record, &format!("late-{cell}"), &lines);
    }
    let mem = [
        "all: free 24576 + monitor 8192 + VM 0 + lent 0 + quarantined 0 = total 32768 pages of 4 KB",
        "consistent: every page has the one owner that is recorded",
    ];
    prints(&mut record, "monitor", &mem.repeat(3));
    record
}

fn wrong(change: impl FnOnce(&mut Record)) -> Vec<String> {
    let mut record = right();
    change(&mut record);
    judge(&facts(), &deed(), &record, &undisturbed()).wrong
}

fn event_of<'a>(record: &'a mut Record, kind: &str, vm: &str) -> &'a mut Event {
    record.events.iter_mut().find(|event| event.kind == kind && event.vm == vm).unwrap()
}

#[test]
fn a_right_report_passes() {
    let judgement = judge(&facts(), &deed(), &right(), &undisturbed());
    assert_eq!(judgement.wrong, [""; 0]);
    assert_eq!(judgement.lost_vms, ["irix-2", "irix-4", "irix-5"]);
    assert_eq!(judgement.either, ["irix-5"]);
    // Who may be lost or not may also have gone on.
    let went_on = |record: &mut Record| {
        *event_of(record, "vm-end", "irix-5") = end(AT + 5000, 0, 5, "reset");
        prints(record, "irix-5", &OUTPUT);
    };
    assert_eq!(wrong(went_on), [""; 0]);
    // Where nothing moves VCPUs it must.
    let still = Deed { moves: false, ..deed() };
    let judge = |record: &Record| judge(&facts(), &still, record, &undisturbed()).wrong;
    assert_eq!(judge(&right()), ["VM irix-5 was lost, and should not have been"]);
    let mut record = right();
    went_on(&mut record);
    assert_eq!(judge(&record), [""; 0]);
}

#[test]
fn one_vm_too_many() {
    let found = wrong(|record| event_of(record, "vm-end", "irix-3").cause = "cell-lost".into());
    assert_eq!(found, ["VM irix-3 was lost, and should not have been"]);
}

#[test]
fn one_vm_too_few() {
    let found = wrong(|record| record.events.push(end(AT + 500_000_000, 0, 2, "reset")));
    assert_eq!(found[0], "VM irix-2 has outlived a cell that it depended on");
    let found = wrong(|record| {
        *event_of(record, "vm-end", "irix-4") = end(AT + 500_000_000, 0, 4, "reset");
        prints(record, "irix-4", &OUTPUT);
    });
    assert_eq!(found, ["VM irix-4 has outlived a cell that it depended on"]);
    // Lost, and nobody says so.
    let ends = |vm: &'static str| move |event: &Event| event.kind != "vm-end" || event.vm != vm;
    let found = wrong(|record| record.events.retain(ends("irix-4")));
    assert_eq!(found, ["VM irix-4 is lost, and nobody says so"]);
    let found = wrong(|record| record.events.retain(ends("irix-5")));
    assert_eq!(found, ["VM irix-5 has neither finished nor been lost"]);
}

#[test]
fn a_wrong_checksum_and_a_missing_line() {
    let other = [OUTPUT[0], "check exec 8366d4b035785b03"];
    for (name, lines) in [("irix-0", &other[..]), ("irix-1", &OUTPUT[..1]), ("irix-3", &[])] {
        let found = wrong(|record| prints(record, name, lines));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(&format!("VM {name}: line ")), "{found:?}");
    }
    let found = wrong(|record| {
        *event_of(record, "vm-end", "irix-5") = end(AT + 5000, 0, 5, "reset");
    });
    assert!(found[0].starts_with("VM irix-5: line 2 is nothing"), "half done: {found:?}");
}

#[test]
fn a_panic_of_a_survivor() {
    let found = wrong(|record| record.events.push(event(AT + 5, 1, "panic")));
    assert_eq!(found, ["a monitor of a living cell (1) has panicked"]);
    let found = wrong(|record| prints(record, "boot", &["monitor: panic: index out of bounds"]));
    assert_eq!(found, ["monitor: panic: index out of bounds"]);
}

#[test]
fn a_cell_too_many_or_too_few() {
    let lost = |cell| Event { lost: Some(cell), ..event(AT + 1500, 0, "cell-lost") };
    let found = wrong(|record| record.events.push(lost(1)));
    assert_eq!(found, ["cell 1 was lost, and should not have been"]);
    let found = wrong(|record| record.events.retain(|event| event.kind != "cell-lost"));
    assert_eq!(found, ["nobody who lives says that cell 2 is lost"]);
    let found = wrong(|record| record.events.push(lost(2)));
    assert_eq!(found, ["cell 2 was reported as lost 2 times"]);
    let found = wrong(|record| event_of(record, "cell-lost", "").cell = 2);
    assert_eq!(found, ["nobody who lives says that cell 2 is lost"], "only the dead says so");
}

#[test]
fn a_fault_that_was_none_or_another() {
    let found = wrong(|record| record.events.retain(|event| event.kind != "fault"));
    assert_eq!(found, ["`fault node 2` was not injected"]);
    let found = wrong(|record| event_of(record, "fault", "").what = "node 1".into());
    assert_eq!(found, ["`node 1` was injected, not `node 2`"]);
    let found = wrong(|record| event_of(record, "fault", "").t_ns = AT - 1);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn an_end_that_is_none() {
    assert_eq!(wrong(|record| record.status = None), ["the run hung, and was killed"]);
    assert_eq!(wrong(|record| record.status = Some(0)), ["the run's exit status is 0, not 3"]);
    let line = "run: script line 9: expect \"x\": nothing matched in 15 s";
    assert_eq!(wrong(|record| record.own.push(line.into())), [line]);
}

#[test]
fn what_is_left_works_and_adds_up() {
    let found = wrong(|record| prints(record, "late-3", &["hello: ready"]));
    assert_eq!(found, ["the new VM late-3 does not work"]);
    let found = wrong(|record| {
        let lines = record.consoles.get_mut("monitor").unwrap();
        lines[0] = lines[0].replace("VM 0", "VM 1");
    });
    assert!(found[0].starts_with("does not add up: all: free"), "{found:?}");
    let found = wrong(|record| record.consoles.get_mut("monitor").unwrap().truncate(4));
    assert_eq!(found.len(), 2, "one cell has not answered: {found:?}");
}
