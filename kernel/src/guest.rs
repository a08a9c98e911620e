//! A VM as the cell sees it: [`cell::vm::Guest`] and [`cell::vm::Vcpu`] over a virtual machine of
//! `vmm-core`, in memory that the cell's pmap maps.

use crate::admission;
use crate::memory::Memory;
use crate::{clock, cpus, direct, doorbell, lost, page};
use abi::{CellId, Mpa, NodeId, config};
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use cell::Created;
use cell::loan::Payload;
use cell::pmap::{Pmap, Replica};
use cell::visit::{Ask, Told, Whom};
use cell::vm::{Exit, Guest, Vcpu};
use core::ops::Range;
use vmm_core::cpu::CpuModel;
use vmm_core::endian::Endian;
use vmm_core::image::Images;
use vmm_core::time::Clock;
use vmm_core::vm::heap::{Admission, Grant};
use vmm_core::vm::{self, Answer, Call, Home, Runner, Vm, VmParams};

/// Guest instructions that are interpreted between two looks at the machine's clock: well below a
/// millisecond.
const CHUNK: u64 = 4096;

/// The machine's clock, from a VM's beginning.
struct Since(u64);

impl Clock for Since {
    #[inline]
    fn now(&self, _: u64) -> u64 {
        clock::now() - self.0
    }
}

/// A running VM: what its VCPUs share, at home or where they visit.
pub(crate) struct LocalGuest {
    vm: Arc<Vm<Memory>>,
    /// When its life began, in nanoseconds since power-on.
    start: u64,
    /// Why it is slower than it could be.
    remark: Option<String>,
    /// What it has of the heap that is for translation.
    _grant: Option<Grant>,
}

/// The home of a VM whose VCPUs visit this cell.
struct AtHome {
    home: CellId,
    whom: Whom,
}

impl Home for AtHome {
    fn ask(&self, call: &Call) -> Option<Answer> {
        let ask = Ask::Device(Payload::new(&call.encode()));
        match cpus::ask(self.home, self.whom, &ask)? {
            Told::Device(answer) => Answer::decode(answer.as_slice()),
            _ => None,
        }
    }
}

/// One of its VCPUs.
pub(crate) struct LocalVcpu {
    vm: Arc<Vm<Memory>>,
    runner: Runner,
    clock: Since,
    /// How often `rdhwr $29` was answered on the way.
    thread_reads: u64,
    /// It has read from memory that does not answer, and nothing that it does means anything any more: it stands still until
    /// its VM is ended.
    lost: bool,
}

/// How often a VCPU that lacks memory looks whether its VM has been ended, in nanoseconds.
const LOST_NS: u64 = 1_000_000;

/// What of the configuration and the run a VM needs beside its own entry.
pub(crate) struct Surroundings {
    /// Most bytes its console emits in a virtual second.
    pub(crate) console_rate: u64,
    /// What its clock shows now, in seconds since 1970.
    pub(crate) epoch_s: u64,
    /// For the kernel's random number generator.
    pub(crate) seed: [u8; 32],
}

impl LocalGuest {
    /// Makes a VM and loads its images.
    ///
    /// # Errors
    /// Why the images can't be loaded.
    pub(crate) fn new(
        config: &config::Vm,
        around: &Surroundings,
        admission: Admission,
        pmap: &Arc<Pmap>,
        images: &Images<'_>,
    ) -> Result<Created<Self>, String> {
        let memory = Memory::Own(Arc::clone(pmap));
        let params = params(config, around, &admission);
        let (vm, runners) = Vm::new(params, memory, images).map_err(|error| error.to_string())?;
        let guest = Self::made(vm, clock::now(), admission);
        let vcpus = runners.into_iter().map(|runner| guest.vcpu(runner, 0)).collect();
        Ok((guest, vcpus))
    }

    /// Makes a VM for VCPUs that visit, whose life began at `start`; `shared` is what [`Guest::share`] has written at
    /// its home.
    ///
    /// # Errors
    /// Why that is no such thing.
    pub(crate) fn visited(
        config: &config::Vm,
        around: &Surroundings,
        admission: Admission,
        replica: &Arc<Replica>,
        start: u64,
        shared: &[u64],
    ) -> Result<Self, String> {
        let whom = Whom { vm: replica.vm(), life: replica.life() };
        let home = Box::new(AtHome { home: replica.home(), whom });
        let memory = Memory::Visited(Arc::clone(replica));
        let params = params(config, around, &admission);
        let vm = Vm::visited(params, memory, home, shared).map_err(|error| error.to_string())?;
        Ok(Self::made(vm, start, admission))
    }

    fn made(vm: Vm<Memory>, start: u64, admission: Admission) -> Self {
        let remark = admission.lack.map(admission::remark);
        Self { vm: Arc::new(vm), start, remark, _grant: admission.grant }
    }

    fn vcpu(&self, runner: Runner, thread_reads: u64) -> Box<LocalVcpu> {
        let vm = Arc::clone(&self.vm);
        Box::new(LocalVcpu { vm, runner, clock: Since(self.start), thread_reads, lost: false })
    }
}

