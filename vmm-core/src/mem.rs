//! Guest memory, as pages that the owner lends.
//!
//! This is the one module of the crate that touches raw memory.
#![allow(unsafe_code)]

use abi::{Gpa, PAGE_SIZE};
use alloc::alloc::{Layout, alloc_zeroed};
use alloc::boxed::Box;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// What a page is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Execute,
}

/// A VM's memory: guest-physical pages and where they lie.
///
/// # Safety
/// A page returned by `resolve` stays readable and writable at that place for as long as any engine
/// may use it: the owner tells every engine of the VM to forget it (its cached translations) before
/// it takes the page away. All accesses to it by others, while engines may use it, are atomic.
pub unsafe trait GuestMemory {
    /// The page that holds `gpa`; `None` when no memory is there (a device, or nothing).
    fn resolve(&self, gpa: Gpa, access: Access) -> Option<Page>;
}

/// One page of guest memory. Bytes lie in it as the guest's bus has them; the accessors take offsets
/// in bytes and values in the *host's* native order: callers swap when the guest's order differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page(NonNull<u8>);

// SAFETY: a `Page` is a reference to memory that is only accessed atomically (see `GuestMemory`).
unsafe impl Send for Page {}
// SAFETY: as for `Send`.
unsafe impl Sync for Page {}

macro_rules! accessors {
    ($load:ident, $store:ident, $t:ty, $atomic:ty) => {
        /// Loads at `offset` (taken modulo the page, and aligned down).
        #[must_use]
        #[inline(always)]
        pub fn $load(self, offset: u64) -> $t {
            self.at::<$atomic>(offset).load(Ordering::Relaxed)
        }
        /// Stores at `offset` (taken modulo the page, and aligned down).
        #[inline(always)]
        pub fn $store(self, offset: u64, value: $t) {
            self.at::<$atomic>(offset).store(value, Ordering::Relaxed);
        }
    };
}

impl Page {
    /// A page at `base`.
    ///
    /// # Safety
    /// `base` is aligned to 8 bytes, and [`PAGE_SIZE`] bytes from it are readable and writable for as
    /// long as the page is used, as [`GuestMemory`] demands.
    #[must_use]
    pub const unsafe fn new(base: NonNull<u8>) -> Self {
        Self(base)
    }

    /// A page that belongs to nobody, for places that hold a page and have none. What is written to
    /// it is lost.
    #[must_use]
    pub fn nowhere() -> Self {
        static NOWHERE: [AtomicU64; PAGE_SIZE as usize / 8] =
            [const { AtomicU64::new(0) }; PAGE_SIZE as usize / 8];
        // SAFETY: the static is aligned to 8, as long as a page, lives for ever, and may be written
        // through shared references.
        unsafe { Self::new(NonNull::from(&NOWHERE).cast()) }
    }

    /// Where the page lies.
    #[must_use]
    pub const fn base(self) -> NonNull<u8> {
        self.0
    }

    #[inline(always)]
    fn at<A>(&self, offset: u64) -> &A {
        let offset = offset as usize & (PAGE_SIZE as usize - 1) & !(size_of::<A>() - 1);
        // SAFETY: the offset is inside the page and aligned for A, an atomic integer, for which any
        // bytes are a value; the page is valid by the contract of `new`.
        unsafe { self.0.add(offset).cast::<A>().as_ref() }
    }

    accessors!(load8, store8, u8, AtomicU8);
    accessors!(load16, store16, u16, AtomicU16);
    accessors!(load32, store32, u32, AtomicU32);
    accessors!(load64, store64, u64, AtomicU64);

