//! What a configuration alone says about a run, for those who judge one from outside: who may be where, and where
//! each VM has its home.

use super::plan::{Flags, Plan};
use super::spec::Spec;
use crate::endian::Endian;
use abi::CellId;
use abi::config::{Placement, Restart};
use abi::layout::Layout;
use anyhow::Result;
use std::path::Path;

/// A VM of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmFacts {
    /// Its name.
    pub name: String,
    /// The cells it may run in.
    pub permitted: Vec<u8>,
    /// Where it starts.
    pub home: u8,
    /// Whether its pages and VCPUs are spread over all permitted cells.
    pub is_spread: bool,
    /// Whether it starts with the machine.
    pub autostart: bool,
    /// Whether it is started again when it has been lost with its cell, and the cell is back.
    pub restarts: bool,
    /// Whether it starts in another of its cells when its home dies.
    pub elsewhere: bool,
    /// How many VCPUs it has.
    pub vcpus: u32,
    /// Its kernel's command line.
    pub cmdline: String,
}

impl VmFacts {
    /// Whether it starts by itself when it was lost with its cell, and the cell is back: one that may use others as well
    /// may have been started there.
    pub fn starts_again(&self) -> bool {
        self.restarts && self.permitted.len() == 1
    }
}

/// A machine and its VMs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Nodes, CPUs, memory and cells.
    pub layout: Layout,
    /// The byte order, if the configuration says it.
    pub endian: Option<Endian>,
    /// The VMs, in the configuration's order.
    pub vms: Vec<VmFacts>,
}

impl Facts {
    /// The cells that each VM that starts with the machine may use, a bit each.
    pub fn masks(&self) -> Vec<u8> {
        let mask = |vm: &VmFacts| vm.permitted.iter().fold(0, |set, cell| set | 1 << cell);
        self.vms.iter().filter(|vm| vm.autostart).map(mask).collect()
    }

    /// Reads a configuration's text; `file` is what errors call it.
    ///
    /// # Errors
    /// It is none that could be run.
    pub fn parse(file: &Path, text: &str) -> Result<Self> {
        let plan = Plan::new(Some(Spec::parse(file, text)?), &Flags::default())?;
        let packed = plan.packed();
        let homes = packed.homes();
        let vm = |(vm, home): (&abi::config::Vm, Option<CellId>)| VmFacts {
            name: vm.name.clone(),
            permitted: (0..plan.layout.cells()).filter(|cell| vm.cells >> cell & 1 != 0).collect(),
            // `Plan::new` has refused a VM without one.
            home: home.map_or(0, |home| home.0),
            is_spread: vm.placement == Placement::Spread,
            autostart: vm.autostart,
            restarts: vm.restart != Restart::Never,
            elsewhere: vm.restart == Restart::OnFailureElsewhere,
            vcpus: vm.vcpus,
            cmdline: vm.cmdline.clone(),
        };
        Ok(Self {
            layout: plan.layout,
            endian: plan.endian.as_ref().map(|endian| endian.value),
            vms: packed.vms.iter().zip(homes).map(vm).collect(),
        })
    }
}
