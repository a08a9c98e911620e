//! Takes the kernel out of a self-extracting one.
//!
//! A MIPS `vmlinuz` is a small program with a compressed raw image in it (Linux,
//! arch/mips/boot/compressed). It unpacks the image to a fixed address and jumps to a fixed entry:
//! both are constants in its code, and are read from there. The image carries no header, so how
//! much memory it clears beyond its end (`.bss`) is read from the code at its entry. What is found
//! has to fit together: where the image ends, its `.bss` begins.
//!
//! The image is then wrapped, unchanged, as the one segment of an ELF without sections.

use lzma_rust2::XzReader;
use object::elf;
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::{Endian as _, Endianness};
use std::io::Read as _;

/// An unpacked kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The raw image.
    pub image: Vec<u8>,
    /// Virtual address of its first byte.
    pub load: u64,
    /// Virtual address where it is entered.
    pub entry: u64,
    /// Bytes of memory it takes, with `.bss`.
    pub memory: u64,
    /// The flags of the ELF it comes from (architecture revision and ABI).
    flags: u32,
    endian: Endianness,
}

/// No kernel unpacks to more: a damaged length must not eat the host's memory.
const LARGEST: u64 = 256 << 20;

/// How far the end of an image may be from the `.bss` that follows it: that is aligned to at most
/// the largest page size that Linux supports on MIPS.
const BSS_ALIGNMENT: u64 = 64 << 10;

/// What every XZ stream begins with.
const XZ_MAGIC: &[u8] = b"\xfd7zXZ\0";

/// How many instructions are looked at from an entry on.
const LOOK_AHEAD: usize = 64;

/// Unpacks a `vmlinuz`.
///
/// # Errors
/// One line: what it lacks of being a self-extracting 64-bit MIPS kernel with an XZ payload.
pub fn extract(file: &[u8]) -> Result<Kernel, String> {
    let wrong = |error: object::read::Error| format!("it is no sound 64-bit ELF: {error}");
    let header = elf::FileHeader64::<Endianness>::parse(file).map_err(wrong)?;
    let endian = header.endian().map_err(wrong)?;
    if header.e_machine(endian) != elf::EM_MIPS {
        return Err("it is not for MIPS".into());
    }
    let segments = header.program_headers(endian, file).map_err(wrong)?;
    let mut loads = segments.iter().filter(|one| one.p_type(endian) == elf::PT_LOAD);
    let (Some(segment), None) = (loads.next(), loads.next()) else {
        return Err("a self-extracting kernel has exactly one segment to load".into());
    };
    let bytes = segment
        .data(endian, file)
        .map_err(|()| "the file is shorter than its segment".to_owned())?;
    let start = segment.p_vaddr(endian);
    let end = start.wrapping_add(segment.p_memsz(endian));

    let (at, image) = payload(bytes)?;
    let words = |bytes: &[u8]| -> Vec<u32> {
        let word = |chunk: &[u8]| endian.read_u32(chunk.try_into().expect("4 bytes"));
        bytes.chunks_exact(4).map(word).collect()
    };
    let offset = usize::try_from(header.e_entry(endian).wrapping_sub(start)).unwrap_or(usize::MAX);
    let code = bytes.get(offset..).ok_or("its entry is outside its segment")?;
    let entry = jumps(&words(code))
        .into_iter()
        .find(|target| !(start..end).contains(target))
        .ok_or("it does not jump to an unpacked kernel")?;

    let size = image.len() as u64;
    let mut found = Vec::new();
    for load in upper_constants(&words(&bytes[..at])) {
        let into = entry.wrapping_sub(load);
        let Some(code) = usize::try_from(into).ok().and_then(|into| image.get(into..)) else {
            continue;
        };
        let Some((bss, bss_end)) = cleared_memory(&words(code)) else { continue };
        let gap = bss.wrapping_sub(load.wrapping_add(size));
        if gap < BSS_ALIGNMENT && bss_end > bss {
            found.push((load, bss_end - load));
        }
    }
    found.dedup();
    match found[..] {
        [(load, memory)] => {
            let flags = header.e_flags(endian).0;
            Ok(Kernel { image, load, entry, memory, flags, endian })
        }
        [] => Err("none of its constants is an address at which its payload makes sense".into()),
        _ => Err("several of its constants are addresses at which its payload makes sense".into()),
    }
}

