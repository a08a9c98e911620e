//! The model checker: every state of small machines on which the protocols run, as they are.
//!
//! `docs/talking.md` says what is checked, `docs/results/model.md` how much of it there is.

mod agreements;
mod cases;
pub(crate) mod explore;
mod members;
mod memory;
mod mutants;
mod part;
mod record;
mod soak;
mod world;

use cases::{Case, small};
use explore::{Broken, Searched, explore};
use std::time::Instant;

/// More states than this are too many.
pub(crate) const LIMIT: usize = 60_000_000;

/// Searches a case, which must be in order, and reports its size.
fn search(case: &Case) {
    let start = Instant::now();
    report(case.name, start, explore(case, LIMIT));
}

/// Prints what a search from `start` on has come to.
pub(crate) fn report(name: &str, start: Instant, found: Result<Searched, Broken>) {
    match found {
        Ok(all) => println!(
            "| {name} | {} | {} | {} | {} | {:.1} s |",
            all.states,
            all.steps,
            all.depth,
            all.ends,
            start.elapsed().as_secs_f64()
        ),
        Err(broken) => panic!(
            "{name}: {} after {} states:\n{}",
            broken.what,
            broken.states,
            broken.way.join("\n")
        ),
    }
}

#[test]
fn small_cases_are_in_order() {
    println!("| case | states | steps | depth | ends | host time |\n|---|---|---|---|---|---|");
    small().iter().for_each(search);
}

/// Minutes and gigabytes: `docs/results/model.md` has the figures.
mod large {
    use super::{cases, search};

    #[test]
    #[ignore = "takes long"]
    fn calls_are_in_order() {
        search(&cases::many_calls());
    }

    #[test]
    #[ignore = "takes long"]
    fn refused_moves_are_in_order() {
        search(&cases::refused_moves());
    }

    #[test]
    #[ignore = "takes long"]
    fn returns_are_in_order() {
        search(&cases::returns());
    }

    #[test]
    #[ignore = "takes long"]
    fn contention_is_in_order() {
        search(&cases::contention());
    }

    #[test]
    #[ignore = "takes long"]
    fn messages_are_in_order() {
        search(&cases::many_messages());
    }
}
