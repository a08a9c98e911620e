//! `cargo xtask sim`: a guest kernel in an ordinary process, on the reference interpreter and the
//! virtual Malta. The best debugger there is: nothing but the guest and the virtual machine.
//!
//! Time is instructions: each takes a fixed number of virtual nanoseconds, and when the guest waits
//! the time jumps to its next timer. So a run depends on nothing but its inputs: two runs with the
//! same script are the same to the last instruction. Only while a person types (standard input is a
//! terminal) waiting takes real time, so that an idle guest costs the host nothing.
//!
//! Several VCPUs execute in turn, and time is the sum of their instructions.

mod memory;
mod profile;
mod terminal;

use crate::endian::Endian;
use crate::run::spec::BUILT_IN;
use crate::run::{built_in, script, size};
use crate::setup;
use abi::script::{Outcome, Step};
use anyhow::{Context, Result, bail};
use cell::script::{Action, Player};
use memory::Ram;
use profile::{Profile, Symbols};
use std::cell::Cell;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use terminal::{Keyboard, QUIT};
use vmm_core::cpu::CpuModel;
use vmm_core::image::{self, Images, Plan};
use vmm_core::time::Clock;
use vmm_core::vm::{self, Exit, Runner, VCPUS_MAX, Vm, VmParams};

/// Instructions between two looks at the keyboard and the script.
const SLICE: u64 = 100_000;
/// Instructions that a VCPU executes in its turn, where there are several.
const TURN: u64 = 2000;
/// 2024-01-01 00:00:00 UTC: what the guest's clock shows at the start, the same in every run.
const EPOCH_S: u64 = 1_704_067_200;
/// Most bytes that the console prints in a virtual second.
const CONSOLE_RATE: u64 = 1_000_000;
/// Piped input is handed over when the guest has nothing to do for this long: its shell is waiting.
const WAITING_NS: u64 = 20_000_000;
/// Once no more input can come, a guest that prints nothing for this long is taken to wait for some.
const SILENCE_NS: u64 = 60_000_000_000;
/// The longest real wait for a key.
const NAP: Duration = Duration::from_millis(100);

const EXIT_FAILED: u8 = 1;
const EXIT_LIMIT: u8 = 124;

/// Runs a guest kernel in an ordinary process: the reference interpreter and the virtual Malta.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cargo xtask sim                                             the stock kernel; Ctrl-] quits
  cargo xtask sim --kernel vmlinux --initrd rd.cpio           your own
  cargo xtask sim --kernel vmlinux --script steps.txt --stats the same run every time
  cargo xtask sim --kernel irix --vcpus 4                     a guest of several CPUs
  echo 'uname -a; poweroff -f' | cargo xtask sim --profile     and where the time went

Exit status: 0 the guest powered off or reset its machine, or every script step passed; 1 a script
step failed or the guest ended otherwise; 2 a file or option; 124 the limit was reached.")]
pub struct Args {
    /// The kernel: an ELF64 vmlinux or vmlinuz, or a built-in image's name. Default: the stock kernel, with its initial RAM disk.
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The stock kernel as it is packaged: it unpacks itself first.
    #[arg(long, conflicts_with = "kernel")]
    packed: bool,
    /// The initial RAM disk.
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// The kernel's command line.
    #[arg(long, value_name = "TEXT", default_value = "console=ttyS0")]
    append: String,
    /// The byte order; default: that of the kernel.
    #[arg(long)]
    endian: Option<Endian>,
    /// Bytes of RAM.
    #[arg(long, value_name = "SIZE", default_value = "128M", value_parser = size::parse)]
    memory: u64,
    /// VCPUs. The stock kernel uses one of them.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(VCPUS_MAX)))]
    vcpus: u32,
    /// Types and expects at the console; the VM's name is `guest`.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Ends the run after so many instructions.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Virtual nanoseconds an instruction takes.
    #[arg(long, value_name = "NS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1000))]
    ns_per_instruction: u64,
    /// Prints what the run took.
    #[arg(long)]
    stats: bool,
    /// Prints where the guest spent its instructions.
    #[arg(long)]
    profile: bool,
    /// Names for the profile: a System.map, or a copy of the guest's /proc/kallsyms.
    #[arg(long, value_name = "FILE", requires = "profile")]
    symbols: Option<PathBuf>,
    /// Prints every instruction from the N-th on: its number, address, word, and what it changed.
    #[arg(long, value_name = "N")]
    trace: Option<u64>,
    /// Instructions to print with --trace.
    #[arg(long, value_name = "N", default_value_t = 1000, requires = "trace")]
    trace_length: u64,
}

