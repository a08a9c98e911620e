//! A VCPU's own pages: the memory behind VCPU page, jump table and code cache.
//!
//! The guest can write the first two. So nothing is read from the jump table, and what is read from the VCPU page
//! is what the guest could have written to the registers themselves.

mod posts;

use super::cache::CodeMemory;
use super::layout::{Class, Layout, PAGE_BYTES, TABLE_ENTRIES, TABLE_ENTRY, slot};
use crate::cpu::{Status, Vcpu};
use crate::emulate::Data;
use crate::endian::Endian;
use crate::interp::Hot;
use crate::mem::{OwnPages, Page};
use abi::PAGE_SIZE;
use posts::Posting;

/// Page numbers: of the VCPU page, the jump table, the code. Each has chunks of its own.
const PAGE: usize = 0;
const TABLE: usize = OwnPages::CHUNK;
const CODE: usize = TABLE + TABLE_PAGES;
/// Bytes of a chunk, and the PageMask of pages of that size.
const CHUNK_SIZE: u64 = OwnPages::CHUNK as u64 * PAGE_SIZE;
const CHUNK_MASK: u32 = ((CHUNK_SIZE as u32 - 1) & !0xfff) << 1;
const TABLE_PAGES: usize = TABLE_ENTRIES * ENTRY_BYTES / PAGE_SIZE as usize;
/// Bytes of an entry of the jump table.
const ENTRY_BYTES: usize = 8 * TABLE_ENTRY;
/// The PC of an entry that is none: not aligned.
const NO_PC: u64 = !0;
/// Guest `$k0`, and Cause.IP.
const K0: usize = 26;
const LINES: u32 = 0xff00;

const _: () = assert!(TABLE_PAGES.is_multiple_of(OwnPages::CHUNK));

/// Where a register is in the VCPU page that has a place there.
const fn place(number: u8, select: u8) -> u16 {
    slot::register(number as u32, select as u32).expect("it has a place").0
}

/// The pages.
#[derive(Debug)]
pub(crate) struct Own {
    layout: Layout,
    words: usize,
    endian: Endian,
    pages: OwnPages,
    page: Page,
    /// The registers that seldom change, as they are in the page.
    seldom: [u64; 6],
    /// What emitted code knows of the TLB.
    posting: Posting,
}

/// A pair of pages as the real TLB may have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnPair {
    /// Their first 4 KB; what is there follows, as far as PageMask says.
    pub pages: [Option<Page>; 2],
    /// PageMask: of small pages, or of the size of a chunk.
    pub mask: u32,
    /// Whether they may be written.
    pub writable: bool,
}

/// The code, to be written, and the places where control comes to it.
pub(crate) struct Code<'a> {
    pub own: &'a Own,
    /// Where it is counted how often they are reached.
    pub hot: Option<&'a Hot>,
}

impl CodeMemory for Code<'_> {
    fn set(&mut self, index: usize, word: u32) {
        if let Some((page, at)) = self.own.find(CODE, 4 * index) {
            word.store(page, at, self.own.endian);
        }
    }

    fn set_all(&mut self, index: usize, words: &[u32]) {
        let (mut byte, mut left) = (4 * index, words);
        while !left.is_empty()
            && let Some((page, first)) = self.own.find(CODE, byte)
        {
            let room = (PAGE_SIZE - first) as usize / 4;
            let (here, beyond) = left.split_at(left.len().min(room));
            let places = (first..).step_by(4).zip(here);
            // (It is looked once for all of them.)
            if self.own.endian == Endian::NATIVE {
                places.for_each(|(at, &word)| page.store32(at, word));
            } else {
                places.for_each(|(at, &word)| word.store(page, at, self.own.endian));
            }
            (byte, left) = (byte + 4 * here.len(), beyond);
        }
    }

    fn rewrite(&mut self, index: usize) {
        if let Some((page, at)) = self.own.find(CODE, 4 * index) {
            page.store32(at, page.load32(at));
        }
    }

    fn gone(&mut self, pc: u64) {
        self.own.set_jump(pc, None);
        if let Some(hot) = self.hot {
            hot.cool(pc);
        }
    }
}

impl Own {
    /// Those for `words` words of code, where `layout` says; `None` if there is no memory for them.
    pub fn new(layout: Layout, words: usize, endian: Endian) -> Option<Self> {
        let code = (4 * words as u64).div_ceil(2 * PAGE_SIZE) as usize * 2;
        let pages = OwnPages::new(CODE + code)?;
        let page = pages.page(PAGE)?;
        let posting = Posting::NOTHING;
        let own = Self { layout, words, endian, pages, page, seldom: [!0; 6], posting };
        own.put(slot::MAIN, layout.main.constant());
        own.put(slot::TABLE, layout.table);
        for class in Class::ALL {
            own.put(slot::constant(class), class.constant());
        }
        for bits in 0..slot::MIXED_COUNT {
            own.put(slot::MIXED + 8 * bits, layout.mixed(bits.into()));
        }
        own.begin_posts();
        own.clear_jumps();
        Some(own)
    }

