//! The commands.

use crate::hostile;
use crate::machine::{self, Console};
use core::fmt::Write;

/// Memory from here on is nobody's: `memory` may write it.
const FREE_FROM: u64 = 4 << 20;

macro_rules! say {
    ($($arg:tt)*) => { let _ = writeln!(Console, $($arg)*); };
}

/// Runs the commands of the command line, then those typed.
pub fn run(cmdline: &str) -> ! {
    let order = if cfg!(target_endian = "big") { "big" } else { "little" };
    say!("hello: a {order}-endian guest, {} MB, PRId {:#x}", machine::memory(), machine::prid());
    say!("hello: command line: {cmdline}");
    say!("hello: ready");
    for word in cmdline.split_ascii_whitespace() {
        if let Some(commands) = word.strip_prefix("do=") {
            commands.split(',').for_each(command);
        }
    }
    let mut line = [0; 128];
    loop {
        let _ = Console.write_str("> ");
        command(read_line(&mut line));
    }
}

/// Reads one line with echo and backspace.
fn read_line(line: &mut [u8; 128]) -> &str {
    let mut len = 0;
    loop {
        match machine::get() {
            b'\r' | b'\n' => {
                machine::put(b'\n');
                return core::str::from_utf8(&line[..len]).unwrap_or("");
            }
            0x7f | 0x08 if len > 0 => {
                len -= 1;
                let _ = Console.write_str("\x08 \x08");
            }
            byte @ 0x20..0x7f if len < line.len() => {
                line[len] = byte;
                len += 1;
                machine::put(byte);
            }
            _ => {}
        }
    }
}

fn command(line: &str) {
    let (name, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
    match name {
        "" => {}
        "help" => {
            say!("echo TEXT  print it");
            say!("sum        a checksum known in advance (d488e188dc8ae95b)");
            say!("memory     write and check all free low memory");
            say!("count      the CPU's Count");
            say!("bench      how long instructions take, by class");
            say!("sensitive  what sensitive instructions and addresses do");
            say!("loop       run for ever");
            say!("print      print for ever");
            say!("vectors    take an exception whose vector is nowhere");
            say!("trap       take an exception that is reported");
            say!("storm      take exceptions for ever");
            say!("hammer:N   use device registers at random for ever");
            say!("hostile:N  run made-up code");
            say!("wild       run made-up code in all modes, by the firmware's random seed");
            say!("wild:N     the same, by this seed");
            say!("work       check sums and memory for ever");
            say!("off        switch the machine off");
            say!("reset      reset the machine");
        }
        "echo" => {
            say!("{rest}");
        }
        "sum" => {
            say!("sum: {:016x}", sum());
        }
        "memory" => memory(),
        "count" => {
            say!("count: {}", machine::count());
        }
        "bench" => crate::bench::run(),
        "sensitive" => crate::probe::run(),
        "loop" => loop {
            core::hint::spin_loop();
        },
        "print" => {
            for i in 0u64.. {
                say!("line {i}: the quick brown fox jumps over the lazy dog");
            }
        }
        "vectors" => machine::lose_vectors(),
        "trap" => panic!("as you wished"),
        "off" => machine::power_off(),
        "reset" => machine::reset(),
        "wild" => crate::wild::run(machine::seed()),
        "work" => work(),
        "storm" => hostile::storm(),
        _ => {
            if let Some((name, seed)) = name.split_once(':')
                && let Ok(seed) = seed.parse()
            {
                match name {
                    "hammer" => hostile::hammer(seed),
                    "hostile" => hostile::run(seed),
                    "wild" => crate::wild::run(seed),
                    _ => {}
                }
            }
            say!("{name}? try help");
        }
    }
}

/// A hundred thousand steps of xorshift64* folded together: its value depends on every 64-bit operation in
/// it, not on the machine.
fn sum() -> u64 {
    let (mut x, mut sum) = (0x9e37_79b9_7f4a_7c15_u64, 0_u64);
    for i in 0..100_000_u64 {
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        sum = sum.rotate_left(7) ^ x.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ (x / (i + 1));
    }
    sum
}

/// Computes the checksum and checks a megabyte of memory, written once, for ever; says so now and then,
/// and at once when something is wrong.
fn work() {
    const MEMORY: u64 = 1 << 20;
    let pattern = |word: *mut u64| (word as u64).rotate_left(17) ^ 0x5851_f42d_4c95_7f2d;
    let words = || machine::low_ram(FREE_FROM).take(MEMORY as usize / 8);
    for word in words() {
        // SAFETY: RAM that the firmware reported and nobody else uses.
        unsafe { word.write_volatile(pattern(word)) };
    }
    for round in 1u64.. {
        // SAFETY: as above.
        let damaged = words().find(|word| unsafe { word.read_volatile() } != pattern(*word));
        if let Some(word) = damaged {
            say!("work: WRONG: memory at {word:p}");
            return;
        }
        if sum() != 0xd488_e188_dc8a_e95b {
            say!("work: WRONG: the sum is {:016x}", sum());
            return;
        }
        if round.is_power_of_two() {
            say!("work: {round} rounds");
        }
    }
}

/// Writes a pattern of its own to each word of free low memory, then checks all of them.
fn memory() {
    let pattern = |word: *mut u64| (word as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut words = 0_u64;
    for word in machine::low_ram(FREE_FROM) {
        // SAFETY: RAM that the firmware reported and nobody else uses.
        unsafe { word.write_volatile(pattern(word)) };
        words += 1;
    }
    for word in machine::low_ram(FREE_FROM) {
        // SAFETY: as above.
        let found = unsafe { word.read_volatile() };
        if found != pattern(word) {
            say!("memory: {word:p} holds {found:#x}");
            return;
        }
    }
    say!("memory: {words} words checked");
}
