//! The script player: runs the steps of a compiled script against the consoles of its machine.
//!
//! It is a pure state machine: it is fed every byte that a console emits, and the virtual time, and
//! answers with what to type and how the run ended. Equal input gives equal answers, however the
//! output was cut into pieces. What each step means is written in [`abi::script`].
//!
//! # No output is kept
//!
//! `expect` and `absent` search all output after the last match on their console, also what came
//! before they began. Keeping that output would need a bound (a guest may print for hours before a
//! step looks). But the script is a straight line: where one expectation's match ends, the searches
//! that will start there are known. So each is run *ahead*, from the byte where it will have to
//! start, before its step begins; a step then only asks how its own search stands. What is kept is
//! one automaton state for each search, whatever a console prints.
//!
//! So a player can go on in another cell as well: the step, when it began and those states are all that it needs
//! ([`Player::save`], [`Player::resume`]).

mod console;
mod matcher;

pub use matcher::{Hit, Matcher, Progress};

use abi::DecodeError;
use abi::codec::{Reader, Writer};
use abi::ring::stream;
use abi::script::{Act, Outcome, Step};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use console::Console;

/// What the player wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Type these bytes at the console.
    Type {
        /// Its stream.
        stream: u16,
        /// What to type.
        bytes: Vec<u8>,
    },
    /// End the run. Nothing comes after it.
    End(Outcome),
}

/// Plays one script.
#[derive(Debug)]
pub struct Player {
    steps: Vec<Step>,
    /// The step being done: `steps.len()` after the last.
    at: usize,
    /// When that step began; `None`: it has not begun.
    since: Option<u64>,
    /// The console that steps speak to.
    stream: u16,
    consoles: Vec<Console>,
    /// Set when a step failed, until it is reported.
    failed: Option<Outcome>,
    over: bool,
}

impl Player {
    /// A player of `steps`; `name` names a stream's console in reports.
    ///
    /// # Errors
    /// When an expression can't be decoded: the outcome names its line.
    pub fn new(steps: Vec<Step>, name: impl Fn(u16) -> String) -> Result<Self, Outcome> {
        let mut player = Self::plan(steps, name, |line, console| {
            console.check_last().map_err(|e| Outcome::ScriptFailed {
                line,
                report: format!("the compiled expression can't be used: {e}"),
            })
        })?;
        for console in &mut player.consoles {
            console.begin();
        }
        Ok(player)
    }

    /// A player of `steps` that has not begun. `check` is given each search's line, when it was planned last on its console.
    fn plan<E>(
        mut steps: Vec<Step>,
        name: impl Fn(u16) -> String,
        check: impl Fn(u32, &mut Console) -> Result<(), E>,
    ) -> Result<Self, E> {
        let first = abi::ring::vm_stream(abi::VmId(0));
        let mut consoles: Vec<Console> = Vec::new();
        let mut stream = first;
        for step in &mut steps {
            if let Act::Console { stream: next } = step.act {
                stream = next;
            }
            let (dfa, ends_at_match) = match &mut step.act {
                Act::Expect { dfa, .. } => (core::mem::take(dfa), true),
                Act::Absent { dfa, .. } => (core::mem::take(dfa), false),
                _ => continue,
            };
            let at = consoles.iter().position(|c| c.stream() == stream).unwrap_or_else(|| {
                consoles.push(Console::new(stream, name(stream)));
                consoles.len() - 1
            });
            consoles[at].plan(dfa, ends_at_match);
            check(step.line, &mut consoles[at])?;
        }
        Ok(Self { steps, at: 0, since: None, stream: first, consoles, failed: None, over: false })
    }

    /// How far it is: which step, and since when.
    #[must_use]
    pub const fn position(&self) -> (usize, Option<u64>) {
        (self.at, self.since)
    }

    /// Writes down all that another player of the same script needs to go on.
    pub fn save(&self, w: &mut Writer) {
        w.u32(self.at as u32);
        w.u64(self.since.unwrap_or(u64::MAX));
        for console in &self.consoles {
            console.save(w);
        }
    }

    /// A player of the same `steps` that goes on where [`Self::save`] was, at virtual time `now`. The monitor's console, which is another
    /// cell's now, begins a line. Expressions are decoded when they are needed: for all of them nobody has the time.
    ///
    /// # Errors
    /// When that was another script.
    pub fn resume(
        steps: Vec<Step>,
        name: impl Fn(u16) -> String,
        r: &mut Reader<'_>,
        now: u64,
    ) -> Result<Self, DecodeError> {
        let mut player = Self::plan(steps, name, |_, _| Ok(()))?;
        let error = r.error("a step");
        let at = r.u32()? as usize;
        for step in player.steps.get(..at).ok_or(error)? {
            if let Act::Console { stream } = step.act {
                player.stream = stream;
            }
        }
        player.at = at;
        player.since = Some(r.u64()?).filter(|since| *since != u64::MAX);
        for console in &mut player.consoles {
            console.resume(r)?;
        }
        let monitor = player.consoles.iter().find(|console| console.stream() == stream::MONITOR);
        if monitor.is_some_and(|console| !console.is_at_line_start()) {
            player.output(now, stream::MONITOR, b"\r\n");
        }
        Ok(player)
    }

