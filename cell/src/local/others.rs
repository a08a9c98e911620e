//! The cell among others: where VMs start, who leads, how a run ends that all cells are part of.

use super::{LocalCell, Machine};
use crate::talk::CellSet;
use abi::CellId;
use abi::config::{self, Config};
use abi::event::Kind;
use abi::script::Outcome;
use alloc::format;
use alloc::vec::Vec;

/// Where each VM starts.
pub(super) fn homes(config: &Config) -> Vec<CellId> {
    // Of a VM that has no room anywhere its lowest cell says so.
    let lowest = |vm: &config::Vm| CellId(vm.cells.trailing_zeros() as u8);
    let homes = config.homes().into_iter().zip(&config.vms);
    homes.map(|(home, vm)| home.unwrap_or(lowest(vm))).collect()
}

impl<M: Machine> LocalCell<M> {
    /// Another cell has ended the run: the next step ends this cell's part of it.
    pub fn end_run(&mut self) {
        self.over.get_or_insert(Outcome::Done);
    }

    /// Takes note of the cells that are lost; the one that leads reports them.
    pub fn lost(&mut self, cells: CellSet) {
        self.cells_died(cells);
        self.end_quarantines();
        let new = cells.minus(self.lost);
        if new.is_empty() || !self.out.machine.leads() {
            return;
        }
        self.lost = CellSet(self.lost.0 | new.0);
        for cell in new {
            self.out.event(Kind::CellLost { lost: cell });
            self.show(&format!("cell {cell} is lost: its CPUs have parked\n"));
            self.forget_cell(cell);
        }
        if self.out.player.is_none() && !self.stays {
            // Nobody is left who would play a script to its end.
            self.ends_with_vms = true;
        }
    }
}
