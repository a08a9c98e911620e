//! What CPUs want of each other: TLB shoot-down and wake-ups.
//!
//! On bare Malta no CPU can interrupt another: a request is a word in memory, which the other finds at its
//! next tick and whenever it waits for the lock. Where the virtual board's IPI device is found, it is
//! interrupted at once; nothing depends on that.

use crate::asid;
use crate::cpu::{self, CPUS_MAX, pda};
use crate::space::Spaces;
use abi::ipi;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// By CPU: it is to flush its current space's TLB entries.
static FLUSH: [AtomicBool; CPUS_MAX] = [const { AtomicBool::new(false) }; CPUS_MAX];
/// The CPUs that are up.
static ONLINE: AtomicU32 = AtomicU32::new(0);
/// The CPUs that idle.
static IDLE: AtomicU32 = AtomicU32::new(0);
/// Whether there is an IPI device.
static DEVICE: AtomicBool = AtomicBool::new(false);

/// Looks for the IPI device.
pub fn probe() {
    DEVICE.store(cpu::register_read(ipi::BASE + ipi::ID) == ipi::ID_VALUE, Ordering::Relaxed);
}

/// This CPU is up.
pub fn check_in() {
    ONLINE.fetch_or(1 << pda().number, Ordering::Relaxed);
}

/// How many CPUs are up.
pub fn online() -> u32 {
    ONLINE.load(Ordering::Relaxed).count_ones()
}

/// This CPU begins or ends to idle.
pub fn set_idle(idle: bool) {
    let bit = 1 << pda().number;
    if idle {
        IDLE.fetch_or(bit, Ordering::Relaxed);
    } else {
        IDLE.fetch_and(!bit, Ordering::Relaxed);
    }
}

/// Wakes an idle CPU, if one can be woken.
pub fn wake_idle() {
    let idle = IDLE.load(Ordering::Relaxed) & !(1 << pda().number);
    if idle != 0 {
        call(idle.trailing_zeros() as usize);
    }
}

/// Interrupts a CPU, if that is possible.
fn call(number: usize) {
    if DEVICE.load(Ordering::Relaxed) {
        cpu::register_write(ipi::BASE + ipi::RAISE, number as u32);
    }
}

/// The interrupt of [`call`] has come.
pub fn called() {
    cpu::register_write(ipi::BASE + ipi::CLEAR, pda().number as u32);
    answer();
}

/// Does what others want of this CPU.
pub fn answer() {
    let flush = &FLUSH[pda().number];
    if flush.load(Ordering::Acquire) {
        asid::flush_current();
        flush.store(false, Ordering::Release);
    }
}

/// What other CPUs' TLBs know of a space that no other CPU runs is not used again: its process may have run
/// there before, and may come back.
pub fn forget_elsewhere(spaces: &mut Spaces, slot: usize) {
    let me = pda().number;
    for (number, stamp) in spaces[slot].asid.iter_mut().enumerate() {
        if number != me {
            *stamp = 0;
        }
    }
}

/// No CPU's TLB knows any more of a space than its page tables say now.
pub fn shoot_down(spaces: &mut Spaces, slot: usize) {
    let me = pda().number;
    let others = spaces[slot].active & !(1 << me);
    for number in 0..CPUS_MAX {
        if others & 1 << number == 0 {
            // It gets a new identifier when it runs there again.
            spaces[slot].asid[number] = 0;
        } else {
            FLUSH[number].store(true, Ordering::Release);
            call(number);
        }
    }
    if pda().space == slot {
        asid::activate(spaces, slot);
    }
    for number in (0..CPUS_MAX).filter(|number| others & 1 << number != 0) {
        while FLUSH[number].load(Ordering::Acquire) {
            core::hint::spin_loop();
        }
    }
}
