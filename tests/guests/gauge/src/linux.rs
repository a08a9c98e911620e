//! The start of a program, and Linux' system calls (n64: arch/mips/kernel/syscalls/syscall_n64.tbl, from 5000 on).

use core::arch::global_asm;
use core::ffi::CStr;

global_asm!(
    r#"
    .set mips64r2
    .set noreorder
    .set noat
    .section .text.entry, "ax"
    .globl _start
_start:
    # The number of words lies at the stack pointer, behind it the words, a null, the environment, a null.
    b       start
    move    $4, $sp

    # linux_call(number, a, b, c, d, e, f): the result, or an error as a negative number. It is a function so that the
    # compiler takes HI and LO for lost: the kernel does not keep them.
    .globl linux_call
linux_call:
    move    $2, $4
    move    $4, $5
    move    $5, $6
    move    $6, $7
    move    $7, $8
    move    $8, $9
    move    $9, $10
    syscall
    beqz    $7, 1f
    nop
    dsubu   $2, $0, $2
1:  jr      $31
    nop
    .text
"#
);

unsafe extern "C" {
    fn linux_call(number: u64, a: u64, b: u64, c: u64, d: u64, e: u64, f: u64) -> i64;
}

const WRITE: u64 = 5001;
const MMAP: u64 = 5009;
const FORK: u64 = 5056;
const EXECVE: u64 = 5057;
const EXIT: u64 = 5058;
const WAIT4: u64 = 5059;

/// A list of words that ends with a null, as the kernel hands it over and takes it.
#[derive(Clone, Copy)]
pub struct Words(*const *const u8);

impl Words {
    /// Word `i`, if there are so many.
    pub fn get(self, i: usize) -> Option<&'static [u8]> {
        // SAFETY: the kernel has ended the list with a null, and each word with a NUL; both stay where they are. What is
        // behind the null is not looked at: the words before are.
        unsafe {
            for before in 0..i {
                if (*self.0.add(before)).is_null() {
                    return None;
                }
            }
            let word = *self.0.add(i);
            (!word.is_null()).then(|| CStr::from_ptr(word.cast()).to_bytes())
        }
    }

    /// The list from word `i` on, which there has to be.
    pub fn from(self, i: usize) -> Self {
        assert!(self.get(i).is_some());
        // SAFETY: it is within the list.
        Self(unsafe { self.0.add(i) })
    }
}

/// The program's words and its environment.
///
/// # Safety
/// `stack` is what the stack pointer was at the program's first instruction.
pub unsafe fn words(stack: *const u64) -> (Words, Words) {
    // SAFETY: as the kernel lays it out.
    unsafe {
        let words = stack.add(1);
        let environment = words.add(*stack as usize + 1);
        (Words(words.cast()), Words(environment.cast()))
    }
}

/// Prints to the console.
pub fn print(text: &[u8]) {
    // SAFETY: the kernel only reads the bytes. There is nobody to tell that it can't print.
    let _ = unsafe { linux_call(WRITE, 1, text.as_ptr() as u64, text.len() as u64, 0, 0, 0) };
}

/// Ends the program.
pub fn exit(status: u8) -> ! {
    // SAFETY: does not come back.
    unsafe { linux_call(EXIT, status.into(), 0, 0, 0, 0, 0) };
    loop {
        core::hint::spin_loop();
    }
}

/// Becomes another program, a path; comes back only if that can't be.
pub fn execute(path: &CStr, words: Words, environment: Words) {
    // SAFETY: the lists are as the kernel wants them.
    let _ = unsafe {
        linux_call(EXECVE, path.as_ptr() as u64, words.0 as u64, environment.0 as u64, 0, 0, 0)
    };
}

/// Runs a program and waits for its end: whether it ended well.
pub fn run(words: Words, environment: Words) -> bool {
    let Some(path) = words.get(0) else { return false };
    // SAFETY: the child has a copy of all memory, and uses it only to become another program.
    let child = unsafe { linux_call(FORK, 0, 0, 0, 0, 0, 0) };
    if child == 0 {
        // SAFETY: the word ends with a NUL, which `get` has looked for.
        execute(unsafe { CStr::from_ptr(path.as_ptr().cast()) }, words, environment);
        exit(127);
    }
    let mut status = 0_i32;
    // SAFETY: the kernel writes the status alone.
    let ended = unsafe { linux_call(WAIT4, child as u64, &raw mut status as u64, 0, 0, 0, 0) };
    child > 0 && ended == child && status == 0
}

/// Memory, zeroed; none if there is not so much.
pub fn memory(bytes: usize) -> Option<&'static mut [u8]> {
    // Readable and writable; private and anonymous.
    let (protection, flags) = (3, 0x802);
    // SAFETY: the kernel chooses a free place.
    let at = unsafe { linux_call(MMAP, 0, bytes as u64, protection, flags, u64::MAX, 0) };
    // SAFETY: nobody else has that memory.
    (at > 0).then(|| unsafe { core::slice::from_raw_parts_mut(at as *mut u8, bytes) })
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    print(b"gauge: panic\n");
    exit(99)
}
