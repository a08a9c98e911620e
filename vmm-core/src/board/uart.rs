//! The 16550A at ISA port 0x3f8: the VM's console.
//!
//! After National's PC16550D data sheet, as far as a driver can tell. Time is virtual: the
//! transmitter takes a byte a configured time, so that a guest can't flood whoever reads its
//! console, and the receiver hands input over at the pace of a fast serial line, so that pasted
//! text does not overrun a guest's line discipline. The baud rate divisor is kept but ignored.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Bytes in either FIFO.
const FIFO: usize = 16;
/// Virtual nanoseconds between two received bytes: 115,200 baud, 10 bits a byte.
const RX_BYTE_NS: u64 = 86_806;
/// After this long without a byte arriving or being read, waiting bytes are reported: four byte
/// times, as in the data sheet.
const RX_TIMEOUT_NS: u64 = 4 * RX_BYTE_NS;
/// Most input bytes queued in front of the receiver.
const INPUT_MAX: usize = 4096;
/// With this much output waiting the owner is asked to take it.
const OUTPUT_HIGH: usize = 1024;
/// With this much output waiting the transmitter stops until some is taken.
const OUTPUT_MAX: usize = 4096;

const IER_RX: u8 = 0x01;
const IER_THRE: u8 = 0x02;

const IIR_NONE: u8 = 0x01;
const IIR_THRE: u8 = 0x02;
const IIR_RX: u8 = 0x04;
const IIR_RX_TIMEOUT: u8 = 0x0c;
const IIR_FIFOS: u8 = 0xc0;

const FCR_ENABLE: u8 = 0x01;
const FCR_CLEAR_RX: u8 = 0x02;

const LCR_DLAB: u8 = 0x80;

const MCR_LOOP: u8 = 0x10;

const LSR_DATA_READY: u8 = 0x01;
const LSR_OVERRUN: u8 = 0x02;
const LSR_THR_EMPTY: u8 = 0x20;
const LSR_IDLE: u8 = 0x40;

/// Carrier, data set ready, clear to send: somebody always listens.
const MSR_CONNECTED: u8 = 0xb0;

/// The UART.
#[derive(Debug)]
pub struct Uart {
    ier: u8,
    fcr: u8,
    lcr: u8,
    mcr: u8,
    scratch: u8,
    divisor: [u8; 2],
    overrun: bool,
    /// Received bytes that the guest has not read.
    rx: VecDeque<u8>,
    /// Bytes that have not arrived at the receiver.
    input: VecDeque<u8>,
    /// When the next byte may arrive.
    rx_next: u64,
    /// When a byte last arrived or was read.
    rx_active: u64,
    /// When everything written so far has left the shift register.
    tx_done: u64,
    /// Whether the transmitter-empty interrupt is latched.
    tx_empty_latched: bool,
    /// Whether a byte was written since the transmitter was last seen empty.
    tx_busy: bool,
    tx_byte_ns: u64,
    output: Vec<u8>,
    /// The owner has been asked to take output.
    asked: bool,
}

impl Uart {
    /// A UART that emits at most `rate` bytes a virtual second (at least 1).
    #[must_use]
    pub fn new(rate: u64) -> Self {
        Self {
            ier: 0,
            fcr: 0,
            lcr: 0x03,
            mcr: 0x08,
            scratch: 0,
            divisor: [0x0c, 0],
            overrun: false,
            rx: VecDeque::with_capacity(FIFO),
            input: VecDeque::new(),
            rx_next: 0,
            rx_active: 0,
            tx_done: 0,
            tx_empty_latched: false,
            tx_busy: false,
            tx_byte_ns: (1_000_000_000 / rate.max(1)).max(1),
            output: Vec::new(),
            asked: false,
        }
    }

    /// Queues console input; how many bytes were taken (the queue is bounded).
    pub fn input(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(INPUT_MAX - self.input.len());
        self.input.extend(&bytes[..taken]);
        taken
    }

    /// Everything transmitted since the last call, in exchange for an empty buffer.
    pub fn take_output(&mut self, empty: Vec<u8>) -> Vec<u8> {
        self.asked = false;
        core::mem::replace(&mut self.output, empty)
    }

    /// Whether output piles up and the owner has not been asked yet to take it; asks only once.
    pub fn ask_for_room(&mut self) -> bool {
        self.output.len() >= OUTPUT_HIGH && !core::mem::replace(&mut self.asked, true)
    }

