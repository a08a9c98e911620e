//! The real CPU as direct execution needs it: [`RealCpu`] over CP0, the TLB, the FPU and the timer.

use crate::asm;
use crate::careful::xkphys;
use crate::clock;
use crate::cp0::{Cause, ExcCode, Status};
use crate::lock::{Guard, Lock};
use crate::page::{cell_page, cpu, is_reserved, set_common, set_l2, set_space, take_reserved};
use crate::stack::WIRED;
use abi::Mpa;
use abi::ids::MAX_CPUS;
use abi::prom::{L2_NOTHING_COMMON, L2_SETS, L2_SIZE, L2Way};
use core::mem::offset_of;
use core::sync::atomic::Ordering;
use static_assertions::{const_assert, const_assert_eq};
use vmm_core::cpu::{Access, Vcpu};
use vmm_core::direct::{self, Entry, Filler, L2Tlb, RealCpu, Spaces, Trapped};
use vmm_core::mem::Page;

// The refill handler's idea of an L2TLB is the engine's.
const_assert_eq!(direct::L2TLB_SIZE, L2_SIZE);
const_assert_eq!(size_of::<direct::Set>() * L2_SETS, L2_SIZE);
const_assert_eq!(size_of::<direct::Pair>(), size_of::<L2Way>());
const_assert_eq!(offset_of!(direct::Pair, tag), offset_of!(L2Way, tag));
const_assert_eq!(offset_of!(direct::Pair, lo), offset_of!(L2Way, lo));
const_assert_eq!(offset_of!(direct::Pair, mask), offset_of!(L2Way, mask));
const_assert_eq!(direct::NOTHING_COMMON as u64, L2_NOTHING_COMMON);
// The mode is never the guest's own choice.
const_assert!(ALLOWED & (Status::KSU.bits() | Status::EXL.bits() | Status::IE.bits()) == 0);

/// What of a guest's Status may reach the real one.
const ALLOWED: u64 = (Entry::UX | Entry::SX | Entry::PX | Entry::CU1 | Entry::FR) as u64;
/// Status.KSU of the modes that guests run in.
const SUPERVISOR: u64 = 1 << 3;
const USER: u64 = 2 << 3;

/// What direct execution knows of one CPU.
pub(crate) struct Cpu {
    spaces: Spaces,
    /// When the owner's clock began, in nanoseconds since power-on.
    epoch: u64,
}

static CPUS: [Lock<Cpu>; MAX_CPUS] =
    [const { Lock::new("the CPU", Cpu { spaces: Spaces::new(), epoch: 0 }) }; MAX_CPUS];

/// The CPU that this runs on, for as long as a guest runs whose owner's clock began at `epoch`
/// (nanoseconds since power-on).
pub(crate) fn this_cpu(epoch: u64) -> Guard<'static, Cpu> {
    let mut cpu = CPUS[cpu() as usize].lock();
    cpu.epoch = epoch;
    cpu
}

/// How often this CPU has answered `rdhwr $29` by itself.
pub(crate) fn thread_reads() -> u64 {
    cell_page().thread_reads.load(Ordering::Relaxed)
}

/// What trap entry needs to have a TLB miss answered.
pub(crate) struct Miss<'a> {
    cpu: *mut Cpu,
    vcpu: *mut Vcpu,
    fill: *mut Filler<'a, Cpu>,
}

/// Answers a TLB miss of the guest that runs, if that is all there is to it. Called by trap entry with
/// the guest's registers only partly saved and interrupts off.
pub(crate) extern "C" fn fill(miss: &Miss<'_>, va: u64, cause: u64) -> u64 {
    // SAFETY: `enter` has made the pointers from exclusive references that it does not use while the
    // guest runs, and a CPU is in this function once at most.
    let (cpu, vcpu, fill) = unsafe { (&mut *miss.cpu, &mut *miss.vcpu, &mut *miss.fill) };
    // There is no way back to an odd address; and of `sdbbp` Cause says nothing.
    if vcpu.pc() & 1 != 0 || is_reserved() {
        return 0;
    }
    let code = Cause::from_bits_retain(cause).code();
    let access = if code == ExcCode::TLBS { Access::Write } else { Access::Read };
    u64::from(fill(cpu, vcpu, va, access))
}

