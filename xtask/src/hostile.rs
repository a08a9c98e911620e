//! `cargo xtask hostile`: a VM that runs made-up code in every mode that the monitor executes directly, or translates, one
//! life after another, beside two others that check themselves.
//!
//! Nothing outside the hostile VM may change: the others' checksums and memory, the monitor's code and
//! constants, its records of machine pages. A seed makes a run: the same one goes the same way.

use crate::endian::Endian;
use crate::run::stats::counter;
use crate::test::place::Place;
use crate::test::process;
use anyhow::Result;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

/// Runs hostile VMs in direct execution beside two that check themselves.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cargo xtask hostile                            1000 lives, little-endian
  cargo xtask hostile --endian big --lives 5000
  cargo xtask hostile --seed 7                   others
  cargo xtask hostile --engine translator        kernel mode is translated, not executed as it is
  cargo xtask hostile --engine hot               it is translated where it is hot

Exit status: 0 nothing outside them changed, 1 not so, 2 a set-up problem.")]
pub struct Args {
    /// How many hostile VMs, one after another, each with a seed of its own.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    lives: u32,
    /// What their seeds are made from.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// What executes their kernel mode.
    #[arg(long, value_enum, default_value_t)]
    engine: Engine,
    /// The machine's byte order.
    #[arg(long, default_value_t)]
    endian: Endian,
}

/// What executes the kernel mode of VMs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Engine {
    /// The CPU, where it can
    #[default]
    Direct,
    /// The translator
    Translator,
    /// The CPU, and the translator where code is hot
    Hot,
}

impl Engine {
    /// The last part of the names of kernels that are linked for it, and its name in a configuration.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Direct => ("", "direct"),
            Self::Translator => ("-kseg0", "translator"),
            Self::Hot => ("", "translator"),
        }
    }
}

/// The hostile VM, one that checks its kernel's sums and memory, and one whose processes do.
fn config(engine: Engine) -> String {
    let (link, engine) = engine.names();
    format!(
        r#"
[[vm]]
name = "wild"
kernel = "hello{link}"
memory = "8M"
cmdline = "do=wild"
start = "manual"
engine = "{engine}"
[[vm]]
name = "work"
kernel = "hello{link}"
memory = "8M"
cmdline = "do=work"
engine = "{engine}"
[[vm]]
name = "irix"
kernel = "irix{link}"
memory = "16M"
engine = "{engine}"
"#
    )
}

/// Lives between two self-checks of the others.
const BETWEEN: u32 = 25;
/// What no line may say.
const FORBIDDEN: [&str; 4] = ["WRONG", "FAILED", "DAMAGED", "panic"];

/// The script of a run of so many lives. A life is ended after 60 ms, or where its code has to become hot: many do not end by
/// themselves.
fn script(lives: u32, engine: Engine) -> String {
    let seconds = if engine == Engine::Hot { 0.5 } else { 0.06 };
    let checked = "console monitor\nsend selfcheck\nexpect \"are as in its image\"\n\
        send mem\nexpect \"^consistent\"\n";
    let mut out = format!(
        "console work\nexpect \"work: 1 rounds\"\nconsole irix\nexpect \"irix: shell ready\" 120\n{checked}"
    );
    for life in 1..=lives {
        // Writing to a string does not fail.
        let _ = write!(
            out,
            "send start wild\nwait {seconds}\nsend stop wild\nexpect \"VM `wild` (ended|does not run)\"\n\
             send stats wild\nexpect \"exits\"\n",
        );
        if life.is_multiple_of(BETWEEN) || life == lives {
            out.push_str("console irix\nsend check\nexpect \"irix: check (passed|FAILED)\" 300\n");
            out.push_str(checked);
        }
    }
    out
}

/// What a run's output says of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Summary {
    /// Lives that began to run made-up code, by mode.
    lives: BTreeMap<String, u64>,
    /// The counters of all, summed.
    counters: BTreeMap<String, u64>,
    /// How lives ended.
    ends: BTreeMap<String, u64>,
    /// Self-checks that passed: of the guest's, of the monitor's.
    checks: (u64, u64),
    /// Rounds of the VM that works all the time.
    rounds: u64,
    /// Lines that should not be there.
    wrong: Vec<String>,
}

impl Summary {
    fn new(output: &str) -> Self {
        let mut summary = Self::default();
        for line in output.lines() {
            if let Some(seed) = line.strip_prefix("wild| wild: seed ") {
                let mode = seed.split(", ").nth(1).unwrap_or("?");
                *summary.lives.entry(mode.into()).or_default() += 1;
                continue;
            }
            // What a hostile guest prints is its own affair.
            if line.starts_with("wild| ") || line.starts_with("monitor|   | ") {
                continue;
            }
            if let Some(cause) = line.strip_prefix("monitor| VM `wild` ended: ") {
                *summary.ends.entry(cause.into()).or_default() += 1;
            }
            if let Some((name, value)) = line.strip_prefix("monitor|   ").and_then(counter) {
                *summary.counters.entry(name).or_default() += value;
            }
            summary.checks.0 += u64::from(line.starts_with("irix| irix: check passed"));
            summary.checks.1 += u64::from(line.contains("are as in its image"));
            if let Some(rounds) = line.strip_prefix("work| work: ") {
                let number = rounds.split(' ').next().and_then(|word| word.parse().ok());
                summary.rounds = number.unwrap_or(summary.rounds);
            }
            if FORBIDDEN.iter().any(|word| line.contains(word)) {
                summary.wrong.push(line.into());
            }
        }
        summary
    }

