//! What a kernel finds when it starts: the contract of the board's firmware (YAMON) as QEMU's Malta
//! keeps it.
//!
//! `$a0` = 2, `$a1` = argv, `$a2` = envp, `$a3` = bytes of RAM at 0. The argument block is a table of
//! 32-bit KSEG0 pointers: name of the kernel, command line (these two are argv, without a NULL behind
//! them), then names and values of the environment in turn, then NULL.

use super::error::ImageError;
use crate::board::ram;
use crate::endian::Endian;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Guest-physical address of the argument block.
pub const BASE: u64 = 0x2000;
/// Most bytes of it.
pub const SIZE: u64 = 0x2000;
/// Most bytes of argv\[1\]: Linux keeps 4,096 with the NUL.
pub const COMMAND_LINE_MAX: usize = 4095;

const KSEG0: u64 = 0xffff_ffff_8000_0000;
/// argv and the environment's names and values, and the NULL.
const ENTRIES: usize = 11;

/// The general registers that firmware sets, at entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The program counter.
    pub pc: u64,
    /// `$a0` to `$a3`.
    pub args: [u64; 4],
    /// `$sp`.
    pub sp: u64,
}

impl Entry {
    /// The registers for a kernel that starts at `pc`.
    #[must_use]
    pub fn new(pc: u64, memory: u64) -> Self {
        let argv = KSEG0 + BASE;
        Self { pc, args: [2, argv, argv + 8, ram::low_size(memory)], sp: argv - 64 }
    }
}

/// A KSEG0 address.
#[must_use]
pub const fn kseg0(physical: u64) -> u64 {
    KSEG0 + physical
}

/// The command line as the kernel gets it: with where the initial RAM disk lies, if there is one.
///
/// # Errors
/// When it is too long, or contains a NUL.
pub fn command_line(cmdline: &str, initrd: Option<(u64, u64)>) -> Result<String, ImageError> {
    if cmdline.contains('\0') {
        return Err(ImageError::CommandLineNul);
    }
    let prefix = match initrd {
        Some((at, len)) => format!("rd_start={:#x} rd_size={len} ", kseg0(at)),
        None => String::new(),
    };
    let max = COMMAND_LINE_MAX - prefix.len();
    if cmdline.len() > max {
        return Err(ImageError::CommandLineTooLong { len: cmdline.len(), max });
    }
    Ok(prefix + cmdline)
}

/// The argument block. `seed` reaches the kernel's random number generator.
#[must_use]
pub fn block(endian: Endian, command_line: &str, memory: u64, seed: &[u8; 32]) -> Vec<u8> {
    let seed: String = seed.iter().map(|b| format!("{b:02x}")).collect();
    let strings: [String; ENTRIES - 1] = [
        "kernel".into(),
        command_line.into(),
        "memsize".into(),
        format!("{}", ram::low_size(memory)),
        "ememsize".into(),
        format!("{memory}"),
        "modetty0".into(),
        "38400n8r".into(),
        "rngseed".into(),
        seed,
    ];
    let mut table = Vec::new();
    let mut text = Vec::new();
    for s in &strings {
        let at = BASE + (ENTRIES * 4 + text.len()) as u64;
        table.extend(endian.bytes32(kseg0(at) as u32));
        text.extend(s.as_bytes());
        text.push(0);
    }
    table.extend([0; 4]);
    table.extend(text);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Follows the pointers as a kernel does.
    fn strings(endian: Endian, block: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        for i in 0.. {
            let pointer = endian.u32(block[4 * i..4 * i + 4].try_into().unwrap());
            if pointer == 0 {
                return found;
            }
            let at = (u64::from(pointer) - 0x8000_0000 - BASE) as usize;
            let end = at + block[at..].iter().position(|&b| b == 0).unwrap();
            found.push(String::from_utf8(block[at..end].to_vec()).unwrap());
        }
        unreachable!()
    }

    #[test]
    fn kernel_finds_its_arguments() {
        for endian in [Endian::Little, Endian::Big] {
            let line = command_line("console=ttyS0", Some((0x7d9_0000, 1234))).unwrap();
            let found = strings(endian, &block(endian, &line, 512 << 20, &[0xab; 32]));
            assert_eq!(found[1], "rd_start=0xffffffff87d90000 rd_size=1234 console=ttyS0");
            assert_eq!(found[2..4], ["memsize", "268435456"]);
            assert_eq!(found[4..6], ["ememsize", "536870912"]);
            assert_eq!(found[6..8], ["modetty0", "38400n8r"]);
            assert_eq!(found[9], "ab".repeat(32));
        }
    }

    #[test]
    fn the_longest_command_line_fits_the_block() {
        let longest = "x".repeat(COMMAND_LINE_MAX);
        let line = command_line(&longest, None).unwrap();
        assert!(block(Endian::Little, &line, 2 << 30, &[0; 32]).len() as u64 <= SIZE);
        let with_initrd = command_line(&longest, Some((0xfff_0000, 250 << 20)));
        assert!(matches!(with_initrd, Err(ImageError::CommandLineTooLong { .. })));
        assert_eq!(command_line("a\0b", None), Err(ImageError::CommandLineNul));
    }

    #[test]
    fn registers_at_entry() {
        let entry = Entry::new(0xffff_ffff_8010_0000, 512 << 20);
        assert_eq!(
            entry.args,
            [2, 0xffff_ffff_8000_2000, 0xffff_ffff_8000_2008, 0x1000_0000],
            "memory at 0 ends at 256 MB"
        );
        assert!(entry.sp < entry.args[1]);
    }
}
