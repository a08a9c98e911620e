//! From reset to the monitor's entry.

use crate::console::say;
use crate::cpu::{KSEG0, XKPHYS};
use crate::fail::die;
use crate::{asm, cpu, pci};
use abi::codec::checksum;
use abi::ids::MAX_CPUS;
use abi::image::{BootBlock, ENCODED_SIZE};
use abi::map;
use abi::prom::Handoff;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

/// How long a CPU may take to check in, in ticks of Count (some seconds at 160 MHz, and less than
/// the 13 after which a 32-bit difference changes its sign).
const PATIENCE: u32 = 1 << 30;

/// Alignment and size of the cell memory that the monitor's TLB entry maps.
const MONITOR_PAIR: u64 = 8 << 20;

/// Which CPUs have passed their boot ROM.
static HERE: [AtomicBool; MAX_CPUS] = [const { AtomicBool::new(false) }; MAX_CPUS];

/// What CPU 0 publishes once the monitor is in place.
struct Go {
    ready: AtomicBool,
    plan: UnsafeCell<Plan>,
}

/// Where the monitor is.
#[derive(Clone, Copy)]
struct Plan {
    handoff: Handoff,
    entry: u64,
    /// Machine-physical address of CPU 0's private cell page; the others' follow.
    cell_pages: u64,
}

// SAFETY: `plan` is written by CPU 0 before `ready` is set (release) and only read after it is seen
// (acquire).
unsafe impl Sync for Go {}

static GO: Go = Go {
    ready: AtomicBool::new(false),
    plan: UnsafeCell::new(Plan {
        handoff: Handoff { pvpanic: 0, monitor_base: 0, monitor_used: 0, cpus: 0 },
        entry: 0,
        cell_pages: 0,
    }),
};

/// Where every CPU arrives, on its own stack.
#[unsafe(no_mangle)]
extern "C" fn prom_main(cpu: u64) -> ! {
    let index = cpu as usize;
    cpu::init(index);
    HERE[index].store(true, Ordering::Release);
    if index == 0 {
        let plan = prepare();
        // SAFETY: nobody reads before `ready` is set, and only CPU 0 writes.
        unsafe { *GO.plan.get() = plan };
        asm::sync();
        GO.ready.store(true, Ordering::Release);
    } else {
        while !GO.ready.load(Ordering::Acquire) {
            core::hint::spin_loop();
        }
    }
    // SAFETY: written for good before `ready` was set.
    let plan = unsafe { &*GO.plan.get() };
    cpu::map_monitor(index, plan.handoff.monitor_base, plan.cell_pages + cpu * abi::PAGE_SIZE);
    // SAFETY: the checked image is mapped, and its entry lies in it.
    unsafe { asm::enter(plan.entry, cpu, &raw const plan.handoff as u64) }
}

/// Bytes of low RAM, through KSEG0.
fn low_ram(base: u64, len: u64) -> &'static [u8] {
    // SAFETY: callers name ranges inside low RAM that the host wrote before the machine started and
    // that nobody changes.
    unsafe { core::slice::from_raw_parts((KSEG0 + base) as *const u8, len as usize) }
}

/// CPU 0's part: checks everything, and puts the monitor into its cell.
fn prepare() -> Plan {
    let block = match BootBlock::decode(low_ram(map::BOOT_BLOCK, ENCODED_SIZE as u64)) {
        Ok(block) => block,
        Err(error) => die!("bad boot block at {:#x}: expected {error}", map::BOOT_BLOCK),
    };
    let order = if cfg!(target_endian = "big") { "big" } else { "little" };
    say!("Honeycomb, {order}-endian, {} CPUs, {} nodes", block.cpus, block.nodes);
    gather(&block);
    if let Err(id) = pci::is_alive() {
        die!("PCI configuration space does not answer: slot 0 reads {id:#010x}");
    }
    check(&block);

    let base = map::SLICE_BASE.next_multiple_of(MONITOR_PAIR);
    let cell_pages = block.monitor_mem.next_multiple_of(abi::PAGE_SIZE);
    let used = cell_pages + u64::from(block.cpus) * abi::PAGE_SIZE;
    if used > map::MONITOR_MAX {
        die!("the monitor needs {used} bytes of memory, of {}", map::MONITOR_MAX);
    }
    let room = map::SLICE_BASE + u64::from(block.nodes) * block.slice_per_node;
    if base + MONITOR_PAIR > room {
        die!("no room for the monitor: give each node at least 16 MB of memory");
    }
    let image = low_ram(map::MONITOR_BASE, block.monitor_len);
    let copy = (XKPHYS + base) as *mut u8;
    // SAFETY: the cell's first 8 MB, which nothing uses yet, and which do not overlap low RAM.
    unsafe {
        core::ptr::copy_nonoverlapping(image.as_ptr(), copy, image.len());
        core::ptr::write_bytes(copy.add(image.len()), 0, used as usize - image.len());
    }
    // SAFETY: just written.
    let written = unsafe { core::slice::from_raw_parts(copy, image.len()) };
    if checksum(written) != block.monitor_sum {
        die!("the memory at {base:#x} does not keep what is written to it");
    }
    Plan {
        handoff: Handoff {
            pvpanic: pci::pvpanic().unwrap_or(0),
            monitor_base: base,
            monitor_used: used,
            cpus: u64::from(block.cpus),
        },
        entry: block.monitor_entry,
        cell_pages: base + cell_pages,
    }
}

/// Waits until every CPU has passed its boot ROM.
fn gather(block: &BootBlock) {
    if block.cpus == 0 || block.cpus as usize > MAX_CPUS {
        die!("the boot block names {} CPUs; this PROM serves 1 to {MAX_CPUS}", block.cpus);
    }
    let start = asm::count() as u32;
    for (cpu, here) in HERE.iter().enumerate().take(block.cpus as usize) {
        while !here.load(Ordering::Acquire) {
            if (asm::count() as u32).wrapping_sub(start) > PATIENCE {
                die!("CPU {cpu} of {} has not started: does -smp agree?", block.cpus);
            }
        }
    }
}

/// Checks lengths and checksums of what the boot block describes.
fn check(block: &BootBlock) {
    let in_image =
        |va: u64| va.checked_sub(map::MONITOR_VA).is_some_and(|offset| offset < block.monitor_len);
    if block.monitor_len > map::MONITOR_MAX || block.monitor_len > block.monitor_mem {
        die!("bad boot block: a monitor image of {} bytes", block.monitor_len);
    }
    if !in_image(block.monitor_entry) {
        die!("bad boot block: the monitor's entry {:#x}", block.monitor_entry);
    }
    if block.config_len > map::CONFIG_MAX {
        die!("bad boot block: a configuration of {} bytes", block.config_len);
    }
    for (what, base, len, sum) in [
        ("monitor image", map::MONITOR_BASE, block.monitor_len, block.monitor_sum),
        ("configuration", map::CONFIG_BASE, block.config_len, block.config_sum),
    ] {
        let found = checksum(low_ram(base, len));
        if found != sum {
            die!("the {what} is damaged: checksum {found:#018x}, expected {sum:#018x}");
        }
    }
}
