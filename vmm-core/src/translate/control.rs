//! Branches, jumps, and their delay slots.

use super::asm::{self, K0, K1, NOP, S, T, ZERO, field, with};
use super::build::{Builder, LINK, Scratch, Way, is_kept};
use super::form::{Form, form_of, reads_and_writes};
use super::layout::{TABLE_ENTRIES, slot};
use super::reach::Reach;
use super::stand::Kind;
use crate::emulate::branch;
use crate::isa::decode;

/// Branches of a block whose slots are emitted twice, at most: a slot takes more words than other ends of a block.
const MAX_SLOTTED: usize = 4;
/// `$ra`
const RA: u32 = 31;

/// How a delay slot is emitted.
enum Slot {
    /// In the real delay slot, as it is.
    Same(u32),
    /// There too: an access that reaches so far, whose alias is made before the branch.
    Access(u32, Reach),
    /// Before the branch.
    Before(Form, u32),
}

impl Builder<'_> {
    /// The branch or jump `word`, instruction `index`, and its delay slot; whether the block goes on
    /// behind them.
    pub(super) fn control(&mut self, form: Form, word: u32, index: usize) -> bool {
        self.point(Kind::WithSlot, index);
        let goes_on = self.slot(index + 1).and_then(|slot| match form {
            Form::Branch { likely, .. } => self.conditional(form, word, index, slot, likely),
            Form::Jump { links } => self.jump(word, index, slot, links),
            _ => self.jump_register(word, index, slot),
        });
        goes_on.unwrap_or_else(|| {
            // Both are the interpreter's. (Nothing has been emitted but scratch.)
            self.stop();
            false
        })
    }

    /// How the delay slot, instruction `index`, can be emitted, if it can.
    fn slot(&self, index: usize) -> Option<Slot> {
        if !self.has(index) {
            return None;
        }
        let word = self.word(index);
        let form = form_of(word);
        let (reads, writes) = reads_and_writes(form, word);
        let kept = (reads | writes) & (1 << K0 | 1 << K1) != 0;
        match form {
            Form::Nothing => Some(Slot::Same(NOP)),
            Form::Plain { .. } if !kept => Some(Slot::Same(word)),
            Form::Load { .. } | Form::Store => {
                let reach = self.reach(index, word)?;
                if !kept {
                    return Some(Slot::Access(word, reach));
                }
                let keeps = matches!(form, Form::Load { keeps: true });
                (!keeps || !is_kept(field(word, T))).then_some(Slot::Before(form, word))
            }
            Form::Plain { .. } | Form::ReadPage(..) | Form::WritePage(_) => {
                Some(Slot::Before(form, word))
            }
            Form::Disable if field(word, T) == ZERO => Some(Slot::Before(form, word)),
            _ => None,
        }
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
    fn before(&mut self, slot: &Slot, index: usize) -> Option<u32> {
        match *slot {
            Slot::Same(word) => Some(word),
            Slot::Access(word, reach) => Some(self.access(word, reach)),
            Slot::Before(form, word) => {
                if !self.simple(form, word, index + 1) {
                    return None;
                }
                self.point(Kind::SlotDone, index);
                Some(NOP)
            }
        }
    }

    /// What the slot writes is written.
    fn wrote_by(&mut self, slot: &Slot, index: usize) {
        if !matches!(slot, Slot::Before(..)) {
            let word = self.word(index + 1);
            self.wrote(reads_and_writes(form_of(word), word).1);
        }
    }

    fn conditional(
        &mut self,
        form: Form,
        mut word: u32,
        index: usize,
        slot: Slot,
        likely: bool,
    ) -> Option<bool> {
        let (reads, _) = reads_and_writes(form, word);
        let mut kept = [K0, K1].into_iter().filter(|number| reads >> number & 1 != 0);
        let (first, second) = (kept.next(), kept.next());
        if second.is_some() || first.is_some() && matches!(slot, Slot::Access(..)) {
            return None;
        }
        let target = branch::target_of(word, decode(word), self.pc(index));
        let mut behind = None;
        if let Slot::Before(slot_form, slot_word) = slot {
            if likely {
                return None;
            }
            if reads_and_writes(slot_form, slot_word).1 & reads != 0 {
                if !self.may_follow(slot_form) {
                    return None;
                }
                behind = Some((slot_form, slot_word));
            }
        }
        let last = if behind.is_none() { self.before(&slot, index)? } else { NOP };
        if let Some(number) = first {
            self.load_kept(number);
            for at in [S, T] {
                let is_source = at == S || matches!(form, Form::Branch { two: true, .. });
                if is_source && field(word, at) == number {
                    word = with(word, at, K0);
                }
            }
        }
        self.restore();
        if let Some((slot_form, slot_word)) = behind {
            self.slotted += 1;
            self.branch(word & !0xffff, Way::Slotted(target, index as u8));
            self.put(NOP);
            // Nothing that the guest could see has happened: it stands at the branch still.
            // But nobody must come in here who has not come by the branch.
            self.alias = None;
            self.push(Kind::WithSlot, index as u8, false, false);
            return self.simple(slot_form, slot_word, index + 1).then_some(true);
        }
        self.branch(word & !0xffff, Way::Exit(target));
        self.put(last);
        self.wrote_by(&slot, index);
        Some(true)
    }

    fn jump(&mut self, word: u32, index: usize, slot: Slot, links: bool) -> Option<bool> {
        let pc = self.pc(index);
        let target = branch::target_of(word, decode(word), pc);
        if links {
            self.constant(RA, pc.wrapping_add(8));
            self.point(Kind::BegunWithSlot, index);
        }
        let last = self.before(&slot, index)?;
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
        let slot_word = self.word(index + 1);
        let slot_form = form_of(slot_word);
        let before = !matches!(slot, Slot::Same(_));
        if before && reads_and_writes(slot_form, slot_word).1 >> rs & 1 != 0 {
            return None;
        }
        let mut kind = Kind::WithSlot;
        if links {
            self.constant(rd, self.pc(index).wrapping_add(8));
            kind = Kind::BegunWithSlot;
            self.point(kind, index);
        }
        let mut last = NOP;
        if let Slot::Same(word) = slot {
            last = word;
        } else {
            if !self.simple(slot_form, slot_word, index + 1) {
                return None;
            }
            kind = Kind::SlotDone;
            self.point(kind, index);
        }
        self.alias = None;
        self.k1 = Scratch::Unknown;
        // The table's entry, by the low bits of the target: its PC, its code, the main constant. (Where the target is not
        // aligned it is some other doubleword of the entry, in which there is no such number.)
        const BITS: u32 = TABLE_ENTRIES.trailing_zeros() + 2;
        self.put(asm::lui(K1, (self.layout.table >> 16) as u16));
        self.put(asm::dins(K1, rs, 3, BITS));
        self.put(asm::ld(K0, 0, K1));
        self.branch(asm::bne(K0, rs), Way::Stop(kind, index as u8));
        self.put(asm::ld(K0, 8, K1));
        self.put(asm::ld(K1, 16, K1));
        self.put(asm::jr(K0));
        self.put(last);
        Some(false)
    }
}
