//! A virtual machine: one VCPU, the board, memory, and one virtual time for all of them.
//!
//! **Time.** The owner's clock counts nanoseconds since the VM was made. The VM's virtual time is that,
//! divided by `clock_scale`, plus what warps have added (see [`crate::board::rtc`]). Count, the RTC
//! and every device derive from it, so that no two clocks of a guest disagree.
//!
//! **Determinism.** With equal images, parameters, clock answers, limits and input, two runs are equal
//! to the last bit.

#[cfg(test)]
mod hostile;
mod report;
#[cfg(test)]
mod tests;

use crate::board::{Board, Request};
use crate::cpu::{CODE_PAGE_HEAP, CpuModel, Vcpu};
use crate::direct::{self, Direct, L2TLB_SIZE, Policy, RealCpu};
use crate::endian::Endian;
use crate::image::{Entry, ImageError, Images, Plan};
use crate::interp::{self, Around, UnreachableVector};
use crate::mem::GuestMemory;
use crate::time::Clock;
use abi::PAGE_SIZE;
use alloc::boxed::Box;
pub use report::Report;

/// How far a run may pass its limit so as not to be interrupted right after a warp: between the
/// edge that a kernel polls for and its look at Count nothing else should run.
const GRACE: u64 = 1000;

/// Status at entry: the boot vectors, and nothing else.
const STATUS_BEV: u64 = 1 << 22;

/// What may execute a VM's instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// Whatever is fastest where the VM runs.
    #[default]
    Auto,
    /// The interpreter only.
    Interpreter,
}

/// What a VM is made of.
#[derive(Clone, Debug)]
pub struct VmParams {
    /// Its byte order.
    pub endian: Endian,
    /// Its processor.
    pub model: CpuModel,
    /// Bytes of RAM.
    pub memory: u64,
    /// What its real-time clock shows at the start, in seconds since 1970.
    pub epoch_s: u64,
    /// Most bytes its console emits in a virtual second.
    pub console_rate: u64,
    /// How much slower than the owner's its clock goes (at least 1).
    pub clock_scale: u32,
    /// Most instructions it may execute; 0: no limit.
    pub budget: u64,
    /// For the kernel's random number generator.
    pub seed: [u8; 32],
    /// What may execute its instructions. (On a machine without direct execution both choices mean
    /// the interpreter.)
    pub engine: Engine,
}

/// Why a VM stopped running. All but the first two are the end of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The limit is reached, or console output should be taken before it goes on.
    Limit,
    /// It waits for an interrupt.
    Idle {
        /// When one comes by itself, in the owner's time; `None`: only input brings one.
        until: Option<u64>,
    },
    /// The guest switched its machine off.
    PowerOff,
    /// The guest reset its machine.
    Reset,
    /// The budget is used up.
    Budget,
    /// The handler of an exception can't be fetched: nothing would ever happen again.
    UnreachableVector,
}

/// A virtual machine.
#[derive(Debug)]
pub struct Vm<M> {
    params: VmParams,
    memory: M,
    vcpu: Vcpu,
    board: Board,
    /// Virtual nanoseconds that warps have added.
    warped: u64,
    /// How it ended.
    ended: Option<Exit>,
    /// Which vector could not be fetched.
    unreachable: Option<UnreachableVector>,
    /// What runs directly where there is a real CPU.
    policy: Policy,
    /// What that needs, once it has begun.
    direct: Option<Box<Direct>>,
    /// The owner's nanoseconds in direct execution.
    direct_ns: u64,
}

/// Why an engine stopped.
enum Stop {
    /// As it says itself.
    Engine(interp::Exit),
    /// The owner's time is up.
    Time,
}

/// The VM's virtual time.
struct VirtualClock<'a, C> {
    owner: &'a C,
    scale: u64,
    warped: u64,
}

impl<C: Clock> Clock for VirtualClock<'_, C> {
    #[inline]
    fn now(&self, retired: u64) -> u64 {
        let now = self.owner.now(retired);
        (if self.scale == 1 { now } else { now / self.scale }) + self.warped
    }

    fn owners(&self, at: u64) -> u64 {
        at.saturating_sub(self.warped).saturating_mul(self.scale)
    }
}

