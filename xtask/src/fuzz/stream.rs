//! Random streams: units of instructions whose results the architecture defines.
//!
//! What is left out, and why, stands in `docs/differential.md`.

use super::asm::{
    Asm,
    reg::{RA, ZERO},
};
use super::case::{Case, Fix, Unit};
use super::rng::Rng;
use super::state::{
    self, CODE_REGISTER, Frame, INDEX_REGISTER, Kind, POINTERS, Profile, SAFE_POINTER,
};
use super::table::{self, Field, Op, Width};
use super::{layout, values};

/// The case `number` under `seed`.
pub fn case(profile: Profile, seed: u64, number: u64) -> Case {
    let mut rng = Rng::new(seed, number);
    let (frame, mut case) = state::frame(&mut rng, profile, number);
    let count = 8 + rng.below(26) as usize;
    let mut generator = Generator { rng, frame, code: case.code, count };
    case.units = (0..count).map(|at| generator.unit(at)).collect();
    case
}

/// What makes the units of one case.
pub(super) struct Generator {
    pub(super) rng: Rng,
    pub(super) frame: Frame,
    /// Where the first instruction is seen.
    pub(super) code: u64,
    /// How many units there will be.
    pub(super) count: usize,
}

/// Register fields, by how far up they are: rs.
pub(super) const S: u32 = 21;
/// rt.
pub(super) const T: u32 = 16;
/// rd.
pub(super) const D: u32 = 11;
/// sa.
const A: u32 = 6;

/// `sll r, r, 0`: makes a register a sign-extended word.
fn sign_extend(r: u32) -> u32 {
    r << T | r << D
}

const fn get(word: u32, field: u32) -> u32 {
    word >> field & 31
}

impl Generator {
    fn unit(&mut self, at: usize) -> Unit {
        // Weights: integer, memory, float, branches, system.
        let weights: [u64; 5] = match self.frame.kind {
            Kind::Mixed => [30, 20, 20, 15, 15],
            Kind::Integer => [75, 8, 0, 15, 2],
            Kind::Float => [8, 10, 70, 8, 4],
            Kind::Memory => [15, 60, 5, 10, 10],
            Kind::System => [10, 20, 5, 15, 50],
            Kind::ExceptionBase | Kind::BootVectors => [15, 25, 10, 15, 35],
        };
        let mut pick = self.rng.below(weights.iter().sum());
        let mut class = 0;
        while pick >= weights[class] {
            pick -= weights[class];
            class += 1;
        }
        match class {
            0 => self.of(|k| {
                use table::Kind::*;
                matches!(k, Alu | Word | DivWord | DivDouble | Count(_) | Field(_))
            }),
            1 if self.rng.chance(8) => self.linked(),
            1 => self.of(|k| {
                use table::Kind::*;
                matches!(k, Memory(_) | Indexed(_) | Hint)
            }),
            2 => self.of(|k| {
                use table::Kind::*;
                matches!(k, Float | Move | Control | Indexed(_))
            }),
            3 if self.frame.profile == Profile::Translator && self.rng.chance(12) => self.changed(),
            3 => self.branch(at),
            _ => self.system(at),
        }
    }

    /// A unit of one random instruction that `wanted` admits.
    pub(super) fn of(&mut self, wanted: impl Fn(table::Kind) -> bool) -> Unit {
        let (guards, word) = self.instruction(wanted);
        Unit::plain(guards.into_iter().chain([word]))
    }

    /// A random instruction, and what must run before it.
    fn instruction(&mut self, wanted: impl Fn(table::Kind) -> bool) -> (Vec<u32>, u32) {
        loop {
            let all = table::table();
            let op = &all[self.rng.below(all.len() as u64) as usize];
            if wanted(op.kind)
                && (self.frame.fr || !needs_fr(op))
                && let Some(made) = self.operands(op)
            {
                return made;
            }
        }
    }

    /// A register to write.
    pub(super) fn destination(&mut self) -> u32 {
        loop {
            let r = self.rng.below32(32);
            let fixed = [CODE_REGISTER, SAFE_POINTER, INDEX_REGISTER].contains(&r);
            if !fixed && (!POINTERS.contains(&r) || self.rng.chance(4)) {
                return r;
            }
        }
    }

    /// A register that streams may freely change; not `$0`.
    pub(super) fn temporary(&mut self) -> u32 {
        1 + self.rng.below32(15)
    }

