//! A private apt: its own state and cache, the system's mirrors, proxies and keyrings, no root.
//!
//! It is asked only when the lock file is renewed or a pinned version has gone from the mirror:
//! pinned files are fetched without it. What it says comes from metadata whose signature it has
//! checked against Debian's archive keyring; unsigned metadata is refused. Its state is made anew
//! each time and lasts as long as that: it is of no use for another day's question.

use super::cache::Store;
use super::lock::Artefact;
use super::sources::{Mirror, VARIABLE};
use anyhow::{Context, Result, bail};
use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;

/// The suites that artefacts come from. Bookworm is the last release with mips64el.
const SUITES: [&str; 3] = ["bookworm", "bookworm-backports", "bookworm-security"];

/// Packages taken as given: a host that can run cargo has their like, or their programs are not
/// run. Everything else that a package depends on is resolved. A guest has no C library to begin with.
const GIVEN: [&str; 13] = [
    "libc6",
    "libc6-dev",
    "gcc",
    "binutils",
    "dpkg",
    "debconf",
    "adduser",
    "init-system-helpers",
    "media-types",
    "shared-mime-info",
    "kmod",
    "linux-base",
    "initramfs-tools",
];

/// A private apt for packages of one architecture.
#[derive(Debug)]
pub struct Apt {
    config: PathBuf,
    mirror: Mirror,
    arch: String,
}

impl Apt {
    /// Sets one up and reads the mirror's current metadata.
    ///
    /// # Errors
    /// No apt, no keyring, no network, or a signature that does not check.
    pub fn new(store: &Store, arch: &str, mirror: &Mirror) -> Result<Self> {
        let root = store.temporary().join("apt").join(arch);
        for dir in ["lists/partial", "archives/partial"] {
            std::fs::create_dir_all(root.join(dir))
                .with_context(|| format!("cannot make {}", root.join(dir).display()))?;
        }
        let keyring = keyring(mirror)?;
        let mut sources = String::new();
        for suite in SUITES {
            writeln!(
                sources,
                "deb [arch={arch} signed-by={}] {} {suite} main",
                keyring.display(),
                mirror.top(suite)
            )
            .expect("a String takes everything");
        }
        let write = |name: &str, text: &str| {
            let path = root.join(name);
            std::fs::write(&path, text)
                .with_context(|| format!("cannot write {}", path.display()))
                .map(|()| path)
        };
        write("sources.list", &sources)?;
        write("status", &given(arch))?;
        let config =
            write("apt.conf", &(inherited()? + &private(&root.display().to_string(), arch)))?;
        let apt = Self { config, mirror: mirror.clone(), arch: arch.to_owned() };
        apt.run("apt-get", &["-q", "update"])?;
        Ok(apt)
    }

