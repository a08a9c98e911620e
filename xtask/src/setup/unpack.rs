//! Unpacks package files, without installing anything.

use super::lock::{Artefact, Group};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::{Command, Stdio};

/// Changes whenever [`wanted`] or the scripts beside it do, so that what was unpacked before is not
/// taken for it.
pub const LAYOUT: &str = "2";

/// The part of a package that is unpacked, as arguments to tar.
fn wanted(group: Group, artefact: &Artefact) -> &'static [&'static str] {
    if artefact.is_library() {
        return &["--exclude=./usr/share"];
    }
    match (group, artefact.name.as_str()) {
        // The package carries the source of the whole compiler: nine tenths are of no use here.
        (Group::Compiler, "rust-web-src") => &["./usr/src/rustc-*/library", "./usr/lib/rustlib"],
        (Group::Compiler, _) => &["--exclude=./usr/share"],
        (Group::Qemu, "qemu-system-mips") => &["./usr/bin/qemu-system-mips64*"],
        (Group::Qemu, "qemu-system-data") => &["./usr/share/qemu"],
        (Group::Qemu, _) => &["--exclude=./usr/share/doc"],
        (Group::Linux, _) => &["./boot/vmlinuz-*", "./boot/config-*"],
        (Group::Busybox, _) => &["./bin"],
        // What busybox has not, or computes in another way.
        (Group::Debian, "coreutils") => &[
            "./usr/bin/b2sum",
            "./usr/bin/factor",
            "./usr/bin/md5sum",
            "./usr/bin/numfmt",
            "./usr/bin/od",
            "./usr/bin/printf",
            "./usr/bin/seq",
            "./usr/bin/sha256sum",
            "./usr/bin/sha512sum",
            "./usr/bin/sort",
        ],
        (Group::Debian, "python3-minimal") => &["./usr/bin/python3"],
        (Group::Debian, _) => &[
            "--exclude=./etc",
            "--exclude=./usr/share",
            "--exclude=./usr/lib/*/gconv",
            "--exclude=./usr/lib/python3*/email",
            "--exclude=./usr/lib/python3*/urllib",
        ],
    }
}

/// Unpacks the wanted part of a package file into a folder.
///
/// # Errors
/// The file is damaged, a tool is missing, or there is no space.
pub fn unpack(group: Group, artefact: &Artefact, file: &Path, into: &Path) -> Result<()> {
    std::fs::create_dir_all(into).with_context(|| format!("cannot make {}", into.display()))?;
    let mut dpkg = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(file)
        .env("LC_ALL", "C")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run dpkg-deb: install dpkg")?;
    let stream = dpkg.stdout.take().context("dpkg-deb has no output")?;
    let tar = Command::new("tar")
        .args(["-x", "--no-same-owner", "--no-same-permissions", "--wildcards", "-C"])
        .arg(into)
        .args(wanted(group, artefact))
        .env("LC_ALL", "C")
        .stdin(stream)
        .output()
        .context("cannot run tar: install it")?;
    let dpkg = dpkg.wait_with_output().context("cannot wait for dpkg-deb")?;
    if tar.status.success() && dpkg.status.success() {
        return Ok(());
    }
    // If there is no space, tar says so and dpkg-deb only that nobody listens.
    let said = if tar.status.success() { dpkg.stderr } else { tar.stderr };
    let (cause, remedy) = explain(&String::from_utf8_lossy(&said));
    bail!("cannot unpack {} into {}: {cause}; {remedy}", file.display(), into.display())
}

/// One of the two tar streams in a package file: `--fsys-tarfile`, its files, or `--ctrl-tarfile`, what it says of
/// itself.
///
/// # Errors
/// The file is damaged, or dpkg is missing.
pub fn stream(file: &Path, which: &str) -> Result<Vec<u8>> {
    let dpkg = Command::new("dpkg-deb")
        .arg(which)
        .arg(file)
        .env("LC_ALL", "C")
        .output()
        .context("cannot run dpkg-deb: install dpkg")?;
    if dpkg.status.success() {
        return Ok(dpkg.stdout);
    }
    let (cause, remedy) = explain(&String::from_utf8_lossy(&dpkg.stderr));
    bail!("cannot unpack {}: {cause}; {remedy}", file.display())
}

/// Cause and remedy in what a tool said.
fn explain(said: &str) -> (String, &'static str) {
    // tar names first the file that it could write only half of.
    if said.contains("No space left") || said.contains("Wrote only") {
        return (
            "no space is left there".into(),
            "make room, or set HONEYCOMB_CACHE to a folder on another disk",
        );
    }
    (said.lines().next().unwrap_or("no message").to_owned(), "remove it and try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_a_damaged_file() {
        let full = "tar: ./a: Wrote only 512 of 10240 bytes\ntar: ./b: Cannot open: No space left on device\n";
        assert!(
            explain(full).0.contains("no space") && explain(full).1.contains("HONEYCOMB_CACHE")
        );
        let damaged = "dpkg-deb: error: archive 'x.deb' has premature member\n";
        assert_eq!(explain(damaged).0, damaged.trim());
        assert_eq!(explain("").0, "no message");
    }
}
