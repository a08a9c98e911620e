//! Reports host, versions, cache, and what is missing with its remedy.

use anyhow::{Result, bail};
use std::process::ExitCode;

/// Reports host, versions, cache, and what is missing with its remedy.
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Runs the command.
pub fn main(_: &Args) -> Result<ExitCode> {
    bail!("not there yet")
}
