//! Compares the interpreter with QEMU's own CPU on random instruction streams.
//!
//! One bare-metal [`harness`] runs the same [`case`]s twice: on a bare QEMU ([`qemu`]), and on our
//! virtual CPU in this process ([`model`]); then all that a stream can have changed is compared byte
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
mod rng;
mod state;
mod stream;
mod system;
mod table;
mod values;

use crate::endian::Endian;
use crate::setup::qemu::Qemu;
use anyhow::{Result, bail};
use campaign::{Outcome, Pair, Plan, Totals};
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Compares the interpreter with QEMU's own CPU on random instruction streams.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cargo xtask fuzz                                  100,000 streams of seed 1, little-endian
  cargo xtask fuzz --endian big --cases 1000000     a million, big-endian
  cargo xtask fuzz --seed 7 --start 500000          go on from case 500,000
  cargo xtask fuzz --seed 7 --case 512345           one case, reduced to what differs
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
    /// Batches at once; default: one a processor of the host
    #[arg(long)]
    jobs: Option<usize>,
    /// Not streams, but floating-point instructions one at a time on many operands and modes
    #[arg(long, conflicts_with_all = ["case", "jobs", "max_differences"])]
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
        let pair = Pair::new(args.endian, args.seed, qemu, &folder)?;
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
        endian: args.endian,
        seed: args.seed,
        cases: args.start..end,
        jobs,
        max_differences: args.max_differences,
        progress: true,
    };
    let totals = campaign::run(&plan, &qemu, &campaign::folder(jobs)?)?;
    summarise(&plan, &qemu.version, &totals);
    Ok(if totals.differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
    for difference in &totals.differences {
        println!("{}", difference.report);
        println!("  again: {}\n", again(plan.endian, plan.seed, difference.case));
    }
    println!(
        "seed {}, cases {} to {}, {}-endian, {version}: {} streams compared, {} differ; {} \
         instructions, {} exceptions; {:.0} s",
        plan.seed,
        plan.cases.start,
        plan.cases.end - 1,
        plan.endian,
        totals.compared,
        totals.differences.len(),
        totals.instructions,
        totals.exceptions,
        totals.time.as_secs_f64()
    );
    for (drop, count) in &totals.dropped {
        println!("  not compared: {count} that {}", drop.reason());
    }
}

/// The command that runs one case again.
fn again(endian: Endian, seed: u64, case: u64) -> String {
    format!("cargo xtask fuzz --endian {endian} --seed {seed} --case {case}")
}

/// One case in full.
fn one(args: &Args, number: u64, mut pair: Pair) -> Result<ExitCode> {
    let case = stream::case(args.seed, number);
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
