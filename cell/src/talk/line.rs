//! A mailbox line: one cache line in its reader's memory, with one commit point.
//!
//! ```text
//! word 0   commit word:  sequence 20 | incarnation 16 | epoch 16 | kind 8 | length 4   (high to low)
//! word 1…  payload, `length` words of at most 15
//! ```
//!
//! One cell writes it, one reads it. The writer writes the payload, then, after a barrier, the commit word:
//! what the commit word says is there in full once it can be read. The same holds when the line is
//! written again: a writer changes the payload only when the reader is done with the line's last sequence number, or
//! to what it is already. A line is in the machine's own byte order, since only monitors of one machine read it.

use super::live::{Epoch, Incarnation};
use super::mutant::{Mutant, seeded};
use abi::CellId;
use abi::ids::MAX_CELLS;
use core::hash::{Hash, Hasher};

/// Bytes of a line: the machine's cache line.
pub const LINE_BYTES: usize = 128;
/// Most words of payload.
pub const PAYLOAD_WORDS: usize = 15;
/// Sequence numbers are below this and wrap. Only the last one and its successor are ever told apart, so that few would do: the
/// model checker has four, which keeps its states finite and shows that wrapping is harmless.
pub const SEQUENCES: u32 = if cfg!(test) { 4 } else { 1 << SEQUENCE_BITS };
/// Bits of a sequence number in a commit word.
const SEQUENCE_BITS: u32 = 20;

/// A line's first word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Commit(pub u64);

impl Commit {
    /// The word that commits what the arguments say. `sequence` has 20 bits, `length` is at most
    /// [`PAYLOAD_WORDS`].
    #[must_use]
    pub const fn new(
        sequence: u32,
        incarnation: Incarnation,
        epoch: Epoch,
        kind: u8,
        length: usize,
    ) -> Self {
        debug_assert!(sequence < 1 << SEQUENCE_BITS && length <= PAYLOAD_WORDS);
        Self(
            (sequence as u64) << 44
                | (incarnation.0 as u64) << 28
                | (epoch.0 as u64) << 12
                | (kind as u64) << 4
                | length as u64,
        )
    }

    /// The number of the call.
    #[must_use]
    pub const fn sequence(self) -> u32 {
        (self.0 >> 44) as u32
    }
    /// The writer's incarnation.
    #[must_use]
    pub const fn incarnation(self) -> Incarnation {
        Incarnation((self.0 >> 28) as u16)
    }
    /// The writer's epoch.
    #[must_use]
    pub const fn epoch(self) -> Epoch {
        Epoch((self.0 >> 12) as u16)
    }
    /// What the payload is; 0 in a line that was never written.
    #[must_use]
    pub const fn kind(self) -> u8 {
        (self.0 >> 4) as u8
    }
    /// Words of payload.
    #[must_use]
    pub const fn length(self) -> usize {
        (self.0 & 15) as usize
    }
}

/// What a line carries: a kind and some words.
#[derive(Clone, Copy, Debug, Default)]
pub struct Packet {
    /// What it is; never 0 in a line that was written.
    pub kind: u8,
    /// How many words count.
    pub length: u8,
    /// The words. What those are that don't count means nothing, so that no time is spent on clearing them.
    pub words: [u64; PAYLOAD_WORDS],
}

impl Packet {
    /// A packet of these words.
    ///
    /// # Panics
    /// When there are more than [`PAYLOAD_WORDS`].
    #[must_use]
    pub fn new(kind: u8, words: &[u64]) -> Self {
        let mut packet = Self::default();
        packet.set(kind, words);
        packet
    }

    /// Becomes a packet of these words. Costs no more than they do.
    ///
    /// # Panics
    /// When there are more than [`PAYLOAD_WORDS`].
    #[inline]
    pub fn set(&mut self, kind: u8, words: &[u64]) {
        (self.kind, self.length) = (kind, words.len() as u8);
        for (to, from) in self.words[..words.len()].iter_mut().zip(words) {
            *to = *from;
        }
    }

    /// The words that count.
    #[must_use]
    #[inline]
    pub fn payload(&self) -> &[u64] {
        &self.words[..usize::from(self.length).min(PAYLOAD_WORDS)]
    }

    /// Becomes a packet of nothing.
    #[inline]
    pub fn clear(&mut self) {
        (self.kind, self.length) = (0, 0);
    }
}

impl PartialEq for Packet {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.payload() == other.payload()
    }
}

impl Eq for Packet {}

impl Hash for Packet {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (self.kind, self.payload()).hash(hasher);
    }
}

/// Which of the lines of a pair of cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// Written by the caller, in the callee's memory.
    Request,
    /// Written by the callee, in the caller's memory.
    Reply,
    /// What its writer says about the live set ([`super::ballot`]): its word is no [`Commit`] of a call.
    Ballot,
}

/// How many lines a cell writes in another one's mailbox.
pub const SLOTS: usize = 3;

/// One line as it lies in memory.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(128))]
pub struct Line {
    /// Its commit word.
    pub commit: u64,
    /// Its payload.
    pub payload: [u64; PAYLOAD_WORDS],
}

/// Every line that a cell reads: for each other cell, one for each [`Slot`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(128))]
pub struct Mailbox {
    /// By writer, then by [`Slot`].
    pub lines: [[Line; SLOTS]; MAX_CELLS],
}