/// Virtual time: instructions and jumps.
struct SimClock {
    ns_per_instruction: u64,
    jumped: Cell<u64>,
    /// Instructions of the VCPUs that do not run.
    others: Cell<u64>,
}

impl Clock for SimClock {
    #[inline]
    fn now(&self, retired: u64) -> u64 {
        (self.others.get() + retired) * self.ns_per_instruction + self.jumped.get()
    }
}

/// Runs the command.
pub fn main(args: &Args) -> Result<ExitCode> {
    let read = |file: &Path| {
        std::fs::read(file).with_context(|| format!("{}: can't be read", file.display()))
    };
    let mut initrd_file = args.initrd.clone();
    let kernel_file = match &args.kernel {
        Some(file) if file.to_str().is_some_and(|name| BUILT_IN.contains(&name)) => {
            let order = args.endian.unwrap_or_default();
            let files = built_in(&file.display().to_string(), order)?;
            if initrd_file.is_none() {
                initrd_file = files.initrd;
            }
            files.kernel
        }
        Some(file) => file.clone(),
        None => {
            let linux = setup::guest::linux()?;
            initrd_file.get_or_insert(linux.initrd);
            if args.packed { linux.vmlinuz } else { linux.vmlinux }
        }
    };
    let kernel = read(&kernel_file)?;
    let initrd = initrd_file.as_deref().map(read).transpose()?;
    let endian = match (args.endian, image::elf::endian(&kernel)) {
        (Some(Endian::Little), _) => vmm_core::endian::Endian::Little,
        (Some(Endian::Big), _) => vmm_core::endian::Endian::Big,
        (None, found) => found.unwrap_or(vmm_core::endian::Endian::Little),
    };
    let images = Images { kernel: &kernel, initrd: initrd.as_deref(), cmdline: &args.append };
    let seed = [0; 32];
    Plan::new(&images, endian, args.memory, &seed).map_err(|error| {
        use image::ImageError::{EmptyInitrd, InitrdTooBig};
        let file = match (&initrd_file, error) {
            (Some(file), EmptyInitrd | InitrdTooBig { .. }) => file,
            _ => &kernel_file,
        };
        anyhow::anyhow!("{}: {error}", file.display())
    })?;
    let params = VmParams {
        endian,
        model: CpuModel::honeycomb(),
        vcpus: args.vcpus,
        memory: args.memory,
        epoch_s: EPOCH_S,
        console_rate: CONSOLE_RATE,
        clock_scale: 1,
        budget: args.limit.unwrap_or(0),
        seed,
        engine: vm::Engine::Interpreter,
        code_words: 0,
    };
    let player = args.script.as_deref().map(player).transpose()?;
    let symbols = args.symbols.as_deref().map(Symbols::read).transpose()?.unwrap_or_default();
    let (vm, runners) = Vm::new(params, Ram::new(args.memory)?, &images)?;
    let mut sim = Sim {
        vm,
        vcpus: runners.into_iter().map(|runner| Vcpu { runner, waits: None }).collect(),
        turn: 0,
        clock: SimClock {
            ns_per_instruction: args.ns_per_instruction,
            jumped: Cell::new(0),
            others: Cell::new(0),
        },
        player,
        keyboard: Keyboard::new()?,
        unread: Vec::new(),
        profile: args.profile.then(|| Profile::new(symbols)),
        trace: args.trace.map_or(0..0, |from| from..from.saturating_add(args.trace_length)),
        waits: 0,
        printed: 0,
    };
    if sim.keyboard.is_terminal() {
        eprint!("Ctrl-] quits\r\n");
    }
    let start = Instant::now();
    let end = sim.run();
    let taken = start.elapsed();
    let retired = sim.retired();
    let virtual_ns = sim.now() + sim.vm.warped();
    let Sim { vm, vcpus, clock, profile, waits, keyboard, .. } = sim;
    let report =
        || vcpus.iter().map(|vcpu| vcpu.runner.report(&vm).to_string()).collect::<String>();
    // The terminal gets its own modes back before anything else is printed.
    drop(keyboard);
    let end = end?;
    if args.stats {
        let (n, s) = (retired, taken.as_secs_f64());
        eprintln!(
            "\n{n} instructions in {s:.2} s: {:.1} million a second; {:.3} s of virtual time, of \
             which {:.3} s waited ({waits} times) and {:.3} s warped",
            n as f64 / s / 1e6,
            virtual_ns as f64 / 1e9,
            clock.jumped.get() as f64 / 1e9,
            vm.warped() as f64 / 1e9,
        );
    }
    if let Some(profile) = profile {
        eprint!("\n{profile}");
    }
    Ok(match end {
        End::Quit | End::Script(Outcome::Done | Outcome::ScriptPassed) => ExitCode::SUCCESS,
        End::Guest(Exit::PowerOff | Exit::Reset) => ExitCode::SUCCESS,
        End::Script(Outcome::ScriptFailed { line, report }) => {
            eprintln!("\nscript line {line}: {report}");
            ExitCode::from(EXIT_FAILED)
        }
        End::Guest(exit) => {
            eprint!("\nthe guest ended: {}", report());
            ExitCode::from(if exit == Exit::Budget { EXIT_LIMIT } else { EXIT_FAILED })
        }
        End::Stuck => {
            eprint!("\nthe guest waits for input, and none can come: {}", report());
            ExitCode::from(EXIT_FAILED)
        }
    })
}

