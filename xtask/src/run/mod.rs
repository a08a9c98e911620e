//! `cargo xtask run`: boots the machine and its virtual machines, and is its system controller:
//! power, consoles, logs.
//!
//! The way of a run: flags and configuration file ([`spec`]) become a checked [`plan`]; [`images`] are
//! read and checked; everything is [`pack`]ed into the machine's [`ram`]; [`qemu`] starts; a
//! [`session`] drains the rings until the machine ends, and a [`verdict`] becomes the exit status.

pub mod count;
pub mod drain;
pub mod embedded;
pub mod facts;
mod images;
mod kept;
pub mod lab;
mod logs;
mod memory;
mod pack;
mod plan;
#[cfg(test)]
mod plan_tests;
mod printer;
mod qemu;
pub mod ram;
pub mod replication;
mod screen;
pub mod script;
pub mod session;
pub mod size;
mod source;
pub mod spec;
pub mod stats;
mod symbols;
mod table;
pub mod terminal;
pub mod verdict;

use crate::build::Seeded;
use crate::console::{self, Server};
use crate::endian::Endian;
use crate::setup::lock::Group;
use crate::setup::{self, Need};
use abi::VmId;
use abi::event::Event;
use abi::ring::{stream, vm_stream};
use anyhow::{Context, Result, bail};
use count::Count;
use drain::Drain;
pub use drain::Keys;
use logs::Logs;
use pack::{Mode, Monitor};
use plan::{Flags, Plan};
use printer::Printer;
use qemu::{Names, Options, Qemu};
pub use ram::{Ram, folder_with_room};
use session::{Ask, End, Front, Session};
use spec::{Kernel, Spec};
use std::ffi::OsString;
use std::io::Stdout;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use symbols::Symbols;
use terminal::Terminal;

/// Boots the machine and its virtual machines.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cargo xtask run                                   the built-in guests, at the first one's console
  cargo xtask run --kernel vmlinux --initrd rd.cpio your own kernel, in a VM named `guest`
  cargo xtask run --config machine.toml --log logs  a machine of your own, its consoles kept in logs/
  cargo xtask run --script steps.txt --icount       the same run every time, bit for bit

Exit status: 0 every script step passed (without a script: every VM ended normally), 1 not so,
2 configuration or set-up, 3 the monitor panicked, a stream was overrun or QEMU died, 124 time-out.")]
pub struct Args {
    /// The machine, its cells and its VMs: a TOML file (docs/configuration.md).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Run this kernel image in one VM named `guest` with 128 MB, instead of the file's VMs.
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The VM's initial RAM disk.
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// The VM's kernel command line.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    append: Option<String>,
    /// Play this script, and end the run with it (docs/scripts.md).
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Count instructions instead of host time: two runs are the same, bit for bit.
    #[arg(long)]
    icount: bool,
    /// The seed of all randomness.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// End a VM after this many guest instructions (0: no limit).
    #[arg(long, value_name = "N")]
    vm_budget: Option<u64>,
    /// End the run after this many seconds of host time, with status 124.
    #[arg(long, value_name = "S")]
    timeout: Option<f64>,
    /// The machine's byte order; without it, that of the images.
    #[arg(long)]
    endian: Option<Endian>,
    /// Write events to this file, one JSON object a line (docs/events.md).
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Keep each console in this folder as NAME.log.
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
    /// Write what consoles print to this file with its times, one JSON object a record (docs/running.md).
    #[arg(long, value_name = "FILE")]
    records: Option<PathBuf>,
    /// Use this QEMU instead of the project's own.
    #[arg(long, value_name = "PATH")]
    qemu: Option<PathBuf>,
    /// A further argument for QEMU; may be repeated.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    qemu_arg: Vec<OsString>,
    /// Count instructions and write them to this file (docs/counting.md).
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    count: Option<PathBuf>,
    /// Count the monitor's functions with this in their name apart; may be repeated.
    #[arg(long, value_name = "NAME", requires = "count", hide_short_help = true)]
    count_function: Vec<String>,
    /// Count the monitor's functions with PART in their name together, as NAME; may be repeated.
    #[arg(long, value_name = "NAME=PART", requires = "count", hide_short_help = true)]
    count_group: Vec<String>,
    /// Count what is executed at these addresses apart; may be repeated.
    #[arg(long, value_name = "NAME:FIRST-LAST", requires = "count", hide_short_help = true)]
    count_range: Vec<String>,
    /// Run a monitor with this seeded mistake (docs/faults.md, "Judging the judge").
    #[arg(long, value_name = "NAME", value_parser = crate::build::parse_mutant, hide_short_help = true)]
    mutant: Option<Seeded>,
    /// Wait for a debugger before the first instruction.
    #[arg(long)]
    gdb: bool,
    /// Print QEMU's command line and do nothing.
    #[arg(long)]
    dry_run: bool,
}

