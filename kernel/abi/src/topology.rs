//! How nodes are connected, and which of them still reach each other when parts have failed.
//!
//! As on an Origin 2000, two nodes share a router and the routers are the corners of a hypercube (an
//! incomplete one, if their number is no power of two): routers whose numbers differ in one bit have a
//! link. Each node has a link to its router.
//!
//! Two nodes reach each other if both live and there is a way between them over routers and links that
//! have not failed: an Origin's routing tables are rewritten after a failure, so that any way is as good
//! as the shortest. A node forwards nothing. A node reaches itself without its link, as long as it lives.

use crate::ids::{MAX_NODES, NodeId};

/// Most routers: one for two nodes.
pub const MAX_ROUTERS: usize = MAX_NODES / 2;
/// Most links: each node's to its router, and those of a square of routers.
pub const MAX_LINKS: usize = MAX_NODES + 4;

/// One end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A node.
    Node(NodeId),
    /// A router, by its number.
    Router(u8),
}

/// The connections of a machine of some nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    nodes: u8,
}

/// What has failed: a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failed {
    /// Nodes.
    pub nodes: u8,
    /// Routers.
    pub routers: u8,
    /// Links, by their place in [`Topology::links`].
    pub links: u16,
}

/// Which nodes reach which: symmetric, and transitive among nodes that live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach([u8; MAX_NODES]);

impl Topology {
    /// The connections of `nodes` nodes.
    ///
    /// # Panics
    /// When there are more than [`MAX_NODES`].
    #[must_use]
    pub fn new(nodes: u32) -> Self {
        assert!(nodes as usize <= MAX_NODES, "a machine of at most {MAX_NODES} nodes");
        Self { nodes: nodes as u8 }
    }

    /// How many routers there are.
    #[must_use]
    pub const fn routers(&self) -> u8 {
        self.nodes.div_ceil(2)
    }

    /// The router of a node.
    #[must_use]
    pub const fn router_of(&self, node: NodeId) -> u8 {
        node.0 / 2
    }

    /// All links with their two ends: first each node's to its router, then those between routers, by their
    /// lower end and then by their upper.
    pub fn links(&self) -> impl Iterator<Item = (End, End)> + use<> {
        let routers = self.routers();
        let spokes = (0..self.nodes).map(|node| (End::Node(NodeId(node)), End::Router(node / 2)));
        let edges = (0..routers).flat_map(move |a| {
            (a + 1..routers)
                .filter(move |b| (a ^ b).is_power_of_two())
                .map(move |b| (End::Router(a), End::Router(b)))
        });
        spokes.chain(edges)
    }

    /// What of the failures can be seen from `node`, which lives: those at the border of what it reaches. A router's ports tell a
    /// broken link from a dead neighbour; what lies behind a broken link is not known.
    #[must_use]
    pub fn seen_from(&self, node: NodeId, failed: Failed) -> Failed {
        let mut seen = Failed::default();
        let mut reached = 0u8;
        // Outwards, link by link, until nothing more is reached.
        loop {
            let before = reached;
            for (i, ends) in self.links().enumerate() {
                for (near, far) in [ends, (ends.1, ends.0)] {
                    let here = match near {
                        End::Node(near) => near == node,
                        End::Router(router) => reached >> router & 1 != 0,
                    };
                    if !here {
                        continue;
                    }
                    match far {
                        _ if failed.links >> i & 1 != 0 => seen.links |= 1 << i,
                        End::Node(far) => seen.nodes |= failed.nodes & 1 << far.0,
                        End::Router(far) if failed.routers >> far & 1 != 0 => {
                            seen.routers |= 1 << far;
                        }
                        End::Router(far) => reached |= 1 << far,
                    }
                }
            }
            if reached == before {
                return seen;
            }
        }
    }

    /// Who reaches whom.
    #[must_use]
    pub fn reach(&self, failed: Failed) -> Reach {
        // Routers that are connected, as sets: joined link by link until nothing changes.
        let mut joined: [u8; MAX_ROUTERS] = core::array::from_fn(|router| 1 << router);
        let works = |router: u8| failed.routers >> router & 1 == 0;
        for _ in 0..MAX_ROUTERS {
            for (i, ends) in self.links().enumerate() {
                if let (End::Router(a), End::Router(b)) = ends
                    && works(a)
                    && works(b)
                    && failed.links >> i & 1 == 0
                {
                    let both = joined[usize::from(a)] | joined[usize::from(b)];
                    joined[usize::from(a)] = both;
                    joined[usize::from(b)] = both;
                }
            }
        }
        let alive = |node: u8| node < self.nodes && failed.nodes >> node & 1 == 0;
        let attached = |node: u8| failed.links >> node & 1 == 0 && works(node / 2);
        let mut reach = Reach::default();
        for a in (0..self.nodes).filter(|a| alive(*a)) {
            let others = (0..self.nodes).filter(|b| {
                let way = joined[usize::from(a / 2)] >> (b / 2) & 1 != 0;
                alive(*b) && (a == *b || attached(a) && attached(*b) && way)
            });
            reach.0[usize::from(a)] = others.fold(0, |set, b| set | 1 << b);
        }
        reach
    }
}

impl Reach {
    /// Whether `to` is there for `from`.
    #[must_use]
    pub fn is(&self, from: NodeId, to: NodeId) -> bool {
        self.from(from) >> to.0 & 1 != 0
    }

