//! The guests' kernels and initial RAM disks: read once each, checked before anything starts.

use super::plan::Plan;
use super::source::Item;
use super::spec::Kernel;
use crate::endian::Endian;
use anyhow::{Context, Result, anyhow};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What a VM boots.
#[derive(Clone, Debug)]
pub struct VmImages {
    /// Its kernel.
    pub kernel: Rc<[u8]>,
    /// Its initial RAM disk.
    pub initrd: Option<Rc<[u8]>>,
}

/// What all VMs boot, and the byte order of it.
#[derive(Debug)]
pub struct Images {
    /// By VM.
    pub vms: Vec<VmImages>,
    /// The machine's byte order.
    pub endian: Endian,
}

/// Files of a built-in image.
#[derive(Clone, Debug)]
pub struct BuiltIn {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
}

/// Reads and checks the images of all VMs. `built_in` gets a built-in image's files by its name, in
/// a byte order if there is a choice, if need be by fetching or building them first.
///
/// # Errors
/// The first image that can't be read or can't be booted, with its source and a remedy.
pub fn load(plan: &Plan, built_in: impl Fn(&str, Endian) -> Result<BuiltIn>) -> Result<Images> {
    let mut cache: BTreeMap<PathBuf, Rc<[u8]>> = BTreeMap::new();
    let mut endian = plan.endian.clone();
    let mut vms = Vec::new();
    for vm in &plan.vms {
        let name = &vm.name.value;
        let (kernel, mut initrd) = match &vm.kernel.value {
            Kernel::File(path) => (read(&mut cache, &vm.kernel, path, name, "kernel")?, None),
            Kernel::BuiltIn(image) => {
                let order = endian.as_ref().map_or(Endian::default(), |item| item.value);
                let files = built_in(image, order)?;
                let kernel = read(&mut cache, &vm.kernel, &files.kernel, name, "kernel")?;
                let initrd = files
                    .initrd
                    .map(|path| read(&mut cache, &vm.kernel, &path, name, "initrd"))
                    .transpose()?;
                (kernel, initrd)
            }
        };
        if let Some(item) = &vm.initrd {
            initrd = Some(read(&mut cache, item, &item.value, name, "initrd")?);
        }
        let found = byte_order(&kernel).map_err(|what| {
            vm.kernel.error(format_args!("VM {name:?}: kernel {}: {what}", vm.kernel.value.show()))
        })?;
        match &endian {
            Some(wanted) if wanted.value != found => {
                return Err(vm.kernel.error(format_args!(
                    "VM {name:?}: kernel {} is {found}-endian, the machine {}-endian ({}); one machine has one byte order",
                    vm.kernel.value.show(),
                    wanted.value,
                    wanted.source,
                )));
            }
            Some(_) => {}
            None => endian = Some(Item { value: found, source: vm.kernel.source.clone() }),
        }
        vms.push(VmImages { kernel, initrd });
    }
    Ok(Images { vms, endian: endian.map_or(Endian::default(), |item| item.value) })
}

/// Most bytes of one image: a larger file is a mistake, not to be read into memory.
const IMAGE_MAX: u64 = abi::map::IMAGES_MAX;

fn read<T>(
    cache: &mut BTreeMap<PathBuf, Rc<[u8]>>,
    item: &Item<T>,
    path: &Path,
    vm: &str,
    key: &str,
) -> Result<Rc<[u8]>> {
    if let Some(bytes) = cache.get(path) {
        return Ok(bytes.clone());
    }
    let what = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "no such file; check the path".to_string(),
        std::io::ErrorKind::IsADirectory => "is a folder; give a file".to_string(),
        _ => format!("can't be read: {error}"),
    };
    let bytes = read_file(path).map_err(|error| {
        anyhow!("{}: VM {vm:?}: {key} {}: {}", item.source, path.display(), what(error))
    })?;
    let bytes = bytes.with_context(|| {
        format!(
            "{}: VM {vm:?}: {key} {}: is larger than the {} MB that all images together can have",
            item.source,
            path.display(),
            IMAGE_MAX >> 20
        )
    })?;
    let bytes: Rc<[u8]> = bytes.into();
    cache.insert(path.to_path_buf(), bytes.clone());
    Ok(bytes)
}

/// The file's bytes; `None` when there are too many.
fn read_file(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(IMAGE_MAX + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= IMAGE_MAX).then_some(bytes))
}

/// The byte order that an ELF file declares.
fn byte_order(kernel: &[u8]) -> Result<Endian, &'static str> {
    match kernel {
        [0x7f, b'E', b'L', b'F', _, 1, ..] => Ok(Endian::Little),
        [0x7f, b'E', b'L', b'F', _, 2, ..] => Ok(Endian::Big),
        [0x7f, b'E', b'L', b'F', ..] => Err("its ELF header names no byte order; is it damaged?"),
        _ => Err("is no ELF file; give a vmlinux or vmlinuz for MIPS64"),
    }
}
