//! What the guest needs of a Malta board: entry, exceptions, UART, memory size, power switch.

use core::arch::{asm, global_asm};
use core::fmt;
use core::ptr::{read_volatile, write_volatile};
use core::sync::atomic::{AtomicU64, Ordering};

/// ISA I/O ports, uncached.
const PORTS: u64 = 0xffff_ffff_b800_0000;
/// The system controller's PCI configuration address and data registers, uncached.
const CONFIG: u64 = 0xffff_ffff_bbe0_0cf8;
/// SOFTRES, uncached: the board's reset button.
const SOFTRES: u64 = 0xffff_ffff_bf00_0500;
/// The first UART.
const UART: u64 = 0x3f8;
const LINE_STATUS: u64 = UART + 5;
const DATA_READY: u8 = 0x01;
const HOLDING_EMPTY: u8 = 0x20;
/// 10 ms of Count at QEMU's 160 MHz; only the rate at which an idle console is looked at.
const NAP_TICKS: u64 = 1_600_000;

global_asm!(
    r#"
    .set mips64r2
    .set noreorder
    .set noat
    .section .text.entry, "ax"
    .globl _start
_start:
    # Status: kernel mode, 64-bit addressing, interrupts off, vectors still in the boot ROM.
    mfc0    $8, $12
    lui     $9, 0x0040
    ori     $9, $9, 0x00e0
    mtc0    $9, $12
    ehb
    lui     $29, %highest(_stack_top)
    daddiu  $29, $29, %higher(_stack_top)
    dsll    $29, $29, 16
    daddiu  $29, $29, %hi(_stack_top)
    dsll    $29, $29, 16
    daddiu  $29, $29, %lo(_stack_top)
    lui     $8, %highest(_bss_start)
    daddiu  $8, $8, %higher(_bss_start)
    dsll    $8, $8, 16
    daddiu  $8, $8, %hi(_bss_start)
    dsll    $8, $8, 16
    daddiu  $8, $8, %lo(_bss_start)
1:  sd      $0, 0($8)
    daddiu  $8, $8, 8
    bne     $8, $29, 1b
    nop
    b       hello_main
    nop

    # The general vector. An interrupt is the nap's end: clear IE in the interrupted Status, step
    # over the `wait` if it has not run yet, so that it never waits with interrupts off. Everything
    # else is fatal.
    .globl hello_vector
hello_vector:
    mfc0    $26, $13
    andi    $26, $26, 0x7c
    bne     $26, $0, 2f
    mfc0    $26, $12
    ori     $26, $26, 1
    xori    $26, $26, 1
    mtc0    $26, $12
    dmfc0   $26, $14
    dla     $27, hello_wait
    bne     $26, $27, 1f
    nop
    daddiu  $26, $26, 4
    dmtc0   $26, $14
1:  ehb
    eret
2:  dla     $26, hello_fatal        # far: this code runs as a copy
    jr      $26
    nop

hello_fatal:
    dla     $29, _stack_top
    b       hello_exception
    nop

    .globl hello_nap
hello_nap:
    ei
    ehb
    .globl hello_wait
hello_wait:
    wait
    nop
    jr.hb   $31
    nop
"#
);

unsafe extern "C" {
    fn hello_nap();
    static hello_vector: u32;
}

/// Megabytes of RAM, from the firmware's environment.
static MEMORY: AtomicU64 = AtomicU64::new(0);
/// A random number, from the firmware's environment.
static SEED: AtomicU64 = AtomicU64::new(0);

fn port_read(port: u64) -> u8 {
    // SAFETY: the board's I/O window, mapped by hardware, byte access.
    unsafe { read_volatile((PORTS + port) as *const u8) }
}

fn port_write(port: u64, value: u8) {
    // SAFETY: as for `port_read`.
    unsafe { write_volatile((PORTS + port) as *mut u8, value) }
}

/// The console.
pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(put);
        Ok(())
    }
}

