//! From guest code to a block: one pass, into a draft of fixed size.
//!
//! What is emitted for a guest instruction changes scratch registers first, and one thing that the guest
//! can see last; where that can't be, its first such word begins a new [`Point`] that says so.

use super::asm::{self, BREAK, D, K0, K1, NOP, T, ZERO, field, with};
use super::draft::{Draft, Exit, MAX_INSNS, MAX_WAYS, MAX_WORDS, NO_BRANCH, Way};
use super::form::{Form, Guest, Quick};
use super::layout::{Layout, slot};
use super::reach::Held;
use super::sites::Sites;
use super::source::Source;
use super::stand::{Kind, Point};
use super::values::Values;
use crate::endian::Endian;

/// No instruction is begun behind this word: what one takes, and the ends of all exits, find room.
const LAST_START: usize = MAX_WORDS - 256;
/// What one instruction takes of the branches out, at most.
const WAYS_OF_ONE: usize = 4;
/// Instructions that could be emitted between two that can't, at most, for all of them to be interpreted.
const STRETCH: usize = 12;
/// What a scratch register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scratch {
    /// The main class's constant.
    Main,
    /// The address of the VCPU page.
    Page,
    /// Something else.
    Unknown,
}

/// Whether a register's value is in the VCPU page.
pub(super) const fn is_kept(number: u32) -> bool {
    number == K0 || number == K1
}

/// The place of such a register there.
pub(super) const fn kept(number: u32) -> u16 {
    if number == K0 { slot::K0 } else { slot::K1 }
}

/// Instructions that are handed to the interpreter together.
struct Stretch {
    count: usize,
    /// The block ends with them.
    ends: bool,
    /// All of them that are not emitted are [`Form::Quick`], so that each is rather executed by itself.
    quick: bool,
}

/// Who makes a block.
pub(super) struct Builder<'a> {
    pub(super) draft: &'a mut Draft,
    pub(super) layout: &'a Layout,
    source: Source,
    /// Instructions that the page has from the block's start on.
    count: usize,
    /// What accesses have been seen to be.
    pub(super) sites: &'a Sites,
    /// `$k0` holds the alias of this register, for an access that reaches so far.
    pub(super) alias: Held,
    pub(super) k1: Scratch,
    /// The base register of the last load-linked, unchanged, and what that reaches.
    pub(super) linked: Held,
    /// Branches whose slot comes behind them, on either way.
    pub(super) slotted: usize,
    /// What registers hold.
    pub(super) values: &'a mut Values,
}

/// Makes a block; how many guest instructions it is about. `values` are the guest's registers, as far as they are known: they tell
/// what its accesses will be.
pub fn build(
    draft: &mut Draft,
    layout: &Layout,
    source: Source,
    sites: &Sites,
    values: &mut Values,
) -> usize {
    draft.clear();
    let mut builder = Builder {
        draft,
        layout,
        source,
        count: source.count(),
        sites,
        alias: Held::NONE,
        k1: Scratch::Main,
        linked: Held::NONE,
        slotted: 0,
        values,
    };
    let insns = builder.body();
    builder.ends();
    insns
}

