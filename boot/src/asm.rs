//! All of the PROM's assembly: entry, exception vectors, and the few CP0 operations it needs.

use abi::hub::CpuWords;
use abi::prom::{L2_COMMON_BITS, L2_SET_BITS, L2_SET_SHIFT, L2Way, PROM_PAGE_VA, PromPage};
use core::arch::{asm, global_asm};
use core::mem::offset_of;

/// Bytes of a CPU's PROM stack.
pub const STACK_SIZE: usize = 4096;

/// Where a field of the CPU's private page is, as a load's signed 16-bit offset from `$zero`.
const fn page(field: usize) -> i64 {
    PROM_PAGE_VA.cast_signed() + field as i64
}

/// The stack of each CPU, used until the monitor has its own, and again when all else has failed.
#[repr(C, align(16))]
pub struct Stacks([[u8; STACK_SIZE]; abi::ids::MAX_CPUS]);

/// Only the entry and the last-resort path refer to it, by address.
#[unsafe(no_mangle)]
static mut PROM_STACKS: Stacks = Stacks([[0; STACK_SIZE]; abi::ids::MAX_CPUS]);

/// Has the timer interrupt come after so many ticks of Count; two registers are scratch. A Compare that Count has passed when it is written,
/// or that QEMU's main loop puts off because it is just doing what was due before, would take effect only a whole round (27 s) later: hence
/// twice, and Count is looked at again (as in the monitor's `clock::arm`).
#[rustfmt::skip]
macro_rules! interrupt_in {
    ($ticks:literal, $at:literal, $now:literal) => {
        concat!(
            "7: mfc0 ", $now, ", $9\n",
            "li ", $at, ", ", $ticks, "\n",
            "addu ", $at, ", ", $at, ", ", $now, "\n",
            "mtc0 ", $at, ", $11\n",
            "mtc0 ", $at, ", $11\n",
            "mfc0 ", $now, ", $9\n",
            "subu ", $now, ", ", $at, ", ", $now, "\n",
            "blez ", $now, ", 7b\n",
            "nop",
        )
    };
}

