//! Which user addresses certainly have no entry in the guest's TLB: a filter that emitted code can look into.

use super::tlb::Entry;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Places of the filter. Eight times a TLB's entries, so that a probe in vain mostly finds an empty one.
pub(crate) const PLACES: usize = 1 << 15;
/// What a place says that is never left again: so many entries have come that they were not counted.
const FULL: u8 = u8::MAX;
/// Places whose change is remembered, at a time.
const KEPT: usize = 256;
/// Bits of an address above all user segments that are looked at here.
const USER_BITS: u32 = 40;

/// The place of a pair of pages in an address space, as EntryHi names both.
pub(crate) const fn place(entry_hi: u64) -> usize {
    (entry_hi >> 13 ^ entry_hi << 7) as usize % PLACES
}

/// Whether EntryHi names one of the addresses that the filter is about.
pub(crate) const fn is_user(entry_hi: u64) -> bool {
    entry_hi >> USER_BITS == 0
}

/// How many private entries of small user pages each place has.
#[derive(Debug)]
pub(crate) struct Presence {
    counts: Box<[u8]>,
    /// Places that have become empty, or are no longer …
    changed: [u16; KEPT],
    /// … so many, or more than there is room for.
    count: usize,
    /// Entries for user addresses that it can't tell apart: large or global ones.
    wide: u32,
}

impl Presence {
    /// Of no entries; `None` if there is no memory for it.
    pub fn new() -> Option<Self> {
        let mut counts = Vec::new();
        counts.try_reserve_exact(PLACES).ok()?;
        counts.resize(PLACES, 0);
        let (counts, changed) = (counts.into_boxed_slice(), [0; KEPT]);
        Some(Self { counts, changed, count: 0, wide: 0 })
    }

    /// Whoever asks next has heard nothing yet.
    pub const fn tell_all(&mut self) {
        self.count = KEPT + 1;
    }

    /// Whether it says all that there is to say about user addresses.
    pub const fn is_complete(&self) -> bool {
        self.wide == 0
    }

    /// Whether an address certainly has no entry in an address space.
    #[inline]
    pub fn is_absent(&self, va: u64, asid: u8) -> bool {
        let entry_hi = va & !0x1fff | u64::from(asid);
        self.wide == 0 && is_user(va) && self.counts[place(entry_hi)] == 0
    }

    fn note(&mut self, place: usize) {
        if let Some(changed) = self.changed.get_mut(self.count) {
            *changed = place as u16;
        }
        self.count = (self.count + 1).min(KEPT + 1);
    }

    /// An entry has come.
    pub fn enter(&mut self, entry: &Entry) {
        if entry.invalid || !is_user(entry.vpn) {
            return;
        }
        if entry.mask != 0 || entry.global {
            self.wide += 1;
            return;
        }
        let place = place(entry.vpn | u64::from(entry.asid));
        let count = &mut self.counts[place];
        *count = count.saturating_add(1);
        if *count == 1 {
            self.note(place);
        }
    }

    /// An entry has gone, which had come.
    pub fn leave(&mut self, entry: &Entry) {
        if entry.invalid || !is_user(entry.vpn) {
            return;
        }
        if entry.mask != 0 || entry.global {
            self.wide -= 1;
            return;
        }
        let place = place(entry.vpn | u64::from(entry.asid));
        let count = &mut self.counts[place];
        if *count != FULL {
            *count -= 1;
            if *count == 0 {
                self.note(place);
            }
        }
    }

    /// Tells of each place whether it has an entry: of all that may have changed since the last time.
    pub fn tell_changes(&mut self, mut tell: impl FnMut(usize, bool)) {
        if self.count > KEPT {
            for (place, count) in self.counts.iter().enumerate() {
                tell(place, *count != 0);
            }
        } else {
            for place in self.changed[..self.count].iter().copied().map(usize::from) {
                tell(place, self.counts[place] != 0);
            }
        }
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::tlb::Tlb;
    use crate::direct::tests::random::Random;

    #[test]
    fn what_it_calls_absent_is_in_no_entry_and_who_is_told_knows_as_much() {
        const SIZE: u32 = 32;
        let mut random = Random(7);
        let mut tlb = Tlb::new(SIZE, !0, true);
        let (mut told, mut absent) = (vec![true; PLACES], [0u32; 2]);
        assert!(tlb.keep_presence());
        for round in 0..60_000 {
            let (va, asid) = ((random.next() % 64) << 13, (random.next() % 3) as u8);
            let mask = if round % 3000 < 1000 { random.pick(&[0, 0, 0, 3 << 13]) } else { 0 };
            let global = round % 2000 < 500 && random.next().is_multiple_of(4);
            let invalid = random.next().is_multiple_of(5);
            let high = if random.next().is_multiple_of(8) { 0xffff_ffff_c000_0000 } else { 0 };
            let vpn = va | high;
            let entry = Entry { vpn, mask, asid, global, invalid, lo: [0; 2] };
            tlb.write(random.next() as usize % SIZE as usize, entry);
            if random.next().is_multiple_of(500) {
                tlb.invalidate(Some(asid));
            }
            let presence = tlb.presence().expect("it is kept");
            if random.next().is_multiple_of(8) {
                presence.tell_changes(|place, any| told[place] = any);
                let all = presence.counts.iter().zip(&told);
                assert!(round % 100 != 0 || all.clone().all(|(count, any)| (*count != 0) == *any));
            }
            let says = presence.is_absent(va, asid);
            absent[usize::from(says)] += 1;
            let is_there = tlb.entries().any(|entry| {
                !entry.invalid
                    && (va ^ entry.vpn) & !entry.pair_mask() == 0
                    && (entry.global || entry.asid == asid)
            });
            assert!(!(says && is_there), "round {round}: {va:#x} in {asid}");
        }
        assert!(absent.iter().all(|&count| count > 5000), "{absent:?}");
    }
}
