//! What the monitor console shows.

use super::{LocalCell, Machine};
use crate::memmap::Accounts;
use crate::pmap::Pmap;
use crate::sched::{Doing, Standing};
use crate::vm::{State, VcpuId};
use abi::{NodeId, VmId};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

impl<M: Machine> LocalCell<M> {
    /// The VMs.
    pub(super) fn list(&self) -> String {
        let longest = self.vms.iter().map(|vm| vm.config.name.len()).max().unwrap_or(0).max(4);
        let mut out =
            format!("{:longest$}  state    memory     weight  starts  last end\n", "name");
        for (id, vm) in self.ids().zip(&self.vms) {
            if !self.owns(id) {
                continue;
            }
            let end = match &vm.state {
                State::Ended(end) => end.cause.as_str(),
                State::Defined | State::Living(_) => "-",
                State::Destroyed => continue,
            };
            // Writing to a string does not fail.
            let _ = writeln!(
                out,
                "{:longest$}  {:7}  {:<9}  {:<6}  {:<6}  {end}",
                vm.config.name,
                vm.state.name(),
                format!("{} KB", vm.config.memory >> 10),
                vm.config.weight,
                vm.lives,
            );
        }
        out
    }

    /// Where what each VM has lies.
    pub(super) fn list_places(&self) -> String {
        let now = self.out.machine.now();
        let cell = self.out.cell;
        let mut out = String::new();
        for (id, vm) in self.ids().zip(&self.vms) {
            if matches!(vm.state, State::Destroyed) || !self.owns(id) {
                continue;
            }
            // Writing to a string does not fail.
            let _ = writeln!(out, "{}: {}, home cell {cell}", vm.config.name, vm.state.name());
            let State::Living(life) = &vm.state else { continue };
            for (index, slot) in (0..).zip(&life.body.slots) {
                if let Some(s) = self.sched.standing(VcpuId { vm: id, index }, now) {
                    let Standing { cpu, node, .. } = s;
                    let _ = writeln!(out, "  VCPU {index}: CPU {cpu}, node {node}, cell {cell}");
                } else if let Some(cell) = slot.away() {
                    let _ = writeln!(out, "  VCPU {index}: cell {cell}");
                } else {
                    let _ = writeln!(out, "  VCPU {index}: between two cells");
                }
            }
            for (node, pages) in self.pages_by_node(&life.pmap) {
                let _ = writeln!(out, "  pages on node {node}: {pages}");
            }
            for dependence in self.dependencies(id) {
                let _ = writeln!(out, "  depends on {dependence}");
            }
        }
        out
    }

    /// How many pages of a VM lie on each of the cell's nodes, where any do.
    fn pages_by_node(&self, pmap: &Pmap) -> Vec<(NodeId, u64)> {
        self.frames.look(|memmap| {
            let mut nodes: Vec<(NodeId, u64)> = memmap.nodes().map(|(n, _)| (n, 0)).collect();
            for (_, mpa) in pmap.iter() {
                let node = memmap.node(mpa);
                if let Some((_, pages)) = nodes.iter_mut().find(|(n, _)| Some(*n) == node) {
                    *pages += 1;
                }
            }
            nodes.retain(|(_, pages)| *pages > 0);
            nodes
        })
    }

    /// How each VCPU of each VM that lives stands.
    pub(super) fn list_vcpus(&self) -> String {
        let now = self.out.machine.now();
        let longest = self.vms.iter().map(|vm| vm.config.name.len()).max().unwrap_or(0).max(2) + 3;
        let mut out = format!(
            "{:longest$}  state    CPU   node  cell  run ms     idle ms    steal ms   migrations\n",
            "VCPU"
        );
        for (id, vm) in self.ids().zip(&self.vms) {
            let paused = match (&vm.state, &vm.visit) {
                (State::Living(life), _) => life.paused,
                (_, Some(visit)) => visit.parked,
                _ => continue,
            };
            for index in 0..vm.config.vcpus {
                let Some(s) = self.sched.standing(VcpuId { vm: id, index }, now) else { continue };
                let state = match s.doing {
                    Doing::Running => "running",
                    _ if paused => "paused",
                    Doing::Ready => "ready",
                    Doing::Waiting(_) => "idle",
                };
                let ms = |ns: u64| ns / 1_000_000;
                // Writing to a string does not fail.
                let _ = writeln!(
                    out,
                    "{:longest$}  {state:7}  {:<4}  {:<4}  {:<4}  {:<9}  {:<9}  {:<9}  {}",
                    format!("{}.{index}", vm.config.name),
                    format!("{}{}", s.cpu, if s.pinned { "!" } else { "" }),
                    s.node,
                    self.out.cell,
                    ms(s.times.run),
                    ms(s.times.idle),
                    ms(s.times.steal),
                    s.times.migrations,
                );
            }
        }
        out
    }

    /// What a VM has used.
    pub(super) fn stats(&self, id: VmId) -> String {
        let vm = &self.vms[usize::from(id.0)];
        let head = format!("VM `{}`: {}", vm.config.name, vm.state.name());
        match &vm.state {
            State::Living(_) => match self.usage_of(id) {
                Some(usage) => format!("{head}\n{usage}"),
                None => head,
            },
            State::Defined | State::Destroyed => format!("{head}, never started\n"),
            State::Ended(end) => {
                let mut out = format!("{head} ({})\n{}", end.cause.as_str(), end.usage);
                let report = if end.cause.is_normal() { "" } else { &end.report };
                for line in report.lines() {
                    // Writing to a string does not fail.
                    let _ = writeln!(out, "  {line}");
                }
                out
            }
        }
    }

    /// The accounting of the cell's memory.
    pub(super) fn memory(&self) -> String {
        let mut out = String::new();
        let mut line = |who: &str, accounts: Accounts| {
            // Writing to a string does not fail.
            let _ = writeln!(out, "{who}: {accounts}");
        };
        self.frames.look(|memmap| {
            for (node, accounts) in memmap.nodes() {
                line(&format!("node {node}"), accounts);
            }
            line("all", memmap.accounts());
            for (loan, accounts) in memmap.borrowed() {
                line(&format!("borrowed, {loan}"), accounts);
            }
            for (loan, accounts) in memmap.lost() {
                line(&format!("borrowed and lost, {loan}"), accounts);
            }
        });
        let promised: u64 = self.frames.promised().iter().sum();
        // Writing to a string does not fail.
        let _ = writeln!(out, "of what is free, {promised} pages are promised to VMs");
        let (used, all) = self.out.machine.heap();
        // Writing to a string does not fail.
        let _ = writeln!(out, "monitor heap: {used} of {all} bytes in use");
        match self.audit() {
            Ok(()) => out.push_str("consistent: every page has the one owner that is recorded\n"),
            Err(what) => out.push_str(&format!("NOT CONSISTENT: {what}\n")),
        }
        out
    }
}
