//! What is measured: phases, the images they run on, and how both sides are told apart in what a run leaves behind.

use super::super::figures::LAUNCH;
use crate::run::count::{Counts, Record, Visit};
use anyhow::{Context, Result};
use clap::ValueEnum;
use std::collections::BTreeMap;
use std::time::Duration;

/// A part of a guest's run that is measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Phase {
    /// The stock kernel, from its first instruction to that of `/init`.
    Boot,
    /// A busybox script that forks and executes.
    Script,
    /// SHA-256 of 64 MB of memory.
    User,
    /// gcc on a program of two files.
    Compile,
    /// The IRIX-like guest's mix, linked for supervisor mode.
    Mix,
    /// The same, linked in KSEG0.
    MixKseg0,
}

/// What phases run on: each is one machine on either side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Image {
    /// The stock kernel with busybox.
    Busybox,
    /// The stock kernel with a compiler.
    Compiler,
    /// Our guest, by its name as a built-in image.
    Irix(&'static str),
}

/// What executes a VM's kernel mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// The interpreter
    Interpreter,
    /// The CPU, after the translator
    #[default]
    Translator,
    /// The CPU itself: it is linked for supervisor mode
    #[value(skip)]
    Direct,
}

impl Engine {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interpreter => "interpreter",
            Self::Translator => "translator",
            Self::Direct => "direct",
        }
    }

    /// Its name in a VM's configuration.
    pub const fn configured(self) -> &'static str {
        match self {
            Self::Interpreter | Self::Direct => "direct",
            Self::Translator => "translator",
        }
    }
}

impl Image {
    /// What executes its kernel mode, if others' is executed as `asked`.
    pub fn engine(self, asked: Engine) -> Engine {
        if self == SUPERVISOR && asked == Engine::Interpreter { Engine::Direct } else { asked }
    }
}

/// Our guest, linked for supervisor mode.
const SUPERVISOR: Image = Image::Irix("irix");

impl Phase {
    /// All, in the order in which they are reported.
    pub const ALL: [Self; 6] =
        [Self::Boot, Self::Script, Self::User, Self::Compile, Self::Mix, Self::MixKseg0];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Script => "script",
            Self::User => "user",
            Self::Compile => "compile",
            Self::Mix => "mix",
            Self::MixKseg0 => "mix-kseg0",
        }
    }

    /// What it runs on.
    pub const fn image(self) -> Image {
        match self {
            Self::Boot | Self::Script | Self::User => Image::Busybox,
            Self::Compile => Image::Compiler,
            Self::Mix => SUPERVISOR,
            Self::MixKseg0 => Image::Irix("irix-kseg0"),
        }
    }

    /// The markers before its first instruction and after its last; none at its beginning: it is where the machine's
    /// own is.
    pub const fn markers(self) -> (Option<u16>, u16) {
        match self {
            Self::Boot => (None, 0x1011),
            Self::Script => (Some(0x1012), 0x1013),
            Self::Compile => (Some(0x1014), 0x1015),
            Self::User => (Some(0x1016), 0x1017),
            Self::Mix | Self::MixKseg0 => (Some(0x1001), 0x1002),
        }
    }

    /// What the console shows as it begins and as it ends.
    pub fn lines(self) -> (String, String) {
        match self {
            Self::Boot => ("Linux version ".into(), "bench: boot ends".into()),
            Self::Mix | Self::MixKseg0 => ("irix: ".into(), "check mix 26798793e74e76c4".into()),
            _ => (format!("bench: {} begins", self.name()), format!("bench: {} ends", self.name())),
        }
    }
}

/// A line that a guest has printed, and when the host has seen it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Since the machine was started.
    pub at: Duration,
    /// Without the console's name before it.
    pub text: String,
}

/// The host's time between the lines of a phase.
///
/// # Errors
/// The guest has not printed one of them.
pub fn host_time(phase: Phase, lines: &[Line]) -> Result<Duration> {
    let (first, last) = phase.lines();
    let find = |lines: &[Line], what: &str| lines.iter().position(|line| line.text.contains(what));
    let missing = |what: &str| format!("the guest has not printed {what:?}");
    let begin = find(lines, &first).with_context(|| missing(&first))?;
    let end = begin + find(&lines[begin..], &last).with_context(|| missing(&last))?;
    Ok(lines[end].at - lines[begin].at)
}

/// What was counted in a phase.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Instructions, without those of loops.
    pub total: u64,
    /// By range, loops too.
    pub ranges: BTreeMap<String, u64>,
    /// What brought the monitor in.
    pub visits: Vec<Kind>,
}

/// Visits of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kind {
    /// The vector.
    pub vector: String,
    /// The guest's instruction, or `-`.
    pub instruction: String,
    /// How many.
    pub count: u64,
    /// Their instructions.
    pub sum: u64,
    /// The commonest lengths, with how many visits had each.
    pub lengths: Vec<(u64, u64)>,
}

impl Counted {
    /// What was executed in a range.
    pub fn range(&self, name: &str) -> u64 {
        self.ranges.get(name).copied().unwrap_or(0)
    }

