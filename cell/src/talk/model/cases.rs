//! What the model checker searches.

use super::world::Parts;

/// What is in a case.
#[derive(Debug)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// Cells.
    pub cells: usize,
    /// The cell that has the VCPU at first.
    pub owner: usize,
    /// Where each cell believes it to be at first.
    pub hints: Vec<Option<usize>>,
    /// Messages that each cell sends to the VCPU.
    pub messages: Vec<u8>,
    /// Searches for the VCPU by each cell.
    pub searches: Vec<u8>,
    /// Calls: caller, callee, how many.
    pub calls: Vec<(usize, usize, u8)>,
    /// Hand-overs to anywhere.
    pub moves: u8,
    /// How many of them may be refused.
    pub refusals: u8,
    /// Deaths.
    pub deaths: u8,
    /// Dead cells that come back.
    pub reboots: u8,
    /// Writes that end in a bus error although the reader lives.
    pub failures: u8,
    /// Whether cells grow impatient.
    pub impatience: bool,
    /// Whether the others go on between two writes of a cell.
    pub torn: bool,
    /// What the states that were found have in common.
    pub parts: Parts,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            name: "",
            cells: 2,
            owner: 0,
            hints: Vec::new(),
            messages: Vec::new(),
            searches: Vec::new(),
            calls: Vec::new(),
            moves: 0,
            refusals: 0,
            deaths: 0,
            reboots: 0,
            failures: 0,
            impatience: false,
            torn: false,
            parts: Parts::default(),
        }
    }
}

/// Everything that can happen to two calls.
pub fn two_calls() -> Case {
    Case {
        name: "2 calls, torn lines, a death, a reboot, a bus error",
        calls: vec![(1, 0, 2)],
        deaths: 1,
        reboots: 1,
        failures: 1,
        impatience: true,
        torn: true,
        ..Case::default()
    }
}

/// One message to a VCPU that moves, from a cell with a stale hint.
pub fn one_move() -> Case {
    Case {
        name: "1 message, a stale hint, a move, a death",
        cells: 3,
        hints: vec![None, Some(0), Some(1)],
        messages: vec![0, 0, 1],
        moves: 1,
        deaths: 1,
        ..Case::default()
    }
}

/// The same, with a write that fails although its reader lives, and cells that lose their patience.
fn one_failure() -> Case {
    Case {
        name: "1 message, a stale hint, a move, a death, a bus error",
        failures: 1,
        impatience: true,
        ..one_move()
    }
}

/// Two messages of one sender.
pub fn two_messages() -> Case {
    Case {
        name: "2 messages, a stale hint, a move",
        messages: vec![0, 0, 2],
        deaths: 0,
        ..one_move()
    }
}

/// A sender that dies and comes back.
pub fn sender_reboots() -> Case {
    Case {
        name: "1 message, a death, a reboot, a bus error",
        messages: vec![0, 1],
        deaths: 1,
        reboots: 1,
        failures: 1,
        impatience: true,
        ..Case::default()
    }
}

/// Two senders, one of which has a stale hint.
fn two_senders() -> Case {
    Case { name: "2 senders, a stale hint, a move, a death", messages: vec![0, 1, 1], ..one_move() }
}

/// A search for a VCPU that moves.
fn one_search() -> Case {
    Case {
        name: "1 search, a stale hint, a move, a death",
        messages: Vec::new(),
        searches: vec![0, 0, 1],
        ..one_move()
    }
}

/// Searched by every test run.
pub fn small() -> Vec<Case> {
    vec![
        two_calls(),
        Case {
            name: "2 callers, torn lines, a death, a bus error",
            cells: 3,
            calls: vec![(1, 0, 1), (2, 0, 1)],
            reboots: 0,
            ..two_calls()
        },
        one_search(),
        one_move(),
        one_failure(),
        two_messages(),
        sender_reboots(),
        two_senders(),
    ]
}

/// Two callers of two calls each: every line is used again.
pub fn many_calls() -> Case {
    Case {
        name: "2 callers of 2, torn lines, a death, a bus error",
        cells: 3,
        calls: vec![(1, 0, 2), (2, 0, 2)],
        reboots: 0,
        ..two_calls()
    }
}

/// A VCPU that moves twice, or is not let in.
pub fn refused_moves() -> Case {
    Case {
        name: "1 sender of 2, a stale hint, 2 moves, a refusal, a death",
        messages: vec![0, 0, 2],
        moves: 2,
        refusals: 1,
        ..one_move()
    }
}

/// A cell that dies and comes back, with a VCPU that moves.
pub fn returns() -> Case {
    Case {
        name: "2 senders, a stale hint, a move, a death, a reboot",
        messages: vec![0, 1, 1],
        reboots: 1,
        ..one_move()
    }
}

/// Two senders of two messages each to a VCPU that moves once.
pub fn contention() -> Case {
    Case {
        name: "2 senders of 2, a stale hint, a move, a death",
        messages: vec![0, 2, 2],
        ..one_move()
    }
}

/// Two senders of two messages each to a VCPU that moves twice.
pub fn many_messages() -> Case {
    Case {
        name: "2 senders of 2, a stale hint, 2 moves, a death",
        messages: vec![0, 2, 2],
        moves: 2,
        ..one_move()
    }
}