    /// Runs one of apt's programs with this configuration and returns its output.
    fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        let out = Command::new(program)
            .env("APT_CONFIG", &self.config)
            .env("LC_ALL", "C")
            .args(args)
            .output()
            .with_context(|| format!("cannot run {program}: install apt"))?;
        if !out.status.success() {
            let said = String::from_utf8_lossy(&out.stderr);
            let line = said.lines().find(|line| line.starts_with("E: ")).unwrap_or("E: no message");
            bail!(
                "{program} {}: {}; check the network and apt's proxy settings",
                args.join(" "),
                line.trim_start_matches("E: ")
            );
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// The current versions of packages and of all they depend on but for what is given. Sizes on
    /// disk and libraries are still to be measured.
    ///
    /// # Errors
    /// apt finds no solution, or says something unexpected.
    pub fn resolve(&self, roots: &[&str]) -> Result<Vec<Artefact>> {
        let mut args = vec!["-q", "-y", "--print-uris", "--no-install-recommends", "install"];
        args.extend(roots);
        let mut found = Vec::new();
        for line in self.run("apt-get", &args)?.lines().filter(|line| line.starts_with('\'')) {
            let mut one = parse_uri_line(line, &self.mirror)
                .with_context(|| format!("apt printed an unexpected line: {line}"))?;
            one.suite = self.suite(&one)?;
            found.push(one);
        }
        Ok(found)
    }

    /// The index of each suite that has packages of the architecture: the suite's name, and the text.
    ///
    /// # Errors
    /// None has, or what was just fetched can't be read.
    pub fn indices(&self) -> Result<Vec<(String, String)>> {
        let lists = self.config.with_file_name("lists");
        let blame = || format!("cannot read {}", lists.display());
        let mut files: Vec<_> =
            std::fs::read_dir(&lists).and_then(Iterator::collect).with_context(blame)?;
        files.sort_by_key(std::fs::DirEntry::file_name);
        let mut indices = Vec::new();
        for file in files {
            let name = file.file_name();
            if let Some(suite) = suite_of(&name.to_string_lossy()) {
                let text = std::fs::read_to_string(file.path()).with_context(blame)?;
                indices.push((suite.to_owned(), text));
            }
        }
        if indices.is_empty() {
            // apt takes a mirror that does not answer for one that will, some day.
            bail!(
                "{} does not answer, or has no packages for {}; check the network and apt's proxy settings, or set \
                 {VARIABLE} to another mirror",
                self.mirror.main,
                self.arch
            );
        }
        Ok(indices)
    }

    /// The suite that a version is in.
    fn suite(&self, artefact: &Artefact) -> Result<String> {
        let table = self.run("apt-cache", &["madison", &artefact.name])?;
        parse_madison(&table, &artefact.version)
            .with_context(|| format!("no suite has {} {}", artefact.name, artefact.version))
    }
}

/// The keyring to check signatures with.
fn keyring(mirror: &Mirror) -> Result<PathBuf> {
    let usual = ["gpg", "pgp"]
        .map(|e| PathBuf::from(format!("/usr/share/keyrings/debian-archive-keyring.{e}")));
    usual
        .into_iter()
        .chain(mirror.keyrings.iter().cloned())
        .find(|path| path.is_file())
        .context("Debian's archive keyring is not here: install debian-archive-keyring")
}

/// What is taken over from the system's configuration: how to reach the network. The rest (hooks,
/// pins, other sources) is not ours.
fn inherited() -> Result<String> {
    let out = Command::new("apt-config")
        .arg("dump")
        .output()
        .context("cannot run apt-config: install apt")?;
    let dump = String::from_utf8_lossy(&out.stdout);
    let kept =
        |line: &&str| line.starts_with("Acquire::") && !line.starts_with("Acquire::IndexTargets");
    Ok(dump.lines().filter(kept).map(|line| format!("{line}\n")).collect())
}

/// The configuration of our own.
fn private(root: &str, arch: &str) -> String {
    format!(
        "APT::Architecture \"{arch}\";\nAPT::Architectures {{ \"{arch}\"; }};\n\
         APT::Sandbox::User \"root\";\nAcquire::ForceHash \"SHA256\";\n\
         Acquire::Languages \"none\";\nAcquire::GzipIndexes \"false\";\n\
         Acquire::AllowInsecureRepositories \"false\";\n\
         Acquire::AllowDowngradeToInsecureRepositories \"false\";\n\
         APT::Get::AllowUnauthenticated \"false\";\n\
         Dir::Etc::parts \"/dev/null\";\nDir::Etc::main \"/dev/null\";\n\
         Dir::Etc::sourcelist \"{root}/sources.list\";\nDir::Etc::sourceparts \"/dev/null\";\n\
         Dir::Etc::preferences \"/dev/null\";\nDir::Etc::preferencesparts \"/dev/null\";\n\
         Dir::State \"{root}\";\nDir::State::lists \"{root}/lists\";\n\
         Dir::State::status \"{root}/status\";\n\
         Dir::Cache \"{root}\";\nDir::Cache::archives \"{root}/archives\";\n\
         Dir::Cache::pkgcache \"\";\nDir::Cache::srcpkgcache \"\";\n         Dir::Log \"{root}\";\nDebug::NoLocking \"true\";\n"
    )
}

/// A dpkg status file in which exactly the given packages are installed.
fn given(arch: &str) -> String {
    let is_given = |name: &&&str| arch == "amd64" || **name != "libc6";
    GIVEN.iter().filter(is_given).fold(String::new(), |mut text, name| {
        let provides = if *name == "libc6-dev" { "Provides: libc-dev\n" } else { "" };
        write!(
            text,
            "Package: {name}\nStatus: install ok installed\nArchitecture: {arch}\n\
             Version: 9999:0\nMaintainer: none\n{provides}Description: taken as given\n\n"
        )
        .expect("a String takes everything");
        text
    })
}

/// The suite of an index, by the name that apt gives its file.
fn suite_of(file: &str) -> Option<&str> {
    let (_, rest) = file.strip_suffix("_Packages")?.rsplit_once("_dists_")?;
    rest.split('_').next()
}

/// Parses `'URI' FILE SIZE SHA256:HASH`.
fn parse_uri_line(line: &str, mirror: &Mirror) -> Option<Artefact> {
    let (uri, rest) = line.strip_prefix('\'')?.split_once("' ")?;
    let mut words = rest.split_whitespace();
    let file = unescape(words.next()?.strip_suffix(".deb")?);
    let size = words.next()?.parse().ok()?;
    let sha256 = words.next()?.strip_prefix("SHA256:")?.to_owned();
    let mut parts = file.split('_');
    let (name, version, arch) = (parts.next()?, parts.next()?, parts.next()?);
    let path = [&mirror.security, &mirror.main]
        .iter()
        .find_map(|top| uri.strip_prefix(top.as_str())?.strip_prefix('/'))?;
    Some(Artefact {
        name: name.to_owned(),
        version: version.to_owned(),
        arch: arch.to_owned(),
        suite: String::new(),
        path: unescape(path),
        size,
        unpacked: 0,
        sha256,
        sonames: Vec::new(),
    })
}

/// Undoes `%XX`.
fn unescape(text: &str) -> String {
    let mut parts = text.split('%');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if byte.is_ascii() => {
                plain.push(char::from(byte));
                plain.push_str(&part[2..]);
            }
            _ => {
                plain.push('%');
                plain.push_str(part);
            }
        }
    }
    plain
}

