//! QEMU's command line, and QEMU as a process that never outlives this one.
//!
//! Its files (RAM, UART 0, debug vector) have no names: QEMU inherits them open and finds them under
//! `/proc/self/fd`. So nothing is left behind, however this program ends.

use super::plan::Plan;
use super::ram::Ram;
use crate::endian::Endian;
use abi::map;
use abi::prom::{DEBUG_ENTRY, K0_SAVE_VA};
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// What the command line depends on beside the plan.
#[derive(Clone, Debug)]
pub struct Options {
    /// The PROM's ELF file.
    pub boot_elf: PathBuf,
    /// Under `-icount`.
    pub icount: bool,
    /// QEMU's seed.
    pub seed: u64,
    /// Wait for a debugger.
    pub gdb: bool,
    /// What the operator adds.
    pub extra: Vec<OsString>,
}

/// Where a debugger finds the machine.
pub const GDB_ADDRESS: &str = "127.0.0.1:1234";
/// When the machine's clock starts under icount: a constant, so that two runs are the same.
pub const ICOUNT_EPOCH_S: u64 = 1_704_067_200;
const ICOUNT_EPOCH: &str = "2024-01-01T00:00:00";

/// The three files that QEMU is given, as it names them.
#[derive(Clone, Debug)]
pub struct Names {
    /// The machine's RAM.
    pub ram: String,
    /// What UART 0 prints.
    pub uart: String,
    /// Code for the Debug Mode vector.
    pub debug_vector: String,
}

impl Names {
    /// For a command line that nobody runs.
    pub fn placeholders() -> Self {
        Self { ram: "RAM-FILE".into(), uart: "UART-FILE".into(), debug_vector: "DEBUG-FILE".into() }
    }
}

/// QEMU's arguments.
pub fn arguments(plan: &Plan, options: &Options, names: &Names) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    let mut arg = |text: &str| args.push(text.into());
    arg("-M");
    arg("malta,memory-backend=ram");
    let layout = &plan.layout;
    let ram_size = layout.ram_size();
    arg("-m");
    arg(&format!("{}M", ram_size >> 20));
    arg("-object");
    arg(&format!("memory-backend-file,id=ram,size={ram_size},mem-path={},share=on", names.ram));
    arg("-cpu");
    arg("MIPS64R2-generic");
    arg("-smp");
    arg(&plan.cpus().to_string());
    // Without devices of QEMU's own choice it needs no ROM files.
    for text in ["-nodefaults", "-vga", "none", "-nic", "none", "-display", "none"] {
        arg(text);
    }
    for text in ["-monitor", "none", "-parallel", "none", "-no-reboot"] {
        arg(text);
    }
    // A file, never a socket: a full socket would hold the transmitter busy and make time depend on
    // its reader.
    arg("-serial");
    arg(&format!("file:{}", names.uart));
    for text in ["-device", "pvpanic-pci,addr=0x1e", "-action", "panic=exit-failure"] {
        arg(text);
    }
    // Windows: in the same file, behind the RAM.
    for node in layout.node_ids().filter(|_| layout.window != 0) {
        let (size, offset) = (layout.window, Ram::window_offset(layout, node));
        arg("-object");
        arg(&format!(
            "memory-backend-file,id=node{node},size={size},mem-path={},offset={offset},share=on",
            names.ram
        ));
        arg("-device");
        let slot = map::WINDOW_SLOT + u32::from(node.0);
        arg(&format!("nvme,serial=node{node},pmrdev=node{node},addr={slot:#x}"));
    }
    arg("-device");
    let vector = map::DEBUG_VECTOR;
    arg(&format!("loader,file={},addr={vector:#x},force-raw=on", names.debug_vector));
    arg("-accel");
    if options.icount {
        arg("tcg,thread=single");
        arg("-icount");
        arg("shift=0,sleep=off");
        arg("-rtc");
        arg(&format!("base={ICOUNT_EPOCH},clock=vm"));
        arg("-seed");
        // QEMU's seed has 32 bits.
        arg(&(options.seed & 0xffff_ffff).to_string());
    } else {
        arg("tcg,thread=multi");
        arg("-rtc");
        arg("base=utc");
    }
    if options.gdb {
        for text in ["-gdb", &format!("tcp:{GDB_ADDRESS}"), "-S"] {
            arg(text);
        }
    }
    arg("-kernel");
    args.push(options.boot_elf.clone().into());
    args.extend(options.extra.iter().cloned());
    args
}

/// What stands at the Debug Mode vector, where `sdbbp` leads, which is not privileged: the jump to the
/// PROM that makes a trap of it, by way of `$k0`.
fn debug_vector(endian: Endian) -> Vec<u8> {
    const SAVE_K0: u32 = 0xfc1a_0000 | K0_SAVE_VA as u32 & 0xffff;
    const LUI_K0: u32 = 0x3c1a_0000 | (DEBUG_ENTRY >> 16) as u32 & 0xffff;
    const ORI_K0: u32 = 0x375a_0000 | DEBUG_ENTRY as u32 & 0xffff;
    const JR_K0: u32 = 0x0340_0008;
    const NOP: u32 = 0;
    let code = [SAVE_K0, LUI_K0, ORI_K0, JR_K0, NOP];
    let bytes = code.map(|word| match endian {
        Endian::Little => word.to_le_bytes(),
        Endian::Big => word.to_be_bytes(),
    });
    bytes.concat()
}

/// A running QEMU. It is killed when this is dropped, and by the system when this process dies.
#[derive(Debug)]
pub struct Qemu {
    child: Child,
    uart: File,
    uart_read: u64,
    messages: File,
}