    /// A source that may be made a word: not one of the kept registers, but `$0` is fine.
    fn word_source(&mut self) -> u32 {
        self.rng.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 31])
    }

    fn fpr(&mut self, width: Width) -> u32 {
        let r = self.rng.below32(32);
        match width {
            Width::Double if !self.frame.fr => r & !1,
            _ => r,
        }
    }

    fn base(&mut self) -> u32 {
        match self.rng.below(100) {
            0..6 => self.rng.below32(32),
            6..9 => ZERO,
            9..25 => SAFE_POINTER,
            _ => self.rng.pick(&POINTERS),
        }
    }

    fn offset(&mut self, bytes: u32) -> u32 {
        let near = (self.rng.below(0x7f0) as i32 - 0x3f8) as u32;
        let offset = if self.rng.chance(90) { near & !(bytes - 1) } else { near };
        // Without an offset QEMU does not wrap addresses of a 32-bit user mode.
        if offset == 0 && self.user() { bytes } else { offset & 0xffff }
    }

    /// Fills an instruction's operands; `None` when no legal ones exist in this case's mode.
    fn operands(&mut self, op: &Op) -> Option<(Vec<u32>, u32)> {
        use table::Kind::*;
        let free = |field: u32| op.mask >> field & 31 == 0;
        // Random bits everywhere first: shift amounts, trap codes, condition codes, immediates.
        let mut word = op.bits | self.rng.bits() as u32 & !op.mask;
        let set = |word: &mut u32, field: u32, value: u32| {
            *word = *word & !(31 << field) | value << field;
        };
        for (field, width) in [(T, op.fp[0]), (D, op.fp[1]), (A, op.fp[2]), (S, op.fp[3])] {
            if width != Width::None {
                let r = self.fpr(width);
                set(&mut word, field, r);
            }
        }
        let mut guards = Vec::new();
        let three = free(D) && matches!(op.kind, Alu | Word | Count(_) | Hint);
        match op.kind {
            Alu | Word | DivWord | DivDouble | Count(_) => {
                let sources = matches!(op.kind, Word | DivWord | Count(true));
                let immediate = op.mask & 0xffff == 0;
                for field in [S, T] {
                    if !free(field) || op.fp != [Width::None; 4] {
                        continue;
                    }
                    // With a 16-bit immediate the T field is the destination.
                    if immediate && field == T {
                        let r = self.destination();
                        set(&mut word, T, r);
                    } else if sources {
                        let r = self.word_source();
                        set(&mut word, field, r);
                        if r != 0 {
                            guards.push(sign_extend(r));
                        }
                    }
                }
                if three {
                    let r = self.destination();
                    set(&mut word, D, r);
                }
                match op.kind {
                    DivWord | DivDouble => self.nonzero(op.kind == DivWord, &mut word, &mut guards),
                    Count(_) => {
                        // rt repeats rd.
                        word = word & !(31 << T) | get(word, D) << T;
                        if matches!(op.kind, Count(true)) {
                            let r = self.word_source();
                            set(&mut word, S, r);
                            guards = if r == 0 { vec![] } else { vec![sign_extend(r)] };
                        }
                    }
                    _ => {}
                }
            }
            Field(shape) => {
                let (lsb, other) = self.field(shape);
                set(&mut word, A, lsb);
                set(&mut word, D, other);
                let rt = self.destination();
                set(&mut word, T, rt);
                if matches!(shape, self::Field::Ext | self::Field::Ins) {
                    let rs = self.word_source();
                    let rt = if shape == self::Field::Ins { self.word_source() } else { rt };
                    set(&mut word, S, rs);
                    set(&mut word, T, rt);
                    let insert = shape == self::Field::Ins;
                    guards.extend(
                        [Some(rs), insert.then_some(rt)]
                            .into_iter()
                            .flatten()
                            .filter(|&r| r != 0)
                            .map(sign_extend),
                    );
                }
            }
            Memory(bytes) => {
                let base = self.base();
                set(&mut word, S, base);
                let offset = self.offset(bytes.into());
                word = word & !0xffff | offset;
                if op.fp == [Width::None; 4] {
                    let mut rt = self.destination();
                    if op.name == "lwr" {
                        // Whether a partial load extends the sign is the implementation's choice.
                        rt = self.word_source();
                        if rt != 0 {
                            guards.push(sign_extend(rt));
                        }
                    }
                    set(&mut word, T, rt);
                }
            }
            Indexed(_) => {
                // QEMU does not check the alignment of these: the base is made a multiple of 8.
                let (base, t) = (self.base(), self.temporary());
                guards.push(0x09 << 26 | t << T | 0xfff8);
                guards.push(t << S | base << T | t << D | 0x24);
                set(&mut word, S, t);
                set(&mut word, T, INDEX_REGISTER);
            }
            Hint => {
                if op.mask & 0xffff == 0 {
                    set(&mut word, S, SAFE_POINTER);
                    let offset = self.offset(4);
                    word = word & !0xffff | offset;
                    if op.name == "cache" {
                        // Hit Invalidate and Hit Writeback Invalidate of the data cache.
                        let operation = self.rng.pick(&[0x11, 0x15]);
                        set(&mut word, T, operation);
                    }
                }
            }
            Float => {}
            Move => {
                if op.name.contains('f') && op.name.contains("mf") {
                    let rt = self.destination();
                    set(&mut word, T, rt);
                }
            }
            Control => {
                if op.name == "cfc1" {
                    let rt = self.destination();
                    set(&mut word, T, rt);
                } else {
                    let rt = self.temporary();
                    let mut a = Asm::new();
                    a.li32(rt, values::fcsr(&mut self.rng) as i32);
                    if self.rng.chance(90) {
                        guards.extend(a.finish());
                    }
                    set(&mut word, T, rt);
                }
            }
            ReadHardware => {
                let rt = self.destination();
                set(&mut word, T, rt);
            }
            System => {}
            Linked | Branch(_) | Jump | JumpRegister(_) => return None,
        }
        if op.name == "mul" || op.name.starts_with("rotr") || three {
            debug_assert_ne!(get(word, D), CODE_REGISTER);
        }
        Some((guards, word))
    }

    /// Makes a divisor nonzero.
    fn nonzero(&mut self, words: bool, word: &mut u32, guards: &mut Vec<u32>) {
        let divisor = self.temporary();
        *word = *word & !(31 << T) | divisor << T;
        guards.clear();
        let dividend = get(*word, S);
        if words {
            guards.extend([dividend, divisor].into_iter().filter(|&r| r != 0).map(sign_extend));
        }
        // ori divisor, divisor, 1
        guards.push(0x0d << 26 | divisor << S | divisor << T | 1);
    }

    /// lsb and the other field of a bit field instruction, within its bounds.
    fn field(&mut self, shape: Field) -> (u32, u32) {
        let rng = &mut self.rng;
        match shape {
            Field::Ext => {
                let lsb = rng.below32(32);
                (lsb, rng.below32(32 - lsb))
            }
            Field::Dext => {
                let lsb = rng.below32(32);
                (lsb, rng.below32(32))
            }
            Field::Dextm => {
                // size − 33; lsb + size ≤ 64.
                let lsb = rng.below32(32);
                (lsb, rng.below32(32 - lsb))
            }
            Field::Dextu => {
                let lsb = rng.below32(32);
                (lsb, rng.below32(32 - lsb))
            }
            Field::Ins | Field::Dins | Field::Dinsu => {
                let lsb = rng.below32(32);
                (lsb, lsb + rng.below32(32 - lsb))
            }
            Field::Dinsm => (rng.below32(32), rng.below32(32)),
        }
    }

    /// A delay slot's instruction that needs nothing to run before it: the branch itself writes
    /// registers.
    pub(super) fn plain_slot(&mut self) -> u32 {
        loop {
            if let (guards, word) = self.slot()
                && guards.is_empty()
            {
                return word;
            }
        }
    }

    /// A delay slot's instruction, and what must run before the branch.
    fn slot(&mut self) -> (Vec<u32>, u32) {
        match self.rng.below(10) {
            0 => (vec![], 0),
            1 => self.instruction(|k| matches!(k, table::Kind::System)),
            2..4 => self.instruction(|k| matches!(k, table::Kind::Memory(_))),
            4 if self.frame.kind != Kind::Integer => self.instruction(|k| {
                matches!(k, table::Kind::Float | table::Kind::Move | table::Kind::Indexed(_))
            }),
            _ => self.instruction(|k| {
                use table::Kind::*;
                matches!(k, Alu | Word | Count(_) | Field(_))
            }),
        }
    }

    /// A branch or jump forward with its delay slot.
    fn branch(&mut self, at: usize) -> Unit {
        let target = at + 1 + self.rng.below((self.count - at).min(6) as u64) as usize;
        let mut unit = Unit::default();
        let mut slot = None;
        let all = table::table();
        loop {
            let op = &all[self.rng.below(all.len() as u64) as usize];
            if !self.frame.fr && needs_fr(op) {
                continue;
            }
            if matches!(op.kind, table::Kind::Branch(false)) {
                let (guards, word) = self.slot();
                unit = Unit::plain(guards);
                slot = Some(word);
            }
            match op.kind {
                table::Kind::Branch(links) => {
                    let mut word = op.bits | self.rng.bits() as u32 & !op.mask & !0xffff;
                    // A link into the register it tests: not restartable, UNPREDICTABLE.
                    if links && get(word, S) == 31 {
                        word &= !(1 << S);
                    }
                    // Equal registers make equality branches interesting.
                    if op.mask >> T & 31 == 0 && self.rng.chance(25) {
                        word = word & !(31 << T) | get(word, S) << T;
                    }
                    unit.words.push((word, Fix::Branch(target)));
                }
                table::Kind::Jump => unit.words.push((op.bits, Fix::Jump(target))),
                table::Kind::JumpRegister(links) => {
                    let t = self.temporary();
                    unit.words.push(self.target(t, target));
                    let mut word = op.bits | t << S;
                    if links {
                        let d = loop {
                            let d = self.destination();
                            if d != t {
                                break d;
                            }
                        };
                        word |= d << D;
                    }
                    unit.words.push((word, Fix::None));
                }
                _ => continue,
            }
            break;
        }
        let slot = slot.unwrap_or_else(|| self.plain_slot());
        unit.words.push((slot, Fix::None));
        unit
    }

    /// Whether the code has 32-bit addresses. 64-bit instructions are reserved in a 32-bit user mode,
    /// which has such addresses only.
    pub(super) const fn narrow(&self) -> bool {
        self.code as i32 as i64 as u64 == self.code
    }

    /// Whether user mode can run the code.
    pub(super) const fn user(&self) -> bool {
        self.code >> 62 == 0
    }

    /// `t` = the address of unit `target`.
    pub(super) const fn target(&self, t: u32, target: usize) -> (u32, Fix) {
        let opcode = if self.narrow() { 0x09 } else { 0x19 };
        (opcode << 26 | CODE_REGISTER << S | t << T, Fix::Offset(target))
    }

    /// The same for a VM, as programs have it: tried again until it succeeds. A link may always be lost
    /// there, for reasons that only the monitor knows.
    fn linked_loop(&mut self, ll: u32, sc: u32) -> Unit {
        let loaded = 1 + self.rng.below32(7);
        let (value, stored) = (8 + self.rng.below32(4), 12 + self.rng.below32(4));
        let mut between = Vec::new();
        if self.rng.chance(50) {
            let (guards, word) = self.instruction(|k| matches!(k, table::Kind::Alu));
            if table::find(word).is_some_and(|op| is_repeatable(op, word, stored)) {
                between.extend(guards.into_iter().chain([word]));
            }
        }
        let back = -(between.len() as i32 + 4);
        let mut words = vec![ll | loaded << T];
        words.extend(between);
        // or stored, value, $0; sc stored; beq stored, $0, to the ll; nop
        words.push(value << S | stored << D | 0x25);
        words.push(sc | stored << T);
        words.push(0x04 << 26 | stored << S | (back as u32 & 0xffff));
        words.push(0);
        Unit::plain(words)
    }

    /// A subroutine in the page of data, made anew in each round, and called often enough to be worth translating: code that
    /// changes without an announcement, reached by a jump from another page.
    fn changed(&mut self) -> Unit {
        let at = layout::kseg0(self.frame.pa + layout::SCRATCH as u64)
            + self.rng.pick(&[0x000, 0x020, 0xfc0, 0xfe0]);
        let (base, left, word, round) = (12, 13, 14, 15);
        let result = loop {
            let result = self.destination();
            if ![base, left, RA].contains(&result) {
                break result;
            }
        };
        let calls = 1 + self.rng.below32(16);
        Unit::assemble(|a| {
            a.li32(base, at as u32 as i32);
            // result = round, which is counted in memory.
            a.ld(round, 0x10, base);
            a.daddiu(round, 1, round);
            a.sd(round, 0x10, base);
            a.andi(round, 0xff, round);
            a.li32(word, (0x0d << 26 | result << T) as i32);
            a.or(word, word, round);
            a.sw(word, 0, base);
            // jr $ra; addiu left, left, -1
            a.li32(word, (RA << S | 0x08) as i32);
            a.sw(word, 4, base);
            a.li32(word, (0x09 << 26 | left << S | left << T | 0xffff) as i32);
            a.sw(word, 8, base);
            a.addiu(left, calls as i32, ZERO);
            let call = a.label();
            a.bind(call);
            // jalr base
            a.word(base << S | RA << D | 0x09);
            a.nop();
            a.bne(left, ZERO, call);
            a.nop();
        })
    }

    /// A load-linked with its store-conditional to the same address.
    fn linked(&mut self) -> Unit {
        let double = self.rng.chance(50);
        let (ll, sc, bytes) = if double { (0x34, 0x3c, 8) } else { (0x30, 0x38, 4) };
        let offset = (1 + self.rng.below32(0x7f)) * bytes;
        let rt = self.temporary();
        let value = self.temporary();
        let field = SAFE_POINTER << S | offset;
        if self.frame.profile != Profile::Everything {
            return self.linked_loop(ll << 26 | field, sc << 26 | field);
        }
        let mut words = vec![ll << 26 | field | rt << T];
        if self.rng.chance(50) {
            let (guards, word) = self.instruction(|k| matches!(k, table::Kind::Alu));
            words.extend(guards.into_iter().chain([word]));
        }
        words.push(sc << 26 | field | value << T);
        Unit::plain(words)
    }
}

