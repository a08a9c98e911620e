//! The packed configuration: the TOML file as the monitor gets it, checked and with every default
//! filled in by the host. The monitor never parses text configuration.

use crate::CellId;
use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{MAX_CELLS, MAX_NODES};
use crate::layout::Layout;
use alloc::string::String;
use alloc::vec::Vec;

/// `"HNYCONF1"`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"HNYCONF1");

/// Everything the monitor is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The machine.
    pub machine: Machine,
    /// Its cells, by [`crate::CellId`].
    pub cells: Vec<Cell>,
    /// Its VMs, by [`crate::VmId`].
    pub vms: Vec<Vm>,
    /// Bytes of compiled script at [`crate::map::SCRIPT_BASE`]; 0: no script.
    pub script_len: u64,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Nodes.
    pub nodes: u32,
    /// CPUs a node.
    pub cpus_per_node: u32,
    /// Bytes of removable window a node.
    pub window_per_node: u64,
    /// Bytes of RAM slice a node.
    pub slice_per_node: u64,
    /// Bytes a node that its cell's monitor keeps ([`Layout::kept`]).
    pub monitor_per_node: u64,
    /// Runs under `-icount`: nothing may depend on the host.
    pub icount: bool,
    /// The seed of the monitor's one random source.
    pub seed: u64,
    /// Most bytes a VM's console emits in a virtual second.
    pub console_rate: u64,
    /// Host time at start, in seconds since 1970: the RTCs start there. Constant under icount.
    pub epoch_s: u64,
    /// Somebody is at a terminal, or no script ends the run: the monitor ends it when every VM has
    /// ended unless this is set.
    pub stay: bool,
}

/// One cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Its nodes.
    pub nodes: Vec<u8>,
}

/// One VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vm {
    /// Its name: unique, letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// The kernel image in low RAM.
    pub kernel: Blob,
    /// The initial RAM disk in low RAM, if any (`len` 0: none).
    pub initrd: Blob,
    /// The kernel's command line.
    pub cmdline: String,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Bytes of guest-physical memory, a multiple of the page size.
    pub memory: u64,
    /// Permitted cells, one bit each.
    pub cells: u8,
    /// Where VCPUs and pages go.
    pub placement: Placement,
    /// Share of CPU relative to other VMs.
    pub weight: u32,
    /// Most guest instructions it may execute; 0: no limit.
    pub budget: u64,
    /// How much slower than the machine's its clock goes: 1 is the same speed.
    pub clock_scale: u32,
    /// What happens when it ends.
    pub restart: Restart,
    /// Started with the machine (else by `start`).
    pub autostart: bool,
    /// What executes its instructions.
    pub engine: Engine,
    /// The processor it sees.
    pub cpu: Cpu,
}

/// Bytes in low RAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blob {
    /// Low physical address.
    pub base: u64,
    /// Length in bytes.
    pub len: u64,
}

/// Where a VM's VCPUs and pages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Into one cell.
    Local,
    /// Over all permitted cells.
    Spread,
}

/// What happens when a VM ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Nothing.
    Never,
    /// Restarted when it was ended for cause.
    OnFailure,
    /// Restarted whenever it ends.
    Always,
    /// As [`Restart::OnFailure`], also in another permitted cell.
    OnFailureElsewhere,
}

/// What executes a VM's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The machine's CPU itself where it can. Other kernel mode is translated if the monitor's heap has room for
    /// that, else interpreted.
    Auto,
    /// The interpreter, always: for debugging and for comparing engines.
    Interpreter,
    /// As [`Engine::Auto`], but where there is no room the VM does not start.
    Translator,
    /// The machine's CPU itself where it can, the interpreter elsewhere.
    Direct,
}

/// The processor that a VM sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cpu {
    /// The monitor's own model, made for kernels in VMs.
    Honeycomb,
    /// QEMU's `MIPS64R2-generic` to the last bit: for comparing VMs with the bare machine.
    Generic,
}

impl Config {
    /// The machine's nodes and cells.
    #[must_use]
    pub fn layout(&self) -> Layout {
        let mut cell_of = [CellId(0); MAX_NODES];
        for (cell, nodes) in self.cells.iter().enumerate() {
            for node in &nodes.nodes {
                if let Some(of) = cell_of.get_mut(usize::from(*node)) {
                    *of = CellId(cell as u8);
                }
            }
        }
        let machine = &self.machine;
        Layout {
            nodes: machine.nodes,
            cpus_per_node: machine.cpus_per_node,
            window: machine.window_per_node,
            slice: machine.slice_per_node,
            kept: machine.monitor_per_node,
            cell_of,
        }
    }

