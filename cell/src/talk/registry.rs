//! The registry: which cell owns each VCPU. It has no home; every cell has a part of it.
//!
//! The cell that owns a VCPU knows it. A cell that gave one away knows to whom, and any other may have a hint. Each
//! hint carries how often the VCPU had moved, so that of two the newer one is known: whoever follows them from cell to cell
//! meets larger and larger numbers, and ends at the owner. Hints are never trusted: a message is executed
//! by a cell that owns the VCPU, or not at all.
//!
//! When a cell dies, the hints that lead to it lead nowhere. Then (and whenever a hint fails) all live cells are asked,
//! one after the other. All answer in the new epoch, that is, after they have drawn their own consequences of the failure. If
//! none of them knows better, the VCPU died with its owner: let `Y` be the cell that had it when the asking began; `Y`
//! was asked later, and a cell that had the VCPU once says that it has it, or who got it, with a larger number.
//!
//! # Hand-over
//!
//! ```text
//! owner A                          B
//! Here → Leaving(B)  --Offer-->            state and marks are copied
//!                    <--Accepted-- Arriving(A)
//! At(B)              --Take-->     Here
//! ```
//!
//! From `Offer` on A does not touch the VCPU, so B's copy is the VCPU. Until A has read `Accepted` the VCPU is A's: if B
//! dies, B has never run it, and A goes on. From then on it is B's, and if B dies, it is lost, though A can't
//! know whether B has seen `Take`. If A dies before that, B, which has a copy that A does not use any more, takes it. Never
//! are two cells in `Here`:
//!
//! - **REG-ONE**: of each life of a VCPU, at most one live cell is in `Here`.
//! - **REG-MOVES**: `moves` grows with each change of owner, and no two owners had it with the same number.

pub use abi::directory::Place;

use super::line::PAYLOAD_WORDS;
use super::live::{CellSet, Incarnation, Live};
use super::mutant::{Mutant, seeded};
use super::request::{Hint, Mark, Marks, Reply, Vcpu};
use abi::CellId;
use abi::directory::{Directory, LIFE};
use alloc::vec;
use alloc::vec::Vec;
use core::mem::offset_of;

/// Whom to ask for a VCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// It is here.
    Me,
    /// That cell.
    Cell(CellId),
    /// Nobody now: it is on its way from or to this cell.
    Wait,
    /// Its life is over.
    Ended,
    /// It died with its owner.
    Lost,
}

/// A message at a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// To be executed, and then answered.
    Execute(Reply),
    /// To be answered.
    Answer(Reply),
}

/// What the cell knows of a VCPU. Its first two fields are also read from outside ([`Directory`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
struct Entry {
    place: Place,
    life: u32,
    moves: u32,
    /// Cells that knew nothing newer, since the search for the VCPU began.
    asked: CellSet,
    /// The number of this cell's last message to it.
    sent: u32,
    /// While it is this cell's, or about to be: what it has executed.
    marks: Marks,
}

/// Why there is no entry for a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// There is no such VCPU.
    NoSuchVcpu,
    /// The life is over.
    Over,
    /// This cell has not heard of it.
    Unheard,
}

/// A cell's part of the registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Registry {
    entries: Vec<Entry>,
}

const _: () = assert!(offset_of!(Entry, place) == 0 && offset_of!(Entry, life) == LIFE);
// All of a VCPU's marks travel in one line.
const _: () = assert!(4 + abi::ids::MAX_CELLS <= PAYLOAD_WORDS);

impl Registry {
    /// A registry of so many VCPUs, none of which has begun to live.
    #[must_use]
    pub fn new(vcpus: usize) -> Self {
        Self { entries: vec![Entry::default(); vcpus] }
    }

    /// Has `directory` name where its entries are.
    pub fn publish(&self, directory: &Directory) {
        let address = self.entries.as_ptr().addr() as u64;
        directory.name_registry(address, self.entries.len(), size_of::<Entry>());
    }

    /// What this cell knows about where `vcpu` is.
    #[must_use]
    pub fn place(&self, vcpu: Vcpu) -> Place {
        match self.entries.get(usize::from(vcpu.index)) {
            Some(entry) if entry.life == vcpu.life => entry.place,
            Some(entry) if entry.life > vcpu.life => Place::Ended,
            _ => Place::Unknown,
        }
    }

