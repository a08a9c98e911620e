//! Gets what the project needs and the host lacks: a compiler for the bare machine, the emulator,
//! and the stock guest. Nothing is installed; all goes into the cache (see [`cache`]).

mod apt;
pub mod cache;
mod fetch;
pub mod guest;
pub mod lock;
pub mod qemu;
mod renew;
pub mod root;
mod sources;
pub mod toolchain;
mod unpack;
mod wrapper;

pub use fetch::{free_space, size_text};
pub use qemu::qemu;

use anyhow::{Context, Result, bail};
use cache::Store;
use fetch::{Failure, Plan};
use lock::{Artefact, Group, Lock};
use sources::Mirror;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::{Mutex, PoisonError};

/// Fetches what the project lacks into its own cache, and does only this.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cargo xtask setup                                    all that builds, boots and tests need
  HONEYCOMB_CACHE=/big/disk cargo xtask setup          into another folder
  HONEYCOMB_DEBIAN_MIRROR=URL cargo xtask setup        where the system's apt names no mirror
  cargo xtask setup --update-lock                      pin the mirror's current versions instead")]
pub struct Args {
    /// Write the mirror's current versions into packages.lock.
    #[arg(long)]
    update_lock: bool,
}

/// Something that a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A compiler for the bare machine.
    Compiler,
    /// The emulator.
    Qemu,
    /// The stock guest: kernel and initramfs.
    Guest,
    /// An initramfs for it with programs of Debian's.
    Debian,
}

/// Runs the command.
///
/// # Errors
/// What can't be had, with the remedy.
pub fn main(args: &Args) -> Result<ExitCode> {
    if args.update_lock {
        update_lock()?;
    }
    ensure(&[Need::Compiler, Need::Qemu, Need::Guest, Need::Debian])?;
    guest::debian()?;
    fetch_crates()?;
    println!("everything is there; `cargo xtask doctor` shows it");
    Ok(ExitCode::SUCCESS)
}

/// Makes sure that what a command needs is there: one announcement for all of it. Whatever is
/// there already costs neither network nor time.
///
/// # Errors
/// What can't be had, with the remedy.
pub fn ensure(needs: &[Need]) -> Result<()> {
    let mut groups = Vec::new();
    for need in needs {
        match need {
            Need::Compiler if toolchain::Host::find()?.is_enough() => {}
            Need::Compiler => groups.push(Group::Compiler),
            Need::Qemu if qemu::is_own_preferred() => {}
            Need::Qemu => groups.push(Group::Qemu),
            Need::Guest => groups.extend([Group::Linux, Group::Busybox]),
            Need::Debian => groups.push(Group::Debian),
        }
    }
    provide(&groups).map(|_| ())
}

/// Makes sure that groups are in the cache.
fn provide(groups: &[Group]) -> Result<Store> {
    let store = Store::open()?;
    if groups.iter().all(|group| store.missing(*group).is_empty()) {
        warn_of_substitutes(&store, groups);
        return Ok(store);
    }
    can_use_packages()?;
    let mirrors = sources::mirrors()?;
    let _guard = store.change()?;
    // Somebody else may have been faster.
    let mut store = Store::open()?;
    install_or_renew(&mut store, &mirrors, groups, |store, group| {
        renew::group(store, group, &mirrors[0])
    })?;
    warn_of_substitutes(&store, groups);
    Ok(store)
}

/// Installs groups; where the mirror has dropped a pinned version, what `renew` names stands in for
/// the group from now on. The caller holds the cache.
fn install_or_renew(
    store: &mut Store,
    mirrors: &[Mirror],
    groups: &[Group],
    renew: impl Fn(&Store, Group) -> Result<Vec<Artefact>>,
) -> Result<()> {
    let mut renewed = Vec::new();
    loop {
        match install(store, mirrors, groups) {
            Ok(()) => return Ok(()),
            Err(Failure::Other(error)) => return Err(error),
            Err(Failure::Dropped(group, uri)) if renewed.contains(&group) => {
                bail!("{uri} has just gone from the mirror: try later")
            }
            Err(Failure::Dropped(group, uri)) => {
                eprintln!("{uri} has gone: looking for the current version of {group}");
                renewed.push(group);
                let current = renew(store, group)?;
                store.substitute(group, current)?;
            }
        }
    }
}

