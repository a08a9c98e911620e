//! PCI configuration through the GT-64120, and the devices the PROM sets up.
//!
//! Configuration space is an index/data pair, used here only, before any cell starts; what the
//! monitor needs of it later is passed on in the hand-off.

use crate::cpu::{KSEG1, XKPHYS};
use core::sync::atomic::{AtomicU64, Ordering};

/// The GT-64120's registers, where the boot ROM has moved them, and its configuration pair.
const GT: u64 = KSEG1 + 0x1be0_0000;
const CONFIG_ADDRESS: u64 = GT + 0xcf8;
const CONFIG_DATA: u64 = GT + 0xcfc;
/// PCI_0 Command, and its bit MByteSwap: without it, a big-endian bridge swaps the data of every device
/// but itself.
const PCI0_COMMAND: u64 = GT + 0xc00;
const MBYTE_SWAP: u32 = 1 << 0;
/// The low and high decode registers of the second window into PCI memory, in units of 2 MB; of the high one
/// 7 bits count.
const PCI0_MEMORY1_LOW: u64 = GT + 0x080;
const PCI0_MEMORY1_HIGH: u64 = GT + 0x088;

/// Vendor (low half) and device ids.
const GT64120: u32 = 0x4620_11ab;
const PVPANIC: u32 = 0x0011_1b36;
const NVME: u32 = 0x0010_1b36;

/// Configuration registers.
const ID: u32 = 0x00;
const COMMAND: u32 = 0x04;
const BAR0: u32 = 0x10;
/// The persistent-memory region's BAR, of 64 bits as BAR 0.
const BAR4: u32 = 0x20;
/// Command: respond to memory accesses.
const MEMORY: u32 = 1 << 1;

/// Where pvpanic's register goes: inside the first PCI memory window, which maps bus addresses to
/// equal physical ones.
const PVPANIC_AT: u32 = 0x1100_0000;
/// pvpanic's event for a panicked machine.
const PANICKED: u8 = 1 << 0;

fn read32(va: u64) -> u32 {
    // SAFETY: `va` is one of the bridge's registers above, 32 bits wide.
    unsafe { core::ptr::read_volatile(va as *const u32) }
}

fn write32(va: u64, value: u32) {
    // SAFETY: as for `read32`; only the PROM's single-threaded start uses them.
    unsafe { core::ptr::write_volatile(va as *mut u32, value) }
}

/// Selects one register of function 0 of a device. With MByteSwap the pair is little-endian, whatever
/// the CPU is, for all devices.
fn select(slot: u32, register: u32) {
    let command = u32::from_le(read32(PCI0_COMMAND));
    if command & MBYTE_SWAP == 0 {
        write32(PCI0_COMMAND, (command | MBYTE_SWAP).to_le());
    }
    write32(CONFIG_ADDRESS, (1 << 31 | slot << 11 | register).to_le());
}

fn read(slot: u32, register: u32) -> u32 {
    select(slot, register);
    u32::from_le(read32(CONFIG_DATA))
}

fn write(slot: u32, register: u32, value: u32) {
    select(slot, register);
    write32(CONFIG_DATA, value.to_le());
}

/// Whether configuration space answers as it should: slot 0 is the bridge itself.
pub fn is_alive() -> Result<(), u32> {
    match read(0, ID) {
        GT64120 => Ok(()),
        other => Err(other),
    }
}

/// Machine-physical address of pvpanic's register; sets the device up when first asked.
pub fn pvpanic() -> Option<u64> {
    static FOUND: AtomicU64 = AtomicU64::new(0);
    let found = FOUND.load(Ordering::Relaxed);
    if found != 0 {
        return Some(found);
    }
    let slot = (1..32).find(|&slot| read(slot, ID) == PVPANIC)?;
    write(slot, BAR0, PVPANIC_AT);
    write(slot, COMMAND, read(slot, COMMAND) & 0xffff | MEMORY);
    FOUND.store(u64::from(PVPANIC_AT), Ordering::Relaxed);
    Some(u64::from(PVPANIC_AT))
}

/// Tells the device that the machine has panicked.
pub fn panic_through(pvpanic: u64) {
    // SAFETY: `pvpanic` is the device's one-byte register; XKPHYS reaches all of physical memory.
    unsafe { core::ptr::write_volatile((XKPHYS + pvpanic) as *mut u8, PANICKED) }
}

/// Gives the NVMe device in `slot` its addresses, of registers and of its memory; what is in that slot if
/// it is something else.
pub fn place_window(slot: u32, registers: u32, memory: u32) -> Result<(), u32> {
    let id = read(slot, ID);
    if id != NVME {
        return Err(id);
    }
    for (bar, address) in [(BAR0, registers), (BAR4, memory)] {
        write(slot, bar, address);
        write(slot, bar + 4, 0);
    }
    write(slot, COMMAND, read(slot, COMMAND) & 0xffff | MEMORY);
    Ok(())
}

/// Points the bridge's second window into PCI memory at `range`, to equal bus addresses. Every CPU's boot
/// ROM sets both windows: all must have passed it.
pub fn open_windows(range: core::ops::Range<u64>) {
    let unit = |address: u64| (address >> 21) as u32;
    write32(PCI0_MEMORY1_LOW, unit(range.start).to_le());
    write32(PCI0_MEMORY1_HIGH, (unit(range.end - 1) & 0x7f).to_le());
}
