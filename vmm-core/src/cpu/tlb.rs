//! The guest's TLB: fully associative, with a hash beside it so that a lookup costs the same with
//! 64 entries and with thousands.
//!
//! Where several entries match (UNPREDICTABLE in the manual), the one with the lowest index wins, as
//! in QEMU.

use super::CpuModel;
use super::cp0::page_mask;
use super::presence::Presence;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;

/// End of a hash chain.
const NONE: u16 = u16::MAX;
/// Kinds of entries: page sizes from 4 KB to 256 MB in steps of four, private and global ones.
const KINDS: usize = 2 * 9;
/// Pairs of pages that have a hint at a time.
const HINTS: usize = 1024;
/// Offset bits of the smallest pair of pages.
const PAIR_MASK: u64 = 0x1fff;
/// Marks of an entry: what it translates may have been copied; it may be written unseen.
const COPIED: u8 = 1;
const VICTIM: u8 = 2;

/// EntryLo.G.
pub const LO_G: u64 = 1;
/// EntryLo.V.
pub const LO_V: u64 = 2;
/// EntryLo.D.
pub const LO_D: u64 = 4;
/// The bits that EntryLo has.
pub const LO_ALL: u64 = 0x3fff_ffff;
/// Position of EntryLo.PFN.
pub const LO_PFN_SHIFT: u32 = 6;

/// One entry: a pair of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Region and VPN2, in place: EntryHi without its low 13 bits and what SEGBITS cuts off.
    pub vpn: u64,
    /// PageMask, in place: bits 28:13.
    pub mask: u64,
    /// Address space.
    pub asid: u8,
    /// Matches whatever the address space.
    pub global: bool,
    /// Matches nothing (EHINV).
    pub invalid: bool,
    /// EntryLo0 and EntryLo1: PFN (of this size), C, D, V; G in both or neither.
    pub lo: [u64; 2],
}

impl Entry {
    const RESET: Self =
        Self { vpn: 0, mask: 0, asid: 0, global: false, invalid: false, lo: [0; 2] };

    /// Whether the TLB instructions of a model can have made it.
    #[must_use]
    pub fn is_possible(&self, model: &CpuModel) -> bool {
        let lo_mask = model.entry_lo_mask();
        self.mask == u64::from(page_mask(self.mask))
            && self.vpn & !(model.segment_mask() & !PAIR_MASK) == 0
            && self.lo.iter().all(|lo| lo & !lo_mask == 0 && (lo & LO_G != 0) == self.global)
    }

    /// The offset bits of the pair.
    #[must_use]
    pub const fn pair_mask(&self) -> u64 {
        self.mask | PAIR_MASK
    }

    /// EntryLo of the page of the pair that holds `va`.
    #[must_use]
    pub const fn page(&self, va: u64) -> u64 {
        let odd = self.pair_mask() & !(self.pair_mask() >> 1);
        self.lo[(va & odd != 0) as usize]
    }

    /// The physical address of `va` under an EntryLo of this entry.
    #[must_use]
    pub const fn physical(&self, lo: u64, va: u64) -> u64 {
        (lo >> LO_PFN_SHIFT) << 12 | va & (self.pair_mask() >> 1)
    }
}

/// The TLB.
#[derive(Debug)]
pub struct Tlb {
    entries: Vec<Entry>,
    /// Hash heads, a power of two of them, and chains.
    heads: Vec<u16>,
    next: Vec<u16>,
    /// Live entries of each kind: twice the page size's class, plus one if they are global …
    counts: [u32; KINDS],
    /// … and a bit for each kind that there is any of.
    present: u32,
    segment_mask: u64,
    /// What lookups have found. A hint is the answer to the same question if its entry still matches, or if it says that there is
    /// none: where one may have come to match, or one with a lower index, the hint is taken away.
    /// On the heap: a VM that is being made passes through its maker's stack.
    hints: Box<[Cell<Hint>; HINTS]>,
    /// How often entries have changed.
    changes: u64,
    /// Live private entries at kernel addresses: while there are none, a hint for such an address is the
    /// answer in every address space.
    private_kernel: u32,
    /// Of each entry.
    marks: Vec<u8>,
    /// None that is marked as a victim has been copied since.
    victims_stand: bool,
    /// Which user addresses have no entry, if somebody wants to know.
    presence: Option<Box<Presence>>,
}

