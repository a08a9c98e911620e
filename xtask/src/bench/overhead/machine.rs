//! The two sides: an image on the bare machine, and the same in a VM.

use super::phase::{Engine, Image, Line, Phase};
use super::watch::watch;
use crate::build;
use crate::endian::Endian;
use crate::run::count::{Record, records, symbols};
use crate::setup;
use crate::setup::root::{Recipe, Root};
use crate::test::place::Place;
use crate::test::process;
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// The byte order: that of the stock kernel.
const ENDIAN: Endian = Endian::Little;
/// Memory of the IRIX-like guest, in megabytes.
const IRIX_MEMORY: u64 = 8;
/// Memory beside a root's, in megabytes: for the phase `user`, and for a compiler.
const WORK_MEMORY: u64 = 128;
/// What the packages of the compiler's root are.
const COMPILER: &str = "tests/guests/bench/compiler.lock";
/// The VM, and its console.
const VM: &str = "bench";

/// Functions of the monitor by what they are for: the first that fits counts.
const GROUPS: [&str; 13] = [
    "translator=vmm_core::translate",
    "runtime=vmm_core::direct::translated",
    "devices=vmm_core::board",
    "devices=vmm_core::vm::devices",
    "direct=vmm_core::direct",
    "direct=kernel::direct",
    "interpreter=vmm_core::interp",
    "interpreter=vmm_core::emulate",
    "interpreter=vmm_core::isa",
    "interpreter=vmm_core::fpu",
    "interpreter=rustc_apfloat",
    "interpreter=vmm_core::cpu",
    "monitor=vmm_core::",
];

/// Where a guest's own instructions run: user mode, and supervisor mode with what a translator emits.
const GUEST: [&str; 3] = [
    "user:0x0-0x3fffffffffffffff",
    "supervisor:0x4000000000000000-0x7fffffffffffffff",
    "supervisor:0xffffffffc0000000-0xffffffffdfffffff",
];

/// What a run leaves behind.
#[derive(Debug)]
pub struct Ran {
    /// What the guest has printed, with the host's time.
    pub lines: Vec<Line>,
    /// What was counted.
    pub records: Vec<Record>,
    /// What the monitor says of the VM's whole life.
    pub stats: Vec<String>,
}

/// An image, and what it needs on either side.
#[derive(Debug)]
pub struct Machine {
    image: Image,
    kernel: PathBuf,
    initrd: Option<Root>,
    /// In megabytes.
    memory: u64,
    engine: Engine,
    phases: Vec<Phase>,
    /// The plugin's arguments on the bare machine.
    ranges: Vec<String>,
}

impl Machine {
    /// Fetches, makes and builds what the phases of an image need, and finds what there is to be counted apart.
    ///
    /// # Errors
    /// What can't be had.
    pub fn new(image: Image, phases: &[Phase], engine: Engine) -> Result<Self> {
        let engine = image.engine(engine);
        let phases = phases.iter().copied().filter(|phase| phase.image() == image).collect();
        let (kernel, initrd, memory) = match image {
            Image::Irix(name) => (build::guest(name, ENDIAN)?, None, IRIX_MEMORY),
            Image::Busybox | Image::Compiler => {
                let kernel = setup::guest::linux()?.vmlinux;
                let initrd = root(image)?;
                let memory = (initrd.memory() >> 20) + WORK_MEMORY;
                (kernel, Some(initrd), memory)
            }
        };
        let mut machine =
            Self { image, kernel, initrd, memory, engine, phases, ranges: Vec::new() };
        machine.ranges = machine.find_ranges()?;
        Ok(machine)
    }

