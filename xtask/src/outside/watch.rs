//! A running machine as the driver of a series sees it: what its consoles print and what happens, as it comes.

use crate::fault::judge::ALARMS;
use crate::fault::sides::Cells;
use crate::run::drain::Keys;
use crate::run::session::{Ask, Front};
use abi::event::{Cause, Event, Kind};
use abi::ring::stream;
use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Something that the machine has done.
enum Seen {
    Output(String, Vec<u8>),
    Event(Event<'static>),
}

/// Between the session, which drains the machine, and the driver, in another thread.
pub struct Relay {
    seen: Sender<Seen>,
    typed: Receiver<Vec<u8>>,
    /// What the ring had no room for yet.
    rest: VecDeque<u8>,
    over: Arc<AtomicBool>,
}

impl Front for Relay {
    fn output(&mut self, name: &str, _: Option<u16>, bytes: &[u8]) {
        // Nobody listens any more once the driver is done.
        let _ = self.seen.send(Seen::Output(name.into(), bytes.to_vec()));
    }

    fn event(&mut self, event: &Event) {
        let event = Event::decode(&event.encode()).expect("what was encoded can be decoded");
        let _ = self.seen.send(Seen::Event(event));
    }

    fn wait(&mut self, pause: Duration, keys: &mut Keys) -> Ask {
        if self.over.load(Ordering::Relaxed) {
            return Ask::EndNow;
        }
        self.rest.extend(self.typed.try_iter().flatten());
        let taken = keys.type_at(stream::MONITOR, self.rest.make_contiguous());
        self.rest.drain(..taken);
        std::thread::sleep(pause);
        Ask::GoOn
    }

