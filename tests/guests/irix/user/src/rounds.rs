//! Work without an end, that can be looked at while it is done: a line a round, with a checksum of all rounds so far.
//!
//! What a round finds depends on every word that all rounds before it have left in memory, of which a child has a
//! copy. Whoever knows the checksums ([`irix_user::work::Rounds`]) sees from the lines that nothing was lost, done twice, or
//! changed by somebody else. Between two rounds it waits for the clock, so that the CPU also idles.

use crate::checks::Own;
use crate::say;
use crate::start::Words;
use crate::sys;
use irix_user::work::{self, BETWEEN, Heap, PAGE_WORDS, ROUND_WORDS};

/// Does rounds for ever, and between them the programs that the words name, in turn. Ends only if a program fails, with its number.
pub fn main(words: Words) -> u32 {
    let mut own = Own::new();
    own.grow((ROUND_WORDS / PAGE_WORDS) as i64);
    let (mut sum, mut next) = (0, 1);
    for number in 1.. {
        let (reader, writer) = sys::pipe();
        let pid = sys::child(|| {
            let child = work::round_child(own.words(), number);
            sys::write(writer, &child.to_ne_bytes());
            0
        });
        sys::close(writer);
        let mut child = [0; 8];
        sys::read_all(reader, &mut child);
        sys::close(reader);
        assert_eq!(sys::status(pid), 0, "a round's child");
        sum = work::round(own.words(), number, u64::from_ne_bytes(child), sum);
        say!("round {number} {sum:016x}");
        sys::doze();
        if number % BETWEEN == 0
            && let Some(program) = words.get(next).or_else(|| words.get(1))
        {
            next = if words.get(next).is_some() { next + 1 } else { 2 };
            let mut name = [0; 32];
            name[..program.len()].copy_from_slice(program.as_bytes());
            let status = sys::status(sys::spawn(&name[..=program.len()]));
            if status != 0 {
                say!("rounds: {program} has failed, status {status:#x}");
                return 1;
            }
        }
    }
    0
}
