//! The L2TLB saved and restored, with the address spaces that its tags name.
//!
//! A saved translation names a machine page, and whoever wrote it down may be mistaken. So each page is asked
//! after when it comes back; and no store is let through before the pages that decoded code is kept of
//! are known again.

use super::l2tlb::TAG_VA;
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
/// Most pairs that are saved, the newest: one costs a third of what it takes to find a translation anew, so that it
/// has to be likely enough that it is needed again.
const PAIRS_MAX: usize = 1024;

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
        out.reserve(PAIRS_MAX * PAIR);
        self.l2.newest(PAIRS_MAX as u64, |tag, lo| {
            if live.contains(tag as u8) {
                out.extend_from_slice(&[tag, lo[0], lo[1]]);
            }
        });
        out[count_at] = ((out.len() - count_at) / PAIR) as u64;
        Ok(())
    }

    /// A saved state. `is_own`: whether a machine page is one of the VM's.
    pub(crate) fn restore(
        words: &mut Restorer<'_>,
        is_own: &mut dyn FnMut(Mpa) -> bool,
    ) -> Result<Self, StateError> {
        let mut direct = Self::new();
        direct.counters.visit(words)?;
        let live = direct.spacing.restore(words.take()?)?;
        let mut count = 0;
        words.u64(&mut count)?;
        check(count <= PAIRS_MAX as u64, "the number of translations")?;
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
                direct.l2.insert(tag, lo);
            }
        }
        Ok(direct)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::CpuModel;
    use crate::cpu::tlb::LO_D;
    use crate::direct::tag;
    use crate::endian::Endian;

    /// The real address space of guest ASID 5, and one that was once another's.
    const LIVE: u8 = 9;
    const DEAD: u8 = 10;
    const DIRTY: u64 = CACHED | LO_V | LO_D;

    fn lo(page: u64) -> u64 {
        page << LO_PFN_SHIFT | DIRTY
    }

    /// Pairs in a full L2TLB.
    const FULL: u64 = 4096;

    fn count(direct: &Direct) -> usize {
        let mut count = 0;
        direct.l2.newest(u64::MAX, |_, _| count += 1);
        count
    }

    /// A full L2TLB.
    fn full() -> (Vcpu, Direct) {
        let mut direct = Direct::new();
        let mut real = [0; 32];
        real[0] = u64::from_be_bytes([0, 0, 0, 0, 0, LIVE, 0, 0]);
        assert_eq!(direct.spacing.restore(&real), Ok(direct.spacing.live()));
        for n in 0..FULL {
            assert_eq!(direct.l2.insert(tag(n << 13, LIVE), [lo(2 * n), lo(2 * n + 1)]), None);
        }
        (Vcpu::with_code_pages(CpuModel::honeycomb(), Endian::Little, 1), direct)
    }

    fn restored(words: &[u64], own: impl Fn(u64) -> bool) -> Result<Direct, StateError> {
        let mut words = Restorer(words);
        let direct = Direct::restore(&mut words, &mut |mpa| own(mpa.0 >> PAGE_SHIFT))?;
        if words.0.is_empty() { Ok(direct) } else { Err(StateError::Long) }
    }

    #[test]
    fn the_newest_translations_come_back_without_leave_to_store() {
        let (mut vcpu, mut direct) = full();
        let mut words = Vec::new();
        direct.save(&mut vcpu, &mut words).unwrap();
        let other = restored(&words, |_| true).unwrap();
        assert_eq!((count(&direct), count(&other)), (FULL as usize, PAIRS_MAX));
        let newest = FULL - PAIRS_MAX as u64;
        for n in newest..FULL {
            let known = other.l2.lookup(tag(n << 13, LIVE));
            assert_eq!(known, Some([lo(2 * n) & !LO_D, lo(2 * n + 1) & !LO_D]));
        }
        // Pages of others: even ones.
        let other = restored(&words, |page| !page.is_multiple_of(2)).unwrap();
        let known = other.l2.lookup(tag(newest << 13, LIVE));
        assert_eq!(known, Some([0, lo(2 * newest + 1) & !LO_D]));
        assert_eq!(count(&restored(&words, |_| false).unwrap()), 0);
    }

    #[test]
    fn only_what_a_guest_can_have_is_restored() {
        let (mut vcpu, mut direct) = full();
        direct.l2.clear();
        direct.l2.insert(tag(0x4000, DEAD), [lo(1), 0]);
        direct.l2.insert(tag(0x4000, LIVE), [lo(2), 0]);
        let mut words = Vec::new();
        direct.save(&mut vcpu, &mut words).unwrap();
        assert_eq!(words.len(), 9 + 32 + 1 + PAIR, "the dead one is left behind");
        let tag_at = words.len() - PAIR;
        for (va, asid, good) in [
            (0x4000, LIVE, true),
            (0x3ff_ffff_e000, LIVE, true),
            (0x4000_0000_0000_2000, LIVE, true),
            (0xffff_ffff_c000_0000, LIVE, true),
            (0xffff_ffff_dfff_e000, LIVE, true),
            (0xffff_ffff_e000_0000, LIVE, false),
            (0xffff_ffff_8000_0000, LIVE, false),
            (0xc000_0000_0000_0000, LIVE, false),
            (0x8000_0000_0000_0000, LIVE, false),
            (0x4000, DEAD, false),
            (0x4000, 0, false),
        ] {
            words[tag_at] = tag(va, asid);
            assert_eq!(restored(&words, |_| true).is_ok(), good, "{va:#x} {asid}");
        }
        words[tag_at] = tag(0x4000, LIVE) | 1 << 50;
        assert!(restored(&words, |_| true).is_err(), "an address that is too wide");
        words[tag_at] = tag(0x4000, LIVE);
        // Another attribute, G, and address bits that there are not.
        words[tag_at + 1] = u64::MAX;
        let pair = restored(&words, |_| true).unwrap().l2.lookup(tag(0x4000, LIVE));
        assert_eq!(pair, Some([PFN | CACHED | LO_V, 0]));
        // Two guest address spaces with one number.
        words[9] |= u64::from(LIVE);
        assert!(restored(&words, |_| true).is_err());
    }
}
