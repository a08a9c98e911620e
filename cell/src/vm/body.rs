//! The part of a VM's life that is in one cell: what its VCPUs share there, and where each of them is.
//!
//! A VM has a body in its home, and one in each cell that its VCPUs visit. Each knows the places of all of the VM's
//! VCPUs, as far as it has to: the home which cell has which, a visited cell that all the others are not its own.

use super::{Exit, Guest, Vcpu};
use crate::pmap::Replica;
use crate::visit::{Carried, Goal};
use abi::CellId;
use abi::ids::MAX_CELLS;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

/// Where a VCPU is.
pub(crate) enum Seat<V> {
    /// Here, and no CPU runs it.
    Here(Box<V>),
    /// A CPU of this cell runs it.
    Running,
    /// Standing still. Once the parcel is made it is offered to another cell, which reads it there; until then
    /// messages still reach it.
    Leaving {
        /// It goes on here if nobody takes it.
        vcpu: Box<V>,
        to: CellId,
        parcel: Vec<u64>,
        carried: Carried,
    },
    /// Copied from another cell, which has yet to let it go.
    Arriving { vcpu: Box<V>, carried: Carried },
    /// That cell has it, or, in a visited cell, that cell's home knows.
    Away(CellId),
    /// It has ended where it was.
    Gone,
}

/// A VCPU's place in its cell.
pub(crate) struct Slot<V> {
    pub seat: Seat<V>,
    /// Interrupts were sent to it and not delivered yet.
    pub interrupted: bool,
    /// Pages of the pmap that have changed and that it has not been told of yet.
    pub changed: Vec<Range<u32>>,
    /// The number of the last message of the stress that it has had of each cell.
    pub probes: [u64; MAX_CELLS],
    /// It is to go to that CPU of another cell as soon as it can.
    pub goal: Option<Goal>,
    /// It came to something that ends its VM: it is to go home.
    pub ends: bool,
    /// Instructions it had executed when it was last seen here.
    pub instructions: u64,
}

/// Ranges of changed pages that are kept apart for a VCPU that does not run: it may not for long.
const CHANGED_MAX: usize = 8;

impl<V> Slot<V> {
    /// It is to be told of changed pages before it runs again.
    pub fn tell(&mut self, pages: &Range<u32>) {
        if self.changed.len() < CHANGED_MAX {
            return self.changed.push(pages.clone());
        }
        let all = self
            .changed
            .drain(..)
            .fold(pages.clone(), |all, one| all.start.min(one.start)..all.end.max(one.end));
        self.changed.push(all);
    }

    const fn new(seat: Seat<V>) -> Self {
        Self {
            seat,
            interrupted: false,
            changed: Vec::new(),
            probes: [0; MAX_CELLS],
            goal: None,
            ends: false,
            instructions: 0,
        }
    }

    /// Whether it is this cell's, and stays so for now.
    pub const fn is_own(&self) -> bool {
        matches!(self.seat, Seat::Here(_) | Seat::Running)
    }

    /// Whether something has to happen before it stands still, here or elsewhere.
    pub const fn is_moving(&self) -> bool {
        matches!(self.seat, Seat::Running | Seat::Leaving { .. } | Seat::Arriving { .. })
    }

    /// Something has been left for it: if it is packed already, that was too early.
    pub fn unpack(&mut self) {
        if let Seat::Leaving { parcel, .. } = &mut self.seat {
            *parcel = Vec::new();
        }
    }

    /// The cell that has it, if another has.
    pub const fn away(&self) -> Option<CellId> {
        if let Seat::Away(cell) = self.seat { Some(cell) } else { None }
    }

    /// The VCPU, if it is here and no CPU runs it.
    pub fn vcpu(&self) -> Option<&V> {
        if let Seat::Here(vcpu) = &self.seat { Some(vcpu) } else { None }
    }
}

impl<V: Vcpu> Slot<V> {
    /// Takes the VCPU to run it, told what it has to know.
    ///
    /// # Panics
    /// When it is not here: a VCPU is in one place.
    pub fn take(&mut self) -> Box<V> {
        self.deliver();
        let Seat::Here(vcpu) = core::mem::replace(&mut self.seat, Seat::Running) else {
            panic!("a VCPU is in one place")
        };
        vcpu
    }

