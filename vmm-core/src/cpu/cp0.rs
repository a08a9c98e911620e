//! Coprocessor 0's registers: what reads return and which bits writes change.

use super::Vcpu;
use super::status::{Cause, Status};
use crate::endian::Endian;
use crate::state::{StateError, Visit, check};

/// What a register that does not exist reads as (UNPREDICTABLE in the manual; as QEMU has it).
const ABSENT: u64 = !0;
/// EBase.WG: the write reaches the bits above 29 too.
const EBASE_WG: u64 = 1 << 11;
/// The bits of EBase that are the vectors' base, without WG.
const EBASE_MASK: u64 = 0x3fff_f000;
/// HWREna: CPUNum, SYNCI_Step, CC, CCRes.
const HWRENA_MASK: u32 = 0xf;
/// HWREna: UserLocal.
const HWRENA_ULR: u32 = 1 << 29;
/// EntryHi.ASID.
pub(super) const ASID_MASK: u64 = 0xff;
/// EntryHi.EHINV.
pub(super) const EHINV: u64 = 1 << 10;
/// Config.BE.
const CONFIG_BE: u32 = 1 << 15;
/// Debug at reset: Count counts in debug mode, version 1.
const DEBUG_RESET: u32 = 1 << 25 | 1 << 15;

/// The registers' contents. What is not here is constant, or in the TLB.
#[derive(Clone, Debug)]
pub struct Cp0 {
    /// Index.
    pub index: u32,
    /// EntryLo0, EntryLo1.
    pub entry_lo: [u64; 2],
    /// Context.
    pub context: u64,
    /// UserLocal.
    pub user_local: u64,
    /// PageMask.
    pub page_mask: u32,
    /// Wired.
    pub wired: u32,
    /// HWREna.
    pub hwrena: u32,
    /// BadVAddr.
    pub bad_vaddr: u64,
    /// Count: while it runs, its difference from the ticks of virtual time.
    pub(super) count: u32,
    /// Compare.
    pub compare: u32,
    /// When they will be equal, in virtual nanoseconds.
    pub(super) timer_at: u64,
    /// EntryHi.
    pub entry_hi: u64,
    /// Status.
    pub status: Status,
    /// Cause.
    pub cause: Cause,
    /// IntCtl.
    pub int_ctl: u32,
    /// SRSCtl, SRSMap.
    srs: [u32; 2],
    /// EPC.
    pub epc: u64,
    /// EBase.
    pub ebase: u64,
    /// Config to Config5.
    pub config: [u32; 6],
    /// LLAddr.
    pub ll_addr: u64,
    watch_lo: [u64; 8],
    watch_hi: [u32; 8],
    /// XContext.
    pub xcontext: u64,
    frame_mask: u32,
    debug: u32,
    depc: u64,
    desave: u32,
    performance: u32,
    err_ctl: u32,
    tag_lo: u32,
    data_lo: u32,
    tag_hi: u32,
    data_hi: u32,
    /// ErrorEPC.
    pub error_epc: u64,
    /// State of the generator behind Random, and its last value.
    random: [u32; 2],
}

impl Cp0 {
    pub(super) fn new(model: &super::CpuModel, endian: Endian) -> Self {
        let mut config = model.config;
        if endian == Endian::Big {
            config[0] |= CONFIG_BE;
        }
        let mut watch_hi = [0; 8];
        if model.has_watch() {
            watch_hi[..7].fill(1 << 31);
        }
        Self {
            index: 0,
            entry_lo: [0; 2],
            context: 0,
            user_local: 0,
            page_mask: 0,
            wired: 0,
            hwrena: 0,
            bad_vaddr: 0,
            count: 1,
            compare: 0,
            timer_at: crate::time::ns_of_ticks(u32::MAX as u64),
            entry_hi: 0,
            status: Status::BEV | Status::ERL,
            cause: Cause::empty(),
            int_ctl: 7 << 29,
            srs: [0; 2],
            epc: 0,
            ebase: 0xffff_ffff_8000_0000,
            config,
            ll_addr: 0,
            watch_lo: [0; 8],
            watch_hi,
            xcontext: 0,
            frame_mask: 0,
            debug: DEBUG_RESET,
            depc: 0,
            desave: 0,
            performance: 0,
            err_ctl: 0,
            tag_lo: 0,
            data_lo: 0,
            tag_hi: 0,
            data_hi: 0,
            error_epc: 0,
            random: [1, 0],
        }
    }
}

impl Cp0 {
    /// SRSCtl and SRSMap.
    pub(crate) const fn shadow_sets(&self) -> u64 {
        (self.srs[0] as u64) << 32 | self.srs[1] as u64
    }

