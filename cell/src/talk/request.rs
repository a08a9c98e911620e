//! What cells ask of each other, and the answers: a kind and a few words each.
//!
//! A new request gets a variant here, with its kind and words, and an arm where requests are executed: in
//! `exchange.rs` if it concerns the protocols themselves, else where the cell handles
//! [`Event::Asked`](super::Event::Asked).

use super::line::Packet;
use super::live::Incarnation;
use super::message::Message;
use crate::loan::Payload;
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
    /// About a loan of machine pages.
    Loan(Payload),
    /// About a VM whose VCPUs are in several cells.
    Visit(Payload),
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
    /// About a loan of machine pages.
    Loan(Payload),
    /// About a VM whose VCPUs are in several cells.
    Visit(Payload),
    /// The request was not understood.
    Garbled,
}

mod kind {
    pub const PING: u8 = 1;
    pub const LOOKUP: u8 = 2;
    pub const DELIVER: u8 = 3;
    pub const OFFER: u8 = 4;
    pub const TAKE: u8 = 5;
    pub const LOAN: u8 = 6;
    pub const VISIT: u8 = 7;
    pub const PONG: u8 = 128;
    pub const HERE: u8 = 129;
    pub const MOVING: u8 = 130;
    pub const ELSEWHERE: u8 = 131;
    pub const ENDED: u8 = 132;
    pub const ACCEPTED: u8 = 133;
    pub const REFUSED: u8 = 134;
    pub const DONE: u8 = 135;
    pub const LOANED: u8 = 136;
    pub const GARBLED: u8 = 137;
    pub const VISITED: u8 = 138;
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
    /// Writes it as a line carries it.
    #[inline]
    pub fn encode(&self, packet: &mut Packet) {
        match *self {
            Self::Ping(value) => packet.set(kind::PING, &[value]),
            Self::Lookup(vcpu) => packet.set(kind::LOOKUP, &[vcpu.encode()]),
            Self::Deliver { to, number, message } => {
                let (what, argument) = message.encode();
                let number = u64::from(what) << 32 | u64::from(number);
                packet.set(kind::DELIVER, &[to.encode(), number, argument])
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
                packet.set(kind::OFFER, &words)
            }
            Self::Take(vcpu) => packet.set(kind::TAKE, &[vcpu.encode()]),
            Self::Loan(payload) => packet.set(kind::LOAN, payload.as_slice()),
            Self::Visit(payload) => packet.set(kind::VISIT, payload.as_slice()),
        }
    }

    /// What [`Self::encode`] made; nothing if it made no such thing.
    #[must_use]
    #[inline]
    pub fn decode(kind: u8, words: &[u64]) -> Option<Self> {
        Some(match (kind, words) {
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
            (kind::LOAN, words) => Self::Loan(Payload::new(words)),
            (kind::VISIT, words) => Self::Visit(Payload::new(words)),
            _ => return None,
        })
    }
}

impl Reply {
    /// Writes it as a line carries it.
    #[inline]
    pub fn encode(&self, packet: &mut Packet) {
        match *self {
            Self::Pong(value) => packet.set(kind::PONG, &[value]),
            Self::Here { moves } => packet.set(kind::HERE, &[u64::from(moves)]),
            Self::Moving { moves } => packet.set(kind::MOVING, &[u64::from(moves)]),
            Self::Elsewhere(None) => packet.set(kind::ELSEWHERE, &[]),
            Self::Elsewhere(Some(Hint { cell, moves })) => {
                let word = u64::from(cell.0) << 32 | u64::from(moves);
                packet.set(kind::ELSEWHERE, &[word])
            }
            Self::Ended => packet.set(kind::ENDED, &[]),
            Self::Accepted => packet.set(kind::ACCEPTED, &[]),
            Self::Refused(why) => packet.set(kind::REFUSED, &[u64::from(why)]),
            Self::Done => packet.set(kind::DONE, &[]),
            Self::Loan(payload) => packet.set(kind::LOANED, payload.as_slice()),
            Self::Visit(payload) => packet.set(kind::VISITED, payload.as_slice()),
            Self::Garbled => packet.set(kind::GARBLED, &[]),
        }
    }

    /// What [`Self::encode`] made; [`Reply::Garbled`] if it made no such thing.
    #[must_use]
    #[inline]
    pub fn decode(kind: u8, words: &[u64]) -> Self {
        match (kind, words) {
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
            (kind::LOANED, words) => Self::Loan(Payload::new(words)),
            (kind::VISITED, words) => Self::Visit(Payload::new(words)),
            _ => Self::Garbled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::PAYLOAD_WORDS;
    use super::*;

    fn request(packet: &Packet) -> Option<Request> {
        Request::decode(packet.kind, packet.payload())
    }

    fn reply(packet: &Packet) -> Reply {
        Reply::decode(packet.kind, packet.payload())
    }

    #[test]
    fn requests_come_back_as_they_were() {
        let vcpu = Vcpu { index: 0xfedc, life: 0x9876_5432 };
        let mut marks = Marks::default();
        marks[0] = Mark { incarnation: Incarnation(0xffff), number: u32::MAX };
        marks[MAX_CELLS - 1] = Mark { incarnation: Incarnation(1), number: 2 };
        let frozen = Frozen { at: Mpa(0x7000_1234), length: 0x1_0000_0000 };
        let message = Message::Forget { first: 77, pages: u32::MAX };
        for sent in [
            Request::Ping(u64::MAX),
            Request::Lookup(vcpu),
            Request::Deliver { to: vcpu, number: u32::MAX, message },
            Request::Offer { vcpu, moves: 3, frozen, marks },
            Request::Take(vcpu),
            Request::Loan(Payload::default()),
            Request::Loan(Payload::new(&[u64::MAX; PAYLOAD_WORDS])),
            Request::Visit(Payload::new(&[u64::MAX; PAYLOAD_WORDS])),
        ] {
            let mut packet = Packet::default();
            sent.encode(&mut packet);
            assert_eq!(request(&packet), Some(sent));
            assert_eq!(reply(&packet), Reply::Garbled);
        }
        assert_eq!(request(&Packet::default()), None);
        assert_eq!(request(&Packet::new(kind::DELIVER, &[0, 99 << 32, 0])), None);
    }

    #[test]
    fn replies_come_back_as_they_were() {
        for sent in [
            Reply::Pong(7),
            Reply::Here { moves: u32::MAX },
            Reply::Moving { moves: 1 },
            Reply::Elsewhere(None),
            Reply::Elsewhere(Some(Hint { cell: CellId(7), moves: u32::MAX })),
            Reply::Ended,
            Reply::Accepted,
            Reply::Refused(9),
            Reply::Done,
            Reply::Loan(Payload::default()),
            Reply::Loan(Payload::new(&[u64::MAX; PAYLOAD_WORDS])),
            Reply::Visit(Payload::new(&[u64::MAX; PAYLOAD_WORDS])),
            Reply::Garbled,
        ] {
            let mut packet = Packet::default();
            sent.encode(&mut packet);
            assert_eq!(reply(&packet), sent);
            assert_eq!(request(&packet), None);
        }
        assert_eq!(reply(&Packet::new(kind::ELSEWHERE, &[8 << 32])), Reply::Garbled);
    }
}
