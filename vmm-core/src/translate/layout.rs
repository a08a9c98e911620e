//! Where things lie in the real address space, and which constant takes which guest address where.

use crate::cpu::CpuModel;
use core::ops::Range;

/// How far base and address of one access can be apart, generously: offset and size.
pub const REACH: u64 = 0x1_0000;

/// The real machine's SEGBITS.
const REAL_SEGBITS: u32 = 42;
/// The virtual machine's.
const SEGBITS: u32 = 40;
/// Start of the real xsseg.
const XSSEG: u64 = 1 << 62;
/// Start of the real CKSSEG.
const CKSSEG: u64 = 0xffff_ffff_c000_0000;
/// Its end.
const CKSSEG_END: u64 = 0xffff_ffff_e000_0000;
/// Start of the compatibility segments.
const COMPAT: u64 = 0xffff_ffff_8000_0000;
/// Bytes that XKPHYS has of each cache attribute: PABITS.
const PHYSICAL: u64 = 1 << 36;

/// Where the first bytes of the guest's CKSEG0 have another alias, for addresses that are known when code is emitted: one
/// instruction makes it …
const STATIC: u64 = 0xffff_ffff_d000_0000;
/// … and how many bytes these are.
const STATIC_SIZE: u64 = 1 << 28;

/// Where the guest has no addresses, if its SEGBITS are [`SEGBITS`], and no class has a window: for what is to lie in nobody's way.
const OUTSIDE: u64 = XSSEG + (3 << SEGBITS) + (1 << 38);
/// Its end.
const OUTSIDE_END: u64 = OUTSIDE + (1 << 28);

/// A class of guest addresses: those that one constant takes into one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// XKPHYS, cached (cache attribute 3).
    Cached,
    /// XKPHYS, uncached (cache attribute 2).
    Uncached,
    /// The compatibility segments, CKSEG0 to CKSEG3.
    Compat,
    /// xkseg.
    Xkseg,
    /// xuseg.
    User,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Cached, Self::Uncached, Self::Compat, Self::Xkseg, Self::User];

    /// What a guest address is XORed with to give its alias.
    #[must_use]
    pub const fn constant(self) -> u64 {
        match self {
            Self::Cached => 0xd800_0180_0000_0000,
            Self::Uncached => 0xd000_0180_0000_0000,
            Self::Compat => 0xbfff_fe3f_0000_0000,
            Self::Xkseg => 0x8000_0200_0000_0000,
            // It is where it is: what is emitted for it looks whether the address is one of them.
            Self::User => 0,
        }
    }

    /// The first guest address, and how many bytes there are.
    const fn guest(self) -> (u64, u64) {
        match self {
            Self::Cached => (0x9800_0000_0000_0000, PHYSICAL),
            Self::Uncached => (0x9000_0000_0000_0000, PHYSICAL),
            Self::Compat => (COMPAT, 1 << 31),
            Self::Xkseg => (3 << 62, (1 << SEGBITS) - (1 << 31)),
            Self::User => (0, 1 << SEGBITS),
        }
    }

    /// The class of a guest address; `None` where none is, be it because nothing is there.
    #[must_use]
    pub const fn of(va: u64) -> Option<Self> {
        let class = match va >> 59 {
            0b11111 => Self::Compat,
            0b10011 => Self::Cached,
            0b10010 => Self::Uncached,
            0b11000 => Self::Xkseg,
            0 => Self::User,
            _ => return None,
        };
        let (start, size) = class.guest();
        if va.wrapping_sub(start) < size { Some(class) } else { None }
    }

    /// The real addresses of its window.
    #[must_use]
    pub const fn window(self) -> Range<u64> {
        let (start, size) = self.guest();
        let real = start ^ self.constant();
        real..real + size
    }
}

/// The alias, within reach of `lui`, of a guest address that is known when code is emitted, if it has one.
#[must_use]
pub const fn static_alias(va: u64) -> Option<u64> {
    let offset = va.wrapping_sub(COMPAT);
    // (Whatever the access does, it does not reach beyond.)
    if offset < STATIC_SIZE - REACH { Some(STATIC + offset) } else { None }
}

/// The guest address behind a real one in a window, or in xuseg. Where classes share a window, it is that of one of
/// them: they mean the same memory.
#[must_use]
pub fn guest_address(real: u64) -> Option<u64> {
    if real < 1 << SEGBITS {
        return Some(real);
    }
    let offset = real.wrapping_sub(STATIC);
    if offset < STATIC_SIZE {
        return Some(COMPAT + offset);
    }
    let class = Class::ALL.into_iter().find(|class| class.window().contains(&real))?;
    Some(real ^ class.constant())
}

