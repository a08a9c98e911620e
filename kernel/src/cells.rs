//! The machine's cells among themselves, as far as the end of a run goes: who leads, who has ended, who is
//! lost. All of it is in the hubs.
//!
//! The *leader* is the lowest cell that lives. It says when the run is over, and how: when its script ends
//! or an operator asks for it, or else when the VMs of all cells have ended. All cells then end their VMs;
//! when each has said that it is done (or is lost), the leader switches the machine off.

use crate::{asm, clock, controller, hub, machine};
use abi::CellId;
use abi::hub::{Hub, Run};
use cell::talk::{CellSet, Epoch, LiveSet};
use core::sync::atomic::{AtomicU64, Ordering};

/// How long the leader waits for the others to end their VMs, in nanoseconds.
const PATIENCE_NS: u64 = 2_000_000_000;

/// Markers for counting (docs/counting.md): from here on a cell knows that all agree, up to here it has fenced off the others.
const AGREED: u16 = 0x2012;
const FENCED: u16 = 0x2013;

/// The cells that are not in the live set any more.
static LOST: AtomicU64 = AtomicU64::new(0);
/// The number of the last agreement.
static EPOCH: AtomicU64 = AtomicU64::new(0);

/// Whether the cells have agreed that a cell is lost.
pub(crate) fn is_lost(cell: CellId) -> bool {
    CellSet(LOST.load(Ordering::Acquire) as u8).has(cell)
}

/// Whether a cell's lowest CPU has parked, or can't be reached: for when nobody agrees on anything any more.
fn has_stopped(cell: CellId) -> bool {
    is_lost(cell)
        || machine::first(cell).is_none_or(|first| hub::is_parked(first.cpu).unwrap_or(true))
}

/// The cells have agreed on who is alive. Whoever is not any more is fenced off before anybody goes on without it: its nodes lose
/// their power, whatever way is left to them. Whoever has been lost before may just be booting again.
pub(crate) fn agreed(live: &LiveSet) {
    asm::marker::<AGREED>();
    let before = CellSet(LOST.load(Ordering::Acquire) as u8);
    take(live);
    let lost = machine::others().minus(live.cells).minus(before);
    lost.into_iter()
        .flat_map(|cell| machine::layout().nodes_of(cell))
        .for_each(controller::node_off);
    asm::marker::<FENCED>();
}

/// This cell, which is back, is in a live set: those that are not have been fenced off by the others.
pub(crate) fn let_in(live: &LiveSet) {
    take(live);
    settled(live.epoch);
}

fn take(live: &LiveSet) {
    EPOCH.store(live.epoch.0.into(), Ordering::Relaxed);
    LOST.store(machine::others().minus(live.cells).0.into(), Ordering::Release);
}

/// No CPU of this cell runs anything any more that depends on a cell that was lost by this agreement.
pub(crate) fn settled(epoch: Epoch) {
    if let Some(hub) = hub_of(machine::cell()) {
        hub.epoch.store(epoch.0.into(), Ordering::Release);
    }
}

/// Whether all cells that live have said so of the last agreement that this one knows of.
pub(crate) fn are_settled() -> bool {
    let epoch = EPOCH.load(Ordering::Relaxed);
    let says = |cell| hub_of(cell).map(|hub| hub.epoch.load(Ordering::Acquire));
    let live = machine::others().filter(|cell| !is_lost(*cell));
    live.chain([machine::cell()]).all(|cell| says(cell) == Some(epoch))
}

/// Whether all CPUs of a cell have stopped, as the system controller says.
pub(crate) fn is_fenced(cell: CellId) -> bool {
    machine::layout().cpus_of(cell).all(|cpu| hub::controller().has_stopped(cpu.0.into()))
}

/// The hub of a cell's lowest node.
fn hub_of(cell: CellId) -> Option<&'static Hub> {
    hub::reach(machine::first(cell)?.node).ok()
}

fn run_of(cell: CellId) -> u64 {
    hub_of(cell).map_or(Run::Over as u64, |hub| hub.run.load(Ordering::Acquire))
}

/// Says how far this cell's run has come.
fn say(run: Run) {
    if let Some(hub) = hub_of(machine::cell()) {
        hub.run.store(run as u64, Ordering::Release);
    }
}

/// Whether this cell leads.
pub(crate) fn leads() -> bool {
    let lower = CellSet::first(machine::cell().0.into());
    machine::others().and(lower).all(is_lost)
}

/// This cell has nothing left to do, or has again (`idle`): whether the run is over.
pub(crate) fn idle(idle: bool) -> bool {
    say(if idle { Run::Idle } else { Run::On });
    // Of one that can't be reached it is not agreed yet what becomes of its VMs.
    let stands = |hub: &Hub| hub.run.load(Ordering::Acquire) != Run::On as u64;
    let has_ended = |cell| is_lost(cell) || hub_of(cell).is_some_and(stands);
    idle && leads() && machine::others().all(has_ended)
}

/// This cell ends the run: if it leads, the others are to end it too.
pub(crate) fn ending() {
    if leads() {
        say(Run::Ending);
    }
}

/// Whether a cell has ended the run for all.
pub(crate) fn is_ending() -> bool {
    machine::others().any(|cell| run_of(cell) == Run::Ending as u64 && !has_stopped(cell))
}

/// This cell has ended its VMs, and said how the run ended if it leads. The machine ends, once the other cells
/// have come as far; `listen` shows what they announce meanwhile. `conclude` says how the run ended where those that led have
/// died instead.
pub(crate) fn over(mut listen: impl FnMut(), conclude: impl FnOnce()) -> ! {
    if !leads() {
        say(Run::Over);
        // Should all die that would lead, it is this cell's turn.
        let lower = CellSet::first(machine::cell().0.into());
        let gone = |cell| {
            machine::first(cell)
                .is_none_or(|first| hub::controller().has_stopped(first.cpu.0.into()))
        };
        while !machine::others().and(lower).all(gone) {
            clock::sleep_until(clock::now() + 1_000_000);
        }
        conclude();
    }
    say(Run::Ending);
    let give_up = clock::now() + PATIENCE_NS;
    let done = |cell| run_of(cell) == Run::Over as u64 || has_stopped(cell);
    while !machine::others().all(done) && clock::now() < give_up {
        listen();
        clock::sleep_until(clock::now() + 100_000);
    }
    listen();
    machine::power_off()
}
