//! Direct execution: the guest's own instructions on the real CPU, until one traps.
//!
//! 1. **What runs so.** Guest user mode in real user mode; guest kernel mode, where its code lies in a
//!    segment that supervisor mode reaches, in real supervisor mode ([`Policy`]). Everything else is
//!    the interpreter's, and so is each instruction that traps: one implementation of what the virtual
//!    CPU does.
//! 2. **No guest value reaches the real CPU unseen.** Of Status only UX, SX, PX, FR and CU1, each for what
//!    it is; real ASIDs are the monitor's own ([`Spaces`]); a real translation has a page frame of the
//!    VM, never G, and D only where a store needs no notice.
//! 3. **Translations.** Real TLB ⊆ L2TLB ⊆ what guest TLB and pmap say. The guest's TLB instructions
//!    leave notes ([`crate::cpu::Stale`]); they are followed before the guest runs again.
//! 4. **Floating point** is loaded when the guest first uses it, and stored before anybody looks.
//! 5. **Load-linked.** Every entry breaks the real link. So after a load-linked that was emulated the
//!    interpreter goes on until the link is used up. A loop in which an instruction between LL and
//!    SC traps would never end; it is noticed (a link was set, the same address traps again) and its
//!    next rounds are interpreted.

mod counters;
mod cpu;
mod fill;
mod l2tlb;
mod policy;
mod save;
mod single;
mod space;
mod spaces;
mod stretch;
#[cfg(test)]
pub(crate) mod tests;
mod translated;

pub use counters::Counters;
pub use cpu::{Entry, Filler, RealCpu, Trapped};
pub use l2tlb::{L2Tlb, NOTHING_COMMON, Pair, SIZE as L2TLB_SIZE, Set, common_tag, tag};
pub use policy::Policy;
pub(crate) use policy::is_supervisor;
pub use spaces::{Asids, Claim, Spaces};
pub use translated::CODE_WORDS;
pub use translated::Translations;
pub(crate) use translated::{can_translate_linked, code_words, heap as translation_heap};

use crate::cpu::{Access, ExcCode, Exception, Mode, Notes, Status, Trap, Vcpu};
use crate::interp::{self, Engine, POLL};
use alloc::boxed::Box;
use fill::{Fill, Pages};
use space::Spacing;
use stretch::Stretches;
use translated::Translation;

/// Why direct execution stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The time is up.
    Time,
    /// What comes next is to be interpreted.
    Interpret,
    /// As the interpreter's.
    Wait {
        /// When the timer or a device wants to be asked again, in virtual nanoseconds.
        until: Option<u64>,
    },
    /// A device asked for the exit.
    Device,
    /// The exception vector can't be fetched.
    UnreachableVector(interp::UnreachableVector),
    /// What should be memory does not answer: the VCPU stands before the instruction that wanted it.
    Lost,
}

impl From<interp::Exit> for Exit {
    fn from(exit: interp::Exit) -> Self {
        match exit {
            interp::Exit::Limit | interp::Exit::Direct => Self::Interpret,
            interp::Exit::Wait { until } => Self::Wait { until },
            interp::Exit::Device => Self::Device,
            interp::Exit::UnreachableVector(what) => Self::UnreachableVector(what),
        }
    }
}

/// Entries between two looks at the clock, at most. The interrupt that ends a guest's time may come
/// while the guest is not running, every time: a guest that traps often enough would never be left.
const LOOK: u64 = 64;
/// Traps at one address, each after a load-linked, that prove nothing yet.
const LINKED_TRAPS: u32 = 3;
/// Instructions that are interpreted when they do.
const LINKED_BURST: u64 = 512;
/// As [`LINKED_TRAPS`], where no store-conditional is in sight.
const LINKED_TRAPS_BLIND: u32 = 256;

