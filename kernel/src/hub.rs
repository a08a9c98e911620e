//! The nodes' hubs, reached as hardware is: a hub answers only while its node has power and a way to it is
//! left.

use crate::careful::xkphys;
use crate::machine;
use abi::hub::{self, Controller, CpuWords, Hub};
use abi::topology::{Failed, Topology};
use abi::{CpuId, Mpa, NodeId, map};
use core::fmt;
use core::sync::atomic::Ordering;

/// A node whose hub does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreachable(pub(crate) NodeId);

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the hub of node {} does not answer", self.0)
    }
}

/// A node's hub, as this CPU reaches it.
///
/// # Errors
/// The node is dead, or no way leads to it.
pub(crate) fn reach(node: NodeId) -> Result<&'static Hub, Unreachable> {
    let layout = machine::layout();
    if node.0 >= layout.nodes as u8 {
        return Err(Unreachable(node));
    }
    let here = layout.node_of(machine::this_cpu());
    let powered = |n| page(n).power.load(Ordering::Acquire) != 0;
    let controller = controller();
    let routers = controller.failed_routers.load(Ordering::Acquire) as u8;
    let links = controller.failed_links.load(Ordering::Acquire) as u16;
    let reached = if routers == 0 && links == 0 {
        // A dead node is in nobody's way.
        powered(here) && powered(node)
    } else {
        let dead = layout.node_ids().filter(|n| !powered(*n)).fold(0, |set, n| set | 1 << n.0);
        let failed = Failed { nodes: dead, routers, links };
        Topology::new(layout.nodes).reach(failed).is(here, node)
    };
    if reached { Ok(page(node)) } else { Err(Unreachable(node)) }
}

/// A CPU's words in its node's hub.
///
/// # Errors
/// As [`reach`].
pub(crate) fn words(cpu: CpuId) -> Result<&'static CpuWords, Unreachable> {
    let layout = machine::layout();
    Ok(&reach(layout.node_of(cpu))?.cpus[hub::slot(layout, cpu)])
}

/// This CPU's words: its own node's hub is always there.
pub(crate) fn own() -> &'static CpuWords {
    let (layout, cpu) = (machine::layout(), machine::this_cpu());
    &page(layout.node_of(cpu)).cpus[hub::slot(layout, cpu)]
}

/// The system controller's page.
pub(crate) fn controller() -> &'static Controller {
    // SAFETY: low RAM that is set aside for it; all of its fields are atomic.
    unsafe { &*(xkphys(Mpa(map::RAM_BASE + map::CONTROLLER)) as *const Controller) }
}

fn page(node: NodeId) -> &'static Hub {
    // SAFETY: as for `controller`.
    unsafe { &*(xkphys(Mpa(map::RAM_BASE + hub::address(node))) as *const Hub) }
}
