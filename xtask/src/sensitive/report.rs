//! What the guest prints, read.

use anyhow::{Context, Result, bail};

/// Values of Status under which an instruction is tried in each mode.
pub const STATUSES: usize = 32;
/// Accesses to an address in each mode: load, store and fetch under each of four values of Status.
pub const ACCESSES: usize = 12;

/// The two modes.
pub const MODES: [Mode; 2] = [Mode::Supervisor, Mode::User];

/// A mode less privileged than the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// KSU = 1.
    Supervisor,
    /// KSU = 2.
    User,
}

/// Instructions that did the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// Their group.
    pub group: String,
    /// The first of them.
    pub first: u32,
    /// How many.
    pub count: usize,
    /// By mode, a letter for each value of Status.
    pub outcomes: [String; 2],
}

/// What an address did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The address.
    pub address: u64,
    /// By mode, a letter for each access.
    pub outcomes: [String; 2],
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The instructions, in the order of the groups.
    pub words: Vec<Words>,
    /// The addresses, ascending.
    pub places: Vec<Place>,
    /// State of the kernel's that changed.
    pub changed: Vec<String>,
}

impl Report {
    /// Reads the lines that begin with `probe: `, after whatever a console has before them.
    ///
    /// # Errors
    /// A line is none of the known ones, or beginning or end is missing.
    pub fn parse(output: &str) -> Result<Self> {
        let mut report = Self::default();
        let (mut begun, mut ended) = (false, false);
        for line in output.lines() {
            let Some((_, text)) = line.split_once("probe: ") else { continue };
            let words: Vec<&str> = text.split_ascii_whitespace().collect();
            let outcomes = |at: &[&str], len: usize| match at {
                [supervisor, user] if supervisor.len() == len && user.len() == len => {
                    Ok([supervisor.to_string(), user.to_string()])
                }
                _ => bail!("{text:?} has not its letters"),
            };
            match words[..] {
                ["begin", _] => begun = true,
                ["end"] => ended = true,
                ["changed", ..] => report.changed.push(text.to_string()),
                ["word", group, first, count, ref rest @ ..] => report.words.push(Words {
                    group: group.into(),
                    first: u32::from_str_radix(first, 16).with_context(|| text.to_string())?,
                    count: count.parse().with_context(|| text.to_string())?,
                    outcomes: outcomes(rest, STATUSES)?,
                }),
                ["at", address, ref rest @ ..] => report.places.push(Place {
                    address: u64::from_str_radix(address, 16).with_context(|| text.to_string())?,
                    outcomes: outcomes(rest, ACCESSES)?,
                }),
                _ => bail!("{text:?} is no line of the table"),
            }
        }
        if !begun || !ended || report.words.is_empty() || report.places.is_empty() {
            bail!("the table has no beginning, no end, or nothing in it");
        }
        Ok(report)
    }

    /// How many instructions were tried.
    pub fn instructions(&self) -> usize {
        self.words.iter().map(|words| words.count).sum()
    }
}