fn player(file: &Path) -> Result<Player> {
    // Automata are in the byte order of whoever plays them: here that is the host.
    let native = if cfg!(target_endian = "big") { Endian::Big } else { Endian::Little };
    let bytes = script::read(file, &["guest".to_owned()], native)?;
    let steps: Vec<Step> = abi::script::decode(&bytes)
        .map_err(|error| anyhow::anyhow!("{}: compiled wrongly: {error}", file.display()))?;
    match Player::new(steps, |_| "guest".to_owned()) {
        Ok(player) => Ok(player),
        Err(Outcome::ScriptFailed { line, report }) => {
            bail!("{}:{line}: {report}", file.display())
        }
        Err(_) => bail!("{}: can't be played", file.display()),
    }
}

/// How a simulation ended.
enum End {
    /// By a person.
    Quit,
    /// By the script.
    Script(Outcome),
    /// By the guest, or its limit.
    Guest(Exit),
    /// The guest waits for ever.
    Stuck,
}

/// A VCPU.
struct Vcpu {
    runner: Runner,
    /// It waits for an interrupt, until the time given if one is.
    waits: Option<Option<u64>>,
}

struct Sim {
    vm: Vm<Ram>,
    vcpus: Vec<Vcpu>,
    /// Whose turn it is.
    turn: usize,
    clock: SimClock,
    player: Option<Player>,
    keyboard: Keyboard,
    /// Typed, but not taken by the console yet.
    unread: Vec<u8>,
    profile: Option<Profile>,
    trace: std::ops::Range<u64>,
    waits: u64,
    /// When the console last printed.
    printed: u64,
}

impl Sim {
    /// Instructions executed.
    fn retired(&self) -> u64 {
        self.vcpus.iter().map(|vcpu| vcpu.runner.retired()).sum()
    }

    fn now(&self) -> u64 {
        self.clock.others.set(0);
        self.clock.now(self.retired())
    }

    /// The next stretch without anything to look at in between.
    fn slice(&self) -> u64 {
        let retired = self.retired();
        if self.trace.contains(&retired) {
            return 1;
        }
        let slice = if self.profile.is_some() { profile::INTERVAL } else { SLICE };
        let slice = if self.vcpus.len() > 1 { slice.min(TURN) } else { slice };
        match self.trace.start.checked_sub(retired) {
            Some(until) if until > 0 => slice.min(until),
            _ => slice,
        }
    }

    /// Goes on to the next VCPU that has something to do; whether there is one.
    fn next(&mut self) -> bool {
        let now = self.now();
        for ahead in 1..=self.vcpus.len() {
            let turn = (self.turn + ahead) % self.vcpus.len();
            let waits = &mut self.vcpus[turn].waits;
            if waits.is_none_or(|until| until.is_some_and(|until| until <= now)) {
                *waits = None;
                self.turn = turn;
                return true;
            }
        }
        false
    }

    fn execute(&mut self) -> Exit {
        let slice = self.slice();
        let total = self.retired();
        let traced = self.trace.contains(&total);
        let runner = &mut self.vcpus[self.turn].runner;
        self.clock.others.set(total - runner.retired());
        let before = traced.then(|| runner.report(&self.vm));
        let exit = runner.run(&self.vm, &self.clock, slice);
        if let Some(before) = before {
            eprintln!("{}", before.step_to(&runner.report(&self.vm)));
        }
        if let Some(profile) = &mut self.profile {
            profile.add(runner.vcpu().pc());
        }
        exit
    }

