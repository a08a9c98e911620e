//! A runtime as the kernel's will be, and a real CPU made of an interpreter: with the address space that
//! emitted code expects, stopped after any number of its instructions.

use super::counts::Counts;
use crate::bus::{Bus, BusError};
use crate::cpu::tlb::{Entry, LO_D, LO_V};
use crate::cpu::{Access, Cause, CpuModel, Mode, Status, Vcpu};
use crate::emulate::Data;
use crate::endian::Endian;
use crate::interp::tests::machine::Machine;
use crate::interp::{self, Exit};
use crate::isa::{Op, decode};
use crate::mem::{GuestMemory, Page};
use crate::time::Clock;
use crate::translate::{
    BlockId, Class, CodeCache, CodeMemory, Key, Kind, Layout, PageImage, Resume, Source, Stand,
    TABLE_ENTRIES, TABLE_ENTRY, Values, after_slot, guest_address, is_dead, is_mapped, slot,
};
use abi::{Gpa, PAGE_SIZE};
use core::ptr::NonNull;

/// What a machine address of guest memory has on top of the guest's.
const SHIFT: u64 = 0x8000_0000;
/// Machine addresses of the VCPU page, the jump table and the code.
const PAGE: u64 = 0x1_0000;
const TABLE: u64 = 0x4_0000;
const CODE: u64 = 0x8_0000;
/// Words of code.
pub const WORDS: usize = CodeCache::MIN_WORDS;
/// Bytes of machine memory beside the guest's.
const FRAMES: u64 = CODE + 0x2_0000;
/// Real TLB entries that stay.
const WIRED: u32 = 3;
/// PageMask of 64 KB pages, and of 256 KB pages.
const BIG_PAGES: u64 = 0x1_e000;
const HUGE_PAGES: u64 = 0x7_e000;
/// `wait`, at all vectors: an exception stops the CPU.
const WAIT: u32 = 0x4200_0020;

const _: () = assert!(4 * WORDS as u64 <= FRAMES - CODE);

/// Where things lie for a main class.
pub const fn layout(main: Class, model: CpuModel) -> Layout {
    Layout {
        page: 0xffff_ffff_c002_0000,
        table: 0xffff_ffff_c008_0000,
        code: 0xffff_ffff_c010_0000,
        main,
        identity: false,
        model,
    }
}

/// Machine memory beside the guest's, in the byte order of both.
struct Frames {
    words: Vec<u64>,
    endian: Endian,
}

impl Frames {
    fn page(&self, at: u64) -> Option<Page> {
        let first = usize::try_from(at / 8).ok()?;
        let page = self.words.get(first..first + (PAGE_SIZE / 8) as usize)?;
        // SAFETY: the page is aligned to 8 and lives as long as the rig; tests are single-threaded and
        // read it through `Page`s only.
        Some(unsafe { Page::new(NonNull::from(page).cast()) })
    }

    fn at(&self, at: u64) -> Page {
        self.page(at & !(PAGE_SIZE - 1)).expect("a frame")
    }

    /// The VCPU page.
    fn image(&self) -> PageImage {
        PageImage { words: core::array::from_fn(|n| self.get64(PAGE + 8 * n as u64)) }
    }

    fn set_image(&self, image: &PageImage) {
        for (at, &word) in (PAGE..).step_by(8).zip(&image.words) {
            self.set64(at, word);
        }
    }

    /// No entry of the jump table leads anywhere.
    fn clear_jumps(&self) {
        for n in 0..TABLE_ENTRIES as u64 {
            self.set64(TABLE + 8 * TABLE_ENTRY as u64 * n, !0);
        }
    }

    fn set64(&self, at: u64, value: u64) {
        value.store(self.at(at), at % PAGE_SIZE, self.endian);
    }

    fn get64(&self, at: u64) -> u64 {
        u64::load(self.at(at), at % PAGE_SIZE, self.endian)
    }

    fn set8(&self, at: u64, value: u8) {
        value.store(self.at(at), at % PAGE_SIZE, self.endian);
    }

    fn set32(&self, at: u64, value: u32) {
        value.store(self.at(at), at % PAGE_SIZE, self.endian);
    }
}

/// All machine memory.
struct Machinery<'a>(&'a Frames, &'a dyn GuestMemory);

