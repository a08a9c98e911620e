use super::*;
use alloc::collections::BTreeMap;

const CPU: CpuId = CpuId(0);

const fn who(vm: u16, index: u32) -> VcpuId {
    VcpuId { vm: VmId(vm), index }
}

const fn first(vm: u16) -> VcpuId {
    who(vm, 0)
}

/// So many CPUs, two a node, and a VM of one VCPU for each weight.
fn scheduler(cpus: u8, seed: u64, weights: &[u32]) -> Scheduler {
    let cpus: Vec<(CpuId, NodeId)> = (0..cpus).map(|i| (CpuId(i), NodeId(i / 2))).collect();
    let mut s = Scheduler::new(&cpus, Rng::new(seed));
    for (i, &w) in weights.iter().enumerate() {
        s.add(VmId(i as u16), 1, w, 0);
    }
    s
}

/// Whatever the weights, busy VMs share a CPU by them at every moment.
#[test]
fn busy_vms_get_their_shares() {
    let mut rng = Rng::new(11);
    for case in 0..60 {
        let weights: Vec<u32> = (0..=rng.below(5)).map(|_| 1 + rng.below(400) as u32).collect();
        let mut s = scheduler(1, case, &weights);
        let mut ran = alloc::vec![0u64; weights.len()];
        let mut now = 0;
        for _ in 0..3000 {
            let Pick::Run { who, until } = s.pick(CPU, now) else { panic!("all are busy") };
            // A VM may leave a little before its slice ends, or overrun it.
            let used = until - now + rng.below(1000);
            ran[usize::from(who.vm.0)] += used;
            s.ran(CPU, who, now, now + used, true);
            now += used;
            let longest = SLICE_NS + JITTER_NS + 1000;
            for (a, wa) in ran.iter().zip(&weights) {
                for (b, wb) in ran.iter().zip(&weights) {
                    let ahead = *a as f64 / f64::from(*wa) - *b as f64 / f64::from(*wb);
                    let bound = longest as f64 / f64::from(*wa.min(wb));
                    assert!(ahead <= 1.01 * bound, "case {case}: {ran:?} of {weights:?}");
                }
            }
        }
    }
}

/// One that mostly waits runs as soon as it wakes, and never gets more than its share by it.
#[test]
fn who_wakes_runs_next_and_saves_nothing_up() {
    let mut s = scheduler(1, 5, &[100, 100]);
    s.wait(first(1), Some(900_000_000), 0);
    let mut now = 0;
    while now < 900_000_000 {
        let Pick::Run { who, until } = s.pick(CPU, now) else { panic!("0 is busy") };
        assert_eq!(who, first(0), "only 0 is busy");
        assert!(until <= 900_000_000 + SHORTEST_NS, "the slice is cut for who wakes");
        s.ran(CPU, who, now, until, true);
        now = until;
    }
    let mut turns = [0, 0];
    for _ in 0..100 {
        let Pick::Run { who, until } = s.pick(CPU, now) else { panic!("both are busy") };
        turns[usize::from(who.vm.0)] += 1;
        assert!(turns != [1, 0], "who wakes is first");
        s.ran(CPU, who, now, until, true);
        now = until;
    }
    assert!(turns[0] >= 45 && turns[1] >= 45, "{turns:?}");
}

#[test]
fn waiting_costs_no_cpu_and_says_when_it_ends() {
    let mut s = scheduler(1, 5, &[1, 1, 1]);
    for (vm, until) in [(0, Some(50)), (1, None), (2, Some(40))] {
        s.wait(first(vm), until, 0);
    }
    assert_eq!(s.pick(CPU, 10), Pick::Nothing { until: Some(40) });
    s.wake(first(1), 10);
    assert!(s.take_kicks().eq([CPU]));
    assert!(matches!(s.pick(CPU, 10), Pick::Run { who: VcpuId { vm: VmId(1), .. }, .. }));
    s.ran(CPU, first(1), 10, 20, false);
    s.remove(VmId(1));
    assert!(matches!(s.pick(CPU, 40), Pick::Run { who: VcpuId { vm: VmId(2), .. }, .. }));
    s.ran(CPU, first(2), 40, 45, false);
    s.remove(VmId(2));
    assert_eq!(s.pick(CPU, 49), Pick::Nothing { until: Some(50) });
    s.wait(first(0), None, 49);
    assert_eq!(s.pick(CPU, 60), Pick::Nothing { until: None });
    assert_eq!(s.take_kicks().count(), 0);
}

