//! The standard mix: processes that come and go, talk through pipes, and look things up in tables larger than
//! what the TLB maps.
//!
//! It marks its beginning and end with the instructions `lui $zero, 0x1001` and `lui $zero, 0x1002`, which do nothing,
//! for whoever counts instructions.

use crate::checks::{Own, report};
use crate::sys;
use core::arch::asm;
use irix_user::work::{
    Heap, MIX_REQUEST, MIX_ROUNDS, MIX_WORDS, MIXERS, PAGE_WORDS, Random, fold, fold_bytes,
    mix_answer, mix_request,
};

/// Mixers that run at the same time.
const PAIR: usize = 2;

macro_rules! marker {
    ($number:literal) => {
        // SAFETY: writes nothing: its target is the register that is always zero.
        unsafe { asm!(concat!("lui $0, ", $number), options(nostack)) }
    };
}

/// The mix.
pub fn main() -> u32 {
    marker!("0x1001");
    let mut sum = 0;
    for first in (0..MIXERS).step_by(PAIR) {
        let mixers = core::array::from_fn::<_, PAIR, _>(|_| start());
        let mut random = core::array::from_fn::<_, PAIR, _>(|i| Random(first + i as u64));
        let mut answers = [0; PAIR];
        let mut buffer = [0; MIX_REQUEST];
        for _ in 0..MIX_ROUNDS {
            for (random, mixer) in random.iter_mut().zip(&mixers) {
                mix_request(random, &mut buffer);
                sys::write(mixer.1, &buffer);
            }
            for (answer, mixer) in answers.iter_mut().zip(&mixers) {
                sys::read_all(mixer.2, &mut buffer);
                *answer = fold_bytes(*answer, &buffer);
            }
        }
        for ((pid, to, from), answers) in mixers.into_iter().zip(answers) {
            sys::close(to);
            sys::close(from);
            assert_eq!(sys::status(pid), 0);
            sum = fold(sum, answers);
        }
    }
    marker!("0x1002");
    report("mix", sum)
}

/// Starts a mixer: its pid, and where to write to it and to read from it.
fn start() -> (u32, u32, u32) {
    let (requests, to) = sys::pipe();
    let (from, answers) = sys::pipe();
    let digit = |fd: u32, place: u32| b'0' + (fd / place % 10) as u8;
    let [a, b, c, d] =
        [digit(requests, 10), digit(requests, 1), digit(answers, 10), digit(answers, 1)];
    let pid = sys::spawn(&[b'm', b'i', b'x', b'e', b'r', 0, a, b, 0, c, d, 0]);
    sys::close(requests);
    sys::close(answers);
    (pid, to, from)
}

/// Answers requests.
pub fn mixer(requests: u32, answers: u32) -> u32 {
    let mut own = Own::new();
    own.grow((MIX_WORDS / PAGE_WORDS) as i64);
    let mut buffer = [0; MIX_REQUEST];
    for _ in 0..MIX_ROUNDS {
        sys::read_all(requests, &mut buffer);
        mix_answer(own.words(), &mut buffer);
        sys::write(answers, &buffer);
    }
    0
}
