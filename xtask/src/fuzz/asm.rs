//! An assembler for the few instructions that the harness and the streams' fixed parts need: no
//! cross-assembler is wanted on the host, and one source serves both byte orders.

/// Register numbers by their usual names.
#[allow(missing_docs)]
pub mod reg {
    pub const ZERO: u32 = 0;
    pub const AT: u32 = 1;
    pub const V0: u32 = 2;
    pub const V1: u32 = 3;
    pub const A0: u32 = 4;
    pub const A1: u32 = 5;
    pub const K0: u32 = 26;
    pub const K1: u32 = 27;
    pub const RA: u32 = 31;
}

/// CP0 registers as (number, select).
#[allow(missing_docs)]
pub mod cp0 {
    pub type Reg = (u32, u32);
    pub const INDEX: Reg = (0, 0);
    pub const ENTRY_LO0: Reg = (2, 0);
    pub const ENTRY_LO1: Reg = (3, 0);
    pub const CONTEXT: Reg = (4, 0);
    pub const PAGE_MASK: Reg = (5, 0);
    pub const PAGE_GRAIN: Reg = (5, 1);
    pub const WIRED: Reg = (6, 0);
    pub const HWRENA: Reg = (7, 0);
    pub const BAD_VADDR: Reg = (8, 0);
    pub const COUNT: Reg = (9, 0);
    pub const ENTRY_HI: Reg = (10, 0);
    pub const COMPARE: Reg = (11, 0);
    pub const STATUS: Reg = (12, 0);
    pub const INT_CTL: Reg = (12, 1);
    pub const SRS_CTL: Reg = (12, 2);
    pub const CAUSE: Reg = (13, 0);
    pub const EPC: Reg = (14, 0);
    pub const PRID: Reg = (15, 0);
    pub const EBASE: Reg = (15, 1);
    pub const CONFIG: Reg = (16, 0);
    pub const CONFIG1: Reg = (16, 1);
    pub const CONFIG2: Reg = (16, 2);
    pub const CONFIG3: Reg = (16, 3);
    pub const XCONTEXT: Reg = (20, 0);
    pub const TAG_LO: Reg = (28, 0);
    pub const ERROR_EPC: Reg = (30, 0);
}

/// A place in the code, known when [`Asm::bind`] is called.
#[derive(Clone, Copy)]
pub struct Label(usize);

/// Code being assembled, at consecutive words.
#[derive(Default)]
pub struct Asm {
    words: Vec<u32>,
    labels: Vec<Option<usize>>,
    /// Branches to labels: (word, label).
    fixups: Vec<(usize, Label)>,
}