// SAFETY: pages of neither move while they exist.
unsafe impl GuestMemory for Machinery<'_> {
    fn resolve(&self, gpa: Gpa, access: Access) -> Option<Page> {
        match gpa.0.checked_sub(SHIFT) {
            Some(at) => self.1.resolve(Gpa(at), access),
            None => self.0.page(gpa.0),
        }
    }
}

/// The code, and who has decoded it.
struct Code<'a> {
    frames: &'a Frames,
    outer: &'a mut Vcpu,
}

impl CodeMemory for Code<'_> {
    fn set(&mut self, index: usize, word: u32) {
        let at = CODE + 4 * index as u64;
        self.frames.set32(at, word);
        self.outer.code.written(self.frames.at(at), at, 4);
    }

    fn rewrite(&mut self, _: usize) {}

    fn gone(&mut self, pc: u64) {
        let entry = TABLE + 8 * (TABLE_ENTRY * Layout::table_index(pc)) as u64;
        if self.frames.get64(entry) == pc {
            self.frames.set64(entry, !0);
        }
    }
}

/// No devices: whoever comes to one has escaped.
struct Nothing;

impl Bus for Nothing {
    fn read(&mut self, gpa: Gpa, _: u8, _: u64) -> Result<u64, BusError> {
        panic!("emitted code reads machine address {gpa}");
    }
    fn write(&mut self, gpa: Gpa, _: u8, _: u64, _: u64) -> Result<(), BusError> {
        panic!("emitted code writes machine address {gpa}");
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

/// The real CPU's time stands still.
struct Zero;

impl Clock for Zero {
    fn now(&self, _: u64) -> u64 {
        0
    }
}

/// The machine, its runtime and its real CPU.
pub struct Rig {
    pub machine: Machine,
    outer: Vcpu,
    frames: Frames,
    pub cache: CodeCache,
    pub counts: Counts,
    /// After so many words the real TLB is emptied, each time: whatever comes next faults. 0: never.
    pub jolt: u64,
    /// The guest can't go on: it waits.
    ended: bool,
}

/// Where the real CPU is to be set off.
enum Next {
    /// At the block for the VCPU's state.
    Look,
    /// As it stands.
    Continue,
}

impl Rig {
    /// `main` is `None` if the guest's addresses are the real ones.
    pub fn new(machine: Machine, main: Option<Class>) -> Self {
        let endian = machine.cpu.endian();
        let frames = Frames { words: vec![0; FRAMES as usize / 8], endian };
        for vector in [0x000, 0x080, 0x180] {
            frames.set32(vector, WAIT);
        }
        frames.clear_jumps();
        let mut outer = Vcpu::with_code_pages(CpuModel::mips64r2_generic(), endian, 64);
        outer.write_cp0(6, 0, WIRED.into(), 0);
        let model = *machine.cpu.model();
        let layout = match main {
            Some(main) => layout(main, model),
            None => Layout::of_identity(model).expect("no addresses everywhere"),
        };
        let cache = CodeCache::new(layout, WORDS).expect("a possible layout");
        let counts = Counts::default();
        let mut rig = Self { machine, outer, frames, cache, counts, jolt: 0, ended: false };
        assert!(rig.machine.cpu.tlb.keep_presence());
        rig.forget_real();
        rig
    }

    /// Empties the real TLB but for what stays.
    fn forget_real(&mut self) {
        self.outer.tlb.invalidate(None);
        self.outer.soft.flush();
        let layout = *self.cache.layout();
        let lo = |at: u64, flags| at >> 12 << 6 | 3 << 3 | LO_V | flags;
        let wired = [
            (layout.page, BIG_PAGES, [lo(PAGE, LO_D), 0]),
            (layout.table, HUGE_PAGES, [lo(TABLE, LO_D), 0]),
            (layout.code, BIG_PAGES, [lo(CODE, 0), lo(CODE + 0x1_0000, 0)]),
        ];
        for (index, (va, mask, lo)) in wired.into_iter().enumerate() {
            let vpn = va & self.outer.model().segment_mask() & !(mask | 0x1fff);
            let entry = Entry { vpn, mask, asid: 0, global: false, invalid: false, lo };
            self.outer.set_tlb(index, entry);
        }
    }

    /// What an address of the guest's code is the key of, if emitted code may be entered there.
    fn key(&self, pc: u64) -> Option<(Key, Page)> {
        let cpu = &self.machine.cpu;
        if cpu.mode() != Mode::Kernel || pc & 3 != 0 {
            return None;
        }
        let page = Gpa(cpu.translate(pc, Access::Execute).ok()? & !(PAGE_SIZE - 1));
        let lies = self.machine.memory.resolve(page, Access::Execute)?;
        Some((Key { pc, page, flags: Self::flags(cpu) }, lies))
    }

    fn flags(cpu: &Vcpu) -> u8 {
        let status = cpu.cp0().status;
        [Status::KX, Status::SX, Status::UX, Status::CU1, Status::FR]
            .into_iter()
            .fold(0, |bits, flag| bits << 1 | u8::from(status.contains(flag)))
    }

    /// The block for the guest's code at `pc`, found or made.
    fn block(&mut self, pc: u64) -> Option<BlockId> {
        let (key, page) = self.key(pc)?;
        let cpu = &mut self.machine.cpu;
        if is_mapped(pc)
            && let Some(index) = cpu.tlb().lookup(pc, cpu.asid())
        {
            cpu.tlb.note_copied(index);
        }
        if let Some(block) = self.cache.find(key) {
            return Some(block);
        }
        if !self.cache.has_page(key.page) {
            // It is watched from now on.
            self.forget_real();
        }
        let mut source = Source { pc, page, next: None, endian: self.machine.cpu.endian() };
        if let Some((next, page)) = source.beyond().and_then(|at| self.key(at)) {
            if !self.cache.has_page(next.page) {
                self.forget_real();
            }
            source.next = Some((page, next.page));
        }
        let cpu = &self.machine.cpu;
        let gpr = core::array::from_fn(|number| cpu.gpr(number));
        let mut values = Values::new(&gpr);
        let Self { cache, frames, outer, .. } = self;
        Some(cache.translate(&mut Code { frames, outer }, key, source, &mut values))
    }

    /// Whether an interrupt is to be taken before the next instruction.
    fn interrupted(&mut self) -> bool {
        let lines = self.machine.board.lines;
        let cpu = &mut self.machine.cpu;
        let now = cpu.retired();
        cpu.update_interrupts(lines, now);
        cpu.has_unmasked_interrupt() && cpu.cp0().status.interrupts_enabled()
    }

    /// Lets the interpreter execute one instruction; whether it ended well.
    fn interpret(&mut self) -> bool {
        self.counts.interpreted += 1;
        let Self { machine, cache, frames, outer, .. } = self;
        // It does not see what emitted code stores.
        machine.cpu.code.clear();
        machine.cpu.soft.flush_fetch();
        let before = machine.cpu.pc();
        let flags = Self::flags(&machine.cpu);
        let insn = Self::word(machine, before).map(decode);
        let stored =
            insn.map(|insn| machine.cpu.gpr(insn.a.index() % 32).wrapping_add(insn.simm()));
        let stored = stored.and_then(|va| machine.cpu.translate(va, Access::Write).ok());
        let asid = machine.cpu.asid();
        let goes_on = machine.run(1) == Exit::Limit && !machine.cpu.waiting;
        self.ended |= !goes_on;
        if let (Some(insn), Some(gpa)) = (insn, stored)
            && matches!(
                insn.op,
                Op::Sb
                    | Op::Sh
                    | Op::Sw
                    | Op::Sd
                    | Op::Swl
                    | Op::Swr
                    | Op::Sdl
                    | Op::Sdr
                    | Op::Sc
                    | Op::Scd
                    | Op::Swc1
                    | Op::Sdc1
            )
            && cache.invalidate(&mut Code { frames, outer }, Gpa(gpa & !(PAGE_SIZE - 1)))
        {
            self.counts.rewritten += 1;
        }
        let tlb = insn.is_some_and(|insn| {
            matches!(insn.op, Op::Tlbwi | Op::Tlbwr | Op::Tlbinv | Op::Tlbinvf)
        });
        if tlb || flags != Self::flags(&machine.cpu) || asid != machine.cpu.asid() {
            cache.forget_mapped(&mut Code { frames, outer });
            frames.clear_jumps();
            self.forget_real();
        }
        goes_on
    }

    /// The guest's instruction at `pc`.
    fn word(machine: &Machine, pc: u64) -> Option<u32> {
        let physical = machine.cpu.translate(pc, Access::Execute).ok()?;
        let page = machine.memory.resolve(Gpa(physical & !(PAGE_SIZE - 1)), Access::Execute)?;
        Some(u32::load(page, pc % PAGE_SIZE, machine.cpu.endian()))
    }

    /// The real CPU is about to execute a block.
    fn enter(&mut self, block: BlockId) {
        self.counts.entered += 1;
        let entry = self.cache.entry(block);
        self.load(entry);
        self.outer.set_gpr(26, 0x1122_3344_5566_7788);
        self.outer.set_gpr(27, self.cache.layout().between());
    }

    /// The real CPU gets the VCPU's registers, and goes on at `address`.
    fn load(&mut self, address: u64) {
        let Self { machine, outer, frames, cache, .. } = self;
        frames.set_image(&PageImage::of(&mut machine.cpu, cache.layout()));
        if let Some(presence) = machine.cpu.tlb.presence() {
            presence.tell_changes(|place, any| {
                frames.set8(PAGE + slot::FILTER + place as u64, any.into())
            });
        }
        for number in (1..32).filter(|number| !(26..28).contains(number)) {
            outer.set_gpr(number, machine.cpu.gpr(number));
        }
        let (hi, lo) = machine.cpu.hi_lo();
        outer.set_hi_lo(hi, lo);
        // As by the `eret`.
        outer.link = None;
        outer.set_status(Status::KX | Status::SX | Status::UX | Status::from_bits_retain(1 << 3));
        outer.set_pc(address);
    }

    /// The VCPU gets the real CPU's registers, and stands where `stand` says.
    fn settle(&mut self, stand: &Stand) {
        let Self { machine, outer, frames, .. } = self;
        for number in (1..32).filter(|number| !(26..28).contains(number)) {
            machine.cpu.set_gpr(number, outer.gpr(number));
        }
        let (hi, lo) = outer.hi_lo();
        machine.cpu.set_hi_lo(hi, lo);
        let image = frames.image();
        self.counts.posted += u64::from(image.take_posts(&mut machine.cpu));
        image.take_back(&mut machine.cpu);
        let k1 = outer.gpr(27);
        machine.cpu.set_pc(stand.pc);
        self.counts.stops[stand.kind as usize] += 1;
        match stand.kind {
            Kind::Plain | Kind::Posting | Kind::WithSlot | Kind::Link => {}
            Kind::Begun => {
                self.interpret();
            }
            Kind::BegunWithSlot => self.interpret_pair(),
            Kind::Stored => {
                let machine = &mut self.machine;
                let insn = decode(Self::word(machine, stand.pc).expect("it was emitted"));
                machine.cpu.set_gpr(insn.b.index() % 32, k1);
                machine.cpu.set_pc(stand.pc.wrapping_add(4));
            }
            Kind::SlotDone => {
                let machine = &mut self.machine;
                let insn = decode(Self::word(machine, stand.pc).expect("it was emitted"));
                let gpr = core::array::from_fn(|number| machine.cpu.gpr(number));
                let next = after_slot(insn, stand.pc, &gpr).expect("a branch");
                machine.cpu.set_pc(next);
            }
        }
    }

    /// A branch and its delay slot.
    fn interpret_pair(&mut self) {
        self.interpret();
        if self.machine.cpu.slot_target().is_some() {
            self.interpret();
        }
    }

    /// Fills the real TLB for `real`, if it is the alias of guest memory that may be accessed so.
    fn fill(&mut self, real: u64, access: Access) -> bool {
        let Some(va) = self.cache.layout().guest_address(real) else { return false };
        let mut image = self.frames.image();
        let cpu = &mut self.machine.cpu;
        self.counts.posted += u64::from(image.take_posts(cpu));
        if is_mapped(va)
            && let Some(index) = cpu.tlb().lookup(va, cpu.asid())
        {
            cpu.tlb.note_copied(index);
        }
        image.stop_posts();
        self.frames.set_image(&image);
        let Ok(physical) = cpu.translate(va, access) else { return false };
        let page = Gpa(physical & !(PAGE_SIZE - 1));
        if self.machine.memory.resolve(page, access).is_none() {
            return false;
        }
        let watched = self.cache.has_page(page);
        if watched && access == Access::Write {
            return false;
        }
        let writable = !watched && cpu.translate(va, Access::Write).is_ok();
        let flags = LO_V | if writable { LO_D } else { 0 };
        let new = (SHIFT + page.0) >> 12 << 6 | 3 << 3 | flags;
        let outer = &mut self.outer;
        let vpn = real & !0x1fff & outer.model().segment_mask();
        let (index, mut entry) = match outer.tlb().lookup(real, 0) {
            Some(index) => (index, *outer.tlb().entry(index)),
            None => {
                let index = outer.next_random() as usize;
                let lo = [0; 2];
                (index, Entry { vpn, mask: 0, asid: 0, global: false, invalid: false, lo })
            }
        };
        entry.lo[(real >> 12 & 1) as usize] = new;
        outer.set_tlb(index, entry);
        self.counts.filled += 1;
        true
    }

    /// The accesses at `pc` did not go where the block sent them: whether it should be made anew.
    fn note_access(&mut self, block: BlockId, pc: u64) -> bool {
        let Some(insn) = Self::word(&self.machine, pc).map(decode) else { return false };
        let base = self.machine.cpu.gpr(insn.a.index() % 32);
        self.cache.note(block, pc, base.wrapping_add(insn.simm()))
    }

    /// Executes on for about `words` words of emitted code, or less. The VCPU then stands between two
    /// guest instructions; `false` if the guest can't go on.
    pub fn go(&mut self, words: u64) -> bool {
        let mut left = words;
        let mut next = Next::Look;
        while left > 0 {
            if matches!(next, Next::Look) {
                let interrupted = self.interrupted();
                let in_slot = self.machine.cpu.slot_target().is_some();
                let pc = self.machine.cpu.pc();
                let linked = self.machine.cpu.link.is_some();
                match self.block(pc).filter(|_| !interrupted && !in_slot && !linked) {
                    Some(block) => self.enter(block),
                    None => {
                        left -= 1;
                        if !self.interpret() {
                            return false;
                        }
                        continue;
                    }
                }
            }
            let before = self.outer.retired();
            let memory = Machinery(&self.frames, &self.machine.memory);
            let run = if self.jolt == 0 { left } else { left.min(self.jolt) };
            let exit = interp::run(&mut self.outer, &memory, &mut Nothing, &Zero, run);
            let ran = self.outer.retired() - before;
            self.counts.words += ran;
            left = left.saturating_sub(ran);
            if !self.outer.cp0().status.contains(Status::EXL) {
                assert_eq!(exit, Exit::Limit);
                if left > 0 {
                    self.forget_real();
                    next = Next::Continue;
                    continue;
                }
                let address = self.outer.pc() - if self.outer.in_slot { 4 } else { 0 };
                let stand = self.cache.stand(address).expect("inside a block");
                self.settle(&stand);
                return true;
            }
            next = self.exception();
            if self.ended {
                return false;
            }
        }
        // An exception was the last thing.
        if matches!(next, Next::Continue) {
            let stand = self.cache.stand(self.outer.pc()).expect("inside a block");
            self.settle(&stand);
        }
        true
    }

    /// Handles the real CPU's exception.
    fn exception(&mut self) -> Next {
        let cp0 = self.outer.cp0();
        let (cause, epc, real) = (cp0.cause, cp0.epc, cp0.bad_vaddr);
        let in_slot = cause.contains(Cause::BD);
        let stand = self.cache.stand(epc).expect("an exception inside a block");
        self.outer.exception_return();
        match cause.exc_code() {
            9 if !in_slot => return self.way_out(&stand, epc),
            code @ 1..=3 => {
                let access = if code == 2 { Access::Read } else { Access::Write };
                let known = guest_address(real).is_some() || self.cache.layout().identity;
                assert!(is_dead(real) || known || real < 1 << 40);
                if self.fill(real, access) {
                    self.outer.set_pc(epc);
                    return Next::Continue;
                }
            }
            4 | 5 | 12 | 13 => {}
            code => panic!("exception {code} at {epc:#x}"),
        }
        self.counts.faults += 1;
        let right = matches!(cause.exc_code(), 1..=3) && guest_address(real).is_some();
        let right = right || self.cache.layout().identity;
        self.by_interpreter(&stand, !right && cause.exc_code() != 12, in_slot)
    }

    /// The instruction at a stand is the interpreter's. Its access went `astray`, or it is none.
    fn by_interpreter(&mut self, stand: &Stand, astray: bool, in_slot: bool) -> Next {
        let scratch = [self.outer.gpr(26), self.outer.gpr(27)];
        self.settle(stand);
        if astray && stand.kind != Kind::SlotDone {
            let with_slot = matches!(stand.kind, Kind::WithSlot | Kind::BegunWithSlot);
            let pc = if with_slot { stand.pc + 4 } else { stand.pc };
            if (in_slot || with_slot || stand.kind == Kind::Plain)
                && self.note_access(stand.block, pc)
            {
                self.counts.guesses += 1;
                let Self { cache, frames, outer, .. } = self;
                cache.remove(&mut Code { frames, outer }, stand.block);
            }
        }
        match stand.kind {
            Kind::Plain | Kind::Link => {
                let dropped = self.cache.dropped();
                let flags = Self::flags(&self.machine.cpu);
                self.interpret();
                let cpu = &self.machine.cpu;
                let goes_on = cpu.pc() == stand.pc.wrapping_add(4)
                    && cpu.slot_target().is_none()
                    && cpu.mode() == Mode::Kernel
                    && flags == Self::flags(cpu)
                    && dropped == self.cache.dropped();
                if goes_on && self.machine.cpu.link.is_none() && !self.interrupted() {
                    match self.cache.resume(stand) {
                        Some(Resume::AsItWas(address)) => {
                            self.load(address);
                            self.outer.set_gpr(26, scratch[0]);
                            self.outer.set_gpr(27, scratch[1]);
                        }
                        Some(Resume::Clean(address)) => {
                            self.load(address);
                            self.outer.set_gpr(26, !0);
                            self.outer.set_gpr(27, self.cache.layout().between());
                        }
                        None => return Next::Look,
                    }
                    self.counts.resumed += 1;
                    return Next::Continue;
                }
            }
            Kind::Posting => {
                self.interpret();
            }
            Kind::WithSlot => self.interpret_pair(),
            // Settled by executing it.
            Kind::Begun | Kind::BegunWithSlot | Kind::SlotDone | Kind::Stored => {}
        }
        Next::Look
    }

    /// Instructions that are not emitted.
    fn stretch(&mut self, stand: &Stand) -> Next {
        self.settle(stand);
        let end = stand.pc.wrapping_add(4 * self.cache.stretch(stand));
        let (dropped, flags) = (self.cache.dropped(), Self::flags(&self.machine.cpu));
        let mut left = end.wrapping_sub(stand.pc);
        while !self.interrupted() {
            if !self.interpret() {
                break;
            }
            let cpu = &self.machine.cpu;
            let stays = cpu.mode() == Mode::Kernel
                && flags == Self::flags(cpu)
                && dropped == self.cache.dropped();
            // (An `eret` may lead back into the stretch, for ever.)
            let now = end.wrapping_sub(cpu.pc());
            if !stays || now >= left || self.interrupted() {
                break;
            }
            left = now;
            if self.machine.cpu.pc() == end && self.machine.cpu.link.is_none() {
                let Some(address) = self.cache.behind_stretch(stand) else { break };
                self.load(address);
                self.outer.set_gpr(26, !0);
                self.outer.set_gpr(27, self.cache.layout().between());
                self.counts.resumed += 1;
                return Next::Continue;
            }
        }
        Next::Look
    }

    /// A `break` of emitted code, at `epc`.
    fn way_out(&mut self, stand: &Stand, epc: u64) -> Next {
        let dropped = self.cache.dropped();
        if let Some(exit) = stand.exit {
            // The guest's registers only tell what its accesses will be.
            if let Some(to) = self.block(self.cache.target(exit)) {
                if dropped == self.cache.dropped() {
                    let Self { cache, frames, outer, .. } = self;
                    cache.chain(&mut Code { frames, outer }, exit, to);
                    self.counts.chained += 1;
                    self.outer.set_pc(epc);
                    return Next::Continue;
                }
                self.settle(stand);
                return Next::Look;
            }
        }
        if stand.kind == Kind::Plain && stand.exit.is_none() {
            return self.stretch(stand);
        }
        let insn = Self::word(&self.machine, stand.pc).map(decode);
        if let Some(again) = self.cache.look_up_again(stand)
            && let Some(insn) = insn.filter(|insn| matches!(insn.op, Op::Jr | Op::Jalr))
        {
            let target = self.outer.gpr(insn.a.index() % 32);
            if let Some(to) = self.block(target)
                && dropped == self.cache.dropped()
            {
                self.counts.jumps += 1;
                let entry = TABLE + 8 * (TABLE_ENTRY * Layout::table_index(target)) as u64;
                let words = [target, self.cache.entry(to), self.cache.layout().between()];
                for (at, word) in (entry..).step_by(8).zip(words) {
                    self.frames.set64(at, word);
                }
                self.outer.set_pc(again);
                self.outer.set_gpr(26, !0);
                self.outer.set_gpr(27, self.cache.layout().between());
                return Next::Continue;
            }
        }
        self.by_interpreter(stand, false, false)
    }

    /// Whether the VCPU is, as far as is cheap to see, in the state of another.
    pub fn is_like(&self, other: &Machine) -> bool {
        let (cpu, other) = (&self.machine.cpu, &other.cpu);
        cpu.pc() == other.pc() && Self::seen(cpu) == Self::seen(other)
    }

    /// The first difference in what is not looked at there; in memory below `end`.
    pub fn hidden_difference(&self, other: &Machine, end: u64) -> Option<String> {
        let (cpu, theirs) = (&self.machine.cpu, &other.cpu);
        if let Some(number) = (0..32).find(|&number| cpu.fpr(number) != theirs.fpr(number)) {
            return Some(format!("$f{number}"));
        }
        if cpu.fcsr() != theirs.fcsr() {
            return Some(format!("{:#x} {:#x}", cpu.fcsr(), theirs.fcsr()));
        }
        let tlbs = [cpu, theirs].map(Vcpu::tlb);
        if let Some(index) = (0..tlbs[0].len()).find(|&at| tlbs[0].entry(at) != tlbs[1].entry(at)) {
            return Some(format!("TLB entry {index}"));
        }
        if cpu.cp0().random() != theirs.cp0().random() {
            return Some("Random".into());
        }
        let differs = |gpa: &u64| self.machine.doubleword(*gpa) != other.doubleword(*gpa);
        let gpa = (0..end).step_by(8).find(differs)?;
        let (ours, theirs) = (self.machine.doubleword(gpa), other.doubleword(gpa));
        Some(format!("{gpa:#x}: {ours:#x}, not {theirs:#x}"))
    }

    /// What differs.
    pub fn differences(&self, other: &Machine) -> String {
        let both = Self::seen(&self.machine.cpu).into_iter().zip(Self::seen(&other.cpu));
        both.enumerate()
            .filter(|(_, (a, b))| a != b)
            .fold(String::new(), |all, (n, (a, b))| format!("{all} {n}: {a:#x}, not {b:#x};"))
    }

    /// General registers, HI, LO, slot, Status, EPC, UserLocal, Cause, BadVAddr, EntryHi,
    /// ErrorEPC, Index, EntryLo0, EntryLo1.
    pub fn seen(cpu: &Vcpu) -> [u64; 45] {
        let cp0 = cpu.cp0();
        let (hi, lo) = cpu.hi_lo();
        let mut seen = [0; 45];
        for (number, place) in seen[..32].iter_mut().enumerate() {
            *place = cpu.gpr(number);
        }
        // The lines are as they were when somebody looked.
        let lines = Cause::from_bits_retain(0xfc00);
        seen[32..].copy_from_slice(&[
            hi,
            lo,
            cpu.slot_target().map_or(1, |target| target & !1),
            cp0.status.bits().into(),
            cp0.epc,
            cp0.user_local,
            (cp0.cause - lines).bits().into(),
            cp0.bad_vaddr,
            cp0.entry_hi,
            cp0.error_epc,
            cp0.index.into(),
            cp0.entry_lo[0],
            cp0.entry_lo[1],
        ]);
        seen
    }
}
