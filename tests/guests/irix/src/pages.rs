//! Page tables: two levels as the refill handler walks them, demand-zero and copy-on-write pages.
//!
//! A directory has 512 pointers (address bits 30:22) to tables, as the kernel sees them; where there is none, to
//! one table that is always empty, so that the handler need not ask. A table has 1024 entries of 32
//! bits: EntryLo << 6, below it what only the kernel looks at.

use crate::exec::Image;
use crate::frames::{Frames, PAGE, Pfn};
use core::ptr::{copy_nonoverlapping, write_bytes};
use irix_user::calls::{Error, STACK_SIZE, STACK_TOP, USER_END};

/// Entry: it is to be copied before it is written.
const COPY: u32 = 1;
/// Entry: the frame is counted here (the image's are not).
const COUNTED: u32 = 2;
/// EntryLo.V and EntryLo.D, in place.
const VALID: u32 = 2 << 6;
const DIRTY: u32 = 4 << 6;
/// EntryLo.C, in place: cacheable.
const CACHED: u32 = 3 << 9;
/// Where the frame's number is.
const FRAME_SHIFT: u32 = 12;

/// Entries of a directory, and of a table.
const DIRECTORY_LEN: usize = 512;
const TABLE_LEN: usize = 1024;
/// Bits of an address below a table's share.
const TABLE_SHIFT: u32 = 22;

/// The table where nothing is.
#[repr(align(4096))]
struct Empty([u32; TABLE_LEN]);
static EMPTY: Empty = Empty([0; TABLE_LEN]);

/// A directory and all that hangs from it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pages {
    directory: Pfn,
}

/// Where the heap is, which is not the image's to say.
#[derive(Clone, Copy)]
pub struct Heap {
    /// Where it begins: behind the image's data.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
}

/// What [`Pages::resolve`] found.
pub struct Resolved {
    /// Where the kernel sees the address.
    pub seen: u64,
    /// Another frame was there before: others who share the space may still have it in their TLBs.
    pub replaced: bool,
}

impl Pages {
    /// Bytes of addresses that a table covers.
    pub const TABLE_SPAN: u64 = 1 << TABLE_SHIFT;
    /// Frames that a directory and the tables for text, data and stack need.
    pub const OVERHEAD: u32 = 4;

    /// No page at all.
    pub fn new(frames: &mut Frames) -> Self {
        let directory = frames.take();
        for i in 0..DIRECTORY_LEN {
            // SAFETY: the frame was just taken, and has so many words.
            unsafe { *(directory.address() as *mut u64).add(i) = &raw const EMPTY.0 as u64 };
        }
        Self { directory }
    }

    /// The directory, as the refill handler wants it.
    pub fn directory(self) -> u64 {
        self.directory.address()
    }

