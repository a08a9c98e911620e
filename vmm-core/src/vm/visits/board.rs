//! The board, as VCPUs have it that visit.

use super::*;
use crate::vm::smp::{LEFT, T0, T1, T2, mtc0};
use crate::vm::tests::calibration;

/// The register that has the I/O window's address, and the bridge's.
const IO: u32 = 22;
const GT: u32 = 23;
const LBU: u32 = 0x24;
const SB: u32 = 0x28;
const LW: u32 = 0x23;

impl Program {
    /// Writes ports.
    fn ports(&mut self, values: &[(i32, i32)]) -> &mut Self {
        for &(port, value) in values {
            self.add(&[ori(T0, 0, value), i(SB, T0, IO, port)]);
        }
        self
    }

    /// Both interrupt controllers with these lines masked, and the CPU's line unmasked.
    fn interrupts(&mut self, masks: [i32; 2]) -> &mut Self {
        self.begin().add(&[i(0x0f, IO, 0, 0xb800), i(0x0f, GT, 0, 0xbbe0)]);
        self.ports(&[(0x20, 0x11), (0x21, 0), (0x21, 4), (0x21, 1), (0x21, masks[0])]);
        self.ports(&[(0xa0, 0x11), (0xa1, 8), (0xa1, 2), (0xa1, 1), (0xa1, masks[1])]);
        self.add(&[i(0x0f, T0, 0, 0x40), ori(T0, T0, 0x400), mtc0(T0, 12)])
    }
}

/// The RTC's periodic interrupt, so many times; then a reset.
fn ticks(count: i32) -> Program {
    let mut p = Program::default();
    p.interrupts([0xfb, 0xfe]).add(&[addiu(LEFT, 0, count)]);
    // 1,024 Hz, periodic interrupts, 24 hours.
    p.ports(&[(0x70, 0x0a), (0x71, 0x26), (0x70, 0x0b), (0x71, 0x42)]);
    let tick = p.here();
    p.add(&[WAIT, i(LW, T1, GT, 0xc34)]);
    p.ports(&[(0x70, 0x0c)]).add(&[i(LBU, T1, IO, 0x71)]);
    p.ports(&[(0xa0, 0x20), (0x20, 0x20)]);
    p.add(&[addiu(LEFT, LEFT, -1)]).back(tick, LEFT, false);
    p.finish();
    p
}

/// Echoes what it gets by interrupt, for ever.
fn echo() -> Program {
    let mut p = Program::default();
    p.interrupts([0xef, 0xff]).ports(&[(0x3fa, 0x81), (0x3f9, 1)]);
    let turn = p.here();
    p.add(&[WAIT, i(LW, T1, GT, 0xc34)]);
    p.add(&[i(LBU, T1, IO, 0x3fd), i(0x0c, T1, T1, 1), beq(T1, 0, 4), NOP]);
    p.add(&[i(LBU, T2, IO, 0x3f8), beq(0, 0, -6), i(SB, T2, IO, 0x3f8)]);
    p.ports(&[(0x20, 0x20)]).back(turn, 0, true);
    p
}

/// Runs VCPU 0, the only one, in slices, moving it by chance, until the VM ends; time goes on while it waits.
/// Everything that it comes to.
fn alone(code: &[u32], places: usize, seed: u64) -> (Vec<u64>, u64) {
    let mut cells = Cells::new(vm_of(params(Endian::Little), code), places);
    let (clock, mut random, mut moves) = (TestClock::default(), Random(seed), Random(!seed));
    while cells.vms[0].ended().is_none() {
        if places > 0 && moves.below(2) == 0 {
            cells.move_to(0, moves.below(places as u64 + 1) as usize);
        }
        let slice = 1 + random.below(300);
        if let Exit::Idle { until } = cells.run(0, &clock, slice) {
            let until = until.expect("something comes");
            clock.jump_to(until, cells.runners[0].retired());
        }
        assert!(cells.runners[0].retired() < 200_000, "it gets nowhere (seed {seed})");
    }
    cells.move_to(0, 0);
    let mut words = Vec::from([cells.vms[0].warped()]);
    cells.runners[0].save(&mut words);
    (words, cells.line.calls.load(Ordering::SeqCst))
}