    /// What the next values of Random depend on.
    pub(crate) const fn random(&self) -> [u32; 2] {
        self.random
    }

    /// Shows the registers to `v`, one after the other.
    pub(super) fn visit(&mut self, v: &mut impl Visit) -> Result<(), StateError> {
        let (mut status, mut cause) = (self.status.bits(), self.cause.bits());
        for field in [
            &mut status,
            &mut cause,
            &mut self.index,
            &mut self.page_mask,
            &mut self.wired,
            &mut self.hwrena,
            &mut self.count,
            &mut self.compare,
            &mut self.int_ctl,
            &mut self.config[0],
            &mut self.frame_mask,
            &mut self.debug,
            &mut self.desave,
            &mut self.performance,
            &mut self.err_ctl,
            &mut self.tag_lo,
            &mut self.data_lo,
            &mut self.tag_hi,
            &mut self.data_hi,
        ] {
            v.u32(field)?;
        }
        self.status = Status::from_bits_retain(status);
        self.cause = Cause::from_bits_retain(cause);
        for field in self.srs.iter_mut().chain(&mut self.random).chain(&mut self.watch_hi) {
            v.u32(field)?;
        }
        v.all(&mut self.entry_lo)?;
        v.all(&mut self.watch_lo)?;
        for field in [
            &mut self.context,
            &mut self.user_local,
            &mut self.bad_vaddr,
            &mut self.timer_at,
            &mut self.entry_hi,
            &mut self.epc,
            &mut self.ebase,
            &mut self.ll_addr,
            &mut self.xcontext,
            &mut self.depc,
            &mut self.error_epc,
        ] {
            v.u64(field)?;
        }
        Ok(())
    }

    /// Whether the registers can have come to be what they are, of what they were at reset, by what a guest does:
    /// as far as anything relies on it.
    pub(super) fn check(&self, reset: &Self, model: &super::CpuModel) -> Result<(), StateError> {
        let lo = model.entry_lo_mask();
        let entry_hi = (!0x1fff | ASID_MASK | EHINV) & model.segment_mask();
        for (holds, what) in [
            (self.status.bits() & !model.status_mask == 0, "Status"),
            (self.index & 0x7fff_ffff < model.tlb_entries, "Index"),
            (self.page_mask == page_mask(self.page_mask.into()), "PageMask"),
            (self.wired < model.tlb_entries, "Wired"),
            (self.hwrena & !(HWRENA_MASK | HWRENA_ULR) == 0, "HWREna"),
            (self.int_ctl & !0x3e0 == reset.int_ctl, "IntCtl"),
            ((self.config[0] ^ reset.config[0]) & !7 == 0, "Config"),
            (self.entry_lo.iter().all(|value| value & !lo == 0), "EntryLo"),
            (self.entry_hi & !entry_hi == 0, "EntryHi"),
            ((self.ebase ^ reset.ebase) & 0x7ff == 0, "EBase"),
        ] {
            check(holds, what)?;
        }
        Ok(())
    }
}

/// The value of Random behind a state of its generator, which moves on.
const fn following_random(state: &mut [u32; 2], size: u32, wired: u32) -> u32 {
    let choices = size - wired;
    if choices == 1 {
        return size - 1;
    }
    let [seed, last] = state;
    loop {
        // The generator that the C standard shows, as in QEMU: the same sequence from reset.
        *seed = seed.wrapping_mul(1_103_515_245).wrapping_add(12345);
        let index = (*seed >> 16) % choices + wired;
        if index != *last {
            *last = index;
            return index;
        }
    }
}

const fn sign_extend(value: u32) -> u64 {
    value as i32 as u64
}

/// PageMask: pairs of ones from bit 13 up, else the smallest page.
pub(super) fn page_mask(value: u64) -> u32 {
    let field = (value >> 13) as u32 & 0xffff;
    let ones = field.trailing_ones();
    if field >> ones == 0 && ones.is_multiple_of(2) { field << 13 } else { 0 }
}

impl Vcpu {
    /// The address space identifier.
    #[must_use]
    #[inline]
    pub fn asid(&self) -> u8 {
        self.cp0.entry_hi as u8
    }

    /// The next value of Random: from Wired to the last entry, never twice the same while there is
    /// a choice.
    pub(crate) fn next_random(&mut self) -> u32 {
        let (size, wired) = (self.model.tlb_entries, self.cp0.wired);
        following_random(&mut self.cp0.random, size, wired)
    }

