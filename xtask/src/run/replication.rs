//! `cargo xtask replication`: shows from outside that each cell runs on its own copy of the monitor.
//!
//! A machine of four cells with a VM in each: of one cell a guest that never ends, of the others guests that check
//! themselves. While they do, the one cell's text, or all of its data (variables, stacks, private pages, heap), is
//! overwritten. Its CPUs must park and say so; the others' guests must finish with their checksums. Each cell in
//! turn, CPU 0's too.
//!
//! Text is overwritten by QEMU's `-qtest`: what is written through the memory's file does not reach code that
//! QEMU has translated. Data is overwritten through the file.

use super::drain::Keys;
use super::lab::{Lab, Qtest, Recipe};
use super::ram::Ram;
use super::session::{Ask, Front};
use super::verdict::Verdict;
use crate::build::Built;
use crate::endian::Endian;
use crate::setup::{self, Need};
use crate::test::bare::{Part, difference};
use abi::event::Event;
use abi::layout::Layout;
use abi::{CellId, map};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Overwrites the monitor's text or data in one cell after the other, and looks what becomes of the rest.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Exit status: 0 each cell was lost alone, 1 not so, 2 a set-up problem.")]
pub struct Args {
    /// The machine's byte order.
    #[arg(long, default_value_t)]
    endian: Endian,
    /// Only this cell.
    #[arg(long)]
    cell: Option<u8>,
    /// Show the boot log of each run.
    #[arg(long)]
    verbose: bool,
}

/// Cells, and a VM in each.
const CELLS: u8 = 4;
/// What the console of a VM that checks itself prints.
const EXPECTED: &str = "tests/guests/irix/check.txt";
/// How many lines each VM has printed when the deed is done.
const STARTED: usize = 2;
/// Most host seconds of one run.
const LIMIT: Duration = Duration::from_secs(1200);
/// What text and data are overwritten with. As an instruction it is a store to an odd address, as a pointer it
/// leads nowhere.
const TEXT: u8 = 0xff;
const DATA: u8 = 0xde;

/// What is overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Region {
    Text,
    Data,
}

/// Runs the command.
///
/// # Errors
/// Set-up.
pub fn main(args: &Args) -> Result<ExitCode> {
    setup::ensure(&[Need::Compiler, Need::Qemu])?;
    let built = crate::build::monitor(args.endian)?;
    let elf =
        std::fs::read(&built.kernel_elf).with_context(|| built.kernel_elf.display().to_string())?;
    let machine = Machine {
        endian: args.endian,
        places: Places::of(&elf)?,
        built: built.clone(),
        verbose: args.verbose,
    };
    let mut failed = false;
    for part in [Region::Text, Region::Data] {
        for cell in (0..CELLS).filter(|cell| args.cell.is_none_or(|only| only == *cell)) {
            let wrong = machine.lose(CellId(cell), part)?;
            let what = format!("{part:?}").to_lowercase();
            if wrong.is_empty() {
                println!("cell {cell}, {what}: its CPUs parked, the others' guests finished");
            } else {
                failed = true;
                println!("cell {cell}, {what}: WRONG: {}", wrong.join("; "));
            }
        }
    }
    Ok(ExitCode::from(u8::from(failed)))
}

/// Offsets in a cell's copy of the monitor.
struct Places {
    text: Range<u64>,
    /// Where what may be written begins.
    data: u64,
}

impl Places {
    fn of(elf: &[u8]) -> Result<Self> {
        use object::{Object, ObjectSymbol};
        let file = object::File::parse(elf).context("the monitor's ELF file")?;
        let at = |name: &str| -> Result<u64> {
            let symbol = file.symbol_by_name(name);
            let symbol = symbol.with_context(|| format!("the monitor has no symbol {name}"))?;
            Ok(symbol.address() - map::MONITOR_VA)
        };
        let data = at("__constant_end")?.next_multiple_of(abi::PAGE_SIZE);
        Ok(Self { text: at("__text_start")?..at("__text_end")?, data })
    }
}

/// What all runs have in common.
struct Machine {
    endian: Endian,
    built: Built,
    places: Places,
    verbose: bool,
}

fn configuration(lost: CellId) -> String {
    let mut text = format!("[machine]\nnodes = {CELLS}\nslice_per_node = \"32M\"\n");
    for cell in 0..CELLS {
        text.push_str(&format!("[[cell]]\nnodes = [{cell}]\n"));
    }
    for cell in 0..CELLS {
        let (kernel, does) = if cell == lost.0 { ("hello", "loop") } else { ("irix", "check") };
        text.push_str(&format!(
            "[[vm]]\nname = \"vm{cell}\"\nkernel = \"{kernel}\"\nmemory = \"8M\"\ncmdline = \"do={does}\"\ncells = [{cell}]\n"
        ));
    }
    text
}

