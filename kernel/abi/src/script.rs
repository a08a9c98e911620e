//! Compiled scripts: what the player inside the machine executes.
//!
//! # What a step means
//!
//! Steps run in order, each on the console that the last `console` step named; before the first one,
//! the console of the first VM. Each console has a *position*: the end of its last match, at first the start of its output.
//!
//! - `send` types its bytes. Typing at a VM that is not running is typing at a machine that is
//!   switched off: nobody reads it.
//! - `expect` ends, and moves the position, at the **first byte** at which the output after the
//!   position contains a match: `expect "[0-9]+"` ends at the first digit. How the output was cut into
//!   records does not matter. It fails when `timeout_ns` of virtual time have passed since the step
//!   began. Output that came before the step began counts, if it is after the position.
//! - `absent` fails if an `expect` of the same expression would have ended by now; it never waits and
//!   never moves the position.
//! - `wait` lets virtual time pass. `quit`, and the end of the script, end the run: it has passed.
//!
//! # How an expression is compiled
//!
//! Each regular expression is a serialised *sparse* DFA of `regex-automata` 0.4 in the **machine's**
//! byte order. Host and player must agree on how it is built:
//!
//! ```text
//! use regex_automata::{dfa::{StartKind, dense}, nfa::thompson, util::syntax};
//! let dfa = dense::Builder::new()
//!     .configure(dense::Config::new()
//!         .start_kind(StartKind::Unanchored)   // the player starts it anywhere in the output
//!         .dfa_size_limit(Some(DFA_LIMIT))     // an expression too large is refused by name
//!         .determinize_size_limit(Some(DFA_LIMIT)))
//!     .syntax(syntax::Config::new()
//!         .unicode(false).utf8(false)          // consoles are bytes; `\w`, `\b`, (?i) are ASCII
//!         .multi_line(true).crlf(true))        // `^` `$` are the ends of a line, which is \n or \r\n
//!     .thompson(thompson::Config::new().utf8(false))
//!     .build(pattern)?
//!     .to_sparse()?;
//! let bytes = dfa.to_bytes_little_endian();    // or to_bytes_big_endian()
//! ```
//!
//! - `^` and `\b` see the byte before the position. `$` and `\b` at the end of what has been printed
//!   so far wait for the next byte: a prompt is not the end of a line.
//! - A character outside ASCII stands for its UTF-8 bytes.
//! - An expression that matches the empty string (`a*`) matches at once; the compiler refuses it.

use crate::codec::{DecodeError, Reader, Writer};
use alloc::string::String;
use alloc::vec::Vec;

/// Most bytes of memory for building one expression's DFA, and of the dense DFA itself.
pub const DFA_LIMIT: usize = 4 << 20;

/// One step. `console` is a stream number ([`crate::ring`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Line of the source, from 1.
    pub line: u32,
    /// What to do.
    pub act: Act,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Later steps speak to this console.
    Console {
        /// Its stream.
        stream: u16,
    },
    /// Types these bytes (the newline included).
    Send {
        /// What to type.
        bytes: Vec<u8>,
    },
    /// Waits until the console's output after the last match matches.
    Expect {
        /// The source of the expression, for the report.
        pattern: String,
        /// Its DFA, serialised as the module says.
        dfa: Vec<u8>,
        /// How long to wait, in nanoseconds of virtual time.
        timeout_ns: u64,
    },
    /// Fails if the console's output after the last match, so far, matches.
    Absent {
        /// The source of the expression, for the report.
        pattern: String,
        /// Its DFA, serialised as the module says.
        dfa: Vec<u8>,
    },
    /// Lets time pass.
    Wait {
        /// Nanoseconds of virtual time.
        ns: u64,
    },
    /// Ends the run.
    Quit,
}

/// Encodes a script.
#[must_use]
pub fn encode(steps: &[Step]) -> Vec<u8> {
    let mut w = Writer::new();
    w.u32(u32::try_from(steps.len()).unwrap_or(u32::MAX));
    for step in steps {
        w.u32(step.line);
        match &step.act {
            Act::Console { stream } => {
                w.u8(0);
                w.u16(*stream);
            }
            Act::Send { bytes } => {
                w.u8(1);
                w.blob(bytes);
            }
            Act::Expect { pattern, dfa, timeout_ns } => {
                w.u8(2);
                w.str(pattern);
                w.blob(dfa);
                w.u64(*timeout_ns);
            }
            Act::Absent { pattern, dfa } => {
                w.u8(3);
                w.str(pattern);
                w.blob(dfa);
            }
            Act::Wait { ns } => {
                w.u8(4);
                w.u64(*ns);
            }
            Act::Quit => w.u8(5),
        }
    }
    w.bytes
}

/// Decodes a script.
///
/// # Errors
/// When the blob is short or names an unknown step.
pub fn decode(bytes: &[u8]) -> Result<Vec<Step>, DecodeError> {
    let mut r = Reader::new(bytes);
    let count = r.u32()?;
    let mut steps = Vec::new();
    for _ in 0..count {
        steps.push(Step {
            line: r.u32()?,
            act: match r.u8()? {
                0 => Act::Console { stream: r.u16()? },
                1 => Act::Send { bytes: r.blob()?.to_vec() },
                2 => {
                    Act::Expect { pattern: r.str()?, dfa: r.blob()?.to_vec(), timeout_ns: r.u64()? }
                }
                3 => Act::Absent { pattern: r.str()?, dfa: r.blob()?.to_vec() },
                4 => Act::Wait { ns: r.u64()? },
                5 => Act::Quit,
                _ => return Err(r.error("a script step")),
            },
        });
    }
    Ok(steps)
}

/// How the machine says that a run has ended, in the stream [`crate::ring::stream::OUTCOME`], just
/// before it powers off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No script: every VM has ended, or an operator said `quit`.
    Done,
    /// Every step of the script passed.
    ScriptPassed,
    /// A step failed.
    ScriptFailed {
        /// The step's line.
        line: u32,
        /// What was expected and what came, for a person.
        report: String,
    },
}

impl Outcome {
    /// Encodes the outcome as a record's payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        match self {
            Self::Done => w.u8(0),
            Self::ScriptPassed => w.u8(1),
            Self::ScriptFailed { line, report } => {
                w.u8(2);
                w.u32(*line);
                w.str(report);
            }
        }
        w.bytes
    }

    /// Decodes a record's payload.
    ///
    /// # Errors
    /// When the payload is short or names an unknown outcome.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        Ok(match r.u8()? {
            0 => Self::Done,
            1 => Self::ScriptPassed,
            2 => Self::ScriptFailed { line: r.u32()?, report: r.str()? },
            _ => return Err(r.error("an outcome")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_round_trips() {
        let acts = [
            Act::Console { stream: 17 },
            Act::Send { bytes: b"ls\n".to_vec() },
            Act::Expect { pattern: "a+".into(), dfa: alloc::vec![1, 2, 3], timeout_ns: 5 },
            Act::Absent { pattern: "b".into(), dfa: Vec::new() },
            Act::Wait { ns: 9 },
            Act::Quit,
        ];
        let steps: Vec<Step> =
            acts.into_iter().zip(1..).map(|(act, line)| Step { line, act }).collect();
        let bytes = encode(&steps);
        assert_eq!(decode(&bytes), Ok(steps));
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn every_outcome_round_trips() {
        for outcome in [
            Outcome::Done,
            Outcome::ScriptPassed,
            Outcome::ScriptFailed { line: 3, report: "expected x".into() },
        ] {
            assert_eq!(Outcome::decode(&outcome.encode()), Ok(outcome));
        }
    }
}
