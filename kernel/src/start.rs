//! From the PROM to a running monitor.

use crate::careful::xkphys;
use crate::cp0::Status;
use crate::page::{cell_page, direct_vectors};
use crate::uart::say;
use crate::{asm, clock, heap, link, logger, machine};
use abi::config::Config;
use abi::event::Kind;
use abi::image::{BootBlock, ENCODED_SIZE};
use abi::prom::Handoff;
use abi::{Mpa, map};
use core::sync::atomic::Ordering;

/// Bytes of heap beyond what is left of the monitor's own 8 MB.
const HEAP_EXTRA: u64 = 24 << 20;
/// The memory that the PROM maps for the monitor.
const MONITOR_PAIR: u64 = 8 << 20;

/// Where every CPU arrives, on its own stack.
pub(crate) extern "C" fn enter(cpu: u64, handoff: &'static Handoff) -> ! {
    let page = cell_page();
    let top = (&raw const asm::STACKS as u64) + (cpu + 1) * asm::STACK_SIZE as u64;
    page.stack_low.store(top - asm::STACK_SIZE as u64 + 1024, Ordering::Relaxed);
    page.stack_high.store(top, Ordering::Relaxed);
    let spare = (&raw const asm::SPARE_STACKS as u64) + (cpu + 1) * asm::SPARE_SIZE as u64;
    page.spare_stack.store(spare, Ordering::Relaxed);
    page.cpu.store(cpu, Ordering::Relaxed);
    // Less than a round after power-on: what Count shows is the time.
    page.count.store(asm::count() & 0xffff_ffff, Ordering::Relaxed);
    // SAFETY: trap entry keeps the PROM's contract, and what it needs of this page is in place.
    unsafe { direct_vectors(asm::trap_entry_address()) };
    clock::arm(u64::MAX / 8);
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

/// Bytes of low RAM that the host wrote before the machine started.
fn low_ram(base: u64, len: u64) -> &'static [u8] {
    assert!(base + len <= map::LOW_RAM_SIZE, "a range of low RAM");
    // SAFETY: inside low RAM, and nobody writes there while the machine runs.
    unsafe {
        core::slice::from_raw_parts(xkphys(Mpa(map::RAM_BASE + base)) as *const u8, len as usize)
    }
}

/// CPU 0: sets up what all share, and runs the cell.
fn primary(handoff: &'static Handoff) -> ! {
    machine::remember(handoff);
    // The PROM has decoded the same block.
    let block = BootBlock::decode(low_ram(map::BOOT_BLOCK, ENCODED_SIZE as u64))
        .unwrap_or_else(|error| panic!("bad boot block: expected {error}"));
    let heap = handoff.monitor_base + handoff.monitor_used
        ..handoff.monitor_base + MONITOR_PAIR + HEAP_EXTRA;
    // SAFETY: the first call; this memory is the cell's, and the frame allocator starts after it.
    unsafe { heap::init(Mpa(heap.start), heap.end - heap.start) };
    logger::init();
    let config = Config::decode(low_ram(map::CONFIG_BASE, block.config_len))
        .unwrap_or_else(|error| panic!("bad configuration: expected {error}"));
    link::init(0, config.machine.icount);
    if let Err(error) = machine::discover(&block, handoff.monitor_base..heap.end) {
        panic!("{error}");
    }
    log::info!(
        "CPU 0 of {}, processor {:#x}, {} MB of RAM, heap {} KB",
        handoff.cpus,
        asm::prid(),
        block.ram_size >> 20,
        heap::usage().1 >> 10,
    );
    link::event(Kind::MonitorUp);
    logger::boot_is_over();
    say!("monitor: up");
    clock::sleep_until(clock::now() + 5_000_000);
    machine::power_off()
}
