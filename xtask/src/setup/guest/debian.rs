//! The stock guest's kernel with a larger first file system: beside busybox, programs of Debian's with the
//! libraries they load, and a list of commands whose output is known in advance.
//!
//! `programs` at the shell runs the commands; so does `programs` after `--` on the kernel's command line, which
//! then resets the machine.

use super::cpio::Archive;
use super::{Guest, INITRD, initramfs};
use crate::setup::cache::{self, Store};
use crate::setup::fetch::sha256_of;
use crate::setup::lock::{Group, hex};
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Bytes of disk for what is made from the packages, rounded up.
pub const DERIVED_SIZE: u64 = 24_000_000;

/// Changes whenever this code would make another archive from the same files.
const LAYOUT: &str = "1";

/// The commands, and what Python computes for them.
const PROGRAMS: &[u8] = include_bytes!("../../../../tests/guests/debian/programs.sh");
const ARITHMETIC: &[u8] = include_bytes!("../../../../tests/guests/debian/arithmetic.py");

/// What `/init` does with words that the kernel passes on to it.
const COMMANDS: &str = "\
if [ \"$1\" = programs ]; then
    \"$@\"
    reboot -f
fi
";

/// The file beside the archive that holds its SHA-256.
const SUM: &str = "SHA256SUMS";

/// The stock guest with the larger file system, fetched and made if need be.
///
/// # Errors
/// The packages can't be had, or are of another kind.
pub fn debian() -> Result<Guest> {
    let linux = super::linux()?;
    let store = crate::setup::provide(&[Group::Debian])?;
    if look(&store)?.is_none() {
        let _guard = store.change()?;
        // Somebody else may have been faster.
        if look(&store)?.is_none() {
            make(&store)?;
        }
    }
    let initrd = look(&store)?.context("what was just made of Debian's programs is not there")?;
    let programs = store
        .artefacts(Group::Debian)
        .iter()
        .filter(|one| ["python3.", "coreutils"].iter().any(|start| one.name.starts_with(start)));
    let names = programs.map(|one| format!(", {} {}", one.name, one.version));
    Ok(Guest { version: linux.version.clone() + &names.collect::<String>(), initrd, ..linux })
}

/// The archive, if it is there as it was made.
///
/// # Errors
/// The cache can't be read.
pub fn look(store: &Store) -> Result<Option<PathBuf>> {
    let folder = folder(store);
    let file = folder.join(INITRD);
    let Ok(sum) = fs::read_to_string(folder.join(SUM)) else { return Ok(None) };
    if !file.is_file() || sum != sum_line(&sha256_of(&file)?) {
        eprintln!("{} is damaged (its SHA-256 is another): making it again", file.display());
        return Ok(None);
    }
    Ok(Some(file))
}

/// A line as `sha256sum --check` takes it.
fn sum_line(sum: &str) -> String {
    format!("{sum}  {INITRD}\n")
}

/// Where the archive lies.
pub fn folder(store: &Store) -> PathBuf {
    let mut hash = Sha256::new();
    for group in [Group::Busybox, Group::Debian] {
        let path = store.folder(group);
        hash.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update([0]);
    }
    for file in [PROGRAMS, ARITHMETIC] {
        hash.update(Sha256::digest(file));
    }
    let layouts = format!("{}.{LAYOUT}", super::LAYOUT);
    store.dir().join(format!("guest-debian-{}.{layouts}", &hex(&hash.finalize())[..12]))
}

/// Makes the archive. The caller holds the cache.
fn make(store: &Store) -> Result<()> {
    let busybox = store.folder(Group::Busybox).join("bin/busybox");
    let program = fs::read(&busybox).with_context(|| busybox.display().to_string())?;
    let mut archive = initramfs::begin(&program, "/bin:/usr/bin", COMMANDS)
        .with_context(|| format!("cannot use {}", busybox.display()))?;
    tree(&mut archive, &store.folder(Group::Debian), "")?;
    archive.file("bin/programs", 0o755, PROGRAMS);
    archive.file("root/arithmetic.py", 0o644, ARITHMETIC);
    let bytes = archive.finish();

    let temporary = store.temporary().join("debian");
    fs::create_dir_all(&temporary).with_context(|| temporary.display().to_string())?;
    cache::write_atomically(&temporary.join(INITRD), &bytes)?;
    let sum = sum_line(&hex(&Sha256::digest(&bytes)));
    cache::write_atomically(&temporary.join(SUM), sum.as_bytes())?;
    let folder = folder(store);
    let blame = || format!("cannot write {}", folder.display());
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(blame)?;
    }
    fs::rename(&temporary, &folder).with_context(blame)
}

/// Appends all that is in a folder, in the order of names, links as links.
fn tree(archive: &mut Archive, folder: &Path, prefix: &str) -> Result<()> {
    let blame = || format!("cannot read {}: remove it and try again", folder.display());
    let mut entries: Vec<_> =
        fs::read_dir(folder).and_then(Iterator::collect).with_context(blame)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, kind) = (entry.path(), entry.file_type().with_context(blame)?);
        let name = entry.file_name();
        let name = name.to_str().with_context(|| format!("{}: a strange name", path.display()))?;
        let inside = format!("{prefix}{name}");
        if kind.is_dir() {
            archive.directory(&inside, 0o755);
            tree(archive, &path, &format!("{inside}/"))?;
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).with_context(blame)?;
            let target =
                target.to_str().with_context(|| format!("{}: a strange link", path.display()))?;
            archive.link(&inside, target);
        } else {
            let mode = entry.metadata().with_context(blame)?.permissions().mode();
            let permissions = if mode & 0o100 == 0 { 0o644 } else { 0o755 };
            archive.file(&inside, permissions, &fs::read(&path).with_context(blame)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::cpio::tests::read;
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_tree_is_taken_over_with_links_and_permissions() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path();
        fs::create_dir_all(top.join("usr/bin")).unwrap();
        fs::write(top.join("usr/bin/b"), "text").unwrap();
        fs::write(top.join("usr/bin/a"), "program").unwrap();
        fs::set_permissions(top.join("usr/bin/a"), fs::Permissions::from_mode(0o700)).unwrap();
        // It leads nowhere here, and to a file in the guest.
        symlink("/lib/nowhere/ld.so.1", top.join("usr/ld.so.1")).unwrap();
        let mut archive = Archive::default();
        tree(&mut archive, top, "").unwrap();
        let entries = read(&archive.finish());
        assert_eq!(
            entries,
            [
                ("usr".into(), 0o040_755, (0, 0), vec![]),
                ("usr/bin".into(), 0o040_755, (0, 0), vec![]),
                ("usr/bin/a".into(), 0o100_755, (0, 0), b"program".to_vec()),
                ("usr/bin/b".into(), 0o100_644, (0, 0), b"text".to_vec()),
                ("usr/ld.so.1".into(), 0o120_777, (0, 0), b"/lib/nowhere/ld.so.1".to_vec()),
            ]
        );
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = tree(&mut Archive::default(), Path::new("/no/such"), "").unwrap_err();
        assert!(format!("{error:#}").contains("/no/such"), "{error:#}");
    }
}
