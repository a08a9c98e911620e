//! A VM's memory as its engines see it: its RAM by offset, through the pmap, on whichever CPU.

use crate::careful::xkphys;
use crate::page::cpu;
use abi::{Gpa, Mpa, NodeId, PAGE_SHIFT, PAGE_SIZE};
use alloc::sync::Arc;
use cell::pmap::Pmap;
use core::ptr::NonNull;
use vmm_core::board::ram;
use vmm_core::mem::{Access, GuestMemory, Page};

/// A VM's memory. What the VM has not touched yet is placed as it touches it.
pub(crate) struct Memory {
    pmap: Arc<Pmap>,
    cpus_per_node: u64,
}

impl Memory {
    /// The memory of `pmap`, on a machine of so many CPUs a node.
    pub(crate) const fn new(pmap: Arc<Pmap>, cpus_per_node: u64) -> Self {
        Self { pmap, cpus_per_node }
    }

    /// Has a page placed near this CPU.
    #[cold]
    #[inline(never)]
    fn touch(&self, page: u32) -> Option<Mpa> {
        let node = NodeId((cpu() / self.cpus_per_node) as u8);
        self.pmap.touch(page, node, |mpa| {
            // SAFETY: a page that the cell has taken for this VM and nobody else knows of.
            unsafe { core::ptr::write_bytes(xkphys(mpa) as *mut u8, 0, PAGE_SIZE as usize) }
        })
    }
}

// SAFETY: a page that is mapped stays so until the pmap goes, which an engine keeps; a machine page belongs
// to one VM, and its XKPHYS address is valid for ever. Nobody but the engines access it meanwhile.
unsafe impl GuestMemory for Memory {
    fn resolve(&self, gpa: Gpa, _: Access) -> Option<Page> {
        let bytes = u64::from(self.pmap.pages()) << PAGE_SHIFT;
        let page = (ram::offset(gpa, bytes)? >> PAGE_SHIFT) as u32;
        let mpa = self.pmap.get(page).or_else(|| self.touch(page))?;
        let base = NonNull::new(xkphys(mpa) as *mut u8)?;
        // SAFETY: a page-aligned address of a page of RAM that is the VM's (see above).
        Some(unsafe { Page::new(base) })
    }
}
