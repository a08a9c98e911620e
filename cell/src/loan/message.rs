//! What lender and borrower say to each other, as words.
//!
//! | bits of word 0 | 63–56 | 55–48 | 47–32 | 31–0 |
//! |---|---|---|---|---|
//! | | kind | lender | incarnation | loan's number, number of pages, or why not |
//!
//! Each further word is a run: the first page's number in the upper half, the number of pages in the lower.

use super::{LoanId, MAX_RUNS, Refusal, Runs};
use crate::memmap::Run;
use abi::{CellId, Mpa, PAGE_SHIFT};

/// Most words of a call or an answer.
pub const PAYLOAD_WORDS: usize = 15;

/// Words of a call or an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Payload {
    words: [u64; PAYLOAD_WORDS],
    length: u8,
}

impl Payload {
    /// The words, of which those after [`PAYLOAD_WORDS`] are dropped.
    #[must_use]
    pub fn new(from: &[u64]) -> Self {
        let mut words = [0; PAYLOAD_WORDS];
        let length = from.len().min(PAYLOAD_WORDS);
        words[..length].copy_from_slice(&from[..length]);
        Self { words, length: length as u8 }
    }

    /// The words.
    #[must_use]
    pub fn as_slice(&self) -> &[u64] {
        &self.words[..usize::from(self.length)]
    }
}

/// What one cell asks of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::large_enum_variant,
    reason = "they live on the stack, one at a time, and no heap is needed"
)]
pub enum Request {
    /// To lend so many pages, or fewer.
    Lend {
        /// How many.
        pages: u32,
    },
    /// To use these pages of the caller's.
    Borrow {
        /// The loan.
        loan: LoanId,
        /// Its pages.
        runs: Runs,
    },
    /// To take back what it has lent.
    Return {
        /// The loan.
        loan: LoanId,
    },
    /// To give back what it has borrowed, if it is not in use.
    Recall {
        /// The loan.
        loan: LoanId,
    },
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::large_enum_variant,
    reason = "they live on the stack, one at a time, and no heap is needed"
)]
pub enum Reply {
    /// To use these pages of the callee's.
    Lent {
        /// The loan.
        loan: LoanId,
        /// Its pages.
        runs: Runs,
    },
    /// It is so.
    Done,
    /// It is as it was.
    Refused(Refusal),
}

const LEND: u64 = 1;
const BORROW: u64 = 2;
const RETURN: u64 = 3;
const RECALL: u64 = 4;
const LENT: u64 = 5;
const DONE: u64 = 6;
const REFUSED: u64 = 7;

const REFUSALS: [Refusal; 6] = [
    Refusal::NothingFree,
    Refusal::Heap,
    Refusal::NotYours,
    Refusal::InUse,
    Refusal::NoLoan,
    Refusal::Garbled,
];

const fn head(kind: u64, loan: LoanId) -> u64 {
    kind << 56 | (loan.lender.0 as u64) << 48 | (loan.incarnation as u64) << 32 | loan.number as u64
}

const fn loan(word: u64) -> LoanId {
    LoanId {
        lender: CellId((word >> 48) as u8),
        incarnation: (word >> 32) as u16,
        number: word as u32,
    }
}

fn with_runs(head: u64, runs: &Runs) -> Payload {
    let mut payload = Payload::new(&[head]);
    for (word, run) in payload.words[1..].iter_mut().zip(runs.as_slice()) {
        *word = run.start.page() << 32 | u64::from(run.pages);
        payload.length += 1;
    }
    payload
}

fn runs(words: &[u64]) -> Option<Runs> {
    let mut runs = [Run::default(); MAX_RUNS];
    let to = runs.get_mut(..words.len())?;
    for (run, word) in to.iter_mut().zip(words) {
        *run = Run { start: Mpa(word >> 32 << PAGE_SHIFT), pages: *word as u32 };
    }
    Some(Runs::new(to))
}

impl Request {
    /// As words.
    #[must_use]
    pub fn encode(&self) -> Payload {
        match self {
            Self::Lend { pages } => Payload::new(&[LEND << 56 | u64::from(*pages)]),
            Self::Borrow { loan, runs } => with_runs(head(BORROW, *loan), runs),
            Self::Return { loan } => Payload::new(&[head(RETURN, *loan)]),
            Self::Recall { loan } => Payload::new(&[head(RECALL, *loan)]),
        }
    }

    /// What [`Request::encode`] made; `None`: it made no such thing.
    #[must_use]
    pub fn decode(payload: &Payload) -> Option<Self> {
        let (&word, rest) = payload.as_slice().split_first()?;
        Some(match (word >> 56, rest) {
            (LEND, []) => Self::Lend { pages: word as u32 },
            (BORROW, _) => Self::Borrow { loan: loan(word), runs: runs(rest)? },
            (RETURN, []) => Self::Return { loan: loan(word) },
            (RECALL, []) => Self::Recall { loan: loan(word) },
            _ => return None,
        })
    }
}

impl Reply {
    /// As words.
    #[must_use]
    pub fn encode(&self) -> Payload {
        match self {
            Self::Lent { loan, runs } => with_runs(head(LENT, *loan), runs),
            Self::Done => Payload::new(&[DONE << 56]),
            Self::Refused(why) => {
                let code = REFUSALS.iter().position(|other| other == why).unwrap_or(REFUSALS.len());
                Payload::new(&[REFUSED << 56 | code as u64])
            }
        }
    }

    /// What [`Reply::encode`] made; anything else is a [`Refusal::Garbled`].
    #[must_use]
    pub fn decode(payload: &Payload) -> Self {
        let garbled = Self::Refused(Refusal::Garbled);
        let Some((&word, rest)) = payload.as_slice().split_first() else { return garbled };
        match (word >> 56, rest) {
            (LENT, _) => match runs(rest) {
                Some(runs) => Self::Lent { loan: loan(word), runs },
                None => garbled,
            },
            (DONE, []) => Self::Done,
            (REFUSED, []) => {
                Self::Refused(*REFUSALS.get(word as u32 as usize).unwrap_or(&Refusal::Garbled))
            }
            _ => garbled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood_and_nothing_else() {
        let loan = LoanId { lender: CellId(7), incarnation: 0xfffe, number: 0xdead_beef };
        let run = |i: u64| Run { start: Mpa((0xffff_0000 + i) << PAGE_SHIFT), pages: u32::MAX - 3 };
        let most: Vec<Run> = (0..MAX_RUNS as u64).map(run).collect();
        for runs in [Runs::new(&[]), Runs::new(&most[..1]), Runs::new(&most)] {
            for request in [
                Request::Lend { pages: u32::MAX },
                Request::Borrow { loan, runs },
                Request::Return { loan },
                Request::Recall { loan },
            ] {
                assert_eq!(Request::decode(&request.encode()), Some(request));
                assert_eq!(Reply::decode(&request.encode()), Reply::Refused(Refusal::Garbled));
            }
            for reply in [Reply::Lent { loan, runs }, Reply::Done] {
                assert_eq!(Reply::decode(&reply.encode()), reply);
                assert_eq!(Request::decode(&reply.encode()), None);
            }
        }
        for why in REFUSALS {
            assert_eq!(Reply::decode(&Reply::Refused(why).encode()), Reply::Refused(why));
        }
        for words in [&[][..], &[0], &[DONE << 56, 0], &[REFUSED << 56 | 99], &[u64::MAX; 20]] {
            let payload = Payload::new(words);
            assert_eq!(Reply::decode(&payload), Reply::Refused(Refusal::Garbled));
            assert_eq!(Request::decode(&payload), None);
        }
    }
}
