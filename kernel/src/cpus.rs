//! What every CPU of the cell does for ever: ask the cell what to do, and do it.
//!
//! The cell is behind one lock. A guest runs, and a CPU sleeps, without it.

use crate::host::Host;
use crate::lock::Lock;
use crate::{asm, cells, clock, doorbell, link, machine};
use abi::{CellId, CpuId};
use cell::talk::{CellSet, Refusal};
use cell::visit::{Ask, Told, Whom};
use cell::vm::Vcpu;
use cell::{LocalCell, Next};
use core::sync::atomic::{AtomicU64, Ordering};

/// How often an idle cell looks for what the host or another cell has left for it, in nanoseconds.
const INPUT_POLL_NS: u64 = 1_000_000;

/// How often the first CPU looks at what comes from outside its cell, in nanoseconds.
const LOOK_NS: u64 = 500_000;

/// How often a CPU that waits for another cell looks at its doorbell before it looks at all else.
const ASK_LOOKS: u32 = 10_000;

/// Markers for counting (docs/counting.md): from here a CPU looks at its doorbell, up to here it did what it was
/// called for, here it is about to run a VCPU, and up to here it handed one back.
const RUNG: u16 = 0x2001;
const TALKED: u16 = 0x2002;
const BACK: u16 = 0x2003;
const RUN: u16 = 0x2100;

/// The cell, once it is there.
static CELL: Lock<Option<LocalCell<Host>>> = Lock::new("cell", None);
/// The cell's first CPU, which looks at what comes from outside the cell, and when it last did.
static FIRST: AtomicU64 = AtomicU64::new(u64::MAX);
static LOOKED: AtomicU64 = AtomicU64::new(0);
/// How long the first CPU sleeps at most, in nanoseconds; 0: there is no cell yet.
static NAP_NS: AtomicU64 = AtomicU64::new(0);

/// Opens the cell to its CPUs. `alone`: nothing comes from the host or from another cell.
pub(crate) fn open(cell: LocalCell<Host>, alone: bool) {
    *CELL.lock() = Some(cell);
    let nap = if alone { clock::LONGEST_NS } else { INPUT_POLL_NS };
    NAP_NS.store(nap, Ordering::Release);
}

/// Serves the cell as its CPU `me`; the `first` one also looks at what comes from outside.
pub(crate) fn serve(me: CpuId, first: bool) -> ! {
    while NAP_NS.load(Ordering::Acquire) == 0 {
        clock::sleep_until(u64::MAX / 8);
    }
    let nap = if first { NAP_NS.load(Ordering::Relaxed) } else { u64::MAX / 8 };
    if first {
        FIRST.store(u64::from(me.0), Ordering::Relaxed);
    }
    loop {
        asm::marker::<RUNG>();
        let rung = doorbell::answer();
        let next = with_cell(|cell| {
            attend(cell, rung);
            cell.step(me)
        });
        match next {
            Next::Run(mut turn) => {
                let from = clock::now();
                asm::marker::<RUN>();
                let exit = turn.vcpu.run(turn.until);
                let to = clock::now();
                with_cell(|cell| {
                    cell.done(me, turn, from, to, exit);
                    asm::marker::<BACK>();
                });
            }
            Next::Wait(until) => {
                let poll = clock::now() + nap;
                doorbell::sleep(until.map_or(poll, |until| until.min(poll)));
            }
            Next::Over(_) => {
                let listen = || with_cell(|cell| _ = cell.listen());
                cells::over(listen, || with_cell(LocalCell::conclude))
            }
        }
    }
}

/// Does what other cells and the host want of this one: what those do whose CPUs have `rung`, and now and then on the
/// first CPU what any does.
fn attend(cell: &mut LocalCell<Host>, rung: u64) {
    let first = u64::from(machine::this_cpu().0) == FIRST.load(Ordering::Relaxed);
    if rung != 0 {
        let from = machine::cells_of(rung);
        if first && cell.has_news(from) {
            cell.look();
        }
        cell.talk(from);
        asm::marker::<TALKED>();
    }
    let now = clock::now();
    if first && now >= LOOKED.load(Ordering::Relaxed) + LOOK_NS {
        LOOKED.store(now, Ordering::Relaxed);
        cell.look();
        // A ring may have been lost.
        cell.talk(CellSet::ALL);
        link::poll_input(|stream, bytes| cell.input(stream, bytes));
        if cells::is_ending() {
            cell.end_run();
        }
    }
}

/// Asks another cell about a VM, for the guest that this CPU runs, and waits for the answer; none if that cell dies.
/// Meanwhile this CPU does what others want of its cell: so two cells that ask each other both get an answer.
pub(crate) fn ask(to: CellId, whom: Whom, ask: &Ask) -> Option<Told> {
    let me = machine::this_cpu();
    loop {
        match with_cell(|cell| cell.ask_for(me, to, whom, ask)) {
            Ok(()) => break,
            Err(Refusal::Full) => with_cell(|cell| attend(cell, doorbell::answer())),
            Err(_) => return None,
        }
    }
    loop {
        let rung = doorbell::answer();
        let answer = with_cell(|cell| {
            attend(cell, rung);
            cell.answer_for(me)
        });
        if let Some(answer) = answer {
            return answer;
        }
        doorbell::wait_for_ring(ASK_LOOKS);
    }
}

fn with_cell<T>(act: impl FnOnce(&mut LocalCell<Host>) -> T) -> T {
    let mut cell = CELL.lock();
    act(cell.as_mut().expect("a cell that is open"))
}
