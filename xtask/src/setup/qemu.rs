//! The emulator: the pinned one from the cache, or one of the operator's own.

use super::lock::Group;
use super::toolchain::{find_in_path, is_executable, output_of};
use crate::endian::Endian;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest emulator whose machine behaves as the monitor expects.
const OLDEST: u32 = 10;

/// An emulator, ready to be started.
#[derive(Debug, Clone)]
pub struct Qemu {
    /// The program.
    pub program: PathBuf,
    /// Its version line, for results.
    pub version: String,
}

impl Qemu {
    /// The beginning of a command line.
    pub fn command(&self) -> Command {
        Command::new(&self.program)
    }
}

/// The emulator for a byte order: `own` if the operator names one, else the pinned one, fetched if
/// need be; where Debian's packages can't be had, one in `PATH`.
///
/// # Errors
/// There is none, or it is too old.
pub fn qemu(endian: Endian, own: Option<&Path>) -> Result<Qemu> {
    if let Some(program) = own {
        if !is_executable(program) {
            bail!(
                "{}: not a program; --qemu takes the path of {}",
                program.display(),
                endian.qemu()
            );
        }
        return own_qemu(program.to_owned());
    }
    if is_own_preferred() {
        let program = find_in_path(endian.qemu()).with_context(|| {
            format!("{} is not in PATH: install QEMU {OLDEST} or newer", endian.qemu())
        })?;
        return own_qemu(program);
    }
    let store = super::provide(&[Group::Qemu])?;
    let program = store.folder(Group::Qemu).join(endian.qemu());
    let version = version_line(&program)?;
    Ok(Qemu { program, version })
}

/// Whether the operator's own emulator is to be used although none was named: where Debian's
/// packages can't be.
pub fn is_own_preferred() -> bool {
    let has_own = || find_in_path(Endian::Little.qemu()).is_some();
    super::can_fetch().is_err() && !super::is_cached(Group::Qemu) && has_own()
}

/// An emulator of the operator's own, if it is new enough.
fn own_qemu(program: PathBuf) -> Result<Qemu> {
    let qemu = Qemu { version: version_line(&program)?, program };
    match major(&qemu.version) {
        Some(version) if version >= OLDEST => Ok(qemu),
        Some(_) => bail!(
            "{} is {}: QEMU {OLDEST} or newer is needed",
            qemu.program.display(),
            qemu.version
        ),
        None => bail!("{} is not a QEMU: it says {:?}", qemu.program.display(), qemu.version),
    }
}

/// The first line that an emulator says about itself.
fn version_line(program: &Path) -> Result<String> {
    let text = output_of(Command::new(program).arg("--version"))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// The major version in `QEMU emulator version 10.0.2 (…)`.
fn major(line: &str) -> Option<u32> {
    line.strip_prefix("QEMU emulator version ")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A program that prints a line.
    fn program(dir: &Path, line: &str) -> PathBuf {
        let file = dir.join("qemu");
        std::fs::write(&file, format!("#!/bin/sh\necho '{line}'\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        file
    }

    #[test]
    fn the_operators_own_is_checked() {
        let dir = tempfile::tempdir().unwrap();
        let file = program(dir.path(), "QEMU emulator version 10.1.0 (v10.1.0)");
        let own = qemu(Endian::Big, Some(&file)).unwrap();
        assert_eq!(own.version, "QEMU emulator version 10.1.0 (v10.1.0)");
        assert_eq!(own.command().get_program(), file.as_os_str());

        program(dir.path(), "QEMU emulator version 7.2.19 (Debian)");
        let error = qemu(Endian::Big, Some(&file)).unwrap_err().to_string();
        assert!(error.contains("7.2.19") && error.contains("QEMU 10 or newer"), "{error}");

        program(dir.path(), "hello");
        let error = qemu(Endian::Big, Some(&file)).unwrap_err().to_string();
        assert!(error.contains("is not a QEMU"), "{error}");

        let none = dir.path().join("none");
        let error = qemu(Endian::Big, Some(&none)).unwrap_err().to_string();
        assert!(error.contains("none: not a program"), "{error}");
    }
}
