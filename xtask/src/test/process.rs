//! Runs a program to its end, or to a limit of time, with all its output in a file.

use super::folder;
use anyhow::{Context, Result};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What became of a program.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status; `None`: it was killed at the limit.
    pub status: Option<ExitStatus>,
    /// Everything it printed.
    pub output: String,
}

/// A line of a shell that runs the same.
pub fn shell_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| crate::run::quote(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// `cargo xtask`, as it is typed, and this very program, which runs instead: cargo would wait for
/// others of its kind, and the file may have been built anew since.
pub fn xtask(args: &[impl AsRef<OsStr>]) -> (Command, String) {
    let mut typed = Command::new("cargo");
    typed.arg("xtask").args(args);
    let mut command = Command::new("/proc/self/exe");
    command.args(args).current_dir(crate::paths::workspace());
    (command, shell_line(&typed))
}

/// Runs a program; its output goes to `target/tests/NAME.out` as well.
///
/// # Errors
/// When it can't be started or watched.
pub fn run(command: Command, name: &str, limit: Duration) -> Result<Ended> {
    run_with(command, &[], name, limit)
}

/// The same with `input` typed at it.
///
/// # Errors
/// As for [`run`].
pub fn run_with(mut command: Command, input: &[u8], name: &str, limit: Duration) -> Result<Ended> {
    fs::create_dir_all(folder())?;
    let path: PathBuf = folder().join(format!("{name}.out"));
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    let mut child = command
        .stdin(typed(input)?)
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("can't run {}", command.get_program().to_string_lossy()))?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if start.elapsed() >= limit {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let output = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
    Ok(Ended { status, output })
}

/// A file of `input`, to be read from its start.
fn typed(input: &[u8]) -> Result<Stdio> {
    if input.is_empty() {
        return Ok(Stdio::null());
    }
    let mut file = tempfile::tempfile()?;
    file.write_all(input)?;
    file.rewind()?;
    Ok(file.into())
}

/// The last lines of an output, for a report.
pub fn tail(output: &str, lines: usize) -> Vec<String> {
    let all: Vec<_> = output.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| format!("| {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_end_or_are_ended() {
        let sh = |text: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", text]);
            command
        };
        let ended = run(sh("echo a; echo b >&2; exit 3"), "self-process", Duration::from_secs(60));
        let ended = ended.unwrap();
        assert_eq!(ended.status.unwrap().code(), Some(3));
        assert_eq!(ended.output, "a\nb\n");
        let hung = run(sh("exec sleep 60"), "self-hung", Duration::from_millis(50)).unwrap();
        assert!(hung.status.is_none());
        assert_eq!(shell_line(&sh("a b")), "sh -c 'a b'");
        let echo = run_with(sh("cat"), b"x\n", "self-typed", Duration::from_secs(60)).unwrap();
        assert_eq!(echo.output, "x\n");
        assert_eq!(tail("1\n2\n3\n", 2), ["| 2", "| 3"]);
        assert_eq!(tail("1", 2), ["| 1"]);
    }
}
