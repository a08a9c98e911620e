//! VCPUs that move among real CPUs while their guests change translations and their owner memory: no CPU ever
//! uses a translation that is void.

use super::ALL;
use super::random::Random;
use crate::cpu::tlb::{LO_D, LO_PFN_SHIFT, LO_V};
use crate::cpu::{Access, CpuModel, Vcpu};
use crate::direct::{
    self, Direct, Entry, Exit, Filler, L2Tlb, Policy, RealCpu, Spaces, Trapped, common_tag, tag,
};
use crate::emulate::system;
use crate::endian::Endian;
use crate::interp::Around;
use crate::interp::tests::machine::Board;
use crate::mem::{GuestMemory, Page};
use crate::state::Restorer;
use crate::time::Clock;
use crate::translate::{Class, guest_address};
use abi::{Gpa, Mpa, PAGE_SIZE};
use core::cell::{Cell, RefCell};
use core::ptr::NonNull;

const CPUS: usize = 4;
const VCPUS: usize = 5;
/// Guest pages, and the machine pages that they lie in.
const PAGES: usize = 64;
const MACHINE_PAGES: usize = 96;
/// Guest pages whose code may be executed: they stay where they are.
const CODE: usize = 8;
/// `beq $0, $0, -1` and `nop`.
const LOOP: u64 = 0x1000_ffff;
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

/// What runs: user mode directly, or translated kernel mode.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    User,
    Kernel,
}

impl Mode {
    const fn policy(self) -> Policy {
        match self {
            Self::User => ALL,
            Self::Kernel => Policy { kernel: false, translated: true, ..ALL },
        }
    }

    /// 64-bit addresses, and in kernel mode not always.
    fn status(self, random: &mut Random) -> u64 {
        match self {
            Self::User => 0xf0,
            Self::Kernel if random.next().is_multiple_of(64) => 0x60,
            Self::Kernel => 0xe0,
        }
    }

    /// A real address of something that a guest may have.
    fn real(self, random: &mut Random) -> u64 {
        let page = (random.next() % PAGES as u64) * PAGE_SIZE;
        let alias = |class: Class, va| va ^ class.constant();
        if self == Self::User {
            return address(random);
        }
        match random.next() % 8 {
            0 => address(random),
            1 => alias(Class::Cached, 0x9800_0000_0000_0000 + page),
            2 => alias(Class::Compat, UNMAPPED + page),
            3 => STATIC + page,
            4 => alias(Class::Compat, MAPPED[0] + address(random)),
            5 => alias(Class::Xkseg, MAPPED[1] + address(random)),
            6 => OWN[random.next() as usize % 2] + random.next() % 0x4_0000,
            _ => OWN[1] + random.next() % 0x10_0000,
        }
    }

    /// A guest address that the guest's TLB may map.
    fn mapped(self, random: &mut Random) -> u64 {
        match self {
            Self::User => address(random),
            Self::Kernel => random.pick(&[0, MAPPED[0], MAPPED[1]]) + address(random),
        }
    }
}

/// Where unmapped and mapped kernel segments begin, and the alias of the former.
const UNMAPPED: u64 = 0xffff_ffff_8000_0000;
const MAPPED: [u64; 2] = [0xffff_ffff_c000_0000, 0xc000_0000_0000_0000];
const STATIC: u64 = 0xffff_ffff_d000_0000;
/// The VCPU's own jump table, and its code.
const OWN: [u64; 2] = [0xffff_ffff_c010_0000, 0xffff_ffff_c020_0000];

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
    mode: Mode,
    /// The guest page whose code is executed.
    page: u64,
    /// Tag, EntryLo0 and EntryLo1, PageMask.
    tlb: [(u64, [u64; 2], u64); REAL_ENTRIES],
    /// Accesses that were translated, those that the L2TLB answered, emptied TLBs, what was found in common, own pages.
    counts: [u64; 5],
}

