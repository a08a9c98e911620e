//! What no kernel should do, for tests of what comes of it. Nothing here returns.

use crate::machine;
use core::ptr::{read_volatile, write_volatile};

/// Where made-up code is written: free memory, in KSEG0.
pub const CODE: u64 = 0xffff_ffff_8040_0000;
/// Words of it.
const WORDS: usize = 4096;
/// The exception vectors, with Status.BEV = 0 and the usual EBase.
pub const VECTORS: u64 = 0xffff_ffff_8000_0000;

/// Where hostile pointers point: devices, the edges of memory, holes, every segment.
pub const PLACES: [u64; 16] = [
    0x9000_0000_1800_0000,
    0x9000_0000_1800_03f8,
    0x9000_0000_1800_0070,
    0x9000_0000_1800_0020,
    0x9000_0000_1be0_0c00,
    0xffff_ffff_bbe0_0000,
    0xffff_ffff_bf00_0500,
    0xffff_ffff_bfc0_0000,
    0xffff_ffff_8000_0000,
    0xffff_ffff_807f_ff00,
    0x9800_0000_007f_fff0,
    0xffff_ffff_c000_0000,
    0xc000_0000_0000_0000,
    0x4000_0000_0000_1000,
    0,
    0x9800_000f_ffff_fff0,
];

/// A generator of numbers: SplitMix64 (Steele, Lea, Flood 2014).
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[(self.next() % from.len() as u64) as usize]
    }

    /// One instruction: a CP0 or TLB operation, a load or store, a jump, or anything.
    pub fn instruction(&mut self) -> u32 {
        let registers = self.next() as u32 & 0x03ff_0000;
        let low = self.next() as u32 & 0xffff;
        match self.next() % 8 {
            // mtc0, dmtc0, mfc0, dmfc0 of any register and select.
            0 | 1 => {
                let operation = self.pick(&[0x4080_0000, 0x40a0_0000, 0x4000_0000, 0x4020_0000]);
                operation | registers & 0x001f_0000 | low & 0xf807
            }
            // tlbr, tlbwi, tlbinv, tlbinvf, tlbwr, tlbp, eret, wait, di, ei.
            2 => self.pick(&[
                0x4200_0001,
                0x4200_0002,
                0x4200_0003,
                0x4200_0004,
                0x4200_0006,
                0x4200_0008,
                0x4200_0018,
                0x4200_0020,
                0x4160_6000,
                0x4160_6020,
            ]),
            // Opcodes 0x20 to 0x3f: loads and stores of every kind, and what is reserved there.
            3..6 => 0x8000_0000 | (self.next() as u32 & 0x7c00_0000) | registers | low & 0x7ff,
            // beq, bne, bal, jr, jalr, syscall.
            6 => {
                let jump = self.pick(&[0x1000_0000, 0x1400_0000, 0x0411_0000, 8, 0xf809, 0xc]);
                jump | registers & 0x03e0_0000 | if jump > 0xffff { low & 0x3f } else { 0 }
            }
            _ => self.next() as u32,
        }
    }
}

/// Writes code at `at`.
pub fn write(at: u64, code: impl Iterator<Item = u32>) {
    for (i, word) in code.enumerate() {
        // SAFETY: free memory or the vectors: all that is lost is this guest itself.
        unsafe { write_volatile((at as *mut u32).add(i), word) };
    }
}

/// Runs made-up code, with made-up exception handlers: plain noise when `seed` is a multiple of four,
/// else instructions that reach for everything, with registers that point everywhere.
pub fn run(seed: u64) -> ! {
    let mut random = Random(seed);
    if seed.is_multiple_of(4) {
        write(VECTORS, (0..0x100).map(|_| random.next() as u32));
        write(CODE, (0..WORDS).map(|_| random.next() as u32));
    } else {
        write(VECTORS, (0..0x100).map(|_| random.instruction()));
        let mut at = CODE;
        for register in 1..32u32 {
            let place = random.pick(&PLACES).wrapping_add(random.next() % 64);
            let part = |shift: u32| (place >> shift) as u32 & 0xffff;
            let (r, same) = (register << 16, register << 21 | register << 16);
            let shift = register << 16 | register << 11 | 16 << 6 | 0x38;
            // lui, ori, dsll, ori, dsll, ori
            let load = [
                0x3c00_0000 | r | part(48),
                0x3400_0000 | same | part(32),
                shift,
                0x3400_0000 | same | part(16),
                shift,
                0x3400_0000 | same | part(0),
            ];
            write(at, load.into_iter());
            at += 4 * load.len() as u64;
        }
        write(at, (0..WORDS).map(|_| random.instruction()));
    }
    machine::jump(CODE)
}

/// Takes exceptions for ever: every vector holds `syscall`.
pub fn storm() -> ! {
    write(VECTORS, (0..0x100).map(|_| 0x0000_000c));
    machine::jump(VECTORS + 0x180)
}

/// Reads and writes device registers at random for ever.
pub fn hammer(seed: u64) -> ! {
    let mut random = Random(seed);
    loop {
        // ISA ports, the bridge's registers, the board's own; not SOFTRES, which would be the end.
        let (base, size) = random.pick(&[
            (0xffff_ffff_b800_0000_u64, 0x500_u64),
            (0xffff_ffff_bbe0_0000, 0x1000),
            (0xffff_ffff_bf00_0400, 0x100),
            (0xffff_ffff_bf00_0600, 0x400),
        ]);
        let (at, value) = (base + random.next() % size, random.next());
        // SAFETY: devices, which may do whatever they like to this guest.
        unsafe {
            match random.next() % 6 {
                0 => write_volatile(at as *mut u8, value as u8),
                1 => write_volatile((at & !1) as *mut u16, value as u16),
                2 => write_volatile((at & !3) as *mut u32, value as u32),
                3 => drop(read_volatile(at as *const u8)),
                4 => drop(read_volatile((at & !1) as *const u16)),
                _ => drop(read_volatile((at & !3) as *const u32)),
            }
        }
    }
}
