//! A line editor that is fed bytes and answers with what to echo.
//!
//! It asks nothing of its terminal but the backspace and "clear to the end of the line" (`ESC [ K`), and keeps
//! no account of its width: a line is edited within one row of the screen.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

/// Most characters of a line.
const LINE_MAX: usize = 256;
/// Most lines of history.
const HISTORY_MAX: usize = 64;
/// Most bytes of an escape sequence that is looked at.
const SEQUENCE_MAX: usize = 8;

const fn ctrl(letter: u8) -> u8 {
    letter & 0x1f
}
const BELL: u8 = 7;
const BACKSPACE: u8 = 8;
const ESCAPE: u8 = 27;
const DELETE: u8 = 127;
const CLEAR_REST: &[u8] = b"\x1b[K";

/// What a byte did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// It was edited in; nothing to do but echo.
    Edited,
    /// The line is complete.
    Line(String),
    /// The line was thrown away (^C): prompt again.
    Abandoned,
    /// The last word can become each of these: show them, and prompt again.
    Choices(Vec<String>),
    /// The screen was cleared (^L): prompt again.
    Cleared,
}

/// How far an escape sequence (an arrow key, say) has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Sequence {
    #[default]
    None,
    Escape,
    /// After `ESC [` or `ESC O`: what followed, up to a byte in `@..=~`.
    Control(Vec<u8>),
}

/// The line being typed.
#[derive(Debug, Default)]
pub struct Editor {
    line: Vec<char>,
    /// Characters before the cursor.
    cursor: usize,
    /// The first bytes of a character whose others have yet to come.
    partial: Vec<u8>,
    sequence: Sequence,
    /// The last byte was a carriage return: a newline after it belongs to it.
    after_return: bool,
    history: VecDeque<Vec<char>>,
    /// How far back in the history the line is, from 1; 0: it is new.
    back: usize,
    /// The new line while an old one is shown.
    new_line: Vec<char>,
}

impl Editor {
    /// What a prompt is followed by: the line so far, with the cursor where it is.
    #[must_use]
    pub fn shown(&self) -> Vec<u8> {
        let mut out = Vec::new();
        write(&self.line, &mut out);
        left(self.line.len() - self.cursor, &mut out);
        out
    }

    /// Takes a typed byte and appends its echo to `echo`. `complete` says what the last word of a line can
    /// become.
    pub fn key(
        &mut self,
        byte: u8,
        echo: &mut Vec<u8>,
        complete: impl FnOnce(&str) -> Vec<String>,
    ) -> Key {
        let after_return = core::mem::take(&mut self.after_return);
        match core::mem::take(&mut self.sequence) {
            Sequence::None => {}
            Sequence::Escape => {
                match byte {
                    b'[' | b'O' => self.sequence = Sequence::Control(Vec::new()),
                    b'b' => self.move_to(self.word_before(), echo),
                    b'f' => self.move_to(self.word_after(), echo),
                    _ => {}
                }
                return Key::Edited;
            }
            Sequence::Control(mut bytes) => {
                if bytes.len() < SEQUENCE_MAX {
                    bytes.push(byte);
                }
                if matches!(byte, b'@'..=b'~') {
                    self.control(&bytes, echo);
                } else {
                    self.sequence = Sequence::Control(bytes);
                }
                return Key::Edited;
            }
        }
        if byte < 0x80 {
            self.partial.clear();
        }
        match byte {
            b'\n' if after_return => {}
            b'\r' | b'\n' => {
                self.after_return = byte == b'\r';
                echo.extend_from_slice(b"\r\n");
                return Key::Line(self.finish());
            }
            b'\t' => return self.complete(echo, complete),
            ESCAPE => self.sequence = Sequence::Escape,
            BACKSPACE | DELETE => self.erase(self.cursor.saturating_sub(1), echo),
            b' '..=b'~' => self.insert(&[char::from(byte)], echo),
            0x80.. => self.insert_byte(byte, echo),
            _ => return self.control_key(byte, echo),
        }
        Key::Edited
    }