/// The files of a built-in image, made or fetched first if need be.
///
/// # Errors
/// When there is none of the name, or it can't be had.
pub fn built_in(name: &str, endian: Endian) -> Result<images::BuiltIn> {
    match name {
        "hello" | "hello-kseg0" | "irix" | "irix-kseg0" => {
            Ok(images::BuiltIn { kernel: crate::build::guest(name, endian)?, initrd: None })
        }
        "linux" | "debian" => {
            let guest =
                if name == "linux" { setup::guest::linux()? } else { setup::guest::debian()? };
            Ok(images::BuiltIn { kernel: guest.vmlinux, initrd: Some(guest.initrd) })
        }
        _ => bail!("there is no built-in image {name:?}; known are {}", spec::BUILT_IN.join(", ")),
    }
}

/// Runs the command.
///
/// # Errors
/// Configuration or set-up: whatever keeps the machine from starting.
pub fn main(args: &Args) -> Result<ExitCode> {
    let timeout = args
        .timeout
        .map(|seconds| {
            Duration::try_from_secs_f64(seconds)
                .ok()
                .filter(|timeout| !timeout.is_zero())
                .with_context(|| format!("--timeout {seconds}: give a number of seconds above 0"))
        })
        .transpose()?;
    let mut plan = plan(args)?;
    if args.count.is_some() && args.icount && plan.cpus() > 1 {
        bail!(
            "--count with --icount: QEMU 10 mixes up the counters of {} CPUs that share a thread; set \
             cpus_per_node = 1, or leave --icount out",
            plan.cpus()
        );
    }
    if args.dry_run {
        // Nothing is fetched or built for it.
        plan.vms.retain(|vm| matches!(vm.kernel.value, Kernel::File(_)));
    }
    let needs = needs(&plan);
    // The operator's own files are looked at before anything is fetched.
    let images = images::load(&plan, |name, endian| {
        setup::ensure(&needs)?;
        built_in(name, endian)
    })?;
    let endian = images.endian;
    let names: Vec<String> = plan.vms.iter().map(|vm| vm.name.value.clone()).collect();
    let script =
        args.script.as_deref().map(|file| script::read(file, &names, endian)).transpose()?;
    if args.dry_run {
        return dry_run(args, &plan, endian);
    }
    setup::ensure(&needs)?;
    let qemu = setup::qemu(endian, args.qemu.as_deref())?.command();
    let built = crate::build::mutated(endian, args.mutant)?;
    let monitor = std::fs::read(&built.kernel_elf)
        .with_context(|| built.kernel_elf.display().to_string())
        .and_then(|elf| Monitor::flatten(&elf))?;
    let count = args.count.as_ref().map(|out| Count {
        out: out.clone(),
        functions: args.count_function.clone(),
        groups: args.count_group.clone(),
        ranges: args.count_range.clone(),
    });
    let mut options = options(args, built.boot_elf.clone());
    if let Some(count) = &count {
        count::check(&count.out)?;
        options.extra.extend(count.arguments(&built)?);
    }
    let own = ["monitor", "boot", "log"];
    let streams = names.iter().map(String::as_str).chain(own);
    let mut logs = Logs::open(args.log.as_deref(), streams, args.events.as_deref())?;
    logs.keep_records(args.records.as_deref())?;
    let ram = Ram::new(Ram::size_of(&plan.layout))?;
    let script = script.unwrap_or_default();
    pack::pack(&ram, &plan, &images, &monitor, &script, mode(args))?;
    let machine = Prepared {
        command: qemu,
        plan: &plan,
        options: &options,
        endian,
        ram,
        logs,
        names,
        symbols: Symbols::new(&built.kernel_elf),
    };
    let end = if is_interactive(args) {
        let mut front = Terminal::new(machine.names.clone())?;
        machine.start(&mut front, timeout)?
    } else {
        machine.start(&mut Plain(Printer::new(std::io::stdout())), timeout)?
    };
    for line in count.iter().map(Count::summary).collect::<Result<Vec<_>>>()?.concat() {
        println!("count: {line}");
    }
    finish(end, args.icount)
}

/// Everything ready but the machine.
struct Prepared<'a> {
    command: Command,
    plan: &'a Plan,
    options: &'a Options,
    endian: Endian,
    ram: Ram,
    logs: Logs,
    names: Vec<String>,
    symbols: Symbols,
}

fn plan(args: &Args) -> Result<Plan> {
    let file = args.config.as_deref().map(Spec::read).transpose()?;
    let flags = Flags {
        kernel: args.kernel.clone(),
        initrd: args.initrd.clone(),
        append: args.append.clone(),
        vm_budget: args.vm_budget,
        endian: args.endian,
    };
    Plan::new(file, &flags)
}

