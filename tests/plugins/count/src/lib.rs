//! A QEMU plugin that counts executed instructions, exactly: for each CPU, between markers, by address
//! ranges, and from trap to return. `docs/counting.md` says how it is used and what it writes.
//!
//! Every instruction adds one to a counter of its CPU and its range, by code that QEMU inlines: counting
//! translated blocks instead would count a block that an exception or a device access cuts as a whole.
//! All else (markers, traps, returns) is rare, and calls back.
//!
//! QEMU's functions exist in QEMU alone. So what talks to it ([`qemu`]) is left out of this crate's
//! tests, and decides nothing: [`spec`] reads the arguments and says what an address is, [`word`] what
//! an instruction is, [`visit`] does the book-keeping, [`record`] is what is written.

mod record;
mod spec;
mod visit;
mod word;

// In tests there is no QEMU to link to.
#[cfg(not(test))]
mod qemu;
