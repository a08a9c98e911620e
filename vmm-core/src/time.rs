//! A VM's time: virtual nanoseconds, from which Count, the RTC and every device derive.

/// Ticks of the virtual CP0 Count in a virtual second: QEMU 10's rate, so that a guest calibrates to
/// the frequency that it finds on the bare machine.
pub const COUNT_HZ: u64 = 160_000_000;

/// Where time comes from: the monitor's clock on the machine, executed instructions in a simulation.
pub trait Clock {
    /// Nanoseconds since the VM was made, before scaling and warping; never decreases. `retired` is
    /// how many instructions the VCPU has retired: all that a simulated clock needs.
    fn now(&self, retired: u64) -> u64;

    /// The time `at` of this clock, as whoever it derives from counts it (rounded up; what lies
    /// before its beginning is 0).
    fn owners(&self, at: u64) -> u64 {
        at
    }
}

/// Virtual nanoseconds as ticks of [`COUNT_HZ`].
#[must_use]
pub const fn ticks(ns: u64) -> u64 {
    // 160 MHz is 4 ticks in 25 ns; split so that no product overflows.
    (ns / 25) * 4 + (ns % 25) * 4 / 25
}

/// The first nanosecond at which [`ticks`] is at least `ticks`.
#[must_use]
pub const fn ns_of_ticks(ticks: u64) -> u64 {
    (ticks / 4) * 25 + ((ticks % 4) * 25).div_ceil(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversion_is_the_first_nanosecond() {
        for t in (0..10_000).chain(u64::MAX / 16 - 100..u64::MAX / 16) {
            assert!(ticks(ns_of_ticks(t)) >= t);
            assert!(t == 0 || ticks(ns_of_ticks(t) - 1) < t);
        }
    }
}
