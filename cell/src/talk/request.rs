//! What cells ask of each other, and the answers: a kind and a few words each.
//!
//! A new request gets a variant here, with its kind and words, and an arm where requests are executed: in
//! `exchange.rs` if it concerns the protocols themselves, else where the cell handles
//! [`Event::Asked`](super::Event::Asked).

use super::line::{PAYLOAD_WORDS, Packet};
use super::live::Incarnation;
use super::message::Message;
use abi::ids::MAX_CELLS;
use abi::{CellId, Mpa};

/// A VCPU of a VM in one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Vcpu {
    /// Its number in the machine: VCPUs are numbered through, VM by VM in the configuration's order, alike in every cell.
    pub index: u16,
    /// Which life of its VM. Later lives have larger numbers.
    pub life: u32,
}

/// How far a VCPU has executed a sender's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mark {
    /// The sending cell's incarnation.
    pub incarnation: Incarnation,
    /// The number of its last message that was executed.
    pub number: u32,
}

/// A VCPU's marks, by sending cell.
pub type Marks = [Mark; MAX_CELLS];

/// Where a VCPU was last known to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hint {
    /// The cell that got it.
    pub cell: CellId,
    /// How often it had moved then, in this life. Of two hints the one with more moves is newer.
    pub moves: u32,
}

/// Where a frozen VCPU's state can be read, carefully, until the reader has answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Frozen {
    /// Machine address of its first byte.
    pub at: Mpa,
    /// Bytes.
    pub length: u64,
}

/// Most runs of pages in one request.
pub const MAX_RUNS: usize = PAYLOAD_WORDS;

/// Runs of consecutive machine pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Runs {
    /// First page's number (address shifted by the page size) and number of pages.
    runs: [(u32, u32); MAX_RUNS],
    length: u8,
}

impl Runs {
    /// Adds a run; false if there is no room.
    pub fn push(&mut self, first: u32, pages: u32) -> bool {
        let Some(run) = self.runs.get_mut(usize::from(self.length)) else { return false };
        *run = (first, pages);
        self.length += 1;
        true
    }

    /// The runs: first page, and number of pages.
    #[must_use]
    pub fn as_slice(&self) -> &[(u32, u32)] {
        &self.runs[..usize::from(self.length)]
    }

    fn encode(&self, kind: u8) -> Packet {
        let mut words = [0; PAYLOAD_WORDS];
        for (word, &(first, pages)) in words.iter_mut().zip(self.as_slice()) {
            *word = u64::from(first) << 32 | u64::from(pages);
        }
        Packet { kind, length: self.length, words }
    }

    fn decode(packet: &Packet) -> Self {
        let mut runs = Self::default();
        for &word in packet.payload() {
            runs.push((word >> 32) as u32, word as u32);
        }
        runs
    }
}

/// What a cell asks of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// To answer with this value.
    Ping(u64),
    /// Where a VCPU is.
    Lookup(Vcpu),
    /// To execute a message.
    Deliver {
        /// For whom.
        to: Vcpu,
        /// Its number among the sending cell's messages to this life of the VCPU; the first is 1.
        number: u32,
        /// The message.
        message: Message,
    },
    /// To take a VCPU over. It stands still until this is answered.
    Offer {
        /// Which.
        vcpu: Vcpu,
        /// How often it has moved.
        moves: u32,
        /// Its state.
        frozen: Frozen,
        /// What it has executed.
        marks: Marks,
    },
    /// The offered VCPU is the callee's now.
    Take(Vcpu),
    /// To lend machine pages.
    Lend {
        /// How many.
        pages: u32,
    },
    /// Lent pages come back.
    Return(Runs),
}

/// An answer to a [`Request`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// To a ping.
    Pong(u64),
    /// The message was executed, now or when it came before; or the VCPU is here.
    Here {
        /// How often the VCPU has moved.
        moves: u32,
    },
    /// The VCPU is on its way to or from the callee: ask again.
    Moving {
        /// How often it has moved.
        moves: u32,
    },
    /// The callee does not have the VCPU.
    Elsewhere(Option<Hint>),
    /// That life of the VCPU is over.
    Ended,
    /// The offered VCPU's state is the callee's own: it waits for [`Request::Take`].
    Accepted,
    /// No, for a reason of the callee's.
    Refused(u32),
    /// Done, and nothing to say about it.
    Done,
    /// Pages, lent.
    Lent(Runs),
    /// The request was not understood.
    Garbled,
}

