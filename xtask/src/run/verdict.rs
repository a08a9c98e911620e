//! How a run ended, as an exit status.

use abi::event::{Cause, Event, Kind};
use abi::script::Outcome;

/// Everything passed, or every VM ended normally.
pub const PASSED: u8 = 0;
/// A script step failed, or a VM was ended for cause.
pub const FAILED: u8 = 1;
/// Configuration or set-up.
pub const SET_UP: u8 = 2;
/// The monitor panicked, a cell was lost, a stream was overrun, or QEMU died.
pub const BROKEN: u8 = 3;
/// Time-out.
pub const TIMED_OUT: u8 = 124;

/// What a run has shown so far.
#[derive(Debug, Default)]
pub struct Verdict {
    /// How the machine said it ended.
    pub outcome: Option<Outcome>,
    /// VMs that were ended for cause.
    pub ended_for_cause: Vec<(String, Cause)>,
    /// What went wrong with monitor, streams or QEMU.
    pub broken: Vec<String>,
    /// The cells that were lost, while others went on.
    pub cells_lost: Vec<String>,
    /// What the host could not do.
    pub set_up: Vec<String>,
    /// `--timeout` has passed.
    pub timed_out: bool,
    /// Somebody typed at a console.
    pub typed: bool,
}

impl Verdict {
    /// Takes note of an event.
    pub fn event(&mut self, event: &Event) {
        match &event.kind {
            Kind::VmEnd { vm, cause } if !cause.is_normal() => {
                self.ended_for_cause.push((vm.to_string(), *cause));
            }
            Kind::Panic { message } => self.broken.push(format!("the monitor panicked: {message}")),
            Kind::CellLost { lost } => self.cells_lost.push(format!("cell {lost} was lost")),
            _ => {}
        }
    }

    /// Whether the monitor, a stream or QEMU has failed.
    pub fn is_broken(&self) -> bool {
        !self.broken.is_empty() || !self.cells_lost.is_empty()
    }

    /// The exit status: 3 beats 2 beats 124 beats 1. With a script its steps alone decide between
    /// 0 and 1, without one the VMs' ends.
    pub fn status(&self) -> u8 {
        if self.is_broken() {
            return BROKEN;
        }
        if !self.set_up.is_empty() {
            return SET_UP;
        }
        if self.timed_out {
            return TIMED_OUT;
        }
        match &self.outcome {
            Some(Outcome::ScriptPassed) => PASSED,
            Some(Outcome::ScriptFailed { .. }) => FAILED,
            Some(Outcome::Done) if self.ended_for_cause.is_empty() => PASSED,
            Some(Outcome::Done) => FAILED,
            // The machine did not get to say how it ended.
            None => BROKEN,
        }
    }

    /// What there is to say about it, one line each.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        lines.extend(self.broken.iter().cloned());
        lines.extend(self.cells_lost.iter().cloned());
        lines.extend(self.set_up.iter().cloned());
        if self.timed_out {
            lines.push("the time-out has passed".into());
        }
        if let Some(Outcome::ScriptFailed { line, report }) = &self.outcome {
            let mut report = report.lines();
            lines.push(format!("script line {line}: {}", report.next().unwrap_or("failed")));
            lines.extend(report.map(|line| format!("  {line}")));
        }
        for (vm, cause) in &self.ended_for_cause {
            lines.push(format!("VM {vm} was ended: {}", cause.as_str()));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: Kind<'_>) -> Event<'_> {
        Event { seq: 0, t_ns: 0, cell: 0, cpu: 0, kind }
    }

    fn ended(cause: Cause) -> Event<'static> {
        event(Kind::VmEnd { vm: "a".into(), cause })
    }

    #[test]
    fn without_a_script_the_vms_decide() {
        for (cause, status) in [
            (Cause::PowerOff, PASSED),
            (Cause::Reset, PASSED),
            (Cause::Stopped, PASSED),
            (Cause::Quit, PASSED),
            (Cause::UnreachableVector, FAILED),
            (Cause::Budget, FAILED),
            (Cause::BadImage, FAILED),
            (Cause::NoMemory, FAILED),
            (Cause::CellLost, FAILED),
        ] {
            let mut verdict = Verdict { outcome: Some(Outcome::Done), ..Verdict::default() };
            verdict.event(&ended(cause));
            assert_eq!(verdict.status(), status, "{cause:?}");
        }
    }

    #[test]
    fn with_a_script_its_steps_decide_whatever_happened_to_vms() {
        let mut verdict = Verdict { outcome: Some(Outcome::ScriptPassed), ..Verdict::default() };
        verdict.event(&ended(Cause::Budget));
        assert_eq!(verdict.status(), PASSED);
        verdict.outcome = Some(Outcome::ScriptFailed { line: 3, report: "expected x".into() });
        assert_eq!(verdict.status(), FAILED);
        assert_eq!(verdict.lines()[0], "script line 3: expected x");
    }

    #[test]
    fn three_beats_two_beats_124_beats_one() {
        let mut verdict = Verdict::default();
        assert_eq!(verdict.status(), BROKEN, "no outcome: QEMU died");
        verdict.outcome = Some(Outcome::ScriptFailed { line: 1, report: String::new() });
        assert_eq!(verdict.status(), FAILED);
        verdict.timed_out = true;
        assert_eq!(verdict.status(), TIMED_OUT);
        verdict.set_up.push("disk full".into());
        assert_eq!(verdict.status(), SET_UP);
        verdict.event(&event(Kind::Panic { message: "x".into() }));
        assert_eq!(verdict.status(), BROKEN);
        let why = ["the monitor panicked: x", "disk full", "the time-out has passed"];
        assert_eq!(verdict.lines()[..3], why, "the lesser reasons are told as well");
    }
}