    /// The cell that each VM starts in, of those that it is permitted; `None`: it does not fit any (a VM that
    /// is spread: one of them). The host refuses such a configuration, so that each cell comes to the same
    /// answer by itself.
    ///
    /// The VMs that start with the machine come first, in their order, each into the cell that then has most
    /// memory left, the lowest of several. They all fit together. Then the others in the same way, but that
    /// these have to fit only alone. A VM that is spread takes an equal share of each of its cells.
    #[must_use]
    pub fn homes(&self) -> Vec<Option<CellId>> {
        let layout = self.layout();
        let cells = self.cells.len().min(MAX_CELLS);
        let rooms: Vec<i128> =
            (0..cells).map(|cell| i128::from(layout.room_of(CellId(cell as u8)))).collect();
        let mut left = rooms.clone();
        let mut homes = alloc::vec![None; self.vms.len()];
        for autostart in [true, false] {
            for (vm, home) in self.vms.iter().zip(&mut homes) {
                if vm.autostart != autostart {
                    continue;
                }
                let permitted = || (0..cells).filter(|cell| vm.cells >> cell & 1 != 0);
                // `max_by_key` takes the last of equals.
                let Some(most) = permitted().rev().max_by_key(|cell| left[*cell]) else { continue };
                let (share, of) = match vm.placement {
                    Placement::Local => (vm.memory, 1 << most),
                    Placement::Spread => (vm.memory.div_ceil(permitted().count() as u64), vm.cells),
                };
                let shares = || (0..cells).filter(|cell| of >> cell & 1 != 0);
                let has = if autostart { &left } else { &rooms };
                if shares().all(|cell| i128::from(share) <= has[cell]) {
                    *home = Some(CellId(most as u8));
                    for cell in shares() {
                        left[cell] -= i128::from(share);
                    }
                }
            }
        }
        homes
    }

    /// Encodes the configuration.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u64(MAGIC);
        let m = &self.machine;
        w.u32(m.nodes);
        w.u32(m.cpus_per_node);
        w.u64(m.window_per_node);
        w.u64(m.slice_per_node);
        w.u64(m.monitor_per_node);
        w.u8(u8::from(m.icount));
        w.u64(m.seed);
        w.u64(m.console_rate);
        w.u64(m.epoch_s);
        w.u8(u8::from(m.stay));
        w.u64(self.script_len);
        w.u32(self.cells.len() as u32);
        for cell in &self.cells {
            w.blob(&cell.nodes);
        }
        w.u32(self.vms.len() as u32);
        for vm in &self.vms {
            w.str(&vm.name);
            for blob in [vm.kernel, vm.initrd] {
                w.u64(blob.base);
                w.u64(blob.len);
            }
            w.str(&vm.cmdline);
            w.u32(vm.vcpus);
            w.u64(vm.memory);
            w.u8(vm.cells);
            w.u8(vm.placement as u8);
            w.u32(vm.weight);
            w.u64(vm.budget);
            w.u32(vm.clock_scale);
            w.u8(vm.restart as u8);
            w.u8(u8::from(vm.autostart));
            w.u8(vm.engine as u8);
            w.u8(vm.cpu as u8);
        }
        w.bytes
    }

    /// Decodes a configuration.
    ///
    /// # Errors
    /// When the blob is short or a field has no meaning.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        if r.u64()? != MAGIC {
            return Err(DecodeError { at: 0, what: "the configuration's magic number" });
        }
        let machine_head = (r.u32()?, r.u32()?, r.u64()?, r.u64()?, r.u64()?);
        let machine = Machine {
            nodes: machine_head.0,
            cpus_per_node: machine_head.1,
            window_per_node: machine_head.2,
            slice_per_node: machine_head.3,
            monitor_per_node: machine_head.4,
            icount: bool(&mut r)?,
            seed: r.u64()?,
            console_rate: r.u64()?,
            epoch_s: r.u64()?,
            stay: bool(&mut r)?,
        };
        let script_len = r.u64()?;
        let mut cells = Vec::new();
        for _ in 0..r.u32()? {
            cells.push(Cell { nodes: r.blob()?.to_vec() });
        }
        let mut vms = Vec::new();
        for _ in 0..r.u32()? {
            vms.push(Vm {
                name: r.str()?,
                kernel: blob(&mut r)?,
                initrd: blob(&mut r)?,
                cmdline: r.str()?,
                vcpus: r.u32()?,
                memory: r.u64()?,
                cells: r.u8()?,
                placement: match r.u8()? {
                    0 => Placement::Local,
                    1 => Placement::Spread,
                    _ => return Err(r.error("a placement")),
                },
                weight: r.u32()?,
                budget: r.u64()?,
                clock_scale: r.u32()?,
                restart: match r.u8()? {
                    0 => Restart::Never,
                    1 => Restart::OnFailure,
                    2 => Restart::Always,
                    3 => Restart::OnFailureElsewhere,
                    _ => return Err(r.error("a restart policy")),
                },
                autostart: bool(&mut r)?,
                engine: match r.u8()? {
                    0 => Engine::Auto,
                    1 => Engine::Interpreter,
                    2 => Engine::Translator,
                    3 => Engine::Direct,
                    _ => return Err(r.error("an engine")),
                },
                cpu: match r.u8()? {
                    0 => Cpu::Honeycomb,
                    1 => Cpu::Generic,
                    _ => return Err(r.error("a processor")),
                },
            });
        }
        Ok(Self { machine, cells, vms, script_len })
    }
}

