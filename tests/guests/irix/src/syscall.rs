//! System calls.

use crate::console;
use crate::cpu::{self, Frame};
use crate::exec::WORDS_MAX;
use crate::lock::Kernel;
use crate::process::{FILES_MAX, File, PROCESSES_MAX, State};
use crate::sched::Event;
use crate::smp;
use irix_user::calls::{self, Error, Record, USER_END};

/// Does the call that the frame asks for, and puts its result there.
pub fn call(kernel: &mut Kernel, frame: &mut Frame) {
    frame.epc += 4;
    let result = dispatch(kernel, frame);
    match result {
        Ok(Some(value)) => frame.regs[2] = value,
        // exec: all registers are new.
        Ok(None) => {}
        Err(error) => frame.regs[2] = (error as u64).wrapping_neg(),
    }
}

fn dispatch(kernel: &mut Kernel, frame: &mut Frame) -> Result<Option<u64>, Error> {
    let [a, b, c] = [frame.regs[4], frame.regs[5], frame.regs[6]];
    let slot = cpu::pda().process;
    let value = match frame.regs[2] {
        calls::EXIT => kernel.exit((a as u32 & 0xff) << 8),
        calls::FORK => {
            let mut child = frame.clone();
            child.regs[2] = 0;
            u64::from(kernel.fork(&child, false)?)
        }
        calls::SPROC => {
            let mut child = Frame::new(aligned(a)?);
            child.regs[29] = b & !15;
            child.regs[4] = c;
            u64::from(kernel.fork(&child, true)?)
        }
        calls::READ => read(kernel, a, b, c)?,
        calls::WRITE => write(kernel, a, b, c)?,
        calls::CLOSE => {
            let file = core::mem::replace(file(kernel, a)?, File::Closed);
            kernel.close(file);
            0
        }
        calls::WAIT => kernel.wait(a as u32)?,
        calls::SBRK => {
            let space = kernel.processes[slot].space;
            kernel.spaces.sbrk(&mut kernel.frames, space, a as i64)?
        }
        calls::GETPID => u64::from(kernel.processes[slot].pid),
        calls::KILL => {
            let target = kernel.processes.find(a as u32).ok_or(Error::NoProcess)?;
            if target == crate::process::INIT || !(1..64).contains(&b) {
                return Err(Error::Invalid);
            }
            kernel.signal(target, b as u32);
            0
        }
        calls::SETPGRP => {
            let process = &mut kernel.processes[slot];
            process.group = if a == 0 { process.pid } else { a as u32 };
            0
        }
        calls::FOREGROUND => {
            kernel.console.foreground = a as u32;
            0
        }
        calls::PIPE => pipe(kernel)?,
        calls::EXEC => {
            let mut words = [0; WORDS_MAX];
            let words = words.get_mut(..b as usize).ok_or(Error::TooBig)?;
            kernel.copy_in(a, words)?;
            kernel.exec(words, frame)?;
            return Ok(None);
        }
        calls::CATCH => {
            kernel.processes[slot].catch = aligned(a)?;
            0
        }
        calls::PS => ps(kernel, a, b)?,
        calls::CPUS => u64::from(smp::online()),
        calls::YIELD => {
            kernel.give_way();
            0
        }
        calls::DOZE => {
            kernel.dozing = true;
            kernel.sleep(Event::Tick)?;
            0
        }
        calls::LINKED => crate::linked::all(),
        calls::UADMIN => match a {
            calls::ADMIN_OFF => cpu::power_off(),
            calls::ADMIN_PANIC => {
                let mut text = [0; 64];
                let text = text.get_mut(..c as usize).ok_or(Error::Invalid)?;
                kernel.copy_in(b, text)?;
                panic!("{}", core::str::from_utf8(text).unwrap_or("?"));
            }
            _ => return Err(Error::Invalid),
        },
        _ => return Err(Error::NoCall),
    };
    Ok(Some(value))
}

/// An address where a program can go on. (A jump to another would be a fault of the kernel's own.)
fn aligned(address: u64) -> Result<u64, Error> {
    if address % 4 != 0 || address >= USER_END { Err(Error::Invalid) } else { Ok(address) }
}

fn file(kernel: &mut Kernel, fd: u64) -> Result<&mut File, Error> {
    let file = kernel.processes.current().files.get_mut(fd as usize);
    file.filter(|file| **file != File::Closed).ok_or(Error::BadFile)
}

fn pipe(kernel: &mut Kernel) -> Result<u64, Error> {
    let closed = |kernel: &mut Kernel| {
        let files = &kernel.processes.current().files;
        let mut free = (0..FILES_MAX).filter(|&fd| files[fd] == File::Closed);
        Some((free.next()?, free.next()?))
    };
    let (reader, writer) = closed(kernel).ok_or(Error::TooManyFiles)?;
    let pipe = kernel.pipe()?;
    let files = &mut kernel.processes.current().files;
    files[reader] = File::Reader(pipe);
    files[writer] = File::Writer(pipe);
    Ok(reader as u64 | (writer as u64) << 32)
}

fn read(kernel: &mut Kernel, fd: u64, va: u64, len: u64) -> Result<u64, Error> {
    match *file(kernel, fd)? {
        File::Reader(pipe) => kernel.read_pipe(pipe, va, len),
        File::Console => {
            let mut line = [0; 128];
            let wanted = len.min(line.len() as u64) as usize;
            loop {
                if let Some(len) = kernel.console.take(&mut line[..wanted]) {
                    kernel.copy_out(va, &line[..len])?;
                    return Ok(len as u64);
                }
                kernel.sleep(Event::Line)?;
            }
        }
        File::Writer(_) | File::Closed => Err(Error::BadFile),
    }
}

fn write(kernel: &mut Kernel, fd: u64, va: u64, len: u64) -> Result<u64, Error> {
    match *file(kernel, fd)? {
        File::Writer(pipe) => kernel.write_pipe(pipe, va, len),
        File::Console => {
            kernel.user(va, len, false, |_, seen, _, now| {
                // SAFETY: a resolved piece of the process's memory, which the lock keeps in place.
                let bytes = unsafe { core::slice::from_raw_parts(seen as *const u8, now) };
                bytes.iter().copied().for_each(console::put);
                Ok(())
            })?;
            Ok(len)
        }
        File::Reader(_) | File::Closed => Err(Error::BadFile),
    }
}

/// Fills in the record of the `index`th process.
fn ps(kernel: &mut Kernel, index: u64, va: u64) -> Result<u64, Error> {
    let mut slots = (0..PROCESSES_MAX).filter(|&s| kernel.processes[s].state != State::Free);
    let Some(slot) = slots.nth(index as usize) else { return Ok(0) };
    let process = &kernel.processes[slot];
    let state = match process.state {
        State::Zombie => b'Z',
        State::Asleep(_) => b'S',
        State::Free | State::Ready | State::Running => b'R',
    };
    let pages = match process.state {
        State::Zombie => 0,
        _ => kernel.spaces[process.space].reserved,
    };
    let record = Record {
        pid: process.pid,
        parent: kernel.processes[process.parent].pid,
        state: u32::from(state),
        pages,
        name: process.name,
    };
    // SAFETY: a record is plain numbers without padding.
    let bytes = unsafe {
        core::slice::from_raw_parts((&raw const record).cast::<u8>(), size_of::<Record>())
    };
    kernel.copy_out(va, bytes)?;
    Ok(1)
}
