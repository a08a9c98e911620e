//! Why an image can't be loaded.

use crate::endian::Endian;
use core::fmt;

const MB: u64 = 1 << 20;

/// Why a kernel, an initial RAM disk or a command line can't be loaded. Each displays as one line that
/// names cause and remedy; the caller adds the file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageError {
    /// Memory size that the board can't have.
    MemorySize {
        /// Bytes asked for.
        memory: u64,
    },
    /// The kernel does not begin as an ELF file does.
    NotElf,
    /// The file ends before something that its headers declare.
    Truncated {
        /// What lies beyond the end.
        what: &'static str,
        /// Bytes needed.
        need: u64,
        /// Bytes there.
        have: u64,
    },
    /// A 32-bit ELF file.
    Elf32,
    /// The kernel's byte order is not the VM's.
    WrongEndian {
        /// The kernel's.
        kernel: Endian,
    },
    /// For another processor family.
    WrongMachine {
        /// `e_machine`.
        machine: u16,
    },
    /// For MIPS release 6 or microMIPS.
    WrongIsa {
        /// `e_flags`.
        flags: u32,
    },
    /// Not a linked executable (`ET_EXEC`).
    NotExecutable {
        /// `e_type`.
        kind: u16,
    },
    /// A header with a value that no linker writes.
    Malformed {
        /// Which value.
        what: &'static str,
    },
    /// Nothing to load.
    NoSegments,
    /// A segment at an address that kernel code can't run or load at.
    BadAddress {
        /// Virtual address of the segment.
        vaddr: u64,
    },
    /// A segment that is not wholly in RAM.
    OutsideMemory {
        /// Virtual address of the segment.
        vaddr: u64,
        /// First physical address behind it.
        end: u64,
        /// Bytes of RAM.
        memory: u64,
    },
    /// Two segments claim one byte of RAM.
    Overlap {
        /// Virtual address of one.
        first: u64,
        /// Virtual address of the other.
        second: u64,
    },
    /// A segment lies over the firmware's argument block.
    OverFirmware {
        /// Virtual address of the segment.
        vaddr: u64,
    },
    /// Execution would begin outside of what is loaded, or where code can't run at reset.
    BadEntry {
        /// The entry point.
        entry: u64,
    },
    /// The initial RAM disk is an empty file.
    EmptyInitrd,
    /// The initial RAM disk does not fit above the kernel.
    InitrdTooBig {
        /// Its bytes.
        len: u64,
        /// Bytes that would fit.
        room: u64,
    },
    /// The command line is too long.
    CommandLineTooLong {
        /// Its bytes.
        len: usize,
        /// Most bytes.
        max: usize,
    },
    /// The command line contains a NUL.
    CommandLineNul,
    /// The owner of the VM's memory has no page for an address that should be RAM.
    NoMemory {
        /// The guest-physical address.
        gpa: u64,
    },
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::MemorySize { memory } => write!(
                f,
                "{memory} bytes of memory are not a multiple of 4 KB between 1 MB and 2 GB: choose \
                 such a size"
            ),
            Self::NotElf => f.write_str(
                "not an ELF file: give a kernel's vmlinux or vmlinuz (a compressed raw image must be \
                 unpacked and wrapped first)",
            ),
            Self::Truncated { what, need, have } => write!(
                f,
                "truncated: its headers declare {need} bytes (up to the end of {what}), the file has \
                 {have}: fetch or copy it again"
            ),
            Self::Elf32 => {
                f.write_str("a 32-bit ELF file: give a 64-bit (MIPS64, n64) kernel")
            }
            Self::WrongEndian { kernel } => write!(
                f,
                "a {kernel} kernel in a virtual machine of the other byte order: choose the machine's \
                 endianness to match"
            ),
            Self::WrongMachine { machine } => {
                write!(f, "an ELF file for machine {machine}, not MIPS (8): give a MIPS64 kernel")
            }
            Self::WrongIsa { flags } => write!(
                f,
                "built for MIPS release 6 or microMIPS (flags {flags:#010x}): give a kernel for MIPS64 \
                 release 2 or older"
            ),
            Self::NotExecutable { kind } => write!(
                f,
                "an ELF file of type {kind}, not a linked executable (2): give the linked kernel, not \
                 an object, a module or a core"
            ),
            Self::Malformed { what } => {
                write!(f, "a damaged ELF file: {what}: fetch or link it again")
            }
            Self::NoSegments => f.write_str(
                "no PT_LOAD segment, so nothing to load: give the linked kernel, not its symbols",
            ),
            Self::BadAddress { vaddr } => write!(
                f,
                "its segment at {vaddr:#x} is in user space: link the kernel in KSEG0, XKPHYS or a \
                 mapped kernel segment"
            ),
            Self::OutsideMemory { vaddr, end, memory } => write!(
                f,
                "its segment at {vaddr:#x} ends at physical {end:#x}, outside of {} MB of memory: give \
                 the virtual machine more, or link the kernel lower",
                memory / MB
            ),
            Self::Overlap { first, second } => write!(
                f,
                "its segments at {first:#x} and {second:#x} overlap in memory: link it again"
            ),
            Self::OverFirmware { vaddr } => write!(
                f,
                "its segment at {vaddr:#x} covers the firmware's arguments (physical {:#x} to {:#x}): \
                 link it elsewhere",
                super::firmware::BASE,
                super::firmware::BASE + super::firmware::SIZE
            ),
            Self::BadEntry { entry } => write!(
                f,
                "its entry point {entry:#x} is not an instruction's address in a loaded segment in \
                 KSEG0 or KSEG1: link it again"
            ),
            Self::EmptyInitrd => f.write_str("an empty initial RAM disk: give a cpio archive or none"),
            Self::InitrdTooBig { len, room } => write!(
                f,
                "an initial RAM disk of {len} bytes, but only {room} fit between the kernel and the \
                 top of low memory: give the virtual machine more memory (up to 256 MB count) or \
                 shrink it"
            ),
            Self::CommandLineTooLong { len, max } => {
                write!(f, "a command line of {len} bytes, of at most {max}: shorten it")
            }
            Self::CommandLineNul => f.write_str("a NUL in the command line: remove it"),
            Self::NoMemory { gpa } => write!(
                f,
                "no memory behind guest-physical {gpa:#x}: free some, or give the virtual machine less"
            ),
        }
    }
}

impl core::error::Error for ImageError {}
