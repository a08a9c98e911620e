//! Pipes: a page each.

use crate::frames::{PAGE, Pfn};
use crate::lock::Kernel;
use crate::pages;
use crate::process::File;
use crate::sched::Event;
use irix_user::calls::{Error, SIGPIPE};

/// Most pipes.
const PIPES_MAX: usize = 32;

/// A pipe.
#[derive(Clone, Copy)]
struct Pipe {
    /// Its buffer; `None`: the slot is free.
    buffer: Option<Pfn>,
    /// Bytes ever read and written.
    read: u64,
    written: u64,
    /// Open ends.
    readers: u32,
    writers: u32,
}

/// All pipes.
pub struct Pipes([Pipe; PIPES_MAX]);

impl Pipes {
    /// None.
    pub const EMPTY: Self =
        Self([Pipe { buffer: None, read: 0, written: 0, readers: 0, writers: 0 }; PIPES_MAX]);

    /// One more process has the file.
    pub fn opened(&mut self, file: File) {
        match file {
            File::Reader(pipe) => self.0[pipe].readers += 1,
            File::Writer(pipe) => self.0[pipe].writers += 1,
            File::Closed | File::Console => {}
        }
    }
}

impl Kernel {
    /// A new pipe; both its ends are to be opened.
    ///
    /// # Errors
    /// There are too many, or there is no memory.
    pub fn pipe(&mut self) -> Result<usize, Error> {
        let slot =
            self.pipes.0.iter().position(|pipe| pipe.buffer.is_none()).ok_or(Error::Again)?;
        self.frames.reserve(1)?;
        self.pipes.0[slot] =
            Pipe { buffer: Some(self.frames.take()), read: 0, written: 0, readers: 1, writers: 1 };
        Ok(slot)
    }

    /// One process less has the file.
    pub fn close(&mut self, file: File) {
        let slot = match file {
            File::Reader(slot) => {
                self.pipes.0[slot].readers -= 1;
                slot
            }
            File::Writer(slot) => {
                self.pipes.0[slot].writers -= 1;
                slot
            }
            File::Closed | File::Console => return,
        };
        let pipe = &mut self.pipes.0[slot];
        if pipe.readers + pipe.writers == 0 {
            if let Some(buffer) = pipe.buffer.take() {
                self.frames.release(buffer);
                self.frames.unreserve(1);
            }
        } else {
            self.wake(Event::Pipe(slot));
        }
    }

    /// Where byte number `at` of a pipe is kept, and how many may follow it.
    fn place(&self, slot: usize, at: u64) -> (u64, u64) {
        let buffer = self.pipes.0[slot].buffer.expect("an open pipe has a buffer");
        (buffer.address() + at % PAGE, PAGE - at % PAGE)
    }

    /// Reads into the current process's memory what there is, at most `len` bytes; waits for the first.
    ///
    /// # Errors
    /// The memory is not there, or a signal came first.
    pub fn read_pipe(&mut self, slot: usize, va: u64, len: u64) -> Result<u64, Error> {
        loop {
            let Pipe { read, written, writers, .. } = self.pipes.0[slot];
            if read == written && writers > 0 && len > 0 {
                self.sleep(Event::Pipe(slot))?;
                continue;
            }
            let len = len.min(written - read);
            self.user(va, len, true, |kernel, seen, done, now| {
                let mut moved = 0;
                while moved < now as u64 {
                    let (from, most) = kernel.place(slot, read + done + moved);
                    let some = most.min(now as u64 - moved);
                    pages::copy(from, seen + moved, some as usize);
                    moved += some;
                }
                Ok(())
            })?;
            self.pipes.0[slot].read += len;
            self.wake(Event::Pipe(slot));
            return Ok(len);
        }
    }

    /// Writes all of the current process's bytes.
    ///
    /// # Errors
    /// The memory is not there, nobody reads any more, or a signal came first.
    pub fn write_pipe(&mut self, slot: usize, va: u64, len: u64) -> Result<u64, Error> {
        let mut done = 0;
        while done < len {
            let Pipe { read, written, readers, .. } = self.pipes.0[slot];
            if readers == 0 {
                self.signal(crate::cpu::pda().process, SIGPIPE);
                return Err(Error::Interrupted);
            }
            let free = PAGE - (written - read);
            if free == 0 {
                self.sleep(Event::Pipe(slot))?;
                continue;
            }
            // Looked up anew each time: while this process slept, another one of its share group may
            // have given the page back.
            let at = va.checked_add(done).ok_or(Error::Fault)?;
            let seen = self.resolve(at, false)?;
            let (to, most) = self.place(slot, written);
            let some = most.min(free).min(len - done).min(PAGE - at % PAGE);
            pages::copy(seen, to, some as usize);
            self.pipes.0[slot].written += some;
            self.wake(Event::Pipe(slot));
            done += some;
        }
        Ok(len)
    }
}
