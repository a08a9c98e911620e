//! Guest images: what is loaded where, and what the kernel finds when it starts.
//!
//! [`Plan::new`] is a pure function of the images and the memory's size, so that the host can refuse
//! at configuration time, with the same words, what the monitor would refuse at a VM's start.

pub mod elf;
pub mod error;
pub mod firmware;
#[cfg(test)]
pub(crate) mod tests;

use crate::board::ram;
use crate::endian::Endian;
use crate::mem::{Access, GuestMemory};
use abi::{Gpa, PAGE_SIZE};
use alloc::vec::Vec;
use elf::Elf;
pub use error::ImageError;
pub use firmware::Entry;

/// Least memory: the firmware's block and a little kernel.
const MEMORY_MIN: u64 = 1 << 20;
/// Room between an initial RAM disk and the top of low memory, where kernels put boot-time data.
const INITRD_GAP: u64 = 128 << 10;
/// Where an initial RAM disk begins is a multiple of the largest page that a kernel uses for it.
const INITRD_ALIGN: u64 = 64 << 10;

/// The files of a VM.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a> {
    /// The kernel: an ELF64 executable.
    pub kernel: &'a [u8],
    /// The initial RAM disk, if any.
    pub initrd: Option<&'a [u8]>,
    /// The kernel's command line.
    pub cmdline: &'a str,
}

/// Everything that loading will do, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    kernel: Elf,
    /// Where the initial RAM disk goes.
    initrd: Option<Gpa>,
    arguments: Vec<u8>,
    entry: Entry,
}

/// Whether a kernel is linked in a supervisor segment, wholly or in part: then its kernel mode can run in real
/// supervisor mode. (What is no kernel is not.)
#[must_use]
pub fn is_supervisor_linked(kernel: &[u8], endian: Endian, memory: u64) -> bool {
    Elf::parse(kernel, endian, memory).is_ok_and(|kernel| in_supervisor_segment(&kernel))
}

fn in_supervisor_segment(kernel: &Elf) -> bool {
    kernel.segments.iter().any(|segment| crate::direct::is_supervisor(segment.vaddr))
}

impl Plan {
    /// Checks the images of a VM with `memory` bytes of RAM. `seed` reaches the kernel's random
    /// number generator.
    ///
    /// # Errors
    /// With the first thing that is wrong.
    pub fn new(
        images: &Images<'_>,
        endian: Endian,
        memory: u64,
        seed: &[u8; 32],
    ) -> Result<Self, ImageError> {
        if !(MEMORY_MIN..=ram::MAX).contains(&memory) || !memory.is_multiple_of(PAGE_SIZE) {
            return Err(ImageError::MemorySize { memory });
        }
        let kernel = Elf::parse(images.kernel, endian, memory)?;
        if let Some(segment) = kernel.covering(firmware::BASE, firmware::BASE + firmware::SIZE) {
            return Err(ImageError::OverFirmware { vaddr: segment.vaddr });
        }
        let place = images.initrd.map(|file| place_initrd(file, &kernel, memory)).transpose()?;
        let line = firmware::command_line(images.cmdline, place)?;
        Ok(Self {
            entry: Entry::new(kernel.entry, memory),
            kernel,
            initrd: place.map(|(at, _)| Gpa(at)),
            arguments: firmware::block(endian, &line, memory, seed),
        })
    }

    /// The registers that the kernel starts with.
    #[must_use]
    pub fn entry(&self) -> Entry {
        self.entry
    }

    /// Whether the kernel is linked in a supervisor segment, wholly or in part: then its kernel mode can
    /// run in real supervisor mode.
    #[must_use]
    pub fn is_supervisor_linked(&self) -> bool {
        in_supervisor_segment(&self.kernel)
    }

    /// Copies the images, which must be those the plan was made of, into memory that is all zero.
    ///
    /// # Errors
    /// [`ImageError::NoMemory`] when a page is missing.
    pub fn load(&self, images: &Images<'_>, memory: &impl GuestMemory) -> Result<(), ImageError> {
        for s in &self.kernel.segments {
            let start = s.file_offset as usize;
            let bytes = images.kernel.get(start..start + s.file_len as usize).unwrap_or(&[]);
            copy(memory, s.gpa, bytes)?;
        }
        if let (Some(at), Some(bytes)) = (self.initrd, images.initrd) {
            copy(memory, at, bytes)?;
        }
        copy(memory, Gpa(firmware::BASE), &self.arguments)
    }
}

/// Where an initial RAM disk goes, and its length: as high as possible in the RAM at 0.
fn place_initrd(file: &[u8], kernel: &Elf, memory: u64) -> Result<(u64, u64), ImageError> {
    let len = file.len() as u64;
    if len == 0 {
        return Err(ImageError::EmptyInitrd);
    }
    let top = ram::low_size(memory).saturating_sub(INITRD_GAP);
    let at = top.saturating_sub(len) & !(INITRD_ALIGN - 1);
    let bottom = kernel.end_below(top).max(firmware::BASE + firmware::SIZE);
    if len > top || at < bottom {
        let room = top.saturating_sub(bottom) & !(INITRD_ALIGN - 1);
        return Err(ImageError::InitrdTooBig { len, room });
    }
    Ok((at, len))
}

fn copy(memory: &impl GuestMemory, at: Gpa, mut bytes: &[u8]) -> Result<(), ImageError> {
    let mut at = at;
    while !bytes.is_empty() {
        let page = memory.resolve(at, Access::Write).ok_or(ImageError::NoMemory { gpa: at.0 })?;
        let (now, later) = bytes.split_at(bytes.len().min((PAGE_SIZE - at.offset()) as usize));
        page.copy_in(at.offset(), now);
        at = Gpa(at.0 + now.len() as u64);
        bytes = later;
    }
    Ok(())
}