fn options(args: &Args, boot_elf: PathBuf) -> Options {
    Options {
        boot_elf,
        icount: args.icount,
        seed: args.seed,
        gdb: args.gdb,
        extra: args.qemu_arg.clone(),
    }
}

/// What has to be fetched first.
fn needs(plan: &Plan) -> Vec<Need> {
    let mut needs = vec![Need::Compiler, Need::Qemu];
    let boots =
        |name: &str| plan.vms.iter().any(|vm| vm.kernel.value == Kernel::BuiltIn(name.to_owned()));
    if boots("linux") || boots("debian") {
        needs.push(Need::Guest);
    }
    if boots("debian") {
        needs.push(Need::Debian);
    }
    needs
}

fn dry_run(args: &Args, plan: &Plan, endian: Endian) -> Result<ExitCode> {
    let boot = crate::paths::metal_target_dir().join(endian.target()).join("release/boot");
    let options = options(args, boot);
    let command = if args.qemu.is_some() || setup::is_cached(Group::Qemu) {
        setup::qemu(endian, args.qemu.as_deref())?.command()
    } else {
        Command::new(endian.qemu())
    };
    let mut words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| quote(&word.to_string_lossy()))
        .collect();
    let arguments = qemu::arguments(plan, &options, &Names::placeholders());
    words.extend(arguments.iter().map(|word| quote(&word.to_string_lossy())));
    println!("{}", words.join(" "));
    Ok(ExitCode::SUCCESS)
}

/// A word as a shell reads it.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Whether somebody is there to type: a script types by itself.
fn is_interactive(args: &Args) -> bool {
    args.script.is_none() && terminal::is_there()
}

/// What the packed configuration says about this run.
fn mode(args: &Args) -> Mode {
    let epoch_s = if args.icount {
        qemu::ICOUNT_EPOCH_S
    } else {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    };
    Mode { icount: args.icount, seed: args.seed, epoch_s, stay: is_interactive(args) }
}

impl Prepared<'_> {
    /// Starts the machine and runs it to its end.
    fn start(self, front: &mut dyn Front, timeout: Option<Duration>) -> Result<End> {
        let signal = Arc::new(AtomicUsize::new(0));
        for number in signal_hook::consts::TERM_SIGNALS {
            signal_hook::flag::register_usize(*number, signal.clone(), *number as usize)
                .context("can't catch signals")?;
        }
        let consoles = consoles(&self.names);
        // Both ends of the link that are ours are ready before the machine is.
        let drain = Drain::new(&self.ram, &self.plan.layout, self.names.clone());
        let keys = Keys::new(&self.ram);
        let qemu = Qemu::start(self.command, self.plan, self.options, &self.ram, self.endian)?;
        if self.options.gdb {
            eprintln!("waiting for a debugger: target remote {}", qemu::GDB_ADDRESS);
        }
        let session = Session {
            qemu,
            drain,
            keys,
            logs: self.logs,
            front,
            consoles,
            names: self.names,
            timeout,
            signal,
            cells: self.plan.layout.cells(),
            symbols: self.symbols,
        };
        Ok(session.run())
    }
}

/// What can be attached to from other terminals. A host on which that fails can still run the machine.
fn consoles(names: &[String]) -> Server {
    let vm = |(i, name): (usize, &String)| (name.clone(), Some(vm_stream(VmId(i as u16))));
    let own = [("monitor", Some(stream::MONITOR)), ("boot", None), ("log", None)];
    let own = own.map(|(name, number)| (name.to_string(), number));
    let mut server = Server::new(names.iter().enumerate().map(vm).chain(own));
    if let Err(error) = server.open(&console::place()) {
        eprintln!("run: no console can be attached from another terminal: {error:#}");
    }
    server
}

/// Says how the run ended and makes it the exit status.
fn finish(end: End, icount: bool) -> Result<ExitCode> {
    match end {
        End::Signal(signal) => {
            eprintln!("ended by signal {signal}");
            // As a shell reports a command that a signal ended.
            Ok(ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX)))
        }
        End::Verdict(verdict) => {
            for line in verdict.lines() {
                eprintln!("run: {line}");
            }
            if icount && verdict.typed {
                eprintln!("run: keys were typed: this run is not deterministic");
            }
            Ok(ExitCode::from(verdict.status()))
        }
    }
}

/// The operator without a terminal: everything on one output.
struct Plain(Printer<Stdout>);

impl Front for Plain {
    fn output(&mut self, name: &str, _: Option<u16>, bytes: &[u8]) {
        // What the monitor logs is in the boot log already.
        if name != "log" {
            self.0.bytes(name, bytes, Instant::now());
        }
    }

    fn event(&mut self, _: &Event) {}

    fn wait(&mut self, pause: Duration, _: &mut Keys) -> Ask {
        self.0.tick(Instant::now());
        std::thread::sleep(pause);
        Ask::GoOn
    }

    fn finish(&mut self) {
        self.0.finish();
    }
}
