//! Placement: from which cell and node each page of a VM comes.
//!
//! | `placement` | cell | node |
//! |---|---|---|
//! | `local` | the VM's home; what it lacks, the other permitted cells | that of the CPU that touches the page first |
//! | `spread` | the permitted cells in turn, by page number | the nodes of the cell in turn |
//!
//! A page of another cell is a borrowed one ([`crate::loan`]).

use crate::memmap::Memmap;
use abi::config::Placement;
use abi::ids::MAX_CELLS;
use abi::{CellId, NodeId};

/// Pages of each cell.
pub type Shares = [u32; MAX_CELLS];

/// Where a VM's pages come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    cells: [CellId; MAX_CELLS],
    count: u8,
    spread: bool,
}

impl Plan {
    /// The plan of a VM whose home is `home` and that may depend on the cells of which `permitted` has a
    /// bit.
    #[must_use]
    pub fn new(placement: Placement, home: CellId, permitted: u8) -> Self {
        let spread = placement == Placement::Spread;
        let mut plan = Self { cells: [home; MAX_CELLS], count: 0, spread };
        let first = (!spread).then_some(home);
        let is_permitted = |cell: &CellId| permitted >> cell.0 & 1 != 0 || *cell == home;
        let others = (0..MAX_CELLS as u8).map(CellId).filter(|cell| Some(*cell) != first);
        for cell in first.into_iter().chain(others.filter(is_permitted)) {
            plan.cells[usize::from(plan.count)] = cell;
            plan.count += 1;
        }
        plan
    }

    /// The cells that may give pages, the preferred first.
    #[must_use]
    pub fn cells(&self) -> &[CellId] {
        &self.cells[..usize::from(self.count)]
    }

    /// The cell that page `page` should come from.
    #[must_use]
    pub fn source(&self, page: u32) -> CellId {
        self.cells[page as usize % self.turns()]
    }

    /// How many pages in a row should come from different cells.
    #[must_use]
    pub fn turns(&self) -> usize {
        if self.spread { usize::from(self.count) } else { 1 }
    }

    /// How many of `pages` pages should come from each cell.
    #[must_use]
    pub fn wants(&self, pages: u32) -> Shares {
        let mut wants = [0; MAX_CELLS];
        let count = self.turns() as u32;
        for (i, cell) in (0..count).zip(self.cells()) {
            wants[usize::from(cell.0)] = pages / count + u32::from(i < pages % count);
        }
        wants
    }

    /// The node that page `page` should come from, where that is not for the CPU to decide that touches it.
    #[must_use]
    pub fn node(&self, page: u32, map: &Memmap) -> Option<NodeId> {
        if !self.spread {
            return None;
        }
        let nodes = map.nodes().count();
        let turn = page as usize / usize::from(self.count);
        map.nodes().nth(turn.checked_rem(nodes)?).map(|(node, _)| node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(plan: &Plan) -> Vec<u8> {
        plan.cells().iter().map(|cell| cell.0).collect()
    }

    #[test]
    fn local_pages_come_from_home_and_others_help_out() {
        let plan = Plan::new(Placement::Local, CellId(2), 0b1011_0000);
        assert_eq!(cells(&plan), [2, 4, 5, 7]);
        assert_eq!(plan.source(17), CellId(2));
        assert_eq!(plan.wants(100), [0, 0, 100, 0, 0, 0, 0, 0]);
        assert_eq!(cells(&Plan::new(Placement::Local, CellId(0), 0xff)), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn spread_pages_come_from_all_permitted_cells_in_turn() {
        let plan = Plan::new(Placement::Spread, CellId(2), 0b1001_0100);
        assert_eq!(cells(&plan), [2, 4, 7]);
        for pages in [0, 1, 2, 3, 100, 1001] {
            let mut wants = [0; MAX_CELLS];
            (0..pages).for_each(|page| wants[usize::from(plan.source(page).0)] += 1);
            assert_eq!(plan.wants(pages), wants);
        }
    }
}
