//! VCPUs on their way from cell to cell: between the home of their VM and the cells that they visit.
//!
//! ```text
//! the cell that has it                        the cell that gets it
//! Here: out of its queue, saved to a parcel
//! Leaving              -- Offer -->           the parcel is copied and made a VCPU
//!                      <-- Accepted --        Arriving
//! Away                 -- Take -->            Here: into a queue
//! ```
//!
//! Who has it at each moment, cells dying in between included, is [`crate::talk::registry`]'s business. One
//! cell's VCPUs go by way of their home to a third: so the home always knows where each is.

use super::errands::Errand;
use super::{LocalCell, Machine};
use crate::pmap::Replica;
use crate::sched::Came;
use crate::talk::{CellSet, Frozen, Vcpu as Name};
use crate::visit::{Ask, Carried, Goal, PARCEL_WORDS_MAX, Parcel};
use crate::vm::{Body, Guest, Seat, Slot, State, VcpuId, Visit};
use abi::event::Kind;
use abi::{CellId, CpuId, PAGE_SHIFT, VmId};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// Why a cell does not take a VCPU that it is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Unwelcome {
    /// There is no such VCPU, or it can't come from there.
    Unknown = 1,
    /// Its state can't be read.
    Unreadable = 2,
    /// What was read is no state of it.
    Nonsense = 3,
    /// There is no room for it.
    NoRoom = 4,
}

impl fmt::Display for Unwelcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "it knows no such VCPU",
            Self::Unreadable => "its state can't be read from there",
            Self::Nonsense => "what it read is no state of a VCPU",
            Self::NoRoom => "its monitor's heap has no room: stop a VM there",
        })
    }
}

impl Unwelcome {
    fn of(why: u32) -> Self {
        let all = [Self::Unreadable, Self::Nonsense, Self::NoRoom];
        all.into_iter().find(|w| *w as u32 == why).unwrap_or(Self::Unknown)
    }
}

impl<M: Machine> LocalCell<M> {
    /// What the cells call a VCPU of a VM that is here.
    pub(super) fn talk_name(&mut self, who: VcpuId) -> Option<Name> {
        let first = *self.numbers.get(usize::from(who.vm.0))?;
        let life = self.vm(who.vm).body()?.life;
        Some(Name { index: first + who.index as u16, life })
    }

    /// The VCPU that the cells call so, in whichever life.
    pub(super) fn named(&self, name: Name) -> Option<VcpuId> {
        let vm = self.numbers.partition_point(|first| *first <= name.index).checked_sub(1)?;
        let index = u32::from(name.index - self.numbers[vm]);
        (index < self.vms[vm].config.vcpus).then_some(VcpuId { vm: VmId(vm as u16), index })
    }

    /// Its place here, if its VM lives or visits here.
    pub(super) fn slot(&mut self, who: VcpuId) -> Option<&mut Slot<<M::Guest as Guest>::Vcpu>> {
        self.vms.get_mut(usize::from(who.vm.0))?.body()?.slots.get_mut(who.index as usize)
    }

    fn named_slot(&mut self, name: Name) -> Option<&mut Slot<<M::Guest as Guest>::Vcpu>> {
        let who = self.named(name)?;
        self.vms[usize::from(who.vm.0)].body_in(name.life)?.slots.get_mut(who.index as usize)
    }

    /// The cell that a CPU of the machine belongs to.
    pub(super) fn cell_of(&self, cpu: CpuId) -> Option<CellId> {
        self.cpus.get(usize::from(cpu.0)).copied()
    }

    /// A VCPU of a VM that lives or visits here is to go to a CPU of another cell, as soon as it can.
    pub(super) fn send_off(&mut self, who: VcpuId, goal: Goal) {
        let Some(slot) = self.slot(who) else { return };
        match slot.seat {
            Seat::Away(cell) => {
                let ask = Ask::Move { index: who.index, goal: Some(goal) };
                self.ask_about(who.vm, CellSet::one(cell), ask);
            }
            Seat::Gone => {}
            Seat::Here(_) | Seat::Running | Seat::Leaving { .. } | Seat::Arriving { .. } => {
                slot.goal = Some(goal);
                self.sched.recall_one(who);
                self.depart(who);
            }
        }
    }

    /// A VCPU that visits this cell came to something that ends its VM.
    pub(super) fn go_home(&mut self, who: VcpuId) {
        if let Some(slot) = self.slot(who) {
            slot.ends = true;
        }
    }

