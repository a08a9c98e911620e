//! From an instruction word to an [`Insn`]: everything but coprocessor 1.

use super::cop1;
use super::{Insn, Op, Reg};

/// The fields of an instruction word.
#[derive(Clone, Copy)]
pub(super) struct Word(pub u32);

impl Word {
    pub const fn bits(self, low: u32, count: u32) -> u32 {
        (self.0 >> low) & ((1 << count) - 1)
    }
    pub const fn opcode(self) -> u32 {
        self.bits(26, 6)
    }
    pub const fn rs(self) -> Reg {
        Reg::from_bits(self.0 >> 21)
    }
    pub const fn rt(self) -> Reg {
        Reg::from_bits(self.0 >> 16)
    }
    pub const fn rd(self) -> Reg {
        Reg::from_bits(self.0 >> 11)
    }
    pub const fn sa(self) -> u32 {
        self.bits(6, 5)
    }
    pub const fn function(self) -> u32 {
        self.bits(0, 6)
    }
    pub const fn simm(self) -> i32 {
        self.0 as i16 as i32
    }
    pub const fn uimm(self) -> i32 {
        (self.0 & 0xffff) as i32
    }
    /// Target of a branch, relative to its delay slot.
    pub const fn offset(self) -> i32 {
        self.simm() << 2
    }

    pub const fn reserved(self) -> Insn {
        Insn { op: Op::Reserved, imm: self.0 as i32, ..Insn::UNDECODED }
    }

    /// rd ← rs, rt
    const fn register(self, op: Op) -> Insn {
        Insn { op, a: self.rs(), b: self.rt(), c: self.rd().destination(), imm: 0 }
    }

    /// As [`Word::register`], without effect when the destination is `$zero`.
    const fn pure(self, op: Op) -> Insn {
        match self.rd() {
            Reg::R0 => NOP,
            _ => self.register(op),
        }
    }

    const fn shift(self, op: Op, amount: u32) -> Insn {
        Insn { imm: amount as i32, ..self.pure(op) }
    }

    /// rt ← rs, constant
    const fn immediate(self, op: Op, imm: i32) -> Insn {
        Insn { op, a: self.rs(), b: self.rt(), c: self.rt().destination(), imm }
    }

    const fn pure_immediate(self, op: Op, imm: i32) -> Insn {
        match self.rt() {
            Reg::R0 => NOP,
            _ => self.immediate(op, imm),
        }
    }

    /// Loads and stores, and what takes their format.
    const fn memory(self, op: Op) -> Insn {
        self.immediate(op, self.simm())
    }

    const fn branch(self, op: Op) -> Insn {
        self.immediate(op, self.offset())
    }
}

const NOP: Insn = Insn { op: Op::Nop, ..Insn::UNDECODED };

