//! The model check of recovery: whole cells, as the monitor has them, and everything that can happen to small machines of them.
//!
//! `docs/talking.md` says what is checked, `docs/results/model.md` how much of it there is.

mod cases;
mod inside;
mod machine;
mod rules;
mod search;
mod toy;
mod verdict;
mod world;

use crate::local::LocalCell;
use crate::memmap::Owner;
use crate::talk::CellSet;
use crate::talk::model::explore::{Broken, explore};
use crate::talk::model::{LIMIT, report};
use crate::talk::mutant::{Mutant, seed};
use abi::event::Cause;
use abi::{CellId, VmId};
use cases::Case;
use search::{Search, Walked, walk};
use std::rc::Rc;
use std::time::Instant;
use world::{Action, Doing, World};

/// Searches a case, which must be in order, and reports its size.
fn search(case: &Case) {
    let start = Instant::now();
    report(case.name, start, explore(&Search::new(case), LIMIT));
}

/// Walks at random, each decided by its seed.
fn walk_all(case: &Case, seeds: impl Iterator<Item = u64>) {
    let (start, config) = (Instant::now(), Rc::new(case.config()));
    let mut walked = Walked::default();
    for (number, seed) in (1..).zip(seeds) {
        if let Err(broken) = walk(case, &config, seed, &mut walked) {
            panic!("{broken}\n({} walks went well)", number - 1);
        }
        if number % 50_000 == 0 {
            println!("up to seed {seed}: {walked}, {:.0} s", start.elapsed().as_secs_f64());
        }
    }
    println!("{}: {walked}, {:.1} s", case.name, start.elapsed().as_secs_f64());
}

#[test]
fn small_recoveries_are_in_order() {
    println!("| case | states | steps | depth | ends | host time |\n|---|---|---|---|---|---|");
    for case in [cases::two_deaths, cases::hang_alone] {
        search(&case());
    }
}

/// Whoever has a page of which a line is lost ends, whether it depended on the dead cell or not; then nothing is left of it.
#[test]
fn a_vm_that_lives_ends_with_a_line_of_its_memory() {
    let case = Case { vms: vec![cases::local(0, 1)], deaths: 1, ..Case::default() };
    let config = Rc::new(case.config());
    let mut world = World::new(&case, &config);
    let [first, second, third] = [0, 1, 2].map(CellId);
    world.act(Action::Does(first, Doing::Step)).expect("its first turn");
    let line = {
        let ground = &mut *world.ground.borrow_mut();
        let page = ground.truth.pages_of(VmId(0), 1).next().expect("a page that was touched");
        ground.truth.lost.insert(page);
        page
    };
    world.act(Action::Dies(third)).expect("a death");
    world.ground.borrow_mut().found = CellSet::one(third);
    for _ in 0..4 {
        for cell in [first, second] {
            world.with_cell(cell, LocalCell::look);
            world.flush(cell);
        }
    }
    let cell = world.cell(first).expect("it lives");
    assert_eq!(cell.end_of(VmId(0)).map(|end| end.cause), Some(Cause::CellLost));
    assert_eq!(cell.forgotten_line(), None);
    let ground = world.ground.borrow();
    assert!(!ground.truth.lost.contains(&line), "it can be used again");
}

/// A borrower dies and its CPUs stop; a third cell's CPU still has a VCPU that uses the loan.
#[test]
fn a_loan_is_not_over_while_a_third_cell_uses_it() {
    let wide = cases::Vm { pages: 3, vcpus: 3, ..cases::spread(0b111) };
    // The home has but one page for it.
    let case = Case {
        cpus: 2,
        vms: vec![wide, cases::local(0, 3)],
        commands: vec![(0, "migrate 0.1 3")],
        deaths: 1,
        late_stops: true,
        ..Case::default()
    };
    let config = Rc::new(case.config());
    let mut world = World::new(&case, &config);
    let [home, third, lender] = [0, 1, 2].map(CellId);
    let turn = |world: &mut World, cell, doings: &[Doing]| {
        for doing in doings {
            world.act(Action::Does(cell, *doing)).expect("it is in order");
            world.flush(cell);
        }
    };
    let lent = |world: &World| {
        let ground = world.ground.borrow();
        let pages: Vec<_> = ground.truth.pages_of(VmId(0), 1).collect();
        pages.into_iter().find(|page| ground.home_of(*page) == Some(lender))
    };
    let page = (0..100).find_map(|_| {
        for cell in [home, third, lender] {
            turn(&mut world, cell, &[Doing::Look(CellSet::NONE)]);
            for from in [home, third, lender].into_iter().filter(|from| *from != cell) {
                turn(&mut world, cell, &[Doing::Talk(Some(from))]);
            }
        }
        turn(&mut world, home, &[Doing::Step, Doing::Command(0)]);
        let visits = world.ground.borrow().truth.on_cpu.contains_key(&third);
        turn(&mut world, third, if visits { &[] } else { &[Doing::Take] });
        lent(&world).filter(|_| visits)
    });
    let page = page.expect("a page that is lent, and a VCPU in the third cell");
    let owner = |world: &World| {
        let cell = world.cell(lender).expect("it lives");
        cell.frames().look(|map| map.owner(page)).expect("a page of it")
    };
    world.act(Action::Dies(home)).expect("a death");
    world.act(Action::Stops(home)).expect("its CPUs stop");
    let look = |world: &mut World| {
        for _ in 0..4 {
            for (cell, other) in [(third, lender), (lender, third)] {
                turn(world, cell, &[Doing::Look(CellSet::one(home)), Doing::Talk(Some(other))]);
            }
        }
    };
    look(&mut world);
    assert!(!world.cell(lender).is_some_and(|cell| cell.live.has(home)), "they have agreed");
    assert!(matches!(owner(&world), Owner::Quarantined { .. }), "the third cell uses it");
    turn(&mut world, third, &[Doing::Back]);
    look(&mut world);
    assert_eq!(owner(&world), Owner::Free);
}

