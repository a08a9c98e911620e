//! Words of MIPS64 that emitted code consists of.

/// Real `$k0`, scratch.
pub const K0: u32 = 26;
/// Real `$k1`, scratch.
pub const K1: u32 = 27;
/// `$zero`.
pub const ZERO: u32 = 0;

/// Position of rs in a word.
pub const S: u32 = 21;
/// Of rt.
pub const T: u32 = 16;
/// Of rd.
pub const D: u32 = 11;

/// No operation.
pub const NOP: u32 = 0;
/// The way out; the side table says what it means.
pub const BREAK: u32 = 0x0d;

/// A way out with a number that the runtime may go by before it looks into the side table: not 0, which it is otherwise.
#[must_use]
pub const fn numbered_break(number: u8) -> u32 {
    BREAK | (number as u32) << 16
}

/// The number of such a word.
#[must_use]
pub const fn break_number(word: u32) -> Option<u8> {
    let number = (word >> 16) as u8;
    if number != 0 && word == numbered_break(number) { Some(number) } else { None }
}

const fn r(function: u32, rd: u32, rs: u32, rt: u32) -> u32 {
    rs << S | rt << T | rd << D | function
}

const fn i(opcode: u32, rt: u32, rs: u32, imm: u16) -> u32 {
    opcode << 26 | rs << S | rt << T | imm as u32
}

/// The number in the field of `word` at `field`.
#[must_use]
pub const fn field(word: u32, field: u32) -> u32 {
    word >> field & 31
}

/// `word` with register `number` in a field.
#[must_use]
pub const fn with(word: u32, field: u32, number: u32) -> u32 {
    word & !(31 << field) | number << field
}

/// `lui rt, imm`
#[must_use]
pub const fn lui(rt: u32, imm: u16) -> u32 {
    i(0x0f, rt, 0, imm)
}

/// `ori rt, rs, imm`
#[must_use]
pub const fn ori(rt: u32, rs: u32, imm: u16) -> u32 {
    i(0x0d, rt, rs, imm)
}

/// `ld rt, offset(base)`
#[must_use]
pub const fn ld(rt: u32, offset: u16, base: u32) -> u32 {
    i(0x37, rt, base, offset)
}

/// `lw rt, offset(base)`
#[must_use]
pub const fn lw(rt: u32, offset: u16, base: u32) -> u32 {
    i(0x23, rt, base, offset)
}

/// `sd rt, offset(base)`
#[must_use]
pub const fn sd(rt: u32, offset: u16, base: u32) -> u32 {
    i(0x3f, rt, base, offset)
}

/// `lbu rt, offset(base)`
#[must_use]
pub const fn lbu(rt: u32, offset: u16, base: u32) -> u32 {
    i(0x24, rt, base, offset)
}

/// `sb rt, offset(base)`
#[must_use]
pub const fn sb(rt: u32, offset: u16, base: u32) -> u32 {
    i(0x28, rt, base, offset)
}

/// `daddiu rt, rs, imm`
#[must_use]
pub const fn daddiu(rt: u32, rs: u32, imm: u16) -> u32 {
    i(0x19, rt, rs, imm)
}

/// `and rd, rs, rt`
#[must_use]
pub const fn and(rd: u32, rs: u32, rt: u32) -> u32 {
    r(0x24, rd, rs, rt)
}

/// `xor rd, rs, rt`
#[must_use]
pub const fn xor(rd: u32, rs: u32, rt: u32) -> u32 {
    r(0x26, rd, rs, rt)
}

/// `or rd, rs, rt`
#[must_use]
pub const fn or(rd: u32, rs: u32, rt: u32) -> u32 {
    r(0x25, rd, rs, rt)
}

/// `sll rd, rt, 0`: the low word, sign-extended.
#[must_use]
pub const fn sign_extend(rd: u32, rt: u32) -> u32 {
    r(0, rd, 0, rt)
}

/// `dsll rd, rt, amount`, below 32
#[must_use]
pub const fn dsll(rd: u32, rt: u32, amount: u32) -> u32 {
    r(0x38, rd, 0, rt) | amount << 6
}

/// `dsrl32 rd, rt, amount - 32`
#[must_use]
pub const fn dsrl(rd: u32, rt: u32, amount: u32) -> u32 {
    r(0x3e, rd, 0, rt) | (amount - 32) << 6
}

/// `tne rs, rt`
#[must_use]
pub const fn tne(rs: u32, rt: u32) -> u32 {
    r(0x36, 0, rs, rt)
}

/// `ins rt, rs, position, size`
#[must_use]
pub const fn ins(rt: u32, rs: u32, position: u32, size: u32) -> u32 {
    0x1f << 26 | rs << S | rt << T | (position + size - 1) << D | position << 6 | 0x04
}

/// `dins rt, rs, position, size`, all below bit 32
#[must_use]
pub const fn dins(rt: u32, rs: u32, position: u32, size: u32) -> u32 {
    0x1f << 26 | rs << S | rt << T | (position + size - 1) << D | position << 6 | 0x07
}

