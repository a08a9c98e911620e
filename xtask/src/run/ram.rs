//! The machine's RAM: a file that QEMU maps as its memory and this program as its side of the rings.
//!
//! This is the one module of the host tool that touches raw memory.

use super::size;
use abi::NodeId;
use abi::layout::Layout;
use abi::ring::SharedMem;
use anyhow::{Context, Result, bail};
use memmap2::{MmapOptions, MmapRaw};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};

/// Room that stays free beside the RAM file: logs, and whoever else writes there.
const MARGIN: u64 = 64 << 20;
/// Names the folder for RAM files, before the usual ones.
const FOLDER_VARIABLE: &str = "HONEYCOMB_RAM_DIR";

/// A folder for the RAM file and how much it can take.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    folder: PathBuf,
    free: u64,
}

/// The folders to try, best first: memory before disk.
fn places() -> Vec<Place> {
    if let Some(folder) = std::env::var_os(FOLDER_VARIABLE) {
        let folder = PathBuf::from(folder);
        return vec![Place { free: free(&folder), folder }];
    }
    let shm = PathBuf::from("/dev/shm");
    // What is on a tmpfs is in memory, however large the file system says it is.
    let shm_free = free(&shm).min(available_memory());
    let temp = std::env::temp_dir();
    vec![Place { folder: shm, free: shm_free }, Place { free: free(&temp), folder: temp }]
}

/// Bytes that this user may still write in a folder; 0 when it is not there.
fn free(folder: &Path) -> u64 {
    rustix::fs::statvfs(folder).map_or(0, |fs| fs.f_bavail.saturating_mul(fs.f_frsize))
}

/// Bytes of memory that can be had without swapping; no limit when the host does not say.
fn available_memory() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
        .map_or(u64::MAX, |kib| kib << 10)
}

/// The first place with room for `size` bytes.
fn choose(places: &[Place], size: u64) -> Result<&Place> {
    if let Some(place) = places.iter().find(|place| place.free >= size.saturating_add(MARGIN)) {
        return Ok(place);
    }
    let found: Vec<_> = places
        .iter()
        .map(|place| format!("{} has {}M free", place.folder.display(), place.free >> 20))
        .collect();
    bail!(
        "no room for the machine's RAM file: {} and {} to spare needed, {}; free some space, set \
         {FOLDER_VARIABLE} to a folder with room, or lower slice_per_node",
        size::show(size),
        size::show(MARGIN),
        found.join(", ")
    )
}

/// A folder in which files of `size` bytes together fit: memory if there is enough, else disk.
///
/// # Errors
/// When no folder has room for them.
pub fn folder_with_room(size: u64) -> Result<PathBuf> {
    Ok(choose(&places(), size)?.folder.clone())
}

/// The machine's RAM. The file has no name: it is gone with the last process that has it open,
/// however that process ends.
#[derive(Clone, Debug)]
pub struct Ram {
    file: Arc<File>,
    map: Arc<MmapRaw>,
}

impl Ram {
    /// Makes RAM of `size` bytes, all zero, and reserves every byte of it, so that a write never
    /// meets a full disk.
    ///
    /// # Errors
    /// When no folder has room for it.
    pub fn new(size: u64) -> Result<Self> {
        let places = places();
        let place = choose(&places, size)?;
        let folder = place.folder.display();
        let file = tempfile::tempfile_in(&place.folder)
            .with_context(|| format!("can't make the machine's RAM file in {folder}"))?;
        rustix::fs::ftruncate(&file, size)
            .and_then(|()| {
                rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size)
            })
            .with_context(|| {
                format!("can't reserve {} for the machine's RAM file in {folder}", size::show(size))
            })?;
        let map = MmapOptions::new()
            .len(usize::try_from(size)?)
            .map_raw(&file)
            .context("can't map the machine's RAM file")?;
        Ok(Self { file: Arc::new(file), map: Arc::new(map) })
    }

    /// Bytes of RAM and windows of a machine.
    pub fn size_of(layout: &Layout) -> u64 {
        layout.ram_size() + u64::from(layout.nodes) * layout.window
    }

    /// Where in the file a node's window begins: the windows lie behind the RAM.
    pub fn window_offset(layout: &Layout, node: NodeId) -> u64 {
        layout.ram_size() + u64::from(node.0) * layout.window
    }

    /// The file, for QEMU to inherit.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Writes bytes at a low physical address, before the machine starts.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&*self.file, bytes, at)
    }

    /// Bytes of the file, from an offset on: consistent only while the machine stands still.
    ///
    /// # Errors
    /// When the file can't be read, or is not so long.
    pub fn read(&self, at: u64, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        std::os::unix::fs::FileExt::read_exact_at(&*self.file, &mut bytes, at)?;
        Ok(bytes)
    }

    /// The `size` bytes at low physical address `base`, as one side of a ring sees them.
    ///
    /// # Panics
    /// When they are not inside the RAM or not aligned to 8 bytes.
    pub fn window(&self, base: u64, size: u64) -> Window {
        let end = base.checked_add(size).expect("a window inside the address space");
        assert!(end <= self.map.len() as u64, "a window inside the RAM");
        assert!(base.is_multiple_of(8) && size.is_multiple_of(8), "a window of whole words");
        Window { map: self.map.clone(), base: base as usize, size: size as usize }
    }
}

