//! The wires between cells: [`Fabric`] over the real machine.
//!
//! Every cell has its mailbox at the same place of its monitor: where it lies in the machine follows from
//! where that cell's monitor lies.

use crate::careful;
use crate::{asm, doorbell, hub, machine};
use abi::{CellId, Mpa, map};
use cell::talk::line::{Commit, LINE_BYTES, Slot};
use cell::talk::{CellSet, Fabric, Mailbox, Unreachable};
use core::cell::UnsafeCell;

/// This cell's mailbox, which others write.
#[repr(transparent)]
struct Own(UnsafeCell<Mailbox>);

// SAFETY: nobody but the accessors below, which are volatile, uses it.
unsafe impl Sync for Own {}

static MAILBOX: Own = Own(UnsafeCell::new(Mailbox::EMPTY));

/// The wires of this cell.
#[derive(Debug)]
pub(crate) struct Wires;

/// The cells whose CPUs have rung.
pub(crate) fn cells_of(rung: u64) -> CellSet {
    let layout = machine::layout();
    let mut cells = CellSet::NONE;
    for cpu in (0..u64::BITS as u8).filter(|cpu| rung >> cpu & 1 != 0) {
        cells = cells.with(layout.cell(layout.node_of(abi::CpuId(cpu))));
    }
    cells
}

/// One word of a line in this cell's mailbox.
fn own_word(from: CellId, slot: Slot, word: usize) -> *const u64 {
    let offset = Mailbox::offset(from, slot);
    assert!(offset + LINE_BYTES <= size_of::<Mailbox>() && word < LINE_BYTES / 8, "a line");
    (MAILBOX.0.get() as *const u64).wrapping_byte_add(offset).wrapping_add(word)
}

/// The machine address of a word of this cell's line in `to`'s mailbox; none if no way leads there.
fn word_at(to: CellId, slot: Slot, word: usize) -> Result<Mpa, Unreachable> {
    let layout = machine::layout();
    let node = layout.nodes_of(to).next().ok_or(Unreachable)?;
    hub::reach(node).map_err(|_| Unreachable)?;
    let mailbox = MAILBOX.0.get() as u64 - map::MONITOR_VA + layout.reserve(to).start;
    Ok(Mpa(mailbox + (Mailbox::offset(machine::cell(), slot) + 8 * word) as u64))
}

impl Fabric for Wires {
    fn commit(&self, from: CellId, slot: Slot) -> Commit {
        // SAFETY: a word of the mailbox, which another cell may be writing: hence volatile.
        let word = unsafe { own_word(from, slot, 0).read_volatile() };
        asm::sync();
        Commit(word)
    }

    fn payload(&self, from: CellId, slot: Slot, words: &mut [u64]) {
        for (i, word) in words.iter_mut().enumerate() {
            // SAFETY: as above; the commit word says that the payload is complete.
            *word = unsafe { own_word(from, slot, 1 + i).read_volatile() };
        }
    }

    fn put(&mut self, to: CellId, slot: Slot, words: &[u64]) -> Result<(), Unreachable> {
        let at = word_at(to, slot, 1)?;
        for (i, word) in words.iter().enumerate() {
            // SAFETY: the line of `to`'s mailbox that this cell, and it alone, writes.
            unsafe { careful::store64(Mpa(at.0 + 8 * i as u64), *word) }
                .map_err(|_| Unreachable)?;
        }
        Ok(())
    }

    fn publish(&mut self, to: CellId, slot: Slot, commit: Commit) -> Result<(), Unreachable> {
        let at = word_at(to, slot, 0)?;
        asm::sync();
        // SAFETY: as above.
        unsafe { careful::store64(at, commit.0) }.map_err(|_| Unreachable)
    }

    fn ring(&mut self, to: CellId) {
        if let Some(cpu) = machine::layout().cpus_of(to).next() {
            doorbell::ring(cpu);
        }
    }
}
