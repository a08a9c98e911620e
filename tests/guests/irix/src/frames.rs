//! Physical memory: page frames with reference counts, and reservations.
//!
//! Whoever may come to need frames *reserves* them first (as System V accounts for swap space). *RESERVE*:
//! frames in use and yet to be used by those who reserved them ≤ frames there are. So an allocation never fails.

use core::ptr::{copy_nonoverlapping, write_bytes};
use irix_user::calls::Error;

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// The window shows at most this much RAM.
const RAM_MAX: u64 = 256 << 20;

unsafe extern "C" {
    /// Where the window on RAM begins: an absolute symbol of the linker script.
    static _window: u8;
    /// The end of the kernel's image.
    static _end: u8;
}

/// A frame's number: its physical address / [`PAGE`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pfn(pub u32);

impl Pfn {
    /// Where the kernel sees it.
    pub fn address(self) -> u64 {
        &raw const _window as u64 + u64::from(self.0) * PAGE
    }

    /// The frame that the kernel sees at `address`.
    pub fn of(address: u64) -> Self {
        Self(((address - &raw const _window as u64) / PAGE) as u32)
    }
}

/// Where the kernel sees a physical address.
pub fn window(physical: u64) -> u64 {
    &raw const _window as u64 + physical
}

/// The frames behind the kernel's image.
pub struct Frames {
    /// Head of the list of free frames, linked through their first words; 0: empty.
    free: u32,
    /// The first frame that is counted, and how many.
    first: u32,
    count: u32,
    reserved: u32,
}

impl Frames {
    /// Before [`Frames::init`].
    pub const EMPTY: Self = Self { free: 0, first: 0, count: 0, reserved: 0 };

    /// Takes over everything between the kernel's image and the end of `ram` bytes.
    pub fn init(&mut self, ram: u64) {
        let begin = Pfn::of(&raw const _end as u64).0;
        let end = (ram.min(RAM_MAX) / PAGE) as u32;
        // The counts, two bytes each, come first.
        let counts = (u64::from(end - begin) * 2).div_ceil(PAGE) as u32;
        self.first = begin + counts;
        self.count = end - self.first;
        for i in 0..self.count {
            *self.references(Pfn(self.first + i)) = 0;
        }
        for i in (0..self.count).rev() {
            self.push(Pfn(self.first + i));
        }
    }

    fn references(&mut self, frame: Pfn) -> &mut u16 {
        let counts = &raw const _end as u64;
        assert!(frame.0.wrapping_sub(self.first) < self.count, "frame {:#x} is nobody's", frame.0);
        // SAFETY: `init` set aside two bytes a frame there, and the frame is one of them.
        unsafe { &mut *(counts as *mut u16).add((frame.0 - self.first) as usize) }
    }

    fn push(&mut self, frame: Pfn) {
        // SAFETY: a free frame is the allocator's.
        unsafe { *(frame.address() as *mut u32) = self.free };
        self.free = frame.0;
    }

    /// Promises `count` frames.
    ///
    /// # Errors
    /// There are not so many left.
    pub fn reserve(&mut self, count: u32) -> Result<(), Error> {
        if count > self.count - self.reserved {
            return Err(Error::Again);
        }
        self.reserved += count;
        Ok(())
    }

    /// Takes a promise back.
    pub fn unreserve(&mut self, count: u32) {
        self.reserved -= count;
    }

    /// A frame that was reserved, with whatever is in it.
    pub fn take(&mut self) -> Pfn {
        let frame = Pfn(self.free);
        assert!(frame.0 != 0, "no frame left of {}, {} reserved", self.count, self.reserved);
        // SAFETY: the frame was free: its first word is the list's link.
        self.free = unsafe { *(frame.address() as *const u32) };
        *self.references(frame) = 1;
        frame
    }

    /// A frame of zeroes that was reserved.
    pub fn take_zeroed(&mut self) -> Pfn {
        let frame = self.take();
        // SAFETY: just taken.
        unsafe { write_bytes(frame.address() as *mut u64, 0, PAGE as usize / 8) };
        frame
    }

    /// A copy of what is at `from`, a page that the kernel sees.
    pub fn take_copy(&mut self, from: u64) -> Pfn {
        let frame = self.take();
        // SAFETY: just taken; the other is a whole page of the window.
        unsafe {
            copy_nonoverlapping(from as *const u64, frame.address() as *mut u64, PAGE as usize / 8)
        };
        frame
    }

    /// Another one uses the frame.
    pub fn share(&mut self, frame: Pfn) {
        *self.references(frame) += 1;
    }

    /// Whether only one uses it.
    pub fn is_sole(&mut self, frame: Pfn) -> bool {
        *self.references(frame) == 1
    }

    /// One less uses it.
    pub fn release(&mut self, frame: Pfn) {
        let references = self.references(frame);
        *references -= 1;
        if *references == 0 {
            self.push(frame);
        }
    }
}