    /// The page of a byte, counted from page number `first` on, and where it is there.
    fn find(&self, first: usize, byte: usize) -> Option<(Page, u64)> {
        let page = self.pages.page(first + byte / PAGE_SIZE as usize)?;
        Some((page, byte as u64 % PAGE_SIZE))
    }

    fn put(&self, place: u16, value: u64) {
        value.store(self.page, place.into(), self.endian);
    }

    fn get(&self, place: u16) -> u64 {
        u64::load(self.page, place.into(), self.endian)
    }

    /// The guest's register `number`, if that is in the page while emitted code runs.
    pub fn kept(&self, number: usize) -> Option<u64> {
        match number.wrapping_sub(K0) {
            0 => Some(self.get(slot::K0)),
            1 => Some(self.get(slot::K1)),
            _ => None,
        }
    }

    /// The pair of pages around a real address; `None`: that is none of theirs. Large ones where both are chunks as a whole.
    pub fn pair(&self, real: u64) -> Option<OwnPair> {
        let Layout { page, table, code, .. } = self.layout;
        let ranges = [
            (page, PAGE_BYTES, PAGE, true),
            (table, TABLE_PAGES as u64 * PAGE_SIZE, TABLE, true),
            (code, 4 * self.words as u64, CODE, false),
        ];
        let inside =
            |(start, size, ..): &(u64, u64, usize, bool)| real.wrapping_sub(*start) < *size;
        let (start, size, first, writable) = ranges.into_iter().find(inside)?;
        let chunks = (real - start) / (2 * CHUNK_SIZE) * 2;
        let (one, two) = ((chunks + 1) * CHUNK_SIZE == size, (chunks + 2) * CHUNK_SIZE <= size);
        if start.is_multiple_of(2 * CHUNK_SIZE) && (one || two) {
            let first = first + chunks as usize * OwnPages::CHUNK;
            let second = if two { self.pages.page(first + OwnPages::CHUNK) } else { None };
            let pages = [self.pages.page(first), second];
            return Some(OwnPair { pages, mask: CHUNK_MASK, writable });
        }
        let even = (real - start) / (2 * PAGE_SIZE) * 2;
        let odd = (even + 1) * PAGE_SIZE < size;
        let first = first + even as usize;
        let odd = if odd { self.pages.page(first + 1) } else { None };
        Some(OwnPair { pages: [self.pages.page(first), odd], mask: 0, writable })
    }

    /// The guest address behind a real one that is none of theirs.
    pub fn guest_address(&self, real: u64) -> Option<u64> {
        self.layout.guest_address(real)
    }

    /// The word of code at a real address.
    pub fn word(&self, address: u64) -> Option<u32> {
        let byte = address.wrapping_sub(self.layout.code);
        if address & 3 != 0 || byte >= 4 * self.words as u64 {
            return None;
        }
        let (page, at) = self.find(CODE, byte as usize)?;
        Some(u32::load(page, at, self.endian))
    }

    /// Jumps to `pc` go to the code at `address`, or to the monitor, if they did not go to another PC.
    pub fn set_jump(&self, pc: u64, address: Option<u64>) {
        let entry = ENTRY_BYTES * Layout::table_index(pc);
        let Some((page, at)) = self.find(TABLE, entry) else { return };
        match address {
            Some(address) => {
                for (n, word) in (0..).zip([pc, address, self.layout.between()]) {
                    word.store(page, at + 8 * n, self.endian);
                }
            }
            None if u64::load(page, at, self.endian) == pc => {
                NO_PC.store(page, at, self.endian);
            }
            None => {}
        }
    }

    /// Code is for another main class from now on.
    pub fn set_main(&mut self, main: Class) {
        self.layout.main = main;
        self.put(slot::MAIN, main.constant());
        self.clear_jumps();
    }

    /// All jumps go to the monitor.
    pub fn clear_jumps(&self) {
        for n in 0..TABLE_ENTRIES {
            if let Some((page, at)) = self.find(TABLE, ENTRY_BYTES * n) {
                NO_PC.store(page, at, self.endian);
            }
        }
    }

