//! `cargo xtask layouts`: one machine of 8 nodes with 16 CPUs, divided into 1, 2, 4 and 8 cells. On each, eight
//! IRIX-like VMs of 1, 2 and 4 VCPUs (four of them spread over several cells) and a stock guest work at once.
//!
//! What each of them prints must be what the same image prints on the bare machine, which the same command
//! finds out first.

use crate::endian::Endian;
use crate::setup::{self, Need};
use crate::test::bare::{self, Guest, Part};
use crate::test::place::Place;
use crate::test::process;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Divides one machine into 1, 2, 4 and 8 cells.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cargo xtask layouts                             all eight: four layouts in two byte orders
  cargo xtask layouts --cells 8 --endian little   one
  cargo xtask layouts --cells 4 --short           in both byte orders, with fewer VMs
  cargo xtask layouts --cells 4 --stock           four of the VMs are stock guests, and translated

Exit status: 0 all VMs printed what they print on the bare machine, 1 not so, 2 a set-up problem.")]
pub struct Args {
    /// Only so many cells: 1, 2, 4 or 8.
    #[arg(long, value_name = "N", value_parser = clap::builder::PossibleValuesParser::new(["1", "2", "4", "8"]))]
    cells: Option<String>,
    /// Only this byte order.
    #[arg(long)]
    endian: Option<Endian>,
    /// Three IRIX-like VMs instead of eight.
    #[arg(long)]
    short: bool,
    /// Four IRIX-like VMs and four stock ones, whose kernel mode is translated; little-endian only.
    #[arg(long, conflicts_with = "short")]
    stock: bool,
}

/// Which VMs there are beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    All,
    Short,
    Stock,
}

impl Choice {
    /// How the files of such a run are called.
    const fn suffix(self) -> &'static str {
        match self {
            Self::All => "",
            Self::Short => "-short",
            Self::Stock => "-stock",
        }
    }
}

const NODES: u32 = 8;
const CPUS: u32 = 16;
const LAYOUTS: [u32; 4] = [1, 2, 4, 8];
/// The IRIX-like VMs: VCPUs, and over how many cells each is spread, if they are there.
const VMS: [(u32, Option<u32>); 8] = [
    (1, None),
    (2, Some(2)),
    (4, Some(NODES)),
    (1, None),
    (2, None),
    (4, Some(2)),
    (1, Some(2)),
    (2, None),
];
/// Those of them that a short run has.
const SHORT: std::ops::Range<u32> = 1..4;
/// Those that are there beside as many stock ones.
const BESIDE_STOCK: std::ops::Range<u32> = 0..4;
/// Memory of an IRIX-like VM and of the stock one.
const MEMORY: (&str, &str) = ("8M", "48M");
const CHECK: &str = "do=check";
/// What the stock guest does: its shell computes sums of what it has packed, unpacked and counted. (QEMU's own
/// boot loader takes no more than 256 characters. A kernel that moves itself at random may leave so little memory.)
const STOCK: &str = "console=ttyS0 quiet nokaslr rdinit=/bin/sh -- -c \"cd /;echo sums:;seq 30000 >a;sha512sum a;\
    sort -r a|gzip|zcat|md5sum;for i in `seq 50`;do wc<a;done|sha1sum;echo end;reboot -f\"";
/// The first and the last line of that.
const SUMS: (&str, &str) = ("sums:", "end");
/// How often it is asked where VMs are.
const ASKED: usize = 3;
/// Most seconds for a machine, and for a guest on the bare one.
const LIMIT: (u64, u64) = (1800, 600);

/// A VM of a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Vm {
    name: String,
    vcpus: u32,
    cells: BTreeSet<u32>,
    is_spread: bool,
    is_stock: bool,
    is_translated: bool,
}

/// The VMs on so many cells. There is no stock guest in big-endian.
fn vms(cells: u32, endian: Endian, choice: Choice) -> Vec<Vm> {
    let numbers = match choice {
        Choice::All => 0..VMS.len() as u32,
        Choice::Short => SHORT,
        Choice::Stock => BESIDE_STOCK,
    };
    let irix = (0..).zip(VMS).filter(|(number, _)| numbers.contains(number));
    let mut vms: Vec<_> = irix
        .map(|(number, (vcpus, over))| Vm {
            name: format!("irix-{number}"),
            vcpus,
            cells: (number..number + over.unwrap_or(1)).map(|cell| cell % cells).collect(),
            is_spread: over.is_some(),
            is_stock: false,
            is_translated: false,
        })
        .collect();
    let stock = match (endian, choice) {
        (Endian::Big, _) => 0,
        (_, Choice::Stock) => BESIDE_STOCK.end,
        _ => 1,
    };
    vms.extend((1..=stock).map(|number| Vm {
        name: if stock == 1 { "linux".into() } else { format!("linux-{number}") },
        vcpus: 1,
        cells: [(cells * NODES - number) % cells].into(),
        is_spread: false,
        is_stock: true,
        is_translated: choice == Choice::Stock,
    }));
    vms
}