/// The answer to a lookup.
#[derive(Clone, Copy, Debug)]
struct Hint {
    /// The number of the pair of pages.
    pair: u64,
    asid: u8,
    /// [`NONE`]: there is no entry.
    index: u16,
}

impl Hint {
    const NONE: Self = Self { pair: u64::MAX, asid: 0, index: NONE };
}

/// Whether an entry is counted in [`Tlb::private_kernel`].
const fn is_private_kernel(entry: &Entry) -> bool {
    !entry.global && entry.vpn >> 63 == 1
}

/// Room for hints, made where it stays.
fn no_hints() -> Box<[Cell<Hint>; HINTS]> {
    match vec![Cell::new(Hint::NONE); HINTS].into_boxed_slice().try_into() {
        Ok(hints) => hints,
        Err(_) => unreachable!("as many hints as were asked for"),
    }
}

/// The kind of an entry: its page mask's ones are twice its size class.
const fn kind(mask: u64, global: bool) -> usize {
    // (They follow each other, from bit 13 on. Counting ones takes many instructions, and is done whether it is wanted or not.)
    let ones = PAIR_MASK.leading_zeros() - (mask | PAIR_MASK).leading_zeros();
    ones as usize | global as usize
}

impl Tlb {
    /// `size` entries in their state at reset.
    #[must_use]
    pub fn new(size: u32, segment_mask: u64, reset_invalid: bool) -> Self {
        let size = size as usize;
        let mut tlb = Self {
            entries: vec![Entry { invalid: true, ..Entry::RESET }; size],
            heads: vec![NONE; (2 * size).next_power_of_two()],
            next: vec![NONE; size],
            counts: [0; KINDS],
            present: 0,
            segment_mask,
            hints: no_hints(),
            changes: 0,
            private_kernel: 0,
            marks: vec![0; size],
            victims_stand: false,
            presence: None,
        };
        if !reset_invalid {
            for index in 0..size {
                tlb.write(index, Entry::RESET);
            }
        }
        tlb
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Never: a TLB has at least one entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A number that is another one whenever an entry has changed.
    #[must_use]
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// All entries, by index.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Entry `index`, which must be below [`Tlb::len`].
    #[must_use]
    pub fn entry(&self, index: usize) -> &Entry {
        &self.entries[index]
    }

    /// From now on it is kept which user addresses have no entry, for somebody new; `false`: there is no memory for that.
    pub(crate) fn keep_presence(&mut self) -> bool {
        if self.presence.is_none()
            && let Some(mut presence) = Presence::new()
        {
            self.entries.iter().for_each(|entry| presence.enter(entry));
            self.presence = Some(Box::new(presence));
        }
        self.presence.as_mut().map(|presence| presence.tell_all()).is_some()
    }

    /// That, if it is kept.
    pub(crate) fn presence(&mut self) -> Option<&mut Presence> {
        self.presence.as_deref_mut()
    }

    /// What entry `index` translates is copied.
    #[inline]
    pub(crate) fn note_copied(&mut self, index: usize) {
        let mark = &mut self.marks[index];
        self.victims_stand &= *mark & VICTIM == 0;
        *mark |= COPIED;
    }

    /// Whether what entry `index` translates may have been copied.
    #[inline]
    pub(crate) fn is_copied(&self, index: usize) -> bool {
        self.marks[index] & COPIED != 0
    }

    /// Entries of these indices are to be written unseen, and the `old` ones are not: it is noted if they are copied first.
    pub(crate) fn mark_victims(&mut self, old: &[u16], new: &[u16]) {
        for &index in old {
            self.marks[usize::from(index)] &= !VICTIM;
        }
        for &index in new {
            self.marks[usize::from(index)] |= VICTIM;
        }
    }

    /// None of them has been copied.
    pub(crate) const fn let_victims_stand(&mut self) {
        self.victims_stand = true;
    }

    /// Whether none of them has been since.
    #[inline]
    pub(crate) const fn victims_stand(&self) -> bool {
        self.victims_stand
    }

    /// The chain of entries of one kind for a virtual page number, in address space `space` (256: in all).
    #[inline]
    fn bucket(&self, vpn: u64, kind: usize, space: u64) -> usize {
        // The number of the pair of pages, of this size: a page mask has twice its size class of ones.
        let pair = vpn >> 13 >> (kind & !1);
        // All address spaces have their pages at much the same addresses: the upper bits of a product depend on all of both.
        let hash = (pair ^ space << 24 ^ (kind as u64) << 33).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> 40) as usize & (self.heads.len() - 1)
    }