    /// The entry for this life, which begins now if it is a later one. Nothing if it is over, or there is no
    /// such VCPU.
    fn renew(&mut self, vcpu: Vcpu) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(usize::from(vcpu.index))?;
        if entry.life < vcpu.life {
            *entry = Entry { life: vcpu.life, ..Entry::default() };
        }
        (entry.life == vcpu.life).then_some(entry)
    }

    /// The entry for this life.
    fn entry(&mut self, vcpu: Vcpu) -> Result<&mut Entry, Missing> {
        match self.entries.get_mut(usize::from(vcpu.index)) {
            None => Err(Missing::NoSuchVcpu),
            Some(entry) if entry.life > vcpu.life => Err(Missing::Over),
            Some(entry) if entry.life < vcpu.life => Err(Missing::Unheard),
            Some(entry) => Ok(entry),
        }
    }

    /// A life begins, in that cell. Told to every cell whose VCPUs may send messages to it before any of them runs;
    /// whoever is not told has to search.
    pub fn begin(&mut self, vcpu: Vcpu, cell: CellId, me: CellId) {
        if let Some(entry) = self.renew(vcpu)
            && matches!(entry.place, Place::Unknown | Place::At(_))
        {
            entry.place = if cell == me { Place::Here } else { Place::At(cell) };
        }
    }

    /// This cell's VCPU ends. False if it is not this cell's, or on its way.
    pub fn end(&mut self, vcpu: Vcpu) -> bool {
        match self.renew(vcpu) {
            Some(entry) if entry.place == Place::Here => {
                entry.place = Place::Ended;
                entry.marks = Marks::default();
                true
            }
            _ => false,
        }
    }

    /// A number for this cell's next message to it.
    pub(super) fn number(&mut self, vcpu: Vcpu) -> Option<u32> {
        let entry = self.renew(vcpu)?;
        entry.sent = entry.sent.wrapping_add(1);
        Some(entry.sent)
    }

    /// Whom to ask for a VCPU.
    pub(super) fn target(&mut self, vcpu: Vcpu, live: &Live) -> Target {
        let Some(entry) = self.renew(vcpu) else { return Target::Ended };
        let to_ask = live.others().minus(entry.asked);
        match entry.place {
            Place::Here => Target::Me,
            Place::Leaving(_) | Place::Arriving(_) => Target::Wait,
            Place::Ended => Target::Ended,
            Place::Lost => Target::Lost,
            Place::At(cell) if to_ask.has(cell) => Target::Cell(cell),
            Place::At(cell) if seeded(Mutant::DeadAsked) && cell != live.me() => Target::Cell(cell),
            Place::At(_) | Place::Unknown => {
                let enough = seeded(Mutant::OneAnswerIsEnough) && !entry.asked.is_empty();
                match to_ask.lowest() {
                    Some(cell) if !enough => Target::Cell(cell),
                    _ => {
                        entry.place = Place::Lost;
                        Target::Lost
                    }
                }
            }
        }
    }

    /// What a message with this number of that sender is to become here.
    pub(super) fn message(
        &mut self,
        vcpu: Vcpu,
        from: CellId,
        incarnation: Incarnation,
        number: u32,
    ) -> Verdict {
        let answer = self.whereabouts(vcpu);
        let here = matches!(answer, Reply::Here { .. });
        let Ok(entry) = self.entry(vcpu) else { return Verdict::Answer(answer) };
        let moves = entry.moves;
        if seeded(Mutant::HintTrusted) {
            return Verdict::Execute(Reply::Here { moves });
        }
        if seeded(Mutant::AcknowledgedEarly) && matches!(answer, Reply::Moving { .. }) {
            return Verdict::Answer(Reply::Here { moves });
        }
        let still = matches!(entry.place, Place::Leaving(_)) && seeded(Mutant::OwnedUntilTaken);
        if !here && !still {
            return Verdict::Answer(answer);
        }
        let answer = Reply::Here { moves };
        let mark = &mut entry.marks[usize::from(from.0)];
        let same = mark.incarnation == incarnation || seeded(Mutant::SenderIncarnationIgnored);
        let last = if same { mark.number } else { 0 };
        if number == last.wrapping_add(1) || seeded(Mutant::MessageTwice) {
            *mark = Mark { incarnation, number };
            Verdict::Execute(answer)
        } else if last.wrapping_sub(number) < 1 << 31 {
            Verdict::Answer(answer)
        } else {
            // A sender has one message on its way at a time, and never skips one.
            Verdict::Answer(Reply::Garbled)
        }
    }

    /// What to tell a cell that asks where a VCPU is.
    pub(super) fn whereabouts(&mut self, vcpu: Vcpu) -> Reply {
        let entry = match self.entry(vcpu) {
            Ok(entry) => entry,
            Err(Missing::NoSuchVcpu) => return Reply::Garbled,
            Err(Missing::Over) => return Reply::Ended,
            Err(Missing::Unheard) => return Reply::Elsewhere(None),
        };
        let moves = entry.moves;
        match entry.place {
            Place::Here => Reply::Here { moves },
            Place::Leaving(_) | Place::Arriving(_) => Reply::Moving { moves },
            Place::At(cell) => Reply::Elsewhere(Some(Hint { cell, moves })),
            Place::Unknown | Place::Lost => Reply::Elsewhere(None),
            Place::Ended => Reply::Ended,
        }
    }

    /// The cell `from` has the VCPU.
    pub(super) fn found(&mut self, vcpu: Vcpu, from: CellId, moves: u32) {
        if let Ok(entry) = self.entry(vcpu)
            && matches!(entry.place, Place::Unknown | Place::At(_))
        {
            entry.place = Place::At(from);
            entry.moves = moves;
            entry.asked = CellSet::NONE;
        }
    }

    /// The cell `from` does not have the VCPU, and gives a hint or none.
    pub(super) fn learn(&mut self, vcpu: Vcpu, from: CellId, hint: Option<Hint>) {
        let Ok(entry) = self.entry(vcpu) else { return };
        if !matches!(entry.place, Place::Unknown | Place::At(_)) {
            return;
        }
        match hint {
            Some(hint) if hint.moves > entry.moves || seeded(Mutant::OldHintTaken) => {
                entry.place = Place::At(hint.cell);
                entry.moves = hint.moves;
                entry.asked = CellSet::NONE;
            }
            _ => entry.asked = entry.asked.with(from),
        }
    }

    /// This cell's VCPU is offered to another: how often it has moved, and its marks. Nothing if it is not this cell's.
    pub(super) fn leave(&mut self, vcpu: Vcpu, to: CellId) -> Option<(u32, Marks)> {
        let entry = self.renew(vcpu)?;
        if entry.place != Place::Here {
            return None;
        }
        entry.place = Place::Leaving(to);
        let left = seeded(Mutant::MarksLeftBehind);
        Some((entry.moves, if left { Marks::default() } else { entry.marks }))
    }

    /// The offer came to nothing: it is this cell's as before.
    pub(super) fn stay(&mut self, vcpu: Vcpu) -> bool {
        match self.entry(vcpu) {
            Ok(entry) if matches!(entry.place, Place::Leaving(_)) => {
                entry.place = Place::Here;
                true
            }
            _ => false,
        }
    }

    /// The offer was accepted: it is the other cell's.
    pub(super) fn gone(&mut self, vcpu: Vcpu, to: CellId) -> bool {
        match self.entry(vcpu) {
            Ok(entry) if entry.place == Place::Leaving(to) => {
                let moves = entry.moves.wrapping_add(1);
                let Entry { life, sent, .. } = *entry;
                *entry = Entry { life, sent, place: Place::At(to), moves, ..Entry::default() };
                true
            }
            _ => false,
        }
    }

    /// Whether this cell can take a VCPU that it is offered: a life that is not over, and not its own already.
    pub(super) fn can_arrive(&mut self, vcpu: Vcpu) -> bool {
        let known = self.renew(vcpu).map(|entry| entry.place);
        matches!(known, Some(Place::Unknown | Place::At(_)))
    }

    /// An offer is accepted. The VCPU becomes this cell's by [`Self::take`], or when `from` dies.
    pub(super) fn arrive(&mut self, vcpu: Vcpu, from: CellId, moves: u32, marks: Marks) -> bool {
        if !self.can_arrive(vcpu) {
            return false;
        }
        let Ok(entry) = self.entry(vcpu) else { return false };
        entry.place = Place::Arriving(from);
        entry.moves = moves;
        entry.asked = CellSet::NONE;
        entry.marks = marks;
        if seeded(Mutant::OwnedFromOffer) {
            entry.place = Place::Here;
        }
        true
    }

    /// The accepted VCPU is this cell's.
    pub(super) fn take(&mut self, vcpu: Vcpu, from: CellId) -> bool {
        match self.entry(vcpu) {
            Ok(entry) if entry.place == Place::Arriving(from) => {
                entry.place = Place::Here;
                entry.moves = entry.moves.wrapping_add(1);
                true
            }
            _ => false,
        }
    }

    /// A VCPU that was given away comes back: only to show that it must not.
    pub(super) fn take_back(&mut self, vcpu: Vcpu) {
        if let Ok(entry) = self.entry(vcpu) {
            entry.place = Place::Here;
        }
    }

    /// The live set has changed: what was asked before is void. If a cell has died, the VCPUs on their way from it are
    /// this cell's, each told to `taken`. (Those on their way to it stay by [`Self::stay`].)
    pub(super) fn epoch_changed(&mut self, dead: Option<CellId>, mut taken: impl FnMut(Vcpu)) {
        for index in 0..self.entries.len() {
            let entry = &mut self.entries[index];
            if !seeded(Mutant::OldAnswersCount) {
                entry.asked = CellSet::NONE;
            }
            let vcpu = Vcpu { index: index as u16, life: entry.life };
            if let Some(dead) = dead
                && !seeded(Mutant::ArrivalForgotten)
                && self.take(vcpu, dead)
            {
                taken(vcpu);
            }
        }
    }
}
