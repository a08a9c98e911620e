//! The directory of a cell: where its own records of what depends on what lie in its memory, for whoever looks at the
//! machine from outside while it stands still.
//!
//! Nothing of the machine reads it, and it decides nothing: it lets the judge of an experiment find out by itself which VM had
//! what in which cell at the moment in which something failed.
//!
//! All words are in the machine's own byte order, and the addresses are the monitor's virtual ones. Every monitor has its directory at
//! the same place of its image.

use crate::CellId;
use core::sync::atomic::{AtomicU64, Ordering};
#[cfg(feature = "alloc")]
use {crate::Mpa, alloc::vec::Vec};

/// Most pieces of memory that a directory names.
pub const PIECES: usize = 256;

/// Contiguous machine pages of which the cell records who owns them: its own ones, and those that it has borrowed.
#[derive(Debug)]
#[repr(C)]
struct Piece {
    /// The first one's machine address.
    start: AtomicU64,
    /// How many.
    pages: AtomicU64,
    /// Where the first one's [word](crate::memmap::Word) lies; the others' follow.
    words: AtomicU64,
}

/// A cell's directory.
#[derive(Debug)]
#[repr(C)]
pub struct Directory {
    /// Odd while the pieces are being changed.
    changes: AtomicU64,
    /// How many pieces there are.
    count: AtomicU64,
    /// The cell's part of the registry: where the first VCPU's entry lies, how many there are, and how many bytes one takes.
    registry: [AtomicU64; 3],
    pieces: [Piece; PIECES],
}

/// Words of a directory.
pub const WORDS: usize = size_of::<Directory>() / 8;

impl Directory {
    /// One that names nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        const fn zero() -> AtomicU64 {
            AtomicU64::new(0)
        }
        Self {
            changes: zero(),
            count: zero(),
            registry: [const { zero() }; 3],
            pieces: [const { Piece { start: zero(), pages: zero(), words: zero() } }; PIECES],
        }
    }

    /// The pieces are about to change: until [`Self::name`] nobody is to rely on them.
    pub fn begin(&self) {
        let changes = self.changes.load(Ordering::Relaxed) | 1;
        self.changes.store(changes, Ordering::Release);
    }

    /// These are the pieces from now on: machine address, pages, address of the first word. One cell's CPU at a time.
    pub fn name(&self, pieces: impl Iterator<Item = (u64, u64, u64)>) {
        self.begin();
        let mut count = 0;
        for (start, pages, words) in pieces {
            if let Some(piece) = self.pieces.get(count) {
                piece.start.store(start, Ordering::Relaxed);
                piece.pages.store(pages, Ordering::Relaxed);
                piece.words.store(words, Ordering::Relaxed);
            }
            count += 1;
        }
        self.count.store(count as u64, Ordering::Relaxed);
        let changes = self.changes.load(Ordering::Relaxed);
        self.changes.store(changes.wrapping_add(1), Ordering::Release);
    }

    /// The registry's part lies at `address`: `vcpus` entries, one every `stride` bytes, each of which begins with a [`Place`], and
    /// has the number of the VCPU's life at [`LIFE`].
    pub fn name_registry(&self, address: u64, vcpus: usize, stride: usize) {
        for (word, value) in self.registry.iter().zip([address, vcpus as u64, stride as u64]) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// Its words, as they lie in memory.
    pub fn words(&self) -> impl Iterator<Item = u64> + '_ {
        let all = [&self.changes, &self.count].into_iter().chain(&self.registry);
        let pieces = self.pieces.iter().flat_map(|p| [&p.start, &p.pages, &p.words]);
        all.chain(pieces).map(|word| word.load(Ordering::Relaxed))
    }
}

impl Default for Directory {
    fn default() -> Self {
        Self::new()
    }
}

/// What a cell's part of the registry knows about where a VCPU is. As memory: the number of the case in one byte, the cell in
/// the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Place {
    /// Nothing.
    #[default]
    Unknown = 0,
    /// It is this cell's.
    Here = 1,
    /// This cell's, standing still, and offered to that cell.
    Leaving(CellId) = 2,
    /// Copied from that cell, and standing still, until it is given away there.
    Arriving(CellId) = 3,
    /// That cell's, when this was heard.
    At(CellId) = 4,
    /// Nobody's: this life is over.
    Ended = 5,
    /// Nobody's: it died with its owner.
    Lost = 6,
}

