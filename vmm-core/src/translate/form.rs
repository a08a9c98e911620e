//! What the translator has to know of an instruction: which fields of its word name registers that it
//! reads and writes, and in which way it is emitted.

use super::asm::{self, D, S, T};
use super::build::is_kept;
use super::layout::slot;
use crate::isa::{Insn, Op, Reg, decode};

/// Fields, as a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields(u8);

impl Fields {
    /// None.
    const NONE: Self = Self(0);
    const RS: Self = Self(1);
    const RT: Self = Self(2);
    const RD: Self = Self(4);

    const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Their positions in a word.
    pub fn positions(self) -> impl Iterator<Item = u32> {
        [(1, S), (2, T), (4, D)]
            .into_iter()
            .filter(move |(bit, _)| self.0 & bit != 0)
            .map(|(_, p)| p)
    }

    /// The registers that they name in `word`, as bits; `$zero` is none.
    #[must_use]
    pub const fn registers(self, word: u32) -> u32 {
        let Self(set) = self;
        let rs = (set as u32 & 1) << asm::field(word, S);
        let rt = (set as u32 >> 1 & 1) << asm::field(word, T);
        let rd = (set as u32 >> 2 & 1) << asm::field(word, D);
        (rs | rt | rd) & !1
    }
}

/// How an instruction is emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Not at all: it does nothing.
    Nothing,
    /// As it is, but for `$k0` and `$k1`.
    Plain {
        /// Fields of sources.
        reads: Fields,
        /// The field of the destination.
        writes: Fields,
    },
    /// A load of general registers: base in rs, destination in rt.
    Load {
        /// It keeps a part of rt.
        keeps: bool,
    },
    /// A store of general registers: base in rs, source in rt.
    Store,
    /// A load-linked: base in rs, destination in rt.
    Linked,
    /// A store-conditional: base in rs, source and destination in rt.
    Conditional,
    /// A branch that compares rs, with rt or with zero.
    Branch {
        /// With rt.
        two: bool,
        /// Its slot is executed only if it is taken.
        likely: bool,
    },
    /// An unconditional jump to a known address, with a link or not.
    Jump {
        /// It notes the return address in `$ra`.
        links: bool,
    },
    /// A jump to a register.
    JumpRegister,
    /// A read of a register that is in the VCPU page: its place, and whether all of it is wanted.
    ReadPage(u16, bool),
    /// A write of a register there that nothing else depends on.
    WritePage(u16),
    /// A write of EntryLo0 or EntryLo1, to their place.
    WriteLo(u16),
    /// A write of Index.
    WriteIndex,
    /// A write of EntryHi.
    WriteHi,
    /// A write of Status.
    WriteStatus,
    /// `di`
    Disable,
    /// `ei`
    Enable,
    /// The runtime's: it needs no interpreter for it.
    Quick(Quick),
    /// The interpreter's.
    Interpret,
    /// The interpreter's, and control does not come to the next instruction.
    Ends,
}

/// Instructions that the runtime executes without an interpreter, most of them without settling the VCPU. General registers are
/// given by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quick {
    /// `tlbp`
    Probe,
    /// `tlbwi`
    WriteIndexed,
    /// `tlbwr`
    WriteRandom,
    /// `eret`
    Return,
    /// Count is read to a register.
    ReadCount(u8),
    /// Compare is written from a register.
    WriteCompare(u8),
}

impl Quick {
    /// The number of the way out that is for it.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Probe => 1,
            Self::WriteIndexed => 2,
            Self::WriteRandom => 3,
            Self::Return => 4,
            Self::ReadCount(register) => 0x20 | register,
            Self::WriteCompare(register) => 0x40 | register,
        }
    }

    /// The one that the way out `word` is for, if it is for one.
    #[must_use]
    pub const fn of(word: u32) -> Option<Self> {
        let Some(number) = asm::break_number(word) else { return None };
        let register = number & 0x1f;
        Some(match number {
            1 => Self::Probe,
            2 => Self::WriteIndexed,
            3 => Self::WriteRandom,
            4 => Self::Return,
            0x20..0x40 => Self::ReadCount(register),
            0x40..0x60 => Self::WriteCompare(register),
            _ => return None,
        })
    }

    /// Whether it changes the TLB.
    #[must_use]
    pub const fn writes_tlb(self) -> bool {
        matches!(self, Self::WriteIndexed | Self::WriteRandom)
    }
}

