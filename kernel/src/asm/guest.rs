//! Into a guest, and back.
//!
//! `guest_enter` keeps what its caller wants back on the monitor's stack, and the stack's place and the
//! VCPU's in the CPU's private page. From then on the registers are the guest's. A trap with a guest's
//! Status.KSU puts them into the VCPU and returns from `guest_enter`.
//!
//! One trap never gets that far: `rdhwr $3, $29`, with which programs find their thread's data. It is a
//! reserved instruction on this CPU, and frequent. The instruction word is looked at where EPC points: it
//! has just been fetched from there, and nothing has changed in the TLB since, so that the load finds
//! what the fetch found. (Its memory may have vanished all the same. The vector then comes back to
//! `guest_fetch_lost`, and the trap is a reserved instruction like others.) After a load-linked the
//! monitor wants to see the trap: the `eret` would break the link.

use super::{cell, prom};
use crate::cp0::{ExcCode, Status};
use crate::page::CellPage;
use abi::prom::PromPage;
use core::arch::global_asm;
use core::mem::offset_of;
use vmm_core::cpu::Vcpu;

/// Status when `guest_enter` returns: the monitor's, with interrupts on.
const MONITOR: u64 = QUIET | Status::IE.bits();

/// Status while a miss is looked up: the monitor's, with interrupts off. UX and SX mean nothing to it, but are left set: QEMU
/// forgets all translations when one of them is cleared, which each trap would do.
const QUIET: u64 = Status::KX.bits() | Status::SX.bits() | Status::UX.bits() | Status::IM7.bits();

/// What the CPU says about a guest's trap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Left {
    /// Cause.
    pub(crate) cause: u64,
    /// BadVAddr.
    pub(crate) bad_vaddr: u64,
    /// LLAddr: `eret` sets it to 1, LL to the physical address of a word.
    pub(crate) ll_addr: u64,
}

