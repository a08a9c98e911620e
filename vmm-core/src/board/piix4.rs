//! The PIIX4 south bridge, as far as a kernel without IDE and USB sees it: function 0 (ISA bridge,
//! interrupt routing), function 3 (power management: the way to switch the machine off) and the
//! reset control register.
//!
//! After Intel's 82371AB data sheet (290562-001). As in QEMU, setting the suspend-enable bit with
//! type "soft off" is enough; the special cycle that the real part waits for is not needed.

use super::pci::ConfigSpace;

/// Power management: base of its I/O ports.
const PMBA: usize = 0x40;
/// Power management: bit 0 enables the I/O ports.
const PMREGMISC: usize = 0x80;

/// The reset control register's port.
const RESET_CONTROL: u16 = 0xcf9;
const RESET_CPU: u8 = 0x04;

/// High byte of PMCNTRL: SUS_TYP in bits 2–4, SUS_EN in bit 5.
const CONTROL_HIGH: u16 = 5;
const SUSPEND_TYPE: u8 = 0x1c;
const SUSPEND_ENABLE: u8 = 0x20;
/// The free-running timer's registers.
const TIMER: core::ops::Range<u16> = 8..12;
const TIMER_HZ: u64 = 3_579_545;

/// What a write to a port asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerRequest {
    /// The machine is to be switched off.
    Off,
    /// The machine is to be reset.
    Reset,
}

/// Functions 0 and 3.
#[derive(Debug)]
pub struct Piix4 {
    isa: ConfigSpace,
    power: ConfigSpace,
    /// PMSTS, PMEN, PMCNTRL.
    registers: [u8; 6],
    reset_control: u8,
}

impl Default for Piix4 {
    fn default() -> Self {
        Self::new()
    }
}

impl Piix4 {
    /// After reset, with the interrupt routing that the board's firmware sets up.
    #[must_use]
    pub fn new() -> Self {
        let mut isa = ConfigSpace::new(0x8086, 0x7110, 0x06_01_00, 0, 0).multifunction();
        // PIRQA–D to ISA interrupts 10, 10, 11, 11.
        isa.set(0x60, 0x0b0b_0a0a);
        let mut power = ConfigSpace::new(0x8086, 0x7113, 0x06_80_00, 3, 1);
        power.set(PMBA, 1);
        power.set_writable(PMBA, 0xffc0);
        Self { isa, power, registers: [0; 6], reset_control: 0 }
    }

    /// A function's configuration space.
    pub fn function(&mut self, function: u8) -> Option<&mut ConfigSpace> {
        match function {
            0 => Some(&mut self.isa),
            3 => Some(&mut self.power),
            _ => None,
        }
    }

    /// Where in the power management block a port lies.
    fn power_register(&self, port: u16) -> Option<u16> {
        let base = (self.power.get(PMBA) & 0xffc0) as u16;
        let enabled = self.power.get(PMREGMISC) & 1 != 0;
        (enabled && base != 0 && port & 0xffc0 == base).then_some(port & 0x3f)
    }

    /// Reads an I/O port at virtual time `now`; `None`: not one of its ports.
    #[must_use]
    pub fn read(&self, port: u16, now: u64) -> Option<u8> {
        if port == RESET_CONTROL {
            return Some(self.reset_control);
        }
        let register = self.power_register(port)?;
        if TIMER.contains(&register) {
            let ticks = (u128::from(now) * u128::from(TIMER_HZ) / 1_000_000_000) as u32 & 0xff_ffff;
            return Some(ticks.to_le_bytes()[usize::from(register - TIMER.start)]);
        }
        Some(self.registers.get(usize::from(register)).copied().unwrap_or(0))
    }

    /// Writes an I/O port; `None`: not one of its ports.
    pub fn write(&mut self, port: u16, value: u8) -> Option<Option<PowerRequest>> {
        if port == RESET_CONTROL {
            self.reset_control = value & !RESET_CPU;
            return Some((value & RESET_CPU != 0).then_some(PowerRequest::Reset));
        }
        let register = self.power_register(port)?;
        match register {
            // Status bits are cleared by writing ones, and nothing ever sets one.
            0 | 1 => {}
            CONTROL_HIGH if value & (SUSPEND_ENABLE | SUSPEND_TYPE) == SUSPEND_ENABLE => {
                return Some(Some(PowerRequest::Off));
            }
            _ => {
                if let Some(slot) = self.registers.get_mut(usize::from(register)) {
                    *slot = value & if register == CONTROL_HIGH { !SUSPEND_ENABLE } else { 0xff };
                }
            }
        }
        Some(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enabled() -> Piix4 {
        let mut piix = Piix4::new();
        piix.power.write(PMBA, 0x1000, u32::MAX);
        piix.power.write(PMREGMISC, 1, u32::MAX);
        piix
    }

    #[test]
    fn identity_and_routing() {
        let mut piix = Piix4::new();
        assert_eq!(piix.function(0).map(|f| f.get(0)), Some(0x7110_8086));
        assert_eq!(piix.function(0).map(|f| f.get(0x60)), Some(0x0b0b_0a0a));
        assert_eq!(piix.function(3).map(|f| f.get(0)), Some(0x7113_8086));
        assert!(piix.function(1).is_none() && piix.function(2).is_none());
    }

    #[test]
    fn soft_off_by_the_way_linux_takes() {
        let mut piix = enabled();
        assert_eq!(piix.read(0x1000, 0), Some(0));
        assert_eq!(piix.write(0x1004, 0), Some(None));
        assert_eq!(piix.write(0x1005, 0x20), Some(Some(PowerRequest::Off)));
        // Another suspend type, or the ports switched off, do nothing.
        assert_eq!(piix.write(0x1005, 0x24), Some(None));
        piix.power.write(PMREGMISC, 0, u32::MAX);
        assert_eq!(piix.write(0x1005, 0x20), None);
    }

    #[test]
    fn reset_and_timer() {
        let mut piix = enabled();
        assert_eq!(piix.write(RESET_CONTROL, 0x02), Some(None));
        assert_eq!(piix.write(RESET_CONTROL, 0x06), Some(Some(PowerRequest::Reset)));
        let timer = |piix: &Piix4, now| {
            u32::from_le_bytes([8, 9, 10, 11].map(|r| piix.read(0x1000 + r, now).unwrap_or(0)))
        };
        assert_eq!(timer(&piix, 1_000_000_000), TIMER_HZ as u32);
    }
}
