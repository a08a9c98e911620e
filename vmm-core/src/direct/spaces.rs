//! Real address spaces (ASIDs) of one CPU, given to pairs of VCPU and guest ASID, in generations:
//! when all have been given, everything in the real TLB is forgotten and they are given anew.

/// The real address spaces of one CPU.
#[derive(Clone, Debug)]
pub struct Spaces {
    generation: u64,
    /// The next to be given; 256: none is left. 0 belongs to the monitor.
    next: u16,
}

impl Spaces {
    /// All free, in generation 1.
    #[must_use]
    pub const fn new() -> Self {
        Self { generation: 1, next: 1 }
    }

    /// The present generation: what was given in an earlier one is void.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// One that nobody has in this generation; `None`: there is none.
    pub fn allocate(&mut self) -> Option<u8> {
        let asid = u8::try_from(self.next).ok()?;
        self.next += 1;
        Some(asid)
    }

    /// Starts a new generation. The caller forgets everything in the real TLB.
    pub const fn renew(&mut self) {
        self.generation += 1;
        self.next = 1;
    }
}

impl Default for Spaces {
    fn default() -> Self {
        Self::new()
    }
}
