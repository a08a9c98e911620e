//! From the PROM to a running monitor.

use crate::cp0::Status;
use crate::host::{Host, low_ram};
use crate::page::{cell_page, direct_vectors, l2};
use crate::{asm, clock, heap, link, logger, machine, stack};
use abi::config::Config;
use abi::image::{BootBlock, ENCODED_SIZE};
use abi::prom::Handoff;
use abi::{CellId, CpuId, Mpa, NodeId, map, script};
use alloc::vec::Vec;
use cell::memmap::{Kind, Memmap, Region};
use cell::vm::Vcpu;
use cell::{LocalCell, Next};
use core::ops::Range;
use core::sync::atomic::Ordering;

/// How often an idle monitor looks for input from the host, in nanoseconds.
const INPUT_POLL_NS: u64 = 1_000_000;

/// The CPU that runs the cell.
const CPU: CpuId = CpuId(0);

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
    // Less than a round after power-on: what Count shows is the time.
    page.count.store(asm::count() & 0xffff_ffff, Ordering::Relaxed);
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
    if cpu == 0 { primary(handoff) } else { secondary() }
}

/// A CPU without work: it only keeps its clock.
fn secondary() -> ! {
    loop {
        clock::sleep_until(u64::MAX / 8);
    }
}

/// CPU 0: sets up what all share, and runs the cell.
fn primary(handoff: &'static Handoff) -> ! {
    machine::remember(handoff);
    // The PROM has decoded the same block.
    let block = BootBlock::decode(low_ram(map::BOOT_BLOCK, ENCODED_SIZE as u64))
        .unwrap_or_else(|error| panic!("bad boot block: expected {error}"));
    let reserve = handoff.monitor_base..handoff.monitor_base + map::CELL_RESERVE;
    let heap = handoff.monitor_base + handoff.monitor_used..reserve.end;
    // SAFETY: the first call; this memory is the cell's, and the frame allocator leaves it alone.
    unsafe { heap::init(Mpa(heap.start), heap.end - heap.start) };
    logger::init();
    let config = Config::decode(low_ram(map::CONFIG_BASE, block.config_len))
        .unwrap_or_else(|error| panic!("bad configuration: expected {error}"));
    link::init(0, config.machine.icount);
    if let Err(error) = machine::discover(&block, reserve.clone()) {
        panic!("{error}");
    }
    log::info!(
        "CPU 0 of {}, processor {:#x}, {} MB of RAM, heap {} KB",
        handoff.cpus,
        asm::prid(),
        block.ram_size >> 20,
        heap::usage().1 >> 10,
    );
    run(&block, &config, reserve)
}

/// The cell's memory, and what the monitor keeps of it.
fn memmap(block: &BootBlock, reserve: Range<u64>) -> Memmap {
    let regions: Vec<Region> = (0..block.nodes)
        .map(|node| {
            let start = map::SLICE_BASE + u64::from(node) * block.slice_per_node;
            let range = Mpa(start)..Mpa(start + block.slice_per_node);
            Region { node: NodeId(node as u8), kind: Kind::Slice, range }
        })
        .collect();
    Memmap::new(&regions, &[Mpa(reserve.start)..Mpa(reserve.end)])
        .unwrap_or_else(|_| panic!("the heap has no room for the record of the machine's pages"))
}

/// Runs the cell until it is over.
fn run(block: &BootBlock, config: &Config, reserve: Range<u64>) -> ! {
    let script = (config.script_len != 0).then(|| {
        script::decode(low_ram(map::SCRIPT_BASE, config.script_len))
            .unwrap_or_else(|error| panic!("bad script: expected {error}"))
    });
    let memmap = memmap(block, reserve);
    let mut cell =
        LocalCell::new(Host::new(config), CellId(0), &[(CPU, NodeId(0))], config, memmap, script);
    log::info!("up");
    logger::boot_is_over();
    cell.boot();
    // Under icount nothing comes from outside, so that only time needs to be waited for.
    let nap = if config.machine.icount { clock::LONGEST_NS } else { INPUT_POLL_NS };
    loop {
        link::poll_input(|stream, bytes| cell.input(stream, bytes));
        match cell.step(CPU) {
            Next::Run(mut turn) => {
                let from = clock::now();
                let exit = turn.vcpu.run(turn.until);
                cell.done(CPU, turn, from, clock::now(), exit);
            }
            Next::Wait(until) => {
                let poll = clock::now() + nap;
                clock::sleep_until(until.map_or(poll, |until| until.min(poll)));
            }
            Next::Over(_) => machine::power_off(),
        }
    }
}
