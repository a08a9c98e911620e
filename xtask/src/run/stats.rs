//! What the monitor says of a VM when it is asked for its `stats`.

/// A line of it: a name of one or more words, then a number.
pub fn counter(line: &str) -> Option<(String, u64)> {
    let (name, value) = line.trim().rsplit_once("  ")?;
    let value = value.trim().parse().ok()?;
    Some((name.trim().into(), value))
}
