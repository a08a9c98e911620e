//! A page of a VM moved to another frame while the VM lives.
//!
//! The new frame is taken before the old one is given back: for that while the VM has one frame more than pages,
//! which is counted among those that are taken and not mapped. It comes out of what the VM is promised and has not
//! touched yet, or else of what nobody is promised; where there is neither the page stays. It is of the
//! same loan as the old one, if that is borrowed, so that nothing changes of what is used of a loan; else of the node that
//! the VM's plan wants, if it wants one.

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
    /// The new frame was promised to the VM.
    promised: bool,
}

impl Frames {
    /// Takes another frame for page `page` of `pmap`'s VM, none of whose VCPUs runs: any one, as `dice` falls. `None`:
    /// the page is not there, or there is no frame for it.
    pub(crate) fn begin_move(&self, pmap: &Pmap, page: u32, dice: u64) -> Option<Moving> {
        let owner = Owner::Vm { vm: pmap.vm(), page };
        let inner = &mut *self.inner.lock();
        let from = pmap.get(page)?;
        let loan = inner.map.loan(from);
        let source = loan.map_or(self.cell, |loan| loan.lender);
        let promised = pmap.due(source) != 0;
        if !promised && inner.spare(source, self.cell) == 0 {
            return None;
        }
        let to = match loan {
            Some(loan) => inner.map.take_anywhere(Within::Loan(loan), dice, owner),
            None => {
                let node = pmap.plan().node(page, &inner.map).map(Within::Node);
                let near = node.and_then(|node| inner.map.take_anywhere(node, dice, owner));
                near.or_else(|| inner.map.take_anywhere(Within::Own, dice, owner))
            }
        }?;
        if promised {
            pmap.move_due(source, true);
            inner.promised[usize::from(source.0)] -= 1;
        } else {
            pmap.count_taken(source, true);
        }
        self.placing.fetch_add(1, Ordering::Relaxed);
        Some(Moving { page, from, to, promised })
    }

    /// Gives the frame back that a page of `pmap`'s VM, which lies in one of the two, does not lie in.
    ///
    /// # Panics
    /// When it lies in neither: the page was moved by somebody else at the same time.
    pub(crate) fn end_move(&self, pmap: &Pmap, moving: Moving) {
        let Moving { page, from, to, promised } = moving;
        let inner = &mut *self.inner.lock();
        let unused = match pmap.get(page) {
            Some(at) if at == to => from,
            Some(at) if at == from => to,
            at => panic!("MEM-MAP: page {page} lies at {at:?}, not at {from} or {to}"),
        };
        let source = inner.map.lender(unused).unwrap_or(self.cell);
        inner.map.give(unused, Owner::Vm { vm: pmap.vm(), page });
        if promised {
            pmap.move_due(source, false);
            inner.promised[usize::from(source.0)] += 1;
        } else {
            pmap.count_taken(source, false);
        }
        self.placing.fetch_sub(1, Ordering::Release);
    }
}