impl RealCpu for Cpu {
    fn enter(
        &mut self,
        vcpu: &mut Vcpu,
        l2: &L2Tlb,
        entry: &Entry,
        fill: &mut Filler<'_, Self>,
    ) -> Trapped {
        if vcpu.pc() & 3 != 0 {
            // As the CPU would say it, had it been possible to go there.
            let cause = Cause::empty().with_code(ExcCode::ADEL).bits() as u32;
            return Trapped { cause, linked: false, bad_vaddr: vcpu.pc() };
        }
        assert!(entry.asid != 0, "address space 0 is the monitor's");
        let mode = if entry.user { USER } else { SUPERVISOR };
        let status = u64::from(entry.status) & ALLOWED
            | (Status::KX | Status::IM7 | Status::EXL | Status::IE).bits()
            | mode;
        let page = cell_page();
        page.thread_allowed.store(u64::from(entry.user_local.is_some()), Ordering::Relaxed);
        page.thread_data.store(entry.user_local.unwrap_or(0), Ordering::Relaxed);
        asm::interrupts_off();
        clock::arm_once(entry.until.saturating_add(self.epoch));
        asm::select_space(entry.asid);
        set_space(entry.asid);
        // SAFETY: the L2TLB is there until the call below has returned, and then no longer looked at.
        // It is the VCPU's that runs, and the number that of what its address spaces have in common. Status opens
        // nothing to the guest but floating point, what its pages map, and 64-bit addresses; its program counter is a
        // multiple of 4.
        // Nobody but `fill` uses what `miss` points to while the guest runs.
        let left = unsafe {
            set_common(entry.common);
            set_l2(l2.base() as u64);
            let vcpu = &raw mut *vcpu;
            let miss = Miss { cpu: self, vcpu, fill: &raw mut *fill };
            page.filler.store(&raw const miss as u64, Ordering::Relaxed);
            let left = asm::enter_guest(vcpu, status);
            set_l2(page.no_l2.load(Ordering::Relaxed));
            left
        };
        let mut cause = Cause::from_bits_retain(left.cause);
        if take_reserved(vcpu.pc()) {
            cause = cause.with_code(ExcCode::RI) - Cause::BD;
        }
        if cause.code() == ExcCode::INT {
            // Often enough that what QEMU keeps of replaced entries is of some use.
            asm::forget_any();
        }
        let linked = left.ll_addr & 1 == 0;
        Trapped { cause: cause.bits() as u32, linked, bad_vaddr: left.bad_vaddr }
    }

    fn spaces(&mut self) -> &mut Spaces {
        &mut self.spaces
    }

    fn machine_page(&self, page: Page) -> u64 {
        let address = page.base().as_ptr() as u64;
        let mpa = address - xkphys(Mpa(0));
        assert!(xkphys(Mpa(mpa)) == address, "a page of a guest lies in the machine's memory");
        mpa
    }

    fn install(&mut self, entry_hi: u64, lo: [u64; 2], mask: u32) {
        // SAFETY: what the engine knows of the VCPU's own memory, in the VCPU's address space.
        unsafe { asm::install(entry_hi, lo, mask) };
    }

    fn forget_pair(&mut self, entry_hi: u64) {
        asm::forget_pair(entry_hi);
    }

    fn forget_all(&mut self) {
        asm::forget_all(WIRED);
    }

    fn load_fpu(&mut self, fpr: &[u64; 32], fcsr: u32) {
        asm::load_fpu(fpr, fcsr);
    }

    fn save_fpu(&mut self, fpr: &mut [u64; 32]) -> u32 {
        asm::save_fpu(fpr)
    }
}
