//! Loads and stores as the interpreter makes them: the fast way through the soft TLB, the slow way
//! through address map, memory and board.

use super::{Cx, Engine};
use crate::cpu::{Access, ExcCode, Exception, Trap, Vcpu};
use crate::emulate::{Context, Data, Exchange, Memory};
use crate::endian::Endian;
use crate::mem::Page;
use abi::{Gpa, PAGE_SIZE};
use core::sync::atomic::{Ordering, fence};

/// Where an access goes.
enum Place {
    Memory(Page, Gpa),
    Device(Gpa),
}

impl<const BIG: bool> Engine<'_, BIG> {
    /// Checks and translates an access that missed the soft TLB.
    fn place(&self, cpu: &mut Vcpu, va: u64, size: u64, access: Access) -> Result<Place, Trap> {
        if va & (size - 1) != 0 {
            return Err(cpu.trap(Exception::Unaligned(va, access)));
        }
        let gpa = match cpu.translate(va, access) {
            Ok(physical) => Gpa(physical),
            Err(exception) => return Err(cpu.trap(exception)),
        };
        Ok(match self.mem.resolve(Gpa(gpa.0 & !(PAGE_SIZE - 1)), access) {
            Some(page) => Place::Memory(page, gpa),
            None => Place::Device(gpa),
        })
    }

    /// A store of `size` bytes at `gpa`, in `page`, has been made: what was decoded there is not so any
    /// more. Whether stores to the page are to be noticed further on.
    fn written(&self, page: Page, gpa: Gpa, size: u64) -> bool {
        let own = self.code.written(page, gpa.0, size);
        if let Some(map) = self.others {
            if own {
                map.written(gpa, page, gpa.0, size);
            } else {
                map.opened(gpa, page);
            }
        }
        own
    }

    #[cold]
    #[inline(never)]
    fn load_slow<T: Data>(&mut self, cpu: &mut Vcpu, va: u64) -> Result<T, Trap> {
        match self.place(cpu, va, T::SIZE, Access::Read)? {
            Place::Memory(page, _) => {
                cpu.soft.set_read(va, page);
                Ok(T::load(page, va, Self::ENDIAN))
            }
            Place::Device(gpa) => {
                cpu.device_touched = true;
                let now = self.now(cpu);
                let value = self.bus.read(gpa, T::SIZE as u8, now);
                cpu.attention |= self.bus.wants_exit();
                value.map(T::from_register).map_err(|_| cpu.trap(Exception::Plain(ExcCode::Dbe)))
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn store_slow<T: Data>(&mut self, cpu: &mut Vcpu, va: u64, value: T) -> Result<(), Trap> {
        match self.place(cpu, va, T::SIZE, Access::Write)? {
            Place::Memory(page, gpa) => {
                value.store(page, va, Self::ENDIAN);
                if !self.written(page, gpa, T::SIZE) {
                    cpu.soft.set_write(va, page);
                }
                Ok(())
            }
            Place::Device(gpa) => {
                cpu.device_touched = true;
                let now = self.now(cpu);
                let result = self.bus.write(gpa, T::SIZE as u8, value.zero_extend(), now);
                // It may have changed an interrupt line.
                cpu.attention = true;
                result.map_err(|_| cpu.trap(Exception::Plain(ExcCode::Dbe)))
            }
        }
    }
}

/// The context of an attempt: accesses hit the soft TLB, or fail without a trace (what they leave in
/// [`Vcpu::pending`] means nothing), and the instruction is then executed with [`Cx`].
pub(super) struct Attempt<'a, const BIG: bool> {
    pub cpu: &'a mut Vcpu,
}

impl<const BIG: bool> Attempt<'_, BIG> {
    const ENDIAN: Endian = if BIG { Endian::Big } else { Endian::Little };
}