global_asm!(
    ".set push", ".set mips64r2", ".set noreorder", ".set noat",
    ".section .text.trap, \"ax\", @progbits",
    ".balign 16",

    // Saves what of the guest is not in its registers any more, or in none; $27 is the VCPU, $8 to $12
    // are saved already.
    ".macro SAVE_REST",
    "ld $8, {k0}($0)",
    "ld $9, {k1}($0)",
    "mfhi $10",
    "mflo $11",
    "dmfc0 $12, $14",
    "sd $8, {gpr}+8*26($27)",
    "sd $9, {gpr}+8*27($27)",
    "sd $10, {hi}($27)",
    "sd $11, {lo}($27)",
    "sd $12, {pc}($27)",
    ".endm",

    // guest_enter(vcpu, status, left). Status has EXL set, so that nothing interrupts until `eret`.
    ".globl guest_enter",
    "guest_enter:",
    "daddiu $29, $29, -96",
    "sd $16, 0($29)",
    "sd $17, 8($29)",
    "sd $18, 16($29)",
    "sd $19, 24($29)",
    "sd $20, 32($29)",
    "sd $21, 40($29)",
    "sd $22, 48($29)",
    "sd $23, 56($29)",
    "sd $28, 64($29)",
    "sd $30, 72($29)",
    "sd $31, 80($29)",
    "sd $6, 88($29)",
    "sd $29, {stack}($0)",
    "sd $4, {vcpu}($0)",
    "mtc0 $5, $12",
    "ld $8, {pc}($4)",
    "ld $9, {hi}($4)",
    "ld $10, {lo}($4)",
    "dmtc0 $8, $14",
    "mthi $9",
    "mtlo $10",
    "move $27, $4",
    ".irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,28,29,30,31,27",
    "ld $\\n, {gpr}+8*\\n($27)",
    ".endr",
    "ehb",
    "eret",

    // From trap entry; $26 and $27 are free.
    ".globl guest_trap",
    "guest_trap:",
    "mfc0 $26, $13",
    "andi $27, $26, 0x7c",
    "xori $27, $27, {reserved_instruction}",
    "beqz $27, guest_reserved",
    "ld $27, {vcpu}($0)",
    "andi $26, $26, 0x78",
    "xori $26, $26, {tlb_miss}",
    "beqz $26, guest_miss",
    "nop",
    "guest_save:",
    ".irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,28,29,30,31",
    "sd $\\n, {gpr}+8*\\n($27)",
    ".endr",
    "SAVE_REST",
    "guest_leave:",
    "ld $29, {stack}($0)",
    "mfc0 $8, $13",
    "dmfc0 $9, $8",
    "dmfc0 $10, $17",
    "ld $6, 88($29)",
    "sd $8, {cause}($6)",
    "sd $9, {bad_vaddr}($6)",
    "sd $10, {ll_addr}($6)",
    "ld $16, 0($29)",
    "ld $17, 8($29)",
    "ld $18, 16($29)",
    "ld $19, 24($29)",
    "ld $20, 32($29)",
    "ld $21, 40($29)",
    "ld $22, 48($29)",
    "ld $23, 56($29)",
    "ld $28, 64($29)",
    "ld $30, 72($29)",
    "ld $31, 80($29)",
    "daddiu $29, $29, 96",
    // Everything is saved.
    "sd $0, {pending}($0)",
    "li $8, {monitor}",
    "mtc0 $8, $12",
    "ehb",
    "jr $31",
    "nop",

    // A TLB miss; $27 is the VCPU. Most are over when the translation has been looked up: so only what
    // that may change is saved, in its place, and the rest if there is more to it.
    "guest_miss:",
    ".irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,24,25,29,31",
    "sd $\\n, {gpr}+8*\\n($27)",
    ".endr",
    "SAVE_REST",
    "mfc0 $13, $12",
    "sd $13, {status}($0)",
    "ld $29, {stack}($0)",
    "ld $4, {filler}($0)",
    "dmfc0 $5, $8",
    "mfc0 $6, $13",
    "li $8, {quiet}",
    "sd $0, {pending}($0)",
    "mtc0 $8, $12",
    "jal {fill}",
    "ehb",
    "beqz $2, guest_unfilled",
    "ld $27, {vcpu}($0)",
    // EPC is as it was: nothing has trapped.
    "ld $8, {status}($0)",
    "ld $10, {hi}($27)",
    "ld $11, {lo}($27)",
    "mtc0 $8, $12",
    "mthi $10",
    "mtlo $11",
    ".irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,24,25,26,29,31,27",
    "ld $\\n, {gpr}+8*\\n($27)",
    ".endr",
    "ehb",
    "eret",
    "guest_unfilled:",
    ".irp n, 16,17,18,19,20,21,22,23,28,30",
    "sd $\\n, {gpr}+8*\\n($27)",
    ".endr",
    "b guest_leave",
    "nop",

    // A reserved instruction; $26 is Cause, $27 the VCPU. In a delay slot, with threads' data not to be
    // read, or after a load-linked: no more than that.
    "guest_reserved:",
    "bltz $26, guest_save",
    "ld $26, {thread_allowed}($0)",
    "beqz $26, guest_save",
    "mfc0 $26, $17",
    "andi $26, $26, 1",
    "beqz $26, guest_save",
    // Should the load trap, the vector overwrites the guest's $26 and $27 where it has saved them.
    "ld $26, {k0}($0)",
    "sd $26, {gpr}+8*26($27)",
    "ld $26, {k1}($0)",
    "sd $26, {gpr}+8*27($27)",
    "ld $26, {fetch_lost}($0)",
    "sd $26, {recover}($0)",
    "dmfc0 $26, $14",
    "lw $26, 0($26)",
    "sd $0, {recover}($0)",
    "lui $27, 0x7c03",
    "ori $27, $27, 0xe83b",
    "bne $26, $27, guest_other",
    "dmfc0 $26, $14",
    "daddiu $26, $26, 4",
    "dmtc0 $26, $14",
    "ld $26, {thread_reads}($0)",
    "daddiu $26, $26, 1",
    "sd $26, {thread_reads}($0)",
    "ld $3, {thread_data}($0)",
    "ld $26, {k0}($0)",
    "ld $27, {k1}($0)",
    "sd $0, {pending}($0)",
    "eret",
    "guest_other:",
    "b guest_save",
    "ld $27, {vcpu}($0)",
    ".globl guest_fetch_lost",
    "guest_fetch_lost:",
    "dmfc0 $26, $14",
    "ori $26, $26, 1",
    "sd $26, {reserved}($0)",
    "ld $27, {vcpu}($0)",
    "ld $26, {gpr}+8*26($27)",
    "sd $26, {k0}($0)",
    "ld $26, {gpr}+8*27($27)",
    "b guest_save",
    "sd $26, {k1}($0)",
    ".set pop",
    monitor = const MONITOR,
    quiet = const QUIET,
    tlb_miss = const (ExcCode::TLBL.0 as u64) << 2,
    fill = sym crate::direct::fill,
    filler = const cell(offset_of!(CellPage, filler)),
    status = const cell(offset_of!(CellPage, guest_status)),
    reserved_instruction = const (ExcCode::RI.0 as u64) << 2,
    stack = const cell(offset_of!(CellPage, guest_stack)),
    vcpu = const cell(offset_of!(CellPage, vcpu)),
    thread_allowed = const cell(offset_of!(CellPage, thread_allowed)),
    thread_data = const cell(offset_of!(CellPage, thread_data)),
    thread_reads = const cell(offset_of!(CellPage, thread_reads)),
    fetch_lost = const cell(offset_of!(CellPage, fetch_lost)),
    k0 = const prom(offset_of!(PromPage, k)),
    k1 = const prom(offset_of!(PromPage, k) + 8),
    pending = const prom(offset_of!(PromPage, pending)),
    reserved = const prom(offset_of!(PromPage, reserved)),
    recover = const prom(offset_of!(PromPage, recover)),
    gpr = const Vcpu::GPR_OFFSET,
    hi = const Vcpu::HI_OFFSET,
    lo = const Vcpu::LO_OFFSET,
    pc = const Vcpu::PC_OFFSET,
    cause = const offset_of!(Left, cause),
    bad_vaddr = const offset_of!(Left, bad_vaddr),
    ll_addr = const offset_of!(Left, ll_addr),
);

unsafe extern "C" {
    fn guest_enter(vcpu: *mut u8, status: u64, left: *mut Left);
    fn guest_fetch_lost();
}

/// Runs the guest until it traps. Interrupts are on afterwards.
///
/// # Safety
/// `status` is as [`crate::direct`] composes it: a guest mode, EXL, and nothing that opens more to it
/// than its own address space. The VCPU is there, and its program counter is even: `eret` to an odd address is the end
/// of QEMU.
pub(crate) unsafe fn enter_guest(vcpu: *mut Vcpu, status: u64) -> Left {
    let mut left = Left::default();
    // SAFETY: the caller answers for what the guest can do; what comes back are its registers, in the
    // VCPU, and `left`. The stack pointer and the registers that a function keeps are kept.
    unsafe { guest_enter(vcpu.cast(), status, &raw mut left) };
    left
}

/// For [`CellPage::fetch_lost`].
pub(crate) fn fetch_lost_address() -> u64 {
    guest_fetch_lost as *const () as u64
}
