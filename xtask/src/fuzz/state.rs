//! The state a case starts with: mode, address space, TLB and registers.

use super::asm::cp0;
use super::case::Case;
use super::layout::{self, CP0_INPUT};
use super::rng::Rng;
use super::values;

/// Status bits by their manual names.
#[allow(missing_docs)]
pub mod status {
    pub const IE: u32 = 1;
    pub const EXL: u32 = 1 << 1;
    pub const ERL: u32 = 1 << 2;
    pub const KSU_SHIFT: u32 = 3;
    pub const UX: u32 = 1 << 5;
    pub const SX: u32 = 1 << 6;
    pub const KX: u32 = 1 << 7;
    pub const IM0: u32 = 1 << 8;
    pub const IM1: u32 = 1 << 9;
    pub const BEV: u32 = 1 << 22;
    /// CU3, CU2, RP, RE, MX, TS, SR, NMI and what the manual leaves to implementations.
    pub const INERT: u32 = 0xcb3b_0000;
    pub const PX: u32 = 1 << 23;
    pub const FR: u32 = 1 << 26;
    pub const CU0: u32 = 1 << 28;
    pub const CU1: u32 = 1 << 29;
}

/// Cause.DC: Count stands still, always.
pub const CAUSE_DC: u32 = 1 << 27;

/// The register that holds the code's address: no instruction writes it.
pub const CODE_REGISTER: u32 = 28;
/// The register that points to scratch memory for as long as the TLB is left alone: never written.
pub const SAFE_POINTER: u32 = 26;
/// The register that holds a small index, a multiple of 8: never written.
pub const INDEX_REGISTER: u32 = 27;
/// Registers that start as pointers: seldom written.
pub const POINTERS: [u32; 10] = [16, 17, 18, 19, 20, 21, 22, 23, 29, 30];

/// PageMask for pages of 4 KB and up, in steps of four.
pub const PAGE_MASKS: [u64; 9] =
    [0, 0x6000, 0x1_e000, 0x7_e000, 0x1f_e000, 0x7f_e000, 0x1ff_e000, 0x7ff_e000, 0x1fff_e000];

/// Segments that the TLB maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// User, 32 bits.
    Useg,
    /// User, 64 bits.
    Xuseg,
    /// Supervisor, 64 bits.
    Xsseg,
    /// Supervisor, 32 bits.
    Cksseg,
    /// Kernel, 64 bits.
    Xkseg,
    /// Kernel, 32 bits.
    Ckseg3,
}

impl Segment {
    const ALL: [Self; 6] =
        [Self::Useg, Self::Xuseg, Self::Xsseg, Self::Cksseg, Self::Xkseg, Self::Ckseg3];

    /// The largest page, as an index into [`PAGE_MASKS`], that keeps homes apart.
    const fn largest(self) -> usize {
        match self {
            Self::Useg | Self::Cksseg | Self::Ckseg3 => 5,
            Self::Xuseg | Self::Xsseg | Self::Xkseg => 8,
        }
    }

    /// The least mode (0 kernel, 1 supervisor, 2 user) that may use it.
    const fn mode(self) -> u32 {
        match self {
            Self::Useg | Self::Xuseg => 2,
            Self::Xsseg | Self::Cksseg => 1,
            Self::Xkseg | Self::Ckseg3 => 0,
        }
    }

    const fn wide(self) -> bool {
        matches!(self, Self::Xuseg | Self::Xsseg | Self::Xkseg)
    }
}

/// The addresses that TLB entry `index` may map, at `segment`. Entries' homes never overlap, so that
/// no stream makes two entries match one address (UNDEFINED).
pub fn home(segment: Segment, index: u64) -> u64 {
    // Some entries sit at the edges of segments instead.
    match (segment, index) {
        (Segment::Useg, 1) => return 0,
        (Segment::Useg, 2) => return 0x7fff_e000,
        (Segment::Xuseg, 3) => return 0x0000_03ff_ffff_e000,
        (Segment::Xsseg, 4) => return 0x4000_03ff_ffff_e000,
        (Segment::Ckseg3, 5) => return 0xffff_ffff_ffff_e000,
        _ => {}
    }
    match segment {
        Segment::Useg => 0x2000_0000 + (index << 23),
        Segment::Cksseg => 0xffff_ffff_c000_0000 + (index << 23),
        // The last one would overlap the edge above.
        Segment::Ckseg3 => 0xffff_ffff_e000_0000 + ((index % 63) << 23),
        Segment::Xuseg => 0x0000_0040_0000_0000 + (index << 30),
        Segment::Xsseg => 0x4000_0000_0000_0000 + (index << 30),
        Segment::Xkseg => 0xc000_0000_0000_0000 + (index << 30),
    }
}

