//! Units that change what only the kernel may: CP0, the TLB, modes; and those that can't be executed.

use super::asm::{cp0, reg::ZERO};
use super::case::Unit;
use super::state::{self, CODE_REGISTER, Profile, status};
use super::stream::{D, Generator, S, T};
use super::{layout, table, values};

impl Generator {
    /// One of them.
    pub(super) fn system(&mut self, at: usize) -> Unit {
        match self.rng.below(20) {
            0..4 => self.read_cp0(),
            4..9 => self.write_cp0(),
            9 => self.write_status(),
            10 => self.return_from_exception(at),
            11..14 => self.tlb(),
            14 => self.of(|k| matches!(k, table::Kind::System)),
            15 => self.of(|k| matches!(k, table::Kind::ReadHardware)),
            16 => self.wild_jump(),
            17 => Unit::plain([self.reserved()]),
            18 => {
                let enable = self.rng.below32(2) << 5;
                let word = 0x4160_6000 | enable | self.destination() << T;
                Unit::plain([word])
            }
            _ => self.of(|k| matches!(k, table::Kind::Control)),
        }
    }

    fn read_cp0(&mut self) -> Unit {
        let rt = self.destination();
        let r = loop {
            let r = self.rng.pick(&layout::CP0_RESULT);
            let r = if r == cp0::SRS_CTL && self.rng.chance(50) { cp0::ERROR_EPC } else { r };
            if r != cp0::TAG_LO {
                break r;
            }
        };
        let double = self.rng.chance(50);
        Unit::assemble(|a| if double { a.dmfc0(rt, r) } else { a.mfc0(rt, r) })
    }

    /// A CP0 register written with a value that `docs/differential.md` allows.
    fn write_cp0(&mut self) -> Unit {
        let rt = self.temporary();
        let rng = &mut self.rng;
        let r = rng.pick(&[
            cp0::INDEX,
            cp0::ENTRY_LO0,
            cp0::ENTRY_LO1,
            cp0::CONTEXT,
            cp0::XCONTEXT,
            cp0::PAGE_MASK,
            cp0::PAGE_GRAIN,
            cp0::WIRED,
            cp0::HWRENA,
            cp0::BAD_VADDR,
            cp0::ENTRY_HI,
            cp0::CAUSE,
            cp0::EPC,
            cp0::ERROR_EPC,
            cp0::EBASE,
            cp0::CONFIG,
            cp0::PRID,
        ]);
        let value = match r {
            cp0::INDEX | cp0::WIRED => rng.below(64),
            cp0::PAGE_MASK => rng.pick(&state::PAGE_MASKS),
            cp0::PAGE_GRAIN => rng.pick(&[0, 1 << 29]),
            // Reserved bits of HWREna read as zero; those of registers that do not exist too.
            cp0::HWRENA => rng.bits() & 0xf,
            cp0::CAUSE => u64::from(state::CAUSE_DC) | rng.bits() & 0x0080_0300,
            cp0::EBASE => state::exception_base(rng, &self.frame),
            // K0: cached or uncached.
            cp0::CONFIG => rng.pick(&[2, 3]),
            cp0::ENTRY_HI if rng.chance(80) => values::gpr(rng) & !0x1f00,
            // Bits that a mode with 1 KB pages or read-inhibit would have.
            cp0::ENTRY_HI => rng.bits() & !0x1f00,
            cp0::ENTRY_LO0 | cp0::ENTRY_LO1 => rng.bits() & ((1 << 30) - 1),
            _ => values::gpr(rng),
        };
        let double = rng.chance(50);
        let short = value as i32 as i64 as u64 == value;
        Unit::assemble(|a| {
            if short {
                a.li32(rt, value as i32);
            } else {
                a.li64(rt, value);
            }
            // A word written to a 64-bit register would leave its upper half to the implementation.
            if double || !short { a.dmtc0(rt, r) } else { a.mtc0(rt, r) }
        })
    }

    fn write_status(&mut self) -> Unit {
        let rt = self.temporary();
        let mode = if self.rng.chance(70) { self.frame.mode } else { self.rng.below32(3) };
        let mut value = state::status(&mut self.rng, &self.frame, mode);
        if self.rng.chance(15) {
            value |= status::EXL;
        }
        // Never both: `eret` would leave EXL set and EPC at a place that was not meant for it.
        if value & status::EXL == 0 && self.rng.chance(8) {
            value |= status::ERL;
        }
        Unit::assemble(|a| {
            // An exception would leave EPC alone: at an address outside the stream it ends the case.
            if value & status::EXL != 0 {
                a.dmtc0(ZERO, cp0::EPC);
            }
            a.li32(rt, value as i32);
            a.mtc0(rt, cp0::STATUS);
            a.ehb();
        })
    }

    /// `eret` to a later unit.
    fn return_from_exception(&mut self, at: usize) -> Unit {
        let target = at + 1 + self.rng.below((self.count - at).min(6) as u64) as usize;
        let t = self.temporary();
        let mut unit = Unit::default();
        unit.words.push(self.target(t, target));
        unit.append(Unit::assemble(|a| {
            a.dmtc0(t, cp0::EPC);
            a.dmtc0(t, cp0::ERROR_EPC);
            a.ehb();
            a.eret();
        }));
        unit
    }

