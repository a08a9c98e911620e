//! Rings of framed records in shared memory: the host link.
//!
//! One producer, one consumer, no locks. Layout of a ring of `size` bytes at some base:
//!
//! | offset | who writes | what |
//! |---|---|---|
//! | 0 | producer, once | magic number [`MAGIC`]; written last, so that it means "initialised" |
//! | 8 | producer, once | capacity of the data area in bytes, a multiple of 8 |
//! | 16 | producer | `head`: bytes ever published |
//! | 24 | producer | `writing`: bytes that are or may be half-written (≥ `head`) |
//! | 32 | producer | `clock`: no record that is published later has an earlier time |
//! | 64 | consumer | `tail`: bytes ever consumed |
//! | 72 | consumer | 1 while a reader is attached that the producer may wait for |
//! | [`HEADER`] | producer | data, addressed modulo the capacity |
//!
//! A record is a 24-byte header (`len: u32, stream: u16, zero: u16, seq: u64, t_ns: u64`) and `len`
//! bytes padded to a multiple of 8. `seq` counts the records of its stream from 0: a gap is an
//! overrun. The consumer copies a record out and only then compares `writing` with its `tail`: what
//! was copied is whole if the producer has not come round to it.

use crate::codec::{DecodeError, Reader};

/// `"HNYRING1"`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"HNYRING1");
/// Bytes before the data area.
pub const HEADER: u64 = 4096;
/// Bytes of a record before its payload.
pub const RECORD_HEADER: u64 = 24;
/// Most payload bytes of one record.
pub const RECORD_MAX: usize = 4096;

const CAPACITY: u64 = 8;
const HEAD: u64 = 16;
const WRITING: u64 = 24;
const CLOCK: u64 = 32;
const TAIL: u64 = 64;
const ATTACHED: u64 = 72;

/// Streams that every cell has; a VM's console is [`vm_stream`].
pub mod stream {
    /// The monitor console: what it prints; towards the monitor: what is typed at it.
    pub const MONITOR: u16 = 0;
    /// [`crate::event::Event`]s, one a record.
    pub const EVENTS: u16 = 1;
    /// The monitor's log, one line a record, without a newline.
    pub const LOG: u16 = 2;
    /// [`crate::script::Outcome`]: how the run ended, written just before power-off.
    pub const OUTCOME: u16 = 3;
    /// First of the VM consoles.
    pub const VM_BASE: u16 = 16;
}

/// The stream of a VM's console.
#[must_use]
pub const fn vm_stream(vm: crate::VmId) -> u16 {
    stream::VM_BASE + vm.0
}

/// Memory that another program reads and writes at the same time. Offsets are from the ring's base
/// and, for the word accesses, multiples of 8. Words are little-endian in memory.
pub trait SharedMem {
    /// Reads a word, once.
    fn load(&self, offset: u64) -> u64;
    /// Writes a word, once, after everything stored or copied before it is visible.
    fn store(&mut self, offset: u64, value: u64);
    /// Copies bytes out; happens after every `load` before it.
    fn copy_out(&self, offset: u64, to: &mut [u8]);
    /// Copies bytes in.
    fn copy_in(&mut self, offset: u64, from: &[u8]);
    /// Orders all accesses before it against all after it.
    fn fence(&self);
}

/// One record, without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Payload bytes.
    pub len: usize,
    /// Which stream it belongs to.
    pub stream: u16,
    /// How many records of the stream came before it.
    pub seq: u64,
    /// Virtual time of the machine, in nanoseconds since power-on.
    pub t_ns: u64,
}

/// Why nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The reader has not made room yet: try again.
    Wait,
}

/// Whether a producer waits for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// Never: what is not read in time is overwritten. So under icount, where nothing may depend on the
    /// position of a reader outside the machine.
    Never,
    /// While a reader is attached.
    WhileAttached,
    /// Always: the reader is another CPU of the machine.
    Always,
}

/// The producer's end.
#[derive(Debug)]
pub struct Producer<M> {
    mem: M,
    capacity: u64,
    head: u64,
    clock: u64,
    waits: Waits,
}

