//! Lines of other nodes' memory that are lost with a CPU.
//!
//! On an Origin the caches keep each other coherent: a line that a CPU has written is in its cache alone until another
//! one wants it or it has to make room, and is lost with the CPU; the directory of the memory that it is from goes on naming a
//! node that does not answer. This machine has no caches. Instead, a CPU whose node has lost its power comes to the PROM, which draws some lines of what
//! it could write last: of the pages that the TLB maps for writing in the address space of the VCPU that it ran. They turn to
//! garbage, and the hubs of their nodes remember them, as directories would. All that is done before the CPU counts as
//! stopped. (A VCPU that is not being run has left nothing in caches: who stops to run it writes them back.)

use crate::cpu::{self, XKPHYS};
use crate::garbage::random;
use crate::{asm, hub};
use abi::hub::LINE;
use abi::layout::Layout;
use abi::{CpuId, NodeId, PAGE_SIZE};
use core::sync::atomic::Ordering;

/// EntryHi.ASID.
const ASID: u64 = 0xff;
/// EntryLo.D (writable), V, and G.
const WRITABLE: u64 = 0b110;
const GLOBAL: u64 = 0b001;
/// EntryLo.PFN.
const FRAME_SHIFT: u64 = 6;
const FRAME: u64 = (1 << 24) - 1;

/// What of other nodes' memory is lost with this CPU, if its node has no power. The same CPU, contents of its TLB and time of failure
/// give the same.
pub fn with(layout: &Layout, cpu: CpuId) {
    let space = cpu::take_space(usize::from(cpu.0));
    let node = layout.node_of(cpu);
    if space == 0 || hub::has_power(layout, cpu) {
        return;
    }
    let failed_at = hub::controller().failed_at[usize::from(node.0)].load(Ordering::Acquire);
    let mut random = random((failed_at << 8 | u64::from(cpu.0) | 1 << 63) ^ 0x6c6f_7374_6c69_6e65);
    for index in 0..asm::tlb_entries() {
        let (mask, hi, lo) = asm::read_tlb(index);
        // Larger than small pages are only those that a cell's monitor has from its own memory.
        if mask != 0 || hi & ASID != space || lo[0] & lo[1] & GLOBAL != 0 {
            continue;
        }
        for lo in lo.into_iter().filter(|lo| lo & WRITABLE == WRITABLE) {
            let page = (lo >> FRAME_SHIFT & FRAME) * PAGE_SIZE;
            let draw = random();
            if draw & 1 != 0
                && let Some(owner) = owner(layout, node, page)
            {
                lose(layout, owner, page + (draw >> 8) % (PAGE_SIZE / LINE) * LINE, draw);
            }
        }
    }
    asm::sync();
}

/// The node of another cell that a page is memory of, if that is alive.
fn owner(layout: &Layout, dead: NodeId, page: u64) -> Option<NodeId> {
    let owner = layout.node_at(page)?;
    let lives = hub::page(owner).power.load(Ordering::SeqCst) != 0;
    (lives && layout.cell(owner) != layout.cell(dead)).then_some(owner)
}

/// A line is lost. If the directory can't name any more, it has been written back in time.
fn lose(layout: &Layout, owner: NodeId, line: u64, draw: u64) {
    let named = hub::page(owner)
        .lost
        .iter()
        .any(|word| word.compare_exchange(0, line, Ordering::AcqRel, Ordering::Relaxed).is_ok());
    // A window may vanish at any moment, and with it what it held.
    if named && layout.slice_of(owner).contains(&line) {
        for at in (line..line + LINE).step_by(8) {
            // SAFETY: memory of a VM that a CPU which does not execute anything else any more could write just now.
            unsafe { ((XKPHYS + at) as *mut u64).write_volatile(draw.rotate_left(at as u32)) };
        }
    }
}
