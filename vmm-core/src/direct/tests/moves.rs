//! VCPUs that move among real CPUs while their guests change translations and their owner memory: no CPU ever
//! uses a translation that is void.

use super::ALL;
use super::random::Random;
use crate::cpu::tlb::{LO_D, LO_PFN_SHIFT, LO_V};
use crate::cpu::{Access, CpuModel, Vcpu};
use crate::direct::{self, Direct, Entry, Exit, Filler, L2Tlb, RealCpu, Spaces, Trapped, tag};
use crate::emulate::system;
use crate::endian::Endian;
use crate::interp::Around;
use crate::interp::tests::machine::Board;
use crate::mem::{GuestMemory, Page};
use crate::state::Restorer;
use crate::time::Clock;
use abi::{Gpa, Mpa, PAGE_SIZE};
use core::cell::{Cell, RefCell};
use core::ptr::NonNull;

const CPUS: usize = 4;
const VCPUS: usize = 5;
/// Guest pages, and the machine pages that they lie in.
const PAGES: usize = 64;
const MACHINE_PAGES: usize = 96;
/// Entries of a real TLB that guests use.
const REAL_ENTRIES: usize = 61;

/// Memory whose pages can be moved.
struct Movable {
    machine: Vec<[u64; PAGE_SIZE as usize / 8]>,
    /// By guest page.
    at: RefCell<Vec<Option<usize>>>,
}

impl Movable {
    fn machine_page(&self, page: usize) -> Page {
        let base = NonNull::from(&self.machine[page]).cast();
        // SAFETY: a whole page, aligned to 8, which lives as long as the memory; nobody accesses its bytes.
        unsafe { Page::new(base) }
    }

    /// The machine address of a guest page.
    fn lookup(&self, gpa: u64) -> Option<u64> {
        let page = (*self.at.borrow().get((gpa / PAGE_SIZE) as usize)?)?;
        Some(page as u64 * PAGE_SIZE)
    }
}

// SAFETY: the machine's pages never move while the memory exists.
unsafe impl GuestMemory for Movable {
    fn resolve(&self, gpa: Gpa, _: Access) -> Option<Page> {
        Some(self.machine_page((self.lookup(gpa.0)? / PAGE_SIZE) as usize))
    }
}

/// One tick an entry.
struct Ticks(Cell<u64>);

impl Clock for Ticks {
    fn now(&self, _: u64) -> u64 {
        self.0.get()
    }
}

/// A CPU that does nothing but access memory.
struct Accessor<'a> {
    memory: &'a Movable,
    ticks: &'a Ticks,
    random: Random,
    spaces: Spaces,
    tlb: [(u64, [u64; 2]); REAL_ENTRIES],
    /// Accesses that were translated, those that the L2TLB answered, and emptied TLBs.
    counts: [u64; 3],
}

impl<'a> Accessor<'a> {
    fn new(memory: &'a Movable, ticks: &'a Ticks, seed: u64) -> Self {
        let (random, spaces) = (Random(seed), Spaces::new());
        Self { memory, ticks, random, spaces, tlb: [(0, [0; 2]); REAL_ENTRIES], counts: [0; 3] }
    }

    fn find(&self, tag: u64) -> Option<usize> {
        self.tlb.iter().position(|entry| entry.0 == tag)
    }

