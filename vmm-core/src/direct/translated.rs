//! Guest kernel mode in emitted code ([`crate::translate`]): entering it, and what its exceptions mean.
//!
//! While emitted code runs, the VCPU's program counter is an address of the code, its `$k0` and `$k1` are
//! scratch, and the page has the guest's ([`Own`]); before anybody looks it is *settled*: an ordinary VCPU, at a guest
//! boundary. Where it stood in the code is kept, for the case that it goes on from there ([`Next`]).

use super::{After, Direct, Entry, Exit, LOOK, RealCpu, Trapped};
use crate::cpu::{Access, Mode, Status, Vcpu};
use crate::direct::fill::Fill;
use crate::interp::{self, Engine};
use crate::isa::{Op, decode};
use crate::translate::{
    BlockId, Class, Code, CodeCache, Form, Key, Kind, Layout, Own, Resume, Source, Stand,
    after_slot, form, guest_address, is_mapped,
};
use abi::Gpa;
use alloc::boxed::Box;

/// Words of code that a VCPU has.
const WORDS: usize = 1 << 17;
/// Bytes of heap that translation takes: the code, some twenty bytes a word to know what it means, and places that are counted
/// and watched.
pub(crate) const HEAP: usize = WORDS * 26 + (1 << 19);
/// Rounds of looking for a block, while others go for it.
const ROUNDS: u32 = 4;
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
    /// Of them, those after which emitted code went on where it was.
    pub resumed: u64,
    /// Sites whose class was not what had been guessed.
    pub guesses: u64,
    /// Pages whose code went because they were written.
    pub written: u64,
}

