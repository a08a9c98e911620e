//! From reset to the monitor's entry.

use crate::console::say;
use crate::cpu::{KSEG0, XKPHYS};
use crate::fail::die;
use crate::{asm, cpu, fail, garbage, hub, pci, window};
use abi::codec::checksum;
use abi::hub::Serve;
use abi::ids::{MAX_CELLS, MAX_CPUS};
use abi::image::{BootBlock, ENCODED_SIZE};
use abi::layout::Layout;
use abi::prom::Handoff;
use abi::{CellId, CpuId, map};
use core::cell::UnsafeCell;
use core::fmt;
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

// SAFETY: `plan` is written by CPU 0 before `ready` is set (release) and only read after it is seen
// (acquire).
unsafe impl Sync for Go {}

static GO: Go = Go { ready: AtomicBool::new(false), plan: UnsafeCell::new(None) };

/// What does not change while the machine runs.
struct Plan {
    layout: Layout,
    block: BootBlock,
}

/// What each cell's monitor is told.
struct Handoffs([UnsafeCell<Handoff>; MAX_CELLS]);

// SAFETY: a cell's is written before its CPUs are told to enter the monitor: by CPU 0 at first, by the cell's lowest CPU
// while the others are parked later on.
unsafe impl Sync for Handoffs {}

static HANDOFFS: Handoffs = Handoffs([const { UnsafeCell::new(EMPTY) }; MAX_CELLS]);

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
    enter(plan, cpu)
}

/// Enters the monitor of a CPU's cell.
fn enter(plan: &Plan, cpu: u64) -> ! {
    let id = CpuId(cpu as u8);
    let cell = plan.layout.cell(plan.layout.node_of(id));
    let handoff = HANDOFFS.0[usize::from(cell.0)].get();
    // SAFETY: written before this CPU was told to enter.
    let Handoff { monitor_base, cell_pages, .. } = unsafe { *handoff };
    cpu::set_words(cpu as usize, hub::words(&plan.layout, id));
    cpu::map_monitor(cpu as usize, monitor_base, monitor_base + cell_pages + cpu * abi::PAGE_SIZE);
    // SAFETY: the checked image is mapped, and its entry lies in it.
    unsafe { asm::enter(plan.block.monitor_entry, cpu, handoff as u64) }
}

/// Where a parked CPU arrives that is to serve again, on its own stack: `how` is a [`Serve`].
pub extern "C" fn serve_again(cpu: u64, how: u64) -> ! {
    cpu::init(cpu as usize);
    let Some(plan) = plan() else { die!("CPU {cpu} is to serve before the machine is up") };
    let id = CpuId(cpu as u8);
    if how == Serve::First as u64 {
        let cell = plan.layout.cell(plan.layout.node_of(id));
        if let Err(error) = check(&plan.block).and_then(|()| copy(&plan.block, cell)) {
            say!("cell {cell} can't boot again: {error}");
            fail::stop(cpu)
        }
        garbage::returned(&plan.layout, cell);
        asm::sync();
        for other in plan.layout.cpus_of(cell).filter(|other| *other != id) {
            hub::words(&plan.layout, other).serve.store(Serve::Next as u64, Ordering::Release);
        }
    }
    enter(plan, cpu)
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
    hub::power_on(&layout);
    let copies = || (0..cells).try_for_each(|cell| copy(&block, CellId(cell)));
    if let Err(error) = check(&block).and_then(|()| copies()) {
        die!("{error}");
    }
    Plan { layout, block }
}

const EMPTY: Handoff = Handoff {
    cell: 0,
    incarnation: 0,
    ticks: 0,
    first_cpu: 0,
    monitor_base: 0,
    monitor_used: 0,
    cell_pages: 0,
};

/// Why a monitor can't be started.
enum Error {
    /// What the boot block says of this, a number, can't be.
    Block(&'static str, u64),
    /// The bytes of memory that the monitor needs.
    Large(u64),
    NoRoom(CellId),
    NoCpu(CellId),
    /// Memory at this address.
    Forgets(u64),
    /// What has which checksum, and should have which.
    Damaged(&'static str, [u64; 2]),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Block(what, is) => write!(f, "bad boot block: {what} {is:#x}"),
            Self::Large(used) => {
                write!(f, "the monitor needs {used} bytes of memory, of {}", map::MONITOR_MAX)
            }
            Self::NoRoom(cell) => write!(
                f,
                "no room for the monitor of cell {cell}: give each node at least 16 MB of memory"
            ),
            Self::NoCpu(cell) => write!(f, "cell {cell} has no CPU"),
            Self::Forgets(base) => {
                write!(f, "the memory at {base:#x} does not keep what is written to it")
            }
            Self::Damaged(what, [found, wanted]) => {
                write!(f, "the {what} is damaged: checksum {found:#018x}, expected {wanted:#018x}")
            }
        }
    }
}

/// Puts the monitor into a cell, and writes down what it is told.
fn copy(block: &BootBlock, cell: CellId) -> Result<(), Error> {
    let cell_pages = block.monitor_mem.next_multiple_of(abi::PAGE_SIZE);
    let used = cell_pages + u64::from(block.layout.cpus()) * abi::PAGE_SIZE;
    if used > map::MONITOR_MAX {
        return Err(Error::Large(used));
    }
    let reserve = block.layout.reserve(cell);
    if reserve.end - reserve.start < map::MONITOR_MAX {
        return Err(Error::NoRoom(cell));
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
        return Err(Error::Forgets(base));
    }
    let first = block.layout.cpus_of(cell).next().ok_or(Error::NoCpu(cell))?;
    let hub = hub::page(block.layout.node_of(first));
    let handoff = Handoff {
        cell: cell.0.into(),
        incarnation: hub.incarnation.load(Ordering::Acquire),
        ticks: hub.ticks.load(Ordering::Acquire),
        first_cpu: first.0.into(),
        monitor_base: base,
        monitor_used: used,
        cell_pages,
    };
    // SAFETY: none of the cell's CPUs is in the monitor.
    unsafe { *HANDOFFS.0[usize::from(cell.0)].get() = handoff };
    Ok(())
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
fn check(block: &BootBlock) -> Result<(), Error> {
    let in_image =
        |va: u64| va.checked_sub(map::MONITOR_VA).is_some_and(|offset| offset < block.monitor_len);
    if block.monitor_len > map::MONITOR_MAX || block.monitor_len > block.monitor_mem {
        return Err(Error::Block("the length of the monitor's image is", block.monitor_len));
    }
    if !in_image(block.monitor_entry) {
        return Err(Error::Block("the monitor's entry is", block.monitor_entry));
    }
    if block.config_len > map::CONFIG_MAX {
        return Err(Error::Block("the length of the configuration is", block.config_len));
    }
    for (what, base, len, sum) in [
        ("monitor image", map::MONITOR_BASE, block.monitor_len, block.monitor_sum),
        ("configuration", map::CONFIG_BASE, block.config_len, block.config_sum),
    ] {
        let found = checksum(low_ram(base, len));
        if found != sum {
            return Err(Error::Damaged(what, [found, sum]));
        }
    }
    Ok(())
}
