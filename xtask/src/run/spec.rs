//! What the operator asked for: a configuration file, or flags that stand for one.
//!
//! Reading knows the keys and the form of their values; whether they fit together is [`super::plan`]'s
//! business. The keys, their meaning and defaults are documented in `docs/configuration.md`.

use super::source::Item;
use super::table::{Table, Text};
use crate::endian::Endian;
use abi::config::{Cpu, Engine, Placement, Restart};
use abi::ids::{CPUS_PER_NODE, MAX_CELLS, MAX_NODES};
use anyhow::{Context, Result, anyhow};
use std::path::{Path, PathBuf};
use toml::de::DeTable;
use vmm_core::vm::VCPUS_MAX;

/// Everything that was asked for.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The machine.
    pub machine: Machine,
    /// The cells that were named; none: one cell of all nodes.
    pub cells: Vec<Cell>,
    /// The virtual machines.
    pub vms: Vec<Vm>,
}

/// `[machine]`.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Nodes.
    pub nodes: Item<u64>,
    /// CPUs of each.
    pub cpus_per_node: Item<u64>,
    /// Removable memory of each in bytes, if it was given.
    pub window_per_node: Option<Item<u64>>,
    /// RAM of each in bytes, if it was given.
    pub slice_per_node: Option<Item<u64>>,
    /// The sum of both, if it was given.
    pub memory_per_node: Option<Item<u64>>,
    /// What kind of memory nodes have.
    pub memory_kind: Item<MemoryKind>,
    /// Bytes of each that the monitor keeps; `None`: as many as it has use for.
    pub monitor_memory_per_node: Option<Item<u64>>,
    /// Byte order, if it was given.
    pub endian: Option<Item<Endian>>,
    /// Most bytes a console emits in a virtual second.
    pub console_rate: Item<u64>,
}

/// What kind of memory nodes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// A removable window and a slice of RAM.
    Mixed,
    /// Removable windows only.
    Removable,
    /// Slices of RAM only.
    Ram,
}

/// `[[cell]]`.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Its nodes.
    pub nodes: Item<Vec<u8>>,
}

/// Where a guest's kernel comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// A file.
    File(PathBuf),
    /// The built-in image of this name.
    BuiltIn(String),
}

/// Names of built-in images.
pub const BUILT_IN: [&str; 6] = ["linux", "debian", "hello", "hello-kseg0", "irix", "irix-kseg0"];

impl MemoryKind {
    /// Its name in a configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mixed => "mixed",
            Self::Removable => "removable",
            Self::Ram => "ram",
        }
    }
}

impl Kernel {
    /// What somebody calls `name`: a built-in image, or a file relative to `base`.
    fn named(name: &Path, base: &Path) -> Self {
        match name.to_str() {
            Some(built_in) if BUILT_IN.contains(&built_in) => Self::BuiltIn(built_in.to_string()),
            _ => Self::File(base.join(name)),
        }
    }
}

/// `[[vm]]`.
#[derive(Clone, Debug)]
pub struct Vm {
    /// Its name.
    pub name: Item<String>,
    /// Its kernel.
    pub kernel: Item<Kernel>,
    /// Its initial RAM disk.
    pub initrd: Option<Item<PathBuf>>,
    /// Its kernel's command line.
    pub cmdline: Item<String>,
    /// Virtual CPUs.
    pub vcpus: Item<u64>,
    /// Bytes of memory.
    pub memory: Item<u64>,
    /// Permitted cells; `None`: all.
    pub cells: Option<Item<Vec<u8>>>,
    /// Where VCPUs and pages go.
    pub placement: Item<Placement>,
    /// Share of CPU time.
    pub weight: Item<u64>,
    /// Most guest instructions; 0: no limit.
    pub budget: Item<u64>,
    /// How much slower its clock goes.
    pub clock_scale: Item<u64>,
    /// What happens when it ends.
    pub restart: Item<Restart>,
    /// Whether it starts with the machine.
    pub autostart: Item<bool>,
    /// What executes its instructions.
    pub engine: Item<Engine>,
    /// The processor it sees.
    pub cpu: Item<Cpu>,
}