    fn control_key(&mut self, byte: u8, echo: &mut Vec<u8>) -> Key {
        const A: u8 = ctrl(b'A');
        const B: u8 = ctrl(b'B');
        const C: u8 = ctrl(b'C');
        const D: u8 = ctrl(b'D');
        const E: u8 = ctrl(b'E');
        const F: u8 = ctrl(b'F');
        const K: u8 = ctrl(b'K');
        const L: u8 = ctrl(b'L');
        const N: u8 = ctrl(b'N');
        const P: u8 = ctrl(b'P');
        const U: u8 = ctrl(b'U');
        const W: u8 = ctrl(b'W');
        match byte {
            A => self.move_to(0, echo),
            B => self.move_to(self.cursor.saturating_sub(1), echo),
            C => {
                echo.extend_from_slice(b"^C\r\n");
                self.reset();
                return Key::Abandoned;
            }
            D => self.delete(echo),
            E => self.move_to(self.line.len(), echo),
            F => self.move_to(self.cursor + 1, echo),
            K => {
                if self.cursor < self.line.len() {
                    self.line.truncate(self.cursor);
                    echo.extend_from_slice(CLEAR_REST);
                }
            }
            L => {
                echo.extend_from_slice(b"\x1b[H\x1b[2J");
                return Key::Cleared;
            }
            N => self.recall(self.back.wrapping_sub(1), echo),
            P => self.recall(self.back + 1, echo),
            U => {
                self.move_to(self.line.len(), echo);
                self.erase(0, echo);
            }
            W => self.erase(self.word_before(), echo),
            _ => echo.push(BELL),
        }
        Key::Edited
    }

    /// A key that sends `ESC [` (or `ESC O`) and these bytes.
    fn control(&mut self, bytes: &[u8], echo: &mut Vec<u8>) {
        match bytes {
            b"A" => self.recall(self.back + 1, echo),
            b"B" => self.recall(self.back.wrapping_sub(1), echo),
            b"C" => self.move_to(self.cursor + 1, echo),
            b"D" => self.move_to(self.cursor.saturating_sub(1), echo),
            b"H" | b"1~" | b"7~" => self.move_to(0, echo),
            b"F" | b"4~" | b"8~" => self.move_to(self.line.len(), echo),
            b"3~" => self.delete(echo),
            b"1;5C" => self.move_to(self.word_after(), echo),
            b"1;5D" => self.move_to(self.word_before(), echo),
            _ => {}
        }
    }

    /// The line, which goes into the history.
    fn finish(&mut self) -> String {
        let line = core::mem::take(&mut self.line);
        let text = line.iter().collect();
        if !line.iter().all(|c| *c == ' ') && self.history.back() != Some(&line) {
            if self.history.len() == HISTORY_MAX {
                self.history.pop_front();
            }
            self.history.push_back(line);
        }
        self.reset();
        text
    }

    fn reset(&mut self) {
        self.line.clear();
        self.new_line.clear();
        (self.cursor, self.back) = (0, 0);
    }

    fn move_to(&mut self, place: usize, echo: &mut Vec<u8>) {
        let place = place.min(self.line.len());
        left(self.cursor.saturating_sub(place), echo);
        write(&self.line[self.cursor.min(place)..place], echo);
        self.cursor = place;
    }

    fn insert_byte(&mut self, byte: u8, echo: &mut Vec<u8>) {
        self.partial.push(byte);
        match core::str::from_utf8(&self.partial) {
            Ok(text) => {
                let whole: Vec<char> = text.chars().collect();
                self.partial.clear();
                self.insert(&whole, echo);
            }
            // More of it is to come.
            Err(error) if error.error_len().is_none() => {}
            Err(_) => {
                self.partial.clear();
                echo.push(BELL);
            }
        }
    }

    fn insert(&mut self, text: &[char], echo: &mut Vec<u8>) {
        if self.line.len() + text.len() > LINE_MAX {
            echo.push(BELL);
            return;
        }
        self.line.splice(self.cursor..self.cursor, text.iter().copied());
        write(&self.line[self.cursor..], echo);
        self.cursor += text.len();
        left(self.line.len() - self.cursor, echo);
    }

