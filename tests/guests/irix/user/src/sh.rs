//! The shell, and the ancestor of all processes.

use crate::say;
use crate::start::Words;
use crate::sys;
use irix_user::calls::{PROGRAMS, SIGINT};

/// Longest command.
const LINE: usize = 128;

/// Runs the commands of a word `do=…` and switches the machine off, else those that are typed.
pub fn main(words: Words) -> u32 {
    say!("irix: shell ready");
    let mut i = 1;
    while let Some(word) = words.get(i) {
        if let Some(commands) = word.strip_prefix("do=") {
            commands.split(',').for_each(command);
            sys::off();
        }
        i += 1;
    }
    let mut line = [0; LINE];
    loop {
        sys::write(1, b"irix# ");
        let len = sys::read(0, &mut line);
        let typed = usize::try_from(len).map_or(&[][..], |len| &line[..len]);
        command(core::str::from_utf8(typed).unwrap_or(""));
    }
}

/// Does one command. A word's parts may be separated by `:` too, since `do=` knows no spaces.
fn command(line: &str) {
    let mut parts = line.split([' ', ':', '\n']).filter(|part| !part.is_empty());
    let Some(name) = parts.next() else { return };
    match name {
        "help" => help(),
        "exit" | "off" => sys::off(),
        "panic" => sys::panic("as you wished"),
        "cpus" => say!("{} running", sys::cpus()),
        "ps" => ps(),
        "run" => run(parts.clone().next().unwrap_or(""), parts.skip(1)),
        _ => run(name, parts),
    }
}

fn help() {
    say!("panic             the kernel panics");
    say!("ps                the processes");
    say!("cpus              how many CPUs run");
    say!("run NAME WORD...  a program, and so does its name alone:");
    for name in PROGRAMS {
        say!("  {name}");
    }
    say!("exit, off         switch the machine off");
}

fn ps() {
    say!("  PID PARENT S PAGES NAME");
    for record in (0..).map_while(sys::ps) {
        let name = record.name.split(|&byte| byte == 0).next().unwrap_or(&[]);
        let name = core::str::from_utf8(name).unwrap_or("?");
        let state = char::from(record.state as u8);
        say!("{:5} {:6} {state} {:5} {name}", record.pid, record.parent, record.pages);
    }
}

/// Runs a program in the foreground and says how it ended, if not well.
fn run<'a>(name: &'a str, words: impl Iterator<Item = &'a str>) {
    let mut all = [0; LINE + 1];
    let mut len = 0;
    for word in core::iter::once(name).chain(words) {
        // Each with its NUL.
        let Some(room) = all.get_mut(len..=len + word.len()) else {
            say!("{name}: more than {LINE} characters");
            return;
        };
        room[..word.len()].copy_from_slice(word.as_bytes());
        len += word.len() + 1;
    }
    let child = sys::fork();
    if child == 0 {
        sys::setpgrp(0);
        sys::exec(&all[..len]);
        say!("{name}? try help");
        sys::exit(127);
    }
    if child < 0 {
        say!("{name}: no process to run it");
        return;
    }
    sys::foreground(child as u32);
    // Orphans come to this process too.
    while let Some((pid, status)) = sys::wait(0) {
        if pid == child as u32 {
            match (status >> 8, status & 0x7f) {
                (0 | 127, 0) | (_, SIGINT) => {}
                (code, 0) => say!("{name}: exit status {code}"),
                (_, signal) => say!("{name}: killed by signal {signal}"),
            }
            break;
        }
    }
    sys::foreground(0);
}
