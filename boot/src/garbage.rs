//! What the memory of a dead node turns to.
//!
//! Its window vanishes by itself. Its slice is RAM that stays: the last of its CPUs to park overwrites it, from the PROM, with what
//! does most harm to whoever takes it for data: random words, and words that look like addresses, records of pages, and
//! instructions that trap. Nothing is overwritten while a CPU could still execute what is there.

use crate::cpu::{KSEG0, XKPHYS};
use crate::{asm, hub};
use abi::layout::Layout;
use abi::{CellId, CpuId, NodeId, PAGE_SIZE, map};
use core::sync::atomic::{AtomicU64, Ordering};

/// The CPUs that execute nothing but the PROM any more, a bit each.
static ARRIVED: AtomicU64 = AtomicU64::new(0);
/// The nodes whose memory is garbage, or is being turned to it, a bit each.
static SPOILED: AtomicU64 = AtomicU64::new(0);

/// A CPU has left its monitor for good. If it was the last that could use the memory of a node without power, that turns
/// to garbage before this comes back.
pub fn arrived(layout: &Layout, cpu: CpuId) {
    let here = ARRIVED.fetch_or(1 << cpu.0, Ordering::SeqCst) | 1 << cpu.0;
    let cell = layout.cell(layout.node_of(cpu));
    let is_here = |cpu: CpuId| here >> cpu.0 & 1 != 0;
    for node in layout.nodes_of(cell) {
        let unused = if layout.window == 0 {
            // The cell's monitor lies in slices, too.
            layout.cpus_of(cell).all(is_here)
        } else {
            layout.cpus_of_node(node).all(is_here)
        };
        let first = layout.cpus_of_node(node).next();
        let off = first.is_some_and(|first| !hub::has_power(layout, first));
        let bit = 1 << node.0;
        if unused && off && SPOILED.fetch_or(bit, Ordering::AcqRel) & bit == 0 {
            spoil(layout, node);
        }
    }
}

/// A cell's CPUs are about to serve again.
pub fn returned(layout: &Layout, cell: CellId) {
    let cpus = layout.cpus_of(cell).fold(0, |set, cpu| set | 1 << cpu.0);
    ARRIVED.fetch_and(!cpus, Ordering::SeqCst);
    SPOILED.fetch_and(!u64::from(layout.node_set(cell)), Ordering::AcqRel);
}

/// Random numbers: Marsaglia's xorshift64, from a state that is not 0.
pub fn random(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

/// Overwrites a node's slice. The same machine and time of failure give the same bytes.
fn spoil(layout: &Layout, node: NodeId) {
    let failed_at = hub::controller().failed_at[usize::from(node.0)].load(Ordering::Acquire);
    let mut random = random((failed_at << 8 | u64::from(node.0) | 1 << 63) ^ 0x9e37_79b9_7f4a_7c15);
    let slice = layout.slice_of(node);
    let inside = move |random: u64| slice.start + random % (slice.end - slice.start).max(8);
    for page in layout.slice_of(node).step_by(PAGE_SIZE as usize) {
        let r = random();
        let words = [
            r,
            // Machine addresses as the monitor uses them, aligned and not.
            XKPHYS | inside(r) & !7,
            KSEG0 | r & 0x0fff_fffc,
            map::MONITOR_VA | r >> 8 & 0x7f_fff8,
            // A guest's: in its KSEG0, and low.
            0xffff_ffff_8000_0000 | r >> 16 & 0x03ff_fff8,
            r >> 40 & !3,
            // A page number with small numbers beside it, as in records of pages.
            (inside(r) >> 12) << 32 | r & 0x7_0007,
            // Two instructions: of a major opcode that MIPS64 R2 does not have, and `break`.
            0x7bad_7bad_0000_000d,
        ];
        // In another order on each page.
        let turned: [u64; 8] = core::array::from_fn(|i| words[(i + (r >> 61) as usize) % 8]);
        fill(page, &turned);
    }
    asm::sync();
}

/// Repeats words over a page.
fn fill(page: u64, words: &[u64; 8]) {
    let [a, b, c, d, e, f, g, h] = *words;
    let mut at = (XKPHYS + page) as *mut u64;
    for _ in 0..PAGE_SIZE / 64 {
        // SAFETY: RAM of a dead node, which nobody owns any more; whoever reads it is to find garbage.
        unsafe {
            at.write_volatile(a);
            at.add(1).write_volatile(b);
            at.add(2).write_volatile(c);
            at.add(3).write_volatile(d);
            at.add(4).write_volatile(e);
            at.add(5).write_volatile(f);
            at.add(6).write_volatile(g);
            at.add(7).write_volatile(h);
            at = at.add(8);
        }
    }
}
