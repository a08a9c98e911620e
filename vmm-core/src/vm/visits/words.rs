//! Words that are no calls, answers, VMs or VCPUs.

use super::*;
use crate::board::Request;
use crate::bus::BusError;
use crate::state::StateError;
use crate::vm::away::{ANSWER_WORDS, Act, CALL_WORDS};

#[test]
fn calls_and_answers_are_what_they_were() {
    let (gpa, now, warped) = (Gpa(0x1fff_ffff_ffff), 77, 70);
    for act in [Act::Read { gpa, size: 8 }, Act::Write { gpa, size: 1, value: u64::MAX }, Act::Look]
    {
        let call = Call { by: 15, act, now, warped };
        assert_eq!(Call::decode(&call.encode()), Some(call));
    }
    let requests = [
        None,
        Some(Request::PowerOff),
        Some(Request::Reset),
        Some(Request::Output),
        Some(Request::Warp(1_999_999_999)),
    ];
    for request in requests {
        for (result, level) in [(Ok(u64::MAX), true), (Err(BusError), false)] {
            let answer = Answer { result, request, level, until: u64::MAX >> 1, warped };
            assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        }
    }
}

#[test]
fn what_is_no_call_or_answer_is_refused() {
    let call = Call { by: 1, act: Act::Look, now: 7, warped: 7 }.encode();
    let read = Call { by: 1, act: Act::Read { gpa: Gpa(1), size: 4 }, now: 7, warped: 7 }.encode();
    for (words, at, value) in [
        (call, 0, 3),
        (call, 0, 2 | 16 << 32),
        (call, 0, 2 | 1 << 32 | 4 << 8),
        (call, 0, call[0] | 1 << 20),
        (call, 1, 1),
        (call, 2, 1),
        (call, 3, 6),
        (call, 3, u64::MAX),
        (read, 0, 3 << 8),
        (read, 0, 0),
        (read, 2, 1),
    ] {
        let mut words: [u64; CALL_WORDS] = words;
        assert!(Call::decode(&words).is_some());
        words[at] = value;
        assert_eq!(Call::decode(&words), None, "{words:x?}");
    }
    assert_eq!(Call::decode(&call[1..]), None);
    let answer = Answer { result: Ok(1), request: None, level: true, until: 9, warped: 8 };
    for (at, value) in
        [(0, 3 | 5 << 8), (0, 7), (0, 2), (0, 3 | 1 << 40), (2, u64::MAX), (3, u64::MAX), (4, 1)]
    {
        let mut words: [u64; ANSWER_WORDS] = answer.encode();
        words[at] = value;
        assert_eq!(Answer::decode(&words), None, "{words:x?}");
    }
    let warp = Answer { request: Some(Request::Warp(1)), ..answer };
    let mut words = warp.encode();
    words[4] = 1 << 40;
    assert_eq!(Answer::decode(&words), None, "a warp that no clock asks for");
    assert_eq!(Answer::decode(&words[1..]), None);
}

#[test]
fn any_call_that_is_one_is_harmless() {
    let (vm, _) = vm_of(params(Endian::Little), &[NOP]);
    let mut random = Random(3);
    let mut served = 0;
    for _ in 0..200_000 {
        let base = [0x1800_0000, 0x1be0_0000, 0x1f00_0000, random.below(u64::MAX)];
        let gpa = base[random.below(4) as usize] + random.below(0x1000);
        let first = random.below(3) | (1 << random.below(4)) << 8 | random.below(16) << 32;
        let bits = random.below(60);
        let now = random.below(1 << bits);
        let words = [first, gpa, random.below(u64::MAX), now, random.below(now + 1)];
        if let Some(call) = Call::decode(&words) {
            served += 1;
            let (answer, _) = vm.serve(&call);
            assert_eq!(Answer::decode(&answer.encode()), Some(answer));
            vm.take_output(&mut |_| {});
        }
    }
    assert!(served > 10_000, "{served}");
}

#[test]
fn what_was_not_shared_is_refused() {
    let mut cells = Cells::new(made(Endian::Little, 2, &locks_and_tokens(2, 3)), 0);
    let home = &cells.vms[0];
    let mut words = Vec::new();
    home.share(&mut words);
    let visited = |params: &VmParams, words: &[u64]| {
        let way = Box::new(Arc::clone(&cells.line));
        Vm::visited(params.clone(), home.memory().clone(), way, words).map(|vm| vm.policy)
    };
    let params = &home.params;
    assert_eq!(visited(params, &words), Ok(home.policy));
    for len in 0..words.len() {
        assert!(visited(params, &words[..len]).is_err(), "{len} words");
    }
    assert_eq!(visited(params, &[&words[..], &[0]].concat()), Err(StateError::Long));
    for bit in 0..64 {
        let mut damaged = words.clone();
        damaged[0] ^= 1 << bit;
        assert_eq!(visited(params, &damaged), Err(StateError::Version));
    }
    for other in [
        VmParams { vcpus: 3, ..params.clone() },
        VmParams { memory: 1 << 23, ..params.clone() },
        VmParams { endian: Endian::Big, ..params.clone() },
        VmParams { clock_scale: 2, ..params.clone() },
        VmParams { budget: 1, ..params.clone() },
    ] {
        assert_eq!(visited(&other, &words), Err(StateError::Other));
    }
    let interpreted = VmParams { engine: Engine::Interpreter, ..params.clone() };
    assert!(matches!(visited(&interpreted, &words), Err(StateError::Value(_))));
    // Where there is no room to translate what is translated at home, it is interpreted.
    let translated = &mut words.clone();
    *translated.last_mut().unwrap() |= 1 << 3;
    for (engine, expected) in [(Engine::Translator, true), (Engine::Direct, false)] {
        let policy = visited(&VmParams { engine, ..params.clone() }, translated).unwrap();
        assert_eq!((policy.user, policy.translated), (true, expected));
    }
    assert!(visited(&interpreted, translated).is_err());
    let mut random = Random(5);
    for _ in 0..2000 {
        let mut damaged = words.clone();
        damaged[4 + random.below(3) as usize] = random.below(u64::MAX) >> random.below(64);
        let _ = visited(params, &damaged);
    }
    // A VCPU's words, in a place where it visits.
    cells.runners[1].run(&cells.vms[0], &TestClock::default(), 500);
    let mut words = Vec::new();
    cells.runners[1].save(&mut words);
    let mut cells = Cells::new(made(Endian::Little, 2, &locks_and_tokens(2, 3)), 1);
    let restored =
        |cells: &Cells, words: &[u64]| Runner::restore(&cells.vms[1], 1, words, &mut |_| None);
    assert!(restored(&cells, &words).is_ok());
    let (mut refused, mut taken) = (0, 0);
    for _ in 0..1000 {
        let mut damaged = words.clone();
        let at = random.below(words.len() as u64) as usize;
        damaged[at] = random.below(u64::MAX) >> random.below(64);
        match restored(&cells, &damaged) {
            Err(_) => refused += 1,
            Ok(mut runner) => {
                taken += 1;
                for _ in 0..20 {
                    runner.run(&cells.vms[1], &TestClock::default(), 50);
                }
                // Back home, with whatever it has become.
                let mut words = Vec::new();
                runner.save(&mut words);
                let _ = Runner::restore(&cells.vms[0], 1, &words, &mut |_| None);
            }
        }
    }
    assert!(refused > 100 && taken > 100, "{refused} refused, {taken} taken");
    cells.moves = 0;
}
