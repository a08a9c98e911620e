//! `--count`: the run under the counting plugin (`tests/plugins/count`). What it is told of the monitor
//! comes from the symbols of PROM and monitor; what it has counted is printed when the run has ended.

use crate::build::Built;
use abi::map;
use anyhow::{Context, Result, bail};
use object::{Object, ObjectSymbol, SymbolKind};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What to count, and where.
#[derive(Clone, Debug)]
pub struct Count {
    /// The file for the plugin's records.
    pub out: PathBuf,
    /// Functions of the monitor that are counted apart.
    pub functions: Vec<String>,
    /// Functions that are counted together: `NAME=PART`, all with the part in their name. The first that fits counts.
    pub groups: Vec<String>,
    /// Addresses that are counted apart: `NAME:FIRST-LAST`.
    pub ranges: Vec<String>,
}

/// The PROM's vectors, 0x80 bytes apart.
const VECTORS: [&str; abi::prom::VECTORS] = ["refill", "xrefill", "cache", "general", "interrupt"];

/// Where the monitor waits: for its locks, with a function for each type that is behind one, and for other cells.
const SPINNING: [&str; 2] = ["lock::wait_for_lock", "doorbell::wait_for_ring"];

impl Count {
    /// QEMU's arguments: the plugin with its own.
    ///
    /// # Errors
    /// The plugin does not build, or a function is unknown.
    pub fn arguments(&self, built: &Built) -> Result<[OsString; 2]> {
        let plugin = crate::build::plugin("count-plugin", "count")?;
        let boot =
            std::fs::read(&built.boot_elf).with_context(|| built.boot_elf.display().to_string())?;
        let kernel = std::fs::read(&built.kernel_elf)
            .with_context(|| built.kernel_elf.display().to_string())?;
        let out = std::path::absolute(&self.out).context("--count")?;
        let mut argument = plugin.into_os_string();
        // A comma in a value is written twice.
        let mut add = |text: &str| argument.push(format!(",{}", text.replace(',', ",,")));
        add(&format!("out={}", out.display()));
        // No guest ever runs in these segments on the real CPU.
        for (name, first, last) in [
            ("prom", 0xffff_ffff_8000_0000, 0xffff_ffff_bfff_ffff),
            ("monitor", map::MONITOR_VA, u64::MAX),
        ] {
            add(&format!("monitor={name}:{first:#x}-{last:#x}"));
        }
        let boot = symbols(&boot)?;
        let kernel = symbols(&kernel)?;
        let address = |symbols: &[Symbol], name: &str| {
            symbols.iter().find(|symbol| symbol.name == name).map(|symbol| symbol.at)
        };
        let vectors = address(&boot, "prom_vectors").context("the PROM has no `prom_vectors`")?;
        for (i, name) in (0..).zip(VECTORS) {
            add(&format!("vector={name}:{:#x}", vectors + 0x80 * i));
        }
        for (kind, name, first, end) in [
            ("loop", "idle", "doze_enter", "idle_after"),
            ("inner", "trap", "trap_entry", "doze_enter"),
        ] {
            if let (Some(first), Some(end)) = (address(&kernel, first), address(&kernel, end)) {
                add(&format!("{kind}={name}:{first:#x}-{:#x}", end - 1));
            }
        }
        for symbol in kernel.iter().filter(|s| SPINNING.iter().any(|name| s.name.contains(name))) {
            add(&format!("loop=spin:{:#x}-{:#x}", symbol.at, symbol.at + symbol.size - 1));
        }
        for wanted in &self.functions {
            let found: Vec<_> = kernel
                .iter()
                .chain(&boot)
                .filter(|symbol| symbol.size > 0 && symbol.name.contains(wanted.as_str()))
                .collect();
            if found.is_empty() {
                bail!("--count-function {wanted}: neither PROM nor monitor has such a function");
            }
            for symbol in found {
                let last = symbol.at + symbol.size - 1;
                add(&format!("range={}:{:#x}-{last:#x}", symbol.name, symbol.at));
            }
        }
        for symbol in kernel.iter().filter(|symbol| symbol.is_code && symbol.size > 0) {
            if let Some(name) = group(&self.groups, &symbol.name)
                && !SPINNING.iter().any(|name| symbol.name.contains(name))
            {
                add(&format!("range={name}:{:#x}-{:#x}", symbol.at, symbol.at + symbol.size - 1));
            }
        }
        for range in &self.ranges {
            add(&format!("range={range}"));
        }
        Ok(["-plugin".into(), argument])
    }

