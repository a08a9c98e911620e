//! Exceptions: what they are, and what the processor does about them.
//!
//! Source: MIPS64 Architecture for Programmers, vol. III rev 2.60, chapter 6.

use super::status::{CE_SHIFT, Cause, EXC_CODE_SHIFT, IP_SHIFT, Status};
use super::{Access, Vcpu};

/// Cause.ExcCode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExcCode {
    /// Interrupt.
    Int = 0,
    /// Store to a page that is not dirty.
    Mod = 1,
    /// TLB refill or invalid, load or fetch.
    TlbL = 2,
    /// TLB refill or invalid, store.
    TlbS = 3,
    /// Address error, load or fetch.
    AdEL = 4,
    /// Address error, store.
    AdES = 5,
    /// Bus error, fetch.
    Ibe = 6,
    /// Bus error, load or store.
    Dbe = 7,
    /// System call.
    Sys = 8,
    /// Breakpoint.
    Bp = 9,
    /// Reserved instruction.
    Ri = 10,
    /// Coprocessor unusable.
    CpU = 11,
    /// Integer overflow.
    Ov = 12,
    /// Trap.
    Tr = 13,
    /// Floating point.
    Fpe = 15,
}

impl ExcCode {
    /// The manual's short name of a code found in Cause.
    #[must_use]
    pub const fn name(code: u32) -> &'static str {
        match code {
            0 => "interrupt",
            1 => "TLB modified",
            2 => "TLB load or fetch",
            3 => "TLB store",
            4 => "address error on load or fetch",
            5 => "address error on store",
            6 => "bus error on fetch",
            7 => "bus error on data",
            8 => "system call",
            9 => "breakpoint",
            10 => "reserved instruction",
            11 => "coprocessor unusable",
            12 => "integer overflow",
            13 => "trap",
            15 => "floating point",
            _ => "unknown",
        }
    }
}

/// An exception that an instruction caused, before the processor acts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exception {
    /// One without further data.
    Plain(ExcCode),
    /// The coprocessor is unusable.
    CopUnusable(u8),
    /// An address that is not aligned, or a fetch from such: BadVAddr only.
    Unaligned(u64, Access),
    /// An address outside what the mode may use.
    Address(u64, Access),
    /// No TLB entry matches.
    Refill(u64, Access),
    /// The entry that matches is not valid.
    Invalid(u64, Access),
    /// The entry that matches is not dirty, and this is a store.
    Modified(u64),
}

/// That an instruction has not completed but caused the exception in [`Vcpu::pending`]. It carries
/// nothing so that results are small in the fast paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trap;

/// Offset of the general vector.
const GENERAL: u64 = 0x180;
/// Base of the vectors while Status.BEV is set.
const BOOT_VECTORS: u64 = 0xffff_ffff_bfc0_0200;

const fn load_store(access: Access, load: ExcCode, store: ExcCode) -> ExcCode {
    match access {
        Access::Write => store,
        Access::Read | Access::Execute => load,
    }
}

impl Vcpu {
    /// Notes what the instruction being executed has caused.
    #[cold]
    pub fn trap(&mut self, exception: Exception) -> Trap {
        self.pending = exception;
        Trap
    }

    /// Enters the handler of [`Vcpu::pending`]. `pc` is the instruction's address, `in_slot` whether
    /// it is in a delay slot.
    pub fn take_exception(&mut self, pc: u64, in_slot: bool) {
        let mut offset = GENERAL;
        let code = match self.pending {
            Exception::Plain(code) => code,
            Exception::CopUnusable(number) => {
                let cause = self.cp0.cause.bits() & !(3 << CE_SHIFT);
                self.cp0.cause = Cause::from_bits_retain(cause | u32::from(number) << CE_SHIFT);
                ExcCode::CpU
            }
            Exception::Unaligned(va, access) => {
                self.cp0.bad_vaddr = va;
                load_store(access, ExcCode::AdEL, ExcCode::AdES)
            }
            Exception::Address(va, access) => {
                self.note_bad_address(va);
                load_store(access, ExcCode::AdEL, ExcCode::AdES)
            }
            Exception::Refill(va, access) => {
                self.note_bad_address(va);
                if !self.cp0.status.contains(Status::EXL) {
                    offset = self.refill_offset(va);
                }
                load_store(access, ExcCode::TlbL, ExcCode::TlbS)
            }
            Exception::Invalid(va, access) => {
                self.note_bad_address(va);
                load_store(access, ExcCode::TlbL, ExcCode::TlbS)
            }
            Exception::Modified(va) => {
                self.note_bad_address(va);
                ExcCode::Mod
            }
        };
        self.enter(code, offset, pc, in_slot);
    }