/// Decodes one instruction word (as a number: the caller has undone the guest's byte order).
#[must_use]
pub fn decode(word: u32) -> Insn {
    let w = Word(word);
    match w.opcode() {
        0x00 => special(w),
        0x01 => regimm(w),
        0x02 => jump(w, Op::J),
        0x03 => jump(w, Op::Jal),
        0x04 if w.rs() == w.rt() => w.branch(Op::B),
        0x04 => w.branch(Op::Beq),
        // Never taken.
        0x05 if w.rs() == w.rt() => NOP,
        0x05 => w.branch(Op::Bne),
        0x06 if w.rt() == Reg::R0 => w.branch(Op::Blez),
        0x07 if w.rt() == Reg::R0 && w.rs() == Reg::R0 => NOP,
        0x07 if w.rt() == Reg::R0 => w.branch(Op::Bgtz),
        0x08 => w.memory(Op::Addi),
        0x09 | 0x0d if w.rs() == Reg::R0 => {
            // addiu and ori of $zero: constants.
            let imm = if w.opcode() == 0x09 { w.simm() } else { w.uimm() };
            w.pure_immediate(Op::Li, imm)
        }
        0x09 => w.pure_immediate(Op::Addiu, w.simm()),
        0x0a => w.pure_immediate(Op::Slti, w.simm()),
        0x0b => w.pure_immediate(Op::Sltiu, w.simm()),
        0x0c => w.pure_immediate(Op::Andi, w.uimm()),
        0x0d => w.pure_immediate(Op::Ori, w.uimm()),
        0x0e => w.pure_immediate(Op::Xori, w.uimm()),
        0x0f => w.pure_immediate(Op::Li, w.uimm() << 16),
        0x10 => cop0(w),
        0x11 => cop1::decode(w),
        0x13 => cop1::decode_x(w),
        0x14 => w.branch(Op::Beql),
        0x15 => w.branch(Op::Bnel),
        0x16 => w.branch(Op::Blezl),
        0x17 => w.branch(Op::Bgtzl),
        0x18 => w.memory(Op::Daddi),
        0x19 => w.memory(Op::Daddiu),
        0x1a => w.memory(Op::Ldl),
        0x1b => w.memory(Op::Ldr),
        0x1c => special2(w),
        0x1f => special3(w),
        0x20 => w.memory(Op::Lb),
        0x21 => w.memory(Op::Lh),
        0x22 => w.memory(Op::Lwl),
        0x23 => w.memory(Op::Lw),
        0x24 => w.memory(Op::Lbu),
        0x25 => w.memory(Op::Lhu),
        0x26 => w.memory(Op::Lwr),
        0x27 => w.memory(Op::Lwu),
        0x28 => w.memory(Op::Sb),
        0x29 => w.memory(Op::Sh),
        0x2a => w.memory(Op::Swl),
        0x2b => w.memory(Op::Sw),
        0x2c => w.memory(Op::Sdl),
        0x2d => w.memory(Op::Sdr),
        0x2e => w.memory(Op::Swr),
        0x2f => w.memory(Op::Cache),
        0x30 => w.memory(Op::Ll),
        0x31 => fp_memory(w, Op::Lwc1),
        0x33 => w.memory(Op::Pref),
        0x34 => w.memory(Op::Lld),
        0x35 => fp_memory(w, Op::Ldc1),
        0x37 => w.memory(Op::Ld),
        0x38 => w.memory(Op::Sc),
        0x39 => fp_memory(w, Op::Swc1),
        0x3c => w.memory(Op::Scd),
        0x3d => fp_memory(w, Op::Sdc1),
        0x3f => w.memory(Op::Sd),
        // Loads and stores of coprocessor 2, which is absent.
        0x32 | 0x36 | 0x3a | 0x3e => Insn { op: Op::CopUnusable, imm: 2, ..Insn::UNDECODED },
        _ => w.reserved(),
    }
}

/// The other register of these is a floating-point one: register 0 is a destination like others.
const fn fp_memory(w: Word, op: Op) -> Insn {
    Insn { op, a: w.rs(), b: w.rt(), c: w.rt(), imm: w.simm() }
}

const fn jump(w: Word, op: Op) -> Insn {
    Insn { op, imm: (w.bits(0, 26) << 2) as i32, ..Insn::UNDECODED }
}

