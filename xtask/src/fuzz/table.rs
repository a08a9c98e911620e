//! The instructions that streams are made of: encodings of MIPS64 Release 2 with its FPU, paired
//! single and MIPS-3D, and what the generator must know to use them without leaving defined ground.
//!
//! Written from "MIPS64 Architecture For Programmers" volume II (rev 2.62) and volume IV-c (MIPS-3D)
//! and independent of `vmm_core::isa`, so that an error in one table is no error in the other.

use std::sync::OnceLock;

/// How the generator treats an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Computes on registers; any operands.
    Alu,
    /// A 32-bit computation: UNPREDICTABLE unless its sources are sign-extended words.
    Word,
    /// A 32-bit division: words, and the divisor not zero.
    DivWord,
    /// A 64-bit division: the divisor not zero.
    DivDouble,
    /// `clz`, `clo` and their doubleword forms: rt must equal rd. `true`: a word operation.
    Count(bool),
    /// A bit field with lsb in the `sa` field and msb or size−1 in the `d` field.
    Field(Field),
    /// A load or store at base + offset16 of so many bytes.
    Memory(u8),
    /// A load or store at base + index, COP1X, of so many bytes.
    Indexed(u8),
    /// `ll`/`sc`: the pair is made as one, `lld`/`scd` likewise.
    Linked,
    /// A conditional branch on GPRs or FP condition codes. `true`: links.
    Branch(bool),
    /// `j`, `jal`.
    Jump,
    /// `jr` (false), `jalr` (true).
    JumpRegister(bool),
    /// Floating point on registers.
    Float,
    /// Moves between GPRs and FPU.
    Move,
    /// `ctc1`/`cfc1`.
    Control,
    /// Hints: `sync`, `pref`, `synci`, `cache` and so on at a good address.
    Hint,
    /// `syscall`.
    System,
    /// `rdhwr`.
    ReadHardware,
}

/// Shapes of bit field instructions: how `sa` and `d` bound each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// ext: msbd = size−1, lsb + size ≤ 32; word.
    Ext,
    /// dext: lsb + size ≤ 63 and below.
    Dext,
    /// dextm: size 33..64.
    Dextm,
    /// dextu: lsb 32..63.
    Dextu,
    /// ins: msb ≥ lsb; word.
    Ins,
    /// dins: both below 32.
    Dins,
    /// dinsm: msb above 31, lsb below.
    Dinsm,
    /// dinsu: both above 31.
    Dinsu,
}

/// What an FP register operand holds: decides its legality with Status.FR = 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// No FP operand there.
    None,
    /// S or W: any register.
    Single,
    /// D: an even register with FR = 0.
    Double,
    /// L or PS: only with FR = 1.
    Full,
}

/// One instruction.
#[derive(Clone, Debug)]
pub struct Op {
    /// The manual's name.
    pub name: String,
    /// Its fixed bits.
    pub bits: u32,
    /// Which bits are fixed; the others are operands.
    pub mask: u32,
    /// Its treatment.
    pub kind: Kind,
    /// Widths of ft (bits 20..16), fs (15..11), fd (10..6) and, in COP1X, fr (25..21).
    pub fp: [Width; 4],
}

impl Op {
    /// The operand fields that are free, as a disassembly.
    pub fn show(&self, word: u32) -> String {
        let mut out = self.name.clone();
        let mut separator = ' ';
        let mut put = |text: String| {
            out.push(separator);
            out.push_str(&text);
            separator = ',';
        };
        if self.kind == Kind::Jump {
            put(format!("0x{:07x}", (word & 0x03ff_ffff) << 2));
            return out;
        }
        let free = |shift: u32, bits: u32| self.mask >> shift & ((1 << bits) - 1) == 0;
        if free(0, 16) {
            if free(16, 5) {
                put(self.register(word, 16, 0));
            }
            if free(21, 5) {
                put(format!("${}", word >> 21 & 31));
            }
            put(format!("{}", word as i16));
            return out;
        }
        let order: &[(u32, usize)] = if self.fp == NO {
            &[(11, 1), (21, 3), (16, 0)]
        } else {
            &[(6, 2), (21, 3), (11, 1), (16, 0)]
        };
        for &(shift, index) in order {
            if free(shift, 5) {
                put(self.register(word, shift, index));
            }
        }
        if self.fp == NO && free(6, 5) {
            put(format!("{}", word >> 6 & 31));
        }
        if free(19, 2) && !free(16, 5) {
            put(format!("cc{}", word >> 18 & 7));
        }
        if free(9, 2) && !free(6, 5) {
            put(format!("cc{}", word >> 8 & 7));
        }
        out
    }