#[test]
fn walks_are_in_order() {
    walk_all(&cases::everything(), 0..3000);
}

/// Minutes: `docs/results/model.md` has the figures.
mod large {
    use super::*;

    #[test]
    #[ignore = "takes long"]
    fn recoveries_are_in_order() {
        for case in [
            cases::alarm,
            cases::borrower,
            cases::hang,
            cases::spread_once,
            cases::spread_wide,
            cases::spread_twice,
        ] {
            search(&case());
        }
    }

    /// `FIRST_SEED` and `WALKS` say where to begin and how many walks there are to be.
    #[test]
    #[ignore = "takes long"]
    fn long_walks_are_in_order() {
        let number = |name: &str, default| {
            std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
        };
        let first = number("FIRST_SEED", 0);
        walk_all(&cases::everything(), first..first + number("WALKS", 250_000));
    }
}

/// Faults, and the cases in which they are looked for among all states.
const HUNTED: [(Mutant, fn() -> Case); 6] = [
    (Mutant::OneTooMany, cases::two_deaths),
    (Mutant::LossForgotten, cases::two_deaths),
    (Mutant::LossToldTwice, cases::two_deaths),
    (Mutant::FenceForgotten, cases::hang),
    (Mutant::SuspicionKept, cases::alarm),
    (Mutant::QuarantineSkipped, cases::borrower),
];

/// Those that are looked for at random.
const WALKED: [Mutant; 11] = [
    Mutant::SettledTooSoon,
    Mutant::LenderForgotten,
    Mutant::VcpuForgotten,
    Mutant::NothingHeld,
    Mutant::LinesKept,
    Mutant::VisitKept,
    Mutant::EndToldTwice,
    Mutant::CallNotUnwound,
    Mutant::LoanKept,
    Mutant::DeadAsked,
    Mutant::BallotOfAnyEpoch,
];

#[test]
fn each_fault_of_recovery_is_found() {
    println!("| fault | found in | what was broken | states | actions |\n|---|---|---|---|---|");
    let mut missed = Vec::new();
    for (mutant, case) in HUNTED {
        let case = case();
        seed(Some(mutant));
        let found = explore(&Search::new(&case), LIMIT).err();
        seed(None);
        let Some(Broken { what, way, states }) = found else {
            missed.push(mutant);
            continue;
        };
        println!("| {mutant:?} | {} | {what} | {states} | {} |", case.name, way.len());
        assert!(!what.starts_with("more than"), "{mutant:?}: {what}");
    }
    assert!(missed.is_empty(), "{missed:?} were not found");
}

#[test]
fn each_fault_of_recovery_is_walked_into() {
    println!("| fault | what was broken | walks | steps |\n|---|---|---|---|");
    let mut missed = Vec::new();
    for mutant in WALKED {
        // There is much else that could happen.
        let case = match mutant {
            Mutant::SettledTooSoon => cases::comes_back(),
            _ => cases::everything(),
        };
        let config = Rc::new(case.config());
        let mut walked = Walked::default();
        seed(Some(mutant));
        let found = (0..3000).find_map(|seed| walk(&case, &config, seed, &mut walked).err());
        seed(None);
        let Some(what) = found else {
            missed.push(mutant);
            continue;
        };
        let rule = what.split([',', ':']).next().unwrap_or_default();
        println!("| {mutant:?} | {rule} | {} | {} |", walked.walks, walked.steps);
    }
    assert!(missed.is_empty(), "{missed:?} were not walked into");
}
