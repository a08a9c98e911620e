//! Which VMs a cell may have at the same time: what its monitor has to be ready for.

use crate::CellId;
use crate::config::{Config, Placement, Restart, Vm};
use alloc::vec::Vec;

/// A unit of memory in which it is reckoned what fits beside what.
const UNIT_SHIFT: u32 = 20;

/// The VMs that may be in a cell.
struct Company<'c> {
    /// Those that start there with the machine.
    own: Vec<&'c Vm>,
    /// Those that may come as well: started by hand, or when their own cell is lost.
    guests: Vec<&'c Vm>,
    /// Those that an operator may bring there.
    strangers: Vec<&'c Vm>,
}

/// What a VM takes of the memory of each cell that it is in.
fn share(vm: &Vm) -> u64 {
    match vm.placement {
        Placement::Local => vm.memory,
        Placement::Spread => vm.memory.div_ceil(u64::from(vm.cells.count_ones().max(1))),
    }
}

/// The largest sum of values of VMs that fit together into so many bytes.
fn most(vms: &[(&Vm, u64)], room: u64) -> u64 {
    let mut best = alloc::vec![0; (room >> UNIT_SHIFT) as usize + 1];
    for (vm, value) in vms {
        let size = usize::try_from(share(vm) >> UNIT_SHIFT).unwrap_or(usize::MAX);
        for taken in (size..best.len()).rev() {
            best[taken] = best[taken].max(best[taken - size] + value);
        }
    }
    best.last().copied().unwrap_or(0)
}

impl Config {
    fn company(&self, cell: CellId) -> Company<'_> {
        let (mut own, mut guests, mut strangers) = (Vec::new(), Vec::new(), Vec::new());
        for (vm, home) in self.vms.iter().zip(self.homes()) {
            if vm.cells >> cell.0 & 1 == 0 {
                continue;
            }
            let is_here = home == Some(cell) || home.is_some() && vm.placement == Placement::Spread;
            let kind = match is_here {
                true if vm.autostart => &mut own,
                true => &mut guests,
                false if vm.restart == Restart::OnFailureElsewhere => &mut guests,
                false => &mut strangers,
            };
            kind.push(vm);
        }
        Company { own, guests, strangers }
    }

    /// The largest sum of values of VMs that a cell may have at the same time: all that start there with the machine,
    /// and of the others as many as its memory has room for. These are of `value` if they may be started there
    /// as well, by hand or because their own cell was lost; `stranger` is the value of one that only an operator brings there.
    #[must_use]
    pub fn most_in(
        &self,
        cell: CellId,
        value: &dyn Fn(&Vm) -> u64,
        stranger: &dyn Fn(&Vm) -> u64,
    ) -> u64 {
        let Company { own, guests, strangers } = self.company(cell);
        let room = self.layout().room_of(cell).saturating_sub(own.iter().copied().map(share).sum());
        let guests = guests.into_iter().map(|vm| (vm, value(vm)));
        let strangers = strangers.into_iter().map(|vm| (vm, stranger(vm)));
        let others: Vec<_> = guests.chain(strangers).collect();
        own.into_iter().map(value).sum::<u64>() + most(&others, room)
    }

    /// Bytes of a cell's memory that VMs may have at the same time: all that start there with the machine, and as many of those
    /// that may be started there as well as there is room for.
    #[must_use]
    pub fn memory_in(&self, cell: CellId) -> u64 {
        let Company { own, guests, .. } = self.company(cell);
        let taken: u64 = own.into_iter().map(share).sum();
        let room = self.layout().room_of(cell);
        let guests: Vec<_> = guests.into_iter().map(|vm| (vm, share(vm))).collect();
        (taken + most(&guests, room.saturating_sub(taken))).min(room)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{config, vm};
    use crate::config::{Config, Placement, Restart, Vm};
    use crate::{CellId, map};
    use alloc::vec::Vec;

    fn two_cells(vms: Vec<Vm>) -> Config {
        let config = config(2, &[&[0], &[1]], vms);
        assert_eq!(config.layout().room_of(CellId(0)), 224 << 20);
        assert_eq!(config.machine.monitor_per_node, map::KEPT_USUAL);
        config
    }

    fn local(memory: u64, cells: u8) -> Vm {
        let (placement, restart) = (Placement::Local, Restart::Never);
        Vm { memory: memory << 20, cells, placement, restart, ..vm("a") }
    }

    fn counts(config: &Config) -> [u64; 2] {
        [0, 1].map(|cell| config.most_in(CellId(cell), &|_| 1, &|_| 1))
    }

    fn memory(config: &Config) -> [u64; 2] {
        [0, 1].map(|cell| config.memory_in(CellId(cell)) >> 20)
    }

    #[test]
    fn those_that_start_with_the_machine_and_whom_somebody_brings() {
        let config = two_cells(alloc::vec![local(64, 1), local(64, 1), local(64, 2)]);
        assert_eq!((counts(&config), memory(&config)), ([2, 1], [128, 64]));
        let config = two_cells(alloc::vec![local(64, 3), local(64, 3), local(64, 3), local(64, 3)]);
        assert_eq!((counts(&config), memory(&config)), ([3, 3], [128, 128]));
        assert_eq!(config.most_in(CellId(0), &|_| 1, &|_| 10), 12);
        assert_eq!(config.most_in(CellId(0), &|_| 1, &|_| 0), 2);
    }

    #[test]
    fn of_those_that_may_come_as_many_as_fit() {
        let hand = |memory| Vm { autostart: false, ..local(memory, 1) };
        let config =
            two_cells(alloc::vec![local(64, 1), hand(100), hand(100), hand(60), hand(224)]);
        assert_eq!((counts(&config), memory(&config)), ([3, 0], [224, 0]));
        let value = |vm: &Vm| if vm.memory == 100 << 20 { 5 } else { 1 };
        assert_eq!(config.most_in(CellId(0), &value, &|_| 0), 7);
        let lost = |memory| Vm { restart: Restart::OnFailureElsewhere, ..local(memory, 3) };
        let config = two_cells(alloc::vec![lost(100), lost(110), lost(20)]);
        assert_eq!((counts(&config), memory(&config)), ([2, 2], [120, 210]));
    }

    #[test]
    fn a_vm_that_is_spread_is_in_all_its_cells() {
        let spread = Vm { placement: Placement::Spread, ..local(100, 3) };
        let config = two_cells(alloc::vec![spread, local(200, 2)]);
        assert_eq!(memory(&config), [50, 50], "the other finds no home");
        let spread = Vm { placement: Placement::Spread, ..local(100, 3) };
        let config = two_cells(alloc::vec![spread, local(100, 2)]);
        assert_eq!((counts(&config), memory(&config)), ([1, 2], [50, 150]));
    }

    #[test]
    fn odd_sizes_do_no_harm() {
        let hand = |memory| Vm { autostart: false, memory, ..local(1, 1) };
        let config = two_cells(alloc::vec![hand(0), hand(4096), hand(u64::MAX)]);
        assert_eq!((counts(&config)[0], config.memory_in(CellId(0))), (2, 4096));
    }
}
