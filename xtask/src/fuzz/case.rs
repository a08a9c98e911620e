//! A test case: the state to start from and a stream of units, and its bytes in a slot.

use super::{asm::Asm, layout, rng::Rng};
use crate::endian::Endian;

/// How a word of a unit depends on where another unit lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fix {
    /// Not at all.
    None,
    /// A branch to that unit.
    Branch(usize),
    /// A jump to that unit: bits 27..2 of its address.
    Jump(usize),
    /// That unit's offset from the code's start, in the immediate field.
    Offset(usize),
}

/// Instructions that belong together: a branch with its delay slot, a computation with what makes
/// its operands defined. Branches lead to the start of units only.
#[derive(Clone, Debug, Default)]
pub struct Unit {
    /// The words.
    pub words: Vec<(u32, Fix)>,
}

impl Unit {
    /// A unit of plain words.
    pub fn plain(words: impl IntoIterator<Item = u32>) -> Self {
        Self { words: words.into_iter().map(|w| (w, Fix::None)).collect() }
    }

    /// A unit that `build` assembles.
    pub fn assemble(build: impl FnOnce(&mut Asm)) -> Self {
        let mut a = Asm::new();
        build(&mut a);
        Self::plain(a.finish())
    }

    /// Adds another unit's words.
    pub fn append(&mut self, other: Self) {
        self.words.extend(other.words);
    }

    /// Makes the unit do nothing, at the same length.
    pub fn clear(&mut self) {
        self.words.fill((0, Fix::None));
    }
}

/// A case, independent of the byte order of the machine.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its number under its seed.
    pub number: u64,
    /// The slot it lies in: physical addresses depend on it.
    pub slot: usize,
    /// What it is about, for reports.
    pub kind: String,
    /// Initial GPRs; `gpr[0]` is not used.
    pub gpr: [u64; 32],
    /// Initial FPRs.
    pub fpr: [u64; 32],
    /// Initial HI.
    pub hi: u64,
    /// Initial LO.
    pub lo: u64,
    /// Initial FCSR.
    pub fcsr: u32,
    /// Initial Status, without EXL and ERL.
    pub status: u32,
    /// Initial CP0 registers, as [`layout::CP0_INPUT`].
    pub cp0: [u64; layout::CP0_INPUT.len()],
    /// TLB entries from index 0.
    pub tlb: Vec<[u64; 4]>,
    /// Where the stream's first instruction is seen.
    pub code: u64,
    /// This many exceptions end the case, or a round of it.
    pub max_traps: u64,
    /// How often the stream is run.
    pub rounds: u64,
    /// The stream.
    pub units: Vec<Unit>,
    /// Seed of the scratch memory.
    pub scratch: u64,
}

/// `break`: the end of every stream, and what follows it up to the page's end.
pub const BREAK: u32 = 0x0d;

impl Case {
    /// The stream's words.
    pub fn words(&self) -> Vec<u32> {
        let starts: Vec<usize> = self
            .units
            .iter()
            .scan(0, |at, unit| {
                let start = *at;
                *at += unit.words.len();
                Some(start)
            })
            .collect();
        let end = self.units.iter().map(|u| u.words.len()).sum();
        let start = |unit: usize| starts.get(unit).copied().unwrap_or(end);
        let mut words: Vec<u32> = Vec::with_capacity(end + 1);
        for &(word, fix) in self.units.iter().flat_map(|unit| &unit.words) {
            let at = words.len();
            words.push(match fix {
                Fix::None => word,
                Fix::Branch(to) => word | ((start(to) as i64 - at as i64 - 1) as u32 & 0xffff),
                Fix::Jump(to) => {
                    word | (((self.code + 4 * start(to) as u64) >> 2) as u32 & 0x03ff_ffff)
                }
                Fix::Offset(to) => word | (4 * start(to) as u32),
            });
        }
        words.push(BREAK);
        words
    }

    /// The slot's bytes.
    pub fn bytes(&self, endian: Endian) -> Vec<u8> {
        let mut slot = vec![0; layout::SLOT_SIZE];
        let mut put = |offset: i32, value: u64| {
            let at = offset as usize;
            slot[at..at + 8].copy_from_slice(&bytes64(endian, value));
        };
        let code_page = self.code & !(layout::PAGE as u64 - 1);
        for (i, value) in [self.code].into_iter().chain(self.gpr[1..].iter().copied()).enumerate() {
            put(layout::input::GPR + 8 * i as i32, value);
        }
        for (i, &value) in self.fpr.iter().enumerate() {
            put(layout::input::FPR + 8 * i as i32, value);
        }
        put(layout::input::HI, self.hi);
        put(layout::input::LO, self.lo);
        put(layout::input::FCSR, self.fcsr.into());
        put(layout::input::STATUS, u64::from(self.status));
        put(layout::input::CODE_START, code_page);
        put(layout::input::CODE_END, code_page + layout::PAGE as u64);
        put(layout::input::MAX_TRAPS, self.max_traps);
        put(layout::input::ROUNDS, self.rounds);
        put(layout::input::TLB_COUNT, self.tlb.len() as u64);
        for (i, &value) in self.cp0.iter().enumerate() {
            put(layout::input::CP0 + 8 * i as i32, value);
        }
        for (i, &value) in self.tlb.as_flattened().iter().enumerate() {
            put(layout::input::TLB + 8 * i as i32, value);
        }
        let mut rng = Rng::new(self.scratch, 0);
        for i in (0..layout::PAGE).step_by(8) {
            let value = if rng.chance(50) { rng.bits() } else { super::values::gpr(&mut rng) };
            put((layout::SCRATCH + i) as i32, value);
        }
        let words = self.words();
        for i in 0..layout::PAGE / 4 {
            let word = words.get(i).copied().unwrap_or(BREAK);
            let at = layout::CODE + 4 * i;
            slot[at..at + 4].copy_from_slice(&bytes32(endian, word));
        }
        slot
    }

    /// The bytes of a slot that holds no case.
    pub fn empty(endian: Endian) -> Vec<u8> {
        let mut slot = vec![0; layout::SLOT_SIZE];
        let at = layout::input::SKIP as usize;
        slot[at..at + 8].copy_from_slice(&bytes64(endian, 1));
        slot
    }
}

/// A word as the machine's memory has it.
pub fn bytes32(endian: Endian, value: u32) -> [u8; 4] {
    match endian {
        Endian::Little => value.to_le_bytes(),
        Endian::Big => value.to_be_bytes(),
    }
}

/// A doubleword as the machine's memory has it.
pub fn bytes64(endian: Endian, value: u64) -> [u8; 8] {
    match endian {
        Endian::Little => value.to_le_bytes(),
        Endian::Big => value.to_be_bytes(),
    }
}

/// A word from the machine's memory.
///
/// # Panics
/// When fewer than 4 bytes follow `at`.
pub fn read32(endian: Endian, bytes: &[u8], at: usize) -> u32 {
    let b = bytes[at..at + 4].try_into().expect("four bytes");
    match endian {
        Endian::Little => u32::from_le_bytes(b),
        Endian::Big => u32::from_be_bytes(b),
    }
}

/// A doubleword from the machine's memory.
///
/// # Panics
/// When fewer than 8 bytes follow `at`.
pub fn read64(endian: Endian, bytes: &[u8], at: usize) -> u64 {
    let b = bytes[at..at + 8].try_into().expect("eight bytes");
    match endian {
        Endian::Little => u64::from_le_bytes(b),
        Endian::Big => u64::from_be_bytes(b),
    }
}