/// Finds the suite of a version in `NAME | VERSION | URI SUITE/COMPONENT ARCH Packages` lines.
fn parse_madison(table: &str, version: &str) -> Option<String> {
    table.lines().find_map(|line| {
        let mut columns = line.split('|').map(str::trim);
        let is_it = columns.nth(1)? == version;
        let (_, place) = columns.next()?.split_once(' ')?;
        let (suite, _) = place.split_once('/')?;
        is_it.then(|| suite.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror() -> Mirror {
        Mirror {
            main: "http://m.example/debian".into(),
            security: "http://m.example/debian-security".into(),
            keyrings: Vec::new(),
            said_by: String::new(),
        }
    }

    #[test]
    fn what_apt_would_fetch_is_read() {
        let line = "'http://m.example/debian-security/pool/updates/main/r/r/rust_1.96%2bdfsg1-1%7edeb12u2_amd64.deb' \
                    rust_2%3a1.96+dfsg1-1~deb12u2_amd64.deb 4450500 SHA256:00ff";
        let one = parse_uri_line(line, &mirror()).unwrap();
        assert_eq!(one.name, "rust");
        assert_eq!(one.version, "2:1.96+dfsg1-1~deb12u2");
        assert_eq!(one.arch, "amd64");
        assert_eq!(one.path, "pool/updates/main/r/r/rust_1.96+dfsg1-1~deb12u2_amd64.deb");
        assert_eq!((one.size, one.sha256.as_str()), (4_450_500, "00ff"));
        assert_eq!(parse_uri_line("'http://other/x' x_1_all.deb 1 SHA256:0", &mirror()), None);
    }

    #[test]
    fn the_suite_of_a_version_is_found() {
        let table = " rustc-web | 1.96 | http://m/debian-security bookworm-security/main amd64 Packages\n \
                     rustc-web | 1.85 | http://m/debian bookworm/main amd64 Packages\n";
        assert_eq!(parse_madison(table, "1.85").as_deref(), Some("bookworm"));
        assert_eq!(parse_madison(table, "1.96").as_deref(), Some("bookworm-security"));
        assert_eq!(parse_madison(table, "1.9"), None);
    }

    #[test]
    fn the_suite_of_an_index_is_found() {
        let name = "m.example_debian_dists_bookworm-security_main_binary-mips64el_Packages";
        assert_eq!(suite_of(name), Some("bookworm-security"));
        assert_eq!(suite_of("m.example_debian_dists_bookworm_InRelease"), None);
        assert_eq!(suite_of("lock"), None);
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape("a%2bb%7ec%3ad%"), "a+b~c:d%");
    }

    #[test]
    fn unsigned_metadata_is_refused() {
        if super::super::can_use_packages().is_err() || keyring(&mirror()).is_err() {
            return; // A host on which apt is never run.
        }
        let (_dir, store) = super::super::cache::tests::store(&[]);
        let _guard = store.change().unwrap();
        let archive = tempfile::tempdir().unwrap();
        for suite in SUITES {
            let dist = archive.path().join("dists").join(suite);
            std::fs::create_dir_all(&dist).unwrap();
            std::fs::write(dist.join("Release"), format!("Suite: {suite}\n")).unwrap();
        }
        let top = format!("file:{}", archive.path().display());
        let mirror = Mirror { main: top.clone(), security: top, ..mirror() };
        let error = format!("{:#}", Apt::new(&store, "amd64", &mirror).unwrap_err());
        assert!(error.contains("is not signed"), "{error}");
    }
}