/// Count and Compare, as instructions name them: register and select.
const COUNT: u32 = 9 << 3;
const COMPARE: u32 = 11 << 3;
/// UserLocal's number as a hardware register.
const HARDWARE_USER_LOCAL: usize = 29;

/// The form of an instruction word in kernel mode.
#[must_use]
pub fn form_of(word: u32) -> Form {
    match common(word) {
        Some(form) => form,
        None => form(decode(word)),
    }
}

/// The form of most words, which takes a quarter of what it takes to decode them; `None`: it is not one of these.
const fn common(word: u32) -> Option<Form> {
    const S_T: Fields = Fields::RS.and(Fields::RT);
    let (rs, rt, rd) = (asm::field(word, S), asm::field(word, T), asm::field(word, D));
    Some(match word >> 26 {
        0 if word == 0 => Form::Nothing,
        0 if rd != 0 => match word & 0x3f {
            // sll, sra, dsll, dsra, dsll32, dsra32
            0x00 | 0x03 | 0x38 | 0x3b | 0x3c | 0x3f => {
                Form::Plain { reads: Fields::RT, writes: Fields::RD }
            }
            // addu, subu, and, or, xor, nor; slt, sltu; daddu, dsubu
            0x21 | 0x23..=0x27 | 0x2a | 0x2b | 0x2d | 0x2f => {
                Form::Plain { reads: S_T, writes: Fields::RD }
            }
            _ => return None,
        },
        0 if word & 0x3f == 0x08 => Form::JumpRegister,
        0x02 => Form::Jump { links: false },
        0x03 => Form::Jump { links: true },
        0x04 | 0x05 if rs != rt => Form::Branch { two: true, likely: false },
        0x06 | 0x07 if rt == 0 && rs != 0 => Form::Branch { two: false, likely: false },
        // addiu to xori, lui, daddiu
        0x09..=0x0f | 0x19 if rt != 0 && rs != 0 => {
            let reads = if word >> 26 == 0x0f { Fields::NONE } else { Fields::RS };
            Form::Plain { reads, writes: Fields::RT }
        }
        0x09 | 0x0d | 0x0f if rt != 0 => Form::Plain { reads: Fields::NONE, writes: Fields::RT },
        // lb, lh; lw, lbu, lhu; lwu; ld
        0x20 | 0x21 | 0x23..=0x25 | 0x27 | 0x37 => Form::Load { keeps: false },
        // sb, sh; sw; sd
        0x28 | 0x29 | 0x2b | 0x3f => Form::Store,
        _ => return None,
    })
}

