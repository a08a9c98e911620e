//! A node's memory: how much window and how much slice, from its kind and what was said of them.

use super::size;
use super::source::Item;
use super::spec::{Machine, MemoryKind};
use abi::layout::Layout;
use abi::{CellId, map};
use anyhow::Result;

/// Most of a window, where nobody said more, of a node that has a slice too.
const USUAL_WINDOW: u64 = 64 << 20;
/// Most of a slice, where nobody said more, beside a window and alone.
const USUAL_SLICE: (u64, u64) = (192 << 20, 256 << 20);
/// Least slice of a node that has nothing else: the monitor's own share and room for something.
const LONE_SLICE_MIN: u64 = 64 << 20;
/// Least heap of a cell's monitor: an engine takes 5 MB.
const HEAP_MIN: u64 = 8 << 20;

/// The largest window that each of so many nodes can have.
fn largest_window(nodes: u64) -> u64 {
    let most = map::WINDOW_MAX / nodes;
    1 << most.ilog2()
}

/// The largest slice that each of so many nodes can have.
pub fn largest_slice(nodes: u64) -> u64 {
    (map::RAM_MAX - map::LOW_RAM_SIZE) / nodes / map::SLICE_UNIT * map::SLICE_UNIT
}

/// Bytes of window and slice of each node.
///
/// # Errors
/// What was said does not go together, or no such machine can be had.
pub fn per_node(machine: &Machine) -> Result<(u64, u64)> {
    let nodes = machine.nodes.value;
    let kind = machine.memory_kind.value;
    let has_window = kind != MemoryKind::Ram;
    let has_slice = kind != MemoryKind::Removable;
    let window = given(
        &machine.window_per_node,
        "window_per_node",
        has_window.then_some(if has_slice {
            USUAL_WINDOW.min(largest_window(nodes))
        } else {
            largest_window(nodes)
        }),
        kind,
    )?;
    let usual = if has_window { USUAL_SLICE.0 } else { USUAL_SLICE.1 };
    let slice = given(
        &machine.slice_per_node,
        "slice_per_node",
        has_slice.then_some(usual.min(largest_slice(nodes))),
        kind,
    )?;
    if has_window {
        let (value, most) = (window.value, largest_window(nodes));
        if !value.is_power_of_two() || value < map::WINDOW_MIN || value > most {
            return Err(window.error(format_args!(
                "window_per_node = {}: give a power of two from {} to {}, which is the most of {nodes} node(s)",
                size::show(value),
                size::show(map::WINDOW_MIN),
                size::show(most)
            )));
        }
    }
    if has_slice {
        let (value, most) = (slice.value, largest_slice(nodes));
        let least = if has_window { map::SLICE_UNIT } else { LONE_SLICE_MIN };
        if value < least || !value.is_multiple_of(map::SLICE_UNIT) {
            return Err(slice.error(format_args!(
                "slice_per_node = {}: give a multiple of {}, at least {}",
                size::show(value),
                size::show(map::SLICE_UNIT),
                size::show(least)
            )));
        }
        if value > most {
            return Err(slice.error(format_args!(
                "slice_per_node = {}: {nodes} node(s) have at most {} each",
                size::show(value),
                size::show(most)
            )));
        }
    }
    let sum = window.value + slice.value;
    if let Some(memory) = &machine.memory_per_node
        && memory.value != sum
    {
        return Err(memory.error(format_args!(
            "memory_per_node = {} disagrees with window_per_node + slice_per_node = {}; leave it out or give their sum",
            size::show(memory.value),
            size::show(sum)
        )));
    }
    Ok((window.value, slice.value))
}

/// Each cell's monitor must find room for itself and a heap, in what it keeps of the cell's windows. (There is some where
/// nobody has said how large they are.)
///
/// # Errors
/// A cell has too little window, in a row from its lowest node on.
pub fn check_reserve(machine: &Machine, layout: &Layout) -> Result<()> {
    let kept = |cell| {
        let reserve = layout.reserve(cell);
        reserve.end - reserve.start
    };
    let short = |cell: &CellId| kept(*cell) < map::MONITOR_MAX + HEAP_MIN;
    let Some(window) = &machine.window_per_node else { return Ok(()) };
    match (0..layout.cells()).map(CellId).find(short) {
        None => Ok(()),
        Some(cell) => Err(window.error(format_args!(
            "window_per_node = {}: the monitor of cell {cell} gets {} of it, without room for a heap: set \
             window_per_node = \"{}\", or give the cell two nodes with consecutive numbers",
            size::show(window.value),
            size::show(kept(cell)),
            size::show(2 * window.value),
        ))),
    }
}

/// What was said of a part of the memory, or what it usually is; a kind of memory may have none of it.
fn given(
    said: &Option<Item<u64>>,
    key: &str,
    usual: Option<u64>,
    kind: MemoryKind,
) -> Result<Item<u64>> {
    match (said, usual) {
        (Some(item), None) if item.value != 0 => Err(item.error(format_args!(
            "{key} = {}: nodes of memory_kind = \"{}\" have none; leave it out or set memory_kind = \"mixed\"",
            size::show(item.value),
            kind.name()
        ))),
        (Some(item), _) => Ok(item.clone()),
        (None, usual) => Ok(Item::default(usual.unwrap_or(0))),
    }
}
