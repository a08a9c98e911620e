//! The wires between cells: [`Fabric`] over the real machine.
//!
//! Every cell has its mailbox at the same place of its monitor: where it lies in the machine follows from
//! where that cell's monitor lies.

use crate::careful;
use crate::hub::Known;
use crate::machine::{self, First};
use crate::{asm, doorbell};
use abi::ids::MAX_CELLS;
use abi::{CellId, Mpa, map};
use cell::talk::line::{Commit, LINE_BYTES, SLOTS, Slot};
use cell::talk::{Fabric, Mailbox, Unreachable};
use core::cell::UnsafeCell;

/// This cell's mailbox, which others write.
#[repr(transparent)]
struct Own(UnsafeCell<Mailbox>);

// SAFETY: nobody but the accessors below, which are volatile, uses it.
unsafe impl Sync for Own {}

static MAILBOX: Own = Own(UnsafeCell::new(Mailbox::EMPTY));

/// The way to another cell.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// Its lowest node: where its mailbox is.
    node: Known,
    /// Which CPU of that node is rung for: the cell's lowest.
    slot: usize,
    /// Where in the machine this cell's lines in its mailbox begin, by [`Slot`].
    lines: [Mpa; SLOTS],
}

/// The wires of this cell.
#[derive(Debug)]
pub(crate) struct Wires([Option<Way>; MAX_CELLS]);

impl Wires {
    /// The ways that the machine's layout says there are.
    pub(crate) fn new() -> Self {
        let layout = machine::layout();
        let mailbox = MAILBOX.0.get() as u64 - map::MONITOR_VA;
        let way = |to: CellId| {
            let line = |slot| {
                let offset = Mailbox::offset(machine::cell(), slot) as u64;
                Mpa(layout.reserve(to).start + mailbox + offset)
            };
            let First { node, cpu } = machine::first(to)?;
            let slot = abi::hub::slot(layout, cpu);
            Some(Way {
                node: Known::new(node)?,
                slot,
                lines: [Slot::Request, Slot::Reply, Slot::Ballot].map(line),
            })
        };
        let other = |to: &CellId| machine::others().has(*to);
        Self(core::array::from_fn(|to| Some(CellId(to as u8)).filter(other).and_then(way)))
    }

    /// Where this cell's line in `to`'s mailbox is; none if no way leads there.
    #[inline]
    fn line(&self, to: CellId, slot: Slot) -> Result<u64, Unreachable> {
        let way = self.0[usize::from(to.0)].as_ref().ok_or(Unreachable)?;
        way.node.reach().map_err(|_| Unreachable)?;
        Ok(way.lines[slot as usize].0)
    }
}

/// One word of a line in this cell's mailbox.
fn own_word(from: CellId, slot: Slot, word: usize) -> *const u64 {
    let offset = Mailbox::offset(from, slot);
    assert!(offset + LINE_BYTES <= size_of::<Mailbox>() && word < LINE_BYTES / 8, "a line");
    (MAILBOX.0.get() as *const u64).wrapping_byte_add(offset).wrapping_add(word)
}

impl Fabric for Wires {
    #[inline]
    fn commit(&self, from: CellId, slot: Slot) -> Commit {
        // SAFETY: a word of the mailbox, which another cell may be writing: hence volatile.
        let word = unsafe { own_word(from, slot, 0).read_volatile() };
        asm::sync();
        Commit(word)
    }

    #[inline]
    fn payload(&self, from: CellId, slot: Slot, words: &mut [u64]) {
        for (i, word) in words.iter_mut().enumerate() {
            // SAFETY: as above; the commit word says that the payload is complete.
            *word = unsafe { own_word(from, slot, 1 + i).read_volatile() };
        }
    }

    fn put(&mut self, to: CellId, slot: Slot, words: &[u64]) -> Result<(), Unreachable> {
        let line = self.line(to, slot)?;
        // SAFETY: the line of `to`'s mailbox that this cell, and it alone, writes.
        unsafe { careful::store_words(Mpa(line + 8), words) }.map_err(|_| Unreachable)
    }

    fn publish(&mut self, to: CellId, slot: Slot, commit: Commit) -> Result<(), Unreachable> {
        let line = self.line(to, slot)?;
        asm::sync();
        // SAFETY: as above.
        unsafe { careful::store64(Mpa(line), commit.0) }.map_err(|_| Unreachable)
    }

    fn ring(&mut self, to: CellId) {
        if let Some(way) = &self.0[usize::from(to.0)]
            && let Ok(hub) = way.node.reach()
        {
            doorbell::ring_at(&hub.cpus[way.slot]);
        }
    }
}
