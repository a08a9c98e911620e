//! One VCPU of a VM, with what executes it.

use super::devices::{Own, Port};
use super::heap::code_pages;
use super::{End, Exit, Report, Vm, VmParams};
use crate::board::{Request, ram};
use crate::cpu::Vcpu;
use crate::direct::{self, Direct, Policy, RealCpu};
use crate::image::Entry;
use crate::interp::{self, UnreachableVector};
use crate::mem::GuestMemory;
use crate::state::{Restorer, Saver, StateError, Visit, check};
use crate::time::Clock;
use abi::{Gpa, Mpa, PAGE_SHIFT};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

/// How far a run may pass its limit so as not to be interrupted right after a warp: between the
/// edge that a kernel polls for and its look at Count nothing else should run.
const GRACE: u64 = 1000;

/// Status at entry: the boot vectors, and nothing else.
pub(super) const STATUS_BEV: u64 = 1 << 22;

/// "HCVCPU" and the number of the format in which state is saved.
const VERSION: u64 = 0x4843_5643_5055_0004;

/// A VCPU of a [`Vm`] and what executes it: architectural state, cached translations and decoded code. It is
/// run with the VM that it was made with.
#[derive(Debug)]
pub struct Runner {
    vcpu: Vcpu,
    own: Own,
    /// What direct execution needs, once it has begun.
    direct: Option<Box<Direct>>,
    /// The owner's nanoseconds in it.
    direct_ns: u64,
    /// What it has spent of the VM's budget where it visits, and home does not know of.
    abroad: u64,
    /// Nanoseconds of warps in the virtual time that it has seen: where it goes, time is no earlier.
    warped: u64,
}

/// Why an engine stopped.
enum Stop {
    /// As it says itself.
    Engine(interp::Exit),
    /// The owner's time is up.
    Time,
    /// What should be memory does not answer.
    Lost,
}

/// The VM's virtual time.
struct VirtualClock<'a, C> {
    owner: &'a C,
    scale: u64,
    /// Another VCPU may warp it at any time.
    warped: &'a AtomicU64,
}

impl<C: Clock> Clock for VirtualClock<'_, C> {
    #[inline]
    fn now(&self, retired: u64) -> u64 {
        let now = self.owner.now(retired);
        let warped = self.warped.load(Ordering::Relaxed);
        (if self.scale == 1 { now } else { now / self.scale }) + warped
    }

    fn owners(&self, at: u64) -> u64 {
        at.saturating_sub(self.warped.load(Ordering::Relaxed)).saturating_mul(self.scale)
    }
}

impl Runner {
    /// VCPU `number`, in the state in which firmware starts a kernel.
    pub(super) fn new(number: u32, params: &VmParams, entry: Entry) -> Self {
        const STATUS: u32 = 12;
        const A0: usize = 4;
        const SP: usize = 29;
        let mut runner = Self::at_reset(number, params);
        let vcpu = &mut runner.vcpu;
        vcpu.write_cp0(STATUS, 0, STATUS_BEV, 0);
        for (i, value) in entry.args.into_iter().enumerate() {
            vcpu.set_gpr(A0 + i, value);
        }
        vcpu.set_gpr(SP, entry.sp);
        vcpu.set_pc(entry.pc);
        runner
    }

    fn at_reset(number: u32, params: &VmParams) -> Self {
        let pages = code_pages(params.memory, params.vcpus);
        let mut vcpu = Vcpu::with_code_pages(params.model, params.endian, pages);
        vcpu.set_number(number);
        let own = Own::new(number, params.vcpus);
        Self { vcpu, own, direct: None, direct_ns: 0, abroad: 0, warped: 0 }
    }

    /// Runs for at most `limit` instructions (a few more after a warp), all of them interpreted.
    /// Afterwards the owner takes the console's output; a guest whose output is not taken waits for it.
    pub fn run<M: GuestMemory>(&mut self, vm: &Vm<M>, clock: &impl Clock, limit: u64) -> Exit {
        self.run_by(vm, clock, limit, |runner, time, left| {
            let mut port = Port { devices: &vm.devices, own: &mut runner.own };
            let around = vm.around(&mut port, time);
            Stop::Engine(interp::run_until(&mut runner.vcpu, around, Policy::NEVER, left))
        })
    }