    fn rx_capacity(&self) -> usize {
        if self.fcr & FCR_ENABLE != 0 { FIFO } else { 1 }
    }

    fn rx_trigger(&self) -> usize {
        match (self.fcr & FCR_ENABLE != 0, self.fcr >> 6) {
            (false, _) | (true, 0) => 1,
            (true, 1) => 4,
            (true, 2) => 8,
            (true, _) => 14,
        }
    }

    fn looped(&self) -> bool {
        self.mcr & MCR_LOOP != 0
    }

    /// Whether the transmitter's FIFO is empty: what is left, if anything, is in the shift register.
    fn thr_empty(&self, now: u64) -> bool {
        self.output.len() < OUTPUT_MAX && now.saturating_add(self.tx_byte_ns) >= self.tx_done
    }

    fn arrivals_possible(&self) -> bool {
        !self.input.is_empty() && self.rx.len() < self.rx_capacity() && !self.looped()
    }

    /// Brings the state up to `now`.
    fn advance(&mut self, now: u64) {
        while self.arrivals_possible() && self.rx_next <= now {
            let byte = self.input.pop_front().unwrap_or_default();
            self.rx.push_back(byte);
            // A line that was quiet starts at once, one that is busy keeps its pace.
            self.rx_active = self.rx_next.max(now.saturating_sub(RX_BYTE_NS));
            self.rx_next = self.rx_active + RX_BYTE_NS;
        }
        if self.tx_busy && self.thr_empty(now) {
            self.tx_busy = false;
            self.tx_empty_latched = true;
        }
    }

    fn interrupt(&self, now: u64) -> u8 {
        if self.ier & IER_RX != 0 && self.rx.len() >= self.rx_trigger() {
            IIR_RX
        } else if self.ier & IER_RX != 0
            && !self.rx.is_empty()
            && now >= self.rx_active.saturating_add(RX_TIMEOUT_NS)
        {
            IIR_RX_TIMEOUT
        } else if self.ier & IER_THRE != 0 && self.tx_empty_latched {
            IIR_THRE
        } else {
            IIR_NONE
        }
    }

    /// The level of the interrupt line at `now`.
    pub fn line(&mut self, now: u64) -> bool {
        self.advance(now);
        self.interrupt(now) != IIR_NONE
    }

    /// When, after `now`, the line may change though nobody touches a register; `u64::MAX`: never.
    #[must_use]
    pub fn deadline(&self, now: u64) -> u64 {
        let mut at = u64::MAX;
        if self.arrivals_possible() {
            at = at.min(self.rx_next);
        }
        if self.ier & IER_RX != 0 && !self.rx.is_empty() && self.rx.len() < self.rx_trigger() {
            let timeout = self.rx_active.saturating_add(RX_TIMEOUT_NS);
            if timeout > now {
                at = at.min(timeout);
            }
        }
        if self.ier & IER_THRE != 0 && self.tx_busy && self.output.len() < OUTPUT_MAX {
            at = at.min(self.tx_done.saturating_sub(self.tx_byte_ns));
        }
        at
    }

    fn transmit(&mut self, byte: u8, now: u64) {
        self.tx_empty_latched = false;
        self.tx_busy = true;
        if self.looped() {
            if self.rx.len() < self.rx_capacity() {
                self.rx.push_back(byte);
                self.rx_active = now;
            } else {
                self.overrun = true;
            }
            return;
        }
        // What does not fit into the FIFO is lost, as in the real part.
        let waiting = self.tx_done.saturating_sub(now).div_ceil(self.tx_byte_ns);
        if waiting > FIFO as u64 || self.output.len() >= OUTPUT_MAX + FIFO {
            return;
        }
        self.tx_done = self.tx_done.max(now).saturating_add(self.tx_byte_ns);
        self.output.push(byte);
    }

