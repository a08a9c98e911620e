//! What a configuration alone says about a run, for those who judge one from outside: who may be where, and where
//! each VM has its home.

use super::plan::{Flags, Plan};
use super::spec::Spec;
use crate::endian::Endian;
use abi::CellId;
use abi::config::Placement;
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
        };
        Ok(Self {
            layout: plan.layout,
            endian: plan.endian.as_ref().map(|endian| endian.value),
            vms: packed.vms.iter().zip(homes).map(vm).collect(),
        })
    }
}
