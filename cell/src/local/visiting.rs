//! VMs whose VCPUs are in several cells: what their home does for the others, and they for it.

use super::errands::Errand;
use super::{LocalCell, Machine};
use crate::loan::Payload;
use crate::talk::mutant::{Mutant, seeded};
use crate::talk::{CellSet, Message, Vcpu as Name};
use crate::visit::{Ask, MOST_WORDS, Told, Used, Whom};
use crate::vm::{Guest, Seat, Slot, State, Then, Vcpu, VcpuId};
use abi::event::Cause;
use abi::{CellId, VmId};
use alloc::format;
use alloc::string::String;

impl<M: Machine> LocalCell<M> {
    /// Another cell asks something about a VM: what to answer.
    pub(super) fn asked_about_visit(&mut self, from: CellId, payload: &Payload) -> Payload {
        let told = match Ask::decode(payload) {
            Some((whom, ask)) if usize::from(whom.vm.0) < self.vms.len() => {
                self.do_for(from, whom, ask)
            }
            _ => Told::No,
        };
        told.encode()
    }

    fn do_for(&mut self, from: CellId, whom: Whom, ask: Ask) -> Told {
        let Whom { vm: id, life } = whom;
        let Some(body) = self.vm(id).body_in(life) else {
            if ask != Ask::Leave {
                return Told::No;
            }
            // It has never come, or has gone: its home waits to hear so.
            self.errand(Errand::Ask(from, whom, Ask::Gone(Used::default())));
            return Told::Done;
        };
        match ask {
            Ask::Page { page, node } => match body.guest.place(page, node) {
                Some(first) => {
                    // Who uses a page often uses those after it: they are told of if they are there.
                    let mut places = [0; MOST_WORDS];
                    let mut at = page;
                    for place in &mut places {
                        *place = body.guest.find(at).map_or(0, |mpa| mpa.0);
                        at = at.saturating_add(1);
                    }
                    places[0] = first.0;
                    Told::Pages(Payload::new(&places))
                }
                None => Told::No,
            },
            Ask::Device(call) => match body.guest.serve(call.as_slice()) {
                Some((answer, look)) => {
                    self.served(id, look);
                    Told::Device(answer)
                }
                None => Told::No,
            },
            Ask::Leave => {
                self.dismiss_visit(id);
                Told::Done
            }
            Ask::Gone(used) => {
                self.gone(id, from, &used);
                Told::Done
            }
            Ask::Park(parked) => {
                self.park_visit(id, parked);
                Told::Done
            }
            Ask::Warp(ns) => {
                body.guest.warp_to(ns);
                Told::Done
            }
            Ask::Move { index, goal } => {
                let who = VcpuId { vm: id, index };
                let now = self.out.machine.now();
                match goal {
                    None => _ = self.sched.unpin(who),
                    Some(goal) if self.cell_of(goal.cpu) == Some(self.out.cell) => {
                        // Pinned: whoever asks knows, and has said so.
                        self.sched.unpin(who);
                        _ = self.sched.migrate(who, goal.cpu, goal.pin, now);
                        self.moved();
                    }
                    Some(goal) => self.send_off(who, goal),
                }
                Told::Done
            }
        }
    }

    /// A call about a VM was answered.
    pub(super) fn visit_answered(&mut self, from: CellId, whom: Whom, ask: Ask, told: Told) {
        if let (Ask::Warp(ns), Some(life)) = (ask, self.vm(whom.vm).life())
            && life.body.life == whom.life
        {
            life.warping = life.warping.without(from);
            if told == Told::Done && life.body.guest.warped() > ns {
                self.tell_warp(whom.vm, CellSet::one(from));
            }
        }
    }

    /// The devices of VM `id` have been accessed from another cell.
    fn served(&mut self, id: VmId, look: bool) {
        _ = self.take_output(id);
        let any = self.vm(id).pass_input();
        if look || any {
            self.board_changed(id);
        }
        self.warped(id);
    }

    /// The board of VM `id` may have an interrupt for VCPU 0.
    pub(super) fn board_changed(&mut self, id: VmId) {
        let now = self.out.machine.now();
        let first = VcpuId { vm: id, index: 0 };
        if self.slot(first).is_some_and(|slot| slot.is_own()) {
            self.sched.wake(first, now);
        } else if let Some(name) = self.talk_name(first) {
            self.errand(Errand::Send(name, Message::Look));
        }
    }

    /// A VCPU of VM `id` interrupts VCPU `index` of it, if there is one.
    pub(super) fn interrupt(&mut self, id: VmId, index: u32) {
        let now = self.out.machine.now();
        let who = VcpuId { vm: id, index };
        let Some(slot) = self.slot(who) else { return };
        if slot.is_own() {
            slot.interrupted = true;
            self.sched.wake(who, now);
        } else if let Some(name) = self.talk_name(who) {
            self.errand(Errand::Send(name, Message::Interrupt));
        }
    }

    /// A message for one of this cell's VCPUs.
    pub(super) fn execute_message(&mut self, name: Name, message: Message) {
        let now = self.out.machine.now();
        let Some(who) = self.named(name) else { return };
        let vm = &mut self.vms[usize::from(who.vm.0)];
        let Some(body) = vm.body_in(name.life) else { return };
        let slot = &mut body.slots[who.index as usize];
        slot.unpack();
        match message {
            Message::Interrupt => slot.interrupted = true,
            Message::Look => body.guest.look(),
            Message::Forget { first, pages } => {
                let pages = first..first.saturating_add(pages);
                if let Some(visit) = &vm.visit {
                    visit.replica.forget(pages.clone());
                }
                return self.forget(who.vm, &pages);
            }
            Message::Probe(value) => return self.had_message(who, value),
        }
        self.sched.wake(who, now);
    }