    /// What was counted, a line a fact.
    ///
    /// # Errors
    /// When the plugin's file can't be read or understood.
    pub fn summary(&self) -> Result<Vec<String>> {
        let name = || self.out.display().to_string();
        let text = std::fs::read_to_string(&self.out).with_context(name)?;
        summary(&text).with_context(name)
    }
}

/// The group that a function belongs to.
fn group<'a>(groups: &'a [String], function: &str) -> Option<&'a str> {
    groups.iter().find_map(|group| {
        let (name, part) = group.split_once('=')?;
        function.contains(part).then_some(name)
    })
}

/// A symbol of PROM or monitor.
#[derive(Clone, Debug)]
pub struct Symbol {
    /// As the source has it.
    pub name: String,
    /// Its address.
    pub at: u64,
    /// Its bytes.
    pub size: u64,
    /// Whether it is code.
    pub is_code: bool,
}

/// The symbols of an ELF file.
///
/// # Errors
/// It is none.
pub fn symbols(elf: &[u8]) -> Result<Vec<Symbol>> {
    let file = object::File::parse(elf).context("an ELF file of the build")?;
    Ok(file
        .symbols()
        .filter_map(|symbol| {
            let name = addr2line::demangle_auto(Cow::Borrowed(symbol.name().ok()?), None);
            Some(Symbol {
                name: name.into_owned(),
                at: symbol.address(),
                size: symbol.size(),
                is_code: symbol.kind() == SymbolKind::Text,
            })
        })
        .collect())
}

/// Markers from here on are the monitor's own: it passes some of them so often that only programs read them.
pub const OWN: u16 = 0x2000;

/// A line of the plugin's file; docs/counting.md has the fields.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Record {
    /// A CPU has passed a marker.
    Marker {
        marker: u16,
        visit: Option<u64>,
        #[serde(flatten)]
        counts: Counts,
    },
    /// A guest goes on.
    Guest {
        marker: u16,
        #[serde(flatten)]
        counts: Counts,
    },
    /// The run has ended.
    Exit {
        #[serde(flatten)]
        counts: Counts,
    },
    /// Visits of one kind.
    Visit(Visit),
}

/// Visits of one kind.
#[derive(Clone, Debug, Deserialize)]
pub struct Visit {
    pub until: Option<u16>,
    pub cpu: usize,
    pub vector: String,
    pub instruction: String,
    pub marker: u16,
    pub count: u64,
    pub sum: u64,
    pub min: u64,
    pub median: u64,
    pub p90: u64,
    pub max: u64,
    pub lengths: Vec<(u64, u64)>,
}

/// What a CPU has executed.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Counts {
    pub cpu: usize,
    pub total: u64,
    pub loops: u64,
    #[serde(default)]
    pub again: u64,
    pub ranges: BTreeMap<String, u64>,
}

impl Counts {
    /// Instructions since an earlier time of the same CPU.
    fn since(&self, before: &Self) -> String {
        let mut out = format!("{} instructions", self.total - before.total);
        let loops = self.loops - before.loops;
        if loops > 0 {
            let _ = write!(out, ", {loops} more in loops");
        }
        let mut separator = " (";
        for (name, n) in &self.ranges {
            let n = n - before.ranges.get(name).copied().unwrap_or(0);
            if n > 0 {
                let _ = write!(out, "{separator}{name} {n}");
                separator = ", ";
            }
        }
        if separator == ", " {
            out.push(')');
        }
        out
    }
}

/// The records of a file.
///
/// # Errors
/// Which line is none.
pub fn records(text: &str) -> Result<Vec<Record>> {
    let record = |(i, line)| serde_json::from_str(line).with_context(|| format!("line {}", i + 1));
    text.lines().enumerate().map(record).collect()
}

