//! Count and Compare.

use super::Vcpu;
use super::status::{Cause, IP_SHIFT};
use crate::time;

/// Interrupt line of the timer: IntCtl.IPTI.
const TIMER_LINE: u32 = 7;

impl Vcpu {
    /// Count at virtual time `now` (nanoseconds).
    #[must_use]
    pub fn count(&self, now: u64) -> u32 {
        let cp0 = &self.cp0;
        if cp0.cause.contains(Cause::DC) {
            cp0.count
        } else {
            cp0.count.wrapping_add(time::ticks(now) as u32)
        }
    }

    /// When Count will next become equal to Compare, in virtual nanoseconds; `None` while it stands.
    #[must_use]
    pub fn timer_deadline(&self) -> Option<u64> {
        (!self.cp0.cause.contains(Cause::DC)).then_some(self.cp0.timer_at)
    }

    /// Sets Count.
    pub(super) fn write_count(&mut self, value: u32, now: u64) {
        if self.cp0.cause.contains(Cause::DC) {
            self.cp0.count = value;
        } else {
            self.cp0.count = value.wrapping_sub(time::ticks(now) as u32);
            self.schedule_timer(now);
        }
    }

    /// Sets Compare, which also acknowledges the timer's interrupt.
    pub(super) fn write_compare(&mut self, value: u32, now: u64) {
        self.cp0.compare = value;
        self.cp0.cause.remove(Cause::TI);
        self.set_timer_line();
        self.schedule_timer(now);
    }

    /// Stops or starts Count when a write to Cause changed DC. `old` is Cause before.
    pub(super) fn count_disable_changed(&mut self, old: Cause, now: u64) {
        let ticks = time::ticks(now) as u32;
        match (old.contains(Cause::DC), self.cp0.cause.contains(Cause::DC)) {
            (false, true) => self.cp0.count = self.cp0.count.wrapping_add(ticks),
            (true, false) => {
                self.cp0.count = self.cp0.count.wrapping_sub(ticks);
                self.schedule_timer(now);
            }
            _ => {}
        }
    }

    /// An equality now has been, so the next one is a whole turn of Count away.
    fn schedule_timer(&mut self, now: u64) {
        let ticks = time::ticks(now);
        let wait = self.cp0.compare.wrapping_sub(self.cp0.count.wrapping_add(ticks as u32));
        let wait = if wait == 0 { 1 << 32 } else { u64::from(wait) };
        self.cp0.timer_at = time::ns_of_ticks(ticks.saturating_add(wait));
    }

    /// Brings Cause up to virtual time `now` with the board's lines at `levels` (bit n: IP[n + 2]).
    pub fn update_interrupts(&mut self, levels: u8, now: u64) {
        if now >= self.cp0.timer_at && !self.cp0.cause.contains(Cause::DC) {
            self.cp0.cause.insert(Cause::TI);
            self.schedule_timer(now);
        }
        let kept = self.cp0.cause.bits() & !(0xfc << IP_SHIFT);
        let lines = u32::from(levels & 0x3f) << (IP_SHIFT + 2);
        self.cp0.cause = Cause::from_bits_retain(kept | lines);
        if self.cp0.cause.contains(Cause::TI) {
            self.set_timer_line();
        }
    }

    fn set_timer_line(&mut self) {
        let line = Cause::from_bits_retain(1 << (IP_SHIFT + TIMER_LINE));
        self.cp0.cause.set(line, self.cp0.cause.contains(Cause::TI));
    }

    /// An interrupt is pending and not masked (whether or not interrupts are enabled): `wait` ends.
    #[must_use]
    pub fn has_unmasked_interrupt(&self) -> bool {
        self.cp0.cause.bits() & self.cp0.status.bits() & 0xff << IP_SHIFT != 0
    }

    /// The timer's interrupt would end a `wait`.
    #[must_use]
    pub fn timer_unmasked(&self) -> bool {
        self.cp0.status.bits() & 1 << (IP_SHIFT + TIMER_LINE) != 0
    }
}
