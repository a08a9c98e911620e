//! Turns: what each CPU does next, and what comes of a VCPU's run.

use super::out::outcome_record;
use super::post::RETRY_NS;
use super::{LocalCell, Machine, vm_of};
use crate::sched::Pick;
use crate::script::{Action, Player};
use crate::vm::{Exit, Guest, Slot, State, Then, VcpuId};
use abi::event::{Cause, Kind};
use abi::ring::stream;
use abi::script::Outcome;
use abi::{CpuId, VmId};
use alloc::boxed::Box;
use alloc::string::String;
use core::ops::Range;

/// Most bytes that wait to be taken by a VM's console; what is typed beyond them is lost, as on a
/// serial line whose other end does not listen.
const TYPED_MAX: usize = 1 << 20;

/// A VCPU that a CPU is to run, and its owner meanwhile.
#[derive(Debug)]
pub struct Turn<V> {
    /// Its VM.
    pub vm: VmId,
    /// Its number in the VM.
    pub index: u32,
    /// The VCPU.
    pub vcpu: Box<V>,
    /// Up to which machine time.
    pub until: u64,
}

/// What a CPU is to do after a [`LocalCell::step`].
#[derive(Debug)]
pub enum Next<V> {
    /// Run this VCPU, without the lock, and hand it back with [`LocalCell::done`].
    Run(Turn<V>),
    /// Another step at this machine time (`None`: only when kicked or when something is typed), when
    /// kicked, or when something is typed.
    Wait(Option<u64>),
    /// The run is over and its outcome has been written: power off.
    Over(Outcome),
}

impl<M: Machine> LocalCell<M> {
    /// What `cpu` is to do next. Whatever else is due, the script's steps for instance, is done first.
    ///
    /// # Panics
    /// When `cpu` is not one of the cell's.
    pub fn step(&mut self, cpu: CpuId) -> Next<<M::Guest as Guest>::Vcpu> {
        self.out.cpu = cpu;
        let now = self.keep_house();
        let next = match self.over.clone() {
            Some(outcome) => self.finish(cpu, now, outcome),
            None => self.next(cpu, now),
        };
        self.say_what_waits();
        self.kick();
        next
    }

    /// Does what is due; the time after it.
    fn keep_house(&mut self) -> u64 {
        self.exchange();
        let mut now = self.out.machine.now();
        while self.over.is_none()
            && let Some(player) = &mut self.out.player
        {
            let before = player.position();
            let action = player.poll(now);
            if player.position() != before {
                self.out.save();
            }
            match action {
                Some(Action::Type { stream, bytes }) => {
                    self.input(stream, &bytes);
                    // The sooner it is there, the less is lost with this cell.
                    self.send_orders();
                }
                Some(Action::End(outcome)) => self.over = Some(outcome),
                None => break,
            }
            now = self.out.machine.now();
        }
        self.faults_due(now);
        if self.over.is_none() {
            self.restart_due(now);
            self.stress_due(now);
            self.remap_due(now);
            let lives = |vm: &crate::vm::Vm<M::Guest>| {
                matches!(vm.state, State::Living(_)) || vm.due.is_some()
            };
            let is_idle = !self.vms.iter().any(lives) && !self.has_orphans();
            // Whoever is to lead may have to start some first.
            let waits = self.shared && self.out.machine.leads() && !self.post.serves();
            if self.ends_with_vms && self.out.machine.idle(is_idle && !waits) {
                self.over = Some(Outcome::Done);
            }
        }
        self.out.machine.now()
    }

    /// When the cell has something to do that no VCPU does.
    fn deadline(&self) -> Option<u64> {
        let script = self.out.player.as_ref().and_then(Player::deadline);
        let restarts = self.vms.iter().filter_map(|vm| vm.due);
        let stress = self.stress_deadline().into_iter().chain(self.remap_deadline());
        let others = self.answer_deadline().into_iter().chain(self.faults.deadline());
        script.into_iter().chain(restarts).chain(stress).chain(others).min()
    }

    fn next(&mut self, cpu: CpuId, now: u64) -> Next<<M::Guest as Guest>::Vcpu> {
        if self.out.is_held_up() {
            self.sched.sleep(cpu);
            return Next::Wait(Some(now + RETRY_NS));
        }
        let deadline = self.deadline();
        match self.sched.pick(cpu, now) {
            Pick::Nothing { until } => Next::Wait(until.into_iter().chain(deadline).min()),
            Pick::Run { who: who @ VcpuId { vm: id, index }, until } => {
                if let Some(stress) = &mut self.remap {
                    stress.runs(who, cpu);
                }
                let until = deadline.map_or(until, |d| d.clamp(now, until.max(now)));
                let vm = self.vm(id);
                vm.pass_input();
                let body = vm.body().expect("a VM that the scheduler knows is here");
                let vcpu = body.slots[index as usize].take();
                Next::Run(Turn { vm: id, index, vcpu, until })
            }
        }
    }