/// `dinsu rt, rs, position, size`, position from 32 on
#[must_use]
pub const fn dinsu(rt: u32, rs: u32, position: u32, size: u32) -> u32 {
    0x1f << 26 | rs << S | rt << T | (position + size - 33) << D | (position - 32) << 6 | 0x06
}

/// `movn rd, rs, rt`
#[must_use]
pub const fn movn(rd: u32, rs: u32, rt: u32) -> u32 {
    r(0x0b, rd, rs, rt)
}

/// `dext rt, rs, position, size`, size at most 32, position below 32
#[must_use]
pub const fn dext(rt: u32, rs: u32, position: u32, size: u32) -> u32 {
    0x1f << 26 | rs << S | rt << T | (size - 1) << D | position << 6 | 0x03
}

/// `dextu rt, rs, position, size`, position from 32 on
#[must_use]
pub const fn dextu(rt: u32, rs: u32, position: u32, size: u32) -> u32 {
    0x1f << 26 | rs << S | rt << T | (size - 1) << D | (position - 32) << 6 | 0x02
}

/// `bne rs, rt`, to be given its target
#[must_use]
pub const fn bne(rs: u32, rt: u32) -> u32 {
    i(0x05, rt, rs, 0)
}

/// `beq rs, rt`, likewise
#[must_use]
pub const fn beq(rs: u32, rt: u32) -> u32 {
    i(0x04, rt, rs, 0)
}

/// `bltz rs`, likewise
#[must_use]
pub const fn bltz(rs: u32) -> u32 {
    i(0x01, 0, rs, 0)
}

/// `jr rs`
#[must_use]
pub const fn jr(rs: u32) -> u32 {
    r(0x08, 0, rs, 0)
}

/// `j address`
#[must_use]
pub const fn j(address: u64) -> u32 {
    0x02 << 26 | (address >> 2) as u32 & 0x03ff_ffff
}

/// The branch `word`, which stands `from` words from somewhere, to the word `to` from there; `None` where
/// it doesn't reach.
#[must_use]
pub fn branch_to(word: u32, from: usize, to: usize) -> Option<u32> {
    let offset = i16::try_from(to as i64 - from as i64 - 1).ok()?;
    Some(word & !0xffff | u32::from(offset as u16))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Op, decode};

    #[test]
    fn words_mean_what_their_names_say() {
        let op = |word| decode(word).op;
        assert_eq!(op(lui(K0, 0x8000)), Op::Li);
        assert_eq!(op(ori(K0, K1, 1)), Op::Ori);
        assert_eq!(op(ld(1, 8, K1)), Op::Ld);
        assert_eq!(op(lw(1, 8, K1)), Op::Lw);
        assert_eq!(op(sd(1, 8, K1)), Op::Sd);
        assert_eq!(op(xor(K0, 1, K1)), Op::Xor);
        assert_eq!(op(or(1, 2, 3)), Op::Or);
        assert_eq!(op(sign_extend(1, 2)), Op::Sll);
        assert_eq!((op(dsll(1, 1, 16)), decode(dsll(1, 1, 16)).imm), (Op::Dsll, 16));
        assert_eq!((op(dsrl(1, 2, 40)), decode(dsrl(1, 2, 40)).imm), (Op::Dsrl, 40));
        assert_eq!(op(tne(1, 2)), Op::Tne);
        for (word, wanted, position, width) in [
            (ins(1, 0, 8, 8), Op::Ins, 8, 8),
            (dins(1, 2, 5, 9), Op::Dins, 5, 9),
            (dinsu(1, 0, 40, 22), Op::Dins, 40, 22),
            (dext(1, 2, 2, 9), Op::Dext, 2, 9),
            (dextu(1, 2, 59, 5), Op::Dext, 59, 5),
        ] {
            let insn = decode(word);
            assert_eq!((insn.op, insn.position(), insn.width()), (wanted, position, width));
        }
        assert_eq!(
            [lbu(1, 8, K1), sb(1, 8, K1), daddiu(1, 2, 8), and(1, 2, 3)].map(op),
            [Op::Lbu, Op::Sb, Op::Daddiu, Op::And]
        );
        assert_eq!([bne(1, 2), beq(1, 2), bltz(1)].map(op), [Op::Bne, Op::Beq, Op::Bltz]);
        assert_eq!(op(jr(3)), Op::Jr);
        assert_eq!(op(BREAK), Op::Break);
        assert_eq!(op(numbered_break(3)), Op::Break);
        assert_eq!(break_number(numbered_break(3)), Some(3));
        assert_eq!([BREAK, NOP, numbered_break(3) | 1 << 24].map(break_number), [None; 3]);
        let there = decode(j(0xffff_ffff_c012_3450));
        assert_eq!((there.op, there.imm), (Op::J, 0x0012_3450));
        assert_eq!(decode(branch_to(bne(1, 2), 7, 3).expect("near")).imm, -20);
        assert_eq!(branch_to(bne(1, 2), 0, 0x8001), None);
        assert!(branch_to(bne(1, 2), 0x8000, 1).is_some());
    }
}
