//! What an operator types at the monitor console, done.

use super::{LocalCell, Machine};
use crate::console::{Command, Key, complete, detail, nearest, overview, topic, unknown};
use crate::script::Player;
use crate::vm::{Life, State, Then, VcpuId};
use abi::event::Cause;
use abi::ring::stream;
use abi::script::Outcome;
use abi::{CellId, CpuId, VmId};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

impl<M: Machine> LocalCell<M> {
    /// Bytes were typed at the monitor console.
    pub(super) fn typed_at_monitor(&mut self, bytes: &[u8]) {
        let mut echo = Vec::new();
        for (i, &byte) in bytes.iter().enumerate() {
            if self.is_asking() {
                return self.type_ahead(&bytes[i..]);
            }
            let vms = self.vms.iter().map(|vm| vm.config.name.as_str());
            let key = self.editor.key(byte, &mut echo, |line| complete(line, vms));
            if key == Key::Edited {
                continue;
            }
            self.out.emit(stream::MONITOR, &core::mem::take(&mut echo));
            self.prompted = false;
            match key {
                Key::Line(line) => self.ask(&line),
                Key::Choices(choices) => self.out.print(&format!("{}\n", choices.join("  "))),
                Key::Edited | Key::Abandoned | Key::Cleared => {}
            }
            if self.over.is_some() {
                return;
            }
            if !self.is_asking() {
                self.prompt();
            }
        }
        if !echo.is_empty() {
            self.out.emit(stream::MONITOR, &echo);
        }
    }

    /// Does what a command says; what to answer.
    pub(super) fn execute(&mut self, command: &Command<'_>) -> Result<String, String> {
        match *command {
            Command::Nothing => Ok(String::new()),
            Command::Help(None) => Ok(overview()),
            Command::Help(Some(name)) => topic(name).map(detail).ok_or_else(|| unknown(name)),
            Command::Vms { places: false } => Ok(self.list()),
            Command::Vms { places: true } => Ok(self.list_places()),
            Command::Vcpus => Ok(self.list_vcpus()),
            Command::Start(name) => {
                let id = self.find(name)?;
                self.start(id).map_err(|refused| refused.text)?;
                Ok(match self.vm(id).life() {
                    Some(_) => format!("VM `{name}` started\n"),
                    None => format!("VM `{name}` starts when other cells have lent it memory\n"),
                })
            }
            Command::Stop(name) => self.stop(name, Then::Stay),
            Command::Restart(name) => self.stop(name, Then::Restart),
            Command::Destroy(name) => {
                let id = self.find(name)?;
                if self.vm(id).life().is_some() {
                    return self.stop(name, Then::Destroy);
                }
                self.undefine(id);
                Ok(format!("VM `{name}` and its definition have gone\n"))
            }
            Command::Pause(name) => {
                let id = self.find(name)?;
                if self.living(id)?.paused {
                    return Err(format!("VM `{name}` is paused already"));
                }
                // Announced when it is.
                self.pause(id);
                Ok(String::new())
            }
            Command::Resume(name) => {
                let id = self.find(name)?;
                if !self.living(id)?.paused {
                    return Err(format!("VM `{name}` is not paused"));
                }
                self.resume(id);
                Ok(format!("VM `{name}` goes on\n"))
            }
            Command::Migrate(vcpu, cpu) => {
                let who = self.find_vcpus(vcpu)?;
                self.migrate(&who, CpuId(cpu), false)
            }
            Command::Pin(vcpu, cpu) => {
                let who = self.find_vcpus(vcpu)?;
                self.migrate(&who, CpuId(cpu), true)
            }
            Command::Unpin(vcpu) => {
                let who = self.find_vcpus(vcpu)?;
                Ok(self.unpin(&who))
            }
            Command::StressMigrate(seconds) => self.begin_stress(seconds),
            Command::StressMessages(count) => self.begin_messages(count),
            Command::StressRemap(seconds) => Ok(self.begin_remapping(seconds)),
            Command::Stats(name) => self.find(name).map(|id| self.stats(id)),
            Command::Ping(cell, calls) => self.ping(CellId(cell), calls),
            Command::Lend(to, pages) => self.lend(CellId(to), pages),
            Command::Return(lender) => self.give_back(CellId(lender)),
            Command::Recall(borrower) => self.recall(CellId(borrower)),
            Command::Repair(cell) => self.repair(CellId(cell)),
            Command::RepairPart(part) => self.repair_part(part),
            Command::Mem => Ok(self.memory()),
            Command::Cells { places } => Ok(self.out.machine.cells(places)),
            Command::Nodes => Ok(self.out.machine.nodes()),
            Command::SelfCheck => Ok(self.out.machine.self_check()),
            Command::Fault(fault, when) => self.inject(fault, when),
            Command::Debug(fault) => self.out.machine.debug(fault),
            Command::Quit => {
                let player = self.out.player.as_ref();
                self.over = Some(player.map_or(Outcome::Done, Player::interrupted));
                Ok(String::new())
            }
        }
    }

    /// Ends a VM that lives; nothing to answer, since every end is announced where it happens.
    fn stop(&mut self, name: &str, then: Then) -> Result<String, String> {
        let id = self.find(name)?;
        if self.vm(id).due.is_some() && then != Then::Restart {
            self.vm(id).due = None;
            self.note_vms();
            return Ok(format!("VM `{name}` is not started again\n"));
        }
        self.living(id)?;
        self.end(id, Cause::Stopped, String::new(), then);
        Ok(String::new())
    }

    fn living(&mut self, id: VmId) -> Result<&mut Life<M::Guest>, String> {
        let vm = self.vm(id);
        match &mut vm.state {
            State::Living(life) => Ok(life),
            _ => Err(format!("VM `{}` does not run", vm.config.name)),
        }
    }

    /// The VM that an operator calls `name`.
    fn find(&self, name: &str) -> Result<VmId, String> {
        let there = |vm: &VmId| !matches!(self.vms[usize::from(vm.0)].state, State::Destroyed);
        let name_of = |vm: VmId| self.vms[usize::from(vm.0)].config.name.as_str();
        if let Some(id) = self.ids().filter(there).find(|&id| name_of(id) == name) {
            return Ok(id);
        }
        let all: Vec<&str> = self.ids().filter(there).map(name_of).collect();
        Err(match nearest(name, all.iter().copied()) {
            _ if all.is_empty() => format!("no VM `{name}`: none is configured"),
            Some(n) => format!("no VM `{name}`: did you mean `{n}`? There are: {}", all.join(", ")),
            None => format!("no VM `{name}`: there are: {}", all.join(", ")),
        })
    }

    /// The VCPUs that an operator calls `VM.N`, or those of `VM`.
    fn find_vcpus(&mut self, name: &str) -> Result<Vec<VcpuId>, String> {
        let whole = self.find(name);
        let one = name.rsplit_once('.').and_then(|(vm, n)| Some((vm, n.parse::<u32>().ok()?)));
        let (vm, only) = match (whole, one) {
            (Ok(id), _) => (id, None),
            (Err(error), None) => return Err(error),
            (Err(_), Some((vm, n))) => (self.find(vm)?, Some(n)),
        };
        let vcpus = self.living(vm)?.body.slots.len() as u32;
        match only {
            Some(index) if index >= vcpus => {
                let name = &self.vm(vm).config.name;
                Err(format!("VM `{name}` has no VCPU {index}: its VCPUs are 0 to {}", vcpus - 1))
            }
            Some(index) => Ok(alloc::vec![VcpuId { vm, index }]),
            None => Ok((0..vcpus).map(|index| VcpuId { vm, index }).collect()),
        }
    }
}