    /// A console has emitted `bytes` at the virtual time `now` (nanoseconds).
    pub fn output(&mut self, now: u64, stream: u16, bytes: &[u8]) {
        // What came too late for the step must not satisfy it.
        if self.failed.is_none() && self.deadline().is_some_and(|deadline| now > deadline) {
            self.check(now);
        }
        if let Some(console) = self.consoles.iter_mut().find(|c| c.stream() == stream) {
            console.output(bytes);
        }
    }

    /// What to do at the virtual time `now`; to be called until it answers `None`, after output was
    /// fed and when [`Self::deadline`] has come.
    pub fn poll(&mut self, now: u64) -> Option<Action> {
        while !self.over {
            if let Some(outcome) = self.failed.take() {
                self.over = true;
                return Some(Action::End(outcome));
            }
            let Some(step) = self.steps.get(self.at) else {
                self.over = true;
                return Some(Action::End(Outcome::ScriptPassed));
            };
            match &step.act {
                Act::Quit => {
                    self.over = true;
                    return Some(Action::End(Outcome::ScriptPassed));
                }
                Act::Send { bytes } => {
                    let action = Action::Type { stream: self.stream, bytes: bytes.clone() };
                    self.next();
                    return Some(action);
                }
                Act::Console { stream } => {
                    self.stream = *stream;
                    self.next();
                }
                Act::Expect { .. } | Act::Absent { .. } | Act::Wait { .. } => {
                    self.since.get_or_insert(now);
                    if !self.check(now) {
                        return None;
                    }
                }
            }
        }
        None
    }

    /// When [`Self::poll`] is to be called though nothing was printed; `None`: never.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let since = self.since?;
        match &self.steps.get(self.at)?.act {
            Act::Expect { timeout_ns, .. } => Some(since.saturating_add(*timeout_ns)),
            Act::Wait { ns } => Some(since.saturating_add(*ns)),
            _ => None,
        }
    }

    /// The outcome of a run that something other than the script ends now (an operator's `quit`):
    /// it has passed if no step was left to do.
    #[must_use]
    pub fn interrupted(&self) -> Outcome {
        match self.steps.get(self.at) {
            None | Some(Step { act: Act::Quit, .. }) => Outcome::ScriptPassed,
            Some(step) => Outcome::ScriptFailed {
                line: step.line,
                report: "the monitor was told to quit before this step was done".into(),
            },
        }
    }

    fn next(&mut self) {
        self.at += 1;
        self.since = None;
    }

    /// Whether the current step, one that looks or waits, is over, well or not. Goes on if well.
    fn check(&mut self, now: u64) -> bool {
        let late = self.deadline().is_some_and(|deadline| now >= deadline);
        let Some(step) = self.steps.get(self.at) else { return false };
        let console = self.consoles.iter_mut().find(|c| c.stream() == self.stream);
        let failure = match (&step.act, console) {
            (Act::Wait { .. }, _) if late => None,
            (Act::Expect { .. }, Some(console)) if console.has_matched() => {
                console.done();
                None
            }
            (Act::Expect { pattern, timeout_ns, .. }, Some(console)) if late => {
                let what = format!("nothing matched in {}", Seconds(*timeout_ns));
                Some(report("expect", pattern, console, &what))
            }
            (Act::Absent { pattern, .. }, Some(console)) => {
                if console.has_matched() {
                    Some(report("absent", pattern, console, "it was printed"))
                } else {
                    console.done();
                    None
                }
            }
            _ => return false,
        };
        if let Some(report) = failure {
            self.failed = Some(Outcome::ScriptFailed { line: step.line, report });
        } else {
            self.next();
        }
        true
    }
}

fn report(step: &str, pattern: &str, console: &Console, what: &str) -> String {
    let mut out = format!("{step} \"{pattern}\" on `{}`: {what}", console.name());
    if console.tail().is_empty() && console.is_resumed() {
        out.push_str("; nothing has been printed there since another cell plays the script");
    } else if console.tail().is_empty() {
        out.push_str("; nothing has been printed there");
    } else {
        out.push_str("; the last output there:\n");
        out.push_str(console.tail().lines("  | ").trim_end());
    }
    out
}

/// Nanoseconds shown as seconds, without needless digits.
struct Seconds(u64);

impl core::fmt::Display for Seconds {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (whole, rest) = (self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        if rest == 0 {
            write!(f, "{whole} s")
        } else {
            let digits = format!("{rest:09}");
            write!(f, "{whole}.{} s", digits.trim_end_matches('0'))
        }
    }
}
