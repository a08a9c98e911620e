//! What is searched of the agreements, and the faults that have to be found.

use super::super::CellSet;
use super::super::mutant::{Mutant, seed};
use super::explore::{Broken, explore};
use super::members::Members;
use super::report;
use abi::CellId;

const fn of(name: &'static str, cells: usize) -> Members {
    Members {
        name,
        cells,
        nodes: Vec::new(),
        deaths: 0,
        cut: CellSet::NONE,
        heals: false,
        doubter: None,
        hangs: 0,
        reboots: 0,
        lost: CellSet::NONE,
        torn: true,
    }
}

fn two_deaths() -> Members {
    Members { deaths: 2, ..of("3 cells, 2 deaths", 3) }
}

fn doubts() -> Members {
    Members { doubter: Some(CellId(0)), ..of("3 cells, false suspicions", 3) }
}

fn doubts_and_death() -> Members {
    let name = "4 cells, false suspicions, a death";
    Members { deaths: 1, doubter: Some(CellId(1)), ..of(name, 4) }
}

fn four() -> Members {
    Members { deaths: 2, ..of("4 cells, 2 deaths", 4) }
}

fn halves() -> Members {
    Members { cut: CellSet(0b10), ..of("2 cells, a link lost", 2) }
}

fn passing_cut() -> Members {
    Members { cut: CellSet(0b100), heals: true, ..of("3 cells, a link lost and back", 3) }
}

fn cut_and_death() -> Members {
    Members { cut: CellSet(0b001), deaths: 1, ..of("3 cells, a link lost, a death", 3) }
}

fn rejoin_and_death() -> Members {
    Members { deaths: 2, reboots: 1, ..of("3 cells, 2 deaths, a return", 3) }
}

fn quarters() -> Members {
    Members { cut: CellSet(0b1100), ..of("4 cells, halves", 4) }
}

fn hang() -> Members {
    Members { hangs: 1, ..of("3 cells, one hangs, perhaps not for ever", 3) }
}

fn rejoin() -> Members {
    Members { deaths: 1, reboots: 1, ..of("3 cells, a death, a return", 3) }
}

/// Among others: the one that comes back has voted for a live set without one that hung, and who proposed that has died.
fn rejoin_and_hang() -> Members {
    let name = "3 cells, one lost, a return, a death, one hangs";
    let lost = CellSet(0b100);
    Members { lost, deaths: 1, reboots: 1, hangs: 1, torn: false, ..of(name, 3) }
}

fn rejoin_twice() -> Members {
    Members { deaths: 2, reboots: 2, ..of("2 cells, 2 deaths, 2 returns", 2) }
}

/// More states than this are too many.
const LIMIT: usize = 10_000_000;

fn search(case: &Members) {
    let start = std::time::Instant::now();
    report(case.name, start, explore(case, LIMIT));
}

#[test]
fn small_agreements_are_in_order() {
    let cases =
        [halves, passing_cut, two_deaths, doubts, hang, rejoin, rejoin_twice, rejoin_and_hang];
    for case in cases {
        search(&case());
    }
}

/// Minutes: `docs/results/model.md` has the figures.
mod large {
    use super::*;

    #[test]
    #[ignore = "takes long"]
    fn agreements_are_in_order() {
        for case in [four, doubts_and_death, cut_and_death, quarters, rejoin_and_death] {
            search(&case());
        }
    }

    #[test]
    #[ignore = "takes long"]
    fn each_fault_of_the_agreement_of_four_is_found() {
        hunt_all(&[
            (Mutant::ProposalGrows, four),
            (Mutant::NewcomerUnheard, rejoin_and_death),
            (Mutant::NewcomerUnasked, rejoin_and_death),
        ]);
    }
}

#[test]
fn each_fault_of_the_agreement_is_found() {
    hunt_all(&[
        (Mutant::OneSuspectsForAll, doubts),
        (Mutant::AgreesAlone, four),
        (Mutant::ExclusionIgnored, passing_cut),
        (Mutant::TiesWin, halves),
        (Mutant::CutIsDead, passing_cut),
        (Mutant::VoteTakenBack, rejoin_and_hang),
        (Mutant::DroppedForGood, rejoin_and_hang),
    ]);
}

fn hunt(mutant: Mutant, case: &Members) -> Option<Broken> {
    seed(Some(mutant));
    let found = explore(case, LIMIT).err();
    seed(None);
    found
}

/// A fault, and the case in which it is looked for.
type Hunted = (Mutant, fn() -> Members);

/// Finds every fault in the case in which it is looked for.
fn hunt_all(table: &[Hunted]) {
    println!("| fault | found in | what was broken | states | actions |\n|---|---|---|---|---|");
    for (mutant, case) in table {
        let case = case();
        let Some(found) = hunt(*mutant, &case) else { panic!("{mutant:?} was not found") };
        let (states, actions) = (found.states, found.way.len());
        println!("| {mutant:?} | {} | {} | {states} | {actions} |", case.name, found.what);
        assert!(!found.what.starts_with("more than"), "{mutant:?}: {}", found.what);
    }
}
