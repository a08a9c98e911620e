//! The machine as a whole: its two ends, and what memory it has.

use crate::careful::{self, xkphys};
use crate::uart::say;
use abi::image::BootBlock;
use abi::prom::Handoff;
use abi::{Mpa, map};
use core::sync::atomic::{AtomicU64, Ordering};

/// pvpanic's event for a panicked machine.
const PANICKED: u8 = 1 << 0;

/// Where pvpanic is; 0: nowhere.
static PVPANIC: AtomicU64 = AtomicU64::new(0);

/// Remembers what a failing monitor will need.
pub(crate) fn remember(handoff: &Handoff) {
    PVPANIC.store(handoff.pvpanic, Ordering::Relaxed);
}

/// Ends the machine well: QEMU's exit status 0.
pub(crate) fn power_off() -> ! {
    let softres = xkphys(Mpa(map::SOFTRES)) as *mut u32;
    // SAFETY: the board's reset register; the value ends the machine.
    unsafe { softres.write_volatile(map::POWER_OFF) };
    park()
}

/// Ends the machine as failed: QEMU's exit status 1.
pub(crate) fn fail() -> ! {
    match PVPANIC.load(Ordering::Relaxed) {
        0 => say!("monitor: no pvpanic device: this machine stays as it is"),
        mpa => {
            let register = xkphys(Mpa(mpa)) as *mut u8;
            // SAFETY: the PROM found the device's one-byte register there.
            unsafe { register.write_volatile(PANICKED) };
        }
    }
    park()
}

/// Stands still for ever.
fn park() -> ! {
    crate::asm::interrupts_off();
    loop {
        core::hint::spin_loop();
    }
}

/// Memory that does not agree with the boot block.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mismatch {
    /// Nothing answers, or not as RAM does.
    Missing(Mpa),
    /// RAM goes on where it should end.
    Excess(Mpa),
}

impl core::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Missing(mpa) => {
                write!(f, "no RAM answers at {mpa}: is the machine's -m smaller than configured?")
            }
            Self::Excess(mpa) => {
                write!(f, "RAM answers at {mpa}: is the machine's -m larger than configured?")
            }
        }
    }
}

/// Probes the RAM that the boot block describes: the last word of every 16 MB above low RAM must keep
/// what is written to it, and nothing may answer after the last one.
/// `in_use` is left alone.
pub(crate) fn discover(block: &BootBlock, in_use: core::ops::Range<u64>) -> Result<(), Mismatch> {
    const STEP: u64 = 16 << 20;
    const PATTERN: u64 = 0x5aa5_0ff0_1234_8765;
    let end = map::RAM_BASE + block.ram_size;
    let mut at = map::SLICE_BASE + STEP;
    while at <= end {
        let mpa = Mpa(at - 8);
        if !in_use.contains(&mpa.0) {
            let keeps = |value| {
                // SAFETY: RAM that is not in use, and not yet given to anybody.
                unsafe { careful::store64(mpa, value) }.is_ok() && careful::load64(mpa) == Ok(value)
            };
            if !(keeps(PATTERN) && keeps(!PATTERN) && keeps(0)) {
                return Err(Mismatch::Missing(mpa));
            }
        }
        at += STEP;
    }
    match careful::load64(Mpa(end)) {
        Ok(_) => Err(Mismatch::Excess(Mpa(end))),
        Err(_) => Ok(()),
    }
}
