//! Notes: what a cell leaves for whoever has to go on with its work should it die. They lie in low RAM, with the player
//! rings, and belong to the system controller as those do: nothing is agreed on through them.
//!
//! A note is written again and again, and its writer may stop between any two stores. So there are two copies, written
//! in turn: the older one is whole while the newer one is written. A copy is its number (0 while it is written, else larger than the other's),
//! its length, its checksum, 8 bytes each, and its bytes.

use crate::codec::checksum;
use crate::ring::SharedMem;
use alloc::vec::Vec;

/// Bytes of a copy before its text.
const HEAD: u64 = 24;

/// A note in `size` bytes of memory that was zero when the machine was switched on.
#[derive(Debug)]
pub struct Notebook<M> {
    mem: M,
    /// Bytes of one copy.
    size: u64,
    /// The number of the newest copy.
    number: u64,
}

impl<M: SharedMem> Notebook<M> {
    /// The note in `mem`, whoever has written it before.
    pub fn new(mem: M, size: u64) -> Self {
        let mut note = Self { mem, size: (size / 2) & !7, number: 0 };
        note.number = note.copy(0).max(note.copy(1)).map_or(0, |(number, _)| number);
        note
    }

    /// Writes it anew; `false`: it does not fit, and is as before.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() as u64 > self.size - HEAD {
            return false;
        }
        let number = self.number + 1;
        let at = (number % 2) * self.size;
        self.mem.store(at, 0);
        self.mem.fence();
        self.mem.store(at + 8, bytes.len() as u64);
        self.mem.store(at + 16, checksum(bytes));
        self.mem.copy_in(at + HEAD, bytes);
        self.mem.fence();
        self.mem.store(at, number);
        self.number = number;
        true
    }

    /// What was written last; nothing: it never was.
    #[must_use]
    pub fn read(&self) -> Option<Vec<u8>> {
        Some(self.copy(0).max(self.copy(1))?.1)
    }

    /// A copy, if it is whole.
    fn copy(&self, which: u64) -> Option<(u64, Vec<u8>)> {
        let at = which * self.size;
        let number = self.mem.load(at);
        self.mem.fence();
        let length = self.mem.load(at + 8);
        if number == 0 || length > self.size - HEAD {
            return None;
        }
        let mut bytes = alloc::vec![0; length as usize];
        self.mem.copy_out(at + HEAD, &mut bytes);
        (self.mem.load(at + 16) == checksum(&bytes)).then_some((number, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 128;

    /// Memory whose owner stops after so many stores.
    #[derive(Clone)]
    struct Stops([u8; SIZE], usize);

    impl Stops {
        fn goes_on(&mut self) -> bool {
            self.1 = self.1.saturating_sub(1);
            self.1 != 0
        }
    }

    impl SharedMem for Stops {
        fn load(&self, offset: u64) -> u64 {
            let at = offset as usize;
            u64::from_le_bytes(self.0[at..at + 8].try_into().unwrap())
        }
        fn store(&mut self, offset: u64, value: u64) {
            if self.goes_on() {
                let at = offset as usize;
                self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
            }
        }
        fn copy_out(&self, offset: u64, to: &mut [u8]) {
            let at = offset as usize;
            to.copy_from_slice(&self.0[at..at + to.len()]);
        }
        fn copy_in(&mut self, offset: u64, from: &[u8]) {
            for (i, byte) in from.iter().enumerate() {
                if self.goes_on() {
                    self.0[offset as usize + i] = *byte;
                }
            }
        }
        fn fence(&self) {}
    }

    #[test]
    fn whoever_stops_in_the_middle_leaves_the_note_of_before() {
        let text = |n: u8| vec![n; usize::from(n)];
        for stop in 1..60 {
            let mut mem = Stops([0; SIZE], usize::MAX);
            for n in 1..9u8 {
                let before = Notebook::new(mem.clone(), SIZE as u64).read();
                assert_eq!(before, (n > 1).then(|| text(n - 1)));
                mem.1 = stop;
                let mut note = Notebook::new(mem.clone(), SIZE as u64);
                assert!(note.write(&text(n)));
                let whole = note.mem.1 != 0;
                let read = Notebook::new(note.mem.clone(), SIZE as u64).read();
                assert_eq!(read, if whole { Some(text(n)) } else { before });
                // The next writer is another one, and has time.
                mem = Stops(note.mem.0, usize::MAX);
                assert!(Notebook::new(mem.clone(), SIZE as u64).write(&text(n)));
                let mut note = Notebook::new(mem, SIZE as u64);
                note.write(&text(n));
                mem = note.mem;
            }
        }
    }

    #[test]
    fn what_does_not_fit_or_was_scribbled_is_no_note() {
        let mut note = Notebook::new(Stops([0; SIZE], usize::MAX), SIZE as u64);
        assert_eq!(note.read(), None);
        assert!(!note.write(&[1; SIZE / 2]));
        assert!(note.write(&[1; SIZE / 2 - 24]));
        assert_eq!(note.read(), Some(vec![1; SIZE / 2 - 24]));
        let copies = [24, SIZE / 2 + 24];
        copies.into_iter().for_each(|at| note.mem.0[at] ^= 4);
        assert_eq!(note.read(), None);
    }
}
