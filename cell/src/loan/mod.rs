//! Loans: machine pages of one cell of which another has the use for a while.
//!
//! The *lender* records its pages as lent, and to whom; the *borrower* adds them to its memmap as a pool of
//! their own, from which VMs that may depend on the lender get pages. A loan is given back whole, once nothing in
//! it is used or promised.
//!
//! Lender and borrower agree by calls of at most [`PAYLOAD_WORDS`] words. Either may begin, and whoever
//! gives pages away has stopped using them before it says so:
//!
//! | caller | asks | answer | then |
//! |---|---|---|---|
//! | lender | [`Request::Borrow`]: take these | done | they are the borrower's |
//! | borrower | [`Request::Lend`]: so many, please | [`Reply::Lent`]: take these | they are the borrower's |
//! | borrower | [`Request::Return`]: here they are | done | they are the lender's |
//! | lender | [`Request::Recall`]: give them back | done, or in use | they are the lender's, or all is as before |
//!
//! A loan that is called back while it is still on its way to the borrower, or already on its way back, is unknown there:
//! that is no "done", and nothing changes.
//!
//! A call that fails has failed because the callee has died, and then the answer does not matter: what a dead
//! cell has had may still be reached by its CPUs, so it is *quarantined* until they are known to be fenced
//! off; what a dead cell has lent is given to nobody any more, and the VMs that have some of it end.
//!
//! # Invariants
//!
//! - **LOAN-ONE**: no page is usable in two cells at a time.
//! - **LOAN-SUM**: what the lender records as lent to a live cell is what that cell has borrowed, but for pages that
//!   a call or its answer is carrying.

mod ledger;
mod message;
#[cfg(test)]
mod tests;

pub use ledger::{Loans, Outcome};
pub use message::{PAYLOAD_WORDS, Payload, Reply, Request};

use crate::memmap::Run;
use abi::CellId;
use core::fmt;

/// Which loan, among all that there ever are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoanId {
    /// The cell whose pages they are.
    pub lender: CellId,
    /// How often that cell had booted when it lent them.
    pub incarnation: u16,
    /// Counts the loans of one incarnation.
    pub number: u32,
}

impl fmt::Display for LoanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "loan {} of cell {}", self.number, self.lender)
    }
}

/// Most runs of pages in a loan.
pub const MAX_RUNS: usize = PAYLOAD_WORDS - 1;

/// The pages of a loan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Runs {
    runs: [Run; MAX_RUNS],
    count: u8,
}

impl Runs {
    /// The first [`MAX_RUNS`] of `runs`.
    #[must_use]
    pub fn new(runs: &[Run]) -> Self {
        let mut all = Self::default();
        for (to, from) in all.runs.iter_mut().zip(runs) {
            *to = *from;
            all.count += 1;
        }
        all
    }

    /// Each of them.
    #[must_use]
    pub fn as_slice(&self) -> &[Run] {
        &self.runs[..usize::from(self.count)]
    }

    /// How many pages they are.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.as_slice().iter().map(|run| u64::from(run.pages)).sum()
    }
}

/// Why pages are not lent, borrowed or given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The lender has no page that is neither used nor promised.
    NothingFree,
    /// The monitor's own heap has no room for the record of the pages.
    Heap,
    /// These are not pages that the lender can lend.
    NotYours,
    /// Pages of the loan are in use, or promised.
    InUse,
    /// There is no such loan.
    NoLoan,
    /// The request or the answer made no sense.
    Garbled,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NothingFree => "no page is free that is not promised to a VM: stop a VM",
            Self::Heap => {
                "the borrower's own heap has no room for the record of the pages: lend less"
            }
            Self::NotYours => "these pages are not the lender's to lend",
            Self::InUse => "VMs use the loan: stop them first",
            Self::NoLoan => "there is no such loan",
            Self::Garbled => "the other cell did not understand",
        })
    }
}
