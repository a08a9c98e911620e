//! The interpreter: the reference engine.
//!
//! It executes *decoded pages* ([`CodeCache`]): a fetch is translated once per page entered, not once
//! per instruction. The inner loop walks a slice of the page, the *segment*, whose end is the page's
//! end or that of the allowance of instructions, so that one comparison an instruction bounds
//! everything. A taken branch shortens the segment to its delay slot; when a segment ends in a delay
//! slot, execution goes on at the target. So no instruction pays for delay slots, interrupts, limits
//! or page ends.
//!
//! Interrupts and time are looked at when a run starts, after [`POLL`] instructions, and after what
//! may change them (a system instruction, a store to a device).
//!
//! State is exact at every exit: an instruction is executed or not, and each that is executed, or
//! ends in an exception, counts one in [`Vcpu::retired`].

mod code;
mod codemap;
mod exec;
mod hot;
mod memory;
mod softtlb;
#[cfg(test)]
pub(crate) mod tests;
mod wary;
mod watched;

pub use code::CodeCache;
pub(crate) use code::Watch;
pub(crate) use codemap::CodeMap;
pub(crate) use hot::{HEAP as HOT_HEAP, Hot};
pub use softtlb::SoftTlb;

use crate::bus::Bus;
use crate::cpu::{Access, ExcCode, Exception, Status, Trap, Vcpu};
use crate::direct::Policy;
use crate::emulate::Data;
use crate::endian::Endian;
use crate::mem::{GuestMemory, Page};
use crate::time::Clock;
use abi::{Gpa, PAGE_SIZE};
use codemap::Post;
use hot::Counted;
use wary::Trusted;

/// Instructions between two looks at the clock and the interrupt lines, at most.
pub const POLL: u64 = 1024;

/// Failed fetches from one vector, with nothing executed in between, that prove that it will never
/// be fetched: refill vector, general vector, general vector again.
const VECTOR_FAULTS: u32 = 3;

/// Why a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The limit of instructions is reached.
    Limit,
    /// The VCPU waits for an interrupt; nothing happens before virtual time `until` (nanoseconds),
    /// or ever, unless input comes from outside.
    Wait {
        /// When the timer or a device wants to be asked again.
        until: Option<u64>,
    },
    /// A device asked for the exit ([`Bus::wants_exit`]).
    Device,
    /// The exception vector can't be fetched: the VCPU would take exceptions for ever.
    UnreachableVector(UnreachableVector),
    /// What comes next is to run directly.
    Direct,
}

/// What is known when an exception vector can't be fetched. (The registers are in the [`Vcpu`].)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnreachableVector {
    /// The vector's address.
    pub vector: u64,
    /// The exception that the fetch from it causes.
    pub exception: Exception,
    /// EPC: where the first exception was.
    pub epc: u64,
    /// The instruction there, if it can be read.
    pub instruction: Option<u32>,
}

/// What a VCPU has around it. It is asked only where cached translations have no answer: so these are
/// objects, and the engines are compiled once, here, whatever uses them.
pub struct Around<'a> {
    /// Its memory.
    pub mem: &'a dyn GuestMemory,
    /// The board.
    pub bus: &'a mut dyn Bus,
    /// Virtual time.
    pub clock: &'a dyn Clock,
    /// Other VCPUs with the same memory.
    pub(crate) others: Option<&'a CodeMap>,
}

impl<'a> Around<'a> {
    /// Of the only VCPU that its memory has.
    pub fn alone(mem: &'a dyn GuestMemory, bus: &'a mut dyn Bus, clock: &'a dyn Clock) -> Self {
        Self { mem, bus, clock, others: None }
    }
}

/// Runs `vcpu` for at most `limit` instructions.
pub fn run(
    vcpu: &mut Vcpu,
    mem: &dyn GuestMemory,
    bus: &mut dyn Bus,
    clock: &dyn Clock,
    limit: u64,
) -> Exit {
    run_until(vcpu, Around::alone(mem, bus, clock), Policy::NEVER, limit)
}

/// Runs `vcpu` for at most `limit` instructions, or until it comes to what `policy` wants to run
/// directly.
pub fn run_until(vcpu: &mut Vcpu, around: Around<'_>, policy: Policy, limit: u64) -> Exit {
    with_engine!(vcpu, around, policy, |engine| engine.run(vcpu, limit))
}

