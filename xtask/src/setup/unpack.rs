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
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run dpkg-deb: install dpkg")?;
    let stream = dpkg.stdout.take().context("dpkg-deb has no output")?;
    let tar = Command::new("tar")
        .args(["-x", "--no-same-owner", "--no-same-permissions", "--wildcards", "-C"])
        .arg(into)
        .args(wanted(group, artefact))
        .stdin(stream)
        .output()
        .context("cannot run tar: install it")?;
    let dpkg = dpkg.wait_with_output().context("cannot wait for dpkg-deb")?;
    if tar.status.success() && dpkg.status.success() {
        return Ok(());
    }
    // If there is no space, tar says so and dpkg-deb only that nobody listens.
    let said = if tar.status.success() { dpkg.stderr } else { tar.stderr };
    let said = String::from_utf8_lossy(&said);
    let cause = said.lines().next().unwrap_or("no message");
    let remedy = if cause.contains("No space left") {
        "make room there, or set HONEYCOMB_CACHE to a folder on another disk"
    } else {
        "remove it and try again"
    };
    bail!("cannot unpack {} into {}: {cause}; {remedy}", file.display(), into.display())
}
