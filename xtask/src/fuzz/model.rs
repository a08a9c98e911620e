//! Cases on our virtual CPU, in this process: the same ROM, the same bytes in memory.
//!
//! It also decides which cases are fit for a comparison: streams that reach a device, never end, or
//! change their own code are dropped before QEMU sees them.
//!
//! This module lends memory to the interpreter, so it touches raw memory.
#![allow(unsafe_code)]

use super::case::{bytes64, read64};
use super::harness::{self, Place};
use super::layout;
use crate::endian::Endian;
use abi::{Gpa, PAGE_SIZE};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use vmm_core::bus::{Bus, BusError};
use vmm_core::cpu::{CpuModel, Vcpu};
use vmm_core::interp::{self, Exit};
use vmm_core::mem::{Access, GuestMemory, Page};
use vmm_core::time::Clock;

/// Instructions after which a case counts as endless: the harness takes some 4,000, a stream that
/// ends far below 100 for each exception.
const LIMIT: u64 = 20_000;
/// The same for each round but the first: there the harness takes some 200.
const LIMIT_AGAIN: u64 = 5_000;

/// Why a case is not compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drop {
    /// It reached an address where QEMU has a device or a second view of RAM.
    Device,
    /// It did not end.
    Endless,
    /// It changed its code, its input or the harness's memory.
    SelfModifying,
}

impl Drop {
    /// In words.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Device => "reached a device",
            Self::Endless => "did not end",
            Self::SelfModifying => "changed its own code or the harness",
        }
    }
}

/// Memory of one kind, page-aligned for the interpreter.
struct Store(Box<[AtomicU64]>);

impl Store {
    fn new(bytes: usize) -> Self {
        Self((0..bytes / 8).map(|_| AtomicU64::new(0)).collect())
    }

    fn fill(&self, bytes: &[u8]) {
        for (word, chunk) in self.0.iter().zip(bytes.chunks_exact(8)) {
            let value = u64::from_ne_bytes(chunk.try_into().expect("eight bytes"));
            word.store(value, Ordering::Relaxed);
        }
    }

    fn copy_to(&self, bytes: &mut [u8]) {
        for (word, chunk) in self.0.iter().zip(bytes.chunks_exact_mut(8)) {
            chunk.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
    }

    fn page(&self, offset: u64) -> Option<Page> {
        let words = PAGE_SIZE as usize / 8;
        let first = (offset / PAGE_SIZE) as usize * words;
        let page = self.0.get(first..first + words)?;
        // SAFETY: these are PAGE_SIZE bytes of atomics, aligned to eight, which live as long as the
        // store: longer than any VCPU that is run on it, see `Model`.
        Some(unsafe { Page::new(NonNull::from(page).cast()) })
    }
}

/// What lies in the physical address space of a case.
struct Memory {
    low: Store,
    slot: Store,
    slot_at: u64,
    rom: Store,
}

// SAFETY: pages lie in the stores, which are neither moved nor freed while the memory exists, and
// are accessed atomically only.
unsafe impl GuestMemory for Memory {
    fn resolve(&self, gpa: Gpa, access: Access) -> Option<Page> {
        let at = gpa.0 & !(PAGE_SIZE - 1);
        if at < layout::LOW_SIZE as u64 {
            return self.low.page(at);
        }
        if let Some(offset) = at.checked_sub(self.slot_at)
            && offset < layout::SLOT_SIZE as u64
        {
            return self.slot.page(offset);
        }
        // ROM can be executed; what else streams find there, the board's ID, is no concern here.
        match at.checked_sub(layout::ROM) {
            Some(offset) if access == Access::Execute => self.rom.page(offset),
            _ => None,
        }
    }
}

/// Everything that is not memory.
#[derive(Default)]
struct Devices {
    /// The harness has ended the machine.
    done: bool,
    /// A stream got here.
    touched: bool,
}

impl Devices {
    /// Whether QEMU's machine has nothing there, so that an access is a bus error.
    const fn is_vacant(gpa: Gpa) -> bool {
        // Below 512 MB unassigned addresses read as zero; RAM shows again from 2 GB on.
        gpa.0 >= 0x2000_0000
            && !(gpa.0 >= 0x8000_0000 && gpa.0 < 0x8000_0000 + layout::RAM_SIZE as u64)
    }
}

impl Bus for Devices {
    fn read(&mut self, gpa: Gpa, _: u8, _: u64) -> Result<u64, BusError> {
        if Self::is_vacant(gpa) {
            return Err(BusError);
        }
        self.touched = true;
        Ok(0)
    }

