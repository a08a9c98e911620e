//! A test's own folder in `target/tests`, and what it writes there for others to read.

use super::folder;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// A folder that is there.
#[derive(Debug)]
pub struct Place(PathBuf);

impl Place {
    /// The folder of this name, made if need be.
    ///
    /// # Errors
    /// It can't be made.
    pub fn new(name: &str) -> Result<Self> {
        let path = folder().join(name);
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The folder's name, which is the test's.
    pub fn name(&self) -> String {
        self.0.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    /// Writes a file into it; its path as it is typed in the checkout.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write(&self, file: &str, text: &str) -> Result<String> {
        let path = self.0.join(file);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(relative(&path))
    }

    /// A folder in it that is empty.
    ///
    /// # Errors
    /// It can't be made, or what was in it can't be removed.
    pub fn empty(&self, name: &str) -> Result<Self> {
        let path = self.0.join(name);
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| path.display().to_string())?;
        }
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

/// A path as it is typed in the checkout.
pub fn relative(path: &Path) -> String {
    path.strip_prefix(crate::paths::workspace()).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_where_they_are_said_to_be() {
        let place = Place::new("self-place").unwrap();
        assert_eq!(place.write("a", "x").unwrap(), "target/tests/self-place/a");
        let inner = place.empty("b").unwrap();
        inner.write("old", "y").unwrap();
        let inner = place.empty("b").unwrap();
        assert_eq!(fs::read_dir(inner.path()).unwrap().count(), 0);
        assert_eq!(fs::read_to_string(place.path().join("a")).unwrap(), "x");
    }
}
