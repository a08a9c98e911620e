//! Translated code on the fake of a real CPU, through the same loop as on the machine.

use super::fake::{Fake, Steps};
use super::{MARGIN, assert_same, lo, map};
use crate::cpu::CpuModel;
use crate::direct::tests::random::Random;
use crate::direct::{self, Direct, Exit, Policy, Translations};
use crate::endian::Endian;
use crate::interp::tests::machine::asm::*;
use crate::interp::tests::machine::{DEVICE, MEMORY, Machine, START};
use crate::interp::{self, Around};
use crate::translate::tests::random::{CROSSING, has_real_addresses, prepared};
use crate::translate::tests::rig::Rig;

/// Guest instructions of a stream.
const INSTRUCTIONS: u64 = 2500;
/// How far the reference may be behind.
const BEHIND: u64 = 64 * INSTRUCTIONS;

/// Of a kernel that is linked elsewhere, and of one in a supervisor segment.
const POLICY: Policy = Policy { user: true, kernel: false, exceptions: false, translated: true };
const LINKED: Policy = Policy { user: true, kernel: true, exceptions: true, translated: true };

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
        && one.cpu.tlb().entries().eq(other.cpu.tlb().entries())
        && one.cpu.cp0().random() == other.cpu.cp0().random()
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
    go_by(POLICY, machine, direct, steps, fake, clock)
}

