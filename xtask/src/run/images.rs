//! The guests' kernels and initial RAM disks: read once each, checked before anything starts.

use super::plan::Plan;
use super::source::Item;
use super::spec::{Kernel, Vm};
use crate::endian::Endian;
use anyhow::{Context, Result, anyhow};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use vmm_core::image::{self, ImageError};

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
        // What is no ELF file at all is reported by the check below.
        let found = match image::elf::endian(&kernel) {
            Some(vmm_core::endian::Endian::Little) => Some(Endian::Little),
            Some(vmm_core::endian::Endian::Big) => Some(Endian::Big),
            None => None,
        };
        match (&endian, found) {
            (Some(wanted), Some(found)) if wanted.value != found => {
                return Err(vm.kernel.error(format_args!(
                    "VM {name:?}: kernel {} is {found}-endian, the machine {}-endian ({}); one machine has one byte order",
                    vm.kernel.value.show(),
                    wanted.value,
                    wanted.source,
                )));
            }
            (None, Some(value)) => endian = Some(Item { value, source: vm.kernel.source.clone() }),
            _ => {}
        }
        let order = endian.as_ref().map_or(Endian::default(), |item| item.value);
        check(vm, &kernel, initrd.as_deref(), order)?;
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

/// Refuses what the monitor would refuse when the VM starts.
fn check(vm: &Vm, kernel: &[u8], initrd: Option<&[u8]>, endian: Endian) -> Result<()> {
    let images = image::Images { kernel, initrd, cmdline: &vm.cmdline.value };
    let endian = match endian {
        Endian::Little => vmm_core::endian::Endian::Little,
        Endian::Big => vmm_core::endian::Endian::Big,
    };
    let Err(error) = image::Plan::new(&images, endian, vm.memory.value, &[0; 32]) else {
        return Ok(());
    };
    let name = &vm.name.value;
    let kernel = || {
        let what = format!("VM {name:?}: kernel {}: {error}", vm.kernel.value.show());
        vm.kernel.error(what)
    };
    Err(match (error, &vm.initrd) {
        (ImageError::EmptyInitrd | ImageError::InitrdTooBig { .. }, Some(item)) => {
            item.error(format_args!("VM {name:?}: initrd {}: {error}", item.value.display()))
        }
        (ImageError::CommandLineTooLong { .. } | ImageError::CommandLineNul, _) => {
            vm.cmdline.error(format_args!("VM {name:?}: {error}"))
        }
        (ImageError::MemorySize { .. }, _) => vm.memory.error(format_args!("VM {name:?}: {error}")),
        _ => kernel(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::plan::Flags;
    use super::super::spec::Spec;
    use super::*;
    use std::fs;

    const BASE: u64 = 0xffff_ffff_8010_0000;

    /// An ELF64 executable for MIPS64 R2 with one segment of `len` bytes at `vaddr`.
    fn elf(big: bool, vaddr: u64, len: usize) -> Vec<u8> {
        let mut file = vec![0x7f, b'E', b'L', b'F', 2, if big { 2 } else { 1 }, 1];
        file.resize(16, 0);
        let mut put = |size: usize, value: u64| {
            let bytes = if big { value.to_be_bytes() } else { value.to_le_bytes() };
            file.extend(if big { &bytes[8 - size..] } else { &bytes[..size] });
        };
        let offset = 64 + 56;
        // ELF header after e_ident, then one program header (System V ABI, figures 4-3 and 5-1).
        for (size, value) in
            [(2, 2), (2, 8), (4, 1), (8, vaddr), (8, 64), (8, 0), (4, 0x8000_0000), (2, 64)]
        {
            put(size, value);
        }
        for (size, value) in [(2, 56), (2, 1), (2, 0), (2, 0), (2, 0), (4, 1), (4, 7)] {
            put(size, value);
        }
        for value in [offset, vaddr, vaddr, len as u64, len as u64, 16] {
            put(8, value);
        }
        file.resize(offset as usize + len, 0);
        file
    }

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn put(&self, name: &str, bytes: &[u8]) {
            fs::write(self.0.path().join(name), bytes).unwrap();
        }

        /// Loads the images of a configuration in this folder; errors without the folder's name.
        fn load(&self, text: &str) -> Result<Images, String> {
            let file = self.0.path().join("m.toml");
            let plan = Plan::new(Some(Spec::parse(&file, text).unwrap()), &Flags::default());
            let built_in = |name: &str, _| panic!("no VM has the built-in image {name}");
            load(&plan.unwrap(), built_in).map_err(|error| {
                format!("{error:#}").replace(&format!("{}/", self.0.path().display()), "")
            })
        }
    }

    const VM: &str = "[[vm]]\nname = \"a\"\nkernel = \"k\"\n";

    #[test]
    fn the_images_decide_the_byte_order() {
        let folder = Folder::new();
        for (big, endian) in [(false, Endian::Little), (true, Endian::Big)] {
            folder.put("k", &elf(big, BASE, 64));
            assert_eq!(folder.load(VM).unwrap().endian, endian);
        }
        assert_eq!(folder.load("").unwrap().endian, Endian::Little);
    }

    #[test]
    fn one_file_of_many_vms_is_read_once() {
        let folder = Folder::new();
        folder.put("k", &elf(false, BASE, 64));
        let images = folder.load(&format!("{VM}{}", VM.replace("\"a\"", "\"b\""))).unwrap();
        assert!(Rc::ptr_eq(&images.vms[0].kernel, &images.vms[1].kernel));
    }

    #[test]
    fn every_bad_image_is_one_line_with_culprit_and_remedy() {
        let folder = Folder::new();
        let good = elf(false, BASE, 64);
        folder.put("good", &good);
        folder.put("big", &elf(true, BASE, 64));
        folder.put("empty", &[]);
        folder.put("huge", &vec![0; 64 << 20]);
        let outside = elf(false, BASE + (64 << 20), 64);
        let user = elf(false, 0x1_0000, 64);
        let mut elf32 = good.clone();
        elf32[4] = 1;
        let initrd = |name: &str| format!("{VM}initrd = \"{name}\"\n");
        for (kernel, text, expected) in [
            (&b"#!/bin/sh"[..], VM.into(), "m.toml:3: VM \"a\": kernel k: not an ELF file: give"),
            (&good[..100], VM.into(), "m.toml:3: VM \"a\": kernel k: truncated: "),
            (&elf32[..], VM.into(), "m.toml:3: VM \"a\": kernel k: a 32-bit ELF file: give"),
            (&outside[..], VM.into(), "m.toml:3: VM \"a\": kernel k: "),
            (&user[..], VM.into(), "m.toml:3: VM \"a\": kernel k: "),
            (
                &good[..],
                VM.replace("\"k\"", "\"nope\""),
                "m.toml:3: VM \"a\": kernel nope: no such file; check the path",
            ),
            (&good[..], VM.replace("\"k\"", "\".\""), "kernel .: is a folder; give a file"),
            (
                &good[..],
                initrd("nope"),
                "m.toml:4: VM \"a\": initrd nope: no such file; check the path",
            ),
            (&good[..], initrd("empty"), "m.toml:4: VM \"a\": initrd empty: "),
            (&good[..], initrd("huge"), "m.toml:4: VM \"a\": initrd huge: "),
            (
                &good[..],
                format!("{VM}cmdline = \"{}\"\n", "x".repeat(9999)),
                "m.toml:4: VM \"a\": ",
            ),
            (
                &good[..],
                format!("[machine]\nendian = \"big\"\n{VM}"),
                "m.toml:5: VM \"a\": kernel k is little-endian, the machine big-endian (m.toml:2);",
            ),
            (
                &good[..],
                format!("{VM}{}", VM.replace("\"a\"", "\"b\"").replace("\"k\"", "\"big\"")),
                "m.toml:6: VM \"b\": kernel big is big-endian, the machine little-endian (m.toml:3);",
            ),
        ] {
            folder.put("k", kernel);
            let error = folder.load(&text).unwrap_err();
            assert!(error.contains(expected), "expected {expected:?}, got {error:?}");
            assert!(!error.contains('\n'), "{error:?} is more than one line");
        }
    }

    #[test]
    fn a_kernel_truncated_anywhere_is_refused() {
        let folder = Folder::new();
        let good = elf(false, BASE, 64);
        for len in 0..good.len() {
            folder.put("k", &good[..len]);
            let error = folder.load(VM).unwrap_err();
            assert!(error.starts_with("m.toml:3: VM \"a\": kernel k: "), "{len}: {error:?}");
        }
        folder.put("k", &good);
        folder.load(VM).unwrap();
    }
}