mod kind {
    pub const PING: u8 = 1;
    pub const LOOKUP: u8 = 2;
    pub const DELIVER: u8 = 3;
    pub const OFFER: u8 = 4;
    pub const TAKE: u8 = 5;
    pub const LEND: u8 = 6;
    pub const RETURN: u8 = 7;
    pub const PONG: u8 = 128;
    pub const HERE: u8 = 129;
    pub const MOVING: u8 = 130;
    pub const ELSEWHERE: u8 = 131;
    pub const ENDED: u8 = 132;
    pub const ACCEPTED: u8 = 133;
    pub const REFUSED: u8 = 134;
    pub const DONE: u8 = 135;
    pub const LENT: u8 = 136;
    pub const GARBLED: u8 = 137;
}

impl Vcpu {
    const fn encode(self) -> u64 {
        (self.index as u64) << 32 | self.life as u64
    }

    const fn decode(word: u64) -> Self {
        Self { index: (word >> 32) as u16, life: word as u32 }
    }
}

impl Mark {
    const fn encode(self) -> u64 {
        (self.incarnation.0 as u64) << 32 | self.number as u64
    }

    const fn decode(word: u64) -> Self {
        Self { incarnation: Incarnation((word >> 32) as u16), number: word as u32 }
    }
}

impl Request {
    /// As a line carries it.
    #[must_use]
    pub fn encode(&self) -> Packet {
        match *self {
            Self::Ping(value) => Packet::new(kind::PING, &[value]),
            Self::Lookup(vcpu) => Packet::new(kind::LOOKUP, &[vcpu.encode()]),
            Self::Deliver { to, number, message } => {
                let (what, argument) = message.encode();
                let number = u64::from(what) << 32 | u64::from(number);
                Packet::new(kind::DELIVER, &[to.encode(), number, argument])
            }
            Self::Offer { vcpu, moves, frozen, marks } => {
                let mut words = [0; 4 + MAX_CELLS];
                words[..4].copy_from_slice(&[
                    vcpu.encode(),
                    u64::from(moves),
                    frozen.at.0,
                    frozen.length,
                ]);
                for (word, mark) in words[4..].iter_mut().zip(marks) {
                    *word = mark.encode();
                }
                Packet::new(kind::OFFER, &words)
            }
            Self::Take(vcpu) => Packet::new(kind::TAKE, &[vcpu.encode()]),
            Self::Lend { pages } => Packet::new(kind::LEND, &[u64::from(pages)]),
            Self::Return(runs) => runs.encode(kind::RETURN),
        }
    }

    /// What [`Self::encode`] made; nothing if it made no such thing.
    #[must_use]
    pub fn decode(packet: &Packet) -> Option<Self> {
        Some(match (packet.kind, packet.payload()) {
            (kind::PING, &[value]) => Self::Ping(value),
            (kind::LOOKUP, &[vcpu]) => Self::Lookup(Vcpu::decode(vcpu)),
            (kind::DELIVER, &[to, number, argument]) => Self::Deliver {
                to: Vcpu::decode(to),
                number: number as u32,
                message: Message::decode((number >> 32) as u32, argument)?,
            },
            (kind::OFFER, &[vcpu, moves, at, length, ref rest @ ..]) if rest.len() == MAX_CELLS => {
                let mut marks = Marks::default();
                for (mark, &word) in marks.iter_mut().zip(rest) {
                    *mark = Mark::decode(word);
                }
                Self::Offer {
                    vcpu: Vcpu::decode(vcpu),
                    moves: moves as u32,
                    frozen: Frozen { at: Mpa(at), length },
                    marks,
                }
            }
            (kind::TAKE, &[vcpu]) => Self::Take(Vcpu::decode(vcpu)),
            (kind::LEND, &[pages]) => Self::Lend { pages: pages as u32 },
            (kind::RETURN, _) => Self::Return(Runs::decode(packet)),
            _ => return None,
        })
    }
}

