//! The compiler of the bare-metal side, and the host's own cargo and linker.
//!
//! `core` and `alloc` have to be compiled for the machine, so a compiler is of use only together
//! with the library source of exactly its version. Two places are looked at: the active toolchain,
//! when somebody has added its `rust-src`, and Debian's packages unpacked in the cache.

use super::lock::Group;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A compiler with its library source, and the cargo and linker that go with it.
#[derive(Debug, Clone)]
pub struct Toolchain {
    /// The cargo that drives the build: the one that runs xtask.
    pub cargo: PathBuf,
    /// The compiler, fit to stand in `RUSTC`.
    pub rustc: PathBuf,
    /// An LLD that links for MIPS.
    pub linker: PathBuf,
    /// The source of the compiler's library: a workspace of cargo.
    pub library: PathBuf,
    /// What `rustc --version` says, for results.
    pub version: String,
}

/// What the host's own Rust installation offers.
#[derive(Debug, Clone)]
pub struct Host {
    /// The cargo that runs xtask.
    pub cargo: PathBuf,
    /// The compiler beside it.
    pub rustc: PathBuf,
    /// Its system root.
    pub sysroot: PathBuf,
    /// The host's target triple.
    pub triple: String,
    /// What its version line says.
    pub version: String,
}

/// Whether a compiler's system root carries the source of its library.
fn has_library_source(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/Cargo.lock").is_file()
}

/// Runs a program and returns its trimmed standard output.
pub fn output_of(command: &mut Command) -> Result<String> {
    let out = command
        .output()
        .with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
    if !out.status.success() {
        bail!(
            "{} failed: {}",
            command.get_program().to_string_lossy(),
            String::from_utf8_lossy(&out.stderr).lines().next().unwrap_or("no message")
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

impl Host {
    /// Asks the cargo that runs xtask, and the compiler beside it.
    ///
    /// `RUSTC` from the environment is left aside on purpose: it may name any compiler, and host
    /// tests must not change with it.
    ///
    /// # Errors
    /// There is no working `rustc`.
    pub fn find() -> Result<Self> {
        let cargo = std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from);
        let sibling = cargo.with_file_name("rustc");
        let rustc = if sibling.is_file() { sibling } else { "rustc".into() };
        let sysroot = output_of(Command::new(&rustc).args(["--print", "sysroot"]))?;
        let verbose = output_of(Command::new(&rustc).arg("-vV"))?;
        let triple = verbose
            .lines()
            .find_map(|line| line.strip_prefix("host: "))
            .context("rustc -vV names no host")?;
        let version = verbose.lines().next().unwrap_or_default().to_owned();
        Ok(Self { cargo, rustc, sysroot: sysroot.into(), triple: triple.to_owned(), version })
    }

    /// Whether this compiler can build for the bare machine by itself.
    pub fn is_enough(&self) -> bool {
        has_library_source(&self.sysroot)
    }

    /// The LLD that comes with the toolchain, else one in `PATH`.
    ///
    /// # Errors
    /// There is neither.
    pub fn linker(&self) -> Result<PathBuf> {
        let own = self.sysroot.join("lib/rustlib").join(&self.triple).join("bin/rust-lld");
        if own.is_file() {
            return Ok(own);
        }
        find_in_path("ld.lld").with_context(|| {
            format!(
                "no linker for the bare machine: neither {} nor ld.lld in PATH; \
                 use a toolchain installed by rustup, or install lld",
                own.display()
            )
        })
    }
}

/// The first executable file of that name in `PATH`.
pub fn find_in_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
}

/// Whether this is a file that may be run.
pub fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The toolchain that builds for the bare machine, fetched if need be.
///
/// # Errors
/// There is no compiler with library source, and none can be had.
pub fn toolchain() -> Result<Toolchain> {
    let host = Host::find()?;
    let linker = host.linker()?;
    let (rustc, sysroot) = if host.is_enough() {
        (host.rustc.clone(), host.sysroot)
    } else {
        let folder = super::provide(&[Group::Compiler])?.folder(Group::Compiler);
        (folder.join("rustc"), folder.join("usr"))
    };
    let version = version(&rustc)?;
    let library = sysroot.join("lib/rustlib/src/rust/library");
    Ok(Toolchain { cargo: host.cargo, rustc, linker, library, version })
}

/// What a compiler says about itself.
///
/// # Errors
/// It does not run.
pub fn version(rustc: &Path) -> Result<String> {
    output_of(Command::new(rustc).arg("--version"))
}
