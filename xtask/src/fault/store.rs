//! Results as they are kept: a JSON object a line, added when an experiment is over. What is there is not done again,
//! and the files of several runs are one campaign.

use super::draw::Kind;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

/// What came of an experiment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The campaign's seed.
    pub seed: u64,
    /// The experiment's number.
    pub id: u64,
    /// Which monitor it was: the beginning of a hash.
    pub monitor: String,
    /// The mistake that was seeded into it; none: it is the true one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutant: Option<String>,
    /// What failed.
    pub kind: Kind,
    /// The same with its place, as the console calls it.
    pub fault: String,
    /// What failed besides, while the first fault was being recovered from.
    #[serde(default)]
    pub second: Option<String>,
    /// The machine.
    pub machine: String,
    /// Kind of memory and byte order.
    pub memory: String,
    /// When it failed, in nanoseconds since power-on.
    pub at_ns: u64,
    /// How long after that the last loss was reported, in nanoseconds.
    #[serde(default)]
    pub found_ns: Option<u64>,
    /// How many lines of survivors' memory were lost with the dead node's CPUs, and discarded.
    #[serde(default)]
    pub lines: u32,
    /// Whether CPU 0's cell had to be lost.
    pub is_first: bool,
    /// Whether a way that failed cut something off.
    pub is_cut: bool,
    /// Whether VMs could use several cells.
    pub is_wide: bool,
    /// What was in flight.
    pub in_flight: Vec<String>,
    /// The cells that had to be lost.
    pub lost_cells: Vec<u8>,
    /// The VMs that were lost.
    pub lost_vms: Vec<String>,
    /// VMs that might be lost or not.
    pub either: Vec<String>,
    /// What was wrong; none: it has passed.
    pub wrong: Vec<String>,
    /// The command that does it again.
    pub replay: String,
}

impl Outcome {
    /// Whether nothing was wrong.
    pub fn passed(&self) -> bool {
        self.wrong.is_empty()
    }
}

/// The file of results in a folder.
const FILE: &str = "results.jsonl";

/// All results of a folder, by seed and number; the last one of each.
///
/// # Errors
/// The file can't be read, or a line of it is none of ours.
pub fn read(folder: &Path) -> Result<BTreeMap<(u64, u64), Outcome>> {
    let path = folder.join(FILE);
    let mut found = BTreeMap::new();
    if !path.exists() {
        return Ok(found);
    }
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    for (i, line) in text[..whole].lines().enumerate() {
        let outcome: Outcome = serde_json::from_str(line).with_context(|| {
            format!("{}:{}: no result of this program; remove the line", path.display(), i + 1)
        })?;
        found.insert((outcome.seed, outcome.id), outcome);
    }
    Ok(found)
}

/// Adds a result. One write of whole lines: several processes may add to one file.
///
/// # Errors
/// The file can't be written.
pub fn add(folder: &Path, outcome: &Outcome) -> Result<()> {
    let path = folder.join(FILE);
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| path.display().to_string())?;
    let line = serde_json::to_string(outcome).context("a result")? + "\n";
    file.write_all(line.as_bytes()).with_context(|| path.display().to_string())
}

/// The results of several folders as one campaign.
///
/// # Errors
/// As for [`read`]; or a folder has none.
pub fn merge(folders: &[impl AsRef<Path>]) -> Result<BTreeMap<(u64, u64), Outcome>> {
    let mut all = BTreeMap::new();
    for folder in folders {
        let folder = folder.as_ref();
        let found = read(folder)?;
        anyhow::ensure!(
            !found.is_empty(),
            "{}: no results there; give folders that were --out of a campaign",
            folder.display()
        );
        for (key, outcome) in found {
            // Of one experiment with two results the one that has failed counts.
            let first: Option<&Outcome> = all.values().next();
            anyhow::ensure!(
                first.is_none_or(|first| first.mutant == outcome.mutant),
                "{}: these are results of a monitor with a mistake, the others are not, or of another one: merge \
                 those of one monitor",
                folder.display()
            );
            let kept = all.entry(key).or_insert_with(|| outcome.clone());
            if kept.passed() {
                *kept = outcome;
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A result.
    pub fn outcome(id: u64, wrong: &[&str]) -> Outcome {
        Outcome {
            seed: 1,
            id,
            monitor: "m".into(),
            mutant: None,
            kind: Kind::Node,
            fault: "node 2".into(),
            second: None,
            machine: "4 cells of 1 node".into(),
            memory: "mixed, little-endian".into(),
            at_ns: 5,
            found_ns: Some(1_250_000),
            lines: 0,
            is_first: false,
            is_cut: false,
            is_wide: true,
            in_flight: vec!["messages".into()],
            lost_cells: vec![2],
            lost_vms: vec!["irix-2".into()],
            either: vec![],
            wrong: wrong.iter().map(|line| line.to_string()).collect(),
            replay: format!("cargo xtask fault --seed 1 --replay {id}"),
        }
    }

    #[test]
    fn what_was_written_is_read_and_a_torn_line_is_not() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).unwrap().is_empty());
        for id in [3, 1] {
            add(folder.path(), &outcome(id, &[])).unwrap();
        }
        let path = folder.path().join(FILE);
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str("{\"seed\":1,\"id\":7");
        fs::write(&path, &text).unwrap();
        let found = read(folder.path()).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), [&(1, 1), &(1, 3)]);
        assert_eq!(found[&(1, 3)], outcome(3, &[]));
        fs::write(&path, "x\n").unwrap();
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("results.jsonl:1: no result"), "{error}");
    }

    #[test]
    fn shards_are_one_campaign_and_a_failure_is_not_forgotten() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        add(folders[0].path(), &outcome(0, &["x"])).unwrap();
        add(folders[0].path(), &outcome(2, &[])).unwrap();
        add(folders[1].path(), &outcome(1, &[])).unwrap();
        add(folders[1].path(), &outcome(0, &[])).unwrap();
        let all = merge(&folders).unwrap();
        assert_eq!(all.len(), 3);
        assert_eq!(all[&(1, 0)].wrong, ["x"]);
        let mutant = Outcome { mutant: Some("x".into()), ..outcome(4, &[]) };
        add(folders[1].path(), &mutant).unwrap();
        assert!(merge(&folders).unwrap_err().to_string().contains("with a mistake"));
        let nothing = tempfile::tempdir().unwrap();
        assert!(merge(&[nothing.path()]).unwrap_err().to_string().contains("no results there"));
    }
}
