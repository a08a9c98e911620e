//! How the machine is divided: the CPUs and the memory of each node, the nodes of each cell. Pure
//! arithmetic, the same for PROM, monitor and host.
//!
//! A node's memory is a *window*, which really vanishes when it is switched off, or a *slice* of RAM, or
//! both. The CPUs of node `n` are `n * cpus_per_node` and up.

use crate::ids::{CellId, CpuId, MAX_CELLS, MAX_NODES, NodeId};
use crate::map;
use core::ops::Range;

/// What the machine consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Nodes, 1 to [`MAX_NODES`].
    pub nodes: u32,
    /// CPUs of each.
    pub cpus_per_node: u32,
    /// Bytes of a node's removable window; 0: none.
    pub window: u64,
    /// Bytes of a node's slice; 0: none.
    pub slice: u64,
    /// Bytes for each of its nodes that a cell's monitor keeps, where there are so many ([`Layout::reserve`]).
    pub kept: u64,
    /// The cell of each node.
    pub cell_of: [CellId; MAX_NODES],
}

impl Layout {
    /// Bytes of RAM (`-m`): low RAM and all slices.
    #[must_use]
    pub fn ram_size(&self) -> u64 {
        map::LOW_RAM_SIZE + u64::from(self.nodes) * self.slice
    }

    /// CPUs of the machine (`-smp`).
    #[must_use]
    pub const fn cpus(&self) -> u32 {
        self.nodes * self.cpus_per_node
    }

    /// Cells of the machine.
    #[must_use]
    pub fn cells(&self) -> u8 {
        self.node_ids().map(|node| self.cell(node).0.saturating_add(1)).max().unwrap_or(0)
    }

