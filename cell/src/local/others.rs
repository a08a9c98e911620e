//! The cell among others: where VMs start, who leads, how a run ends that all cells are part of.

use super::{LocalCell, Machine};
use abi::CellId;
use abi::config::{self, Config};
use abi::script::Outcome;
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
}
