//! The FPU alone, against QEMU's: every floating-point instruction on many operands, modes and
//! enabled traps. Half a million cases a second, where streams of whole instructions give a few
//! thousand, with less luck in reaching an edge.
//!
//! One boot of bare QEMU runs one batch. Its RAM file holds, for each instruction, the range of its
//! cases, and the cases: operands and FCSR, and behind them the place for the results. The program
//! lies in the boot ROM, one loop an instruction.

mod operands;
mod ops;

use super::asm::{Asm, cp0};
use super::case::{bytes64, read64};
use super::rng::Rng;
use crate::endian::Endian;
use crate::setup::qemu::Qemu;
use anyhow::{Context, Result, bail};
use ops::{FD, FR, FS, FT, Op, Operands, Writes};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use vmm_core::fpu::Fcsr;

/// Ranges of cases, two doublewords for each instruction: KSEG0 addresses of the first and behind
/// the last.
const DIRECTORY: u64 = 0x1_0000;
/// The cases.
const CASES: u64 = 0x10_0000;
/// Bytes of RAM of the machine.
const RAM_SIZE: u64 = 64 << 20;
/// KSEG0.
const KSEG0: u64 = 0xffff_ffff_8000_0000;

/// Cases of one boot, at most.
const BATCH: u64 = 1_000_000;
/// A batch takes a second or two; a QEMU that needs this long hangs.
const HANG: Duration = Duration::from_secs(600);
/// Differences that are described.
const REPORTED: usize = 10;

/// Fields of a case, doublewords. fd is operand and result: an instruction may leave half of it.
mod case {
    pub const FS: i32 = 0;
    pub const FT: i32 = 8;
    pub const FR: i32 = 16;
    pub const FD: i32 = 24;
    pub const FCSR: i32 = 32;
    /// 0, or the Cause register of the exception. A result.
    pub const TRAP: i32 = 40;
    pub const SIZE: usize = 48;
}

const _: () = assert!(CASES + BATCH * case::SIZE as u64 <= RAM_SIZE);

/// ExcCode in Cause, and its value for a floating-point exception.
const EXC_CODE: u32 = 0x1f << 2;
/// See [`EXC_CODE`].
const FPE: u32 = 15 << 2;

const S0: u32 = 16;
const S1: u32 = 17;
const T0: u32 = 8;
const T1: u32 = 9;
const TRAP: u32 = 10;
const K0: u32 = 26;

/// The program: starts at the reset vector, ends the machine after the last case.
fn program(ops: &[Op]) -> Vec<u32> {
    let mut asm = Asm::new();
    let main = asm.label();
    asm.b(main);
    asm.nop();
    // The general exception vector with BEV set: note Cause, skip the instruction.
    asm.pad_to(0x380 / 4);
    asm.mfc0(TRAP, cp0::CAUSE);
    asm.dmfc0(K0, cp0::EPC);
    asm.daddiu(K0, 4, K0);
    asm.dmtc0(K0, cp0::EPC);
    asm.ehb();
    asm.eret();
    asm.bind(main);
    // CU1, FR, BEV, KX.
    asm.li32(T0, 0x2440_0080);
    asm.mtc0(T0, cp0::STATUS);
    asm.ehb();
    for (index, op) in ops.iter().enumerate() {
        let next = asm.label();
        let again = asm.label();
        asm.li64(T0, KSEG0 | (DIRECTORY + index as u64 * 16));
        asm.ld(S0, 0, T0);
        asm.ld(S1, 8, T0);
        asm.beq(S0, S1, next);
        asm.nop();
        asm.bind(again);
        asm.ldc1(FS, case::FS, S0);
        asm.ldc1(FT, case::FT, S0);
        asm.ldc1(FR, case::FR, S0);
        asm.ldc1(FD, case::FD, S0);
        asm.ld(T0, case::FCSR, S0);
        asm.addiu(TRAP, 0, 0);
        asm.ctc1(T0, 31);
        asm.word(op.word);
        asm.cfc1(T1, 31);
        asm.sdc1(FD, case::FD, S0);
        asm.sd(T1, case::FCSR, S0);
        asm.sd(TRAP, case::TRAP, S0);
        asm.daddiu(S0, case::SIZE as i32, S0);
        asm.bne(S0, S1, again);
        asm.nop();
        asm.bind(next);
    }
    // SOFTRES: with -no-reboot the machine ends with status 0.
    asm.li32(T0, 0xbf00_0500u32 as i32);
    asm.addiu(T1, 0x42, 0);
    asm.sw(T1, 0, T0);
    let stop = asm.label();
    asm.bind(stop);
    asm.b(stop);
    asm.nop();
    asm.finish()
}

/// One case, before and after.
struct Case {
    number: u64,
    op: usize,
    operands: Operands,
    fd: u64,
    fcsr: u32,
}

impl Case {
    fn new(ops: &[Op], seed: u64, number: u64) -> Self {
        let mut rng = Rng::new(seed, number);
        let op = (number % ops.len() as u64) as usize;
        let operands = operands::operands(&mut rng, ops[op].kind);
        Self { number, op, operands, fd: rng.bits(), fcsr: operands::fcsr(&mut rng) }
    }

    /// fd, FCSR, and whether FPE was raised, as they should be.
    fn expected(&self, ops: &[Op]) -> (u64, u32, bool) {
        let op = &ops[self.op];
        let mut fcsr = Fcsr::from_bits(self.fcsr);
        match (op.model)(self.operands, &mut fcsr) {
            Err(_) => (self.fd, fcsr.bits(), true),
            Ok(value) => {
                let fd = match op.writes {
                    Writes::Nothing => self.fd,
                    Writes::Lower => self.fd & !0xffff_ffff | value,
                    Writes::All => value,
                };
                (fd, fcsr.bits(), false)
            }
        }
    }
}

