//! The walls between the rooms (`docs/architecture.md`): which crate may use which, where `unsafe` and
//! assembly may be, and that every dependency has its reason on record.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each crate's folder, and which of the others it may use.
const ROOMS: [(&str, &[&str]); 6] = [
    ("kernel/abi", &[]),
    ("boot", &["abi"]),
    ("vmm-core", &["abi"]),
    ("cell", &["abi"]),
    ("kernel", &["abi", "vmm-core", "cell"]),
    ("xtask", &["abi", "vmm-core", "cell"]),
];

/// Crates that touch no raw memory, and the modules in them that are excepted.
const SAFE: [(&str, &[&str]); 3] =
    [("kernel/abi", &[]), ("vmm-core", &["vmm-core/src/mem.rs"]), ("cell", &[])];

/// The only files with assembly.
const ASSEMBLY: [&str; 2] = ["boot/src/asm.rs", "kernel/src/asm.rs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The crates that a manifest names under `[dependencies]` and the like.
fn dependencies(folder: &str) -> BTreeSet<String> {
    let manifest: toml::Table = read(&root().join(folder).join("Cargo.toml")).parse().unwrap();
    let mut found = BTreeSet::new();
    let mut collect = |table: &toml::Table| {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            if let Some(toml::Value::Table(names)) = table.get(kind) {
                found.extend(names.keys().cloned());
            }
        }
    };
    collect(&manifest);
    if let Some(toml::Value::Table(targets)) = manifest.get("target") {
        for target in targets.values() {
            collect(target.as_table().expect("a target's table"));
        }
    }
    found
}

/// All Rust files of a folder, by their path from the workspace.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                files.push((name, read(&path)));
            }
        }
    }
    assert!(!files.is_empty(), "{folder} has no source");
    files
}

#[test]
fn no_arrow_points_upward() {
    let rooms: Vec<&str> =
        ROOMS.iter().map(|(folder, _)| folder.rsplit('/').next().unwrap()).collect();
    for (folder, allowed) in ROOMS {
        for name in dependencies(folder) {
            assert!(
                !rooms.contains(&name.as_str()) || allowed.contains(&name.as_str()),
                "{folder} uses {name}: see docs/architecture.md for who may use whom"
            );
        }
    }
}

#[test]
fn raw_memory_is_touched_where_it_is_allowed() {
    for (folder, excepted) in SAFE {
        let lib = read(&root().join(folder).join("src/lib.rs"));
        assert!(lib.contains("#![deny(unsafe_code)]"), "{folder}/src/lib.rs denies no unsafe code");
        for (name, text) in sources(&format!("{folder}/src")) {
            // Test code lends its own memory to what it tests.
            if name.contains("/tests/") || name.ends_with("/tests.rs") {
                continue;
            }
            let allows =
                text.contains("allow(unsafe_code)") || text.contains("expect(unsafe_code)");
            assert!(!allows || excepted.contains(&name.as_str()), "{name} allows unsafe code");
        }
    }
}

#[test]
fn assembly_is_in_two_files() {
    for (folder, _) in ROOMS {
        for (name, text) in sources(&format!("{folder}/src")) {
            let has = text.contains("asm!(");
            assert!(!has || ASSEMBLY.contains(&name.as_str()), "{name} contains assembly");
        }
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let table = read(&root().join("docs/dependencies.md"));
    let listed: BTreeSet<&str> =
        table.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next()).collect();
    let rooms: BTreeSet<String> =
        ["abi", "vmm-core", "cell"].into_iter().map(str::to_owned).collect();
    for (folder, _) in ROOMS {
        let used = dependencies(folder);
        let missing: Vec<_> =
            used.difference(&rooms).filter(|name| !listed.contains(name.as_str())).collect();
        assert!(missing.is_empty(), "{folder} uses {missing:?}: no row in docs/dependencies.md");
    }
}
