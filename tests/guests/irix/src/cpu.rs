//! A CPU: its private data area, its CP0 registers, its trap frame.

use core::arch::asm;
use core::ptr::{read_volatile, write_volatile};
use core::sync::atomic::{AtomicU64, Ordering};

/// Most CPUs.
pub const CPUS_MAX: usize = 4;

/// Where each CPU finds its own [`Pda`]: in the last pages of CKSSEG, mapped by a wired TLB entry.
pub const PDA: u64 = 0xffff_ffff_dfff_e000;

/// Status in the kernel: interrupts off, 64-bit addresses in every mode; which interrupts there are when
/// they are on: the timer (7) and another CPU's call (3).
pub const STATUS_KERNEL: u64 = 0x88e0;
/// Status of a process, as it is saved in a trap frame: user mode, interrupts on, EXL.
pub const STATUS_USER: u64 = STATUS_KERNEL | 0x13;
/// Status.KSU.
pub const STATUS_KSU: u64 = 0x18;

/// Cause.BD: the exception's instruction is in a delay slot.
pub const CAUSE_BD: u64 = 1 << 31;
/// Cause.IP7: the timer.
pub const CAUSE_TIMER: u64 = 1 << 15;
/// Cause.IP3: another CPU's call.
pub const CAUSE_CALL: u64 = 1 << 11;

/// How fast Count counts, on QEMU.
const COUNT_HZ: u64 = 160_000_000;
/// Ticks of Count between two interrupts of the timer: 10 ms, unless the command line says otherwise.
static TICK: AtomicU64 = AtomicU64::new(COUNT_HZ / 100);

/// What a trap saves. (`$zero`, `$k0` and `$k1` have their places, but nobody's values.)
#[derive(Clone)]
#[repr(C)]
pub struct Frame {
    /// General registers.
    pub regs: [u64; 32],
    /// LO.
    pub lo: u64,
    /// HI.
    pub hi: u64,
    /// Status, Cause, EPC at the exception.
    pub status: u64,
    /// See [`Frame::status`].
    pub cause: u64,
    /// See [`Frame::status`].
    pub epc: u64,
    /// Keeps the stack aligned to 16 bytes.
    pad: u64,
}

impl Frame {
    /// A process's first: it starts at `pc`, all other registers are 0.
    pub const fn new(pc: u64) -> Self {
        Self { regs: [0; 32], lo: 0, hi: 0, status: STATUS_USER, cause: 0, epc: pc, pad: 0 }
    }

    /// Whether user mode was interrupted.
    pub const fn from_user(&self) -> bool {
        self.status & STATUS_KSU != 0
    }
}

/// What a CPU has for itself.
#[repr(C, align(4096))]
pub struct Pda {
    /// The end of the current process's kernel stack: trap entry from user mode starts there.
    pub stack: u64,
    /// The current page directory, as the refill handler uses it.
    pub directory: u64,
    /// Not 0: the refill handler has gone on to trap entry instead of making a TLB entry.
    pub missed: u32,
    /// The CPU's number.
    pub number: usize,
    /// The current process's slot, or [`crate::process::NONE`].
    pub process: usize,
    /// The space whose page tables are in use, or [`crate::space::NONE`].
    pub space: usize,
    /// How many entries the TLB has, and how many of them are wired.
    pub tlb: (u32, u32),
    /// Whether TLBINV exists.
    pub has_tlbinv: bool,
    /// What the current space's identifier is, as in [`crate::space::Space::asid`]; it is in EntryHi.
    pub stamp: u64,
    /// Address space identifiers: the last one given, and the generation.
    pub asid: (u64, u64),
    /// The saved state of the idle loop.
    pub idle: Context,
}

/// What [`crate::sched::switch_context`] saves: `$s0` to `$s7`, `$gp`, `$sp`, `$fp`, `$ra`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Context(pub [u64; 12]);

impl Context {
    /// Nothing saved yet.
    pub const EMPTY: Self = Self([0; 12]);