/// What was compared.
#[derive(Debug, Default)]
pub struct Found {
    /// How many cases.
    pub compared: u64,
    /// How many of them differ.
    pub differences: u64,
    /// Descriptions of the first ones.
    pub reports: Vec<String>,
}

/// Runs the cases `numbers` under `seed`, with QEMU's files below `folder`. With `progress`, a line
/// for every batch.
///
/// # Errors
/// QEMU doesn't start, fails or hangs, or its files can't be written.
pub fn run(
    qemu: &Qemu,
    endian: Endian,
    folder: &Path,
    seed: u64,
    numbers: Range<u64>,
    progress: bool,
) -> Result<Found> {
    let dir = tempfile::tempdir_in(folder)
        .with_context(|| format!("can't make a folder in {}", folder.display()))?;
    let start = Instant::now();
    let mut found = Found::default();
    let mut first = numbers.start;
    while first < numbers.end {
        let end = numbers.end.min(first.saturating_add(BATCH));
        batch(qemu.command(), endian, dir.path(), seed, first..end, &mut found)?;
        if progress {
            eprintln!(
                "  up to case {end}: {} compared, {} differ, {:.0} s",
                found.compared,
                found.differences,
                start.elapsed().as_secs_f64()
            );
        }
        first = end;
    }
    Ok(found)
}

/// One boot: at most [`BATCH`] cases.
fn batch(
    mut qemu: Command,
    endian: Endian,
    dir: &Path,
    seed: u64,
    numbers: Range<u64>,
    found: &mut Found,
) -> Result<()> {
    let ops = ops::all();
    let mut cases: Vec<Case> = numbers.map(|number| Case::new(&ops, seed, number)).collect();
    // The program runs one instruction's cases after the other's.
    cases.sort_by_key(|case| case.op);

    let (rom, ram) = (dir.join("float.rom"), dir.join("float.ram"));
    // Firmware files are big-endian: for a little-endian machine QEMU swaps their words.
    let code: Vec<u8> = program(&ops).into_iter().flat_map(u32::to_be_bytes).collect();
    std::fs::write(&rom, code).with_context(|| format!("can't write {}", rom.display()))?;
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&ram);
    let file = file.with_context(|| format!("can't create {}", ram.display()))?;
    let writing = || format!("can't write {}", ram.display());
    file.set_len(RAM_SIZE).with_context(writing)?;
    let place = |index: usize| KSEG0 | (CASES + (index * case::SIZE) as u64);
    let directory: Vec<u8> = (0..ops.len())
        .flat_map(|op| {
            [cases.partition_point(|c| c.op < op), cases.partition_point(|c| c.op <= op)]
        })
        .flat_map(|index| bytes64(endian, place(index)))
        .collect();
    file.write_all_at(&directory, DIRECTORY).with_context(writing)?;
    let mut memory: Vec<u8> = cases
        .iter()
        .flat_map(|case| {
            let Operands { fs, ft, fr } = case.operands;
            [fs, ft, fr, case.fd, case.fcsr.into(), u64::MAX]
        })
        .flat_map(|value| bytes64(endian, value))
        .collect();
    file.write_all_at(&memory, CASES).with_context(writing)?;

    let megabytes = RAM_SIZE >> 20;
    qemu.args(["-M", "malta,memory-backend=ram", "-cpu", "MIPS64R2-generic", "-m"])
        .arg(format!("{megabytes}M"))
        .arg("-object")
        .arg(format!(
            "memory-backend-file,id=ram,size={megabytes}M,share=on,mem-path={}",
            ram.display()
        ))
        .arg("-bios")
        .arg(&rom)
        .args(["-nodefaults", "-vga", "none", "-nic", "none", "-display", "none", "-no-reboot"])
        .stdin(Stdio::null());
    finish(&mut qemu)?;
    file.read_exact_at(&mut memory, CASES)
        .with_context(|| format!("can't read {}", ram.display()))?;

    found.compared += cases.len() as u64;
    for (case, record) in cases.iter().zip(memory.chunks_exact(case::SIZE)) {
        let field = |at: i32| read64(endian, record, at as usize);
        let trap = field(case::TRAP) as u32;
        let theirs = (field(case::FD), field(case::FCSR) as u32, trap != 0);
        let ours = case.expected(&ops);
        if theirs == ours && (trap == 0 || trap & EXC_CODE == FPE) {
            continue;
        }
        found.differences += 1;
        if found.reports.len() < REPORTED {
            let Operands { fs, ft, fr } = case.operands;
            found.reports.push(format!(
                "case {}: {} fs {fs:016x} ft {ft:016x} fr {fr:016x} fd {:016x} fcsr {:08x}\n  \
                 QEMU: fd {:016x} fcsr {:08x} cause {trap:08x}\n  \
                 ours: fd {:016x} fcsr {:08x}{}",
                case.number,
                ops[case.op].name,
                case.fd,
                case.fcsr,
                theirs.0,
                theirs.1,
                ours.0,
                ours.1,
                if ours.2 { " traps" } else { "" },
            ));
        }
    }
    Ok(())
}

/// Waits until the machine has ended itself.
fn finish(qemu: &mut Command) -> Result<()> {
    let mut child =
        qemu.spawn().with_context(|| format!("can't start {:?}", qemu.get_program()))?;
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("can't wait for QEMU")? {
            if !status.success() {
                bail!("QEMU failed: {status}");
            }
            return Ok(());
        }
        if start.elapsed() > HANG {
            // Harmless when it has just ended.
            let _ = child.kill();
            child.wait().context("can't wait for QEMU")?;
            bail!("QEMU hangs: not one batch in {} s", HANG.as_secs());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
