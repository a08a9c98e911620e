//! Which address space a CPU's TLB serves: identifiers (ASIDs), in generations.
//!
//! A space gets an identifier on each CPU it runs on, when it first runs there. There are 255; when all
//! are given, a new generation begins: every space needs a new one, and what the TLB still holds for the
//! old ones is dropped. Where TLBINV exists it is dropped identifier by identifier as each is given again, else
//! all at once.

use crate::cpu::{self, pda};
use crate::pages;
use crate::space::{NONE, Spaces};

/// Bits of an identifier; 0 is nobody's.
const BITS: u32 = 8;
const LAST: u64 = (1 << BITS) - 1;

/// A new identifier on this CPU, and its generation << 8.
fn allocate() -> u64 {
    let pda = pda();
    if pda.asid.0 == LAST {
        pda.asid = (0, pda.asid.1 + 1);
        if !pda.has_tlbinv {
            cpu::tlb_flush();
        }
    }
    pda.asid.0 += 1;
    let stamp = pda.asid.1 << BITS | pda.asid.0;
    if pda.has_tlbinv && pda.asid.1 > 1 {
        cpu::set_entry_hi(pda.asid.0);
        cpu::tlb_drop_space();
    }
    stamp
}

/// Makes a space this CPU's current one.
pub fn activate(spaces: &mut Spaces, slot: usize) {
    let pda = pda();
    let number = pda.number;
    if pda.space != slot {
        deactivate(spaces);
        pda.space = slot;
        pda.directory = spaces[slot].pages().directory();
        spaces[slot].active |= 1 << number;
    }
    let stamp = &mut spaces[slot].asid[number];
    if *stamp >> BITS != pda.asid.1 {
        *stamp = allocate();
    }
    if pda.stamp != *stamp {
        pda.stamp = *stamp;
        cpu::set_entry_hi(*stamp & LAST);
    }
}

/// Leaves this CPU without a space, if it has one.
pub fn deactivate(spaces: &mut Spaces) {
    let pda = pda();
    if pda.space != NONE {
        spaces[pda.space].active &= !(1 << pda.number);
        pda.space = NONE;
        pda.directory = pages::empty_directory();
    }
}

/// Drops all that this CPU's TLB holds for its current space.
pub fn flush_current() {
    let asid = pda().stamp & LAST;
    if pda().has_tlbinv {
        cpu::set_entry_hi(asid);
        cpu::tlb_drop_space();
    } else {
        cpu::tlb_flush();
        cpu::set_entry_hi(asid);
    }
}

/// After a page of the current space was resolved: if the TLB still has it as it was, corrects that.
///
/// EntryHi is as the exception left it. Where a shoot-down has changed the identifier since, the entry is gone
/// with it, and nothing is found.
pub fn refresh(spaces: &Spaces, va: u64) {
    cpu::tlb_probe();
    if cpu::index() >> 31 & 1 == 0 {
        let (even, odd) = spaces[pda().space].pages().pair(va);
        cpu::set_entry_lo0(even);
        cpu::set_entry_lo1(odd);
        cpu::tlb_write();
    }
}