/// Finds and unpacks the XZ stream; returns also where it begins. The program compares with the
/// magic number too, so that the first one found need not be a stream.
fn payload(bytes: &[u8]) -> Result<(usize, Vec<u8>), String> {
    let is_magic = |at: &usize| bytes[*at..].starts_with(XZ_MAGIC);
    let mut last = "it has no XZ payload".to_owned();
    for at in (0..bytes.len()).filter(is_magic) {
        let mut image = Vec::new();
        let unpacked = XzReader::new(&bytes[at..], false).take(LARGEST).read_to_end(&mut image);
        match unpacked {
            Ok(_) if !image.is_empty() && (image.len() as u64) < LARGEST => return Ok((at, image)),
            Ok(_) => last = "its payload has an unlikely size".into(),
            Err(error) => last = format!("its XZ payload is damaged: {error}"),
        }
    }
    Err(last)
}

/// The general registers as far as constants in them are known.
#[derive(Default)]
struct Known([Option<u64>; 32]);

impl Known {
    /// Follows one instruction: the pairs that make an address, `lui` with `ori`, `addiu` or
    /// `daddiu`. Returns false for any other instruction, which changes nothing here: the code
    /// looked at does not reuse a register in between.
    fn follow(&mut self, word: u32) -> bool {
        let (rs, rt) = (field(word, 21), field(word, 16));
        let low = u64::from(word & 0xffff);
        let value = match word >> 26 {
            // Sign extension is part of the architecture: lui fills the upper half too.
            0x0f => Some(sign_extend(low << 16, 32)),
            0x0d => self.0[rs].map(|base| base | low),
            0x09 | 0x19 => self.0[rs].map(|base| base.wrapping_add(sign_extend(low, 16))),
            _ => return false,
        };
        self.0[rt] = value;
        true
    }
}

/// A five-bit register field.
fn field(word: u32, shift: u32) -> usize {
    (word >> shift & 31) as usize
}

/// Extends the sign of a number of that many bits.
fn sign_extend(value: u64, bits: u32) -> u64 {
    (value << (64 - bits)).cast_signed().wrapping_shr(64 - bits).cast_unsigned()
}

/// The addresses that code jumps to through a register (`jr`, `jalr`) near its beginning.
fn jumps(code: &[u32]) -> Vec<u64> {
    let mut known = Known::default();
    let mut targets = Vec::new();
    for word in code.iter().take(LOOK_AHEAD) {
        let is_jump = word >> 26 == 0 && matches!(word & 63, 8 | 9);
        if !known.follow(*word) && is_jump {
            targets.extend(known.0[field(*word, 21)]);
        }
    }
    targets
}

