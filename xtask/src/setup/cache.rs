//! The cache: one folder outside the checkout, so that it survives `cargo clean` and is shared by
//! several checkouts.
//!
//! | in it | is |
//! |---|---|
//! | `downloads/` | verified package files |
//! | `GROUP-VERSION-HASH/` | a group's packages, unpacked: complete as soon as it exists |
//! | `library/NAME_VERSION-HASH/` | a shared library that the host lacks |
//! | `guest-HASH/`, `guest-debian-HASH/` | what is made from the guest packages |
//! | `root-HASH/` | an initramfs made of other packages |
//! | `substitutes.toml` | what stands in for versions that the mirror has dropped |
//! | `tmp/` | what is being unpacked; moved to its place when complete |
//! | `lock` | held while the cache is changed |

use super::lock::{Artefact, Group, Lock, identity};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// A group's artefacts that stand in for the lock file's.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Substitute {
    /// Identity of the list in the lock file that it stands in for: void once that changes.
    pinned: String,
    packages: Vec<Artefact>,
}

/// The cache as the lock file of this checkout wants it.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    lock: Lock,
    substitutes: BTreeMap<Group, Substitute>,
    host_libraries: BTreeSet<String>,
}

/// Held while the cache is changed; dropping it lets the next in.
#[derive(Debug)]
pub struct Guard {
    _file: File,
    temporary: PathBuf,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // What can't be removed now is removed by the next.
        let _ = std::fs::remove_dir_all(&self.temporary);
    }
}

impl Store {
    /// Looks at the cache of this user with the lock file of this checkout. Changes nothing.
    ///
    /// # Errors
    /// No place for a cache, or a broken lock file.
    pub fn open() -> Result<Self> {
        Self::at(dir()?, Lock::read(&Lock::path())?, host_libraries())
    }

