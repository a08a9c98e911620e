//! The nodes' removable windows: each the persistent-memory region of an NVMe device, which its switch
//! (PMRCTL.EN) makes vanish and come back, contents and all.

use crate::cpu::XKPHYS;
use crate::fail::die;
use crate::{asm, pci};
use abi::layout::Layout;
use abi::{NodeId, map};
use core::ptr::{read_volatile, write_volatile};

/// What the self-test leaves in a window while it is off.
const PATTERN: u64 = 0x5aa5_0ff0_1234_8765;

/// Gives every window its address, and tries its switch.
pub fn set_up(layout: &Layout) {
    if layout.window == 0 {
        return;
    }
    for node in layout.node_ids() {
        let window = layout.window_of(node).start;
        if let Err(found) =
            pci::place_window(slot(node), map::window_registers(node) as u32, window as u32)
        {
            die!("node {node} has no window: PCI slot {} reads {found:#010x}", slot(node));
        }
    }
    pci::open_windows(map::WINDOW_BASE..map::WINDOW_BASE + map::WINDOW_MAX);
    for node in layout.node_ids() {
        switch(node, true);
    }
    for node in layout.node_ids() {
        try_out(layout, node);
    }
    let end = XKPHYS + map::WINDOW_BASE + u64::from(layout.nodes) * layout.window;
    // SAFETY: past the last window: a load finds nothing, or memory.
    if end < XKPHYS + map::WINDOW_BASE + map::WINDOW_MAX && unsafe { asm::answers(end) } {
        die!("memory answers past the last window: are the windows larger than configured?");
    }
}

const fn slot(node: NodeId) -> u32 {
    map::WINDOW_SLOT + node.0 as u32
}

fn switch(node: NodeId, on: bool) {
    let register = (XKPHYS + map::window_registers(node) + map::WINDOW_SWITCH) as *mut u32;
    // SAFETY: the device's register, where `place_window` has put it.
    unsafe { write_volatile(register, u32::from(on).to_le()) };
    asm::sync();
}

/// A window must keep what is written to it, vanish when it is switched off (alone: its neighbours stay),
/// and come back as it was.
fn try_out(layout: &Layout, node: NodeId) {
    let word = |node: NodeId| (XKPHYS + layout.window_of(node).end - 8) as *mut u64;
    let neighbour = NodeId((node.0 + 1) % layout.nodes as u8);
    // SAFETY: the last words of windows, which nothing uses yet. While a window is off, only `answers`
    // touches it.
    let (off, other, kept) = unsafe {
        write_volatile(word(node), PATTERN);
        switch(node, false);
        let off = asm::answers(word(node) as u64);
        let other = neighbour == node || asm::answers(word(neighbour) as u64);
        switch(node, true);
        let kept = asm::answers(word(node) as u64) && read_volatile(word(node)) == PATTERN;
        if kept {
            write_volatile(word(node), 0);
        }
        (off, other, kept)
    };
    if off {
        die!("node {node}: its window answers although it is switched off");
    }
    if !other {
        die!("node {node}: switching its window off takes that of node {neighbour} away too");
    }
    if !kept {
        die!("node {node}: its window does not keep what is written to it");
    }
}
