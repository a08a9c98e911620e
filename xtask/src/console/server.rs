//! A run's side of the consoles that are attached from other terminals.
//!
//! Whoever connects says one line, `attach NAME` or `list`, and is answered by one: `attached NAME`,
//! `error WHY`, or the names. After `attached` what the console has printed comes as it is, from the
//! oldest byte that is kept, and what is sent is typed. An attachment is a place in a [`Scrollback`]: one
//! that reads slowly falls behind, and is told what it has missed, but holds nothing up.

use super::folder::Folder;
use super::scrollback::Scrollback;
use crate::run::Keys;
use anyhow::Result;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// Most bytes of the line that one who connects says.
const GREETING_MAX: usize = 256;
/// Most typed bytes that wait for room in the machine's input ring, an attachment.
const TYPED_MAX: usize = 4096;
/// Most attachments at once.
const CLIENTS_MAX: usize = 64;
/// How long the last words may take to be read when the run ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// A console that can be attached to.
#[derive(Debug)]
struct Stream {
    name: String,
    /// Where what is typed goes; `None`: nothing can be typed.
    number: Option<u16>,
    kept: Scrollback,
}

#[derive(Debug)]
struct Client {
    socket: UnixStream,
    /// Read of its first line.
    greeting: Vec<u8>,
    /// The console, and how much of it was shown.
    attached: Option<(usize, u64)>,
    /// Typed, but not taken yet.
    typed: Vec<u8>,
    /// To be sent before more of the console.
    notice: Vec<u8>,
    state: Open,
}

/// Whether an attachment goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Yes,
    /// When the notice is sent.
    UntilSent,
    No,
}

/// The consoles of a run, and who is attached to them.
#[derive(Debug, Default)]
pub struct Server {
    streams: Vec<Stream>,
    /// `None`: nobody can attach.
    listener: Option<(Folder, UnixListener)>,
    clients: Vec<Client>,
}

impl Server {
    /// Consoles with their names and the streams of what is typed at them, which nobody can attach to yet.
    pub fn new(consoles: impl IntoIterator<Item = (String, Option<u16>)>) -> Self {
        let stream = |(name, number)| Stream { name, number, kept: Scrollback::default() };
        Self { streams: consoles.into_iter().map(stream).collect(), ..Self::default() }
    }

    /// Lets others attach, through a folder in `place`.
    ///
    /// # Errors
    /// When the folder can't be made.
    pub fn open(&mut self, place: &Path) -> Result<()> {
        self.listener = Some(Folder::new(place)?);
        Ok(())
    }

    /// A console has printed bytes.
    pub fn output(&mut self, name: &str, bytes: &[u8]) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.name == name) {
            stream.kept.push(bytes);
        }
    }

    /// Serves everybody as far as it goes without waiting: new attachments, output, what is typed.
    pub fn serve(&mut self, keys: &mut Keys) {
        if let Some((_, listener)) = &self.listener {
            while self.clients.len() < CLIENTS_MAX
                && let Ok((socket, _)) = listener.accept()
            {
                if socket.set_nonblocking(true).is_ok() {
                    self.clients.push(Client::new(socket));
                }
            }
        }
        for client in &mut self.clients {
            client.listen(&self.streams);
            client.speak(&self.streams);
            client.pass_typed(&self.streams, keys);
        }
        self.clients.retain(|client| client.state != Open::No);
    }

    /// The run is over: everybody gets the rest, if they still read.
    pub fn finish(&mut self) {
        self.listener = None;
        let end = Instant::now() + FAREWELL;
        for client in &mut self.clients {
            let behind = |client: &Client| {
                !client.notice.is_empty()
                    || client
                        .attached
                        .is_some_and(|(stream, at)| self.streams[stream].kept.end() > at)
            };
            client.speak(&self.streams);
            while client.state != Open::No && behind(client) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(1));
                client.speak(&self.streams);
            }
        }
        self.clients.clear();
    }
}

impl Client {
    fn new(socket: UnixStream) -> Self {
        let (greeting, typed, notice) = (Vec::new(), Vec::new(), Vec::new());
        Self { socket, greeting, attached: None, typed, notice, state: Open::Yes }
    }

