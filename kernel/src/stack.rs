//! The CPUs' stacks, each with a guard.
//!
//! A wired TLB entry maps a pair of 64 KB pages: the upper one is the stack, the lower one is invalid.
//! A stack that overflows runs into the guard and traps; trap entry sees that `$sp` is not in the stack
//! and uses the spare one. Each CPU maps its own stack only, at an address of its own: a pointer into
//! another CPU's stack traps instead of finding something else.

use crate::asm::{self, STACK_SIZE};
use crate::cp0::{EntryLo, PAGE_MASK_64K};
use abi::{Mpa, map};
use core::ops::Range;

/// The pairs of guard and stack, by CPU.
const STACKS_VA: u64 = map::MONITOR_VA + (16 << 20);
/// The TLB entry, after the PROM's two, and how many are wired with it.
const ENTRY: u64 = 2;
pub(crate) const WIRED: u64 = 3;

/// Maps this CPU's stack; where it is. `monitor`: where the monitor's 8 MB lie in the machine.
pub(crate) fn map(cpu: u64, monitor: Mpa) -> Range<u64> {
    let size = STACK_SIZE as u64;
    let linked = (&raw const asm::STACKS as u64) + cpu * size;
    let memory = Mpa(monitor.0 + (linked - map::MONITOR_VA));
    let guard = STACKS_VA + cpu * 2 * size;
    let rw = EntryLo::G | EntryLo::V | EntryLo::D | EntryLo::CACHED;
    // SAFETY: nothing else is mapped there, and the memory is this CPU's stack.
    unsafe {
        asm::wire(ENTRY, WIRED, PAGE_MASK_64K, guard, [EntryLo::G.bits(), rw.at(memory)]);
    }
    guard + size..guard + 2 * size
}
