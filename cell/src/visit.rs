//! What the home of a VM and the cells that its VCPUs visit say to each other, as words: calls about the VM, and
//! the parcel in which a VCPU travels.
//!
//! | bits of word 0 | 63–56 | 47–32 | 31–0 |
//! |---|---|---|---|
//! | of a call | kind | the VM | which of its lives |
//! | of an answer | kind | | |

use crate::loan::{PAYLOAD_WORDS, Payload};
use crate::sched::Times;
use abi::ids::MAX_CELLS;
use abi::{CpuId, NodeId, VmId};
use alloc::vec::Vec;

/// A VM in one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whom {
    /// The VM.
    pub vm: VmId,
    /// Which of its lives. Later ones have larger numbers, in whichever cell they begin.
    pub life: u32,
}

/// What a VM has used in a cell that its VCPUs visited. Times in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Guest instructions.
    pub instructions: u64,
    /// What its VCPUs did with their time.
    pub times: Times,
}

/// Where a VCPU is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goal {
    /// The CPU.
    pub cpu: CpuId,
    /// And it stays there.
    pub pin: bool,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Of the home: where a page lies, which is placed near a node if it is not there.
    Page {
        /// The page's number.
        page: u32,
        /// The node.
        node: NodeId,
    },
    /// Of the home: an access to the VM's devices, in words that its engine understands.
    Device(Payload),
    /// Of a visited cell: to end the VM's VCPUs there, and to say so by [`Ask::Gone`].
    Leave,
    /// Of the home, to note: none of the VM's VCPUs is in the caller's cell any more, and none has a use of its
    /// pages.
    Gone(Used),
    /// Of a visited cell: the VM's VCPUs are not to run (`true`), or to run again.
    Park(bool),
    /// Of a visited cell: the VM's time has been warped so far, in nanoseconds.
    Warp(u64),
    /// Of a visited cell: a VCPU is to go there; `None`: it is free to move.
    Move {
        /// The VCPU's number.
        index: u32,
        /// Where it is to go.
        goal: Option<Goal>,
    },
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Where the page and those after it lie: machine addresses, 0 for one that is nowhere yet.
    Pages(Payload),
    /// What came of the access.
    Device(Payload),
    /// It is done, or will be.
    Done,
    /// That life of the VM is over, or there is no such page.
    No,
}

mod kind {
    pub const PAGE: u8 = 1;
    pub const DEVICE: u8 = 2;
    pub const LEAVE: u8 = 3;
    pub const GONE: u8 = 4;
    pub const PARK: u8 = 5;
    pub const WARP: u8 = 6;
    pub const MOVE: u8 = 7;
    pub const DONE: u8 = 8;
    pub const NO: u8 = 9;
}

/// Most words of a device access and of what comes of it, and most pages that are told of at a time.
pub const MOST_WORDS: usize = PAYLOAD_WORDS - 1;

fn words(first: u64, rest: &[u64]) -> Payload {
    let mut all = [0; PAYLOAD_WORDS];
    all[0] = first;
    all[1..=rest.len()].copy_from_slice(rest);
    Payload::new(&all[..=rest.len()])
}

impl Goal {
    const fn encode(self) -> u64 {
        self.cpu.0 as u64 | (self.pin as u64) << 8
    }

    const fn decode(word: u64) -> Self {
        Self { cpu: CpuId(word as u8), pin: word >> 8 & 1 != 0 }
    }
}

impl Ask {
    /// As a call carries it, about `whom`.
    #[must_use]
    pub fn encode(&self, whom: Whom) -> Payload {
        let first =
            |kind: u8| u64::from(kind) << 56 | u64::from(whom.vm.0) << 32 | u64::from(whom.life);
        match *self {
            Self::Page { page, node } => {
                words(first(kind::PAGE), &[u64::from(page), u64::from(node.0)])
            }
            Self::Device(call) => words(first(kind::DEVICE), bounded(&call)),
            Self::Leave => words(first(kind::LEAVE), &[]),
            Self::Gone(Used { instructions, times }) => {
                let [run, steal, idle, paused, migrations] = times.words();
                let all = [instructions, run, steal, idle, paused, migrations];
                words(first(kind::GONE), &all)
            }
            Self::Park(parked) => words(first(kind::PARK), &[parked.into()]),
            Self::Warp(ns) => words(first(kind::WARP), &[ns]),
            Self::Move { index, goal } => {
                let goal = goal.map_or(0, |goal| goal.encode() | 1 << 16);
                words(first(kind::MOVE), &[u64::from(index), goal])
            }
        }
    }

