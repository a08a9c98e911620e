//! Writes of coprocessor 0's registers, in the VCPU page.

use super::asm::{self, K0, K1, NOP, ZERO};
use super::build::{Builder, Scratch, is_kept, kept};
use super::draft::Way;
use super::layout::slot;
use super::reach::Held;
use super::stand::Kind;

impl Builder<'_> {
    /// `di` (with `rt` the old Status) or `ei`: Status.IE becomes `on`.
    pub(super) fn set_enable(&mut self, rt: u32, index: usize, on: bool) {
        self.page();
        self.alias = Held::NONE;
        if rt != ZERO {
            self.put(asm::ld(rt, slot::STATUS, K1));
            self.wrote(1 << rt);
            self.point(Kind::Begun, index);
        }
        self.put(asm::ld(K0, slot::STATUS, K1));
        self.put(if on { asm::ori(K0, K0, 1) } else { asm::ins(K0, ZERO, 0, 1) });
        self.put(asm::sd(K0, slot::STATUS, K1));
    }

    /// EntryLo0 or EntryLo1 becomes what `rt` holds.
    pub(super) fn write_lo(&mut self, rt: u32, place: u16) {
        let from = if is_kept(rt) { K0 } else { rt };
        if is_kept(rt) {
            self.load_kept(rt);
        }
        self.page();
        self.alias = Held::NONE;
        // (Whatever the model, they have the low bits of 30, and no others.)
        let bits = self.layout.model.entry_lo_mask().count_ones();
        self.put(asm::dext(K0, from, 0, bits));
        self.put(asm::sd(K0, place, K1));
    }

    /// Index becomes what `rt` holds, unless there is no such entry; whether that can be emitted.
    pub(super) fn write_index(&mut self, rt: u32, index: usize) -> bool {
        let entries = self.layout.model.tlb_entries;
        if !entries.is_power_of_two() || entries < 2 {
            return false;
        }
        let bits = entries.trailing_zeros();
        self.page();
        self.alias = Held::NONE;
        self.put(asm::dext(K0, rt, bits, 31 - bits));
        self.branch(asm::bne(K0, ZERO), Way::Stop(Kind::Plain, index as u8));
        self.put(asm::ld(K0, slot::INDEX, K1));
        // Its sign stays what the last probe has made it.
        self.put(asm::ins(K0, rt, 0, bits));
        self.put(asm::sd(K0, slot::INDEX, K1));
        true
    }

    /// EntryHi becomes what `rt` holds, unless that is another address space: what user addresses mean would change.
    pub(super) fn write_hi(&mut self, rt: u32, index: usize) {
        self.page();
        self.alias = Held::NONE;
        self.put(asm::ld(K0, slot::ENTRY_HI, K1));
        self.put(asm::xor(K0, K0, rt));
        self.put(asm::dext(K0, K0, 0, 8));
        self.branch(asm::bne(K0, ZERO), Way::Stop(Kind::Plain, index as u8));
        self.put(asm::or(K0, rt, ZERO));
        let mut left = !self.layout.model.entry_hi_mask();
        while left != 0 {
            let position = left.trailing_zeros();
            let size = (left >> position).trailing_ones();
            let clear = if position < 32 { asm::dins } else { asm::dinsu };
            self.put(clear(K0, ZERO, position, size));
            left &= left + (1 << position);
        }
        self.put(asm::sd(K0, slot::ENTRY_HI, K1));
    }

    /// Status becomes what `rt` holds, unless more changes than IE, EXL, KSU, IM and CU0, or the mode.
    pub(super) fn write_status(&mut self, rt: u32, index: usize) {
        self.page();
        self.alias = Held::NONE;
        self.put(asm::ld(K0, slot::STATUS, K1));
        let mut from = rt;
        if is_kept(rt) {
            self.put(asm::ld(K1, kept(rt), K1));
            self.k1 = Scratch::Unknown;
            from = K1;
        }
        self.put(asm::xor(K0, K0, from));
        self.put(asm::sign_extend(K0, K0));
        // IE and EXL, KSU, IM, CU0.
        for (position, size) in [(0, 2), (3, 2), (8, 8), (28, 1)] {
            self.put(asm::ins(K0, ZERO, position, size));
        }
        self.branch(asm::bne(K0, ZERO), Way::Stop(Kind::Plain, index as u8));
        // Whatever KSU is, with EXL the mode stays.
        self.put(asm::dext(K0, from, 3, 2));
        self.put(asm::dext(K1, from, 1, 1));
        self.k1 = Scratch::Unknown;
        self.put(asm::movn(K0, ZERO, K1));
        self.branch(asm::bne(K0, ZERO), Way::Stop(Kind::Plain, index as u8));
        if is_kept(rt) {
            self.load_kept(rt);
            from = K0;
        }
        self.put(asm::sign_extend(K0, from));
        self.page();
        self.put(asm::sd(K0, slot::STATUS, K1));
        self.look_at_pending(index);
    }

    /// Interrupts may be allowed now: to the runtime if one is pending. (If one comes just now, the
    /// runtime sees by itself that it is allowed.)
    pub(super) fn look_at_pending(&mut self, index: usize) {
        self.point(Kind::Plain, index + 1);
        self.put(asm::ld(K0, slot::PENDING, K1));
        self.branch(asm::bne(K0, ZERO), Way::Stop(Kind::Plain, index as u8 + 1));
        self.put(NOP);
    }
}
