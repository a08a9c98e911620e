//! The machine as a whole: what it consists of, this cell's place in it, and its two ends.

use crate::careful::{self, xkphys};
use crate::page;
use abi::hub::Why;
use abi::ids::{MAX_CELLS, MAX_CPUS};
use abi::layout::Layout;
use abi::prom::Handoff;
use abi::{CellId, CpuId, Mpa, NodeId, map};
use cell::talk::CellSet;
use core::ops::Range;
use spin::Once;

/// A cell's lowest node and CPU: they stand for it where another cell wants something of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct First {
    /// Its mailbox is there, and its hub says how the cell's run goes.
    pub(crate) node: NodeId,
    /// It is rung for.
    pub(crate) cpu: CpuId,
}

/// What the cell's lowest CPU remembers for all of its CPUs.
struct Place {
    layout: Layout,
    cell: CellId,
    incarnation: u16,
    cell_pages: u64,
    /// The cells of the layout but this one.
    others: CellSet,
    /// Of each cell of the layout.
    firsts: [Option<First>; MAX_CELLS],
    /// The cell of each CPU, as a set.
    cells_of: [CellSet; MAX_CPUS],
}

static PLACE: Once<Place> = Once::new();

/// Remembers what machine this is, and which cell.
pub(crate) fn remember(layout: Layout, handoff: &Handoff) {
    let cell = CellId(handoff.cell as u8);
    let first = |cell| {
        let (node, cpu) = layout.nodes_of(cell).next().zip(layout.cpus_of(cell).next())?;
        Some(First { node, cpu })
    };
    PLACE.call_once(|| Place {
        layout,
        cell,
        incarnation: handoff.incarnation as u16,
        cell_pages: handoff.cell_pages,
        others: CellSet::first(layout.cells().into()).without(cell),
        firsts: core::array::from_fn(|cell| first(CellId(cell as u8))),
        cells_of: core::array::from_fn(|cpu| match cpu < layout.cpus() as usize {
            true => CellSet::one(layout.cell(layout.node_of(CpuId(cpu as u8)))),
            false => CellSet::NONE,
        }),
    });
}

/// How often this cell has booted, this time included.
pub(crate) fn incarnation() -> u16 {
    place().incarnation
}

fn place() -> &'static Place {
    PLACE.get().expect("the machine is remembered before anybody asks")
}

/// What the machine consists of.
pub(crate) fn layout() -> &'static Layout {
    &place().layout
}

/// This cell.
pub(crate) fn cell() -> CellId {
    place().cell
}

/// The machine's cells but this one, those that are lost too.
pub(crate) fn others() -> CellSet {
    place().others
}

/// A cell's lowest node and CPU; none if the machine has no such cell.
pub(crate) fn first(cell: CellId) -> Option<First> {
    *place().firsts.get(usize::from(cell.0))?
}

/// The cells of CPUs, a bit each; bits of no CPU are nobody's.
pub(crate) fn cells_of(cpus: u64) -> CellSet {
    let cells_of = &place().cells_of;
    let (mut cells, mut left) = (CellSet::NONE, cpus);
    while left != 0 {
        if let Some(cell) = cells_of.get(left.trailing_zeros() as usize) {
            cells = CellSet(cells.0 | cell.0);
        }
        left &= left - 1;
    }
    cells
}

/// Offset in a cell's copy of the monitor of the CPUs' private pages.
pub(crate) fn cell_pages() -> u64 {
    place().cell_pages
}

/// This CPU.
pub(crate) fn this_cpu() -> CpuId {
    CpuId(page::cpu() as u8)
}

/// Ends the machine well: QEMU's exit status 0.
pub(crate) fn power_off() -> ! {
    let softres = xkphys(Mpa(map::SOFTRES)) as *mut u32;
    // SAFETY: the board's reset register; the value ends the machine.
    unsafe { softres.write_volatile(map::POWER_OFF) };
    crate::asm::interrupts_off();
    loop {
        core::hint::spin_loop();
    }
}

/// This monitor has failed: its CPUs park, or the machine ends with QEMU's exit status 1 if there is no other
/// cell.
pub(crate) fn fail() -> ! {
    page::give_up(Why::Panic)
}

/// Memory that does not agree with the boot block.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mismatch {
    /// Nothing answers, or not as RAM does.
    Missing(Mpa),
    /// RAM goes on where it should end.
    Excess(Mpa),
}

impl core::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Missing(mpa) => {
                write!(f, "no RAM answers at {mpa}: is the machine's -m smaller than configured?")
            }
            Self::Excess(mpa) => {
                write!(f, "RAM answers at {mpa}: is the machine's -m larger than configured?")
            }
        }
    }
}

/// Probes the memory that the boot block says is this cell's: the last word of every 16 MB must keep what is
/// written to it. Nothing may answer after the machine's last RAM. `in_use` is left alone.
pub(crate) fn discover(in_use: Range<u64>) -> Result<(), Mismatch> {
    const STEP: u64 = 16 << 20;
    const PATTERN: u64 = 0x5aa5_0ff0_1234_8765;
    let layout = layout();
    for node in layout.nodes_of(cell()) {
        for range in [layout.slice_of(node), layout.window_of(node)] {
            let inner = (1..).map(|step| range.start + step * STEP);
            for at in inner.take_while(|at| *at < range.end).chain([range.end]) {
                let mpa = Mpa(at - 8);
                if range.is_empty() || in_use.contains(&mpa.0) {
                    continue;
                }
                let keeps = |value| {
                    // SAFETY: memory of this cell that is not in use, and not yet given to anybody.
                    unsafe { careful::store64(mpa, value) }.is_ok()
                        && careful::load64(mpa) == Ok(value)
                };
                if !(keeps(PATTERN) && keeps(!PATTERN) && keeps(0)) {
                    return Err(Mismatch::Missing(mpa));
                }
            }
        }
    }
    let end = Mpa(map::RAM_BASE + layout.ram_size());
    match careful::load64(end) {
        Ok(_) => Err(Mismatch::Excess(end)),
        Err(_) => Ok(()),
    }
}
