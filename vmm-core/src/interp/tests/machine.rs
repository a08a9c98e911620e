//! A machine of memory and nothing else, and a few words of assembly.
#![allow(unsafe_code)]

use crate::bus::{Bus, BusError};
use crate::cpu::{Access, CpuModel, Vcpu};
use crate::endian::Endian;
use crate::interp::{self, Exit};
use crate::mem::{GuestMemory, Page};
use crate::time::Clock;
use abi::{Gpa, PAGE_SIZE};
use core::ptr::NonNull;

/// Bytes of memory, from guest-physical 0.
pub const MEMORY: u64 = 1 << 20;
/// Where programs start: an unmapped, cached address.
pub const START: u64 = 0xffff_ffff_8000_1000;
/// Reads here return the last value written here.
pub const DEVICE: u64 = 0x1000_0000;

pub struct Memory(Vec<u64>);

impl Memory {
    fn page(&self, gpa: Gpa) -> Option<Page> {
        let word = usize::try_from(gpa.0 / 8).ok()?;
        let page = self.0.get(word..word + (PAGE_SIZE / 8) as usize)?;
        let base = NonNull::from(page).cast();
        // SAFETY: the page is aligned to 8 and lives as long as the machine; tests are
        // single-threaded and read it through `Page`s only.
        Some(unsafe { Page::new(base) })
    }
}

// SAFETY: pages never move while the memory exists.
unsafe impl GuestMemory for Memory {
    fn resolve(&self, gpa: Gpa, _: Access) -> Option<Page> {
        self.page(gpa)
    }
}

/// One device register, and interrupt lines that the test sets.
#[derive(Default)]
pub struct Board {
    pub register: u64,
    pub lines: u8,
}

impl Bus for Board {
    fn read(&mut self, gpa: Gpa, _: u8, _: u64) -> Result<u64, BusError> {
        if gpa.0 == DEVICE { Ok(self.register) } else { Err(BusError) }
    }
    fn write(&mut self, gpa: Gpa, _: u8, value: u64, _: u64) -> Result<(), BusError> {
        if gpa.0 == DEVICE {
            self.register = value;
            Ok(())
        } else {
            Err(BusError)
        }
    }
    fn interrupts(&mut self, _: u64) -> u8 {
        self.lines
    }
    fn deadline(&self, _: u64) -> Option<u64> {
        None
    }
    fn wants_exit(&self) -> bool {
        false
    }
}

/// A nanosecond an instruction.
pub struct Steps;

impl Clock for Steps {
    fn now(&self, retired: u64) -> u64 {
        retired
    }
}

/// The machine.
pub struct Machine {
    pub cpu: Vcpu,
    pub memory: Memory,
    pub board: Board,
}

impl Machine {
    /// With `program` at [`START`], about to run in kernel mode with 64-bit segments and the FPU.
    pub fn new(model: CpuModel, endian: Endian, program: &[u32]) -> Self {
        let mut cpu = Vcpu::with_code_pages(model, endian, 4);
        cpu.write_cp0(12, 0, 0x3400_00e0, 0);
        cpu.set_pc(START);
        let memory = Memory(vec![0; (MEMORY / 8) as usize]);
        let mut machine = Self { cpu, memory, board: Board::default() };
        machine.place(START, program);
        machine
    }

    /// Little-endian, with the model for differential tests.
    pub fn generic(program: &[u32]) -> Self {
        Self::new(CpuModel::mips64r2_generic(), Endian::Little, program)
    }

    /// Writes code at an unmapped address.
    pub fn place(&mut self, va: u64, program: &[u32]) {
        for (n, &word) in program.iter().enumerate() {
            let gpa = (va & 0x1fff_ffff) + 4 * n as u64;
            let bytes = self.cpu.endian().bytes32(word);
            self.memory.page(Gpa(gpa & !0xfff)).expect("in memory").copy_in(gpa & 0xfff, &bytes);
        }
    }

    /// Writes a doubleword, in the guest's order, at a physical address.
    pub fn set_doubleword(&mut self, gpa: u64, value: u64) {
        let swapped = self.cpu.endian() != Endian::NATIVE;
        let value = if swapped { value.swap_bytes() } else { value };
        self.memory.page(Gpa(gpa & !0xfff)).expect("in memory").store64(gpa & 0xfff, value);
    }

    /// Reads a doubleword, in the guest's order, at a physical address.
    pub fn doubleword(&self, gpa: u64) -> u64 {
        let value = self.memory.page(Gpa(gpa & !0xfff)).expect("in memory").load64(gpa & 0xfff);
        if self.cpu.endian() == Endian::NATIVE { value } else { value.swap_bytes() }
    }

    pub fn run(&mut self, limit: u64) -> Exit {
        interp::run(&mut self.cpu, &self.memory, &mut self.board, &Steps, limit)
    }

    /// Runs that many instructions, which must all be executed.
    pub fn step(&mut self, count: u64) {
        let before = self.cpu.retired();
        assert_eq!(self.run(count), Exit::Limit);
        assert_eq!(self.cpu.retired() - before, count);
    }

    /// Reads a CP0 register.
    pub fn cp0(&mut self, reg: u32, sel: u32) -> u64 {
        let now = self.cpu.retired();
        self.cpu.read_cp0(reg, sel, now)
    }
}

/// Assembly: formats, with register numbers as they are.
pub mod asm {
    pub const NOP: u32 = 0;
    pub const fn r(function: u32, rd: u32, rs: u32, rt: u32) -> u32 {
        rs << 21 | rt << 16 | rd << 11 | function
    }
    pub const fn i(opcode: u32, rt: u32, rs: u32, imm: i32) -> u32 {
        opcode << 26 | rs << 21 | rt << 16 | (imm as u32 & 0xffff)
    }
    pub const fn addiu(rt: u32, rs: u32, imm: i32) -> u32 {
        i(0x09, rt, rs, imm)
    }
    pub const fn ori(rt: u32, rs: u32, imm: i32) -> u32 {
        i(0x0d, rt, rs, imm)
    }
    pub const fn beq(rs: u32, rt: u32, words: i32) -> u32 {
        i(0x04, rt, rs, words)
    }
    pub const fn bne(rs: u32, rt: u32, words: i32) -> u32 {
        i(0x05, rt, rs, words)
    }
    pub const fn bnel(rs: u32, rt: u32, words: i32) -> u32 {
        i(0x15, rt, rs, words)
    }
    pub const fn dmtc0(rt: u32, reg: u32, sel: u32) -> u32 {
        0x40a0_0000 | rt << 16 | reg << 11 | sel
    }
    pub const fn mfc0(rt: u32, reg: u32, sel: u32) -> u32 {
        0x4000_0000 | rt << 16 | reg << 11 | sel
    }
    pub const SYSCALL: u32 = 0x0c;
    pub const ERET: u32 = 0x4200_0018;
    pub const WAIT: u32 = 0x4200_0020;
    pub const TLBWR: u32 = 0x4200_0006;
    pub const EI: u32 = 0x4160_6020;
}
