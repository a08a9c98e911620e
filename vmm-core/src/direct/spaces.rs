//! Real address spaces (ASIDs) of one CPU, given to pairs of VCPU and guest ASID, in generations:
//! when all have been given, everything in the real TLB is forgotten and they are given anew.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// How many numbers there are; number 0 belongs to the monitor.
const COUNT: usize = 256;
/// Nobody's.
const FREE: u32 = 0;

/// A set of real or guest address spaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asids([u64; COUNT / 64]);

impl Asids {
    /// None of them.
    pub const NONE: Self = Self([0; COUNT / 64]);

    /// Whether `asid` is one of them.
    #[must_use]
    #[inline]
    pub const fn contains(&self, asid: u8) -> bool {
        self.0[asid as usize / 64] >> (asid % 64) & 1 != 0
    }

    /// Makes `asid` one of them.
    pub const fn insert(&mut self, asid: u8) {
        self.0[asid as usize / 64] |= 1 << (asid % 64);
    }

    /// Makes `asid` none of them.
    pub const fn remove(&mut self, asid: u8) {
        self.0[asid as usize / 64] &= !(1 << (asid % 64));
    }

    /// Each of them, the lowest first.
    pub fn each(mut self) -> impl Iterator<Item = u8> {
        core::iter::from_fn(move || {
            let (word, bits) = (0..).zip(&mut self.0).find(|(_, bits)| **bits != 0)?;
            let bit = bits.trailing_zeros() as u8;
            *bits &= *bits - 1;
            Some(64 * word + bit)
        })
    }
}

/// A number for an owner of address spaces, different from all others in this program.
pub(super) fn new_owner() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(FREE + 1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Whether an address space could be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Yes: nobody has had it in this generation.
    New,
    /// Yes: it was the claimant's before in this generation. The real TLB may have entries from then.
    Again,
    /// No: it is another's.
    Taken,
}

/// The real address spaces of one CPU.
#[derive(Clone, Debug)]
pub struct Spaces {
    /// 0: not begun.
    generation: u64,
    owners: [u32; COUNT],
    free: usize,
}

impl Spaces {
    /// All free.
    #[must_use]
    pub const fn new() -> Self {
        Self { generation: 0, owners: [FREE; COUNT], free: COUNT - 1 }
    }

    /// The present generation, a number that no other one has on any CPU: what was given in another one is
    /// void here.
    pub fn generation(&mut self) -> u64 {
        if self.generation == 0 {
            self.begin();
        }
        self.generation
    }

    fn begin(&mut self) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        self.generation = NEXT.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks for one of them.
    pub const fn claim(&mut self, asid: u8, owner: u32) -> Claim {
        let place = &mut self.owners[asid as usize];
        if *place == owner {
            return Claim::Again;
        }
        if *place != FREE || asid == 0 {
            return Claim::Taken;
        }
        *place = owner;
        self.free -= 1;
        Claim::New
    }

    /// One that nobody has had in this generation and that is not in `avoid`, the first from `from` on;
    /// `None`: there is none.
    pub fn allocate(&mut self, owner: u32, avoid: &Asids, from: u8) -> Option<u8> {
        if self.free == 0 {
            return None;
        }
        let numbers = (from..=u8::MAX).chain(0..from);
        let mut suitable = numbers.filter(|&asid| asid != 0 && !avoid.contains(asid));
        let asid = suitable.find(|&asid| self.owners[usize::from(asid)] == FREE)?;
        self.owners[usize::from(asid)] = owner;
        self.free -= 1;
        Some(asid)
    }

    /// Whether there are any that nobody has had in this generation.
    #[must_use]
    pub const fn any_free(&self) -> bool {
        self.free > 0
    }

    /// Starts a new generation. The caller forgets everything in the real TLB.
    pub fn renew(&mut self) {
        *self = Self::new();
        self.begin();
    }
}

impl Default for Spaces {
    fn default() -> Self {
        Self::new()
    }
}
