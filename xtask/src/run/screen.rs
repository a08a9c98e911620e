//! What an operator at a terminal sees and types: consoles to attach to, a menu, a status line.
//!
//! This is the logic alone: bytes in, bytes out. [`super::terminal`] has the terminal.

use crate::console::Scrollback;
use abi::VmId;
use abi::ring::{stream, vm_stream};
use std::collections::BTreeMap;
use std::time::Duration;

/// Opens the menu: Ctrl-].
const MENU: u8 = 0x1d;
const CTRL_C: u8 = 0x03;
/// Back to the start of the line, and clear it.
const CLEAR_LINE: &[u8] = b"\r\x1b[K";

/// What a key asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Type this at a console.
    Type(u16, Vec<u8>),
    /// End the run.
    Quit,
}

/// One operator's view.
#[derive(Debug)]
pub struct Screen {
    names: Vec<String>,
    kept: BTreeMap<u16, Scrollback>,
    attached: u16,
    /// The menu is open; what has been typed of a console's number.
    menu: Option<String>,
    /// The operator has typed at a console: it is past its boot.
    typed: bool,
    /// Nothing stands on the screen's last line.
    at_line_start: bool,
    /// The status line stands there.
    status_shown: bool,
    out: Vec<u8>,
}

impl Screen {
    /// The first screen: attached to the first VM's console, or without VMs to the monitor's.
    pub fn new(names: Vec<String>) -> Self {
        let attached = if names.is_empty() { stream::MONITOR } else { vm_stream(VmId(0)) };
        let mut screen = Self {
            names,
            kept: BTreeMap::new(),
            attached,
            menu: None,
            typed: false,
            at_line_start: true,
            status_shown: false,
            out: Vec::new(),
        };
        let name = screen.name(attached).to_string();
        screen.notice(&format!("this is the console of {name}"));
        screen.notice("Ctrl-] opens a menu: consoles, monitor, quit; until you type, Ctrl-C quits");
        screen
    }

