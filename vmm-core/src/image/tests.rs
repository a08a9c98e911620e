//! Images, good and bad.

use super::*;
use alloc::sync::Arc;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;

const MB: u64 = 1 << 20;
const SEED: [u8; 32] = [7; 32];

/// An ELF64 file under construction.
#[derive(Clone)]
pub(crate) struct Builder {
    endian: Endian,
    class: u8,
    machine: u16,
    kind: u16,
    flags: u32,
    pub(crate) entry: u64,
    /// vaddr, paddr, bytes, bytes in memory.
    pub(crate) segments: Vec<(u64, u64, Vec<u8>, u64)>,
    sections: u16,
}

impl Builder {
    pub(crate) fn new(endian: Endian) -> Self {
        let text = (0..100).collect();
        Self {
            endian,
            class: 2,
            machine: 8,
            kind: 2,
            flags: 0x8000_0007,
            entry: 0xffff_ffff_8010_0004,
            segments: alloc::vec![(0xffff_ffff_8010_0000, 0x10_0000, text, 200)],
            sections: 0,
        }
    }

    fn at(vaddr: u64, paddr: u64, mem_len: u64) -> Self {
        let mut b = Self::new(Endian::Little);
        b.segments = alloc::vec![(vaddr, paddr, alloc::vec![1; 16], mem_len)];
        b.entry = vaddr;
        b
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let order = |v: u64, n: usize| match self.endian {
            Endian::Little => v.to_le_bytes()[..n].to_vec(),
            Endian::Big => v.to_be_bytes()[8 - n..].to_vec(),
        };
        let data = 64 + 56 * self.segments.len();
        let bytes: usize = self.segments.iter().map(|s| s.2.len()).sum();
        out.extend(b"\x7fELF");
        out.extend([self.class, if self.endian == Endian::Little { 1 } else { 2 }, 1]);
        out.resize(16, 0);
        for (v, n) in [
            (u64::from(self.kind), 2),
            (u64::from(self.machine), 2),
            (1, 4),
            (self.entry, 8),
            (64, 8),
            (if self.sections > 0 { (data + bytes) as u64 } else { 0 }, 8),
            (u64::from(self.flags), 4),
            (64, 2),
            (56, 2),
            (self.segments.len() as u64, 2),
            (64, 2),
            (u64::from(self.sections), 2),
            (0, 2),
        ] {
            out.extend(order(v, n));
        }
        let mut at = data as u64;
        for (vaddr, paddr, file, mem_len) in &self.segments {
            out.extend(order(1, 4));
            out.extend(order(7, 4));
            for v in [at, *vaddr, *paddr, file.len() as u64, *mem_len, 0x1000] {
                out.extend(order(v, 8));
            }
            at += file.len() as u64;
        }
        for s in &self.segments {
            out.extend(&s.2);
        }
        out.resize(out.len() + 64 * usize::from(self.sections), 0);
        out
    }

    fn plan(&self, memory: u64) -> Result<Plan, ImageError> {
        let images = Images { kernel: &self.build(), initrd: None, cmdline: "" };
        Plan::new(&images, self.endian, memory, &SEED)
    }
}

#[test]
fn loads_in_both_orders() {
    for endian in [Endian::Little, Endian::Big] {
        let plan = Builder::new(endian).plan(64 * MB).unwrap();
        assert_eq!(plan.entry().pc, 0xffff_ffff_8010_0004);
        assert_eq!(plan.kernel.segments[0].gpa, Gpa(0x10_0000));
        assert_eq!(elf::endian(&Builder::new(endian).build()), Some(endian));
    }
    assert_eq!(elf::endian(b"\x1f\x8b\x08"), None);
}

#[test]
fn every_truncation_is_refused() {
    let mut b = Builder::new(Endian::Little);
    b.segments.push((0xffff_ffff_8020_0000, 0x20_0000, alloc::vec![9; 50], 50));
    b.sections = 3;
    let whole = b.build();
    for cut in 0..whole.len() {
        let images = Images { kernel: &whole[..cut], initrd: None, cmdline: "" };
        let error = Plan::new(&images, Endian::Little, 64 * MB, &SEED).unwrap_err();
        if cut > 0 {
            assert!(matches!(error, ImageError::Truncated { .. }), "cut at {cut}: {error:?}");
        }
    }
}

#[test]
fn every_byte_may_be_wrong() {
    // Whatever one byte of the headers becomes, the answer is an image or an error.
    let whole = Builder::new(Endian::Big).build();
    for i in 0..64 + 56 {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bad = whole.clone();
            bad[i] = value;
            for endian in [Endian::Little, Endian::Big] {
                let images = Images { kernel: &bad, initrd: None, cmdline: "" };
                let _ = Plan::new(&images, endian, 64 * MB, &SEED);
            }
        }
    }
}