    /// What a phase was, by the records of the CPU that it ran on.
    ///
    /// # Errors
    /// A marker is missing.
    pub fn new(phase: Phase, records: &[Record], in_vm: bool) -> Result<Self> {
        let (first, last) = phase.markers();
        let passed = |wanted: u16| {
            move |record: &Record| match record {
                Record::Marker { marker, counts, .. } if *marker == wanted => Some(counts.clone()),
                _ => None,
            }
        };
        let missing = |marker: u16| format!("marker {marker:#x} was not passed");
        let end = records.iter().find_map(passed(last)).with_context(|| missing(last))?;
        let begin = match first {
            Some(first) => {
                records.iter().find_map(passed(first)).with_context(|| missing(first))?
            }
            // The guest's first instruction is what the monitor first lets it execute.
            None if in_vm => {
                records.iter().find_map(passed(LAUNCH)).with_context(|| missing(LAUNCH))?
            }
            None => Counts::default(),
        };
        let mut visits: BTreeMap<(String, String), Kind> = BTreeMap::new();
        for record in records {
            if let Record::Visit(visit) = record
                && visit.until == Some(last)
            {
                let key = (visit.vector.clone(), visit.instruction.clone());
                visits.entry(key).or_default().add(visit);
            }
        }
        let ranges = end
            .ranges
            .iter()
            .map(|(name, &n)| (name.clone(), n - begin.ranges.get(name).copied().unwrap_or(0)));
        Ok(Self {
            total: end.total - begin.total,
            ranges: ranges.collect(),
            visits: visits.into_values().collect(),
        })
    }
}

impl Kind {
    fn add(&mut self, visit: &Visit) {
        self.vector.clone_from(&visit.vector);
        self.instruction.clone_from(&visit.instruction);
        self.count += visit.count;
        self.sum += visit.sum;
        self.lengths.extend(&visit.lengths);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::count::records;

    fn lines(text: &[(u64, &str)]) -> Vec<Line> {
        let line = |(s, text): &(u64, &str)| Line {
            at: Duration::from_secs(*s),
            text: (*text).to_owned(),
        };
        text.iter().map(line).collect()
    }

    #[test]
    fn a_phase_lasts_from_line_to_line() {
        let lines = lines(&[
            (1, "[    0.000000] Linux version 6.1.0"),
            (9, "bench: boot ends"),
            (10, "bench: script begins"),
            (13, "bench: script ends"),
        ]);
        assert_eq!(host_time(Phase::Boot, &lines).unwrap().as_secs(), 8);
        assert_eq!(host_time(Phase::Script, &lines).unwrap().as_secs(), 3);
        let error = host_time(Phase::User, &lines).unwrap_err().to_string();
        assert_eq!(error, "the guest has not printed \"bench: user begins\"");
        assert!(host_time(Phase::Script, &lines[..3]).is_err());
    }

    fn marker(marker: u16, total: u64, idle: u64, rest: u64) -> String {
        format!(
            r#"{{"kind":"marker","marker":{marker},"visit":null,"cpu":0,"total":{total},"loops":{idle},"ranges":{{"idle":{idle},"rest":{rest}}}}}"#
        )
    }

    fn visit(until: &str, vector: &str, count: u64, sum: u64) -> String {
        format!(
            r#"{{"kind":"visit","until":{until},"cpu":0,"vector":"{vector}","instruction":"-","marker":0,"count":{count},"sum":{sum},"min":1,"median":1,"p90":1,"max":1,"lengths":[[23,{count}]]}}"#
        )
    }

    #[test]
    fn a_phase_is_counted_from_marker_to_marker() {
        let text = [
            marker(LAUNCH, 1000, 0, 0),
            marker(LAUNCH, 1100, 0, 0),
            marker(0x1011, 5000, 7, 400),
            visit("4113", "xrefill", 9, 90),
            marker(0x1012, 5100, 7, 410),
            visit("4114", "xrefill", 1, 1),
            marker(0x1013, 9100, 17, 2410),
            visit("4115", "xrefill", 2, 46),
            visit("4115", "general", 1, 500),
        ]
        .join("\n");
        let records = records(&text).unwrap();
        let script = Counted::new(Phase::Script, &records, true).unwrap();
        assert_eq!((script.total, script.range("idle"), script.range("rest")), (4000, 10, 2000));
        let visits: Vec<_> =
            script.visits.iter().map(|kind| (kind.vector.as_str(), kind.count, kind.sum)).collect();
        assert_eq!(visits, [("general", 1, 500), ("xrefill", 2, 46)]);
        assert_eq!(Counted::new(Phase::Boot, &records, true).unwrap().total, 4000);
        assert_eq!(Counted::new(Phase::Boot, &records, false).unwrap().total, 5000);
        let error = Counted::new(Phase::User, &records, true).unwrap_err().to_string();
        assert_eq!(error, "marker 0x1017 was not passed");
    }

    #[test]
    fn a_kernel_for_supervisor_mode_is_never_interpreted() {
        for asked in [Engine::Interpreter, Engine::Translator] {
            for phase in Phase::ALL {
                let engine = phase.image().engine(asked);
                let direct = phase == Phase::Mix && asked == Engine::Interpreter;
                assert_eq!(engine, if direct { Engine::Direct } else { asked });
            }
        }
    }

    #[test]
    fn phases_are_told_by_their_names() {
        for phase in Phase::ALL {
            assert_eq!(Phase::from_str(phase.name(), false), Ok(phase));
        }
    }
}
