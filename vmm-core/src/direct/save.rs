//! The L2TLB saved and restored, with the address spaces that its tags name.
//!
//! Only the tags are saved. What lies under them is found anew, in the guest's TLB and where the VM's memory is known to lie: so
//! whoever wrote a saved state down can give a guest nothing that is not its own. And no store is let through before the pages that
//! decoded code is kept of are known again.

use super::fill::{CACHED, halves};
use super::l2tlb::{TAG_VA, is_private};
use super::{Direct, is_supervisor};
use crate::cpu::Vcpu;
use crate::cpu::tlb::{LO_PFN_SHIFT, LO_V};
use crate::state::{Restorer, Saver, StateError, Visit, check};
use abi::{Gpa, Mpa, PAGE_SIZE};
use alloc::vec::Vec;

/// Most pairs that are saved, the newest: one costs a third of what it takes to find a translation anew, so that it
/// has to be likely enough that it is needed again.
const PAIRS_MAX: usize = 1024;

/// The address of the pair of pages under this tag, if a guest can have had a real translation there.
fn address(tag: u64) -> Option<u64> {
    let cut = tag & TAG_VA;
    // What the tag has cut off is ones in the compatibility segments.
    let va = if tag >> 62 == 3 { cut | !TAG_VA & !(2 * PAGE_SIZE - 1) } else { cut };
    (tag & !(TAG_VA | 0xff) == 0 && (tag >> 62 == 0 || is_supervisor(va))).then_some(va)
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
        self.l2.newest(PAIRS_MAX as u32, |tag| {
            // What translated code has is of no use without it.
            let private = is_private(tag) && live.contains(tag as u8);
            if private && (self.translation.is_none() || tag >> 62 == 0) {
                out.push(tag);
            }
        });
        out[count_at] = (out.len() - count_at - 1) as u64;
        Ok(())
    }

    /// A saved state, of the restored `vcpu`. `find`: where in the machine memory of the VM lies, if that is known.
    pub(crate) fn restore(
        words: &mut Restorer<'_>,
        vcpu: &mut Vcpu,
        find: &mut dyn FnMut(Gpa) -> Option<Mpa>,
    ) -> Result<Self, StateError> {
        let mut direct = Self::new();
        direct.counters.visit(words)?;
        let live = direct.spacing.restore(words.take()?)?;
        let guests = direct.spacing.guests();
        let mut count = 0;
        words.u64(&mut count)?;
        check(count <= PAIRS_MAX as u64, "the number of translations")?;
        for _ in 0..count {
            let mut tag = 0;
            words.u64(&mut tag)?;
            let va = address(tag).filter(|_| live.contains(tag as u8));
            let va = va.ok_or(StateError::Value("a translation's address"))?;
            let Some(index) = vcpu.tlb.lookup(va, guests[usize::from(tag as u8)]) else { continue };
            vcpu.tlb.note_copied(index);
            let lo = halves(vcpu.tlb.entry(index), va).map(|(lo, gpa)| {
                let mpa = if lo & LO_V == 0 { None } else { find(Gpa(gpa)) };
                mpa.map_or(0, |mpa| mpa.page() << LO_PFN_SHIFT | CACHED | LO_V)
            });
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
    use crate::cpu::tlb::{Entry, LO_D};
    use crate::direct::tag;
    use crate::endian::Endian;
    use abi::PAGE_SHIFT;

    /// The real address space of guest ASID 5, and one that was once another's.
    const LIVE: u8 = 9;
    const DEAD: u8 = 10;
    const GUEST: u8 = 5;
    /// Pairs in a full L2TLB.
    const FULL: u64 = 4096;
    /// Size of the pages that map all of them, and half of a pair of those.
    const LARGE: u64 = 16 << 20;
    /// Where memory is.
    const MACHINE: u64 = 1 << 30;

    /// The real EntryLo of a page of the guest's.
    fn lo(page: u64) -> u64 {
        (((MACHINE >> PAGE_SHIFT) + page) << LO_PFN_SHIFT) | CACHED | LO_V
    }

    fn find(gpa: Gpa) -> Option<Mpa> {
        Some(Mpa(MACHINE + gpa.0))
    }

    fn count(direct: &Direct) -> usize {
        let mut count = 0;
        direct.l2.newest(u32::MAX, |_| count += 1);
        count
    }

    /// A full L2TLB, of a guest with one pair of large pages, and one entry of a small page.
    fn full() -> (Vcpu, Direct) {
        let mut vcpu = Vcpu::with_code_pages(CpuModel::honeycomb(), Endian::Little, 1);
        let guests = |gpa: u64| gpa >> PAGE_SHIFT << LO_PFN_SHIFT | CACHED | LO_V | LO_D;
        let entry = Entry {
            vpn: 0,
            mask: (2 * LARGE - 1) & !0x1fff,
            asid: GUEST,
            global: false,
            invalid: false,
            lo: [guests(0), guests(LARGE)],
        };
        vcpu.set_tlb(0, entry);
        let small = Entry { vpn: 1 << 38, mask: 0, lo: [0, guests(0x7000)], ..entry };
        vcpu.set_tlb(1, small);
        let mut direct = Direct::new();
        direct.follow_notes(&mut vcpu, |_| {});
        let mut real = [0; 32];
        real[0] = u64::from_be_bytes([0, 0, 0, 0, 0, LIVE, 0, 0]);
        assert_eq!(direct.spacing.restore(&real), Ok(direct.spacing.live()));
        for n in 0..FULL {
            let pair = [lo(2 * n) | LO_D, lo(2 * n + 1) | LO_D];
            assert_eq!(direct.l2.insert(tag(n << 13, LIVE), pair), None);
        }
        (vcpu, direct)
    }

    fn restored(
        words: &[u64],
        vcpu: &mut Vcpu,
        mut find: impl FnMut(Gpa) -> Option<Mpa>,
    ) -> Result<Direct, StateError> {
        let mut words = Restorer(words);
        let direct = Direct::restore(&mut words, vcpu, &mut find)?;
        if words.0.is_empty() { Ok(direct) } else { Err(StateError::Long) }
    }

    #[test]
    fn the_newest_translations_come_back_without_leave_to_store() {
        let (mut vcpu, mut direct) = full();
        let mut words = Vec::new();
        direct.save(&mut vcpu, &mut words).unwrap();
        let other = restored(&words, &mut vcpu, find).unwrap();
        assert_eq!((count(&direct), count(&other)), (FULL as usize, PAIRS_MAX));
        let newest = FULL - PAIRS_MAX as u64;
        for n in newest..FULL {
            let known = other.l2.lookup(tag(n << 13, LIVE));
            assert_eq!(known, Some([lo(2 * n), lo(2 * n + 1)]));
        }
        // Of even pages nobody knows where they are.
        let odd = |gpa: Gpa| find(gpa).filter(|_| gpa.0 & PAGE_SIZE != 0);
        let other = restored(&words, &mut vcpu, odd).unwrap();
        let known = other.l2.lookup(tag(newest << 13, LIVE));
        assert_eq!(known, Some([0, lo(2 * newest + 1)]));
        assert_eq!(count(&restored(&words, &mut vcpu, |_| None).unwrap()), 0);
    }

    #[test]
    fn only_what_a_guest_can_have_is_restored() {
        let (mut vcpu, mut direct) = full();
        direct.l2.clear();
        direct.l2.insert(tag(0x4000, DEAD), [lo(1), 0]);
        direct.l2.insert(tag(0x4000, LIVE), [lo(2), 0]);
        let mut words = Vec::new();
        direct.save(&mut vcpu, &mut words).unwrap();
        assert_eq!(words.len(), 9 + 32 + 1 + 1, "the dead one is left behind");
        let tag_at = words.len() - 1;
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
            assert_eq!(restored(&words, &mut vcpu, find).is_ok(), good, "{va:#x} {asid}");
        }
        words[tag_at] = tag(0x4000, LIVE) | 1 << 50;
        assert!(restored(&words, &mut vcpu, find).is_err(), "an address that is too wide");
        // What the guest's TLB does not have, and what it has, half of it.
        words[tag_at] = tag(0x3ff_ffff_e000, LIVE);
        assert_eq!(count(&restored(&words, &mut vcpu, find).unwrap()), 0);
        words[tag_at] = tag(1 << 38, LIVE);
        let pair = restored(&words, &mut vcpu, find).unwrap().l2.lookup(words[tag_at]);
        assert_eq!(pair, Some([0, lo(7)]));
        // Two guest address spaces with one number.
        words[9] |= u64::from(LIVE);
        assert!(restored(&words, &mut vcpu, find).is_err());
    }
}
