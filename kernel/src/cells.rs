//! The machine's cells among themselves, as far as the end of a run goes: who leads, who has ended, who is
//! lost. All of it is in the hubs.
//!
//! The *leader* is the lowest cell that lives. It says when the run is over, and how: when its script ends
//! or an operator asks for it, or else when the VMs of all cells have ended. All cells then end their VMs;
//! when each has said that it is done (or is lost), the leader switches the machine off.

use crate::{clock, hub, machine};
use abi::CellId;
use abi::hub::{Hub, Run};
use cell::talk::CellSet;
use core::sync::atomic::Ordering;

/// How long the leader waits for the others to end their VMs, in nanoseconds.
const PATIENCE_NS: u64 = 2_000_000_000;

/// Whether a cell can't be reached any more, or its lowest CPU has parked.
pub(crate) fn is_lost(cell: CellId) -> bool {
    machine::first(cell).is_none_or(|first| hub::is_parked(first.cpu).unwrap_or(true))
}

/// Whether all CPUs of a cell have parked, for all that can be seen from here.
pub(crate) fn is_fenced(cell: CellId) -> bool {
    machine::layout().cpus_of(cell).all(|cpu| hub::is_parked(cpu) == Ok(true))
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

/// What there is to know of the other cells.
pub(crate) struct News {
    /// Those that are lost.
    pub(crate) lost: CellSet,
    /// One of them has ended the run for all.
    pub(crate) ending: bool,
}

/// How the other cells are.
pub(crate) fn news() -> News {
    let lost = machine::others().filter(|cell| is_lost(*cell));
    News { lost: lost.fold(CellSet::NONE, CellSet::with), ending: is_ending() }
}

/// This cell has nothing left to do, or has again (`idle`): whether the run is over.
pub(crate) fn idle(idle: bool) -> bool {
    say(if idle { Run::Idle } else { Run::On });
    let has_ended = |cell| run_of(cell) != Run::On as u64 || is_lost(cell);
    idle && leads() && machine::others().all(has_ended)
}

/// Whether a cell has ended the run for all.
fn is_ending() -> bool {
    machine::others().any(|cell| run_of(cell) == Run::Ending as u64 && !is_lost(cell))
}

/// This cell has ended its VMs, and said how the run ended if it leads. The machine ends, once the other cells
/// have come as far; `listen` shows what they announce meanwhile.
pub(crate) fn over(mut listen: impl FnMut()) -> ! {
    if leads() {
        say(Run::Ending);
        let give_up = clock::now() + PATIENCE_NS;
        let done = |cell| run_of(cell) == Run::Over as u64 || is_lost(cell);
        while !machine::others().all(done) && clock::now() < give_up {
            listen();
            clock::sleep_until(clock::now() + 100_000);
        }
        listen();
        machine::power_off()
    }
    say(Run::Over);
    loop {
        clock::sleep_until(u64::MAX / 8);
    }
}
