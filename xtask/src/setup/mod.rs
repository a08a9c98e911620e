//! Gets what the project needs and the host lacks.

pub mod cache;
pub mod toolchain;

use anyhow::{Result, bail};
use std::process::ExitCode;

/// Fetches what the project lacks into its own cache, and does only this.
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Runs the command.
pub fn main(_: &Args) -> Result<ExitCode> {
    bail!("not there yet")
}