/// Evaluates an expression with an [`Engine`] for the VCPU's byte order.
macro_rules! with_engine {
    ($vcpu:expr, $around:expr, $policy:expr, |$engine:ident| $body:expr) => {{
        let $crate::interp::Around { mem, bus, clock, others } = $around;
        let policy = $policy;
        // Taken out while the engine runs, so that its arrays can be walked while the VCPU changes.
        let code = $vcpu.code.take();
        let result = match $vcpu.endian {
            $crate::endian::Endian::Little => {
                let code = &code;
                let mut $engine =
                    $crate::interp::Engine::<false> { code, mem, bus, clock, others, policy };
                $body
            }
            $crate::endian::Endian::Big => {
                let code = &code;
                let mut $engine =
                    $crate::interp::Engine::<true> { code, mem, bus, clock, others, policy };
                $body
            }
        };
        $vcpu.code = code;
        result
    }};
}
pub(crate) use with_engine;

/// What executing needs beside the VCPU.
pub(crate) struct Engine<'a, const BIG: bool> {
    pub(crate) code: &'a CodeCache,
    pub(crate) mem: &'a dyn GuestMemory,
    pub(crate) bus: &'a mut dyn Bus,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) others: Option<&'a CodeMap>,
    /// What is to be left to direct execution.
    pub(crate) policy: Policy,
}

/// Both together, as the emulation functions want them. It is made anew for each of them: so the
/// inner loop keeps the two in registers.
pub(crate) struct Cx<'b, 'a, const BIG: bool> {
    pub(crate) cpu: &'b mut Vcpu,
    pub(crate) engine: &'b mut Engine<'a, BIG>,
}

impl<'a, const BIG: bool> Engine<'a, BIG> {
    /// The guest's byte order.
    const ENDIAN: Endian = if BIG { Endian::Big } else { Endian::Little };

    pub(crate) fn now(&self, cpu: &Vcpu) -> u64 {
        self.clock.now(cpu.retired)
    }

    pub(crate) fn sample_interrupts(&mut self, cpu: &mut Vcpu) {
        let now = self.now(cpu);
        let levels = self.bus.interrupts(now);
        cpu.update_interrupts(levels, now);
    }

    pub(crate) fn run(&mut self, cpu: &mut Vcpu, limit: u64) -> Exit {
        self.run_polled(cpu, limit, cpu.retired)
    }

    /// As [`Engine::run`], of somebody who knows that interrupts need not be looked at before the count of instructions is
    /// `next_poll`.
    pub(crate) fn run_polled(&mut self, cpu: &mut Vcpu, limit: u64, mut next_poll: u64) -> Exit {
        let end = cpu.retired.saturating_add(limit);
        loop {
            if cpu.retired >= end {
                return Exit::Limit;
            }
            if cpu.retired >= next_poll || cpu.attention {
                cpu.attention = false;
                next_poll = cpu.retired.saturating_add(POLL);
                if let Some(exit) = self.poll(cpu) {
                    return exit;
                }
            }
            if self.has_posts(cpu) {
                self.read_posts(cpu);
            }
            let counts = self.counts(cpu);
            if self.policy.takes(cpu) || counts.is_some_and(|watch| watch.hot.reached(cpu.pc)) {
                return Exit::Direct;
            }
            match self.fetch(cpu) {
                Ok(slot) => {
                    let end = end.min(next_poll);
                    if cpu.wary {
                        self.execute_warily(cpu, slot, end);
                    } else if let Some(watch) = counts {
                        self.execute(cpu, slot, end, Counted(&watch.hot));
                    } else {
                        self.execute(cpu, slot, end, Trusted);
                    }
                    // Whatever may have made it want to has also asked for attention.
                    if cpu.attention && self.bus.wants_exit() {
                        return Exit::Device;
                    }
                }
                Err(Trap) => {
                    if let Some(exit) = self.fetch_failed(cpu) {
                        return exit;
                    }
                }
            }
        }
    }

