//! The MC146818 real-time clock at ISA ports 0x70 and 0x71.
//!
//! After Motorola's MC146818A data sheet with a 32.768 kHz time base. The clock derives from the
//! VM's virtual time and the calendar date at its start.
//!
//! **Warping.** Kernels calibrate their CPU clock by polling the update-in-progress bit over a whole
//! second, which costs millions of emulated accesses. A loop that does nothing but read register A
//! is recognised, and [`Rtc::read`] then reports how far ahead the bit's next edge lies: the owner
//! moves the VM's *whole* virtual time there, Count included, so that what the guest measures stays
//! true. A driver that looks at the bit now and then never triggers it.

use super::calendar::{DateTime, SECONDS_PER_DAY};

const SECOND: u64 = 1_000_000_000;
/// No warp is longer (nanoseconds): none goes beyond the next second.
pub const WARP_MAX: u64 = 2 * SECOND;
/// How long before the end of an update its bit is set: 244 µs of warning and 1,984 µs of update.
const UIP_NS: u64 = 2_228_000;
/// From the release of the divider's reset to the first update.
const FIRST_UPDATE_NS: u64 = SECOND / 2;
/// Two reads of register A at most this far apart belong to one polling loop.
const POLL_NS: u64 = 64_000;
/// This many of them in a row, with nothing else in between, make it one.
const POLLS: u32 = 24;

const REG_A: u8 = 0x0a;
const REG_B: u8 = 0x0b;
const REG_C: u8 = 0x0c;
const REG_D: u8 = 0x0d;

const A_UIP: u8 = 0x80;
const A_DIVIDER: u8 = 0x70;
/// The divider's setting for 32.768 kHz.
const A_32KHZ: u8 = 0x20;
const A_RATE: u8 = 0x0f;

const B_SET: u8 = 0x80;
const B_PERIODIC: u8 = 0x40;
const B_ALARM: u8 = 0x20;
const B_UPDATE: u8 = 0x10;
const B_BINARY: u8 = 0x04;
const B_24H: u8 = 0x02;

const C_IRQ: u8 = 0x80;

/// The top two bits of an alarm byte: any value matches.
const ALARM_ANY: u8 = 0xc0;
const HOUR_PM: u8 = 0x80;

/// The clock.
#[derive(Debug)]
pub struct Rtc {
    index: u8,
    ram: [u8; 128],
    /// Seconds since 1970 at `base_ns`.
    base_s: u64,
    /// The virtual time of a second's start. May lie in the future, by less than a second.
    base_ns: u64,
    /// Seconds since `base_ns` and periods up to which flags have been raised.
    seen_s: u64,
    seen_periods: u64,
    polls: u32,
    last_poll: u64,
}

impl Rtc {
    /// A running clock that shows `epoch_s` (seconds since 1970) at virtual time 0.
    #[must_use]
    pub fn new(epoch_s: u64) -> Self {
        let mut ram = [0; 128];
        ram[usize::from(REG_A)] = A_32KHZ | 6;
        ram[usize::from(REG_B)] = B_24H;
        ram[usize::from(REG_D)] = 0x80;
        Self {
            index: 0,
            ram,
            base_s: epoch_s,
            base_ns: 0,
            seen_s: 0,
            seen_periods: 0,
            polls: 0,
            last_poll: 0,
        }
    }

    fn reg(&self, index: u8) -> u8 {
        self.ram[usize::from(index & 0x7f)]
    }

    fn counting(&self) -> bool {
        self.reg(REG_B) & B_SET == 0 && self.reg(REG_A) & A_DIVIDER == A_32KHZ
    }

    fn elapsed_ns(&self, now: u64) -> u64 {
        now.saturating_sub(self.base_ns)
    }

    fn seconds(&self, now: u64) -> u64 {
        self.base_s.wrapping_add(self.elapsed_ns(now) / SECOND)
    }

    /// Nanoseconds until the current second ends.
    fn to_next_second(&self, now: u64) -> u64 {
        if now < self.base_ns { self.base_ns - now } else { SECOND - self.elapsed_ns(now) % SECOND }
    }

    fn updating(&self, now: u64) -> bool {
        self.counting() && self.to_next_second(now) <= UIP_NS
    }

