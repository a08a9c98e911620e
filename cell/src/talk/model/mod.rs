//! The model checker: every state of small machines on which the protocols run, as they are.
//!
//! `docs/talking.md` says what is checked, `docs/results/model.md` how much of it there is.

mod cases;
mod explore;
mod mutants;
mod part;
mod record;
mod soak;
mod world;

use cases::{Case, large, small};
use explore::explore;
use std::time::Instant;

/// More states than this are too many.
const LIMIT: usize = 60_000_000;

/// Searches a case, which must be in order, and reports its size.
fn search(case: &Case) {
    let start = Instant::now();
    match explore(case, LIMIT) {
        Ok(all) => println!(
            "| {} | {} | {} | {} | {} | {:.1} s |",
            case.name,
            all.states,
            all.steps,
            all.depth,
            all.ends,
            start.elapsed().as_secs_f64()
        ),
        Err(broken) => panic!(
            "{}: {} after {} states:\n{}",
            case.name,
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

#[test]
#[ignore = "minutes and gigabytes; docs/results/model.md has its figures"]
fn large_cases_are_in_order() {
    println!("| case | states | steps | depth | ends | host time |\n|---|---|---|---|---|---|");
    large().iter().for_each(search);
}
