//! The TLB instructions, as far as they need nobody else.
//!
//! A write is *posted*: it is put down in the VCPU page, and the runtime makes it before anybody looks into the guest's TLB. This is
//! for writes that change nothing for whoever does not look: of an entry that nobody has copied yet, for an address
//! that has none. What `tlbp` has found is noted in the same way, for the write that mostly follows.

use super::asm::{self, K0, K1, NOP, ZERO};
use super::build::{Builder, Scratch};
use super::draft::Way;
use super::form::Quick;
use super::layout::slot;
use super::reach::Held;
use super::stand::Kind;

/// From one post to the next, and a place of the next one.
const NEXT: u16 = slot::POST_BYTES;
impl Builder<'_> {
    /// `k1` is the VCPU page's address, whatever it was. (Of what takes more than one instruction the first may be in a delay
    /// slot, where the branch leads to what needs it no more, or makes it again.)
    fn page_again(&mut self) {
        self.page_address(K1);
    }

    /// Behind a TLB instruction: the runtime goes on here, too.
    fn behind(&mut self, index: usize) {
        let k1 = if self.layout.identity { Scratch::Main } else { Scratch::Page };
        (self.alias, self.k1) = (Held::NONE, k1);
        self.point(Kind::Plain, index + 1);
        self.restore();
        self.point(Kind::Plain, index + 1);
    }

    /// `k1` is the address of a place in the filter: that of the EntryHi in `k0`.
    fn place(&mut self) {
        self.put(asm::dsll(K1, K0, 7));
        self.put(asm::dext(K0, K0, 13, 15));
        self.put(asm::xor(K0, K0, K1));
        self.page_again();
        self.put(asm::dins(K1, K0, 0, 15));
        self.put(asm::ori(K1, K1, slot::FILTER as u16));
    }

    /// `tlbp`, of what was found or written last, or certainly is not there; else it is the runtime's.
    pub(super) fn probe(&mut self, index: usize) {
        let way = Way::Quick(Quick::Probe, index as u8);
        self.begin(index);
        self.put(asm::ld(K0, slot::ENTRY_HI, K1));
        self.put(asm::ld(K1, slot::POSTED, K1));
        self.put(asm::ld(K1, slot::POST_HI, K1));
        let other = self.skip(asm::bne(K0, K1));
        self.page_again();
        self.put(asm::ld(K1, slot::POSTED, K1));
        self.put(asm::ld(K0, slot::POST_INDEX, K1));
        let done = self.skip(asm::beq(ZERO, ZERO));
        self.put(NOP);
        self.land(other);
        self.page_again();
        self.put(asm::ld(K1, slot::FAULT_HI, K1));
        let other = self.skip(asm::bne(K0, K1));
        self.page_again();
        self.found(way);
        let done_too = self.skip(asm::beq(ZERO, ZERO));
        self.put(NOP);
        self.land(other);
        self.put(asm::dextu(K1, K0, 40, 24));
        self.branch(asm::bne(K1, ZERO), way);
        self.put(NOP);
        self.place();
        self.put(asm::lbu(K0, 0, K1));
        self.page_again();
        self.put(asm::ld(K1, slot::UNTOLD, K1));
        self.put(asm::or(K0, K0, K1));
        self.branch(asm::bne(K0, ZERO), way);
        self.page_again();
        self.put(asm::ld(K0, slot::INDEX, K1));
        self.put(asm::lui(K1, 0x8000));
        self.put(asm::or(K0, K0, K1));
        self.land(done);
        self.land(done_too);
        self.page_again();
        self.put(asm::sd(K0, slot::INDEX, K1));
        self.behind(index);
    }

    /// What was faulted at, EntryHi in `k0`, follows the last post as what was found; `k0` is Index then.
    fn found(&mut self, way: Way) {
        self.put(asm::ld(K1, slot::POSTED, K1));
        self.put(asm::sd(K0, NEXT + slot::POST_HI, K1));
        self.put(asm::ld(K0, NEXT + slot::POST_BEYOND, K1));
        self.branch(asm::bltz(K0), way);
        self.put(asm::daddiu(K0, ZERO, 0xffff));
        self.put(asm::sd(K0, NEXT + slot::POST_LO[0], K1));
        self.put(asm::ld(K0, slot::POST_VICTIM, K1));
        self.put(asm::sd(K0, NEXT + slot::POST_VICTIM, K1));
        for (place, at) in
            [(slot::FAULT_AGAIN, slot::POST_AGAIN), (slot::FAULT_INDEX, slot::POST_INDEX)]
        {
            self.page_address(K0);
            self.put(asm::ld(K0, place, K0));
            self.put(asm::sd(K0, NEXT + at, K1));
        }
        self.put(asm::daddiu(K0, K1, NEXT));
        self.page_again();
        self.put(asm::sd(K0, slot::POSTED, K1));
        self.put(asm::ld(K0, slot::FAULT_INDEX, K1));
    }

    /// Whether both EntryLo in the page have G, in `k0`.
    fn global(&mut self) {
        self.put(asm::ld(K0, slot::ENTRY_LO[0], K1));
        self.put(asm::ld(K1, slot::ENTRY_LO[1], K1));
        self.put(asm::and(K0, K0, K1));
        self.put(asm::dext(K0, K0, 0, 1));
    }

    /// What is to be written follows the last post, whose address is in `k1`; that makes it the last.
    fn post(&mut self, index: usize) {
        for (place, at) in [
            (slot::ENTRY_LO[0], slot::POST_LO[0]),
            (slot::ENTRY_LO[1], slot::POST_LO[1]),
            (slot::ENTRY_HI, slot::POST_HI),
        ] {
            self.page_address(K0);
            self.put(asm::ld(K0, place, K0));
            self.put(asm::sd(K0, NEXT + at, K1));
        }
        self.put(asm::daddiu(K0, K1, NEXT));
        self.page_again();
        self.put(asm::sd(K0, slot::POSTED, K1));
        self.behind(index);
    }

    /// An instruction begins that goes by what is posted.
    fn begin(&mut self, index: usize) {
        self.alias = Held::NONE;
        self.page_again();
        self.point_apart(Kind::Posting, index);
    }

    /// `tlbwr`, of a private user page that certainly has no entry yet.
    pub(super) fn write_random(&mut self, index: usize) {
        let way = Way::Quick(Quick::WriteRandom, index as u8);
        self.linked = Held::NONE;
        self.begin(index);
        // A user address, without EHINV.
        self.put(asm::ld(K0, slot::ENTRY_HI, K1));
        self.put(asm::dextu(K1, K0, 40, 24));
        self.put(asm::dext(K0, K0, 10, 1));
        self.put(asm::or(K0, K0, K1));
        self.branch(asm::bne(K0, ZERO), way);
        self.page_again();
        self.global();
        self.branch(asm::bne(K0, ZERO), way);
        self.page_again();
        // Somebody whom it may replace unseen, and room.
        self.put(asm::ld(K1, slot::POSTED, K1));
        self.put(asm::ld(K0, slot::POST_VICTIM, K1));
        self.put(asm::ld(K0, 0, K0));
        self.put(asm::ld(K1, NEXT + slot::POST_BEYOND, K1));
        self.put(asm::or(K0, K0, K1));
        self.branch(asm::bltz(K0), way);
        self.page_again();
        // From now on it is not certain any more.
        self.put(asm::ld(K0, slot::ENTRY_HI, K1));
        self.place();
        self.put(asm::lbu(K0, 0, K1));
        self.branch(asm::bne(K0, ZERO), way);
        self.put(asm::ori(K0, ZERO, 1));
        self.put(asm::sb(K0, 0, K1));
        self.page_again();
        self.put(asm::ld(K1, slot::POSTED, K1));
        self.put(asm::ld(K0, slot::POST_VICTIM, K1));
        self.put(asm::ld(K0, 0, K0));
        self.put(asm::sd(K0, NEXT + slot::POST_INDEX, K1));
        self.put(asm::sd(K0, NEXT + slot::POST_AGAIN, K1));
        self.put(asm::ld(K0, slot::POST_VICTIM, K1));
        self.put(asm::daddiu(K0, K0, 8));
        self.put(asm::sd(K0, NEXT + slot::POST_VICTIM, K1));
        self.post(index);
    }

    /// `tlbwi`, of the entry that was written or found last, for the same address.
    pub(super) fn write_indexed(&mut self, index: usize) {
        let way = Way::Quick(Quick::WriteIndexed, index as u8);
        self.linked = Held::NONE;
        self.begin(index);
        self.put(asm::ld(K0, slot::INDEX, K1));
        self.put(asm::ld(K1, slot::POSTED, K1));
        self.put(asm::ld(K1, slot::POST_AGAIN, K1));
        self.branch(asm::bne(K0, K1), way);
        self.page_again();
        self.put(asm::ld(K0, slot::ENTRY_HI, K1));
        self.put(asm::ld(K1, slot::POSTED, K1));
        self.put(asm::ld(K1, slot::POST_HI, K1));
        self.branch(asm::bne(K0, K1), way);
        self.page_again();
        self.global();
        self.branch(asm::bne(K0, ZERO), way);
        self.page_again();
        self.put(asm::ld(K1, slot::POSTED, K1));
        self.put(asm::ld(K0, NEXT + slot::POST_BEYOND, K1));
        self.branch(asm::bltz(K0), way);
        self.put(asm::ld(K0, slot::POST_INDEX, K1));
        self.put(asm::sd(K0, NEXT + slot::POST_INDEX, K1));
        self.put(asm::sd(K0, NEXT + slot::POST_AGAIN, K1));
        self.put(asm::ld(K0, slot::POST_VICTIM, K1));
        self.put(asm::sd(K0, NEXT + slot::POST_VICTIM, K1));
        self.post(index);
    }
}
