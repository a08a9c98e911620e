//! What a person gets to see of a VM that ended, or that is looked at.

use super::{End, Exit};
use crate::cpu::{Access, ExcCode, Exception, Vcpu};
use crate::endian::Endian;
use crate::interp::UnreachableVector;
use crate::mem::GuestMemory;
use abi::Gpa;
use core::fmt;

/// Names of the general registers (n64).
const NAMES: [&str; 32] = [
    "zero", "at", "v0", "v1", "a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7", "t0", "t1", "t2",
    "t3", "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "t8", "t9", "k0", "k1", "gp", "sp", "s8",
    "ra",
];

/// A VM's state, several lines when displayed.
#[derive(Clone, Debug)]
pub struct Report {
    number: u32,
    ended_by: Option<u32>,
    reason: &'static str,
    unreachable: Option<UnreachableVector>,
    /// The program counter, and the instruction there.
    pub pc: u64,
    /// The word at `pc`; `None`: it can't be fetched.
    pub instruction: Option<u32>,
    /// Where the last exception happened, and the instruction there.
    pub epc: u64,
    /// The word at `epc`; `None`: it can't be fetched.
    pub cause_instruction: Option<u32>,
    exception: &'static str,
    gpr: [u64; 32],
    hi_lo: (u64, u64),
    status: u32,
    cause: u32,
    bad_vaddr: u64,
    entry_hi: u64,
    error_epc: u64,
    ebase: u64,
    /// Instructions executed.
    pub retired: u64,
}

impl Report {
    pub(super) fn new(vcpu: &Vcpu, memory: &impl GuestMemory, end: Option<End>) -> Self {
        let cp0 = vcpu.cp0();
        Self {
            number: vcpu.number(),
            ended_by: end.map(|end| end.by),
            reason: match end.map(|end| end.exit) {
                None
                | Some(
                    Exit::Limit
                    | Exit::Lost
                    | Exit::Idle { .. }
                    | Exit::Ipi { .. }
                    | Exit::Board
                    | Exit::Home,
                ) => "running",
                Some(Exit::PowerOff) => "powered off by the guest",
                Some(Exit::Reset) => "reset by the guest",
                Some(Exit::Budget) => "budget of instructions used up",
                Some(Exit::UnreachableVector) => "ended, because an exception has no handler,",
            },
            unreachable: end.filter(|end| end.by == vcpu.number()).and_then(|end| end.unreachable),
            pc: vcpu.pc(),
            instruction: word(vcpu, memory, vcpu.pc()),
            epc: cp0.epc,
            cause_instruction: word(vcpu, memory, cp0.epc),
            exception: ExcCode::name(cp0.cause.exc_code()),
            gpr: core::array::from_fn(|i| vcpu.gpr(i)),
            hi_lo: vcpu.hi_lo(),
            status: cp0.status.bits(),
            cause: cp0.cause.bits(),
            bad_vaddr: cp0.bad_vaddr,
            entry_hi: cp0.entry_hi,
            error_epc: cp0.error_epc,
            ebase: cp0.ebase,
            retired: vcpu.retired(),
        }
    }
}

impl Report {
    /// One line for the instruction between two reports: where it was, and what it changed.
    #[must_use]
    pub fn step_to<'a>(&'a self, after: &'a Self) -> Step<'a> {
        Step { before: self, after }
    }
}

/// What one instruction did, in a line.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    before: &'a Report,
    after: &'a Report,
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (a, b) = (self.before, self.after);
        write!(f, "{} {:016x} {}", a.retired, a.pc, Word(a.instruction))?;
        for ((name, old), new) in NAMES.iter().zip(a.gpr).zip(b.gpr) {
            if old != new {
                write!(f, " {name}={new:x}")?;
            }
        }
        for (name, old, new) in [
            ("hi", a.hi_lo.0, b.hi_lo.0),
            ("lo", a.hi_lo.1, b.hi_lo.1),
            ("status", a.status.into(), b.status.into()),
            ("cause", a.cause.into(), b.cause.into()),
            ("epc", a.epc, b.epc),
            ("badvaddr", a.bad_vaddr, b.bad_vaddr),
            ("entryhi", a.entry_hi, b.entry_hi),
        ] {
            if old != new {
                write!(f, " {name}={new:x}")?;
            }
        }
        Ok(())
    }
}

/// The instruction at a virtual address, as the VCPU would fetch it now.
fn word(vcpu: &Vcpu, memory: &impl GuestMemory, va: u64) -> Option<u32> {
    let gpa = Gpa(vcpu.translate(va & !3, Access::Execute).ok()?);
    let word = memory.resolve(gpa, Access::Execute)?.load32(gpa.offset());
    Some(if vcpu.endian() == Endian::NATIVE { word } else { word.swap_bytes() })
}

fn describe(exception: Exception) -> &'static str {
    match exception {
        Exception::Plain(code) => ExcCode::name(code as u32),
        Exception::CopUnusable(_) => "coprocessor unusable",
        Exception::Unaligned(..) | Exception::Address(..) => "address error",
        Exception::Refill(..) => "no TLB entry",
        Exception::Invalid(..) | Exception::Modified(_) => "TLB entry not valid",
    }
}

struct Word(Option<u32>);

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(word) => write!(f, "{word:08x}"),
            None => f.write_str("not in memory"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {} instructions", self.reason, self.retired)?;
        match self.ended_by {
            // Where there is one VCPU, it is number 0.
            Some(by) if by != self.number => writeln!(f, " of VCPU {}, by VCPU {by}", self.number)?,
            _ if self.number != 0 => writeln!(f, " of VCPU {}", self.number)?,
            _ => writeln!(f)?,
        }
        if let Some(what) = self.unreachable {
            writeln!(
                f,
                "the handler at {:016x} can't be fetched ({}), needed at {:016x} (instruction {})",
                what.vector,
                describe(what.exception),
                what.epc,
                Word(what.instruction)
            )?;
        }
        writeln!(f, "pc   {:016x} (instruction {})", self.pc, Word(self.instruction))?;
        writeln!(
            f,
            "epc  {:016x} (instruction {}), last exception: {}, address {:016x}",
            self.epc,
            Word(self.cause_instruction),
            self.exception,
            self.bad_vaddr
        )?;
        writeln!(
            f,
            "status {:08x}  cause {:08x}  entryhi {:016x}  errorepc {:016x}  ebase {:016x}",
            self.status, self.cause, self.entry_hi, self.error_epc, self.ebase
        )?;
        writeln!(f, "hi {:016x}  lo {:016x}", self.hi_lo.0, self.hi_lo.1)?;
        for (names, values) in NAMES.chunks(4).zip(self.gpr.chunks(4)) {
            for (name, value) in names.iter().zip(values) {
                write!(f, "{name:>4} {value:016x}  ")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