    /// Takes the interrupt that is pending and enabled, if one is; whether one was.
    pub fn take_interrupt(&mut self) -> bool {
        let pending = (self.cp0.cause.bits() & self.cp0.status.bits()) >> IP_SHIFT & 0xff;
        if pending == 0 || !self.cp0.status.interrupts_enabled() {
            return false;
        }
        let mut offset = GENERAL;
        if self.cp0.cause.contains(Cause::IV) {
            let spacing = u64::from(self.cp0.int_ctl >> 5 & 0x1f);
            offset = 0x200;
            if !self.cp0.status.contains(Status::BEV) {
                // The highest line that is pending and enabled; spacing 0: one vector for all.
                offset += u64::from(pending.ilog2()) * (spacing << 5);
            }
        }
        self.waiting = false;
        self.enter(ExcCode::Int, offset, self.pc, self.in_slot);
        true
    }

    /// BadVAddr, Context, XContext and EntryHi of an address that could not be translated.
    fn note_bad_address(&mut self, va: u64) {
        let segbits = self.model.segbits;
        let cp0 = &mut self.cp0;
        cp0.bad_vaddr = va;
        cp0.context = cp0.context & !0x7f_ffff | va >> 9 & 0x7f_fff0;
        let base = !0 << (segbits - 7);
        let vpn = va >> 13 & ((1 << (segbits - 13)) - 1);
        cp0.xcontext = cp0.xcontext & base | (va >> 62) << (segbits - 9) | vpn << 4;
        let kept = cp0.entry_hi & 0x4ff;
        cp0.entry_hi = (va & !0x1fff | kept) & self.model.segment_mask();
    }

    /// The refill vector depends on whether the address's segment is a 64-bit one now.
    fn refill_offset(&self, va: u64) -> u64 {
        let status = self.cp0.status;
        let wide = match va >> 62 {
            0 => status.contains(Status::UX),
            3 => status.contains(Status::KX),
            _ => true,
        };
        if wide { 0x080 } else { 0x000 }
    }

    fn enter(&mut self, code: ExcCode, offset: u64, pc: u64, in_slot: bool) {
        let mut cause = self.cp0.cause;
        if !self.cp0.status.contains(Status::EXL) {
            self.cp0.epc = if in_slot { pc.wrapping_sub(4) } else { pc };
            cause.set(Cause::BD, in_slot);
            self.cp0.status |= Status::EXL;
            self.mode_changed();
        }
        let bits = cause.bits() & !(0x1f << EXC_CODE_SHIFT) | (code as u32) << EXC_CODE_SHIFT;
        self.cp0.cause = Cause::from_bits_retain(bits);
        let base = if self.cp0.status.contains(Status::BEV) {
            BOOT_VECTORS
        } else {
            self.cp0.ebase & !0xfff
        };
        self.in_slot = false;
        self.pc = base.wrapping_add(offset);
        self.vector = self.pc;
    }

    /// `eret`: back to ErrorEPC or EPC, the link of LL broken. Where to.
    pub fn exception_return(&mut self) -> u64 {
        self.link = None;
        let target = if self.cp0.status.contains(Status::ERL) {
            self.cp0.status.remove(Status::ERL);
            self.cp0.error_epc
        } else {
            self.cp0.status.remove(Status::EXL);
            self.cp0.epc
        };
        self.mode_changed();
        target
    }
}
