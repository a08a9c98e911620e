//! Visiting VCPUs that run directly, on a CPU of each place.

use super::*;
use crate::direct::tests::MARGIN;
use crate::direct::tests::fake::{Fake, Steps};
use crate::interp::tests::machine::asm::{ERET, dmtc0};
use crate::time::Clock;
use crate::vm::smp::{DATA, DEVICES, LEFT, LL, LLD, LW, SC, SCD, STEP, SW, T0, T1, WORD, mtc0};
use abi::ipi;

const TLBWI: u32 = 0x4200_0002;
/// An offset of data.
const DOUBLE: i32 = 0xc0;
/// Where user mode has its code, data, and the board's own registers.
const PLACES: [(i32, i32); 3] =
    [(0x10_0000, 0x10_0000), (0x20_0000, 0x20_0000), (0x40_0000, 0x1f00_0000)];
const ROUNDS: i32 = 60;

/// Maps memory and devices and goes to user mode, where each of `vcpus` counts; the first resets when all have.
fn counting_in_user_mode(vcpus: u32) -> Program {
    let mut p = Program::default();
    let load = |value: i32| [i(0x0f, T0, 0, value >> 16), ori(T0, T0, value & 0xffff)];
    p.begin().add(&[mtc0(0, 5)]);
    for (index, (va, gpa)) in PLACES.into_iter().enumerate() {
        p.add(&load(va | 1)).add(&[dmtc0(T0, 10, 0)]);
        for (half, register) in [(0, 2), (0x1000, 3)] {
            // Cached, dirty, valid.
            p.add(&load((gpa + half) >> 6 | 3 << 3 | 6)).add(&[dmtc0(T0, register, 0)]);
        }
        p.add(&[addiu(T0, 0, index as i32), mtc0(T0, 0), TLBWI]);
    }
    p.add(&[i(0x0f, DATA, 0, 0x20), i(0x0f, DEVICES, 0, 0x40)]);
    let to_user = p.0.len();
    // Boot vectors, 64-bit user mode, out of an exception.
    p.add(&load(0)).add(&[dmtc0(T0, 14, 0)]).add(&load(0x40_0032)).add(&[mtc0(T0, 12), ERET]);
    let start = load(0x10_0000 + p.here() * 4);
    p.0[to_user..to_user + 2].copy_from_slice(&start);
    p.add(&[addiu(LEFT, 0, ROUNDS), addiu(STEP, 0, 1)]);
    let round = p.here();
    p.atomic_add(LL, SC, WORD, STEP).atomic_add(LLD, SCD, DOUBLE, STEP);
    p.add(&[i(LW, T0, DEVICES, 0)]);
    p.if_equal(ME, 0, |p| {
        p.add(&[addiu(T1, 0, 1), i(SW, T1, DEVICES, 0xb00 + ipi::RAISE as i32)]);
    });
    p.add(&[addiu(LEFT, LEFT, -1)]).back(round, LEFT, false);
    p.atomic_add(LL, SC, SEEN, STEP);
    let wait = p.here();
    p.add(&[i(LW, T0, DATA, SEEN), addiu(T0, T0, -(vcpus as i32))]).back(wait, T0, false);
    p.if_equal(ME, 0, |p| {
        p.finish();
    });
    p.hang();
    p
}

#[test]
fn what_runs_directly_runs_so_wherever_it_is() {
    let (mut moved, mut entries) = (0, 0);
    for seed in 0..24 {
        let vcpus = [2, 4][seed as usize % 2];
        let endian = if seed % 4 < 2 { Endian::Little } else { Endian::Big };
        let places = seed as usize % 3;
        let mut cells = Cells::new(made(endian, vcpus, &counting_in_user_mode(vcpus)), places);
        let (memory, steps) = (cells.vms[0].memory().clone(), Steps::default());
        let mut cpus: Vec<_> = (0..=places).map(|_| Fake::new(endian, &memory, &steps)).collect();
        let mut random = Random(seed);
        while cells.vms[0].ended().is_none() {
            let n = random.below(vcpus.into()) as usize;
            if random.below(4) == 0 {
                cells.move_to(n, random.below(places as u64 + 1) as usize);
            }
            let (runner, place) = (&mut cells.runners[n], cells.at[n]);
            let cpu = &mut cpus[place];
            cpu.limit = steps.now(runner.retired()) + 10 + random.below(400);
            let until = cpu.limit - MARGIN;
            let exit = runner.run_on(&cells.vms[place], cpu, &steps, 60, until);
            assert!(matches!(exit, Exit::Limit | Exit::Ipi { to: 1 } | Exit::Home | Exit::Reset));
            cells.heed(n, exit);
            assert!(steps.0.get() < 2_000_000, "it gets nowhere (seed {seed})");
        }
        assert_eq!(cells.vms[0].ended(), Some(Exit::Reset));
        let total = u64::from(vcpus) * ROUNDS as u64;
        assert_eq!(word(&cells.vms[0], WORD, endian), total, "seed {seed}");
        moved += cells.moves;
        let direct = cells.runners.iter().filter_map(Runner::direct_counters);
        entries += direct.map(|counters| counters.entries).sum::<u64>();
    }
    assert!(moved > 500 && entries > 5000, "{moved} moves, {entries} entries");
}
