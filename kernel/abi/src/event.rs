//! Events: what happened, for programs. One record of [`crate::ring::stream::EVENTS`] each; the host
//! prints them as JSON lines whose schema is `docs/events.md`.
//!
//! No event holds host time, a path or a version: two runs of one seed under icount have equal ones.

use crate::CellId;
use crate::codec::{DecodeError, Reader, Writer};
use alloc::borrow::Cow;
use core::fmt;

/// Version of the schema: the `v` of every line.
pub const VERSION: u32 = 1;

/// One event: of borrowed strings while it is encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// How many events of this cell came before it.
    pub seq: u64,
    /// Virtual time of the machine in nanoseconds since power-on.
    pub t_ns: u64,
    /// The cell that reports; −1: none.
    pub cell: i32,
    /// The CPU that reports; −1: none.
    pub cpu: i32,
    /// What happened.
    pub kind: Kind<'a>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// The cell's monitor is ready for commands.
    MonitorUp,
    /// A VM begins to run.
    VmStart {
        /// Its configured name.
        vm: Cow<'a, str>,
    },
    /// A VM has ended.
    VmEnd {
        /// Its configured name.
        vm: Cow<'a, str>,
        /// Why.
        cause: Cause,
    },
    /// An operator has paused a VM: none of its VCPUs runs.
    VmPaused {
        /// Its configured name.
        vm: Cow<'a, str>,
    },
    /// A paused VM goes on.
    VmResumed {
        /// Its configured name.
        vm: Cow<'a, str>,
    },
    /// A VM's definition has gone.
    VmDestroyed {
        /// Its configured name.
        vm: Cow<'a, str>,
    },
    /// A VCPU was moved because an operator or a stress wanted it (not by the scheduler's own balance).
    VcpuMigrated {
        /// Its VM's configured name.
        vm: Cow<'a, str>,
        /// Its number in the VM.
        vcpu: u32,
        /// The CPU it was on.
        from: u8,
        /// The CPU it is on.
        to: u8,
    },
    /// The monitor itself failed.
    Panic {
        /// The panic's message, one line.
        message: Cow<'a, str>,
    },
    /// A cell that was lost has booted again, and the others have let it in.
    CellBack {
        /// Which.
        back: CellId,
    },
    /// A cell is lost: its CPUs have parked, or nothing reaches them.
    CellLost {
        /// Which.
        lost: CellId,
    },
    /// A cell has made memory usable again of which lines were lost with CPUs of a dead one.
    LinesDiscarded {
        /// How many.
        lines: u32,
    },
    /// A cell has lost another one, and a guest goes on in it: the machine times of what it has done meanwhile, in nanoseconds.
    Recovered {
        /// It suspected a cell.
        suspected_ns: u64,
        /// It knew that all others did.
        agreed_ns: u64,
        /// It had fenced off the lost cell, and ended what was going on with it.
        unwound_ns: u64,
        /// It had found what depended on the lost cell.
        scanned_ns: u64,
        /// The first of its guests went on.
        resumed_ns: u64,
    },
    /// A fault was injected: it takes effect now.
    Fault {
        /// What fails, as the command said it.
        what: Cow<'a, str>,
    },
    /// A part of the network that had failed works again.
    Repair {
        /// Which, as the command said it.
        what: Cow<'a, str>,
    },
}

/// Why a VM ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The guest powered its machine off.
    PowerOff,
    /// The guest reset its machine; with `restart = "never"` that ends it.
    Reset,
    /// An operator stopped it.
    Stopped,
    /// The machine is being shut down (`quit`, the end of a script).
    Quit,
    /// An exception's vector could not be fetched.
    UnreachableVector,
    /// It used up its `budget` of instructions.
    Budget,
    /// Its image could not be loaded (what the host could not check).
    BadImage,
    /// There was not enough free memory to start it.
    NoMemory,
    /// A cell that it depended on has died.
    CellLost,
}

impl Cause {
    const ALL: [(Self, &'static str); 9] = [
        (Self::PowerOff, "power-off"),
        (Self::Reset, "reset"),
        (Self::Stopped, "stopped"),
        (Self::Quit, "quit"),
        (Self::UnreachableVector, "unreachable-vector"),
        (Self::Budget, "budget"),
        (Self::BadImage, "bad-image"),
        (Self::NoMemory, "no-memory"),
        (Self::CellLost, "cell-lost"),
    ];

    /// The word in the JSON line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// Whether the VM ended as someone wanted it to, not for a fault of its own.
    #[must_use]
    pub const fn is_normal(self) -> bool {
        matches!(self, Self::PowerOff | Self::Reset | Self::Stopped | Self::Quit)
    }
}

impl Event<'_> {
    /// Encodes the event as a record's payload.
    #[must_use]
    pub fn encode(&self) -> alloc::vec::Vec<u8> {
        let mut bytes = alloc::vec::Vec::new();
        self.encode_into(&mut bytes);
        bytes
    }

