//! The log: a stream of the host link, and, until the monitor is up, plain text on UART 0.

use crate::uart::say;
use crate::{clock, link};
use abi::ring::stream;
use alloc::format;
use core::sync::atomic::{AtomicBool, Ordering};
use log::{LevelFilter, Log, Metadata, Record};

/// Longest line, in bytes.
const LINE_MAX: usize = 1024;

struct Logger {
    /// Whether lines also go to UART 0.
    boot: AtomicBool,
}

static LOGGER: Logger = Logger { boot: AtomicBool::new(false) };

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let level = record.level().as_str().to_ascii_lowercase();
        let mut line = format!("{level}: {}", record.args());
        if line.len() > LINE_MAX {
            let cut = (0..=LINE_MAX).rev().find(|&i| line.is_char_boundary(i)).unwrap_or(0);
            line.truncate(cut);
        }
        if self.boot.load(Ordering::Relaxed) {
            say!("monitor: {line}");
        }
        link::write(stream::LOG, clock::now(), line.as_bytes());
    }

    fn flush(&self) {}
}

/// Starts logging. Needs the heap; lines reach the host link once that is up. Of several cells one alone
/// prints on UART 0.
pub(crate) fn init(on_uart: bool) {
    LOGGER.boot.store(on_uart, Ordering::Relaxed);
    // Only a second call could fail, and it would change nothing.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(LevelFilter::Info);
}

/// From now on the log goes to the host link alone.
pub(crate) fn boot_is_over() {
    LOGGER.boot.store(false, Ordering::Relaxed);
}
