//! All consoles on one plain output: whole lines, each behind the name of its console.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// How long a line without an end (a prompt) is held back.
const HOLD: Duration = Duration::from_millis(200);
/// Longest line that is held back.
const LONGEST: usize = 4096;

/// Prints what several consoles say.
#[derive(Debug)]
pub struct Printer<W> {
    out: W,
    /// Lines without an end, by console, and since when.
    partial: BTreeMap<String, (Vec<u8>, Instant)>,
    /// The console whose unfinished line the output ends with.
    open: Option<String>,
    /// The reader has gone; nothing more is printed.
    closed: bool,
}

impl<W: Write> Printer<W> {
    /// A printer to `out`.
    pub const fn new(out: W) -> Self {
        Self { out, partial: BTreeMap::new(), open: None, closed: false }
    }

    /// A console has printed bytes.
    pub fn bytes(&mut self, name: &str, bytes: &[u8], now: Instant) {
        let (mut held, _) = self.partial.remove(name).unwrap_or((Vec::new(), now));
        held.extend_from_slice(bytes);
        while let Some(end) = held.iter().position(|byte| *byte == b'\n') {
            let rest = held.split_off(end + 1);
            held.pop();
            while held.last() == Some(&b'\r') {
                held.pop();
            }
            self.emit(name, &held, true);
            held = rest;
        }
        if held.len() > LONGEST {
            self.emit(name, &held, false);
            held.clear();
        }
        if !held.is_empty() {
            self.partial.insert(name.to_string(), (held, now));
        }
    }

    /// Prints what has been held back long enough.
    pub fn tick(&mut self, now: Instant) {
        let due = |(_, (_, since)): &(&String, &(Vec<u8>, Instant))| now - *since >= HOLD;
        let names: Vec<_> = self.partial.iter().filter(due).map(|(name, _)| name.clone()).collect();
        for name in names {
            if let Some((held, _)) = self.partial.remove(&name) {
                self.emit(&name, &held, false);
            }
        }
        self.check(|out| out.flush());
    }

    /// Prints everything that is still held back and ends the line.
    pub fn finish(&mut self) {
        for (name, (held, _)) in std::mem::take(&mut self.partial) {
            self.emit(&name, &held, false);
        }
        if self.open.take().is_some() {
            self.check(|out| out.write_all(b"\n"));
        }
        self.check(|out| out.flush());
    }

    /// Prints part of a line of console `name`.
    fn emit(&mut self, name: &str, text: &[u8], ends: bool) {
        let goes_on = self.open.as_deref() == Some(name);
        let interrupts = self.open.is_some() && !goes_on;
        self.check(|out| {
            if interrupts {
                out.write_all(b"\n")?;
            }
            if !goes_on {
                write!(out, "{name}| ")?;
            }
            out.write_all(text)?;
            if ends { out.write_all(b"\n") } else { Ok(()) }
        });
        self.open = (!ends).then(|| name.to_string());
    }

    fn check(&mut self, write: impl FnOnce(&mut W) -> io::Result<()>) {
        // A reader that has had enough (`| head`) is no reason to end the run.
        if !self.closed && write(&mut self.out).is_err() {
            self.closed = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_whole_and_prompts_appear() {
        let start = Instant::now();
        let mut p = Printer::new(Vec::new());
        p.bytes("a", b"one\r\ntw", start);
        p.bytes("b", b"x\n", start);
        p.bytes("a", b"o\n# ", start);
        p.tick(start + HOLD / 2);
        assert_eq!(p.out, b"a| one\nb| x\na| two\n", "the prompt is held back");
        p.tick(start + HOLD);
        p.bytes("a", b"ls\n", start + HOLD);
        p.bytes("a", b"$ ", start + HOLD);
        p.tick(start + HOLD * 2);
        p.bytes("b", b"y", start + HOLD * 2);
        p.finish();
        let text = String::from_utf8(p.out).unwrap();
        assert_eq!(text, "a| one\nb| x\na| two\na| # ls\na| $ \nb| y\n");
    }

    #[test]
    fn an_endless_line_is_not_held_back_for_ever() {
        let mut p = Printer::new(Vec::new());
        p.bytes("a", &[b'x'; LONGEST + 1], Instant::now());
        assert_eq!(p.out.len(), LONGEST + 1 + 3);
    }

    #[test]
    fn a_reader_that_goes_away_is_no_error() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut p = Printer::new(Gone);
        p.bytes("a", b"x\n", Instant::now());
        assert!(p.closed);
    }
}
