//! The sensitive instructions, by group. Base register `$8` points to data, `$9` is 0, `$10` is the
//! address to jump to, `$11` is 0.

/// Instructions that are alike.
pub struct Group {
    /// Its name.
    pub name: &'static str,
    /// Whether each word has its line in the table.
    pub each: bool,
    /// Words without the fields below.
    pub bases: &'static [u32],
    /// Fields that take all values: shift, number of values.
    pub fields: [(u32, u32); 2],
}

impl Group {
    /// Its words.
    pub fn words(&self) -> impl Iterator<Item = u32> {
        let [(shift, count), (shift2, count2)] = self.fields;
        self.bases.iter().flat_map(move |base| {
            (0..count).flat_map(move |a| (0..count2).map(move |b| base | a << shift | b << shift2))
        })
    }
}

const NONE: (u32, u32) = (0, 1);
/// rd of a move to or from CP0, and its select.
const REGISTER: (u32, u32) = (11, 32);
const SELECT: (u32, u32) = (0, 8);

const fn all(name: &'static str, base: &'static [u32], fields: [(u32, u32); 2]) -> Group {
    Group { name, each: false, bases: base, fields }
}

const fn list(name: &'static str, bases: &'static [u32]) -> Group {
    Group { name, each: false, bases, fields: [NONE, NONE] }
}

const fn each(name: &'static str, base: &'static [u32], field: (u32, u32)) -> Group {
    Group { name, each: true, bases: base, fields: [field, NONE] }
}

/// All groups.
pub const GROUPS: &[Group] = &[
    all("mfc0", &[0x4009_0000], [REGISTER, SELECT]),
    all("dmfc0", &[0x4029_0000], [REGISTER, SELECT]),
    all("mtc0", &[0x4089_0000], [REGISTER, SELECT]),
    all("dmtc0", &[0x40a9_0000], [REGISTER, SELECT]),
    list("rdpgpr-wrpgpr", &[0x4149_4800, 0x41c9_4800]),
    list("di-ei", &[0x4160_6000, 0x4160_6020, 0x4169_6000, 0x4169_6020]),
    list("mt-dmt-emt-dvpe-evpe", &[0x4160_0bc1, 0x4160_0be1, 0x4160_0001, 0x4160_0021]),
    all("mt-mftr-mttr", &[0x4109_4800, 0x4189_4800], [(0, 64), NONE]),
    // What COP0's rs field does not define, with a few functions each.
    all(
        "cop0-undefined",
        &[
            0x4049_0000,
            0x4069_0000,
            0x40c9_0000,
            0x40e9_0000,
            0x4129_0000,
            0x41a9_0000,
            0x41e9_0000,
        ],
        [(0, 8), (11, 4)],
    ),
    list("tlbr-tlbwi-tlbwr-tlbp", &[0x4200_0001, 0x4200_0002, 0x4200_0006, 0x4200_0008]),
    list("tlbinv-tlbinvf", &[0x4200_0003, 0x4200_0004]),
    list("eret", &[0x4200_0018]),
    list("deret", &[0x4200_001f]),
    list("wait", &[0x4200_0020, 0x4207_ff20]),
    all("cop0-co-any", &[0x4200_0000], [(0, 64), NONE]),
    all("cache", &[0xbd00_0000], [(16, 32), NONE]),
    all("rdhwr", &[0x7c09_003b], [(11, 32), NONE]),
    all("sync", &[0x0000_000f], [(6, 32), NONE]),
    list("synci", &[0x051f_0000]),
    all("pref", &[0xcd00_0000], [(16, 32), NONE]),
    list("ll-sc", &[0xc109_0000, 0xe109_0000]),
    list("lld-scd", &[0xd109_0000, 0xf109_0000]),
    list("jr.hb-jalr.hb", &[0x0140_0408, 0x0140_fc09]),
    list("ehb-ssnop-pause", &[0x0000_00c0, 0x0000_0040, 0x0000_0140]),
    list("syscall", &[0x0000_000c, 0x03ff_ffcc]),
    list("break", &[0x0000_000d, 0x03ff_ffcd]),
    list("teq", &[0x0129_0034]),
    list("sdbbp", &[0x7000_003f, 0x73ff_ffff]),
    list("mfc1-mtc1", &[0x4409_1000, 0x4489_1000]),
    list("dmfc1-dmtc1", &[0x4429_1000, 0x44a9_1000]),
    list("mfhc1-mthc1", &[0x4469_1000, 0x44e9_1000]),
    // FIR, FCCR, FEXR, FENR, FCSR; ctc1 of $9, which is 0.
    list("cfc1-ctc1", &[0x4449_0000, 0x4449_c800, 0x4449_f800, 0x44c9_c800, 0x44c9_f800]),
    list("add.s-add.d", &[0x4602_1100, 0x4622_1100]),
    list("add.ps", &[0x46c2_1100]),
    list("c.eq.d-bc1t", &[0x4622_1032, 0x4501_0001]),
    list("lwc1-swc1-ldc1-sdc1", &[0xc502_0000, 0xe502_0000, 0xd502_0000, 0xf502_0000]),
    list("lwxc1-ldxc1", &[0x4d0b_0080, 0x4d0b_0081]),
    list("madd.d", &[0x4c44_1121]),
    list("movf", &[0x0120_4801]),
    all("cop2", &[0x4800_0000], [(21, 32), NONE]),
    list("lwc2-ldc2-swc2-sdc2", &[0xc909_0000, 0xd909_0000, 0xe909_0000, 0xf909_0000]),
    all("special-5", &[0x0000_0005], [(6, 2), NONE]),
    list(
        "special-undefined",
        &[
            0x0149_480e,
            0x0149_4815,
            0x0149_4828,
            0x0149_4829,
            0x0149_4835,
            0x0149_4837,
            0x0149_4839,
            0x0149_483d,
        ],
    ),
    list(
        "regimm-undefined",
        &[
            0x0504_0000,
            0x0505_0000,
            0x050d_0000,
            0x050f_0000,
            0x0514_0000,
            0x0515_0000,
            0x0516_0000,
            0x0517_0000,
            0x0518_0000,
            0x0519_0000,
            0x051a_0000,
            0x051b_0000,
            0x051d_0000,
            0x051e_0000,
        ],
    ),
    each("special2", &[0x7149_4800], (0, 63)),
    each("special3", &[0x7d49_4800], (0, 59)),
    each("special3-high", &[0x7d49_483c], (0, 4)),
    // MDMX, which MSA took over.
    all("mdmx-msa", &[0x7800_0000, 0x7949_4800], [(0, 64), NONE]),
    list("opcode-1d", &[0x7400_0000]),
    list("opcode-3b", &[0xed09_0000]),
];
