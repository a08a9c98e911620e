//! VCPUs moved between CPUs because somebody wants it: commands, and the stress that does it at random.

use super::{LocalCell, Machine};
use crate::talk::CellSet;
use crate::visit::{Ask, Goal};
use crate::vm::{State, VcpuId};
use abi::{CpuId, VmId};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// The longest time between two moves of the stress: more than ten a second.
const STRESS_NS: u64 = 90_000_000;
/// The shortest.
const STRESS_MIN_NS: u64 = 10_000_000;

/// VCPUs are moved at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stress {
    /// When the next is moved.
    next: u64,
    /// When it is over.
    until: u64,
    moves: u64,
}

impl<M: Machine> LocalCell<M> {
    /// Moves `who` to `cpu`, and keeps it there if `pin`; what to answer.
    pub(super) fn migrate(
        &mut self,
        who: &[VcpuId],
        cpu: CpuId,
        pin: bool,
    ) -> Result<String, String> {
        let now = self.out.machine.now();
        let mut out = String::new();
        for &who in who {
            self.check_goal(who.vm, cpu)?;
            let name = self.name_of(who);
            let pinned = self.sched.standing(who, now).is_some_and(|s| s.pinned);
            let own = self.slot(who).is_some_and(|slot| slot.is_own());
            let cell = self.cell_of(cpu).filter(|cell| *cell != self.out.cell);
            if pinned && !pin {
                return Err(format!("VCPU {name} is pinned: `unpin {name}` first"));
            }
            if cell.is_some() || !own {
                self.send_off(who, Goal { cpu, pin });
                let stays = if pin { " and stays there" } else { "" };
                let cell = cell.unwrap_or(self.out.cell);
                out.push_str(&format!("VCPU {name} goes to CPU {cpu} in cell {cell}{stays}\n"));
                continue;
            }
            if let Some(slot) = self.slot(who) {
                slot.goal = None;
            }
            // It is not pinned elsewhere, and the CPU is the cell's.
            _ = self.sched.migrate(who, cpu, pin, now);
            let on = self.sched.standing(who, now).map(|s| s.cpu);
            out.push_str(&match (on == Some(cpu), pin) {
                (true, true) => format!("VCPU {name} is pinned to CPU {cpu}\n"),
                (true, false) => format!("VCPU {name} is on CPU {cpu}\n"),
                (false, true) => format!("VCPU {name} goes to CPU {cpu} and stays there\n"),
                (false, false) => format!("VCPU {name} goes to CPU {cpu}\n"),
            });
        }
        self.moved();
        Ok(out)
    }

    /// Lets `who` be moved again.
    pub(super) fn unpin(&mut self, who: &[VcpuId]) -> String {
        let mut out = String::new();
        for &who in who {
            let name = self.name_of(who);
            let away = self.slot(who).and_then(|slot| slot.away());
            if let Some(cell) = away {
                let ask = Ask::Move { index: who.index, goal: None };
                self.ask_about(who.vm, CellSet::one(cell), ask);
                out.push_str(&format!("VCPU {name} is free to move, in cell {cell}\n"));
                continue;
            }
            out.push_str(&match self.sched.unpin(who) {
                true => format!("VCPU {name} is free to move\n"),
                false => format!("VCPU {name} was not pinned\n"),
            });
        }
        out
    }

    /// Moves random VCPUs for `seconds`.
    pub(super) fn begin_stress(&mut self, seconds: u64) -> Result<String, String> {
        if self.ids().all(|id| !self.owns(id) || self.cpus_for(id).len() < 2) {
            return Err("stress: there is nowhere to move a VCPU: one CPU is all there is".into());
        }
        let now = self.out.machine.now();
        let until = now.saturating_add(seconds.saturating_mul(1_000_000_000));
        self.stress = Some(Stress { next: now, until, moves: 0 });
        Ok(format!("moving VCPUs for {seconds} s\n"))
    }

    /// When [`Self::stress_due`] has something to do.
    pub(super) fn stress_deadline(&self) -> Option<u64> {
        self.stress.map(|stress| stress.next.min(stress.until))
    }

    /// Moves a random VCPU to a random other CPU, if it is time to.
    pub(super) fn stress_due(&mut self, now: u64) {
        let Some(mut stress) = self.stress.take() else { return };
        if now >= stress.until {
            return self.say(&format!("stress: {} VCPUs moved\n", stress.moves));
        }
        if now >= stress.next {
            stress.next = now + STRESS_MIN_NS + self.dice.below(STRESS_NS - STRESS_MIN_NS);
            stress.moves += u64::from(self.move_one(now));
        }
        self.stress = Some(stress);
    }

    /// Moves a random VCPU that may be moved; whether there is one.
    fn move_one(&mut self, now: u64) -> bool {
        let lives = |vm: VmId| match &self.vms[usize::from(vm.0)].state {
            State::Living(life) if life.ending.is_none() => life.body.slots.len() as u32,
            _ => 0,
        };
        let all = self.ids().flat_map(|vm| (0..lives(vm)).map(move |index| VcpuId { vm, index }));
        let all: Vec<VcpuId> = all.collect();
        let mut movable: Vec<(VcpuId, Option<CpuId>)> = Vec::new();
        for who in all {
            match self.sched.standing(who, now) {
                Some(standing) if standing.pinned => {}
                Some(standing) => movable.push((who, Some(standing.cpu))),
                // Where it is there is another cell's business.
                None if self.slot(who).is_some_and(|slot| slot.away().is_some()) => {
                    movable.push((who, None));
                }
                None => {}
            }
        }
        if movable.is_empty() {
            return false;
        }
        let (who, from) = movable[self.dice.below(movable.len() as u64) as usize];
        let mut others = self.cpus_for(who.vm);
        others.retain(|cpu| Some(*cpu) != from);
        if others.is_empty() {
            return false;
        }
        let to = others[self.dice.below(others.len() as u64) as usize];
        let here = self.cell_of(to) == Some(self.out.cell);
        if here && from.is_some() {
            let moved = self.sched.migrate(who, to, false, now).is_ok();
            self.moved();
            return moved;
        }
        self.send_off(who, Goal { cpu: to, pin: false });
        true
    }
}
