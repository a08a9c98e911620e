//! A line editor that is fed bytes and answers with what to echo.

use alloc::string::String;
use alloc::vec::Vec;

/// Most bytes of a line.
const LINE_MAX: usize = 256;

const CTRL_C: u8 = 3;
const BELL: u8 = 7;
const BACKSPACE: u8 = 8;
const CTRL_U: u8 = 21;
const CTRL_W: u8 = 23;
const ESCAPE: u8 = 27;
const DELETE: u8 = 127;

/// What a byte did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// It was edited in; nothing to do but echo.
    Edited,
    /// The line is complete.
    Line(String),
    /// The line was thrown away (^C): prompt again.
    Abandoned,
}

/// How far an escape sequence (an arrow key, say) has come. They are swallowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sequence {
    #[default]
    None,
    Escape,
    /// After `ESC [` or `ESC O`: up to a byte in `@..=~`.
    Control,
}

/// The line being typed.
#[derive(Debug, Default)]
pub struct Editor {
    line: Vec<u8>,
    sequence: Sequence,
    /// The last byte was a carriage return: a newline after it belongs to it.
    after_return: bool,
}

impl Editor {
    /// What has been typed of the line.
    #[must_use]
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// Takes a typed byte and appends its echo to `echo`.
    pub fn key(&mut self, byte: u8, echo: &mut Vec<u8>) -> Key {
        let after_return = core::mem::take(&mut self.after_return);
        match self.sequence {
            Sequence::None => {}
            Sequence::Escape => {
                self.sequence =
                    if matches!(byte, b'[' | b'O') { Sequence::Control } else { Sequence::None };
                return Key::Edited;
            }
            Sequence::Control => {
                if matches!(byte, b'@'..=b'~') {
                    self.sequence = Sequence::None;
                }
                return Key::Edited;
            }
        }
        match byte {
            b'\n' if after_return => {}
            b'\r' | b'\n' => {
                self.after_return = byte == b'\r';
                echo.extend_from_slice(b"\r\n");
                let line = core::mem::take(&mut self.line);
                return Key::Line(String::from_utf8_lossy(&line).into_owned());
            }
            CTRL_C => {
                echo.extend_from_slice(b"^C\r\n");
                self.line.clear();
                return Key::Abandoned;
            }
            BACKSPACE | DELETE => self.rub_out(echo),
            CTRL_U => {
                while !self.line.is_empty() {
                    self.rub_out(echo);
                }
            }
            CTRL_W => {
                while self.line.last() == Some(&b' ') {
                    self.rub_out(echo);
                }
                while self.line.last().is_some_and(|&b| b != b' ') {
                    self.rub_out(echo);
                }
            }
            ESCAPE => self.sequence = Sequence::Escape,
            b'\t' => self.insert(b' ', echo),
            b' '..=b'~' | 0x80.. => self.insert(byte, echo),
            _ => echo.push(BELL),
        }
        Key::Edited
    }

    fn insert(&mut self, byte: u8, echo: &mut Vec<u8>) {
        if self.line.len() < LINE_MAX {
            self.line.push(byte);
            echo.push(byte);
        } else {
            echo.push(BELL);
        }
    }

    /// Takes the last character back: all bytes of it, one column.
    fn rub_out(&mut self, echo: &mut Vec<u8>) {
        while let Some(byte) = self.line.pop() {
            // The bytes after the first of a UTF-8 character are 0b10xxxxxx.
            if byte & 0xc0 != 0x80 || self.line.is_empty() {
                echo.extend_from_slice(b"\x08 \x08");
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn type_in(bytes: &[u8]) -> (Vec<Key>, Vec<u8>) {
        let mut editor = Editor::default();
        let mut echo = Vec::new();
        let keys = bytes.iter().map(|&b| editor.key(b, &mut echo));
        (keys.filter(|k| *k != Key::Edited).collect(), echo)
    }

    fn lines(bytes: &[u8]) -> Vec<String> {
        let line = |k| match k {
            Key::Line(line) => line,
            other => panic!("{other:?}"),
        };
        type_in(bytes).0.into_iter().map(line).collect()
    }

    #[test]
    fn every_line_end_ends_one_line() {
        assert_eq!(lines(b"a\nb\rc\r\n\nd\r\r\n"), ["a", "b", "c", "", "d", ""]);
    }

    #[test]
    fn editing_keys() {
        assert_eq!(lines(b"vmx\x7fs\x08s\n"), ["vms"]);
        assert_eq!(lines(b"\x7f\x08x\n"), ["x"]);
        assert_eq!(lines(b"nonsense\x15vms\n"), ["vms"]);
        assert_eq!(lines(b"start a  \x17b\n"), ["start b"]);
        assert_eq!(lines("stärt\x7f\x7f\x7f\x7ftop\n".as_bytes()), ["stop"]);
        assert_eq!(lines(b"a\x1b[Ab\x1b[1;5Cc\x1bOPd\x1bxe\n"), ["abcde"]);
        assert_eq!(type_in(b"abc\x03").0, [Key::Abandoned]);
    }

    #[test]
    fn the_echo_is_what_a_terminal_needs() {
        assert_eq!(
            type_in("aä\x7f\x7f\x7fb\r".as_bytes()).1,
            "aä\x08 \x08\x08 \x08b\r\n".as_bytes()
        );
        assert_eq!(type_in(b"\x00ab\x03").1, b"\x07ab^C\r\n");
    }

    #[test]
    fn a_line_is_bounded() {
        let long = [b'x'; LINE_MAX + 5];
        let (_, echo) = type_in(&long);
        assert_eq!(echo[LINE_MAX..], [BELL; 5]);
        assert_eq!(lines(&[&long[..], b"\n"].concat())[0].len(), LINE_MAX);
    }

    #[test]
    fn any_bytes_are_harmless() {
        let mut rng = crate::rng::Rng::new(1);
        let bytes: Vec<u8> = (0..100_000).map(|_| rng.bits() as u8).collect();
        type_in(&bytes);
    }
}