    /// The periodic interrupt's period; 0: none.
    fn period_ns(&self) -> u64 {
        match self.reg(REG_A) & A_RATE {
            0 => 0,
            // The first two settings repeat 8 and 9 at this time base.
            rate @ (1 | 2) => (SECOND << (rate + 6)) >> 15,
            rate => (SECOND << (rate - 1)) >> 15,
        }
    }

    /// Raises the flags of everything that happened since the last call.
    fn advance(&mut self, now: u64) {
        if !self.counting() {
            return;
        }
        let mut flags = 0;
        let seconds = self.elapsed_ns(now) / SECOND;
        if seconds > self.seen_s {
            flags |= B_UPDATE;
            let since = self.base_s.wrapping_add(self.seen_s);
            if self.next_alarm(since).is_some_and(|wait| wait <= seconds - self.seen_s) {
                flags |= B_ALARM;
            }
            self.seen_s = seconds;
        }
        let period = self.period_ns();
        if let Some(periods) = self.elapsed_ns(now).checked_div(period)
            && periods != self.seen_periods
        {
            flags |= B_PERIODIC;
            self.seen_periods = periods;
        }
        self.ram[usize::from(REG_C)] |= flags;
    }

    fn irq(&self) -> bool {
        self.reg(REG_C) & self.reg(REG_B) & (B_PERIODIC | B_ALARM | B_UPDATE) != 0
    }

    /// The level of the interrupt line at `now`.
    pub fn line(&mut self, now: u64) -> bool {
        self.advance(now);
        self.irq()
    }

    /// When, after `now`, the line may rise though nobody touches a register; `u64::MAX`: never.
    #[must_use]
    pub fn deadline(&self, now: u64) -> u64 {
        let enabled = self.reg(REG_B);
        if !self.counting() || self.irq() {
            return u64::MAX;
        }
        let mut wait = u64::MAX;
        if enabled & B_UPDATE != 0 {
            wait = self.to_next_second(now);
        }
        if enabled & B_ALARM != 0
            && let Some(seconds) = self.next_alarm(self.seconds(now))
        {
            wait = wait.min(self.to_next_second(now) + (seconds - 1) * SECOND);
        }
        let period = self.period_ns();
        if enabled & B_PERIODIC != 0
            && let Some(phase) = self.elapsed_ns(now).checked_rem(period)
        {
            wait = wait.min(period - phase + self.base_ns.saturating_sub(now));
        }
        now.saturating_add(wait)
    }

    /// In how many seconds (at least 1) after `after` the alarm matches; `None`: never.
    fn next_alarm(&self, after: u64) -> Option<u64> {
        let field = |index: u8| {
            let raw = self.reg(index);
            if raw & ALARM_ANY == ALARM_ANY {
                None
            } else if index == 5 {
                Some(self.hour(raw))
            } else {
                Some(self.number(raw))
            }
        };
        let (second, minute, hour) = (field(1), field(3), field(5));
        let start = (after % SECONDS_PER_DAY) as u32;
        // Skip whole hours and minutes that don't match: at most 25 + 60 + 60 steps, unless a field
        // holds a value that no clock shows.
        let mut t = start + 1;
        for _ in 0..200 {
            if hour.is_some_and(|h| h != t / 3600 % 24) {
                t = (t / 3600 + 1) * 3600;
            } else if minute.is_some_and(|m| m != t / 60 % 60) {
                t = (t / 60 + 1) * 60;
            } else if second.is_some_and(|s| s != t % 60) {
                t += 1;
            } else {
                return Some(u64::from(t - start));
            }
        }
        None
    }

    /// A register's byte as a number.
    fn number(&self, raw: u8) -> u32 {
        u32::from(if self.reg(REG_B) & B_BINARY != 0 { raw } else { (raw >> 4) * 10 + (raw & 15) })
    }

    /// A number below 100 as a register's byte.
    fn byte(&self, number: u32) -> u8 {
        (if self.reg(REG_B) & B_BINARY != 0 { number } else { (number / 10) << 4 | (number % 10) })
            as u8
    }

    fn hour(&self, raw: u8) -> u32 {
        if self.reg(REG_B) & B_24H != 0 {
            return self.number(raw);
        }
        let hour = self.number(raw & !HOUR_PM) % 12;
        if raw & HOUR_PM != 0 { hour + 12 } else { hour }
    }

