//! `cargo xtask`: the one front door on the host, and the system controller of the emulated machine.

mod bare;
mod bench;
mod build;
mod console;
mod doctor;
mod endian;
mod fault;
mod fuzz;
mod hostile;
mod layouts;
mod outside;
mod paths;
mod run;
mod sensitive;
mod setup;
mod sim;
mod soak;
mod test;
mod torture;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, Parser, Subcommand};
use std::ffi::OsString;
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
    /// Makes an initramfs for the stock guest from Debian packages, by their names.
    Root(setup::root::Args),
    /// Reports host, versions, cache, and what is missing with its remedy.
    Doctor(doctor::Args),
    /// Builds PROM and monitor for both endiannesses (or one).
    Build(build::Args),
    /// Boots the machine and its virtual machines.
    Run(Box<run::Args>),
    /// Attaches to a console of a running machine, from another terminal.
    Console(console::Args),
    /// Runs a guest kernel in an ordinary process: the reference interpreter and the virtual Malta.
    Sim(sim::Args),
    /// Compares the interpreter with QEMU's own CPU on random instruction streams.
    Fuzz(fuzz::Args),
    /// Boots one of our own guests on the bare machine, without the monitor.
    Bare(bare::Args),
    /// Tabulates what sensitive instructions and addresses do, on the bare machine and in a VM.
    Sensitive(sensitive::Args),
    /// Runs hostile VMs in direct execution beside two that check themselves.
    Hostile(hostile::Args),
    /// Divides one machine into 1, 2, 4 and 8 cells, and compares its guests with the bare machine's.
    Layouts(layouts::Args),
    /// Breaks machines at random, and judges what is left: fault-injection campaigns.
    Fault(fault::Args),
    /// Takes nodes away from outside, at any instruction of the monitor, and judges what is left.
    Outside(outside::Args),
    /// Runs a large machine on one host core beside a busy loop, and sees that nobody starves.
    Soak(soak::Args),
    /// Destroys the monitor of one cell after the other from outside: the others must go on.
    Replication(run::replication::Args),
    /// Has a stock kernel work hard in a translated VM: stress-ng, a compiler, modules.
    Torture(torture::Args),
    /// Measures what things cost, beside the papers' figures.
    Bench(bench::Args),
    /// Runs every test: host-side, then boots.
    Test(test::Args),
}

/// What the operator got wrong, or the host lacks: exit status 2.
const EXIT_SETUP: u8 = 2;

/// Edits between what was typed and a command that may have been meant.
const NEAR: usize = 2;

/// The command line. A command that is not there is answered with the nearest that is: clap's own
/// idea of likeness passes over two letters that have changed places.
fn parse(args: impl Iterator<Item = OsString>) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(args).map_err(|mut error| {
        let nearest = match error.get(ContextKind::InvalidSubcommand) {
            Some(ContextValue::String(typed)) => Cli::command()
                .get_subcommands()
                .map(|known| (strsim::osa_distance(typed, known.get_name()), known.get_name()))
                .filter(|(distance, _)| *distance <= NEAR)
                .min()
                .map(|(_, name)| name.to_owned()),
            _ => None,
        };
        if let Some(name) = nearest {
            error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(vec![name]));
        }
        error
    })
}

fn main() -> ExitCode {
    let cli = parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let result = match &cli.command {
        Command::Setup(args) => setup::main(args),
        Command::Root(args) => setup::root::main(args),
        Command::Doctor(args) => doctor::main(args),
        Command::Build(args) => build::main(args),
        Command::Run(args) => run::main(args),
        Command::Console(args) => console::main(args),
        Command::Sim(args) => sim::main(args),
        Command::Fuzz(args) => fuzz::main(args),
        Command::Bare(args) => bare::main(args),
        Command::Sensitive(args) => sensitive::main(args),
        Command::Hostile(args) => hostile::main(args),
        Command::Layouts(args) => layouts::main(args),
        Command::Fault(args) => fault::main(args),
        Command::Outside(args) => outside::main(args),
        Command::Soak(args) => soak::main(args),
        Command::Replication(args) => run::replication::main(args),
        Command::Torture(args) => torture::main(args),
        Command::Bench(args) => bench::main(args),
        Command::Test(args) => test::main(args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(EXIT_SETUP)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_command_is_answered_with_the_nearest() {
        let answer = |typed: &str| {
            let args = ["cargo xtask", typed].map(OsString::from);
            parse(args.into_iter()).err().expect("a mistake").to_string()
        };
        for (typed, meant) in [
            ("rnu", "run"),
            ("biuld", "build"),
            ("tset", "test"),
            ("docter", "doctor"),
            ("sum", "sim"),
        ] {
            let answer = answer(typed);
            assert!(answer.contains(&format!("'{meant}'")), "{typed}: {answer}");
        }
        assert!(!answer("frobnicate").contains("similar"));
    }
}
