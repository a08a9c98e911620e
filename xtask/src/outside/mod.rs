//! `cargo xtask outside`: takes nodes away from outside, at any instruction, and judges what is left.
//!
//! A [`series`] of experiments is one boot. QEMU's stub for debuggers ([`gdb`]) stops a CPU, anywhere or in one of the monitor's
//! critical regions ([`places`]), and steps it some instructions on; its node then loses its power ([`strike`]). What becomes of the
//! machine is [`watch`]ed and judged, and the lost cells are repaired. [`outcome`]s are kept and reported.

mod gdb;
mod outcome;
mod places;
mod records;
mod series;
mod strike;
mod watch;

use crate::endian::Endian;
use crate::fault::campaign::short;
use crate::fuzz::rng::Rng;
use crate::run::facts::Facts;
use crate::run::lab::{Lab, Recipe};
use crate::setup::{self, Need};
use anyhow::{Context, Result};
use gdb::Gdb;
use outcome::Outcome;
use places::Functions;
use records::Reader;
use series::{Driver, Stop};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use strike::Striker;

/// Takes nodes away from outside, and judges what is left.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cargo xtask outside --experiments 40 --seed 3        results in target/outside
  cargo xtask outside --experiments 40 --threads       on host threads instead of under icount

What is there in the folder of results already, of the same monitor, is not done again.

Exit status: 0 all experiments passed, 1 not so, or a region was never reached, 2 a set-up problem.")]
pub struct Args {
    /// How many experiments
    #[arg(long, value_name = "N", default_value_t = 20)]
    experiments: u64,
    /// What the machines, nodes and places are drawn from
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// On host threads, not under icount
    #[arg(long)]
    threads: bool,
    /// The folder of results
    #[arg(long, value_name = "DIR", default_value = "target/outside")]
    out: PathBuf,
}

/// Experiments of a boot.
const SERIES: u64 = 20;
/// Most host time of a boot.
const LIMIT: Duration = Duration::from_secs(3600);

/// Runs the command.
///
/// # Errors
/// Set-up.
pub fn main(args: &Args) -> Result<ExitCode> {
    setup::ensure(&[Need::Compiler, Need::Qemu])?;
    fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let mut hash = Sha256::new();
    for endian in Endian::ALL {
        let built = crate::build::monitor(endian)?;
        for file in [&built.boot_elf, &built.kernel_elf] {
            hash.update(fs::read(file).with_context(|| file.display().to_string())?);
        }
    }
    let monitor = short(&hash.finalize());
    // Those under icount and on threads are two campaigns, which share nothing.
    let folder = args.out.join(if args.threads { "threads" } else { "icount" });
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let campaign = Campaign { seed: args.seed, threads: args.threads, monitor, folder };
    for first in (0..args.experiments).step_by(SERIES as usize) {
        campaign.series(first, (first + SERIES).min(args.experiments))?;
    }
    let mut all = campaign.done()?;
    all.retain(|id, _| *id < args.experiments);
    print!("{}", outcome::report(&all));
    let missed = outcome::missed(&all);
    for region in &missed {
        println!("region {region} was aimed at and never reached");
    }
    let failed = all.values().any(|outcome| outcome.wrong.is_some()) || !missed.is_empty();
    Ok(ExitCode::from(u8::from(failed)))
}

/// The line that each program of the IRIX-like guest prints, on the bare machine as in a VM.
fn checksums() -> Result<BTreeMap<String, String>> {
    let path = crate::paths::workspace().join("tests/guests/irix/check.txt");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let sum = |line: &str| Some((line.split(' ').nth(1)?.to_owned(), line.to_owned()));
    Ok(text.lines().filter(|line| line.starts_with("check ")).filter_map(sum).collect())
}

/// A campaign's setting.
struct Campaign {
    seed: u64,
    threads: bool,
    /// Which monitor this is.
    monitor: String,
    folder: PathBuf,
}

impl Campaign {
    fn done(&self) -> Result<BTreeMap<u64, Outcome>> {
        outcome::read(&self.folder, self.seed, &self.monitor)
    }