impl Translations {
    /// Each with its name.
    pub fn each(&self, f: &mut dyn FnMut(&'static str, u64)) {
        f("blocks", self.made);
        f("chained", self.chained);
        f("jumps", self.jumps);
        f("interpreted", self.interpreted);
        f("resumed", self.resumed);
        f("wrong guesses", self.guesses);
        f("code written", self.written);
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
}

/// A VCPU's translated code.
pub(super) struct Translation {
    cache: CodeCache,
    own: Own,
    segments: Status,
    next: Option<Next>,
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
    /// Of a VCPU that has none yet; `None` if there is no memory for it.
    pub fn new(vcpu: &mut Vcpu) -> Option<Box<Self>> {
        if !vcpu.code.begin_watch() {
            return None;
        }
        let layout = Layout {
            page: 0xffff_ffff_c001_0000,
            table: 0xffff_ffff_c002_0000,
            code: 0xffff_ffff_c010_0000,
            main: Class::Cached,
            user_local: vcpu.model.has_userlocal(),
            xkseg: Layout::has_xkseg(vcpu.model.segbits),
        };
        let own = Own::new(layout, WORDS, vcpu.endian)?;
        let cache = CodeCache::new(layout, WORDS)?;
        let (segments, counters) = (Status::empty(), Translations::default());
        Some(Box::new(Self { cache, own, segments, next: None, since: 0, counters }))
    }

    /// What guest addresses in mapped segments mean has changed.
    pub fn forget_mapped(&mut self) {
        self.cache.forget_mapped(&mut Code { own: &self.own, hot: None });
    }

    /// The place to go on from, if the VCPU is as it was when it was noted.
    fn take_next(&mut self, vcpu: &Vcpu) -> Option<Next> {
        let dropped = self.cache.dropped();
        self.next.take().filter(|next| {
            next.pc == vcpu.pc && next.retired == vcpu.retired && next.dropped == dropped
        })
    }

    fn note_next(&mut self, vcpu: &Vcpu, address: u64, scratch: [u64; 2]) {
        let (pc, retired, dropped) = (vcpu.pc, vcpu.retired, self.cache.dropped());
        self.next = Some(Next { address, scratch, pc, retired, dropped });
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

impl<const BIG: bool> Engine<'_, BIG> {
    /// Runs what comes next in emitted code, if there is some, or is to be; `None`: it is the interpreter's.
    pub(super) fn translated<R: RealCpu>(
        &mut self,
        direct: &mut Direct,
        vcpu: &mut Vcpu,
        cpu: &mut R,
        until: u64,
    ) -> Option<After> {
        let mut translation = direct.translation.take()?;
        let after = self.run_translated(direct, &mut translation, vcpu, cpu, until);
        direct.translation = Some(translation);
        after
    }

    fn run_translated<R: RealCpu>(
        &mut self,
        direct: &mut Direct,
        t: &mut Translation,
        vcpu: &mut Vcpu,
        cpu: &mut R,
        until: u64,
    ) -> Option<After> {
        if self.has_posts(vcpu) {
            self.read_posts(vcpu);
        }
        let next = self.find(direct, t, vcpu, cpu)?;
        t.own.lend(vcpu);
        (vcpu.gpr[K0], vcpu.gpr[K0 + 1]) = (next.scratch[0], next.scratch[1]);
        vcpu.pc = next.address;
        loop {
            let asid = direct.spacing.real(&direct.l2, vcpu.asid(), cpu);
            let status = Entry::UX | Entry::SX;
            let until = until.min(direct.deadline);
            let entry = Entry { user: false, status, asid, user_local: None, until };
            direct.counters.entries += 1;
            direct.dirty |= direct.counters.entries.is_multiple_of(LOOK);
            let Direct { l2, pages, counters, .. } = &mut *direct;
            let (mem, code, count) = (self.mem, self.code, &mut counters.filled);
            let mut fill = Fill { mem, code, others: self.others, l2, pages, asid, count };
            let own = &t.own;
            let mut answer = |cpu: &mut R, vcpu: &mut Vcpu, va, access| {
                fill.answer_translated(own, cpu, vcpu, va, access)
            };
            let trapped = cpu.enter(vcpu, l2, &entry, &mut answer);
            vcpu.in_slot = false;
            // A store to a page that may be written, but could not until now.
            if trapped.cause >> 2 & 31 == 1 && answer(cpu, vcpu, trapped.bad_vaddr, Access::Write) {
                direct.dirty |= direct.counters.entries.is_multiple_of(LOOK);
                continue;
            }
            match self.left(direct, t, vcpu, cpu, trapped) {
                Way::Again => {}
                Way::Settled(after) => return Some(after),
            }
        }
    }

    /// Where to enter.
    fn find<R: RealCpu>(
        &mut self,
        direct: &mut Direct,
        t: &mut Translation,
        vcpu: &mut Vcpu,
        cpu: &mut R,
    ) -> Option<Next> {
        for _ in 0..ROUNDS {
            self.drop_written(t);
            if t.segments != segments(vcpu) {
                t.segments = segments(vcpu);
                t.own.clear_jumps();
                direct.spacing.forget_all();
                t.next = None;
            }
            let next = match t.take_next(vcpu) {
                Some(next) => next,
                None => {
                    let block = self.block(t, vcpu)?;
                    let scratch = [0, t.cache.layout().main.constant()];
                    t.note_next(vcpu, t.cache.entry(block), scratch);
                    t.next.take()?
                }
            };
            self.follow(direct, t, vcpu, cpu);
            if next.dropped == t.cache.dropped() {
                return Some(next);
            }
        }
        None
    }

    /// Forgets what has become void.
    fn follow<R: RealCpu>(
        &self,
        direct: &mut Direct,
        t: &mut Translation,
        vcpu: &mut Vcpu,
        cpu: &mut R,
    ) {
        if direct.follow_notes(vcpu, |tag| cpu.forget_pair(tag)) {
            t.forget_mapped();
        }
        self.drop_written(t);
    }

    /// Drops the code of pages that have been written.
    fn drop_written(&self, t: &mut Translation) {
        let Some(watch) = self.code.watch() else { return };
        while let Some(page) = watch.pages.take() {
            let code = &mut Code { own: &t.own, hot: Some(&watch.hot) };
            t.counters.written += u64::from(t.cache.invalidate(code, number(page)));
        }
    }

    /// The block for the guest's code at the VCPU's program counter, found or made.
    fn block(&mut self, t: &mut Translation, vcpu: &mut Vcpu) -> Option<BlockId> {
        let found = self.find_block(t, vcpu);
        if found.is_none()
            && let Some(watch) = self.code.watch()
            && watch.hot.is_hot(vcpu.pc)
        {
            // The interpreter is not to come back here at once.
            watch.hot.cool(vcpu.pc);
        }
        found
    }

    fn find_block(&mut self, t: &mut Translation, vcpu: &mut Vcpu) -> Option<BlockId> {
        let pc = vcpu.pc;
        if pc & 3 != 0 {
            return None;
        }
        let (page, gpa) = self.code_page(vcpu)?;
        let key = Key { pc, page: number(page), flags: 0 };
        if let Some(block) = t.cache.find(key) {
            return Some(block);
        }
        let watch = self.code.watch()?;
        if !watch.hot.is_hot(pc) {
            return None;
        }
        // Code in a private page would be another's in another address space.
        let private = || {
            let index = vcpu.tlb.lookup(pc, vcpu.asid());
            index.is_none_or(|index| !vcpu.tlb.entry(index).global)
        };
        let first = form(decode(Self::word(page, pc)));
        if matches!(first, Form::Interpret | Form::Ends) || is_mapped(pc) && private() {
            watch.hot.never(pc);
            return None;
        }
        watch.pages.watch(page, gpa);
        let gpr = core::array::from_fn(|number| vcpu.gpr(number));
        let source = Source { pc, page, endian: vcpu.endian, gpr: &gpr };
        let code = &mut Code { own: &t.own, hot: Some(&watch.hot) };
        t.counters.made += 1;
        Some(t.cache.translate(code, key, &source))
    }

    /// What to do about a trap of emitted code.
    fn left<R: RealCpu>(
        &mut self,
        direct: &mut Direct,
        t: &mut Translation,
        vcpu: &mut Vcpu,
        cpu: &mut R,
        trapped: Trapped,
    ) -> Way {
        let (code, in_slot) = (trapped.cause >> 2 & 31, trapped.cause >> 31 != 0);
        t.since = t.cache.dropped();
        let Some(stand) = t.cache.stand(vcpu.pc) else {
            // It has got lost, through a jump table or page that it has overwritten. So it stands where it is.
            t.own.take_back(vcpu);
            direct.dirty = true;
            return Way::Settled(After::On);
        };
        let access = matches!(code, 1..=5);
        let after = match code {
            0 => {
                direct.counters.interrupts += 1;
                direct.dirty = true;
                self.interrupted(direct, t, vcpu, cpu, &stand)
            }
            6 | 7 => match self.settle(direct, t, vcpu, cpu, &stand) {
                After::On => After::Exit(Exit::Lost),
                exit => exit,
            },
            9 if !in_slot => return self.way_out(direct, t, vcpu, cpu, &stand),
            _ => {
                // In a window it was the guest's own fault, a device, or a page that is watched.
                let right = code <= 3 && guest_address(trapped.bad_vaddr).is_some();
                let astray = (access || code == 13) && !right;
                self.by_interpreter(direct, t, vcpu, cpu, &stand, astray, in_slot)
            }
        };
        Way::Settled(after)
    }

    /// The monitor wants to look around.
    fn interrupted<R: RealCpu>(
        &mut self,
        direct: &mut Direct,
        t: &mut Translation,
        vcpu: &mut Vcpu,
        cpu: &mut R,
        stand: &Stand,
    ) -> After {
        let (address, scratch) = (vcpu.pc, [vcpu.gpr[K0], vcpu.gpr[K0 + 1]]);
        let after = self.settle(direct, t, vcpu, cpu, stand);
        if matches!(stand.kind, Kind::Plain | Kind::WithSlot | Kind::Link) {
            t.note_next(vcpu, address, scratch);
        }
        after
    }

    /// The VCPU becomes what the guest sees of it, where `stand` says.
    fn settle<R: RealCpu>(
        &mut self,
        direct: &mut Direct,
        t: &mut Translation,
        vcpu: &mut Vcpu,
        cpu: &mut R,
        stand: &Stand,
    ) -> After {
        t.own.take_back(vcpu);
        vcpu.set_pc(stand.pc);
        let after = match stand.kind {
            Kind::Plain | Kind::WithSlot | Kind::Link => After::On,
            Kind::Begun => self.steps(direct, vcpu, cpu, 1),
            Kind::BegunWithSlot => self.steps(direct, vcpu, cpu, 2),
            Kind::SlotDone => {
                let gpr = core::array::from_fn(|number| vcpu.gpr(number));
                let insn = self.word_here(vcpu).map(decode);
                if let Some(next) = insn.and_then(|insn| after_slot(insn, stand.pc, &gpr)) {
                    vcpu.set_pc(next);
                }
                After::On
            }
        };
        vcpu.attention |= vcpu.has_unmasked_interrupt() && vcpu.cp0.status.interrupts_enabled();
        after
    }

    /// Executes so many instructions, whatever interrupts are pending, and a delay slot if they end before it.
    fn steps<R: RealCpu>(
        &mut self,
        direct: &mut Direct,
        vcpu: &mut Vcpu,
        cpu: &mut R,
        count: u64,
    ) -> After {
        direct.save_fpu(vcpu, cpu);
        let mut exit = self.step(vcpu, count);
        if vcpu.in_slot && exit.is_none() {
            exit = self.step(vcpu, 1);
        }
        direct.dirty |= vcpu.timer_deadline() != direct.timer || vcpu.device_touched;
        exit.map_or(After::On, |exit| match exit {
            interp::Exit::Limit | interp::Exit::Direct => After::On,
            other => After::Exit(other.into()),
        })
    }

    /// The instruction at a stand is the interpreter's. Its access went `astray`, or it is none.
    #[expect(clippy::too_many_arguments, reason = "the engine's state, and what has happened")]
    fn by_interpreter<R: RealCpu>(
        &mut self,
        direct: &mut Direct,
        t: &mut Translation,
        vcpu: &mut Vcpu,
        cpu: &mut R,
        stand: &Stand,
        astray: bool,
        in_slot: bool,
    ) -> After {
        t.counters.interpreted += 1;
        let scratch = [vcpu.gpr[K0], vcpu.gpr[K0 + 1]];
        let after = self.settle(direct, t, vcpu, cpu, stand);
        if matches!(after, After::Exit(_)) {
            return after;
        }
        if astray {
            self.learn(t, vcpu, stand, in_slot);
        }
        match stand.kind {
            Kind::Plain | Kind::Link if vcpu.attention => After::On,
            Kind::Plain | Kind::Link => {
                let before = segments(vcpu);
                let after = match self.single(direct, vcpu) {
                    Some(after) => after,
                    None => self.steps(direct, vcpu, cpu, 1),
                };
                self.drop_written(t);
                let goes_on = vcpu.pc == stand.pc.wrapping_add(4)
                    && !vcpu.in_slot
                    && vcpu.mode == Mode::Kernel
                    && before == segments(vcpu)
                    && t.since == t.cache.dropped();
                if goes_on && let Some(resume) = t.cache.resume(stand) {
                    t.counters.resumed += 1;
                    match resume {
                        Resume::AsItWas(address) => t.note_next(vcpu, address, scratch),
                        Resume::Clean(address) => {
                            let main = t.cache.layout().main.constant();
                            t.note_next(vcpu, address, [0, main]);
                        }
                    }
                }
                after
            }
            Kind::WithSlot => self.steps(direct, vcpu, cpu, 2),
            // Settled by executing it.
            Kind::Begun | Kind::BegunWithSlot | Kind::SlotDone => After::On,
        }
    }

    /// The access at a stand did not go where its block sent it: that is noted, and if it is news the block is made
    /// anew.
    fn learn(&mut self, t: &mut Translation, vcpu: &mut Vcpu, stand: &Stand, in_slot: bool) {
        let with_slot = matches!(stand.kind, Kind::WithSlot | Kind::BegunWithSlot);
        if !matches!(stand.kind, Kind::Plain | Kind::WithSlot) || vcpu.pc != stand.pc {
            return;
        }
        let pc = if with_slot || in_slot { stand.pc.wrapping_add(4) } else { stand.pc };
        vcpu.pc = pc;
        let word = self.word_here(vcpu);
        vcpu.pc = stand.pc;
        let Some(insn) = word.map(decode) else { return };
        let va = vcpu.gpr(insn.a.index() % 32).wrapping_add(insn.simm());
        if t.cache.note(pc, va) {
            t.counters.guesses += 1;
            // It is made anew as soon as it is entered again.
            t.cache.remove(&mut Code { own: &t.own, hot: None }, stand.block);
        }
    }

    /// A `break` of emitted code.
    fn way_out<R: RealCpu>(
        &mut self,
        direct: &mut Direct,
        t: &mut Translation,
        vcpu: &mut Vcpu,
        cpu: &mut R,
        stand: &Stand,
    ) -> Way {
        let (address, dropped) = (vcpu.pc, t.cache.dropped());
        if let Some(exit) = stand.exit {
            vcpu.pc = t.cache.target(exit);
            // (The guest's registers only tell what its accesses will be.)
            let to = self.block(t, vcpu);
            vcpu.pc = address;
            self.follow(direct, t, vcpu, cpu);
            if let Some(to) = to
                && dropped == t.cache.dropped()
            {
                t.cache.chain(&mut Code { own: &t.own, hot: None }, exit, to);
                t.counters.chained += 1;
                if !direct.dirty {
                    return Way::Again;
                }
                return Way::Settled(self.interrupted(direct, t, vcpu, cpu, stand));
            }
            if matches!(stand.kind, Kind::Plain | Kind::Link) {
                // It stands there now.
                return Way::Settled(self.settle(direct, t, vcpu, cpu, stand));
            }
        } else if matches!(stand.kind, Kind::WithSlot | Kind::BegunWithSlot | Kind::SlotDone) {
            self.learn_jump(t, vcpu, stand);
        }
        Way::Settled(self.by_interpreter(direct, t, vcpu, cpu, stand, false, false))
    }

    /// Makes the next jump of this kind find its way, if there is a block for its target.
    fn learn_jump(&mut self, t: &mut Translation, vcpu: &mut Vcpu, stand: &Stand) {
        let address = vcpu.pc;
        vcpu.pc = stand.pc;
        if let Some(insn) = self.word_here(vcpu).map(decode)
            && matches!(insn.op, Op::Jr | Op::Jalr)
            && !(K0..K0 + 2).contains(&insn.a.index())
        {
            let target = vcpu.gpr(insn.a.index() % 32);
            let dropped = t.cache.dropped();
            vcpu.pc = target;
            if let Some(to) = self.block(t, vcpu)
                && dropped == t.cache.dropped()
            {
                t.counters.jumps += 1;
                t.own.set_jump(target, Some(t.cache.entry(to)));
            }
        }
        vcpu.pc = address;
    }
}

/// What the code cache knows a page by: where it lies in the machine, since the guest has several addresses for
/// one page.
fn number(page: crate::mem::Page) -> Gpa {
    Gpa(page.base().as_ptr().addr() as u64)
}
