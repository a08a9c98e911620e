//! The PROM's ends: a message and a failed machine, or a parked CPU.

use crate::console::say;
use crate::{asm, bringup, cpu, garbage, hub, lost, pci};
use abi::hub::Why;
use abi::{CpuId, map};
use core::sync::atomic::Ordering;

/// Cause.ExcCode (bits 6:2) of a bus error on a fetch and on a load or store.
const BUS_ERRORS: core::ops::RangeInclusive<u64> = 6..=7;

/// Ends the machine as failed: through pvpanic where there is one, else by standing still.
pub fn fail() -> ! {
    if let Some(pvpanic) = pci::pvpanic() {
        pci::panic_through(pvpanic);
    }
    say!("no pvpanic device: this machine stays as it is");
    loop {
        core::hint::spin_loop();
    }
}

/// Prints a line and ends the machine as failed.
macro_rules! die {
    ($($arg:tt)*) => {{
        $crate::console::say!($($arg)*);
        $crate::fail::fail()
    }};
}
pub(crate) use die;

/// A trap while the PROM itself was running, or the monitor had not taken its traps over yet. Called by the vectors.
///
/// A node may die while its CPUs boot again: that is a bus error, and no worse than if it had died later.
pub extern "C" fn trapped(cpu: u64, sp: u64, ra: u64) -> ! {
    if is_bus_error() && bringup::layout().is_some() {
        park(cpu, Why::Vanished)
    }
    report("a trap in the PROM", cpu, sp, ra);
    fail()
}

/// A trap while another one's state was not yet saved. Called by the vectors.
///
/// A bus error here means that the memory of the CPU's cell is gone; anything else, that its text, data or
/// stack is. The cell is lost, and its neighbours find out by themselves.
pub extern "C" fn nested(cpu: u64, sp: u64, ra: u64) -> ! {
    if is_bus_error() {
        park(cpu, Why::Vanished)
    }
    report("a trap during trap entry", cpu, sp, ra);
    park(cpu, Why::Broken)
}

/// The monitor can't go on, and says why ([`Why`]). Called through [`abi::prom::PromPage::give_up`].
pub extern "C" fn given_up(cpu: u64, why: u64) -> ! {
    match Why::from_word(why).unwrap_or(Why::Broken) {
        Why::Hung => hang(cpu),
        why => park(cpu, why),
    }
}

/// This CPU executes nothing any more, and says nothing of it; until its node loses its power, or it is told to
/// stop.
fn hang(cpu: u64) -> ! {
    let Some(layout) = bringup::layout() else { fail() };
    let id = CpuId(cpu as u8);
    let why =
        cpu::hang(cpu as usize, || match hub::words(layout, id).parking.load(Ordering::Acquire) {
            _ if !hub::has_power(layout, id) => Some(Why::Vanished),
            told => Why::from_word(told).filter(|why| *why != Why::Hung),
        });
    park(cpu, why)
}

/// The CPU parks again, whose monitor could not be brought back.
pub fn stop(cpu: u64) -> ! {
    park(cpu, Why::Broken)
}

/// Parks the CPU, and with it those of its cell, which is lost. A machine that has no other cell has failed.
fn park(cpu: u64, why: Why) -> ! {
    let Some(layout) = bringup::layout() else { fail() };
    let id = CpuId(cpu as u8);
    // A machine of one cell ends with its monitor; if its memory has vanished, when all CPUs know.
    if layout.cells() == 1 && why != Why::Vanished {
        fail()
    }
    let what = match why {
        Why::Panic => "its monitor has failed",
        Why::Broken => "its monitor is destroyed",
        _ if !hub::has_power(layout, id) => "its node has failed",
        Why::Told => "told to stop",
        Why::Vanished | Why::Hung => "the memory of its cell does not answer",
    };
    say!("CPU {cpu} of cell {}: {what}; parked", layout.cell(layout.node_of(id)));
    hub::tell(layout, id);
    lost::with(layout, id);
    garbage::arrived(layout, id);
    if hub::park(layout, id, why) { cpu::park(cpu as usize) } else { fail() }
}

fn is_bus_error() -> bool {
    BUS_ERRORS.contains(&(asm::cause() >> 2 & 31))
}

fn report(what: &str, cpu: u64, sp: u64, ra: u64) {
    say!(
        "CPU {cpu}: {what}: cause {:#x} epc {:#x} badvaddr {:#x} sp {sp:#x} ra {ra:#x}",
        asm::cause(),
        asm::epc(),
        asm::bad_vaddr(),
    );
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    say!("{info}");
    fail()
}

// What is linked here must agree with where the vectors expect it.
const _: () = assert!(map::PROM_BASE == 0x10_0000);