// Entry. The boot ROM jumps here on every CPU with the same arguments (firmware tables that are of no
// use to us); EBase.CPUNum (bits 9:0) tells them apart. Status.KX makes the 64-bit segments reachable;
// BEV stays set until the vectors are in place.
global_asm!(
    ".set push", ".set mips64r2", ".set noreorder", ".set noat",
    ".section .text.entry, \"ax\", @progbits",
    ".globl _start",
    "_start:",
    "li $8, {status}",
    "mtc0 $8, $12",
    "ehb",
    "mfc0 $4, $15, 1",
    "andi $4, $4, 0x3ff",
    "sltiu $8, $4, {cpus}",
    "beqz $8, 1f",
    "nop",
    "dla $25, prom_main",
    "b prom_stack",
    "nop",
    // A CPU that no data structure has room for.
    "1: b 1b",
    "nop",

    // $4: CPU, $25: function to run on the CPU's PROM stack.
    "prom_stack:",
    "dla $29, {stacks}",
    "daddiu $8, $4, 1",
    "li $9, {stack_size}",
    "dmult $8, $9",
    "mflo $8",
    "daddu $29, $29, $8",
    "jr $25",
    "daddiu $29, $29, -32",

    // Exception vectors. They need no register: the CPU's private page is at a negative offset from
    // $zero. A trap that finds another one pending goes to prom_nested: trap entry itself failed.
    ".section .vectors, \"ax\", @progbits",
    ".macro DISPATCH n",
    "ld $26, {pending}($0)",
    "daddiu $27, $26, 1",
    "bnez $26, prom_nested",
    "sd $27, {pending}($0)",
    "ld $26, {vectors} + 8 * \\n($0)",
    "jr $26",
    "nop",
    ".endm",
    ".macro VECTOR n",
    ".balign 0x80",
    "sd $26, {k0}($0)",
    "sd $27, {k1}($0)",
    "prom_dispatch\\n:",
    "DISPATCH \\n",
    ".endm",
    // A TLB refill, answered from the L2TLB: 23 instructions in way 0, 26 in way 1; of what all address spaces
    // have in common, 37 and 40. What is not there goes the way of all traps; so does a miss at an odd address, to
    // which `eret` can't return.
    // EntryLo0, which is in $1, and EntryLo1; ends with the branch for odd addresses, whose slot is the next one's.
    ".macro PAIR way, n",
    "dmtc0 $1, $2",
    "ld $1, {lo1} + {way} * \\way($27)",
    "dmtc0 $1, $3",
    "dmfc0 $26, $14",
    "andi $26, $26, 1",
    "bnez $26, prom_miss\\n",
    ".endm",
    ".macro ANSWER way, n",
    "PAIR \\way, \\n",
    "ld $1, {at}($0)",
    "ehb",
    "tlbwr",
    "ld $26, {k0}($0)",
    "ld $27, {k1}($0)",
    "eret",
    ".endm",
    ".macro ANSWER_COMMON way, n",
    "PAIR \\way, \\n",
    "lw $1, {mask} + {way} * \\way($27)",
    "mtc0 $1, $5",
    "ld $1, {at}($0)",
    "ehb",
    "tlbwr",
    // All others are of 4 KB.
    "mtc0 $0, $5",
    "ld $26, {k0}($0)",
    "ld $27, {k1}($0)",
    "eret",
    ".endm",
    ".macro REFILL n",
    ".balign 0x80",
    "sd $26, {k0}($0)",
    "sd $27, {k1}($0)",
    "sd $1, {at}($0)",
    "dmfc0 $26, $10",
    "ld $27, {l2}($0)",
    "dsrl $1, $26, 13",
    "xor $1, $1, $26",
    "dins $27, $1, {shift}, {bits}",
    "ld $1, {tag}($27)",
    "bne $1, $26, prom_second\\n",
    "ld $1, {lo0}($27)",
    "ANSWER 0, \\n",
    ".endm",
    ".macro REFILL_SECOND n",
    "prom_second\\n:",
    "ld $1, {tag} + {way}($27)",
    "bne $1, $26, prom_common\\n",
    "ld $1, {lo0} + {way}($27)",
    "ANSWER 1, \\n",
    "prom_common\\n:",
    "ld $1, {common}($0)",
    "dins $26, $1, 0, {common_bits}",
    "dsrl $1, $26, 13",
    "xor $1, $1, $26",
    "dins $27, $1, {shift}, {bits}",
    "ld $1, {tag}($27)",
    "bne $1, $26, prom_common_second\\n",
    "ld $1, {lo0}($27)",
    "ANSWER_COMMON 0, \\n",
    "prom_common_second\\n:",
    "ld $1, {tag} + {way}($27)",
    "bne $1, $26, prom_miss\\n",
    "ld $1, {lo0} + {way}($27)",
    "ANSWER_COMMON 1, \\n",
    "prom_miss\\n:",
    "ld $1, {at}($0)",
    "DISPATCH \\n",
    ".endm",
    ".globl prom_vectors",
    "prom_vectors:",
    "REFILL 0",
    "REFILL 1",
    "VECTOR 2",
    "VECTOR 3",
    "VECTOR 4",
    ".balign 0x80",

    // sdbbp, in Debug Mode; the boot ROM has saved $k0 and jumped here. It becomes a trap like any
    // other: leave Debug Mode for the general vector, with EXL set and EPC as an exception would.
    ".globl prom_debug",
    "prom_debug:",
    "sd $27, {k1}($0)",
    "dmfc0 $26, $24",
    "dmtc0 $26, $14",
    "ori $26, $26, 1",
    "sd $26, {reserved}($0)",
    "mfc0 $26, $12",
    "ori $26, $26, 2",
    "mtc0 $26, $12",
    "dla $26, prom_dispatch3",
    "dmtc0 $26, $24",
    "ehb",
    "deret",

    "REFILL_SECOND 0",
    "REFILL_SECOND 1",

    // Trap entry itself trapped. Either it has said where to go on …
    "prom_nested:",
    "ld $26, {recover}($0)",
    "beqz $26, prom_lost",
    "nop",
    "jr $26",
    "sd $0, {recover}($0)",

    // … or state is lost in any case, so run on the CPU's PROM stack.
    "prom_lost:",
    "mfc0 $4, $15, 1",
    "andi $4, $4, 0x3ff",
    "move $5, $29",
    "move $6, $31",
    "dla $25, {nested}",
    "b prom_stack",
    "nop",

    // The monitor gives up: $4 is why. Off with interrupts, and onto the CPU's PROM stack.
    ".globl prom_give_up",
    "prom_give_up:",
    "li $8, {kx}",
    "mtc0 $8, $12",
    "ehb",
    "move $5, $4",
    "mfc0 $4, $15, 1",
    "andi $4, $4, 0x3ff",
    "dla $25, {given_up}",
    "b prom_stack",
    "nop",

    // The timer of a CPU that has parked, 102 times a second: it looks whether it is to serve again.
    ".globl prom_tick",
    "prom_tick:",
    interrupt_in!("1572864", "$26", "$27"),
    "ld $26, {words}($0)",
    "ld $27, {serve}($26)",
    "sd $0, {pending}($0)",
    "bnez $27, 1f",
    "ehb",
    "eret",
    "1: sd $0, {serve}($26)",
    "move $5, $27",
    "mfc0 $4, $15, 1",
    "andi $4, $4, 0x3ff",
    "dla $25, {serve_again}",
    "b prom_stack",
    "nop",

    // That of one that hangs: after a thousandth of a second.
    ".globl prom_short_tick",
    "prom_short_tick:",
    interrupt_in!("160000", "$26", "$27"),
    "sd $0, {pending}($0)",
    "ehb",
    "eret",

    // prom_answers($4: address) -> 1, or 0 if a load from there traps.
    ".globl prom_answers",
    "prom_answers:",
    "dla $8, 2f",
    "ld $9, {vectors} + 8 * 3($0)",
    "sd $8, {vectors} + 8 * 3($0)",
    "li $2, 1",
    "ld $3, 0($4)",
    "1: sd $9, {vectors} + 8 * 3($0)",
    "jr $31",
    "nop",
    "2: dla $26, 1b",
    "dmtc0 $26, $14",
    "li $2, 0",
    "sd $0, {pending}($0)",
    "ehb",
    "eret",

    // Where the vectors lead until the monitor has taken them over.
    ".globl prom_trap",
    "prom_trap:",
    "mfc0 $4, $15, 1",
    "andi $4, $4, 0x3ff",
    "move $5, $29",
    "move $6, $31",
    "dla $25, {trapped}",
    "b prom_stack",
    "nop",
    ".previous",
    ".set pop",
    // KX, and BEV and ERL as at reset, until the vectors are in place.
    status = const 0x0040_0084,
    cpus = const abi::ids::MAX_CPUS,
    stack_size = const STACK_SIZE,
    stacks = sym PROM_STACKS,
    nested = sym super::fail::nested,
    trapped = sym super::fail::trapped,
    given_up = sym super::fail::given_up,
    serve_again = sym super::bringup::serve_again,
    kx = const KX,
    k0 = const page(offset_of!(PromPage, k)),
    k1 = const page(offset_of!(PromPage, k) + 8),
    pending = const page(offset_of!(PromPage, pending)),
    vectors = const page(offset_of!(PromPage, vectors)),
    at = const page(offset_of!(PromPage, at)),
    l2 = const page(offset_of!(PromPage, l2)),
    common = const page(offset_of!(PromPage, common)),
    common_bits = const L2_COMMON_BITS,
    reserved = const page(offset_of!(PromPage, reserved)),
    recover = const page(offset_of!(PromPage, recover)),
    words = const page(offset_of!(PromPage, words)),
    serve = const offset_of!(CpuWords, serve),
    shift = const L2_SET_SHIFT,
    bits = const L2_SET_BITS,
    way = const size_of::<L2Way>(),
    tag = const offset_of!(L2Way, tag),
    lo0 = const offset_of!(L2Way, lo),
    lo1 = const offset_of!(L2Way, lo) + 8,
    mask = const offset_of!(L2Way, mask),
);

