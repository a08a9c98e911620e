//! Runs the manifest's boots and judges them.

use super::bare::{Part, difference};
use super::manifest::{Attach, Boot, Manifest, Other};
use super::place::{Place, relative};
use super::process::{Ended, run, run_with, tail, xtask};
use super::{Test, Verdict};
use crate::console;
use crate::endian::Endian;
use crate::setup::{self, Need};
use anyhow::{Context, Result, anyhow};
use regex_automata::meta::Regex;
use regex_automata::util::syntax;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What no boot may print: the monitor's last words, and those of the host tool about a broken run.
const FORBIDDEN: [&str; 3] =
    ["^boot\\| (prom|monitor): panic", "^run: the monitor panicked", "^thread '.*' panicked at"];
/// `run`'s exit status after a panic of the monitor.
const STATUS_PANIC: u8 = 3;
/// What a boot may take beyond its own time-out, which ends it in an orderly way: building, mostly.
const GRACE: Duration = Duration::from_secs(60);

/// Gets and builds everything that the boots need, once.
///
/// # Errors
/// Set-up or a build failed.
pub fn prepare(manifest: &Manifest) -> Result<()> {
    setup::ensure(&[Need::Compiler, Need::Qemu, Need::Guest, Need::Debian])?;
    setup::guest::debian()?;
    let orders = |boot: &Boot| {
        if boot.endian.is_empty() { vec![Endian::Little] } else { boot.endian.clone() }
    };
    for endian in Endian::ALL {
        let boots = manifest.boot.iter().any(|boot| orders(boot).contains(&endian));
        if boots || manifest.bare.iter().any(|bare| bare.endian.contains(&endian)) {
            crate::build::monitor(endian)?;
            for guest in crate::build::GUESTS {
                crate::build::guest(guest.0, endian)?;
            }
        }
    }
    Ok(())
}

/// The manifest's tests.
pub fn tests(manifest: &Manifest) -> Vec<Test> {
    let mut tests = Vec::new();
    for boot in &manifest.boot {
        let orders: Vec<_> = if boot.endian.is_empty() {
            vec![None]
        } else {
            boot.endian.iter().copied().map(Some).collect()
        };
        for endian in orders {
            let name = match endian {
                Some(endian) if boot.endian.len() > 1 => format!("{}-{endian}", boot.name),
                _ => boot.name.clone(),
            };
            let (boot, what) = (boot.clone(), boot.what.clone());
            let run = {
                let name = name.clone();
                Box::new(move || judge(&name, boot_test(&name, &boot, endian)))
            };
            tests.push(Test { name, what, is_boot: true, by_name: false, run });
        }
    }
    for bare in &manifest.bare {
        for machine in super::bare::machines(bare) {
            let (name, what, bare) = (machine.name.clone(), bare.what.clone(), bare.clone());
            let run = Box::new(move || judge(&machine.name, super::bare::test(&bare, &machine)));
            tests.push(Test { name, what, is_boot: true, by_name: false, run });
        }
    }
    for other in manifest.command.iter().cloned() {
        let (name, what, by_name) = (other.name.clone(), other.what.clone(), other.by_name);
        let run = Box::new(move || judge(&other.name, other_test(&other)));
        tests.push(Test { name, what, is_boot: true, by_name, run });
    }
    tests
}

/// What went wrong, with the command that does it again; nothing: it passed.
type Outcome = Result<(Vec<String>, String)>;

fn judge(name: &str, outcome: Outcome) -> Verdict {
    match outcome {
        Ok((why, _)) if why.is_empty() => Verdict::Passed,
        Ok((why, reproduce)) => Verdict::Failed { why, reproduce },
        Err(error) => Verdict::Failed {
            why: vec![format!("unknown: {error:#}")],
            reproduce: format!("cargo xtask test {name}"),
        },
    }
}

