//! Finds the current versions of a group's packages: when the lock file is renewed, and when the
//! mirror has dropped a pinned version.

use super::apt::Apt;
use super::cache::Store;
use super::fetch::{self, Failure, Plan};
use super::lock::{Artefact, Group};
use super::sources::Mirror;
use super::unpack;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How a group is found in the archive.
struct Recipe {
    /// Architecture of its packages.
    arch: &'static str,
    /// What apt is asked for.
    roots: &'static [&'static str],
    /// Packages whose name begins so are the group itself; the first comes first.
    own: &'static [&'static str],
    /// Programs that show which libraries are really loaded.
    programs: &'static [&'static str],
}

/// The recipe of a group.
fn recipe(group: Group) -> Recipe {
    match group {
        // Debian keeps a compiler new enough for browsers in its security suite.
        Group::Compiler => Recipe {
            arch: "amd64",
            roots: &["rustc-web", "rust-web-src"],
            own: &["rustc-web", "rust-web-src", "libstd-rust-web", "libllvm"],
            programs: &["usr/bin/rustc"],
        },
        Group::Qemu => Recipe {
            arch: "amd64",
            roots: &[
                "qemu-system-mips/bookworm-backports",
                "qemu-system-data/bookworm-backports",
                "qemu-system-common/bookworm-backports",
            ],
            own: &["qemu-system-mips", "qemu-system-data"],
            programs: &["usr/bin/qemu-system-mips64", "usr/bin/qemu-system-mips64el"],
        },
        Group::Linux => Recipe {
            arch: "mips64el",
            roots: &["linux-image-5kc-malta"],
            // Its name carries the kernel's version; the root is only a pointer to it.
            own: &["linux-image-6"],
            programs: &[],
        },
        Group::Busybox => Recipe {
            arch: "mips64el",
            roots: &["busybox-static"],
            own: &["busybox-static"],
            programs: &[],
        },
        Group::Debian => Recipe {
            arch: "mips64el",
            roots: &["python3-minimal", "coreutils"],
            // The interpreter's name carries its version; of coreutils' libraries, only those of the programs
            // that are unpacked.
            own: &[
                "python3.",
                "libpython3.",
                "python3-minimal",
                "coreutils",
                "libc6",
                "libexpat1",
                "libgmp10",
                "libssl3",
                "zlib1g",
            ],
            programs: &[],
        },
    }
}

/// The current artefacts of a group, downloaded and measured. An artefact that the lock file has
/// already is taken over as it stands there.
///
/// # Errors
/// The archive can't be reached or has no such packages, or there is no room.
pub fn group(store: &Store, group: Group, mirror: &Mirror) -> Result<Vec<Artefact>> {
    let recipe = recipe(group);
    let apt = Apt::new(store, recipe.arch, mirror)?;
    let rank =
        |artefact: &Artefact| recipe.own.iter().position(|name| artefact.name.starts_with(name));
    let mut found = apt.resolve(recipe.roots)?;
    found.retain(|artefact| rank(artefact).is_some() || !recipe.programs.is_empty());
    found.sort_by_key(|one| (rank(one).unwrap_or(usize::MAX), one.name.clone()));
    if !found.iter().any(|artefact| rank(artefact) == Some(0)) {
        bail!("{} has no {}* for {}", mirror.main, recipe.own[0], recipe.arch);
    }

    let plan = Plan::new(store, found.iter().map(|one| (group, one)).collect(), 0)?;
    plan.check_room(store.dir(), fetch::free_space(store.dir())?)?;
    match fetch::download(store, std::slice::from_ref(mirror), &plan) {
        Ok(()) => {}
        Err(Failure::Other(error)) => return Err(error),
        Err(Failure::Dropped(_, uri)) => {
            bail!("{uri} is in the mirror's index but not there: try later")
        }
    }

    let scratch = store.temporary().join("renew");
    let own = scratch.join("own");
    for artefact in &mut found {
        let file = store.download(artefact);
        let into =
            if rank(artefact).is_some() { own.clone() } else { scratch.join(&artefact.name) };
        let before = disk_usage(&into)?;
        if rank(artefact).is_none() {
            // Known to be a library before it is known which: so that only those are unpacked.
            artefact.sonames = sonames(&file)?;
            if artefact.sonames.is_empty() {
                continue;
            }
        }
        unpack::unpack(group, artefact, &file, &into)?;
        artefact.unpacked = disk_usage(&into)? - before;
    }
    let loaded = loaded_libraries(&scratch, &own, &found, recipe.programs)?;
    found.retain(|artefact| {
        rank(artefact).is_some() || artefact.sonames.iter().any(|name| loaded.contains(name))
    });
    for artefact in &mut found {
        // Others of a package are of no matter: the host must have what is loaded.
        artefact.sonames.retain(|name| loaded.contains(name));
        if let Some(known) = store.pinned(group).iter().find(|one| one.sha256 == artefact.sha256) {
            *artefact = known.clone();
        }
    }
    std::fs::remove_dir_all(&scratch)
        .with_context(|| format!("cannot remove {}", scratch.display()))?;
    Ok(found)
}

