//! The rules between the crates, checked: what they may use, where assembly and unsafe code may be, and
//! that every dependency has its reason on record.

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
    ("xtask", &["abi", "vmm-core", "cell", "irix-user"]),
];

/// Our crates, as others name them.
const OURS: [&str; 7] = ["abi", "boot", "vmm-core", "cell", "kernel", "xtask", "irix-user"];

/// Where assembly may be: one folder of the monitor, and the PROM. (Guests are not ours to tidy.)
const ASSEMBLY: [&str; 2] = ["kernel/src/asm/", "boot/src/asm.rs"];

/// Crates that deny unsafe code, and the modules excepted from that. (Test code lends its own memory to
/// what it tests.)
const SAFE: [(&str, &[&str]); 3] = [
    ("kernel/abi", &[]),
    ("vmm-core", &["vmm-core/src/mem.rs", "vmm-core/src/direct/l2tlb.rs"]),
    ("cell", &[]),
];

/// What only the bare-metal compiler sees, for which there is no clippy: so its rule that every unsafe
/// block has its argument is checked here, as text.
const BARE_METAL: [&str; 3] = ["boot/src", "kernel/src", "tests/guests"];

/// The table of dependencies and why.
const REASONS: &str = "docs/dependencies.md";

/// All violations in the checkout at `root`, one line each.
///
/// # Errors
/// When a file can't be read or understood.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let reasons = fs::read_to_string(root.join(REASONS)).context(REASONS)?;
    let reasons: Vec<&str> =
        reasons.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next()).collect();
    for (folder, may_use) in MAY_USE {
        let path = root.join(folder).join("Cargo.toml");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let manifest: toml::Table = text.parse().with_context(|| path.display().to_string())?;
        for used in dependencies(&manifest) {
            if OURS.contains(&used.as_str()) {
                if !may_use.contains(&used.as_str()) {
                    wrong.push(format!("{folder}/Cargo.toml: {folder} may not use {used}"));
                }
            } else if !reasons.contains(&used.as_str()) {
                wrong.push(format!("{folder}/Cargo.toml: {used} has no row in {REASONS}"));
            }
        }
        let mut files = Vec::new();
        rust_files(&root.join(folder).join("src"), &mut files)?;
        for file in files {
            let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
            let text = fs::read_to_string(&file).with_context(|| name.clone())?;
            if has_assembly(&text) && !ASSEMBLY.iter().any(|place| name.starts_with(place)) {
                wrong.push(format!(
                    "{name}: has assembly; it belongs into {}",
                    ASSEMBLY.join(" or ")
                ));
            }
            if let Some((_, excepted)) = SAFE.iter().find(|(safe, _)| *safe == folder) {
                let denies = text.contains("#![deny(unsafe_code)]");
                if name.ends_with("/src/lib.rs") && !denies {
                    wrong.push(format!("{name}: does not deny unsafe code"));
                }
                let test = name.contains("/tests/") || name.ends_with("/tests.rs");
                if text.contains("allow(unsafe_code)") && !test && !excepted.contains(&&*name) {
                    wrong.push(format!("{name}: allows unsafe code"));
                }
            }
        }
    }
    for folder in BARE_METAL {
        let mut files = Vec::new();
        rust_files(&root.join(folder), &mut files)?;
        for file in files {
            let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
            let text = fs::read_to_string(&file).with_context(|| name.clone())?;
            wrong.extend(unargued(&text).into_iter().map(|line| {
                format!("{name}:{line}: an unsafe block without a `// SAFETY:` comment before it")
            }));
        }
    }
    Ok(wrong)
}

/// Numbers of the lines with an unsafe block or implementation that no `SAFETY:` comment precedes.
fn unargued(text: &str) -> Vec<usize> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_comment = |line: &str| line.starts_with("//");
    let opens = |line: &str| {
        // Put together so that this file does not find itself.
        ["{", "impl "].iter().any(|what| line.contains(&format!("unsafe {what}")))
    };
    let is_argued = |at: usize| {
        // Up to the beginning of the statement: attributes, and lines that the block's line goes on.
        let above = lines[..at].iter().rev();
        let mut above = above.skip_while(|line| {
            !line.is_empty() && !is_comment(line) && (line.starts_with("#[") || goes_on(line))
        });
        above.by_ref().take_while(|line| is_comment(line)).any(|line| line.contains("SAFETY:"))
    };
    (0..lines.len())
        .filter(|&at| !is_comment(lines[at]) && opens(lines[at]) && !is_argued(at))
        .map(|at| at + 1)
        .collect()
}