impl Builder<'_> {
    fn body(&mut self) -> usize {
        let last = self.count.min(MAX_INSNS - 1);
        let mut index = 0;
        while index < last
            && self.draft.len <= LAST_START
            && self.draft.way_count <= MAX_WAYS - WAYS_OF_ONE
        {
            let guest = self.guest(index);
            match guest.form {
                Form::Nothing => index += 1,
                Form::Branch { .. } | Form::Jump { .. } | Form::JumpRegister => {
                    let goes_on = self.control(guest, index);
                    index += 2;
                    if !goes_on {
                        return index;
                    }
                }
                form => {
                    self.point(Kind::Plain, index);
                    if self.common(guest, index) {
                        index += 1;
                        continue;
                    }
                    let stretch = self.stretch(index);
                    if let Form::Quick(quick) = form
                        && stretch.quick
                    {
                        self.hand_over(asm::numbered_break(quick.number()));
                        index += 1;
                        if quick == Quick::Return {
                            return index;
                        }
                    } else {
                        self.hand_over(BREAK);
                        index += stretch.count;
                        if stretch.ends {
                            return index;
                        }
                    }
                }
            }
        }
        self.point(Kind::Plain, index);
        self.restore();
        self.exit(self.pc(index));
        self.put(NOP);
        index
    }

    /// The instructions, from `index` on, that are handed to the interpreter together: those between two of them are interpreted
    /// for less than it takes to come back and leave again.
    fn stretch(&self, index: usize) -> Stretch {
        let (mut count, mut at, mut quick) = (1, index, true);
        loop {
            let is_other = match self.guest(at).form {
                form @ (Form::Ends | Form::Quick(Quick::Return)) => {
                    let quick = quick && form != Form::Ends;
                    return Stretch { count: at + 1 - index, ends: true, quick };
                }
                Form::Branch { .. } | Form::Jump { .. } | Form::JumpRegister => break,
                Form::Quick(quick) => quick != Quick::Probe,
                Form::Interpret => {
                    quick = false;
                    true
                }
                Form::Nothing => at + 1 - index == count + 1,
                _ => false,
            };
            if is_other {
                count = at + 1 - index;
            }
            at += 1;
            if at - index >= count + STRETCH || at >= MAX_INSNS - 1 || !self.has(at) {
                break;
            }
        }
        Stretch { count, ends: false, quick }
    }

    /// What conditional branches to places behind the end need there.
    fn ends(&mut self) {
        self.draft.aside = self.draft.point_count;
        for n in 0..self.draft.way_count {
            let (from, way) = self.draft.ways[n];
            let to = self.draft.len;
            // Within MAX_WORDS, which branches reach.
            if let Some(word) = asm::branch_to(self.draft.words[usize::from(from)], from.into(), to)
            {
                self.draft.words[usize::from(from)] = word;
            }
            match way {
                Way::Exit(target) => {
                    self.point_apart(Kind::Link, self.draft.exit_count);
                    self.exit(target);
                    self.draft.exits[self.draft.exit_count - 1].branch = from;
                    self.put(NOP);
                }
                Way::Slotted(target, insn) => {
                    (self.alias, self.k1) = (Held::NONE, Scratch::Main);
                    self.point_apart(Kind::WithSlot, insn.into());
                    let slot = usize::from(insn) + 1;
                    if let Some(guest) = self.slot_at(slot) {
                        self.simple(guest, slot);
                    }
                    self.point_apart(Kind::Link, self.draft.exit_count);
                    self.restore();
                    self.exit(target);
                    self.put(NOP);
                }
                Way::Stop(kind, insn) => {
                    self.point_apart(kind, insn.into());
                    self.put(BREAK);
                }
                Way::Quick(quick, insn) => {
                    self.point_apart(Kind::Plain, insn.into());
                    self.put(asm::numbered_break(quick.number()));
                }
            }
        }
    }

    /// Address of the block's instruction `index`.
    pub(super) const fn pc(&self, index: usize) -> u64 {
        self.source.at(index)
    }

    /// Whether instruction `index` is in the page.
    pub(super) const fn has(&self, index: usize) -> bool {
        index < self.count
    }

    /// Instruction `index`, which the page has.
    #[inline]
    pub(super) fn guest(&self, index: usize) -> Guest {
        self.source.guest(index)
    }

    /// The delay slot that is instruction `index`, if it is known: it may be in the next page.
    pub(super) fn slot_at(&mut self, index: usize) -> Option<Guest> {
        if self.has(index) {
            return Some(self.guest(index));
        }
        self.draft.crosses = true;
        self.source.first_beyond()
    }

    #[inline]
    pub(super) fn put(&mut self, word: u32) {
        let at = self.draft.len;
        if let Some(place) = self.draft.words.get_mut(at) {
            *place = word;
            self.draft.len = at + 1;
        }
    }

    #[inline]
    fn push(&mut self, point: Point) {
        let at = self.draft.point_count;
        if let Some(place) = self.draft.points.get_mut(at) {
            *place = point;
            self.draft.point_count = at + 1;
        }
    }

    /// From here on the guest stands at instruction `index`.
    #[inline]
    pub(super) fn point(&mut self, kind: Kind, index: usize) {
        let point = Point::new(self.draft.len as u16, index as u8, kind);
        let clean = self.alias.is_none() && self.k1 == Scratch::Main;
        self.push(if clean { point.clean() } else { point });
    }

    /// Likewise, but control does not come here from outside. (For a link `index` is the number of its exit.)
    pub(super) fn point_apart(&mut self, kind: Kind, index: usize) {
        self.push(Point::new(self.draft.len as u16, index as u8, kind));
    }

    /// The next word is where the block is left for `target`.
    pub(super) fn exit(&mut self, target: u64) {
        let word = self.draft.len as u16;
        if let Some(place) = self.draft.exits.get_mut(self.draft.exit_count) {
            *place = Exit { word, branch: NO_BRANCH, target };
            self.draft.exit_count += 1;
        }
        self.put(BREAK);
    }

    /// The next word is a branch that leads out.
    pub(super) fn branch(&mut self, word: u32, way: Way) {
        if let Some(place) = self.draft.ways.get_mut(self.draft.way_count) {
            *place = (self.draft.len as u16, way);
            self.draft.way_count += 1;
        }
        self.put(word);
    }

    /// The next word is a branch to a place of the block that comes later; it is to be given to [`Builder::land`].
    pub(super) fn skip(&mut self, word: u32) -> usize {
        let from = self.draft.len;
        self.put(word);
        from
    }

    /// A branch leads to the next word.
    pub(super) fn land(&mut self, from: usize) {
        let to = self.draft.len;
        if let Some(place) = self.draft.words.get_mut(from)
            && let Some(word) = asm::branch_to(*place, from, to)
        {
            *place = word;
        }
    }

    /// To the runtime, which goes on behind what it has had interpreted.
    fn hand_over(&mut self, word: u32) {
        self.put(word);
        (self.alias, self.k1, self.linked) = (Held::NONE, Scratch::Main, Held::NONE);
        self.values.doubt();
    }

    /// To the runtime.
    pub(super) fn stop(&mut self) {
        self.restore();
        self.alias = Held::NONE;
        self.put(BREAK);
    }

    /// `$k1` is the address of the VCPU page.
    pub(super) fn page(&mut self) {
        if self.layout.identity {
            self.restore();
        } else if self.k1 != Scratch::Page {
            self.put(asm::lui(K1, (self.layout.page >> 16) as u16));
            self.k1 = Scratch::Page;
        }
    }

    /// `$k1` is as it is between blocks.
    pub(super) fn restore(&mut self) {
        if self.k1 == Scratch::Main {
            return;
        }
        if self.layout.identity {
            self.page_address(K1);
            self.k1 = Scratch::Main;
        } else {
            self.page();
            self.put(asm::ld(K1, slot::MAIN, K1));
            self.k1 = Scratch::Main;
        }
    }

    /// The scratch register `rt` is the address of the VCPU page.
    pub(super) fn page_address(&mut self, rt: u32) {
        let Layout { page, identity, .. } = *self.layout;
        if identity {
            self.put(asm::lui(rt, (page >> 48) as u16));
            self.put(asm::ori(rt, rt, (page >> 32) as u16));
            self.put(asm::dsll(rt, rt, 16));
            self.put(asm::dsll(rt, rt, 16));
        } else {
            self.put(asm::lui(rt, (page >> 16) as u16));
        }
    }

    /// Loads a doubleword of the VCPU page into `rt`, by way of `$k0` unless `$k1` is its address.
    pub(super) fn load_place(&mut self, load: fn(u32, u16, u32) -> u32, rt: u32, place: u16) {
        if self.layout.identity {
            self.restore();
        }
        if self.layout.identity || self.k1 == Scratch::Page {
            self.put(load(rt, place, K1));
        } else {
            self.alias = Held::NONE;
            self.put(asm::lui(K0, (self.layout.page >> 16) as u16));
            self.put(load(rt, place, K0));
        }
    }

    /// Loads a register whose value is in the VCPU page into `$k0`.
    pub(super) fn load_kept(&mut self, number: u32) {
        self.alias = Held::NONE;
        self.page();
        self.put(asm::ld(K0, kept(number), K1));
    }

    /// Stores `$k0` to the register `number` in the VCPU page.
    pub(super) fn store_kept(&mut self, number: u32) {
        self.alias = Held::NONE;
        self.page();
        self.put(asm::sd(K0, kept(number), K1));
    }

    /// Registers of these numbers (bits) have been written.
    pub(super) fn wrote(&mut self, registers: u32) {
        self.values.forget(registers);
        self.alias.wrote(registers);
        self.linked.wrote(registers);
    }

    /// An instruction without control flow; whether it could be emitted (else nothing has been).
    pub(super) fn simple(&mut self, guest: Guest, index: usize) -> bool {
        self.common(guest, index)
    }

    /// The same, for who does that for most instructions: they are as they are, or but for an alias.
    #[inline(always)]
    fn common(&mut self, guest: Guest, index: usize) -> bool {
        match guest.form {
            Form::Plain { .. } if !guest.names_kept() => {
                let result = self.values.result(guest.word);
                self.put(guest.word);
                self.wrote(guest.writes());
                self.values.set(result);
                true
            }
            Form::Load { .. } | Form::Store if !is_kept(field(guest.word, T)) => {
                let Some(reach) = self.reach(index, guest.word) else { return false };
                let word = self.access(guest.word, reach);
                self.put(word);
                self.wrote(guest.writes());
                true
            }
            _ => self.other(guest, index),
        }
    }

    #[inline(never)]
    fn other(&mut self, guest: Guest, index: usize) -> bool {
        let Guest { word, form, .. } = guest;
        let rt = field(word, T);
        match form {
            Form::Nothing => {}
            Form::ReadPage(slot::USER_LOCAL, _) | Form::WritePage(slot::USER_LOCAL)
                if !self.layout.model.has_userlocal() =>
            {
                return false;
            }
            Form::Plain { .. } => {
                let result = self.values.result(word);
                self.plain(guest);
                self.values.set(result);
            }
            // Of `$k0` or `$k1`.
            Form::Load { keeps } => {
                let Some(reach) = self.reach(index, word).filter(|_| !keeps) else { return false };
                let word = self.access(word, reach);
                self.put(with(word, T, K0));
                self.store_kept(rt);
                self.wrote(1 << rt);
            }
            Form::Store => {
                let Some(reach) = self.reach(index, word) else { return false };
                let word = self.access(word, reach);
                self.page();
                self.put(asm::ld(K1, kept(rt), K1));
                self.k1 = Scratch::Unknown;
                self.put(with(word, T, K1));
            }
            Form::Linked => return self.load_linked(word, index),
            Form::Conditional => return self.store_conditional(word, index),
            Form::ReadPage(place, wide) => {
                let low = if self.source.endian == Endian::Big { 4 } else { 0 };
                let (load, place): (fn(u32, u16, u32) -> u32, _) =
                    if wide { (asm::ld, place) } else { (asm::lw, place + low) };
                if is_kept(rt) {
                    self.page();
                    self.load_place(load, K0, place);
                    self.store_kept(rt);
                } else if rt != ZERO {
                    self.load_place(load, rt, place);
                }
                self.wrote(1 << rt);
            }
            Form::WritePage(place) => {
                let from = if is_kept(rt) { K0 } else { rt };
                if is_kept(rt) {
                    self.load_kept(rt);
                }
                self.page();
                self.put(asm::sd(from, place, K1));
            }
            Form::Quick(Quick::Probe) => self.probe(index),
            Form::Quick(Quick::WriteRandom) => self.write_random(index),
            Form::Quick(Quick::WriteIndexed) => self.write_indexed(index),
            Form::WriteLo(place) => self.write_lo(rt, place),
            Form::WriteIndex if !is_kept(rt) => return self.write_index(rt, index),
            Form::WriteHi if !is_kept(rt) => self.write_hi(rt, index),
            Form::WriteStatus => self.write_status(rt, index),
            Form::Disable if !is_kept(rt) => self.set_enable(rt, index, false),
            Form::Enable if !is_kept(rt) => {
                self.set_enable(rt, index, true);
                self.look_at_pending(index);
            }
            _ => return false,
        }
        true
    }

    /// As it is, with scratch registers in place of those in the VCPU page.
    fn plain(&mut self, guest: Guest) {
        let Form::Plain { reads, writes } = guest.form else { return };
        let (word, written) = (guest.word, guest.writes());
        let mut new = word;
        let mut scratch = [None; 2];
        for at in reads.positions() {
            let number = field(word, at);
            if !is_kept(number) {
                continue;
            }
            let real = match scratch {
                [Some(first), _] if first == number => K0,
                [None, _] => {
                    self.load_kept(number);
                    scratch[0] = Some(number);
                    K0
                }
                [_, None] => {
                    self.put(asm::ld(K1, kept(number), K1));
                    self.k1 = Scratch::Unknown;
                    scratch[1] = Some(number);
                    K1
                }
                _ => K1,
            };
            new = with(new, at, real);
        }
        let result = writes.positions().map(|at| field(word, at)).find(|&n| is_kept(n));
        let Some(result) = result else {
            self.put(new);
            self.wrote(written);
            return;
        };
        // A destination that is a source too is where that source is.
        let both = reads.positions().find(|&at| writes.positions().any(|w| w == at));
        match both.map(|at| field(new, at)) {
            Some(K1) => {
                self.put(new);
                self.page_address(K0);
                self.alias = Held::NONE;
                self.put(asm::sd(K1, kept(result), K0));
            }
            both => {
                if both.is_none() {
                    self.alias = Held::NONE;
                    for at in writes.positions() {
                        new = with(new, at, K0);
                    }
                }
                self.put(new);
                self.store_kept(result);
            }
        }
        self.wrote(written);
    }

    /// Register `rd` becomes `value`; only the last word writes it.
    pub(super) fn constant(&mut self, rd: u32, value: u64) {
        let half = |n: u32| (value >> (16 * n)) as u16;
        let last = if value as i32 as u64 == value {
            if half(0) == 0 {
                asm::lui(rd, half(1))
            } else {
                self.put(asm::lui(K0, half(1)));
                asm::ori(rd, K0, half(0))
            }
        } else {
            self.put(asm::lui(K0, half(3)));
            self.put(asm::ori(K0, K0, half(2)));
            self.put(asm::dsll(K0, K0, 16));
            self.put(asm::ori(K0, K0, half(1)));
            self.put(asm::dsll(K0, K0, 16));
            asm::ori(rd, K0, half(0))
        };
        self.alias = Held::NONE;
        self.put(last);
        self.wrote(1 << rd);
    }
}

/// The field of a link.
pub(super) const LINK: u32 = D;
