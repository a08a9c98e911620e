//! One run of the machine: what it prints goes to logs, events and operator until it ends.

use super::drain::{Drain, Keys, stream_name};
use super::logs::Logs;
use super::qemu::Qemu;
use super::symbols::Symbols;
use super::verdict::Verdict;
use crate::console::Server;
use abi::event::{Event, Kind};
use abi::ring::{Record, stream};
use abi::script::Outcome;
use anyhow::{Context, Result};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long the machine may take to power off after it has said how it ended.
const POWER_OFF: Duration = Duration::from_secs(10);
/// Pause between two looks at the rings: shortest, while there is output, and longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(10));

/// Who watches a run.
pub trait Front {
    /// A console (or log) has printed bytes.
    fn output(&mut self, name: &str, number: Option<u16>, bytes: &[u8]);
    /// Something has happened.
    fn event(&mut self, event: &Event);
    /// Passes `pause` of time; handles what the operator types.
    fn wait(&mut self, pause: Duration, keys: &mut Keys) -> Ask;
    /// The run is over: leaves the terminal as it was.
    fn finish(&mut self);
}

/// What the operator asks of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Nothing.
    GoOn,
    /// To switch the machine off now.
    EndNow,
}

/// A running machine and those who listen to it.
pub struct Session<'a> {
    /// The machine.
    pub qemu: Qemu,
    /// Its output.
    pub drain: Drain,
    /// Its input.
    pub keys: Keys,
    /// Where output is kept.
    pub logs: Logs,
    /// The operator.
    pub front: &'a mut dyn Front,
    /// Operators at other terminals.
    pub consoles: Server,
    /// Names of the VMs.
    pub names: Vec<String>,
    /// Most time the run may take.
    pub timeout: Option<Duration>,
    /// The signal that asked this program to end, or 0.
    pub signal: Arc<AtomicUsize>,
    /// How many cells there are.
    pub cells: u8,
    /// Names for addresses in the boot log and in panics.
    pub symbols: Symbols,
}

/// How a session ended.
pub enum End {
    /// By itself or by a limit.
    Verdict(Verdict),
    /// The operator (or the system) asked for it with this signal.
    Signal(i32),
}

/// One record, out of the ring.
struct Taken {
    cell: usize,
    record: Record,
    payload: Vec<u8>,
}

