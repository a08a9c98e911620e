//! What a console has printed last, for those who look at it later.

use std::collections::VecDeque;

/// Most bytes of a console that are kept.
pub const KEPT: usize = 256 << 10;

/// The last [`KEPT`] bytes of a stream, by their place in it.
#[derive(Debug, Default)]
pub struct Scrollback {
    bytes: VecDeque<u8>,
    /// Bytes that were printed and are not kept any more.
    cut: u64,
}

/// What of a stream follows a place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest<'a> {
    /// Bytes that came first and are lost.
    pub cut: u64,
    /// The bytes after them, in two pieces.
    pub pieces: [&'a [u8]; 2],
}

impl Scrollback {
    /// Adds output.
    pub fn push(&mut self, bytes: &[u8]) {
        let bytes_kept = &bytes[bytes.len().saturating_sub(KEPT)..];
        let excess = (self.bytes.len() + bytes_kept.len()).saturating_sub(KEPT);
        self.bytes.drain(..excess);
        self.bytes.extend(bytes_kept);
        self.cut += (excess + bytes.len() - bytes_kept.len()) as u64;
    }

    /// Bytes printed so far: the place where the next will be.
    pub fn end(&self) -> u64 {
        self.cut + self.bytes.len() as u64
    }

    /// What follows the first `place` bytes of the stream.
    pub fn since(&self, place: u64) -> Rest<'_> {
        let cut = self.cut.saturating_sub(place);
        let skip = place.saturating_sub(self.cut).min(self.bytes.len() as u64) as usize;
        let (one, two) = self.bytes.as_slices();
        let pieces = [&one[skip.min(one.len())..], &two[skip.saturating_sub(one.len())..]];
        Rest { cut, pieces }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_are_kept_and_the_others_counted() {
        let mut kept = Scrollback::default();
        assert_eq!(kept.since(0), Rest { cut: 0, pieces: [b"", b""] });
        kept.push(b"one ");
        kept.push(b"two");
        assert_eq!(kept.since(4).pieces.concat(), b"two");
        assert_eq!(kept.since(100).pieces.concat(), b"");
        kept.push(&[b'x'; KEPT]);
        assert_eq!((kept.end(), kept.since(0).cut, kept.since(5).cut), (KEPT as u64 + 7, 7, 2));
        kept.push(b"end");
        for place in [0, 10, 11, KEPT as u64 + 8] {
            let rest = kept.since(place);
            let bytes = rest.pieces.concat();
            assert_eq!(place + rest.cut + bytes.len() as u64, kept.end());
            assert!(bytes.ends_with(b"nd"));
        }
        kept.push(&[b'y'; 3 * KEPT]);
        assert_eq!((kept.since(0).cut, kept.end()), (3 * KEPT as u64 + 10, 4 * KEPT as u64 + 10));
    }
}