/// Whether supervisor mode refuses a real address, or nothing is ever mapped there, whatever the guest
/// does. (Real user addresses beyond the guest's SEGBITS are refused when a miss is to be filled.)
#[must_use]
pub fn is_dead(real: u64) -> bool {
    let user = real < 1 << SEGBITS;
    let own = (CKSSEG..CKSSEG_END).contains(&real);
    !user && !own && guest_address(real).is_none()
}

/// Where a VCPU's own pages lie in the real CKSSEG, and what its code mostly accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The VCPU page, and what lies in the same 64 KB; a multiple of 128 KB.
    pub page: u64,
    /// The jump table; a multiple of its size.
    pub table: u64,
    /// The code cache; all in one 256 MB.
    pub code: u64,
    /// The class whose constant `$k1` holds between blocks.
    pub main: Class,
    /// Every guest address that is reached is where it is in the real address space: for a kernel that is linked in a supervisor
    /// segment. There are no classes then, and `$k1` holds the VCPU page's address between blocks.
    pub identity: bool,
    /// What the VCPU is: which registers it has, and which of their bits.
    pub model: CpuModel,
}

/// Bytes at the VCPU page's address that are the VCPU's.
pub const PAGE_BYTES: u64 = 0x1_0000;
/// Entries of the jump table.
pub const TABLE_ENTRIES: usize = if cfg!(test) { 8192 } else { 32_768 };
/// Doublewords of an entry: guest PC, address of the code, main constant, nothing.
pub const TABLE_ENTRY: usize = 4;

impl Layout {
    /// That of a kernel whose addresses are real ones, on a VCPU whose segments are smaller than the real ones: its own pages lie
    /// where its guest has no address. `None`: it has some everywhere.
    #[must_use]
    pub fn of_identity(model: CpuModel) -> Option<Self> {
        let at = |offset| OUTSIDE + offset;
        let layout = Self {
            page: at(0),
            table: at(0x10_0000),
            code: at(0x20_0000),
            main: Class::Compat,
            identity: true,
            model,
        };
        (model.segbits == SEGBITS).then_some(layout)
    }

    /// What `$k1` holds between blocks.
    #[must_use]
    pub const fn between(&self) -> u64 {
        if self.identity { self.page } else { self.main.constant() }
    }

    /// The guest address behind a real one that is no own page's.
    #[must_use]
    pub fn guest_address(&self, real: u64) -> Option<u64> {
        if self.identity { Some(real) } else { guest_address(real) }
    }

    /// Whether everything lies where emitted code can reach it; `words` is the size of the code cache.
    #[must_use]
    pub fn is_possible(&self, words: usize) -> bool {
        let end = self.code.wrapping_add(4 * words as u64);
        let room = if self.identity { OUTSIDE..OUTSIDE_END } else { CKSSEG..STATIC };
        let inside = |start: u64, end: u64| start >= room.start && end <= room.end && start < end;
        self.page & if self.identity { 0xffff_ffff } else { 0x1_ffff } == 0
            && self.table.is_multiple_of(8 * (TABLE_ENTRIES * TABLE_ENTRY) as u64)
            && self.code & 3 == 0
            && inside(self.page, self.page.saturating_add(PAGE_BYTES))
            && inside(
                self.table,
                self.table.saturating_add(8 * (TABLE_ENTRIES * TABLE_ENTRY) as u64),
            )
            && inside(self.code, end)
            && self.code >> 28 == (end - 1) >> 28
    }

    /// Whether xkseg has no more addresses than [`Class::Xkseg`]: else they are none, here, since those beyond would meet
    /// other windows.
    #[must_use]
    pub const fn has_xkseg(&self) -> bool {
        self.model.segbits == SEGBITS
    }

    /// What a guest address with these bits 63:59 is XORed with at a site whose accesses are of several classes: it gives the
    /// alias of each guest address, and an address that supervisor mode refuses where none is.
    #[must_use]
    pub const fn mixed(&self, bits: u64) -> u64 {
        match bits {
            0 => Class::User.constant(),
            0b10010 => Class::Uncached.constant(),
            0b10011 => Class::Cached.constant(),
            0b11000 if self.has_xkseg() => Class::Xkseg.constant(),
            0b11111 => Class::Compat.constant(),
            // Into XKPHYS.
            _ => (bits ^ 0b10000) << 59,
        }
    }

