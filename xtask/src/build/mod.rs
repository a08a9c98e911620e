//! Builds PROM and monitor for both endiannesses (or one).

use anyhow::{Result, bail};
use std::process::ExitCode;

/// Builds PROM and monitor for both endiannesses (or one).
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Runs the command.
pub fn main(_: &Args) -> Result<ExitCode> {
    bail!("not there yet")
}
