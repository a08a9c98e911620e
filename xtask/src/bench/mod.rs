//! `cargo xtask bench`: what things cost, in executed instructions and in the machine's own time, beside what
//! the papers' systems needed. It reports; only where an
//! equality is asked for does it judge.

mod cells;
mod figures;
mod layouts;
mod machine;
mod overhead;
mod recovery;

use anyhow::Result;
use std::process::ExitCode;

/// Measures what things cost.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// What cells cost: calls between them, idle CPUs, VCPUs that move.
    Cells(cells::Args),
    /// A VM that depends on one cell, on a machine of one cell and of eight.
    Layouts(layouts::Args),
    /// What a VM costs, phase by phase, beside the bare machine.
    Overhead(overhead::Args),
    /// What it costs the survivors that a node has died.
    Recovery(recovery::Args),
}

/// Runs the command.
///
/// # Errors
/// What kept a machine from running.
pub fn main(args: &Args) -> Result<ExitCode> {
    match &args.what {
        What::Cells(args) => cells::main(args),
        What::Layouts(args) => layouts::main(args),
        What::Overhead(args) => overhead::main(args),
        What::Recovery(args) => recovery::main(args),
    }
}
