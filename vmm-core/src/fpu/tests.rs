//! The functions against the host's own FPU (to nearest), and the cases where MIPS differs.

use super::*;
use core::cmp::Ordering::{self, Equal, Greater, Less};

const D_NAN: u64 = 0x7ff7_ffff_ffff_ffff;
const S_NAN: u64 = 0x7fbf_ffff;

const V: u32 = 0x10 << 12 | 0x10 << 2;
const Z: u32 = 0x08 << 12 | 0x08 << 2;
const O: u32 = 0x04 << 12 | 0x04 << 2;
const U: u32 = 0x02 << 12 | 0x02 << 2;
const I: u32 = 0x01 << 12 | 0x01 << 2;
const FS: u32 = 1 << 24;

/// Numbers of every kind: zeros, denormals, the limits, ordinary ones, infinities, NaNs.
const DOUBLES: [u64; 22] = [
    0,
    1,
    0x000f_ffff_ffff_ffff,
    0x0010_0000_0000_0000,
    0x0010_0000_0000_0001,
    0x0020_0000_0000_0000,
    0x3cb0_0000_0000_0000,
    0x3fe0_0000_0000_0000,
    0x3ff0_0000_0000_0000,
    0x3ff0_0000_0000_0001,
    0x4000_0000_0000_0000,
    0x4008_0000_0000_0000,
    0x41df_ffff_ffc0_0000,
    0x41e0_0000_0000_0000,
    0x43e0_0000_0000_0000,
    0x7fdf_ffff_ffff_ffff,
    0x7fef_ffff_ffff_ffff,
    0x7ff0_0000_0000_0000,
    0x7ff0_0000_0000_0001,
    0x7ff7_ffff_ffff_ffff,
    0x7ff8_0000_0000_0000,
    0x7fff_ffff_ffff_ffff,
];

/// A fixed pseudo-random sequence (Marsaglia's xorshift64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Half of them ordinary numbers near 1, so that operations seldom over- or underflow.
    fn double(&mut self) -> u64 {
        let bits = self.next();
        if bits & 1 == 0 {
            bits
        } else {
            bits & !(0x7ff << 52) | (0x3e0 + (self.next() & 0x3f)) << 52
        }
    }

    fn single(&mut self) -> u64 {
        let bits = self.next() & 0xffff_ffff;
        if bits & 1 == 0 {
            bits
        } else {
            bits & !(0xff << 23) | (0x70 + (self.next() & 0x1f)) << 23
        }
    }
}

fn with_signs(values: &[u64], sign: u64) -> Vec<u64> {
    values.iter().flat_map(|&v| [v, v | sign]).collect()
}

fn is_nan_d(bits: u64) -> bool {
    f64::from_bits(bits).is_nan()
}