/// The shared libraries that a package says it has (deb-shlibs(5)).
fn sonames(file: &Path) -> Result<Vec<String>> {
    let out = Command::new("dpkg-deb")
        .arg("--info")
        .arg(file)
        .arg("shlibs")
        .output()
        .context("cannot run dpkg-deb: install dpkg")?;
    // A package without shared libraries has no such list, which dpkg-deb takes for an error.
    Ok(parse_shlibs(&String::from_utf8_lossy(&out.stdout)))
}

/// Parses `[TYPE:] LIBRARY VERSION DEPENDENCY…` lines.
fn parse_shlibs(text: &str) -> Vec<String> {
    let mut found: Vec<String> = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.contains("udeb:"))
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (library, version) = (words.next()?, words.next()?);
            // Either libNAME.so.VERSION or libNAME-VERSION.so: the first is nearly all of them.
            Some(format!("{library}.so.{version}"))
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

/// The names of the libraries that programs load, as the dynamic loader finds them.
fn loaded_libraries(
    scratch: &Path,
    own: &Path,
    found: &[Artefact],
    programs: &[&str],
) -> Result<Vec<String>> {
    let roots = found.iter().map(|one| scratch.join(&one.name)).chain([own.to_owned()]);
    let path: Vec<String> = roots
        .flat_map(|root| ["usr/lib", "lib"].map(|lib| root.join(lib).join("x86_64-linux-gnu")))
        .filter(|dir| dir.is_dir())
        .map(|dir| dir.display().to_string())
        .collect();
    let mut loaded = Vec::new();
    for program in programs {
        let out = Command::new("/lib64/ld-linux-x86-64.so.2")
            .arg("--library-path")
            .arg(path.join(":"))
            .arg("--list")
            .arg(own.join(program))
            .output()
            .context("cannot run the dynamic loader")?;
        let text = String::from_utf8_lossy(&out.stdout);
        if !out.status.success() || text.contains("not found") {
            bail!("{program} lacks libraries that its packages don't depend on: {}", text.trim());
        }
        loaded.extend(text.lines().filter_map(|l| l.split_whitespace().next()).map(str::to_owned));
    }
    Ok(loaded)
}

/// Bytes of disk that the files below a folder take, in blocks of 4 KB.
fn disk_usage(folder: &Path) -> Result<u64> {
    let mut total = 0;
    let mut open: Vec<PathBuf> = if folder.exists() { vec![folder.to_owned()] } else { Vec::new() };
    while let Some(dir) = open.pop() {
        let blame = || format!("cannot read {}", dir.display());
        for entry in std::fs::read_dir(&dir).with_context(blame)? {
            let entry = entry.with_context(blame)?;
            let meta = entry.metadata().with_context(blame)?;
            total += meta.len().next_multiple_of(4096);
            if meta.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packages_list_of_libraries_is_read() {
        let text = "libfdt 1 libfdt1 (>= 1.6.1)\nudeb: libfdt 1 libfdt1-udeb\n# x\nlibLLVM 22.1 libllvm22\n";
        assert_eq!(parse_shlibs(text), ["libLLVM.so.22.1", "libfdt.so.1"]);
        assert_eq!(parse_shlibs(""), [""; 0]);
    }

    #[test]
    fn disk_usage_counts_blocks() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(disk_usage(&dir.path().join("none")).unwrap(), 0);
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/file"), [0; 4097]).unwrap();
        let sub = dir.path().join("sub").metadata().unwrap().len().next_multiple_of(4096);
        assert_eq!(disk_usage(dir.path()).unwrap(), sub + 8192);
    }
}
