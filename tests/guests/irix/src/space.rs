//! Address spaces, and the kernel's access to them.

use crate::asid;
use crate::cpu::{CPUS_MAX, pda};
use crate::exec::Image;
use crate::frames::{Frames, PAGE};
use crate::lock::Kernel;
use crate::pages::{self, Heap, Pages};
use crate::process::PROCESSES_MAX;
use crate::smp;
use irix_user::calls::{Error, STACK_SIZE};

/// No space.
pub const NONE: usize = usize::MAX;

/// An address space. Several processes share one after `sproc`.
pub struct Space {
    /// How many processes use it; 0: the slot is free.
    pub users: u32,
    /// Its pages; `None` only in a free slot.
    pages: Option<Pages>,
    /// Its heap.
    pub heap: Heap,
    /// Frames reserved for it.
    pub reserved: u32,
    /// Up to where tables for the heap are reserved, in tables.
    tables: u32,
    /// By CPU, generation << 8 | identifier there; 0: none.
    pub asid: [u64; CPUS_MAX],
    /// The CPUs whose current space it is.
    pub active: u32,
}

impl Space {
    const FREE: Self = Self {
        users: 0,
        pages: None,
        heap: Heap { start: 0, end: 0 },
        reserved: 0,
        tables: 0,
        asid: [0; CPUS_MAX],
        active: 0,
    };

    /// Its pages.
    pub fn pages(&self) -> Pages {
        self.pages.expect("a space in use has pages")
    }
}

/// All spaces.
pub struct Spaces {
    slots: [Space; PROCESSES_MAX],
    /// What all programs are.
    pub image: Image,
}

impl core::ops::Index<usize> for Spaces {
    type Output = Space;
    fn index(&self, slot: usize) -> &Space {
        &self.slots[slot]
    }
}

impl core::ops::IndexMut<usize> for Spaces {
    fn index_mut(&mut self, slot: usize) -> &mut Space {
        &mut self.slots[slot]
    }
}

/// Whole pages up to `end`, and tables.
fn whole(end: u64, unit: u64) -> u32 {
    end.div_ceil(unit) as u32
}

impl Spaces {
    /// None.
    pub const EMPTY: Self =
        Self { slots: [const { Space::FREE }; PROCESSES_MAX], image: Image::EMPTY };

    fn free_slot(&self) -> Result<usize, Error> {
        self.slots.iter().position(|space| space.users == 0).ok_or(Error::Again)
    }

    /// A space with the image and an empty heap, used by one process.
    ///
    /// # Errors
    /// There is no memory for it, or no slot.
    pub fn create(&mut self, frames: &mut Frames) -> Result<usize, Error> {
        let slot = self.free_slot()?;
        let data = (self.image.data.start, self.image.data.end);
        let pages = whole(data.1, PAGE) - whole(data.0, PAGE);
        let reserved = Pages::OVERHEAD + (STACK_SIZE / PAGE) as u32 + pages;
        frames.reserve(reserved)?;
        let end = data.1;
        self.slots[slot] = Space {
            users: 1,
            pages: Some(Pages::new(frames)),
            heap: Heap { start: end, end },
            reserved,
            tables: whole(end, Pages::TABLE_SPAN),
            ..Space::FREE
        };
        Ok(slot)
    }

    /// A copy of a space, used by one process.
    ///
    /// # Errors
    /// As [`Spaces::create`].
    pub fn fork(&mut self, frames: &mut Frames, of: usize) -> Result<usize, Error> {
        let slot = self.free_slot()?;
        let Space { reserved, heap, tables, .. } = self[of];
        frames.reserve(reserved)?;
        let pages = Some(self[of].pages().fork(frames));
        self.slots[slot] = Space { users: 1, pages, heap, reserved, tables, ..Space::FREE };
        smp::shoot_down(self, of);
        Ok(slot)
    }

