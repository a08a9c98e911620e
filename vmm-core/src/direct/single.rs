//! One instruction that has trapped, emulated without the interpreter's loop around it.

use super::{After, Direct, Exit};
use crate::cpu::{Trap, Vcpu};
use crate::emulate::{Flow, Memory, loadstore, system};
use crate::interp::{Cx, Engine};
use crate::isa::{Op, decode};
use abi::PAGE_SIZE;

/// Instructions from a trapped one on among which its store-conditional is looked for.
const CONDITIONAL_REACH: u64 = 64;
/// Opcodes of load-linked and store-conditional.
const LL: u32 = 0x30;
const LLD: u32 = 0x34;
const SC: u32 = 0x38;
const SCD: u32 = 0x3c;

impl<const BIG: bool> Engine<'_, BIG> {
    /// Executes the instruction at the program counter if it is one of those that trap for being
    /// privileged, or for reaching what only the kernel may. `None`: it is another, and nothing was
    /// done.
    pub(super) fn single(&mut self, direct: &mut Direct, vcpu: &mut Vcpu) -> Option<After> {
        // With 64-bit operations disabled the order of checks is the interpreter's to know.
        if vcpu.narrow || vcpu.pc & 3 != 0 {
            return None;
        }
        let pc = vcpu.pc;
        let word: u32 = Cx { cpu: vcpu, engine: self }.load(pc).ok()?;
        let insn = decode(word);
        let cx = &mut Cx { cpu: vcpu, engine: self };
        let outcome = match insn.op {
            Op::Mfc0 => system::mfc0(cx, insn),
            Op::Dmfc0 => system::dmfc0(cx, insn),
            Op::Mtc0 | Op::Dmtc0 => system::mtc0(cx, insn),
            Op::Rdhwr => system::rdhwr(cx, insn),
            Op::Cache => system::cache(cx, insn),
            Op::Di => system::di(cx.cpu, insn),
            Op::Ei => system::ei(cx.cpu, insn),
            Op::Tlbr => system::tlbr(cx.cpu),
            Op::Tlbwi => system::tlbwi(cx.cpu),
            Op::Tlbwr => system::tlbwr(cx.cpu),
            Op::Tlbp => system::tlbp(cx.cpu),
            Op::Tlbinv => system::tlbinv(cx.cpu, false),
            Op::Tlbinvf => system::tlbinv(cx.cpu, true),
            Op::Eret => system::eret(cx.cpu),
            Op::Wait => system::wait(cx.cpu),
            Op::Lb
            | Op::Lbu
            | Op::Lh
            | Op::Lhu
            | Op::Lw
            | Op::Lwu
            | Op::Ld
            | Op::Sb
            | Op::Sh
            | Op::Sw
            | Op::Sd => loadstore::execute(cx, insn).map(|()| Flow::Next),
            _ => return None,
        };
        vcpu.retired += 1;
        match outcome {
            Ok(Flow::Next | Flow::Changed) => vcpu.pc = pc.wrapping_add(4),
            Ok(Flow::Jump(to)) => vcpu.pc = to,
            Ok(Flow::Wait) => {
                direct.dirty = true;
                vcpu.waiting = true;
                vcpu.pc = pc.wrapping_add(4);
            }
            Err(Trap) => vcpu.take_exception(pc, false),
        }
        direct.dirty |= vcpu.has_unmasked_interrupt() && vcpu.cp0.status.interrupts_enabled()
            || vcpu.timer_deadline() != direct.timer
            || vcpu.device_touched;
        Some(if self.bus.wants_exit() { After::Exit(Exit::Device) } else { After::On })
    }

    /// Whether the instruction at `pc` is a load-linked.
    pub(super) fn is_load_linked(&mut self, vcpu: &mut Vcpu, pc: u64) -> bool {
        if pc & 3 != 0 {
            return false;
        }
        let word = Cx { cpu: vcpu, engine: self }.load::<u32>(pc);
        word.is_ok_and(|word| matches!(decode(word).op, Op::Ll | Op::Lld))
    }

    /// Whether a store-conditional follows `pc` before another load-linked does.
    pub(super) fn before_conditional(&mut self, vcpu: &mut Vcpu, pc: u64) -> bool {
        let address = core::mem::replace(&mut vcpu.pc, pc);
        let end = pc.wrapping_add(4 * CONDITIONAL_REACH);
        let found = self.is_conditional_next(vcpu, end);
        vcpu.pc = address;
        found
    }

    /// Whether a store-conditional comes from the program counter on, before another load-linked and before `end`.
    fn is_conditional_next(&mut self, vcpu: &mut Vcpu, end: u64) -> bool {
        // (It is asked often, by whatever traps after a load-linked that has been used long since.)
        while vcpu.pc != end
            && let Some((page, _)) = self.code_page(vcpu)
        {
            while vcpu.pc != end {
                match Self::word(page, vcpu.pc) >> 26 {
                    SC | SCD => return true,
                    LL | LLD => return false,
                    _ => vcpu.pc = vcpu.pc.wrapping_add(4),
                }
                if vcpu.pc.is_multiple_of(PAGE_SIZE) {
                    break;
                }
            }
        }
        false
    }
}
