//! The FPU's instructions, each as its encoding and as the function of `vmm_core::fpu` that should
//! compute the same. Operands are fs = f2, ft = f4, fr = f6; the result is in fd = f8.

use vmm_core::fpu::{
    self, Binary, Condition, Fcsr, Format, FpTrap, Integer, MulAdd, Reduce, Rounding, Scalar, Unary,
};

/// fs.
pub const FS: u32 = 2;
/// ft.
pub const FT: u32 = 4;
/// fr.
pub const FR: u32 = 6;
/// fd.
pub const FD: u32 = 8;

/// Operand values and the modes to compute under.
#[derive(Clone, Copy, Debug)]
pub struct Operands {
    /// FPR fs.
    pub fs: u64,
    /// FPR ft.
    pub ft: u64,
    /// FPR fr.
    pub fr: u64,
}

/// What an instruction's operands are, for choosing interesting ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Singles.
    S,
    /// Doubles.
    D,
    /// Paired singles.
    Ps,
    /// A word or a pair of words.
    W,
    /// A long.
    L,
}

/// Which bits of fd an instruction writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// None: it writes a condition code.
    Nothing,
    /// The lower 32; QEMU keeps the upper ones, which are UNPREDICTABLE.
    Lower,
    /// All 64.
    All,
}

type Model = Box<dyn Fn(Operands, &mut Fcsr) -> Result<u64, FpTrap> + Send + Sync>;

/// An instruction under test.
pub struct Op {
    /// Its assembler name.
    pub name: String,
    /// Its encoding.
    pub word: u32,
    /// Its operands.
    pub kind: Kind,
    /// Its result.
    pub writes: Writes,
    /// What it should compute.
    pub model: Model,
}

const FMT_S: u32 = 16;
const FMT_D: u32 = 17;
const FMT_W: u32 = 20;
const FMT_L: u32 = 21;
const FMT_PS: u32 = 22;

const FORMATS: [(&str, u32, u32, Format, Kind, Writes); 3] = [
    ("s", FMT_S, 0, Format::S, Kind::S, Writes::Lower),
    ("d", FMT_D, 1, Format::D, Kind::D, Writes::All),
    ("ps", FMT_PS, 6, Format::Ps, Kind::Ps, Writes::All),
];

const fn cop1(fmt: u32, function: u32) -> u32 {
    0x11 << 26 | fmt << 21 | FT << 16 | FS << 11 | FD << 6 | function
}

/// An instruction without ft.
const fn cop1_unary(fmt: u32, function: u32) -> u32 {
    cop1(fmt, function) & !(0x1f << 16)
}

const fn cop1x(function: u32) -> u32 {
    0x13 << 26 | FR << 21 | FT << 16 | FS << 11 | FD << 6 | function
}

/// All of them: MIPS64 R2 with paired singles and MIPS-3D.
pub fn all() -> Vec<Op> {
    let mut list = Vec::new();
    arithmetic(&mut list);
    conversions(&mut list);
    comparisons(&mut list);
    list
}

fn arithmetic(list: &mut Vec<Op>) {
    let mut add = |name: String, word, kind, writes, model: Model| {
        list.push(Op { name, word, kind, writes, model });
    };
    for (suffix, fmt, fmt3, format, kind, writes) in FORMATS {
        for (name, function, op, paired) in [
            ("add", 0, Binary::Add, true),
            ("sub", 1, Binary::Sub, true),
            ("mul", 2, Binary::Mul, true),
            ("div", 3, Binary::Div, false),
            ("recip2", 0x1c, Binary::Recip2, true),
            ("rsqrt2", 0x1f, Binary::Rsqrt2, true),
        ] {
            if paired || kind != Kind::Ps {
                let model: Model = Box::new(move |o, f| fpu::binary(op, format, o.fs, o.ft, f));
                add(format!("{name}.{suffix}"), cop1(fmt, function), kind, writes, model);
            }
        }
        for (name, function, op, paired) in [
            ("sqrt", 4, Unary::Sqrt, false),
            ("recip", 0x15, Unary::Recip, false),
            ("rsqrt", 0x16, Unary::Rsqrt, false),
            ("recip1", 0x1d, Unary::Recip, true),
            ("rsqrt1", 0x1e, Unary::Rsqrt, true),
        ] {
            if paired || kind != Kind::Ps {
                let model: Model = Box::new(move |o, f| fpu::unary(op, format, o.fs, f));
                add(format!("{name}.{suffix}"), cop1_unary(fmt, function), kind, writes, model);
            }
        }
        for (name, function, op) in [
            ("madd", 0x20, MulAdd::Madd),
            ("msub", 0x28, MulAdd::Msub),
            ("nmadd", 0x30, MulAdd::Nmadd),
            ("nmsub", 0x38, MulAdd::Nmsub),
        ] {
            let model: Model = Box::new(move |o, f| fpu::mul_add(op, format, o.fr, o.fs, o.ft, f));
            add(format!("{name}.{suffix}"), cop1x(function | fmt3), kind, writes, model);
        }
        let abs: Model = Box::new(move |o, _| Ok(fpu::abs(format, o.fs)));
        add(format!("abs.{suffix}"), cop1_unary(fmt, 5), kind, writes, abs);
        let neg: Model = Box::new(move |o, _| Ok(fpu::neg(format, o.fs)));
        add(format!("neg.{suffix}"), cop1_unary(fmt, 7), kind, writes, neg);
    }
    for (name, function, op) in [("addr.ps", 0x18, Reduce::Add), ("mulr.ps", 0x1a, Reduce::Mul)] {
        let model: Model = Box::new(move |o, f| fpu::reduce(op, o.fs, o.ft, f));
        add(name.into(), cop1(FMT_PS, function), Kind::Ps, Writes::All, model);
    }
}