    /// Runs until `until` (the owner's time, in nanoseconds) or until `limit` instructions have been
    /// interpreted, whichever comes first; directly on `cpu` what can be. The output is as for
    /// [`Runner::run`].
    pub fn run_on<M: GuestMemory, R: RealCpu>(
        &mut self,
        vm: &Vm<M>,
        cpu: &mut R,
        clock: &impl Clock,
        limit: u64,
        until: u64,
    ) -> Exit {
        self.run_by(vm, clock, limit, |runner, time, left| {
            let Self { vcpu, own, direct, direct_ns, .. } = runner;
            let mut port = Port { devices: &vm.devices, own };
            let around = vm.around(&mut port, time);
            // Where it goes on directly, the direct engine looks at time and interrupts itself.
            if !vm.policy.takes(vcpu) && !vm.policy.translated {
                match interp::run_until(vcpu, around, vm.policy, left) {
                    interp::Exit::Direct => {}
                    other => return Stop::Engine(other),
                }
            }
            let direct = direct.get_or_insert_with(Box::default);
            direct.limit_code(vm.params.code_words);
            let around = vm.around(&mut port, time);
            let before = clock.now(vcpu.retired());
            let exit = direct::run(direct, vcpu, cpu, around, vm.policy, left, until);
            *direct_ns += clock.now(vcpu.retired()).saturating_sub(before);
            match exit {
                direct::Exit::Time => Stop::Time,
                direct::Exit::Lost => Stop::Lost,
                direct::Exit::Interpret => Stop::Engine(interp::Exit::Limit),
                direct::Exit::Wait { until } => Stop::Engine(interp::Exit::Wait { until }),
                direct::Exit::Device => Stop::Engine(interp::Exit::Device),
                direct::Exit::UnreachableVector(what) => {
                    Stop::Engine(interp::Exit::UnreachableVector(what))
                }
            }
        })
    }