    fn finish(&mut self) {}
}

/// A VM, as far as it was seen.
#[derive(Debug, Default)]
pub struct VmSeen {
    /// Whether it runs.
    pub lives: bool,
    /// When it was started last, in nanoseconds since power-on.
    pub since_ns: u64,
    /// What it has printed in this life.
    pub text: String,
    /// Bytes it has ever printed, and lives it has begun.
    pub progress: u64,
    /// How often it has finished its work.
    pub finished: u64,
    /// Why it has ended, since the last [`Machine::forget`].
    pub ends: Vec<Cause>,
    /// What it prints in a whole life.
    whole: String,
}

/// The machine.
pub struct Machine {
    seen: Receiver<Seen>,
    keys: Sender<Vec<u8>>,
    over: Arc<AtomicBool>,
    /// Its VMs.
    pub vms: BTreeMap<String, VmSeen>,
    /// The cells that have come up, and not been lost since.
    pub up: Cells,
    /// Cells that were reported lost, and by whom, since the last [`Self::forget`].
    pub losses: Vec<(i32, u8)>,
    /// What must never happen, and did.
    pub wrong: Vec<String>,
    /// What the monitor's console has printed since the last command.
    pub said: String,
    /// All that was seen, as lines of a log.
    pub log: String,
    /// The machine's time, as of the last event.
    pub now_ns: u64,
}

/// A machine's two ends: for the session and for the driver. `wholes`: what each VM prints in a whole life.
pub fn relay(wholes: BTreeMap<String, String>) -> (Relay, Machine) {
    let (send_seen, seen) = channel();
    let (keys, typed) = channel();
    let over = Arc::new(AtomicBool::new(false));
    let relay = Relay { seen: send_seen, typed, rest: VecDeque::new(), over: over.clone() };
    let machine = Machine {
        seen,
        keys,
        over,
        vms: wholes
            .into_iter()
            .map(|(name, whole)| (name, VmSeen { whole, ..VmSeen::default() }))
            .collect(),
        up: 0,
        losses: Vec::new(),
        wrong: Vec::new(),
        said: String::new(),
        log: String::new(),
        now_ns: 0,
    };
    (relay, machine)
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

impl Machine {
    /// Types a command at the monitor's console.
    pub fn command(&mut self, line: &str) {
        self.said.clear();
        self.log.push_str(&format!("> {line}\n"));
        // A machine that has ended is noticed by whoever waits for something.
        let _ = self.keys.send(format!("{line}\r").into_bytes());
    }

    /// What is remembered of one experiment.
    pub fn forget(&mut self) {
        self.losses.clear();
        for vm in self.vms.values_mut() {
            vm.ends.clear();
        }
    }

    /// Watches for so long.
    ///
    /// # Errors
    /// The machine has ended.
    pub fn pass(&mut self, time: Duration) -> Result<(), String> {
        let end = Instant::now() + time;
        loop {
            match self.seen.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(seen) => self.take(seen),
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => return Err("the machine has ended".into()),
            }
        }
    }

    /// Watches until something is so, which is `what`.
    ///
    /// # Errors
    /// It is not within `limit`, or the machine has ended.
    pub fn until(
        &mut self,
        what: &str,
        limit: Duration,
        mut is_so: impl FnMut(&Self) -> bool,
    ) -> Result<(), String> {
        let end = Instant::now() + limit;
        while !is_so(self) {
            if Instant::now() >= end {
                return Err(format!("not within {} s: {what}", limit.as_secs()));
            }
            self.pass(Duration::from_millis(2))?;
        }
        Ok(())
    }

    fn take(&mut self, seen: Seen) {
        match seen {
            Seen::Output(name, bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                for line in text.split_inclusive('\n') {
                    self.log.push_str(&format!("{name}| {}\n", line.trim_end()));
                }
                if let Some(vm) = self.vms.get_mut(&name) {
                    vm.text.push_str(&text.replace('\r', ""));
                    vm.progress += bytes.len() as u64;
                } else if name == "monitor" {
                    if ALARMS.iter().any(|word| text.contains(word)) {
                        self.wrong.push(format!("the monitor says: {}", text.trim_end()));
                    }
                    self.said.push_str(&text.replace('\r', ""));
                } else if text.contains("monitor: panic") {
                    self.wrong.push(text.trim_end().to_owned());
                }
            }
            Seen::Event(event) => {
                self.log.push_str(&format!("{event}\n"));
                self.now_ns = self.now_ns.max(event.t_ns);
                self.event(&event);
            }
        }
    }

    fn event(&mut self, event: &Event) {
        match &event.kind {
            Kind::MonitorUp => {
                if let Ok(cell @ 0..8) = u8::try_from(event.cell) {
                    self.up |= 1 << cell;
                }
            }
            Kind::CellLost { lost } => {
                self.losses.push((event.cell, lost.0));
                self.up &= !(1 << lost.0);
            }
            Kind::CellBack { back } => self.up |= 1 << back.0,
            Kind::Panic { message } => {
                self.wrong
                    .push(format!("the monitor of cell {} has panicked: {message}", event.cell));
            }
            Kind::VmStart { vm } => {
                let vm = self.vms.entry(vm.to_string()).or_default();
                vm.lives = true;
                vm.since_ns = event.t_ns;
                vm.progress += 1;
                vm.text.clear();
            }
            Kind::VmEnd { vm: name, cause } => {
                let vm = self.vms.entry(name.to_string()).or_default();
                vm.lives = false;
                vm.ends.push(*cause);
                match cause {
                    Cause::PowerOff | Cause::Reset => {
                        vm.finished += 1;
                        let text = std::mem::take(&mut vm.text);
                        if text != vm.whole {
                            self.wrong.push(format!(
                                "VM {name} has printed what it should not: {text:?}"
                            ));
                        }
                    }
                    // With its memory turning to garbage it may have printed anything.
                    Cause::CellLost => vm.text.clear(),
                    Cause::Quit | Cause::Stopped => {}
                    _ => self
                        .wrong
                        .push(format!("VM {name} has ended with cause {}", cause.as_str())),
                }
            }
            _ => {}
        }
    }
}

impl VmSeen {
    /// Whether what it has printed in this life is the beginning of what it prints in a whole one.
    pub fn is_right(&self) -> bool {
        self.whole.starts_with(&self.text)
    }
}
