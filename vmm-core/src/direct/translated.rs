//! Guest kernel mode in emitted code ([`crate::translate`]): entering it, and what its exceptions mean.
//!
//! While emitted code runs, the VCPU's program counter is an address of the code, its `$k0` and `$k1` are
//! scratch, and the page has the guest's ([`Own`]); before anybody looks it is *settled*: an ordinary VCPU, at a guest
//! boundary. Where it stood in the code is kept, for the case that it goes on from there ([`Next`]).

mod device;
mod left;

use super::{After, Direct, Entry, LINKED_BURST, LOOK, Policy, RealCpu};
use crate::cpu::{Access, Cause, CpuModel, Status, Vcpu, presence};
use crate::direct::fill::Fill;
use crate::direct::is_supervisor;
use crate::interp::{Engine, HOT_HEAP};
use crate::translate::{
    BlockId, Class, Code, CodeCache, Form, Key, LINK_REACH, Layout, Own, Quick, Source, Values,
    form_of, is_mapped,
};
use abi::{Gpa, PAGE_SIZE};
use alloc::boxed::Box;

/// Words of code that a VCPU's cache can have: the most, and less where there is no heap for that. A stock kernel's boot takes
/// half a million.
pub const CODE_WORDS: [usize; 3] = [1 << 20, 1 << 19, 1 << 18];

/// Words of code of a VCPU that keeps so many decoded pages, of `most`: what a small VM executes is small too.
pub(crate) const fn code_words(pages: usize, most: usize) -> usize {
    let [large, _, small] = CODE_WORDS;
    let words = if pages < 512 { small } else { large };
    if words < most { words } else { most }
}

/// Bytes of heap that translation takes with so many words: the code, some ten bytes a word to know what it means, the jump
/// table, and places that are counted, watched and filtered.
pub(crate) const fn heap(words: usize) -> usize {
    words * 15 + (7 << 18) + HOT_HEAP + presence::PLACES
}

/// Whether a VCPU of this model may have kernels translated whose addresses are real ones.
pub(crate) fn can_translate_linked(model: &CpuModel) -> bool {
    Layout::of_identity(*model).is_some()
}

/// Rounds of looking for a block, while others go for it.
const ROUNDS: u32 = 4;
/// Instructions at a vector, all of them emitted and none a jump, that are worth a block there.
const VECTOR: u64 = 24;
/// Bytes of code behind a load-linked in which its store-conditional mostly is.
const LINK_WINDOW: u64 = 4 * LINK_REACH as u64;
/// Times in a row that a link is given up when control has left them.
const GIVEN_UP: u32 = 256;
/// Addresses of code that are known to be beyond a store-conditional.
const BEYOND: usize = 16;
/// Addresses whose code is found at once.
const BEGINS: usize = 128;
/// `$k0`
const K0: usize = 26;

/// What of Status tells which addresses there are.
const SEGMENTS: Status = Status::KX.union(Status::SX).union(Status::UX);

/// What translation has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Translations {
    /// Blocks made.
    pub made: u64,
    /// Exits chained.
    pub chained: u64,
    /// Entries of the jump table filled.
    pub jumps: u64,
    /// Instructions handed to the interpreter.
    pub interpreted: u64,
    /// Instructions about the TLB executed without it.
    pub quick: u64,
    /// Writes of the TLB that emitted code has posted.
    pub posted: u64,
    /// Of the interpreter's, those after which emitted code went on where it was.
    pub resumed: u64,
    /// Sites whose class was not what had been guessed.
    pub guesses: u64,
    /// Pages whose code went because they were written.
    pub written: u64,
    /// How often another class became the main one.
    pub mains: u64,
}

