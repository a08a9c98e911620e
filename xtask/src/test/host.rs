//! The tests that need no machine.

use super::process::{Ended, run, shell_line, tail};
use super::{Test, Verdict, architecture};
use crate::paths;
use std::process::Command;
use std::time::Duration;

/// Most time any of them may take, compiling included.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// All of them, cheapest first.
pub fn tests() -> Vec<Test> {
    let cargo = |name: &'static str, what: &str, args: &'static [&'static str]| Test {
        name: name.into(),
        what: what.into(),
        is_boot: false,
        by_name: false,
        run: Box::new(move || cargo(name, args)),
    };
    let mut clippy = vec!["clippy", "--quiet", "--workspace", "--all-targets"];
    if is_pinned_toolchain() {
        // Another version of the linter has other opinions: there its warnings are only printed.
        clippy.extend(["--", "-D", "warnings"]);
    }
    let clippy: &'static [&'static str] = clippy.leak();
    vec![
        Test {
            name: "architecture".into(),
            what: "no crate uses one above it; assembly only where it belongs".into(),
            is_boot: false,
            by_name: false,
            run: Box::new(|| match architecture::check(paths::workspace()) {
                Ok(wrong) if wrong.is_empty() => Verdict::Passed,
                Ok(wrong) => failed(wrong, "cargo xtask test architecture".into()),
                Err(error) => {
                    failed(vec![format!("{error:#}")], "cargo xtask test architecture".into())
                }
            }),
        },
        cargo("format", "the code is formatted", &["fmt", "--all", "--check"]),
        cargo("clippy", "the linter has nothing to say", clippy),
        cargo("host", "unit and property tests", &["test", "--quiet", "--workspace"]),
    ]
}

fn failed(why: Vec<String>, reproduce: String) -> Verdict {
    Verdict::Failed { why, reproduce }
}

fn cargo(name: &str, args: &[&str]) -> Verdict {
    let mut command = Command::new("cargo");
    command.args(args);
    let reproduce = shell_line(&command);
    // The cargo that runs this program, not the first in PATH.
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(paths::workspace());
    match run(command, name, LIMIT) {
        Err(error) => failed(vec![format!("{error:#}")], reproduce),
        Ok(Ended { status: Some(status), .. }) if status.success() => Verdict::Passed,
        Ok(ended) => {
            let mut why = vec![match ended.status {
                Some(status) => format!("{status}; the end of its output:"),
                None => format!("unknown: not done in {} s; so far:", LIMIT.as_secs()),
            }];
            if ended.output.contains("is not installed for the toolchain") {
                why.push(
                    "a part of the toolchain is missing: rustup component add clippy rustfmt"
                        .into(),
                );
            }
            why.extend(tail(&ended.output, 40));
            failed(why, reproduce)
        }
    }
}

/// Whether the toolchain is the one in `rust-toolchain.toml`.
fn is_pinned_toolchain() -> bool {
    let pinned = std::fs::read_to_string(paths::workspace().join("rust-toolchain.toml"));
    let pinned = pinned.unwrap_or_default();
    let channel =
        pinned.lines().find_map(|line| line.strip_prefix("channel = \"")?.strip_suffix('"'));
    let rustc = Command::new("rustc").arg("--version").current_dir(paths::workspace()).output();
    let version = rustc.map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
    match (channel, version) {
        (Some(channel), Ok(version)) => version.split(' ').nth(1) == Some(channel),
        _ => false,
    }
}
