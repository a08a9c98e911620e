//! What a trap of emitted code means.

use super::{BEYOND, K0, Run, Way, segments};
use crate::cpu::Mode;
use crate::direct::{After, Exit, LINKED_BURST, RealCpu, Trapped};
use crate::emulate::{Context, Flow, system};
use crate::interp::{self, Cx};
use crate::isa::{Insn, decode};
use crate::translate::{
    Code, Form, Kind, Quick, Resume, Stand, after_slot, form_of, guest_address, source,
};

/// Count and Compare.
const COUNT: u32 = 9;
const COMPARE: u32 = 11;

impl<R: RealCpu, const BIG: bool> Run<'_, '_, R, BIG> {
    /// What to do about a trap of emitted code.
    pub(super) fn left(&mut self, trapped: Trapped) -> Way {
        let (code, in_slot) = (trapped.cause >> 2 & 31, trapped.cause >> 31 != 0);
        self.t.since = self.t.cache.dropped();
        let Some(stand) = self.t.cache.stand(self.vcpu.pc) else {
            // It has got lost, through a jump table or page that it has overwritten. So it stands where it is.
            self.t.own.take_back(self.vcpu);
            self.direct.dirty = true;
            return Way::Settled(After::On);
        };
        let access = matches!(code, 1..=5);
        let after = match code {
            0 => {
                self.direct.counters.interrupts += 1;
                self.direct.dirty = true;
                self.interrupted(&stand)
            }
            6 | 7 => match self.settle(&stand) {
                After::On => After::Exit(Exit::Lost),
                exit => exit,
            },
            9 if !in_slot && let Some(quick) = self.quick_at(&stand) => {
                if !trapped.linked || !self.is_stuck(&stand) {
                    return self.quick(&stand, quick);
                }
                self.interpret_link(&stand)
            }
            9 if !in_slot && self.goes_on(&stand) => {
                if !self.direct.dirty {
                    return Way::Again;
                }
                self.interrupted(&stand)
            }
            _ if trapped.linked && self.is_stuck(&stand) => self.interpret_link(&stand),
            9 if !in_slot => self.way_out(&stand),
            _ => {
                // In a window it was the guest's own fault, a device, or a page that is watched.
                let right = code <= 3 && guest_address(trapped.bad_vaddr).is_some();
                let guessed = !self.t.cache.layout().identity;
                let astray = (access || code == 13) && !right && guessed;
                self.by_interpreter(&stand, astray, in_slot)
            }
        };
        Way::Settled(after)
    }

    /// The instruction at a stand that needs no interpreter, if it is one.
    fn quick_at(&self, stand: &Stand) -> Option<Quick> {
        let quick = self.t.own.word(self.vcpu.pc).and_then(Quick::of);
        quick.filter(|_| stand.kind == Kind::Plain && stand.exit.is_none())
    }

    /// Executes it, and has emitted code go on behind it if there is nothing else to do.
    fn quick(&mut self, stand: &Stand, quick: Quick) -> Way {
        let (mut stand, mut quick) = (*stand, quick);
        loop {
            self.t.counters.quick += 1;
            if quick == Quick::Return {
                return Way::Settled(self.exception_return(&stand));
            }
            self.execute(quick);
            let Some(address) = self.t.cache.behind_stretch(&stand) else {
                self.t.own.take_back(self.vcpu);
                self.vcpu.set_pc(stand.pc.wrapping_add(4));
                return Way::Settled(After::On);
            };
            self.vcpu.pc = address;
            let [k0, k1] = self.clean();
            (self.vcpu.gpr[K0], self.vcpu.gpr[K0 + 1]) = (k0, k1);
            let looks = self.direct.dirty || self.vcpu.attention;
            if !looks && !quick.writes_tlb() {
                return Way::Again;
            }
            // (Whoever has written the TLB returns.)
            let Some(next) = self.t.cache.stand(address) else { return Way::Again };
            if looks {
                return Way::Settled(self.interrupted(&next));
            }
            match self.quick_at(&next) {
                Some(then) => (stand, quick) = (next, then),
                None => return Way::Again,
            }
        }
    }

