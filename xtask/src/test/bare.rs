//! Boots of a guest on bare QEMU, without a monitor: what it prints there is what it has to print in a VM.

use super::manifest::Bare;
use super::process::{Ended, run, shell_line, tail};
use crate::endian::Endian;
use crate::{build, paths, setup};
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// One of the machines that an entry of the manifest asks for.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The test's name.
    pub name: String,
    image: String,
    endian: Endian,
    cpus: u32,
}

/// All of them: each image, byte order and number of CPUs.
pub fn machines(bare: &Bare) -> Vec<Machine> {
    let mut machines = Vec::new();
    for image in &bare.images {
        for &endian in &bare.endian {
            for &cpus in &bare.cpus {
                let name = format!("{}-{image}-{endian}-{cpus}", bare.name);
                machines.push(Machine { name, image: image.clone(), endian, cpus });
            }
        }
    }
    machines
}

/// A guest that is to be booted without a monitor.
#[derive(Clone, Copy, Debug)]
pub struct Guest<'a> {
    /// The image, as `kernel` in a configuration names it. One of our own has been built already.
    pub image: &'a str,
    /// An initial RAM disk in the place of the image's own.
    pub initrd: Option<&'a Path>,
    /// Its byte order.
    pub endian: Endian,
    /// CPUs.
    pub cpus: u32,
    /// Memory, as QEMU's `-m` takes it.
    pub memory: &'a str,
    /// The guest's command line.
    pub cmdline: &'a str,
}

/// Boots a guest on bare QEMU; its end, and the command that does it again.
///
/// # Errors
/// It could not be run.
pub fn boot(guest: Guest<'_>, name: &str, limit: Duration) -> Result<(Ended, String)> {
    let (kernel, initrd) = match guest.image {
        "debian" | "linux" => {
            let stock = if guest.image == "linux" {
                setup::guest::linux()?
            } else {
                setup::guest::debian()?
            };
            (stock.vmlinux, Some(stock.initrd))
        }
        own => (build::built(own, guest.endian), None),
    };
    let mut command = setup::qemu::qemu(guest.endian, None)?.command();
    command
        .args(["-M", "malta", "-cpu", "MIPS64R2-generic", "-m", guest.memory])
        .args(["-smp", &guest.cpus.to_string()])
        .args(["-nodefaults", "-vga", "none", "-nic", "none", "-display", "none"])
        .args(["-serial", "stdio", "-no-reboot", "-append", guest.cmdline, "-kernel"])
        .arg(kernel);
    if let Some(initrd) = guest.initrd.or(initrd.as_deref()) {
        command.arg("-initrd").arg(initrd);
    }
    let reproduce = shell_line(&command);
    Ok((run(command, name, limit)?, reproduce))
}

/// How a bare machine's end differs from switching itself off.
pub fn not_ended(ended: &Ended) -> Option<String> {
    match ended.status {
        Some(status) if status.success() => None,
        Some(status) => Some(format!("QEMU: {status}")),
        None => Some("unknown: it did not end in time".into()),
    }
}

/// Runs a machine; what was wrong, and the command that does it again.
///
/// # Errors
/// It could not be run.
pub fn test(bare: &Bare, machine: &Machine) -> Result<(Vec<String>, String)> {
    let guest = Guest {
        image: &machine.image,
        initrd: None,
        endian: machine.endian,
        cpus: machine.cpus,
        memory: &bare.memory,
        cmdline: &bare.cmdline,
    };
    let (ended, reproduce) = boot(guest, &machine.name, Duration::from_secs(bare.timeout))?;
    let mut wrong: Vec<_> = not_ended(&ended).into_iter().collect();
    let part = if bare.excerpt { Part::Excerpt } else { Part::All };
    wrong.extend(difference(&ended.output, &bare.output, part)?);
    if !wrong.is_empty() {
        wrong.push("the end of its output:".into());
        wrong.extend(tail(&ended.output, 25));
    }
    Ok((wrong, reproduce))
}

/// How much of a console's text a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    All,
    /// From the file's first line on, as many lines as the file has.
    Excerpt,
}

/// The first line in which a console's text is not that of a file of the checkout.
///
/// # Errors
/// The file can't be read.
pub fn difference(text: &str, file: &str, part: Part) -> Result<Option<String>> {
    let wanted =
        fs::read_to_string(paths::workspace().join(file)).with_context(|| file.to_string())?;
    Ok(compare(text, &wanted, file, part))
}

/// The same with what the console is to print, and where that comes from.
pub fn compare(text: &str, wanted: &str, source: &str, part: Part) -> Option<String> {
    let text = text.replace('\r', "");
    let lines = wanted.lines().count();
    let (before, length) = match (part, wanted.lines().next()) {
        (Part::Excerpt, Some(first)) => {
            (text.lines().take_while(|line| *line != first).count(), lines)
        }
        _ => (0, usize::MAX),
    };
    let (mut found, mut wanted) = (text.lines().skip(before).take(length), wanted.lines());
    for number in 1.. {
        match (found.next(), wanted.next()) {
            (None, None) => break,
            (found, wanted) if found == wanted => {}
            (found, wanted) => {
                let show = |line: Option<&str>| line.map_or("nothing".into(), |l| format!("{l:?}"));
                let (found, wanted) = (show(found), show(wanted));
                return Some(format!("line {number} is {found}, in {source} {wanted}"));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_is_a_machine_of_its_own() {
        let bare = Bare {
            name: "n".into(),
            what: String::new(),
            images: vec!["a".into(), "b".into()],
            endian: vec![Endian::Little, Endian::Big],
            cpus: vec![1],
            memory: "8M".into(),
            cmdline: String::new(),
            output: String::new(),
            excerpt: false,
            timeout: 1,
        };
        let names: Vec<_> = machines(&bare).into_iter().map(|machine| machine.name).collect();
        assert_eq!(names, ["n-a-little-1", "n-a-big-1", "n-b-little-1", "n-b-big-1"]);
    }

    #[test]
    fn the_first_difference_is_found() {
        let file = "tests/guests/irix/check.txt";
        let text = fs::read_to_string(paths::workspace().join(file)).unwrap();
        assert_eq!(difference(&text.replace('\n', "\r\n"), file, Part::All).unwrap(), None);
        let found = |text: &str| difference(text, file, Part::All).unwrap().unwrap();
        assert!(found("").starts_with("line 1 is nothing, in tests/guests/irix/check.txt \"irix"));
        let more = text.clone() + "more\n";
        assert!(found(&more).ends_with("is \"more\", in tests/guests/irix/check.txt nothing"));
        let excerpt = |text: &str| difference(text, file, Part::Excerpt).unwrap();
        assert_eq!(excerpt(&format!("booting\n{more}")), None);
        let (first, rest) = text.split_once('\n').unwrap();
        let message = excerpt(&format!("x\n{first}\nmore\n{rest}")).unwrap();
        assert!(message.starts_with("line 2 is \"more\", in"), "{message}");
        assert!(excerpt("booting\n").unwrap().starts_with("line 1 is nothing"));
    }
}