    fn register(&self, word: u32, shift: u32, index: usize) -> String {
        let n = word >> shift & 31;
        if self.fp[index] == Width::None { format!("${n}") } else { format!("$f{n}") }
    }
}

/// Free fields by their usual names.
const S: u32 = 31 << 21;
const T: u32 = 31 << 16;
const D: u32 = 31 << 11;
const A: u32 = 31 << 6;
const I: u32 = 0xffff;
/// Condition code fields of branches and moves, and of compares.
const CC: u32 = 7 << 18;
const CCD: u32 = 7 << 8;

const NO: [Width; 4] = [Width::None; 4];

struct Builder(Vec<Op>);

impl Builder {
    fn op(&mut self, name: &str, bits: u32, free: u32, kind: Kind) {
        self.fp(name, bits, free, kind, NO);
    }
    fn fp(&mut self, name: &str, bits: u32, free: u32, kind: Kind, fp: [Width; 4]) {
        debug_assert_eq!(bits & free, 0, "{name}: a fixed bit in a free field");
        self.0.push(Op { name: name.into(), bits, mask: !free, kind, fp });
    }
    fn special(&mut self, name: &str, function: u32, free: u32, kind: Kind) {
        self.op(name, function, free, kind);
    }
    fn immediate(&mut self, name: &str, opcode: u32, kind: Kind) {
        self.op(name, opcode << 26, S | T | I, kind);
    }
}

fn special(b: &mut Builder) {
    use Kind::*;
    for (name, f, kind) in [
        ("sll", 0x00, Alu),
        ("srl", 0x02, Word),
        ("sra", 0x03, Word),
        ("dsll", 0x38, Alu),
        ("dsrl", 0x3a, Alu),
        ("dsra", 0x3b, Alu),
        ("dsll32", 0x3c, Alu),
        ("dsrl32", 0x3e, Alu),
        ("dsra32", 0x3f, Alu),
    ] {
        b.special(name, f, T | D | A, kind);
    }
    b.special("rotr", 1 << 21 | 0x02, T | D | A, Word);
    b.special("drotr", 1 << 21 | 0x3a, T | D | A, Alu);
    b.special("drotr32", 1 << 21 | 0x3e, T | D | A, Alu);
    for (name, f, kind) in [
        ("sllv", 0x04, Alu),
        ("srlv", 0x06, Word),
        ("srav", 0x07, Word),
        ("movz", 0x0a, Alu),
        ("movn", 0x0b, Alu),
        ("dsllv", 0x14, Alu),
        ("dsrlv", 0x16, Alu),
        ("dsrav", 0x17, Alu),
        ("add", 0x20, Word),
        ("addu", 0x21, Word),
        ("sub", 0x22, Word),
        ("subu", 0x23, Word),
        ("and", 0x24, Alu),
        ("or", 0x25, Alu),
        ("xor", 0x26, Alu),
        ("nor", 0x27, Alu),
        ("slt", 0x2a, Alu),
        ("sltu", 0x2b, Alu),
        ("dadd", 0x2c, Alu),
        ("daddu", 0x2d, Alu),
        ("dsub", 0x2e, Alu),
        ("dsubu", 0x2f, Alu),
    ] {
        b.special(name, f, S | T | D, kind);
    }
    b.special("rotrv", 1 << 6 | 0x06, S | T | D, Word);
    b.special("drotrv", 1 << 6 | 0x16, S | T | D, Alu);
    b.special("jr", 0x08, S, JumpRegister(false));
    b.special("jr.hb", 0x10 << 6 | 0x08, S, JumpRegister(false));
    b.special("jalr", 0x09, S | D, JumpRegister(true));
    b.special("jalr.hb", 0x10 << 6 | 0x09, S | D, JumpRegister(true));
    b.special("syscall", 0x0c, 0xfffff << 6, System);
    b.special("sync", 0x0f, A, Hint);
    for (name, f) in [("mfhi", 0x10), ("mflo", 0x12)] {
        b.special(name, f, D, Alu);
    }
    for (name, f) in [("mthi", 0x11), ("mtlo", 0x13)] {
        b.special(name, f, S, Alu);
    }
    for (name, f, kind) in [
        ("mult", 0x18, Word),
        ("multu", 0x19, Word),
        ("div", 0x1a, DivWord),
        ("divu", 0x1b, DivWord),
        ("dmult", 0x1c, Alu),
        ("dmultu", 0x1d, Alu),
        ("ddiv", 0x1e, DivDouble),
        ("ddivu", 0x1f, DivDouble),
    ] {
        b.special(name, f, S | T, kind);
    }
    for (name, f) in
        [("tge", 0x30), ("tgeu", 0x31), ("tlt", 0x32), ("tltu", 0x33), ("teq", 0x34), ("tne", 0x36)]
    {
        b.special(name, f, S | T | 0x3ff << 6, Alu);
    }
    b.special("movf", 0x01, S | CC | D, Alu);
    b.special("movt", 1 << 16 | 0x01, S | CC | D, Alu);
}

