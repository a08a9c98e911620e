//! System calls, as functions.

use core::arch::asm;
use core::fmt;
use irix_user::calls::{self, Record};

/// Calls the kernel.
fn call(number: u64, a: u64, b: u64, c: u64) -> i64 {
    let result: u64;
    // SAFETY: the kernel keeps all registers but the result's; it writes memory only where the
    // arguments of the call say, which the callers below pass as references.
    unsafe {
        asm!(
            ".set push", ".set noat",
            "syscall",
            ".set pop",
            inout("$2") number => result, in("$4") a, in("$5") b, in("$6") c,
        );
    }
    result as i64
}

/// Ends the process.
pub fn exit(code: u32) -> ! {
    call(calls::EXIT, u64::from(code), 0, 0);
    unreachable!()
}

/// Makes a child: 0 in it, its pid here, negative when there can be none.
pub fn fork() -> i64 {
    call(calls::FORK, 0, 0, 0)
}

/// Reads at most `buffer.len()` bytes.
pub fn read(fd: u32, buffer: &mut [u8]) -> i64 {
    call(calls::READ, u64::from(fd), buffer.as_mut_ptr() as u64, buffer.len() as u64)
}

/// Writes all of `bytes`.
pub fn write(fd: u32, bytes: &[u8]) -> i64 {
    call(calls::WRITE, u64::from(fd), bytes.as_ptr() as u64, bytes.len() as u64)
}

/// Closes a file descriptor.
pub fn close(fd: u32) -> i64 {
    call(calls::CLOSE, u64::from(fd), 0, 0)
}

/// Waits for a child (0: any): its pid and status.
pub fn wait(pid: u32) -> Option<(u32, u32)> {
    let found = call(calls::WAIT, u64::from(pid), 0, 0);
    (found >= 0).then_some(((found >> 32) as u32, found as u32))
}

/// Replaces the program; returns only on failure. Each word ends with a NUL.
pub fn exec(words: &[u8]) -> i64 {
    call(calls::EXEC, words.as_ptr() as u64, words.len() as u64, 0)
}

/// Has the kernel try loops of load-linked and store-conditional.
pub fn linked() -> u64 {
    call(calls::LINKED, 0, 0, 0) as u64
}

/// Signals a process.
pub fn kill(pid: u32, signal: u32) -> i64 {
    call(calls::KILL, u64::from(pid), u64::from(signal), 0)
}

/// A pipe: its reading and its writing end.
pub fn pipe() -> (u32, u32) {
    let ends = call(calls::PIPE, 0, 0, 0);
    if ends < 0 {
        panic!("no pipe");
    }
    (ends as u32, (ends >> 32) as u32)
}

/// Moves the heap's end by `change` bytes; where it was before, negative when there is no memory.
pub fn sbrk(change: i64) -> i64 {
    call(calls::SBRK, change as u64, 0, 0)
}

/// Starts a process in this address space: `entry(argument)`, which must not return, on a stack of its own
/// that ends at `stack`. Its pid.
pub fn sproc(entry: extern "C" fn(u64) -> !, stack: u64, argument: u64) -> u32 {
    let pid = call(calls::SPROC, entry as *const () as u64, stack, argument);
    u32::try_from(pid).expect("no process")
}

/// Lets others run.
pub fn give_way() {
    call(calls::YIELD, 0, 0, 0);
}

/// Reads exactly so many bytes.
pub fn read_all(fd: u32, mut buffer: &mut [u8]) {
    while !buffer.is_empty() {
        let len = read(fd, buffer);
        assert!(len > 0, "end of pipe");
        buffer = &mut buffer[len as usize..];
    }
}

/// A child that does `work` and ends with its result as exit code; its pid.
pub fn child(work: impl FnOnce() -> u32) -> u32 {
    match fork() {
        0 => exit(work()),
        pid => u32::try_from(pid).expect("no process"),
    }
}

/// A child that executes a program; its pid.
pub fn spawn(words: &[u8]) -> u32 {
    child(|| {
        exec(words);
        127
    })
}

/// Waits for this child: its status.
pub fn status(pid: u32) -> u32 {
    wait(pid).expect("a child").1
}

/// Moves into a process group; 0: one of its own.
pub fn setpgrp(group: u32) -> i64 {
    call(calls::SETPGRP, u64::from(group), 0, 0)
}

/// Says which process group Ctrl-C kills.
pub fn foreground(group: u32) {
    call(calls::FOREGROUND, u64::from(group), 0, 0);
}

/// The `index`th process.
pub fn ps(index: u64) -> Option<Record> {
    let mut record = Record::default();
    (call(calls::PS, index, &raw mut record as u64, 0) > 0).then_some(record)
}

/// How many CPUs run.
pub fn cpus() -> i64 {
    call(calls::CPUS, 0, 0, 0)
}

/// Switches the machine off.
pub fn off() {
    call(calls::UADMIN, calls::ADMIN_OFF, 0, 0);
}

/// Sleeps until the clock ticks.
pub fn doze() {
    call(calls::DOZE, 0, 0, 0);
}

/// Makes the kernel panic.
pub fn panic(message: &str) {
    call(calls::UADMIN, calls::ADMIN_PANIC, message.as_ptr() as u64, message.len() as u64);
}

/// Standard output, a line at a time.
pub struct Out {
    len: usize,
    line: [u8; 128],
}

impl Out {
    /// With nothing in it.
    pub const fn new() -> Self {
        Self { len: 0, line: [0; 128] }
    }
}

impl fmt::Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            self.line[self.len] = byte;
            self.len += 1;
            if self.len == self.line.len() {
                write(1, &self.line);
                self.len = 0;
            }
        }
        Ok(())
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        write(1, &self.line[..self.len]);
    }
}

/// Prints a line.
#[macro_export]
macro_rules! say {
    ($($arg:tt)*) => {{
        // Output has no errors.
        let _ = core::fmt::Write::write_fmt(
            &mut $crate::sys::Out::new(),
            format_args!("{}\n", format_args!($($arg)*)),
        );
    }};
}