/// Downloads and unpacks what is missing of groups. The caller holds the cache.
fn install(store: &Store, mirrors: &[Mirror], groups: &[Group]) -> Result<(), Failure> {
    let items: Vec<_> = groups
        .iter()
        .flat_map(|group| store.missing(*group).into_iter().map(|artefact| (*group, artefact)))
        .collect();
    let derived =
        [(Group::Linux, guest::DERIVED_SIZE), (Group::Debian, guest::debian::DERIVED_SIZE)]
            .iter()
            .filter_map(|(group, size)| groups.contains(group).then_some(size))
            .sum();
    let plan = Plan::new(store, items, derived)?;
    let free = fetch::free_space(store.dir())?;
    let from = format!("{} ({})", mirrors[0].main, mirrors[0].said_by);
    eprintln!("{}", plan.announcement(store.dir(), free, &from));
    plan.check_room(store.dir(), free)?;
    fetch::download(store, mirrors, &plan)?;
    for group in groups {
        let missing: Vec<_> = plan.items.iter().filter(|(of, _)| of == group).collect();
        if missing.is_empty() {
            continue;
        }
        eprintln!("unpacking {group}");
        let own = store.temporary().join(group.name());
        for (_, artefact) in &missing {
            let file = store.download(artefact);
            if artefact.is_library() {
                let into = store.temporary().join(artefact.folder_name());
                unpack::unpack(*group, artefact, &file, &into)?;
                move_to(&into, &store.library_folder(artefact))?;
            } else {
                unpack::unpack(*group, artefact, &file, &own)?;
            }
        }
        // Last, because a group that is there is complete.
        if own.exists() {
            wrapper::write_all(store, *group, &own)?;
            move_to(&own, &store.folder(*group))?;
        }
    }
    Ok(())
}

/// Moves a complete folder to its place, unless that is taken: then by the same.
fn move_to(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        return Ok(());
    }
    let blame = || format!("cannot write {}", to.display());
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent).with_context(blame)?;
    }
    std::fs::rename(from, to).with_context(blame)
}

/// Says in each run that something else runs than what the lock file names, and how to end that.
fn warn_of_substitutes(store: &Store, groups: &[Group]) {
    static SAID: Mutex<Vec<Group>> = Mutex::new(Vec::new());
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    for group in groups.iter().filter(|group| store.is_substituted(**group)) {
        if said.contains(group) {
            continue;
        }
        said.push(*group);
        eprintln!(
            "warning: the mirror has dropped a pinned version of {group}; its current one stands \
             in, and results name it. For packages.lock (`cargo xtask setup --update-lock` writes \
             it):"
        );
        for line in store.changed_lines(*group) {
            eprintln!("  {line}");
        }
    }
}

/// Whether this host can run Debian's packages and get them.
///
/// # Errors
/// Why not, and what to do instead.
fn can_use_packages() -> Result<()> {
    let instead = "instead, `rustup component add rust-src` and have QEMU 10 or newer in PATH, or \
                   use a Debian 12 container: docs/setup.md";
    if std::env::consts::ARCH != "x86_64" || !Path::new("/lib64/ld-linux-x86-64.so.2").exists() {
        bail!(
            "the packages in packages.lock run on x86-64 with glibc, which this host is not; {instead}"
        );
    }
    for tool in ["dpkg-deb", "tar"] {
        if toolchain::find_in_path(tool).is_none() {
            bail!("{tool} is not in PATH; install it, or {instead}");
        }
    }
    if !Path::new(fetch::APT_HELPER).exists() {
        bail!("{} is not here: install apt, or {instead}", fetch::APT_HELPER);
    }
    Ok(())
}

/// Writes the mirror's current versions into the lock file.
fn update_lock() -> Result<()> {
    can_use_packages()?;
    let mirrors = sources::mirrors()?;
    let store = Store::open()?;
    let _guard = store.change()?;
    let mut packages = BTreeMap::new();
    for group in Group::ALL {
        packages.insert(group, renew::group(&store, group, &mirrors[0])?);
    }
    let lock = Lock::new(packages);
    cache::write_atomically(&Lock::path(), lock.text().as_bytes())?;
    eprintln!("wrote {}", Lock::path().display());
    Ok(())
}

