//! The self-checks: each prints its checksum and ends with 0 if it is the one known in advance.

use crate::say;
use crate::sys;
use irix_user::calls::{SIGINT, SIGKILL};
use irix_user::expected::{self, CHECKS, SIGNALS, expected};
use irix_user::work::{self, FAMILY_WORDS, Heap, PAGE_WORDS, Process, Source, Stage, fold};

const PAGE: usize = PAGE_WORDS * 8;

/// Prints a check's line; the exit code.
pub fn report(name: &str, sum: u64) -> u32 {
    say!("check {name} {sum:016x}");
    u32::from(expected(name) != Some(sum))
}

/// All of them, each as a program of its own.
pub fn all() -> u32 {
    let mut failed = 0;
    for (name, _) in CHECKS {
        let mut words = [0; 16];
        words[..name.len()].copy_from_slice(name.as_bytes());
        let status = sys::status(sys::spawn(&words[..=name.len()]));
        if status != 0 {
            say!("irix: check FAILED: {name}, status {status:#x}");
            failed += 1;
        }
    }
    if failed == 0 {
        say!("irix: check passed");
    }
    failed
}

/// Computation.
pub fn arithmetic() -> u32 {
    report("arithmetic", work::arithmetic(expected::ARITHMETIC_ROUNDS))
}

/// The process's own heap.
pub struct Own {
    start: usize,
    words: usize,
}

impl Own {
    /// An empty heap that begins on a page.
    pub fn new() -> Self {
        let end = sys::sbrk(0) as usize;
        let start = end.next_multiple_of(PAGE);
        sys::sbrk((start - end) as i64);
        Self { start, words: 0 }
    }

    /// Makes it longer if there is memory.
    pub fn try_grow(&mut self, pages: i64) -> bool {
        if sys::sbrk(pages * PAGE as i64) < 0 {
            return false;
        }
        self.words = self.words.wrapping_add_signed(pages as isize * PAGE_WORDS as isize);
        true
    }
}

impl Heap for Own {
    fn grow(&mut self, pages: i64) {
        assert!(self.try_grow(pages), "no memory");
    }

    fn words(&mut self) -> &mut [u64] {
        // SAFETY: the kernel has given this process so much memory there, and nobody else uses it.
        unsafe { core::slice::from_raw_parts_mut(self.start as *mut u64, self.words) }
    }
}

impl Process for Own {
    fn data(&mut self) -> &mut [u64] {
        self.words()
    }

    fn children(&mut self, depth: u32, seeds: [u64; 2]) -> [u64; 2] {
        let started = seeds.map(|seed| {
            let (reader, writer) = sys::pipe();
            let pid = sys::child(|| {
                let result = work::family(self, depth, seed);
                sys::write(writer, &result.to_ne_bytes());
                0
            });
            sys::close(writer);
            (pid, reader)
        });
        started.map(|(pid, reader)| {
            let mut result = [0; 8];
            sys::read_all(reader, &mut result);
            sys::close(reader);
            assert_eq!(sys::status(pid), 0);
            u64::from_ne_bytes(result)
        })
    }
}

/// Demand-zero memory.
pub fn memory() -> u32 {
    report("memory", work::memory(&mut Own::new()))
}

/// Copy on write.
pub fn family() -> u32 {
    let mut own = Own::new();
    own.grow((FAMILY_WORDS / PAGE_WORDS) as i64);
    report("family", work::family(&mut own, work::FAMILY_DEPTH, 9))
}

/// Bytes that no part of the pipeline sends or takes at once divides another's.
const PIECES: [usize; 6] = [1000, 700, 333, 4096, 37, 5000];

