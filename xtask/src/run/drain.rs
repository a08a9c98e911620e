//! Reads what the cells print: every record of every output ring, checked for gaps, in the order of their
//! times.
//!
//! A cell promises not to print anything of before its ring's clock any more: what is older than all clocks is
//! merged and delivered, so that two runs whose cells print the same at the same times deliver the same,
//! whenever the host looks. (Equal times: the lower cell's first.) A cell that is lost is not waited for, nor
//! one that stands still.

use super::ram::{Ram, Window};
use abi::ids::MAX_CELLS;
use abi::layout::Layout;
use abi::ring::{Broken, Consumer, Producer, RECORD_MAX, Record, SharedMem, stream};
use abi::{CellId, hub, map};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// How long the other cells' output waits for a cell whose clock stands still.
const PATIENCE: Duration = Duration::from_secs(1);

/// What was lost: the run's output is of no more use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// One line for the operator.
    pub what: String,
}

/// The reader of all cells' output rings.
#[derive(Debug)]
pub struct Drain {
    cells: Vec<Cell>,
    names: Vec<String>,
    buffer: Box<[u8; RECORD_MAX]>,
    /// What has been delivered is of before this time, which has not changed since.
    limit: (u64, Instant),
}

#[derive(Debug)]
struct Cell {
    ring: Consumer<Window>,
    /// Not 0 when its lowest CPU has parked.
    parked: Window,
    next: BTreeMap<u16, u64>,
    /// Read, not delivered.
    waiting: VecDeque<(Record, Vec<u8>)>,
    /// The ring was overrun; the first gap after it will name a stream.
    lapped: bool,
}

impl Cell {
    /// A time that nothing it will still print is earlier than.
    fn clock(&self) -> u64 {
        if self.parked.load(0) != 0 { u64::MAX } else { self.ring.clock() }
    }

    /// Takes what there is out of the ring.
    fn read(
        &mut self,
        index: usize,
        names: &[String],
        buffer: &mut [u8; RECORD_MAX],
    ) -> Result<(), Lost> {
        loop {
            match self.ring.read(buffer) {
                Ok(None) => return Ok(()),
                Ok(Some(record)) => {
                    let next = self.next.entry(record.stream).or_insert(0);
                    // A cell that has booted again begins again.
                    if record.seq == 0 {
                        *next = 0;
                    }
                    if record.seq != *next {
                        return Err(Lost {
                            what: format!(
                                "stream {} of cell {index} was overrun: record {} came instead of {next}",
                                stream_name(names, record.stream),
                                record.seq
                            ),
                        });
                    }
                    *next += 1;
                    self.waiting.push_back((record, buffer[..record.len].to_vec()));
                }
                Err(Broken::Overrun) => {
                    self.lapped = true;
                    self.ring.skip();
                }
                Err(Broken::Corrupt(error)) => {
                    return Err(Lost {
                        what: format!("the output ring of cell {index} is damaged: {error}"),
                    });
                }
            }
        }
    }
}

impl Drain {
    /// A reader of the rings of a machine's cells, of VMs called `names`, made before the machine starts.
    pub fn new(ram: &Ram, layout: &Layout, names: Vec<String>) -> Self {
        let cell = |cell: u8| {
            let window = ram.window(map::out_ring(CellId(cell)), map::OUT_RING_SIZE);
            let mut ring = Consumer::new(window, map::OUT_RING_SIZE);
            ring.attach(true);
            let first = layout.cpus_of(CellId(cell)).next().expect("a cell has CPUs");
            let parked = ram.window(hub::parked_address(layout, first), 8);
            Cell { ring, parked, next: BTreeMap::new(), waiting: VecDeque::new(), lapped: false }
        };
        Self {
            cells: (0..layout.cells()).map(cell).collect(),
            names,
            buffer: Box::new([0; RECORD_MAX]),
            limit: (0, Instant::now()),
        }
    }

    /// Gives what is older than all clocks to `take` (cell, record, payload), or, if it is the `last` time,
    /// everything; how many records there were.
    ///
    /// # Errors
    /// When records were lost or a ring is damaged: what there was before is delivered all the same.
    pub fn poll(
        &mut self,
        last: bool,
        mut take: impl FnMut(usize, Record, &[u8]),
    ) -> Result<usize, Lost> {
        let mut limit = self.cells.iter().map(Cell::clock).min().unwrap_or(0);
        let mut lost = Ok(());
        for (index, cell) in self.cells.iter_mut().enumerate() {
            let read = cell.read(index, &self.names, &mut self.buffer);
            lost = lost.and(read);
        }
        let now = Instant::now();
        if limit != self.limit.0 {
            self.limit = (limit, now);
        }
        let alone = self.cells.len() == 1;
        if last || alone || lost.is_err() || now - self.limit.1 >= PATIENCE {
            limit = u64::MAX;
        }
        let mut count = 0;
        loop {
            let heads = self.cells.iter().enumerate();
            let heads = heads.filter_map(|(i, cell)| Some((cell.waiting.front()?.0.t_ns, i)));
            // What is of the same time as a clock may still be followed by a lower cell's.
            let ready = |(time, _): &(u64, usize)| *time < limit || limit == u64::MAX;
            let Some((_, index)) = heads.min().filter(ready) else { break };
            if let Some((record, payload)) = self.cells[index].waiting.pop_front() {
                take(index, record, &payload);
                count += 1;
            }
        }
        lost.map(|()| count)
    }

