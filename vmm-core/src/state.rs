//! A VCPU's state as a sequence of words, to be carried elsewhere: no pointers in it, and nothing that is taken
//! on trust when it comes back.
//!
//! What is saved is listed once, by functions that [`Visit`] each field in turn: saving and restoring are
//! two visitors, and so can't disagree. What a field may hold is checked after it has been restored, by
//! whoever it belongs to.

use alloc::vec::Vec;
use core::fmt;

/// Why words are not the state of a VCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateError {
    /// They end too early.
    Short,
    /// There are more of them.
    Long,
    /// They are of another version, or nothing of the kind.
    Version,
    /// They are of a VCPU of another VM: another model, number or byte order.
    Other,
    /// No VCPU has such a value there.
    Value(&'static str),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("a VCPU's state ends too early"),
            Self::Long => f.write_str("a VCPU's state is too long"),
            Self::Version => f.write_str("a VCPU's state is of another version of the monitor"),
            Self::Other => f.write_str("a VCPU's state is of another VCPU"),
            Self::Value(what) => write!(f, "a VCPU's state is damaged: {what}"),
        }
    }
}

impl core::error::Error for StateError {}

/// More than anything counts up to in a century.
pub(crate) const COUNT_MAX: u64 = 1 << 58;

/// Whether something is as it has to be.
pub(crate) const fn check(holds: bool, what: &'static str) -> Result<(), StateError> {
    if holds { Ok(()) } else { Err(StateError::Value(what)) }
}

/// Somebody who looks at each field of a state in turn.
pub(crate) trait Visit {
    /// A word.
    fn u64(&mut self, field: &mut u64) -> Result<(), StateError>;

    /// Half a word.
    fn u32(&mut self, field: &mut u32) -> Result<(), StateError> {
        let mut word = u64::from(*field);
        self.u64(&mut word)?;
        *field = u32::try_from(word).map_err(|_| StateError::Value("32 bits that are more"))?;
        Ok(())
    }

    /// A count of events or nanoseconds, far from where sums overflow.
    fn count(&mut self, field: &mut u64) -> Result<(), StateError> {
        self.u64(field)?;
        check(*field < COUNT_MAX, "a count that nothing reaches")
    }

    /// Yes or no.
    fn bool(&mut self, field: &mut bool) -> Result<(), StateError> {
        let mut word = u64::from(*field);
        self.u64(&mut word)?;
        *field = word != 0;
        check(word <= 1, "neither yes nor no")
    }

    /// Some words.
    fn all(&mut self, fields: &mut [u64]) -> Result<(), StateError> {
        fields.iter_mut().try_for_each(|field| self.u64(field))
    }
}

/// Writes the words down.
pub(crate) struct Saver<'a>(pub &'a mut Vec<u64>);

impl Visit for Saver<'_> {
    fn u64(&mut self, field: &mut u64) -> Result<(), StateError> {
        self.0.push(*field);
        Ok(())
    }

    fn all(&mut self, fields: &mut [u64]) -> Result<(), StateError> {
        self.0.extend_from_slice(fields);
        Ok(())
    }
}

/// Reads them back.
pub(crate) struct Restorer<'a>(pub &'a [u64]);

impl<'a> Restorer<'a> {
    /// The next words.
    pub fn take<const N: usize>(&mut self) -> Result<&'a [u64; N], StateError> {
        let (words, rest) = self.0.split_first_chunk().ok_or(StateError::Short)?;
        self.0 = rest;
        Ok(words)
    }
}

impl Visit for Restorer<'_> {
    fn u64(&mut self, field: &mut u64) -> Result<(), StateError> {
        [*field] = *self.take()?;
        Ok(())
    }

    fn all(&mut self, fields: &mut [u64]) -> Result<(), StateError> {
        let (words, rest) = self.0.split_at_checked(fields.len()).ok_or(StateError::Short)?;
        fields.copy_from_slice(words);
        self.0 = rest;
        Ok(())
    }
}