fn config(cells: u32, vms: &[Vm]) -> String {
    let mut out =
        format!("[machine]\nnodes = {NODES}\ncpus_per_node = 2\nslice_per_node = \"64M\"\n");
    let list = |numbers: &mut dyn Iterator<Item = u32>| {
        numbers.map(|number| number.to_string()).collect::<Vec<_>>().join(", ")
    };
    let each = NODES / cells;
    for cell in 0..cells {
        let nodes = list(&mut (cell * each..(cell + 1) * each));
        // Writing to a string does not fail.
        let _ = write!(out, "[[cell]]\nnodes = [{nodes}]\n");
    }
    for vm in vms {
        let (kernel, memory, cmdline) =
            if vm.is_stock { ("linux", MEMORY.1, STOCK) } else { ("irix", MEMORY.0, CHECK) };
        let _ = write!(
            out,
            "[[vm]]\nname = \"{}\"\nkernel = \"{kernel}\"\nmemory = \"{memory}\"\nvcpus = {}\ncells = [{}]\n\
             cmdline = '{cmdline}'\n",
            vm.name,
            vm.vcpus,
            list(&mut vm.cells.iter().copied())
        );
        if vm.is_spread {
            out.push_str("placement = \"spread\"\n");
        }
        if vm.is_stock {
            // Its ticks would eat what a sixteenth of the host leaves it.
            out.push_str("clock_scale = 8\n");
        }
        if vm.is_translated {
            out.push_str("engine = \"translator\"\n");
        }
    }
    out
}

/// Looks where VMs are while they work, waits until all have ended, and has every cell count its pages.
fn script(cells: u32, vms: &[Vm]) -> String {
    let mut out = String::new();
    for vm in vms.iter().filter(|vm| vm.is_spread) {
        let _ = write!(out, "console {}\nexpect \"^check memory\" {}\n", vm.name, LIMIT.0);
    }
    // A cell that a busy host keeps from answering in time may answer the next time.
    out.push_str("console monitor\n");
    out.push_str(&"send vms -v\nwait 1\n".repeat(ASKED));
    for _ in vms {
        let _ = writeln!(out, "expect \"VM `[^`]+` ended: [a-z]\" {}", LIMIT.0);
    }
    out.push_str("send mem\n");
    for _ in 0..cells {
        out.push_str("expect \"^consistent\" 60\n");
    }
    out.push_str("absent \"NOT CONSISTENT\"\n");
    out
}

/// The part of a stock guest's console that is to be the same everywhere.
fn sums(console: &str) -> Option<String> {
    let console = console.replace('\r', "");
    let from = console.lines().skip_while(|line| *line != SUMS.0);
    let mut part = String::new();
    for line in from {
        part.push_str(line);
        part.push('\n');
        if line == SUMS.1 {
            return Some(part);
        }
    }
    None
}

/// What images print on the bare machine.
struct Bare {
    /// The IRIX-like kernel, by the number of CPUs.
    irix: BTreeMap<u32, String>,
    stock: Option<String>,
}

impl Bare {
    fn new(endian: Endian, vms: &[Vm]) -> Result<Self> {
        let boot = |image, cpus, (memory, cmdline)| -> Result<String> {
            let name = format!("layouts-bare-{image}-{endian}-{cpus}");
            let guest = Guest { image, initrd: None, endian, cpus, memory, cmdline };
            let (ended, typed) = bare::boot(guest, &name, Duration::from_secs(LIMIT.1))?;
            match bare::not_ended(&ended) {
                None => Ok(ended.output),
                Some(wrong) => bail!("on the bare machine: {wrong}: {typed}"),
            }
        };
        let mut irix = BTreeMap::new();
        for vm in vms.iter().filter(|vm| !vm.is_stock) {
            if let std::collections::btree_map::Entry::Vacant(entry) = irix.entry(vm.vcpus) {
                let output = boot("irix", vm.vcpus, (MEMORY.0, CHECK))?;
                if !output.contains("irix: check passed") {
                    bail!("the IRIX-like guest fails on the bare machine with {} CPUs", vm.vcpus);
                }
                entry.insert(output);
            }
        }
        let stock = match vms.iter().find(|vm| vm.is_stock) {
            Some(vm) => {
                let output = boot("linux", vm.vcpus, (MEMORY.1, STOCK))?;
                Some(
                    sums(&output)
                        .context("the stock guest has not finished on the bare machine")?,
                )
            }
            None => None,
        };
        Ok(Self { irix, stock })
    }