/// Prints one byte; a newline is preceded by a carriage return.
pub fn put(byte: u8) {
    if byte == b'\n' {
        put(b'\r');
    }
    while port_read(LINE_STATUS) & HOLDING_EMPTY == 0 {}
    port_write(UART, byte);
}

/// The next byte typed. Naps while there is none.
pub fn get() -> u8 {
    loop {
        if port_read(LINE_STATUS) & DATA_READY != 0 {
            return port_read(UART);
        }
        nap();
    }
}

/// Lets the CPU wait for at most [`NAP_TICKS`].
fn nap() {
    // SAFETY: sets the timer and allows its interrupt alone, whose handler is `hello_vector`; the
    // call returns with interrupts off again.
    unsafe {
        asm!(
            ".set push", ".set noat", ".set mips64r2",
            "mfc0 {t}, $9",
            "addu {t}, {t}, {nap}",
            "mtc0 {t}, $11",
            "mfc0 {t}, $12",
            "ori {t}, {t}, 0x8000",
            "mtc0 {t}, $12",
            "ehb",
            ".set pop",
            t = out(reg) _, nap = in(reg) NAP_TICKS,
        );
        hello_nap();
    }
}

/// Count, as an unsigned number of ticks.
pub fn count() -> u64 {
    let count: u64;
    // SAFETY: reads a register.
    unsafe {
        asm!(".set push", ".set noat", ".set mips64r2", "mfc0 {0}, $9", ".set pop", out(reg) count);
    }
    count & 0xffff_ffff
}

/// The processor's identity register.
pub fn prid() -> u64 {
    let prid: u64;
    // SAFETY: reads a register.
    unsafe {
        asm!(".set push", ".set noat", ".set mips64r2", "mfc0 {0}, $15", ".set pop", out(reg) prid);
    }
    prid & 0xffff_ffff
}

/// Megabytes of RAM that the firmware reported.
pub fn memory() -> u64 {
    MEMORY.load(Ordering::Relaxed)
}

/// A random number that the firmware had; 0 if it had none.
pub fn seed() -> u64 {
    SEED.load(Ordering::Relaxed)
}

/// The board's low RAM from `from` to its end, at most 256 MB, as words.
pub fn low_ram(from: u64) -> impl Iterator<Item = *mut u64> {
    let end = memory().min(256) << 20;
    (from..end).step_by(8).map(|physical| (0xffff_ffff_8000_0000 + physical) as *mut u64)
}

/// Runs the code at `address`, which was just written.
pub fn jump(address: u64) -> ! {
    // SAFETY: whatever that code does, it does to this guest alone; nothing here is used again.
    unsafe {
        asm!(
            ".set push", ".set noat", ".set mips64r2",
            "sync",
            "synci 0({to})",
            "jr.hb {to}",
            "nop",
            ".set pop",
            to = in(reg) address,
            options(noreturn),
        );
    }
}

/// Takes an exception whose vector cannot be fetched: EBase points into unmapped memory.
pub fn lose_vectors() {
    // SAFETY: it does not return; nothing after it relies on the vectors.
    unsafe {
        asm!(
            ".set push", ".set noat", ".set mips64r2",
            "dmtc0 {ebase}, $15, 1",
            "ehb",
            "break",
            ".set pop",
            ebase = in(reg) 0xffff_ffff_9f00_0000u64,
        );
    }
}

fn config_address(function: u32, register: u32) -> u32 {
    0x8000_0000 | 10 << 11 | function << 8 | register
}

/// Switches the machine off through the south bridge's power management.
pub fn power_off() -> ! {
    let address = CONFIG as *mut u32;
    let data = (CONFIG + 4) as *mut u32;
    // The bridge's registers are little-endian; its data port swaps or not, as the firmware has set
    // it up, which the device's identity tells.
    // SAFETY: the system controller's configuration port.
    let swapped = unsafe {
        write_volatile(address, config_address(3, 0).to_le());
        read_volatile(data) != 0x7113_8086
    };
    let order = |value: u32| if swapped { value.swap_bytes() } else { value };
    for (register, value) in [(0x40, 0x1001), (0x80, 1)] {
        // SAFETY: as above; the power management block's base and enable bit.
        unsafe {
            write_volatile(address, config_address(3, register).to_le());
            write_volatile(data, order(value));
        }
    }
    port_write(0x1005, 0x20);
    reset()
}