/// Part of the machine's RAM, shared with the running machine.
#[derive(Clone, Debug)]
pub struct Window {
    map: Arc<MmapRaw>,
    base: usize,
    size: usize,
}

impl Window {
    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.size, "a word of the window");
        // SAFETY: the word is inside the mapping (`Ram::window` checked the window against it, the
        // assertion the offset against the window) and aligned (a mapping starts on a page, base and
        // offset are multiples of 8). The mapping lives as long as `self.map`, hence as the
        // reference. Everyone in this process reaches it through atomics only, and what the other
        // process writes there can be no undefined behaviour of this one: every bit pattern is a
        // value. The file is never shortened, so that a page can't go away.
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().add(self.base + offset).cast()) }
    }

    fn byte(&self, offset: usize) -> &AtomicU8 {
        assert!(offset < self.size, "a byte of the window");
        // SAFETY: as in `word`; a byte needs no alignment.
        unsafe { AtomicU8::from_ptr(self.map.as_mut_ptr().add(self.base + offset)) }
    }
}

impl SharedMem for Window {
    fn load(&self, offset: u64) -> u64 {
        u64::from_le(self.word(offset as usize).load(Ordering::Acquire))
    }

    fn store(&mut self, offset: u64, value: u64) {
        self.word(offset as usize).store(value.to_le(), Ordering::Release);
    }

    fn copy_out(&self, offset: u64, to: &mut [u8]) {
        let offset = offset as usize;
        let words = if offset.is_multiple_of(8) { to.len() / 8 } else { 0 };
        let (whole, rest) = to.split_at_mut(words * 8);
        for (i, chunk) in whole.chunks_exact_mut(8).enumerate() {
            let word = self.word(offset + i * 8).load(Ordering::Relaxed);
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        for (i, byte) in rest.iter_mut().enumerate() {
            *byte = self.byte(offset + words * 8 + i).load(Ordering::Relaxed);
        }
    }

    fn copy_in(&mut self, offset: u64, from: &[u8]) {
        for (i, byte) in from.iter().enumerate() {
            self.byte(offset as usize + i).store(*byte, Ordering::Relaxed);
        }
    }

    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::ring::{Consumer, Producer, RECORD_MAX};

    #[test]
    fn the_first_place_with_room_is_chosen_and_a_full_host_is_a_clear_error() {
        let place = |folder: &str, mib: u64| Place { folder: folder.into(), free: mib << 20 };
        let places = [place("/dev/shm", 64), place("/tmp", 1000)];
        assert_eq!(choose(&places, 512 << 20).unwrap(), &places[1]);
        let error = choose(&places, 1 << 30).unwrap_err().to_string();
        assert!(
            error.starts_with("no room for the machine's RAM file: 1G and 64M to spare needed")
        );
        assert!(error.contains("/dev/shm has 64M free, /tmp has 1000M free; free some space"));
        assert!(!error.contains('\n'));
    }

    #[test]
    fn a_folder_that_is_not_there_has_no_room() {
        assert_eq!(free(Path::new("/nonexistent")), 0);
        assert!(free(Path::new("/tmp")) > 0);
        assert!(available_memory() > 0);
    }

    #[test]
    fn two_mappings_of_one_file_are_a_ring() {
        let ram = Ram::new(1 << 20).unwrap();
        ram.write(4096, &[1, 2, 3]).unwrap();
        let mut bytes = [0; 4];
        ram.window(4096, 4096).copy_out(0, &mut bytes);
        assert_eq!(bytes, [1, 2, 3, 0]);
        ram.window(4096, 4096).copy_out(1, &mut bytes);
        assert_eq!(bytes, [2, 3, 0, 0]);

        // A second mapping, as the machine has one.
        let other = MmapOptions::new().len(1 << 20).map_raw(ram.file()).unwrap();
        let theirs = Window { map: Arc::new(other), base: 8192, size: 65536 };
        let mut consumer = Consumer::new(ram.window(8192, 65536), 65536);
        consumer.attach(true);
        let writer = std::thread::spawn(move || {
            let mut producer = Producer::new(theirs, 65536, true);
            for seq in 0..5000u64 {
                let payload = vec![seq as u8; (seq % 700) as usize];
                while producer.write(7, seq, seq, &payload).is_err() {
                    std::thread::yield_now();
                }
            }
        });
        let mut buffer = [0; RECORD_MAX];
        for seq in 0..5000u64 {
            let record = loop {
                match consumer.read(&mut buffer).unwrap() {
                    Some(record) => break record,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!((record.stream, record.seq, record.len), (7, seq, (seq % 700) as usize));
            assert!(buffer[..record.len].iter().all(|byte| *byte == seq as u8));
        }
        writer.join().unwrap();
    }
}