    /// The entry of the jump table for a guest PC.
    #[must_use]
    pub const fn table_index(pc: u64) -> usize {
        (pc >> 2) as usize % TABLE_ENTRIES
    }
}

/// Offsets in the VCPU page, of doublewords.
pub mod slot {
    use super::Class;

    /// Guest `$k0` …
    pub const K0: u16 = 0;
    /// … and `$k1`.
    pub const K1: u16 = 8;
    /// Not zero: an interrupt would be taken if Status allowed it.
    pub const PENDING: u16 = 16;
    /// The main class's constant.
    pub const MAIN: u16 = 24;
    /// The jump table's address.
    pub const TABLE: u16 = 88;
    /// The constants of all classes.
    const CONSTANTS: u16 = 32;
    /// The address of the last of [`POSTS`].
    pub const POSTED: u16 = 96;
    /// Not zero: the filter of user addresses without an entry does not tell.
    pub const UNTOLD: u16 = 104;
    /// What was found for the address that was faulted at last, as in a post: EntryHi …
    pub const FAULT_HI: u16 = 112;
    /// … Index …
    pub const FAULT_INDEX: u16 = 120;
    /// … and that if the entry may be written unseen, else what Index never is.
    pub const FAULT_AGAIN: u16 = MIXED + 8 * MIXED_COUNT;
    /// CP0 registers, as `dmfc0` reads them.
    pub const CP0: u16 = 128;
    /// Constants by bits 63:59 of an address ([`super::Layout::mixed`]).
    pub const MIXED: u16 = 512;
    /// How many of them there are.
    pub const MIXED_COUNT: u16 = 32;
    /// The entries that the next `tlbwr`s replace; negative: that is not to be posted.
    pub const VICTIMS: u16 = FAULT_AGAIN + 8;
    /// How many are given at most; one more is always negative.
    pub const VICTIM_COUNT: usize = 8;
    /// TLB writes that are posted. The first is none: it is what a probe of EntryHi has found.
    pub const POSTS: u16 = VICTIMS + 8 * (VICTIM_COUNT as u16 + 1);
    /// How many there are at most, with the first one.
    pub const POST_COUNT: usize = 2 * VICTIM_COUNT + 1;
    /// Bytes of one.
    pub const POST_BYTES: u16 = 56;
    /// In a post: EntryHi, or what it never is …
    pub const POST_HI: u16 = 0;
    /// … EntryLo0 and EntryLo1, the first one negative if nothing has been written …
    pub const POST_LO: [u16; 2] = [8, 16];
    /// … the entry that has been written or found, as Index has it …
    pub const POST_INDEX: u16 = 24;
    /// … the same if it may be written again unseen, else what Index never is …
    pub const POST_AGAIN: u16 = 32;
    /// … where the next of [`VICTIMS`] is …
    pub const POST_VICTIM: u16 = 40;
    /// … and whether this is none any more: negative.
    pub const POST_BEYOND: u16 = 48;
    /// Doublewords used.
    pub const COUNT: usize = (POSTS as usize + POST_BYTES as usize * (POST_COUNT + 1)) / 8;
    /// The filter of user addresses without an entry: bytes, each zero if none has come to it. From the page's start.
    pub const FILTER: u64 = 0x8000;

    /// The registers that have places in the page: number and selector.
    pub const REGISTERS: [(u8, u8); 28] = [
        (12, 0),
        (14, 0),
        (30, 0),
        (0, 0),
        (2, 0),
        (3, 0),
        (10, 0),
        (4, 2),
        // What is only read, from here on.
        (4, 0),
        (5, 0),
        (6, 0),
        (7, 0),
        (8, 0),
        (11, 0),
        (12, 1),
        (12, 2),
        (12, 3),
        (13, 0),
        (15, 0),
        (15, 1),
        (16, 0),
        (16, 1),
        (16, 2),
        (16, 3),
        (16, 4),
        (16, 5),
        (17, 0),
        (20, 0),
    ];
    /// Of them, those that emitted code writes.
    pub const WRITTEN: usize = 8;

    /// A class's constant.
    #[must_use]
    pub const fn constant(class: Class) -> u16 {
        CONSTANTS + 8 * class as u16
    }

