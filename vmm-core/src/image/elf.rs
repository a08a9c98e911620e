//! ELF64 executables: what is to be loaded where.
//!
//! After the System V ABI (ELF-64 object file format 1.5) and its MIPS supplement. Nothing in the file
//! is trusted: every offset and size is checked against the file and against the machine.

use super::error::ImageError;
use crate::board::ram;
use crate::endian::Endian;
use abi::Gpa;
use alloc::vec::Vec;

const MAGIC: [u8; 4] = *b"\x7fELF";
const IDENT_SIZE: u64 = 16;
const HEADER_SIZE: u64 = 64;
const PROGRAM_HEADER_SIZE: u64 = 56;
const SECTION_HEADER_SIZE: u64 = 64;
/// Linux' kernels have two; a table of more than this is damaged.
const MAX_PROGRAM_HEADERS: u16 = 256;

const CLASS_32: u8 = 1;
const CLASS_64: u8 = 2;
const TYPE_EXEC: u16 = 2;
const MACHINE_MIPS: u16 = 8;
const PT_LOAD: u32 = 1;

const FLAG_MICROMIPS: u32 = 0x0200_0000;
const FLAG_ARCH: u32 = 0xf000_0000;
const ARCH_32R6: u32 = 0x9000_0000;
const ARCH_64R6: u32 = 0xa000_0000;

/// One PT_LOAD segment, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Virtual address that it is linked at.
    pub vaddr: u64,
    /// Guest-physical address of its first byte.
    pub gpa: Gpa,
    /// Where its bytes begin in the file.
    pub file_offset: u64,
    /// Bytes from the file.
    pub file_len: u64,
    /// Bytes in memory; what the file does not fill is zero.
    pub mem_len: u64,
    /// Offset into RAM.
    ram: u64,
}

/// A checked kernel image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elf {
    /// Where execution begins.
    pub entry: u64,
    /// What is loaded, in the file's order.
    pub segments: Vec<Segment>,
}

/// The byte order of an ELF file, if it is one.
#[must_use]
pub fn endian(file: &[u8]) -> Option<Endian> {
    if file.get(..4)? != MAGIC {
        return None;
    }
    match file.get(5)? {
        1 => Some(Endian::Little),
        2 => Some(Endian::Big),
        _ => None,
    }
}

/// A file and its byte order; reads are checked beforehand by [`Fields::need`].
struct Fields<'a> {
    file: &'a [u8],
    endian: Endian,
}

impl Fields<'_> {
    fn need(&self, what: &'static str, need: Option<u64>) -> Result<(), ImageError> {
        let have = self.file.len() as u64;
        match need {
            Some(need) if need <= have => Ok(()),
            _ => Err(ImageError::Truncated { what, need: need.unwrap_or(u64::MAX), have }),
        }
    }

    fn bytes<const N: usize>(&self, at: u64) -> [u8; N] {
        let at = at as usize;
        at.checked_add(N)
            .and_then(|end| self.file.get(at..end))
            .and_then(|b| b.try_into().ok())
            .unwrap_or([0; N])
    }

    fn u16(&self, at: u64) -> u16 {
        self.endian.u16(self.bytes(at))
    }

    fn u32(&self, at: u64) -> u32 {
        self.endian.u32(self.bytes(at))
    }

    fn u64(&self, at: u64) -> u64 {
        self.endian.u64(self.bytes(at))
    }
}

/// The bytes of a table of `count` entries at `offset`: its end.
fn table_end(offset: u64, count: u16, size: u64) -> Option<u64> {
    offset.checked_add(u64::from(count) * size)
}

/// The physical address behind an unmapped kernel segment's virtual one.
fn unmapped(vaddr: u64) -> Option<u64> {
    match vaddr {
        // CKSEG0, CKSEG1.
        0xffff_ffff_8000_0000..=0xffff_ffff_bfff_ffff => Some(vaddr & 0x1fff_ffff),
        // XKPHYS: bits 61:59 are the cache attribute.
        0x8000_0000_0000_0000..=0xbfff_ffff_ffff_ffff => Some(vaddr & 0x07ff_ffff_ffff_ffff),
        _ => None,
    }
}

/// Where a segment goes. A kernel linked in a mapped segment says so by its load address.
fn physical(vaddr: u64, paddr: u64) -> Option<u64> {
    match unmapped(vaddr) {
        Some(physical) => Some(physical),
        // User segments: what runs there is no kernel.
        None if vaddr < 0x4000_0000_0000_0000 => None,
        None => Some(unmapped(paddr).unwrap_or(paddr)),
    }
}

