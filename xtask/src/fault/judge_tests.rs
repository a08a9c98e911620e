//! The judge is judged: a right report passes, and each thing that may be wrong with one is seen.

use super::*;
use crate::fault::draw::{Fault, Kind, Second};
use crate::fault::record::Line;
use irix_user::work::Rounds;

/// Four cells of a node. VMs 0 to 3 confined to one each; two that may use cells 0 and 2 and have their home in 0: VM 4 is
/// spread over them, VM 5 is not.
fn facts() -> Facts {
    let mut guests: Vec<_> = (0..4).map(|cell| workload::guest(vec![cell], false)).collect();
    guests.push(workload::guest(vec![0, 2], true));
    guests.push(workload::guest(vec![0, 2], false));
    workload::facts_of(&guests)
}

/// When the first experiment's fault comes, and the second's.
const AT: u64 = 1_000_000_000;
const NEXT: u64 = 3_000_000_000;
const MS: u64 = 1_000_000;

/// Node 2 fails, twice.
fn experiments() -> Vec<Experiment> {
    let experiment = |id| Experiment {
        id,
        fault: Fault { kind: Kind::Node, is_link: false, place: 2 },
        in_ns: 5 * MS,
        second: None,
        lost: 0b0100,
        activities: Vec::new(),
        rest_ms: 100,
    };
    vec![experiment(40), experiment(41)]
}

fn event(t_ns: u64, cell: i64, kind: &str) -> Event {
    Event { t_ns, cell, kind: kind.into(), ..Event::default() }
}

fn of_vm(t_ns: u64, cell: i64, kind: &str, vm: usize, cause: &str) -> Event {
    Event { vm: format!("irix-{vm}"), cause: cause.into(), ..event(t_ns, cell, kind) }
}

fn sums() -> Vec<u64> {
    Rounds::default().take(100).collect()
}

/// VM `vm` prints a line of its life each 100 ms, from `start` on and before `end`.
fn lives(record: &mut Record, vm: usize, start: u64, end: u64) {
    let sums = sums();
    let lines = workload::lines("do=rounds:exec", &sums).unwrap();
    let times = (start + MS..end).step_by(100 * MS as usize);
    let lines = times.zip(lines).map(|(t_ns, text)| Line { t_ns, text });
    record.consoles.entry(format!("irix-{vm}")).or_default().extend(lines);
}

/// All went as it should: VMs 2 and 4 were lost each time and started again, VM 5 was not.
fn right() -> Record {
    let mut record =
        Record { status: Some(3), own: vec!["run: cell 2 was lost".into()], ..Record::default() };
    let mut monitor = Vec::new();
    let starts = (0..6).map(|vm| of_vm(1, [0, 1, 2, 3, 0, 0][vm], "vm-start", vm, ""));
    record.events.extend(starts);
    for at in [AT, NEXT] {
        record.events.extend([
            Event { what: "node 2".into(), ..event(at, 0, "fault") },
            Event { lost: Some(2), ..event(at + MS, 0, "cell-lost") },
            of_vm(at + 2 * MS, 0, "vm-end", 4, "cell-lost"),
            Event { back: Some(2), ..event(at + 500 * MS, 0, "cell-back") },
            of_vm(at + 501 * MS, 2, "vm-start", 2, ""),
            of_vm(at + 502 * MS, 0, "vm-start", 4, ""),
        ]);
        for text in [
            "all: free 24576 + monitor 8192 + VM 0 + lent 0 + quarantined 0 = total 32768 pages of 4 KB",
            "consistent: every page has the one owner that is recorded",
        ] {
            let line = Line { t_ns: at + 300 * MS, text: text.into() };
            monitor.extend([line.clone(), line.clone(), line]);
        }
        for cell in [0, 1, 3] {
            let lines = ["hello: ready", "> sum", "sum: d488e188dc8ae95b"];
            let lines = lines.map(|text| Line { t_ns: at + 200 * MS, text: text.into() });
            record.consoles.entry(format!("late-{cell}")).or_default().extend(lines);
        }
    }
    record.consoles.insert("monitor".into(), monitor);
    record.events.push(event(NEXT + 2000 * MS, 0, "vm-paused"));
    for vm in [0, 1, 3, 5] {
        lives(&mut record, vm, 1, NEXT + 2000 * MS);
    }
    for vm in [2, 4] {
        lives(&mut record, vm, 1, AT);
        lives(&mut record, vm, AT + 502 * MS, NEXT);
        lives(&mut record, vm, NEXT + 502 * MS, NEXT + 2000 * MS);
    }
    record
}

