//! What a cell knows of the pmap of a VM whose home is another cell.

use super::table::{Table, frame};
use abi::{CellId, Mpa, VmId};
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

    /// The home has told where a page lies. Nothing happens past the end.
    pub fn learn(&self, page: u32, mpa: Mpa) {
        if let Some(entry) = self.table.entry(page) {
            entry.store(frame(mpa), Ordering::Release);
        }
    }

    /// These pages come to lie elsewhere.
    pub fn forget(&self, pages: Range<u32>) {
        for page in pages.start..pages.end.min(self.pages()) {
            self.table.unmap(page);
        }
    }

    /// Whether it is known that one of the VM's pages lies there.
    #[must_use]
    pub fn has(&self, mpa: Mpa) -> bool {
        self.table.iter().any(|(_, there)| there == mpa)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::PAGE_SIZE;

    #[test]
    fn it_knows_what_it_was_told() {
        let replica = Replica::new(VmId(2), CellId(3), 7, 1500).unwrap();
        let at = |page: u32| Mpa(0x9000_0000 + u64::from(page) * PAGE_SIZE);
        for page in [0, 1023, 1024, 1499, 1500, u32::MAX] {
            assert_eq!(replica.get(page), None);
            replica.learn(page, at(page & 0xffff));
        }
        assert_eq!(
            [0, 1023, 1499].map(|page| replica.get(page)),
            [0, 1023, 1499].map(|p| Some(at(p)))
        );
        assert_eq!((replica.get(1500), replica.get(u32::MAX)), (None, None));
        assert!(replica.has(at(1024)) && !replica.has(at(1500)));
        replica.forget(1023..u32::MAX);
        assert_eq!([0, 1023, 1499].map(|page| replica.get(page)), [Some(at(0)), None, None]);
        assert_eq!(format!("{replica:?}"), "Replica(1 of 1500 pages)");
    }
}
