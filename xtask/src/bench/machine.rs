//! A machine that is measured.

use crate::endian::Endian;
use crate::run::count::{Record, records};
use crate::test::place::Place;
use crate::test::process;
use anyhow::{Context, Result, bail};
use std::time::Duration;

/// How long a machine may take, in host time.
const LIMIT: Duration = Duration::from_secs(1200);

/// How a machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The plugin counts.
    Counted,
    /// Time is counted in instructions.
    Timed,
    /// Both, which is possible with one CPU.
    Exact,
}

/// A machine, and what it does.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// What the measurement is called.
    pub name: &'a str,
    /// Its byte order.
    pub endian: Endian,
    /// How it runs.
    pub mode: Mode,
    /// Its configuration.
    pub config: &'a str,
    /// The script that it plays.
    pub script: &'a str,
    /// Functions of the monitor that are counted apart.
    pub functions: &'a [&'a str],
}

/// What a machine has left behind.
#[derive(Debug)]
pub struct Ran {
    /// What was printed.
    pub output: String,
    /// What was counted.
    pub records: Vec<Record>,
    /// What happened, a JSON object a line (docs/events.md).
    pub events: String,
}

/// `run`'s exit status when a cell was lost, and all else went as it should.
const LOST: i32 = 3;

impl Machine<'_> {
    /// Boots it, has it play its script, and returns what was printed and counted.
    ///
    /// # Errors
    /// It did not run to its end, or its counts can't be read.
    pub fn run(&self) -> Result<(String, Vec<Record>)> {
        let ran = self.boot(0)?;
        Ok((ran.output, ran.records))
    }

    /// The same, where a cell is lost on the way.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_with_a_loss(&self) -> Result<Ran> {
        self.boot(LOST)
    }

    fn boot(&self, status: i32) -> Result<Ran> {
        let name = format!("bench-{}-{}", self.name, self.endian);
        eprintln!("bench: {name}");
        let place = Place::new(&name)?;
        let config = place.write("machine.toml", self.config)?;
        let script = place.write("script", self.script)?;
        let counts = place.path().join("counts.jsonl");
        let (mut command, line) =
            process::xtask(&["run", "--config", &config, "--script", &script]);
        command.args(["--endian", &self.endian.to_string()]);
        if self.mode != Mode::Counted {
            command.arg("--icount");
        }
        if self.mode != Mode::Timed {
            command.arg("--count").arg(&counts);
        }
        for function in self.functions {
            command.args(["--count-function", function]);
        }
        let events = place.path().join("events.jsonl");
        command.arg("--events").arg(&events);
        let ended = process::run(command, &name, LIMIT)?;
        if ended.status.and_then(|status| status.code()) != Some(status) {
            let tail = process::tail(&ended.output, 25).join("\n");
            bail!("a machine did not run to its end:\n{tail}\nreproduce: {line}");
        }
        let records = match self.mode {
            Mode::Counted | Mode::Exact => {
                let text = std::fs::read_to_string(&counts);
                text.map_err(Into::into).and_then(|text| records(&text))
            }
            Mode::Timed => Ok(Vec::new()),
        };
        let records = records.with_context(|| counts.display().to_string())?;
        let events =
            std::fs::read_to_string(&events).with_context(|| events.display().to_string())?;
        Ok(Ran { output: ended.output, records, events })
    }
}
