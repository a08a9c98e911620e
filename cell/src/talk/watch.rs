//! The failure detector: what a cell makes of what it sees of the others, and of how long it has seen it.
//!
//! | what is seen | is found | after |
//! |---|---|---|
//! | a cell's node has no power though a way leads there, or all its CPUs have parked | dead | at once |
//! | no way leads to a cell | suspected | [`CUT_NS`] |
//! | it is there, but its ballot's beat stands still | suspected | [`SILENCE_NS`] |
//! | this cell's own nodes do not reach each other | it suspects itself | [`CUT_NS`] |
//!
//! Nothing is ended for suspicion: that takes the consent of all others ([`super::agree`]), and it is taken back as soon as the cell is
//! seen or heard. Time counts only while this cell looks: of the time between two looks at most
//! [`STEP_NS`] does, so that a machine that stood still for long has not been silent for long.

use super::agree::Finding;
use super::ballot::Ballot;
use super::line::Fabric;
use super::live::CellSet;
use abi::CellId;
use abi::ids::MAX_CELLS;

/// How long a way is away before that counts: what is back sooner was a disturbance. Twice as long, and the side that does
/// not prevail parks.
pub const CUT_NS: u64 = 20_000_000;
/// How long a cell may be silent: host threads stand still for two seconds.
pub const SILENCE_NS: u64 = 3_000_000_000;
/// How long it may be silent before it has ever been heard: it boots.
pub const START_NS: u64 = 30_000_000_000;
/// How much of the time between two looks counts.
pub const STEP_NS: u64 = 10_000_000;

/// How the machine looks from a cell just now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// The cells all of whose nodes this cell reaches, with this cell itself if its nodes reach each other.
    pub reached: CellSet,
    /// Cells of which that is known that they do nothing any more: a node has no power, or all CPUs have parked. With this
    /// cell itself if one of its nodes has no power.
    pub dead: CellSet,
    /// Of each cell that is neither reached nor known to be dead: the cells that may be on its side, for all that can be seen from
    /// here; none if its own nodes don't reach each other for certain.
    pub sides: [CellSet; MAX_CELLS],
}

/// What is known of a cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Seen {
    /// What it said last.
    ballot: Ballot,
    /// It has been heard.
    heard: bool,
    /// For how long it has been silent, in nanoseconds.
    silent: u64,
    /// For how long it has not been reached; nothing: it is.
    cut: Option<u64>,
}

/// The failure detector of a cell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Watch {
    me: CellId,
    cells: CellSet,
    looked: u64,
    seen: [Seen; MAX_CELLS],
}

impl Watch {
    /// The detector of cell `me` among these, at this time.
    #[must_use]
    pub fn new(me: CellId, cells: CellSet, now: u64) -> Self {
        Self { me, cells, looked: now, seen: [Seen::default(); MAX_CELLS] }
    }

    /// Whether one of these cells has something new to say since the last look, other than that it is there.
    #[must_use]
    pub fn has_news(&self, from: CellSet, fabric: &impl Fabric) -> bool {
        from.and(self.cells).without(self.me).into_iter().any(|cell| {
            let seen = self.seen[usize::from(cell.0)].ballot;
            Ballot::read(fabric, cell).opinion() != seen.opinion()
        })
    }

    /// These have been silent for so long that they are suspected, unless they are heard: for the model check, which has
    /// no time.
    #[cfg(test)]
    pub(crate) fn time_out(&mut self, cells: CellSet) {
        for cell in cells {
            self.seen[usize::from(cell.0)].silent = START_NS;
        }
    }

