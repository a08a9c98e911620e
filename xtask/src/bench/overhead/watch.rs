//! A program whose lines are noted with the time at which they come.

use super::phase::Line;
use crate::test::process::tail;
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Runs a program to its end. `console` stands before those of its lines that are wanted, and is taken off them.
///
/// # Errors
/// It could not be run, did not end in time, or did not end well; with its last lines.
pub fn watch(mut command: Command, console: &str, limit: Duration) -> Result<Vec<Line>> {
    let program = command.get_program().to_string_lossy().into_owned();
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't run {program}"))?;
    let output = child.stdout.take().context("a program without output")?;
    let (send, receive) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            // Nobody listens any more: the program is being ended.
            if send.send(Line { at: start.elapsed(), text }).is_err() {
                break;
            }
        }
    });
    let mut lines = Vec::new();
    let in_time = loop {
        match receive.recv_timeout(limit.saturating_sub(start.elapsed())) {
            Ok(line) => lines.push(line),
            Err(RecvTimeoutError::Disconnected) => break true,
            Err(RecvTimeoutError::Timeout) => break false,
        }
    };
    if !in_time {
        child.kill().with_context(|| format!("can't end {program}"))?;
    }
    let status = child.wait().with_context(|| format!("can't wait for {program}"))?;
    drop(receive);
    let _ = reader.join();
    if !in_time || !status.success() {
        let all: Vec<_> = lines.iter().map(|line| line.text.as_str()).collect();
        let end = tail(&all.join("\n"), 25).join("\n");
        if in_time {
            bail!("it ended with {status}:\n{end}");
        }
        bail!("it did not end in {} s (--limit):\n{end}", limit.as_secs());
    }
    let wanted = lines.into_iter().filter_map(|line| {
        let text = line.text.strip_prefix(console)?.to_owned();
        Some(Line { text, ..line })
    });
    Ok(wanted.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(text: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", text]);
        command
    }

    #[test]
    fn lines_come_with_their_times() {
        let script = "printf 'a| one\\r\\nb| two\\n'; sleep 0.05; echo 'a| three'";
        let lines = watch(sh(script), "a| ", Duration::from_secs(60)).unwrap();
        let texts: Vec<_> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, ["one", "three"]);
        assert!(lines[1].at >= lines[0].at + Duration::from_millis(40), "{lines:?}");
    }

    #[test]
    fn a_bad_end_is_told_with_the_last_lines() {
        let error = watch(sh("echo last; exit 3"), "", Duration::from_secs(60)).unwrap_err();
        assert!(error.to_string().ends_with("exit status: 3:\n| last"), "{error}");
        let error = watch(sh("exec sleep 60"), "", Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("it did not end in 0 s (--limit)"), "{error}");
    }
}
