//! Little-endian encoding into a growing buffer, and decoding that never panics.

#[cfg(feature = "alloc")]
use alloc::{string::String, vec::Vec};
use core::fmt;

/// Why a blob could not be decoded. `at` is the byte offset of the offending field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// Byte offset in the blob.
    pub at: usize,
    /// What was expected there.
    pub what: &'static str,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.at)
    }
}

/// Appends values to a buffer.
#[cfg(feature = "alloc")]
#[derive(Debug, Default)]
pub struct Writer {
    /// What has been written so far.
    pub bytes: Vec<u8>,
}

#[cfg(feature = "alloc")]
impl Writer {
    /// An empty writer. It has room for what most records need, so that its buffer need not grow.
    #[must_use]
    pub fn new() -> Self {
        Self { bytes: Vec::with_capacity(128) }
    }
    /// Appends one byte.
    pub fn u8(&mut self, v: u8) {
        self.bytes.push(v);
    }
    /// Appends 2 bytes.
    pub fn u16(&mut self, v: u16) {
        self.bytes.extend_from_slice(&v.to_le_bytes());
    }
    /// Appends 4 bytes.
    pub fn u32(&mut self, v: u32) {
        self.bytes.extend_from_slice(&v.to_le_bytes());
    }
    /// Appends 8 bytes.
    pub fn u64(&mut self, v: u64) {
        self.bytes.extend_from_slice(&v.to_le_bytes());
    }
    /// Appends a length (u32) and the bytes.
    ///
    /// # Panics
    /// When `v` is longer than 4 GiB.
    pub fn blob(&mut self, v: &[u8]) {
        self.u32(u32::try_from(v.len()).expect("a blob below 4 GiB"));
        self.bytes.extend_from_slice(v);
    }
    /// Appends a string as a [`Self::blob`] of UTF-8.
    pub fn str(&mut self, v: &str) {
        self.blob(v.as_bytes());
    }
}

/// Takes values off the front of a buffer.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
    /// Bytes consumed so far.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.at
    }
    /// An error at the current position.
    #[must_use]
    pub const fn error(&self, what: &'static str) -> DecodeError {
        DecodeError { at: self.at, what }
    }
    fn take<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        let (head, _) = rest.split_first_chunk::<N>().ok_or(self.error(what))?;
        self.at += N;
        Ok(*head)
    }
    /// One byte.
    ///
    /// # Errors
    /// When the buffer ends before it.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.take::<1>("a byte").map(|b| b[0])
    }
    /// Two bytes.
    ///
    /// # Errors
    /// When the buffer ends before them.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.take("a 16-bit value").map(u16::from_le_bytes)
    }
    /// Four bytes.
    ///
    /// # Errors
    /// When the buffer ends before them.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.take("a 32-bit value").map(u32::from_le_bytes)
    }
    /// Eight bytes.
    ///
    /// # Errors
    /// When the buffer ends before them.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.take("a 64-bit value").map(u64::from_le_bytes)
    }
    /// What [`Writer::blob`] wrote.
    ///
    /// # Errors
    /// When the buffer ends before its declared length.
    pub fn blob(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u32()? as usize;
        let end = self.at.checked_add(len).ok_or(self.error("a blob length"))?;
        let out = self.bytes.get(self.at..end).ok_or(self.error("a blob"))?;
        self.at = end;
        Ok(out)
    }
    /// What [`Writer::str`] wrote.
    ///
    /// # Errors
    /// When the buffer ends before its declared length or the bytes are not UTF-8.
    #[cfg(feature = "alloc")]
    pub fn str(&mut self) -> Result<String, DecodeError> {
        let at = self.at;
        let bytes = self.blob()?;
        core::str::from_utf8(bytes)
            .map(String::from)
            .map_err(|_| DecodeError { at, what: "UTF-8 text" })
    }
}

/// FNV-1a, 64 bits: the checksum of images and blobs. It guards against accidents (a half-written
/// file, a scribbled page), not against an adversary.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &b| {
        (hash ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
