//! A monitor with one seeded mistake, so that what judges monitors can be judged itself (docs/faults.md).

use crate::paths;
use cell::talk::mutant::{Mutant, VARIABLE};
use std::fmt;
use std::path::PathBuf;

/// The mistake of a monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeded(Mutant);

impl Seeded {
    /// What it is called.
    pub fn name(self) -> &'static str {
        let known = Mutant::ALL.iter().find(|(mutant, _)| *mutant == self.0);
        known.map_or("", |(_, name)| name)
    }

    /// The variable of the compiler's environment that names it.
    pub const fn variable(self) -> &'static str {
        VARIABLE
    }

    /// Where the monitor is built.
    pub fn target_dir(self) -> PathBuf {
        paths::mutant_target_dir(self.name())
    }
}

impl fmt::Display for Seeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The mistake of this name.
///
/// # Errors
/// There is none: which ones there are.
pub fn parse(name: &str) -> Result<Seeded, String> {
    let same = |(mutant, other): &(Mutant, &str)| (*other == name).then_some(Seeded(*mutant));
    Mutant::ALL.iter().find_map(same).ok_or_else(|| {
        let names: Vec<_> = Mutant::ALL.iter().map(|(_, name)| *name).collect();
        format!("no mistake is called so; there are {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_have_names() {
        for (_, name) in Mutant::ALL {
            assert_eq!(parse(name).map(Seeded::name), Ok(*name));
        }
        assert!(parse("Nothing").unwrap_err().contains("there are CommitFirst, "));
    }
}