    /// The place of register `number`, `select`, if it has one, and whether emitted code writes it.
    #[must_use]
    pub const fn register(number: u32, select: u32) -> Option<(u16, bool)> {
        let mut at = 0;
        while at < REGISTERS.len() {
            if REGISTERS[at].0 as u32 == number && REGISTERS[at].1 as u32 == select {
                return Some((CP0 + 8 * at as u16, at < WRITTEN));
            }
            at += 1;
        }
        None
    }

    /// Status.
    pub const STATUS: u16 = CP0;
    /// Index.
    pub const INDEX: u16 = CP0 + 8 * 3;
    /// EntryLo0 and EntryLo1.
    pub const ENTRY_LO: [u16; 2] = [CP0 + 8 * 4, CP0 + 8 * 5];
    /// EntryHi.
    pub const ENTRY_HI: u16 = CP0 + 8 * 6;
    /// UserLocal.
    pub const USER_LOCAL: u16 = CP0 + 8 * (WRITTEN as u16 - 1);
}

const _: () = assert!(XSSEG + (1 << REAL_SEGBITS) >= Class::Xkseg.window().end);

#[cfg(test)]
mod tests {
    use super::*;

    /// All that a guest may address, in pieces of which each is one class, or none.
    fn guest_ranges() -> Vec<(Option<Class>, Range<u64>)> {
        let mut ranges: Vec<_> = Class::ALL
            .into_iter()
            .map(|class| {
                let (start, size) = class.guest();
                (Some(class), start..start.wrapping_add(size - 1))
            })
            .collect();
        ranges.push((None, XSSEG..XSSEG + (1 << SEGBITS) - 1));
        for attribute in [0u64, 1, 4, 5, 6, 7] {
            let start = 1 << 63 | attribute << 59;
            ranges.push((None, start..start + PHYSICAL - 1));
        }
        ranges
    }

    /// Real addresses that are not dead, as ranges (first and last).
    fn live() -> Vec<Range<u64>> {
        let mut ranges: Vec<_> =
            Class::ALL.iter().map(|c| c.window().start..c.window().end - 1).collect();
        ranges.push(CKSSEG..CKSSEG_END - 1);
        ranges
    }

    /// Kernel classes: of a user address it is looked whether it is one.
    fn guesses() -> impl Iterator<Item = Class> {
        Class::ALL.into_iter().filter(|class| *class != Class::User)
    }

