//! The kernel's one lock, and what it protects.
//!
//! A CPU takes it when it enters the kernel and leaves it when it goes back to user mode or to idling. It is
//! handed over where one process's stack is left for another's: who continues there leaves it.

use crate::console::Console;
use crate::frames::Frames;
use crate::pipe::Pipes;
use crate::process::Processes;
use crate::sched::Queue;
use crate::space::Spaces;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

/// All of the kernel's state but what each CPU has for itself.
pub struct Kernel {
    /// Processes.
    pub processes: Processes,
    /// Who wants to run.
    pub queue: Queue,
    /// Physical memory.
    pub frames: Frames,
    /// Address spaces.
    pub spaces: Spaces,
    /// Pipes.
    pub pipes: Pipes,
    /// The console.
    pub console: Console,
    /// Somebody sleeps until the clock ticks.
    pub dozing: bool,
}

struct Big {
    held: AtomicBool,
    kernel: UnsafeCell<Kernel>,
}

// SAFETY: the state is reached only by the CPU that holds the lock.
unsafe impl Sync for Big {}

static BIG: Big = Big {
    held: AtomicBool::new(false),
    kernel: UnsafeCell::new(Kernel {
        processes: Processes::EMPTY,
        queue: Queue::EMPTY,
        frames: Frames::EMPTY,
        spaces: Spaces::EMPTY,
        pipes: Pipes::EMPTY,
        console: Console::EMPTY,
        dozing: false,
    }),
};

/// Takes the lock, answering other CPUs' requests while it waits. The reference is good until [`leave`].
pub fn enter() -> &'static mut Kernel {
    while BIG.held.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err()
    {
        crate::smp::answer();
    }
    // SAFETY: this CPU now holds the lock.
    unsafe { &mut *BIG.kernel.get() }
}

/// Gives the lock back.
pub extern "C" fn leave() {
    BIG.held.store(false, Ordering::Release);
}

/// Keeps everybody else out for good, whoever holds the lock: the kernel has come to its end.
pub fn seize() {
    BIG.held.store(true, Ordering::Relaxed);
}
