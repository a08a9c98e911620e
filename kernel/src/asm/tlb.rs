//! The real TLB.
//!
//! The current address space (EntryHi.ASID) is the one of the guest that ran last, and stays so while the
//! monitor runs, whose own entries are all global: QEMU forgets everything it has cached of the TLB when
//! the ASID changes. So each function leaves it as it found it, but for [`select_space`].
//!
//! QEMU keeps entries that `tlbwr` has replaced and matches them as well, after all others. They are gone
//! when a `tlbwi` puts something else into an entry, and when `tlbp` finds nothing but them. A pair is
//! never in two places: [`install`] asks `tlbp` first, and the refill handler runs only when nothing
//! matched, these entries included.

use core::arch::asm;

/// An address that the TLB is never asked for (KSEG0), a different one for each entry. Not global: what
/// QEMU keeps of replaced entries is for better ones.
const NOWHERE: u64 = 0xffff_ffff_8000_0000;
/// EntryHi.ASID.
const ASID: u64 = 0xff;

/// Writes a wired TLB entry, and says that entries below `wired` are.
///
/// # Safety
/// The entry must not change the translation of anything that is in use, and match nothing that another
/// entry does.
pub(crate) unsafe fn wire(
    index: u64,
    wired: u64,
    page_mask: u64,
    entry_hi: u64,
    entry_lo: [u64; 2],
) {
    // SAFETY: the instructions are legal in kernel mode; the caller answers for the translation.
    unsafe {
        asm!(
            ".set push", ".set noat", ".set mips64r2",
            "mtc0 {wired}, $6",
            "mtc0 {index}, $0",
            "mtc0 {mask}, $5",
            "dmtc0 {hi}, $10",
            "dmtc0 {lo0}, $2",
            "dmtc0 {lo1}, $3",
            "ehb",
            "tlbwi",
            // Nearly all other entries are of 4 KB pages, written without a thought of PageMask.
            "mtc0 $0, $5",
            "ehb",
            ".set pop",
            index = in(reg) index,
            wired = in(reg) wired,
            mask = in(reg) page_mask,
            hi = in(reg) entry_hi,
            lo0 = in(reg) entry_lo[0],
            lo1 = in(reg) entry_lo[1],
            options(nostack, preserves_flags)
        );
    }
}

