//! Downloads package files into the cache: says first what, how much and where to, checks that
//! there is room, shows progress, and believes nothing but the SHA-256.

use super::cache::Store;
use super::lock::{Artefact, Group, hex};
use super::sources::{Mirror, VARIABLE};
use anyhow::{Context, Result, anyhow, bail};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// apt's own fetcher: knows apt's proxies and credentials, resumes, and checks the hash itself.
pub const APT_HELPER: &str = "/usr/lib/apt/apt-helper";

/// What could not be fetched, and why.
#[derive(Debug)]
pub enum Failure {
    /// No mirror has a file of the group any more.
    Dropped(Group, String),
    /// Anything else, with its remedy.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// A number of bytes for people.
pub fn size_text(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit after the point")]
    let in_units = |unit: f64| bytes as f64 / unit;
    match bytes {
        0..100_000 => format!("{:.0} kB", in_units(1e3)),
        100_000..10_000_000_000 => format!("{:.1} MB", in_units(1e6)),
        _ => format!("{:.1} GB", in_units(1e9)),
    }
}

/// What a set-up is about to do.
#[derive(Debug)]
pub struct Plan<'a> {
    /// What to unpack, each with its group.
    pub items: Vec<(Group, &'a Artefact)>,
    /// Which of them have to be downloaded: indices into `items`.
    pub downloads: Vec<usize>,
    /// Bytes that will be made from what is unpacked.
    pub derived: u64,
}

impl<'a> Plan<'a> {
    /// Looks at what is there. A package file that is not what it should be is named and removed.
    ///
    /// # Errors
    /// A damaged file can't be removed.
    pub fn new(store: &Store, items: Vec<(Group, &'a Artefact)>, derived: u64) -> Result<Self> {
        let mut downloads: Vec<usize> = Vec::new();
        for (index, (_, artefact)) in items.iter().enumerate() {
            let seen = downloads.iter().any(|other| items[*other].1.sha256 == artefact.sha256);
            if !seen && !is_downloaded(store, artefact)? {
                downloads.push(index);
            }
        }
        Ok(Self { items, downloads, derived })
    }

    /// Bytes to download.
    pub fn download_size(&self) -> u64 {
        self.downloads.iter().map(|index| self.items[*index].1.size).sum()
    }

    /// Bytes of disk that are needed in all.
    pub fn disk_size(&self) -> u64 {
        let unpacked: u64 = self.items.iter().map(|(_, artefact)| artefact.unpacked).sum();
        self.download_size() + unpacked + self.derived
    }

    /// What is said before anything is done.
    pub fn announcement(&self, into: &Path, free: u64, from: &str) -> String {
        let mut text = format!("set-up into {}", into.display());
        if self.downloads.is_empty() {
            text.push_str(", from what is downloaded already\n");
        } else {
            writeln!(text, ", downloads from {from}:").expect("a String takes everything");
            for index in &self.downloads {
                let (group, artefact) = &self.items[*index];
                let title = format!("{} {}", artefact.name, artefact.version);
                writeln!(text, "  {group:<9} {title:<58} {:>9}", size_text(artefact.size))
                    .expect("a String takes everything");
            }
        }
        write!(
            text,
            "{} to download, {} of disk needed, {} free",
            size_text(self.download_size()),
            size_text(self.disk_size()),
            size_text(free)
        )
        .expect("a String takes everything");
        text
    }

    /// Refuses to begin what can't end.
    ///
    /// # Errors
    /// There is less room than is needed.
    pub fn check_room(&self, into: &Path, free: u64) -> Result<()> {
        if self.disk_size() > free {
            bail!(
                "{}: {} needed, {} free; make room there, or set HONEYCOMB_CACHE to a folder on \
                 another disk",
                into.display(),
                size_text(self.disk_size()),
                size_text(free)
            );
        }
        Ok(())
    }
}

/// Bytes free for this user on the disk of a folder.
///
/// # Errors
/// The folder can't be looked at.
pub fn free_space(folder: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(folder)
        .with_context(|| format!("cannot tell how much is free in {}", folder.display()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The SHA-256 of a file in hexadecimal digits.
///
/// # Errors
/// It can't be read.
pub fn sha256_of(path: &Path) -> Result<String> {
    let blame = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(blame)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).with_context(blame)? {
            0 => return Ok(hex(&hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// Whether a package file is in the cache and is what it should be; a damaged one is named and
/// removed.
fn is_downloaded(store: &Store, artefact: &Artefact) -> Result<bool> {
    let file = store.download(artefact);
    if !file.exists() {
        return Ok(false);
    }
    if sha256_of(&file)? == artefact.sha256 {
        return Ok(true);
    }
    eprintln!("{} is damaged (its SHA-256 is another): fetching it again", file.display());
    std::fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    Ok(false)
}

/// Downloads what a plan lacks.
///
/// # Errors
/// The first file that can't be had, with the reason.
pub fn download(store: &Store, mirrors: &[Mirror], plan: &Plan<'_>) -> Result<(), Failure> {
    let count = plan.downloads.len();
    for (done, index) in plan.downloads.iter().enumerate() {
        let (group, artefact) = plan.items[*index];
        let title = format!("[{}/{count}] {}", done + 1, artefact.name);
        let progress = Progress::new(title, artefact.size);
        if let Some(uri) = one(store, mirrors, artefact, &progress)? {
            return Err(Failure::Dropped(group, uri));
        }
    }
    Ok(())
}

/// One line a file: rewritten while it grows on a terminal, printed once elsewhere.
struct Progress {
    title: String,
    size: u64,
    start: Instant,
    live: bool,
}

impl Progress {
    fn new(title: String, size: u64) -> Self {
        let live = std::io::stderr().is_terminal();
        Self { title, size, start: Instant::now(), live }
    }

    fn show(&self, have: u64) {
        if self.live {
            eprint!("\r{} {} of {}\x1b[K", self.title, size_text(have), size_text(self.size));
            let _ = std::io::stderr().flush();
        }
    }

    fn end(&self) {
        let clear = if self.live { "\r\x1b[K" } else { "" };
        let seconds = self.start.elapsed().as_secs_f64();
        eprintln!("{clear}{} {} in {seconds:.1} s", self.title, size_text(self.size));
    }
}

/// Downloads one package file from the first mirror that has it. Returns where it was looked for if
/// none has it.
fn one(
    store: &Store,
    mirrors: &[Mirror],
    artefact: &Artefact,
    progress: &Progress,
) -> Result<Option<String>> {
    let partial = store.dir().join("downloads/partial").join(artefact.file_name());
    let mut dropped = Vec::new();
    let mut other = None;
    for mirror in mirrors {
        let uri = format!("{}/{}", mirror.top(&artefact.suite), artefact.path);
        // Once more after a mismatch: what was resumed may have been the damaged half.
        for last in [false, true] {
            match transfer(&uri, &partial, artefact, progress) {
                Ok(true) if sha256_of(&partial)? == artefact.sha256 => {
                    let file = store.download(artefact);
                    std::fs::rename(&partial, &file)
                        .with_context(|| format!("cannot write {}", file.display()))?;
                    progress.end();
                    return Ok(None);
                }
                Ok(true) => {
                    remove(&partial)?;
                    if last {
                        other = Some(anyhow!(
                            "{uri} is not the file that packages.lock names (its SHA-256 is \
                             another): try later, or set {VARIABLE} to another mirror"
                        ));
                    }
                }
                Ok(false) => {
                    dropped.push(uri);
                    break;
                }
                Err(error) => {
                    other = Some(error);
                    break;
                }
            }
        }
    }
    other.map_or_else(|| Ok(Some(dropped.join(", "))), Err)
}

/// Removes a file if it is there.
fn remove(file: &Path) -> Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", file.display()))
        }
        _ => Ok(()),
    }
}

/// Brings one file here, whatever its contents; false if the mirror has none.
fn transfer(uri: &str, to: &Path, artefact: &Artefact, progress: &Progress) -> Result<bool> {
    if let Some(path) = uri.strip_prefix("file:") {
        // A local mirror: apt would only make a link to it.
        let path = PathBuf::from(format!("/{}", path.trim_start_matches('/')));
        if !path.exists() {
            return Ok(false);
        }
        std::fs::copy(&path, to).with_context(|| format!("cannot copy {}", path.display()))?;
        return Ok(true);
    }
    let have = || to.metadata().map_or(0, |meta| meta.len());
    if have() == artefact.size && sha256_of(to)? == artefact.sha256 {
        return Ok(true);
    }
    if have() >= artefact.size {
        remove(to)?;
    }
    let mut apt = Command::new(APT_HELPER)
        // The cache is the user's own: apt's sandbox user could not write there.
        .args(["-o", "APT::Sandbox::User=root", "download-file"])
        .args([uri, &to.to_string_lossy(), &format!("SHA256:{}", artefact.sha256)])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {APT_HELPER}"))?;
    let status = loop {
        if let Some(status) = apt.try_wait().context("cannot wait for apt")? {
            break status;
        }
        progress.show(have());
        std::thread::sleep(Duration::from_millis(50));
    };
    if status.success() {
        return Ok(true);
    }
    let mut said = String::new();
    if let Some(mut stderr) = apt.stderr.take() {
        stderr.read_to_string(&mut said).context("cannot read apt's message")?;
    }
    // What apt refused it has renamed; it is of no use for resuming.
    let mut failed = to.as_os_str().to_owned();
    failed.push(".FAILED");
    let failed = PathBuf::from(failed);
    if failed.exists() {
        std::fs::rename(&failed, to)
            .with_context(|| format!("cannot rename {}", failed.display()))?;
        return Ok(true);
    }
    match judge(&said) {
        Some(error) => Err(error),
        None => Ok(false),
    }
}

/// What apt's message means: none if the mirror has no such file.
fn judge(said: &str) -> Option<anyhow::Error> {
    let line = said.lines().find(|line| line.starts_with("E: ")).unwrap_or("no message");
    if said.contains("404  Not Found") || said.contains("410  Gone") {
        return None;
    }
    let line = line.trim_start_matches("E: ");
    let remedy = if said.contains("No space left") {
        "make room, or set HONEYCOMB_CACHE to a folder on another disk".to_owned()
    } else {
        format!("check the network and apt's proxy settings, or set {VARIABLE} to another mirror")
    };
    Some(anyhow!("{line}; {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::super::cache::tests::store;
    use super::super::lock::tests::artefact;
    use super::*;

    /// A local mirror with one package file of these contents, and its artefact.
    fn mirror(contents: &[u8]) -> (tempfile::TempDir, Vec<Mirror>, Artefact) {
        let dir = tempfile::tempdir().unwrap();
        let mut one = artefact("one", '0');
        one.sha256 = hex(&Sha256::digest(contents));
        one.size = contents.len() as u64;
        let file = dir.path().join(&one.path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, contents).unwrap();
        let top = format!("file:{}", dir.path().display());
        let mirror = Mirror {
            main: top.clone(),
            security: top,
            keyrings: Vec::new(),
            said_by: "a test".into(),
        };
        (dir, vec![mirror], one)
    }

    fn fetch(store: &Store, mirrors: &[Mirror], one: &Artefact) -> Result<(), Failure> {
        let plan = Plan::new(store, vec![(Group::Qemu, one)], 0)?;
        download(store, mirrors, &plan)
    }

    #[test]
    fn a_file_is_fetched_once() {
        let (_cache, store) = store(&[]);
        let _guard = store.change().unwrap();
        let (mirror_dir, mirrors, one) = mirror(b"package");
        fetch(&store, &mirrors, &one).unwrap();
        assert_eq!(std::fs::read(store.download(&one)).unwrap(), b"package");
        drop(mirror_dir);
        fetch(&store, &mirrors, &one).unwrap();
    }

    #[test]
    fn a_damaged_file_in_the_cache_is_fetched_again() {
        let (_cache, store) = store(&[]);
        let _guard = store.change().unwrap();
        let (_mirror_dir, mirrors, one) = mirror(b"package");
        std::fs::write(store.download(&one), b"pack\0ge").unwrap();
        fetch(&store, &mirrors, &one).unwrap();
        assert_eq!(std::fs::read(store.download(&one)).unwrap(), b"package");
    }

    #[test]
    fn a_corrupted_download_is_refused_by_name() {
        let (_cache, store) = store(&[]);
        let _guard = store.change().unwrap();
        let (mirror_dir, mirrors, one) = mirror(b"package");
        std::fs::write(mirror_dir.path().join(&one.path), b"virus!!").unwrap();
        let Err(Failure::Other(error)) = fetch(&store, &mirrors, &one) else {
            panic!("a corrupted download was taken")
        };
        let error = format!("{error:#}");
        assert!(error.contains(&one.path) && error.contains(VARIABLE), "{error}");
        assert!(!store.download(&one).exists());
    }

    #[test]
    fn a_second_mirror_is_asked_and_a_dropped_file_is_told_from_a_failure() {
        let (_cache, store) = store(&[]);
        let _guard = store.change().unwrap();
        let (_full, full, one) = mirror(b"package");
        let (empty_dir, empty, _) = mirror(b"package");
        std::fs::remove_file(empty_dir.path().join(&one.path)).unwrap();
        let Err(Failure::Dropped(Group::Qemu, uri)) = fetch(&store, &empty, &one) else {
            panic!("a file that is not there was found")
        };
        assert!(uri.contains(&one.path), "{uri}");
        fetch(&store, &[empty, full].concat(), &one).unwrap();
    }

    #[test]
    fn apts_messages_are_told_apart() {
        let gone = "E: Failed to fetch http://m/x.deb  404  Not Found [IP: 192.0.2.1 80]\n";
        assert!(judge(gone).is_none());
        let down = "W: x\nE: Failed to fetch http://m/x.deb  Could not resolve 'm'\n";
        let error = judge(down).expect("a failure").to_string();
        assert!(error.contains("Could not resolve") && error.contains(VARIABLE), "{error}");
    }

    #[test]
    fn a_full_disk_is_refused_before_anything_is_fetched() {
        let (_cache, store) = store(&[]);
        let _guard = store.change().unwrap();
        let one = artefact("one", '3');
        let plan = Plan::new(&store, vec![(Group::Qemu, &one)], 500).unwrap();
        assert_eq!((plan.download_size(), plan.disk_size()), (1000, 4500));
        plan.check_room(store.dir(), 4500).unwrap();
        let error = plan.check_room(store.dir(), 4499).unwrap_err().to_string();
        assert!(
            error.contains("4 kB needed, 4 kB free") && error.contains("HONEYCOMB_CACHE"),
            "{error}"
        );
        let text = plan.announcement(Path::new("/cache"), 5_000_000, "this system's apt");
        assert!(text.contains("set-up into /cache, downloads from this system's apt:"), "{text}");
        assert!(text.contains("one 1:2.0+ds-1~bpo12+1") && text.contains("5.0 MB free"), "{text}");
    }

    #[test]
    fn sizes_are_for_people() {
        assert_eq!(size_text(8_840), "9 kB");
        assert_eq!(size_text(905_976), "0.9 MB");
        assert_eq!(size_text(61_976_900_000), "62.0 GB");
    }

    #[test]
    fn free_space_is_that_of_the_folder() {
        assert!(free_space(Path::new("/")).is_ok_and(|free| free > 0));
        assert!(free_space(Path::new("/nowhere")).unwrap_err().to_string().contains("/nowhere"));
    }
}
