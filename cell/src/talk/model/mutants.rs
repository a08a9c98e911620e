//! Would the search find a mistake? Each of these faults is seeded into the protocols, and has to be found.

use super::super::mutant::{Mutant, seed};
use super::cases::{self, Case};
use super::explore::{Broken, explore};

/// Every fault, and the case in which it is looked for.
fn table() -> Vec<(Mutant, fn() -> Case)> {
    vec![
        (Mutant::CommitFirst, cases::two_calls),
        (Mutant::NoEpochCheck, cases::one_move),
        (Mutant::StaleLines, cases::two_calls),
        (Mutant::NoDuplicateCheck, cases::two_calls),
        (Mutant::AnyReply, cases::two_calls),
        (Mutant::DoubleRetry, cases::two_calls),
        (Mutant::SequenceKept, cases::two_calls),
        (Mutant::RequestNotRepeated, cases::one_move),
        (Mutant::ReplyNotRepeated, cases::one_move),
        (Mutant::AnswersOutlast, cases::one_move),
        (Mutant::LateIsDead, cases::two_calls),
        (Mutant::UnreachableIsDead, cases::two_calls),
        (Mutant::HintTrusted, cases::one_move),
        (Mutant::AcknowledgedEarly, cases::one_move),
        (Mutant::MessageTwice, cases::one_move),
        (Mutant::MarksLeftBehind, cases::one_move),
        (Mutant::SenderIncarnationIgnored, cases::sender_reboots),
        (Mutant::OutOfOrder, cases::two_messages),
        (Mutant::GivenUpEarly, cases::one_move),
        (Mutant::ToldTwice, cases::one_move),
        (Mutant::OneAnswerIsEnough, cases::one_move),
        (Mutant::OldAnswersCount, cases::one_move),
        (Mutant::OldHintTaken, cases::one_move),
        (Mutant::OwnedFromOffer, cases::one_move),
        (Mutant::OwnedUntilTaken, cases::one_move),
        (Mutant::TakenBack, cases::one_move),
        (Mutant::ArrivalForgotten, cases::one_move),
        (Mutant::DepartureForgotten, cases::one_move),
    ]
}

/// What the search finds with a fault seeded.
fn hunt(mutant: Option<Mutant>, case: &Case) -> Option<Broken> {
    seed(mutant);
    let found = explore(case, super::LIMIT).err();
    seed(None);
    found
}

#[test]
fn each_seeded_fault_is_found() {
    for case in [cases::two_calls, cases::one_move, cases::two_messages, cases::sender_reboots] {
        assert!(hunt(None, &case()).is_none(), "{}", case().name);
    }
    println!("| fault | found in | what was broken | states | actions |\n|---|---|---|---|---|");
    for (mutant, case) in table() {
        let case = case();
        let Some(found) = hunt(Some(mutant), &case) else { panic!("{mutant:?} was not found") };
        let (states, actions) = (found.states, found.way.len());
        println!("| {mutant:?} | {} | {} | {states} | {actions} |", case.name, found.what);
        assert!(!found.what.starts_with("more than"), "{mutant:?}: {}", found.what);
    }
}