    /// How a VM's console differs from that of the bare machine.
    fn difference(&self, vm: &Vm, console: &str) -> Option<String> {
        let (wanted, part) = match &self.stock {
            Some(stock) if vm.is_stock => (stock.as_str(), Part::Excerpt),
            _ => (self.irix.get(&vm.vcpus).map_or("", String::as_str), Part::All),
        };
        bare::compare(console, &wanted.replace('\r', ""), "the bare machine's", part)
    }
}

/// Where a VM was, by what `vms -v` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Where {
    /// Cells that had pages of it.
    pages: BTreeSet<u32>,
    /// Cells that ran VCPUs of it.
    vcpus: BTreeSet<u32>,
}

/// Where each VM was, by the lines of a run.
fn places(output: &str) -> BTreeMap<String, Where> {
    let mut places: BTreeMap<String, Where> = BTreeMap::new();
    let mut vm = None;
    for line in output.lines().filter_map(|line| line.strip_prefix("monitor| ")) {
        if let Some((name, _)) = line.split_once(", home cell ") {
            vm = name.split(':').next().map(str::to_owned);
        }
        let Some(depends) = line.strip_prefix("  depends on cell ") else { continue };
        let Some(place) = vm.as_ref().map(|vm| places.entry(vm.clone()).or_default()) else {
            continue;
        };
        let numbers: Vec<u32> = depends
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|word| word.parse().ok())
            .collect();
        // `cell 3: 12 pages and 5 promised, 1 VCPUs`.
        if let [cell, pages, _, vcpus, ..] = numbers[..] {
            if pages > 0 {
                place.pages.insert(cell);
            }
            if vcpus > 0 {
                place.vcpus.insert(cell);
            }
        }
    }
    places
}

/// Runs a layout: a row of the table, and what was wrong.
fn run(cells: u32, endian: Endian, choice: Choice, bare: &Bare) -> Result<(String, Vec<String>)> {
    let vms = vms(cells, endian, choice);
    let name = format!("layouts-{cells}-{endian}{}", choice.suffix());
    let place = Place::new(&name)?;
    let config = place.write("machine.toml", &config(cells, &vms))?;
    let script = place.write("script", &script(cells, &vms))?;
    let logs = place.empty("logs")?;
    let (mut command, typed) = process::xtask(&["run", "--config", &config, "--script", &script]);
    command.arg("--log").arg(logs.path());
    command.args(["--endian", &endian.to_string(), "--timeout", &LIMIT.0.to_string()]);
    let begun = Instant::now();
    let ended = process::run(command, &name, Duration::from_secs(LIMIT.0 + 60))?;
    let seconds = begun.elapsed().as_secs();

    let mut wrong = Vec::new();
    if !ended.status.is_some_and(|status| status.success()) {
        wrong.push(format!("`{typed} --endian {endian}` did not end well; the end of its output:"));
        wrong.extend(process::tail(&ended.output, 25));
    }
    let up = format!(
        "boot| prom: Honeycomb, {endian}-endian, {CPUS} CPUs, {NODES} nodes, {cells} cells"
    );
    if !ended.output.lines().any(|line| line == up) {
        wrong.push(format!("no line {up:?}"));
    }
    let mut equal = 0;
    for vm in &vms {
        let log = logs.path().join(format!("{}.log", vm.name));
        // A run that failed early has no such file; then that is what is wrong.
        let console = fs::read(&log).unwrap_or_default();
        match bare.difference(vm, &String::from_utf8_lossy(&console)) {
            None => equal += 1,
            Some(difference) => wrong.push(format!("{}: {difference}", vm.name)),
        }
    }
    let places = places(&ended.output);
    let mut spread = Vec::new();
    for vm in vms.iter().filter(|vm| vm.is_spread) {
        let place = places.get(&vm.name).cloned().unwrap_or_default();
        if place.pages != vm.cells {
            wrong.push(format!(
                "{}: its pages lay in {:?}, not {:?}",
                vm.name, place.pages, vm.cells
            ));
        }
        spread.push(format!("{} of {}", place.pages.len(), place.vcpus.len()));
    }
    let stock = vms.iter().filter(|vm| vm.is_stock).count();
    let row = format!(
        "| {cells} | {endian} | {equal} of {}, {stock} of them stock | {} | {seconds} s |",
        vms.len(),
        spread.join(", ")
    );
    Ok((row, wrong))
}