    /// If the time of VM `id` has been warped, its VCPUs in other cells are told.
    pub(super) fn warped(&mut self, id: VmId) {
        if let Some(life) = self.vm(id).life()
            && !life.visited.is_empty()
            && life.body.guest.warped() > life.warped
        {
            let cells = life.visited.minus(life.dismissed).minus(life.warping);
            self.tell_warp(id, cells);
        }
    }

    fn tell_warp(&mut self, id: VmId, cells: CellSet) {
        let Some(life) = self.vm(id).life() else { return };
        life.warped = life.body.guest.warped();
        life.warping = CellSet(life.warping.0 | cells.0);
        let ask = Ask::Warp(life.warped);
        self.ask_about(id, cells, ask);
    }

    /// At home: the cells that VM `id` visits are asked to end what they have of it.
    pub(super) fn dismiss(&mut self, id: VmId) {
        let Some(life) = self.vm(id).life() else { return };
        let cells = life.visited.minus(life.dismissed);
        life.dismissed = life.visited;
        self.ask_about(id, cells, Ask::Leave);
    }

    /// At home: the VCPUs of VM `id` in the cells that it visits are not to run, or to run again.
    pub(super) fn park_away(&mut self, id: VmId, parked: bool) {
        let Some(life) = self.vm(id).life() else { return };
        let cells = life.visited.minus(life.dismissed);
        self.ask_about(id, cells, Ask::Park(parked));
    }

    /// At home: nothing of VM `id` is left in `cell`.
    fn gone(&mut self, id: VmId, cell: CellId, used: &Used) {
        let Some(life) = self.vm(id).life() else { return };
        life.visited = life.visited.without(cell);
        life.used.instructions += used.instructions;
        life.used.times.add(&used.times);
        for slot in &mut life.body.slots {
            if slot.away() == Some(cell) {
                slot.seat = Seat::Gone;
                slot.instructions = 0;
            }
        }
        self.came_back(id);
    }

    /// In a visited cell: VM `id` is not to run here, or to run again.
    fn park_visit(&mut self, id: VmId, parked: bool) {
        let now = self.out.machine.now();
        if let Some(visit) = &mut self.vm(id).visit {
            visit.parked = parked;
            let parked = parked || visit.leaving;
            self.sched.park(id, parked, now);
            if parked {
                self.sched.recall(id);
            }
        }
    }

    /// In a visited cell: what is here of VM `id` ends, at once or when its VCPUs have come back.
    fn dismiss_visit(&mut self, id: VmId) {
        if let Some(visit) = &mut self.vm(id).visit {
            visit.leaving = true;
            let parked = visit.parked;
            self.park_visit(id, parked);
            self.came_back(id);
        }
    }

    /// In a visited cell: ends what is here of VM `id`, none of whose VCPUs runs or is on its way.
    pub(super) fn end_visit(&mut self, id: VmId) {
        let now = self.out.machine.now();
        let times = self.times_here(id, now);
        self.retire(id);
        let Some(visit) = self.vm(id).visit.take() else { return };
        self.sched.remove(id);
        let here = visit.body.slots.iter().filter_map(Slot::vcpu);
        let used = Used { instructions: here.map(Vcpu::instructions).sum(), times };
        let whom = Whom { vm: id, life: visit.body.life };
        let home = visit.replica.home();
        // What the VCPUs knew of the VM's pages is gone before its home hears so.
        drop(visit);
        self.errand(Errand::Ask(home, whom, Ask::Gone(used)));
    }

    /// `cell` has died: VMs that had a VCPU there end, and so does what is here of those whose home it was.
    pub(super) fn visited_died(&mut self, cell: CellId) {
        for id in self.ids() {
            let vm = self.vm(id);
            if vm.visit.as_ref().is_some_and(|visit| visit.replica.home() == cell)
                && !seeded(Mutant::VisitKept)
            {
                self.dismiss_visit(id);
            }
            let Some(life) = self.vm(id).life() else { continue };
            if life.visited.has(cell) {
                life.reached = life.reached.with(cell);
            }
            life.visited = life.visited.without(cell);
            life.warping = life.warping.without(cell);
            let mut any = false;
            for slot in &mut life.body.slots {
                if slot.away() == Some(cell) {
                    (slot.seat, any) = (Seat::Gone, true);
                }
            }
            if any && !seeded(Mutant::VcpuForgotten) {
                let why = format!("cell {cell}, which has died, ran a VCPU of it");
                self.end(id, Cause::CellLost, why, Then::Policy);
            } else {
                self.came_back(id);
            }
        }
    }

    /// Whether nothing of another cell's VMs is left here.
    pub(super) fn has_visits(&self) -> bool {
        self.vms.iter().any(|vm| vm.visit.is_some())
    }

    /// What the console of a VM has printed goes out; whether there was any.
    pub(super) fn take_output(&mut self, id: VmId) -> bool {
        let vm = &mut self.vms[usize::from(id.0)];
        let State::Living(life) = &vm.state else { return false };
        let (out, tail) = (&mut self.out, &mut vm.tail);
        let mut any = false;
        life.body.guest.take_output(&mut |bytes| {
            out.emit(abi::ring::vm_stream(id), bytes);
            tail.push(bytes);
            any = true;
        });
        any
    }

    /// What an operator calls a VCPU.
    pub(super) fn name_of(&self, who: VcpuId) -> String {
        format!("{}.{}", self.vms[usize::from(who.vm.0)].config.name, who.index)
    }
}
