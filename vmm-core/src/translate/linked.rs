//! Load-linked and store-conditional.

use super::asm::{self, K0, K1, S, T, ZERO, field, with};
use super::build::{Builder, Scratch, is_kept, kept};
use super::form::{Form, Quick};
use super::layout::Class;
use super::reach::{Held, Reach};
use super::stand::Kind;

/// Instructions behind a load-linked among which its store-conditional is looked for.
pub const LINK_REACH: usize = 24;

impl Builder<'_> {
    /// The load-linked `word`, instruction `index`; whether it could be emitted.
    pub(super) fn load_linked(&mut self, word: u32, index: usize) -> bool {
        if self.is_interrupted(index) {
            return false;
        }
        let (base, rt) = (field(word, S), field(word, T));
        // (As a store-conditional in another block would reach it.)
        let reach = match self.reach_by_class(index, base) {
            Some(Reach::One(Class::User)) => Reach::Mixed,
            Some(reach) => reach,
            None => return false,
        };
        let word = with(word, S, self.alias(base, reach));
        if is_kept(rt) {
            self.put(with(word, T, K0));
            self.store_kept(rt);
        } else {
            self.put(word);
        }
        self.linked = Held::new(base, reach);
        self.wrote(1 << rt);
        true
    }

    /// The store-conditional `word`, instruction `index`; whether it could be emitted.
    ///
    /// One that goes elsewhere than its load-linked fails and does not trap: a wrong guess would never be seen. So the alias is
    /// the same, which has not faulted, or the one that is right for every address.
    pub(super) fn store_conditional(&mut self, word: u32, index: usize) -> bool {
        let (base, rt) = (field(word, S), field(word, T));
        if base == ZERO {
            return false;
        }
        let any = if self.layout.identity { Reach::Identity } else { Reach::Mixed };
        let reach = if self.linked.is(base) { self.linked.reach } else { any };
        let word = with(word, S, self.alias(base, reach));
        if is_kept(rt) {
            self.page();
            self.put(asm::ld(K1, kept(rt), K1));
            self.k1 = Scratch::Unknown;
            self.put(with(word, T, K1));
            self.point(Kind::Stored, index);
            self.page_address(K0);
            self.put(asm::sd(K1, kept(rt), K0));
            self.alias = Held::NONE;
        } else {
            self.put(word);
        }
        self.wrote(1 << rt);
        true
    }

    /// Whether emitted code is left between the load-linked at `index` and its store-conditional, which would then fail: its link
    /// is to be the interpreter's.
    fn is_interrupted(&self, index: usize) -> bool {
        let mut leaves = false;
        for at in (index + 1..=index + LINK_REACH).take_while(|&at| self.has(at)) {
            match self.guest(at).form {
                Form::Conditional => return leaves,
                // (It finds what the handler of an exception looks for.)
                Form::Quick(Quick::Probe) => {}
                Form::Quick(_) | Form::Interpret | Form::Ends => leaves = true,
                Form::Linked | Form::Jump { .. } | Form::JumpRegister => return false,
                _ => {}
            }
        }
        false
    }
}