fn special(w: Word) -> Insn {
    let rotate = |field: u32, plain: Op, rotate: Op| match field {
        0 => Some(plain),
        1 => Some(rotate),
        _ => None,
    };
    let rs = w.bits(21, 5);
    match w.function() {
        0x00 => w.shift(Op::Sll, w.sa()),
        0x01 => {
            let op = if w.bits(16, 1) == 1 { Op::Movt } else { Op::Movf };
            Insn { imm: (w.bits(18, 3) << 8) as i32, ..w.register(op) }
        }
        0x02 => rotate(rs, Op::Srl, Op::Rotr).map_or(w.reserved(), |op| w.shift(op, w.sa())),
        0x03 => w.shift(Op::Sra, w.sa()),
        0x04 => w.pure(Op::Sllv),
        0x06 => rotate(w.sa(), Op::Srlv, Op::Rotrv).map_or(w.reserved(), |op| w.pure(op)),
        0x07 => w.pure(Op::Srav),
        0x08 => w.register(Op::Jr),
        0x09 if w.sa() & !16 == 0 => w.register(Op::Jalr),
        0x0a => w.pure(Op::Movz),
        0x0b => w.pure(Op::Movn),
        0x0c => w.register(Op::Syscall),
        0x0d => w.register(Op::Break),
        0x0f => w.register(Op::Sync),
        // A second accumulator would be DSP.
        0x10 if rs & 3 == 0 => w.pure(Op::Mfhi),
        0x11 if w.bits(11, 2) == 0 => w.register(Op::Mthi),
        0x12 if rs & 3 == 0 => w.pure(Op::Mflo),
        0x13 if w.bits(11, 2) == 0 => w.register(Op::Mtlo),
        0x14 => w.register(Op::Dsllv),
        0x16 => rotate(w.sa(), Op::Dsrlv, Op::Drotrv).map_or(w.reserved(), |op| w.register(op)),
        0x17 => w.register(Op::Dsrav),
        0x18 if w.bits(11, 2) == 0 => w.register(Op::Mult),
        0x19 if w.bits(11, 2) == 0 => w.register(Op::Multu),
        0x1a => w.register(Op::Div),
        0x1b => w.register(Op::Divu),
        0x1c => w.register(Op::Dmult),
        0x1d => w.register(Op::Dmultu),
        0x1e => w.register(Op::Ddiv),
        0x1f => w.register(Op::Ddivu),
        0x20 => w.register(Op::Add),
        0x21 => w.pure(Op::Addu),
        0x22 => w.register(Op::Sub),
        0x23 => w.pure(Op::Subu),
        0x24 => w.pure(Op::And),
        0x25 if w.rt() == Reg::R0 => w.pure(Op::Move),
        0x25 => w.pure(Op::Or),
        0x26 => w.pure(Op::Xor),
        0x27 => w.pure(Op::Nor),
        0x2a => w.pure(Op::Slt),
        0x2b => w.pure(Op::Sltu),
        0x2c => w.register(Op::Dadd),
        0x2d => w.register(Op::Daddu),
        0x2e => w.register(Op::Dsub),
        0x2f => w.register(Op::Dsubu),
        0x30 => w.register(Op::Tge),
        0x31 => w.register(Op::Tgeu),
        0x32 => w.register(Op::Tlt),
        0x33 => w.register(Op::Tltu),
        0x34 => w.register(Op::Teq),
        0x36 => w.register(Op::Tne),
        0x38 => wide_shift(w, Op::Dsll, 0),
        0x3a => rotate(rs, Op::Dsrl, Op::Drotr).map_or(w.reserved(), |op| wide_shift(w, op, 0)),
        0x3b => wide_shift(w, Op::Dsra, 0),
        0x3c => wide_shift(w, Op::Dsll, 32),
        0x3e => rotate(rs, Op::Dsrl, Op::Drotr).map_or(w.reserved(), |op| wide_shift(w, op, 32)),
        0x3f => wide_shift(w, Op::Dsra, 32),
        _ => w.reserved(),
    }
}

/// A 64-bit shift is never a plain no-operation: it may be a reserved instruction in user mode.
const fn wide_shift(w: Word, op: Op, more: u32) -> Insn {
    Insn { imm: (w.sa() + more) as i32, ..w.register(op) }
}

fn regimm(w: Word) -> Insn {
    match w.bits(16, 5) {
        0x00 if w.rs() == Reg::R0 => NOP,
        0x00 => w.branch(Op::Bltz),
        0x01 => w.branch(Op::Bgez),
        0x02 => w.branch(Op::Bltzl),
        0x03 => w.branch(Op::Bgezl),
        0x08 => w.memory(Op::Tgei),
        0x09 => w.memory(Op::Tgeiu),
        0x0a => w.memory(Op::Tlti),
        0x0b => w.memory(Op::Tltiu),
        0x0c => w.memory(Op::Teqi),
        0x0e => w.memory(Op::Tnei),
        0x10 => w.branch(Op::Bltzal),
        0x11 => w.branch(Op::Bgezal),
        0x12 => w.branch(Op::Bltzall),
        0x13 => w.branch(Op::Bgezall),
        0x1f => w.memory(Op::Synci),
        _ => w.reserved(),
    }
}

