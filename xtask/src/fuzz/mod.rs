//! Compares the interpreter with QEMU's own CPU on random instruction streams.

use anyhow::{Result, bail};
use std::process::ExitCode;

/// Compares the interpreter with QEMU's own CPU on random instruction streams.
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Runs the command.
pub fn main(_: &Args) -> Result<ExitCode> {
    bail!("not there yet")
}