fn immediates(b: &mut Builder) {
    use Kind::*;
    for (name, rt, kind) in [
        ("bltz", 0x00, Branch(false)),
        ("bgez", 0x01, Branch(false)),
        ("bltzl", 0x02, Branch(false)),
        ("bgezl", 0x03, Branch(false)),
        ("tgei", 0x08, Alu),
        ("tgeiu", 0x09, Alu),
        ("tlti", 0x0a, Alu),
        ("tltiu", 0x0b, Alu),
        ("teqi", 0x0c, Alu),
        ("tnei", 0x0e, Alu),
        ("bltzal", 0x10, Branch(true)),
        ("bgezal", 0x11, Branch(true)),
        ("bltzall", 0x12, Branch(true)),
        ("bgezall", 0x13, Branch(true)),
        ("synci", 0x1f, Hint),
    ] {
        b.op(name, 1 << 26 | rt << 16, S | I, kind);
    }
    b.op("j", 2 << 26, 0x03ff_ffff, Jump);
    b.op("jal", 3 << 26, 0x03ff_ffff, Jump);
    for (name, opcode, kind) in [
        ("beq", 0x04, Branch(false)),
        ("bne", 0x05, Branch(false)),
        ("beql", 0x14, Branch(false)),
        ("bnel", 0x15, Branch(false)),
        ("addi", 0x08, Word),
        ("addiu", 0x09, Word),
        ("slti", 0x0a, Alu),
        ("sltiu", 0x0b, Alu),
        ("andi", 0x0c, Alu),
        ("ori", 0x0d, Alu),
        ("xori", 0x0e, Alu),
        ("daddi", 0x18, Alu),
        ("daddiu", 0x19, Alu),
        ("ldl", 0x1a, Memory(8)),
        ("ldr", 0x1b, Memory(8)),
        ("lb", 0x20, Memory(1)),
        ("lh", 0x21, Memory(2)),
        ("lwl", 0x22, Memory(4)),
        ("lw", 0x23, Memory(4)),
        ("lbu", 0x24, Memory(1)),
        ("lhu", 0x25, Memory(2)),
        ("lwr", 0x26, Memory(4)),
        ("lwu", 0x27, Memory(4)),
        ("sb", 0x28, Memory(1)),
        ("sh", 0x29, Memory(2)),
        ("swl", 0x2a, Memory(4)),
        ("sw", 0x2b, Memory(4)),
        ("sdl", 0x2c, Memory(8)),
        ("sdr", 0x2d, Memory(8)),
        ("swr", 0x2e, Memory(4)),
        ("cache", 0x2f, Hint),
        ("ll", 0x30, Linked),
        ("lld", 0x34, Linked),
        ("ld", 0x37, Memory(8)),
        ("sd", 0x3f, Memory(8)),
    ] {
        b.immediate(name, opcode, kind);
    }
    // Hints 30 and 31 differ between revisions; 25 (nudge) too: 0..7 are plain everywhere.
    for hint in 0..8 {
        b.op("pref", 0x33 << 26 | hint << 16, S | I, Hint);
    }
    b.op("lui", 0x0f << 26, T | I, Alu);
    for (name, opcode) in [("blez", 0x06), ("bgtz", 0x07), ("blezl", 0x16), ("bgtzl", 0x17)] {
        b.op(name, opcode << 26, S | I, Branch(false));
    }
    let ft = |w| [w, Width::None, Width::None, Width::None];
    b.fp("lwc1", 0x31 << 26, S | T | I, Memory(4), ft(Width::Single));
    b.fp("swc1", 0x39 << 26, S | T | I, Memory(4), ft(Width::Single));
    b.fp("ldc1", 0x35 << 26, S | T | I, Memory(8), ft(Width::Double));
    b.fp("sdc1", 0x3d << 26, S | T | I, Memory(8), ft(Width::Double));
}

