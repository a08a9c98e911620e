//! Runs every test: host-side, then boots.

use anyhow::{Result, bail};
use std::process::ExitCode;

/// Runs every test: host-side, then boots.
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Runs the command.
pub fn main(_: &Args) -> Result<ExitCode> {
    bail!("not there yet")
}