impl Translations {
    /// Each with its name.
    pub fn each(&self, f: &mut dyn FnMut(&'static str, u64)) {
        f("blocks", self.made);
        f("chained", self.chained);
        f("jumps", self.jumps);
        f("interpreted", self.interpreted);
        f("resumed", self.resumed);
        f("quick", self.quick);
        f("posted", self.posted);
        f("wrong guesses", self.guesses);
        f("code written", self.written);
        f("main classes", self.mains);
    }
}

/// Where the code of an address begins that all address spaces have in common: found again without looking for the block, as long
/// as none is dropped. (What is mapped may come to mean something else.)
#[derive(Clone, Copy, Debug)]
struct Begin {
    pc: u64,
    dropped: u64,
    address: u64,
}

impl Begin {
    /// Of no address: not aligned.
    const NOWHERE: Self = Self { pc: 1, dropped: 0, address: 0 };

    const fn place(pc: u64) -> usize {
        (pc >> 2 ^ pc >> 7) as usize % BEGINS
    }
}

/// Where emitted code goes on if the VCPU still is as it was then.
#[derive(Debug)]
struct Next {
    address: u64,
    /// The real `$k0` and `$k1`.
    scratch: [u64; 2],
    pc: u64,
    retired: u64,
    dropped: u64,
    /// Cause: a scratch register may have what was read of it.
    cause: Cause,
}

/// A VCPU's translated code.
pub(super) struct Translation {
    cache: CodeCache,
    own: Own,
    segments: Status,
    next: Option<Next>,
    begins: [Begin; BEGINS],
    /// Addresses of code behind which there is no store-conditional before the next load-linked, each with how many blocks had been
    /// dropped when that was found.
    beyond: [(u64, u64); BEYOND],
    /// Where a link of the interpreter's was given up last, and how often in a row.
    given_up: (u64, u32),
    /// Blocks that had been dropped when emitted code was left last.
    since: u64,
    pub counters: Translations,
}

impl core::fmt::Debug for Translation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Translation").field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl Translation {
    /// Of a VCPU that has none yet, with at most so many words of code, of a kernel whose addresses are real ones or of another;
    /// `None` if there is no memory for it.
    pub fn new(vcpu: &mut Vcpu, most: usize, identity: bool) -> Option<Box<Self>> {
        let layout = if identity {
            Layout::of_identity(vcpu.model)?
        } else {
            Layout {
                page: 0xffff_ffff_c002_0000,
                table: 0xffff_ffff_c010_0000,
                code: 0xffff_ffff_c020_0000,
                // A stock kernel's; that of others is found out.
                main: Class::Cached,
                identity: false,
                model: vcpu.model,
            }
        };
        if !vcpu.code.begin_watch() || !vcpu.tlb.keep_presence() {
            return None;
        }
        let words = code_words(vcpu.code.pages(), most);
        let own = Own::new(layout, words, vcpu.endian)?;
        let cache = CodeCache::new(layout, words)?;
        let (segments, counters) = (Status::empty(), Translations::default());
        let (next, given_up, since) = (None, (0, 0), 0);
        let begins = [Begin::NOWHERE; BEGINS];
        let beyond = [(0, 0); BEYOND];
        Some(Box::new(Self {
            cache,
            own,
            segments,
            next,
            begins,
            beyond,
            given_up,
            since,
            counters,
        }))
    }

    /// What guest addresses in mapped segments mean has changed.
    pub fn forget_mapped(&mut self) {
        self.cache.forget_mapped(&mut Code { own: &self.own, hot: None });
    }

    /// The place to go on from, if the VCPU is as it was when it was noted.
    fn take_next(&mut self, vcpu: &Vcpu) -> Option<Next> {
        let dropped = self.cache.dropped();
        self.next.take().filter(|next| {
            next.pc == vcpu.pc
                && next.retired == vcpu.retired
                && next.dropped == dropped
                && next.cause == vcpu.cp0.cause
        })
    }

    fn note_next(&mut self, vcpu: &Vcpu, address: u64, scratch: [u64; 2]) {
        self.next = Some(self.next_at(vcpu, address, scratch));
    }

    fn next_at(&self, vcpu: &Vcpu, address: u64, scratch: [u64; 2]) -> Next {
        let (pc, retired, dropped) = (vcpu.pc, vcpu.retired, self.cache.dropped());
        let cause = vcpu.cp0.cause;
        Next { address, scratch, pc, retired, dropped, cause }
    }

