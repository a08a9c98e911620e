//! Identifiers, each a type of its own.

use core::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A node: up to two CPUs plus their memory. `0..MAX_NODES`.
    NodeId, u8
}
id! {
    /// A cell: one or more nodes, the unit of fault containment. `0..MAX_CELLS`.
    CellId, u8
}
id! {
    /// A CPU of the real machine, as `EBase.CPUNum` counts them. `0..MAX_CPUS`.
    CpuId, u8
}
id! {
    /// A virtual machine: its index in the configuration.
    VmId, u16
}

/// Most nodes a machine has.
pub const MAX_NODES: usize = 8;
/// Most cells a machine has.
pub const MAX_CELLS: usize = 8;
/// Most CPUs a node has.
pub const CPUS_PER_NODE: usize = 2;
/// Most CPUs a machine has.
pub const MAX_CPUS: usize = MAX_NODES * CPUS_PER_NODE;
