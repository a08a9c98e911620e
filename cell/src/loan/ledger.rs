//! [`Loans`]: a cell's side of all its loans, as lender and as borrower. A state machine: it is told what others
//! ask, what they answer and who dies, and says what to answer and what to ask.

use super::{LoanId, MAX_RUNS, Refusal, Reply, Request, Runs};
use crate::frames::Frames;
use crate::memmap::{Owner, Run};
use crate::talk::mutant::{Mutant, seeded};
use abi::CellId;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Where a loan is that the cell has given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    /// The borrower has not answered yet.
    Offered,
    /// The borrower has it.
    Held,
    /// The borrower has died with it.
    Quarantined,
}

/// A loan that the cell has given.
#[derive(Clone, Copy, Debug)]
struct Lent {
    number: u32,
    to: CellId,
    runs: Runs,
    state: State,
}

impl Lent {
    const fn owner(&self) -> Owner {
        match self.state {
            State::Offered | State::Held => Owner::Lent { to: self.to, loan: self.number },
            State::Quarantined => Owner::Quarantined { from: self.to, loan: self.number },
        }
    }
}

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// These pages are the other cell's to use now.
    Lent(LoanId, u64),
    /// These pages are this cell's to use now.
    Borrowed(LoanId, u64),
    /// This loan is over, and its pages are the lender's again.
    Over(LoanId),
    /// Nothing has changed.
    Refused(Refusal),
    /// This loan can't be used here: it goes back by a [`Request::Return`] to the lender.
    SendBack(LoanId, Refusal),
    /// The other cell has died; its death is dealt with by [`Loans::died`].
    Died,
}

/// All loans of a cell.
#[derive(Debug)]
pub struct Loans {
    frames: Arc<Frames>,
    incarnation: u16,
    /// The number of the last loan given.
    last: u32,
    lent: Vec<Lent>,
    /// All cells' memory.
    territory: Vec<(CellId, Run)>,
}

impl Loans {
    /// The loans of the cell of `frames` in its boot number `incarnation`: none. `territory`: whose memory lies where
    /// in the machine, so that nobody lends what is not his.
    #[must_use]
    pub const fn new(frames: Arc<Frames>, incarnation: u16, territory: Vec<(CellId, Run)>) -> Self {
        Self { frames, incarnation, last: 0, lent: Vec::new(), territory }
    }

    fn id(&self, number: u32) -> LoanId {
        LoanId { lender: self.frames.cell(), incarnation: self.incarnation, number }
    }

    /// Lends `pages` pages to `to`, or what of them is free, in few pieces, and not promised: what to ask of
    /// `to`.
    ///
    /// # Errors
    /// When nothing is.
    pub fn lend(&mut self, to: CellId, pages: u32) -> Result<Request, Refusal> {
        let (loan, runs) = self.give(to, pages, State::Offered)?;
        Ok(Request::Borrow { loan, runs })
    }

    fn give(&mut self, to: CellId, pages: u32, state: State) -> Result<(LoanId, Runs), Refusal> {
        self.lent.try_reserve(1).map_err(|_| Refusal::Heap)?;
        let number = self.last.wrapping_add(1);
        let lent = Lent { number, to, runs: Runs::default(), state };
        let runs = self.frames.lend(pages, MAX_RUNS, lent.owner());
        let lent = Lent { runs: Runs::new(&runs), ..lent };
        if lent.runs.pages() == 0 {
            return Err(Refusal::NothingFree);
        }
        self.last = number;
        self.lent.push(lent);
        Ok((self.id(number), lent.runs))
    }

    /// Gives a loan back that the cell has taken: what to ask of the lender.
    ///
    /// # Errors
    /// When it is in use, or there is none.
    pub fn give_back(&mut self, loan: LoanId) -> Result<Request, Refusal> {
        self.frames.unborrow(loan)?;
        Ok(Request::Return { loan })
    }

    /// Wants a loan back: what to ask of the borrower, and which cell that is.
    ///
    /// # Errors
    /// When no live cell has such a loan.
    pub fn recall(&self, loan: LoanId) -> Result<(CellId, Request), Refusal> {
        let lent = self.lent.iter().find(|lent| self.id(lent.number) == loan);
        let held = lent.filter(|lent| lent.state == State::Held).ok_or(Refusal::NoLoan)?;
        Ok((held.to, Request::Recall { loan }))
    }