/// All addresses that code names by their upper half alone.
fn upper_constants(code: &[u32]) -> Vec<u64> {
    let is_lui = |word: &&u32| **word >> 21 == 0x0f << 5;
    let mut found: Vec<u64> = code
        .iter()
        .filter(is_lui)
        .map(|word| sign_extend(u64::from(*word & 0xffff) << 16, 32))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The memory that a kernel clears at its entry: from the first store of zero to the address that
/// its loop compares with.
fn cleared_memory(code: &[u32]) -> Option<(u64, u64)> {
    let mut known = Known::default();
    let mut begin = None;
    for word in code.iter().take(LOOK_AHEAD) {
        let (rs, rt) = (field(*word, 21), field(*word, 16));
        match (word >> 26, begin) {
            // sw or sd of register 0.
            (0x2b | 0x3f, None) if rt == 0 => {
                let bytes = if word >> 26 == 0x3f { 8 } else { 4 };
                let address = known.0[rs]?.wrapping_add(sign_extend(u64::from(word & 0xffff), 16));
                begin = Some((address, bytes));
            }
            // bne: the register that has run on from the beginning is one of the two.
            (0x05, Some((begin, bytes))) => {
                let last = [rs, rt].iter().filter_map(|register| known.0[*register]).max()?;
                return Some((begin, last.wrapping_add(bytes)));
            }
            _ => {
                known.follow(*word);
            }
        }
    }
    None
}

impl Kernel {
    /// Where the image lies in the file that [`Self::wrap`] makes. A page, as loaders like it.
    pub const IMAGE_OFFSET: u64 = 0x1000;

    /// The kernel as an ELF with one segment and no sections.
    pub fn wrap(&self) -> Vec<u8> {
        let mut file =
            Elf { bytes: Vec::with_capacity(self.image.len() + 0x1000), endian: self.endian };
        let data =
            if self.endian == Endianness::Little { elf::ELFDATA2LSB.0 } else { elf::ELFDATA2MSB.0 };
        file.bytes.extend([0x7f, b'E', b'L', b'F', elf::ELFCLASS64.0, data, elf::EV_CURRENT.0, 0]);
        file.bytes.resize(16, 0);
        file.half(elf::ET_EXEC.0);
        file.half(elf::EM_MIPS.0);
        file.word(1);
        file.long(self.entry);
        file.long(64); // The program header follows this one.
        file.long(0);
        file.word(self.flags);
        for value in [64, 56, 1, 0, 0, 0] {
            file.half(value);
        }
        file.word(elf::PT_LOAD.0);
        file.word((elf::PF_R | elf::PF_W | elf::PF_X).0);
        let size = self.image.len() as u64;
        for value in
            [Self::IMAGE_OFFSET, self.load, self.load, size, self.memory, Self::IMAGE_OFFSET]
        {
            file.long(value);
        }
        file.bytes.resize(0x1000, 0);
        file.bytes.extend(&self.image);
        file.bytes
    }
}

/// A file that numbers are appended to in its own byte order.
struct Elf {
    bytes: Vec<u8>,
    endian: Endianness,
}

impl Elf {
    fn half(&mut self, value: u16) {
        self.bytes.extend(self.endian.write_u16(value));
    }

    fn word(&mut self, value: u32) {
        self.bytes.extend(self.endian.write_u32(value));
    }

    fn long(&mut self, value: u64) {
        self.bytes.extend(self.endian.write_u64(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: u32 = 0x8010_0000;
    const SIZE: usize = 0x2000;

    fn lui(register: u32, value: u32) -> u32 {
        0x0f << 26 | register << 16 | value >> 16
    }

    fn ori(register: u32, value: u32) -> u32 {
        0x0d << 26 | register << 21 | register << 16 | value & 0xffff
    }

    fn daddiu(register: u32, value: u32) -> u32 {
        0x19 << 26 | register << 21 | register << 16 | value & 0xffff
    }

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// A raw image whose entry, at 0x100, clears `.bss` from `bss` to `bss` + 0x800.
    fn image(bss: u32) -> Vec<u8> {
        let mut image = vec![0xa5; SIZE];
        let code = bytes(&[
            0x400c_6000, // mfc0 t0, Status
            lui(12, bss),
            daddiu(12, bss),
            0x3f << 26 | 12 << 21, // sd zero, 0(t0)
            lui(13, bss),
            daddiu(13, bss + 0x7f8),
            daddiu(12, 8),
            0x3f << 26 | 12 << 21,
            0x05 << 26 | 12 << 21 | 13 << 16 | 0xfffd, // bne t0, t1, -3
        ]);
        image[0x100..0x100 + code.len()].copy_from_slice(&code);
        image
    }

    /// A self-extracting kernel: code, the magic number it compares with, and the payload.
    fn vmlinuz(payload: &[u8]) -> Vec<u8> {
        let jump = |register: u32, function: u32| register << 21 | function;
        let mut segment = bytes(&[
            lui(25, 0x8126_0000),
            daddiu(25, 0x11c8),
            jump(25, 9) | 31 << 11, // jalr: the unpacking, inside the segment
            0,
            lui(25, LOAD),
            ori(25, LOAD + 0x100),
            jump(25, 8), // jr: the kernel
            0,
            lui(2, LOAD),
            lui(3, 0x8181_0000),
        ]);
        segment.extend(XZ_MAGIC);
        segment.extend([0; 10]);
        segment.extend(payload);
        segment.extend([0; 64]);
        let shell = Kernel {
            image: segment,
            load: 0xffff_ffff_8126_0000,
            entry: 0xffff_ffff_8126_0000,
            memory: 0x9_0000,
            flags: 0x8000_0001,
            endian: Endianness::Little,
        };
        shell.wrap()
    }

    fn xz(contents: &[u8]) -> Vec<u8> {
        let options = lzma_rust2::XzOptions::with_preset(1);
        let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
        std::io::Write::write_all(&mut writer, contents).unwrap();
        writer.finish().unwrap()
    }

    /// Where `.bss` begins if it is aligned to 64 KB.
    const BSS: u32 = 0x8011_0000;

    #[test]
    fn load_address_entry_and_memory_are_read_from_the_code() {
        let kernel = extract(&vmlinuz(&xz(&image(BSS)))).unwrap();
        assert_eq!(kernel.load, 0xffff_ffff_8010_0000);
        assert_eq!(kernel.entry, 0xffff_ffff_8010_0100);
        assert_eq!(kernel.memory, 0x1_0800);
        assert_eq!(kernel.image, image(BSS));
    }

    #[test]
    fn the_wrapped_kernel_has_one_segment_unchanged_and_no_sections() {
        let kernel = extract(&vmlinuz(&xz(&image(BSS)))).unwrap();
        let file = kernel.wrap();
        let header = elf::FileHeader64::<Endianness>::parse(&*file).unwrap();
        let endian = header.endian().unwrap();
        assert_eq!(header.e_entry(endian), kernel.entry);
        assert_eq!((header.e_shnum(endian), header.e_shoff(endian)), (0, 0));
        assert_eq!(header.e_flags(endian).0, 0x8000_0001);
        let segments = header.program_headers(endian, &*file).unwrap();
        let [segment] = segments else { panic!("{} segments", segments.len()) };
        assert_eq!(segment.data(endian, &*file).unwrap(), kernel.image);
        assert_eq!(segment.p_vaddr(endian), kernel.load);
        assert_eq!(segment.p_memsz(endian), kernel.memory);
        assert_eq!(segment.p_vaddr(endian) % segment.p_align(endian), 0);
    }

    #[test]
    fn an_image_that_does_not_fit_its_bss_is_refused() {
        for bss in [BSS + 0x2_0000, LOAD] {
            let reason = extract(&vmlinuz(&xz(&image(bss)))).unwrap_err();
            assert!(reason.contains("none of its constants"), "{reason}");
        }
    }

    #[test]
    fn what_is_no_self_extracting_kernel_is_refused() {
        let good = vmlinuz(&xz(&image(BSS)));
        let mut damaged = xz(&image(BSS));
        damaged[40] ^= 1;
        for (file, message) in [
            (Vec::new(), "no sound 64-bit ELF"),
            (b"\x7fELF\x01\x01\x01".to_vec(), "no sound 64-bit ELF"),
            (good[..good.len() - 100].to_vec(), "shorter than its segment"),
            (vmlinuz(b""), "payload is damaged"),
            (vmlinuz(&damaged), "payload is damaged"),
            ([&good[..18], &[0x3e], &good[19..]].concat(), "not for MIPS"),
            (extract(&good).unwrap().wrap(), "has no XZ payload"),
        ] {
            let reason = extract(&file).unwrap_err();
            assert!(reason.contains(message), "{message}: {reason}");
        }
    }
}
