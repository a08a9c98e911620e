//! What was asked for, made into something the monitor can do, or refused with culprit and remedy.

use super::kept;
use super::memory;
use super::pack::{self, Mode};
use super::size;
use super::source::Item;
use super::spec::{Kernel, Spec, Vm};
use crate::endian::Endian;
use abi::config::{self, Config, Placement};
use abi::ids::MAX_NODES;
use abi::layout::Layout;
use abi::{CellId, map};
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
    /// Nodes and cells.
    pub layout: Layout,
    /// Most bytes a console emits in a virtual second.
    pub console_rate: u64,
    /// The byte order, if somebody chose one.
    pub endian: Option<Item<Endian>>,
    /// The nodes of each cell.
    pub cells: Vec<Vec<u8>>,
    /// The virtual machines.
    pub vms: Vec<Vm>,
}

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
        let mut spec = file.unwrap_or_else(|| match flags.kernel {
            Some(_) => Spec::built_in(1, &[]),
            None => Spec::built_in(DEFAULT_NODES, &default_guests(flags.endian)),
        });
        apply_flags(&mut spec, flags)?;
        let machine = &spec.machine;
        let (window, slice) = memory::per_node(machine)?;
        let cells = cells(&spec)?;
        let mut cell_of = [CellId(0); MAX_NODES];
        for (cell, nodes) in cells.iter().enumerate() {
            for node in nodes {
                cell_of[usize::from(*node)] = CellId(cell as u8);
            }
        }
        let layout = Layout {
            nodes: machine.nodes.value as u32,
            cpus_per_node: machine.cpus_per_node.value as u32,
            window,
            slice,
            kept: kept::said(machine, window + slice)?,
            cell_of,
        };
        assert!(layout.is_sound(), "checked key by key: {layout:?}");
        memory::check_reserve(machine, &layout)?;
        kept::check(machine, &layout)?;
        let is_said = machine.monitor_memory_per_node.is_some();
        if machine.console_rate.value == 0 {
            return Err(machine.console_rate.error(
                "console_rate = 0: nothing would ever be printed; leave the key out for \"1M\"",
            ));
        }
        let mut plan = Self {
            layout,
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
        if !is_said {
            plan.layout.kept = kept::wanted(&plan);
        }
        Ok(plan)
    }

    /// CPUs of the machine (`-smp`).
    pub fn cpus(&self) -> u32 {
        self.layout.cpus()
    }

    /// The configuration as the cells get it, as far as the places of VMs depend on it.
    pub fn packed(&self) -> Config {
        let mode = Mode { icount: false, seed: 0, epoch_s: 0, stay: false };
        pack::config(self, &vec![Default::default(); self.vms.len()], &[], mode)
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

    /// Each VM must have a home: those that start with the machine together, the others alone.
    fn check_room(&self) -> Result<()> {
        let config = self.packed();
        let homes = config.homes();
        let Some(without) = homes.iter().position(Option::is_none) else { return Ok(()) };
        let (vm, packed) = (&self.vms[without], &config.vms[without]);
        // What is left in each cell by the VMs that go before it.
        let before = |i: usize| i < without && vm.autostart.value && config.vms[i].autostart;
        let taken = |cell: CellId| -> u64 {
            let share = |vm: &config::Vm, home: Option<CellId>| match vm.placement {
                Placement::Local if home == Some(cell) => vm.memory,
                Placement::Spread if home.is_some() && vm.cells >> cell.0 & 1 != 0 => {
                    vm.memory.div_ceil(self.cells_of(vm).count() as u64)
                }
                _ => 0,
            };
            let all = homes.iter().enumerate().filter(|(i, _)| before(*i));
            all.map(|(i, home)| share(&config.vms[i], *home)).sum()
        };
        let left = |cell| self.layout.room_of(cell).saturating_sub(taken(cell));
        let spread = packed.placement == Placement::Spread;
        let count = self.cells_of(packed).count() as u64;
        let share = if spread { vm.memory.value.div_ceil(count) } else { vm.memory.value };
        let figures: Vec<String> = self
            .cells_of(packed)
            .map(|cell| {
                let (left, room) = (size::show(left(cell)), size::show(self.layout.room_of(cell)));
                if left == room {
                    format!("cell {cell} has {room} for VMs")
                } else {
                    format!("cell {cell} has {left} of {room} left")
                }
            })
            .collect();
        let missing = |cell| share.saturating_sub(left(cell));
        let missing = self.cells_of(packed).map(|cell| {
            let nodes = self.layout.nodes_of(cell).count() as u64;
            missing(cell).div_ceil(nodes).checked_next_multiple_of(map::SLICE_UNIT)
        });
        let most = if spread { missing.max() } else { missing.min() };
        let slice = most.flatten().and_then(|more| self.layout.slice.checked_add(more));
        let remedy = match slice {
            Some(slice) if slice <= memory::largest_slice(self.layout.nodes.into()) => {
                format!("lower it or set slice_per_node = \"{}\"", size::show(slice))
            }
            _ => "lower it: no such machine is that large".to_string(),
        };
        let what = if spread {
            format!("memory {} ({} a cell)", size::show(vm.memory.value), size::show(share))
        } else {
            format!("memory {}", size::show(vm.memory.value))
        };
        Err(vm.memory.error(format_args!(
            "VM {:?}: {what} does not fit: {}; {remedy}",
            vm.name.value,
            figures.join(", ")
        )))
    }

    /// The cells that a VM is permitted.
    fn cells_of(&self, vm: &config::Vm) -> impl Iterator<Item = CellId> + use<> {
        let (cells, permitted) = (self.layout.cells(), vm.cells);
        (0..cells).map(CellId).filter(move |cell| permitted >> cell.0 & 1 != 0)
    }
}

/// Nodes, and cells, of the machine that runs when nothing was asked for.
const DEFAULT_NODES: u8 = 4;

/// The built-in guests that run when nothing was asked for, one a cell.
fn default_guests(endian: Option<Endian>) -> [&'static str; DEFAULT_NODES as usize] {
    match endian.unwrap_or_default() {
        Endian::Little => ["linux", "irix", "irix", "irix"],
        // Nobody packages a stock kernel for a big-endian Malta.
        Endian::Big => ["irix"; DEFAULT_NODES as usize],
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
    let sorted = |nodes: &Vec<u8>| {
        let mut nodes = nodes.clone();
        nodes.sort_unstable();
        nodes
    };
    Ok(spec.cells.iter().map(|cell| sorted(&cell.nodes.value)).collect())
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
