//! What the VCPU page says, and taking it back: the simple way, which [`super::Own`] is tested against.

use super::layout::{Class, Layout, slot};
use crate::cpu::Vcpu;

/// Cause.IP.
const LINES: u32 = 0xff00;
/// Guest `$k0` and `$k1`.
const K0: usize = 26;

/// The contents of a VCPU page: [`slot::COUNT`] doublewords from its start, in the machine's byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageImage {
    /// The doublewords.
    pub words: [u64; slot::COUNT],
}

impl PageImage {
    /// What emitted code is to find: the VCPU's registers, and the constants, with that of the main class as
    /// [`slot::MAIN`].
    #[must_use]
    pub fn of(cpu: &mut Vcpu, layout: &Layout) -> Self {
        let mut image = Self { words: [0; slot::COUNT] };
        image.set(slot::K0, cpu.gpr(K0));
        image.set(slot::K1, cpu.gpr(K0 + 1));
        image.set(slot::PENDING, (cpu.cp0().cause.bits() & LINES).into());
        image.set(slot::MAIN, layout.main.constant());
        image.set(slot::TABLE, layout.table);
        for class in Class::ALL {
            image.set(slot::constant(class), class.constant());
        }
        let found = cpu.tlb().lookup(cpu.cp0().entry_hi, cpu.asid());
        image.set(slot::PROBED_HI, if found.is_some() { cpu.cp0().entry_hi } else { !0 });
        image.set(slot::PROBED_INDEX, found.unwrap_or(0) as u64);
        for bits in 0..slot::MIXED_COUNT {
            image.set(slot::MIXED + 8 * bits, layout.mixed(bits.into()));
        }
        for (number, select) in slot::REGISTERS {
            let (number, select) = (number.into(), select.into());
            if let Some((place, _)) = slot::register(number, select) {
                // None of them depends on time (Cause is as it was when somebody looked last).
                image.set(place, cpu.read_cp0(number, select, 0));
            }
        }
        image
    }

    /// Takes back what emitted code may have written. The guest can write anything here, so that all
    /// of it is only what the guest might have written to the registers themselves.
    pub fn take_back(&self, cpu: &mut Vcpu) {
        cpu.set_gpr(K0, self.get(slot::K0));
        cpu.set_gpr(K0 + 1, self.get(slot::K1));
        for (number, select) in &slot::REGISTERS[..slot::WRITTEN] {
            let (number, select) = (u32::from(*number), u32::from(*select));
            if let Some((place, _)) = slot::register(number, select)
                && self.get(place) != cpu.read_cp0(number, select, 0)
            {
                match (number, select) {
                    (0, 0) => cpu.set_index(self.get(place)),
                    _ => cpu.write_cp0(number, select, self.get(place), 0),
                }
            }
        }
    }

    const fn set(&mut self, place: u16, value: u64) {
        self.words[place as usize / 8] = value;
    }

    const fn get(&self, place: u16) -> u64 {
        self.words[place as usize / 8]
    }
}