    /// The nodes that `node` reaches, a bit each.
    #[must_use]
    pub fn from(&self, node: NodeId) -> u8 {
        self.0[usize::from(node.0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_each_machine() {
        let shape = |nodes| {
            let topology = Topology::new(nodes);
            (topology.routers(), topology.links().count())
        };
        assert_eq!(shape(1), (1, 1));
        assert_eq!(shape(2), (1, 2));
        assert_eq!(shape(3), (2, 4));
        assert_eq!(shape(4), (2, 5));
        assert_eq!(shape(6), (3, 8), "a corner is missing");
        assert_eq!(shape(8), (4, MAX_LINKS));
        let ends: Vec<_> = Topology::new(8).links().collect();
        assert_eq!(ends[5], (End::Node(NodeId(5)), End::Router(2)));
        let edges = [(0, 1), (0, 2), (1, 3), (2, 3)];
        assert_eq!(ends[8..], edges.map(|(a, b)| (End::Router(a), End::Router(b))));
        for nodes in 1..=8u32 {
            let all = (1u16 << nodes) as u8;
            let reach = Topology::new(nodes).reach(Failed::default());
            for node in 0..nodes as u8 {
                assert_eq!(reach.from(NodeId(node)), all.wrapping_sub(1));
            }
        }
    }

    /// Floyd and Warshall's algorithm over nodes and routers as one graph.
    fn naive(topology: &Topology, failed: Failed) -> [[bool; 8]; 8] {
        const ALL: usize = MAX_NODES + MAX_ROUTERS;
        let number = |end| match end {
            End::Node(node) => usize::from(node.0),
            End::Router(router) => MAX_NODES + usize::from(router),
        };
        let gone = |i: usize| {
            if i < MAX_NODES {
                failed.nodes >> i & 1 != 0 || i >= usize::from(topology.nodes)
            } else {
                failed.routers >> (i - MAX_NODES) & 1 != 0
            }
        };
        let mut way = [[false; ALL]; ALL];
        for (i, row) in way.iter_mut().enumerate() {
            row[i] = !gone(i);
        }
        for (i, (a, b)) in topology.links().enumerate() {
            let (a, b) = (number(a), number(b));
            let works = failed.links >> i & 1 == 0 && !gone(a) && !gone(b);
            (way[a][b], way[b][a]) = (works, works);
        }
        // Over routers only: a node forwards nothing.
        for over in MAX_NODES..ALL {
            for from in 0..ALL {
                for to in 0..ALL {
                    way[from][to] |= way[from][over] && way[over][to];
                }
            }
        }
        core::array::from_fn(|a| core::array::from_fn(|b| way[a][b]))
    }

    fn agree(topology: &Topology, failed: Failed) {
        let (reach, naive) = (topology.reach(failed), naive(topology, failed));
        for a in 0..8 {
            for b in 0..8 {
                let is = reach.is(NodeId(a), NodeId(b));
                assert_eq!(is, naive[usize::from(a)][usize::from(b)], "{failed:x?}: {a} to {b}");
            }
        }
    }

    #[test]
    fn eight_nodes_with_every_set_of_failed_routers_and_links() {
        let topology = Topology::new(8);
        for routers in 0..1 << MAX_ROUTERS {
            for links in 0..1 << MAX_LINKS {
                agree(&topology, Failed { nodes: 0, routers, links });
            }
        }
    }

    #[test]
    fn eight_nodes_with_every_set_of_dead_nodes() {
        let topology = Topology::new(8);
        for nodes in 0..=u8::MAX {
            for routers in 0..1 << MAX_ROUTERS {
                for link in 0..=MAX_LINKS {
                    let links = (1u32 << link) as u16 & ((1 << MAX_LINKS) - 1);
                    agree(&topology, Failed { nodes, routers, links });
                }
            }
        }
    }

    #[test]
    fn a_side_sees_how_it_was_cut_off_and_not_what_lies_behind() {
        let four = Topology::new(4);
        let dead_router = Failed { routers: 1, ..Failed::default() };
        assert_eq!(four.seen_from(NodeId(2), dead_router), dead_router);
        assert_eq!(four.seen_from(NodeId(0), dead_router), dead_router);
        // The link between the routers is the last.
        let halves = Failed { links: 1 << 4, ..Failed::default() };
        assert_eq!(four.seen_from(NodeId(3), halves), halves);
        let more = Failed { nodes: 0b10, ..halves };
        assert_eq!(four.seen_from(NodeId(3), more), halves, "node 1 lies behind it");
        assert_eq!(four.seen_from(NodeId(0), more), more);
        let alone = Failed { links: 1, nodes: 0b1000, routers: 0b10 };
        assert_eq!(four.seen_from(NodeId(0), alone), Failed { links: 1, ..Failed::default() });
        assert_eq!(four.seen_from(NodeId(1), alone), Failed { nodes: 0, ..alone });
    }

    #[test]
    fn what_is_seen_is_what_divides() {
        for nodes in 1..=6 {
            let topology = Topology::new(nodes);
            for routers in 0..1 << topology.routers() {
                for links in 0..1u16 << topology.links().count() {
                    let failed = Failed { nodes: 0, routers, links };
                    for node in (0..nodes as u8).map(NodeId) {
                        let seen = topology.seen_from(node, failed);
                        let (truth, view) = (topology.reach(failed), topology.reach(seen));
                        assert_eq!(truth.from(node), view.from(node));
                    }
                }
            }
        }
    }

    #[test]
    fn smaller_machines_with_every_pair_of_failures() {
        for nodes in 1..8 {
            let topology = Topology::new(nodes);
            for a in 0..MAX_LINKS {
                for b in 0..MAX_LINKS {
                    for routers in 0..1 << MAX_ROUTERS {
                        agree(&topology, Failed { nodes: 0, routers, links: 1 << a | 1 << b });
                    }
                }
            }
        }
    }
}
