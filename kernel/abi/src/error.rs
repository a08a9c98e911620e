//! Who is to blame for an error: it decides what is ended and who is told.

use core::fmt;

/// The side whose mistake an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The code in a virtual machine: at most that VM is ended.
    Guest,
    /// Whoever wrote the configuration, chose an image or typed a command: refused with a remedy.
    Operator,
    /// The hardware (or its emulator): a bus error, a device that does not answer.
    Machine,
    /// The monitor itself: a bug of ours.
    Monitor,
}

impl fmt::Display for Blame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Guest => "guest",
            Self::Operator => "operator",
            Self::Machine => "machine",
            Self::Monitor => "monitor",
        })
    }
}