fn go_by(
    policy: Policy,
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
        match direct::run(direct, cpu, fake, around, policy, steps, until) {
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
    let policy = if has_real_addresses(seed) { LINKED } else { POLICY };
    while reference.cpu.retired() - begin < INSTRUCTIONS && runs < INSTRUCTIONS {
        runs += 1;
        let steps = match random.next() % 4 {
            0 => 1 + random.next() % 4,
            1 | 2 => 1 + random.next() % 24,
            _ => 1 + random.next() % 300,
        };
        let goes_on = go_by(policy, &mut machine, &mut direct, steps, &mut fake, &clock);
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
    let (mut all, mut linked) = (Translations::default(), Translations::default());
    let mut completed = 0;
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
    };
    let (first, streams) = (number("TRANSLATE_SEED", 0), number("TRANSLATE_STREAMS", 100));
    let crossing = CROSSING | first;
    for seed in (first..first + streams).chain(crossing..crossing + streams / 2) {
        let (counters, ran) = stream(seed);
        completed += ran;
        if has_real_addresses(seed) {
            linked.made += counters.made;
            linked.chained += counters.chained;
            linked.jumps += counters.jumps;
            linked.interpreted += counters.interpreted;
            linked.resumed += counters.resumed;
            linked.quick += counters.quick;
            linked.written += counters.written;
            assert_eq!(counters.guesses + counters.mains, 0, "seed {seed}");
        }
        all.made += counters.made;
        all.chained += counters.chained;
        all.jumps += counters.jumps;
        all.interpreted += counters.interpreted;
        all.resumed += counters.resumed;
        all.guesses += counters.guesses;
        all.written += counters.written;
        all.mains += counters.mains;
        all.posted += counters.posted;
    }
    println!("{completed} words: {all:?}");
    for count in
        [all.made, all.chained, all.jumps, all.interpreted, all.resumed, all.guesses, all.written]
    {
        assert!(count > streams / 10, "{all:?}");
    }
    println!("of kernels in a supervisor segment: {linked:?}");
    for count in [
        linked.made,
        linked.chained,
        linked.jumps,
        linked.interpreted,
        linked.resumed,
        linked.quick,
        linked.written,
    ] {
        assert!(count > 0, "{linked:?}");
    }
    assert!(all.mains > 0 && all.posted > 0 && completed > streams * 100, "{completed} {all:?}");
}

/// A guest of which hot code can't be translated goes into the interpreter and comes back again and again: the time is looked at
/// nonetheless. (It ran for ever once.)
#[test]
fn who_comes_and_goes_is_stopped_in_time() {
    assert!(stream(43_001_771).1 > 0);
}

/// Counts to 2,000 with a branch at its page's end, whose slot is in the next page and counts too; twice, since it writes that slot
/// between.
#[test]
fn a_branch_at_a_page_s_end_is_emitted_with_its_slot_and_made_anew_when_that_is_written() {
    const ROUNDS: u64 = 2000;
    const NEXT: u64 = 0xffff_ffff_8002_1000;
    let program = [
        i(0x19, 5, 0, 0),
        i(0x19, 5, 5, 1),
        bne(5, 6, -2),
        // The next page.
        i(0x19, 7, 7, 1),
        bne(10, 0, 5),
        NOP,
        i(0x2b, 8, 9, 0),
        i(0x19, 10, 10, 1),
        beq(0, 0, -9),
        NOP,
        beq(0, 0, -1),
        NOP,
    ];
    for endian in [Endian::Little, Endian::Big] {
        let mut machine = Machine::new(CpuModel::honeycomb(), endian, &[]);
        machine.cpu.write_cp0(13, 0, 1 << 27, 0);
        machine.place(NEXT - 12, &program);
        machine.cpu.set_pc(NEXT - 12);
        for (number, value) in [(6, ROUNDS), (8, i(0x19, 7, 7, 2).into()), (9, NEXT)] {
            machine.cpu.set_gpr(number, value);
        }
        let clock = Steps::default();
        let shared = &raw const machine.memory;
        // SAFETY: the machine outlives the fake and stays where it is; both use its memory through shared references.
        let mut fake = Fake::new(endian, unsafe { &*shared }, &clock);
        let mut direct = Direct::new();
        let mut runs = 0;
        while machine.cpu.pc() != NEXT + 28 {
            runs += 1;
            assert!(runs < ROUNDS && go(&mut machine, &mut direct, 200, &mut fake, &clock));
        }
        assert_eq!(machine.cpu.gpr(7), 3 * ROUNDS);
        let translations = direct.translations().expect("it was translated");
        assert!(translations.written > 0, "{translations:?}");
        assert!(translations.interpreted < ROUNDS / 8, "{translations:?}");
    }
}

/// `lld`, increment, `scd` until it succeeds, count; for ever. The base is not known where the block begins.
const COUNT: [u32; 9] = count_with(2, 4);

/// It, with these registers for value and base.
const fn count_with(value: u32, base: u32) -> [u32; 9] {
    [
        r(0x25, base, 6, 0),
        i(0x34, value, base, 0),
        i(0x19, value, value, 1),
        i(0x3c, value, base, 0),
        beq(value, 0, -4),
        NOP,
        i(0x19, 5, 5, 1),
        beq(0, 0, -8),
        NOP,
    ]
}

/// Counts by a program at `at` for some runs of about `steps` steps each; how many there were.
fn counted(program: &[u32], at: u64, steps: u64) -> (u64, Direct) {
    let mut machine = Machine::new(CpuModel::honeycomb(), Endian::Big, program);
    machine.cpu.write_cp0(13, 0, 1 << 27, 0);
    machine.cpu.set_gpr(6, at);
    let clock = Steps::default();
    let shared = &raw const machine.memory;
    // SAFETY: the machine outlives the fake and stays where it is; both use its memory through shared references.
    let mut fake = Fake::new(Endian::Big, unsafe { &*shared }, &clock);
    let mut direct = Direct::new();
    for n in 0..200 {
        assert!(go(&mut machine, &mut direct, steps + n % 7, &mut fake, &clock));
        let memory = machine.doubleword(at & 0xf_ffff);
        // The count is one behind between store and increment.
        let behind = memory - machine.cpu.gpr(5);
        assert!(behind <= 1, "{memory} counted, {behind} behind");
    }
    (machine.doubleword(at & 0xf_ffff), direct)
}

#[test]
fn load_linked_and_store_conditional_count_in_emitted_code() {
    let places = [0x9800_0000_0002_0000, 0xffff_ffff_8002_0008];
    // `$k0` and `$k1` are kept in memory.
    let programs = [(2, 4), (26, 4), (27, 4), (26, 27), (27, 26), (2, 27)];
    for (at, (value, base)) in
        places.into_iter().zip([programs; 2]).flat_map(|(at, all)| all.map(|one| (at, one)))
    {
        let (count, direct) = counted(&count_with(value, base), at, 60);
        let translations = direct.translations().expect("it was translated");
        // (Kept registers take more steps.)
        let least = if value.max(base) < 26 { 1000 } else { 300 };
        assert!(count > least, "{count}");
        // Only at first, before they are hot, and where they were stopped.
        assert!(translations.interpreted < 500, "{translations:?}");
    }
}

#[test]
fn a_store_conditional_to_watched_memory_gets_through() {
    // Into the page of the code itself, to which every store is the interpreter's.
    let (count, direct) = counted(&COUNT, START + 0x800, 200);
    assert!(count > 100, "{count}");
    assert!(direct.counters().linked > 0 && direct.translations().is_some_and(|t| t.written > 0));
}

#[test]
fn a_kernel_in_a_supervisor_segment_counts_in_emitted_code() {
    const WINDOW: u64 = 0xffff_ffff_c000_0000;
    // The counter in a page of its own, in that of the code, and where supervisor mode does not come.
    for (at, least) in [
        (WINDOW + 0x2_0000, 1000),
        (WINDOW + START % 0x100_0000 + 0x800, 100),
        (0xffff_ffff_8002_0008, 20),
    ] {
        for (value, base) in [(2, 4), (26, 27), (27, 4)] {
            let mut machine =
                Machine::new(CpuModel::honeycomb(), Endian::Little, &count_with(value, base));
            let cpu = &mut machine.cpu;
            cpu.write_cp0(13, 0, 1 << 27, 0);
            // All memory, in one large page.
            map(cpu, 6, WINDOW, 0, true, [lo(0, 6), 0]);
            let mut entry = *cpu.tlb().entry(6);
            entry.mask = 0x7f_e000;
            cpu.set_tlb(6, entry);
            cpu.set_gpr(6, at);
            cpu.set_pc(WINDOW + START % 0x100_0000);
            let clock = Steps::default();
            let shared = &raw const machine.memory;
            // SAFETY: the machine outlives the fake and stays where it is; both use its memory through shared references.
            let mut fake = Fake::new(Endian::Little, unsafe { &*shared }, &clock);
            let mut direct = Direct::new();
            for n in 0..200 {
                assert!(go_by(LINKED, &mut machine, &mut direct, 60 + n % 7, &mut fake, &clock));
                let memory = machine.doubleword(at & 0xf_ffff);
                let behind = memory - machine.cpu.gpr(5);
                assert!(behind <= 1, "{memory} counted, {behind} behind");
            }
            let count = machine.doubleword(at & 0xf_ffff);
            assert!(count > if value < 26 { least } else { least / 4 }, "{at:#x}: {count}");
        }
    }
}

#[test]
fn a_store_conditional_gets_through_what_the_runtime_executes_before_it() {
    // tlbp, tlbwi, tlbwr: of an entry that nothing uses.
    for between in [0x4200_0008, 0x4200_0002, 0x4200_0006] {
        let mut program = COUNT.to_vec();
        program.insert(3, between);
        // Both branches are behind it.
        program[5] = beq(2, 0, -5);
        program[8] = beq(0, 0, -9);
        let (count, _) = counted(&program, 0x9800_0000_0002_0000, 200);
        assert!(count > 100, "{between:#x}: {count}");
        // In another block than the load-linked.
        program.splice(3..3, [beq(0, 0, 1), NOP]);
        program[7] = beq(2, 0, -7);
        program[10] = beq(0, 0, -11);
        let (count, _) = counted(&program, 0x9800_0000_0002_0000, 200);
        assert!(count > 100, "{between:#x}: {count}");
    }
}

#[test]
fn a_store_conditional_gets_through_behind_a_detour() {
    // Between tlbp and its store-conditional control goes far away (with the addition in the slot) and comes back.
    let mut program = [NOP; 80];
    program[..10].copy_from_slice(&[
        r(0x25, 4, 6, 0),
        i(0x34, 2, 4, 0),
        0x4200_0008,
        beq(4, 6, 60),
        i(0x19, 2, 2, 1),
        i(0x3c, 2, 4, 0),
        beq(2, 0, -6),
        NOP,
        i(0x19, 5, 5, 1),
        beq(0, 0, -10),
    ]);
    program[64] = beq(4, 6, -60);
    let (count, _) = counted(&program, 0x9800_0000_0002_0000, 2000);
    assert!(count > 50, "{count}");
}

#[test]
fn who_has_seen_that_the_timers_time_has_come_sees_its_line() {
    // Compare is Count and a little more; Count until it is there; Cause.TI is counted.
    let program = [
        mfc0(6, 9, 0),
        i(0x09, 6, 6, 200),
        0x4080_0000 | 6 << 16 | 11 << 11,
        mfc0(2, 9, 0),
        r(0x23, 3, 2, 6),
        i(1, 0, 3, -3),
        NOP,
        mfc0(7, 13, 0),
        i(0x1f, 7, 7, 0) | 30 << 6,
        r(0x21, 8, 8, 7),
        i(0x09, 9, 9, 1),
        beq(0, 0, -12),
        NOP,
    ];
    let mut machine = Machine::new(CpuModel::honeycomb(), Endian::Little, &program);
    let clock = Steps::default();
    let shared = &raw const machine.memory;
    // SAFETY: the machine outlives the fake and stays where it is; both use its memory through shared references.
    let mut fake = Fake::new(Endian::Little, unsafe { &*shared }, &clock);
    let mut direct = Direct::new();
    assert!(go(&mut machine, &mut direct, 200_000, &mut fake, &clock));
    let (seen, rounds) = (machine.cpu.gpr(8), machine.cpu.gpr(9));
    assert!(rounds > 50 && rounds - seen <= 1, "{seen} of {rounds}");
    assert!(fake.completed > 1_000, "{}", fake.completed);
}

#[test]
fn accesses_to_devices_are_made_where_they_are() {
    // Stores and loads of all sizes, each value added to $5; a load in a delay slot, and one into $k0.
    let mut program = Vec::new();
    for (store, loads) in
        [(0x3f, [0x37, 0x20]), (0x2b, [0x23, 0x27]), (0x29, [0x21, 0x25]), (0x28, [0x24, 0x20])]
    {
        program.push(i(store, 5, 4, 0));
        for load in loads {
            program.extend([i(load, 2, 4, 0), r(0x2d, 5, 5, 2)]);
        }
    }
    program.extend([i(0x37, 26, 4, 0), r(0x2d, 5, 5, 26), i(0x19, 5, 5, 0x1357)]);
    program.extend([beq(0, 0, -1 - program.len() as i32), i(0x23, 3, 4, 0)]);
    for endian in [Endian::Little, Endian::Big] {
        for base in [0xffff_ffff_a000_0000, 0x9000_0000_0000_0000, 0x9800_0000_0000_0000] {
            let [mut reference, mut machine] = [0, 1].map(|_| {
                let mut machine = Machine::new(CpuModel::honeycomb(), endian, &program);
                machine.cpu.write_cp0(13, 0, 1 << 27, 0);
                machine.cpu.set_gpr(4, base + DEVICE);
                machine.cpu.set_gpr(5, 0x8765_4321_89ab_cdef);
                machine
            });
            let clock = Steps::default();
            let shared = &raw const machine.memory;
            // SAFETY: the machine outlives the fake and stays where it is; both use its memory through shared references.
            let mut fake = Fake::new(endian, unsafe { &*shared }, &clock);
            let mut direct = Direct::new();
            for n in 0..40 {
                assert!(go(&mut machine, &mut direct, 100 + n, &mut fake, &clock));
                catch_up(&mut reference, &machine, true, &format!("{base:#x}, round {n}"));
            }
            let translations = direct.translations().expect("it was translated");
            // Only what comes in a delay slot, and whatever was wrongly guessed once.
            let emulated = direct.counters().emulated;
            assert!(emulated > 5 * translations.interpreted, "{emulated}, {translations:?}");
        }
    }
}
