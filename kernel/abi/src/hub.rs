//! What of the machine survives the loss of a node's memory: each node's *hub* page in low RAM, and the
//! page of the system controller.
//!
//! Like [`crate::prom`], in the machine's own byte order: PROM and monitors share it. The host only looks
//! whether words are 0.
//!
//! A hub belongs to its node: whoever reaches it from another node asks first whether that node is alive
//! and can be reached ([`crate::topology`]). The system controller's page belongs to no node, and is never
//! used to agree on anything.

use crate::ids::{CPUS_PER_NODE, CpuId, MAX_NODES, NodeId};
use crate::layout::Layout;
use crate::map;
use core::sync::atomic::{AtomicU64, Ordering};

/// What a hub keeps for one CPU. A line of its own.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct CpuWords {
    /// The doorbell: a bit for each CPU that has left something for this one.
    pub doorbell: AtomicU64,
    /// Why this CPU is to park: a [`Why`], or 0. It looks at every tick of its clock.
    pub parking: AtomicU64,
    /// Why it has parked: a [`Why`]; 0: it has not. A parked CPU touches no memory but the PROM's.
    pub parked: AtomicU64,
    /// What a parked CPU is to do again: a [`Serve`], or 0. It looks at every tick of its clock.
    pub serve: AtomicU64,
}

/// Bytes of a line, as a CPU's second-level cache has them (MIPS R10000 in an Origin).
pub const LINE: u64 = 128;
/// Most lost lines that a node's directory can name.
pub const LOST_LINES: usize = 32;

/// A node's hub page. A new machine's is zero.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Hub {
    /// 1 while the node has power. Without it nothing of the node answers, this page included.
    pub power: AtomicU64,
    /// The cell that the node belongs to.
    pub cell: AtomicU64,
    /// How often that cell has booted.
    pub incarnation: AtomicU64,
    /// The number of the last agreement on who is alive from which the cell has drawn all consequences: no CPU of it runs
    /// anything any more that depends on a cell that is not. In the hub of the cell's lowest node.
    pub epoch: AtomicU64,
    /// How far the cell's run has come: a [`Run`]. In the hub of the cell's lowest node.
    pub run: AtomicU64,
    /// Count, extended to 64 bits since power-on, when the cell was last told to boot. There too.
    pub ticks: AtomicU64,
    /// Machine addresses of lines of this node's memory that CPUs of dead nodes alone had, in their caches: what the
    /// node's directory knows. 0: none. What is there is not to be read before somebody has written it anew.
    pub lost: [AtomicU64; LOST_LINES],
    /// Of each CPU.
    pub cpus: [CpuWords; CPUS_PER_NODE],
}

/// The system controller's page. A new machine's is zero.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Controller {
    /// Whose line UART 0 prints: the CPU's number + 1, or 0. Taken with a time-out, so that a CPU that dies in
    /// the middle of a line silences nobody.
    pub uart: AtomicU64,
    /// The routers that have failed, a bit each.
    pub failed_routers: AtomicU64,
    /// The links that have failed, a bit each ([`crate::topology::Topology::links`]).
    pub failed_links: AtomicU64,
    /// The CPUs that have stopped for good, a bit each: what a parked CPU says here too, since the hub of a node without
    /// power can't be asked. What its node's memory turns to has been written before.
    pub stopped: AtomicU64,
    /// When each node lost its power, in nanoseconds since power-on; 0: it has not. What its memory turns to depends
    /// on it.
    pub failed_at: [AtomicU64; MAX_NODES],
    /// The CPUs that do not `wait`, a bit each. No part of the machine but an aid for simulating it: under icount
    /// one of them must always be awake, or two runs would differ.
    pub awake: AtomicU64,
}

/// Why a CPU parks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Why {
    /// It was told to, by its cell or by others.
    Told = 1,
    /// Its monitor has reported its own failure.
    Panic = 2,
    /// Its monitor can't even save the state of a trap: its text, data or stack is destroyed.
    Broken = 3,
    /// The memory of its cell does not answer, or its node has lost its power.
    Vanished = 4,
    /// It is to hang: it executes nothing any more, and does not say so. Never the reason of a parked one.
    Hung = 5,
}

impl Why {
    /// The reason that a word names; none: 0, or nonsense.
    #[must_use]
    pub const fn from_word(word: u64) -> Option<Self> {
        Some(match word {
            1 => Self::Told,
            2 => Self::Panic,
            3 => Self::Broken,
            4 => Self::Vanished,
            5 => Self::Hung,
            _ => return None,
        })
    }
}

/// What a parked CPU is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Serve {
    /// To put a fresh copy of the monitor into its cell, tell the others, and boot: for the cell's lowest CPU.
    First = 1,
    /// To boot from the copy that is there.
    Next = 2,
}

/// How far a cell's run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Run {
    /// VMs run, or may still be started.
    On = 0,
    /// Its VMs have ended; it waits for the other cells'.
    Idle = 1,
    /// It has ended the run: all cells are to follow.
    Ending = 2,
    /// It has ended, and writes nothing any more.
    Over = 3,
}

