//! A VM's life: started, paused, resumed, ended, started again, destroyed.
//!
//! # Restart policy
//!
//! A VM that ended by itself is started again if its configuration says so: `always` whatever the
//! cause, `on-failure` unless the guest switched its machine off (a guest that fails resets it). Not
//! when an operator ended it. The first time after [`BACK_OFF_NS`]; then, while its lives are shorter
//! than [`STEADY_NS`], after twice the time each time, up to [`BACK_OFF_MAX_NS`]: a VM that fails at
//! once does not keep a CPU, or the console, busy. Times are virtual.

use super::errands::Errand;
use super::{CreateError, LocalCell, Machine, Refused};
use crate::frames::Pages;
use crate::placement::Plan;
use crate::pmap::{NoPmap, Pmap};
use crate::tail::Tail;
use crate::talk::CellSet;
use crate::talk::mutant::{Mutant, seeded};
use crate::visit::Goal;
use crate::vm::{Body, End, Ending, Guest, Life, State, Then, VcpuId, Visit};
use abi::config::{Placement, Restart};
use abi::event::{Cause, Kind};
use abi::{CellId, CpuId, PAGE_SHIFT, VmId};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;

/// How long a VM that failed waits to be started again.
pub const BACK_OFF_NS: u64 = 100_000_000;
/// How long it waits at most, however often it fails at once.
pub const BACK_OFF_MAX_NS: u64 = 30_000_000_000;
/// How soon it is looked again whether what a dead home had here has gone.
const VISIT_ENDS_NS: u64 = 1_000_000;
/// A life of this length is no failure at once.
pub const STEADY_NS: u64 = 10_000_000_000;

impl<M: Machine> LocalCell<M> {
    /// Starts VM `id`; or asks other cells for memory that it is to have of them, and starts it when they have
    /// answered.
    ///
    /// # Errors
    /// When it lives already, its memory is not free, or its images can't be loaded.
    pub fn start(&mut self, id: VmId) -> Result<(), Refused> {
        self.start_with(id, false)
    }

    /// Starts VM `id`. `asked`: other cells have been asked for memory.
    pub(super) fn start_with(&mut self, id: VmId, asked: bool) -> Result<(), Refused> {
        let vm = &mut self.vms[usize::from(id.0)];
        let name = &vm.config.name;
        if let State::Living(life) = &vm.state {
            let text = match life.ending {
                Some(_) => format!("VM `{name}` is just being ended: start it when it has"),
                None => format!("VM `{name}` runs already"),
            };
            return Err(Refused { cause: None, text });
        }
        if vm.visit.is_some() {
            let text =
                format!("VM `{name}` of another cell is just being ended here: start it then");
            return Err(Refused { cause: None, text });
        }
        vm.due = None;
        let pages = vm.config.memory >> PAGE_SHIFT;
        let plan = Plan::new(vm.config.placement, self.out.cell, vm.config.cells & self.live.0);
        let Ok(pages) = u32::try_from(pages) else {
            let text = format!("VM `{name}` needs {}: no machine has that", Pages(pages));
            return Err(Refused { cause: Some(Cause::NoMemory), text });
        };
        let missing = self.frames.missing(&plan, pages);
        if !asked && self.talk.is_some() && self.borrow_for(id, &missing) {
            return Ok(());
        }
        let vm = &mut self.vms[usize::from(id.0)];
        let name = &vm.config.name;
        let refuse = |why: &dyn core::fmt::Display| Refused {
            cause: Some(Cause::NoMemory),
            text: format!("VM `{name}` {why}"),
        };
        let pmap = Pmap::new(&self.frames, id, plan, pages).map_err(|error| match error {
            NoPmap::Heap => refuse(&"can't be started: the monitor's own heap is too full"),
            NoPmap::Shortage(shortage) => {
                refuse(&format!("{shortage}: stop another VM, or give this one less memory"))
            }
        })?;
        let pmap = Arc::new(pmap);
        match self.out.machine.create(id, &vm.config, &pmap) {
            Ok((guest, vcpus)) => {
                let now = self.out.machine.now();
                vm.lives += 1;
                // Later lives have larger numbers, in whichever cell they begin.
                vm.life_number = (vm.life_number + 1).max((now / 1_000_000) as u32);
                vm.tail = Tail::new();
                let remark = guest.remark().map(|remark| format!("VM `{name}` {remark}\n"));
                self.sched.add(id, vcpus.len() as u32, vm.config.weight, now);
                let body = Body::new(guest, vcpus, vm.life_number, now);
                vm.state = State::Living(Life::new(body, pmap));
                self.note_vms();
                self.report(id, |vm| Kind::VmStart { vm });
                if let Some(remark) = remark {
                    self.say(&remark);
                }
                self.spread_out(id);
                Ok(())
            }
            Err(error) => {
                let (cause, why) = match error {
                    CreateError::NoMemory(why) => (Cause::NoMemory, why),
                    CreateError::BadImage(why) => (Cause::BadImage, why),
                };
                let text = format!("VM `{name}` can't be started: {why}");
                Err(Refused { cause: Some(cause), text })
            }
        }
    }