    /// Where the code of an address begins, if that is known still.
    fn known_begin(&self, pc: u64) -> Option<u64> {
        let begin = &self.begins[Begin::place(pc)];
        (begin.pc == pc && begin.dropped == self.cache.dropped()).then_some(begin.address)
    }

    fn note_begin(&mut self, pc: u64, address: u64) {
        // (Of those of a kernel whose addresses are real ones no mapped one is private, and none changes its meaning unseen.)
        if !is_mapped(pc) || self.cache.layout().identity {
            let dropped = self.cache.dropped();
            self.begins[Begin::place(pc)] = Begin { pc, dropped, address };
        }
    }
}

/// How emitted code is gone on with.
enum Way {
    /// At once, as it is.
    Again,
    /// The VCPU is settled.
    Settled(After),
}

fn segments(vcpu: &Vcpu) -> Status {
    vcpu.cp0.status & SEGMENTS
}

/// A VCPU in emitted code, or about to be.
struct Run<'r, 'a, R, const BIG: bool> {
    engine: &'r mut Engine<'a, BIG>,
    direct: &'r mut Direct,
    t: &'r mut Translation,
    vcpu: &'r mut Vcpu,
    cpu: &'r mut R,
    policy: Policy,
}

impl<const BIG: bool> Engine<'_, BIG> {
    /// Runs what comes next in emitted code, if there is some, or is to be; `None`: it is the interpreter's.
    pub(super) fn translated<R: RealCpu>(
        &mut self,
        direct: &mut Direct,
        vcpu: &mut Vcpu,
        cpu: &mut R,
        policy: Policy,
        until: u64,
    ) -> Option<After> {
        let mut t = direct.translation.take()?;
        let mut run = Run { engine: self, direct, t: &mut t, vcpu, cpu, policy };
        let after = if run.vcpu.link.is_some() { Some(run.use_link()) } else { run.run(until) };
        // (It has none now: there is nothing to drop.)
        core::mem::forget(direct.translation.replace(t));
        after
    }
}

impl<R: RealCpu, const BIG: bool> Run<'_, '_, R, BIG> {
    fn run(&mut self, until: u64) -> Option<After> {
        let mut next = self.find()?;
        loop {
            self.lend(&next);
            match self.run_lent(until) {
                After::On if self.direct.dirty || self.vcpu.attention => return Some(After::On),
                After::On if self.vcpu.link.is_some() || !self.policy.may_translate(self.vcpu) => {
                    return Some(After::On);
                }
                After::On => next = self.find()?,
                exit @ After::Exit(_) => return Some(exit),
            }
        }
    }

    /// The real CPU is to go on there.
    fn lend(&mut self, next: &Next) {
        self.t.own.lend(self.vcpu);
        (self.vcpu.gpr[K0], self.vcpu.gpr[K0 + 1]) = (next.scratch[0], next.scratch[1]);
        self.vcpu.pc = next.address;
    }

    /// Runs emitted code until the VCPU is settled.
    fn run_lent(&mut self, until: u64) -> After {
        loop {
            let Self { engine, direct, t, vcpu, cpu, .. } = &mut *self;
            let asid = direct.spacing.real(&direct.l2, vcpu.asid(), *cpu);
            let common = direct.spacing.common(&direct.l2);
            let status = Entry::UX | Entry::SX;
            let until = until.min(direct.deadline);
            let entry = Entry { user: false, status, asid, common, user_local: None, until };
            direct.counters.entries += 1;
            direct.dirty |= direct.counters.entries.is_multiple_of(LOOK);
            let Direct { l2, pages, counters, .. } = &mut **direct;
            let (mem, code, count) = (engine.mem, engine.code, &mut counters.filled);
            let others = engine.others;
            let mut fill = Fill { mem, code, others, l2, pages, asid, common, count };
            let own = &t.own;
            let mut answer = |cpu: &mut R, vcpu: &mut Vcpu, va, access| {
                fill.answer_translated(own, cpu, vcpu, va, access)
            };
            let trapped = cpu.enter(vcpu, l2, &entry, &mut answer);
            vcpu.in_slot = false;
            let code = trapped.cause >> 2 & 31;
            if own.has_posts() {
                t.counters.posted += t.own.take_posts(vcpu);
                self.follow();
                // The TLB may have what was missed, or let it be written.
                if matches!(code, 1..=3) {
                    continue;
                }
            } else if code == 1 && answer(cpu, vcpu, trapped.bad_vaddr, Access::Write) {
                // A store to a page that may be written, but could not until now.
                continue;
            }
            let way = match self.device(trapped, until) {
                Some(way) => way,
                None => self.left(trapped),
            };
            match way {
                Way::Again => {}
                Way::Settled(after) => return after,
            }
        }
    }

