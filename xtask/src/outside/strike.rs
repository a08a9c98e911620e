//! What takes a node's power away from outside, while the machine stands still.
//!
//! The same words that a survivor's monitor would write (`kernel/src/controller.rs`): power, time, what its CPUs are to do; and the
//! switch of its window. From there on the machine does the rest: each of the node's CPUs comes to its PROM by a bus error, at the
//! next instruction if its monitor lies in the window, or with its next tick.

use crate::endian::Endian;
use crate::run::lab::Qtest;
use crate::run::ram::Ram;
use abi::NodeId;
use abi::hub::{self, Controller, CpuWords, Hub, Why};
use abi::layout::Layout;
use abi::map;
use anyhow::{Context, Result};
use std::mem::offset_of;
use std::path::Path;

/// Reaches into a machine.
pub struct Striker {
    ram: Ram,
    layout: Layout,
    endian: Endian,
    qtest: Qtest,
}

impl Striker {
    /// For the machine whose memory is `ram` and whose QEMU listens at `qtest`.
    ///
    /// # Errors
    /// It does not.
    pub fn connect(ram: Ram, layout: Layout, endian: Endian, qtest: &Path) -> Result<Self> {
        Ok(Self { ram, layout, endian, qtest: Qtest::connect(qtest)? })
    }

    /// A node fails. `salt`, not 0: what its memory turns to depends on it.
    ///
    /// # Errors
    /// The machine can't be reached.
    pub fn fail(&mut self, node: NodeId, salt: u64) -> Result<()> {
        let failed_at = map::CONTROLLER + offset_of!(Controller, failed_at) as u64;
        self.word(failed_at + 8 * u64::from(node.0), salt)?;
        let page = hub::address(node);
        self.word(page + offset_of!(Hub, power) as u64, 0)?;
        for slot in 0..self.layout.cpus_per_node as usize {
            let words = offset_of!(Hub, cpus) + slot * size_of::<CpuWords>();
            let parking = words + offset_of!(CpuWords, parking);
            self.word(page + parking as u64, Why::Vanished as u64)?;
        }
        if self.layout.window != 0 {
            self.qtest.command(&format!(
                "writel {:#x} 0",
                map::window_registers(node) + map::WINDOW_SWITCH
            ))?;
        }
        Ok(())
    }

    fn word(&self, at: u64, value: u64) -> Result<()> {
        let bytes = match self.endian {
            Endian::Little => value.to_le_bytes(),
            Endian::Big => value.to_be_bytes(),
        };
        self.ram.write(at, &bytes).context("the machine's memory")
    }
}
