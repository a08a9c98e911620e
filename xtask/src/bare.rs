//! `cargo xtask bare`: one of our own guests on the bare machine, without the monitor. What it prints
//! there is what it has to print in a VM.

use crate::build;
use crate::endian::Endian;
use crate::run::size;
use crate::setup::{self, Need};
use abi::map;
use anyhow::{Context, Result, bail};
use rustix::io::{FdFlags, fcntl_setfd};
use std::io::Write;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

/// Boots one of our own guests on the bare machine, without the monitor.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cargo xtask bare hello                                   at its console; Ctrl-C quits
  cargo xtask bare hello --endian big --append do=sum,off
  echo sum | cargo xtask bare hello --icount

Exit status: 0 the guest switched the machine off; 2 a file or option; else QEMU's own.")]
pub struct Args {
    /// The guest, by its image's name.
    guest: String,
    /// Its byte order.
    #[arg(long, default_value_t)]
    endian: Endian,
    /// Its command line.
    #[arg(long, value_name = "TEXT", default_value = "", allow_hyphen_values = true)]
    append: String,
    /// Bytes of RAM.
    #[arg(long, value_name = "SIZE", default_value = "32M", value_parser = size::parse)]
    memory: u64,
    /// CPUs.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    cpus: u8,
    /// Count instructions instead of host time: two runs are the same.
    #[arg(long)]
    icount: bool,
}

/// What stands at the Debug Mode vector: `deret; nop`. Without it `sdbbp` would run on into the ROM; so
/// it comes back to itself, with interrupts taken between.
fn debug_vector(endian: Endian) -> [u8; 8] {
    match endian {
        Endian::Big => [0x42, 0, 0, 0x1f, 0, 0, 0, 0],
        Endian::Little => [0x1f, 0, 0, 0x42, 0, 0, 0, 0],
    }
}

/// Runs the command: this process becomes QEMU.
///
/// # Errors
/// Set-up, the build, or an unknown guest.
pub fn main(args: &Args) -> Result<ExitCode> {
    let known = build::GUESTS.map(|(name, ..)| name);
    if !known.contains(&args.guest.as_str()) {
        bail!("{} is no guest of ours; there are {}", args.guest, known.join(", "));
    }
    setup::ensure(&[Need::Compiler, Need::Qemu])?;
    let kernel = build::guest(&args.guest, args.endian)?;
    let mut vector = tempfile::tempfile().context("can't make a file for the debug vector")?;
    vector.write_all(&debug_vector(args.endian)).context("can't write the debug vector")?;
    // QEMU inherits it open, and finds it under this name.
    fcntl_setfd(&vector, FdFlags::empty()).context("can't pass the debug vector on")?;
    let vector_name = format!("/proc/self/fd/{}", vector.as_raw_fd());
    let mut qemu = setup::qemu(args.endian, None)?.command();
    qemu.args(["-M", "malta", "-cpu", "MIPS64R2-generic", "-nodefaults", "-no-reboot"])
        .args(["-m", &format!("{}M", args.memory >> 20), "-smp", &args.cpus.to_string()])
        .args(["-vga", "none", "-nic", "none", "-display", "none", "-monitor", "none"])
        .args(["-parallel", "none", "-serial", "stdio", "-device"])
        .arg(format!("loader,file={vector_name},addr={:#x},force-raw=on", map::DEBUG_VECTOR))
        .args(["-append", &args.append])
        .arg("-kernel")
        .arg(kernel);
    if args.icount {
        let clock = "base=2024-01-01T00:00:00,clock=vm";
        qemu.args(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-rtc", clock]);
    } else {
        qemu.args(["-accel", "tcg,thread=multi"]);
    }
    // Not closed: QEMU has it.
    let _ = vector.into_raw_fd();
    Err(qemu.exec()).context("can't start QEMU; run `cargo xtask doctor`")
}