    /// One access of the guest; what it finds must be so.
    fn access(&mut self, vcpu: &mut Vcpu, l2: &L2Tlb, asid: u8, fill: &mut Filler<'_, Self>) {
        let va = address(&mut self.random);
        let access = self.random.pick(&[Access::Read, Access::Write]);
        let key = tag(va, asid);
        if self.find(key).is_none()
            && let Some(lo) = l2.lookup(key)
        {
            self.counts[1] += 1;
            self.install(key, lo);
        }
        let enough = LO_V | if access == Access::Write { LO_D } else { 0 };
        let mut lo = 0;
        for _ in 0..2 {
            lo = self.find(key).map_or(0, |at| self.tlb[at].1[usize::from(va & PAGE_SIZE != 0)]);
            if lo & enough == enough || !fill(self, vcpu, va, access) {
                break;
            }
        }
        let mpa = |access| {
            let physical = vcpu.translate(va, access).ok()?;
            self.memory.lookup(physical & !(PAGE_SIZE - 1))
        };
        if lo & LO_V != 0 {
            let found = Some(lo >> LO_PFN_SHIFT << 12);
            assert_eq!(found, mpa(Access::Read), "{va:#x} is no longer there");
            assert!(lo & LO_D == 0 || found == mpa(Access::Write), "{va:#x} may not be written");
            self.counts[0] += 1;
        }
        if lo & enough != enough {
            assert_eq!(mpa(access), None, "{va:#x} is not found");
        }
    }
}

impl RealCpu for Accessor<'_> {
    fn enter(
        &mut self,
        vcpu: &mut Vcpu,
        l2: &L2Tlb,
        entry: &Entry,
        fill: &mut Filler<'_, Self>,
    ) -> Trapped {
        for _ in 0..self.random.next() % 24 {
            self.access(vcpu, l2, entry.asid, fill);
        }
        self.ticks.0.set(self.ticks.0.get() + 1);
        Trapped::default()
    }

    fn spaces(&mut self) -> &mut Spaces {
        &mut self.spaces
    }

    fn machine_page(&self, page: Page) -> u64 {
        let offset = page.base().as_ptr().addr() - self.memory.machine.as_ptr().addr();
        offset as u64
    }

    fn install(&mut self, entry_hi: u64, lo: [u64; 2]) {
        let at = self.find(entry_hi).unwrap_or(self.random.next() as usize % REAL_ENTRIES);
        self.tlb[at] = (entry_hi, lo);
    }

    fn forget_pair(&mut self, entry_hi: u64) {
        if let Some(at) = self.find(entry_hi) {
            self.tlb[at].0 = 0;
        }
    }

    fn forget_all(&mut self) {
        self.tlb = [(0, [0; 2]); REAL_ENTRIES];
        self.counts[2] += 1;
    }

    fn load_fpu(&mut self, _: &[u64; 32], _: u32) {}

    fn save_fpu(&mut self, _: &mut [u64; 32]) -> u32 {
        0
    }
}

/// One of a few pages that guests use.
fn address(random: &mut Random) -> u64 {
    0x10_0000 + (random.next() % 48) * PAGE_SIZE
}

/// Something that the guest does to its TLB or address space.
fn change(vcpu: &mut Vcpu, random: &mut Random, spaces: u64) {
    let asid = random.next() % spaces;
    vcpu.write_cp0(10, 0, address(random) & !0x1fff | asid, 0);
    // In kernel mode, as the guest's kernel would.
    vcpu.write_cp0(12, 0, 0xe0, 0);
    match random.next() % 64 {
        0 => assert!(system::tlbinv(vcpu, random.next().is_multiple_of(4)).is_ok()),
        1..30 => {
            let mut lo = || {
                let flags = random.pick(&[0u64, 2, 6, 6, 6]);
                (random.next() % (PAGES as u64 + 4)) << LO_PFN_SHIFT | 3 << 3 | flags
            };
            let (even, odd) = (lo(), lo());
            let global = u64::from(random.next().is_multiple_of(8));
            vcpu.write_cp0(2, 0, even | global, 0);
            vcpu.write_cp0(3, 0, odd | global, 0);
            vcpu.write_cp0(5, 0, random.pick(&[0, 0, 0, 3 << 13]), 0);
            vcpu.write_cp0(0, 0, random.next() % u64::from(vcpu.model().tlb_entries), 0);
            assert!(system::tlbwi(vcpu).is_ok());
        }
        _ => {}
    }
    vcpu.write_cp0(12, 0, 0xf0, 0);
}

