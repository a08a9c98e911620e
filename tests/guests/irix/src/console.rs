//! The console: the first UART, polled; lines are edited here.

use crate::cpu::{device_read, device_write};
use crate::lock::Kernel;
use crate::sched::Event;
use core::fmt;
use irix_user::calls::SIGINT;

/// The UART's registers: ISA ports behind the board's window for them.
const UART: u64 = 0x1800_03f8;
const FIFO_CONTROL: u64 = UART + 2;
const LINE_STATUS: u64 = UART + 5;
/// Both FIFOs on and empty.
const FIFO_RESET: u8 = 0x07;
const DATA_READY: u8 = 0x01;
const HOLDING_EMPTY: u8 = 0x20;

/// Longest line.
const LINE_MAX: usize = 128;
/// What is kept of lines that nobody has read.
const READY_MAX: usize = 1024;

const CTRL_C: u8 = 3;
const BACKSPACE: u8 = 8;
const DELETE: u8 = 0x7f;

/// Prints a byte; a newline is preceded by a carriage return.
pub fn put(byte: u8) {
    if byte == b'\n' {
        put(b'\r');
    }
    while device_read(LINE_STATUS) & HOLDING_EMPTY == 0 {}
    device_write(UART, byte);
}

/// The UART as a sink of text, for the kernel's own few words.
pub struct Raw;

impl fmt::Write for Raw {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(put);
        Ok(())
    }
}

/// Prepares the UART; its speed is as the firmware has set it.
pub fn init() {
    device_write(FIFO_CONTROL, FIFO_RESET);
}

/// What was typed.
pub struct Console {
    line: [u8; LINE_MAX],
    len: usize,
    /// Whole lines, each with its newline.
    ready: [u8; READY_MAX],
    ready_len: usize,
    /// The process group that Ctrl-C ends; 0: none.
    pub foreground: u32,
}

impl Console {
    /// Nothing.
    pub const EMPTY: Self =
        Self { line: [0; LINE_MAX], len: 0, ready: [0; READY_MAX], ready_len: 0, foreground: 0 };

    /// Takes a whole line, if there is one, into `to`: its length.
    pub fn take(&mut self, to: &mut [u8]) -> Option<usize> {
        let ready = &self.ready[..self.ready_len];
        let line = ready.iter().position(|&byte| byte == b'\n')? + 1;
        let len = line.min(to.len());
        to[..len].copy_from_slice(&ready[..len]);
        self.ready.copy_within(len..self.ready_len, 0);
        self.ready_len -= len;
        Some(len)
    }

    /// The line is complete. What does not fit is lost.
    fn finish(&mut self) {
        if self.ready_len + self.len < READY_MAX {
            let at = self.ready_len;
            self.ready[at..at + self.len].copy_from_slice(&self.line[..self.len]);
            self.ready[at + self.len] = b'\n';
            self.ready_len += self.len + 1;
        }
        self.len = 0;
    }
}

impl Kernel {
    /// Takes what the UART has received.
    pub fn poll_console(&mut self) {
        while device_read(LINE_STATUS) & DATA_READY != 0 {
            self.typed(device_read(UART));
        }
    }

    fn typed(&mut self, byte: u8) {
        let console = &mut self.console;
        match byte {
            CTRL_C => {
                "^C\n".bytes().for_each(put);
                console.len = 0;
                match console.foreground {
                    0 => {
                        console.finish();
                        self.wake(Event::Line);
                    }
                    group => self.signal_group(group, SIGINT),
                }
            }
            b'\r' | b'\n' => {
                put(b'\n');
                console.finish();
                self.wake(Event::Line);
            }
            BACKSPACE | DELETE if console.len > 0 => {
                console.len -= 1;
                "\x08 \x08".bytes().for_each(put);
            }
            b' '..DELETE if console.len < LINE_MAX => {
                console.line[console.len] = byte;
                console.len += 1;
                put(byte);
            }
            _ => {}
        }
    }
}
