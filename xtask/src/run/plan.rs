//! What was asked for, made into something the monitor can do, or refused with culprit and remedy.

use super::size;
use super::source::Item;
use super::spec::{Kernel, MemoryKind, Spec, Vm};
use crate::endian::Endian;
use abi::config::{Placement, Restart};
use abi::map;
use anyhow::{Result, anyhow, bail};
use std::path::PathBuf;

/// The flags of `run` that say what to run.
#[derive(Debug, Default)]
pub struct Flags {
    /// `--kernel`.
    pub kernel: Option<PathBuf>,
    /// `--initrd`.
    pub initrd: Option<PathBuf>,
    /// `--append`.
    pub append: Option<String>,
    /// `--vm-budget`.
    pub vm_budget: Option<u64>,
    /// `--endian`.
    pub endian: Option<Endian>,
}

/// A checked configuration. All of its values fit together; its images have not been looked at.
#[derive(Debug)]
pub struct Plan {
    /// Nodes.
    pub nodes: u32,
    /// CPUs of each.
    pub cpus_per_node: u32,
    /// Bytes of removable memory of each.
    pub window_per_node: u64,
    /// Bytes of RAM of each.
    pub slice_per_node: u64,
    /// Most bytes a console emits in a virtual second.
    pub console_rate: u64,
    /// The byte order, if somebody chose one.
    pub endian: Option<Item<Endian>>,
    /// The nodes of each cell.
    pub cells: Vec<Vec<u8>>,
    /// The virtual machines.
    pub vms: Vec<Vm>,
}

/// Slices are whole multiples of this: the monitor's wired TLB entry maps two pages of 4 MB.
const SLICE_UNIT: u64 = 8 << 20;
/// Least RAM of a node: the monitor's own share and room for something.
const SLICE_MIN: u64 = 64 << 20;
/// Least memory of a VM.
const VM_MEMORY_MIN: u64 = 1 << 20;
/// Names that consoles and log files of the machine itself have.
const RESERVED_NAMES: [&str; 3] = ["monitor", "boot", "log"];

impl Plan {
    /// Puts flags and file together and checks the result.
    ///
    /// # Errors
    /// The first thing that is wrong or not supported yet, with its source and a remedy.
    pub fn new(file: Option<Spec>, flags: &Flags) -> Result<Self> {
        let mut spec = file.unwrap_or_else(|| Spec::built_in(default_guests(flags.endian)));
        apply_flags(&mut spec, flags)?;
        let machine = &spec.machine;
        supported(&spec)?;
        let slice = machine.slice_per_node.value;
        let window = machine.window_per_node.value;
        check_memory(&spec)?;
        let nodes = machine.nodes.value;
        let cells = cells(&spec)?;
        if machine.console_rate.value == 0 {
            return Err(machine.console_rate.error(
                "console_rate = 0: nothing would ever be printed; leave the key out for \"1M\"",
            ));
        }
        let mut plan = Self {
            nodes: nodes as u32,
            cpus_per_node: machine.cpus_per_node.value as u32,
            window_per_node: window,
            slice_per_node: slice,
            console_rate: machine.console_rate.value,
            endian: machine.endian.clone(),
            cells,
            vms: Vec::new(),
        };
        for vm in spec.vms {
            plan.check_vm(&vm)?;
            plan.vms.push(vm);
        }
        plan.check_room()?;
        Ok(plan)
    }

    /// Bytes of RAM of the machine (`-m`).
    pub fn ram_size(&self) -> u64 {
        map::LOW_RAM_SIZE + self.slice_per_node * u64::from(self.nodes)
    }

    /// CPUs of the machine (`-smp`).
    pub fn cpus(&self) -> u32 {
        self.nodes * self.cpus_per_node
    }

    /// Bytes of node memory that VMs can have.
    fn room(&self) -> u64 {
        let all = (self.slice_per_node + self.window_per_node) * u64::from(self.nodes);
        all - map::CELL_RESERVE * self.cells.len() as u64
    }