    /// What is missing of a run of so many lives.
    fn judge(mut self, lives: u32, engine: Engine) -> Vec<String> {
        let begun: u64 = self.lives.values().sum();
        if begun != u64::from(lives) {
            self.wrong.push(format!("{begun} hostile VMs ran their code, of {lives}"));
        }
        let checks = u64::from(lives.div_ceil(BETWEEN));
        if self.checks != (checks, checks + 1) {
            self.wrong.push(format!("self-checks passed: {:?}, not {checks} of each", self.checks));
        }
        let names: &[&str] = match engine {
            Engine::Direct => &["entries", "emulated"],
            Engine::Hot => &["entries", "emulated", "blocks"],
            Engine::Translator => &["entries", "emulated", "blocks", "interpreted"],
        };
        for name in names {
            // (Not everybody who is hostile comes to the same places again.)
            let some = engine == Engine::Hot && *name == "blocks";
            let least = if some { 1 } else { u64::from(lives) };
            if self.counters.get(*name).is_none_or(|count| *count < least) {
                self.wrong.push(format!("too little ran directly: {:?}", self.counters));
            }
        }
        self.wrong
    }
}

/// Runs the command.
///
/// # Errors
/// A file can't be written, or the run can't be started.
pub fn main(args: &Args) -> Result<ExitCode> {
    let (lives, seed, endian) = (args.lives, args.seed, args.endian);
    let name = match args.engine {
        Engine::Direct => format!("hostile-{endian}-{lives}-{seed}"),
        Engine::Translator => format!("hostile-translator-{endian}-{lives}-{seed}"),
        Engine::Hot => format!("hostile-hot-{endian}-{lives}-{seed}"),
    };
    let place = Place::new(&name)?;
    let config = place.write("machine.toml", &config(args.engine))?;
    let script = place.write("script", &script(lives, args.engine))?;
    let (mut command, _) =
        process::xtask(&["run", "--icount", "--config", &config, "--script", &script]);
    command.args(["--seed", &seed.to_string(), "--endian", &endian.to_string()]);
    let limit = Duration::from_secs(600 + 10 * u64::from(lives));
    let ended = process::run(command, &name, limit)?;
    let summary = Summary::new(&ended.output);
    let mut text = String::new();
    for (what, counts) in
        [("lives", &summary.lives), ("ended", &summary.ends), ("counted", &summary.counters)]
    {
        let counts: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{what}: {}", counts.join(", "));
    }
    let _ =
        writeln!(text, "beside them: {} self-checks, {} rounds", summary.checks.0, summary.rounds);
    print!("{text}");
    let mut wrong = summary.judge(lives, args.engine);
    if !ended.status.is_some_and(|status| status.success()) {
        wrong.extend(process::tail(&ended.output, 25));
    }
    for line in &wrong {
        println!("{line}");
    }
    println!("hostile: {} wrong; the whole output is target/tests/{name}.out", wrong.len());
    Ok(ExitCode::from(u8::from(!wrong.is_empty())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
wild| wild: seed 0x1, user mode, handler true
wild| panic, WRONG
monitor| VM `wild` ended: stopped
monitor|   entries       120
monitor|   emulated      7
monitor|   LL/SC loops   0
work| work: 64 rounds
irix| irix: check passed
monitor| the monitor's 7 bytes of code and constants are as in its image: 12
monitor| the monitor's 7 bytes of code and constants are as in its image: 12
";

    #[test]
    fn a_run_is_judged_by_all_that_it_must_say() {
        assert_eq!(Summary::new(GOOD).judge(1, Engine::Direct), [""; 0]);
        assert_eq!(Summary::new(GOOD).rounds, 64);
        assert_eq!(Summary::new(GOOD).counters["LL/SC loops"], 0);
        for (line, other) in [
            ("irix| irix: check passed", "irix| irix: check FAILED: x"),
            ("work| work: 64 rounds", "work| work: WRONG: memory"),
            ("entries       120", "entries       0"),
            ("wild| wild: seed 0x1", "wild| x"),
            ("are as in its image: 12\nmonitor", "DAMAGED\nmonitor"),
        ] {
            assert!(GOOD.contains(line));
            assert!(
                !Summary::new(&GOOD.replace(line, other)).judge(1, Engine::Direct).is_empty(),
                "{other}"
            );
        }
        assert!(!Summary::new(GOOD).judge(2, Engine::Direct).is_empty());
        assert!(!Summary::new(GOOD).judge(1, Engine::Translator).is_empty());
        assert!(!Summary::new(GOOD).judge(1, Engine::Hot).is_empty());
        let translated = "monitor|   blocks        9\nmonitor|   interpreted   20\n";
        let good = GOOD.to_string() + translated;
        assert_eq!(Summary::new(&good).judge(1, Engine::Translator), [""; 0]);
    }
}
