//! The commands, and what to say to one that is not.

use super::help::{HELP, Topic, topic};
use crate::fault::{Fault, Part, When};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// A command that was understood. Names are as typed: whether they exist is the cell's to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Nothing was typed.
    Nothing,
    /// `help`: explain all commands, or the one named.
    Help(Option<&'a str>),
    /// `vms`: list the VMs; `vms -v`: where what they have lies.
    Vms {
        /// With `-v`.
        places: bool,
    },
    /// `start VM`.
    Start(&'a str),
    /// `stop VM`.
    Stop(&'a str),
    /// `restart VM`.
    Restart(&'a str),
    /// `pause VM`.
    Pause(&'a str),
    /// `resume VM`.
    Resume(&'a str),
    /// `destroy VM`.
    Destroy(&'a str),
    /// `vcpus`: list the VCPUs.
    Vcpus,
    /// `migrate VM[.N] CPU`.
    Migrate(&'a str, u8),
    /// `pin VM[.N] CPU`.
    Pin(&'a str, u8),
    /// `unpin VM[.N]`.
    Unpin(&'a str),
    /// `stress migrate SECONDS`.
    StressMigrate(u64),
    /// `stress messages COUNT`.
    StressMessages(u64),
    /// `stress remap SECONDS`.
    StressRemap(u64),
    /// `stats VM`.
    Stats(&'a str),
    /// `ping CELL [CALLS]`.
    Ping(u8, u64),
    /// `lend CELL PAGES`.
    Lend(u8, u32),
    /// `return CELL`.
    Return(u8),
    /// `recall CELL`.
    Recall(u8),
    /// `repair CELL`.
    Repair(u8),
    /// `repair router N`, `repair link N`.
    RepairPart(Part),
    /// `mem`: the memory accounting.
    Mem,
    /// `cells`: list the cells; `cells -v`: what lies where in them.
    Cells {
        /// With `-v`.
        places: bool,
    },
    /// `nodes`: list the nodes.
    Nodes,
    /// `selfcheck`: the monitor's own image.
    SelfCheck,
    /// `fault KIND NUMBER [at SECONDS | in SECONDS]`: a part of the machine fails, now or then.
    Fault(Fault, Option<When>),
    /// `debug FAULT`: make the monitor fail.
    Debug(&'a str),
    /// `quit`: end the run.
    Quit,
}

/// Understands a line.
///
/// # Errors
/// What to tell the operator: the culprit and the remedy, one line.
pub fn parse(line: &str) -> Result<Command<'_>, String> {
    let mut words = line.split_whitespace();
    let words = &mut words;
    let Some(name) = words.next() else { return Ok(Command::Nothing) };
    let mut next = |what: &str| {
        let usage = topic(name).map_or(name, |topic| topic.usage);
        words.next().ok_or_else(|| format!("{name}: which {what}? Try `{usage}`"))
    };
    let command = match name {
        "help" | "?" => Command::Help(words.next()),
        "vms" => match words.next() {
            None => Command::Vms { places: false },
            Some("-v") => Command::Vms { places: true },
            Some(excess) => return Err(format!("vms: nothing is known to do with `{excess}`")),
        },
        "cells" => match words.next() {
            None => Command::Cells { places: false },
            Some("-v") => Command::Cells { places: true },
            Some(excess) => return Err(format!("cells: nothing is known to do with `{excess}`")),
        },
        "nodes" => Command::Nodes,
        "vcpus" => Command::Vcpus,
        "start" => Command::Start(next(VM)?),
        "stop" => Command::Stop(next(VM)?),
        "restart" => Command::Restart(next(VM)?),
        "pause" => Command::Pause(next(VM)?),
        "resume" => Command::Resume(next(VM)?),
        "destroy" => Command::Destroy(next(VM)?),
        "migrate" => Command::Migrate(next(VM)?, number(name, "CPU", next("CPU")?)?),
        "pin" => Command::Pin(next(VM)?, number(name, "CPU", next("CPU")?)?),
        "unpin" => Command::Unpin(next(VM)?),
        "stress" => {
            let (command, what): (fn(u64) -> _, _) = match next("stress")? {
                "migrate" => (Command::StressMigrate, "number of seconds"),
                "remap" => (Command::StressRemap, "number of seconds"),
                "messages" => (Command::StressMessages, "number of messages"),
                other => {
                    return Err(format!("stress: there is no `{other}`: try `stress migrate 10`"));
                }
            };
            command(number(name, what, next(what)?)?)
        }
        "stats" => Command::Stats(next(VM)?),
        "ping" => {
            let cell = number(name, "cell", next("cell")?)?;
            let calls = words.next().map(|word| number(name, "number of calls", word));
            Command::Ping(cell, calls.transpose()?.unwrap_or(1))
        }
        "lend" => {
            let cell = number(name, "cell", next("cell")?)?;
            let pages = "number of pages";
            Command::Lend(cell, number(name, pages, next(pages)?)?)
        }
        "return" => Command::Return(number(name, "cell", next("cell")?)?),
        "recall" => Command::Recall(number(name, "cell", next("cell")?)?),
        "repair" => match next("cell, router or link")? {
            "router" => Command::RepairPart(Part::Router(number(name, "router", next("router")?)?)),
            "link" => Command::RepairPart(Part::Link(number(name, "link", next("link")?)?)),
            cell => Command::Repair(number(name, "cell", cell)?),
        },
        "mem" => Command::Mem,
        "selfcheck" => Command::SelfCheck,
        "fault" => {
            let (fault, when) = Fault::parse(words)?;
            Command::Fault(fault, when)
        }
        "debug" => Command::Debug(words.next().unwrap_or("?")),
        "quit" => Command::Quit,
        _ => {
            return Err(unknown(name));
        }
    };
    match words.next() {
        Some(excess) => Err(format!("{name}: nothing is known to do with `{excess}`")),
        None => Ok(command),
    }
}

/// What names a VM, where one is missing.
const VM: &str = "VM (`vms` lists them)";

/// A word that is to be a number.
fn number<T: core::str::FromStr>(command: &str, what: &str, word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("{command}: `{word}` is no {what}: a number is wanted"))
}

/// What to say to one who names a command that is not there.
pub fn unknown(name: &str) -> String {
    let nearest = nearest(name, HELP.iter().map(Topic::name));
    let nearest = nearest.map(|n| format!("did you mean `{n}`? ")).unwrap_or_default();
    format!("unknown command `{name}`: {nearest}`help` explains all")
}

/// The candidate that differs least from `word`, if any is near enough to be meant.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = word.chars().count().div_ceil(2).min(3);
    candidates.map(|c| (distance(word, c), c)).filter(|(d, _)| *d <= limit).min().map(|(_, c)| c)
}

/// How many characters to insert, remove or change (Levenshtein 1966), with two neighbours exchanged
/// counted as one step; by rows of the dynamic program (Damerau's "optimal string alignment").
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = changed.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = core::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_make_commands() {
        assert_eq!(parse("  stop   a-b "), Ok(Command::Stop("a-b")));
        assert_eq!(parse(" \t"), Ok(Command::Nothing));
        assert_eq!(parse("? stop"), Ok(Command::Help(Some("stop"))));
    }

    #[test]
    fn mistakes_are_named_with_a_remedy() {
        let said = |line| parse(line).unwrap_err();
        assert_eq!(said("vm"), "unknown command `vm`: did you mean `vms`? `help` explains all");
        assert_eq!(
            said("satrt x"),
            "unknown command `satrt`: did you mean `start`? `help` explains all"
        );
        assert_eq!(said("xyzzy"), "unknown command `xyzzy`: `help` explains all");
        assert_eq!(said("stop"), "stop: which VM (`vms` lists them)? Try `stop VM`");
        assert_eq!(said("pin a"), "pin: which CPU? Try `pin VM[.N] CPU`");
        assert_eq!(said("pin a b"), "pin: `b` is no CPU: a number is wanted");
        assert_eq!(said("stress"), "stress: which stress? Try `stress KIND AMOUNT`");
        assert_eq!(said("stress test"), "stress: there is no `test`: try `stress migrate 10`");
        assert_eq!(said("vms now"), "vms: nothing is known to do with `now`");
    }

    #[test]
    fn distances() {
        for (a, b, d) in [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("sotp", "stop", 1),
            ("ab", "b", 1),
        ] {
            assert_eq!((distance(a, b), distance(b, a)), (d, d), "{a} {b}");
        }
    }
}