    /// The same into a buffer, in place of what is in it: one that is used again costs no memory.
    pub fn encode_into(&self, bytes: &mut alloc::vec::Vec<u8>) {
        bytes.clear();
        let mut w = Writer { bytes: core::mem::take(bytes) };
        w.u64(self.seq);
        w.u64(self.t_ns);
        w.u32(self.cell.cast_unsigned());
        w.u32(self.cpu.cast_unsigned());
        match &self.kind {
            Kind::MonitorUp => w.u8(0),
            Kind::VmStart { vm } => {
                w.u8(1);
                w.str(vm);
            }
            Kind::VmEnd { vm, cause } => {
                w.u8(2);
                w.str(vm);
                w.u8(*cause as u8);
            }
            Kind::Panic { message } => {
                w.u8(3);
                w.str(message);
            }
            Kind::VmPaused { vm } => {
                w.u8(4);
                w.str(vm);
            }
            Kind::VmResumed { vm } => {
                w.u8(5);
                w.str(vm);
            }
            Kind::VmDestroyed { vm } => {
                w.u8(6);
                w.str(vm);
            }
            Kind::VcpuMigrated { vm, vcpu, from, to } => {
                w.u8(7);
                w.str(vm);
                w.u32(*vcpu);
                w.u8(*from);
                w.u8(*to);
            }
            Kind::CellBack { back } => {
                w.u8(10);
                w.u8(back.0);
            }
            Kind::Recovered { suspected_ns, agreed_ns, unwound_ns, scanned_ns, resumed_ns } => {
                w.u8(12);
                for time in [suspected_ns, agreed_ns, unwound_ns, scanned_ns, resumed_ns] {
                    w.u64(*time);
                }
            }
            Kind::CellLost { lost } => {
                w.u8(8);
                w.u8(lost.0);
            }
            Kind::Fault { what } => {
                w.u8(9);
                w.str(what);
            }
            Kind::LinesDiscarded { lines } => {
                w.u8(13);
                w.u32(*lines);
            }
            Kind::Repair { what } => {
                w.u8(11);
                w.str(what);
            }
        }
        *bytes = w.bytes;
    }

    /// Decodes a record's payload.
    ///
    /// # Errors
    /// When the payload is short or names an unknown kind or cause.
    pub fn decode(bytes: &[u8]) -> Result<Event<'static>, DecodeError> {
        let mut r = Reader::new(bytes);
        Ok(Event {
            seq: r.u64()?,
            t_ns: r.u64()?,
            cell: r.u32()?.cast_signed(),
            cpu: r.u32()?.cast_signed(),
            kind: match r.u8()? {
                0 => Kind::MonitorUp,
                1 => Kind::VmStart { vm: r.str()?.into() },
                2 => Kind::VmEnd {
                    vm: r.str()?.into(),
                    cause: {
                        let error = r.error("a cause");
                        Cause::ALL.get(usize::from(r.u8()?)).ok_or(error)?.0
                    },
                },
                3 => Kind::Panic { message: r.str()?.into() },
                4 => Kind::VmPaused { vm: r.str()?.into() },
                5 => Kind::VmResumed { vm: r.str()?.into() },
                6 => Kind::VmDestroyed { vm: r.str()?.into() },
                7 => Kind::VcpuMigrated {
                    vm: r.str()?.into(),
                    vcpu: r.u32()?,
                    from: r.u8()?,
                    to: r.u8()?,
                },
                8 => Kind::CellLost { lost: CellId(r.u8()?) },
                9 => Kind::Fault { what: r.str()?.into() },
                10 => Kind::CellBack { back: CellId(r.u8()?) },
                11 => Kind::Repair { what: r.str()?.into() },
                13 => Kind::LinesDiscarded { lines: r.u32()? },
                12 => Kind::Recovered {
                    suspected_ns: r.u64()?,
                    agreed_ns: r.u64()?,
                    unwound_ns: r.u64()?,
                    scanned_ns: r.u64()?,
                    resumed_ns: r.u64()?,
                },
                _ => return Err(r.error("an event kind")),
            },
        })
    }
}

