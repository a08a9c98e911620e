//! What direct execution counts, for whoever wants to know where the time goes.

use crate::state::{StateError, Visit};

/// Events since the VCPU was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Entries into the guest.
    pub entries: u64,
    /// Interrupts of the real CPU that ended them.
    pub interrupts: u64,
    /// Translations filled in.
    pub filled: u64,
    /// TLB exceptions of the guest's own.
    pub faults: u64,
    /// System calls.
    pub syscalls: u64,
    /// Other exceptions of the guest's own that need no emulation.
    pub reflected: u64,
    /// Uses of the FPU while it was not loaded, or not to be used.
    pub fpu: u64,
    /// Instructions emulated.
    pub emulated: u64,
    /// Stretches interpreted for the sake of LL and SC.
    pub linked: u64,
}

impl Counters {
    /// Shows each to `v`.
    pub(super) fn visit(&mut self, v: &mut impl Visit) -> Result<(), StateError> {
        for field in [
            &mut self.entries,
            &mut self.interrupts,
            &mut self.filled,
            &mut self.faults,
            &mut self.syscalls,
            &mut self.reflected,
            &mut self.fpu,
            &mut self.emulated,
            &mut self.linked,
        ] {
            v.count(field)?;
        }
        Ok(())
    }

    /// Each with its name.
    pub fn each(&self, f: &mut dyn FnMut(&'static str, u64)) {
        f("entries", self.entries);
        f("interrupts", self.interrupts);
        f("L2TLB fills", self.filled);
        f("TLB faults", self.faults);
        f("syscalls", self.syscalls);
        f("exceptions", self.reflected);
        f("FPU loads", self.fpu);
        f("emulated", self.emulated);
        f("LL/SC loops", self.linked);
    }
}
