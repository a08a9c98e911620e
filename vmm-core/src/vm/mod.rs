//! A virtual machine: what its VCPUs share, [`Vm`], and each of them with what executes it, [`Runner`].
//!
//! **Sharing.** A [`Vm`] is used by reference, from several CPUs at once; a [`Runner`] is owned by one at a
//! time. Memory is accessed as guests expect of a multiprocessor ([`crate::mem`]), devices one access
//! at a time, and nothing else is shared but a few counters. So VCPUs run at the same time on different
//! CPUs, or in turn on one, as the owner likes.
//!
//! **Time.** The owner's clock counts nanoseconds since the VM was made. The VM's virtual time is that,
//! divided by `clock_scale`, plus what warps have added (see [`crate::board::rtc`]). Count of every VCPU,
//! the RTC and every device derive from it, so that no two clocks of a guest disagree.
//!
//! **Determinism.** With equal images, parameters, clock answers, limits and input, and, of several VCPUs,
//! equal turns, two runs are equal to the last bit.

pub mod away;
mod devices;
pub mod heap;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod moved;
mod report;
mod runner;
#[cfg(test)]
mod smp;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod visits;

use crate::board::Board;
use crate::cpu::CpuModel;
use crate::direct::Policy;
use crate::endian::Endian;
use crate::image::{ImageError, Images, Plan};
use crate::interp::{Around, CodeMap, UnreachableVector};
use crate::mem::GuestMemory;
use crate::time::Clock;
use alloc::vec::Vec;
pub use away::{Answer, Call, Home};
use core::sync::atomic::{AtomicU64, Ordering};
use devices::{Devices, Port};
pub use report::Report;
pub use runner::Runner;
use spin::mutex::SpinMutex;

/// Most VCPUs that a VM has.
pub const VCPUS_MAX: u32 = 16;

/// What may execute a VM's instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// The real CPU what it can, the interpreter the rest.
    #[default]
    Direct,
    /// The interpreter only.
    Interpreter,
    /// As [`Engine::Direct`], and kernel mode by the translator where it can't run directly. (A VCPU that finds no heap
    /// for its translated code is interpreted there.)
    Translator,
}

/// What a VM is made of.
#[derive(Clone, Debug)]
pub struct VmParams {
    /// Its byte order.
    pub endian: Endian,
    /// Its processors …
    pub model: CpuModel,
    /// … and how many of them: 1 to [`VCPUS_MAX`] (what lies outside counts as the nearest of these).
    pub vcpus: u32,
    /// Bytes of RAM.
    pub memory: u64,
    /// What its real-time clock shows at the start, in seconds since 1970.
    pub epoch_s: u64,
    /// Most bytes its console emits in a virtual second.
    pub console_rate: u64,
    /// How much slower than the owner's its clock goes (at least 1).
    pub clock_scale: u32,
    /// Most instructions that its VCPUs may execute together; 0: no limit. (Where several run at the same
    /// time, it is noticed only between two stretches of one of them.)
    pub budget: u64,
    /// For the kernel's random number generator.
    pub seed: [u8; 32],
    /// What may execute its instructions. (On a machine without direct execution every choice means
    /// the interpreter.)
    pub engine: Engine,
    /// Most words of translated code that each of its VCPUs keeps ([`heap::Admission`]).
    pub code_words: usize,
}

/// Why a VCPU stopped running. From [`Exit::PowerOff`] on they are the end of the VM: whichever VCPU is run then
/// answers the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The limit is reached, or console output should be taken before it goes on.
    Limit,
    /// It waits for an interrupt.
    Idle {
        /// When one comes by itself, in the owner's time; `None`: only input brings one.
        until: Option<u64>,
    },
    /// It has raised the interrupt of another VCPU: the owner calls that one's [`Runner::interrupt`].
    Ipi {
        /// The other's number.
        to: u32,
    },
    /// By what it did, the board has, or will have, an interrupt for VCPU 0: that one, if it waits or runs
    /// elsewhere, should be run anew.
    Board,
    /// It visits ([`away`]), and has come to what ends the VM: it is to be moved home and run there, where it comes
    /// to the same again.
    Home,
    /// A page of its memory does not answer: the machine has lost it. The VCPU stands before the instruction that wanted it.
    Lost,
    /// The guest switched its machine off.
    PowerOff,
    /// The guest reset its machine.
    Reset,
    /// The budget is used up.
    Budget,
    /// The handler of an exception can't be fetched: nothing would ever happen again.
    UnreachableVector,
}

