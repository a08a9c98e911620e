//! The states of a VM, and what its cell keeps of one that lives.

use super::body::{Body, Exits, Slot, Visit};
use super::{End, Guest, Usage, Vcpu};
use crate::pmap::Pmap;
use crate::rng::Rng;
use crate::tail::Tail;
use crate::talk::CellSet;
use crate::visit::Used;
use abi::config;
use abi::event::Cause;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

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

/// A VM that lives, in its home.
pub(crate) struct Life<G: Guest> {
    pub body: Body<G>,
    pub pmap: Arc<Pmap>,
    /// It does not run until it is resumed.
    pub paused: bool,
    /// That has not been announced: a VCPU has still to come back.
    pub pausing: bool,
    pub ending: Option<Ending>,
    /// Pages that are moved once all of its VCPUs are here, until when it does not run.
    pub exchange: Option<Exchange>,
    /// Cells that a VCPU has been offered to: they may know where its pages are.
    pub visited: CellSet,
    /// Of those, the ones that were asked to end what they have of it.
    pub dismissed: CellSet,
    /// Those that have died meanwhile: for a while their CPUs may still use its pages.
    pub reached: CellSet,
    /// Of those, the ones that are just being told how far its time has been warped.
    pub warping: CellSet,
    /// How far that was when they were last told, in nanoseconds.
    pub warped: u64,
    /// What VCPUs have used that have ended elsewhere.
    pub used: Used,
}

impl<G: Guest> fmt::Debug for Life<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { body, pmap, paused, ending, .. } = self;
        let vcpus = body.slots.len();
        write!(f, "Life({vcpus} VCPUs, {pmap:?}, paused: {paused}, {ending:?})")
    }
}

impl<G: Guest> Life<G> {
    pub fn new(body: Body<G>, pmap: Arc<Pmap>) -> Self {
        Self {
            body,
            pmap,
            paused: false,
            pausing: false,
            ending: None,
            exchange: None,
            visited: CellSet::NONE,
            dismissed: CellSet::NONE,
            reached: CellSet::NONE,
            warping: CellSet::NONE,
            warped: 0,
            used: Used::default(),
        }
    }

    /// What it has used up to `now`, but for the times of VCPUs that have not ended.
    pub fn usage(&self, now: u64) -> Usage {
        let Exits { slices, idles, sends } = self.body.exits;
        let mut usage = Usage {
            start_ns: self.body.start_ns,
            life_ns: now.saturating_sub(self.body.start_ns),
            slices,
            idles,
            sends,
            instructions: self.used.instructions + self.body.instructions(),
            pages: u64::from(self.pmap.resident()),
            unseen: self.body.unseen(),
            kernel_engine: self.body.guest.kernel_engine(),
            ..Usage::default()
        };
        usage.add(&self.used.times);
        self.body.guest.counters(&mut |name, value| usage.count(name, value));
        for vcpu in self.body.slots.iter().filter_map(Slot::vcpu) {
            vcpu.counters(&mut |name, value| usage.count(name, value));
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
    /// Its home is another cell, and VCPUs of it are or have been here.
    pub visit: Option<Visit<G>>,
    /// How often it was started.
    pub lives: u64,
    /// The number of its last life here ([`crate::visit::Whom`]).
    pub life_number: u32,
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
        Self {
            config,
            state: State::Defined,
            visit: None,
            lives: 0,
            life_number: 0,
            due: None,
            back_off: 0,
            typed,
            tail,
        }
    }

    /// Its life, if it has one.
    pub fn life(&mut self) -> Option<&mut Life<G>> {
        match &mut self.state {
            State::Living(life) => Some(life),
            State::Defined | State::Ended(_) | State::Destroyed => None,
        }
    }

    /// What it has in this cell, whether it lives here or visits.
    pub fn body(&mut self) -> Option<&mut Body<G>> {
        match (&mut self.state, &mut self.visit) {
            (State::Living(life), _) => Some(&mut life.body),
            (_, visit) => visit.as_mut().map(|visit| &mut visit.body),
        }
    }

    /// As [`Self::body`], if that is the VM's life of this number.
    pub fn body_in(&mut self, life: u32) -> Option<&mut Body<G>> {
        self.body().filter(|body| body.life == life)
    }

    /// Hands the guest what was typed at it; whether it took any.
    pub fn pass_input(&mut self) -> bool {
        let State::Living(life) = &mut self.state else { return false };
        let mut any = false;
        while !self.typed.is_empty() {
            let taken = life.body.guest.input(self.typed.as_slices().0);
            if taken == 0 {
                break;
            }
            self.typed.drain(..taken);
            any = true;
        }
        any
    }
}