    fn hour_byte(&self, hour: u32) -> u8 {
        if self.reg(REG_B) & B_24H != 0 {
            return self.byte(hour);
        }
        let byte = self.byte(if hour.is_multiple_of(12) { 12 } else { hour % 12 });
        if hour >= 12 { byte | HOUR_PM } else { byte }
    }

    /// Writes the time at `now` into the time registers.
    fn store_time(&mut self, now: u64) {
        let t = DateTime::from_seconds(self.seconds(now));
        for (index, value) in [
            (0, self.byte(t.second)),
            (2, self.byte(t.minute)),
            (4, self.hour_byte(t.hour)),
            (6, self.byte(t.weekday + 1)),
            (7, self.byte(t.day)),
            (8, self.byte(t.month)),
            (9, self.byte(t.year % 100)),
        ] {
            self.ram[index] = value;
        }
    }

    /// Takes the time from the time registers; they hold it at `base_ns`.
    fn load_time(&mut self, base_ns: u64) {
        let year = self.number(self.ram[9]) % 100;
        let time = DateTime {
            year: if year < 70 { 2000 + year } else { 1900 + year },
            month: self.number(self.ram[8]),
            day: self.number(self.ram[7]),
            hour: self.hour(self.ram[4]),
            minute: self.number(self.ram[2]),
            second: self.number(self.ram[0]),
            weekday: 0,
        };
        self.base_s = time.to_seconds();
        self.base_ns = base_ns;
        self.seen_s = 0;
        self.seen_periods = 0;
    }

    /// The start of the second that contains `now`.
    fn second_start(&self, now: u64) -> u64 {
        now.saturating_sub(self.elapsed_ns(now) % SECOND)
    }

    /// Reads port 0x70 or 0x71 at virtual time `now`. With it comes how many nanoseconds the VM's
    /// time should be moved ahead (0: not at all), *after* this read.
    pub fn read(&mut self, port: u16, now: u64) -> (u8, u64) {
        if port & 1 == 0 {
            return (0xff, 0);
        }
        let index = self.index;
        if index != REG_A {
            self.polls = 0;
        }
        match index {
            0 | 2 | 4 | 6..=9 if self.counting() => self.store_time(now),
            REG_A => {
                let uip = self.updating(now);
                let value = self.reg(REG_A) & !A_UIP | if uip { A_UIP } else { 0 };
                return (value, self.poll(uip, now));
            }
            REG_C => {
                self.advance(now);
                let irq = if self.irq() { C_IRQ } else { 0 };
                return (core::mem::take(&mut self.ram[usize::from(REG_C)]) | irq, 0);
            }
            _ => {}
        }
        (self.reg(index), 0)
    }

    fn poll(&mut self, uip: bool, now: u64) -> u64 {
        let tight = now.saturating_sub(self.last_poll) <= POLL_NS;
        self.last_poll = now;
        self.polls = if tight { self.polls + 1 } else { 0 };
        if self.polls < POLLS || !self.counting() {
            return 0;
        }
        self.polls = 0;
        let end = self.to_next_second(now);
        if uip { end } else { end - UIP_NS }
    }

    /// Another device was accessed: whatever loop this is, it does not only poll the clock.
    pub fn interrupt_polling(&mut self) {
        self.polls = 0;
    }

