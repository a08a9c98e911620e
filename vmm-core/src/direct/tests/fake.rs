//! A real CPU made of an interpreter: a second processor, exactly QEMU's, whose memory is the
//! "machine" and whose TLB is filled as the refill handler in assembly does.

use crate::bus::{Bus, BusError};
use crate::cpu::tlb::{Entry as TlbEntry, LO_G};
use crate::cpu::{Access, CpuModel, Status, Vcpu};
use crate::direct::{Entry, Filler, L2Tlb, RealCpu, Spaces, Trapped, common_tag};
use crate::endian::Endian;
use crate::interp::tests::machine::MEMORY;
use crate::interp::{self, Exit};
use crate::mem::{GuestMemory, Page};
use crate::time::Clock;
use abi::{Gpa, PAGE_SIZE};
use core::cell::{Cell, RefCell};

/// What a machine address of guest memory has on top of the guest's.
const SHIFT: u64 = 0x8000_0000;
/// Bytes of the largest pages that are ever mapped.
const CHUNK: usize = 0x1_0000;
/// LLAddr after `eret`.
const NO_LINK: u64 = 1;
/// Real TLB entries that stay.
const WIRED: u32 = 3;

/// No devices: what leads to one has escaped.
struct Nothing;

impl Bus for Nothing {
    fn read(&mut self, gpa: Gpa, _: u8, _: u64) -> Result<u64, BusError> {
        panic!("the guest reads machine address {gpa}");
    }
    fn write(&mut self, gpa: Gpa, _: u8, _: u64, _: u64) -> Result<(), BusError> {
        panic!("the guest writes machine address {gpa}");
    }
    fn interrupts(&mut self, _: u64) -> u8 {
        0
    }
    fn deadline(&self, _: u64) -> Option<u64> {
        None
    }
    fn wants_exit(&self) -> bool {
        false
    }
}

/// Machine memory: the guest's, elsewhere, and pages of the program's own.
struct Elsewhere<'a>(&'a dyn GuestMemory, &'a [usize]);

// SAFETY: as for the memory behind it; own pages stay where they are while the CPU runs.
unsafe impl GuestMemory for Elsewhere<'_> {
    fn resolve(&self, gpa: Gpa, access: Access) -> Option<Page> {
        match gpa.0.checked_sub(SHIFT) {
            Some(at) => self.0.resolve(Gpa(at), access),
            None => {
                let chunk = *self.1.get((gpa.0 as usize / CHUNK).checked_sub(1)?)?;
                let base = core::ptr::with_exposed_provenance_mut(chunk + gpa.0 as usize % CHUNK);
                // SAFETY: a page that `machine_page` was told of, or one behind it in the same mapping.
                core::ptr::NonNull::new(base).map(|base| unsafe { Page::new(base) })
            }
        }
    }
}

/// Instructions completed, by whom it may be.
#[derive(Default)]
pub struct Steps(pub Cell<u64>);

impl Clock for Steps {
    fn now(&self, retired: u64) -> u64 {
        self.0.get() + retired
    }
}

/// The CPU.
pub struct Fake<'a> {
    outer: Vcpu,
    memory: &'a dyn GuestMemory,
    steps: &'a Steps,
    /// Instructions after which the timer comes.
    pub limit: u64,
    spaces: Spaces,
    pub entries: u64,
    pub completed: u64,
    /// Where pages of the program's own lie in the host: chunks of [`CHUNK`] bytes, which lie from there on in the machine.
    own: RefCell<Vec<usize>>,
}

impl<'a> Fake<'a> {
    pub fn new(endian: Endian, memory: &'a dyn GuestMemory, steps: &'a Steps) -> Self {
        let mut outer = Vcpu::with_code_pages(CpuModel::mips64r2_generic(), endian, 8);
        outer.write_cp0(6, 0, WIRED.into(), 0);
        let spaces = Spaces::new();
        let own = RefCell::default();
        Self { outer, memory, steps, limit: 0, spaces, entries: 0, completed: 0, own }
    }

    fn entry(tag: u64, lo: [u64; 2], mask: u32) -> TlbEntry {
        assert!(tag & 0xff != 0, "nothing is mapped for the monitor's address space");
        assert!(lo.iter().all(|lo| lo & LO_G == 0), "no guest's entry is global");
        assert!(tag & 0x1f00 == 0, "EntryHi has an address space");
        let (mask, asid) = (u64::from(mask), tag as u8);
        let vpn = tag & !0x1fff & !mask;
        TlbEntry { vpn, mask, asid, global: false, invalid: false, lo }
    }

    /// As the refill handler does it; whether the L2TLB had an answer.
    fn refill(&mut self, l2: &L2Tlb, common: u16) -> bool {
        let tag = self.outer.cp0.entry_hi;
        let private = l2.lookup(tag).map(|lo| (lo, 0));
        let found = private.or_else(|| l2.lookup_masked(common_tag(tag, common)));
        let Some((lo, mask)) = found else { return false };
        let index = self.outer.next_random() as usize;
        self.outer.set_tlb(index, Self::entry(tag, lo, mask));
        true
    }
}

