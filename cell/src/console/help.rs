//! What the commands are, for `help` and for completion.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

/// What can follow a command's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// Nothing that could be completed.
    None,
    /// A VM's name.
    Vm,
    /// A command's name.
    Command,
}

/// Which cells a command concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The leader.
    Here,
    /// The one that has the VM that is named.
    Vm,
    /// All.
    All,
}

/// One command, explained.
#[derive(Clone, Copy, Debug)]
pub struct Topic {
    /// Its name and what follows it.
    pub usage: &'static str,
    /// What it does: half a line.
    pub what: &'static str,
    /// The same at length, in lines of at most 100 characters.
    pub more: &'static str,
    /// A line that could be typed.
    pub example: &'static str,
    /// What its first argument is.
    pub argument: Argument,
    /// Which cells it concerns.
    pub reach: Reach,
}

impl Topic {
    /// The word by which it is called.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.usage.split(' ').next().unwrap_or(self.usage)
    }
}

/// All commands, in the order in which `help` shows them.
pub const HELP: &[Topic] = &[
    Topic {
        usage: "help [COMMAND]",
        what: "explain the commands, or one of them in detail",
        more: "In a usage, capital letters stand for something to be named and brackets for what may be\n\
               left out. Tab completes the names of commands and VMs, the arrow keys bring back and\n\
               edit earlier lines, Ctrl-U throws the line away. With several cells, `on CELL` behind a\n\
               command asks only that cell.",
        example: "help stats",
        argument: Argument::Command,
        reach: Reach::Here,
    },
    Topic {
        usage: "vms [-v]",
        what: "list the VMs: name, state, memory, weight, how often started, how it ended",
        more: "A VM is `defined` until it is first started, `running` or `paused` while it lives and then `ended`;\n\
               one that has ended can be started again. Weight is its share of the CPU beside others. With -v:\n\
               its home, where its VCPUs and pages are, and on which cells it depends (an essential one can't\n\
               be lost without it).",
        example: "vms",
        argument: Argument::None,
        reach: Reach::All,
    },
    Topic {
        usage: "start VM",
        what: "start a VM that does not run, from the beginning",
        more: "Its memory is taken, cleared, and loaded with its images anew: nothing is left of an earlier\n\
               life. It is refused, with the figures, if its memory is not free. With several cells it starts\n\
               where it was last, or with `on CELL` there, if its configuration permits that.",
        example: "start linux",
        argument: Argument::Vm,
        reach: Reach::Vm,
    },
    Topic {
        usage: "stop VM",
        what: "end a VM at once, as if its machine were switched off",
        more: "The guest is not asked: what it has not written to a disk is lost. All its memory is free\n\
               afterwards. To let it shut itself down, tell it so at its own console.",
        example: "stop linux",
        argument: Argument::Vm,
        reach: Reach::Vm,
    },
    Topic {
        usage: "pause VM",
        what: "stop running a VM until `resume`",
        more: "None of its VCPUs runs, its memory stays, what is typed at it waits. Its clocks go on.",
        example: "pause linux",
        argument: Argument::Vm,
        reach: Reach::Vm,
    },
    Topic {
        usage: "resume VM",
        what: "let a paused VM go on",
        more: "Its VCPUs run on from where they were. What they have missed of time shows on their clocks.",
        example: "resume linux",
        argument: Argument::Vm,
        reach: Reach::Vm,
    },
    Topic {
        usage: "restart VM",
        what: "end a VM as `stop` does and start it from the beginning",
        more: "It ends when those of its VCPUs that run have come back, and begins a new life at once.",
        example: "restart linux",
        argument: Argument::Vm,
        reach: Reach::Vm,
    },
    Topic {
        usage: "destroy VM",
        what: "end a VM as `stop` does and forget its definition",
        more: "It is no longer listed and can't be started again until the machine is.",
        example: "destroy linux",
        argument: Argument::Vm,
        reach: Reach::Vm,
    },
    Topic {
        usage: "vcpus",
        what: "list the VCPUs: state, CPU, node, cell, time run, idle and stolen, how often moved",
        more: "A VCPU is `running` on a CPU, `ready` to (the time it is counts as stolen), `idle` while it waits\n\
               for an interrupt, or `paused` with its VM. An exclamation mark after its CPU: it is pinned there.",
        example: "vcpus",
        argument: Argument::None,
        reach: Reach::All,
    },
    Topic {
        usage: "migrate VM[.N] CPU",
        what: "move VCPU N of a VM, or all of them, to a CPU of this cell",
        more: "One that runs is moved when its CPU has given it back, a moment later. The CPUs still take over\n\
               VCPUs from each other where one would get less than its share: `pin` keeps it where it is.",
        example: "migrate linux.0 1",
        argument: Argument::Vm,
        reach: Reach::Vm,
    },
    Topic {
        usage: "pin VM[.N] CPU",
        what: "as `migrate`, and keep it there",
        more: "Nothing but another `pin` moves it until `unpin`, also not where it gets less than its share.",
        example: "pin linux.0 1",
        argument: Argument::Vm,
        reach: Reach::Vm,
    },
    Topic {
        usage: "unpin VM[.N]",
        what: "let a pinned VCPU be moved again",
        more: "It stays where it is until it is moved, or taken over by a CPU that has more time for it.",
        example: "unpin linux.0",
        argument: Argument::Vm,
        reach: Reach::Vm,
    },
    Topic {
        usage: "stress KIND AMOUNT",
        what: "move random VCPUs (`migrate`) or pages (`remap`) for a while; send `messages` to VCPUs",
        more: "`stress migrate SECONDS` moves VCPUs to random CPUs of the cells that they may use, more than ten a\n\
               second; each move is an event (`vcpu-migrated`). `stress remap SECONDS` has all VCPUs of a random VM\n\
               leave their CPUs, moves some of its pages to other frames, sends some of the VCPUs to other CPUs,\n\
               and lets them go on, thousands of times a second. The frames that are left are overwritten. At the\n\
               end it says how much was moved and whether all pages are accounted for. Seconds are virtual; the\n\
               run's seed decides who goes where and when. Pinned VCPUs stay. `stress messages COUNT` sends so many\n\
               messages to the VCPUs of the VMs that each cell knows, wherever they are, and says whether each was\n\
               executed once and in order.",
        example: "stress migrate 10",
        argument: Argument::None,
        reach: Reach::All,
    },
    Topic {
        usage: "stats VM",
        what: "what a VM has used: instructions, time, exits, device accesses; how it ended",
        more: "Of its present life, or of its last one. Run time is spent in the guest and for it, idle time\n\
               in waiting for an interrupt, waiting time for the CPU, which others had. The counters below\n\
               are those of its engine and devices.",
        example: "stats linux",
        argument: Argument::Vm,
        reach: Reach::Vm,
    },
    Topic {
        usage: "ping CELL [CALLS]",
        what: "have another cell answer calls, one after the other",
        more: "Once if not said how often. When all have been answered it says what time a call took: both\n\
               cells' work, and the time until the other one looked.",
        example: "ping 1 1000",
        argument: Argument::None,
        reach: Reach::Here,
    },
    Topic {
        usage: "repair CELL",
        what: "bring a lost cell back; `repair router N`, `repair link N`: that works again",
        more: "Its nodes get their power and memory back, and a fresh copy of the monitor boots in them. When the\n\
               others have let it in, VMs that were lost with it start again as their policy says. A cell that\n\
               was cut off has parked: repair the router or link first, then the cell.",
        example: "repair 1",
        argument: Argument::None,
        reach: Reach::Here,
    },
    Topic {
        usage: "lend CELL PAGES",
        what: "let another cell use machine pages of this one",
        more: "Pages that are neither used nor promised, or fewer if there are not so many in few pieces. VMs\n\
               of the other cell get them that may depend on this one. `return` and `recall` end the loan.",
        example: "lend 1 256",
        argument: Argument::None,
        reach: Reach::Here,
    },
    Topic {
        usage: "return CELL",
        what: "give back the pages that another cell has lent",
        more: "Loans of which a VM uses or is promised pages are kept.",
        example: "return 1",
        argument: Argument::None,
        reach: Reach::Here,
    },
    Topic {
        usage: "recall CELL",
        what: "have another cell give back the pages that this one has lent it",
        more: "Loans that its VMs use stay with it: stop or move them first.",
        example: "recall 1",
        argument: Argument::None,
        reach: Reach::Here,
    },
    Topic {
        usage: "mem",
        what: "machine memory by owner, for each node, checked page by page",
        more: "Every page has one owner, and the sums are checked against the records of all pages and the\n\
               maps of all VMs each time: `consistent` says that they agree.",
        example: "mem",
        argument: Argument::None,
        reach: Reach::All,
    },
    Topic {
        usage: "selfcheck",
        what: "compare the monitor's code and constants with the image they came from",
        more: "The image in low RAM is first checked against its own checksum. A difference means that\n\
               something has written over the monitor.",
        example: "selfcheck",
        argument: Argument::None,
        reach: Reach::All,
    },
    Topic {
        usage: "cells [-v]",
        what: "list the cells; with -v, the machine addresses of what each holds",
        more: "Shows whether a cell lives, how often it has booted, its nodes and CPUs. With -v: its own copy of\n\
               the monitor's text, constants and data, its CPUs' stacks and private pages, its heap (VMs'\n\
               page tables are in it), and what of windows and slices is left for VMs.",
        example: "cells -v",
        argument: Argument::None,
        reach: Reach::Here,
    },
    Topic {
        usage: "nodes",
        what: "list the nodes: cell, router, CPUs, memory; and the links",
        more: "A node is off when it has no power, and unreachable when no way over routers and links leads to\n\
               it. Then come the links with their two ends, and what of routers and links has failed.",
        example: "nodes",
        argument: Argument::None,
        reach: Reach::Here,
    },
    Topic {
        usage: "fault PART NUMBER [at SECONDS]",
        what: "make a part of the machine fail, now, at a time since power-on or, with `in`, later",
        more: "PART is one of: node (its CPUs stop, its memory is gone), firmware (its CPUs hang, its memory is\n\
               gone 5 ms later), router or link (who reaches whom), cpu (it executes nothing any more),\n\
               false-alarm (a cell is suspected once, wrongly), transient router, transient link (back after\n\
               10 ms). A cell that is not hit does it. `nodes` shows routers, docs/faults.md what is lost.\n\
               `in SECONDS` instead of `at SECONDS`: so long after the command is executed.",
        example: "fault node 2 at 1.5",
        argument: Argument::None,
        reach: Reach::Here,
    },
    Topic {
        usage: "debug FAULT",
        what: "make the monitor itself fail, to test its own handling; `debug ?` lists faults",
        more: "Most faults end the run with status 3, as the monitor's own mistakes do.",
        example: "debug ?",
        argument: Argument::None,
        reach: Reach::Here,
    },
    Topic {
        usage: "quit",
        what: "stop all VMs and end the run",
        more: "Guests are not asked, as with `stop`. With a script the run has passed only if no step was\n\
               left to do.",
        example: "quit",
        argument: Argument::None,
        reach: Reach::Here,
    },
];