    /// Reads register 0–7 at virtual time `now`.
    pub fn read(&mut self, register: u8, now: u64) -> u8 {
        self.advance(now);
        match (register & 7, self.lcr & LCR_DLAB != 0) {
            (r @ (0 | 1), true) => self.divisor[usize::from(r)],
            (0, false) => {
                let byte = self.rx.pop_front().unwrap_or_default();
                self.rx_active = now;
                // Room in a full FIFO: the sender, held until now, goes on at its pace.
                self.rx_next = self.rx_next.max(now);
                byte
            }
            (1, false) => self.ier,
            (2, _) => {
                let cause = self.interrupt(now);
                if cause == IIR_THRE {
                    self.tx_empty_latched = false;
                }
                cause | if self.fcr & FCR_ENABLE != 0 { IIR_FIFOS } else { 0 }
            }
            (3, _) => self.lcr,
            (4, _) => self.mcr,
            (5, _) => {
                let mut status = 0;
                if !self.rx.is_empty() {
                    status |= LSR_DATA_READY;
                }
                if core::mem::take(&mut self.overrun) {
                    status |= LSR_OVERRUN;
                }
                if self.thr_empty(now) {
                    status |= LSR_THR_EMPTY;
                    if now >= self.tx_done {
                        status |= LSR_IDLE;
                    }
                }
                status
            }
            (6, _) if self.looped() => {
                // In loopback the modem inputs are the modem outputs.
                (self.mcr & 0x0c) << 4 | (self.mcr & 0x01) << 5 | (self.mcr & 0x02) << 3
            }
            (6, _) => MSR_CONNECTED,
            _ => self.scratch,
        }
    }

