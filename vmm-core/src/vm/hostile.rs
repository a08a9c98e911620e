//! Kernels that do what no kernel should: the VM ends or spins, and nothing else happens.

use super::tests::{TestClock, params, vm_with};
use super::*;
use crate::mem::{Access, Page};
use abi::Gpa;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Instructions a hostile kernel gets.
const BUDGET: u64 = 20_000;
/// Words of its code.
const WORDS: usize = 400;

/// A generator of numbers: SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Where hostile pointers point: devices, the edges of memory, holes, every segment.
const PLACES: [u64; 16] = [
    0x9000_0000_1800_0000,
    0x9000_0000_1800_03f8,
    0x9000_0000_1800_0070,
    0x9000_0000_1800_0020,
    0x9000_0000_1be0_0c00,
    0xffff_ffff_bbe0_0000,
    0xffff_ffff_bf00_0500,
    0xffff_ffff_bfc0_0000,
    0xffff_ffff_8000_0000,
    0xffff_ffff_803f_ff00,
    0x9800_0000_803f_fff0,
    0xffff_ffff_c000_0000,
    0xc000_0000_0000_0000,
    0x4000_0000_0000_1000,
    0,
    0x9800_000f_ffff_fff0,
];

/// One instruction: privileged, a memory access, a jump, or anything.
fn hostile_word(r: &mut Random) -> u32 {
    let (rs, rt) = (r.below(32) as u32, r.below(32) as u32);
    let low = r.next() as u16;
    match r.below(10) {
        // mtc0, dmtc0, mfc0, dmfc0 of any register and select.
        0 | 1 => {
            let op = r.pick(&[0x4080_0000, 0x40a0_0000, 0x4000_0000, 0x4020_0000]);
            op | rt << 16 | u32::from(low & 0xf807)
        }
        // tlbr, tlbwi, tlbinv, tlbinvf, tlbwr, tlbp, eret, wait, deret, di, ei.
        2 => r.pick(&[
            0x4200_0001,
            0x4200_0002,
            0x4200_0003,
            0x4200_0004,
            0x4200_0006,
            0x4200_0008,
            0x4200_0018,
            0x4200_0020,
            0x4200_001f,
            0x4160_6000,
            0x4160_6020,
        ]),
        // Loads and stores of every size, linked and unaligned ones too.
        3..=5 => {
            let op = r.pick(&[
                0x20u32, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x2b, 0x2c,
                0x2d, 0x2e, 0x2f, 0x30, 0x34, 0x37, 0x38, 0x3c, 0x3f, 0x1a, 0x1b, 0x31, 0x35, 0x39,
                0x3d,
            ]);
            op << 26 | rs << 21 | rt << 16 | u32::from(low & 0x7ff)
        }
        // Branches, jumps through registers, synci, cache.
        6 => {
            r.pick(&[0x1000_0000, 0x1400_0000, 0x0411_0000, 0x041f_0000, 0xbc00_0000])
                | rs << 21
                | rt << 16
                | u32::from(low & 0x3f)
        }
        7 => rs << 21 | r.pick(&[0x08, 0x0000_f809, 0x0c, 0x0d, 0x0f]),
        // Small constants and sums, so that the rest has something to work with.
        8 => 0x6400_0000 | rs << 21 | rt << 16 | u32::from(low),
        _ => r.next() as u32,
    }
}

/// Registers full of hostile pointers, then code; or plain noise.
pub(super) fn kernel(seed: u64) -> Vec<u32> {
    let mut r = Random(seed);
    if seed.is_multiple_of(4) {
        return (0..WORDS).map(|_| r.next() as u32).collect();
    }
    let mut code = Vec::new();
    for register in 1..32u32 {
        let place = r.pick(&PLACES).wrapping_add(r.below(64));
        // lui, ori, dsll 16, ori, dsll 16, ori
        code.push(0x3c00_0000 | register << 16 | (place >> 48) as u32);
        for shift in [32, 16, 0] {
            let part = (place >> shift) as u32 & 0xffff;
            code.push(0x3400_0000 | register << 21 | register << 16 | part);
            if shift > 0 {
                code.push(register << 16 | register << 11 | 16 << 6 | 0x38);
            }
        }
    }
    if seed % 4 != 1 {
        // Exceptions in memory: Status.BEV off, 64-bit segments on; handlers are what is there.
        code.extend([0x3c0c_1000, 0x358c_00e0, 0x408c_6000]);
    }
    code.extend((0..WORDS).map(|_| hostile_word(&mut r)));
    code
}

/// Runs a hostile kernel to its end; what it came to.
fn end_of(seed: u64, endian: Endian) -> (Exit, String) {
    let params = VmParams { budget: BUDGET, ..params(endian) };
    let mut vm = vm_with(params, &kernel(seed));
    // Handlers made of the same stuff, where EBase may point.
    let mut r = Random(!seed);
    if let Some(page) = vm.vm.memory().resolve(Gpa(0), Access::Write) {
        fill(page, &mut r);
    }
    let clock = TestClock::default();
    // What ends neither by itself nor by its budget waits for ever, or too often.
    for _ in 0..2 * BUDGET {
        let exit = vm.run(&clock, 1000);
        vm.vm.take_output(&mut |_| {});
        vm.vm.input(b"\x03");
        match exit {
            Exit::Limit => {}
            Exit::Idle { until: Some(until) } => clock.jump_to(until, vm.retired()),
            Exit::Idle { until: None } => return (exit, vm.report().to_string()),
            end => {
                assert!(vm.retired() <= BUDGET);
                return (end, vm.report().to_string());
            }
        }
    }
    (Exit::Limit, vm.report().to_string())
}

fn fill(page: Page, r: &mut Random) {
    for at in (0..abi::PAGE_SIZE).step_by(4) {
        page.store32(at, hostile_word(r));
    }
}

#[test]
fn a_thousand_hostile_kernels_harm_nobody() {
    let (mut spinning, mut lost) = (0, 0);
    for seed in 0..1000 {
        let endian = if seed % 2 == 0 { Endian::Little } else { Endian::Big };
        let (exit, report) = end_of(seed, endian);
        assert!(report.contains("pc ") && report.contains("instruction"), "{report}");
        match exit {
            Exit::Budget => spinning += 1,
            Exit::UnreachableVector => lost += 1,
            _ => {}
        }
    }
    // They are various enough to spin and to lose their handlers.
    assert!(spinning > 200 && lost > 200, "{spinning} spin, {lost} lost");
}

#[test]
fn hostile_kernels_end_the_same_way_twice() {
    for seed in 5000..5040 {
        assert_eq!(end_of(seed, Endian::Little), end_of(seed, Endian::Little), "seed {seed}");
    }
}