impl Qemu {
    /// Starts QEMU. `command` is the program with its environment.
    ///
    /// # Errors
    /// When its files can't be made or the program does not start.
    pub fn start(
        mut command: Command,
        plan: &Plan,
        options: &Options,
        ram: &Ram,
        endian: Endian,
    ) -> Result<Self> {
        let file =
            |what| tempfile::tempfile().with_context(|| format!("can't make a file for {what}"));
        let uart = file("the boot log")?;
        let messages = file("QEMU's messages")?;
        let mut vector = file("the debug vector")?;
        vector.write_all(&debug_vector(endian)).context("can't write the debug vector")?;
        let fds = [ram.file().as_raw_fd(), uart.as_raw_fd(), vector.as_raw_fd()];
        let [ram_name, uart_name, debug_vector] = fds.map(|fd| format!("/proc/self/fd/{fd}"));
        let names = Names { ram: ram_name, uart: uart_name, debug_vector };
        let program = command.get_program().to_os_string();
        command
            .args(arguments(plan, options, &names))
            .stdin(Stdio::null())
            .stdout(messages.try_clone().context("QEMU's messages")?)
            .stderr(messages.try_clone().context("QEMU's messages")?)
            // Ctrl-C at the terminal is for this program alone.
            .process_group(0);
        tie_to_parent(&mut command, fds);
        let child = command.spawn().with_context(|| {
            format!(
                "can't start {}; check --qemu or run `cargo xtask doctor`",
                Path::new(&program).display()
            )
        })?;
        Ok(Self { child, uart, uart_read: 0, messages })
    }

    /// What UART 0 has printed since the last call.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn uart(&mut self) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.uart.seek(SeekFrom::Start(self.uart_read))?;
        self.uart.read_to_end(&mut bytes)?;
        self.uart_read += bytes.len() as u64;
        Ok(bytes)
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the system can't say.
    pub fn ended(&mut self) -> std::io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Ends it.
    pub fn kill(&mut self) {
        // An error means that it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The last line QEMU itself printed, but for warnings: of these it has one whenever a MIPS machine
    /// has several threads.
    pub fn message(&mut self) -> Option<String> {
        let mut bytes = Vec::new();
        self.messages.seek(SeekFrom::Start(0)).ok()?;
        self.messages.read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines().rev().map(str::trim);
        lines.find(|line| !line.is_empty() && !line.contains("warning:")).map(str::to_string)
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Makes the child keep `fds` open, and die when this thread's process does.
fn tie_to_parent(command: &mut Command, fds: [RawFd; 3]) {
    let parent = rustix::process::getpid();
    let prepare = move || {
        use rustix::io::{FdFlags, fcntl_setfd};
        use rustix::process::{Signal, getppid, set_parent_process_death_signal};
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if getppid() != Some(parent) {
            // The parent died before the line above: nobody will send the signal.
            return Err(rustix::io::Errno::SRCH.into());
        }
        for fd in fds {
            // SAFETY: the parent holds the file open across the fork, so that the number names it in
            // the child too.
            let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
            fcntl_setfd(fd.as_fd(), FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes system calls only (prctl, getppid, fcntl): no
    // allocation, no lock, nothing that another thread of the parent could have left half-done.
    unsafe { command.pre_exec(prepare) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::plan::Flags;

    fn line(icount: bool) -> String {
        let plan = Plan::new(None, &Flags::default()).unwrap();
        let options = Options {
            boot_elf: "boot.elf".into(),
            icount,
            seed: 7,
            gdb: false,
            extra: vec!["-extra".into()],
        };
        let args = arguments(&plan, &options, &Names::placeholders());
        args.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_command_line_is_closed_and_complete() {
        for icount in [false, true] {
            let line = line(icount);
            assert!(!line.contains("semihosting"), "it would open host files to a guest");
            assert!(line.contains("-nodefaults") && line.contains("-no-reboot"));
            assert!(line.contains("addr=0x1fc00480,force-raw=on"), "Debug Mode is closed");
            assert!(line.contains("size=1073741824,") && line.contains("-m 1024M"));
            let window = "size=67108864,mem-path=RAM-FILE,offset=1275068416,share=on -device nvme,serial=node3,pmrdev=node3,addr=0x15 ";
            assert!(line.contains(window), "{line}");
            assert!(line.ends_with("-kernel boot.elf -extra"));
            assert!(!line.contains("socket") && !line.contains("tcp:"));
            assert_eq!(line.contains("clock=vm -seed 7"), icount);
            assert_eq!(line.contains("thread=multi"), !icount);
        }
    }

    #[test]
    fn the_debug_vector_leads_to_the_prom_in_both_byte_orders() {
        // sd $k0, -8192($zero); lui $k0, 0x8010; ori $k0, $k0, 0x280; jr $k0
        let little =
            [0, 0xe0, 0x1a, 0xfc, 0x10, 0x80, 0x1a, 0x3c, 0x80, 0x02, 0x5a, 0x37, 8, 0, 0x40, 3];
        let big =
            [0xfc, 0x1a, 0xe0, 0, 0x3c, 0x1a, 0x80, 0x10, 0x37, 0x5a, 0x02, 0x80, 3, 0x40, 0, 8];
        assert_eq!(debug_vector(Endian::Little), [&little[..], &[0; 4]].concat());
        assert_eq!(debug_vector(Endian::Big), [&big[..], &[0; 4]].concat());
    }
}