/// The command called `name`.
#[must_use]
pub fn topic(name: &str) -> Option<&'static Topic> {
    HELP.iter().find(|topic| topic.name() == name)
}

/// All commands, a line each.
#[must_use]
pub fn overview() -> String {
    let width = HELP.iter().map(|topic| topic.usage.len()).max().unwrap_or(0);
    let mut out = String::new();
    for topic in HELP {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{:width$}  {}", topic.usage, topic.what);
    }
    out
}

/// One command in detail.
#[must_use]
pub fn detail(topic: &Topic) -> String {
    let mut out = format!("{}: {}\n", topic.usage, topic.what);
    for line in topic.more.lines() {
        // Writing to a string does not fail.
        let _ = writeln!(out, "  {line}");
    }
    let _ = writeln!(out, "  For example: {}", topic.example);
    out
}

/// What the last word of `line`, which may be empty, can become: whole words, sorted.
#[must_use]
pub fn complete<'a>(line: &str, vms: impl Iterator<Item = &'a str>) -> Vec<String> {
    let start = line.rfind(' ').map_or(0, |space| space + 1);
    let (before, word) = line.split_at(start);
    let mut before = before.split_whitespace();
    let commands = || HELP.iter().map(Topic::name);
    let argument = match before.next() {
        None => Argument::Command,
        Some(name) if before.next().is_none() => {
            topic(name).map_or(Argument::None, |topic| topic.argument)
        }
        Some(_) => Argument::None,
    };
    let mut found: Vec<String> = match argument {
        Argument::None => Vec::new(),
        Argument::Vm => vms.filter(|vm| vm.starts_with(word)).map(String::from).collect(),
        Argument::Command => commands().filter(|c| c.starts_with(word)).map(String::from).collect(),
    };
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::{Command, parse};

    /// Every command has its topic: a new variant fails to compile here until it is named.
    const fn name(command: &Command<'_>) -> Option<&'static str> {
        Some(match command {
            Command::Nothing => return None,
            Command::Help(_) => "help",
            Command::Vms { .. } => "vms",
            Command::Start(_) => "start",
            Command::Stop(_) => "stop",
            Command::Restart(_) => "restart",
            Command::Pause(_) => "pause",
            Command::Resume(_) => "resume",
            Command::Destroy(_) => "destroy",
            Command::Vcpus => "vcpus",
            Command::Migrate(..) => "migrate",
            Command::Pin(..) => "pin",
            Command::Unpin(_) => "unpin",
            Command::StressMigrate(_) | Command::StressRemap(_) | Command::StressMessages(_) => {
                "stress"
            }
            Command::Stats(_) => "stats",
            Command::Ping(..) => "ping",
            Command::Repair(_) | Command::RepairPart(_) => "repair",
            Command::Lend(..) => "lend",
            Command::Return(_) => "return",
            Command::Recall(_) => "recall",
            Command::Mem => "mem",
            Command::Cells { .. } => "cells",
            Command::Nodes => "nodes",
            Command::SelfCheck => "selfcheck",
            Command::Fault(..) => "fault",
            Command::Debug(_) => "debug",
            Command::Quit => "quit",
        })
    }

    #[test]
    fn every_command_is_explained_with_an_example_that_is_understood() {
        for topic in HELP {
            let parsed = parse(topic.example);
            let command = parsed.unwrap_or_else(|error| panic!("{}: {error}", topic.example));
            assert_eq!(name(&command), Some(topic.name()), "{}", topic.example);
            assert!(!topic.what.is_empty() && topic.more.len() > 40, "{}", topic.usage);
            assert!(topic.more.lines().all(|line| line.len() <= 100), "{}", topic.usage);
            let mut usage = topic.usage.replace("[-v]", "-v").replace("KIND", "remap");
            usage = usage.replace("PART", "router").replace("[at SECONDS]", "at 2");
            for number in ["NUMBER", "CPU", "AMOUNT", "CELL", "[CALLS]", "PAGES", "LOAN"] {
                usage = usage.replace(number, "1");
            }
            assert_eq!(parse(&usage).ok().as_ref().and_then(name), Some(topic.name()));
        }
        let mut names: Vec<&str> = HELP.iter().map(Topic::name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), HELP.len());
    }

    #[test]
    fn help_texts() {
        assert_eq!(overview().lines().count(), HELP.len());
        let stop = detail(topic("stop").unwrap());
        assert!(stop.starts_with("stop VM: end a VM at once"), "{stop}");
        assert!(stop.ends_with("  For example: stop linux\n"), "{stop}");
    }

    #[test]
    fn words_are_completed_where_they_stand() {
        let complete = |line| super::complete(line, ["linux", "irix-2", "irix"].into_iter());
        assert_eq!(complete("st"), ["start", "stats", "stop", "stress"]);
        assert_eq!(complete("q"), ["quit"]);
        assert_eq!(complete("stop i"), ["irix", "irix-2"]);
        assert_eq!(complete("stop "), ["irix", "irix-2", "linux"]);
        assert_eq!(complete("  help sto"), ["stop"]);
        for nothing in ["vms ", "stop linux i", "nonsense l", "x"] {
            assert!(complete(nothing).is_empty(), "{nothing}");
        }
        assert_eq!(complete("").len(), HELP.len());
    }
}
