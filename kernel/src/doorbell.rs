//! Doorbells: how one CPU of the machine makes another look up from what it does.
//!
//! No CPU can interrupt another. A doorbell is a word in a hub that its CPU looks at on every entry to the monitor,
//! and between two of them on a tick: a guest does not run longer, and a CPU does not sleep longer. The tick
//! is short for a while after the bell has rung, since who is called once is soon called again, and gets
//! longer up to [`LONGEST_TICK_NS`]. Nothing depends on a bell having been heard: it only saves time.

use crate::page::{cell_page, words};
use crate::{asm, awake, clock, hub, machine};
use abi::CpuId;
use abi::hub::CpuWords;
use core::sync::atomic::Ordering;

/// A marker for counting (docs/counting.md): a CPU has slept for a tick.
const WOKEN: u16 = 0x2004;

/// The tick of a CPU whose bell has just rung.
const SHORTEST_TICK_NS: u64 = 50_000;
/// The tick of a CPU whose bell has not rung for long.
const LONGEST_TICK_NS: u64 = 1_000_000;

/// Rings for a CPU of the machine. Silent if its hub can't be reached.
pub(crate) fn ring(cpu: CpuId) {
    if let Ok(words) = hub::words(cpu) {
        ring_at(words);
    }
}

/// Rings for the CPU whose words these are.
#[inline]
pub(crate) fn ring_at(words: &CpuWords) {
    words.doorbell.fetch_or(1 << machine::this_cpu().0, Ordering::Release);
}

/// Whether this CPU's bell has rung.
#[inline]
pub(crate) fn is_rung() -> bool {
    words().doorbell.load(Ordering::Relaxed) != 0
}

/// Waits until this CPU's bell rings, or until it has looked so often. A function of its own, so that instructions spent
/// here can be told from those that do something (docs/counting.md).
#[inline(never)]
pub(crate) fn wait_for_ring(looks: u32) {
    for _ in 0..looks {
        if is_rung() {
            return;
        }
        core::hint::spin_loop();
    }
}

/// This CPU answers its bell: what it was called for is to be looked for from now on. Who has rung: a bit
/// for each CPU.
pub(crate) fn answer() -> u64 {
    if !is_rung() {
        return 0;
    }
    cell_page().tick.store(SHORTEST_TICK_NS, Ordering::Relaxed);
    words().doorbell.swap(0, Ordering::AcqRel)
}

/// The bell has not rung for a tick.
pub(crate) fn unheard() {
    let longer = tick() * 5 / 4;
    cell_page().tick.store(longer.min(LONGEST_TICK_NS), Ordering::Relaxed);
}

/// How long this CPU may go on without a look at its bell.
pub(crate) fn tick() -> u64 {
    cell_page().tick.load(Ordering::Relaxed).max(SHORTEST_TICK_NS)
}

/// Lets this CPU sleep until `at`, or until its bell rings, whichever comes first.
pub(crate) fn sleep(at: u64) {
    loop {
        let tick = tick();
        asm::interrupts_off();
        let now = clock::now();
        if is_rung() || now >= at {
            asm::interrupts_on();
            return;
        }
        clock::arm(at.min(now + tick));
        awake::idle();
        asm::marker::<WOKEN>();
        unheard();
    }
}
