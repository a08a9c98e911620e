//! The lock file: every artefact that set-up may fetch, with version, size and SHA-256.
//!
//! It is the whole of the trust in what is fetched: a file from whatever mirror is used only if its
//! SHA-256 stands here (or, for a version that the mirror has dropped, in the signed metadata of the
//! distribution, in which case the line to write here is shown).

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

/// What set-up provides: each is one folder of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// A Rust compiler with the source of its library.
    Compiler,
    /// The emulator of the machine.
    Qemu,
    /// The stock guest kernel.
    Linux,
    /// The guest's userland.
    Busybox,
    /// Debian's own programs for the guest: a Python, coreutils, and their libraries.
    Debian,
}

impl Group {
    /// All, in the order of the lock file.
    pub const ALL: [Self; 5] =
        [Self::Compiler, Self::Qemu, Self::Linux, Self::Busybox, Self::Debian];

    /// Its name in the lock file and in the cache.
    pub fn name(self) -> &'static str {
        match self {
            Self::Compiler => "compiler",
            Self::Qemu => "qemu",
            Self::Linux => "linux",
            Self::Busybox => "busybox",
            Self::Debian => "debian",
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One Debian package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artefact {
    /// Package name.
    pub name: String,
    /// Package version, with epoch.
    pub version: String,
    /// `amd64`, `mips64el` or `all`.
    pub arch: String,
    /// The suite it comes from, e.g. `bookworm-backports`.
    pub suite: String,
    /// Where it lies below a mirror's top, e.g. `pool/main/…/x_1_amd64.deb`.
    pub path: String,
    /// Bytes to download.
    pub size: u64,
    /// Bytes on disk of the part that is unpacked.
    pub unpacked: u64,
    /// SHA-256 of the package file, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// The shared libraries it brings, if that is all it is wanted for: it is then fetched only
    /// where the host lacks one of them, and unpacked into a folder of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sonames: Vec<String>,
}

impl Artefact {
    /// The version without its epoch: fit for file names and colon-separated search paths.
    pub fn plain_version(&self) -> &str {
        self.version.split_once(':').map_or(self.version.as_str(), |(_, rest)| rest)
    }

    /// The name of the package file in the cache.
    pub fn file_name(&self) -> String {
        format!("{}_{}_{}.deb", self.name, self.plain_version(), self.arch)
    }

    /// The name of its folder in the cache, when it is unpacked into one of its own.
    pub fn folder_name(&self) -> String {
        format!("{}_{}-{}", self.name, self.plain_version(), &self.sha256[..12])
    }

    /// Whether it is a library that the host may already have.
    pub fn is_library(&self) -> bool {
        !self.sonames.is_empty()
    }

    /// Its line in the lock file.
    pub fn line(&self) -> String {
        let mut line = format!(
            "{{ name = {:?}, version = {:?}, arch = {:?}, suite = {:?}, path = {:?}, size = {}, \
             unpacked = {}, sha256 = {:?}",
            self.name,
            self.version,
            self.arch,
            self.suite,
            self.path,
            self.size,
            self.unpacked,
            self.sha256
        );
        if self.is_library() {
            write!(line, ", sonames = {:?}", self.sonames).expect("a String takes everything");
        }
        line + " },"
    }

    /// Checks that nothing in it can lead out of the cache or the mirror, or match any file.
    pub fn check(&self) -> Result<()> {
        let is_plain = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.~:_".contains(c))
        };
        for (key, text) in [
            ("name", &self.name),
            ("version", &self.version),
            ("arch", &self.arch),
            ("suite", &self.suite),
        ] {
            ensure!(is_plain(text), "{key} = {text:?} is not a Debian {key}");
        }
        let inside = self.path.starts_with("pool/") && !self.path.contains("..");
        ensure!(
            inside && self.path.split('/').all(is_plain),
            "path = {:?} is not a path below pool/",
            self.path
        );
        ensure!(
            self.sha256.len() == 64
                && self.sha256.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')),
            "sha256 = {:?} is not 64 lower-case hexadecimal digits",
            self.sha256
        );
        ensure!(self.size > 0, "size = 0");
        ensure!(
            self.sonames.iter().all(|soname| is_plain(soname)),
            "sonames = {:?} are not names of shared libraries",
            self.sonames
        );
        Ok(())
    }
}

/// Identifies a list of artefacts: 12 hexadecimal digits of the SHA-256 over theirs.
pub fn identity(artefacts: &[Artefact]) -> String {
    let mut hash = Sha256::new();
    for artefact in artefacts {
        hash.update(artefact.sha256.as_bytes());
    }
    hex(&hash.finalize())[..12].to_owned()
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

/// A parsed and checked lock file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    version: u32,
    packages: BTreeMap<Group, Vec<Artefact>>,
}

/// The version of the lock file's layout.
const LAYOUT: u32 = 1;

/// What the lock file begins with.
const HEADER: &str = "\
# Every artefact that set-up may fetch. Written by `cargo xtask setup --update-lock`; a file whose
# SHA-256 is not here is not used. docs/setup.md explains the keys.
";

impl Lock {
    /// The lock file's place in the checkout.
    pub fn path() -> PathBuf {
        crate::paths::workspace().join("packages.lock")
    }

    /// A lock of these groups.
    pub fn new(packages: BTreeMap<Group, Vec<Artefact>>) -> Self {
        Self { version: LAYOUT, packages }
    }

    /// Reads and checks a lock file.
    ///
    /// # Errors
    /// One line that names the file, and the line or the artefact that is wrong.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the lock file {}", path.display()))?;
        Self::parse(&text)
            .with_context(|| format!("{}: restore it from version control", path.display()))
    }