    fn run(&mut self) -> Result<End> {
        loop {
            let exit = self.execute();
            self.print()?;
            if let Some(outcome) = self.play() {
                return Ok(End::Script(outcome));
            }
            let mut quit = false;
            match exit {
                Exit::Limit => {
                    quit = self.keyboard.is_terminal() && self.type_in(Duration::ZERO)?;
                }
                Exit::Ipi { to } => {
                    let vcpu = &mut self.vcpus[to as usize];
                    vcpu.runner.interrupt();
                    vcpu.waits = None;
                }
                Exit::Board => self.vcpus[0].waits = None,
                Exit::Idle { until } => self.vcpus[self.turn].waits = Some(until),
                end => return Ok(self.play_out().map_or(End::Guest(end), End::Script)),
            }
            if !self.next() {
                let until = self.vcpus.iter().filter_map(|vcpu| vcpu.waits.flatten()).min();
                quit = match self.wait(until)? {
                    Some(quit) => quit,
                    None => return Ok(End::Stuck),
                };
                self.vcpus.iter_mut().for_each(|vcpu| vcpu.waits = None);
            }
            if quit {
                return Ok(End::Quit);
            }
        }
    }

    fn print(&mut self) -> Result<()> {
        let now = self.now();
        let mut out = std::io::stdout().lock();
        let mut written = Ok(());
        let (player, printed) = (&mut self.player, &mut self.printed);
        self.vm.take_output(&mut |bytes| {
            *printed = now;
            written = out.write_all(bytes).and_then(|()| out.flush());
            if let Some(player) = player {
                player.output(now, STREAM, bytes);
            }
        });
        written.context("standard output can't be written")
    }

    fn play(&mut self) -> Option<Outcome> {
        let now = self.now();
        while let Some(action) = self.player.as_mut().and_then(|player| player.poll(now)) {
            match action {
                Action::Type { bytes, .. } => self.type_bytes(&bytes),
                Action::End(outcome) => return Some(outcome),
            }
        }
        None
    }

    /// The guest has ended: what the rest of the script, if there is one, comes to.
    fn play_out(&mut self) -> Option<Outcome> {
        loop {
            if let Some(outcome) = self.play() {
                return Some(outcome);
            }
            self.jump(self.player.as_ref()?.deadline()?);
        }
    }

    fn type_bytes(&mut self, bytes: &[u8]) {
        self.unread.extend(bytes);
        let taken = self.vm.input(&self.unread);
        self.vcpus[0].waits = None;
        self.unread.drain(..taken);
    }

    /// Passes on what is typed within `wait`; whether it was the key to quit.
    fn type_in(&mut self, wait: Duration) -> Result<bool> {
        let bytes = self.keyboard.read(wait)?;
        let end = bytes.iter().position(|&b| b == QUIT && self.keyboard.is_terminal());
        self.type_bytes(&bytes[..end.unwrap_or(bytes.len())]);
        Ok(end.is_some())
    }

    /// Lets time pass until `until` or until something is typed; whether the key to quit was.
    /// `None`: nothing will ever happen.
    fn wait(&mut self, until: Option<u64>) -> Result<Option<bool>> {
        self.waits += 1;
        let now = self.now();
        let script = self.player.as_ref().and_then(Player::deadline);
        let next = until.into_iter().chain(script).min();
        if self.keyboard.is_terminal() {
            let ahead = next.map_or(NAP, |t| Duration::from_nanos(t.saturating_sub(now)));
            let start = Instant::now();
            let quit = self.type_in(ahead.min(NAP))?;
            let passed = start.elapsed().min(ahead).as_nanos() as u64;
            self.jump(now + passed);
            return Ok(Some(quit));
        }
        let idle = until.is_none_or(|t| t.saturating_sub(now) >= WAITING_NS);
        if idle && self.player.is_none() && self.unread.is_empty() && self.keyboard.is_open() {
            self.type_in(Duration::from_secs(3600))?;
            return Ok(Some(false));
        }
        let silent = self.player.is_none() && now.saturating_sub(self.printed) > SILENCE_NS;
        match next {
            _ if silent && self.unread.is_empty() => return Ok(None),
            Some(t) => self.jump(t),
            None if self.unread.is_empty() => return Ok(None),
            None => {}
        }
        self.type_bytes(&[]);
        Ok(Some(false))
    }

    fn jump(&self, to: u64) {
        let ahead = to.saturating_sub(self.now());
        self.clock.jumped.set(self.clock.jumped.get() + ahead);
    }
}

/// The stream of the only VM's console, in scripts.
const STREAM: u16 = abi::ring::vm_stream(abi::VmId(0));
