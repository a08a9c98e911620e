//! The guest's first file system: busybox, and an `/init` that ends in a shell on the console.

use super::cpio::Archive;
use anyhow::{Context, Result, bail};

/// The line that says that the shell is there; scripts and tests wait for it.
pub const READY: &str = "guest: shell ready";

/// What a login shell and `/init` begin with, for programs in these folders.
fn settings(path: &str) -> String {
    format!("export PATH={path} HOME=/root TERM=vt100\ncd\n")
}

/// Mounts what a shell needs, and hands over to busybox' init: it starts a new shell whenever one
/// ends, takes care of orphans, and lets `poweroff` and `reboot` end the system.
const INIT: &str = "\
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
mount -t tmpfs tmp /tmp
hostname guest
# From here on, kernel messages below an error would only garble what is typed.
echo 4 > /proc/sys/kernel/printk
";

/// What busybox' init does. The shell gets the console's real terminal (cttyhack), without which
/// it would have no job control.
const INITTAB: &str = "\
::respawn:/bin/cttyhack /etc/shell
::ctrlaltdel:/bin/reboot
::shutdown:/bin/sync
";

/// Announces the shell at the moment it starts.
fn shell() -> String {
    format!("#!/bin/sh\necho '{READY}'\nexec sh -l\n")
}

/// The archive, from a static busybox for the guest.
///
/// # Errors
/// The program has no table of applets.
pub fn build(busybox: &[u8]) -> Result<Vec<u8>> {
    Ok(begin(busybox, "/bin", "")?.finish())
}

/// An archive with busybox that more can be put into: with the folders that programs are looked for in, and
/// commands for `/init` to do before it hands over to busybox' init.
///
/// # Errors
/// The program has no table of applets.
pub fn begin(busybox: &[u8], path: &str, commands: &str) -> Result<Archive> {
    let mut archive = Archive::default();
    for path in ["bin", "dev", "etc", "proc", "sys"] {
        archive.directory(path, 0o755);
    }
    archive.directory("root", 0o700);
    archive.directory("tmp", 0o1777);
    // The kernel opens it before anything is mounted.
    archive.character_device("dev/console", 0o600, (5, 1));
    archive.character_device("dev/null", 0o666, (1, 3));
    archive.file("bin/busybox", 0o755, busybox);
    for applet in applets(busybox)? {
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    for (name, permissions, text) in texts(path, commands) {
        archive.file(name, permissions, text.as_bytes());
    }
    Ok(archive)
}

/// The files that make a system of a busybox: path, permission bits, contents.
pub fn texts(path: &str, commands: &str) -> [(&'static str, u32, String); 6] {
    let init = format!("#!/bin/sh\n{}{INIT}{commands}exec init\n", settings(path));
    [
        ("etc/inittab", 0o644, INITTAB.into()),
        ("etc/passwd", 0o644, "root::0:0:root:/root:/bin/sh\n".into()),
        ("etc/group", 0o644, "root:x:0:\n".into()),
        ("etc/profile", 0o644, settings(path)),
        ("etc/shell", 0o755, shell()),
        ("init", 0o755, init),
    ]
}

/// What `/init` itself can't do without.
const ESSENTIAL: [&str; 9] =
    ["sh", "init", "mount", "mkdir", "hostname", "cttyhack", "poweroff", "reboot", "sync"];

/// The names of the applets in a busybox, from the table it looks them up in: a sorted sequence of
/// strings, ended by an empty one. A program for another architecture can't be asked.
pub fn applets(busybox: &[u8]) -> Result<Vec<&str>> {
    // `[` sorts before all letters and each busybox with a shell has it.
    let start = busybox
        .windows(4)
        .position(|window| window == b"\0[\0[")
        .context("this busybox has no table of applets")?;
    let mut names = Vec::new();
    for name in busybox[start + 1..].split(|byte| *byte == 0) {
        let is_plain = |c: &u8| c.is_ascii_alphanumeric() || b"[-_.".contains(c);
        if name.is_empty() || !name.iter().all(is_plain) {
            break;
        }
        let name = std::str::from_utf8(name).expect("plain ASCII was checked");
        // The program itself has an entry of that name.
        if name != "busybox" {
            names.push(name);
        }
    }
    for applet in ESSENTIAL {
        if !names.contains(&applet) {
            bail!("this busybox has no applet {applet}, which the guest's /init needs");
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::super::cpio::tests::read;
    use super::*;

    fn busybox() -> Vec<u8> {
        let mut program = b"\x7fELF code \0[\0[[\0busybox\0ls".to_vec();
        for applet in ESSENTIAL {
            program.push(0);
            program.extend(applet.as_bytes());
        }
        program.extend(b"\0\0not an applet\0");
        program
    }

    #[test]
    fn applets_are_those_in_the_table() {
        let program = busybox();
        let names = applets(&program).unwrap();
        assert_eq!(names[..3], ["[", "[[", "ls"]);
        assert_eq!(names.len(), 3 + ESSENTIAL.len());
    }

    #[test]
    fn a_busybox_of_no_use_is_refused() {
        assert!(build(b"\x7fELF").unwrap_err().to_string().contains("no table of applets"));
        let program = b"\0[\0[[\0sh\0\0";
        assert!(build(program).unwrap_err().to_string().contains("no applet init"));
    }

    #[test]
    fn the_archive_has_console_busybox_links_and_init() {
        let program = busybox();
        let entries = read(&build(&program).unwrap());
        let find = |path: &str| entries.iter().find(|entry| entry.0 == path).unwrap().clone();
        assert_eq!((find("dev/console").1, find("dev/console").2), (0o020_600, (5, 1)));
        assert_eq!(find("bin/busybox").3, program);
        assert_eq!(find("bin/sh").3, b"busybox");
        assert_eq!(find("init").1, 0o100_755);
        let shell = String::from_utf8(find("etc/shell").3).unwrap();
        assert!(shell.contains("guest: shell ready"), "{shell}");
        // A file can only be unpacked into a directory that is there.
        for (index, (path, ..)) in entries.iter().enumerate() {
            if let Some((parent, _)) = path.rsplit_once('/') {
                assert!(entries[..index].iter().any(|entry| entry.0 == parent), "{path}");
            }
        }
        assert_eq!(build(&program).unwrap(), build(&program).unwrap());
    }
}