    /// Executes an instruction that the VCPU needs not be settled for.
    fn execute(&mut self, quick: Quick) {
        let Self { engine, direct, t, vcpu, .. } = &mut *self;
        match quick {
            Quick::ReadCount(register) => {
                let now = Cx { cpu: vcpu, engine }.now();
                let count = vcpu.read_cp0(COUNT, 0, now);
                vcpu.set_gpr(register.into(), count);
            }
            Quick::WriteCompare(register) => {
                let now = Cx { cpu: vcpu, engine }.now();
                let value = vcpu.gpr(register.into());
                vcpu.write_cp0(COMPARE, 0, value, now);
                t.own.lend_timer(vcpu);
                engine.set_deadline(direct, vcpu);
            }
            _ => {
                t.own.take_tlb(vcpu);
                // (Nothing of it can fail in kernel mode.)
                let _ = match quick {
                    Quick::WriteIndexed => system::tlbwi(vcpu),
                    Quick::WriteRandom => system::tlbwr(vcpu),
                    _ => system::tlbp(vcpu),
                };
                t.own.lend_index(vcpu);
                if quick == Quick::Probe {
                    t.own.let_post();
                }
                t.own.lend_tlb(vcpu);
            }
        }
        vcpu.retired += 1;
        if quick.writes_tlb() {
            self.follow();
        }
    }

    /// Executes an `eret`.
    fn exception_return(&mut self, stand: &Stand) -> After {
        let vcpu = &mut *self.vcpu;
        self.t.own.take_back(vcpu);
        self.t.own.end_posts();
        vcpu.set_pc(stand.pc);
        vcpu.retired += 1;
        match system::eret(vcpu) {
            Ok(Flow::Jump(to)) => vcpu.set_pc(to),
            // What the guest has written to its page was user mode's.
            _ => vcpu.take_exception(stand.pc, false),
        }
        vcpu.attention |= vcpu.has_unmasked_interrupt() && vcpu.cp0.status.interrupts_enabled();
        After::On
    }

    /// Whether the code here goes round between load-linked and store-conditional without ever getting through.
    fn is_stuck(&mut self, stand: &Stand) -> bool {
        let Self { engine, direct, vcpu, t, .. } = &mut *self;
        let now = (vcpu.pc, t.cache.dropped());
        let beyond = &mut t.beyond[(vcpu.pc >> 2) as usize % BEYOND];
        direct.is_stuck(vcpu.pc, true, || {
            let between = *beyond != now && engine.before_conditional(vcpu, stand.pc);
            if !between {
                *beyond = now;
            }
            between
        })
    }

    /// The next instructions are the interpreter's, until a link of its own is used: that one survives.
    fn interpret_link(&mut self, stand: &Stand) -> After {
        self.direct.counters.linked += 1;
        let end = self.vcpu.retired + LINKED_BURST;
        let mut after = self.settle(stand);
        let mut linked = false;
        while matches!(after, After::On)
            && self.vcpu.retired < end
            && !self.vcpu.attention
            && !self.vcpu.waiting
            && self.policy.may_translate(self.vcpu)
        {
            let used = linked && self.vcpu.link.is_none();
            if used {
                break;
            }
            linked = self.vcpu.link.is_some();
            after = self.steps(1);
        }
        after
    }

    /// The monitor wants to look around.
    fn interrupted(&mut self, stand: &Stand) -> After {
        let (address, scratch) = (self.vcpu.pc, self.scratch());
        let after = self.settle(stand);
        if matches!(stand.kind, Kind::Plain | Kind::WithSlot | Kind::Link) {
            self.t.note_next(self.vcpu, address, scratch);
        }
        after
    }

    fn scratch(&self) -> [u64; 2] {
        [self.vcpu.gpr[K0], self.vcpu.gpr[K0 + 1]]
    }