    /// What [`Self::encode`] made; nothing if it made no such thing.
    #[must_use]
    pub fn decode(payload: &Payload) -> Option<(Whom, Self)> {
        let (&first, rest) = payload.as_slice().split_first()?;
        let whom = Whom { vm: VmId((first >> 32) as u16), life: first as u32 };
        let ask = match ((first >> 56) as u8, rest) {
            (kind::PAGE, &[page, node]) => {
                Self::Page { page: page as u32, node: NodeId(node as u8) }
            }
            (kind::DEVICE, call) => Self::Device(Payload::new(call)),
            (kind::LEAVE, []) => Self::Leave,
            (kind::GONE, &[instructions, ref times @ ..]) => {
                let times = Times::of_words(times.try_into().ok()?);
                Self::Gone(Used { instructions, times })
            }
            (kind::PARK, &[parked]) => Self::Park(parked != 0),
            (kind::WARP, &[ns]) => Self::Warp(ns),
            (kind::MOVE, &[index, goal]) => {
                let there = goal >> 16 & 1 != 0;
                Self::Move { index: index as u32, goal: there.then(|| Goal::decode(goal)) }
            }
            _ => return None,
        };
        Some((whom, ask))
    }
}

impl Told {
    /// As an answer carries it.
    #[must_use]
    pub fn encode(&self) -> Payload {
        let first = |kind: u8| u64::from(kind) << 56;
        match *self {
            Self::Pages(places) => words(first(kind::PAGE), bounded(&places)),
            Self::Device(answer) => words(first(kind::DEVICE), bounded(&answer)),
            Self::Done => words(first(kind::DONE), &[]),
            Self::No => words(first(kind::NO), &[]),
        }
    }

    /// What [`Self::encode`] made; [`Told::No`] if it made no such thing.
    #[must_use]
    pub fn decode(payload: &Payload) -> Self {
        match payload.as_slice().split_first() {
            Some((first, places)) if first >> 56 == u64::from(kind::PAGE) => {
                Self::Pages(Payload::new(places))
            }
            Some((first, answer)) if first >> 56 == u64::from(kind::DEVICE) => {
                Self::Device(Payload::new(answer))
            }
            Some((first, [])) if first >> 56 == u64::from(kind::DONE) => Self::Done,
            _ => Self::No,
        }
    }
}

fn bounded(call: &Payload) -> &[u64] {
    let words = call.as_slice();
    &words[..words.len().min(MOST_WORDS)]
}

/// What travels with a VCPU beside its own state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// When the VM's life began, in machine time.
    pub start_ns: u64,
    /// The CPU that it leaves.
    pub from: CpuId,
    /// Where it is to go; none: anywhere.
    pub goal: Option<Goal>,
    /// What it has done so far.
    pub times: Times,
    /// The number of the last message of a stress that it has had of each cell.
    pub probes: [u64; MAX_CELLS],
}

/// A parcel as it is read.
#[derive(Clone, Copy, Debug)]
pub struct Parcel<'a> {
    /// What travels with the VCPU.
    pub carried: Carried,
    /// What its VM's VCPUs share.
    pub shared: &'a [u64],
    /// The VCPU's own state.
    pub state: &'a [u64],
}

/// "HCPARCEL": the first word of a parcel.
const PARCEL: u64 = 0x4843_5041_5243_454c;
/// Words before the shared ones.
const HEAD: usize = 10 + MAX_CELLS;
/// A parcel is copied in pieces of so many words.
pub const PARCEL_PIECE: usize = 8;
/// Most words of a parcel: what is longer is none.
pub const PARCEL_WORDS_MAX: usize = 1 << 18;

