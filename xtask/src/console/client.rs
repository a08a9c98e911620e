//! One attached console, from the operator's side.

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Leaves: Ctrl-], which opens the menu in a run.
const LEAVE: u8 = 0x1d;
/// How long a run may take to answer one who connects.
const ANSWER: Duration = Duration::from_secs(5);

/// How an attachment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The operator left.
    Operator,
    /// The run is over.
    RunOver,
}

/// Asks a run for the names of its consoles.
///
/// # Errors
/// When it does not answer.
pub fn list(socket: &mut UnixStream) -> Result<Vec<String>> {
    let line = ask(socket, "list")?;
    Ok(line.split(' ').map(str::to_string).collect())
}

/// Attaches to the console called `name`.
///
/// # Errors
/// What the run says against it, or that it says nothing.
pub fn attach(socket: &mut UnixStream, name: &str) -> Result<()> {
    let line = ask(socket, &format!("attach {name}"))?;
    match line.strip_prefix("error ") {
        Some(why) => bail!("{why}"),
        None => Ok(()),
    }
}

fn ask(socket: &mut UnixStream, line: &str) -> Result<String> {
    let silent = "the run does not answer (is it stopped?)";
    socket.set_read_timeout(Some(ANSWER))?;
    socket.write_all(format!("{line}\n").as_bytes()).context(silent)?;
    let mut answer = Vec::new();
    // A byte at a time: what follows the line belongs to the console.
    let mut byte = [0];
    loop {
        match socket.read(&mut byte) {
            Ok(0) => bail!("the run has ended"),
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) => answer.push(byte[0]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context(silent),
        }
    }
    socket.set_read_timeout(None)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Shows what comes and sends what is typed, until the operator leaves or the run ends. When `input` has
/// come to its end, what comes is still shown.
///
/// # Errors
/// When nothing can be shown.
pub fn attend(
    socket: &mut UnixStream,
    input: impl AsFd,
    output: &mut impl Write,
    signalled: impl Fn() -> bool,
) -> Result<Left> {
    let mut listening = true;
    let mut buffer = [0; 16 << 10];
    loop {
        if signalled() {
            return Ok(Left::Operator);
        }
        let keys = if listening { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = [PollFd::new(socket, PollFlags::IN), PollFd::new(&input, keys)];
        match rustix::event::poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.context("can't wait for the console")?,
        };
        let ready = |i: usize| !fds[i].revents().is_empty();
        let (printed, typed) = (ready(0), listening && ready(1));
        if printed {
            match socket.read(&mut buffer) {
                Ok(0) => return Ok(Left::RunOver),
                Ok(count) => {
                    output.write_all(&buffer[..count]).context("can't show the console")?;
                    output.flush().context("can't show the console")?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // It ended with something typed that it had not read.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return Ok(Left::RunOver);
                }
                Err(error) => return Err(error).context("can't read from the run"),
            }
        }
        if typed {
            match rustix::io::read(&input, &mut buffer[..]) {
                Ok(0) | Err(rustix::io::Errno::IO) => listening = false,
                Ok(count) => {
                    let leaves = buffer[..count].iter().position(|byte| *byte == LEAVE);
                    let text = &buffer[..leaves.unwrap_or(count)];
                    // A run that has just ended is found out by the next read.
                    let sent = socket.write_all(text);
                    if leaves.is_some() {
                        return Ok(Left::Operator);
                    }
                    listening = sent.is_ok();
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("can't read what is typed"),
            }
            if !listening {
                let _ = socket.shutdown(std::net::Shutdown::Write);
            }
        }
    }
}