/// Default memory of a VM of a configuration file.
const DEFAULT_VM_MEMORY: u64 = 64 << 20;
/// Memory of the one VM that `--kernel` makes.
const KERNEL_FLAG_VM_MEMORY: u64 = 128 << 20;
/// Default bytes that a console may emit in a virtual second.
const DEFAULT_CONSOLE_RATE: u64 = 1 << 20;
/// Default share of CPU time.
const DEFAULT_WEIGHT: u64 = 100;

impl Default for Machine {
    fn default() -> Self {
        Self {
            nodes: Item::default(1),
            cpus_per_node: Item::default(CPUS_PER_NODE as u64),
            window_per_node: None,
            slice_per_node: None,
            memory_per_node: None,
            memory_kind: Item::default(MemoryKind::Mixed),
            monitor_memory_per_node: None,
            endian: None,
            console_rate: Item::default(DEFAULT_CONSOLE_RATE),
        }
    }
}

impl Vm {
    /// A VM of which nothing but name and kernel is known.
    pub fn new(name: Item<String>, kernel: Item<Kernel>) -> Self {
        Self {
            name,
            kernel,
            initrd: None,
            cmdline: Item::default(String::new()),
            vcpus: Item::default(1),
            memory: Item::default(DEFAULT_VM_MEMORY),
            cells: None,
            placement: Item::default(Placement::Local),
            weight: Item::default(DEFAULT_WEIGHT),
            budget: Item::default(0),
            clock_scale: Item::default(1),
            restart: Item::default(Restart::Never),
            autostart: Item::default(true),
            engine: Item::default(Engine::Auto),
            cpu: Item::default(Cpu::Honeycomb),
        }
    }

    /// The VM that `--kernel` stands for.
    pub fn of_flag(kernel: PathBuf) -> Self {
        let name = Item::flag("--kernel", "guest".to_string());
        let kernel = Item::flag("--kernel", Kernel::named(&kernel, Path::new("")));
        Self { memory: Item::flag("--kernel", KERNEL_FLAG_VM_MEMORY), ..Self::new(name, kernel) }
    }
}

impl Spec {
    /// The machine that runs when nothing was asked for: as many cells of one node each, and a VM for each of
    /// these built-in images, named after it (and numbered, when there are several of it).
    pub fn built_in(nodes: u8, images: &[&str]) -> Self {
        let vm = |(i, image): (usize, &&str)| {
            let kernel = Item::default(Kernel::BuiltIn(image.to_string()));
            let name = match 1 + images[..i].iter().filter(|other| *other == image).count() {
                1 => image.to_string(),
                number => format!("{image}-{number}"),
            };
            Vm::new(Item::default(name), kernel)
        };
        let vms = images.iter().enumerate().map(vm).collect();
        let machine = Machine { nodes: Item::default(nodes.into()), ..Machine::default() };
        let cells = (0..nodes).map(|node| Cell { nodes: Item::default(vec![node]) }).collect();
        Self { machine, cells, vms }
    }

    /// Reads a configuration file. Paths in it are relative to it.
    ///
    /// # Errors
    /// When the file can't be read, is no TOML, or has an unknown key or a malformed value.
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => anyhow!(
                "{}: no such configuration file; check the path given to --config",
                file.display()
            ),
            std::io::ErrorKind::InvalidData => {
                anyhow!("{}: is not UTF-8 text; a configuration is a TOML file", file.display())
            }
            _ => anyhow!("{}: can't be read: {error}", file.display()),
        })?;
        Self::parse(file, &text)
    }

    /// Reads the text of a configuration file.
    pub fn parse(file: &Path, text: &str) -> Result<Self> {
        let lines = Text::new(file, text);
        let root = DeTable::parse(text).map_err(|error| {
            let source = lines.at(&error.span().unwrap_or(0..0));
            let what = error.message().lines().collect::<Vec<_>>().join(", ");
            anyhow!("{source}: is not TOML: {what}; see docs/configuration.md for the form")
        })?;
        let mut root_table = Table::new(&lines, "the file", &(0..0), root.get_ref());
        let machine = root_table.table("machine", "[machine]")?.map(machine).transpose()?;
        let cells = root_table.tables("cell", "[[cell]]")?;
        let vms = root_table.tables("vm", "[[vm]]")?;
        root_table.finish()?;
        let base = file.parent().unwrap_or(Path::new(""));
        Ok(Self {
            machine: machine.unwrap_or_default(),
            cells: cells.into_iter().map(cell).collect::<Result<_>>()?,
            vms: vms.into_iter().map(|table| vm(table, base)).collect::<Result<_>>()?,
        })
    }
}

