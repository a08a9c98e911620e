//! What a life of a VM has used, and how it ended.

use crate::sched::Times;
use abi::event::Cause;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// What a life of a VM has used. Times are sums over its VCPUs, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// When it began, in machine time.
    pub start_ns: u64,
    /// How long it has lived.
    pub life_ns: u64,
    /// How long VCPUs have run.
    pub run_ns: u64,
    /// How long they have waited for an interrupt of their own accord.
    pub idle_ns: u64,
    /// How long they have waited for a CPU: steal time.
    pub steal_ns: u64,
    /// How often one ran until its time was up, or was asked back.
    pub slices: u64,
    /// How often one stopped to wait.
    pub idles: u64,
    /// How often one interrupted another.
    pub sends: u64,
    /// How often one was moved to another CPU.
    pub migrations: u64,
    /// Guest instructions.
    pub instructions: u64,
    /// Pages of machine memory it has (or had, at its end).
    pub pages: u64,
    /// What executes its kernel mode.
    pub kernel_engine: &'static str,
    /// What its engine and devices have counted.
    pub counters: Vec<(&'static str, u64)>,
    /// VCPUs that run just now, or are in other cells: what they have counted is missing.
    pub unseen: u32,
}

impl Usage {
    /// Adds what a VCPU did with its time.
    pub(crate) const fn add(&mut self, times: &Times) {
        self.run_ns += times.run;
        self.idle_ns += times.idle;
        self.steal_ns += times.steal;
        self.migrations += times.migrations;
    }

    /// Adds to the counter `name`.
    pub(super) fn count(&mut self, name: &'static str, value: u64) {
        match self.counters.iter_mut().find(|(n, _)| *n == name) {
            Some((_, sum)) => *sum += value,
            None => self.counters.push((name, value)),
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |ns: u64| ns / 1_000_000;
        writeln!(f, "  instructions  {}", self.instructions)?;
        writeln!(f, "  run time      {} ms", ms(self.run_ns))?;
        writeln!(f, "  idle time     {} ms", ms(self.idle_ns))?;
        writeln!(f, "  waiting time  {} ms (for a CPU)", ms(self.steal_ns))?;
        writeln!(f, "  memory        {} pages", self.pages)?;
        let Self { slices, idles, sends, .. } = self;
        writeln!(f, "  exits         slice {slices}, idle {idles}, send {sends}")?;
        writeln!(f, "  migrations    {}", self.migrations)?;
        writeln!(f, "  kernel mode   {}", self.kernel_engine)?;
        for (name, value) in &self.counters {
            writeln!(f, "  {name:<13} {value}")?;
        }
        if self.unseen > 0 {
            let unseen = self.unseen;
            writeln!(f, "  (counters without {unseen} VCPUs that run just now or are elsewhere)")?;
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