/// The JSON line, without its newline: flat, no blanks, keys in the schema's order.
impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{{\"v\":{VERSION},\"seq\":{},\"t_ns\":{},\"cell\":{},\"cpu\":{},\"kind\":",
            self.seq, self.t_ns, self.cell, self.cpu
        )?;
        match &self.kind {
            Kind::MonitorUp => f.write_str("\"monitor-up\"")?,
            Kind::VmStart { vm } => write!(f, "\"vm-start\",\"vm\":{}", Json(vm))?,
            Kind::VmEnd { vm, cause } => {
                write!(f, "\"vm-end\",\"vm\":{},\"cause\":\"{}\"", Json(vm), cause.as_str())?;
            }
            Kind::VmPaused { vm } => write!(f, "\"vm-paused\",\"vm\":{}", Json(vm))?,
            Kind::VmResumed { vm } => write!(f, "\"vm-resumed\",\"vm\":{}", Json(vm))?,
            Kind::VmDestroyed { vm } => write!(f, "\"vm-destroyed\",\"vm\":{}", Json(vm))?,
            Kind::VcpuMigrated { vm, vcpu, from, to } => {
                let vm = Json(vm);
                write!(
                    f,
                    "\"vcpu-migrated\",\"vm\":{vm},\"vcpu\":{vcpu},\"from\":{from},\"to\":{to}"
                )?;
            }
            Kind::Panic { message } => write!(f, "\"panic\",\"message\":{}", Json(message))?,
            Kind::CellBack { back } => write!(f, "\"cell-back\",\"back\":{back}")?,
            Kind::CellLost { lost } => write!(f, "\"cell-lost\",\"lost\":{lost}")?,
            Kind::LinesDiscarded { lines } => write!(f, "\"lines-discarded\",\"lines\":{lines}")?,
            Kind::Recovered { suspected_ns, agreed_ns, unwound_ns, scanned_ns, resumed_ns } => {
                write!(
                    f,
                    "\"recovered\",\"suspected_ns\":{suspected_ns},\"agreed_ns\":{agreed_ns},\
                     \"unwound_ns\":{unwound_ns},\"scanned_ns\":{scanned_ns},\
                     \"resumed_ns\":{resumed_ns}"
                )?;
            }
            Kind::Fault { what } => write!(f, "\"fault\",\"what\":{}", Json(what))?,
            Kind::Repair { what } => write!(f, "\"repair\",\"what\":{}", Json(what))?,
        }
        f.write_str("}")
    }
}

/// A string as a JSON string (RFC 8259, section 7).
struct Json<'a>(&'a str);

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                c if c < ' ' => write!(f, "\\u{:04x}", u32::from(c))?,
                c => fmt::Write::write_char(f, c)?,
            }
        }
        f.write_str("\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn every_kind_round_trips() {
        let mut kinds = alloc::vec![
            Kind::MonitorUp,
            Kind::VmStart { vm: "a".into() },
            Kind::VmPaused { vm: "a".into() },
            Kind::VmResumed { vm: "b".into() },
            Kind::VmDestroyed { vm: "c".into() },
            Kind::VcpuMigrated { vm: "d".into(), vcpu: 1, from: 2, to: 15 },
            Kind::Panic { message: "b\n\"".into() },
            Kind::CellLost { lost: CellId(7) },
            Kind::Fault { what: "transient link 4".into() },
            Kind::CellBack { back: CellId(7) },
            Kind::LinesDiscarded { lines: 33 },
            Kind::Recovered {
                suspected_ns: 1,
                agreed_ns: 2,
                unwound_ns: 3,
                scanned_ns: 4,
                resumed_ns: 5,
            },
            Kind::Repair { what: "router 2".into() },
        ];
        for (i, (cause, _)) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, i, "the table is in the order of the enum");
            kinds.push(Kind::VmEnd { vm: "é".into(), cause });
        }
        for kind in kinds {
            let event = Event { seq: 1, t_ns: 2, cell: -1, cpu: 3, kind };
            let bytes = event.encode();
            assert_eq!(Event::decode(&bytes), Ok(event));
            for cut in 0..bytes.len() {
                assert!(Event::decode(&bytes[..cut]).is_err());
            }
        }
    }

    #[test]
    fn the_line_is_as_the_schema_says() {
        let vm = "x\"\u{1}".into();
        let kind = Kind::VmEnd { vm, cause: Cause::Budget };
        let event = Event { seq: 4, t_ns: 5, cell: 0, cpu: -1, kind };
        assert_eq!(
            event.to_string(),
            r#"{"v":1,"seq":4,"t_ns":5,"cell":0,"cpu":-1,"kind":"vm-end","vm":"x\"\u0001","cause":"budget"}"#
        );
    }
}