    /// The VCPU becomes what the guest sees of it, where `stand` says.
    fn settle(&mut self, stand: &Stand) -> After {
        let [_, k1] = self.scratch();
        let vcpu = &mut *self.vcpu;
        self.t.own.take_back(vcpu);
        vcpu.set_pc(stand.pc);
        let after = match stand.kind {
            Kind::Plain | Kind::Posting | Kind::WithSlot | Kind::Link => After::On,
            Kind::Begun => self.steps(1),
            Kind::BegunWithSlot => self.with_slot(),
            Kind::Stored => {
                if let Some(insn) = self.insn_at(stand.pc) {
                    self.vcpu.set_gpr(insn.b.index() % 32, k1);
                }
                self.vcpu.set_pc(stand.pc.wrapping_add(4));
                After::On
            }
            Kind::SlotDone => {
                let gpr = core::array::from_fn(|number| vcpu.gpr(number));
                let insn = self.engine.word_here(vcpu).map(decode);
                if let Some(next) = insn.and_then(|insn| after_slot(insn, stand.pc, &gpr)) {
                    vcpu.set_pc(next);
                }
                After::On
            }
        };
        let vcpu = &mut *self.vcpu;
        vcpu.attention |= vcpu.has_unmasked_interrupt() && vcpu.cp0.status.interrupts_enabled();
        after
    }

    /// Executes so many instructions, less if control leaves the page or something wants attention, but not one less for
    /// an interrupt that is pending already.
    pub(super) fn steps(&mut self, count: u64) -> After {
        let Self { engine, direct, vcpu, cpu, .. } = &mut *self;
        direct.save_fpu(vcpu, *cpu);
        if engine.has_posts(vcpu) {
            engine.read_posts(vcpu);
        }
        let exit = engine.step(vcpu, count);
        direct.dirty |= vcpu.timer_deadline() != direct.timer || vcpu.device_touched;
        exit.map_or(After::On, |exit| match exit {
            interp::Exit::Limit | interp::Exit::Direct => After::On,
            other => After::Exit(other.into()),
        })
    }

    /// Executes a branch with its delay slot.
    fn with_slot(&mut self) -> After {
        match self.steps(2) {
            After::On if self.vcpu.in_slot => self.steps(1),
            after => after,
        }
    }

    /// The instruction at a stand is the interpreter's. Its access went `astray`, or it is none.
    fn by_interpreter(&mut self, stand: &Stand, astray: bool, in_slot: bool) -> After {
        self.t.counters.interpreted += 1;
        let scratch = self.scratch();
        if astray {
            self.learn(stand, in_slot);
        }
        let after = self.settle(stand);
        if matches!(after, After::Exit(_)) {
            return after;
        }
        match stand.kind {
            Kind::Plain | Kind::Link if self.vcpu.attention => After::On,
            Kind::Plain | Kind::Link => {
                let before = segments(self.vcpu);
                let after = self.steps(1);
                if self.has_come(stand.pc.wrapping_add(4), before)
                    && let Some(resume) = self.t.cache.resume(stand)
                {
                    let (address, scratch) = match resume {
                        Resume::AsItWas(address) => (address, scratch),
                        Resume::Clean(address) => (address, self.clean()),
                    };
                    self.resume(address, scratch);
                }
                after
            }
            Kind::Posting => self.steps(1),
            Kind::WithSlot => self.with_slot(),
            // Settled by executing it.
            Kind::Begun | Kind::BegunWithSlot | Kind::SlotDone | Kind::Stored => After::On,
        }
    }

    /// Scratch registers as they are between blocks.
    fn clean(&self) -> [u64; 2] {
        [0, self.t.cache.layout().between()]
    }

    /// Whether control has come to `pc`, with nothing else changed that emitted code depends on.
    fn has_come(&mut self, pc: u64, before: crate::cpu::Status) -> bool {
        self.drop_written();
        self.vcpu.pc == pc
            && !self.vcpu.in_slot
            && self.vcpu.mode == Mode::Kernel
            && before == segments(self.vcpu)
            && self.t.since == self.t.cache.dropped()
    }

    fn resume(&mut self, address: u64, scratch: [u64; 2]) {
        self.t.counters.resumed += 1;
        self.t.note_next(self.vcpu, address, scratch);
    }

