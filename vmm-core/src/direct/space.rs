//! The real address spaces that a VCPU has, one for each of its guest's that is in use.

use super::cpu::RealCpu;
use super::l2tlb::{L2Tlb, tag};
use crate::cpu::Void;
use abi::PAGE_SIZE;

/// Pairs of pages that are forgotten one by one; where there are more, the whole address space is.
const PAIRS_MAX: u64 = 16;

/// Real ASIDs by guest ASID.
#[derive(Debug)]
pub(super) struct Spacing {
    /// 0: none.
    real: [u8; 256],
    /// The CPU's generation that they are of.
    generation: u64,
    /// One of them is not 0.
    any: bool,
}

impl Spacing {
    pub fn new() -> Self {
        Self { real: [0; 256], generation: 0, any: false }
    }

    /// The real address space of the guest's.
    #[inline]
    pub fn real<R: RealCpu>(&mut self, l2: &L2Tlb, guest: u8, cpu: &mut R) -> u8 {
        if self.generation == cpu.spaces().generation() {
            let real = self.real[usize::from(guest)];
            if real != 0 {
                return real;
            }
        }
        self.allocate(l2, guest, cpu)
    }

    #[cold]
    fn allocate<R: RealCpu>(&mut self, l2: &L2Tlb, guest: u8, cpu: &mut R) -> u8 {
        loop {
            if self.generation != cpu.spaces().generation() {
                // Numbers of an earlier generation are others' now, in tags too.
                self.forget_all();
                l2.clear();
                self.generation = cpu.spaces().generation();
            }
            if let Some(real) = cpu.spaces().allocate() {
                self.real[usize::from(guest)] = real;
                self.any = true;
                return real;
            }
            cpu.forget_all();
            cpu.spaces().renew();
        }
    }

    /// Gives all address spaces up: what is known of them is never looked at again.
    pub fn forget_all(&mut self) {
        if self.any {
            self.real = [0; 256];
            self.any = false;
        }
    }

    /// Forgets some translations.
    pub fn forget<R: RealCpu>(&mut self, l2: &L2Tlb, void: Void, cpu: &mut R) {
        if self.generation != cpu.spaces().generation() {
            return;
        }
        let pairs = (void.pair_mask + 1) / (2 * PAGE_SIZE);
        match void.asid {
            None if pairs > PAIRS_MAX => self.forget_all(),
            Some(asid) if pairs > PAIRS_MAX => self.real[usize::from(asid)] = 0,
            Some(asid) => forget_in(l2, void, self.real[usize::from(asid)], cpu),
            None => {
                for &real in &self.real {
                    forget_in(l2, void, real, cpu);
                }
            }
        }
    }
}

/// Forgets pairs in one real address space.
fn forget_in<R: RealCpu>(l2: &L2Tlb, void: Void, real: u8, cpu: &mut R) {
    if real == 0 {
        return;
    }
    let first = void.vpn & !void.pair_mask;
    let mut offset = 0;
    while offset <= void.pair_mask {
        let tag = tag(first + offset, real);
        // What the L2TLB does not have, the real TLB has not either.
        if l2.forget(tag) {
            cpu.forget_pair(tag);
        }
        offset += 2 * PAGE_SIZE;
    }
}