fn machine(mut t: Table<'_>) -> Result<Machine> {
    let d = Machine::default();
    let kinds = [
        ("mixed", MemoryKind::Mixed),
        ("removable", MemoryKind::Removable),
        ("ram", MemoryKind::Ram),
    ];
    let machine = Machine {
        nodes: t.number("nodes", 1..=MAX_NODES as u64)?.unwrap_or(d.nodes),
        cpus_per_node: t
            .number("cpus_per_node", 1..=CPUS_PER_NODE as u64)?
            .unwrap_or(d.cpus_per_node),
        window_per_node: t.size("window_per_node")?,
        slice_per_node: t.size("slice_per_node")?,
        memory_per_node: t.size("memory_per_node")?,
        memory_kind: t.word("memory_kind", &kinds)?.unwrap_or(d.memory_kind),
        monitor_memory_per_node: t.size_or("monitor_memory_per_node", "auto")?,
        endian: t.word("endian", &[("little", Endian::Little), ("big", Endian::Big)])?,
        console_rate: t.size("console_rate")?.unwrap_or(d.console_rate),
    };
    // The only topology there is; the key exists so that a file can say so.
    t.word("topology", &[("hypercube", ())])?;
    t.finish()?;
    Ok(machine)
}

fn cell(mut t: Table<'_>) -> Result<Cell> {
    let nodes = t.numbers("nodes", MAX_NODES as u64)?;
    let source = t.source().clone();
    t.finish()?;
    let nodes = nodes.with_context(|| {
        format!("{source}: [[cell]]: has no `nodes`; list the nodes of the cell, like nodes = [0]")
    })?;
    Ok(Cell { nodes })
}