/// Presses the reset button.
pub fn reset() -> ! {
    loop {
        // SAFETY: the board's reset register.
        unsafe { write_volatile(SOFTRES as *mut u32, 0x42) }
    }
}

/// A NUL-terminated string at a 32-bit KSEG0 pointer, as the firmware passes them.
fn firmware_string(pointer: i32) -> &'static str {
    let base = i64::from(pointer) as *const u8;
    if base.is_null() {
        return "";
    }
    let mut len = 0;
    // SAFETY: the firmware's strings end with a NUL and stay where they are.
    while len < 4096 && unsafe { *base.add(len) } != 0 {
        len += 1;
    }
    // SAFETY: just measured.
    let bytes = unsafe { core::slice::from_raw_parts(base, len) };
    core::str::from_utf8(bytes).unwrap_or("")
}

#[unsafe(no_mangle)]
extern "C" fn hello_main(argc: i32, argv: *const i32, envp: *const i32) -> ! {
    install_vectors();
    let argument = |i: i32| {
        // SAFETY: argv has argc entries.
        (i < argc).then(|| firmware_string(unsafe { *argv.add(i as usize) }))
    };
    // The environment: name and value alternate, a null pointer ends it.
    let mut at = envp;
    // SAFETY: the environment ends with a null pointer.
    while unsafe { *at } != 0 {
        // SAFETY: as above; a name has a value.
        let (name, value) = unsafe { (firmware_string(*at), firmware_string(*at.add(1))) };
        if name == "memsize" {
            let bytes: u64 = value.parse().unwrap_or(0);
            MEMORY.store(bytes >> 20, Ordering::Relaxed);
        }
        if name == "rngseed" {
            let digits = value.get(..16).unwrap_or("");
            SEED.store(u64::from_str_radix(digits, 16).unwrap_or(0), Ordering::Relaxed);
        }
        // SAFETY: as above.
        at = unsafe { at.add(2) };
    }
    crate::shell::run(argument(1).unwrap_or(""))
}

/// Copies the vector to every offset and moves from the boot ROM's vectors to ours.
pub fn install_vectors() {
    // SAFETY: low memory belongs to a Malta kernel; the handler names what is outside itself by
    // absolute address only, and fits between two vectors.
    unsafe {
        let from = &raw const hello_vector;
        for offset in [0x000u64, 0x080, 0x100, 0x180, 0x200] {
            let to = (0xffff_ffff_8000_0000 + offset) as *mut u32;
            for i in 0..0x80 / 4 {
                write_volatile(to.add(i), read_volatile(from.add(i)));
            }
        }
        asm!(
            ".set push", ".set noat", ".set mips64r2",
            "sync",
            "dmtc0 {ebase}, $15, 1",
            "mfc0 {t}, $12",
            "li {u}, 0xe0",
            "mtc0 {u}, $12",
            "mtc0 $0, $13",
            "ehb",
            ".set pop",
            ebase = in(reg) 0xffff_ffff_8000_0000u64, t = out(reg) _, u = out(reg) _,
        );
    }
}

#[unsafe(no_mangle)]
extern "C" fn hello_exception() -> ! {
    let (cause, epc, address): (u64, u64, u64);
    // SAFETY: reads registers.
    unsafe {
        asm!(
            ".set push", ".set noat", ".set mips64r2",
            "mfc0 {0}, $13", "dmfc0 {1}, $14", "dmfc0 {2}, $8",
            ".set pop",
            out(reg) cause, out(reg) epc, out(reg) address,
        );
    }
    panic!("exception {} at {epc:#x}, address {address:#x}", cause >> 2 & 0x1f)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let _ = fmt::Write::write_fmt(&mut Console, format_args!("hello: {}\n", info.message()));
    power_off()
}
