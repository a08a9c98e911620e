//! What an access reaches, and how emitted code comes by the address.

use super::asm::{self, K0, K1, ZERO};
use super::build::{Builder, Scratch, is_kept};
use super::layout::{Class, slot};

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
}

impl Builder<'_> {
    /// What the access of instruction `index` reaches, with base register `base`.
    pub(super) fn reach(&self, index: usize, base: u32) -> Option<Reach> {
        match (self.seen)(self.pc(index)) {
            _ if base == ZERO => None,
            Seen::One(Class::Xkseg) if !self.layout.xkseg => None,
            Seen::One(Class::User) | Seen::Mixed if is_kept(base) => None,
            Seen::One(class) => Some(Reach::One(class)),
            Seen::Mixed => Some(Reach::Mixed),
            // What is written in the block is not known; a stack stays where it is.
            Seen::Nothing if self.written >> base & 1 != 0 && base != 29 => {
                Some(Reach::One(self.layout.main))
            }
            Seen::Nothing => {
                let class = Class::of(self.source.gpr[base as usize])?;
                let possible = match class {
                    Class::User => !is_kept(base),
                    Class::Xkseg => self.layout.xkseg,
                    _ => true,
                };
                possible.then_some(Reach::One(class))
            }
        }
    }

    /// `$k0` is the alias of what register `base` holds, whatever its class; the register is not in the VCPU page.
    fn alias_mixed(&mut self, base: u32) {
        self.page();
        self.put(asm::dextu(K0, base, 59, 5));
        self.put(asm::dins(K1, K0, 3, 5));
        self.k1 = Scratch::Unknown;
        self.put(asm::ld(K0, slot::MIXED, K1));
        self.put(asm::xor(K0, base, K0));
        self.alias = Some((base, Reach::Mixed));
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