/// A slice survives short interruptions, but not somebody who has waked meanwhile.
#[test]
fn who_comes_back_early_goes_on() {
    let mut s = scheduler(1, 5, &[100, 100]);
    let Pick::Run { who: a, until } = s.pick(CPU, 0) else { panic!("both are busy") };
    for now in [0, 300_000, 600_000, 900_000] {
        s.ran(CPU, a, now, now + 100_000, false);
        // The time between does not count.
        let again = Pick::Run { who: a, until: until + (now / 300_000 + 1) * 200_000 };
        assert_eq!(s.pick(CPU, now + 300_000), again);
    }
    s.ran(CPU, a, 1_200_000, 2_200_000, false);
    let b = first(1 - a.vm.0);
    s.wait(b, None, 2_200_000);
    s.wake(b, 2_200_000);
    let Pick::Run { who, .. } = s.pick(CPU, 2_200_000) else { panic!("both are busy") };
    assert_eq!(who, b);
}

#[test]
fn a_seed_decides_all() {
    let run = |seed| {
        let mut s = scheduler(1, seed, &[1, 1, 1]);
        let mut now = 0;
        let mut picks = Vec::new();
        for _ in 0..50 {
            let Pick::Run { who, until } = s.pick(CPU, now) else { panic!("all are busy") };
            s.ran(CPU, who, now, until, true);
            now = until;
            picks.push((who, until));
        }
        picks
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

/// Runs busy VCPUs on all CPUs until `end`; what each has run.
fn run(s: &mut Scheduler, begin: u64, end: u64) -> BTreeMap<VcpuId, u64> {
    let cpus: Vec<CpuId> = s.cpus().map(|(cpu, _)| cpu).collect();
    let mut free: Vec<u64> = cpus.iter().map(|_| begin).collect();
    let mut on: Vec<Option<(VcpuId, u64)>> = cpus.iter().map(|_| None).collect();
    let mut ran = BTreeMap::new();
    loop {
        let next = (0..cpus.len()).min_by_key(|&i| free[i]).expect("a CPU");
        let now = free[next];
        if now >= end {
            break;
        }
        if let Some((who, from)) = on[next].take() {
            *ran.entry(who).or_default() += now - from;
            s.ran(cpus[next], who, from, now, true);
        }
        match s.pick(cpus[next], now) {
            Pick::Run { who, until } => {
                assert!(on.iter().flatten().all(|&(other, _)| other != who), "in two places");
                on[next] = Some((who, now));
                free[next] = until;
            }
            Pick::Nothing { until } => free[next] = until.unwrap_or(end),
        }
        for cpu in s.take_kicks() {
            let at = cpu.0 as usize;
            free[at] = free[at].min(now);
        }
    }
    for (i, turn) in on.into_iter().enumerate() {
        if let Some((who, from)) = turn {
            *ran.entry(who).or_default() += end.saturating_sub(from);
            s.ran(cpus[i], who, from, end, true);
        }
    }
    ran
}

const SECOND: u64 = 1_000_000_000;

/// The time that each VM has run, which is to be its share within 2 %.
fn shares(ran: &BTreeMap<VcpuId, u64>, vms: usize) -> Vec<u64> {
    let mut sums = alloc::vec![0; vms];
    for (who, ns) in ran {
        sums[usize::from(who.vm.0)] += ns;
    }
    sums
}

fn assert_within_2_percent(got: &[u64], wanted: &[f64], what: &str) {
    for (i, (&got, &wanted)) in got.iter().zip(wanted).enumerate() {
        let off = (got as f64 - wanted).abs() / wanted;
        assert!(off < 0.02, "{what}: VM {i} got {got} instead of {wanted}: {off:.3}");
    }
}

/// Whatever the numbers of CPUs and VMs, those of equal weight get equal time, and no CPU idles.
#[test]
fn equal_vms_get_equal_time_on_any_number_of_cpus() {
    for cpus in [1u8, 2, 3, 4, 8, 16] {
        for vms in [cpus + 1, 2 * cpus - 1, 2 * cpus, 2 * cpus + 1, 3 * cpus] {
            let mut s = scheduler(cpus, u64::from(vms), &alloc::vec![100; vms.into()]);
            let got = shares(&run(&mut s, 0, 10 * SECOND), vms.into());
            let wanted = 10e9 * f64::from(cpus) / f64::from(vms);
            let wanted = alloc::vec![wanted; vms.into()];
            assert_within_2_percent(&got, &wanted, &alloc::format!("{vms} on {cpus}"));
            let all: u64 = got.iter().sum();
            assert!(
                all > u64::from(cpus) * (10 * SECOND - SLICE_NS),
                "{cpus} CPUs were used {all}"
            );
        }
    }
}

/// VMs with these VCPUs and weights.
fn of(cpus: u8, vms: &[(u32, u32)]) -> Scheduler {
    let mut s = scheduler(cpus, 3, &[]);
    for (i, &(vcpus, weight)) in vms.iter().enumerate() {
        s.add(VmId(i as u16), vcpus, weight, 0);
    }
    s
}

/// A VM's weight counts for all its VCPUs together.
#[test]
fn vms_get_their_shares_however_many_vcpus_they_have() {
    for (cpus, vms, wanted) in [
        (2u8, &[(1, 100), (2, 100), (4, 100)][..], &[2.0, 2.0, 2.0][..]),
        (4, &[(2, 100), (4, 100), (4, 200), (4, 400)], &[1.0, 1.0, 2.0, 4.0]),
        (4, &[(4, 100), (4, 100)], &[1.0, 1.0]),
        (8, &[(4, 100), (4, 100), (4, 100), (4, 100)], &[1.0, 1.0, 1.0, 1.0]),
        (3, &[(3, 300), (3, 100), (1, 100)], &[3.0, 1.0, 1.0]),
        // One VCPU can't use more than one CPU: the others share the rest.
        (2, &[(1, 10_000), (1, 100), (1, 100)], &[2.0, 1.0, 1.0]),
    ] {
        let mut s = of(cpus, vms);
        let got = shares(&run(&mut s, 0, 10 * SECOND), vms.len());
        let all: f64 = wanted.iter().sum();
        let wanted: Vec<f64> = wanted.iter().map(|w| 10e9 * f64::from(cpus) * w / all).collect();
        assert_within_2_percent(&got, &wanted, &alloc::format!("{vms:?} on {cpus}"));
    }
}

/// A pinned VCPU stays, though it gets less; the others move around it; nobody starves when it is let go.
#[test]
fn pinned_vcpus_stay_and_keep_nobody_waiting() {
    let mut s = scheduler(2, 9, &[100; 4]);
    for vm in 0..3 {
        s.migrate(first(vm), CPU, true, 0).unwrap();
    }
    let got = shares(&run(&mut s, 0, 10 * SECOND), 4);
    assert_within_2_percent(&got, &[3.333e9, 3.333e9, 3.333e9, 10e9], "three on one");
    assert_eq!(s.migrate(first(0), CpuId(1), false, 10 * SECOND), Err(Immovable::Pinned));
    for vm in 0..3 {
        assert!(s.unpin(first(vm)));
        assert_eq!(s.standing(first(vm), 0).unwrap().cpu, CPU);
    }
    // What was not had is not made up for, but for a little.
    let got = shares(&run(&mut s, 10 * SECOND, 20 * SECOND), 4);
    assert_within_2_percent(&got, &[5e9; 4], "four on two");
}

/// Whatever a queue's passes, who comes new into it runs soon, and takes no more than its share.
#[test]
fn who_comes_new_neither_waits_nor_takes_over() {
    // One that runs unopposed for long, at a share that it can't use; then another.
    let mut s = of(2, &[(1, 10_000), (1, 1)]);
    run(&mut s, 0, 100 * SECOND);
    s.add(VmId(2), 1, 10_000, 100 * SECOND);
    s.add(VmId(3), 1, 10_000, 100 * SECOND);
    let got = run(&mut s, 100 * SECOND, 101 * SECOND);
    for vm in [0, 2, 3] {
        let ran = got.get(&first(vm)).copied().unwrap_or(0);
        assert!(ran.abs_diff(666_666_666) < 80_000_000, "{vm}: {got:?}");
    }
}

/// Every nanosecond of a VCPU's life is accounted once.
#[test]
fn times_add_up() {
    let mut s = scheduler(2, 1, &[100; 5]);
    s.wait(first(4), Some(3 * SECOND), 0);
    s.park(VmId(3), true, SECOND);
    let ran = run(&mut s, 0, 2 * SECOND);
    s.park(VmId(3), false, 2 * SECOND);
    let more = run(&mut s, 2 * SECOND, 5 * SECOND);
    for vm in 0..5 {
        let times = s.standing(first(vm), 5 * SECOND).unwrap().times;
        let all = times.run + times.steal + times.idle + times.paused;
        assert_eq!(all, 5 * SECOND, "{vm}: {times:?}");
        let sum = |a: &BTreeMap<VcpuId, u64>| a.get(&first(vm)).copied().unwrap_or(0);
        assert_eq!(times.run, sum(&ran) + sum(&more));
    }
    let times = |vm| s.standing(first(vm), 5 * SECOND).unwrap().times;
    assert_eq!((times(3).paused, times(4).idle), (SECOND, 3 * SECOND));
    assert!(times(0).steal > SECOND && times(0).migrations > 0);
}

/// A wake-up that comes while a VCPU runs is not lost when it says that it waits.
#[test]
fn a_wake_up_during_a_turn_is_kept() {
    let mut s = scheduler(2, 1, &[100]);
    let cpu = s.standing(first(0), 0).unwrap().cpu;
    let Pick::Run { who, .. } = s.pick(cpu, 0) else { panic!("it is ready") };
    s.wake(who, 10);
    s.wake(who, 20);
    assert!(s.take_kicks().eq([cpu]), "kicked once");
    s.ran(cpu, who, 0, 30, false);
    s.wait(who, None, 30);
    assert!(matches!(s.pick(cpu, 30), Pick::Run { .. }));
    s.ran(cpu, who, 30, 40, false);
    s.wait(who, None, 40);
    assert_eq!(s.pick(cpu, 40), Pick::Nothing { until: None });
}
