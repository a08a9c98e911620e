//! `cargo xtask test`: every test there is. First on the host (format, lints, architecture, unit and
//! property tests), then boots of the machine and other commands, from the manifest
//! `tests/boots.toml`.
//!
//! Each is one line of the report. A test whose result is unknown has not passed.

mod architecture;
pub mod bare;
mod boots;
mod host;
mod manifest;
pub mod place;
pub mod process;

use anyhow::{Result, bail};
use manifest::Manifest;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Runs every test: host-side, then boots.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cargo xtask test               everything
  cargo xtask test --list        names and what they show
  cargo xtask test host          one of them
  cargo xtask test boots hello   all boots, and what has `hello` in its name

A test whose description begins with `(by name)` runs only when it is asked for by its whole name.")]
pub struct Args {
    /// Only tests whose name contains one of these; `boots`: all that run the machine.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Print names and descriptions and do nothing.
    #[arg(long)]
    list: bool,
    /// How many boots at once (default: one for each CPU of the host).
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
}

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should.
    Passed,
    /// Not so: what was wrong, and the command that reproduces it.
    Failed {
        /// One line each.
        why: Vec<String>,
        /// To be typed in the checkout.
        reproduce: String,
    },
}

/// One test.
pub struct Test {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub what: String,
    /// Whether it runs the machine.
    pub is_boot: bool,
    /// Whether it has to be asked for by its whole name.
    pub by_name: bool,
    /// Does it.
    pub run: Box<dyn Fn() -> Verdict + Send + Sync>,
}

/// Where tests keep what they write.
pub fn folder() -> PathBuf {
    crate::paths::workspace().join("target/tests")
}

/// Runs the command.
///
/// # Errors
/// The manifest is wrong, a name is unknown, or set-up failed.
pub fn main(args: &Args) -> Result<ExitCode> {
    let manifest = Manifest::read()?;
    let mut tests = host::tests();
    tests.extend(boots::tests(&manifest));
    let tests =
        if args.list && args.names.is_empty() { tests } else { select(tests, &args.names)? };
    if args.list {
        for test in &tests {
            let how = if test.by_name { "(by name) " } else { "" };
            println!("{:24} {how}{}", test.name, test.what);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if tests.iter().any(|test| test.is_boot) {
        boots::prepare(&manifest)?;
        for line in crate::setup::versions()? {
            println!("{line}");
        }
    }
    let jobs = args
        .jobs
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
        .max(1);
    let start = Instant::now();
    let (boots, host): (Vec<_>, Vec<_>) = tests.into_iter().partition(|test| test.is_boot);
    // Cargo uses all CPUs by itself; boots have one busy CPU each.
    let mut failed = run(&host, 1);
    failed += run(&boots, jobs);
    let all = host.len() + boots.len();
    println!("{} passed, {failed} failed in {}", all - failed, seconds(start.elapsed()));
    Ok(ExitCode::from(u8::from(failed > 0)))
}

/// The tests that were asked for.
fn select(mut tests: Vec<Test>, names: &[String]) -> Result<Vec<Test>> {
    if names.is_empty() {
        tests.retain(|test| !test.by_name);
        return Ok(tests);
    }
    let wanted = |test: &Test, name: &str| {
        if test.by_name {
            test.name == name
        } else {
            test.name.contains(name) || (name == "boots" && test.is_boot)
        }
    };
    if let Some(name) = names.iter().find(|name| !tests.iter().any(|test| wanted(test, name))) {
        bail!("{name}: no test has this in its name; `cargo xtask test --list` shows all");
    }
    let asked_for = |test: &Test| names.iter().any(|name| wanted(test, name));
    Ok(tests.into_iter().filter(asked_for).collect())
}

/// Runs tests, `jobs` at once, and reports each as it ends; how many failed.
fn run(tests: &[Test], jobs: usize) -> usize {
    let (next, failed, report) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(tests.len()) {
            scope.spawn(|| {
                while let Some(test) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let start = Instant::now();
                    let verdict = (test.run)();
                    let _whole_lines = report.lock();
                    show(test, &verdict, start.elapsed());
                    if verdict != Verdict::Passed {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    failed.into_inner()
}

fn show(test: &Test, verdict: &Verdict, time: Duration) {
    let mut out = std::io::stdout().lock();
    let word = if *verdict == Verdict::Passed { "passed" } else { "FAILED" };
    // Nobody may be reading; the exit status says it too.
    let _ = writeln!(out, "{word} {:24} {:>7}  {}", test.name, seconds(time), test.what);
    if let Verdict::Failed { why, reproduce } = verdict {
        for line in why {
            let _ = writeln!(out, "    {line}");
        }
        let _ = writeln!(out, "    reproduce: {reproduce}");
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(name: &str, is_boot: bool, verdict: Verdict) -> Test {
        let run = Box::new(move || verdict.clone());
        Test { name: name.into(), what: String::new(), is_boot, by_name: false, run }
    }

    fn failed() -> Verdict {
        Verdict::Failed { why: vec!["x".into()], reproduce: "y".into() }
    }

    #[test]
    fn names_select_and_unknown_ones_are_refused() {
        let tests = || {
            let long = Test { by_name: true, ..test("hello-long", true, Verdict::Passed) };
            vec![test("host", false, Verdict::Passed), test("hello", true, failed()), long]
        };
        let names = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| name.to_string()).collect();
            select(tests(), &names).map(|t| t.into_iter().map(|t| t.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap(), ["host", "hello"]);
        assert_eq!(names(&["ho"]).unwrap(), ["host"]);
        assert_eq!(names(&["boots"]).unwrap(), ["hello"]);
        assert_eq!(names(&["hel"]).unwrap(), ["hello"]);
        assert_eq!(names(&["hello-long"]).unwrap(), ["hello-long"]);
        assert!(names(&["long"]).is_err());
        assert!(names(&["nope"]).unwrap_err().to_string().starts_with("nope: no test"));
    }

    #[test]
    fn failures_are_counted() {
        let tests: Vec<_> = (0..7)
            .map(|i| test("t", true, if i % 3 == 0 { failed() } else { Verdict::Passed }))
            .collect();
        assert_eq!(run(&tests, 4), 3);
        assert_eq!(run(&[], 4), 0);
    }
}
