//! Random code, user's and kernel's, runs to the same state in both ways.

use super::{ALL, CKSSEG, assert_same, lo, machine, map, run};
use crate::cpu::CpuModel;
use crate::direct::Policy;
use crate::endian::Endian;
use crate::interp::tests::machine::Machine;
use crate::interp::tests::machine::asm::*;
use crate::isa::decode;

/// A generator for tests: SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[(self.next() % from.len() as u64) as usize]
    }

    /// A register that is neither an address nor the handler's.
    fn reg(&mut self) -> u32 {
        1 + (self.next() % 15) as u32
    }

    /// An instruction. $16 to $23 hold addresses.
    pub(crate) fn word(&mut self) -> u32 {
        let (a, b, c) = (self.reg(), self.reg(), self.reg());
        let imm = self.next() as i32 & 0x7fff;
        let base = 16 + (self.next() % 8) as u32;
        let offset = (self.next() % 32) as i32 * 8;
        match self.next() % 24 {
            0..=5 => r(self.pick(&[0x2d, 0x2f, 0x24, 0x25, 0x26, 0x2a, 0x2b, 0x14, 0x17]), a, b, c),
            6 => ori(a, b, imm),
            7 => i(0x19, a, b, imm),
            8..=10 => {
                i(self.pick(&[0x37, 0x23, 0x27, 0x20, 0x25, 0x22, 0x26, 0x1a]), a, base, offset)
            }
            11..=13 => i(self.pick(&[0x3f, 0x2b, 0x28, 0x29, 0x2a, 0x2e, 0x2c]), a, base, offset),
            // Not aligned.
            14 => i(self.pick(&[0x37, 0x3f, 0x23, 0x2b]), a, base, offset + 2),
            // Forward branches, likely ones too.
            15 | 16 => i(self.pick(&[4, 5, 6, 7, 0x14, 0x15]), 0, a, 1 + imm % 6),
            17 => i(self.pick(&[0x30, 0x34, 0x38, 0x3c]), a, base, offset),
            // CP0 moves that leave the machine running: Index, EntryLo, Context, BadVAddr, Compare.
            18 => {
                let op = self.pick(&[0x4000_0000u32, 0x4020_0000]);
                op | a << 16 | self.pick(&[0u32, 2, 3, 4, 8, 10, 12, 13, 14, 15, 16, 20]) << 11
            }
            19 => self.pick(&[
                SYSCALL,
                0x0d,
                0x4200_0008,
                0x4200_0001,
                0x7c03_e83b | a << 16,
                0x70,
                0x34,
            ]),
            20 => {
                // Arithmetic, moves and comparisons of the FPU.
                let fmt = self.pick(&[16u32, 17]);
                let op = self.pick(&[0u32, 1, 2, 3, 6, 7, 0x21, 0x24, 0x3c]);
                0x4400_0000 | fmt << 21 | b << 16 | c << 11 | a << 6 | op
            }
            21 => 0x4400_0000 | self.pick(&[0u32, 1, 4, 5]) << 21 | a << 16 | b << 11,
            22 => i(self.pick(&[0x31, 0x35, 0x39, 0x3d]), a, base, offset),
            // ctc1 FCSR: rounding modes, enables.
            _ => 0x44c0_f800 | a << 16,
        }
    }
}

/// Skips what caused an exception, and stays in the page of code, whose address is in $27.
const HANDLER: [u32; 9] = [
    0x4000_0000 | 26 << 16 | 13 << 11, // mfc0 $26, Cause
    0x001a_d742,                       // srl $26, $26, 29
    0x335a_0004,                       // andi $26, $26, 4
    0x4020_0000 | 25 << 16 | 14 << 11, // dmfc0 $25, EPC
    r(0x2d, 26, 26, 25),               // daddu $26, $26, $25
    0x275a_0004 | 0x4000_0000,         // daddiu $26, $26, 4
    0x335a_0ffc,                       // andi $26, $26, 0xffc
    r(0x25, 26, 26, 27),               // or $26, $26, $27
    dmtc0(26, 14, 0),
];

const USER: u64 = 0x1_0000;

