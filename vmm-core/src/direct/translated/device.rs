//! Accesses of emitted code to devices: made for it without settling the VCPU.
//!
//! An access is the last that an emitted word does, so that making it, at the guest address behind the real one, and going on
//! behind the word is what the real CPU would have done had a device been mapped there.

use super::{Run, Way};
use crate::cpu::Access;
use crate::direct::{After, Exit, RealCpu, Trapped};
use crate::isa::{Op, decode};
use crate::translate::is_mapped;
use abi::{Gpa, PAGE_SIZE};

/// A load's or store's size in bytes, and whether it is a load, and one that extends the sign.
const fn shape(op: Op) -> Option<(u8, bool, bool)> {
    Some(match op {
        Op::Lb => (1, true, true),
        Op::Lbu => (1, true, false),
        Op::Lh => (2, true, true),
        Op::Lhu => (2, true, false),
        Op::Lw => (4, true, true),
        Op::Lwu => (4, true, false),
        Op::Ld => (8, true, false),
        Op::Sb => (1, false, false),
        Op::Sh => (2, false, false),
        Op::Sw => (4, false, false),
        Op::Sd => (8, false, false),
        _ => return None,
    })
}

impl<R: RealCpu, const BIG: bool> Run<'_, '_, R, BIG> {
    /// Makes the access that has trapped, if it is one to a device in a segment that is not mapped: what is to be done next;
    /// `None`: it is another, and nothing was done.
    pub(super) fn device(&mut self, trapped: Trapped, until: u64) -> Option<Way> {
        let access = match trapped.cause >> 2 & 31 {
            2 => Access::Read,
            3 => Access::Write,
            _ => return None,
        };
        // A link that is lost again and again is another's to notice, and a branch is not lightly taken.
        if trapped.cause >> 31 != 0 || trapped.linked {
            return None;
        }
        let Self { engine, t, vcpu, .. } = &mut *self;
        let va = t.own.guest_address(trapped.bad_vaddr).filter(|va| !is_mapped(*va))?;
        let physical = vcpu.translate(va, access).ok()?;
        if engine.mem.resolve(Gpa(physical & !(PAGE_SIZE - 1)), Access::Read).is_some() {
            return None;
        }
        let word = t.own.word(vcpu.pc)?;
        let (size, load, signed) = shape(decode(word).op)?;
        let (base, rt) = (word >> 21 & 31, word >> 16 & 31);
        let address = vcpu.gpr(base as usize).wrapping_add(word as i16 as u64);
        if address != trapped.bad_vaddr || address & u64::from(size - 1) != 0 {
            return None;
        }
        let now = engine.now(vcpu);
        let unused = 64 - 8 * u32::from(size);
        if load {
            // (What fails is tried again, and is then an exception.)
            let value = engine.bus.read(Gpa(physical), size, now).ok()? << unused;
            let value = if signed { (value as i64 >> unused) as u64 } else { value >> unused };
            vcpu.set_gpr(rt as usize, value);
        } else {
            let value = vcpu.gpr(rt as usize) << unused >> unused;
            engine.bus.write(Gpa(physical), size, value, now).ok()?;
        }
        vcpu.pc = vcpu.pc.wrapping_add(4);
        vcpu.retired += 1;
        self.direct.counters.emulated += 1;
        Some(self.after_device(until))
    }

    /// Looks at what a device may have changed: interrupts, times, the wish to exit.
    fn after_device(&mut self, until: u64) -> Way {
        let Self { engine, direct, vcpu, .. } = &mut *self;
        let lines = vcpu.cp0.cause;
        engine.sample_interrupts(vcpu);
        let now = engine.set_deadline(direct, vcpu);
        let exits = engine.bus.wants_exit();
        let in_time = engine.clock.owners(now) < until;
        if lines == vcpu.cp0.cause && in_time && !exits && !direct.dirty {
            return Way::Again;
        }
        // As if a real interrupt had come behind it.
        match self.left(Trapped::default()) {
            Way::Settled(After::On) if exits => Way::Settled(After::Exit(Exit::Device)),
            way => way,
        }
    }
}