/// The form of an instruction in kernel mode.
#[must_use]
pub fn form(insn: Insn) -> Form {
    const S_T: Fields = Fields::RS.and(Fields::RT);
    const KEEPS: Fields = S_T.and(Fields::RD);
    let plain = |reads, writes| Form::Plain { reads, writes };
    match insn.op {
        // What this VCPU stores to code is noticed when it does …
        Op::Nop | Op::Pref | Op::Synci | Op::Cache => Form::Nothing,
        // … and what others have done to code is seen when they have this VCPU interrupted, as they must.
        Op::Sync => plain(Fields::NONE, Fields::NONE),
        Op::Li => plain(Fields::NONE, Fields::RT),
        Op::Sll
        | Op::Srl
        | Op::Rotr
        | Op::Sra
        | Op::Dsll
        | Op::Dsrl
        | Op::Drotr
        | Op::Dsra
        | Op::Wsbh
        | Op::Seb
        | Op::Seh
        | Op::Dsbh
        | Op::Dshd => plain(Fields::RT, Fields::RD),
        Op::Move
        | Op::Sllv
        | Op::Srlv
        | Op::Rotrv
        | Op::Srav
        | Op::Dsllv
        | Op::Dsrlv
        | Op::Drotrv
        | Op::Dsrav
        | Op::Add
        | Op::Addu
        | Op::Sub
        | Op::Subu
        | Op::And
        | Op::Or
        | Op::Xor
        | Op::Nor
        | Op::Slt
        | Op::Sltu
        | Op::Dadd
        | Op::Daddu
        | Op::Dsub
        | Op::Dsubu
        | Op::Mul => plain(S_T, Fields::RD),
        Op::Movz | Op::Movn => plain(KEEPS, Fields::RD),
        Op::Addi
        | Op::Addiu
        | Op::Slti
        | Op::Sltiu
        | Op::Andi
        | Op::Ori
        | Op::Xori
        | Op::Daddi
        | Op::Daddiu
        | Op::Ext
        | Op::Dext => plain(Fields::RS, Fields::RT),
        Op::Ins | Op::Dins => plain(S_T, Fields::RT),
        Op::Mfhi | Op::Mflo => plain(Fields::NONE, Fields::RD),
        Op::Mthi | Op::Mtlo => plain(Fields::RS, Fields::NONE),
        Op::Mult
        | Op::Multu
        | Op::Div
        | Op::Divu
        | Op::Dmult
        | Op::Dmultu
        | Op::Ddiv
        | Op::Ddivu
        | Op::Madd
        | Op::Maddu
        | Op::Msub
        | Op::Msubu => plain(S_T, Fields::NONE),
        // Their rt repeats rd, so that `$k0` there is one more register to exchange.
        Op::Clz | Op::Clo | Op::Dclz | Op::Dclo if insn.b.destination() == insn.c => {
            plain(Fields::RS, Fields::RD.and(Fields::RT))
        }
        Op::Tge | Op::Tgeu | Op::Tlt | Op::Tltu | Op::Teq | Op::Tne => plain(S_T, Fields::NONE),
        Op::Tgei | Op::Tgeiu | Op::Tlti | Op::Tltiu | Op::Teqi | Op::Tnei => {
            plain(Fields::RS, Fields::NONE)
        }
        Op::Lb | Op::Lbu | Op::Lh | Op::Lhu | Op::Lw | Op::Lwu | Op::Ld => {
            Form::Load { keeps: false }
        }
        Op::Lwl | Op::Lwr | Op::Ldl | Op::Ldr => Form::Load { keeps: true },
        Op::Sb | Op::Sh | Op::Sw | Op::Sd | Op::Swl | Op::Swr | Op::Sdl | Op::Sdr => Form::Store,
        Op::Ll | Op::Lld => Form::Linked,
        Op::Sc | Op::Scd => Form::Conditional,
        Op::Beq | Op::Bne => Form::Branch { two: true, likely: false },
        Op::Beql | Op::Bnel => Form::Branch { two: true, likely: true },
        Op::Blez | Op::Bgtz | Op::Bltz | Op::Bgez => Form::Branch { two: false, likely: false },
        Op::Blezl | Op::Bgtzl | Op::Bltzl | Op::Bgezl => Form::Branch { two: false, likely: true },
        Op::B | Op::J => Form::Jump { links: false },
        Op::Jal => Form::Jump { links: true },
        Op::Jr | Op::Jalr => Form::JumpRegister,
        Op::Mfc0 | Op::Dmfc0 => match page(insn) {
            Some((place, _)) => Form::ReadPage(place, insn.op == Op::Dmfc0),
            None if insn.imm as u32 == COUNT && !is_kept(number(insn.c)) => {
                Form::Quick(Quick::ReadCount(number(insn.c) as u8))
            }
            None => Form::Interpret,
        },
        Op::Rdhwr if insn.a.index() == HARDWARE_USER_LOCAL => {
            Form::ReadPage(slot::USER_LOCAL, true)
        }
        Op::Mtc0 | Op::Dmtc0 => match page(insn) {
            Some((slot::STATUS, _)) => Form::WriteStatus,
            Some((slot::INDEX, _)) => Form::WriteIndex,
            Some((slot::ENTRY_HI, _)) => Form::WriteHi,
            Some((place, _)) if slot::ENTRY_LO.contains(&place) => Form::WriteLo(place),
            Some((place, true)) => Form::WritePage(place),
            _ if insn.imm as u32 == COMPARE && !is_kept(number(insn.b)) => {
                Form::Quick(Quick::WriteCompare(number(insn.b) as u8))
            }
            _ => Form::Interpret,
        },
        Op::Eret => Form::Quick(Quick::Return),
        Op::Tlbp => Form::Quick(Quick::Probe),
        Op::Tlbwi => Form::Quick(Quick::WriteIndexed),
        Op::Tlbwr => Form::Quick(Quick::WriteRandom),
        Op::Di => Form::Disable,
        Op::Ei => Form::Enable,
        Op::Syscall | Op::Break | Op::Reserved | Op::CopUnusable | Op::Wait => Form::Ends,
        _ if insn.op.is_branch() => Form::Ends,
        _ => Form::Interpret,
    }
}

/// A general register's number.
const fn number(register: Reg) -> u32 {
    register.index() as u32 % 32
}

fn page(insn: Insn) -> Option<(u16, bool)> {
    slot::register(insn.imm as u32 >> 3, insn.imm as u32 & 7)
}