fn boot_test(name: &str, boot: &Boot, endian: Option<Endian>) -> Outcome {
    let place = Place::new(name)?;
    let mut args: Vec<String> = vec!["run".into()];
    for (flag, file, text) in
        [("--config", "machine.toml", &boot.config), ("--script", "script", &boot.script)]
    {
        if let Some(text) = text {
            args.extend([flag.to_string(), place.write(file, text)?]);
        }
    }
    if let Some(endian) = endian {
        args.extend(["--endian".into(), endian.to_string()]);
    }
    args.extend(["--timeout".into(), boot.timeout.to_string()]);
    let typed = relative(place.path());
    args.extend(boot.args.iter().map(|arg| arg.replace("{dir}", &typed)));

    let (first, why, reproduce) = one_run(&place, "1", boot, &args)?;
    if !why.is_empty() {
        return Ok((why, reproduce));
    }
    if boot.twice {
        let (second, why, reproduce) = one_run(&place, "2", boot, &args)?;
        if !why.is_empty() {
            return Ok((why, reproduce));
        }
        let differing = differing(&first, &second)?;
        if !differing.is_empty() {
            let differing = differing.join(", ");
            return Ok((vec![format!("two runs differ in {differing}; see {typed}")], reproduce));
        }
    }
    if let Some(seed) = boot.other_seed {
        let mut args = args.clone();
        args.extend(["--seed".into(), seed.to_string()]);
        let (other, why, reproduce) = one_run(&place, "seed", boot, &args)?;
        if !why.is_empty() {
            return Ok((why, reproduce));
        }
        if differing(&first, &other)?.is_empty() {
            return Ok((vec![format!("seed {seed} changed nothing")], reproduce));
        }
    }
    Ok((Vec::new(), reproduce))
}

/// One run of a boot, its logs in a folder of their own; what was wrong with it.
fn one_run(
    place: &Place,
    run_name: &str,
    boot: &Boot,
    args: &[String],
) -> Result<(PathBuf, Vec<String>, String)> {
    let logs = place.empty(run_name)?.path().to_owned();
    let name = place.name();
    let mut args = args.to_vec();
    args.extend(["--log".into(), relative(&logs)]);
    args.extend(["--events".into(), relative(&logs.join("events.jsonl"))]);
    let (mut command, reproduce) = xtask(&args);
    let limit = Duration::from_secs(boot.timeout) + GRACE;
    // Where an operator's own `cargo xtask console` does not look, and finds one run only.
    let runs = logs.join("runs");
    command.env(console::VARIABLE, &runs);
    let (ended, attached) = std::thread::scope(|scope| {
        let attach = |(i, attach): (usize, &'_ Attach)| {
            let (name, attach) = (format!("{name}-{run_name}-console{i}"), attach.clone());
            let runs = &runs;
            scope.spawn(move || attached(&name, &attach, runs, limit))
        };
        let consoles: Vec<_> = boot.attach.iter().enumerate().map(attach).collect();
        let ended = run(command, &format!("{name}-{run_name}"), limit);
        let joined = consoles.into_iter().map(|console| console.join().expect("it has ended"));
        (ended, joined.collect::<Result<Vec<_>>>())
    });
    let ended = ended?;
    // It is empty by now; what is left in it would be a difference between two runs.
    let _ = fs::remove_dir(&runs);
    // A boot that is to end in a panic prints one.
    let usual = if boot.status == STATUS_PANIC { &FORBIDDEN[2..] } else { &FORBIDDEN[..] };
    let forbidden: Vec<_> =
        usual.iter().map(|text| text.to_string()).chain(boot.forbidden.iter().cloned()).collect();
    let mut why = wrong(&ended, boot.status, &boot.markers, &forbidden)?;
    why.extend(attached?.concat());
    for pattern in &boot.equal {
        why.extend(unequal(&ended.output, pattern)?);
    }
    for (files, part) in [(&boot.output, Part::All), (&boot.excerpt, Part::Excerpt)] {
        for (vm, file) in files {
            let log = logs.join(vm).with_extension("log");
            // A run that failed early has no such file; why it failed is known already.
            let console = fs::read(&log).unwrap_or_default();
            let difference = difference(&String::from_utf8_lossy(&console), file, part)?;
            why.extend(difference.map(|difference| format!("{vm}: {difference}")));
        }
    }
    Ok((logs, why, reproduce))
}

/// Attaches to a console of the run that has its folder in `runs`, until it ends; what was wrong.
fn attached(name: &str, attach: &Attach, runs: &Path, limit: Duration) -> Result<Vec<String>> {
    let wait = limit.as_secs().to_string();
    let (mut command, _) = xtask(&["console", &attach.console, "--wait", &wait].map(String::from));
    command.env(console::VARIABLE, runs);
    let ended = run_with(command, attach.types.as_bytes(), name, limit)?;
    let wrong = wrong(&ended, 0, &attach.markers, &[])?;
    Ok(wrong.into_iter().map(|why| format!("console {}: {why}", attach.console)).collect())
}

fn other_test(other: &Other) -> Outcome {
    let (command, reproduce) = xtask(&other.args);
    let ended = run(command, &other.name, Duration::from_secs(other.timeout))?;
    let forbidden = [FORBIDDEN[2].to_string()];
    Ok((wrong(&ended, other.status, &other.markers, &forbidden)?, reproduce))
}

