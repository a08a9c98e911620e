//! Where things lie in the machine's physical memory.
//!
//! The first 256 MB of RAM ("low RAM") belong to no node: they model what on an Origin is flash,
//! hub registers and the system controller. Low RAM appears at physical 0 and at [`RAM_BASE`]; the
//! PROM runs from the former through KSEG0. The offset into the machine's RAM file on the host is
//! the low physical address itself.
//!
//! | low physical | size | what |
//! |---|---|---|
//! | 0 | 1 MB | left to QEMU's firmware tables |
//! | [`PROM_BASE`] | 1 MB | PROM: text, exception vectors, per-CPU PROM areas |
//! | [`HUB_BASE`] | 512 KB | hub pages, [`HUB_SIZE`] a node: [`crate::hub::Hub`] |
//! | [`CONTROLLER`] | 4 KB | the system controller's page: [`crate::hub::Controller`] |
//! | [`BOOT_BLOCK`] | 4 KB | [`crate::image::BootBlock`]: where everything else is |
//! | [`CONFIG_BASE`] | 1 MB − 4 KB | packed configuration |
//! | [`MONITOR_BASE`] | 8 MB | the pristine monitor image |
//! | [`SCRIPT_BASE`] | 4 MB | compiled script |
//! | [`RING_BASE`] | 64 MB | rings, [`RING_SIZE`] a cell |
//! | [`IMAGES_BASE`] | to 256 MB | guests' kernels and initial RAM disks |

use crate::ids::{CellId, NodeId};

/// Canonical machine-physical address of the first byte of RAM (its low alias is at 0).
pub const RAM_BASE: u64 = 0x8000_0000;
/// Bytes of low RAM.
pub const LOW_RAM_SIZE: u64 = 256 << 20;

/// Low physical address of the PROM.
pub const PROM_BASE: u64 = 0x0010_0000;
/// Bytes set aside for the PROM.
pub const PROM_SIZE: u64 = 1 << 20;
/// Low physical address of the first node's hub page.
pub const HUB_BASE: u64 = 0x0020_0000;
/// Bytes of one node's hub page.
pub const HUB_SIZE: u64 = 64 << 10;
/// Low physical address of the system controller's page.
pub const CONTROLLER: u64 = HUB_BASE + 8 * HUB_SIZE;
/// Low physical address of the boot block.
pub const BOOT_BLOCK: u64 = 0x0030_0000;
/// Low physical address of the packed configuration.
pub const CONFIG_BASE: u64 = 0x0030_1000;
/// Most bytes of packed configuration.
pub const CONFIG_MAX: u64 = (1 << 20) - 0x1000;
/// Low physical address of the pristine monitor image.
pub const MONITOR_BASE: u64 = 0x0040_0000;
/// Most bytes of the monitor image, and of the memory it occupies in a cell (text, data, bss).
pub const MONITOR_MAX: u64 = 8 << 20;
/// Low physical address of the compiled script.
pub const SCRIPT_BASE: u64 = 0x00c0_0000;
/// Most bytes of compiled script.
pub const SCRIPT_MAX: u64 = 4 << 20;
/// Low physical address of cell 0's rings.
pub const RING_BASE: u64 = 0x0100_0000;
/// Bytes of one cell's rings: to the host, from the host, to the leader, from the leader; and of its notes.
pub const RING_SIZE: u64 = 8 << 20;
/// Bytes of the output ring (header included) at the start of a cell's ring area.
pub const OUT_RING_SIZE: u64 = 6 << 20;
/// Bytes of the input ring, which follows.
pub const IN_RING_SIZE: u64 = 1 << 20;
/// Bytes of the ring from a cell to the leader ([`player_out`]).
pub const PLAYER_OUT_SIZE: u64 = 768 << 10;
/// Bytes of the ring from the leader to a cell ([`player_in`]).
pub const PLAYER_IN_SIZE: u64 = 112 << 10;
/// Bytes of what a cell that leads leaves for the next leader ([`leader_note`]).
pub const LEADER_NOTE_SIZE: u64 = 128 << 10;
/// Bytes of the faults that a cell is to inject ([`faults_note`]).
pub const FAULTS_NOTE_SIZE: u64 = 8 << 10;
/// Bytes of which VMs are a cell's own ([`vms_note`]).
pub const VMS_NOTE_SIZE: u64 = 8 << 10;
/// Low physical address of the guest images.
pub const IMAGES_BASE: u64 = 0x0500_0000;
/// Most bytes of guest images.
pub const IMAGES_MAX: u64 = LOW_RAM_SIZE - IMAGES_BASE;

