//! The operator at a terminal: raw mode while the machine runs, the terminal as it was afterwards.

use super::drain::Keys;
use super::screen::{Screen, Wish};
use super::session::{Ask, Front};
use abi::event::{Event, Kind};
use abi::ring::stream;
use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcsetattr};
use std::collections::VecDeque;
use std::io::Write;
use std::time::{Duration, Instant};

/// How often the status line is renewed.
const STATUS: Duration = Duration::from_secs(1);
/// How long the monitor may take to quit before the machine is switched off.
const QUIT: Duration = Duration::from_secs(5);

/// Whether somebody sits at a terminal.
pub fn is_there() -> bool {
    isatty(stdin()) && isatty(stdout())
}

/// The terminal's modes, restored when this is dropped: on every way out, panics included.
#[derive(Debug)]
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Takes every key as it is typed.
    ///
    /// # Errors
    /// When the terminal's modes can't be changed.
    pub fn enter() -> Result<Self> {
        let before = tcgetattr(stdin()).context("can't read the terminal's modes")?;
        let mut raw = before.clone();
        raw.make_raw();
        // A bare newline still goes to the start of the next line.
        raw.output_modes |= OutputModes::OPOST | OutputModes::ONLCR;
        tcsetattr(stdin(), OptionalActions::Now, &raw).context("can't set the terminal's modes")?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Colours off, cursor on, a new line: a guest may have left anything.
        let _ = std::io::stdout().write_all(b"\x1b[0m\x1b[?25h\r\n");
        let _ = std::io::stdout().flush();
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}

/// The operator.
pub struct Terminal {
    raw: Option<Raw>,
    screen: Screen,
    start: Instant,
    next_status: Instant,
    running: usize,
    /// Typed, but the ring was full.
    pending: VecDeque<(u16, Vec<u8>)>,
    /// The operator has said quit; when the machine is switched off if it does not listen.
    quit_by: Option<Instant>,
}

impl Terminal {
    /// Takes over the terminal.
    ///
    /// # Errors
    /// When its modes can't be changed.
    pub fn new(names: Vec<String>) -> Result<Self> {
        let now = Instant::now();
        let raw = Some(Raw::enter()?);
        let (screen, pending) = (Screen::new(names), VecDeque::new());
        let next_status = now + STATUS;
        Ok(Self { raw, screen, start: now, next_status, running: 0, pending, quit_by: None })
    }

    fn show(&mut self) {
        let bytes = self.screen.take();
        if !bytes.is_empty() {
            // A terminal that takes nothing any more also ends its input, which ends the run.
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(&bytes);
            let _ = out.flush();
        }
    }

    fn type_pending(&mut self, keys: &mut Keys) {
        while let Some((to, bytes)) = self.pending.front_mut() {
            let taken = keys.type_at(*to, bytes);
            bytes.drain(..taken);
            if !bytes.is_empty() {
                return;
            }
            self.pending.pop_front();
        }
    }

    fn quit(&mut self) {
        if self.quit_by.is_none() {
            self.screen.notice("quitting");
            self.quit_by = Some(Instant::now() + QUIT);
            // Whatever is half-typed there is thrown away first (Ctrl-U).
            self.pending.push_back((stream::MONITOR, b"\x15quit\r".to_vec()));
        }
    }
}

impl Front for Terminal {
    fn output(&mut self, name: &str, number: Option<u16>, bytes: &[u8]) {
        match number {
            Some(number) => self.screen.output(number, bytes),
            None if name == "boot" => self.screen.boot_line(bytes),
            None => {}
        }
    }

    fn event(&mut self, event: &Event) {
        match &event.kind {
            Kind::VmStart { .. } => self.running += 1,
            Kind::VmEnd { vm, cause } => {
                self.running = self.running.saturating_sub(1);
                let cause = cause.as_str();
                self.screen.notice(&format!("VM {vm} has ended: {cause}; Ctrl-] opens the menu"));
            }
            _ => {}
        }
    }

    fn wait(&mut self, pause: Duration, keys: &mut Keys) -> Ask {
        let now = Instant::now();
        if now >= self.next_status {
            self.next_status = now + STATUS;
            self.screen.status(now - self.start, self.running);
        }
        self.show();
        self.type_pending(keys);
        let input = stdin();
        let mut fds = [PollFd::new(&input, PollFlags::IN)];
        let pause = Timespec { tv_sec: 0, tv_nsec: pause.as_nanos() as _ };
        // Interrupted by a signal: the session looks at it.
        let ready = rustix::event::poll(&mut fds, Some(&pause)).unwrap_or(0);
        if ready > 0 {
            let mut buffer = [0; 1024];
            match rustix::io::read(input, &mut buffer) {
                Ok(0) | Err(rustix::io::Errno::IO) => return Ask::EndNow,
                Ok(count) => {
                    for wish in self.screen.keys(&buffer[..count]) {
                        match wish {
                            Wish::Type(to, bytes) => self.pending.push_back((to, bytes)),
                            Wish::Quit => self.quit(),
                        }
                    }
                    self.type_pending(keys);
                    self.show();
                }
                Err(_) => {}
            }
        }
        if self.quit_by.is_some_and(|by| now >= by) { Ask::EndNow } else { Ask::GoOn }
    }

    fn finish(&mut self) {
        self.show();
        self.raw = None;
    }
}
