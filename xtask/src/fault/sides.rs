//! Which cells a fault must cost: worked out from the topology and the rules of `docs/faults.md` ("Who goes on when
//! the machine is divided"), not from anything that a monitor says.

use abi::layout::Layout;
use abi::topology::{Failed, Reach, Topology};
use abi::{CellId, NodeId};

/// A set of cells, a bit each.
pub type Cells = u8;

/// The nodes of a cell, a bit each.
fn nodes(layout: &Layout, cell: u8) -> u8 {
    layout.nodes_of(CellId(cell)).fold(0, |set, node| set | 1 << node.0)
}

/// All cells of a machine.
pub fn all(layout: &Layout) -> Cells {
    (0..layout.cells()).fold(0, |set, cell| set | 1 << cell)
}

/// All cells of a set.
pub fn each(cells: Cells) -> impl Iterator<Item = u8> {
    (0..8).filter(move |cell| cells >> cell & 1 != 0)
}

/// Whether a side of these nodes is stronger than a rival: more nodes, or as many and the lowest-numbered one.
fn is_stronger(side: u8, rival: u8) -> bool {
    let (ours, theirs) = (side.count_ones(), rival.count_ones());
    ours > theirs || ours == theirs && side.trailing_zeros() < rival.trailing_zeros()
}

/// Which of the cells `live` are lost when these nodes, routers and links fail for good, at once. The others have been lost
/// before: their nodes have been fenced off.
pub fn lost(layout: &Layout, live: Cells, failed: Failed) -> Cells {
    let fenced = each(all(layout) & !live).fold(0, |set, cell| set | nodes(layout, cell));
    let failed = Failed { nodes: failed.nodes | fenced, ..failed };
    let topology = Topology::new(layout.nodes);
    let reach = topology.reach(failed);
    // A cell goes on only as a whole.
    let is_whole = |cell: u8| {
        let own = nodes(layout, cell);
        own & failed.nodes == 0
            && layout.nodes_of(CellId(cell)).all(|node| reach.from(node) & own == own)
    };
    let mut lost = 0;
    for cell in each(live) {
        let own = nodes(layout, cell);
        let first = NodeId(own.trailing_zeros() as u8);
        if !is_whole(cell) || !goes_on(layout, live, &topology, failed, &reach, first) {
            lost |= 1 << cell;
        }
    }
    lost
}

/// Whether the side on which `node` is goes on.
fn goes_on(
    layout: &Layout,
    live: Cells,
    topology: &Topology,
    failed: Failed,
    reach: &Reach,
    node: NodeId,
) -> bool {
    let all = each(live).fold(0, |set, cell| set | nodes(layout, cell));
    let side_reaches = reach.from(node);
    // A side consists of whole cells.
    let side = each(live)
        .map(|cell| nodes(layout, cell))
        .filter(|own| own & side_reaches == *own && own & failed.nodes == 0)
        .fold(0, |set, own| set | own);
    // How the rest may be divided, by what is seen from here: what lies behind a broken link may live, and hold
    // together.
    let seen = topology.seen_from(node, failed);
    let view = topology.reach(seen);
    let known_dead = seen.nodes;
    let rest = all & !side;
    (0..layout.nodes as u8)
        .filter(|other| rest >> other & 1 != 0 && known_dead >> other & 1 == 0)
        .all(|other| is_stronger(side, view.from(NodeId(other)) & rest & !known_dead))
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::ids::MAX_NODES;

    fn layout(nodes: u32, each: u8) -> Layout {
        let cell_of = core::array::from_fn(|node| CellId(node as u8 / each));
        let mut layout = Layout {
            nodes,
            cpus_per_node: 1,
            window: 32 << 20,
            slice: 64 << 20,
            kept: 32 << 20,
            cell_of,
        };
        for node in nodes as usize..MAX_NODES {
            layout.cell_of[node] = CellId(0);
        }
        layout
    }

    fn node(node: u8) -> Failed {
        Failed { nodes: 1 << node, ..Failed::default() }
    }

    fn router(router: u8) -> Failed {
        Failed { routers: 1 << router, ..Failed::default() }
    }

    fn link(link: u16) -> Failed {
        Failed { links: 1 << link, ..Failed::default() }
    }

    fn lost(layout: &Layout, failed: Failed) -> Cells {
        super::lost(layout, all(layout), failed)
    }

    #[test]
    fn who_has_been_lost_before_does_not_count() {
        let four = layout(4, 1);
        // Halves, of which that of node 0 goes on: but it has gone, and two are more than one.
        assert_eq!(super::lost(&four, 0b1110, link(4)), 0b0010);
        assert_eq!(super::lost(&four, 0b1110, Failed::default()), 0);
        assert_eq!(super::lost(&four, 0b1110, node(0)), 0);
        // At once nobody can be sure: for all that nodes 2 and 3 see, 0 and 1 may live.
        assert_eq!(lost(&four, Failed { nodes: 1, ..link(4) }), 0b1111);
    }

    /// The table of `docs/faults.md`, and the same on machines of other sizes.
    #[test]
    fn who_goes_on_is_what_the_table_says() {
        let four = layout(4, 1);
        assert_eq!(lost(&four, node(0)), 0b0001);
        assert_eq!(lost(&four, link(0)), 0b0001);
        assert_eq!(lost(&four, router(0)), 0b0011);
        assert_eq!(lost(&four, router(1)), 0b1100);
        assert_eq!(lost(&four, link(4)), 0b1100, "two halves: that of node 0 goes on");
        assert_eq!(lost(&four, Failed::default()), 0);
        let two = layout(2, 1);
        assert_eq!(lost(&two, router(0)), 0b10, "on a machine of one router all but the lowest");
        assert_eq!((lost(&two, link(0)), lost(&two, link(1))), (0b10, 0b10));
        assert_eq!((lost(&two, node(0)), lost(&two, node(1))), (0b01, 0b10));
        let eight = layout(8, 1);
        assert_eq!(lost(&eight, router(2)), 0b11_0000);
        for square in 8..12 {
            assert_eq!(lost(&eight, link(square)), 0, "there is another way");
        }
        assert_eq!(lost(&eight, link(5)), 0b10_0000);
    }

    #[test]
    fn a_cell_of_two_nodes_is_lost_as_a_whole() {
        let four = layout(8, 2);
        assert_eq!(lost(&four, node(3)), 0b0010);
        assert_eq!(lost(&four, router(3)), 0b1000);
        assert_eq!(lost(&four, link(0)), 0b0001);
        assert_eq!(lost(&four, link(8)), 0);
        let two = layout(4, 2);
        assert_eq!(lost(&two, node(1)), 0b01);
        assert_eq!(lost(&two, router(0)), 0b01);
        assert_eq!(lost(&two, link(4)), 0b10);
        assert_eq!(lost(&two, link(3)), 0b10);
    }
}
