//! Memory of guests that is gone.
//!
//! A VM's pages may lie in other cells' nodes, and one of these may die between any two instructions of whoever uses
//! them. The engines use guest memory as if it were their own, and most of what the monitor does with it would not survive to be told of
//! an error at each access. So an access of the monitor to memory of a node without power is passed over: a load gives 0,
//! a store is dropped, and this CPU remembers ([`take`]). Its VM depends on a cell that is dead, and ends as soon as the cells have agreed
//! that it is; until then the VCPU that ran is not run again.
//!
//! And lines of memory that is there are lost with the CPUs that had them in their caches: the hub of their node knows which ([`lines`]).
//!
//! Only what bears no meaning for the monitor may be reached so. Memory of other cells that does is read carefully
//! ([`crate::careful`]).

use crate::careful::{self, xkphys};
use crate::page::cell_page;
use crate::trap::Frame;
use crate::{hub, machine};
use abi::Mpa;
use abi::hub::LINE;
use cell::talk::mutant::{Mutant, seeded};
use core::sync::atomic::Ordering;

/// How far behind a load-linked its store-conditional may be, in instructions.
const LINKED: u64 = 8;

/// Whether memory was found to be gone on this CPU, since this was asked last.
pub(crate) fn take() -> bool {
    let lost = &cell_page().lost;
    lost.load(Ordering::Relaxed) != 0 && lost.swap(0, Ordering::Relaxed) != 0
}

/// Passes over the access that has trapped, if it was one to memory of a node that is dead.
pub(crate) fn pass_over(frame: &mut Frame) -> bool {
    let in_slot = frame.cause().contains(crate::cp0::Cause::BD);
    let at = frame.epc + if in_slot { 4 } else { 0 };
    let insn = fetch(at);
    let Some(kind) = Kind::of(insn) else { return false };
    if !is_gone(frame.gpr[rs(insn)].wrapping_add(i64::from(insn as i16).cast_unsigned())) {
        return false;
    }
    let mut next = if in_slot {
        match after_branch(frame, fetch(frame.epc)) {
            Some(next) => next,
            None => return false,
        }
    } else {
        at + 4
    };
    match kind {
        Kind::Load if seeded(Mutant::LoadNotPassedOver) => return false,
        Kind::Load => set(frame, rt(insn), 0),
        Kind::Store => {}
        Kind::Linked => {
            // The link is broken, so that the conditional store would fail, and all be tried again, for ever.
            let conditional = (1..=LINKED).map(|i| at + 4 * i).find(|at| {
                let other = fetch(*at);
                Kind::of(other) == Some(Kind::Conditional) && rs(other) == rs(insn)
            });
            let Some(conditional) = conditional.filter(|_| !in_slot) else { return false };
            set(frame, rt(insn), 0);
            set(frame, rt(fetch(conditional)), 1);
            next = conditional + 4;
        }
        Kind::Conditional => set(frame, rt(insn), 1),
    }
    frame.epc = next;
    cell_page().lost.store(1, Ordering::Relaxed);
    true
}

/// Lines that were lost with CPUs of dead nodes and have not been discarded, as far as the hubs can be reached that know.
pub(crate) fn lines() -> impl Iterator<Item = Mpa> {
    machine::layout().node_ids().flat_map(|node| {
        let words = hub::reach(node).map_or(&[][..], |hub| &hub.lost);
        let lines = words.iter().map(|word| Mpa(word.load(Ordering::Acquire)));
        let is_there = move |line: &Mpa| machine::layout().node_at(line.0) == Some(node);
        // What is no line of that node's is nothing to be touched.
        lines.filter(move |line| line.0.is_multiple_of(LINE) && is_there(line))
    })
}

/// Writes a lost line anew, with nothing, so that it can be read again.
pub(crate) fn discard(line: Mpa) {
    let Some(hub) = machine::layout().node_at(line.0).and_then(|node| hub::reach(node).ok()) else {
        return;
    };
    for at in (line.0..line.0 + LINE).step_by(8) {
        // SAFETY: memory of a VM that has ended, which this cell has the use of. If it has gone meanwhile, so has the line.
        let _ = unsafe { careful::store64(Mpa(at), 0) };
    }
    // Whoever gets the page sees it written.
    core::sync::atomic::fence(Ordering::SeqCst);
    for word in &hub.lost {
        let _ = word.compare_exchange(line.0, 0, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// What an instruction does with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Load,
    Store,
    Linked,
    Conditional,
}

impl Kind {
    /// By the major opcode (volume II, table A.2); the compiler has no others for data.
    const fn of(insn: u32) -> Option<Self> {
        Some(match insn >> 26 {
            // LDL, LDR; LB to LWU; LD.
            0x1a | 0x1b | 0x20..=0x27 | 0x37 => Self::Load,
            // SB to SWR; SD.
            0x28..=0x2e | 0x3f => Self::Store,
            // LL, LLD.
            0x30 | 0x34 => Self::Linked,
            // SC, SCD.
            0x38 | 0x3c => Self::Conditional,
            _ => return None,
        })
    }
}

const fn rs(insn: u32) -> usize {
    (insn >> 21 & 31) as usize
}

const fn rt(insn: u32) -> usize {
    (insn >> 16 & 31) as usize
}

fn set(frame: &mut Frame, register: usize, value: u64) {
    if register != 0 {
        frame.gpr[register] = value;
    }
}

/// An instruction of the monitor's.
fn fetch(at: u64) -> u32 {
    // SAFETY: text of this cell's monitor, around an instruction that was just executed.
    unsafe { (at as *const u32).read_volatile() }
}

/// Whether an address is memory of a node that has no power.
fn is_gone(va: u64) -> bool {
    let Some(mpa) = va.checked_sub(xkphys(Mpa(0))) else { return false };
    let layout = machine::layout();
    let off = |node| hub::page(node).power.load(Ordering::Acquire) == 0;
    layout.node_ids().any(|node| layout.window_of(node).contains(&mpa) && off(node))
}

/// Where a branch leads whose delay slot is done with; none: it is no branch that the compiler would make.
fn after_branch(frame: &mut Frame, insn: u32) -> Option<u64> {
    let (pc, a, b) = (frame.epc, frame.gpr[rs(insn)], frame.gpr[rt(insn)]);
    let signed = a.cast_signed();
    let taken = match insn >> 26 {
        // JR, JALR.
        0 if matches!(insn & 0x3f, 8 | 9) => {
            if insn & 0x3f == 9 {
                set(frame, (insn >> 11 & 31) as usize, pc + 8);
            }
            return Some(a);
        }
        // BLTZ, BGEZ, BLTZAL, BGEZAL.
        1 => {
            let which = rt(insn);
            if which & 0x10 != 0 {
                set(frame, 31, pc + 8);
            }
            if which & 1 == 0 { signed < 0 } else { signed >= 0 }
        }
        // J, JAL.
        jump @ (2 | 3) => {
            if jump == 3 {
                set(frame, 31, pc + 8);
            }
            return Some((pc + 4) & !0x0fff_ffff | u64::from(insn & 0x03ff_ffff) << 2);
        }
        // BEQ, BNE, BLEZ, BGTZ. (The slot of a likely branch is executed only if it is taken.)
        4 | 0x14 => a == b,
        5 | 0x15 => a != b,
        6 | 0x16 => signed <= 0,
        7 | 0x17 => signed > 0,
        _ => return None,
    };
    let offset = if taken { 4 + (i64::from(insn as i16) << 2) } else { 8 };
    Some(pc.wrapping_add_signed(offset))
}
