//! From the PROM to a running monitor.

use crate::cp0::Status;
use crate::host::{Host, low_ram};
use crate::page::{cell_page, direct_vectors, l2};
use crate::{asm, awake, cells, clock, cpus, heap, link, logger, machine, sight, stack};
use abi::config::Config;
use abi::directory::Directory;
use abi::image::{BootBlock, ENCODED_SIZE};
use abi::prom::Handoff;
use abi::{CpuId, Mpa, map};
use alloc::vec::Vec;
use cell::memmap::{Kind, Memmap, Region};
use cell::{LocalCell, Machine, Membership};
use core::ops::Range;
use core::sync::atomic::Ordering;

/// Where this cell's records lie, for whoever looks from outside.
static DIRECTORY: Directory = Directory::new();

/// Where every CPU arrives, on its spare stack: takes its traps over, and maps its stack. Returns the
/// stack's top.
pub(crate) extern "C" fn prepare(cpu: u64, handoff: &'static Handoff) -> u64 {
    let page = cell_page();
    let stack = stack::map(cpu, Mpa(handoff.monitor_base));
    page.stack_low.store(stack.start, Ordering::Relaxed);
    page.stack_high.store(stack.end, Ordering::Relaxed);
    let spare = (&raw const asm::SPARE_STACKS as u64) + (cpu + 1) * asm::SPARE_SIZE as u64;
    page.spare_stack.store(spare, Ordering::Relaxed);
    page.cpu.store(cpu, Ordering::Relaxed);
    // Less than a round later.
    let passed = (asm::count() as u32).wrapping_sub(handoff.ticks as u32);
    page.count.store(handoff.ticks + u64::from(passed), Ordering::Relaxed);
    page.fetch_lost.store(asm::fetch_lost_address(), Ordering::Relaxed);
    page.no_l2.store(l2(), Ordering::Relaxed);
    // SAFETY: trap entry keeps the PROM's contract, and what it needs of this page is in place.
    unsafe { direct_vectors(asm::trap_entry_address()) };
    clock::arm(u64::MAX / 8);
    stack.end
}

/// Where every CPU goes on, on its own stack.
pub(crate) extern "C" fn main(cpu: u64, handoff: &'static Handoff) -> ! {
    let status = Status::KX | Status::IM7 | Status::IE;
    // SAFETY: kernel mode, 64-bit, no bootstrap vectors, no coprocessor for anybody else.
    unsafe { asm::set_status(status.bits()) };
    awake::join();
    let first = cpu == handoff.first_cpu;
    if first {
        primary(handoff);
    }
    cpus::serve(CpuId(cpu as u8), first)
}

/// The cell's lowest CPU: sets up what all of its CPUs share.
fn primary(handoff: &'static Handoff) {
    // The PROM has decoded the same block.
    let block = BootBlock::decode(low_ram(map::BOOT_BLOCK, ENCODED_SIZE as u64))
        .unwrap_or_else(|error| panic!("bad boot block: expected {error}"));
    machine::remember(block.layout, handoff);
    let reserve = block.layout.reserve(machine::cell());
    let heap = handoff.monitor_base + handoff.monitor_used..reserve.end;
    // SAFETY: the first call; this memory is the cell's, and the frame allocator leaves it alone.
    unsafe { heap::init(Mpa(heap.start), heap.end - heap.start) };
    logger::init(cells::leads());
    let config = Config::decode(low_ram(map::CONFIG_BASE, block.config_len))
        .unwrap_or_else(|error| panic!("bad configuration: expected {error}"));
    link::init(machine::cell(), config.machine.icount);
    awake::init(config.machine.icount);
    if let Err(error) = machine::discover(reserve.clone()) {
        panic!("{error}");
    }
    log::info!(
        "cell {} of {}, CPU {} of {}, processor {:#x}, {} MB of memory, heap {} KB",
        machine::cell(),
        block.layout.cells(),
        handoff.first_cpu,
        block.layout.cpus(),
        asm::prid(),
        block.layout.memory_of(machine::cell()) >> 20,
        heap::usage().1 >> 10,
    );
    open(&config, reserve);
}

/// The cell's memory, and what the monitor keeps of it. Slices come first: what guests get of a node is
/// there as long as it lasts.
fn memmap(reserve: Range<u64>) -> Memmap {
    let layout = machine::layout();
    let region = |node, kind, range: Range<u64>| Region {
        node,
        kind,
        range: Mpa(range.start)..Mpa(range.end),
    };
    let regions: Vec<Region> = layout
        .nodes_of(machine::cell())
        .flat_map(|node| {
            let slice = region(node, Kind::Slice, layout.slice_of(node));
            [slice, region(node, Kind::Window, layout.window_of(node))]
        })
        .filter(|region| !region.range.is_empty())
        .collect();
    let mut map = Memmap::new(&regions, &[Mpa(reserve.start)..Mpa(reserve.end)])
        .unwrap_or_else(|_| panic!("the heap has no room for the record of the machine's pages"));
    map.publish(&DIRECTORY);
    map
}

/// How often a cell that is back asks the others to let it in, in nanoseconds.
const ASK_NS: u64 = 200_000;

/// A cell that was lost waits until the others have let it in; nothing is waited for at the machine's start.
fn back(host: &mut Host, config: &Config) -> Option<Membership> {
    let incarnation = machine::incarnation();
    if incarnation == 1 {
        return None;
    }
    log::info!("back for the {incarnation}th time: waiting for the other cells");
    let mut members = Membership::back(machine::cell(), config, incarnation, clock::now());
    loop {
        let sight = sight::look();
        if let Some(live) = members.be_let_in(clock::now(), &sight, host.wires()) {
            cells::let_in(&live);
            return Some(members);
        }
        clock::sleep_until(clock::now() + ASK_NS);
    }
}

/// Makes the cell, starts its VMs, and opens it to its CPUs.
fn open(config: &Config, reserve: Range<u64>) {
    let memmap = memmap(reserve);
    let (here, layout) = (machine::cell(), machine::layout());
    let cpus: Vec<_> = layout.cpus_of(here).map(|cpu| (cpu, layout.node_of(cpu))).collect();
    let mut host = Host::new(config);
    let members = back(&mut host, config).unwrap_or_else(|| Membership::at_start(here, config));
    let mut cell = LocalCell::new(host, here, &cpus, config, memmap, members);
    cell.publish_registry(&DIRECTORY);
    log::info!("up");
    logger::boot_is_over();
    cell.boot();
    // Under icount nothing comes from outside the machine.
    cpus::open(cell, config.machine.icount && config.cells.len() == 1);
}