#[test]
fn results_to_nearest_are_the_hosts() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..300_000 {
        let (a, b) = (random.double(), random.double());
        let (x, y) = (f64::from_bits(a), f64::from_bits(b));
        for (op, host) in
            [(Binary::Add, x + y), (Binary::Sub, x - y), (Binary::Mul, x * y), (Binary::Div, x / y)]
        {
            let ours = binary(op, Format::D, a, b, &mut Fcsr::default()).unwrap();
            let expected = if host.is_nan() { D_NAN } else { host.to_bits() };
            assert_eq!(ours, expected, "{op:?} {a:#x} {b:#x}");
        }
        let ours = unary(Unary::Sqrt, Format::D, a, &mut Fcsr::default()).unwrap();
        let expected = if x.sqrt().is_nan() { D_NAN } else { x.sqrt().to_bits() };
        assert_eq!(ours, expected, "sqrt {a:#x}");
        let expected = if x.is_nan() { S_NAN } else { u64::from((x as f32).to_bits()) };
        assert_eq!(cvt_s_d(a, &mut Fcsr::default()), Ok(expected), "cvt.s.d {a:#x}");

        let (a, b) = (random.single(), random.single());
        let (x, y) = (f32::from_bits(a as u32), f32::from_bits(b as u32));
        for (op, host) in
            [(Binary::Add, x + y), (Binary::Sub, x - y), (Binary::Mul, x * y), (Binary::Div, x / y)]
        {
            let ours = binary(op, Format::S, a | 7 << 40, b, &mut Fcsr::default()).unwrap();
            let expected = if host.is_nan() { S_NAN } else { u64::from(host.to_bits()) };
            assert_eq!(ours, expected, "{op:?} {a:#x} {b:#x}");
        }
        let ours = unary(Unary::Sqrt, Format::S, a, &mut Fcsr::default()).unwrap();
        let expected = if x.sqrt().is_nan() { S_NAN } else { u64::from(x.sqrt().to_bits()) };
        assert_eq!(ours, expected, "sqrt {a:#x}");
        let expected = if x.is_nan() { D_NAN } else { f64::from(x).to_bits() };
        assert_eq!(cvt_d_s(a, &mut Fcsr::default()), Ok(expected), "cvt.d.s {a:#x}");
    }
}

/// In every mode, by definition: singles computed exactly in doubles, and the result's neighbours.
#[test]
fn directed_rounding_takes_the_right_neighbour() {
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut inexact = 0;
    for _ in 0..100_000 {
        let (a, b) = (random.single(), random.single());
        let (x, y) = (f32::from_bits(a as u32), f32::from_bits(b as u32));
        if !x.is_finite() || !y.is_finite() || y == 0.0 {
            continue;
        }
        let (x, y) = (f64::from(x), f64::from(y));
        for modes in 0..4 {
            // Whether the exact result lies below, at or above `r`. Products of two singles are
            // exact doubles; a sum is if its operands' bits fit into 53.
            let product = |r: f32| (x * y).partial_cmp(&f64::from(r));
            let quotient = |r: f32| (x * y.signum()).partial_cmp(&(f64::from(r) * y.abs()));
            let root = |r: f32| x.partial_cmp(&(f64::from(r) * f64::from(r)));
            let sum = |r: f32| (x + y).partial_cmp(&f64::from(r));
            let mut check =
                |name: &str, exact: &dyn Fn(f32) -> Option<Ordering>, ours: u64, fcsr: Fcsr| {
                    let r = f32::from_bits(ours as u32);
                    // Order of the true result as seen from `r` and from its neighbours.
                    let place = exact(r).unwrap();
                    assert_eq!(
                        place != Equal,
                        fcsr.bits() & I & 0x7c != 0,
                        "{name} {x:e} {y:e} inexact"
                    );
                    let right = match modes {
                        _ if place == Equal => true,
                        0 => return,
                        1 if r.is_sign_negative() => {
                            place == Less && exact(r.next_down()) == Some(Greater)
                        }
                        1 => place == Greater && exact(r.next_up()) == Some(Less),
                        2 => place == Less && exact(r.next_down()) == Some(Greater),
                        _ => place == Greater && exact(r.next_up()) == Some(Less),
                    };
                    inexact += u32::from(place != Equal);
                    assert!(right, "{name} {x:e} {y:e} mode {modes}: {r:e}");
                };
            let run = |op| {
                let mut fcsr = Fcsr::from_bits(modes);
                (binary(op, Format::S, a, b, &mut fcsr).unwrap(), fcsr)
            };
            let finite = |(r, _): (u64, Fcsr)| r & 0x7fff_ffff < 0x7f7f_ffff;
            let (mul, div, add) = (run(Binary::Mul), run(Binary::Div), run(Binary::Add));
            if finite(mul) {
                check("mul", &product, mul.0, mul.1);
            }
            if finite(div) {
                check("div", &quotient, div.0, div.1);
            }
            let apart = (a >> 23 & 0xff).abs_diff(b >> 23 & 0xff);
            if finite(add) && apart < 28 {
                check("add", &sum, add.0, add.1);
            }
            if x > 0.0 {
                let mut fcsr = Fcsr::from_bits(modes);
                let ours = unary(Unary::Sqrt, Format::S, a, &mut fcsr).unwrap();
                check("sqrt", &root, ours, fcsr);
            }
        }
    }
    assert!(inexact > 300_000, "{inexact}");
}

