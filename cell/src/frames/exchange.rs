//! A page of a VM moved to another frame while the VM lives.
//!
//! The new frame is taken before the old one is given back: for that while the VM has one frame more than pages,
//! which is counted among those that are taken and not mapped. So a frame is needed that nobody is promised; where
//! there is none the page stays. It comes from where the VM's plan wants the page, or else from
//! where the page is.

use super::Frames;
use crate::memmap::{Owner, Within};
use crate::pmap::Pmap;
use abi::Mpa;
use core::sync::atomic::Ordering;

/// A page between two frames, both of which are its VM's.
#[derive(Debug)]
#[must_use = "one of the two frames is to be given back"]
pub(crate) struct Moving {
    pub page: u32,
    /// Where it was.
    pub from: Mpa,
    /// Where it will be.
    pub to: Mpa,
}

impl Frames {
    /// Takes another frame for page `page` of `pmap`'s VM, any one, as `dice` falls. `None`: the page is not there,
    /// or no frame can be spared.
    pub(crate) fn begin_move(&self, pmap: &Pmap, page: u32, dice: u64) -> Option<Moving> {
        let owner = Owner::Vm { vm: pmap.vm(), page };
        let inner = &mut *self.inner.lock();
        let from = pmap.get(page)?;
        let source = inner.map.lender(from).unwrap_or(self.cell);
        if inner.spare(source, self.cell) == 0 {
            return None;
        }
        let to = if source == self.cell {
            let node = pmap.plan().node(page, &inner.map).map(Within::Node);
            let near = node.and_then(|node| inner.map.take_anywhere(node, dice, owner));
            near.or_else(|| inner.map.take_anywhere(Within::Own, dice, owner))
        } else {
            inner.map.take_anywhere(Within::Borrowed(source), dice, owner)
        };
        let to = to.expect("what can be spared is free");
        pmap.count_taken(source, true);
        self.placing.fetch_add(1, Ordering::Relaxed);
        Some(Moving { page, from, to })
    }

    /// Gives the frame back that a page of `pmap`'s VM, which lies in one of the two, does not lie in.
    ///
    /// # Panics
    /// When it lies in neither: the page was moved by somebody else at the same time.
    pub(crate) fn end_move(&self, pmap: &Pmap, moving: Moving) {
        let Moving { page, from, to } = moving;
        let inner = &mut *self.inner.lock();
        let unused = match pmap.get(page) {
            Some(at) if at == to => from,
            Some(at) if at == from => to,
            at => panic!("MEM-MAP: page {page} lies at {at:?}, not at {from} or {to}"),
        };
        let source = inner.map.lender(unused).unwrap_or(self.cell);
        inner.map.give(unused, Owner::Vm { vm: pmap.vm(), page });
        pmap.count_taken(source, false);
        self.placing.fetch_sub(1, Ordering::Release);
    }
}