    /// Stores `new` at `offset` if `old` is there; whether it was. For SC.
    #[must_use]
    pub fn exchange32(self, offset: u64, old: u32, new: u32) -> bool {
        self.at::<AtomicU32>(offset)
            .compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// Stores `new` at `offset` if `old` is there; whether it was. For SCD.
    #[must_use]
    pub fn exchange64(self, offset: u64, old: u64, new: u64) -> bool {
        self.at::<AtomicU64>(offset)
            .compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// Fills the page with zeroes.
    pub fn clear(self) {
        // SAFETY: a page is so many words, aligned, and valid by the contract of `new`.
        let words = unsafe { self.0.cast::<[AtomicU64; PAGE_SIZE as usize / 8]>().as_ref() };
        // Eight at a time: what the compiler calls for this takes four times the instructions.
        for eight in words.as_chunks::<8>().0 {
            for word in eight {
                word.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Copies bytes in; `offset + bytes.len()` must not pass the page's end (what does is dropped).
    pub fn copy_in(self, offset: u64, bytes: &[u8]) {
        let room = PAGE_SIZE.saturating_sub(offset) as usize;
        let bytes = &bytes[..bytes.len().min(room)];
        // Whole words where they are aligned: loading images is mostly this.
        let head = (offset.wrapping_neg() & 7) as usize;
        let (head, rest) = bytes.split_at(head.min(bytes.len()));
        let (words, tail) = rest.as_chunks::<8>();
        let mut at = offset;
        for &b in head {
            self.store8(at, b);
            at += 1;
        }
        for &word in words {
            self.store64(at, u64::from_ne_bytes(word));
            at += 8;
        }
        for &b in tail {
            self.store8(at, b);
            at += 1;
        }
    }

    /// Copies bytes out; what passes the page's end is left as it was.
    pub fn copy_out(self, offset: u64, bytes: &mut [u8]) {
        for (i, b) in (offset..PAGE_SIZE).zip(bytes) {
            *b = self.load8(i);
        }
    }
}

/// One of the program's own pages.
#[derive(Debug)]
#[repr(C)]
struct Own([AtomicU64; PAGE_SIZE as usize / 8]);

/// Some of them in one place, which is aligned like a page of that size.
#[derive(Debug)]
#[repr(C, align(65536))]
struct Chunk([Own; OwnPages::CHUNK]);

const _: () = assert!(size_of::<Own>() == PAGE_SIZE as usize);
const _: () = assert!(size_of::<Chunk>() == OwnPages::CHUNK * PAGE_SIZE as usize);

/// Pages of the program's own, for what a guest gets to see beside its memory. They lie in chunks, one after the other.
#[derive(Debug)]
pub struct OwnPages(Box<[Chunk]>);

impl OwnPages {
    /// Pages of a chunk: 64 KB.
    pub const CHUNK: usize = 16;

    /// So many of them at least, all zero; `None` if there is no memory for them.
    #[must_use]
    pub fn new(count: usize) -> Option<Self> {
        let chunks = count.div_ceil(Self::CHUNK);
        let layout = Layout::array::<Chunk>(chunks).ok().filter(|layout| layout.size() != 0)?;
        // SAFETY: the layout is not empty.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout) })?.cast::<Chunk>();
        // SAFETY: all zeroes are so many chunks of integers, of this layout and from the global allocator.
        let chunks =
            unsafe { Box::from_raw(core::ptr::slice_from_raw_parts_mut(memory.as_ptr(), chunks)) };
        Some(Self(chunks))
    }

    /// Page `index`. Whoever keeps it, or a translation to it, forgets it before these pages go.
    #[must_use]
    pub fn page(&self, index: usize) -> Option<Page> {
        let own = self.0.get(index / Self::CHUNK)?.0.get(index % Self::CHUNK);
        // SAFETY: an own page is aligned, as long as a page, and atomic; that it is not used when it is gone is the
        // contract of a page.
        own.map(|own| unsafe { Page::new(NonNull::from(own).cast()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cleared_page_is_zero_and_its_neighbours_are_not() {
        const WORDS: usize = PAGE_SIZE as usize / 8;
        let mut frames = [7u64; 3 * WORDS];
        // SAFETY: the middle third is a page long, aligned to 8 and outlives the page's use.
        unsafe { Page::new(NonNull::from(&mut frames[WORDS]).cast()) }.clear();
        let expected = |i: usize| if (WORDS..2 * WORDS).contains(&i) { 0 } else { 7 };
        assert!(frames.iter().enumerate().all(|(i, word)| *word == expected(i)));
    }

    #[test]
    fn copies_at_every_alignment_and_stops_at_the_end() {
        let mut frame = [0u64; PAGE_SIZE as usize / 8];
        // SAFETY: the frame is a page long, aligned to 8 and outlives the page's use.
        let page = unsafe { Page::new(NonNull::from(&mut frame).cast()) };
        let bytes: [u8; 40] = core::array::from_fn(|i| i as u8 + 1);
        for offset in (0..16).chain(PAGE_SIZE - 48..PAGE_SIZE + 4) {
            for len in 0..bytes.len() {
                page.copy_in(0, &[0; PAGE_SIZE as usize]);
                page.copy_in(offset, &bytes[..len]);
                let mut all = [0; PAGE_SIZE as usize];
                page.copy_out(0, &mut all);
                for (i, &b) in all.iter().enumerate() {
                    let want = (i as u64).checked_sub(offset).filter(|&n| n < len as u64);
                    assert_eq!(
                        b,
                        want.map_or(0, |n| bytes[n as usize]),
                        "{i} of {len} at {offset}"
                    );
                }
            }
        }
    }
}
