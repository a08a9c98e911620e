//! `cargo xtask bench`: what things cost, in executed instructions and in the machine's own time, beside what
//! the papers' systems needed. It reports, and judges nothing.

mod cells;
mod figures;

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
}

/// Runs the command.
///
/// # Errors
/// What kept a machine from running.
pub fn main(args: &Args) -> Result<ExitCode> {
    match &args.what {
        What::Cells(args) => cells::main(args),
    }
}
