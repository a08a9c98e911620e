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

impl Form {
    /// Fields of an instruction of this form that name registers which it reads, and those it writes.
    const fn fields(self) -> (Fields, Fields) {
        const S_T: Fields = Fields::RS.and(Fields::RT);
        match self {
            Self::Plain { reads, writes } => (reads, writes),
            Self::Load { keeps: false } | Self::Linked => (Fields::RS, Fields::RT),
            Self::Load { keeps: true } | Self::Conditional => (S_T, Fields::RT),
            Self::Store | Self::Branch { two: true, .. } => (S_T, Fields::NONE),
            Self::Branch { two: false, .. } => (Fields::RS, Fields::NONE),
            Self::JumpRegister => (Fields::RS, Fields::RD),
            Self::ReadPage(..) | Self::Disable | Self::Enable => (Fields::NONE, Fields::RT),
            Self::WritePage(_)
            | Self::WriteLo(_)
            | Self::WriteIndex
            | Self::WriteHi
            | Self::WriteStatus => (Fields::RT, Fields::NONE),
            _ => (Fields::NONE, Fields::NONE),
        }
    }
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

/// A guest's instruction as the translator sees it.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// Its word.
    pub word: u32,
    /// How it is emitted.
    pub form: Form,
    reads: Fields,
    writes: Fields,
}

impl Guest {
    /// What the instruction `word` is in kernel mode.
    #[must_use]
    #[inline]
    pub fn of(word: u32) -> Self {
        if word == 0 {
            let (form, none) = (Form::Nothing, Fields::NONE);
            return Self { word, form, reads: none, writes: none };
        }
        let place = match word >> 26 {
            0 => BY_FUNCTION + (word & 0x3f),
            opcode => opcode,
        };
        match SHAPES[place as usize] {
            Some(shape) if word & shape.zero == 0 && !shape.is_exception(word) => {
                Self { word, form: shape.form, reads: shape.reads, writes: shape.writes }
            }
            _ => Self::decoded(word),
        }
    }

    #[inline(never)]
    fn decoded(word: u32) -> Self {
        let form = form(decode(word));
        let (reads, writes) = form.fields();
        Self { word, form, reads, writes }
    }

    /// Its word, or another one that does nothing either.
    #[must_use]
    pub const fn word_or_nop(self) -> u32 {
        if matches!(self.form, Form::Nothing) { asm::NOP } else { self.word }
    }

    /// Registers that it reads, as bits.
    #[must_use]
    #[inline]
    pub const fn reads(self) -> u32 {
        self.reads.registers(self.word)
    }

    /// Registers that it writes, as bits.
    #[must_use]
    #[inline]
    pub const fn writes(self) -> u32 {
        self.writes.registers(self.word)
    }

    /// Whether one of them is a register that the VCPU page keeps.
    #[must_use]
    #[inline]
    pub const fn names_kept(self) -> bool {
        let named = self.reads.and(self.writes).registers(self.word);
        named & (1 << asm::K0 | 1 << asm::K1) != 0
    }
}

/// The register that rs of an instruction word is.
#[must_use]
pub const fn source(word: u32) -> usize {
    asm::field(word, S) as usize
}

/// The form of an instruction word in kernel mode.
#[must_use]
pub fn form_of(word: u32) -> Form {
    Guest::of(word).form
}

/// What follows from the opcode of an instruction, or from the function of one of SPECIAL: most are told so, in a fraction of what
/// it takes to decode them.
#[derive(Clone, Copy)]
#[repr(align(16))]
struct Shape {
    form: Form,
    reads: Fields,
    writes: Fields,
    /// Bits that are zero in all words it holds for.
    zero: u32,
}

/// The places of the latter among [`SHAPES`].
const BY_FUNCTION: u32 = 64;

/// Those that are known; the others have to be decoded.
static SHAPES: [Option<Shape>; 128] = {
    let mut shapes = [None; 128];
    let mut place = 0;
    while place < 128 {
        shapes[place as usize] = match place {
            BY_FUNCTION.. => Shape::by_function(place - BY_FUNCTION),
            _ => Shape::by_opcode(place),
        };
        place += 1;
    }
    shapes
};

impl Shape {
    const fn new(form: Form, zero: u32) -> Option<Self> {
        let (reads, writes) = form.fields();
        Some(Self { form, reads, writes, zero })
    }

