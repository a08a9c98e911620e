//! The system controller's switches: power, windows, and what fails of the network.
//!
//! On an Origin it stands beside the nodes, and reaches each of them by a way of its own: nothing here asks whether a way
//! over routers and links is left.

use crate::careful::xkphys;
use crate::{asm, clock, hub, machine};
use abi::hub::Why;
use abi::topology::Topology;
use abi::{CpuId, Mpa, NodeId, map};
use cell::fault::Part;
use core::sync::atomic::{AtomicU64, Ordering};

/// Switches a part of the machine off as its failure would; or a router or link on again.
pub(crate) fn switch(part: Part, on: bool) {
    let controller = hub::controller();
    match part {
        Part::Router(router) => set(&controller.failed_routers, router.into(), !on),
        Part::Link(link) => set(&controller.failed_links, link.into(), !on),
        // A node or a CPU does not come back by being switched on.
        Part::Node(_) | Part::Cpu(_) if on => {}
        Part::Node(node) => node_off(node),
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
    window_off(node);
}

/// Tells a CPU to stop.
pub(crate) fn tell(cpu: CpuId, why: Why) {
    hub::words_of(cpu).parking.store(why as u64, Ordering::Release);
}

/// Has a node's window vanish, if it has one.
fn window_off(node: NodeId) {
    if machine::layout().window == 0 {
        return;
    }
    let registers = map::WINDOW_REGISTERS + u64::from(node.0) * map::WINDOW_REGISTERS_STEP;
    let switch = xkphys(Mpa(registers + map::WINDOW_SWITCH)) as *mut u32;
    // SAFETY: the window's switch, where the PROM has placed it; it is a register of its own, so that no lock is needed. What it
    // takes away belongs to a node that is dead.
    unsafe { switch.write_volatile(0) };
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