    /// A name for files.
    pub fn name(&self) -> &'static str {
        match self.image {
            Image::Busybox => "busybox",
            Image::Compiler => "compiler",
            Image::Irix(name) => name,
        }
    }

    /// What executes the VM's kernel mode.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// The phases that are measured in one run.
    pub fn phases(&self) -> &[Phase] {
        &self.phases
    }

    /// The kernel's command line, equal on both sides.
    fn cmdline(&self, words: &[&str]) -> String {
        match self.image {
            Image::Irix(_) => "do=mix".into(),
            _ => format!("nokaslr console=ttyS0 -- {}", words.join(" ")),
        }
    }

    fn words(&self) -> Vec<&'static str> {
        self.phases.iter().map(|phase| phase.name()).collect()
    }

    /// QEMU with the image on the bare machine, time counted in instructions.
    fn bare(&self, words: &[&str]) -> Result<Command> {
        let mut qemu = setup::qemu(ENDIAN, None)?.command();
        qemu.args(["-M", "malta", "-cpu", "MIPS64R2-generic", "-smp", "1", "-m"])
            .arg(format!("{}M", self.memory))
            .args(["-nodefaults", "-vga", "none", "-nic", "none", "-display", "none"])
            .args(["-monitor", "none", "-parallel", "none", "-serial", "stdio", "-no-reboot"])
            .args(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"])
            .args(["-rtc", "base=2024-01-01T00:00:00,clock=vm", "-seed", "0"])
            .args(["-append", &self.cmdline(words), "-kernel"])
            .arg(&self.kernel);
        if let Some(initrd) = &self.initrd {
            qemu.arg("-initrd").arg(&initrd.path);
        }
        Ok(qemu)
    }

    /// The bare machine under the counting plugin, whose records go to a file.
    ///
    /// # Errors
    /// There is no QEMU, or the plugin does not build.
    pub fn counted(&self, out: &str) -> Result<Command> {
        let plugin = build::plugin("count-plugin", "count")?;
        let mut argument = plugin.into_os_string();
        for text in [format!("out={out}")].iter().chain(&self.ranges) {
            argument.push(",");
            argument.push(text.replace(',', ",,"));
        }
        let mut qemu = self.bare(&self.words())?;
        qemu.arg("-plugin").arg(argument);
        Ok(qemu)
    }

    /// Runs the image on the bare machine.
    ///
    /// # Errors
    /// It did not run to its end, or was not counted.
    pub fn run_bare(&self, limit: Duration) -> Result<Ran> {
        let place = Place::new(&format!("bench-overhead-{}-bare", self.name()))?;
        let out = place.path().join("counts.jsonl");
        let command = self.counted(&out.to_string_lossy())?;
        let line = process::shell_line(&command);
        eprintln!("bench: {} on the bare machine", self.name());
        let lines = watch(command, "", limit).with_context(|| format!("reproduce: {line}"))?;
        Ok(Ran { lines, records: read(&out)?, stats: Vec::new() })
    }

    /// Runs the image in a VM.
    ///
    /// # Errors
    /// As for [`Self::run_bare`].
    pub fn run_vm(&self, limit: Duration) -> Result<Ran> {
        let place = Place::new(&format!("bench-overhead-{}-vm", self.name()))?;
        let config = place.write("machine.toml", &self.config())?;
        let script = place.write("script", &self.script())?;
        let out = place.path().join("counts.jsonl");
        let (mut command, line) =
            process::xtask(&["run", "--icount", "--config", &config, "--script", &script]);
        command.arg("--count").arg(&out);
        for group in GROUPS {
            command.args(["--count-group", group]);
        }
        for range in GUEST {
            command.args(["--count-range", range]);
        }
        eprintln!("bench: {} in a VM", self.name());
        let lines = watch(command, "", limit).with_context(|| format!("reproduce: {line}"))?;
        let of = |console: &str| {
            lines
                .iter()
                .filter_map(|line| {
                    let text = line.text.strip_prefix(console)?.strip_prefix("| ")?.to_owned();
                    Some(Line { text, ..line.clone() })
                })
                .collect::<Vec<_>>()
        };
        let stats = of("monitor").into_iter().map(|line| line.text);
        let stats = stats.skip_while(|text| !text.contains("stats ")).skip(1).collect();
        Ok(Ran { lines: of(VM), records: read(&out)?, stats })
    }

    fn config(&self) -> String {
        let slice = (self.memory + 64).next_multiple_of(8).max(64);
        let initrd = self.initrd.as_ref();
        let initrd = initrd.map_or(String::new(), |root| format!("initrd = {:?}\n", root.path));
        format!(
            "[machine]\nnodes = 1\ncpus_per_node = 1\nslice_per_node = \"{slice}M\"\n[[vm]]\nname = \"{VM}\"\n\
             kernel = {:?}\n{initrd}cmdline = {:?}\nmemory = \"{}M\"\nengine = \"{}\"\n",
            self.kernel,
            self.cmdline(&self.words()),
            self.memory,
            self.engine.configured()
        )
    }

    fn script(&self) -> String {
        format!(
            "console monitor\nexpect \"^VM `{VM}` ended\" 1000000\nsend stats {VM}\nexpect \"honeycomb> \" 60\n"
        )
    }

    /// What is counted apart on the bare machine.
    fn find_ranges(&self) -> Result<Vec<String>> {
        let mut ranges = vec!["range=kernel:0x8000000000000000-0xffffffffffffffff".to_owned()];
        match self.image {
            Image::Irix(_) => {
                let elf =
                    fs::read(&self.kernel).with_context(|| self.kernel.display().to_string())?;
                let found = symbols(&elf)?.into_iter().find(|symbol| symbol.name == "vectors");
                let vectors = found.context("the guest has no symbol `vectors`")?.at;
                ranges.extend(refill(vectors));
            }
            Image::Busybox | Image::Compiler => {
                let (lines, vectors) = super::probe::run(self.bare(&["symbols"])?, self.memory)?;
                ranges.extend(refill(vectors));
                for (kind, name, symbol) in [
                    ("loop", "rtc", "plat_time_init"),
                    ("loop", "rtc", "CMOS_READ"),
                    ("loop", "idle", "__r4k_wait"),
                    ("loop", "idle", "arch_cpu_idle"),
                    ("loop", "idle", "do_idle"),
                    ("range", "delay", "__delay"),
                ] {
                    let (first, end) = super::probe::function(&lines, symbol)?;
                    ranges.push(format!("{kind}={name}:{first:#x}-{:#x}", end - 1));
                }
            }
        }
        Ok(ranges)
    }
}

