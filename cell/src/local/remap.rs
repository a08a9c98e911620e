//! Pages moved to other frames while their VM lives, and the stress that does it at random.
//!
//! # How a page is moved
//!
//! 1. The VM is parked, and its VCPUs that run are asked back: nobody uses its memory when the last has come.
//! 2. Each page gets a second frame of the same source ([`crate::frames`]) and is copied there; the pmap then names the new frame.
//! 3. Each VCPU's slot notes the pages: it is told to forget them before it runs again, wherever that is. What it
//!    has left in the TLBs of CPUs is never used again, since it goes on in new address spaces.
//! 4. The old frames are overwritten and given back, and the VM goes on, if it is not paused.
//!
//! From 2 to 4 the cell's lock is held; the frames' own only for a moment each time, so that other VMs may have
//! pages placed meanwhile. Memory is accounted exactly throughout: audits may be made at any time.
//!
//! # The stress
//!
//! It moves pages of random VMs in this way, and some of their VCPUs to other CPUs while they are off, as often as
//! it can and still leaves guests time to use what has been moved. It counts what it is there for: a VCPU that
//! *returns* to a CPU on which it has run before, after pages of its VM have been moved.

use super::{LocalCell, Machine};
use crate::frames::Moving;
use crate::rng::Rng;
use crate::vm::{Exchange, State, VcpuId};
use abi::{CpuId, VmId};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// The shortest time that guests are left to themselves, and the longest, in nanoseconds.
const GAP_MIN_NS: u64 = 100_000;
const GAP_NS: u64 = 1_500_000;
/// Most runs of pages that are moved at a time, and most pages in each.
const RUNS: u64 = 2;
const PAGES: u64 = 12;

/// Pages, and VCPUs, are moved at random.
#[derive(Debug)]
pub(super) struct Remapping {
    /// When the next are.
    next: u64,
    /// When it is over.
    until: u64,
    /// How often pages were moved.
    rounds: u64,
    pages: u64,
    /// VCPUs that were sent to another CPU.
    moves: u64,
    /// VCPUs that have come back to a CPU where they had run before their pages were moved.
    returns: u64,
    /// By VM: how often pages were moved.
    changes: BTreeMap<VmId, u64>,
    /// By VCPU and CPU: how often they had been when it last ran there.
    seen: BTreeMap<(VcpuId, CpuId), u64>,
}

impl Remapping {
    /// `cpu` is about to run `who`.
    pub fn runs(&mut self, who: VcpuId, cpu: CpuId) {
        let now = self.changes.get(&who.vm).copied().unwrap_or(0);
        let before = self.seen.insert((who, cpu), now);
        self.returns += u64::from(before.is_some_and(|before| before != now));
    }
}

impl<M: Machine> LocalCell<M> {
    /// Moves pages and VCPUs for `seconds`; what to answer.
    pub(super) fn begin_remapping(&mut self, seconds: u64) -> String {
        let now = self.out.machine.now();
        let until = now.saturating_add(seconds.saturating_mul(1_000_000_000));
        self.remap = Some(Box::new(Remapping {
            next: now,
            until,
            rounds: 0,
            pages: 0,
            moves: 0,
            returns: 0,
            changes: BTreeMap::new(),
            seen: BTreeMap::new(),
        }));
        format!("moving pages and VCPUs for {seconds} s\n")
    }

    /// When [`Self::remap_due`] has something to do.
    pub(super) fn remap_deadline(&self) -> Option<u64> {
        self.remap.as_ref().map(|stress| stress.next.min(stress.until))
    }

    /// Has pages of a random VM moved, if it is time to.
    pub(super) fn remap_due(&mut self, now: u64) {
        let Some(mut stress) = self.remap.take() else { return };
        if now >= stress.until {
            let Remapping { rounds, pages, moves, returns, .. } = *stress;
            let state = match self.audit() {
                Ok(()) => "consistent".into(),
                Err(what) => format!("NOT CONSISTENT: {what}"),
            };
            return self.say(&format!(
                "stress: {pages} pages moved in {rounds} rounds, {moves} VCPUs moved, {returns} returns to a \
                 CPU after pages were moved; memory is {state}\n"
            ));
        }
        let is_due = now >= stress.next;
        if is_due {
            stress.next = now + GAP_MIN_NS + self.dice.below(GAP_NS - GAP_MIN_NS);
        }
        self.remap = Some(stress);
        if is_due {
            self.remap_some(now);
        }
    }

