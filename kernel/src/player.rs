//! The player rings: how the leader and the others reach each other, in low RAM; and what cells note there for each other.

use crate::link::LowRam;
use crate::machine;
use abi::ids::MAX_CELLS;
use abi::note::Notebook;
use abi::ring::{Consumer, Producer, RECORD_MAX, Waits};
use abi::{CellId, map};
use alloc::boxed::Box;
use alloc::vec::Vec;
use cell::Note;

/// A ring's writer. Records are told apart by their place alone, so that a successor needs no count.
struct Writer(Producer<LowRam>);

impl Writer {
    fn new(base: u64, size: u64) -> Self {
        Self(Producer::resume(LowRam::new(base, size), size, Waits::Always))
    }

    fn write(&mut self, stream: u16, t_ns: u64, bytes: &[u8]) -> bool {
        self.0.write(stream, 0, t_ns, bytes).is_ok()
    }
}

/// A ring's reader.
struct Reader {
    ring: Consumer<LowRam>,
    /// What it has read made no sense: it is not read any more.
    deaf: bool,
}

impl Reader {
    fn new(base: u64, size: u64) -> Self {
        Self { ring: Consumer::resume(LowRam::new(base, size), size), deaf: false }
    }

    fn read(&mut self, buffer: &mut [u8; RECORD_MAX]) -> Option<(u16, u64, Vec<u8>)> {
        if self.deaf {
            return None;
        }
        self.ring.release();
        match self.ring.peek(buffer) {
            Ok(record) => {
                record.map(|record| (record.stream, record.t_ns, buffer[..record.len].to_vec()))
            }
            Err(broken) => {
                self.deaf = true;
                log::error!("a player ring is damaged, it is not read any more: {broken:?}");
                None
            }
        }
    }
}

/// One cell's ends of all the rings that it uses.
pub(crate) struct Rings {
    reports: Writer,
    orders: Reader,
    /// Of every cell, once this one serves the console: its orders and reports.
    console: [Option<Box<(Writer, Reader)>>; MAX_CELLS],
    buffer: Box<[u8; RECORD_MAX]>,
    /// What this cell notes for the next leader: it does so all the time.
    leader_note: Notebook<LowRam>,
    cell: CellId,
}

/// A note of a cell.
fn notebook(cell: CellId, note: Note) -> Notebook<LowRam> {
    let (base, size) = match note {
        Note::Leader => (map::leader_note(cell), map::LEADER_NOTE_SIZE),
        Note::Faults => (map::faults_note(cell), map::FAULTS_NOTE_SIZE),
        Note::Vms => (map::vms_note(cell), map::VMS_NOTE_SIZE),
    };
    Notebook::new(LowRam::new(base, size), size)
}

impl Rings {
    /// The rings of cell `cell`. What it was ordered to do before it booted is not done any more.
    pub(crate) fn new(cell: CellId) -> Self {
        let mut orders = Reader::new(map::player_in(cell), map::PLAYER_IN_SIZE);
        if machine::incarnation() > 1 {
            orders.ring.skip();
        }
        Self {
            reports: Writer::new(map::player_out(cell), map::PLAYER_OUT_SIZE),
            orders,
            console: [const { None }; MAX_CELLS],
            buffer: Box::new([0; RECORD_MAX]),
            leader_note: notebook(cell, Note::Leader),
            cell,
        }
    }

    /// As [`cell::Machine::lead`].
    pub(crate) fn lead(&mut self) {
        self.console = [const { None }; MAX_CELLS];
    }

    /// As [`cell::Machine::note`].
    pub(crate) fn note(&mut self, cell: CellId, note: Note, bytes: &[u8]) -> bool {
        match note {
            Note::Leader if cell == self.cell => self.leader_note.write(bytes),
            _ => notebook(cell, note).write(bytes),
        }
    }

    /// As [`cell::Machine::noted`].
    pub(crate) fn noted(cell: CellId, note: Note) -> Vec<u8> {
        notebook(cell, note).read().unwrap_or_default()
    }

    /// As [`cell::Machine::report`].
    pub(crate) fn report(&mut self, stream: u16, t_ns: u64, bytes: &[u8]) -> bool {
        self.reports.write(stream, t_ns, bytes)
    }

    /// As [`cell::Machine::take_order`].
    pub(crate) fn take_order(&mut self) -> Option<(u16, Vec<u8>)> {
        let record = self.orders.read(&mut self.buffer);
        record.map(|(stream, _, bytes)| (stream, bytes))
    }

    fn of(&mut self, cell: CellId) -> &mut (Writer, Reader) {
        self.console[usize::from(cell.0)].get_or_insert_with(|| {
            let orders = Writer::new(map::player_in(cell), map::PLAYER_IN_SIZE);
            Box::new((orders, Reader::new(map::player_out(cell), map::PLAYER_OUT_SIZE)))
        })
    }

    /// As [`cell::Machine::order`].
    pub(crate) fn order(&mut self, cell: CellId, stream: u16, t_ns: u64, bytes: &[u8]) -> bool {
        self.of(cell).0.write(stream, t_ns, bytes)
    }

    /// As [`cell::Machine::take_report`].
    pub(crate) fn take_report(&mut self, cell: CellId) -> Option<(u16, u64, Vec<u8>)> {
        self.of(cell);
        let (_, reports) = &mut **self.console[usize::from(cell.0)].as_mut()?;
        reports.read(&mut self.buffer)
    }
}
