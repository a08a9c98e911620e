//! Agreement: who is alive.
//!
//! Every cell says in its [`Ballot`] whom it suspects and which live set it proposes, and reads what the others say. A step of
//! this state machine looks at all ballots and does the first of these that can be done:
//!
//! 1. **Follow.** Who is in the live set of a newer epoch goes there. Who is not, or is missing in a proposal, has been
//!    excluded, and parks.
//! 2. **Join a proposal** that another one has made: what is proposed is from then on what is in both.
//! 3. **Propose** the live set without the suspects, once everybody who would be left suspects them too, and the side
//!    [prevails](Agreement::prevails). Or, if nobody is suspected, the live set and a cell that has come back.
//! 4. **Agree**, once everybody in the proposal proposes exactly that: the next epoch begins.
//!
//! A cell that has come back suspects nobody and proposes nothing of its own; in 2 and 4 it takes part as the others do. If
//! it is dropped from a proposal, because another cell died meanwhile or it was not heard, it asks again in the next epoch: what it
//! votes for counts in the epoch alone in which it does, and leads it nowhere but to the next one.
//!
//! Suspicion can be taken back, a proposal can't: in one epoch a cell's proposals only shrink. A second failure shrinks them,
//! and no step waits for a cell that is suspected by all others: that is how an agreement begins again.
//!
//! # Why no two cells agree on different live sets
//!
//! Let `i` have agreed on P and `j` on Q ≠ P, both as epoch e + 1, both by rule 4, and let m be in P and Q. Then m has
//! proposed both, first the larger one: P ⊋ Q, say. If `i` were in Q, it would have proposed Q, and before P, since it proposed P when it
//! agreed: but its proposals only shrink. So the cells that agreed on Q have suspected `i`. If they were right, it is dead or
//! cut off, and it is not heard by them any more, since only members of one's own proposal are heard; if they were
//! wrong, it has been fenced off, and finds itself excluded. If no such m exists, P and Q are disjoint, and each has
//! prevailed against the other: [`Agreement::prevails`] does not allow that.

use super::ballot::Ballot;
use super::line::{Fabric, Slot};
use super::live::{CellSet, Epoch, Incarnation};
use super::mutant::{Mutant, seeded};
use abi::CellId;
use abi::ids::MAX_CELLS;

/// What a cell finds when it looks at the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Finding {
    /// Cells that for certain do nothing any more: without power, or parked.
    pub dead: CellSet,
    /// Cells that are dead, or have not been reached or heard for longer than a passing disturbance lasts. With this cell itself if its
    /// own nodes don't reach each other.
    pub suspects: CellSet,
    /// Of each cell that can't be reached and may be alive: the cells that may be alive on its side.
    pub sides: [CellSet; MAX_CELLS],
    /// Cells that can't be reached, and have not been for so long that a side that does not prevail is to park.
    pub despaired: CellSet,
}

/// The cells agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LiveSet {
    /// The number of the agreement.
    pub epoch: Epoch,
    /// Who is alive.
    pub cells: CellSet,
    /// In which incarnation; 0 of who is not.
    pub incarnations: [Incarnation; MAX_CELLS],
}

/// What a cell has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// This is the live set from now on. Nothing is said to the others before the next step: until then those that have left it are to be
    /// fenced off.
    Live(LiveSet),
    /// The others go on without this cell, or must be expected to: it has to park.
    Excluded,
}

/// One cell's part in the agreements.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Agreement {
    me: CellId,
    /// All cells of the machine.
    all: CellSet,
    /// The nodes of each cell, a bit each.
    nodes: [u8; MAX_CELLS],
    /// The last agreement; its live set is empty in a cell that has come back and is not let in yet.
    live: LiveSet,
    /// What it says.
    ballot: Ballot,
    /// The cell that it proposes to let in, and its incarnation.
    newcomer: Option<(CellId, Incarnation)>,
    /// The last incarnation of each cell that was let in: it is not let in again.
    known: [Incarnation; MAX_CELLS],
    /// What each cell said when it was to be let in and was dropped from the proposal: it has to say something else first, if
    /// only that it is still there.
    dropped: [Ballot; MAX_CELLS],
    /// Cells at which the ballot is yet to be written.
    unwritten: CellSet,
    /// Cells at which the incarnations are yet to be put.
    uninformed: CellSet,
    /// Cells that are to look at the ballot when it has been written.
    rung: CellSet,
    /// It has been excluded: nothing counts any more.
    excluded: bool,
}

