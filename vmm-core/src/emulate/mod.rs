//! What each instruction does to a [`Vcpu`]: one function an instruction, the same for every engine.
//!
//! A function gets the VCPU, or, where it needs memory, a [`Memory`], or, where it needs time or the
//! engine's caches, a [`Context`].
//! It neither fetches nor advances the program counter; the engine does, and stores the
//! instruction's address in the VCPU before it calls a function of [`system`]. What an instruction
//! can raise is its function's [`Trap`]: then no register has changed.
//!
//! Operands that the manual calls UNPREDICTABLE (32-bit operations on values that are not
//! sign-extended, division by zero …) give what QEMU gives.

pub mod alu;
pub mod branch;
pub mod fp;
pub mod loadstore;
pub mod system;

use crate::cpu::{Trap, Vcpu};
use crate::endian::Endian;
use crate::mem::Page;

/// What an engine lends to a load or store.
pub trait Memory {
    /// Whether sums may wrap.
    const WRAPS: bool = true;

    /// The VCPU.
    fn cpu(&mut self) -> &mut Vcpu;

    /// A sum that is an address, as the mode has it: with 32-bit addresses in user mode it wraps.
    fn sum(&mut self, base: u64, index: u64) -> u64;

    /// Loads from virtual address `va` in the present mode.
    ///
    /// # Errors
    /// Whatever exception the access causes, misalignment included.
    fn load<T: Data>(&mut self, va: u64) -> Result<T, Trap>;

    /// Stores.
    ///
    /// # Errors
    /// As [`Memory::load`].
    fn store<T: Data>(&mut self, va: u64, value: T) -> Result<(), Trap>;
}

/// What an engine lends to all other instructions.
pub trait Context: Memory {
    /// Stores `new` if `old` is still there; whether it was.
    ///
    /// # Errors
    /// As [`Memory::store`].
    fn exchange<T: Exchange>(&mut self, va: u64, old: T, new: T) -> Result<bool, Trap>;

    /// The physical address of a load from `va`.
    ///
    /// # Errors
    /// As [`Memory::load`].
    fn physical(&mut self, va: u64) -> Result<u64, Trap>;

    /// Virtual time in nanoseconds.
    fn now(&mut self) -> u64;

    /// Brings Cause up to date.
    fn sample_interrupts(&mut self);

    /// All earlier loads and stores come before all later ones, for every VCPU; and what other VCPUs have
    /// done to code before is taken notice of.
    fn synchronize(&mut self);

    /// Code at `va` (and the rest of its cache line) may have been written by others.
    fn code_changed(&mut self, va: u64);
}

/// What comes after an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The next instruction.
    Next,
    /// The next instruction, after a look at interrupts and with cached state taken anew: mode,
    /// translations or masks have changed.
    Changed,
    /// The instruction there, likewise.
    Jump(u64),
    /// The next instruction, when an interrupt comes.
    Wait,
}

/// A value that a load or store moves.
pub trait Data: Copy + Eq {
    /// Bytes.
    const SIZE: u64;
    /// From the low bits of a register.
    fn from_register(value: u64) -> Self;
    /// Zero-extended.
    fn zero_extend(self) -> u64;
    /// From `page` at `offset`, in byte order `endian`.
    fn load(page: Page, offset: u64, endian: Endian) -> Self;
    /// To `page` at `offset`.
    fn store(self, page: Page, offset: u64, endian: Endian);
}

/// A value that SC or SCD stores.
pub trait Exchange: Data {
    /// Stores `new` to `page` at `offset` if `old` is there; whether it was.
    fn exchange(page: Page, offset: u64, old: Self, new: Self, endian: Endian) -> bool;
}

/// `value` as memory in byte order `endian` has it, or back.
macro_rules! ordered {
    ($endian:ident, $value:expr) => {
        if matches!($endian, Endian::NATIVE) { $value } else { $value.swap_bytes() }
    };
}

macro_rules! data {
    ($t:ty, $load:ident, $store:ident) => {
        impl Data for $t {
            const SIZE: u64 = size_of::<Self>() as u64;
            #[inline(always)]
            fn from_register(value: u64) -> Self {
                value as Self
            }
            #[inline(always)]
            fn zero_extend(self) -> u64 {
                u64::from(self)
            }
            #[inline(always)]
            fn load(page: Page, offset: u64, endian: Endian) -> Self {
                let value = page.$load(offset);
                ordered!(endian, value)
            }
            #[inline(always)]
            fn store(self, page: Page, offset: u64, endian: Endian) {
                page.$store(offset, ordered!(endian, self));
            }
        }
    };
}

data!(u8, load8, store8);
data!(u16, load16, store16);
data!(u32, load32, store32);
data!(u64, load64, store64);

impl Exchange for u32 {
    fn exchange(page: Page, offset: u64, old: Self, new: Self, endian: Endian) -> bool {
        page.exchange32(offset, ordered!(endian, old), ordered!(endian, new))
    }
}

impl Exchange for u64 {
    fn exchange(page: Page, offset: u64, old: Self, new: Self, endian: Endian) -> bool {
        page.exchange64(offset, ordered!(endian, old), ordered!(endian, new))
    }
}

/// A 32-bit result as a register holds it.
#[inline(always)]
pub(crate) const fn word(value: u64) -> u64 {
    value as i32 as u64
}