    /// A process leaves a space; the last one takes it down. If it is the current one, this CPU is without
    /// one afterwards.
    pub fn leave(&mut self, frames: &mut Frames, slot: usize) {
        if pda().space == slot {
            asid::deactivate(self);
        }
        self[slot].users -= 1;
        if self[slot].users == 0 {
            self[slot].pages().drop_all(frames);
            frames.unreserve(self[slot].reserved);
            self.slots[slot] = Space::FREE;
        }
    }

    /// Moves a heap's end by `change` bytes; where it was before.
    ///
    /// # Errors
    /// There is no memory, or no address, for it.
    pub fn sbrk(&mut self, frames: &mut Frames, slot: usize, change: i64) -> Result<u64, Error> {
        const HEAP_END: u64 = 0x7000_0000;
        let space = &mut self.slots[slot];
        let heap = space.heap;
        let end = heap.end.wrapping_add_signed(change);
        if !(heap.start..=HEAP_END).contains(&end) {
            return Err(Error::Invalid);
        }
        let (before, after) = (whole(heap.end, PAGE), whole(end, PAGE));
        let tables = whole(end, Pages::TABLE_SPAN).max(space.tables);
        let more = after.saturating_sub(before) + tables - space.tables;
        frames.reserve(more)?;
        space.reserved += more;
        space.tables = tables;
        space.heap.end = end;
        if after < before {
            // First nobody can reach the pages any more, then they are given back. Tables stay.
            let pages = space.pages();
            let range = (u64::from(after) * PAGE, u64::from(before) * PAGE);
            pages.hide_range(frames, range.0, range.1);
            smp::shoot_down(self, slot);
            pages.drop_range(frames, range.0, range.1);
            frames.unreserve(before - after);
            self.slots[slot].reserved -= before - after;
        }
        Ok(heap.end)
    }
}

impl Kernel {
    /// Where the kernel sees the current process's `va`, made readable or writable.
    ///
    /// # Errors
    /// The process has nothing there, or not for writing.
    pub fn resolve(&mut self, va: u64, write: bool) -> Result<u64, Error> {
        let slot = self.processes.current().space;
        let (pages, heap) = (self.spaces[slot].pages(), self.spaces[slot].heap);
        let found = pages.resolve(&mut self.frames, &self.spaces.image, heap, va, write)?;
        if found.replaced {
            if self.spaces[slot].users > 1 {
                smp::shoot_down(&mut self.spaces, slot);
            } else {
                smp::forget_elsewhere(&mut self.spaces, slot);
            }
        }
        Ok(found.seen)
    }

    /// Splits `len` bytes at the current process's `va` at page borders and hands each piece, as the kernel
    /// sees it, to `use_piece`, with its offset.
    ///
    /// # Errors
    /// As [`Kernel::resolve`], and what `use_piece` returns.
    pub fn user(
        &mut self,
        va: u64,
        len: u64,
        write: bool,
        mut use_piece: impl FnMut(&mut Self, u64, u64, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut done = 0;
        while done < len {
            let at = va.checked_add(done).ok_or(Error::Fault)?;
            let now = (PAGE - at % PAGE).min(len - done);
            let seen = self.resolve(at, write)?;
            use_piece(self, seen, done, now as usize)?;
            done += now;
        }
        Ok(())
    }

    /// Copies bytes of the current process.
    ///
    /// # Errors
    /// As [`Kernel::resolve`].
    pub fn copy_in(&mut self, va: u64, to: &mut [u8]) -> Result<(), Error> {
        let (target, len) = (to.as_mut_ptr() as u64, to.len() as u64);
        self.user(va, len, false, |_, seen, done, now| {
            pages::copy(seen, target + done, now);
            Ok(())
        })
    }

    /// Copies bytes to the current process.
    ///
    /// # Errors
    /// As [`Kernel::resolve`].
    pub fn copy_out(&mut self, va: u64, from: &[u8]) -> Result<(), Error> {
        let (source, len) = (from.as_ptr() as u64, from.len() as u64);
        self.user(va, len, true, |_, seen, done, now| {
            pages::copy(source + done, seen, now);
            Ok(())
        })
    }
}