impl Agreement {
    /// The part of cell `me` in a machine of which each cell has these nodes, a bit each (none: there is no such
    /// cell). `live` is what all have agreed on before: at the machine's start, that all are alive. A cell that has
    /// come back knows of no live set (`cells` is empty), only its own incarnation: it will be let in.
    #[must_use]
    pub fn new(me: CellId, nodes: [u8; MAX_CELLS], live: LiveSet) -> Self {
        let mut all = CellSet::NONE;
        for (cell, nodes) in (0..).map(CellId).zip(nodes) {
            if nodes != 0 {
                all = all.with(cell);
            }
        }
        let others = all.without(me);
        let mut agreement = Self {
            me,
            all,
            nodes,
            live,
            ballot: Ballot::default(),
            newcomer: None,
            known: [Incarnation(0); MAX_CELLS],
            dropped: [Ballot::default(); MAX_CELLS],
            unwritten: others,
            uninformed: others,
            rung: CellSet::NONE,
            excluded: false,
        };
        agreement.renew();
        agreement
    }

    /// The last agreement.
    #[must_use]
    pub const fn live(&self) -> &LiveSet {
        &self.live
    }

    /// What this cell says.
    #[must_use]
    pub const fn ballot(&self) -> &Ballot {
        &self.ballot
    }

