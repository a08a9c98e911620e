//! The monitor looks at itself (`selfcheck` at the monitor console), and fails on purpose (`debug
//! FAULT`): the boot tests see that each fault is reported and ends the machine as it should.

mod direct;
mod rig;

use crate::asm;
use crate::careful;
use crate::host::low_ram;
use crate::page::cell_page;
use abi::codec::checksum;
use abi::{Mpa, map};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// Compares code and constants with the pristine image in low RAM, from which the PROM copied them.
pub(crate) fn compare_image() -> String {
    let range = asm::constant_range();
    let len = range.end - range.start;
    // SAFETY: the monitor's own code and constants, mapped and never written.
    let own = unsafe { core::slice::from_raw_parts(range.start as *const u8, len as usize) };
    // The image is flat from the monitor's address on.
    let pristine = low_ram(map::MONITOR_BASE + range.start - map::MONITOR_VA, len);
    match own.iter().zip(pristine).position(|(own, pristine)| own != pristine) {
        None => {
            let sum = checksum(own);
            format!(
                "the monitor's {len} bytes of code and constants are as in its image: {sum:016x}\n"
            )
        }
        Some(at) => {
            let va = range.start + at as u64;
            format!(
                "DAMAGED: at {va:#x} the monitor is {:#04x}, its image {:#04x}\n",
                own[at], pristine[at]
            )
        }
    }
}

type Fault = fn() -> String;

const FAULTS: [(&str, &str, Fault); 12] = [
    ("panic", "a failed assertion", panic),
    ("trap", "a load from an unmapped address", trap),
    ("bus", "a load that nothing answers", bus),
    ("stack", "endless recursion", overflow),
    ("sdbbp", "an instruction for debuggers that are not there", sdbbp),
    ("entry", "a trap whose state can't be saved", entry),
    ("heap", "more memory than there is", heap),
    ("hang", "an endless loop", hang),
    ("markers", "4002 instructions between two markers, for counting: comes back", markers),
    ("direct", "guest code on the CPU, in all modes: comes back", direct::run),
    ("copies", "copying and filling at all alignments: comes back", copies),
    ("careful", "the same bad loads, carefully: comes back", careful_loads),
];

/// A place in CKSEG3 that no TLB entry maps.
const UNMAPPED: u64 = 0xffff_ffff_f000_0000;
/// A physical address that nothing answers: past all RAM.
const NOWHERE: Mpa = Mpa(map::RAM_BASE + (2 << 30));

/// Fails as `fault` says.
pub(crate) fn fail(fault: &str) -> Result<String, String> {
    if let Some((_, _, act)) = FAULTS.iter().find(|(name, ..)| *name == fault) {
        return Ok(act());
    }
    let list: Vec<String> =
        FAULTS.iter().map(|(name, what, _)| format!("  {name:8} {what}")).collect();
    let list = list.join("\n");
    if fault == "?" {
        Ok(format!("{list}\n"))
    } else {
        Err(format!("debug: there is no fault `{fault}`; there are:\n{list}"))
    }
}

fn panic() -> String {
    panic!("on purpose")
}

fn trap() -> String {
    // SAFETY: none; that is the point. The machine is ended by the trap.
    let value = unsafe { core::ptr::read_volatile(UNMAPPED as *const u64) };
    format!("an unmapped load answered {value:#x}\n")
}

fn bus() -> String {
    // SAFETY: as for `trap`.
    let value = unsafe { core::ptr::read_volatile(careful::xkphys(NOWHERE) as *const u64) };
    format!("an empty address answered {value:#x}\n")
}

fn sdbbp() -> String {
    asm::sdbbp();
    "sdbbp was passed over\n".into()
}

fn overflow() -> String {
    #[inline(never)]
    fn deeper(n: u64) -> u64 {
        let mut pad = [n; 64];
        core::hint::black_box(&mut pad);
        if n == u64::MAX { 0 } else { deeper(n + 1) + pad[7] }
    }
    format!("the stack was deep enough for {}\n", deeper(0))
}

fn entry() -> String {
    let page = cell_page();
    page.spare_stack.store(UNMAPPED, Ordering::Relaxed);
    page.stack_low.store(u64::MAX, Ordering::Relaxed);
    trap()
}

fn heap() -> String {
    let mut all: Vec<Vec<u8>> = Vec::new();
    loop {
        all.push(Vec::with_capacity(1 << 20));
        core::hint::black_box(&mut all);
    }
}

fn hang() -> String {
    loop {
        core::hint::spin_loop();
    }
}

fn markers() -> String {
    asm::between_markers();
    "markers: 1 and 2\n".into()
}

/// Compares what the compiler calls to copy and fill with a byte at a time, and looks around what was written.
fn copies() -> String {
    const ROOM: usize = 224;
    const EDGE: usize = 16;
    let from: Vec<u8> = (0..ROOM as u32).map(|i| (i * 37 + 11) as u8).collect();
    let mut to = [0; ROOM];
    let mut cases = 0;
    for (len, a, b) in (0..160).flat_map(|n| (0..64).map(move |ab| (n, ab / 8, ab % 8))) {
        let place = EDGE + a..EDGE + a + len;
        let [len, a, b] = core::hint::black_box([len, a, b]);
        to.fill(0xaa);
        to[EDGE + a..][..len].copy_from_slice(&from[b..][..len]);
        let copied = to.iter().enumerate().all(|(i, byte)| match i.checked_sub(EDGE + a) {
            Some(at) if place.contains(&i) => *byte == from[b + at],
            _ => *byte == 0xaa,
        });
        to.fill(0xaa);
        to[EDGE + a..][..len].fill(b as u8);
        let filled = (0..ROOM).all(|i| to[i] == if place.contains(&i) { b as u8 } else { 0xaa });
        if !copied || !filled {
            return format!("copies are WRONG: {len} bytes from {b} to {a}\n");
        }
        cases += 1;
    }
    format!("copies: {cases} cases as a byte at a time\n")
}

fn careful_loads() -> String {
    let unmapped = careful::load64_at(UNMAPPED);
    let nowhere = careful::load64(NOWHERE);
    let ram = careful::load64(Mpa(map::RAM_BASE + map::BOOT_BLOCK));
    match (unmapped, nowhere, ram) {
        (None, Err(_), Ok(_)) => {
            "careful loads: errors where nothing is, a value where RAM is\n".into()
        }
        other => format!("careful loads are broken: {other:x?}\n"),
    }
}
