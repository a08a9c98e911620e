//! `cargo xtask console`: a console of a running machine, in another terminal.
//!
//! Every `cargo xtask run` has a [`folder`] with a socket on which a [`server`] hands out what its consoles
//! print and takes what is typed; the [`client`] is this command. A run on which nobody types is the
//! same to the last bit whoever looks on.

mod client;
mod folder;
mod scrollback;
mod server;
#[cfg(test)]
mod tests;

pub use folder::{VARIABLE, place};
pub use scrollback::Scrollback;
pub use server::Server;

use crate::run::terminal::{Raw, is_there};
use anyhow::{Context, Result, bail};
use client::Left;
use folder::Run;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Attaches to a console of a running machine; Ctrl-] leaves.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
What the console has printed comes first (the last 256 KB), then what it prints, until Ctrl-] or the end of
the run. Several can be attached to one console. Input and output need not be terminals.

Examples:
  cargo xtask console                      the runs there are, and their consoles
  cargo xtask console linux                the console of the VM linux
  cargo xtask console monitor --run 4711   the monitor's console of one run of several
  echo vms | cargo xtask console monitor   types a line, and goes on showing

Exit status: 0 left, or the run is over; 2 there is no such run or console.")]
pub struct Args {
    /// A VM's name, `monitor`, or (only to read) `boot` or `log`; without it the names are listed.
    name: Option<String>,
    /// Which run: its process number, or its folder.
    #[arg(long, value_name = "DIR|PID")]
    run: Option<String>,
    /// Wait so many seconds for the run to start.
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    wait: f64,
}

/// Runs the command.
///
/// # Errors
/// When there is no such run or console.
pub fn main(args: &Args) -> Result<ExitCode> {
    let wait = Duration::try_from_secs_f64(args.wait)
        .with_context(|| format!("--wait {}: give a number of seconds", args.wait))?;
    let place = place();
    let Some(name) = &args.name else { return list(&place) };
    let end = Instant::now() + wait;
    let mut run = loop {
        match choose(&place, args.run.as_deref()) {
            Ok(run) => break run,
            Err(Missing::Yet(_)) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(Missing::Yet(error) | Missing::Ever(error)) => return Err(error),
        }
    };
    client::attach(&mut run.socket, name)?;
    let signal = Arc::new(AtomicBool::new(false));
    for number in signal_hook::consts::TERM_SIGNALS {
        signal_hook::flag::register(*number, signal.clone()).context("can't catch signals")?;
    }
    let raw = is_there().then(Raw::enter).transpose()?;
    if raw.is_some() {
        print!("[this is the console of {name}; Ctrl-] leaves]\r\n");
    }
    let mut output = std::io::stdout();
    let signalled = || signal.load(Ordering::Relaxed);
    let left = client::attend(&mut run.socket, std::io::stdin(), &mut output, signalled);
    let terminal = raw.is_some();
    drop(raw);
    match left? {
        Left::Operator if terminal => println!("[left {name}; the run goes on]"),
        Left::RunOver if terminal => println!("[the run is over]"),
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Why no run was chosen.
#[derive(Debug)]
enum Missing {
    /// There may yet be one.
    Yet(anyhow::Error),
    /// The operator has to say something else.
    Ever(anyhow::Error),
}

/// The run that is meant.
fn choose(place: &Path, named: Option<&str>) -> Result<Run, Missing> {
    if let Some(named) = named {
        let is_number = named.parse::<u32>().is_ok();
        let path = if is_number { place.join(named) } else { named.into() };
        let run = folder::connect(&path).map_err(Missing::Ever)?;
        let which = if is_number { format!("process {named}") } else { named.to_string() };
        return run.ok_or_else(|| {
            Missing::Yet(anyhow::anyhow!("--run {named}: {which} runs no machine; {}", hint(place)))
        });
    }
    let mut runs = folder::running(place).map_err(Missing::Ever)?;
    match runs.len() {
        0 => {
            Err(Missing::Yet(anyhow::anyhow!("no machine runs: start one with `cargo xtask run`")))
        }
        1 => Ok(runs.remove(0)),
        count => Err(Missing::Ever(anyhow::anyhow!(
            "{count} machines run, say which one with --run PID: {}",
            described(&mut runs).join("; ")
        ))),
    }
}

/// What to say to one who named a run that is not there.
fn hint(place: &Path) -> String {
    match folder::running(place) {
        Ok(mut runs) if !runs.is_empty() => {
            format!("there are {}", described(&mut runs).join("; "))
        }
        _ => "no machine runs".into(),
    }
}

/// Each run: its process number and its consoles.
fn described(runs: &mut [Run]) -> Vec<String> {
    let describe = |run: &mut Run| {
        let id = run.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match client::list(&mut run.socket) {
            Ok(names) => format!("{id} ({})", names.join(", ")),
            Err(error) => format!("{id} ({error})"),
        }
    };
    runs.iter_mut().map(describe).collect()
}

fn list(place: &Path) -> Result<ExitCode> {
    let mut runs = folder::running(place)?;
    if runs.is_empty() {
        bail!("no machine runs: start one with `cargo xtask run`");
    }
    for line in described(&mut runs) {
        println!("{line}");
    }
    Ok(ExitCode::SUCCESS)
}
