//! Messages: what is to be done to a VCPU, by the cell that owns it, so that a VCPU's state needs no lock.
//!
//! A sender keeps its message in its outbox and asks, one cell after the other, whoever it thinks has the
//! VCPU to execute it, until one has. Nobody forwards: a cell that does not have the VCPU says who got it, so that no
//! message is lost with a third cell. Each message to a VCPU has a number, a sender has one of them on its way at a time, and the
//! VCPU takes with it wherever it goes how far each sender's have been executed ([`Marks`](super::request::Marks)). So a message
//! that comes again is known, even where the VCPU has moved since and the answer was lost with a dead cell.

use super::mutant::{Mutant, seeded};
use super::request::Vcpu;
use abi::CellId;
use alloc::collections::VecDeque;

/// What is to be done to a VCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Another VCPU of its VM interrupts it.
    Interrupt,
    /// Its VM's board may have an interrupt for it.
    Look,
    /// These pages of its VM's pmap change: nothing derived from them may be used any more.
    Forget {
        /// The first page's number.
        first: u32,
        /// How many.
        pages: u32,
    },
    /// Nothing: counted, in tests and benchmarks.
    Probe(u64),
}

impl Message {
    /// Kind and argument.
    pub(super) fn encode(self) -> (u32, u64) {
        match self {
            Self::Interrupt => (1, 0),
            Self::Look => (2, 0),
            Self::Forget { first, pages } => (3, u64::from(first) << 32 | u64::from(pages)),
            Self::Probe(value) => (4, value),
        }
    }

    /// What [`Self::encode`] made.
    pub(super) fn decode(kind: u32, argument: u64) -> Option<Self> {
        Some(match kind {
            1 => Self::Interrupt,
            2 => Self::Look,
            3 => Self::Forget { first: (argument >> 32) as u32, pages: argument as u32 },
            4 => Self::Probe(argument),
            _ => return None,
        })
    }
}

/// What a waiting entry wants of the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Want {
    /// To execute a message, with its number.
    Execute(u32, Message),
    /// To know where it is.
    Find,
}

/// One message that has not been executed, or one search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    /// For whom.
    pub to: Vcpu,
    /// What.
    pub want: Want,
    /// The sender's name for it.
    pub token: u32,
    /// Whether no older entry is for the same VCPU.
    pub first: bool,
    /// The cell that it was sent to and that has not answered.
    pub at: Option<CellId>,
}

/// A cell's messages that have not been executed, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Outbox {
    entries: VecDeque<Entry>,
    room: usize,
}

impl Outbox {
    /// An outbox for so many messages.
    pub fn new(room: usize) -> Self {
        Self { entries: VecDeque::with_capacity(room), room }
    }

    /// Whether it takes no more.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= self.room
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is one for this VCPU, in whatever life.
    pub fn has(&self, vcpu: u16) -> bool {
        self.entries.iter().any(|entry| entry.to.index == vcpu)
    }

    /// Adds one.
    pub fn push(&mut self, to: Vcpu, want: Want, token: u32) {
        let first = !self.has(to.index) || seeded(Mutant::OutOfOrder);
        self.entries.push_back(Entry { to, want, token, first, at: None });
    }

    /// The entry at this place in the queue.
    pub fn get(&self, place: usize) -> &Entry {
        &self.entries[place]
    }

    /// The next entry from this place on that may go out.
    pub fn ready(&self, from: usize) -> Option<usize> {
        (from..self.entries.len()).find(|&place| {
            let entry = &self.entries[place];
            entry.first && entry.at.is_none()
        })
    }

    /// The entry that waits for an answer of `cell`.
    pub fn waiting_for(&self, cell: CellId) -> Option<usize> {
        self.entries.iter().position(|entry| entry.at == Some(cell))
    }

    /// An entry goes out to a cell, or comes back.
    pub fn set_at(&mut self, place: usize, at: Option<CellId>) {
        self.entries[place].at = at;
    }

    /// An entry is done with: the next one for its VCPU may go out.
    pub fn take(&mut self, place: usize) -> Entry {
        let taken = self.entries.remove(place).expect("an entry");
        let next = self.entries.iter_mut().find(|entry| entry.to.index == taken.to.index);
        if let Some(next) = next {
            next.first = true;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_as_they_were() {
        for message in [
            Message::Interrupt,
            Message::Look,
            Message::Forget { first: u32::MAX, pages: 1 },
            Message::Probe(u64::MAX),
        ] {
            let (kind, argument) = message.encode();
            assert_eq!(Message::decode(kind, argument), Some(message));
        }
        assert_eq!(Message::decode(0, 0), None);
    }

    #[test]
    fn one_entry_a_vcpu_goes_out_at_a_time() {
        let vcpu = |index| Vcpu { index, life: 1 };
        let mut outbox = Outbox::new(4);
        outbox.push(vcpu(1), Want::Find, 10);
        outbox.push(vcpu(1), Want::Find, 11);
        outbox.push(vcpu(2), Want::Find, 12);
        outbox.push(vcpu(1), Want::Find, 13);
        assert!(outbox.is_full());
        assert_eq!(outbox.ready(0), Some(0));
        assert_eq!(outbox.ready(1), Some(2));
        outbox.set_at(0, Some(CellId(3)));
        assert_eq!(outbox.ready(0), Some(2));
        let place = outbox.waiting_for(CellId(3)).unwrap();
        assert_eq!(outbox.take(place).token, 10);
        assert_eq!(outbox.ready(0), Some(0));
        assert_eq!(outbox.get(0).token, 11);
        assert_eq!(outbox.take(0).token, 11);
        assert_eq!(outbox.take(1).token, 13);
        assert!(outbox.has(2) && !outbox.has(1));
        assert_eq!(outbox.len(), 1);
    }
}