fn conversions(list: &mut Vec<Op>) {
    let mut add = |name: String, fmt, function, kind, writes, model: Model| {
        list.push(Op { name, word: cop1_unary(fmt, function), kind, writes, model });
    };
    for (suffix, fmt, from, kind) in
        [("s", FMT_S, Scalar::S, Kind::S), ("d", FMT_D, Scalar::D, Kind::D)]
    {
        for (name, base, rounding) in [
            ("round", 0x08, Some(Rounding::Nearest)),
            ("trunc", 0x09, Some(Rounding::Zero)),
            ("ceil", 0x0a, Some(Rounding::Up)),
            ("floor", 0x0b, Some(Rounding::Down)),
            ("cvt", 0x25, None),
        ] {
            // `cvt.w` precedes `cvt.l`; the others have W four after L.
            let word = if rounding.is_none() { base - 1 } else { base + 4 };
            for (to_name, function, to, writes) in
                [("w", word, Integer::W, Writes::Lower), ("l", base, Integer::L, Writes::All)]
            {
                let model: Model =
                    Box::new(move |o, f| fpu::to_integer(from, to, rounding, o.fs, f));
                add(format!("{name}.{to_name}.{suffix}"), fmt, function, kind, writes, model);
            }
        }
    }
    for (suffix, fmt, from, kind) in
        [("w", FMT_W, Integer::W, Kind::W), ("l", FMT_L, Integer::L, Kind::L)]
    {
        for (name, function, to, writes) in
            [("cvt.s", 0x20, Scalar::S, Writes::Lower), ("cvt.d", 0x21, Scalar::D, Writes::All)]
        {
            let model: Model = Box::new(move |o, f| fpu::from_integer(from, to, o.fs, f));
            add(format!("{name}.{suffix}"), fmt, function, kind, writes, model);
        }
    }
    let mut special = |name: &str, fmt, function, kind, writes, model: Model| {
        add(name.into(), fmt, function, kind, writes, model);
    };
    let (lower, all) = (Writes::Lower, Writes::All);
    special("cvt.s.d", FMT_D, 0x20, Kind::D, lower, Box::new(|o, f| fpu::cvt_s_d(o.fs, f)));
    special("cvt.d.s", FMT_S, 0x21, Kind::S, all, Box::new(|o, f| fpu::cvt_d_s(o.fs, f)));
    special(
        "cvt.s.pu",
        FMT_PS,
        0x20,
        Kind::Ps,
        lower,
        Box::new(|o, f| Ok(fpu::cvt_s_p(true, o.fs, f))),
    );
    special(
        "cvt.s.pl",
        FMT_PS,
        0x28,
        Kind::Ps,
        lower,
        Box::new(|o, f| Ok(fpu::cvt_s_p(false, o.fs, f))),
    );
    special("cvt.pw.ps", FMT_PS, 0x24, Kind::Ps, all, Box::new(|o, f| fpu::cvt_pw_ps(o.fs, f)));
    special("cvt.ps.pw", FMT_W, 0x26, Kind::W, all, Box::new(|o, f| fpu::cvt_ps_pw(o.fs, f)));
}

fn comparisons(list: &mut Vec<Op>) {
    const CONDITIONS: [&str; 16] = [
        "f", "un", "eq", "ueq", "olt", "ult", "ole", "ule", "sf", "ngle", "seq", "ngl", "lt",
        "nge", "le", "ngt",
    ];
    for (suffix, fmt, _, format, kind, _) in FORMATS {
        for (bits, condition_name) in CONDITIONS.iter().enumerate() {
            for (name, absolute) in [("c", false), ("cabs", true)] {
                let bits = bits as u8;
                // Each condition tests another code, an even one for pairs.
                let cc = if kind == Kind::Ps { bits & 6 } else { bits & 7 };
                let condition = Condition::from_bits(bits);
                list.push(Op {
                    name: format!("{name}.{condition_name}.{suffix}"),
                    word: cop1(fmt, 0x30 | u32::from(bits)) & !(0x1f << 6)
                        | u32::from(cc) << 8
                        | u32::from(absolute) << 6,
                    kind,
                    writes: Writes::Nothing,
                    model: Box::new(move |o, f| {
                        fpu::compare(condition, absolute, format, o.fs, o.ft, cc, f).map(|()| 0)
                    }),
                });
            }
        }
    }
}
