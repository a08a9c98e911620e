//! What happens on a trap, once its state is saved. (How it is saved: [`crate::asm`].)

use crate::cp0::{Cause, ExcCode};
use crate::page::{cell_page, take_reserved};
use crate::{asm, clock, lost, panic};
use cell::talk::mutant::{Mutant, seeded};
use core::sync::atomic::Ordering;
use static_assertions::{const_assert, const_assert_eq};

/// What a trap interrupts: everything that returning from it restores.
#[derive(Clone, Debug, Default)]
#[repr(C, align(16))]
pub(crate) struct Frame {
    /// The general registers; `$0` is 0.
    pub(crate) gpr: [u64; 32],
    /// HI and LO.
    pub(crate) hi: u64,
    pub(crate) lo: u64,
    /// CP0 registers, as the exception left them.
    pub(crate) status: u64,
    pub(crate) cause: u64,
    pub(crate) epc: u64,
    pub(crate) bad_vaddr: u64,
}

// The stack stays aligned, and the frame fits the spare stack many times.
const_assert_eq!(size_of::<Frame>() % 16, 0);
const_assert!(size_of::<Frame>() * 4 < asm::SPARE_SIZE);

impl Frame {
    /// Cause, typed.
    pub(crate) const fn cause(&self) -> Cause {
        Cause::from_bits_retain(self.cause)
    }
}

/// The handler. Interrupts are off.
pub(crate) extern "C" fn handle(frame: &mut Frame) {
    let page = cell_page();
    page.depth.fetch_add(1, Ordering::Relaxed);
    if take_reserved(frame.epc) {
        frame.cause = frame.cause().with_code(ExcCode::RI).bits();
    }
    match frame.cause().code() {
        ExcCode::INT => interrupt(frame),
        code => match fix_up(frame, code) {
            Some(resume) => frame.epc = resume,
            None if code == ExcCode::DBE && lost::pass_over(frame) => {}
            None => panic::trapped(frame),
        },
    }
    page.depth.fetch_sub(1, Ordering::Relaxed);
}

fn interrupt(frame: &mut Frame) {
    // The timer is the only source that Status lets through; whatever the reason for the interrupt
    // was, arming the timer again answers it.
    clock::tick();
    if let Some(resume) = asm::past_idle(frame.epc) {
        frame.epc = resume;
    }
}

/// Where to go on after a careful access that trapped; `None`: it was no careful access.
fn fix_up(frame: &Frame, code: ExcCode) -> Option<u64> {
    if !code.is_data_access() || frame.cause().contains(Cause::BD) {
        return None;
    }
    let found = asm::exception_table().iter().find(|pair| pair[0] == frame.epc);
    found.filter(|pair| !is_missing(pair[0])).map(|pair| pair[1])
}

/// Whether an entry of the exception table is taken for missing.
fn is_missing(pc: u64) -> bool {
    let copy = asm::careful_copy as *const () as u64;
    let of_copy = || asm::exception_table().iter().map(|pair| pair[0]).filter(|pc| *pc >= copy);
    seeded(Mutant::CopyNotFixedUp) && of_copy().min() == Some(pc)
}
