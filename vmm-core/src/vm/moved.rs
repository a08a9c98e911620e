//! VCPUs saved and restored: nothing is lost, and nothing is believed.

use super::smp::{Random, changing_code, locks_and_tokens, made, place_function};
use super::tests::TestClock;
use super::*;
use crate::state::StateError;
use abi::PAGE_SIZE;
use alloc::vec::Vec;

fn saved(runner: &mut Runner) -> Vec<u64> {
    let mut words = Vec::new();
    runner.save(&mut words);
    words
}

fn restored(vm: &Vm<impl Sized>, number: u32, words: &[u64]) -> Result<Runner, StateError> {
    Runner::restore(vm, number, words, &mut |_| None)
}

/// Runs VCPUs of a VM in turns, each of them replaced by its restored self now and then if `moving`; all that they
/// and their memory come to.
fn course(seed: u64, moving: bool) -> Vec<u64> {
    let endian = if seed.is_multiple_of(2) { Endian::Little } else { Endian::Big };
    let program =
        if seed.is_multiple_of(3) { changing_code(3, 30, true) } else { locks_and_tokens(3, 30) };
    let (vm, mut runners) = made(endian, 3, &program);
    place_function(&vm, endian);
    let (clock, mut random) = (TestClock::default(), Random(seed));
    let mut out = Vec::new();
    while vm.ended().is_none() {
        let n = random.below(3) as usize;
        let slice = 1 + random.below(200);
        if random.below(4) == 0 && moving {
            let words = saved(&mut runners[n]);
            let mut other = restored(&vm, n as u32, &words).expect("it was saved");
            assert_eq!(saved(&mut other), words, "seed {seed}");
            runners[n] = other;
        }
        if let Exit::Ipi { to } = runners[n].run(&vm, &clock, slice) {
            runners[to as usize].interrupt();
        }
    }
    for runner in &mut runners {
        runner.save(&mut out);
    }
    let page = vm.memory().resolve(abi::Gpa(0x20_0000), crate::mem::Access::Read);
    let page = page.expect("in memory");
    out.extend((0..PAGE_SIZE).step_by(8).map(|at| page.load64(at)));
    out
}

#[test]
fn vcpus_that_move_do_what_others_do() {
    for seed in 0..30 {
        assert_eq!(course(seed, true), course(seed, false), "seed {seed}");
    }
}

#[test]
fn damaged_state_is_refused_or_harmless() {
    let (vm, mut runners) = made(Endian::Little, 3, &locks_and_tokens(3, 30));
    let clock = TestClock::default();
    let mut random = Random(1);
    runners[1].run(&vm, &clock, 500);
    // Something in the TLB.
    for index in 0..20 {
        let lo = [(index as u64) << 6 | 6, 0];
        let vpn = 0x4000_0000 + index as u64 * 0x2000;
        let (mask, asid) = (0, index as u8);
        let entry = crate::cpu::tlb::Entry { vpn, mask, asid, global: false, invalid: false, lo };
        runners[1].vcpu_mut().set_tlb(index * 7, entry);
    }
    let words = saved(&mut runners[1]);
    assert!(restored(&vm, 1, &words).is_ok());
    assert_eq!(restored(&vm, 0, &words).unwrap_err(), StateError::Other);
    assert!(matches!(restored(&vm, 3, &words), Err(StateError::Value(_))));
    for len in 0..words.len() {
        assert!(restored(&vm, 1, &words[..len]).is_err(), "{len} words");
    }
    let longer = [&words[..], &[0]].concat();
    assert_eq!(restored(&vm, 1, &longer).unwrap_err(), StateError::Long);
    let (mut refused, mut taken) = (0, 0);
    for _ in 0..1500 {
        let mut damaged = words.clone();
        for _ in 0..1 + random.below(3) {
            let at = random.below(damaged.len() as u64) as usize;
            damaged[at] = match random.below(3) {
                0 => damaged[at] ^ 1 << random.below(64),
                1 => random.below(u64::MAX),
                _ => random.below(4) << random.below(62),
            };
        }
        match restored(&vm, 1, &damaged) {
            Err(_) => refused += 1,
            Ok(mut runner) => {
                taken += 1;
                // In a VM of its own: what it does there is nobody's affair.
                let (vm, _) = made(Endian::Little, 3, &locks_and_tokens(3, 30));
                for _ in 0..20 {
                    runner.run(&vm, &clock, 50);
                }
                let _ = runner.report(&vm);
            }
        }
    }
    assert!(refused > 300 && taken > 300, "{refused} refused, {taken} taken");
}
