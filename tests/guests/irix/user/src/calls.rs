//! The system calls: number in `$v0`, arguments in `$a0` to `$a3`; the result comes back in `$v0`,
//! an [`Error`] as its negative. All other registers are kept, but for `$k0` and `$k1`.
//!
//! Numbers are IRIX's where it has the call (1000 + System V's).

/// `exit(code)`: ends the process.
pub const EXIT: u64 = 1001;
/// `fork()`: 0 in the child, its pid in the parent.
pub const FORK: u64 = 1002;
/// `read(fd, buffer, len)`: bytes read; 0 at the end.
pub const READ: u64 = 1003;
/// `write(fd, bytes, len)`: bytes written, always all of them.
pub const WRITE: u64 = 1004;
/// `close(fd)`.
pub const CLOSE: u64 = 1006;
/// `wait(pid)`: waits for the end of a child, of any if `pid` is 0: its pid << 32 | its status.
pub const WAIT: u64 = 1007;
/// `sbrk(change)`: grows or shrinks the heap by so many bytes; where it ended before.
pub const SBRK: u64 = 1017;
/// `getpid()`.
pub const GETPID: u64 = 1020;
/// `uadmin(command, text, len)`: one of [`ADMIN_OFF`], [`ADMIN_PANIC`].
pub const UADMIN: u64 = 1030;
/// `kill(pid, signal)`: every signal ends its process.
pub const KILL: u64 = 1037;
/// `setpgrp(group)`: moves the caller into a process group; 0: one of its own.
pub const SETPGRP: u64 = 1039;
/// `pipe()`: the reading end | the writing end << 32.
pub const PIPE: u64 = 1042;
/// `exec(words, len)`: replaces the program by the one that the first of NUL-terminated words names.
pub const EXEC: u64 = 1059;
/// `sproc(entry, stack, argument)`: a process that shares this one's address space.
pub const SPROC: u64 = 1129;
/// `catch(address)`: the next fault of this process resumes there, with the signal in `$v0`, instead of
/// killing it; 0: no more.
pub const CATCH: u64 = 1140;
/// `linked()`: has the kernel try loops of load-linked and store-conditional: a bit for each that got
/// through.
pub const LINKED: u64 = 1139;
/// `tcsetpgrp(group)`: the process group that Ctrl-C kills; 0: none.
pub const FOREGROUND: u64 = 1141;
/// `ps(index, record)`: fills in the `index`th [`Record`]; 1, or 0 when there is none.
pub const PS: u64 = 1142;
/// `cpus()`: how many CPUs are running.
pub const CPUS: u64 = 1143;
/// `yield()`: lets others run.
pub const YIELD: u64 = 1144;
/// `doze()`: sleeps until the first CPU's clock ticks.
pub const DOZE: u64 = 1145;

/// [`UADMIN`]: switch the machine off.
pub const ADMIN_OFF: u64 = 0;
/// [`UADMIN`]: panic.
pub const ADMIN_PANIC: u64 = 1;

/// Interrupted from the keyboard.
pub const SIGINT: u32 = 2;
/// Reserved or privileged instruction.
pub const SIGILL: u32 = 4;
/// Breakpoint or trap instruction.
pub const SIGTRAP: u32 = 5;
/// Integer overflow.
pub const SIGFPE: u32 = 8;
/// Killed.
pub const SIGKILL: u32 = 9;
/// Misaligned, or an address that user mode has not.
pub const SIGBUS: u32 = 10;
/// No memory there, or it is not to be written.
pub const SIGSEGV: u32 = 11;
/// A pipe that nobody reads.
pub const SIGPIPE: u32 = 13;

/// Why a call failed; its negative is what the call returns. Numbers are System V's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Error {
    /// No such program.
    NoEntry = 2,
    /// No such process.
    NoProcess = 3,
    /// A signal came first.
    Interrupted = 4,
    /// Too many words for `exec`.
    TooBig = 7,
    /// No such file descriptor, or not for this.
    BadFile = 9,
    /// No child to wait for.
    NoChild = 10,
    /// Too many processes, or not enough memory.
    Again = 11,
    /// Not an address of the process.
    Fault = 14,
    /// Not a sensible argument.
    Invalid = 22,
    /// Too many files.
    TooManyFiles = 24,
    /// No such call.
    NoCall = 89,
}

/// What [`PS`] tells of a process.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Record {
    /// Its identifier.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// `R`, `S` or `Z`, as `ps` shows it.
    pub state: u32,
    /// Memory that is its own or shared by copy on write, in pages.
    pub pages: u32,
    /// The name of its program, padded with NUL.
    pub name: [u8; 16],
}

/// The programs.
pub const PROGRAMS: [&str; 22] = [
    "sh",
    "check",
    "arithmetic",
    "memory",
    "family",
    "pipeline",
    "exec",
    "leaf",
    "spaces",
    "signals",
    "faults",
    "share",
    "linked",
    "loop",
    "mix",
    "mixer",
    "rounds",
    "privileged-storm",
    "scribble",
    "hog",
    "spin",
    "true",
];

/// User addresses end here.
pub const USER_END: u64 = 0x8000_0000;
/// The stack ends here and is this large.
pub const STACK_TOP: u64 = 0x7fff_0000;
/// Its size in bytes.
pub const STACK_SIZE: u64 = 0x1_0000;
