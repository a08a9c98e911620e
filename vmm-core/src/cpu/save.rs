//! A VCPU's architectural state, saved and restored: registers, CP0 and TLB. What can be had again from these,
//! cached translations and decoded code, is not saved.

use super::tlb::Entry;
use super::{Link, Vcpu};
use crate::fpu::Fcsr;
use crate::state::{Restorer, Saver, StateError, Visit, check};
use alloc::vec::Vec;

/// Words of a TLB entry.
const ENTRY: usize = 4;

impl Vcpu {
    /// What a saved state must agree on with the VCPU that it is restored to.
    fn shape(&self) -> [u64; 2] {
        let model = &self.model;
        let sizes = model.segbits << 8 | model.pabits;
        [
            u64::from(model.tlb_entries) << 32 | u64::from(sizes),
            u64::from(model.prid) << 32 | u64::from(self.number()) << 8 | self.endian as u64,
        ]
    }

    fn visit(&mut self, v: &mut impl Visit) -> Result<(), StateError> {
        v.all(&mut self.gpr[..32])?;
        for field in [&mut self.pc, &mut self.target, &mut self.hi, &mut self.lo] {
            v.u64(field)?;
        }
        v.count(&mut self.retired)?;
        v.u64(&mut self.vector)?;
        v.u64(&mut self.vector_fault_at)?;
        v.u32(&mut self.vector_faults)?;
        v.bool(&mut self.in_slot)?;
        v.bool(&mut self.waiting)?;
        let mut linked = self.link.is_some();
        let mut link = self.link.unwrap_or(Link { va: 0, value: 0 });
        v.bool(&mut linked)?;
        v.u64(&mut link.va)?;
        v.u64(&mut link.value)?;
        self.link = linked.then_some(link);
        v.all(&mut self.fpr)?;
        let mut fcsr = self.fcsr.bits();
        v.u32(&mut fcsr)?;
        self.fcsr = Fcsr::from_bits(fcsr);
        check(self.fcsr.bits() == fcsr, "FCSR")?;
        self.cp0.visit(v)
    }

    /// Appends the state to `out`.
    pub(crate) fn save(&mut self, out: &mut Vec<u64>) -> Result<(), StateError> {
        let mut v = Saver(out);
        v.all(&mut self.shape())?;
        self.visit(&mut v)?;
        let count_at = out.len();
        out.push(0);
        for (index, entry) in self.tlb.entries().enumerate().filter(|(_, entry)| !entry.invalid) {
            let small = index as u64 | u64::from(entry.asid) << 16 | u64::from(entry.global) << 24;
            out.extend_from_slice(&[entry.mask << 32 | small, entry.vpn, entry.lo[0], entry.lo[1]]);
        }
        out[count_at] = ((out.len() - count_at) / ENTRY) as u64;
        Ok(())
    }

    /// Takes over a state, as a new VCPU. After an error it is good for nothing.
    pub(crate) fn restore(&mut self, words: &mut Restorer<'_>) -> Result<(), StateError> {
        let mut shape = [0; 2];
        words.all(&mut shape)?;
        if shape != self.shape() {
            return Err(StateError::Other);
        }
        let before = self.cp0.clone();
        self.visit(words)?;
        check(self.gpr[0] == 0, "register 0")?;
        self.cp0.check(&before, &self.model)?;
        if !self.model.tlb_reset_invalid {
            self.tlb.invalidate(None);
        }
        let mut count = 0;
        words.u64(&mut count)?;
        check(count <= self.tlb.len() as u64, "the number of TLB entries")?;
        for _ in 0..count {
            self.restore_entry(*words.take::<ENTRY>()?)?;
        }
        // It looks at everything before it goes on.
        self.attention = true;
        self.mode_changed();
        Ok(())
    }

    fn restore_entry(&mut self, [small, vpn, lo0, lo1]: [u64; ENTRY]) -> Result<(), StateError> {
        let (index, asid, global) = (small as u16, (small >> 16) as u8, small >> 24 & 0xff);
        let entry = Entry {
            vpn,
            mask: small >> 32,
            asid,
            global: global == 1,
            invalid: false,
            lo: [lo0, lo1],
        };
        let known = self.tlb.entries().nth(index.into()).is_some_and(|old| old.invalid);
        check(known, "a TLB entry's number")?;
        check(global <= 1 && entry.is_possible(&self.model), "a TLB entry")?;
        self.tlb.write(index.into(), entry);
        Ok(())
    }
}