impl<M: SharedMem> Producer<M> {
    /// Initialises a ring that occupies `size` bytes of `mem`.
    pub fn new(mut mem: M, size: u64, may_wait: bool) -> Self {
        let capacity = (size - HEADER) & !7;
        mem.store(HEAD, 0);
        mem.store(WRITING, 0);
        mem.store(CLOCK, 0);
        mem.store(CAPACITY, capacity);
        mem.store(0, MAGIC);
        let waits = if may_wait { Waits::WhileAttached } else { Waits::Never };
        Self { mem, capacity, head: 0, clock: 0, waits }
    }

    /// The producer of a ring in memory that was zero when the machine was switched on: it goes on where an earlier producer
    /// of the ring has stopped.
    pub fn resume(mem: M, size: u64, waits: Waits) -> Self {
        let capacity = (size - HEADER) & !7;
        let mut ring = if mem.load(0) == MAGIC && mem.load(CAPACITY) == capacity {
            let head = mem.load(HEAD);
            Self { mem, capacity, head, clock: 0, waits }
        } else {
            Self::new(mem, size, false)
        };
        ring.waits = waits;
        ring.mem.store(WRITING, ring.head);
        ring
    }

    /// Says that no later record is of before `t_ns`.
    pub fn advance(&mut self, t_ns: u64) {
        if t_ns > self.clock {
            self.clock = t_ns;
            self.mem.store(CLOCK, t_ns);
        }
    }

    /// Writes one record. A time before what [`Self::advance`] has promised becomes that.
    ///
    /// # Errors
    /// [`Full::Wait`] when the ring is full and it is one that waits for its reader.
    ///
    /// # Panics
    /// When the payload is longer than [`RECORD_MAX`].
    pub fn write(&mut self, stream: u16, seq: u64, t_ns: u64, payload: &[u8]) -> Result<(), Full> {
        assert!(payload.len() <= RECORD_MAX, "a record of at most {RECORD_MAX} bytes");
        let padded = (payload.len() as u64 + 7) & !7;
        let end = self.head + RECORD_HEADER + padded;
        let waits = match self.waits {
            Waits::Never => false,
            Waits::WhileAttached => self.mem.load(ATTACHED) != 0,
            Waits::Always => true,
        };
        if waits && end.wrapping_sub(self.mem.load(TAIL)) > self.capacity {
            return Err(Full::Wait);
        }
        let mut header = [0; RECORD_HEADER as usize];
        header[0..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        header[4..6].copy_from_slice(&stream.to_le_bytes());
        header[8..16].copy_from_slice(&seq.to_le_bytes());
        header[16..24].copy_from_slice(&t_ns.max(self.clock).to_le_bytes());
        self.mem.store(WRITING, end);
        self.mem.fence();
        self.put(self.head, &header);
        self.put(self.head + RECORD_HEADER, payload);
        self.mem.fence();
        self.mem.store(HEAD, end);
        self.head = end;
        Ok(())
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        let start = at % self.capacity;
        let first = bytes.len().min((self.capacity - start) as usize);
        self.mem.copy_in(HEADER + start, &bytes[..first]);
        self.mem.copy_in(HEADER, &bytes[first..]);
    }
}

/// Why a record could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The producer overtook the reader: records are lost.
    Overrun,
    /// The ring's words make no sense (scribbled, or not a ring).
    Corrupt(DecodeError),
}

/// The consumer's end.
#[derive(Debug)]
pub struct Consumer<M> {
    mem: M,
    capacity: u64,
    tail: u64,
    size: u64,
}

impl<M: SharedMem> Consumer<M> {
    /// A consumer of the ring that occupies `size` bytes of `mem`. It may be made before the
    /// producer has initialised the ring.
    pub fn new(mut mem: M, size: u64) -> Self {
        mem.store(TAIL, 0);
        Self { mem, capacity: 0, tail: 0, size }
    }

    /// The consumer of a ring in memory that was zero when the machine was switched on: it goes on where an earlier
    /// consumer of the ring has stopped.
    pub fn resume(mem: M, size: u64) -> Self {
        let tail = mem.load(TAIL);
        Self { mem, capacity: 0, tail, size }
    }

    /// What the producer has promised: records that are not published yet are of no earlier time. To be read
    /// before the records that there are.
    pub fn clock(&self) -> u64 {
        let clock = if self.mem.load(0) == MAGIC { self.mem.load(CLOCK) } else { 0 };
        self.mem.fence();
        clock
    }

