//! Translated code on the fake of a real CPU, through the same loop as on the machine.

use super::fake::{Fake, Steps};
use super::{MARGIN, assert_same};
use crate::direct::tests::random::Random;
use crate::direct::{self, Direct, Exit, Policy, Translations};
use crate::interp::tests::machine::{MEMORY, Machine};
use crate::interp::{self, Around};
use crate::translate::tests::random::prepared;
use crate::translate::tests::rig::Rig;

/// Guest instructions of a stream.
const INSTRUCTIONS: u64 = 2500;
/// How far the reference may be behind.
const BEHIND: u64 = 64 * INSTRUCTIONS;

const POLICY: Policy = Policy { user: true, kernel: false, exceptions: false, translated: true };

fn is_like(one: &Machine, other: &Machine) -> bool {
    one.cpu.pc() == other.cpu.pc() && Rig::seen(&one.cpu) == Rig::seen(&other.cpu)
}

fn differences(one: &Machine, other: &Machine) -> String {
    let both = Rig::seen(&one.cpu).into_iter().zip(Rig::seen(&other.cpu));
    both.enumerate()
        .filter(|(_, (a, b))| a != b)
        .fold(String::new(), |all, (n, (a, b))| format!("{all} {n}: {a:#x}, not {b:#x};"))
}

/// Whether memory and FPU are as well.
fn is_really_like(one: &Machine, other: &Machine) -> bool {
    let memory = |gpa| one.doubleword(gpa) == other.doubleword(gpa);
    is_like(one, other)
        && one.cpu.fcsr() == other.cpu.fcsr()
        && (0..32).all(|number| one.cpu.fpr(number) == other.cpu.fpr(number))
        && (0..MEMORY / 4).step_by(8).all(memory)
}

/// Lets the reference come to the state of `machine`.
fn catch_up(reference: &mut Machine, machine: &Machine, really: bool, what: &str) {
    let (mut nearly, mut trail) = (String::new(), Vec::new());
    for _ in 0..BEHIND {
        let matches = |reference: &Machine| {
            is_like(machine, reference) && (!really || is_really_like(machine, reference))
        };
        if matches(reference) {
            return;
        }
        // At the vector too, before anything there is executed.
        let now = reference.cpu.retired();
        reference.cpu.update_interrupts(reference.board.lines, now);
        if reference.cpu.take_interrupt() && matches(reference) {
            return;
        }
        if reference.cpu.pc() == machine.cpu.pc() {
            let differences = differences(machine, reference);
            if nearly.is_empty() || differences.len() < nearly.len() {
                nearly = differences;
            }
        }
        if trail.len() < 60 {
            trail.push(reference.cpu.pc());
        }
        if reference.run(1) != interp::Exit::Limit {
            break;
        }
    }
    panic!("{what}: at {:#x}, reference {trail:x?}, {nearly}", machine.cpu.pc());
}

/// Runs `machine` for some steps, a little more or less; whether it can go on.
fn go(
    machine: &mut Machine,
    direct: &mut Direct,
    steps: u64,
    fake: &mut Fake<'_>,
    clock: &Steps,
) -> bool {
    let Machine { cpu, memory, board } = machine;
    fake.limit = clock.0.get() + cpu.retired() + steps + MARGIN;
    let until = fake.limit - MARGIN;
    loop {
        let around = Around::alone(memory, board, clock);
        match direct::run(direct, cpu, fake, around, POLICY, steps, until) {
            Exit::Time => return true,
            Exit::Interpret | Exit::Device if clock.0.get() + cpu.retired() >= until => {
                return true;
            }
            Exit::Interpret | Exit::Device => {}
            Exit::Wait { .. } | Exit::UnreachableVector(_) | Exit::Lost => return false,
        }
    }
}

/// Runs one stream both ways.
fn stream(seed: u64) -> (Translations, u64) {
    let mut reference = prepared(seed);
    let mut machine = prepared(seed);
    let clock = Steps::default();
    let endian = machine.cpu.endian();
    let shared = &raw const machine.memory;
    // SAFETY: the machine outlives the fake and stays where it is; both use its memory through shared references.
    let mut fake = Fake::new(endian, unsafe { &*shared }, &clock);
    let mut direct = Direct::new();
    let mut random = Random(!seed);
    let begin = reference.cpu.retired();
    let mut runs = 0;
    while reference.cpu.retired() - begin < INSTRUCTIONS && runs < INSTRUCTIONS {
        runs += 1;
        let steps = match random.next() % 4 {
            0 => 1 + random.next() % 4,
            1 | 2 => 1 + random.next() % 24,
            _ => 1 + random.next() % 300,
        };
        let goes_on = go(&mut machine, &mut direct, steps, &mut fake, &clock);
        let what = format!("seed {seed}, {steps} steps");
        catch_up(&mut reference, &machine, false, &what);
        if !goes_on {
            break;
        }
        if random.next().is_multiple_of(5) {
            catch_up(&mut reference, &machine, true, &what);
            let lines = random.pick(&[0, 0, 1, 2, 0x20]);
            reference.board.lines = lines;
            machine.board.lines = lines;
        }
    }
    catch_up(&mut reference, &machine, true, &format!("seed {seed}, at the end"));
    for machine in [&mut reference, &mut machine] {
        let now = machine.cpu.retired();
        machine.cpu.update_interrupts(machine.board.lines, now);
    }
    assert_same(&mut reference, &mut machine, &format!("seed {seed}"));
    (direct.translations().copied().unwrap_or_default(), fake.completed)
}

#[test]
fn random_streams_run_as_interpreted() {
    let mut all = Translations::default();
    let mut completed = 0;
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
    };
    let (first, streams) = (number("TRANSLATE_SEED", 0), number("TRANSLATE_STREAMS", 100));
    for seed in first..first + streams {
        let (counters, ran) = stream(seed);
        completed += ran;
        all.made += counters.made;
        all.chained += counters.chained;
        all.jumps += counters.jumps;
        all.interpreted += counters.interpreted;
        all.resumed += counters.resumed;
        all.guesses += counters.guesses;
        all.written += counters.written;
    }
    println!("{completed} words: {all:?}");
    for count in
        [all.made, all.chained, all.jumps, all.interpreted, all.resumed, all.guesses, all.written]
    {
        assert!(count > streams / 10, "{all:?}");
    }
    assert!(completed > streams * 100, "{completed}");
}