    fn run_by<M, C: Clock>(
        &mut self,
        vm: &Vm<M>,
        clock: &C,
        limit: u64,
        mut engine: impl FnMut(&mut Self, &VirtualClock<'_, C>, u64) -> Stop,
    ) -> Exit {
        if let Some(exit) = vm.ended() {
            return exit;
        }
        let mut unreachable = None;
        if let Some(map) = &vm.codes {
            map.runs(self.number(), self.vcpu.posts_read);
        }
        let exit = self.run_stretches(vm, clock, limit, &mut engine, &mut unreachable);
        if let Some(map) = &vm.codes {
            map.rests(self.number());
        }
        self.warped = vm.warped();
        match exit {
            Exit::Limit
            | Exit::Lost
            | Exit::Idle { .. }
            | Exit::Ipi { .. }
            | Exit::Board
            | Exit::Home => exit,
            _ if vm.devices.is_away() => Exit::Home,
            _ => vm.finish(End { exit, by: self.number(), unreachable }),
        }
    }

    /// Its share of what the VM has spent.
    const fn spent(&self) -> u64 {
        self.vcpu.retired().saturating_add(self.direct_ns)
    }

    fn run_stretches<M, C: Clock>(
        &mut self,
        vm: &Vm<M>,
        clock: &C,
        limit: u64,
        engine: &mut impl FnMut(&mut Self, &VirtualClock<'_, C>, u64) -> Stop,
        unreachable: &mut Option<UnreachableVector>,
    ) -> Exit {
        let budget = if vm.params.budget == 0 { u64::MAX } else { vm.params.budget };
        let last = self.vcpu.retired().saturating_add(limit);
        let mut stop = last;
        loop {
            match self.own.end() {
                Some(Request::PowerOff) => return Exit::PowerOff,
                Some(_) => return Exit::Reset,
                None => {}
            }
            if let Some(to) = self.own.take_raised() {
                return Exit::Ipi { to };
            }
            if self.own.take_look() {
                return Exit::Board;
            }
            let spent = vm.spent.load(Ordering::Relaxed);
            if spent >= budget {
                return Exit::Budget;
            }
            let left = stop.saturating_sub(self.vcpu.retired()).min(budget - spent);
            if left == 0 {
                return Exit::Limit;
            }
            let scale = u64::from(vm.params.clock_scale.max(1));
            let time = VirtualClock { owner: clock, scale, warped: vm.devices.warped() };
            let before = self.spent();
            let why = engine(self, &time, left);
            let spent = self.spent() - before;
            vm.spent.fetch_add(spent, Ordering::Relaxed);
            if vm.devices.is_away() {
                self.abroad += spent;
            }
            match why {
                Stop::Engine(interp::Exit::Limit | interp::Exit::Direct) => {}
                Stop::Time => return Exit::Limit,
                Stop::Lost => return Exit::Lost,
                Stop::Engine(interp::Exit::Wait { until }) => {
                    return Exit::Idle { until: until.map(|at| time.owners(at)) };
                }
                Stop::Engine(interp::Exit::UnreachableVector(what)) => {
                    *unreachable = Some(what);
                    return Exit::UnreachableVector;
                }
                Stop::Engine(interp::Exit::Device) if self.own.end().is_some() => {}
                Stop::Engine(interp::Exit::Device) => match self.own.take_request() {
                    Some(Request::Warp(_)) => {
                        // Bounded by `last`, or a guest that only polls would never come back.
                        let grace = self.vcpu.retired().saturating_add(GRACE);
                        stop = stop.max(grace.min(last.saturating_add(GRACE)));
                    }
                    Some(Request::Output) => return Exit::Limit,
                    _ => {}
                },
            }
        }
    }

    /// Appends its state to `out`: everything that [`Runner::restore`] needs to make it anew in another place.
    /// Decoded code and the interpreter's cached translations are not in it.
    pub fn save(&mut self, out: &mut Vec<u64>) {
        let saved = self.write(out);
        debug_assert_eq!(saved, Ok(()));
    }

    fn write(&mut self, out: &mut Vec<u64>) -> Result<(), StateError> {
        out.push(VERSION);
        self.vcpu.save(out)?;
        self.own.visit(&mut Saver(out))?;
        let mut is_direct = self.direct.is_some();
        Saver(out).count(&mut self.direct_ns)?;
        Saver(out).all(&mut [self.abroad, self.warped])?;
        Saver(out).bool(&mut is_direct)?;
        match &mut self.direct {
            Some(direct) => direct.save(&mut self.vcpu, out),
            None => Ok(()),
        }
    }

    /// VCPU `number` of `vm`, at home or visited, from what [`Runner::save`] has written elsewhere. `find` tells where in the
    /// machine memory of this VM lies, if that is known here.
    ///
    /// # Errors
    /// When the words are not the state of that VCPU.
    pub fn restore<M>(
        vm: &Vm<M>,
        number: u32,
        words: &[u64],
        find: &mut dyn FnMut(Gpa) -> Option<Mpa>,
    ) -> Result<Self, StateError> {
        check(number < vm.params.vcpus, "its number")?;
        let mut words = Restorer(words);
        if *words.take()? != [VERSION] {
            return Err(StateError::Version);
        }
        let mut runner = Self::at_reset(number, &vm.params);
        runner.vcpu.restore(&mut words)?;
        if let Some(map) = &vm.codes {
            // Code that others keep is not known to this one yet.
            runner.vcpu.posts_read = map.posts();
            runner.vcpu.set_verifies(map.is_scattered());
        }
        runner.own.visit(&mut words)?;
        let mut is_direct = false;
        words.count(&mut runner.direct_ns)?;
        words.count(&mut runner.abroad)?;
        words.count(&mut runner.warped)?;
        words.bool(&mut is_direct)?;
        if is_direct {
            runner.direct = Some(Box::new(Direct::restore(&mut words, &mut runner.vcpu, find)?));
        }
        if !words.0.is_empty() {
            return Err(StateError::Long);
        }
        if !vm.devices.is_away() {
            vm.spent.fetch_add(core::mem::take(&mut runner.abroad), Ordering::Relaxed);
        }
        vm.warp_to(runner.warped);
        if number == 0 {
            // What it was told when it was here before may no longer be so.
            vm.look();
        }
        Ok(runner)
    }

    /// Raises its interrupt of the IPI device ([`abi::ipi`]).
    pub const fn interrupt(&mut self) {
        self.own.interrupt();
    }

    /// Some of the VM's pages of RAM, given by their numbers, lie elsewhere from now on, or nowhere: nothing
    /// that the VCPU has derived from where they were is used again. To be called while it does not run,
    /// of all VCPUs, before the pages are used for anything else.
    pub fn forget(&mut self, pages: Range<u32>) {
        let bytes = [pages.start, pages.end].map(|page| u64::from(page) << PAGE_SHIFT);
        let at = |base: u64| Gpa(base + bytes[0])..Gpa(base + bytes[1]);
        self.vcpu.forget(&[at(0), at(ram::HIGH)]);
    }

    /// Its number among the VM's VCPUs.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.own.number()
    }

    /// Instructions executed.
    #[must_use]
    pub const fn retired(&self) -> u64 {
        self.vcpu.retired()
    }

    /// Nanoseconds of the owner's time in direct execution, what its traps took included.
    #[must_use]
    pub const fn direct_ns(&self) -> u64 {
        self.direct_ns
    }

    /// What direct execution has counted, if it has begun.
    #[must_use]
    pub fn direct_counters(&self) -> Option<&direct::Counters> {
        self.direct.as_deref().map(Direct::counters)
    }

    /// What translation has counted, if it has begun.
    #[must_use]
    pub fn translations(&self) -> Option<&direct::Translations> {
        self.direct.as_deref().and_then(Direct::translations)
    }

    /// Whether it is interpreted where it should be translated, because it found no heap for that.
    #[must_use]
    pub fn lacks_heap(&self) -> bool {
        self.direct.as_deref().is_some_and(Direct::lacks_heap)
    }

    /// The VCPU.
    #[must_use]
    pub const fn vcpu(&self) -> &Vcpu {
        &self.vcpu
    }

    /// The VCPU, to change it from outside (tests, debuggers, taking pages away).
    pub const fn vcpu_mut(&mut self) -> &mut Vcpu {
        &mut self.vcpu
    }

    /// Where the VCPU is and, if the VM has ended, why, for a person.
    #[must_use]
    pub fn report<M: GuestMemory>(&self, vm: &Vm<M>) -> Report {
        Report::new(&self.vcpu, &vm.memory, *vm.end.lock())
    }
}