impl Elf {
    /// Checks `file` as a kernel of this byte order for `memory` bytes of RAM.
    ///
    /// # Errors
    /// With the first thing that is wrong.
    pub fn parse(file: &[u8], endian: Endian, memory: u64) -> Result<Self, ImageError> {
        let f = Fields { file, endian };
        // The magic number first: a file of three bytes that differ is no truncated ELF.
        if file.iter().zip(MAGIC).any(|(&a, b)| a != b) || file.is_empty() {
            return Err(ImageError::NotElf);
        }
        f.need("the ELF identification", Some(IDENT_SIZE))?;
        match file[4] {
            CLASS_64 => {}
            CLASS_32 => return Err(ImageError::Elf32),
            _ => return Err(ImageError::Malformed { what: "its class is neither 32 nor 64 bits" }),
        }
        match self::endian(file) {
            Some(kernel) if kernel != endian => return Err(ImageError::WrongEndian { kernel }),
            Some(_) => {}
            None => return Err(ImageError::Malformed { what: "it has no byte order" }),
        }
        f.need("the ELF header", Some(HEADER_SIZE))?;
        let (kind, machine, flags) = (f.u16(16), f.u16(18), f.u32(48));
        if machine != MACHINE_MIPS {
            return Err(ImageError::WrongMachine { machine });
        }
        if kind != TYPE_EXEC {
            return Err(ImageError::NotExecutable { kind });
        }
        if flags & FLAG_MICROMIPS != 0 || matches!(flags & FLAG_ARCH, ARCH_32R6 | ARCH_64R6) {
            return Err(ImageError::WrongIsa { flags });
        }
        let (entry, headers, count) = (f.u64(24), f.u64(32), f.u16(56));
        if count == 0 {
            return Err(ImageError::NoSegments);
        }
        if u64::from(f.u16(54)) != PROGRAM_HEADER_SIZE || count > MAX_PROGRAM_HEADERS {
            return Err(ImageError::Malformed { what: "its program header table" });
        }
        f.need("its program headers", table_end(headers, count, PROGRAM_HEADER_SIZE))?;
        let mut segments = Vec::new();
        for i in 0..u64::from(count) {
            if let Some(segment) = segment(&f, headers + i * PROGRAM_HEADER_SIZE, memory)? {
                segments.push(segment);
            }
        }
        if segments.is_empty() {
            return Err(ImageError::NoSegments);
        }
        // The section headers come last in the file: if they are there, nothing is cut off.
        let (sections, section_count) = (f.u64(40), f.u16(60));
        if sections != 0 && section_count != 0 {
            let end = table_end(sections, section_count, SECTION_HEADER_SIZE);
            f.need("its section headers", end)?;
        }
        no_overlap(&segments)?;
        let elf = Self { entry, segments };
        if !elf.can_enter() {
            return Err(ImageError::BadEntry { entry });
        }
        Ok(elf)
    }

    /// The CPU starts with 64-bit addressing off and an empty TLB: only KSEG0 and KSEG1 are there.
    fn can_enter(&self) -> bool {
        let in_kseg = (0xffff_ffff_8000_0000..0xffff_ffff_c000_0000).contains(&self.entry);
        let physical = self.entry & 0x1fff_ffff;
        in_kseg
            && self.entry.is_multiple_of(4)
            && self.segments.iter().any(|s| physical.wrapping_sub(s.gpa.0) < s.mem_len)
    }

    /// The offset into RAM behind the last segment that begins below `top`; 0: there is none.
    #[must_use]
    pub fn end_below(&self, top: u64) -> u64 {
        let below = self.segments.iter().filter(|s| s.ram < top);
        below.map(|s| s.ram + s.mem_len).max().unwrap_or(0)
    }

    /// A segment that covers any of the bytes `start..end` of RAM.
    #[must_use]
    pub fn covering(&self, start: u64, end: u64) -> Option<&Segment> {
        self.segments.iter().find(|s| s.ram < end && start < s.ram + s.mem_len)
    }
}

/// Checks the program header at `at`; `None`: nothing to load.
fn segment(f: &Fields<'_>, at: u64, memory: u64) -> Result<Option<Segment>, ImageError> {
    if f.u32(at) != PT_LOAD {
        return Ok(None);
    }
    let (file_offset, vaddr, paddr) = (f.u64(at + 8), f.u64(at + 16), f.u64(at + 24));
    let (file_len, mem_len) = (f.u64(at + 32), f.u64(at + 40));
    if file_len > mem_len {
        return Err(ImageError::Malformed {
            what: "a segment with more bytes in file than in memory",
        });
    }
    if mem_len == 0 {
        return Ok(None);
    }
    f.need("a segment", file_offset.checked_add(file_len))?;
    let start = physical(vaddr, paddr).ok_or(ImageError::BadAddress { vaddr })?;
    let end = start.saturating_add(mem_len);
    // Start and end must be in one run of RAM, not on two sides of the I/O hole.
    let (first, last) = (ram::offset(Gpa(start), memory), ram::offset(Gpa(end - 1), memory));
    match (first, last) {
        (Some(ram), Some(last)) if last.checked_sub(ram) == Some(mem_len - 1) => {
            Ok(Some(Segment { vaddr, gpa: Gpa(start), file_offset, file_len, mem_len, ram }))
        }
        _ => Err(ImageError::OutsideMemory { vaddr, end, memory }),
    }
}

fn no_overlap(segments: &[Segment]) -> Result<(), ImageError> {
    let mut sorted: Vec<&Segment> = segments.iter().collect();
    sorted.sort_by_key(|s| s.ram);
    for pair in sorted.windows(2) {
        if pair[0].ram + pair[0].mem_len > pair[1].ram {
            return Err(ImageError::Overlap { first: pair[0].vaddr, second: pair[1].vaddr });
        }
    }
    Ok(())
}