    fn check_vm(&self, vm: &Vm) -> Result<()> {
        let name = &vm.name.value;
        let well_formed = !name.is_empty()
            && name.len() <= 32
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            && !name.starts_with(['.', '-']);
        if !well_formed {
            return Err(vm.name.error(format_args!(
                "name = {name:?}: use 1 to 32 letters, digits, `.`, `_` and `-`, a letter or digit first"
            )));
        }
        if RESERVED_NAMES.contains(&name.as_str()) {
            return Err(vm.name.error(format_args!(
                "name = {name:?} is the name of a console or log of the machine itself; choose another"
            )));
        }
        if let Some(other) = self.vms.iter().find(|other| other.name.value == *name) {
            return Err(vm.name.error(format_args!(
                "name = {name:?} is taken by the VM at {}; VM names are unique",
                other.name.source
            )));
        }
        let memory = vm.memory.value;
        if memory < VM_MEMORY_MIN || !memory.is_multiple_of(abi::PAGE_SIZE) {
            return Err(vm.memory.error(format_args!(
                "VM {name:?}: memory = {}: give a multiple of 4K, at least {}",
                size::show(memory),
                size::show(VM_MEMORY_MIN)
            )));
        }
        if memory > self.room() {
            return Err(self.too_large(&vm.memory, &format!("VM {name:?}"), memory));
        }
        if vm.cmdline.value.bytes().any(|b| b.is_ascii_control()) {
            return Err(vm.cmdline.error(format_args!(
                "VM {name:?}: the command line has a control character; remove it"
            )));
        }
        if let Some(cells) = &vm.cells {
            if cells.value.is_empty() {
                return Err(cells.error(format_args!(
                    "VM {name:?}: cells = []: it may run nowhere; name a cell or leave the key out"
                )));
            }
            if let Some(bad) = cells.value.iter().find(|c| usize::from(**c) >= self.cells.len()) {
                return Err(cells.error(format_args!(
                    "VM {name:?}: there is no cell {bad}; the machine has {} (numbered from 0)",
                    self.cells.len()
                )));
            }
        }
        Ok(())
    }

    /// The VMs that start with the machine run at once: together they must fit too.
    fn check_room(&self) -> Result<()> {
        let mut sum = 0;
        for vm in self.vms.iter().filter(|vm| vm.autostart.value) {
            sum += vm.memory.value;
            if sum > self.room() {
                let who = format!("VM {:?} and those before it", vm.name.value);
                return Err(self.too_large(&vm.memory, &who, sum));
            }
        }
        Ok(())
    }

    fn too_large(&self, item: &Item<u64>, who: &str, needed: u64) -> anyhow::Error {
        let largest = (map::RAM_MAX - map::LOW_RAM_SIZE) / u64::from(self.nodes);
        let overhead = map::CELL_RESERVE * self.cells.len() as u64;
        let slice = (needed.saturating_add(overhead))
            .div_ceil(u64::from(self.nodes))
            .next_multiple_of(SLICE_UNIT);
        let remedy = if slice <= largest {
            format!("lower it or set slice_per_node = \"{}\"", size::show(slice))
        } else {
            "lower it: no machine is that large".to_string()
        };
        item.error(format_args!(
            "{who}: memory {} is more than the {} that the machine has free for VMs; {remedy}",
            size::show(needed),
            size::show(self.room())
        ))
    }
}

/// The built-in guests that run when nothing was asked for.
fn default_guests(endian: Option<Endian>) -> &'static [&'static str] {
    match endian.unwrap_or_default() {
        Endian::Little => &["linux", "irix"],
        // Nobody packages a stock kernel for a big-endian Malta.
        Endian::Big => &["irix"],
    }
}

fn apply_flags(spec: &mut Spec, flags: &Flags) -> Result<()> {
    if let Some(kernel) = &flags.kernel {
        spec.vms = vec![Vm::of_flag(kernel.clone())];
    }
    if let Some(endian) = flags.endian {
        spec.machine.endian = Some(Item::flag("--endian", endian));
    }
    let only = |flag: &str, vms: &mut [Vm]| match vms {
        [_] => Ok(()),
        _ => Err(anyhow!(
            "{flag}: the configuration has {} VMs; give `{}` for each in the file instead",
            vms.len(),
            if flag == "--initrd" { "initrd" } else { "cmdline" }
        )),
    };
    if let Some(initrd) = &flags.initrd {
        only("--initrd", &mut spec.vms)?;
        spec.vms[0].initrd = Some(Item::flag("--initrd", initrd.clone()));
    }
    if let Some(append) = &flags.append {
        only("--append", &mut spec.vms)?;
        spec.vms[0].cmdline = Item::flag("--append", append.clone());
    }
    if let Some(budget) = flags.vm_budget {
        for vm in &mut spec.vms {
            vm.budget = Item::flag("--vm-budget", budget);
        }
    }
    Ok(())
}

