//! Loans: machine pages of which another cell has the use for a while.

use abi::CellId;
use core::fmt;

/// Which loan, among all that there ever are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LoanId {
    /// The cell whose pages they are.
    pub lender: CellId,
    /// How often that cell had booted when it lent them: `1..2^24`.
    pub incarnation: u32,
    /// Counts the loans of one incarnation.
    pub number: u32,
}

impl fmt::Display for LoanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "loan {} of cell {}", self.number, self.lender)
    }
}
