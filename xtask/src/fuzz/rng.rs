//! The random source of the generator: small, and the same on every host and in every version, so
//! that a seed and a case number name a case for good.

/// SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014).
#[derive(Clone, Debug)]
pub struct Rng(u64);

/// The finaliser of SplitMix64: a bijection that scatters its input.
const fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Rng {
    /// The source of case `case` under `seed`, independent of every other case's.
    pub const fn new(seed: u64, case: u64) -> Self {
        Self(mix(mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15)).wrapping_add(case)))
    }

    /// 64 random bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `n` (which is not 0).
    pub const fn below(&mut self, n: u64) -> u64 {
        ((self.bits() as u128 * n as u128) >> 64) as u64
    }

    /// A number below `n`, for encodings.
    pub const fn below32(&mut self, n: u32) -> u32 {
        self.below(n as u64) as u32
    }

    /// True `percent` times in a hundred.
    pub const fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `items`, which are not empty.
    pub const fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn cases_are_independent_and_stable() {
        let mut a = Rng::new(1, 0);
        let mut b = Rng::new(1, 1);
        let mut c = Rng::new(2, 0);
        let first = [a.bits(), b.bits(), c.bits()];
        assert_ne!(first[0], first[1]);
        assert_ne!(first[0], first[2]);
        // Fixed for good: published seeds name these cases.
        assert_eq!(Rng::new(1, 0).bits(), first[0]);
        assert!((0..1000).all(|_| a.below(7) < 7));
    }
}