/// What is wrong with how a run ended.
fn wrong(
    ended: &Ended,
    status: u8,
    markers: &[String],
    forbidden: &[String],
) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    match ended.status.map(|status| status.code()) {
        Some(Some(code)) if code == i32::from(status) => {}
        Some(Some(code)) => wrong.push(format!("exit status {code} instead of {status}")),
        Some(None) => wrong.push("unknown: ended by a signal".into()),
        None => wrong.push("unknown: it did not end in time".into()),
    }
    for marker in markers {
        let regex = regex(marker)?;
        if !ended.output.lines().any(|line| regex.is_match(line.as_bytes())) {
            wrong.push(format!("no line matches {marker:?}"));
        }
    }
    for pattern in forbidden {
        let regex = regex(pattern)?;
        if let Some(line) = ended.output.lines().find(|line| regex.is_match(line.as_bytes())) {
            wrong.push(format!("forbidden line: {line}"));
        }
    }
    if !wrong.is_empty() {
        wrong.push("the end of its output:".into());
        wrong.extend(tail(&ended.output, 25));
    }
    Ok(wrong)
}

/// What is wrong with the matches of an expression that are all to be the same.
fn unequal(output: &str, pattern: &str) -> Result<Option<String>> {
    let regex = regex(pattern)?;
    let found: Vec<&str> = output
        .lines()
        .filter_map(|line| regex.find(line.as_bytes()).map(|at| &line[at.range()]))
        .collect();
    Ok(match found[..] {
        [] | [_] => Some(format!("{} lines match {pattern:?}: at least 2 are wanted", found.len())),
        [first, ref more @ ..] => more
            .iter()
            .find(|other| **other != first)
            .map(|other| format!("{first:?}, then {other:?}")),
    })
}

/// An expression of the manifest: on bytes, as those of scripts.
fn regex(pattern: &str) -> Result<Regex> {
    let bytes = syntax::Config::new().unicode(false).utf8(false);
    let named = |error| anyhow!("{pattern:?} in the manifest: {error}");
    Regex::builder().syntax(bytes).build(pattern).map_err(named)
}

/// Names of the files that differ between two folders of logs.
fn differing(first: &Path, second: &Path) -> Result<Vec<String>> {
    let names = |folder: &Path| -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    };
    let mut all = names(first)?;
    all.extend(names(second)?);
    all.sort();
    all.dedup();
    all.retain(|name| fs::read(first.join(name)).ok() != fs::read(second.join(name)).ok());
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    fn ended(code: Option<i32>, output: &str) -> Ended {
        Ended { status: code.map(|code| ExitStatus::from_raw(code << 8)), output: output.into() }
    }

    #[test]
    fn status_markers_and_forbidden_lines_must_agree() {
        let strings = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        let judge = |code, output| {
            let (markers, forbidden) = (strings(&["^a| done$"]), strings(&["pan.c"]));
            wrong(&ended(code, output), 0, &markers, &forbidden).unwrap()
        };
        assert_eq!(judge(Some(0), "x\na| done\n"), [""; 0]);
        assert_eq!(judge(Some(1), "a| done")[0], "exit status 1 instead of 0");
        assert_eq!(judge(None, "a| done")[0], "unknown: it did not end in time");
        let marker = wrong(&ended(Some(0), "x"), 0, &strings(&["^done$"]), &[]).unwrap();
        assert_eq!(marker[0], "no line matches \"^done$\"");
        assert_eq!(judge(Some(0), "a| done\npanic")[0], "forbidden line: panic");
        assert!(wrong(&ended(Some(0), ""), 0, &strings(&["("]), &[]).is_err());
    }

    #[test]
    fn what_must_be_equal_is_there_and_is() {
        let judge = |output| unequal(output, "^heap: [0-9]+").unwrap().is_none();
        assert!(judge("heap: 12 of 20\nx\nheap: 12 of 21"));
        assert!(!judge("heap: 12\nheap: 13"));
        assert!(!judge("heap: 12"));
    }

    #[test]
    fn logs_are_compared_file_by_file() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (name, left, right) in [("same", "x", "x"), ("other", "x", "y")] {
            fs::write(a.path().join(name), left).unwrap();
            fs::write(b.path().join(name), right).unwrap();
        }
        fs::write(a.path().join("extra"), "").unwrap();
        assert_eq!(differing(a.path(), b.path()).unwrap(), ["extra", "other"]);
    }
}
