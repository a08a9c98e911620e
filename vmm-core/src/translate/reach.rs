//! What an access reaches, and how emitted code comes by the address.

use super::asm::{self, K0, K1, S, ZERO, field, with};
use super::build::{self, Builder, Scratch, is_kept};
use super::layout::{Class, slot, static_alias};

/// What is known of the accesses of one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing.
    Nothing,
    /// They are of this class.
    One(Class),
    /// They are of several, or of one that has no window.
    Mixed,
}

/// What an access is emitted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// This class.
    One(Class),
    /// Any, by the upper bits of the base.
    Mixed,
    /// One address, which is known, and has this alias.
    Static(u64),
}

/// The classes that may be the main one.
pub const CANDIDATES: [Class; 2] = [Class::Cached, Class::Compat];

impl Builder<'_> {
    /// What the access `word`, instruction `index`, reaches.
    pub(super) fn reach(&self, index: usize, word: u32) -> Option<Reach> {
        let base = field(word, S);
        let certain = self.values.certain(base).filter(|_| base != ZERO);
        let alias = certain.and_then(|base| static_alias(base.wrapping_add(offset(word))));
        match alias {
            Some(alias) => Some(Reach::Static(alias)),
            None => self.reach_by_class(index, base),
        }
    }

    /// What the access of instruction `index` reaches, with base register `base`, of those that go by class.
    pub(super) fn reach_by_class(&self, index: usize, base: u32) -> Option<Reach> {
        if base == ZERO {
            return None;
        }
        let seen = (self.seen)(self.pc(index));
        let reach = self.known_reach(seen, base);
        if let Some(Reach::One(class)) = reach
            && let Some(n) = CANDIDATES.iter().position(|candidate| *candidate == class)
        {
            let mut accesses = self.draft.accesses.get();
            accesses[n] += 1;
            self.draft.accesses.set(accesses);
        }
        // (If that is wrong it is seen, and the block made anew.)
        reach.or((seen == Seen::Nothing).then_some(Reach::One(self.layout.main)))
    }

    /// What an access with base register `base` reaches, by what has been seen of it or is in registers.
    fn known_reach(&self, seen: Seen, base: u32) -> Option<Reach> {
        match seen {
            Seen::One(Class::Xkseg) if !self.layout.has_xkseg() => None,
            Seen::One(Class::User) if is_kept(base) => Some(Reach::Mixed),
            Seen::One(class) => Some(Reach::One(class)),
            Seen::Mixed => Some(Reach::Mixed),
            Seen::Nothing => {
                // A stack stays where it is.
                let stack = Some(self.source.gpr[29]).filter(|_| base == 29);
                let class = self.values.guess(base).or(stack).and_then(Class::of);
                match class? {
                    Class::User if is_kept(base) => Some(Reach::Mixed),
                    Class::Xkseg if !self.layout.has_xkseg() => None,
                    class => Some(Reach::One(class)),
                }
            }
        }
    }

    /// The access `word`, as it is emitted, behind what it takes to reach that.
    pub(super) fn access(&mut self, word: u32, reach: Reach) -> u32 {
        let Reach::Static(alias) = reach else {
            let alias = self.alias(field(word, S), reach);
            return with(word, S, alias);
        };
        // The offset is signed.
        let upper = alias.wrapping_add(0x8000) & !0xffff;
        let held = Some((ZERO, Reach::Static(upper)));
        if self.alias != held {
            self.put(asm::lui(K0, (upper >> 16) as u16));
            self.alias = held;
        }
        with(word, S, K0) & !0xffff | u32::from(alias as u16)
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
        self.alias = Some((base, Reach::Mixed)).filter(|_| !kept);
    }

    /// The register that has the alias of what register `base` holds: `$k0`, or for a user address that one itself, once it is
    /// known to be one.
    pub(super) fn alias(&mut self, base: u32, reach: Reach) -> u32 {
        if reach == Reach::One(Class::User) {
            if self.alias != Some((base, reach)) {
                self.put(asm::dsrl(K0, base, 40));
                self.put(asm::tne(K0, ZERO));
                self.alias = Some((base, reach));
            }
            return base;
        }
        if self.alias != Some((base, reach)) {
            self.make_alias(base, reach);
        }
        K0
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
        self.alias = Some((base, reach));
    }
}

/// The offset of an access.
fn offset(word: u32) -> u64 {
    i64::from(word as i16).cast_unsigned()
}
