//! What a difference looks like to a person.

use super::case::{Case, read32, read64};
use super::layout::{self, result, trap};
use super::table;
use crate::endian::Endian;
use std::fmt::Write;

/// Names of [`layout::CP0_RESULT`].
const CP0_NAMES: [&str; layout::CP0_RESULT.len()] = [
    "Status",
    "Cause",
    "EPC",
    "BadVAddr",
    "EntryHi",
    "EntryLo0",
    "EntryLo1",
    "Context",
    "XContext",
    "PageMask",
    "PageGrain",
    "Wired",
    "HWREna",
    "Index",
    "IntCtl",
    "SRSCtl",
    "PRId",
    "EBase",
    "Config",
    "Config1",
    "Config2",
    "Config3",
    "Compare",
    "Count",
    "TagLo",
];

/// The name of the doubleword at `offset` of a slot.
fn name(offset: usize) -> String {
    if offset < layout::RESULT {
        let (page, name) = match offset {
            0..layout::CODE => (0, "input"),
            layout::CODE..layout::SCRATCH => (layout::CODE, "code"),
            _ => (layout::SCRATCH, "scratch"),
        };
        return format!("{name}+0x{:03x}", offset - page);
    }
    let offset = (offset - layout::RESULT) as i32;
    match offset {
        result::GPR => "exceptions".into(),
        8..result::FPR => format!("${}", offset / 8),
        result::FPR..result::HI => format!("$f{}", (offset - result::FPR) / 8),
        result::HI => "HI".into(),
        result::LO => "LO".into(),
        result::FCSR => "FCSR".into(),
        result::TRAPS..result::TLB => {
            let at = offset - result::TRAPS;
            let field = match at % trap::SIZE {
                trap::VECTOR => "vector, Status",
                trap::CAUSE => "Cause",
                trap::EPC => "EPC",
                trap::BAD_VADDR => "BadVAddr",
                trap::ENTRY_HI => "EntryHi",
                trap::CONTEXT => "Context",
                trap::XCONTEXT => "XContext",
                _ => "$31",
            };
            format!("exception {}: {field}", at / trap::SIZE)
        }
        result::TLB.. => {
            let at = offset - result::TLB;
            let field = ["EntryHi", "EntryLo0", "EntryLo1", "PageMask"][at as usize / 8 % 4];
            format!("TLB[{}]: {field}", at / 32)
        }
        _ => CP0_NAMES
            .get((offset - result::CP0) as usize / 8)
            .map_or_else(|| format!("result+0x{offset:03x}"), |&name| name.into()),
    }
}

/// The doublewords in which two slots differ: offset, ours, QEMU's.
pub fn differences(endian: Endian, ours: &[u8], theirs: &[u8]) -> Vec<(usize, u64, u64)> {
    (0..ours.len())
        .step_by(8)
        .map(|at| (at, read64(endian, ours, at), read64(endian, theirs, at)))
        .filter(|&(_, a, b)| a != b)
        .collect()
}

/// A case that differs, in full.
pub fn show(endian: Endian, case: &Case, ours: &[u8], theirs: &[u8]) -> String {
    let mut out = String::new();
    // Writing to a string can't fail.
    let _ = write_all(&mut out, endian, case, ours, theirs);
    out
}

fn write_all(
    out: &mut String,
    endian: Endian,
    case: &Case,
    ours: &[u8],
    theirs: &[u8],
) -> std::fmt::Result {
    writeln!(out, "case {} ({}), {endian}-endian", case.number, case.kind)?;
    let code = case.code & !(layout::PAGE as u64 - 1);
    writeln!(out, "  Status at the start 0x{:08x}, code at 0x{:016x}", case.status, case.code)?;
    writeln!(out, "  stream:")?;
    let words = case.words();
    let mut skipped = false;
    for (i, &word) in words.iter().enumerate() {
        if word == 0 {
            skipped = true;
            continue;
        }
        if skipped {
            writeln!(out, "    ...")?;
            skipped = false;
        }
        writeln!(out, "    {:016x}  {word:08x}  {}", code + 4 * i as u64, table::show(word))?;
    }
    writeln!(out, "  TLB at the start:")?;
    for (i, entry) in case.tlb.iter().enumerate() {
        let [hi, lo0, lo1, mask] = entry;
        writeln!(out, "    {i:2}  {hi:016x} {lo0:016x} {lo1:016x} {mask:08x}")?;
    }
    for (who, slot) in [("ours", ours), ("QEMU's", theirs)] {
        writeln!(out, "  exceptions, {who}:")?;
        let count = read64(endian, slot, layout::RESULT).min(layout::MAX_TRAPS) as usize;
        for i in 0..count {
            let at = layout::RESULT + result::TRAPS as usize + i * trap::SIZE as usize;
            let word = |offset: i32| read32(endian, slot, at + offset as usize);
            let double = |offset: i32| read64(endian, slot, at + offset as usize);
            writeln!(
                out,
                "    {:12} Cause {:08x} (code {:2}) Status {:08x} EPC {:016x} BadVAddr {:016x}",
                layout::vector_name(word(trap::VECTOR)),
                word(trap::CAUSE),
                word(trap::CAUSE) >> 2 & 31,
                word(trap::STATUS),
                double(trap::EPC),
                double(trap::BAD_VADDR),
            )?;
        }
    }
    writeln!(out, "  differences:{:>40}{:>20}{:>20}", "start", "ours", "QEMU's")?;
    let differences = differences(endian, ours, theirs);
    for &(at, a, b) in differences.iter().take(40) {
        let start = initial(case, at).map_or_else(String::new, |v| format!("{v:016x}"));
        writeln!(out, "    {:28}{start:>20}    {a:016x}    {b:016x}", name(at))?;
    }
    if differences.len() > 40 {
        writeln!(out, "    and {} more", differences.len() - 40)?;
    }
    writeln!(out, "  registers at the start:")?;
    for (i, chunk) in case.gpr.chunks(4).enumerate() {
        let values: Vec<_> = chunk.iter().map(|v| format!("{v:016x}")).collect();
        writeln!(out, "    ${:<2}  {}", 4 * i, values.join(" "))?;
    }
    for (i, chunk) in case.fpr.chunks(4).enumerate() {
        let values: Vec<_> = chunk.iter().map(|v| format!("{v:016x}")).collect();
        writeln!(out, "    $f{:<2} {}", 4 * i, values.join(" "))?;
    }
    writeln!(out, "    HI {:016x} LO {:016x} FCSR {:08x}", case.hi, case.lo, case.fcsr)
}

/// A register's value at the start, by its place in the results.
fn initial(case: &Case, offset: usize) -> Option<u64> {
    let offset = offset.checked_sub(layout::RESULT)? as i32;
    match offset {
        8..result::FPR => Some(case.gpr[offset as usize / 8]),
        result::FPR..result::HI => Some(case.fpr[(offset - result::FPR) as usize / 8]),
        result::HI => Some(case.hi),
        result::LO => Some(case.lo),
        result::FCSR => Some(case.fcsr.into()),
        _ => None,
    }
}
