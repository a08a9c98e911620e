//! The little of the GDB remote serial protocol that stops a machine where one wants it.
//!
//! *Debugging with GDB*, appendix E "Remote Serial Protocol"; QEMU's stub numbers CPUs from 1. Whatever it stops, all of the
//! machine stands still, its clock too.

use abi::CpuId;
use anyhow::{Context, Result, bail};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long an answer may take that needs nothing of the machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Which of the registers that `g` lists the program counter is (`mips64-cpu.xml` of GDB: 32 general ones, then Status, Lo,
/// Hi, BadVAddr, Cause, PC).
const PC: usize = 37;

/// A machine at whose stub we are. It stands still from the moment of connecting on.
pub struct Gdb {
    stream: UnixStream,
    is_big: bool,
    /// What has been read and is not yet understood.
    read: Vec<u8>,
}

impl Gdb {
    /// Connects, which stops the machine.
    ///
    /// # Errors
    /// QEMU does not listen there.
    pub fn connect(socket: &Path, is_big: bool) -> Result<Self> {
        let stream = UnixStream::connect(socket).context("QEMU's socket for debuggers")?;
        Ok(Self { stream, is_big, read: Vec::new() })
    }

    /// Has all CPUs run on.
    ///
    /// # Errors
    /// The stub is gone.
    pub fn go_on(&mut self) -> Result<()> {
        self.send("vCont;c")
    }

    /// Asks all CPUs to stop; [`Self::stopped`] says when they have.
    ///
    /// # Errors
    /// The stub is gone.
    pub fn break_in(&mut self) -> Result<()> {
        self.stream.write_all(&[3]).context("QEMU's stub")
    }

    /// Whether the machine has stopped, waiting for at most so long; the CPU for whose sake.
    ///
    /// # Errors
    /// The stub is gone, or says something else.
    pub fn stopped(&mut self, limit: Duration) -> Result<Option<CpuId>> {
        let Some(answer) = self.receive(limit)? else { return Ok(None) };
        let thread = answer.split_once("thread:").and_then(|(_, rest)| rest.split(';').next());
        match thread.and_then(|thread| u8::from_str_radix(thread, 16).ok()) {
            Some(thread @ 1..) if answer.starts_with('T') => Ok(Some(CpuId(thread - 1))),
            _ => bail!("QEMU's stub says {answer:?} where a CPU was to stop"),
        }
    }

    /// Executes an instruction of one CPU while all others stand still; `false`: it sleeps.
    ///
    /// # Errors
    /// The stub is gone.
    pub fn step(&mut self, cpu: CpuId) -> Result<bool> {
        self.send(&format!("vCont;s:{:x}", cpu.0 + 1))?;
        if self.stopped(Duration::from_millis(200))?.is_some() {
            return Ok(true);
        }
        self.break_in()?;
        self.stopped(PATIENCE)?.context("QEMU's stub does not stop a CPU that sleeps")?;
        Ok(false)
    }

    /// The program counter of a CPU.
    ///
    /// # Errors
    /// The stub is gone.
    pub fn pc(&mut self, cpu: CpuId) -> Result<u64> {
        self.ask(&format!("Hg{:x}", cpu.0 + 1))?;
        let all = self.ask("g")?;
        let hex = all.get(PC * 16..(PC + 1) * 16).context("QEMU's stub knows too few registers")?;
        let word = u64::from_str_radix(hex, 16).context("a register of QEMU's stub")?;
        Ok(if self.is_big { word } else { word.swap_bytes() })
    }

    /// Has any CPU stop that is about to execute the instruction at `pc`, or not any more.
    ///
    /// # Errors
    /// The stub is gone or refuses.
    pub fn breakpoint(&mut self, pc: u64, on: bool) -> Result<()> {
        let answer = self.ask(&format!("{}0,{pc:x},4", if on { 'Z' } else { 'z' }))?;
        if answer == "OK" {
            Ok(())
        } else {
            bail!("QEMU's stub answers {answer:?} to a breakpoint")
        }
    }

    fn ask(&mut self, packet: &str) -> Result<String> {
        self.send(packet)?;
        self.receive(PATIENCE)?.with_context(|| format!("QEMU's stub does not answer {packet}"))
    }

    fn send(&mut self, packet: &str) -> Result<()> {
        let sum = packet.bytes().fold(0u8, u8::wrapping_add);
        self.stream.write_all(format!("${packet}#{sum:02x}").as_bytes()).context("QEMU's stub")
    }

    /// The next packet's text.
    fn receive(&mut self, limit: Duration) -> Result<Option<String>> {
        let end = std::time::Instant::now() + limit;
        loop {
            if let Some(packet) = take_packet(&mut self.read) {
                self.stream.write_all(b"+").context("QEMU's stub")?;
                return Ok(Some(packet));
            }
            let left = end.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left)).context("QEMU's stub")?;
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => bail!("QEMU's stub has gone"),
                Ok(n) => self.read.extend_from_slice(&bytes[..n]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error).context("QEMU's stub"),
            }
        }
    }
}

/// Takes the first whole packet, with what stands before it (acknowledgements).
fn take_packet(read: &mut Vec<u8>) -> Option<String> {
    let start = read.iter().position(|byte| *byte == b'$')?;
    let hash = read[start..].iter().position(|byte| *byte == b'#')? + start;
    if read.len() < hash + 3 {
        return None;
    }
    let text = String::from_utf8_lossy(&read[start + 1..hash]).into_owned();
    read.drain(..hash + 3);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_taken_one_by_one() {
        let mut read = b"++$OK#9a+$T05thread:02;#e".to_vec();
        assert_eq!(take_packet(&mut read).as_deref(), Some("OK"));
        assert_eq!(take_packet(&mut read), None);
        read.push(b'0');
        assert_eq!(take_packet(&mut read).as_deref(), Some("T05thread:02;"));
        assert!(read.is_empty());
    }
}