#[test]
fn a_clock_ticks_wherever_vcpu_0_is() {
    let mut called = 0;
    for seed in 0..20 {
        let program = ticks(40);
        let (stayed, none) = alone(&program.0, 0, seed);
        let (visited, calls) = alone(&program.0, 2, seed);
        assert!(none == 0 && stayed == visited, "seed {seed}");
        called += calls;
    }
    assert!(called > 2000, "{called} calls");
}

#[test]
fn a_warp_is_one_wherever_it_is_asked_for() {
    let mut called = 0;
    for seed in 0..30 {
        let (stayed, _) = alone(&calibration(), 0, seed);
        let (visited, calls) = alone(&calibration(), 2, seed);
        assert!(stayed[0] > 1_000_000_000, "it is warped");
        assert!(stayed == visited, "seed {seed}");
        called += calls;
    }
    assert!(called > 1000, "{called} calls");
}

#[test]
fn a_warp_is_one_for_all_vcpus() {
    // VCPU 0 calibrates; VCPU 1 reads Count for ever.
    let mut p = Program::default();
    p.begin();
    p.if_equal(ME, 0, |p| {
        let code = calibration();
        // But for the reset at its end.
        p.add(&code[..code.len() - 3]).hang();
    });
    let start = p.here();
    p.add(&[mfc0(V0, 9, 0)]).back(start, 0, true);
    for places in [[0, 1], [1, 0], [1, 1], [1, 2]] {
        let mut cells = Cells::new(made(Endian::Little, 2, &p), 2);
        let clock = TestClock::default();
        for (n, place) in places.into_iter().enumerate() {
            cells.move_to(n, place);
        }
        let mut last = 0;
        for _ in 0..100 {
            cells.run(0, &clock, 50);
            cells.run(1, &clock, 50);
            let count = cells.runners[1].vcpu().gpr(V0 as usize);
            assert!(count >= last, "its time goes on");
            last = count;
            let warped = cells.vms[0].warped();
            assert!(cells.vms.iter().all(|vm| vm.warped() == warped), "nobody is behind, or ahead");
        }
        assert!(last > 160_000_000, "{last}: more than a second, at {places:?}");
    }
}