/// Runs the command.
///
/// # Errors
/// Set-up, or a guest does not work on the bare machine.
pub fn main(args: &Args) -> Result<ExitCode> {
    let choice = match (args.short, args.stock) {
        (true, _) => Choice::Short,
        (_, true) => Choice::Stock,
        _ => Choice::All,
    };
    if args.stock && args.endian == Some(Endian::Big) {
        bail!("--stock --endian big: there is no big-endian stock guest");
    }
    setup::ensure(&[Need::Compiler, Need::Qemu, Need::Guest])?;
    let mut rows = Vec::new();
    let mut failed = false;
    for endian in Endian::ALL {
        if args.endian.is_some_and(|only| only != endian) || (args.stock && endian == Endian::Big) {
            continue;
        }
        crate::build::monitor(endian)?;
        crate::build::guest("irix", endian)?;
        let bare = Bare::new(endian, &vms(1, endian, choice))?;
        for cells in LAYOUTS {
            if args.cells.as_ref().is_some_and(|only| *only != cells.to_string()) {
                continue;
            }
            let (row, wrong) = run(cells, endian, choice, &bare)?;
            println!("{cells} cells, {endian}-endian: {} wrong", wrong.len());
            for line in &wrong {
                println!("    {line}");
            }
            failed |= !wrong.is_empty();
            rows.push(row);
        }
    }
    println!(
        "| cells | byte order | VMs as on the bare machine | spread VMs: pages in, VCPUs in | host time |"
    );
    println!("|---|---|---|---|---|");
    for row in rows {
        println!("{row}");
    }
    Ok(ExitCode::from(u8::from(failed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vms_are_in_cells_that_are_there() {
        for cells in LAYOUTS {
            let vms = vms(cells, Endian::Little, Choice::All);
            assert_eq!(vms.len(), VMS.len() + 1);
            assert!(vms.iter().flat_map(|vm| &vm.cells).all(|cell| *cell < cells));
            assert_eq!(vms[2].cells.len(), cells as usize);
            assert!(
                config(cells, &vms).contains(&format!("nodes = [{}]", cells - 1))
                    == (cells == NODES)
            );
        }
        assert!(vms(8, Endian::Big, Choice::Short).iter().all(|vm| !vm.is_stock));
        assert_eq!(vms(8, Endian::Little, Choice::Short).len(), SHORT.len() + 1);
        let stock = vms(4, Endian::Little, Choice::Stock);
        let cells: BTreeSet<_> =
            stock.iter().filter(|vm| vm.is_translated).flat_map(|vm| &vm.cells).collect();
        assert_eq!((stock.len(), cells.len()), (8, 4));
        assert_eq!(config(4, &stock).matches("engine = \"translator\"").count(), 4);
    }

    #[test]
    fn a_vm_is_where_its_pages_and_vcpus_are() {
        let output = "\
monitor| cell 1:
monitor| irix-1: running, home cell 1
monitor|   VCPU 0: CPU 2, node 1, cell 1
monitor|   depends on cell 1: 12 pages and 5 promised, 1 VCPUs, its devices (essential)
monitor|   depends on cell 2: 7 pages and 5 promised, 0 VCPUs (essential)
monitor|   depends on cell 3: 0 pages and 5 promised, 1 VCPUs (essential)
monitor| irix-2: ended, home cell 1
";
        let found = places(output);
        let wanted = Where { pages: [1, 2].into(), vcpus: [1, 3].into() };
        assert_eq!(found, [("irix-1".to_owned(), wanted)].into());
    }

    #[test]
    fn sums_are_what_a_stock_guest_prints_from_first_to_last() {
        assert_eq!(
            sums("boot\r\nsums:\r\n12  a\r\nend\r\nbye\r\n").unwrap(),
            "sums:\n12  a\nend\n"
        );
        assert_eq!(sums("boot\r\nsums:\r\n12  a\r\n"), None);
        let bare =
            Bare { irix: [(1, "a\r\nb\r\n".into())].into(), stock: Some("sums:\n1\nend\n".into()) };
        let vms = vms(1, Endian::Little, Choice::All);
        let (irix, stock) = (&vms[0], vms.last().unwrap());
        assert_eq!(bare.difference(irix, "a\r\nb\r\n"), None);
        assert_eq!(bare.difference(stock, "x\r\nsums:\r\n1\r\nend\r\nreboot\r\n"), None);
        assert!(bare.difference(stock, "sums:\r\n2\r\nend\r\n").unwrap().starts_with("line 2"));
        assert!(bare.difference(irix, "").unwrap().starts_with("line 1 is nothing"));
        // It has as many VCPUs as no bare machine had CPUs.
        assert!(bare.difference(&vms[1], "x").is_some());
    }
}
