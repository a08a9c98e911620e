//! Real misses that the L2TLB does not answer, answered from the guest's TLB and the pmap.

use super::cpu::RealCpu;
use super::l2tlb::{L2Tlb, NOTHING_COMMON, common_tag, is_private, tag};
use super::space::is_common;
use crate::cpu::tlb::{Entry, LO_D, LO_PFN_SHIFT, LO_V};
use crate::cpu::{Access, Stale, Vcpu};
use crate::interp::{CodeCache, CodeMap};
use crate::mem::GuestMemory;
use crate::translate::{Own, OwnPair, is_mapped};
use abi::{Gpa, PAGE_SHIFT, PAGE_SIZE};
use alloc::boxed::Box;
use alloc::vec;

/// Cache attribute 3, cached, in EntryLo.
pub(super) const CACHED: u64 = 3 << 3;

/// Guest pages that are remembered at a time.
const PAGES: usize = 4096;
/// What no page is known by.
const NONE: u64 = u64::MAX;

/// A guest page, and the real EntryLo that it gets at most: with D if no decoded code of it is kept.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// The page's guest-physical address, and in the offset bits when it was looked up.
    key: u64,
    lo: u64,
}

/// Real EntryLo values of guest pages, so that most need not be looked for. They are void when the VCPU's
/// notes say "everything".
#[derive(Debug)]
pub(super) struct Pages {
    known: Box<[Known]>,
    /// How often they have become void, modulo a page's bytes: what was looked up before is not found.
    round: u64,
}

impl Pages {
    pub fn new() -> Self {
        Self { known: vec![Known { key: NONE, lo: 0 }; PAGES].into_boxed_slice(), round: 0 }
    }

    pub fn clear(&mut self) {
        self.round = (self.round + 1) % PAGE_SIZE;
        if self.round == 0 {
            self.known.fill(Known { key: NONE, lo: 0 });
        }
    }

    /// What the page at `gpa` is known by now.
    #[inline(always)]
    const fn key(&self, gpa: u64) -> u64 {
        gpa | self.round
    }

    #[inline(always)]
    fn place(&mut self, gpa: u64) -> &mut Known {
        &mut self.known[(gpa >> PAGE_SHIFT) as usize % PAGES]
    }
}

/// What it takes.
pub(super) struct Fill<'a, M: ?Sized> {
    pub mem: &'a M,
    pub code: &'a CodeCache,
    pub others: Option<&'a CodeMap>,
    pub l2: &'a L2Tlb,
    pub pages: &'a mut Pages,
    /// The real address space.
    pub asid: u8,
    /// The number of what address spaces have in common.
    pub common: u16,
    /// How many there were.
    pub count: &'a mut u64,
}

