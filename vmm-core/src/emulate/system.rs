//! System instructions: traps, CP0, the TLB. The engine has stored the instruction's address in the
//! VCPU before it calls one of these.

use super::{Context, Flow, word};
use crate::cpu::presence;
use crate::cpu::tlb::{Entry, LO_G, LO_PFN_SHIFT};
use crate::cpu::{CC_RESOLUTION, CpuModel, ExcCode, Exception, Status, Trap, Vcpu};
use crate::isa::{Insn, Op, Reg};

/// Result of a system instruction.
pub type Outcome = Result<Flow, Trap>;

/// EntryHi.EHINV.
const EHINV: u64 = 1 << 10;
/// EntryHi.VPN2 and above, without what SEGBITS cuts off.
const VPN2: u64 = !0x1fff;
/// Index.P: the probe found nothing.
const PROBE_FAILED: u32 = 1 << 31;

fn plain(cpu: &mut Vcpu, code: ExcCode) -> Trap {
    cpu.trap(Exception::Plain(code))
}

/// A word that is no instruction.
///
/// # Errors
/// Always: reserved instruction, or the coprocessor that the word belongs to is unusable.
pub fn reserved(cpu: &mut Vcpu, insn: Insn) -> Outcome {
    match insn.a {
        Reg::R1 => need_cop0(cpu)?,
        Reg::R2 => cpu.need_fpu()?,
        _ => {}
    }
    Err(plain(cpu, ExcCode::Ri))
}

/// An instruction of a coprocessor that does not exist.
///
/// # Errors
/// Always: coprocessor unusable.
pub fn cop_unusable(cpu: &mut Vcpu, insn: Insn) -> Outcome {
    Err(cpu.trap(Exception::CopUnusable(insn.imm as u8)))
}

/// `syscall`
///
/// # Errors
/// Always: system call.
pub fn syscall(cpu: &mut Vcpu) -> Outcome {
    Err(plain(cpu, ExcCode::Sys))
}

/// `break`
///
/// # Errors
/// Always: breakpoint.
pub fn break_(cpu: &mut Vcpu) -> Outcome {
    Err(plain(cpu, ExcCode::Bp))
}

fn trap_if(cpu: &mut Vcpu, condition: bool) -> Result<(), Trap> {
    if condition { Err(plain(cpu, ExcCode::Tr)) } else { Ok(()) }
}

fn trap_condition(op: Op, a: u64, b: u64) -> bool {
    match op {
        Op::Tge | Op::Tgei => a as i64 >= b as i64,
        Op::Tgeu | Op::Tgeiu => a >= b,
        Op::Tlt | Op::Tlti => (a as i64) < b as i64,
        Op::Tltu | Op::Tltiu => a < b,
        Op::Teq | Op::Teqi => a == b,
        _ => a != b,
    }
}

/// `tge`, `tgeu`, `tlt`, `tltu`, `teq`, `tne`
///
/// # Errors
/// Trap, if the condition holds.
pub fn trap_register(cpu: &mut Vcpu, insn: Insn) -> Result<(), Trap> {
    let condition = trap_condition(insn.op, cpu.a(insn), cpu.b(insn));
    trap_if(cpu, condition)
}

/// `tgei`, `tgeiu`, `tlti`, `tltiu`, `teqi`, `tnei`
///
/// # Errors
/// Trap, if the condition holds.
pub fn trap_immediate(cpu: &mut Vcpu, insn: Insn) -> Result<(), Trap> {
    let condition = trap_condition(insn.op, cpu.a(insn), insn.simm());
    trap_if(cpu, condition)
}

fn need_cop0(cpu: &mut Vcpu) -> Result<(), Trap> {
    if cpu.cop0_usable { Ok(()) } else { Err(cpu.trap(Exception::CopUnusable(0))) }
}

/// `cache`: memory is always coherent, so that only decoded code needs a word.
///
/// # Errors
/// Coprocessor 0 unusable.
pub fn cache<C: Context>(cx: &mut C, insn: Insn) -> Outcome {
    need_cop0(cx.cpu())?;
    // Bits 1:0 of the operation: instruction cache; bits 4:2: hit invalidate, or fill.
    if matches!(insn.b.index(), 0b10000 | 0b10100) { synci(cx, insn) } else { Ok(Flow::Next) }
}

/// `sync`, of any kind
///
/// # Errors
/// None.
pub fn sync<C: Context>(cx: &mut C) -> Result<(), Trap> {
    cx.synchronize();
    Ok(())
}

/// `synci`
///
/// # Errors
/// None.
pub fn synci<C: Context>(cx: &mut C, insn: Insn) -> Outcome {
    let va = super::loadstore::address(cx, insn);
    cx.code_changed(va);
    Ok(Flow::Next)
}

