//! The workloads, as far as they are computation: the same code gives the expected checksums on the
//! host, where what a kernel does for them (memory, processes, pipes) is modelled by a few lines.

/// A generator of numbers: SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn step(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Adds a value to a checksum. Order matters.
#[must_use]
pub fn fold(sum: u64, value: u64) -> u64 {
    (sum.rotate_left(7) ^ value).wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// Every integer operation on 64, 32 and 8 bits, with operands that look like nothing.
#[must_use]
pub fn arithmetic(rounds: u64) -> u64 {
    let mut random = Random(rounds);
    let mut sum = 0;
    for i in 0..rounds {
        let (a, b) = (random.step(), random.step());
        let (x, y) = (a as i32, b as i32 | 1);
        sum = fold(sum, a.wrapping_mul(b) ^ ((u128::from(a) * u128::from(b)) >> 64) as u64);
        sum = fold(sum, (a / (b | 1)) ^ (a as i64).wrapping_rem(b as i64 | 1) as u64);
        sum = fold(sum, x.wrapping_div(y) as u64 ^ (a as u32 % (b as u32 | 1)) as u64);
        sum = fold(sum, (a >> (b % 64)) ^ ((a as i64) >> (i % 64)) as u64 ^ (x << (b % 32)) as u64);
        sum = fold(sum, u64::from(a.leading_zeros()) ^ a.swap_bytes() ^ (b as i8) as u64);
        sum = fold(sum, u64::from((a as i64) < b as i64) | u64::from(a < b) << 1);
    }
    sum
}

/// Memory that grows and shrinks at its end, in pages.
pub trait Heap {
    /// Makes it this many pages longer, or shorter; what is new is zero.
    fn grow(&mut self, pages: i64);
    /// All of it.
    fn words(&mut self) -> &mut [u64];
}

/// 64-bit words of a page.
pub const PAGE_WORDS: usize = 512;

/// Grows and shrinks memory and looks at all of it each time.
pub fn memory(heap: &mut impl Heap) -> u64 {
    let mut sum = 0;
    let mut random = Random(4);
    for change in [160, -96, 130, -1, -60, 100, -233] {
        heap.grow(change);
        let words = heap.words();
        for word in words.iter_mut() {
            sum = fold(sum, *word);
            *word = random.step();
        }
        // Backwards and across: another order of pages.
        for i in 0..words.len() {
            let other = words.len() - 1 - i;
            words[other] ^= words[i].rotate_left(other as u32 % 64);
        }
    }
    sum
}

/// A process with data of its own, which can have children.
pub trait Process {
    /// Its data: [`FAMILY_WORDS`] words.
    fn data(&mut self) -> &mut [u64];
    /// Two children, each of which does [`family`] with its argument on a copy of the data: their results.
    fn children(&mut self, depth: u32, seeds: [u64; 2]) -> [u64; 2];
}

/// Words of data of [`family`].
pub const FAMILY_WORDS: usize = 24 * PAGE_WORDS;

/// Changes some of its data, has children that do the same with theirs, and finds its own as it was.
pub fn family(process: &mut impl Process, depth: u32, seed: u64) -> u64 {
    let mut random = Random(seed);
    for _ in 0..200 {
        let at = random.step() as usize % FAMILY_WORDS;
        process.data()[at] ^= random.step();
    }
    let mut sum = seed;
    if depth > 0 {
        for result in process.children(depth - 1, [random.step(), random.step()]) {
            sum = fold(sum, result);
        }
    }
    process.data().iter().fold(sum, |sum, &word| fold(sum, word))
}

/// Depth of the family that is checked: 2^(depth + 1) - 1 processes.
pub const FAMILY_DEPTH: u32 = 3;

/// Bytes that go through the pipeline.
pub const STREAM_LEN: usize = 100_000;
/// Its stages between source and sink.
pub const STAGES: u64 = 4;

/// The stream's source.
pub struct Source(Random);

impl Source {
    /// At its beginning.
    #[must_use]
    pub fn new() -> Self {
        Self(Random(77))
    }

    /// The next bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        bytes.iter_mut().for_each(|byte| *byte = self.0.step() as u8);
    }
}

impl Default for Source {
    fn default() -> Self {
        Self::new()
    }
}

/// A stage: what it does to a byte depends on all those before.
pub struct Stage(u64);

impl Stage {
    /// Stage `number`.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// Replaces the next bytes.
    pub fn pass(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(u64::from(*byte));
            *byte ^= (self.0 >> 56) as u8;
        }
    }
}

/// A checksum of bytes, continued.
#[must_use]
pub fn fold_bytes(sum: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(sum, |sum, &byte| fold(sum, u64::from(byte)))
}

/// How many small programs are executed, and the exit code of each.
pub const LEAVES: u64 = 40;

/// The exit code of small program `i`.
#[must_use]
pub fn leaf(i: u64) -> u32 {
    Random(i).step() as u32 & 0x7f
}

/// How many address spaces come and go: more than there are identifiers.
pub const SPACES: u64 = 300;

/// What the process in space `i` writes into its pages, and hands back.
#[must_use]
pub fn space_word(i: u64, page: u64) -> u64 {
    fold(i, page)
}

/// What a mixer gets and what it gives back: one round of [`Mixer`].
pub const MIX_REQUEST: usize = 256;
/// Words of a mixer's table.
pub const MIX_WORDS: usize = 320 * PAGE_WORDS;
/// Mixers, and requests to each.
pub const MIXERS: u64 = 26;
/// See [`MIXERS`].
pub const MIX_ROUNDS: u64 = 34;
/// Steps of a mixer a request.
const MIX_STEPS: usize = 170;