impl<M: GuestMemory + ?Sized> Fill<'_, M> {
    /// Puts the pair of pages around `va` into L2TLB and real TLB; `false`: the guest may not make this
    /// access, or no memory is there.
    #[inline(always)]
    pub fn answer<R: RealCpu>(
        &mut self,
        cpu: &mut R,
        vcpu: &mut Vcpu,
        va: u64,
        access: Access,
    ) -> bool {
        if !vcpu.has_address(va) {
            return false;
        }
        let Some(index) = vcpu.tlb.lookup(va, vcpu.cp0.entry_hi as u8) else { return false };
        let entry = vcpu.tlb.entry(index);
        let common = self.common != NOTHING_COMMON && va >> 62 != 0 && is_common(entry);
        let pair = halves(entry, va);
        let copied = self.put(cpu, vcpu, va, pair, access, common);
        if copied {
            vcpu.tlb.note_copied(index);
        }
        copied
    }

    /// As [`Fill::answer`], for translated code: `real` is an alias of the guest's address, or of the VCPU's own pages.
    pub fn answer_translated<R: RealCpu>(
        &mut self,
        own: &Own,
        cpu: &mut R,
        vcpu: &mut Vcpu,
        real: u64,
        access: Access,
    ) -> bool {
        if let Some(OwnPair { pages, mask, writable }) = own.pair(real) {
            if access == Access::Write && !writable {
                return false;
            }
            let flags = CACHED | LO_V | if writable { LO_D } else { 0 };
            let at = |page| cpu.machine_page(page) >> PAGE_SHIFT << LO_PFN_SHIFT | flags;
            let lo = pages.map(|page| page.map_or(0, at));
            return self.enter_common(cpu, real, lo, mask);
        }
        let Some(va) = own.guest_address(real) else { return false };
        let mapped = is_mapped(va);
        // The TLB is to get that first.
        if mapped && own.has_posts() {
            return false;
        }
        // With all that Status says about segments.
        let Ok(physical) = vcpu.translate(va, access) else { return false };
        if access == Access::Write {
            let page = self.mem.resolve(Gpa(physical & !(PAGE_SIZE - 1)), Access::Read);
            // The interpreter makes that store, and then the code goes.
            if page.is_some_and(|page| self.code.is_watched(page)) {
                return false;
            }
        }
        if !mapped {
            let even = physical & !(2 * PAGE_SIZE - 1);
            let pair = [(LO_V | LO_D, even), (LO_V | LO_D, even + PAGE_SIZE)];
            return self.put(cpu, vcpu, real, pair, access, true);
        }
        let Some(index) = vcpu.tlb.lookup(va, vcpu.cp0.entry_hi as u8) else { return false };
        let entry = vcpu.tlb.entry(index);
        let common = va >> 62 != 0 && is_common(entry);
        let pair = halves(entry, va);
        let copied = self.put(cpu, vcpu, real, pair, access, common);
        if copied {
            vcpu.tlb.note_copied(index);
            if !vcpu.tlb.victims_stand() {
                own.stop_posts();
            }
        }
        copied
    }

    /// Puts a pair of pages in at `va`: of each the guest's EntryLo, and its guest-physical address. Whether all address spaces
    /// have it in common.
    #[inline(always)]
    fn put<R: RealCpu>(
        &mut self,
        cpu: &mut R,
        vcpu: &mut Vcpu,
        va: u64,
        pair: [(u64, u64); 2],
        access: Access,
        common: bool,
    ) -> bool {
        let [(even, first), (odd, second)] = pair;
        let Vcpu { stale, soft, .. } = vcpu;
        let is_odd = va & PAGE_SIZE != 0;
        if access == Access::Write {
            let (lo, gpa) = if is_odd { (odd, second) } else { (even, first) };
            if lo & (LO_D | LO_V) != LO_D | LO_V {
                return false;
            }
            let key = self.pages.key(gpa);
            let known = self.pages.place(gpa);
            if known.key != key || known.lo & LO_D == 0 {
                // Decoded code of it is kept, or was when the page was looked up.
                known.key = NONE;
                if let Some(page) = self.mem.resolve(Gpa(gpa), access) {
                    if self.code.drop_page(page) {
                        soft.flush_fetch();
                    }
                    if let Some(map) = self.others {
                        map.opened(Gpa(gpa), page);
                    }
                }
            }
        }
        // The page that is wanted first: it may be a device's.
        let (mut lo, pair) = ([0; 2], [(even, first), (odd, second)]);
        for at in [is_odd, !is_odd].map(usize::from) {
            lo[at] = self.half(stale, cpu, pair[at].0, pair[at].1);
            if lo[usize::from(is_odd)] == 0 {
                return false;
            }
        }
        if common { self.enter_common(cpu, va, lo, 0) } else { self.enter(cpu, va, lo) }
    }

    #[inline(always)]
    fn enter<R: RealCpu>(&mut self, cpu: &mut R, va: u64, lo: [u64; 2]) -> bool {
        let tag = tag(va, self.asid);
        self.lose(cpu, self.l2.insert(tag, lo));
        cpu.install(tag, lo, 0);
        *self.count += 1;
        true
    }

    /// Of what address spaces have in common.
    fn enter_common<R: RealCpu>(&mut self, cpu: &mut R, va: u64, lo: [u64; 2], mask: u32) -> bool {
        self.lose(cpu, self.l2.insert_masked(common_tag(va, self.common), lo, mask));
        cpu.install(tag(va, self.asid), lo, mask);
        *self.count += 1;
        true
    }

    /// A pair that the L2TLB does not have any more. What was common may stay in the real TLB: it is never forgotten by itself.
    #[inline(always)]
    fn lose<R: RealCpu>(&self, cpu: &mut R, tag: Option<u64>) {
        if let Some(tag) = tag.filter(|tag| is_private(*tag)) {
            cpu.forget_pair(tag);
        }
    }

    /// The real EntryLo of the page at `gpa` under a guest's EntryLo; 0 where there is none.
    #[inline(always)]
    fn half<R: RealCpu>(&mut self, stale: &mut Stale, cpu: &R, lo: u64, gpa: u64) -> u64 {
        if lo & LO_V == 0 {
            return 0;
        }
        let known = *self.pages.place(gpa);
        let real =
            if known.key == self.pages.key(gpa) { known.lo } else { self.look_up(stale, cpu, gpa) };
        real & (lo | !LO_D)
    }

    #[inline(never)]
    fn look_up<R: RealCpu>(&mut self, stale: &mut Stale, cpu: &R, gpa: u64) -> u64 {
        let Some(page) = self.mem.resolve(Gpa(gpa), Access::Read) else { return 0 };
        let mut lo = cpu.machine_page(page) >> PAGE_SHIFT << LO_PFN_SHIFT | CACHED | LO_V;
        let executed = self.others.is_some_and(|map| map.is_executed(Gpa(gpa)));
        if !executed && !self.code.is_kept(page) {
            lo |= LO_D;
            stale.mapped_for_stores(page);
        }
        let key = self.pages.key(gpa);
        *self.pages.place(gpa) = Known { key, lo };
        lo
    }
}

/// The pair of 4 KB pages around `va` under an entry of the guest's TLB: of each the guest's EntryLo, and its
/// guest-physical address.
#[inline(always)]
pub(super) const fn halves(guest: &Entry, va: u64) -> [(u64, u64); 2] {
    // Larger pages than 4 KB: both halves of the pair lie in one of them.
    let [even, odd] = if guest.mask == 0 { guest.lo } else { [guest.page(va); 2] };
    let offset = va & (guest.pair_mask() >> 1) & !(2 * PAGE_SIZE - 1);
    let (first, second) = (frame(even) + offset, frame(odd) + offset);
    [(even, first), (odd, if guest.mask == 0 { second } else { second + PAGE_SIZE })]
}

/// The guest-physical address that an EntryLo names.
const fn frame(lo: u64) -> u64 {
    lo >> LO_PFN_SHIFT << 12
}