    /// The cache in a folder, for a lock and a set of libraries that the host has.
    pub(super) fn at(dir: PathBuf, lock: Lock, host_libraries: BTreeSet<String>) -> Result<Self> {
        let file = dir.join("substitutes.toml");
        let substitutes: BTreeMap<Group, Substitute> = match std::fs::read_to_string(&file) {
            Ok(text) => toml::from_str(&text).with_context(|| {
                format!("{} is damaged: remove it and try again", file.display())
            })?,
            Err(_) => BTreeMap::new(),
        };
        let is_valid = |(group, substitute): &(Group, Substitute)| {
            substitute.pinned == identity(lock.group(*group))
        };
        let substitutes = substitutes.into_iter().filter(is_valid).collect();
        Ok(Self { dir, lock, substitutes, host_libraries })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The lock file's own list of a group, whatever stands in for it.
    pub fn pinned(&self, group: Group) -> &[Artefact] {
        self.lock.group(group)
    }

    /// The artefacts of a group: those of the lock file, or what stands in for them.
    pub fn artefacts(&self, group: Group) -> &[Artefact] {
        match self.substitutes.get(&group) {
            Some(substitute) => &substitute.packages,
            None => self.lock.group(group),
        }
    }

    /// Whether another version than the lock file's stands in for a group.
    pub fn is_substituted(&self, group: Group) -> bool {
        self.substitutes.contains_key(&group)
    }

    /// The lines of the lock file that what stands in for a group would change.
    pub fn changed_lines(&self, group: Group) -> Vec<String> {
        let pinned = self.pinned(group);
        self.artefacts(group).iter().filter(|a| !pinned.contains(a)).map(Artefact::line).collect()
    }

    /// Records what stands in for a group from now on.
    ///
    /// # Errors
    /// The cache can't be written.
    pub fn substitute(&mut self, group: Group, packages: Vec<Artefact>) -> Result<()> {
        let pinned = identity(self.lock.group(group));
        self.substitutes.insert(group, Substitute { pinned, packages });
        let text = toml::to_string(&self.substitutes).context("cannot write down a substitute")?;
        write_atomically(&self.dir.join("substitutes.toml"), text.as_bytes())
    }

    /// Where a group is, or will be.
    pub fn folder(&self, group: Group) -> PathBuf {
        let own: Vec<Artefact> =
            self.artefacts(group).iter().filter(|a| !a.is_library()).cloned().collect();
        let version = own.first().map_or("", Artefact::plain_version);
        let layout = super::unpack::LAYOUT;
        self.dir.join(format!("{group}-{version}-{}.{layout}", identity(&own)))
    }

    /// Where a library is, or will be.
    pub fn library_folder(&self, library: &Artefact) -> PathBuf {
        self.dir.join("library").join(library.folder_name())
    }

    /// Where a package file is, or will be.
    pub fn download(&self, artefact: &Artefact) -> PathBuf {
        self.dir.join("downloads").join(artefact.file_name())
    }

    /// A place to make something in before it is moved to where it belongs.
    pub fn temporary(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    /// Whether the host lacks a library.
    fn is_needed(&self, library: &Artefact) -> bool {
        !library.sonames.iter().all(|soname| self.host_libraries.contains(soname))
    }

    /// The artefacts of a group that have yet to be unpacked.
    pub fn missing(&self, group: Group) -> Vec<&Artefact> {
        let complete = self.folder(group).is_dir();
        self.artefacts(group)
            .iter()
            .filter(|artefact| {
                if artefact.is_library() {
                    self.is_needed(artefact) && !self.library_folder(artefact).is_dir()
                } else {
                    !complete
                }
            })
            .collect()
    }

    /// Names of folders in the cache that another version of the lock file has made.
    pub fn strangers(&self) -> Vec<String> {
        let ours: Vec<PathBuf> = Group::ALL.iter().map(|group| self.folder(*group)).collect();
        let guests = [super::guest::folder(self), super::guest::debian::folder(self)];
        let made = |name: &str| {
            let kinds = ["compiler-", "qemu-", "linux-", "busybox-", "debian-", "guest-"];
            kinds.iter().any(|kind| name.starts_with(kind))
        };
        let mut names: Vec<String> = std::fs::read_dir(&self.dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| !ours.contains(&entry.path()) && !guests.contains(&entry.path()))
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| made(name))
            .collect();
        names.sort();
        names
    }

    /// Waits for the right to change the cache, creating it if need be.
    ///
    /// # Errors
    /// The folder can't be made or written.
    pub fn change(&self) -> Result<Guard> {
        let blame = || {
            format!(
                "cannot write the cache {}: make it writable, or set HONEYCOMB_CACHE",
                self.dir.display()
            )
        };
        std::fs::create_dir_all(self.dir.join("downloads/partial")).with_context(blame)?;
        let file = File::create(self.dir.join("lock")).with_context(blame)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                eprintln!("waiting for another set-up that uses {}", self.dir.display());
                file.lock().with_context(blame)?;
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(blame),
        }
        // Only a set-up that was interrupted leaves anything here.
        let temporary = self.temporary();
        if temporary.exists() {
            std::fs::remove_dir_all(&temporary).with_context(blame)?;
        }
        std::fs::create_dir_all(&temporary).with_context(blame)?;
        Ok(Guard { _file: file, temporary })
    }
}

/// Writes a file so that it is seen with its old contents or its new ones.
///
/// # Errors
/// It can't be written.
pub fn write_atomically(path: &Path, contents: &[u8]) -> Result<()> {
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    std::fs::write(&temporary, contents)
        .and_then(|()| std::fs::rename(&temporary, path))
        .inspect_err(|_| {
            // Half of it would only take the room that may be what is missing.
            let _ = std::fs::remove_file(&temporary);
        })
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::StorageFull => anyhow::anyhow!(
                "no space is left for it; make room, or set HONEYCOMB_CACHE to a folder on another disk"
            ),
            _ => error.into(),
        })
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The shared libraries that the host's dynamic loader finds, by name.
fn host_libraries() -> BTreeSet<String> {
    // An ordinary user's PATH often lacks /sbin.
    let listing = ["/sbin/ldconfig", "/usr/sbin/ldconfig", "ldconfig"]
        .iter()
        .find_map(|program| Command::new(program).arg("-p").output().ok());
    listing.map_or_else(BTreeSet::new, |out| parse_ldconfig(&String::from_utf8_lossy(&out.stdout)))
}

/// The names in what `ldconfig -p` prints, of 64-bit x86 libraries.
fn parse_ldconfig(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.trim().split_once(" ("))
        .filter(|(_, rest)| rest.contains("x86-64"))
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[cfg(test)]
pub mod tests {
    use super::super::lock::tests::artefact;
    use super::*;

