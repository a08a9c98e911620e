//! The virtual CPU: its registers, its TLB, its address map, and its exceptions.
//!
//! A [`Vcpu`] is state and the rules that bind it; fetching and executing is an engine's work
//! ([`crate::interp`]) with the functions of [`crate::emulate`].

mod address;
mod cp0;
mod exception;
mod fpr;
mod model;
pub(crate) mod presence;
mod save;
mod stale;
mod status;
mod timer;
pub mod tlb;

pub use crate::mem::Access;
pub use address::Mode;
pub use cp0::Cp0;
pub use exception::{ExcCode, Exception, Trap};
pub use model::{CC_RESOLUTION, CpuModel};
pub(crate) use stale::{Notes, Stale, Void};
pub use status::{Cause, Status};

use crate::endian::Endian;
use crate::fpu::Fcsr;
use crate::interp::{CodeCache, SoftTlb};
use crate::isa::{Insn, Reg};
use abi::Gpa;
use core::ops::Range;
use tlb::Tlb;

/// Where the processor starts after reset.
pub const RESET_VECTOR: u64 = 0xffff_ffff_bfc0_0000;

/// What LL has seen, for SC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The virtual address.
    pub va: u64,
    /// What was there.
    pub value: u64,
}

/// A virtual CPU.
///
/// The general registers come first: an engine that has the VCPU's address in a register then has
/// theirs too.
#[derive(Debug)]
#[repr(C)]
pub struct Vcpu {
    /// General registers; number 0 stays zero, [`Reg::SINK`] takes what is written to it. There are
    /// more places than registers so that six bits always are an index.
    pub(crate) gpr: [u64; Reg::PLACES],
    /// The next instruction's address. While an engine runs it keeps its own and stores it here
    /// where somebody may look.
    pub(crate) pc: u64,
    /// That instruction is in a delay slot …
    pub(crate) in_slot: bool,
    /// … and this is where execution goes after it.
    pub(crate) target: u64,
    /// HI.
    pub(crate) hi: u64,
    /// LO.
    pub(crate) lo: u64,
    /// Instructions executed: completed, or ended by an exception.
    pub(crate) retired: u64,
    /// What Status says about the present mode.
    pub(crate) mode: Mode,
    /// Coprocessor 0 may be used.
    pub(crate) cop0_usable: bool,
    /// 64-bit operations are reserved instructions.
    pub(crate) narrow: bool,
    /// Sums of addresses wrap at 32 bits.
    pub(crate) wrap_addresses: bool,
    /// Cached translations.
    pub(crate) soft: SoftTlb,
    /// Coprocessor 0.
    pub(crate) cp0: Cp0,
    /// Floating-point registers.
    pub(crate) fpr: [u64; 32],
    /// Floating-point control and status.
    pub(crate) fcsr: Fcsr,
    /// The TLB.
    pub(crate) tlb: Tlb,
    /// The link of LL.
    pub(crate) link: Option<Link>,
    /// The exception of the last [`Trap`].
    pub(crate) pending: Exception,
    /// Something wants the engine's inner loop to be left after this instruction.
    pub(crate) attention: bool,
    /// A device was accessed.
    pub(crate) device_touched: bool,
    /// A `wait` is being executed.
    pub(crate) waiting: bool,
    /// Address of the last exception vector.
    pub(crate) vector: u64,
    /// Fetches from it that failed, one after the other …
    pub(crate) vector_faults: u32,
    /// … the last of them when this many instructions were counted.
    pub(crate) vector_fault_at: u64,
    /// The model.
    pub(crate) model: CpuModel,
    /// The byte order of memory.
    pub(crate) endian: Endian,
    /// Decoded code.
    pub(crate) code: CodeCache,
    /// What copies of the TLB's contents must forget.
    pub(crate) stale: Stale,
    /// How many posts of other VCPUs it has read.
    pub(crate) posts_read: u64,
    /// It compares decoded code with memory before it executes it ([`crate::interp`]).
    pub(crate) verifies: bool,
    /// [`Vcpu::narrow`], or [`Vcpu::verifies`]: it looks at an instruction before it executes it.
    pub(crate) wary: bool,
}

/// EBase.CPUNum.
const CPU_NUM: u32 = 0x3ff;
/// Decoded pages that a VCPU keeps unless told otherwise: 4 MB of them.
const CODE_PAGES: usize = 512;
/// Bytes of heap that one decoded page takes: eight an instruction, and its record.
pub const CODE_PAGE_HEAP: usize = 2 * abi::PAGE_SIZE as usize + 64;

