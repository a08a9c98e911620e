//! The proleptic Gregorian calendar, for the real-time clock.
//!
//! The day count is Howard Hinnant's ("chrono-Compatible Low-Level Date Algorithms"): years begin in
//! March, so that the leap day is the last of a year.

/// Seconds in a day.
pub const SECONDS_PER_DAY: u64 = 86_400;
const DAYS_PER_ERA: u64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: u64 = 719_468;

/// A date and a time of day, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateTime {
    /// Full year.
    pub year: u32,
    /// 1–12.
    pub month: u32,
    /// 1–31.
    pub day: u32,
    /// 0–23.
    pub hour: u32,
    /// 0–59.
    pub minute: u32,
    /// 0–59.
    pub second: u32,
    /// 0: Sunday. Ignored by [`DateTime::to_seconds`].
    pub weekday: u32,
}

impl DateTime {
    /// From seconds since 1970 (taken modulo some 10,000 years).
    #[must_use]
    pub fn from_seconds(seconds: u64) -> Self {
        let days = seconds / SECONDS_PER_DAY % (25 * DAYS_PER_ERA);
        let time = (seconds % SECONDS_PER_DAY) as u32;
        let z = days + EPOCH_DAYS;
        let (era, day_of_era) = (z / DAYS_PER_ERA, z % DAYS_PER_ERA);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        Self {
            year: (year_of_era + era * 400 + u64::from(month <= 2)) as u32,
            month: month as u32,
            day: (day_of_year - (153 * march_month + 2) / 5 + 1) as u32,
            hour: time / 3600,
            minute: time / 60 % 60,
            second: time % 60,
            // 1970-01-01 was a Thursday.
            weekday: ((days + 4) % 7) as u32,
        }
    }

    /// To seconds since 1970; a date before that gives 0, and a field out of range counts on into
    /// the next larger one (months are clamped).
    #[must_use]
    pub fn to_seconds(self) -> u64 {
        let month = u64::from(self.month.clamp(1, 12));
        let year = u64::from(self.year) - u64::from(month <= 2 && self.year > 0);
        let (era, year_of_era) = (year / 400, year % 400);
        let march_month = if month > 2 { month - 3 } else { month + 9 };
        let day_of_year = (153 * march_month + 2) / 5 + u64::from(self.day.max(1)) - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = (era * DAYS_PER_ERA + day_of_era).saturating_sub(EPOCH_DAYS);
        days * SECONDS_PER_DAY
            + u64::from(self.hour) * 3600
            + u64::from(self.minute) * 60
            + u64::from(self.second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        for (seconds, (y, mo, d, h, mi, s, w)) in [
            (0, (1970, 1, 1, 0, 0, 0, 4)),
            (951_782_400, (2000, 2, 29, 0, 0, 0, 2)),
            (1_700_000_000, (2023, 11, 14, 22, 13, 20, 2)),
            (4_107_542_399, (2100, 2, 28, 23, 59, 59, 0)),
            (4_107_542_400, (2100, 3, 1, 0, 0, 0, 1)),
        ] {
            let t = DateTime::from_seconds(seconds);
            assert_eq!(
                (t.year, t.month, t.day, t.hour, t.minute, t.second, t.weekday),
                (y, mo, d, h, mi, s, w)
            );
            assert_eq!(t.to_seconds(), seconds);
        }
    }

    #[test]
    fn every_day_round_trips() {
        for day in 0..200 * 366 {
            let seconds = day * SECONDS_PER_DAY + 12_345;
            let t = DateTime::from_seconds(seconds);
            assert_eq!(t.to_seconds(), seconds, "{t:?}");
            assert_eq!(u64::from(t.weekday), (day + 4) % 7);
        }
    }
}
