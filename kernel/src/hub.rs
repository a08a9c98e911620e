//! The nodes' hubs, reached as hardware is: a hub answers only while its node has power and a way to it is
//! left.

use crate::careful::xkphys;
use crate::machine;
use abi::hub::{self, Controller, CpuWords, Hub};
use abi::ids::MAX_NODES;
use abi::topology::{Failed, Topology};
use abi::{CellId, CpuId, Mpa, NodeId, map};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

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
    Known::new(node).ok_or(Unreachable(node))?.reach()
}

/// A node that the machine has, for whoever reaches for its hub often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known(NodeId);

impl Known {
    /// The node, if the machine has it.
    pub(crate) fn new(node: NodeId) -> Option<Self> {
        (u32::from(node.0) < machine::layout().nodes).then_some(Self(node))
    }

    /// Its hub, as this CPU reaches it now.
    ///
    /// # Errors
    /// The node is dead, or no way leads to it.
    #[inline]
    pub(crate) fn reach(self) -> Result<&'static Hub, Unreachable> {
        let hub = page(self.0);
        let answers = hub.power.load(Ordering::Acquire) != 0 && {
            let controller = controller();
            // A dead node is in nobody's way.
            let whole = controller.failed_routers.load(Ordering::Relaxed)
                | controller.failed_links.load(Ordering::Relaxed)
                == 0;
            whole || finds_a_way(self.0)
        };
        if answers { Ok(hub) } else { Err(Unreachable(self.0)) }
    }
}

/// Which nodes each node reaches, as it was last searched for: bits 0 to 7; from bit 8 on, for which failures that is so. 0: never yet.
static WAYS: [AtomicU64; MAX_NODES] = [const { AtomicU64::new(0) }; MAX_NODES];

/// Whether a way leads from this CPU to a node, now that a router or link has failed.
#[cold]
fn finds_a_way(node: NodeId) -> bool {
    let layout = machine::layout();
    let here = layout.node_of(machine::this_cpu());
    let failed = failed();
    let parts = u64::from(failed.links) << 16 | u64::from(failed.routers) << 8;
    let key = (parts | u64::from(failed.nodes)) << 8;
    let ways = &WAYS[usize::from(here.0)];
    let found = ways.load(Ordering::Relaxed);
    let reached = if found & !0xff == key {
        found as u8
    } else {
        let reached = Topology::new(layout.nodes).reach(failed).from(here);
        ways.store(key | u64::from(reached), Ordering::Relaxed);
        reached
    };
    reached >> node.0 & 1 != 0
}

/// Whether a way would lead from this CPU to a node, if the nodes of `cell` had power.
pub(crate) fn would_be_reached(node: NodeId, cell: CellId) -> bool {
    let layout = machine::layout();
    let mut failed = failed();
    failed.nodes = layout.nodes_of(cell).fold(failed.nodes, |set, node| set & !(1 << node.0));
    Topology::new(layout.nodes).reach(failed).is(layout.node_of(machine::this_cpu()), node)
}

/// All that has failed: what the network consists of, not what this CPU may know of it
/// ([`Topology::seen_from`]).
pub(crate) fn failed() -> Failed {
    let controller = controller();
    let dead = |n: &NodeId| page(*n).power.load(Ordering::Acquire) == 0;
    Failed {
        nodes: machine::layout().node_ids().filter(dead).fold(0, |set, n| set | 1 << n.0),
        routers: controller.failed_routers.load(Ordering::Acquire) as u8,
        links: controller.failed_links.load(Ordering::Acquire) as u16,
    }
}

/// A CPU's words in its node's hub.
///
/// # Errors
/// As [`reach`].
pub(crate) fn words(cpu: CpuId) -> Result<&'static CpuWords, Unreachable> {
    let layout = machine::layout();
    Ok(&reach(layout.node_of(cpu))?.cpus[hub::slot(layout, cpu)])
}

/// Whether a CPU has parked: it runs no monitor any more.
///
/// # Errors
/// As [`reach`].
pub(crate) fn is_parked(cpu: CpuId) -> Result<bool, Unreachable> {
    Ok(words(cpu)?.parked.load(Ordering::Acquire) != 0)
}

/// The system controller's page.
pub(crate) fn controller() -> &'static Controller {
    // SAFETY: low RAM that is set aside for it; all of its fields are atomic.
    unsafe { &*(xkphys(Mpa(map::RAM_BASE + map::CONTROLLER)) as *const Controller) }
}

/// A CPU's words, as the system controller reaches them.
pub(crate) fn words_of(cpu: CpuId) -> &'static CpuWords {
    let layout = machine::layout();
    &page(layout.node_of(cpu)).cpus[hub::slot(layout, cpu)]
}

/// A node's hub, as the system controller reaches it; others ask [`reach`].
pub(crate) fn page(node: NodeId) -> &'static Hub {
    // SAFETY: as for `controller`.
    unsafe { &*(xkphys(Mpa(map::RAM_BASE + hub::address(node))) as *const Hub) }
}
