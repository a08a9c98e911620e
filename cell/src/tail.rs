//! The last of what a console printed, for reports.

use alloc::collections::VecDeque;
use alloc::string::String;
use core::fmt::Write;

/// Most bytes kept.
const BYTES: usize = 3000;
/// Most lines shown.
const LINES: usize = 20;

/// The last bytes of a console.
#[derive(Debug)]
pub struct Tail {
    bytes: VecDeque<u8>,
}

impl Tail {
    /// Nothing printed yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: VecDeque::new() }
    }

    /// Whether nothing was ever added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds output.
    pub fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(BYTES)..];
        let excess = (self.bytes.len() + bytes.len()).saturating_sub(BYTES);
        self.bytes.drain(..excess);
        self.bytes.extend(bytes);
    }

    /// The last lines, each after `indent`, with what is not printable made visible.
    #[must_use]
    pub fn lines(&self, indent: &str) -> String {
        let bytes: alloc::vec::Vec<u8> = self.bytes.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: alloc::vec::Vec<&str> =
            text.trim_end_matches(['\r', '\n']).split('\n').collect();
        let mut out = String::new();
        for line in &lines[lines.len().saturating_sub(LINES)..] {
            out.push_str(indent);
            for c in line.trim_end_matches('\r').chars() {
                if c.is_control() && c != '\t' {
                    // Writing to a string does not fail.
                    let _ = write!(out, "\\x{:02x}", u32::from(c));
                } else {
                    out.push(c);
                }
            }
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_last_lines_whole_and_printable() {
        let mut tail = Tail::new();
        for i in 0..1000 {
            tail.push(alloc::format!("line {i}\r\n").as_bytes());
        }
        tail.push(b"\x1b[1mprompt\xff# ");
        let lines = tail.lines("| ");
        assert_eq!(lines.lines().count(), LINES);
        assert!(lines.starts_with("| line 981\n"), "{lines}");
        assert!(lines.ends_with("| \\x1b[1mprompt\u{fffd}# \n"), "{lines}");
    }

    #[test]
    fn is_bounded() {
        let mut tail = Tail::new();
        tail.push(&[b'x'; 3 * BYTES]);
        tail.push(&[b'y'; BYTES - 1]);
        assert_eq!(tail.bytes.len(), BYTES);
        assert_eq!(tail.bytes[0], b'x');
        assert_eq!(tail.bytes[1], b'y');
    }
}