    const fn plain(reads: Fields, writes: Fields, zero: u32) -> Option<Self> {
        Self::new(Form::Plain { reads, writes }, zero)
    }

    /// Whether a word is one of a few that it does not hold for: branches whose condition is none.
    #[inline]
    const fn is_exception(&self, word: u32) -> bool {
        match self.form {
            Form::Branch { two: true, .. } => asm::field(word, S) == asm::field(word, T),
            Form::Branch { two: false, .. } => asm::field(word, S) == 0,
            _ => false,
        }
    }

    const fn by_opcode(opcode: u32) -> Option<Self> {
        match opcode {
            // bltz, bgez, of which that is all that rt tells
            0x01 => Self::new(Form::Branch { two: false, likely: false }, 30 << T),
            0x02 => Self::new(Form::Jump { links: false }, 0),
            0x03 => Self::new(Form::Jump { links: true }, 0),
            0x04 | 0x05 => Self::new(Form::Branch { two: true, likely: false }, 0),
            // blez, bgtz
            0x06 | 0x07 => Self::new(Form::Branch { two: false, likely: false }, 31 << T),
            // addiu, slti, sltiu, andi, ori, xori; daddiu
            0x09..=0x0e | 0x19 => Self::plain(Fields::RS, Fields::RT, 0),
            // lui
            0x0f => Self::plain(Fields::NONE, Fields::RT, 0),
            // lb, lh; lw, lbu, lhu; lwu; ld
            0x20 | 0x21 | 0x23..=0x25 | 0x27 | 0x37 => Self::new(Form::Load { keeps: false }, 0),
            // sb, sh; sw; sd
            0x28 | 0x29 | 0x2b | 0x3f => Self::new(Form::Store, 0),
            _ => None,
        }
    }

    const fn by_function(function: u32) -> Option<Self> {
        const S_T: Fields = Fields::RS.and(Fields::RT);
        match function {
            // sll, sra; dsll, dsra, dsll32, dsra32
            0x00 | 0x03 | 0x38 | 0x3b | 0x3c | 0x3f => Self::plain(Fields::RT, Fields::RD, 0),
            // srl, dsrl, dsrl32, and the same as rotations
            0x02 | 0x3a | 0x3e => Self::plain(Fields::RT, Fields::RD, 30 << S),
            0x08 => Self::new(Form::JumpRegister, 0),
            // jalr, with a hint or without
            0x09 => Self::new(Form::JumpRegister, 15 << 6),
            // sllv, srav, dsllv, dsrav; addu, subu, and, or, xor, nor; slt, sltu; daddu, dsubu
            0x04 | 0x07 | 0x14 | 0x17 | 0x21 | 0x23..=0x27 | 0x2a | 0x2b | 0x2d | 0x2f => {
                Self::plain(S_T, Fields::RD, 0)
            }
            // movz, movn
            0x0a | 0x0b => Self::plain(S_T.and(Fields::RD), Fields::RD, 0),
            _ => None,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::direct::tests::random::Random;

    #[test]
    fn what_is_emitted_as_it_is_reads_and_writes_what_it_names() {
        let of = |word| (Guest::of(word).reads(), Guest::of(word).writes());
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
    fn what_a_word_tells_is_what_it_decodes_to() {
        let (mut random, mut known) = (Random(3), 0);
        for high in 0..64 {
            for low in 0..64 {
                for _ in 0..400 {
                    // Registers are often zero, and often the same.
                    let mut number = || random.next() as u32 % 4 * (random.next() as u32 % 16);
                    let word = high << 26 | number() << 21 | number() << 16 | number() << 11;
                    let word = word | (random.next() as u32 & 0x1f) << 6 | low;
                    let (told, decoded) = (Guest::of(word), Guest::decoded(word));
                    if told.form == decoded.form {
                        known += u32::from(told.form != Form::Interpret);
                        continue;
                    }
                    // What has no effect may be emitted, and `$zero` be named as if it were read.
                    assert!(matches!(told.form, Form::Plain { .. }), "{word:#010x}");
                    assert_eq!(told.writes(), decoded.writes(), "{word:#010x}");
                    match decoded.form {
                        Form::Nothing => assert_eq!(told.writes(), 0, "{word:#010x}"),
                        form => {
                            assert!(matches!(form, Form::Plain { .. }), "{word:#010x}");
                            assert_eq!(told.reads(), decoded.reads(), "{word:#010x}");
                        }
                    }
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
