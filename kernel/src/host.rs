//! The machine as the cell sees it: [`cell::Machine`] over the real one.

use crate::admission::Admissions;
use crate::careful::{self, xkphys};
use crate::guest::{LocalGuest, Surroundings};
use crate::player::Rings;
use crate::talk::Wires;
use crate::{
    asm, cells, clock, controller, doorbell, frames, hub, link, lost, machine, page, places,
    selftest, sight,
};
use abi::config::{self, Config};
use abi::hub::Why;
use abi::script::{self, Step};
use abi::{CellId, CpuId, Mpa, VmId, map};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use cell::fault::Part;
use cell::pmap::{Pmap, Replica};
use cell::rng::Rng;
use cell::talk::{Epoch, Frozen, LiveSet, Sight, Unreachable};
use cell::{CreateError, Created, Machine, Note, Stage};
use vmm_core::image::Images;

/// Markers for counting (docs/counting.md): how far a recovery has come.
const SUSPECTED: u16 = 0x2011;
const WAITING: u16 = 0x2016;
const UNWOUND: u16 = 0x2014;
const SCANNED: u16 = 0x2015;

/// Bytes of low RAM that the host wrote before the machine started.
pub(crate) fn low_ram(base: u64, len: u64) -> &'static [u8] {
    let fits = base.checked_add(len).is_some_and(|end| end <= map::LOW_RAM_SIZE);
    assert!(fits, "a range of low RAM");
    // SAFETY: inside low RAM, and nobody writes there while the machine runs.
    unsafe {
        core::slice::from_raw_parts(xkphys(Mpa(map::RAM_BASE + base)) as *const u8, len as usize)
    }
}

/// The machine, for the CPUs of the cell.
pub(crate) struct Host {
    console_rate: u64,
    epoch_s: u64,
    rng: Rng,
    script_len: u64,
    rings: Rings,
    wires: Wires,
    admissions: Admissions,
}

impl Host {
    /// The machine as `config` describes it.
    pub(crate) fn new(config: &Config) -> Self {
        let machine = &config.machine;
        Self {
            console_rate: machine.console_rate,
            epoch_s: machine.epoch_s,
            // Not the scheduler's own numbers.
            rng: Rng::new(machine.seed ^ 0x6775_6573_7473),
            script_len: config.script_len,
            rings: Rings::new(machine::cell()),
            wires: Wires::new(),
            admissions: Admissions::new(config),
        }
    }

    fn surroundings(&self, seed: [u8; 32]) -> Surroundings {
        let epoch_s = self.epoch_s + clock::now() / 1_000_000_000;
        Surroundings { console_rate: self.console_rate, epoch_s, seed }
    }
}

impl Machine for Host {
    type Guest = LocalGuest;
    type Wires = Wires;

    fn now(&self) -> u64 {
        clock::now()
    }

    fn heap(&self) -> (usize, usize) {
        crate::heap::usage()
    }

    fn create(
        &mut self,
        _: VmId,
        vm: &config::Vm,
        pmap: &Arc<Pmap>,
    ) -> Result<Created<Self::Guest>, CreateError> {
        let admission = self.admissions.at_home(vm)?;
        let images = Images {
            kernel: low_ram(vm.kernel.base, vm.kernel.len),
            initrd: (vm.initrd.len != 0).then(|| low_ram(vm.initrd.base, vm.initrd.len)),
            cmdline: &vm.cmdline,
        };
        let mut seed = [0; 32];
        for word in seed.chunks_exact_mut(8) {
            word.copy_from_slice(&self.rng.bits().to_le_bytes());
        }
        let around = self.surroundings(seed);
        LocalGuest::new(vm, &around, admission, pmap, &images).map_err(CreateError::BadImage)
    }

    fn visit(
        &mut self,
        vm: &config::Vm,
        replica: &Arc<Replica>,
        start_ns: u64,
        shared: &[u64],
    ) -> Result<Self::Guest, CreateError> {
        let admission = self.admissions.visiting(vm)?;
        let around = self.surroundings([0; 32]);
        LocalGuest::visited(vm, &around, admission, replica, start_ns, shared)
            .map_err(CreateError::BadImage)
    }

    fn parcel(&mut self, words: &[u64]) -> Frozen {
        // The heap is reached through XKPHYS.
        let at = Mpa(words.as_ptr() as u64 - xkphys(Mpa(0)));
        Frozen { at, length: size_of_val(words) as u64 }
    }