    /// Emitted code finds the VCPU's registers.
    pub fn lend(&mut self, cpu: &mut Vcpu) {
        self.lend_tlb(cpu);
        let cp0 = cpu.cp0();
        let sign_extend = |value: u32| value as i32 as u64;
        for (place, value) in [
            (slot::K0, cpu.gpr(K0)),
            (slot::K1, cpu.gpr(K0 + 1)),
            (slot::PENDING, (cp0.cause.bits() & LINES).into()),
            (slot::STATUS, sign_extend(cp0.status.bits())),
            (const { place(14, 0) }, cp0.epc),
            (const { place(30, 0) }, cp0.error_epc),
            (slot::USER_LOCAL, cp0.user_local),
            (slot::INDEX, sign_extend(cp0.index)),
            (slot::ENTRY_LO[0], cp0.entry_lo[0]),
            (slot::ENTRY_LO[1], cp0.entry_lo[1]),
            (const { place(4, 0) }, cp0.context),
            (const { place(5, 0) }, sign_extend(cp0.page_mask)),
            (const { place(8, 0) }, cp0.bad_vaddr),
            (slot::ENTRY_HI, cp0.entry_hi),
            (const { place(11, 0) }, sign_extend(cp0.compare)),
            (const { place(13, 0) }, sign_extend(cp0.cause.bits())),
            (const { place(20, 0) }, cp0.xcontext),
        ] {
            self.put(place, value);
        }
        let seldom = [
            cp0.wired.into(),
            cp0.hwrena.into(),
            cp0.ebase,
            cp0.ll_addr,
            u64::from(cp0.int_ctl) << 32 | u64::from(cp0.config[0]),
            cp0.shadow_sets(),
        ];
        // (Comparing arrays as such is a call, which goes byte by byte.)
        if seldom.iter().zip(&self.seldom).any(|(new, old)| new != old) {
            self.seldom = seldom;
            for ((number, select), place) in
                slot::REGISTERS.into_iter().zip((slot::CP0..).step_by(8))
            {
                // None of them depends on time (Cause is as it was when somebody looked last).
                let value = cpu.read_cp0(number.into(), select.into(), 0);
                self.put(place, value);
            }
        }
    }

    /// The VCPU has what emitted code has written.
    pub fn take_back(&self, cpu: &mut Vcpu) {
        cpu.set_gpr(K0, self.get(slot::K0));
        cpu.set_gpr(K0 + 1, self.get(slot::K1));
        let cp0 = cpu.cp0();
        let status = self.get(slot::STATUS);
        let same = Status::from_bits_retain(status as u32) == cp0.status;
        let others = [
            (14, 0, const { place(14, 0) }, cp0.epc),
            (30, 0, const { place(30, 0) }, cp0.error_epc),
            (4, 2, slot::USER_LOCAL, cp0.user_local),
        ];
        if !same {
            cpu.write_cp0(12, 0, status, 0);
        }
        self.take(cpu, others);
        self.take_tlb(cpu);
    }

    /// The VCPU has what TLB instructions go by.
    pub fn take_tlb(&self, cpu: &mut Vcpu) {
        for odd in 0..2 {
            cpu.set_entry_lo(odd, self.get(slot::ENTRY_LO[odd]));
        }
        cpu.set_index(self.get(slot::INDEX));
        let entry_hi = cpu.cp0().entry_hi;
        self.take(cpu, [(10, 0, slot::ENTRY_HI, entry_hi)]);
    }

    /// Emitted code finds what `tlbp` has found.
    pub fn lend_index(&self, cpu: &Vcpu) {
        self.put(slot::INDEX, cpu.cp0().index as i32 as u64);
    }

    /// Emitted code finds what writing Compare has changed.
    pub fn lend_timer(&self, cpu: &Vcpu) {
        let cp0 = cpu.cp0();
        let cause = cp0.cause.bits();
        self.put(slot::PENDING, (cause & LINES).into());
        self.put(const { place(13, 0) }, cause as i32 as u64);
        self.put(const { place(11, 0) }, cp0.compare as i32 as u64);
    }