/// What the virtual machine of a configured VM is made of.
fn params(config: &config::Vm, around: &Surroundings, admission: &Admission) -> VmParams {
    VmParams {
        endian: Endian::NATIVE,
        model: match config.cpu {
            config::Cpu::Honeycomb => CpuModel::honeycomb(),
            config::Cpu::Generic => CpuModel::mips64r2_generic(),
        },
        vcpus: config.vcpus,
        memory: config.memory,
        epoch_s: around.epoch_s,
        console_rate: around.console_rate,
        clock_scale: config.clock_scale,
        budget: config.budget,
        seed: around.seed,
        engine: admission.engine,
        code_words: admission.code_words,
    }
}

impl LocalVcpu {
    fn run_on_this_cpu(&mut self, until: u64) -> vm::Exit {
        let epoch = self.clock.0;
        let before = direct::thread_reads();
        let mut cpu = direct::this_cpu(epoch);
        let until = until.saturating_sub(epoch);
        let exit = self.runner.run_on(&self.vm, &mut *cpu, &self.clock, CHUNK, until);
        page::set_space(0);
        self.thread_reads += direct::thread_reads() - before;
        exit
    }

    fn ended(&self, cause: abi::event::Cause) -> Exit {
        Exit::Ended { cause, report: self.runner.report(&self.vm).to_string() }
    }
}

impl Vcpu for LocalVcpu {
    fn run(&mut self, until: u64) -> Exit {
        use abi::event::Cause;
        loop {
            if self.lost {
                return Exit::Idle { until: Some(clock::now() + LOST_NS) };
            }
            let before = self.runner.retired();
            let look = clock::now() + doorbell::tick();
            // What was lost before was not this VCPU's.
            lost::take();
            let exit = self.run_on_this_cpu(until.min(look));
            if lost::take() {
                self.lost = true;
                continue;
            }
            match exit {
                // It is tried again.
                vm::Exit::Lost => return Exit::Idle { until: Some(clock::now() + LOST_NS) },
                vm::Exit::Limit => {
                    // Less than was asked for: there is output to be taken.
                    let now = clock::now();
                    let early = self.runner.retired() - before < CHUNK && now < look;
                    if early || doorbell::is_rung() || now >= until {
                        return Exit::Slice;
                    }
                    if now >= look {
                        doorbell::unheard();
                    }
                }
                vm::Exit::Idle { until } => {
                    return Exit::Idle { until: until.map(|t| t.saturating_add(self.clock.0)) };
                }
                vm::Exit::Ipi { to } => return Exit::Send { to },
                vm::Exit::Board => return Exit::Board,
                vm::Exit::Home => return Exit::Home,
                vm::Exit::PowerOff => return self.ended(Cause::PowerOff),
                vm::Exit::Reset => return self.ended(Cause::Reset),
                vm::Exit::Budget => return self.ended(Cause::Budget),
                vm::Exit::UnreachableVector => return self.ended(Cause::UnreachableVector),
            }
        }
    }

    fn interrupt(&mut self) {
        self.runner.interrupt();
    }

    fn forget(&mut self, pages: Range<u32>) {
        self.runner.forget(pages);
    }

    fn instructions(&self) -> u64 {
        self.runner.retired()
    }

    fn counters(&self, each: &mut dyn FnMut(&'static str, u64)) {
        if let Some(counters) = self.runner.direct_counters() {
            each("direct ms", self.runner.direct_ns() / 1_000_000);
            counters.each(each);
            each("thread reads", self.thread_reads);
        }
        if let Some(translations) = self.runner.translations() {
            translations.each(each);
        }
        if self.runner.lacks_heap() {
            each("without heap", 1);
        }
    }
}

impl Guest for LocalGuest {
    type Vcpu = LocalVcpu;

    fn input(&self, bytes: &[u8]) -> usize {
        self.vm.input(bytes)
    }

    fn take_output(&self, sink: &mut dyn FnMut(&[u8])) {
        self.vm.take_output(sink);
    }

    fn counters(&self, each: &mut dyn FnMut(&'static str, u64)) {
        each("warped ms", self.vm.warped() / 1_000_000);
    }

    fn kernel_engine(&self) -> &'static str {
        self.vm.kernel_engine()
    }

    fn remark(&self) -> Option<&str> {
        self.remark.as_deref()
    }

    fn place(&self, page: u32, node: NodeId) -> Option<Mpa> {
        self.vm.memory().place(page, node)
    }

    fn find(&self, page: u32) -> Option<Mpa> {
        self.vm.memory().get(page)
    }

    fn serve(&self, call: &[u64]) -> Option<(Payload, bool)> {
        let (answer, look) = self.vm.serve(&Call::decode(call)?);
        Some((Payload::new(&answer.encode()), look))
    }

    fn share(&self, out: &mut Vec<u64>) {
        self.vm.share(out);
    }

    fn gather(&self) {
        self.vm.gather();
    }

    fn save(&self, vcpu: &mut LocalVcpu, out: &mut Vec<u64>) {
        out.push(vcpu.thread_reads);
        vcpu.runner.save(out);
    }

    fn restore(&self, index: u32, state: &[u64]) -> Result<Box<LocalVcpu>, String> {
        let (&thread_reads, state) = state.split_first().ok_or("no state")?;
        let mut find = |gpa| self.vm.memory().find(gpa);
        let runner = Runner::restore(&self.vm, index, state, &mut find);
        Ok(self.vcpu(runner.map_err(|error| error.to_string())?, thread_reads))
    }

    fn look(&self) {
        self.vm.look();
    }

    fn warped(&self) -> u64 {
        self.vm.warped()
    }

    fn warp_to(&self, ns: u64) {
        self.vm.warp_to(ns);
    }
}