    /// A VCPU leaves if it is to, and stands still.
    pub(super) fn depart(&mut self, who: VcpuId) {
        let now = self.out.machine.now();
        let me = self.out.cell;
        let vm = &self.vms[usize::from(who.vm.0)];
        let home = vm.visit.as_ref().map(|visit| visit.replica.home());
        let ending = matches!(&vm.state, State::Living(life) if life.ending.is_some());
        let leaving = vm.visit.as_ref().is_some_and(|visit| visit.leaving);
        let Some(slot) = self.slot(who) else { return };
        if !matches!(slot.seat, Seat::Here(_)) || (slot.goal.is_none() && !slot.ends) {
            return;
        }
        let goal = slot.goal.take();
        if ending || leaving {
            return;
        }
        let to = home.or_else(|| goal.and_then(|goal| self.cell_of(goal.cpu)));
        let Some(to) = to.filter(|to| *to != me) else { return };
        // Whoever has just arrived is not in a queue.
        let Some((from, times)) = self.sched.leave(who, now) else { return };
        let vm = &mut self.vms[usize::from(who.vm.0)];
        if let State::Living(life) = &mut vm.state {
            life.visited = life.visited.with(to);
            // Its pages stay where they are.
            if life.exchange.take().is_some() && !life.paused {
                self.sched.park(who.vm, false, now);
            }
        }
        let Some(body) = vm.body() else { return };
        let slot = &mut body.slots[who.index as usize];
        let Seat::Here(vcpu) = core::mem::replace(&mut slot.seat, Seat::Away(to)) else { return };
        let (start_ns, probes) = (body.start_ns, slot.probes);
        let carried = Carried { start_ns, from, goal, times, probes };
        slot.seat = Seat::Leaving { vcpu, to, parcel: Vec::new(), carried };
        self.errand(Errand::Offer(who));
    }

    /// A VCPU is back in a queue of this cell; the CPU.
    fn queue_up(&mut self, who: VcpuId, carried: &Carried) -> CpuId {
        let vm = &self.vms[usize::from(who.vm.0)];
        let parked = match (&vm.state, &vm.visit) {
            (State::Living(life), _) => life.paused || life.ending.is_some(),
            (_, visit) => visit.as_ref().is_some_and(|visit| visit.parked || visit.leaving),
        };
        let goal = carried.goal.map(|goal| (goal.cpu, goal.pin));
        let came = Came { times: carried.times, goal, parked };
        let of = (vm.config.vcpus, vm.config.weight);
        let now = self.out.machine.now();
        self.sched.arrive(who, of, &came, now)
    }

    /// An offered VCPU stays; `why` the other cell did not want it, or it has died.
    pub(super) fn stays(&mut self, who: VcpuId, why: Option<u32>) {
        let Some(slot) = self.slot(who) else { return };
        let seat = core::mem::replace(&mut slot.seat, Seat::Gone);
        let Seat::Leaving { vcpu, to, mut carried, .. } = seat else {
            slot.seat = seat;
            return;
        };
        slot.sit(vcpu);
        carried.goal = Some(Goal { cpu: carried.from, pin: false });
        self.queue_up(who, &carried);
        if let Some(why) = why {
            let name = self.name_of(who);
            self.say(&format!("cell {to} does not take VCPU {name}: {}\n", Unwelcome::of(why)));
        }
        self.came_back(who.vm);
    }

    /// A VCPU that was offered has been taken by `to`.
    pub(super) fn left(&mut self, name: Name, to: CellId) {
        let Some(slot) = self.named_slot(name) else { return };
        slot.seat = Seat::Away(to);
        let goal = slot.goal.take();
        let Some(who) = self.named(name) else { return };
        if let State::Living(life) = &self.vm(who.vm).state {
            if life.paused {
                self.ask_about(who.vm, CellSet::one(to), Ask::Park(true));
            }
            if let Some(goal) = goal {
                self.send_off(who, goal);
            }
        }
        self.came_back(who.vm);
    }

    /// Another cell offers a VCPU: it is copied; or why it is not wanted.
    pub(super) fn offered(
        &mut self,
        from: CellId,
        name: Name,
        frozen: Frozen,
    ) -> Result<VcpuId, Unwelcome> {
        let who = self.named(name).ok_or(Unwelcome::Unknown)?;
        if frozen.length > 8 * PARCEL_WORDS_MAX as u64 {
            return Err(Unwelcome::Nonsense);
        }
        let words = self.out.machine.fetch(from, frozen).map_err(|_| Unwelcome::Unreadable)?;
        let Parcel { carried, shared, state } = Carried::open(&words).ok_or(Unwelcome::Nonsense)?;
        if self.vm(who.vm).life().is_none() {
            self.open_visit(who.vm, from, name.life, carried.start_ns, shared)?;
        }
        let body = self.vm(who.vm).body_in(name.life).ok_or(Unwelcome::Unknown)?;
        let slot = body.slots.get_mut(who.index as usize);
        let slot = slot.filter(|slot| slot.away() == Some(from)).ok_or(Unwelcome::Unknown)?;
        let vcpu = body.guest.restore(who.index, state).map_err(|_| Unwelcome::Nonsense)?;
        slot.seat = Seat::Arriving { vcpu, carried };
        Ok(who)
    }