    /// Writes port 0x70 or 0x71 at virtual time `now`.
    pub fn write(&mut self, port: u16, value: u8, now: u64) {
        if port & 1 == 0 {
            self.index = value & 0x7f;
            return;
        }
        self.polls = 0;
        self.advance(now);
        let counting = self.counting();
        match self.index {
            index @ (0 | 2 | 4 | 6..=9) => {
                if counting {
                    let start = self.second_start(now);
                    self.store_time(now);
                    self.ram[usize::from(index)] = value;
                    self.load_time(start);
                } else {
                    self.ram[usize::from(index)] = value;
                }
            }
            REG_A | REG_B => {
                if counting {
                    self.store_time(now);
                }
                let start = self.second_start(now);
                let was_divided = self.reg(REG_A) & A_DIVIDER == A_32KHZ;
                if self.index == REG_A {
                    self.ram[usize::from(REG_A)] = value & !A_UIP;
                } else {
                    // The time registers keep their bytes when the data mode changes, as in the real
                    // part; SET clears the update interrupt's enable.
                    let keep = if value & B_SET != 0 { !B_UPDATE } else { !0 };
                    self.ram[usize::from(REG_B)] = value & keep;
                }
                if !counting && self.counting() {
                    let restarted = !was_divided;
                    self.load_time(if restarted { now + FIRST_UPDATE_NS } else { start });
                } else if self.counting() {
                    // A new rate: periods are counted from here on.
                    self.seen_periods =
                        self.elapsed_ns(now).checked_div(self.period_ns()).unwrap_or(0);
                }
            }
            REG_C | REG_D => {}
            index => self.ram[usize::from(index)] = value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: u64 = 1_700_000_000; // 2023-11-14 22:13:20 UTC, a Tuesday

    fn get(rtc: &mut Rtc, index: u8, now: u64) -> u8 {
        rtc.write(0x70, index, now);
        rtc.read(0x71, now).0
    }

    fn put(rtc: &mut Rtc, index: u8, value: u8, now: u64) {
        rtc.write(0x70, index, now);
        rtc.write(0x71, value, now);
    }

    fn time(rtc: &mut Rtc, now: u64) -> [u8; 7] {
        [9, 8, 7, 6, 4, 2, 0].map(|i| get(rtc, i, now))
    }

    #[test]
    fn shows_the_date_in_every_mode() {
        let mut rtc = Rtc::new(EPOCH);
        assert_eq!(time(&mut rtc, 0), [0x23, 0x11, 0x14, 3, 0x22, 0x13, 0x20]);
        assert_eq!(time(&mut rtc, 40 * SECOND), [0x23, 0x11, 0x14, 3, 0x22, 0x14, 0x00]);
        let mut rtc = Rtc::new(EPOCH);
        rtc.ram[usize::from(REG_B)] = B_BINARY;
        assert_eq!(time(&mut rtc, 0), [23, 11, 14, 3, 10 | HOUR_PM, 13, 20]);
        assert_eq!(get(&mut rtc, REG_D, 0), 0x80);
    }

    #[test]
    fn setting_follows_linux() {
        // SET, divider reset, fields, release: mc146818_set_time().
        let mut rtc = Rtc::new(EPOCH);
        let now = 5 * SECOND + 300;
        put(&mut rtc, REG_B, B_24H | B_SET, now);
        put(&mut rtc, REG_A, 0x76, now);
        for (index, value) in [(9, 0x31), (8, 0x12), (7, 0x31), (4, 0x23), (2, 0x59), (0, 0x58)] {
            put(&mut rtc, index, value, now);
        }
        let later = now + 10 * SECOND;
        assert_eq!(get(&mut rtc, 0, later), 0x58, "stands still");
        put(&mut rtc, REG_B, B_24H, later);
        put(&mut rtc, REG_A, 0x26, later);
        assert_eq!(get(&mut rtc, 0, later + FIRST_UPDATE_NS), 0x58);
        let new_year = later + FIRST_UPDATE_NS + 2 * SECOND;
        assert_eq!(time(&mut rtc, new_year)[..3], [0x32, 0x01, 0x01]);
        assert_eq!(time(&mut rtc, new_year)[4..], [0, 0, 0]);
    }

    #[test]
    fn update_in_progress_precedes_each_second() {
        let mut rtc = Rtc::new(EPOCH);
        for (now, set) in
            [(0, false), (SECOND - UIP_NS - 1, false), (SECOND - UIP_NS, true), (SECOND, false)]
        {
            assert_eq!(get(&mut rtc, REG_A, now) & A_UIP != 0, set, "at {now}");
        }
        put(&mut rtc, REG_B, B_SET, 0);
        assert_eq!(get(&mut rtc, REG_A, SECOND - 1) & A_UIP, 0, "no update while SET");
    }

    /// Linux's estimate_frequencies(): from one rising edge of UIP to the next.
    #[test]
    fn calibration_is_short_and_exact() {
        let mut rtc = Rtc::new(EPOCH);
        let (mut now, mut polls) = (123_456_789, 0);
        let mut wait_for = |want: bool, now: &mut u64| {
            loop {
                rtc.write(0x70, REG_A, *now);
                let (value, warp) = rtc.read(0x71, *now);
                *now += 800 + warp;
                polls += 1;
                if (value & A_UIP != 0) == want {
                    break;
                }
            }
        };
        wait_for(false, &mut now);
        wait_for(true, &mut now);
        let start = now;
        wait_for(false, &mut now);
        wait_for(true, &mut now);
        let measured = now - start;
        assert!(measured.abs_diff(SECOND) < 2_000, "{measured} ns for a second");
        assert!(polls < 200, "{polls} polls");
    }

    #[test]
    fn sporadic_reads_are_not_warped() {
        let mut rtc = Rtc::new(EPOCH);
        rtc.write(0x70, REG_A, 0);
        for i in 0..1000 {
            assert_eq!(rtc.read(0x71, i * 100_000).1, 0);
        }
        // A loop that looks at other registers as well does not only wait for the edge.
        let mut now = 0;
        for _ in 0..1000 {
            now += 1000;
            rtc.write(0x70, REG_A, now);
            assert_eq!(rtc.read(0x71, now).1, 0);
            get(&mut rtc, 0, now);
        }
    }

    fn next_interrupt(rtc: &mut Rtc, mut now: u64) -> u64 {
        while !rtc.line(now) {
            let next = rtc.deadline(now);
            assert!(next > now && next < u64::MAX, "deadline {next} at {now}");
            now = next;
        }
        now
    }

    #[test]
    fn interrupts_come_on_time() {
        let mut rtc = Rtc::new(EPOCH);
        put(&mut rtc, REG_B, B_24H | B_UPDATE, 0);
        assert_eq!(next_interrupt(&mut rtc, 10), SECOND);
        assert_eq!(rtc.deadline(SECOND), u64::MAX, "asserted until register C is read");
        assert_eq!(get(&mut rtc, REG_C, SECOND) & (C_IRQ | B_UPDATE), C_IRQ | B_UPDATE);
        assert!(!rtc.line(SECOND));
        assert_eq!(next_interrupt(&mut rtc, SECOND), 2 * SECOND);
        get(&mut rtc, REG_C, 2 * SECOND);
        // 1,024 Hz.
        put(&mut rtc, REG_B, B_24H | B_PERIODIC, 2 * SECOND);
        put(&mut rtc, REG_A, 0x26, 2 * SECOND);
        let mut now = 2 * SECOND;
        for _ in 0..1024 {
            now = next_interrupt(&mut rtc, now);
            get(&mut rtc, REG_C, now);
        }
        assert!(now.abs_diff(3 * SECOND) < 1_000_000);
    }

    #[test]
    fn alarm_matches_fields_and_wildcards() {
        let mut rtc = Rtc::new(EPOCH); // 22:13:20
        for (fields, wait) in [
            ([0x25, 0x13, 0x22], Some(5)),
            ([0x20, 0x13, 0x22], Some(SECONDS_PER_DAY)),
            ([0x00, 0xff, 0xff], Some(40)),
            ([0xff, 0x15, 0xff], Some(100)),
            ([0x00, 0x00, 0x00], Some(6400)),
            ([0xff, 0xff, 0xff], Some(1)),
            ([0x75, 0xff, 0xff], None),
        ] {
            for (index, value) in [1, 3, 5].into_iter().zip(fields) {
                put(&mut rtc, index, value, 0);
            }
            assert_eq!(rtc.next_alarm(EPOCH), wait, "{fields:x?}");
        }
        put(&mut rtc, 1, 0x25, 0);
        put(&mut rtc, REG_B, B_24H | B_ALARM, 0);
        assert_eq!(next_interrupt(&mut rtc, 1), 5 * SECOND);
    }

    #[test]
    fn any_register_write_is_harmless() {
        let mut rtc = Rtc::new(EPOCH);
        let mut x = 1u64;
        let mut now = 0u64;
        for _ in 0..300_000 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            now = now.wrapping_add(x >> 40).min(u64::MAX / 2);
            let port = 0x70 | (x >> 33 & 1) as u16;
            if x >> 63 == 0 {
                rtc.write(port, (x >> 24) as u8 & if port == 0x70 { 0x0f } else { 0xff }, now);
            } else {
                rtc.read(port, now);
            }
            rtc.line(now);
            assert!(rtc.deadline(now) > now, "a deadline in the past would spin");
        }
    }
}
