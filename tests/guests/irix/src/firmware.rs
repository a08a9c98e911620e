//! What the firmware hands over: words and environment, as 32-bit KSEG0 pointers to strings.

use crate::frames::window;

/// Longest string.
const LONGEST: usize = 4096;

/// A table of strings.
#[derive(Clone, Copy)]
pub struct Table(u64);

impl Table {
    /// The table behind a register that the firmware has set.
    pub fn at(register: u64) -> Self {
        Self(seen(register as u32))
    }

    /// String `i`; `None`: the table ends there.
    pub fn get(self, i: usize) -> Option<&'static str> {
        // SAFETY: the firmware's table ends with a null pointer, at which the callers stop.
        let pointer = unsafe { *(self.0 as *const u32).add(i) };
        if pointer == 0 {
            return None;
        }
        let string = seen(pointer) as *const u8;
        // SAFETY: the strings end with a NUL, and nothing is put over them.
        let len = (0..LONGEST).find(|&i| unsafe { *string.add(i) == 0 })?;
        // SAFETY: as above.
        core::str::from_utf8(unsafe { core::slice::from_raw_parts(string, len) }).ok()
    }
}

/// Where the kernel sees what a KSEG0 pointer points to.
fn seen(pointer: u32) -> u64 {
    window(u64::from(pointer & 0x1fff_ffff))
}

/// Bytes of RAM from address 0 on: the environment's `memsize`.
pub fn memory(environment: Table) -> Option<u64> {
    let mut i = 0;
    // Names and values alternate.
    while let Some(name) = environment.get(i) {
        if name == "memsize" {
            return environment.get(i + 1)?.parse().ok();
        }
        i += 2;
    }
    None
}
