//! The real address spaces that a VCPU has, one for each of its guest's that is in use.
//!
//! A guest address space keeps its real number, which is in the tags of the L2TLB, for as long as it can:
//! also on another CPU, if the number is free there. So the L2TLB moves with the VCPU as it is. Where the
//! number is another's, it gets a new one, and what the L2TLB has under the old one is lost.
//!
//! What a VCPU leaves in a CPU's real TLB when it goes is never looked at again unless it comes back
//! and claims a number anew that it had there: then the real TLB is emptied first.
//!
//! Invariants, for a VCPU on a CPU, with `tag` of an entry in the L2TLB, or of an entry in this CPU's real
//! TLB with an address space that it *holds*:
//!
//! - if real[g] = asid(tag), the entry is a translation in guest address space g that is valid;
//! - asid(tag) ∈ `tagged`; a number in `tagged` is given to no guest address space but the one that has it;
//! - real TLB ⊆ L2TLB, but for what address spaces have in common: that may be in the real TLB, in any of them, for as long as its
//!   number is not given up. No translation of these is ever forgotten by itself, only all at once, with all address
//!   spaces: then nobody looks at what the real TLB has of them.

use super::cpu::RealCpu;
use super::l2tlb::{COMMON, L2Tlb, tag};
use super::spaces::{Asids, Claim, new_owner};
use crate::cpu::Void;
use crate::cpu::tlb::Entry;
use crate::state::{StateError, check};
use crate::translate::Class;
use abi::PAGE_SIZE;

/// Pairs of pages that are forgotten one by one; where there are more, the whole address space is.
const PAIRS_MAX: u64 = 16;

/// Whether all address spaces have in common what this entry of the guest's TLB says: when it goes, they are all given up.
#[inline(always)]
pub(super) const fn is_common(entry: &Entry) -> bool {
    entry.global && entry.pair_mask() >= 2 * PAGE_SIZE * PAIRS_MAX
}

/// Real ASIDs by guest ASID.
#[derive(Debug)]
pub(super) struct Spacing {
    /// What it is called where it has address spaces.
    owner: u32,
    /// By guest ASID; 0: none.
    real: [u8; 256],
    /// Those of them that are not 0.
    given: Asids,
    /// The guest ASIDs whose real ones are its own on the CPU and in the generation …
    held: Asids,
    /// … which are these.
    generation: u64,
    /// Since it came there the real TLB has been emptied.
    clean: bool,
    /// The real ASIDs that tags of the L2TLB may have.
    tagged: Asids,
    /// Where to look for the next.
    next: u8,
    /// The number of what they have in common, if it is not given up …
    common: Option<u16>,
    /// … and the next one.
    next_common: u16,
}

impl Spacing {
    pub fn new() -> Self {
        let owner = new_owner();
        Self {
            owner,
            real: [0; 256],
            given: Asids::NONE,
            held: Asids::NONE,
            generation: 0,
            clean: false,
            tagged: Asids::NONE,
            // So that VCPUs that meet on a CPU rarely want the same.
            next: (owner as u8).wrapping_mul(61),
            common: None,
            next_common: COMMON.start,
        }
    }

    /// The real address space of the guest's.
    #[inline]
    pub fn real<R: RealCpu>(&mut self, l2: &L2Tlb, guest: u8, cpu: &mut R) -> u8 {
        if self.generation == cpu.spaces().generation() && self.held.contains(guest) {
            return self.real[usize::from(guest)];
        }
        self.acquire(l2, guest, cpu)
    }

    /// The number under which the L2TLB has what all of the guest's address spaces have in common.
    #[inline]
    pub fn common(&mut self, l2: &L2Tlb) -> u16 {
        match self.common {
            Some(common) => common,
            None => self.begin_common(l2),
        }
    }

    #[cold]
    fn begin_common(&mut self, l2: &L2Tlb) -> u16 {
        if !COMMON.contains(&self.next_common) {
            // All may be in its tags. (What the real TLB has of them is in address spaces that have been given up.)
            l2.clear_common();
            self.next_common = COMMON.start;
        }
        let common = self.next_common;
        self.next_common += 1;
        self.common = Some(common);
        common
    }

    #[cold]
    fn acquire<R: RealCpu>(&mut self, l2: &L2Tlb, guest: u8, cpu: &mut R) -> u8 {
        loop {
            let generation = cpu.spaces().generation();
            if self.generation != generation {
                self.generation = generation;
                self.held = Asids::NONE;
                self.clean = false;
            }
            let kept = self.real[usize::from(guest)];
            let claim = if kept == 0 { Claim::Taken } else { cpu.spaces().claim(kept, self.owner) };
            if claim == Claim::Again && !self.clean {
                cpu.forget_all();
                self.clean = true;
            }
            let real = if claim == Claim::Taken {
                cpu.spaces().allocate(self.owner, &self.tagged, self.next)
            } else {
                Some(kept)
            };
            if let Some(real) = real {
                self.given.remove(kept);
                self.real[usize::from(guest)] = real;
                self.given.insert(real);
                self.held.insert(guest);
                self.tagged.insert(real);
                self.next = real;
                return real;
            }
            if cpu.spaces().any_free() {
                // But the L2TLB has them all in its tags.
                self.forget_all();
                l2.clear();
                self.tagged = Asids::NONE;
            } else {
                cpu.forget_all();
                cpu.spaces().renew();
            }
        }
    }

    /// The real address spaces by guest ASID, eight to a word, as they are in the tags of the L2TLB.
    pub fn saved(&self) -> [u64; 32] {
        let mut words = [0; 32];
        for (word, bytes) in words.iter_mut().zip(self.real.as_chunks::<8>().0) {
            *word = u64::from_be_bytes(*bytes);
        }
        words
    }

