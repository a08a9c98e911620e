//! What an access reaches, and how emitted code comes by the address.

use super::asm::{self, K0, K1, S, ZERO, field, with};
use super::build::{self, Builder, Scratch, is_kept};
use super::layout::{Class, slot, static_alias};
use super::sites::Seen;

/// What an access is emitted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// This class.
    One(Class),
    /// Any, by the upper bits of the base.
    Mixed,
    /// One address, which is known, and has this alias, sign-extended.
    Static(u32),
    /// The real address is the guest's.
    Identity,
}

/// A register that accesses have had as their base, unchanged since, and what they reach.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// The register, as a bit; 0: there is none.
    base: u32,
    pub reach: Reach,
}

impl Held {
    /// None.
    pub const NONE: Self = Self { base: 0, reach: Reach::Mixed };

    pub const fn new(base: u32, reach: Reach) -> Self {
        Self { base: 1 << base, reach }
    }

    pub const fn is_none(self) -> bool {
        self.base == 0
    }

    /// Whether it is this register.
    pub const fn is(self, base: u32) -> bool {
        self.base == 1 << base
    }

    /// Registers (bits) have been written.
    pub const fn wrote(&mut self, registers: u32) {
        self.base &= !registers;
    }
}

/// The classes that may be the main one.
pub const CANDIDATES: [Class; 2] = [Class::Cached, Class::Compat];

impl Builder<'_> {
    /// What the access `word`, instruction `index`, reaches.
    pub(super) fn reach(&mut self, index: usize, word: u32) -> Option<Reach> {
        if self.layout.identity {
            return Some(Reach::Identity);
        }
        let base = field(word, S);
        if let Some(certain) = self.values.certain(base).filter(|_| base != ZERO)
            && let Some(alias) = static_alias(certain.wrapping_add(offset(word)))
        {
            return Some(Reach::Static(alias as u32));
        }
        self.reach_by_class(index, base)
    }

    /// What the access of instruction `index` reaches, with base register `base`, of those that go by class.
    pub(super) fn reach_by_class(&mut self, index: usize, base: u32) -> Option<Reach> {
        if self.layout.identity {
            return Some(Reach::Identity);
        }
        if base == ZERO {
            return None;
        }
        let class = match self.sites.seen(self.pc(index)) {
            Seen::Mixed => return Some(Reach::Mixed),
            Seen::One(class) => class,
            Seen::Nothing => match self.values.base(base).and_then(Class::of) {
                Some(class) if class != Class::Xkseg || self.layout.has_xkseg() => class,
                // (If that is wrong it is seen, and the block made anew.)
                _ => return Some(Reach::One(self.layout.main)),
            },
        };
        match class {
            // As in CANDIDATES.
            Class::Cached => self.draft.accesses[0] += 1,
            Class::Compat => self.draft.accesses[1] += 1,
            Class::Xkseg if !self.layout.has_xkseg() => return None,
            Class::User if is_kept(base) => return Some(Reach::Mixed),
            _ => {}
        }
        Some(Reach::One(class))
    }

    /// The access `word`, as it is emitted, behind what it takes to reach that.
    pub(super) fn access(&mut self, word: u32, reach: Reach) -> u32 {
        let Reach::Static(alias) = reach else {
            let alias = self.alias(field(word, S), reach);
            return with(word, S, alias);
        };
        // The offset is signed.
        let upper = alias.wrapping_add(0x8000) & !0xffff;
        if !self.holds(ZERO, Reach::Static(upper)) {
            self.put(asm::lui(K0, (upper >> 16) as u16));
            self.alias = Held::new(ZERO, Reach::Static(upper));
        }
        with(word, S, K0) & !0xffff | u32::from(alias as u16)
    }

    /// Whether `$k0` is, or for a user address `base` itself, the alias of what register `base` holds.
    fn holds(&self, base: u32, reach: Reach) -> bool {
        self.alias.is(base) && self.alias.reach == reach
    }

    /// `$k0` is the alias of what register `base` holds, whatever its class.
    fn alias_mixed(&mut self, base: u32) {
        let kept = is_kept(base);
        if kept {
            self.load_kept(base);
        }
        self.page();
        self.put(asm::dextu(K0, if kept { K0 } else { base }, 59, 5));
        self.put(asm::dins(K1, K0, 3, 5));
        self.k1 = Scratch::Unknown;
        self.put(asm::ld(K0, slot::MIXED, K1));
        if kept {
            self.page();
            self.put(asm::ld(K1, build::kept(base), K1));
            self.k1 = Scratch::Unknown;
        }
        self.put(asm::xor(K0, if kept { K1 } else { base }, K0));
        self.alias = if kept { Held::NONE } else { Held::new(base, Reach::Mixed) };
    }

    /// The register that has the alias of what register `base` holds: `$k0`, or for a user address that one itself, once it is
    /// known to be one.
    pub(super) fn alias(&mut self, base: u32, reach: Reach) -> u32 {
        if reach == Reach::Identity {
            if is_kept(base) {
                self.load_kept(base);
                return K0;
            }
            return base;
        }
        let user = reach == Reach::One(Class::User);
        if !self.holds(base, reach) {
            if user {
                self.put(asm::dsrl(K0, base, 40));
                self.put(asm::tne(K0, ZERO));
                self.alias = Held::new(base, reach);
            } else {
                self.make_alias(base, reach);
            }
        }
        if user { base } else { K0 }
    }

    /// `$k0` is the alias of what register `base` holds, which is no user address unless it may be any.
    fn make_alias(&mut self, base: u32, reach: Reach) {
        let Reach::One(class) = reach else { return self.alias_mixed(base) };
        if is_kept(base) {
            self.load_kept(base);
            let main = class == self.layout.main;
            self.put(asm::ld(K1, slot::constant(class), K1));
            self.k1 = if main { Scratch::Main } else { Scratch::Unknown };
            self.put(asm::xor(K0, K0, K1));
            return;
        }
        if class == self.layout.main {
            self.restore();
            self.put(asm::xor(K0, base, K1));
        } else {
            self.load_place(asm::ld, K0, slot::constant(class));
            self.put(asm::xor(K0, base, K0));
        }
        self.alias = Held::new(base, reach);
    }
}

/// The offset of an access.
fn offset(word: u32) -> u64 {
    i64::from(word as i16).cast_unsigned()
}
