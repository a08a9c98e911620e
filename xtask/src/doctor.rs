//! Reports host, versions, cache, and what is missing with its remedy.

use crate::endian::Endian;
use crate::setup::{self, cache::Store, guest, lock::Group, qemu, toolchain};
use anyhow::Result;
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

/// Reports host, versions, cache, and what is missing with its remedy.
///
/// Fetches nothing and changes nothing. Exit status: 0 if nothing is missing, 2 otherwise.
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// There is no report to make: no cache folder is named, or the lock file is broken.
pub fn main(_: &Args) -> Result<ExitCode> {
    let store = Store::open()?;
    let mut report = Report::default();
    report.good("host", &host());
    let rust = toolchain::Host::find();
    match &rust {
        Ok(rust) => report.good("host's Rust", &format!("{}, {}", rust.version, rust.triple)),
        Err(error) => report.bad("host's Rust", &format!("{error:#}"), "install it with rustup"),
    }
    if let Ok(rust) = &rust {
        match rust.linker() {
            Ok(path) => report.good("linker", &path.display().to_string()),
            Err(error) => report.bad("linker", &format!("{error:#}"), ""),
        }
    }
    mirror(&mut report);
    cache(&mut report, &store);
    compiler(&mut report, &store, rust.as_ref().ok());
    emulator(&mut report, &store);
    stock_guest(&mut report, &store);
    print!("{}", report.text);
    Ok(if report.bad { ExitCode::from(crate::EXIT_SETUP) } else { ExitCode::SUCCESS })
}

/// Lines of findings.
#[derive(Default)]
struct Report {
    text: String,
    bad: bool,
}

impl Report {
    /// A finding that needs nothing.
    fn good(&mut self, title: &str, finding: &str) {
        writeln!(self.text, "{title:<12} {finding}").expect("a String takes everything");
    }

    /// A finding that stands in the way, with its remedy.
    fn bad(&mut self, title: &str, finding: &str, remedy: &str) {
        self.bad = true;
        self.good(title, &format!("MISSING: {finding}"));
        if !remedy.is_empty() {
            self.good("", &format!("remedy: {remedy}"));
        }
    }

    /// A group that has yet to be fetched.
    fn yet_to_fetch(&mut self, title: &str, store: &Store, group: Group) {
        let missing = store.missing(group);
        let size: u64 = missing.iter().map(|artefact| artefact.size).sum();
        let finding = format!("{} to download", setup::size_text(size));
        match setup::can_fetch() {
            Ok(()) => self.bad(title, &finding, "`cargo xtask setup` (run and test do it too)"),
            Err(error) => self.bad(title, &finding, &format!("{error:#}")),
        }
    }
}

/// Operating system, processor and memory.
fn host() -> String {
    let field = |file: &str, key: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let value = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("unknown");
        value.trim().trim_matches('"').to_owned()
    };
    let memory = field("/proc/meminfo", "MemAvailable:");
    let memory: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!(
        "{}, {}, {processors} CPUs, {} of memory available",
        field("/etc/os-release", "PRETTY_NAME="),
        std::env::consts::ARCH,
        setup::size_text(memory * 1024)
    )
}

/// Where packages would come from.
fn mirror(report: &mut Report) {
    match setup::mirror_names() {
        Ok(names) => report.good("mirror", &names.join(", ")),
        // Not missing: whoever has all in the cache, or tools of their own, needs none.
        Err(error) => report.good("mirror", &format!("none: {error:#}")),
    }
}

/// The cache folder, and what in it belongs to no lock file of this checkout.
fn cache(report: &mut Report, store: &Store) {
    let dir = store.dir();
    let free = dir.ancestors().find_map(|folder| setup::free_space(folder).ok()).unwrap_or(0);
    report.good("cache", &format!("{}, {} free", dir.display(), setup::size_text(free)));
    let strangers = store.strangers();
    if !strangers.is_empty() {
        report.good("", "of other versions, needed only by older checkouts:");
        strangers.iter().for_each(|name| report.good("", &format!("  {name}")));
    }
    for group in Group::ALL {
        for artefact in store.artefacts(group) {
            let file = store.download(artefact);
            if file.exists() && !setup::is_intact(&file, &artefact.sha256) {
                let finding = format!("{} is damaged: its SHA-256 is another", file.display());
                report.bad("", &finding, &format!("rm {}", file.display()));
            }
        }
        if store.is_substituted(group) {
            report.good("", &format!("{group} stands in for a version the mirror has dropped"));
        }
    }
}