fn prepared(seed: u64, kernel: bool) -> Machine {
    let mut random = Random(seed);
    let model = if seed & 1 == 0 { CpuModel::honeycomb() } else { CpuModel::mips64r2_generic() };
    let endian = if seed & 2 == 0 { Endian::Little } else { Endian::Big };
    let mut machine = machine(model, endian);
    let handler: Vec<u32> = HANDLER.into_iter().chain([ERET]).collect();
    for vector in [0x000, 0x080, 0x180] {
        machine.place(0xffff_ffff_8000_0000 + vector, &handler);
    }
    let mut words: Vec<u32> = (0..1024).map(|_| random.word()).collect();
    // A branch in a delay slot is UNPREDICTABLE.
    for at in 1..words.len() {
        if decode(words[at]).op.is_branch() && decode(words[at - 1]).op.is_branch() {
            words[at] = NOP;
        }
    }
    machine.place(0xffff_ffff_8001_0000, &words);
    let cpu = &mut machine.cpu;
    let base = if kernel { CKSSEG } else { 0 };
    let asid = 5;
    // Code, pages for data (dirty, clean, invalid, a device), and the vectors in CKSSEG.
    map(cpu, 7, base + USER, asid, false, [lo(0x1_0000, 2), lo(0x1_0000, 2)]);
    map(cpu, 8, 0x2_0000, asid, false, [lo(0x2_0000, 6), lo(0x2_1000, 2)]);
    map(cpu, 9, 0x2_2000, asid, true, [lo(0x2_2000, 6), 0]);
    map(cpu, 10, 0x2_4000, asid, false, [lo(0x1000_0000, 6), lo(0x2_2000, 6)]);
    map(cpu, 11, CKSSEG, asid, true, [lo(0, 2), lo(0, 2)]);
    map(cpu, 12, CKSSEG + 0x2_0000, asid, true, [lo(0x2_0000, 6), lo(0x2_3000, 6)]);
    map(cpu, 13, 0x4000_0000_0002_0000, asid, false, [lo(0x2_4000, 6), lo(0x2_5000, 6)]);
    for number in 1..16 {
        let value = random.next();
        cpu.set_gpr(number, if value & 1 == 0 { value as i32 as u64 } else { value });
    }
    let places = [
        0x2_0000,
        0x2_1000,
        0x2_2000,
        0x2_4f00,
        CKSSEG + 0x2_0000,
        0x4000_0000_0002_0000,
        0xffff_ffff_8002_0000,
        0xffff_ffff_e000_0000,
        0x9800_0000_0002_2000,
    ];
    for number in 16..24 {
        cpu.set_gpr(number, random.pick(&places));
    }
    cpu.set_gpr(27, base + USER);
    cpu.write_cp0(10, 0, asid.into(), 0);
    if kernel && seed & 4 == 0 {
        // The vectors in CKSSEG, by the write gate.
        cpu.write_cp0(15, 1, CKSSEG | 1 << 11, 0);
    }
    let fpu = if seed & 8 == 0 { 1 << 29 } else { 0 };
    let fr = if seed & 16 == 0 { 1 << 26 } else { 0 };
    let segments = [0xe0u64, 0xa0, 0x80 | 1 << 23, 0x80][(seed >> 5) as usize & 3];
    let ksu = if kernel { 0 } else { 2 << 3 };
    cpu.write_cp0(12, 0, fpu | fr | segments | ksu, 0);
    cpu.set_pc(base + USER + 4 * (random.next() % 1000));
    machine
}

fn compare(kernel: bool, policy: Policy) {
    const SEEDS: u64 = 400;
    const INSTRUCTIONS: u64 = 700;
    let (mut completed, mut entries) = (0, 0);
    for seed in 0..SEEDS {
        let mut one = prepared(seed, kernel);
        let mut other = prepared(seed, kernel);
        let ran = run(&mut other, policy, INSTRUCTIONS);
        one.step(ran.all);
        completed += ran.completed;
        entries += ran.counters.entries;
        assert_same(&mut one, &mut other, &format!("seed {seed}"));
    }
    // A good part of it has really run so.
    assert!(completed > SEEDS * INSTRUCTIONS / 12 && entries > SEEDS, "{completed} in {entries}");
}

#[test]
fn user_code_runs_as_interpreted() {
    compare(false, ALL);
}

#[test]
fn kernel_code_runs_as_interpreted() {
    compare(true, ALL);
}

#[test]
fn kernel_code_with_interpreted_handlers_runs_as_interpreted() {
    compare(true, Policy { exceptions: false, ..ALL });
}