impl Carried {
    /// A parcel, whole pieces of it. `write` first appends the words that its VM's VCPUs share and then, called again with
    /// `true`, its own.
    pub fn parcel(&self, mut write: impl FnMut(bool, &mut Vec<u64>)) -> Vec<u64> {
        let goal = self.goal.map_or(0, |goal| goal.encode() | 1 << 16);
        let mut out = Vec::new();
        out.extend([PARCEL, 0, 0, self.start_ns, goal | u64::from(self.from.0) << 24]);
        out.extend(self.times.words());
        out.extend(self.probes);
        write(false, &mut out);
        let shared = out.len() - HEAD;
        write(true, &mut out);
        out[1] = shared as u64;
        out[2] = (out.len() - HEAD - shared) as u64;
        out.resize(out.len().next_multiple_of(PARCEL_PIECE), 0);
        out
    }

    /// What [`Self::parcel`] made; nothing if it made no such thing.
    #[must_use]
    pub fn open(words: &[u64]) -> Option<Parcel<'_>> {
        let (head, rest) = words.split_first_chunk::<HEAD>()?;
        let [PARCEL, shared, state, start_ns, way, ref rest_of_head @ ..] = *head else {
            return None;
        };
        let (times, probes) = rest_of_head.split_first_chunk()?;
        let probes = probes.try_into().ok()?;
        let goal = (way >> 16 & 1 != 0).then(|| Goal::decode(way));
        let (shared, rest) = rest.split_at_checked(usize::try_from(shared).ok()?)?;
        let state = rest.get(..usize::try_from(state).ok()?)?;
        let from = CpuId((way >> 24) as u8);
        let carried = Self { start_ns, from, goal, times: Times::of_words(times), probes };
        Some(Parcel { carried, shared, state })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times { run: 1, steal: 2, idle: 3, paused: 4, migrations: u64::MAX };

    #[test]
    fn calls_and_answers_come_back_as_they_were() {
        let goal = Goal { cpu: CpuId(15), pin: true };
        for ask in [
            Ask::Page { page: u32::MAX, node: NodeId(7) },
            Ask::Device(Payload::new(&[])),
            Ask::Device(Payload::new(&[1; MOST_WORDS])),
            Ask::Leave,
            Ask::Gone(Used { instructions: 5, times: TIMES }),
            Ask::Park(true),
            Ask::Park(false),
            Ask::Warp(u64::MAX),
            Ask::Move { index: 3, goal: Some(goal) },
            Ask::Move { index: 3, goal: None },
        ] {
            let whom = Whom { vm: VmId(0xfedc), life: 0x8765_4321 };
            assert_eq!(Ask::decode(&ask.encode(whom)), Some((whom, ask)));
        }
        for told in [
            Told::Pages(Payload::new(&[0x1234_5000, 0])),
            Told::Device(Payload::new(&[7; MOST_WORDS])),
            Told::Done,
            Told::No,
        ] {
            assert_eq!(Told::decode(&told.encode()), told);
        }
        assert_eq!(Ask::decode(&Payload::default()), None);
        assert_eq!(Ask::decode(&Payload::new(&[u64::from(kind::GONE) << 56, 1])), None);
        assert_eq!(Told::decode(&Payload::default()), Told::No);
    }

    #[test]
    fn parcels_come_back_as_they_were_and_others_are_refused() {
        let goal = Some(Goal { cpu: CpuId(3), pin: false });
        let carried =
            Carried { start_ns: 77, from: CpuId(9), goal, times: TIMES, probes: [5; MAX_CELLS] };
        let words = carried.parcel(|own, out| out.extend(if own { [1, 2] } else { [3, 4] }));
        let parcel = Carried::open(&words).unwrap();
        assert_eq!(
            (parcel.carried, parcel.shared, parcel.state),
            (carried, &[3, 4][..], &[1, 2][..])
        );
        assert_eq!(words.len() % PARCEL_PIECE, 0);
        for length in 0..HEAD + 4 {
            assert!(Carried::open(&words[..length]).is_none());
        }
        let mut wild = words.clone();
        for word in 0..3 {
            wild[word] = u64::MAX;
            assert!(Carried::open(&wild).is_none());
            wild[word] = words[word];
        }
    }
}