    /// All nodes.
    pub fn node_ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        (0..self.nodes as u8).map(NodeId)
    }

    /// The cell of a node.
    ///
    /// # Panics
    /// When there is no such node.
    #[must_use]
    pub fn cell(&self, node: NodeId) -> CellId {
        self.cell_of[usize::from(node.0)]
    }

    /// The nodes of a cell, lowest first.
    pub fn nodes_of(&self, cell: CellId) -> impl DoubleEndedIterator<Item = NodeId> + use<'_> {
        self.node_ids().filter(move |node| self.cell(*node) == cell)
    }

    /// The same, a bit each.
    #[must_use]
    pub fn node_set(&self, cell: CellId) -> u8 {
        self.nodes_of(cell).fold(0, |set, node| set | 1 << node.0)
    }

    /// The node of a CPU.
    #[must_use]
    pub const fn node_of(&self, cpu: CpuId) -> NodeId {
        NodeId(cpu.0 / self.cpus_per_node as u8)
    }

    /// The CPUs of a node.
    pub fn cpus_of_node(&self, node: NodeId) -> impl DoubleEndedIterator<Item = CpuId> + use<> {
        let per_node = self.cpus_per_node as u8;
        (node.0 * per_node..(node.0 + 1) * per_node).map(CpuId)
    }

    /// The CPUs of a cell, lowest first.
    pub fn cpus_of(&self, cell: CellId) -> impl DoubleEndedIterator<Item = CpuId> + use<'_> {
        self.nodes_of(cell).flat_map(|node| self.cpus_of_node(node))
    }

    /// Machine-physical addresses of a node's window; empty: it has none.
    #[must_use]
    pub fn window_of(&self, node: NodeId) -> Range<u64> {
        let start = map::WINDOW_BASE + u64::from(node.0) * self.window;
        start..start + self.window
    }

    /// Machine-physical addresses of a node's slice; empty: it has none.
    #[must_use]
    pub fn slice_of(&self, node: NodeId) -> Range<u64> {
        let start = map::SLICE_BASE + u64::from(node.0) * self.slice;
        start..start + self.slice
    }

    /// The node whose memory, window or slice, an address is.
    #[must_use]
    pub fn node_at(&self, mpa: u64) -> Option<NodeId> {
        let has = |node: &NodeId| {
            self.slice_of(*node).contains(&mpa) || self.window_of(*node).contains(&mpa)
        };
        self.node_ids().find(has)
    }

    /// What a cell's monitor keeps of the cell's memory: its text, data and heap. It begins in the lowest
    /// node's window (in its slice where there are no windows), at an address that the monitor's TLB entry
    /// can map, and goes on in those of the nodes that follow without a gap.
    ///
    /// [`Layout::kept`] a node; where a cell has nothing but windows, at most half of them.
    ///
    /// # Panics
    /// When the cell has no node.
    #[must_use]
    pub fn reserve(&self, cell: CellId) -> Range<u64> {
        let first = self.nodes_of(cell).next().expect("a cell has nodes");
        let nodes = self.nodes_of(cell).count() as u64;
        let in_a_row =
            self.nodes_of(cell).zip(first.0..).take_while(|(node, at)| node.0 == *at).count()
                as u64;
        let wanted = nodes * self.kept;
        let (start, room) = match (self.window, self.slice) {
            (0, slice) => (self.slice_of(first).start, in_a_row * slice),
            (window, 0) => (self.window_of(first).start, in_a_row * window / 2),
            (window, _) => (self.window_of(first).start, in_a_row * window),
        };
        start..start + wanted.min(room)
    }

    /// Bytes of a cell's memory, windows and slices.
    #[must_use]
    pub fn memory_of(&self, cell: CellId) -> u64 {
        self.nodes_of(cell).count() as u64 * (self.window + self.slice)
    }

    /// Bytes of a cell's memory that VMs can have.
    ///
    /// # Panics
    /// When the cell has no node.
    #[must_use]
    pub fn room_of(&self, cell: CellId) -> u64 {
        let reserve = self.reserve(cell);
        self.memory_of(cell) - (reserve.end - reserve.start)
    }

    /// Whether the numbers are those of a machine: what whoever reads them from outside asks first.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let nodes = 1..=MAX_NODES as u32;
        let cpus = 1..=crate::ids::CPUS_PER_NODE as u32;
        if !nodes.contains(&self.nodes) || !cpus.contains(&self.cpus_per_node) {
            return false;
        }
        let cells = self.cells();
        let windows = self.window.checked_mul(self.nodes.into());
        let slices = self.slice.checked_mul(self.nodes.into());
        let unit = map::SLICE_UNIT;
        usize::from(cells) <= MAX_CELLS
            && (0..cells).all(|cell| self.nodes_of(CellId(cell)).next().is_some())
            && windows.is_some_and(|bytes| bytes <= map::WINDOW_MAX)
            && slices.is_some_and(|bytes| bytes <= map::RAM_MAX - map::LOW_RAM_SIZE)
            && (self.window == 0 || self.window.is_power_of_two() && self.window >= map::WINDOW_MIN)
            && self.slice.is_multiple_of(unit)
            && self.window + self.slice >= map::WINDOW_MIN
            && self.kept.is_multiple_of(crate::PAGE_SIZE)
            && (map::KEPT_MIN..=map::RAM_MAX).contains(&self.kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(nodes: u32, window: u64, slice: u64, cells: &[u8]) -> Layout {
        let mut cell_of = [CellId(0); MAX_NODES];
        for (of, cell) in cell_of.iter_mut().zip(cells) {
            *of = CellId(*cell);
        }
        let (window, slice) = (window << 20, slice << 20);
        Layout { nodes, cpus_per_node: 2, window, slice, kept: map::KEPT_USUAL, cell_of }
    }

    #[test]
    fn a_machine_of_two_cells() {
        let machine = layout(4, 64, 192, &[0, 1, 0, 1]);
        assert!(machine.is_sound());
        assert_eq!((machine.cells(), machine.cpus(), machine.ram_size()), (2, 8, 1024 << 20));
        let cpus: Vec<u8> = machine.cpus_of(CellId(1)).map(|cpu| cpu.0).collect();
        assert_eq!(cpus, [2, 3, 6, 7]);
        for node in machine.node_ids() {
            for cpu in machine.cpus_of_node(node) {
                assert_eq!(machine.node_of(cpu), node);
            }
        }
        assert_eq!(machine.window_of(NodeId(1)), 0x7400_0000..0x7800_0000);
        assert_eq!(machine.slice_of(NodeId(1)), 0x9c00_0000..0xa800_0000);
        // Node 1's window is followed by another cell's.
        assert_eq!(machine.reserve(CellId(1)), 0x7400_0000..0x7800_0000);
        assert_eq!(machine.room_of(CellId(1)), (2 * 256 - 64) << 20);
    }

    #[test]
    fn the_monitor_keeps_a_share_of_each_kind_of_memory() {
        let size = |machine: &Layout| {
            let reserve = machine.reserve(CellId(0));
            (reserve.start, (reserve.end - reserve.start) >> 20)
        };
        assert_eq!(size(&layout(1, 64, 192, &[0])), (0x7000_0000, 32));
        assert_eq!(size(&layout(1, 0, 256, &[0])), (0x9000_0000, 32));
        assert_eq!(size(&layout(8, 32, 0, &[0; 8])), (0x7000_0000, 128));
        assert_eq!(size(&layout(8, 32, 128, &[0; 8])), (0x7000_0000, 256));
        assert_eq!(size(&layout(8, 32, 0, &[0, 1, 2, 3, 4, 5, 6, 7])), (0x7000_0000, 16));
        let with = |kept: u64, machine: Layout| size(&Layout { kept: kept << 20, ..machine });
        assert_eq!(with(48, layout(1, 64, 192, &[0])), (0x7000_0000, 48));
        assert_eq!(with(96, layout(1, 64, 192, &[0])), (0x7000_0000, 64), "its window");
        assert_eq!(with(96, layout(2, 0, 128, &[0, 0])), (0x9000_0000, 192));
        assert_eq!(with(1024, layout(2, 0, 128, &[0, 0])), (0x9000_0000, 256), "all there is");
        assert_eq!(with(16, layout(1, 0, 256, &[0])), (0x9000_0000, 16));
    }

    #[test]
    fn what_is_no_machine_is_found() {
        let good = layout(2, 64, 64, &[0, 1]);
        assert!(good.is_sound());
        for bad in [
            Layout { nodes: 0, ..good },
            Layout { nodes: 9, ..good },
            Layout { cpus_per_node: 0, ..good },
            Layout { cpus_per_node: 3, ..good },
            Layout { window: 48 << 20, ..good },
            Layout { window: 256 << 20, ..good },
            Layout { window: 1 << 20, ..good },
            Layout { slice: 1 << 40, ..good },
            Layout { slice: u64::MAX, ..good },
            Layout { slice: 4096, ..good },
            Layout { window: 0, slice: 8 << 20, ..good },
            Layout { kept: 0, ..good },
            Layout { kept: map::KEPT_MIN - 4096, ..good },
            Layout { kept: (32 << 20) + 512, ..good },
            Layout { kept: u64::MAX - 4095, ..good },
            layout(2, 64, 64, &[0, 2]),
            layout(2, 64, 64, &[1, 1]),
            layout(2, 64, 64, &[0, 255]),
        ] {
            assert!(!bad.is_sound(), "{bad:?}");
        }
    }
}
