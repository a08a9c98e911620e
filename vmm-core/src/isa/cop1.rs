//! Coprocessor 1 (floating point) and its extended opcode, COP1X.

use super::decode::Word;
use super::{FORMAT_SHIFT, Insn, Op, Reg};

/// `imm` of a conversion to an integer that rounds as FCSR.RM says.
const ROUND_AS_FCSR: i32 = 4;

/// The formats, as bits 25:21 encode them.
const S: u32 = 16;
const D: u32 = 17;
const W: u32 = 20;
const L: u32 = 21;
const PS: u32 = 22;

/// fd ← fs, ft
const fn arithmetic(w: Word, op: Op) -> Insn {
    Insn { op, a: w.rd(), b: w.rt(), c: Reg::from_bits(w.sa()), imm: 0 }
}

/// Between a general register (rt) and a floating-point one (rd).
const fn transfer(w: Word, op: Op) -> Insn {
    Insn { op, a: w.rd(), b: w.rt(), c: w.rt().destination(), imm: 0 }
}

const fn branch(w: Word, op: Op) -> Insn {
    Insn { op, a: Reg::R0, b: Reg::R0, c: Reg::from_bits(w.bits(18, 3)), imm: w.offset() }
}

/// A reserved encoding of this coprocessor: where that is unusable, it says so first (PRA vol. III,
/// "Exception Priority").
const fn reserved(w: Word) -> Insn {
    Insn { a: Reg::R2, ..w.reserved() }
}

/// Opcode COP1.
pub(super) fn decode(w: Word) -> Insn {
    match w.bits(21, 5) {
        0 => transfer(w, Op::Mfc1),
        1 => transfer(w, Op::Dmfc1),
        2 => transfer(w, Op::Cfc1),
        3 => transfer(w, Op::Mfhc1),
        4 => transfer(w, Op::Mtc1),
        5 => transfer(w, Op::Dmtc1),
        6 => transfer(w, Op::Ctc1),
        7 => transfer(w, Op::Mthc1),
        8 => branch(w, [Op::Bc1f, Op::Bc1t, Op::Bc1fl, Op::Bc1tl][w.bits(16, 2) as usize]),
        9 if w.bits(17, 1) == 0 => branch(w, [Op::Bc1any2f, Op::Bc1any2t][w.bits(16, 1) as usize]),
        10 if w.bits(17, 1) == 0 => branch(w, [Op::Bc1any4f, Op::Bc1any4t][w.bits(16, 1) as usize]),
        format @ (S | D | PS) => match w.function() {
            0x30.. => compare(w, format),
            _ => floating(w, format).unwrap_or(reserved(w)),
        },
        format @ (W | L) => {
            let op = match (format, w.function()) {
                (W, 0x20) => Op::CvtSW,
                (W, 0x21) => Op::CvtDW,
                (W, 0x26) => Op::CvtPsPw,
                (L, 0x20) => Op::CvtSL,
                (L, 0x21) => Op::CvtDL,
                // PS.PW is written with the L format's number in some manuals; QEMU takes W only.
                _ => return reserved(w),
            };
            arithmetic(w, op)
        }
        _ => reserved(w),
    }
}

/// Compares: bit 6 chooses the absolute ones of MIPS-3D.
fn compare(w: Word, format: u32) -> Insn {
    let op = if w.bits(6, 1) == 0 { Op::Cmp } else { Op::Cabs };
    let imm = w.bits(8, 3) << 8 | w.bits(0, 4) | format_bits(format);
    Insn { imm: imm as i32, ..arithmetic(w, op) }
}

/// `imm` of an instruction in `format`.
const fn format_bits(format: u32) -> u32 {
    let number = match format {
        S => 0,
        D => 1,
        _ => 2,
    };
    number << FORMAT_SHIFT
}

