//! What travels in the player rings: between the leader, which serves the monitor console and plays the
//! script, and the others. Each cell has a pair of rings in low RAM ([`crate::map::player_out`],
//! [`crate::map::player_in`]), which belong to the system controller: nothing is agreed on through them.
//!
//! An [`Order`] goes to a cell, a [`Report`] comes from it. Each is one record of [`crate::ring`]; its stream
//! says which kind it is: a VM's console is that VM's, the others are the constants of this module.

use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::VmId;
use crate::ring::{RECORD_MAX, stream};
use alloc::string::String;
use alloc::vec::Vec;

/// A command: the stream of an [`Order::Command`] and of its [`Report::Answer`].
const COMMAND: u16 = 4;
/// The stream of an [`Order::Release`].
const RELEASE: u16 = 5;
/// The stream of an [`Order::Inherit`].
const INHERIT: u16 = 6;
/// Most bytes of text in one record.
const TEXT_MAX: usize = RECORD_MAX - 16;

/// From the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Type these bytes (at most [`RECORD_MAX`]) at the console of a VM of yours.
    Type {
        /// Its stream.
        console: u16,
        /// What to type.
        bytes: Vec<u8>,
    },
    /// Do what was typed at the monitor console, and answer.
    Command {
        /// The answer's number.
        id: u32,
        /// The VM that it names is yours from now on, if it is not yet.
        adopt: bool,
        /// The line.
        line: String,
    },
    /// A VM whose home has died is yours from now on; answer when you have it. You may have it already.
    Inherit {
        /// The answer's number.
        id: u32,
        /// Which VM.
        vm: VmId,
        /// Start it.
        starts: bool,
        /// Take it though there is no memory to start it.
        insists: bool,
    },
    /// A VM is another cell's from now on, unless it runs; answer.
    Release {
        /// The answer's number.
        id: u32,
        /// Which VM.
        vm: VmId,
    },
}

/// How a command went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Result {
    /// It was done.
    Done = 0,
    /// It was not, and why is said.
    Refused = 1,
    /// The VM that it names is another cell's.
    Elsewhere = 2,
}

/// To the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A VM's console has printed bytes, at the record's time: for the script.
    Printed {
        /// Its stream.
        console: u16,
        /// What it has printed.
        bytes: Vec<u8>,
    },
    /// The cell announces something by itself.
    Said {
        /// What, in lines.
        text: String,
        /// The next record goes on with it.
        more: bool,
    },
    /// What came of an order.
    Answer {
        /// The order's number.
        id: u32,
        /// How it went.
        result: Result,
        /// What there is to say, in lines.
        text: String,
        /// The next record goes on with it.
        more: bool,
    },
}

impl Order {
    /// The record: its stream and payload.
    #[must_use]
    pub fn encode(&self) -> (u16, Vec<u8>) {
        let mut w = Writer::new();
        let stream = match self {
            Self::Type { console, bytes } => {
                w.bytes.extend_from_slice(bytes);
                *console
            }
            Self::Command { id, adopt, line } => {
                w.u32(*id);
                w.u8(u8::from(*adopt));
                w.str(line);
                COMMAND
            }
            Self::Release { id, vm } => {
                w.u32(*id);
                w.u16(vm.0);
                RELEASE
            }
            Self::Inherit { id, vm, starts, insists } => {
                w.u32(*id);
                w.u16(vm.0);
                w.u8(u8::from(*starts));
                w.u8(u8::from(*insists));
                INHERIT
            }
        };
        (stream, w.bytes)
    }

    /// The order that a record holds.
    ///
    /// # Errors
    /// When it holds none.
    pub fn decode(stream: u16, payload: &[u8]) -> core::result::Result<Self, DecodeError> {
        let mut r = Reader::new(payload);
        let order = match stream {
            stream::VM_BASE.. => {
                return Ok(Self::Type { console: stream, bytes: payload.to_vec() });
            }
            COMMAND => Self::Command { id: r.u32()?, adopt: r.u8()? != 0, line: r.str()? },
            RELEASE => Self::Release { id: r.u32()?, vm: VmId(r.u16()?) },
            INHERIT => {
                let (id, vm) = (r.u32()?, VmId(r.u16()?));
                Self::Inherit { id, vm, starts: r.u8()? != 0, insists: r.u8()? != 0 }
            }
            _ => return Err(DecodeError { at: 0, what: "an order's stream" }),
        };
        Ok(order)
    }
}

impl Report {
    /// What a cell announces, in as many reports as it takes.
    pub fn said(text: &str) -> impl Iterator<Item = Self> {
        pieces(text).map(|(text, more)| Self::Said { text: text.into(), more })
    }

    /// An answer, in as many reports as it takes.
    pub fn answers(id: u32, result: Result, text: &str) -> impl Iterator<Item = Self> {
        pieces(text).map(move |(text, more)| Self::Answer { id, result, text: text.into(), more })
    }