/// Whether [`home`] is at a segment's edge, where only the smallest page fits.
const fn edge(segment: Segment, index: u64) -> bool {
    matches!(
        (segment, index),
        (Segment::Useg, 1 | 2) | (Segment::Xuseg, 3) | (Segment::Xsseg, 4) | (Segment::Ckseg3, 5)
    )
}

/// What a case is mostly about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Everything.
    Mixed,
    /// Mostly arithmetic.
    Integer,
    /// Mostly floating point.
    Float,
    /// Mostly loads and stores.
    Memory,
    /// Mostly CP0, TLB and exceptions.
    System,
    /// Vectors at another EBase.
    ExceptionBase,
    /// Vectors in the ROM.
    BootVectors,
}

/// Which streams are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// All kinds.
    Everything,
    /// Those that begin in user mode. Like the next, without what a VM does not have: code in the ROM.
    User,
    /// Those of a kernel in a supervisor segment.
    Supervisor,
    /// Those of a kernel in any segment, run often enough that their code counts as worth translating.
    Translator,
}

/// How often the streams of [`Profile::Translator`] are run: a place is translated when it has been reached four times
/// (`vmm_core`'s `interp::hot`), so that a path that is the same in each round is in emitted code for most of them.
const ROUNDS: u64 = 12;

/// A case's frame: what the units need to know.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Which streams it is one of.
    pub profile: Profile,
    /// What it is about.
    pub kind: Kind,
    /// KSU at the start.
    pub mode: u32,
    /// Status.FR, fixed for the case: a change makes the FPRs UNPREDICTABLE.
    pub fr: bool,
    /// The slot's physical address.
    pub pa: u64,
    /// EBase may be moved to places that need 64-bit kernel addresses.
    pub wide_base: bool,
    /// EBase may be moved to vectors in a supervisor segment, which TLB entry [`VECTOR_ENTRY`] maps: no
    /// stream changes that one.
    pub mapped_base: bool,
}

/// See [`Frame::mapped_base`].
pub const VECTOR_ENTRY: u64 = 62;

/// The TLB entry for vectors in CKSSEG: global, read-only, at its home.
fn vector_entry() -> [u64; 4] {
    let lo = |page: u64| page >> 12 << 6 | 3 << 3 | 1 << 1 | 1;
    let [even, odd, _] = layout::VECTOR_PAGES;
    [home(Segment::Cksseg, VECTOR_ENTRY), lo(even), lo(odd), 0]
}

/// A TLB entry that matches nothing, as the harness writes unused ones.
const fn unused(index: u64) -> [u64; 4] {
    [0xffff_ffff_8000_0000 + (index << 13), 0, 0, 0]
}

/// A random TLB entry for `index`, with a pointer to scratch memory through it and whether plain
/// loads and stores through it succeed in a mode that may use its segment.
pub fn entry(rng: &mut Rng, frame: &Frame, index: u64, asid: u64) -> ([u64; 4], u64) {
    let segment = segment(rng, frame);
    // Pages above 4 MB are rare: QEMU takes milliseconds to replace one.
    let size = match rng.below(400) {
        _ if edge(segment, index) => 0,
        0 => rng.below(segment.largest() as u64 + 1) as usize,
        1..10 => 5,
        10..150 => 1 + rng.below(4) as usize,
        _ => 0,
    };
    let mask = PAGE_MASKS[size];
    let page = (mask + 0x2000) / 2;
    let global = rng.below(4);
    let mut lo = [0_u64; 2];
    let half = rng.below(2);
    for (i, lo) in lo.iter_mut().enumerate() {
        let pa = match rng.below(40) {
            // Nothing answers up there: bus errors.
            0 => 0x8_0000_0000,
            1 => frame.pa + layout::CODE as u64,
            _ => frame.pa + layout::SCRATCH as u64,
        };
        let pfn = (pa & !(page - 1)) >> 12;
        let valid = u64::from(!rng.chance(8)) << 1;
        // Only scratch memory is ever writable.
        let dirty = u64::from(pa != frame.pa + layout::CODE as u64 && !rng.chance(15)) << 2;
        let g = match global {
            0 | 1 => 1,
            2 => 0,
            _ => i as u64,
        };
        let cache = rng.pick(&[2, 3, 3, 3, 5]) << 3;
        *lo = pfn << 6 | cache | dirty | valid | g;
    }
    let base = home(segment, index);
    let asid = if rng.chance(85) { asid } else { rng.below(256) };
    let offset = (frame.pa + layout::SCRATCH as u64) & (page - 1);
    ([base | asid, lo[0], lo[1], mask], base + half * page + offset + middle(rng))
}

/// A segment, mostly one that the mode may use.
fn segment(rng: &mut Rng, frame: &Frame) -> Segment {
    loop {
        let segment = rng.pick(&Segment::ALL);
        if segment.mode() >= frame.mode || rng.chance(10) {
            return segment;
        }
    }
}