    /// The live cells that have pages of this one, with the loans and how many pages.
    pub fn lent(&self) -> impl Iterator<Item = (CellId, LoanId, u64)> + '_ {
        let live = self.lent.iter().filter(|lent| lent.state != State::Quarantined);
        live.map(|lent| (lent.to, self.id(lent.number), lent.runs.pages()))
    }

    /// Another live cell asks: what to answer.
    pub fn asked(&mut self, from: CellId, request: &Request) -> Reply {
        let done = |result| match result {
            Ok(()) => Reply::Done,
            Err(why) => Reply::Refused(why),
        };
        match *request {
            Request::Lend { pages } => match self.give(from, pages, State::Held) {
                Ok((loan, runs)) => Reply::Lent { loan, runs },
                Err(why) => Reply::Refused(why),
            },
            Request::Borrow { loan, runs } => done(self.take(from, loan, &runs)),
            Request::Return { loan } => {
                self.back(from, loan);
                Reply::Done
            }
            // One that is unknown is on its way, here or back: it must not be the lender's for that.
            Request::Recall { loan } if loan.lender == from => done(self.frames.unborrow(loan)),
            Request::Recall { .. } => Reply::Refused(Refusal::NotYours),
        }
    }

    /// Another cell has answered what it was asked; `None`: it has died.
    pub fn answered(&mut self, from: CellId, asked: &Request, reply: Option<&Reply>) -> Outcome {
        let Some(reply) = reply else { return Outcome::Died };
        match (*asked, *reply) {
            (Request::Borrow { loan, runs }, Reply::Done) => {
                let offered = self.lent.iter_mut().find(|lent| lent.number == loan.number);
                if let Some(lent) = offered.filter(|lent| lent.state == State::Offered) {
                    lent.state = State::Held;
                }
                Outcome::Lent(loan, runs.pages())
            }
            (Request::Borrow { loan, .. }, Reply::Refused(why)) => {
                self.back(from, loan);
                Outcome::Refused(why)
            }
            (Request::Lend { .. }, Reply::Lent { loan, runs }) => {
                match self.take(from, loan, &runs) {
                    Ok(()) => Outcome::Borrowed(loan, runs.pages()),
                    Err(why) => Outcome::SendBack(loan, why),
                }
            }
            (Request::Return { loan }, Reply::Done) => Outcome::Over(loan),
            (Request::Recall { loan }, Reply::Done) => {
                self.back(from, loan);
                Outcome::Over(loan)
            }
            (_, Reply::Refused(why)) => Outcome::Refused(why),
            _ => Outcome::Refused(Refusal::Garbled),
        }
    }

    /// What another cell was to be asked was not: it does not live. Pages that it was to have, it has never heard of.
    pub fn not_asked(&mut self, to: CellId, request: &Request) {
        if let Request::Borrow { loan, .. } = *request {
            self.back(to, loan);
        }
    }

    /// Uses the pages of a loan.
    fn take(&self, from: CellId, loan: LoanId, runs: &Runs) -> Result<(), Refusal> {
        let is_theirs = |run: &Run| {
            let is_in = |all: &Run| {
                let end = run.start.page() + u64::from(run.pages);
                all.start <= run.start && end <= all.start.page() + u64::from(all.pages)
            };
            run.pages != 0 && self.territory.iter().any(|(cell, all)| *cell == from && is_in(all))
        };
        if loan.lender != from
            || from == self.frames.cell()
            || !runs.as_slice().iter().all(is_theirs)
        {
            return Err(Refusal::NotYours);
        }
        self.frames.borrow(loan, runs.as_slice())
    }

    /// A loan that `from` had is the cell's own again. (If there is no such loan, it is already.)
    fn back(&mut self, from: CellId, loan: LoanId) {
        let own = self.id(loan.number) == loan;
        let is_it = |lent: &Lent| own && lent.number == loan.number && lent.to == from;
        self.free(|lent| is_it(lent) && lent.state != State::Quarantined);
    }

    fn free(&mut self, which: impl Fn(&Lent) -> bool) {
        let frames = &self.frames;
        self.lent.retain(|lent| {
            if which(lent) {
                frames.change(lent.runs.as_slice(), lent.owner(), Owner::Free);
            }
            !which(lent)
        });
    }

    /// `cell` has left the live set. Its CPUs may still reach what it had borrowed; what it had lent is lost. (The
    /// caller ends the VMs that depend on it.)
    pub fn died(&mut self, cell: CellId) {
        for lent in &mut self.lent {
            if lent.to == cell && lent.state != State::Quarantined {
                let before = lent.owner();
                lent.state = State::Quarantined;
                if seeded(Mutant::QuarantineSkipped) {
                    self.frames.change(lent.runs.as_slice(), before, Owner::Free);
                    continue;
                }
                self.frames.change(lent.runs.as_slice(), before, lent.owner());
            }
        }
        self.lent.retain(|lent| {
            !(seeded(Mutant::QuarantineSkipped) && lent.state == State::Quarantined)
        });
        if !seeded(Mutant::LoanKept) {
            self.frames.lose(cell);
        }
    }

    /// None of the CPUs of `cell`, which has died, can reach anything any more.
    pub fn fenced(&mut self, cell: CellId) {
        self.free(|lent| lent.to == cell && lent.state == State::Quarantined);
    }
}