/// Whether an instruction can be executed twice with the same result as once, and leaves `kept` alone.
fn is_repeatable(op: &Op, word: u32, kept: u32) -> bool {
    let fields = [get(word, S), get(word, T), get(word, D)];
    let accumulates = ["madd", "msub"].iter().any(|name| op.name.starts_with(name));
    let apart = |i: usize| fields[i + 1..].iter().all(|&r| r == 0 || r != fields[i]);
    !accumulates && !fields.contains(&kept) && (0..3).all(apart)
}

/// Whether an instruction is only defined with Status.FR = 1.
fn needs_fr(op: &Op) -> bool {
    op.fp.contains(&Width::Full)
        || ["cabs", "recip1", "recip2", "rsqrt1", "rsqrt2", "bc1any"]
            .iter()
            .any(|name| op.name.starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endian::Endian;
    use crate::fuzz::harness::Place;
    use crate::fuzz::model::Model;
    use std::collections::BTreeSet;

    const PROFILES: [Profile; 4] =
        [Profile::Everything, Profile::User, Profile::Supervisor, Profile::Translator];

    #[test]
    fn every_instruction_occurs_and_no_other() {
        let mut seen = BTreeSet::new();
        for number in 0..4000 {
            for word in case(Profile::Everything, 1, number).words() {
                if let Some(op) = table::find(word) {
                    seen.insert(&op.name);
                }
                assert_ne!(word & 0xfc00_003f, 0x7000_003f, "sdbbp");
                assert_ne!(word & 0xfc00_003f, 0x0000_0005, "prints in QEMU");
            }
        }
        let missing: Vec<_> =
            table::table().iter().map(|op| &op.name).filter(|name| !seen.contains(name)).collect();
        assert!(missing.is_empty(), "never generated: {missing:?}");
    }

    #[test]
    fn streams_fit_their_page() {
        for number in 0..4000 {
            for profile in PROFILES {
                let case = case(profile, 2, number);
                assert!(case.words().len() < layout::PAGE / 4);
                assert!(case.tlb.len() <= 63);
            }
        }
    }

    #[test]
    fn profiles_begin_where_they_say() {
        let is_user = |at: u64| at >> 62 == 0;
        let is_supervisor = |at: u64| at >> 62 == 1 || at >> 29 == 0xffff_ffff_c000_0000 >> 29;
        let mut mapped = 0;
        for number in 0..1000 {
            let user = case(Profile::User, 4, number);
            assert!(is_user(user.code) && user.status >> 3 & 3 == 2, "{:#x}", user.code);
            let supervisor = case(Profile::Supervisor, 4, number);
            assert!(is_supervisor(supervisor.code), "{:#x}", supervisor.code);
            assert_eq!(supervisor.status >> 3 & 3, 0);
            for case in [user, supervisor] {
                assert_eq!(case.status & state::status::BEV, 0);
                mapped += u32::from(is_supervisor(case.cp0[8]));
            }
        }
        assert!((400..1200).contains(&mapped), "{mapped} of 2000 have mapped vectors");
    }

    #[test]
    fn our_cpu_ends_nearly_all_streams() {
        for (endian, profile) in Endian::ALL.into_iter().flat_map(|e| PROFILES.map(|p| (e, p))) {
            let place = if profile == Profile::Everything { Place::Rom } else { Place::Ram };
            let mut model = Model::new(endian, place);
            let ended = (0..200)
                .filter(|&number| {
                    let case = case(profile, 3, number);
                    let mut bytes = case.bytes(endian);
                    let ended = model.run(case.slot, &mut bytes).is_ok();
                    assert!(!ended || model.traps(&bytes) >= 1, "case {number} left no results");
                    ended
                })
                .count();
            assert!(ended > 190, "only {ended} of 200 ended, {endian}-endian, {profile:?}");
        }
    }
}