    /// Parses and checks the text of a lock file.
    ///
    /// # Errors
    /// One line that says what is wrong, and where.
    pub fn parse(text: &str) -> Result<Self> {
        let lock: Self = toml::from_str(text).map_err(|error| Self::at_line(text, &error))?;
        ensure!(lock.version == LAYOUT, "version = {}: this xtask reads {LAYOUT}", lock.version);
        for group in Group::ALL {
            let artefacts = lock.packages.get(&group).map_or(&[][..], Vec::as_slice);
            if !artefacts.iter().any(|artefact| !artefact.is_library()) {
                bail!("it lists no package for {group}");
            }
            for (index, artefact) in artefacts.iter().enumerate() {
                artefact.check().with_context(|| format!("{group}, {}", artefact.name))?;
                let again = |other: &Artefact| other.name == artefact.name;
                ensure!(!artefacts[..index].iter().any(again), "{group}, {}: twice", artefact.name);
            }
        }
        Ok(lock)
    }

    /// A mistake in a file of TOML, in one line and with its line.
    pub fn at_line(text: &str, error: &toml::de::Error) -> anyhow::Error {
        let line = error.span().map_or(1, |span| {
            1 + text.as_bytes()[..span.start].iter().filter(|byte| **byte == b'\n').count()
        });
        anyhow::anyhow!("line {line}: {}", error.message().replace('\n', " "))
    }

    /// The artefacts of a group.
    pub fn group(&self, group: Group) -> &[Artefact] {
        self.packages.get(&group).map_or(&[], Vec::as_slice)
    }

    /// The text of the lock file: one artefact a line, so that a change shows as its line.
    pub fn text(&self) -> String {
        let mut text = format!("{HEADER}version = {}\n\n[packages]\n", self.version);
        for (group, artefacts) in &self.packages {
            writeln!(text, "{group} = [").expect("a String takes everything");
            for artefact in artefacts {
                writeln!(text, "  {}", artefact.line()).expect("a String takes everything");
            }
            text.push_str("]\n");
        }
        text
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An artefact to build tests from; `sha256` is a repeated digit.
    pub fn artefact(name: &str, digit: char) -> Artefact {
        Artefact {
            name: name.into(),
            version: "1:2.0+ds-1~bpo12+1".into(),
            arch: "amd64".into(),
            suite: "bookworm-backports".into(),
            path: format!("pool/main/x/{name}_2.0+ds-1~bpo12+1_amd64.deb"),
            size: 1000,
            unpacked: 3000,
            sha256: String::from(digit).repeat(64),
            sonames: Vec::new(),
        }
    }

    fn lock() -> Lock {
        let mut library = artefact("libfdt1", '9');
        library.sonames = vec!["libfdt.so.1".into()];
        let mut packages: BTreeMap<_, _> = Group::ALL
            .into_iter()
            .zip(['1', '2', '3', '4', '5'])
            .map(|(group, digit)| (group, vec![artefact(group.name(), digit)]))
            .collect();
        packages.get_mut(&Group::Qemu).unwrap().push(library);
        Lock::new(packages)
    }

    #[test]
    fn text_and_parse_are_inverse() {
        assert_eq!(Lock::parse(&lock().text()).unwrap(), lock());
    }

    #[test]
    fn the_projects_own_lock_file_is_as_this_code_writes_it() {
        let text = std::fs::read_to_string(Lock::path()).unwrap();
        assert_eq!(Lock::parse(&text).unwrap().text(), text);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = lock().text();
        for (from, to, message) in [
            ("version = 1\n", "version = 2\n", "version = 2: this xtask reads 1"),
            ("version = 1\n", "version = \n", "line 3: "),
            ("arch = \"amd64\"", "arch = \"../../x\"", "compiler, compiler: arch = \"../../x\""),
            ("pool/main/x/compiler", "pool/../x", "is not a path below pool/"),
            ("pool/main/x/compiler", "/etc/x", "is not a path below pool/"),
            ("size = 1000", "size = 0", "compiler, compiler: size = 0"),
            ("size = 1000", "sise = 1000", "line 7: "),
            ("\"1111", "\"111X", "is not 64 lower-case hexadecimal digits"),
            ("\"libfdt1\"", "\"qemu\"", "qemu, qemu: twice"),
            ("linux = [", "minix = [", "minix"),
            (", sonames", " sonames", "line 11: "),
        ] {
            assert!(good.contains(from), "{from}");
            let error = format!("{:#}", Lock::parse(&good.replacen(from, to, 1)).unwrap_err());
            assert!(error.contains(message), "{from} → {to}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
        let cut = &good[..good.find("busybox").unwrap()];
        assert!(format!("{:#}", Lock::parse(cut).unwrap_err()).contains("no package for busybox"));
    }

    #[test]
    fn names_in_the_cache_hold_no_colon() {
        let one = artefact("qemu-system-mips", 'a');
        assert_eq!(one.file_name(), "qemu-system-mips_2.0+ds-1~bpo12+1_amd64.deb");
        assert_eq!(one.folder_name(), "qemu-system-mips_2.0+ds-1~bpo12+1-aaaaaaaaaaaa");
    }

    #[test]
    fn the_identity_is_that_of_the_contents() {
        let (a, b) = (artefact("a", '1'), artefact("b", '2'));
        assert_eq!(identity(&[a.clone(), b.clone()]), identity(&[a.clone(), b.clone()]));
        assert_ne!(identity(&[a.clone(), b.clone()]), identity(&[a]));
        assert_eq!(identity(&[b]).len(), 12);
    }
}