/// Saves a VCPU and what runs it, and, if `away`, replaces them by what comes of that.
fn carry(vcpu: &mut Vcpu, direct: &mut Direct, memory: &Movable, away: bool) {
    let mut words = Vec::new();
    vcpu.save(&mut words).unwrap();
    direct.save(vcpu, &mut words).unwrap();
    let mut other = Vcpu::with_code_pages(*vcpu.model(), vcpu.endian(), 1);
    let mut words = Restorer(&words);
    other.restore(&mut words).unwrap();
    let find = &mut |gpa: Gpa| memory.lookup(gpa.0).map(Mpa);
    let restored = Direct::restore(&mut words, &other, find).unwrap();
    assert!(words.0.is_empty());
    if away {
        (*vcpu, *direct) = (other, restored);
    }
}

/// So many moves; what the CPUs have counted.
fn moves(seed: u64, count: usize, spaces: u64) -> [u64; 3] {
    let mut random = Random(seed);
    let memory = Movable {
        machine: vec![[0; PAGE_SIZE as usize / 8]; MACHINE_PAGES],
        at: RefCell::new((0..PAGES).map(Some).collect()),
    };
    let ticks = Ticks(Cell::new(0));
    let mut cpus: Vec<_> =
        (0..CPUS).map(|n| Accessor::new(&memory, &ticks, seed ^ n as u64)).collect();
    let model = CpuModel { tlb_entries: 48, ..CpuModel::honeycomb() };
    let mut vcpus: Vec<_> = (0..VCPUS)
        .map(|_| {
            let mut vcpu = Vcpu::with_code_pages(model, Endian::Little, 1);
            // No timer; user mode with 64-bit addresses.
            vcpu.write_cp0(13, 0, 1 << 27, 0);
            vcpu.write_cp0(12, 0, 0xf0, 0);
            vcpu.set_pc(0x1000);
            (vcpu, Direct::new())
        })
        .collect();
    let mut board = Board::default();
    for _ in 0..count {
        // Memory is taken away, given, or moved.
        if random.next().is_multiple_of(16) {
            let page = random.next() as usize % PAGES;
            let to = (!random.next().is_multiple_of(4))
                .then_some(random.next() as usize % MACHINE_PAGES);
            memory.at.borrow_mut()[page] = to;
            let gpa = page as u64 * PAGE_SIZE;
            for (vcpu, _) in &mut vcpus {
                vcpu.forget(&[Gpa(gpa)..Gpa(gpa + PAGE_SIZE)]);
            }
        }
        let (vcpu, direct) = &mut vcpus[random.next() as usize % VCPUS];
        let cpu = &mut cpus[random.next() as usize % CPUS];
        for _ in 0..1 + random.next() % 3 {
            change(vcpu, &mut random, spaces);
            if random.next().is_multiple_of(32) {
                carry(vcpu, direct, &memory, random.next().is_multiple_of(4));
            }
            let around = Around::alone(&memory, &mut board, &ticks);
            let until = ticks.0.get() + 1;
            let exit = direct::run(direct, vcpu, cpu, around, ALL, 1, until);
            assert_eq!(exit, Exit::Time);
        }
    }
    [0, 1, 2].map(|n| cpus.iter().map(|cpu| cpu.counts[n]).sum())
}

#[test]
fn a_hundred_thousand_moves_leave_nothing_stale() {
    let [found, by_l2, emptied] = moves(1, 100_000, 8);
    // It was worth while: a good part was found in an L2TLB that had moved.
    assert!(found > 400_000 && by_l2 > 25_000 && emptied > 1_000, "{found} {by_l2} {emptied}");
}

#[test]
fn many_address_spaces_use_up_generations() {
    let [found, _, emptied] = moves(2, 20_000, 256);
    assert!(found > 50_000 && emptied > 100, "{found} {emptied}");
}