fn vm(mut t: Table<'_>, base: &Path) -> Result<Vm> {
    let source = t.source().clone();
    let restarts = [
        ("never", Restart::Never),
        ("on-failure", Restart::OnFailure),
        ("always", Restart::Always),
        ("on-failure: elsewhere", Restart::OnFailureElsewhere),
    ];
    let name = t.string("name")?;
    let kernel = t.string("kernel")?;
    let missing = |key: &str, remedy: &str| anyhow!("{source}: [[vm]]: has no `{key}`; {remedy}");
    let name = name.ok_or_else(|| missing("name", "give every VM a name"));
    let kernel = kernel.ok_or_else(|| {
        missing("kernel", "give the path of a kernel image, or the built-in \"linux\"")
    });
    let file = |item: Item<String>| Item { value: base.join(item.value), source: item.source };
    let kernel = kernel.map(|item| Item {
        value: Kernel::named(Path::new(&item.value), base),
        source: item.source,
    });
    let initrd = t.string("initrd")?.map(file);
    let cmdline = t.string("cmdline")?;
    let vcpus = t.number("vcpus", 1..=VCPUS_MAX.into())?;
    let memory = t.size("memory")?;
    let cells = t.numbers("cells", MAX_CELLS as u64)?;
    let placement =
        t.word("placement", &[("local", Placement::Local), ("spread", Placement::Spread)])?;
    let weight = t.number("weight", 1..=10_000)?;
    let budget = t.number("budget", 0..=u64::MAX)?;
    let clock_scale = t.number("clock_scale", 1..=1_000_000)?;
    let restart = t.word("restart", &restarts)?;
    let autostart = t.word("start", &[("auto", true), ("manual", false)])?;
    let engines = [
        ("auto", Engine::Auto),
        ("interpreter", Engine::Interpreter),
        ("translator", Engine::Translator),
        ("direct", Engine::Direct),
    ];
    let engine = t.word("engine", &engines)?;
    let cpu = t.word("cpu", &[("honeycomb", Cpu::Honeycomb), ("generic", Cpu::Generic)])?;
    // A mistyped `name` or `kernel` is better reported as the unknown key it is.
    t.finish()?;
    let d = Vm::new(name?, kernel?);
    Ok(Vm {
        initrd,
        cmdline: cmdline.unwrap_or(d.cmdline),
        vcpus: vcpus.unwrap_or(d.vcpus),
        memory: memory.unwrap_or(d.memory),
        cells,
        placement: placement.unwrap_or(d.placement),
        weight: weight.unwrap_or(d.weight),
        budget: budget.unwrap_or(d.budget),
        clock_scale: clock_scale.unwrap_or(d.clock_scale),
        restart: restart.unwrap_or(d.restart),
        autostart: autostart.unwrap_or(d.autostart),
        engine: engine.unwrap_or(d.engine),
        cpu: cpu.unwrap_or(d.cpu),
        name: d.name,
        kernel: d.kernel,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Spec> {
        Spec::parse(Path::new("dir/m.toml"), text)
    }

    fn error(text: &str) -> String {
        format!("{:#}", parse(text).unwrap_err())
    }

    #[test]
    fn every_key_is_read() {
        let spec = parse(
            r#"
            [machine]
            nodes = 2
            cpus_per_node = 1
            window_per_node = "32M"
            slice_per_node = "192M"
            memory_per_node = "224M"
            memory_kind = "mixed"
            topology = "hypercube"
            endian = "big"
            console_rate = 1000
            monitor_memory_per_node = "48M"
            [[cell]]
            nodes = [0, 1]
            [[vm]]
            name = "a"
            kernel = "linux"
            [[vm]]
            name = "b"
            kernel = "images/vmlinux"
            initrd = "/rd"
            cmdline = "quiet"
            vcpus = 2
            memory = "1G"
            cells = [0]
            placement = "spread"
            weight = 5
            budget = 1_000
            clock_scale = 3
            restart = "on-failure: elsewhere"
            start = "manual"
            engine = "interpreter"
            cpu = "generic"
            "#,
        )
        .unwrap();
        assert_eq!(spec.machine.nodes.value, 2);
        assert_eq!(spec.machine.endian.unwrap().value, Endian::Big);
        assert_eq!(spec.machine.memory_per_node.unwrap().value, 224 << 20);
        assert_eq!(spec.machine.console_rate.value, 1000);
        assert_eq!(spec.machine.monitor_memory_per_node.unwrap().value, 48 << 20);
        assert_eq!(spec.cells[0].nodes.value, [0, 1]);
        assert_eq!(spec.vms[0].kernel.value, Kernel::BuiltIn("linux".into()));
        assert_eq!(spec.vms[0].memory, Item::default(DEFAULT_VM_MEMORY));
        let vm = &spec.vms[1];
        assert_eq!(vm.kernel.value, Kernel::File("dir/images/vmlinux".into()));
        assert_eq!(vm.kernel.source.to_string(), "dir/m.toml:20");
        assert_eq!(vm.initrd.as_ref().unwrap().value, Path::new("/rd"));
        assert_eq!((vm.vcpus.value, vm.weight.value, vm.clock_scale.value), (2, 5, 3));
        assert_eq!((vm.budget.value, vm.memory.value), (1000, 1 << 30));
        assert_eq!(vm.restart.value, Restart::OnFailureElsewhere);
        assert_eq!((vm.placement.value, vm.autostart.value), (Placement::Spread, false));
        assert_eq!(vm.cells.as_ref().unwrap().value, [0]);
        assert_eq!((vm.engine.value, vm.cpu.value), (Engine::Interpreter, Cpu::Generic));
        let vm = &spec.vms[0];
        assert_eq!((vm.engine.value, vm.cpu.value), (Engine::Auto, Cpu::Honeycomb));
    }

    #[test]
    fn errors_name_file_line_key_and_remedy() {
        for (text, expected) in [
            (
                "[machine]\nnodez = 1\n",
                "dir/m.toml:2: [machine]: unknown key `nodez`; did you mean `nodes`?",
            ),
            (
                "\n[machin]\n",
                "dir/m.toml:2: the file: unknown key `machin`; did you mean `machine`?",
            ),
            (
                "[[vm]]\nfoo = 1\n",
                "dir/m.toml:2: [[vm]]: unknown key `foo`; known are name, kernel,",
            ),
            (
                "[[vm]]\nname = \"a\"\nkernl = \"b\"\n",
                "dir/m.toml:3: [[vm]]: unknown key `kernl`; did you mean `kernel`?",
            ),
            ("[[vm]]\nname = \"a\"\n", "dir/m.toml:1: [[vm]]: has no `kernel`;"),
            ("[[vm]]\nkernel = \"a\"\n", "dir/m.toml:1: [[vm]]: has no `name`;"),
            ("[[cell]]\n", "dir/m.toml:1: [[cell]]: has no `nodes`;"),
            (
                "[machine]\nslice_per_node = \"64MB\"\n",
                "dir/m.toml:2: [machine] slice_per_node: \"64MB\" is not a size; write",
            ),
            (
                "[machine]\nslice_per_node = -4\n",
                "dir/m.toml:2: [machine] slice_per_node: -4 is not a size; write",
            ),
            (
                "[machine]\nnodes = 9\n",
                "dir/m.toml:2: [machine] nodes: 9 is not a whole number from 1 to 8",
            ),
            ("[machine]\nnodes = true\n", "nodes: true is not a whole number"),
            (
                "[machine]\nendian = \"middle\"\n",
                "endian: \"middle\" is not one of \"little\", \"big\"",
            ),
            (
                "[[vm]]\nname = \"a\"\nkernel = \"b\"\nengine = \"fast\"\n",
                "dir/m.toml:4: [[vm]] engine: \"fast\" is not one of \"auto\", \"interpreter\", \"translator\", \"direct\"",
            ),
            (
                "[machine]\nmonitor_memory_per_node = \"much\"\n",
                "dir/m.toml:2: [machine] monitor_memory_per_node: \"much\" is not a size; write",
            ),
            (
                "[machine]\nmonitor_memory_per_node = [1]\n",
                "monitor_memory_per_node: an array is not a size; write a number of bytes, text like \"64M\", or \"auto\"",
            ),
            (
                "[[vm]]\nname = \"a\"\nkernel = \"b\"\ncpu = \"r10000\"\n",
                "dir/m.toml:4: [[vm]] cpu: \"r10000\" is not one of \"honeycomb\", \"generic\"",
            ),
            ("[machine]\ntopology = \"ring\"\n", "topology: \"ring\" is not one of \"hypercube\""),
            (
                "[[cell]]\nnodes = [0, \"x\"]\n",
                "dir/m.toml:2: [[cell]] nodes: an array is not a list of numbers below 8",
            ),
            ("machine = 3\n", "dir/m.toml:1: machine: is not a table; write it as [machine]"),
            (
                "[vm]\nname = \"a\"\n",
                "dir/m.toml:1: vm: is not a list of tables; write each as [[vm]]",
            ),
            ("[machine\n", "dir/m.toml:1: is not TOML: "),
            ("[machine]\nnodes = 1\nnodes = 1\n", "dir/m.toml:3: is not TOML: duplicate key"),
            (
                "[[vm]]\nname = 3\nkernel = \"b\"\n",
                "dir/m.toml:2: [[vm]] name: is an integer; write text in quotes",
            ),
        ] {
            let error = error(text);
            assert!(
                error.starts_with(expected) || error.contains(expected),
                "{text:?} gave {error:?}"
            );
            assert!(!error.contains('\n'), "{error:?} is more than one line");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Spec::read(Path::new("/nonexistent/m.toml")).unwrap_err().to_string();
        assert!(error.starts_with("/nonexistent/m.toml: no such configuration file;"), "{error}");
    }
}
