//! Batches in a VM on the monitor: the harness is the VM's kernel, the slots are in its memory.
//!
//! The VM's memory is part of the machine's RAM, which is a file. Where in it is the monitor's affair;
//! marks in the control block and in every result page tell, and that these lie where they should
//! from the first shows that the memory between them does.

use super::case::{bytes32, bytes64, read64};
use super::harness::{self, Place};
use super::layout::{self, MARK, MARK_OFFSET};
use super::qemu::{End, Watch};
use crate::build::Built;
use crate::endian::Endian;
use crate::run::embedded::{Prepared, Running};
use crate::run::stats;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::process::Command;

/// The machine: one CPU, and one VM with QEMU's own processor model.
const CONFIGURATION: &str = r#"
[machine]
cpus_per_node = 1
memory_kind = "ram"
slice_per_node = "160M"
[[vm]]
name = "fuzz"
kernel = "fuzz"
memory = "128M"
cpu = "generic"
"#;

const _: () = assert!(layout::RAM_SIZE == 128 << 20);

/// The machine's end: when the VM has ended, and has said what it has counted.
const SCRIPT: &str = r#"
console monitor
expect "VM `fuzz` ended" 1000000
send stats fuzz
expect "honeycomb> " 60
"#;

/// What executes the VM's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The CPU itself what it can, the interpreter the rest.
    Direct,
    /// The interpreter.
    Interpreter,
    /// The translator, where nothing runs directly.
    Translator,
}

impl Engine {
    /// As a configuration has it.
    const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Interpreter => "interpreter",
            Self::Translator => "translator",
        }
    }
}

/// A machine whose VM runs batches.
pub struct Machine {
    endian: Endian,
    /// The VM's kernel is one that is linked in a supervisor segment, so that its kernel mode is
    /// executed directly where it can be.
    supervisor: bool,
    command: Box<dyn Fn() -> Command + Send>,
    prepared: Prepared,
    /// What the last machine printed, if it did not come to its end.
    pub last_words: String,
    /// What the VM of the last one counted, if it did.
    pub counters: BTreeMap<String, u64>,
}

impl Machine {
    /// A machine of the built programs. `supervisor`: its VM's kernel is linked in a supervisor segment.
    /// `command` makes the command of the QEMU binary.
    ///
    /// # Errors
    /// The monitor's image is wrong.
    pub fn new(
        endian: Endian,
        built: &Built,
        supervisor: bool,
        engine: Engine,
        command: impl Fn() -> Command + Send + 'static,
    ) -> Result<Self> {
        let configuration = format!("{CONFIGURATION}engine = \"{}\"\n", engine.name());
        Ok(Self {
            endian,
            supervisor,
            command: Box::new(command),
            prepared: Prepared::new(built, endian, &configuration, SCRIPT)?,
            last_words: String::new(),
            counters: BTreeMap::new(),
        })
    }

    /// Runs `slots`, the bytes of consecutive slots from `first` on; afterwards they hold the results.
    ///
    /// # Errors
    /// The machine does not start, or its VM's memory is not as it must be.
    pub fn run(&mut self, first: usize, slots: &mut [u8]) -> Result<End> {
        let end = first + slots.len() / layout::SLOT_SIZE;
        let kernel = kernel(self.endian, self.supervisor, first, slots);
        let mut running = self.prepared.start((self.command)(), kernel)?;
        self.last_words.clear();
        self.counters.clear();
        let how = self.watch(&mut running, end)?;
        if how == End::Complete {
            self.counters = running.words().lines().filter_map(stats::counter).collect();
        } else {
            self.last_words = running.words();
        }
        let result = self.find(&running, first as u64).context("the first slot's mark has gone")?;
        let at = result - layout::RESULT as u64;
        self.check_marks(&running, at, first..end)?;
        running.read(at, slots);
        for slot in slots.chunks_exact_mut(layout::SLOT_SIZE) {
            // As bare QEMU's slots are.
            let mark = layout::RESULT + MARK_OFFSET;
            slot[mark..mark + 16].fill(0);
        }
        Ok(how)
    }

    /// Waits for the end; how it ended.
    fn watch(&self, running: &mut Running, end: usize) -> Result<End> {
        let mut watch = Watch::new();
        let mut control = None;
        loop {
            let ended = running.ended()?;
            if control.is_none() {
                control = self.find(running, layout::CONTROL_MARK);
            }
            let at = control.map(|control| self.progress(running, control));
            match (at, ended) {
                (Some(at), Some(status)) => {
                    let complete = at == end && status.success();
                    return Ok(if complete { End::Complete } else { End::Died(at) });
                }
                (_, Some(status)) => {
                    bail!("QEMU ended before the first case: {status}\n{}", running.words());
                }
                _ => {}
            }
            if watch.hangs(at.unwrap_or(usize::MAX)) {
                match at {
                    Some(at) => return Ok(End::Hang(at)),
                    None => bail!("the VM does not start\n{}", running.words()),
                }
            }
        }
    }

    /// The slot that the harness is at.
    fn progress(&self, running: &Running, control: u64) -> usize {
        let mut bytes = [0; 8];
        running.read(control + layout::control::INDEX as u64, &mut bytes);
        read64(self.endian, &bytes, 0) as usize
    }