    /// Announces that VM `id` was to be started, but not by an operator's command, and was not.
    pub(super) fn not_started(&mut self, id: VmId, refused: Refused) {
        self.say(&format!("{}\n", refused.text));
        let cause = refused.cause.unwrap_or(Cause::NoMemory);
        self.report(id, |vm| Kind::VmEnd { vm, cause });
    }

    /// Ends VM `id`, if it lives: at once, or when those of its VCPUs that run have come back. Of two
    /// causes the first is told; of two wishes what `then` becomes of it, the last.
    pub(super) fn end(&mut self, id: VmId, cause: Cause, report: String, then: Then) {
        let Some(life) = self.vm(id).life() else { return };
        match &mut life.ending {
            Some(ending) if then != Then::Policy => ending.then = then,
            Some(_) => {}
            None => life.ending = Some(Ending { cause, report, then }),
        }
        let now = self.out.machine.now();
        self.sched.park(id, true, now);
        self.sched.recall(id);
        self.dismiss(id);
        self.came_back(id);
    }

    /// A VCPU of VM `id` may have come back: if all have, and it was to end, it has ended; if it was to
    /// pause, it is paused.
    pub(super) fn came_back(&mut self, id: VmId) {
        let Some(life) = self.vm(id).life() else {
            let ends = |visit: &Visit<_>| visit.leaving && !visit.body.is_moving();
            if self.vm(id).visit.as_ref().is_some_and(ends) {
                self.end_visit(id);
            }
            return;
        };
        if life.body.is_moving() {
            return;
        }
        if life.ending.is_some() {
            // The cells that it visits say when nothing of it is left there.
            if life.visited.is_empty() {
                self.bury(id);
            }
            return;
        }
        self.exchange_pages(id);
        if self.vm(id).life().is_some_and(|life| core::mem::take(&mut life.pausing)) {
            let vm = self.vm(id).config.name.clone();
            self.say(&format!("VM `{vm}` paused\n"));
            self.report(id, |vm| Kind::VmPaused { vm });
        }
    }

    /// Ends the life of VM `id`, whose VCPUs are all here.
    fn bury(&mut self, id: VmId) {
        let now = self.out.machine.now();
        let Some(usage) = self.usage_of(id) else { return };
        self.retire(id);
        let vm = &mut self.vms[usize::from(id.0)];
        let State::Living(mut life) = core::mem::replace(&mut vm.state, State::Defined) else {
            return;
        };
        let Some(Ending { cause, report, then }) = life.ending.take() else { return };
        let name = vm.config.name.clone();
        let mut text = format!("VM `{name}` ended: {}\n", cause.as_str());
        if !cause.is_normal() {
            for line in report.lines() {
                // Writing to a string does not fail.
                let _ = writeln!(text, "  {line}");
            }
            if !vm.tail.is_empty() {
                text.push_str("  its last output:\n");
                text.push_str(&vm.tail.lines("  | "));
            }
        }
        let lived = usage.life_ns;
        vm.state = State::Ended(End { cause, t_ns: now, report, usage });
        vm.typed.clear();
        self.held.hold(life.reached, &life.pmap);
        self.discard_unread();
        // With the last that uses it the VM's memory comes back.
        drop(life);
        self.return_unused();
        self.sched.remove(id);
        let again = match then {
            Then::Stay | Then::Destroy => None,
            Then::Policy => self.again(id, cause, lived),
            Then::Restart => {
                self.vm(id).due = Some(now);
                None
            }
        };
        self.note_vms();
        self.report(id, |vm| Kind::VmEnd { vm, cause });
        if seeded(Mutant::EndToldTwice) {
            self.report(id, |vm| Kind::VmEnd { vm, cause });
        }
        if let Some(wait) = again {
            // Writing to a string does not fail.
            let _ = writeln!(text, "  it is started again in {} ms", wait / 1_000_000);
        }
        match then {
            Then::Stay | Then::Policy | Then::Restart => {}
            Then::Destroy => {
                self.undefine(id);
                text.push_str("  and its definition has gone\n");
            }
        }
        self.say(&text);
    }