#[test]
fn integers_convert_as_the_hosts() {
    let mut random = Random(77);
    for _ in 0..200_000 {
        let bits = random.next() >> (random.next() & 63);
        let signed = if random.next() & 1 == 0 { bits } else { bits.wrapping_neg() };
        let long = signed as i64;
        let fcsr = &mut Fcsr::default();
        assert_eq!(from_integer(Integer::L, Scalar::D, signed, fcsr), Ok((long as f64).to_bits()));
        let single = u64::from((long as f32).to_bits());
        assert_eq!(from_integer(Integer::L, Scalar::S, signed, fcsr), Ok(single));
        let word = u64::from((long as i32 as f32).to_bits());
        assert_eq!(from_integer(Integer::W, Scalar::S, signed, fcsr), Ok(word));

        // Numbers from 2^-16 to 2^80, both sides of every limit.
        let number = random.next() & !(0x7ff << 52) | (0x3ef + random.next() % 96) << 52;
        let host = f64::from_bits(number);
        for (rounding, rounded) in [
            (Rounding::Nearest, host.round_ties_even()),
            (Rounding::Zero, host.trunc()),
            (Rounding::Up, host.ceil()),
            (Rounding::Down, host.floor()),
        ] {
            let mut fcsr = Fcsr::default();
            let ours = to_integer(Scalar::D, Integer::L, Some(rounding), number, &mut fcsr);
            let (expected, raised) = if rounded >= -(2f64.powi(63)) && rounded < 2f64.powi(63) {
                (rounded as i64 as u64, if rounded == host { 0 } else { I })
            } else {
                (i64::MAX as u64, V)
            };
            assert_eq!((ours, fcsr.bits()), (Ok(expected), raised), "{rounding:?} {number:#x}");
            let mut fcsr = Fcsr::from_bits(rounding as u32);
            let ours = to_integer(Scalar::D, Integer::W, None, number, &mut fcsr);
            let (expected, raised) = if rounded >= -(2f64.powi(31)) && rounded < 2f64.powi(31) {
                (u64::from(rounded as i32 as u32), if rounded == host { 0 } else { I })
            } else {
                (i32::MAX as u64, V)
            };
            assert_eq!(ours, Ok(expected), "{rounding:?} {number:#x}");
            assert_eq!(fcsr.bits(), raised | rounding as u32, "{rounding:?} {number:#x}");
        }
    }
}

#[test]
fn legacy_nans_become_the_default_nan_and_signal_by_a_set_bit() {
    let values = with_signs(&DOUBLES, 1 << 63);
    for &a in &values {
        for &b in &values {
            if !is_nan_d(a) && !is_nan_d(b) {
                continue;
            }
            let signalling = |v: u64| is_nan_d(v) && v & 1 << 51 != 0;
            let raised = if signalling(a) || signalling(b) { V } else { 0 };
            for op in [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div] {
                let mut fcsr = Fcsr::default();
                assert_eq!(binary(op, Format::D, a, b, &mut fcsr), Ok(D_NAN));
                assert_eq!(fcsr.bits(), raised, "{op:?} {a:#x} {b:#x}");
            }
            // The negated forms invert the sign of a NaN as of anything else.
            let result = mul_add(MulAdd::Nmadd, Format::D, a, b, b, &mut Fcsr::default());
            assert_eq!(result, Ok(D_NAN | 1 << 63));
        }
    }
    assert_eq!(neg(Format::D, D_NAN), D_NAN | 1 << 63);
    assert_eq!(abs(Format::Ps, u64::MAX), 0x7fff_ffff_7fff_ffff);
    let mut fcsr = Fcsr::default();
    assert_eq!(cvt_s_d(0x7ff8_0000_0000_0000, &mut fcsr), Ok(S_NAN));
    assert_eq!(fcsr.bits(), V);
    let mut fcsr = Fcsr::default();
    assert_eq!(cvt_d_s(0x7f80_0001, &mut fcsr), Ok(D_NAN));
    assert_eq!(fcsr.bits(), 0);
}