    fn bucket_of(&self, entry: &Entry, kind: usize) -> usize {
        let space = if entry.global { 256 } else { u64::from(entry.asid) };
        self.bucket(entry.vpn, kind, space)
    }

    fn unlink(&mut self, index: usize) {
        let entry = self.entries[index];
        if entry.invalid {
            return;
        }
        let kind = kind(entry.mask, entry.global);
        let bucket = self.bucket_of(&entry, kind);
        let following = self.next[index];
        let mut at = self.heads[bucket];
        if usize::from(at) == index {
            self.heads[bucket] = following;
        } else {
            while at != NONE {
                let next = self.next[usize::from(at)];
                if usize::from(next) == index {
                    self.next[usize::from(at)] = following;
                    break;
                }
                at = next;
            }
        }
        if let Some(presence) = &mut self.presence {
            presence.leave(&entry);
        }
        self.private_kernel -= u32::from(is_private_kernel(&entry));
        self.counts[kind] -= 1;
        if self.counts[kind] == 0 {
            self.present &= !(1 << kind);
        }
    }

    /// Replaces entry `index`, which must be below [`Tlb::len`]; nothing of the new one is copied. Whether some of what it translates
    /// may have been translated by others than the one replaced.
    pub fn write(&mut self, index: usize, entry: Entry) -> bool {
        self.changes += 1;
        let kernel = entry.vpn >> 63 == 1;
        // One whose lookups all use one hint.
        let small = entry.mask == 0 && (kernel || !entry.global);
        let found = if small && !entry.invalid { self.lookup(entry.vpn, entry.asid) } else { None };
        let alone = small && found.is_none_or(|found| found == index);
        // (Those of other address spaces have not been looked for.)
        let covers = !alone || entry.global && self.private_kernel > 0;
        self.unlink(index);
        self.entries[index] = entry;
        self.marks[index] &= !COPIED;
        if !small {
            for hint in self.hints.iter() {
                hint.set(Hint::NONE);
            }
        }
        if entry.invalid {
            return false;
        }
        if let Some(presence) = &mut self.presence {
            presence.enter(&entry);
        }
        let kind = kind(entry.mask, entry.global);
        let bucket = self.bucket_of(&entry, kind);
        self.next[index] = self.heads[bucket];
        self.heads[bucket] = index as u16;
        self.private_kernel += u32::from(is_private_kernel(&entry));
        self.counts[kind] += 1;
        self.present |= 1 << kind;
        if alone {
            // It will be asked for next.
            let Entry { vpn, asid, .. } = entry;
            self.hint(vpn, asid).set(Hint { pair: vpn >> 13, asid, index: index as u16 });
        } else if small {
            self.hint(entry.vpn, entry.asid).set(Hint::NONE);
        }
        covers
    }

    /// Marks entries invalid: all, or the private ones of one address space.
    pub fn invalidate(&mut self, asid: Option<u8>) {
        self.changes += 1;
        for index in 0..self.entries.len() {
            let entry = self.entries[index];
            if asid.is_none_or(|asid| !entry.global && entry.asid == asid) {
                self.unlink(index);
                self.entries[index].invalid = true;
            }
        }
    }

    /// The index of the entry that maps `va` in address space `asid`.
    #[must_use]
    pub fn lookup(&self, va: u64, asid: u8) -> Option<usize> {
        let va = va & self.segment_mask;
        let hint = self.hint(va, asid).get();
        let shared = va >> 63 == 1 && self.private_kernel == 0;
        if hint.pair == va >> 13 && (hint.asid == asid || shared) {
            let entry = self.entries.get(usize::from(hint.index))?;
            if !entry.invalid
                && (va ^ entry.vpn) & !entry.pair_mask() == 0
                && (entry.global || entry.asid == asid)
            {
                return Some(usize::from(hint.index));
            }
        }
        self.ask(va, asid)
    }

