//! The inner loop.

use super::memory::Attempt;
use super::wary::Check;
use super::{Cx, Engine};
use crate::cpu::{ExcCode, Exception, Trap, Vcpu};
use crate::emulate::{Flow, alu, branch, fp, loadstore, system};
use crate::isa::{Insn, Op, decode};
use abi::PAGE_SIZE;

/// What a branch in a delay slot, and a 64-bit operation where there are none, causes.
pub(super) const RESERVED: Exception = Exception::Plain(ExcCode::Ri);

/// Bits of an address that differ between two instructions of a page.
pub(super) const IN_PAGE: u64 = (PAGE_SIZE - 1) & !3;

impl<const BIG: bool> Engine<'_, BIG> {
    /// Executes from the program counter on, whose page's decoded code is in `slot`, until control
    /// leaves the page, `end` instructions have been counted, an exception is taken, or something
    /// wants attention. At least one instruction is executed. `check` looks at each before that.
    pub(super) fn execute<C: Check>(&mut self, cpu: &mut Vcpu, slot: usize, end: u64, check: C) {
        let page = self.code.code(slot);
        let base = cpu.pc;
        // The segment: what is left of it, the address behind it, the count when it is done, the
        // address where it began.
        let mut rest;
        let mut stop_pc;
        let mut stop_count;
        let mut start_pc;
        // The segment is one delay slot, and `target` comes after it.
        let mut in_slot = cpu.in_slot;
        let mut target = cpu.target;

        /// Starts a segment at `pc`, in this page.
        macro_rules! begin {
            ($pc:expr) => {{
                let pc: u64 = $pc;
                let tail = &page[(pc & IN_PAGE) as usize / 4..];
                let mut count = tail.len().min((end - cpu.retired) as usize);
                if in_slot {
                    count = 1;
                }
                rest = tail[..count].iter();
                start_pc = pc;
                stop_pc = pc.wrapping_add(4 * count as u64);
                stop_count = cpu.retired + count as u64;
            }};
        }

        /// Address of the instruction being executed.
        macro_rules! here {
            () => {
                stop_pc.wrapping_sub(4 * rest.len() as u64 + 4)
            };
        }

        /// What instructions that access memory get.
        macro_rules! cx {
            () => {
                &mut Cx { cpu: &mut *cpu, engine: &mut *self }
            };
        }

        /// Leaves the loop before the instruction at `pc`.
        macro_rules! leave {
            ($pc:expr) => {{
                cpu.pc = $pc;
                cpu.retired = stop_count - rest.len() as u64;
                cpu.in_slot = in_slot;
                cpu.target = target;
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
                cpu.retired = stop_count - rest.len() as u64;
                cpu.take_exception(here, in_slot || after_branch);
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
                if cpu.attention {
                    leave_after!();
                }
            }};
        }

        /// A load or store that mostly hits the soft TLB.
        macro_rules! attempt {
            ($function:path) => {
                if $function(&mut Attempt::<BIG> { cpu: &mut *cpu }, insn!()).is_err() {
                    memory!(Self::access(cx!(), insn!()));
                }
            };
        }

        /// A system instruction: it may look at the VCPU's program counter and count.
        macro_rules! system {
            ($result:expr) => {{
                cpu.pc = here!();
                cpu.in_slot = in_slot;
                cpu.retired = stop_count - rest.len() as u64;
                match checked!($result) {
                    Flow::Next => {
                        if cpu.attention {
                            leave_after!();
                        }
                    }
                    Flow::Changed => {
                        Self::check_interrupts(cpu);
                        leave_after!();
                    }
                    Flow::Jump(to) => {
                        Self::check_interrupts(cpu);
                        in_slot = false;
                        leave!(to);
                    }
                    Flow::Wait => {
                        cpu.waiting = true;
                        cpu.attention = true;
                        leave_after!();
                    }
                }
            }};
        }

        /// A branch in a delay slot is UNPREDICTABLE; here, as in QEMU, a reserved instruction.
        macro_rules! not_in_slot {
            () => {
                if in_slot {
                    cpu.trap(RESERVED);
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
                branch::link(cpu, $reg, here!())
            };
        }

        begin!(base);
        loop {
            let Some(cell) = rest.next() else {
                cpu.retired = stop_count;
                let next = if in_slot { target } else { stop_pc };
                in_slot = false;
                if (next ^ base) & !IN_PAGE != 0 || stop_count >= end || check.stops(next) {
                    leave!(next);
                }
                begin!(next);
                continue;
            };
            /// The instruction. Read where it is used: then only the fields used are.
            macro_rules! insn {
                () => {
                    cell.get()
                };
            }
            check.look(cell);
            match insn!().op {
                Op::Undecoded => {
                    let Some(memory) = self.code.page(slot) else {
                        // Nothing frees the slot that is being executed.
                        leave!(here!());
                    };
                    let pc = here!();
                    let word = Self::word(memory, pc);
                    cell.set(decode(word));
                    check.decoded(pc, word);
                    let index = (pc & IN_PAGE) as usize / 4;
                    rest = page[index..index + rest.len() + 1].iter();
                }
                Op::Nop | Op::Pref => {}
                Op::Sync => memory!(system::sync(cx!())),
                Op::Li => alu::li(cpu, insn!()),
                Op::Move => alu::mov(cpu, insn!()),
                Op::Sll => alu::sll(cpu, insn!()),
                Op::Srl => alu::srl(cpu, insn!()),
                Op::Rotr => alu::rotr(cpu, insn!()),
                Op::Sra => alu::sra(cpu, insn!()),
                Op::Sllv => alu::sllv(cpu, insn!()),
                Op::Srlv => alu::srlv(cpu, insn!()),
                Op::Rotrv => alu::rotrv(cpu, insn!()),
                Op::Srav => alu::srav(cpu, insn!()),
                Op::Add => checked!(alu::add(cpu, insn!())),
                Op::Addu => alu::addu(cpu, insn!()),
                Op::Sub => checked!(alu::sub(cpu, insn!())),
                Op::Subu => alu::subu(cpu, insn!()),
                Op::And => alu::and(cpu, insn!()),
                Op::Or => alu::or(cpu, insn!()),
                Op::Xor => alu::xor(cpu, insn!()),
                Op::Nor => alu::nor(cpu, insn!()),
                Op::Slt => alu::slt(cpu, insn!()),
                Op::Sltu => alu::sltu(cpu, insn!()),
                Op::Movz => alu::movz(cpu, insn!()),
                Op::Movn => alu::movn(cpu, insn!()),
                Op::Addi => checked!(alu::addi(cpu, insn!())),
                Op::Addiu => alu::addiu(cpu, insn!()),
                Op::Slti => alu::slti(cpu, insn!()),
                Op::Sltiu => alu::sltiu(cpu, insn!()),
                Op::Andi => alu::andi(cpu, insn!()),
                Op::Ori => alu::ori(cpu, insn!()),
                Op::Xori => alu::xori(cpu, insn!()),
                Op::Mfhi => alu::mfhi(cpu, insn!()),
                Op::Mthi => alu::mthi(cpu, insn!()),
                Op::Mflo => alu::mflo(cpu, insn!()),
                Op::Mtlo => alu::mtlo(cpu, insn!()),
                Op::Mult => alu::mult(cpu, insn!()),
                Op::Multu => alu::multu(cpu, insn!()),
                Op::Div => alu::div(cpu, insn!()),
                Op::Divu => alu::divu(cpu, insn!()),
                Op::Madd => alu::madd(cpu, insn!()),
                Op::Maddu => alu::maddu(cpu, insn!()),
                Op::Msub => alu::msub(cpu, insn!()),
                Op::Msubu => alu::msubu(cpu, insn!()),
                Op::Mul => alu::mul(cpu, insn!()),
                Op::Clz => alu::clz(cpu, insn!()),
                Op::Clo => alu::clo(cpu, insn!()),
                Op::Ext => alu::ext(cpu, insn!()),
                Op::Ins => alu::ins(cpu, insn!()),
                Op::Wsbh => alu::wsbh(cpu, insn!()),
                Op::Seb => alu::seb(cpu, insn!()),
                Op::Seh => alu::seh(cpu, insn!()),
                Op::Dsllv => alu::dsllv(cpu, insn!()),
                Op::Dsrlv => alu::dsrlv(cpu, insn!()),
                Op::Drotrv => alu::drotrv(cpu, insn!()),
                Op::Dsrav => alu::dsrav(cpu, insn!()),
                Op::Dsll => alu::dsll(cpu, insn!()),
                Op::Dsrl => alu::dsrl(cpu, insn!()),
                Op::Drotr => alu::drotr(cpu, insn!()),
                Op::Dsra => alu::dsra(cpu, insn!()),
                Op::Dadd => checked!(alu::dadd(cpu, insn!())),
                Op::Daddu => alu::daddu(cpu, insn!()),
                Op::Dsub => checked!(alu::dsub(cpu, insn!())),
                Op::Dsubu => alu::dsubu(cpu, insn!()),
                Op::Daddi => checked!(alu::daddi(cpu, insn!())),
                Op::Daddiu => alu::daddiu(cpu, insn!()),
                Op::Dmult => alu::dmult(cpu, insn!()),
                Op::Dmultu => alu::dmultu(cpu, insn!()),
                Op::Ddiv => alu::ddiv(cpu, insn!()),
                Op::Ddivu => alu::ddivu(cpu, insn!()),
                Op::Dclz => alu::dclz(cpu, insn!()),
                Op::Dclo => alu::dclo(cpu, insn!()),
                Op::Dext => alu::dext(cpu, insn!()),
                Op::Dins => alu::dins(cpu, insn!()),
                Op::Dsbh => alu::dsbh(cpu, insn!()),
                Op::Dshd => alu::dshd(cpu, insn!()),

                Op::Lb => attempt!(loadstore::lb),
                Op::Lbu => attempt!(loadstore::lbu),
                Op::Lh => attempt!(loadstore::lh),
                Op::Lhu => attempt!(loadstore::lhu),
                Op::Lw => attempt!(loadstore::lw),
                Op::Lwu => attempt!(loadstore::lwu),
                Op::Ld => attempt!(loadstore::ld),
                Op::Sb => attempt!(loadstore::sb),
                Op::Sh => attempt!(loadstore::sh),
                Op::Sw => attempt!(loadstore::sw),
                Op::Sd => attempt!(loadstore::sd),
                Op::Lwl
                | Op::Lwr
                | Op::Ldl
                | Op::Ldr
                | Op::Swl
                | Op::Swr
                | Op::Sdl
                | Op::Sdr
                | Op::Ll
                | Op::Lld
                | Op::Sc
                | Op::Scd => {
                    memory!(Self::access(cx!(), insn!()));
                }

                Op::B => branch!(true, insn!()),
                Op::Beq => branch!(branch::beq(cpu, insn!()), insn!()),
                Op::Bne => branch!(branch::bne(cpu, insn!()), insn!()),
                Op::Blez => branch!(branch::blez(cpu, insn!()), insn!()),
                Op::Bgtz => branch!(branch::bgtz(cpu, insn!()), insn!()),
                Op::Bltz => branch!(branch::bltz(cpu, insn!()), insn!()),
                Op::Bgez => branch!(branch::bgez(cpu, insn!()), insn!()),
                Op::Beql => likely!(branch::beq(cpu, insn!()), insn!()),
                Op::Bnel => likely!(branch::bne(cpu, insn!()), insn!()),
                Op::Blezl => likely!(branch::blez(cpu, insn!()), insn!()),
                Op::Bgtzl => likely!(branch::bgtz(cpu, insn!()), insn!()),
                Op::Bltzl => likely!(branch::bltz(cpu, insn!()), insn!()),
                Op::Bgezl => likely!(branch::bgez(cpu, insn!()), insn!()),
                Op::Bltzal | Op::Bgezal | Op::Bltzall | Op::Bgezall => {
                    not_in_slot!();
                    let negative = branch::bltz(cpu, insn!());
                    link!(crate::isa::Reg::R31);
                    match insn!().op {
                        Op::Bltzal => branch!(negative, insn!()),
                        Op::Bgezal => branch!(!negative, insn!()),
                        Op::Bltzall => likely!(negative, insn!()),
                        _ => likely!(!negative, insn!()),
                    }
                }
                Op::J => {
                    not_in_slot!();
                    taken!(branch::jump_target(insn!(), here!()));
                }
                Op::Jal => {
                    not_in_slot!();
                    link!(crate::isa::Reg::R31);
                    taken!(branch::jump_target(insn!(), here!()));
                }
                Op::Jr => {
                    not_in_slot!();
                    taken!(cpu.a(insn!()));
                }
                Op::Jalr => {
                    not_in_slot!();
                    let to = cpu.a(insn!());
                    link!(insn!().c);
                    taken!(to);
                }
                Op::Bc1f => branch!(checked!(branch::conditions(cpu, insn!(), 1)) == 0, insn!()),
                Op::Bc1t => branch!(checked!(branch::conditions(cpu, insn!(), 1)) != 0, insn!()),
                Op::Bc1fl => likely!(checked!(branch::conditions(cpu, insn!(), 1)) == 0, insn!()),
                Op::Bc1tl => likely!(checked!(branch::conditions(cpu, insn!(), 1)) != 0, insn!()),
                Op::Bc1any2f => {
                    branch!(checked!(branch::conditions(cpu, insn!(), 2)) != 0b11, insn!());
                }
                Op::Bc1any2t => {
                    branch!(checked!(branch::conditions(cpu, insn!(), 2)) != 0, insn!());
                }
                Op::Bc1any4f => {
                    branch!(checked!(branch::conditions(cpu, insn!(), 4)) != 0b1111, insn!());
                }
                Op::Bc1any4t => {
                    branch!(checked!(branch::conditions(cpu, insn!(), 4)) != 0, insn!());
                }

                Op::Tge | Op::Tgeu | Op::Tlt | Op::Tltu | Op::Teq | Op::Tne => {
                    checked!(system::trap_register(cpu, insn!()));
                }
                Op::Tgei | Op::Tgeiu | Op::Tlti | Op::Tltiu | Op::Teqi | Op::Tnei => {
                    checked!(system::trap_immediate(cpu, insn!()));
                }
                Op::Reserved => system!(system::reserved(cpu, insn!())),
                Op::CopUnusable => system!(system::cop_unusable(cpu, insn!())),
                Op::Syscall => system!(system::syscall(cpu)),
                Op::Break => system!(system::break_(cpu)),
                Op::Synci => system!(system::synci(cx!(), insn!())),
                Op::Cache => system!(system::cache(cx!(), insn!())),
                Op::Rdhwr => system!(system::rdhwr(cx!(), insn!())),
                Op::Mfc0 => system!(system::mfc0(cx!(), insn!())),
                Op::Dmfc0 => system!(system::dmfc0(cx!(), insn!())),
                Op::Mtc0 | Op::Dmtc0 => system!(system::mtc0(cx!(), insn!())),
                Op::Rdpgpr | Op::Wrpgpr => system!(system::copy_gpr(cpu, insn!())),
                Op::Di => system!(system::di(cpu, insn!())),
                Op::Ei => system!(system::ei(cpu, insn!())),
                Op::Tlbr => system!(system::tlbr(cpu)),
                Op::Tlbwi => system!(system::tlbwi(cpu)),
                Op::Tlbwr => system!(system::tlbwr(cpu)),
                Op::Tlbp => system!(system::tlbp(cpu)),
                Op::Tlbinv => system!(system::tlbinv(cpu, false)),
                Op::Tlbinvf => system!(system::tlbinv(cpu, true)),
                Op::Eret => system!(system::eret(cpu)),
                Op::Wait => system!(system::wait(cpu)),
                Op::Lwc1 => attempt!(fp::lwc1),
                Op::Ldc1 => attempt!(fp::ldc1),
                Op::Swc1 => attempt!(fp::swc1),
                Op::Sdc1 => attempt!(fp::sdc1),
                Op::AddS => checked!(fp::add_s(cpu, insn!())),
                Op::AddD => checked!(fp::add_d(cpu, insn!())),
                Op::SubS => checked!(fp::sub_s(cpu, insn!())),
                Op::SubD => checked!(fp::sub_d(cpu, insn!())),
                Op::MulS => checked!(fp::mul_s(cpu, insn!())),
                Op::MulD => checked!(fp::mul_d(cpu, insn!())),
                Op::DivS => checked!(fp::div_s(cpu, insn!())),
                Op::DivD => checked!(fp::div_d(cpu, insn!())),
                Op::MovS => checked!(fp::mov_s(cpu, insn!())),
                Op::MovD => checked!(fp::mov_d(cpu, insn!())),
                Op::Cmp => checked!(fp::cmp(cpu, insn!())),
                Op::CvtDW => checked!(fp::cvt_d_w(cpu, insn!())),
                Op::CvtDS => checked!(fp::cvt_d_s(cpu, insn!())),
                Op::CvtSD => checked!(fp::cvt_s_d(cpu, insn!())),
                Op::ToWD => checked!(fp::to_w_d(cpu, insn!())),
                Op::Mfc1 => checked!(fp::mfc1(cpu, insn!())),
                Op::Mtc1 => checked!(fp::mtc1(cpu, insn!())),
                Op::Dmfc1 => checked!(fp::dmfc1(cpu, insn!())),
                Op::Dmtc1 => checked!(fp::dmtc1(cpu, insn!())),
                // All by name: then every number has its place in the jump table, and no range
                // needs to be checked.
                #[rustfmt::skip]
                Op::Movf | Op::Movt | Op::Mfhc1 | Op::Mthc1 | Op::Cfc1 | Op::Ctc1 | Op::AddPs | Op::SubPs | Op::MulPs | Op::SqrtS | Op::SqrtD | Op::AbsS | Op::AbsD | Op::AbsPs | Op::NegS | Op::NegD | Op::NegPs | Op::MovPs | Op::RecipS | Op::RecipD | Op::RsqrtS | Op::RsqrtD | Op::Recip1S | Op::Recip1D | Op::Recip1Ps | Op::Recip2S | Op::Recip2D | Op::Recip2Ps | Op::Rsqrt1S | Op::Rsqrt1D | Op::Rsqrt1Ps | Op::Rsqrt2S | Op::Rsqrt2D | Op::Rsqrt2Ps | Op::ToWS | Op::ToLS | Op::ToLD | Op::CvtSW | Op::CvtSL | Op::CvtDL | Op::CvtPsS | Op::CvtSPu | Op::CvtSPl | Op::CvtPsPw | Op::CvtPwPs | Op::AddrPs | Op::MulrPs | Op::AlnvPs | Op::PackPs | Op::Movcf | Op::MovzF | Op::MovnF | Op::Cabs | Op::MaddF | Op::MsubF | Op::NmaddF | Op::NmsubF | Op::Lwxc1 | Op::Ldxc1 | Op::Luxc1 | Op::Swxc1 | Op::Sdxc1 | Op::Suxc1 | Op::Prefx => memory!(fp::execute(cx!(), insn!())),
            }
        }
    }

    /// Any load or store, with everything at hand.
    #[inline(never)]
    fn access(cx: &mut Cx<'_, '_, BIG>, insn: Insn) -> Result<(), Trap> {
        match insn.op {
            Op::Lwc1 | Op::Ldc1 | Op::Swc1 | Op::Sdc1 => fp::execute(cx, insn),
            _ => loadstore::execute(cx, insn),
        }
    }
}