    /// Takes back what is between `from` and the cursor.
    fn erase(&mut self, from: usize, echo: &mut Vec<u8>) {
        let count = self.cursor - from;
        if self.cursor == self.line.len() {
            for _ in 0..count {
                echo.extend_from_slice(b"\x08 \x08");
            }
            self.line.truncate(from);
        } else {
            self.line.drain(from..self.cursor);
            left(count, echo);
            self.show_rest(from, echo);
        }
        self.cursor = from;
    }

    fn delete(&mut self, echo: &mut Vec<u8>) {
        if self.cursor < self.line.len() {
            self.line.remove(self.cursor);
            self.show_rest(self.cursor, echo);
        }
    }

    /// Shows the line anew from where the screen's cursor is.
    fn show_rest(&self, from: usize, echo: &mut Vec<u8>) {
        write(&self.line[from..], echo);
        echo.extend_from_slice(CLEAR_REST);
        left(self.line.len() - from, echo);
    }

    fn word_before(&self) -> usize {
        let before = &self.line[..self.cursor];
        let end = before.iter().rposition(|c| *c != ' ').map_or(0, |last| last + 1);
        before[..end].iter().rposition(|c| *c == ' ').map_or(0, |space| space + 1)
    }

    fn word_after(&self) -> usize {
        let after = &self.line[self.cursor..];
        let start = after.iter().position(|c| *c != ' ').unwrap_or(after.len());
        let word = after[start..].iter().position(|c| *c == ' ').unwrap_or(after.len() - start);
        self.cursor + start + word
    }

    /// Shows the line that is `back` lines back in the history; 0: the new one.
    fn recall(&mut self, back: usize, echo: &mut Vec<u8>) {
        let line = match self.history.len().checked_sub(back) {
            None => {
                echo.push(BELL);
                return;
            }
            Some(_) if back == 0 => core::mem::take(&mut self.new_line),
            Some(at) => self.history[at].clone(),
        };
        self.move_to(0, echo);
        let before = core::mem::replace(&mut self.line, line);
        if self.back == 0 {
            self.new_line = before;
        }
        self.back = back;
        write(&self.line, echo);
        echo.extend_from_slice(CLEAR_REST);
        self.cursor = self.line.len();
    }

    fn complete(&mut self, echo: &mut Vec<u8>, complete: impl FnOnce(&str) -> Vec<String>) -> Key {
        let before: String = self.line[..self.cursor].iter().collect();
        let word = self.line[..self.cursor].iter().rev().take_while(|c| **c != ' ').count();
        let choices = complete(&before);
        let Some(first) = choices.first() else {
            echo.push(BELL);
            return Key::Edited;
        };
        let mut common: Vec<char> = first.chars().collect();
        for choice in &choices {
            let same = common.iter().zip(choice.chars()).take_while(|(a, b)| **a == *b).count();
            common.truncate(same);
        }
        if choices.len() == 1 {
            common.push(' ');
        } else if common.len() <= word {
            echo.extend_from_slice(b"\r\n");
            return Key::Choices(choices);
        }
        self.insert(&common[word..], echo);
        Key::Edited
    }
}

