//! Programs: one ELF file in the kernel's image holds them all; exec maps it into a new space.

use crate::cpu::Frame;
use crate::frames::PAGE;
use crate::lock::Kernel;
use crate::pages;
use irix_user::calls::{Error, PROGRAMS, STACK_TOP};

/// The file, on pages of its own: text and unwritten data are mapped from here.
#[repr(align(4096))]
struct Aligned<T: ?Sized>(T);
static FILE: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("IRIX_USER")));

/// Most bytes of exec's words.
pub const WORDS_MAX: usize = 512;

/// A segment: where it is mapped and from where.
#[derive(Clone, Copy)]
pub struct Segment {
    /// Its first page.
    pub start: u64,
    /// Where what the file fills ends.
    pub file_end: u64,
    /// Where it ends.
    pub end: u64,
    /// Where the kernel sees its first page, in the file.
    from: u64,
}

impl Segment {
    const EMPTY: Self = Self { start: 0, file_end: 0, end: 0, from: 0 };

    /// Whether `va` is in one of its pages.
    pub fn contains(&self, va: u64) -> bool {
        (self.start..self.end.next_multiple_of(PAGE)).contains(&va)
    }

    /// Where the kernel sees the page of the file for `page`.
    pub fn source(&self, page: u64) -> u64 {
        self.from + (page - self.start)
    }
}

/// What exec needs of the file.
pub struct Image {
    /// Text and constants.
    pub text: Segment,
    /// Data, and zeroes behind it.
    pub data: Segment,
    entry: u64,
}

/// A field of the file, in the machine's byte order.
fn field<const N: usize>(at: u64) -> [u8; N] {
    let at = at as usize;
    FILE.0[at..at + N].try_into().expect("N bytes")
}

impl Image {
    /// Before [`Image::read`].
    pub const EMPTY: Self = Self { text: Segment::EMPTY, data: Segment::EMPTY, entry: 0 };

    /// Reads the file's headers. It was built with this kernel: what is wrong with it is a bug.
    pub fn read() -> Self {
        const PF_X: u32 = 1;
        let word = |at| u64::from_ne_bytes(field(at));
        let mut image = Self { entry: word(24), ..Self::EMPTY };
        let (headers, count) = (word(32), u16::from_ne_bytes(field(56)));
        for header in (0..u64::from(count)).map(|i| headers + 56 * i) {
            let (offset, vaddr) = (word(header + 8), word(header + 16));
            assert!(offset % PAGE == 0 && vaddr % PAGE == 0, "a segment begins inside a page");
            let segment = Segment {
                start: vaddr,
                file_end: vaddr + word(header + 32),
                end: vaddr + word(header + 40),
                from: FILE.0.as_ptr() as u64 + offset,
            };
            if u32::from_ne_bytes(field(header + 4)) & PF_X != 0 {
                image.text = segment;
            } else {
                image.data = segment;
            }
        }
        image
    }
}

impl Kernel {
    /// A space in which the program that the first word names will run, its first registers, and its name.
    ///
    /// # Errors
    /// There is no such program, or no memory.
    pub fn load(&mut self, words: &[u8]) -> Result<(usize, Frame, [u8; 16]), Error> {
        let first = words.split(|&byte| byte == 0).next().unwrap_or(&[]);
        if words.last() != Some(&0) || !PROGRAMS.iter().any(|name| name.as_bytes() == first) {
            return Err(Error::NoEntry);
        }
        let space = self.spaces.create(&mut self.frames)?;
        // The words are the first thing on the stack, in one page.
        let at = STACK_TOP - (words.len() as u64).next_multiple_of(16);
        let heap = self.spaces[space].heap;
        let table = self.spaces[space].pages();
        let found = table.resolve(&mut self.frames, &self.spaces.image, heap, at, true);
        let seen = found.expect("the stack is there").seen;
        pages::copy(words.as_ptr() as u64, seen, words.len());
        let mut frame = Frame::new(self.spaces.image.entry);
        frame.regs[4] = at;
        frame.regs[5] = words.len() as u64;
        frame.regs[29] = at - 32;
        let mut name = [0; 16];
        name[..first.len().min(15)].copy_from_slice(&first[..first.len().min(15)]);
        Ok((space, frame, name))
    }

    /// Replaces the current process's program.
    ///
    /// # Errors
    /// As [`Kernel::load`]; the process goes on as it was.
    pub fn exec(&mut self, words: &[u8], frame: &mut Frame) -> Result<(), Error> {
        let (space, first, name) = self.load(words)?;
        *frame = first;
        let process = self.processes.current();
        process.name = name;
        process.catch = 0;
        let old = core::mem::replace(&mut process.space, space);
        self.spaces.leave(&mut self.frames, old);
        crate::asid::activate(&mut self.spaces, space);
        Ok(())
    }
}