    /// Registers (number, select, place in the page, what the VCPU has) that differ are written.
    fn take<const N: usize>(&self, cpu: &mut Vcpu, registers: [(u32, u32, u16, u64); N]) {
        for (number, select, place, old) in registers {
            let value = self.get(place);
            if value != old {
                cpu.write_cp0(number, select, value, 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::CpuModel;
    use crate::direct::tests::random::Random;
    use crate::translate::tests::rig::layout;
    use crate::translate::{CodeCache, PageImage};

    #[test]
    fn the_page_says_what_the_guest_would_read_and_comes_back() {
        for (endian, model) in
            [(Endian::Little, CpuModel::honeycomb()), (Endian::Big, CpuModel::mips64r2_generic())]
        {
            let layout = layout(Class::Compat, model);
            let mut cpu = Vcpu::with_code_pages(model, endian, 1);
            let mut own = Own::new(layout, CodeCache::MIN_WORDS, endian).expect("memory for it");
            let mut random = Random(1);
            for _ in 0..2000 {
                let (number, select) = random.pick(&slot::REGISTERS);
                let value = random.next();
                let value = if value & 1 == 0 { value as i32 as u64 } else { value };
                cpu.write_cp0(number.into(), select.into(), value, 0);
                cpu.set_gpr(K0 + (value >> 8 & 1) as usize, value);
                own.lend(&mut cpu);
                let mut image = PageImage::of(&mut cpu, &layout);
                let registers = &image.words[..usize::from(slot::VICTIMS) / 8];
                // (What was faulted at is the runtime's to remember.)
                let places = [slot::FAULT_HI, slot::FAULT_INDEX, slot::FAULT_AGAIN];
                let fault = |n: usize| places.map(|place| usize::from(place) / 8).contains(&n);
                for (n, &word) in registers.iter().enumerate().filter(|(n, _)| !fault(*n)) {
                    assert_eq!(own.get(8 * n as u16), word, "doubleword {n}");
                }
                // What a guest may have done to it.
                let first = slot::STATUS as usize / 8;
                let at = random.next() as usize % (first + slot::REGISTERS.len());
                let at = if at < first { at % 2 } else { at };
                image.words[at] = value;
                own.put(8 * at as u16, value);
                let mut other = Vcpu::with_code_pages(model, endian, 1);
                other.set_gpr(1, 7);
                own.take_back(&mut other);
                let mut simple = Vcpu::with_code_pages(model, endian, 1);
                simple.set_gpr(1, 7);
                image.take_back(&mut simple);
                for (number, select) in slot::REGISTERS {
                    let [one, two] = [&mut other, &mut simple]
                        .map(|cpu| cpu.read_cp0(number.into(), select.into(), 0));
                    assert_eq!(one, two, "register {number}, {select}");
                }
                assert_eq!(other.gpr(K0), simple.gpr(K0));
                // (The page is what it was.)
                own.seldom = [!0; 6];
            }
        }
    }

    #[test]
    fn own_pages_are_where_the_layout_says_and_code_is_not_writable() {
        let layout = layout(Class::Cached, CpuModel::honeycomb());
        let own = Own::new(layout, CodeCache::MIN_WORDS, Endian::Big).expect("memory for it");
        let size = 4 * CodeCache::MIN_WORDS as u64;
        let (mut seen, mut large) = (Vec::new(), 0);
        for (start, size, writable) in [
            (layout.page, PAGE_BYTES, true),
            (layout.table, (TABLE_PAGES as u64) * PAGE_SIZE, true),
            (layout.code, size, false),
        ] {
            for at in (start..start + size).step_by(PAGE_SIZE as usize) {
                let pair = own.pair(at + 8).expect("a page of its own");
                assert_eq!(pair.writable, writable, "{at:#x}");
                let size = if pair.mask == 0 { PAGE_SIZE } else { CHUNK_SIZE };
                assert_eq!(u64::from(pair.mask), (2 * size - 1) & !0x1fff);
                large += u32::from(pair.mask != 0);
                let first = pair.pages[(at / size % 2) as usize].expect("this half too");
                let first = first.base().as_ptr().addr() as u64;
                assert!(first.is_multiple_of(size), "{at:#x}");
                let page = first + at % size;
                assert!(!seen.contains(&page), "{at:#x} is another's");
                seen.push(page);
            }
            assert!(own.pair(start - 1).is_none());
            assert!(own.pair(start + size.next_multiple_of(2 * PAGE_SIZE)).is_none());
        }
        assert!(large as usize >= TABLE_PAGES, "{large}");
        own.set_jump(0x1234, Some(layout.code));
        own.set_jump(0x1234 + 4 * TABLE_ENTRIES as u64, None);
        let pair = own.pair(layout.table).expect("the table");
        let first = pair.pages[0].expect("its first page");
        let at = (ENTRY_BYTES * Layout::table_index(0x1234)) as u64 % PAGE_SIZE;
        let second =
            own.pages.page(TABLE + ENTRY_BYTES * Layout::table_index(0x1234) / PAGE_SIZE as usize);
        assert_eq!(second.map(|page| u64::load(page, at, Endian::Big)), Some(0x1234));
        own.set_jump(0x1234, None);
        assert_eq!(second.map(|page| u64::load(page, at, Endian::Big)), Some(NO_PC));
        assert_eq!(u64::load(first, 0, Endian::Big), NO_PC);
    }
}
