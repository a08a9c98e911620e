//! What the self-checks must find.

use crate::calls::{SIGBUS, SIGFPE, SIGILL, SIGINT, SIGKILL, SIGPIPE, SIGSEGV, SIGTRAP};
use crate::work::fold;

/// Rounds of the check of arithmetic.
pub const ARITHMETIC_ROUNDS: u64 = 20_000;

/// Members of a share group, and what each adds to a common word.
pub const SHARE_MEMBERS: u64 = 3;
/// See [`SHARE_MEMBERS`].
pub const SHARE_ROUNDS: u64 = 5_000;

/// Loops of load-linked and store-conditional that get through: in the kernel (upper half) all twelve; in user mode
/// those with `nop`, `rdhwr` and a load, not that with a system call, whose way back to the program ends the link.
pub const LINKED: u64 = 0xfff << 32 | 0b1111;

/// All checks with their checksums. A test of `work` computes them on the host.
pub const CHECKS: [(&str, u64); 11] = [
    ("arithmetic", 0x3373_2355_a0d0_495c),
    ("memory", 0x7334_5947_8d6a_0c02),
    ("family", 0x1ac1_07d1_77cb_422d),
    ("pipeline", 0x8015_5552_0c6b_7ef5),
    ("exec", 0x8366_d4b0_3578_5b02),
    ("spaces", 0x4a3d_a4e0_27a1_31b8),
    ("signals", 0xf140_a0b5_2c7c_521f),
    ("faults", 0x429d_f9cb_0d1e_0461),
    ("share", SHARE_MEMBERS * SHARE_ROUNDS),
    ("linked", LINKED),
    ("mix", 0x2679_8793_e74e_76c4),
];

/// A check's checksum.
#[must_use]
pub fn expected(name: &str) -> Option<u64> {
    CHECKS.iter().find(|check| check.0 == name).map(|check| check.1)
}

/// How the processes of the check of signals end, in turn: two that compute for ever, one that waits for a
/// pipe, one whose reader is gone, one that stops by itself.
pub const SIGNALS: [u32; 5] = [SIGKILL, SIGINT, SIGKILL, SIGPIPE, 42 << 8];

/// The checksum of how processes ended.
#[must_use]
pub fn fold_signals(statuses: &[u32]) -> u64 {
    statuses.iter().fold(0, |sum, &status| fold(sum, u64::from(status)))
}

/// What user mode must not do: its name, and the signal that it gets. The programs `faults` and
/// `privileged-storm` do each of them, in this order.
pub const FAULTS: [(&str, u32); 61] = [
    ("mfc0 Status", SIGILL),
    ("mtc0 Status", SIGILL),
    ("dmfc0 EntryHi", SIGILL),
    ("dmtc0 EntryHi", SIGILL),
    ("mfc0 Cause", SIGILL),
    ("mtc0 Cause", SIGILL),
    ("mfc0 EPC", SIGILL),
    ("dmtc0 EPC", SIGILL),
    ("mfc0 Count", SIGILL),
    ("mtc0 Compare", SIGILL),
    ("mfc0 Config", SIGILL),
    ("mtc0 Config", SIGILL),
    ("mfc0 PRId", SIGILL),
    ("dmtc0 EBase", SIGILL),
    ("mtc0 Wired", SIGILL),
    ("mtc0 HWREna", SIGILL),
    ("dmtc0 EntryLo0", SIGILL),
    ("dmtc0 XContext", SIGILL),
    ("mtc0 register 31, select 7", SIGILL),
    ("tlbr", SIGILL),
    ("tlbwi", SIGILL),
    ("tlbwr", SIGILL),
    ("tlbp", SIGILL),
    ("eret", SIGILL),
    ("deret", SIGILL),
    ("wait", SIGILL),
    ("di", SIGILL),
    ("ei", SIGILL),
    ("rdpgpr", SIGILL),
    ("wrpgpr", SIGILL),
    ("cache", SIGILL),
    ("rdhwr CPUNum", SIGILL),
    ("rdhwr CC", SIGILL),
    ("rdhwr UserLocal", SIGILL),
    ("mtc1", SIGILL),
    ("ldc1", SIGILL),
    ("mfc2", SIGILL),
    ("reserved opcode", SIGILL),
    ("break", SIGTRAP),
    ("teq", SIGTRAP),
    ("add, overflow", SIGFPE),
    ("dsub, overflow", SIGFPE),
    ("lw, misaligned", SIGBUS),
    ("sd, misaligned", SIGBUS),
    ("lld, misaligned", SIGBUS),
    ("jump to an odd address", SIGBUS),
    ("load from KSEG0", SIGBUS),
    ("store to KSEG0", SIGBUS),
    ("load from KSEG1", SIGBUS),
    ("load from CKSSEG", SIGBUS),
    ("store to CKSSEG", SIGBUS),
    ("load from CKSEG3", SIGBUS),
    ("load from xsseg", SIGBUS),
    ("load from XKPHYS", SIGBUS),
    ("store to XKPHYS", SIGBUS),
    ("load from xkseg", SIGBUS),
    ("load from beyond all segments", SIGBUS),
    ("jump to KSEG0", SIGBUS),
    ("load from nowhere", SIGSEGV),
    ("load from beyond 2^31", SIGSEGV),
    ("store to text", SIGSEGV),
];

/// The checksum of what became of each of [`FAULTS`], by its number and the signal that it should get.
pub fn fold_faults(mut became: impl FnMut(usize, u32) -> u32) -> u64 {
    let numbered = FAULTS.iter().enumerate();
    numbered.fold(0, |sum, (i, fault)| fold(sum, u64::from(became(i, fault.1))))
}