impl RealCpu for Fake<'_> {
    fn enter(
        &mut self,
        vcpu: &mut Vcpu,
        l2: &L2Tlb,
        entry: &Entry,
        fill: &mut Filler<'_, Self>,
    ) -> Trapped {
        assert!(vcpu.pc & 3 == 0 && !vcpu.in_slot, "a place to return to");
        self.entries += 1;
        let outer = &mut self.outer;
        for number in 1..32 {
            outer.set_gpr(number, vcpu.gpr(number));
        }
        let (hi, lo) = vcpu.hi_lo();
        outer.set_hi_lo(hi, lo);
        outer.set_pc(vcpu.pc);
        let ksu = if entry.user { 2 << 3 } else { 1 << 3 };
        let allowed = Entry::UX | Entry::SX | Entry::PX | Entry::FR | Entry::CU1;
        assert!(entry.status & !allowed == 0);
        // FR changes what the registers are called, not what they hold.
        outer.set_status(Status::from_bits_retain(entry.status | ksu | 1 << 7));
        outer.set_entry_hi(u64::from(entry.asid));
        outer.cp0.ll_addr = NO_LINK;
        outer.link = None;
        // Code that is no guest's may be another now.
        outer.code.clear();
        outer.soft.flush();
        let completed = loop {
            let now = self.steps.0.get() + vcpu.retired();
            if now + super::MARGIN >= self.limit && !self.outer.in_slot {
                break true;
            }
            let own = self.own.borrow().clone();
            let memory = Elsewhere(self.memory, &own);
            let was_in_slot = self.outer.in_slot;
            let exit = interp::run(&mut self.outer, &memory, &mut Nothing, &Zero, 1);
            assert_eq!(exit, Exit::Limit);
            if !self.outer.cp0.status.contains(Status::EXL) {
                self.steps.0.set(self.steps.0.get() + 1);
                self.completed += 1;
                continue;
            }
            if was_in_slot {
                // The branch is executed again.
                self.steps.0.set(self.steps.0.get() - 1);
            }
            let cause = self.outer.cp0.cause.bits();
            let is_refill = self.outer.pc & 0xfff < 0x100 && matches!(cause >> 2 & 31, 2 | 3);
            let va = self.outer.cp0.bad_vaddr;
            let access = if cause >> 2 & 31 == 3 { Access::Write } else { Access::Read };
            if self.outer.cp0.epc & 1 == 0
                && (is_refill && self.refill(l2, entry.common)
                    || matches!(cause >> 2 & 31, 2 | 3) && fill(self, vcpu, va, access))
            {
                let back = self.outer.exception_return();
                self.outer.set_pc(back);
                self.outer.cp0.ll_addr = NO_LINK;
                continue;
            }
            break false;
        };
        let outer = &mut self.outer;
        for number in 1..32 {
            vcpu.set_gpr(number, outer.gpr(number));
        }
        let (hi, lo) = outer.hi_lo();
        vcpu.set_hi_lo(hi, lo);
        let linked = outer.cp0.ll_addr != NO_LINK;
        if completed {
            vcpu.pc = outer.pc;
            return Trapped { cause: 0, linked, bad_vaddr: 0 };
        }
        vcpu.pc = outer.cp0.epc;
        Trapped { cause: outer.cp0.cause.bits(), linked, bad_vaddr: outer.cp0.bad_vaddr }
    }

    fn spaces(&mut self) -> &mut Spaces {
        &mut self.spaces
    }

    fn machine_page(&self, page: Page) -> u64 {
        let start = self.memory.resolve(Gpa(0), Access::Read).expect("memory begins at 0");
        let offset = page.base().as_ptr().addr().wrapping_sub(start.base().as_ptr().addr());
        if (offset as u64) < MEMORY {
            return SHIFT + offset as u64;
        }
        let mut own = self.own.borrow_mut();
        let at = page.base().as_ptr().expose_provenance();
        // (A guest's memory need not lie at a page's address in the host.)
        let chunk = if at.is_multiple_of(PAGE_SIZE as usize) { at & !(CHUNK - 1) } else { at };
        let index = own.iter().position(|known| *known == chunk).unwrap_or_else(|| {
            own.push(chunk);
            own.len() - 1
        });
        ((index + 1) * CHUNK + (at - chunk)) as u64
    }

    fn install(&mut self, entry_hi: u64, lo: [u64; 2], mask: u32) {
        let index = match self.outer.tlb().lookup(entry_hi, entry_hi as u8) {
            Some(index) => index,
            None => self.outer.next_random() as usize,
        };
        self.outer.set_tlb(index, Self::entry(entry_hi, lo, mask));
    }

    fn forget_pair(&mut self, entry_hi: u64) {
        if let Some(index) = self.outer.tlb().lookup(entry_hi, entry_hi as u8) {
            let entry = TlbEntry { invalid: true, ..*self.outer.tlb().entry(index) };
            self.outer.set_tlb(index, entry);
        }
    }

    fn forget_all(&mut self) {
        self.outer.tlb.invalidate(None);
        self.outer.soft.flush();
    }

    fn load_fpu(&mut self, fpr: &[u64; 32], fcsr: u32) {
        self.outer.fpr = *fpr;
        self.outer.set_fcsr(fcsr);
        assert!(!self.outer.fcsr.raises());
    }

    fn save_fpu(&mut self, fpr: &mut [u64; 32]) -> u32 {
        *fpr = self.outer.fpr;
        self.outer.fcsr()
    }
}

/// The outer processor's own time stands still.
struct Zero;

impl Clock for Zero {
    fn now(&self, _: u64) -> u64 {
        0
    }
}

const _: () = assert!(PAGE_SIZE == 4096);
