//! `cargo xtask torture`: a stock kernel is made to work hard in a translated VM: stress-ng with its own checks, a compiler,
//! modules that come and go.
//!
//! Nothing may fail, and the kernel may complain of nothing; what the compiler makes is compared with what it makes on
//! the bare machine, and the monitor's heap between the parts.

use crate::endian::Endian;
use crate::run::stats::counter;
use crate::setup::root::{self, Recipe, Root};
use crate::setup::{self, Need};
use crate::test::bare::{self, Guest};
use crate::test::place::Place;
use crate::test::process;
use anyhow::{Context, Result, bail};
use std::fmt::Write;
use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Has a stock kernel work hard in a translated VM.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cargo xtask torture                                         all of it: hours
  cargo xtask torture --stress 1 --files 3 --modules 30       short
  cargo xtask torture --stress 0 --files 0                    modules only
  cargo xtask torture --threads                               stress-ng's ten minutes are the host's

Exit status: 0 nothing failed, 1 not so, 2 a set-up problem.")]
pub struct Args {
    /// Seconds of stress-ng; 0: none. Without --threads a second is 1,000 million instructions.
    #[arg(long, value_name = "S", default_value_t = 600)]
    stress: u32,
    /// Files of the program that is compiled; 0: none is.
    #[arg(long, value_name = "N", default_value_t = 20)]
    files: u32,
    /// How often a module is put in and taken out.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    modules: u32,
    /// What is random.
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// On host threads, not under icount
    #[arg(long)]
    threads: bool,
    /// Give up a machine after so many seconds of the host.
    #[arg(long, value_name = "S", default_value_t = 36_000)]
    limit: u64,
}

/// Where the packages and the scripts of the root are.
const FOLDER: &str = "tests/guests/torture";
const VM: &str = "torture";
/// Memory beside what the root needs, in megabytes.
const WORK_MEMORY: u64 = 32;
/// Memory of the cell beside the VM's, in megabytes.
const MONITOR: u64 = 128;
/// What no line of the guest's console may say.
const FORBIDDEN: [&str; 15] = [
    "FAILED",
    "fail:",
    "BUG:",
    "Oops",
    "Call Trace",
    "Kernel panic",
    "Unhandled",
    "rcu: INFO",
    "lockup",
    "blocked for more than",
    "Segmentation fault",
    "Bus error",
    "Illegal instruction",
    "internal compiler error",
    "Out of memory",
];
/// How much more of the monitor's heap may be in use after a part than after the first one, in bytes: it has no business
/// to grow, and the code of one VCPU is 4 MB.
const HEAP_GROWS: u64 = 64 << 10;

