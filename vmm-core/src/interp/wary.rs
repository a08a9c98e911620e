//! Execution where decoded code is not taken on trust.
//!
//! VCPUs of a VM that are in several cells ([`crate::vm::away`]) have no [`super::CodeMap`] in common: what one
//! stores into code is not posted to those elsewhere. So each of them keeps, beside a decoded instruction, the
//! word that it was decoded from, and compares it with memory before it executes: it never executes
//! but what is in memory at that moment, whoever stored it, and by whatever way. That is more than what is
//! guaranteed within a cell, and costs every instruction a load and a comparison. A VM that is in one
//! cell pays nothing.
//!
//! Here is also the other reason to look at an instruction before it is executed: 64-bit operations may be
//! disabled ([`Vcpu::narrow`]).

use super::Engine;
use super::code::{INSNS, Words};
use super::exec::{IN_PAGE, RESERVED};
use crate::cpu::{Status, Trap, Vcpu};
use crate::isa::{Insn, Op, decode};
use crate::mem::Page;
use core::cell::Cell;

/// What is done about an instruction before it is executed.
pub(super) trait Check {
    /// Before each one: what is decoded may be changed.
    fn look(&self, cell: &Cell<Insn>);
    /// The one at `pc` has just been decoded, from `word`.
    fn decoded(&self, pc: u64, word: u32);
    /// Control comes to `next` by a jump: whether execution stops there.
    #[inline(always)]
    fn stops(&self, _next: u64) -> bool {
        false
    }
}

/// Nothing is.
pub(super) struct Trusted;

impl Check for Trusted {
    #[inline(always)]
    fn look(&self, _: &Cell<Insn>) {}
    #[inline(always)]
    fn decoded(&self, _: u64, _: u32) {}
}

/// It is compared with memory. An instruction that is decoded has its word in `words`.
struct Compared<'a, const BIG: bool> {
    words: &'a Words,
    page: Page,
    /// Where the decoded ones lie.
    base: usize,
}

impl<const BIG: bool> Check for Compared<'_, BIG> {
    #[inline(always)]
    fn look(&self, cell: &Cell<Insn>) {
        // By its place, which is at hand: quicker than by the program counter, which is not.
        let at = (core::ptr::from_ref(cell).addr() - self.base) / size_of::<Insn>() % INSNS;
        let word = Engine::<BIG>::word(self.page, 4 * at as u64);
        if self.words[at].get() != word {
            self.words[at].set(word);
            cell.set(decode(word));
        }
    }

    #[inline(always)]
    fn decoded(&self, pc: u64, word: u32) {
        self.words[index(pc)].set(word);
    }
}

/// The number of the instruction at `pc` in its page.
#[inline(always)]
const fn index(pc: u64) -> usize {
    (pc & IN_PAGE) as usize / 4
}

impl<const BIG: bool> Engine<'_, BIG> {
    /// As [`Engine::execute`], for a VCPU that is [`Vcpu::wary`].
    #[inline(never)]
    pub(super) fn execute_warily(&mut self, cpu: &mut Vcpu, slot: usize, end: u64) {
        let code = self.code;
        let Some(page) = code.page(slot) else { return };
        let words = if cpu.verifies { code.words(slot) } else { None };
        if let Some(words) = words
            && !cpu.narrow
        {
            let base = code.code(slot).as_ptr().addr();
            return self.execute(cpu, slot, end, Compared::<BIG> { words, page, base });
        }
        // One alone: where there is no heap for the words, it is decoded anew each time.
        let index = index(cpu.pc);
        let cell = &code.code(slot)[index];
        if cpu.verifies || cell.get().op == Op::Undecoded {
            let word = Self::word(page, cpu.pc);
            cell.set(decode(word));
            if let Some(words) = words {
                words[index].set(word);
            }
        }
        if cpu.narrow && Self::is_reserved(cpu, cell.get()) {
            let Trap = cpu.trap(RESERVED);
            cpu.retired += 1;
            cpu.take_exception(cpu.pc, cpu.in_slot);
            return;
        }
        self.execute(cpu, slot, cpu.retired + 1, Trusted);
    }

    /// With 64-bit operations disabled: whether this is one.
    fn is_reserved(cpu: &Vcpu, insn: Insn) -> bool {
        // A coprocessor that is unusable says so first, when the instruction is executed.
        let unusable = match insn.op {
            Op::Dmfc0 | Op::Dmtc0 => !cpu.cop0_usable,
            Op::Dmfc1 | Op::Dmtc1 => !cpu.cp0.status.contains(Status::CU1),
            _ => false,
        };
        insn.op.is_64bit() && !unusable
    }
}
