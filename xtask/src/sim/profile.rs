//! Where a simulated guest spends its instructions, by sampling its program counter.

use anyhow::{Context, Result};
use std::collections::HashMap;
use std::fmt;
use std::path::Path;

/// Instructions between two samples: prime, so that it is in step with no loop.
pub const INTERVAL: u64 = 9973;
/// Without symbols, samples are summed over stretches of code of this many bytes.
const BUCKET: u64 = 64;
/// Lines shown.
const LINES: usize = 40;

/// Addresses and names of a kernel's functions, in order.
#[derive(Debug, Default)]
pub struct Symbols(Vec<(u64, String)>);

impl Symbols {
    /// Reads a `System.map` or a copy of a guest's `/proc/kallsyms`.
    ///
    /// # Errors
    /// When the file can't be read or has a line of another form.
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("{}: can't be read", file.display()))?;
        let mut symbols = Vec::new();
        for (i, line) in text.lines().enumerate() {
            let mut words = line.split_whitespace();
            let symbol = words.next().and_then(|a| u64::from_str_radix(a, 16).ok());
            let (Some(address), Some(_), Some(name)) = (symbol, words.next(), words.next()) else {
                anyhow::bail!(
                    "{}:{}: not `ADDRESS TYPE NAME`: give a System.map or a copy of /proc/kallsyms",
                    file.display(),
                    i + 1
                );
            };
            symbols.push((address, name.to_owned()));
        }
        symbols.sort();
        Ok(Self(symbols))
    }

    /// The symbol at or before an address.
    fn find(&self, pc: u64) -> Option<&str> {
        let next = self.0.partition_point(|&(address, _)| address <= pc);
        Some(self.0.get(next.checked_sub(1)?)?.1.as_str())
    }
}

/// A histogram of the program counter.
#[derive(Debug, Default)]
pub struct Profile {
    symbols: Symbols,
    samples: HashMap<String, u64>,
    total: u64,
}

impl Profile {
    /// An empty one.
    pub fn new(symbols: Symbols) -> Self {
        Self { symbols, ..Self::default() }
    }

    /// Adds a sample.
    pub fn add(&mut self, pc: u64) {
        let place = if pc >> 62 == 0 {
            "user mode".to_owned()
        } else {
            match self.symbols.find(pc) {
                Some(name) => name.to_owned(),
                None => format!("{:#018x}", pc & !(BUCKET - 1)),
            }
        };
        *self.samples.entry(place).or_default() += 1;
        self.total += 1;
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut places: Vec<_> = self.samples.iter().collect();
        places.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        writeln!(f, "{} samples, one every {INTERVAL} instructions", self.total)?;
        for (place, &count) in places.into_iter().take(LINES) {
            writeln!(f, "{:6.2} %  {place}", count as f64 * 100.0 / self.total as f64)?;
        }
        Ok(())
    }
}
