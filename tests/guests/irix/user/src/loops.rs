//! A loop of a user program on data that is in memory: what direct execution should cost nothing.
//!
//! Between the markers `lui $zero, 0x1003` and `lui $zero, 0x1004` there is no system call and no page that is
//! touched for the first time.

use core::arch::asm;
use irix_user::work::fold;

/// Words of data: 64 KB.
const WORDS: usize = 8 << 10;
/// Rounds over them.
const ROUNDS: u64 = 1000;

/// The data; in memory of its own once written.
static mut DATA: [u64; WORDS] = [0; WORDS];

/// The loop; prints its checksum.
pub fn main() -> u32 {
    // SAFETY: the only reference to it; a program has one thread.
    let data = unsafe { &mut *(&raw mut DATA) };
    for (place, word) in (0..).zip(data.iter_mut()) {
        *word = fold(place, 1);
    }
    let mut sum = 0;
    // SAFETY: writes nothing: the target is the register that is always zero.
    unsafe { asm!("lui $0, 0x1003", options(nostack)) };
    for round in 0..ROUNDS {
        for word in data.iter_mut() {
            sum = fold(sum, *word ^ round);
            *word = sum;
        }
    }
    // SAFETY: as above.
    unsafe { asm!("lui $0, 0x1004", options(nostack)) };
    crate::say!("loop {sum:016x}");
    0
}
