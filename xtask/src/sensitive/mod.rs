//! `cargo xtask sensitive`: what each sensitive instruction and each part of the address space does in
//! supervisor and user mode.
//!
//! The built-in guest `hello` tries them (its command `sensitive`), on the bare machine and then in a VM
//! whose virtual CPU is configured as the real one. What is right stands in [`rules`], not in a copy of
//! an earlier outcome; and a guest must see in the VM what it sees bare, but for a written list.

mod report;
mod rules;
mod table;

use crate::endian::Endian;
use crate::test::place::Place;
use crate::test::process;
use anyhow::{Context, Result, bail};
use report::Report;
use std::fs;
use std::process::ExitCode;
use std::time::Duration;

/// Tabulates what sensitive instructions and addresses do, on the bare machine and in a VM.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cargo xtask sensitive                both byte orders; says what is not as it should be
  cargo xtask sensitive --endian big   one
  cargo xtask sensitive --write        and writes docs/results/sensitive.md

Exit status: 0 everything is as it should be, 1 not so, 2 a set-up problem.")]
pub struct Args {
    /// This byte order only.
    #[arg(long)]
    endian: Option<Endian>,
    /// Write the table of the bare machine to docs/results/sensitive.md.
    #[arg(long, conflicts_with = "endian")]
    write: bool,
}

/// Most host seconds that a run may take.
const LIMIT: Duration = Duration::from_secs(900);
/// Where the table is.
const TABLE: &str = "docs/results/sensitive.md";

/// Runs the command.
///
/// # Errors
/// A run did not come to its end, or printed what is no table.
pub fn main(args: &Args) -> Result<ExitCode> {
    let mut wrong = 0;
    let mut first: Option<Report> = None;
    for endian in Endian::ALL {
        if args.endian.is_some_and(|only| only != endian) {
            continue;
        }
        let bare =
            run(endian, "bare", &["bare", "hello", "--icount", "--append", "do=sensitive,off"])?;
        let config = config()?;
        let vm = run(endian, "vm", &["run", "--icount", "--config", &config])?;
        let mut say = |what: String| {
            println!("{endian}: {what}");
            wrong += 1;
        };
        rules::judge(&bare).into_iter().for_each(|what| say(format!("bare: {what}")));
        rules::differences(&bare, &vm).into_iter().for_each(|what| say(format!("in a VM: {what}")));
        if let Some(first) = &first
            && *first != bare
        {
            say("the table differs from that of the other byte order".into());
        }
        let (words, places) = (bare.instructions(), bare.places.len());
        println!("{endian}: {words} instructions in 64 modes, {places} addresses in 24: judged");
        first.get_or_insert(bare);
    }
    if wrong == 0
        && args.write
        && let Some(report) = &first
    {
        let path = crate::paths::workspace().join(TABLE);
        fs::write(&path, table::text(report)).with_context(|| path.display().to_string())?;
        println!("written: {TABLE}");
    }
    println!("sensitive: {wrong} wrong");
    Ok(ExitCode::from(u8::from(wrong > 0)))
}

/// The VM that the guest runs in.
fn config() -> Result<String> {
    let text = "[[vm]]\nname = \"probe\"\nkernel = \"hello\"\nmemory = \"8M\"\ncpu = \"generic\"\n\
        cmdline = \"do=sensitive,off\"\n";
    Place::new("sensitive")?.write("machine.toml", text)
}

/// Runs `cargo xtask` with these words; what the guest's report says.
fn run(endian: Endian, name: &str, words: &[&str]) -> Result<Report> {
    let endian = endian.to_string();
    let (command, typed) = process::xtask(&[words, &["--endian", &endian]].concat());
    let name = format!("sensitive-{name}-{endian}");
    let ended = process::run(command, &name, LIMIT)?;
    if !ended.status.is_some_and(|status| status.success()) {
        bail!("`{typed}` did not end well; see target/tests/{name}.out");
    }
    Report::parse(&ended.output).with_context(|| format!("`{typed}` printed something else"))
}
