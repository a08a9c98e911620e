//! Pages by owner, and what can be wrong with them.

use super::Owner;
use abi::{Mpa, PAGE_SIZE};
use core::fmt;

/// Pages by owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// All there are.
    pub total: u64,
    /// Nobody's.
    pub free: u64,
    /// The monitor's.
    pub monitor: u64,
    /// The VMs'.
    pub vm: u64,
    /// Lent to other cells.
    pub lent: u64,
    /// Lent to cells that have died, until none of their CPUs can reach them any more.
    pub quarantined: u64,
}

impl Accounts {
    /// MEM-SUM.
    #[must_use]
    pub const fn balanced(&self) -> bool {
        self.free + self.monitor + self.vm + self.lent + self.quarantined == self.total
    }

    pub(super) const fn slot(&mut self, owner: Owner) -> &mut u64 {
        match owner {
            Owner::Free => &mut self.free,
            Owner::Monitor => &mut self.monitor,
            Owner::Vm { .. } => &mut self.vm,
            Owner::Lent { .. } => &mut self.lent,
            Owner::Quarantined { .. } => &mut self.quarantined,
        }
    }
}

impl core::ops::AddAssign for Accounts {
    fn add_assign(&mut self, other: Self) {
        self.total += other.total;
        self.free += other.free;
        self.monitor += other.monitor;
        self.vm += other.vm;
        self.lent += other.lent;
        self.quarantined += other.quarantined;
    }
}

impl core::iter::Sum for Accounts {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, one| {
            sum += one;
            sum
        })
    }
}

impl fmt::Display for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { total, free, monitor, vm, lent, quarantined } = self;
        write!(
            f,
            "free {free} + monitor {monitor} + VM {vm} + lent {lent} + quarantined {quarantined} = \
             total {total} pages of {} KB",
            PAGE_SIZE >> 10
        )
    }
}

/// Which invariant does not hold, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// MEM-SUM: the counters of a pool of pages and its words differ.
    Sum {
        /// What the counters say.
        counted: Accounts,
        /// What the words say.
        found: Accounts,
    },
    /// A page's word is none that is ever written.
    Damaged {
        /// The page.
        mpa: Mpa,
    },
    /// MEM-LIST: a free list is not the free pages of its pool.
    List {
        /// The word where that shows.
        word: u32,
    },
    /// MEM-MAP: a pmap and the memmap disagree about this page.
    Map {
        /// The page.
        mpa: Mpa,
    },
    /// MEM-MAP: pages are recorded as VMs' that no pmap maps, or the other way round.
    Unmapped {
        /// Pages that the memmap says are VMs'.
        recorded: u64,
        /// Pages in all pmaps.
        mapped: u64,
        /// Pages on their way from the one to the other.
        placing: u64,
    },
    /// MEM-PROMISE: what VMs are promised of a cell's memory is not what they may yet take of it, or is
    /// more than is free.
    Promise {
        /// What is recorded as promised.
        promised: u64,
        /// What the VMs may yet take.
        due: u64,
        /// What is free.
        free: u64,
    },
    /// A line of memory was lost with a dead cell's CPUs and has not been discarded.
    LostLine {
        /// Where it is.
        mpa: Mpa,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sum { counted, found } => {
                write!(f, "MEM-SUM: counted {counted}, but found {found}")
            }
            Self::Damaged { mpa } => write!(f, "the record of machine page {mpa} is damaged"),
            Self::List { word } => {
                write!(f, "MEM-LIST: a free list is not the free pages, at word {word}")
            }
            Self::Map { mpa } => {
                write!(f, "MEM-MAP: memmap and pmap disagree about machine page {mpa}")
            }
            Self::Unmapped { recorded, mapped, placing } => {
                write!(
                    f,
                    "MEM-MAP: {recorded} pages are VMs' but {mapped} are mapped and {placing} on \
                     their way"
                )
            }
            Self::Promise { promised, due, free } => {
                write!(f, "MEM-PROMISE: {promised} pages promised, {due} due, {free} free")
            }
            Self::LostLine { mpa } => {
                write!(f, "the line at {mpa} was lost and has not been discarded")
            }
        }
    }
}