    /// Does those of the experiments `first` to `end` that are not done yet, in one boot; after a failure, which may have left anything,
    /// the rest in another one.
    fn series(&self, first: u64, end: u64) -> Result<()> {
        loop {
            let done = self.done()?;
            let open: Vec<u64> = (first..end).filter(|id| !done.contains_key(id)).collect();
            if open.is_empty() {
                return Ok(());
            }
            self.boot(first, &open)?;
        }
    }

    fn boot(&self, series: u64, open: &[u64]) -> Result<()> {
        let drawn = series::draw(&mut Rng::new(self.seed, series), &checksums()?)?;
        let config = drawn.config;
        let facts = Facts::parse(Path::new("the drawn configuration"), &config)?;
        let endian = facts.endian.context("the drawn configuration names its byte order")?;
        let built = crate::build::monitor(endian)?;
        let elf =
            fs::read(&built.kernel_elf).with_context(|| built.kernel_elf.display().to_string())?;
        let functions = Functions::of(&elf)?;
        let icount = (!self.threads).then_some(series);
        let recipe = Recipe { endian, config: &config, icount, gdb: true, stays: true };
        let lab = Lab::new(&recipe, &built)?;
        let (mut relay, machine) = watch::relay(drawn.texts);
        let (gdb, qtest) = (lab.socket("gdb"), lab.socket("qtest"));
        let (ram, layout) = (lab.ram.clone(), lab.layout());
        let work = || -> Result<()> {
            let mut machine = machine;
            // QEMU listens once it is up, and so before anything is printed.
            let up = machine.until("the machine prints something", Duration::from_secs(60), |m| {
                !m.log.is_empty()
            });
            up.map_err(anyhow::Error::msg)?;
            let reader = Reader::new(ram.clone(), layout, endian, &elf, &facts.vms)?;
            let striker = Striker::connect(ram, layout, endian, &qtest)?;
            let mut gdb = Gdb::connect(&gdb, endian == Endian::Big)?;
            gdb.go_on()?;
            let mut driver =
                Driver { machine, gdb, striker, reader, facts: &facts, functions: &functions };
            let result = self.experiments(&mut driver, open, &config);
            drop(driver);
            result
        };
        std::thread::scope(|scope| {
            let driver = scope.spawn(work);
            let verdict = lab.run(&mut relay, LIMIT);
            // Whoever waits for the machine is told that it has ended.
            drop(relay);
            let driven = driver.join().expect("the driver does not panic");
            verdict?;
            driven
        })
    }

    /// Does experiments until one fails.
    fn experiments(&self, driver: &mut Driver, open: &[u64], config: &str) -> Result<()> {
        let layout = driver.facts.layout;
        let machine =
            format!("{} cells, {} nodes, {} CPUs", layout.cells(), layout.nodes, layout.cpus());
        for (i, &id) in open.iter().enumerate() {
            let region = series::region(id, layout.cells());
            let mut outcome = Outcome {
                seed: self.seed,
                id,
                monitor: self.monitor.clone(),
                machine: machine.clone(),
                icount: !self.threads,
                aim: region.map(|region| region.name.into()),
                ..Outcome::default()
            };
            let mut rng = Rng::new(self.seed, !id);
            let begun = Instant::now();
            let settled = if i == 0 { driver.settle() } else { Ok(()) };
            let result = settled.and_then(|()| driver.experiment(&mut rng, region, &mut outcome));
            match result {
                Ok(()) => {}
                Err(Stop::Wrong(wrong)) => outcome.wrong = Some(wrong),
                Err(Stop::Tools(error)) => return Err(error),
            }
            outcome.took_s = begun.elapsed().as_secs();
            println!("{}", outcome.line());
            outcome::add(&self.folder, &outcome)?;
            if outcome.wrong.is_some() {
                let left = self.folder.join(format!("{}-{id}.log", self.seed));
                let text = format!("{config}\n{}", driver.machine.log);
                fs::write(&left, text).with_context(|| left.display().to_string())?;
                println!("    its machine and all that was seen: {}", left.display());
                return Ok(());
            }
        }
        Ok(())
    }
}
