//! How the other cells look from this CPU: what the failure detector is told ([`cell::talk::watch`]).
//!
//! A node without power and a parked CPU are seen by whoever a way leads there from. Of the network a CPU knows what the
//! routers that it reaches tell about their ports.

use crate::lock::Lock;
use crate::{hub, machine};
use abi::topology::{Failed, Topology};
use abi::{CellId, NodeId};
use cell::talk::{CellSet, Sight};

/// How the cells look now.
pub(crate) fn look() -> Sight {
    let failed = hub::failed();
    let mut sight = if failed == Failed::default() {
        Sight { reached: machine::others().with(machine::cell()), ..Sight::default() }
    } else {
        divided(failed)
    };
    for cell in sight.reached.without(machine::cell()) {
        // The PROM has told all of the cell's CPUs to park with the first that did.
        if machine::first(cell).is_some_and(|first| hub::is_parked(first.cpu) == Ok(true)) {
            sight.dead = sight.dead.with(cell);
        }
    }
    sight
}

/// What is found last when something has failed: what has, from where it is seen, how it looks. It stays so until somebody repairs it.
static FOUND: Lock<Option<(Failed, NodeId, Sight)>> = Lock::new("how the cells look", None);

/// The same, when something has failed.
#[cold]
fn divided(failed: Failed) -> Sight {
    let here = machine::layout().node_of(machine::this_cpu());
    let mut found = FOUND.lock();
    match &*found {
        Some((last, from, sight)) if (*last, *from) == (failed, here) => *sight,
        _ => found.insert((failed, here, search(failed, here))).2,
    }
}

fn search(failed: Failed, here: NodeId) -> Sight {
    let layout = machine::layout();
    let topology = Topology::new(layout.nodes);
    let seen = topology.seen_from(here, failed);
    let reach = topology.reach(seen);
    let nodes = |cell| layout.node_set(cell);
    // Whether a cell's nodes reach each other, and another cell's.
    let joined = |one: CellId, other: CellId| {
        let all = nodes(one) | nodes(other);
        layout.nodes_of(one).chain(layout.nodes_of(other)).all(|n| reach.from(n) & all == all)
    };
    let all = machine::others().with(machine::cell());
    let mut sight = Sight::default();
    for cell in all {
        if nodes(cell) & seen.nodes != 0 {
            sight.dead = sight.dead.with(cell);
        } else if joined(machine::cell(), cell) {
            sight.reached = sight.reached.with(cell);
        } else {
            let side = all.filter(|other| joined(cell, *other));
            sight.sides[usize::from(cell.0)] = side.fold(CellSet::NONE, CellSet::with);
        }
    }
    sight
}