fn summary(text: &str) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut last: BTreeMap<usize, (u16, Counts)> = BTreeMap::new();
    let mut ended = false;
    for record in records(text)? {
        match record {
            Record::Guest { .. } => {}
            Record::Marker { marker, .. } if marker >= OWN => {}
            Record::Marker { marker, counts, .. } => {
                let cpu = counts.cpu;
                if let Some((from, before)) = last.insert(cpu, (marker, counts.clone())) {
                    let since = counts.since(&before);
                    lines.push(format!("CPU {cpu}, marker {from} to {marker}: {since}"));
                }
            }
            Record::Exit { counts } => {
                ended = true;
                let all = counts.since(&Counts::default());
                lines.push(format!("CPU {}, in all: {all}", counts.cpu));
            }
            Record::Visit(visit) => {
                let Visit { until, cpu, vector, instruction, marker, .. } = visit;
                let Visit { count, min, median, p90, max, .. } = visit;
                let until = until.map_or("the end".into(), |marker| format!("marker {marker}"));
                let by =
                    if instruction == "-" { String::new() } else { format!(", {instruction}") };
                let cause = if marker == 0 { String::new() } else { format!(", cause {marker}") };
                lines.push(format!(
                    "CPU {cpu}, until {until}: {count} visits by {vector}{by}{cause}: min {min} \
                     median {median} p90 {p90} max {max}"
                ));
            }
        }
    }
    if !ended {
        lines.push("QEMU was ended from outside: there are no counts of the whole run".into());
    }
    Ok(lines)
}

/// Whether the plugin will be able to write its file; an old one is emptied.
///
/// # Errors
/// It will not.
pub fn check(out: &Path) -> Result<()> {
    std::fs::File::create(out).map(drop).with_context(|| format!("--count {}", out.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_belong_to_the_first_group_that_fits() {
        let groups = ["devices=board::rtc", "monitor=kernel::", "all=::", "none"].map(String::from);
        for (function, expected) in [
            ("vmm_core::board::rtc::Rtc::read", Some("devices")),
            ("<kernel::host::Host as cell::host::Host>::now", Some("monitor")),
            ("vmm_core::isa::decode", Some("all")),
            ("memcpy", None),
        ] {
            assert_eq!(group(&groups, function), expected, "{function}");
        }
    }

    #[test]
    fn counts_are_told_by_marker() {
        let text = r#"{"kind":"marker","marker":1,"cpu":0,"total":2,"loops":0,"ranges":{"rest":2}}
{"kind":"marker","marker":8193,"visit":null,"cpu":0,"total":9,"loops":5,"ranges":{"rest":9}}
{"kind":"guest","marker":8448,"cpu":0,"total":9,"loops":5,"ranges":{"rest":9}}
{"kind":"marker","marker":9,"cpu":1,"total":7,"loops":0,"ranges":{"rest":7}}
{"kind":"marker","marker":2,"cpu":0,"total":12,"loops":5,"ranges":{"idle":5,"monitor":8,"rest":4}}
{"kind":"visit","until":2,"cpu":0,"vector":"general","instruction":"mfc0 12.0","marker":0,"count":3,"sum":9,"min":1,"median":3,"p90":4,"max":5,"lengths":[[3,3]]}
{"kind":"visit","until":null,"cpu":1,"vector":"xrefill","instruction":"-","marker":4,"count":3,"sum":9,"min":1,"median":3,"p90":4,"max":5,"lengths":[]}
{"kind":"exit","cpu":0,"total":12,"loops":5,"ranges":{"rest":12}}
"#;
        assert_eq!(
            summary(text).unwrap(),
            [
                "CPU 0, marker 1 to 2: 10 instructions, 5 more in loops (idle 5, monitor 8, rest 2)",
                "CPU 0, until marker 2: 3 visits by general, mfc0 12.0: min 1 median 3 p90 4 max 5",
                "CPU 1, until the end: 3 visits by xrefill, cause 4: min 1 median 3 p90 4 max 5",
                "CPU 0, in all: 12 instructions, 5 more in loops (rest 12)",
            ]
        );
        assert!(summary("").unwrap()[0].starts_with("QEMU was ended from outside"));
        let error = format!("{:#}", summary("{}\n").unwrap_err());
        assert!(error.starts_with("line 1: "), "{error}");
    }
}