/// The refill handler below the general vector, and its first instruction, which tells how often it runs.
fn refill(vectors: u64) -> [String; 2] {
    [
        format!("range=refill:{vectors:#x}-{:#x}", vectors + 0xff),
        format!("range=refills:{:#x}-{:#x}", vectors + 0x80, vectors + 0x83),
    ]
}

fn read(counts: &std::path::Path) -> Result<Vec<Record>> {
    let text = fs::read_to_string(counts).map_err(anyhow::Error::from);
    text.and_then(|text| records(&text)).with_context(|| counts.display().to_string())
}

/// The initramfs of an image: packages, and what is measured.
fn root(image: Image) -> Result<Root> {
    let workspace = crate::paths::workspace();
    let gauge = build::program("gauge", ENDIAN)?;
    let gauge = fs::read(&gauge).with_context(|| gauge.display().to_string())?;
    let own = |path: &str| -> Result<Vec<u8>> {
        let path = workspace.join("tests/guests/bench").join(path);
        fs::read(&path).with_context(|| path.display().to_string())
    };
    let mut files = vec![
        ("init", 0o755, gauge.clone()),
        ("usr/bin/gauge", 0o755, gauge),
        ("etc/bench/init", 0o755, own("init.sh")?),
        ("etc/bench/script", 0o755, own("script.sh")?),
    ];
    let recipe = if image == Image::Compiler {
        files.push(("etc/bench/compile", 0o755, own("compile.sh")?));
        for (path, file) in [
            ("etc/bench/two/Makefile", "two/Makefile"),
            ("etc/bench/two/count.h", "two/count.h"),
            ("etc/bench/two/count.c", "two/count.c"),
            ("etc/bench/two/main.c", "two/main.c"),
        ] {
            files.push((path, 0o644, own(file)?));
        }
        Recipe::read(&workspace.join(COMPILER))?
            .with_context(|| format!("{COMPILER} is not there: restore it"))?
    } else {
        Recipe::new(&[], Vec::new(), &[])
    };
    let files: Vec<_> =
        files.iter().map(|(path, permissions, bytes)| (*path, *permissions, &bytes[..])).collect();
    setup::root::provide(&recipe, workspace, &files)
}
