//! `tests/boots.toml`: what is run on the machine, and what must come of it.

use crate::endian::Endian;
use crate::paths;
use crate::run::script;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The manifest.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Boots of the machine (`cargo xtask run`).
    #[serde(default)]
    pub boot: Vec<Boot>,
    /// Boots of guests without a monitor.
    #[serde(default)]
    pub bare: Vec<Bare>,
    /// Other commands of `cargo xtask` that are tests.
    #[serde(default)]
    pub command: Vec<Other>,
}

/// One boot. It passes only if exit status, end markers and absence of forbidden lines agree.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// Its name, unique.
    pub name: String,
    /// What it shows.
    pub what: String,
    /// Byte orders to boot in, each as a test of its own; none: that of the images.
    #[serde(default)]
    pub endian: Vec<Endian>,
    /// The configuration's text; none: what runs without one.
    pub config: Option<String>,
    /// The script's text. Lines between `@repeat N` and `@end` stand for N times themselves.
    pub script: Option<String>,
    /// Further arguments of `cargo xtask run`; `{dir}` is the test's own folder.
    #[serde(default)]
    pub args: Vec<String>,
    /// The exit status.
    #[serde(default)]
    pub status: u8,
    /// Regular expressions that the output must match, line by line.
    pub markers: Vec<String>,
    /// Regular expressions that no line of the output may match, beside those for all boots.
    #[serde(default)]
    pub forbidden: Vec<String>,
    /// Regular expressions that match several lines of the output, all with the same text.
    #[serde(default)]
    pub equal: Vec<String>,
    /// By VM, a file of the checkout: what its console must print, line by line.
    #[serde(default)]
    pub output: BTreeMap<String, String>,
    /// The same for a part of what the console prints: from the file's first line on, as many lines as the file
    /// has.
    #[serde(default)]
    pub excerpt: BTreeMap<String, String>,
    /// Consoles to attach to meanwhile, each with `cargo xtask console`.
    #[serde(default)]
    pub attach: Vec<Attach>,
    /// Host seconds it may take on a host that does nothing else.
    pub timeout: u64,
    /// It is run twice: both runs must print the same, bit for bit.
    #[serde(default)]
    pub twice: bool,
    /// A further run with this seed must print something else.
    pub other_seed: Option<u64>,
}

/// A console attached to beside a boot, until the boot ends.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attach {
    /// Its name.
    pub console: String,
    /// What is typed there.
    #[serde(default)]
    pub types: String,
    /// Regular expressions that what it shows must match, line by line.
    pub markers: Vec<String>,
}

/// Boots of a guest on bare QEMU, one for each image, byte order and number of CPUs. Each passes only if QEMU
/// ends with status 0 and the console is the file, line by line.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bare {
    /// The first part of their names, unique.
    pub name: String,
    /// What they show.
    pub what: String,
    /// The guests, as `kernel` in a configuration names them.
    pub images: Vec<String>,
    /// Byte orders.
    pub endian: Vec<Endian>,
    /// Numbers of CPUs.
    pub cpus: Vec<u32>,
    /// Memory, as QEMU's `-m` takes it.
    pub memory: String,
    /// The guest's command line; it must end the machine.
    pub cmdline: String,
    /// A file of the checkout: what the guest prints.
    pub output: String,
    /// The file is only a part of it: from the file's first line on, as many lines as the file has.
    #[serde(default)]
    pub excerpt: bool,
    /// Host seconds each may take on a host that does nothing else.
    pub timeout: u64,
}

/// A command of `cargo xtask` that is a test by itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Other {
    /// Its name, unique.
    pub name: String,
    /// What it shows.
    pub what: String,
    /// The command's words.
    pub args: Vec<String>,
    /// The exit status.
    #[serde(default)]
    pub status: u8,
    /// Regular expressions that the output must match, line by line.
    pub markers: Vec<String>,
    /// It takes too long for every day: run only when it is asked for by its whole name.
    #[serde(default)]
    pub by_name: bool,
    /// Host seconds it may take on a host that does nothing else.
    pub timeout: u64,
}

/// How much longer than the manifest says a test may take. Its seconds are for a host that does nothing else; a
/// limit is there for what hangs, and must not fail what is only slow.
const PATIENCE: u32 = 5;
/// `run`'s exit status when a step of its script fails.
const STATUS_FAILED: u8 = 1;
/// `run`'s exit status after its time-out: such a boot is to be ended by it.
const STATUS_TIMEOUT: u8 = 124;

