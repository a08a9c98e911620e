//! Every trap but the refills that need no more than a page table.

use crate::asid;
use crate::console::Raw;
use crate::cpu::{self, CAUSE_BD, CAUSE_CALL, CAUSE_TIMER, Frame, pda};
use crate::lock::{self, Kernel};
use crate::sched::Event;
use crate::smp;
use crate::syscall;
use core::fmt::Write;
use irix_user::calls::{SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP};

/// Cause.ExcCode.
mod code {
    pub const INTERRUPT: u64 = 0;
    pub const MODIFIED: u64 = 1;
    pub const TLB_LOAD: u64 = 2;
    pub const TLB_STORE: u64 = 3;
    pub const ADDRESS_LOAD: u64 = 4;
    pub const ADDRESS_STORE: u64 = 5;
    pub const BUS_FETCH: u64 = 6;
    pub const BUS_DATA: u64 = 7;
    pub const SYSCALL: u64 = 8;
    pub const BREAK: u64 = 9;
    pub const RESERVED: u64 = 10;
    pub const COPROCESSOR: u64 = 11;
    pub const OVERFLOW: u64 = 12;
    pub const TRAP: u64 = 13;
}

/// Called by the trap entry with all registers saved, interrupts off.
pub extern "C" fn trap(frame: &mut Frame) {
    let code = frame.cause >> 2 & 0x1f;
    if code == code::INTERRUPT {
        interrupt(frame.cause);
        if !frame.from_user() {
            // It was idle, and looks around itself.
            return;
        }
    } else if !frame.from_user() {
        panic!(
            "trap {code} in the kernel at {:#x}, address {:#x}, return address {:#x}",
            frame.epc,
            cpu::bad_vaddr(),
            frame.regs[31]
        );
    }
    // Whatever happens next may change it.
    let address = match code {
        code::MODIFIED..=code::ADDRESS_STORE => cpu::bad_vaddr(),
        _ => 0,
    };
    let missed = core::mem::take(&mut pda().missed) != 0;
    let kernel = lock::enter();
    match code {
        code::INTERRUPT => kernel.give_way(),
        code::SYSCALL if frame.cause & CAUSE_BD == 0 => syscall::call(kernel, frame),
        code::MODIFIED | code::TLB_LOAD | code::TLB_STORE => {
            let write = code != code::TLB_LOAD;
            match kernel.resolve(address, write) {
                // Where the TLB has nothing, it is left to the refill handler.
                Ok(_) if missed => {}
                Ok(_) => asid::refresh(&kernel.spaces, address),
                Err(_) => kernel.fault(frame, SIGSEGV),
            }
        }
        code::ADDRESS_LOAD | code::ADDRESS_STORE | code::BUS_FETCH | code::BUS_DATA => {
            kernel.fault(frame, SIGBUS);
        }
        code::BREAK | code::TRAP => kernel.fault(frame, SIGTRAP),
        code::RESERVED | code::COPROCESSOR => kernel.fault(frame, SIGILL),
        code::OVERFLOW => kernel.fault(frame, SIGFPE),
        // A system call in a delay slot has no place to return to, and the rest no name.
        _ => kernel.fault(frame, SIGILL),
    }
    leave_for_user(kernel);
}

/// Ends the process if it was signalled, else leaves the kernel.
fn leave_for_user(kernel: &mut Kernel) {
    let pending = kernel.processes.current().pending;
    if pending != 0 {
        kernel.exit(pending.trailing_zeros());
    }
    lock::leave();
}

/// A tick, or another CPU's call.
fn interrupt(cause: u64) {
    if cause & CAUSE_CALL != 0 {
        smp::called();
    }
    if cause & CAUSE_TIMER != 0 {
        cpu::next_tick();
        smp::answer();
        if pda().number == 0 {
            let kernel = lock::enter();
            kernel.poll_console();
            if core::mem::take(&mut kernel.dozing) {
                kernel.wake(Event::Tick);
            }
            lock::leave();
        }
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    // Not asked for: whoever holds the lock may be this CPU. Nobody runs on without it for long.
    lock::seize();
    let _ = writeln!(Raw, "irix: panic: {}", info.message());
    loop {
        core::hint::spin_loop();
    }
}
