//! From guest code to a block: one pass, into a draft of fixed size.
//!
//! What is emitted for a guest instruction changes scratch registers first, and one thing that the guest
//! can see last; where that can't be, its first such word begins a new [`Point`] that says so.

use super::asm::{self, BREAK, D, K0, K1, NOP, T, ZERO, field, with};
use super::form::{Form, Quick, form_of, reads_and_writes};
use super::layout::{Layout, slot};
use super::reach::{Reach, Seen};
use super::stand::{Kind, Point};
use super::values::Values;
use crate::emulate::Data;
use crate::endian::Endian;
use crate::mem::Page;
use abi::PAGE_SIZE;
use core::cell::Cell;

/// Guest instructions in a block, at most.
pub const MAX_INSNS: usize = 64;
/// Words of a block, at most.
pub const MAX_WORDS: usize = 1024;
/// No instruction is begun behind this word: what one takes, and the ends of all exits, find room.
const LAST_START: usize = MAX_WORDS - 256;
/// Points of a block, at most.
pub const MAX_POINTS: usize = 272;
/// Branches out of a block, at most.
const MAX_WAYS: usize = 64;
/// What one instruction takes of them, at most.
const WAYS_OF_ONE: usize = 4;
/// Ways out of a block that can be chained, at most.
pub const MAX_EXITS: usize = MAX_WAYS + 1;
/// Instructions that could be emitted between two that can't, at most, for all of them to be interpreted.
const STRETCH: usize = 12;
/// That an exit belongs to no branch.
pub const NO_BRANCH: u16 = u16::MAX;

/// What a block is made from.
pub struct Source<'a> {
    /// Where it begins.
    pub pc: u64,
    /// The page that this is in.
    pub page: Page,
    /// The guest's byte order.
    pub endian: Endian,
    /// The guest's registers, as far as they are known: they tell what its accesses will be.
    pub gpr: &'a [u64; 32],
}

/// A way out of a block that can be chained.
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    /// The word that is a `break`, or a jump once chained.
    pub word: u16,
    /// The branch that leads there, if one does.
    pub branch: u16,
    /// Where the guest goes.
    pub target: u64,
}

/// Where a branch to a place behind the block's end is to lead.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// Out, to this address.
    Exit(u64),
    /// Out, to this address, behind the delay slot of the branch that is this instruction.
    Slotted(u64, u8),
    /// To the runtime, the guest standing so.
    Stop(Kind, u8),
    /// To the runtime, which executes the `tlbp` that this instruction is.
    Probe(u8),
}

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

/// A block being made: without its place yet.
pub struct Draft {
    pub words: [u32; MAX_WORDS],
    pub len: usize,
    pub points: [Point; MAX_POINTS],
    pub point_count: usize,
    pub exits: [Exit; MAX_EXITS],
    pub exit_count: usize,
    ways: [(u16, Way); MAX_WAYS],
    way_count: usize,
    /// Accesses to each of [`super::reach::CANDIDATES`], as far as there is reason to think so.
    pub accesses: Cell<[u32; 2]>,
}

impl Draft {
    pub const fn new() -> Self {
        let point = Point { word: 0, insn: 0, kind: Kind::Plain, clean: false, aside: false };
        Self {
            words: [0; MAX_WORDS],
            len: 0,
            points: [point; MAX_POINTS],
            point_count: 0,
            exits: [Exit { word: 0, branch: NO_BRANCH, target: 0 }; MAX_EXITS],
            exit_count: 0,
            ways: [(0, Way::Exit(0)); MAX_WAYS],
            way_count: 0,
            accesses: Cell::new([0; 2]),
        }
    }
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
    pub(super) layout: Layout,
    pub(super) source: &'a Source<'a>,
    pub(super) seen: &'a dyn Fn(u64) -> Seen,
    /// `$k0` holds the alias of this register, for an access that reaches so far.
    pub(super) alias: Option<(u32, Reach)>,
    pub(super) k1: Scratch,
    /// The base register of the last load-linked, unchanged, and what that reaches.
    pub(super) linked: Option<(u32, Reach)>,
    /// Branches whose slot comes behind them, on either way.
    pub(super) slotted: usize,
    /// What registers hold.
    pub(super) values: Values,
}