    /// Whether records were lost of a stream that has printed nothing since.
    ///
    /// # Errors
    /// When they were.
    pub fn finish(&self) -> Result<(), Lost> {
        match self.cells.iter().position(|cell| cell.lapped) {
            None => Ok(()),
            Some(cell) => Err(Lost {
                what: format!(
                    "the output ring of cell {cell} was overrun; any of its streams may have lost records"
                ),
            }),
        }
    }
}

/// How messages and log files call a stream.
pub fn stream_name(vms: &[String], number: u16) -> String {
    let vm = number.checked_sub(stream::VM_BASE).and_then(|vm| vms.get(usize::from(vm)));
    match (number, vm) {
        (_, Some(name)) => name.clone(),
        (stream::MONITOR, _) => "monitor".into(),
        (stream::EVENTS, _) => "events".into(),
        (stream::LOG, _) => "log".into(),
        (stream::OUTCOME, _) => "outcome".into(),
        _ => format!("{number} (unknown)"),
    }
}

/// The writer of the cells' input rings: what is typed goes to the lowest cell that lives, which passes it on.
#[derive(Debug)]
pub struct Keys {
    rings: Vec<Producer<Window>>,
    /// The cells that were lost, a bit each.
    lost: u8,
    next: BTreeMap<u16, u64>,
}

impl Keys {
    /// The input rings of all cells, initialised before the machine starts.
    pub fn new(ram: &Ram) -> Self {
        let ring = |cell: u8| {
            let (base, size) = (map::in_ring(CellId(cell)), map::IN_RING_SIZE);
            Producer::new(ram.window(base, size), size, true)
        };
        let rings = (0..MAX_CELLS as u8).map(ring).collect();
        Self { rings, lost: 0, next: BTreeMap::new() }
    }

    /// A cell was lost: from now on the lowest of the others is typed at.
    pub fn lost(&mut self, cell: CellId) {
        self.lost |= 1 << cell.0;
    }

    /// A cell that was lost is back.
    pub fn back(&mut self, cell: CellId) {
        self.lost &= !(1 << cell.0);
    }

    /// Whether anything was typed in this run.
    pub fn used(&self) -> bool {
        !self.next.is_empty()
    }

