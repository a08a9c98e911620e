//! Branches, jumps, and their delay slots.

use super::asm::{self, K0, K1, NOP, S, T, ZERO, field, with};
use super::build::{Builder, LINK, Scratch, is_kept};
use super::draft::Way;
use super::form::{Form, Guest};
use super::layout::{TABLE_ENTRIES, slot};
use super::reach::{Held, Reach};
use super::stand::Kind;
use crate::emulate::branch;

/// Branches of a block whose slots are emitted twice, at most: a slot takes more words than other ends of a block.
const MAX_SLOTTED: usize = 4;
/// `$ra`
const RA: u32 = 31;

/// How a delay slot is emitted.
#[derive(Clone, Copy)]
enum How {
    /// In the real delay slot, as it is.
    Same,
    /// There too: an access that reaches so far, whose alias is made before the branch.
    Access(Reach),
    /// Before the branch.
    Before,
}

/// A delay slot.
#[derive(Clone, Copy)]
struct Slot {
    guest: Guest,
    how: How,
}

impl Builder<'_> {
    /// The branch or jump that is instruction `index`, and its delay slot; whether the block goes on
    /// behind them.
    pub(super) fn control(&mut self, guest: Guest, index: usize) -> bool {
        self.point(Kind::WithSlot, index);
        let goes_on = self.slot(index + 1).and_then(|slot| match guest.form {
            Form::Branch { likely, .. } => self.conditional(guest, index, slot, likely),
            Form::Jump { links } => self.jump(guest.word, index, slot, links),
            _ => self.jump_register(guest.word, index, slot),
        });
        goes_on.unwrap_or_else(|| {
            // Both are the interpreter's. (Nothing has been emitted but scratch.)
            self.stop();
            false
        })
    }

    /// How the delay slot, instruction `index`, can be emitted, if it can.
    fn slot(&mut self, index: usize) -> Option<Slot> {
        let guest = self.slot_at(index)?;
        let how = match guest.form {
            Form::Nothing => How::Same,
            Form::Plain { .. } if !guest.names_kept() => How::Same,
            Form::Load { .. } | Form::Store => {
                let reach = self.reach(index, guest.word)?;
                if !guest.names_kept() && reach == Reach::Identity {
                    How::Same
                } else if !guest.names_kept() {
                    How::Access(reach)
                } else if guest.form == (Form::Load { keeps: true })
                    && is_kept(field(guest.word, T))
                {
                    return None;
                } else {
                    How::Before
                }
            }
            Form::Plain { .. } | Form::ReadPage(..) | Form::WritePage(_) => How::Before,
            Form::Disable if field(guest.word, T) == ZERO => How::Before,
            _ => return None,
        };
        Some(Slot { guest, how })
    }

    /// Whether a slot of this form, which writes what its branch reads, can be emitted behind the branch, on either way.
    fn may_follow(&self, slot: Form) -> bool {
        self.slotted < MAX_SLOTTED
            && match slot {
                Form::Plain { .. } => true,
                Form::ReadPage(slot::USER_LOCAL, _) => self.layout.model.has_userlocal(),
                Form::ReadPage(..) => true,
                _ => false,
            }
    }

    /// Emits what precedes the branch, and gives the word for the real delay slot. The caller has
    /// seen to it that the slot may be executed before the branch if it is one of these.
    fn before(&mut self, slot: Slot, index: usize) -> Option<u32> {
        match slot.how {
            How::Same => Some(slot.guest.word_or_nop()),
            How::Access(reach) => Some(self.access(slot.guest.word, reach)),
            How::Before => {
                if !self.simple(slot.guest, index + 1) {
                    return None;
                }
                self.point(Kind::SlotDone, index);
                Some(NOP)
            }
        }
    }

    fn conditional(
        &mut self,
        guest: Guest,
        index: usize,
        slot: Slot,
        likely: bool,
    ) -> Option<bool> {
        let reads = guest.reads();
        let mut kept = [K0, K1].into_iter().filter(|number| reads >> number & 1 != 0);
        let (first, second) = (kept.next(), kept.next());
        if second.is_some() || first.is_some() && matches!(slot.how, How::Access(_)) {
            return None;
        }
        let target = branch::target_of(guest.word, self.pc(index));
        let early = matches!(slot.how, How::Before);
        let mut behind = false;
        if early {
            if likely {
                return None;
            }
            behind = slot.guest.writes() & reads != 0;
            if behind && !self.may_follow(slot.guest.form) {
                return None;
            }
        }
        let last = if behind { NOP } else { self.before(slot, index)? };
        let mut word = guest.word;
        if let Some(number) = first {
            self.load_kept(number);
            for at in [S, T] {
                let is_source = at == S || matches!(guest.form, Form::Branch { two: true, .. });
                if is_source && field(word, at) == number {
                    word = with(word, at, K0);
                }
            }
        }
        self.restore();
        if behind {
            self.slotted += 1;
            self.branch(word & !0xffff, Way::Slotted(target, index as u8));
            self.put(NOP);
            // Nothing that the guest could see has happened: it stands at the branch still.
            // But nobody must come in here who has not come by the branch.
            self.alias = Held::NONE;
            self.point_apart(Kind::WithSlot, index);
            return self.simple(slot.guest, index + 1).then_some(true);
        }
        self.branch(word & !0xffff, Way::Exit(target));
        self.put(last);
        if !early {
            self.wrote(slot.guest.writes());
        }
        Some(true)
    }

    fn jump(&mut self, word: u32, index: usize, slot: Slot, links: bool) -> Option<bool> {
        let pc = self.pc(index);
        let target = branch::target_of(word, pc);
        if links {
            self.constant(RA, pc.wrapping_add(8));
            self.point(Kind::BegunWithSlot, index);
        }
        let last = self.before(slot, index)?;
        self.restore();
        self.exit(target);
        self.put(last);
        Some(false)
    }

    fn jump_register(&mut self, word: u32, index: usize, slot: Slot) -> Option<bool> {
        let (rs, rd) = (field(word, S), field(word, LINK));
        // (A jump without link has no rd: zero, or what nobody looks at.)
        let links = word & 0x3f == 0x09 && rd != ZERO;
        if is_kept(rs) || links && (is_kept(rd) || rd == rs) {
            return None;
        }
        let before = !matches!(slot.how, How::Same);
        if before && slot.guest.writes() >> rs & 1 != 0 {
            return None;
        }
        let mut kind = Kind::WithSlot;
        if links {
            self.constant(rd, self.pc(index).wrapping_add(8));
            kind = Kind::BegunWithSlot;
            self.point(kind, index);
        }
        let mut last = NOP;
        if !before {
            last = slot.guest.word_or_nop();
        } else {
            if !self.simple(slot.guest, index + 1) {
                return None;
            }
            kind = Kind::SlotDone;
            self.point(kind, index);
        }
        self.alias = Held::NONE;
        if self.layout.identity {
            self.restore();
        }
        self.k1 = Scratch::Unknown;
        // The table's entry, by the low bits of the target: its PC, its code, the main constant. (Where the target is not
        // aligned it is some other doubleword of the entry, in which there is no such number.)
        const BITS: u32 = TABLE_ENTRIES.trailing_zeros() + 2;
        if self.layout.identity {
            self.put(asm::ld(K0, slot::TABLE, K1));
            self.put(asm::dins(K0, rs, 3, BITS));
            self.put(asm::ld(K1, 0, K0));
            self.branch(asm::bne(K1, rs), Way::Stop(kind, index as u8));
            self.put(asm::ld(K1, 16, K0));
            self.put(asm::ld(K0, 8, K0));
        } else {
            self.put(asm::lui(K1, (self.layout.table >> 16) as u16));
            self.put(asm::dins(K1, rs, 3, BITS));
            self.put(asm::ld(K0, 0, K1));
            self.branch(asm::bne(K0, rs), Way::Stop(kind, index as u8));
            self.put(asm::ld(K0, 8, K1));
            self.put(asm::ld(K1, 16, K1));
        }
        self.put(asm::jr(K0));
        self.put(last);
        Some(false)
    }
}
