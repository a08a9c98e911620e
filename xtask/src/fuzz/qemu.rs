//! Batches on bare QEMU: its own CPU, without the monitor.

use super::case::read64;
use super::harness::{self, Place};
use super::layout;
use crate::endian::Endian;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A case takes well below a millisecond; a QEMU that stays on one for this long hangs.
const HANG: Duration = Duration::from_secs(120);

/// A bare machine: its command, and the files that stand for its ROM and RAM.
pub struct Machine {
    endian: Endian,
    place: Place,
    command: Box<dyn Fn() -> Command + Send>,
    ram: File,
    ram_path: PathBuf,
    rom_path: PathBuf,
}

/// Looks again and again whether a machine gets on.
pub struct Watch {
    last: (usize, Instant),
    pause: Duration,
}

impl Watch {
    /// From now on.
    pub fn new() -> Self {
        Self { last: (usize::MAX, Instant::now()), pause: Duration::from_millis(2) }
    }

    /// Waits a little; whether the machine, which is at slot `at`, has been there for too long.
    pub fn hangs(&mut self, at: usize) -> bool {
        if at != self.last.0 {
            self.last = (at, Instant::now());
        } else if self.last.1.elapsed() > HANG {
            return true;
        }
        std::thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(Duration::from_millis(50));
        false
    }
}

/// How a run of a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Every slot was run.
    Complete,
    /// No progress in this slot.
    Hang(usize),
    /// QEMU ended before its time, in this slot.
    Died(usize),
}

impl Machine {
    /// A machine with the harness at `place`, whose files lie in `dir`, which exists. `command` makes the command of the QEMU
    /// binary, to which the machine's options are added.
    pub fn new(
        endian: Endian,
        place: Place,
        dir: &Path,
        command: impl Fn() -> Command + Send + 'static,
    ) -> Result<Self> {
        let ram_path = dir.join("ram");
        let rom_path = dir.join("rom");
        let ram = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&ram_path)
            .with_context(|| format!("can't create {}", ram_path.display()))?;
        ram.set_len(layout::RAM_SIZE as u64)
            .with_context(|| format!("can't size {}", ram_path.display()))?;
        // Malta's firmware files are big-endian: QEMU swaps the words of a little-endian machine.
        let rom: Vec<u8> =
            harness::rom_words(place).into_iter().flat_map(u32::to_be_bytes).collect();
        fs::write(&rom_path, rom).with_context(|| format!("can't write {}", rom_path.display()))?;
        Ok(Self { endian, place, command: Box::new(command), ram, ram_path, rom_path })
    }

    /// Runs `slots`, the bytes of consecutive slots from `first` on; afterwards they hold the results.
    pub fn run(&self, first: usize, slots: &mut [u8]) -> Result<End> {
        let count = slots.len() / layout::SLOT_SIZE;
        let low = harness::low_memory(self.endian, self.place, first, first + count);
        self.ram.write_all_at(&low, 0).context("can't write the RAM file")?;
        let at = layout::slot_pa(first);
        self.ram.write_all_at(slots, at).context("can't write the RAM file")?;
        let mut child = self.spawn()?;
        let end = self.watch(&mut child, first + count);
        // Harmless when it has ended already.
        let _ = child.kill();
        child.wait().context("can't wait for QEMU")?;
        self.ram.read_exact_at(slots, at).context("can't read the RAM file")?;
        end
    }

    fn spawn(&self) -> Result<Child> {
        let mut command = (self.command)();
        let megabytes = layout::RAM_SIZE >> 20;
        command
            .args(["-M", "malta,memory-backend=ram", "-cpu", "MIPS64R2-generic"])
            .args(["-m", &format!("{megabytes}M"), "-object"])
            .arg(format!(
                "memory-backend-file,id=ram,size={megabytes}M,share=on,mem-path={}",
                self.ram_path.display()
            ))
            .arg("-bios")
            .arg(&self.rom_path)
            .args(["-nodefaults", "-vga", "none", "-nic", "none", "-display", "none"])
            .args(["-no-reboot", "-accel", "tcg,thread=single,tb-size=128"])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command.spawn().with_context(|| format!("can't start {:?}", command.get_program()))
    }

    /// The slot that the harness is at.
    fn progress(&self) -> Result<usize> {
        let mut bytes = [0; 8];
        self.ram
            .read_exact_at(&mut bytes, layout::CONTROL + layout::control::INDEX as u64)
            .context("can't read the RAM file")?;
        Ok(read64(self.endian, &bytes, 0) as usize)
    }

    fn watch(&self, child: &mut Child, end: usize) -> Result<End> {
        let mut watch = Watch::new();
        loop {
            let ended = child.try_wait().context("can't wait for QEMU")?;
            let at = self.progress()?;
            if let Some(status) = ended {
                if at == end && status.success() {
                    return Ok(End::Complete);
                }
                if at == 0 {
                    bail!("QEMU ended before the first case: {status}");
                }
                return Ok(End::Died(at));
            }
            if watch.hangs(at) {
                return Ok(End::Hang(at));
            }
        }
    }
}