macro_rules! immediate {
    ($($(#[$doc:meta])* $name:ident = $opcode:expr;)*) => {
        $($(#[$doc])*
        pub fn $name(&mut self, rt: u32, offset: i32, base: u32) {
            debug_assert!((-0x8000..0x1_0000).contains(&offset));
            self.word($opcode << 26 | base << 21 | rt << 16 | (offset as u32 & 0xffff));
        })*
    };
}

impl Asm {
    /// Empty code.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an instruction word.
    pub fn word(&mut self, word: u32) {
        self.words.push(word);
    }

    /// A label to be bound later.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Binds `label` to the next instruction.
    pub fn bind(&mut self, label: Label) {
        self.labels[label.0] = Some(self.words.len());
    }

    /// Appends `nop` up to word `index`.
    ///
    /// # Panics
    /// When the code is already longer: an error of the caller's layout.
    pub fn pad_to(&mut self, index: usize) {
        assert!(
            self.words.len() <= index,
            "code overruns its place by {}",
            self.words.len() - index
        );
        self.words.resize(index, 0);
    }

    immediate! {
        /// `rt = doubleword at base + offset`.
        ld = 0x37;
        /// Word at base + offset = rt.
        sw = 0x2b;
        /// Doubleword at base + offset = rt.
        sd = 0x3f;
        /// Byte at base + offset = rt.
        sb = 0x28;
        /// FPR load.
        ldc1 = 0x35;
        /// FPR store.
        sdc1 = 0x3d;
        /// `rt = base + offset`, 64 bits.
        daddiu = 0x19;
        /// `rt = base + offset`, a sign-extended word.
        addiu = 0x09;
        /// `rt = base & offset`, zero-extended.
        andi = 0x0c;
        /// `rt = base | offset`, zero-extended.
        ori = 0x0d;
        /// `rt = base ^ offset`, zero-extended.
        xori = 0x0e;
    }

    /// `rt = imm << 16`, sign-extended.
    pub fn lui(&mut self, rt: u32, imm: u32) {
        self.word(0x0f << 26 | rt << 16 | (imm & 0xffff));
    }

    /// A sign-extended word, in two instructions.
    pub fn li32(&mut self, rt: u32, value: i32) {
        self.lui(rt, value as u32 >> 16);
        self.ori(rt, value & 0xffff, rt);
    }

    /// Any value, in six instructions.
    pub fn li64(&mut self, rt: u32, value: u64) {
        self.li32(rt, (value >> 32) as i32);
        self.dsll(rt, rt, 16);
        self.ori(rt, (value >> 16 & 0xffff) as i32, rt);
        self.dsll(rt, rt, 16);
        self.ori(rt, (value & 0xffff) as i32, rt);
    }

    /// `rd = rt << shift`, shift below 32.
    pub fn dsll(&mut self, rd: u32, rt: u32, shift: u32) {
        self.word(rt << 16 | rd << 11 | shift << 6 | 0x38);
    }

    /// `rd = rt >> shift` of the word.
    pub fn srl(&mut self, rd: u32, rt: u32, shift: u32) {
        self.word(rt << 16 | rd << 11 | shift << 6 | 0x02);
    }

    /// `rd = rs + rt`, 64 bits.
    pub fn daddu(&mut self, rd: u32, rs: u32, rt: u32) {
        self.word(rs << 21 | rt << 16 | rd << 11 | 0x2d);
    }

    /// `rd = rs & rt`.
    pub fn and(&mut self, rd: u32, rs: u32, rt: u32) {
        self.word(rs << 21 | rt << 16 | rd << 11 | 0x24);
    }

    /// `rd = rs | rt`.
    pub fn or(&mut self, rd: u32, rs: u32, rt: u32) {
        self.word(rs << 21 | rt << 16 | rd << 11 | 0x25);
    }

    /// `rd = rs < rt`, unsigned.
    pub fn sltu(&mut self, rd: u32, rs: u32, rt: u32) {
        self.word(rs << 21 | rt << 16 | rd << 11 | 0x2b);
    }

    /// `rt = CP0 register`, 64 bits.
    pub fn dmfc0(&mut self, rt: u32, r: cp0::Reg) {
        self.word(0x10 << 26 | 1 << 21 | rt << 16 | r.0 << 11 | r.1);
    }

    /// `CP0 register = rt`, 64 bits.
    pub fn dmtc0(&mut self, rt: u32, r: cp0::Reg) {
        self.word(0x10 << 26 | 5 << 21 | rt << 16 | r.0 << 11 | r.1);
    }

    /// `rt = CP0 register`, a sign-extended word.
    pub fn mfc0(&mut self, rt: u32, r: cp0::Reg) {
        self.word(0x10 << 26 | rt << 16 | r.0 << 11 | r.1);
    }

    /// `CP0 register = rt`, a word.
    pub fn mtc0(&mut self, rt: u32, r: cp0::Reg) {
        self.word(0x10 << 26 | 4 << 21 | rt << 16 | r.0 << 11 | r.1);
    }

    /// `FPU control register = rt`.
    pub fn ctc1(&mut self, rt: u32, register: u32) {
        self.word(0x11 << 26 | 6 << 21 | rt << 16 | register << 11);
    }

    /// `rt = FPU control register`.
    pub fn cfc1(&mut self, rt: u32, register: u32) {
        self.word(0x11 << 26 | 2 << 21 | rt << 16 | register << 11);
    }

    /// `rt = FPR`, a sign-extended word.
    pub fn mfc1(&mut self, rt: u32, fs: u32) {
        self.word(0x11 << 26 | rt << 16 | fs << 11);
    }

    /// `rd = HI`.
    pub fn mfhi(&mut self, rd: u32) {
        self.word(rd << 11 | 0x10);
    }

    /// `rd = LO`.
    pub fn mflo(&mut self, rd: u32) {
        self.word(rd << 11 | 0x12);
    }

    /// `HI = rs`.
    pub fn mthi(&mut self, rs: u32) {
        self.word(rs << 21 | 0x11);
    }

    /// `LO = rs`.
    pub fn mtlo(&mut self, rs: u32) {
        self.word(rs << 21 | 0x13);
    }

    /// Clears the execution hazards of CP0 writes.
    pub fn ehb(&mut self) {
        self.word(3 << 6);
    }

    /// Nothing: a delay slot.
    pub fn nop(&mut self) {
        self.word(0);
    }

    /// Writes the TLB entry that Index names.
    pub fn tlbwi(&mut self) {
        self.word(0x4200_0002);
    }

    /// Looks EntryHi up.
    pub fn tlbp(&mut self) {
        self.word(0x4200_0008);
    }

    /// Reads the TLB entry that Index names.
    pub fn tlbr(&mut self) {
        self.word(0x4200_0001);
    }

    /// Returns from an exception.
    pub fn eret(&mut self) {
        self.word(0x4200_0018);
    }

    /// Jumps; the delay slot follows.
    pub fn jr(&mut self, rs: u32) {
        self.word(rs << 21 | 0x08);
    }

    /// Branches on equality; the delay slot follows.
    pub fn beq(&mut self, rs: u32, rt: u32, to: Label) {
        self.fixups.push((self.words.len(), to));
        self.word(0x04 << 26 | rs << 21 | rt << 16);
    }

    /// Branches on inequality; the delay slot follows.
    pub fn bne(&mut self, rs: u32, rt: u32, to: Label) {
        self.fixups.push((self.words.len(), to));
        self.word(0x05 << 26 | rs << 21 | rt << 16);
    }

    /// Branches; the delay slot follows.
    pub fn b(&mut self, to: Label) {
        self.beq(0, 0, to);
    }

    /// Branches, with `$31` = the address after the delay slot, which follows.
    pub fn bal(&mut self, to: Label) {
        self.fixups.push((self.words.len(), to));
        self.word(1 << 26 | 0x11 << 16);
    }

    /// Where `label` was bound, in words.
    ///
    /// # Panics
    /// When it was not: an error of the caller.
    pub fn place(&self, label: Label) -> usize {
        self.labels[label.0].expect("a label is used but never bound")
    }

    /// The finished code.
    ///
    /// # Panics
    /// When a label was never bound or is out of reach: an error of the caller.
    pub fn finish(mut self) -> Vec<u32> {
        for &(at, label) in &self.fixups {
            let distance = self.place(label) as i64 - (at as i64 + 1);
            let offset = i16::try_from(distance).expect("a branch is out of reach");
            self.words[at] |= u32::from(offset as u16);
        }
        self.words
    }
}