fn judged(change: impl FnOnce(&mut Record)) -> Vec<Judgement> {
    let mut record = right();
    change(&mut record);
    record.events.sort_by_key(|event| event.t_ns);
    judge(&facts(), &experiments(), record.failed_line().map(|_| 1), &record, &sums())
}

/// What is wrong with the first experiment, when nothing is with the second.
fn wrong(change: impl FnOnce(&mut Record)) -> Vec<String> {
    let judgements = judged(change);
    assert_eq!(judgements[1].wrong, [""; 0]);
    judgements[0].wrong.clone()
}

fn event_of<'a>(record: &'a mut Record, kind: &str, vm: &str) -> &'a mut Event {
    let found = |event: &&mut Event| event.kind == kind && event.vm == vm && event.t_ns >= AT;
    record.events.iter_mut().find(found).unwrap()
}

fn line_at<'a>(record: &'a mut Record, console: &str, t_ns: u64) -> &'a mut Line {
    let lines = record.consoles.get_mut(console).unwrap();
    lines.iter_mut().find(|line| line.t_ns >= t_ns).unwrap()
}

#[test]
fn a_right_report_passes() {
    let judgements = judged(|_| {});
    assert_eq!(judgements.len(), 2);
    for (judgement, at) in judgements.iter().zip([AT, NEXT]) {
        assert_eq!(judgement.wrong, [""; 0]);
        assert_eq!(judgement.lost_vms, ["irix-2", "irix-4"]);
        assert_eq!(judgement.either, [""; 0]);
        assert_eq!((judgement.at_ns, judgement.found_ns), (at, Some(MS)));
    }
}

#[test]
fn a_vm_whose_vcpu_is_in_the_lost_cell_is_lost_with_it() {
    let moved = |record: &mut Record, t_ns, to| {
        record.events.push(Event { to, ..of_vm(t_ns, 0, "vcpu-migrated", 5, "") });
    };
    let found = judged(|record| moved(record, AT - 9 * MS, 2));
    assert_eq!(found[0].wrong, ["VM irix-5 is lost, and nobody says so"], "it was there");
    let back = wrong(|record| {
        moved(record, AT - 9 * MS, 2);
        moved(record, AT - 2 * MS, 0);
    });
    assert_eq!(back, [""; 0], "it was back");
    // While VCPUs are moved it may be lost or not.
    let mut experiments = experiments();
    experiments[0].activities.push(Activity::Migrate);
    let mut record = right();
    let judge = |record: &Record| judge(&facts(), &experiments, None, record, &sums())[0].clone();
    assert_eq!((judge(&record).wrong.len(), judge(&record).either), (0, vec!["irix-5".into()]));
    record.events.push(of_vm(AT + 2 * MS, 0, "vm-end", 5, "cell-lost"));
    record.events.sort_by_key(|event| event.t_ns);
    record.consoles.get_mut("irix-5").unwrap().retain(|line| line.t_ns < AT);
    assert_eq!(judge(&record).wrong, [""; 0]);
    assert!(judge(&record).lost_vms.contains(&"irix-5".into()));
}