/// How often a CPU asks whether another one's line on UART 0 has ended: about a tenth of a second, since on a
/// loaded host the other one's thread may have to wait that long for its turn.
const LINE_PATIENCE: u32 = 1 << 24;

/// A CPU's turn on UART 0, until it is dropped.
#[derive(Debug)]
#[must_use = "the line ends when this is dropped"]
pub struct Line<'a> {
    uart: &'a AtomicU64,
    me: u64,
}

impl Controller {
    /// Whether a CPU has stopped for good.
    #[must_use]
    pub fn has_stopped(&self, cpu: u64) -> bool {
        self.stopped.load(Ordering::Acquire).checked_shr(cpu as u32).unwrap_or(0) & 1 != 0
    }

    /// Waits until no other CPU prints on UART 0, but not for ever.
    pub fn line(&self, cpu: u64) -> Line<'_> {
        let me = cpu + 1;
        if !(0..LINE_PATIENCE).any(|_| {
            core::hint::spin_loop();
            self.take_line(me)
        }) {
            self.uart.store(me, Ordering::Relaxed);
        }
        Line { uart: &self.uart, me }
    }

    /// Takes UART 0 if it is free, or nobody's who could still print.
    fn take_line(&self, me: u64) -> bool {
        let take =
            |from| self.uart.compare_exchange(from, me, Ordering::Acquire, Ordering::Relaxed);
        match take(0) {
            Ok(_) => true,
            // A CPU that fails while it prints has its turn already, and one that has stopped needs it no more.
            Err(holder) => (holder == me || self.has_stopped(holder - 1)) && take(holder).is_ok(),
        }
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        // Unless another CPU has lost its patience.
        let _ = self.uart.compare_exchange(self.me, 0, Ordering::Release, Ordering::Relaxed);
    }
}

const _: () = assert!(size_of::<Hub>() as u64 <= map::HUB_SIZE);

/// Low physical address of a node's hub page.
#[must_use]
pub const fn address(node: NodeId) -> u64 {
    map::HUB_BASE + node.0 as u64 * map::HUB_SIZE
}

/// Which of its node's CPUs a CPU is: the index of its [`CpuWords`].
#[must_use]
pub const fn slot(layout: &Layout, cpu: CpuId) -> usize {
    (cpu.0 as u32 % layout.cpus_per_node) as usize
}

/// Low physical address of the word that says that a CPU has parked ([`CpuWords::parked`]).
#[must_use]
pub const fn parked_address(layout: &Layout, cpu: CpuId) -> u64 {
    let words = core::mem::offset_of!(Hub, cpus) + slot(layout, cpu) * size_of::<CpuWords>();
    let parked = words + core::mem::offset_of!(CpuWords, parked);
    address(layout.node_of(cpu)) + parked as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::CellId;

    #[test]
    fn a_line_is_one_cpus_at_a_time_but_a_dead_one_is_not_waited_for_for_ever() {
        let zero = || AtomicU64::new(0);
        let controller = Controller {
            uart: zero(),
            failed_routers: zero(),
            failed_links: zero(),
            stopped: zero(),
            failed_at: [const { AtomicU64::new(0) }; MAX_NODES],
            awake: zero(),
        };
        let owner = || controller.uart.load(Ordering::Relaxed);
        let first = controller.line(0);
        drop(controller.line(0));
        assert_eq!(owner(), 0, "the CPU's own report of a failure ends its line");
        drop(first);
        let dead = controller.line(3);
        assert_eq!(owner(), 4);
        let next = controller.line(5);
        assert_eq!(owner(), 6);
        drop(dead);
        assert_eq!(owner(), 6, "what is over is not taken from another");
        drop(next);
        assert_eq!(owner(), 0);
        core::mem::forget(controller.line(7));
        assert!(!controller.take_line(3));
        controller.stopped.store(1 << 7, Ordering::Relaxed);
        assert!(controller.take_line(3), "a CPU that has stopped is not waited for");
        assert_eq!(owner(), 3);
    }

    #[test]
    fn reasons_are_their_words() {
        for word in 0..10 {
            let why = Why::from_word(word);
            assert_eq!(why.map_or(0, |why| why as u64), if word <= 5 { word } else { 0 });
        }
    }

    #[test]
    fn each_cpu_has_words_of_its_own() {
        let cell_of = [CellId(0); MAX_NODES];
        let layout = Layout { nodes: 8, cpus_per_node: 2, window: 0, slice: 0, kept: 0, cell_of };
        let mut all: Vec<u64> = (0..16).map(|cpu| parked_address(&layout, CpuId(cpu))).collect();
        assert!(all.iter().all(|at| (map::HUB_BASE..map::CONTROLLER).contains(at)));
        all.dedup();
        assert_eq!(all.len(), 16);
        assert_eq!(all[1] - all[0], size_of::<CpuWords>() as u64);
        assert_eq!(all[2] - all[0], map::HUB_SIZE);
    }
}