/// Where in an entry of the registry the number of the VCPU's life lies, in bytes: a word of 32 bits.
pub const LIFE: usize = 4;

impl Place {
    /// The place that an entry of the registry begins with; none: there is no such one.
    #[must_use]
    pub const fn from_bytes([case, cell]: [u8; 2]) -> Option<Self> {
        let cell = CellId(cell);
        Some(match case {
            0 => Self::Unknown,
            1 => Self::Here,
            2 => Self::Leaving(cell),
            3 => Self::Arriving(cell),
            4 => Self::At(cell),
            5 => Self::Ended,
            6 => Self::Lost,
            _ => return None,
        })
    }
}

/// What a directory names.
#[cfg(feature = "alloc")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Runs of pages: the first one's machine address, how many, and the address of the first one's word.
    pub pieces: Vec<(Mpa, u64, u64)>,
    /// The address of the registry's first entry.
    pub registry: u64,
    /// How many entries it has.
    pub vcpus: u64,
    /// Bytes from one to the next.
    pub stride: u64,
}

#[cfg(feature = "alloc")]
impl Named {
    /// What the [`WORDS`] words of a directory say; none: it is being changed, has not been written yet, or is damaged.
    #[must_use]
    pub fn decode(words: &[u64]) -> Option<Self> {
        let [changes, count, registry, vcpus, stride, pieces @ ..] = words else { return None };
        let count = usize::try_from(*count).ok().filter(|count| (1..=PIECES).contains(count))?;
        if words.len() != WORDS || changes % 2 != 0 {
            return None;
        }
        let piece = |words: &[u64]| (Mpa(words[0]), words[1], words[2]);
        Some(Self {
            pieces: pieces.chunks_exact(3).take(count).map(piece).collect(),
            registry: *registry,
            vcpus: *vcpus,
            stride: *stride,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(directory: &Directory) -> Vec<u64> {
        directory.words().collect()
    }

    #[test]
    fn what_is_named_is_found_and_nothing_while_it_changes() {
        let directory = Directory::new();
        assert_eq!(Named::decode(&words(&directory)), None, "nothing yet");
        directory.name_registry(0x9800_0000_7000_0000, 12, 48);
        let pieces = [(0x7000_0000, 3, 0x10), (0x8800_0000, 5, 0x28)];
        directory.name(pieces.into_iter());
        let named = Named::decode(&words(&directory)).unwrap();
        assert_eq!(named.pieces, pieces.map(|(start, pages, at)| (Mpa(start), pages, at)));
        assert_eq!((named.registry, named.vcpus, named.stride), (0x9800_0000_7000_0000, 12, 48));
        directory.begin();
        assert_eq!(Named::decode(&words(&directory)), None, "being changed");
        directory.name(pieces.into_iter().take(1));
        assert_eq!(Named::decode(&words(&directory)).unwrap().pieces.len(), 1);
        directory.name((0..=PIECES as u64).map(|i| (i, 1, i)));
        assert_eq!(Named::decode(&words(&directory)), None, "more than it can name");
        assert_eq!(Named::decode(&words(&directory)[1..]), None);
    }

    #[test]
    fn places_are_as_they_lie_in_memory() {
        let cell = CellId(5);
        for (place, bytes) in [
            (Place::Unknown, [0, 0]),
            (Place::Here, [1, 0]),
            (Place::Leaving(cell), [2, 5]),
            (Place::Arriving(cell), [3, 5]),
            (Place::At(cell), [4, 5]),
            (Place::Ended, [5, 0]),
            (Place::Lost, [6, 0]),
        ] {
            assert_eq!(Place::from_bytes(bytes), Some(place));
        }
        assert_eq!(Place::from_bytes([7, 0]), None);
        assert_eq!(size_of::<Place>(), 2);
    }
}
