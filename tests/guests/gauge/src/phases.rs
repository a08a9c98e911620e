//! What the program does.

use crate::linux::{self, execute, exit, print};
use core::arch::asm;
use sha2::{Digest, Sha256};

macro_rules! marker {
    ($number:literal) => {
        // SAFETY: writes nothing: its target is the register that is always zero.
        unsafe { asm!(concat!("lui $0, ", $number), options(nostack)) }
    };
}

/// A phase's marker at its beginning or its end; whether there is such a phase.
fn mark(phase: &[u8], end: bool) -> bool {
    match (phase, end) {
        (b"boot", true) => marker!("0x1011"),
        (b"script", false) => marker!("0x1012"),
        (b"script", true) => marker!("0x1013"),
        (b"compile", false) => marker!("0x1014"),
        (b"compile", true) => marker!("0x1015"),
        (b"user", false) => marker!("0x1016"),
        (b"user", true) => marker!("0x1017"),
        _ => return false,
    }
    true
}

/// `bench: PHASE WHAT`, in one write.
fn say(phase: &[u8], what: &[u8]) {
    let mut line = [0; 128];
    let mut len = 0;
    for part in [b"bench: ", phase, b" ", what, b"\n"] {
        for &byte in part {
            if len < line.len() {
                line[len] = byte;
                len += 1;
            }
        }
    }
    print(&line[..len]);
}

/// A phase: its beginning, the work, its end. The status to end with.
fn phase(name: &[u8], work: impl FnOnce() -> bool) -> u8 {
    say(name, b"begins");
    if !mark(name, false) {
        print(b"gauge: there is no such phase\n");
        return 2;
    }
    let well = work();
    mark(name, true);
    say(name, if well { b"ends" } else { b"FAILED" });
    u8::from(!well)
}

/// A word as a number of megabytes, in bytes.
fn megabytes(word: &[u8]) -> Option<usize> {
    core::str::from_utf8(word).ok()?.parse::<usize>().ok()?.checked_mul(1 << 20)
}

/// The SHA-256 of memory that is filled before the phase begins.
fn user(bytes: usize) -> u8 {
    let Some(memory) = linux::memory(bytes) else {
        print(b"gauge: there is not so much memory\n");
        return 2;
    };
    // Knuth's MMIX generator: any bytes will do, but each page has to be written.
    let mut word = 1_u64;
    for chunk in memory.chunks_exact_mut(8) {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        chunk.copy_from_slice(&word.to_be_bytes());
    }
    let mut sum = None;
    let status = phase(b"user", || {
        sum = Some(Sha256::digest(&*memory));
        true
    });
    let mut text = [0; 64];
    for (digits, byte) in text.chunks_exact_mut(2).zip(sum.unwrap_or_default()) {
        for (digit, value) in digits.iter_mut().zip([byte >> 4, byte & 15]) {
            *digit = b"0123456789abcdef"[usize::from(value)];
        }
    }
    say(b"sha256", &text);
    status
}

#[unsafe(no_mangle)]
extern "C" fn start(stack: *const u64) -> ! {
    // SAFETY: the first instructions hand over the stack pointer.
    let (words, environment) = unsafe { linux::words(stack) };
    let status = match (words.get(0), words.get(1)) {
        (Some(b"/init"), _) => {
            mark(b"boot", true);
            say(b"boot", b"ends");
            execute(c"/etc/bench/init", words, environment);
            print(b"gauge: there is no /etc/bench/init\n");
            127
        }
        (_, Some(b"run")) if words.get(3).is_some() => {
            phase(words.get(2).unwrap_or_default(), || linux::run(words.from(3), environment))
        }
        (_, Some(b"user")) => words.get(2).and_then(megabytes).map_or(2, user),
        _ => {
            print(b"gauge: write `gauge run PHASE COMMAND...` or `gauge user MEGABYTES`\n");
            2
        }
    };
    exit(status)
}
