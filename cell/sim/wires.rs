//! What carries lines between simulated cells.

use super::cluster::Rings;
use abi::CellId;
use cell::talk::line::{Commit, PAYLOAD_WORDS, Slot};
use cell::talk::{Fabric, Unreachable};
use std::cell::RefCell;
use std::rc::Rc;

/// A line: reader, writer, and which.
pub type Key = (CellId, CellId, u8);

/// What lies in a line.
pub type Line = (Commit, [u64; PAYLOAD_WORDS]);

/// The wires of one cell.
#[derive(Clone, Debug)]
pub struct Wires {
    pub me: CellId,
    pub rings: Rc<RefCell<Rings>>,
}

impl Wires {
    fn change(
        &self,
        to: CellId,
        slot: Slot,
        change: impl FnOnce(&mut Line),
    ) -> Result<(), Unreachable> {
        let rings = &mut *self.rings.borrow_mut();
        if usize::from(to.0) >= rings.cells() || rings.is_dead(to) {
            return Err(Unreachable);
        }
        let empty = (Commit(0), [0; PAYLOAD_WORDS]);
        change(rings.lines.entry((to, self.me, slot as u8)).or_insert(empty));
        Ok(())
    }
}

impl Fabric for Wires {
    fn commit(&self, from: CellId, slot: Slot) -> Commit {
        let key = (self.me, from, slot as u8);
        self.rings.borrow().lines.get(&key).map_or(Commit(0), |line| line.0)
    }

    fn payload(&self, from: CellId, slot: Slot, words: &mut [u64]) {
        if let Some(line) = self.rings.borrow().lines.get(&(self.me, from, slot as u8)) {
            words.copy_from_slice(&line.1[..words.len()]);
        }
    }

    fn put(&mut self, to: CellId, slot: Slot, words: &[u64]) -> Result<(), Unreachable> {
        self.change(to, slot, |line| line.1[..words.len()].copy_from_slice(words))
    }

    fn publish(&mut self, to: CellId, slot: Slot, commit: Commit) -> Result<(), Unreachable> {
        self.change(to, slot, |line| line.0 = commit)
    }

    fn ring(&mut self, _: CellId) {}
}
