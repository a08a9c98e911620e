//! What a cell knows of the pmap of a VM whose home is another cell.

use super::table::{Table, frame};
use abi::{CellId, Mpa, PAGE_SHIFT, PAGE_SIZE, VmId};
use alloc::collections::TryReserveError;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::Ordering;

/// Where those pages of a VM lie that its VCPUs have used in a cell that they visit. The home has told, and tells
/// when they come to lie elsewhere.
pub struct Replica {
    table: Table,
    vm: VmId,
    home: CellId,
    life: u32,
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.table.iter().count();
        write!(f, "Replica({known} of {} pages)", self.table.pages())
    }
}

impl Replica {
    /// Nothing is known yet of the `pages` pages of VM `vm` in its life `life`, whose home is `home`.
    ///
    /// # Errors
    /// The monitor's heap has not enough room.
    pub fn new(vm: VmId, home: CellId, life: u32, pages: u32) -> Result<Self, TryReserveError> {
        Ok(Self { table: Table::new(pages)?, vm, home, life })
    }

    /// Whose it is.
    #[must_use]
    pub const fn vm(&self) -> VmId {
        self.vm
    }

    /// The VM's home.
    #[must_use]
    pub const fn home(&self) -> CellId {
        self.home
    }

    /// Which of the VM's lives.
    #[must_use]
    pub const fn life(&self) -> u32 {
        self.life
    }

    /// Pages of the VM's memory.
    #[must_use]
    pub const fn pages(&self) -> u32 {
        self.table.pages()
    }

    /// Where a page lies, if the home has told.
    #[inline]
    #[must_use]
    pub fn get(&self, page: u32) -> Option<Mpa> {
        self.table.get(page)
    }

    /// The home has told where a page and those after it lie: machine addresses, 0 for one that is nowhere yet. Nothing
    /// happens past the end. Where the first lies.
    pub fn learn(&self, page: u32, places: &[u64]) -> Option<Mpa> {
        for (page, &at) in (page..self.pages()).zip(places) {
            let known = at & (PAGE_SIZE - 1) == 0 && at >> PAGE_SHIFT <= u64::from(u32::MAX);
            if let Some(entry) = self.table.entry(page).filter(|_| known && at != 0) {
                entry.store(frame(Mpa(at)), Ordering::Release);
            }
        }
        self.get(page)
    }

    /// These pages come to lie elsewhere.
    pub fn forget(&self, pages: Range<u32>) {
        for page in pages.start..pages.end.min(self.pages()) {
            self.table.unmap(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_knows_what_it_was_told() {
        let replica = Replica::new(VmId(2), CellId(3), 7, 1500).unwrap();
        let at = |page: u32| Mpa(0x9000_0000 + u64::from(page) * PAGE_SIZE);
        for page in [0, 1023, 1499] {
            assert_eq!(replica.get(page), None);
            assert_eq!(replica.learn(page, &[at(page).0]), Some(at(page)));
        }
        assert_eq!(replica.learn(1498, &[at(7).0, at(8).0, at(9).0]), Some(at(7)));
        assert_eq!(replica.learn(4, &[0, 1, u64::MAX << 12, at(5).0]), None, "nowhere");
        let known = [0, 4, 5, 6, 7, 1023, 1498, 1499, 1500].map(|page| replica.get(page));
        let places = [Some(0), None, None, None, Some(5), Some(1023), Some(7), Some(8), None];
        assert_eq!(known, places.map(|place| place.map(at)));
        assert_eq!(replica.learn(u32::MAX, &[at(1).0]), None);
        replica.forget(1023..u32::MAX);
        assert_eq!([0, 1023, 1499].map(|page| replica.get(page)), [Some(at(0)), None, None]);
        assert_eq!(format!("{replica:?}"), "Replica(2 of 1500 pages)");
    }
}
