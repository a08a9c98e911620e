//! Guests of the machine that is searched: each VCPU uses a page a turn while there are any left, and then waits.

use super::machine::Shared;
use crate::loan::Payload;
use crate::local::Created;
use crate::pmap::Pmap;
use crate::vm::{Exit, Guest, Vcpu};
use abi::event::Cause;
use abi::{Mpa, NodeId, VmId};
use std::ops::Range;
use std::sync::Arc;

/// What the VCPUs of a guest share, in its home or where they visit.
#[derive(Clone, Debug)]
pub struct Toy {
    pub vm: VmId,
    /// Which of the VM's lives, among all that there are in all cells.
    pub serial: u64,
    ground: Shared,
    /// Its memory, at home.
    pmap: Option<Arc<Pmap>>,
}

/// One of them.
#[derive(Debug)]
pub struct ToyVcpu {
    pub of: Toy,
    pub index: u32,
    /// Its turns so far.
    pub ran: u64,
    pub interrupted: bool,
}

impl Toy {
    /// A guest of so many VCPUs, at home.
    pub fn make(
        vm: VmId,
        serial: u64,
        vcpus: u32,
        ground: &Shared,
        pmap: &Arc<Pmap>,
    ) -> Created<Self> {
        let toy = Self { vm, serial, ground: ground.clone(), pmap: Some(pmap.clone()) };
        let vcpu = |index| ToyVcpu { of: toy.clone(), index, ran: 0, interrupted: false };
        let vcpus = (0..vcpus).map(|index| Box::new(vcpu(index))).collect();
        (toy, vcpus)
    }

    /// The same where it visits.
    pub fn visit(vm: VmId, serial: u64, ground: &Shared) -> Self {
        Self { vm, serial, ground: ground.clone(), pmap: None }
    }
}

impl Vcpu for ToyVcpu {
    fn run(&mut self, _: u64) -> Exit {
        let Toy { vm, serial, ground, pmap } = &self.of;
        let ground = &mut *ground.borrow_mut();
        if let Err(rule) = ground.truth.runs((*vm, *serial, self.index), self.ran) {
            ground.breaks(&rule);
        }
        self.ran += 1;
        self.interrupted = false;
        let waits = Exit::Idle { until: None };
        let Some(pmap) = pmap else { return waits };
        // What lies in a dead cell's memory is garbage now.
        let lies_dead = |mpa| ground.home_of(mpa).is_some_and(|cell| !ground.up.has(cell));
        if pmap.iter().any(|(_, mpa)| lies_dead(mpa)) {
            return Exit::Ended { cause: Cause::UnreachableVector, report: String::new() };
        }
        for (page, mpa) in pmap.iter() {
            if !ground.truth.holds(mpa, (*vm, *serial, page)) {
                ground.breaks("a page of a VM was overwritten");
            }
        }
        let Some(page) = (0..pmap.pages()).find(|page| pmap.get(*page).is_none()) else {
            return waits;
        };
        let Some(mpa) = pmap.touch(page, NodeId(0), |_| ()) else { return waits };
        if let Err(rule) = ground.truth.stamp(mpa, (*vm, *serial, page)) {
            ground.breaks(&rule);
        }
        if page + 1 < pmap.pages() { Exit::Slice } else { waits }
    }

    fn interrupt(&mut self) {
        self.interrupted = true;
    }

    fn forget(&mut self, _: Range<u32>) {}

    fn instructions(&self) -> u64 {
        self.ran
    }

    fn counters(&self, _: &mut dyn FnMut(&'static str, u64)) {}
}

impl Guest for Toy {
    type Vcpu = ToyVcpu;

    fn input(&self, bytes: &[u8]) -> usize {
        bytes.len()
    }

    fn take_output(&self, _: &mut dyn FnMut(&[u8])) {}

    fn counters(&self, _: &mut dyn FnMut(&'static str, u64)) {}

    fn kernel_engine(&self) -> &'static str {
        "toy"
    }

    fn remark(&self) -> Option<&str> {
        None
    }

    fn place(&self, page: u32, node: NodeId) -> Option<Mpa> {
        let pmap = self.pmap.as_ref().expect("at home");
        pmap.get(page).or_else(|| {
            let mpa = pmap.touch(page, node, |_| ())?;
            let ground = &mut *self.ground.borrow_mut();
            if let Err(rule) = ground.truth.stamp(mpa, (self.vm, self.serial, page)) {
                ground.breaks(&rule);
            }
            Some(mpa)
        })
    }

    fn find(&self, page: u32) -> Option<Mpa> {
        self.pmap.as_ref().expect("at home").get(page)
    }

    fn serve(&self, call: &[u64]) -> Option<(Payload, bool)> {
        Some((Payload::new(call), false))
    }

    fn share(&self, out: &mut Vec<u64>) {
        out.push(self.serial);
    }

    fn gather(&self) {}

    fn save(&self, vcpu: &mut ToyVcpu, out: &mut Vec<u64>) {
        out.extend([self.serial, vcpu.index.into(), vcpu.ran, vcpu.interrupted.into()]);
    }

    fn restore(&self, index: u32, state: &[u64]) -> Result<Box<ToyVcpu>, String> {
        let &[serial, number, ran, interrupted] = state else { return Err("no state".into()) };
        if (serial, number) != (self.serial, u64::from(index)) {
            return Err("another one's state".into());
        }
        let (of, interrupted) = (self.clone(), interrupted != 0);
        Ok(Box::new(ToyVcpu { of, index, ran, interrupted }))
    }

    fn look(&self) {}

    fn warped(&self) -> u64 {
        0
    }

    fn warp_to(&self, _: u64) {}
}