impl Manifest {
    /// Reads the checkout's manifest.
    ///
    /// # Errors
    /// When it is not there or not well-formed.
    pub fn read() -> Result<Self> {
        let path = paths::workspace().join("tests/boots.toml");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        let mut manifest: Self = toml::from_str(text)?;
        for boot in &mut manifest.boot {
            // Under icount a script's seconds are not the host's; and a script may fail on purpose.
            let is_hosts =
                boot.status != STATUS_FAILED && !boot.args.iter().any(|arg| arg == "--icount");
            if let Some(script) = &mut boot.script {
                let wrong = || format!("the script of {:?}", boot.name);
                *script = repeat(script).with_context(wrong)?;
                if is_hosts {
                    *script = script::patient(script, PATIENCE).with_context(wrong)?;
                }
            }
        }
        let boots = manifest.boot.iter_mut().filter(|boot| boot.status != STATUS_TIMEOUT);
        let boots = boots.map(|boot| &mut boot.timeout);
        let commands = manifest.command.iter_mut().map(|other| &mut other.timeout);
        let bare = manifest.bare.iter_mut().map(|bare| &mut bare.timeout);
        for timeout in boots.chain(commands).chain(bare) {
            *timeout *= u64::from(PATIENCE);
        }
        let boots = manifest.boot.iter().map(|boot| (&boot.name, &boot.markers));
        let others = manifest.command.iter().map(|other| (&other.name, &other.markers));
        let mut seen = Vec::new();
        for (name, markers) in boots.chain(others) {
            if seen.contains(&name) {
                bail!("two tests are called {name:?}");
            }
            if markers.is_empty() {
                bail!("{name:?} has no markers: it would pass whatever was printed");
            }
            seen.push(name);
        }
        for bare in &manifest.bare {
            if seen.contains(&&bare.name) {
                bail!("two tests are called {:?}", bare.name);
            }
            if super::bare::machines(bare).is_empty() {
                bail!(
                    "{:?} boots nothing: it needs images, byte orders and numbers of CPUs",
                    bare.name
                );
            }
            seen.push(&bare.name);
        }
        Ok(manifest)
    }
}

/// A script with what is to be repeated written out.
fn repeat(script: &str) -> Result<String> {
    let mut out = String::new();
    // Of each `@repeat` that is open: how often, and the text before it.
    let mut open: Vec<(usize, String)> = Vec::new();
    for line in script.lines() {
        if let Some(times) = line.strip_prefix("@repeat ") {
            let times = times.parse().context("@repeat wants a number")?;
            open.push((times, std::mem::take(&mut out)));
        } else if line == "@end" {
            let (times, before) = open.pop().context("@end without @repeat")?;
            out = before + &out.repeat(times);
        } else {
            out.push_str(line);
            out.push('\n');
        }
    }
    if open.is_empty() { Ok(out) } else { bail!("@repeat without @end") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_written_out() {
        assert_eq!(repeat("a\n@repeat 3\nb\n@end\nc").unwrap(), "a\nb\nb\nb\nc\n");
        assert_eq!(repeat("@repeat 2\na\n@repeat 2\nb\n@end\n@end").unwrap(), "a\nb\nb\na\nb\nb\n");
        for wrong in ["@repeat x\n@end", "@end", "@repeat 2\n", "@repeat 2\n@repeat 2\n@end"] {
            assert!(repeat(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_manifest_of_this_checkout_is_well_formed() {
        Manifest::read().unwrap();
    }

    #[test]
    fn mistakes_in_a_manifest_are_found() {
        let boot = "[[boot]]\nname = \"a\"\nwhat = \"b\"\nmarkers = [\"x\"]\ntimeout = 1\n";
        assert_eq!(Manifest::parse(boot).unwrap().boot.len(), 1);
        for text in [
            format!("{boot}{boot}"),
            boot.replace("[\"x\"]", "[]"),
            format!("{boot}unknown = 1\n"),
            boot.replace("timeout = 1\n", ""),
        ] {
            assert!(Manifest::parse(&text).is_err(), "{text}");
        }
    }
}