fn bool(r: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match r.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(r.error("0 or 1")),
    }
}

fn blob(r: &mut Reader<'_>) -> Result<Blob, DecodeError> {
    Ok(Blob { base: r.u64()?, len: r.u64()? })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn vm(name: &str) -> Vm {
        Vm {
            name: name.into(),
            kernel: Blob { base: 0x500_0000, len: 10 },
            initrd: Blob::default(),
            cmdline: "console=ttyS0".into(),
            vcpus: 1,
            memory: 64 << 20,
            cells: 1,
            placement: Placement::Spread,
            weight: 100,
            budget: 7,
            clock_scale: 1,
            restart: Restart::OnFailureElsewhere,
            autostart: true,
            engine: Engine::Interpreter,
            cpu: Cpu::Generic,
        }
    }

    pub(crate) fn config(nodes: u32, cells: &[&[u8]], vms: Vec<Vm>) -> Config {
        Config {
            machine: Machine {
                nodes,
                cpus_per_node: 2,
                window_per_node: 64 << 20,
                slice_per_node: 192 << 20,
                monitor_per_node: crate::map::KEPT_USUAL,
                icount: true,
                seed: 3,
                console_rate: 4,
                epoch_s: 5,
                stay: false,
            },
            cells: cells.iter().map(|nodes| Cell { nodes: nodes.to_vec() }).collect(),
            vms,
            script_len: 6,
        }
    }

    /// VMs of so many MB that start with the machine (or, below 0, do not), permitted everywhere.
    fn homes(config: &Config, vms: &[(i64, u8)]) -> Vec<Option<u8>> {
        let vms = vms.iter().map(|(mb, cells)| Vm {
            memory: mb.unsigned_abs() << 20,
            cells: *cells,
            placement: Placement::Local,
            autostart: *mb > 0,
            ..vm("a")
        });
        let config = Config { vms: vms.collect(), ..config.clone() };
        config.homes().into_iter().map(|home| home.map(|cell| cell.0)).collect()
    }

    #[test]
    fn vms_go_where_most_memory_is_left() {
        let four = config(4, &[&[0], &[1], &[2], &[3]], Vec::new());
        assert_eq!(four.layout().room_of(CellId(0)), 224 << 20);
        let all = 0xff;
        assert_eq!(homes(&four, &[(64, all); 5]), [Some(0), Some(1), Some(2), Some(3), Some(0)]);
        assert_eq!(homes(&four, &[(64, all), (64, 1), (64, 9)]), [Some(0), Some(0), Some(3)]);
        // They start together: the last one finds no room.
        assert_eq!(homes(&four, &[(200, 3), (200, 3), (200, 3)]), [Some(0), Some(1), None]);
        assert_eq!(homes(&four, &[(225, all), (224, all)]), [None, Some(0)]);
        // What is started by hand has to fit alone, and goes after those that start by themselves.
        let by_hand = [(-200, 3), (-200, 3), (200, 3), (-225, 3)];
        assert_eq!(homes(&four, &by_hand), [Some(1), Some(0), Some(0), None]);
        assert_eq!(homes(&four, &[(64, 0), (64, 0x10)]), [None, None], "no such cell");
        let two = config(4, &[&[1], &[0, 2, 3]], Vec::new());
        assert_eq!(homes(&two, &[(300, all), (300, all)]), [Some(1), Some(1)]);
    }

    #[test]
    fn a_spread_vm_takes_a_share_of_each_of_its_cells() {
        let spread = |memory: u64, cells| Vm { memory: memory << 20, cells, ..vm("a") };
        let local = |memory: u64| Vm { placement: Placement::Local, ..spread(memory, 0xff) };
        let of = |vms: Vec<Vm>| {
            let config = config(2, &[&[0], &[1]], vms);
            config.homes().into_iter().map(|home| home.map(|cell| cell.0)).collect::<Vec<_>>()
        };
        assert_eq!(of(alloc::vec![spread(400, 3), local(24)]), [Some(0), Some(0)]);
        assert_eq!(of(alloc::vec![spread(400, 3), local(25)]), [Some(0), None]);
        assert_eq!(of(alloc::vec![local(100), spread(300, 3)]), [Some(0), None]);
        assert_eq!(of(alloc::vec![local(100), spread(200, 3)]), [Some(0), Some(1)]);
    }

    #[test]
    fn round_trip_and_truncation() {
        let config = config(2, &[&[0, 1]], alloc::vec![vm("linux"), vm("two")]);
        let bytes = config.encode();
        assert_eq!(Config::decode(&bytes), Ok(config));
        for cut in 0..bytes.len() {
            assert!(Config::decode(&bytes[..cut]).is_err());
        }
    }
}
