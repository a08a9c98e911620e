//! The rules between the crates, checked: what they may use, and where assembly may be.

use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// Crate folder, and which of our crates it may use. No arrow points upward, and what a *virtual*
/// machine is and what a *cell* does know nothing of each other.
const MAY_USE: [(&str, &[&str]); 6] = [
    ("kernel/abi", &[]),
    ("boot", &["abi"]),
    ("vmm-core", &["abi"]),
    ("cell", &["abi"]),
    ("kernel", &["abi", "vmm-core", "cell"]),
    ("xtask", &["abi", "vmm-core", "cell"]),
];

/// Our crates, as others name them.
const OURS: [&str; 6] = ["abi", "boot", "vmm-core", "cell", "kernel", "xtask"];

/// Where assembly may be: one module of the monitor, and the PROM. (Guests are not ours to tidy.)
const ASSEMBLY: [&str; 2] = ["kernel/src/asm.rs", "boot/src/asm.rs"];

/// All violations in the checkout at `root`, one line each.
///
/// # Errors
/// When a file can't be read or understood.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (folder, may_use) in MAY_USE {
        let path = root.join(folder).join("Cargo.toml");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let manifest: toml::Table = text.parse().with_context(|| path.display().to_string())?;
        for user in ours_in(&manifest) {
            if !may_use.contains(&user.as_str()) {
                wrong.push(format!("{folder}/Cargo.toml: {folder} may not use {user}"));
            }
        }
        let mut files = Vec::new();
        rust_files(&root.join(folder).join("src"), &mut files)?;
        for file in files {
            let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
            let text = fs::read_to_string(&file).with_context(|| name.clone())?;
            if has_assembly(&text) && !ASSEMBLY.contains(&name.as_str()) {
                wrong.push(format!(
                    "{name}: has assembly; it belongs into {}",
                    ASSEMBLY.join(" or ")
                ));
            }
        }
    }
    Ok(wrong)
}

/// The crates of ours that a manifest depends on, in whatever way.
fn ours_in(manifest: &toml::Table) -> Vec<String> {
    let mut found = Vec::new();
    for (key, value) in manifest {
        let Some(table) = value.as_table() else { continue };
        if key.ends_with("dependencies") {
            for (name, how) in table {
                // A dependency may go by another name.
                let package = how.get("package").and_then(toml::Value::as_str).unwrap_or(name);
                if OURS.contains(&package) {
                    found.push(package.to_string());
                }
            }
        } else if key == "target" {
            found.extend(table.values().filter_map(toml::Value::as_table).flat_map(ours_in));
        }
    }
    found
}

fn has_assembly(text: &str) -> bool {
    text.lines().map(str::trim_start).filter(|line| !line.starts_with("//")).any(|line| {
        // Put together so that this file does not find itself.
        ["asm", "global_asm", "naked_asm"].iter().any(|name| line.contains(&format!("{name}!(")))
    })
}

fn rust_files(folder: &Path, files: &mut Vec<std::path::PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_are_found_however_they_are_written() {
        let manifest: toml::Table = "
            [dependencies]
            abi.workspace = true
            other = { package = \"cell\", path = \"x\" }
            serde = \"1\"
            [target.'cfg(unix)'.dev-dependencies]
            vmm-core = { path = \"y\" }
        "
        .parse()
        .unwrap();
        let mut found = ours_in(&manifest);
        found.sort();
        assert_eq!(found, ["abi", "cell", "vmm-core"]);
    }

    #[test]
    fn a_wrong_arrow_and_assembly_elsewhere_are_reported() {
        let root = tempfile::tempdir().unwrap();
        for (folder, _) in MAY_USE {
            let folder = root.path().join(folder);
            fs::create_dir_all(folder.join("src/deep")).unwrap();
            fs::write(folder.join("Cargo.toml"), "[dependencies]\nabi.workspace = true\n").unwrap();
        }
        fs::write(root.path().join("kernel/abi/Cargo.toml"), "[package]\n").unwrap();
        assert!(check(root.path()).unwrap().is_empty());
        fs::write(root.path().join("cell/Cargo.toml"), "[dependencies]\nvmm-core.path = \"x\"\n")
            .unwrap();
        let assembly = format!("fn f() {{ unsafe {{ asm{}(\"nop\") }} }}", '!');
        fs::write(root.path().join("kernel/src/deep/x.rs"), &assembly).unwrap();
        fs::write(root.path().join("kernel/src/asm.rs"), &assembly).unwrap();
        assert_eq!(
            check(root.path()).unwrap(),
            [
                "cell/Cargo.toml: cell may not use vmm-core",
                "kernel/src/deep/x.rs: has assembly; it belongs into kernel/src/asm.rs or boot/src/asm.rs",
            ]
        );
    }

    #[test]
    fn this_checkout_keeps_the_rules() {
        assert_eq!(check(crate::paths::workspace()).unwrap(), [""; 0]);
    }
}