/// An offset that leaves room around it in the scratch page.
fn middle(rng: &mut Rng) -> u64 {
    0x400 + 8 * rng.below(0x100) + if rng.chance(5) { rng.below(8) } else { 0 }
}

/// A Status for the start or for a stream's own writes: the fixed bits are `frame`'s.
pub fn status(rng: &mut Rng, frame: &Frame, mode: u32) -> u32 {
    let mut value = mode << status::KSU_SHIFT;
    for (bit, percent) in [
        (status::UX, 70),
        (status::SX, 70),
        (status::KX, 75),
        (status::PX, 30),
        (status::CU0, 12),
        (status::CU1, 92),
        (status::IE, 40),
        (status::IM0, 40),
        (status::IM1, 40),
    ] {
        if rng.chance(percent) {
            value |= bit;
        }
    }
    // Bits that are storage, or nothing at all.
    if rng.chance(5) {
        value |= rng.bits() as u32 & status::INERT;
    }
    if mode == 2 && value & status::CU0 != 0 {
        // QEMU lets a 32-bit user mode use DMFC0 and DMTC0.
        value |= status::PX;
    }
    if frame.fr {
        value |= status::FR;
    }
    if frame.wide_base {
        value |= status::KX;
    }
    if match frame.kind {
        Kind::BootVectors => rng.chance(80),
        Kind::System if frame.profile == Profile::Everything => rng.chance(5),
        _ => false,
    } {
        value |= status::BEV;
    }
    value
}

/// An EBase whose vectors exist.
pub fn exception_base(rng: &mut Rng, frame: &Frame) -> u64 {
    let page = match (frame.kind, frame.profile) {
        (Kind::ExceptionBase, Profile::Everything) => rng.pick(&layout::VECTOR_PAGES),
        (Kind::ExceptionBase, _) => rng.pick(&layout::VECTOR_PAGES[..layout::VM_VECTOR_PAGES]),
        _ => 0,
    };
    // With the write gate open all bits are written, else bits 29..12 alone: a case keeps to one.
    const WRITE_GATE: u64 = 1 << 11;
    let gate = if frame.wide_base { WRITE_GATE } else { 0 };
    let segment = match rng.below(4) {
        _ if frame.mapped_base && rng.chance(80) => home(Segment::Cksseg, VECTOR_ENTRY),
        0 if frame.wide_base => 0x9000_0000_0000_0000,
        1 if frame.wide_base => 0x9800_0000_0000_0000,
        2 if frame.kind == Kind::ExceptionBase => 0xffff_ffff_a000_0000,
        _ => layout::kseg0(0),
    };
    segment | page | gate
}

/// The kind of a case.
fn kind(rng: &mut Rng, profile: Profile) -> Kind {
    match rng.below(20) {
        0..4 => Kind::Mixed,
        4..7 => Kind::Integer,
        7..11 => Kind::Float,
        11..14 => Kind::Memory,
        14..18 => Kind::System,
        18 => Kind::ExceptionBase,
        _ if profile != Profile::Everything => Kind::ExceptionBase,
        _ => Kind::BootVectors,
    }
}

/// Where the code is seen: directly, or through TLB entry 0.
fn code_address(rng: &mut Rng, frame: &Frame, status: &mut u32, tlb: &mut [u64; 4]) -> u64 {
    let pa = frame.pa + layout::CODE as u64;
    let unmapped = if frame.profile == Profile::Translator { 65 } else { 40 };
    if frame.profile != Profile::Supervisor && frame.mode == 0 && rng.chance(unmapped) {
        return match rng.below(4) {
            0 => 0xffff_ffff_a000_0000 | pa,
            1 => {
                *status |= status::KX;
                0x9800_0000_0000_0000 | pa
            }
            _ => layout::kseg0(pa),
        };
    }
    let segment = loop {
        let segment = rng.pick(&Segment::ALL);
        let wanted = match frame.profile {
            Profile::Supervisor => segment.mode() == 1,
            _ => segment.mode() >= frame.mode,
        };
        if wanted {
            break segment;
        }
    };
    if segment.wide() {
        // The mode's own 64-bit addresses; a miss needs the segment's.
        *status |= [status::KX, status::SX, status::UX][frame.mode as usize];
    }
    let base = home(segment, 0);
    let (mask, page) = if rng.chance(70) { (0, 0x1000) } else { (0x6000, 0x4000) };
    let half = rng.below(2);
    let code = (pa & !(page - 1)) >> 12 << 6 | 3 << 3 | 1 << 1;
    let other = ((frame.pa + layout::SCRATCH as u64) & !(page - 1)) >> 12 << 6 | 3 << 3 | 3 << 1;
    // Global: a stream that changes the ASID does not take its own code away.
    let lo = if half == 0 { [code | 1, other | 1] } else { [other | 1, code | 1] };
    *tlb = [base | tlb[0] & 0xff, lo[0], lo[1], mask];
    base + half * page + (pa & (page - 1))
}