    /// Types bytes at a console; how many the ring took.
    pub fn type_at(&mut self, console: u16, bytes: &[u8]) -> usize {
        // Without any cell nobody listens, wherever it goes.
        let cell = (self.lost.trailing_ones() as usize).min(MAX_CELLS - 1);
        let mut taken = 0;
        for chunk in bytes.chunks(RECORD_MAX) {
            let seq = self.next.entry(console).or_insert(0);
            if self.rings[cell].write(console, *seq, 0, chunk).is_err() {
                break;
            }
            *seq += 1;
            taken += chunk.len();
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(cells: [u8; 2]) -> Layout {
        let mut cell_of = [CellId(0); 8];
        cell_of[..2].copy_from_slice(&cells.map(CellId));
        Layout { nodes: 2, cpus_per_node: 2, window: 0, slice: 64 << 20, kept: 32 << 20, cell_of }
    }

    fn producer(ram: &Ram, cell: u8) -> Producer<Window> {
        let window = ram.window(map::out_ring(CellId(cell)), map::OUT_RING_SIZE);
        Producer::new(window, map::OUT_RING_SIZE, false)
    }

    fn machine() -> (Ram, Drain, Producer<Window>) {
        let ram = Ram::new(map::IMAGES_BASE).unwrap();
        let drain = Drain::new(&ram, &layout([0, 0]), vec!["a".into(), "b".into()]);
        let producer = producer(&ram, 0);
        (ram, drain, producer)
    }

    #[test]
    fn cells_are_merged_by_time_as_far_as_all_of_them_have_come() {
        let ram = Ram::new(map::IMAGES_BASE).unwrap();
        let layout = layout([0, 1]);
        let mut drain = Drain::new(&ram, &layout, Vec::new());
        let mut take = |last| {
            let mut got = Vec::new();
            drain.poll(last, |cell, r, _| got.push((cell, r.t_ns))).unwrap();
            got
        };
        let (mut zero, mut one) = (producer(&ram, 0), producer(&ram, 1));
        one.write(16, 0, 5, b"").unwrap();
        one.write(16, 1, 7, b"").unwrap();
        assert_eq!(take(false), [], "cell 0 may still print something of before");
        zero.write(16, 0, 5, b"").unwrap();
        zero.advance(6);
        one.advance(8);
        assert_eq!(take(false), [(0, 5), (1, 5)]);
        zero.advance(7);
        assert_eq!(take(false), [], "cell 0 may still print something of that time");
        zero.write(16, 1, 7, b"").unwrap();
        zero.advance(20);
        assert_eq!(take(false), [(0, 7), (1, 7)]);
        one.write(16, 2, 30, b"").unwrap();
        zero.write(16, 2, 40, b"").unwrap();
        assert_eq!(take(true), [(1, 30), (0, 40)], "at the end everything comes");
        // Cell 0's lowest CPU parks: nobody waits for it any more.
        one.write(16, 3, 60, b"").unwrap();
        one.advance(61);
        assert_eq!(take(false), []);
        ram.window(hub::parked_address(&layout, abi::CpuId(0)), 8).store(0, 1);
        assert_eq!(take(false), [(1, 60)]);
    }

    #[test]
    fn records_are_delivered_in_order() {
        let (_ram, mut drain, mut producer) = machine();
        producer.write(16, 0, 5, b"x").unwrap();
        producer.write(17, 0, 6, b"y").unwrap();
        producer.write(16, 1, 7, b"z").unwrap();
        let mut got = Vec::new();
        drain
            .poll(false, |cell, r, bytes| got.push((cell, r.stream, r.t_ns, bytes.to_vec())))
            .unwrap();
        let expected = [(0, 16, 5, b"x"), (0, 17, 6, b"y"), (0, 16, 7, b"z")];
        assert_eq!(got, expected.map(|(c, s, t, b)| (c, s, t, b.to_vec())));
        assert_eq!(drain.poll(false, |_, _, _| panic!("nothing is left")), Ok(0));
        assert_eq!(drain.finish(), Ok(()));
    }

    #[test]
    fn a_gap_names_the_stream() {
        let (_ram, mut drain, mut producer) = machine();
        producer.write(17, 0, 0, b"").unwrap();
        producer.write(17, 2, 0, b"").unwrap();
        let lost = drain.poll(false, |_, _, _| {}).unwrap_err();
        assert_eq!(lost.what, "stream b of cell 0 was overrun: record 2 came instead of 1");
        // The cell boots again.
        producer.write(17, 0, 0, b"").unwrap();
        assert_eq!(drain.poll(false, |_, _, _| {}), Ok(1));
        producer.write(17, 2, 0, b"").unwrap();
        assert!(drain.poll(false, |_, _, _| {}).is_err());
    }

    #[test]
    fn a_lapped_reader_names_the_stream_as_soon_as_it_prints_again() {
        let (_ram, mut drain, mut producer) = machine();
        let mut seq = 0;
        for _ in 0..2 * map::OUT_RING_SIZE / RECORD_MAX as u64 {
            producer.write(16, seq, 0, &[0; RECORD_MAX]).unwrap();
            seq += 1;
        }
        assert_eq!(drain.poll(false, |_, _, _| {}), Ok(0));
        assert!(drain.finish().unwrap_err().what.contains("ring of cell 0 was overrun"));
        producer.write(16, seq, 0, b"").unwrap();
        let lost = drain.poll(false, |_, _, _| {}).unwrap_err();
        assert!(lost.what.starts_with("stream a of cell 0 was overrun"), "{}", lost.what);
    }

    #[test]
    fn what_is_typed_arrives() {
        let ram = Ram::new(map::IMAGES_BASE).unwrap();
        let mut keys = Keys::new(&ram);
        keys.lost(CellId(0));
        let (base, size) = (map::in_ring(CellId(1)), map::IN_RING_SIZE);
        let mut consumer = Consumer::new(ram.window(base, size), size);
        consumer.attach(true);
        let mut buffer = [0; RECORD_MAX];
        for (seq, text) in [b"ls\n", b"ps\n"].iter().enumerate() {
            assert_eq!(keys.type_at(16, *text), 3);
            let record = consumer.read(&mut buffer).unwrap().unwrap();
            assert_eq!((record.stream, record.seq), (16, seq as u64));
            assert_eq!(&buffer[..record.len], *text);
        }
        let flood = vec![b'x'; 2 << 20];
        let taken = keys.type_at(16, &flood);
        assert!(taken > 0 && taken < flood.len(), "a full ring takes no more");
    }
}
