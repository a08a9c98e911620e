//! `cargo xtask fault`: breaks machines at random, and judges what is left.
//!
//! Experiments are done in series, one after the other on one machine, each followed by repair. A series and its experiments are
//! [`draw`]n from seed and number; the [`workload`] is a machine's configuration, its [`script`] what is done to it; the [`campaign`] runs it.
//! The [`judge`] says from the topology ([`sides`]) who must have been lost, and from the [`record`] of the run who was. Results
//! are [`store`]d and [`report`]ed.

pub mod campaign;
mod draw;
pub mod judge;
pub mod record;
mod report;
mod script;
pub mod sides;
mod store;
mod workload;

use crate::build::Seeded;
use crate::endian::Endian;
use crate::setup::{self, Need};
use anyhow::{Context, Result, bail};
use campaign::Campaign;
use draw::{Kind, SERIES};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use store::Outcome;

/// Breaks machines at random, and judges what is left.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cargo xtask fault --experiments 20 --seed 7          a series of 20, results in target/fault
  cargo xtask fault --experiments 10 --kind router     only routers, of the same series
  cargo xtask fault --experiments 20 --stock           with a stock guest in each cell
  cargo xtask fault --experiments 1000 --shard 3/16    the third of sixteen parts
  cargo xtask fault --merge out/1 out/2 --report       the results of several folders as one
  cargo xtask fault --seed 7 --replay 12               the series of one again, with its whole output
  cargo xtask fault --mutant OneTooMany                judges the judge: a monitor with a seeded mistake

What is there in the folder of results already, of the same monitor, is not done again. docs/faults.md explains all of it.

Exit status: 0 all experiments passed, 1 not so, 2 a set-up problem.")]
pub struct Args {
    /// How many experiments
    #[arg(long, value_name = "N", default_value_t = 20)]
    experiments: u64,
    /// Names the campaign: a seed and a number are one experiment for ever
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// The machine and its VMs, instead of drawn ones; the VMs must not end
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Machines of four cells with a stock guest in each, which boot anew in cells that come back
    #[arg(long, conflicts_with = "config")]
    stock: bool,
    /// Only experiments of this kind
    #[arg(long, value_enum, value_name = "K")]
    kind: Option<Kind>,
    /// Only part I of N of the experiments
    #[arg(long, value_name = "I/N", default_value = "1/1")]
    shard: Shard,
    /// Run a monitor with this seeded mistake, to judge the judge: it has to find that something is wrong
    #[arg(long, value_name = "NAME", value_parser = crate::build::parse_mutant)]
    mutant: Option<Seeded>,
    /// How many at once; default: one a processor of the host
    #[arg(long, value_name = "J")]
    jobs: Option<usize>,
    /// The folder of results
    #[arg(long, value_name = "DIR", default_value = "target/fault")]
    out: PathBuf,
    /// Run the series of this experiment again, show all that it prints, and judge this one
    #[arg(long, value_name = "ID", conflicts_with_all = ["experiments", "shard", "merge"])]
    replay: Option<u64>,
    /// The series begins with this experiment: what came before it is left out
    #[arg(long, value_name = "ID", requires = "replay")]
    first: Option<u64>,
    /// Do nothing but report the results of these folders
    #[arg(long, value_name = "DIR", num_args = 1.., conflicts_with_all = ["config", "stock", "kind", "shard", "mutant"])]
    merge: Vec<PathBuf>,
    /// Say what the experiments have covered, too
    #[arg(long)]
    report: bool,
    /// Write a plot of the results to this file, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

impl Args {
    /// Where results are kept: those of a monitor with a mistake apart from all others.
    fn folder(&self) -> PathBuf {
        self.mutant.map_or_else(|| self.out.clone(), |mutant| self.out.join(mutant.name()))
    }
}

/// Part I of N.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shard {
    part: u64,
    of: u64,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text
            .split_once('/')
            .and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((part, of)) if (1..=of).contains(&part) => Ok(Self { part, of }),
            _ => Err("give I/N with I from 1 to N, for example 3/16".into()),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// Set-up: a configuration, a folder, a compiler.
pub fn main(args: &Args) -> Result<ExitCode> {
    if !args.merge.is_empty() {
        let all = store::merge(&args.merge)?;
        return tell(args, &all);
    }
    setup::ensure(&[Need::Compiler, Need::Qemu])?;
    let campaign = campaign(args)?;
    if let Some(id) = args.replay {
        return replay(args, &campaign, id);
    }
    let ids = ids(args, &campaign);
    let known = store::read(&args.folder())?;
    let is_done =
        |id: &u64| known.get(&(args.seed, *id)).is_some_and(|outcome| campaign.is_ours(outcome));
    let (done, open): (Vec<u64>, Vec<u64>) = ids.iter().copied().partition(is_done);
    if !done.is_empty() {
        println!("fault: {} of {} experiments are done already", done.len(), ids.len());
    }
    run_all(args, &campaign, &open)?;
    let mut all = store::read(&args.folder())?;
    all.retain(|(seed, id), _| *seed == args.seed && ids.contains(id));
    tell(args, &all)
}

fn replay(args: &Args, campaign: &Campaign, id: u64) -> Result<ExitCode> {
    let Some(first) = args.first.or_else(|| campaign.first_of(id / SERIES)) else {
        bail!("--replay {id}: no experiment of this kind is in its series")
    };
    if !campaign.has(id) {
        let kind = Kind::of(args.seed, id);
        bail!("--replay {id}: this is a {kind} experiment: give `--kind {kind}`, or none");
    }
    if !(first..(first / SERIES + 1) * SERIES).contains(&id) {
        bail!("--replay {id}: it is not among those that begin with {first}, {SERIES} a series");
    }
    let (outcomes, output) = campaign.run(first)?;
    print!("{output}");
    let Some(outcome) = outcomes.iter().find(|outcome| outcome.id == id) else {
        print!("{}", report::failures(&outcomes));
        println!("fault: experiment {id} was not reached");
        return Ok(ExitCode::FAILURE);
    };
    print!("{}", report::failures([outcome]));
    println!("{} {}", word(outcome), report::title(outcome));
    Ok(ExitCode::from(u8::from(!outcome.passed())))
}

fn word(outcome: &Outcome) -> &'static str {
    if outcome.passed() { "passed" } else { "FAILED" }
}

