//! Where a value came from, so that every error can name its culprit.

use std::fmt;
use std::path::Path;
use std::rc::Rc;

/// Who said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A line of a configuration file.
    Line {
        /// The file, as the operator named it.
        file: Rc<Path>,
        /// Its line, from 1.
        line: usize,
    },
    /// A flag of the command line.
    Flag(&'static str),
    /// Nobody: the documented default.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { file, line } => write!(f, "{}:{line}", file.display()),
            Self::Flag(flag) => f.write_str(flag),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<T> {
    /// The value.
    pub value: T,
    /// Who said it.
    pub source: Source,
}

impl<T> Item<T> {
    /// A value that nobody gave.
    pub const fn default(value: T) -> Self {
        Self { value, source: Source::Default }
    }

    /// A value given by a flag.
    pub const fn flag(flag: &'static str, value: T) -> Self {
        Self { value, source: Source::Flag(flag) }
    }

    /// An error about this value: culprit, what is wrong, and the remedy.
    pub fn error(&self, what: impl fmt::Display) -> anyhow::Error {
        anyhow::anyhow!("{}: {what}", self.source)
    }
}