    /// Goes on at `pc` with stack `sp`.
    pub const fn new(pc: u64, sp: u64) -> Self {
        let mut saved = [0; 12];
        saved[9] = sp;
        saved[11] = pc;
        Self(saved)
    }
}

/// A kernel stack of so many bytes.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct Stack<const N: usize>([u8; N]);

impl<const N: usize> Stack<N> {
    /// Nothing on it.
    pub const EMPTY: Self = Self([0; N]);
}

const PDA_EMPTY: Pda = Pda {
    stack: 0,
    directory: 0,
    missed: 0,
    number: 0,
    process: crate::process::NONE,
    space: crate::space::NONE,
    tlb: (0, 0),
    has_tlbinv: false,
    stamp: 0,
    asid: (0, 1),
    idle: Context::EMPTY,
};

/// The pages behind [`PDA`]; in `.data`, since CPUs use them while CPU 0 clears `.bss`.
#[unsafe(link_section = ".data.pda")]
pub static mut PDAS: [Pda; CPUS_MAX] = [PDA_EMPTY; CPUS_MAX];

/// This CPU's private data.
pub fn pda() -> &'static mut Pda {
    // SAFETY: a wired entry maps it on every CPU, to a page that no other CPU touches. The kernel is never
    // interrupted, and every use is a short one of single fields.
    unsafe { &mut *(PDA as *mut Pda) }
}