    /// Where it is counted how often what comes next is reached, if it is.
    #[inline]
    fn counts(&self, cpu: &Vcpu) -> Option<&'a Watch> {
        let code: &'a CodeCache = self.code;
        if self.policy.may_translate(cpu) { code.watch() } else { None }
    }

    /// Executes so many instructions, or less, whatever interrupts are pending.
    pub(crate) fn step(&mut self, cpu: &mut Vcpu, count: u64) -> Option<Exit> {
        match self.fetch(cpu) {
            Ok(slot) if cpu.wary => self.execute_warily(cpu, slot, cpu.retired + count),
            Ok(slot) => self.execute(cpu, slot, cpu.retired + count, Trusted),
            Err(Trap) => return self.fetch_failed(cpu),
        }
        (cpu.attention && self.bus.wants_exit()).then_some(Exit::Device)
    }

    /// The instruction word at the program counter.
    pub(crate) fn word_here(&mut self, cpu: &mut Vcpu) -> Option<u32> {
        let slot = self.fetch(cpu).ok()?;
        self.code.page(slot).map(|page| Self::word(page, cpu.pc))
    }

    /// The instruction word at `pc`.
    pub(crate) fn word_at(&mut self, cpu: &mut Vcpu, pc: u64) -> Option<u32> {
        self.at(cpu, pc, Self::word_here)
    }

    /// As [`Engine::code_page`], of `pc`.
    pub(crate) fn code_page_at(&mut self, cpu: &mut Vcpu, pc: u64) -> Option<(Page, Gpa)> {
        self.at(cpu, pc, Self::code_page)
    }

    /// What `find` finds with the program counter at `pc`.
    fn at<T>(
        &mut self,
        cpu: &mut Vcpu,
        pc: u64,
        find: impl FnOnce(&mut Self, &mut Vcpu) -> T,
    ) -> T {
        let here = core::mem::replace(&mut cpu.pc, pc);
        let found = find(self, cpu);
        cpu.pc = here;
        found
    }

    /// The page of the program counter, if the decoded code of it may be trusted, and its guest-physical address.
    pub(crate) fn code_page(&mut self, cpu: &mut Vcpu) -> Option<(Page, Gpa)> {
        let slot = self.fetch(cpu).ok()?;
        let trusted = self.code.distrusted(slot) == 0 || self.others.is_none();
        let page = self.code.page(slot).filter(|_| trusted && !cpu.verifies)?;
        Some((page, self.code.gpa(slot)))
    }

    /// Leave the inner loop if there is an interrupt to be taken, as far as the lines are known. (Those
    /// that have changed since are seen at the next poll; and a poll comes before an interrupt is
    /// taken, so that one that has gone is not taken.)
    fn check_interrupts(cpu: &mut Vcpu) {
        cpu.attention |= cpu.has_unmasked_interrupt() && cpu.cp0.status.interrupts_enabled();
    }

    /// Brings Cause up to date and takes an interrupt if one is to be taken.
    pub(crate) fn poll(&mut self, cpu: &mut Vcpu) -> Option<Exit> {
        self.sample_interrupts(cpu);
        if cpu.take_interrupt() || !cpu.waiting {
            return None;
        }
        // Interrupts that are masked by IE alone end the waiting too: a kernel that waits with
        // interrupts off looks for itself.
        if cpu.has_unmasked_interrupt() {
            cpu.waiting = false;
            return None;
        }
        let now = self.now(cpu);
        let timer = cpu.timer_deadline().filter(|_| cpu.timer_unmasked());
        let until = [timer, self.bus.deadline(now)].into_iter().flatten().min();
        Some(Exit::Wait { until })
    }

    /// The slot of decoded code for the page of the program counter.
    #[inline]
    fn fetch(&mut self, cpu: &mut Vcpu) -> Result<usize, Trap> {
        match cpu.soft.fetch(cpu.pc) {
            Some(slot) => Ok(slot),
            None => self.fetch_slow(cpu),
        }
    }

    #[cold]
    #[inline(never)]
    fn fetch_slow(&mut self, cpu: &mut Vcpu) -> Result<usize, Trap> {
        let gpa = match cpu.translate(cpu.pc, Access::Execute) {
            Ok(physical) => Gpa(physical & !(PAGE_SIZE - 1)),
            Err(exception) => return Err(cpu.trap(exception)),
        };
        let Some(page) = self.mem.resolve(gpa, Access::Execute) else {
            return Err(cpu.trap(Exception::Plain(ExcCode::Ibe)));
        };
        // Only now, as in QEMU: an address that is also unmapped is a TLB exception.
        if cpu.pc & 3 != 0 {
            return Err(cpu.trap(Exception::Unaligned(cpu.pc, Access::Execute)));
        }
        let slot = match self.code.find(page) {
            Some(slot) => slot,
            None => {
                let (slot, replaced) = self.code.allocate(page);
                if replaced {
                    cpu.soft.flush_fetch();
                }
                cpu.soft.protect(page);
                cpu.stale.executed(page);
                self.code.distrust(slot, self.others.map_or(0, |map| map.executed(gpa, page)));
                slot
            }
        };
        self.code.executed_at(slot, gpa);
        if cpu.verifies {
            self.code.keep_words(slot);
        }
        // What is compared with memory needs no trust.
        if cpu.verifies || self.is_trusted(cpu, slot) {
            cpu.soft.set_fetch(cpu.pc, slot);
        }
        Ok(slot)
    }

    /// Whether a slot's code may be found without another look; else it is decoded anew now.
    fn is_trusted(&self, cpu: &Vcpu, slot: usize) -> bool {
        let (count, Some(map)) = (self.code.distrusted(slot), self.others) else { return true };
        if count == 0 {
            return true;
        }
        let trusted = map.all_have_read(count, cpu.number());
        // What others stored before they had read is decoded only after that.
        self.code.decode_again(slot);
        if trusted {
            self.code.distrust(slot, 0);
        }
        trusted
    }

    /// Whether other VCPUs have posted something.
    #[inline]
    pub(crate) fn has_posts(&self, cpu: &Vcpu) -> bool {
        self.others.is_some_and(|map| map.posts() != cpu.posts_read)
    }

    /// Does what the posts of other VCPUs want. Not while decoded code is being walked.
    #[cold]
    pub(crate) fn read_posts(&self, cpu: &mut Vcpu) {
        let Some(map) = self.others else { return };
        let (posts, count) = map.since(cpu.posts_read);
        match posts {
            Some((posts, new)) => {
                for post in &posts[..new] {
                    self.read_post(cpu, *post);
                }
            }
            None => {
                self.code.clear();
                cpu.soft.flush();
                cpu.stale.everything();
                // Only here: words are known of no instruction that was decoded before.
                cpu.set_verifies(map.is_scattered());
            }
        }
        cpu.posts_read = count;
        map.runs(cpu.number(), count);
    }

    fn read_post(&self, cpu: &mut Vcpu, post: Post) {
        match post {
            Post::Executed(page) => {
                cpu.soft.protect(page);
                cpu.stale.executed(page);
            }
            Post::Written(page) => {
                if self.code.drop_page(page) {
                    cpu.soft.flush_fetch();
                }
            }
            Post::WrittenAt(page, offset, size) => {
                self.code.written(page, offset.into(), size.into());
            }
        }
    }

    /// Takes the exception of a failed fetch, which counts as an instruction.
    fn fetch_failed(&mut self, cpu: &mut Vcpu) -> Option<Exit> {
        // Each failure counts one; if the count has grown by more, something was executed.
        let again = cpu.retired == cpu.vector_fault_at;
        cpu.vector_faults = if again { cpu.vector_faults + 1 } else { 1 };
        if cpu.pc != cpu.vector || !cpu.cp0.status.contains(Status::EXL) {
            cpu.vector_faults = 0;
        } else if cpu.vector_faults >= VECTOR_FAULTS {
            let exception = cpu.pending;
            return Some(Exit::UnreachableVector(self.unreachable(cpu, exception)));
        }
        let (pc, in_slot) = (cpu.pc, cpu.in_slot);
        cpu.take_exception(pc, in_slot);
        cpu.retired += 1;
        cpu.vector_fault_at = cpu.retired;
        None
    }

    /// The instruction word at `pc`, whose page lies at `page`.
    pub(crate) fn word(page: Page, pc: u64) -> u32 {
        u32::load(page, pc, Self::ENDIAN)
    }

    fn unreachable(&self, cpu: &Vcpu, exception: Exception) -> UnreachableVector {
        let epc = cpu.cp0.epc;
        let instruction = cpu
            .translate(epc & !3, Access::Execute)
            .ok()
            .and_then(|physical| self.mem.resolve(Gpa(physical & !(PAGE_SIZE - 1)), Access::Read))
            .map(|page| Self::word(page, epc));
        UnreachableVector { vector: cpu.vector, exception, epc, instruction }
    }
}
