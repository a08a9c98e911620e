//! Boots the machine and its virtual machines.

use anyhow::{Result, bail};
use std::process::ExitCode;

/// Boots the machine and its virtual machines.
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Runs the command.
pub fn main(_: &Args) -> Result<ExitCode> {
    bail!("not there yet")
}