    #[test]
    fn a_wrong_guess_faults_whatever_the_address() {
        for guess in guesses() {
            for (class, range) in guest_ranges() {
                if class == Some(guess) {
                    continue;
                }
                // A constant has no bits below a range's size but those above bit 31: what an aligned
                // range becomes is cut where the constant has bits inside it, into aligned pieces.
                let low = guess.constant().trailing_zeros().min(40);
                let piece = 1u64 << low;
                let size = (range.end - range.start).wrapping_add(1);
                let pieces = size.div_ceil(piece);
                for n in 0..pieces {
                    let start = (range.start + n * piece) ^ guess.constant();
                    let end = start + (piece.min(size) - 1);
                    for live in live() {
                        let apart = start > live.end.saturating_add(REACH)
                            || end.saturating_add(REACH) < live.start;
                        assert!(apart, "{class:?} taken for {guess:?}: {start:#x}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_wild_pointer_above_xkseg_does_not_become_a_user_address() {
        for beyond in [0x100_0000_0000u64, 0x200_0000_0000] {
            for va in [0, 0x2_0000, 0x1234_5678, (1 << SEGBITS) - 8] {
                let real = ((3 << 62 | beyond) + va) ^ Class::Xkseg.constant();
                assert!(is_dead(real), "{real:#x}");
            }
        }
    }

    #[test]
    fn where_classes_mix_each_address_finds_its_alias_or_none() {
        let layout = |model| crate::translate::tests::rig::layout(Class::Compat, model);
        let (wide, layout) = (layout(CpuModel::mips64r2_generic()), layout(CpuModel::honeycomb()));
        let mixed = |bits| layout.mixed(bits);
        assert!(is_dead(3 << 62 ^ wide.mixed(0b11000)));
        for (class, range) in guest_ranges() {
            for va in [range.start, range.start + 0x1234_5678, range.end - 7] {
                let real = va ^ mixed(va >> 59);
                match class {
                    Some(class) => assert_eq!(real, va ^ class.constant(), "{va:#x}"),
                    None => assert!(is_dead(real), "{va:#x} becomes {real:#x}"),
                }
            }
        }
        for bits in 0..32u64 {
            let known = [0, 0b10010, 0b10011, 0b11000, 0b11111].contains(&bits);
            let real = bits << 59 ^ mixed(bits);
            assert!(known || real >> 62 == 2, "{bits:#b}");
        }
    }

    #[test]
    fn what_is_known_has_an_alias_that_comes_back() {
        for offset in [0, 8, 0x0234_5678, STATIC_SIZE - REACH - 1] {
            let alias = static_alias(COMPAT + offset).expect("near the beginning");
            assert_eq!(guest_address(alias), Some(COMPAT + offset));
            assert_eq!(alias as i32 as u64, alias, "{alias:#x}");
        }
        for va in [COMPAT - 1, COMPAT + STATIC_SIZE - REACH, 0xffff_ffff_a000_0000, 0, 8] {
            assert_eq!(static_alias(va), None, "{va:#x}");
        }
        assert_eq!(guest_address(STATIC - 1), None);
        assert_eq!(guest_address(STATIC + STATIC_SIZE), None);
        const { assert!(STATIC + STATIC_SIZE == CKSSEG_END) };
    }

    #[test]
    fn windows_are_apart_by_more_than_an_offset_reaches() {
        for class in Class::ALL {
            let window = class.window();
            for near in [REACH, 8, 1] {
                assert!(is_dead(window.start.wrapping_sub(near)), "below {class:?}");
                assert!(is_dead(window.end + near - 1), "above {class:?}");
            }
        }
    }

    #[test]
    fn aliases_keep_their_distance_and_come_back() {
        for class in Class::ALL {
            let (start, size) = class.guest();
            for offset in [0, 1, 0x7fff_ffff, size / 2, size - 1] {
                let va = start.wrapping_add(offset.min(size - 1));
                assert_eq!(Class::of(va), Some(class));
                let alias = va ^ class.constant();
                assert!(class.window().contains(&alias), "{va:#x} {alias:#x}");
                assert_eq!(alias - class.window().start, va - start);
                let back = guest_address(alias).expect("in a window");
                let same = if class == Class::Uncached { Class::Cached } else { class };
                assert_eq!(Class::of(back), Some(same));
                assert_eq!(back & (PHYSICAL - 1), va & (PHYSICAL - 1));
            }
        }
        for va in [0x4000_0000_0000_0000, 0x8000_0000_0000_0000, 0xc000_00ff_8000_0000, 1 << 40] {
            assert_eq!(Class::of(va), None, "{va:#x}");
        }
    }

    #[test]
    fn places_are_all_different_and_in_the_page() {
        let mut seen = vec![
            slot::K0,
            slot::K1,
            slot::PENDING,
            slot::MAIN,
            slot::POSTED,
            slot::UNTOLD,
            slot::FAULT_HI,
            slot::FAULT_INDEX,
        ];
        seen.extend(Class::ALL.map(slot::constant));
        seen.extend(slot::REGISTERS.map(|(number, select)| {
            slot::register(number.into(), select.into()).expect("it has one").0
        }));
        assert!(seen.iter().max() < Some(&slot::MIXED));
        assert!(8 * slot::COUNT as u64 <= abi::PAGE_SIZE.min(slot::FILTER));
        assert_eq!(slot::register(12, 0), Some((slot::STATUS, true)));
        assert_eq!(slot::register(4, 2), Some((slot::USER_LOCAL, true)));
        assert_eq!(slot::register(0, 0), Some((slot::INDEX, true)));
        let lo = [2, 3].map(|number| slot::register(number, 0));
        assert_eq!(lo, slot::ENTRY_LO.map(|place| Some((place, true))));
        assert_eq!(slot::register(10, 0), Some((slot::ENTRY_HI, true)));
        seen.extend((0..slot::MIXED_COUNT).map(|n| slot::MIXED + 8 * n));
        seen.push(slot::FAULT_AGAIN);
        seen.extend((0..=slot::VICTIM_COUNT as u16).map(|n| slot::VICTIMS + 8 * n));
        let posts = 0..=slot::POST_COUNT as u16;
        seen.extend(posts.map(|n| slot::POSTS + slot::POST_BYTES * n));
        assert_eq!(
            seen.iter().max().map(|max| usize::from(max + slot::POST_BYTES)),
            Some(8 * slot::COUNT)
        );
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }
}
