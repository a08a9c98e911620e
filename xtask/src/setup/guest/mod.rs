//! The stock guest.

/// Bytes of disk for what is made from the guest's packages, rounded up.
pub const DERIVED_SIZE: u64 = 24_000_000;