/// `rdhwr`
///
/// # Errors
/// Reserved instruction, where the register is absent or user mode may not read it.
pub fn rdhwr<C: Context>(cx: &mut C, insn: Insn) -> Outcome {
    let number = insn.a.index();
    let cpu = cx.cpu();
    let allowed = cpu.cop0_usable || cpu.cp0.hwrena >> number & 1 != 0;
    let value = match number {
        0 if allowed => cpu.cp0.ebase & 0x3ff,
        1 if allowed => u64::from(cpu.model.synci_step),
        2 if allowed => {
            let now = cx.now();
            cx.cpu().count(now) as i32 as u64
        }
        3 if allowed => CC_RESOLUTION,
        29 if allowed => cpu.cp0.user_local,
        _ => return Err(plain(cpu, ExcCode::Ri)),
    };
    cx.cpu().set_reg(insn.c, value);
    Ok(Flow::Next)
}

fn read_cp0<C: Context>(cx: &mut C, insn: Insn) -> Result<u64, Trap> {
    need_cop0(cx.cpu())?;
    let (reg, sel) = (insn.imm as u32 >> 3, insn.imm as u32 & 7);
    if reg == 13 {
        cx.sample_interrupts();
    }
    let now = if reg == 9 { cx.now() } else { 0 };
    Ok(cx.cpu().read_cp0(reg, sel, now))
}

/// `mfc0`
///
/// # Errors
/// Coprocessor 0 unusable.
pub fn mfc0<C: Context>(cx: &mut C, insn: Insn) -> Outcome {
    let value = read_cp0(cx, insn)?;
    cx.cpu().set_reg(insn.c, word(value));
    Ok(Flow::Next)
}

/// `dmfc0`
///
/// # Errors
/// Coprocessor 0 unusable.
pub fn dmfc0<C: Context>(cx: &mut C, insn: Insn) -> Outcome {
    let value = read_cp0(cx, insn)?;
    cx.cpu().set_reg(insn.c, value);
    Ok(Flow::Next)
}

/// `mtc0` and `dmtc0`
///
/// # Errors
/// Coprocessor 0 unusable.
pub fn mtc0<C: Context>(cx: &mut C, insn: Insn) -> Outcome {
    need_cop0(cx.cpu())?;
    let (reg, sel) = (insn.imm as u32 >> 3, insn.imm as u32 & 7);
    // Count, Compare and Cause.DC are about time.
    let now = if matches!(reg, 9 | 11 | 13) { cx.now() } else { 0 };
    let cpu = cx.cpu();
    let value = cpu.b(insn);
    let before = cpu.context();
    cpu.write_cp0(reg, sel, value, now);
    Ok(next_unless_changed(cpu, before))
}

/// How to go on after what may have changed the mode, the address space (`before` was the context),
/// or the masks of interrupts.
fn next_unless_changed(cpu: &Vcpu, before: (u64, u32)) -> Flow {
    let interrupted = cpu.has_unmasked_interrupt() && cpu.cp0.status.interrupts_enabled();
    if before == cpu.context() && !interrupted { Flow::Next } else { Flow::Changed }
}

/// `rdpgpr` and `wrpgpr`: there is one register set.
///
/// # Errors
/// Coprocessor 0 unusable.
pub fn copy_gpr(cpu: &mut Vcpu, insn: Insn) -> Outcome {
    need_cop0(cpu)?;
    let value = cpu.a(insn);
    cpu.set_reg(insn.c, value);
    Ok(Flow::Next)
}

/// `di`
///
/// # Errors
/// Coprocessor 0 unusable.
pub fn di(cpu: &mut Vcpu, insn: Insn) -> Outcome {
    need_cop0(cpu)?;
    cpu.set_reg(insn.c, word(cpu.cp0.status.bits().into()));
    cpu.cp0.status.remove(Status::IE);
    Ok(Flow::Next)
}

/// `ei`
///
/// # Errors
/// Coprocessor 0 unusable.
pub fn ei(cpu: &mut Vcpu, insn: Insn) -> Outcome {
    need_cop0(cpu)?;
    cpu.set_reg(insn.c, word(cpu.cp0.status.bits().into()));
    cpu.cp0.status.insert(Status::IE);
    Ok(next_unless_changed(cpu, cpu.context()))
}

/// The entry that Index names.
fn indexed(cpu: &Vcpu) -> usize {
    (cpu.cp0.index & !PROBE_FAILED) as usize % cpu.tlb.len()
}