impl Session<'_> {
    /// Runs to the end.
    pub fn run(mut self) -> End {
        let mut verdict = Verdict::default();
        let end = self.watch(&mut verdict);
        self.front.finish();
        self.consoles.finish();
        verdict.typed = self.keys.used();
        match end {
            Ok(Some(signal)) => return End::Signal(signal),
            Ok(None) => {}
            Err(error) => verdict.set_up.push(format!("{error:#}")),
        }
        if let Err(error) = self.logs.flush() {
            verdict.set_up.push(format!("{error:#}"));
        }
        End::Verdict(verdict)
    }

    /// Watches the machine until it ends, or a signal (returned) or a limit ends it.
    fn watch(&mut self, verdict: &mut Verdict) -> Result<Option<i32>> {
        let start = Instant::now();
        let mut uart_line = Vec::new();
        let mut power_off_by = None;
        let mut pause = PAUSE.0;
        loop {
            // Asked before draining: what a dead machine has printed is all in its memory by then.
            let ended = self.qemu.ended().context("can't watch QEMU")?;
            let busy = self.pass(verdict, &mut uart_line, ended.is_some())?;
            if let Some(status) = ended {
                self.judge_exit(verdict, status);
                return Ok(None);
            }
            let signal = self.signal.load(Ordering::Relaxed);
            if signal != 0 {
                self.qemu.kill();
                return Ok(Some(signal as i32));
            }
            let now = Instant::now();
            if self.timeout.is_some_and(|timeout| now - start >= timeout) {
                verdict.timed_out = true;
                self.qemu.kill();
                self.pass(verdict, &mut uart_line, true)?;
                return Ok(None);
            }
            let finished = verdict.outcome.is_some() || !verdict.broken.is_empty();
            if finished && now >= *power_off_by.get_or_insert(now + POWER_OFF) {
                verdict.broken.push("the machine did not power off at its end".into());
                self.qemu.kill();
                return Ok(None);
            }
            self.consoles.serve(&mut self.keys);
            pause = if busy { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
            if self.front.wait(pause, &mut self.keys) == Ask::EndNow {
                self.qemu.kill();
                self.pass(verdict, &mut uart_line, true)?;
                verdict.outcome.get_or_insert(Outcome::Done);
                return Ok(None);
            }
        }
    }

    /// Takes everything there is to read; whether there was anything.
    fn pass(&mut self, verdict: &mut Verdict, uart_line: &mut Vec<u8>, last: bool) -> Result<bool> {
        let bytes = self.qemu.uart().context("can't read the boot log")?;
        uart_line.extend_from_slice(&bytes);
        while let Some(end) = uart_line.iter().position(|byte| *byte == b'\n') {
            let rest = uart_line.split_off(end + 1);
            let line = std::mem::replace(uart_line, rest);
            self.boot_line(&line)?;
        }
        if last && !uart_line.is_empty() {
            uart_line.push(b'\n');
            let line = std::mem::take(uart_line);
            self.boot_line(&line)?;
        }
        let mut taken = Vec::new();
        let lost = self.drain.poll(last, |cell, record, payload| {
            taken.push(Taken { cell, record, payload: payload.to_vec() });
        });
        for one in &taken {
            self.record(verdict, one)?;
        }
        let lost = lost.err().or_else(|| if last { self.drain.finish().err() } else { None });
        if let Some(lost) = lost {
            verdict.broken.push(lost.what);
            self.qemu.kill();
        }
        self.logs.flush()?;
        Ok(!bytes.is_empty() || !taken.is_empty())
    }

    fn boot_line(&mut self, line: &[u8]) -> Result<()> {
        let text = String::from_utf8_lossy(line);
        let mut text = self.symbols.annotate(text.trim_end_matches(['\r', '\n']));
        text.push('\n');
        self.logs.stream("boot", text.as_bytes())?;
        self.show("boot", None, text.as_bytes());
        Ok(())
    }

    /// Shows bytes to everybody who watches.
    fn show(&mut self, name: &str, number: Option<u16>, bytes: &[u8]) {
        self.front.output(name, number, bytes);
        self.consoles.output(name, bytes);
    }

    fn record(&mut self, verdict: &mut Verdict, taken: &Taken) -> Result<()> {
        let Taken { cell, record, payload } = taken;
        let name = stream_name(&self.names, record.stream);
        match record.stream {
            stream::EVENTS => match Event::decode(payload) {
                Ok(mut event) => {
                    if let Kind::Panic { message } = &mut event.kind {
                        // Events hold nothing of the build: only the operator's copy gets symbols.
                        let shown = self.symbols.annotate(message);
                        // Of several cells the others go on.
                        let whose =
                            if self.cells > 1 { format!(" of cell {cell}") } else { String::new() };
                        let what = format!("the monitor{whose} panicked: {shown}");
                        if self.cells > 1 { &mut verdict.cells_lost } else { &mut verdict.broken }
                            .push(what);
                    } else {
                        verdict.event(&event);
                    }
                    match event.kind {
                        Kind::CellLost { lost } => self.keys.lost(lost),
                        Kind::CellBack { back } => self.keys.back(back),
                        _ => {}
                    }
                    self.logs.event(&event.to_string())?;
                    self.front.event(&event);
                }
                Err(error) => verdict.broken.push(format!("a damaged event: {error}")),
            },
            stream::OUTCOME => match Outcome::decode(payload) {
                Ok(outcome) => verdict.outcome = Some(outcome),
                Err(error) => verdict.broken.push(format!("a damaged outcome: {error}")),
            },
            stream::LOG => {
                let seconds = record.t_ns / 1_000_000_000;
                let micros = record.t_ns / 1000 % 1_000_000;
                let text = String::from_utf8_lossy(payload);
                let whose = if self.cells > 1 { format!("cell {cell}: ") } else { String::new() };
                let line = format!("[{seconds:5}.{micros:06}] {whose}{text}\n");
                self.logs.stream(&name, line.as_bytes())?;
                self.show(&name, None, line.as_bytes());
            }
            number => {
                self.logs.stream(&name, payload)?;
                self.logs.record(record.t_ns, &name, payload)?;
                self.show(&name, Some(number), payload);
            }
        }
        Ok(())
    }

    /// What QEMU's own end says.
    fn judge_exit(&mut self, verdict: &mut Verdict, status: ExitStatus) {
        let said = verdict.outcome.is_some() || verdict.is_broken();
        if status.success() && said {
            return;
        }
        if verdict.is_broken() {
            return;
        }
        let message = self.qemu.message().map_or(String::new(), |line| format!(": {line}"));
        verdict.broken.push(match status.code() {
            Some(0) => format!("the machine powered off without saying how the run ended{message}"),
            Some(1) if message.is_empty() => {
                "the monitor failed (see the boot log for its last words)".to_string()
            }
            _ => format!("QEMU died ({status}){message}"),
        });
    }
}
