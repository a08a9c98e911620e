//! The pair of 8259A interrupt controllers in the south bridge.
//!
//! After Intel's 8259A data sheet (231468-003) and the PIIX4's ELCR registers (290562-001 §8.2). An
//! edge is latched in the request register until it is acknowledged, even when its line falls
//! before: the real part would answer with a spurious interrupt then, which helps nobody.

/// The line on the master that the slave's output drives.
const CASCADE: u8 = 2;
/// The line reported when an acknowledge finds no request.
const SPURIOUS: u8 = 7;

/// Which initialisation command word the data port expects next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Init {
    #[default]
    Done,
    Icw2,
    Icw3,
    Icw4,
}

/// One controller.
#[derive(Debug, Default)]
struct Chip {
    /// Interrupt request register.
    irr: u8,
    /// In-service register.
    isr: u8,
    /// Interrupt mask register.
    imr: u8,
    /// Levels of the lines, to find edges.
    lines: u8,
    /// Edge/level control: a set bit makes the line level-triggered.
    elcr: u8,
    /// Bits of `elcr` that can be set.
    elcr_mask: u8,
    /// Vector of line 0.
    base: u8,
    /// The line of highest priority (rotation).
    highest: u8,
    init: Init,
    needs_icw4: bool,
    single: bool,
    auto_eoi: bool,
    rotate_on_auto_eoi: bool,
    special_fully_nested: bool,
    special_mask: bool,
    read_isr: bool,
    poll: bool,
    master: bool,
}

impl Chip {
    fn new(master: bool, elcr_mask: u8) -> Self {
        Self { master, elcr_mask, ..Self::default() }
    }

    /// ICW1 resets everything but the lines and the edge/level control.
    fn reset(&mut self) {
        *self = Self {
            lines: self.lines,
            elcr: self.elcr,
            elcr_mask: self.elcr_mask,
            master: self.master,
            irr: self.lines & self.elcr,
            ..Self::default()
        };
    }

    /// How far down from the highest priority the first set bit is; 8: none is set.
    fn priority(&self, mask: u8) -> u32 {
        if mask == 0 { 8 } else { mask.rotate_right(u32::from(self.highest)).trailing_zeros() }
    }

    fn line_of(&self, priority: u32) -> u8 {
        (priority as u8 + self.highest) & 7
    }

    /// The line that asks for service now.
    fn pending(&self) -> Option<u8> {
        let wanted = self.priority(self.irr & !self.imr);
        let mut busy = self.isr;
        if self.special_mask {
            busy &= !self.imr;
        }
        if self.special_fully_nested && self.master {
            busy &= !(1 << CASCADE);
        }
        (wanted < self.priority(busy)).then(|| self.line_of(wanted))
    }

    fn set_line(&mut self, line: u8, level: bool) {
        let bit = 1 << line;
        let was = self.lines & bit != 0;
        let edge = self.elcr & bit == 0;
        match (level, edge) {
            (true, true) if was => {}
            (true, _) => self.irr |= bit,
            (false, true) => {}
            (false, false) => self.irr &= !bit,
        }
        self.lines = if level { self.lines | bit } else { self.lines & !bit };
    }

    fn acknowledge(&mut self, line: u8) {
        let bit = 1 << line;
        if !self.auto_eoi {
            self.isr |= bit;
        } else if self.rotate_on_auto_eoi {
            self.highest = (line + 1) & 7;
        }
        if self.elcr & bit == 0 {
            self.irr &= !bit;
        }
    }

    fn end_of_interrupt(&mut self, line: u8, rotate: bool) {
        self.isr &= !(1 << line);
        if rotate {
            self.highest = (line + 1) & 7;
        }
    }

    fn write_command(&mut self, value: u8) {
        if value & 0x10 != 0 {
            self.reset();
            self.init = Init::Icw2;
            self.needs_icw4 = value & 1 != 0;
            self.single = value & 2 != 0;
        } else if value & 0x08 != 0 {
            // OCW3
            self.poll |= value & 0x04 != 0;
            if value & 0x02 != 0 {
                self.read_isr = value & 1 != 0;
            }
            if value & 0x40 != 0 {
                self.special_mask = value & 0x20 != 0;
            }
        } else {
            // OCW2
            let rotate = value & 0x80 != 0;
            match value >> 5 {
                0 | 4 => self.rotate_on_auto_eoi = rotate,
                1 | 5 => {
                    let priority = self.priority(self.isr);
                    if priority < 8 {
                        self.end_of_interrupt(self.line_of(priority), rotate);
                    }
                }
                3 | 7 => self.end_of_interrupt(value & 7, rotate),
                6 => self.highest = (value + 1) & 7,
                _ => {}
            }
        }
    }

