//! What an operator can get wrong: one line with the culprit and a remedy, exit status 2, before
//! anything starts.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Runs `cargo xtask run` in a folder, with a cache of its own that nothing should need.
fn run(folder: &Path, args: &[&str]) -> Output {
    xtask(folder, &[&["run"], args].concat())
}

/// The same with any command.
fn xtask(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(args)
        .current_dir(folder)
        .env("HONEYCOMB_CACHE", folder.join("cache"))
        .output()
        .unwrap()
}

/// Checks that a run is refused with one line that contains `expected`.
fn refused(folder: &Path, args: &[&str], expected: &str) {
    is_refused(folder, args, expected, &run(folder, args));
}

fn is_refused(folder: &Path, args: &[&str], expected: &str, out: &Output) {
    let text = String::from_utf8(out.stderr.clone()).unwrap();
    assert_eq!(out.status.code(), Some(2), "{args:?}: {text}");
    assert!(text.contains(expected), "{args:?}: {text:?} has no {expected:?}");
    assert_eq!(text.lines().count(), 1, "{args:?}: {text:?}");
    assert!(text.starts_with("error: "), "{args:?}: {text:?}");
    assert!(out.stdout.is_empty(), "{args:?}");
    assert!(!folder.join("cache").exists(), "{args:?} fetched something");
}

#[test]
fn configurations() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.toml");
    for (text, expected) in [
        ("[machine]\nnodez = 1\n", "m.toml:2: [machine]: unknown key `nodez`; did you mean"),
        ("[machine]\nslice_per_node = \"64MB\"\n", "m.toml:2: [machine] slice_per_node: \"64MB\""),
        (
            "[[vm]]\nname = \"a\"\nkernel = \"gone\"\n",
            "m.toml:3: VM \"a\": kernel gone: no such file",
        ),
        (
            "[[vm]]\nname = \"a\"\nkernel = \"gone\"\nmemory = \"1G\"\n",
            "m.toml:4: VM \"a\": memory 1G does not fit: cell 0 has 224M for VMs; lower it or set",
        ),
        (
            "[machine]\nnodes = 4\nwindow_per_node = \"128M\"\n",
            "m.toml:3: window_per_node = 128M: give a power of two from 16M to 64M",
        ),
        ("[machine\n", "m.toml:1: is not TOML"),
    ] {
        fs::write(&file, text).unwrap();
        refused(folder.path(), &["--config", "m.toml"], expected);
    }
    refused(folder.path(), &["--config", "n.toml"], "n.toml: no such configuration file; check");
}

#[test]
fn roots() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bad.lock"), "version = 1\npackages = [\n").unwrap();
    fs::write(folder.path().join("old.lock"), "version = 0\npackages = []\nresolved = []\n")
        .unwrap();
    for (args, expected) in [
        (&["gcc", "make"][..], "error: gcc: first name the file to make, for example root.cpio"),
        (&["new.cpio"], "error: new.lock is not there: name packages"),
        (&["bad.cpio"], "error: bad.lock: restore it, or remove it to have it made anew: line "),
        (&["old.cpio", "make"], "version = 0: this xtask reads 1"),
        (&["new.cpio", "make", "--add", "gone"], "error: --add gone: there is no such folder"),
    ] {
        let out = xtask(folder.path(), &[&["root"], args].concat());
        is_refused(folder.path(), args, expected, &out);
        assert!(!folder.path().join("new.cpio").exists(), "{args:?}");
    }
}

#[test]
fn images() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("text"), "#!/bin/sh\n").unwrap();
    fs::write(folder.path().join("short"), b"\x7fELF\x02\x01\x01").unwrap();
    fs::write(folder.path().join("elf32"), b"\x7fELF\x01\x01\x01".repeat(10)).unwrap();
    for (kernel, expected) in [
        ("text", "--kernel: VM \"guest\": kernel text: not an ELF file: give"),
        ("short", "--kernel: VM \"guest\": kernel short: truncated: "),
        ("elf32", "--kernel: VM \"guest\": kernel elf32: a 32-bit ELF file: give"),
        ("gone", "--kernel: VM \"guest\": kernel gone: no such file; check the path"),
        (".", "--kernel: VM \"guest\": kernel .: is a folder; give a file"),
    ] {
        refused(folder.path(), &["--kernel", kernel], expected);
    }
    let args = ["--kernel", "text", "--initrd", "gone"];
    refused(folder.path(), &args, "--initrd: VM \"guest\": initrd gone: no such file");
}

#[test]
fn scripts_and_flags() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("m.toml"), "").unwrap();
    fs::write(folder.path().join("s"), "console monitor\nexpct \"x\"\n").unwrap();
    let with = |more: &[&'static str]| [&["--config", "m.toml"], more].concat();
    let expected = "s:2: unknown step `expct`; did you mean `expect`?";
    refused(folder.path(), &with(&["--script", "s"]), expected);
    refused(folder.path(), &with(&["--script", "gone"]), "gone: no such script; check the path");
    refused(folder.path(), &with(&["--timeout", "0"]), "--timeout 0: give a number of seconds");
    let expected = "--append: the configuration has 0 VMs;";
    refused(folder.path(), &with(&["--append", "x"]), expected);
}

#[test]
fn a_dry_run_prints_the_command_line_and_fetches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = run(folder.path(), &["--dry-run", "--icount", "--seed", "5", "--qemu-arg", "-x y"]);
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(text.lines().count(), 1);
    assert!(
        text.starts_with("qemu-system-mips64el -M malta,memory-backend=ram -m 1024M "),
        "{text}"
    );
    assert!(text.contains(" -icount shift=0,sleep=off ") && text.contains(" -seed 5 "), "{text}");
    assert!(text.trim_end().ends_with(" '-x y'") && !text.contains("semihosting"), "{text}");
    assert!(!folder.path().join("cache").exists());
}
