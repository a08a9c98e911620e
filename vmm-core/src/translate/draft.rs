//! What a block is made into: of fixed size, and without its place yet.

use super::form::Quick;
use super::stand::{Kind, Point};

/// Guest instructions in a block, at most.
pub const MAX_INSNS: usize = 64;
/// Words of a block, at most.
pub const MAX_WORDS: usize = 1024;
/// Points of a block, at most.
pub const MAX_POINTS: usize = 272;
/// Branches out of a block, at most.
pub const MAX_WAYS: usize = 64;
/// Ways out of a block that can be chained, at most.
pub const MAX_EXITS: usize = MAX_WAYS + 1;
/// That an exit belongs to no branch.
pub const NO_BRANCH: u16 = u16::MAX;

/// A way out of a block that can be chained.
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    /// The word that is a `break`, or a jump once chained.
    pub word: u16,
    /// The branch that leads there, if one does.
    pub branch: u16,
    /// Where the guest goes.
    pub target: u64,
}

/// Where a branch to a place behind the block's end is to lead.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// Out, to this address.
    Exit(u64),
    /// Out, to this address, behind the delay slot of the branch that is this instruction.
    Slotted(u64, u8),
    /// To the runtime, the guest standing so.
    Stop(Kind, u8),
    /// To the runtime, which executes this instruction.
    Quick(Quick, u8),
}

/// A block being made: without its place yet.
pub struct Draft {
    pub words: [u32; MAX_WORDS],
    pub len: usize,
    pub points: [Point; MAX_POINTS],
    pub point_count: usize,
    /// The first point behind the block's end.
    pub aside: usize,
    pub exits: [Exit; MAX_EXITS],
    pub exit_count: usize,
    pub ways: [(u16, Way); MAX_WAYS],
    pub way_count: usize,
    /// It depends on the next page.
    pub crosses: bool,
    /// Accesses to each of [`super::reach::CANDIDATES`], as far as there is reason to think so.
    pub accesses: [u32; 2],
}

impl Draft {
    /// Of nothing.
    pub const fn new() -> Self {
        Self {
            words: [0; MAX_WORDS],
            len: 0,
            points: [Point::NONE; MAX_POINTS],
            point_count: 0,
            aside: 0,
            exits: [Exit { word: 0, branch: NO_BRANCH, target: 0 }; MAX_EXITS],
            exit_count: 0,
            ways: [(0, Way::Exit(0)); MAX_WAYS],
            way_count: 0,
            crosses: false,
            accesses: [0; 2],
        }
    }

    /// Becomes that of nothing.
    pub const fn clear(&mut self) {
        (self.len, self.point_count, self.exit_count, self.way_count) = (0, 0, 0, 0);
        (self.crosses, self.accesses) = (false, [0; 2]);
    }
}
