//! What lies in low RAM when the machine starts: boot block, configuration, monitor, script, images.

use super::images::Images;
use super::plan::Plan;
use super::ram::Ram;
use super::size;
use abi::codec::checksum;
use abi::config::{self, Blob};
use abi::image::BootBlock;
use abi::map;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;

/// The monitor, as linked, from [`map::MONITOR_VA`] to the end of its initialised data.
#[derive(Debug, PartialEq, Eq)]
pub struct Monitor {
    /// Its bytes.
    pub flat: Vec<u8>,
    /// Bytes it occupies in its cell, zeroed data included.
    pub mem: u64,
    /// Its entry's virtual address.
    pub entry: u64,
}

/// How a run differs from others of the same configuration.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    /// Under `-icount`: nothing may depend on the host.
    pub icount: bool,
    /// The seed of all randomness.
    pub seed: u64,
    /// Where the RTCs start, in seconds since 1970.
    pub epoch_s: u64,
    /// The monitor goes on when every VM has ended.
    pub stay: bool,
}

impl Monitor {
    /// Makes the flat image of the monitor's ELF file.
    ///
    /// # Errors
    /// When the file is no ELF of the machine or does not fit its place: a fault of the build.
    pub fn flatten(elf: &[u8]) -> Result<Self> {
        use object::{Object, ObjectSegment};
        let file = object::File::parse(elf).context("the monitor's ELF file")?;
        let (mut flat, mut mem) = (Vec::new(), 0);
        for segment in file.segments().filter(|segment| segment.size() > 0) {
            let data = segment.data().context("the monitor's ELF file")?;
            let offset = segment.address().checked_sub(map::MONITOR_VA);
            let end = offset.and_then(|offset| offset.checked_add(segment.size()));
            let (Some(offset), Some(end)) = (offset, end) else {
                bail!("the monitor has a segment below its place, at {:#x}", segment.address());
            };
            if end > map::MONITOR_MAX {
                bail!("the monitor needs {end} bytes, its place has {}", map::MONITOR_MAX);
            }
            mem = mem.max(end);
            let offset = offset as usize;
            flat.resize(flat.len().max(offset + data.len()), 0);
            flat[offset..offset + data.len()].copy_from_slice(data);
        }
        if flat.is_empty() {
            bail!("the monitor's ELF file has nothing to load");
        }
        Ok(Self { flat, mem, entry: file.entry() })
    }
}

/// Fills low RAM.
///
/// # Errors
/// When something does not fit its place.
pub fn pack(
    ram: &Ram,
    plan: &Plan,
    images: &Images,
    monitor: &Monitor,
    script: &[u8],
    mode: Mode,
) -> Result<()> {
    let blobs = place_images(ram, plan, images)?;
    let config = config(plan, &blobs, script, mode).encode();
    if config.len() as u64 > map::CONFIG_MAX {
        bail!(
            "the packed configuration has {} bytes, its place {}; configure fewer VMs",
            config.len(),
            map::CONFIG_MAX
        );
    }
    if script.len() as u64 > map::SCRIPT_MAX {
        bail!(
            "the compiled script has {} bytes, its place {}; use fewer or simpler expressions",
            script.len(),
            map::SCRIPT_MAX
        );
    }
    let block = BootBlock {
        layout: plan.layout,
        monitor_len: monitor.flat.len() as u64,
        monitor_mem: monitor.mem,
        monitor_entry: monitor.entry,
        monitor_sum: checksum(&monitor.flat),
        config_len: config.len() as u64,
        config_sum: checksum(&config),
    };
    for (at, bytes) in [
        (map::BOOT_BLOCK, &block.encode()[..]),
        (map::CONFIG_BASE, &config),
        (map::MONITOR_BASE, &monitor.flat),
        (map::SCRIPT_BASE, script),
    ] {
        ram.write(at, bytes).context("can't write the machine's RAM file")?;
    }
    Ok(())
}

/// Puts each distinct image into low RAM once; (kernel, initrd) by VM.
fn place_images(ram: &Ram, plan: &Plan, images: &Images) -> Result<Vec<(Blob, Blob)>> {
    let mut next = map::IMAGES_BASE;
    let mut placed: BTreeMap<*const u8, Blob> = BTreeMap::new();
    let mut place = |bytes: &[u8], vm: usize| -> Result<Blob> {
        if let Some(blob) = placed.get(&bytes.as_ptr()) {
            return Ok(*blob);
        }
        let len = bytes.len() as u64;
        if len > map::LOW_RAM_SIZE - next {
            let item = &plan.vms[vm].name;
            return Err(item.error(format_args!(
                "VM {:?}: all images together have more than {}; use smaller images, or the same ones for several VMs",
                item.value,
                size::show(map::IMAGES_MAX)
            )));
        }
        ram.write(next, bytes).context("can't write the machine's RAM file")?;
        let blob = Blob { base: next, len };
        placed.insert(bytes.as_ptr(), blob);
        next = (next + len).next_multiple_of(abi::PAGE_SIZE);
        Ok(blob)
    };
    let mut blobs = Vec::new();
    for (i, vm) in images.vms.iter().enumerate() {
        let kernel = place(&vm.kernel, i)?;
        let initrd = match &vm.initrd {
            Some(bytes) if !bytes.is_empty() => place(bytes, i)?,
            _ => Blob::default(),
        };
        blobs.push((kernel, initrd));
    }
    Ok(blobs)
}

/// The configuration of a plan whose VMs' images (kernel, initrd) are in low RAM.
pub fn config(plan: &Plan, blobs: &[(Blob, Blob)], script: &[u8], mode: Mode) -> config::Config {
    let all_cells = (0..plan.cells.len() as u8).collect::<Vec<_>>();
    let vms = plan.vms.iter().zip(blobs).map(|(vm, (kernel, initrd))| config::Vm {
        name: vm.name.value.clone(),
        kernel: *kernel,
        initrd: *initrd,
        cmdline: vm.cmdline.value.clone(),
        vcpus: vm.vcpus.value as u32,
        memory: vm.memory.value,
        cells: vm
            .cells
            .as_ref()
            .map_or(&all_cells, |item| &item.value)
            .iter()
            .fold(0, |mask, cell| mask | 1 << cell),
        placement: vm.placement.value,
        weight: vm.weight.value as u32,
        budget: vm.budget.value,
        clock_scale: vm.clock_scale.value as u32,
        restart: vm.restart.value,
        autostart: vm.autostart.value,
        engine: vm.engine.value,
        cpu: vm.cpu.value,
    });
    config::Config {
        machine: config::Machine {
            nodes: plan.layout.nodes,
            cpus_per_node: plan.layout.cpus_per_node,
            window_per_node: plan.layout.window,
            slice_per_node: plan.layout.slice,
            monitor_per_node: plan.layout.kept,
            icount: mode.icount,
            seed: mode.seed,
            console_rate: plan.console_rate,
            epoch_s: mode.epoch_s,
            stay: mode.stay,
        },
        cells: plan.cells.iter().map(|nodes| config::Cell { nodes: nodes.clone() }).collect(),
        vms: vms.collect(),
        script_len: script.len() as u64,
    }
}