#[test]
fn exceptions_of_single_operations() {
    let max = 0x7fef_ffff_ffff_ffff;
    let tiny = 0x0010_0000_0000_0000;
    let one = 0x3ff0_0000_0000_0000;
    let minus = 1 << 63;
    let infinity = 0x7ff0_0000_0000_0000;
    for (op, a, b, modes, result, raised) in [
        (Binary::Div, one, 0, 0, infinity, Z),
        (Binary::Div, one | minus, 0, 0, infinity | minus, Z),
        (Binary::Div, 0, 0, 0, D_NAN, V),
        (Binary::Div, infinity, 0, 0, infinity, 0),
        (Binary::Mul, infinity, 0, 0, D_NAN, V),
        (Binary::Sub, infinity, infinity, 0, D_NAN, V),
        // Overflow, by rounding mode.
        (Binary::Add, max, max, 0, infinity, O | I),
        (Binary::Add, max, max, 1, max, O | I),
        (Binary::Add, max, max, 2, infinity, O | I),
        (Binary::Add, max, max, 3, max, O | I),
        (Binary::Mul, max | minus, max, 2, max | minus, O | I),
        (Binary::Mul, max | minus, max, 3, infinity | minus, O | I),
        // x − x is −0 only when rounding down.
        (Binary::Sub, one, one, 0, 0, 0),
        (Binary::Sub, one, one, 3, minus, 0),
        // An exact denormal is no underflow; FS flushes it without a word.
        (Binary::Div, tiny, 0x4000_0000_0000_0000, 0, 0x0008_0000_0000_0000, 0),
        (Binary::Div, tiny, 0x4000_0000_0000_0000, FS, 0, 0),
        (Binary::Div, tiny | minus, 0x4000_0000_0000_0000, FS | 3, minus, 0),
        (Binary::Mul, tiny, tiny, 0, 0, U | I),
        (Binary::Mul, tiny, tiny, 2, 1, U | I),
        (Binary::Mul, tiny, tiny, FS | 2, 0, 0),
        // FS leaves denormal operands alone.
        (Binary::Mul, 0x000f_ffff_ffff_ffff, 0x4000_0000_0000_0000, FS, 0x001f_ffff_ffff_fffe, 0),
        // Just below the smallest normal number, by 2^-53 of it: to full precision still below,
        // hence tiny, though the format's spacing there rounds it up.
        (Binary::Mul, tiny, 0x3fef_ffff_ffff_ffff, 0, tiny, U | I),
        // By 2^-104 of it: rounded to full precision it is normal. Flushing looks before that.
        (Binary::Mul, tiny + 1, 0x3fef_ffff_ffff_fffe, 0, tiny, I),
        (Binary::Mul, tiny + 1, 0x3fef_ffff_ffff_fffe, FS, 0, 0),
        // Just above it.
        (Binary::Mul, tiny + 1, 0x3fef_ffff_ffff_ffff, FS, tiny, I),
    ] {
        let mut fcsr = Fcsr::from_bits(modes);
        let ours = binary(op, Format::D, a, b, &mut fcsr);
        assert_eq!(
            (ours, fcsr.bits()),
            (Ok(result), raised | modes),
            "{op:?} {a:#x} {b:#x} {modes:#x}"
        );
    }
}

