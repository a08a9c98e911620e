//! The decoder against an independent disassembler: LLVM's.
//!
//! `llvm.txt` holds instruction words, spread over all opcodes and functions with random fields, and
//! what `llvm-mc --disassemble --triple=mips64 -mcpu=mips64r2` (LLVM 14) makes of them, words that it
//! knows only. (It knows no MIPS-3D, and few paired singles; QEMU is the judge of those, in the
//! differential tests.)

use super::{Insn, Op, Reg, decode};
use crate::fpu::Format;

/// An operand as text has it.
#[derive(Clone, Copy, Debug)]
enum Operand {
    General(u32),
    Float(u32),
    Code(u32),
    Number(i64),
}

fn operand(text: &str) -> Operand {
    let number = |digits: &str| digits.parse().expect("a register number");
    match text.strip_prefix('$') {
        None => Operand::Number(text.parse().expect("a number")),
        Some("zero") => Operand::General(0),
        Some("gp") => Operand::General(28),
        Some("sp") => Operand::General(29),
        Some("fp") => Operand::General(30),
        Some("ra") => Operand::General(31),
        Some(name) => match (name.strip_prefix("fcc"), name.strip_prefix('f')) {
            (Some(code), _) => Operand::Code(number(code)),
            (_, Some(float)) => Operand::Float(number(float)),
            _ => Operand::General(number(name)),
        },
    }
}

/// Operands, with `offset(base)` and `index(base)` taken apart.
fn operands(text: &str) -> Vec<Operand> {
    text.split([',', '(', ')'])
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(operand)
        .collect()
}

fn source(operand: Operand) -> Reg {
    match operand {
        Operand::General(n) | Operand::Float(n) | Operand::Code(n) => Reg::from_bits(n),
        Operand::Number(n) => Reg::from_bits(n as u32),
    }
}

fn destination(operand: Operand) -> Reg {
    match operand {
        Operand::General(_) => source(operand).destination(),
        _ => source(operand),
    }
}

fn number(operand: Operand) -> i32 {
    match operand {
        Operand::Number(n) => n as i32,
        other => panic!("{other:?} is no number"),
    }
}

fn code(operands: &[Operand]) -> (u32, &[Operand]) {
    match operands {
        [Operand::Code(code), rest @ ..] => (*code, rest),
        _ => (0, operands),
    }
}

const FORMATS: [(&str, Format); 3] = [(".s", Format::S), (".d", Format::D), (".ps", Format::Ps)];

const CONDITIONS: [&str; 16] = [
    "f", "un", "eq", "ueq", "olt", "ult", "ole", "ule", "sf", "ngle", "seq", "ngl", "lt", "nge",
    "le", "ngt",
];

/// The name of an operation without its format, as `Op` spells it.
fn op_name(op: Op) -> String {
    format!("{op:?}").to_lowercase()
}

