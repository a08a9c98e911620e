//! A VM's memory as its engines see it: its RAM by offset, through the pmap, on whichever CPU; where its VCPUs
//! visit, through what the cell knows of the pmap.

use crate::careful::xkphys;
use crate::{cpus, machine};
use abi::{Gpa, Mpa, NodeId, PAGE_SHIFT};
use alloc::sync::Arc;
use cell::pmap::{Pmap, Replica};
use cell::visit::{Ask, Told, Whom};
use core::ptr::NonNull;
use vmm_core::board::ram;
use vmm_core::mem::{Access, GuestMemory, Page};

/// A VM's memory. What the VM has not touched yet is placed as it touches it.
pub(crate) enum Memory {
    /// At home.
    Own(Arc<Pmap>),
    /// In another cell.
    Visited(Arc<Replica>),
}

impl Memory {
    fn pages(&self) -> u32 {
        match self {
            Self::Own(pmap) => pmap.pages(),
            Self::Visited(replica) => replica.pages(),
        }
    }

    /// Where a page lies, as far as is known here.
    pub(crate) fn get(&self, page: u32) -> Option<Mpa> {
        match self {
            Self::Own(pmap) => pmap.get(page),
            Self::Visited(replica) => replica.get(page),
        }
    }

    /// Where a page lies, which is placed near `node` if it is not there.
    pub(crate) fn place(&self, page: u32, node: NodeId) -> Option<Mpa> {
        match self {
            Self::Own(pmap) => pmap.touch(page, node, |mpa| {
                // SAFETY: a page that the cell has taken for this VM and that nobody else knows of.
                if let Some(page) = unsafe { at(mpa) } {
                    page.clear();
                }
            }),
            Self::Visited(replica) => ask(replica, page, node),
        }
    }

    /// Has a page placed near this CPU.
    #[cold]
    #[inline(never)]
    fn touch(&self, page: u32) -> Option<Mpa> {
        self.place(page, machine::layout().node_of(machine::this_cpu()))
    }

    /// The page of the VM that a guest-physical address lies in, if it is RAM.
    fn page(&self, gpa: Gpa) -> Option<u32> {
        let bytes = u64::from(self.pages()) << PAGE_SHIFT;
        Some((ram::offset(gpa, bytes)? >> PAGE_SHIFT) as u32)
    }

    /// Where the page of a guest-physical address lies, as far as is known here.
    pub(crate) fn find(&self, gpa: Gpa) -> Option<Mpa> {
        self.get(self.page(gpa)?)
    }
}

/// Asks a VM's home where a page lies, and learns where the next ones do.
fn ask(replica: &Replica, page: u32, node: NodeId) -> Option<Mpa> {
    if page >= replica.pages() {
        return None;
    }
    let whom = Whom { vm: replica.vm(), life: replica.life() };
    match cpus::ask(replica.home(), whom, &Ask::Page { page, node })? {
        Told::Pages(pages) => replica.learn(page, pages.as_slice()),
        _ => None,
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

// SAFETY: a page that is mapped stays so until the pmap goes, which an engine keeps at home, and which elsewhere does
// not go before the engines that visit have; or until it is moved, which is done while no engine runs, and each is told
// before it does again. A machine page belongs to one VM, and its XKPHYS address is valid for ever. Nobody but the
// engines access it meanwhile.
unsafe impl GuestMemory for Memory {
    fn resolve(&self, gpa: Gpa, _: Access) -> Option<Page> {
        let page = self.page(gpa)?;
        let mpa = self.get(page).or_else(|| self.touch(page))?;
        // SAFETY: a page of the VM, and it stays so (see above).
        unsafe { at(mpa) }
    }
}
