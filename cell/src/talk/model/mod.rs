//! The model checker: every state of small machines on which the protocols run, as they are.
//!
//! `docs/talking.md` says what is checked, `docs/results/model.md` how much of it there is.

mod cases;
mod explore;
mod record;
mod world;

use cases::{large, small};
use explore::explore;
use std::time::Instant;
use world::Case;

/// Searches a case, which must be in order, and reports its size.
fn search(case: &Case) {
    let start = Instant::now();
    match explore(case, 40_000_000) {
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
    small().iter().for_each(search);
}

#[test]
#[ignore = "minutes and gigabytes; docs/results/model.md has its figures"]
fn large_cases_are_in_order() {
    large().iter().for_each(search);
}