    fn write_data(&mut self, value: u8) {
        match self.init {
            Init::Done => self.imr = value,
            Init::Icw2 => {
                self.base = value & 0xf8;
                self.init = if !self.single {
                    Init::Icw3
                } else if self.needs_icw4 {
                    Init::Icw4
                } else {
                    Init::Done
                };
            }
            // The wiring of the cascade is fixed on this board.
            Init::Icw3 => self.init = if self.needs_icw4 { Init::Icw4 } else { Init::Done },
            Init::Icw4 => {
                self.special_fully_nested = value & 0x10 != 0;
                self.auto_eoi = value & 0x02 != 0;
                self.init = Init::Done;
            }
        }
    }

    fn read(&mut self, data: bool) -> u8 {
        if core::mem::take(&mut self.poll) {
            return match self.pending() {
                Some(line) => {
                    self.acknowledge(line);
                    0x80 | line
                }
                None => 0,
            };
        }
        match (data, self.read_isr) {
            (true, _) => self.imr,
            (false, true) => self.isr,
            (false, false) => self.irr,
        }
    }
}

/// Both controllers: lines 0–7 on the master, 8–15 on the slave.
#[derive(Debug)]
pub struct I8259 {
    master: Chip,
    slave: Chip,
    /// The master's output, kept up to date by every change: it is asked far more often.
    output: bool,
}

impl Default for I8259 {
    fn default() -> Self {
        Self::new()
    }
}

impl I8259 {
    /// The pair after reset.
    #[must_use]
    pub fn new() -> Self {
        // Timer, keyboard, cascade, RTC and coprocessor lines are always edge-triggered.
        Self { master: Chip::new(true, 0xf8), slave: Chip::new(false, 0xde), output: false }
    }

    /// Whether the pair asserts the CPU's pin.
    #[must_use]
    pub fn output(&self) -> bool {
        self.output
    }

    fn update(&mut self) {
        // The cascade is a level from the slave, whatever the master's edge detection would make of
        // it: a request withdrawn must not stay latched, one still there after EOI must come again.
        if self.slave.pending().is_some() {
            self.master.irr |= 1 << CASCADE;
        } else {
            self.master.irr &= !(1 << CASCADE);
        }
        self.output = self.master.pending().is_some();
    }

    /// Sets the level of a line (0–15; others are ignored).
    pub fn set_line(&mut self, line: u8, level: bool) {
        match line {
            CASCADE => return,
            0..8 => self.master.set_line(line, level),
            8..16 => self.slave.set_line(line - 8, level),
            _ => return,
        }
        self.update();
    }

    /// The acknowledge cycle: the vector of the interrupt that the CPU now serves. Without a
    /// request, the vector of line 7 (or 15): a spurious interrupt.
    pub fn acknowledge(&mut self) -> u8 {
        let vector = match self.master.pending() {
            Some(CASCADE) => {
                let line = self.slave.pending();
                if let Some(line) = line {
                    self.slave.acknowledge(line);
                }
                self.master.acknowledge(CASCADE);
                self.slave.base + line.unwrap_or(SPURIOUS)
            }
            Some(line) => {
                self.master.acknowledge(line);
                self.master.base + line
            }
            None => self.master.base + SPURIOUS,
        };
        self.update();
        vector
    }

    /// Reads an I/O port of the pair; `None`: not one of its ports.
    pub fn read(&mut self, port: u16) -> Option<u8> {
        let value = match port {
            0x20 | 0x21 => self.master.read(port == 0x21),
            0xa0 | 0xa1 => self.slave.read(port == 0xa1),
            0x4d0 => self.master.elcr,
            0x4d1 => self.slave.elcr,
            _ => return None,
        };
        // A poll acknowledges.
        self.update();
        Some(value)
    }

