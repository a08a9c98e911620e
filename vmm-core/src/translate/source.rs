//! What a block is made from.

use super::cache::is_mapped;
use super::draft::MAX_INSNS;
use super::form::{Form, Guest};
use crate::emulate::Data;
use crate::endian::Endian;
use crate::mem::Page;
use abi::{Gpa, PAGE_SIZE};

/// What a block is made from.
#[derive(Clone, Copy)]
pub struct Source {
    /// Where it begins.
    pub pc: u64,
    /// The page that this is in.
    pub page: Page,
    /// The page behind that, and what the code cache knows it by, if a delay slot there is known ([`Source::beyond`]).
    pub next: Option<(Page, Gpa)>,
    /// The guest's byte order.
    pub endian: Endian,
}

impl Source {
    /// Where the page behind begins, if the block may come to a branch whose delay slot is there. (Not in mapped segments: what is
    /// behind may come to be something else while the block stays.)
    #[must_use]
    pub fn beyond(&self) -> Option<u64> {
        let end = (self.pc | (PAGE_SIZE - 1)).wrapping_add(1);
        if self.count() >= MAX_INSNS || is_mapped(self.pc) || is_mapped(end) {
            return None;
        }
        let last = self.guest(self.count() - 1);
        let is_branch =
            matches!(last.form, Form::Branch { .. } | Form::Jump { .. } | Form::JumpRegister);
        is_branch.then_some(end)
    }

    /// Instructions that the page has from there on.
    #[must_use]
    pub(super) const fn count(&self) -> usize {
        ((PAGE_SIZE - self.pc % PAGE_SIZE) / 4) as usize
    }

    /// Address of instruction `index`.
    #[must_use]
    pub(super) const fn at(&self, index: usize) -> u64 {
        self.pc.wrapping_add(4 * index as u64)
    }

    /// Instruction `index`, which the page has.
    #[inline]
    #[must_use]
    pub(super) fn guest(&self, index: usize) -> Guest {
        Guest::of(u32::load(self.page, self.at(index), self.endian))
    }

    /// The first instruction of the page behind, if that is known.
    #[must_use]
    pub(super) fn first_beyond(&self) -> Option<Guest> {
        self.next.map(|(page, _)| Guest::of(u32::load(page, 0, self.endian)))
    }
}
