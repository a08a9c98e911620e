//! A VM's memory as its engines see it: its RAM by offset, through the pmap, on whichever CPU.

use crate::careful::xkphys;
use crate::machine;
use abi::{Gpa, Mpa, PAGE_SHIFT};
use alloc::sync::Arc;
use cell::pmap::Pmap;
use core::ptr::NonNull;
use vmm_core::board::ram;
use vmm_core::mem::{Access, GuestMemory, Page};

/// A VM's memory. What the VM has not touched yet is placed as it touches it.
pub(crate) struct Memory {
    pmap: Arc<Pmap>,
}

impl Memory {
    /// The memory of `pmap`.
    pub(crate) const fn new(pmap: Arc<Pmap>) -> Self {
        Self { pmap }
    }

    /// Has a page placed near this CPU.
    #[cold]
    #[inline(never)]
    fn touch(&self, page: u32) -> Option<Mpa> {
        let node = machine::layout().node_of(machine::this_cpu());
        // SAFETY: a page that the cell has taken for this VM and that nobody else knows of.
        self.pmap.touch(page, node, |mpa| _ = unsafe { at(mpa) }.map(Page::clear))
    }
}

/// A machine page.
///
/// # Safety
/// It is the VM's for as long as what this answers is used.
unsafe fn at(mpa: Mpa) -> Option<Page> {
    let base = NonNull::new(xkphys(mpa) as *mut u8)?;
    // SAFETY: page-aligned, and memory of the machine; the rest is the caller's promise.
    Some(unsafe { Page::new(base) })
}

// SAFETY: a page that is mapped stays so until the pmap goes, which an engine keeps, or until it is moved, which is
// done while no engine runs, and each is told before it does again; a machine page belongs to one VM, and
// its XKPHYS address is valid for ever. Nobody but the engines access it meanwhile.
unsafe impl GuestMemory for Memory {
    fn resolve(&self, gpa: Gpa, _: Access) -> Option<Page> {
        let bytes = u64::from(self.pmap.pages()) << PAGE_SHIFT;
        let page = (ram::offset(gpa, bytes)? >> PAGE_SHIFT) as u32;
        let mpa = self.pmap.get(page).or_else(|| self.touch(page))?;
        // SAFETY: a page of the VM, and it stays so (see above).
        unsafe { at(mpa) }
    }
}
