//! Builds the bare-metal programs: PROM (`boot`), monitor (`kernel`) and our own guests.
//!
//! An inner cargo compiles them together with `core` and `alloc` for the machine. Whatever the
//! operator's environment sets for host builds (`RUSTC`, `RUSTFLAGS`, `CARGO_TARGET_DIR`, …) is
//! taken out of its environment: flags for the host are wrong for the machine.

mod mutant;

pub use mutant::{Seeded, parse as parse_mutant};

use crate::endian::Endian;
use crate::paths;
use crate::setup::toolchain::{self, Toolchain};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;

/// Builds PROM and monitor for both endiannesses (or one).
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cargo xtask build                   both endiannesses
  cargo xtask build --endian little   the default machine only")]
pub struct Args {
    /// Build for this byte order only.
    #[arg(long)]
    endian: Option<Endian>,
}

/// What a build leaves behind.
#[derive(Debug, Clone)]
pub struct Built {
    /// The PROM, an ELF for low RAM.
    pub boot_elf: PathBuf,
    /// The monitor, an ELF with its symbols and line tables.
    pub kernel_elf: PathBuf,
    /// The compiler's version line, for results.
    pub compiler: String,
}

/// Runs the command.
///
/// # Errors
/// Set-up or the build itself failed.
pub fn main(args: &Args) -> Result<ExitCode> {
    for endian in Endian::ALL {
        if args.endian.is_none_or(|only| only == endian) {
            let built = monitor(endian)?;
            println!("{endian}: {}", built.boot_elf.display());
            println!("{endian}: {}", built.kernel_elf.display());
            println!("{endian}: compiled by {}", built.compiler);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds PROM and monitor for one byte order, getting the compiler first if need be.
///
/// # Errors
/// There is no compiler, or the build failed (cargo has then said why).
pub fn monitor(endian: Endian) -> Result<Built> {
    mutated(endian, None)
}

/// The same with a seeded mistake in the monitor.
///
/// # Errors
/// As [`monitor`].
pub fn mutated(endian: Endian, seeded: Option<Seeded>) -> Result<Built> {
    let toolchain = toolchain::toolchain()?;
    // One cargo run each: in a common one cargo would unite their features, and the PROM, which has
    // no allocator, would get the parts of its libraries that need one.
    Ok(Built {
        boot_elf: package(&toolchain, "boot", "boot", endian)?,
        kernel_elf: seeded_package(&toolchain, "kernel", "kernel", endian, seeded)?,
        compiler: toolchain.version,
    })
}

/// Our own guests, packages below `tests/guests`: image, its package, and the package of the programs
/// that are a part of it, which has to be built before.
pub const GUESTS: [(&str, &str, Option<&str>); 4] = [
    ("hello", "hello", None),
    ("hello-kseg0", "hello", None),
    ("irix", "irix", Some("irix-user")),
    ("irix-kseg0", "irix", Some("irix-user")),
];

/// Builds one of our own guests and returns its ELF.
///
/// # Errors
/// As [`monitor`]; or there is no such guest.
pub fn guest(image: &str, endian: Endian) -> Result<PathBuf> {
    let toolchain = toolchain::toolchain()?;
    let Some((_, name, programs)) = GUESTS.iter().find(|(name, ..)| *name == image) else {
        bail!("{image} is no guest of ours");
    };
    if let Some(programs) = programs {
        package(&toolchain, programs, programs, endian)?;
    }
    package(&toolchain, name, image, endian)
}

/// Builds a program of ours for a stock Linux guest, a package below `tests/guests`, and returns its ELF.
///
/// # Errors
/// As [`monitor`].
pub fn program(name: &str, endian: Endian) -> Result<PathBuf> {
    package(&toolchain::toolchain()?, name, name, endian)
}

/// Builds a plugin for QEMU (a package below `tests/plugins`), for the host, and returns the library
/// that QEMU loads.
///
/// # Errors
/// The build failed (cargo has then said why).
pub fn plugin(package: &str, library: &str) -> Result<PathBuf> {
    let target = paths::workspace().join("target/plugins");
    // The cargo that runs this program, not the first in PATH.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(&cargo)
        .current_dir(paths::workspace())
        .args(["build", "--quiet", "--release", "--package", package, "--target-dir"])
        .arg(&target)
        .status()
        .with_context(|| format!("cannot run {}", cargo.display()))?;
    if !status.success() {
        bail!("{package} does not build: see cargo's message above");
    }
    Ok(target.join("release").join(format!("lib{library}.so")))
}

/// Set in the environment of a program that is to use what is built, without looking whether it is up to date: cargo
/// lets one build at a time look.
pub const IS_BUILT: &str = "HONEYCOMB_IS_BUILT";

/// Packages that this process has built: they are not looked at again, however many machines it boots.
static DONE: Mutex<Vec<(String, Endian, Option<Seeded>)>> = Mutex::new(Vec::new());

/// Builds a package and returns its binary of that name.
fn package(toolchain: &Toolchain, name: &str, binary: &str, endian: Endian) -> Result<PathBuf> {
    seeded_package(toolchain, name, binary, endian, None)
}

fn seeded_package(
    toolchain: &Toolchain,
    name: &str,
    binary: &str,
    endian: Endian,
    seeded: Option<Seeded>,
) -> Result<PathBuf> {
    let target = seeded.map_or_else(paths::metal_target_dir, |seeded| seeded.target_dir());
    let binary = target.join(endian.target()).join("release").join(binary);
    // Held while it builds: whoever else wants it needs it too.
    let mut done = DONE.lock().expect("a build does not panic");
    let is_done = std::env::var_os(IS_BUILT).is_some();
    let this = (name.to_owned(), endian, seeded);
    if is_done || done.contains(&this) {
        return Ok(binary);
    }
    let mut command = command(toolchain, endian, name, &target);
    if let Some(seeded) = seeded {
        command.args(["--features", "mutants"]).env(seeded.variable(), seeded.name());
    }
    let status =
        command.status().with_context(|| format!("cannot run {}", toolchain.cargo.display()))?;
    if !status.success() {
        bail!("{name} does not build for a {endian}-endian machine: see cargo's message above");
    }
    done.push(this);
    Ok(binary)
}

/// Where a bare-metal binary lies once it is built.
pub fn built(binary: &str, endian: Endian) -> PathBuf {
    paths::metal_target_dir().join(endian.target()).join("release").join(binary)
}

/// Whether a variable of the environment would change what the inner cargo builds.
fn is_for_host_builds(name: &str) -> bool {
    // CARGO_HOME and CARGO_HTTP_…, CARGO_NET_… say where and how to get crates: these stay.
    const KEPT: [&str; 4] = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_TERM_"];
    const CLEARED: [&str; 5] = ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTDOCFLAGS"];
    let registries = name.starts_with("CARGO_REGISTR") || name.starts_with("CARGO_SOURCE");
    if registries || KEPT.iter().any(|kept| name.starts_with(kept)) {
        return false;
    }
    CLEARED.contains(&name) || name.starts_with("CARGO_") || name.starts_with("RUSTC_")
}

/// The inner cargo's command line.
fn command(toolchain: &Toolchain, endian: Endian, package: &str, target: &Path) -> Command {
    let root = paths::workspace();
    let mut cargo = Command::new(&toolchain.cargo);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_for_host_builds) {
            cargo.env_remove(name);
        }
    }
    let linker =
        format!("CARGO_TARGET_{}_LINKER", endian.target().to_ascii_uppercase().replace('-', "_"));
    cargo
        .current_dir(root)
        .env("RUSTC", &toolchain.rustc)
        // Set but empty, they also beat the user's own configuration files of cargo.
        .env("CARGO_ENCODED_RUSTFLAGS", "")
        .env("RUSTC_WRAPPER", "")
        // asm! for MIPS and building the library are unstable features of a stable compiler.
        .env("RUSTC_BOOTSTRAP", "1")
        .env(linker, &toolchain.linker)
        .args(["build", "--release", "--package", package])
        .arg("--target")
        .arg(root.join("linker").join(endian.target()).with_extension("json"))
        .arg("--target-dir")
        .arg(target)
        .args(["-Zjson-target-spec", "-Zbuild-std=core,alloc,compiler_builtins"])
        .arg("-Zbuild-std-features=compiler-builtins-mem");
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_flags_do_not_reach_the_inner_build() {
        for name in ["RUSTC", "RUSTFLAGS", "CARGO_TARGET_DIR", "CARGO_ENCODED_RUSTFLAGS"] {
            assert!(is_for_host_builds(name), "{name}");
        }
        for name in ["RUSTC_WRAPPER", "CARGO_BUILD_TARGET", "CARGO_PROFILE_RELEASE_LTO", "CARGO"] {
            assert!(is_for_host_builds(name), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_HTTP_PROXY", "CARGO_REGISTRIES_X_INDEX", "PATH", "HOME"] {
            assert!(!is_for_host_builds(name), "{name}");
        }
        for name in ["CARGO_NET_OFFLINE", "CARGO_SOURCE_CRATES_IO_REPLACE_WITH", "RUSTUP_HOME"] {
            assert!(!is_for_host_builds(name), "{name}");
        }
    }
}
