//! A simulated guest's RAM: one zeroed block of the host's memory.
//!
//! This module touches raw memory: it lends pages of the block to the virtual CPU.

use abi::{Gpa, PAGE_SIZE};
use anyhow::{Result, anyhow};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use vmm_core::board::ram;
use vmm_core::mem::{Access, GuestMemory, Page};

/// RAM that lives as long as this does.
#[derive(Debug)]
pub struct Ram {
    base: NonNull<u8>,
    layout: Layout,
}

impl Ram {
    /// `size` bytes of zeroes. The host gives pages as they are touched.
    ///
    /// # Errors
    /// When the host has not that much address space.
    pub fn new(size: u64) -> Result<Self> {
        let bytes = usize::try_from(size)?;
        let layout = Layout::from_size_align(bytes.max(1), PAGE_SIZE as usize)?;
        // SAFETY: the layout's size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        let base = NonNull::new(base).ok_or_else(|| {
            anyhow!("the host has no {size} bytes of memory: give the guest less")
        })?;
        Ok(Self { base, layout })
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed only here.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

// SAFETY: pages lie in the block, which is neither moved nor freed while `self` lives; an engine holds
// a page only while it borrows `self`. Nobody else accesses the block.
unsafe impl GuestMemory for Ram {
    fn resolve(&self, gpa: Gpa, _: Access) -> Option<Page> {
        let offset = ram::offset(gpa, self.layout.size() as u64)? & !(PAGE_SIZE - 1);
        // SAFETY: the offset is inside the block, whose size is a multiple of the page size (the
        // image plan refuses other sizes, and `Vm::load` comes before any access), so a whole page
        // lies there, aligned as the block is.
        Some(unsafe { Page::new(self.base.add(offset as usize)) })
    }
}