/// What a VCPU that runs directly has beside its architectural state.
#[derive(Debug)]
pub struct Direct {
    l2: L2Tlb,
    pages: Pages,
    spacing: Spacing,
    /// The real FPU has the registers.
    fpu_loaded: bool,
    /// Interrupts, time or the state of devices may have changed.
    dirty: bool,
    /// When the guest's timer comes, in virtual time …
    timer: Option<u64>,
    /// … and when to come back for that or a device's sake, in the owner's.
    deadline: u64,
    /// Where an instruction trapped after a load-linked, and how often in a row.
    linked: (u64, u32),
    /// What the guest had no translation for, and where: its handler is about to have made one.
    missed: Option<(u64, Access, u64)>,
    /// How many instructions may still be interpreted for the sake of a link that the real CPU does
    /// not know.
    link_left: u64,
    /// Instructions interpreted when somebody looked around last.
    looked: u64,
    stretches: Stretches,
    counters: Counters,
    /// Translated code, where there is some.
    translation: Option<Box<Translation>>,
    /// There was no memory for it.
    untranslated: bool,
    /// Most words of code that it has.
    most_words: usize,
}

impl Direct {
    /// Nothing known, nothing loaded.
    #[must_use]
    pub fn new() -> Self {
        Self {
            l2: L2Tlb::new(),
            pages: Pages::new(),
            spacing: Spacing::new(),
            fpu_loaded: false,
            dirty: true,
            timer: None,
            deadline: 0,
            linked: (0, 0),
            missed: None,
            link_left: 0,
            looked: 0,
            stretches: Stretches::new(),
            counters: Counters::default(),
            translation: None,
            untranslated: false,
            most_words: CODE_WORDS[0],
        }
    }

    /// What translation has counted, if it has begun.
    #[must_use]
    pub fn translations(&self) -> Option<&Translations> {
        self.translation.as_deref().map(|translation| &translation.counters)
    }

    /// Whether there was no memory to translate.
    #[must_use]
    pub const fn lacks_heap(&self) -> bool {
        self.untranslated
    }

    /// What of `policy` can be done: whether there is memory to translate. (While its VM is in several places, none is
    /// taken for it.)
    fn able(&mut self, vcpu: &mut Vcpu, policy: Policy) -> Policy {
        let wanted = policy.translated && !vcpu.verifies;
        if wanted && self.translation.is_none() && !self.untranslated {
            self.translation = Translation::new(vcpu, self.most_words, policy.kernel);
            self.untranslated = self.translation.is_none();
        }
        Policy { translated: policy.translated && self.translation.is_some(), ..policy }
    }

    /// Translated code that is begun from now on has at most so many words.
    pub const fn limit_code(&mut self, words: usize) {
        self.most_words = words;
    }

    /// What has been counted.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Forgets what the guest's TLB instructions have made void since the last time; `gone` is told what the
    /// real TLB is to forget. Whether there was something of the kernel's segments among it: who has taken the translated code away
    /// has that forget it, too.
    fn follow_notes(&mut self, vcpu: &mut Vcpu, mut gone: impl FnMut(u64)) -> bool {
        let kernel = match vcpu.stale.notes() {
            Notes::None => return false,
            Notes::All => {
                self.spacing.forget_all();
                self.pages.clear();
                true
            }
            Notes::Some(count) => {
                let segbits = vcpu.model.segbits;
                (0..count).fold(false, |kernel, index| {
                    let void = vcpu.stale.void(index);
                    self.spacing.forget(&self.l2, void, segbits, &mut gone);
                    kernel || void.vpn >> 62 != 0
                })
            }
        };
        if let Some(translation) = self.translation.as_mut().filter(|_| kernel) {
            translation.forget_mapped();
        }
        vcpu.stale.taken();
        kernel
    }

    /// Stores the FPU's registers in the VCPU if they are not there.
    fn save_fpu<R: RealCpu>(&mut self, vcpu: &mut Vcpu, cpu: &mut R) {
        if self.fpu_loaded {
            self.fpu_loaded = false;
            let fcsr = cpu.save_fpu(&mut vcpu.fpr);
            vcpu.set_fcsr(fcsr);
        }
    }

    /// What the real CPU is told.
    fn entry(&self, vcpu: &Vcpu, asid: u8, until: u64) -> Entry {
        let guest = vcpu.cp0.status;
        let mut status = guest.bits() & (Entry::UX | Entry::SX | Entry::PX);
        if self.fpu_loaded && guest.contains(Status::CU1) {
            status |= Entry::CU1 | guest.bits() & Entry::FR;
        }
        let user = vcpu.mode == Mode::User;
        let allowed = !user || vcpu.cop0_usable || vcpu.cp0.hwrena >> 29 & 1 != 0;
        let user_local = (allowed && vcpu.model.has_userlocal()).then_some(vcpu.cp0.user_local);
        let (common, until) = (NOTHING_COMMON, until.min(self.deadline));
        Entry { user, status, asid, common, user_local, until }
    }

