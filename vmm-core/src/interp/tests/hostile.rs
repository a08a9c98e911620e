//! Kernels made of chance: whatever they do, a run ends, and counts what it was allowed to.

use super::machine::{MEMORY, Machine, START};
use crate::cpu::CpuModel;
use crate::endian::Endian;
use crate::interp::Exit;

/// A generator for tests (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A word of code: any, or one of the opcodes that change the machine.
    fn word(&mut self) -> u32 {
        let word = self.next() as u32;
        match self.next() % 8 {
            // Moves to CP0, of low registers to any.
            0 => 0x4080_0000 | word & 0x003f_f807,
            1 => 0x40a0_0000 | word & 0x003f_f807,
            // tlbr, tlbwi, tlbwr, tlbp, tlbinv, tlbinvf, eret.
            2 => 0x4200_0000 | [1, 2, 6, 8, 3, 4, 0x18][word as usize % 7],
            // Loads and stores near registers.
            3 => 0x8000_0000 | word & 0x7fff_ffff,
            _ => word,
        }
    }
}

fn machine(seed: u64) -> Machine {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let endian = if seed.is_multiple_of(2) { Endian::Little } else { Endian::Big };
    let model = if seed % 4 < 2 { CpuModel::honeycomb() } else { CpuModel::mips64r2_generic() };
    let mut machine = Machine::new(model, endian, &[]);
    let words: Vec<u32> = (0..1024).map(|_| random.word()).collect();
    for page in 0..MEMORY / 4096 {
        machine.place(0xffff_ffff_8000_0000 + page * 4096, &words);
    }
    for number in 1..32 {
        let value = random.next();
        // Addresses of memory, small numbers, anything.
        machine.cpu.set_gpr(
            number,
            match value % 4 {
                0 => 0xffff_ffff_8000_0000 | value >> 4 & (MEMORY - 1),
                1 => 0x9800_0000_0000_0000 | value >> 4 & (MEMORY - 1),
                2 => value >> 40,
                _ => value,
            },
        );
    }
    machine.cpu.set_pc(START + 4 * (seed % 1024));
    machine
}

#[test]
fn random_kernels_end_at_their_limit() {
    for seed in 0..1000 {
        let mut machine = machine(seed);
        loop {
            let before = machine.cpu.retired();
            let exit = machine.run(997);
            let executed = machine.cpu.retired() - before;
            assert!(executed <= 997, "seed {seed}");
            match exit {
                Exit::Limit => assert_eq!(executed, 997, "seed {seed}"),
                Exit::Device => panic!("no device wants an exit"),
                // The end of it.
                Exit::Wait { .. } | Exit::UnreachableVector(_) => break,
                Exit::Direct => unreachable!("nothing runs directly here"),
            }
            if machine.cpu.retired() > 10_000 {
                break;
            }
        }
        assert_eq!(machine.cpu.gpr(0), 0, "seed {seed}");
    }
}

#[test]
fn random_kernels_run_the_same_however_they_are_cut() {
    for seed in 0..100 {
        let (mut whole, mut cut) = (machine(seed), machine(seed));
        let mut sizes = Random(seed + 1);
        while cut.cpu.retired() < 3000 {
            let left = 3000 - cut.cpu.retired();
            if cut.run(left.min(1 + sizes.next() % 7)) != Exit::Limit {
                break;
            }
        }
        let executed = cut.cpu.retired();
        if executed < 3000 {
            // It waits, or is lost: so must the other, at the same place.
            assert_ne!(whole.run(u64::MAX), Exit::Limit, "seed {seed}");
        } else {
            assert_eq!(whole.run(executed), Exit::Limit, "seed {seed}");
        }
        assert_eq!(whole.cpu.retired(), executed, "seed {seed}");
        assert_eq!(whole.cpu.pc(), cut.cpu.pc(), "seed {seed}");
        for number in 0..32 {
            assert_eq!(
                whole.cpu.gpr(number),
                cut.cpu.gpr(number),
                "seed {seed}, register {number}"
            );
        }
        for gpa in (0..MEMORY).step_by(8) {
            assert_eq!(whole.doubleword(gpa), cut.doubleword(gpa), "seed {seed}, at {gpa:#x}");
        }
    }
}