    /// The next entries that `tlbwr` replaces, with the generator's state before each and behind the last: as far as it makes no
    /// difference for the present address space when they go.
    pub(crate) fn victims<const N: usize>(
        &self,
        found: &mut [u16; N],
        states: &mut [[u32; 2]],
    ) -> usize {
        let (size, wired) = (self.model.tlb_entries, self.cp0.wired);
        let mut state = self.cp0.random;
        for count in 0..N {
            states[count] = state;
            let index = following_random(&mut state, size, wired) as usize;
            let entry = self.tlb.entry(index);
            let here = entry.global || entry.asid == self.asid();
            if here && !entry.invalid && self.tlb.is_copied(index) {
                return count;
            }
            found[count] = index as u16;
            states[count + 1] = state;
        }
        N
    }

    /// Reads register `reg`, `sel` at virtual time `now` as `dmfc0` does. (`mfc0` takes the low half
    /// and sign-extends it.) Cause is as of the last [`Vcpu::update_interrupts`].
    pub fn read_cp0(&mut self, reg: u32, sel: u32, now: u64) -> u64 {
        if (reg, sel) == (1, 0) {
            return u64::from(self.next_random());
        }
        let cp0 = &self.cp0;
        let model = &self.model;
        match (reg, sel) {
            (0, 0) => sign_extend(cp0.index),
            (2, 0) => cp0.entry_lo[0],
            (3, 0) => cp0.entry_lo[1],
            (4, 0) => cp0.context,
            (4, 2) if model.has_userlocal() => cp0.user_local,
            (5, 0) => sign_extend(cp0.page_mask),
            // PageGrain, SRSConf0 to SRSConf4: nothing implemented.
            (5, 1) | (6, 1..=5) => 0,
            (6, 0) => sign_extend(cp0.wired),
            (7, 0) => sign_extend(cp0.hwrena),
            (8, 0) => cp0.bad_vaddr,
            (9, 0) => sign_extend(self.count(now)),
            (10, 0) => cp0.entry_hi,
            (11, 0) => sign_extend(cp0.compare),
            (12, 0) => sign_extend(cp0.status.bits()),
            (12, 1) => sign_extend(cp0.int_ctl),
            (12, 2) => sign_extend(cp0.srs[0]),
            (12, 3) => sign_extend(cp0.srs[1]),
            (13, 0) => sign_extend(cp0.cause.bits()),
            (14, 0) => cp0.epc,
            (15, 0) => sign_extend(model.prid),
            (15, 1) => cp0.ebase,
            (16, 0..=5) => sign_extend(cp0.config[sel as usize]),
            (16, 6 | 7) => 0,
            (17, 0) => cp0.ll_addr,
            (18, _) if model.has_watch() => cp0.watch_lo[sel as usize & 7],
            (19, _) if model.has_watch() => sign_extend(cp0.watch_hi[sel as usize & 7]),
            (20, 0) => cp0.xcontext,
            (21, 0) => sign_extend(cp0.frame_mask),
            // The diagnostic register and CacheErr.
            (22, _) | (27, 0) => 0,
            (23, 0) if model.has_ejtag() => sign_extend(cp0.debug),
            (24, 0) if model.has_ejtag() => cp0.depc,
            (25, 0) if model.has_performance() => sign_extend(cp0.performance),
            (26, 0) => sign_extend(cp0.err_ctl),
            (28, 0 | 2 | 4 | 6) => sign_extend(cp0.tag_lo),
            (28, _) => sign_extend(cp0.data_lo),
            (29, 0 | 2 | 4 | 6) => sign_extend(cp0.tag_hi),
            (29, _) => sign_extend(cp0.data_hi),
            (30, 0) => cp0.error_epc,
            (31, 0) if model.has_ejtag() => sign_extend(cp0.desave),
            _ => ABSENT,
        }
    }