/// A chain of processes.
pub fn pipeline() -> u32 {
    let (mut input, writer) = sys::pipe();
    sys::child(|| {
        sys::close(input);
        let (mut source, mut left) = (Source::new(), work::STREAM_LEN);
        let mut buffer = [0; PIECES[0]];
        while left > 0 {
            let len = left.min(buffer.len());
            source.fill(&mut buffer[..len]);
            sys::write(writer, &buffer[..len]);
            left -= len;
        }
        0
    });
    sys::close(writer);
    for number in 0..work::STAGES {
        let (next, output) = sys::pipe();
        sys::child(|| {
            sys::close(next);
            let mut stage = Stage::new(number);
            let mut buffer = [0; 5000];
            let buffer = &mut buffer[..PIECES[1 + number as usize]];
            loop {
                let len = sys::read(input, buffer);
                if len <= 0 {
                    return 0;
                }
                stage.pass(&mut buffer[..len as usize]);
                sys::write(output, &buffer[..len as usize]);
            }
        });
        sys::close(output);
        sys::close(input);
        input = next;
    }
    let (mut sum, mut buffer) = (0, [0; PIECES[5]]);
    loop {
        let len = sys::read(input, &mut buffer);
        if len <= 0 {
            break;
        }
        sum = work::fold_bytes(sum, &buffer[..len as usize]);
    }
    while sys::wait(0).is_some() {}
    report("pipeline", sum)
}

/// Many small programs.
pub fn exec() -> u32 {
    let sum = (0..work::LEAVES).fold(0, |sum, i| {
        let words = [b'l', b'e', b'a', b'f', 0, b'0' + (i / 10) as u8, b'0' + (i % 10) as u8, 0];
        fold(sum, u64::from(sys::status(sys::spawn(&words))))
    });
    report("exec", sum)
}

/// More address spaces than there are identifiers for.
pub fn spaces() -> u32 {
    let mut own = Own::new();
    own.grow(2);
    let (reader, writer) = sys::pipe();
    let mut sum = 0;
    for i in 0..work::SPACES {
        let pid = sys::child(|| {
            let words = own.words();
            for page in 0..2 {
                words[page * PAGE_WORDS + 7] = work::space_word(i, page as u64);
            }
            let both = words[7] ^ words[PAGE_WORDS + 7];
            sys::write(writer, &both.to_ne_bytes());
            0
        });
        let mut both = [0; 8];
        sys::read_all(reader, &mut both);
        sum = fold(sum, u64::from_ne_bytes(both));
        let untouched = own.words()[7] | own.words()[PAGE_WORDS + 7];
        assert_eq!((sys::status(pid), untouched), (0, 0));
    }
    report("spaces", sum)
}

/// A child that tells when it runs, and then computes for ever.
fn spinner() -> u32 {
    let (reader, writer) = sys::pipe();
    let pid = sys::child(|| {
        sys::write(writer, b"x");
        loop {
            core::hint::spin_loop();
        }
    });
    sys::read_all(reader, &mut [0]);
    sys::close(reader);
    sys::close(writer);
    pid
}

/// Ends of processes; the first two only end if the timer interrupts them.
pub fn signals() -> u32 {
    let spinners = [spinner(), spinner()];
    let (reader, writer) = sys::pipe();
    let waiting = sys::child(|| {
        sys::read_all(reader, &mut [0]);
        1
    });
    let (unread, full) = sys::pipe();
    sys::close(unread);
    let writing = sys::child(|| {
        sys::write(full, &[0; 10]);
        1
    });
    let ending = sys::child(|| 42);
    sys::kill(spinners[0], SIGKILL);
    sys::kill(spinners[1], SIGINT);
    sys::kill(waiting, SIGKILL);
    sys::close(writer);
    let statuses = [spinners[0], spinners[1], waiting, writing, ending].map(sys::status);
    for (status, wanted) in statuses.iter().zip(SIGNALS) {
        if *status != wanted {
            say!("signals: status {status:#x} instead of {wanted:#x}");
        }
    }
    // Who has been waited for is gone.
    let gone = u32::from(sys::kill(waiting, SIGKILL) >= 0);
    report("signals", expected::fold_signals(&statuses).wrapping_add(u64::from(gone)))
}

/// Takes all memory, writes all of it, checks it, and gives it back.
pub fn hog() -> u32 {
    let mut own = Own::new();
    while own.try_grow(16) || own.try_grow(1) {}
    let words = own.words();
    let pages = words.len() / PAGE_WORDS;
    for (i, word) in words.iter_mut().step_by(PAGE_WORDS / 2).enumerate() {
        *word = fold(1, i as u64);
    }
    let wrong = words
        .iter()
        .step_by(PAGE_WORDS / 2)
        .enumerate()
        .filter(|(i, word)| **word != fold(1, *i as u64))
        .count();
    own.grow(-(pages as i64));
    say!("hog: {pages} pages taken and given back, {wrong} words wrong");
    u32::from(wrong > 0)
}