/// Decoded pages that a VM of `memory` bytes keeps: one for each 32 pages, within bounds. What a small
/// VM executes is small too; beyond 4 MB of them the stock kernel gains nothing.
const fn code_pages(memory: u64) -> usize {
    let pages = memory / PAGE_SIZE / 32;
    if pages < 32 {
        32
    } else if pages > 512 {
        512
    } else {
        pages as usize
    }
}

/// Heap that a VM of `memory` bytes takes at most, in bytes: decoded pages, the L2TLB where it finds its
/// alignment, and a megabyte for TLB, cached translations and devices.
#[must_use]
pub const fn heap_needed(memory: u64) -> usize {
    (code_pages(memory) * CODE_PAGE_HEAP) + 2 * L2TLB_SIZE + (1 << 20)
}

impl<M: GuestMemory> Vm<M> {
    /// A VM at reset. `memory` answers for `params.memory` bytes of RAM at the addresses that
    /// [`crate::board::ram`] tells, all zero.
    #[must_use]
    pub fn new(params: VmParams, memory: M) -> Self {
        Self {
            vcpu: Vcpu::with_code_pages(params.model, params.endian, code_pages(params.memory)),
            board: Board::new(params.endian, params.epoch_s, params.console_rate),
            params,
            memory,
            warped: 0,
            ended: None,
            unreachable: None,
            policy: Policy::NEVER,
            direct: None,
            direct_ns: 0,
        }
    }

    /// Loads images and lets the VCPU begin where the kernel does.
    ///
    /// # Errors
    /// When an image is not what it should be, or memory is missing.
    pub fn load(&mut self, images: &Images<'_>) -> Result<(), ImageError> {
        let params = &self.params;
        let plan = Plan::new(images, params.endian, params.memory, &params.seed)?;
        plan.load(images, &self.memory)?;
        self.enter(plan.entry());
        self.policy = Policy { user: true, kernel: plan.is_supervisor_linked(), exceptions: false };
        Ok(())
    }

    /// Puts the VCPU in the state in which firmware starts a kernel.
    fn enter(&mut self, entry: Entry) {
        const STATUS: u32 = 12;
        const A0: usize = 4;
        const SP: usize = 29;
        self.vcpu.write_cp0(STATUS, 0, STATUS_BEV, 0);
        for (i, value) in entry.args.into_iter().enumerate() {
            self.vcpu.set_gpr(A0 + i, value);
        }
        self.vcpu.set_gpr(SP, entry.sp);
        self.vcpu.set_pc(entry.pc);
    }

    /// Runs for at most `limit` instructions (a few more after a warp), all of them interpreted.
    /// Afterwards the owner takes the console's output; a guest whose output is not taken waits for it.
    pub fn run(&mut self, clock: &impl Clock, limit: u64) -> Exit {
        self.run_by(clock, limit, |vm, time, left| {
            let around = Around { mem: &vm.memory, bus: &mut vm.board, clock: time };
            Stop::Engine(interp::run_until(&mut vm.vcpu, around, Policy::NEVER, left))
        })
    }

    /// Runs until `until` (the owner's time, in nanoseconds) or until `limit` instructions have been
    /// interpreted, whichever comes first; directly on `cpu` what can be. The output is as for
    /// [`Vm::run`].
    pub fn run_on<R: RealCpu>(
        &mut self,
        cpu: &mut R,
        clock: &impl Clock,
        limit: u64,
        until: u64,
    ) -> Exit {
        self.run_by(clock, limit, |vm, time, left| {
            let around = Around { mem: &vm.memory, bus: &mut vm.board, clock: time };
            match interp::run_until(&mut vm.vcpu, around, vm.policy, left) {
                interp::Exit::Direct => {}
                other => return Stop::Engine(other),
            }
            let direct = vm.direct.get_or_insert_with(Box::default);
            let around = Around { mem: &vm.memory, bus: &mut vm.board, clock: time };
            let before = clock.now(vm.vcpu.retired());
            let exit = direct::run(direct, &mut vm.vcpu, cpu, around, vm.policy, left, until);
            vm.direct_ns += clock.now(vm.vcpu.retired()).saturating_sub(before);
            match exit {
                direct::Exit::Time => Stop::Time,
                direct::Exit::Interpret => Stop::Engine(interp::Exit::Limit),
                direct::Exit::Wait { until } => Stop::Engine(interp::Exit::Wait { until }),
                direct::Exit::Device => Stop::Engine(interp::Exit::Device),
                direct::Exit::UnreachableVector(what) => {
                    Stop::Engine(interp::Exit::UnreachableVector(what))
                }
            }
        })
    }