impl<const BIG: bool> Memory for Attempt<'_, BIG> {
    /// Where they would, no address is in the soft TLB that is not its own wrapped self.
    const WRAPS: bool = false;

    #[inline(always)]
    fn cpu(&mut self) -> &mut Vcpu {
        self.cpu
    }

    #[inline(always)]
    fn sum(&mut self, base: u64, index: u64) -> u64 {
        base.wrapping_add(index)
    }

    #[inline(always)]
    fn load<T: Data>(&mut self, va: u64) -> Result<T, Trap> {
        let page = self.cpu.soft.read(va, T::SIZE).ok_or(Trap)?;
        Ok(T::load(page, va, Self::ENDIAN))
    }

    #[inline(always)]
    fn store<T: Data>(&mut self, va: u64, value: T) -> Result<(), Trap> {
        let page = self.cpu.soft.write(va, T::SIZE).ok_or(Trap)?;
        value.store(page, va, Self::ENDIAN);
        Ok(())
    }
}

impl<const BIG: bool> Memory for Cx<'_, '_, BIG> {
    #[inline(always)]
    fn cpu(&mut self) -> &mut Vcpu {
        self.cpu
    }

    fn sum(&mut self, base: u64, index: u64) -> u64 {
        let sum = base.wrapping_add(index);
        if self.cpu.wrap_addresses { sum as i32 as u64 } else { sum }
    }

    fn load<T: Data>(&mut self, va: u64) -> Result<T, Trap> {
        match self.cpu.soft.read(va, T::SIZE) {
            Some(page) => Ok(T::load(page, va, Engine::<BIG>::ENDIAN)),
            None => self.engine.load_slow(self.cpu, va),
        }
    }

    fn store<T: Data>(&mut self, va: u64, value: T) -> Result<(), Trap> {
        match self.cpu.soft.write(va, T::SIZE) {
            Some(page) => {
                value.store(page, va, Engine::<BIG>::ENDIAN);
                Ok(())
            }
            None => self.engine.store_slow(self.cpu, va, value),
        }
    }
}

impl<const BIG: bool> Context for Cx<'_, '_, BIG> {
    fn exchange<T: Exchange>(&mut self, va: u64, old: T, new: T) -> Result<bool, Trap> {
        match self.engine.place(self.cpu, va, T::SIZE, Access::Write)? {
            Place::Memory(page, gpa) => {
                let endian = Engine::<BIG>::ENDIAN;
                let stored = T::exchange(page, va, old, new, endian);
                if stored {
                    self.engine.written(page, gpa, T::SIZE);
                }
                Ok(stored)
            }
            // Nobody synchronises through a device; as on real buses the store never succeeds.
            Place::Device(_) => Ok(false),
        }
    }

    fn physical(&mut self, va: u64) -> Result<u64, Trap> {
        self.cpu.translate(va, Access::Read).map_err(|exception| self.cpu.trap(exception))
    }

    fn now(&mut self) -> u64 {
        let now = self.engine.now(self.cpu);
        // Who sees that the timer's time has come is to see its line up too, wherever it looks next.
        self.cpu.attention |= self.cpu.timer_deadline().is_some_and(|at| now >= at);
        now
    }

    fn sample_interrupts(&mut self) {
        self.engine.sample_interrupts(self.cpu);
    }

    fn synchronize(&mut self) {
        if self.engine.others.is_some() {
            fence(Ordering::SeqCst);
            self.cpu.attention |= self.engine.has_posts(self.cpu);
        }
    }

    fn code_changed(&mut self, va: u64) {
        self.synchronize();
        let line = u64::from(self.cpu.model.synci_step);
        if let Ok(physical) = self.cpu.translate(va, Access::Execute) {
            let gpa = Gpa(physical & !(PAGE_SIZE - 1));
            if let Some(page) = self.engine.mem.resolve(gpa, Access::Execute) {
                self.engine.code.decode_range_again(page, physical & !(line - 1), line);
            }
        }
    }
}
