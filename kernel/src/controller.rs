//! The system controller's switches: power, windows, and what fails of the network.
//!
//! On an Origin it stands beside the nodes, and reaches each of them by a way of its own: nothing here asks whether a way
//! over routers and links is left.

use crate::careful::xkphys;
use crate::{asm, clock, hub, machine};
use abi::hub::{Run, Serve, Why};
use abi::topology::Topology;
use abi::{CellId, CpuId, Mpa, NodeId, map};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use cell::fault::Part;
use core::sync::atomic::{AtomicU64, Ordering};

/// A marker for counting (docs/counting.md): a node fails.
const FAILS: u16 = 0x2010;

/// Switches a part of the machine off as its failure would; or a router or link on again.
pub(crate) fn switch(part: Part, on: bool) {
    let controller = hub::controller();
    match part {
        Part::Router(router) => set(&controller.failed_routers, router.into(), !on),
        Part::Link(link) => set(&controller.failed_links, link.into(), !on),
        // A node or a CPU does not come back by being switched on.
        Part::Node(_) | Part::Cpu(_) if on => {}
        Part::Node(node) => {
            asm::marker::<FAILS>();
            node_off(node);
        }
        Part::Cpu(cpu) => tell(cpu, Why::Hung),
    }
}

fn set(word: &AtomicU64, bit: u32, to: bool) {
    if to {
        word.fetch_or(1 << bit, Ordering::AcqRel);
    } else {
        word.fetch_and(!(1 << bit), Ordering::AcqRel);
    }
}

/// Takes a node's power away, unless that has been done: its hub and its window answer no more. Its CPUs find out by a
/// bus error, or at their next tick, and the last of them turns the rest of its memory to garbage.
pub(crate) fn node_off(node: NodeId) {
    let page = hub::page(node);
    let since = clock::now().max(1);
    let failed_at = &hub::controller().failed_at[usize::from(node.0)];
    let first = failed_at.compare_exchange(0, since, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    if !first {
        return;
    }
    // First of all: whoever comes to the PROM for what follows is to see it.
    page.power.store(0, Ordering::SeqCst);
    for cpu in machine::layout().cpus_of_node(node) {
        tell(cpu, Why::Vanished);
    }
    window(node, false);
}

/// Tells a CPU to stop.
pub(crate) fn tell(cpu: CpuId, why: Why) {
    hub::words_of(cpu).parking.store(why as u64, Ordering::Release);
}

/// Gives a node its power back, and its window what was in it. Its hub is as after a reset.
fn node_on(node: NodeId, incarnation: u64) {
    let (layout, page) = (machine::layout(), hub::page(node));
    window(node, true);
    for cpu in layout.cpus_of_node(node) {
        let words = hub::words_of(cpu);
        for word in [&words.doorbell, &words.parking, &words.parked, &words.serve] {
            word.store(0, Ordering::Relaxed);
        }
        set(&hub::controller().stopped, cpu.0.into(), false);
    }
    page.lost.iter().for_each(|line| line.store(0, Ordering::Relaxed));
    page.epoch.store(0, Ordering::Relaxed);
    page.run.store(Run::On as u64, Ordering::Relaxed);
    page.ticks.store(clock::ticks(), Ordering::Relaxed);
    page.incarnation.store(incarnation, Ordering::Relaxed);
    hub::controller().failed_at[usize::from(node.0)].store(0, Ordering::Relaxed);
    page.power.store(1, Ordering::Release);
}

/// Has a lost cell boot again: its nodes get their power back, and its lowest CPU is told to bring a monitor up.
///
/// # Errors
/// It can't yet: the culprit and the remedy.
pub(crate) fn repair(cell: CellId) -> Result<String, String> {
    let layout = machine::layout();
    let has_stopped = |cpu: &CpuId| hub::controller().has_stopped(cpu.0.into());
    if let Some(cpu) = layout.cpus_of(cell).find(|cpu| !has_stopped(cpu)) {
        return Err(format!("repair: CPU {cpu} of cell {cell} has not stopped yet: try again"));
    }
    let Some(first) = machine::first(cell) else {
        return Err(format!("repair: there is no cell {cell}"));
    };
    if let Some(node) = layout.nodes_of(cell).find(|node| !hub::would_be_reached(*node, cell)) {
        let failed: Vec<String> = failed_parts().map(|part| format!("`repair {part}`")).collect();
        let failed = failed.join(", ");
        return Err(format!("repair: no way leads to node {node} of cell {cell}: {failed} first"));
    }
    let incarnation = hub::page(first.node).incarnation.load(Ordering::Acquire) + 1;
    for node in layout.nodes_of(cell) {
        node_on(node, incarnation);
    }
    asm::sync();
    hub::words_of(first.cpu).serve.store(Serve::First as u64, Ordering::Release);
    Ok(format!("cell {cell} boots again\n"))
}

/// Has a node's window vanish or come back, if it has one.
fn window(node: NodeId, on: bool) {
    if machine::layout().window == 0 {
        return;
    }
    let switch = xkphys(Mpa(map::window_registers(node) + map::WINDOW_SWITCH)) as *mut u32;
    // SAFETY: the window's switch, where the PROM has placed it; it is a register of its own, so that no lock is needed. What it
    // takes away or brings back belongs to a node that is dead.
    unsafe { switch.write_volatile(u32::from(on).to_le()) };
    asm::sync();
}

/// What of the network has failed, in words: of routers and links.
pub(crate) fn failed_parts() -> impl Iterator<Item = Part> {
    let failed = hub::failed();
    let topology = Topology::new(machine::layout().nodes);
    let routers = (0..topology.routers()).filter(move |r| failed.routers >> r & 1 != 0);
    let links = (0..topology.links().count() as u8).filter(move |l| failed.links >> l & 1 != 0);
    routers.map(Part::Router).chain(links.map(Part::Link))
}