    /// Whether nothing is under way: nobody is suspected, nothing proposed.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        !self.live.cells.is_empty()
            && self.ballot.suspects.is_empty()
            && self.ballot.proposal.is_empty()
    }

    /// Whether a cell that is to be let in has to say something else first.
    #[cfg(test)]
    #[must_use]
    pub fn has_dropped(&self, cell: CellId, ballot: &Ballot) -> bool {
        self.dropped[usize::from(cell.0)] == *ballot
    }

    /// Whether the ballot has been written at these cells.
    #[cfg(test)]
    #[must_use]
    pub fn is_written(&self, to: CellSet) -> bool {
        self.unwritten.and(to).is_empty()
    }

    /// Has the ballot written again, as a sign of life, with this number.
    pub fn beat(&mut self, beat: u8) {
        self.ballot.beat = beat;
        self.unwritten = self.all.without(self.me);
        // Who comes back knows nothing.
        self.uninformed = CellSet(self.uninformed.0 | self.unwritten.minus(self.live.cells).0);
    }

    /// Does the next thing. To be called until it decides nothing; what it decides is done before the next call.
    pub fn step(&mut self, finding: &Finding, fabric: &mut impl Fabric) -> Option<Decision> {
        if self.excluded {
            return None;
        }
        let before = self.ballot;
        let decision = if self.live.cells.is_empty() {
            self.be_let_in(fabric)
        } else {
            self.decide(finding, fabric)
        };
        if self.ballot != before {
            self.unwritten = self.all.without(self.me);
            self.rung = self.unwritten;
        }
        if decision.is_none() {
            self.write(fabric);
        }
        decision
    }

    /// What is said is written where that has not been done.
    fn write(&mut self, fabric: &mut impl Fabric) {
        for to in self.unwritten {
            if self.uninformed.has(to) {
                if Ballot::put(fabric, to, self.live.epoch, &self.live.incarnations).is_err() {
                    continue;
                }
                self.uninformed = self.uninformed.without(to);
            }
            if fabric.publish(to, Slot::Ballot, self.ballot.word()).is_ok() {
                self.unwritten = self.unwritten.without(to);
                if self.rung.has(to) {
                    self.rung = self.rung.without(to);
                    fabric.ring(to);
                }
            }
        }
    }

    /// A new epoch: nothing is proposed in it.
    fn renew(&mut self) {
        let LiveSet { epoch, cells: live, incarnations } = self.live;
        self.newcomer = None;
        for cell in live {
            self.known[usize::from(cell.0)] = incarnations[usize::from(cell.0)];
        }
        self.ballot = Ballot {
            epoch,
            incarnation: incarnations[usize::from(self.me.0)],
            live,
            proposal: if live.is_empty() { CellSet::one(self.me) } else { CellSet::NONE },
            suspects: CellSet::NONE,
            beat: self.ballot.beat,
        };
        self.uninformed = self.all.without(self.me);
        self.unwritten = self.uninformed;
    }

    fn agree(&mut self, live: LiveSet) -> Option<Decision> {
        self.live = live;
        self.renew();
        Some(Decision::Live(live))
    }

    fn exclude(&mut self) -> Option<Decision> {
        self.excluded = true;
        Some(Decision::Excluded)
    }

    /// The cells that are heard in this epoch: of those in the proposal also the one that is to be let in, since it may
    /// have been.
    fn heard(&self) -> CellSet {
        let proposal = self.ballot.proposal;
        let heard = if proposal.is_empty() {
            CellSet(self.live.cells.0 | proposal.0)
        } else if seeded(Mutant::NewcomerUnheard) {
            proposal.and(self.live.cells)
        } else {
            proposal
        };
        heard.without(self.me)
    }

    /// What a member of a live set says; nothing if this is not that incarnation's.
    fn said(&self, fabric: &impl Fabric, cell: CellId) -> Option<Ballot> {
        let ballot = Ballot::read(fabric, cell);
        let known = match self.newcomer {
            Some((newcomer, incarnation)) if newcomer == cell => incarnation,
            _ => self.live.incarnations[usize::from(cell.0)],
        };
        (ballot.incarnation == known && !ballot.live.is_empty()).then_some(ballot)
    }

    /// What a cell that has come back votes for in this epoch; nothing if it does not vote yet.
    fn vote(&self, fabric: &impl Fabric, (cell, incarnation): (CellId, Incarnation)) -> CellSet {
        let ballot = Ballot::read(fabric, cell);
        let same = (ballot.incarnation, ballot.epoch) == (incarnation, self.live.epoch);
        let votes = same && ballot.live.is_empty() && ballot.proposal != CellSet::one(cell);
        if votes { ballot.proposal } else { CellSet::NONE }
    }

    /// The incarnation in which a cell asks to be let in.
    fn asks(&self, fabric: &impl Fabric, cell: CellId) -> Option<Incarnation> {
        let ballot = Ballot::read(fabric, cell);
        let asks = ballot.live.is_empty() && ballot.proposal.has(cell);
        (asks && ballot.incarnation != Incarnation(0)).then_some(ballot.incarnation)
    }

    /// A cell that has come back: it asks to be let in, votes for what the members of the live set propose with it, and
    /// is in when one of them has agreed to that. Of two proposals that have no other cell in common it votes for one, and keeps to that in
    /// this epoch: it may have been counted.
    fn be_let_in(&mut self, fabric: &impl Fabric) -> Option<Decision> {
        let mine = self.ballot.incarnation;
        let alone = CellSet::one(self.me);
        for cell in self.all.without(self.me) {
            let ballot = Ballot::read(fabric, cell);
            if !ballot.live.has(cell) {
                continue;
            }
            let (epoch, cells, vote) = (ballot.epoch, ballot.live, self.ballot.proposal);
            let voted = vote != alone;
            if cells.has(self.me) {
                // Else it is its predecessor that is meant, or it has voted for something else since.
                let next = voted && epoch == self.ballot.epoch.next() && vote.has(cell);
                if let Some(incarnations) = Ballot::incarnations(fabric, cell, epoch)
                    && next
                    && incarnations[usize::from(self.me.0)] == mine
                {
                    return self.agree(LiveSet { epoch, cells, incarnations });
                }
                continue;
            }
            if voted && epoch.is_after(self.ballot.epoch) {
                self.ballot.proposal = alone;
            }
            if ballot.proposal.has(self.me) {
                if self.ballot.proposal == alone {
                    (self.ballot.epoch, self.ballot.proposal) = (epoch, ballot.proposal);
                } else if epoch == self.ballot.epoch {
                    let both = vote.and(ballot.proposal);
                    if both != alone || seeded(Mutant::VoteTakenBack) {
                        self.ballot.proposal = both;
                    }
                }
            }
        }
        None
    }

    fn decide(&mut self, finding: &Finding, fabric: &impl Fabric) -> Option<Decision> {
        if finding.suspects.has(self.me) || self.is_lost(finding) {
            return self.exclude();
        }
        if let Some(decision) = self.follow(finding, fabric) {
            return Some(decision);
        }
        self.suspect(finding, fabric);
        self.join(fabric);
        self.propose(finding, fabric);
        self.conclude(finding, fabric)
    }

    /// Rule 1.
    fn follow(&mut self, finding: &Finding, fabric: &impl Fabric) -> Option<Decision> {
        for cell in self.heard() {
            let Some(ballot) = self.said(fabric, cell) else { continue };
            let next = ballot.epoch == self.live.epoch.next();
            if next && ballot.live.has(self.me) {
                let (epoch, cells) = (ballot.epoch, ballot.live);
                let Some(incarnations) = Ballot::incarnations(fabric, cell, epoch) else {
                    continue;
                };
                return self.agree(LiveSet { epoch, cells, incarnations });
            }
            // A cell that died may have been alone with it.
            if finding.dead.has(cell) || seeded(Mutant::ExclusionIgnored) {
                continue;
            }
            let now = ballot.epoch == self.live.epoch;
            let proposes = now && !ballot.proposal.is_empty();
            let without =
                ballot.epoch.is_after(self.live.epoch) || now && !ballot.live.has(self.me);
            if without || proposes && !ballot.proposal.has(self.me) {
                return self.exclude();
            }
        }
        None
    }

    fn suspect(&mut self, finding: &Finding, fabric: &impl Fabric) {
        let mut suspects = finding.suspects.and(self.live.cells);
        for cell in self.live.cells.without(self.me) {
            // It has rebooted: who it was is dead.
            let known = self.live.incarnations[usize::from(cell.0)];
            if self.asks(fabric, cell).is_some_and(|incarnation| incarnation != known) {
                suspects = suspects.with(cell);
            }
        }
        if !self.ballot.proposal.is_empty() {
            suspects = CellSet(suspects.0 | self.live.cells.minus(self.ballot.proposal).0);
        }
        self.ballot.suspects = suspects;
    }

    /// Rule 2.
    fn join(&mut self, fabric: &impl Fabric) {
        for cell in self.heard() {
            let Some(ballot) = self.said(fabric, cell) else { continue };
            let proposal = ballot.proposal;
            let now = ballot.epoch == self.live.epoch || seeded(Mutant::BallotOfAnyEpoch);
            if !now || !proposal.has(self.me) {
                continue;
            }
            let mine = self.ballot.proposal;
            if mine.is_empty() {
                if let Some(newcomer) = proposal.minus(self.live.cells).lowest() {
                    // Until it has been heard here nobody knows its incarnation.
                    let Some(incarnation) = self.asks(fabric, newcomer) else { continue };
                    self.newcomer = Some((newcomer, incarnation));
                }
                self.ballot.proposal = proposal;
            } else if seeded(Mutant::ProposalGrows) {
                self.ballot.proposal = CellSet(mine.0 | proposal.0);
            } else {
                self.ballot.proposal = mine.and(proposal);
            }
            self.exclude_from_proposal(fabric);
        }
        if let Some(newcomer) = self.newcomer {
            let vote = self.vote(fabric, newcomer);
            if vote.has(self.me) && !seeded(Mutant::NewcomerUnheard) {
                self.ballot.proposal = self.ballot.proposal.and(vote);
                self.exclude_from_proposal(fabric);
            }
        }
    }

    /// Who is not in the proposal stays suspected.
    fn exclude_from_proposal(&mut self, fabric: &impl Fabric) {
        let out = self.live.cells.minus(self.ballot.proposal);
        self.ballot.suspects = CellSet(self.ballot.suspects.0 | out.0);
        if let Some((cell, incarnation)) = self.newcomer
            && !self.ballot.proposal.has(cell)
        {
            self.dropped[usize::from(cell.0)] = Ballot::read(fabric, cell);
            if seeded(Mutant::DroppedForGood) {
                self.known[usize::from(cell.0)] = incarnation;
            }
            self.newcomer = None;
        }
    }

    /// Rule 3.
    fn propose(&mut self, finding: &Finding, fabric: &impl Fabric) {
        let live = self.live.cells;
        let mine = self.ballot.proposal;
        let mut wanted = if mine.is_empty() { live } else { mine };
        wanted = wanted.minus(self.ballot.suspects);
        if let Some((newcomer, incarnation)) = self.newcomer {
            let ballot = Ballot::read(fabric, newcomer);
            let vote = self.vote(fabric, (newcomer, incarnation));
            let against = !vote.is_empty() && !vote.has(self.me);
            let same = ballot.incarnation == incarnation;
            if !same || against || finding.suspects.has(newcomer) {
                wanted = wanted.without(newcomer);
            }
        } else if mine.is_empty() && wanted == live {
            for cell in self.all.minus(live) {
                let Some(incarnation) = self.asks(fabric, cell) else { continue };
                let index = usize::from(cell.0);
                let anew = Ballot::read(fabric, cell) != self.dropped[index];
                if anew && incarnation > self.known[index] && !finding.suspects.has(cell) {
                    self.newcomer = Some((cell, incarnation));
                    self.ballot.proposal = live.with(cell);
                    return;
                }
            }
        }
        if wanted == live && mine.is_empty() || wanted == mine {
            return;
        }
        let out = live.minus(wanted);
        let left = wanted.and(live);
        let agrees = |cell: CellId| {
            let said = self.said(fabric, cell);
            said.is_some_and(|b| b.epoch == self.live.epoch && out.minus(b.suspects).is_empty())
        };
        let supported =
            left.without(self.me).into_iter().all(agrees) || seeded(Mutant::OneSuspectsForAll);
        if supported && self.prevails(left, finding) {
            self.ballot.proposal = wanted;
            self.exclude_from_proposal(fabric);
        }
    }

    /// Rule 4.
    fn conclude(&mut self, finding: &Finding, fabric: &impl Fabric) -> Option<Decision> {
        let proposal = self.ballot.proposal;
        if proposal.is_empty() || !self.prevails(proposal.and(self.live.cells), finding) {
            return None;
        }
        for cell in proposal.and(self.live.cells).without(self.me) {
            let ballot = self.said(fabric, cell)?;
            let same = ballot.proposal == proposal || seeded(Mutant::AgreesAlone);
            let now = ballot.epoch == self.live.epoch || seeded(Mutant::BallotOfAnyEpoch);
            if !now || !same {
                return None;
            }
        }
        let mut incarnations = self.live.incarnations;
        for cell in self.all.minus(proposal) {
            incarnations[usize::from(cell.0)] = Incarnation(0);
        }
        if let Some((newcomer, incarnation)) = self.newcomer {
            let vote = self.vote(fabric, (newcomer, incarnation));
            if vote != proposal && !seeded(Mutant::NewcomerUnasked) {
                return None;
            }
            incarnations[usize::from(newcomer.0)] = incarnation;
        }
        self.agree(LiveSet { epoch: self.live.epoch.next(), cells: proposal, incarnations })
    }

    /// Whether these cells of the live set may go on without the others. What is dead does not count; what is alive, but can be
    /// reached, will be fenced off. Of cells that can't be reached any side that there may be has to be weaker: it has
    /// fewer nodes, or as many but not the lowest-numbered one.
    fn prevails(&self, side: CellSet, finding: &Finding) -> bool {
        if seeded(Mutant::CutIsDead) {
            return true;
        }
        let others = self.live.cells.minus(side).minus(finding.dead);
        others.into_iter().all(|cell| {
            let rival = finding.sides[usize::from(cell.0)].and(others);
            rival.is_empty() || self.is_stronger(side, rival)
        })
    }

    /// Whether this cell is on a side that does not prevail, for good.
    fn is_lost(&self, finding: &Finding) -> bool {
        let side = self.live.cells.minus(finding.suspects).with(self.me);
        let others = self.live.cells.minus(side).minus(finding.dead);
        others.and(finding.despaired).into_iter().any(|cell| {
            let rival = finding.sides[usize::from(cell.0)].and(others);
            !rival.is_empty() && !self.is_stronger(side, rival)
        })
    }

    fn is_stronger(&self, side: CellSet, rival: CellSet) -> bool {
        let nodes =
            |cells: CellSet| cells.fold(0u8, |set, cell| set | self.nodes[usize::from(cell.0)]);
        let (ours, theirs) = (nodes(side), nodes(rival));
        let (many, few) = (ours.count_ones(), theirs.count_ones());
        let tie = ours.trailing_zeros() < theirs.trailing_zeros() || seeded(Mutant::TiesWin);
        many > few || many == few && tie
    }
}