    /// Interprets until a link of the interpreter's is used: the real CPU does not know it.
    fn use_link(&mut self) -> After {
        self.direct.dirty = true;
        let start = self.vcpu.pc;
        let before = if self.t.given_up.0 == start { self.t.given_up.1 } else { 0 };
        let patient = before >= GIVEN_UP;
        if patient {
            self.t.given_up = (0, 0);
        }
        for _ in 0..LINKED_BURST {
            if self.vcpu.link.is_none()
                || self.vcpu.attention
                || !self.policy.may_translate(self.vcpu)
            {
                return After::On;
            }
            // A kernel that finds something else to do than to store does not come back to it. (Were it given up every time, one
            // that does come back would never get through.)
            if !patient && self.vcpu.pc.wrapping_sub(start) >= LINK_WINDOW {
                self.t.given_up = (start, before + 1);
                // Where it goes then may be worth a block.
                if let Some(watch) = self.engine.code.watch() {
                    watch.hot.reached(self.vcpu.pc);
                }
                break;
            }
            let after = match self.steps(1) {
                After::On if self.vcpu.in_slot => self.steps(1),
                after => after,
            };
            if let exit @ After::Exit(_) = after {
                return exit;
            }
        }
        // It may be lost at any time.
        self.vcpu.link = None;
        After::On
    }

    /// Where to enter.
    fn find(&mut self) -> Option<Next> {
        // A short vector, mostly.
        if self.policy.kernel
            && self.engine.code.watch().is_some_and(|watch| watch.hot.is_never(self.vcpu.pc))
        {
            return None;
        }
        if self.engine.has_posts(self.vcpu) {
            self.engine.read_posts(self.vcpu);
        }
        for _ in 0..ROUNDS {
            self.drop_written();
            if self.t.segments != segments(self.vcpu) {
                self.t.segments = segments(self.vcpu);
                self.t.own.clear_jumps();
                self.direct.spacing.forget_all();
                self.t.next = None;
                self.t.begins = [Begin::NOWHERE; BEGINS];
            }
            let next = match self.t.take_next(self.vcpu) {
                Some(next) => next,
                None => {
                    let pc = self.vcpu.pc;
                    let address = match self.t.known_begin(pc) {
                        Some(address) => address,
                        None => {
                            let block = self.block(None)?;
                            let address = self.t.cache.entry(block);
                            self.t.note_begin(pc, address);
                            address
                        }
                    };
                    let scratch = [0, self.t.cache.layout().between()];
                    self.t.next_at(self.vcpu, address, scratch)
                }
            };
            self.follow();
            if next.dropped == self.t.cache.dropped() {
                return Some(next);
            }
        }
        None
    }

    /// Forgets what has become void.
    fn follow(&mut self) {
        let Self { direct, vcpu, cpu, t, .. } = &mut *self;
        if direct.follow_notes(vcpu, |tag| cpu.forget_pair(tag)) {
            t.forget_mapped();
        }
        self.drop_written();
    }