fn special23(b: &mut Builder) {
    use Kind::*;
    const S2: u32 = 0x1c << 26;
    const S3: u32 = 0x1f << 26;
    for (name, f) in [("madd", 0), ("maddu", 1), ("msub", 4), ("msubu", 5)] {
        b.op(name, S2 | f, S | T, Word);
    }
    b.op("mul", S2 | 2, S | T | D, Word);
    for (name, f, word) in
        [("clz", 0x20, true), ("clo", 0x21, true), ("dclz", 0x24, false), ("dclo", 0x25, false)]
    {
        b.op(name, S2 | f, S | T | D, Count(word));
    }
    for (name, f, shape) in [
        ("ext", 0, self::Field::Ext),
        ("dextm", 1, self::Field::Dextm),
        ("dextu", 2, self::Field::Dextu),
        ("dext", 3, self::Field::Dext),
        ("ins", 4, self::Field::Ins),
        ("dinsm", 5, self::Field::Dinsm),
        ("dinsu", 6, self::Field::Dinsu),
        ("dins", 7, self::Field::Dins),
    ] {
        b.op(name, S3 | f, S | T | D | A, Field(shape));
    }
    for (name, f, sub, kind) in [
        ("wsbh", 0x20, 0x02, Word),
        ("seb", 0x20, 0x10, Word),
        ("seh", 0x20, 0x18, Word),
        ("dsbh", 0x24, 0x02, Alu),
        ("dshd", 0x24, 0x05, Alu),
    ] {
        b.op(name, S3 | sub << 6 | f, T | D, kind);
    }
    // CPUNum, SYNCI_Step and CCRes; CC (2) moves, and 29 is implemented by no model here.
    for register in [0, 1, 3] {
        b.op("rdhwr", S3 | register << 11 | 0x3b, T, ReadHardware);
    }
}