/// TLB entries: Config1.MMUSize - 1 is in bits 30:25.
fn entries() -> u64 {
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

/// Makes `asid` the current address space.
pub(crate) fn select_space(asid: u8) {
    if entry_hi() & ASID != u64::from(asid) {
        // SAFETY: the monitor's own entries are global.
        unsafe { set_entry_hi(u64::from(asid)) };
    }
}

/// EntryHi.
fn entry_hi() -> u64 {
    let value: u64;
    // SAFETY: reading EntryHi has no side effect.
    unsafe {
        asm!(
            ".set push", ".set noat", ".set mips64r2",
            "dmfc0 {0}, $10",
            ".set pop",
            out(reg) value,
            options(nomem, nostack, preserves_flags)
        );
    }
    value
}

/// Sets EntryHi.
///
/// # Safety
/// Nobody relies on non-global entries of the address space that was current.
unsafe fn set_entry_hi(value: u64) {
    // SAFETY: legal in kernel mode; the caller answers for the address space.
    unsafe {
        asm!(
            ".set push", ".set noat", ".set mips64r2",
            "dmtc0 {0}, $10",
            "ehb",
            ".set pop",
            in(reg) value,
            options(nostack, preserves_flags)
        );
    }
}

/// Puts an entry in, in place of the one for the same pair of pages if there is one.
///
/// # Safety
/// What the guest of that address space gets to see is its own.
pub(crate) unsafe fn install(entry_hi: u64, entry_lo: [u64; 2], page_mask: u32) {
    // SAFETY: legal in kernel mode; wired entries are global, in segments that no guest's `entry_hi`
    // names, so that none of them is found; the caller answers for the translation.
    unsafe {
        asm!(
            ".set push", ".set noat", ".set noreorder", ".set mips64r2",
            "dmfc0 {old}, $10",
            "dmtc0 {hi}, $10",
            "dmtc0 {lo0}, $2",
            "dmtc0 {lo1}, $3",
            "mtc0 {mask}, $5",
            "ehb",
            "tlbp",
            "ehb",
            "mfc0 {index}, $0",
            "bltz {index}, 2f",
            "nop",
            "b 3f",
            "tlbwi",
            "2: tlbwr",
            "3: mtc0 $0, $5",
            "dmtc0 {old}, $10",
            "ehb",
            ".set pop",
            old = out(reg) _,
            index = out(reg) _,
            hi = in(reg) entry_hi,
            lo0 = in(reg) entry_lo[0],
            lo1 = in(reg) entry_lo[1],
            mask = in(reg) page_mask,
            options(nostack, preserves_flags)
        );
    }
}

/// Forgets the entry for the pair of pages and the address space that `entry_hi` names.
pub(crate) fn forget_pair(pair: u64) {
    // SAFETY: legal in kernel mode; only takes a guest's translation away.
    unsafe {
        asm!(
            ".set push", ".set noat", ".set noreorder", ".set mips64r2",
            "dmfc0 {old}, $10",
            "dmtc0 {pair}, $10",
            "ehb",
            "tlbp",
            "ehb",
            "mfc0 {index}, $0",
            "bltz {index}, 2f",
            "dsll {index}, {index}, 13",
            // The same ASID, so that it changes no more than once.
            "andi {pair}, {pair}, 0xff",
            "or {pair}, {pair}, {index}",
            "or {pair}, {pair}, {nowhere}",
            "dmtc0 {pair}, $10",
            "dmtc0 $0, $2",
            "dmtc0 $0, $3",
            "ehb",
            "tlbwi",
            "2: dmtc0 {old}, $10",
            "ehb",
            ".set pop",
            old = out(reg) _,
            index = out(reg) _,
            pair = inout(reg) pair => _,
            nowhere = in(reg) NOWHERE,
            options(nostack, preserves_flags)
        );
    }
}

/// Forgets entry `index`.
fn forget_entry(index: u64) {
    // SAFETY: legal in kernel mode; callers name an entry that is not wired.
    unsafe {
        asm!(
            ".set push", ".set noat", ".set mips64r2",
            "dmfc0 {old}, $10",
            "mtc0 {index}, $0",
            "dmtc0 {nowhere}, $10",
            "dmtc0 $0, $2",
            "dmtc0 $0, $3",
            "ehb",
            "tlbwi",
            "dmtc0 {old}, $10",
            "ehb",
            ".set pop",
            old = out(reg) _,
            index = in(reg) index,
            nowhere = in(reg) NOWHERE | index << 13 | entry_hi() & ASID,
            options(nostack, preserves_flags)
        );
    }
}

/// Forgets all entries but the wired ones.
pub(crate) fn forget_all(wired: u64) {
    // SAFETY: legal in kernel mode; the monitor's own entries are global and wired, and no guest runs meanwhile. There
    // are entries that are not wired, so that the loop ends.
    unsafe {
        asm!(
            ".set push", ".set noat", ".set noreorder", ".set mips64r2",
            "dmfc0 {old}, $10",
            "dmtc0 $0, $2",
            "dmtc0 $0, $3",
            "2: mtc0 {index}, $0",
            "dmtc0 {nowhere}, $10",
            "ehb",
            "tlbwi",
            "addiu {index}, {index}, 1",
            "bne {index}, {end}, 2b",
            "daddiu {nowhere}, {nowhere}, 0x2000",
            "dmtc0 {old}, $10",
            "ehb",
            ".set pop",
            old = out(reg) _,
            index = inout(reg) wired => _,
            nowhere = inout(reg) NOWHERE | wired << 13 => _,
            end = in(reg) entries(),
            options(nostack, preserves_flags)
        );
    }
}

/// Forgets one entry that is not wired, and with it all that QEMU keeps of replaced ones: once there are
/// 64 of these it keeps no more, and goes on matching what may be of no use any longer.
pub(crate) fn forget_any() {
    let random: u64;
    // SAFETY: reading Random has no side effect that matters.
    unsafe {
        asm!(
            ".set push", ".set noat", ".set mips64r2",
            "mfc0 {0}, $1",
            ".set pop",
            out(reg) random,
            options(nomem, nostack, preserves_flags)
        );
    }
    forget_entry(random);
}
