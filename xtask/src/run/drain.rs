//! Reads what the cells print: every record of every output ring, checked for gaps.

use super::ram::{Ram, Window};
use abi::ring::{Broken, Consumer, Producer, RECORD_MAX, Record, stream};
use abi::{CellId, map};
use std::collections::BTreeMap;

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
}

#[derive(Debug)]
struct Cell {
    ring: Consumer<Window>,
    next: BTreeMap<u16, u64>,
    /// The ring was overrun; the first gap after it will name a stream.
    lapped: bool,
}

impl Drain {
    /// A reader of the rings of `cells` cells of VMs called `names`, made before the machine starts.
    pub fn new(ram: &Ram, cells: usize, names: Vec<String>) -> Self {
        let cell = |cell: usize| {
            let window = ram.window(map::out_ring(CellId(cell as u8)), map::OUT_RING_SIZE);
            let mut ring = Consumer::new(window, map::OUT_RING_SIZE);
            ring.attach(true);
            Cell { ring, next: BTreeMap::new(), lapped: false }
        };
        Self { cells: (0..cells).map(cell).collect(), names, buffer: Box::new([0; RECORD_MAX]) }
    }

    /// Gives all records there are to `take` (cell, record, payload); how many there were.
    ///
    /// # Errors
    /// When records were lost or the ring is damaged.
    pub fn poll(&mut self, mut take: impl FnMut(usize, Record, &[u8])) -> Result<usize, Lost> {
        let mut count = 0;
        for (index, cell) in self.cells.iter_mut().enumerate() {
            loop {
                match cell.ring.read(&mut self.buffer) {
                    Ok(None) => break,
                    Ok(Some(record)) => {
                        let next = cell.next.entry(record.stream).or_insert(0);
                        if record.seq != *next {
                            return Err(Lost {
                                what: format!(
                                    "stream {} of cell {index} was overrun: record {} came instead of {next}",
                                    stream_name(&self.names, record.stream),
                                    record.seq
                                ),
                            });
                        }
                        *next += 1;
                        count += 1;
                        take(index, record, &self.buffer[..record.len]);
                    }
                    Err(Broken::Overrun) => {
                        cell.lapped = true;
                        cell.ring.skip();
                    }
                    Err(Broken::Corrupt(error)) => {
                        return Err(Lost {
                            what: format!("the output ring of cell {index} is damaged: {error}"),
                        });
                    }
                }
            }
        }
        Ok(count)
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

/// The writer of a cell's input ring: what is typed.
#[derive(Debug)]
pub struct Keys {
    ring: Producer<Window>,
    next: BTreeMap<u16, u64>,
}

impl Keys {
    /// The input ring of a cell, initialised before the machine starts.
    pub fn new(ram: &Ram, cell: usize) -> Self {
        let (base, size) = (map::in_ring(CellId(cell as u8)), map::IN_RING_SIZE);
        Self { ring: Producer::new(ram.window(base, size), size, true), next: BTreeMap::new() }
    }

    /// Whether anything was typed in this run.
    pub fn used(&self) -> bool {
        !self.next.is_empty()
    }

    /// Types bytes at a console; how many the ring took.
    pub fn type_at(&mut self, stream: u16, bytes: &[u8]) -> usize {
        let mut taken = 0;
        for chunk in bytes.chunks(RECORD_MAX) {
            let seq = self.next.entry(stream).or_insert(0);
            if self.ring.write(stream, *seq, 0, chunk).is_err() {
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

    fn machine() -> (Ram, Drain, Producer<Window>) {
        let ram = Ram::new(map::IMAGES_BASE).unwrap();
        let drain = Drain::new(&ram, 1, vec!["a".into(), "b".into()]);
        let window = ram.window(map::RING_BASE, map::OUT_RING_SIZE);
        let producer = Producer::new(window, map::OUT_RING_SIZE, false);
        (ram, drain, producer)
    }

    #[test]
    fn records_are_delivered_in_order() {
        let (_ram, mut drain, mut producer) = machine();
        producer.write(16, 0, 5, b"x").unwrap();
        producer.write(17, 0, 6, b"y").unwrap();
        producer.write(16, 1, 7, b"z").unwrap();
        let mut got = Vec::new();
        drain.poll(|cell, r, bytes| got.push((cell, r.stream, r.t_ns, bytes.to_vec()))).unwrap();
        let expected = [(0, 16, 5, b"x"), (0, 17, 6, b"y"), (0, 16, 7, b"z")];
        assert_eq!(got, expected.map(|(c, s, t, b)| (c, s, t, b.to_vec())));
        assert_eq!(drain.poll(|_, _, _| panic!("nothing is left")), Ok(0));
        assert_eq!(drain.finish(), Ok(()));
    }

    #[test]
    fn a_gap_names_the_stream() {
        let (_ram, mut drain, mut producer) = machine();
        producer.write(17, 0, 0, b"").unwrap();
        producer.write(17, 2, 0, b"").unwrap();
        let lost = drain.poll(|_, _, _| {}).unwrap_err();
        assert_eq!(lost.what, "stream b of cell 0 was overrun: record 2 came instead of 1");
    }

    #[test]
    fn a_lapped_reader_names_the_stream_as_soon_as_it_prints_again() {
        let (_ram, mut drain, mut producer) = machine();
        let mut seq = 0;
        for _ in 0..2 * map::OUT_RING_SIZE / RECORD_MAX as u64 {
            producer.write(16, seq, 0, &[0; RECORD_MAX]).unwrap();
            seq += 1;
        }
        assert_eq!(drain.poll(|_, _, _| {}), Ok(0));
        assert!(drain.finish().unwrap_err().what.contains("ring of cell 0 was overrun"));
        producer.write(16, seq, 0, b"").unwrap();
        let lost = drain.poll(|_, _, _| {}).unwrap_err();
        assert!(lost.what.starts_with("stream a of cell 0 was overrun"), "{}", lost.what);
    }

    #[test]
    fn what_is_typed_arrives() {
        let ram = Ram::new(map::IMAGES_BASE).unwrap();
        let mut keys = Keys::new(&ram, 0);
        let (base, size) = (map::in_ring(CellId(0)), map::IN_RING_SIZE);
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
        let taken = keys.type_at(0, &flood);
        assert!(taken > 0 && taken < flood.len(), "a full ring takes no more");
    }
}