#[test]
fn a_trap_keeps_flags_and_condition_codes() {
    let mut fcsr = Fcsr::from_bits(0x10 << 7);
    let quiet = 0x7ff0_0000_0000_0001;
    assert_eq!(compare(Condition::from_bits(1), false, Format::D, quiet, 0, 3, &mut fcsr), Ok(()));
    assert!(fcsr.condition(3));
    let before = fcsr.bits();
    let ngle = Condition::from_bits(9);
    assert_eq!(compare(ngle, false, Format::D, 0, quiet, 3, &mut fcsr), Err(FpTrap));
    assert_eq!(fcsr.bits(), before | 0x10 << 12);
    assert_eq!(binary(Binary::Div, Format::D, 0, 0, &mut fcsr), Err(FpTrap));
    assert_eq!(fcsr.bits() & 0x7c, 0);
}

#[test]
fn all_sixteen_conditions() {
    let values = with_signs(&DOUBLES, 1 << 63);
    for bits in 0..16 {
        for &a in &values {
            for &b in &values {
                let (x, y) = (f64::from_bits(a), f64::from_bits(b));
                let unordered = x.is_nan() || y.is_nan();
                let holds =
                    unordered && bits & 1 != 0 || x == y && bits & 2 != 0 || x < y && bits & 4 != 0;
                let signalling = |v: u64| is_nan_d(v) && (v & 1 << 51 != 0 || bits & 8 != 0);
                let mut fcsr = Fcsr::from_bits(0);
                let condition = Condition::from_bits(bits);
                compare(condition, false, Format::D, a, b, 7, &mut fcsr).unwrap();
                assert_eq!(fcsr.condition(7), holds, "c.{bits} {x} {y}");
                let invalid = signalling(a) || signalling(b);
                assert_eq!(fcsr.bits() & !(1 << 31), if invalid { V } else { 0 });
                let mut absolute = Fcsr::default();
                compare(condition, true, Format::D, a, b, 7, &mut absolute).unwrap();
                let mut plain = Fcsr::default();
                let magnitude = |v| abs(Format::D, v);
                compare(condition, false, Format::D, magnitude(a), magnitude(b), 7, &mut plain)
                    .unwrap();
                assert_eq!(absolute, plain);
            }
        }
    }
}

#[test]
fn paired_singles_are_two_singles() {
    let mut random = Random(3);
    for _ in 0..20_000 {
        let (a, b, c) = (random.next(), random.next(), random.next());
        let modes = Fcsr::from_bits((random.next() & 3) as u32 | (random.next() & 1 << 24) as u32);
        let (mut upper, mut lower, mut both) = (modes, modes, modes);
        let op = MulAdd::Nmsub;
        let expected = pair(
            mul_add(op, Format::S, high(a), high(b), high(c), &mut upper).unwrap(),
            mul_add(op, Format::S, a, b, c, &mut lower).unwrap(),
        );
        assert_eq!(mul_add(op, Format::Ps, a, b, c, &mut both), Ok(expected));
        assert_eq!(both.bits(), upper.bits() | lower.bits());

        let (mut upper, mut lower, mut both) = (modes, modes, modes);
        let expected = pair(
            binary(Binary::Add, Format::S, high(a), low(a), &mut upper).unwrap(),
            binary(Binary::Add, Format::S, high(b), low(b), &mut lower).unwrap(),
        );
        assert_eq!(reduce(Reduce::Add, a, b, &mut both), Ok(expected));
        assert_eq!(both.bits(), upper.bits() | lower.bits());
    }
    let mut fcsr = Fcsr::default();
    let (one, minus_two) = (0x3f80_0000, 0xc000_0000);
    assert_eq!(cvt_ps_pw(pair(1, 0xffff_fffe), &mut fcsr), Ok(pair(one, minus_two)));
    assert_eq!(cvt_pw_ps(pair(one, minus_two), &mut fcsr), Ok(pair(1, 0xffff_fffe)));
    let less = Condition::from_bits(4);
    compare(less, false, Format::Ps, pair(minus_two, one), pair(one, minus_two), 2, &mut fcsr)
        .unwrap();
    assert_eq!((fcsr.condition(2), fcsr.condition(3)), (false, true));
    assert_eq!(fcsr.bits() & 0x7f, 0);
}

