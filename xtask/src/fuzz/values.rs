//! Random values that are worth computing with.

use super::rng::Rng;

/// A GPR value: often a boundary of some width, often a sign-extended word.
pub fn gpr(rng: &mut Rng) -> u64 {
    match rng.below(8) {
        0 => rng.below(64),
        1 => word(rng.bits() as u32),
        2 => rng.bits(),
        3 => {
            let edge = rng.pick(&[
                0,
                u64::MAX,
                0x7fff_ffff,
                0xffff_ffff_8000_0000,
                0x8000_0000,
                0xffff_ffff,
                0x7fff_ffff_ffff_ffff,
                0x8000_0000_0000_0000,
                0x7fff,
                0xffff_ffff_ffff_8000,
                0xff,
                0x80,
            ]);
            edge.wrapping_add(rng.below(5)).wrapping_sub(2)
        }
        4 => 1 << rng.below(64),
        5 => (1_u64 << rng.below(64)).wrapping_sub(1),
        6 => word((1_u32 << rng.below(32)).wrapping_sub(rng.below32(2))),
        _ => word(rng.below32(0x1_0000)),
    }
}

/// A sign-extended word.
pub const fn word(value: u32) -> u64 {
    value as i32 as u64
}

/// The bits of a single: often special, often near another's magnitude so that sums cancel.
pub fn single(rng: &mut Rng) -> u32 {
    let sign = (rng.bits() as u32) << 31;
    sign | match rng.below(12) {
        0 => 0,
        1 => 0x7f80_0000,
        // NaNs: in MIPS' legacy encoding the top mantissa bit marks a signalling one.
        2 => 0x7f80_0000 | (1 + rng.below32(0x3f_ffff)),
        3 => 0x7fc0_0000 | rng.below32(0x40_0000),
        4 => 1 + rng.below32(0x7f_ffff),
        5 => 0x0080_0000 | rng.below32(4),
        6 => 0x7f7f_ffff - rng.below32(4),
        7 => (rng.below32(200) as f32).to_bits(),
        8 => (rng.bits() as i32 as f32).to_bits() & 0x7fff_ffff,
        9 => 0x3f80_0000 + rng.below32(0x400_0000),
        10 => (f32::to_bits(1.0) + (rng.below32(9) << 20)).wrapping_sub(rng.below32(3)),
        _ => rng.bits() as u32 & 0x7fff_ffff,
    }
}

/// The bits of a double, likewise.
pub fn double(rng: &mut Rng) -> u64 {
    let sign = rng.bits() << 63;
    sign | match rng.below(14) {
        0 => 0,
        1 => 0x7ff0_0000_0000_0000,
        2 => 0x7ff0_0000_0000_0000 | (1 + rng.below(0x0007_ffff_ffff_ffff)),
        3 => 0x7ff8_0000_0000_0000 | rng.below(1 << 51),
        4 => 1 + rng.below((1 << 52) - 1),
        5 => 0x0010_0000_0000_0000 | rng.below(4),
        6 => 0x7fef_ffff_ffff_ffff - rng.below(4),
        7 => f64::from(rng.below32(200)).to_bits(),
        8 => f64::from(rng.bits() as i32).to_bits() & (u64::MAX >> 1),
        9 => 0x3ff0_0000_0000_0000 + rng.below(1 << 55),
        // Around the limits of words, doublewords and singles.
        10 => {
            let exponent = 1023 + rng.pick(&[31, 32, 52, 53, 62, 63, 64, 127, 128]);
            (exponent << 52) + rng.below(16) - 8
        }
        11 => {
            let exponent = 1023 - rng.pick(&[1, 126, 127, 148, 149, 150, 151]);
            (exponent << 52) + (rng.below(8) << 29)
        }
        12 => f64::from(f32::from_bits(rng.bits() as u32 & 0x7f7f_ffff)).to_bits(),
        _ => rng.bits() & (u64::MAX >> 1),
    }
}

/// An FPR: a double, a single or a pair of them, an integer.
pub fn fpr(rng: &mut Rng) -> u64 {
    match rng.below(8) {
        0..3 => double(rng),
        3..7 => u64::from(single(rng)) << 32 | u64::from(single(rng)),
        _ => gpr(rng),
    }
}

/// FCSR without pending causes: any rounding mode, flags, condition codes, FS; few enables.
pub fn fcsr(rng: &mut Rng) -> u32 {
    let mut value = rng.bits() as u32 & 0xff80_007f;
    if rng.chance(75) {
        value &= !(1 << 24);
    }
    if rng.chance(25) {
        value |= (rng.bits() as u32 & 0x1f) << 7;
    }
    value
}
