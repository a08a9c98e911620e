//! UART 0: the boot log and panics in plain text.

use crate::hub;
use crate::page::cpu;
use core::fmt;
use core::mem::offset_of;
use core::ptr::NonNull;
use static_assertions::const_assert_eq;
use volatile::{VolatilePtr, map_field};

/// KSEG1 address of the ISA 16550 at I/O port 0x3f8, through the window that the boot ROM sets up.
const UART0: usize = 0xffff_ffff_b800_03f8_u64 as usize;
/// Line status: transmitter holding register empty.
const THRE: u8 = 0x20;
/// How often the transmitter is asked before a byte is given up for lost.
const PATIENCE: u32 = 100_000;

/// What is used of a 16550's registers.
#[repr(C)]
struct Registers {
    /// Written: transmitter holding register.
    data: u8,
    unused: [u8; 4],
    line_status: u8,
}

const_assert_eq!(offset_of!(Registers, line_status), 5);

/// The transmitter.
pub(crate) struct Uart;

impl Uart {
    fn put(byte: u8) {
        const BASE: NonNull<Registers> = NonNull::new(UART0 as *mut Registers).expect("not 0");
        // SAFETY: the device's registers at a fixed unmapped address, one byte each. Reading line
        // status only clears error bits; the transmitter takes any byte.
        let registers = unsafe { VolatilePtr::new(BASE) };
        let line_status = map_field!(registers.line_status);
        for _ in 0..PATIENCE {
            if line_status.read() & THRE != 0 {
                break;
            }
        }
        map_field!(registers.data).write(byte);
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

/// Waits for UART 0 to be free for a line of this CPU's, but not for ever; the line ends when this is
/// dropped.
pub(crate) fn line() -> impl Drop {
    hub::controller().line(cpu())
}

/// Prints one line on UART 0.
macro_rules! say {
    ($($arg:tt)*) => {{
        use core::fmt::Write;
        let _line = $crate::uart::line();
        // The UART's `write_str` cannot fail.
        let _ = writeln!($crate::uart::Uart, $($arg)*);
    }};
}
pub(crate) use say;
