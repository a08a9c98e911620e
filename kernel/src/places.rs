//! What lies where: for `cells` and `nodes` at the monitor console.

use crate::{asm, cells, controller, hub, machine};
use abi::topology::{End, Topology};
use abi::{CellId, CpuId, Mpa, PAGE_SIZE, map};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{Display, Write};
use core::ops::Range;
use core::sync::atomic::Ordering;

/// What a cell's memory holds, by its machine addresses: what, and where.
pub(crate) fn of(cell: CellId) -> Vec<(String, Range<Mpa>)> {
    let layout = machine::layout();
    let reserve = layout.reserve(cell);
    // Every cell's copy is laid out as this one's.
    let at = |va: u64| reserve.start + (va - map::MONITOR_VA);
    let mut places = Vec::new();
    let mut add = |what: String, range: Range<u64>| {
        if !range.is_empty() {
            places.push((what, Mpa(range.start)..Mpa(range.end)));
        }
    };
    let (text, constants) = (asm::text(), asm::constant_range());
    let stack = |cpu: u64| {
        let size = asm::STACK_SIZE as u64;
        let start = at(&raw const asm::STACKS as u64) + cpu * size;
        start..start + size
    };
    let spare = |cpu: u64| {
        let size = asm::SPARE_SIZE as u64;
        let start = at(&raw const asm::SPARE_STACKS as u64) + cpu * size;
        start..start + size
    };
    let pages = reserve.start + machine::cell_pages();
    let heap = pages + u64::from(layout.cpus()) * PAGE_SIZE;
    add("text".into(), at(text.start)..at(text.end));
    add("constants".into(), at(text.end)..at(constants.end));
    add("data".into(), at(constants.end).next_multiple_of(PAGE_SIZE)..pages);
    for cpu in layout.cpus_of(cell) {
        let number = u64::from(cpu.0);
        add(format!("stack of CPU {cpu}"), stack(number));
        add(format!("spare stack of CPU {cpu}"), spare(number));
        let page = pages + number * PAGE_SIZE;
        add(format!("private page of CPU {cpu}"), page..page + PAGE_SIZE);
    }
    add("heap, page tables in it".into(), heap..reserve.end);
    for node in layout.nodes_of(cell) {
        // What the monitor keeps begins in the lowest node's.
        let rest = |range: Range<u64>| match reserve.contains(&range.start) {
            true => reserve.end.min(range.end)..range.end,
            false => range,
        };
        add(format!("window of node {node}"), rest(layout.window_of(node)));
        add(format!("slice of node {node}"), rest(layout.slice_of(node)));
    }
    places
}

/// The cells, in lines; with what lies where, if `all`.
pub(crate) fn cells(all: bool) -> String {
    let layout = machine::layout();
    let mut out = String::new();
    for cell in (0..layout.cells()).map(CellId) {
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "cell {cell}: {}, incarnation {}, nodes {}, CPUs {}, monitor at {}",
            if cell == machine::cell() {
                "here"
            } else if cells::is_lost(cell) {
                "lost"
            } else {
                "lives"
            },
            incarnation(cell),
            list(layout.nodes_of(cell)),
            list(layout.cpus_of(cell)),
            Mpa(layout.reserve(cell).start),
        );
        if all {
            for (what, range) in of(cell) {
                let _ = writeln!(out, "  {what:<24} {} to {}", range.start, range.end);
            }
        }
    }
    out
}

fn incarnation(cell: CellId) -> String {
    let hub = machine::first(cell).and_then(|first| hub::reach(first.node).ok());
    hub.map_or("?".into(), |hub| format!("{}", hub.incarnation.load(Ordering::Relaxed)))
}

/// The nodes, in lines.
pub(crate) fn nodes() -> String {
    let layout = machine::layout();
    let topology = Topology::new(layout.nodes);
    let mut out = String::new();
    for node in layout.node_ids() {
        let stopped = |cpu: &CpuId| hub::controller().has_stopped(cpu.0.into());
        let parked = list(layout.cpus_of_node(node).filter(stopped));
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "node {node}: {}, cell {}, router {}, CPUs {}{}, window {} MB at {}, slice {} MB at {}",
            match hub::reach(node) {
                Ok(_) => "on",
                Err(_) if hub::failed().nodes >> node.0 & 1 != 0 => "off",
                Err(_) => "unreachable",
            },
            layout.cell(node),
            topology.router_of(node),
            list(layout.cpus_of_node(node)),
            if parked.is_empty() { String::new() } else { format!(" (parked: {parked})") },
            layout.window >> 20,
            Mpa(layout.window_of(node).start),
            layout.slice >> 20,
            Mpa(layout.slice_of(node).start),
        );
    }
    for (place, (one, other)) in topology.links().enumerate() {
        let end = |end| match end {
            End::Node(node) => format!("node {node}"),
            End::Router(router) => format!("router {router}"),
        };
        let _ = writeln!(out, "link {place}: {} to {}", end(one), end(other));
    }
    for part in controller::failed_parts() {
        let _ = writeln!(out, "{part} has failed");
    }
    out
}

fn list(items: impl Iterator<Item = impl Display>) -> String {
    let items: Vec<String> = items.map(|item| format!("{item}")).collect();
    items.join(" ")
}