impl Machine {
    /// Boots the machine, and has a cell lose a part of its monitor; what went wrong.
    fn lose(&self, cell: CellId, part: Region) -> Result<Vec<String>> {
        let config = configuration(cell);
        let recipe =
            Recipe { endian: self.endian, config: &config, icount: None, gdb: false, stays: false };
        let lab = Lab::new(&recipe, &self.built)?;
        let layout = lab.layout();
        let reserve = layout.reserve(cell);
        let deed = match part {
            Region::Text => {
                let Range { start, end } = self.places.text;
                Deed::Text {
                    socket: lab.socket("qtest"),
                    range: reserve.start + start..reserve.start + end,
                }
            }
            Region::Data => {
                let node = layout.nodes_of(cell).next().context("a cell has nodes")?;
                let file = Ram::window_offset(&layout, node) + self.places.data;
                let len = reserve.end - reserve.start - self.places.data;
                Deed::Data { ram: lab.ram.clone(), at: file, len }
            }
        };
        let mut vandal = Vandal {
            names: lab.names.clone(),
            consoles: BTreeMap::new(),
            deed: Some(deed),
            failed: None,
        };
        let verdict = lab.run(&mut vandal, LIMIT)?;
        if let Some(error) = vandal.failed {
            return Err(error);
        }
        if self.verbose {
            print!("{}", vandal.console("boot"));
        }
        vandal.judge(cell, &layout, &verdict)
    }
}

/// What is to be done to the machine.
enum Deed {
    /// Overwrite these machine addresses through QEMU.
    Text { socket: PathBuf, range: Range<u64> },
    /// Overwrite so many bytes from an offset in the memory's file.
    Data { ram: Ram, at: u64, len: u64 },
}

impl Deed {
    fn act(self) -> Result<()> {
        match self {
            Self::Text { socket, range } => {
                let (at, len) = (range.start, range.end - range.start);
                Qtest::connect(&socket)?.command(&format!("memset {at:#x} {len:#x} {TEXT:#x}"))
            }
            Self::Data { ram, at, len } => {
                let garbage = vec![DATA; len as usize];
                ram.write(at, &garbage).context("can't write the machine's memory")
            }
        }
    }
}

/// Watches until all VMs are at work, and then does the deed.
struct Vandal {
    names: Vec<String>,
    consoles: BTreeMap<String, Vec<u8>>,
    deed: Option<Deed>,
    failed: Option<anyhow::Error>,
}

impl Front for Vandal {
    fn output(&mut self, name: &str, _: Option<u16>, bytes: &[u8]) {
        self.consoles.entry(name.to_string()).or_default().extend_from_slice(bytes);
    }

    fn event(&mut self, _: &Event) {}

    fn wait(&mut self, pause: Duration, _: &mut Keys) -> Ask {
        let started = |name: &String| self.console(name).lines().count() >= STARTED;
        if self.names.iter().all(started)
            && let Some(deed) = self.deed.take()
            && let Err(error) = deed.act()
        {
            self.failed = Some(error);
            return Ask::EndNow;
        }
        std::thread::sleep(pause);
        Ask::GoOn
    }

    fn finish(&mut self) {}
}

impl Vandal {
    fn console(&self, name: &str) -> String {
        let bytes = self.consoles.get(name).map_or(&[][..], Vec::as_slice);
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// What is wrong with how it went on.
    fn judge(&self, lost: CellId, layout: &Layout, verdict: &Verdict) -> Result<Vec<String>> {
        let mut wrong = verdict.broken.clone();
        wrong.extend(verdict.set_up.iter().cloned());
        if verdict.timed_out {
            wrong.push("the run did not end".into());
        }
        let cell_lost = format!("cell {lost} was lost");
        if !verdict.cells_lost.contains(&cell_lost) {
            wrong.push(format!("nobody said that {cell_lost}"));
        }
        let boot = self.console("boot");
        for cell in (0..layout.cells()).map(CellId) {
            for cpu in layout.cpus_of(cell) {
                let begins = format!("prom: CPU {cpu} of cell {cell}: ");
                let said = |line: &&str| line.starts_with(&begins) && line.ends_with("; parked");
                let count = boot.lines().filter(said).count();
                if count != usize::from(cell == lost) {
                    wrong.push(format!("CPU {cpu} of cell {cell} parked {count} times"));
                }
            }
            // The lost cell's guest has nothing to finish: without the loss the run would not have ended.
            let name = &self.names[usize::from(cell.0)];
            if cell != lost
                && let Some(difference) = difference(&self.console(name), EXPECTED, Part::All)?
            {
                wrong.push(format!("{name}: {difference}"));
            }
        }
        if !wrong.is_empty() {
            wrong.extend(boot.lines().map(str::to_string));
        }
        Ok(wrong)
    }
}
