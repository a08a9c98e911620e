//! A fake run with consoles, and operators at them.

use super::*;
use crate::run::{Keys, Ram};
use abi::map;
use abi::ring::{Consumer, RECORD_MAX};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, mpsc};
use std::thread::JoinHandle;

/// Streams and what was typed there.
type Typed = Vec<(u16, Vec<u8>)>;

/// A run without a machine: it serves, prints what it is told, and remembers what was typed.
struct Fake {
    place: tempfile::TempDir,
    orders: mpsc::SyncSender<(&'static str, Vec<u8>)>,
    typed: Arc<Mutex<Typed>>,
    server: JoinHandle<()>,
}

impl Fake {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        // Told is printed: whoever attaches next finds it.
        let (orders, told) = mpsc::sync_channel::<(&str, Vec<u8>)>(0);
        let mut server = Server::new([
            ("linux".to_string(), Some(16)),
            ("irix".to_string(), Some(17)),
            ("monitor".to_string(), Some(0)),
            ("boot".to_string(), None),
        ]);
        server.open(place.path()).unwrap();
        let shared = Arc::new(Mutex::new(Typed::new()));
        let got = shared.clone();
        let serve = move || {
            let ram = Ram::new(map::IMAGES_BASE).unwrap();
            let mut keys = Keys::new(&ram);
            let (base, size) = (map::in_ring(abi::CellId(0)), map::IN_RING_SIZE);
            let mut typed = Consumer::new(ram.window(base, size), size);
            typed.attach(true);
            let mut buffer = [0; RECORD_MAX];
            loop {
                match told.recv_timeout(Duration::from_millis(1)) {
                    Ok((name, bytes)) => server.output(name, &bytes),
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                    Err(mpsc::RecvTimeoutError::Disconnected) => break,
                }
                server.serve(&mut keys);
                while let Ok(Some(record)) = typed.read(&mut buffer) {
                    let mut got = got.lock().unwrap();
                    match got.last_mut() {
                        Some((stream, bytes)) if *stream == record.stream => {
                            bytes.extend(&buffer[..record.len]);
                        }
                        _ => got.push((record.stream, buffer[..record.len].to_vec())),
                    }
                }
            }
            server.finish();
            assert_eq!(keys.used(), !got.lock().unwrap().is_empty());
        };
        Self { place, orders, typed: shared, server: std::thread::spawn(serve) }
    }

    fn prints(&self, name: &'static str, bytes: &[u8]) {
        self.orders.send((name, bytes.to_vec())).unwrap();
    }

    fn operator(&self, name: &str) -> Operator {
        let mut run = choose(self.place.path(), None).unwrap();
        client::attach(&mut run.socket, name).unwrap();
        let (keyboard, input) = UnixStream::pair().unwrap();
        let (shown, screen) = mpsc::channel();
        let attend = move || {
            let mut screen = Screen(shown);
            client::attend(&mut run.socket, input, &mut screen, || false).unwrap()
        };
        Operator { keyboard, screen, seen: Vec::new(), attend: std::thread::spawn(attend) }
    }

    /// Ends the run when this has been typed and nothing else.
    fn end(self, expected: &[(u16, &[u8])]) {
        let count = |typed: &Typed| typed.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        let all: usize = expected.iter().map(|(_, bytes)| bytes.len()).sum();
        while count(&self.typed.lock().unwrap()) < all {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(self.orders);
        self.server.join().unwrap();
        let typed = self.typed.lock().unwrap();
        let typed: Vec<(u16, &[u8])> = typed.iter().map(|(to, bytes)| (*to, &bytes[..])).collect();
        assert_eq!(typed, expected);
    }
}

struct Screen(mpsc::Sender<Vec<u8>>);

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.send(bytes.to_vec());
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Operator {
    keyboard: UnixStream,
    screen: mpsc::Receiver<Vec<u8>>,
    seen: Vec<u8>,
    attend: JoinHandle<Left>,
}

impl Operator {
    /// Waits until the screen shows `text`.
    fn sees(&mut self, text: &[u8]) {
        while !self.seen.windows(text.len()).any(|window| window == text) {
            self.seen.extend(self.screen.recv().expect("more to come"));
        }
    }

    fn types(&mut self, text: &[u8]) {
        self.keyboard.write_all(text).unwrap();
    }