impl Vcpu {
    /// Bytes from a VCPU's start to its general registers, eight bytes each, for engines in assembly.
    pub const GPR_OFFSET: usize = core::mem::offset_of!(Self, gpr);
    /// To HI.
    pub const HI_OFFSET: usize = core::mem::offset_of!(Self, hi);
    /// To LO.
    pub const LO_OFFSET: usize = core::mem::offset_of!(Self, lo);
    /// To the program counter.
    pub const PC_OFFSET: usize = core::mem::offset_of!(Self, pc);

    /// A VCPU at reset. All memory that it will ever use is allocated here, but for that of decoded code.
    #[must_use]
    pub fn new(model: CpuModel, endian: Endian) -> Self {
        Self::with_code_pages(model, endian, CODE_PAGES)
    }

    /// As [`Vcpu::new`], keeping at most `pages` pages (at least one, 8 KB each) of decoded code.
    #[must_use]
    pub fn with_code_pages(model: CpuModel, endian: Endian, pages: usize) -> Self {
        let mut vcpu = Self {
            gpr: [0; Reg::PLACES],
            pc: RESET_VECTOR,
            in_slot: false,
            target: 0,
            hi: 0,
            lo: 0,
            retired: 0,
            mode: Mode::Error,
            cop0_usable: true,
            narrow: false,
            wrap_addresses: false,
            soft: SoftTlb::new(),
            cp0: Cp0::new(&model, endian),
            fpr: [0; 32],
            fcsr: Fcsr::from_bits(0),
            tlb: Tlb::new(model.tlb_entries, model.segment_mask(), model.tlb_reset_invalid),
            link: None,
            pending: Exception::Plain(ExcCode::Int),
            attention: false,
            device_touched: false,
            waiting: false,
            vector: 0,
            vector_faults: 0,
            vector_fault_at: 0,
            model,
            endian,
            code: CodeCache::new(pages),
            stale: Stale::new(),
            posts_read: 0,
            verifies: false,
            wary: false,
        };
        vcpu.mode_changed();
        vcpu
    }

    /// From now on it compares decoded code with memory, or no longer does; it keeps none.
    pub(crate) const fn set_verifies(&mut self, verifies: bool) {
        self.verifies = verifies;
        self.wary = self.narrow || verifies;
    }

    /// Puts everything but the count of instructions back to its state at reset, and forgets all
    /// decoded code. Count starts again from virtual time `now` (nanoseconds).
    pub fn reset(&mut self, now: u64) {
        let (model, retired) = (self.model, self.retired);
        self.code.clear();
        self.soft.flush();
        self.stale.everything();
        self.gpr = [0; Reg::PLACES];
        self.fpr = [0; 32];
        (self.hi, self.lo) = (0, 0);
        self.pc = RESET_VECTOR;
        self.in_slot = false;
        let number = self.number();
        self.cp0 = Cp0::new(&model, self.endian);
        self.set_number(number);
        self.write_cp0(9, 0, 1, now);
        self.fcsr = Fcsr::from_bits(0);
        let keeps = self.tlb.presence().is_some();
        self.tlb = Tlb::new(model.tlb_entries, model.segment_mask(), model.tlb_reset_invalid);
        if keeps {
            self.tlb.keep_presence();
        }
        self.link = None;
        self.waiting = false;
        self.vector_faults = 0;
        self.retired = retired;
        self.mode_changed();
    }

    /// Recomputes what Status implies.
    pub(crate) fn mode_changed(&mut self) {
        let status = self.cp0.status;
        let exception = status.intersects(Status::EXL | Status::ERL);
        let ksu = if exception { 0 } else { status.ksu() };
        self.mode = match ksu {
            _ if status.contains(Status::ERL) => Mode::Error,
            0 => Mode::Kernel,
            1 => Mode::Supervisor,
            2 => Mode::User,
            _ => Mode::Error,
        };
        self.cop0_usable = ksu == 0 || status.contains(Status::CU0);
        self.narrow = ksu == 2 && !status.intersects(Status::PX | Status::UX);
        self.wary = self.narrow || self.verifies;
        self.wrap_addresses = ksu == 2 && !status.contains(Status::UX);
        self.context_changed();
    }

    /// Tells the cached translations which mode and address space the next ones are for.
    pub(crate) fn context_changed(&mut self) {
        self.soft.select(self.mode as u64, self.asid());
    }

    /// What an engine's cached view of code depends on: mode and address space, and what Status says
    /// about addresses and operations.
    pub(crate) fn context(&self) -> (u64, u32) {
        let bits = Status::KX | Status::SX | Status::UX | Status::PX;
        (self.soft.context(), (self.cp0.status & bits).bits())
    }