#[test]
fn input_finds_vcpu_0_and_output_comes_home() {
    for seed in 0..30 {
        let mut cells = Cells::new(vm_of(params(Endian::Little), &echo().0), 2);
        let (clock, mut random) = (TestClock::default(), Random(seed));
        let (mut typed, mut idle) = (Vec::new(), 0);
        assert_eq!(cells.run(0, &clock, 1000), Exit::Idle { until: None });
        for byte in 0..200u8 {
            cells.move_to(0, random.below(3) as usize);
            assert_eq!(cells.vms[0].input(&[byte]), 1);
            assert_eq!(cells.vms[2].input(&[byte]), 0, "the board is not there");
            cells.look();
            typed.push(byte);
            // Until nothing will ever happen again.
            while random.below(3) != 0 {
                match cells.run(0, &clock, 1 + random.below(100)) {
                    Exit::Limit => {}
                    Exit::Idle { until: Some(until) } => {
                        clock.jump_to(until, cells.runners[0].retired());
                    }
                    Exit::Idle { until: None } => idle += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
        loop {
            match cells.run(0, &clock, 100) {
                Exit::Idle { until: Some(until) } => {
                    clock.jump_to(until, cells.runners[0].retired());
                }
                Exit::Idle { until: None } => break,
                _ => {}
            }
        }
        assert!(idle > 0);
        assert_eq!(*cells.line.printed.lock().unwrap(), typed, "seed {seed}");
    }
}

#[test]
fn vcpu_0_asks_home_only_when_it_has_to() {
    let mut cells = Cells::new(vm_of(params(Endian::Little), &echo().0), 1);
    let clock = TestClock::default();
    let calls = |cells: &Cells| cells.line.calls.load(Ordering::SeqCst);
    cells.move_to(0, 1);
    assert_eq!(cells.run(0, &clock, 1000), Exit::Idle { until: None });
    let before = calls(&cells);
    for _ in 0..10 {
        assert_eq!(cells.run(0, &clock, 1000), Exit::Idle { until: None });
    }
    assert_eq!(calls(&cells), before, "nothing can have changed");
    cells.vms[0].input(b"x");
    assert_eq!(cells.run(0, &clock, 1000), Exit::Idle { until: None });
    assert_eq!(calls(&cells), before, "it has not been told");
    cells.look();
    assert!(matches!(cells.run(0, &clock, 1000), Exit::Idle { until: Some(_) }));
    assert!(calls(&cells) > before);
}

#[test]
fn whoever_touches_the_board_has_vcpu_0_look() {
    // VCPU 1 enables the UART's interrupt and disables it; VCPU 0 waits for it, then hangs.
    let mut p = Program::default();
    p.interrupts([0xef, 0xff]);
    p.if_equal(ME, 0, |p| {
        p.add(&[WAIT]).hang();
    });
    p.ports(&[(0x3f9, 2), (0x21, 0xff)]).hang();
    for (zero, one) in [(0, 1), (1, 0), (1, 1), (1, 2), (0, 0)] {
        let mut cells = Cells::new(made(Endian::Little, 2, &p), 2);
        let clock = TestClock::default();
        cells.move_to(0, zero);
        cells.move_to(1, one);
        assert_eq!(cells.run(0, &clock, 200), Exit::Idle { until: None });
        let pin = |cells: &Cells| cells.runners[0].vcpu().cp0().cause.bits() & 0x400 != 0;
        let mut seen = Vec::new();
        for _ in 0..200 {
            // As an owner does who runs VCPU 0 only when it does not wait.
            let waited = cells.waits[0];
            let exit = cells.run(1, &clock, 1);
            assert!(matches!(exit, Exit::Limit | Exit::Board), "{exit:?}");
            if !cells.waits[0] {
                cells.run(0, &clock, 2);
            }
            seen.push((waited, pin(&cells)));
        }
        let changes = seen.windows(2).filter(|pair| pair[0].1 != pair[1].1).count();
        assert_eq!(changes, 2, "the pin rises and falls, with VCPUs at {zero} and {one}");
        let first = seen.iter().position(|(_, pin)| *pin).expect("it rises");
        assert!(seen[..=first].iter().all(|(waited, _)| *waited), "it was woken by that");
    }
}

#[test]
fn where_home_is_gone_there_are_bus_errors_and_no_interrupts() {
    let dbe = |cells: &Cells, n: usize| cells.runners[n].vcpu().cp0().cause.exc_code();
    let load = [i(0x0f, T0, 0, 0xb800), i(LBU, T0, T0, 0x3fd), NOP];
    let store = [i(0x0f, T0, 0, 0xb800), i(SB, T0, T0, 0x3fd), NOP];
    for code in [load, store] {
        let mut cells = Cells::new(vm_of(params(Endian::Little), &code), 1);
        cells.move_to(0, 1);
        cells.line.gone.store(true, Ordering::SeqCst);
        cells.runners[0].run(&cells.vms[1], &TestClock::default(), 2);
        assert_eq!(dbe(&cells, 0), 7, "a bus error");
    }
    let mut cells = Cells::new(vm_of(params(Endian::Little), &echo().0), 1);
    let clock = TestClock::default();
    cells.run(0, &clock, 1000);
    cells.vms[0].input(b"x");
    cells.move_to(0, 1);
    cells.line.gone.store(true, Ordering::SeqCst);
    cells.look();
    assert_eq!(cells.run(0, &clock, 1000), Exit::Idle { until: None });
}

#[test]
fn time_does_not_go_back_where_nobody_has_told_of_a_warp() {
    let mut p = Program::default();
    let code = calibration();
    p.add(&code[..code.len() - 3]);
    let start = p.here();
    p.add(&[mfc0(V0, 9, 0)]).back(start, 0, true);
    let mut cells = Cells::new(vm_of(params(Endian::Little), &p.0), 1);
    let clock = TestClock::default();
    cells.runners[0].run(&cells.vms[0], &clock, 5000);
    let count = cells.runners[0].vcpu().gpr(V0 as usize);
    assert!(count > 160_000_000 && cells.vms[1].warped() == 0);
    cells.move_to(0, 1);
    cells.runners[0].run(&cells.vms[1], &clock, 10);
    assert!(cells.runners[0].vcpu().gpr(V0 as usize) > count);
}