fn float(b: &mut Builder) {
    use Kind::*;
    use Width::{Double, Full, None as N, Single};
    const COP1: u32 = 0x11 << 26;
    // Formats: their code in the rs field, and the width of their registers.
    let formats = [("s", 16, Single), ("d", 17, Double), ("ps", 22, Full)];
    for (format, code, w) in formats {
        let base = COP1 | code << 21;
        let mut f = |name: &str, f: u32, free, fp| {
            b.fp(&format!("{name}.{format}"), base | f, free, Float, fp)
        };
        for (name, code) in [("add", 0), ("sub", 1), ("mul", 2)] {
            f(name, code, T | D | A, [w, w, w, N]);
        }
        for (name, code) in [("abs", 5), ("mov", 6), ("neg", 7), ("recip1", 0x1d), ("rsqrt1", 0x1e)]
        {
            f(name, code, D | A, [N, w, w, N]);
        }
        for (name, code) in [("recip2", 0x1c), ("rsqrt2", 0x1f)] {
            f(name, code, T | D | A, [w, w, w, N]);
        }
        // Paired single uses condition codes in pairs: an odd one is UNPREDICTABLE.
        let (cc, ccd) = if format == "ps" { (6 << 18, 6 << 8) } else { (CC, CCD) };
        f("movf", 0x11, cc | D | A, [N, w, w, N]);
        f("movt", 1 << 16 | 0x11, cc | D | A, [N, w, w, N]);
        // Here T is a GPR.
        f("movz", 0x12, T | D | A, [N, w, w, N]);
        f("movn", 0x13, T | D | A, [N, w, w, N]);
        for condition in 0..16 {
            let name = [
                "f", "un", "eq", "ueq", "olt", "ult", "ole", "ule", "sf", "ngle", "seq", "ngl",
                "lt", "nge", "le", "ngt",
            ][condition as usize];
            f(&format!("c.{name}"), 0x30 | condition, T | D | ccd, [w, w, N, N]);
            f(&format!("cabs.{name}"), 0x70 | condition, T | D | ccd, [w, w, N, N]);
        }
        if format == "ps" {
            f("addr", 0x18, T | D | A, [w, w, w, N]);
            f("mulr", 0x1a, T | D | A, [w, w, w, N]);
            f("pll", 0x2c, T | D | A, [w, w, w, N]);
            f("plu", 0x2d, T | D | A, [w, w, w, N]);
            f("pul", 0x2e, T | D | A, [w, w, w, N]);
            f("puu", 0x2f, T | D | A, [w, w, w, N]);
            // Paired single exists with FR = 1 only, where a single's register may be any.
            f("cvt.s.pu", 0x20, D | A, [N, w, Single, N]);
            f("cvt.s.pl", 0x28, D | A, [N, w, Single, N]);
            f("cvt.pw", 0x24, D | A, [N, w, w, N]);
        } else {
            f("div", 3, T | D | A, [w, w, w, N]);
            for (name, code) in [("sqrt", 4), ("recip", 0x15), ("rsqrt", 0x16)] {
                f(name, code, D | A, [N, w, w, N]);
            }
            for (name, code, to) in [
                ("round.l", 8, Full),
                ("trunc.l", 9, Full),
                ("ceil.l", 10, Full),
                ("floor.l", 11, Full),
                ("round.w", 12, Single),
                ("trunc.w", 13, Single),
                ("ceil.w", 14, Single),
                ("floor.w", 15, Single),
                ("cvt.w", 0x24, Single),
                ("cvt.l", 0x25, Full),
            ] {
                f(name, code, D | A, [N, w, to, N]);
            }
        }
        if format == "s" {
            f("cvt.d", 0x21, D | A, [N, w, Double, N]);
            f("cvt.ps", 0x26, T | D | A, [w, w, Full, N]);
        }
        if format == "d" {
            f("cvt.s", 0x20, D | A, [N, w, Single, N]);
        }
    }
    for (format, code, from) in [("w", 20, Single), ("l", 21, Full)] {
        let base = COP1 | code << 21;
        b.fp(&format!("cvt.s.{format}"), base | 0x20, D | A, Float, [N, from, Single, N]);
        b.fp(&format!("cvt.d.{format}"), base | 0x21, D | A, Float, [N, from, Double, N]);
    }
    b.fp("cvt.ps.pw", COP1 | 20 << 21 | 0x26, D | A, Float, [N, Full, Full, N]);
    for (name, rs, w) in [
        ("mfc1", 0, Single),
        ("dmfc1", 1, Double),
        ("mfhc1", 3, Double),
        ("mtc1", 4, Single),
        ("dmtc1", 5, Double),
        ("mthc1", 7, Double),
    ] {
        b.fp(name, COP1 | rs << 21, T | D, Move, [N, w, N, N]);
    }
    for register in [0, 25, 26, 28, 31] {
        b.op("cfc1", COP1 | 2 << 21 | register << 11, T, Control);
        if register != 0 {
            b.op("ctc1", COP1 | 6 << 21 | register << 11, T, Control);
        }
    }
    for (rs, any) in [(8, ""), (9, "any2"), (10, "any4")] {
        for (tail, bits) in [("f", 0), ("t", 1), ("fl", 2), ("tl", 3)] {
            // MIPS-3D has no likely forms, and wants its condition codes aligned.
            if rs != 8 && bits > 1 {
                continue;
            }
            let codes = match rs {
                8 => CC,
                9 => 6 << 18,
                _ => 4 << 18,
            };
            b.op(
                &format!("bc1{any}{tail}"),
                COP1 | rs << 21 | bits << 16,
                codes | I,
                Branch(false),
            );
        }
    }
    cop1x(b);
}

