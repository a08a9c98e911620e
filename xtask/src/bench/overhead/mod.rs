//! `cargo xtask bench overhead`: what a VM costs, by phases of a guest's life: the same image and the same command on the
//! bare machine and in a VM, counted by the plugin.
//!
//! Time is counted in instructions on both sides (`-icount`), with one CPU, so that runs repeat exactly. How
//! instructions are told apart is in docs/overhead.md.

mod machine;
mod phase;
mod probe;
mod report;
mod watch;

use crate::setup::{self, Need};
use crate::test::process::shell_line;
use anyhow::{Context, Result, bail};
use machine::{Machine, Ran};
use phase::{Counted, Engine, Image, Phase};
use report::{Row, Sample};
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

/// Compares a VM with the bare machine, phase by phase.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cargo xtask bench overhead                               all phases, three runs each
  cargo xtask bench overhead --phase mix,user --runs 1     some of them, once
  cargo xtask bench overhead --json --phase script         a list of objects
  cargo xtask bench overhead --engine interpreter          kernels are interpreted: hours
  cargo xtask bench overhead --dry-run --phase boot        the bare machine's command, to count it yourself

Exit status: 0 it was measured, whatever the figures say; 1 a phase could not be; 2 nothing could.")]
pub struct Args {
    /// Measure these phases only.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PHASE")]
    phase: Vec<Phase>,
    /// Runs of each machine; medians are reported.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// What executes the VM's kernel mode, where the CPU can't by itself.
    #[arg(long, value_enum, default_value_t)]
    engine: Engine,
    /// A JSON list of objects instead of tables (docs/overhead.md).
    #[arg(long)]
    json: bool,
    /// Print the command that counts each phase on the bare machine, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Give up a machine after so many seconds of the host.
    #[arg(long, value_name = "S", default_value_t = 7200)]
    limit: u64,
}

/// Runs the command.
///
/// # Errors
/// Set-up, or no phase could be measured.
pub fn main(args: &Args) -> Result<ExitCode> {
    setup::ensure(&[Need::Compiler, Need::Qemu, Need::Guest])?;
    let phases: Vec<_> = Phase::ALL
        .into_iter()
        .filter(|p| args.phase.is_empty() || args.phase.contains(p))
        .collect();
    let images: BTreeSet<Image> = phases.iter().map(|phase| phase.image()).collect();
    let mut rows = Vec::new();
    let mut failed = false;
    for image in images {
        let machine = Machine::new(image, &phases, args.engine)?;
        if args.dry_run {
            let command = shell_line(&machine.counted("counts.jsonl")?);
            for phase in machine.phases() {
                let (first, last) = phase.markers();
                let from = first.map_or("the start".into(), |marker| format!("marker {marker:#x}"));
                println!("{}, from {from} to marker {last:#x}:\n  {command}", phase.name());
            }
            continue;
        }
        match measure(&machine, args.runs, Duration::from_secs(args.limit)) {
            Ok((found, stats)) => {
                if !args.json {
                    print!("{}", report::text(&found));
                    println!("\n{}, the whole run as `stats` tells it:", machine.name());
                    stats.iter().for_each(|line| println!("  {line}"));
                }
                rows.extend(found);
            }
            Err(error) => {
                eprintln!("bench: {}: {error:#}", machine.name());
                failed = true;
            }
        }
    }
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    if rows.is_empty() {
        bail!("no phase could be measured: see above");
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows).context("a report that is no JSON")?);
    }
    Ok(ExitCode::from(u8::from(failed)))
}

/// Runs both sides, in turn, so that what changes on the host meets both. The phases, and what the monitor says of the
/// last VM.
fn measure(machine: &Machine, runs: u32, limit: Duration) -> Result<(Vec<Row>, Vec<String>)> {
    let mut bare = Vec::new();
    let mut vm = Vec::new();
    for _ in 0..runs {
        bare.push(machine.run_bare(limit).context("on the bare machine")?);
        vm.push(machine.run_vm(limit).context("in a VM")?);
    }
    let mut rows = Vec::new();
    for &phase in machine.phases() {
        let samples = |runs: &[Ran], in_vm: bool| {
            let sample = |run: &Ran| {
                let counted = Counted::new(phase, &run.records, in_vm)?;
                if !in_vm && counted.ranges.get("refills").is_some_and(|n| *n == 0) {
                    eprintln!("bench: {}: the bare machine has had no TLB refill", phase.name());
                }
                Ok(Sample { counted, host: phase::host_time(phase, &run.lines)? })
            };
            runs.iter().map(sample).collect::<Result<Vec<_>>>().with_context(|| {
                format!(
                    "{}, {}",
                    phase.name(),
                    if in_vm { "in a VM" } else { "on the bare machine" }
                )
            })
        };
        rows.extend(Row::new(
            phase,
            machine.engine(),
            &samples(&bare, false)?,
            &samples(&vm, true)?,
        ));
    }
    let stats = vm.pop().map(|ran| ran.stats).unwrap_or_default();
    Ok((rows, stats))
}
