//! The end of a VM, when a visiting VCPU comes to it.

use super::*;
use crate::vm::smp::{DEVICES, T0, T1};

const SW: u32 = 0x2b;
const BREAK: u32 = 0x0d;

fn finishing(p: &mut Program) -> &mut Program {
    p.begin().add(&[NOP, NOP]).finish().hang()
}

/// Configures the power management's ports, and switches off through them.
fn switching_off() -> Program {
    let mut p = Program::default();
    p.begin().add(&[i(0x0f, DEVICES, 0, 0xbbe0)]);
    for (register, value) in [(0x40, 0x1001), (0x80, 1)] {
        p.add(&[i(0x0f, T0, 0, 0x8000), ori(T0, T0, 10 << 11 | 3 << 8 | register)]);
        p.add(&[i(SW, T0, DEVICES, 0xcf8), ori(T1, 0, value), i(SW, T1, DEVICES, 0xcfc)]);
    }
    p.add(&[i(0x0f, T0, 0, 0xb800), ori(T1, 0, 0x2000), i(0x29, T1, T0, 0x1004)]).hang();
    p
}

#[test]
fn what_ends_the_vm_ends_it_at_home() {
    let mut reset = Program::default();
    finishing(&mut reset);
    let mut broken = Program::default();
    broken.add(&[NOP, BREAK]);
    let mut endless = Program::default();
    endless.hang();
    for (program, end, budget) in [
        (reset, Exit::Reset, 0),
        (switching_off(), Exit::PowerOff, 0),
        (broken, Exit::UnreachableVector, 0),
        (endless, Exit::Budget, 12_345),
    ] {
        let run = |place| {
            let params = VmParams { vcpus: 2, budget, ..params(Endian::Little) };
            let mut cells = Cells::new(vm_of(params, &program.0), 2);
            let clock = TestClock::default();
            cells.move_to(1, place);
            while cells.vms[0].ended().is_none() {
                if place > 0 {
                    // Run there again, it comes to the same again.
                    let vm = &cells.vms[cells.at[1]];
                    let mut exit = cells.runners[1].run(vm, &clock, 1000);
                    if exit == Exit::Home {
                        exit = cells.runners[1].run(vm, &clock, 1000);
                        assert_eq!((exit, vm.ended()), (Exit::Home, None));
                        assert_eq!(cells.vms[0].ended(), None, "{end:?} is not for it to say");
                        assert_eq!(cells.run(1, &clock, 1000), end);
                    } else {
                        assert_eq!(exit, Exit::Limit);
                    }
                } else {
                    cells.run(1, &clock, 1000);
                }
            }
            assert_eq!(cells.vms[0].ended(), Some(end));
            let report = cells.runners[1].report(&cells.vms[0]).to_string();
            assert_eq!(cells.run(0, &clock, 1000), end, "for all");
            (report, cells.runners[1].retired())
        };
        let stayed = run(0);
        assert_eq!(run(1), stayed);
        assert_eq!(run(2), stayed);
        assert!(budget == 0 || stayed.1 == budget, "the budget is exact");
    }
}

#[test]
fn what_was_spent_abroad_counts_at_home() {
    let mut endless = Program::default();
    endless.hang();
    let params = VmParams { vcpus: 3, budget: 100_000, ..params(Endian::Little) };
    let mut cells = Cells::new(vm_of(params, &endless.0), 2);
    let (clock, mut random) = (TestClock::default(), Random(1));
    // Everybody is home again before the budget is used up: it is exact.
    for round in 0..90 {
        let n = round % 3;
        cells.move_to(n, random.below(3) as usize);
        assert_eq!(cells.run(n, &clock, 1000), Exit::Limit);
    }
    (0..3).for_each(|n| cells.move_to(n, 0));
    while cells.vms[0].ended().is_none() {
        cells.run(0, &clock, 1000);
    }
    assert_eq!(cells.vms[0].ended(), Some(Exit::Budget));
    assert_eq!(cells.runners.iter().map(Runner::retired).sum::<u64>(), 100_000);
}