/// How a VM ended.
#[derive(Clone, Copy, Debug)]
struct End {
    exit: Exit,
    /// The VCPU that ended it.
    by: u32,
    /// Which vector it could not fetch.
    unreachable: Option<UnreachableVector>,
}

/// What the VCPUs of a virtual machine share.
#[derive(Debug)]
pub struct Vm<M> {
    params: VmParams,
    memory: M,
    devices: Devices,
    /// How stores of one VCPU reach code that another has decoded, where there are several.
    codes: Option<CodeMap>,
    /// Instructions that count against the budget: direct execution counts one a nanosecond, which is
    /// exact under icount.
    spent: AtomicU64,
    /// How it ended.
    end: SpinMutex<Option<End>>,
    /// What runs directly where there is a real CPU.
    policy: Policy,
}

impl<M: GuestMemory> Vm<M> {
    /// A VM with its images loaded, and its VCPUs, by number, all of them where the kernel begins.
    /// `memory` answers for `params.memory` bytes of RAM at the addresses that [`crate::board::ram`] tells,
    /// all zero.
    ///
    /// # Errors
    /// When an image is not what it should be, or memory is missing.
    pub fn new(
        mut params: VmParams,
        memory: M,
        images: &Images<'_>,
    ) -> Result<(Self, Vec<Runner>), ImageError> {
        params.vcpus = params.vcpus.clamp(1, VCPUS_MAX);
        let plan = Plan::new(images, params.endian, params.memory, &params.seed)?;
        plan.load(images, &memory)?;
        let runners = (0..params.vcpus).map(|number| Runner::new(number, &params, plan.entry()));
        let runners = runners.collect();
        let policy = match params.engine {
            Engine::Interpreter => Policy::NEVER,
            engine => {
                let kernel = plan.is_supervisor_linked();
                // (Of a VCPU that has an address everywhere, only what has none that is real.)
                let fits = !kernel || crate::direct::can_translate_linked(&params.model);
                let translated = engine == Engine::Translator && fits;
                Policy { user: true, kernel, exceptions: kernel, translated }
            }
        };
        let board = Board::new(params.endian, params.epoch_s, params.console_rate);
        let vm = Self {
            devices: Devices::new(board, params.endian),
            codes: (params.vcpus > 1).then(|| CodeMap::new(params.memory, params.vcpus)),
            params,
            memory,
            spent: AtomicU64::new(0),
            end: SpinMutex::new(None),
            policy,
        };
        Ok((vm, runners))
    }

    /// What a VCPU has around it.
    fn around<'a>(&'a self, port: &'a mut Port<'_>, clock: &'a dyn Clock) -> Around<'a> {
        Around { mem: &self.memory, bus: port, clock, others: self.codes.as_ref() }
    }
}

impl<M> Vm<M> {
    /// Types at the console, at home; how many bytes were taken (the queue is bounded). VCPU 0, if it waits,
    /// should be run anew, and if it visits, [`Vm::look`].
    pub fn input(&self, bytes: &[u8]) -> usize {
        self.devices.input(bytes)
    }

    /// Hands over what the console has printed since the last call, at home. VCPU 0, if it visits and there was any,
    /// should [`Vm::look`]: a transmitter that was held goes on.
    pub fn take_output(&self, sink: &mut dyn FnMut(&[u8])) {
        self.devices.take_output(sink);
    }

    /// Virtual nanoseconds that warps have added to the VM's time.
    #[must_use]
    pub fn warped(&self) -> u64 {
        self.devices.warped().load(Ordering::Relaxed)
    }

    /// How many VCPUs there are.
    #[must_use]
    pub const fn vcpus(&self) -> u32 {
        self.params.vcpus
    }

    /// The memory.
    #[must_use]
    pub const fn memory(&self) -> &M {
        &self.memory
    }

    /// What executes its kernel mode where there is a real CPU.
    #[must_use]
    pub const fn kernel_engine(&self) -> &'static str {
        match self.policy {
            Policy { kernel: true, translated: true, .. } => "direct, translated where it is hot",
            Policy { kernel: true, .. } => "direct",
            Policy { translated: true, .. } => "translated",
            _ => "interpreted",
        }
    }

    /// How it has ended, if it has: an exit from [`Exit::PowerOff`] on.
    #[must_use]
    pub fn ended(&self) -> Option<Exit> {
        self.end.lock().map(|end| end.exit)
    }

    /// It ends so, unless it has already; how it has.
    fn finish(&self, end: End) -> Exit {
        self.end.lock().get_or_insert(end).exit
    }
}