    /// The record: its stream and payload.
    #[must_use]
    pub fn encode(&self) -> (u16, Vec<u8>) {
        let mut w = Writer::new();
        let stream = match self {
            Self::Printed { console, bytes } => {
                w.bytes.extend_from_slice(bytes);
                *console
            }
            Self::Said { text, more } => {
                w.u8(u8::from(*more));
                w.str(text);
                stream::MONITOR
            }
            Self::Answer { id, result, text, more } => {
                w.u32(*id);
                w.u8(*result as u8);
                w.u8(u8::from(*more));
                w.str(text);
                COMMAND
            }
        };
        (stream, w.bytes)
    }

    /// The report that a record holds.
    ///
    /// # Errors
    /// When it holds none.
    pub fn decode(stream: u16, payload: &[u8]) -> core::result::Result<Self, DecodeError> {
        let mut r = Reader::new(payload);
        let report = match stream {
            stream::VM_BASE.. => {
                return Ok(Self::Printed { console: stream, bytes: payload.to_vec() });
            }
            stream::MONITOR => {
                let more = r.u8()? != 0;
                Self::Said { more, text: r.str()? }
            }
            COMMAND => {
                let id = r.u32()?;
                let result = match r.u8()? {
                    0 => Result::Done,
                    1 => Result::Refused,
                    2 => Result::Elsewhere,
                    _ => return Err(DecodeError { at: 4, what: "how a command went" }),
                };
                let more = r.u8()? != 0;
                Self::Answer { id, result, more, text: r.str()? }
            }
            _ => return Err(DecodeError { at: 0, what: "a report's stream" }),
        };
        Ok(report)
    }
}

/// Text in pieces that fit into a record, each with whether more follows. At least one.
fn pieces(text: &str) -> impl Iterator<Item = (&str, bool)> {
    let mut rest = Some(text);
    core::iter::from_fn(move || {
        let text = rest.take()?;
        let mut cut = text.len().min(TEXT_MAX);
        while !text.is_char_boundary(cut) {
            cut -= 1;
        }
        let (piece, more) = text.split_at(cut);
        rest = (!more.is_empty()).then_some(more);
        Some((piece, rest.is_some()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec;

    #[test]
    fn orders_and_reports_come_out_as_they_went_in() {
        for order in [
            Order::Type { console: 16, bytes: vec![0; RECORD_MAX] },
            Order::Command { id: 7, adopt: true, line: "start l\u{ef}nux".into() },
            Order::Release { id: u32::MAX, vm: VmId(3) },
            Order::Inherit { id: 1, vm: VmId(0x102), starts: true, insists: false },
            Order::Inherit { id: 2, vm: VmId(9), starts: false, insists: true },
        ] {
            let (stream, bytes) = order.encode();
            assert_eq!(Order::decode(stream, &bytes), Ok(order));
        }
        for report in [
            Report::Printed { console: 99, bytes: vec![0xff, 10] },
            Report::Said { text: "VM `a` ended: reset\n".into(), more: true },
            Report::Answer { id: 9, result: Result::Refused, text: "no\n".into(), more: false },
            Report::Answer { id: 0, result: Result::Elsewhere, text: String::new(), more: false },
        ] {
            let (stream, bytes) = report.encode();
            assert_eq!(Report::decode(stream, &bytes), Ok(report));
        }
    }

    #[test]
    fn a_long_text_takes_several_records() {
        for length in [0, 1, TEXT_MAX / 2, TEXT_MAX, TEXT_MAX + 1] {
            let text = "\u{fc}".repeat(length) + "x";
            let (mut whole, mut ends) = (String::new(), 0);
            for report in Report::answers(1, Result::Done, &text) {
                let (stream, bytes) = report.encode();
                assert!(bytes.len() <= RECORD_MAX);
                let Ok(Report::Answer { text, more, .. }) = Report::decode(stream, &bytes) else {
                    panic!("{report:?}");
                };
                whole += &text;
                ends += u32::from(!more);
            }
            assert_eq!((whole == text, ends), (true, 1));
        }
        assert_eq!(Report::said("").count(), 1);
    }

    #[test]
    fn what_is_neither_is_refused() {
        for stream in [stream::EVENTS, COMMAND, RELEASE, INHERIT, 15] {
            for bytes in [&b""[..], b"\x01\0\0\0\x03", &[0xff; 3]] {
                assert!(Order::decode(stream, bytes).is_err(), "{stream} {bytes:?}");
                assert!(Report::decode(stream, bytes).is_err(), "{stream} {bytes:?}");
            }
        }
        let text = format!("{:?}", Report::decode(COMMAND, &[1, 0, 0, 0, 7, 0, 0, 0, 0, 0]));
        assert!(text.contains("how a command went"), "{text}");
    }
}