/// A case with everything but its units.
pub fn frame(rng: &mut Rng, profile: Profile, number: u64) -> (Frame, Case) {
    let slot = (number % layout::BATCH as u64) as usize;
    let kind = kind(rng, profile);
    let mode = rng.pick(&[0, 0, 0, 0, 1, 2, 2]);
    let mode = if kind == Kind::System && rng.chance(60) { 0 } else { mode };
    let mode = match profile {
        Profile::Everything => mode,
        Profile::User => 2,
        Profile::Supervisor | Profile::Translator => 0,
    };
    let fr = rng.chance(75);
    let wide_base = kind == Kind::ExceptionBase && rng.chance(50);
    let mapped_base = profile != Profile::Everything && rng.chance(40);
    let frame = Frame {
        profile,
        kind,
        mode,
        fr,
        pa: layout::slot_pa(slot),
        wide_base: wide_base || mapped_base,
        mapped_base,
    };
    let mut status = status(rng, &frame, mode);
    if rng.chance(50) {
        status &= !status::IE;
    }
    let asid = rng.below(256);
    let mut first = [asid; 4];
    let code = code_address(rng, &frame, &mut status, &mut first);
    let mut tlb = vec![first];
    if first == [asid; 4] {
        tlb[0] = [layout::kseg0(0x1fff_e000), 0, 0, 0];
    }
    let mut pointers = Vec::new();
    for index in 1..4 + rng.below(10) {
        let (entry, pointer) = entry(rng, &frame, index, asid);
        tlb.push(entry);
        pointers.push(pointer);
    }
    if frame.mapped_base {
        tlb.extend((tlb.len() as u64..VECTOR_ENTRY).map(unused));
        tlb.push(vector_entry());
    }
    let scratch = frame.pa + layout::SCRATCH as u64;
    let pointer = |rng: &mut Rng| -> u64 {
        let here = scratch + middle(rng);
        match rng.below(10) {
            0..3 if mode == 0 => layout::kseg0(here),
            3 if mode == 0 => 0xffff_ffff_a000_0000 | here,
            4 if mode == 0 => 0x8000_0000_0000_0000 | rng.pick(&[2, 3, 5]) << 59 | here,
            _ => rng.pick(&pointers),
        }
    };
    let mut gpr = [0; 32];
    for r in &mut gpr[1..] {
        *r = values::gpr(rng);
    }
    for r in POINTERS {
        gpr[r as usize] = pointer(rng);
    }
    gpr[INDEX_REGISTER as usize] = 8 * rng.below(64);
    gpr[SAFE_POINTER as usize] = if mode == 0 && rng.chance(60) {
        layout::kseg0(scratch + 0x800)
    } else {
        rng.pick(&pointers)
    };
    gpr[CODE_REGISTER as usize] = code;
    let value = |rng: &mut Rng, r: cp0::Reg| match r {
        cp0::CONTEXT | cp0::XCONTEXT => rng.bits(),
        cp0::PAGE_GRAIN => rng.pick(&[0, 0, 0, 1 << 29]),
        cp0::WIRED => rng.below(64),
        cp0::HWRENA => rng.pick(&[0, 0xf, 1, 2, 8, 0xb]),
        // VS: how far apart the vectors of interrupts are.
        cp0::INT_CTL => rng.pick(&[0, 0, 1, 2, 4, 8]) << 5,
        cp0::CONFIG => rng.pick(&[2, 3]),
        cp0::CAUSE => {
            u64::from(CAUSE_DC) | rng.below(4) << 8 & rng.bits() | u64::from(rng.chance(40)) << 23
        }
        cp0::EBASE => exception_base(rng, &frame),
        cp0::ENTRY_LO0 | cp0::ENTRY_LO1 => rng.below(1 << 30),
        cp0::PAGE_MASK => rng.pick(&PAGE_MASKS),
        cp0::INDEX => rng.below(64),
        cp0::ENTRY_HI => home(segment(rng, &frame), rng.below(64)) | asid,
        other => unreachable!("no initial value for CP0 register {other:?}"),
    };
    let cp0 = CP0_INPUT.map(|r| value(rng, r));
    let case = Case {
        number,
        slot,
        kind: format!("{kind:?}"),
        gpr,
        fpr: std::array::from_fn(|_| values::fpr(rng)),
        hi: values::gpr(rng),
        lo: values::gpr(rng),
        fcsr: values::fcsr(rng),
        status,
        cp0,
        tlb,
        code,
        max_traps: layout::MAX_TRAPS,
        rounds: if profile == Profile::Translator { ROUNDS } else { 1 },
        units: Vec::new(),
        scratch: rng.bits(),
    };
    (frame, case)
}