    /// Makes room for VCPUs of a VM whose home is another cell.
    fn open_visit(
        &mut self,
        id: VmId,
        home: CellId,
        life: u32,
        start_ns: u64,
        shared: &[u64],
    ) -> Result<(), Unwelcome> {
        let cell = self.out.cell;
        let vm = &mut self.vms[usize::from(id.0)];
        match &vm.visit {
            Some(visit) if visit.body.life == life && !visit.leaving => return Ok(()),
            Some(_) => return Err(Unwelcome::Unknown),
            None if vm.config.cells >> cell.0 & 1 == 0 => return Err(Unwelcome::Unknown),
            None => {}
        }
        let pages = u32::try_from(vm.config.memory >> PAGE_SHIFT).map_err(|_| Unwelcome::NoRoom)?;
        let replica = Replica::new(id, home, life, pages).map_err(|_| Unwelcome::NoRoom)?;
        let replica = Arc::new(replica);
        let made = self.out.machine.visit(&vm.config, &replica, start_ns, shared);
        let guest = made.map_err(|_| Unwelcome::NoRoom)?;
        let body = Body::visited(guest, vm.config.vcpus, home, life, start_ns);
        vm.visit = Some(Visit { body, replica, parked: false, leaving: false });
        for index in 0..vm.config.vcpus {
            if let Some(name) = self.talk_name(VcpuId { vm: id, index }) {
                self.errand(Errand::Begin(name, home));
            }
        }
        Ok(())
    }

    /// An accepted VCPU is this cell's.
    pub(super) fn arrived(&mut self, name: Name) {
        let Some(who) = self.named(name) else { return };
        let Some(slot) = self.named_slot(name) else { return };
        let seat = core::mem::replace(&mut slot.seat, Seat::Gone);
        let Seat::Arriving { vcpu, mut carried } = seat else {
            slot.seat = seat;
            return;
        };
        slot.sit(vcpu);
        slot.probes = carried.probes;
        if let Some(life) = self.vm(who.vm).life()
            && life.body.slots.iter().all(Slot::is_own)
        {
            life.body.guest.gather();
        }
        carried.times.migrations += 1;
        let to = self.queue_up(who, &carried);
        let further = carried.goal.filter(|goal| self.cell_of(goal.cpu) != Some(self.out.cell));
        // Also of one that is here on its way: who knows whether it gets there.
        let (vcpu, from, to) = (who.index, carried.from.0, to.0);
        self.report(who.vm, |vm| Kind::VcpuMigrated { vm, vcpu, from, to });
        match further {
            // By way of its home.
            Some(goal) => self.send_off(who, goal),
            None => self.depart(who),
        }
        self.came_back(who.vm);
    }

    /// An offer that was copied has come to nothing.
    pub(super) fn not_arrived(&mut self, who: VcpuId, from: CellId) {
        if let Some(slot) = self.slot(who) {
            slot.seat = Seat::Away(from);
        }
    }

    /// The CPUs that a VCPU of VM `id` may be on: those of the cells that live and that it may use.
    pub(super) fn cpus_for(&self, id: VmId) -> Vec<CpuId> {
        let permitted = self.vms[usize::from(id.0)].config.cells | 1 << self.out.cell.0;
        let live = self.live;
        let fits = |cell: CellId| permitted >> cell.0 & 1 != 0 && live.has(cell);
        let cpus = (0..).map(CpuId).zip(&self.cpus);
        cpus.filter(|(_, cell)| fits(**cell)).map(|(cpu, _)| cpu).collect()
    }

    /// Why a VCPU of VM `id` can't go to a CPU, if it can't.
    pub(super) fn check_goal(&self, id: VmId, cpu: CpuId) -> Result<(), String> {
        let Some(cell) = self.cell_of(cpu) else {
            let last = self.cpus.len().saturating_sub(1);
            return Err(format!("there is no CPU {cpu}: the machine's CPUs are 0 to {last}"));
        };
        if self.cpus_for(id).contains(&cpu) {
            return Ok(());
        }
        let name = &self.vms[usize::from(id.0)].config.name;
        Err(match self.live.has(cell) {
            true => {
                format!("VM `{name}` may not use cell {cell}, whose CPU {cpu} is: see its `cells`")
            }
            false => format!("cell {cell}, whose CPU {cpu} is, does not live"),
        })
    }
}
