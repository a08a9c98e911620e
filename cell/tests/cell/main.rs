//! A cell on the simulated machine: turns, lives, memory, console.

mod cluster;
mod cpus;
mod lives;
mod loans;
mod orphans;
mod remap;
mod scripts;
#[path = "../../sim/mod.rs"]
mod sim;
mod visits;

use abi::VmId;
use abi::event::Cause;
use abi::ring::stream::MONITOR;
use abi::script::{Act, Outcome, Step};
use sim::{Build, Program, Run, console};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;

fn ran(run: &Run, vm: u16) -> u64 {
    run.world.borrow().ran.get(&VmId(vm)).copied().unwrap_or(0)
}

#[test]
fn a_run_ends_when_its_vms_have() {
    let mut run = Build::new(64)
        .vm("a", 8, Program::Live(30 * MS, Cause::PowerOff))
        .vm("b", 8, Program::Live(MS, Cause::Reset))
        .boot(None);
    assert_eq!(run.run(SECOND), Some(Outcome::Done));
    assert_eq!(run.story(), ["up", "start a", "start b", "b reset", "a power-off"]);
    assert_eq!(run.now(), 31 * MS);
    let mut empty = Build::new(64).boot(None);
    assert_eq!(empty.run(SECOND), Some(Outcome::Done));
}

#[test]
fn vms_take_turns_by_weight_and_a_loop_stops_nobody() {
    let mut run = Build::new(64)
        .vm_with("loop", 8, Program::Loop, |vm| vm.weight = 300)
        .vm("print", 8, Program::Print("x"))
        .vm("refuse", 8, Program::Refuse)
        .vm("tick", 8, Program::Tick(100 * MS))
        .boot(None);
    assert_eq!(run.run(4 * SECOND), None);
    let (a, b) = (ran(&run, 0), ran(&run, 1));
    assert!(a.abs_diff(3 * SECOND) < 20 * MS, "{a} and {b} of 4 s at 3 to 1");
    assert!(b.abs_diff(SECOND) < 20 * MS, "{a} and {b} of 4 s at 3 to 1");
    assert_eq!(run.printed(console(1)).len() as u64, b / MS);
    let ticks: String = (1..40).map(|i| format!("tick {i}\r\n")).collect();
    assert_eq!(run.printed(console(3)), ticks, "no tick was missed");
    // The monitor answers between two slices.
    assert!(run.command("vms").contains("loop    running"));
}

#[test]
fn who_waits_uses_no_cpu() {
    let mut run = Build::new(64).vm("tick", 8, Program::Tick(SECOND)).boot(None);
    assert_eq!(run.run(100 * SECOND), None);
    assert!(ran(&run, 0) < 101 * 20_000, "{}", ran(&run, 0));
    let usage = run.cell.usage_of(VmId(0)).unwrap();
    assert_eq!(usage.run_ns, ran(&run, 0));
    assert_eq!(usage.run_ns + usage.idle_ns, usage.life_ns);
    assert_eq!(usage.counters, [("ticks", 99), ("runs ns", usage.run_ns)]);
}

#[test]
fn a_guest_is_typed_at_however_slow_its_uart() {
    let mut run = Build::new(64).vm("sh", 8, Program::Shell).vm("x", 8, Program::Loop).boot(None);
    run.run(10 * MS);
    assert_eq!(run.printed(console(0)), "guest: shell ready\r\n# ");
    run.cell.input(console(0), b"a line of many bytes\nand another\nexi");
    run.run(400 * MS);
    run.cell.input(console(0), b"t\n");
    run.cell.input(console(7), b"nobody\n");
    run.cell.input(3, b"no console\n");
    run.run(800 * MS);
    let printed = run.printed(console(0));
    assert!(printed.contains("you said a line of many bytes\r\n# and another\r\n"), "{printed}");
    assert_eq!(run.story(), ["up", "start sh", "start x", "sh power-off"]);
    // Typing at a machine that is off.
    run.cell.input(console(0), b"hello\n");
    run.command("start sh");
    run.run(900 * MS);
    assert_eq!(run.printed(console(0)), format!("{printed}guest: shell ready\r\n# "));
}

#[test]
fn a_hundred_lives_in_one_boot_leave_the_memory_as_it_was() {
    let mut build = Build::new(64).stay().vm("bystander", 10, Program::Tick(7 * MS));
    for i in 0..100u64 {
        let causes = [Cause::PowerOff, Cause::Reset, Cause::Budget, Cause::UnreachableVector];
        let program = Program::Live(1 + i * MS / 3, causes[i as usize % 4]);
        build = build.vm_with(&format!("v{i}"), 1 + i % 38, program, |vm| vm.autostart = false);
    }
    let mut run = build.boot(None);
    run.run(100 * MS);
    let before = run.command("mem");
    assert!(before.contains(
        "all: free 38 + monitor 16 + VM 10 + lent 0 + quarantined 0 = total 64 pages of 4 KB\n"
    ));
    assert!(before.ends_with("consistent: every page has the one owner that is recorded\n"));
    for i in 0..100 {
        assert_eq!(run.command(&format!("start v{i}")), format!("VM `v{i}` started\n"));
        assert_ne!(run.command("mem"), before);
        assert_eq!(run.cell.audit(), Ok(()));
        run.run(run.now() + 50 * MS);
        assert!(run.cell.end_of(VmId(i + 1)).is_some(), "v{i} has ended");
        assert_eq!(run.command("mem"), before);
    }
    assert_eq!(run.story().len(), 2 + 200);
    assert!(run.printed(console(0)).lines().count() > 100, "the bystander went on");
}