    /// The table that the directory names for `i`.
    fn table(self, i: usize) -> &'static mut u64 {
        // SAFETY: `i` comes from an address below 2^31, and the directory has 512 words. The caller holds the
        // kernel's lock and keeps no second reference.
        unsafe { &mut *(self.directory.address() as *mut u64).add(i) }
    }

    /// The entry for `va`, whose table is made if it is not there.
    fn entry(self, frames: &mut Frames, va: u64) -> &'static mut u32 {
        let table = self.table((va >> TABLE_SHIFT) as usize);
        if *table == &raw const EMPTY.0 as u64 {
            *table = frames.take_zeroed().address();
        }
        // SAFETY: the table has 1024 entries and is this space's own; the lock as above.
        unsafe { &mut *(*table as *mut u32).add((va / PAGE) as usize % TABLE_LEN) }
    }

    /// EntryLo0 and EntryLo1 of the pair of pages around `va`.
    pub fn pair(self, va: u64) -> (u64, u64) {
        let table = *self.table((va >> TABLE_SHIFT) as usize) as *const u32;
        let even = (va / PAGE) as usize % TABLE_LEN & !1;
        // SAFETY: as in `entry`; the empty table has as many entries.
        unsafe { (u64::from(*table.add(even) >> 6), u64::from(*table.add(even + 1) >> 6)) }
    }

    /// Makes the page of `va` readable, or writable, if the space has one there.
    ///
    /// # Errors
    /// It has none, or it is not to be written.
    pub fn resolve(
        self,
        frames: &mut Frames,
        image: &Image,
        heap: Heap,
        va: u64,
        write: bool,
    ) -> Result<Resolved, Error> {
        if va >= USER_END {
            return Err(Error::Fault);
        }
        let page = va & !(PAGE - 1);
        let in_stack = (STACK_TOP - STACK_SIZE..STACK_TOP).contains(&va);
        let in_text = image.text.contains(va);
        if !(in_text && !write || in_stack || (image.data.start..heap.end).contains(&va)) {
            return Err(Error::Fault);
        }
        let entry = self.entry(frames, va);
        let frame = Pfn(*entry >> FRAME_SHIFT);
        let mut replaced = false;
        if *entry == 0 {
            *entry = if in_text {
                make(Pfn::of(image.text.source(page)), 0)
            } else if !in_stack && page < image.data.file_end {
                // A page of the image is shared until it is written; one that the file fills only in
                // part ends in zeroes.
                let from = image.data.source(page);
                if write || page + PAGE > image.data.file_end {
                    let frame = frames.take_copy(from);
                    let filled = (image.data.file_end - page).min(PAGE);
                    // SAFETY: the frame was just taken.
                    unsafe {
                        write_bytes(
                            (frame.address() + filled) as *mut u8,
                            0,
                            (PAGE - filled) as usize,
                        );
                    }
                    make(frame, COUNTED | DIRTY)
                } else {
                    make(Pfn::of(from), COPY)
                }
            } else {
                make(frames.take_zeroed(), COUNTED | DIRTY)
            };
        } else if write && *entry & DIRTY == 0 {
            // Text was refused above: this is a page to be copied, or the last one of those that were.
            let counted = *entry & COUNTED != 0;
            if counted && frames.is_sole(frame) {
                *entry = make(frame, COUNTED | DIRTY);
            } else {
                let copy = frames.take_copy(frame.address());
                if counted {
                    frames.release(frame);
                }
                *entry = make(copy, COUNTED | DIRTY);
                replaced = true;
            }
        }
        Ok(Resolved { seen: Pfn(*entry >> FRAME_SHIFT).address() + va % PAGE, replaced })
    }

    /// Calls `visit` for each entry that is not empty, with its address.
    fn each(self, mut visit: impl FnMut(u64, &mut u32)) {
        for i in 0..DIRECTORY_LEN {
            let table = *self.table(i);
            if table == &raw const EMPTY.0 as u64 {
                continue;
            }
            for j in 0..TABLE_LEN {
                // SAFETY: as in `entry`.
                let entry = unsafe { &mut *(table as *mut u32).add(j) };
                if *entry != 0 {
                    visit((i as u64) << TABLE_SHIFT | j as u64 * PAGE, entry);
                }
            }
        }
    }

    /// Everything once more, both to be copied when written. This space's TLB entries may then allow too
    /// much: the caller shoots them down.
    pub fn fork(self, frames: &mut Frames) -> Self {
        let copy = Self::new(frames);
        self.each(|va, entry| {
            if *entry & COUNTED != 0 {
                frames.share(Pfn(*entry >> FRAME_SHIFT));
                *entry = *entry & !DIRTY | COPY;
            }
            *copy.entry(frames, va) = *entry;
        });
        copy
    }

    /// Makes all pages from `start` to `end` invalid; [`Pages::drop_range`] is to follow.
    pub fn hide_range(self, frames: &mut Frames, start: u64, end: u64) {
        for page in (start..end).step_by(PAGE as usize) {
            *self.entry(frames, page) &= !(VALID | DIRTY);
        }
    }

    /// Drops all pages from `start` to `end`, whole pages. The caller has TLB entries shot down before the
    /// frames can be used again.
    pub fn drop_range(self, frames: &mut Frames, start: u64, end: u64) {
        for page in (start..end).step_by(PAGE as usize) {
            let entry = self.entry(frames, page);
            if *entry & COUNTED != 0 {
                frames.release(Pfn(*entry >> FRAME_SHIFT));
            }
            *entry = 0;
        }
    }

    /// Gives everything back.
    pub fn drop_all(self, frames: &mut Frames) {
        self.each(|_, entry| {
            if *entry & COUNTED != 0 {
                frames.release(Pfn(*entry >> FRAME_SHIFT));
            }
        });
        for i in 0..DIRECTORY_LEN {
            let table = *self.table(i);
            if table != &raw const EMPTY.0 as u64 {
                frames.release(Pfn::of(table));
            }
        }
        frames.release(self.directory);
    }
}

/// An entry that is valid.
fn make(frame: Pfn, bits: u32) -> u32 {
    frame.0 << FRAME_SHIFT | CACHED | VALID | bits
}

/// A directory in which nothing is, for a CPU that has no process.
pub fn empty_directory() -> u64 {
    #[repr(align(4096))]
    struct Directory(core::cell::UnsafeCell<[u64; DIRECTORY_LEN]>);
    // SAFETY: every CPU writes the same words.
    unsafe impl Sync for Directory {}
    static DIRECTORY: Directory = Directory(core::cell::UnsafeCell::new([0; DIRECTORY_LEN]));
    let words = DIRECTORY.0.get().cast::<u64>();
    for i in 0..DIRECTORY_LEN {
        // SAFETY: as above.
        unsafe { words.add(i).write_volatile(&raw const EMPTY.0 as u64) };
    }
    words as u64
}

/// Copies between two places that the kernel sees.
pub fn copy(from: u64, to: u64, len: usize) {
    // SAFETY: both were resolved for `len` bytes inside a page, and a user's page is no kernel object.
    unsafe { copy_nonoverlapping(from as *const u8, to as *mut u8, len) };
}