    /// A trap at `pc` that was not reflected: whether the code there goes round between load-linked and
    /// store-conditional without ever getting through.
    fn is_stuck(&mut self, pc: u64, linked: bool, between: impl FnOnce() -> bool) -> bool {
        if !linked {
            return false;
        }
        self.linked = if self.linked.0 == pc { (pc, self.linked.1 + 1) } else { (pc, 1) };
        let rounds = self.linked.1;
        // (The answer is the same next time, unless the code changes.)
        let asks = rounds == LINKED_TRAPS || rounds > LINKED_TRAPS && rounds.is_power_of_two();
        if rounds >= LINKED_TRAPS_BLIND || asks && between() {
            self.linked = (0, 0);
            return true;
        }
        false
    }
}

impl Default for Direct {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs `vcpu` on the real `cpu` until `until` (the owner's time, nanoseconds) or until something else
/// has to be done first. At most `limit` instructions are interpreted in one go.
pub fn run<R: RealCpu>(
    direct: &mut Direct,
    vcpu: &mut Vcpu,
    cpu: &mut R,
    around: interp::Around<'_>,
    policy: Policy,
    limit: u64,
    until: u64,
) -> Exit {
    let policy = direct.able(vcpu, policy);
    let exit = interp::with_engine!(vcpu, around, Policy::NEVER, |engine| {
        engine.run_direct(direct, vcpu, cpu, policy, limit, until)
    });
    direct.save_fpu(vcpu, cpu);
    exit
}

/// What comes after a trap has been dealt with.
enum After {
    /// The guest goes on.
    On,
    /// Leave.
    Exit(Exit),
}

impl<const BIG: bool> Engine<'_, BIG> {
    fn run_direct<R: RealCpu>(
        &mut self,
        direct: &mut Direct,
        vcpu: &mut Vcpu,
        cpu: &mut R,
        policy: Policy,
        limit: u64,
        until: u64,
    ) -> Exit {
        direct.dirty = true;
        loop {
            if (direct.dirty || vcpu.attention)
                && let Some(exit) = self.look_around(direct, vcpu, until)
            {
                return exit;
            }
            if policy.may_translate(vcpu) {
                match self.translated(direct, vcpu, cpu, policy, until) {
                    Some(After::On) => {
                        if policy.kernel && vcpu.link.is_some() {
                            // Of an emulated load-linked.
                            direct.link_left = LINKED_BURST;
                        }
                        continue;
                    }
                    Some(After::Exit(exit)) => return exit,
                    None => {}
                }
            }
            if !policy.takes(vcpu) {
                direct.save_fpu(vcpu, cpu);
                match self.interpret(direct, vcpu, policy, limit) {
                    interp::Exit::Direct => continue,
                    // The owner looks at the clock, and sends the VCPU back.
                    interp::Exit::Limit => return Exit::Interpret,
                    other => return other.into(),
                }
            }
            if direct.link_left > 0 && vcpu.link.is_some() {
                // On the real CPU the store-conditional would fail, without a trap.
                direct.link_left -= 1;
                direct.dirty = true;
                direct.save_fpu(vcpu, cpu);
                match self.interpret(direct, vcpu, Policy::NEVER, 1) {
                    interp::Exit::Limit => continue,
                    other => return other.into(),
                }
            }
            direct.link_left = 0;
            if self.has_posts(vcpu) {
                self.read_posts(vcpu);
            }
            // Handlers begin with privileged instructions.
            if vcpu.cp0.status.contains(Status::EXL)
                && let count @ 1.. = self.stretch_here(direct, vcpu)
            {
                match self.interpret_stretch(direct, vcpu, cpu, count) {
                    After::On => continue,
                    After::Exit(exit) => return exit,
                }
            }
            direct.follow_notes(vcpu, |tag| cpu.forget_pair(tag));
            let asid = direct.spacing.real(&direct.l2, vcpu.asid(), cpu);
            // (A kernel that is reached by real addresses mostly has one large page of its own.)
            let common =
                if policy.kernel { direct.spacing.common(&direct.l2) } else { NOTHING_COMMON };
            let entry = Entry { common, ..direct.entry(vcpu, asid, until) };
            direct.counters.entries += 1;
            direct.dirty |= direct.counters.entries.is_multiple_of(LOOK);
            let Direct { l2, pages, counters, .. } = direct;
            let (mem, code, count) = (self.mem, self.code, &mut counters.filled);
            let others = self.others;
            let mut fill = Fill { mem, code, others, l2, pages, asid, common, count };
            if let Some((va, access, _)) = direct.missed.take_if(|missed| missed.2 == vcpu.pc) {
                // Else the real CPU would miss it once more.
                fill.answer(cpu, vcpu, va, access);
            }
            let mut answer =
                |cpu: &mut R, vcpu: &mut Vcpu, va, access| fill.answer(cpu, vcpu, va, access);
            let trapped = cpu.enter(vcpu, l2, &entry, &mut answer);
            if trapped.linked {
                // The link of an emulated load-linked is older than the real one.
                vcpu.link = None;
            }
            match self.handle(direct, vcpu, cpu, trapped, (asid, common)) {
                After::On => {}
                After::Exit(exit) => return exit,
            }
        }
    }

    /// Interprets until what comes next runs directly by `policy`, or `limit` instructions.
    fn interpret(
        &mut self,
        direct: &mut Direct,
        vcpu: &mut Vcpu,
        policy: Policy,
        limit: u64,
    ) -> interp::Exit {
        self.policy = policy;
        // Who has nothing to look at has looked.
        let next_poll = vcpu.retired + if direct.dirty { 0 } else { POLL };
        let exit = self.run_polled(vcpu, limit, next_poll);
        self.policy = Policy::NEVER;
        direct.dirty |= vcpu.timer_deadline() != direct.timer || vcpu.device_touched;
        // (Who comes and goes before it is time to look would never look.)
        direct.dirty |= vcpu.retired.wrapping_sub(direct.looked) >= POLL;
        exit
    }

    /// Brings time and interrupts up to date.
    fn look_around(&mut self, direct: &mut Direct, vcpu: &mut Vcpu, until: u64) -> Option<Exit> {
        (vcpu.attention, vcpu.device_touched) = (false, false);
        direct.dirty = false;
        direct.looked = vcpu.retired;
        if let Some(exit) = self.poll(vcpu) {
            return Some(exit.into());
        }
        let now = self.set_deadline(direct, vcpu);
        (self.clock.owners(now) >= until).then_some(Exit::Time)
    }

    /// Notes when to come back for the sake of the timer or of a device; the time now.
    fn set_deadline(&mut self, direct: &mut Direct, vcpu: &Vcpu) -> u64 {
        let now = self.now(vcpu);
        direct.timer = vcpu.timer_deadline();
        let events = [direct.timer, self.bus.deadline(now)];
        direct.deadline =
            events.into_iter().flatten().map(|at| self.clock.owners(at)).min().unwrap_or(u64::MAX);
        now
    }

    fn handle<R: RealCpu>(
        &mut self,
        direct: &mut Direct,
        vcpu: &mut Vcpu,
        cpu: &mut R,
        trapped: Trapped,
        space: (u8, u16),
    ) -> After {
        let in_slot = trapped.cause >> 31 != 0;
        let code = trapped.cause >> 2 & 31;
        vcpu.in_slot = false;
        let counters = &mut direct.counters;
        match code {
            0 => {
                counters.interrupts += 1;
                direct.dirty = true;
                After::On
            }
            1..=3 => {
                let access = if code == 2 { Access::Read } else { Access::Write };
                self.translation(direct, vcpu, cpu, trapped, access, space)
            }
            8 | 9 | 12 | 13 => {
                let (exception, count) = match code {
                    8 => (ExcCode::Sys, &mut counters.syscalls),
                    9 => (ExcCode::Bp, &mut counters.reflected),
                    12 => (ExcCode::Ov, &mut counters.reflected),
                    _ => (ExcCode::Tr, &mut counters.reflected),
                };
                *count += 1;
                reflect(vcpu, Exception::Plain(exception), in_slot);
                After::On
            }
            // A bus error of the machine's, never one of the guest's: what its pages map is memory. Whoever owns that
            // memory is about to be found dead; until then the guest is told nothing.
            6 | 7 => After::Exit(Exit::Lost),
            11 if trapped.cause >> 28 & 3 == 1 => {
                counters.fpu += 1;
                if !vcpu.cp0.status.contains(Status::CU1) {
                    reflect(vcpu, Exception::CopUnusable(1), in_slot);
                    return After::On;
                }
                if vcpu.fcsr.raises() {
                    // Loading it would trap: the instruction that finds it so is interpreted.
                    return self.emulate(direct, vcpu, cpu, trapped);
                }
                cpu.load_fpu(&vcpu.fpr, vcpu.fcsr.bits());
                direct.fpu_loaded = true;
                After::On
            }
            15 => {
                counters.reflected += 1;
                direct.save_fpu(vcpu, cpu);
                reflect(vcpu, Exception::Plain(ExcCode::Fpe), in_slot);
                After::On
            }
            _ => self.emulate(direct, vcpu, cpu, trapped),
        }
    }

    /// The real TLB does not have a translation, or not for a store, and it is not simply to be filled.
    fn translation<R: RealCpu>(
        &mut self,
        direct: &mut Direct,
        vcpu: &mut Vcpu,
        cpu: &mut R,
        trapped: Trapped,
        access: Access,
        (asid, common): (u8, u16),
    ) -> After {
        let va = trapped.bad_vaddr;
        // (A miss has been tried to be filled before.)
        if trapped.cause >> 2 & 31 == 1 {
            let Direct { l2, pages, counters, .. } = direct;
            let count = &mut counters.filled;
            let (mem, code) = (self.mem, self.code);
            let others = self.others;
            let mut fill = Fill { mem, code, others, l2, pages, asid, common, count };
            if fill.answer(cpu, vcpu, va, access) {
                return After::On;
            }
        }
        let in_slot = trapped.cause >> 31 != 0;
        let here = va == vcpu.pc.wrapping_add(4 * u64::from(in_slot));
        let fetched = here && access == Access::Read;
        // A fetch of the kernel's is the interpreter's: it knows when a vector can never be fetched. (So is one in a slot, whose
        // branch is executed first.)
        let simple = !here || fetched && !in_slot && vcpu.mode == Mode::User;
        match vcpu.translate(va, if fetched { Access::Execute } else { access }) {
            Err(exception) if simple => {
                direct.counters.faults += 1;
                direct.missed = Some((va, access, vcpu.pc));
                reflect(vcpu, exception, in_slot);
                After::On
            }
            _ => self.emulate(direct, vcpu, cpu, trapped),
        }
    }

    /// The trapped instruction, and the branch before it if it is in a delay slot, by the interpreter.
    fn emulate<R: RealCpu>(
        &mut self,
        direct: &mut Direct,
        vcpu: &mut Vcpu,
        cpu: &mut R,
        trapped: Trapped,
    ) -> After {
        direct.counters.emulated += 1;
        let in_slot = trapped.cause >> 31 != 0;
        let pc = vcpu.pc;
        let mut count = 1 + u64::from(in_slot);
        if direct.is_stuck(pc, trapped.linked, || self.before_conditional(vcpu, pc)) {
            direct.counters.linked += 1;
            count = LINKED_BURST;
        } else if !in_slot {
            if vcpu.mode == Mode::Kernel
                && let count @ 2.. = self.stretch_here(direct, vcpu)
            {
                return self.interpret_stretch(direct, vcpu, cpu, count);
            }
            if let Some(after) = self.single(direct, vcpu) {
                return after;
            }
        }
        if self.is_load_linked(vcpu, pc.wrapping_add(4 * u64::from(in_slot))) {
            direct.link_left = LINKED_BURST;
        }
        direct.save_fpu(vcpu, cpu);
        match self.interpret(direct, vcpu, Policy::NEVER, count) {
            interp::Exit::Limit => After::On,
            other => After::Exit(other.into()),
        }
    }
}

/// Enters the guest's handler of what the instruction at the program counter, or in the delay slot
/// after it, has caused.
fn reflect(vcpu: &mut Vcpu, exception: Exception, in_slot: bool) {
    let Trap = vcpu.trap(exception);
    // As where the interpreter executes both.
    vcpu.retired += 1 + u64::from(in_slot);
    vcpu.take_exception(vcpu.pc.wrapping_add(4 * u64::from(in_slot)), in_slot);
}