    /// The real address spaces that are some guest ASID's: what other tags name is lost.
    pub const fn live(&self) -> Asids {
        self.given
    }

    /// The guest ASIDs by real ones: of those that some guest ASID has.
    pub fn guests(&self) -> [u8; 256] {
        let mut guests = [0; 256];
        for (guest, &real) in (0..=u8::MAX).zip(&self.real) {
            guests[usize::from(real)] = guest;
        }
        guests
    }

    /// Takes over saved ones; those that tags may have. They are not held on any CPU yet.
    pub fn restore(&mut self, words: &[u64; 32]) -> Result<Asids, StateError> {
        let mut tagged = Asids::NONE;
        for (bytes, word) in self.real.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *bytes = word.to_be_bytes();
            for &mut asid in bytes.iter_mut().filter(|asid| **asid != 0) {
                check(!tagged.contains(asid), "two address spaces with one number")?;
                tagged.insert(asid);
            }
        }
        self.tagged = tagged;
        self.given = tagged;
        Ok(tagged)
    }

    /// Gives all address spaces up, and what they have in common: what is known of them is never looked at again.
    pub fn forget_all(&mut self) {
        self.common = None;
        if self.given != Asids::NONE {
            self.real = [0; 256];
            self.given = Asids::NONE;
            self.held = Asids::NONE;
        }
    }

    /// Gives one address space up.
    fn forget_space(&mut self, guest: u8) {
        let real = core::mem::take(&mut self.real[usize::from(guest)]);
        self.given.remove(real);
        self.held.remove(guest);
    }

    /// Nothing is held any more: whatever a real TLB has is forgotten before it is used again.
    pub const fn release(&mut self) {
        self.held = Asids::NONE;
        self.generation = 0;
    }

    /// Forgets some translations, and those of their aliases. `gone` is told what pairs the L2TLB had.
    pub fn forget(&mut self, l2: &L2Tlb, void: Void, segbits: u32, mut gone: impl FnMut(u64)) {
        let pairs = (void.pair_mask + 1) / (2 * PAGE_SIZE);
        match void.asid {
            None if pairs > PAIRS_MAX => self.forget_all(),
            Some(asid) if pairs > PAIRS_MAX => self.forget_space(asid),
            Some(asid) => forget_in(l2, void, segbits, self.real[usize::from(asid)], &mut gone),
            None => {
                for real in self.given.each() {
                    forget_in(l2, void, segbits, real, &mut gone);
                }
            }
        }
    }
}

/// The address that an entry of the guest's TLB with this number is for, of `segbits` bits in its segment.
const fn address(vpn: u64, segbits: u32) -> u64 {
    // The last 2 GB of the last segment are the compatibility segments.
    let ones = (1 << segbits) - (1 << 31);
    let compatible = vpn >> 62 == 3 && vpn & ones == ones;
    if compatible { vpn | !((1 << 31) - 1) } else { vpn }
}

/// Forgets pairs in one real address space, where the guest's addresses are the real ones, and where translated
/// code has their aliases.
fn forget_in(l2: &L2Tlb, void: Void, segbits: u32, real: u8, gone: &mut impl FnMut(u64)) {
    if real == 0 {
        return;
    }
    let first = address(void.vpn, segbits) & !void.pair_mask;
    // (User mode's are where they are.)
    let class = if first >> 62 == 0 { None } else { Class::of(first) };
    let alias = class.map(|class| first ^ class.constant());
    for first in [Some(first), alias].into_iter().flatten() {
        let mut offset = 0;
        while offset <= void.pair_mask {
            let tag = tag(first + offset, real);
            // What the L2TLB does not have, the real TLB has not either, where the VCPU is.
            if l2.forget(tag) {
                gone(tag);
            }
            offset += 2 * PAGE_SIZE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::direct::common_tag;

    #[test]
    fn an_entry_of_the_compatibility_segments_is_found_by_its_real_address() {
        let l2 = L2Tlb::new();
        let void = |vpn| Void { vpn, pair_mask: 0x1fff, asid: None };
        for (va, segbits) in [
            (0xffff_ffff_c000_4000, 40),
            (0xffff_ffff_dfff_e000, 42),
            (0xc000_0000_0000_4000, 40),
            (0x4000_0000_0000_4000, 40),
            (0x12_3456_8000, 40),
        ] {
            let vpn = va & ((3 << 62) | ((1 << segbits) - 1));
            let alias = Class::of(va).map_or(va, |class| va ^ class.constant());
            for real in [va, alias] {
                l2.insert(tag(real, 9), [1, 2]);
                forget_in(&l2, void(vpn), segbits, 9, &mut |gone| assert_eq!(gone, tag(real, 9)));
                assert_eq!(l2.lookup(tag(real, 9)), None, "{real:#x}");
            }
        }
    }

    #[test]
    fn common_numbers_come_round_without_what_they_once_meant() {
        let (l2, mut spacing) = (L2Tlb::new(), Spacing::new());
        let private = tag(1 << 62, 5);
        l2.insert(private, [5, 6]);
        let mut rounds = 0;
        for _ in 0..3 * COMMON.len() {
            let common = spacing.common(&l2);
            assert!(COMMON.contains(&common) && spacing.common(&l2) == common);
            if common == COMMON.start {
                rounds += 1;
                let tag = common_tag(1 << 62, common);
                assert_eq!(l2.lookup(tag), None, "round {rounds}");
                l2.insert(tag, [1, 2]);
            }
            spacing.forget_all();
        }
        assert_eq!((rounds, l2.lookup(private)), (3, Some([5, 6])));
    }
}
