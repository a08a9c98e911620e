use super::super::guest::cpio::tests::{Entry, read};
use super::*;
use tar::{EntryType, Header};

/// A tar stream of these entries: path, type, permission bits, contents or target.
fn stream(entries: &[(&str, EntryType, u32, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, permissions, text) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(*permissions);
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            header.set_size(0);
            builder.append_link(&mut header, path, text).unwrap();
        } else {
            header.set_size(text.len() as u64);
            builder.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

use EntryType::{Directory, Link, Regular, Symlink};

fn entries(tree: &Tree) -> Vec<Entry> {
    read(&tree.archive().unwrap().0)
}

fn paths(tree: &Tree) -> Vec<String> {
    entries(tree).into_iter().map(|entry| entry.0).collect()
}

#[test]
fn a_package_is_taken_over_with_its_links_and_permissions() {
    let mut tree = Tree::default();
    let one = stream(&[
        ("./", Directory, 0o755, ""),
        ("./bin/", Directory, 0o755, ""),
        ("./bin/su", Regular, 0o4755, "program"),
        ("./usr/bin/", Directory, 0o755, ""),
        ("./usr/bin/su2", Link, 0o4755, "./bin/su"),
        ("./lib/mips/", Directory, 0o755, ""),
        ("./lib/mips/libx.so.1", Symlink, 0o777, "libx.so.1.2"),
        ("./usr/lib/mips/libx.so.1.2", Regular, 0o644, "library"),
        ("./lib64/ld.so.1", Symlink, 0o777, "/lib/mips/ld.so.1"),
        ("./var/tmp/", Directory, 0o1777, ""),
    ]);
    tree.package("one", &one[..]).unwrap();
    let entry = |path: &str, mode: u32, text: &str| -> Entry {
        (path.into(), mode, (0, 0), text.as_bytes().to_vec())
    };
    assert_eq!(
        entries(&tree),
        [
            entry("usr", 0o040_755, ""),
            entry("usr/bin", 0o040_755, ""),
            entry("usr/bin/su", 0o104_755, ""),
            entry("usr/bin/su2", 0o104_755, "program"),
            entry("usr/lib", 0o040_755, ""),
            entry("usr/lib/mips", 0o040_755, ""),
            entry("usr/lib/mips/libx.so.1", 0o120_777, "libx.so.1.2"),
            entry("usr/lib/mips/libx.so.1.2", 0o100_644, "library"),
            entry("usr/lib64", 0o040_755, ""),
            entry("usr/lib64/ld.so.1", 0o120_777, "/lib/mips/ld.so.1"),
            entry("var", 0o040_755, ""),
            entry("var/tmp", 0o041_777, ""),
            entry("bin", 0o120_777, "usr/bin"),
            entry("lib", 0o120_777, "usr/lib"),
            entry("lib64", 0o120_777, "usr/lib64"),
        ]
    );
    assert_eq!(tree.archive().unwrap().1, 2 * 4096, "both names are of one file");
}

#[test]
fn a_link_to_a_folder_is_that_folder() {
    let mut tree = Tree::default();
    let real =
        [("./usr/lib/gcc/12/", Directory, 0o755, ""), ("./usr/lib/gcc/12/x", Regular, 0o644, "x")];
    let link = [("./usr/lib/gcc/12.2", Symlink, 0o777, "12")];
    let through = [
        ("./usr/lib/gcc/12.2/", Directory, 0o755, ""),
        ("./usr/lib/gcc/12.2/y", Regular, 0o644, "y"),
    ];
    for (name, package) in [("real", &real[..]), ("link", &link), ("through", &through)] {
        tree.package(name, &stream(package)[..]).unwrap();
    }
    assert!(paths(&tree).contains(&"usr/lib/gcc/12/y".to_owned()), "{:?}", paths(&tree));
    assert!(tree.has("/lib/gcc/12.2/x"));
    let turn =
        [("./a", Symlink, 0o777, "b"), ("./b", Symlink, 0o777, "a"), ("./a/x", Regular, 0o644, "")];
    let error = format!("{:#}", tree.package("turn", &stream(&turn)[..]).unwrap_err());
    assert!(error.contains("too many links"), "{error}");
}

#[test]
fn what_is_left_out_stays_out_and_is_known() {
    let left_out = ["usr/share/doc", "usr/bin/*lto*", "usr/none"].map(str::to_owned);
    let mut tree = Tree::new(left_out);
    let package = stream(&[
        ("./usr/share/doc/x/copyright", Regular, 0o644, "(c)"),
        ("./usr/bin/gcc-lto", Regular, 0o755, "lto"),
        ("./usr/bin/gcc-lto-2", Link, 0o755, "usr/bin/gcc-lto"),
        ("./usr/bin/gcc", Regular, 0o755, "gcc"),
    ]);
    tree.package("gcc", &package[..]).unwrap();
    assert_eq!(paths(&tree), ["usr", "usr/bin", "usr/bin/gcc", "bin"]);
    assert_eq!(tree.useless().collect::<Vec<_>>(), ["usr/none"]);
}

#[test]
fn packages_that_clash_are_named() {
    let mut tree = Tree::default();
    let file = |text| stream(&[("./usr/x", Regular, 0o644, text)]);
    tree.package("one", &file("1")[..]).unwrap();
    tree.package("same", &file("1")[..]).unwrap();
    let error = format!("{:#}", tree.package("two", &file("2")[..]).unwrap_err());
    assert!(error.contains("one and two both have a usr/x"), "{error}");
    let below = stream(&[("./usr/x/y", Regular, 0o644, "")]);
    assert!(tree.package("three", &below[..]).is_err());
    for (name, bytes) in [
        ("out", stream(&[("./a", Link, 0o644, "../../etc/passwd")])),
        ("device", stream(&[("./a", EntryType::Fifo, 0o644, "")])),
        ("cut", file("1")[..700].to_vec()),
    ] {
        let error = Tree::default().package(name, &bytes[..]);
        // A link to what is not there is left out, one that leads out is refused.
        assert!(error.is_err(), "{name}");
    }
}

/// A busybox with what `/init` needs.
fn busybox() -> Vec<u8> {
    b"ELF\0[\0[[\0cttyhack\0hostname\0init\0insmod\0ls\0mkdir\0mount\0poweroff\0reboot\0sh\0sync\0\0".to_vec()
}

#[test]
fn busybox_stands_in_for_what_no_package_has() {
    let mut tree = Tree::default();
    let kmod = stream(&[
        ("./bin/kmod", Regular, 0o755, "kmod"),
        ("./sbin/insmod", Symlink, 0o777, "/bin/kmod"),
    ]);
    tree.package("kmod", &kmod[..]).unwrap();
    system(&mut tree, &busybox()).unwrap();
    lay_over(&mut tree, &[], &[("etc/group", 0o644, b"other\n")]).unwrap();
    let entries = entries(&tree);
    let find =
        |path: &str| entries.iter().find(|entry| entry.0 == path).map(|entry| entry.3.clone());
    assert_eq!(find("usr/bin/ls").unwrap(), b"busybox");
    assert_eq!(find("usr/sbin/insmod").unwrap(), b"/bin/kmod");
    assert_eq!(find("usr/bin/insmod"), None);
    assert_eq!(find("etc/group").unwrap(), b"other\n");
    let init = String::from_utf8(find("init").unwrap()).unwrap();
    assert!(init.starts_with("#!/bin/sh\n") && init.contains("reboot -f"), "{init}");
    // A file can only be unpacked into a folder that is there.
    for (index, entry) in entries.iter().enumerate() {
        if let Some((parent, _)) = entry.0.rsplit_once('/') {
            assert!(entries[..index].iter().any(|entry| entry.0 == parent), "{}", entry.0);
        }
    }
}

#[test]
fn a_folder_of_the_hosts_replaces_what_is_there() {
    let host = tempfile::tempdir().unwrap();
    fs::create_dir_all(host.path().join("bin")).unwrap();
    fs::write(host.path().join("bin/run"), "new").unwrap();
    fs::write(host.path().join("bin/sh"), "own").unwrap();
    let mut tree = Tree::default();
    system(&mut tree, &busybox()).unwrap();
    lay_over(&mut tree, &[host.path().to_owned()], &[]).unwrap();
    assert!(tree.has("usr/bin/run"));
    let entries = entries(&tree);
    let shell = entries.iter().find(|entry| entry.0 == "usr/bin/sh").unwrap();
    assert_eq!((shell.1, &shell.3[..]), (0o100_644, &b"own"[..]));
    let error = lay_over(&mut tree, &["/no/such".into()], &[]).unwrap_err();
    assert!(format!("{error:#}").contains("/no/such"), "{error:#}");
    fs::create_dir_all(host.path().join("etc/group")).unwrap();
    assert!(lay_over(&mut tree, &[host.path().to_owned()], &[]).is_err(), "a folder for a file");
}

#[test]
fn memory_is_for_the_archive_and_its_files() {
    let root =
        |size, unpacked| Root { path: PathBuf::new(), sha256: String::new(), size, unpacked };
    assert_eq!(root(2 << 20, 2 << 20).memory(), 96 << 20);
    assert_eq!(root(100 << 20, 96 << 20).memory(), 384 << 20);
}

#[test]
fn folders_are_written_down_relative_to_the_file() {
    let text = |paths: &[&str], folder: &str| {
        let paths: Vec<_> = paths.iter().map(PathBuf::from).collect();
        relative_to(&paths, Path::new(folder)).unwrap()
    };
    assert_eq!(text(&["/a/b/c", "/a/d"], "/a/b"), ["c", "/a/d"]);
    assert_eq!(text(&["files"], "."), ["files"]);
}

#[test]
fn the_file_is_named_first() {
    let args = |file: &str, packages: &[&str]| Args {
        file: file.into(),
        packages: packages.iter().map(|name| (*name).to_owned()).collect(),
        add: Vec::new(),
        without: Vec::new(),
        renew: false,
    };
    let error = format!("{:#}", main(&args("gcc", &["make"])).unwrap_err());
    assert!(error.starts_with("gcc: first name the file to make"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.cpio");
    let error = format!("{:#}", main(&args(file.to_str().unwrap(), &[])).unwrap_err());
    assert!(error.ends_with("x.lock is not there: name packages"), "{error}");
}
