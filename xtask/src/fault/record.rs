//! What a run has left behind, for the judge: exit status, what consoles printed and when, events.

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
    /// Which of its VCPUs.
    #[serde(default)]
    pub vcpu: u32,
    /// The CPU that it came to.
    #[serde(default)]
    pub to: u8,
    /// Why it ended.
    #[serde(default)]
    pub cause: String,
    /// The cell that is lost.
    pub lost: Option<u8>,
    /// The cell that is back.
    pub back: Option<u8>,
    /// What was injected.
    #[serde(default)]
    pub what: String,
    /// How many lost lines were discarded.
    #[serde(default)]
    pub lines: u32,
}

/// Something that a console has printed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Piece {
    t_ns: u64,
    console: String,
    text: String,
}

/// A line of a console, and when it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Machine time.
    pub t_ns: u64,
    /// Without its end.
    pub text: String,
}

/// A run that is over.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Its exit status; `None`: it had to be killed.
    pub status: Option<i32>,
    /// What `xtask` itself says of it.
    pub own: Vec<String>,
    /// Each console's lines. One that a VM had not ended when another life of it began is not among them.
    pub consoles: BTreeMap<String, Vec<Line>>,
    /// Its events, in the order of their file.
    pub events: Vec<Event>,
}

impl Record {
    /// Takes apart what a run has left: its output, its events, and what its consoles printed.
    pub fn new(status: Option<i32>, output: &str, events: &str, pieces: &str) -> Self {
        // A line that a run which was killed has not finished is nothing.
        let events: Vec<Event> =
            events.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let pieces = pieces.lines().filter_map(|line| serde_json::from_str::<Piece>(line).ok());
        let mut record = Self { status, ..Self::default() };
        let own = |line: &&str| line.starts_with("run: ") || line.starts_with("error");
        record.own = output.lines().filter(own).map(str::to_owned).collect();
        let mut open: BTreeMap<String, (u64, String)> = BTreeMap::new();
        for piece in pieces {
            let lines = record.consoles.entry(piece.console.clone()).or_default();
            let (began, text) = open.entry(piece.console.clone()).or_default();
            let is_new_life = |event: &Event| {
                event.kind == "vm-start"
                    && event.vm == piece.console
                    && (*began..=piece.t_ns).contains(&event.t_ns)
            };
            if !text.is_empty() && events.iter().any(is_new_life) {
                text.clear();
            }
            for part in piece.text.split_inclusive('\n') {
                if text.is_empty() {
                    *began = piece.t_ns;
                }
                text.push_str(part);
                if let Some(line) = text.strip_suffix('\n') {
                    let line = line.trim_end_matches('\r').to_owned();
                    lines.push(Line { t_ns: piece.t_ns, text: line });
                    text.clear();
                }
            }
        }
        record.events = events;
        record
    }

    /// A console's lines.
    pub fn console(&self, name: &str) -> &[Line] {
        self.consoles.get(name).map_or(&[], Vec::as_slice)
    }

    /// The line of the script that failed, from 1.
    pub fn failed_line(&self) -> Option<usize> {
        let number =
            |line: &String| line.strip_prefix("run: script line ")?.split(':').next()?.parse().ok();
        self.own.iter().find_map(number)
    }
}

/// A life of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// When it began.
    pub start: u64,
    /// In which cell.
    pub home: u8,
    /// When the next one began, or never: what it printed, it printed before.
    pub until: u64,
    /// When and why it ended. With its home goes whoever could say so.
    pub end: Option<(u64, String)>,
}

impl Record {
    /// The lives of a VM.
    pub fn lives(&self, vm: &str) -> Vec<Life> {
        let mut lives: Vec<Life> = Vec::new();
        for event in &self.events {
            match event.kind.as_str() {
                "vm-start" if event.vm == vm => {
                    if let Some(last) = lives.last_mut() {
                        last.until = event.t_ns;
                    }
                    let home = u8::try_from(event.cell).unwrap_or(u8::MAX);
                    lives.push(Life { start: event.t_ns, home, until: u64::MAX, end: None });
                }
                "vm-end" if event.vm == vm => {
                    if let Some(last) = lives.last_mut() {
                        last.end.get_or_insert((event.t_ns, event.cause.clone()));
                    }
                }
                "cell-lost" => {
                    if let Some(last) = lives.last_mut()
                        && event.lost == Some(last.home)
                    {
                        last.end.get_or_insert((event.t_ns, "home-lost".into()));
                    }
                }
                _ => {}
            }
        }
        lives
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(t_ns: u64, text: &str) -> Line {
        Line { t_ns, text: text.into() }
    }

    #[test]
    fn a_run_is_taken_apart() {
        let output = "irix-0| irix: shell ready\r\nrun: cell 2 was lost\nrun: script line 12: x\n";
        let events = r#"{"v":1,"seq":0,"t_ns":1,"cell":2,"cpu":2,"kind":"vm-start","vm":"a"}
{"v":1,"seq":0,"t_ns":5,"cell":0,"cpu":0,"kind":"cell-lost","lost":2}
{"v":1,"seq":1,"t_ns":7,"cell":1,"cpu":1,"kind":"vm-start","vm":"a"}
{"v":1,"seq":1,"t_ns":9,"cell":1,"cpu":1,"kind":"vm-end","vm":"a","cause":"reset"}
{"v":1,"seq":2,"t_"#;
        let pieces = r#"{"console":"a","t_ns":2,"text":"one\r\ntwo"}
{"console":"b","t_ns":3,"text":"x\n"}
{"console":"a","t_ns":4,"text":"\nthr"}
{"console":"a","t_ns":8,"text":"one\nz"}
{"conso"#;
        let record = Record::new(Some(3), output, events, pieces);
        let lines = [line(2, "one"), line(4, "two"), line(8, "one")];
        assert_eq!(record.console("a"), lines, "what a life has not ended is dropped");
        assert_eq!(record.console("b"), [line(3, "x")]);
        assert_eq!(record.own, ["run: cell 2 was lost", "run: script line 12: x"]);
        assert_eq!(record.failed_line(), Some(12));
        assert_eq!(record.events.len(), 4);
        let lives = record.lives("a");
        assert_eq!(lives.len(), 2);
        assert_eq!((lives[0].home, lives[0].until), (2, 7));
        assert_eq!(lives[0].end, Some((5, "home-lost".into())));
        assert_eq!(lives[1].end, Some((9, "reset".into())));
    }
}
