//! On which cells a VM depends.

use abi::CellId;
use core::fmt;

/// What a VM has of one cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dependence {
    /// The cell.
    pub cell: CellId,
    /// Pages of its memory that the VM uses.
    pub pages: u64,
    /// Pages of it that the VM has been promised and has not touched yet.
    pub promised: u64,
    /// VCPUs that its CPUs run.
    pub vcpus: u32,
    /// It serves the VM's devices.
    pub devices: bool,
}

impl Dependence {
    /// The VM has nothing of `cell`.
    #[must_use]
    pub const fn none(cell: CellId) -> Self {
        Self { cell, pages: 0, promised: 0, vcpus: 0, devices: false }
    }

    /// Whether the VM has anything of the cell.
    #[must_use]
    pub const fn exists(&self) -> bool {
        self.is_essential() || self.promised > 0
    }

    /// Whether the VM can't outlive the cell. A promise alone can be made good by another.
    #[must_use]
    pub const fn is_essential(&self) -> bool {
        self.pages > 0 || self.vcpus > 0 || self.devices
    }
}

impl fmt::Display for Dependence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cell, pages, promised, vcpus, devices } = self;
        write!(f, "cell {cell}: {pages} pages and {promised} promised, {vcpus} VCPUs")?;
        f.write_str(if *devices { ", its devices" } else { "" })?;
        f.write_str(if self.is_essential() { " (essential)" } else { " (not essential)" })
    }
}