    /// Has some pages of a random VM moved.
    fn remap_some(&mut self, now: u64) {
        let vms: Vec<VmId> = self.ids().filter(|id| self.can_be_remapped(*id, now)).collect();
        if vms.is_empty() {
            return;
        }
        let id = vms[self.dice.below(vms.len() as u64) as usize];
        let State::Living(life) = &mut self.vms[usize::from(id.0)].state else { return };
        let all = life.pmap.pages();
        let mut pages = Vec::new();
        for _ in 0..1 + self.dice.below(RUNS) {
            let start = self.dice.below(u64::from(all)) as u32;
            let count = 1 + self.dice.below(PAGES) as u32;
            pages.push(start..all.min(start.saturating_add(count)));
        }
        life.exchange = Some(Exchange { pages, dice: Rng::new(self.dice.bits()) });
        self.sched.park(id, true, now);
        self.sched.recall(id);
        self.came_back(id);
    }

    /// Whether VM `id` lives here with all its VCPUs and is known in no other cell, and has pages, of which none is
    /// being moved.
    fn can_be_remapped(&self, id: VmId, now: u64) -> bool {
        let State::Living(life) = &self.vms[usize::from(id.0)].state else { return false };
        let is_here = |index| self.sched.standing(VcpuId { vm: id, index }, now).is_some();
        life.ending.is_none()
            && life.exchange.is_none()
            && life.pmap.resident() != 0
            && life.visited.is_empty()
            && (0..life.body.slots.len() as u32).all(is_here)
    }

    /// Moves the pages of VM `id`, all of whose VCPUs are here, that are to be moved, if there are any; it then
    /// goes on.
    pub(super) fn exchange_pages(&mut self, id: VmId) {
        let vm = &mut self.vms[usize::from(id.0)];
        let State::Living(life) = &mut vm.state else { return };
        let Some(Exchange { pages, mut dice }) = life.exchange.take() else { return };
        let machine = &mut self.out.machine;
        let mut all: Vec<u32> = pages.iter().cloned().flatten().collect();
        // Runs may overlap.
        all.sort_unstable();
        all.dedup();
        let begin = |page| self.frames.begin_move(&life.pmap, page, dice.bits());
        let moving: Vec<Moving> = all.into_iter().filter_map(begin).collect();
        let mut moved = 0;
        for &Moving { page, from, to, .. } in &moving {
            if machine.copy_page(from, to) {
                moved += u64::from(life.pmap.replace(page, from, to));
            }
        }
        for slot in &mut life.body.slots {
            pages.iter().for_each(|pages| slot.tell(pages));
        }
        for moving in moving {
            if life.pmap.get(moving.page) == Some(moving.to) {
                machine.spoil_page(moving.from);
            }
            self.frames.end_move(&life.pmap, moving);
        }
        let (paused, vcpus) = (life.paused, life.body.slots.len() as u32);
        let now = self.out.machine.now();
        self.scatter(id, vcpus, moved, now);
        if !paused {
            self.sched.park(id, false, now);
        }
    }

    /// Sends some VCPUs of VM `id`, of which so many pages have been moved, to other CPUs.
    fn scatter(&mut self, id: VmId, vcpus: u32, moved: u64, now: u64) {
        let Some(stress) = &mut self.remap else { return };
        stress.rounds += 1;
        stress.pages += moved;
        *stress.changes.entry(id).or_default() += u64::from(moved != 0);
        let cpus: Vec<CpuId> = self.sched.cpus().map(|(cpu, _)| cpu).collect();
        for index in 0..vcpus {
            let cpu = cpus[self.dice.below(cpus.len() as u64) as usize];
            stress.moves += u64::from(self.sched.place(VcpuId { vm: id, index }, cpu, now));
        }
    }
}
