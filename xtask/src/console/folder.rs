//! Where running machines are found: a folder a run, named by its process, with a socket in it.
//!
//! The folders of one user lie in one place that only this user can enter. What a run that was killed
//! has left is removed by whoever looks next.

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags};
use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Names the place of the folders, before the usual one.
pub const VARIABLE: &str = "HONEYCOMB_RUN_DIR";
/// The socket's name in a run's folder, and while it is being made.
const SOCKET: &str = "console";
const SOCKET_MADE: &str = "console.new";

/// Where this user's runs have their folders.
pub fn place() -> PathBuf {
    if let Some(place) = std::env::var_os(VARIABLE) {
        return place.into();
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    match runtime.filter(|folder| folder.is_absolute() && folder.is_dir()) {
        Some(folder) => folder.join("honeycomb"),
        None => {
            let user = rustix::process::geteuid().as_raw();
            std::env::temp_dir().join(format!("honeycomb-{user}"))
        }
    }
}

/// A running machine's folder; gone when this is dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes the folder of this process in `place`, and its socket.
    ///
    /// # Errors
    /// When they can't be made, or the place belongs to somebody else.
    pub fn new(place: &Path) -> Result<(Self, UnixListener)> {
        let private = |path: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        private(place).with_context(|| place.display().to_string())?;
        let owner = fs::metadata(place).with_context(|| place.display().to_string())?;
        if owner.uid() != rustix::process::geteuid().as_raw() || owner.mode() & 0o022 != 0 {
            bail!(
                "{}: others can write there; remove it, or name another folder in {VARIABLE}",
                place.display()
            );
        }
        // Sweeps away what killed runs have left, and perhaps a process of the same number.
        let _ = running(place);
        let path = place.join(std::process::id().to_string());
        let _ = fs::remove_dir_all(&path);
        private(&path).with_context(|| path.display().to_string())?;
        let folder = Self { path };
        let listener = folder.listen().with_context(|| folder.path.display().to_string())?;
        Ok((folder, listener))
    }

    fn listen(&self) -> Result<UnixListener> {
        let open = open(&self.path)?;
        let listener = UnixListener::bind(through(&open, SOCKET_MADE))?;
        listener.set_nonblocking(true)?;
        // Under its name it listens already: who finds it dead may remove it.
        fs::rename(self.path.join(SOCKET_MADE), self.path.join(SOCKET))?;
        Ok(listener)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The path of a file through its open folder: the address of a socket has room for about a hundred bytes.
fn through(folder: &OwnedFd, name: &str) -> PathBuf {
    Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name)
}

fn open(folder: &Path) -> std::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(folder, flags, Mode::empty())?)
}

/// A run that answers.
#[derive(Debug)]
pub struct Run {
    /// Its folder.
    pub path: PathBuf,
    /// A connection to it.
    pub socket: UnixStream,
}

/// Connects to the run whose folder this is; `None`: it does not run (any more), and its folder has
/// been removed.
///
/// # Errors
/// When the folder can't be used.
pub fn connect(path: &Path) -> Result<Option<Run>> {
    let open = match open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| path.display().to_string())?,
    };
    match UnixStream::connect(through(&open, SOCKET)) {
        Ok(socket) => Ok(Some(Run { path: path.to_path_buf(), socket })),
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused => {
                let _ = fs::remove_dir_all(path);
                Ok(None)
            }
            ErrorKind::NotFound => {
                // A run that is starting, or one that was killed then.
                let name = path.file_name().and_then(|name| name.to_str());
                let id = name.and_then(|name| name.parse().ok());
                let gone = id.and_then(rustix::process::Pid::from_raw).is_some_and(|id| {
                    rustix::process::test_kill_process(id) == Err(rustix::io::Errno::SRCH)
                });
                if gone {
                    let _ = fs::remove_dir_all(path);
                }
                Ok(None)
            }
            _ => Err(error).with_context(|| path.display().to_string()),
        },
    }
}

/// All running machines of `place`, oldest process number first.
///
/// # Errors
/// When the place can't be read.
pub fn running(place: &Path) -> Result<Vec<Run>> {
    let entries = match fs::read_dir(place) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| place.display().to_string())?,
    };
    let mut numbered: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect();
    numbered.sort();
    let mut runs = Vec::new();
    for (_, path) in numbered {
        runs.extend(connect(&path)?);
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_found_while_it_lives() {
        let place = tempfile::tempdir().unwrap();
        // A place of a length that no socket's address has room for.
        let place = place.path().join("x".repeat(200));
        assert!(running(&place).unwrap().is_empty());
        let (folder, listener) = Folder::new(&place).unwrap();
        let found = running(&place).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, place.join(std::process::id().to_string()));
        drop(listener);
        assert!(running(&place).unwrap().is_empty(), "nobody listens");
        assert!(!found[0].path.exists(), "what is stale is removed");
        drop(folder);
    }

    #[test]
    fn what_killed_runs_leave_is_removed_and_what_is_starting_is_not() {
        let place = tempfile::tempdir().unwrap();
        let left = place.path().join("4194305");
        let starting = place.path().join(std::process::id().to_string());
        let other = place.path().join("notes");
        for path in [&left, &starting, &other] {
            fs::create_dir(path).unwrap();
        }
        assert!(running(place.path()).unwrap().is_empty());
        assert!(!left.exists() && starting.exists() && other.exists());
    }

    #[test]
    fn a_place_that_others_can_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = Folder::new(place.path()).unwrap_err().to_string();
        assert!(error.contains("others can write there; remove it, or name another"), "{error}");
    }
}
