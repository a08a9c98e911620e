//! From reset to the monitor's entry.

use crate::console::say;
use crate::cpu::{KSEG0, XKPHYS};
use crate::fail::die;
use crate::{asm, cpu, hub, pci, window};
use abi::codec::checksum;
use abi::ids::{MAX_CELLS, MAX_CPUS};
use abi::image::{BootBlock, ENCODED_SIZE};
use abi::layout::Layout;
use abi::prom::Handoff;
use abi::{CellId, CpuId, map};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

/// How long a CPU may take to check in, in ticks of Count (some seconds at 160 MHz, and less than
/// the 13 after which a 32-bit difference changes its sign).
const PATIENCE: u32 = 1 << 30;

/// Which CPUs have passed their boot ROM.
static HERE: [AtomicBool; MAX_CPUS] = [const { AtomicBool::new(false) }; MAX_CPUS];

/// What CPU 0 publishes once the monitors are in place.
struct Go {
    ready: AtomicBool,
    plan: UnsafeCell<Option<Plan>>,
}

/// Where the monitors are.
struct Plan {
    layout: Layout,
    entry: u64,
    cells: [Handoff; MAX_CELLS],
}

// SAFETY: `plan` is written by CPU 0 before `ready` is set (release) and only read after it is seen
// (acquire).
unsafe impl Sync for Go {}

static GO: Go = Go { ready: AtomicBool::new(false), plan: UnsafeCell::new(None) };

/// The plan, once there is one.
fn plan() -> Option<&'static Plan> {
    if !GO.ready.load(Ordering::Acquire) {
        return None;
    }
    // SAFETY: written for good before `ready` was set.
    unsafe { (*GO.plan.get()).as_ref() }
}

/// What the machine consists of, once that is known.
pub fn layout() -> Option<&'static Layout> {
    plan().map(|plan| &plan.layout)
}

/// Where every CPU arrives, on its own stack.
#[unsafe(no_mangle)]
extern "C" fn prom_main(cpu: u64) -> ! {
    let index = cpu as usize;
    cpu::init(index);
    HERE[index].store(true, Ordering::Release);
    if index == 0 {
        let plan = prepare();
        // SAFETY: nobody reads before `ready` is set, and only CPU 0 writes.
        unsafe { *GO.plan.get() = Some(plan) };
        asm::sync();
        GO.ready.store(true, Ordering::Release);
    }
    let plan = loop {
        match plan() {
            Some(plan) => break plan,
            None => core::hint::spin_loop(),
        }
    };
    let id = CpuId(cpu as u8);
    let cell = plan.layout.cell(plan.layout.node_of(id));
    let handoff = &plan.cells[usize::from(cell.0)];
    cpu::set_words(index, hub::words(&plan.layout, id));
    let private = handoff.monitor_base + handoff.cell_pages + cpu * abi::PAGE_SIZE;
    cpu::map_monitor(index, handoff.monitor_base, private);
    // SAFETY: the checked image is mapped, and its entry lies in it.
    unsafe { asm::enter(plan.entry, cpu, handoff as *const Handoff as u64) }
}

/// Bytes of low RAM, through KSEG0.
fn low_ram(base: u64, len: u64) -> &'static [u8] {
    // SAFETY: callers name ranges inside low RAM that the host wrote before the machine started and
    // that nobody changes.
    unsafe { core::slice::from_raw_parts((KSEG0 + base) as *const u8, len as usize) }
}

/// CPU 0's part: checks everything, and puts the monitor into each cell.
fn prepare() -> Plan {
    let block = match BootBlock::decode(low_ram(map::BOOT_BLOCK, ENCODED_SIZE as u64)) {
        Ok(block) => block,
        Err(error) => die!("bad boot block at {:#x}: expected {error}", map::BOOT_BLOCK),
    };
    let layout = block.layout;
    let order = if cfg!(target_endian = "big") { "big" } else { "little" };
    let (cpus, cells) = (layout.cpus(), layout.cells());
    say!("Honeycomb, {order}-endian, {cpus} CPUs, {} nodes, {cells} cells", layout.nodes);
    gather(cpus);
    if let Err(id) = pci::is_alive() {
        die!("PCI configuration space does not answer: slot 0 reads {id:#010x}");
    }
    // For whoever fails from now on: configuration space is for the PROM's start alone.
    pci::pvpanic();
    window::set_up(&layout);
    check(&block);
    hub::power_on(&layout);
    let mut handoffs = [EMPTY; MAX_CELLS];
    for cell in (0..cells).map(CellId) {
        handoffs[usize::from(cell.0)] = copy(&block, cell);
    }
    Plan { layout, entry: block.monitor_entry, cells: handoffs }
}

const EMPTY: Handoff = Handoff {
    cell: 0,
    incarnation: 0,
    first_cpu: 0,
    monitor_base: 0,
    monitor_used: 0,
    cell_pages: 0,
};

/// Puts the monitor into a cell.
fn copy(block: &BootBlock, cell: CellId) -> Handoff {
    let cell_pages = block.monitor_mem.next_multiple_of(abi::PAGE_SIZE);
    let used = cell_pages + u64::from(block.layout.cpus()) * abi::PAGE_SIZE;
    if used > map::MONITOR_MAX {
        die!("the monitor needs {used} bytes of memory, of {}", map::MONITOR_MAX);
    }
    let reserve = block.layout.reserve(cell);
    if reserve.end - reserve.start < map::MONITOR_MAX {
        die!("no room for the monitor of cell {cell}: give each node at least 16 MB of memory");
    }
    let base = reserve.start;
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
    let Some(first) = block.layout.cpus_of(cell).next() else { die!("cell {cell} has no CPU") };
    Handoff {
        cell: cell.0.into(),
        incarnation: 1,
        first_cpu: first.0.into(),
        monitor_base: base,
        monitor_used: used,
        cell_pages,
    }
}

/// Waits until every CPU has passed its boot ROM.
fn gather(cpus: u32) {
    let start = asm::count() as u32;
    for (cpu, here) in HERE.iter().enumerate().take(cpus as usize) {
        while !here.load(Ordering::Acquire) {
            if (asm::count() as u32).wrapping_sub(start) > PATIENCE {
                die!("CPU {cpu} of {cpus} has not started: does -smp agree?");
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