    /// `cpu` hands back what [`Self::step`] gave it, which it ran between the machine times `from` and
    /// `to` until `exit`.
    ///
    /// # Panics
    /// When `cpu` or the VCPU is not the cell's.
    pub fn done(
        &mut self,
        cpu: CpuId,
        turn: Turn<<M::Guest as Guest>::Vcpu>,
        from: u64,
        to: u64,
        exit: Exit,
    ) {
        self.out.cpu = cpu;
        self.resumed(from);
        let Turn { vm: id, index, vcpu, .. } = turn;
        let who = VcpuId { vm: id, index };
        self.sched.ran(cpu, who, from, to, exit == Exit::Slice);
        let body = self.vm(id).body().expect("it is here while it is run");
        body.back(index, vcpu, &exit);
        let first = VcpuId { vm: id, index: 0 };
        if self.take_output(id) && self.slot(first).is_some_and(|slot| !slot.is_own()) {
            // A transmitter that was held goes on.
            self.board_changed(id);
        }
        match exit {
            Exit::Slice => {}
            Exit::Idle { until } => {
                self.sched.wait(who, until, to);
                if self.vm(id).pass_input() {
                    self.board_changed(id);
                }
            }
            Exit::Send { to: target } => self.interrupt(id, target),
            Exit::Board => self.board_changed(id),
            Exit::Home => self.go_home(who),
            // What a guest does whose memory is that of a dead node is not its own doing.
            Exit::Ended { .. } if self.depends_on_dead(id) => {
                let why = "it depends on a cell that has died".into();
                self.end(id, Cause::CellLost, why, Then::Policy);
            }
            Exit::Ended { cause, report } => self.end(id, cause, report, Then::Policy),
        }
        self.moved();
        self.warped(id);
        self.depart(who);
        self.came_back(id);
        self.say_what_waits();
        self.kick();
    }

    /// Bytes were typed at a console. What is typed at a VM that does not live is lost, as at a machine
    /// that is switched off; so is what is typed at a console that does not exist.
    pub fn input(&mut self, console: u16, bytes: &[u8]) {
        if console == stream::MONITOR {
            self.typed_at_monitor(bytes);
            return self.kick();
        }
        self.type_at(console, bytes);
    }

    /// Bytes were typed at the console of a VM of this cell.
    pub(super) fn type_at_vm(&mut self, console: u16, bytes: &[u8]) {
        let id = vm_of(console);
        let Some(vm) = self.vms.get_mut(usize::from(id.0)) else { return };
        if matches!(vm.state, State::Living(_)) {
            let room = TYPED_MAX.saturating_sub(vm.typed.len());
            vm.typed.extend(&bytes[..bytes.len().min(room)]);
            if vm.pass_input() {
                self.board_changed(id);
                self.kick();
            }
        }
    }

    /// The machine pages of these pages of VM `id` have changed: each of its VCPUs is told before it
    /// runs again. Those that run now are asked back; until [`Self::has_forgotten`] they may use the
    /// old pages.
    pub fn forget(&mut self, id: VmId, pages: &Range<u32>) {
        if let Some(body) = self.vm(id).body() {
            for slot in &mut body.slots {
                slot.tell(pages);
            }
            self.sched.recall(id);
            self.kick();
        }
    }

    /// Whether no VCPU of VM `id` runs that has not been told of every [`Self::forget`].
    pub fn has_forgotten(&self, id: VmId) -> bool {
        match &self.vms[usize::from(id.0)].state {
            State::Living(life) => {
                let told = |slot: &Slot<_>| slot.vcpu().is_some() || slot.changed.is_empty();
                life.body.slots.iter().all(told)
            }
            State::Defined | State::Ended(_) | State::Destroyed => true,
        }
    }

    /// Ends all VMs and, once they have, the run.
    fn finish(
        &mut self,
        cpu: CpuId,
        now: u64,
        outcome: Outcome,
    ) -> Next<<M::Guest as Guest>::Vcpu> {
        if self.shared && self.out.machine.leads() {
            if !self.post.serves() {
                // The one that led may have known how it ends.
                self.sched.sleep(cpu);
                return Next::Wait(Some(now + RETRY_NS));
            }
            self.note_outcome(&outcome);
        }
        // What VMs of other cells have here goes when these end: so they have to hear of it first.
        self.out.machine.ending();
        for id in self.ids() {
            self.vm(id).due = None;
            self.end(id, Cause::Quit, String::new(), Then::Stay);
        }
        if self.has_visits() || self.vms.iter().any(|vm| matches!(vm.state, State::Living(_))) {
            // Whoever brings the last VCPU back asks next.
            self.sched.sleep(cpu);
            return Next::Wait(None);
        }
        if self.out.is_held_up() {
            self.sched.sleep(cpu);
            return Next::Wait(Some(now + RETRY_NS));
        }
        if !core::mem::replace(&mut self.finished, true) && self.out.machine.leads() {
            self.out.machine.write(stream::OUTCOME, now, &outcome_record(&outcome));
        }
        Next::Over(outcome)
    }

    /// Reports the moves that have been made.
    pub(super) fn moved(&mut self) {
        for m in self.sched.take_moves() {
            let name = &self.vms[usize::from(m.who.vm.0)].config.name;
            let (vcpu, from, to) = (m.who.index, m.from.0, m.to.0);
            self.out.event(Kind::VcpuMigrated { vm: name.into(), vcpu, from, to });
        }
    }
}
