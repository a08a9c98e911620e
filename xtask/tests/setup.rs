//! What `cargo xtask setup` says when it can't do its work: one line with culprit and remedy, exit
//! status 2. None of it needs a network.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// Runs `setup` with these variables; its exit status and the last line it printed.
fn setup(variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("setup").env_remove("HONEYCOMB_DEBIAN_MIRROR").envs(variables.iter().copied());
    let out = command.output().expect("xtask runs");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    (out.status.code(), said.lines().last().unwrap_or_default().to_owned())
}

/// Whether packages can be unpacked here at all; elsewhere the message is another.
fn has_tools() -> bool {
    Path::new("/usr/lib/apt/apt-helper").exists()
        && std::env::consts::ARCH == "x86_64"
        && Command::new("dpkg-deb").arg("--version").output().is_ok()
}

#[test]
fn a_relative_cache_is_refused() {
    let (status, line) = setup(&[("HONEYCOMB_CACHE", "some/where")]);
    assert_eq!(status, Some(2), "{line}");
    assert_eq!(line, "error: HONEYCOMB_CACHE=some/where: not an absolute path");
}

#[test]
fn a_cache_that_cannot_be_written_is_refused() {
    if !has_tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let cache = file.join("cache");
    let mirror = format!("file:{}", dir.path().display());
    let (status, line) = setup(&[
        ("HONEYCOMB_CACHE", cache.to_str().unwrap()),
        ("HONEYCOMB_DEBIAN_MIRROR", &mirror),
    ]);
    assert_eq!(status, Some(2), "{line}");
    let start = format!("error: cannot write the cache {}", cache.display());
    assert!(line.starts_with(&start) && line.contains("set HONEYCOMB_CACHE"), "{line}");
}

#[test]
fn a_mirror_that_is_none_is_refused() {
    if !has_tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (status, line) = setup(&[
        ("HONEYCOMB_CACHE", dir.path().to_str().unwrap()),
        ("HONEYCOMB_DEBIAN_MIRROR", "nonsense"),
    ]);
    assert_eq!(status, Some(2), "{line}");
    assert!(line.starts_with("error: HONEYCOMB_DEBIAN_MIRROR=\"nonsense\": expected"), "{line}");
}

#[test]
fn a_corrupted_download_is_refused() {
    if !has_tools() {
        return;
    }
    // A mirror on which every file of the lock has the right name and the wrong contents. Beside the
    // build, where there is room for a set-up: this is not the test of a full disk.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packages.lock");
    let lock: toml::Table = std::fs::read_to_string(lock).unwrap().parse().unwrap();
    let groups = lock["packages"].as_table().unwrap().values();
    let mut names = String::new();
    for artefact in groups.flat_map(|group| group.as_array().unwrap()) {
        let path = artefact["path"].as_str().unwrap();
        let file = dir.path().join("mirror").join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "not a package").unwrap();
        writeln!(names, "{path}").unwrap();
    }
    let cache = dir.path().join("cache");
    let mirror = format!("file:{0}/mirror file:{0}/mirror", dir.path().display());
    let (status, line) = setup(&[
        ("HONEYCOMB_CACHE", cache.to_str().unwrap()),
        ("HONEYCOMB_DEBIAN_MIRROR", &mirror),
    ]);
    assert_eq!(status, Some(2), "{line}");
    assert!(line.contains("is not the file that packages.lock names"), "{line}");
    assert!(names.lines().any(|path| line.contains(path)), "{line}");
    assert_eq!(std::fs::read_dir(cache.join("downloads/partial")).unwrap().count(), 0);
}
