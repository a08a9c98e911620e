//! The two byte orders the machine comes in.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Byte order of the machine, its monitor and its guests: one machine has one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, clap::ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Endian {
    /// Least significant byte first: the default, because stock guest kernels exist for it.
    #[default]
    Little,
    /// Most significant byte first, as Origin was.
    Big,
}

impl Endian {
    /// Both, in the order in which they are built.
    pub const ALL: [Self; 2] = [Self::Little, Self::Big];

    /// The Rust target of the bare-metal crates; its specification is `linker/NAME.json`.
    pub fn target(self) -> &'static str {
        match self {
            Self::Little => "mips64el-unknown-none",
            Self::Big => "mips64-unknown-none",
        }
    }

    /// The name of the QEMU binary that emulates a machine of this byte order.
    pub fn qemu(self) -> &'static str {
        match self {
            Self::Little => "qemu-system-mips64el",
            Self::Big => "qemu-system-mips64",
        }
    }
}

impl fmt::Display for Endian {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Little => "little",
            Self::Big => "big",
        })
    }
}