impl<'a> Accessor<'a> {
    fn new(memory: &'a Movable, ticks: &'a Ticks, seed: u64, mode: Mode) -> Self {
        let (random, spaces) = (Random(seed), Spaces::new());
        let tlb = [(0, [0; 2], 0); REAL_ENTRIES];
        Self { memory, ticks, random, spaces, mode, page: 0, tlb, counts: [0; 5] }
    }

    fn find(&self, tag: u64) -> Option<usize> {
        let mut all = self.tlb.iter().enumerate();
        let mut matching = all.by_ref().filter(|(_, entry)| (entry.0 ^ tag) & !entry.2 == 0);
        let found = matching.next();
        assert!(matching.next().is_none(), "{tag:#x} is there twice");
        found.map(|(at, _)| at)
    }

    /// One access of the guest; what it finds must be so.
    fn access(&mut self, vcpu: &mut Vcpu, l2: &L2Tlb, entry: &Entry, fill: &mut Filler<'_, Self>) {
        let real = self.mode.real(&mut self.random);
        let access = self.random.pick(&[Access::Read, Access::Write]);
        let key = tag(real, entry.asid);
        if self.find(key).is_none() {
            if let Some(lo) = l2.lookup(key) {
                self.counts[1] += 1;
                self.install(key, lo, 0);
            } else if let Some((lo, mask)) = l2.lookup_masked(common_tag(real, entry.common)) {
                self.counts[3] += 1;
                self.install(key, lo, mask);
            }
        }
        let enough = LO_V | if access == Access::Write { LO_D } else { 0 };
        let mut lo = 0;
        for _ in 0..2 {
            lo = self.find(key).map_or(0, |at| {
                let (_, lo, mask) = self.tlb[at];
                lo[usize::from(real & ((mask >> 1 & !0xfff) + PAGE_SIZE) != 0)]
            });
            if lo & enough == enough || !fill(self, vcpu, real, access) {
                break;
            }
        }
        let Some(va) = guest_address(real) else {
            // (A store to code is refused before anything is looked up.)
            let code = real >= OWN[1];
            let there = lo & LO_V != 0 && (lo & LO_D == 0) == code;
            assert!(there || code && access == Access::Write && lo == 0, "{real:#x} is its own");
            self.counts[4] += 1;
            return;
        };
        let mpa = |access| {
            let physical = vcpu.translate(va, access).ok()?;
            self.memory.lookup(physical & !(PAGE_SIZE - 1))
        };
        if lo & LO_V != 0 {
            let found = Some(lo >> LO_PFN_SHIFT << 12);
            assert_eq!(found, mpa(Access::Read), "{va:#x} is no longer there");
            let executed = found == self.memory.lookup(self.page) && self.mode == Mode::Kernel;
            let writable = found == mpa(Access::Write) && !executed;
            assert!(lo & LO_D == 0 || writable, "{va:#x} may not be written");
            self.counts[0] += 1;
        }
        // A store to memory with translated code, wherever it is seen, is the interpreter's.
        let code =
            |page| mpa(Access::Read).is_some() && mpa(Access::Read) == self.memory.lookup(page);
        let watched = self.mode == Mode::Kernel
            && access == Access::Write
            && (0..CODE as u64).any(|page| code(page * PAGE_SIZE));
        if lo & enough != enough && !watched {
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
            self.access(vcpu, l2, entry, fill);
        }
        self.ticks.0.set(self.ticks.0.get() + 1);
        Trapped::default()
    }

    fn spaces(&mut self) -> &mut Spaces {
        &mut self.spaces
    }

    fn machine_page(&self, page: Page) -> u64 {
        let at = page.base().as_ptr().addr();
        let offset = at.wrapping_sub(self.memory.machine.as_ptr().addr());
        // Its own pages lie elsewhere.
        if offset < MACHINE_PAGES * PAGE_SIZE as usize { offset as u64 } else { at as u64 }
    }

    fn install(&mut self, entry_hi: u64, lo: [u64; 2], mask: u32) {
        assert!(
            entry_hi & 0x1f00 == 0 && entry_hi & 0xff != 0,
            "{entry_hi:#x} has an address space"
        );
        let at = self.find(entry_hi).unwrap_or(self.random.next() as usize % REAL_ENTRIES);
        self.tlb[at] = (entry_hi, lo, mask.into());
    }