    /// TLB operations, on entries at their homes.
    fn tlb(&mut self) -> Unit {
        let t = self.temporary();
        let choice = self.rng.below(10);
        // `tlbwr` with all but one entry wired, so that Random is known. Entry 0 may be the code's.
        let index =
            if choice == 0 { 63 } else { 1 + self.rng.below(if choice < 6 { 16 } else { 63 }) };
        // Without its vectors a case would never end.
        let index = index - u64::from(self.frame.mapped_base && index == state::VECTOR_ENTRY);
        let asid = self.rng.below(256);
        let (entry, _) = state::entry(&mut self.rng, &self.frame, index, asid);
        Unit::assemble(|a| {
            let mut put = |value: u64, r| {
                if value as i32 as i64 as u64 == value {
                    a.li32(t, value as i32);
                } else {
                    a.li64(t, value);
                }
                a.dmtc0(t, r);
            };
            match choice {
                6 | 7 => {
                    put(entry[0], cp0::ENTRY_HI);
                    a.ehb();
                    a.word(0x4200_0008);
                }
                8 | 9 => {
                    put(index, cp0::INDEX);
                    a.ehb();
                    a.tlbr();
                }
                _ => {
                    put(entry[0], cp0::ENTRY_HI);
                    put(entry[1], cp0::ENTRY_LO0);
                    put(entry[2], cp0::ENTRY_LO1);
                    put(entry[3], cp0::PAGE_MASK);
                    put(index, cp0::INDEX);
                    if choice == 0 {
                        put(63, cp0::WIRED);
                        a.ehb();
                        a.word(0x4200_0006);
                        // QEMU keeps a replaced entry matching until it is made to forget it.
                        a.tlbr();
                    } else {
                        a.ehb();
                        a.tlbwi();
                    }
                }
            }
        })
    }

    /// A jump to where nothing can be fetched: ends the case, with the exception recorded.
    fn wild_jump(&mut self) -> Unit {
        let t = self.temporary();
        let slot = self.plain_slot();
        let link = if self.rng.chance(50) { 31 << D | 0x09 } else { 0x08 };
        // Misaligned in its own code: QEMU checks the mapping first, which is there.
        let misaligned = 2 * self.rng.below32(0x100) + 1;
        let narrow = self.narrow();
        let to = match self.rng.below(7) {
            // QEMU sets BadVAddr only the first time.
            0 if self.frame.profile == Profile::Translator => Some(0x7000_0000),
            0 => None,
            // A constant of 64 bits can't be made in a 32-bit user mode.
            2..4 if narrow && self.user() => Some(0x7000_0000),
            5.. if narrow && self.user() => Some(0xffff_ffff_f123_4560),
            1 => Some(0x7000_0000),
            2 => Some(0x0000_0300_0000_0000),
            3 => Some(0x0123_4567_89ab_cde0),
            4 => Some(0xffff_ffff_f123_4560),
            5 => Some(0xc000_0200_0000_0004),
            _ => Some(0x9800_0008_0000_0000),
        };
        Unit::assemble(|a| {
            match to {
                Some(to) if to as i32 as i64 as u64 == to => a.li32(t, to as i32),
                Some(to) => a.li64(t, to),
                None if narrow => a.addiu(t, misaligned as i32, CODE_REGISTER),
                None => a.daddiu(t, misaligned as i32, CODE_REGISTER),
            }
            a.word(t << S | link);
            a.word(slot);
        })
    }

    /// An encoding that MIPS64 Release 2 reserves, or one of a coprocessor 2 that is not there.
    fn reserved(&mut self) -> u32 {
        let rng = &mut self.rng;
        let random = rng.bits() as u32;
        let function = |major: u32, f: u32| major << 26 | random & 0x03ff_ffc0 | f;
        match rng.below(7) {
            0 => rng.pick(&[0x1d, 0x3b, 0x12, 0x32, 0x36, 0x3a, 0x3e]) << 26 | random & 0x03ff_ffff,
            1 => function(0, rng.pick(&[0x15, 0x28, 0x29, 0x35, 0x37, 0x39, 0x3d])),
            2 => {
                let rt = rng.pick(&[0x04, 0x05, 0x0d, 0x0f, 0x14, 0x15, 0x18, 0x19, 0x1a, 0x1b]);
                1 << 26 | random & 0x03e0_ffff | rt << T
            }
            3 => function(
                0x1c,
                rng.pick(&[0x06, 0x07, 0x08, 0x0f, 0x22, 0x23, 0x26, 0x27, 0x2f, 0x3e]),
            ),
            // Not to $0, in rd or rt: QEMU takes some of the DSP module's there as no operation.
            4 => {
                let f = rng.pick(&[0x0d, 0x15, 0x17, 0x28, 0x2f, 0x34, 0x3f]);
                function(0x1f, f) | 1 << D | 1 << T
            }
            5 => {
                let f = rng.pick(&[0x10, 0x14, 0x17, 0x22, 0x23, 0x27, 0x29, 0x2a, 0x2b]);
                0x11 << 26 | rng.pick(&[16, 17]) << S | random & 0x001f_ffc0 | f
            }
            _ => function(0x13, rng.pick(&[0x02, 0x03, 0x04, 0x06, 0x0a, 0x0c, 0x10, 0x1f, 0x22])),
        }
    }
}