    fn write(&mut self, gpa: Gpa, _: u8, _: u64, _: u64) -> Result<(), BusError> {
        match gpa.0 {
            // What the harness writes: reset, and the masks of the interrupt controllers.
            0x1f00_0500 => self.done = true,
            0x1000_0021 | 0x1000_00a1 => {}
            _ if Self::is_vacant(gpa) => return Err(BusError),
            _ => self.touched = true,
        }
        Ok(())
    }

    fn interrupts(&mut self, _: u64) -> u8 {
        0
    }

    fn deadline(&self, _: u64) -> Option<u64> {
        None
    }

    fn wants_exit(&self) -> bool {
        self.done || self.touched
    }
}

/// Time stands still, as Count does.
struct Still;

impl Clock for Still {
    fn now(&self, _: u64) -> u64 {
        0
    }
}

/// Our CPU with the machine that cases need.
pub struct Model {
    endian: Endian,
    // Before the memory: dropped first, so that no page outlives its store.
    vcpu: Vcpu,
    memory: Memory,
    low: Vec<u8>,
}

impl Model {
    /// A machine of a byte order.
    pub fn new(endian: Endian, place: Place) -> Self {
        let rom = Store::new(layout::ROM_SIZE);
        let words = harness::rom_words(place);
        let bytes: Vec<u8> =
            words.into_iter().flat_map(|w| super::case::bytes32(endian, w)).collect();
        rom.fill(&bytes);
        let order = match endian {
            Endian::Little => vmm_core::endian::Endian::Little,
            Endian::Big => vmm_core::endian::Endian::Big,
        };
        Self {
            endian,
            vcpu: Vcpu::with_code_pages(CpuModel::mips64r2_generic(), order, 16),
            memory: Memory {
                low: Store::new(layout::LOW_SIZE),
                slot: Store::new(layout::SLOT_SIZE),
                slot_at: 0,
                rom,
            },
            low: harness::low_memory(endian, place, 0, 0),
        }
    }

    /// Runs the case in `bytes`, which lie in slot `slot`; they then hold the results. How many
    /// instructions it took, with the harness's own.
    pub fn run(&mut self, slot: usize, bytes: &mut [u8]) -> Result<u64, Drop> {
        let control = layout::CONTROL as usize;
        for (offset, value) in [(layout::control::INDEX, slot), (layout::control::END, slot + 1)] {
            let at = control + offset as usize;
            self.low[at..at + 8].copy_from_slice(&bytes64(self.endian, value as u64));
        }
        self.memory.low.fill(&self.low);
        self.memory.slot.fill(bytes);
        self.memory.slot_at = layout::slot_pa(slot);
        self.vcpu.reset(0);
        let before = self.vcpu.retired();
        let mut devices = Devices::default();
        let rounds = read64(self.endian, bytes, layout::input::ROUNDS as usize);
        let limit = LIMIT + LIMIT_AGAIN * rounds.saturating_sub(1);
        let exit = interp::run(&mut self.vcpu, &self.memory, &mut devices, &Still, limit);
        if devices.touched {
            return Err(Drop::Device);
        }
        if exit != Exit::Device {
            return Err(Drop::Endless);
        }
        let input = bytes[..layout::SCRATCH].to_vec();
        self.memory.slot.copy_to(bytes);
        let mut low = vec![0; layout::LOW_SIZE];
        self.memory.low.copy_to(&mut low);
        // The control block changes as it should, and nothing else.
        low[control..control + layout::PAGE]
            .copy_from_slice(&self.low[control..control + layout::PAGE]);
        if low != self.low || input != bytes[..layout::SCRATCH] {
            return Err(Drop::SelfModifying);
        }
        Ok(self.vcpu.retired() - before)
    }

    /// How many exceptions the results in `bytes` tell of.
    pub fn traps(&self, bytes: &[u8]) -> u64 {
        read64(self.endian, bytes, layout::RESULT)
    }
}