#[test]
fn a_vm_that_does_not_fit_is_refused_with_the_figures() {
    let mut run = Build::new(64)
        .stay()
        .vm("big", 40, Program::Loop)
        .vm("more", 9, Program::Loop)
        .vm_with("fits", 8, Program::Loop, |vm| vm.autostart = false)
        .boot(None);
    assert_eq!(run.story(), ["up", "start big", "more no-memory"]);
    let why = "VM `more` needs 36 KB and 32 KB are free (cell 0: node 0 16 KB, node 1 172 KB, less \
               156 KB promised to VMs): stop another VM, or give this one less memory\n";
    assert_eq!(run.command("start more"), why);
    assert_eq!(run.story().len(), 3, "a refused command is no event");
    run.command("start fits");
    assert_eq!(run.command("start fits"), "VM `fits` runs already\n");
    assert_eq!(run.command("stop big"), "VM `big` ended: stopped\n");
    assert_eq!(run.command("start more"), "VM `more` started\n");
    assert_eq!(run.cell.audit(), Ok(()));
}

#[test]
fn a_full_heap_is_not_the_images_fault() {
    let mut run = Build::new(64).stay().vm("big", 8, Program::Big).boot(None);
    assert_eq!(run.story(), ["up", "big no-memory"]);
    assert_eq!(run.command("start big"), "VM `big` can't be started: the heap is too full\n");
    assert!(run.command("mem").contains("VM 0 + lent 0 + quarantined 0 = total 64"));
}

#[test]
fn what_makes_a_vm_slow_is_said_whenever_it_starts() {
    let mut run = Build::new(64).stay().vm("slow", 8, Program::Slow).boot(None);
    run.run(20 * MS);
    let remark = "VM `slow` is slow: let it have more heap";
    assert_eq!(run.printed(MONITOR).matches(remark).count(), 1);
    assert!(run.command("stats slow").contains("  kernel mode   slow\n"));
    run.command("stop slow");
    assert!(run.command("start slow").starts_with(remark));
}

#[test]
fn a_bad_image_gives_its_memory_back() {
    let mut run = Build::new(64).stay().vm("bad", 8, Program::Bad).boot(None);
    assert_eq!(run.story(), ["up", "bad bad-image"]);
    assert_eq!(run.command("start bad"), "VM `bad` can't be started: its kernel is no ELF\n");
    assert!(run.command("mem").contains("VM 0 + lent 0 + quarantined 0 = total 64"));
    assert_eq!(run.command("stop bad"), "VM `bad` does not run\n");
    assert_eq!(run.command("stats bad"), "VM `bad`: defined, never started\n");
}

#[test]
fn an_end_for_cause_is_reported_where_the_operator_looks() {
    let mut run = Build::new(64)
        .stay()
        .vm("good", 8, Program::Shell)
        .vm("bad", 8, Program::Live(5 * MS, Cause::UnreachableVector))
        .boot(None);
    run.cell.input(MONITOR, b"vm");
    run.run(20 * MS);
    let printed = run.printed(MONITOR);
    let (_, said) = printed.split_once("honeycomb> vm").unwrap();
    assert_eq!(
        said,
        "\r\nVM `bad` ended: unreachable-vector\r\n  pc 0x80001234: sll\r\n  why\r\nhoneycomb> vm"
    );
    run.cell.input(MONITOR, b"\x15");
    let stats = run.command("stats bad");
    assert!(stats.starts_with("VM `bad`: ended (unreachable-vector)\n  instructions  5000000\n"));
    assert!(
        stats
            .ends_with("  ticks         0\n  runs ns       5000000\n  pc 0x80001234: sll\n  why\n"),
        "{stats}"
    );
    assert!(run.command("stats good").contains("  exits         slice 0, idle 1, send 0\n"));
}

#[test]
fn mistakes_at_the_console_name_what_there_is() {
    let mut run = Build::new(64).stay().vm("linux", 8, Program::Loop).boot(None);
    assert_eq!(run.command("stop linx"), "no VM `linx`: did you mean `linux`? There are: linux\n");
    assert_eq!(run.command("stats abcdef"), "no VM `abcdef`: there are: linux\n");
    assert_eq!(
        run.command("hlep"),
        "unknown command `hlep`: did you mean `help`? `help` explains all\n"
    );
    assert_eq!(run.command(""), "");
    let help = run.command("help");
    for topic in cell::console::HELP {
        assert!(help.contains(topic.usage) && help.contains(topic.what));
        let detail = run.command(&format!("help {}", topic.name()));
        assert!(detail.contains(topic.more.lines().next().unwrap()), "{detail}");
        assert!(detail.contains(&format!("For example: {}", topic.example)), "{detail}");
    }
    assert_eq!(
        run.command("help stpo"),
        "unknown command `stpo`: did you mean `stop`? `help` explains all\n"
    );
    let mut none = Build::new(64).stay().boot(None);
    assert_eq!(none.command("stop x"), "no VM `x`: none is configured\n");
}