/// A part: the name of its script, and how much of it.
type Part = (&'static str, u32);

/// The compiler's part.
const TWENTY: &str = "twenty";

/// The parts that were asked for.
fn parts(args: &Args) -> Vec<Part> {
    let all = [("modules", args.modules), (TWENTY, args.files), ("stress", args.stress)];
    all.into_iter().filter(|(_, amount)| *amount > 0).collect()
}

/// The guest's command line. All messages of the kernel are to be seen but those for debugging it: that an interrupt was spurious (the
/// kernel looks at its lines once for several, and one may be served meanwhile) has come in the middle of a line of results.
fn cmdline(parts: &[Part]) -> String {
    let mut commands = "echo 7 >/proc/sys/kernel/printk".to_owned();
    for (part, amount) in parts {
        // Writing to a string does not fail.
        let _ = write!(commands, ";/etc/torture/{part} {amount}");
    }
    format!("console=ttyS0 -- sh -c \"{commands}\"")
}

fn config(root: &Root, memory: u64, parts: &[Part]) -> String {
    format!(
        "[machine]\nnodes = 1\ncpus_per_node = 1\nslice_per_node = \"{}M\"\n[[vm]]\nname = \"{VM}\"\nkernel = \"linux\"\n\
         initrd = {:?}\ncmdline = {:?}\nmemory = \"{memory}M\"\nengine = \"translator\"\n",
        memory + MONITOR,
        root.path,
        cmdline(parts)
    )
}

/// Asks the monitor, after each part, for what it has done and for its memory.
fn script(parts: &[Part], limit: u64) -> String {
    let mut out = String::new();
    for (part, _) in parts {
        let _ = write!(
            out,
            "console {VM}\nexpect \"torture: {part} (passed|FAILED)\" {limit}\nconsole monitor\n\
             send stats {VM}\nexpect \"^  code written\" 60\nsend mem\nexpect \"^consistent\" 60\n"
        );
    }
    let _ = writeln!(out, "expect \"VM `{VM}` ended: [a-z]\" {limit}\nabsent \"NOT CONSISTENT\"");
    out
}

/// What the compiler's part is to be compared by: what its program prints, and its objects' sums.
fn objects(console: &str) -> Vec<&str> {
    let is_sum = |line: &str| {
        line.split_once("  ").is_some_and(|(sum, file)| {
            sum.len() == 64 && sum.bytes().all(|b| b.is_ascii_hexdigit()) && file.ends_with(".o")
        })
    };
    let lines = console.lines().map(|line| line.trim_end_matches('\r'));
    lines.filter(|line| line.starts_with("twenty: ") || is_sum(line)).collect()
}

/// How a part ended, by the guest's console.
fn passed(console: &str, part: &str) -> bool {
    let wanted = format!("torture: {part} passed");
    console.lines().any(|line| line.trim_end_matches('\r').starts_with(&wanted))
}

/// What is wrong with what the guest has printed.
fn judge(console: &str, parts: &[Part], bare: &[String]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (part, _) in parts {
        if !passed(console, part) {
            wrong.push(format!("{part} has not passed"));
        }
    }
    let is_bad = |line: &&str| FORBIDDEN.iter().any(|word| line.contains(word));
    wrong.extend(console.lines().filter(is_bad).map(|line| format!("forbidden: {line}")));
    let objects = objects(console);
    if objects != bare {
        let bare = bare.iter().map(String::as_str);
        let differs = objects.iter().copied().zip(bare.clone()).find(|(vm, bare)| vm != bare);
        wrong.push(match differs {
            Some((vm, bare)) => format!("{vm:?}, on the bare machine {bare:?}"),
            None => {
                format!("{} lines of results, {} on the bare machine", objects.len(), bare.len())
            }
        });
    }
    wrong
}

/// Bytes of the monitor's heap in use, each time that it was asked.
fn heap(output: &str) -> Vec<u64> {
    let used = |line: &str| {
        let rest = line.strip_prefix("monitor| monitor heap: ")?;
        rest.split(' ').next()?.parse().ok()
    };
    output.lines().filter_map(used).collect()
}

/// What the monitor last said of the VM, in a line.
fn counters(output: &str) -> String {
    let mut all: Vec<(String, u64)> = Vec::new();
    for line in output.lines() {
        let Some((name, value)) = line.strip_prefix("monitor|   ").and_then(counter) else {
            continue;
        };
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => all.push((name, value)),
        }
    }
    all.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
}

/// What the compiler makes on the bare machine.
fn on_bare(root: &Root, memory: u64, files: u32, limit: Duration) -> Result<Vec<String>> {
    if files == 0 {
        return Ok(Vec::new());
    }
    let guest = Guest {
        image: "linux",
        initrd: Some(&root.path),
        endian: Endian::Little,
        cpus: 1,
        memory: &format!("{memory}M"),
        cmdline: &cmdline(&[(TWENTY, files)]),
    };
    let (ended, typed) = bare::boot(guest, "torture-bare", limit)?;
    if let Some(wrong) = bare::not_ended(&ended) {
        bail!("on the bare machine: {wrong}: {typed}");
    }
    if !passed(&ended.output, TWENTY) {
        bail!("it does not compile on the bare machine: {typed}");
    }
    Ok(objects(&ended.output).into_iter().map(str::to_owned).collect())
}