/// The compiler for the bare machine.
fn compiler(report: &mut Report, store: &Store, rust: Option<&toolchain::Host>) {
    const TITLE: &str = "compiler";
    match rust {
        Some(rust) if rust.is_enough() => {
            report.good(TITLE, &format!("{}, with its own rust-src", rust.version));
        }
        _ if !store.missing(Group::Compiler).is_empty() => {
            report.yet_to_fetch(TITLE, store, Group::Compiler);
        }
        _ => {
            let rustc = store.folder(Group::Compiler).join("rustc");
            match toolchain::version(&rustc) {
                Ok(version) => report.good(TITLE, &format!("{version}, {}", rustc.display())),
                Err(error) => broken(report, TITLE, &error, &store.folder(Group::Compiler)),
            }
        }
    }
}

/// The emulator, in both byte orders.
fn emulator(report: &mut Report, store: &Store) {
    const TITLE: &str = "emulator";
    if !qemu::is_own_preferred() && !store.missing(Group::Qemu).is_empty() {
        report.yet_to_fetch(TITLE, store, Group::Qemu);
        return;
    }
    for endian in Endian::ALL {
        match qemu::qemu(endian, None) {
            Ok(found) => report
                .good(TITLE, &format!("{endian}: {}, {}", found.version, found.program.display())),
            Err(error) => broken(report, TITLE, &error, &store.folder(Group::Qemu)),
        }
    }
}

/// The stock guest's packages and the files made from them.
fn stock_guest(report: &mut Report, store: &Store) {
    const TITLE: &str = "guest";
    for group in [Group::Linux, Group::Busybox, Group::Debian] {
        if !store.missing(group).is_empty() {
            report.yet_to_fetch(TITLE, store, group);
            return;
        }
    }
    match guest::look(store) {
        Ok(Some(guest)) => {
            report.good(TITLE, &guest.version);
            for file in [&guest.vmlinuz, &guest.vmlinux, &guest.initrd] {
                report.good("", &file.display().to_string());
            }
            report.good("", &format!("SHA-256 of the kernel's segment: {}", guest.segment_sha256));
        }
        Ok(None) => report.bad(TITLE, "not unpacked yet, or damaged", "`cargo xtask setup`"),
        Err(error) => report.bad(TITLE, &format!("{error:#}"), ""),
    }
    match guest::debian::look(store) {
        Ok(Some(file)) => report.good("", &file.display().to_string()),
        Ok(None) => report.bad(
            TITLE,
            "its file system with Debian's programs is not made yet, or damaged",
            "`cargo xtask setup`",
        ),
        Err(error) => report.bad(TITLE, &format!("{error:#}"), ""),
    }
}

/// Something in the cache that does not work.
fn broken(report: &mut Report, title: &str, error: &anyhow::Error, folder: &Path) {
    let remedy = format!("rm -r {}, then `cargo xtask setup`", folder.display());
    report.bad(title, &format!("{error:#}"), &remedy);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_thing_comes_with_its_remedy_and_spoils_the_verdict() {
        let mut report = Report::default();
        report.good("host", "fine");
        assert!(!report.bad);
        report.bad("emulator", "3 packages", "fetch them");
        assert!(report.bad);
        assert_eq!(
            report.text,
            "host         fine\nemulator     MISSING: 3 packages\n             remedy: fetch them\n"
        );
    }

    #[test]
    fn the_host_is_described() {
        let text = host();
        assert!(text.contains(std::env::consts::ARCH) && text.contains("CPUs"), "{text}");
    }
}
