//! Time: CP0 Count, extended to 64 bits, and the timer interrupt.
//!
//! Count has 32 bits and goes round every 26.8 s at 160 MHz. Each CPU's private page holds a 64-bit
//! value that Count's extension had at some moment less than one round ago; every reading adds to it
//! what Count has advanced since. The value is renewed by every timer interrupt, and these are never
//! further apart than [`LONGEST_NS`].

use crate::page::{cell_page, park_if_told};
use crate::{asm, awake};
use core::sync::atomic::Ordering;

/// The longest time between two timer interrupts, in nanoseconds.
pub(crate) const LONGEST_NS: u64 = 10_000_000;

/// Ticks that are certain to pass between reading Count and having written Compare, if the host does
/// not suspend us; if it does, the check after the write finds out.
const SHORTEST_TICKS: u64 = 400;

/// Count in 64 bits since power-on.
#[inline]
pub(crate) fn ticks() -> u64 {
    // The order matters: were an interrupt to renew the value in between, Count would still be later.
    let known = cell_page().count.load(Ordering::Relaxed);
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
    let count = asm::count() as u32;
    known + u64::from(count.wrapping_sub(known as u32))
}

/// Nanoseconds since power-on. 160 MHz is 4 ticks in 25 ns.
#[inline]
pub(crate) fn now() -> u64 {
    let ticks = ticks();
    (ticks / 4) * 25 + (ticks % 4) * 25 / 4
}

/// Has the next timer interrupt come at `at` (nanoseconds since power-on), or in [`LONGEST_NS`] if that
/// is sooner. Never misses: Count is looked at again after Compare is written, since a Compare that
/// has already passed would take effect only a whole round later.
pub(crate) fn arm(at: u64) {
    cell_page().armed.store(at, Ordering::Relaxed);
    let from = ticks();
    let longest = from + LONGEST_NS / 25 * 4;
    let wanted = at / 25 * 4 + (at % 25 * 4).div_ceil(25);
    let mut at = wanted.clamp(from + SHORTEST_TICKS, longest);
    loop {
        // Twice: QEMU's main loop, in the middle of what it does when an earlier time has come, may put the next
        // interrupt off by a whole round just after the first write. The second is not begun before it is through.
        asm::set_compare(at as u32);
        asm::set_compare(at as u32);
        let now = ticks();
        if now < at {
            return;
        }
        at = now + 2 * SHORTEST_TICKS;
    }
}

/// As [`arm`], unless the last call named the same time: then that interrupt is on its way.
/// Interrupts are off, so that none comes and arms the timer for another.
#[inline]
pub(crate) fn arm_once(at: u64) {
    if cell_page().armed.load(Ordering::Relaxed) != at {
        arm(at);
    }
}

/// The timer interrupt.
pub(crate) fn tick() {
    let page = cell_page();
    page.count.store(ticks(), Ordering::Relaxed);
    page.ticks.fetch_add(1, Ordering::Relaxed);
    arm(u64::MAX / 8);
    park_if_told();
}

/// Lets this CPU sleep until `at` or until the next timer interrupt, whichever comes first.
pub(crate) fn sleep_until(at: u64) {
    asm::interrupts_off();
    if now() >= at {
        asm::interrupts_on();
        return;
    }
    arm(at);
    awake::idle();
}
