//! An aid for simulating the machine: under icount, one of its CPUs is always awake.
//!
//! There QEMU executes the CPUs in turn in one thread. When all of them `wait`, another of its threads moves the
//! clock to the next timer. That thread may find the last CPU halted before what it has executed is added to
//! the clock, and it has the CPUs start again wherever it finds them: both depend on the host, and two runs
//! differ. So the last CPU that would wait spins, until another is awake. Without icount every CPU just waits.

use crate::{asm, hub, page};
use core::sync::atomic::{AtomicBool, Ordering};

/// Whether CPUs of this cell just wait. Until that is known they don't.
static PLAIN: AtomicBool = AtomicBool::new(false);

/// Tells the cell's CPUs whether the machine runs under icount.
pub(crate) fn init(icount: bool) {
    PLAIN.store(!icount, Ordering::Relaxed);
}

/// This CPU's bit.
fn me() -> u64 {
    1 << page::cpu()
}

/// This CPU is awake, until it parks (the PROM sees to that).
pub(crate) fn join() {
    hub::controller().awake.fetch_or(me(), Ordering::AcqRel);
}

/// Waits for an interrupt, with interrupts off on entry and on after.
pub(crate) fn idle() {
    if PLAIN.load(Ordering::Relaxed) {
        asm::idle();
        return;
    }
    let awake = &hub::controller().awake;
    loop {
        // Whoever waits has seen that another CPU's bit was set, after its own was not: one is left.
        if awake.fetch_and(!me(), Ordering::AcqRel) != me() {
            asm::idle();
            join();
            return;
        }
        join();
        if !asm::doze(awake, me()) {
            return;
        }
    }
}
