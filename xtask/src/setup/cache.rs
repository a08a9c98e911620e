//! The cache: one folder outside the checkout, so that it survives `cargo clean` and is shared by
//! several checkouts.

use anyhow::{Result, bail};
use std::path::PathBuf;

/// The cache folder: `$HONEYCOMB_CACHE`, else `honeycomb` in the user's XDG cache. It need not
/// exist yet.
///
/// # Errors
/// Neither variable nor a home folder is set, or the path is relative.
pub fn dir() -> Result<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let dir = match (var("HONEYCOMB_CACHE"), var("XDG_CACHE_HOME"), var("HOME")) {
        (Some(dir), _, _) => dir,
        // The XDG specification: a relative path in the variable is to be ignored.
        (None, Some(xdg), _) if xdg.is_absolute() => xdg.join("honeycomb"),
        (None, _, Some(home)) => home.join(".cache/honeycomb"),
        (None, _, None) => bail!("no place for the cache: set HONEYCOMB_CACHE or HOME"),
    };
    if !dir.is_absolute() {
        bail!("HONEYCOMB_CACHE={}: not an absolute path", dir.display());
    }
    Ok(dir)
}
