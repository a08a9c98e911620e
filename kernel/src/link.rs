//! The host link: this cell's rings in low RAM.

use crate::careful::xkphys;
use crate::lock::Lock;
use crate::page::cpu;
use crate::{asm, clock, machine};
use abi::event::{Event, Kind};
use abi::ring::{Consumer, Full, Producer, RECORD_MAX, SharedMem, Waits, stream};
use abi::{CellId, Mpa, map};
use alloc::vec::Vec;

/// How long a record waits for an attached reader before it is dropped (its stream then shows a gap):
/// longer than any host pauses a process that it will resume.
const PATIENCE_NS: u64 = 60_000_000_000;

/// Low RAM that the host reads and writes at the same time.
#[derive(Debug)]
pub(crate) struct LowRam {
    base: u64,
    len: u64,
}

impl LowRam {
    /// Low physical addresses `base..base + len`, by their canonical machine addresses.
    pub(crate) fn new(base: u64, len: u64) -> Self {
        assert!(base + len <= map::LOW_RAM_SIZE, "a range of low RAM");
        Self { base: xkphys(Mpa(map::RAM_BASE + base)), len }
    }

    fn at(&self, offset: u64, len: u64) -> u64 {
        assert!(offset <= self.len && len <= self.len - offset, "an offset in the ring");
        self.base + offset
    }
}

impl SharedMem for LowRam {
    fn load(&self, offset: u64) -> u64 {
        let at = self.at(offset, 8) as *const u64;
        // SAFETY: inside low RAM, which is always there, and aligned; volatile, since the host writes.
        let word = u64::from_le(unsafe { at.read_volatile() });
        asm::sync();
        word
    }

    fn store(&mut self, offset: u64, value: u64) {
        let at = self.at(offset, 8) as *mut u64;
        asm::sync();
        // SAFETY: as for `load`.
        unsafe { at.write_volatile(value.to_le()) };
    }

    fn copy_out(&self, offset: u64, to: &mut [u8]) {
        let at = self.at(offset, to.len() as u64) as *const u8;
        // SAFETY: inside low RAM, and not `to`, which is memory of the monitor. The host does not
        // write what the ring's protocol says is readable.
        unsafe { core::ptr::copy_nonoverlapping(at, to.as_mut_ptr(), to.len()) };
    }

    fn copy_in(&mut self, offset: u64, from: &[u8]) {
        let at = self.at(offset, from.len() as u64) as *mut u8;
        // SAFETY: as for `copy_out`.
        unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), at, from.len()) };
    }

    fn fence(&self) {
        asm::sync();
    }
}

/// The cell's end of the host link.
pub(crate) struct Link {
    out: Producer<LowRam>,
    input: Consumer<LowRam>,
    /// Records written, by stream.
    sequence: Vec<u64>,
    buffer: [u8; RECORD_MAX],
    cell: CellId,
    /// The input ring made no sense: it is not read any more.
    deaf: bool,
}

/// The link, once it is up.
static LINK: Lock<Option<Link>> = Lock::new("host link", None);

/// Brings the link of cell `cell` up. Under icount the output never waits for its reader.
pub(crate) fn init(cell: CellId, icount: bool) {
    let out = LowRam::new(map::out_ring(cell), map::OUT_RING_SIZE);
    let input = LowRam::new(map::in_ring(cell), map::IN_RING_SIZE);
    let waits = if icount { Waits::Never } else { Waits::WhileAttached };
    // What was typed before the cell booted again was typed at another.
    let mut input = Consumer::resume(input, map::IN_RING_SIZE);
    if machine::incarnation() > 1 {
        input.skip();
    }
    *LINK.lock() = Some(Link {
        out: Producer::resume(out, map::OUT_RING_SIZE, waits),
        input,
        sequence: Vec::new(),
        buffer: [0; RECORD_MAX],
        cell,
        deaf: false,
    });
}

impl Link {
    /// Writes one record; `false` if the ring is full and its reader may yet make room.
    fn try_write(&mut self, to: u16, t_ns: u64, payload: &[u8]) -> bool {
        let index = usize::from(to);
        if self.sequence.len() <= index {
            self.sequence.resize(index + 1, 0);
        }
        match self.out.write(to, self.sequence[index], t_ns, payload) {
            Ok(()) => {
                self.sequence[index] += 1;
                true
            }
            Err(Full::Wait) => false,
        }
    }
}

/// Writes one record of at most [`RECORD_MAX`] bytes, waiting for room. Does nothing while the link is
/// not up.
pub(crate) fn write(to: u16, t_ns: u64, payload: &[u8]) {
    let give_up = clock::now() + PATIENCE_NS;
    loop {
        let mut link = LINK.lock();
        let Some(up) = link.as_mut() else { return };
        if up.try_write(to, t_ns, payload) {
            return;
        }
        if clock::now() > give_up {
            // The gap in the stream tells the reader, should it ever come back.
            up.sequence[usize::from(to)] += 1;
            return;
        }
        drop(link);
        core::hint::spin_loop();
    }
}

/// Reports an event that the cell itself can't report any more.
pub(crate) fn event(kind: Kind<'_>) {
    let index = usize::from(stream::EVENTS);
    let head = LINK
        .lock()
        .as_ref()
        .map(|link| (link.sequence.get(index).copied().unwrap_or(0), i32::from(link.cell.0)));
    let Some((seq, cell)) = head else { return };
    let t_ns = clock::now();
    let event = Event { seq, t_ns, cell, cpu: cpu() as i32, kind };
    write(stream::EVENTS, t_ns, &event.encode());
}

/// Takes what has been typed, if anything has: the stream and the bytes go to `take`. Tells the reader of the
/// output how late it is.
pub(crate) fn poll_input(mut take: impl FnMut(u16, &[u8])) {
    loop {
        let mut link = LINK.lock();
        let Some(up) = link.as_mut() else { return };
        up.out.advance(clock::now());
        if up.deaf {
            return;
        }
        let record = match up.input.read(&mut up.buffer) {
            Ok(Some(record)) => record,
            Ok(None) => return,
            Err(broken) => {
                up.deaf = true;
                drop(link);
                log::error!("the input ring is damaged, what is typed is lost: {broken:?}");
                return;
            }
        };
        let bytes = up.buffer[..record.len].to_vec();
        drop(link);
        take(record.stream, &bytes);
    }
}

/// Makes the link usable for the report of a panic.
///
/// # Safety
/// As for [`Lock::break_open`].
pub(crate) unsafe fn break_open() {
    // SAFETY: the caller answers for it.
    unsafe { LINK.break_open() };
}
