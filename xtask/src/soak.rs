//! `cargo xtask soak`: sixteen CPUs on one host core, beside a busy loop.
//!
//! Nothing is wrong with such a machine, it is only slow, and each of its CPUs stands still for long times.
//! No cell may take another for dead, the monitor's console answers, and every VM makes progress.

use crate::endian::Endian;
use crate::test::place::Place;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Runs a large machine on one host core beside a busy loop.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cargo xtask soak                     8 cells of 2 CPUs, 5 minutes
  cargo xtask soak --minutes 1 --endian big

Exit status: 0 every VM made progress all the time, 1 not so, 2 a set-up problem.")]
pub struct Args {
    /// How long, in minutes of host time.
    #[arg(long, value_name = "N", default_value_t = 5)]
    minutes: u64,
    /// The host's core.
    #[arg(long, value_name = "N", default_value_t = 0)]
    core: u32,
    /// The machine's byte order.
    #[arg(long, default_value_t)]
    endian: Endian,
}

const NODES: u32 = 8;
/// How long a VM may make no progress.
const LONGEST: Duration = Duration::from_secs(5);
/// For the machine to come up, before anything is expected of its VMs.
const START: Duration = Duration::from_secs(60);
/// What no line may say.
const FORBIDDEN: [&str; 4] = ["panic", "suspect", "WRONG", "FAILED"];

/// A VM a cell, of one, two or four VCPUs, that computes for ever.
fn config() -> String {
    let mut out = format!("[machine]\nnodes = {NODES}\ncpus_per_node = 2\n");
    for node in 0..NODES {
        // Writing to a string does not fail.
        let _ = write!(out, "[[cell]]\nnodes = [{node}]\n");
    }
    for cell in 0..NODES {
        let vcpus = [1, 2, 4][cell as usize % 3];
        let _ = write!(
            out,
            "[[vm]]\nname = \"irix-{cell}\"\nkernel = \"irix\"\nmemory = \"16M\"\nvcpus = {vcpus}\n\
             cells = [{cell}]\ncmdline = \"do=check\"\nrestart = \"always\"\n"
        );
    }
    out
}

/// Asks for the VCPUs' times, a second between two times.
fn script(minutes: u64) -> String {
    "console monitor\n".to_string() + &"send vcpus\nwait 1\n".repeat(60 * minutes as usize)
}

/// What is known of a VM.
#[derive(Clone, Copy, Debug)]
struct Seen {
    run_ms: u64,
    /// When its run time last grew.
    at: Instant,
}

/// What is known of all, from a run's lines as they come.
#[derive(Debug)]
struct Watch {
    begun: Instant,
    /// When the last line came. Ending the machine, after it, is nobody's standing still.
    last: Instant,
    vms: BTreeMap<String, Seen>,
    /// Times of the table that is being printed, by VM.
    table: BTreeMap<String, u64>,
    /// The longest time without progress, and when, since the beginning, it was over.
    longest: BTreeMap<String, (Duration, Duration)>,
    wrong: Vec<String>,
}

/// A line of `vcpus`: the VM and the VCPU's run time in milliseconds.
fn vcpu(line: &str) -> Option<(&str, u64)> {
    let mut words = line.strip_prefix("monitor| ")?.split_whitespace();
    let (vm, number) = words.next()?.rsplit_once('.')?;
    number.parse::<u32>().ok()?;
    Some((vm, words.nth(4)?.parse().ok()?))
}

impl Watch {
    fn new(now: Instant) -> Self {
        Self {
            begun: now,
            last: now,
            vms: BTreeMap::new(),
            table: BTreeMap::new(),
            longest: BTreeMap::new(),
            wrong: Vec::new(),
        }
    }

    /// A line came at `now`.
    fn line(&mut self, line: &str, now: Instant) {
        self.last = now;
        if let Some((vm, ms)) = vcpu(line) {
            *self.table.entry(vm.into()).or_default() += ms;
        } else if line.contains("vcpus") {
            self.table_ends(now);
        }
        if FORBIDDEN.iter().any(|word| line.contains(word)) {
            self.wrong.push(line.into());
        }
    }

