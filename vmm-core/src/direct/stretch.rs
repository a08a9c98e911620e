//! Privileged instructions of kernels that run directly, together with what lies between them: to interpret a few
//! instructions costs less than to enter the guest for them and to be trapped out again.

use super::{After, Direct, LINKED_BURST, LOOK, RealCpu};
use crate::cpu::{Mode, Vcpu};
use crate::interp::{self, Engine};
use crate::isa::{Op, decode};
use abi::PAGE_SIZE;
use alloc::boxed::Box;
use alloc::vec;

/// Places of which it is known; a power of two.
const PLACES: usize = 1024;
/// Instructions between two privileged ones, at most, that are interpreted with them: about as many as take what a trap
/// and an entry do.
const GAP: u64 = 18;
/// Instructions of a stretch, at most.
const LENGTH: u64 = 48;

/// How many instructions are interpreted from an address on. It only tells how to run them: where code has changed since, or
/// another address space has other code there, they are run in a way that takes longer.
#[derive(Debug)]
pub(super) struct Stretches(Box<[(u64, u64)]>);

impl Stretches {
    pub fn new() -> Self {
        // (No address of code.)
        Self(vec![(1, 0); PLACES].into_boxed_slice())
    }

    #[inline(always)]
    fn place(&mut self, pc: u64) -> &mut (u64, u64) {
        &mut self.0[(pc >> 2 ^ pc >> 12) as usize % PLACES]
    }
}

/// What an instruction is to a stretch.
enum Part {
    /// It traps where it runs directly.
    Traps,
    /// It traps, and control does not come to the next.
    TrapsLast,
    /// It has no place in one: control does not come to the next, or the real CPU knows more than the interpreter.
    Ends,
    Other,
}

const fn part(op: Op) -> Part {
    match op {
        Op::Eret | Op::Wait => Part::TrapsLast,
        Op::Mfc0
        | Op::Dmfc0
        | Op::Mtc0
        | Op::Dmtc0
        | Op::Di
        | Op::Ei
        | Op::Tlbr
        | Op::Tlbwi
        | Op::Tlbwr
        | Op::Tlbp
        | Op::Tlbinv
        | Op::Tlbinvf
        | Op::Cache
        | Op::Rdhwr => Part::Traps,
        Op::J | Op::Jal | Op::Jr | Op::Jalr | Op::B => Part::Ends,
        Op::Ll | Op::Lld | Op::Sc | Op::Scd | Op::Syscall | Op::Break => Part::Ends,
        _ => Part::Other,
    }
}

impl<const BIG: bool> Engine<'_, BIG> {
    /// How many instructions from the program counter on are to be interpreted together because the first of them traps; 0: it
    /// does not.
    #[inline]
    pub(super) fn stretch_here(&mut self, direct: &mut Direct, vcpu: &mut Vcpu) -> u64 {
        let pc = vcpu.pc;
        let place = *direct.stretches.place(pc);
        if place.0 == pc {
            return place.1;
        }
        let Some(count) = self.find_stretch(vcpu) else { return 0 };
        *direct.stretches.place(pc) = (pc, count);
        count
    }

    #[cold]
    fn find_stretch(&mut self, vcpu: &mut Vcpu) -> Option<u64> {
        let (page, _) = self.code_page(vcpu)?;
        let left = (PAGE_SIZE - vcpu.pc % PAGE_SIZE) / 4;
        let mut count = 0;
        for at in 0..left.min(LENGTH) {
            match part(decode(Self::word(page, vcpu.pc + 4 * at)).op) {
                Part::Traps => count = at + 1,
                Part::TrapsLast => return Some(at + 1),
                Part::Ends => break,
                Part::Other if at >= count + GAP || at == 0 => break,
                Part::Other => {}
            }
        }
        Some(count)
    }

    /// Interprets `count` instructions from the program counter on, less if control leaves them or something wants attention.
    pub(super) fn interpret_stretch<R: RealCpu>(
        &mut self,
        direct: &mut Direct,
        vcpu: &mut Vcpu,
        cpu: &mut R,
        count: u64,
    ) -> After {
        direct.counters.emulated += 1;
        // A guest may go from one to the next for ever.
        direct.dirty |= direct.counters.emulated.is_multiple_of(LOOK);
        direct.save_fpu(vcpu, cpu);
        let linked = vcpu.link.is_some();
        let end = vcpu.pc.wrapping_add(4 * count);
        let mut left = count;
        let exit = loop {
            let exit = self.step(vcpu, left);
            let goes_on = vcpu.mode == Mode::Kernel && !vcpu.attention && !vcpu.waiting;
            if exit.is_some() || !goes_on {
                break exit;
            }
            if vcpu.in_slot {
                left = 1;
                continue;
            }
            // What has changed a mask has ended the step early.
            let inside = end.wrapping_sub(vcpu.pc) / 4;
            if !(1..left).contains(&inside) {
                break None;
            }
            left = inside;
        };
        if vcpu.link.is_some() && !linked {
            direct.link_left = LINKED_BURST;
        }
        direct.dirty |= vcpu.timer_deadline() != direct.timer || vcpu.device_touched;
        match exit {
            None | Some(interp::Exit::Limit | interp::Exit::Direct) => After::On,
            Some(exit) => After::Exit(exit.into()),
        }
    }
}