/// Refuses what the configuration can already say but the monitor can't do yet.
fn supported(spec: &Spec) -> Result<()> {
    fn refuse<T>(item: &Item<T>, what: impl std::fmt::Display, instead: &str) -> Result<()> {
        Err(item.error(format_args!("{what}: not supported yet; {instead}")))
    }
    let machine = &spec.machine;
    if machine.nodes.value > 1 {
        refuse(&machine.nodes, format_args!("nodes = {}", machine.nodes.value), "use 1")?;
    }
    if machine.memory_kind.value != MemoryKind::Ram {
        let what = match machine.memory_kind.value {
            MemoryKind::Mixed => "memory_kind = \"mixed\"",
            _ => "memory_kind = \"removable\"",
        };
        refuse(&machine.memory_kind, what, "use \"ram\"")?;
    }
    if machine.window_per_node.value > 0 {
        refuse(&machine.window_per_node, "window_per_node above 0", "use slice_per_node")?;
    }
    for vm in &spec.vms {
        let name = &vm.name.value;
        if vm.vcpus.value > 1 {
            let what = format!("VM {name:?}: vcpus = {}", vm.vcpus.value);
            refuse(&vm.vcpus, what, "use 1")?;
        }
        if vm.restart.value != Restart::Never {
            let what = format!("VM {name:?}: restart other than \"never\"");
            refuse(&vm.restart, what, "use \"never\"")?;
        }
        if vm.placement.value != Placement::Local {
            let what = format!("VM {name:?}: placement = \"spread\"");
            refuse(&vm.placement, what, "use \"local\"")?;
        }
        if vm.clock_scale.value != 1 {
            let what = format!("VM {name:?}: clock_scale = {}", vm.clock_scale.value);
            refuse(&vm.clock_scale, what, "use 1")?;
        }
    }
    Ok(())
}

fn check_memory(spec: &Spec) -> Result<()> {
    let machine = &spec.machine;
    let (slice, window) = (&machine.slice_per_node, machine.window_per_node.value);
    if slice.value < SLICE_MIN || !slice.value.is_multiple_of(SLICE_UNIT) {
        return Err(slice.error(format_args!(
            "slice_per_node = {}: give a multiple of {}, at least {}",
            size::show(slice.value),
            size::show(SLICE_UNIT),
            size::show(SLICE_MIN)
        )));
    }
    let most = (map::RAM_MAX - map::LOW_RAM_SIZE) / machine.nodes.value;
    if slice.value > most {
        return Err(slice.error(format_args!(
            "slice_per_node = {}: {} node(s) have at most {} each",
            size::show(slice.value),
            machine.nodes.value,
            size::show(most)
        )));
    }
    if let Some(memory) = &machine.memory_per_node
        && memory.value != slice.value + window
    {
        return Err(memory.error(format_args!(
            "memory_per_node = {} disagrees with window_per_node + slice_per_node = {}; leave it out or give their sum",
            size::show(memory.value),
            size::show(slice.value + window)
        )));
    }
    Ok(())
}

/// The nodes of each cell; without any `[[cell]]` one cell has them all.
fn cells(spec: &Spec) -> Result<Vec<Vec<u8>>> {
    let nodes = spec.machine.nodes.value as u8;
    if spec.cells.is_empty() {
        return Ok(vec![(0..nodes).collect()]);
    }
    let mut owner = vec![None; usize::from(nodes)];
    for (cell, spec) in spec.cells.iter().enumerate() {
        if spec.nodes.value.is_empty() {
            return Err(spec.nodes.error("a cell without nodes; name at least one"));
        }
        for &node in &spec.nodes.value {
            let Some(slot) = owner.get_mut(usize::from(node)) else {
                return Err(spec.nodes.error(format_args!(
                    "there is no node {node}; the machine has {nodes} (numbered from 0)"
                )));
            };
            if let Some(other) = slot.replace(cell) {
                return Err(spec.nodes.error(format_args!(
                    "node {node} is already in cell {other}; a node belongs to one cell"
                )));
            }
        }
    }
    if let Some(node) = owner.iter().position(Option::is_none) {
        bail!("{}: node {node} is in no cell; add it to one", spec.cells[0].nodes.source);
    }
    Ok(spec.cells.iter().map(|cell| cell.nodes.value.clone()).collect())
}

impl Kernel {
    /// How messages call it.
    pub fn show(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::BuiltIn(name) => format!("built-in image \"{name}\""),
        }
    }
}
