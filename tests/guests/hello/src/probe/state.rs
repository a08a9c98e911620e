//! What of the kernel's state a less privileged mode must not change.

use super::drop::{hello_cp0, hello_tlb_read};

/// CP0 registers, in the order in which they are read.
pub const NAMES: [&str; 20] = [
    "Index",
    "EntryLo0",
    "EntryLo1",
    "Context",
    "PageMask",
    "PageGrain",
    "Wired",
    "HWREna",
    "BadVAddr",
    "EntryHi",
    "Compare",
    "Status",
    "IntCtl",
    "SRSCtl",
    "Cause",
    "EBase",
    "Config",
    "XContext",
    "TagLo",
    "ErrorEPC",
];
const BAD_VADDR: usize = 8;
const ENTRY_HI: usize = 9;
const STATUS: usize = 11;
const CAUSE: usize = 14;
const CONTEXT: usize = 3;
const XCONTEXT: usize = 17;
/// Of Cause, what an exception does not write: DC, IV, the software interrupts.
const CAUSE_KEPT: u64 = 1 << 27 | 1 << 23 | 3 << 8;
/// TLB entries.
pub const TLB_SIZE: u64 = 64;

/// Values of the registers.
pub type Registers = [u64; NAMES.len()];

/// The registers now.
pub fn registers() -> Registers {
    let mut values = [0; NAMES.len()];
    // SAFETY: reads registers into an array of their number.
    unsafe { hello_cp0(values.as_mut_ptr()) };
    values
}

/// The first register that differs from what the exception alone would have made of it. `status` is
/// what Status is expected to be, `address` whether the exception is one that has an address.
pub fn changed(
    before: &Registers,
    after: &Registers,
    status: u64,
    address: bool,
) -> Option<(&'static str, u64, u64)> {
    for (i, name) in NAMES.iter().enumerate() {
        let (old, new) = match i {
            BAD_VADDR | ENTRY_HI | CONTEXT | XCONTEXT if address => continue,
            STATUS => (status, after[i]),
            CAUSE => (before[i] & CAUSE_KEPT, after[i] & CAUSE_KEPT),
            _ => (before[i], after[i]),
        };
        if old != new {
            return Some((name, old, new));
        }
    }
    None
}

/// A checksum of the whole TLB. (EntryHi, EntryLo0, EntryLo1, PageMask and Index are lost.)
pub fn tlb() -> u64 {
    let mut sum = 0_u64;
    for index in 0..TLB_SIZE {
        let mut entry = [0; 4];
        // SAFETY: reads a TLB entry into an array of its size.
        unsafe { hello_tlb_read(index, entry.as_mut_ptr()) };
        for word in entry {
            sum = (sum.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }
    sum
}