    /// Searches, and leaves a hint.
    #[inline(never)]
    fn ask(&self, va: u64, asid: u8) -> Option<usize> {
        if self.presence.as_ref().is_some_and(|presence| presence.is_absent(va, asid)) {
            return None;
        }
        let found = self.search(va, asid);
        let index = found.map_or(NONE, |index| index as u16);
        self.hint(va, asid).set(Hint { pair: va >> 13, asid, index });
        found
    }

    /// The hint for `va` in an address space. Kernel addresses, most of which are global, have one for all
    /// of them.
    #[inline]
    fn hint(&self, va: u64, asid: u8) -> &Cell<Hint> {
        let space = if va >> 63 == 0 { u64::from(asid) << 2 } else { 0 };
        &self.hints[((va >> 13 ^ va >> 23 ^ space) as usize) % HINTS]
    }

    fn search(&self, va: u64, asid: u8) -> Option<usize> {
        let mut found = NONE;
        let mut kinds = self.present;
        while kinds != 0 {
            let kind = kinds.trailing_zeros();
            kinds &= kinds - 1;
            let mask = ((1 << (kind & !1)) - 1) << 13;
            let space = if kind & 1 == 1 { 256 } else { u64::from(asid) };
            let mut at = self.heads[self.bucket(va, kind as usize, space)];
            while at != NONE {
                let entry = &self.entries[usize::from(at)];
                if at < found
                    && entry.mask == mask
                    && (va ^ entry.vpn) & !entry.pair_mask() == 0
                    && (entry.global || entry.asid == asid)
                {
                    found = at;
                }
                at = self.next[usize::from(at)];
            }
        }
        (found != NONE).then_some(usize::from(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Overlapping entries of all kinds come and go: the lowest index always wins.
    #[test]
    fn hints_never_hide_a_lower_entry() {
        const SIZE: u32 = 24;
        let mut state = 1u64;
        let mut random = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % n
        };
        let mut tlb = Tlb::new(SIZE, !0, true);
        let bases = [0x40_0000, 0xffff_ffff_c000_0000, 0xffff_ffff_c080_0000];
        let mut some = [0; 2];
        for round in 0..200_000 {
            let va = bases[random(3) as usize] + (random(8) << 13);
            let asid = random(3) as u8;
            if random(3) == 0 {
                let mask = [0, 0, 0, 3 << 13, 15 << 13][random(5) as usize];
                let global = random(3) == 0;
                let invalid = random(6) == 0;
                // Now and then no private kernel entry is left.
                let global = global || va >> 63 == 1 && round / 1000 % 2 == 0;
                let vpn = va & !0x1fff;
                let entry = Entry { vpn, mask, asid, global, invalid, lo: [0; 2] };
                let index = random(SIZE.into()) as usize;
                let winner = |va: u64, asid| {
                    (0..tlb.len()).find(|&at| {
                        let other = tlb.entry(at);
                        !other.invalid
                            && (va ^ other.vpn) & !other.pair_mask() == 0
                            && (other.global || other.asid == asid)
                    })
                };
                let spaces = if global { 0..3 } else { asid..asid + 1 };
                let first = vpn & !entry.pair_mask();
                let any = spaces.into_iter().any(|asid| {
                    let mut pairs = (0..=mask >> 13).map(|n| first + (n << 13));
                    pairs.any(|va| winner(va, asid).is_some_and(|at| at != index))
                });
                let covers = tlb.write(index, entry);
                assert!(covers || invalid || !any, "round {round}: {entry:?} at {index}");
                some[usize::from(covers)] += 1;
            } else if random(2000) == 0 {
                tlb.invalidate((random(2) == 0).then_some(asid));
            }
            let naive = (0..tlb.len()).find(|&index| {
                let entry = tlb.entry(index);
                !entry.invalid
                    && (va ^ entry.vpn) & !entry.pair_mask() == 0
                    && (entry.global || entry.asid == asid)
            });
            assert_eq!(tlb.lookup(va, asid), naive, "round {round}: {va:#x} in {asid}");
        }
        assert!(some.iter().all(|&count| count > 1000), "{some:?}");
    }
}