macro_rules! read {
    ($($(#[$doc:meta])* $name:ident: $instruction:literal, $register:literal;)*) => { $(
        $(#[$doc])*
        pub fn $name() -> u64 {
            let value: u64;
            // SAFETY: reads a register.
            unsafe {
                asm!(
                    ".set push", ".set noat", ".set mips64r2",
                    concat!($instruction, " {0}, ", $register),
                    ".set pop", out(reg) value, options(nomem, nostack),
                );
            }
            value
        }
    )* };
}

macro_rules! write {
    ($($(#[$doc:meta])* $name:ident: $instruction:literal, $register:literal;)*) => { $(
        $(#[$doc])*
        pub fn $name(value: u64) {
            // SAFETY: what these registers control is the caller's: the TLB's contents, the timer.
            unsafe {
                asm!(
                    ".set push", ".set noat", ".set mips64r2",
                    concat!($instruction, " {0}, ", $register),
                    ".set pop", in(reg) value, options(nostack),
                );
            }
        }
    )* };
}

read! {
    /// Index: negative after a probe that found nothing.
    index: "mfc0", "$0";
    /// BadVAddr.
    bad_vaddr: "dmfc0", "$8";
    /// Count.
    count: "mfc0", "$9";
    /// Config1 to Config4.
    config1: "mfc0", "$16, 1";
    /// See [`config1`].
    config2: "mfc0", "$16, 2";
    /// See [`config1`].
    config3: "mfc0", "$16, 3";
    /// See [`config1`].
    config4: "mfc0", "$16, 4";
}

write! {
    /// Index.
    set_index: "mtc0", "$0";
    /// EntryLo0 and EntryLo1.
    set_entry_lo0: "dmtc0", "$2";
    /// See [`set_entry_lo0`].
    set_entry_lo1: "dmtc0", "$3";
    /// EntryHi: page pair and address space.
    set_entry_hi: "dmtc0", "$10";
    /// Compare; ends the timer's interrupt.
    set_compare: "mtc0", "$11";
}

macro_rules! operation {
    ($($(#[$doc:meta])* $name:ident: $instruction:literal;)*) => { $(
        $(#[$doc])*
        pub fn $name() {
            // SAFETY: the TLB's registers were set by the caller, for a purpose of its own.
            unsafe {
                asm!(
                    ".set push", ".set noat", ".set mips64r2", "ehb", $instruction, "ehb", ".set pop",
                    options(nostack),
                );
            }
        }
    )* };
}

operation! {
    /// Looks EntryHi up.
    tlb_probe: "tlbp";
    /// Writes the entry that Index says.
    tlb_write: "tlbwi";
    /// TLBINV: drops all entries of EntryHi's address space. (The assembler knows it only for later releases.)
    tlb_drop_space: ".word 0x42000003";
}

/// Waits for an interrupt, takes it, and comes back with interrupts off.
///
/// An interrupt just before the `wait` leaves it waiting for the next one, a tick later at most.
pub fn nap() {
    // SAFETY: interrupts save and restore everything; the idle loop holds no lock here.
    unsafe {
        asm!(
            ".set push",
            ".set noat",
            ".set noreorder",
            ".set mips64r2",
            "ei",
            "ehb",
            "wait",
            "di",
            "ehb",
            ".set pop",
        );
    }
}

/// Sets the timer's next interrupt.
pub fn next_tick() {
    let tick = TICK.load(Ordering::Relaxed);
    loop {
        let next = count().wrapping_add(tick) as u32;
        set_compare(next.cast_signed() as u64);
        // Count may have passed by meanwhile, and would come again only after a whole round.
        if (next.wrapping_sub(count() as u32)).cast_signed() > 0 {
            return;
        }
    }
}

/// The word `hz=N` of the command line, N from 1 to 1000: so many interrupts of the timer in a second from now on.
pub fn set_tick(word: &str) {
    let hz = word.strip_prefix("hz=").and_then(|hz| hz.parse().ok());
    if let Some(hz @ 1..=1000) = hz {
        TICK.store(COUNT_HZ / hz, Ordering::Relaxed);
    }
}

/// Size of the TLB: Config1.MMUSize, extended by Config4.
fn tlb_size() -> u32 {
    let more = |config: u64| config & 1 << 31 != 0;
    let size = config1() as u32 >> 25 & 0x3f;
    if more(config1()) && more(config2()) && more(config3()) && config4() >> 14 & 3 == 1 {
        return ((config4() as u32 & 0xff) << 6 | size) + 1;
    }
    size + 1
}

/// Finds out what this CPU is, and prepares its TLB. `wired`: entries that the boot stub has made.
pub fn init(number: usize, wired: u32) {
    let pda = pda();
    pda.number = number;
    pda.tlb = (tlb_size(), wired);
    let release4 = [config1(), config2(), config3()].iter().all(|config| config & 1 << 31 != 0);
    pda.has_tlbinv = release4 && config4() >> 29 & 3 >= 2;
    if !pda.has_tlbinv {
        // Else the boot stub has done it.
        tlb_flush();
    }
    next_tick();
}

/// Empties the TLB but for its wired entries.
pub fn tlb_flush() {
    let (size, wired) = pda().tlb;
    set_entry_lo0(0);
    set_entry_lo1(0);
    for index in wired..size {
        // Each a page pair of its own, where nothing is ever looked up.
        set_entry_hi(0xffff_ffff_8000_0000 + (u64::from(index) << 13));
        set_index(u64::from(index));
        tlb_write();
    }
}

/// Reads a device's byte, uncached.
pub fn device_read(physical: u64) -> u8 {
    // SAFETY: the board's I/O window in KSEG1.
    unsafe { read_volatile((KSEG1 + physical) as *const u8) }
}

/// Writes a device's byte, uncached.
pub fn device_write(physical: u64, value: u8) {
    // SAFETY: as for `device_read`.
    unsafe { write_volatile((KSEG1 + physical) as *mut u8, value) }
}

/// Reads a register of the board, uncached.
pub fn register_read(physical: u64) -> u32 {
    // SAFETY: as for `device_read`.
    unsafe { read_volatile((KSEG1 + physical) as *const u32) }
}

/// Writes a register of the board, uncached.
pub fn register_write(physical: u64, value: u32) {
    // SAFETY: as for `device_read`.
    unsafe { write_volatile((KSEG1 + physical) as *mut u32, value) }
}

const KSEG1: u64 = 0xffff_ffff_a000_0000;
/// SOFTRES and the value that resets the board.
const RESET: (u64, u32) = (0x1f00_0500, 0x42);

/// Resets the board, which ends QEMU when it is told not to reboot.
pub fn power_off() -> ! {
    loop {
        register_write(RESET.0, RESET.1);
    }
}
