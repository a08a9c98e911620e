//! The L2TLB saved and restored, with the address spaces that its tags name.
//!
//! A saved translation names a machine page, and whoever wrote it down may be mistaken. So each page is asked
//! after when it comes back; and no store is let through before the pages that decoded code is kept of
//! are known again.

use super::counters::Counters;
use super::l2tlb::{L2Tlb, TAG_VA};
use super::space::Spacing;
use super::{Direct, is_supervisor};
use crate::cpu::Vcpu;
use crate::cpu::tlb::{LO_PFN_SHIFT, LO_V};
use crate::state::{Restorer, Saver, StateError, Visit, check};
use abi::{Mpa, PAGE_SHIFT};
use alloc::vec::Vec;

/// Cache attribute 3, cached, in EntryLo.
const CACHED: u64 = 3 << 3;
/// The page frame number in EntryLo: of a machine address of 36 bits.
const PFN: u64 = ((1 << (36 - PAGE_SHIFT)) - 1) << LO_PFN_SHIFT;
/// Words of a pair.
const PAIR: usize = 3;

/// Whether a guest can have had a real translation under this tag.
fn is_guests(tag: u64) -> bool {
    // What the tag has cut off is ones in the compatibility segments.
    let address = tag & !0x1fff;
    let va = if tag >> 62 == 3 { address | !TAG_VA } else { address };
    tag & !(TAG_VA | 0xff) == 0 && (tag >> 62 == 0 || is_supervisor(va))
}

impl Direct {
    /// Appends the state to `out`.
    pub(crate) fn save(&mut self, vcpu: &mut Vcpu, out: &mut Vec<u64>) -> Result<(), StateError> {
        // What is still to be forgotten is forgotten now: also, should it go on here, by the real TLB.
        self.follow_notes(vcpu, |_| {});
        self.spacing.release();
        self.counters.visit(&mut Saver(out))?;
        out.extend(self.spacing.saved());
        let live = self.spacing.live();
        let count_at = out.len();
        out.push(0);
        for (tag, lo) in self.l2.pairs().filter(|(tag, _)| live.contains(*tag as u8)) {
            out.extend([tag, lo[0], lo[1]]);
        }
        out[count_at] = ((out.len() - count_at) / PAIR) as u64;
        Ok(())
    }

    /// A saved state. `is_own`: whether a machine page is one of the VM's.
    pub(crate) fn restore(
        words: &mut Restorer<'_>,
        is_own: &mut dyn FnMut(Mpa) -> bool,
    ) -> Result<Self, StateError> {
        let (mut counters, mut spacing, l2) = (Counters::default(), Spacing::new(), L2Tlb::new());
        counters.visit(words)?;
        let live = spacing.restore(words.take()?)?;
        let mut count = 0;
        words.u64(&mut count)?;
        check(count <= L2Tlb::PAIRS as u64, "the number of translations")?;
        for _ in 0..count {
            let &[tag, lo0, lo1] = words.take::<PAIR>()?;
            check(is_guests(tag) && live.contains(tag as u8), "a translation's address")?;
            let mut half = |lo: u64| {
                let known =
                    lo & LO_V != 0 && is_own(Mpa((lo & PFN) << (PAGE_SHIFT - LO_PFN_SHIFT)));
                if known { lo & PFN | CACHED | LO_V } else { 0 }
            };
            let lo = [half(lo0), half(lo1)];
            if lo != [0; 2] {
                l2.insert(tag, lo);
            }
        }
        Ok(Self { l2, spacing, counters, ..Self::new() })
    }
}
