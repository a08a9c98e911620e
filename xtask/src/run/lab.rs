//! A machine for an experiment: booted from a configuration's text, watched by a program, and reached into from outside
//! through QEMU's `qtest`, and its stub for debuggers if it is wanted.

use super::drain::{Drain, Keys};
use super::logs::Logs;
use super::pack::{self, Mode, Monitor};
use super::plan::{Flags, Plan};
use super::qemu::{Options, Qemu};
use super::ram::Ram;
use super::session::{End, Front, Session};
use super::spec::Spec;
use super::symbols::Symbols;
use super::verdict::Verdict;
use crate::build::Built;
use crate::console::Server;
use crate::endian::Endian;
use crate::setup;
use abi::layout::Layout;
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// What a machine is made of, and how it is run.
#[derive(Clone, Copy, Debug)]
pub struct Recipe<'a> {
    /// Its byte order, if the configuration does not say it.
    pub endian: Endian,
    /// The configuration's text.
    pub config: &'a str,
    /// Under `-icount`, with this seed; or on host threads.
    pub icount: Option<u64>,
    /// Whether a debugger may connect.
    pub gdb: bool,
    /// Whether it goes on when its VMs have ended, until somebody ends it.
    pub stays: bool,
}

/// A machine that is about to start.
pub struct Lab {
    /// Its memory.
    pub ram: Ram,
    /// The names of its VMs.
    pub names: Vec<String>,
    endian: Endian,
    plan: Plan,
    options: Options,
    kernel_elf: PathBuf,
    drain: Drain,
    keys: Keys,
    folder: TempDir,
}

impl Lab {
    /// A machine whose cells boot the monitor `built`.
    ///
    /// # Errors
    /// Set-up: the configuration can't be run, or images are not to be had.
    pub fn new(recipe: &Recipe, built: &Built) -> Result<Self> {
        let elf = std::fs::read(&built.kernel_elf)
            .with_context(|| built.kernel_elf.display().to_string())?;
        let monitor = Monitor::flatten(&elf)?;
        let spec = Spec::parse(Path::new("the built-in configuration"), recipe.config)?;
        let flags = Flags { endian: Some(recipe.endian), ..Flags::default() };
        let plan = Plan::new(Some(spec), &flags)?;
        let images = super::images::load(&plan, super::built_in)?;
        let ram = Ram::new(Ram::size_of(&plan.layout))?;
        let (icount, seed) = (recipe.icount.is_some(), recipe.icount.unwrap_or(0));
        let epoch_s = if icount { super::qemu::ICOUNT_EPOCH_S } else { 0 };
        let mode = Mode { icount, seed, epoch_s, stay: recipe.stays };
        pack::pack(&ram, &plan, &images, &monitor, &[], mode)?;
        let folder = tempfile::tempdir().context("a folder for QEMU's sockets")?;
        let socket = |name: &str| {
            format!("unix:{},server=on,wait=off", folder.path().join(name).display()).into()
        };
        let mut extra = vec!["-qtest".into(), socket("qtest"), "-qtest-log".into(), "none".into()];
        if recipe.gdb {
            extra.extend(["-gdb".into(), socket("gdb")]);
        }
        let boot_elf = built.boot_elf.clone();
        let options = Options { boot_elf, icount, seed, gdb: false, extra };
        let names: Vec<String> = plan.vms.iter().map(|vm| vm.name.value.clone()).collect();
        Ok(Self {
            endian: recipe.endian,
            options,
            kernel_elf: built.kernel_elf.clone(),
            drain: Drain::new(&ram, &plan.layout, names.clone()),
            keys: Keys::new(&ram),
            ram,
            names,
            plan,
            folder,
        })
    }

    /// How its nodes are divided.
    pub fn layout(&self) -> Layout {
        self.plan.layout
    }

    /// Where QEMU will listen: `qtest` or `gdb`.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Boots it, and has `front` watch it to its end.
    ///
    /// # Errors
    /// QEMU does not start, or this program is told to end.
    pub fn run(self, front: &mut dyn Front, limit: Duration) -> Result<Verdict> {
        let command = setup::qemu(self.endian, None)?.command();
        let qemu = Qemu::start(command, &self.plan, &self.options, &self.ram, self.endian)?;
        let session = Session {
            qemu,
            drain: self.drain,
            keys: self.keys,
            logs: Logs::default(),
            front,
            consoles: Server::new(std::iter::empty()),
            names: self.names,
            timeout: Some(limit),
            signal: Arc::default(),
            cells: self.plan.layout.cells(),
            symbols: Symbols::new(&self.kernel_elf),
        };
        match session.run() {
            End::Verdict(verdict) => Ok(verdict),
            End::Signal(_) => bail!("ended by a signal"),
        }
    }
}

/// QEMU's `qtest`, at which a machine's memory and registers can be reached from outside.
#[derive(Debug)]
pub struct Qtest(BufReader<UnixStream>);

impl Qtest {
    /// The one that listens at this socket.
    ///
    /// # Errors
    /// None does.
    pub fn connect(socket: &Path) -> Result<Self> {
        Ok(Self(BufReader::new(UnixStream::connect(socket).context("QEMU's qtest socket")?)))
    }

    /// Has it do something that it does not answer but by `OK`.
    ///
    /// # Errors
    /// It answers something else, or is gone.
    pub fn command(&mut self, command: &str) -> Result<()> {
        writeln!(self.0.get_mut(), "{command}").context("QEMU's qtest")?;
        let mut answer = String::new();
        self.0.read_line(&mut answer).context("QEMU's qtest")?;
        if answer.trim_end() != "OK" {
            bail!("QEMU's qtest answers {answer:?} to {command:?}");
        }
        Ok(())
    }
}