/// Status.KX: 64-bit kernel segments.
const KX: u64 = 1 << 7;
/// Status.IE, and the mask bit of the CP0 timer.
const IE: u64 = 1 << 0;
const IM7: u64 = 1 << 15;

unsafe extern "C" {
    /// The first exception vector: EBase.
    pub fn prom_vectors();
    /// Reports a trap that the PROM itself caused.
    pub fn prom_trap();
    /// Takes the CPU away from its monitor: [`abi::prom::PromPage::give_up`].
    pub fn prom_give_up();
    /// The timer interrupt of a parked CPU.
    pub fn prom_tick();
    /// The timer interrupt of a CPU that hangs.
    pub fn prom_short_tick();
    fn prom_answers(address: u64) -> u64;
}

/// Whether a load from `address` is answered.
///
/// # Safety
/// Reading there has no side effect, and this CPU's general vector leads to the PROM.
pub unsafe fn answers(address: u64) -> bool {
    // SAFETY: a load that traps is passed over; the caller answers for one that does not.
    unsafe { prom_answers(address) != 0 }
}

/// Waits with nothing but the timer's interrupt on, for ever: with interrupts off nothing could ever be
/// told this CPU again, and a loop would cost the host a processor.
///
/// # Safety
/// The interrupt vector leads to `prom_tick`. Nothing that this CPU has done is expected to go on.
pub unsafe fn wait_for_ever() -> ! {
    // SAFETY: kernel mode, with EXL and ERL clear; the caller answers for the vector.
    unsafe {
        asm!(
            ".set push", ".set noat", ".set noreorder", ".set mips64r2",
            interrupt_in!("16000", "$8", "$9"),
            "li $8, {status}",
            "mtc0 $8, $12",
            "ehb",
            "1: wait",
            "b 1b",
            "nop",
            ".set pop",
            status = const KX | IM7 | IE,
            options(noreturn)
        );
    }
}