/// Functions 0 to 47 of the formats S, D and PS.
fn floating(w: Word, format: u32) -> Option<Insn> {
    // One operation in the three formats.
    let op3 = |s, d, ps| match format {
        S => Some(s),
        D => Some(d),
        _ => Some(ps),
    };
    // One that paired singles don't have.
    let op2 = |s, d| match format {
        S => Some(s),
        D => Some(d),
        _ => None,
    };
    // Those of paired singles alone.
    let op1 = |ps| (format == PS).then_some(ps);
    let function = w.function();
    let mut imm = 0;
    let op = match function {
        0x00 => op3(Op::AddS, Op::AddD, Op::AddPs),
        0x01 => op3(Op::SubS, Op::SubD, Op::SubPs),
        0x02 => op3(Op::MulS, Op::MulD, Op::MulPs),
        0x03 => op2(Op::DivS, Op::DivD),
        0x04 => op2(Op::SqrtS, Op::SqrtD),
        0x05 => op3(Op::AbsS, Op::AbsD, Op::AbsPs),
        0x06 => op3(Op::MovS, Op::MovD, Op::MovPs),
        0x07 => op3(Op::NegS, Op::NegD, Op::NegPs),
        0x08..=0x0f => {
            imm = (function & 3) as i32;
            if function < 0x0c { op2(Op::ToLS, Op::ToLD) } else { op2(Op::ToWS, Op::ToWD) }
        }
        0x11 => {
            // Condition code in bits 20:18, sense in bit 16.
            imm = (w.bits(18, 3) << 8 | w.bits(16, 1) | format_bits(format)) as i32;
            Some(Op::Movcf)
        }
        0x12 | 0x13 => {
            imm = format_bits(format) as i32;
            Some(if function == 0x12 { Op::MovzF } else { Op::MovnF })
        }
        0x15 => op2(Op::RecipS, Op::RecipD),
        0x16 => op2(Op::RsqrtS, Op::RsqrtD),
        0x18 => op1(Op::AddrPs),
        0x1a => op1(Op::MulrPs),
        0x1c => op3(Op::Recip2S, Op::Recip2D, Op::Recip2Ps),
        0x1d => op3(Op::Recip1S, Op::Recip1D, Op::Recip1Ps),
        0x1e => op3(Op::Rsqrt1S, Op::Rsqrt1D, Op::Rsqrt1Ps),
        0x1f => op3(Op::Rsqrt2S, Op::Rsqrt2D, Op::Rsqrt2Ps),
        0x20 => match format {
            D => Some(Op::CvtSD),
            PS => Some(Op::CvtSPu),
            _ => None,
        },
        0x21 => (format == S).then_some(Op::CvtDS),
        0x24 if format == PS => Some(Op::CvtPwPs),
        0x24 | 0x25 => {
            imm = ROUND_AS_FCSR;
            if function == 0x25 { op2(Op::ToLS, Op::ToLD) } else { op2(Op::ToWS, Op::ToWD) }
        }
        0x26 => (format == S).then_some(Op::CvtPsS),
        0x28 => op1(Op::CvtSPl),
        0x2c..=0x2f => {
            imm = (function & 3) as i32;
            op1(Op::PackPs)
        }
        _ => None,
    }?;
    Some(Insn { imm, ..arithmetic(w, op) })
}

/// Opcode COP1X.
pub(super) fn decode_x(w: Word) -> Insn {
    let mul_add = |op, format| {
        let imm = w.bits(21, 5) | format_bits(format);
        Insn { imm: imm as i32, ..arithmetic(w, op) }
    };
    let load = |op| Insn { op, a: w.rs(), b: w.rt(), c: Reg::from_bits(w.sa()), imm: 0 };
    let store = |op| Insn { op, a: w.rs(), b: w.rt(), c: w.rd(), imm: 0 };
    match w.function() {
        0x00 => load(Op::Lwxc1),
        0x01 => load(Op::Ldxc1),
        0x05 => load(Op::Luxc1),
        0x08 => store(Op::Swxc1),
        0x09 => store(Op::Sdxc1),
        0x0d => store(Op::Suxc1),
        0x0f => store(Op::Prefx),
        0x1e => mul_add(Op::AlnvPs, PS),
        0x20 => mul_add(Op::MaddF, S),
        0x21 => mul_add(Op::MaddF, D),
        0x26 => mul_add(Op::MaddF, PS),
        0x28 => mul_add(Op::MsubF, S),
        0x29 => mul_add(Op::MsubF, D),
        0x2e => mul_add(Op::MsubF, PS),
        0x30 => mul_add(Op::NmaddF, S),
        0x31 => mul_add(Op::NmaddF, D),
        0x36 => mul_add(Op::NmaddF, PS),
        0x38 => mul_add(Op::NmsubF, S),
        0x39 => mul_add(Op::NmsubF, D),
        0x3e => mul_add(Op::NmsubF, PS),
        _ => reserved(w),
    }
}