    /// How it ended, and all that was seen.
    fn ends(mut self) -> (Left, Vec<u8>) {
        let left = self.attend.join().unwrap();
        self.seen.extend(self.screen.iter().flatten());
        (left, self.seen)
    }
}

#[test]
fn attaching_replays_then_goes_on_live_for_several_at_once() {
    let fake = Fake::new();
    fake.prints("linux", b"login: ");
    fake.prints("irix", b"not theirs");
    let (mut one, mut two) = (fake.operator("linux"), fake.operator("linux"));
    one.sees(b"login: ");
    two.sees(b"login: ");
    one.types(b"root\r");
    fake.prints("linux", b"# ");
    one.sees(b"login: # ");
    two.sees(b"login: # ");
    one.types(b"ls\r\x1dnot typed");
    assert_eq!(one.ends(), (Left::Operator, b"login: # ".to_vec()));
    fake.prints("linux", b"bin\r\n");
    two.sees(b"bin\r\n");
    fake.end(&[(16, b"root\rls\r")]);
    assert_eq!(two.ends(), (Left::RunOver, b"login: # bin\r\n".to_vec()));
}

#[test]
fn what_is_typed_goes_to_its_own_console_and_nowhere_if_it_can_only_be_read() {
    let fake = Fake::new();
    let mut monitor = fake.operator("monitor");
    monitor.types(b"vms\r");
    fake.prints("boot", b"monitor: up\n");
    let mut boot = fake.operator("boot");
    boot.types(b"ignored");
    boot.sees(b"monitor: up\n");
    // Input that comes to an end is no wish to leave.
    drop(monitor.keyboard.shutdown(std::net::Shutdown::Write));
    fake.prints("monitor", b"no VM");
    monitor.sees(b"no VM");
    fake.end(&[(0, b"vms\r")]);
    assert_eq!(monitor.ends().0, Left::RunOver);
    assert_eq!(boot.ends().0, Left::RunOver);
}

#[test]
fn what_is_not_kept_any_more_is_said() {
    let fake = Fake::new();
    fake.prints("linux", b"first");
    fake.prints("linux", &[b'x'; scrollback::KEPT]);
    fake.prints("linux", b"last");
    let mut operator = fake.operator("linux");
    operator.sees(b"last");
    assert!(operator.seen.starts_with(b"\r\n[9 bytes are not kept any more]\r\nxxx"));
    // One that does not read holds nobody up.
    let mut run = choose(fake.place.path(), None).unwrap();
    client::attach(&mut run.socket, "linux").unwrap();
    for _ in 0..20 {
        fake.prints("linux", &[b'y'; 100_000]);
    }
    fake.prints("linux", b"still here");
    operator.sees(b"still here");
    drop(run);
    fake.end(&[]);
}

#[test]
fn a_machine_that_nobody_types_at_is_not_touched() {
    let fake = Fake::new();
    fake.prints("linux", b"x");
    let mut operator = fake.operator("linux");
    operator.sees(b"x");
    operator.types(b"\x1d");
    assert_eq!(operator.ends().0, Left::Operator);
    fake.end(&[]);
}

#[test]
fn mistakes_are_named_with_a_remedy() {
    let fake = Fake::new();
    let place = fake.place.path();
    let said = |result: Result<Run, Missing>| match result.unwrap_err() {
        Missing::Yet(error) | Missing::Ever(error) => format!("{error:#}"),
    };
    let refused = |name: &str| {
        let mut run = choose(place, None).unwrap();
        client::attach(&mut run.socket, name).unwrap_err().to_string()
    };
    let all = "There are: linux, irix, monitor, boot";
    assert_eq!(refused("linus"), format!("no console `linus`: did you mean `linux`? {all}"));
    assert_eq!(refused("a\u{fc}"), format!("no console `a\u{fc}`: t{}", &all[1..]));
    assert!(refused(&"x".repeat(300)).contains("greeting"));

    let id = std::process::id();
    let there = format!("there are {id} (linux, irix, monitor, boot)");
    assert_eq!(
        said(choose(place, Some("4194305"))),
        format!("--run 4194305: process 4194305 runs no machine; {there}")
    );
    assert!(choose(place, Some(&id.to_string())).is_ok());
    assert!(choose(place, Some(&place.join(id.to_string()).display().to_string())).is_ok());
    assert_eq!(
        said(choose(place, Some("/nonexistent"))),
        format!("--run /nonexistent: /nonexistent runs no machine; {there}")
    );
    // A second run, under another number: a link to the first one's folder.
    std::os::unix::fs::symlink(place.join(id.to_string()), place.join("1")).unwrap();
    let two = said(choose(place, None));
    assert!(
        two.starts_with("2 machines run, say which one with --run PID: 1 (linux, irix"),
        "{two}"
    );
    let empty = tempfile::tempdir().unwrap();
    let none = "no machine runs: start one with `cargo xtask run`";
    assert_eq!(said(choose(empty.path(), None)), none);
    fake.end(&[]);
}