    /// Looks: what is found at this time, in nanoseconds.
    pub fn look(&mut self, now: u64, sight: &Sight, fabric: &impl Fabric) -> Finding {
        let step = now.saturating_sub(self.looked).min(STEP_NS);
        self.looked = now;
        let mut finding = Finding { dead: sight.dead, suspects: sight.dead, ..Finding::default() };
        for cell in self.cells.minus(sight.dead) {
            let index = usize::from(cell.0);
            let seen = &mut self.seen[index];
            if !sight.reached.has(cell) {
                let cut = seen.cut.map_or(0, |cut| cut.saturating_add(step));
                (seen.cut, seen.silent) = (Some(cut), 0);
                finding.sides[index] = sight.sides[index];
                if cut >= CUT_NS {
                    finding.suspects = finding.suspects.with(cell);
                }
                if cut >= 2 * CUT_NS {
                    finding.despaired = finding.despaired.with(cell);
                }
                continue;
            }
            seen.cut = None;
            if cell == self.me {
                continue;
            }
            let ballot = Ballot::read(fabric, cell);
            if ballot == seen.ballot {
                seen.silent = seen.silent.saturating_add(step);
            } else {
                *seen = Seen { ballot, heard: true, ..Seen::default() };
            }
            if seen.silent >= if seen.heard { SILENCE_NS } else { START_NS } {
                finding.suspects = finding.suspects.with(cell);
            }
        }
        finding
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::{Commit, Slot, Unreachable};
    use super::*;

    /// What the others' ballots say.
    #[derive(Default)]
    struct Words([u64; MAX_CELLS]);

    impl Fabric for Words {
        fn commit(&self, from: CellId, slot: Slot) -> Commit {
            assert_eq!(slot, Slot::Ballot);
            Commit(self.0[usize::from(from.0)])
        }
        fn payload(&self, _: CellId, _: Slot, _: &mut [u64]) {}
        fn put(&mut self, _: CellId, _: Slot, _: &[u64]) -> Result<(), Unreachable> {
            Err(Unreachable)
        }
        fn publish(&mut self, _: CellId, _: Slot, _: Commit) -> Result<(), Unreachable> {
            Err(Unreachable)
        }
        fn ring(&mut self, _: CellId) {}
    }

    const ALL: CellSet = CellSet::first(3);
    const MS: u64 = 1_000_000;

    fn sight(reached: u8) -> Sight {
        Sight { reached: CellSet(reached), ..Sight::default() }
    }

    fn watch() -> Watch {
        Watch::new(CellId(0), ALL, 0)
    }

    #[test]
    fn a_dead_cell_is_found_at_once() {
        let sight = Sight { dead: CellSet(0b10), ..sight(0b101) };
        let found = watch().look(1, &sight, &Words::default());
        assert_eq!((found.dead, found.suspects), (CellSet(0b10), CellSet(0b10)));
    }

    #[test]
    fn a_way_that_comes_back_soon_was_never_lost() {
        let (mut watch, words) = (watch(), Words::default());
        for start in [0, 100] {
            for ms in 0..19 {
                let found = watch.look((start + ms) * MS, &sight(0b101), &words);
                assert!(found.suspects.is_empty(), "{ms}");
            }
            assert_eq!(watch.look((start + 19) * MS, &sight(0b111), &words), Finding::default());
        }
        let mut sight = sight(0b101);
        sight.sides[1] = CellSet(0b10);
        let mut when = [None; 2];
        for ms in 200..250 {
            let found = watch.look(ms * MS, &sight, &words);
            assert_eq!(found.sides, sight.sides);
            for (when, set) in when.iter_mut().zip([found.suspects, found.despaired]) {
                if set == CellSet(0b10) {
                    when.get_or_insert(ms);
                }
            }
        }
        assert_eq!(when, [Some(220), Some(240)]);
    }

    #[test]
    fn silence_counts_while_somebody_listens() {
        let (mut watch, mut words) = (watch(), Words::default());
        let mut now = 0;
        let mut look = |watch: &mut Watch, words: &Words, step: u64| {
            now += step;
            watch.look(now, &sight(0b111), words).suspects
        };
        // Cell 2 is never heard: it boots. Cell 1 beats now and then.
        for beat in 0..10u64 {
            words.0[1] = 1 << 32 | beat;
            for _ in 0..290 {
                assert_eq!(look(&mut watch, &words, 10 * MS), CellSet::NONE);
            }
        }
        // The machine stands still for ten seconds, a hundred times.
        words.0[1] += 1;
        words.0[2] = 1 << 32;
        for _ in 0..100 {
            assert_eq!(look(&mut watch, &words, 10_000 * MS), CellSet::NONE);
        }
        for _ in 0..200 {
            assert_eq!(look(&mut watch, &words, 10 * MS), CellSet::NONE);
        }
        assert_eq!(look(&mut watch, &words, 10 * MS), CellSet(0b110));
        words.0[1] += 1;
        assert_eq!(look(&mut watch, &words, 10 * MS), CellSet(0b100), "taken back");
    }

    #[test]
    fn a_cell_that_never_starts_is_found() {
        let (mut watch, words) = (watch(), Words::default());
        let found = (1..)
            .find(|step| !watch.look(step * STEP_NS, &sight(0b111), &words).suspects.is_empty());
        assert_eq!(found, Some(START_NS / STEP_NS));
    }

    #[test]
    fn a_cell_that_falls_apart_suspects_itself() {
        let (mut watch, words) = (watch(), Words::default());
        for ms in 0..=20 {
            let found = watch.look(ms * MS, &sight(0), &words);
            assert_eq!(found.suspects.has(CellId(0)), ms == 20, "{ms}");
        }
    }
}