impl Reply {
    /// As a line carries it.
    #[must_use]
    pub fn encode(&self) -> Packet {
        match *self {
            Self::Pong(value) => Packet::new(kind::PONG, &[value]),
            Self::Here { moves } => Packet::new(kind::HERE, &[u64::from(moves)]),
            Self::Moving { moves } => Packet::new(kind::MOVING, &[u64::from(moves)]),
            Self::Elsewhere(None) => Packet::new(kind::ELSEWHERE, &[]),
            Self::Elsewhere(Some(Hint { cell, moves })) => {
                let word = u64::from(cell.0) << 32 | u64::from(moves);
                Packet::new(kind::ELSEWHERE, &[word])
            }
            Self::Ended => Packet::new(kind::ENDED, &[]),
            Self::Accepted => Packet::new(kind::ACCEPTED, &[]),
            Self::Refused(why) => Packet::new(kind::REFUSED, &[u64::from(why)]),
            Self::Done => Packet::new(kind::DONE, &[]),
            Self::Lent(runs) => runs.encode(kind::LENT),
            Self::Garbled => Packet::new(kind::GARBLED, &[]),
        }
    }

    /// What [`Self::encode`] made; [`Reply::Garbled`] if it made no such thing.
    #[must_use]
    pub fn decode(packet: &Packet) -> Self {
        match (packet.kind, packet.payload()) {
            (kind::PONG, &[value]) => Self::Pong(value),
            (kind::HERE, &[moves]) => Self::Here { moves: moves as u32 },
            (kind::MOVING, &[moves]) => Self::Moving { moves: moves as u32 },
            (kind::ELSEWHERE, &[]) => Self::Elsewhere(None),
            (kind::ELSEWHERE, &[word]) if word >> 32 < MAX_CELLS as u64 => {
                Self::Elsewhere(Some(Hint { cell: CellId((word >> 32) as u8), moves: word as u32 }))
            }
            (kind::ENDED, &[]) => Self::Ended,
            (kind::ACCEPTED, &[]) => Self::Accepted,
            (kind::REFUSED, &[why]) => Self::Refused(why as u32),
            (kind::DONE, &[]) => Self::Done,
            (kind::LENT, _) => Self::Lent(Runs::decode(packet)),
            _ => Self::Garbled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs() -> Runs {
        let mut runs = Runs::default();
        assert!(runs.push(0x90000, 1) && runs.push(0xffff_ffff, 0xffff_ffff));
        runs
    }

    #[test]
    fn requests_come_back_as_they_were() {
        let vcpu = Vcpu { index: 0xfedc, life: 0x9876_5432 };
        let mut marks = Marks::default();
        marks[0] = Mark { incarnation: Incarnation(0xffff), number: u32::MAX };
        marks[MAX_CELLS - 1] = Mark { incarnation: Incarnation(1), number: 2 };
        let frozen = Frozen { at: Mpa(0x7000_1234), length: 0x1_0000_0000 };
        let message = Message::Forget { first: 77, pages: u32::MAX };
        for request in [
            Request::Ping(u64::MAX),
            Request::Lookup(vcpu),
            Request::Deliver { to: vcpu, number: u32::MAX, message },
            Request::Offer { vcpu, moves: 3, frozen, marks },
            Request::Take(vcpu),
            Request::Lend { pages: 1024 },
            Request::Return(runs()),
        ] {
            assert_eq!(Request::decode(&request.encode()), Some(request));
            assert_eq!(Reply::decode(&request.encode()), Reply::Garbled);
        }
        assert_eq!(Request::decode(&Packet::default()), None);
        assert_eq!(Request::decode(&Packet::new(kind::DELIVER, &[0, 99 << 32, 0])), None);
    }

    #[test]
    fn replies_come_back_as_they_were() {
        for reply in [
            Reply::Pong(7),
            Reply::Here { moves: u32::MAX },
            Reply::Moving { moves: 1 },
            Reply::Elsewhere(None),
            Reply::Elsewhere(Some(Hint { cell: CellId(7), moves: u32::MAX })),
            Reply::Ended,
            Reply::Accepted,
            Reply::Refused(9),
            Reply::Done,
            Reply::Lent(runs()),
            Reply::Garbled,
        ] {
            assert_eq!(Reply::decode(&reply.encode()), reply);
            assert_eq!(Request::decode(&reply.encode()), None);
        }
        assert_eq!(Reply::decode(&Packet::new(kind::ELSEWHERE, &[8 << 32])), Reply::Garbled);
    }

    #[test]
    fn runs_are_bounded() {
        let mut runs = Runs::default();
        assert!((0..MAX_RUNS as u32).all(|i| runs.push(i, 1)));
        assert!(!runs.push(99, 1));
        assert_eq!(runs.as_slice().len(), MAX_RUNS);
        assert_eq!(Reply::decode(&Reply::Lent(runs).encode()), Reply::Lent(runs));
    }
}
