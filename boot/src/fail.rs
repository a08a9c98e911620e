//! The PROM's ends: a message and a failed machine, or a parked CPU.

use crate::console::say;
use crate::{asm, pci};
use abi::map;

/// Cause.ExcCode (bits 6:2) of a bus error on a fetch and on a load or store.
const BUS_ERRORS: core::ops::RangeInclusive<u64> = 6..=7;

/// Ends the machine as failed: through pvpanic where there is one, else by standing still.
pub fn fail() -> ! {
    if let Some(pvpanic) = pci::pvpanic() {
        pci::panic_through(pvpanic);
    }
    say!("no pvpanic device: this machine stays as it is");
    park()
}

/// Prints a line and ends the machine as failed.
macro_rules! die {
    ($($arg:tt)*) => {{
        $crate::console::say!($($arg)*);
        $crate::fail::fail()
    }};
}
pub(crate) use die;

/// Stands still for ever, with interrupts off: nothing but a reset starts this CPU again.
pub fn park() -> ! {
    loop {
        core::hint::spin_loop();
    }
}

/// A trap while the PROM itself was running. Called by the vectors.
pub extern "C" fn trapped(cpu: u64, sp: u64, ra: u64) -> ! {
    report("a trap in the PROM", cpu, sp, ra);
    fail()
}

/// A trap while another one's state was not yet saved. Called by the vectors.
///
/// A bus error here means that the memory of the CPU's cell is gone: the CPU parks, which is all it
/// can do, and its neighbours find out by themselves. Anything else is a bug of the monitor.
pub extern "C" fn nested(cpu: u64, sp: u64, ra: u64) -> ! {
    if BUS_ERRORS.contains(&(asm::cause() >> 2 & 31)) {
        say!("CPU {cpu}: the memory of its cell does not answer; parked");
        park();
    }
    report("a trap during trap entry", cpu, sp, ra);
    fail()
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
