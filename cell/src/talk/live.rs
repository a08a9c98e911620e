//! The live set: which cells are agreed to be alive, in which incarnation, and the number of that agreement.
//!
//! Every line that crosses cells carries its writer's incarnation and epoch. It counts only for a reader in the same
//! epoch: so an answer always comes from a cell that has drawn the same consequences of a failure, and whoever is owed
//! something writes it again in the new epoch. What carries an older epoch is stale. What carries
//! a newer one is early, and is read when its reader gets there.
//!
//! Who is dead is agreed on elsewhere ([`super::agree`]): each survivor goes through the same agreements in the same
//! order.

use super::line::Commit;
use super::mutant::{Mutant, seeded};
use abi::CellId;
use abi::ids::MAX_CELLS;

/// How often a cell has booted; 1 the first time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u16);

/// The number of an agreement about the live set. Wraps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Epoch(pub u16);

impl Epoch {
    /// The next agreement's.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// Whether it is a later one, among those that are not very far apart.
    #[must_use]
    pub const fn is_after(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0) as i16 > 0
    }
}

/// A set of cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CellSet(pub u8);

impl CellSet {
    /// No cell.
    pub const NONE: Self = Self(0);
    /// Every cell there can be.
    pub const ALL: Self = Self(0xff);

    /// One cell.
    #[must_use]
    pub const fn one(cell: CellId) -> Self {
        Self(1 << cell.0)
    }
    /// The first `cells` cells.
    #[must_use]
    pub const fn first(cells: usize) -> Self {
        Self(((1u16 << cells) - 1) as u8)
    }
    /// Whether `cell` is in it.
    #[must_use]
    pub const fn has(self, cell: CellId) -> bool {
        self.0 >> cell.0 & 1 != 0
    }
    /// It and `cell`.
    #[must_use]
    pub const fn with(self, cell: CellId) -> Self {
        Self(self.0 | 1 << cell.0)
    }
    /// It without `cell`.
    #[must_use]
    pub const fn without(self, cell: CellId) -> Self {
        Self(self.0 & !(1 << cell.0))
    }
    /// What is in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
    /// What is in it and not in `other`.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
    /// Whether no cell is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// The lowest cell in it.
    #[must_use]
    pub const fn lowest(self) -> Option<CellId> {
        if self.0 == 0 { None } else { Some(CellId(self.0.trailing_zeros() as u8)) }
    }
}

impl Iterator for CellSet {
    type Item = CellId;

    /// Takes the lowest cell out.
    fn next(&mut self) -> Option<CellId> {
        let cell = self.lowest()?;
        self.0 &= self.0 - 1;
        Some(cell)
    }
}

/// What a cell knows of the others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Live {
    me: CellId,
    epoch: Epoch,
    up: CellSet,
    incarnations: [Incarnation; MAX_CELLS],
}

impl Live {
    /// The cell `me` at its boot, with the live set that it was given: each cell's incarnation, 0 for one that is not
    /// in it. `me` is in it.
    #[must_use]
    pub fn new(me: CellId, epoch: Epoch, incarnations: [Incarnation; MAX_CELLS]) -> Self {
        let mut up = CellSet::NONE;
        for (cell, &incarnation) in (0..).zip(&incarnations) {
            if incarnation != Incarnation(0) {
                up = up.with(CellId(cell));
            }
        }
        debug_assert!(up.has(me));
        Self { me, epoch, up, incarnations }
    }

    /// This cell.
    #[must_use]
    pub const fn me(&self) -> CellId {
        self.me
    }
    /// The number of the last agreement.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }
    /// The live set.
    #[must_use]
    pub const fn cells(&self) -> CellSet {
        self.up
    }
    /// The live set without this cell.
    #[must_use]
    pub const fn others(&self) -> CellSet {
        self.up.without(self.me)
    }
    /// Whether `cell` is in the live set.
    #[must_use]
    pub const fn is_up(&self, cell: CellId) -> bool {
        self.up.has(cell)
    }
    /// A cell's last known incarnation.
    #[must_use]
    pub fn incarnation(&self, cell: CellId) -> Incarnation {
        self.incarnations[usize::from(cell.0)]
    }
    /// This cell's.
    #[must_use]
    pub fn my_incarnation(&self) -> Incarnation {
        self.incarnation(self.me)
    }

    /// The cells have agreed once more on what they had agreed on.
    pub fn renew(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// The survivors have agreed that `cell` is dead.
    pub fn down(&mut self, cell: CellId, epoch: Epoch) {
        self.up = self.up.without(cell);
        self.epoch = epoch;
    }

    /// The live cells have agreed that `cell` is back.
    pub fn up(&mut self, cell: CellId, incarnation: Incarnation, epoch: Epoch) {
        self.up = self.up.with(cell);
        self.incarnations[usize::from(cell.0)] = incarnation;
        self.epoch = epoch;
    }

    /// Whether a line that `from` wrote counts now. The incarnation is implied by the epoch as long as epochs don't
    /// wrap while a line lies about; with both, that does not matter either.
    #[must_use]
    pub fn accepts(&self, from: CellId, commit: Commit) -> bool {
        let epoch = commit.epoch() == self.epoch || seeded(Mutant::NoEpochCheck);
        let incarnation = commit.incarnation() == self.incarnation(from);
        if seeded(Mutant::StaleLines) {
            return true;
        }
        self.is_up(from) && epoch && incarnation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_cells() {
        let set = CellSet::one(CellId(7)).with(CellId(0)).with(CellId(3)).without(CellId(0));
        assert_eq!(set.collect::<std::vec::Vec<_>>(), [CellId(3), CellId(7)]);
        assert_eq!(CellSet::first(8), CellSet::ALL);
        assert_eq!(CellSet::first(2).lowest(), Some(CellId(0)));
        assert!(set.minus(CellSet::ALL).is_empty() && set.and(CellSet::ALL) == set);
        assert_eq!(CellSet::NONE.lowest(), None);
    }

    #[test]
    fn only_the_present_counts() {
        let mut incarnations = [Incarnation(0); MAX_CELLS];
        incarnations[..3].fill(Incarnation(1));
        let mut live = Live::new(CellId(0), Epoch(7), incarnations);
        let line =
            |incarnation, epoch| Commit::new(1, Incarnation(incarnation), Epoch(epoch), 1, 0);
        assert!(live.accepts(CellId(1), line(1, 7)));
        assert!(!live.accepts(CellId(1), line(1, 8)), "early");
        assert!(!live.accepts(CellId(1), line(2, 7)));
        assert!(!live.accepts(CellId(3), line(0, 7)), "not in the live set");
        live.down(CellId(2), live.epoch().next());
        assert!(!live.accepts(CellId(1), line(1, 7)), "stale");
        assert!(live.accepts(CellId(1), line(1, 8)));
        assert!(!live.accepts(CellId(2), line(1, 8)), "dead");
        live.up(CellId(2), Incarnation(2), live.epoch().next());
        assert!(!live.accepts(CellId(2), line(1, 9)) && live.accepts(CellId(2), line(2, 9)));
    }
}