/// Runs `fast` and `exact` under the same modes; when the first has a result, both must be equal.
fn agree(
    modes: u32,
    fast: impl FnOnce(&mut Env) -> Option<u64>,
    exact: impl FnOnce(&mut Env) -> u64,
) -> bool {
    let mut env = Env::new(Fcsr::from_bits(modes));
    let Some(result) = fast(&mut env) else {
        assert_eq!(env.raised, Exceptions::NONE, "an undecided case leaves no trace");
        return false;
    };
    let mut reference = Env::new(Fcsr::from_bits(modes));
    assert_eq!(result, exact(&mut reference), "modes {modes:#x}");
    assert_eq!(env.raised, reference.raised, "modes {modes:#x}");
    true
}

#[test]
fn the_fast_path_computes_what_the_library_does() {
    let mut random = Random(0xdead_beef_0bad_cafe);
    let mut decided = 0;
    for _ in 0..60_000 {
        let modes = (random.next() & 3) as u32 | (random.next() & 1 << 24) as u32;
        let (mut a, mut b) = (random.double(), random.double());
        // Runs of equal bits make ties and carries; near numbers cancel.
        match random.next() & 7 {
            0 => b = a ^ random.next() & (1 << 63 | 7),
            1 => a &= u64::MAX << (random.next() % 53),
            2 => a |= (1 << (random.next() % 53)) - 1,
            3 => b |= (1 << (random.next() % 53)) - 1,
            4 => a &= 1 << 63 | 1 << 31,
            5 => b &= 1 << 63 | 1 << 31,
            _ => {}
        }
        for op in [Basic::Add, Basic::Sub, Basic::Mul, Basic::Div] {
            decided += u32::from(agree(
                modes,
                |env| env.basic_fast::<Double>(op, a, b),
                |env| env.basic_exact::<Double>(op, a, b),
            ));
            let (a, b) = (high(a), high(b));
            decided += u32::from(agree(
                modes,
                |env| env.basic_fast::<Single>(op, a, b),
                |env| env.basic_exact::<Single>(op, a, b),
            ));
        }
        agree(
            modes,
            |env| env.convert_fast::<Double, Single>(a),
            |env| env.convert_exact::<Double, Single>(a),
        );
        agree(
            modes,
            |env| env.convert_fast::<Single, Double>(high(a)),
            |env| env.convert_exact::<Single, Double>(high(a)),
        );
        for (rounding, width) in [(Rounding::Nearest, 32), (Rounding::Down, 64)] {
            // 2^-20 to 2^76.
            let exponent = 0x3ff - 20 + random.next() % 96;
            let number = a & !(0x7ff << 52) | exponent << 52;
            agree(
                modes,
                |env| env.integer_of_fast::<Double>(number, width, rounding),
                |env| env.integer_of_exact::<Double>(number, width, rounding),
            );
            let number = high(a) & !(0xff << 23) | (exponent + 0x7f - 0x3ff) << 23;
            agree(
                modes,
                |env| env.integer_of_fast::<Single>(number, width, rounding),
                |env| env.integer_of_exact::<Single>(number, width, rounding),
            );
        }
        let integer = a as i64 >> (b & 63);
        agree(
            modes,
            |env| env.number_of_fast::<Double>(integer),
            |env| env.number_of_exact::<Double>(integer),
        );
        agree(
            modes,
            |env| env.number_of_fast::<Single>(integer),
            |env| env.number_of_exact::<Single>(integer),
        );
    }
    assert!(decided > 200_000, "{decided}");
}