/// A request to a mixer.
pub fn mix_request(random: &mut Random, request: &mut [u8; MIX_REQUEST]) {
    request.iter_mut().for_each(|byte| *byte = random.step() as u8);
}

/// Looks things up in a large table, as a compiler or a database does, and changes it; `table` has
/// [`MIX_WORDS`] words. The answer replaces the request.
pub fn mix_answer(table: &mut [u64], request: &mut [u8; MIX_REQUEST]) {
    let mut key = fold_bytes(1, request);
    let mut scratch = [0u64; 16];
    for step in 0..MIX_STEPS {
        // Half of the accesses stay near, half go anywhere.
        let near = (key >> 8) as usize % PAGE_WORDS;
        let far = (key >> 20) as usize % MIX_WORDS;
        table[far] = fold(table[far], key);
        key = fold(key, table[near] ^ step as u64);
        scratch[step % 16] ^= key;
        // Some work without memory to speak of.
        for i in 0..scratch.len() {
            let before = scratch[(i + 15) % 16];
            scratch[i] = (scratch[i] ^ before >> 7).wrapping_add(before << 3);
        }
        key ^= scratch[step % 7];
    }
    for (i, byte) in request.iter_mut().enumerate() {
        *byte ^= (scratch[i % 16] >> (i % 8 * 8)) as u8;
    }
}

/// After so many rounds a program is run.
pub const BETWEEN: u64 = 32;
/// Words that [`round`] works on: 64 KB, all of which each round reads and changes.
pub const ROUND_WORDS: usize = 16 * PAGE_WORDS;

/// A child's part of round `number`: it changes its own copy of the words; a checksum of all of them.
pub fn round_child(words: &mut [u64], number: u64) -> u64 {
    words.iter_mut().fold(number, |sum, word| {
        *word = word.rotate_left(1);
        fold(sum, *word)
    })
}

/// The parent's part of round `number`: it changes its words by what the child has found; the checksum of all rounds so far.
pub fn round(words: &mut [u64], number: u64, child: u64, sum: u64) -> u64 {
    words.iter_mut().fold(fold(sum, number), |sum, word| {
        *word = fold(*word, child);
        fold(sum, *word)
    })
}

/// The checksums that the program `rounds` prints, in turn, for ever.
pub struct Rounds {
    words: [u64; ROUND_WORDS],
    number: u64,
    sum: u64,
}

impl Default for Rounds {
    fn default() -> Self {
        Self { words: [0; ROUND_WORDS], number: 0, sum: 0 }
    }
}

impl Iterator for Rounds {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.number += 1;
        let child = round_child(&mut self.words.clone(), self.number);
        self.sum = round(&mut self.words, self.number, child, self.sum);
        Some(self.sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expected::{self, expected};

    struct Model(Vec<u64>);

    impl Heap for Model {
        fn grow(&mut self, pages: i64) {
            let len = self.0.len() as i64 + pages * PAGE_WORDS as i64;
            self.0.resize(len as usize, 0);
        }
        fn words(&mut self) -> &mut [u64] {
            &mut self.0
        }
    }

    impl Process for Model {
        fn data(&mut self) -> &mut [u64] {
            &mut self.0
        }
        fn children(&mut self, depth: u32, seeds: [u64; 2]) -> [u64; 2] {
            seeds.map(|seed| family(&mut Self(self.0.clone()), depth, seed))
        }
    }

    fn mix() -> u64 {
        let mut sum = 0;
        for mixer in 0..MIXERS {
            let mut table = vec![0; MIX_WORDS];
            let mut random = Random(mixer);
            let mut answers = 0;
            for _ in 0..MIX_ROUNDS {
                let mut request = [0; MIX_REQUEST];
                mix_request(&mut random, &mut request);
                mix_answer(&mut table, &mut request);
                answers = fold_bytes(answers, &request);
            }
            sum = fold(sum, answers);
        }
        sum
    }

    fn pipeline() -> u64 {
        let mut stream = vec![0; STREAM_LEN];
        Source::new().fill(&mut stream);
        for number in 0..STAGES {
            Stage::new(number).pass(&mut stream);
        }
        fold_bytes(0, &stream)
    }

    #[test]
    fn checksums_are_as_expected() {
        let mut children = 0;
        for i in 0..LEAVES {
            children = fold(children, u64::from(leaf(i)) << 8);
        }
        let mut spaces = 0;
        for i in 0..SPACES {
            spaces = fold(spaces, space_word(i, 0) ^ space_word(i, 1));
        }
        let found = [
            ("arithmetic", arithmetic(expected::ARITHMETIC_ROUNDS)),
            ("memory", memory(&mut Model(Vec::new()))),
            ("family", family(&mut Model(vec![0; FAMILY_WORDS]), FAMILY_DEPTH, 9)),
            ("pipeline", pipeline()),
            ("exec", children),
            ("spaces", spaces),
            ("signals", expected::fold_signals(&expected::SIGNALS)),
            ("faults", expected::fold_faults(|_, signal| signal)),
            ("share", expected::SHARE_MEMBERS * expected::SHARE_ROUNDS),
            ("linked", expected::LINKED),
            ("mix", mix()),
        ];
        let names: Vec<_> = expected::CHECKS.iter().map(|check| check.0).collect();
        assert_eq!(found.map(|(name, _)| name).to_vec(), names);
        let list = |(name, sum): &(&str, u64)| format!("{name} {sum:016x}");
        let found: Vec<_> = found.iter().map(list).collect();
        let wanted: Vec<_> = expected::CHECKS.iter().map(list).collect();
        assert_eq!(found, wanted);
        assert_eq!(expected("nope"), None);
    }

    #[test]
    fn rounds_are_all_different() {
        let sums: std::collections::BTreeSet<u64> = Rounds::default().take(200).collect();
        assert_eq!(sums.len(), 200);
    }
}
