//! The stock guest: Debian's kernel as packaged and unpacked, and a first file system of our own.

pub mod cpio;
pub mod debian;
pub mod initramfs;
pub mod vmlinux;

use super::cache::{self, Store};
use super::fetch::sha256_of;
use super::lock::{Group, hex};
use anyhow::{Context, Result, anyhow};
pub use debian::debian;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Bytes of disk for what is made from the guest's packages, rounded up.
pub const DERIVED_SIZE: u64 = 24_000_000;

/// Changes whenever this code would make other files from the same packages.
const LAYOUT: &str = "2";

/// The stock guest's files.
#[derive(Debug, Clone)]
pub struct Guest {
    /// The kernel as packaged: unpacks itself.
    pub vmlinuz: PathBuf,
    /// The same kernel unpacked: an ELF.
    pub vmlinux: PathBuf,
    /// The first file system: a cpio archive.
    pub initrd: PathBuf,
    /// The packages' names and versions, for results.
    pub version: String,
    /// SHA-256 of the kernel's one segment, which is the packaged payload's.
    pub segment_sha256: String,
}

/// The names of what is made, and of the list of their SHA-256.
const VMLINUX: &str = "vmlinux";
const INITRD: &str = "initramfs.cpio";
const SUMS: &str = "SHA256SUMS";

/// The stock guest, fetched and made if need be. Files that are not what was once made are named
/// and made again.
///
/// # Errors
/// The packages can't be had, or the kernel is of another kind.
pub fn linux() -> Result<Guest> {
    let store = super::provide(&[Group::Linux, Group::Busybox])?;
    if let Some(guest) = look(&store)? {
        return Ok(guest);
    }
    let _guard = store.change()?;
    // Somebody else may have been faster.
    if let Some(guest) = look(&store)? {
        return Ok(guest);
    }
    let vmlinuz = packaged_kernel(&store)?;
    make(&store, &vmlinuz, &store.folder(Group::Busybox).join("bin/busybox"), &folder(&store))?;
    look(&store)?.context("what was just made of the guest's packages is not there")
}

/// The stock guest as far as it is there already: none if something has yet to be made. The
/// packages must be there.
///
/// # Errors
/// The cache can't be read.
pub fn look(store: &Store) -> Result<Option<Guest>> {
    let folder = folder(store);
    let Some(sums) = verified(&folder)? else { return Ok(None) };
    let packages = [Group::Linux, Group::Busybox].map(|group| {
        let package = &store.artefacts(group)[0];
        format!("{} {}", package.name, package.version)
    });
    Ok(Some(Guest {
        vmlinuz: packaged_kernel(store)?,
        vmlinux: folder.join(VMLINUX),
        initrd: folder.join(INITRD),
        version: packages.join(", "),
        segment_sha256: sums.segment,
    }))
}

/// The kernel as packaged.
fn packaged_kernel(store: &Store) -> Result<PathBuf> {
    only_file(&store.folder(Group::Linux).join("boot"), "vmlinuz-")
}

/// Where the files made from the two packages lie.
pub fn folder(store: &Store) -> PathBuf {
    let mut hash = Sha256::new();
    for group in [Group::Linux, Group::Busybox] {
        let path = store.folder(group);
        hash.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update([0]);
    }
    store.dir().join(format!("guest-{}.{LAYOUT}", &hex(&hash.finalize())[..12]))
}

/// The one file in a folder whose name begins so.
fn only_file(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("cannot read {}: remove it and try again", folder.display()))?;
    entries
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .with_context(|| format!("{} has no {prefix}*: remove it and try again", folder.display()))
}

/// The SHA-256 of what was made, as written beside it.
#[derive(Debug, PartialEq, Eq)]
struct Sums {
    vmlinux: String,
    initrd: String,
    segment: String,
}

impl Sums {
    /// Lines as `sha256sum --check` takes them, and the segment's as a comment.
    fn text(&self) -> String {
        format!(
            "# segment {}\n{}  {VMLINUX}\n{}  {INITRD}\n",
            self.segment, self.vmlinux, self.initrd
        )
    }

    /// Reads [`Self::text`].
    fn parse(text: &str) -> Option<Self> {
        let find = |name: &str| {
            let end = format!("  {name}");
            text.lines().find_map(|line| line.strip_suffix(end.as_str())).map(str::to_owned)
        };
        let segment = text.lines().find_map(|line| line.strip_prefix("# segment "))?.to_owned();
        Some(Self { vmlinux: find(VMLINUX)?, initrd: find(INITRD)?, segment })
    }
}

/// The sums of what is in the folder, if all is there and as it was made.
fn verified(folder: &Path) -> Result<Option<Sums>> {
    let Ok(text) = std::fs::read_to_string(folder.join(SUMS)) else { return Ok(None) };
    let Some(sums) = Sums::parse(&text) else { return Ok(None) };
    for (name, sum) in [(VMLINUX, &sums.vmlinux), (INITRD, &sums.initrd)] {
        let file = folder.join(name);
        if !file.is_file() || sha256_of(&file)? != *sum {
            eprintln!("{} is damaged (its SHA-256 is another): making it again", file.display());
            return Ok(None);
        }
    }
    Ok(Some(sums))
}

/// Makes kernel and first file system. The caller holds the cache.
fn make(store: &Store, vmlinuz: &Path, busybox: &Path, folder: &Path) -> Result<()> {
    let read = |path: &Path| {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    eprintln!("unpacking {}", vmlinuz.display());
    let kernel = vmlinux::extract(&read(vmlinuz)?).map_err(|reason| {
        anyhow!("cannot unpack {}: {reason}; it boots as it is with --kernel", vmlinuz.display())
    })?;
    let elf = kernel.wrap();
    let archive = initramfs::build(&read(busybox)?)
        .with_context(|| format!("cannot use {}", busybox.display()))?;
    let sum = |bytes: &[u8]| hex(&Sha256::digest(bytes));
    let sums = Sums { vmlinux: sum(&elf), initrd: sum(&archive), segment: sum(&kernel.image) };

    let temporary = store.temporary().join("guest");
    std::fs::create_dir_all(&temporary)
        .with_context(|| format!("cannot make {}", temporary.display()))?;
    cache::write_atomically(&temporary.join(VMLINUX), &elf)?;
    cache::write_atomically(&temporary.join(INITRD), &archive)?;
    cache::write_atomically(&temporary.join(SUMS), sums.text().as_bytes())?;
    let blame = || format!("cannot write {}", folder.display());
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(blame)?;
    }
    std::fs::rename(&temporary, folder).with_context(blame)
}