#[test]
fn a_vm_that_is_lost_or_lives_without_a_reason() {
    let end = |vm, cause: &'static str| {
        move |record: &mut Record| {
            record.events.push(of_vm(AT + 3 * MS, 0, "vm-end", vm, cause));
            record.events.push(of_vm(AT + 700 * MS, 0, "vm-start", vm, ""));
            let lines = record.consoles.get_mut(&format!("irix-{vm}")).unwrap();
            lines.retain(|line| line.t_ns < AT);
            lives(record, vm, AT + 700 * MS, NEXT + 2000 * MS);
        }
    };
    assert_eq!(wrong(end(0, "cell-lost")), ["VM irix-0 was lost, and should not have been"]);
    assert_eq!(wrong(end(5, "cell-lost")), ["VM irix-5 was lost, and should not have been"]);
    assert_eq!(wrong(end(1, "reset")), ["VM irix-1 ended with cause reset"]);
    let found = wrong(|record| event_of(record, "vm-end", "irix-4").cause = "reset".into());
    assert_eq!(found, ["VM irix-4 ended with cause reset"]);
    let found = wrong(|record| {
        let lines = record.consoles.get_mut("irix-4").unwrap();
        lines.push(Line { t_ns: AT + 300 * MS, text: "garbage".into() });
    });
    assert_eq!(found, ["VM irix-4 has outlived a cell that it depended on"]);
    let found = judged(|record| event_of(record, "vm-start", "irix-2").vm = "other".into());
    assert_eq!(
        found[0].wrong,
        [
            "VM irix-2 has outlived a cell that it depended on",
            "VM irix-2 was started again 0 times"
        ]
    );
}

#[test]
fn work_that_is_wrong_or_stops() {
    let found = wrong(|record| line_at(record, "irix-1", AT + 50 * MS).text = "round 7 bad".into());
    assert!(
        found[0].starts_with("VM irix-1: line 12 is \"round 7 bad\", not \"round 11 "),
        "{found:?}"
    );
    let found = wrong(|record| {
        let lines = record.consoles.get_mut("irix-3").unwrap();
        lines.retain(|line| !(AT..NEXT).contains(&line.t_ns));
        // Later it goes on where it was.
        let all = sums();
        let wanted: Vec<_> = workload::lines("do=rounds:exec", &all).unwrap().take(60).collect();
        for (line, text) in lines.iter_mut().zip(wanted) {
            line.text = text;
        }
    });
    assert_eq!(found, ["VM irix-3 lives and prints nothing any more"]);
    let found = wrong(|record| line_at(record, "irix-2", AT + 500 * MS).text = "x".into());
    assert_eq!(found, ["VM irix-2: line 1 is \"x\", not \"irix: shell ready\""], "its next life");
}

#[test]
fn a_check_takes_its_time_but_not_for_ever() {
    for (lasts, is_wrong) in [(900 * MS, false), (1100 * MS, true)] {
        let found = judged(|record| {
            let late = Event { lost: Some(2), ..event(AT + 1700 * MS, 1, "cell-lost") };
            record.events.push(late);
            let lines = record.consoles.get_mut("irix-3").unwrap();
            lines.retain(|line| line.t_ns < AT + 1700 * MS);
            let t_ns = lines.last().unwrap().t_ns + lasts;
            lines.push(Line { t_ns, text: "check exec 1".into() });
        });
        let silent = |what: &String| what == "VM irix-3 lives and prints nothing any more";
        assert_eq!(found[0].wrong.iter().any(silent), is_wrong, "{:?}", found[0].wrong);
    }
}