fn campaign(args: &Args) -> Result<Campaign> {
    let config = args
        .config
        .as_ref()
        .map(|path| {
            let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
            anyhow::Ok((path.display().to_string(), text))
        })
        .transpose()?;
    // All experiments are of one monitor, in both byte orders.
    let mut hash = Sha256::new();
    for endian in Endian::ALL {
        let built = crate::build::mutated(endian, args.mutant)?;
        for guest in ["irix", "hello"] {
            crate::build::guest(guest, endian)?;
        }
        for file in [&built.boot_elf, &built.kernel_elf] {
            hash.update(fs::read(file).with_context(|| file.display().to_string())?);
        }
    }
    let folder = args.folder();
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let folder = folder.canonicalize().with_context(|| folder.display().to_string())?;
    Ok(Campaign {
        folder,
        seed: args.seed,
        kind: args.kind,
        stock: args.stock,
        config,
        mutant: args.mutant,
        monitor: campaign::short(&hash.finalize()),
        sums: OnceLock::new(),
    })
}

/// The numbers of the experiments that were asked for: of a kind, the first so many of it; of these a part.
fn ids(args: &Args, campaign: &Campaign) -> Vec<u64> {
    let ids = (0..).filter(|id| campaign.has(*id)).take(args.experiments as usize);
    let Shard { part, of } = args.shard;
    // A series stays together.
    ids.filter(|id| (id / SERIES) % of == part - 1).collect()
}

/// Runs experiments, some series at once, and tells of each as its series ends. A series that ends early is begun again with what it has not
/// come to.
fn run_all(args: &Args, campaign: &Campaign, open: &[u64]) -> Result<()> {
    let mut series: Vec<u64> = open.iter().map(|id| id / SERIES).collect();
    series.dedup();
    let jobs = args
        .jobs
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
        .clamp(1, series.len().max(1));
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || -> Result<()> {
        while let Some(number) = series.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut left: Vec<u64> =
                open.iter().copied().filter(|id| id / SERIES == *number).collect();
            while let Some(&first) = left.first() {
                let (outcomes, _) = campaign.run(first)?;
                anyhow::ensure!(!outcomes.is_empty(), "experiment {first} was not judged");
                for outcome in &outcomes {
                    store::add(&campaign.folder, outcome)?;
                    left.retain(|id| *id != outcome.id);
                    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                    println!("{} {done}: {}", word(outcome), report::title(outcome));
                }
                print!("{}", report::failures(&outcomes));
                if outcomes.iter().all(Outcome::passed) {
                    campaign.forget(first);
                }
                let last = outcomes.iter().map(|outcome| outcome.id).max();
                left.retain(|id| Some(*id) > last);
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })
}

fn tell(args: &Args, all: &BTreeMap<(u64, u64), Outcome>) -> Result<ExitCode> {
    print!("{}", report::failures(all.values()));
    print!("{}", report::summary(all.values()));
    if args.report {
        print!("{}", report::coverage(all.values()));
    }
    if let Some(path) = &args.plot {
        fs::write(path, report::plot(all.values())).with_context(|| path.display().to_string())?;
    }
    Ok(ExitCode::from(u8::from(!all.values().all(Outcome::passed))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_parts() {
        assert_eq!("3/16".parse(), Ok(Shard { part: 3, of: 16 }));
        for wrong in ["0/4", "5/4", "x", "1", "1/0"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }
}
