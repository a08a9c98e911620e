//! Compares what executes guests with QEMU's own CPU on random instruction streams.
//!
//! One bare-metal [`harness`] runs the same [`case`]s twice: on a bare QEMU ([`qemu`]), and on our
//! virtual CPU in this process ([`model`]) or in a VM on the monitor ([`vm`]); then all that a stream can have changed is compared byte
//! for byte. `docs/differential.md` says what streams may do and what is left out.

mod asm;
mod campaign;
mod case;
mod float;
mod harness;
mod layout;
mod model;
mod qemu;
mod report;
pub mod rng;
mod state;
mod stream;
mod system;
mod table;
mod values;
mod vm;

use crate::endian::Endian;
use crate::setup::qemu::Qemu;
use anyhow::{Result, bail};
use campaign::{Executor, Outcome, Pair, Plan, Setting, Totals};
use state::Profile;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// What is compared with QEMU's own CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Engine {
    /// The interpreter, with all kinds of streams
    #[default]
    Interpreter,
    /// A VM on the monitor, with streams that begin in user mode
    User,
    /// A VM on the monitor, with streams of a kernel in a supervisor segment
    Supervisor,
    /// A VM whose kernel mode is translated, with streams of a kernel, each run several times
    Translator,
}

/// Compares what executes guests with QEMU's own CPU on random instruction streams.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cargo xtask fuzz                                  100,000 streams of seed 1, little-endian
  cargo xtask fuzz --endian big --cases 1000000     a million, big-endian
  cargo xtask fuzz --seed 7 --start 500000          go on from case 500,000
  cargo xtask fuzz --seed 7 --case 512345           one case, reduced to what differs
  cargo xtask fuzz --engine user                    in a VM on the monitor, which executes user mode directly
  cargo xtask fuzz --engine translator              in a VM whose kernel mode is translated
  cargo xtask fuzz --float --cases 10000000         the FPU's instructions, one at a time

Exit status: 0 all equal, 1 some differ, 2 a set-up problem.")]
pub struct Args {
    /// Names the streams: a seed and a case number are one stream for ever
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The first case
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// How many cases
    #[arg(long, default_value_t = 100_000)]
    cases: u64,
    /// Only this case; if it differs, its stream is reduced to what is needed for that
    #[arg(long, conflicts_with_all = ["start", "cases"])]
    case: Option<u64>,
    /// Byte order of both machines
    #[arg(long, value_enum, default_value_t)]
    endian: Endian,
    /// What is compared with bare QEMU, and with which streams
    #[arg(long, value_enum, default_value_t)]
    engine: Engine,
    /// The VM of --engine user, supervisor or translator is interpreted
    #[arg(long)]
    interpreted: bool,
    /// Batches at once; default: one a processor of the host
    #[arg(long)]
    jobs: Option<usize>,
    /// Not streams, but floating-point instructions one at a time on many operands and modes
    #[arg(long, conflicts_with_all = ["case", "jobs", "max_differences", "engine"])]
    float: bool,
    /// Stop when so many cases differ
    #[arg(long, default_value_t = 10)]
    max_differences: usize,
    /// Show a case's stream as it is, also when nothing differs
    #[arg(long, requires = "case")]
    show: bool,
    /// An own qemu-system-mips64el or qemu-system-mips64, version 10 or newer
    #[arg(long, value_name = "PATH")]
    qemu: Option<PathBuf>,
}