fn cop1x(b: &mut Builder) {
    use Kind::*;
    use Width::{Double, Full, None as N, Single};
    const COP1X: u32 = 0x13 << 26;
    for (name, f, bytes, w) in [("lwxc1", 0, 4, Single), ("ldxc1", 1, 8, Double)] {
        b.fp(name, COP1X | f, S | T | A, Indexed(bytes), [N, N, w, N]);
    }
    b.fp("luxc1", COP1X | 5, S | T | A, Indexed(1), [N, N, Full, N]);
    for (name, f, bytes, w) in
        [("swxc1", 8, 4, Single), ("sdxc1", 9, 8, Double), ("suxc1", 0x0d, 1, Full)]
    {
        b.fp(name, COP1X | f, S | T | D, Indexed(bytes), [N, w, N, N]);
    }
    b.op("prefx", COP1X | 0x0f, S | T, Indexed(1));
    // The rs field of alnv.ps is a GPR.
    b.fp("alnv.ps", COP1X | 0x1e, S | T | D | A, Float, [Full, Full, Full, N]);
    for (name, f) in [("madd", 0x20), ("msub", 0x28), ("nmadd", 0x30), ("nmsub", 0x38)] {
        for (format, code, w) in [("s", 0, Single), ("d", 1, Double), ("ps", 6, Full)] {
            b.fp(&format!("{name}.{format}"), COP1X | f | code, S | T | D | A, Float, [w, w, w, w]);
        }
    }
}

/// Every instruction.
pub fn table() -> &'static [Op] {
    static TABLE: OnceLock<Vec<Op>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut b = Builder(Vec::new());
        special(&mut b);
        immediates(&mut b);
        special23(&mut b);
        float(&mut b);
        b.0
    })
}

/// The instruction that `word` is, if it is in the table.
pub fn find(word: u32) -> Option<&'static Op> {
    table().iter().find(|op| word & op.mask == op.bits)
}

/// A name for any word that a stream may hold.
pub fn show(word: u32) -> String {
    if let Some(op) = find(word) {
        return if word == 0 { "nop".into() } else { op.show(word) };
    }
    let (rt, rd, sel) = (word >> 16 & 31, word >> 11 & 31, word & 7);
    match (word >> 26, word >> 21 & 31) {
        (0, _) if word & 0x3f == 0x0d => format!("break {}", word >> 6 & 0xfffff),
        (0x38 | 0x3c, base) => {
            format!(
                "{} ${rt},${base},{}",
                if word >> 26 == 0x38 { "sc" } else { "scd" },
                word as i16
            )
        }
        (0x10, 0) => format!("mfc0 ${rt},{rd},{sel}"),
        (0x10, 1) => format!("dmfc0 ${rt},{rd},{sel}"),
        (0x10, 4) => format!("mtc0 ${rt},{rd},{sel}"),
        (0x10, 5) => format!("dmtc0 ${rt},{rd},{sel}"),
        (0x10, 10) => format!("rdpgpr ${rd},${rt}"),
        (0x10, 14) => format!("wrpgpr ${rd},${rt}"),
        (0x10, 11) => format!("{} ${rt}", if word & 0x20 == 0 { "di" } else { "ei" }),
        (0x10, 16) => match word & 0x3f {
            1 => "tlbr".into(),
            2 => "tlbwi".into(),
            6 => "tlbwr".into(),
            8 => "tlbp".into(),
            0x18 => "eret".into(),
            _ => ".word (cop0)".into(),
        },
        _ => ".word".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_disjoint() {
        let all = table();
        assert!(all.len() > 300);
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                let common = a.mask & b.mask;
                assert!(a.bits & common != b.bits & common, "{} overlaps {}", a.name, b.name);
            }
        }
    }

    #[test]
    fn known_words() {
        // From a disassembly of a Linux kernel.
        for (word, text) in [
            (0x67bd_ffe0, "daddiu $29,$29,-32"),
            (0x0043_102d, "daddu $2,$2,$3"),
            (0x4600_2086, "mov.s $f2,$f4"),
            (0xdfbf_0018, "ld $31,$29,24"),
        ] {
            assert_eq!(show(word), text);
        }
    }
}
