//! UART 0 in plain text.

use crate::{asm, hub};
use core::fmt;

/// KSEG1 address of the ISA 16550 at I/O port 0x3f8, through the window that the boot ROM sets up.
const UART0: usize = 0xffff_ffff_b800_03f8_u64 as usize;
/// Line status register, and its "transmitter holding register empty" bit.
const LSR: usize = 5;
const THRE: u8 = 0x20;
/// How often the transmitter is asked before a byte is given up for lost.
const PATIENCE: u32 = 100_000;

/// The transmitter.
pub struct Uart;

impl Uart {
    fn put(byte: u8) {
        for _ in 0..PATIENCE {
            // SAFETY: a byte-wide device register at a fixed unmapped address; reading LSR only
            // clears error bits.
            let lsr = unsafe { core::ptr::read_volatile((UART0 + LSR) as *const u8) };
            if lsr & THRE != 0 {
                break;
            }
        }
        // SAFETY: as above; the transmit register takes any byte.
        unsafe { core::ptr::write_volatile(UART0 as *mut u8, byte) }
    }
}

impl fmt::Write for Uart {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for byte in s.bytes() {
            if byte == b'\n' {
                Self::put(b'\r');
            }
            Self::put(byte);
        }
        Ok(())
    }
}

/// Waits for UART 0 to be free for a line of this CPU's; the line ends when this is dropped.
pub fn line() -> impl Drop {
    hub::controller().line(asm::cpu())
}

/// Prints one line, `prom: ` before it.
macro_rules! say {
    ($($arg:tt)*) => {{
        use core::fmt::Write;
        let _line = $crate::console::line();
        // The UART's `write_str` cannot fail.
        let _ = writeln!($crate::console::Uart, "prom: {}", format_args!($($arg)*));
    }};
}
pub(crate) use say;
