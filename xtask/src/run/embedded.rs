//! The machine with one VM, started by another part of this program that looks at the VM's memory while
//! it runs. No console, no logs: nothing is kept but what is needed to say how it ended.

use super::drain::Drain;
use super::images::{Images, VmImages};
use super::pack::{self, Mode, Monitor};
use super::plan::{Flags, Plan};
use super::qemu::{Options, Qemu};
use super::ram::Ram;
use super::script;
use super::spec::Spec;
use crate::build::Built;
use crate::endian::Endian;
use abi::map;
use abi::ring::{SharedMem, stream};
use anyhow::{Context, Result};
use std::path::Path;
use std::process::{Command, ExitStatus};

/// What does not change from one start to the next.
#[derive(Debug)]
pub struct Prepared {
    plan: Plan,
    monitor: Monitor,
    options: Options,
    endian: Endian,
    script: Vec<u8>,
}

impl Prepared {
    /// A machine of the built programs that runs the one VM of a configuration, whose `kernel` is any
    /// name: its image is given at each start. The machine ends as `script` says.
    ///
    /// # Errors
    /// The configuration, the script or the monitor's image is wrong.
    pub fn new(built: &Built, endian: Endian, configuration: &str, script: &str) -> Result<Self> {
        let spec = Spec::parse(Path::new("the built-in configuration"), configuration)?;
        let elf = std::fs::read(&built.kernel_elf)
            .with_context(|| built.kernel_elf.display().to_string())?;
        let plan = Plan::new(Some(spec), &Flags::default())?;
        let names: Vec<_> = plan.vms.iter().map(|vm| vm.name.value.clone()).collect();
        Ok(Self {
            script: script::embedded(script, &names, endian)?,
            plan,
            monitor: Monitor::flatten(&elf)?,
            options: Options {
                boot_elf: built.boot_elf.clone(),
                icount: false,
                seed: 0,
                gdb: false,
                extra: Vec::new(),
            },
            endian,
        })
    }

    /// Starts the machine with `kernel` in its VM.
    ///
    /// # Errors
    /// There is no room for its memory, or QEMU does not start.
    pub fn start(&self, qemu: Command, kernel: Vec<u8>) -> Result<Running> {
        let images = Images {
            vms: vec![VmImages { kernel: kernel.into(), initrd: None }],
            endian: self.endian,
        };
        let ram = Ram::new(Ram::size_of(&self.plan.layout))?;
        let mode = Mode { icount: false, seed: 0, epoch_s: 0, stay: false };
        pack::pack(&ram, &self.plan, &images, &self.monitor, &self.script, mode)?;
        let names = self.plan.vms.iter().map(|vm| vm.name.value.clone()).collect();
        let drain = Drain::new(&ram, &self.plan.layout, names);
        let qemu = Qemu::start(qemu, &self.plan, &self.options, &ram, self.endian)?;
        let slices = map::LOW_RAM_SIZE..Ram::size_of(&self.plan.layout);
        Ok(Running { qemu, drain, ram, slices, words: Vec::new() })
    }
}

/// A machine that runs; it is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    qemu: Qemu,
    drain: Drain,
    ram: Ram,
    slices: std::ops::Range<u64>,
    words: Vec<u8>,
}

impl Running {
    /// How QEMU ended, if it has.
    ///
    /// # Errors
    /// When the system can't say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let ended = self.qemu.ended().context("can't wait for QEMU")?;
        let words = &mut self.words;
        // What is lost is only missing from a message.
        let _ = self.drain.poll(false, |_, record, bytes| {
            if record.stream != stream::EVENTS {
                words.extend_from_slice(bytes);
            }
        });
        Ok(ended)
    }

    /// What monitor and guest have printed.
    pub fn words(&mut self) -> String {
        let mut text = String::from_utf8_lossy(&self.words).into_owned();
        // The boot log is missing when it can't be read.
        text.push_str(&String::from_utf8_lossy(&self.qemu.uart().unwrap_or_default()));
        text
    }

    /// Offsets in the machine's RAM where nodes' memory lies: what VMs' memory is part of.
    pub fn slices(&self) -> std::ops::Range<u64> {
        self.slices.clone()
    }

    /// Copies `to.len()` bytes from an offset in the machine's RAM.
    ///
    /// # Panics
    /// When they are not inside it, or the offset is not a multiple of 8.
    pub fn read(&self, at: u64, to: &mut [u8]) {
        let size = (to.len() as u64).next_multiple_of(8);
        self.ram.window(at, size).copy_out(0, to);
    }
}
