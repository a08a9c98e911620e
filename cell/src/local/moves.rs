//! VCPUs moved between CPUs because somebody wants it: commands, and the stress that does it at random.

use super::{LocalCell, Machine};
use crate::sched::Immovable;
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
            let name = self.name_of(who);
            self.sched.migrate(who, cpu, pin, now).map_err(|error| match error {
                Immovable::Pinned => format!("VCPU {name} is pinned: `unpin {name}` first"),
                Immovable::NoCpu => {
                    let cpus: Vec<String> =
                        self.sched.cpus().map(|(cpu, _)| format!("{cpu}")).collect();
                    format!("this cell has no CPU {cpu}: its CPUs are {}", cpus.join(", "))
                }
            })?;
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
            out.push_str(&match self.sched.unpin(who) {
                true => format!("VCPU {name} is free to move\n"),
                false => format!("VCPU {name} was not pinned\n"),
            });
        }
        out
    }

    /// What an operator calls a VCPU.
    fn name_of(&self, who: VcpuId) -> String {
        format!("{}.{}", self.vms[usize::from(who.vm.0)].config.name, who.index)
    }

    /// Moves random VCPUs for `seconds`.
    pub(super) fn begin_stress(&mut self, seconds: u64) -> Result<String, String> {
        if self.sched.cpus().count() < 2 {
            return Err("stress: this cell has one CPU, there is nowhere to move a VCPU".into());
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
            State::Living(life) if life.ending.is_none() => life.slots.len() as u32,
            _ => 0,
        };
        let all = self.ids().flat_map(|vm| (0..lives(vm)).map(move |index| VcpuId { vm, index }));
        let movable: Vec<(VcpuId, CpuId)> = all
            .filter_map(|who| Some((who, self.sched.standing(who, now).filter(|s| !s.pinned)?.cpu)))
            .collect();
        if movable.is_empty() {
            return false;
        }
        let (who, from) = movable[self.dice.below(movable.len() as u64) as usize];
        let others: Vec<CpuId> =
            self.sched.cpus().map(|(cpu, _)| cpu).filter(|&c| c != from).collect();
        let to = others[self.dice.below(others.len() as u64) as usize];
        let moved = self.sched.migrate(who, to, false, now).is_ok();
        self.moved();
        moved
    }
}