    fn mark(&self, running: &Running, page: u64) -> Option<u64> {
        let mut mark = [0; 16];
        running.read(page + MARK_OFFSET as u64, &mut mark);
        (read64(self.endian, &mark, 0) == MARK).then(|| read64(self.endian, &mark, 8))
    }

    /// The page with this mark.
    fn find(&self, running: &Running, wanted: u64) -> Option<u64> {
        let pages = running.slices().step_by(layout::PAGE);
        pages.into_iter().find(|&page| self.mark(running, page) == Some(wanted))
    }

    fn check_marks(&self, running: &Running, at: u64, slots: std::ops::Range<usize>) -> Result<()> {
        let first = slots.start;
        for slot in slots {
            let page = at + ((slot - first) * layout::SLOT_SIZE + layout::RESULT) as u64;
            if self.mark(running, page) != Some(slot as u64) {
                bail!("the slots are not in one piece: slot {slot} is not where it should be");
            }
        }
        Ok(())
    }
}

/// The VM's kernel: an ELF file with the harness, and the slots with their marks. `supervisor`: the slots are
/// linked in CKSSEG.
fn kernel(endian: Endian, supervisor: bool, first: usize, slots: &[u8]) -> Vec<u8> {
    let low =
        harness::low_memory(endian, Place::Ram, first, first + slots.len() / layout::SLOT_SIZE);
    let arguments = layout::ARGUMENTS;
    let (start, end) = (arguments.start as usize, arguments.end as usize);
    let link = if supervisor { 0xffff_ffff_c000_0000 } else { layout::kseg0(0) };
    let slots_at = layout::slot_pa(first);
    let segments = [
        (layout::kseg0(0), 0, &low[..start]),
        (layout::kseg0(arguments.end), arguments.end, &low[end..]),
        (link + slots_at, slots_at, slots),
    ];
    let mut out = elf::file(endian, layout::kseg0(layout::HARNESS), &segments);
    let in_file = out.len() - slots.len();
    for slot in 0..slots.len() / layout::SLOT_SIZE {
        let at = in_file + slot * layout::SLOT_SIZE + layout::RESULT + MARK_OFFSET;
        out[at..at + 8].copy_from_slice(&bytes64(endian, MARK));
        out[at + 8..at + 16].copy_from_slice(&bytes64(endian, (first + slot) as u64));
    }
    out
}

/// The least ELF file that a VM takes for its kernel (System V ABI, ELF-64 object file format 1.5).
mod elf {
    use super::{Endian, bytes32, bytes64, layout};

    const HEADER: usize = 64;
    const PROGRAM_HEADER: usize = 56;

    /// A file of segments, given by virtual and physical address; the last one's bytes end the file.
    pub fn file(endian: Endian, entry: u64, segments: &[(u64, u64, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        let half = |value: u16| match endian {
            Endian::Little => value.to_le_bytes(),
            Endian::Big => value.to_be_bytes(),
        };
        let order = match endian {
            Endian::Little => 1,
            Endian::Big => 2,
        };
        // Identification: 64 bits, the byte order, version 1. Then: executable, MIPS, version 1.
        out.extend([0x7f, b'E', b'L', b'F', 2, order, 1]);
        out.resize(16, 0);
        out.extend(half(2));
        out.extend(half(8));
        out.extend(bytes32(endian, 1));
        for value in [entry, HEADER as u64, 0] {
            out.extend(bytes64(endian, value));
        }
        // Flags: MIPS64 release 2.
        out.extend(bytes32(endian, 0x8000_0000));
        for value in [HEADER, PROGRAM_HEADER, segments.len(), 0, 0, 0] {
            out.extend(half(value as u16));
        }
        let mut offset = HEADER + segments.len() * PROGRAM_HEADER;
        for (link, at, bytes) in segments {
            // PT_LOAD; read, write, execute.
            out.extend(bytes32(endian, 1));
            out.extend(bytes32(endian, 7));
            let size = bytes.len() as u64;
            for value in [offset as u64, *link, *at, size, size, layout::PAGE as u64] {
                out.extend(bytes64(endian, value));
            }
            offset += bytes.len();
        }
        for (_, _, bytes) in segments {
            out.extend_from_slice(bytes);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_core::image::elf::Elf;

    #[test]
    fn the_kernel_is_one_that_a_vm_takes() {
        for (endian, order) in [
            (Endian::Little, vmm_core::endian::Endian::Little),
            (Endian::Big, vmm_core::endian::Endian::Big),
        ] {
            let slots = vec![7; 2 * layout::SLOT_SIZE];
            let file = kernel(endian, true, 3, &slots);
            let elf = Elf::parse(&file, order, layout::RAM_SIZE as u64).unwrap();
            assert_eq!(elf.entry, 0xffff_ffff_8000_c000);
            let segment = elf.segments[2];
            assert_eq!(segment.vaddr, 0xffff_ffff_c000_0000 + layout::slot_pa(3));
            assert_eq!((segment.gpa.0, segment.mem_len), (layout::slot_pa(3), 2 * 0x4000));
            let at =
                segment.file_offset as usize + layout::SLOT_SIZE + layout::RESULT + MARK_OFFSET;
            assert_eq!(read64(endian, &file, at), MARK);
            assert_eq!(read64(endian, &file, at + 8), 4);
        }
    }
}
