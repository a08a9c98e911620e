//! `wild`: made-up code in every mode that a monitor may run directly: user mode, and kernel mode in
//! CKSSEG, where supervisor mode reaches it too. Other than [`crate::hostile::run`] it mostly goes on
//! after an exception: a handler sends it back, so that one life takes thousands of them.
//!
//! It never comes back. Nothing outside this machine may notice; whoever runs it ends it.

use crate::hostile::{CODE, PLACES, Random, VECTORS, write};
use crate::machine::Console;
use crate::probe::{Frame, hello_tlb_write};
use core::arch::{asm, global_asm};
use core::fmt::Write;

/// Physical address of the code: two pages.
const PHYSICAL: u64 = CODE & 0x1fff_ffff;
/// Words of it: the first page.
const WORDS: usize = 1024;
/// Where kernel mode sees the code, and user mode: `lui` makes both.
const WINDOWS: [u64; 2] = [0xffff_ffff_c100_0000, 0x1000_0000];
/// Physical address of the page that is linked in CKSSEG, and its address there.
const DOOR_PHYSICAL: u64 = 0x0f_f000;
const DOOR: u64 = 0xffff_ffff_c000_0000;

/// More places to point at: the monitor, its per-CPU pages, PROM and machine memory as the machine's
/// own kernel mode would see them, this guest's mapped segments; and what a translator that takes it for cached memory makes
/// its page of registers, its table of jumps, and the code itself; and where these are if real addresses are the guest's.
const DIRECT_PLACES: [u64; 20] = [
    0x4000_0340_0000_0000,
    0x4000_0340_0010_0000,
    0x4000_0340_0020_0000,
    0x27ff_fe7f_c001_0000,
    0x27ff_fe7f_c002_0000,
    0x27ff_fe7f_c010_0000,
    0xffff_ffff_e000_0000,
    0xffff_ffff_e010_0000,
    0xffff_ffff_ffff_8000,
    0xffff_ffff_ffff_fff8,
    0xffff_ffff_8010_0000,
    0xffff_ffff_8030_0000,
    0x9800_0000_9000_0000,
    0x9800_0000_9200_0000,
    0x9800_0000_8010_0000,
    0x4000_0000_0000_0000,
    0xffff_ffff_c100_0000,
    0xffff_ffff_c100_1000,
    0x1000_0000,
    0xffff_ffff_c200_0000,
];

/// What a storm consists of: sdbbp, syscall, break, mfc0 Status, rdhwr $29, add.d, an undefined one, a
/// load through `$1`.
const STORMS: [u32; 8] = [
    0x7000_003f,
    0x0000_000c,
    0x0000_000d,
    0x4008_6000,
    0x7c03_e83b,
    0x4622_1100,
    0x7000_000f,
    0x8c22_0000,
];

/// EntryLo of a page: valid, dirty, cached.
const PAGE: u64 = 3 << 3 | 1 << 2 | 1 << 1;
const EXL: u64 = 1 << 1;
const WAIT: u32 = 0x4200_0020;

global_asm!(
    r#"
    .set push
    .set mips64r2
    .set noreorder
    .set noat
    # The way in: kernel mode in CKSSEG from its first instruction on.
    .section .window, "ax"
    .globl hello_door
hello_door:
    jr      $25
    nop

    # Goes on behind the instruction; if that is not in the code, somewhere in the code. Status is made
    # what it was at the beginning every other time, by Count. Immediate operands are put in where it is
    # copied: the window twice, Status.
    .text
    .globl hello_wild_handler
hello_wild_handler:
    lui     $27, 0
    dmfc0   $26, $14
    daddiu  $26, $26, 4
    xor     $27, $27, $26
    dsrl    $27, $27, 13
    beq     $27, $0, 1f
    mfc0    $27, $9
    andi    $27, $27, 0x1ffc
    lui     $26, 0
    or      $26, $26, $27
1:  dmtc0   $26, $14
    mfc0    $27, $9
    andi    $27, $27, 0x40
    beq     $27, $0, 2f
    lui     $27, 0
    ori     $27, $27, 0
    mtc0    $27, $12
2:  ehb
    eret
    .set pop
"#
);
/// Words of the handler, and which of them get upper halves of the window and both halves of Status.
const HANDLER: usize = 19;
const WINDOW_WORDS: [usize; 2] = [0, 8];
const STATUS_WORDS: [usize; 2] = [14, 15];

unsafe extern "C" {
    static hello_wild_handler: u32;
}

impl Random {
    /// One instruction: as for the interpreter, and what only direct execution meets.
    fn wild(&mut self) -> u32 {
        let registers = self.next() as u32 & 0x03ff_0000;
        let low = self.next() as u32 & 0xffff;
        match self.next() % 16 {
            // Floating point of every kind, loads and stores too.
            0 => self.pick(&[0x4400_0000, 0x4c00_0000]) | registers | low,
            1 => {
                self.pick(&[0xc400_0000, 0xe400_0000, 0xd400_0000, 0xf400_0000])
                    | registers
                    | low & 0x7ff
            }
            // rdhwr, cache, sdbbp, syscall, break, ll, sc.
            2 => 0x7c00_003b | registers & 0x001f_0000 | low & 0xf800,
            3 => self.pick(&[0xbc00_0000 | registers | low & 0x7ff, 0x7000_003f, 0xc, 0xd]),
            4 => {
                self.pick(&[0xc000_0000, 0xe000_0000, 0xd000_0000, 0xf000_0000])
                    | registers
                    | low & 0x7f8
            }
            // Plain arithmetic, which keeps it going and makes new addresses.
            5..10 => self.pick(&[0x2400_0000, 0x6400_0000, 0x3400_0000]) | registers | low,
            _ => match self.instruction() {
                // Nothing would come after it, mostly.
                WAIT if !self.next().is_multiple_of(16) => 0,
                word => word,
            },
        }
    }