    /// What is to be written to the terminal.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    fn name(&self, number: u16) -> &str {
        let vm = number.checked_sub(stream::VM_BASE).and_then(|vm| self.names.get(usize::from(vm)));
        vm.map_or("monitor", String::as_str)
    }

    fn write(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if std::mem::take(&mut self.status_shown) {
            self.out.extend_from_slice(CLEAR_LINE);
        }
        self.out.extend_from_slice(bytes);
        self.at_line_start = bytes.ends_with(b"\n");
    }

    /// A line from this program, not from a console.
    pub fn notice(&mut self, text: &str) {
        if !self.at_line_start {
            self.write(b"\r\n");
        }
        self.write(format!("[{text}]\r\n").as_bytes());
    }

    /// A console has printed bytes.
    pub fn output(&mut self, number: u16, bytes: &[u8]) {
        self.kept.entry(number).or_default().push(bytes);
        if number == self.attached && self.menu.is_none() {
            self.write(bytes);
        }
    }

    /// A line of the boot log: shown whatever is attached.
    pub fn boot_line(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        self.notice(line.trim_end());
    }

    /// Shows what is going on while nobody has typed yet and no prompt waits.
    pub fn status(&mut self, elapsed: Duration, running: usize) {
        if self.typed || self.menu.is_some() || !(self.at_line_start || self.status_shown) {
            return;
        }
        let printed = self.kept.get(&self.attached).map_or(0, Scrollback::end);
        let name = self.name(self.attached).to_string();
        let vms = if running == 1 { "1 VM runs".into() } else { format!("{running} VMs run") };
        let line = format!(
            "[{} s: {vms}; {name} has printed {printed} bytes; Ctrl-] menu]",
            elapsed.as_secs()
        );
        self.write(line.as_bytes());
        self.status_shown = true;
    }

    /// The operator has typed bytes.
    pub fn keys(&mut self, bytes: &[u8]) -> Vec<Wish> {
        let mut wishes: Vec<Wish> = Vec::new();
        for &byte in bytes {
            let wish = if self.menu.is_some() { self.menu_key(byte) } else { self.key(byte) };
            match (wish, wishes.last_mut()) {
                (Some(Wish::Type(to, more)), Some(Wish::Type(last, bytes))) if to == *last => {
                    bytes.extend(more);
                }
                (Some(wish), _) => wishes.push(wish),
                (None, _) => {}
            }
        }
        wishes
    }

    fn key(&mut self, byte: u8) -> Option<Wish> {
        match byte {
            MENU => {
                self.open_menu();
                None
            }
            CTRL_C if !self.typed => Some(Wish::Quit),
            _ => {
                self.typed = true;
                Some(Wish::Type(self.attached, vec![byte]))
            }
        }
    }

    fn open_menu(&mut self) {
        self.menu = Some(String::new());
        let mut lines = vec!["menu; any other key goes back to the console".to_string()];
        for (i, name) in self.names.iter().enumerate() {
            let stream = vm_stream(VmId(i as u16));
            let mark = if stream == self.attached { ", attached" } else { "" };
            lines.push(format!("  {}  console of VM {name}{mark}", i + 1));
        }
        if self.names.len() > 9 {
            lines.push("     (Enter after the number)".into());
        }
        let mark = if self.attached == stream::MONITOR { ", attached" } else { "" };
        lines.push(format!("  m  console of the monitor{mark}"));
        lines.push("  q  quit: end all VMs and the run".into());
        lines.push("  Ctrl-]  type a Ctrl-] at the console".into());
        for line in lines {
            self.notice(&line);
        }
    }

    fn menu_key(&mut self, byte: u8) -> Option<Wish> {
        let mut number = self.menu.take().unwrap_or_default();
        match byte {
            b'0'..=b'9' => {
                number.push(char::from(byte));
                if self.names.len() > 9 {
                    self.menu = Some(number);
                } else {
                    self.attach_number(&number);
                }
            }
            b'\r' | b'\n' if !number.is_empty() => self.attach_number(&number),
            b'm' => self.attach(stream::MONITOR),
            b'q' | CTRL_C => return Some(Wish::Quit),
            MENU => {
                self.attach(self.attached);
                self.typed = true;
                return Some(Wish::Type(self.attached, vec![MENU]));
            }
            _ => self.attach(self.attached),
        }
        None
    }

    fn attach_number(&mut self, number: &str) {
        let vm = number.parse::<u16>().ok().and_then(|number| number.checked_sub(1));
        match vm.filter(|vm| usize::from(*vm) < self.names.len()) {
            Some(vm) => self.attach(vm_stream(VmId(vm))),
            None => {
                self.notice(&format!("there is no VM {number}"));
                self.attach(self.attached);
            }
        }
    }

    /// Shows a console, with what it has printed before.
    fn attach(&mut self, number: u16) {
        self.attached = number;
        let name = self.name(number).to_string();
        self.notice(&format!("this is the console of {name}"));
        let Some(kept) = self.kept.get(&number) else { return };
        let rest = kept.since(0);
        let (cut, bytes) = (rest.cut, rest.pieces.concat());
        if cut > 0 {
            self.notice(&format!("{cut} bytes are not kept any more"));
        }
        self.write(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(vms: usize) -> Screen {
        let mut screen = Screen::new((0..vms).map(|i| format!("vm{i}")).collect());
        let first = String::from_utf8(screen.take()).unwrap();
        assert!(first.contains("Ctrl-] opens a menu: consoles, monitor, quit"));
        screen
    }

    fn text(screen: &mut Screen) -> String {
        String::from_utf8(screen.take()).unwrap()
    }

    #[test]
    fn the_attached_console_is_shown_and_typed_at() {
        let mut s = screen(2);
        s.output(16, b"login: ");
        s.output(17, b"not shown");
        assert_eq!(text(&mut s), "login: ");
        assert_eq!(s.keys(b"ab\r"), [Wish::Type(16, b"ab\r".to_vec())]);
    }

    #[test]
    fn attaching_shows_what_was_missed() {
        let mut s = screen(2);
        s.output(17, b"one\r\n# ");
        assert_eq!(s.keys(b"\x1d"), []);
        let menu = text(&mut s);
        assert!(
            menu.contains("1  console of VM vm0, attached\u{5d}") || menu.contains("vm0, attached")
        );
        assert!(menu.contains("m  console of the monitor") && menu.contains("q  quit"));
        s.output(16, b"while the menu is open");
        assert_eq!(text(&mut s), "");
        assert_eq!(s.keys(b"2x"), [Wish::Type(17, b"x".to_vec())]);
        assert_eq!(text(&mut s), "[this is the console of vm1]\r\none\r\n# ");
        s.keys(b"\x1dm");
        assert_eq!(s.keys(b"vms\r"), [Wish::Type(0, b"vms\r".to_vec())]);
        text(&mut s);
        s.keys(b"\x1d1");
        assert!(text(&mut s).ends_with("while the menu is open"));
        s.keys(b"\x1d7");
        assert!(text(&mut s).contains("[there is no VM 7]"));
    }

    #[test]
    fn many_consoles_have_numbers_of_several_digits() {
        let mut s = screen(12);
        s.keys(b"\x1d12\r");
        assert_eq!(s.keys(b"x"), [Wish::Type(27, b"x".to_vec())]);
    }

    #[test]
    fn quitting() {
        assert_eq!(screen(1).keys(b"\x1dq"), [Wish::Quit]);
        assert_eq!(screen(1).keys(b"\x1d\x03"), [Wish::Quit]);
        // During boot Ctrl-C is for us, afterwards for the guest.
        assert_eq!(screen(1).keys(b"\x03"), [Wish::Quit]);
        assert_eq!(screen(1).keys(b"x\x03"), [Wish::Type(16, b"x\x03".to_vec())]);
    }

    #[test]
    fn any_other_key_leaves_the_menu_and_a_second_one_is_typed() {
        let mut s = screen(1);
        assert_eq!(s.keys(b"\x1dzx"), [Wish::Type(16, b"x".to_vec())]);
        assert_eq!(s.keys(b"\x1d\x1d"), [Wish::Type(16, b"\x1d".to_vec())]);
    }

    #[test]
    fn the_status_line_gives_way() {
        let mut s = screen(1);
        s.status(Duration::from_secs(3), 1);
        assert!(text(&mut s).starts_with("[3 s: 1 VM runs; vm0 has printed 0 bytes"));
        s.status(Duration::from_secs(4), 1);
        assert!(text(&mut s).starts_with("\r\x1b[K[4 s: "));
        s.output(16, b"hello\r\n# ");
        assert_eq!(text(&mut s), "\r\x1b[Khello\r\n# ");
        s.status(Duration::from_secs(5), 1);
        assert_eq!(text(&mut s), "", "a prompt is waiting");
        s.output(16, b"\r\n");
        s.keys(b"x");
        text(&mut s);
        s.status(Duration::from_secs(6), 1);
        assert_eq!(text(&mut s), "", "the operator is at work");
    }

    #[test]
    fn what_is_not_kept_any_more_is_said() {
        let mut s = screen(2);
        for _ in 0..3 {
            s.output(17, &[b'x'; 100 << 10]);
        }
        s.output(17, b"end");
        text(&mut s);
        s.keys(b"\x1d2");
        let shown = text(&mut s);
        let cut = (300 << 10) + 3 - (256 << 10);
        assert!(shown.contains(&format!("[{cut} bytes are not kept any more]\r\nxxx")));
        assert!(shown.ends_with("xend"));
    }
}