/// Gets the crates that the bare-metal build needs, so that it needs no network later: those of the
/// workspace, and those of the library that is built with it.
fn fetch_crates() -> Result<()> {
    let tools = toolchain::toolchain()?;
    for folder in [crate::paths::workspace(), &tools.library] {
        let status = Command::new(&tools.cargo)
            .args(["fetch", "--quiet", "--locked", "--manifest-path"])
            .arg(folder.join("Cargo.toml"))
            .current_dir(folder)
            .env_remove("RUSTC")
            .env("RUSTC_BOOTSTRAP", "1")
            .status()
            .with_context(|| format!("cannot run {}", tools.cargo.display()))?;
        if !status.success() {
            bail!("cannot get the crates of {}: see cargo's message above", folder.display());
        }
    }
    Ok(())
}

/// What ran, for results: compiler, emulator and guest with the versions that were really used.
///
/// # Errors
/// One of them can't be had.
pub fn versions() -> Result<Vec<String>> {
    let guest = guest::debian()?;
    Ok(vec![
        format!("compiler: {}", toolchain::toolchain()?.version),
        format!("emulator: {}", qemu(crate::endian::Endian::default(), None)?.version),
        format!("guest: {}", guest.version),
        format!("guest kernel's segment: SHA-256 {}", guest.segment_sha256),
    ])
}

/// Whether a group is complete in the cache.
pub fn is_cached(group: Group) -> bool {
    Store::open().is_ok_and(|store| store.missing(group).is_empty())
}

/// Whether packages could be fetched from here.
///
/// # Errors
/// Why not, and what to do instead.
pub fn can_fetch() -> Result<()> {
    can_use_packages()?;
    sources::mirrors().map(|_| ())
}

/// The mirrors that packages would be fetched from, and who named them.
///
/// # Errors
/// There is none, with the remedy.
pub fn mirror_names() -> Result<Vec<String>> {
    let mirrors = sources::mirrors()?;
    Ok(mirrors.iter().map(|mirror| format!("{} ({})", mirror.main, mirror.said_by)).collect())
}