/// Runs the command.
///
/// # Errors
/// Set-up, or the compiler does not work on the bare machine.
pub fn main(args: &Args) -> Result<ExitCode> {
    let parts = parts(args);
    if parts.is_empty() {
        bail!("nothing to do: give one of --stress, --files and --modules more than 0");
    }
    setup::ensure(&[Need::Compiler, Need::Qemu, Need::Guest])?;
    let folder = crate::paths::workspace().join(FOLDER);
    let lock = folder.join("torture.lock");
    let recipe = Recipe::read(&lock)?
        .with_context(|| format!("{} is not there: restore it", lock.display()))?;
    let root = root::provide(&recipe, &folder, &[])?;
    let memory = (root.memory() >> 20) + WORK_MEMORY;
    let limit = Duration::from_secs(args.limit);
    let bare = on_bare(&root, memory, args.files, limit)?;
    if !bare.is_empty() {
        println!("torture: bare: {} objects", bare.len() - 1);
    }

    let name = format!("torture-{}-{}-{}", args.stress, args.files, args.modules);
    let place = Place::new(&name)?;
    let config = place.write("machine.toml", &config(&root, memory, &parts))?;
    let script = place.write("script", &script(&parts, args.limit))?;
    let logs = place.empty("logs")?;
    let (mut command, typed) = process::xtask(&["run", "--config", &config, "--script", &script]);
    command.arg("--log").arg(logs.path());
    command.args(["--seed", &args.seed.to_string(), "--timeout", &args.limit.to_string()]);
    if !args.threads {
        command.arg("--icount");
    }
    let begun = Instant::now();
    let ended = process::run(command, &name, limit + Duration::from_secs(60))?;
    let seconds = begun.elapsed().as_secs();

    // A run that failed early has no such file; then that is what is wrong.
    let console = fs::read(logs.path().join(format!("{VM}.log"))).unwrap_or_default();
    let mut wrong = judge(&String::from_utf8_lossy(&console), &parts, &bare);
    let heap = heap(&ended.output);
    if heap.len() != parts.len() {
        wrong.push(format!("the monitor told its heap {} times", heap.len()));
    }
    if heap.iter().any(|used| *used > heap[0] + HEAP_GROWS) {
        wrong.push(format!("the monitor's heap grows: {heap:?}"));
    }
    if !ended.status.is_some_and(|status| status.success()) {
        wrong.push(format!("`{typed}` did not end well; the end of its output:"));
        wrong.extend(process::tail(&ended.output, 25));
    }
    println!("torture: in a VM, {seconds} s of the host: {}", counters(&ended.output));
    println!("torture: the monitor's heap after each part: {heap:?}");
    for line in &wrong {
        println!("    {line}");
    }
    let what: Vec<_> = parts.iter().map(|(part, amount)| format!("{part} {amount}")).collect();
    println!(
        "torture: {}: {} wrong; the whole output is target/tests/{name}.out",
        what.join(", "),
        wrong.len()
    );
    Ok(ExitCode::from(u8::from(!wrong.is_empty())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  ./part1.o";
    const PARTS: [Part; 3] = [("modules", 30), (TWENTY, 3), ("stress", 1)];

    fn good() -> String {
        format!(
            "[    0.0] Linux\r\ntorture: modules passed, 30 times\r\ntwenty: 7\r\n{SUM}\r\n\
             torture: twenty passed\r\ntorture: stress passed\r\n"
        )
    }

    #[test]
    fn each_part_is_judged() {
        let bare = ["twenty: 7".to_owned(), SUM.to_owned()];
        assert_eq!(judge(&good(), &PARTS, &bare), [""; 0]);
        for (line, other) in [
            ("modules passed", "modules FAILED after 7"),
            ("twenty: 7", "twenty: 8"),
            ("e3b0", "e3b1"),
            (SUM, ""),
            ("stress passed", "stress has"),
            ("Linux", "rcu: INFO: rcu_sched self-detected stall on CPU"),
            ("Linux", "Call Trace:"),
        ] {
            assert!(good().contains(line));
            assert!(!judge(&good().replace(line, other), &PARTS, &bare).is_empty(), "{other}");
        }
        assert_eq!(
            judge(&good(), &PARTS, &bare[..1]),
            ["2 lines of results, 1 on the bare machine"]
        );
    }

    #[test]
    fn only_what_was_asked_for_is_done() {
        let parts = [("modules", 30), ("stress", 1)];
        let text = cmdline(&parts);
        assert!(text.ends_with(";/etc/torture/modules 30;/etc/torture/stress 1\""), "{text}");
        // QEMU's own boot loader takes no more.
        assert!(cmdline(&[("modules", 1000), (TWENTY, 20), ("stress", 3600)]).len() < 256);
        assert_eq!(script(&parts, 9).matches("send mem").count(), 2);
    }

    #[test]
    fn the_monitors_answers_are_read() {
        let output = "monitor| monitor heap: 120 of 900 bytes in use\nmonitor|   blocks        9\n\
                      monitor| monitor heap: 121 of 900 bytes in use\nmonitor|   blocks        11\n";
        assert_eq!(heap(output), [120, 121]);
        assert_eq!(counters(output), "blocks 11");
    }
}