    /// A place to point at.
    fn place(&mut self) -> u64 {
        let place =
            if self.next() & 1 == 0 { self.pick(&PLACES) } else { self.pick(&DIRECT_PLACES) };
        place.wrapping_add(self.next() % 64)
    }
}

/// Runs what `seed` makes up.
pub fn run(seed: u64) -> ! {
    let mut random = Random(seed);
    let user = random.next().is_multiple_of(3);
    let handler = !random.next().is_multiple_of(8);
    let name = if user { "user" } else { "kernel" };
    let _ = writeln!(Console, "wild: seed {seed:#x}, {name} mode, handler {handler}");
    let storm = random.next().is_multiple_of(8).then(|| random.pick(&STORMS));
    write(CODE, (0..WORDS).map(|_| storm.unwrap_or_else(|| random.wild())));
    fill_tlb(&mut random);
    wild_registers(&mut random);
    let window = WINDOWS[usize::from(user)];
    let mut frame = Frame::new(if user { window } else { DOOR }, status(&mut random, user));
    for gpr in &mut frame.gpr[1..] {
        *gpr = random.place();
    }
    frame.gpr[25] = window;
    if handler {
        for offset in [0x000, 0x080, 0x180, 0x200] {
            write(VECTORS + offset, handler_words(window, frame.status));
        }
    } else {
        write(VECTORS, (0..0x100).map(|_| random.wild()));
    }
    frame.run();
    // Its vectors do not come back here, unless it has made up some that do.
    loop {
        core::hint::spin_loop();
    }
}

/// Status with whatever a kernel may set, in the wanted mode.
fn status(random: &mut Random, user: bool) -> u64 {
    // CU1, FR, PX, KX, SX, UX, IM, IE; now and then CU0, CU2, RE, and all the rest.
    let usual = 0x2480_ffe1;
    let mask = if random.next().is_multiple_of(8) { 0xff7f_ffe1 } else { usual };
    let ksu = if user { 2 << 3 } else { 0 };
    // The timer may fire; BEV would lead into the firmware.
    random.next() & mask & !(1 << 22) | ksu | 0xe0 | EXL
}

/// The code in both windows, the door, and entries that may be anything.
fn fill_tlb(random: &mut Random) {
    let lo = |physical: u64| physical >> 12 << 6 | PAGE | 1;
    let pair = |va: u64| [va, lo(PHYSICAL), lo(PHYSICAL + 0x1000), 0];
    let fixed = [pair(WINDOWS[0]), pair(WINDOWS[1]), [DOOR, lo(DOOR_PHYSICAL), 1, 0]];
    for index in 0..48 {
        let entry = match fixed.get(index as usize) {
            Some(entry) => *entry,
            None => {
                // Mostly own memory; else any page of the machine there could be.
                let mut frame = || match random.next() % 4 {
                    0 => random.next() & 0x3fff_ffff_ffff,
                    _ => (random.next() & 0x3f_f000) >> 6 | random.next() & 0x3f,
                };
                let (lo0, lo1) = (frame(), frame());
                let mask = random.pick(&[0, 0, 0, 0x6000, 0x1_e000, 0x7_e000, 0x1fff_e000]);
                // Not over the windows: two entries for one address are UNPREDICTABLE.
                let va = random.pick(&[
                    0x2000_0000,
                    0xffff_ffff_c200_0000,
                    0x4000_0000_0000_0000,
                    0xc000_0000_0000_0000,
                ]);
                [va + index * 0x2_0000_0000 % 0x1000_0000 + (index << 24), lo0, lo1, mask]
            }
        };
        // SAFETY: this kernel lives in unmapped segments.
        unsafe { hello_tlb_write(index, entry.as_ptr()) };
    }
}

/// HWREna, Wired, Compare and EntryHi's ASID with whatever they may hold.
fn wild_registers(random: &mut Random) {
    // SAFETY: none of them changes what this kernel needs until it leaves.
    unsafe {
        asm!(
            ".set push", ".set noat", ".set mips64r2",
            "mtc0 {hwrena}, $7",
            "mtc0 {wired}, $6",
            "mtc0 {compare}, $11",
            "dmtc0 {asid}, $10",
            "ehb",
            ".set pop",
            hwrena = in(reg) random.next() & 0xe000_000f,
            wired = in(reg) random.next() & 31,
            compare = in(reg) random.next() & 0xf_ffff,
            asid = in(reg) random.next() & 0xff,
        );
    }
}

/// The handler for code at `window` that began under `status`.
fn handler_words(window: u64, status: u64) -> impl Iterator<Item = u32> {
    (0..HANDLER).map(move |i| {
        // SAFETY: a word of the handler, which is only read.
        let word = unsafe { (&raw const hello_wild_handler).add(i).read() };
        let half = |value: u64| value as u32 & 0xffff;
        match i {
            _ if WINDOW_WORDS.contains(&i) => word | half(window >> 16),
            _ if i == STATUS_WORDS[0] => word | half(status >> 16),
            _ if i == STATUS_WORDS[1] => word | half(status),
            _ => word,
        }
    })
}