    /// Writes register 0–7 at virtual time `now`.
    pub fn write(&mut self, register: u8, value: u8, now: u64) {
        self.advance(now);
        match (register & 7, self.lcr & LCR_DLAB != 0) {
            (r @ (0 | 1), true) => self.divisor[usize::from(r)] = value,
            (0, false) => self.transmit(value, now),
            (1, false) => {
                let enabled = value & !self.ier;
                self.ier = value & 0x0f;
                // Enabling the interrupt while the transmitter is empty raises it anew: drivers
                // start transmission that way.
                if enabled & IER_THRE != 0 && self.thr_empty(now) {
                    self.tx_busy = false;
                    self.tx_empty_latched = true;
                }
            }
            (2, _) => {
                if value & FCR_CLEAR_RX != 0 || (value ^ self.fcr) & FCR_ENABLE != 0 {
                    self.rx.clear();
                }
                // Without the enable bit the others are not taken.
                self.fcr = if value & FCR_ENABLE != 0 { value & 0xc9 } else { 0 };
            }
            (3, _) => self.lcr = value,
            (4, _) => self.mcr = value & 0x1f,
            (5 | 6, _) => {}
            _ => self.scratch = value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 1_000_000;
    const BYTE: u64 = 1_000;

    fn output(uart: &mut Uart) -> Vec<u8> {
        uart.take_output(Vec::new())
    }

    #[test]
    fn probes_as_a_16550a() {
        // Linux's autoconfig(): IER bits 0–3 stick, loopback reflects, FCR gives IIR 0b11.
        let mut uart = Uart::new(RATE);
        uart.write(1, 0xff, 0);
        assert_eq!(uart.read(1, 0), 0x0f);
        uart.write(1, 0, 0);
        uart.write(4, 0x1a, 0);
        assert_eq!(uart.read(6, 0) & 0xf0, 0x90);
        uart.write(4, 0, 0);
        uart.write(3, 0xbf, 0);
        uart.write(2, 0, 0);
        uart.write(3, 0, 0);
        uart.write(2, 1, 0);
        assert_eq!(uart.read(2, 0) >> 6, 3);
        uart.write(7, 0xa5, 0);
        assert_eq!(uart.read(7, 0), 0xa5);
        // With DLAB the first two registers are the divisor, and the IER is safe.
        uart.write(3, 0x83, 0);
        uart.write(0, 1, 0);
        uart.write(1, 2, 0);
        assert_eq!((uart.read(0, 0), uart.read(1, 0)), (1, 2));
        uart.write(3, 3, 0);
        assert_eq!(uart.read(1, 0), 0);
        assert!(output(&mut uart).is_empty(), "nothing was transmitted by all that");
    }

    #[test]
    fn transmitter_is_paced() {
        let mut uart = Uart::new(RATE);
        uart.write(2, 1, 0);
        for b in 0..FIFO as u8 {
            uart.write(0, b, 0);
        }
        assert_eq!(uart.read(5, 0) & 0x60, 0, "full");
        assert_eq!(uart.read(5, 15 * BYTE - 1) & 0x60, 0);
        assert_eq!(uart.read(5, 15 * BYTE) & 0x60, 0x20, "the last byte is being shifted");
        assert_eq!(uart.read(5, 16 * BYTE) & 0x60, 0x60);
        assert_eq!(output(&mut uart), (0..16).collect::<Vec<u8>>());
    }

    #[test]
    fn a_flood_is_bounded_by_the_rate() {
        let mut uart = Uart::new(RATE);
        let mut sent = 0;
        for now in 0..100_000 {
            uart.write(0, b'x', now);
            sent += output(&mut uart).len();
        }
        assert!((100..=100 + FIFO + 1).contains(&sent), "{sent} bytes in 100 byte times");
    }

    #[test]
    fn thre_interrupt_latches_and_clears() {
        let mut uart = Uart::new(RATE);
        uart.write(2, 1, 0);
        uart.write(1, IER_THRE, 0);
        assert!(uart.line(0), "enabling it while empty raises it");
        assert_eq!(uart.read(2, 0) & 0x0f, IIR_THRE);
        assert!(!uart.line(0), "reading the cause clears it");
        // Toggling the enable bit raises it again (Linux tests for UARTs that don't).
        uart.write(1, 0, 0);
        uart.write(1, IER_THRE, 0);
        assert!(uart.line(0));
        for _ in 0..3 {
            uart.write(0, b'a', 10);
        }
        assert!(!uart.line(10));
        let at = uart.deadline(10);
        assert_eq!(at, 10 + 2 * BYTE);
        assert!(!uart.line(at - 1));
        assert!(uart.line(at));
        assert_eq!(uart.deadline(at), u64::MAX);
    }

    #[test]
    fn receive_trigger_and_timeout() {
        let mut uart = Uart::new(RATE);
        uart.write(2, 0x81, 0); // trigger at 8
        uart.write(1, IER_RX, 0);
        assert_eq!(uart.input(b"0123456789"), 10);
        let mut now = 0;
        while !uart.line(now) {
            let next = uart.deadline(now);
            assert!(next > now && next != u64::MAX);
            now = next;
        }
        assert_eq!(now, 7 * RX_BYTE_NS, "the eighth byte reaches the trigger");
        assert_eq!(uart.read(2, now) & 0x0f, IIR_RX);
        for want in b"01234567" {
            assert_eq!(uart.read(5, now) & 1, 1);
            assert_eq!(uart.read(0, now), *want);
        }
        assert!(!uart.line(now));
        while !uart.line(now) {
            now = uart.deadline(now);
        }
        assert_eq!(uart.read(2, now) & 0x0f, IIR_RX_TIMEOUT, "two bytes are left");
        assert_eq!((uart.read(0, now), uart.read(0, now)), (b'8', b'9'));
        assert!(!uart.line(now));
        assert_eq!(uart.deadline(now), u64::MAX);
        assert_eq!(uart.read(5, now) & 1, 0);
    }

    #[test]
    fn receiver_never_overruns() {
        let mut uart = Uart::new(RATE);
        uart.write(2, 1, 0);
        let text: Vec<u8> = (0..200).collect();
        uart.input(&text);
        let mut got = Vec::new();
        for now in (0..1 << 30).step_by(1 << 20) {
            // Slower than the line: 20 bytes wait, and none is lost.
            while uart.read(5, now) & 1 != 0 {
                got.push(uart.read(0, now));
            }
            assert_eq!(uart.read(5, now) & LSR_OVERRUN, 0);
        }
        assert_eq!(got, text);
        assert_eq!(uart.input(&[0; 5000]), INPUT_MAX, "the queue is bounded");
    }

    #[test]
    fn a_full_buffer_stops_the_transmitter_until_taken() {
        let mut uart = Uart::new(RATE);
        uart.write(2, 1, 0);
        let mut now = 0;
        let mut asked = 0;
        for _ in 0..OUTPUT_MAX {
            assert_ne!(uart.read(5, now) & LSR_THR_EMPTY, 0);
            uart.write(0, b'.', now);
            asked += u32::from(uart.ask_for_room());
            now += BYTE;
        }
        assert_eq!(asked, 1);
        now += 1 << 30;
        assert_eq!(uart.read(5, now) & LSR_THR_EMPTY, 0, "blocked");
        for _ in 0..1000 {
            now += BYTE;
            uart.write(0, b'!', now);
        }
        let taken = output(&mut uart);
        assert!(taken.len() <= OUTPUT_MAX + FIFO);
        assert_ne!(uart.read(5, now + FIFO as u64 * BYTE) & LSR_THR_EMPTY, 0, "and goes on");
    }

    #[test]
    fn loopback_returns_bytes() {
        let mut uart = Uart::new(RATE);
        uart.write(4, MCR_LOOP, 0);
        uart.write(0, b'z', 0);
        assert_eq!(uart.read(0, 0), b'z');
        assert!(output(&mut uart).is_empty());
    }
}
