//! A ballot: all that a cell says about the live set, in one word that is written whole.
//!
//! ```text
//! epoch 16 | incarnation 16 | live 8 | proposal 8 | suspects 8 | beat 8   (high to low)
//! ```
//!
//! It lies in the [`Slot::Ballot`] line in each other cell's mailbox and is written again and again, so that it is
//! its writer's heartbeat too. Behind it lie the incarnations of the live set, three in a word:
//!
//! ```text
//! incarnations of cells 3n + 2, 3n + 1 and 3n, 16 each | epoch 16   (high to low)
//! ```
//!
//! They are written before the ballot of a new epoch; each word says of which, so that a reader that comes late takes
//! none for another's.

use super::line::{Commit, Fabric, Slot, Unreachable};
use super::live::{CellSet, Epoch, Incarnation};
use abi::CellId;
use abi::ids::MAX_CELLS;

/// Incarnations in a word of payload.
const EACH: usize = 3;
/// Words of payload.
const WORDS: usize = MAX_CELLS.div_ceil(EACH);

/// What a cell says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ballot {
    /// The last agreement that it knows of.
    pub epoch: Epoch,
    /// Its own incarnation; 0 in a line that was never written.
    pub incarnation: Incarnation,
    /// The live set of that epoch; none: it has rebooted, and belongs to no live set yet.
    pub live: CellSet,
    /// The live set that it proposes for the next epoch; none: it proposes nothing. What it has proposed it never adds to
    /// again in this epoch. A cell that has rebooted proposes itself.
    pub proposal: CellSet,
    /// The cells of the live set that it suspects.
    pub suspects: CellSet,
    /// Counts how often it was written.
    pub beat: u8,
}

impl Ballot {
    /// What it says, whenever it was written.
    #[must_use]
    pub const fn opinion(self) -> Self {
        Self { beat: 0, ..self }
    }

    /// As it lies in memory.
    #[must_use]
    pub const fn word(self) -> Commit {
        Commit(
            (self.epoch.0 as u64) << 48
                | (self.incarnation.0 as u64) << 32
                | (self.live.0 as u64) << 24
                | (self.proposal.0 as u64) << 16
                | (self.suspects.0 as u64) << 8
                | self.beat as u64,
        )
    }

    /// What such a word says.
    #[must_use]
    pub const fn of(word: Commit) -> Self {
        let word = word.0;
        Self {
            epoch: Epoch((word >> 48) as u16),
            incarnation: Incarnation((word >> 32) as u16),
            live: CellSet((word >> 24) as u8),
            proposal: CellSet((word >> 16) as u8),
            suspects: CellSet((word >> 8) as u8),
            beat: word as u8,
        }
    }

    /// What `from` says.
    pub(super) fn read(fabric: &impl Fabric, from: CellId) -> Self {
        Self::of(fabric.commit(from, Slot::Ballot))
    }

    /// The incarnations of the live set of this epoch that `from` says; nothing if it has gone on to another one.
    pub(super) fn incarnations(
        fabric: &impl Fabric,
        from: CellId,
        epoch: Epoch,
    ) -> Option<[Incarnation; MAX_CELLS]> {
        let mut words = [0; WORDS];
        fabric.payload(from, Slot::Ballot, &mut words);
        let same = |word: &u64| *word as u16 == epoch.0;
        let part = |cell| Incarnation((words[cell / EACH] >> (cell % EACH * 16 + 16)) as u16);
        words.iter().all(same).then(|| core::array::from_fn(part))
    }

    /// Puts the incarnations of the live set of an epoch where `to` finds them.
    ///
    /// # Errors
    /// Its memory does not answer.
    pub(super) fn put(
        fabric: &mut impl Fabric,
        to: CellId,
        epoch: Epoch,
        incarnations: &[Incarnation; MAX_CELLS],
    ) -> Result<(), Unreachable> {
        let mut words = [u64::from(epoch.0); WORDS];
        for (cell, incarnation) in incarnations.iter().enumerate() {
            words[cell / EACH] |= u64::from(incarnation.0) << (cell % EACH * 16 + 16);
        }
        fabric.put(to, Slot::Ballot, &words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_keeps_its_parts_apart() {
        for bit in 0..64 {
            let word = Commit(1 << bit);
            let ballot = Ballot::of(word);
            assert_eq!(ballot.word(), word);
            let parts = [
                ballot.epoch.0.count_ones(),
                ballot.incarnation.0.count_ones(),
                ballot.live.0.count_ones(),
                ballot.proposal.0.count_ones(),
                ballot.suspects.0.count_ones(),
                ballot.beat.count_ones(),
            ];
            assert_eq!(parts.iter().sum::<u32>(), 1);
        }
        assert_eq!(Ballot::of(Commit(5 << 48)).epoch, Epoch(5));
        assert_eq!(Ballot::of(Commit(5 << 32)).incarnation, Incarnation(5));
        assert_eq!(Ballot::of(Commit(5 << 24)).live, CellSet(5));
        assert_eq!(Ballot::of(Commit(5 << 16)).proposal, CellSet(5));
        assert_eq!(Ballot::of(Commit(5 << 8)).suspects, CellSet(5));
    }
}
