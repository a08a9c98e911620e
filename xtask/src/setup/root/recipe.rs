//! What a root is made of: the file `NAME.lock` beside `NAME.cpio`.

use super::super::lock::{Artefact, Lock};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What somebody asked for, and what that came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    version: u32,
    /// Packages by name.
    pub packages: Vec<String>,
    /// Folders that are laid over them, relative to the file.
    #[serde(default)]
    pub add: Vec<String>,
    /// Patterns of what is left out.
    #[serde(default)]
    pub without: Vec<String>,
    /// The packages and all they depend on.
    pub resolved: Vec<Artefact>,
}

/// The version of the file's layout.
const LAYOUT: u32 = 1;

/// What the file begins with.
const HEADER: &str = "\
# What the initramfs of this name is made of. Written by `cargo xtask root`, which makes the same bytes of it again.
";

impl Recipe {
    /// What somebody asks for; nothing is resolved yet.
    pub fn new(packages: &[String], add: Vec<String>, without: &[String]) -> Self {
        let (packages, without) = (packages.to_vec(), without.to_vec());
        Self { version: LAYOUT, packages, add, without, resolved: Vec::new() }
    }

    /// Whether the same is asked for.
    pub fn asks_the_same(&self, other: &Self) -> bool {
        (&self.packages, &self.add, &self.without) == (&other.packages, &other.add, &other.without)
    }

    /// Reads and checks a file; none if there is none.
    ///
    /// # Errors
    /// One line that names the file and what is wrong in it.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let recipe = Self::parse(&text).with_context(|| {
            format!("{}: restore it, or remove it to have it made anew", path.display())
        })?;
        Ok(Some(recipe))
    }

    /// Reads the text of a file.
    fn parse(text: &str) -> Result<Self> {
        let recipe: Self = toml::from_str(text).map_err(|error| Lock::at_line(text, &error))?;
        ensure!(
            recipe.version == LAYOUT,
            "version = {}: this xtask reads {LAYOUT}",
            recipe.version
        );
        for artefact in &recipe.resolved {
            artefact.check().with_context(|| artefact.name.clone())?;
        }
        Ok(recipe)
    }

    /// The text of the file: one package a line, so that a change shows as its line.
    pub fn text(&self) -> String {
        let mut text =
            format!("{HEADER}version = {}\npackages = {:?}\n", self.version, self.packages);
        for (key, values) in [("add", &self.add), ("without", &self.without)] {
            if !values.is_empty() {
                text += &format!("{key} = {values:?}\n");
            }
        }
        text += "resolved = [\n";
        for artefact in &self.resolved {
            text += &format!("  {}\n", artefact.line());
        }
        text + "]\n"
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::lock::tests::artefact;
    use super::*;

    fn recipe() -> Recipe {
        let words =
            |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let mut recipe = Recipe::new(&words(&["gcc", "make"]), words(&["files"]), &words(&["a/*"]));
        recipe.resolved = vec![artefact("gcc", '1'), artefact("libc6", '2')];
        recipe
    }

    #[test]
    fn text_and_parse_are_inverse() {
        assert_eq!(Recipe::parse(&recipe().text()).unwrap(), recipe());
        let plain = Recipe::new(&[], Vec::new(), &[]);
        assert_eq!(Recipe::parse(&plain.text()).unwrap(), plain);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = recipe().text();
        for (from, to, message) in [
            ("version = 1", "version = 9", "version = 9: this xtask reads 1"),
            ("size = 1000", "size = \"a\"", "line 7: "),
            ("pool/main/x/gcc", "pool/../gcc", "gcc: path"),
            ("packages =", "package =", "line 3: "),
        ] {
            let error = format!("{:#}", Recipe::parse(&good.replacen(from, to, 1)).unwrap_err());
            assert!(error.contains(message) && !error.contains('\n'), "{from}: {error}");
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.lock");
        assert_eq!(Recipe::read(&file).unwrap(), None);
        std::fs::write(&file, "packages").unwrap();
        let error = format!("{:#}", Recipe::read(&file).unwrap_err());
        assert!(error.contains("x.lock: restore it") && error.contains("line 1"), "{error}");
    }
}
