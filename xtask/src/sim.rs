//! Runs a guest kernel in an ordinary process: the reference interpreter and the virtual Malta.

use anyhow::{Result, bail};
use std::process::ExitCode;

/// Runs a guest kernel in an ordinary process: the reference interpreter and the virtual Malta.
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Runs the command.
pub fn main(_: &Args) -> Result<ExitCode> {
    bail!("not there yet")
}