    /// Writes an I/O port of the pair; whether it was one of its ports.
    pub fn write(&mut self, port: u16, value: u8) -> bool {
        match port {
            0x20 => self.master.write_command(value),
            0x21 => self.master.write_data(value),
            0xa0 => self.slave.write_command(value),
            0xa1 => self.slave.write_data(value),
            0x4d0 => self.master.elcr = value & self.master.elcr_mask,
            0x4d1 => self.slave.elcr = value & self.slave.elcr_mask,
            _ => return false,
        }
        self.update();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux initialises it: vectors 0–15, everything masked, normal EOI.
    fn ready(mask: u16) -> I8259 {
        let mut pic = I8259::new();
        for (port, value) in [
            (0x20, 0x11),
            (0x21, 0),
            (0x21, 4),
            (0x21, 1),
            (0xa0, 0x11),
            (0xa1, 8),
            (0xa1, 2),
            (0xa1, 1),
            (0x21, mask as u8),
            (0xa1, (mask >> 8) as u8),
        ] {
            assert!(pic.write(port, value));
        }
        pic
    }

    fn eoi(pic: &mut I8259, line: u8) {
        if line >= 8 {
            pic.write(0xa0, 0x60 | (line - 8));
            pic.write(0x20, 0x60 | CASCADE);
        } else {
            pic.write(0x20, 0x60 | line);
        }
    }

    #[test]
    fn edge_is_latched_once() {
        let mut pic = ready(0);
        pic.set_line(4, true);
        assert!(pic.output());
        assert_eq!(pic.acknowledge(), 4);
        assert!(!pic.output());
        eoi(&mut pic, 4);
        assert!(!pic.output(), "a line that stays up is no second edge");
        pic.set_line(4, false);
        pic.set_line(4, true);
        pic.set_line(4, false);
        assert!(pic.output(), "a pulse is remembered");
        assert_eq!(pic.acknowledge(), 4);
    }

    #[test]
    fn masked_edge_waits_for_unmasking() {
        let mut pic = ready(0xffff);
        pic.set_line(8, true);
        assert!(!pic.output());
        pic.write(0x21, !(1 << CASCADE));
        pic.write(0xa1, 0xfe);
        assert!(pic.output());
        assert_eq!(pic.acknowledge(), 8);
    }

    #[test]
    fn level_repeats_until_lowered() {
        let mut pic = ready(0);
        pic.write(0x4d1, 0x0c);
        pic.set_line(10, true);
        assert_eq!(pic.acknowledge(), 10);
        assert!(!pic.output(), "in service");
        eoi(&mut pic, 10);
        assert!(pic.output(), "still asserted");
        assert_eq!(pic.acknowledge(), 10);
        pic.set_line(10, false);
        eoi(&mut pic, 10);
        assert!(!pic.output());
        assert_eq!(pic.read(0x4d1), Some(0x0c));
    }

    #[test]
    fn priorities_and_nesting() {
        let mut pic = ready(0);
        pic.set_line(5, true);
        pic.set_line(14, true);
        assert_eq!(pic.acknowledge(), 14, "the slave is on line 2");
        assert!(!pic.output(), "5 is below the cascade in service");
        pic.set_line(0, true);
        assert_eq!(pic.acknowledge(), 0, "0 nests");
        eoi(&mut pic, 0);
        eoi(&mut pic, 14);
        assert_eq!(pic.acknowledge(), 5);
    }

    #[test]
    fn spurious_on_both_chips() {
        let mut pic = ready(0);
        assert_eq!(pic.acknowledge(), 7);
        assert_eq!(pic.read(0x20), Some(0), "nothing in request");
        pic.write(0x20, 0x0b);
        assert_eq!(pic.read(0x20), Some(0), "and nothing in service");
    }

    #[test]
    fn poll_acknowledges() {
        let mut pic = ready(0);
        pic.set_line(4, true);
        pic.write(0x20, 0x0c);
        assert_eq!(pic.read(0x20), Some(0x84));
        assert!(!pic.output());
        pic.write(0x20, 0x0c);
        assert_eq!(pic.read(0x20), Some(0));
    }

    #[test]
    fn rotation_moves_priority() {
        let mut pic = ready(0);
        pic.write(0x20, 0xc0 | 4);
        pic.set_line(4, true);
        pic.set_line(5, true);
        assert_eq!(pic.acknowledge(), 5, "5 is the highest after 4 was made the lowest");
    }

    #[test]
    fn any_port_write_is_harmless() {
        let mut pic = I8259::new();
        let mut x = 1u32;
        for _ in 0..200_000 {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let port = [0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1][(x >> 8) as usize % 6];
            match x >> 30 {
                0 => pic.set_line((x >> 16) as u8 & 0x1f, x & 1 != 0),
                1 => {
                    pic.acknowledge();
                }
                2 => {
                    pic.read(port);
                }
                _ => {
                    pic.write(port, (x >> 16) as u8);
                }
            }
        }
    }
}