    fn table_ends(&mut self, now: Instant) {
        let table = core::mem::take(&mut self.table);
        for vm in table.keys() {
            self.vms.entry(vm.clone()).or_insert(Seen { run_ms: 0, at: now });
        }
        for (vm, seen) in &mut self.vms {
            // Up to now, whether it has made progress just now or not.
            let gap = now.duration_since(seen.at);
            let longest = self.longest.entry(vm.clone()).or_default();
            *longest = (gap, now.duration_since(self.begun)).max(*longest);
            // A VM that was restarted begins anew.
            if let Some(&run_ms) = table.get(vm)
                && run_ms != seen.run_ms
            {
                *seen = Seen { run_ms, at: now };
            }
        }
    }

    /// What is wrong at `now`, the end.
    fn judge(mut self, now: Instant) -> (String, Vec<String>) {
        self.table_ends(self.last);
        let mut text = String::new();
        for (vm, (longest, at)) in &self.longest {
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "{vm}: progress seen at least every {:.1} s (the longest time was over after {} s)",
                longest.as_secs_f64(),
                at.as_secs()
            );
            if *longest > LONGEST {
                self.wrong.push(format!("{vm} stood still for {:.1} s", longest.as_secs_f64()));
            }
        }
        if self.vms.len() != NODES as usize {
            self.wrong.push(format!("{} VMs were seen, not {NODES}", self.vms.len()));
        }
        if now.duration_since(self.begun) < START {
            self.wrong.push("the run was over too soon".into());
        }
        (text, self.wrong)
    }
}

/// A child that does not outlive this.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the command.
///
/// # Errors
/// A file can't be written, or the run can't be started.
pub fn main(args: &Args) -> Result<ExitCode> {
    if args.minutes == 0 {
        bail!("--minutes 0: nothing would be seen; give at least 1");
    }
    let place = Place::new("soak")?;
    let config = place.write("machine.toml", &config())?;
    let script = place.write("script", &script(args.minutes))?;
    let core = args.core.to_string();
    let pinned = |words: &[&str]| {
        let mut command = Command::new("taskset");
        command.current_dir(crate::paths::workspace()).args(["-c", &core]).args(words);
        command
    };
    let missing = "taskset (package util-linux) can't be started";
    let _busy = Killed(pinned(&["sh", "-c", "while :; do :; done"]).spawn().context(missing)?);
    let endian = args.endian.to_string();
    let exe = std::env::current_exe().context("this program's own file")?;
    let exe = exe.display().to_string();
    let words = [&exe, "run", "--config", &config, "--script", &script, "--endian", &endian];
    let mut run = Killed(pinned(&words).stdout(Stdio::piped()).spawn().context(missing)?);
    let output = run.0.stdout.take().context("the run's output")?;
    let mut watch = Watch::new(Instant::now());
    let mut whole = String::new();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("the run's output")?;
        let line = String::from_utf8_lossy(&line).into_owned();
        watch.line(&line, Instant::now());
        whole.push_str(&line);
        whole.push('\n');
    }
    let status = run.0.wait().context("the run")?;
    let (text, mut wrong) = watch.judge(Instant::now());
    let path = place.write("output", &whole)?;
    if !status.success() {
        wrong.push(format!("the run ended with {status}"));
    }
    print!("{text}");
    for line in &wrong {
        println!("{line}");
    }
    println!("soak: {} wrong; the whole output is {path}", wrong.len());
    Ok(ExitCode::from(u8::from(!wrong.is_empty())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_still_is_named() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let table = |watch: &mut Watch, now, still: u64| {
            for cell in 0..8 {
                let ms = if cell == 3 { still } else { 10 * now };
                let line = format!("monitor| irix-{cell}.0   running  0  0  {cell}  {ms}  0  0  0");
                watch.line(&line, at(now));
            }
            watch.line("monitor| honeycomb# vcpus", at(now));
        };
        let run = |still: [u64; 4], word: &str| {
            let mut watch = Watch::new(start);
            for (i, ms) in still.into_iter().enumerate() {
                table(&mut watch, 57 + 3 * i as u64, ms);
            }
            watch.line(word, at(66));
            watch.judge(at(67)).1
        };
        assert_eq!(run([1, 2, 3, 4], ""), [""; 0]);
        assert_eq!(run([1, 1, 1, 4], ""), ["irix-3 stood still for 9.0 s"]);
        assert_eq!(run([1, 2, 3, 4], "boot| monitor: panic"), ["boot| monitor: panic"]);
        let watch = Watch::new(start);
        assert_eq!(watch.judge(at(1)).1.len(), 2, "a run that shows nothing");
    }
}
