//! What an operator types at the monitor console, done.

use super::{LocalCell, Machine};
use crate::console::{Command, Key, complete, detail, nearest, overview, parse, topic, unknown};
use crate::memmap::Accounts;
use crate::script::Player;
use crate::vm::State;
use abi::VmId;
use abi::event::Cause;
use abi::ring::stream;
use abi::script::Outcome;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

impl<M: Machine> LocalCell<M> {
    pub(super) fn typed_at_monitor(&mut self, bytes: &[u8]) {
        let mut echo = Vec::new();
        for &byte in bytes {
            let vms = self.vms.iter().map(|vm| vm.config.name.as_str());
            let key = self.editor.key(byte, &mut echo, |line| complete(line, vms));
            if key == Key::Edited {
                continue;
            }
            self.out.emit(stream::MONITOR, &core::mem::take(&mut echo));
            self.prompted = false;
            match key {
                Key::Line(line) => match parse(&line).and_then(|command| self.execute(&command)) {
                    Ok(text) => self.out.print(&text),
                    Err(text) => self.out.print(&format!("{text}\n")),
                },
                Key::Choices(choices) => self.out.print(&format!("{}\n", choices.join("  "))),
                Key::Edited | Key::Abandoned | Key::Cleared => {}
            }
            if self.over.is_some() {
                return;
            }
            self.prompt();
        }
        if !echo.is_empty() {
            self.out.emit(stream::MONITOR, &echo);
        }
    }

    /// Does what a command says; what to answer.
    fn execute(&mut self, command: &Command<'_>) -> Result<String, String> {
        match *command {
            Command::Nothing => Ok(String::new()),
            Command::Help(None) => Ok(overview()),
            Command::Help(Some(name)) => topic(name).map(detail).ok_or_else(|| unknown(name)),
            Command::Vms => Ok(self.list()),
            Command::Start(name) => {
                let id = self.find(name)?;
                self.start(id).map_err(|refused| refused.text)?;
                Ok(format!("VM `{name}` started\n"))
            }
            Command::Stop(name) => {
                let id = self.find(name)?;
                if !matches!(self.vm(id).state, State::Running(_)) {
                    return Err(format!("VM `{name}` does not run"));
                }
                // Every end is announced where it happens.
                self.end(id, Cause::Stopped, String::new());
                Ok(String::new())
            }
            Command::Stats(name) => self.find(name).map(|id| self.stats(id)),
            Command::Mem => Ok(self.memory()),
            Command::SelfCheck => Ok(self.out.machine.self_check()),
            Command::Debug(fault) => self.out.machine.debug(fault),
            Command::Quit => {
                let player = self.out.player.as_ref();
                self.over = Some(player.map_or(Outcome::Done, Player::interrupted));
                Ok(String::new())
            }
        }
    }

    fn find(&self, name: &str) -> Result<VmId, String> {
        let names = || self.vms.iter().map(|vm| vm.config.name.as_str());
        if let Some(i) = names().position(|n| n == name) {
            return Ok(VmId(i as u16));
        }
        let all: Vec<&str> = names().collect();
        Err(match nearest(name, names()) {
            _ if all.is_empty() => format!("no VM `{name}`: none is configured"),
            Some(n) => format!("no VM `{name}`: did you mean `{n}`? There are: {}", all.join(", ")),
            None => format!("no VM `{name}`: there are: {}", all.join(", ")),
        })
    }

    fn list(&self) -> String {
        let longest = self.vms.iter().map(|vm| vm.config.name.len()).max().unwrap_or(0).max(4);
        let mut out =
            format!("{:longest$}  state    memory     weight  starts  last end\n", "name");
        for vm in &self.vms {
            let end = match &vm.state {
                State::Ended(end) => end.cause.as_str(),
                State::Defined | State::Running(_) => "-",
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

    fn stats(&self, id: VmId) -> String {
        let vm = &self.vms[usize::from(id.0)];
        let head = format!("VM `{}`: {}", vm.config.name, vm.state.name());
        match &vm.state {
            State::Defined => format!("{head}, never started\n"),
            State::Running(life) => format!("{head}\n{}", life.usage(self.out.machine.now())),
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

    fn memory(&self) -> String {
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
