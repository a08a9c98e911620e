//! What the search has to know of the inside of a cell.

use super::machine::Bed;
use crate::local::{LocalCell, Machine, Membership};
use crate::talk::registry::Place;
use crate::talk::{Ballot, CellSet, Vcpu};
use crate::vm::{Body, Seat, State, VcpuId};
use abi::CellId;
use std::fmt::Write;
use std::hash::{Hash, Hasher};

impl LocalCell<Bed> {
    /// Its part in the agreements.
    pub(super) fn members(&self) -> Option<&Membership> {
        self.talk.as_ref().map(|talk| &talk.members)
    }

    /// It has waited for signs of life of these for too long.
    pub(super) fn time_out(&mut self, cells: CellSet) {
        if let Some(talk) = &mut self.talk {
            talk.members.time_out(cells);
        }
    }

    /// It says that it is there when it next looks.
    pub(super) fn say_again(&mut self) {
        if let Some(talk) = &mut self.talk {
            talk.members.say_again();
        }
    }

    /// Whether the registry says that a VCPU of that life is here.
    pub(super) fn is_registered(&self, who: VcpuId, life: u32) -> bool {
        let index = self.numbers[usize::from(who.vm.0)] + who.index as u16;
        let place = |talk: &super::super::Talk| {
            talk.exchange.registry().place(Vcpu { index, life }) == Place::Here
        };
        self.talk.as_deref().is_some_and(place)
    }

    /// Whether nothing is under way here. `heard`: what another cell has heard of this one.
    pub(super) fn is_settled(&self, heard: impl Fn(CellId) -> Ballot) -> bool {
        let Some(talk) = &self.talk else { return true };
        let members = &talk.members;
        let others = self.live.without(self.out.cell);
        let leads = self.out.machine.leads();
        let told = !leads || self.post.serves() && self.untold().is_empty();
        members.is_quiet()
            && told
            && others.into_iter().all(|to| heard(to) == *members.ballot())
            && talk.exchange.is_quiet()
            && self.errands.is_empty()
            && self.lending.is_settled()
            && self.held.is_empty()
            && self.vms.iter().all(|vm| {
                let still = |body: &Body<_>| !body.is_moving();
                let life = match &vm.state {
                    State::Living(life) => life.ending.is_none() && still(&life.body),
                    _ => true,
                };
                let visit = vm.visit.as_ref();
                vm.due.is_none()
                    && life
                    && visit.is_none_or(|visit| !visit.leaving && still(&visit.body))
            })
    }

    /// What keeps it from being settled.
    pub(super) fn what_waits(&self, heard: impl Fn(CellId) -> Ballot, text: &mut String) {
        let Some(talk) = &self.talk else { return };
        let unheard = |to: &CellId| heard(*to) != *talk.members.ballot();
        let others = self.live.without(self.out.cell);
        let unheard: Vec<CellId> = others.filter(unheard).collect();
        let quiet = (talk.members.is_quiet(), talk.exchange.is_quiet(), self.errands.is_empty());
        // Writing to a string does not fail.
        _ = write!(text, "unheard {unheard:?}, quiet {quiet:?}, {:?}", self.lending.is_settled());
        _ = write!(text, "\n  {:?}", talk.members);
        for (id, vm) in (0..).zip(&self.vms) {
            _ = write!(text, "\n  VM {id}: {:?} {:?} {:?} ", vm.state, vm.visit, vm.due);
            if let State::Living(life) = &vm.state {
                _ = write!(text, "visited {:?} ", life.visited);
                digest_body(&life.body, &mut std::hash::DefaultHasher::new(), text);
            }
            if let Some(visit) = &vm.visit {
                digest_body(&visit.body, &mut std::hash::DefaultHasher::new(), text);
            }
        }
    }

    /// Everything in it that may make a difference, as words and text.
    pub(super) fn digest(&self, hasher: &mut impl Hasher, text: &mut String) {
        if let Some(talk) = &self.talk {
            talk.exchange.hash(hasher);
            talk.members.hash(hasher);
        }
        (self.live, self.incarnation, self.silent).hash(hasher);
        self.faults.false_alarm.hash(hasher);
        // Writing to a string does not fail.
        _ = write!(text, "{:?}{:?}{:?}{:?}", self.frames, self.lending, self.errands, self.sched);
        _ = write!(text, "{:?}", self.held);
        _ = write!(text, "{:?}{:?}", self.probes, self.out.lead);
        for vm in &self.vms {
            _ = write!(text, "{:?}{:?}{:?}{}", vm.state, vm.visit, vm.due, vm.life_number);
            if let State::Living(life) = &vm.state {
                (life.visited, life.dismissed, life.warping).hash(hasher);
                for (page, mpa) in life.pmap.iter() {
                    (page, mpa).hash(hasher);
                }
                (life.pmap.taken(), life.pmap.promised()).hash(hasher);
                digest_body(&life.body, hasher, text);
            }
            if let Some(visit) = &vm.visit {
                digest_body(&visit.body, hasher, text);
            }
        }
    }
}

fn digest_body(body: &Body<super::toy::Toy>, hasher: &mut impl Hasher, text: &mut String) {
    (body.life, body.guest.serial).hash(hasher);
    for slot in &body.slots {
        (slot.interrupted, slot.ends, &slot.changed, &slot.probes).hash(hasher);
        let vcpu = |vcpu: &super::toy::ToyVcpu| (vcpu.ran, vcpu.interrupted);
        // Writing to a string does not fail.
        _ = match &slot.seat {
            Seat::Here(it) => write!(text, "H{:?}", vcpu(it)),
            Seat::Running => write!(text, "R"),
            Seat::Leaving { vcpu: it, to, parcel, carried } => {
                write!(text, "L{:?}{to:?}{}{carried:?}", vcpu(it), parcel.is_empty())
            }
            Seat::Arriving { vcpu: it, carried } => write!(text, "A{:?}{carried:?}", vcpu(it)),
            Seat::Away(cell) => write!(text, "W{cell}"),
            Seat::Gone => write!(text, "G"),
        };
        _ = write!(text, "{:?}", slot.goal);
    }
}