fn write(text: &[char], echo: &mut Vec<u8>) {
    for c in text {
        echo.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

/// So many columns to the left.
fn left(count: usize, echo: &mut Vec<u8>) {
    echo.resize(echo.len() + count, BACKSPACE);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(line: &str) -> Vec<String> {
        let word = line.rsplit(' ').next().unwrap_or(line);
        let known = ["start", "stats", "stop", "sum"];
        known.into_iter().filter(|name| name.starts_with(word)).map(String::from).collect()
    }

    fn type_in(bytes: &[u8]) -> (Vec<Key>, Vec<u8>) {
        let mut editor = Editor::default();
        let mut echo = Vec::new();
        let keys = bytes.iter().map(|&b| editor.key(b, &mut echo, names));
        (keys.filter(|k| *k != Key::Edited).collect(), echo)
    }

    fn lines(bytes: &[u8]) -> Vec<String> {
        let line = |k| match k {
            Key::Line(line) => line,
            other => panic!("{other:?}"),
        };
        type_in(bytes).0.into_iter().map(line).collect()
    }

    /// What a terminal shows of an echo, and the column of its cursor: last row only.
    fn screen(echo: &[u8]) -> (String, usize) {
        let (mut row, mut at): (Vec<char>, usize) = (Vec::new(), 0);
        let text = String::from_utf8(echo.to_vec()).unwrap();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '\n' => row.clear(),
                '\r' => at = 0,
                '\x08' => at = at.checked_sub(1).expect("a column"),
                '\x07' => {}
                '\x1b' => {
                    assert_eq!((chars.next(), chars.next()), (Some('['), Some('K')));
                    row.truncate(at);
                }
                c => {
                    if at == row.len() {
                        row.push(c);
                    } else {
                        row[at] = c;
                    }
                    at += 1;
                }
            }
        }
        (row.into_iter().collect::<String>().trim_end().into(), at)
    }

    #[test]
    fn every_line_end_ends_one_line() {
        assert_eq!(lines(b"a\nb\rc\r\n\nd\r\r\n"), ["a", "b", "c", "", "d", ""]);
    }

    #[test]
    fn editing_at_the_end() {
        assert_eq!(lines(b"vmx\x7fs\x08s\n"), ["vms"]);
        assert_eq!(lines(b"\x7f\x08x\n"), ["x"]);
        assert_eq!(lines(b"nonsense\x15vms\n"), ["vms"]);
        assert_eq!(lines(b"start a  \x17b\n"), ["start b"]);
        assert_eq!(lines("st\u{e4}rt\x7f\x7f\x7ftop\n".as_bytes()), ["sttop"]);
        assert_eq!(lines(b"a\x1b[9~b\x1b[1;9Cc\x1bOPd\x1bxe\n"), ["abcde"]);
        assert_eq!(type_in(b"abc\x03").0, [Key::Abandoned]);
        assert_eq!(type_in(b"abc\x0c").0, [Key::Cleared]);
    }

    #[test]
    fn editing_in_the_middle() {
        const LEFT: &str = "\x1b[D";
        const RIGHT: &str = "\x1bOC";
        for (typed, line) in [
            (format!("vs{LEFT}m"), "vms"),
            (format!("xvms{LEFT}{LEFT}{LEFT}\x7f"), "vms"),
            (format!("vxms\x01{RIGHT}\x1b[3~"), "vms"),
            (format!("vxms\x01{RIGHT}\x04{RIGHT}{RIGHT}{RIGHT}{RIGHT}"), "vms"),
            ("ms\x1b[Hv\x1b[F ".into(), "vms "),
            ("art\x1b[1~st\x1b[4~ b".into(), "start b"),
            (format!("stop a{LEFT}{LEFT}\x0b"), "stop"),
            (format!("stop linux{LEFT}{LEFT}\x17"), "stop ux"),
            (format!("stop x y{LEFT}{LEFT}\x15vms"), "vms"),
            ("a bc d\x1b[1;5D\x1bb\x1bb\x1b[1;5Cx\x1bfy\x02\x06z".into(), "ax bcyz d"),
            (format!("g\u{fc}n{LEFT}\x7fr\u{fc}"), "gr\u{fc}n"),
        ] {
            let (keys, echo) = type_in(typed.as_bytes());
            assert_eq!(keys, []);
            assert_eq!(screen(&echo).0, line.trim_end(), "{typed:?}");
            assert_eq!(lines(format!("{typed}\r").as_bytes()), [line], "{typed:?}");
        }
        assert_eq!(screen(&type_in(format!("abc{LEFT}x").as_bytes()).1), ("abxc".into(), 3));
    }

    #[test]
    fn the_echo_is_what_a_terminal_needs() {
        assert_eq!(
            type_in("a\u{e4}\x7f\x7f\x7fb\r".as_bytes()).1,
            "a\u{e4}\x08 \x08\x08 \x08b\r\n".as_bytes()
        );
        assert_eq!(type_in(b"\x00ab\x03").1, b"\x07ab^C\r\n");
        let mut editor = Editor::default();
        for byte in b"abc\x1b[D\x1b[D" {
            editor.key(*byte, &mut Vec::new(), names);
        }
        assert_eq!(editor.shown(), b"abc\x08\x08");
    }

    #[test]
    fn history_brings_back_lines_and_the_new_one() {
        const UP: &str = "\x1b[A";
        const DOWN: &str = "\x1b[B";
        let typed = |text: String| lines(format!("one\rtwo\rtwo\r  \r{text}\r").as_bytes());
        assert_eq!(typed(UP.into())[4], "two");
        assert_eq!(typed(format!("{UP}{UP}"))[4], "one");
        assert_eq!(typed(format!("{UP}{UP}{UP}{UP}!"))[4], "one!");
        assert_eq!(typed(format!("new{UP}{UP}{DOWN}{DOWN}{DOWN}er"))[4], "newer");
        assert_eq!(typed(format!("\x10\x10\x0e{UP}{UP}\x01x"))[4], "xone");
        // What was brought back and changed is a line of its own.
        let changed = typed(format!("{UP}s\r{UP}{UP}"));
        assert_eq!(changed[4..], ["twos", "two"]);
        let (_, echo) = type_in(format!("long line\rx\ry{UP}{UP}{UP}{DOWN}").as_bytes());
        assert_eq!(screen(&echo), ("x".into(), 1));
        let many: String = (0..HISTORY_MAX + 5).map(|i| format!("line {i}\r")).collect();
        let ups = UP.repeat(HISTORY_MAX + 5);
        assert_eq!(lines(format!("{many}{ups}\r").as_bytes()).last().unwrap(), "line 5");
    }

    #[test]
    fn tab_completes_words() {
        assert_eq!(lines(b"su\t\r"), ["sum "]);
        assert_eq!(lines(b"sum sto\tx\r"), ["sum stop x"]);
        assert_eq!(lines(b"sto\t\x7f\x7fx\r"), ["stox"]);
        let (keys, echo) = type_in(b"sta\t");
        assert_eq!(keys, [Key::Choices(["start", "stats"].map(String::from).into())]);
        assert_eq!(echo, b"sta\r\n");
        assert_eq!(type_in(b"xyz\t").1, b"xyz\x07");
        assert_eq!(lines(b"su rest\x01\x06\x06\t\r"), ["sum  rest"]);
    }

    #[test]
    fn a_line_is_bounded() {
        let long = [b'x'; LINE_MAX + 5];
        let (_, echo) = type_in(&long);
        assert_eq!(echo[LINE_MAX..], [BELL; 5]);
        assert_eq!(lines(&[&long[..], b"\n"].concat())[0].len(), LINE_MAX);
    }

    /// The screen shows the line after any keys.
    #[test]
    fn any_bytes_are_harmless() {
        let mut rng = crate::rng::Rng::new(1);
        let mut editor = Editor::default();
        for _ in 0..100_000 {
            editor.key(rng.bits() as u8, &mut Vec::new(), names);
        }
        let keys: [&[u8]; 16] = [
            b"a",
            b"b ",
            b"\x7f",
            b"\x1b[D",
            b"\x1b[D",
            b"\x1b[C",
            b"\x1b[A",
            b"\x1b[B",
            b"\x01",
            b"\x05",
            b"\x0b",
            b"\x17",
            b"\x04",
            b"\x1b[1;5D",
            b"\x1b[1;5C",
            b"\xc3\xa4",
        ];
        for _ in 0..300 {
            let mut editor = Editor::default();
            let mut echo = Vec::new();
            for line in [&b"one two\r"[..], b"three\r"] {
                for byte in line {
                    editor.key(*byte, &mut echo, names);
                }
            }
            for _ in 0..40 {
                for byte in keys[rng.bits() as usize % keys.len()] {
                    editor.key(*byte, &mut echo, names);
                }
                let line: String = editor.line.iter().collect();
                assert_eq!(screen(&echo), (line.trim_end().into(), editor.cursor));
            }
        }
    }
}