    /// Instructions that are not emitted.
    fn stretch(&mut self, stand: &Stand) -> After {
        let count = self.t.cache.stretch(stand);
        let after = self.settle(stand);
        if matches!(after, After::Exit(_)) || self.vcpu.attention {
            return after;
        }
        self.t.counters.interpreted += 1;
        let (before, end) = (segments(self.vcpu), stand.pc.wrapping_add(4 * count));
        loop {
            let left = end.wrapping_sub(self.vcpu.pc) / 4;
            let after = self.steps(left);
            // What has changed the mode or a mask has ended the stretch early.
            let inside = end.wrapping_sub(self.vcpu.pc) / 4;
            let stays =
                self.vcpu.mode == Mode::Kernel && !self.vcpu.attention && !self.vcpu.waiting;
            let goes_on = stays && !self.vcpu.in_slot && (1..left).contains(&inside);
            if matches!(after, After::Exit(_)) || !goes_on {
                if self.has_come(end, before)
                    && let Some(address) = self.t.cache.behind_stretch(stand)
                {
                    self.resume(address, self.clean());
                }
                return after;
            }
        }
    }

    /// The access at a stand, which is not settled yet, did not go where its block sent it: that is noted, and if it is
    /// news the block is made anew.
    fn learn(&mut self, stand: &Stand, in_slot: bool) {
        let with_slot = matches!(stand.kind, Kind::WithSlot | Kind::BegunWithSlot);
        if !with_slot && stand.kind != Kind::Plain {
            return;
        }
        let pc = if with_slot || in_slot { stand.pc.wrapping_add(4) } else { stand.pc };
        let Some(insn) = self.insn_at(pc) else { return };
        let base = insn.a.index() % 32;
        let base = self.t.own.kept(base).unwrap_or_else(|| self.vcpu.gpr(base));
        let va = base.wrapping_add(insn.simm());
        if self.t.cache.note(stand.block, pc, va) {
            self.t.counters.guesses += 1;
            // It is made anew as soon as it is entered again.
            self.t.cache.remove(&mut Code { own: &self.t.own, hot: None }, stand.block);
        }
    }

    /// A `break` of emitted code for which there is nothing else to do.
    fn way_out(&mut self, stand: &Stand) -> After {
        match stand.kind {
            // It stands there now.
            Kind::Plain | Kind::Link if stand.exit.is_some() => self.settle(stand),
            Kind::Plain => self.stretch(stand),
            _ => self.by_interpreter(stand, false, false),
        }
    }

    /// Whether emitted code goes on at once after a `break`: an exit is chained now, or the jump table has what was
    /// looked for.
    fn goes_on(&mut self, stand: &Stand) -> bool {
        let dropped = self.t.cache.dropped();
        let (target, again, scratch) = if let Some(exit) = stand.exit {
            (self.t.cache.target(exit), self.vcpu.pc, self.scratch())
        } else {
            let Some(again) = self.t.cache.look_up_again(stand) else { return false };
            let Some(target) = self.jump_target(stand) else { return false };
            (target, again, self.clean())
        };
        let slot = match stand.kind {
            Kind::WithSlot | Kind::BegunWithSlot => Some(stand.pc.wrapping_add(4)),
            _ => None,
        };
        let address = core::mem::replace(&mut self.vcpu.pc, target);
        let to = self.block(slot);
        self.vcpu.pc = address;
        self.follow();
        let Some(to) = to.filter(|_| dropped == self.t.cache.dropped()) else { return false };
        match stand.exit {
            Some(exit) => {
                self.t.cache.chain(&mut Code { own: &self.t.own, hot: None }, exit, to);
                self.t.counters.chained += 1;
            }
            None => {
                self.t.own.set_jump(target, Some(self.t.cache.entry(to)));
                self.t.counters.jumps += 1;
            }
        }
        self.vcpu.pc = again;
        (self.vcpu.gpr[K0], self.vcpu.gpr[K0 + 1]) = (scratch[0], scratch[1]);
        true
    }

    /// Where the jump to a register at a stand goes.
    fn jump_target(&mut self, stand: &Stand) -> Option<u64> {
        let word = self.engine.word_at(self.vcpu, stand.pc)?;
        (form_of(word) == Form::JumpRegister).then(|| self.vcpu.gpr(source(word)))
    }

    /// The guest's instruction at `pc`.
    fn insn_at(&mut self, pc: u64) -> Option<Insn> {
        self.engine.word_at(self.vcpu, pc).map(decode)
    }
}