    fn fetch(&self, from: CellId, frozen: Frozen) -> Result<Vec<u64>, Unreachable> {
        let layout = machine::layout();
        let (start, length) = (frozen.at.0, frozen.length);
        let whole = start.is_multiple_of(8) && length.is_multiple_of(8 * careful::PIECE as u64);
        let end = start.checked_add(length).ok_or(Unreachable)?;
        // An address from elsewhere is looked at before it is used.
        let inside = |node| {
            let ranges = [layout.window_of(node), layout.slice_of(node)];
            ranges.iter().any(|range| range.start <= start && end <= range.end)
        };
        let node = layout.nodes_of(from).find(|node| inside(*node)).filter(|_| whole);
        hub::reach(node.ok_or(Unreachable)?).map_err(|_| Unreachable)?;
        let mut words = Vec::new();
        let count = (length / 8) as usize;
        words.try_reserve_exact(count).map_err(|_| Unreachable)?;
        words.resize(count, 0);
        careful::copy(&mut words, frozen.at).map_err(|_| Unreachable)?;
        Ok(words)
    }

    fn wires(&mut self) -> &mut Wires {
        &mut self.wires
    }

    fn sight(&self) -> Sight {
        sight::look()
    }

    fn agreed(&mut self, live: &LiveSet) {
        cells::agreed(live);
    }

    fn settled(&mut self, epoch: Epoch) {
        cells::settled(epoch);
    }

    fn is_settled(&self) -> bool {
        cells::are_settled()
    }

    fn mark(&self, stage: Stage) {
        match stage {
            Stage::Suspected => asm::marker::<SUSPECTED>(),
            Stage::Waiting => asm::marker::<WAITING>(),
            Stage::Unwound => asm::marker::<UNWOUND>(),
            Stage::Scanned => asm::marker::<SCANNED>(),
        }
    }

    fn park(&mut self) {
        log::error!("this cell parks");
        page::give_up(Why::Told)
    }

    fn switch(&mut self, part: Part, on: bool) {
        controller::switch(part, on);
    }

    fn has_failed(&self, part: Part) -> bool {
        controller::failed_parts().any(|failed| failed == part)
    }

    fn ticks(&self, cpu: CpuId) -> u64 {
        page::ticks_of(cpu)
    }

    fn repair(&mut self, cell: CellId) -> Result<String, String> {
        controller::repair(cell)
    }

    fn is_fenced(&self, cell: CellId) -> bool {
        cells::is_fenced(cell)
    }

    fn lost_lines(&self) -> Vec<Mpa> {
        lost::lines().collect()
    }

    fn discard(&mut self, line: Mpa) {
        lost::discard(line);
    }

    fn kick(&mut self, cpu: CpuId) {
        doorbell::ring(cpu);
    }

    fn copy_page(&mut self, from: Mpa, to: Mpa) -> bool {
        // SAFETY: both are frames of one VM's page, and the cell sees to it that nobody uses them meanwhile.
        unsafe { frames::copy(from, to) }
    }

    fn spoil_page(&mut self, mpa: Mpa) {
        // SAFETY: a frame of a VM that the cell has told nobody to use any more.
        unsafe { frames::spoil(mpa) }
    }

    fn self_check(&self) -> String {
        selftest::compare_image()
    }

    fn cells(&self, places: bool) -> String {
        places::cells(places)
    }

    fn nodes(&self) -> String {
        places::nodes()
    }

    fn debug(&mut self, fault: &str) -> Result<String, String> {
        selftest::fail(fault)
    }

    fn leads(&self) -> bool {
        cells::leads()
    }

    fn ending(&mut self) {
        cells::ending();
    }

    fn idle(&mut self, idle: bool) -> bool {
        cells::idle(idle)
    }

    fn write(&mut self, stream: u16, t_ns: u64, bytes: &[u8]) {
        link::write(stream, t_ns, bytes);
    }

    fn report(&mut self, stream: u16, t_ns: u64, bytes: &[u8]) -> bool {
        self.rings.report(stream, t_ns, bytes)
    }

    fn take_order(&mut self) -> Option<(u16, Vec<u8>)> {
        self.rings.take_order()
    }

    fn order(&mut self, cell: CellId, stream: u16, t_ns: u64, bytes: &[u8]) -> bool {
        self.rings.order(cell, stream, t_ns, bytes)
    }

    fn take_report(&mut self, cell: CellId) -> Option<(u16, u64, Vec<u8>)> {
        self.rings.take_report(cell)
    }

    fn lead(&mut self) {
        self.rings.lead();
    }

    fn script(&self) -> Vec<Step> {
        script::decode(low_ram(map::SCRIPT_BASE, self.script_len))
            .unwrap_or_else(|error| panic!("bad script: expected {error}"))
    }

    fn note(&mut self, cell: CellId, note: Note, bytes: &[u8]) -> bool {
        self.rings.note(cell, note, bytes)
    }

    fn noted(&self, cell: CellId, note: Note) -> Vec<u8> {
        Rings::noted(cell, note)
    }
}
