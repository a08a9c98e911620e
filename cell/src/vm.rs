//! A VM's life, as its cell sees it: what runs it, in which state it is, what it has used, why it ended.

use crate::pmap::Pmap;
use crate::tail::Tail;
use abi::config;
use abi::event::Cause;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// A loaded virtual machine that can run: the join between the cell and an engine.
pub trait Guest {
    /// Runs it until machine time `until` (nanoseconds since power-on) or until it stops by itself.
    /// It may overrun `until` by what a few thousand instructions take.
    fn run(&mut self, until: u64) -> Exit;

    /// Types `bytes` at its console; how many it took.
    fn input(&mut self, bytes: &[u8]) -> usize;

    /// Hands over what its console has printed since the last call.
    fn take_output(&mut self, sink: &mut dyn FnMut(&[u8]));

    /// Guest instructions executed so far.
    fn instructions(&self) -> u64;

    /// What else it counts, each with its name, in an order that does not change.
    fn counters(&self, each: &mut dyn FnMut(&'static str, u64));
}

/// Why a [`Guest`] stopped running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Its time is up.
    Slice,
    /// It waits for an interrupt.
    Idle {
        /// When one comes by itself, in machine time; `None`: only input brings one.
        until: Option<u64>,
    },
    /// Its life is over.
    Ended {
        /// Why.
        cause: Cause,
        /// For a person: where it was and what it was doing (several lines, or empty).
        report: String,
    },
}

/// What a life of a VM has used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// When it began, in machine time.
    pub start_ns: u64,
    /// How long it has lived.
    pub life_ns: u64,
    /// How long it has run.
    pub run_ns: u64,
    /// How long it has waited for an interrupt of its own accord. The rest it waited for the CPU.
    pub idle_ns: u64,
    /// How often it ran until its time was up.
    pub slices: u64,
    /// How often it stopped to wait.
    pub idles: u64,
    /// Guest instructions.
    pub instructions: u64,
    /// Pages of machine memory it has (or had, at its end).
    pub pages: u64,
    /// What its engine and devices have counted.
    pub counters: Vec<(&'static str, u64)>,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |ns: u64| ns / 1_000_000;
        let ready = self.life_ns.saturating_sub(self.run_ns + self.idle_ns);
        writeln!(f, "  instructions  {}", self.instructions)?;
        writeln!(f, "  run time      {} ms", ms(self.run_ns))?;
        writeln!(f, "  idle time     {} ms", ms(self.idle_ns))?;
        writeln!(f, "  waiting time  {} ms (for the CPU)", ms(ready))?;
        writeln!(f, "  memory        {} pages", self.pages)?;
        writeln!(f, "  exits         slice {}, idle {}", self.slices, self.idles)?;
        for (name, value) in &self.counters {
            writeln!(f, "  {name:<13} {value}")?;
        }
        Ok(())
    }
}

/// How a VM's last life ended.
#[derive(Clone, Debug)]
pub struct End {
    /// Why.
    pub cause: Cause,
    /// When, in machine time.
    pub t_ns: u64,
    /// What its engine said.
    pub report: String,
    /// What it had used.
    pub usage: Usage,
}

/// A VM that is running.
#[derive(Debug)]
pub(crate) struct Life<G> {
    pub guest: G,
    pub pmap: Arc<Pmap>,
    usage: Usage,
    /// Since when it waits.
    idle_since: Option<u64>,
}

impl<G: Guest> Life<G> {
    pub fn new(guest: G, pmap: Arc<Pmap>, now: u64) -> Self {
        let usage = Usage { start_ns: now, ..Usage::default() };
        Self { guest, pmap, usage, idle_since: None }
    }

    /// It runs from `from` to `to` and then stops because of `exit`.
    pub fn ran(&mut self, from: u64, to: u64, exit: &Exit) {
        if let Some(since) = self.idle_since.take() {
            self.usage.idle_ns += from.saturating_sub(since);
        }
        self.usage.run_ns += to - from;
        match exit {
            Exit::Slice => self.usage.slices += 1,
            Exit::Idle { .. } => {
                self.usage.idles += 1;
                self.idle_since = Some(to);
            }
            Exit::Ended { .. } => {}
        }
    }

    /// What it has used up to `now`.
    pub fn usage(&self, now: u64) -> Usage {
        let mut usage = self.usage.clone();
        usage.life_ns = now.saturating_sub(usage.start_ns);
        if let Some(since) = self.idle_since {
            usage.idle_ns += now.saturating_sub(since);
        }
        usage.instructions = self.guest.instructions();
        usage.pages = u64::from(self.pmap.resident());
        self.guest.counters(&mut |name, value| usage.counters.push((name, value)));
        usage
    }
}

/// Where a VM is in its life.
#[derive(Debug)]
pub(crate) enum State<G> {
    /// It has not been started yet.
    Defined,
    /// It lives.
    Running(Life<G>),
    /// It has ended, and can be started again.
    Ended(End),
}

impl<G> State<G> {
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Defined => "defined",
            Self::Running(_) => "running",
            Self::Ended(_) => "ended",
        }
    }
}

/// A configured VM.
#[derive(Debug)]
pub(crate) struct Vm<G> {
    pub config: config::Vm,
    pub state: State<G>,
    /// How often it was started.
    pub lives: u64,
    /// Typed at it, not taken yet.
    pub typed: VecDeque<u8>,
    /// The last of what it printed.
    pub tail: Tail,
}

impl<G: Guest> Vm<G> {
    pub fn new(config: config::Vm) -> Self {
        let (typed, tail) = (VecDeque::new(), Tail::new());
        Self { config, state: State::Defined, lives: 0, typed, tail }
    }

    /// Hands the guest what was typed at it; whether it took any.
    pub fn pass_input(&mut self) -> bool {
        let State::Running(life) = &mut self.state else { return false };
        let mut any = false;
        while !self.typed.is_empty() {
            let taken = life.guest.input(self.typed.as_slices().0);
            if taken == 0 {
                break;
            }
            self.typed.drain(..taken);
            any = true;
        }
        any
    }
}