#[test]
fn keys_at_the_console_edit_complete_and_recall() {
    let mut run = Build::new(64).stay().vm("linux", 8, Program::Loop).boot(None);
    let mut typed = |keys: &[u8]| {
        let before = run.printed(MONITOR).len();
        run.cell.input(MONITOR, keys);
        run.printed(MONITOR)[before..].to_string()
    };
    assert_eq!(typed(b"sta\t"), "sta\r\nstart  stats\r\nhoneycomb> sta");
    assert!(typed(b"t\tl\t\r").starts_with("ts linux \r\nVM `linux`: running\r\n"));
    assert!(typed(b"\x1b[A\x1b[A\x01\x0bst\to\tli\t\r").contains("VM `linux` ended: stopped\r\n"));
    assert_eq!(typed(b"ab\x1b[D\x0c"), "ab\x08\x1b[H\x1b[2Jhoneycomb> ab\x08");
}

#[test]
fn quit_ends_every_vm_and_the_run() {
    let mut run = Build::new(64).vm("a", 8, Program::Loop).vm("b", 8, Program::Shell).boot(None);
    run.run(20 * MS);
    run.cell.input(MONITOR, b"quit\nvms\n");
    assert_eq!(run.run(SECOND), Some(Outcome::Done));
    assert_eq!(run.story(), ["up", "start a", "start b", "a quit", "b quit"]);
    assert!(
        run.printed(MONITOR).ends_with("> quit\r\nVM `a` ended: quit\r\nVM `b` ended: quit\r\n")
    );
}

/// A script that talks to a shell and the monitor, without expressions: what it types arrives.
#[test]
fn a_script_drives_the_machine() {
    let acts = [
        Act::Wait { ns: 100 * MS },
        Act::Send { bytes: b"hello\n".to_vec() },
        Act::Wait { ns: 100 * MS },
        Act::Console { stream: MONITOR },
        Act::Send { bytes: b"stop sh\nquit\n".to_vec() },
    ];
    let script: Vec<Step> =
        acts.into_iter().zip(1..).map(|(act, line)| Step { line, act }).collect();
    let mut run = Build::new(64).vm("sh", 8, Program::Shell).boot(Some(script.clone()));
    assert_eq!(run.run(SECOND), Some(Outcome::ScriptPassed));
    assert_eq!(run.now(), 200 * MS);
    assert!(run.printed(console(0)).contains("you said hello"));
    assert_eq!(run.story(), ["up", "start sh", "sh stopped"]);

    // Somebody else quits first.
    let mut run = Build::new(64).vm("sh", 8, Program::Shell).boot(Some(script));
    run.run(50 * MS);
    run.cell.input(MONITOR, b"quit\n");
    let outcome = run.run(SECOND);
    assert!(matches!(outcome, Some(Outcome::ScriptFailed { line: 1, .. })), "{outcome:?}");

    // A script outlives its VMs, and ends the run.
    let script = vec![Step { line: 1, act: Act::Wait { ns: 100 * MS } }];
    let mut run = Build::new(64).vm("a", 8, Program::Live(MS, Cause::PowerOff)).boot(Some(script));
    assert_eq!(run.run(SECOND), Some(Outcome::ScriptPassed));
    assert_eq!(run.now(), 100 * MS);
}

#[test]
fn a_seed_decides_the_whole_run() {
    let story = |seed| {
        let mut run = Build::new(64)
            .seed(seed)
            .vm("a", 8, Program::Live(100 * MS, Cause::PowerOff))
            .vm("b", 8, Program::Live(90 * MS, Cause::Budget))
            .vm("t", 8, Program::Tick(13 * MS))
            .boot(None);
        run.run(SECOND);
        let world = run.world.borrow();
        (world.events.clone(), world.streams.clone())
    };
    assert_eq!(story(4), story(4));
    assert_ne!(story(4), story(5));
}

/// Whatever is typed at the monitor, it answers the next command.
#[test]
fn random_typing_at_the_monitor_is_harmless() {
    let mut run = Build::new(64).stay().vm("a", 8, Program::Loop).boot(None);
    let mut rng = cell::rng::Rng::new(2);
    let words = [
        "vms", "start a", "stop a", "stats a", "mem", "help", " ", "\n", "\r", "\x03", "\x1b[", "x",
    ];
    for _ in 0..5000 {
        let word = words[rng.below(words.len() as u64) as usize].as_bytes();
        run.cell.input(MONITOR, word);
        run.cell.input(MONITOR, &[rng.bits() as u8]);
        run.go_on();
    }
    assert_eq!(run.cell.audit(), Ok(()));
    run.cell.input(MONITOR, b"~\x03");
    assert!(run.command("vms").starts_with("name  state"));
}