/// Whether a line is not the end of a statement, so that the next belongs to it.
fn goes_on(line: &str) -> bool {
    !line.ends_with([';', '{', '}', ','])
}

/// The crates that a manifest depends on, in whatever way.
fn dependencies(manifest: &toml::Table) -> Vec<String> {
    let mut found = Vec::new();
    for (key, value) in manifest {
        let Some(table) = value.as_table() else { continue };
        if key.ends_with("dependencies") {
            for (name, how) in table {
                // A dependency may go by another name.
                let package = how.get("package").and_then(toml::Value::as_str).unwrap_or(name);
                found.push(package.to_string());
            }
        } else if key == "target" {
            found.extend(table.values().filter_map(toml::Value::as_table).flat_map(dependencies));
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
        let mut found = dependencies(&manifest);
        found.sort();
        assert_eq!(found, ["abi", "cell", "serde", "vmm-core"]);
    }

    #[test]
    fn unsafe_blocks_want_their_argument_just_before_them() {
        let open = format!("unsafe {}", '{');
        let argued = format!("f();\n// SAFETY: so.\nlet x =\n    {open}\n    g()\n    }};");
        assert_eq!(unargued(&argued), [0; 0]);
        assert_eq!(unargued(&argued.replace("SAFETY", "Sure")), [4]);
        assert_eq!(unargued(&argued.replace("let x", "h();\nlet x")), [5]);
        assert_eq!(unargued(&format!("// SAFETY: a.\n\n{open}")), [3]);
        assert_eq!(unargued(&format!("// SAFETY: a\n// b.\n#[c]\n{open}")), [0; 0]);
        assert_eq!(unargued(&format!("// SAFETY: a.\nf(|| {open}")), [0; 0]);
    }

    #[test]
    fn each_kind_of_violation_is_reported() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("docs")).unwrap();
        fs::write(root.path().join(REASONS), "| crate | why |\n|---|---|\n| log | logs |\n")
            .unwrap();
        for (folder, _) in MAY_USE {
            let folder = root.path().join(folder);
            fs::create_dir_all(folder.join("src/deep")).unwrap();
            fs::write(folder.join("Cargo.toml"), "[dependencies]\nabi.workspace = true\n").unwrap();
        }
        fs::create_dir_all(root.path().join("tests/guests")).unwrap();
        fs::write(root.path().join("kernel/abi/Cargo.toml"), "[package]\n").unwrap();
        assert!(check(root.path()).unwrap().is_empty());
        fs::write(
            root.path().join("cell/Cargo.toml"),
            "[dependencies]\nvmm-core.path = \"x\"\nlog = \"1\"\nspin = \"1\"\n",
        )
        .unwrap();
        let lib = "#![no_std]\n#![allow(unsafe_code)]";
        fs::write(root.path().join("vmm-core/src/lib.rs"), lib).unwrap();
        fs::write(root.path().join("vmm-core/src/mem.rs"), lib).unwrap();
        let assembly = format!("fn f() {{ unsafe {{ asm{}(\"nop\") }} }}", '!');
        fs::write(root.path().join("kernel/src/deep/x.rs"), &assembly).unwrap();
        fs::create_dir(root.path().join("kernel/src/asm")).unwrap();
        fs::write(root.path().join("kernel/src/asm/x.rs"), &assembly).unwrap();
        assert_eq!(
            check(root.path()).unwrap(),
            [
                "vmm-core/src/lib.rs: does not deny unsafe code",
                "vmm-core/src/lib.rs: allows unsafe code",
                "cell/Cargo.toml: spin has no row in docs/dependencies.md",
                "cell/Cargo.toml: cell may not use vmm-core",
                "kernel/src/deep/x.rs: has assembly; it belongs into kernel/src/asm/ or boot/src/asm.rs",
                "kernel/src/asm/x.rs:1: an unsafe block without a `// SAFETY:` comment before it",
                "kernel/src/deep/x.rs:1: an unsafe block without a `// SAFETY:` comment before it",
            ]
        );
    }

    #[test]
    fn this_checkout_keeps_the_rules() {
        assert_eq!(check(crate::paths::workspace()).unwrap(), [""; 0]);
    }
}
