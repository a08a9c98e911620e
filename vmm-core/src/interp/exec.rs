//! The inner loop.

use super::Engine;
use crate::bus::Bus;
use crate::cpu::Trap;
use crate::emulate::{Flow, alu, branch, fp, loadstore, system};
use crate::isa::{Op, decode};
use crate::mem::GuestMemory;
use crate::time::Clock;
use abi::PAGE_SIZE;

use super::code::INSNS;

/// Bits of an address that differ between two instructions of a page.
const IN_PAGE: u64 = (PAGE_SIZE - 1) & !3;

impl<const BIG: bool, M: GuestMemory, B: Bus, C: Clock> Engine<'_, BIG, M, B, C> {
    /// Executes from the program counter on, whose page's decoded code is in `slot`, until control
    /// leaves the page, `end` instructions have been counted, an exception is taken, or something
    /// wants attention. At least one instruction is executed.
    pub(super) fn execute(&mut self, slot: usize, end: u64) {
        let page = self.code.code(slot);
        let base = self.cpu.pc;
        // The segment: what is left of it, the address behind it, the count when it is done, the
        // address where it began.
        let mut rest;
        let mut stop_pc;
        let mut stop_count;
        let mut start_pc;
        // The segment is one delay slot, and `target` comes after it.
        let mut in_slot = self.cpu.in_slot;
        let mut target = self.cpu.target;

        /// Starts a segment at `pc`, in this page.
        macro_rules! begin {
            ($pc:expr) => {{
                let pc: u64 = $pc;
                let first = (pc & IN_PAGE) as usize / 4;
                let mut count = (INSNS - first).min((end - self.cpu.retired) as usize);
                if in_slot {
                    count = 1;
                }
                if self.cpu.narrow {
                    count = 1;
                    if let Err(Trap) = self.check_narrow(slot, first) {
                        self.cpu.retired += 1;
                        self.cpu.take_exception(pc, in_slot);
                        return;
                    }
                }
                rest = page[first..first + count].iter();
                start_pc = pc;
                stop_pc = pc.wrapping_add(4 * count as u64);
                stop_count = self.cpu.retired + count as u64;
            }};
        }

        /// Address of the instruction being executed.
        macro_rules! here {
            () => {
                stop_pc.wrapping_sub(4 * rest.len() as u64 + 4)
            };
        }

        /// Leaves the loop before the instruction at `pc`.
        macro_rules! leave {
            ($pc:expr) => {{
                self.cpu.pc = $pc;
                self.cpu.retired = stop_count - rest.len() as u64;
                self.cpu.in_slot = in_slot;
                self.cpu.target = target;
                return;
            }};
        }

        /// Leaves the loop after this instruction.
        macro_rules! leave_after {
            () => {{
                let here: u64 = here!();
                let next = if in_slot { target } else { here.wrapping_add(4) };
                in_slot = false;
                leave!(next)
            }};
        }

        /// Takes the exception of this instruction.
        macro_rules! trap {
            () => {{
                let here: u64 = here!();
                // After a branch that was not taken the segment simply went on.
                let before = here.wrapping_sub(4);
                let after_branch =
                    here != start_pc && page[(before & IN_PAGE) as usize / 4].get().op.is_branch();
                self.cpu.retired = stop_count - rest.len() as u64;
                self.cpu.take_exception(here, in_slot || after_branch);
                return;
            }};
        }

        macro_rules! checked {
            ($result:expr) => {
                match $result {
                    Ok(value) => value,
                    Err(Trap) => trap!(),
                }
            };
        }

        /// A load or store.
        macro_rules! memory {
            ($result:expr) => {{
                checked!($result);
                if self.attention {
                    leave_after!();
                }
            }};
        }

        /// A system instruction: it may look at the VCPU's program counter and count.
        macro_rules! system {
            ($result:expr) => {{
                self.cpu.pc = here!();
                self.cpu.in_slot = in_slot;
                self.cpu.retired = stop_count - rest.len() as u64;
                match checked!($result) {
                    Flow::Next => {
                        if self.attention {
                            leave_after!();
                        }
                    }
                    Flow::Changed => {
                        self.check_interrupts();
                        leave_after!();
                    }
                    Flow::Jump(to) => {
                        self.check_interrupts();
                        in_slot = false;
                        leave!(to);
                    }
                    Flow::Wait => {
                        self.cpu.waiting = true;
                        self.attention = true;
                        leave_after!();
                    }
                }
            }};
        }

        /// A branch in a delay slot is UNPREDICTABLE; here, as in QEMU, a reserved instruction.
        macro_rules! not_in_slot {
            () => {
                if in_slot {
                    self.reserved();
                    trap!();
                }
            };
        }

        /// The delay slot, then `to`.
        macro_rules! taken {
            ($to:expr) => {{
                target = $to;
                in_slot = true;
                match rest.as_slice() {
                    [slot, more @ ..] => {
                        stop_count -= more.len() as u64;
                        stop_pc = stop_pc.wrapping_sub(4 * more.len() as u64);
                        rest = core::slice::from_ref(slot).iter();
                    }
                    // Behind the page's end, or that of the allowance.
                    [] => leave!(stop_pc),
                }
            }};
        }

        /// A conditional branch: its delay slot is executed either way.
        macro_rules! branch {
            ($condition:expr, $insn:expr) => {{
                let condition = $condition;
                not_in_slot!();
                if condition {
                    taken!(branch::target($insn, here!()));
                } else if rest.len() == 0 {
                    taken!(stop_pc.wrapping_add(4));
                }
            }};
        }

        /// A branch whose delay slot is executed only if it is taken.
        macro_rules! likely {
            ($condition:expr, $insn:expr) => {{
                let condition = $condition;
                not_in_slot!();
                if condition {
                    taken!(branch::target($insn, here!()));
                } else if rest.next().is_some() {
                    stop_count -= 1;
                    start_pc = here!().wrapping_add(4);
                } else {
                    leave!(stop_pc.wrapping_add(4));
                }
            }};
        }

        /// A call, then what jumps.
        macro_rules! link {
            ($reg:expr) => {
                branch::link(self.cpu, $reg, here!())
            };
        }

        begin!(base);
        loop {
            let Some(cell) = rest.next() else {
                self.cpu.retired = stop_count;
                let next = if in_slot { target } else { stop_pc };
                in_slot = false;
                if (next ^ base) & !IN_PAGE != 0 || stop_count >= end {
                    leave!(next);
                }
                begin!(next);
                continue;
            };
            let insn = cell.get();
            match insn.op {
                Op::Undecoded => {
                    let Some(memory) = self.code.page(slot) else {
                        // Nothing frees the slot that is being executed.
                        leave!(here!());
                    };
                    let pc = here!();
                    cell.set(decode(Self::word(memory, pc)));
                    let index = (pc & IN_PAGE) as usize / 4;
                    rest = page[index..index + rest.len() + 1].iter();
                }
                Op::Nop | Op::Pref | Op::Sync => {}
                Op::Li => alu::li(self.cpu, insn),
                Op::Move => alu::mov(self.cpu, insn),
                Op::Sll => alu::sll(self.cpu, insn),
                Op::Srl => alu::srl(self.cpu, insn),
                Op::Rotr => alu::rotr(self.cpu, insn),
                Op::Sra => alu::sra(self.cpu, insn),
                Op::Sllv => alu::sllv(self.cpu, insn),
                Op::Srlv => alu::srlv(self.cpu, insn),
                Op::Rotrv => alu::rotrv(self.cpu, insn),
                Op::Srav => alu::srav(self.cpu, insn),
                Op::Add => checked!(alu::add(self.cpu, insn)),
                Op::Addu => alu::addu(self.cpu, insn),
                Op::Sub => checked!(alu::sub(self.cpu, insn)),
                Op::Subu => alu::subu(self.cpu, insn),
                Op::And => alu::and(self.cpu, insn),
                Op::Or => alu::or(self.cpu, insn),
                Op::Xor => alu::xor(self.cpu, insn),
                Op::Nor => alu::nor(self.cpu, insn),
                Op::Slt => alu::slt(self.cpu, insn),
                Op::Sltu => alu::sltu(self.cpu, insn),
                Op::Movz => alu::movz(self.cpu, insn),
                Op::Movn => alu::movn(self.cpu, insn),
                Op::Addi => checked!(alu::addi(self.cpu, insn)),
                Op::Addiu => alu::addiu(self.cpu, insn),
                Op::Slti => alu::slti(self.cpu, insn),
                Op::Sltiu => alu::sltiu(self.cpu, insn),
                Op::Andi => alu::andi(self.cpu, insn),
                Op::Ori => alu::ori(self.cpu, insn),
                Op::Xori => alu::xori(self.cpu, insn),
                Op::Mfhi => alu::mfhi(self.cpu, insn),
                Op::Mthi => alu::mthi(self.cpu, insn),
                Op::Mflo => alu::mflo(self.cpu, insn),
                Op::Mtlo => alu::mtlo(self.cpu, insn),
                Op::Mult => alu::mult(self.cpu, insn),
                Op::Multu => alu::multu(self.cpu, insn),
                Op::Div => alu::div(self.cpu, insn),
                Op::Divu => alu::divu(self.cpu, insn),
                Op::Madd => alu::madd(self.cpu, insn),
                Op::Maddu => alu::maddu(self.cpu, insn),
                Op::Msub => alu::msub(self.cpu, insn),
                Op::Msubu => alu::msubu(self.cpu, insn),
                Op::Mul => alu::mul(self.cpu, insn),
                Op::Clz => alu::clz(self.cpu, insn),
                Op::Clo => alu::clo(self.cpu, insn),
                Op::Ext => alu::ext(self.cpu, insn),
                Op::Ins => alu::ins(self.cpu, insn),
                Op::Wsbh => alu::wsbh(self.cpu, insn),
                Op::Seb => alu::seb(self.cpu, insn),
                Op::Seh => alu::seh(self.cpu, insn),
                Op::Dsllv => alu::dsllv(self.cpu, insn),
                Op::Dsrlv => alu::dsrlv(self.cpu, insn),
                Op::Drotrv => alu::drotrv(self.cpu, insn),
                Op::Dsrav => alu::dsrav(self.cpu, insn),
                Op::Dsll => alu::dsll(self.cpu, insn),
                Op::Dsrl => alu::dsrl(self.cpu, insn),
                Op::Drotr => alu::drotr(self.cpu, insn),
                Op::Dsra => alu::dsra(self.cpu, insn),
                Op::Dadd => checked!(alu::dadd(self.cpu, insn)),
                Op::Daddu => alu::daddu(self.cpu, insn),
                Op::Dsub => checked!(alu::dsub(self.cpu, insn)),
                Op::Dsubu => alu::dsubu(self.cpu, insn),
                Op::Daddi => checked!(alu::daddi(self.cpu, insn)),
                Op::Daddiu => alu::daddiu(self.cpu, insn),
                Op::Dmult => alu::dmult(self.cpu, insn),
                Op::Dmultu => alu::dmultu(self.cpu, insn),
                Op::Ddiv => alu::ddiv(self.cpu, insn),
                Op::Ddivu => alu::ddivu(self.cpu, insn),
                Op::Dclz => alu::dclz(self.cpu, insn),
                Op::Dclo => alu::dclo(self.cpu, insn),
                Op::Dext => alu::dext(self.cpu, insn),
                Op::Dins => alu::dins(self.cpu, insn),
                Op::Dsbh => alu::dsbh(self.cpu, insn),
                Op::Dshd => alu::dshd(self.cpu, insn),

                Op::Lb => memory!(loadstore::lb(self, insn)),
                Op::Lbu => memory!(loadstore::lbu(self, insn)),
                Op::Lh => memory!(loadstore::lh(self, insn)),
                Op::Lhu => memory!(loadstore::lhu(self, insn)),
                Op::Lw => memory!(loadstore::lw(self, insn)),
                Op::Lwu => memory!(loadstore::lwu(self, insn)),
                Op::Ld => memory!(loadstore::ld(self, insn)),
                Op::Sb => memory!(loadstore::sb(self, insn)),
                Op::Sh => memory!(loadstore::sh(self, insn)),
                Op::Sw => memory!(loadstore::sw(self, insn)),
                Op::Sd => memory!(loadstore::sd(self, insn)),
                Op::Lwl => memory!(loadstore::lwl(self, insn)),
                Op::Lwr => memory!(loadstore::lwr(self, insn)),
                Op::Ldl => memory!(loadstore::ldl(self, insn)),
                Op::Ldr => memory!(loadstore::ldr(self, insn)),
                Op::Swl => memory!(loadstore::swl(self, insn)),
                Op::Swr => memory!(loadstore::swr(self, insn)),
                Op::Sdl => memory!(loadstore::sdl(self, insn)),
                Op::Sdr => memory!(loadstore::sdr(self, insn)),
                Op::Ll => memory!(loadstore::ll(self, insn)),
                Op::Lld => memory!(loadstore::lld(self, insn)),
                Op::Sc => memory!(loadstore::sc(self, insn)),
                Op::Scd => memory!(loadstore::scd(self, insn)),

                Op::B => branch!(true, insn),
                Op::Beq => branch!(branch::beq(self.cpu, insn), insn),
                Op::Bne => branch!(branch::bne(self.cpu, insn), insn),
                Op::Blez => branch!(branch::blez(self.cpu, insn), insn),
                Op::Bgtz => branch!(branch::bgtz(self.cpu, insn), insn),
                Op::Bltz => branch!(branch::bltz(self.cpu, insn), insn),
                Op::Bgez => branch!(branch::bgez(self.cpu, insn), insn),
                Op::Beql => likely!(branch::beq(self.cpu, insn), insn),
                Op::Bnel => likely!(branch::bne(self.cpu, insn), insn),
                Op::Blezl => likely!(branch::blez(self.cpu, insn), insn),
                Op::Bgtzl => likely!(branch::bgtz(self.cpu, insn), insn),
                Op::Bltzl => likely!(branch::bltz(self.cpu, insn), insn),
                Op::Bgezl => likely!(branch::bgez(self.cpu, insn), insn),
                Op::Bltzal | Op::Bgezal | Op::Bltzall | Op::Bgezall => {
                    not_in_slot!();
                    let negative = branch::bltz(self.cpu, insn);
                    link!(crate::isa::Reg::R31);
                    match insn.op {
                        Op::Bltzal => branch!(negative, insn),
                        Op::Bgezal => branch!(!negative, insn),
                        Op::Bltzall => likely!(negative, insn),
                        _ => likely!(!negative, insn),
                    }
                }
                Op::J => {
                    not_in_slot!();
                    taken!(branch::jump_target(insn, here!()));
                }
                Op::Jal => {
                    not_in_slot!();
                    link!(crate::isa::Reg::R31);
                    taken!(branch::jump_target(insn, here!()));
                }
                Op::Jr => {
                    not_in_slot!();
                    taken!(self.cpu.a(insn));
                }
                Op::Jalr => {
                    not_in_slot!();
                    let to = self.cpu.a(insn);
                    link!(insn.c);
                    taken!(to);
                }
                Op::Bc1f => branch!(checked!(branch::conditions(self.cpu, insn, 1)) == 0, insn),
                Op::Bc1t => branch!(checked!(branch::conditions(self.cpu, insn, 1)) != 0, insn),
                Op::Bc1fl => likely!(checked!(branch::conditions(self.cpu, insn, 1)) == 0, insn),
                Op::Bc1tl => likely!(checked!(branch::conditions(self.cpu, insn, 1)) != 0, insn),
                Op::Bc1any2f => {
                    branch!(checked!(branch::conditions(self.cpu, insn, 2)) != 0b11, insn);
                }
                Op::Bc1any2t => {
                    branch!(checked!(branch::conditions(self.cpu, insn, 2)) != 0, insn);
                }
                Op::Bc1any4f => {
                    branch!(checked!(branch::conditions(self.cpu, insn, 4)) != 0b1111, insn);
                }
                Op::Bc1any4t => {
                    branch!(checked!(branch::conditions(self.cpu, insn, 4)) != 0, insn);
                }

                Op::Tge | Op::Tgeu | Op::Tlt | Op::Tltu | Op::Teq | Op::Tne => {
                    checked!(system::trap_register(self.cpu, insn));
                }
                Op::Tgei | Op::Tgeiu | Op::Tlti | Op::Tltiu | Op::Teqi | Op::Tnei => {
                    checked!(system::trap_immediate(self.cpu, insn));
                }
                Op::Reserved => system!(system::reserved(self.cpu, insn)),
                Op::CopUnusable => system!(system::cop_unusable(self.cpu, insn)),
                Op::Syscall => system!(system::syscall(self.cpu)),
                Op::Break => system!(system::break_(self.cpu)),
                Op::Synci => system!(system::synci(self, insn)),
                Op::Cache => system!(system::cache(self, insn)),
                Op::Rdhwr => system!(system::rdhwr(self, insn)),
                Op::Mfc0 => system!(system::mfc0(self, insn)),
                Op::Dmfc0 => system!(system::dmfc0(self, insn)),
                Op::Mtc0 | Op::Dmtc0 => system!(system::mtc0(self, insn)),
                Op::Rdpgpr | Op::Wrpgpr => system!(system::copy_gpr(self.cpu, insn)),
                Op::Di => system!(system::di(self.cpu, insn)),
                Op::Ei => system!(system::ei(self.cpu, insn)),
                Op::Tlbr => system!(system::tlbr(self.cpu)),
                Op::Tlbwi => system!(system::tlbwi(self.cpu)),
                Op::Tlbwr => system!(system::tlbwr(self.cpu)),
                Op::Tlbp => system!(system::tlbp(self.cpu)),
                Op::Tlbinv => system!(system::tlbinv(self.cpu, false)),
                Op::Tlbinvf => system!(system::tlbinv(self.cpu, true)),
                Op::Eret => system!(system::eret(self.cpu)),
                Op::Wait => system!(system::wait(self.cpu)),
                Op::Lwc1 => memory!(fp::lwc1(self, insn)),
                Op::Ldc1 => memory!(fp::ldc1(self, insn)),
                Op::Swc1 => memory!(fp::swc1(self, insn)),
                Op::Sdc1 => memory!(fp::sdc1(self, insn)),
                Op::AddS => checked!(fp::add_s(self.cpu, insn)),
                Op::AddD => checked!(fp::add_d(self.cpu, insn)),
                Op::SubS => checked!(fp::sub_s(self.cpu, insn)),
                Op::SubD => checked!(fp::sub_d(self.cpu, insn)),
                Op::MulS => checked!(fp::mul_s(self.cpu, insn)),
                Op::MulD => checked!(fp::mul_d(self.cpu, insn)),
                Op::DivS => checked!(fp::div_s(self.cpu, insn)),
                Op::DivD => checked!(fp::div_d(self.cpu, insn)),
                Op::MovS => checked!(fp::mov_s(self.cpu, insn)),
                Op::MovD => checked!(fp::mov_d(self.cpu, insn)),
                Op::Cmp => checked!(fp::cmp(self.cpu, insn)),
                Op::CvtDW => checked!(fp::cvt_d_w(self.cpu, insn)),
                Op::CvtDS => checked!(fp::cvt_d_s(self.cpu, insn)),
                Op::CvtSD => checked!(fp::cvt_s_d(self.cpu, insn)),
                Op::ToWD => checked!(fp::to_w_d(self.cpu, insn)),
                Op::Mfc1 => checked!(fp::mfc1(self.cpu, insn)),
                Op::Mtc1 => checked!(fp::mtc1(self.cpu, insn)),
                Op::Dmfc1 => checked!(fp::dmfc1(self.cpu, insn)),
                Op::Dmtc1 => checked!(fp::dmtc1(self.cpu, insn)),
                // The rest is floating point too.
                _ => memory!(fp::execute(self, insn)),
            }
        }
    }

    /// With 64-bit operations disabled: whether the instruction is one.
    #[cold]
    fn check_narrow(&mut self, slot: usize, index: usize) -> Result<(), Trap> {
        let cell = &self.code.code(slot)[index];
        if cell.get().op == Op::Undecoded
            && let Some(memory) = self.code.page(slot)
        {
            cell.set(decode(Self::word(memory, index as u64 * 4)));
        }
        if cell.get().op.is_64bit() { Err(self.reserved()) } else { Ok(()) }
    }
}
