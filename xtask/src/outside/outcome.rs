//! What came of experiments: kept as JSON lines, told as a table.

use super::places::REGIONS;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

/// The file of a folder of results.
const FILE: &str = "outside.jsonl";

/// One node's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// Which.
    pub node: u8,
    /// The CPU that was stopped.
    pub cpu: u8,
    /// Where, in hexadecimal.
    pub pc: String,
    /// What was executed there.
    pub function: String,
    /// The region that was aimed at and reached.
    pub region: Option<String>,
    /// Single steps from where it was stopped at first.
    pub steps: u64,
    /// The machine's time of the last event before it, in nanoseconds.
    pub after_ns: u64,
}

/// What came of an experiment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The campaign's seed.
    pub seed: u64,
    /// The experiment.
    pub id: u64,
    /// Which monitor it was.
    pub monitor: String,
    /// The machine, in words.
    pub machine: String,
    /// Whether it ran under icount.
    pub icount: bool,
    /// The region that was aimed at.
    pub aim: Option<String>,
    /// Who died.
    pub deaths: Vec<Death>,
    /// The cells that were lost.
    pub lost_cells: Vec<u8>,
    /// The VMs that were lost.
    pub lost_vms: Vec<String>,
    /// VMs that might be lost or not.
    #[serde(default)]
    pub either: Vec<String>,
    /// How often the cells' records were read when a node was struck.
    #[serde(default)]
    pub read: u32,
    /// What VMs had then in a cell that was not their home and died.
    #[serde(default)]
    pub depends: Vec<String>,
    /// Host seconds, most of them for guests' work.
    pub took_s: u64,
    /// What was wrong; none: it has passed.
    pub wrong: Option<String>,
}

impl Outcome {
    /// In a line.
    pub fn line(&self) -> String {
        let word = if self.wrong.is_none() { "passed" } else { "FAILED" };
        let deaths: Vec<_> = self
            .deaths
            .iter()
            .map(|d| format!("node {} (CPU {} at {}, {})", d.node, d.cpu, d.pc, d.function))
            .collect();
        let mut line = format!(
            "{word} experiment {} in {} s: {}",
            self.id,
            self.took_s,
            deaths.join(", then ")
        );
        if let Some(wrong) = &self.wrong {
            let _ = write!(line, ": {wrong}");
        }
        line
    }
}

/// The outcomes that a folder holds, by number; of this seed and monitor.
///
/// # Errors
/// Its file can't be read.
pub fn read(folder: &Path, seed: u64, monitor: &str) -> Result<BTreeMap<u64, Outcome>> {
    let path = folder.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).context(path.display().to_string()),
    };
    // A line that an interrupted campaign has not finished is nothing.
    let outcomes = text.lines().filter_map(|line| serde_json::from_str::<Outcome>(line).ok());
    Ok(outcomes.filter(|o| o.seed == seed && o.monitor == monitor).map(|o| (o.id, o)).collect())
}

/// Adds one.
///
/// # Errors
/// The file can't be written.
pub fn add(folder: &Path, outcome: &Outcome) -> Result<()> {
    let path = folder.join(FILE);
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&path)?;
        // In one write, so that it is there as a whole or not at all; and on a line of its own after half of one.
        file.write_all(format!("\n{}\n", serde_json::to_string(outcome)?).as_bytes())
    };
    write().with_context(|| path.display().to_string())
}

/// The regions that were aimed at and never reached.
pub fn missed(all: &BTreeMap<u64, Outcome>) -> Vec<&'static str> {
    let aimed = |name: &str| all.values().any(|o| o.aim.as_deref() == Some(name));
    let reached = |name: &str| {
        all.values().flat_map(|o| &o.deaths).any(|d| d.region.as_deref() == Some(name))
    };
    REGIONS.iter().map(|r| r.name).filter(|name| aimed(name) && !reached(name)).collect()
}

/// The table of a campaign.
pub fn report(all: &BTreeMap<u64, Outcome>) -> String {
    let mut out = String::new();
    let mut row = |name: &str, of: &dyn Fn(&Outcome) -> bool| {
        let these: Vec<_> = all.values().filter(|o| of(o)).collect();
        let failed = these.iter().filter(|o| o.wrong.is_some()).count();
        let mut places: Vec<_> = these.iter().flat_map(|o| &o.deaths).map(|d| &d.pc).collect();
        places.sort();
        places.dedup();
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "| {name} | {} | {} | {failed} | {} |",
            these.len(),
            these.len() - failed,
            places.len()
        );
    };
    row("under icount", &|o| o.icount);
    row("on host threads", &|o| !o.icount);
    row("anywhere", &|o| o.aim.is_none());
    for region in &REGIONS {
        row(region.name, &|o| o.deaths.iter().any(|d| d.region.as_deref() == Some(region.name)));
    }
    row("two deaths", &|o| o.deaths.len() > 1);
    row("all", &|_| true);
    let head = "| of | experiments | passed | failed | places |\n|---|---|---|---|---|\n";
    let mut text = format!("{head}{out}\n| died in | times |\n|---|---|\n");
    let mut functions: BTreeMap<&str, u32> = BTreeMap::new();
    for death in all.values().flat_map(|o| &o.deaths) {
        *functions.entry(&death.function).or_default() += 1;
    }
    let mut functions: Vec<_> = functions.into_iter().collect();
    functions.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
    for (name, count) in functions {
        let _ = writeln!(text, "| `{name}` | {count} |");
    }
    let sum = |of: &dyn Fn(&Outcome) -> usize| all.values().map(of).sum::<usize>();
    let (deaths, read) = (sum(&|o| o.deaths.len()), sum(&|o| o.read as usize));
    let (depends, either) = (sum(&|o| o.depends.len()), sum(&|o| o.either.len()));
    let _ = writeln!(
        text,
        "\nat {read} of {deaths} deaths the cells' records were read: {depends} times a VM had something in a dead cell that was \
         not its home; of {either} it could not be told whether they are lost"
    );
    for outcome in all.values().filter(|o| o.wrong.is_some()) {
        let _ = writeln!(text, "{}", outcome.line());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(id: u64, aim: Option<&str>, reached: bool) -> Outcome {
        let region = aim.filter(|_| reached).map(str::to_owned);
        let death = Death { region, pc: format!("{id}"), ..Death::default() };
        Outcome { id, aim: aim.map(str::to_owned), deaths: vec![death], ..Outcome::default() }
    }

    #[test]
    fn what_was_aimed_at_and_never_reached_is_named() {
        let all = [
            outcome(1, Some("loan"), false),
            outcome(2, Some("pmap"), true),
            outcome(3, None, false),
        ];
        let all = all.into_iter().map(|o| (o.id, o)).collect();
        assert_eq!(missed(&all), ["loan"]);
        let text = report(&all);
        assert!(
            text.contains("| pmap | 1 | 1 | 0 | 1 |") && text.contains("| all | 3 | 3 | 0 | 3 |"),
            "{text}"
        );
    }

    #[test]
    fn outcomes_are_kept_even_behind_half_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let first = outcome(1, None, false);
        add(folder.path(), &first).unwrap();
        let file = folder.path().join(FILE);
        fs::write(&file, fs::read_to_string(&file).unwrap() + "{\"seed\":0,\"id").unwrap();
        add(folder.path(), &outcome(2, None, false)).unwrap();
        let all = read(folder.path(), 0, "").unwrap();
        assert_eq!(all.keys().copied().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(all[&1], first);
        assert!(read(folder.path(), 1, "").unwrap().is_empty());
    }
}