/// Registers that an instruction of this form reads and writes, as bits.
#[must_use]
pub fn reads_and_writes(form: Form, word: u32) -> (u32, u32) {
    let (reads, writes) = match form {
        Form::Plain { reads, writes } => (reads, writes),
        Form::Load { keeps: false } | Form::Linked => (Fields::RS, Fields::RT),
        Form::Load { keeps: true } | Form::Conditional => (Fields::RS.and(Fields::RT), Fields::RT),
        Form::Store | Form::Branch { two: true, .. } => (Fields::RS.and(Fields::RT), Fields::NONE),
        Form::Branch { two: false, .. } => (Fields::RS, Fields::NONE),
        Form::JumpRegister => (Fields::RS, Fields::RD),
        Form::ReadPage(..) | Form::Disable | Form::Enable => (Fields::NONE, Fields::RT),
        Form::WritePage(_)
        | Form::WriteLo(_)
        | Form::WriteIndex
        | Form::WriteHi
        | Form::WriteStatus => (Fields::RT, Fields::NONE),
        _ => (Fields::NONE, Fields::NONE),
    };
    (reads.registers(word), writes.registers(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::direct::tests::random::Random;

    #[test]
    fn what_is_emitted_as_it_is_reads_and_writes_what_it_names() {
        let of = |word| reads_and_writes(form(decode(word)), word);
        // daddu $1, $2, $3; sll $1, $2, 3; movz $1, $2, $3; ins $1, $2, 0, 8; dclz $1, $2
        assert_eq!(of(2 << 21 | 3 << 16 | 1 << 11 | 0x2d), (0b1100, 0b10));
        assert_eq!(of(2 << 16 | 1 << 11 | 3 << 6), (0b100, 0b10));
        assert_eq!(of(2 << 21 | 3 << 16 | 1 << 11 | 0x0a), (0b1110, 0b10));
        assert_eq!(of(asm::ins(1, 2, 0, 8)), (0b110, 0b10));
        assert_eq!(of(0x1c << 26 | 2 << 21 | 1 << 16 | 1 << 11 | 0x24), (0b100, 0b10));
        // lui, sd, lwl, bgez (whose rt is no register).
        assert_eq!(of(0x0461_0001), (1 << 3, 0));
        assert_eq!(of(asm::lui(5, 1)), (0, 1 << 5));
        assert_eq!(of(asm::sd(4, 0, 3)), (0b11000, 0));
        assert_eq!(of(0x22 << 26 | 3 << 21 | 4 << 16), (0b11000, 0b10000));
    }

    #[test]
    fn the_form_of_a_common_word_is_that_of_what_it_decodes_to() {
        let (mut random, mut known) = (Random(3), 0);
        for high in 0..64 {
            for low in 0..64 {
                for _ in 0..400 {
                    // Registers are often zero, and often the same.
                    let mut number = || random.next() as u32 % 4 * (random.next() as u32 % 16);
                    let word = high << 26 | number() << 21 | number() << 16 | number() << 11;
                    let word = word | (random.next() as u32 & 0x1f) << 6 | low;
                    let form = form(decode(word));
                    assert_eq!(form_of(word), form, "{word:#010x}");
                    known += u32::from(common(word).is_some());
                }
            }
        }
        assert!(known > 500_000, "{known}");
        assert_eq!(form_of(0), Form::Nothing);
    }

    #[test]
    fn control_that_goes_elsewhere_ends_a_block() {
        for word in [0x0c, 0x4200_0020, 0x0411_0001, 0x4501_0001, 0x4c00_003f] {
            assert_eq!(form(decode(word)), Form::Ends, "{word:#x}");
        }
        // mfc0 $k0, Count; mtc0 Wired; tlbr
        for word in [0x401a_4800, 0x4081_3000, 0x4200_0001] {
            assert_eq!(form(decode(word)), Form::Interpret, "{word:#x}");
        }
    }

    #[test]
    fn a_way_out_tells_what_is_quick() {
        for (word, quick) in [
            (0x4200_0008, Quick::Probe),
            (0x4200_0002, Quick::WriteIndexed),
            (0x4200_0006, Quick::WriteRandom),
            (0x4200_0018, Quick::Return),
            (0x4001_4800, Quick::ReadCount(1)),
            (0x4000_4800, Quick::ReadCount(0)),
            (0x409f_5800, Quick::WriteCompare(31)),
        ] {
            assert_eq!(form(decode(word)), Form::Quick(quick), "{word:#x}");
            assert_eq!(Quick::of(asm::numbered_break(quick.number())), Some(quick));
        }
        assert_eq!(Quick::of(asm::BREAK), None);
    }
}
