//! Which of a guest's code runs directly.

use crate::cpu::{Mode, Status, Vcpu};

/// The kinds of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// User mode.
    pub user: bool,
    /// Kernel mode, where its code lies in a segment that supervisor mode reaches …
    pub kernel: bool,
    /// … and also while Status.EXL is set. (What of a handler is privileged is interpreted in stretches.)
    pub exceptions: bool,
    /// Kernel mode, wherever its code lies, is translated where it is reached often ([`crate::translate`]). With `kernel`: only what
    /// may run directly too, which is done where it is not reached often.
    pub translated: bool,
}

/// The segment that supervisor mode has of the compatibility segments.
const CKSSEG: core::ops::Range<u64> = 0xffff_ffff_c000_0000..0xffff_ffff_e000_0000;

/// Whether `va` lies in a supervisor segment.
#[must_use]
pub(crate) fn is_supervisor(va: u64) -> bool {
    CKSSEG.contains(&va) || va >> 62 == 1
}

impl Policy {
    /// Nothing.
    pub const NEVER: Self =
        Self { user: false, kernel: false, exceptions: false, translated: false };

    /// Whether what `vcpu` does next is to run directly.
    #[inline]
    #[must_use]
    pub(crate) fn takes(self, vcpu: &Vcpu) -> bool {
        let kind = match vcpu.mode {
            Mode::User => self.user,
            Mode::Kernel => {
                let status = vcpu.cp0.status;
                self.kernel
                    && (self.exceptions || !status.contains(Status::EXL))
                    && is_supervisor(vcpu.pc)
            }
            Mode::Supervisor | Mode::Error => false,
        };
        // An odd address is no place to return to, nor is a delay slot without its branch.
        kind && !vcpu.in_slot && vcpu.pc & 3 == 0
    }

    /// Whether what `vcpu` does next may be translated.
    #[inline]
    #[must_use]
    pub(crate) fn may_translate(self, vcpu: &Vcpu) -> bool {
        let ready = !vcpu.in_slot && vcpu.pc & 3 == 0 && !vcpu.verifies;
        let ready = ready && (!self.kernel || is_supervisor(vcpu.pc) && vcpu.link.is_none());
        self.translated && vcpu.mode == Mode::Kernel && ready
    }
}