    /// Takes what was sent.
    fn listen(&mut self, streams: &[Stream]) {
        let mut buffer = [0; 1024];
        while self.state == Open::Yes && self.typed.len() < TYPED_MAX {
            match self.socket.read(&mut buffer) {
                Ok(0) => {
                    // Its input has come to an end; whether it still reads, or has left?
                    let mut fds = [PollFd::new(&self.socket, PollFlags::empty())];
                    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
                    let looked = rustix::event::poll(&mut fds, Some(&now));
                    if looked.is_ok() && fds[0].revents().contains(PollFlags::HUP) {
                        self.state = Open::No;
                    }
                    return;
                }
                Ok(count) => self.take(&buffer[..count], streams),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.state = Open::No,
            }
        }
    }

    fn take(&mut self, bytes: &[u8], streams: &[Stream]) {
        let Some((stream, _)) = self.attached else {
            self.greeting.extend_from_slice(bytes);
            let end = self.greeting.iter().position(|byte| *byte == b'\n');
            match end {
                Some(end) if end <= GREETING_MAX => {
                    let rest = self.greeting.split_off(end + 1);
                    let line = std::mem::take(&mut self.greeting);
                    self.greeted(String::from_utf8_lossy(&line).trim(), streams);
                    if self.attached.is_some() && !rest.is_empty() {
                        self.take(&rest, streams);
                    }
                }
                None if self.greeting.len() <= GREETING_MAX => {}
                _ => self.refuse("that is no greeting"),
            }
            return;
        };
        if streams[stream].number.is_some() {
            self.typed.extend_from_slice(bytes);
        }
    }

    fn greeted(&mut self, line: &str, streams: &[Stream]) {
        let names = || streams.iter().map(|stream| stream.name.as_str());
        match line.split_once(' ') {
            None if line == "list" => {
                let names: Vec<&str> = names().collect();
                self.notice = format!("{}\n", names.join(" ")).into_bytes();
                self.state = Open::UntilSent;
            }
            Some(("attach", name)) => match names().position(|known| known == name) {
                Some(stream) => {
                    self.notice = format!("attached {name}\n").into_bytes();
                    self.attached = Some((stream, 0));
                }
                None => {
                    let near = nearest(name, names());
                    let all: Vec<&str> = names().collect();
                    let all = all.join(", ");
                    self.refuse(&match near {
                        Some(near) => {
                            format!("no console `{name}`: did you mean `{near}`? There are: {all}")
                        }
                        None => format!("no console `{name}`: there are: {all}"),
                    });
                }
            },
            _ => self.refuse("that is no greeting"),
        }
    }

    fn refuse(&mut self, why: &str) {
        self.notice = format!("error {why}\n").into_bytes();
        self.state = Open::UntilSent;
    }

    /// Sends what there is, as far as it is taken.
    fn speak(&mut self, streams: &[Stream]) {
        while self.state != Open::No {
            if !self.notice.is_empty() {
                match self.socket.write(&self.notice) {
                    Ok(count) => drop(self.notice.drain(..count)),
                    Err(error) => return self.failed(&error),
                }
                continue;
            }
            if self.state == Open::UntilSent {
                self.state = Open::No;
                return;
            }
            let Some((stream, at)) = &mut self.attached else { return };
            let rest = streams[*stream].kept.since(*at);
            if rest.cut > 0 {
                let text = format!("\r\n[{} bytes are not kept any more]\r\n", rest.cut);
                *at += rest.cut;
                self.notice = text.into_bytes();
                continue;
            }
            let piece = if rest.pieces[0].is_empty() { rest.pieces[1] } else { rest.pieces[0] };
            if piece.is_empty() {
                return;
            }
            match self.socket.write(piece) {
                Ok(count) => *at += count as u64,
                Err(error) => return self.failed(&error),
            }
        }
    }

    fn failed(&mut self, error: &std::io::Error) {
        if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
            self.state = Open::No;
        }
    }

    fn pass_typed(&mut self, streams: &[Stream], keys: &mut Keys) {
        if let Some((stream, _)) = self.attached
            && let Some(number) = streams[stream].number
            && !self.typed.is_empty()
        {
            let taken = keys.type_at(number, &self.typed);
            self.typed.drain(..taken);
        }
    }
}

/// The name that was probably meant.
fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |name: &'a str| (strsim::osa_distance(word, name), name);
    let near = names.map(distance).filter(|(distance, _)| *distance <= 2);
    near.min().map(|(_, name)| name)
}