    /// Drops the code of pages that have been written.
    fn drop_written(&mut self) {
        let Some(watch) = self.engine.code.watch() else { return };
        while let Some(page) = watch.pages.take() {
            let code = &mut Code { own: &self.t.own, hot: Some(&watch.hot) };
            self.t.counters.written += u64::from(self.t.cache.invalidate(code, number(page)));
        }
    }

    /// The block for the guest's code at the VCPU's program counter, found or made. `slot`: where the delay slot is that is
    /// executed before control comes there.
    fn block(&mut self, slot: Option<u64>) -> Option<BlockId> {
        let found = self.find_block(slot);
        if found.is_none()
            && let Some(watch) = self.engine.code.watch()
            && watch.hot.is_hot(self.vcpu.pc)
        {
            // The interpreter is not to come back here at once.
            watch.hot.cool(self.vcpu.pc);
        }
        found
    }

    fn find_block(&mut self, slot: Option<u64>) -> Option<BlockId> {
        let Self { engine, t, vcpu, policy, .. } = &mut *self;
        let pc = vcpu.pc;
        if pc & 3 != 0 {
            return None;
        }
        let (page, gpa) = engine.code_page(vcpu)?;
        let key = Key { pc, page: number(page), flags: 0 };
        if let Some(block) = t.cache.find(key) {
            return Some(block);
        }
        let watch = engine.code.watch()?;
        // (What runs directly is counted here alone.)
        if policy.kernel {
            watch.hot.reached(pc);
        }
        if !watch.hot.is_hot(pc) || policy.kernel && !is_supervisor(pc) {
            return None;
        }
        // A vector mostly has a few instructions, many of them privileged ones, and ends in a jump: whoever has come into
        // the monitor with the exception interprets them for less than it takes to enter and leave once more.
        // (Not if that leads on in emitted code.)
        let worth = if pc == vcpu.vector && !policy.kernel { VECTOR } else { 1 };
        let left = (PAGE_SIZE - pc % PAGE_SIZE) / 4;
        let is_emitted = |n| {
            let form = form_of(Engine::<BIG>::word(page, pc + 4 * n));
            let jumps = worth > 1 && matches!(form, Form::Jump { .. } | Form::JumpRegister);
            let returns = form == Form::Quick(Quick::Return);
            !jumps && !returns && !matches!(form, Form::Interpret | Form::Ends)
        };
        let unfit = left < worth || !(0..worth).all(is_emitted);
        // Code in a private page would be another's in another address space; that of a global one is made for its entry.
        let entry = is_mapped(pc).then(|| vcpu.tlb.lookup(pc, vcpu.asid()));
        let private =
            entry.is_some_and(|entry| entry.is_none_or(|entry| !vcpu.tlb.entry(entry).global));
        if unfit || private {
            watch.hot.never(pc);
            return None;
        }
        if let Some(entry) = entry.flatten() {
            vcpu.tlb.note_copied(entry);
        }
        watch.pages.watch(page, gpa);
        let mut source = Source { pc, page, next: None, endian: vcpu.endian };
        if let Some((next, gpa)) = source.beyond().and_then(|at| engine.code_page_at(vcpu, at)) {
            engine.code.watch()?.pages.watch(next, gpa);
            source.next = Some((next, number(next)));
        }
        // (The guest's registers only tell what its accesses will be.)
        let mut values = Values::new(vcpu.gprs());
        if let Some(slot) = slot.and_then(|slot| engine.word_at(vcpu, slot)) {
            values.execute(slot);
        }
        if let Some(main) = t.cache.better_main() {
            t.cache.set_main(&mut Code { own: &t.own, hot: None }, main);
            t.own.set_main(main);
            t.counters.mains += 1;
        }
        // (What has to go is as hot as it was: it is made anew when it is wanted again.)
        let code = &mut Code { own: &t.own, hot: None };
        t.counters.made += 1;
        Some(t.cache.translate(code, key, source, &mut values))
    }
}

/// What the code cache knows a page by: where it lies in the machine, since the guest has several addresses for
/// one page.
fn number(page: crate::mem::Page) -> Gpa {
    Gpa(page.base().as_ptr().addr() as u64)
}