    fn run_by<C: Clock>(
        &mut self,
        clock: &C,
        limit: u64,
        mut engine: impl FnMut(&mut Self, &VirtualClock<'_, C>, u64) -> Stop,
    ) -> Exit {
        if let Some(end) = self.ended {
            return end;
        }
        let exit = self.run_stretches(clock, limit, &mut engine);
        if !matches!(exit, Exit::Limit | Exit::Idle { .. }) {
            self.ended = Some(exit);
        }
        exit
    }

    /// Instructions that count against the budget: direct execution counts one a nanosecond, which is
    /// exact under icount.
    const fn spent(&self) -> u64 {
        self.vcpu.retired().saturating_add(self.direct_ns)
    }

    fn run_stretches<C: Clock>(
        &mut self,
        clock: &C,
        limit: u64,
        engine: &mut impl FnMut(&mut Self, &VirtualClock<'_, C>, u64) -> Stop,
    ) -> Exit {
        let budget = if self.params.budget == 0 { u64::MAX } else { self.params.budget };
        let last = self.vcpu.retired().saturating_add(limit);
        let mut stop = last;
        loop {
            if self.spent() >= budget {
                return Exit::Budget;
            }
            let left = stop.saturating_sub(self.vcpu.retired()).min(budget - self.spent());
            if left == 0 {
                return Exit::Limit;
            }
            let scale = u64::from(self.params.clock_scale.max(1));
            let time = VirtualClock { owner: clock, scale, warped: self.warped };
            match engine(self, &time, left) {
                Stop::Engine(interp::Exit::Limit | interp::Exit::Direct) => {}
                Stop::Time => return Exit::Limit,
                Stop::Engine(interp::Exit::Wait { until }) => {
                    return Exit::Idle { until: until.map(|at| time.owners(at)) };
                }
                Stop::Engine(interp::Exit::UnreachableVector(what)) => {
                    self.unreachable = Some(what);
                    return Exit::UnreachableVector;
                }
                Stop::Engine(interp::Exit::Device) => match self.board.take_request() {
                    Some(Request::PowerOff) => return Exit::PowerOff,
                    Some(Request::Reset) => return Exit::Reset,
                    Some(Request::Warp(ns)) => {
                        self.warped = self.warped.saturating_add(ns);
                        // Bounded by `last`, or a guest that only polls would never come back.
                        let grace = self.vcpu.retired().saturating_add(GRACE);
                        stop = stop.max(grace.min(last.saturating_add(GRACE)));
                    }
                    Some(Request::Output) => return Exit::Limit,
                    None => {}
                },
            }
        }
    }

    /// Types at the console; how many bytes were taken (the queue is bounded).
    pub fn input(&mut self, bytes: &[u8]) -> usize {
        self.board.input(bytes)
    }

    /// Hands over what the console has printed since the last call.
    pub fn take_output(&mut self, sink: &mut dyn FnMut(&[u8])) {
        self.board.take_output(sink);
    }

    /// Instructions executed.
    #[must_use]
    pub fn retired(&self) -> u64 {
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

    /// Virtual nanoseconds that warps have added to the VM's time.
    #[must_use]
    pub const fn warped(&self) -> u64 {
        self.warped
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

    /// The memory.
    #[must_use]
    pub const fn memory(&self) -> &M {
        &self.memory
    }

    /// Where the VM is and why, for a person.
    #[must_use]
    pub fn report(&self) -> Report {
        Report::new(&self.vcpu, &self.memory, self.ended, self.unreachable)
    }
}
