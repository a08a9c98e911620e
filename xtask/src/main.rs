//! `cargo xtask`: the one front door on the host, and the system controller of the emulated machine.

mod build;
mod doctor;
mod endian;
mod fuzz;
mod paths;
mod run;
mod setup;
mod sim;
mod test;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Honeycomb: a virtual-cluster monitor for MIPS64 ccNUMA machines.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fetches what the project lacks into its own cache, and does only this.
    Setup(setup::Args),
    /// Reports host, versions, cache, and what is missing with its remedy.
    Doctor(doctor::Args),
    /// Builds PROM and monitor for both endiannesses (or one).
    Build(build::Args),
    /// Boots the machine and its virtual machines.
    Run(Box<run::Args>),
    /// Runs a guest kernel in an ordinary process: the reference interpreter and the virtual Malta.
    Sim(sim::Args),
    /// Compares the interpreter with QEMU's own CPU on random instruction streams.
    Fuzz(fuzz::Args),
    /// Runs every test: host-side, then boots.
    Test(test::Args),
}

/// What the operator got wrong, or the host lacks: exit status 2.
const EXIT_SETUP: u8 = 2;

fn main() -> ExitCode {
    let result = match &Cli::parse().command {
        Command::Setup(args) => setup::main(args),
        Command::Doctor(args) => doctor::main(args),
        Command::Build(args) => build::main(args),
        Command::Run(args) => run::main(args),
        Command::Sim(args) => sim::main(args),
        Command::Fuzz(args) => fuzz::main(args),
        Command::Test(args) => test::main(args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(EXIT_SETUP)
    })
}
