//! A few instructions of a guest on the real CPU, without a virtual machine around them: what the tests
//! of entry, exit and TLB are made of.

use crate::clock;
use crate::direct::{self, Cpu};
use crate::lock::Guard;
use alloc::boxed::Box;
use core::ptr::NonNull;
use vmm_core::cpu::{CpuModel, Vcpu};
use vmm_core::direct::{Asids, Entry, L2Tlb, NOTHING_COMMON, RealCpu, Trapped, tag};
use vmm_core::endian::Endian;
use vmm_core::mem::Page;

/// EntryLo of a page that may be read, and of one that may be written too.
pub(super) const READ: u64 = 3 << 3 | 1 << 1;
pub(super) const WRITE: u64 = READ | 1 << 2;

/// How long a test lets the guest run, in nanoseconds. None takes that long but the one that waits for
/// it.
const PATIENCE: u64 = 20_000_000;

/// Who has the tests' address spaces: no VCPU.
const RIG: u32 = u32::MAX;

/// A page of memory.
#[repr(C, align(4096))]
struct Memory([u64; 512]);

/// A mode to run in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mode {
    pub(super) name: &'static str,
    pub(super) user: bool,
    /// Where the code is.
    pub(super) code: u64,
    /// Bits of [`Entry::status`].
    pub(super) status: u32,
    /// 64-bit operations are allowed.
    pub(super) wide: bool,
}

/// The modes that guests run in: their addresses and refill vectors differ.
pub(super) const MODES: [Mode; 4] = [
    Mode { name: "user, 32-bit", user: true, code: 0x0040_0000, status: 0, wide: false },
    Mode { name: "user", user: true, code: 0x12_3456_0000, status: Entry::UX, wide: true },
    Mode {
        name: "supervisor, 32-bit",
        user: false,
        code: 0xffff_ffff_c001_0000,
        status: 0,
        wide: true,
    },
    Mode {
        name: "supervisor",
        user: false,
        code: 0x4000_0001_0001_0000,
        status: Entry::SX | Entry::UX,
        wide: true,
    },
];

/// What the tests run on: a VCPU, its L2TLB, one page of code and two of data.
pub(super) struct Rig {
    pub(super) cpu: Guard<'static, Cpu>,
    pub(super) vcpu: Box<Vcpu>,
    pub(super) l2: L2Tlb,
    pub(super) mode: Mode,
    pub(super) asid: u8,
    code: Box<Memory>,
    data: Box<[Memory; 2]>,
}

impl Rig {
    /// In `mode`, in a new address space that has nothing but the page of code.
    pub(super) fn new(mode: Mode) -> Self {
        let mut cpu = direct::this_cpu(0);
        let asid = cpu.spaces().allocate(RIG, &Asids::NONE, 1).unwrap_or_else(|| {
            cpu.forget_all();
            cpu.spaces().renew();
            let asid = cpu.spaces().allocate(RIG, &Asids::NONE, 1);
            asid.expect("a new generation has address spaces")
        });
        let rig = Self {
            cpu,
            vcpu: Box::new(Vcpu::with_code_pages(CpuModel::honeycomb(), Endian::NATIVE, 1)),
            l2: L2Tlb::new(),
            mode,
            asid,
            code: Box::new(Memory([0; 512])),
            data: Box::new([const { Memory([0; 512]) }; 2]),
        };
        let page = rig.page(&rig.code);
        rig.l2.insert(tag(mode.code, asid), [page | READ, 0]);
        rig
    }

    fn page(&self, memory: &Memory) -> u64 {
        // SAFETY: a whole page, aligned, which lives as long as the rig, as does what is known of it: the
        // address space is never used again.
        let page = unsafe { Page::new(NonNull::from(memory).cast()) };
        self.cpu.machine_page(page) >> 12 << 6
    }

    /// EntryLo0 and EntryLo1 of the pages of data, but for the flags.
    pub(super) fn data_pages(&self) -> [u64; 2] {
        [self.page(&self.data[0]), self.page(&self.data[1])]
    }

    /// The first word of a page of data.
    pub(super) fn data(&self, page: usize) -> u64 {
        // SAFETY: a word of the page. The guest may have written it behind the compiler's back.
        unsafe { (&raw const self.data[page].0[0]).read_volatile() }
    }

    pub(super) fn set_data(&mut self, page: usize, value: u64) {
        // SAFETY: as above.
        unsafe { (&raw mut self.data[page].0[0]).write_volatile(value) };
    }

    /// Writes code, for the guest's byte order, which is the machine's.
    pub(super) fn write(&mut self, code: &[u32]) {
        let base = (&raw mut self.code.0).cast::<u32>();
        for (i, &word) in code.iter().enumerate().take(1024) {
            // SAFETY: one of the 1,024 words of the page.
            unsafe { base.add(i).write_volatile(word) };
        }
    }

    /// How the guest is entered.
    pub(super) fn entry(&self) -> Entry {
        Entry {
            user: self.mode.user,
            status: self.mode.status,
            asid: self.asid,
            common: NOTHING_COMMON,
            user_local: None,
            until: clock::now() + PATIENCE,
        }
    }

    /// Goes on where the program counter is.
    pub(super) fn go_on(&mut self, entry: &Entry) -> Trapped {
        self.cpu.enter(&mut self.vcpu, &self.l2, entry, &mut |_, _, _, _| false)
    }

    /// Runs `code` from its beginning.
    pub(super) fn run_as(&mut self, code: &[u32], entry: &Entry) -> Trapped {
        self.write(code);
        self.vcpu.set_pc(self.mode.code);
        self.go_on(entry)
    }

    /// Runs `code` from its beginning.
    pub(super) fn run(&mut self, code: &[u32]) -> Trapped {
        self.run_as(code, &self.entry())
    }

    /// Which instruction of the code the program counter is at.
    pub(super) fn at(&self) -> u64 {
        self.vcpu.pc().wrapping_sub(self.mode.code) / 4
    }
}

/// Cause.ExcCode.
pub(super) const fn code(trapped: &Trapped) -> u32 {
    trapped.cause >> 2 & 31
}
