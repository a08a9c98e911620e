//! Mailboxes, and how a cell reaches them.

use super::super::CellSet;
use super::super::line::{Commit, Fabric, PAYLOAD_WORDS, SLOTS, Slot, Unreachable};
use abi::CellId;

/// One line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Line {
    pub commit: Commit,
    pub payload: [u64; PAYLOAD_WORDS],
}

/// What one cell writes in another one's mailbox, by [`Slot`].
pub type Lines = [Line; SLOTS];

/// Half of the writing of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    Payload(CellId, Slot, [u64; PAYLOAD_WORDS]),
    Commit(CellId, Slot, Commit),
}

/// A cell's view of the machine.
pub struct View<'a> {
    pub mail: &'a [Lines],
    pub up: CellSet,
    pub fail: &'a mut bool,
    pub writes: &'a mut Vec<Write>,
}

impl View<'_> {
    fn reach(&mut self, to: CellId) -> Result<(), Unreachable> {
        let fails = std::mem::take(self.fail) || !self.up.has(to);
        if fails { Err(Unreachable) } else { Ok(()) }
    }
}

impl Fabric for View<'_> {
    fn commit(&self, from: CellId, slot: Slot) -> Commit {
        self.mail[usize::from(from.0)][slot as usize].commit
    }
    fn payload(&self, from: CellId, slot: Slot, words: &mut [u64]) {
        let line = &self.mail[usize::from(from.0)][slot as usize];
        words.copy_from_slice(&line.payload[..words.len()]);
    }
    fn put(&mut self, to: CellId, slot: Slot, words: &[u64]) -> Result<(), Unreachable> {
        self.reach(to)?;
        let mut payload = [0; PAYLOAD_WORDS];
        payload[..words.len()].copy_from_slice(words);
        self.writes.push(Write::Payload(to, slot, payload));
        Ok(())
    }
    fn publish(&mut self, to: CellId, slot: Slot, commit: Commit) -> Result<(), Unreachable> {
        self.reach(to)?;
        self.writes.push(Write::Commit(to, slot, commit));
        Ok(())
    }
    fn ring(&mut self, _: CellId) {}
}