    /// No message reaches this cell's VCPUs of VM `id` any more.
    pub(super) fn retire(&mut self, id: VmId) {
        for index in 0..self.vm(id).config.vcpus {
            let who = VcpuId { vm: id, index };
            if self.slot(who).is_some_and(|slot| slot.vcpu().is_some())
                && let Some(name) = self.talk_name(who)
            {
                self.errand(Errand::End(name));
            }
        }
    }

    /// VM `id` has started: other cells may search for its VCPUs; if it is to be spread, they go to its permitted cells in
    /// turn, the first to its home.
    fn spread_out(&mut self, id: VmId) {
        let me = self.out.cell;
        let config = &self.vms[usize::from(id.0)].config;
        let (vcpus, permitted) = (config.vcpus, config.cells);
        let spread = config.placement == Placement::Spread;
        let others = CellSet(permitted).and(self.live).without(me);
        let ways: Vec<CellId> = core::iter::once(me).chain(others).collect();
        for index in 0..vcpus {
            let who = VcpuId { vm: id, index };
            if let Some(name) = self.talk_name(who) {
                self.errand(Errand::Begin(name, me));
            }
            let to = ways[index as usize % ways.len()];
            if spread && to != me {
                let cpus: Vec<CpuId> = self
                    .cpus_for(id)
                    .into_iter()
                    .filter(|c| self.cell_of(*c) == Some(to))
                    .collect();
                let turn = index as usize / ways.len() % cpus.len().max(1);
                if let Some(&cpu) = cpus.get(turn) {
                    self.send_off(who, Goal { cpu, pin: false });
                }
            }
        }
    }

    /// Whether and how soon the restart policy starts VM `id` again, which ended because of `cause`
    /// after so long.
    fn again(&mut self, id: VmId, cause: Cause, lived: u64) -> Option<u64> {
        let now = self.out.machine.now();
        let vm = self.vm(id);
        let wanted = match vm.config.restart {
            Restart::Never => false,
            Restart::OnFailure | Restart::OnFailureElsewhere => cause != Cause::PowerOff,
            Restart::Always => true,
        };
        if !wanted {
            return None;
        }
        vm.back_off = if lived >= STEADY_NS || vm.back_off == 0 {
            BACK_OFF_NS
        } else {
            (vm.back_off * 2).min(BACK_OFF_MAX_NS)
        };
        vm.due = Some(now + vm.back_off);
        Some(vm.back_off)
    }

    /// Starts the VMs that are to be started again by now.
    pub(super) fn restart_due(&mut self, now: u64) {
        for id in self.ids() {
            if self.vm(id).due.is_some_and(|due| due <= now) {
                if self.vm(id).visit.is_some() {
                    // What its dead home had here is just being ended.
                    self.vm(id).due = Some(now + VISIT_ENDS_NS);
                    continue;
                }
                match self.start(id) {
                    Ok(()) => {
                        let name = &self.vms[usize::from(id.0)].config.name;
                        let text = format!("VM `{name}` started again\n");
                        self.say(&text);
                    }
                    Err(refused) => self.not_started_again(id, refused),
                }
                self.note_vms();
            }
        }
    }

    /// Tells why VM `id` was not started again.
    pub(super) fn not_started_again(&mut self, id: VmId, refused: Refused) {
        let memory = refused.cause == Some(Cause::NoMemory);
        self.not_started(id, refused);
        // Memory may be free another time.
        if memory {
            self.again(id, Cause::NoMemory, 0);
        }
    }

    /// Pauses VM `id`, which lives and is not paused.
    pub(super) fn pause(&mut self, id: VmId) {
        let now = self.out.machine.now();
        if let Some(life) = self.vm(id).life() {
            (life.paused, life.pausing) = (true, true);
            self.sched.park(id, true, now);
            self.sched.recall(id);
            self.park_away(id, true);
            self.came_back(id);
        }
    }

    /// VM `id`, which is paused, goes on.
    pub(super) fn resume(&mut self, id: VmId) {
        let now = self.out.machine.now();
        if let Some(life) = self.vm(id).life() {
            (life.paused, life.pausing) = (false, false);
            if life.exchange.is_none() {
                self.sched.park(id, false, now);
            }
            self.park_away(id, false);
            self.report(id, |vm| Kind::VmResumed { vm });
        }
    }

    /// VM `id`, which does not live, is no more.
    pub(super) fn undefine(&mut self, id: VmId) {
        let vm = self.vm(id);
        (vm.state, vm.due) = (State::Destroyed, None);
        self.note_vms();
        self.report(id, |vm| Kind::VmDestroyed { vm });
    }
}
