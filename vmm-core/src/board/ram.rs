//! Where the board's RAM appears in guest-physical address space.
//!
//! All of it at 0x80000000, the first 256 MB also at 0, and what lies beyond the I/O hole also at its
//! own number, as on QEMU's Malta. One byte of RAM so has several addresses; its *offset* is the one
//! name it has.

use abi::Gpa;

/// Most RAM that the board takes.
pub const MAX: u64 = 2 << 30;
/// RAM below this appears at 0 as well.
pub const LOW_MAX: u64 = 256 << 20;
/// Guest-physical address of all RAM.
pub const HIGH: u64 = 0x8000_0000;
/// RAM from here on appears at its own number as well.
const AFTER_HOLE: u64 = 512 << 20;

/// The offset of an address into `memory` bytes of RAM; `None`: no RAM is there.
#[must_use]
pub const fn offset(gpa: Gpa, memory: u64) -> Option<u64> {
    let at = gpa.0;
    if at >= HIGH && at - HIGH < memory {
        Some(at - HIGH)
    } else if at < memory && (at < LOW_MAX || at >= AFTER_HOLE) {
        Some(at)
    } else {
        None
    }
}

/// Bytes of RAM that appear at 0: what firmware calls `memsize`.
#[must_use]
pub const fn low_size(memory: u64) -> u64 {
    if memory < LOW_MAX { memory } else { LOW_MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases() {
        const MB: u64 = 1 << 20;
        let memory = 768 * MB;
        for (at, want) in [
            (0, Some(0)),
            (256 * MB - 1, Some(256 * MB - 1)),
            (256 * MB, None),
            (512 * MB - 1, None),
            (512 * MB, Some(512 * MB)),
            (768 * MB, None),
            (HIGH, Some(0)),
            (HIGH + 300 * MB, Some(300 * MB)),
            (HIGH + 768 * MB, None),
            (u64::MAX, None),
        ] {
            assert_eq!(offset(Gpa(at), memory), want, "{at:#x}");
        }
        assert_eq!(offset(Gpa(64 * MB), 64 * MB), None);
        assert_eq!((low_size(64 * MB), low_size(memory)), (64 * MB, LOW_MAX));
    }
}