    /// A store in a temporary folder whose qemu group has a library `libfdt1`.
    pub fn store(host: &[&str]) -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let mut library = artefact("libfdt1", '9');
        library.sonames = vec!["libfdt.so.1".into()];
        let mut packages: BTreeMap<_, _> = Group::ALL
            .into_iter()
            .map(|group| (group, vec![artefact(group.name(), '1')]))
            .collect();
        packages.get_mut(&Group::Qemu).unwrap().push(library);
        let host = host.iter().map(|name| (*name).to_owned()).collect();
        let store = Store::at(dir.path().join("cache"), Lock::new(packages), host).unwrap();
        (dir, store)
    }

    fn names(artefacts: &[&Artefact]) -> Vec<String> {
        artefacts.iter().map(|artefact| artefact.name.clone()).collect()
    }

    #[test]
    fn only_what_is_not_there_is_missing() {
        let (_dir, bare) = store(&[]);
        assert_eq!(names(&bare.missing(Group::Qemu)), ["qemu", "libfdt1"]);
        std::fs::create_dir_all(bare.folder(Group::Qemu)).unwrap();
        assert_eq!(names(&bare.missing(Group::Qemu)), ["libfdt1"]);
        std::fs::create_dir_all(bare.library_folder(&bare.artefacts(Group::Qemu)[1])).unwrap();
        assert_eq!(names(&bare.missing(Group::Qemu)), [""; 0]);
        assert_eq!(names(&bare.missing(Group::Linux)), ["linux"]);
    }

    #[test]
    fn a_library_that_the_host_has_is_not_missing() {
        let (_dir, store) = store(&["libfdt.so.1"]);
        assert_eq!(names(&store.missing(Group::Qemu)), ["qemu"]);
    }

    #[test]
    fn a_substitute_holds_until_the_lock_changes() {
        let (_dir, mut store) = store(&[]);
        let _guard = store.change().unwrap();
        let before = store.folder(Group::Linux);
        let newer = artefact("linux-51", '7');
        store.substitute(Group::Linux, vec![newer.clone()]).unwrap();
        assert_ne!(store.folder(Group::Linux), before);
        assert_eq!(store.changed_lines(Group::Linux), [newer.line()]);

        let same = Store::at(store.dir.clone(), store.lock.clone(), BTreeSet::new()).unwrap();
        assert_eq!(same.artefacts(Group::Linux), [newer]);
        assert!(same.is_substituted(Group::Linux) && !same.is_substituted(Group::Qemu));

        let mut packages: BTreeMap<_, _> =
            Group::ALL.into_iter().map(|g| (g, store.pinned(g).to_vec())).collect();
        packages.insert(Group::Linux, vec![artefact("linux", '8')]);
        let changed = Store::at(store.dir.clone(), Lock::new(packages), BTreeSet::new()).unwrap();
        assert!(!changed.is_substituted(Group::Linux));
    }

    #[test]
    fn an_interrupted_set_up_leaves_nothing_behind() {
        let (_dir, store) = store(&[]);
        drop(store.change().unwrap());
        std::fs::create_dir_all(store.temporary().join("half")).unwrap();
        drop(store.change().unwrap());
        assert!(!store.temporary().join("half").exists());
    }

    #[test]
    fn a_second_set_up_waits() {
        let (_dir, store) = store(&[]);
        let guard = store.change().unwrap();
        let file = File::open(store.dir.join("lock")).unwrap();
        assert!(matches!(file.try_lock(), Err(TryLockError::WouldBlock)));
        drop(guard);
        // Programs that other tests start have the file as well, until they have begun.
        let is_free = |_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            file.try_lock().is_ok()
        };
        assert!((0..1000).any(is_free));
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_named() {
        let (dir, store) = store(&[]);
        std::fs::write(dir.path().join("cache"), "a file").unwrap();
        let error = format!("{:#}", store.change().unwrap_err());
        assert!(error.contains("HONEYCOMB_CACHE"), "{error}");
    }

    #[test]
    fn ldconfig_is_read() {
        let text = "98 libs found in cache `/etc/ld.so.cache'\n\
                    \tlibz.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libz.so.1\n\
                    \tlibold.so.1 (libc6) => /lib/i386-linux-gnu/libold.so.1\n";
        assert_eq!(parse_ldconfig(text), BTreeSet::from(["libz.so.1".to_owned()]));
    }
}