#[test]
fn a_cell_that_is_lost_or_lives_without_a_reason() {
    let lost = |cell| Event { lost: Some(cell), ..event(AT + 2 * MS, 0, "cell-lost") };
    let found = judged(|record| record.events.push(lost(1)))[0].wrong.clone();
    assert!(found.contains(&"cell 1 was lost, and should not have been".into()), "{found:?}");
    let found = wrong(|record| record.events.push(lost(2)));
    assert_eq!(found, ["cell 2 was reported as lost 2 times"]);
    let found = wrong(|record| event_of(record, "cell-lost", "").cell = 2);
    assert_eq!(found, ["nobody who lives says that cell 2 is lost"], "only the dead says so");
    let found = wrong(|record| event_of(record, "cell-back", "").back = Some(3));
    assert_eq!(found, ["cell 2 came back 0 times", "cell 3 came back 1 times"]);
    let found = wrong(|record| record.events.push(event(AT + 9 * MS, 2, "panic")));
    assert_eq!(found, ["the monitor of cell 2 has panicked"]);
}

#[test]
fn a_fault_that_was_another_or_came_alone() {
    let found = wrong(|record| event_of(record, "fault", "").what = "node 1".into());
    assert_eq!(found, ["injected was [\"node 1\"], not [\"node 2\"]"]);
    let mut experiments = experiments();
    let fault = Fault { kind: Kind::Link, is_link: true, place: 2 };
    experiments[1].second = Some(Second { fault, after_ns: 5 * MS, doer: 1 });
    let mut record = right();
    let judge = |record: &Record| judge(&facts(), &experiments, None, record, &sums());
    assert_eq!(
        judge(&record)[1].wrong,
        ["injected was [\"node 2\"], not [\"node 2\", \"link 2\"]"]
    );
    record.events.push(Event { what: "link 2".into(), ..event(NEXT + 6 * MS, 1, "fault") });
    assert_eq!(judge(&record)[1].wrong, [""; 0]);
    record.events.last_mut().unwrap().t_ns = NEXT + 200 * MS;
    assert_eq!(judge(&record)[1].wrong, ["the second fault came after 200000000 ns"]);
}

#[test]
fn who_is_lost_second_may_tell_of_the_first() {
    let mut experiments = experiments();
    let fault = Fault { kind: Kind::Node, is_link: false, place: 0 };
    experiments[1].second = Some(Second { fault, after_ns: 5 * MS, doer: 1 });
    experiments[1].lost = 0b0101;
    let told = |by| {
        let mut record = right();
        record.events.push(Event { lost: Some(0), ..event(NEXT + 8 * MS, 1, "cell-lost") });
        let loss = record.events.iter_mut().rfind(|event| event.lost == Some(2)).unwrap();
        loss.cell = by;
        record.events.sort_by_key(|event| event.t_ns);
        judge(&facts(), &experiments, None, &record, &sums())[1].wrong.clone()
    };
    let nobody = "nobody who lives says that cell 2 is lost".to_owned();
    assert!(!told(0).contains(&nobody), "it lived when it said so");
    assert!(told(2).contains(&nobody));
}

#[test]
fn a_run_that_ends_early_fails_in_the_experiment_in_which_it_does() {
    let hung = judged(|record| record.status = None);
    assert_eq!(hung[0].wrong, [""; 0]);
    assert_eq!(hung[1].wrong, ["the run hung, and was killed"]);
    let early = judged(|record| record.events.retain(|event| event.t_ns < NEXT));
    assert_eq!(early.len(), 1, "the other one was not reached");
    assert_eq!(early[0].wrong, ["the run ended before its script"]);
    let line = "run: script line 9: expect \"x\": nothing matched in 15 s";
    let failed = judged(|record| {
        record.status = Some(1);
        record.own.push(line.into());
    });
    assert_eq!(failed[1].wrong, ["the run's exit status is 1", line]);
}

