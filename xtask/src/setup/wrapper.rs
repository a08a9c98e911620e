//! Scripts that start the unpacked programs with their unpacked libraries.
//!
//! With them a program has one path that works from anywhere, a shell included. Their paths are
//! relative to the script, so that the cache may be moved.

use super::cache::Store;
use super::lock::Group;
use crate::endian::Endian;
use anyhow::{Context, Result};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Writes the scripts of a group into the folder in which its packages have been unpacked.
///
/// # Errors
/// A script can't be written.
pub fn write_all(store: &Store, group: Group, folder: &Path) -> Result<()> {
    let libraries = libraries(store, group);
    match group {
        // The compiler and cargo start linkers and build scripts, which must not see its libraries:
        // so it is started through the dynamic loader, which tells nobody else.
        Group::Compiler => {
            let command = format!(
                "/lib64/ld-linux-x86-64.so.2 --library-path \"{libraries}\" \
                 \"$here/usr/bin/rustc\" --sysroot \"$here/usr\""
            );
            write(folder, "rustc", &command)
        }
        // The emulator starts nothing, and keeps its own name in lists of processes.
        Group::Qemu => Endian::ALL.iter().try_for_each(|endian| {
            let name = endian.qemu();
            let command = format!(
                "env LD_LIBRARY_PATH=\"{libraries}\" \
                 \"$here/usr/bin/{name}\" -L \"$here/usr/share/qemu\""
            );
            write(folder, name, &command)
        }),
        Group::Linux | Group::Busybox | Group::Debian => Ok(()),
    }
}

/// Where the programs of a group find their libraries, as the dynamic loader takes it.
fn libraries(store: &Store, group: Group) -> String {
    let dirs = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
    let mut path = vec![format!("$here/{}", dirs[0])];
    for library in store.artefacts(group).iter().filter(|one| one.is_library()) {
        // Named even when the host has the library: the loader passes over what is not there, and
        // the host may lose it later.
        path.extend(dirs.map(|dir| format!("$here/../library/{}/{dir}", library.folder_name())));
    }
    path.join(":")
}

/// Writes one script.
fn write(folder: &Path, name: &str, command: &str) -> Result<()> {
    let file = folder.join(name);
    let script = format!("#!/bin/sh\nhere=$(dirname \"$0\")\nexec {command} \"$@\"\n");
    std::fs::write(&file, script)
        .and_then(|()| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::super::cache::tests::store;
    use super::*;

    /// A program that prints what it was started with.
    const PROBE: &str = "#!/bin/sh\necho \"$LD_LIBRARY_PATH|$*\"\n";

    #[test]
    fn the_emulator_is_started_with_its_libraries_and_data_from_wherever_it_lies() {
        let (dir, store) = store(&[]);
        // A blank in the path is everyday input too.
        let folder = dir.path().join("a cache/qemu-10");
        std::fs::create_dir_all(folder.join("usr/bin")).unwrap();
        write_all(&store, Group::Qemu, &folder).unwrap();
        let program = folder.join("usr/bin/qemu-system-mips64el");
        std::fs::write(&program, PROBE).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let out = std::process::Command::new(folder.join("qemu-system-mips64el"))
            .args(["-m", "a b"])
            .output()
            .unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let here = folder.display();
        let libraries = format!(
            "{here}/usr/lib/x86_64-linux-gnu:{here}/../library/{0}/usr/lib/x86_64-linux-gnu:\
             {here}/../library/{0}/lib/x86_64-linux-gnu",
            store.artefacts(Group::Qemu)[1].folder_name()
        );
        assert_eq!(text, format!("{libraries}|-L {here}/usr/share/qemu -m a b\n"));
    }
}