    /// Says whether the producer may wait for this reader.
    pub fn attach(&mut self, attached: bool) {
        self.mem.store(ATTACHED, u64::from(attached));
    }

    /// Takes the next record, its payload into `payload`; `None` when there is none yet.
    ///
    /// # Errors
    /// [`Broken`]; after it the ring is of no more use, but for [`Self::skip`].
    pub fn read(&mut self, payload: &mut [u8; RECORD_MAX]) -> Result<Option<Record>, Broken> {
        let record = self.peek(payload)?;
        self.release();
        Ok(record)
    }

    /// As [`Self::read`], but what was read stays in the ring until [`Self::release`]: a successor reads it again.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn peek(&mut self, payload: &mut [u8; RECORD_MAX]) -> Result<Option<Record>, Broken> {
        if self.capacity == 0 {
            if self.mem.load(0) != MAGIC {
                return Ok(None);
            }
            let capacity = self.mem.load(CAPACITY);
            if capacity == 0 || !capacity.is_multiple_of(8) || capacity > self.size - HEADER {
                return Err(Broken::Corrupt(DecodeError { at: 8, what: "a ring capacity" }));
            }
            self.capacity = capacity;
        }
        let head = self.mem.load(HEAD);
        if head == self.tail {
            return Ok(None);
        }
        self.mem.fence();
        let mut header = [0; RECORD_HEADER as usize];
        self.get(self.tail, &mut header);
        self.still_whole()?;
        let record = Self::decode(&header).map_err(Broken::Corrupt)?;
        self.get(self.tail + RECORD_HEADER, &mut payload[..record.len]);
        self.still_whole()?;
        self.tail += RECORD_HEADER + ((record.len as u64 + 7) & !7);
        Ok(Some(record))
    }

    /// Frees the room of what was read.
    pub fn release(&mut self) {
        self.mem.store(TAIL, self.tail);
    }

    /// After [`Broken::Overrun`]: gives up all records there are and goes on with the next one, whose
    /// sequence number then shows what its stream has lost.
    pub fn skip(&mut self) {
        self.tail = self.mem.load(HEAD);
        self.mem.store(TAIL, self.tail);
    }

    fn decode(header: &[u8]) -> Result<Record, DecodeError> {
        let mut r = Reader::new(header);
        let len = r.u32()? as usize;
        if len > RECORD_MAX {
            return Err(DecodeError { at: 0, what: "a record length" });
        }
        let stream = r.u16()?;
        r.u16()?;
        Ok(Record { len, stream, seq: r.u64()?, t_ns: r.u64()? })
    }

    fn still_whole(&self) -> Result<(), Broken> {
        self.mem.fence();
        if self.mem.load(WRITING).wrapping_sub(self.tail) > self.capacity {
            return Err(Broken::Overrun);
        }
        Ok(())
    }

    fn get(&self, at: u64, bytes: &mut [u8]) {
        let start = at % self.capacity;
        let first = bytes.len().min((self.capacity - start) as usize);
        let (one, two) = bytes.split_at_mut(first);
        self.mem.copy_out(HEADER + start, one);
        self.mem.copy_out(HEADER, two);
    }
}

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use super::*;
    use alloc::{rc::Rc, vec, vec::Vec};
    use core::cell::RefCell;

    #[derive(Clone)]
    struct Plain(Rc<RefCell<Vec<u8>>>);

    impl SharedMem for Plain {
        fn load(&self, offset: u64) -> u64 {
            let at = offset as usize;
            u64::from_le_bytes(self.0.borrow()[at..at + 8].try_into().unwrap())
        }
        fn store(&mut self, offset: u64, value: u64) {
            let at = offset as usize;
            self.0.borrow_mut()[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        fn copy_out(&self, offset: u64, to: &mut [u8]) {
            let at = offset as usize;
            to.copy_from_slice(&self.0.borrow()[at..at + to.len()]);
        }
        fn copy_in(&mut self, offset: u64, from: &[u8]) {
            let at = offset as usize;
            self.0.borrow_mut()[at..at + from.len()].copy_from_slice(from);
        }
        fn fence(&self) {}
    }

    fn pair(size: u64, wait: bool) -> (Producer<Plain>, Consumer<Plain>) {
        let mem = Plain(Rc::new(RefCell::new(vec![0; size as usize])));
        let consumer = Consumer::new(mem.clone(), size);
        (Producer::new(mem, size, wait), consumer)
    }

    #[test]
    fn records_come_out_as_they_went_in_across_the_wrap() {
        let (mut tx, mut rx) = pair(HEADER + 512, false);
        let mut buf = [0; RECORD_MAX];
        for i in 0..1000u64 {
            let payload: Vec<u8> = (0..i % 97).map(|b| (b ^ i) as u8).collect();
            tx.write(i as u16, i, i * 3, &payload).unwrap();
            let got = rx.read(&mut buf).unwrap().expect("a record");
            assert_eq!(got, Record { len: payload.len(), stream: i as u16, seq: i, t_ns: i * 3 });
            assert_eq!(buf[..got.len], payload[..]);
            assert_eq!(rx.read(&mut buf), Ok(None));
        }
    }

    #[test]
    fn no_record_is_earlier_than_promised() {
        let (mut tx, mut rx) = pair(HEADER + 512, false);
        let mut buf = [0; RECORD_MAX];
        assert_eq!(rx.clock(), 0);
        let mut time = |rx: &mut Consumer<Plain>| rx.read(&mut buf).unwrap().unwrap().t_ns;
        tx.advance(10);
        tx.advance(5);
        assert_eq!(rx.clock(), 10);
        tx.write(0, 0, 7, b"").unwrap();
        tx.write(0, 1, 12, b"").unwrap();
        assert_eq!((time(&mut rx), time(&mut rx)), (10, 12));
    }

    #[test]
    fn a_lapped_reader_is_told() {
        let (mut tx, mut rx) = pair(HEADER + 512, false);
        for i in 0..20 {
            tx.write(0, i, 0, &[0; 40]).unwrap();
        }
        let mut buf = [0; RECORD_MAX];
        assert_eq!(rx.read(&mut buf), Err(Broken::Overrun));
        rx.skip();
        assert_eq!(rx.read(&mut buf), Ok(None));
        tx.write(0, 20, 0, b"x").unwrap();
        assert_eq!(rx.read(&mut buf).unwrap().map(|record| record.seq), Some(20));
    }

    #[test]
    fn a_full_ring_waits_for_an_attached_reader_only() {
        let (mut tx, mut rx) = pair(HEADER + 512, true);
        rx.attach(true);
        let mut wrote = 0;
        while tx.write(0, wrote, 0, &[7; 40]).is_ok() {
            wrote += 1;
        }
        assert_eq!(wrote, 8);
        rx.read(&mut [0; RECORD_MAX]).unwrap().unwrap();
        assert!(tx.write(0, wrote, 0, &[7; 40]).is_ok());
        rx.attach(false);
        assert!(tx.write(0, wrote + 1, 0, &[7; 40]).is_ok());
    }

    #[test]
    fn successors_go_on_where_the_others_have_stopped_and_nothing_is_lost() {
        let size = HEADER + 512;
        let mem = Plain(Rc::new(RefCell::new(vec![0; size as usize])));
        let (mut written, mut read) = (0u64, 0u64);
        let mut buf = [0; RECORD_MAX];
        // Nobody is attached yet: it waits all the same.
        for round in 0..20 {
            let mut tx = Producer::resume(mem.clone(), size, Waits::Always);
            while tx.write(3, written, 0, &written.to_le_bytes()).is_ok() {
                written += 1;
            }
            let mut early = Consumer::resume(mem.clone(), size);
            assert_eq!(early.peek(&mut buf).unwrap().map(|record| record.seq), Some(read));
            let mut rx = Consumer::resume(mem.clone(), size);
            for _ in 0..=round % 7 {
                let record = rx.read(&mut buf).unwrap().expect("a record");
                assert_eq!((record.seq, &buf[..8]), (read, &read.to_le_bytes()[..]));
                read += 1;
            }
        }
        assert_eq!(written - read, 16 - 20 % 7);
    }

    #[test]
    fn scribbled_words_are_refused() {
        let (mut tx, mut rx) = pair(HEADER + 512, false);
        tx.write(0, 0, 0, b"x").unwrap();
        let mut mem = tx.mem.clone();
        mem.copy_in(HEADER, &[0xff; 4]);
        assert!(matches!(rx.read(&mut [0; RECORD_MAX]), Err(Broken::Corrupt(_))));
    }
}
