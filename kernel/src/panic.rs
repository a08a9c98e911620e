//! The monitor's last words.
//!
//! First, in plain text on UART 0, which needs nothing but itself: message, registers, backtrace. Then
//! the same to the host link's log, and the event, which need locks that are broken for it and a heap
//! that may be damaged; should that fail in its turn, the machine is ended at once.

use crate::cp0::Cause;
use crate::page::{cell_page, cpu};
use crate::trap::Frame;
use crate::uart::say;
use crate::{asm, backtrace, clock, heap, link, machine};
use abi::event::Kind;
use abi::ring::stream;
use alloc::format;
use core::fmt::Write;
use core::panic::{Location, PanicInfo};
use core::sync::atomic::{AtomicU64, Ordering};

/// How far a panic has got: a panic in the report of a panic must come to an end.
static STAGE: AtomicU64 = AtomicU64::new(0);

const NAMES: [&str; 32] = [
    "zero", "at", "v0", "v1", "a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7", "t0", "t1", "t2",
    "t3", "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "t8", "t9", "k0", "k1", "gp", "sp", "s8",
    "ra",
];

/// A trap that nobody expected.
pub(crate) fn trapped(frame: &Frame) -> ! {
    asm::interrupts_off();
    let page = cell_page();
    let low = page.stack_low.load(Ordering::Relaxed);
    let high = page.stack_high.load(Ordering::Relaxed);
    let sp = frame.gpr[29];
    let mut message = Short::new();
    // A short text is cut, never refused.
    let _ = write!(message, "unexpected trap: {} at {:#x}", frame.cause().code(), frame.epc);
    if frame.cause().contains(Cause::BD) {
        let _ = write!(message, " (delay slot)");
    }
    let _ = write!(message, ", address {:#x}", frame.bad_vaddr);
    if sp < low || sp > high {
        let _ = write!(message, "; the stack pointer {sp:#x} is outside {low:#x}..{high:#x}");
    }
    if page.depth.load(Ordering::Relaxed) > 1 {
        let _ = write!(message, "; in a trap handler");
    }
    end(message.as_str(), None, frame)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    asm::interrupts_off();
    let frame = asm::capture();
    let mut message = Short::new();
    let _ = write!(message, "{}", info.message());
    end(message.as_str(), info.location(), &frame)
}

fn end(message: &str, place: Option<&Location<'_>>, frame: &Frame) -> ! {
    match STAGE.fetch_add(1, Ordering::Relaxed) {
        0 => {
            print(message, place, frame);
            STAGE.fetch_add(1, Ordering::Relaxed);
            report(message);
        }
        // In the dump: what there is of it has been said.
        1 => say!("monitor: panic in the report of a panic: {message}"),
        // In the host link or the heap: UART 0 has the whole report.
        _ => say!("monitor: the host link does not take the report: {message}"),
    }
    machine::fail()
}

fn print(message: &str, place: Option<&Location<'_>>, frame: &Frame) {
    say!("monitor: panic: {message}");
    if let Some(place) = place {
        // Here alone: an event holds no path.
        say!("monitor: in {place}");
    }
    say!(
        "monitor: CPU {} status {:#x} cause {:#x} epc {:#x} badvaddr {:#x} hi {:#x} lo {:#x}",
        cpu(),
        frame.status,
        frame.cause,
        frame.epc,
        frame.bad_vaddr,
        frame.hi,
        frame.lo
    );
    for row in 0..8 {
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| 4 * row + i);
        say!(
            "  {:>4} {:016x} {:>4} {:016x} {:>4} {:016x} {:>4} {:016x}",
            NAMES[a],
            frame.gpr[a],
            NAMES[b],
            frame.gpr[b],
            NAMES[c],
            frame.gpr[c],
            NAMES[d],
            frame.gpr[d],
        );
    }
    backtrace::walk(frame, |pc| say!("  at {pc:#018x}"));
}

fn report(message: &str) {
    // SAFETY: the machine is about to be ended; no holder of a lock runs again.
    unsafe {
        heap::break_open();
        link::break_open();
    }
    if heap::usage().1 == 0 {
        // Too early: there is no link either.
        return;
    }
    link::write(stream::LOG, clock::now(), format!("panic: {message}").as_bytes());
    link::event(Kind::Panic { message: message.into() });
}

/// A line of text without a heap.
struct Short {
    bytes: [u8; 320],
    len: usize,
}

impl Short {
    const fn new() -> Self {
        Self { bytes: [0; 320], len: 0 }
    }

    fn as_str(&self) -> &str {
        match core::str::from_utf8(&self.bytes[..self.len]) {
            Ok(text) => text,
            // The cut fell into a character.
            Err(error) => {
                core::str::from_utf8(&self.bytes[..error.valid_up_to()]).unwrap_or_default()
            }
        }
    }
}

impl Write for Short {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        for &byte in s.as_bytes() {
            let Some(room) = self.bytes.get_mut(self.len) else { break };
            // One line: the event and the log hold it as one.
            *room = if byte == b'\n' { b' ' } else { byte };
            self.len += 1;
        }
        Ok(())
    }
}
