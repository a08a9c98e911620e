//! The terminal (or pipe) as a simulated guest's keyboard.

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};
use std::io::stdin;
use std::time::Duration;

/// Ctrl-]: leaves the simulation.
pub const QUIT: u8 = 0x1d;

/// Standard input. A terminal is in raw mode as long as this lives.
pub struct Keyboard {
    saved: Option<Termios>,
    /// There is nothing more to come.
    ended: bool,
}

impl Keyboard {
    /// Takes over standard input.
    ///
    /// # Errors
    /// When the terminal does not take its modes.
    pub fn new() -> Result<Self> {
        let stdin = stdin();
        if !isatty(&stdin) {
            return Ok(Self { saved: None, ended: false });
        }
        let saved = tcgetattr(&stdin)?;
        let mut raw = saved.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Self { saved: Some(saved), ended: false })
    }

    /// Whether a person sits there.
    pub fn is_terminal(&self) -> bool {
        self.saved.is_some()
    }

    /// Whether more may come.
    pub fn is_open(&self) -> bool {
        !self.ended
    }

    /// Waits at most `wait` for something typed; empty when nothing was.
    ///
    /// # Errors
    /// When standard input can't be read.
    pub fn read(&mut self, wait: Duration) -> Result<Vec<u8>> {
        let mut bytes = [0; 256];
        if self.ended {
            std::thread::sleep(wait);
            return Ok(Vec::new());
        }
        let stdin = stdin();
        let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
        let timeout = Timespec::try_from(wait)?;
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let n = rustix::io::read(&stdin, &mut bytes)?;
        self.ended = n == 0;
        Ok(bytes[..n].to_vec())
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            // Nothing more can be done where this fails.
            let _ = tcsetattr(stdin(), OptionalActions::Now, saved);
        }
    }
}