    fn forget_pair(&mut self, entry_hi: u64) {
        if let Some(at) = self.find(entry_hi) {
            self.tlb[at] = (0, [0; 2], 0);
        }
    }

    fn forget_all(&mut self) {
        self.tlb = [(0, [0; 2], 0); REAL_ENTRIES];
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
fn change(vcpu: &mut Vcpu, random: &mut Random, spaces: u64, mode: Mode) {
    let asid = random.next() % spaces;
    // In kernel mode, as the guest's kernel would.
    vcpu.write_cp0(12, 0, 0xe0, 0);
    vcpu.write_cp0(10, 0, mode.mapped(random) & !0x1fff | asid, 0);
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
    vcpu.write_cp0(12, 0, mode.status(random), 0);
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
    let restored = Direct::restore(&mut words, &mut other, find).unwrap();
    assert!(words.0.is_empty());
    if away {
        (*vcpu, *direct) = (other, restored);
    }
}

/// So many moves; what the CPUs have counted.
fn moves(seed: u64, count: usize, spaces: u64, mode: Mode) -> [u64; 5] {
    let mut random = Random(seed);
    let memory = Movable {
        // Each page is one that translated code goes round in for ever.
        machine: vec![[LOOP; PAGE_SIZE as usize / 8]; MACHINE_PAGES],
        at: RefCell::new((0..PAGES).map(Some).collect()),
    };
    let ticks = Ticks(Cell::new(0));
    let mut cpus: Vec<_> =
        (0..CPUS).map(|n| Accessor::new(&memory, &ticks, seed ^ n as u64, mode)).collect();
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
            let page = CODE + random.next() as usize % (PAGES - CODE);
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
            change(vcpu, &mut random, spaces, mode);
            if random.next().is_multiple_of(32) {
                carry(vcpu, direct, &memory, random.next().is_multiple_of(4));
            }
            let until = ticks.0.get() + 1;
            if mode == Mode::Kernel {
                // Mostly not, so that it gets hot.
                let page = if random.next().is_multiple_of(16) { random.next() } else { 0 };
                cpu.page = page % CODE as u64 * PAGE_SIZE;
                vcpu.set_pc(UNMAPPED + cpu.page);
            }
            let exit = loop {
                let around = Around::alone(&memory, &mut board, &ticks);
                match direct::run(direct, vcpu, cpu, around, mode.policy(), 1, until) {
                    Exit::Interpret => {}
                    exit => break exit,
                }
            };
            assert_eq!(exit, Exit::Time);
        }
    }
    [0, 1, 2, 3, 4].map(|n| cpus.iter().map(|cpu| cpu.counts[n]).sum())
}

#[test]
fn a_hundred_thousand_moves_leave_nothing_stale() {
    let [found, by_l2, emptied, ..] = moves(1, 100_000, 8, Mode::User);
    // It was worth while: a good part was found in an L2TLB that had moved.
    assert!(found > 400_000 && by_l2 > 25_000 && emptied > 1_000, "{found} {by_l2} {emptied}");
}

#[test]
fn many_address_spaces_use_up_generations() {
    let [found, _, emptied, ..] = moves(2, 20_000, 256, Mode::User);
    assert!(found > 50_000 && emptied > 100, "{found} {emptied}");
}

#[test]
fn what_translated_code_has_in_common_is_never_stale() {
    let [found, by_l2, emptied, common, own] = moves(3, 20_000, 8, Mode::Kernel);
    assert!(found > 100_000 && own > 20_000, "{found} {own}");
    assert!(by_l2 > 100 && common > 10_000 && emptied > 1_000, "{by_l2} {common} {emptied}");
}

#[test]
fn what_is_common_outlives_address_spaces_and_generations() {
    let [found, _, emptied, common, _] = moves(4, 5_000, 256, Mode::Kernel);
    assert!(found > 10_000 && common > 5_000 && emptied > 50, "{found} {common} {emptied}");
}
