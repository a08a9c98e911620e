//! The nodes' hub pages and the system controller's page, in low RAM.

use crate::cpu::KSEG0;
use abi::hub::{self, Controller, CpuWords, Hub, Why};
use abi::layout::Layout;
use abi::{CpuId, NodeId, map};
use core::sync::atomic::Ordering;

/// A node's hub page.
pub fn page(node: NodeId) -> &'static Hub {
    // SAFETY: low RAM that is set aside for it, zero at first; all of its fields are atomic.
    unsafe { &*((KSEG0 + hub::address(node)) as *const Hub) }
}

/// The system controller's page.
pub fn controller() -> &'static Controller {
    // SAFETY: as for `page`.
    unsafe { &*((KSEG0 + map::CONTROLLER) as *const Controller) }
}

/// A CPU's words in its node's hub.
pub fn words(layout: &Layout, cpu: CpuId) -> &'static CpuWords {
    &page(layout.node_of(cpu)).cpus[hub::slot(layout, cpu)]
}

/// Switches every node on: each in its cell's first incarnation.
pub fn power_on(layout: &Layout) {
    for node in layout.node_ids() {
        let page = page(node);
        page.cell.store(layout.cell(node).0.into(), Ordering::Relaxed);
        page.incarnation.store(1, Ordering::Relaxed);
        page.power.store(1, Ordering::Release);
    }
}

/// Whether a CPU's node has power.
pub fn has_power(layout: &Layout, cpu: CpuId) -> bool {
    page(layout.node_of(cpu)).power.load(Ordering::SeqCst) != 0
}

/// Has the other CPUs of a CPU's cell park.
pub fn tell(layout: &Layout, cpu: CpuId) {
    for other in layout.cpus_of(layout.cell(layout.node_of(cpu))) {
        words(layout, other).parking.store(Why::Told as u64, Ordering::Release);
    }
}

/// Says that a CPU has parked; whether any CPU is left.
pub fn park(layout: &Layout, cpu: CpuId, why: Why) -> bool {
    controller().awake.fetch_and(!(1 << cpu.0), Ordering::AcqRel);
    // In one order for all: of several that park at once one at least sees all others parked.
    words(layout, cpu).parked.store(why as u64, Ordering::SeqCst);
    controller().stopped.fetch_or(1 << cpu.0, Ordering::AcqRel);
    let mut all = (0..layout.cpus() as u8).map(CpuId);
    all.any(|cpu| words(layout, cpu).parked.load(Ordering::SeqCst) == 0)
}
