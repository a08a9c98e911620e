//! Loads and stores as the interpreter makes them: the fast way through the soft TLB, the slow way
//! through address map, memory and board.

use super::Engine;
use crate::bus::Bus;
use crate::cpu::{Access, ExcCode, Exception, Trap, Vcpu};
use crate::emulate::{Context, Data, Exchange};
use crate::mem::{GuestMemory, Page};
use crate::time::Clock;
use abi::{Gpa, PAGE_SIZE};

/// Where an access goes.
enum Place {
    Memory(Page),
    Device(Gpa),
}

impl<const BIG: bool, M: GuestMemory, B: Bus, C: Clock> Engine<'_, BIG, M, B, C> {
    /// Checks and translates an access that missed the soft TLB. Returns the address as the mode has
    /// it, and where it goes.
    fn place(&mut self, va: u64, size: u64, access: Access) -> Result<(u64, Place), Trap> {
        let cpu = &mut *self.cpu;
        let va = cpu.wrap(va);
        if va & (size - 1) != 0 {
            return Err(cpu.trap(Exception::Unaligned(va, access)));
        }
        let gpa = match cpu.translate(va, access) {
            Ok(physical) => Gpa(physical),
            Err(exception) => return Err(cpu.trap(exception)),
        };
        let place = match self.mem.resolve(Gpa(gpa.0 & !(PAGE_SIZE - 1)), access) {
            Some(page) => Place::Memory(page),
            None => Place::Device(gpa),
        };
        Ok((va, place))
    }

    #[cold]
    #[inline(never)]
    fn load_slow<T: Data>(&mut self, va: u64) -> Result<T, Trap> {
        match self.place(va, T::SIZE, Access::Read)? {
            (va, Place::Memory(page)) => {
                self.cpu.soft.set_read(va, page);
                Ok(T::load(page, va, Self::ENDIAN))
            }
            (_, Place::Device(gpa)) => {
                let now = self.now();
                let value = self.bus.read(gpa, T::SIZE as u8, now);
                self.attention |= self.bus.wants_exit();
                value.map(T::from_register).map_err(|_| self.bus_error())
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn store_slow<T: Data>(&mut self, va: u64, value: T) -> Result<(), Trap> {
        match self.place(va, T::SIZE, Access::Write)? {
            (va, Place::Memory(page)) => {
                value.store(page, va, Self::ENDIAN);
                if !self.code.written(page, va, T::SIZE) {
                    self.cpu.soft.set_write(va, page);
                }
                Ok(())
            }
            (_, Place::Device(gpa)) => {
                let now = self.now();
                let result = self.bus.write(gpa, T::SIZE as u8, value.zero_extend(), now);
                // It may have changed an interrupt line.
                self.attention = true;
                result.map_err(|_| self.bus_error())
            }
        }
    }

    fn bus_error(&mut self) -> Trap {
        self.cpu.trap(Exception::Plain(ExcCode::Dbe))
    }
}

impl<const BIG: bool, M: GuestMemory, B: Bus, C: Clock> Context for Engine<'_, BIG, M, B, C> {
    #[inline(always)]
    fn cpu(&mut self) -> &mut Vcpu {
        self.cpu
    }

    #[inline(always)]
    fn load<T: Data>(&mut self, va: u64) -> Result<T, Trap> {
        match self.cpu.soft.read(va, T::SIZE) {
            Some(page) => Ok(T::load(page, va, Self::ENDIAN)),
            None => self.load_slow(va),
        }
    }

    #[inline(always)]
    fn store<T: Data>(&mut self, va: u64, value: T) -> Result<(), Trap> {
        match self.cpu.soft.write(va, T::SIZE) {
            Some(page) => {
                value.store(page, va, Self::ENDIAN);
                Ok(())
            }
            None => self.store_slow(va, value),
        }
    }

    fn exchange<T: Exchange>(&mut self, va: u64, old: T, new: T) -> Result<bool, Trap> {
        match self.place(va, T::SIZE, Access::Write)? {
            (va, Place::Memory(page)) => {
                let stored = T::exchange(page, va, old, new, Self::ENDIAN);
                if stored {
                    self.code.written(page, va, T::SIZE);
                }
                Ok(stored)
            }
            // Nobody synchronises through a device; as on real buses the store never succeeds.
            (_, Place::Device(_)) => Ok(false),
        }
    }

    fn physical(&mut self, va: u64) -> Result<u64, Trap> {
        self.cpu.translate(va, Access::Read).map_err(|exception| self.cpu.trap(exception))
    }

    fn now(&mut self) -> u64 {
        self.clock.now(self.cpu.retired)
    }

    fn sample_interrupts(&mut self) {
        let now = self.now();
        let levels = self.bus.interrupts(now);
        self.cpu.update_interrupts(levels, now);
    }

    fn code_changed(&mut self, va: u64) {
        let line = u64::from(self.cpu.model.synci_step);
        if let Ok(physical) = self.cpu.translate(va, Access::Execute)
            && let Some(page) = self.mem.resolve(Gpa(physical & !(PAGE_SIZE - 1)), Access::Execute)
        {
            self.code.written(page, physical & !(line - 1), line);
        }
    }
}
