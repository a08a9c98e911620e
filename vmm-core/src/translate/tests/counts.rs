//! What happened in a run.

/// What has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Words of emitted code executed.
    pub words: u64,
    /// Guest instructions that the interpreter executed.
    pub interpreted: u64,
    /// Times that emitted code was entered, and went on, after that.
    pub entered: u64,
    pub resumed: u64,
    /// Exceptions of emitted code that were not its exits.
    pub faults: u64,
    /// Misses of the real TLB that were filled.
    pub filled: u64,
    /// Exits chained, jumps that were not in the table.
    pub chained: u64,
    pub jumps: u64,
    /// Places of each kind at which it was stopped.
    pub stops: [u64; 8],
    /// Blocks made anew because an access was of another class.
    pub guesses: u64,
    /// Blocks dropped because their page was written.
    pub rewritten: u64,
    /// Blocks that depended on two pages at the end.
    pub crossing: u64,
    /// Writes of the TLB that were posted.
    pub posted: u64,
}

impl Counts {
    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        let stops = core::array::from_fn(|n| self.stops[n] + other.stops[n]);
        *self = Self {
            words: self.words + other.words,
            interpreted: self.interpreted + other.interpreted,
            entered: self.entered + other.entered,
            resumed: self.resumed + other.resumed,
            faults: self.faults + other.faults,
            filled: self.filled + other.filled,
            chained: self.chained + other.chained,
            jumps: self.jumps + other.jumps,
            stops,
            guesses: self.guesses + other.guesses,
            rewritten: self.rewritten + other.rewritten,
            crossing: self.crossing + other.crossing,
            posted: self.posted + other.posted,
        };
    }
}