/// `tlbr`
///
/// # Errors
/// Coprocessor 0 unusable.
pub fn tlbr(cpu: &mut Vcpu) -> Outcome {
    need_cop0(cpu)?;
    let entry = *cpu.tlb.entry(indexed(cpu));
    if entry.invalid {
        cpu.cp0.page_mask = 0;
        cpu.cp0.entry_lo = [0; 2];
        cpu.set_entry_hi(EHINV);
    } else {
        cpu.cp0.page_mask = entry.mask as u32;
        cpu.cp0.entry_lo = entry.lo;
        cpu.set_entry_hi(entry.vpn | u64::from(entry.asid));
    }
    Ok(Flow::Changed)
}

/// What EntryHi, EntryLo0, EntryLo1 and PageMask describe.
fn described(cpu: &Vcpu) -> Entry {
    let cp0 = &cpu.cp0;
    entry(&cpu.model, cp0.entry_hi, cp0.entry_lo, cp0.page_mask)
}

/// The entry that registers with these contents, which a model allows, describe.
pub(crate) fn entry(model: &CpuModel, entry_hi: u64, entry_lo: [u64; 2], page_mask: u32) -> Entry {
    let mask = u64::from(page_mask);
    let global = entry_lo[0] & entry_lo[1] & LO_G;
    // A bigger page has no use for the low bits of its frame number; the two G bits become one.
    let unused = mask >> 13 << LO_PFN_SHIFT;
    Entry {
        vpn: entry_hi & VPN2 & model.segment_mask(),
        mask,
        asid: entry_hi as u8,
        global: global != 0,
        invalid: entry_hi & EHINV != 0,
        lo: entry_lo.map(|lo| lo & !unused & !LO_G | global),
    }
}

/// Entry `index`, which there is, becomes `new`, which is possible.
pub(crate) fn write_entry(cpu: &mut Vcpu, index: usize, new: Entry) {
    let (old, copied) = (*cpu.tlb.entry(index), cpu.tlb.is_copied(index));
    let covers = cpu.tlb.write(index, new);
    forget(cpu, &old, copied);
    // Where nothing else was, nothing has been copied.
    if covers {
        forget(cpu, &new, true);
    }
}

/// Copies of what an entry has translated are void. Whether an engine may have `copied` it is known of user addresses only: what
/// it has made of others is its own affair.
fn forget(cpu: &mut Vcpu, entry: &Entry, copied: bool) {
    if copied || !presence::is_user(entry.vpn) {
        cpu.stale.entry(entry);
    }
    if !entry.invalid {
        cpu.soft.flush_pair(entry.vpn, entry.pair_mask());
    }
}

/// `tlbwi`
///
/// # Errors
/// Coprocessor 0 unusable.
pub fn tlbwi(cpu: &mut Vcpu) -> Outcome {
    need_cop0(cpu)?;
    write_entry(cpu, indexed(cpu), described(cpu));
    Ok(Flow::Changed)
}

/// `tlbwr`
///
/// # Errors
/// Coprocessor 0 unusable.
pub fn tlbwr(cpu: &mut Vcpu) -> Outcome {
    need_cop0(cpu)?;
    let index = cpu.next_random() as usize;
    write_entry(cpu, index, described(cpu));
    Ok(Flow::Changed)
}

/// `tlbp`
///
/// # Errors
/// Coprocessor 0 unusable.
pub fn tlbp(cpu: &mut Vcpu) -> Outcome {
    need_cop0(cpu)?;
    match cpu.tlb.lookup(cpu.cp0.entry_hi, cpu.asid()) {
        Some(index) => cpu.cp0.index = index as u32,
        None => cpu.cp0.index |= PROBE_FAILED,
    }
    Ok(Flow::Next)
}

/// `tlbinv` (the private entries of the present address space) and `tlbinvf` (all). Without effect
/// where the model lacks them.
///
/// # Errors
/// Coprocessor 0 unusable.
pub fn tlbinv(cpu: &mut Vcpu, all: bool) -> Outcome {
    need_cop0(cpu)?;
    if !cpu.model.has_tlbinv() {
        return Ok(Flow::Next);
    }
    let asid = cpu.asid();
    cpu.tlb.invalidate((!all).then_some(asid));
    cpu.soft.flush();
    if all {
        cpu.stale.everything();
    } else {
        cpu.stale.space(asid);
    }
    Ok(Flow::Changed)
}

/// `eret`
///
/// # Errors
/// Coprocessor 0 unusable; reserved instruction in a delay slot.
pub fn eret(cpu: &mut Vcpu) -> Outcome {
    need_cop0(cpu)?;
    if cpu.in_slot {
        return Err(plain(cpu, ExcCode::Ri));
    }
    Ok(Flow::Jump(cpu.exception_return()))
}

/// `wait`
///
/// # Errors
/// Coprocessor 0 unusable.
pub fn wait(cpu: &mut Vcpu) -> Outcome {
    need_cop0(cpu)?;
    Ok(Flow::Wait)
}