/// Whether a file is what it should be.
pub fn is_intact(file: &Path, sha256: &str) -> bool {
    fetch::sha256_of(file).is_ok_and(|sum| sum == sha256)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lock::tests::artefact;

    /// A local mirror that holds real package files, made on the spot.
    struct Archive(tempfile::TempDir);

    impl Archive {
        /// None on a host that has no tools for packages: it never unpacks one either.
        fn new() -> Option<Self> {
            can_use_packages().ok().map(|()| Self(tempfile::tempdir().unwrap()))
        }

        fn mirrors(&self) -> Vec<Mirror> {
            let top = format!("file:{}", self.0.path().display());
            let said_by = "a test".to_owned();
            vec![Mirror { main: top.clone(), security: top, keyrings: Vec::new(), said_by }]
        }

        /// Puts a package with one file into the archive and returns what a lock would say of it.
        fn add(&self, name: &str, version: &str, path: &str) -> Artefact {
            let tree = self.0.path().join("tree");
            let file = tree.join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, format!("{name} {version}\n")).unwrap();
            std::fs::create_dir_all(tree.join("DEBIAN")).unwrap();
            let control = format!(
                "Package: {name}\nVersion: {version}\nArchitecture: amd64\n\
                 Maintainer: none\nDescription: a test\n"
            );
            std::fs::write(tree.join("DEBIAN/control"), control).unwrap();
            let mut one = artefact(name, '0');
            one.version = version.to_owned();
            one.path = format!("pool/{name}_{version}_amd64.deb");
            let deb = self.0.path().join(&one.path);
            std::fs::create_dir_all(deb.parent().unwrap()).unwrap();
            let status = Command::new("dpkg-deb")
                .args(["--build", "--root-owner-group"])
                .args([&tree, &deb])
                .stdout(std::process::Stdio::null())
                .status()
                .unwrap();
            assert!(status.success());
            std::fs::remove_dir_all(tree).unwrap();
            one.size = deb.metadata().unwrap().len();
            one.sha256 = fetch::sha256_of(&deb).unwrap();
            one
        }
    }

    /// A store whose lock names this busybox, and something that is nowhere for the other groups.
    fn store_with(busybox: &Artefact) -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let mut packages: BTreeMap<_, _> =
            Group::ALL.into_iter().map(|group| (group, vec![artefact("none", '1')])).collect();
        packages.insert(Group::Busybox, vec![busybox.clone()]);
        let lock = Lock::new(packages);
        let store = Store::at(dir.path().join("cache"), lock, Default::default()).unwrap();
        (dir, store)
    }

    fn installed(store: &Store) -> String {
        std::fs::read_to_string(store.folder(Group::Busybox).join("bin/busybox")).unwrap()
    }

    #[test]
    fn a_pinned_version_is_installed_and_then_needs_no_mirror() {
        let Some(archive) = Archive::new() else { return };
        let (_dir, mut store) = store_with(&archive.add("busybox", "1.0", "bin/busybox"));
        let _guard = store.change().unwrap();
        let never = |_: &Store, _| -> Result<Vec<Artefact>> { panic!("nothing has gone") };
        let groups = [Group::Busybox];
        install_or_renew(&mut store, &archive.mirrors(), &groups, never).unwrap();
        assert_eq!(installed(&store), "busybox 1.0\n");
        assert!(store.missing(Group::Busybox).is_empty());

        // Unpacked again from the download when the folder is lost.
        let mirrors = archive.mirrors();
        drop(archive);
        std::fs::remove_dir_all(store.folder(Group::Busybox)).unwrap();
        install_or_renew(&mut store, &mirrors, &groups, never).unwrap();
        assert_eq!(installed(&store), "busybox 1.0\n");
    }

    #[test]
    fn a_dropped_version_is_replaced_by_the_current_one() {
        let Some(archive) = Archive::new() else { return };
        let pinned = archive.add("busybox", "1.0", "bin/busybox");
        std::fs::remove_file(archive.0.path().join(&pinned.path)).unwrap();
        let current = archive.add("busybox", "1.1", "bin/busybox");
        let (_dir, mut store) = store_with(&pinned);
        let _guard = store.change().unwrap();
        let renew = |_: &Store, group| {
            assert_eq!(group, Group::Busybox);
            Ok(vec![current.clone()])
        };
        install_or_renew(&mut store, &archive.mirrors(), &[Group::Busybox], renew).unwrap();
        assert_eq!(installed(&store), "busybox 1.1\n");
        assert_eq!(store.changed_lines(Group::Busybox), [current.line()]);
    }

    #[test]
    fn a_version_that_goes_while_it_is_fetched_ends_the_search() {
        let Some(archive) = Archive::new() else { return };
        let gone = artefact("busybox", '5');
        let (_dir, mut store) = store_with(&gone);
        let _guard = store.change().unwrap();
        let renew = |_: &Store, _| Ok(vec![artefact("busybox", '6')]);
        let groups = [Group::Busybox];
        let error = install_or_renew(&mut store, &archive.mirrors(), &groups, renew).unwrap_err();
        assert!(error.to_string().contains("try later"), "{error}");
    }

    #[test]
    fn a_package_that_cannot_be_unpacked_leaves_no_group_behind() {
        let Some(archive) = Archive::new() else { return };
        let mut busybox = archive.add("busybox", "1.0", "bin/busybox");
        let deb = archive.0.path().join(&busybox.path);
        std::fs::write(&deb, "!<arch>\nno package").unwrap();
        busybox.sha256 = fetch::sha256_of(&deb).unwrap();
        let (_dir, mut store) = store_with(&busybox);
        let _guard = store.change().unwrap();
        let never = |_: &Store, _| -> Result<Vec<Artefact>> { panic!("nothing has gone") };
        let groups = [Group::Busybox];
        let error = install_or_renew(&mut store, &archive.mirrors(), &groups, never).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.starts_with("cannot unpack") && error.contains("busybox_1.0"), "{error}");
        assert!(!store.folder(Group::Busybox).exists());
    }
}