impl Mailbox {
    /// One in which nothing was ever written.
    pub const EMPTY: Self =
        Self { lines: [[Line { commit: 0, payload: [0; PAYLOAD_WORDS] }; SLOTS]; MAX_CELLS] };

    /// Bytes from the mailbox's beginning to the line that `from` writes.
    #[must_use]
    pub const fn offset(from: CellId, slot: Slot) -> usize {
        (from.0 as usize * SLOTS + slot as usize) * LINE_BYTES
    }
}

const _: () = {
    assert!(size_of::<Line>() == LINE_BYTES);
    assert!(size_of::<Mailbox>() == SLOTS * MAX_CELLS * LINE_BYTES);
};

/// A write to another cell's memory ended in a bus error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable;

/// What the protocols need of the machine. The monitor implements it by plain reads of its own mailbox, careful
/// writes to others' and the doorbells of hub pages; the model by a few vectors.
pub trait Fabric {
    /// The commit word of the line that `from` writes into this cell's mailbox. Reads of the payload that follow in
    /// program order are not done before it.
    fn commit(&self, from: CellId, slot: Slot) -> Commit;

    /// Copies the first words of that line's payload.
    fn payload(&self, from: CellId, slot: Slot, words: &mut [u64]);

    /// Writes the first words of the payload of this cell's line in `to`'s mailbox.
    ///
    /// # Errors
    /// The memory does not answer. Some of the words may have been written.
    fn put(&mut self, to: CellId, slot: Slot, words: &[u64]) -> Result<(), Unreachable>;

    /// Writes the commit word of that line, after everything that was put there before.
    ///
    /// # Errors
    /// The memory does not answer: the word was not written.
    fn publish(&mut self, to: CellId, slot: Slot, commit: Commit) -> Result<(), Unreachable>;

    /// Rings a doorbell of `to`, so that it soon looks. May be lost: nothing depends on it.
    fn ring(&mut self, to: CellId);
}

/// Writes a line at its reader, and rings.
///
/// # Errors
/// The reader's memory does not answer. The line is as it was, or has been written in full, or holds a payload that
/// its commit word does not speak of.
#[inline(never)] // Faults are injected here by the name (`cargo xtask outside`).
pub(super) fn write(
    fabric: &mut impl Fabric,
    to: CellId,
    slot: Slot,
    (sequence, incarnation, epoch): (u32, Incarnation, Epoch),
    packet: &Packet,
) -> Result<(), Unreachable> {
    let words = packet.payload();
    let commit = Commit::new(sequence, incarnation, epoch, packet.kind, words.len());
    if seeded(Mutant::CommitFirst) {
        fabric.publish(to, slot, commit)?;
        return fabric.put(to, slot, words);
    }
    if !words.is_empty() {
        fabric.put(to, slot, words)?;
    }
    fabric.publish(to, slot, commit)?;
    fabric.ring(to);
    Ok(())
}

/// Most words of the payloads that are read without room for a longer one.
const SHORT: usize = 3;

/// What `decode` makes of the kind and the words that a commit word speaks of.
#[inline]
pub(super) fn read<T>(
    fabric: &impl Fabric,
    (from, slot, commit): (CellId, Slot, Commit),
    decode: impl FnOnce(u8, &[u64]) -> T,
) -> T {
    let (mut short, mut long);
    let words = match commit.length() {
        length @ 0..=SHORT => {
            short = [0; SHORT];
            &mut short[..length]
        }
        length => {
            long = [0; PAYLOAD_WORDS];
            &mut long[..length]
        }
    };
    fabric.payload(from, slot, words);
    decode(commit.kind(), words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_word_keeps_its_parts_apart() {
        let all =
            Commit::new((1 << SEQUENCE_BITS) - 1, Incarnation(0xffff), Epoch(0xffff), 0xff, 15);
        assert_eq!(all.0, u64::MAX);
        for bit in 0..64 {
            let word = Commit(1 << bit);
            let again = Commit::new(
                word.sequence(),
                word.incarnation(),
                word.epoch(),
                word.kind(),
                word.length(),
            );
            assert_eq!(again, word);
        }
        assert_eq!(Commit::new(5, Incarnation(0), Epoch(0), 0, 0).sequence(), 5);
        assert_eq!(Commit::new(0, Incarnation(5), Epoch(0), 0, 0).incarnation(), Incarnation(5));
        assert_eq!(Commit::new(0, Incarnation(0), Epoch(5), 0, 0).epoch(), Epoch(5));
        assert_eq!(Commit::new(0, Incarnation(0), Epoch(0), 5, 0).kind(), 5);
        assert_eq!(Commit::new(0, Incarnation(0), Epoch(0), 0, 5).length(), 5);
    }

    #[test]
    fn lines_do_not_overlap() {
        let mut offsets: std::vec::Vec<usize> = (0..MAX_CELLS as u8)
            .flat_map(|cell| {
                [Slot::Request, Slot::Reply, Slot::Ballot].map(|s| Mailbox::offset(CellId(cell), s))
            })
            .collect();
        offsets.sort_unstable();
        assert!(offsets.windows(2).all(|w| w[1] - w[0] == LINE_BYTES));
        assert_eq!(offsets.last().unwrap() + LINE_BYTES, size_of::<Mailbox>());
    }
}