/// Runs the command.
pub fn main(args: &Args) -> Result<ExitCode> {
    let qemu = crate::setup::qemu::qemu(args.endian, args.qemu.as_deref())?;
    if let Some(number) = args.case {
        let folder = campaign::folder(1)?;
        let pair = Pair::new(setting(args)?, qemu, &folder)?;
        return one(args, number, pair);
    }
    let jobs =
        args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into));
    let Some(end) = args.start.checked_add(args.cases).filter(|_| jobs > 0 && args.cases > 0)
    else {
        bail!(
            "nothing to run: --cases and --jobs must be at least 1, and --start + --cases a number"
        );
    };
    if args.float {
        return float_only(args, &qemu, args.start..end);
    }
    let plan = Plan {
        setting: setting(args)?,
        cases: args.start..end,
        jobs,
        max_differences: args.max_differences,
        progress: true,
    };
    let totals = campaign::run(&plan, &qemu, &campaign::folder(jobs)?)?;
    summarise(&plan, &qemu.version, &totals);
    Ok(if totals.differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Which streams are executed by what. PROM and monitor are built if they are part of it.
fn setting(args: &Args) -> Result<Setting> {
    let profile = match args.engine {
        Engine::Interpreter => Profile::Everything,
        Engine::User => Profile::User,
        Engine::Supervisor => Profile::Supervisor,
        Engine::Translator => Profile::Translator,
    };
    let engine = match args.engine {
        _ if args.interpreted => vm::Engine::Interpreter,
        Engine::Translator => vm::Engine::Translator,
        _ => vm::Engine::Direct,
    };
    let executor = match args.engine {
        Engine::Interpreter => Executor::Interpreter,
        Engine::User | Engine::Supervisor | Engine::Translator => {
            Executor::Vm { built: crate::build::monitor(args.endian)?, engine }
        }
    };
    Ok(Setting { endian: args.endian, profile, seed: args.seed, executor })
}

/// `--float`
fn float_only(args: &Args, qemu: &Qemu, cases: Range<u64>) -> Result<ExitCode> {
    let start = Instant::now();
    let folder = campaign::folder(1)?;
    let found = float::run(qemu, args.endian, &folder, args.seed, cases.clone(), true)?;
    for report in &found.reports {
        println!("{report}");
    }
    println!(
        "seed {}, cases {} to {}, {}-endian, {}: {} floating-point instructions compared, {} \
         differ; {:.0} s",
        args.seed,
        cases.start,
        cases.end - 1,
        args.endian,
        qemu.version,
        found.compared,
        found.differences,
        start.elapsed().as_secs_f64()
    );
    Ok(if found.differences == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn summarise(plan: &Plan, version: &str, totals: &Totals) {
    let setting = &plan.setting;
    for difference in &totals.differences {
        println!("{}", difference.report);
        println!("  again: {}\n", again(setting, difference.case));
    }
    println!(
        "{}seed {}, cases {} to {}, {}-endian, {version}: {} streams compared, {} differ; {} \
         instructions, {} exceptions; {:.0} s",
        what(setting),
        setting.seed,
        plan.cases.start,
        plan.cases.end - 1,
        setting.endian,
        totals.compared,
        totals.differences.len(),
        totals.instructions,
        totals.exceptions,
        totals.time.as_secs_f64()
    );
    for (drop, count) in &totals.dropped {
        println!("  not compared: {count} that {}", drop.reason());
    }
    let counter = |name: &str| totals.counters.get(name).copied().unwrap_or_default();
    if let interpreted @ 1.. = counter("instructions") {
        let native = totals.instructions.saturating_sub(interpreted);
        println!(
            "  executed by the real CPU: {}% of the instructions, {} blocks translated",
            native * 100 / totals.instructions.max(1),
            counter("blocks")
        );
    }
}

/// What executed the streams, before a summary; nothing: the interpreter.
const fn what(setting: &Setting) -> &'static str {
    let Executor::Vm { engine, .. } = &setting.executor else { return "" };
    match (setting.profile, engine) {
        (Profile::User, vm::Engine::Interpreter) => "user mode in an interpreted VM, ",
        (Profile::User, _) => "user mode in a VM, ",
        (Profile::Translator, vm::Engine::Interpreter) => "kernel mode in an interpreted VM, ",
        (Profile::Translator, _) => "kernel mode in a translated VM, ",
        (_, vm::Engine::Interpreter) => "supervisor segments in an interpreted VM, ",
        (..) => "supervisor segments in a VM, ",
    }
}

/// The command that runs one case again.
fn again(setting: &Setting, case: u64) -> String {
    let mut out = format!("cargo xtask fuzz --endian {} --seed {}", setting.endian, setting.seed);
    match setting.profile {
        Profile::Everything => {}
        Profile::User => out.push_str(" --engine user"),
        Profile::Supervisor => out.push_str(" --engine supervisor"),
        Profile::Translator => out.push_str(" --engine translator"),
    }
    if matches!(setting.executor, Executor::Vm { engine: vm::Engine::Interpreter, .. }) {
        out.push_str(" --interpreted");
    }
    format!("{out} --case {case}")
}

/// One case in full.
fn one(args: &Args, number: u64, mut pair: Pair) -> Result<ExitCode> {
    let case = pair.case(number);
    let outcome = pair.one(&case)?;
    if args.show {
        let bytes = case.bytes(args.endian);
        println!("{}", report::show(args.endian, &case, &bytes, &bytes));
    }
    Ok(match outcome {
        Outcome::Same => {
            println!("case {number}: equal");
            ExitCode::SUCCESS
        }
        Outcome::Dropped(drop) => {
            println!("case {number}: not compared, {}", drop.reason());
            ExitCode::SUCCESS
        }
        Outcome::Different(..) | Outcome::Stuck(_) => {
            let least = campaign::minimise(&mut pair, &case)?;
            match pair.one(&least)? {
                Outcome::Different(ours, theirs) => {
                    println!("{}", report::show(args.endian, &least, &ours, &theirs));
                }
                Outcome::Stuck(how) => {
                    let bytes = least.bytes(args.endian);
                    println!("{how}\n{}", report::show(args.endian, &least, &bytes, &bytes));
                }
                Outcome::Same | Outcome::Dropped(_) => {
                    bail!("case {number} differs in some runs only");
                }
            }
            ExitCode::FAILURE
        }
    })
}
