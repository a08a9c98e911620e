//! What a run has left behind, for the judge: exit status, lines by console, events.

use serde::Deserialize;
use std::collections::BTreeMap;

/// One event (docs/events.md), as far as it is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Event {
    /// Machine time.
    pub t_ns: u64,
    /// Who reports it; −1: nobody.
    #[serde(default)]
    pub cell: i64,
    /// What happened.
    pub kind: String,
    /// The VM that it happened to.
    #[serde(default)]
    pub vm: String,
    /// Why it ended.
    #[serde(default)]
    pub cause: String,
    /// The cell that is lost.
    pub lost: Option<u8>,
    /// What was injected.
    #[serde(default)]
    pub what: String,
}

/// A run that is over.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Its exit status; `None`: it had to be killed.
    pub status: Option<i32>,
    /// Lines that are nobody's: what `xtask` itself says.
    pub own: Vec<String>,
    /// Each console's lines.
    pub consoles: BTreeMap<String, Vec<String>>,
    /// Its events, in the order of their file.
    pub events: Vec<Event>,
}

impl Record {
    /// Takes a run's output apart.
    pub fn new(status: Option<i32>, output: &str, events: &str) -> Self {
        let mut record = Self { status, ..Self::default() };
        for line in output.lines() {
            let line = line.trim_end_matches('\r');
            match line.split_once('|') {
                Some((name, rest)) if is_name(name) => {
                    let rest = rest.strip_prefix(' ').unwrap_or(rest);
                    record.consoles.entry(name.into()).or_default().push(rest.into());
                }
                _ => record.own.push(line.into()),
            }
        }
        // A line that a run which was killed has not finished is nothing.
        record.events = events.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        record
    }

    /// A console's lines.
    pub fn console(&self, name: &str) -> &[String] {
        self.consoles.get(name).map_or(&[], Vec::as_slice)
    }

    /// When a VM ended and why: the last time.
    pub fn end_of(&self, vm: &str) -> Option<&Event> {
        self.events.iter().rfind(|event| event.kind == "vm-end" && event.vm == vm)
    }

    /// When a cell's loss was reported first.
    pub fn loss_of(&self, cell: u8) -> Option<u64> {
        let losses = self.events.iter().filter(|event| event.lost == Some(cell));
        losses.map(|event| event.t_ns).min()
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_taken_apart() {
        let output = "irix-0| irix: shell ready\r\nrun: cell 2 was lost\nirix-0| \nboot| a|b\n";
        let events = r#"{"v":1,"seq":0,"t_ns":5,"cell":0,"cpu":0,"kind":"cell-lost","lost":2}
{"v":1,"seq":1,"t_ns":7,"cell":1,"cpu":1,"kind":"vm-end","vm":"a","cause":"reset"}
{"v":1,"seq":2,"t_"#;
        let record = Record::new(Some(3), output, events);
        assert_eq!(record.console("irix-0"), ["irix: shell ready", ""]);
        assert_eq!(record.console("boot"), ["a|b"]);
        assert_eq!(record.own, ["run: cell 2 was lost"]);
        assert_eq!((record.loss_of(2), record.loss_of(1)), (Some(5), None));
        assert_eq!(record.end_of("a").unwrap().cause, "reset");
        assert_eq!(record.events.len(), 2);
    }
}