#[test]
fn wrong_kinds_of_file() {
    let plan = |change: &dyn Fn(&mut Builder)| {
        let mut b = Builder::new(Endian::Little);
        change(&mut b);
        b.plan(64 * MB).unwrap_err()
    };
    assert_eq!(plan(&|b| b.class = 1), ImageError::Elf32);
    assert_eq!(plan(&|b| b.machine = 62), ImageError::WrongMachine { machine: 62 });
    assert_eq!(plan(&|b| b.kind = 3), ImageError::NotExecutable { kind: 3 });
    assert_eq!(plan(&|b| b.flags = 0xa000_0000), ImageError::WrongIsa { flags: 0xa000_0000 });
    assert_eq!(plan(&|b| b.segments.clear()), ImageError::NoSegments);
    assert!(matches!(plan(&|b| b.segments[0].3 = 1), ImageError::Malformed { .. }));
    for entry in [0, 0xffff_ffff_8010_0006, 0xffff_ffff_8010_00c8, 0xffff_ffff_c010_0000] {
        assert_eq!(plan(&|b| b.entry = entry), ImageError::BadEntry { entry });
    }
    let big = Builder::new(Endian::Big).build();
    let images = Images { kernel: &big, initrd: None, cmdline: "" };
    assert_eq!(
        Plan::new(&images, Endian::Little, 64 * MB, &SEED),
        Err(ImageError::WrongEndian { kernel: Endian::Big })
    );
    let images = Images { kernel: b"\x1f\x8b\x08\0 a compressed file", initrd: None, cmdline: "" };
    assert_eq!(Plan::new(&images, Endian::Little, 64 * MB, &SEED), Err(ImageError::NotElf));
}

#[test]
fn addresses_of_every_segment() {
    const MEMORY: u64 = 64 * MB;
    for (vaddr, paddr, want) in [
        (0xffff_ffff_8010_0000, 0, Some(0x10_0000)),
        (0xffff_ffff_a010_0000, 0, Some(0x10_0000)),
        (0x9800_0000_0010_0000, 0, Some(0x10_0000)),
        (0x9000_0000_8010_0000, 0, Some(0x8010_0000)),
        // Mapped kernel segments: by their load address, plain or in KSEG0.
        (0xffff_ffff_c010_0000, 0x10_0000, Some(0x10_0000)),
        (0x4000_0000_0010_0000, 0x10_0000, Some(0x10_0000)),
        (0xffff_ffff_e000_0000, 0xffff_ffff_8030_0000, Some(0x30_0000)),
        // Outside of memory.
        (0xffff_ffff_8400_0000, 0, None),
        (0xffff_ffff_83ff_fff8, 0, None),
        (0xffff_ffff_9000_0000, 0, None),
        (0x9800_0010_0000_0000, 0, None),
        (0xffff_ffff_c010_0000, 0xffff_0000_0000, None),
    ] {
        let mut b = Builder::at(vaddr, paddr, 16);
        // A second segment to start in, so that the first may be anywhere.
        b.segments.push((0xffff_ffff_8020_0000, 0, alloc::vec![0; 4], 4));
        b.entry = 0xffff_ffff_8020_0000;
        let got = b.plan(MEMORY);
        match want {
            Some(gpa) => assert_eq!(got.unwrap().kernel.segments[0].gpa, Gpa(gpa), "{vaddr:#x}"),
            None => {
                assert!(matches!(got, Err(ImageError::OutsideMemory { .. })), "{vaddr:#x}: {got:?}")
            }
        }
    }
    let user = Builder::at(0x1_2000_0000, 0x10_0000, 16).plan(MEMORY);
    assert_eq!(user, Err(ImageError::BadAddress { vaddr: 0x1_2000_0000 }));
    // Memory that ends behind the I/O hole, and a segment that would span it.
    let spanning = Builder::at(0xffff_ffff_8fff_f000, 0, 0x2000).plan(1024 * MB);
    assert!(matches!(spanning, Err(ImageError::OutsideMemory { .. })));
    let huge = Builder::at(0xffff_ffff_8010_0000, 0, u64::MAX).plan(MEMORY);
    assert!(matches!(huge, Err(ImageError::OutsideMemory { .. })));
}

#[test]
fn overlaps() {
    let mut b = Builder::new(Endian::Little);
    // The other alias of the same byte.
    b.segments.push((0x9000_0000_8010_00c7, 0, alloc::vec![1], 1));
    assert!(matches!(b.plan(64 * MB), Err(ImageError::Overlap { .. })));
    b.segments[1].0 += 1;
    assert!(b.plan(64 * MB).is_ok());
    let firmware = Builder::at(0xffff_ffff_8000_0000, 0, 0x2001).plan(64 * MB);
    assert_eq!(firmware, Err(ImageError::OverFirmware { vaddr: 0xffff_ffff_8000_0000 }));
    assert!(Builder::at(0xffff_ffff_8000_0000, 0, 0x2000).plan(64 * MB).is_ok());
}

fn with_initrd(b: &Builder, len: usize, memory: u64) -> Result<Plan, ImageError> {
    let initrd = alloc::vec![0x55; len];
    let images = Images { kernel: &b.build(), initrd: Some(&initrd), cmdline: "quiet" };
    Plan::new(&images, b.endian, memory, &SEED)
}

