//! What the model checker searches.

use super::world::Case;

/// Searched by every test run.
pub fn small() -> Vec<Case> {
    vec![
        Case {
            name: "2 calls, torn lines, a death, a reboot, a bus error",
            calls: vec![(1, 0, 2)],
            deaths: 1,
            reboots: 1,
            failures: 1,
            impatience: true,
            torn: true,
            ..Case::default()
        },
        Case {
            name: "2 callers, torn lines, a death, a bus error",
            cells: 3,
            calls: vec![(1, 0, 1), (2, 0, 1)],
            deaths: 1,
            failures: 1,
            impatience: true,
            torn: true,
            ..Case::default()
        },
        Case {
            name: "2 senders, a stale hint, a move, a death",
            cells: 3,
            hints: vec![None, Some(0), Some(1)],
            messages: vec![0, 1, 1],
            moves: 1,
            deaths: 1,
            ..Case::default()
        },
    ]
}

/// Searched on demand.
pub fn large() -> Vec<Case> {
    vec![
        Case {
            name: "2 callers of 2, torn lines, a death, a reboot, a bus error",
            cells: 3,
            calls: vec![(1, 0, 2), (2, 0, 2)],
            deaths: 1,
            reboots: 1,
            failures: 1,
            impatience: true,
            torn: true,
            ..Case::default()
        },
        Case {
            name: "1 sender of 2, a stale hint, 2 moves, a refusal, a death",
            cells: 3,
            hints: vec![None, Some(0), Some(1)],
            messages: vec![0, 0, 2],
            moves: 2,
            refusals: 1,
            deaths: 1,
            ..Case::default()
        },
        Case {
            name: "2 senders of 2, a stale hint, 2 moves, a death",
            cells: 3,
            hints: vec![None, Some(0), Some(1)],
            messages: vec![0, 2, 2],
            moves: 2,
            deaths: 1,
            ..Case::default()
        },
    ]
}