#[test]
fn what_is_left_works_and_adds_up() {
    let found = wrong(|record| line_at(record, "late-3", AT).text = "hello?".into());
    assert_eq!(found, ["the new VM late-3 does not work"]);
    let found = wrong(|record| {
        let line = line_at(record, "monitor", AT);
        line.text = line.text.replace("VM 0", "VM 1");
    });
    assert!(found[0].starts_with("does not add up: all: free"), "{found:?}");
    let found = wrong(|record| {
        record.consoles.get_mut("monitor").unwrap().remove(3);
    });
    assert_eq!(found, ["2 of 3 living cells say that their memory is consistent"]);
    let found = wrong(|record| {
        let text = "VCPU a.0 was sent message 3 by cell 1 after 3: WRONG".into();
        record.consoles.get_mut("monitor").unwrap().push(Line { t_ns: AT + MS, text });
    });
    assert!(found[0].starts_with("the monitor says: VCPU a.0"), "{found:?}");
}

/// What is wrong when VM 5, which is to start elsewhere, runs in the cell that is lost, and starts again at such times in such cells.
fn elsewhere(again: &[(u64, i64)]) -> Vec<String> {
    elsewhere_after(experiments(), again, &[])
}

/// The same after these experiments, with further events.
fn elsewhere_after(
    experiments: Vec<Experiment>,
    again: &[(u64, i64)],
    events: &[Event],
) -> Vec<String> {
    let mut guests: Vec<_> = (0..4).map(|cell| workload::guest(vec![cell], false)).collect();
    guests.push(workload::guest(vec![0, 2], true));
    guests.push(workload::Guest { elsewhere: true, ..workload::guest(vec![0, 2], false) });
    let mut record = right();
    record.consoles.remove("irix-5");
    record.events.iter_mut().find(|event| event.vm == "irix-5").unwrap().cell = 2;
    let starts = again.iter().map(|(t_ns, cell)| of_vm(*t_ns, *cell, "vm-start", 5, ""));
    record.events.extend(starts);
    record.events.extend_from_slice(events);
    record.events.sort_by_key(|event| event.t_ns);
    let ends = again.iter().map(|(t_ns, _)| *t_ns).skip(1).chain([NEXT + 2000 * MS]);
    lives(&mut record, 5, 1, AT);
    for ((start, _), end) in again.iter().zip(ends) {
        lives(&mut record, 5, *start, end);
    }
    judge(&workload::facts_of(&guests), &experiments, None, &record, &sums())[0].wrong.clone()
}

#[test]
fn a_vm_that_is_to_start_elsewhere_does_so_once_and_at_once() {
    let (soon, late) = (AT + 3 * MS, AT + 600 * MS);
    assert_eq!(elsewhere(&[(soon, 0)]), [""; 0]);
    assert_eq!(
        elsewhere(&[(late, 0)]),
        ["VM irix-5 was not started elsewhere until its cell was back"]
    );
    assert_eq!(elsewhere(&[]), ["VM irix-5 was started again 0 times"]);
    let twice = elsewhere(&[(soon, 0), (late, 0)]);
    assert!(twice.contains(&"VM irix-5 was started again 2 times".into()), "{twice:?}");
    for cell in [1, 2] {
        let wrong = format!("VM irix-5 was started again in cell {cell}");
        assert_eq!(elsewhere(&[(soon, cell)]), [wrong], "it must not, or the cell is lost");
    }
}

#[test]
fn a_vm_may_start_elsewhere_where_a_second_fault_takes_it() {
    let mut experiments = experiments();
    let fault = Fault { kind: Kind::Node, is_link: false, place: 0 };
    experiments[0].second = Some(Second { fault, after_ns: 5 * MS, doer: 1 });
    experiments[0].lost = 0b0101;
    let events = [
        Event { what: "node 0".into(), ..event(AT + 5 * MS, 1, "fault") },
        Event { lost: Some(0), ..event(AT + 8 * MS, 1, "cell-lost") },
    ];
    let again = |first: u64| {
        let starts = [(AT + first * MS, 0), (AT + 600 * MS, 2)];
        let wrong = elsewhere_after(experiments.clone(), &starts, &events);
        wrong.contains(&"VM irix-5 was started again in cell 0".into())
    };
    assert!(!again(3), "the cell lived");
    assert!(again(9));
}
