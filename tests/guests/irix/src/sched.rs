//! Who runs: a queue of processes that want to, and the switch between their kernel stacks.

use crate::asid;
use crate::cpu::{Context, pda};
use crate::lock::{self, Kernel};
use crate::process::{self, NONE, PROCESSES_MAX, State};
use crate::smp;
use irix_user::calls::Error;

unsafe extern "C" {
    /// Saves this stack's state and goes on where the other's was saved. The kernel is named because
    /// others will have changed it before the call returns.
    fn switch_context(from: *mut Context, to: *const Context, kernel: *mut u8);
}

/// First in, first out.
pub struct Queue {
    slots: [u8; PROCESSES_MAX],
    first: usize,
    len: usize,
}

impl Queue {
    /// Nobody.
    pub const EMPTY: Self = Self { slots: [0; PROCESSES_MAX], first: 0, len: 0 };

    /// Whether nobody wants to run.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn push(&mut self, slot: usize) {
        // A process is in the queue once at most.
        self.slots[(self.first + self.len) % PROCESSES_MAX] = slot as u8;
        self.len += 1;
    }

    fn pop(&mut self) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        let slot = self.slots[self.first];
        self.first = (self.first + 1) % PROCESSES_MAX;
        self.len -= 1;
        Some(usize::from(slot))
    }
}

impl Kernel {
    /// A process wants to run.
    pub fn make_ready(&mut self, slot: usize) {
        self.processes[slot].state = State::Ready;
        self.queue.push(slot);
        smp::wake_idle();
    }

    /// Lets the current process sleep until [`Kernel::wake`] names the same event.
    ///
    /// # Errors
    /// A signal came first.
    pub fn sleep(&mut self, event: Event) -> Result<(), Error> {
        let process = self.processes.current();
        if process.pending != 0 {
            return Err(Error::Interrupted);
        }
        process.state = State::Asleep(event);
        self.switch();
        if self.processes.current().pending != 0 { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Something happened: whoever sleeps for it runs again, and looks for itself.
    pub fn wake(&mut self, event: Event) {
        for slot in 0..PROCESSES_MAX {
            if self.processes[slot].state == State::Asleep(event) {
                self.make_ready(slot);
            }
        }
    }

    /// Lets others run, if there are any.
    pub fn give_way(&mut self) {
        if !self.queue.is_empty() {
            let slot = pda().process;
            self.processes[slot].state = State::Ready;
            self.queue.push(slot);
            self.switch();
        }
    }

    /// Leaves the current process (or idling) for who is next. Returns when this one is next again.
    pub fn switch(&mut self) {
        let pda = pda();
        let from = pda.process;
        let to = self.queue.pop().unwrap_or(NONE);
        let from_context = match from {
            NONE => &raw mut pda.idle,
            slot => &raw mut self.processes[slot].context,
        };
        pda.process = to;
        let to_context = if to == NONE {
            asid::deactivate(&mut self.spaces);
            &raw const pda.idle
        } else {
            let process = &mut self.processes[to];
            process.state = State::Running;
            pda.stack = process::stack_end(to);
            let space = process.space;
            asid::activate(&mut self.spaces, space);
            &raw const self.processes[to].context
        };
        if from != to {
            // SAFETY: both are whole saved states; the lock goes with the CPU.
            unsafe { switch_context(from_context, to_context, (&raw mut *self).cast()) };
        }
    }
}

/// What processes sleep for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A child of the process in this slot has ended.
    Child(usize),
    /// This pipe has changed.
    Pipe(usize),
    /// A line was typed.
    Line,
    /// The clock has ticked.
    Tick,
}

/// What a CPU does when there is nothing else. It takes interrupts only here and in user mode.
pub fn idle() -> ! {
    loop {
        let kernel = lock::enter();
        while !kernel.queue.is_empty() {
            kernel.switch();
        }
        smp::set_idle(true);
        lock::leave();
        crate::cpu::nap();
        smp::set_idle(false);
    }
}