    /// The memory behind these guest-physical addresses has changed or goes away: nothing that was
    /// derived from it is used again. To be given all addresses under which the memory is known.
    pub fn forget(&mut self, ranges: &[Range<Gpa>]) {
        for range in ranges {
            self.code.forget(range);
        }
        self.soft.flush();
        self.stale.everything();
    }

    /// The value of a source register.
    #[inline(always)]
    pub(crate) fn reg(&self, reg: Reg) -> u64 {
        self.gpr[reg.index()]
    }

    /// Sets a destination register.
    #[inline(always)]
    pub(crate) fn set_reg(&mut self, reg: Reg, value: u64) {
        self.gpr[reg.index()] = value;
    }

    /// The first source of an instruction.
    #[inline(always)]
    pub(crate) fn a(&self, insn: Insn) -> u64 {
        self.reg(insn.a)
    }

    /// The second source of an instruction.
    #[inline(always)]
    pub(crate) fn b(&self, insn: Insn) -> u64 {
        self.reg(insn.b)
    }

    /// Instructions executed since the VCPU was made: completed, or ended by an exception.
    #[must_use]
    pub const fn retired(&self) -> u64 {
        self.retired
    }

    /// General register `number` (0 to 31).
    #[must_use]
    pub const fn gpr(&self, number: usize) -> u64 {
        self.gpr[number & 31]
    }

    /// Sets general register `number` (0 to 31); 0 stays zero.
    pub const fn set_gpr(&mut self, number: usize, value: u64) {
        if number & 31 != 0 {
            self.gpr[number & 31] = value;
        }
    }

    /// The general registers.
    pub(crate) const fn gprs(&self) -> &[u64; 32] {
        match self.gpr.first_chunk() {
            Some(gprs) => gprs,
            None => unreachable!(),
        }
    }

    /// HI and LO.
    #[must_use]
    pub const fn hi_lo(&self) -> (u64, u64) {
        (self.hi, self.lo)
    }

    /// Sets HI and LO.
    pub const fn set_hi_lo(&mut self, hi: u64, lo: u64) {
        (self.hi, self.lo) = (hi, lo);
    }

    /// The address of the next instruction.
    #[must_use]
    pub const fn pc(&self) -> u64 {
        self.pc
    }

    /// Where execution goes after the next instruction, if that is in a delay slot.
    #[must_use]
    pub fn slot_target(&self) -> Option<u64> {
        self.in_slot.then_some(self.target)
    }

    /// Continues at `pc`, out of any delay slot.
    pub const fn set_pc(&mut self, pc: u64) {
        self.pc = pc;
        self.in_slot = false;
        self.waiting = false;
    }

    /// The raw 64 bits of floating-point register `number` (0 to 31), whatever Status.FR.
    #[must_use]
    pub const fn fpr(&self, number: usize) -> u64 {
        self.fpr[number & 31]
    }

    /// Sets the raw 64 bits of floating-point register `number` (0 to 31).
    pub const fn set_fpr(&mut self, number: usize, value: u64) {
        self.fpr[number & 31] = value;
    }

    /// FCSR.
    #[must_use]
    pub const fn fcsr(&self) -> u32 {
        self.fcsr.bits()
    }

    /// Sets FCSR without the exception that `ctc1` would raise.
    pub const fn set_fcsr(&mut self, bits: u32) {
        self.fcsr = Fcsr::from_bits(bits);
    }

    /// Coprocessor 0's registers.
    #[must_use]
    pub const fn cp0(&self) -> &Cp0 {
        &self.cp0
    }

    /// The TLB.
    #[must_use]
    pub const fn tlb(&self) -> &Tlb {
        &self.tlb
    }

    /// Writes a TLB entry; `index` must be below [`Tlb::len`].
    pub fn set_tlb(&mut self, index: usize, entry: tlb::Entry) {
        self.stale.entry(self.tlb.entry(index));
        self.stale.entry(&entry);
        self.tlb.write(index, entry);
        self.soft.flush();
    }

    /// Its number among the VM's VCPUs: EBase.CPUNum.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.cp0.ebase as u32 & CPU_NUM
    }

    /// Gives it its number (of ten bits), which the guest can't change.
    pub const fn set_number(&mut self, number: u32) {
        self.cp0.ebase = self.cp0.ebase & !(CPU_NUM as u64) | (number & CPU_NUM) as u64;
    }

    /// The present mode.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// The model.
    #[must_use]
    pub const fn model(&self) -> &CpuModel {
        &self.model
    }

    /// The byte order of memory.
    #[must_use]
    pub const fn endian(&self) -> Endian {
        self.endian
    }
}