    /// Tells the VCPU, if it is here, what has been left for it.
    pub fn deliver(&mut self) {
        let (Seat::Here(vcpu) | Seat::Leaving { vcpu, .. }) = &mut self.seat else { return };
        for pages in self.changed.drain(..) {
            vcpu.forget(pages);
        }
        if core::mem::take(&mut self.interrupted) {
            vcpu.interrupt();
        }
    }

    /// It has come back.
    ///
    /// # Panics
    /// When no CPU ran it: a VCPU is in one place.
    pub fn give(&mut self, vcpu: Box<V>) {
        assert!(matches!(self.seat, Seat::Running), "a VCPU is in one place");
        self.sit(vcpu);
    }

    /// It is here.
    pub fn sit(&mut self, vcpu: Box<V>) {
        self.instructions = vcpu.instructions();
        self.seat = Seat::Here(vcpu);
    }
}

/// How often VCPUs stopped, by reason.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Exits {
    pub slices: u64,
    pub idles: u64,
    pub sends: u64,
}

/// What a VM has in one cell.
pub(crate) struct Body<G: Guest> {
    pub guest: G,
    /// Its VCPUs, by number.
    pub slots: Vec<Slot<G::Vcpu>>,
    /// Which of its lives.
    pub life: u32,
    /// When that began, in machine time.
    pub start_ns: u64,
    pub exits: Exits,
}

impl<G: Guest> Body<G> {
    /// All VCPUs are here.
    pub fn new(guest: G, vcpus: Vec<Box<G::Vcpu>>, life: u32, start_ns: u64) -> Self {
        let slots = vcpus.into_iter().map(|vcpu| Slot::new(Seat::Here(vcpu))).collect();
        Self { guest, slots, life, start_ns, exits: Exits::default() }
    }

    /// None of the `vcpus` VCPUs is here.
    pub fn visited(guest: G, vcpus: u32, home: CellId, life: u32, start_ns: u64) -> Self {
        let slots = (0..vcpus).map(|_| Slot::new(Seat::Away(home))).collect();
        Self { guest, slots, life, start_ns, exits: Exits::default() }
    }

    /// VCPU `index` has come back because of `exit`.
    ///
    /// # Panics
    /// When no CPU ran it.
    pub fn back(&mut self, index: u32, vcpu: Box<G::Vcpu>, exit: &Exit) {
        self.slots[index as usize].give(vcpu);
        match exit {
            Exit::Slice => self.exits.slices += 1,
            Exit::Idle { .. } => self.exits.idles += 1,
            Exit::Send { .. } => self.exits.sends += 1,
            Exit::Board | Exit::Home | Exit::Ended { .. } => {}
        }
    }

    /// Makes the parcel of VCPU `index`, which is to leave, if it has not been made: where it goes, and the parcel.
    pub fn pack(&mut self, index: u32) -> Option<(CellId, &[u64])> {
        let slot = self.slots.get_mut(index as usize)?;
        slot.deliver();
        let probes = slot.probes;
        let Seat::Leaving { vcpu, to, parcel, carried } = &mut slot.seat else { return None };
        if parcel.is_empty() {
            carried.probes = probes;
            *parcel = carried.parcel(|own, out| match own {
                false => self.guest.share(out),
                true => self.guest.save(vcpu, out),
            });
        }
        Some((*to, parcel))
    }

    /// How many of its VCPUs are not to be seen from here: they run, or are elsewhere.
    pub fn unseen(&self) -> u32 {
        self.slots.iter().filter(|slot| slot.vcpu().is_none()).count() as u32
    }

    /// Whether a VCPU has yet to come to a stand.
    pub fn is_moving(&self) -> bool {
        self.slots.iter().any(Slot::is_moving)
    }

    /// Instructions that its VCPUs had executed when they were last seen here.
    pub fn instructions(&self) -> u64 {
        self.slots.iter().map(|slot| slot.instructions).sum()
    }
}

/// A VM whose home is another cell, and some of whose VCPUs are or have been here.
pub(crate) struct Visit<G: Guest> {
    pub body: Body<G>,
    pub replica: Arc<Replica>,
    /// Its VCPUs are not to run.
    pub parked: bool,
    /// It is to end here; it has when its VCPUs have come back.
    pub leaving: bool,
}

impl<G: Guest> fmt::Debug for Visit<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { replica, parked, leaving, .. } = self;
        write!(f, "Visit({replica:?}, parked: {parked}, leaving: {leaving})")
    }
}