/// Bytes that a cell keeps from its VMs for each of its nodes, where nobody wants more: the monitor's text, data
/// and heap, and its records of machine pages ([`crate::layout::Layout::reserve`]). The host refuses VMs that
/// would not fit beside it. An engine takes 5 MB of heap, so that some VMs can run at the same time.
pub const KEPT_USUAL: u64 = 32 << 20;
/// Least of that: the monitor and a heap in which one engine has room.
pub const KEPT_MIN: u64 = MONITOR_MAX + (8 << 20);

/// Machine-physical address of node 0's slice of RAM (what follows low RAM).
pub const SLICE_BASE: u64 = RAM_BASE + LOW_RAM_SIZE;
/// Most RAM the machine has (`-m`), low RAM included, while windows are at [`WINDOW_BASE`].
pub const RAM_MAX: u64 = 1792 << 20;
/// Machine-physical address of node 0's removable window.
pub const WINDOW_BASE: u64 = 0x7000_0000;
/// Most bytes of removable windows in all.
pub const WINDOW_MAX: u64 = 256 << 20;

/// Least bytes of a node's window, and of a node's memory: the monitor and a heap.
pub const WINDOW_MIN: u64 = 16 << 20;
/// Slices are whole multiples of this: the monitor's wired TLB entry maps two pages of 4 MB.
pub const SLICE_UNIT: u64 = 8 << 20;
/// PCI slot of node 0's window; the others' follow.
pub const WINDOW_SLOT: u32 = 0x12;
/// Machine-physical address of the registers of node 0's window; [`WINDOW_REGISTERS_STEP`] further are the
/// next node's.
pub const WINDOW_REGISTERS: u64 = 0x1200_0000;
/// Bytes from one window's registers to the next one's.
pub const WINDOW_REGISTERS_STEP: u64 = 64 << 10;
/// Offset of a window's switch in its registers (NVM Express 1.4, 3.1.24 "PMRCTL"): 32 bits,
/// little-endian, of which bit 0 is on or off.
pub const WINDOW_SWITCH: u64 = 0xe04;

/// Machine-physical address of a node's window's registers.
#[must_use]
pub const fn window_registers(node: NodeId) -> u64 {
    WINDOW_REGISTERS + node.0 as u64 * WINDOW_REGISTERS_STEP
}

/// Virtual address of the monitor in every cell: CKSEG3, one wired TLB entry of two 4 MB pages.
pub const MONITOR_VA: u64 = 0xffff_ffff_e000_0000;

/// Physical address of the register whose write of [`POWER_OFF`] ends QEMU with status 0.
pub const SOFTRES: u64 = 0x1f00_0500;
/// The value to write to [`SOFTRES`].
pub const POWER_OFF: u32 = 0x42;
/// Physical address of the boot ROM's Debug Mode vector, where `sdbbp` lands.
pub const DEBUG_VECTOR: u64 = 0x1fc0_0480;

/// Low physical address of a cell's output ring.
#[must_use]
pub const fn out_ring(cell: CellId) -> u64 {
    RING_BASE + cell.0 as u64 * RING_SIZE
}

/// Low physical address of a cell's input ring.
#[must_use]
pub const fn in_ring(cell: CellId) -> u64 {
    out_ring(cell) + OUT_RING_SIZE
}

/// Low physical address of the ring from a cell to the leader.
#[must_use]
pub const fn player_out(cell: CellId) -> u64 {
    in_ring(cell) + IN_RING_SIZE
}

/// Low physical address of the ring from the leader to a cell.
#[must_use]
pub const fn player_in(cell: CellId) -> u64 {
    player_out(cell) + PLAYER_OUT_SIZE
}

/// Low physical address of what a cell leaves for the next leader ([`crate::note`]).
#[must_use]
pub const fn leader_note(cell: CellId) -> u64 {
    player_in(cell) + PLAYER_IN_SIZE
}

/// Low physical address of the faults that a cell is to inject ([`crate::note`]).
#[must_use]
pub const fn faults_note(cell: CellId) -> u64 {
    leader_note(cell) + LEADER_NOTE_SIZE
}

/// Low physical address of which VMs are a cell's own ([`crate::note`]).
#[must_use]
pub const fn vms_note(cell: CellId) -> u64 {
    faults_note(cell) + FAULTS_NOTE_SIZE
}

const _: () = {
    assert!(vms_note(CellId(0)) + VMS_NOTE_SIZE == out_ring(CellId(1)));
    assert!(HUB_BASE + 8 * HUB_SIZE <= CONTROLLER);
    assert!(CONTROLLER + 4096 <= BOOT_BLOCK);
    assert!(CONFIG_BASE + CONFIG_MAX <= MONITOR_BASE);
    assert!(MONITOR_BASE + MONITOR_MAX <= SCRIPT_BASE);
    assert!(SCRIPT_BASE + SCRIPT_MAX <= RING_BASE);
    assert!(RING_BASE + 8 * RING_SIZE <= IMAGES_BASE);
};