/// Makes a block; how many guest instructions it is about. `seen` says what is known of the accesses of
/// the instruction at an address.
pub fn build(
    draft: &mut Draft,
    layout: Layout,
    source: &Source<'_>,
    seen: &dyn Fn(u64) -> Seen,
) -> usize {
    (draft.len, draft.point_count, draft.exit_count, draft.way_count) = (0, 0, 0, 0);
    draft.accesses.set([0; 2]);
    let (alias, k1) = (None, Scratch::Main);
    let values = Values::new(source.gpr);
    let (linked, slotted) = (None, 0);
    let mut builder = Builder { draft, layout, source, seen, alias, k1, linked, slotted, values };
    let insns = builder.body();
    builder.ends();
    insns
}

impl Builder<'_> {
    fn body(&mut self) -> usize {
        let mut index = 0;
        loop {
            let full = self.draft.len > LAST_START || self.draft.way_count > MAX_WAYS - WAYS_OF_ONE;
            if index >= MAX_INSNS - 1 || full || !self.has(index) {
                self.point(Kind::Plain, index);
                self.restore();
                self.exit(self.pc(index));
                self.put(NOP);
                return index;
            }
            let word = self.word(index);
            match form_of(word) {
                Form::Nothing => index += 1,
                form @ (Form::Branch { .. } | Form::Jump { .. } | Form::JumpRegister) => {
                    let goes_on = self.control(form, word, index);
                    index += 2;
                    if !goes_on {
                        return index;
                    }
                }
                form => {
                    self.point(Kind::Plain, index);
                    if form != Form::Ends && self.simple(form, word, index) {
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
    }

    /// The instructions, from `index` on, that are handed to the interpreter together: those between two of them are interpreted
    /// for less than it takes to come back and leave again.
    fn stretch(&self, index: usize) -> Stretch {
        let (mut count, mut at, mut quick) = (1, index, true);
        loop {
            let is_other = match form_of(self.word(at)) {
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
                    self.push(Kind::Link, self.draft.exit_count as u8, false, true);
                    self.exit(target);
                    self.draft.exits[self.draft.exit_count - 1].branch = from;
                    self.put(NOP);
                }
                Way::Slotted(target, insn) => {
                    (self.alias, self.k1) = (None, Scratch::Main);
                    self.push(Kind::WithSlot, insn, false, true);
                    let slot = usize::from(insn) + 1;
                    let word = self.word(slot);
                    self.simple(form_of(word), word, slot);
                    self.push(Kind::Link, self.draft.exit_count as u8, false, true);
                    self.restore();
                    self.exit(target);
                    self.put(NOP);
                }
                Way::Stop(kind, insn) => {
                    self.push(kind, insn, false, true);
                    self.put(BREAK);
                }
                Way::Probe(insn) => {
                    self.push(Kind::Plain, insn, false, true);
                    self.put(asm::numbered_break(Quick::Probe.number()));
                }
            }
        }
    }

    /// Address of the block's instruction `index`.
    pub(super) const fn pc(&self, index: usize) -> u64 {
        self.source.pc.wrapping_add(4 * index as u64)
    }

    /// Whether instruction `index` is in the page.
    pub(super) const fn has(&self, index: usize) -> bool {
        self.source.pc % PAGE_SIZE + 4 * (index as u64) < PAGE_SIZE
    }

    /// The word of instruction `index`, which the page has.
    pub(super) fn word(&self, index: usize) -> u32 {
        u32::load(self.source.page, self.pc(index) % PAGE_SIZE, self.source.endian)
    }

    pub(super) fn put(&mut self, word: u32) {
        if let Some(place) = self.draft.words.get_mut(self.draft.len) {
            *place = word;
            self.draft.len += 1;
        }
    }

    /// From here on the guest stands so; `clean`: control may come here with scratch registers as they are between blocks.
    pub(super) fn push(&mut self, kind: Kind, insn: u8, clean: bool, aside: bool) {
        let word = self.draft.len as u16;
        if let Some(place) = self.draft.points.get_mut(self.draft.point_count) {
            *place = Point { word, insn, kind, clean, aside };
            self.draft.point_count += 1;
        }
    }

    /// From here on the guest stands at instruction `index`.
    pub(super) fn point(&mut self, kind: Kind, index: usize) {
        let clean = self.alias.is_none() && self.k1 == Scratch::Main;
        self.push(kind, index as u8, clean, false);
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

    /// To the runtime, which goes on behind what it has had interpreted.
    fn hand_over(&mut self, word: u32) {
        self.put(word);
        (self.alias, self.k1, self.linked) = (None, Scratch::Main, None);
        self.values.doubt();
    }

    /// To the runtime.
    pub(super) fn stop(&mut self) {
        self.restore();
        self.alias = None;
        self.put(BREAK);
    }

    /// `$k1` is the address of the VCPU page.
    pub(super) fn page(&mut self) {
        if self.k1 != Scratch::Page {
            self.put(asm::lui(K1, (self.layout.page >> 16) as u16));
            self.k1 = Scratch::Page;
        }
    }

    /// `$k1` is the main constant.
    pub(super) fn restore(&mut self) {
        if self.k1 != Scratch::Main {
            self.page();
            self.put(asm::ld(K1, slot::MAIN, K1));
            self.k1 = Scratch::Main;
        }
    }

    /// Loads a doubleword of the VCPU page into `rt`, by way of `$k0` unless `$k1` is its address.
    pub(super) fn load_place(&mut self, load: fn(u32, u16, u32) -> u32, rt: u32, place: u16) {
        if self.k1 == Scratch::Page {
            self.put(load(rt, place, K1));
        } else {
            self.alias = None;
            self.put(asm::lui(K0, (self.layout.page >> 16) as u16));
            self.put(load(rt, place, K0));
        }
    }

    /// Loads a register whose value is in the VCPU page into `$k0`.
    pub(super) fn load_kept(&mut self, number: u32) {
        self.alias = None;
        self.page();
        self.put(asm::ld(K0, kept(number), K1));
    }

    /// Stores `$k0` to the register `number` in the VCPU page.
    pub(super) fn store_kept(&mut self, number: u32) {
        self.alias = None;
        self.page();
        self.put(asm::sd(K0, kept(number), K1));
    }

    /// Registers of these numbers (bits) have been written.
    pub(super) fn wrote(&mut self, registers: u32) {
        self.values.forget(registers);
        let wrote = |&(base, _): &(u32, Reach)| registers >> base & 1 != 0;
        self.alias = self.alias.filter(|alias| !wrote(alias));
        self.linked = self.linked.filter(|linked| !wrote(linked));
    }

    /// An instruction without control flow; whether it could be emitted (else nothing has been).
    pub(super) fn simple(&mut self, form: Form, word: u32, index: usize) -> bool {
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
                self.plain(form, word);
                self.values.set(result);
            }
            Form::Load { keeps } => {
                let Some(reach) = self.reach(index, word).filter(|_| !keeps || !is_kept(rt)) else {
                    return false;
                };
                let word = self.access(word, reach);
                if is_kept(rt) {
                    self.put(with(word, T, K0));
                    self.store_kept(rt);
                } else {
                    self.put(word);
                }
                self.wrote(1 << rt);
            }
            Form::Store => {
                let Some(reach) = self.reach(index, word) else { return false };
                let mut word = self.access(word, reach);
                if is_kept(rt) {
                    self.page();
                    self.put(asm::ld(K1, kept(rt), K1));
                    self.k1 = Scratch::Unknown;
                    word = with(word, T, K1);
                }
                self.put(word);
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
            Form::WriteLo(place) => self.write_lo(rt, place),
            Form::WriteIndex if !is_kept(rt) => return self.write_index(rt, index),
            Form::WriteHi if !is_kept(rt) => self.write_hi(rt, index),
            Form::WriteStatus if !is_kept(rt) => self.write_status(rt, index),
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
    fn plain(&mut self, form: Form, word: u32) {
        let Form::Plain { reads, writes } = form else { return };
        let (read, written) = reads_and_writes(form, word);
        if (read | written) & (1 << K0 | 1 << K1) == 0 {
            self.put(word);
            self.wrote(written);
            return;
        }
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
                self.put(asm::lui(K0, (self.layout.page >> 16) as u16));
                self.alias = None;
                self.put(asm::sd(K1, kept(result), K0));
            }
            both => {
                if both.is_none() {
                    self.alias = None;
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
            self.put(asm::dsll16(K0, K0));
            self.put(asm::ori(K0, K0, half(1)));
            self.put(asm::dsll16(K0, K0));
            asm::ori(rd, K0, half(0))
        };
        self.alias = None;
        self.put(last);
        self.wrote(1 << rd);
    }
}

/// The field of a link.
pub(super) const LINK: u32 = D;