/// (Without a debug mode, `sdbbp` is a reserved instruction. So is `deret`.)
fn special2(w: Word) -> Insn {
    let accumulator = w.bits(11, 2) == 0;
    match w.function() {
        0x00 if accumulator => w.register(Op::Madd),
        0x01 if accumulator => w.register(Op::Maddu),
        0x02 => w.pure(Op::Mul),
        0x04 if accumulator => w.register(Op::Msub),
        0x05 if accumulator => w.register(Op::Msubu),
        0x20 => w.pure(Op::Clz),
        0x21 => w.pure(Op::Clo),
        0x24 => w.register(Op::Dclz),
        0x25 => w.register(Op::Dclo),
        _ => w.reserved(),
    }
}

fn special3(w: Word) -> Insn {
    let low = w.sa();
    let rd = w.bits(11, 5);
    // `extract`: rd holds width − 1, `insert`: the last bit's number. An empty or overlong field is
    // UNPREDICTABLE in the manual; here, as in QEMU, a reserved instruction (32-bit) or harmless.
    let extract = |op, position: u32, width: u32, size: u32| {
        if position + width > size {
            w.reserved()
        } else {
            w.immediate(op, (position | width << 8) as i32)
        }
    };
    let insert = |op, position: u32, last: u32| {
        if position > last {
            w.reserved()
        } else {
            w.immediate(op, (position | (last - position + 1) << 8) as i32)
        }
    };
    match w.function() {
        0x00 => extract(Op::Ext, low, rd + 1, 32),
        0x01 => extract(Op::Dext, low, rd + 33, 64),
        0x02 => extract(Op::Dext, low + 32, rd + 1, 64),
        0x03 => extract(Op::Dext, low, rd + 1, 64),
        0x04 => insert(Op::Ins, low, rd),
        0x05 => insert(Op::Dins, low, rd + 32),
        0x06 => insert(Op::Dins, low + 32, rd + 32),
        0x07 => insert(Op::Dins, low, rd),
        0x20 => match low {
            0x02 => w.pure(Op::Wsbh),
            0x10 => w.pure(Op::Seb),
            0x18 => w.pure(Op::Seh),
            _ => w.reserved(),
        },
        0x24 => match low {
            0x02 => w.register(Op::Dsbh),
            0x05 => w.register(Op::Dshd),
            _ => w.reserved(),
        },
        0x3b => Insn {
            op: Op::Rdhwr,
            a: w.rd(),
            b: w.rt(),
            c: w.rt().destination(),
            imm: w.bits(6, 3) as i32,
        },
        _ => w.reserved(),
    }
}

fn cop0(w: Word) -> Insn {
    // The sub-operation beside rd; rt is source or destination.
    let register = |op| Insn {
        op,
        a: w.rs(),
        b: w.rt(),
        c: w.rt().destination(),
        imm: (w.bits(11, 5) << 3 | w.bits(0, 3)) as i32,
    };
    match w.bits(21, 5) {
        0x00 => register(Op::Mfc0),
        0x01 => register(Op::Dmfc0),
        0x04 => register(Op::Mtc0),
        0x05 => register(Op::Dmtc0),
        0x0a => Insn { a: w.rt(), c: w.rd().destination(), ..register(Op::Rdpgpr) },
        // Bit 5 tells enabling from disabling; the rest of the word says that it is neither of the
        // multi-threading operations.
        0x0b => match w.0 & 0xffff {
            0x6000 => register(Op::Di),
            0x6020 => register(Op::Ei),
            _ => privileged_reserved(w),
        },
        0x0e => Insn { a: w.rt(), c: w.rd().destination(), ..register(Op::Wrpgpr) },
        0x10..=0x1f => match w.function() {
            0x01 => register(Op::Tlbr),
            0x02 => register(Op::Tlbwi),
            0x03 => register(Op::Tlbinv),
            0x04 => register(Op::Tlbinvf),
            0x06 => register(Op::Tlbwr),
            0x08 => register(Op::Tlbp),
            // With bit 6 it would be Release 5's ERETNC.
            0x18 if w.bits(6, 1) == 0 => register(Op::Eret),
            0x20 => register(Op::Wait),
            _ => privileged_reserved(w),
        },
        _ => privileged_reserved(w),
    }
}

/// A reserved encoding of coprocessor 0: where that is unusable, it says so first.
const fn privileged_reserved(w: Word) -> Insn {
    Insn { a: Reg::R1, ..w.reserved() }
}