/// Fails unless `insn` says what the text does.
fn check(word: u32, insn: Insn, mnemonic: &str, ops: &[Operand]) {
    let is = |field: Reg, operand: Operand| {
        assert!(
            field == source(operand) || field == destination(operand),
            "{field:?} is not {operand:?}"
        );
    };
    let named = |name: &str| assert_eq!(op_name(insn.op), name);
    let (stem, format) = FORMATS
        .iter()
        .find_map(|(suffix, format)| Some((mnemonic.strip_suffix(suffix)?, Some(*format))))
        .unwrap_or((mnemonic, None));
    let flat = mnemonic.replace('.', "");
    match (mnemonic, ops) {
        // Forms without effect.
        (_, [Operand::General(0), ..]) if insn.op == Op::Nop => {
            let traps = mnemonic.starts_with(['l', 'd']) && mnemonic != "lui";
            assert!(!traps, "it may trap");
        }
        ("bne" | "bnez", [a, rest @ ..]) if insn.op == Op::Nop => {
            let b = if rest.len() == 2 { source(rest[0]) } else { Reg::R0 };
            assert_eq!(source(*a), b);
        }
        ("sync" | "pref", _) => named(mnemonic),
        // Constants and copies.
        ("addiu" | "ori", [t, s, n]) if insn.op == Op::Li => {
            assert_eq!((insn.c, source(*s)), (destination(*t), Reg::R0));
            assert_eq!(insn.imm, number(*n));
        }
        ("lui", [t, n]) => {
            assert_eq!((insn.op, insn.c, insn.imm), (Op::Li, destination(*t), number(*n) << 16));
        }
        ("move", [d, s]) => {
            assert!(matches!(insn.op, Op::Move | Op::Addu | Op::Daddu | Op::Or));
            assert_eq!((insn.a, insn.b, insn.c), (source(*s), Reg::R0, destination(*d)));
        }
        ("negu", [d, t]) => {
            assert_eq!((insn.op, insn.a, insn.b), (Op::Subu, Reg::R0, source(*t)));
            assert_eq!(insn.c, destination(*d));
        }
        ("dneg", [d, t]) => {
            assert_eq!((insn.op, insn.a, insn.b), (Op::Dsub, Reg::R0, source(*t)));
            assert_eq!(insn.c, destination(*d));
        }
        ("not", [d, s]) => {
            assert_eq!((insn.op, insn.a, insn.b), (Op::Nor, source(*s), Reg::R0));
            assert_eq!(insn.c, destination(*d));
        }
        // Control.
        ("j" | "jal", [n]) => {
            named(mnemonic);
            assert_eq!(insn.imm, number(*n));
        }
        // `jalr` without a link is written `jr`.
        ("jr", [s]) => {
            assert!(insn.op == Op::Jr || (insn.op == Op::Jalr && insn.c == Reg::SINK));
            is(insn.a, *s);
        }
        ("jalr" | "jalr.hb", [rest @ .., s]) => {
            named("jalr");
            is(insn.a, *s);
            assert_eq!(insn.c, rest.first().map_or(Reg::R31, |d| destination(*d)));
        }
        ("beq" | "bne" | "beql" | "bnel", [s, t, n]) => {
            if insn.op == Op::B {
                assert_eq!(source(*s), source(*t));
            } else {
                named(mnemonic);
            }
            is(insn.a, *s);
            is(insn.b, *t);
            assert_eq!(insn.imm, number(*n) - 4);
        }
        ("bnez" | "bnezl", [s, n]) => {
            named(if mnemonic == "bnez" { "bne" } else { "bnel" });
            assert_eq!((insn.a, insn.b, insn.imm), (source(*s), Reg::R0, number(*n) - 4));
        }
        ("bc1f" | "bc1t" | "bc1fl" | "bc1tl", ops) => {
            named(mnemonic);
            let (code, rest) = code(ops);
            assert_eq!((insn.c.index() as u32, insn.imm), (code, number(rest[0]) - 4));
        }
        (_, [s, n]) if mnemonic.starts_with('b') && mnemonic != "break" => {
            named(mnemonic);
            is(insn.a, *s);
            assert_eq!(insn.imm, number(*n) - 4);
        }
        // Bit fields: position and size.
        ("ext" | "ins" | "dext" | "dins", [t, s, position, size]) => {
            named(mnemonic);
            is(insn.a, *s);
            is(insn.b, *t);
            assert_eq!(insn.c, destination(*t));
            assert_eq!(
                (insn.position() as i32, insn.width() as i32),
                (number(*position), number(*size))
            );
        }
        // Coprocessor 0.
        ("mfc0" | "dmfc0" | "mtc0" | "dmtc0", [t, d, sel]) => {
            named(mnemonic);
            is(insn.b, *t);
            assert_eq!(insn.c, destination(*t));
            assert_eq!(insn.imm, (source(*d).index() as i32) << 3 | number(*sel));
        }
        ("di" | "ei", ops) => {
            named(mnemonic);
            assert_eq!(insn.c, ops.first().map_or(Reg::SINK, |t| destination(*t)));
        }
        ("rdhwr", [t, d]) => {
            named(mnemonic);
            assert_eq!((insn.a, insn.c), (source(*d), destination(*t)));
        }
        ("deret" | "sdbbp" | "jalx", _) => named("reserved"),
        ("lwc2" | "ldc2" | "swc2" | "sdc2", _) => {
            named("copunusable");
            assert_eq!(insn.imm, 2);
        }
        ("cache", [n, offset, base]) => {
            named(mnemonic);
            assert_eq!((insn.b, insn.a), (source(*n), source(*base)));
            assert_eq!(insn.imm, number(*offset));
        }
        ("synci", [offset, base]) => {
            named(mnemonic);
            assert_eq!((insn.a, insn.imm), (source(*base), number(*offset)));
        }
        ("syscall" | "break", _) | (_, []) => named(mnemonic),
        // Traps: two registers and a code, or a register and a constant.
        (_, [s, Operand::Number(n)]) if mnemonic.starts_with('t') => {
            named(mnemonic);
            is(insn.a, *s);
            assert_eq!(i64::from(insn.imm), *n);
        }
        (_, [s, t, ..]) if mnemonic.starts_with('t') && format.is_none() => {
            named(mnemonic);
            is(insn.a, *s);
            is(insn.b, *t);
        }
        // Floating point: moves to and from general registers.
        ("mfc1" | "dmfc1" | "mfhc1" | "cfc1" | "mtc1" | "dmtc1" | "mthc1" | "ctc1", [t, fs]) => {
            named(mnemonic);
            is(insn.a, *fs);
            is(insn.b, *t);
            assert_eq!(insn.c, destination(*t));
        }
        ("movf" | "movt", [d, s, Operand::Code(cc)]) => {
            named(mnemonic);
            assert_eq!((insn.a, insn.c), (source(*s), destination(*d)));
            assert_eq!(u32::from(insn.cc()), *cc);
        }
        _ if stem.starts_with("c.") => {
            named("cmp");
            let (code, rest) = code(ops);
            let condition = CONDITIONS[usize::from(insn.condition())];
            assert_eq!((Some(condition), Some(insn.format())), (stem.strip_prefix("c."), format));
            assert_eq!(u32::from(insn.cc()), code);
            assert_eq!((insn.a, insn.b), (source(rest[0]), source(rest[1])));
        }
        _ if matches!(stem, "movf" | "movt") => {
            named("movcf");
            let [fd, fs, Operand::Code(cc)] = ops else { panic!("three operands") };
            assert_eq!((insn.a, insn.c), (source(*fs), source(*fd)));
            assert_eq!((u32::from(insn.cc()), insn.imm & 1 == 1), (*cc, stem == "movt"));
            assert_eq!(Some(insn.format()), format);
        }
        _ if matches!(stem, "madd" | "msub" | "nmadd" | "nmsub") && format.is_some() => {
            assert_eq!(op_name(insn.op), format!("{stem}f"));
            let [fd, fr, fs, ft] = ops else { panic!("four operands") };
            assert_eq!((insn.c, insn.fr()), (source(*fd), source(*fr)));
            assert_eq!((insn.a, insn.b), (source(*fs), source(*ft)));
            assert_eq!(Some(insn.format()), format);
        }
        _ if matches!(stem, "movz" | "movn") && format.is_some() => {
            assert_eq!(op_name(insn.op), format!("{stem}f"));
            let [fd, fs, t] = ops else { panic!("three operands") };
            assert_eq!((insn.a, insn.b, insn.c), (source(*fs), source(*t), source(*fd)));
            assert_eq!(Some(insn.format()), format);
        }
        _ if matches!(stem, "pll" | "plu" | "pul" | "puu") => {
            named("packps");
            let halves = ["pll", "plu", "pul", "puu"][insn.imm as usize];
            assert_eq!(halves, stem);
            assert_eq!((insn.c, insn.a, insn.b), (source(ops[0]), source(ops[1]), source(ops[2])));
        }
        // To an integer: the rounding is in the name.
        (_, [fd, fs])
            if ["round", "trunc", "ceil", "floor", "cvt"].iter().enumerate().any(
                |(rounding, name)| {
                    let to = [".w.", ".l."]
                        .iter()
                        .find(|to| mnemonic.starts_with(&format!("{name}{to}")));
                    to.is_some_and(|to| {
                        let from = mnemonic.rsplit('.').next().expect("a format");
                        assert_eq!(op_name(insn.op), format!("to{}{from}", to.replace('.', "")));
                        assert_eq!(insn.imm as usize, rounding);
                        true
                    })
                },
            ) =>
        {
            assert_eq!((insn.c, insn.a), (source(*fd), source(*fs)));
        }
        // Loads and stores, with an offset …
        (_, [t, Operand::Number(offset), base]) if matches!(base, Operand::General(_)) => {
            named(&flat);
            is(insn.a, *base);
            is(insn.b, *t);
            assert_eq!(insn.c, destination(*t));
            assert_eq!(i64::from(insn.imm), *offset);
        }
        // … and with an index.
        (_, [f, index, base]) if mnemonic.ends_with("xc1") => {
            named(&flat);
            assert_eq!((insn.a, insn.b, insn.c), (source(*base), source(*index), source(*f)));
        }
        // An immediate, or a shift's amount, which is of rt.
        (_, [t, s, Operand::Number(n)]) => {
            let far = flat.strip_suffix("32");
            named(far.unwrap_or(&flat));
            assert_eq!(insn.c, destination(*t));
            let shift = flat.starts_with("sll")
                || flat.contains("sr")
                || flat.contains("rotr")
                || flat.starts_with("dsll");
            is(if shift { insn.b } else { insn.a }, *s);
            assert_eq!(i64::from(insn.imm), n + if far.is_some() { 32 } else { 0 });
        }
        // Multiplication and division into HI and LO.
        ("div" | "divu" | "ddiv" | "ddivu", [_, s, t]) | (_, [s, t])
            if matches!(
                flat.as_str(),
                "mult"
                    | "multu"
                    | "dmult"
                    | "dmultu"
                    | "madd"
                    | "maddu"
                    | "msub"
                    | "msubu"
                    | "div"
                    | "divu"
                    | "ddiv"
                    | "ddivu"
            ) =>
        {
            named(&flat);
            is(insn.a, *s);
            is(insn.b, *t);
        }
        (_, [d]) => {
            named(&flat);
            if flat.starts_with("mt") { is(insn.a, *d) } else { is(insn.c, *d) }
        }
        (_, [d, s]) => {
            named(&flat);
            assert_eq!(insn.c, destination(*d));
            let of_rt = matches!(flat.as_str(), "wsbh" | "seb" | "seh" | "dsbh" | "dshd");
            is(if of_rt { insn.b } else { insn.a }, *s);
        }
        // Three registers; variable shifts name the amount last, and it is rs.
        (_, [d, s, t]) => {
            named(&flat);
            let variable = flat.ends_with('v');
            assert_eq!(insn.c, destination(*d));
            is(if variable { insn.b } else { insn.a }, *s);
            is(if variable { insn.a } else { insn.b }, *t);
        }
        _ => panic!("{word:08x} {mnemonic} has a form of its own"),
    }
}

#[test]
fn decodes_as_llvm_does() {
    let mut count = 0;
    for line in include_str!("llvm.txt").lines() {
        let (word, text) = line.split_once(' ').expect("word and text");
        let word = u32::from_str_radix(word, 16).expect("a hexadecimal word");
        let (mnemonic, rest) = text.split_once(' ').unwrap_or((text, ""));
        let insn = decode(word);
        println!("{line}: {insn:?}");
        check(word, insn, mnemonic, &operands(rest));
        count += 1;
    }
    assert!(count > 2000, "{count} words");
}

#[test]
fn decoding_never_fails() {
    // All opcodes and functions with all-zero, all-one and mixed fields.
    for high in 0..=0xffffu32 {
        for low in [0, 0xffff, 0x5555, high] {
            let insn = decode(high << 16 | low);
            assert_ne!(insn.op, Op::Undecoded);
        }
    }
}
