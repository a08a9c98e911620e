//! The states of a VM, and what its cell keeps of one that lives.

use super::{End, Exit, Guest, Usage, Vcpu};
use crate::pmap::Pmap;
use crate::rng::Rng;
use crate::tail::Tail;
use abi::config;
use abi::event::Cause;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

/// A VCPU's place in its cell.
pub(crate) struct Slot<V> {
    /// `None`: a CPU runs it.
    pub vcpu: Option<Box<V>>,
    /// Interrupts were sent to it and not delivered yet.
    pub interrupted: bool,
    /// Pages of the pmap that have changed and that it has not been told of yet.
    pub changed: Vec<Range<u32>>,
    /// Instructions it had executed when it last came back.
    instructions: u64,
}

/// Ranges of changed pages that are kept apart for a VCPU that does not run: it may not for long.
const CHANGED_MAX: usize = 8;

impl<V> Slot<V> {
    /// It is to be told of changed pages before it runs again.
    pub fn tell(&mut self, pages: &Range<u32>) {
        if self.changed.len() < CHANGED_MAX {
            return self.changed.push(pages.clone());
        }
        let all = self
            .changed
            .drain(..)
            .fold(pages.clone(), |all, one| all.start.min(one.start)..all.end.max(one.end));
        self.changed.push(all);
    }
}

/// What becomes of a VM once its end is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// What its configuration says.
    Policy,
    /// Nothing.
    Stay,
    /// It is started again.
    Restart,
    /// Its definition goes too.
    Destroy,
}

/// A life that is ending: it is over when its last VCPU has come back.
#[derive(Debug)]
pub(crate) struct Ending {
    pub cause: Cause,
    pub report: String,
    pub then: Then,
}

/// Pages of a VM that are to be moved to other frames.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub pages: Vec<Range<u32>>,
    /// Decides to which.
    pub dice: Rng,
}

/// A VM that lives.
pub(crate) struct Life<G: Guest> {
    pub guest: G,
    pub pmap: Arc<Pmap>,
    /// Its VCPUs, by number.
    pub slots: Vec<Slot<G::Vcpu>>,
    /// It does not run until it is resumed.
    pub paused: bool,
    /// That has not been announced: a VCPU has still to come back.
    pub pausing: bool,
    pub ending: Option<Ending>,
    /// Pages that are moved once all of its VCPUs are here, until when it does not run.
    pub exchange: Option<Exchange>,
    /// What is counted here; the scheduler knows the times.
    usage: Usage,
}

impl<G: Guest> fmt::Debug for Life<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slots, pmap, paused, ending, .. } = self;
        write!(f, "Life({} VCPUs, {pmap:?}, paused: {paused}, {ending:?})", slots.len())
    }
}

impl<G: Guest> Life<G> {
    pub fn new(guest: G, vcpus: Vec<Box<G::Vcpu>>, pmap: Arc<Pmap>, now: u64) -> Self {
        let usage = Usage { start_ns: now, ..Usage::default() };
        let slot = |vcpu| Slot {
            vcpu: Some(vcpu),
            interrupted: false,
            changed: Vec::new(),
            instructions: 0,
        };
        let slots = vcpus.into_iter().map(slot).collect();
        let (ending, exchange) = (None, None);
        Self { guest, pmap, slots, paused: false, pausing: false, ending, exchange, usage }
    }

    /// VCPU `index` has come back because of `exit`.
    ///
    /// # Panics
    /// When it was not away: a VCPU is in one place.
    pub fn back(&mut self, index: u32, vcpu: Box<G::Vcpu>, exit: &Exit) {
        let slot = &mut self.slots[index as usize];
        assert!(slot.vcpu.is_none(), "a VCPU is in one place");
        slot.instructions = vcpu.instructions();
        slot.vcpu = Some(vcpu);
        match exit {
            Exit::Slice => self.usage.slices += 1,
            Exit::Idle { .. } => self.usage.idles += 1,
            Exit::Send { .. } => self.usage.sends += 1,
            Exit::Board | Exit::Ended { .. } => {}
        }
    }

    /// How many of its VCPUs CPUs run just now.
    pub fn away(&self) -> u32 {
        self.slots.iter().filter(|slot| slot.vcpu.is_none()).count() as u32
    }

    /// What it has used up to `now`, but for the times.
    pub fn usage(&self, now: u64) -> Usage {
        let mut usage = self.usage.clone();
        usage.life_ns = now.saturating_sub(usage.start_ns);
        usage.pages = u64::from(self.pmap.resident());
        usage.away = self.away();
        self.guest.counters(&mut |name, value| usage.count(name, value));
        for slot in &self.slots {
            usage.instructions += slot.instructions;
            if let Some(vcpu) = &slot.vcpu {
                vcpu.counters(&mut |name, value| usage.count(name, value));
            }
        }
        usage
    }
}

/// Where a VM is in its life.
#[derive(Debug)]
pub(crate) enum State<G: Guest> {
    /// It has not been started yet.
    Defined,
    /// It lives.
    Living(Life<G>),
    /// It has ended, and can be started again.
    Ended(End),
    /// Its definition has gone.
    Destroyed,
}

impl<G: Guest> State<G> {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Defined => "defined",
            Self::Living(life) if life.ending.is_some() => "ending",
            Self::Living(life) if life.paused => "paused",
            Self::Living(_) => "running",
            Self::Ended(_) => "ended",
            Self::Destroyed => "destroyed",
        }
    }
}

/// A configured VM.
#[derive(Debug)]
pub(crate) struct Vm<G: Guest> {
    pub config: config::Vm,
    pub state: State<G>,
    /// How often it was started.
    pub lives: u64,
    /// When it is started again by its restart policy.
    pub due: Option<u64>,
    /// How long it waits for that next time.
    pub back_off: u64,
    /// Typed at it, not taken yet.
    pub typed: VecDeque<u8>,
    /// The last of what it printed.
    pub tail: Tail,
}

impl<G: Guest> Vm<G> {
    pub fn new(config: config::Vm) -> Self {
        let (typed, tail) = (VecDeque::new(), Tail::new());
        Self { config, state: State::Defined, lives: 0, due: None, back_off: 0, typed, tail }
    }

    /// Its life, if it has one.
    pub fn life(&mut self) -> Option<&mut Life<G>> {
        match &mut self.state {
            State::Living(life) => Some(life),
            State::Defined | State::Ended(_) | State::Destroyed => None,
        }
    }

    /// Hands the guest what was typed at it; whether it took any.
    pub fn pass_input(&mut self) -> bool {
        let State::Living(life) = &mut self.state else { return false };
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
