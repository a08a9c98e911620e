//! Whether the monitor's heap has room for a VM, and for translating its kernel mode.
//!
//! An engine's own allocations would end the monitor if they failed: a VM is started only where there is room
//! for all it may take. Translated code is different: who finds no room for it is interpreted. So VMs of
//! `engine = "auto"` have room for it only of what is left when all VMs that the cell may have at the same time
//! ([`Config::most_in`]) have as much as they must have.

use crate::host::low_ram;
use crate::{heap, machine};
use abi::config::{self, Config};
use abi::layout::Layout;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use cell::CreateError;
use vmm_core::endian::Endian;
use vmm_core::image;
use vmm_core::vm::heap::{Admission, CODE_WORDS, Candidate, Lack, PIECE, Pool};

/// Heap that the monitor itself may come to use after its first VM was made, in bytes.
const MARGIN: u64 = 1 << 20;

/// What the cell's VMs may have of its heap.
pub(crate) struct Admissions {
    /// Bytes that all VMs that the cell may have at the same time must have …
    kept: u64,
    /// … and make use of, by the words of code that they may have.
    wanted: [u64; CODE_WORDS.len()],
    /// What they can have for translation; nobody has asked yet.
    pool: Option<Pool>,
}

impl Admissions {
    /// Of this cell, in a machine that `config` describes.
    pub(crate) fn new(config: &Config) -> Self {
        // With what the pmap takes for each page.
        let least = |vm: &config::Vm| candidate(vm, vm.vcpus).least() as u64 + (vm.memory >> 8);
        let cell = machine::cell();
        let wanted = CODE_WORDS.map(|words| {
            let most =
                |vm: &config::Vm| candidate(vm, vm.vcpus).most(words) as u64 + (vm.memory >> 8);
            config.most_in(cell, &most, &least)
        });
        Self { kept: config.most_in(cell, &least, &least), wanted, pool: None }
    }

    fn pool(&mut self) -> &Pool {
        let (kept, wanted) = (self.kept, self.wanted);
        self.pool.get_or_insert_with(|| {
            let (used, all) = heap::usage();
            Pool::new(((all - used) as u64).saturating_sub(MARGIN), kept, wanted)
        })
    }

    fn admit(&mut self, candidate: Candidate) -> Result<Admission, CreateError> {
        candidate.admit(self.pool(), has_left).map_err(|lack| {
            CreateError::NoMemory(format!(
                "the monitor's own heap has not {} KB left: stop another VM, or {}",
                lack.needed >> 10,
                remedy(lack)
            ))
        })
    }

    /// How a VM is run that starts here.
    ///
    /// # Errors
    /// There is no room for it.
    pub(crate) fn at_home(&mut self, vm: &config::Vm) -> Result<Admission, CreateError> {
        self.admit(candidate(vm, vm.vcpus))
    }

    /// How a VM is run that has its home elsewhere.
    ///
    /// # Errors
    /// There is no room for it.
    pub(crate) fn visiting(&mut self, vm: &config::Vm) -> Result<Admission, CreateError> {
        let mut candidate = candidate(vm, 1);
        // Several VCPUs in several cells are interpreted.
        candidate.translatable &= vm.vcpus == 1;
        self.admit(candidate)
    }
}

/// Whether the heap has so many bytes left, in pieces that are large enough.
fn has_left(bytes: usize) -> bool {
    let mut pieces = Vec::new();
    let mut lengths = (0..bytes).step_by(PIECE).map(|at| PIECE.min(bytes - at));
    pieces.try_reserve_exact(lengths.len()).is_ok()
        && lengths.all(|length| {
            let mut piece = Vec::<u8>::new();
            let found = piece.try_reserve_exact(length).is_ok();
            // All are held until the last is found.
            pieces.push(piece);
            found
        })
}

/// A VM of which so many VCPUs are to be run.
fn candidate(vm: &config::Vm, vcpus: u32) -> Candidate {
    let kernel = low_ram(vm.kernel.base, vm.kernel.len);
    let linked = image::is_supervisor_linked(kernel, Endian::NATIVE, vm.memory);
    Candidate {
        engine: vm.engine,
        // (Where the VM's segments are as large as the machine's there is no room for what that takes.)
        translatable: !linked || vm.cpu == config::Cpu::Honeycomb,
        linked,
        memory: vm.memory,
        vcpus,
    }
}

/// What is to be said of a VM that could be faster.
pub(crate) fn remark(lack: Lack) -> String {
    format!(
        "is interpreted in kernel mode, which is slow: translating it takes {} KB of the monitor's heap, which has \
         {} KB left for that; stop another VM before this one is started, or {}",
        lack.needed >> 10,
        lack.left.unwrap_or(0) >> 10,
        remedy(lack)
    )
}

/// What helps for good.
fn remedy(lack: Lack) -> String {
    let (layout, cell) = (machine::layout(), machine::cell());
    let nodes = layout.nodes_of(cell).count() as u64;
    // (Else it is in pieces that are too small.)
    let missing = lack.needed.saturating_sub(lack.left.unwrap_or(0)).max(1) as u64;
    let kept = (layout.kept + missing.div_ceil(nodes)).next_multiple_of(1 << 20);
    let reserve = Layout { kept, ..*layout }.reserve(cell);
    if reserve.end - reserve.start < nodes * kept {
        let kind = if layout.window == 0 { "slice_per_node" } else { "window_per_node" };
        return format!("raise {kind}");
    }
    format!("set monitor_memory_per_node = \"{}M\"", kept >> 20)
}