/// Waits for the timer's interrupt, a thousandth of a second or two.
///
/// # Safety
/// The interrupt vector leads to `prom_short_tick`. Interrupts are off, and neither EXL nor ERL is wanted any more.
pub unsafe fn wait_a_little() {
    // SAFETY: kernel mode; the caller answers for the vector, which changes `$k0` and `$k1` alone.
    unsafe {
        asm!(
            ".set push", ".set noat", ".set noreorder", ".set mips64r2",
            interrupt_in!("160000", "{at}", "{now}"),
            "mtc0 {on}, $12",
            "ehb",
            "wait",
            "mtc0 {off}, $12",
            "ehb",
            ".set pop",
            at = out(reg) _,
            now = out(reg) _,
            on = in(reg) KX | IM7 | IE,
            off = in(reg) KX,
            options(nostack, preserves_flags)
        );
    }
}

macro_rules! cp0 {
    ($(#[$doc:meta])* $read:ident, $mfc:literal, $sel:literal) => {
        $(#[$doc])*
        pub fn $read() -> u64 {
            let value: u64;
            // SAFETY: reading a CP0 register of MIPS64 R2 in kernel mode has no side effect.
            unsafe {
                asm!(
                    ".set push", ".set noat", ".set mips64r2",
                    concat!($mfc, " {0}, $", $sel),
                    ".set pop",
                    out(reg) value,
                    options(nomem, nostack, preserves_flags)
                );
            }
            value
        }
    };
}

cp0!(
    /// Count.
    count, "mfc0", "9"
);
cp0!(
    /// EBase, whose bits 9:0 are the CPU's number.
    ebase, "mfc0", "15, 1"
);
cp0!(
    /// Cause.
    cause, "mfc0", "13"
);
cp0!(
    /// EPC.
    epc, "dmfc0", "14"
);
cp0!(
    /// BadVAddr.
    bad_vaddr, "dmfc0", "8"
);

/// This CPU's number.
pub fn cpu() -> u64 {
    ebase() & 0x3ff
}

/// Writes TLB entry `index`.
///
/// # Safety
/// The entry must not change the translation of anything that is in use.
pub unsafe fn write_tlb(index: u64, page_mask: u64, entry_hi: u64, entry_lo: [u64; 2]) {
    // SAFETY: the instructions are legal in kernel mode; the caller answers for the translation.
    unsafe {
        asm!(
            ".set push", ".set noat", ".set mips64r2",
            "mtc0 {index}, $0",
            "mtc0 {mask}, $5",
            "dmtc0 {hi}, $10",
            "dmtc0 {lo0}, $2",
            "dmtc0 {lo1}, $3",
            "ehb",
            "tlbwi",
            "ehb",
            ".set pop",
            index = in(reg) index,
            mask = in(reg) page_mask,
            hi = in(reg) entry_hi,
            lo0 = in(reg) entry_lo[0],
            lo1 = in(reg) entry_lo[1],
            options(nostack, preserves_flags)
        );
    }
}

/// Reads TLB entry `index`: PageMask, EntryHi, EntryLo0 and EntryLo1. EntryHi and PageMask are that entry's from then on.
pub fn read_tlb(index: u64) -> (u64, u64, [u64; 2]) {
    let (mask, hi, lo0, lo1);
    // SAFETY: legal in kernel mode; what the PROM uses is mapped by global entries.
    unsafe {
        asm!(
            ".set push", ".set noat", ".set mips64r2",
            "mtc0 {index}, $0",
            "ehb",
            "tlbr",
            "ehb",
            "mfc0 {mask}, $5",
            "dmfc0 {hi}, $10",
            "dmfc0 {lo0}, $2",
            "dmfc0 {lo1}, $3",
            ".set pop",
            index = in(reg) index,
            mask = out(reg) mask,
            hi = out(reg) hi,
            lo0 = out(reg) lo0,
            lo1 = out(reg) lo1,
            options(nostack, preserves_flags)
        );
    }
    (mask, hi, [lo0, lo1])
}

/// Number of TLB entries: Config1.MMUSize - 1 is in bits 30:25.
pub fn tlb_entries() -> u64 {
    let config1: u64;
    // SAFETY: reading Config1 has no side effect.
    unsafe {
        asm!(
            ".set push", ".set noat", ".set mips64r2",
            "mfc0 {0}, $16, 1",
            ".set pop",
            out(reg) config1,
            options(nomem, nostack, preserves_flags)
        );
    }
    (config1 >> 25 & 0x3f) + 1
}

/// Makes the first `n` TLB entries wired, and no ASID current.
pub fn set_wired(n: u64) {
    // SAFETY: Wired and EntryHi only affect random replacement and ASID matches; all entries in use
    // are global.
    unsafe {
        asm!(
            ".set push", ".set noat", ".set mips64r2",
            "mtc0 {0}, $6",
            "dmtc0 $0, $10",
            "ehb",
            ".set pop",
            in(reg) n,
            options(nostack, preserves_flags)
        );
    }
}

/// Points the exception vectors at `base` (in KSEG0), gives interrupts their own one (Cause.IV), and
/// leaves the bootstrap state: Status becomes KX alone, with neither BEV nor ERL.
///
/// # Safety
/// Vectors must be at `base`.
pub unsafe fn take_vectors(base: u64) {
    // SAFETY: the caller answers for the vectors. Cause is written before any interrupt is enabled.
    unsafe {
        asm!(
            ".set push", ".set noat", ".set mips64r2",
            "mtc0 {base}, $15, 1",
            "mtc0 {iv}, $13",
            "mtc0 {kx}, $12",
            "ehb",
            ".set pop",
            base = in(reg) base,
            iv = in(reg) 1u64 << 23,
            kx = in(reg) KX,
            options(nostack, preserves_flags)
        );
    }
}

/// Orders all memory accesses before it against all after it, on every CPU.
pub fn sync() {
    // SAFETY: a barrier.
    unsafe {
        asm!("sync", options(nostack, preserves_flags));
    }
}

/// Leaves for the monitor.
///
/// # Safety
/// The monitor must be mapped and `entry` be its entry.
pub unsafe fn enter(entry: u64, cpu: u64, handoff: u64) -> ! {
    // SAFETY: the caller answers for the mapping; nothing of the PROM's stack is used again.
    unsafe {
        asm!(
            ".set push", ".set noat", ".set noreorder", ".set mips64r2",
            "jr {entry}",
            "nop",
            ".set pop",
            entry = in(reg) entry,
            in("$4") cpu,
            in("$5") handoff,
            options(noreturn)
        );
    }
}