#[test]
fn initrd_goes_to_the_top_of_low_memory() {
    let b = Builder::new(Endian::Little);
    assert_eq!(with_initrd(&b, 2_460_516, 128 * MB).unwrap().initrd, Some(Gpa(0x7d8_0000)));
    let high = with_initrd(&b, 1000, 512 * MB).unwrap().initrd.unwrap();
    assert!(high.0 < 256 * MB && high.0 > 255 * MB);
    assert_eq!(with_initrd(&b, 0, 64 * MB), Err(ImageError::EmptyInitrd));
    let error = with_initrd(&b, 64 << 20, 64 * MB).unwrap_err();
    let ImageError::InitrdTooBig { room, .. } = error else { panic!("{error}") };
    assert!(with_initrd(&b, room as usize, 64 * MB).is_ok(), "what it says fits does fit");
    // A kernel at the very top leaves no room below it but what is really there.
    let top = Builder::at(0xffff_ffff_8100_0000, 0, 48 * MB);
    assert!(with_initrd(&top, 8 << 20, 64 * MB).is_err());
}

#[test]
fn memory_sizes() {
    for memory in [0, 4096, MB - 4096, MB + 1, 2048 * MB + 4096, u64::MAX] {
        let got = Builder::new(Endian::Little).plan(memory);
        assert_eq!(got, Err(ImageError::MemorySize { memory }));
    }
}

#[test]
fn every_error_is_one_line_with_a_remedy() {
    for error in [
        ImageError::MemorySize { memory: 1 },
        ImageError::NotElf,
        ImageError::Truncated { what: "a segment", need: 2, have: 1 },
        ImageError::Elf32,
        ImageError::WrongEndian { kernel: Endian::Big },
        ImageError::WrongMachine { machine: 62 },
        ImageError::WrongIsa { flags: 0 },
        ImageError::NotExecutable { kind: 1 },
        ImageError::Malformed { what: "x" },
        ImageError::NoSegments,
        ImageError::BadAddress { vaddr: 1 },
        ImageError::OutsideMemory { vaddr: 1, end: 2, memory: 3 },
        ImageError::Overlap { first: 1, second: 2 },
        ImageError::OverFirmware { vaddr: 1 },
        ImageError::BadEntry { entry: 1 },
        ImageError::EmptyInitrd,
        ImageError::InitrdTooBig { len: 1, room: 0 },
        ImageError::CommandLineTooLong { len: 5000, max: 4095 },
        ImageError::CommandLineNul,
        ImageError::NoMemory { gpa: 0 },
    ] {
        let text = alloc::format!("{error}");
        assert!(!text.contains('\n') && text.contains(": "), "{text}");
    }
}

/// RAM in one piece; its clones are the same memory.
#[derive(Clone, Debug)]
pub(crate) struct Ram(Arc<[AtomicU64]>);

impl Ram {
    pub(crate) fn new(size: u64) -> Self {
        Self((0..size / 8).map(|_| AtomicU64::new(0)).collect())
    }
}

// SAFETY: the memory never moves, and is only accessed through pages.
#[allow(unsafe_code)]
unsafe impl GuestMemory for Ram {
    fn resolve(&self, gpa: Gpa, _: Access) -> Option<crate::mem::Page> {
        let at = ram::offset(gpa, self.0.len() as u64 * 8)? & !(PAGE_SIZE - 1);
        let page = &self.0[at as usize / 8..][..PAGE_SIZE as usize / 8];
        // SAFETY: a whole page, aligned to 8, which may be written through shared references and lives as
        // long as `self`.
        Some(unsafe { crate::mem::Page::new(NonNull::from(page).cast()) })
    }
}

#[test]
fn loading_puts_every_byte_in_its_place() {
    let b = Builder::new(Endian::Big);
    let kernel = b.build();
    let initrd: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
    let images = Images { kernel: &kernel, initrd: Some(&initrd), cmdline: "hello" };
    let plan = Plan::new(&images, Endian::Big, 4 * MB, &SEED).unwrap();
    let memory = Ram::new(4 * MB);
    plan.load(&images, &memory).unwrap();
    let byte = |at: u64| memory.resolve(Gpa(at), Access::Read).unwrap().load8(at % PAGE_SIZE);
    for i in 0..200 {
        assert_eq!(byte(0x10_0000 + i), if i < 100 { i as u8 } else { 0 });
    }
    for (i, &want) in initrd.iter().enumerate() {
        assert_eq!(byte(plan.initrd.unwrap().0 + i as u64), want);
    }
    assert_eq!([0, 1, 2, 3].map(|i| byte(firmware::BASE + i)), [0x80, 0, 0x20, 44]);
    let short = Ram::new(MB);
    assert_eq!(plan.load(&images, &short), Err(ImageError::NoMemory { gpa: 0x10_0000 }));
}