    /// Writes register `reg`, `sel` at virtual time `now`, as `mtc0` and `dmtc0` both do: a 64-bit
    /// register takes the whole value. Read-only bits and absent registers ignore it.
    pub fn write_cp0(&mut self, reg: u32, sel: u32, value: u64, now: u64) {
        let low = value as u32;
        let model = &self.model;
        let cp0 = &mut self.cp0;
        match (reg, sel) {
            // The probe-failure bit is not writable in Release 2.
            (0, 0) if low & 0x7fff_ffff < model.tlb_entries => {
                cp0.index = cp0.index & 1 << 31 | low & 0x7fff_ffff;
            }
            (2, 0) => self.set_entry_lo(0, value),
            (3, 0) => self.set_entry_lo(1, value),
            (4, 0) => cp0.context = cp0.context & 0x7f_ffff | value & !0x7f_ffff,
            (4, 2) if model.has_userlocal() => cp0.user_local = value,
            (5, 0) => cp0.page_mask = page_mask(value),
            (6, 0) => cp0.wired = (value % u64::from(model.tlb_entries)) as u32,
            (7, 0) => {
                let user_local = if model.has_userlocal() { HWRENA_ULR } else { 0 };
                cp0.hwrena = low & (HWRENA_MASK | user_local);
            }
            (9, 0) => self.write_count(low, now),
            (10, 0) => {
                self.set_entry_hi(cp0_merge(self.cp0.entry_hi, value, model.entry_hi_mask()));
            }
            (11, 0) => self.write_compare(low, now),
            (12, 0) => {
                let mask = model.status_mask;
                self.set_status(Status::from_bits_retain(
                    self.cp0.status.bits() & !mask | low & mask,
                ));
            }
            (12, 1) => cp0.int_ctl = cp0.int_ctl & !0x3e0 | low & 0x3e0,
            (12, 2) => cp0.srs[0] = low & model.srs_mask[0],
            (12, 3) => cp0.srs[1] = low & model.srs_mask[1],
            (13, 0) => {
                let old = cp0.cause;
                let new = Cause::from_bits_retain(low) & Cause::WRITABLE;
                cp0.cause = (old - Cause::WRITABLE) | new;
                self.count_disable_changed(old, now);
            }
            (14, 0) => cp0.epc = value,
            (15, 1) => {
                let mut mask = EBASE_MASK | EBASE_WG;
                if value & EBASE_WG != 0 {
                    mask |= !0x3fff_ffff;
                }
                cp0.ebase = cp0_merge(cp0.ebase, value, mask);
            }
            (16, 0) => cp0.config[0] = cp0.config[0] & !7 | low & 7,
            (18, _) if model.has_watch() => cp0.watch_lo[sel as usize & 7] = value & !7,
            (19, _) if model.has_watch() => {
                let hi = &mut cp0.watch_hi[sel as usize & 7];
                *hi = *hi & 1 << 31 | low & (0x4000_0ff8 | 0xff << 16);
            }
            (20, 0) => {
                let mask = !0 << (model.segbits - 7);
                cp0.xcontext = cp0_merge(cp0.xcontext, value, mask);
            }
            (21, 0) => cp0.frame_mask = low,
            (23, 0) if model.has_ejtag() => {
                cp0.debug = cp0.debug & 0x8c03_fc1f | low & 0x1330_0120;
            }
            (24, 0) if model.has_ejtag() => cp0.depc = value,
            (25, 0) if model.has_performance() => cp0.performance = low & 0x7ff,
            (26, 0) => cp0.err_ctl = low & 3 << 28,
            (28, 0 | 2 | 4 | 6) => cp0.tag_lo = low & 0xffff_fcf6,
            (28, _) => cp0.data_lo = low,
            (29, 0 | 2 | 4 | 6) => cp0.tag_hi = low,
            (29, _) => cp0.data_hi = low,
            (30, 0) => cp0.error_epc = value,
            (31, 0) if model.has_ejtag() => cp0.desave = low,
            _ => {}
        }
    }

    /// Index becomes what emitted code has left: one that a write or a probe may have made it.
    #[inline]
    pub(crate) const fn set_index(&mut self, value: u64) {
        if value as u32 & 0x7fff_ffff < self.model.tlb_entries {
            self.cp0.index = value as u32;
        }
    }

    /// Writes EntryLo0 or EntryLo1.
    #[inline]
    pub(crate) const fn set_entry_lo(&mut self, odd: usize, value: u64) {
        self.cp0.entry_lo[odd] = value & self.model.entry_lo_mask();
    }

    /// Replaces Status and what depends on it.
    pub(crate) fn set_status(&mut self, status: Status) {
        // 64-bit segments opened or closed: cached translations no longer tell what is allowed.
        let segments = Status::KX | Status::SX | Status::UX;
        let changed = self.cp0.status.symmetric_difference(status).intersects(segments);
        self.cp0.status = status;
        if changed {
            self.soft.flush();
        }
        self.mode_changed();
    }

    /// Replaces EntryHi and what depends on it.
    pub(crate) fn set_entry_hi(&mut self, value: u64) {
        let asid_changed = (self.cp0.entry_hi ^ value) & ASID_MASK != 0;
        self.cp0.entry_hi = value;
        if asid_changed {
            self.context_changed();
        }
    }
}

const fn cp0_merge(old: u64, new: u64, mask: u64) -> u64 {
    old & !mask | new & mask
}
